//! The laws of turning away: rooms, returns, rules on clients, parts of clients, panic.
//!
//! Through [`rank`] and [`explain`] alone.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers panic as the test does"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use sealane_model::Verdict::{Down, Up};
use sealane_model::{
    AllDown, Basis, FailoverRule, OutReason, Ratio, ScopePrefix, Snapshot, Standing,
};
use sealane_steering::rank::{LATENCY_EXPONENT, LATENCY_FLOOR_MS};
use sealane_steering::{
    Ask, ClientPlace, Fence, Fences, How, Ranking, Reason, SteeringPolicy, Weights, Within,
    depends_on_key, explain, rank,
};
use sealane_testkit::{Names, World};

const KEYS: u64 = 20_000;

fn place(address: [u8; 4]) -> ClientPlace {
    ClientPlace {
        address: Ipv4Addr::from(address).into(),
        how: How::Connection,
        location: None,
        region: None,
        scope: ScopePrefix::EVERYONE,
    }
}

fn ranked(world: &Snapshot, policy: &SteeringPolicy, place: &ClientPlace, key: u64) -> Ranking {
    let ask = Ask {
        pool: world.pool_id("api"),
        policy,
        place,
        key: key.wrapping_mul(0x9e37_79b9_7f4a_7c15),
    };
    rank(&ask, world)
}

fn of_key(world: &Snapshot, policy: &SteeringPolicy, key: u64) -> Ranking {
    ranked(world, policy, &place([192, 0, 2, 1]), key)
}

fn share(world: &Snapshot, policy: &SteeringPolicy, region: &str) -> f64 {
    let region = Some(world.region_id(region));
    let first = |key: &u64| of_key(world, policy, *key).first() == region;
    (0..KEYS).filter(first).count() as f64 / KEYS as f64
}

fn near(actual: f64, expected: f64) {
    assert!(
        (actual - expected).abs() < 0.015,
        "{actual}, expected {expected}"
    );
}

const MS: fn(u64) -> Duration = Duration::from_millis;

/// `near`, then `mid`, then `far`.
fn three() -> World {
    World::new()
        .region("near", Up)
        .rtt(MS(10))
        .region("mid", Up)
        .rtt(MS(50))
        .region("far", Up)
        .rtt(MS(90))
}

// ---- Room ----

#[test]
fn what_has_no_room_goes_to_the_next_best_and_says_from_where() {
    let world = World::new()
        .region("near", Up)
        .rtt(MS(10))
        .room(150.0, 100.0, 0.6)
        .region("mid", Up)
        .rtt(MS(50))
        .room(90.0, 100.0, 0.5)
        .region("far", Up)
        .rtt(MS(90))
        .build();
    let nearest = SteeringPolicy::Nearest;

    near(share(&world, &nearest, "near"), 0.6);
    near(share(&world, &nearest, "mid"), 0.4 * 0.5);
    near(share(&world, &nearest, "far"), 0.4 * 0.5);
    let from = world.region_id("near");
    for key in 0..200 {
        let ranking = of_key(&world, &nearest, key);
        let reason = if ranking.first() == Some(from) {
            Reason::Nearest
        } else {
            Reason::Spilled { from }
        };
        assert_eq!(ranking.reason, reason);
        assert_eq!(ranking.regions().count(), 3, "a retry may go anywhere");
    }
}

#[test]
fn where_no_region_has_room_the_order_stays_and_asks_to_shed() {
    let full = |world: World| world.room(200.0, 100.0, 0.0);
    let world = full(World::new().region("near", Up).rtt(MS(10)));
    let world = full(world.region("far", Up).rtt(MS(90))).build();

    let ranking = of_key(&world, &SteeringPolicy::Nearest, 7);

    assert_eq!(ranking.reason, Reason::NoRoom);
    assert!(ranking.reason.asks_to_shed());
    assert_eq!(world.region_names(ranking.regions()), ["near", "far"]);
}

#[test]
fn a_full_tier_spills_into_the_next_one() {
    let world = World::new()
        .region("first", Up)
        .room(150.0, 100.0, 0.7)
        .region("second", Up)
        .priority(2)
        .build();
    near(share(&world, &SteeringPolicy::Priority, "second"), 0.3);
}

#[test]
fn what_weighs_nothing_takes_nothing_that_others_turn_away() {
    let world = World::new()
        .region("on", Up)
        .room(150.0, 100.0, 0.5)
        .region("standby", Up)
        .weight(0)
        .build();
    let weighted = SteeringPolicy::Weighted(Weights::default());
    assert_eq!(share(&world, &weighted, "standby"), 0.0);
}

proptest! {
    /// A key that a region takes stays with it while the region accepts more.
    #[test]
    fn whoever_was_taken_stays_when_more_are_accepted(key in any::<u64>(), low in 0.0..1.0_f64, more in 0.0..1.0_f64) {
        let accepting = |accepts: f64| {
            let world = World::new().region("a", Up).rtt(MS(10)).room(1.0, 1.0, accepts);
            world.region("b", Up).rtt(MS(90)).build()
        };
        let (before, after) = (accepting(low), accepting(low + (1.0 - low) * more));
        let first = |world: &Snapshot| of_key(world, &SteeringPolicy::Nearest, key).first();
        if first(&before) == Some(before.region_id("a")) {
            prop_assert_eq!(first(&after), Some(after.region_id("a")));
        }
    }

    /// A region that is full or returns changes nothing among the others.
    #[test]
    fn the_others_keep_their_order(key in any::<u64>(), accepts in 0.0..1.0_f64, returning in any::<bool>()) {
        let calm = three().build();
        let moved = {
            let world = three().region("new", Up).rtt(MS(10));
            if returning { world.ramp(accepts) } else { world.room(1.0, 1.0, accepts) }.build()
        };
        let policy = SteeringPolicy::Weighted(Weights::default());
        let new = moved.region_id("new");
        let order: Vec<_> = of_key(&moved, &policy, key).regions().filter(|region| *region != new).collect();
        let before: Vec<_> = of_key(&calm, &policy, key).regions().collect();
        prop_assert!(order == before);
    }
}

// ---- Returning ----

#[test]
fn a_region_that_returns_has_its_step_of_what_is_its_own_and_the_others_keep_their_ratio() {
    let world = World::new()
        .region("a", Up)
        .weight(40)
        .ramp(0.25)
        .region("b", Up)
        .weight(40)
        .region("c", Up)
        .weight(20)
        .build();
    let weighted = SteeringPolicy::Weighted(Weights::default());

    near(share(&world, &weighted, "a"), 0.4 * 0.25);
    let (b, c) = (share(&world, &weighted, "b"), share(&world, &weighted, "c"));
    assert!((b / c - 2.0).abs() < 0.12, "{b} {c}");
    let from = world.region_id("a");
    let away = (0..200).map(|key| of_key(&world, &weighted, key));
    let reasons: Vec<_> = away.map(|ranking| ranking.reason).collect();
    assert!(reasons.contains(&Reason::Ramping { from }));
    assert!(reasons.contains(&Reason::Weighted));
}

#[test]
fn a_returning_region_is_better_than_a_full_one() {
    let world = World::new()
        .region("back", Up)
        .rtt(MS(10))
        .ramp(0.05)
        .region("full", Up)
        .rtt(MS(50))
        .room(200.0, 100.0, 0.0)
        .build();
    near(share(&world, &SteeringPolicy::Nearest, "back"), 1.0);
}

#[test]
fn where_all_return_the_crowd_stays_with_the_one_that_has_come_furthest() {
    let world = World::new()
        .region("new", Up)
        .ramp(0.05)
        .region("old", Up)
        .ramp(0.5)
        .build();
    let weighted = SteeringPolicy::Weighted(Weights::default());
    // `new` has its step of its half, and of what `old` does not take: no more.
    near(share(&world, &weighted, "new"), 0.05 * (0.5 + 0.5 * 0.5));
}

// ---- Whom the choice holds for ----

#[test]
fn who_is_turned_away_depends_on_the_key_and_the_scope_says_so() {
    let calm = three().build();
    let nearest = SteeringPolicy::Nearest;
    let pool = calm.pool_id("api");
    assert!(!depends_on_key(&nearest, pool, &calm));
    assert_eq!(of_key(&calm, &nearest, 1).scope, ScopePrefix::EVERYONE);

    let moving = three().room(150.0, 100.0, 0.5).build();
    assert!(depends_on_key(&nearest, pool, &moving));
    let ranking = of_key(&moving, &nearest, 1);
    assert_eq!(ranking.scope, ScopePrefix(24));
    assert!(ranking.suspect, "what is in motion is not kept for long");
}

#[test]
fn all_down_turns_nobody_away() {
    let world = World::new().region("a", Down).ramp(0.05).build();
    assert_eq!(
        of_key(&world, &SteeringPolicy::Nearest, 3).reason,
        Reason::AllDown
    );
}

// ---- Parts of the clients ----

fn at_ms(rtt: u64) -> Basis {
    Basis {
        rtt: Some(MS(rtt)),
        rtt_floor: Some(MS(rtt)),
        free: 1.0,
    }
}

#[test]
fn parts_of_the_clients_go_by_their_own_figures_and_explain_counts_them() {
    let mut parts = vec![at_ms(300); 15];
    parts.extend(vec![at_ms(360); 5]);
    let world = World::new()
        .region("a", Up)
        .rtt(MS(360))
        .basis(&parts)
        .region("b", Up)
        .rtt(MS(300))
        .build();
    let policy = SteeringPolicy::WeightedLatency(Weights::default());
    let appeal = |ms: f64| 1.0 / ms.max(LATENCY_FLOOR_MS).powi(LATENCY_EXPONENT);
    let alone = |ms: f64| appeal(ms) / (appeal(ms) + appeal(300.0));
    let expected = 0.75 * alone(300.0) + 0.25 * alone(360.0);

    near(share(&world, &policy, "a"), expected);
    let place = place([192, 0, 2, 1]);
    let ask = Ask {
        pool: world.pool_id("api"),
        policy: &policy,
        place: &place,
        key: 5,
    };
    let explained = explain(&ask, &world);
    assert!((explained.candidates[0].share - expected).abs() < 0.03);
    assert_eq!(explained.ranking.scope, ScopePrefix(24));
}

#[test]
fn a_full_region_is_less_appealing_by_what_is_not_free() {
    let world = World::new()
        .region("busy", Up)
        .rtt(MS(100))
        .room(80.0, 100.0, 1.0)
        .region("idle", Up)
        .rtt(MS(100))
        .room(20.0, 100.0, 1.0)
        .build();
    let policy = SteeringPolicy::WeightedLatency(Weights::default());
    near(share(&world, &policy, "busy"), 0.2);
}

// ---- Rules on clients ----

fn within(
    world: &Snapshot,
    policy: SteeringPolicy,
    nets: &[&str],
    regions: &[&str],
) -> SteeringPolicy {
    let fence = Fence {
        area: None,
        nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
        regions: regions.iter().map(|name| world.region_id(name)).collect(),
    };
    SteeringPolicy::Within(Box::new(Within {
        policy,
        fences: Fences::new(vec![fence]),
        all_down: None,
    }))
}

#[test]
fn a_rule_keeps_its_clients_to_its_regions_and_nobody_else() {
    let world = three().build();
    let policy = within(
        &world,
        SteeringPolicy::Nearest,
        &["10.0.0.0/8"],
        &["far", "mid"],
    );

    let inside = ranked(&world, &policy, &place([10, 1, 2, 3]), 0);
    let outside = ranked(&world, &policy, &place([192, 0, 2, 1]), 0);

    assert_eq!(world.region_names(inside.regions()), ["mid", "far"]);
    assert_eq!(
        (inside.reason, inside.scope),
        (Reason::Confined, ScopePrefix(8))
    );
    assert_eq!(
        world.region_names(outside.regions()),
        ["near", "mid", "far"]
    );
    assert_eq!(
        (outside.reason, outside.scope),
        (Reason::Nearest, ScopePrefix(1))
    );
    assert_eq!(policy.as_str(), "nearest");
}

#[test]
fn a_rule_holds_when_all_of_its_regions_are_down() {
    let builder = three().turn("far", Down);
    let world = builder.clone().build();
    let policy = within(&world, SteeringPolicy::Nearest, &["10.0.0.0/8"], &["far"]);
    let client = place([10, 1, 2, 3]);

    let open = ranked(&world, &policy, &client, 0);
    assert_eq!(world.region_names(open.regions()), ["far"]);
    assert_eq!(open.reason, Reason::AllDown);

    let strict = builder.all_down(AllDown::NoData).build();
    assert_eq!(ranked(&strict, &policy, &client, 0).reason, Reason::NoData);
    for region in ["near", "mid"] {
        assert!(!policy.lets(client.address, world.region_id(region)));
        assert!(policy.lets(IpAddr::from([192, 0, 2, 1]), world.region_id(region)));
    }
}

#[test]
fn a_rule_and_a_full_region_combine() {
    let world = World::new()
        .region("eu", Up)
        .rtt(MS(10))
        .room(150.0, 100.0, 0.0)
        .region("us", Up)
        .rtt(MS(90))
        .build();
    let policy = within(&world, SteeringPolicy::Nearest, &["10.0.0.0/8"], &["eu"]);

    let ranking = ranked(&world, &policy, &place([10, 1, 2, 3]), 0);

    assert_eq!(
        ranking.reason,
        Reason::NoRoom,
        "full or not, it stays where it must"
    );
    assert_eq!(world.region_names(ranking.regions()), ["eu"]);
}

// ---- Panic ----

fn panic_below(threshold: f64) -> FailoverRule {
    FailoverRule {
        threshold: Ratio::new(0.5).unwrap(),
        hold_down: Duration::from_secs(60),
        all_down: AllDown::FailOpen,
        panic: Ratio::new(threshold).unwrap(),
        ramp: None,
    }
}

/// Two regions of four are out with half of their endpoints up, one is out altogether.
fn little_left(panic: f64) -> Snapshot {
    let half = |world: World, name: &str| {
        world
            .region(name, Up)
            .endpoint(&format!("10.0.{}.1:80", name.len()), Up)
            .endpoint(&format!("10.0.{}.2:80", name.len()), Down)
            .standing(Standing::Out(OutReason::Failed))
    };
    let world = World::new().failover(panic_below(panic));
    let world = world.region("well", Up).endpoints(2).rtt(MS(10));
    half(half(world, "lame"), "halved")
        .region("dead", Down)
        .endpoints(2)
        .build()
}

#[test]
fn in_a_panic_what_still_works_in_regions_that_are_out_serves_too() {
    let world = little_left(0.5);
    let weighted = SteeringPolicy::WeightedLatency(Weights::default());

    for region in ["lame", "halved"] {
        assert!(share(&world, &weighted, region) > 0.05, "{region}");
    }
    assert_eq!(share(&world, &weighted, "dead"), 0.0);
    let reasons: Vec<_> = (0..200)
        .map(|key| of_key(&world, &weighted, key).reason)
        .collect();
    assert!(reasons.contains(&Reason::Panic));
}

#[test]
fn without_a_panic_threshold_regions_that_are_out_are_out() {
    for calm in [little_left(0.0), little_left(0.2)] {
        let weighted = SteeringPolicy::Weighted(Weights::default());
        assert_eq!(share(&calm, &weighted, "well"), 1.0);
    }
}
