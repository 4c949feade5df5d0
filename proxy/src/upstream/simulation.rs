//! Endpoints that are slow, stall, fail or come back, and what their pool's clients feel of it: the
//! real choice, accounts and court on virtual time. The figures that are promised are checked here,
//! and that each term of the formulas is needed for one of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_model::Verdict::{Down, Up};
use sealane_model::{Ratio, Snapshot, Traffic};
use sealane_steering::{ClientPlace, GeoTable, How, SteeringPolicy};
use sealane_testkit::{Names, World};

use super::{Answered, Endpoints, LoadGuard, LoadTable, SelectAsk, Selected, balance, select};
use crate::config::{BalancePolicy, Balancing, EjectionRule, HashKey, LocalZone};

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;

/// What an endpoint does with a request that arrives then: how long it takes, and how it answers.
type Server = Box<dyn FnMut(u64) -> (u64, Answered)>;

struct Simulation {
    world: Snapshot,
    balancing: Arc<Balancing>,
    servers: Vec<Server>,
    workers: Vec<Endpoints>,
    loads: Arc<LoadTable>,
    origin: Instant,
    now: u64,
    random: u64,
    running: BinaryHeap<Reverse<(u64, usize)>>,
    requests: Vec<Option<Request>>,
    done: Vec<Done>,
}

struct Request {
    began: u64,
    endpoint: usize,
    selected: Selected,
    how: Answered,
    _load: LoadGuard,
}

/// A request, as it will be.
#[derive(Clone, Copy)]
struct Done {
    began: u64,
    took: u64,
    endpoint: usize,
    how: Answered,
}

#[expect(clippy::disallowed_methods, reason = "any moment will do to begin at")]
fn some_moment() -> Instant {
    Instant::now()
}

fn good(micros: u64) -> Server {
    let mut random = micros;
    Box::new(move |_| {
        random = balance::mix(random.wrapping_add(0x9e37_79b9));
        // Give or take a fifth.
        (micros * (80 + random % 41) / 100, Answered::Well)
    })
}

fn bad_from(from: u64, micros: u64, well: u64) -> Server {
    let mut before = good(well);
    Box::new(move |now| {
        if now < from {
            before(now)
        } else {
            (micros, Answered::Badly)
        }
    })
}

fn region(endpoints: usize) -> Snapshot {
    World::new().region("eu", Up).endpoints(endpoints).build()
}

impl Simulation {
    fn new(world: Snapshot, servers: Vec<Server>, balancing: Balancing) -> Self {
        let loads = Arc::<LoadTable>::default();
        Self {
            world,
            balancing: Arc::new(balancing),
            servers,
            workers: vec![Endpoints::new(
                Arc::clone(&loads),
                Traffic::default().shard(),
            )],
            loads,
            origin: some_moment(),
            now: 0,
            random: 7,
            running: BinaryHeap::new(),
            requests: Vec::new(),
            done: Vec::new(),
        }
    }

    fn workers(mut self, count: usize) -> Self {
        let worker = || Endpoints::new(Arc::clone(&self.loads), Traffic::default().shard());
        self.workers = (0..count).map(|_| worker()).collect();
        self
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        balance::mix(self.random)
    }

    fn moment(&self, micros: u64) -> Instant {
        self.origin + Duration::from_micros(micros)
    }

    /// So many requests a second, on average, until then.
    fn run(&mut self, per_second: u64, until: u64) {
        while self.now < until {
            let share = (self.random() >> 11) as f64 / (1_u64 << 53) as f64;
            let gap = -(1.0 - share).ln() * SECOND as f64 / per_second as f64;
            self.now += gap as u64;
            self.settle(self.now);
            self.begin();
        }
    }

    fn settle(&mut self, until: u64) {
        while let Some(Reverse((at, id))) = self.running.peek().copied() {
            if at > until {
                break;
            }
            self.running.pop();
            let request = self.requests[id].take().unwrap();
            request.selected.answered(self.moment(at), request.how);
            self.done.push(Done {
                began: request.began,
                took: at - request.began,
                endpoint: request.endpoint,
                how: request.how,
            });
        }
    }

    fn begin(&mut self) {
        let place = ClientPlace::locate([192, 0, 2, 1].into(), How::Connection, &GeoTable::empty());
        let random = self.random();
        let worker = (self.random() % self.workers.len() as u64) as usize;
        let ask = SelectAsk {
            pool: self.world.pool_id("api"),
            policy: &SteeringPolicy::Priority,
            balance: &self.balancing,
            place: &place,
            key: random,
            hash: Some(balance::mix(random % 5_000)),
            random,
            may_shed: false,
            now: self.moment(self.now),
            repeatable: true,
            tried: &[],
        };
        let selected = select(&self.world, &self.workers[worker], &ask).unwrap();
        let region = self.world.region_id("eu");
        let (member, _) = self.world.member(ask.pool, region).unwrap();
        let mut ids = member.endpoints.iter();
        let endpoint = ids.position(|id| *id == selected.endpoint).unwrap();
        let (takes, how) = self.servers[endpoint](self.now);
        self.running
            .push(Reverse((self.now + takes, self.requests.len())));
        self.requests.push(Some(Request {
            began: self.now,
            endpoint,
            how,
            _load: self.loads.begin(selected.endpoint),
            selected,
        }));
    }

    /// Of the requests that began then.
    fn share(&self, endpoint: usize, from: u64, until: u64) -> f64 {
        let running = self.requests.iter().flatten();
        let running = running.map(|request| (request.began, request.endpoint));
        let done = self.done.iter().map(|done| (done.began, done.endpoint));
        let began = |(began, _): &(u64, usize)| (from..until).contains(began);
        let all: Vec<_> = done.chain(running).filter(began).collect();
        let of = all.iter().filter(|(_, at)| *at == endpoint).count();
        of as f64 / all.len() as f64
    }

    fn quantile(&self, share: f64, from: u64) -> u64 {
        let done = self.done.iter().filter(|done| done.began >= from);
        let mut took: Vec<_> = done.map(|done| done.took).collect();
        took.sort_unstable();
        took[(took.len() as f64 * share) as usize]
    }

    fn failed(&self, from: u64, until: u64) -> usize {
        let done = self.done.iter();
        done.filter(|done| (from..until).contains(&done.began) && done.how == Answered::Badly)
            .count()
    }
}

fn balancing(policy: BalancePolicy) -> Balancing {
    Balancing {
        policy,
        ..Balancing::default()
    }
}

fn without_ejection(policy: BalancePolicy) -> Balancing {
    Balancing {
        ejection: None,
        ..balancing(policy)
    }
}

/// Ten endpoints of 10 ms, the first of them twenty times slower; a thousand requests a second.
fn one_slow(balancing: Balancing) -> Simulation {
    let mut servers: Vec<Server> = (0..10).map(|_| good(10 * MS)).collect();
    servers[0] = good(200 * MS);
    let mut simulation = Simulation::new(region(10), servers, balancing);
    simulation.run(1_000, 60 * SECOND);
    simulation
}

#[test]
fn one_of_ten_that_is_twenty_times_slower_loses_its_share_and_the_99th_percentile_is_that_of_the_others()
 {
    let least = one_slow(balancing(BalancePolicy::LeastLoaded));
    let blind = one_slow(without_ejection(BalancePolicy::RoundRobin));

    let share = least.share(0, SECOND, 60 * SECOND);
    assert!(share < 0.005, "{share}");
    assert!((0.09..0.11).contains(&blind.share(0, SECOND, 60 * SECOND)));
    let p99 = (least.quantile(0.99, SECOND), blind.quantile(0.99, SECOND));
    assert!(p99.0 * 10 < p99.1, "{p99:?}");
}

#[test]
fn in_turn_the_slow_one_keeps_a_tenth_of_its_share_by_the_cut_of_its_weight() {
    let cut = one_slow(balancing(BalancePolicy::RoundRobin));

    let share = cut.share(0, 30 * SECOND, 60 * SECOND);
    assert!(share < 0.015, "{share}");
}

/// Ten endpoints of 10 ms; the first answers 500 at once from the fifth second on.
fn one_failing(balancing: Balancing, workers: usize) -> Simulation {
    let mut servers: Vec<Server> = (0..10).map(|_| good(10 * MS)).collect();
    servers[0] = bad_from(5 * SECOND, MS / 5, 10 * MS);
    let mut simulation = Simulation::new(region(10), servers, balancing).workers(workers);
    simulation.run(1_000, 65 * SECOND);
    simulation
}

#[test]
fn one_that_answers_500_at_once_has_less_than_two_percent_after_a_second() {
    for policy in [
        BalancePolicy::LeastLoaded,
        BalancePolicy::RoundRobin,
        BalancePolicy::RingHash(HashKey::ClientIp),
    ] {
        for workers in [1, 4] {
            let word = policy.as_str();
            let run = one_failing(balancing(policy.clone()), workers);

            let share = run.share(0, 6 * SECOND, 65 * SECOND);
            assert!(share < 0.0005, "{word}, {workers} workers: {share}");
            let failed = run.failed(0, 65 * SECOND);
            assert!(failed < 30, "{word}, {workers} workers: {failed}");
        }
    }
}

/// Ten endpoints of 10 ms, in turn; `servers` says what the first ones are instead.
fn in_turn_with(rule: EjectionRule, servers: Vec<Server>, until: u64) -> Simulation {
    let others = 10 - servers.len();
    let all = servers
        .into_iter()
        .chain((0..others).map(|_| good(10 * MS)));
    let policy = Balancing {
        ejection: Some(rule),
        ..balancing(BalancePolicy::RoundRobin)
    };
    let mut run = Simulation::new(region(10), all.collect(), policy);
    run.run(1_000, until);
    run
}

/// A part of its answers is bad, while it lasts.
fn bad_now_and_then(percent: u64, during: std::ops::Range<u64>) -> Server {
    let mut random = 3;
    let mut well = good(10 * MS);
    Box::new(move |now| {
        random = balance::mix(random + 0x9e37_79b9);
        if during.contains(&now) && random % 100 < percent {
            (10 * MS, Answered::Badly)
        } else {
            well(now)
        }
    })
}

#[test]
fn without_the_share_of_good_answers_one_that_fails_now_and_then_goes_on_failing() {
    let failed = |success: Ratio| {
        let rule = EjectionRule {
            success,
            ..EjectionRule::default()
        };
        let servers = vec![bad_now_and_then(20, 5 * SECOND..65 * SECOND)];
        in_turn_with(rule, servers, 65 * SECOND).failed(0, 65 * SECOND)
    };

    let with = failed(EjectionRule::default().success);
    let without = failed(Ratio::ZERO);
    assert!(with < 250, "{with}");
    assert!(without > 4 * with, "{without} {with}");
}

#[test]
fn without_errors_in_a_row_one_that_only_fails_is_found_out_later() {
    let failed = |consecutive_errors| {
        let rule = EjectionRule {
            consecutive_errors,
            ..EjectionRule::default()
        };
        let servers = vec![bad_from(5 * SECOND, MS / 5, 10 * MS)];
        in_turn_with(rule, servers, 10 * SECOND).failed(0, 10 * SECOND)
    };

    let (with, without) = (failed(5), failed(1_000));
    assert!(with <= 7, "{with}");
    assert!(without > 2 * with, "{without} {with}");
}

#[test]
fn without_the_cap_a_hiccup_of_many_leaves_the_others_with_all_of_the_load() {
    let busiest = |share_max: f64| {
        let rule = EjectionRule {
            share_max: Ratio::new(share_max).unwrap(),
            ..EjectionRule::default()
        };
        let hiccup = || bad_now_and_then(100, 5 * SECOND..6 * SECOND);
        let run = in_turn_with(rule, (0..8).map(|_| hiccup()).collect(), 25 * SECOND);
        run.share(9, 10 * SECOND, 25 * SECOND)
    };

    let (with, without) = (busiest(0.33), busiest(1.0));
    assert!(with < 0.15, "{with}");
    assert!(without > 0.4, "{without}");
}

#[test]
fn without_longer_times_one_that_stays_broken_is_tried_for_ever_as_often() {
    let failed = |time_max| {
        let rule = EjectionRule {
            time_max,
            ..EjectionRule::default()
        };
        let servers = vec![bad_from(5 * SECOND, MS / 5, 10 * MS)];
        in_turn_with(rule, servers, 600 * SECOND).failed(10 * SECOND, 600 * SECOND)
    };

    let with = failed(EjectionRule::default().time_max);
    let without = failed(EjectionRule::default().time);
    assert!(with <= 6, "{with}");
    assert!(without > 2 * with, "{without} {with}");
}

#[test]
fn without_ejection_a_failed_try_that_counts_as_slow_keeps_the_failing_one_from_winning() {
    let run = one_failing(without_ejection(BalancePolicy::LeastLoaded), 1);
    let counted = run.share(0, 6 * SECOND, 65 * SECOND);
    assert!(counted < 0.05, "{counted}");

    // The term removed: its errors count as the quick answers that they are.
    let mut servers: Vec<Server> = (0..10).map(|_| good(10 * MS)).collect();
    let mut before = good(10 * MS);
    servers[0] = Box::new(move |now| {
        if now < 5 * SECOND {
            before(now)
        } else {
            (MS / 5, Answered::Well)
        }
    });
    let policy = without_ejection(BalancePolicy::LeastLoaded);
    let mut run = Simulation::new(region(10), servers, policy);
    run.run(1_000, 65 * SECOND);
    let quick = run.share(0, 6 * SECOND, 65 * SECOND);
    assert!(quick > 0.15, "{quick}");
}

#[test]
fn what_is_well_again_is_tried_with_few_requests_and_has_its_share_back_within_a_minute_and_a_half()
{
    let mut servers: Vec<Server> = (0..4).map(|_| good(10 * MS)).collect();
    let mut well = good(10 * MS);
    servers[0] = Box::new(move |now| match now / SECOND {
        5..50 => (MS / 5, Answered::Badly),
        _ => well(now),
    });
    let policy = balancing(BalancePolicy::LeastLoaded);
    let mut run = Simulation::new(region(4), servers, policy);
    run.run(500, 180 * SECOND);

    let failed = run.failed(6 * SECOND, 180 * SECOND);
    assert!(failed <= 2, "trials that failed: {failed}");
    let share = run.share(0, 150 * SECOND, 180 * SECOND);
    assert!((0.15..0.35).contains(&share), "{share}");
}

/// Ten endpoints; the first is by far the quickest, and from the tenth second on takes three seconds.
fn one_stalls(until: u64) -> Simulation {
    let mut servers: Vec<Server> = (0..10).map(|_| good(10 * MS)).collect();
    let mut quick = good(MS);
    servers[0] = Box::new(move |now| {
        if now < 10 * SECOND {
            quick(now)
        } else {
            (3 * SECOND, Answered::Well)
        }
    });
    let policy = without_ejection(BalancePolicy::LeastLoaded);
    let mut run = Simulation::new(region(10), servers, policy);
    run.run(2_000, until);
    run
}

#[test]
fn the_quickest_that_stalls_catches_few_before_it_is_hot() {
    let run = one_stalls(12 * SECOND);
    let caught = run.share(0, 10 * SECOND, 12 * SECOND);

    assert!(caught < 0.01, "{caught}");
}

#[test]
fn shares_follow_weights_while_endpoints_are_alike() {
    let world = World::new()
        .region("eu", Up)
        .endpoint("192.0.2.1:80", Up)
        .endpoint_weight(100)
        .endpoint("192.0.2.2:80", Up)
        .endpoint_weight(300)
        .build();
    for policy in [BalancePolicy::LeastLoaded, BalancePolicy::RoundRobin] {
        let servers = vec![good(10 * MS), good(10 * MS)];
        let mut run = Simulation::new(world.clone(), servers, balancing(policy));
        run.run(20, 200 * SECOND);
        let share = run.share(1, 0, 200 * SECOND);
        // Under `least_loaded` the lighter one is idle when the heavier one is busy.
        assert!((0.65..0.80).contains(&share), "{share}");
    }
}

/// Three endpoints in the node's own zone, seven in others; each does `room` requests at once, and
/// further ones wait.
fn zones(per_second: u64, room: usize) -> Simulation {
    let mut world = World::new().region("eu", Up);
    for at in 0..10 {
        let az = if at < 3 { "a" } else { "b" };
        world = world.endpoint(&format!("192.0.2.{at}:80"), Up).az(az);
    }
    let world = world.build();
    let server = || -> Server {
        let mut free = vec![0_u64; room];
        Box::new(move |now| {
            let next = free.iter_mut().min().unwrap();
            let begins = (*next).max(now);
            *next = begins + 10 * MS;
            (*next - now, Answered::Well)
        })
    };
    let local = LocalZone {
        region: world.region_id("eu"),
        az: "a".into(),
    };
    let policy = Balancing {
        local: Some(local),
        ..without_ejection(BalancePolicy::LeastLoaded)
    };
    let mut run = Simulation::new(world, (0..10).map(|_| server()).collect(), policy);
    run.run(per_second, 20 * SECOND);
    run
}

#[test]
fn the_own_zone_serves_alone_while_it_can_and_what_it_cannot_goes_to_others() {
    let local = |run: &Simulation| {
        (0..3)
            .map(|at| run.share(at, SECOND, 20 * SECOND))
            .sum::<f64>()
    };

    let easy = zones(600, 4);
    assert!(local(&easy) > 0.99, "{}", local(&easy));

    // The zone alone could do 1,200.
    let much = zones(2_400, 4);
    assert!((0.25..0.6).contains(&local(&much)), "{}", local(&much));
    let p99 = much.quantile(0.99, 5 * SECOND);
    assert!(p99 < 60 * MS, "{p99}");
}

#[test]
fn an_endpoint_that_comes_up_gets_its_share_by_and_by() {
    let down = World::new()
        .region("eu", Up)
        .endpoint("192.0.2.1:80", Down)
        .endpoint("192.0.2.2:80", Up);
    let up = World::new()
        .region("eu", Up)
        .endpoint("192.0.2.1:80", Up)
        .endpoint("192.0.2.2:80", Up);
    for (slow_start, least, most) in [(30, 0.0, 0.12), (0, 0.4, 0.6)] {
        let servers = vec![good(10 * MS), good(10 * MS)];
        let policy = Balancing {
            slow_start: Duration::from_secs(slow_start),
            ..balancing(BalancePolicy::RoundRobin)
        };
        let mut run = Simulation::new(down.clone().build(), servers, policy);
        run.run(200, 10 * SECOND);
        run.world = up.clone().generation(2).build();
        run.run(200, 60 * SECOND);

        let first = run.share(0, 10 * SECOND, 13 * SECOND);
        assert!((least..=most).contains(&first), "{slow_start} s: {first}");
        let then = run.share(0, 41 * SECOND, 60 * SECOND);
        assert!((0.45..0.55).contains(&then), "{slow_start} s: {then}");
    }
}

#[test]
fn when_too_few_are_usable_and_the_operator_wants_it_all_are_used() {
    let mut world = World::new().region("eu", Up);
    for at in 0..10 {
        let verdict = if at < 2 { Up } else { Down };
        world = world.endpoint(&format!("192.0.2.{at}:80"), verdict);
    }
    let world = world.standing(sealane_model::Standing::In).build();
    for (panic, expected) in [(0.0, 0.5), (0.3, 0.1)] {
        let servers = (0..10).map(|_| good(10 * MS)).collect();
        let policy = Balancing {
            panic: Ratio::new(panic).unwrap(),
            ..balancing(BalancePolicy::RoundRobin)
        };
        let mut run = Simulation::new(world.clone(), servers, policy);
        run.run(1_000, 5 * SECOND);
        let share = run.share(0, 0, 5 * SECOND);
        assert!((share - expected).abs() < 0.02, "{panic}: {share}");
    }
}

#[test]
fn keys_keep_to_their_endpoint_and_a_popular_one_floods_nobody() {
    let servers: Vec<Server> = (0..10).map(|_| good(10 * MS)).collect();
    let policy = balancing(BalancePolicy::RingHash(HashKey::ClientIp));
    let mut run = Simulation::new(region(10), servers, policy);
    run.run(5_000, 10 * SECOND);

    for at in 0..10 {
        let share = run.share(at, 0, 10 * SECOND);
        assert!((0.06..0.14).contains(&share), "{at}: {share}");
    }
}

#[test]
fn the_rule_is_read_anew_with_each_world() {
    let rule = EjectionRule {
        consecutive_errors: 1_000,
        success: Ratio::ZERO,
        ..EjectionRule::default()
    };
    let lax = Balancing {
        ejection: Some(rule),
        ..balancing(BalancePolicy::RoundRobin)
    };
    let mut servers: Vec<Server> = (0..4).map(|_| good(MS)).collect();
    servers[0] = bad_from(0, MS, MS);
    let mut run = Simulation::new(region(4), servers, lax);
    run.run(400, 5 * SECOND);
    assert!(run.share(0, 0, 5 * SECOND) > 0.2);

    run.balancing = Arc::new(balancing(BalancePolicy::RoundRobin));
    run.run(400, 10 * SECOND);
    assert!(run.share(0, 6 * SECOND, 10 * SECOND) < 0.01);
}
