//! How the operator wants regions ordered. Orders nothing itself: see [`mod@crate::rank`].

use std::net::IpAddr;

use sealane_model::{AllDown, RegionId, Weight};

use crate::fence::Fences;

/// Whatever the policy, only the lowest tier (`Member::priority`) with a usable region serves.
#[derive(Clone, Debug, PartialEq)]
pub enum SteeringPolicy {
    /// Among the regions that are near enough, by weight, health and latency (see
    /// [`crate::rank::LATENCY_EXPONENT`]); the others follow by latency.
    WeightedLatency(Weights),
    /// The least latency first.
    Nearest,
    /// By weight alone.
    Weighted(Weights),
    /// By tier alone; within a tier the least latency first.
    Priority,
    /// This region while it is usable; then the least latency first.
    Pinned(RegionId),
    /// Another policy, among the regions that the client may be served by.
    Within(Box<Within>),
}

/// A policy, and whom it may send where.
#[derive(Clone, Debug, PartialEq)]
pub struct Within {
    /// Not itself [`SteeringPolicy::Within`].
    pub policy: SteeringPolicy,
    pub fences: Fences,
    /// What happens when no region is usable. `None`: what the pool says.
    pub all_down: Option<AllDown>,
}

impl SteeringPolicy {
    /// The word used in the configuration, in metrics and in logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::WeightedLatency(_) => "weighted_latency",
            Self::Nearest => "nearest",
            Self::Weighted(_) => "weighted",
            Self::Priority => "priority",
            Self::Pinned(_) => "pinned",
            Self::Within(within) => within.policy.as_str(),
        }
    }

    /// How regions are ordered, once it is settled which come into question.
    #[must_use]
    #[inline]
    pub fn order(&self) -> &Self {
        match self {
            // Which is itself none: without recursion this is one branch.
            Self::Within(within) => &within.policy,
            other => other,
        }
    }

    /// Which regions may serve which clients. `None`: all may serve everyone.
    #[must_use]
    pub fn fences(&self) -> Option<&Fences> {
        match self {
            Self::Within(within) => Some(&within.fences).filter(|fences| !fences.is_empty()),
            _ => None,
        }
    }

    /// What happens when no region is usable, where it is another thing than what the pool says.
    #[must_use]
    pub fn all_down(&self) -> Option<&AllDown> {
        match self {
            Self::Within(within) => within.all_down.as_ref(),
            _ => None,
        }
    }

    /// The same policy, with a rule of its own for when no region is usable.
    #[must_use]
    pub fn with_all_down(self, all_down: AllDown) -> Self {
        let within = match self {
            Self::Within(within) => *within,
            policy => Within {
                policy,
                fences: Fences::default(),
                all_down: None,
            },
        };
        Self::Within(Box::new(Within {
            all_down: Some(all_down),
            ..within
        }))
    }

    /// May that region serve that client?
    #[must_use]
    pub fn lets(&self, client: IpAddr, region: RegionId) -> bool {
        let fence = self.fences().and_then(|fences| fences.of(client));
        fence.is_none_or(|fence| fence.lets_in(region))
    }

    /// What this policy multiplies a region's own weight by.
    #[must_use]
    pub fn weight(&self, region: RegionId) -> Weight {
        match self.order() {
            Self::WeightedLatency(weights) | Self::Weighted(weights) => weights.of(region),
            Self::Nearest | Self::Priority | Self::Pinned(_) | Self::Within(_) => Weight::DEFAULT,
        }
    }
}

/// Weights by region. A region that is not listed weighs nothing, unless none is listed: then all
/// weigh the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights(Vec<(RegionId, Weight)>);

impl Weights {
    #[must_use]
    pub fn new(weights: Vec<(RegionId, Weight)>) -> Self {
        Self(weights)
    }

    #[must_use]
    pub fn of(&self, region: RegionId) -> Weight {
        if self.0.is_empty() {
            return Weight::DEFAULT;
        }
        let listed = self.0.iter().find(|(listed, _)| *listed == region);
        listed.map_or(const { Weight::new(0).unwrap() }, |(_, weight)| *weight)
    }
}
