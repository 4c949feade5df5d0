//! A small world in virtual time: a core, scripted endpoints, and the clock between them.
//!
//! Plays the actor's part without I/O: probes end when their scripted endpoint says so. Reads no
//! clock and uses no randomness.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sealane_control::config::{AdminConfig, Config, Probe, ProbeKind};
use sealane_control::core::{Change, Core, Effects, Input};
use sealane_control::probe::schedule::Ticket;
use sealane_control::state::Remembered;
use sealane_control::{Order, OrderError, OrderKind, OrderReply};
use sealane_model::{
    Addresses, AllDown, Endpoint, EndpointId, EndpointProtocol, FailoverRule, Failure, IdBook,
    Judgement, Member, Observation, Outcome, Pool, PoolId, RampRule, Rate, Ratio, Region, RegionId,
    Snapshot, Source, Standing, Target, Timestamp, Topology, Verdict, Weight,
};

pub const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
pub const INTERVAL: Duration = Duration::from_secs(5);
pub const TIMEOUT: Duration = Duration::from_secs(2);
pub const RECHECK: Duration = Duration::from_millis(500);
pub const HOLD_DOWN: Duration = Duration::from_secs(60);

/// How a scripted endpoint treats probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Passes(Duration),
    Refuses,
    /// Accepts and never answers.
    Blackhole,
}

pub const WELL: Manner = Manner::Passes(Duration::from_millis(10));

pub fn probe() -> Probe {
    Probe {
        kind: ProbeKind::Tcp,
        port: None,
        interval: INTERVAL,
        timeout: TIMEOUT,
        fall: 2,
        rise: 3,
        recheck: RECHECK,
    }
}

/// Pools and regions by name, with a number of endpoints each.
#[derive(Clone, Debug)]
pub struct Plan {
    pub pools: Vec<(&'static str, Vec<(&'static str, usize)>)>,
    pub probe: Option<Probe>,
    pub hold_down: Duration,
    pub threshold: f64,
    /// Of every region, a second.
    pub capacity: Option<f64>,
    pub ramp: Option<RampRule>,
    /// Endpoints by host name `N.REGION.POOL.test` instead of by address.
    pub by_host: bool,
}

impl Plan {
    pub fn new(pools: &[(&'static str, &[(&'static str, usize)])]) -> Self {
        Self {
            pools: pools
                .iter()
                .map(|(pool, regions)| (*pool, regions.to_vec()))
                .collect(),
            probe: Some(probe()),
            hold_down: HOLD_DOWN,
            threshold: 0.5,
            capacity: None,
            ramp: None,
            by_host: false,
        }
    }

    pub fn config(&self, book: &mut IdBook) -> Config {
        let (mut regions, mut pools, mut endpoints) =
            (Vec::<Region>::new(), Vec::new(), Vec::new());
        for (pool_name, of_regions) in &self.pools {
            let pool = book.pool(pool_name).unwrap();
            let mut members = Vec::new();
            for (region_name, count) in of_regions {
                let region = book.region(region_name).unwrap();
                if regions.iter().all(|known| known.id != region) {
                    regions.push(Region::new(region, region_name, None));
                }
                let ids: Vec<_> = (0..*count)
                    .map(|number| {
                        let one =
                            self.endpoint(book, (pool, pool_name), (region, region_name), number);
                        let id = one.id;
                        endpoints.push(one);
                        id
                    })
                    .collect();
                members.push(Member {
                    region,
                    weight: Weight::DEFAULT,
                    priority: 1,
                    capacity: self.capacity.and_then(Rate::per_second),
                    addresses: Addresses::OfEndpoints,
                    endpoints: ids,
                });
            }
            pools.push(Pool {
                id: pool,
                name: (*pool_name).into(),
                members,
                failover: FailoverRule {
                    threshold: Ratio::new(self.threshold).unwrap(),
                    hold_down: self.hold_down,
                    all_down: AllDown::FailOpen,
                    panic: Ratio::ZERO,
                    ramp: self.ramp.clone(),
                },
            });
        }
        let probes = pools
            .iter()
            .filter_map(|pool| Some((pool.id, self.probe.clone()?)));
        Config {
            node: "test".into(),
            probes: probes.collect(),
            topology: Arc::new(Topology::new(regions, pools, endpoints)),
            first_round_limit: Duration::from_secs(10),
            state_file: None,
            learn: None,
            admin: AdminConfig {
                bind: Vec::new(),
                tokens: Vec::new(),
                open: false,
            },
        }
    }

    fn endpoint(
        &self,
        book: &mut IdBook,
        (pool, pool_name): (PoolId, &str),
        (region, region_name): (RegionId, &str),
        number: usize,
    ) -> Endpoint {
        let host: Arc<str> = format!("{number}.{region_name}.{pool_name}.test").into();
        let (name, target) = if self.by_host {
            (host.clone(), Target::Host { host, port: 80 })
        } else {
            let name: Arc<str> = format!(
                "{}.{}.{}.{}:{}",
                10 + pool.index() / 256,
                pool.index() % 256,
                region.index(),
                number % 200,
                80 + number / 200
            )
            .into();
            let address = name.parse().unwrap();
            (name, Target::Address(address))
        };
        Endpoint {
            id: book.endpoint(pool, region, &name).unwrap(),
            pool,
            region,
            name,
            target,
            az: None,
            weight: Weight::DEFAULT,
            protocol: EndpointProtocol::Http1,
            tls: None,
            proxy_protocol: None,
        }
    }
}

/// What ends when.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
enum Ending {
    Probe(EndpointId, u64),
    LookUp(EndpointId, u64),
}

pub struct World {
    pub core: Core,
    pub book: IdBook,
    pub now: Timestamp,
    pub manners: BTreeMap<EndpointId, Manner>,
    /// Of endpoints without a manner of their own.
    pub usual: Manner,
    /// What host names resolve to; `None`: nothing.
    pub names: BTreeMap<EndpointId, Vec<std::net::SocketAddr>>,
    pub changes: Vec<(Timestamp, Change)>,
    /// (when, which) probe began.
    pub probed: Vec<(Timestamp, EndpointId)>,
    wake_at: Option<Timestamp>,
    endings: BTreeSet<(Timestamp, Ending)>,
    tickets: BTreeMap<u64, Ticket>,
    outcomes: BTreeMap<u64, Outcome>,
    serial: u64,
    pub steps: u64,
    /// Every failback that was asked for: when, and of what.
    pub failbacks: Vec<(Timestamp, String)>,
}

impl World {
    pub fn new(plan: &Plan, seed: u64) -> Self {
        Self::remembering(plan, seed, None)
    }

    pub fn remembering(plan: &Plan, seed: u64, remembered: Option<Remembered>) -> Self {
        let mut book = IdBook::default();
        let config = plan.config(&mut book);
        Self::at(
            START,
            Core::new(START, config, seed, remembered),
            book,
            WELL,
        )
    }

    /// Every endpoint behaves so from the first probe on.
    pub fn all(plan: &Plan, seed: u64, usual: Manner) -> Self {
        let mut book = IdBook::default();
        let config = plan.config(&mut book);
        Self::at(START, Core::new(START, config, seed, None), book, usual)
    }

    pub fn at(now: Timestamp, core: Core, book: IdBook, usual: Manner) -> Self {
        let mut world = Self {
            core,
            book,
            now,
            manners: BTreeMap::new(),
            usual,
            names: BTreeMap::new(),
            changes: Vec::new(),
            probed: Vec::new(),
            wake_at: None,
            endings: BTreeSet::new(),
            tickets: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            serial: 0,
            steps: 0,
            failbacks: Vec::new(),
        };
        world.step(Input::Tick);
        world
    }

    /// Steps the core now, and begins what it asks for.
    pub fn step(&mut self, input: Input) -> Option<Result<OrderReply, OrderError>> {
        self.steps += 1;
        let Effects {
            probes,
            lookups,
            changes,
            reply,
            wake_at,
            ..
        } = self.core.step(self.now, input);
        for started in probes {
            self.probed.push((self.now, started.endpoint));
            let manner = self
                .manners
                .get(&started.endpoint)
                .copied()
                .unwrap_or(self.usual);
            let (after, outcome) = match manner {
                Manner::Passes(rtt) => (rtt, Outcome::Passed { rtt }),
                Manner::Refuses => (Duration::ZERO, Outcome::Failed(Failure::Refused)),
                Manner::Blackhole => (TIMEOUT, Outcome::Failed(Failure::TimedOut)),
            };
            self.serial += 1;
            self.tickets.insert(self.serial, started.ticket);
            self.outcomes.insert(self.serial, outcome);
            self.endings.insert((
                self.now + after,
                Ending::Probe(started.endpoint, self.serial),
            ));
        }
        for started in lookups {
            self.serial += 1;
            self.tickets.insert(self.serial, started.ticket);
            let at = self.now + Duration::from_millis(5);
            self.endings
                .insert((at, Ending::LookUp(started.endpoint, self.serial)));
        }
        self.changes
            .extend(changes.into_iter().map(|change| (self.now, change)));
        if let Some(at) = wake_at {
            assert!(
                at > self.now,
                "a wake-up that is not in the future would spin"
            );
        }
        self.wake_at = wake_at;
        reply
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    pub fn run_until(&mut self, end: Timestamp) {
        loop {
            let ending = self.endings.first().map(|(at, _)| *at);
            let Some(next) = ending
                .into_iter()
                .chain(self.wake_at)
                .min()
                .filter(|at| *at <= end)
            else {
                break;
            };
            self.now = next;
            if ending == Some(next) {
                self.end_first();
            } else {
                self.step(Input::Tick);
            }
        }
        self.now = end;
    }

    fn end_first(&mut self) {
        let Some((_, ending)) = self.endings.pop_first() else {
            return;
        };
        match ending {
            Ending::Probe(endpoint, serial) => {
                let ticket = self.tickets.remove(&serial).unwrap();
                let outcome = self.outcomes.remove(&serial).unwrap();
                self.step(Input::Probed {
                    endpoint,
                    ticket,
                    outcome,
                });
            }
            Ending::LookUp(endpoint, serial) => {
                let ticket = self.tickets.remove(&serial).unwrap();
                let found = self.names.get(&endpoint).cloned();
                let found = found.ok_or_else(|| "no such name".to_owned());
                self.step(Input::Resolved {
                    endpoint,
                    ticket,
                    found,
                });
            }
        }
    }

    /// Runs until `what` holds; panics after `limit`. Returns how long it took.
    pub fn run_until_that(
        &mut self,
        limit: Duration,
        mut what: impl FnMut(&mut Self) -> bool,
    ) -> Duration {
        let begun = self.now;
        while !what(self) {
            let ending = self.endings.first().map(|(at, _)| *at);
            let next = ending
                .into_iter()
                .chain(self.wake_at)
                .min()
                .expect("nothing to wait for");
            assert!(next.since(begun) <= limit, "not within {limit:?}");
            self.run_until(next);
        }
        self.now.since(begun)
    }

    pub fn observe_failure(&mut self, endpoint: EndpointId) {
        let outcome = Outcome::Failed(Failure::Closed);
        self.step(Input::Observed(Observation {
            endpoint,
            source: Source::Traffic,
            outcome,
        }));
    }

    pub fn observe_judgement(&mut self, endpoint: EndpointId, judgement: Judgement) {
        self.step(Input::Observed(Observation {
            endpoint,
            source: Source::Traffic,
            outcome: Outcome::Judged(judgement),
        }));
    }

    pub fn order(&mut self, kind: OrderKind, target: &str) -> Result<OrderReply, OrderError> {
        self.order_as(kind, target, false, false)
    }

    pub fn order_as(
        &mut self,
        kind: OrderKind,
        target: &str,
        dry_run: bool,
        force: bool,
    ) -> Result<OrderReply, OrderError> {
        if kind == OrderKind::FailBack && !dry_run {
            self.failbacks.push((self.now, target.to_owned()));
        }
        let order = Order {
            kind,
            target: target.to_owned(),
            by: "oncall".into(),
            reason: Some("a test".into()),
            dry_run,
            force,
        };
        self.step(Input::Ordered(order))
            .expect("an order is always replied to")
    }

    pub fn snapshot(&mut self) -> Snapshot {
        self.core.snapshot(self.now)
    }

    pub fn region(&mut self, name: &str) -> RegionId {
        self.core.topology().region_named(name).unwrap().id
    }

    /// The endpoints of a pool in a region.
    pub fn endpoints(&self, pool: &str, region: &str) -> Vec<EndpointId> {
        let topology = self.core.topology();
        let region = topology.region_named(region).unwrap().id;
        let pool = topology.pool_named(pool).unwrap();
        pool.members
            .iter()
            .find(|member| member.region == region)
            .unwrap()
            .endpoints
            .clone()
    }

    pub fn behave(&mut self, endpoints: &[EndpointId], manner: Manner) {
        for endpoint in endpoints {
            self.manners.insert(*endpoint, manner);
        }
    }

    pub fn standing(&mut self, pool: &str, region: &str) -> Standing {
        let world = self.snapshot();
        let pool = world.topology.pool_named(pool).unwrap().id;
        let region = world.topology.region_named(region).unwrap().id;
        world.member(pool, region).unwrap().1.standing
    }

    pub fn verdict(&mut self, endpoint: EndpointId) -> Verdict {
        self.snapshot().verdict(endpoint)
    }
}
