//! How many attempts went to a pool's region within a second, so that none goes beyond its capacity.
//!
//! Control says which share of those who choose a region it has room for, from what it measures second by second
//! (`sealane_control::demand`). That is right on average, and a moment late: this holds in each moment, and for whoever
//! comes from elsewhere after a failed attempt. Asked and told by [`select`](super::select), for pools with a
//! capacity alone. Shared by all workers, as capacities are the process's. Reads no clock.

use super::ticks::Ring;

const TICK_MILLIS: u64 = 32;
/// Of which the oldest may be over but for a moment: the others make 1,024 ms.
const TICKS: usize = 33;

#[derive(Debug, Default)]
pub(crate) struct Meter(Ring<TICKS>);

impl Meter {
    /// Whether one more within this second is not more than `limit`. Workers that ask at the same time may
    /// together exceed it by one each.
    pub(crate) fn has_room(&self, now_millis: u64, limit: f64) -> bool {
        // Whatever the capacity: one at a time.
        (self.0.sum(tick(now_millis)) as f64) < limit.floor().max(1.0)
    }

    /// An attempt goes there.
    pub(crate) fn count(&self, now_millis: u64) {
        self.0.add(tick(now_millis), 1);
    }
}

/// The last tick, after four years, goes on for good.
fn tick(millis: u64) -> u32 {
    u32::try_from(millis / TICK_MILLIS + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as may come, every millisecond for so long; how many of them in the worst second.
    fn worst_second(meter: &Meter, limit: f64, millis: u64) -> usize {
        let mut came = Vec::new();
        for now in 0..millis {
            while meter.has_room(now, limit) {
                meter.count(now);
                came.push(now);
            }
        }
        let within = |from: u64| {
            came.iter()
                .filter(move |at| (from..from + 1_000).contains(at))
        };
        (0..millis)
            .map(|from| within(from).count())
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn no_second_has_more_than_the_limit() {
        assert_eq!(worst_second(&Meter::default(), 120.0, 5_000), 120);
        assert_eq!(worst_second(&Meter::default(), 120.9, 5_000), 120);
    }

    #[test]
    fn a_limit_below_one_lets_one_in_a_second() {
        assert_eq!(worst_second(&Meter::default(), 0.2, 5_000), 1);
    }

    #[test]
    fn what_comes_evenly_fills_it_to_nineteen_parts_of_twenty() {
        let meter = Meter::default();
        let mut came = 0;
        for now in 0..60_000 {
            if meter.has_room(now, 500.0) {
                meter.count(now);
                came += 1;
            }
        }
        assert!((28_200..=30_000).contains(&came), "{came}");
    }

    #[test]
    fn whoever_comes_all_the_same_takes_room_from_others() {
        let meter = Meter::default();
        for _ in 0..150 {
            meter.count(10);
        }
        assert!(!meter.has_room(900, 120.0));
        assert!(meter.has_room(1_200, 120.0));
    }
}
