//! The laws of steering: what holds for every world, policy and client.
//!
//! Through [`rank`] alone, so that everything inside may be rearranged.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers panic as the test does"
)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use sealane_model::{
    AllDown, Correction, Location, OutReason, RegionId, ScopePrefix, Snapshot, Standing, Timestamp,
    Verdict, Weight,
};
use sealane_steering::rank::{BAND_EXTRA_MS, LATENCY_EXPONENT, LATENCY_FLOOR_MS, RTT_MS_PER_KM};
use sealane_steering::{
    Ask, ClientPlace, GeoOverride, GeoTable, How, Ranking, Reason, SteeringPolicy, Weights,
    explain, rank,
};
use sealane_testkit::{Names, World};

use Verdict::{Down, Up};

const QUICKSTART: &[u8] = include_bytes!("../../configs/geo/quickstart.mmdb");

const FRANKFURT: (f32, f32) = (50.11, 8.68);
const VIRGINIA: (f32, f32) = (39.04, -77.49);
const OREGON: (f32, f32) = (45.84, -119.7);
const REGIONS: [(&str, (f32, f32)); 3] = [
    ("eu-central-1", FRANKFURT),
    ("us-east-1", VIRGINIA),
    ("us-west-2", OREGON),
];

/// The three regions of the example, all well.
fn three_regions() -> World {
    REGIONS
        .iter()
        .fold(World::new(), |world, (name, (lat, lon))| {
            world.region(name, Up).at(*lat, *lon)
        })
}

fn nowhere() -> ClientPlace {
    place(None)
}

fn place(location: Option<(f32, f32)>) -> ClientPlace {
    ClientPlace {
        address: Ipv4Addr::new(192, 0, 2, 1).into(),
        how: How::Connection,
        location: location.map(|(lat, lon)| Location::new(lat, lon).unwrap()),
        region: None,
        scope: ScopePrefix(24),
    }
}

fn ranked(world: &Snapshot, policy: &SteeringPolicy, place: &ClientPlace, key: u64) -> Ranking {
    let pool = world.pool_id("api");
    rank(
        &Ask {
            pool,
            policy,
            place,
            key,
        },
        world,
    )
}

/// Who comes first, over so many keys, as shares of 1.
fn shares(
    world: &Snapshot,
    policy: &SteeringPolicy,
    place: &ClientPlace,
    keys: u64,
) -> HashMap<String, f64> {
    let mut shares = HashMap::new();
    for key in 0..keys {
        let first = ranked(world, policy, place, mixed(key)).first().unwrap();
        let name = world.topology.region_name(first).to_owned();
        *shares.entry(name).or_insert(0.0) += 1.0 / keys as f64;
    }
    shares
}

/// Keys as [`ClientPlace::key`] makes them for consecutive networks.
fn mixed(network: u64) -> u64 {
    let address = Ipv4Addr::from(u32::try_from(network << 8 & 0xffff_ffff).unwrap());
    ClientPlace::locate(address.into(), How::Resolver, &GeoTable::empty()).key()
}

fn weights(world: &Snapshot, listed: &[(&str, u32)]) -> Weights {
    let of = |(name, weight): &(&str, u32)| (world.region_id(name), Weight::new(*weight).unwrap());
    Weights::new(listed.iter().map(of).collect())
}

fn share(shares: &HashMap<String, f64>, region: &str) -> f64 {
    shares.get(region).copied().unwrap_or(0.0)
}

fn assert_near(actual: f64, expected: f64, tolerance: f64, what: &str) {
    assert!(
        (actual - expected).abs() <= tolerance,
        "{what}: {actual:.4}, expected {expected:.4} ± {tolerance}"
    );
}

// ---- Shares (S4, S5) ----

/// S4: 10,000 questions land within 1.5 percentage points of the weights.
#[test]
fn weights_of_33_33_34_are_kept() {
    let world = three_regions().build();
    let listed = [("eu-central-1", 34), ("us-east-1", 33), ("us-west-2", 33)];
    let policy = SteeringPolicy::Weighted(weights(&world, &listed));

    let got = shares(&world, &policy, &nowhere(), 10_000);

    for (region, weight) in listed {
        assert_near(
            share(&got, region),
            f64::from(weight) / 100.0,
            0.015,
            region,
        );
    }
}

/// S4: an unhealthy region gets nothing, and the others keep their ratio.
#[test]
fn an_unhealthy_region_gets_nothing_and_the_others_keep_their_ratio() {
    let world = three_regions().turn("us-east-1", Down).build();
    let listed = [("eu-central-1", 60), ("us-east-1", 20), ("us-west-2", 20)];
    let policy = SteeringPolicy::Weighted(weights(&world, &listed));

    let got = shares(&world, &policy, &nowhere(), 20_000);

    assert_eq!(share(&got, "us-east-1"), 0.0);
    assert_near(share(&got, "eu-central-1"), 0.75, 0.015, "60 of 80");
    assert_near(share(&got, "us-west-2"), 0.25, 0.015, "20 of 80");
}

/// Two weight layers: the pool's and the policy's multiply.
#[test]
fn the_weights_of_pool_and_policy_multiply() {
    let world = World::new()
        .region("a", Up)
        .weight(300)
        .region("b", Up)
        .weight(100)
        .build();
    let policy = SteeringPolicy::Weighted(weights(&world, &[("a", 1), ("b", 3)]));

    let got = shares(&world, &policy, &nowhere(), 20_000);

    assert_near(share(&got, "a"), 0.5, 0.015, "300·1 of 600");
}

/// S5: a client between two regions; one of them gets 200 ms slower. Its share follows the
/// formula: appeal ∝ weight ÷ latency², and none outside the band.
#[test]
fn two_hundred_milliseconds_move_a_share_as_the_formula_says() {
    let calm = Duration::from_millis(300);
    let world = |added: u64| {
        World::new()
            .region("a", Up)
            .rtt(calm)
            .region("b", Up)
            .rtt(calm + Duration::from_millis(added))
            .build()
    };
    let policy = SteeringPolicy::WeightedLatency(Weights::default());
    let formula = |a: f64, b: f64| {
        let appeal = |ms: f64| 1.0 / ms.max(LATENCY_FLOOR_MS).powi(LATENCY_EXPONENT);
        appeal(a) / (appeal(a) + appeal(b))
    };

    let before = shares(&world(0), &policy, &nowhere(), 20_000);
    let a_little = shares(&world(60), &policy, &nowhere(), 20_000);
    let much = shares(&world(200), &policy, &nowhere(), 20_000);

    assert_near(share(&before, "a"), 0.5, 0.02, "alike");
    assert_near(
        share(&a_little, "a"),
        formula(300.0, 360.0),
        0.02,
        "within the band",
    );
    assert_near(share(&much, "a"), 1.0, 0.02, "outside the band of 1.25");
}

/// S5 with places: what probes see above their floor is added to what distance explains.
#[test]
fn an_excess_of_200_ms_empties_the_nearer_region_for_clients_between_two() {
    let world = |added: u64| {
        World::new()
            .region("us-east-1", Up)
            .at(VIRGINIA.0, VIRGINIA.1)
            .rtt_floor(Duration::from_millis(80))
            .rtt(Duration::from_millis(80 + added))
            .region("us-west-2", Up)
            .at(OREGON.0, OREGON.1)
            .build()
    };
    let policy = SteeringPolicy::WeightedLatency(Weights::default());
    let denver = place(Some((39.7, -105.0)));

    let calm = shares(&world(0), &policy, &denver, 20_000);
    let slow = shares(&world(200), &policy, &denver, 20_000);

    let km = |(lat, lon)| {
        denver
            .location
            .unwrap()
            .kilometres_to(Location::new(lat, lon).unwrap())
    };
    let (east, west) = (km(VIRGINIA) * RTT_MS_PER_KM, km(OREGON) * RTT_MS_PER_KM);
    assert!((east - west).abs() < BAND_EXTRA_MS, "both are in the band");
    let expected = west.powi(2) / (east.powi(2) + west.powi(2));
    assert_near(
        share(&calm, "us-east-1"),
        expected,
        0.02,
        "by distance squared",
    );
    assert_near(share(&slow, "us-east-1"), 0.0, 0.0, "out of the band");
}

#[test]
fn half_a_region_down_halves_its_appeal_in_weighted_latency() {
    let world = World::new()
        .region("a", Up)
        .endpoint("10.0.0.1:80", Up)
        .endpoint("10.0.0.2:80", Down)
        .region("b", Up)
        .endpoints(2)
        .build();
    let policy = SteeringPolicy::WeightedLatency(Weights::default());

    let got = shares(&world, &policy, &nowhere(), 20_000);

    assert_near(share(&got, "a"), 1.0 / 3.0, 0.015, "1/2 against 1");
}

#[test]
fn the_shares_that_explain_names_are_the_shares_that_clients_get() {
    let world = three_regions().build();
    let listed = [("eu-central-1", 50), ("us-east-1", 30), ("us-west-2", 20)];
    let policy = SteeringPolicy::Weighted(weights(&world, &listed));
    let place = nowhere();
    let pool = world.pool_id("api");

    let told = explain(
        &Ask {
            pool,
            policy: &policy,
            place: &place,
            key: 1,
        },
        &world,
    );
    let got = shares(&world, &policy, &place, 20_000);

    for candidate in told.candidates {
        let name = world.topology.region_name(candidate.region);
        assert_near(share(&got, name), candidate.share, 0.015, name);
    }
}

// ---- Order ----

#[test]
fn a_weight_of_zero_serves_only_when_nothing_else_does() {
    let builder = World::new().region("a", Up).weight(0).region("b", Up);
    let policy = SteeringPolicy::Weighted(Weights::default());
    let (both, alone) = (builder.clone().build(), builder.turn("b", Down).build());

    assert_eq!(share(&shares(&both, &policy, &nowhere(), 1_000), "a"), 0.0);
    let ranking = ranked(&alone, &policy, &nowhere(), 1);
    assert_eq!(alone.region_names(ranking.regions()), ["a"]);
}

#[test]
fn the_next_tier_serves_only_when_the_first_is_out() {
    let builder = World::new()
        .region("standby", Up)
        .priority(2)
        .region("main", Up)
        .priority(1);
    for policy in [
        SteeringPolicy::Priority,
        SteeringPolicy::Nearest,
        SteeringPolicy::Weighted(Weights::default()),
        SteeringPolicy::WeightedLatency(Weights::default()),
    ] {
        let well = builder.clone().build();
        let failed = builder.clone().turn("main", Down).build();

        let first = ranked(&well, &policy, &nowhere(), 3);
        let after = ranked(&failed, &policy, &nowhere(), 3);

        assert_eq!(well.region_names(first.regions()), ["main", "standby"]);
        assert_eq!(failed.region_names(after.regions()), ["standby"]);
        let from = failed.region_id("main");
        assert_eq!(after.reason, Reason::FailedOver { from });
    }
}

#[test]
fn a_pinned_region_serves_whatever_its_tier_and_the_nearest_after_it() {
    let builder = three_regions().priority(7);
    let well = builder.clone().build();
    let policy = SteeringPolicy::Pinned(well.region_id("us-west-2"));
    let paris = place(Some((48.9, 2.4)));

    let ranking = ranked(&well, &policy, &paris, 1);
    let failed = builder.turn("us-west-2", Down).build();
    let after = ranked(&failed, &policy, &paris, 1);

    let names = ["us-west-2", "eu-central-1", "us-east-1"];
    assert_eq!(well.region_names(ranking.regions()), names);
    assert_eq!(ranking.reason, Reason::Pinned);
    assert_eq!(failed.region_names(after.regions()), names[1..]);
}

/// S2: the nearest healthy region, by an atlas of clients.
#[test]
fn the_nearest_healthy_region_serves() {
    let well = three_regions().build();
    let without_eu = three_regions().turn("eu-central-1", Down).build();
    for (city, at, near, next) in [
        ("Paris", (48.86, 2.35), "eu-central-1", "us-east-1"),
        ("Lagos", (6.5, 3.4), "eu-central-1", "us-east-1"),
        ("New York", (40.71, -74.0), "us-east-1", "us-east-1"),
        ("São Paulo", (-23.5, -46.6), "us-east-1", "us-east-1"),
        ("San Francisco", (37.8, -122.4), "us-west-2", "us-west-2"),
        ("Tokyo", (35.68, 139.7), "us-west-2", "us-west-2"),
    ] {
        let client = place(Some(at));
        let first = ranked(&well, &SteeringPolicy::Nearest, &client, 1).first();
        let then = ranked(&without_eu, &SteeringPolicy::Nearest, &client, 1).first();

        assert_eq!(well.region_names(first), [near], "{city}");
        assert_eq!(without_eu.region_names(then), [next], "{city}");
    }
}

/// S2 through the table: what the quickstart says of the documentation networks.
#[test]
fn the_quickstart_networks_go_to_their_continents() {
    let table = GeoTable::build(Some(QUICKSTART.to_vec()), &[]).unwrap();
    let world = three_regions().build();
    for (address, region) in [
        ("198.51.100.1", "eu-central-1"),
        ("91.10.2.3", "eu-central-1"),
        ("192.0.2.1", "us-east-1"),
        ("203.0.113.1", "us-west-2"),
        ("126.10.1.1", "us-west-2"),
        ("2001:db8:e1::1", "eu-central-1"),
        ("2001:db8:a1::1", "us-east-1"),
        ("2001:db8:b1::1", "us-west-2"),
    ] {
        let client = ClientPlace::locate(address.parse().unwrap(), How::ClientSubnet, &table);
        let first = ranked(&world, &SteeringPolicy::Nearest, &client, client.key()).first();

        assert_eq!(world.region_names(first), [region], "{address}");
    }
}

// ---- When none is left ----

#[test]
fn when_all_are_down_the_operator_says_what_is_answered() {
    let policy = SteeringPolicy::Nearest;
    let with = |rule: AllDown| {
        let world = World::new()
            .region("a", Down)
            .region("b", Down)
            .all_down(rule)
            .build();
        let ranking = ranked(&world, &policy, &nowhere(), 1);
        (ranking.regions().count(), ranking.reason)
    };

    assert_eq!(with(AllDown::FailOpen), (2, Reason::AllDown));
    assert_eq!(with(AllDown::NoData), (0, Reason::NoData));
    let addresses = AllDown::Fallback(["192.0.2.99".parse().unwrap()].into());
    assert_eq!(with(addresses), (0, Reason::Fallback));
}

#[test]
fn fail_open_prefers_what_failed_to_what_the_operator_took_out() {
    let taken = Standing::Out(OutReason::FailedOver);
    let builder = World::new()
        .region("taken", Up)
        .standing(taken)
        .region("failed", Down);
    let world = builder.clone().build();
    let only_taken = builder.out("failed", OutReason::Draining).build();
    let policy = SteeringPolicy::Nearest;

    let ranking = ranked(&world, &policy, &nowhere(), 1);
    assert_eq!(world.region_names(ranking.regions()), ["failed"]);
    assert_eq!(
        ranked(&only_taken, &policy, &nowhere(), 1)
            .regions()
            .count(),
        2
    );
}

#[test]
fn hold_down_is_ignored_before_a_failed_region_is_tried() {
    let until = Timestamp::from_millis(9);
    let world = World::new()
        .region("failed", Down)
        .region("held", Up)
        .standing(Standing::Out(OutReason::HoldDown { until }))
        .build();

    let ranking = ranked(&world, &SteeringPolicy::Nearest, &nowhere(), 1);

    assert_eq!(world.region_names(ranking.regions()), ["held"]);
    assert_eq!(ranking.reason, Reason::HoldDownIgnored);
}

#[test]
fn a_pool_without_endpoints_or_that_is_gone_has_no_members() {
    let world = World::new()
        .region("bare", Up)
        .endpoints(0)
        .pool("empty")
        .build();
    let policy = SteeringPolicy::Nearest;
    let gone = sealane_model::PoolId::from_index(999).unwrap();
    for pool in [world.pool_id("api"), world.pool_id("empty"), gone] {
        let place = nowhere();
        let ranking = rank(
            &Ask {
                pool,
                policy: &policy,
                place: &place,
                key: 1,
            },
            &world,
        );
        assert_eq!((ranking.reason, ranking.first()), (Reason::NoMembers, None));
    }
}

#[test]
fn an_order_that_is_not_drawn_holds_for_everyone() {
    let spare = World::new()
        .region("a", Up)
        .weight(0)
        .region("b", Up)
        .weight(0)
        .build();
    let tiers = World::new()
        .region("a", Up)
        .region("b", Up)
        .priority(2)
        .build();
    for policy in [
        SteeringPolicy::Weighted(Weights::default()),
        SteeringPolicy::WeightedLatency(Weights::default()),
    ] {
        let everywhere = ClientPlace {
            scope: ScopePrefix::EVERYONE,
            ..nowhere()
        };
        for world in [&spare, &tiers] {
            for key in 0..32 {
                let ranking = ranked(world, &policy, &everywhere, key);
                assert_eq!(world.region_names(ranking.regions()), ["a", "b"]);
                assert_eq!(ranking.scope, ScopePrefix::EVERYONE);
            }
        }
    }
}

// ---- Laws over all worlds ----

/// So many random cases, and no file of past failures: what was found became a test of its own.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[derive(Clone, Debug)]
struct AnyRegion {
    location: Option<(f32, f32)>,
    standing: Standing,
    weight: u32,
    priority: u16,
    rtt: Option<u64>,
    floor: Option<u64>,
    endpoints: usize,
}

fn any_standing() -> impl Strategy<Value = Standing> {
    let until = Timestamp::from_millis(60_000);
    prop_oneof![
        4 => Just(Standing::In),
        1 => Just(Standing::Out(OutReason::Failed)),
        1 => Just(Standing::Out(OutReason::FailedOver)),
        1 => Just(Standing::Out(OutReason::Draining)),
        1 => Just(Standing::Out(OutReason::Empty)),
        1 => Just(Standing::Out(OutReason::HoldDown { until })),
    ]
}

fn any_region() -> impl Strategy<Value = AnyRegion> {
    let location = prop::option::weighted(0.8, (-90.0_f32..=90.0, -180.0_f32..=180.0));
    let weight = prop_oneof![Just(0), Just(100), 0..=Weight::MAX];
    let rtt = prop::option::of(prop_oneof![0_u64..400_000, Just(u64::MAX / 2_000_000)]);
    let floor = prop::option::of(0_u64..400_000);
    let priority = prop_oneof![Just(1), Just(2), Just(0), Just(u16::MAX)];
    (
        location,
        any_standing(),
        weight,
        priority,
        rtt,
        floor,
        0_usize..4,
    )
        .prop_map(
            |(location, standing, weight, priority, rtt, floor, endpoints)| AnyRegion {
                location,
                standing,
                weight,
                priority,
                rtt,
                floor,
                endpoints,
            },
        )
}

fn any_regions() -> impl Strategy<Value = Vec<AnyRegion>> {
    prop::collection::vec(any_region(), 0..7)
}

fn built(regions: &[AnyRegion]) -> World {
    let mut world = World::new();
    for (index, region) in regions.iter().enumerate() {
        world = world
            .region(&format!("r{index}"), Up)
            .endpoints(region.endpoints)
            .standing(region.standing)
            .weight(region.weight)
            .priority(region.priority);
        if let Some((lat, lon)) = region.location {
            world = world.at(lat, lon);
        }
        if let Some(micros) = region.rtt {
            world = world.rtt(Duration::from_micros(micros));
        }
        if let Some(micros) = region.floor {
            world = world.rtt_floor(Duration::from_micros(micros));
        }
    }
    world
}

fn any_policy() -> impl Strategy<Value = SteeringPolicy> {
    let listed = || {
        let one = (0_usize..7, prop_oneof![Just(0), Just(100), 0..=Weight::MAX]);
        prop::collection::vec(one, 0..5).prop_map(|listed| {
            let of =
                |(region, weight): (usize, u32)| (region_at(region), Weight::new(weight).unwrap());
            Weights::new(listed.into_iter().map(of).collect())
        })
    };
    prop_oneof![
        listed().prop_map(SteeringPolicy::WeightedLatency),
        listed().prop_map(SteeringPolicy::Weighted),
        Just(SteeringPolicy::Nearest),
        Just(SteeringPolicy::Priority),
        (0_usize..7).prop_map(|index| SteeringPolicy::Pinned(region_at(index))),
    ]
}

fn region_at(index: usize) -> RegionId {
    RegionId::from_index(index).unwrap()
}

fn any_place() -> impl Strategy<Value = ClientPlace> {
    let location = prop::option::of((-90.0_f32..=90.0, -180.0_f32..=180.0));
    let region = prop::option::weighted(0.2, 0_usize..9);
    (any::<u32>(), location, region, 0_u8..=32).prop_map(|(ip, location, region, scope)| {
        ClientPlace {
            address: IpAddr::V4(ip.into()),
            region: region.map(region_at),
            scope: ScopePrefix(scope),
            ..place(location)
        }
    })
}

/// Addresses near each other and near the networks of the quickstart table.
fn any_address() -> impl Strategy<Value = IpAddr> {
    let v4 = prop_oneof![
        any::<u32>(),
        (0_u32..1 << 12).prop_map(|host| u32::from(Ipv4Addr::new(198, 51, 96, 0)) + host),
        (0_u32..1 << 18).prop_map(|host| u32::from(Ipv4Addr::new(91, 8, 0, 0)) + host),
    ];
    let v6 = prop_oneof![
        any::<u128>(),
        (0_u128..1 << 90).prop_map(|rest| (0x2001_0db8_u128 << 96) + rest),
        any::<u32>().prop_map(|v4| 0x2002_u128 << 112 | u128::from(v4) << 80),
    ];
    prop_oneof![
        v4.prop_map(|ip| IpAddr::V4(ip.into())),
        v6.prop_map(|ip| IpAddr::V6(Ipv6Addr::from(ip))),
    ]
}

fn any_table() -> impl Strategy<Value = GeoTable> {
    let one = (any_address(), 0_u8..=128, 0_usize..4).prop_map(|(ip, bits, region)| {
        let bits = if ip.is_ipv4() { bits.min(32) } else { bits };
        GeoOverride {
            net: ipnet::IpNet::new(ip, bits).unwrap().trunc(),
            region: region_at(region),
        }
    });
    (any::<bool>(), prop::collection::vec(one, 0..10)).prop_map(|(with_mmdb, overrides)| {
        let mmdb = with_mmdb.then(|| QUICKSTART.to_vec());
        GeoTable::build(mmdb, &overrides).unwrap()
    })
}

/// An address that shares the first `scope` bits and none of the others in particular.
fn neighbour(address: IpAddr, scope: u8, noise: u128) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(scope.into()).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & !host | noise as u32 & host).into())
        }
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(scope.into()).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & !host | noise & host).into())
        }
    }
}

proptest! {
    #![proptest_config(cases(512))]

    /// Never, while one is in, does one that is out appear; and each that is in appears once.
    #[test]
    fn what_is_out_is_not_ranked_while_something_is_in(
        mut regions in prop::collection::vec(any_region(), 1..7),
        policy in any_policy(), place in any_place(), key: u64,
    ) {
        regions[0].standing = Standing::In;
        let world = built(&regions).build();
        let ranking = ranked(&world, &policy, &place, key);
        let mut got: Vec<usize> = ranking.regions().map(RegionId::index).collect();
        let well: Vec<usize> = (0..regions.len())
            .filter(|i| regions[*i].standing == Standing::In)
            .collect();

        got.sort_unstable();
        prop_assert_eq!(got, well);
    }

    /// An answer is empty only where the operator wants that, or nothing exists (A5).
    #[test]
    fn an_answer_is_never_empty_by_accident(
        regions in any_regions(), policy in any_policy(), place in any_place(), key: u64,
    ) {
        let world = built(&regions).build();
        let ranking = ranked(&world, &policy, &place, key);
        let exists = regions.iter().any(|r| r.standing != Standing::Out(OutReason::Empty));

        prop_assert_eq!(ranking.first().is_some(), exists);
        prop_assert_eq!(ranking.reason == Reason::NoMembers, !exists);
    }

    /// The same question gets the same answer, and explaining it changes nothing.
    #[test]
    fn the_same_key_gets_the_same_ranking(
        regions in any_regions(), policy in any_policy(), place in any_place(), key: u64,
    ) {
        let world = built(&regions).build();
        let pool = world.pool_id("api");
        let ask = Ask { pool, policy: &policy, place: &place, key };

        let told = explain(&ask, &world);
        prop_assert_eq!(&rank(&ask, &world), &told.ranking);
        prop_assert_eq!(&rank(&ask, &built(&regions).build()), &told.ranking);
        for candidate in &told.candidates {
            let position = told.ranking.regions().position(|r| r == candidate.region);
            prop_assert_eq!(candidate.position, position);
            prop_assert!((0.0..=1.0).contains(&candidate.share), "{}", candidate.share);
            prop_assert!(candidate.latency_ms >= 0.0);
        }
    }

    /// Tiers and zero weights: nobody of a later tier comes before one of an earlier tier.
    #[test]
    fn tiers_come_in_order(
        regions in any_regions(), place in any_place(), key: u64, weighted: bool,
    ) {
        let world = built(&regions).build();
        let policy = if weighted {
            SteeringPolicy::Weighted(Weights::default())
        } else {
            SteeringPolicy::Nearest
        };
        let order: Vec<(bool, u16)> = ranked(&world, &policy, &place, key)
            .regions()
            .map(|r| (regions[r.index()].weight == 0, regions[r.index()].priority))
            .collect();

        prop_assert!(order.is_sorted(), "{:?}", order);
    }

    /// One region down moves only its own share: for everybody else the order stays.
    #[test]
    fn a_region_that_goes_down_moves_only_its_own_share(
        mut regions in prop::collection::vec(any_region(), 2..7),
        place in any_place(), key: u64, down in 0_usize..7,
    ) {
        let down = down % regions.len();
        let other = (down + 1) % regions.len();
        regions[down].standing = Standing::In;
        regions[other].standing = Standing::In;
        let policy = SteeringPolicy::Weighted(Weights::default());
        let before = built(&regions).build();
        let name = format!("r{down}");
        let after = built(&regions).out(&name, OutReason::Failed).build();

        let order = |world: &Snapshot| -> Vec<RegionId> {
            ranked(world, &policy, &place, key).regions().collect()
        };
        let mut without = order(&before);
        without.retain(|region| region.index() != down);
        prop_assert_eq!(order(&after), without);
    }

    /// Nearest is by distance, where everybody's place is known and nothing is slow.
    #[test]
    fn nearest_is_by_distance(
        points in prop::collection::vec((-90.0_f32..=90.0, -180.0_f32..=180.0), 1..7),
        client in (-90.0_f32..=90.0, -180.0_f32..=180.0),
    ) {
        let mut world = World::new();
        for (index, (lat, lon)) in points.iter().enumerate() {
            world = world.region(&format!("r{index}"), Up).at(*lat, *lon);
        }
        let world = world.build();
        let client = place(Some(client));

        let distances: Vec<f64> = ranked(&world, &SteeringPolicy::Nearest, &client, 0)
            .regions()
            .map(|r| world.topology.region(r).unwrap().location.unwrap())
            .map(|location| client.location.unwrap().kilometres_to(location))
            .collect();

        prop_assert!(distances.is_sorted(), "{:?}", distances);
    }

    /// Where the operator put a client, it goes first, if that region is well and not slow.
    #[test]
    fn an_assigned_client_goes_where_it_was_assigned(
        points in prop::collection::vec(
            prop::option::of((-90.0_f32..=90.0, -180.0_f32..=180.0)), 1..7),
        assigned in 0_usize..7,
    ) {
        let assigned = assigned % points.len();
        let mut world = World::new();
        for (index, point) in points.iter().enumerate() {
            world = world.region(&format!("r{index}"), Up);
            if let Some((lat, lon)) = point {
                world = world.at(*lat, *lon);
            }
        }
        let world = world.build();
        let client = ClientPlace { region: Some(region_at(assigned)), ..nowhere() };

        let ranking = ranked(&world, &SteeringPolicy::Nearest, &client, 0);
        let first = ranking.first().unwrap();
        let at = |region: RegionId| world.topology.region(region).unwrap().location;
        prop_assert!(first.index() == assigned || at(first) == at(region_at(assigned)));
    }
}

fn any_correction() -> impl Strategy<Value = Correction> {
    (0..=5_u16).prop_map(|step| match step {
        0 => Correction::Near,
        step => Correction::Slower {
            milliseconds: step * 20,
        },
    })
}

/// Who failed over from where may differ among those who get the same answer: each had a wish of
/// their own.
fn without_origin(reason: Reason) -> Option<Reason> {
    let by_wish = matches!(
        reason,
        Reason::FailedOver { .. }
            | Reason::WeightedLatency
            | Reason::Nearest
            | Reason::Weighted
            | Reason::Priority
            | Reason::Pinned
    );
    (!by_wish).then_some(reason)
}

proptest! {
    #![proptest_config(cases(1_024))]

    /// Everybody within the answered scope would get the same answer: else resolvers that cache
    /// it for that prefix (RFC 7871 §7.3.1) tell a lie.
    #[test]
    fn all_addresses_inside_the_answered_scope_rank_alike(
        regions in any_regions(),
        policy in any_policy(),
        table in any_table(),
        address in any_address(),
        taught in prop::collection::vec((0_u8..=31, any::<u128>(), any_correction()), 0..6),
        noise in prop::collection::vec(any::<u128>(), 16),
    ) {
        // Networks that share this many leading bits with the asker.
        let near_by = |bits, noise| neighbour(address.to_canonical(), bits, noise);
        let taught: Vec<_> = taught
            .into_iter()
            .map(|(bits, noise, correction)| (near_by(bits, noise), correction))
            .collect();
        let world = built(&regions).learned("r0", &taught).build();
        let asked = ClientPlace::locate(address, How::ClientSubnet, &table);
        let ranking = ranked(&world, &policy, &asked, asked.key());
        let width = if asked.address.is_ipv4() { 32 } else { 128 };
        prop_assert!(ranking.scope.0 <= width);

        let shares_scope = |other: &IpAddr| neighbour(*other, ranking.scope.0, 0)
            == neighbour(asked.address, ranking.scope.0, 0);
        let others = noise.into_iter().map(|noise| neighbour(asked.address, ranking.scope.0, noise));
        let taught = taught.iter().map(|(other, _)| *other).filter(shares_scope);
        for other in others.chain(taught) {
            let other = ClientPlace::locate(other, How::ClientSubnet, &table);
            let theirs = ranked(&world, &policy, &other, other.key());
            prop_assert_eq!(
                (theirs.regions().collect::<Vec<_>>(), without_origin(theirs.reason)),
                (ranking.regions().collect::<Vec<_>>(), without_origin(ranking.reason)),
                "{} and {} share /{}", asked.address, other.address, ranking.scope.0
            );
        }
    }
}
#[test]
fn who_is_learned_to_be_near_or_slow_is_ranked_so_and_an_operator_s_word_stands() {
    let client: IpAddr = "198.51.100.7".parse().unwrap(); // in Frankfurt, by the map
    let world = |correction| {
        three_regions()
            .learned("us-east-1", &[(client, correction)])
            .build()
    };
    let quickstart = GeoTable::build(Some(QUICKSTART.to_vec()), &[]).unwrap();
    let place = |how| ClientPlace::locate(client, how, &quickstart);
    let first = |world: &Snapshot, place: &ClientPlace| {
        let ranking = ranked(world, &SteeringPolicy::Nearest, place, 0);
        let region = ranking.first().unwrap();
        (
            world.topology.region_name(region).to_owned(),
            ranking.scope.0,
        )
    };
    let near = world(Correction::Near);
    for how in [How::ClientSubnet, How::Resolver, How::Connection] {
        assert_eq!(first(&near, &place(how)), ("us-east-1".to_owned(), 24));
    }
    let slower = three_regions()
        .learned(
            "eu-central-1",
            &[(client, Correction::Slower { milliseconds: 100 })],
        )
        .build();
    assert_eq!(first(&slower, &place(How::ClientSubnet)).0, "us-east-1");
    assert_eq!(
        first(&slower, &place(How::Connection)).0,
        "eu-central-1",
        "who is connected has gone that way already"
    );
    let region = near.region_id("eu-central-1");
    let net = "198.51.100.0/24".parse().unwrap();
    let assigned = GeoTable::build(None, &[GeoOverride { net, region }]).unwrap();
    let assigned = ClientPlace::locate(client, How::ClientSubnet, &assigned);
    assert_eq!(first(&near, &assigned).0, "eu-central-1");
}
