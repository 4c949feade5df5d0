//! Walks an MMDB table once and folds it into ranges. Trusts nothing in it.
//!
//! The table is a binary tree of networks whose leaves point at records (MaxMind DB format 2.0).
//! A broken one may point in circles; the walk counts its steps against the tree's own size.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr};

use maxminddb::{LookupResult, MaxMindDbError, PathElement, Reader, WithinOptions};
use sealane_model::Location;

use super::ranges::{Boundaries, Class, Net};
use super::{Cell, GeoError, Place, Places, V4_WITHIN_V6, Wanted, centre};

type Found<'a> = LookupResult<'a, &'a [u8]>;
/// What a record's networks are, for whoever reads the table.
type Meaning<'m> = dyn Fn(&Found<'_>) -> Result<Place, MaxMindDbError> + 'm;

/// The ranges of IPv4 and of IPv6, by where they are.
pub(super) fn read(
    bytes: &[u8],
    places: &mut Places,
) -> Result<(Boundaries, Boundaries), GeoError> {
    let meaning = |found: &Found<'_>| {
        let location = location(found)?;
        Ok(location.map_or(Place::Nowhere, |location| Place::Cell(Cell::of(location))))
    };
    let reader = Reader::from_source(bytes).map_err(|error| broken(&error))?;
    let mut walk = Walk::new(&reader, &meaning, places);
    let (v4, v6) = (walk.v4()?, walk.v6()?);
    if v4.say_anything() || v6.say_anything() {
        Ok((v4, v6))
    } else {
        Err(GeoError(format!(
            "none of its {} records says where it is (wanted: location.latitude and \
             location.longitude, country.iso_code or continent.code); its type is {:?}",
            walk.classes.len(),
            reader.metadata().database_type
        )))
    }
}

/// The ranges of the networks that `wanted` names, as `inside`.
pub(super) fn read_area(
    bytes: &[u8],
    wanted: &Wanted,
    inside: Place,
    places: &mut Places,
) -> Result<(Boundaries, Boundaries), GeoError> {
    let meaning = |found: &Found<'_>| {
        let is_inside = names(found, wanted)?;
        Ok(if is_inside { inside } else { Place::Nowhere })
    };
    let reader = Reader::from_source(bytes).map_err(|error| broken(&error))?;
    let mut walk = Walk::new(&reader, &meaning, places);
    Ok((walk.v4()?, walk.v6()?))
}

/// Is the record's country, continent or autonomous system one of these?
fn names(record: &Found<'_>, wanted: &Wanted) -> Result<bool, MaxMindDbError> {
    const KEY: fn(&'static str) -> PathElement<'static> = PathElement::Key;
    let text = |path: &[PathElement<'static>]| record.decode_path::<&str>(path);
    let is_one_of = |code: Option<&str>, codes: &[String]| {
        code.is_some_and(|code| codes.iter().any(|wanted| wanted == code))
    };
    if !wanted.countries.is_empty() {
        let mut country = text(&[KEY("country"), KEY("iso_code")])?;
        if country.is_none() {
            country = text(&[KEY("registered_country"), KEY("iso_code")])?;
        }
        if is_one_of(country, &wanted.countries) {
            return Ok(true);
        }
    }
    if !wanted.continents.is_empty()
        && is_one_of(text(&[KEY("continent"), KEY("code")])?, &wanted.continents)
    {
        return Ok(true);
    }
    if wanted.systems.is_empty() {
        return Ok(false);
    }
    let system = system_of(record)?;
    Ok(system.is_some_and(|system| wanted.systems.contains(&system)))
}

/// The record's autonomous system. Some writers choose the narrowest type for each number.
fn system_of(record: &Found<'_>) -> Result<Option<u32>, MaxMindDbError> {
    let path = [PathElement::Key("autonomous_system_number")];
    record
        .decode_path::<u32>(&path)
        .or_else(|wide| match record.decode_path::<u16>(&path) {
            Ok(narrow) => Ok(narrow.map(u32::from)),
            Err(_) => Err(wide),
        })
}

/// A tree of n nodes has n + 1 leaves. Leaves above the networks asked for come once for each of
/// those (fewer than 1,024).
fn steps_max(reader: &Reader<&[u8]>) -> u64 {
    u64::from(reader.metadata().node_count) * 2 + 2_048
}

struct Walk<'a> {
    reader: &'a Reader<&'a [u8]>,
    meaning: &'a Meaning<'a>,
    steps_left: u64,
    /// By place of the record: each is decoded once.
    classes: HashMap<usize, Class>,
    places: &'a mut Places,
}

impl<'a> Walk<'a> {
    fn new(reader: &'a Reader<&'a [u8]>, meaning: &'a Meaning<'a>, places: &'a mut Places) -> Self {
        Self {
            steps_left: steps_max(reader),
            reader,
            meaning,
            classes: HashMap::new(),
            places,
        }
    }

    fn v4(&mut self) -> Result<Boundaries, GeoError> {
        let mut ranges = Boundaries::nowhere();
        let everything = Net::new(0, 0, 32);
        self.within("0.0.0.0/0", |ip, bits, class| {
            let net = match ip {
                IpAddr::V4(v4) => Net::new(u32::from(v4).into(), bits, 32),
                // A leaf above the place where the tree keeps IPv4 covers all of it.
                IpAddr::V6(_) => everything,
            };
            ranges.append(net, class);
        })?;
        Ok(ranges)
    }

    fn v6(&mut self) -> Result<Boundaries, GeoError> {
        let mut ranges = Boundaries::nowhere();
        if self.reader.metadata().ip_version != 6 {
            return Ok(ranges);
        }
        for (prefix, bits) in own_networks_of_v6() {
            let asked = Net::new(prefix.into(), bits, 128);
            self.within(&format!("{prefix}/{bits}"), |ip, bits, class| {
                let start = match ip {
                    IpAddr::V6(v6) => v6.into(),
                    IpAddr::V4(v4) => u32::from(v4).into(),
                };
                if let Some(net) = Net::new(start, bits, 128).intersection(asked) {
                    ranges.append(net, class);
                }
            })?;
        }
        Ok(ranges)
    }

    /// Calls `each` with the networks within `prefix` that are somewhere, in ascending order.
    fn within(
        &mut self,
        prefix: &str,
        mut each: impl FnMut(IpAddr, u8, Class),
    ) -> Result<(), GeoError> {
        // Everything is asked for, so that nothing is skipped uncounted.
        let options = WithinOptions::default()
            .include_aliased_networks()
            .include_networks_without_data();
        let prefix = prefix.parse().map_err(|error| broken(&error))?;
        let found = self.reader.within(prefix, options);
        for found in found.map_err(|error| broken(&error))? {
            let found = found.map_err(|error| broken(&error))?;
            self.count_a_step()?;
            let class = self.class(&found)?;
            if class != Class::NOWHERE {
                let network = found.network().map_err(|error| broken(&error))?;
                each(network.ip(), network.prefix(), class);
            }
        }
        Ok(())
    }

    fn count_a_step(&mut self) -> Result<(), GeoError> {
        let left = self.steps_left.checked_sub(1);
        self.steps_left =
            left.ok_or_else(|| broken(&"its tree has more leaves than its nodes can carry"))?;
        Ok(())
    }

    fn class(&mut self, found: &Found<'_>) -> Result<Class, GeoError> {
        let Some(offset) = found.offset() else {
            return Ok(Class::NOWHERE);
        };
        if let Some(class) = self.classes.get(&offset) {
            return Ok(*class);
        }
        let place = (self.meaning)(found).map_err(|error| broken(&error))?;
        let class = self.places.class(place);
        self.classes.insert(offset, class);
        Ok(class)
    }
}

fn broken(error: &dyn Display) -> GeoError {
    GeoError(error.to_string())
}

/// All of IPv6 but where IPv4 addresses are told in other words, ascending.
fn own_networks_of_v6() -> Vec<(Ipv6Addr, u8)> {
    let foreign = [(Ipv6Addr::UNSPECIFIED, 96)]
        .into_iter()
        .chain(V4_WITHIN_V6);
    let foreign: Vec<Net> = foreign
        .map(|(prefix, bits)| Net::new(prefix.into(), bits, 128))
        .collect();
    let mut own = Vec::new();
    let mut todo = vec![(0_u128, 0_u8)];
    while let Some((prefix, bits)) = todo.pop() {
        let net = Net::new(prefix, bits, 128);
        if foreign.iter().all(|f| f.intersection(net).is_none()) {
            own.push((Ipv6Addr::from(prefix), bits));
        } else if !foreign.iter().any(|f| f.intersection(net) == Some(net)) {
            todo.push((prefix | 1 << (127 - bits), bits + 1));
            todo.push((prefix, bits + 1));
        }
    }
    own
}

/// The best that the record knows: a point, else its country's, else its continent's.
fn location(record: &Found<'_>) -> Result<Option<Location>, MaxMindDbError> {
    const KEY: fn(&'static str) -> PathElement<'static> = PathElement::Key;
    let degrees = |name| record.decode_path::<f64>(&[KEY("location"), KEY(name)]);
    let text = |path: &[PathElement<'static>]| record.decode_path::<&str>(path);
    if let (Some(latitude), Some(longitude)) = (degrees("latitude")?, degrees("longitude")?) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "degrees: 24 bits tell metres apart"
        )]
        return Ok(Location::new(latitude as f32, longitude as f32));
    }
    for country in ["country", "registered_country"] {
        let code = text(&[KEY(country), KEY("iso_code")])?;
        if let Some(location) = code.and_then(centre::of_country) {
            return Ok(Some(location));
        }
    }
    let continent = text(&[KEY("continent"), KEY("code")])?;
    Ok(continent.and_then(centre::of_continent))
}
