//! The geographic table against a plain model of it, and against broken tables.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use sealane_testkit::mmdb::{Record, table};

use super::*;

const QUICKSTART: &[u8] = include_bytes!("../../../configs/geo/quickstart.mmdb");

fn quickstart() -> GeoTable {
    GeoTable::build(Some(QUICKSTART.to_vec()), &[]).unwrap()
}

fn locate(table: &GeoTable, address: &str) -> Located {
    table.locate(address.parse().unwrap())
}

fn region(name: usize) -> RegionId {
    RegionId::from_index(name).unwrap()
}

fn over(net: &str, name: usize) -> GeoOverride {
    GeoOverride {
        net: net.parse().unwrap(),
        region: region(name),
    }
}

fn degrees(located: Located) -> Option<(f32, f32)> {
    located.location.map(|l| (l.latitude(), l.longitude()))
}

#[test]
fn an_empty_table_holds_for_everyone() {
    for address in [
        "192.0.2.1",
        "2001:db8::1",
        "::ffff:192.0.2.1",
        "2002:c000:201::",
    ] {
        assert_eq!(locate(&GeoTable::empty(), address), Located::default());
        let built = GeoTable::build(None, &[]).unwrap();
        assert_eq!(locate(&built, address), Located::default());
    }
}

#[test]
fn the_quickstart_table_knows_the_documentation_networks() {
    let table = quickstart();

    assert_eq!(degrees(locate(&table, "198.51.100.7")), Some((50.0, 8.5)));
    assert_eq!(
        degrees(locate(&table, "2001:db8:c0::1")),
        Some((35.5, 139.5))
    );
    assert_eq!(
        degrees(locate(&table, "203.0.113.200")),
        Some((45.5, -122.5))
    );
    assert_eq!(degrees(locate(&table, "8.8.8.8")), None);
    assert_eq!(locate(&table, "198.51.100.7").scope, ScopePrefix(24));
    assert_eq!(locate(&table, "2001:db8:c0::1").scope, ScopePrefix(48));
}

#[test]
fn an_ipv4_address_told_in_ipv6_is_located_as_itself() {
    let table = quickstart();
    let plain = locate(&table, "198.51.100.7");

    for (told, before) in [
        ("::ffff:198.51.100.7", 96),
        ("2002:c633:6407::1", 16),
        ("2001:0:c633:6407::1", 32),
    ] {
        let located = locate(&table, told);
        assert_eq!(located.location, plain.location, "{told}");
        assert_eq!(located.scope.0, before + plain.scope.0, "{told}");
    }
}

#[test]
fn an_override_silences_the_table_and_the_longer_one_wins() {
    let overrides = [
        over("198.51.100.128/25", 2),
        over("198.51.0.0/16", 1),
        over("198.51.100.200/32", 3),
        over("2001:db8::/32", 1),
        over("::ffff:10.0.0.0/104", 2),
    ];
    let table = GeoTable::build(Some(QUICKSTART.to_vec()), &overrides).unwrap();
    let at = |address| {
        (
            locate(&table, address).region,
            locate(&table, address).scope.0,
        )
    };

    assert_eq!(at("198.51.100.1"), (Some(region(1)), 25));
    assert_eq!(at("198.51.100.129"), (Some(region(2)), 26));
    assert_eq!(at("198.51.100.200"), (Some(region(3)), 32));
    assert_eq!(at("198.51.200.1"), (Some(region(1)), 17));
    assert_eq!(at("2001:db8:c0::1"), (Some(region(1)), 32));
    assert_eq!(at("10.1.2.3"), (Some(region(2)), 8));
    assert_eq!(locate(&table, "198.51.100.1").location, None);
    assert!(locate(&table, "81.130.1.1").location.is_some());
}

#[test]
fn an_override_of_everything_holds_for_everyone_and_of_equal_ones_the_last_wins() {
    let all = [over("0.0.0.0/0", 1), over("0.0.0.0/0", 2), over("::/0", 1)];
    let table = GeoTable::build(None, &all).unwrap();

    for address in ["0.0.0.0", "255.255.255.255", "192.0.2.1"] {
        let located = locate(&table, address);
        assert_eq!((located.region, located.scope.0), (Some(region(2)), 0));
    }
    assert_eq!(locate(&table, "2002::1").region, Some(region(1)));
}

#[test]
fn tables_that_know_only_countries_or_continents_serve_too() {
    let bytes = table(&[
        ("192.0.2.0/24", Record::Country("JP")),
        ("198.51.100.0/24", Record::Continent("EU")),
        ("203.0.113.0/24", Record::Country("??")),
        ("2001:db8::/32", Record::Nothing),
    ]);
    let table = GeoTable::build(Some(bytes), &[]).unwrap();

    assert_eq!(degrees(locate(&table, "192.0.2.9")), Some((35.5, 138.0)));
    assert_eq!(degrees(locate(&table, "198.51.100.9")), Some((50.0, 12.0)));
    assert_eq!(degrees(locate(&table, "203.0.113.9")), None);
    assert_eq!(degrees(locate(&table, "2001:db8::9")), None);
}

/// 45.0/16 is Germany but for a /20, 45.3/16 is a system's; 2001:db8:1::/48 is Germany, too.
fn some_tables() -> [Vec<u8>; 2] {
    let places = table(&[
        ("45.0.0.0/16", Record::Both("DE", "EU")),
        ("45.0.128.0/20", Record::Both("US", "NA")),
        ("45.1.0.0/16", Record::Both("FR", "EU")),
        ("2001:db8:1::/48", Record::Both("DE", "EU")),
    ]);
    [places, table(&[("45.3.0.0/16", Record::System(64_500))])]
}

fn area(countries: &[&str], continents: &[&str], systems: &[u32]) -> Area {
    let owned = |codes: &[&str]| codes.iter().map(|code| (*code).to_owned()).collect();
    let wanted = Wanted {
        countries: owned(countries),
        continents: owned(continents),
        systems: systems.to_vec(),
    };
    let [places, systems] = some_tables();
    Area::build(&wanted, Some(&places), Some(&systems)).unwrap()
}

#[test]
fn an_area_holds_what_it_names_and_nothing_else() {
    let german = area(&["DE"], &[], &[]);
    let wide = area(&["US"], &["EU"], &[64_500]);
    for (address, in_german, in_wide) in [
        ("45.0.0.1", true, true),
        ("45.0.128.1", false, true),
        ("45.0.144.0", true, true),
        ("45.1.0.1", false, true),
        ("45.3.9.9", false, true),
        ("45.4.0.0", false, false),
        ("2001:db8:1::1", true, true),
        ("2001:db8:2::1", false, false),
        ("2002:2d00:1::1", true, true),
    ] {
        let address = address.parse().unwrap();
        assert_eq!(german.contains(address), in_german, "{address}");
        assert_eq!(wide.contains(address), in_wide, "{address}");
    }
    assert!(area(&["JP"], &[], &[64_501]).is_empty());
    // Its numbers take two octets.
    let shipped = include_bytes!("../../../configs/geo/asn.mmdb");
    let wanted = Wanted {
        systems: vec![64_500],
        ..Wanted::default()
    };
    let shipped = Area::build(&wanted, None, Some(shipped)).unwrap();
    assert!(shipped.contains("198.51.100.1".parse().unwrap()));
    assert!(!shipped.contains("203.0.113.1".parse().unwrap()));
}

proptest! {
    #[test]
    fn within_an_area_s_scope_everyone_is_inside_or_nobody_is(ip in any::<u32>(), other in any::<u32>()) {
        let german = area(&["DE"], &[], &[]);
        let ip = 45 << 24 | (ip & 0x0003_ffff);
        let bits = german.scope(Ipv4Addr::from(ip).into()).0;
        let free = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
        let other = ip & !free | other & free;
        let inside = |ip: u32| german.contains(Ipv4Addr::from(ip).into());
        prop_assert_eq!(inside(ip), inside(other));
        // One bit less would be too wide.
        if let Some(wider) = bits.checked_sub(1) {
            let free = u32::MAX.checked_shr(wider.into()).unwrap_or(0);
            let mut ends = [ip & !free, ip | free, 45 << 24, 45 << 24 | 0x8000, 45 << 24 | 0x8fff, 45 << 24 | 0xffff, 46 << 24, 45 << 24 | 0x10000]
                .into_iter()
                .filter(|end| end & !free == ip & !free);
            prop_assert!(ends.any(|end| inside(end) != inside(ip)), "{} is too narrow", bits);
        }
    }
}

#[test]
fn a_broken_table_is_no_area() {
    let wanted = Wanted {
        systems: vec![1],
        ..Wanted::default()
    };
    let [_, systems] = some_tables();
    for bytes in [&b"<html>"[..], &systems[..systems.len() / 2]] {
        assert!(Area::build(&wanted, None, Some(bytes)).is_err());
    }
}

#[test]
fn a_leaf_above_ipv4_covers_it() {
    let bytes = table(&[("2a00::/12", Record::At(50.0, 8.0))]);
    assert!(GeoTable::build(Some(bytes), &[]).is_ok());
    let bytes = table(&[("0.0.0.0/0", Record::At(50.0, 8.0))]);
    let table = GeoTable::build(Some(bytes), &[]).unwrap();
    assert_eq!(degrees(locate(&table, "9.9.9.9")), Some((50.0, 8.0)));
    assert_eq!(locate(&table, "9.9.9.9").scope, ScopePrefix::EVERYONE);
}

#[test]
fn what_is_wrong_with_a_table_is_named() {
    let refused = |bytes: &[u8]| {
        GeoTable::build(Some(bytes.to_vec()), &[])
            .unwrap_err()
            .to_string()
    };

    let cut = &QUICKSTART[QUICKSTART.len() / 2..];
    let no_places = table(&[("192.0.2.0/24", Record::Nothing)]);
    for (bytes, word) in [
        (&b"<html>404</html>"[..], "MaxMind DB"),
        (&[], "MaxMind DB"),
        (&QUICKSTART[..1_000], "MaxMind DB"),
        (cut, "beyond"),
        (&no_places, "location.latitude"),
    ] {
        let message = refused(bytes);
        assert!(
            message.starts_with("not a usable MMDB table: "),
            "{message}"
        );
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn a_table_whose_tree_is_a_braid_is_refused_in_time() {
    // Every node's both sides point to the next node: 2^60 leaves from 60 nodes.
    let mut bytes = Vec::new();
    for next in 1..=60_u32 {
        bytes.extend_from_slice(&next.to_be_bytes());
        bytes.extend_from_slice(&next.to_be_bytes());
    }
    let sound = table(&[("192.0.2.0/24", Record::At(1.0, 1.0))]);
    let marker = sound
        .windows(3)
        .rposition(|part| part == b"\xab\xcd\xef")
        .unwrap();
    bytes.extend_from_slice(&[0; 16]);
    let mut rest = sound[marker..].to_vec();
    let count = rest
        .windows(10)
        .position(|part| part == b"node_count")
        .unwrap()
        + 11;
    rest[count..count + 4].copy_from_slice(&60_u32.to_be_bytes());
    bytes.extend_from_slice(&rest);

    let refused = GeoTable::build(Some(bytes), &[]).unwrap_err().to_string();

    assert!(refused.contains("more leaves"), "{refused}");
}

#[test]
fn broken_bytes_never_panic_and_what_still_builds_answers() {
    let sound = [
        QUICKSTART.to_vec(),
        table(&[("192.0.2.0/24", Record::Country("FR"))]),
    ];
    let mut seed = 1_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    let mut built = 0;
    for case in 0..4_000 {
        let mut bytes = sound[case % 2].clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes[at] ^= 1 << random(8),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, 0xff),
            }
        }
        if let Ok(table) = GeoTable::build(Some(bytes), &[]) {
            built += 1;
            for address in [
                "192.0.2.1",
                "0.0.0.0",
                "255.255.255.255",
                "::",
                "2001:db8:c0::",
            ] {
                let _ = locate(&table, address);
            }
        }
    }
    assert!(
        built > 100,
        "only {built} mutants still build: too broken to test anything"
    );
}

/// Networks of few bits at places of few values, so that they often nest and touch.
fn some_override() -> impl Strategy<Value = GeoOverride> {
    let v4 = (any::<u32>(), 0_u8..=32).prop_map(|(ip, bits)| {
        let ip = Ipv4Addr::from(ip & 0xc0_00_03_ff);
        IpNet::new(ip.into(), bits).unwrap()
    });
    let v6 = (any::<u128>(), 0_u8..=128).prop_map(|(ip, bits)| {
        let ip = Ipv6Addr::from(ip & 0x2007_0000_000f_0000_0000_0000_0000_00ff);
        IpNet::new(ip.into(), bits).unwrap()
    });
    (prop::bool::ANY, v4, v6, 0_usize..3).prop_map(|(four, v4, v6, name)| GeoOverride {
        net: if four { v4 } else { v6 }.trunc(),
        region: region(name),
    })
}

fn some_address() -> impl Strategy<Value = IpAddr> {
    let v4 = any::<u32>().prop_map(|ip| IpAddr::V4((ip & 0xc0_00_03_ff).into()));
    let v6 = any::<u128>()
        .prop_map(|ip| IpAddr::V6((ip & 0x2007_0000_000f_0000_0000_0000_0000_00ff).into()));
    (prop::bool::ANY, v4, v6).prop_map(|(four, v4, v6)| if four { v4 } else { v6 })
}

/// The longest network that holds the address; of equal ones the last.
fn by_hand(overrides: &[GeoOverride], address: IpAddr) -> Option<RegionId> {
    let holding = overrides.iter().filter(|o| o.net.contains(&address));
    let best = holding.max_by_key(|o| o.net.prefix_len())?;
    Some(best.region)
}

proptest! {
    #[test]
    fn overrides_are_found_as_by_hand(
        overrides in prop::collection::vec(some_override(), 0..12),
        addresses in prop::collection::vec(some_address(), 1..32),
    ) {
        let table = GeoTable::build(None, &overrides).unwrap();
        for address in addresses {
            let aliased = |(prefix, bits): &(Ipv6Addr, u8)| {
                let net = IpNet::new((*prefix).into(), *bits).unwrap();
                net.contains(&address)
            };
            if V4_WITHIN_V6.iter().any(aliased) && by_hand(&overrides, address).is_none() {
                continue;
            }
            prop_assert_eq!(table.locate(address).region, by_hand(&overrides, address));
        }
    }

    /// One bit less, and somebody within the scope is located otherwise.
    #[test]
    fn a_scope_is_as_short_as_it_can_be(
        overrides in prop::collection::vec(some_override(), 1..12),
        ip in any::<u32>(),
    ) {
        let table = GeoTable::build(None, &overrides).unwrap();
        let ip = ip & 0xc0_00_03_ff;
        let located = table.locate(IpAddr::V4(ip.into()));
        let scope = located.scope.0;
        prop_assert!(scope <= 32);
        if let Some(host_bits) = 32_u32.checked_sub(u32::from(scope)).filter(|_| scope > 0) {
            // Those who share all bits but the last one of the scope.
            let first = (ip ^ 1 << host_bits) >> host_bits << host_bits;
            let differs = |other: u32| {
                let other = table.locate(IpAddr::V4(other.into()));
                (other.region, other.location) != (located.region, located.location)
            };
            let last = u64::from(first) + (1 << host_bits) - 1;
            let edges = overrides.iter().filter_map(|o| net_edges_v4(o.net)).flatten();
            let inside = edges.filter(|edge| (u64::from(first)..=last).contains(&u64::from(*edge)));
            let someone = inside.chain([first]).any(differs);
            prop_assert!(someone, "scope /{} of {} is too narrow", scope, Ipv4Addr::from(ip));
        }
    }
}

/// First address, last address, and the one after.
fn net_edges_v4(net: IpNet) -> Option<[u32; 3]> {
    let IpNet::V4(v4) = net else { return None };
    let last = u32::from(v4.broadcast());
    Some([v4.network().into(), last, last.wrapping_add(1)])
}

#[test]
fn the_table_agrees_with_its_source_record_by_record() {
    let reader = maxminddb::Reader::from_source(QUICKSTART).unwrap();
    let table = quickstart();
    let path = |name| {
        [
            maxminddb::PathElement::Key("location"),
            maxminddb::PathElement::Key(name),
        ]
    };
    for step in 0..1_u32 << 20 {
        let address = IpAddr::V4((step << 12 | 0x711).into());
        let record = reader.lookup(address).unwrap();
        let latitude: Option<f64> = record.decode_path(&path("latitude")).unwrap();
        let located = table
            .locate(address)
            .location
            .map(|l| f64::from(l.latitude()));
        match (latitude, located) {
            (Some(exact), Some(rounded)) => assert!((exact - rounded).abs() <= 0.25, "{address}"),
            (exact, rounded) => assert_eq!(exact, rounded, "{address}"),
        }
    }
}
