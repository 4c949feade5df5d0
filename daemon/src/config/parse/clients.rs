//! Whom a rule on clients means: networks, and what geographic tables say of countries, continents and autonomous
//! systems.

use std::collections::HashMap;
use std::sync::Arc;

use sealane_steering::{Area, Wanted};

use super::super::decode::{At, OneOrMany};
use super::super::error::Mistake;
use super::super::files::DATABASE_BYTES_MAX;
use super::super::source::Span;
use super::super::spec::{ClientsSpec, DnsSpec, SystemNumber};
use super::super::unit::{OneOrManyText, Text};
use super::Parser;

/// The geographic tables' bytes, and what was made of them so far.
#[derive(Default)]
pub(super) struct GeoTables {
    pub(super) places: Option<Vec<u8>>,
    systems: Option<Vec<u8>>,
    /// Rules that name the same share an area.
    areas: HashMap<Wanted, Arc<Area>>,
}

impl Parser<'_> {
    pub(super) fn geo_tables(&mut self, dns: Option<&At<DnsSpec>>) -> GeoTables {
        let geo = dns.and_then(|dns| dns.geo.as_ref());
        let (places, systems) = match geo {
            Some(geo) => (geo.value.database.as_ref(), geo.value.asn.as_ref()),
            None => (None, None),
        };
        GeoTables {
            places: self.geo_bytes(places),
            systems: self.geo_bytes(systems),
            areas: HashMap::new(),
        }
    }

    fn geo_bytes(&mut self, path: Option<&At<Text>>) -> Option<Vec<u8>> {
        let path = path?;
        let file = self.files.resolve(&path.0);
        let read = self.files.bytes(&file, DATABASE_BYTES_MAX);
        read.map_err(|message| self.notes.wrong(path.span, message))
            .ok()
    }

    /// What the rule names besides networks; mistakes are noted.
    pub(super) fn wanted(&mut self, spec: &ClientsSpec) -> Option<Wanted> {
        let (countries, continents) = (spec.countries.as_ref()?, spec.continents.as_ref()?);
        let systems: &At<OneOrMany<SystemNumber>> = spec.asns.as_ref()?;
        let countries = self.codes(countries, Wanted::is_country, |code| {
            (
                format!("`{code}` is no country"),
                "a code of ISO 3166-1 in capital letters, such as `DE`",
            )
        });
        let continents = self.codes(continents, Wanted::is_continent, |code| {
            (
                format!("`{code}` is no continent"),
                "`AF`, `AN`, `AS`, `EU`, `NA`, `OC` or `SA`",
            )
        });
        let (countries, continents) = (countries?, continents?);
        let systems: Vec<u32> = systems
            .value
            .iter()
            .filter_map(|number| u32::try_from(number.value.0).ok())
            .collect();
        Some(Wanted {
            countries,
            continents,
            systems,
        })
    }

    fn codes(
        &mut self,
        texts: &At<OneOrManyText>,
        is_known: fn(&str) -> bool,
        mistake: fn(&str) -> (String, &'static str),
    ) -> Option<Vec<String>> {
        let mut all_known = true;
        for text in texts.value.0.iter().filter(|text| !is_known(&text.0)) {
            let (message, expected) = mistake(&text.0.escape_debug().to_string());
            self.notes
                .mistake(Mistake::new(text.span, message).expected(expected));
            all_known = false;
        }
        let codes = texts.value.0.iter().map(|text| text.0.clone());
        all_known.then(|| codes.collect())
    }

    /// The addresses that are meant. `None`: there was a mistake, which is noted.
    pub(super) fn area(&mut self, wanted: Wanted, span: Span) -> Option<Arc<Area>> {
        if let Some(known) = self.geo_tables.areas.get(&wanted) {
            return Some(Arc::clone(known));
        }
        let by_place = !wanted.countries.is_empty() || !wanted.continents.is_empty();
        let lacks_places = by_place && self.geo_tables.places.is_none();
        let lacks_systems = !wanted.systems.is_empty() && self.geo_tables.systems.is_none();
        if lacks_places || lacks_systems {
            let key = if lacks_places { "database" } else { "asn" };
            let what = if lacks_places {
                "countries and continents"
            } else {
                "autonomous systems"
            };
            let message = format!("nothing says where {what} are");
            self.notes.mistake(
                Mistake::new(span, message).help(format!("name a table by `dns.geo.{key}`")),
            );
            return None;
        }
        let tables = &self.geo_tables;
        let area = Area::build(&wanted, tables.places.as_deref(), tables.systems.as_deref());
        match area {
            Ok(area) if !area.is_empty() => {
                let area = Arc::new(area);
                self.geo_tables.areas.insert(wanted, Arc::clone(&area));
                Some(area)
            }
            Ok(_) => {
                let message = "no network of the geographic tables is meant here";
                self.notes.wrong(span, message);
                None
            }
            Err(error) => {
                self.notes.wrong(span, error.to_string());
                None
            }
        }
    }
}
