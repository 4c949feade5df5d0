//! Round-trip times: one smoothed figure per endpoint, and the lowest seen lately per region.
//!
//! Pure arithmetic on durations and timestamps; keeps a fixed number of buckets.

use std::time::Duration;

use sealane_model::Timestamp;

/// The part of a new sample in the smoothed figure. A quarter: with a probe each five seconds a
/// lasting change shows to two thirds after twenty seconds, a single slow probe to a quarter only.
pub const RTT_SMOOTHING: f64 = 0.25;

/// How far back [`Floor`] looks: [`FLOOR_BUCKETS`] times [`FLOOR_BUCKET`], one hour.
pub const FLOOR_BUCKET: Duration = Duration::from_secs(300);
pub const FLOOR_BUCKETS: usize = 12;

/// The exponentially weighted mean after one more sample.
#[must_use]
pub fn smoothed(before: Option<Duration>, sample: Duration) -> Duration {
    let Some(before) = before else {
        return sample;
    };
    let mean = before.as_secs_f64() * (1.0 - RTT_SMOOTHING) + sample.as_secs_f64() * RTT_SMOOTHING;
    // Both parts are finite and at least zero; a sum too large for a duration is not reachable
    // from probes that end within their time-out.
    Duration::try_from_secs_f64(mean).unwrap_or(sample)
}

/// The lowest value of the last hour, to five minutes exactly.
#[derive(Clone, Debug, Default)]
pub struct Floor {
    lowest: [Option<Duration>; FLOOR_BUCKETS],
    /// The number of the newest bucket since the epoch.
    newest: u64,
}

impl Floor {
    pub fn record(&mut self, now: Timestamp, rtt: Duration) {
        self.forget(now);
        let slot = &mut self.lowest[place(self.newest)];
        *slot = Some(slot.map_or(rtt, |lowest| lowest.min(rtt)));
    }

    #[must_use]
    pub fn lowest(&self, now: Timestamp) -> Option<Duration> {
        let newest = bucket(now);
        let fresh = |back: &u64| *back <= self.newest && self.newest - back < FLOOR_BUCKETS as u64;
        let kept = (newest.saturating_sub(FLOOR_BUCKETS as u64 - 1)..=newest).filter(fresh);
        kept.filter_map(|number| self.lowest[place(number)]).min()
    }

    /// Empties the buckets that time has passed over since the last record.
    fn forget(&mut self, now: Timestamp) {
        let newest = bucket(now);
        if newest <= self.newest {
            return;
        }
        let passed = (newest - self.newest).min(FLOOR_BUCKETS as u64);
        for number in (newest - passed + 1)..=newest {
            self.lowest[place(number)] = None;
        }
        self.newest = newest;
    }
}

const fn bucket(now: Timestamp) -> u64 {
    now.as_millis() / (FLOOR_BUCKET.as_secs() * 1_000)
}

const fn place(number: u64) -> usize {
    (number % FLOOR_BUCKETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + minutes * 60_000)
    }

    #[test]
    fn the_first_sample_counts_wholly_and_later_ones_by_a_quarter() {
        assert_eq!(smoothed(None, ms(10)), ms(10));
        assert_eq!(smoothed(Some(ms(10)), ms(50)), ms(20));
    }

    #[test]
    fn the_floor_is_the_lowest_of_the_last_hour_and_forgets_what_is_older() {
        let mut floor = Floor::default();
        floor.record(at(0), ms(10));
        floor.record(at(30), ms(40));
        floor.record(at(50), ms(30));

        assert_eq!(floor.lowest(at(50)), Some(ms(10)));
        assert_eq!(floor.lowest(at(61)), Some(ms(30)));
        assert_eq!(floor.lowest(at(111)), None);
    }

    #[test]
    fn a_record_after_a_long_silence_does_not_bring_old_values_back() {
        let mut floor = Floor::default();
        floor.record(at(0), ms(1));
        floor.record(at(600), ms(90));

        assert_eq!(floor.lowest(at(600)), Some(ms(90)));
    }
}
