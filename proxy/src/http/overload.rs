//! Places for a request, from its tenant's to those of its pool in one region; and who is refused when
//! there are not enough.
//!
//! `tenant → route → pool → region`, called by [`super::exchange`] between routing and attempts. Each
//! bound that is not configured costs a branch. The places of tenant, route and pool are held to
//! the end of the exchange; the one in the region until the answer's head is there: what follows goes
//! by the client's speed, and tunnels and event streams last for as long as they like.
//!
//! Bounds themselves are in [`crate::upstream`]: `gate`, `adaptive`, `pools`, `route`, `tenants`.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use metrics::{SharedString, counter};
use sealane_model::{PoolId, RegionId, Snapshot};
use sealane_steering::rank;
use tokio::time::Instant;

use super::attempt::{self, Answer, Stop};
use super::context::{Inbound, RequestContext};
use super::fields::{Fields, Known};
use super::refuse::Refusal;
use super::relay::Upload;
use super::route::{HOST_MAX, RouteState, plain};
use super::{split, sticky};
use crate::config::{Destination, TenantKey, Tier};
use crate::upstream::concurrency::{crowding, threshold};
use crate::upstream::gate::{Entry, Left, Place, Turn};
use crate::upstream::pools::{PoolGate, RegionGate};
use crate::upstream::route::Shed;
use crate::upstream::tenants::TenantPlace;
use crate::{busy, clock, random};

/// When a client that was refused may come back, at the earliest and at the latest: a moment of its
/// own for each, so that they don't come together.
const BACK_AFTER: Duration = Duration::from_millis(500);
const BACK_BEFORE: Duration = Duration::from_millis(2_000);

/// Whether an answer says no more than that its sender is overloaded: it is no fault of the endpoint,
/// and asking another one would not help.
pub(crate) fn is_overload_mark(status: StatusCode, fields: &Fields) -> bool {
    status == StatusCode::SERVICE_UNAVAILABLE
        && (fields.contains(Known::RetryAfter)
            || fields
                .get(Known::XSealaneRefusal)
                .is_some_and(Shed::is_word))
}

/// What one request holds. Dropping it gives all of it back.
#[derive(Debug, Default)]
pub(crate) struct Places {
    tenant: Option<TenantPlace>,
    route: Option<Place>,
    pool: Option<Place>,
    region: Option<InRegion>,
}

#[derive(Debug)]
struct InRegion {
    gate: Arc<RegionGate>,
    place: Place,
    since: Instant,
}

/// What is asked for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Tenant,
    Pool,
    Region,
}

/// Gets a request all of its places, or none.
///
/// # Errors
/// [`Refusal::Shed`]: there are not enough.
pub(crate) async fn enter(
    route: &RouteState,
    request: &mut RequestContext,
    inbound: &Inbound,
) -> Result<Places, Refusal> {
    request.tier = tier(route, request);
    let mut places = Places::default();
    let mut step = Step::Tenant;
    loop {
        let asked = ask(&mut places, step, route, request, inbound);
        let Some((at, turn)) = asked.map_err(|shed| refuse(shed, route, request))? else {
            return Ok(places);
        };
        let since = clock::now();
        // Seldom, and never on the way of those who find a place.
        let came = Box::pin(turn.come()).await;
        let waited = clock::now().duration_since(since);
        if let Some(waits) = &route.places.waits {
            waits.record(waited);
        }
        match (came, at) {
            (Ok(place), Waits::Route) => (places.route, step) = (Some(place), Step::Pool),
            (Ok(place), Waits::Pool) => (places.pool, step) = (Some(place), Step::Region),
            (Ok(place), Waits::Region(gate)) => {
                let since = clock::now();
                places.region = Some(InRegion { gate, place, since });
                return Ok(places);
            }
            (Err(Left::TooLong | Left::MadeWay), at) => {
                let shed = match at {
                    Waits::Route => Shed::RouteWaited,
                    Waits::Pool => Shed::PoolWaited,
                    Waits::Region(_) => Shed::RegionWaited,
                };
                return Err(refuse(shed, route, request));
            }
        }
    }
}

/// Where a request waits.
enum Waits {
    Route,
    Pool,
    Region(Arc<RegionGate>),
}

/// All steps from this one on, until one must be waited for. `None`: it has all.
fn ask(
    places: &mut Places,
    from: Step,
    route: &RouteState,
    request: &RequestContext,
    inbound: &Inbound,
) -> Result<Option<(Waits, Turn)>, Shed> {
    let (tier, deadline) = (request.tier, request.deadline);
    if from == Step::Tenant
        && let Some(tenants) = &route.places.tenants
        && let Some(key) = &route.rule.options.limits.tenant
    {
        let place = with_tenant(key, request, |tenant| tenants.enter(tenant));
        places.tenant = Some(place.ok_or(Shed::Tenant)?);
    }
    if from == Step::Tenant
        && let Some(gate) = &route.places.gate
    {
        match gate.enter(tier, deadline) {
            Entry::In(place) => places.route = Some(place),
            Entry::Wait(turn) => return Ok(Some((Waits::Route, turn))),
            Entry::Full => return Err(Shed::Route),
        }
    }
    let Some(to) = split::destination(route, request) else {
        return Ok(None);
    };
    let shared = &inbound.worker.shared;
    let Some(gates) = shared.gates.get(to.pool) else {
        return Ok(None);
    };
    let Some(pool) = gates.as_deref() else {
        return Ok(None);
    };
    if from != Step::Region
        && let Some(gate) = &pool.bulkhead
    {
        match gate.enter(tier, deadline) {
            Entry::In(place) => places.pool = Some(place),
            Entry::Wait(turn) => return Ok(Some((Waits::Pool, turn))),
            Entry::Full => return Err(Shed::Pool),
        }
    }
    if !pool.has_regions() {
        return Ok(None);
    }
    ask_region(places, pool, to, request, inbound)
}

fn ask_region(
    places: &mut Places,
    pool: &PoolGate,
    to: &Destination,
    request: &RequestContext,
    inbound: &Inbound,
) -> Result<Option<(Waits, Turn)>, Shed> {
    let (tier, deadline) = (request.tier, request.deadline);
    let (world, since) = (inbound.worker.shared.world.load(), clock::now());
    let Some(region) = first_region(to, request, inbound, &world, since) else {
        return Ok(None); // that there is nobody is for the attempt to say
    };
    let name = world.topology.region_name(region);
    let Some(gate) = pool.region(region, name) else {
        return Ok(None);
    };
    if tier != Tier::First
        && pool.is_adaptive()
        && tier.priority() > threshold(crowding(busy::permille(since), 1_000))
    {
        return Err(Shed::Busy);
    }
    match gate.places.gate.enter(tier, deadline) {
        Entry::In(place) => {
            let gate = Arc::clone(gate);
            places.region = Some(InRegion { gate, place, since });
            Ok(None)
        }
        Entry::Wait(turn) => {
            gate.places.crowded();
            Ok(Some((Waits::Region(Arc::clone(gate)), turn)))
        }
        Entry::Full => {
            gate.places.crowded();
            Err(Shed::Region)
        }
    }
}

/// Where the first attempt will go. Further ones, which may go elsewhere, are few and bounded by the
/// budget.
fn first_region(
    to: &Destination,
    request: &RequestContext,
    inbound: &Inbound,
    world: &Snapshot,
    now: Instant,
) -> Option<RegionId> {
    if let Some(only) = only_region(to.pool, world) {
        return Some(only);
    }
    let ask = attempt::ask_for(to, request, now);
    sticky::region(request, inbound, world, &ask).or_else(|| rank(&ask.steering(), world).first())
}

fn only_region(pool: PoolId, world: &Snapshot) -> Option<RegionId> {
    let mut members = world.members(pool);
    let (only, _) = members.next()?;
    members.next().is_none().then_some(only.region)
}

/// The route's, unless a trusted peer says another.
fn tier(route: &RouteState, request: &RequestContext) -> Tier {
    let own = route.rule.options.limits.tier;
    if !request.trusted_peer {
        return own;
    }
    let said = request.rules.config.bounds.tier_header.as_ref();
    let said = said.and_then(|name| request.head.fields.get(name.as_str()));
    let number = said.and_then(|said| std::str::from_utf8(said).ok()?.trim().parse().ok());
    number.and_then(Tier::new).unwrap_or(own)
}

/// Whom a request counts for; nothing where it does not say: all of those count together.
pub(crate) fn with_tenant<T>(
    key: &TenantKey,
    request: &RequestContext,
    use_it: impl FnOnce(&[u8]) -> T,
) -> T {
    match key {
        TenantKey::Host => use_it(plain(request.head.host(), &mut [0; HOST_MAX]).as_bytes()),
        TenantKey::Header(name) => {
            let value = request.head.fields.get(name.as_str());
            use_it(value.unwrap_or_default())
        }
    }
}

pub(super) fn refuse(shed: Shed, route: &RouteState, request: &RequestContext) -> Refusal {
    counter!(
        "proxy_shed_total",
        "route" => SharedString::from(Arc::clone(&route.places.route)),
        "tier" => request.tier.as_str(),
        "why" => shed.as_str()
    )
    .increment(1);
    route.rates.note_shed();
    let spread = (BACK_BEFORE - BACK_AFTER).as_secs_f64();
    let share = (random::number() >> 40) as f64 / (1_u64 << 24) as f64;
    let after = BACK_AFTER + Duration::from_secs_f64(spread * share);
    Refusal::Shed { shed, after }
}

impl Places {
    /// The attempts have ended: gives the place in the region back, and tells what was seen.
    pub(crate) fn answered(
        &mut self,
        answered: &Result<Box<Answer>, Stop>,
        request: &RequestContext,
        upload: &Upload,
        route: &RouteState,
    ) {
        if self.region.is_none() && !route.rates.is_adaptive() {
            return;
        }
        let now = clock::now();
        let since = |since: Instant| {
            // What the client took for its body is not the endpoint's time.
            let began = upload
                .arrived_at()
                .map_or(since, |arrived| arrived.max(since));
            now.saturating_duration_since(began)
        };
        if let Ok(answer) = answered
            && !is_overload_mark(answer.head.status, &answer.head.fields)
        {
            route
                .rates
                .note_answer(since(request.started), now.into_std());
        }
        let Some(held) = self.region.take() else {
            return;
        };
        let Ok(answer) = answered else { return };
        let load = held.place.load;
        if is_overload_mark(answer.head.status, &answer.head.fields) {
            held.gate.places.overloaded(load, now.into_std());
        } else if !answer.head.status.is_server_error() && request.attempts == 1 {
            // A failure says how long failing takes, a second attempt how long the first one was waited for.
            let latency = since(held.since);
            held.gate.places.answered(latency, load, now.into_std());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append(*name, value.as_bytes());
        }
        fields
    }

    #[test]
    fn an_endpoint_that_asks_for_patience_is_overloaded() {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let is_mark = |lines| is_overload_mark(unavailable, &fields(lines));
        assert!(is_mark(&[("retry-after", "1")]));
        assert!(is_mark(&[("x-sealane-refusal", "overloaded")]));
        assert!(is_mark(&[("x-sealane-refusal", "pool_full")]));
        assert!(!is_mark(&[("x-sealane-refusal", "empty_pool")]));
        assert!(!is_mark(&[]));
        let failed = StatusCode::INTERNAL_SERVER_ERROR;
        assert!(!is_overload_mark(failed, &fields(&[("retry-after", "1")])));
    }
}
