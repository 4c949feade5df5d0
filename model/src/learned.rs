//! How far clients are from this node: what their connections tell, and what is concluded from it.
//!
//! Workers of the proxy note the round trip of a connection once, each in a list of its own that control
//! empties now and then ([`Distances`]). What control concludes stands in each snapshot ([`Learned`]), by
//! client networks. Concludes nothing itself.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::id::RegionId;
use crate::unit::ScopePrefix;

/// Clients of one network of this size are taken to be equally far: a /24 is the longest prefix that is
/// routed by itself, and a /48 is one site (RFC 6177).
pub const NETWORK_V4: u8 = 24;
pub const NETWORK_V6: u8 = 48;

/// Round trips that wait in one worker's list until control takes them, every few seconds. While it is full,
/// connections are not looked at: what is learned needs some of them, not all.
pub const ROUND_TRIPS_WAITING_MAX: usize = 1_024;

/// Whoever wants to know how far clients are holds one of these; clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Distances(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    wanted: AtomicBool,
    workers: Mutex<Vec<Arc<Waiting>>>,
}

type Waiting = Mutex<Vec<RoundTrip>>;

/// One worker's list.
#[derive(Debug)]
pub struct Notebook {
    shared: Arc<Shared>,
    waiting: Arc<Waiting>,
}

/// What one connection told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    pub client: IpAddr,
    pub time: Duration,
}

impl Distances {
    /// A list for one more worker.
    #[must_use]
    pub fn notebook(&self) -> Notebook {
        let waiting = Arc::<Waiting>::default();
        lock(&self.0.workers).push(Arc::clone(&waiting));
        Notebook {
            shared: Arc::clone(&self.0),
            waiting,
        }
    }

    /// Does anybody learn from them? Until this was said, nothing is noted.
    pub fn want(&self, wanted: bool) {
        self.0.wanted.store(wanted, Ordering::Relaxed);
    }

    /// All that workers have noted since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<RoundTrip> {
        let mut workers = lock(&self.0.workers);
        let taken = workers.iter().map(|one| std::mem::take(&mut *lock(one)));
        let taken = taken.flatten().collect();
        // Those whose worker is gone.
        workers.retain(|one| Arc::strong_count(one) > 1);
        taken
    }
}

impl Notebook {
    /// Notes the round trip of a connection with this client, which is only then asked for when it is of use.
    pub fn note(&self, client: IpAddr, time: impl FnOnce() -> Option<Duration>) {
        if !self.shared.wanted.load(Ordering::Relaxed) || self.is_full() {
            return;
        }
        if let Some(time) = time() {
            lock(&self.waiting).push(RoundTrip { client, time });
        }
    }

    fn is_full(&self) -> bool {
        lock(&self.waiting).len() >= ROUND_TRIPS_WAITING_MAX
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Lists are whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client's network: a /24 or a /48.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(u64);

impl Network {
    /// Networks of IPv6 come after all of IPv4.
    const V6: u64 = 1 << 63;

    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(v4.to_bits() >> (32 - NETWORK_V4))),
            IpAddr::V6(v6) => Self((v6.to_bits() >> (128 - NETWORK_V6)) as u64 | Self::V6),
        }
    }

    /// How many leading bits of its addresses are its own.
    #[must_use]
    pub const fn bits(self) -> u8 {
        if self.0 & Self::V6 == 0 {
            NETWORK_V4
        } else {
            NETWORK_V6
        }
    }

    /// A number that no other network has.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The leading bits that tell addresses of this network from those of the other; 0 where no bit does.
    fn told_from(self, other: Self) -> u8 {
        let differing = self.0 ^ other.0;
        if differing & Self::V6 != 0 || differing == 0 {
            return 0;
        }
        // Numbers are `bits` wide: the bits above are the same.
        let common = differing.leading_zeros() - (u64::BITS - u32::from(self.bits()));
        u8::try_from(common + 1).unwrap_or_else(|_| self.bits())
    }
}

/// What is known better than by the map, for clients of one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Correction {
    /// They are near this node's region: nearer than anything could be that is where the map has them.
    Near,
    /// To this node's region they need this much longer than the map says.
    Slower { milliseconds: u16 },
}

/// The corrections that this node's own connections have taught.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Learned {
    /// This node's. `None`: nothing is learned.
    region: Option<RegionId>,
    /// Ascending; each network once.
    corrections: Vec<(Network, Correction)>,
}

/// What is learned of one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lesson {
    pub correction: Option<Correction>,
    /// The leading bits of its address for which that holds.
    pub scope: ScopePrefix,
}

impl Learned {
    #[must_use]
    pub fn new(region: RegionId, mut corrections: Vec<(Network, Correction)>) -> Self {
        corrections.sort_unstable_by_key(|(network, _)| *network);
        corrections.dedup_by_key(|(network, _)| *network);
        Self {
            region: Some(region),
            corrections,
        }
    }

    /// The region whose distance the corrections are about.
    #[must_use]
    pub const fn region(&self) -> Option<RegionId> {
        self.region
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.corrections.len()
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.corrections.is_empty()
    }

    pub fn corrections(&self) -> impl Iterator<Item = Correction> + '_ {
        self.corrections.iter().map(|(_, correction)| *correction)
    }

    #[must_use]
    #[inline]
    pub fn of(&self, client: IpAddr) -> Lesson {
        if self.corrections.is_empty() {
            return Lesson::default();
        }
        self.find(Network::of(client))
    }

    fn find(&self, network: Network) -> Lesson {
        let found = self
            .corrections
            .binary_search_by_key(&network, |(known, _)| *known);
        match found {
            Ok(at) => Lesson {
                correction: self.corrections.get(at).map(|(_, correction)| *correction),
                scope: ScopePrefix(network.bits()),
            },
            Err(after) => {
                let before = after.checked_sub(1).and_then(|at| self.corrections.get(at));
                let neighbours = [before, self.corrections.get(after)];
                let bits = neighbours.into_iter().flatten();
                let bits = bits.map(|(other, _)| network.told_from(*other)).max();
                Lesson {
                    correction: None,
                    scope: ScopePrefix(bits.unwrap_or(0)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(networks: &[&str]) -> Learned {
        let network = |text: &&str| (Network::of(text.parse().unwrap()), Correction::Near);
        let region = RegionId::from_index(0).unwrap();
        Learned::new(region, networks.iter().map(network).collect())
    }

    fn lesson(learned: &Learned, client: &str) -> (bool, u8) {
        let lesson = learned.of(client.parse().unwrap());
        (lesson.correction.is_some(), lesson.scope.0)
    }

    #[test]
    fn a_network_has_its_lesson_and_others_are_told_from_it_by_as_few_bits_as_can_be() {
        let learned = learned(&["192.0.2.7", "192.0.3.1", "2001:db8:1::1"]);

        assert_eq!(lesson(&learned, "192.0.2.200"), (true, 24));
        assert_eq!(lesson(&learned, "::ffff:192.0.2.200"), (true, 24));
        assert_eq!(lesson(&learned, "192.0.0.1"), (false, 23));
        assert_eq!(lesson(&learned, "192.0.4.1"), (false, 22));
        assert_eq!(lesson(&learned, "10.0.0.1"), (false, 1));
        assert_eq!(lesson(&learned, "2001:db8:1:ffff::"), (true, 48));
        assert_eq!(lesson(&learned, "2001:db8:0::1"), (false, 48));
        assert_eq!(lesson(&learned, "2a00::1"), (false, 5));
        assert_eq!(lesson(&Learned::default(), "192.0.2.7"), (false, 0));
    }

    #[test]
    fn within_the_scope_everyone_is_told_the_same() {
        let learned = learned(&["10.1.2.0", "10.1.9.0", "10.128.0.0", "11.0.0.0"]);
        for third in 0..=255_u32 {
            for second in [0, 1, 2, 64, 128] {
                let client = 10 << 24 | second << 16 | third << 8;
                let told = learned.of(IpAddr::V4(client.into()));
                let free = 32 - u32::from(told.scope.0);
                for other in [0, 1, 5, 77, 200, 255].map(|n| n * 257_u32 * 65_537) {
                    let other =
                        client ^ (other & 1_u32.checked_shl(free).map_or(u32::MAX, |n| n - 1));
                    let there = learned.of(IpAddr::V4(other.into()));
                    assert_eq!(there.correction, told.correction);
                }
            }
        }
    }

    #[test]
    fn nothing_is_noted_before_somebody_wants_it_nor_when_the_list_is_full() {
        let distances = Distances::default();
        let notebook = distances.notebook();
        let client = "192.0.2.1".parse().unwrap();
        let mut asked = 0;
        let mut note = || {
            notebook.note(client, || {
                asked += 1;
                Some(Duration::from_millis(20))
            });
        };
        note();
        distances.want(true);
        (0..2 * ROUND_TRIPS_WAITING_MAX).for_each(|_| note());

        assert_eq!(asked, ROUND_TRIPS_WAITING_MAX);
        assert_eq!(distances.take().len(), ROUND_TRIPS_WAITING_MAX);
        assert_eq!(distances.take(), []);
    }
}
