//! Canaries: which requests of a route go to another pool, and when that ends by itself.
//!
//! Who goes follows from a hash of the request's key, so that a key keeps its side, on every node
//! and over restarts, and a share that grows keeps those it had; requests without one are drawn. How both sides fare is counted by
//! each worker for itself; every quarter of a second one of them adds all up and asks [`judge`].
//! Called by `http::split`. Reads no clock, sends nothing.

pub(crate) mod judge;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use self::judge::{Counts, Grounds, judge};
use super::latency::{BUCKETS, bucket};
use crate::config::{AbortRule, Split};
use crate::slots::Slots;

/// How often is judged, while there are requests.
const TICK: Duration = Duration::from_millis(250);
/// The window moves by a tenth of its length.
const SLICES: u32 = 10;

/// One split of a route, as all workers see it.
#[derive(Debug)]
pub(crate) struct Branch {
    /// Two canaries draw from the same key independently of each other, and so do two routes.
    seed: u64,
    /// Of the requests that no earlier branch took, 0–1.
    share: f64,
    /// Keys whose hash is below it go: as many.
    threshold: u128,
    pub(crate) canary: Arc<Canary>,
}

impl Branch {
    /// `taken`: the shares of the branches before it.
    pub(crate) fn new(route: &str, rule: &Split, taken: f64, canary: Arc<Canary>) -> Self {
        let left = 1.0 - taken;
        let of_those_left = if left > 0.0 {
            (rule.share.get() / left).min(1.0)
        } else {
            0.0
        };
        Self {
            seed: xxh3_64_with_seed(rule.name.as_bytes(), xxh3_64(route.as_bytes())),
            share: of_those_left,
            threshold: (of_those_left * 2_f64.powi(64)) as u128,
            canary,
        }
    }

    /// Whether this key goes to the canary, as long as that is not aborted.
    pub(crate) fn takes(&self, key: &[u8]) -> bool {
        u128::from(xxh3_64_with_seed(key, self.seed)) < self.threshold
    }

    /// As [`Branch::takes`], for a request without a key: by a point from 0 to below 1, of which the
    /// next branch gets what this one leaves.
    pub(crate) fn takes_point(&self, point: &mut f64) -> bool {
        if *point < self.share {
            return true;
        }
        *point = (*point - self.share) / (1.0 - self.share);
        false
    }
}

/// Where a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Canary,
    /// The route's own pool.
    Baseline,
}

/// How one canary fares against its baseline; the same one over all reloads that leave it as it is.
#[derive(Debug)]
pub(crate) struct Canary {
    rule: Option<AbortRule>,
    is_aborted: AtomicBool,
    aborted: Mutex<Option<Aborted>>,
    /// The first `now` ever seen.
    origin: OnceLock<Instant>,
    /// By worker.
    shards: Slots<Box<Shard>>,
    /// Of the numbers of workers, the first that none had yet.
    workers: AtomicU32,
    /// The tick in which was judged last.
    judged: AtomicU32,
    window: Mutex<Window>,
}

/// Why a canary gets nothing any more, and since when.
#[derive(Clone, Debug)]
pub(crate) struct Aborted {
    pub(crate) grounds: Grounds,
    pub(crate) at: Instant,
}

impl Canary {
    /// `None`: it goes on whatever happens.
    pub(crate) fn new(rule: Option<AbortRule>) -> Self {
        Self {
            rule,
            is_aborted: AtomicBool::new(false),
            aborted: Mutex::default(),
            origin: OnceLock::new(),
            shards: Slots::default(),
            workers: AtomicU32::new(0),
            judged: AtomicU32::new(0),
            window: Mutex::default(),
        }
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::Relaxed)
    }

    pub(crate) fn aborted(&self) -> Option<Aborted> {
        self.aborted_now().clone()
    }

    /// Gives it its share again; what was counted until now is forgotten. Whether it was aborted.
    pub(crate) fn reset(&self) -> bool {
        let mut window = self.window();
        window.forget(self.totals());
        let was = self.aborted_now().take().is_some();
        self.is_aborted.store(false, Ordering::Relaxed);
        was
    }

    /// A request ended. `took`: until the head of its answer. Gives the grounds where it was the
    /// one after which the canary was found too bad: for one caller only.
    ///
    /// `worker`: whose turn it is; no other thread may say the same number.
    pub(crate) fn record(
        &self,
        worker: u32,
        side: Side,
        failed: bool,
        took: Duration,
        now: Instant,
    ) -> Option<Grounds> {
        let rule = self.rule.as_ref()?;
        if self.is_aborted() {
            return None;
        }
        let shard = self.shards.get_or_make(worker, || {
            self.workers.fetch_max(worker + 1, Ordering::Relaxed);
            Box::default()
        });
        shard.of(side).count(failed, took);
        let tick = self.tick(now);
        let last = self.judged.load(Ordering::Relaxed);
        let mine = tick > last
            && self
                .judged
                .compare_exchange(last, tick, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine { self.judge(rule, now) } else { None }
    }

    /// Takes some microseconds. Workers that go on counting meanwhile are seen or not.
    fn judge(&self, rule: &AbortRule, now: Instant) -> Option<Grounds> {
        let origin = *self.origin.get_or_init(|| now);
        let slice = rule.window.as_secs_f64() / f64::from(SLICES);
        let epoch = (now.saturating_duration_since(origin).as_secs_f64() / slice) as u32;
        let mut window = self.window();
        window.add_up(self.totals(), epoch);
        let [canary, baseline] = window.sums();
        let grounds = judge(&canary, &baseline, rule)?;
        let aborted = Aborted {
            grounds: grounds.clone(),
            at: now,
        };
        let before = self.aborted_now().replace(aborted);
        self.is_aborted.store(true, Ordering::Relaxed);
        before.is_none().then_some(grounds)
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for worker in 0..self.workers.load(Ordering::Relaxed) {
            if let Some(shard) = self.shards.get(worker) {
                for (total, side) in totals.0.iter_mut().zip(&shard.0) {
                    side.add_to(total);
                }
            }
        }
        totals
    }

    fn tick(&self, now: Instant) -> u32 {
        let origin = *self.origin.get_or_init(|| now);
        let ticks = now.saturating_duration_since(origin).as_millis() / TICK.as_millis();
        u32::try_from(ticks).unwrap_or(u32::MAX).saturating_add(1)
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn aborted_now(&self) -> MutexGuard<'_, Option<Aborted>> {
        self.aborted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What both sides came to since the beginning: canary, then baseline.
#[derive(Clone, Debug, Default)]
struct Totals(Box<[Counts; 2]>);

/// One worker's counts since the beginning: canary, then baseline. Written by that worker alone, so
/// that adding needs no locked instruction.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard([Tally; 2]);

impl Shard {
    const fn of(&self, side: Side) -> &Tally {
        match side {
            Side::Canary => &self.0[0],
            Side::Baseline => &self.0[1],
        }
    }
}

#[derive(Debug)]
struct Tally {
    requests: AtomicU32,
    errors: AtomicU32,
    took: [AtomicU32; BUCKETS],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            requests: AtomicU32::new(0),
            errors: AtomicU32::new(0),
            took: [const { AtomicU32::new(0) }; BUCKETS],
        }
    }
}

impl Tally {
    fn count(&self, failed: bool, took: Duration) {
        let one_more = |count: &AtomicU32| {
            // Differences are what counts: they survive a wrap.
            count.store(
                count.load(Ordering::Relaxed).wrapping_add(1),
                Ordering::Relaxed,
            );
        };
        one_more(&self.requests);
        if failed {
            one_more(&self.errors);
        } else {
            one_more(&self.took[bucket(took)]);
        }
    }

    fn add_to(&self, total: &mut Counts) {
        let add = |sum: &mut u32, count: &AtomicU32| {
            *sum = sum.wrapping_add(count.load(Ordering::Relaxed));
        };
        add(&mut total.requests, &self.requests);
        add(&mut total.errors, &self.errors);
        for (sum, count) in total.took.iter_mut().zip(&self.took) {
            add(sum, count);
        }
    }
}

/// The last requests of both sides, in slices. At most [`SLICES`] of 3 KiB.
#[derive(Debug, Default)]
struct Window {
    /// When all was added up last.
    seen: Totals,
    /// The slice of that time.
    epoch: u32,
    slices: VecDeque<(u32, Totals)>,
}

impl Window {
    /// What came since the last time came in its slice: the first request of a new tick is what
    /// has all added up.
    fn add_up(&mut self, totals: Totals, epoch: u32) {
        let of = std::mem::replace(&mut self.epoch, epoch);
        while (self.slices.front()).is_some_and(|(of, _)| of + SLICES <= epoch) {
            self.slices.pop_front();
        }
        if of + SLICES > epoch {
            if self.slices.back().is_none_or(|(last, _)| *last != of) {
                self.slices.push_back((of, Totals::default()));
            }
            if let Some((_, slice)) = self.slices.back_mut() {
                let sides = slice.0.iter_mut().zip(totals.0.iter());
                for ((slice, total), seen) in sides.zip(self.seen.0.iter()) {
                    slice.add_difference(total, seen);
                }
            }
        }
        self.seen = totals;
    }

    fn sums(&self) -> [Counts; 2] {
        let mut sums = [Counts::default(), Counts::default()];
        let nothing = Counts::default();
        for (_, slice) in &self.slices {
            for (sum, side) in sums.iter_mut().zip(slice.0.iter()) {
                sum.add_difference(side, &nothing);
            }
        }
        sums
    }

    fn forget(&mut self, totals: Totals) {
        self.seen = totals;
        self.slices.clear();
    }
}

#[cfg(test)]
mod tests;
