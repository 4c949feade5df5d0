//! What happens to a small world over minutes, told as sentences, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod world;

use std::time::Duration;

use sealane_control::core::{Change, Input};
use sealane_control::{OrderError, OrderKind};
use sealane_model::{EjectionCause, Judged, Judgement, OutReason, Source, Standing, Verdict};
use world::{HOLD_DOWN, Manner, Plan, RECHECK, START, WELL, World};

const FAILED: Standing = Standing::Out(OutReason::Failed);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn two_regions() -> World {
    let mut world = World::new(&Plan::new(&[("api", &[("eu", 2), ("us", 2)])]), 1);
    world.run_for(secs(1));
    world
}

#[test]
fn s6_forty_nine_of_a_hundred_down_keep_the_region_and_the_fiftieth_takes_it_out() {
    let mut world = World::new(&Plan::new(&[("api", &[("eu", 100), ("us", 1)])]), 6);
    world.run_for(secs(1));
    let endpoints = world.endpoints("api", "eu");

    world.behave(&endpoints[..49], Manner::Refuses);
    world.run_for(secs(30));
    assert_eq!(world.standing("api", "eu"), Standing::In);

    world.behave(&endpoints[49..50], Manner::Refuses);
    world.run_for(secs(30));
    assert_eq!(world.standing("api", "eu"), FAILED);
}

#[test]
fn s16_a_refusing_endpoint_is_down_within_seven_seconds_and_a_black_hole_within_ten() {
    for seed in 0..200 {
        for (manner, limit) in [(Manner::Refuses, 7_000), (Manner::Blackhole, 10_001)] {
            let mut world = World::new(&Plan::new(&[("api", &[("eu", 3)])]), seed);
            // Not always at the same place of the cadence.
            world.run_for(secs(20) + Duration::from_millis(seed * 137));
            let endpoint = world.endpoints("api", "eu")[0];
            world.behave(&[endpoint], manner);

            let took =
                world.run_until_that(secs(30), |world| world.verdict(endpoint) == Verdict::Down);

            assert!(
                took < Duration::from_millis(limit),
                "{manner:?} took {took:?}"
            );
        }
    }
}

#[test]
fn s16_fail_pass_fail_does_not_flip() {
    let mut world = two_regions();
    let endpoint = world.endpoints("api", "eu")[0];
    for _ in 0..20 {
        world.behave(&[endpoint], Manner::Refuses);
        world.run_until_that(secs(10), |world| {
            world.verdict(endpoint) == Verdict::Suspect
        });
        world.behave(&[endpoint], WELL);
        world.run_until_that(secs(10), |world| world.verdict(endpoint) == Verdict::Up);
    }
    let down = world.changes.iter().any(|(_, change)| {
        matches!(
            change,
            Change::Verdict {
                to: Verdict::Down,
                ..
            } | Change::Standing { .. }
        )
    });
    assert!(!down);
}

#[test]
fn a_failed_request_brings_the_probe_forward_and_a_dead_endpoint_is_down_in_a_second() {
    let mut world = two_regions();
    world.run_for(secs(20));
    let endpoint = world.endpoints("api", "eu")[0];
    world.behave(&[endpoint], Manner::Refuses);

    world.observe_failure(endpoint);
    assert_eq!(world.verdict(endpoint), Verdict::Suspect);
    world.run_for(RECHECK + Duration::from_millis(10));

    assert_eq!(world.verdict(endpoint), Verdict::Down);
}

#[test]
fn failed_requests_alone_never_take_an_endpoint_down_nor_probe_it_more_than_once_a_second() {
    let mut world = two_regions();
    let endpoint = world.endpoints("api", "eu")[0];
    world.probed.clear();
    for _ in 0..10_000 {
        world.observe_failure(endpoint);
        world.run_for(Duration::from_millis(1));
        assert_ne!(world.verdict(endpoint), Verdict::Down);
    }
    let probes = world
        .probed
        .iter()
        .filter(|(_, probed)| *probed == endpoint)
        .count();
    assert!((10..=13).contains(&probes), "{probes} in ten seconds");
}

#[test]
fn the_first_round_ends_when_every_endpoint_was_heard_of() {
    let plan = Plan::new(&[("api", &[("eu", 2), ("us", 2)])]);
    let mut world = World::new(&plan, 1);
    assert!(!world.core.first_round_over());
    world.run_for(Duration::from_millis(11));
    assert!(world.core.first_round_over());
}

#[test]
fn the_first_round_ends_at_its_limit_even_if_an_endpoint_is_not_heard_of() {
    let mut plan = Plan::new(&[("api", &[("eu", 1)])]);
    plan.probe = Some(sealane_control::config::Probe {
        timeout: secs(60),
        interval: secs(100),
        ..world::probe()
    });
    let mut book = sealane_model::IdBook::default();
    let mut core = sealane_control::core::Core::new(START, plan.config(&mut book), 1, None);
    // The probe that this begins never ends.
    let effects = core.step(START, Input::Tick);
    assert_eq!(effects.wake_at, Some(START + secs(10)));

    let effects = core.step(START + secs(10), Input::Tick);

    assert!(core.first_round_over());
    let unheard = effects.changes.iter().find_map(|change| match change {
        Change::FirstRoundOver { unheard } => Some(*unheard),
        _ => None,
    });
    assert_eq!(unheard, Some(1));
}

#[test]
fn a_region_that_recovers_is_held_down_before_it_comes_back() {
    let mut world = two_regions();
    let endpoints = world.endpoints("api", "eu");
    world.behave(&endpoints, Manner::Refuses);
    world.run_until_that(secs(15), |world| world.standing("api", "eu") == FAILED);
    world.behave(&endpoints, WELL);
    world.run_until_that(secs(30), |world| {
        matches!(
            world.standing("api", "eu"),
            Standing::Out(OutReason::HoldDown { .. })
        )
    });

    let held = world.run_until_that(secs(90), |world| {
        world.standing("api", "eu") == Standing::In
    });

    assert_eq!(held, HOLD_DOWN);
}

#[test]
fn a_failover_order_takes_a_region_out_at_once_and_failback_brings_it_in_at_once() {
    let mut world = two_regions();

    let reply = world.order(OrderKind::FailOver, "eu").unwrap();
    assert_eq!(
        world.standing("api", "eu"),
        Standing::Out(OutReason::FailedOver)
    );
    assert_eq!(
        (reply.pools[0].before.len(), reply.pools[0].after.len()),
        (2, 1)
    );
    assert!(!reply.already);
    assert!(world.order(OrderKind::FailOver, "eu").unwrap().already);

    world.run_for(secs(300));
    assert_eq!(
        world.standing("api", "eu"),
        Standing::Out(OutReason::FailedOver)
    );

    world.order(OrderKind::FailBack, "eu").unwrap();
    assert_eq!(world.standing("api", "eu"), Standing::In);
    assert!(world.order(OrderKind::FailBack, "eu").unwrap().already);
}

#[test]
fn failback_ends_a_hold_down_that_health_began_meanwhile() {
    let mut world = two_regions();
    let endpoints = world.endpoints("api", "eu");
    world.order(OrderKind::FailOver, "eu").unwrap();
    world.behave(&endpoints, Manner::Refuses);
    world.run_for(secs(20));
    world.behave(&endpoints, WELL);
    world.run_for(secs(20));

    world.order(OrderKind::FailBack, "eu").unwrap();

    assert_eq!(world.standing("api", "eu"), Standing::In);
}

#[test]
fn failback_does_not_bring_in_a_region_that_is_failing() {
    let mut world = two_regions();
    let endpoints = world.endpoints("api", "eu");
    world.order(OrderKind::FailOver, "eu").unwrap();
    world.behave(&endpoints, Manner::Refuses);
    world.run_for(secs(20));

    world.order(OrderKind::FailBack, "eu").unwrap();

    assert_eq!(world.standing("api", "eu"), FAILED);
}

#[test]
fn the_last_usable_region_of_a_pool_is_not_taken_out_unless_forced() {
    let mut world = two_regions();
    world.order(OrderKind::Drain, "eu").unwrap();

    let refused = world.order(OrderKind::FailOver, "us").unwrap_err();
    assert_eq!(
        refused,
        OrderError::LeavesNothing {
            pools: vec!["api".to_owned()]
        }
    );
    assert_eq!(world.standing("api", "us"), Standing::In);
    let rehearsed = world
        .order_as(OrderKind::FailOver, "us", true, false)
        .unwrap();
    assert_eq!(rehearsed.refusal, Some(refused));

    world
        .order_as(OrderKind::FailOver, "us", false, true)
        .unwrap();
    assert_eq!(
        world.standing("api", "us"),
        Standing::Out(OutReason::FailedOver)
    );
}

#[test]
fn a_dry_run_changes_nothing() {
    let mut world = two_regions();
    let reply = world
        .order_as(OrderKind::FailOver, "eu", true, false)
        .unwrap();
    assert_eq!(reply.pools[0].after.len(), 1);
    assert_eq!(world.standing("api", "eu"), Standing::In);
    assert_eq!(world.core.overview().overrides.len(), 0);
}

#[test]
fn a_target_may_be_written_with_underscores_and_an_unknown_one_is_refused() {
    let mut world = World::new(&Plan::new(&[("api", &[("us-east-1", 1), ("eu", 1)])]), 1);
    world.run_for(secs(1));
    world.order(OrderKind::FailOver, "us_east_1").unwrap();
    assert_eq!(
        world.standing("api", "us-east-1"),
        Standing::Out(OutReason::FailedOver)
    );

    let refused = world.order(OrderKind::FailOver, "mars").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "nothing is called `mars`; regions are us-east-1, eu"
    );
}

#[test]
fn an_endpoints_host_name_is_a_target_in_every_pool_that_has_it() {
    let mut plan = Plan::new(&[("api", &[("eu", 2), ("us", 1)])]);
    plan.by_host = true;
    let mut world = World::new(&plan, 1);
    for (place, id) in [("eu", 0), ("eu", 1), ("us", 0)] {
        let endpoint = world.endpoints("api", place)[id];
        world
            .names
            .insert(endpoint, vec!["192.0.2.1:80".parse().unwrap()]);
    }
    world.run_for(secs(40));
    let endpoint = world.endpoints("api", "eu")[0];

    let reply = world.order(OrderKind::FailOver, "0.EU.api.test").unwrap();

    assert_eq!(reply.endpoints, ["api/eu/0.eu.api.test"]);
    assert_eq!(world.verdict(endpoint), Verdict::Down);
    assert_eq!(
        world.snapshot().endpoint(endpoint).unwrap().by,
        Source::Operator
    );
    assert_eq!(world.standing("api", "eu"), FAILED, "one of two is half");

    world.order(OrderKind::FailBack, "0.eu.api.test").unwrap();
    assert_eq!(world.verdict(endpoint), Verdict::Up);
    assert_eq!(
        world.standing("api", "eu"),
        Standing::In,
        "no hold-down after an order"
    );
}

#[test]
fn a_drained_endpoint_is_neither_healthy_nor_failed_and_is_still_probed() {
    let mut world = two_regions();
    let endpoint = world.endpoints("api", "eu")[0];
    let name = world
        .core
        .topology()
        .endpoint(endpoint)
        .unwrap()
        .name
        .to_string();

    world.order(OrderKind::Drain, &name).unwrap();
    world.run_for(secs(20));

    let snapshot = world.snapshot();
    let (pool, region) = (
        snapshot.topology.pool_named("api").unwrap().id,
        world.region("eu"),
    );
    let (_, member) = snapshot.member(pool, region).unwrap();
    assert_eq!(
        (member.standing, member.healthy, member.total),
        (Standing::In, 1, 2)
    );
    assert_eq!(snapshot.verdict(endpoint), Verdict::Draining);
    assert!(
        world
            .probed
            .iter()
            .filter(|(_, probed)| *probed == endpoint)
            .count()
            > 3
    );
}

#[test]
fn a_host_name_that_does_not_resolve_is_down_and_comes_up_when_it_does() {
    let mut plan = Plan::new(&[("api", &[("eu", 1)])]);
    plan.by_host = true;
    let mut world = World::new(&plan, 1);
    let endpoint = world.endpoints("api", "eu")[0];
    world.run_for(secs(1));
    assert!(
        world.core.first_round_over(),
        "a failed look-up is a first word, too"
    );
    world.run_for(secs(1));
    assert_eq!(world.verdict(endpoint), Verdict::Down);
    let cause = world.snapshot().endpoint(endpoint).unwrap().cause.clone();
    assert_eq!(
        cause.as_deref(),
        Some("host name not resolved: no such name")
    );

    world
        .names
        .insert(endpoint, vec!["192.0.2.1:80".parse().unwrap()]);
    world.run_until_that(secs(30), |world| world.verdict(endpoint) == Verdict::Up);

    let health = world.snapshot().endpoint(endpoint).unwrap().clone();
    assert_eq!(health.addresses[..], ["192.0.2.1:80".parse().unwrap()]);
}

#[test]
fn the_last_good_addresses_stay_when_resolving_fails_and_a_new_order_is_no_change() {
    let mut plan = Plan::new(&[("api", &[("eu", 1)])]);
    plan.by_host = true;
    let mut world = World::new(&plan, 1);
    let endpoint = world.endpoints("api", "eu")[0];
    let (one, two) = (
        "192.0.2.1:80".parse().unwrap(),
        "192.0.2.2:80".parse().unwrap(),
    );
    world.names.insert(endpoint, vec![one, two]);
    world.run_for(secs(60));
    world.names.insert(endpoint, vec![two, one]);
    world.run_for(secs(60));
    world.names.remove(&endpoint);
    world.run_for(secs(60));

    assert_eq!(
        world.snapshot().endpoint(endpoint).unwrap().addresses[..],
        [one, two]
    );
    assert_eq!(world.verdict(endpoint), Verdict::Up);
    let moves = world
        .changes
        .iter()
        .filter(|(_, change)| matches!(change, Change::Resolved { .. }));
    assert_eq!(moves.count(), 1);
}

#[test]
fn a_failed_probe_asks_for_the_name_again_before_its_turn() {
    let mut plan = Plan::new(&[("api", &[("eu", 1)])]);
    plan.by_host = true;
    let mut world = World::new(&plan, 1);
    let endpoint = world.endpoints("api", "eu")[0];
    world
        .names
        .insert(endpoint, vec!["192.0.2.1:80".parse().unwrap()]);
    world.run_for(secs(32));
    world
        .names
        .insert(endpoint, vec!["192.0.2.9:80".parse().unwrap()]);
    world.behave(&[endpoint], Manner::Refuses);

    let took = world.run_until_that(secs(30), |world| {
        let health = world.snapshot();
        let addresses = &health.endpoint(endpoint).unwrap().addresses;
        addresses[..] == ["192.0.2.9:80".parse().unwrap()]
    });

    assert!(took < secs(8), "{took:?}");
}

#[test]
fn an_unprobed_pool_is_up_by_the_operators_word_and_suspect_only_briefly() {
    let mut plan = Plan::new(&[("api", &[("eu", 1)])]);
    plan.probe = None;
    let mut world = World::new(&plan, 1);
    let endpoint = world.endpoints("api", "eu")[0];
    assert!(world.core.first_round_over());
    assert_eq!(world.verdict(endpoint), Verdict::Up);
    assert_eq!(
        world.snapshot().endpoint(endpoint).unwrap().by,
        Source::Operator
    );

    world.observe_failure(endpoint);
    assert_eq!(world.verdict(endpoint), Verdict::Suspect);
    world.run_for(secs(5));
    assert_eq!(world.verdict(endpoint), Verdict::Up);
    assert!(world.probed.is_empty());
}

#[test]
fn what_stays_over_a_reload_keeps_its_health_and_what_is_new_is_probed_at_once() {
    let mut plan = Plan::new(&[("api", &[("eu", 2), ("us", 2)])]);
    let mut world = World::new(&plan, 1);
    world.run_for(secs(1));
    let old = world.endpoints("api", "eu");
    world.behave(&old, Manner::Refuses);
    world.run_for(secs(15));
    assert_eq!(world.standing("api", "eu"), FAILED);

    plan.pools[0].1 = vec![("eu", 3), ("ap", 1)];
    let config = plan.config(&mut world.book);
    world.probed.clear();
    world.step(Input::Replaced(Box::new(config)));

    let endpoints = world.endpoints("api", "eu");
    assert_eq!(endpoints[..2], old, "ids stay");
    let (_, new) = (world.standing("api", "eu"), endpoints[2]);
    assert_eq!(world.verdict(old[0]), Verdict::Down);
    assert_eq!(world.standing("api", "eu"), FAILED);
    assert_eq!(world.verdict(new), Verdict::Unknown);
    assert!(
        world
            .probed
            .iter()
            .any(|(at, probed)| *probed == new && *at == world.now)
    );
    world.run_for(secs(1));
    assert_eq!(world.verdict(new), Verdict::Up);
    assert_eq!(world.standing("api", "ap"), Standing::In);
}

#[test]
fn a_restart_forgets_neither_verdicts_nor_overrides_nor_what_is_owed() {
    let plan = Plan::new(&[("api", &[("eu", 2), ("us", 2), ("ap", 1)])]);
    let mut world = World::new(&plan, 1);
    world.run_for(secs(1));
    let eu = world.endpoints("api", "eu");
    world.behave(&eu, Manner::Refuses);
    world.order(OrderKind::FailOver, "us").unwrap();
    world.run_for(secs(20));
    assert_eq!(world.standing("api", "eu"), FAILED);
    let remembered = world.core.remembered(world.now);

    let mut again = World::remembering(&plan, 2, Some(remembered));
    let eu = again.endpoints("api", "eu");
    assert_eq!(again.standing("api", "eu"), FAILED);
    assert_eq!(
        again.standing("api", "us"),
        Standing::Out(OutReason::FailedOver)
    );
    let health = again.snapshot().endpoint(eu[0]).unwrap().clone();
    assert_eq!(
        (health.verdict, health.by),
        (Verdict::Down, Source::Restored)
    );

    again.run_for(secs(1));
    assert_eq!(
        again.verdict(eu[0]),
        Verdict::Probation,
        "one pass is not three"
    );
    assert_eq!(again.standing("api", "eu"), FAILED);
    again.run_for(secs(15));
    assert_eq!(again.verdict(eu[0]), Verdict::Up);
    assert!(matches!(
        again.standing("api", "eu"),
        Standing::Out(OutReason::HoldDown { .. })
    ));
    again.run_for(HOLD_DOWN);
    assert_eq!(again.standing("api", "eu"), Standing::In);
}

#[test]
fn a_region_that_never_worked_is_out_and_owes_no_hold_down_once_it_works() {
    let plan = Plan::new(&[("api", &[("eu", 2)])]);
    let mut world = World::all(&plan, 1, Manner::Refuses);
    world.run_for(secs(1));
    assert_eq!(world.standing("api", "eu"), FAILED);

    world.usual = WELL;
    world.run_until_that(secs(20), |world| world.standing("api", "eu") != FAILED);

    assert_eq!(world.standing("api", "eu"), Standing::In);
}

#[test]
fn dns_addresses_follow_the_usable_endpoints() {
    let mut world = two_regions();
    let eu = world.endpoints("api", "eu");
    let addresses = |world: &mut World| -> Vec<String> {
        let snapshot = world.snapshot();
        let (pool, region) = (
            snapshot.topology.pool_named("api").unwrap().id,
            world.region("eu"),
        );
        let member = snapshot.member(pool, region).unwrap().1.clone();
        member.addresses.iter().map(ToString::to_string).collect()
    };
    assert_eq!(addresses(&mut world), ["10.0.0.0", "10.0.0.1"]);
    world.behave(&eu[..1], Manner::Refuses);
    world.run_for(secs(10));
    assert_eq!(addresses(&mut world), ["10.0.0.1"]);
    world.behave(&eu, Manner::Refuses);
    world.run_for(secs(10));
    assert_eq!(
        addresses(&mut world),
        ["10.0.0.0", "10.0.0.1"],
        "none usable: all"
    );
}

const EJECTED: Judgement = Judgement::Ejected {
    why: EjectionCause::ErrorsInARow,
    times: 1,
    time: Duration::from_secs(30),
};
const KEPT: Judgement = Judgement::KeptInNeed {
    why: EjectionCause::ErrorsInARow,
    time: Duration::from_secs(30),
};

#[test]
fn an_ejected_endpoint_is_shown_as_such_and_takes_no_region_out_whatever_its_probes_say() {
    let mut world = two_regions();
    let endpoint = world.endpoints("api", "eu")[0];

    world.observe_judgement(endpoint, EJECTED);

    let snapshot = world.snapshot();
    let health = snapshot.endpoint(endpoint).unwrap();
    assert_eq!(health.verdict, Verdict::Up);
    assert!(matches!(
        health.judged,
        Some(Judged::Ejected { times: 1, .. })
    ));
    // One of two is half of the region, and half is the threshold.
    assert_eq!(world.standing("api", "eu"), Standing::In);

    // Passed probes do not take it back; being readmitted does.
    world.run_for(secs(40));
    assert!(
        world
            .snapshot()
            .endpoint(endpoint)
            .unwrap()
            .judged
            .is_some()
    );
    world.observe_judgement(endpoint, Judgement::OnTrial);
    world.observe_judgement(endpoint, Judgement::Readmitted);
    assert_eq!(world.snapshot().endpoint(endpoint).unwrap().judged, None);
}

#[test]
fn a_region_with_more_to_eject_than_may_be_is_degraded_fails_over_and_returns() {
    let mut world = two_regions();
    let endpoints = world.endpoints("api", "eu");

    world.observe_judgement(endpoints[0], EJECTED);
    world.observe_judgement(endpoints[1], KEPT);

    assert_eq!(world.standing("api", "eu"), FAILED);
    let eu = world.region("eu");
    let api = world.core.topology().pool_named("api").unwrap().id;
    assert!(world.snapshot().member(api, eu).unwrap().1.degraded);

    // Nothing is heard of it any more: it is well again when the judgements have ended, and is held down.
    world.run_for(secs(31));
    assert!(!world.snapshot().member(api, eu).unwrap().1.degraded);
    assert!(matches!(
        world.standing("api", "eu"),
        Standing::Out(OutReason::HoldDown { .. })
    ));
    world.run_for(HOLD_DOWN);
    assert_eq!(world.standing("api", "eu"), Standing::In);
}

#[test]
fn a_large_region_that_is_a_little_degraded_stays() {
    let mut world = World::new(&Plan::new(&[("api", &[("eu", 10), ("us", 1)])]), 3);
    world.run_for(secs(1));
    let endpoints = world.endpoints("api", "eu");
    for endpoint in &endpoints[..3] {
        world.observe_judgement(*endpoint, EJECTED);
    }

    world.observe_judgement(endpoints[3], KEPT);
    assert_eq!(world.standing("api", "eu"), Standing::In);
    world.observe_judgement(endpoints[4], KEPT);
    assert_eq!(world.standing("api", "eu"), FAILED);
}
