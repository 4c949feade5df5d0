//! What bounds one route: its places, and how many each of its tenants may have.
//!
//! Shared by all workers, asked by `http::overload`, kept over reloads by the route's name. Knows no
//! request.

use std::sync::Arc;

use metrics::{Histogram, SharedString, histogram};

use super::gate::Gate;
use super::pools::{Gauges, keep_gate};
use super::tenants::Tenants;
use crate::config::{Action, Route};

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shed {
    /// The endpoints of the region bear no more, and what matters more goes first.
    Region,
    /// It waited for a place in the region, and none came.
    RegionWaited,
    Pool,
    PoolWaited,
    Route,
    RouteWaited,
    Tenant,
    /// This worker has no time left.
    Busy,
    /// More has come than all regions may be sent.
    NoRoom,
}

impl Shed {
    /// The word in metrics, logs and `x-sealane-refusal`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Region => "overloaded",
            Self::RegionWaited => "overloaded_waited",
            Self::Pool => "pool_full",
            Self::PoolWaited => "pool_full_waited",
            Self::Route => "route_full",
            Self::RouteWaited => "route_full_waited",
            Self::Tenant => "tenant_full",
            Self::Busy => "overloaded_cpu",
            Self::NoRoom => "no_room",
        }
    }

    /// Whether another Sealane says that it has no place.
    pub(crate) fn is_word(word: &[u8]) -> bool {
        Self::ALL
            .iter()
            .any(|shed| shed.as_str().as_bytes() == word)
    }

    pub(crate) const ALL: [Self; 9] = [
        Self::Region,
        Self::RegionWaited,
        Self::Pool,
        Self::PoolWaited,
        Self::Route,
        Self::RouteWaited,
        Self::Tenant,
        Self::Busy,
        Self::NoRoom,
    ];
}

/// What bounds one route; shared by all workers, kept over reloads by the route's name.
#[derive(Debug)]
pub(crate) struct RoutePlaces {
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) tenants: Option<Arc<Tenants>>,
    pub(crate) route: Arc<str>,
    shown: Option<Gauges>,
    pub(crate) waits: Option<Histogram>,
}

impl RoutePlaces {
    pub(crate) fn new(rule: &Route, old: Option<&Self>) -> Self {
        let limits = &rule.options.limits;
        let kept = old.and_then(|old| old.gate.as_ref());
        let gate = keep_gate(limits.bulkhead.as_ref(), kept);
        let kept = old.and_then(|old| old.tenants.as_ref());
        let tenants = limits.per_tenant.map(|max| match kept {
            Some(kept) => {
                kept.set_max(max);
                Arc::clone(kept)
            }
            None => Tenants::new(max),
        });
        let label = || SharedString::from(Arc::clone(&rule.name));
        Self {
            shown: gate.is_some().then(|| Gauges::new("route", &rule.name, "")),
            waits: matches!(rule.action, Action::Forward(_))
                .then(|| histogram!("proxy_wait_seconds", "route" => label())),
            gate,
            tenants,
            route: Arc::clone(&rule.name),
        }
    }

    /// Writes the gauges.
    pub(crate) fn show(&self) {
        if let (Some(shown), Some(gate)) = (&self.shown, &self.gate) {
            shown.set(gate);
        }
    }
}
