//! Numbers with a unit, a range and a rounding. Never reads a clock.

use std::fmt;
use std::time::Duration;

/// A relative share: 0 takes nothing, twice the weight takes twice as much. 0–1,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

impl Weight {
    pub const MAX: u32 = 1_000_000;
    /// What an endpoint or region weighs when nothing is written.
    pub const DEFAULT: Self = Self(100);

    /// `None` above [`Weight::MAX`].
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        if value <= Self::MAX {
            Some(Self(value))
        } else {
            None
        }
    }

    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A share of a whole, 0.0–1.0.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Ratio(f64);

impl Ratio {
    pub const ZERO: Self = Self(0.0);

    /// `None` outside 0.0–1.0 (and for NaN).
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        (0.0..=1.0).contains(&value).then_some(Self(value))
    }

    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0 * 100.0)
    }
}

/// So many a second: above zero and finite.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// `None` for zero, less than that, infinity and NaN.
    #[must_use]
    pub fn per_second(value: f64) -> Option<Self> {
        (value > 0.0 && value.is_finite()).then_some(Self(value))
    }

    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// How long a resolver may keep an answer, in whole seconds. 0–2^31−1 (RFC 2181 §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u32);

impl Ttl {
    pub const MAX: u32 = 0x7fff_ffff;

    /// Values above 2^31−1 are clamped to it (RFC 2181 §8).
    #[must_use]
    pub const fn from_secs(secs: u32) -> Self {
        Self(if secs > Self::MAX { Self::MAX } else { secs })
    }

    #[must_use]
    pub const fn as_secs(self) -> u32 {
        self.0
    }
}

/// The number of a published snapshot: grows by one with each, starts at 1 in each process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many leading bits of a client's address a decision depends on: 0 (for everyone) to 128.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopePrefix(pub u8);

impl ScopePrefix {
    /// The decision holds for every client.
    pub const EVERYONE: Self = Self(0);
}

/// A moment: milliseconds since the Unix epoch, read once at start and advanced by the monotonic
/// clock from there, so that it never steps back within a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Zero when `earlier` lies after `self`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}
