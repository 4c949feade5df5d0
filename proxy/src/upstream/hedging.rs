//! Whether an attempt that takes long gets a rival, and when: card 4 of the algorithms.
//!
//! One [`Hedging`] a route, kept over reloads. Asked by `http::hedge`, which runs the race and says
//! how it ended. A hedge needs a token of the route's own few (a share of its requests) and one of
//! the retry budget, so that retries and hedges together stay within that. Reads no clock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sealane_model::Ratio;

use super::budget::Budget;
use super::latency::Latency;
use crate::config::HedgeAfter;
use crate::slots::Slots;

/// A measured delay is at least this: below it, what a hedge saves is noise of the machine.
pub(crate) const DELAY_MIN: Duration = Duration::from_millis(5);
/// Hedges that one worker may have saved up for a route. Further requests earn nothing then.
pub(crate) const SAVED_MAX: i32 = 10;
/// A cluster that is busier than this gets no extra work: its queues are what makes it slow.
pub(crate) const BUSY_MAX: f32 = 0.7;
/// Below it, hedges do not help: endpoints are slow together, or the request itself is.
pub(crate) const WIN_RATE_MIN: f64 = 0.05;
/// Races from which the rate of wins is believed.
pub(crate) const RACES_MIN: u32 = 50;
/// The rate of wins follows the last so many races.
const RACES_SPAN: u32 = 100;
/// While hedges do not help, one in so many seconds finds out whether they do again.
const PROBE_EVERY_SECS: u32 = 1;
/// Routes of these tiers (3 and 4) are never hedged.
const TIER_MAX: u8 = 2;

/// Why an attempt that took long got no rival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHedge {
    /// As many requests as the route's share allows were hedged.
    Budget,
    /// Retries used up what both share.
    RetryBudget,
    Busy,
    Tier,
    WinRate,
    /// No other endpoint can be tried. Concluded by the caller, who knows the world.
    NothingLeft,
    /// The request's body is still arriving, or was not kept. Concluded by the caller.
    Body,
    /// The client's deadline, or the request's, would be over first. Concluded by the caller.
    OutOfTime,
}

impl NoHedge {
    /// A word for logs and metric labels.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::RetryBudget => "retry_budget",
            Self::Busy => "busy",
            Self::Tier => "tier",
            Self::WinRate => "win_rate",
            Self::NothingLeft => "nothing_left",
            Self::Body => "body",
            Self::OutOfTime => "out_of_time",
        }
    }
}

/// What became of the thought of a second attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hedged {
    /// There was none.
    Not(NoHedge),
    /// It answered first.
    Won,
    /// The first attempt answered.
    Wasted,
    /// Neither of them did.
    Failed,
    /// The client left meanwhile.
    Aborted,
}

impl Hedged {
    /// A word for metric labels.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Not(why) => why.as_str(),
            Self::Won => "won",
            Self::Wasted => "wasted",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }

    /// The same for logs, where it stands alone.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Not(NoHedge::Budget) => "no_budget",
            Self::Not(NoHedge::RetryBudget) => "no_retry_budget",
            Self::Not(NoHedge::Busy) => "no_busy",
            Self::Not(NoHedge::Tier) => "no_tier",
            Self::Not(NoHedge::WinRate) => "no_win_rate",
            Self::Not(NoHedge::NothingLeft) => "no_nothing_left",
            Self::Not(NoHedge::Body) => "no_body",
            Self::Not(NoHedge::OutOfTime) => "no_out_of_time",
            ended => ended.word(),
        }
    }
}

/// What the decision depends on besides the route's past.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HedgeAsk {
    pub(crate) worker: u32,
    /// How much of what the pool can do at once it is doing; `None` where nobody limits it.
    pub(crate) busy: Option<f32>,
    /// How much the request matters: 1 (most) – 4.
    pub(crate) tier: u8,
}

/// One route's hedges, over all workers.
#[derive(Debug)]
pub(crate) struct Hedging {
    /// What one request earns, in thousandths of a hedge.
    deposit_millis: AtomicI32,
    /// By worker: each spends what its own requests earned.
    saved: Slots<Saved>,
    wins: Wins,
}

/// Thousandths of hedges. Written by one worker alone.
#[derive(Debug)]
#[repr(align(64))]
struct Saved(AtomicI32);

const HEDGE_MILLIS: i32 = 1_000;

impl Hedging {
    /// `share`: of requests that may be hedged.
    pub(crate) fn new(share: Ratio) -> Self {
        Self {
            deposit_millis: AtomicI32::new(millis_of(share)),
            saved: Slots::default(),
            wins: Wins::default(),
        }
    }

    /// New rules, same history.
    pub(crate) fn set_share(&self, share: Ratio) {
        self.deposit_millis
            .store(millis_of(share), Ordering::Relaxed);
    }

    /// When a rival starts, counted from the attempt's beginning; `None` while too few attempts are
    /// known.
    pub(crate) fn delay(after: HedgeAfter, latency: &Latency, now: Instant) -> Option<Duration> {
        match after {
            HedgeAfter::Fixed(delay) => Some(delay),
            HedgeAfter::Measured(which) => {
                let measured = latency.quantile(which, now)?;
                Some(measured.max(DELAY_MIN))
            }
        }
    }

    /// To be called once for each request that could be hedged.
    pub(crate) fn deposit(&self, worker: u32) {
        let saved = self.saved_by(worker);
        let more = saved.load(Ordering::Relaxed) + self.deposit_millis.load(Ordering::Relaxed);
        saved.store(more.min(SAVED_MAX * HEDGE_MILLIS), Ordering::Relaxed);
    }

    /// Takes a token from both budgets when, and only when, it is `Ok`.
    pub(crate) fn allow(
        &self,
        ask: &HedgeAsk,
        retries: &Budget,
        now: Instant,
    ) -> Result<(), NoHedge> {
        if ask.tier > TIER_MAX {
            return Err(NoHedge::Tier);
        }
        if ask.busy.is_some_and(|busy| busy > BUSY_MAX) {
            return Err(NoHedge::Busy);
        }
        let saved = self.saved_by(ask.worker);
        let left = saved.load(Ordering::Relaxed) - HEDGE_MILLIS;
        if left < 0 {
            return Err(NoHedge::Budget);
        }
        if !self.wins.let_try(now) {
            return Err(NoHedge::WinRate);
        }
        if !retries.withdraw(now) {
            return Err(NoHedge::RetryBudget);
        }
        saved.store(left, Ordering::Relaxed);
        Ok(())
    }

    /// A race is over. `won`: by the hedge.
    pub(crate) fn note(&self, won: bool) {
        self.wins.note(won);
    }

    /// The first request finds one hedge saved, so that a quiet route is not denied it.
    fn saved_by(&self, worker: u32) -> &AtomicI32 {
        let first = || Saved(AtomicI32::new(HEDGE_MILLIS));
        &self.saved.get_or_make(worker, first).0
    }
}

/// How often hedges won: an average that follows the last [`RACES_SPAN`] races. Races end rarely, so
/// that workers may share this.
#[derive(Debug, Default)]
struct Wins {
    /// Races (high half, up to the span) and the rate of wins in 2^-32 (low half).
    packed: AtomicU64,
    origin: OnceLock<Instant>,
    /// The last second in which one was tried all the same; seconds begin at 1.
    probed: AtomicU32,
}

impl Wins {
    fn note(&self, won: bool) {
        let after = |packed: u64| {
            let races = ((packed >> 32) + 1).min(RACES_SPAN.into());
            let rate = (packed & RATE_MAX).cast_signed();
            let seen = if won { RATE_MAX.cast_signed() } else { 0 };
            let rate = rate + (seen - rate) / races.cast_signed();
            Some(races << 32 | rate.cast_unsigned())
        };
        // Never an error: `after` always says something.
        let _ = self
            .packed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
    }

    fn let_try(&self, now: Instant) -> bool {
        let packed = self.packed.load(Ordering::Relaxed);
        let rate = (packed & RATE_MAX) as f64 / RATE_MAX as f64;
        if packed >> 32 < RACES_MIN.into() || rate >= WIN_RATE_MIN {
            return true;
        }
        let origin = *self.origin.get_or_init(|| now);
        let seconds = now.saturating_duration_since(origin).as_secs();
        let second = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_add(1);
        let last = self.probed.load(Ordering::Relaxed);
        second >= last.saturating_add(PROBE_EVERY_SECS)
            && self
                .probed
                .compare_exchange(last, second, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

const RATE_MAX: u64 = u32::MAX as u64;

#[expect(
    clippy::cast_possible_truncation,
    reason = "a ratio is within 0–1, so this is within 0–1,000"
)]
fn millis_of(ratio: Ratio) -> i32 {
    (ratio.get() * f64::from(HEDGE_MILLIS)).round() as i32
}

#[cfg(test)]
mod tests;
