//! Whose a tag is, and where a session goes in every state of its endpoint and region.

use proptest::prelude::*;
use sealane_model::Traffic;
use sealane_model::Verdict::{Down, Draining, Suspect, Up};
use sealane_steering::{ClientPlace, GeoTable, How, SteeringPolicy};
use sealane_testkit::{Names, World};

use super::*;
use crate::upstream::{LoadTable, Mark, Tried};

fn key(text: &str) -> StickyKey {
    StickyKey::new(text.as_bytes())
}

#[expect(clippy::disallowed_methods, reason = "the test's own origin of time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn stays_at(world: &Snapshot, home: Home, tried: &[Tried]) -> Option<(String, Reason)> {
    let selected = selected(world, &Arc::default(), home, tried)?;
    Some((selected.name.to_string(), selected.reason))
}

fn selected(
    world: &Snapshot,
    loads: &Arc<LoadTable>,
    home: Home,
    tried: &[Tried],
) -> Option<Selected> {
    let place = ClientPlace::locate([192, 0, 2, 1].into(), How::Connection, &GeoTable::empty());
    let ask = SelectAsk {
        pool: world.pool_id("api"),
        policy: &SteeringPolicy::Priority,
        balance: &Arc::default(),
        place: &place,
        key: 7,
        hash: None,
        random: 3,
        may_shed: false,
        now: now(),
        repeatable: true,
        tried,
    };
    let endpoints = Endpoints::new(Arc::clone(loads), Traffic::default().shard());
    stay(world, &endpoints, &ask, home)
}

fn name(world: &Snapshot, home: Home) -> String {
    stays_at(world, home, &[]).expect("an endpoint").0
}

const NAMES: [&str; 5] = [
    "10.0.0.1:80",
    "10.0.0.2:80",
    "10.0.0.3:80",
    "10.0.0.4:80",
    "10.0.0.5:80",
];

fn five(verdicts: [Verdict; 5]) -> Snapshot {
    let mut world = World::new().region("eu", Up);
    for (name, verdict) in NAMES.into_iter().zip(verdicts) {
        world = world.endpoint(name, verdict);
    }
    world.build()
}

/// Of the routes to all these pools.
fn tags(keys: &[&str], world: &Snapshot) -> Tags {
    let keys: Vec<_> = keys.iter().map(|text| key(text)).collect();
    let mut pools: Vec<_> = world.topology.endpoints().map(|one| one.pool).collect();
    pools.dedup();
    Tags::new(&keys, pools)
}

fn named(tags: &Tags, tag: &Tag, world: &Snapshot) -> Option<EndpointId> {
    Some(tags.named(tag, &world.topology)?.endpoint)
}

#[test]
fn a_tag_names_its_endpoint_on_every_node_that_has_the_key() {
    let (one, other) = (five([Up; 5]), five([Up; 5]));
    let (here, there) = (tags(&["k1"], &one), tags(&["k2", "k1"], &other));
    let id = one.endpoint_id("api", "eu", 3);

    let tag = here.tag(id, &one.topology).unwrap();
    assert_eq!(named(&here, &tag, &one), Some(id));
    assert_eq!(named(&there, &tag, &other), Some(id));
    // The first key makes tags, and who has only the old one does not know them.
    let renewed = there.tag(id, &other.topology).unwrap();
    assert_ne!(renewed, tag);
    assert_eq!(named(&here, &renewed, &one), None);
    assert_eq!(named(&there, &renewed, &other), Some(id));
}

#[test]
fn a_tag_made_with_an_old_key_is_known_as_such_and_one_of_another_pool_not_at_all() {
    let world = World::new()
        .region("eu", Up)
        .endpoint(NAMES[0], Up)
        .pool("other")
        .region("eu", Up)
        .endpoint(NAMES[0], Up)
        .build();
    let (before, after) = (tags(&["k1"], &world), tags(&["k2", "k1"], &world));
    let here = world.endpoint_id("api", "eu", 0);
    let old = before.tag(here, &world.topology).unwrap();
    let new = after.tag(here, &world.topology).unwrap();
    assert!(after.named(&old, &world.topology).unwrap().is_old);
    assert!(!after.named(&new, &world.topology).unwrap().is_old);

    let elsewhere = world.endpoint_id("other", "eu", 0);
    let of_another_route = Tags::new(&[key("k1")], vec![world.pool_id("api")]);
    let tag = before.tag(elsewhere, &world.topology).unwrap();
    assert_eq!(named(&before, &tag, &world), Some(elsewhere));
    assert_eq!(named(&of_another_route, &tag, &world), None);
}

#[test]
fn tags_follow_the_topology_and_outlive_it() {
    let (before, after) = (
        five([Up; 5]),
        World::new()
            .region("eu", Up)
            .endpoint(NAMES[4], Up)
            .endpoint(NAMES[3], Up)
            .build(),
    );
    let tags = tags(&["k"], &before);
    let tag = |index| {
        let id = before.endpoint_id("api", "eu", index);
        tags.tag(id, &before.topology).unwrap()
    };
    assert!(named(&tags, &tag(3), &before).is_some());

    let found = named(&tags, &tag(3), &after);
    assert_eq!(found, Some(after.endpoint_id("api", "eu", 1)));
    assert_eq!(named(&tags, &tag(0), &after), None);
    assert!(named(&tags, &tag(0), &before).is_some());
}

#[test]
fn no_two_endpoints_have_one_tag_though_their_names_are_alike() {
    let world = World::new()
        .region("eu", Up)
        .endpoint(NAMES[0], Up)
        .region("us", Up)
        .endpoint(NAMES[0], Up)
        .pool("other")
        .region("eu", Up)
        .endpoint(NAMES[0], Up)
        .build();
    let tags = tags(&["k"], &world);
    let all = world.topology.endpoints();
    let all: std::collections::HashSet<_> = all
        .map(|endpoint| tags.tag(endpoint.id, &world.topology).unwrap())
        .collect();
    assert_eq!(all.len(), 3);
}

#[test]
fn a_session_stays_while_its_endpoint_is_up_in_doubt_or_drained() {
    for verdict in [Up, Suspect, Draining] {
        let world = five([Up, Up, verdict, Up, Up]);
        let home = Home::Endpoint(world.endpoint_id("api", "eu", 2), 9);
        let stays = stays_at(&world, home, &[]).unwrap();
        assert_eq!(stays, (NAMES[2].to_owned(), Reason::Pinned));
    }
}

#[test]
fn while_its_endpoint_is_down_all_of_a_session_go_to_one_other_and_back() {
    let world = five([Up, Up, Down, Up, Up]);
    let id = world.endpoint_id("api", "eu", 2);
    let mut seen = std::collections::HashSet::new();
    for number in 0..200 {
        let there = name(&world, Home::Endpoint(id, number));
        assert_ne!(there, NAMES[2]);
        assert_eq!(name(&world, Home::Endpoint(id, number)), there);
        seen.insert(there);
    }
    assert_eq!(seen.len(), 4, "the sessions spread over all others");

    let well = five([Up; 5]);
    assert_eq!(name(&well, Home::Endpoint(id, 1)), NAMES[2]);
}

#[test]
fn a_session_keeps_its_region_as_long_as_that_serves() {
    let world = |down: bool, out: Option<OutReason>| {
        let verdict = if down { Down } else { Up };
        let world = World::new()
            .region("near", Up)
            .endpoint(NAMES[0], Up)
            .priority(1)
            .region("far", Up)
            .endpoint(NAMES[1], verdict)
            .endpoint(NAMES[2], Up)
            .priority(2);
        match out {
            Some(reason) => world.out("far", reason).build(),
            None => world.build(),
        }
    };
    let home = Home::Endpoint(world(false, None).endpoint_id("api", "far", 0), 5);

    // The first tier would serve, and so would its other endpoint.
    assert_eq!(name(&world(false, None), home), NAMES[1]);
    assert_eq!(name(&world(true, None), home), NAMES[2]);
    assert_eq!(
        name(&world(false, Some(OutReason::Draining)), home),
        NAMES[1]
    );
    for gone in [OutReason::Failed, OutReason::FailedOver] {
        assert_eq!(name(&world(false, Some(gone)), home), NAMES[0]);
    }
}

#[test]
fn where_all_are_down_sessions_stay_where_they_are() {
    let world = five([Down; 5]);
    let id = world.endpoint_id("api", "eu", 2);
    for number in 0..20 {
        let home = Home::Endpoint(id, number);
        let there = selected(&world, &Arc::default(), home, &[]).unwrap();
        assert_eq!((&*there.name, there.ignored_health), (NAMES[2], true));
    }
}

#[test]
fn the_sessions_of_an_ejected_endpoint_move_and_one_request_is_its_trial() {
    let world = five([Up; 5]);
    let id = world.endpoint_id("api", "eu", 2);
    let keyed = (0..).find(|key| name(&world, Home::Key(*key)) == NAMES[2]);
    for home in [Home::Endpoint(id, 9), Home::Key(keyed.unwrap())] {
        let loads = Arc::<LoadTable>::default();
        let now = loads.millis(now());
        loads.set_mark(
            id,
            Mark::Out {
                until: now + 60_000,
            },
        );
        let there = selected(&world, &loads, home, &[]).unwrap();
        assert_ne!(&*there.name, NAMES[2]);
        assert_eq!(there.choice, Choice::Sticky);

        loads.set_mark(id, Mark::Out { until: 0 });
        let trial = selected(&world, &loads, home, &[]).unwrap();
        assert_eq!((&*trial.name, trial.choice), (NAMES[2], Choice::Trial));
        let next = selected(&world, &loads, home, &[]).unwrap();
        assert_ne!(&*next.name, NAMES[2], "one at a time");
    }
}

#[test]
fn another_attempt_goes_elsewhere_and_another_pools_endpoint_is_nobodys_home() {
    let world = five([Up; 5]);
    let (id, region) = (world.endpoint_id("api", "eu", 2), world.region_id("eu"));
    let tried = [Tried {
        region,
        endpoint: id,
        timed_out: false,
    }];
    let again = stays_at(&world, Home::Endpoint(id, 1), &tried).unwrap();
    assert_ne!(again.0, NAMES[2]);

    let both = World::new()
        .region("eu", Up)
        .endpoint(NAMES[0], Up)
        .pool("other")
        .region("eu", Up)
        .endpoint(NAMES[1], Up)
        .build();
    let id = both.endpoint_id("other", "eu", 0);
    assert_eq!(name(&both, Home::Endpoint(id, 1)), NAMES[0]);
}

#[test]
fn keys_spread_by_weight() {
    let world = World::new()
        .region("eu", Up)
        .endpoint(NAMES[0], Up)
        .endpoint(NAMES[1], Up)
        .endpoint_weight(300)
        .endpoint(NAMES[2], Up)
        .endpoint_weight(0)
        .build();
    let of = |wanted: &str| {
        let keys = 0..4_000_u64;
        keys.filter(|key| name(&world, Home::Key(*key)) == wanted)
            .count()
    };
    let first = of(NAMES[0]);
    assert!((900..1_100).contains(&first), "{first}");
    assert_eq!(of(NAMES[2]), 0);
}

proptest! {
    /// Only the sessions of an endpoint that leaves move, and only to it those that come when it
    /// returns.
    #[test]
    fn whoever_leaves_takes_nobody_along(
        keys in prop::collection::vec(any::<u64>(), 100),
        gone in 0_usize..5,
    ) {
        let whole = five([Up; 5]);
        let mut verdicts = [Up; 5];
        verdicts[gone] = Down;
        let less = five(verdicts);
        for key in keys {
            let (before, after) = (name(&whole, Home::Key(key)), name(&less, Home::Key(key)));
            prop_assert!(before == after || before == NAMES[gone]);
            prop_assert!(after != NAMES[gone]);
        }
    }
}
