//! How often a client, a tenant, or all of a route may ask; and what clients are told of it.
//!
//! Asked by [`super::exchange`] before anything else is spent on a request. The counting is in
//! [`crate::upstream::rate`] and [`crate::upstream::rates`]. What clients are told has the form of draft-ietf-httpapi-ratelimit-headers-10:
//! `RateLimit-Policy` has every rule of the route, `RateLimit` the one that is nearest to its end.

use std::time::Instant;

use super::context::RequestContext;
use super::fields::Fields;
use super::overload::with_tenant;
use super::refuse::Refusal;
use super::route::RouteState;
use crate::config::RateKey;
use crate::upstream::rate::Quota;
use crate::upstream::rates::{RateState, network, seconds};

/// The rule that is nearest to its end, for the client to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nearest {
    rule: usize,
    quota: Quota,
}

/// Counts a request against every rule of its route.
///
/// # Errors
/// [`Refusal::RateLimited`]: one of them has none left. Those before it have counted the request.
pub(crate) fn check(route: &RouteState, request: &mut RequestContext) -> Result<(), Refusal> {
    let now = request.started.into_std();
    for (at, state) in route.rates.rules.iter().enumerate() {
        if let Some(adaptive) = &state.adaptive {
            adaptive.look(now, &state.table);
        }
        match take(state, request, now) {
            Ok(quota) => {
                let share = |quota: &Quota, at: usize| {
                    let rule = &route.rates.rules[at].rule;
                    f64::from(quota.left) / f64::from(rule.burst)
                };
                let nearest = request.nearest.as_ref();
                if nearest.is_none_or(|n| share(&quota, at) < share(&n.quota, n.rule)) {
                    request.nearest = Some(Nearest { rule: at, quota });
                }
            }
            Err(quota) => {
                state.limited.increment(1);
                request.nearest = Some(Nearest { rule: at, quota });
                let after = quota.next_in;
                return Err(Refusal::RateLimited { after });
            }
        }
    }
    Ok(())
}

/// Tells a client how much it has left.
pub(crate) fn tell(fields: &mut Fields, route: &RouteState, nearest: &Nearest) {
    let Some(state) = route.rates.rules.get(nearest.rule) else {
        return; // the rules are those that it was counted by
    };
    fields.insert("ratelimit-policy", route.rates.policy.as_bytes());
    let Quota { left, full_in, .. } = nearest.quota;
    let limit = format!("\"{}\";r={left};t={}", state.rule.name, seconds(full_in));
    fields.insert("ratelimit", limit.as_bytes());
}

fn take(state: &RateState, request: &RequestContext, now: Instant) -> Result<Quota, Quota> {
    match &state.rule.key {
        RateKey::Route => state.table.take((), now),
        RateKey::Client => state.table.take(network(request.place.address), now),
        RateKey::Tenant(key) => with_tenant(key, request, |tenant| state.table.take(tenant, now)),
        RateKey::Header(name) => {
            let value = request.head.fields.get(name.as_str());
            state.table.take(value.unwrap_or_default(), now)
        }
    }
}
