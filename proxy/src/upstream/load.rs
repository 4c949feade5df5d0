//! How much each endpoint is doing for us right now: requests in flight, over all workers.
//!
//! Written by whoever begins an attempt, read by [`select`](super::select); a [`LoadGuard`] lets go
//! by itself, so that a cancelled attempt cannot be forgotten. Never decides anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dashmap::DashMap;
use sealane_model::EndpointId;

/// At most one entry for each endpoint that was used since the last [`LoadTable::keep_only`]:
/// bounded by the configuration, not by traffic.
#[derive(Debug, Default)]
pub(crate) struct LoadTable {
    loads: DashMap<EndpointId, Arc<Load>>,
}

#[derive(Debug, Default)]
struct Load {
    in_flight: AtomicU32,
}

impl LoadTable {
    /// Counts an attempt until the guard is dropped.
    pub(crate) fn begin(&self, endpoint: EndpointId) -> LoadGuard {
        let known = self.loads.get(&endpoint).map(|load| Arc::clone(&load));
        let load = known.unwrap_or_else(|| Arc::clone(&self.loads.entry(endpoint).or_default()));
        load.in_flight.fetch_add(1, Ordering::Relaxed);
        LoadGuard { load }
    }

    /// Attempts that run at this endpoint now; 0 for one that was never used.
    pub(crate) fn in_flight(&self, endpoint: EndpointId) -> u32 {
        let load = self.loads.get(&endpoint);
        load.map_or(0, |load| load.in_flight.load(Ordering::Relaxed))
    }

    /// Forgets the endpoints that are gone and idle. One that is still busy stays until the next
    /// sweep: if it comes back meanwhile, its count is still right.
    pub(crate) fn keep_only(&self, exists: impl Fn(EndpointId) -> bool) {
        self.loads
            .retain(|endpoint, load| exists(*endpoint) || Arc::strong_count(load) > 1);
    }

    /// How many endpoints are remembered.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.loads.len()
    }
}

/// One attempt in flight. Dropping it is what ends the attempt for the balancer.
#[derive(Debug)]
#[must_use = "dropped at once, it counts nothing"]
pub(crate) struct LoadGuard {
    load: Arc<Load>,
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
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
    fn a_sweep_forgets_the_gone_and_idle_and_keeps_count_of_the_busy() {
        let table = LoadTable::default();
        drop(table.begin(endpoint(1)));
        let busy = table.begin(endpoint(2));
        drop(table.begin(endpoint(3)));

        table.keep_only(|id| id == endpoint(3));
        assert_eq!(table.len(), 2);
        assert_eq!(table.in_flight(endpoint(2)), 1);

        drop(busy);
        table.keep_only(|id| id == endpoint(3));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn workers_and_sweeps_at_once_leave_no_load_behind() {
        let table = LoadTable::default();

        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..5_000 {
                        drop(table.begin(endpoint(round % 3)));
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..500 {
                    table.keep_only(|_| false);
                }
            });
        });

        for index in 0..3 {
            assert_eq!(table.in_flight(endpoint(index)), 0);
        }
    }
}
