//! How much each endpoint is doing for us right now: requests in flight, over all workers.
//!
//! Written by whoever begins an attempt, read by [`select`](super::select); a [`LoadGuard`] lets go
//! by itself, so that a cancelled attempt cannot be forgotten. Never decides anything.

use std::sync::Arc;

use sealane_model::EndpointId;

use crate::slots::Slots;

/// One entry for each endpoint that was ever used, and none is forgotten: ids are handed out once a
/// process and remembered by the reader of the configuration, so this grows as slowly as that. A
/// load that is never looked up anew is right whatever was reloaded meanwhile.
#[derive(Debug, Default)]
pub(crate) struct LoadTable {
    loads: Slots<Load>,
}

/// One endpoint's load: as many attempts are in flight as there are guards that share this.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load(Arc<OwnCacheLine>);

/// Keeps the counts of two endpoints, which different workers change, out of one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct OwnCacheLine;

impl LoadTable {
    fn of(&self, endpoint: EndpointId) -> &Load {
        self.loads.get_or_make(slot(endpoint), Load::default)
    }

    /// Counts an attempt until the guard is dropped.
    pub(crate) fn begin(&self, endpoint: EndpointId) -> LoadGuard {
        LoadGuard {
            _counted: self.of(endpoint).clone(),
        }
    }

    /// Attempts that run at this endpoint now; 0 for one that was never used.
    pub(crate) fn in_flight(&self, endpoint: EndpointId) -> u32 {
        let load = self.loads.get(slot(endpoint));
        // The table's own handle is no attempt.
        load.map_or(0, |load| Arc::strong_count(&load.0).saturating_sub(1))
            .try_into()
            .unwrap_or(u32::MAX)
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
