//! How many requests each tenant of a route has in flight.
//!
//! One entry for each tenant that has any: as many as there are requests, whatever names they bear.
//! Shared by all workers; a lock of many is held for one look-up.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many locks: tenants that are busy at once seldom meet.
const SHARDS: usize = 32;

#[derive(Debug)]
pub(crate) struct Tenants {
    max: AtomicU32,
    hasher: RandomState,
    /// By the tenant's hash: two of the same 64 bits would count together.
    shards: [Mutex<HashMap<u64, u32>>; SHARDS],
}

/// One request of one tenant.
#[derive(Debug)]
#[must_use = "dropped at once, it counts nothing"]
pub(crate) struct TenantPlace {
    tenants: Arc<Tenants>,
    hash: u64,
}

impl Tenants {
    pub(crate) fn new(max: u32) -> Arc<Self> {
        Arc::new(Self {
            max: AtomicU32::new(max),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        })
    }

    pub(crate) fn set_max(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// `None`: the tenant has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, tenant: &[u8]) -> Option<TenantPlace> {
        let hash = self.hasher.hash_one(tenant);
        let mut shard = self.shard(hash);
        let count = shard.get(&hash).copied().unwrap_or_default();
        if count >= self.max.load(Ordering::Relaxed) {
            return None;
        }
        shard.insert(hash, count + 1);
        Some(TenantPlace {
            tenants: Arc::clone(self),
            hash,
        })
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, HashMap<u64, u32>> {
        let at = (hash >> 32) as usize % SHARDS;
        // A count that a panic left behind is still a count.
        self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Tenants that have requests in flight.
    #[cfg(test)]
    fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| shard.lock().unwrap().len()).sum()
    }
}

impl Drop for TenantPlace {
    fn drop(&mut self) {
        let mut shard = self.tenants.shard(self.hash);
        match shard.get_mut(&self.hash) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = shard.remove(&self.hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenant_has_places_of_its_own_and_none_is_remembered() {
        let tenants = Tenants::new(2);
        let first = tenants.enter(b"a").unwrap();
        let second = tenants.enter(b"a").unwrap();
        assert!(tenants.enter(b"a").is_none());
        let other = tenants.enter(b"b").unwrap();
        assert_eq!(tenants.len(), 2);

        drop(first);
        let third = tenants.enter(b"a").unwrap();
        drop((second, third, other));
        assert_eq!(tenants.len(), 0);
    }

    #[test]
    fn a_million_tenants_that_came_and_went_leave_nothing() {
        let tenants = Tenants::new(1);
        for number in 0..1_000_000_u32 {
            drop(tenants.enter(&number.to_be_bytes()).unwrap());
        }
        assert_eq!(tenants.len(), 0);
        let capacity = |shard: &Mutex<HashMap<u64, u32>>| shard.lock().unwrap().capacity();
        assert!(tenants.shards.iter().map(capacity).sum::<usize>() < 1_000);
    }
}
