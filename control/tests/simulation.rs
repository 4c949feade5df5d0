//! Laws that hold in every world: hundreds of seeded ones, each with an unlucky quarter of an hour.
//!
//! `SIM_SEED=n` replays one seed, `SIM_SEEDS=n` runs that many. A failure names its seed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use sealane_control::OrderKind;
use sealane_control::core::{Change, Input};
use sealane_model::{EndpointId, Generation, OutReason, Source, Standing, Timestamp, Verdict};
use world::{HOLD_DOWN, INTERVAL, Manner, Plan, RECHECK, START, TIMEOUT, WELL, World};

const SEEDS: u64 = 256;

#[test]
fn the_laws_hold_in_every_world() {
    let replayed = std::env::var("SIM_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let count = std::env::var("SIM_SEEDS")
        .ok()
        .map_or(SEEDS, |count| count.parse().unwrap());
    let seeds = replayed.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        let told = std::panic::catch_unwind(|| live(seed));
        assert!(told.is_ok(), "a law was broken: SIM_SEED={seed} replays it");
    }
}

/// A quarter of an hour of one world.
fn live(seed: u64) {
    let mut dice = Dice(seed);
    let mut plan = Plan::new(&[
        ("api", &[("eu", 3), ("us", 3), ("ap", 2)]),
        ("web", &[("eu", 1), ("us", 4)]),
    ]);
    let mut world = World::new(&plan, seed);
    let mut laws = Laws::default();
    for _ in 0..80 {
        world.run_for(Duration::from_millis(dice.below(24_000)));
        misfortune(&mut world, &mut plan, &mut dice);
        laws.check(&mut world);
    }
    assert!(
        world.steps < 25_000,
        "{} steps: something spins",
        world.steps
    );
}

/// One thing that happens to the world.
fn misfortune(world: &mut World, plan: &mut Plan, dice: &mut Dice) {
    let endpoints: Vec<EndpointId> = world
        .core
        .topology()
        .endpoints()
        .map(|one| one.id)
        .collect();
    let one = endpoints[dice.index(endpoints.len())];
    let region = ["eu", "us", "ap"][dice.index(3)];
    match dice.below(12) {
        0 | 1 => world.behave(&[one], Manner::Refuses),
        2 => world.behave(&[one], Manner::Blackhole),
        3 | 4 => world.behave(
            &[one],
            Manner::Passes(Duration::from_millis(dice.below(900))),
        ),
        5 => world.behave(&endpoints, WELL),
        6 => {
            let of_region: Vec<EndpointId> = world
                .core
                .topology()
                .endpoints()
                .filter(|endpoint| world.core.topology().region_name(endpoint.region) == region)
                .map(|endpoint| endpoint.id)
                .collect();
            world.behave(&of_region, Manner::Refuses);
        }
        7 | 8 => world.observe_failure(one),
        9 => {
            let kind = [OrderKind::FailOver, OrderKind::FailBack, OrderKind::Drain][dice.index(3)];
            // Refusals are lawful; what they change is checked below.
            let _ = world.order_as(kind, region, dice.below(4) == 0, dice.below(4) == 0);
        }
        10 => {
            let name = world
                .core
                .topology()
                .endpoint(one)
                .unwrap()
                .name
                .to_string();
            let kind = [OrderKind::FailOver, OrderKind::FailBack, OrderKind::Drain][dice.index(3)];
            let _ = world.order_as(kind, &name, false, false);
        }
        _ => {
            plan.pools[0].1[2].1 = 1 + dice.index(3);
            let config = plan.config(&mut world.book);
            world.step(Input::Replaced(Box::new(config)));
        }
    }
}

#[derive(Default)]
struct Laws {
    generation: Generation,
    checked: usize,
    out_since: BTreeMap<(usize, usize), Timestamp>,
}

impl Laws {
    fn check(&mut self, world: &mut World) {
        self.generations_grow(world);
        self.counts_are_those_of_the_verdicts(world);
        self.overrides_win(world);
        self.changes_are_lawful(world);
    }

    fn generations_grow(&mut self, world: &mut World) {
        let snapshot = world.snapshot();
        assert!(snapshot.generation > self.generation);
        assert_eq!(snapshot.published_at, world.now);
        self.generation = snapshot.generation;
    }

    fn counts_are_those_of_the_verdicts(&self, world: &mut World) {
        let snapshot = world.snapshot();
        for pool in snapshot.topology.pools() {
            for (member, health) in snapshot.members(pool.id) {
                let verdicts: Vec<_> = member
                    .endpoints
                    .iter()
                    .map(|id| snapshot.verdict(*id))
                    .collect();
                let having = |wanted: fn(&Verdict) -> bool| {
                    u32::try_from(verdicts.iter().filter(|one| wanted(one)).count()).unwrap()
                };
                assert_eq!(health.total, having(|_| true));
                assert_eq!(health.healthy, having(|one| one.is_usable()));
                let doubtful = |one: &Verdict| matches!(one, Verdict::Suspect | Verdict::Probation);
                assert_eq!(health.suspect, having(doubtful) > 0);

                let failed = having(|one| matches!(one, Verdict::Down | Verdict::Probation));
                let counted = health.total - having(|one| *one == Verdict::Draining);
                let reached = failed > 0 && failed * 2 >= counted;
                match health.standing {
                    Standing::Out(OutReason::Failed) => assert!(reached),
                    Standing::In => assert!(!reached && counted > 0),
                    Standing::Out(OutReason::HoldDown { until }) => {
                        assert!(!reached && until > world.now && until <= world.now + HOLD_DOWN);
                    }
                    Standing::Out(_) => {}
                }
                assert!(!health.addresses.is_empty());
            }
        }
    }

    fn overrides_win(&self, world: &mut World) {
        let snapshot = world.snapshot();
        for word in world.core.overview().overrides {
            let name = word.subject.name();
            if let Some(region) = snapshot.topology.region_named(name) {
                for pool in snapshot.topology.pools() {
                    if let Some((_, health)) = snapshot.member(pool.id, region.id) {
                        let expected = match word.wish {
                            sealane_control::overrides::Wish::FailedOver => OutReason::FailedOver,
                            sealane_control::overrides::Wish::Draining => OutReason::Draining,
                        };
                        assert_eq!(health.standing, Standing::Out(expected));
                    }
                }
            }
            for endpoint in snapshot
                .topology
                .endpoints()
                .filter(|one| one.name == *name)
            {
                assert_eq!(snapshot.endpoint(endpoint.id).unwrap().by, Source::Operator);
            }
        }
    }

    fn changes_are_lawful(&mut self, world: &mut World) {
        for (at, change) in world
            .changes
            .split_off(self.checked.min(world.changes.len()))
        {
            match change {
                Change::Verdict {
                    to: Verdict::Down,
                    by,
                    ..
                } => {
                    assert_ne!(by, Source::Traffic, "traffic alone took an endpoint down");
                }
                Change::Verdict {
                    to: Verdict::Suspect,
                    from,
                    ..
                } => {
                    assert!(matches!(
                        from,
                        Verdict::Up | Verdict::Down | Verdict::Draining
                    ));
                }
                Change::Standing {
                    pool, region, to, ..
                } => {
                    let name = world.core.topology().region_name(region);
                    let asked_back = world.failbacks.contains(&(at, name.to_owned()));
                    let key = (pool.index(), region.index());
                    self.hold_down_is_respected(at, key, to, asked_back);
                }
                _ => {}
            }
        }
        self.checked = world.changes.len();
    }

    /// From failed, health alone leads back through the whole hold-down.
    fn hold_down_is_respected(
        &mut self,
        at: Timestamp,
        key: (usize, usize),
        to: Standing,
        asked_back: bool,
    ) {
        match to {
            Standing::Out(OutReason::HoldDown { until }) => {
                // Shown late if an override hid its beginning; never longer than the rule.
                assert!(until <= at + HOLD_DOWN);
                self.out_since.insert(key, until);
            }
            Standing::In => {
                if let Some(until) = self.out_since.remove(&key) {
                    assert!(asked_back || at >= until, "back before its hold-down ended");
                }
            }
            Standing::Out(OutReason::Failed) => {
                self.out_since.remove(&key);
            }
            // By order: what comes after it is the order's doing.
            Standing::Out(_) => {
                self.out_since.remove(&key);
            }
        }
    }
}

#[test]
fn every_lasting_failure_is_detected_in_time() {
    let interval = INTERVAL.mul_f64(1.1);
    for seed in 0..SEEDS {
        let mut dice = Dice(seed);
        let mut world = World::new(&Plan::new(&[("api", &[("eu", 5)])]), seed);
        world.run_for(Duration::from_millis(10_000 + dice.below(10_000)));
        let endpoint = world.endpoints("api", "eu")[dice.index(5)];
        let manner = [Manner::Refuses, Manner::Blackhole][dice.index(2)];
        world.behave(&[endpoint], manner);

        let took = world.run_until_that(Duration::from_secs(60), |world| {
            world.snapshot().verdict(endpoint) == Verdict::Down
        });

        let bound = interval + TIMEOUT + RECHECK + TIMEOUT;
        assert!(took <= bound, "{manner:?}: {took:?}, SIM_SEED={seed}");
        assert!(took <= interval * 2 + TIMEOUT);
    }
}

#[test]
fn equal_seeds_and_inputs_give_equal_histories() {
    let history = |seed| {
        let mut dice = Dice(seed);
        let mut plan = Plan::new(&[("api", &[("eu", 3), ("us", 3), ("ap", 2)])]);
        let mut world = World::new(&plan, seed);
        for _ in 0..40 {
            world.run_for(Duration::from_millis(dice.below(9_000)));
            misfortune(&mut world, &mut plan, &mut dice);
        }
        (world.probed, format!("{:?}", world.changes))
    };
    assert_eq!(history(3), history(3));
    assert_ne!(history(3).0, history(4).0);
    assert!(history(3).0.iter().all(|(at, _)| *at >= START));
}

/// `splitmix64`: the same throws for the same seed on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }
}
