//! Signatures of steered sets, kept for all threads that answer: a table that only grows, within a
//! bound, and is read without a lock.
//!
//! Belongs to one compiled zone; the next one takes over what was used. Makes nothing itself.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::sign::{Set, Signature};

/// Places for signatures: this many for each steered name, …
const PLACES_PER_NAME: usize = 64;
/// … within these bounds (powers of two). Full, a set is signed for each answer, as the allowance
/// lets, until the zone is compiled anew without what was not used.
const PLACES_LEAST: usize = 1_024;
const PLACES_MOST: usize = 65_536;
/// Places that one key may be at.
const PROBES: usize = 16;

/// Owner, type, TTL and data, in order: what tells sets apart.
pub(super) type KeptKey = SmallVec<[u8; 512]>;

/// `set`'s data must be in order, without duplicates.
pub(super) fn key(set: &Set<'_>) -> KeptKey {
    let mut key = KeptKey::new();
    key.extend_from_slice(&set.rtype.to_be_bytes());
    key.extend_from_slice(&set.ttl.to_be_bytes());
    key.extend_from_slice(set.owner);
    for data in &set.data {
        key.extend_from_slice(&(data.len() as u32).to_be_bytes());
        key.extend_from_slice(data);
    }
    key
}

#[derive(Debug)]
pub(crate) struct Kept {
    /// A power of two of them.
    places: Box<[OnceLock<Box<Entry>>]>,
    /// Signatures that may still be made until the next refill.
    allowance: AtomicU32,
    full: AtomicBool,
    pub(crate) made: AtomicU64,
    pub(crate) refused: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Entry {
    hash: u64,
    pub(super) key: Box<[u8]>,
    pub(super) signature: Signature,
    used: AtomicBool,
}

impl Kept {
    pub(super) fn for_names(names: usize, allowance: u32) -> Self {
        let places = (names * PLACES_PER_NAME)
            .next_power_of_two()
            .clamp(PLACES_LEAST, PLACES_MOST);
        // A zone without steered names signs nothing on the way.
        let places = if names == 0 { 1 } else { places };
        Self {
            places: std::iter::repeat_with(OnceLock::new).take(places).collect(),
            allowance: AtomicU32::new(allowance),
            full: AtomicBool::new(false),
            made: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Signature> {
        let hash = xxh3_64(key);
        for place in self.probe(hash) {
            // Places are filled in order: behind an empty one there is nothing.
            let entry = place.get()?;
            if entry.hash == hash && *entry.key == *key {
                if !entry.used.load(Ordering::Relaxed) {
                    entry.used.store(true, Ordering::Relaxed);
                }
                return Some(&entry.signature);
            }
        }
        None
    }

    /// Keeps a signature; gives it back when there is no room.
    pub(super) fn put(
        &self,
        key: &[u8],
        signature: Signature,
        is_used: bool,
    ) -> Result<(), Signature> {
        let hash = xxh3_64(key);
        let mut entry = Box::new(Entry {
            hash,
            key: key.into(),
            signature,
            used: AtomicBool::new(is_used),
        });
        for place in self.probe(hash) {
            match place.set(entry) {
                Ok(()) => return Ok(()),
                Err(back) => entry = back,
            }
            // Another thread may have put the same one.
            let there = place.get();
            if there.is_some_and(|there| there.hash == hash && there.key == entry.key) {
                return Ok(());
            }
        }
        self.full.store(true, Ordering::Relaxed);
        Err(entry.signature)
    }

    fn probe(&self, hash: u64) -> impl Iterator<Item = &OnceLock<Box<Entry>>> {
        let mask = self.places.len() - 1;
        let probes = PROBES.min(self.places.len());
        (0..probes).map(move |step| &self.places[(hash as usize).wrapping_add(step) & mask])
    }

    /// Whether one more signature may be made now.
    pub(super) fn allow(&self) -> bool {
        let taken = self
            .allowance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        if taken.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    pub(super) fn refill(&self, allowance: u32) {
        self.allowance.store(allowance, Ordering::Relaxed);
    }

    /// Something found no room since the table was made.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(super) fn used(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.places.iter().filter_map(OnceLock::get);
        entries
            .map(AsRef::as_ref)
            .filter(|entry| entry.used.load(Ordering::Relaxed))
    }

    pub(crate) fn len(&self) -> usize {
        self.places
            .iter()
            .filter(|place| place.get().is_some())
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dnssec::timing::Moment;

    fn signature(number: u64) -> Signature {
        Signature {
            wire: Box::default(),
            count: 1,
            expiration: Moment(number),
        }
    }

    #[test]
    fn what_is_put_is_found_until_there_is_no_room() {
        let kept = Kept::for_names(1, 0);
        let mut found = 0;
        for number in 0..2_000_u64 {
            let key = number.to_be_bytes();
            assert!(kept.get(&key).is_none());
            let _ = kept.put(&key, signature(number), false);
            if let Some(there) = kept.get(&key) {
                assert_eq!(there.expiration, Moment(number));
                found += 1;
            }
        }
        assert!((700..=1_024).contains(&found), "{found}");
        assert!(kept.is_full() && kept.len() == found);
        // Looked at, so used.
        assert_eq!(kept.used().count(), found);
    }

    #[test]
    fn the_first_of_two_equal_ones_stays() {
        let kept = Kept::for_names(1, 0);
        kept.put(b"key", signature(1), false).unwrap();
        kept.put(b"key", signature(2), true).unwrap();
        assert_eq!((kept.len(), kept.used().count()), (1, 0));
        assert_eq!(kept.get(b"key"), Some(&signature(1)));
    }

    #[test]
    fn the_allowance_is_a_bound() {
        let kept = Kept::for_names(1, 2);
        assert_eq!(
            [kept.allow(), kept.allow(), kept.allow()],
            [true, true, false]
        );
        kept.refill(1);
        assert_eq!([kept.allow(), kept.allow()], [true, false]);
        assert_eq!(kept.refused.load(Ordering::Relaxed), 2);
    }
}
