//! Which endpoint serves this attempt: first the region, then one endpoint in it.
//!
//! Called once per attempt, and by whoever wants to know whether another one could follow. Reads one [`Snapshot`], the
//! endpoints' loads and marks, what regions with a capacity were sent; takes trials of
//! ejected endpoints, never waits. How regions are ordered is not decided here: see [`sealane_steering::rank`].

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use sealane_model::{
    Arrival, EndpointId, OutReason, PoolId, RegionId, Snapshot, Standing, Verdict,
};
use sealane_steering::{Ask, ClientPlace, Ranking, Reason, Standard, SteeringPolicy, rank};
use smallvec::SmallVec;

use super::account::Answered;
use super::balance::{self, Entry, Seen};
use super::known::{Endpoints, Known};
use super::mark::Mark;
use super::view::View;
use crate::config::{BalancePolicy, Balancing};

/// Failed attempts in one region after which the next region of the ranking is tried: two failed
/// endpoints say more about the region than about themselves.
pub(crate) const TRIES_PER_REGION: usize = 2;

/// What an attempt's choice depends on besides the world and the loads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SelectAsk<'a> {
    pub(crate) pool: PoolId,
    pub(crate) policy: &'a SteeringPolicy,
    pub(crate) balance: &'a Arc<Balancing>,
    pub(crate) place: &'a ClientPlace,
    /// The same for all attempts of one request, so that they see the same ranking.
    pub(crate) key: u64,
    /// What a ring finds the endpoint by; `None` where the request has no such key.
    pub(crate) hash: Option<u64>,
    /// A fresh one for each attempt.
    pub(crate) random: u64,
    /// When the attempt begins.
    pub(crate) now: Instant,
    /// It may be refused where no region has room for it.
    pub(crate) may_shed: bool,
    /// It can be sent again if it fails: a trial of an endpoint does no harm.
    pub(crate) repeatable: bool,
    /// Where the request's earlier attempts went, the first one first.
    pub(crate) tried: &'a [Tried],
}

/// An earlier attempt of the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tried {
    pub(crate) region: RegionId,
    pub(crate) endpoint: EndpointId,
    /// It ended because its time was up.
    pub(crate) timed_out: bool,
}

/// The choice for one attempt; cheap to clone, holds no snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    pub(crate) known: Rc<Known>,
    pub(crate) address: SocketAddr,
    /// Why its region.
    pub(crate) reason: Reason,
    /// Why this endpoint of it.
    pub(crate) choice: Choice,
    /// It is not as well as an endpoint should be, and was chosen all the same.
    pub(crate) ignored_health: bool,
    /// When the attempt began.
    pub(crate) began: Instant,
    /// How its region came to it.
    pub(crate) arrival: Arrival,
    /// The region has a capacity.
    pub(crate) has_limit: bool,
    /// Its answer began: from then on time is the answer's, not the endpoint's.
    pub(crate) answered: Cell<bool>,
}

/// Why this endpoint of a region and no other: the same word in the access log and in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    LeastLoaded,
    InTurn,
    ByHash,
    /// The request's session is there.
    Sticky,
    /// The endpoints that the key leads to first had no room.
    HashFull,
    /// The zone that the node stands in has too much to do.
    AzFull,
    /// It was ejected; this request shows whether it works again.
    Trial,
    /// Too few endpoints are usable to bear the load: all are used.
    Panic,
    /// All that are usable are ejected.
    EjectionIgnored,
    /// None is usable.
    HealthIgnored,
    /// Everything better was tried by this request.
    LastResort,
}

impl Choice {
    /// In the order of their discriminants: tables are indexed by them.
    pub(crate) const ALL: [Self; 11] = [
        Self::LeastLoaded,
        Self::InTurn,
        Self::ByHash,
        Self::Sticky,
        Self::HashFull,
        Self::AzFull,
        Self::Trial,
        Self::Panic,
        Self::EjectionIgnored,
        Self::HealthIgnored,
        Self::LastResort,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::LeastLoaded => "least_loaded",
            Self::InTurn => "in_turn",
            Self::ByHash => "by_hash",
            Self::Sticky => "sticky",
            Self::HashFull => "hash_full",
            Self::AzFull => "az_full",
            Self::Trial => "trial",
            Self::Panic => "panic",
            Self::EjectionIgnored => "ejection_ignored",
            Self::HealthIgnored => "health_ignored",
            Self::LastResort => "last_resort",
        }
    }

    /// What the policy does when nothing is the matter.
    pub(crate) const fn is_plain(self) -> bool {
        matches!(
            self,
            Self::LeastLoaded | Self::InTurn | Self::ByHash | Self::Sticky
        )
    }
}

impl Selected {
    /// The attempt goes there.
    pub(crate) fn arrived(&self) {
        let group = &self.account.group;
        group.traffic.arrived(self.arrival);
        if self.has_limit {
            let now = group.millis(self.began);
            group.meter(&self.known).count(now);
        }
    }

    /// The endpoint's answer began.
    pub(crate) fn answered(&self, now: Instant, how: Answered) {
        self.answered.set(true);
        self.account.group.traffic.ended(how == Answered::Well);
        let (now, micros) = self.took(now);
        self.account
            .answered(now, micros, how, self.is_trial(), self);
    }

    /// The attempt failed. `is_fault`: of the endpoint.
    pub(crate) fn failed(&self, now: Instant, is_fault: bool) {
        let (now, took) = self.took(now);
        let has_answered = self.answered.get();
        if is_fault && !has_answered {
            self.account.group.traffic.ended(false);
        }
        let micros = if has_answered { 0.0 } else { took };
        self.account
            .failed(now, micros, is_fault, self.is_trial(), self);
    }

    /// The attempt was given up through no fault of the endpoint: it takes at least so long.
    pub(crate) fn waited(&self, now: Instant) {
        let (now, micros) = self.took(now);
        self.account.waited(now, micros);
    }

    fn is_trial(&self) -> bool {
        self.choice == Choice::Trial
    }

    fn took(&self, now: Instant) -> (u64, f32) {
        let took = now.saturating_duration_since(self.began);
        (self.account.group.millis(now), took.as_secs_f32() * 1e6)
    }
}

impl std::ops::Deref for Selected {
    type Target = Known;

    fn deref(&self) -> &Known {
        &self.known
    }
}

/// Why no endpoint can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoEndpoint {
    /// No region is usable, and the operator wants a refusal then.
    #[error("no region is usable")]
    NoData,
    #[error("the pool has no endpoints")]
    NoMembers,
    /// Host names only, none of which has resolved yet.
    #[error("no endpoint's host name is resolved")]
    Unresolved,
    #[error("every endpoint was tried")]
    AllTried,
    #[error("no region has room")]
    NoRoom,
}

/// The order of trying: the best region's endpoints, then, once [`TRIES_PER_REGION`] of them
/// failed or one took too long, the next region's; at last whatever was not tried yet. A region
/// in which nothing is known to be up waits until those that have something were tried: unlike
/// DNS, which must be sure, a request can take the doubtful region again a moment later.
///
/// A region that was sent as much as its capacity within a second is passed over. Where only such regions are left the
/// attempt is refused if it may be, and goes where it would have gone if not.
pub(crate) fn select(
    world: &Snapshot,
    endpoints: &Endpoints,
    ask: &SelectAsk<'_>,
) -> Result<Selected, NoEndpoint> {
    let selected = look(world, endpoints, ask)?;
    selected.arrived();
    Ok(selected)
}

/// The same for an attempt that may come to nothing: once it begins, [`Selected::arrived`] is to be called.
pub(crate) fn look(
    world: &Snapshot,
    endpoints: &Endpoints,
    ask: &SelectAsk<'_>,
) -> Result<Selected, NoEndpoint> {
    let ranking = rank(&ask.steering(), world);
    let Some(best) = ranking.first() else {
        return Err(match ranking.reason {
            Reason::NoMembers => NoEndpoint::NoMembers,
            _ => NoEndpoint::NoData,
        });
    };
    if ranking.reason == Reason::NoRoom && ask.may_shed && ask.tried.is_empty() {
        endpoints.traffic_of(ask.pool, best).arrived(Arrival::Shed);
        return Err(NoEndpoint::NoRoom);
    }
    let now = endpoints.millis(ask.now);
    let asked = Asked {
        world,
        endpoints,
        ask,
        now,
        full: Cell::default(),
    };
    let choice = asked.with_room(&ranking)?;
    let choice = choice
        .or_else(|| asked.last_resort(&ranking))
        .ok_or_else(|| why_none(world, ask, &ranking))?;
    let known = choice.known;
    let reason = if known.region == best {
        ranking.reason
    } else if ask.tried.is_empty() && !asked.has_room(best) {
        endpoints
            .traffic_of(ask.pool, best)
            .arrived(Arrival::Turned);
        Reason::Spilled { from: best }
    } else {
        Reason::FailedOver { from: best }
    };
    known.account.group.count(choice.why, &known);
    Ok(Selected {
        arrival: arrival(ask, &ranking, known.region),
        has_limit: limit(world, ask.pool, known.region).is_some(),
        known,
        address: choice.address,
        reason,
        choice: choice.why,
        ignored_health: choice.ignored_health,
        began: ask.now,
        answered: Cell::new(false),
    })
}

/// What may be sent to a region within a second.
pub(super) fn limit(world: &Snapshot, pool: PoolId, region: RegionId) -> Option<f64> {
    let (_, health) = world.member(pool, region)?;
    health.room.map(|room| room.limit)
}

/// What a region has room for is reckoned from those who come by the ranking alone.
fn arrival(ask: &SelectAsk<'_>, ranking: &Ranking, region: RegionId) -> Arrival {
    if !ask.tried.is_empty() || ranking.first() != Some(region) {
        Arrival::Extra
    } else if ranking.reason == Reason::NoRoom {
        Arrival::Excess
    } else {
        Arrival::Drawn
    }
}

impl<'a> SelectAsk<'a> {
    pub(crate) fn steering(&self) -> Ask<'a> {
        Ask {
            pool: self.pool,
            policy: self.policy,
            place: self.place,
            key: self.key,
        }
    }

    pub(super) fn was_tried(&self, endpoint: EndpointId) -> bool {
        self.tried.iter().any(|tried| tried.endpoint == endpoint)
    }

    fn tries_in(&self, region: RegionId) -> usize {
        self.tried_in(region).count()
    }

    fn tried_in(&self, region: RegionId) -> impl Iterator<Item = &'a Tried> {
        self.tried
            .iter()
            .filter(move |tried| tried.region == region)
    }

    /// An attempt that timed out has cost the client its patience: a second one in the same
    /// region, which may have lost its network, would cost as much again.
    pub(super) fn has_given_up(&self, region: RegionId) -> bool {
        self.tries_in(region) >= TRIES_PER_REGION
            || self.tried_in(region).any(|tried| tried.timed_out)
    }
}

/// One attempt's question, and all that answers it.
struct Asked<'a> {
    world: &'a Snapshot,
    endpoints: &'a Endpoints,
    ask: &'a SelectAsk<'a>,
    /// In milliseconds.
    now: u64,
    /// A region was passed over because it has been sent as much as it may be.
    full: Cell<bool>,
}

struct Chosen {
    known: Rc<Known>,
    address: SocketAddr,
    why: Choice,
    ignored_health: bool,
}

/// Whom of a region's endpoints an attempt may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Among {
    /// Those that meet the region's standard and are not ejected.
    Open,
    /// Those that meet it.
    Ejected,
    /// Those that the operator does not drain.
    Undrained,
}

type Entries = SmallVec<[Entry; 16]>;

impl Asked<'_> {
    /// As [`Asked::by_ranking`], where there is room.
    fn with_room(&self, ranking: &Ranking) -> Result<Option<Chosen>, NoEndpoint> {
        let chosen = self.by_ranking(ranking, |region| self.has_room(region));
        if chosen.is_some() || !self.full.replace(false) {
            return Ok(chosen);
        }
        if self.ask.may_shed {
            let first = ranking.first().filter(|_| self.ask.tried.is_empty());
            if let Some(first) = first {
                let traffic = self.endpoints.traffic_of(self.ask.pool, first);
                traffic.arrived(Arrival::Shed);
            }
            return Err(NoEndpoint::NoRoom);
        }
        Ok(self.by_ranking(ranking, |_| true))
    }

    fn has_room(&self, region: RegionId) -> bool {
        let Some(limit) = limit(self.world, self.ask.pool, region) else {
            return true;
        };
        let meter = self.endpoints.loads().meter(self.ask.pool, region);
        let has_room = meter.has_room(self.now, limit);
        self.full.set(self.full.get() || !has_room);
        has_room
    }

    /// The first ranked region that is open to the attempt, has a usable endpoint left and is not given up.
    fn by_ranking(&self, ranking: &Ranking, is_open: impl Fn(RegionId) -> bool) -> Option<Chosen> {
        let among = |enough: fn(Standard) -> bool, among: Among| {
            let mut regions = ranking
                .regions()
                .filter(|region| !self.ask.has_given_up(*region));
            regions.find_map(|region| {
                let view = self.view(region)?;
                (enough(view.standard) && is_open(region))
                    .then(|| self.choose(&view, among))
                    .flatten()
            })
        };
        among(|standard| standard == Standard::Up, Among::Open)
            .or_else(|| among(|_| true, Among::Open))
            .or_else(|| {
                self.endpoints
                    .loads()
                    .has_marks()
                    .then(|| among(|_| true, Among::Ejected))
                    .flatten()
            })
    }

    /// Any endpoint that was not tried: of the ranked regions first, then of those that failed. What
    /// the operator drains or moved away stays out.
    fn last_resort(&self, ranking: &Ranking) -> Option<Chosen> {
        let ranked = ranking.regions();
        let failed = self
            .world
            .members(self.ask.pool)
            .filter(|(_, health)| {
                matches!(
                    health.standing,
                    Standing::Out(OutReason::Failed | OutReason::HoldDown { .. })
                )
            })
            .map(|(member, _)| member.region)
            .filter(|region| self.ask.policy.lets(self.ask.place.address, *region));
        ranked.chain(failed).find_map(|region| {
            let view = self.view(region)?;
            self.choose(&view, Among::Undrained)
        })
    }

    fn view(&self, region: RegionId) -> Option<Rc<View>> {
        let (member, _) = self.world.member(self.ask.pool, region)?;
        let Asked {
            world,
            endpoints,
            ask,
            now,
            ..
        } = self;
        Some(endpoints.view(world, member, ask.pool, ask.balance, *now))
    }

    fn choose(&self, view: &View, among: Among) -> Option<Chosen> {
        let has_marks = self.endpoints.loads().has_marks();
        let is_plain = among == Among::Open
            && self.ask.tried.is_empty()
            && !has_marks
            && !view.is_warming(self.now);
        if is_plain {
            let (at, why) = self.pick(view, &view.open, view.local)?;
            return self.chosen(view, at, among, why);
        }
        if among == Among::Open
            && has_marks
            && self.ask.tried.is_empty()
            && let Some(at) = self.trial(view)
        {
            return self.chosen(view, at, among, Choice::Trial);
        }
        let entries = self.entries(view, among, has_marks);
        let elsewhere = self.elsewhere(view, &entries);
        let (entries, local) = if elsewhere.is_empty() {
            let is_local = |entry: &&Entry| view.candidates[entry.at as usize].is_local;
            let local = entries.iter().take_while(is_local).count();
            let is_split = view.local > 0 && local > 0 && local < entries.len();
            (entries, if is_split { local } else { 0 })
        } else {
            (elsewhere, 0)
        };
        let (at, why) = self.pick(view, &entries, local)?;
        self.chosen(view, at, among, why)
    }

    /// Those that this attempt may go to, at their share for now.
    fn entries(&self, view: &View, among: Among, has_marks: bool) -> Entries {
        let (entries, ejected) = self.gather(view, among, has_marks, among == Among::Open);
        if ejected > 0 && self.is_panic(view, entries.len()) {
            return self.gather(view, among, has_marks, false).0;
        }
        entries
    }

    /// And how many were left out for being ejected.
    fn gather(
        &self,
        view: &View,
        among: Among,
        has_marks: bool,
        skip_ejected: bool,
    ) -> (Entries, usize) {
        let mut entries = Entries::new();
        let mut ejected = 0;
        let mut take = |at: u32| {
            let Some(candidate) = view.candidates.get(at as usize) else {
                return;
            };
            if self.ask.was_tried(candidate.known.endpoint) {
                return;
            }
            let mark = if has_marks {
                candidate.known.account.load.mark()
            } else {
                Mark::Plain
            };
            if skip_ejected && mark.is_out() {
                ejected += 1;
                return;
            }
            let weight = view.weight(candidate, self.now, mark);
            entries.push(Entry { at, weight });
        };
        if among == Among::Undrained {
            for (at, candidate) in (0..).zip(&view.candidates) {
                if candidate.verdict != Verdict::Draining {
                    take(at);
                }
            }
        } else {
            view.open.iter().for_each(|entry| take(entry.at));
        }
        (entries, ejected)
    }

    /// Are so few left that the ejected ones are needed?
    #[expect(clippy::cast_precision_loss, reason = "a number of endpoints")]
    fn is_panic(&self, view: &View, left: usize) -> bool {
        self.ask.tried.is_empty()
            && (left as f64) < view.balancing.panic.get() * view.candidates.len() as f64
    }

    /// An ejected endpoint whose time has come.
    fn trial(&self, view: &View) -> Option<usize> {
        let open = view.open.iter().map(|entry| entry.at as usize);
        open.into_iter().find(|at| {
            let load = &view.candidates[*at].known.account.load;
            load.mark().is_out() && load.try_out(self.now, self.ask.repeatable)
        })
    }

    /// Those in an az that no attempt in the region went to yet, if it was tried.
    fn elsewhere(&self, view: &View, entries: &Entries) -> Entries {
        let Some(region) = view.candidates.first().map(|one| one.known.region) else {
            return Entries::new();
        };
        if self.ask.tries_in(region) == 0 {
            return Entries::new();
        }
        let is_elsewhere = |entry: &Entry| {
            let Some(az) = &view.candidates[entry.at as usize].known.az else {
                return false;
            };
            let mut here = self.ask.tried_in(region);
            !here.any(|tried| {
                let endpoint = self.world.topology.endpoint(tried.endpoint);
                endpoint.and_then(|endpoint| endpoint.az.as_ref()) == Some(az)
            })
        };
        entries.iter().copied().filter(is_elsewhere).collect()
    }

    /// The place of one of `entries` among the candidates. `local`: so many of them come first.
    fn pick(&self, view: &View, entries: &[Entry], local: usize) -> Option<(usize, Choice)> {
        let (at, why) = match &view.balancing.policy {
            BalancePolicy::LeastLoaded => self.less_loaded(view, entries, local)?,
            BalancePolicy::RoundRobin => self.in_turn(view, entries, local)?,
            BalancePolicy::RingHash(_) => match self.ask.hash {
                Some(key) => self.by_hash(view, entries, key)?,
                None => self.less_loaded(view, entries, 0)?,
            },
        };
        Some((entries.get(at)?.at as usize, why))
    }

    fn less_loaded(&self, view: &View, entries: &[Entry], local: usize) -> Option<(usize, Choice)> {
        let mut recent = view.group.recent.borrow_mut();
        let mut among = |entries: &[Entry], random: u64| {
            let see = |entry: Entry| self.see(view, entry);
            balance::less_loaded(entries, random, &mut recent, see)
        };
        if local == 0 {
            let picked = among(entries, self.ask.random)?;
            return Some((picked.at, Choice::LeastLoaded));
        }
        let (ours, others) = entries.split_at(local);
        let picked = among(ours, self.ask.random)?;
        if picked.seen.in_flight == 0 {
            return Some((picked.at, Choice::LeastLoaded));
        }
        let other = among(others, self.ask.random.rotate_left(32))?;
        if balance::is_worth_leaving(&picked, &other) {
            return Some((local + other.at, Choice::AzFull));
        }
        Some((picked.at, Choice::LeastLoaded))
    }

    fn in_turn(&self, view: &View, entries: &[Entry], local: usize) -> Option<(usize, Choice)> {
        let turn = |entry: Entry, change: &dyn Fn(i64) -> i64| {
            let account = &view.candidates[entry.at as usize].known.account;
            account.turn.set(change(account.turn.get()));
            account.turn.get()
        };
        if local == 0 {
            return Some((balance::in_turn(entries, turn)?, Choice::InTurn));
        }
        let (ours, others) = entries.split_at(local);
        let at = balance::in_turn(ours, turn)?;
        let seen = self.see(view, ours[at]);
        let mut recent = view.group.recent.borrow_mut();
        if recent.would_be_hot(seen.in_flight) {
            return Some((local + balance::in_turn(others, turn)?, Choice::AzFull));
        }
        Some((at, Choice::InTurn))
    }

    fn by_hash(&self, view: &View, entries: &[Entry], key: u64) -> Option<(usize, Choice)> {
        let in_flight = |entry: Entry| {
            view.candidates[entry.at as usize]
                .known
                .account
                .load
                .in_flight()
        };
        let (counted_at, mut running) = view.group.running.get();
        // The sum needs a look at every endpoint: one in a millisecond is enough.
        if counted_at != self.now || entries.len() <= COUNTED_AT_ONCE {
            running = entries.iter().map(|entry| in_flight(*entry)).sum();
            view.group.running.set((self.now, running));
        }
        let place = view.ring().find(entries, key, running, in_flight)?;
        let why = if place.moved_on {
            Choice::HashFull
        } else {
            Choice::ByHash
        };
        Some((place.at, why))
    }

    fn see(&self, view: &View, entry: Entry) -> Seen {
        let account = &view.candidates[entry.at as usize].known.account;
        Seen {
            in_flight: account.load.in_flight(),
            micros: account.micros(self.now),
        }
    }

    fn chosen(&self, view: &View, at: usize, among: Among, why: Choice) -> Option<Chosen> {
        let candidate = view.candidates.get(at)?;
        let is_well = match among {
            Among::Open | Among::Ejected => {
                view.standard != Standard::None && view.standard.takes(candidate.verdict)
            }
            Among::Undrained => candidate.verdict.is_usable(),
        };
        let why = match among {
            Among::Undrained => Choice::LastResort,
            _ if view.standard == Standard::None => Choice::HealthIgnored,
            Among::Ejected => Choice::EjectionIgnored,
            Among::Open if why == Choice::Trial => why,
            Among::Open if view.panic || candidate.known.account.load.mark().is_out() => {
                Choice::Panic
            }
            Among::Open => why,
        };
        Some(Chosen {
            known: Rc::clone(&candidate.known),
            address: candidate.address(self.ask.random)?,
            why,
            ignored_health: !is_well,
        })
    }
}

/// Endpoints up to which what is in flight is counted anew for each request.
const COUNTED_AT_ONCE: usize = 8;

fn why_none(world: &Snapshot, ask: &SelectAsk<'_>, ranking: &Ranking) -> NoEndpoint {
    if !ask.tried.is_empty() {
        return NoEndpoint::AllTried;
    }
    let mut members = ranking
        .regions()
        .filter_map(|region| world.member(ask.pool, region));
    if members.any(|(member, _)| !member.endpoints.is_empty()) {
        return NoEndpoint::Unresolved;
    }
    NoEndpoint::NoMembers
}

#[cfg(test)]
mod tests;
