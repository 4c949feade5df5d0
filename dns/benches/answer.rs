//! What one answer costs without any socket, and what new rules and a new world do: one thread's CPU clock.
//!
//! `cargo bench -p sealane-dns`. Prints; judges nothing. Questions come from 4,096 prepared
//! messages in turn, so that no branch and no cache line is always the same.

#![expect(clippy::unwrap_used, reason = "a bench may stop at once")]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use sealane_dns::config::{Config, SteeredName, Zone};
use sealane_dns::engine::{Memory, Rules, Transport, UDP_SIZE_MAX, answer, answer_with};
use sealane_dns::name::Name;
use sealane_dns::record::parse_zone_file;
use sealane_model::{Snapshot, Ttl, Verdict};
use sealane_steering::{GeoOverride, GeoTable, SteeringPolicy, Weights};
use sealane_testkit::mmdb::{Record, table_of};
use sealane_testkit::{Names, World};

/// Different messages of one kind.
const MESSAGES: u32 = 4_096;
/// Answers that are timed.
const TIMES: usize = 3_000_000;
/// Nanoseconds for which worlds are swapped.
const SWAPPED_FOR: u64 = 3_000_000_000;
/// Times that rules are compiled.
const COMPILED: u64 = 50;
/// Regions' places; the first three are the world of the demo.
const PLACES: [(f32, f32); 8] = [
    (39.0, -77.5),
    (50.1, 8.7),
    (1.3, 103.8),
    (45.8, -119.7),
    (35.7, 139.7),
    (-33.9, 151.2),
    (-23.5, -46.6),
    (53.3, -6.3),
];

fn main() {
    for regions in [3, 8] {
        let world = world(regions);
        let rules = rules(&world);
        println!("{regions} regions");
        for (kind, message) in kinds() {
            let messages: Vec<Vec<u8>> = (0..MESSAGES).map(message).collect();
            println!("  {kind:<28} {:>6.0} ns", nanos(&messages, &rules, &world));
        }
        swaps(rules, &world);
    }
    compile();
}

/// What a thread's answers cost while the world stays, and while another one comes each 100 ms of its time.
fn swaps(rules: Rules, world: &Snapshot) {
    // As many places as are remembered, or each answer would be made anew anyway.
    let messages: Vec<Vec<u8>> = (0..MESSAGES)
        .map(|i| question("near", Some(i % 512)))
        .collect();
    let rules = Arc::new(rules);
    let worlds = [(); 2].map(|()| Arc::new(world.clone()));
    let run = |every: u64| {
        let mut memory = Memory::new(&rules, &worlds[0]);
        let mut out = vec![0; UDP_SIZE_MAX];
        let source = IpAddr::from([198, 51, 100, 53]);
        let (start, mut answered, mut swapped) = (cpu_nanos(), 0_u32, 0);
        loop {
            let spent = cpu_nanos() - start;
            if spent >= SWAPPED_FOR {
                return spent / u64::from(answered);
            }
            if spent / every > swapped {
                swapped = spent / every;
                memory.follow(&rules, &worlds[(swapped % 2) as usize]);
            }
            for message in &messages {
                let message = black_box(message);
                black_box(answer_with(
                    &mut memory,
                    message,
                    source,
                    Transport::Udp,
                    &mut out,
                ));
            }
            answered += MESSAGES;
        }
    };
    let (still, swapped) = (run(u64::MAX), run(100_000_000));
    println!(
        "  nearest, remembered          {still:>6} ns; with ten new worlds a second {swapped} ns"
    );
}

/// New rules of many steered names.
fn compile() {
    let world = world(8);
    let apex = Name::parse("example.test", None).unwrap();
    let text = "@ 3600 SOA ns1 hostmaster 7 3600 900 604800 10\n@ 300 NS ns1\n";
    let file = parse_zone_file(text, &apex, Ttl::from_secs(60)).unwrap();
    let mut zone = Zone::new(apex.clone(), file.soa.unwrap(), file.records);
    let name = |i| Name::parse(&format!("s{i}"), Some(&apex)).unwrap();
    let steering = Arc::new(SteeringPolicy::Nearest);
    zone.steered = (0..1_000)
        .map(|i| SteeredName::new(name(i), world.pool_id("api"), Arc::clone(&steering)))
        .collect();
    let config = Config::new(vec![zone], Arc::new(GeoTable::empty()));
    let start = cpu_nanos();
    for _ in 0..COMPILED {
        black_box(Rules::compile(&config));
    }
    let each = (cpu_nanos() - start) / COMPILED / 1_000;
    println!("1,000 steered names: rules are compiled in {each} us");
}

type Kind = (&'static str, fn(u32) -> Vec<u8>);

fn kinds() -> [Kind; 7] {
    [
        ("static A", |i| question(&format!("h{}", i % 1_000), None)),
        ("NXDOMAIN", |i| {
            question(&format!("x{:x}", mixed(i.into())), None)
        }),
        ("nearest, one subnet", |_| question("near", Some(3))),
        ("nearest, many subnets", |i| question("near", Some(i))),
        ("nearest, many overrides", |i| {
            question("near", Some(i + (1 << 16)))
        }),
        ("weighted, many subnets", |i| question("even", Some(i))),
        ("weighted latency, many", |i| question("both", Some(i))),
    ]
}

fn world(regions: usize) -> Snapshot {
    let mut world = World::new();
    for (index, (latitude, longitude)) in PLACES.iter().take(regions).enumerate() {
        world = world
            .region(&format!("r{index}"), Verdict::Up)
            .at(*latitude, *longitude)
            .addresses(&[&format!("192.0.2.{}", index + 1)]);
    }
    world.build()
}

fn rules(world: &Snapshot) -> Rules {
    let apex = Name::parse("example.test", None).unwrap();
    let mut text = "@ 3600 SOA ns1 hostmaster 7 3600 900 604800 10\n@ 300 NS ns1\n".to_owned();
    for host in 0..1_000 {
        text.push_str(&format!(
            "h{host} 300 A 198.51.{}.{}\n",
            host >> 8,
            host & 255
        ));
    }
    let file = parse_zone_file(&text, &apex, Ttl::from_secs(60)).unwrap();
    let steered = |owner, steering| {
        let owner = Name::parse(owner, Some(&apex)).unwrap();
        SteeredName::new(owner, world.pool_id("api"), Arc::new(steering))
    };
    let networks = (0..MESSAGES).map(|index| {
        let latitude = f64::from(index % 120) - 60.0;
        let longitude = f64::from(index % 351) - 175.0;
        (subnet(index), 24, Record::At(latitude, longitude))
    });
    let region = |index: u32| world.region_id(if index.is_multiple_of(2) { "r0" } else { "r1" });
    let overrides: Vec<GeoOverride> = (1 << 16..(1 << 16) + MESSAGES)
        .map(|index| GeoOverride {
            net: format!("{}/24", subnet(index)).parse().unwrap(),
            region: region(index),
        })
        .collect();
    let steered = vec![
        steered("near", SteeringPolicy::Nearest),
        steered("even", SteeringPolicy::Weighted(Weights::default())),
        steered("both", SteeringPolicy::WeightedLatency(Weights::default())),
    ];
    let mut zone = Zone::new(apex, file.soa.unwrap(), file.records);
    zone.steered = steered;
    let geo = GeoTable::build(Some(table_of(networks)), &overrides).unwrap();
    Rules::compile(&Config::new(vec![zone], Arc::new(geo)))
}

/// Networks of 45.0.0.0/8 and the one after it.
fn subnet(index: u32) -> IpAddr {
    IpAddr::V4(((45 << 24) + (index << 8)).into())
}

/// For A, with EDNS, and with the client subnet of that number.
fn question(name: &str, client: Option<u32>) -> Vec<u8> {
    let apex = Name::parse("example.test", None).unwrap();
    let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    message.extend_from_slice(Name::parse(name, Some(&apex)).unwrap().wire());
    message.extend_from_slice(&[0, 1, 0, 1, 0, 0, 41, 4, 0xd0, 0, 0, 0, 0]);
    let Some(client) = client else {
        message.extend_from_slice(&[0, 0]);
        return message;
    };
    message.extend_from_slice(&[0, 11, 0, 8, 0, 7, 0, 1, 24, 0]);
    let IpAddr::V4(v4) = subnet(client) else {
        return message;
    };
    message.extend_from_slice(&v4.octets()[..3]);
    message
}

fn nanos(messages: &[Vec<u8>], rules: &Rules, world: &Snapshot) -> f64 {
    let source = IpAddr::from([198, 51, 100, 53]);
    let mut out = vec![0; UDP_SIZE_MAX];
    let mut length = 0;
    let start = cpu_nanos();
    for message in messages.iter().cycle().take(TIMES) {
        let message = black_box(message);
        let answered = answer(message, source, Transport::Udp, rules, world, &mut out);
        length += answered.unwrap().length;
    }
    let spent = cpu_nanos() - start;
    black_box(length);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let each = spent as f64 / TIMES as f64;
    each
}

/// Spreads consecutive numbers (`splitmix64`).
const fn mixed(key: u64) -> u64 {
    let z = key.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

/// Of this thread so far; 0 where there is no such `/proc`.
fn cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|word| word.parse().ok()).unwrap_or(0)
}
