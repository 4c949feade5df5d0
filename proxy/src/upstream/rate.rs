//! How often something may happen: GCRA (ITU-T I.371), for very many keys in a table of fixed size.
//!
//! One [`RateTable`] for each rule, shared by all workers: a limit holds for the process. Without a
//! lock: each key is one atomic word. Reads no clock, and knows nothing of requests.
//!
//! A word holds 23 bits of the key's hash and, in 40 bits, when the key's allowance will be full again.
//! Eight words are a bucket of one cache line, in which the key is looked for. **What is inexact:** two
//! keys with the same bucket and the same 23 bits count together (one pair in 8 million × buckets). A key
//! that finds its bucket taken by eight others takes the word of the one whose allowance is nearest to
//! full; that costs nothing if it is full, as a new key begins full, and else gives the forgotten
//! one its burst back: [`RateTable::forgotten`] counts those. Workers that add the same key in the
//! same moment may let one more request pass.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::Rate;

/// What one request costs: time is counted in so many parts of the interval between two.
const COST: u32 = 64;
/// The most that one request may cost, at the least multiplier.
const COST_MAX: u32 = COST * 100;
/// Words of a bucket: a cache line.
const WAYS: usize = 8;
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// The most keys of one table: 128 MiB.
pub(crate) const KEYS_MAX: u32 = 1 << 24;

#[derive(Debug)]
pub(crate) struct RateTable {
    /// A power of two of them.
    buckets: Box<[Bucket]>,
    hasher: RandomState,
    origin: OnceLock<Instant>,
    /// Parts of time in a nanosecond.
    parts_per_nano: f64,
    burst: u32,
    /// Of one request now, see [`Self::set_multiplier`].
    cost: AtomicU32,
    forgotten: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; WAYS]);

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Requests that could follow at once.
    pub(crate) left: u32,
    /// Until all of the burst is there again.
    pub(crate) full_in: Duration,
    /// Until one more may come; zero if one may now.
    pub(crate) next_in: Duration,
}

impl RateTable {
    /// `keys`: so many find room. `burst`: at least 1.
    pub(crate) fn new(rate: Rate, burst: u32, keys: u32) -> Self {
        let keys = keys.clamp(1, KEYS_MAX) as usize;
        let buckets = keys.div_ceil(WAYS).next_power_of_two();
        let per = rate.per.as_secs_f64().max(1e-9) * 1e9;
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            hasher: RandomState::new(),
            origin: OnceLock::new(),
            parts_per_nano: f64::from(rate.count.max(1)) * f64::from(COST) / per,
            burst: burst.max(1),
            cost: AtomicU32::new(COST),
            forgotten: AtomicU64::new(0),
        }
    }

    /// The rate becomes this share of itself (at least a hundredth); the burst stays.
    pub(crate) fn set_multiplier(&self, share: f64) {
        let cost = (f64::from(COST) / share.clamp(0.01, 1.0)).round();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between COST and COST_MAX"
        )]
        self.cost
            .store((cost as u32).min(COST_MAX), Ordering::Relaxed);
    }

    /// Keys that were forgotten before their allowance was full again.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Takes one from the key's allowance.
    ///
    /// # Errors
    /// There is none left; nothing was taken.
    pub(crate) fn take(&self, key: impl Hash, now: Instant) -> Result<Quota, Quota> {
        let hash = self.hasher.hash_one(key);
        // The highest bits choose the bucket, others tell keys apart.
        let bucket = &self.buckets[(hash >> TIME_BITS) as usize & (self.buckets.len() - 1)];
        let tag = (hash << TIME_BITS) | 1 << TIME_BITS;
        self.take_in(bucket, tag, self.parts(now))
    }

    fn take_in(&self, bucket: &Bucket, tag: u64, now: u64) -> Result<Quota, Quota> {
        let cost = u64::from(self.cost.load(Ordering::Relaxed));
        // One part more, as times are cut to parts.
        let most = u64::from(self.burst) * cost + 1;
        loop {
            let found = self.find(bucket, tag, now);
            let owed = if found.is_same { found.owed } else { 0 };
            if owed + cost > most {
                return Err(self.quota(owed, most, cost));
            }
            let full_at = (now + owed + cost) & TIME_MASK;
            let written = tag | full_at;
            let cell = &bucket.0[found.at];
            let swapped = cell.compare_exchange_weak(
                found.word,
                written,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if swapped.is_ok() {
                if !found.is_same && found.owed > 0 {
                    self.forgotten.fetch_add(1, Ordering::Relaxed);
                }
                return Ok(self.quota(owed + cost, most, cost));
            }
        }
    }

    /// The key's word, else the one that is forgotten for it.
    fn find(&self, bucket: &Bucket, tag: u64, now: u64) -> Found {
        let mut best: Option<Found> = None;
        for (at, cell) in bucket.0.iter().enumerate() {
            let word = cell.load(Ordering::Relaxed);
            let found = Found {
                at,
                word,
                owed: self.owed(word, now),
                is_same: word & !TIME_MASK == tag,
            };
            if found.is_same {
                return found;
            }
            if best.as_ref().is_none_or(|best| found.owed < best.owed) {
                best = Some(found);
            }
        }
        best.unwrap_or(Found {
            at: 0,
            word: 0,
            owed: 0,
            is_same: false,
        })
    }

    /// Until the allowance is full again. Time wraps round after 2^40 parts (an hour at a million a
    /// second and more at fewer): what would be longer than can be lies in the past. A key that was away
    /// for exactly such a round may be refused for the time of one burst.
    fn owed(&self, word: u64, now: u64) -> u64 {
        let owed = (word & TIME_MASK).wrapping_sub(now) & TIME_MASK;
        let possible = u64::from(self.burst) * u64::from(COST_MAX) + 1;
        if word != 0 && owed <= possible {
            owed
        } else {
            0
        }
    }

    fn quota(&self, owed: u64, most: u64, cost: u64) -> Quota {
        let left = most.saturating_sub(owed) / cost;
        Quota {
            left: u32::try_from(left).unwrap_or(u32::MAX),
            full_in: self.time(owed),
            next_in: self.time((owed + cost).saturating_sub(most)),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "below 2^40")]
    fn time(&self, parts: u64) -> Duration {
        let nanos = parts as f64 / self.parts_per_nano;
        Duration::try_from_secs_f64(nanos / 1e9).unwrap_or(Duration::MAX)
    }

    /// The time now.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "counts up from 0 and is wrapped round; after 100 days it is 1 ns off"
    )]
    fn parts(&self, now: Instant) -> u64 {
        let origin = *self.origin.get_or_init(|| now);
        let nanos = now.saturating_duration_since(origin).as_nanos() as f64;
        (nanos * self.parts_per_nano) as u64 & TIME_MASK
    }
}

struct Found {
    at: usize,
    word: u64,
    owed: u64,
    is_same: bool,
}

/// AIMD of an adaptive rule: pure.
///
/// +5 percentage points a second while all is well, × 0.7 when it is not, never below the floor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Multiplier {
    share: f64,
    floor: f64,
}

/// What a second brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Second {
    pub(crate) answers: u32,
    /// Of them, those that took longer than they should.
    pub(crate) slow: u32,
    /// Requests that were refused for want of places.
    pub(crate) shed: u32,
}

impl Multiplier {
    const STEP_UP: f64 = 0.05;
    const STEP_DOWN: f64 = 0.7;

    /// `floor`: 0.01–1.
    pub(crate) fn new(floor: f64) -> Self {
        Self {
            share: 1.0,
            floor: floor.clamp(0.01, 1.0),
        }
    }

    pub(crate) fn share(&self) -> f64 {
        self.share
    }

    pub(crate) fn step(&mut self, second: Second) {
        // More than one in a hundred: the 99th percentile is above it.
        let is_slow = u64::from(second.slow) * 100 > u64::from(second.answers);
        let share = if is_slow || second.shed > 0 {
            self.share * Self::STEP_DOWN
        } else {
            self.share + Self::STEP_UP
        };
        self.share = share.clamp(self.floor, 1.0);
    }
}

#[cfg(test)]
mod tests;
