//! How many requests may be tried again: a share of all requests, plus a few each second; and how fast what was
//! saved may be spent.
//!
//! One budget per route, shared by all workers without a lock. Written by `http::exchange` (a
//! deposit per request), `http::retry` and `hedging` (a withdrawal per further attempt) and `http::attempt` (what came
//! of them). Reads no clock.

use std::cmp::Ordering as Cmp;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use sealane_model::Ratio;

use super::ticks::Ring;

/// How long a deposit counts, and how long a withdrawal is held against the route.
pub(crate) const TOKENS_LIVE_SECS: u32 = 10;
/// Further attempts that a route may make each second whatever its traffic, so that a quiet route
/// is not denied its first retry.
pub(crate) const RESERVE_PER_SEC: u32 = 10;

/// Two laws, each of which must allow a withdrawal:
///
/// 1. Within [`TOKENS_LIVE_SECS`], no more withdrawals than `ratio` of the deposits plus
///    [`RESERVE_PER_SEC`] for each of the seconds. (The model of Finagle's `RetryBudget`.)
/// 2. None once so many further attempts failed within a second: `ratio` of that second's deposits plus
///    [`RESERVE_PER_SEC`]. What was saved up in ten seconds is there for one endpoint or region of several that
///    fails, where trying again helps, however long that takes; where it does not, all of it at once would be the storm
///    that budgets are to prevent.
///
/// Time is cut into ticks. The oldest one that is half over brings half of its deposits, and costs all
/// of its withdrawals, so that the laws hold for any span of time if requests come evenly. Workers that disagree
/// about the current tick may together overdraw by one token each; nothing accumulates from it.
#[derive(Debug)]
pub(crate) struct Budget {
    deposit_millis: AtomicU32,
    /// The first `now` ever seen: tick 0.
    origin: OnceLock<Instant>,
    /// In thousandths of a token; one per tick that counts, in turn, as all of these.
    earned: Ring<SAVED_TICKS>,
    /// In tokens.
    spent: Ring<SAVED_TICKS>,
    /// Further attempts that failed. Of finer ticks.
    in_vain: Ring<PACE_TICKS>,
    #[cfg(test)]
    without: Option<Term>,
}

/// What tests take away, one at a time, to see that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    Saved,
    Pace,
    Reserve,
}

const TICK_MILLIS: u32 = 500;
const TICKS_PER_SEC: u32 = 1_000 / TICK_MILLIS;
/// The current tick, the whole ones before it, and the part of one.
const SAVED_TICKS: usize = (TOKENS_LIVE_SECS * TICKS_PER_SEC) as usize + 1;
const FINE_MILLIS: u32 = 125;
const FINE_PER_SEC: u32 = 1_000 / FINE_MILLIS;
const PACE_TICKS: usize = FINE_PER_SEC as usize + 1;
/// What one withdrawal costs, in thousandths of a token.
const TOKEN_MILLIS: i64 = 1_000;
const RESERVE_MILLIS: i64 = RESERVE_PER_SEC as i64 * TOKEN_MILLIS;

impl Budget {
    /// `ratio`: the share of requests that may be tried again.
    pub(crate) fn new(ratio: Ratio) -> Self {
        Self {
            deposit_millis: AtomicU32::new(millis_of(ratio)),
            origin: OnceLock::new(),
            earned: Ring::default(),
            spent: Ring::default(),
            in_vain: Ring::default(),
            #[cfg(test)]
            without: None,
        }
    }

    /// New rules, same history.
    pub(crate) fn set_ratio(&self, ratio: Ratio) {
        self.deposit_millis
            .store(millis_of(ratio), Ordering::Relaxed);
    }

    /// To be called once for each request, not for its further attempts.
    pub(crate) fn deposit(&self, now: Instant) {
        let millis = self.deposit_millis.load(Ordering::Relaxed);
        self.earned.add(self.at(now).tick, millis.cast_signed());
    }

    /// Takes one token. `false`: there is none, and nothing was taken.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let at = self.at(now);
        let reserve = if self.has(Term::Reserve) {
            RESERVE_MILLIS
        } else {
            0
        };
        let saved = i64::from(TOKENS_LIVE_SECS) * reserve + self.earned(TOKENS_LIVE_SECS, at);
        let pace = reserve + self.earned(1, at);
        let allows = |tokens: i64, of: i64| of - tokens * TOKEN_MILLIS >= TOKEN_MILLIS;
        self.spent.add_if(at.tick, 1, |spent| {
            (allows(spent, saved) || !self.has(Term::Saved))
                && (allows(self.in_vain.sum(at.fine), pace) || !self.has(Term::Pace))
        })
    }

    fn has(&self, _term: Term) -> bool {
        #[cfg(test)]
        return self.without != Some(_term);
        #[cfg(not(test))]
        true
    }

    /// An endpoint is asked once more than the requests account for, and nobody could refuse it.
    pub(crate) fn charge(&self, now: Instant) {
        self.spent.add(self.at(now).tick, 1);
    }

    /// A further attempt failed: trying again does not help.
    pub(crate) fn note_failed(&self, now: Instant) {
        self.in_vain.add(self.at(now).fine, 1);
    }

    /// Within so many seconds: of the oldest tick as much as is within.
    fn earned(&self, seconds: u32, at: At) -> i64 {
        let oldest = seconds * TICKS_PER_SEC;
        self.earned.sum_of(at.tick, |age, amount| {
            let within = match age.cmp(&oldest) {
                Cmp::Less => TICK_MILLIS,
                Cmp::Equal => TICK_MILLIS - at.gone,
                Cmp::Greater => 0,
            };
            amount * i64::from(within) / i64::from(TICK_MILLIS)
        })
    }

    /// The fine ticks end after 17 years, when the last one goes on for good.
    fn at(&self, now: Instant) -> At {
        let origin = *self.origin.get_or_init(|| now);
        let elapsed = now.saturating_duration_since(origin);
        let seconds = u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX);
        let millis = elapsed.subsec_millis();
        let tick = |per_sec: u32, each: u32| {
            let before = seconds.saturating_mul(per_sec);
            before.saturating_add(millis / each + 1)
        };
        At {
            tick: tick(TICKS_PER_SEC, TICK_MILLIS),
            fine: tick(FINE_PER_SEC, FINE_MILLIS),
            gone: millis % TICK_MILLIS,
        }
    }
}

/// A moment.
#[derive(Clone, Copy, Debug)]
struct At {
    tick: u32,
    fine: u32,
    /// Of the tick, in milliseconds.
    gone: u32,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a ratio is within 0–1, so this is within 0–1,000"
)]
fn millis_of(ratio: Ratio) -> u32 {
    (ratio.get() * TOKEN_MILLIS as f64).round() as u32
}

#[cfg(test)]
mod tests;
