//! The order in which one request tries endpoints.

use std::sync::Arc;
use std::time::Duration;

use sealane_model::Verdict::{Down, Draining, Probation, Suspect, Up};
use sealane_model::{
    Addresses, AllDown, Endpoint, EndpointHealth, EndpointProtocol, FailoverRule, Generation,
    Member, MemberHealth, Pool, Ratio, Region, Target, Timestamp, Topology, Traffic, TrafficCounts,
    Weight,
};
use sealane_steering::{GeoTable, How, Weights};
use sealane_testkit::{Names, World};

use super::*;
use crate::upstream::LoadTable;

#[expect(clippy::disallowed_methods, reason = "any moment is as good")]
fn now() -> Instant {
    Instant::now()
}

/// One request: each attempt fails, so that the next one must go elsewhere.
struct Walk<'w> {
    world: &'w Snapshot,
    policy: SteeringPolicy,
    balance: Arc<Balancing>,
    endpoints: Endpoints,
    tried: Vec<Tried>,
    hash: Option<u64>,
    may_shed: bool,
    only_looks: bool,
    random: u64,
    now: Instant,
}

impl<'w> Walk<'w> {
    fn new(world: &'w Snapshot) -> Self {
        Self {
            world,
            policy: SteeringPolicy::Priority,
            balance: Arc::default(),
            endpoints: Endpoints::new(Arc::default(), Traffic::default().shard()),
            tried: Vec::new(),
            hash: None,
            may_shed: false,
            only_looks: false,
            now: now(),
            random: 0x1234_5678_9abc_def0,
        }
    }

    fn next(&mut self) -> Result<Selected, NoEndpoint> {
        self.random = self
            .random
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(1);
        let place = ClientPlace::locate([192, 0, 2, 1].into(), How::Connection, &GeoTable::empty());
        let ask = SelectAsk {
            pool: self.world.pool_id("api"),
            policy: &self.policy,
            balance: &self.balance,
            place: &place,
            key: 7,
            hash: self.hash,
            random: self.random,
            may_shed: self.may_shed,
            now: self.now,
            repeatable: true,
            tried: &self.tried,
        };
        let selected = look(self.world, &self.endpoints, &ask)?;
        if !self.only_looks {
            selected.arrived();
        }
        self.tried.push(Tried {
            region: selected.region,
            endpoint: selected.endpoint,
            timed_out: false,
        });
        Ok(selected)
    }

    fn regions(&mut self, attempts: usize) -> Vec<String> {
        let mut regions = Vec::new();
        for _ in 0..attempts {
            match self.next() {
                Ok(selected) => regions.push(selected.region_name.to_string()),
                Err(why) => regions.push(format!("{why:?}")),
            }
        }
        regions
    }
}

#[test]
fn the_second_attempt_stays_in_the_region_and_the_third_leaves_it() {
    let world = World::new()
        .region("eu", Up)
        .endpoints(4)
        .region("us", Up)
        .priority(2)
        .endpoints(3)
        .build();
    let mut walk = Walk::new(&world);

    assert_eq!(walk.regions(4), ["eu", "eu", "us", "us"]);
    let distinct: std::collections::HashSet<_> = walk.tried.iter().collect();
    assert_eq!(distinct.len(), 4);
}

#[test]
fn when_all_regions_failed_twice_what_is_left_is_tried_in_their_order() {
    let world = World::new()
        .region("eu", Up)
        .endpoints(3)
        .region("us", Up)
        .priority(2)
        .endpoints(3)
        .build();

    assert_eq!(
        Walk::new(&world).regions(7),
        ["eu", "eu", "us", "us", "eu", "us", "AllTried"]
    );
}

#[test]
fn a_region_of_one_endpoint_is_left_after_one_failure() {
    let world = World::new()
        .region("eu", Up)
        .region("us", Up)
        .priority(2)
        .build();
    let mut walk = Walk::new(&world);

    let first = walk.next().unwrap();
    let second = walk.next().unwrap();

    assert_eq!(
        (&*first.region_name, first.reason),
        ("eu", Reason::Priority)
    );
    let from = world.region_id("eu");
    assert_eq!(
        (&*second.region_name, second.reason),
        ("us", Reason::FailedOver { from })
    );
    assert_eq!(walk.next().unwrap_err(), NoEndpoint::AllTried);
}

#[test]
fn an_attempt_that_timed_out_leaves_the_region_at_once() {
    let world = World::new()
        .region("eu", Up)
        .endpoints(4)
        .region("us", Up)
        .priority(2)
        .endpoints(3)
        .build();
    let mut walk = Walk::new(&world);

    assert_eq!(walk.regions(1), ["eu"]);
    walk.tried[0].timed_out = true;

    assert_eq!(walk.regions(3), ["us", "us", "eu"]);
}

#[test]
fn a_region_in_which_all_are_suspect_waits_until_the_others_were_tried() {
    let world = World::new()
        .region("eu", Suspect)
        .endpoints(2)
        .region("us", Up)
        .priority(2)
        .build();
    let mut walk = Walk::new(&world);

    let first = walk.next().unwrap();

    let from = world.region_id("eu");
    assert_eq!(
        (&*first.region_name, first.reason),
        ("us", Reason::FailedOver { from })
    );
    assert_eq!(walk.regions(2), ["eu", "eu"]);
}

#[test]
fn the_first_attempt_never_goes_to_a_doubtful_endpoint_while_a_well_one_is_there() {
    let world = World::new()
        .region("eu", Up)
        .endpoint("192.0.2.1:80", Up)
        .endpoint("192.0.2.2:80", Suspect)
        .endpoint("192.0.2.3:80", Down)
        .endpoint("192.0.2.4:80", Probation)
        .endpoint("192.0.2.5:80", Draining)
        .build();
    let well = world.endpoint_id("api", "eu", 0);

    for random in 0..200 {
        let mut walk = Walk::new(&world);
        walk.random = random;
        assert_eq!(walk.next().unwrap().endpoint, well);
    }
}

#[test]
fn at_last_doubtful_endpoints_are_tried_and_draining_ones_never() {
    let world = World::new()
        .region("eu", Up)
        .endpoint("192.0.2.1:80", Up)
        .endpoint("192.0.2.2:80", Suspect)
        .endpoint("192.0.2.3:80", Down)
        .endpoint("192.0.2.5:80", Draining)
        .build();
    let mut walk = Walk::new(&world);

    assert_eq!(walk.regions(4), ["eu", "eu", "eu", "AllTried"]);
    let draining = world.endpoint_id("api", "eu", 3);
    assert!(walk.tried.iter().all(|tried| tried.endpoint != draining));
}

#[test]
fn the_second_attempt_prefers_another_az() {
    let world = World::new()
        .region("eu", Up)
        .endpoint("192.0.2.1:80", Up)
        .az("a")
        .endpoint("192.0.2.2:80", Up)
        .az("a")
        .endpoint("192.0.2.3:80", Up)
        .az("a")
        .endpoint("192.0.2.4:80", Up)
        .az("b")
        .build();
    let az = |id| world.topology.endpoint(id).unwrap().az.clone().unwrap();

    for random in 0..200 {
        let mut walk = Walk::new(&world);
        walk.random = random;
        let (first, second) = (walk.next().unwrap(), walk.next().unwrap());
        assert_ne!(az(first.endpoint), az(second.endpoint));
    }
}

#[test]
fn the_idle_endpoint_of_two_serves() {
    let world = World::new().region("eu", Up).endpoints(2).build();
    let busy = world.endpoint_id("api", "eu", 0);

    for random in 0..100 {
        let loads = Arc::<LoadTable>::default();
        let mut walk = Walk::new(&world);
        walk.random = random;
        walk.endpoints = Endpoints::new(Arc::clone(&loads), Traffic::default().shard());
        let _running = loads.begin(busy);
        assert_ne!(walk.next().unwrap().endpoint, busy);
    }
}

#[test]
fn a_region_that_is_out_is_passed_over_and_the_reason_says_so() {
    let world = World::new()
        .region("eu", Down)
        .region("us", Up)
        .priority(2)
        .build();

    let selected = Walk::new(&world).next().unwrap();

    let from = world.region_id("eu");
    assert_eq!(&*selected.region_name, "us");
    assert_eq!(selected.reason, Reason::FailedOver { from });
    assert!(!selected.ignored_health);
}

#[test]
fn what_failed_is_tried_when_all_else_was_and_what_the_operator_drains_is_not() {
    let world = World::new()
        .region("eu", Up)
        .region("us", Down)
        .region("ap", Draining)
        .build();

    assert_eq!(Walk::new(&world).regions(3), ["eu", "us", "AllTried"]);
}

#[test]
fn with_all_down_an_endpoint_is_tried_all_the_same_unless_the_operator_wants_a_refusal() {
    let open = World::new().region("eu", Down).endpoints(2);
    let closed = open.clone().all_down(AllDown::NoData).build();
    let fallback = AllDown::Fallback([[192, 0, 2, 9].into()].into());
    let elsewhere = open.clone().all_down(fallback).build();
    let open = open.build();

    let selected = Walk::new(&open).next().unwrap();

    assert_eq!(selected.reason, Reason::AllDown);
    assert!(selected.ignored_health);
    for world in [closed, elsewhere] {
        assert_eq!(Walk::new(&world).next().unwrap_err(), NoEndpoint::NoData);
    }
}

#[test]
fn a_pool_without_endpoints_or_without_regions_has_no_members() {
    let empty = World::new().region("eu", Up).endpoints(0).build();
    let bare = World::new().bare_region("eu").build();

    for world in [empty, bare] {
        assert_eq!(Walk::new(&world).next().unwrap_err(), NoEndpoint::NoMembers);
    }
}

#[test]
fn a_pool_that_is_gone_has_no_members() {
    let world = World::new().region("eu", Up).build();
    let place = ClientPlace::locate([192, 0, 2, 1].into(), How::Connection, &GeoTable::empty());
    let ask = SelectAsk {
        pool: PoolId::from_index(99).unwrap(),
        policy: &SteeringPolicy::Nearest,
        balance: &Arc::default(),
        place: &place,
        key: 0,
        hash: None,
        random: 0,
        may_shed: false,
        now: now(),
        repeatable: true,
        tried: &[],
    };

    let refused = select(
        &world,
        &Endpoints::new(Arc::default(), Traffic::default().shard()),
        &ask,
    )
    .unwrap_err();

    assert_eq!(refused, NoEndpoint::NoMembers);
}

#[test]
fn an_endpoint_without_an_address_is_passed_over_until_it_resolves() {
    let unresolved = named_endpoints(&[&[], &[]]);
    let half = named_endpoints(&[&[], &["192.0.2.7:80"]]);

    assert_eq!(
        Walk::new(&unresolved).next().unwrap_err(),
        NoEndpoint::Unresolved
    );
    let mut walk = Walk::new(&half);
    assert_eq!(
        walk.next().unwrap().address,
        "192.0.2.7:80".parse().unwrap()
    );
    assert_eq!(walk.next().unwrap_err(), NoEndpoint::AllTried);
}

#[test]
fn a_name_with_several_addresses_is_reached_at_all_of_them() {
    let world = named_endpoints(&[&["192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"]]);
    let mut counts = std::collections::BTreeMap::new();
    let mut random = 1_u64;
    for _ in 0..3_000 {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let mut walk = Walk::new(&world);
        walk.random = random;
        *counts.entry(walk.next().unwrap().address).or_insert(0) += 1;
    }

    assert_eq!(counts.len(), 3);
    assert!(
        counts.values().all(|n| (900..1_100).contains(n)),
        "{counts:?}"
    );
}

#[test]
fn all_attempts_of_a_request_see_one_ranking_under_a_weighted_policy() {
    let world = World::new()
        .region("eu", Up)
        .endpoints(2)
        .region("us", Up)
        .endpoints(2)
        .region("ap", Up)
        .endpoints(2)
        .build();
    let mut walk = Walk::new(&world);
    walk.policy = SteeringPolicy::Weighted(Weights::default());

    let regions = walk.regions(6);

    assert_eq!(regions[0], regions[1]);
    assert_eq!(regions[2], regions[3]);
    assert_eq!(regions[4], regions[5]);
    let distinct: std::collections::HashSet<_> = regions.iter().collect();
    assert_eq!(distinct.len(), 3);
}

/// A pool `api` in `eu` whose endpoints are host names that resolve to these.
fn named_endpoints(addresses: &[&[&str]]) -> Snapshot {
    let (region, pool) = (
        RegionId::from_index(0).unwrap(),
        PoolId::from_index(0).unwrap(),
    );
    let ids: Vec<EndpointId> = (0..addresses.len())
        .map(|index| EndpointId::from_index(index).unwrap())
        .collect();
    let endpoint = |id: &EndpointId| Endpoint {
        id: *id,
        pool,
        region,
        name: format!("host-{}.test:80", id.index()).into(),
        target: Target::Host {
            host: format!("host-{}.test", id.index()).into(),
            port: 80,
        },
        az: None,
        weight: Weight::DEFAULT,
        protocol: EndpointProtocol::Http1,
        tls: None,
        proxy_protocol: None,
    };
    let health = |(id, addresses): (&EndpointId, &&[&str])| {
        let health = EndpointHealth {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            ..EndpointHealth::default()
        };
        (*id, health)
    };
    let topology = Topology::new(
        vec![Region::new(region, "eu", None)],
        vec![Pool {
            id: pool,
            name: "api".into(),
            members: vec![Member {
                region,
                weight: Weight::DEFAULT,
                priority: 1,
                capacity: None,
                addresses: Addresses::OfEndpoints,
                endpoints: ids.clone(),
            }],
            failover: FailoverRule {
                threshold: Ratio::new(0.5).unwrap(),
                hold_down: Duration::ZERO,
                all_down: AllDown::FailOpen,
                panic: Ratio::ZERO,
                ramp: None,
            },
        }],
        ids.iter().map(endpoint).collect(),
    );
    Snapshot::new(
        Generation(1),
        Timestamp::default(),
        Arc::new(topology),
        ids.iter().zip(addresses).map(health).collect(),
        vec![(pool, vec![MemberHealth::default()])],
    )
}

// ---- What is counted of it ----

/// What the regions `eu` and `us` were counted, after so many attempts of one request.
fn counted(world: &Snapshot, attempts: usize) -> [TrafficCounts; 2] {
    let traffic = Traffic::default();
    let mut walk = Walk::new(world);
    walk.endpoints = Endpoints::new(Arc::default(), traffic.shard());
    walk.regions(attempts);
    let totals = traffic.totals();
    ["eu", "us"].map(|region| {
        let member = (world.pool_id("api"), world.region_id(region));
        totals.get(&member).copied().unwrap_or_default()
    })
}

#[test]
fn the_first_attempt_counts_as_drawn_and_those_after_it_as_extra() {
    let world = World::new()
        .region("eu", Up)
        .endpoints(2)
        .region("us", Up)
        .priority(2)
        .build();
    let [eu, us] = counted(&world, 3);
    assert_eq!((eu.drawn, eu.extra, eu.excess), (1, 1, 0));
    assert_eq!((us.drawn, us.extra, us.excess), (0, 1, 0));
}

#[test]
fn what_no_region_has_room_for_counts_as_excess_where_it_goes() {
    let world = World::new()
        .region("eu", Up)
        .room(200.0, 100.0, 0.0)
        .region("us", Up)
        .priority(2)
        .room(200.0, 100.0, 0.0)
        .build();
    let [eu, us] = counted(&world, 1);
    assert_eq!((eu.drawn, eu.excess, us.arrived()), (0, 1, 0));
}

#[test]
fn what_no_region_has_room_for_is_refused_where_it_may_be() {
    let full = |world: World| world.room(200.0, 100.0, 0.0);
    let world = full(World::new().region("eu", Up));
    let world = full(world.region("us", Up).priority(2)).build();
    let traffic = Traffic::default();
    let mut walk = Walk::new(&world);
    walk.endpoints = Endpoints::new(Arc::default(), traffic.shard());
    walk.may_shed = true;

    assert_eq!(walk.next().unwrap_err(), NoEndpoint::NoRoom);

    let eu = traffic.totals()[&(world.pool_id("api"), world.region_id("eu"))];
    assert_eq!((eu.shed, eu.arrived()), (1, 0));
    // One that was let in may go on, as far as a second has room.
    walk.may_shed = false;
    walk.next().unwrap();
    walk.may_shed = true;
    assert_eq!(
        walk.next().unwrap().reason,
        Reason::FailedOver {
            from: world.region_id("eu")
        }
    );
}

/// `eu` with room for five within a second, before `us`.
fn five_a_second(us: impl Fn(World) -> World) -> Snapshot {
    let eu = World::new().region("eu", Up).room(0.0, 5.0, 1.0);
    us(eu.region("us", Up).priority(2)).build()
}

/// First attempts of so many requests at once, and where they went.
fn regions_of(walk: &mut Walk<'_>, requests: usize) -> Vec<String> {
    let mut one = || {
        walk.tried.clear();
        let selected = walk.next();
        selected.map_or_else(|none| format!("{none:?}"), |to| to.region_name.to_string())
    };
    (0..requests).map(|_| one()).collect()
}

#[test]
fn no_second_brings_a_region_more_than_its_capacity() {
    let world = five_a_second(|us| us);
    let traffic = Traffic::default();
    let mut walk = Walk::new(&world);
    walk.endpoints = Endpoints::new(Arc::default(), traffic.shard());

    let went = regions_of(&mut walk, 7);
    assert_eq!(went, ["eu", "eu", "eu", "eu", "eu", "us", "us"]);
    walk.tried.clear();
    let spilled = Reason::Spilled {
        from: world.region_id("eu"),
    };
    assert_eq!(walk.next().unwrap().reason, spilled);
    let of = |region| traffic.totals()[&(world.pool_id("api"), world.region_id(region))];
    assert_eq!((of("eu").drawn, of("eu").turned, of("us").extra), (5, 3, 3));

    walk.now += Duration::from_millis(1_100);
    assert_eq!(regions_of(&mut walk, 1), ["eu"]);
}

#[test]
fn an_attempt_after_a_failed_one_asks_for_room_like_a_first_one() {
    let world = World::new()
        .region("us", Up)
        .region("eu", Up)
        .priority(2)
        .room(0.0, 5.0, 1.0)
        .region("ap", Up)
        .priority(3)
        .build();
    let mut walk = Walk::new(&world);

    let mut second = || {
        walk.tried.clear();
        walk.regions(2)[1].clone()
    };
    let went: Vec<_> = (0..7).map(|_| second()).collect();
    assert_eq!(went, ["eu", "eu", "eu", "eu", "eu", "ap", "ap"]);
}

#[test]
fn where_no_second_has_room_what_may_be_is_refused_and_the_rest_goes_where_it_would_have_gone() {
    let world = five_a_second(|us| us.room(0.0, 2.0, 1.0));
    let traffic = Traffic::default();
    let mut walk = Walk::new(&world);
    walk.endpoints = Endpoints::new(Arc::default(), traffic.shard());
    walk.may_shed = true;

    let went = regions_of(&mut walk, 8);
    assert_eq!(went[5..], ["us", "us", "NoRoom"]);
    let eu = traffic.totals()[&(world.pool_id("api"), world.region_id("eu"))];
    assert_eq!((eu.shed, eu.turned), (1, 2));
    walk.may_shed = false;
    assert_eq!(regions_of(&mut walk, 2), ["eu", "eu"]);
}

#[test]
fn a_question_that_comes_to_nothing_takes_no_room() {
    let world = five_a_second(|us| us);
    let mut walk = Walk::new(&world);
    walk.only_looks = true;

    assert!(regions_of(&mut walk, 9).iter().all(|went| went == "eu"));
}

#[test]
fn a_rule_on_clients_holds_for_the_last_resort_too() {
    use sealane_steering::{Fence, Fences, Within};

    let world = World::new()
        .region("eu", Up)
        .region("us", Down)
        .priority(2)
        .build();
    let mut walk = Walk::new(&world);
    walk.policy = SteeringPolicy::Within(Box::new(Within {
        policy: SteeringPolicy::Priority,
        fences: Fences::new(vec![Fence {
            area: None,
            nets: vec!["192.0.2.0/24".parse().unwrap()],
            regions: vec![world.region_id("eu")],
        }]),
        all_down: None,
    }));

    assert_eq!(walk.regions(2), ["eu", "AllTried"]);
}
