//! How long a route's attempts take from their beginning to the answer's head: quantiles of the last
//! half minute.
//!
//! Written by `http::attempt` and `http::hedge` at an attempt's end, read before the next one: when
//! to hedge, when to give up. Each worker counts for itself, without a lock or a line of memory that
//! another one writes; once a second one of them adds all up. Reads no clock, decides nothing.
//!
//! The buckets are those of `HdrHistogram` (log-linear, Tene 2014); its crate has no reader beside
//! the writer, and would need a lock here.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::config::Percentile;
use crate::slots::Slots;

/// How far back attempts count: what was true before says little about a service under change.
pub(crate) const WINDOW_SECS: u32 = SLICE_SECS * SLICES as u32;
/// Attempts within the window from which quantiles are believed: a 99th percentile of fewer is one
/// attempt's luck.
pub(crate) const SAMPLES_MIN: u32 = 100;

/// The window moves by this.
const SLICE_SECS: u32 = 5;
const SLICES: usize = 6;
/// Buckets of each power of two: a quantile is at most a sixteenth too high, never too low.
const STEPS_LOG2: u32 = 4;
const STEPS: u64 = 1 << STEPS_LOG2;
/// 2^27 µs are 134 s; longer ones count as so long.
const HIGHEST_LOG2: u32 = 27;
pub(super) const BUCKETS: usize = ((HIGHEST_LOG2 - STEPS_LOG2 + 1) as usize) << STEPS_LOG2;

/// One route's attempts, over all workers. 10 KiB for each worker that ever carried one.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// The first `now` ever seen: second 1.
    origin: OnceLock<Instant>,
    /// By worker.
    shards: Slots<Box<Shard>>,
    /// Of the numbers of workers, the first that none had yet.
    workers: AtomicU32,
    /// What all of them came to, and in which second.
    added_up: AtomicU32,
    samples: AtomicU32,
    micros: [AtomicU32; Percentile::ALL.len()],
}

impl Latency {
    /// An attempt took so long, or at least so long: one that was given up counts with the time that
    /// it had, or slow endpoints would look the faster the sooner they are left.
    ///
    /// `worker`: whose turn it is; no other thread may say the same number.
    pub(crate) fn record(&self, worker: u32, took: Duration, now: Instant) {
        let second = self.second(now);
        let shard = self.shards.get_or_make(worker, || {
            self.workers.fetch_max(worker + 1, Ordering::Relaxed);
            Box::default()
        });
        shard.count(bucket(took), second);
        let last = self.added_up.load(Ordering::Relaxed);
        if second > last
            && self
                .added_up
                .compare_exchange(last, second, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.add_up(second);
        }
    }

    /// What this share of the attempts stayed within, up to a sixteenth; `None` while too few are
    /// known.
    pub(crate) fn quantile(&self, which: Percentile, now: Instant) -> Option<Duration> {
        let age = self
            .second(now)
            .saturating_sub(self.added_up.load(Ordering::Relaxed));
        let believed = self.samples.load(Ordering::Relaxed) >= SAMPLES_MIN && age <= WINDOW_SECS;
        let micros = self.micros[which as usize].load(Ordering::Relaxed);
        believed.then(|| Duration::from_micros(micros.into()))
    }

    /// Takes some microseconds. Workers that go on counting meanwhile are seen or not.
    fn add_up(&self, second: u32) {
        let mut sums = [0_u64; BUCKETS];
        let workers = 0..self.workers.load(Ordering::Relaxed);
        for shard in workers.filter_map(|worker| self.shards.get(worker)) {
            shard.add_to(&mut sums, second);
        }
        let total: u64 = sums.iter().sum();
        for which in Percentile::ALL {
            let micros = u32::try_from(quantile_of(&sums, total, which)).unwrap_or(u32::MAX);
            self.micros[which as usize].store(micros, Ordering::Relaxed);
        }
        let samples = u32::try_from(total).unwrap_or(u32::MAX);
        self.samples.store(samples, Ordering::Relaxed);
    }

    fn second(&self, now: Instant) -> u32 {
        let origin = *self.origin.get_or_init(|| now);
        let elapsed = now.saturating_duration_since(origin).as_secs();
        u32::try_from(elapsed).unwrap_or(u32::MAX).saturating_add(1)
    }
}

/// One worker's counts. Written by that worker alone, so that adding needs no locked instruction.
#[derive(Debug)]
#[repr(align(64))]
struct Shard {
    slices: [Slice; SLICES],
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            slices: [const { Slice::new() }; SLICES],
        }
    }
}

#[derive(Debug)]
struct Slice {
    /// Which five seconds these are; 0: none yet.
    epoch: AtomicU32,
    counts: [AtomicU32; BUCKETS],
}

impl Slice {
    const fn new() -> Self {
        Self {
            epoch: AtomicU32::new(0),
            counts: [const { AtomicU32::new(0) }; BUCKETS],
        }
    }
}

impl Shard {
    fn count(&self, bucket: usize, second: u32) {
        let epoch = epoch_of(second);
        let slice = &self.slices[epoch as usize % SLICES];
        if slice.epoch.load(Ordering::Relaxed) != epoch {
            for count in &slice.counts {
                count.store(0, Ordering::Relaxed);
            }
            slice.epoch.store(epoch, Ordering::Relaxed);
        }
        let count = &slice.counts[bucket];
        let more = count.load(Ordering::Relaxed).saturating_add(1);
        count.store(more, Ordering::Relaxed);
    }

    fn add_to(&self, sums: &mut [u64; BUCKETS], second: u32) {
        let now = epoch_of(second);
        for slice in &self.slices {
            let epoch = slice.epoch.load(Ordering::Relaxed);
            if epoch == 0 || epoch + (SLICES as u32) <= now {
                continue;
            }
            for (sum, count) in sums.iter_mut().zip(&slice.counts) {
                *sum += u64::from(count.load(Ordering::Relaxed));
            }
        }
    }
}

/// From 1 on.
const fn epoch_of(second: u32) -> u32 {
    second / SLICE_SECS + 1
}

pub(super) fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let micros = micros.min((1 << HIGHEST_LOG2) - 1);
    if micros < STEPS {
        return micros as usize;
    }
    let shift = micros.ilog2() - STEPS_LOG2;
    let step = (micros >> shift) & (STEPS - 1);
    (u64::from(shift + 1) * STEPS + step) as usize
}

/// The first duration that is beyond the bucket, in microseconds.
pub(super) const fn end_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket + 1;
    }
    let shift = bucket / STEPS - 1;
    (STEPS + bucket % STEPS + 1) << shift
}

fn quantile_of(sums: &[u64; BUCKETS], total: u64, which: Percentile) -> u64 {
    let within = (total * which.percent()).div_ceil(100);
    let mut seen = 0;
    for (bucket, count) in sums.iter().enumerate() {
        seen += count;
        if seen >= within {
            return end_of(bucket);
        }
    }
    end_of(BUCKETS - 1)
}

#[cfg(test)]
mod tests;
