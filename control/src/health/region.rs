//! Many endpoints, one region: how many are well, how far away they are.
//!
//! Counts only; whether the region is in or out is decided in [`crate::failover`].

use std::time::Duration;

use sealane_model::{Ratio, Verdict};

/// What a pool's endpoints in one region amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub total: u32,
    /// Usable: up, suspect, or not probed yet.
    pub healthy: u32,
    /// Up or suspect: usable, and known to have worked.
    pub proven: u32,
    /// Down, or back on trial.
    pub failed: u32,
    /// Drained by the operator: neither healthy nor failed.
    pub draining: u32,
    /// One is suspect or on trial: what is said now may soon change.
    pub suspect: bool,
    /// Live requests found more endpoints out of order than may be left out: they count as failed.
    pub degraded: bool,
    /// The median of the usable endpoints.
    pub rtt: Option<Duration>,
}

impl Tally {
    #[must_use]
    pub fn of(endpoints: impl Iterator<Item = (Verdict, Option<Duration>)>) -> Self {
        let mut tally = Self::default();
        let mut rtts = Vec::new();
        for (verdict, rtt) in endpoints {
            tally.count(verdict);
            if verdict.is_usable() {
                rtts.extend(rtt);
            }
        }
        tally.rtt = median(rtts);
        tally
    }

    /// Is the share of endpoints that failed at or above `threshold`?
    ///
    /// The share is taken of the endpoints that are not drained, so that draining half a region
    /// does not halve what its failures weigh. Without a single failure no threshold is reached,
    /// not even one of 0 %.
    #[must_use]
    pub fn reaches(&self, threshold: Ratio) -> bool {
        /// Thresholds are written as decimal fractions, shares are quotients of small integers.
        const ROUNDING: f64 = 1e-9;
        let counted = self.total - self.draining;
        self.failed > 0 && f64::from(self.failed) / f64::from(counted) >= threshold.get() - ROUNDING
    }

    const fn count(&mut self, verdict: Verdict) {
        self.total += 1;
        match verdict {
            Verdict::Up => {
                self.healthy += 1;
                self.proven += 1;
            }
            Verdict::Suspect => {
                self.healthy += 1;
                self.proven += 1;
                self.suspect = true;
            }
            Verdict::Unknown => self.healthy += 1,
            Verdict::Probation => {
                self.failed += 1;
                self.suspect = true;
            }
            Verdict::Down => self.failed += 1,
            Verdict::Draining => self.draining += 1,
        }
    }
}

/// The middle one; of two middle ones the lower.
fn median(mut values: Vec<Duration>) -> Option<Duration> {
    values.sort_unstable();
    let middle = values.len().checked_sub(1)? / 2;
    values.get(middle).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(up: usize, down: usize, draining: usize) -> Tally {
        let of = |verdict, count| std::iter::repeat_n((verdict, None), count);
        Tally::of(
            of(Verdict::Up, up)
                .chain(of(Verdict::Down, down))
                .chain(of(Verdict::Draining, draining)),
        )
    }

    #[test]
    fn forty_nine_percent_down_is_below_a_threshold_of_half_and_fifty_reaches_it() {
        let half = Ratio::new(0.5).unwrap();
        assert!(!tally(51, 49, 0).reaches(half));
        assert!(tally(50, 50, 0).reaches(half));
        assert!(tally(1, 1, 0).reaches(half));
        assert!(!tally(2, 1, 0).reaches(half));
    }

    #[test]
    fn drained_endpoints_count_neither_as_healthy_nor_as_failed() {
        let half = Ratio::new(0.5).unwrap();
        let counted = tally(1, 1, 2);
        assert_eq!((counted.healthy, counted.failed, counted.total), (1, 1, 4));
        assert!(counted.reaches(half));
        assert!(!tally(1, 0, 3).reaches(half));
        assert!(!tally(0, 0, 3).reaches(half));
    }

    #[test]
    fn without_a_failure_no_threshold_is_reached() {
        assert!(!tally(3, 0, 0).reaches(Ratio::new(0.0).unwrap()));
        assert!(tally(2, 1, 0).reaches(Ratio::new(0.0).unwrap()));
    }

    #[test]
    fn every_third_of_three_thirds_is_exact() {
        let third = Ratio::new(1.0 / 3.0).unwrap();
        assert!(tally(2, 1, 0).reaches(third));
        assert!(tally(0, 3, 0).reaches(Ratio::new(1.0).unwrap()));
        assert!(!tally(1, 2, 0).reaches(Ratio::new(1.0).unwrap()));
    }

    #[test]
    fn the_rtt_is_the_median_of_the_usable_endpoints() {
        let ms = Duration::from_millis;
        let tally = Tally::of(
            [
                (Verdict::Up, Some(ms(10))),
                (Verdict::Up, Some(ms(30))),
                (Verdict::Suspect, Some(ms(20))),
                (Verdict::Down, Some(ms(1))),
            ]
            .into_iter(),
        );
        assert_eq!(tally.rtt, Some(ms(20)));
    }
}
