//! All state of control, and the one function that moves it: [`Core::step`].
//!
//! No I/O, no clock, no randomness but a seed: it is told what happened and when, and answers with
//! what to do. The actor around it probes, resolves, publishes and writes; tests drive it in
//! virtual time. **Start reading here.**

mod learn;
mod order;
mod settle;
mod traffic;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sealane_model::{
    EndpointId, Failure, Generation, Judged, Judgement, Learned, Observation, Outcome, PoolId,
    RampStep, RegionId, RoundTrip, Source, Standing, Target, Timestamp, Topology, TrafficCounts,
    Verdict,
};

use crate::config::{Config, Probe};
use crate::damping::{Damped, turn_of};
use crate::demand::Demand;
use crate::failover::Watch;
use crate::health::endpoint::{Counts, Track};
use crate::health::judged;
use crate::health::region::Tally;
use crate::health::rtt::Floor;
use crate::learn::Learner;
use crate::overrides::{Order, Override, Overrides};
use crate::probe::schedule::{Pace, Schedule, Started, Ticket};
use crate::ramp::Climb;
use crate::state::Remembered;

pub use order::{OrderError, OrderReply, PoolEffect};
pub use traffic::Totals;
pub use view::Overview;

/// How often a host name is looked up again. The system's resolver does not tell how long an
/// answer may be kept; half a minute is what most operators give records that move.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// A failed probe asks for another look-up, at most this often.
pub const RESOLVE_MIN: Duration = Duration::from_secs(5);
/// A failed request asks for a probe, at most this often for each endpoint.
pub const TRIGGERED_PROBE_MIN: Duration = Duration::from_secs(1);
/// An endpoint that is never probed stays suspect for this long after a failed request.
pub const UNPROBED_SUSPECT_FOR: Duration = Duration::from_secs(5);
/// Addresses kept of one host name; what a resolver gives beyond that is ignored.
pub const ADDRESSES_MAX: usize = 16;

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A probe ended.
    Probed {
        endpoint: EndpointId,
        ticket: Ticket,
        outcome: Outcome,
    },
    /// A look-up of a host name ended.
    Resolved {
        endpoint: EndpointId,
        ticket: Ticket,
        found: Result<Vec<SocketAddr>, String>,
    },
    /// A probe or look-up was lost by our own fault: it says nothing about the endpoint.
    Lost {
        endpoint: EndpointId,
        ticket: Ticket,
        work: Work,
    },
    /// A live request said something about an endpoint.
    Observed(Observation),
    /// What live traffic amounts to by now.
    Counted(Totals),
    /// What clients' connections told since the last time.
    Heard(Vec<RoundTrip>),
    /// An operator asks.
    Ordered(Order),
    /// The configuration was read anew.
    Replaced(Box<Config>),
    /// All that operators have said, as an earlier process knew it at its end.
    Restored(Vec<Override>),
    /// Time passed.
    Tick,
}

/// The two kinds of work that control gives out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    Probe,
    LookUp,
}

/// What is to be done about it.
#[derive(Debug, Default)]
pub struct Effects {
    /// Probes to begin now.
    pub probes: Vec<Started>,
    /// Host names to look up now.
    pub lookups: Vec<Started>,
    /// What changed, to be logged and counted.
    pub changes: Vec<Change>,
    /// To whoever gave the order.
    pub reply: Option<Result<OrderReply, OrderError>>,
    pub publish: Publish,
    /// Something changed that a restart should not forget.
    pub remember: bool,
    /// When to step with [`Input::Tick`] next; always after the step's own time.
    pub wake_at: Option<Timestamp>,
}

/// How soon the world should be published again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Publish {
    #[default]
    NotNeeded,
    /// Figures moved, conclusions did not.
    Lazily,
    /// A conclusion changed.
    Promptly,
}

/// A change of the world.
#[derive(Clone, Debug)]
pub enum Change {
    Verdict {
        endpoint: EndpointId,
        from: Verdict,
        to: Verdict,
        by: Source,
        cause: Option<Arc<str>>,
    },
    Standing {
        pool: PoolId,
        region: RegionId,
        from: Standing,
        to: Standing,
    },
    /// A region that returns has come to its next step, to its whole share, or is held where it is.
    Ramp {
        pool: PoolId,
        region: RegionId,
        /// `None`: it has its whole share.
        step: Option<RampStep>,
    },
    Resolved {
        endpoint: EndpointId,
        addresses: Arc<[SocketAddr]>,
    },
    Unresolved {
        endpoint: EndpointId,
        error: String,
    },
    FirstRoundOver {
        /// Endpoints that were not heard of before the limit passed.
        unheard: usize,
    },
}

#[derive(Debug)]
pub struct Core {
    node: Arc<str>,
    topology: Arc<Topology>,
    rules: HashMap<PoolId, Probe>,
    endpoints: BTreeMap<EndpointId, EndpointState>,
    members: BTreeMap<(PoolId, RegionId), MemberState>,
    overrides: Overrides,
    probes: Schedule,
    lookups: Schedule,
    /// Unprobed endpoints in doubt, by when that ends.
    doubts: BTreeSet<(Timestamp, EndpointId)>,
    /// Judged endpoints, by when they cease to count against their region.
    judgements: BTreeSet<(Timestamp, EndpointId)>,
    first_round: FirstRound,
    hold_down_ends: Option<Timestamp>,
    /// When a step of a region's return may end.
    climb_at: Option<Timestamp>,
    /// The last turn in which a part of the clients took over new figures.
    turned: u64,
    learner: Option<Learner>,
    learned: Arc<Learned>,
    seed: u64,
    generation: Generation,
    started_at: Timestamp,
    restored_at: Option<Timestamp>,
    now: Timestamp,
}

#[derive(Debug)]
struct EndpointState {
    track: Track,
    /// What the proxy says of it by itself.
    judged: Option<Judged>,
    /// Where it is reached; empty for a host name that was never resolved.
    addresses: Arc<[SocketAddr]>,
    /// What was last said to the world, the operator's word included.
    said: Verdict,
}

#[derive(Debug)]
struct MemberState {
    watch: Watch,
    tally: Tally,
    floor: Floor,
    /// What was last said to the world, the operator's word included.
    standing: Standing,
    since: Timestamp,
    counts: TrafficCounts,
    demand: Demand,
    damped: Damped,
    climb: Option<Climb>,
}

#[derive(Debug)]
struct FirstRound {
    awaited: BTreeSet<EndpointId>,
    until: Timestamp,
    over: bool,
}

impl Core {
    /// `seed` spreads the probes; equal seeds and inputs give equal effects. `remembered` is what
    /// an earlier process left on disk. Step with [`Input::Tick`] to begin the first round.
    #[must_use]
    pub fn new(now: Timestamp, config: Config, seed: u64, remembered: Option<Remembered>) -> Self {
        let remembered = remembered.unwrap_or_default();
        let mut core = Self {
            node: config.node.clone(),
            topology: Arc::default(),
            rules: HashMap::new(),
            endpoints: BTreeMap::new(),
            members: BTreeMap::new(),
            overrides: Overrides::default(),
            probes: Schedule::new(seed),
            lookups: Schedule::new(!seed),
            doubts: BTreeSet::new(),
            judgements: BTreeSet::new(),
            first_round: FirstRound {
                awaited: BTreeSet::new(),
                until: now + config.first_round_limit,
                over: false,
            },
            hold_down_ends: None,
            climb_at: None,
            turned: turn_of(now),
            learner: None,
            learned: Arc::default(),
            seed,
            generation: Generation::default(),
            started_at: now,
            restored_at: remembered.written_at,
            now,
        };
        core.put_back(remembered.overrides.iter().cloned());
        core.adopt(config, &remembered, &mut Effects::default());
        core.first_round.awaited = core
            .endpoints
            .keys()
            .copied()
            .filter(|id| core.is_active(*id))
            .collect();
        core
    }

    /// Takes in one event; afterwards everything that was due has been begun.
    pub fn step(&mut self, now: Timestamp, input: Input) -> Effects {
        self.now = self.now.max(now);
        let mut effects = Effects::default();
        match input {
            Input::Probed {
                endpoint,
                ticket,
                outcome,
            } => {
                self.probed(endpoint, ticket, &outcome, &mut effects);
            }
            Input::Resolved {
                endpoint,
                ticket,
                found,
            } => {
                self.resolved(endpoint, ticket, found, &mut effects);
            }
            Input::Lost {
                endpoint,
                ticket,
                work,
            } => {
                let schedule = match work {
                    Work::Probe => &mut self.probes,
                    Work::LookUp => &mut self.lookups,
                };
                schedule.finish(self.now, endpoint, ticket);
            }
            Input::Observed(observation) => self.observed(&observation, &mut effects),
            Input::Counted(totals) => self.counted(&totals, &mut effects),
            Input::Heard(round_trips) => self.heard(&round_trips, &mut effects),
            Input::Ordered(order) => effects.reply = Some(self.ordered(&order, &mut effects)),
            Input::Replaced(config) => self.replaced(*config, &mut effects),
            Input::Restored(overrides) => self.restored(overrides, &mut effects),
            Input::Tick => {}
        }
        self.pass_time(&mut effects);
        effects
    }

    #[must_use]
    pub const fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// Was every endpoint heard of once, or the limit passed (A6)?
    #[must_use]
    pub const fn first_round_over(&self) -> bool {
        self.first_round.over
    }

    /// How the pool's endpoints are probed. `None`: they are not.
    #[must_use]
    pub fn probe_of(&self, pool: PoolId) -> Option<&Probe> {
        self.rules.get(&pool)
    }

    /// Where an endpoint is reached now.
    #[must_use]
    pub fn addresses_of(&self, endpoint: EndpointId) -> Option<&Arc<[SocketAddr]>> {
        self.endpoints.get(&endpoint).map(|state| &state.addresses)
    }

    fn probed(&mut self, id: EndpointId, ticket: Ticket, outcome: &Outcome, effects: &mut Effects) {
        if self.probes.finish(self.now, id, ticket) {
            self.conclude(id, outcome, effects);
            if matches!(outcome, Outcome::Failed(_)) {
                self.lookups.hasten(self.now, id);
            }
        }
    }

    /// What a probe, or a look-up in its place, means for the endpoint and its region.
    fn conclude(&mut self, id: EndpointId, outcome: &Outcome, effects: &mut Effects) {
        let Some((probe, pool, region)) = self.probed_as(id) else {
            return;
        };
        let (recheck, counts) = (
            probe.recheck,
            Counts {
                fall: probe.fall,
                rise: probe.rise,
            },
        );
        let Some(state) = self.endpoints.get_mut(&id) else {
            return;
        };
        state.track.probed(self.now, outcome, counts);
        if state.track.wants_recheck() {
            let at = self.now + recheck;
            self.probes.sooner(id, at);
            if state.addresses.is_empty() {
                self.lookups.sooner(id, at);
            }
        }
        effects.publish = effects.publish.max(Publish::Lazily);
        self.first_round.awaited.remove(&id);
        self.say_endpoint(id, effects);
        self.recount(pool, region, effects);
    }

    fn resolved(
        &mut self,
        id: EndpointId,
        ticket: Ticket,
        found: Result<Vec<SocketAddr>, String>,
        effects: &mut Effects,
    ) {
        if !self.lookups.finish(self.now, id, ticket) {
            return;
        }
        match found {
            Ok(addresses) if !addresses.is_empty() => self.moved(id, addresses, effects),
            Ok(_) => self.unresolved(id, "no address".to_owned(), effects),
            Err(error) => self.unresolved(id, error, effects),
        }
    }

    /// A host name was resolved. A set of addresses that is only told in another order has not
    /// changed: resolvers rotate answers.
    fn moved(&mut self, id: EndpointId, mut found: Vec<SocketAddr>, effects: &mut Effects) {
        found.truncate(ADDRESSES_MAX);
        let Some(state) = self.endpoints.get_mut(&id) else {
            return;
        };
        let known: BTreeSet<_> = state.addresses.iter().collect();
        if known != found.iter().collect() {
            state.addresses = found.into();
            let addresses = state.addresses.clone();
            effects.changes.push(Change::Resolved {
                endpoint: id,
                addresses,
            });
            effects.publish = Publish::Promptly;
        }
        let Some(endpoint) = self.topology.endpoint(id) else {
            return;
        };
        if let Some(probe) = self.rules.get(&endpoint.pool) {
            if !self.probes.contains(id) {
                self.probes.add(self.now, id, probe_pace(probe));
            }
        } else {
            self.first_round.awaited.remove(&id);
            self.settle_unprobed(id, Verdict::Up, Source::Operator, effects);
        }
    }

    /// A host name was not resolved: the last good addresses stay. Without any, that is a failed
    /// probe, and comes again at the pace of probes.
    fn unresolved(&mut self, id: EndpointId, error: String, effects: &mut Effects) {
        effects.changes.push(Change::Unresolved {
            endpoint: id,
            error: error.clone(),
        });
        let has_addresses = self
            .endpoints
            .get(&id)
            .is_some_and(|state| !state.addresses.is_empty());
        if has_addresses {
            return;
        }
        if let Some((probe, ..)) = self.probed_as(id) {
            let again = self.now + probe.interval;
            self.lookups.sooner(id, again);
            self.conclude(id, &Outcome::Failed(Failure::Unresolved(error)), effects);
        } else {
            self.first_round.awaited.remove(&id);
            self.lookups.sooner(id, self.now + RESOLVE_MIN);
            if let Some(state) = self.endpoints.get_mut(&id) {
                state.track.doubt(&Failure::Unresolved(error));
            }
            self.settle_unprobed(id, Verdict::Down, Source::Probe, effects);
        }
    }

    /// The proxy acts by itself; the map shows it, and a degraded region may fail over.
    fn judged(&mut self, id: EndpointId, judgement: Judgement, effects: &mut Effects) {
        let now = self.now;
        let Some((state, endpoint)) = self.endpoints.get_mut(&id).zip(self.topology.endpoint(id))
        else {
            return;
        };
        let (pool, region) = (endpoint.pool, endpoint.region);
        state.judged = judged::judged(now, state.judged, judgement);
        self.judgements.retain(|(_, judged)| *judged != id);
        if let Some(until) = state.judged.as_ref().and_then(judged::counts_until) {
            self.judgements.insert((until, id));
        }
        effects.publish = Publish::Promptly;
        self.recount(pool, region, effects);
    }

    fn end_judgements(&mut self, effects: &mut Effects) {
        while let Some((until, id)) = self.judgements.first().copied() {
            if until > self.now {
                break;
            }
            self.judgements.pop_first();
            if let Some(endpoint) = self.topology.endpoint(id) {
                let (pool, region) = (endpoint.pool, endpoint.region);
                effects.publish = effects.publish.max(Publish::Lazily);
                self.recount(pool, region, effects);
            }
        }
    }

    fn observed(&mut self, observation: &Observation, effects: &mut Effects) {
        if let Outcome::Judged(judgement) = observation.outcome {
            return self.judged(observation.endpoint, judgement, effects);
        }
        let (id, Outcome::Failed(failure)) = (observation.endpoint, &observation.outcome) else {
            return;
        };
        let now = self.now;
        let Some(state) = self.endpoints.get_mut(&id) else {
            return;
        };
        let doubted = state.track.failed_in_traffic(now, failure);
        if state.track.verdict != Verdict::Down {
            self.probes.hasten(now, id);
            self.lookups.hasten(now, id);
        }
        let Some(endpoint) = self.topology.endpoint(id).filter(|_| doubted) else {
            return;
        };
        let (pool, region) = (endpoint.pool, endpoint.region);
        if !self.rules.contains_key(&pool) {
            self.doubts.insert((now + UNPROBED_SUSPECT_FOR, id));
        }
        self.say_endpoint(id, effects);
        self.recount(pool, region, effects);
    }

    fn replaced(&mut self, config: Config, effects: &mut Effects) {
        self.adopt(config, &Remembered::default(), effects);
        effects.publish = Publish::Promptly;
        effects.remember = true;
    }

    fn restored(&mut self, overrides: Vec<Override>, effects: &mut Effects) {
        self.overrides = Overrides::default();
        self.put_back(overrides);
        self.settle_all(effects);
        effects.publish = Publish::Promptly;
        effects.remember = true;
    }

    /// As many as there may be.
    fn put_back(&mut self, overrides: impl IntoIterator<Item = Override>) {
        for one in overrides {
            if self.overrides.put(one).is_err() {
                break;
            }
        }
    }

    /// Everything that time alone brings about.
    fn pass_time(&mut self, effects: &mut Effects) {
        self.end_doubts(effects);
        self.end_judgements(effects);
        self.end_hold_downs(effects);
        self.end_first_round(effects);
        self.climb(effects);
        self.turn_parts(effects);
        effects.probes = self.probes.due(self.now);
        effects.lookups = self.lookups.due(self.now);
        effects.wake_at = self.wake_at();
    }

    fn end_doubts(&mut self, effects: &mut Effects) {
        while let Some((until, id)) = self.doubts.first().copied() {
            if until > self.now {
                break;
            }
            self.doubts.pop_first();
            let doubted = |state: &EndpointState| state.track.verdict == Verdict::Suspect;
            let unprobed = self.probed_as(id).is_none();
            if unprobed && self.endpoints.get(&id).is_some_and(doubted) {
                self.settle_unprobed(id, Verdict::Up, Source::Operator, effects);
            }
        }
    }

    fn end_hold_downs(&mut self, effects: &mut Effects) {
        if self.hold_down_ends.is_none_or(|ends| ends > self.now) {
            return;
        }
        let ended: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| member.watch.wake_at().is_some_and(|ends| ends <= self.now))
            .map(|(key, _)| *key)
            .collect();
        for (pool, region) in ended {
            self.recount(pool, region, effects);
        }
        self.note_hold_downs();
    }

    fn end_first_round(&mut self, effects: &mut Effects) {
        let first = &mut self.first_round;
        if first.over || (!first.awaited.is_empty() && self.now < first.until) {
            return;
        }
        first.over = true;
        effects.changes.push(Change::FirstRoundOver {
            unheard: first.awaited.len(),
        });
        first.awaited.clear();
        effects.publish = Publish::Promptly;
    }

    fn wake_at(&self) -> Option<Timestamp> {
        let first_round = (!self.first_round.over).then_some(self.first_round.until);
        let doubts = self.doubts.first().map(|(until, _)| *until);
        let all = [
            self.probes.wake_at(),
            self.lookups.wake_at(),
            self.hold_down_ends,
            first_round,
            doubts,
            self.judgements.first().map(|(until, _)| *until),
            self.climb_at,
            self.turn_at(),
        ];
        all.into_iter().flatten().min()
    }

    /// How an endpoint is probed, and where it belongs. `None`: it is gone, or never probed.
    fn probed_as(&self, id: EndpointId) -> Option<(&Probe, PoolId, RegionId)> {
        let endpoint = self.topology.endpoint(id)?;
        let probe = self.rules.get(&endpoint.pool)?;
        Some((probe, endpoint.pool, endpoint.region))
    }

    /// Will anything be heard of it: is it probed, or looked up?
    fn is_active(&self, id: EndpointId) -> bool {
        self.probes.contains(id) || self.lookups.contains(id)
    }
}

fn probe_pace(probe: &Probe) -> Pace {
    Pace {
        interval: probe.interval,
        hasten_min: TRIGGERED_PROBE_MIN,
    }
}

const LOOKUP_PACE: Pace = Pace {
    interval: RESOLVE_EVERY,
    hasten_min: RESOLVE_MIN,
};

fn is_host(target: &Target) -> bool {
    matches!(target, Target::Host { .. })
}
