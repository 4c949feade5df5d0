//! Consistent hashing with bounded load (Mirrokni, Thorup, Zadimoghaddam 2016): the same key to the
//! same endpoint, while that one has room.
//!
//! Made by [`view`](super::view) for each topology. A key's endpoint changes only when that one
//! leaves, is full, or a new one comes before it; the same on every node and in every process, as
//! places follow from names. Pure.

use std::net::IpAddr;

use super::balance::{Entry, mix};
use crate::config::{BalancePolicy, Balancing, HashKey};

/// Points for an endpoint of average weight: shares are then even within about a tenth.
const POINTS: u64 = 160;
/// Points of one ring. With so many endpoints that it is reached, each has fewer points, one at least.
const POINTS_MAX: u64 = 65_536;
/// An endpoint has room below so many times its share of what is in flight. At 1.25 a full
/// endpoint's keys find room after a few steps, and no endpoint has a quarter more than its share.
const BOUND: f64 = 1.25;

/// Points in the order of their places.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    points: Box<[(u64, u32)]>,
}

/// Where a key's request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// In the list of entries.
    pub(crate) at: usize,
    /// Endpoints before it that could be chosen had no room.
    pub(crate) moved_on: bool,
}

impl Ring {
    /// `endpoints`: names and weights, in the order of the view's candidates.
    pub(crate) fn new<'a>(endpoints: impl Iterator<Item = (&'a str, u32)> + Clone) -> Self {
        let (count, total) = endpoints
            .clone()
            .fold((0_u64, 0_u64), |(count, total), (_, weight)| {
                (count + 1, total + u64::from(weight))
            });
        let all = (count * POINTS).min(POINTS_MAX);
        let mut points = Vec::new();
        for (at, (name, weight)) in (0..).zip(endpoints) {
            let share = (all * u64::from(weight))
                .checked_div(total)
                .unwrap_or(all / count);
            let least = u64::from(weight > 0 || total == 0);
            let own = hash(name.as_bytes());
            let places = (0..share.max(least)).map(|point| mix(own ^ mix(point + 1)));
            points.extend(places.map(|place| (place, at)));
        }
        points.sort_unstable();
        Self {
            points: points.into(),
        }
    }

    /// The first entry from the key on that has room; if none has (they were counted at different
    /// moments), the first one. `None`: no entry is on the ring.
    ///
    /// `running`: in flight at all of them.
    pub(crate) fn find(
        &self,
        entries: &[Entry],
        key: u64,
        running: u32,
        in_flight: impl Fn(Entry) -> u32,
    ) -> Option<Place> {
        let total: u64 = entries.iter().map(|entry| u64::from(entry.weight)).sum();
        let has_room = |entry: Entry| in_flight(entry) < capacity(entry, running, total, entries);
        let begin = self.points.partition_point(|(place, _)| *place < key);
        let mut full: Option<usize> = None;
        let mut looked = 0;
        let (before, after) = self.points.split_at(begin);
        let mut last = None;
        for (_, candidate) in after.iter().chain(before) {
            if last.replace(*candidate) == Some(*candidate) {
                continue;
            }
            // Entries are in the order of candidates.
            let Ok(at) = entries.binary_search_by_key(candidate, |entry| entry.at) else {
                continue;
            };
            if has_room(entries[at]) {
                let moved_on = full.is_some_and(|first| first != at);
                return Some(Place { at, moved_on });
            }
            full.get_or_insert(at);
            looked += 1;
            if looked >= LOOK_MAX {
                break;
            }
        }
        let moved_on = false;
        full.map(|at| Place { at, moved_on })
    }
}

/// Full endpoints that are passed by before the first one is taken all the same.
const LOOK_MAX: usize = 64;

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a count, rounded up; a cast of a float saturates"
)]
fn capacity(entry: Entry, running: u32, total: u64, entries: &[Entry]) -> u32 {
    let share = if total == 0 {
        1.0 / entries.len() as f64
    } else {
        f64::from(entry.weight) / total as f64
    };
    // This request included.
    (BOUND * (f64::from(running) + 1.0) * share).ceil() as u32
}

/// FNV-1a with a finaliser: the same in every process. No defence against keys that are chosen to
/// collide; the bound on load is.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

/// What a client is found by where its pool hashes clients' addresses. `None`: it does not.
pub(crate) fn hash_of_client(balancing: &Balancing, address: IpAddr) -> Option<u64> {
    match &balancing.policy {
        BalancePolicy::RingHash(HashKey::ClientIp) => Some(hash_of_address(address)),
        _ => None,
    }
}

/// An IPv4 client is the same one when it comes over a socket of IPv6.
fn hash_of_address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => hash(&address.octets()),
        IpAddr::V6(address) => hash(&address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(names: &[String]) -> Ring {
        Ring::new(names.iter().map(|name| (&**name, 100)))
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|at| format!("10.0.0.{at}:8080")).collect()
    }

    fn entries(places: impl IntoIterator<Item = u32>) -> Vec<Entry> {
        let entry = |at| Entry { at, weight: 100 };
        places.into_iter().map(entry).collect()
    }

    const KEYS: u64 = 20_000;

    fn key(number: u64) -> u64 {
        hash(&number.to_be_bytes())
    }

    #[test]
    fn keys_share_evenly_and_by_weight() {
        let names = names(10);
        let all = entries(0..10);
        let (even, mut shares) = (ring(&names), [0.0; 10]);
        for number in 0..KEYS {
            shares[even.find(&all, key(number), 0, |_| 0).unwrap().at] += 10.0 / KEYS as f64;
        }
        assert!(
            shares.iter().all(|share| (0.75..1.25).contains(share)),
            "{shares:?}"
        );

        let weighted = Ring::new(names[..2].iter().map(|name| &**name).zip([100, 300]));
        let two = [Entry { at: 0, weight: 100 }, Entry { at: 1, weight: 300 }];
        let heavy = (0..KEYS).filter(|n| weighted.find(&two, key(*n), 100, |_| 0).unwrap().at == 1);
        let heavy = heavy.count() as f64 / KEYS as f64;
        assert!((0.68..0.82).contains(&heavy), "{heavy}");
    }

    #[test]
    fn only_the_keys_of_the_one_that_leaves_move() {
        let ring = ring(&names(10));
        let (all, without) = (entries(0..10), entries((0..10).filter(|at| *at != 3)));
        for number in 0..KEYS {
            let before = all[ring.find(&all, key(number), 0, |_| 0).unwrap().at].at;
            let after = without[ring.find(&without, key(number), 0, |_| 0).unwrap().at].at;
            assert!(before == 3 || before == after);
        }
    }

    #[test]
    fn a_new_endpoint_takes_its_share_and_moves_nothing_else() {
        let (old, new) = (ring(&names(9)), ring(&names(10)));
        let (nine, ten) = (entries(0..9), entries(0..10));
        let mut moved = 0;
        for number in 0..KEYS {
            let before = nine[old.find(&nine, key(number), 0, |_| 0).unwrap().at].at;
            let after = ten[new.find(&ten, key(number), 0, |_| 0).unwrap().at].at;
            if after != before {
                assert_eq!(after, 9);
                moved += 1;
            }
        }
        let share = f64::from(moved) / KEYS as f64;
        assert!((0.07..0.13).contains(&share), "{share}");
    }

    #[test]
    fn no_endpoint_gets_a_quarter_more_than_its_share_however_popular_its_keys() {
        let ring = ring(&names(10));
        let all = entries(0..10);
        let mut loads = [0_u32; 10];
        // One key has nine in ten requests, and none of them ends.
        for number in 0..1_000_u32 {
            let key = if number % 10 == 0 {
                key(number.into())
            } else {
                key(7)
            };
            let found = ring.find(&all, key, number, |entry| loads[entry.at as usize]);
            loads[found.unwrap().at] += 1;
        }
        assert!(loads.iter().all(|load| *load <= 126), "{loads:?}");
    }

    #[test]
    fn a_mapped_address_is_the_same_client() {
        let hash = |address: &str| hash_of_address(address.parse().unwrap());

        assert_eq!(hash("192.0.2.7"), hash("::ffff:192.0.2.7"));
        assert_ne!(hash("192.0.2.7"), hash("192.0.2.8"));
    }

    #[test]
    fn a_ring_without_entries_finds_nothing_and_one_without_weights_shares() {
        let ring = Ring::new(names(2).iter().map(|name| (&**name, 0)));
        assert_eq!(ring.find(&[], 1, 0, |_| 0), None);
        let both = [Entry { at: 0, weight: 0 }, Entry { at: 1, weight: 0 }];
        let seen: std::collections::BTreeSet<_> = (0..100)
            .map(|n| ring.find(&both, key(n), 0, |_| 0).unwrap().at)
            .collect();
        assert_eq!(seen.len(), 2);
    }
}
