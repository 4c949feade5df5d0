//! Which addresses belong to some countries, continents or autonomous systems, as ranges.
//!
//! Built once per load of the configuration from the same tables as the map of places, and asked by rules on clients
//! ([`crate::fence`]). Knows no place.

use std::fmt;
use std::net::IpAddr;

use sealane_model::{RegionId, ScopePrefix};

use super::ranges::Boundaries;
use super::{GeoError, GeoTable, Place, Places, centre, mmdb, with_v4_within};

/// What a rule names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// ISO 3166-1 alpha-2, as MMDB tables have them.
    pub countries: Vec<String>,
    /// AF, AN, AS, EU, NA, OC or SA.
    pub continents: Vec<String>,
    /// Numbers of autonomous systems.
    pub systems: Vec<u32>,
}

impl Wanted {
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.countries.is_empty() && self.continents.is_empty() && self.systems.is_empty()
    }

    /// Is there a country of this code?
    #[must_use]
    pub fn is_country(code: &str) -> bool {
        centre::of_country(code).is_some()
    }

    /// Is there a continent of this code?
    #[must_use]
    pub fn is_continent(code: &str) -> bool {
        centre::of_continent(code).is_some()
    }
}

/// The addresses that are wanted. About 260 KiB, and some octets for each range.
pub struct Area(GeoTable);

impl fmt::Debug for Area {
    /// Not all of them: there may be many thousands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Area")
            .field("ranges", &self.0.ranges())
            .finish()
    }
}

impl Area {
    /// From the tables that know of places and of autonomous systems.
    ///
    /// # Errors
    /// The bytes are no MMDB table, or a broken one.
    pub fn build(
        wanted: &Wanted,
        places_table: Option<&[u8]>,
        systems_table: Option<&[u8]>,
    ) -> Result<Self, GeoError> {
        let mut places = Places::default();
        // Any region stands for "inside".
        let inside = RegionId::from_index(0).map_or(Place::Nowhere, Place::Region);
        let (mut v4, mut v6) = (Boundaries::nowhere(), Boundaries::nowhere());
        for table in [places_table, systems_table].into_iter().flatten() {
            let (more_v4, more_v6) = mmdb::read_area(table, wanted, inside, &mut places)?;
            (v4, v6) = (more_v4.over(&v4), more_v6.over(&v6));
        }
        let v6 = with_v4_within(&v4, v6, &mut places);
        Ok(Self(GeoTable::of(&v4, &v6, places)))
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.locate(address).region.is_some()
    }

    /// The leading bits of the address for which [`Area::contains`] says the same.
    #[must_use]
    pub fn scope(&self, address: IpAddr) -> ScopePrefix {
        self.0.locate(address).scope
    }

    /// It holds no address at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.ranges() == 0
    }
}
