//! What live traffic amounts to, by pool and region: workers count, control reads now and then.
//!
//! Nothing is sent and nothing can fill up. Each worker has counters of its own, written by it alone,
//! so that counting costs no cache line that two workers write. Concludes nothing: control does.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::id::{PoolId, RegionId};

/// What all workers have counted. There is one shard for each worker that ever was, and in it one
/// entry for each region of a pool that it ever sent to: as many as the configuration has named since
/// the process began. None is forgotten, so that counts never go back.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<Mutex<Vec<Arc<Shard>>>>);

/// One worker's counters.
#[derive(Debug)]
pub struct TrafficShard(Arc<Shard>);

type Shard = Mutex<HashMap<(PoolId, RegionId), Arc<Cells>>>;

/// Nothing here shares a cache line with what another worker counts.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cells {
    drawn: AtomicU64,
    extra: AtomicU64,
    excess: AtomicU64,
    shed: AtomicU64,
    turned: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
}

/// Counts what goes to one region of one pool. Stays on its worker's thread, so that counting needs
/// no read-modify-write.
#[derive(Clone, Debug)]
pub struct MemberTraffic {
    cells: Arc<Cells>,
    _on_one_thread: PhantomData<*const ()>,
}

/// How an attempt came to its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The ranking put the region first, and the region had room.
    Drawn,
    /// After another attempt, or because the first region had nothing up: whatever the room.
    Extra,
    /// No region had room for it.
    Excess,
    /// No region had room for it, and it was refused.
    Shed,
    /// The ranking put the region first, but it had been sent as much as it may be a moment ago: it goes elsewhere.
    Turned,
}

/// Sums since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCounts {
    pub drawn: u64,
    pub extra: u64,
    pub excess: u64,
    /// Refused: no attempt was made.
    pub shed: u64,
    /// Chose the region, and went elsewhere for want of room.
    pub turned: u64,
    /// Attempts with a good answer.
    pub answered: u64,
    /// Attempts that failed by the endpoint's fault, that it answered badly, or that it refused.
    pub failed: u64,
}

impl TrafficCounts {
    /// Attempts in all.
    #[must_use]
    pub const fn arrived(&self) -> u64 {
        self.drawn
            .saturating_add(self.extra)
            .saturating_add(self.excess)
    }

    /// What came since `before`; nothing where that is more.
    #[must_use]
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            drawn: self.drawn.saturating_sub(before.drawn),
            extra: self.extra.saturating_sub(before.extra),
            excess: self.excess.saturating_sub(before.excess),
            shed: self.shed.saturating_sub(before.shed),
            turned: self.turned.saturating_sub(before.turned),
            answered: self.answered.saturating_sub(before.answered),
            failed: self.failed.saturating_sub(before.failed),
        }
    }
}

impl Traffic {
    /// Counters for one more worker.
    #[must_use]
    pub fn shard(&self) -> TrafficShard {
        let shard = Arc::<Shard>::default();
        lock(&self.0).push(Arc::clone(&shard));
        TrafficShard(shard)
    }

    /// What all workers have counted. Waits for a worker only while that one sends to a region for
    /// the first time.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<(PoolId, RegionId), TrafficCounts> {
        let mut totals = BTreeMap::<_, TrafficCounts>::new();
        for shard in lock(&self.0).iter() {
            for (member, cells) in lock(shard).iter() {
                let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
                let sum = totals.entry(*member).or_default();
                sum.drawn += read(&cells.drawn);
                sum.extra += read(&cells.extra);
                sum.excess += read(&cells.excess);
                sum.shed += read(&cells.shed);
                sum.turned += read(&cells.turned);
                sum.answered += read(&cells.answered);
                sum.failed += read(&cells.failed);
            }
        }
        totals
    }
}

impl TrafficShard {
    /// The counters of one region of one pool. Takes a lock: to be kept by whoever counts often.
    #[must_use]
    pub fn of(&self, pool: PoolId, region: RegionId) -> MemberTraffic {
        let cells = Arc::clone(lock(&self.0).entry((pool, region)).or_default());
        MemberTraffic {
            cells,
            _on_one_thread: PhantomData,
        }
    }
}

impl MemberTraffic {
    /// An attempt goes to this region, or would have.
    pub fn arrived(&self, how: Arrival) {
        count(match how {
            Arrival::Drawn => &self.cells.drawn,
            Arrival::Extra => &self.cells.extra,
            Arrival::Excess => &self.cells.excess,
            Arrival::Shed => &self.cells.shed,
            Arrival::Turned => &self.cells.turned,
        });
    }

    /// An attempt ended in this region: well, or by the endpoint's fault.
    pub fn ended(&self, well: bool) {
        count(if well {
            &self.cells.answered
        } else {
            &self.cells.failed
        });
    }
}

/// One thread alone writes: see [`MemberTraffic`].
fn count(cell: &AtomicU64) {
    let counted = cell.load(Ordering::Relaxed);
    cell.store(counted.wrapping_add(1), Ordering::Relaxed);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters are whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_count_adds_up_and_stays_when_they_are_gone() {
        let traffic = Traffic::default();
        let pool = PoolId::from_index(3).unwrap();
        let [eu, us] = [0, 1].map(|index| RegionId::from_index(index).unwrap());

        std::thread::scope(|scope| {
            for _ in 0..4 {
                let shard = traffic.shard();
                scope.spawn(move || {
                    let (eu, us) = (shard.of(pool, eu), shard.of(pool, us));
                    for round in 0..1_000 {
                        eu.arrived(Arrival::Drawn);
                        eu.ended(round % 10 != 0);
                        us.arrived(Arrival::Extra);
                        us.arrived(Arrival::Excess);
                    }
                });
            }
        });

        let totals = traffic.totals();
        let of_eu = totals[&(pool, eu)];
        assert_eq!(
            (of_eu.drawn, of_eu.answered, of_eu.failed),
            (4_000, 3_600, 400)
        );
        let of_us = totals[&(pool, us)];
        assert_eq!(
            (of_us.extra, of_us.excess, of_us.arrived()),
            (4_000, 4_000, 8_000)
        );
        assert_eq!(of_us.since(&of_us), TrafficCounts::default());
    }

    #[test]
    fn two_handles_of_one_worker_count_into_one() {
        let traffic = Traffic::default();
        let shard = traffic.shard();
        let member = (
            PoolId::from_index(0).unwrap(),
            RegionId::from_index(0).unwrap(),
        );

        shard.of(member.0, member.1).arrived(Arrival::Drawn);
        shard.of(member.0, member.1).arrived(Arrival::Drawn);

        assert_eq!(traffic.totals()[&member].drawn, 2);
    }
}
