//! Sessions that stay with their endpoint, without a table of sessions: the client carries a tag
//! that names its endpoint, or something of its own from which the endpoint is reckoned.
//!
//! A tag is an HMAC (RFC 2104, SHA-256, its first half) of the endpoint's pool, region and name: it
//! tells nobody an address, nobody can make one up, and every node with the same key and the same
//! configuration knows whose it is. Asked by `http::sticky`. Reads no clock, keeps nothing of a
//! client.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::hmac;
use sealane_model::{
    Arrival, Endpoint, EndpointId, Member, OutReason, PoolId, RegionId, Snapshot, Standing,
    Topology, Verdict,
};
use sealane_steering::{Ask, Ranking, Reason, Standard, rank};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::known::Endpoints;
use super::select::{Choice, SelectAsk, Selected, limit};
use super::view::{Candidate, View};
use crate::config::StickyKey;

/// Bytes of a tag: 128 bits of it cannot be guessed.
pub(crate) const TAG_BYTES: usize = 16;

pub(crate) type Tag = [u8; TAG_BYTES];

/// What tags mean to one route. Reckoned anew when the topology changes; asking needs no lock.
pub(crate) struct Tags {
    /// The first one makes tags, all of them are honoured.
    keys: Vec<hmac::Key>,
    /// Whose endpoints serve the route.
    pools: Vec<PoolId>,
    of_topology: ArcSwapOption<OfTopology>,
}

/// One entry for each endpoint of the pools, and key.
struct OfTopology {
    topology: Arc<Topology>,
    endpoints: HashMap<Tag, Named>,
}

/// Whom a tag names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) endpoint: EndpointId,
    /// It was made with a key that makes none any more.
    pub(crate) is_old: bool,
}

impl Tags {
    pub(crate) fn new(keys: &[StickyKey], pools: Vec<PoolId>) -> Self {
        let key = |key: &StickyKey| hmac::Key::new(hmac::HMAC_SHA256, key.secret());
        Self {
            keys: keys.iter().map(key).collect(),
            pools,
            of_topology: ArcSwapOption::empty(),
        }
    }

    /// Whose tag this is. `None`: nobody's that is known here.
    pub(crate) fn named(&self, tag: &Tag, topology: &Arc<Topology>) -> Option<Named> {
        let known = self.of_topology.load();
        if let Some(known) = known.as_ref().filter(|known| known.is_of(topology)) {
            return known.endpoints.get(tag).copied();
        }
        // Several workers may do so at once; all find the same.
        let found = self.all(topology);
        let named = found.endpoints.get(tag).copied();
        self.of_topology.store(Some(Arc::new(found)));
        named
    }

    fn all(&self, topology: &Arc<Topology>) -> OfTopology {
        let mut endpoints = HashMap::new();
        let all = topology.endpoints();
        for endpoint in all.filter(|endpoint| self.pools.contains(&endpoint.pool)) {
            for (at, key) in self.keys.iter().enumerate() {
                let named = Named {
                    endpoint: endpoint.id,
                    is_old: at > 0,
                };
                // The same key may be listed twice: then the first place counts.
                let tag = tag_of(key, endpoint, topology);
                endpoints.entry(tag).or_insert(named);
            }
        }
        OfTopology {
            topology: Arc::clone(topology),
            endpoints,
        }
    }

    /// What a client of this endpoint is to carry.
    pub(crate) fn tag(&self, endpoint: EndpointId, topology: &Topology) -> Option<Tag> {
        let endpoint = topology.endpoint(endpoint)?;
        Some(tag_of(self.keys.first()?, endpoint, topology))
    }
}

impl OfTopology {
    fn is_of(&self, topology: &Arc<Topology>) -> bool {
        Arc::ptr_eq(&self.topology, topology)
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tags").finish_non_exhaustive()
    }
}

fn tag_of(key: &hmac::Key, endpoint: &Endpoint, topology: &Topology) -> Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(b"sealane sticky 1");
    let pool = topology.pool(endpoint.pool).map_or("", |pool| &*pool.name);
    let region = topology.region_name(endpoint.region);
    for part in [pool, region, &*endpoint.name] {
        // Names hold no zeros.
        context.update(b"\0");
        context.update(part.as_bytes());
    }
    let mut tag = [0; TAG_BYTES];
    let signed = context.sign();
    tag.iter_mut()
        .zip(signed.as_ref())
        .for_each(|(tag, byte)| *tag = *byte);
    tag
}

/// Where a session belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// There; and where that cannot be, wherever this number leads to.
    Endpoint(EndpointId, u64),
    Key(u64),
}

impl Home {
    pub(crate) const fn endpoint(self) -> Option<EndpointId> {
        match self {
            Self::Endpoint(endpoint, _) => Some(endpoint),
            Self::Key(_) => None,
        }
    }

    const fn key(self) -> u64 {
        match self {
            Self::Endpoint(_, key) | Self::Key(key) => key,
        }
    }
}

/// The endpoint of the session, or while it cannot have that one another, the same for each of its
/// requests. `None`: nothing is left. Once the attempt begins, [`Selected::arrived`] is to be called.
pub(crate) fn stay(
    world: &Snapshot,
    endpoints: &Endpoints,
    ask: &SelectAsk<'_>,
    home: Home,
) -> Option<Selected> {
    let asked = Asked::new(world, endpoints, ask, home);
    let there = (asked.at_home())
        .or_else(|| asked.beside())
        .or_else(|| asked.by_ranking())?;
    asked.selected(&there)
}

/// The region of [`stay`], without a look at single endpoints.
pub(crate) fn region(
    world: &Snapshot,
    endpoints: &Endpoints,
    ask: &SelectAsk<'_>,
    home: Home,
) -> Option<RegionId> {
    let asked = Asked::new(world, endpoints, ask, home);
    let home = asked.home_region();
    let home = home.filter(|(_, view)| view.standard != Standard::None);
    home.map(|(member, _)| member.region)
        .or_else(|| asked.ranking().first())
}

/// One attempt's question, and all that answers it.
struct Asked<'a> {
    world: &'a Snapshot,
    endpoints: &'a Endpoints,
    ask: &'a SelectAsk<'a>,
    home: Home,
    /// In milliseconds.
    now: u64,
}

/// Where it goes.
struct There {
    view: Rc<View>,
    /// Of its candidates.
    at: usize,
    choice: Choice,
    reason: Reason,
}

impl<'a> Asked<'a> {
    fn new(
        world: &'a Snapshot,
        endpoints: &'a Endpoints,
        ask: &'a SelectAsk<'a>,
        home: Home,
    ) -> Self {
        let now = endpoints.millis(ask.now);
        Self {
            world,
            endpoints,
            ask,
            home,
            now,
        }
    }

    fn view(&self, member: &Member) -> Rc<View> {
        let Self {
            world,
            endpoints,
            ask,
            ..
        } = self;
        endpoints.view(world, member, ask.pool, ask.balance, self.now)
    }

    /// The session's region, if that serves at all. One that is drained keeps the sessions it has: they
    /// end by themselves.
    fn home_region(&self) -> Option<(&'a Member, Rc<View>)> {
        let endpoint = self.world.topology.endpoint(self.home.endpoint()?)?;
        if endpoint.pool != self.ask.pool {
            return None;
        }
        let (member, health) = self.world.member(self.ask.pool, endpoint.region)?;
        // A rule on clients holds for sessions from before it too.
        let lets = |region| self.ask.policy.lets(self.ask.place.address, region);
        let serves = matches!(
            health.standing,
            Standing::In | Standing::Out(OutReason::Draining)
        );
        (serves && lets(member.region)).then(|| (member, self.view(member)))
    }

    /// At the endpoint itself, be it drained.
    fn at_home(&self) -> Option<There> {
        let home = self.home.endpoint()?;
        let (_, view) = self.home_region()?;
        let mut candidates = view.candidates.iter();
        let at = candidates.position(|candidate| candidate.known.endpoint == home)?;
        let verdict = view.candidates[at].verdict;
        if self.ask.was_tried(home) || !(verdict.is_usable() || verdict == Verdict::Draining) {
            return None;
        }
        let choice = if !self.is_out(&view, at) {
            Choice::Sticky
        } else if self.may_try(&view, at) {
            Choice::Trial
        } else {
            return None;
        };
        Some(There {
            view,
            at,
            choice,
            reason: Reason::Pinned,
        })
    }

    /// In the same region, if that takes new work.
    fn beside(&self) -> Option<There> {
        let (member, view) = self.home_region()?;
        let (_, health) = self.world.member(self.ask.pool, member.region)?;
        let serves = health.standing == Standing::In
            && view.standard != Standard::None
            && !self.ask.has_given_up(member.region);
        let (at, choice) = serves.then(|| self.pick(&view)).flatten()?;
        Some(There {
            view,
            at,
            choice,
            reason: Reason::Pinned,
        })
    }

    /// Region by region, as the ranking has it for this key; those last in which all are down.
    fn by_ranking(&self) -> Option<There> {
        let ranking = self.ranking();
        let best = ranking.first()?;
        let among = |enough: fn(Standard) -> bool| {
            let mut regions = ranking
                .regions()
                .filter(|region| !self.ask.has_given_up(*region));
            regions.find_map(|region| {
                let (member, _) = self.world.member(self.ask.pool, region)?;
                let view = self.view(member);
                let picked = enough(view.standard).then(|| self.pick(&view)).flatten();
                let (at, choice) = picked?;
                let reason = if region == best {
                    ranking.reason
                } else {
                    Reason::FailedOver { from: best }
                };
                Some(There {
                    view,
                    at,
                    choice,
                    reason,
                })
            })
        };
        among(|standard| standard != Standard::None).or_else(|| among(|_| true))
    }

    fn ranking(&self) -> Ranking {
        let ask = Ask {
            key: self.home.key(),
            ..self.ask.steering()
        };
        rank(&ask, self.world)
    }

    /// The key's endpoint in one region. One that is ejected gets a request of its own as its trial.
    fn pick(&self, view: &View) -> Option<(usize, Choice)> {
        let first = self.heaviest(view, true)?;
        if view.standard == Standard::None {
            return Some((first, Choice::HealthIgnored));
        }
        if !self.is_out(view, first) {
            return Some((first, Choice::Sticky));
        }
        if self.may_try(view, first) {
            return Some((first, Choice::Trial));
        }
        let other = self.heaviest(view, false).map(|at| (at, Choice::Sticky));
        other.or(Some((first, Choice::EjectionIgnored)))
    }

    fn heaviest(&self, view: &View, with_ejected: bool) -> Option<usize> {
        let open = view.open.iter().map(|entry| entry.at as usize);
        let may = |at: &usize| {
            !self.ask.was_tried(view.candidates[*at].known.endpoint)
                && (with_ejected || !self.is_out(view, *at))
        };
        let weighed = open
            .filter(may)
            .map(|at| (at, self.score(&view.candidates[at])));
        let heaviest = weighed.max_by(|(_, one), (_, other)| one.total_cmp(other));
        heaviest.map(|(at, _)| at)
    }

    /// Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights as Schindler and Wang have
    /// them): who leaves takes nobody along, and who comes takes its share alone. By the endpoint's
    /// name: all nodes find the same. The session's own endpoint comes first, where all are down.
    fn score(&self, candidate: &Candidate) -> f64 {
        if self.home.endpoint() == Some(candidate.known.endpoint) {
            return f64::INFINITY;
        }
        let hash = xxh3_64_with_seed(candidate.known.name.as_bytes(), self.home.key());
        // Never 0 or 1, of both of which a logarithm is of no use.
        let uniform = ((hash >> 12) as f64 + 0.5) / 2_f64.powi(52);
        f64::from(candidate.weight()) / -uniform.ln()
    }

    fn is_out(&self, view: &View, at: usize) -> bool {
        self.endpoints.loads().has_marks() && view.candidates[at].known.account.load.mark().is_out()
    }

    /// Whether this request is the trial of an ejected endpoint.
    fn may_try(&self, view: &View, at: usize) -> bool {
        let load = &view.candidates[at].known.account.load;
        self.ask.tried.is_empty() && load.try_out(self.now, self.ask.repeatable)
    }

    fn selected(&self, there: &There) -> Option<Selected> {
        let candidate = there.view.candidates.get(there.at)?;
        let known = Rc::clone(&candidate.known);
        let group = &known.account.group;
        group.count(there.choice, &known);
        let (pool, region) = (self.ask.pool, known.region);
        Some(Selected {
            arrival: arrival(self.ask, there.reason),
            has_limit: limit(self.world, pool, region).is_some(),
            known,
            address: candidate.address(self.ask.random)?,
            reason: there.reason,
            choice: there.choice,
            ignored_health: there.view.standard == Standard::None,
            began: self.ask.now,
            answered: Cell::new(false),
        })
    }
}

/// Whoever stays comes whatever the room, and is not refused for want of it.
fn arrival(ask: &SelectAsk<'_>, reason: Reason) -> Arrival {
    match reason {
        Reason::Pinned | Reason::FailedOver { .. } => Arrival::Extra,
        _ if !ask.tried.is_empty() => Arrival::Extra,
        Reason::NoRoom => Arrival::Excess,
        _ => Arrival::Drawn,
    }
}

#[cfg(test)]
mod tests;
