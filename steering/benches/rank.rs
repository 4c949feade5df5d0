//! What a decision and a look-up cost, in nanoseconds of one thread, and what a table weighs.
//!
//! `cargo bench -p sealane-steering`. Prints; judges nothing. Times are of this thread's CPU clock
//! where `/proc` has one (10 ms steps over seconds), so that a busy machine disturbs little.

#![expect(clippy::unwrap_used, reason = "a bench may stop at once")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sealane_model::{ScopePrefix, Verdict::Up};
use sealane_steering::{Ask, ClientPlace, GeoTable, How, SteeringPolicy, Weights, rank};
use sealane_testkit::mmdb::{Record, table_of};
use sealane_testkit::{Names, World};

/// Networks of the table that is built: as many as a country table has.
const NETWORKS: u32 = 250_000;

fn main() {
    decisions();
    geography();
}

fn decisions() {
    let regions = [
        (50.1, 8.7),
        (39.0, -77.5),
        (45.8, -119.7),
        (35.7, 139.7),
        (-33.9, 151.2),
    ];
    for count in [3, 5] {
        let mut world = World::new();
        for (index, (lat, lon)) in regions.iter().take(count).enumerate() {
            world = world.region(&format!("r{index}"), Up).at(*lat, *lon);
        }
        let world = world.build();
        let pool = world.pool_id("api");
        let place = ClientPlace {
            address: Ipv4Addr::new(192, 0, 2, 1).into(),
            how: How::ClientSubnet,
            location: sealane_model::Location::new(48.9, 2.4),
            region: None,
            scope: ScopePrefix(24),
        };
        for policy in [
            SteeringPolicy::WeightedLatency(Weights::default()),
            SteeringPolicy::Weighted(Weights::default()),
            SteeringPolicy::Nearest,
        ] {
            let nanos = nanos_each(1_000_000, |key| {
                let ask = Ask {
                    pool,
                    policy: &policy,
                    place: &place,
                    key,
                };
                black_box(rank(black_box(&ask), &world));
            });
            println!(
                "rank {count} regions {:<17} {nanos:>7.1} ns",
                policy.as_str()
            );
        }
    }
}

fn geography() {
    let bytes = table_of(networks());
    println!(
        "table of {NETWORKS} networks: {:.1} MiB",
        bytes.len() as f64 / 1048576.0
    );
    let before = resident_kib();
    let start = cpu_seconds();
    let table = GeoTable::build(Some(bytes), &[]).unwrap();
    println!(
        "build {:.2} s of CPU, {} ranges, resident {:+} KiB (the bytes were resident before)",
        cpu_seconds() - start,
        table.ranges(),
        resident_kib() - before
    );
    let v4 = nanos_each(5_000_000, |key| {
        let address = Ipv4Addr::from(mixed(key) as u32);
        black_box(table.locate(IpAddr::V4(black_box(address))));
    });
    let v6 = nanos_each(5_000_000, |key| {
        let address = Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(mixed(key)) << 32);
        black_box(table.locate(IpAddr::V6(black_box(address))));
    });
    println!("locate a random IPv4 address {v4:>7.1} ns, IPv6 {v6:>7.1} ns");
}

/// Networks of /16 to /24 in all of IPv4, and some of IPv6, at 4,000 places.
fn networks() -> impl Iterator<Item = (IpAddr, u8, Record)> {
    (0..NETWORKS).map(|index| {
        let random = mixed(index.into());
        let city = mixed(random % 4_000);
        let latitude = (city % 1_400) as f64 / 10.0 - 60.0;
        let longitude = (city / 1_400 % 3_600) as f64 / 10.0 - 180.0;
        let ip = if index % 5 == 0 {
            let network = 0x2001_0db8_u128 << 96 | u128::from(random) << 32;
            (IpAddr::V6(network.into()), 40 + (random % 17) as u8)
        } else {
            let network = Ipv4Addr::from((random >> 32) as u32);
            (IpAddr::V4(network), 16 + (random % 9) as u8)
        };
        (ip.0, ip.1, Record::At(latitude, longitude))
    })
}

/// Spreads consecutive numbers (`splitmix64`).
fn mixed(key: u64) -> u64 {
    let mut z = key.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn nanos_each(times: u64, mut work: impl FnMut(u64)) -> f64 {
    let start = cpu_seconds();
    for key in 0..times {
        work(key);
    }
    (cpu_seconds() - start) * 1e9 / times as f64
}

/// Of this process so far, in steps of 10 ms; 0 where there is no `/proc`.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|f| f.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.unwrap_or(0)
}
