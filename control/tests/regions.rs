//! What live traffic does to regions, second by second in virtual time: full ones spill, returning
//! ones climb, shares follow latency without swinging.
//!
//! The decisions are the real ones: `rank` on what the core publishes. Endpoints' round trips answer
//! to the load where a scenario says so.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod world;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use sealane_control::OrderKind;
use sealane_control::core::{Change, Input, Totals};
use sealane_model::{
    MemberHealth, OutReason, PoolId, RampRule, Ratio, RegionId, ScopePrefix, Snapshot, Standing,
    Weight,
};
use sealane_steering::{Ask, ClientPlace, How, Reason, SteeringPolicy, Weights, rank};
use world::{Manner, Plan, World};

const REGIONS: [&str; 3] = ["a", "b", "c"];
const SECOND: Duration = Duration::from_secs(1);

/// One node and what it is asked for.
struct Node {
    world: World,
    pool: PoolId,
    ids: [RegionId; 3],
    policy: SteeringPolicy,
    totals: Totals,
    /// Share of requests that fail, by region.
    fails: [f64; 3],
    /// What a scenario takes away from the world before it is ranked by.
    without: fn(&mut MemberHealth),
}

/// What one second brought.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    load: [f64; 3],
    no_room: f64,
}

impl Second {
    fn share(&self, region: usize) -> f64 {
        self.load[region] / self.load.iter().sum::<f64>()
    }
}

impl Node {
    fn new(plan: &Plan, policy: SteeringPolicy) -> Self {
        let mut world = World::new(plan, 7);
        world.run_for(Duration::from_secs(60));
        let pool = world.core.topology().pool_named("api").unwrap().id;
        let ids = REGIONS.map(|name| world.region(name));
        Self {
            world,
            pool,
            ids,
            policy,
            totals: Totals::new(),
            fails: [0.0; 3],
            without: |_| {},
        }
    }

    /// So much is asked for in one second: by the same clients in each, so that nothing is chance.
    fn second(&mut self, offered: u64) -> Second {
        let snapshot = self.seen();
        let mut second = Second::default();
        for number in 0..offered {
            let (region, reason) = self.choose(&snapshot, number);
            second.load[region] += 1.0;
            let counts = self
                .totals
                .entry((self.pool, self.ids[region]))
                .or_default();
            if reason == Reason::NoRoom {
                second.no_room += 1.0;
                counts.excess += 1;
            } else {
                counts.drawn += 1;
            }
            let ended = (counts.answered + counts.failed) as f64;
            if (counts.failed as f64) < self.fails[region] * ended {
                counts.failed += 1;
            } else {
                counts.answered += 1;
            }
        }
        self.world.run_for(SECOND);
        self.world.step(Input::Counted(self.totals.clone()));
        second
    }

    fn seconds(&mut self, count: usize, offered: u64) -> Vec<Second> {
        (0..count).map(|_| self.second(offered)).collect()
    }

    fn choose(&self, world: &Snapshot, key: u64) -> (usize, Reason) {
        let place = ClientPlace {
            address: Ipv4Addr::new(192, 0, 2, 1).into(),
            how: How::Connection,
            location: None,
            region: None,
            scope: ScopePrefix::EVERYONE,
        };
        let ask = Ask {
            pool: self.pool,
            policy: &self.policy,
            place: &place,
            key: key.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        let ranking = rank(&ask, world);
        let first = ranking.first().unwrap();
        let region = self.ids.iter().position(|id| *id == first).unwrap();
        (region, ranking.reason)
    }

    /// The published world, without what the scenario takes away.
    fn seen(&mut self) -> Snapshot {
        let snapshot = self.world.snapshot();
        let members = snapshot.members(self.pool).map(|(_, health)| {
            let mut health = health.clone();
            (self.without)(&mut health);
            health
        });
        let endpoints = snapshot
            .topology
            .endpoints()
            .filter_map(|endpoint| Some((endpoint.id, snapshot.endpoint(endpoint.id)?.clone())));
        Snapshot::new(
            snapshot.generation,
            snapshot.published_at,
            Arc::clone(&snapshot.topology),
            endpoints.collect(),
            vec![(self.pool, members.collect())],
        )
    }

    /// Probes of the region take so many milliseconds from now on.
    fn round_trip(&mut self, region: usize, millis: f64) {
        let endpoints = self.world.endpoints("api", REGIONS[region]);
        let rtt = Duration::from_secs_f64(millis / 1e3);
        self.world.behave(&endpoints, Manner::Passes(rtt));
    }

    fn behave(&mut self, region: usize, manner: Manner) {
        let endpoints = self.world.endpoints("api", REGIONS[region]);
        self.world.behave(&endpoints, manner);
    }

    fn health(&mut self, region: usize) -> MemberHealth {
        let (pool, id) = (self.pool, self.ids[region]);
        self.world.snapshot().member(pool, id).unwrap().1.clone()
    }

    fn weights(&self, weights: [u32; 3]) -> SteeringPolicy {
        SteeringPolicy::Weighted(self.listed(weights))
    }

    fn listed(&self, weights: [u32; 3]) -> Weights {
        let listed = self.ids.into_iter().zip(weights);
        Weights::new(
            listed
                .map(|(id, weight)| (id, Weight::new(weight).unwrap()))
                .collect(),
        )
    }
}

fn plan(capacity: Option<f64>) -> Plan {
    let mut plan = Plan::new(&[("api", &[("a", 2), ("b", 2), ("c", 2)])]);
    plan.capacity = capacity;
    plan
}

fn ramp() -> RampRule {
    RampRule {
        steps: [0.05, 0.25, 0.5]
            .map(|step| Ratio::new(step).unwrap())
            .into(),
        hold: Duration::from_secs(30),
        max_errors: Ratio::new(0.01).unwrap(),
    }
}

/// The largest move of a region's share within ten seconds, over windows of a second's shares.
fn largest_move(seconds: &[Second], region: usize) -> f64 {
    let moved = seconds
        .windows(11)
        .map(|ten| (ten[10].share(region) - ten[0].share(region)).abs());
    moved.fold(0.0, f64::max)
}

/// Between the least and the most of a region's share, each the mean of ten seconds.
fn spread(seconds: &[Second], region: usize) -> f64 {
    let means = seconds.chunks_exact(10).map(|ten| {
        let sum: f64 = ten.iter().map(|second| second.share(region)).sum();
        sum / 10.0
    });
    let (low, high) = means.fold((1.0_f64, 0.0_f64), |(low, high), mean| {
        (low.min(mean), high.max(mean))
    });
    high - low
}

// ---- Capacity and spill ----

#[test]
fn what_a_region_cannot_carry_goes_to_the_others_and_none_is_pushed_over() {
    let mut node = Node::new(&plan(Some(1_000.0)), SteeringPolicy::Priority);
    node.policy = node.weights([3, 1, 1]);
    // 1,500 want `a`: half as much again as it can carry.
    let first = node.seconds(8, 2_500);
    let later = node.seconds(300, 2_500);

    assert!(first[0].load[0] > 1_400.0, "{:?}", first[0]);
    for (at, second) in later.iter().enumerate() {
        for (region, load) in second.load.iter().enumerate() {
            assert!(*load <= 1_000.0, "{at}: {} has {load}", REGIONS[region]);
        }
    }
    let settled = &later[60..];
    let no_room: f64 = settled.iter().map(|second| second.no_room).sum();
    assert!(
        no_room / (settled.len() as f64 * 2_500.0) < 0.002,
        "{no_room}"
    );
    let mean = settled.iter().map(|second| second.load[0]).sum::<f64>() / settled.len() as f64;
    assert!((900.0..=960.0).contains(&mean), "full, not emptied: {mean}");
    assert!(spread(settled, 0) < 0.04, "{}", spread(settled, 0));
}

#[test]
fn where_all_are_full_the_rest_is_told_so_and_stays_where_it_would_have_gone() {
    let mut node = Node::new(&plan(Some(1_000.0)), SteeringPolicy::Priority);
    node.policy = node.weights([1, 1, 1]);
    let seconds = node.seconds(120, 4_500);

    let last = &seconds[60..];
    for second in last {
        // A third of it has no room anywhere; 95 % of each region's capacity is filled.
        let share = second.no_room / 4_500.0;
        assert!((share - (1.0 - 2_850.0 / 4_500.0)).abs() < 0.04, "{share}");
    }
    let health = node.health(0).room.unwrap();
    // Each is asked by those that the other two turn away as well: with x turned away by each,
    // 1 − x³ of all are taken.
    assert!((0.26..0.31).contains(&health.accepts), "{health:?}");
    assert!(health.excess > 400.0, "{health:?}");
}

#[test]
fn without_the_room_a_region_is_pushed_over_its_limit() {
    let mut node = Node::new(&plan(Some(1_000.0)), SteeringPolicy::Priority);
    node.policy = node.weights([3, 1, 1]);
    node.without = |health| health.room = None;
    let last = node.seconds(120, 2_500).pop().unwrap();
    assert!(last.load[0] > 1_400.0, "{last:?}");
}

#[test]
fn the_clients_that_move_are_those_that_are_turned_away() {
    let mut node = Node::new(&plan(Some(1_000.0)), SteeringPolicy::Priority);
    node.policy = node.weights([3, 1, 1]);
    node.seconds(60, 1_500);
    let calm = node.seen();
    node.seconds(60, 2_500);
    let full = node.seen();
    let (mut of_a, mut moved) = (0.0, 0.0);
    for key in 0..1_500 {
        let (before, now) = (node.choose(&calm, key).0, node.choose(&full, key).0);
        of_a += f64::from(u8::from(before == 0));
        if now != before {
            assert_eq!(before, 0, "nobody leaves a region that has room");
            moved += 1.0;
        }
    }
    let turned_away = of_a * (1.0 - node.health(0).room.unwrap().accepts);
    assert!(moved > 200.0);
    assert!(
        (moved - turned_away).abs() < 0.1 * turned_away,
        "{moved}, {turned_away}"
    );
}

#[test]
fn no_survivor_is_pushed_over_when_a_region_goes_down() {
    let mut node = Node::new(&plan(Some(1_000.0)), SteeringPolicy::Priority);
    node.policy = node.weights([1, 1, 1]);
    node.seconds(60, 2_100);
    node.behave(0, Manner::Refuses);
    let mut out = Vec::new();
    for _ in 0..60 {
        let second = node.second(2_100);
        if second.load[0] < 1.0 {
            out.push(second);
        }
    }
    assert!(out.len() > 40);
    for (at, second) in out.iter().enumerate() {
        assert!(
            second.load[1] - second.no_room / 2.0 <= 1_000.0,
            "{at}: {second:?}"
        );
        assert!(
            second.load[2] - second.no_room / 2.0 <= 1_000.0,
            "{at}: {second:?}"
        );
    }
}

#[test]
fn half_of_its_endpoints_can_carry_half_of_a_regions_capacity() {
    let mut plan = Plan::new(&[("api", &[("a", 4), ("b", 4), ("c", 4)])]);
    plan.capacity = Some(1_000.0);
    plan.threshold = 0.8;
    let mut node = Node::new(&plan, SteeringPolicy::Priority);
    node.policy = node.weights([1, 1, 1]);
    let endpoints = node.world.endpoints("api", "a");
    node.world.behave(&endpoints[..2], Manner::Refuses);
    node.seconds(30, 2_100);
    let last = node.seconds(60, 2_100).pop().unwrap();
    assert!(last.load[0] <= 510.0, "{last:?}");
    assert_eq!(node.health(0).room.unwrap().limit, 500.0);
}

// ---- Shares that follow latency ----

#[test]
fn two_hundred_milliseconds_move_a_share_as_the_formula_says_and_no_faster_than_ten_points() {
    let mut node = Node::new(
        &plan(None),
        SteeringPolicy::WeightedLatency(Weights::default()),
    );
    for region in 0..3 {
        node.round_trip(region, 900.0);
    }
    node.seconds(300, 200);
    node.round_trip(0, 1_100.0);
    let moving = node.seconds(240, 4_000);
    let settled = node.seconds(20, 20_000);

    let appeal = |millis: f64| 1.0 / (millis * millis);
    let formula = appeal(1_100.0) / (appeal(1_100.0) + 2.0 * appeal(900.0));
    for second in &settled {
        assert!(
            (second.share(0) - formula).abs() < 0.02,
            "{} {formula}",
            second.share(0)
        );
        // The others keep their ratio.
        assert!((second.share(1) - second.share(2)).abs() < 0.02);
    }
    let fastest = largest_move(&moving, 0);
    assert!(fastest < 0.11, "{fastest}");
}

#[test]
fn a_share_that_falls_to_nothing_takes_its_time_and_without_damping_it_does_not() {
    let fall = |without: fn(&mut MemberHealth)| {
        let mut node = Node::new(
            &plan(None),
            SteeringPolicy::WeightedLatency(Weights::default()),
        );
        node.without = without;
        for region in 0..3 {
            node.round_trip(region, 100.0);
        }
        node.seconds(240, 200);
        node.round_trip(0, 300.0);
        let moving = node.seconds(240, 4_000);
        assert!(moving.last().unwrap().share(0) < 0.01);
        largest_move(&moving, 0)
    };
    let damped = fall(|_| {});
    let undamped = fall(|health| health.basis = Arc::new([]));
    assert!(damped < 0.11, "{damped}");
    assert!(undamped > 0.2, "{undamped}");
}

/// Round trips grow as a queue's do: base ÷ (1 − utilisation).
fn feed_back(nodes: &mut [Node], loads: [f64; 3], capacity: f64) {
    for (region, load) in loads.iter().enumerate() {
        let utilisation = (load / capacity).min(0.99);
        for node in &mut *nodes {
            node.round_trip(region, 60.0 / (1.0 - utilisation));
        }
    }
}

fn run_with_feedback(
    nodes: &mut [Node],
    seconds: usize,
    offered: [u64; 2],
    capacity: f64,
) -> Vec<Second> {
    let mut seen = Vec::new();
    for _ in 0..seconds {
        let mut sum = Second::default();
        for (node, offered) in nodes.iter_mut().zip(offered) {
            let second = node.second(offered);
            for region in 0..3 {
                sum.load[region] += second.load[region];
            }
            sum.no_room += second.no_room;
        }
        feed_back(nodes, sum.load, capacity);
        seen.push(sum);
    }
    seen
}

#[test]
fn latency_that_answers_to_the_load_does_not_make_shares_swing() {
    let latency = || SteeringPolicy::WeightedLatency(Weights::default());
    let settle = |without: fn(&mut MemberHealth)| {
        let mut node = Node::new(&plan(Some(1_000.0)), latency());
        node.policy = SteeringPolicy::WeightedLatency(node.listed([3, 1, 1]));
        node.without = without;
        let mut nodes = [node];
        run_with_feedback(&mut nodes, 400, [2_200, 0], 1_000.0);
        let last = run_with_feedback(&mut nodes, 300, [2_200, 0], 1_000.0);
        let over = last
            .iter()
            .filter(|second| second.load.iter().any(|load| *load > 1_000.0));
        (spread(&last, 0), over.count())
    };
    let (swing, over) = settle(|_| {});
    let (undamped, _) = settle(|health| health.basis = Arc::new([]));
    println!("swing {swing:.3}, undamped {undamped:.3}, seconds over the limit {over}");
    assert!(swing < 0.10, "{swing}");
    assert!(
        undamped > 1.5 * swing,
        "{undamped} without damping, {swing} with it"
    );
    assert!(over <= 3, "{over} seconds of 300 over the limit");
}

#[test]
fn two_nodes_with_half_the_capacity_each_do_not_swing_against_each_other() {
    let node = || {
        let mut node = Node::new(
            &plan(Some(500.0)),
            SteeringPolicy::WeightedLatency(Weights::default()),
        );
        node.policy = SteeringPolicy::WeightedLatency(node.listed([3, 1, 1]));
        node
    };
    let mut nodes = [node(), node()];
    run_with_feedback(&mut nodes, 400, [1_100, 1_000], 1_000.0);
    let last = run_with_feedback(&mut nodes, 300, [1_100, 1_000], 1_000.0);

    assert!(spread(&last, 0) < 0.12, "{}", spread(&last, 0));
    let over = last
        .iter()
        .filter(|second| second.load.iter().any(|load| *load > 1_000.0));
    let over = over.count();
    assert!(over <= 3, "{over} seconds of 300 over the limit");
}

#[test]
fn free_capacity_draws_clients_away_from_the_full_before_they_must_be_turned_away() {
    let busiest = |without: fn(&mut MemberHealth)| {
        let mut node = Node::new(&plan(Some(1_000.0)), SteeringPolicy::Priority);
        node.policy = SteeringPolicy::WeightedLatency(node.listed([2, 1, 1]));
        node.without = without;
        node.seconds(400, 1_700);
        let last = node.second(1_700);
        last.load.into_iter().fold(0.0, f64::max)
    };
    let with = busiest(|_| {});
    let without = busiest(|health| {
        let all_free = health.basis.iter().map(|basis| {
            let mut basis = *basis;
            basis.free = 1.0;
            basis
        });
        health.basis = all_free.collect();
    });
    assert!(
        with + 80.0 < without,
        "{with} with the term, {without} without it"
    );
}

// ---- Coming back ----

#[test]
fn a_region_comes_back_step_by_step() {
    let mut plan = plan(None);
    plan.ramp = Some(ramp());
    let mut node = Node::new(&plan, SteeringPolicy::Priority);
    node.policy = node.weights([1, 1, 1]);
    node.seconds(10, 100);
    node.behave(0, Manner::Refuses);
    node.seconds(30, 100);
    node.behave(0, world::WELL);
    while node.health(0).standing != Standing::In {
        node.second(100);
    }
    let climbing = node.seconds(120, 3_000);
    for (at, expected) in [(5, 0.05), (35, 0.25), (65, 0.5), (110, 1.0)] {
        let share = climbing[at].share(0);
        assert!(
            (share - expected / 3.0).abs() < 0.03,
            "{at} s: {share}, {expected}"
        );
    }
    assert_eq!(node.health(0).ramp, None);
    // The others share what it does not take, and keep their ratio.
    for second in &climbing {
        assert!(
            (second.share(1) - second.share(2)).abs() < 0.06,
            "{second:?}"
        );
    }
}

#[test]
fn errors_hold_a_region_at_its_first_step_until_it_is_well() {
    let mut plan = plan(None);
    plan.ramp = Some(ramp());
    let mut node = Node::new(&plan, SteeringPolicy::Priority);
    node.policy = node.weights([1, 1, 1]);
    node.world.order(OrderKind::FailOver, "a").unwrap();
    node.seconds(10, 300);
    assert_eq!(
        node.health(0).standing,
        Standing::Out(OutReason::FailedOver)
    );
    node.fails[0] = 0.2;
    node.world.order(OrderKind::FailBack, "a").unwrap();
    node.seconds(200, 3_000);
    let step = node.health(0).ramp.unwrap();
    assert_eq!((step.step, step.held, step.share), (1, true, 0.05));
    let held = |(_, change): &&(_, Change)| matches!(change, Change::Ramp { step: Some(step), .. } if step.held);
    assert!(node.world.changes.iter().filter(held).count() >= 5);

    node.fails[0] = 0.0;
    node.seconds(200, 3_000);
    assert_eq!(node.health(0).ramp, None, "and then it climbs");
}

#[test]
fn a_region_that_fails_on_its_way_back_begins_again() {
    let mut plan = plan(None);
    plan.ramp = Some(ramp());
    let mut node = Node::new(&plan, SteeringPolicy::Priority);
    node.policy = node.weights([1, 1, 1]);
    node.world.order(OrderKind::FailOver, "a").unwrap();
    node.world.order(OrderKind::FailBack, "a").unwrap();
    node.seconds(70, 300);
    assert_eq!(node.health(0).ramp.unwrap().step, 3);
    node.world.order(OrderKind::FailOver, "a").unwrap();
    assert_eq!(node.health(0).ramp, None);
    node.world.order(OrderKind::FailBack, "a").unwrap();
    assert_eq!(node.health(0).ramp.unwrap().step, 1);
}

#[test]
fn the_last_region_left_serves_everyone_however_far_it_has_climbed() {
    let mut plan = plan(None);
    plan.ramp = Some(ramp());
    let mut node = Node::new(&plan, SteeringPolicy::Priority);
    node.policy = node.weights([1, 1, 1]);
    node.world.order(OrderKind::FailOver, "a").unwrap();
    node.world.order(OrderKind::FailBack, "a").unwrap();
    for region in [1, 2] {
        node.world
            .order_as(OrderKind::FailOver, REGIONS[region], false, true)
            .unwrap();
    }
    let second = node.second(300);
    assert_eq!(second.load, [300.0, 0.0, 0.0]);
    assert_eq!(second.no_room, 0.0);
}

#[test]
fn a_region_that_is_slow_to_start_has_its_share_once_it_is_there() {
    let mut plan = plan(None);
    plan.ramp = Some(ramp());
    let mut world = World::all(&plan, 7, Manner::Refuses);
    world.run_for(Duration::from_secs(30));
    assert!(matches!(world.standing("api", "a"), Standing::Out(_)));
    let endpoints = world.endpoints("api", "a");
    world.behave(&endpoints, world::WELL);
    world.run_for(Duration::from_secs(60));
    let snapshot = world.snapshot();
    let (pool, a) = (
        snapshot.topology.pool_named("api").unwrap().id,
        world.region("a"),
    );
    let (_, health) = snapshot.member(pool, a).unwrap();
    assert_eq!((health.standing, health.ramp), (Standing::In, None));
}

#[test]
fn a_region_that_is_there_from_the_start_has_its_share_at_once() {
    let mut plan = plan(None);
    plan.ramp = Some(ramp());
    let mut node = Node::new(&plan, SteeringPolicy::Priority);
    assert!((0..3).all(|region| node.health(region).ramp.is_none()));
}

#[test]
fn where_there_is_only_one_region_nothing_is_held_back() {
    let mut plan = Plan::new(&[("api", &[("a", 2)])]);
    plan.ramp = Some(ramp());
    let mut world = World::new(&plan, 7);
    world.run_for(Duration::from_secs(60));
    let endpoints = world.endpoints("api", "a");
    world.behave(&endpoints, Manner::Refuses);
    world.run_for(Duration::from_secs(30));
    assert!(matches!(world.standing("api", "a"), Standing::Out(_)));
    world.behave(&endpoints, world::WELL);
    while world.standing("api", "a") != Standing::In {
        world.run_for(SECOND);
    }
    let snapshot = world.snapshot();
    let pool = snapshot.topology.pool_named("api").unwrap().id;
    let (_, health) = snapshot.member(pool, world.region("a")).unwrap();
    assert_eq!(health.ramp, None);
}

// ---- Each term of the formula, and what is worse without it ----

/// What clients see on average, where the regions take so long.
fn mean_latency(second: &Second, millis: [f64; 3]) -> f64 {
    let weighed = (0..3).map(|region| second.share(region) * millis[region]);
    weighed.sum()
}

/// What a second is like once all have settled at these round trips.
fn settled(
    millis: [f64; 3],
    policy: impl Fn(&Node) -> SteeringPolicy,
    without: fn(&mut MemberHealth),
) -> Second {
    let mut node = Node::new(&plan(None), SteeringPolicy::Priority);
    node.policy = policy(&node);
    node.without = without;
    for (region, millis) in millis.into_iter().enumerate() {
        node.round_trip(region, millis);
    }
    node.seconds(300, 10);
    node.second(40_000)
}

fn by_latency(_: &Node) -> SteeringPolicy {
    SteeringPolicy::WeightedLatency(Weights::default())
}

/// Squaring a round trip's root gives the round trip: latency counts once.
fn without_the_square(health: &mut MemberHealth) {
    let rooted = |rtt: Option<Duration>| {
        let millis = rtt.map(|rtt| (rtt.as_secs_f64() * 1e3).sqrt());
        // Far above the floor.
        millis.map(|root| Duration::from_secs_f64(root * 10.0 / 1e3))
    };
    let basis = health.basis.iter().map(|basis| sealane_model::Basis {
        rtt: rooted(basis.rtt),
        rtt_floor: rooted(basis.rtt_floor),
        ..*basis
    });
    health.basis = basis.collect();
}

#[test]
fn clients_see_more_latency_where_it_counts_less_or_not_at_all() {
    let millis = [100.0, 115.0, 124.0];
    let with = mean_latency(&settled(millis, by_latency, |_| {}), millis);
    let once = settled(millis, by_latency, without_the_square);
    let never = settled(millis, |node| node.weights([1, 1, 1]), |_| {});
    let (once, never) = (mean_latency(&once, millis), mean_latency(&never, millis));
    println!("mean latency: {with:.1} ms, counted once {once:.1} ms, not at all {never:.1} ms");
    assert!(with + 0.5 < once && once + 0.5 < never);
}

#[test]
fn clients_see_more_latency_where_far_regions_take_their_part() {
    let millis = [100.0, 115.0, 300.0];
    let with = mean_latency(&settled(millis, by_latency, |_| {}), millis);
    // 1 ÷ L², as whole numbers, without the band.
    let unbounded = settled(millis, |node| node.weights([1_000, 756, 111]), |_| {});
    let without = mean_latency(&unbounded, millis);
    println!("mean latency: {with:.1} ms, without the band {without:.1} ms");
    assert!(with + 8.0 < without);
}

#[test]
fn a_difference_that_nobody_notices_crowds_one_region_without_the_floor() {
    let millis = [0.5, 1.0, 2.0];
    let busiest = |second: Second| (0..3).map(|at| second.share(at)).fold(0.0, f64::max);
    let with = busiest(settled(millis, by_latency, |_| {}));
    let without = busiest(settled(millis, |node| node.weights([16, 4, 1]), |_| {}));
    println!("busiest region: {with:.3}, without the floor {without:.3}");
    assert!(with < 0.35 && without > 0.7);
}

#[test]
fn what_is_left_of_a_region_has_twice_its_part_where_health_does_not_count() {
    let each = |without: fn(&mut MemberHealth)| {
        let mut plan = Plan::new(&[("api", &[("a", 4), ("b", 4), ("c", 4)])]);
        plan.threshold = 0.8;
        let mut node = Node::new(&plan, SteeringPolicy::WeightedLatency(Weights::default()));
        node.without = without;
        let endpoints = node.world.endpoints("api", "a");
        node.world.behave(&endpoints[..2], Manner::Refuses);
        node.seconds(60, 10);
        let second = node.second(40_000);
        (second.share(0) / 2.0, second.share(1) / 4.0)
    };
    let (left, whole) = each(|_| {});
    assert!((left / whole - 1.0).abs() < 0.05, "{left} {whole}");
    let (left, whole) = each(|health| health.healthy = health.total);
    assert!(left / whole > 1.9, "{left} {whole}");
}
