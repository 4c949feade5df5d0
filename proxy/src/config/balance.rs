//! How a pool's endpoints share its work, and when one is left out, as the operator wrote it. Plain
//! data, already valid.
//!
//! What it means is in `upstream::select`, `upstream::balance` and `upstream::ejection`.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use sealane_model::{Ratio, RegionId};

/// What a pool wants of the choice among a region's endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Balancing {
    pub policy: BalancePolicy,
    /// An endpoint that came up gets its whole share only after this. Zero: at once.
    pub slow_start: Duration,
    /// Below this share of usable endpoints in a region all of them are used. Zero: never.
    pub panic: Ratio,
    /// Where this node stands: endpoints there come first.
    pub local: Option<LocalZone>,
    /// `None`: nothing is ejected.
    pub ejection: Option<EjectionRule>,
}

impl Default for Balancing {
    fn default() -> Self {
        Self {
            policy: BalancePolicy::LeastLoaded,
            slow_start: Duration::from_secs(30),
            panic: Ratio::ZERO,
            local: None,
            ejection: Some(EjectionRule::default()),
        }
    }
}

/// An availability zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalZone {
    pub region: RegionId,
    pub az: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BalancePolicy {
    /// Of two, drawn by weight, the one with fewer requests in flight and less latency.
    LeastLoaded,
    /// In turn, by weight.
    RoundRobin,
    /// The same key to the same endpoint, while that has room.
    RingHash(HashKey),
}

impl BalancePolicy {
    /// The word used in the configuration, in logs and in `explain`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::LeastLoaded => "least_loaded",
            Self::RoundRobin => "round_robin",
            Self::RingHash(_) => "ring_hash",
        }
    }
}

/// What a request's place on the ring follows from. A request without it goes to the least loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    ClientIp,
    Header(HeaderName),
    /// By name.
    Cookie(Arc<str>),
}

/// When an endpoint is left out for what live requests saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EjectionRule {
    /// Errors in a row.
    pub consecutive_errors: u32,
    /// The share of good answers below which an endpoint is compared with its peers. Zero: never.
    pub success: Ratio,
    /// Lately seen requests below which shares say nothing.
    pub requests: u32,
    /// So many times the peers' 95th percentile, three windows long: its weight is cut. `None`: never.
    pub latency: Option<u32>,
    /// The first time; the n-th time n times as long …
    pub time: Duration,
    /// … and never longer.
    pub time_max: Duration,
    /// Of a region's endpoints, and of those of each availability zone in it; one may always be.
    pub share_max: Ratio,
}

impl Default for EjectionRule {
    fn default() -> Self {
        Self {
            consecutive_errors: 5,
            success: Ratio::new(0.85).unwrap_or(Ratio::ZERO),
            requests: 20,
            latency: Some(3),
            time: Duration::from_secs(30),
            time_max: Duration::from_secs(300),
            share_max: Ratio::new(0.33).unwrap_or(Ratio::ZERO),
        }
    }
}
