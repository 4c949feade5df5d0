//! How much at once, and how often: what pools, routes and tenants may ask for. Plain data, already valid.
//!
//! What it means is in `http::overload`, `http::rate_limit` and `upstream::{gate, adaptive, rate}`.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use sealane_model::PoolId;

/// How much a request matters: of what cannot all be served, the highest number is refused first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    First,
    /// Room above for what is vital, and below for what can wait.
    #[default]
    Second,
    Third,
    Fourth,
}

impl Tier {
    pub const ALL: [Self; 4] = [Self::First, Self::Second, Self::Third, Self::Fourth];

    /// From 1 to 4.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        Self::ALL.get(at).copied()
    }

    /// From 1 to 4.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "1",
            Self::Second => "2",
            Self::Third => "3",
            Self::Fourth => "4",
        }
    }

    /// The card's number, held against `upstream::concurrency::threshold`.
    pub(crate) const fn priority(self) -> f64 {
        match self {
            Self::First => 10.0,
            Self::Second => 40.0,
            Self::Third => 70.0,
            Self::Fourth => 95.0,
        }
    }
}

/// Bounds that are not one route's.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// Pools that have any.
    pub pools: Vec<PoolLimits>,
    /// Where trusted peers say how much a request matters, and endpoints are told. `None`: nobody says.
    pub tier_header: Option<HeaderName>,
}

/// What one pool may be asked for.
#[derive(Clone, Debug)]
pub struct PoolLimits {
    pub pool: PoolId,
    /// As metrics call it.
    pub name: Arc<str>,
    pub concurrency: Concurrency,
    pub bulkhead: Option<Bulkhead>,
}

/// How many requests may be at a pool's endpoints in one region at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    #[default]
    Off,
    /// As many as latency says that they bear.
    Adaptive,
    Max(u32),
}

/// Places for requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bulkhead {
    /// At once, over all workers.
    pub requests: u32,
    /// More may wait, so many.
    pub queue: u32,
    /// … and so long.
    pub wait: Duration,
}

/// What one route may ask for.
#[derive(Clone, Debug, Default)]
pub struct RouteLimits {
    pub tier: Tier,
    pub bulkhead: Option<Bulkhead>,
    /// Whom a request counts for.
    pub tenant: Option<TenantKey>,
    /// Requests at once of one tenant. Only with `tenant`.
    pub per_tenant: Option<u32>,
    pub rates: Vec<RateRule>,
}

/// Where a request says on whose behalf it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantKey {
    Host,
    Header(HeaderName),
}

/// How often.
#[derive(Clone, Debug, PartialEq)]
pub struct RateRule {
    /// As clients see it in `RateLimit-Policy`: no quotes, no backslashes, ASCII.
    pub name: Arc<str>,
    pub key: RateKey,
    pub rate: Rate,
    /// So many may come at once after a pause. At least 1.
    pub burst: u32,
    /// Keys that are remembered.
    pub keys: u32,
    pub adaptive: Option<AdaptiveRate>,
}

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateKey {
    /// One client: an IPv4 address, an IPv6 /64.
    Client,
    /// All of the route's.
    Route,
    /// The route's `tenant`.
    Tenant(TenantKey),
    /// One value of a header; requests without it count together.
    Header(HeaderName),
}

/// So many in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    pub per: Duration,
}

/// A rate that gives way while the route is in trouble.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveRate {
    /// Of the answers' heads, 99 % should come within this.
    pub latency: Duration,
    /// Never below this share of the rate.
    pub floor: f64,
}
