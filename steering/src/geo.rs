//! Where an address is: an MMDB table merged with the operator's overrides, as ranges.
//!
//! Built once per load of the configuration, then only read. The table is walked once and folded
//! into ordered ranges of equal *class*, so that a look-up is one binary search and the prefix for
//! which it holds is exact. Opens no file, and never trusts the table's bytes: a broken one is an
//! error, found in time linear in its size.

mod area;
mod centre;
mod mmdb;
mod ranges;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use sealane_model::{Location, RegionId, ScopePrefix};

use crate::fence::canonical;
pub use area::{Area, Wanted};
use ranges::{Boundaries, Class, RangesV4, RangesV6};

/// The operator's word over the table: this network belongs to that region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeoOverride {
    pub net: IpNet,
    pub region: RegionId,
}

/// Where an address is, and for which leading bits of it that holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Located {
    /// From the table, on a grid of half a degree. `None` where an override speaks.
    pub location: Option<Location>,
    /// From an override.
    pub region: Option<RegionId>,
    /// The shortest prefix of the address within which all addresses are located alike.
    pub scope: ScopePrefix,
}

/// Says what is wrong with the table's bytes.
#[derive(Debug, thiserror::Error)]
#[error("not a usable MMDB table: {0}")]
pub struct GeoError(String);

#[derive(Debug, Default)]
pub struct GeoTable {
    v4: RangesV4,
    v6: RangesV6,
    places: Places,
}

/// IPv6 prefixes whose addresses carry an IPv4 address right after the prefix, and are located by
/// it: IPv4-mapped (RFC 4291 §2.5.5.2), Teredo's server (RFC 4380 §4), 6to4 (RFC 3056 §2). MMDB
/// tables alias the same three.
const V4_WITHIN_V6: [(Ipv6Addr, u8); 3] = [
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
];

impl GeoTable {
    /// Every address is nowhere: nothing will depend on where clients are.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// `mmdb`: the bytes of a table with `location.latitude`/`longitude` records (City layout), or
    /// with `country.iso_code` or `continent.code`. Where an override speaks, the table is silent;
    /// of nested overrides the longest prefix wins, of equal ones the last.
    ///
    /// # Errors
    /// The bytes are no MMDB table, a broken one, or one without locations.
    pub fn build(mmdb: Option<Vec<u8>>, overrides: &[GeoOverride]) -> Result<Self, GeoError> {
        let mut places = Places::default();
        let (mut v4, mut v6) = match mmdb {
            Some(bytes) => mmdb::read(&bytes, &mut places)?,
            None => (Boundaries::nowhere(), Boundaries::nowhere()),
        };
        let nets = |family: fn(IpNet) -> Option<ranges::Net>, places: &mut Places| {
            let spoken = overrides.iter().filter_map(|o| {
                let net = family(canonical(o.net))?;
                Some((net, places.class(Place::Region(o.region))))
            });
            Boundaries::nested(spoken.collect())
        };
        v4 = nets(net_v4, &mut places).over(&v4);
        v6 = with_v4_within(&v4, v6, &mut places);
        v6 = nets(net_v6, &mut places).over(&v6);
        Ok(Self::of(&v4, &v6, places))
    }

    fn of(v4: &Boundaries, v6: &Boundaries, places: Places) -> Self {
        Self {
            v4: RangesV4::new(v4),
            v6: RangesV6::new(v6),
            places,
        }
    }

    #[must_use]
    pub fn locate(&self, address: IpAddr) -> Located {
        let (class, scope) = match address {
            IpAddr::V4(v4) => self.v4.find(v4.into()),
            IpAddr::V6(v6) => self.v6.find(v6.into()),
        };
        match (self.places.of(class), address) {
            (Place::Nowhere, _) => located(None, None, scope),
            (Place::Cell(_), _) => located(self.places.location_of(class), None, scope),
            (Place::Region(region), _) => located(None, Some(region), scope),
            (Place::OfV4After(bits), IpAddr::V6(v6)) => self.locate_within(v6, bits, scope),
            // Only the ranges of IPv6 hold that class.
            (Place::OfV4After(_), IpAddr::V4(_)) => located(None, None, scope),
        }
    }

    /// The IPv4 address after `bits` bits decides, and so do the bits before it.
    fn locate_within(&self, address: Ipv6Addr, bits: u8, outer: u8) -> Located {
        let shifted = u128::from(address) << bits >> 96;
        let within = u32::try_from(shifted).unwrap_or_default();
        let inner = self.locate(IpAddr::V4(within.into()));
        let scope = outer.max(bits + inner.scope.0);
        located(inner.location, inner.region, scope)
    }

    /// How many ranges the table was folded into: what a look-up searches.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.v4.len() + self.v6.len()
    }
}

const fn located(location: Option<Location>, region: Option<RegionId>, scope: u8) -> Located {
    Located {
        location,
        region,
        scope: ScopePrefix(scope),
    }
}

fn net_v4(net: IpNet) -> Option<ranges::Net> {
    let IpNet::V4(v4) = net else { return None };
    let start = u32::from(v4.network()).into();
    Some(ranges::Net::new(start, v4.prefix_len(), 32))
}

fn net_v6(net: IpNet) -> Option<ranges::Net> {
    let IpNet::V6(v6) = net else { return None };
    Some(ranges::Net::new(v6.network().into(), v6.prefix_len(), 128))
}

/// Where IPv4 addresses say anything, those of IPv6 that hold one say the same.
fn with_v4_within(v4: &Boundaries, v6: Boundaries, places: &mut Places) -> Boundaries {
    if !v4.say_anything() {
        return v6;
    }
    let within = V4_WITHIN_V6.iter().map(|(prefix, bits)| {
        let net = ranges::Net::new((*prefix).into(), *bits, 128);
        (net, places.class(Place::OfV4After(*bits)))
    });
    v6.over(&Boundaries::nested(within.collect()))
}

/// What all addresses of one class have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Nowhere,
    Cell(Cell),
    Region(RegionId),
    /// Where the IPv4 address is that follows this many bits.
    OfV4After(u8),
}

/// A square of the grid that locations are rounded to, so that neighbours fall into one class:
/// half a degree is at most 39 km off, half a millisecond of round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Cell {
    latitude: i16,
    longitude: i16,
}

impl Cell {
    const PER_DEGREE: f32 = 2.0;

    fn of(location: Location) -> Self {
        // Lawful degrees times two lie within ±360.
        let rounded = |degrees: f32| (degrees * Self::PER_DEGREE).round() as i16;
        Self {
            latitude: rounded(location.latitude()),
            longitude: rounded(location.longitude()),
        }
    }

    fn location(self) -> Option<Location> {
        let degrees = |rounded: i16| f32::from(rounded) / Self::PER_DEGREE;
        Location::new(degrees(self.latitude), degrees(self.longitude))
    }
}

/// Classes and what they mean. There are at most as many as cells (259,921) and regions.
#[derive(Debug)]
struct Places {
    of_class: Vec<Place>,
    /// Of the classes that are cells: a location is dear to make.
    locations: Vec<Option<Location>>,
    known: HashMap<Place, Class>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            of_class: vec![Place::Nowhere],
            locations: vec![None],
            known: HashMap::from([(Place::Nowhere, Class::NOWHERE)]),
        }
    }
}

impl Places {
    fn class(&mut self, place: Place) -> Class {
        *self.known.entry(place).or_insert_with(|| {
            let class = Class::from_index(self.of_class.len());
            self.of_class.push(place);
            self.locations.push(match place {
                Place::Cell(cell) => cell.location(),
                Place::Nowhere | Place::Region(_) | Place::OfV4After(_) => None,
            });
            class
        })
    }

    fn location_of(&self, class: Class) -> Option<Location> {
        self.locations.get(class.index()).copied().flatten()
    }

    fn of(&self, class: Class) -> Place {
        self.of_class
            .get(class.index())
            .copied()
            .unwrap_or(Place::Nowhere)
    }
}

#[cfg(test)]
mod tests;
