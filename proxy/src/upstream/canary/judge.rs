//! Whether a canary is worse than its baseline: pure, on what was counted. Called by the [`Canary`]
//! (super::Canary) alone.
//!
//! *Errors*: a one-sided test of two proportions with a margin (Farrington and Manning 1990), each
//! with a success and a failure added (Agresti and Caffo 2000), so that it holds for few requests
//! and for none that failed. *Latency*: were the canary's quantile q within what is allowed, then
//! no more than 1 − q of its requests would take longer than that: a test of one proportion, which
//! knows nothing of the latencies' distribution.

use std::fmt;
use std::time::Duration;

use crate::config::{AbortRule, Percentile};
use crate::upstream::latency::{BUCKETS, end_of};

/// Standard deviations by which a canary must be worse than allowed. As it is judged four times a
/// second, for days, two or three would end good ones by chance.
const SURE: f64 = 4.0;
/// Differences below this are not felt by anybody, whatever the factor says.
const NOISE: Duration = Duration::from_millis(2);
/// By what latency is judged, and how many requests of the baseline that takes: those of which at
/// least five lie beyond it.
const PERCENTILES: [(Percentile, u64); 2] = [(Percentile::P95, 100), (Percentile::P99, 500)];

/// What became of one side's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) requests: u32,
    /// Of them, those that failed.
    pub(crate) errors: u32,
    /// How long the others took, by bucket.
    pub(crate) took: [u32; BUCKETS],
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            requests: 0,
            errors: 0,
            took: [0; BUCKETS],
        }
    }
}

impl Counts {
    /// Of counts that only grow, up to a wrap.
    pub(crate) fn add_difference(&mut self, now: &Self, before: &Self) {
        let add = |sum: &mut u32, now: u32, before: u32| {
            *sum = sum.wrapping_add(now.wrapping_sub(before));
        };
        add(&mut self.requests, now.requests, before.requests);
        add(&mut self.errors, now.errors, before.errors);
        let counts = now.took.iter().zip(&before.took);
        for (sum, (now, before)) in self.took.iter_mut().zip(counts) {
            add(sum, *now, *before);
        }
    }

    fn answered(&self) -> u64 {
        self.took.iter().map(|count| u64::from(*count)).sum()
    }

    /// Up to a sixteenth more.
    fn quantile(&self, of: Percentile) -> Duration {
        let within = (self.answered() * of.percent()).div_ceil(100);
        let mut seen = 0;
        for (bucket, count) in self.took.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= within {
                return Duration::from_micros(end_of(bucket));
            }
        }
        Duration::ZERO
    }

    fn slower_than(&self, limit: Duration) -> u64 {
        let limit = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let beyond = |bucket: usize| bucket > 0 && end_of(bucket - 1) >= limit;
        let buckets = self.took.iter().enumerate();
        let slower = buckets.filter(|(bucket, _)| beyond(*bucket));
        slower.map(|(_, count)| u64::from(*count)).sum()
    }
}

/// Why a canary was aborted, with the numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Grounds {
    Errors {
        /// Failed, and all.
        canary: (u32, u32),
        baseline: (u32, u32),
        allowed: f64,
        z: f64,
    },
    Latency {
        of: Percentile,
        canary: Duration,
        baseline: Duration,
        allowed: Duration,
        /// Of the canary's requests, those that took longer than that, and all.
        slower: (u64, u64),
        z: f64,
    },
}

impl Grounds {
    /// The word in metrics.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Errors { .. } => "errors",
            Self::Latency { .. } => "latency",
        }
    }
}

impl fmt::Display for Grounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errors {
                canary,
                baseline,
                allowed,
                z,
            } => {
                let percent =
                    |(part, all): (u32, u32)| f64::from(part) * 100.0 / f64::from(all.max(1));
                write!(
                    f,
                    "errors: {} of {} requests failed ({:.1} %), of the baseline's {} of {} ({:.1} %); \
                     {:.1} % more are allowed, z = {z:.1}",
                    canary.0,
                    canary.1,
                    percent(*canary),
                    baseline.0,
                    baseline.1,
                    percent(*baseline),
                    allowed * 100.0,
                )
            }
            Self::Latency {
                of,
                canary,
                baseline,
                allowed,
                slower,
                z,
            } => write!(
                f,
                "latency: p{} is {canary:.1?}, the baseline's {baseline:.1?}; {} of {} requests took \
                 longer than the {allowed:.1?} that are allowed, z = {z:.1}",
                of.percent(),
                slower.0,
                slower.1,
            ),
        }
    }
}

/// `None`: the canary goes on.
pub(crate) fn judge(canary: &Counts, baseline: &Counts, rule: &AbortRule) -> Option<Grounds> {
    if canary.requests < rule.requests_min || baseline.requests < rule.requests_min {
        return None;
    }
    let by_latency = || {
        let mut percentiles = PERCENTILES.into_iter();
        percentiles.find_map(|(of, least)| latency_is_worse(canary, baseline, rule, of, least))
    };
    errors_are_more(canary, baseline, rule).or_else(by_latency)
}

fn errors_are_more(canary: &Counts, baseline: &Counts, rule: &AbortRule) -> Option<Grounds> {
    let allowed = rule.errors?;
    let ours = Proportion::of(canary.errors.into(), canary.requests.into());
    let theirs = Proportion::of(baseline.errors.into(), baseline.requests.into());
    let more = ours.share - theirs.share - allowed;
    let z = more / (ours.variance + theirs.variance).sqrt();
    (z >= SURE).then_some(Grounds::Errors {
        canary: (canary.errors, canary.requests),
        baseline: (baseline.errors, baseline.requests),
        allowed,
        z,
    })
}

fn latency_is_worse(
    canary: &Counts,
    baseline: &Counts,
    rule: &AbortRule,
    of: Percentile,
    least: u64,
) -> Option<Grounds> {
    let factor = rule.latency?;
    let answered = canary.answered();
    if baseline.answered() < least || answered < u64::from(rule.requests_min) {
        return None;
    }
    let usual = baseline.quantile(of);
    let allowed = usual.mul_f64(factor).max(usual + NOISE);
    let slower = canary.slower_than(allowed);
    let ours = Proportion::of(slower, answered);
    let beyond = 1.0 - of.percent() as f64 / 100.0;
    let z = (ours.share - beyond) / ours.variance.sqrt();
    (z >= SURE).then(|| Grounds::Latency {
        of,
        canary: canary.quantile(of),
        baseline: usual,
        allowed,
        slower: (slower, answered),
        z,
    })
}

struct Proportion {
    share: f64,
    variance: f64,
}

impl Proportion {
    fn of(part: u64, all: u64) -> Self {
        let all = all as f64 + 2.0;
        let share = (part as f64 + 1.0) / all;
        Self {
            share,
            variance: share * (1.0 - share) / all,
        }
    }
}
