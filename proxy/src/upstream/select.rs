//! Which endpoint serves this attempt: first the region, then one endpoint in it.
//!
//! Called once per attempt. Reads one [`Snapshot`] and the endpoints' loads; writes nothing, never
//! waits. How regions are ordered is not decided here: see [`sealane_steering::rank`].

use std::net::SocketAddr;
use std::rc::Rc;

use sealane_model::{
    Endpoint, EndpointId, Member, OutReason, PoolId, RegionId, Snapshot, Standing, Target, Verdict,
    Weight,
};
use sealane_steering::{Ask, ClientPlace, Ranking, Reason, Standard, SteeringPolicy, rank};
use smallvec::SmallVec;

use super::balance;
use super::known::{Endpoints, Known};

/// Failed attempts in one region after which the next region of the ranking is tried: two failed
/// endpoints say more about the region than about themselves.
pub(crate) const TRIES_PER_REGION: usize = 2;

/// What an attempt's choice depends on besides the world and the loads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SelectAsk<'a> {
    pub(crate) pool: PoolId,
    pub(crate) policy: &'a SteeringPolicy,
    pub(crate) place: &'a ClientPlace,
    /// The same for all attempts of one request, so that they see the same ranking.
    pub(crate) key: u64,
    /// A fresh one for each attempt.
    pub(crate) random: u64,
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
    pub(crate) reason: Reason,
    /// No endpoint of the region is well: one was chosen all the same.
    pub(crate) ignored_health: bool,
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
}

/// The order of trying: the best region's endpoints, then, once [`TRIES_PER_REGION`] of them
/// failed or one took too long, the next region's; at last whatever was not tried yet. A region
/// in which nothing is known to be up waits until those that have something were tried: unlike
/// DNS, which must be sure, a request can take the doubtful region again a moment later.
pub(crate) fn select(
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
    let choice = by_ranking(world, endpoints, ask, &ranking)
        .or_else(|| last_resort(world, endpoints, ask, &ranking))
        .ok_or_else(|| why_none(world, ask, &ranking))?;
    let reason = if choice.endpoint.region == best {
        ranking.reason
    } else {
        Reason::FailedOver { from: best }
    };
    Ok(Selected {
        known: endpoints.known(world, choice.endpoint),
        address: choice.address,
        reason,
        ignored_health: choice.ignored_health,
    })
}

impl<'a> SelectAsk<'a> {
    fn steering(&self) -> Ask<'a> {
        Ask {
            pool: self.pool,
            policy: self.policy,
            place: self.place,
            key: self.key,
        }
    }

    fn was_tried(&self, endpoint: EndpointId) -> bool {
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
    fn has_given_up(&self, region: RegionId) -> bool {
        self.tries_in(region) >= TRIES_PER_REGION
            || self.tried_in(region).any(|tried| tried.timed_out)
    }
}

/// The first ranked region that has a usable endpoint left and is not given up.
fn by_ranking<'w>(
    world: &'w Snapshot,
    endpoints: &Endpoints,
    ask: &SelectAsk<'_>,
    ranking: &Ranking,
) -> Option<Choice<'w>> {
    let among = |enough: fn(Standard) -> bool| {
        let mut regions = ranking
            .regions()
            .filter(|region| !ask.has_given_up(*region));
        regions.find_map(|region| {
            let (member, _) = world.member(ask.pool, region)?;
            let standard = Standard::of(member, world);
            if !enough(standard) {
                return None;
            }
            let usable = |verdict| standard.takes(verdict);
            let choice = choose(world, endpoints, ask, member, usable)?;
            Some(Choice {
                ignored_health: standard == Standard::None,
                ..choice
            })
        })
    };
    among(|standard| standard == Standard::Up).or_else(|| among(|_| true))
}

/// Any endpoint that was not tried: of the ranked regions first, then of those that failed. What
/// the operator drains or moved away stays out.
fn last_resort<'w>(
    world: &'w Snapshot,
    endpoints: &Endpoints,
    ask: &SelectAsk<'_>,
    ranking: &Ranking,
) -> Option<Choice<'w>> {
    let ranked = ranking.regions();
    let failed = world
        .members(ask.pool)
        .filter(|(_, health)| {
            matches!(
                health.standing,
                Standing::Out(OutReason::Failed | OutReason::HoldDown { .. })
            )
        })
        .map(|(member, _)| member.region);
    ranked.chain(failed).find_map(|region| {
        let (member, _) = world.member(ask.pool, region)?;
        let undrained = |verdict| verdict != Verdict::Draining;
        let choice = choose(world, endpoints, ask, member, undrained)?;
        Some(Choice {
            ignored_health: !world.verdict(choice.endpoint.id).is_usable(),
            ..choice
        })
    })
}

struct Choice<'w> {
    endpoint: &'w Endpoint,
    address: SocketAddr,
    ignored_health: bool,
}

/// One of the region's endpoints that `may` be given work by their verdict: not tried, with an address, and if possible in an az that no attempt
/// went to yet.
fn choose<'w>(
    world: &'w Snapshot,
    endpoints: &Endpoints,
    ask: &SelectAsk<'_>,
    member: &Member,
    may: impl Fn(Verdict) -> bool,
) -> Option<Choice<'w>> {
    let again = ask.tries_in(member.region) > 0;
    let mut open: Candidates = SmallVec::new();
    let mut elsewhere: Candidates = SmallVec::new();
    for id in &member.endpoints {
        let Some(endpoint) = world.topology.endpoint(*id) else {
            continue;
        };
        if !may(world.verdict(*id)) || ask.was_tried(*id) || !has_address(world, endpoint) {
            continue;
        }
        open.push((*id, endpoint.weight));
        if again && is_elsewhere(world, ask, endpoint) {
            elsewhere.push((*id, endpoint.weight));
        }
    }
    let candidates = if elsewhere.is_empty() {
        &open
    } else {
        &elsewhere
    };
    let picked = balance::pick(candidates, ask.random, |id| endpoints.in_flight(id))?;
    let endpoint = world.topology.endpoint(picked)?;
    Some(Choice {
        endpoint,
        address: address(world, endpoint, ask.random)?,
        ignored_health: false,
    })
}

type Candidates = SmallVec<[(EndpointId, Weight); 16]>;

/// Its az is known, and no attempt in its region went there.
fn is_elsewhere(world: &Snapshot, ask: &SelectAsk<'_>, endpoint: &Endpoint) -> bool {
    let Some(az) = &endpoint.az else {
        return false;
    };
    let here = ask.tried_in(endpoint.region);
    let mut azs = here.filter_map(|tried| world.topology.endpoint(tried.endpoint)?.az.as_ref());
    !azs.any(|tried| tried == az)
}

fn has_address(world: &Snapshot, endpoint: &Endpoint) -> bool {
    address(world, endpoint, 0).is_some()
}

/// One of the addresses that it has now. A literal address needs no word from control.
fn address(world: &Snapshot, endpoint: &Endpoint, random: u64) -> Option<SocketAddr> {
    let known = world
        .endpoint(endpoint.id)
        .map_or(&[][..], |health| &health.addresses);
    if known.is_empty() {
        return match endpoint.target {
            Target::Address(address) => Some(address),
            Target::Host { .. } => None,
        };
    }
    // The high half: the low one took part in picking the endpoint.
    let at = (random >> 32) % known.len() as u64;
    known.get(usize::try_from(at).ok()?).copied()
}

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
