//! How the operator wants regions ordered. Orders nothing itself: see [`mod@crate::rank`].

use sealane_model::{RegionId, Weight};

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
}

impl SteeringPolicy {
    /// The word used in the configuration, in metrics and in logs.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::WeightedLatency(_) => "weighted_latency",
            Self::Nearest => "nearest",
            Self::Weighted(_) => "weighted",
            Self::Priority => "priority",
            Self::Pinned(_) => "pinned",
        }
    }

    /// What this policy multiplies a region's own weight by.
    #[must_use]
    pub fn weight(&self, region: RegionId) -> Weight {
        match self {
            Self::WeightedLatency(weights) | Self::Weighted(weights) => weights.of(region),
            Self::Nearest | Self::Priority | Self::Pinned(_) => Weight::DEFAULT,
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
