//! Which attempts are under way that others may join, over all workers of the process.
//!
//! Sharded; a lock is held for one look-up. Decides nothing about requests: see [`super::key`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Part;
use super::flight::{Bounds, Closed, Flight, Lead, Reader};

const SHARDS: usize = 64;
/// Attempts under way in the process that others may join, and answers that are remembered as not to
/// be shared. Beyond it, what is remembered is forgotten first; then further requests have attempts
/// of their own.
pub(crate) const FLIGHTS_MAX: usize = 64 * 256;
/// How long it is remembered that the answers to a request are not to be shared: meanwhile nobody
/// waits for them in vain.
pub(super) const APART_FOR: Duration = Duration::from_secs(10);

/// See the module. The hash is keyed: nobody outside can fill one shard.
#[derive(Default)]
pub(crate) struct Flights {
    shards: Shards,
    hash: RandomState,
    held_by_all: Arc<AtomicUsize>,
}

struct Shards([Mutex<Shard>; SHARDS]);

impl Default for Shards {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

type Shard = HashMap<Arc<[u8]>, Known>;

enum Known {
    Flying(Arc<Flight>),
    /// Answers are not shared until then.
    Apart(Instant),
}

/// What a request is to do.
pub(super) enum Turn {
    /// Begin an attempt that others may join, and read its answer.
    Lead(Lead, Reader),
    Follow(Reader),
    Alone(Part),
}

impl Flights {
    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        // Lossless enough: any bits will do.
        let at = self.hash.hash_one(key) as usize % SHARDS;
        let shard = self.shards.0[at].lock();
        shard.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn turn(&self, key: &[u8], bounds: Bounds, now: Instant) -> Turn {
        let mut shard = self.shard(key);
        match shard.get(key) {
            Some(Known::Flying(flight)) => match flight.join(now) {
                Ok(reader) => return Turn::Follow(reader),
                Err(Closed::Full) => return Turn::Alone(Part::Full),
                Err(Closed::Late) => {}
            },
            Some(Known::Apart(until)) if now < *until => return Turn::Alone(Part::Known),
            Some(Known::Apart(_)) | None => {}
        }
        let is_new = !shard.contains_key(key);
        if is_new && shard.len() >= FLIGHTS_MAX / SHARDS {
            shard.retain(|_, known| matches!(known, Known::Flying(_)));
            if shard.len() >= FLIGHTS_MAX / SHARDS {
                return Turn::Alone(Part::Crowded);
            }
        }
        let key: Arc<[u8]> = key.into();
        let (flight, reader) = Flight::begin(Arc::clone(&key), bounds, &self.held_by_all);
        shard.insert(key, Known::Flying(Arc::clone(&flight)));
        Turn::Lead(Lead(flight), reader)
    }

    /// Nobody is to join it any more. `apart_until`: nor any other one for the same, until then.
    pub(super) fn close(&self, flight: &Arc<Flight>, apart_until: Option<Instant>) {
        let mut shard = self.shard(&flight.key);
        // A later one may have taken its place.
        if let Entry::Occupied(mut entry) = shard.entry(Arc::clone(&flight.key))
            && matches!(entry.get(), Known::Flying(known) if Arc::ptr_eq(known, flight))
        {
            match apart_until {
                Some(until) => _ = entry.insert(Known::Apart(until)),
                None => _ = entry.remove(),
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let shards = self.shards.0.iter();
        shards.map(|shard| shard.lock().unwrap().len()).sum()
    }
}

#[cfg(test)]
mod tests;
