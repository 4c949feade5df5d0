//! How many requests may be tried again: a share of all requests, plus a few each second.
//!
//! One budget per route, shared by all workers without a lock. Written by `http::exchange` (a
//! deposit per request) and `http::retry` (a withdrawal per further attempt). Reads no clock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use sealane_model::Ratio;

/// How long a deposit counts, and how long a withdrawal is held against the route.
pub(crate) const TOKENS_LIVE_SECS: u32 = 10;
/// Further attempts that a route may make each second whatever its traffic, so that a quiet route
/// is not denied its first retry.
pub(crate) const RESERVE_PER_SEC: u32 = 10;

/// The law: within [`TOKENS_LIVE_SECS`], no more withdrawals than `ratio` of the deposits plus
/// [`RESERVE_PER_SEC`] for each of the seconds. (The model of Finagle's `RetryBudget`.)
///
/// Time is cut into seconds. Workers that disagree about the current second may, around its turn,
/// together overdraw by one token each; nothing accumulates from it.
#[derive(Debug)]
pub(crate) struct Budget {
    deposit_millis: AtomicU32,
    /// The first `now` ever seen: second 0.
    origin: OnceLock<Instant>,
    /// One per second that counts, in turn; see [`Slot`].
    slots: [AtomicU64; SLOTS],
}

const SLOTS: usize = TOKENS_LIVE_SECS as usize;
/// What one withdrawal costs, in thousandths of a token.
const TOKEN_MILLIS: i32 = 1_000;
const RESERVE_MILLIS: i64 = (RESERVE_PER_SEC * TOKENS_LIVE_SECS) as i64 * TOKEN_MILLIS as i64;

impl Budget {
    /// `ratio`: the share of requests that may be tried again.
    pub(crate) fn new(ratio: Ratio) -> Self {
        Self {
            deposit_millis: AtomicU32::new(millis_of(ratio)),
            origin: OnceLock::new(),
            slots: [const { AtomicU64::new(0) }; SLOTS],
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
        let second = self.second(now);
        let slot = &self.slots[place(second)];
        let mut seen = slot.load(Ordering::Relaxed);
        loop {
            let filled = Slot::unpack(seen).at(second).add(millis.cast_signed());
            match slot.compare_exchange_weak(
                seen,
                filled.pack(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(changed) => seen = changed,
            }
        }
    }

    /// Takes one token. `false`: there is none, and nothing was taken.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let second = self.second(now);
        let slot = &self.slots[place(second)];
        let mut seen = slot.load(Ordering::Relaxed);
        loop {
            let current = Slot::unpack(seen).at(second);
            let balance = RESERVE_MILLIS + i64::from(current.millis) + self.others(second);
            if balance < i64::from(TOKEN_MILLIS) {
                return false;
            }
            match slot.compare_exchange_weak(
                seen,
                current.add(-TOKEN_MILLIS).pack(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(changed) => seen = changed,
            }
        }
    }

    /// What the seconds before `second` still bring or cost.
    fn others(&self, second: u32) -> i64 {
        let own = place(second);
        let others = self.slots.iter().enumerate().filter(|(at, _)| *at != own);
        others
            .map(|(_, slot)| Slot::unpack(slot.load(Ordering::Relaxed)))
            .filter(|slot| slot.lives_at(second))
            .map(|slot| i64::from(slot.millis))
            .sum()
    }

    /// Starts at 1, so that an untouched slot (second 0) is always an old one. Ends after 136
    /// years, when the last second goes on for good.
    fn second(&self, now: Instant) -> u32 {
        let origin = *self.origin.get_or_init(|| now);
        let elapsed = now.saturating_duration_since(origin).as_secs();
        u32::try_from(elapsed).unwrap_or(u32::MAX).saturating_add(1)
    }
}

/// What one second brought (deposits) and cost (withdrawals), in thousandths of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    second: u32,
    millis: i32,
}

impl Slot {
    const fn unpack(packed: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = packed.to_be_bytes();
        Self {
            second: u32::from_be_bytes([a, b, c, d]),
            millis: i32::from_be_bytes([e, f, g, h]),
        }
    }

    const fn pack(self) -> u64 {
        let [a, b, c, d] = self.second.to_be_bytes();
        let [e, f, g, h] = self.millis.to_be_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// Emptied if what it holds is older. A worker whose clock was read a moment earlier adds to
    /// the newer second.
    const fn at(self, second: u32) -> Self {
        if self.second >= second {
            return self;
        }
        Self { second, millis: 0 }
    }

    /// Saturates above 2 million tokens a second: more than any route has requests.
    const fn add(self, millis: i32) -> Self {
        Self {
            second: self.second,
            millis: self.millis.saturating_add(millis),
        }
    }

    const fn lives_at(self, second: u32) -> bool {
        self.second != 0 && self.second.saturating_add(TOKENS_LIVE_SECS) > second
    }
}

const fn place(second: u32) -> usize {
    second as usize % SLOTS
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a ratio is within 0–1, so this is within 0–1,000"
)]
fn millis_of(ratio: Ratio) -> u32 {
    (ratio.get() * f64::from(TOKEN_MILLIS)).round() as u32
}

#[cfg(test)]
mod tests;
