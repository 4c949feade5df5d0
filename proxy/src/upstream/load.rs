//! What all workers know of each endpoint: how much it is doing for us right now, and its [`Mark`].
//!
//! Written by whoever begins an attempt and by [`court`](super::court), read by
//! [`select`](super::select); a [`LoadGuard`] lets go by itself, so that a cancelled attempt cannot be
//! forgotten. Never decides anything.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use sealane_model::{EndpointId, ObservationSender, PoolId, RegionId};

use super::court::Court;
use super::mark::Mark;
use super::room::Meter;
use crate::slots::Slots;

/// One entry for each endpoint that was ever used, and none is forgotten: ids are handed out once a
/// process and remembered by the reader of the configuration, so this grows as slowly as that. A
/// load that is never looked up anew is right whatever was reloaded meanwhile.
#[derive(Debug, Default)]
pub(crate) struct LoadTable {
    loads: Slots<Load>,
    /// By pool; as slow to grow.
    courts: Slots<Court>,
    /// By pool and region, of pools with a capacity; as slow to grow.
    meters: Slots<Slots<Meter>>,
    /// Endpoints whose mark is not plain: while there are none, nobody looks at marks.
    marked: AtomicUsize,
    /// The first moment ever seen: millisecond 0.
    origin: OnceLock<Instant>,
    /// Where conclusions about endpoints are told. Unset: nowhere.
    observations: OnceLock<ObservationSender>,
}

/// One endpoint's load: as many attempts are in flight as there are guards that share this.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load(Arc<Line>);

/// What is seldom written; the count of those that share it, which different workers change all the
/// time, lies before it in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line {
    /// Workers that hold this without an attempt in flight.
    held: AtomicUsize,
    mark: AtomicU64,
    /// Its Peak-EWMA as some worker saw it last, in microseconds; for `explain` only.
    micros: AtomicU32,
}

impl Load {
    /// Attempts of all workers that run at this endpoint now.
    pub(crate) fn in_flight(&self) -> u32 {
        // The table's own handle is no attempt.
        let idle = self.0.held.load(Ordering::Relaxed) + 1;
        let sharing = Arc::strong_count(&self.0);
        u32::try_from(sharing.saturating_sub(idle)).unwrap_or(u32::MAX)
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark::unpack(self.0.mark.load(Ordering::Relaxed))
    }

    /// Sends one request on trial, if one may be sent now.
    pub(crate) fn try_out(&self, now: u64, repeatable: bool) -> bool {
        let mark = self.mark();
        let Some(next) = mark.try_out(now, repeatable) else {
            return false;
        };
        // Another worker may have been first; then it is that one's trial.
        let (old, new) = (mark.pack(), next.pack());
        let order = Ordering::Relaxed;
        let swapped = self.0.mark.compare_exchange(old, new, order, order);
        swapped.is_ok()
    }

    /// In microseconds. `None`: nothing was seen yet.
    fn micros(&self) -> Option<f32> {
        let micros = f32::from_bits(self.0.micros.load(Ordering::Relaxed));
        (micros > 0.0).then_some(micros)
    }

    pub(crate) fn say_micros(&self, micros: f32) {
        self.0.micros.store(micros.to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn begin(&self) -> LoadGuard {
        LoadGuard {
            _counted: self.clone(),
        }
    }
}

impl LoadTable {
    fn of(&self, endpoint: EndpointId) -> &Load {
        self.loads.get_or_make(slot(endpoint), Load::default)
    }

    /// For a worker to keep; counts as no attempt.
    pub(crate) fn hold(&self, endpoint: EndpointId) -> Load {
        let load = self.of(endpoint);
        load.0.held.fetch_add(1, Ordering::Relaxed);
        load.clone()
    }

    pub(crate) fn court(&self, pool: PoolId) -> &Court {
        let slot = u32::try_from(pool.index()).unwrap_or(u32::MAX);
        self.courts.get_or_make(slot, Court::default)
    }

    /// What went to a region with a capacity.
    pub(crate) fn meter(&self, pool: PoolId, region: RegionId) -> &Meter {
        let index = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        let regions = self.meters.get_or_make(index(pool.index()), Slots::default);
        regions.get_or_make(index(region.index()), Meter::default)
    }

    /// Is there any mark to look at?
    pub(crate) fn has_marks(&self) -> bool {
        self.marked.load(Ordering::Relaxed) > 0
    }

    /// Called by the endpoint's court alone, under its lock.
    pub(crate) fn set_mark(&self, endpoint: EndpointId, mark: Mark) {
        let word = mark.pack();
        let old = self.of(endpoint).0.mark.swap(word, Ordering::Relaxed);
        if old == 0 && word != 0 {
            self.marked.fetch_add(1, Ordering::Relaxed);
        } else if old != 0 && word == 0 {
            self.marked.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn mark(&self, endpoint: EndpointId) -> Mark {
        self.loads
            .get(slot(endpoint))
            .map_or(Mark::Plain, Load::mark)
    }

    pub(crate) fn micros(&self, endpoint: EndpointId) -> Option<f32> {
        self.loads.get(slot(endpoint))?.micros()
    }

    /// Milliseconds on the clock that marks are written by.
    pub(crate) fn millis(&self, now: Instant) -> u64 {
        let origin = self.origin.get_or_init(|| now);
        let passed = now.saturating_duration_since(*origin);
        passed.as_secs() * 1_000 + u64::from(passed.subsec_millis())
    }

    /// To be told once, before the first request.
    pub(crate) fn report_to(&self, observations: ObservationSender) {
        // A second one would be the first one's clone.
        let _ = self.observations.set(observations);
    }

    pub(crate) fn observations(&self) -> Option<&ObservationSender> {
        self.observations.get()
    }

    /// Counts an attempt until the guard is dropped.
    pub(crate) fn begin(&self, endpoint: EndpointId) -> LoadGuard {
        self.of(endpoint).begin()
    }

    /// Attempts that run at this endpoint now; 0 for one that was never used.
    pub(crate) fn in_flight(&self, endpoint: EndpointId) -> u32 {
        self.loads.get(slot(endpoint)).map_or(0, Load::in_flight)
    }
}

/// Lossless: an id has 32 bits.
const fn slot(endpoint: EndpointId) -> u32 {
    endpoint.index() as u32
}

/// One attempt in flight. Dropping it is what ends the attempt for the balancer.
#[derive(Debug)]
#[must_use = "dropped at once, it counts nothing"]
pub(crate) struct LoadGuard {
    _counted: Load,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(index: usize) -> EndpointId {
        EndpointId::from_index(index).unwrap()
    }

    #[test]
    fn an_attempt_counts_until_its_guard_is_dropped() {
        let table = LoadTable::default();

        let first = table.begin(endpoint(7));
        let second = table.begin(endpoint(7));
        assert_eq!(table.in_flight(endpoint(7)), 2);
        assert_eq!(table.in_flight(endpoint(8)), 0);

        drop(first);
        assert_eq!(table.in_flight(endpoint(7)), 1);
        drop(second);
        assert_eq!(table.in_flight(endpoint(7)), 0);
    }

    #[test]
    fn workers_at_once_leave_no_load_behind() {
        let table = LoadTable::default();

        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..5_000 {
                        drop(table.begin(endpoint(round % 100)));
                    }
                });
            }
        });

        for index in 0..100 {
            assert_eq!(table.in_flight(endpoint(index)), 0);
        }
    }

    #[test]
    fn no_two_endpoints_share_a_cache_line() {
        let table = LoadTable::default();
        let line = |index| std::ptr::from_ref(&*table.of(endpoint(index)).0) as usize / 64;

        for index in 1..100 {
            assert_ne!(line(index), line(index - 1));
        }
    }
}
