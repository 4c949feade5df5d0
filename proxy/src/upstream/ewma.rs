//! Peak-EWMA: how long an endpoint takes, believed at once when it grows and slowly when it shrinks.
//!
//! The measure of Finagle's and Linkerd's balancers. Written by [`account`](super::account), read by
//! [`balance`](super::balance). Pure: time is handed in, in milliseconds of one clock.

/// The time after which 63 % of an earlier value are forgotten. Linkerd's figure.
pub(crate) const DECAY_MS: f32 = 10_000.0;

/// A latency in microseconds, decaying; 0 microseconds: nothing was ever seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PeakEwma {
    micros: f32,
    seen_at: u64,
}

impl PeakEwma {
    /// What is larger counts at once: an endpoint that begins to be slow is avoided from its first
    /// slow answer on. What is smaller counts by the time since the last answer.
    pub(crate) fn observe(&mut self, now: u64, micros: f32) {
        // Nothing takes no time; and 0 means that nothing was seen.
        let micros = micros.max(1.0);
        if micros >= self.micros {
            self.micros = micros;
            self.seen_at = now;
            return;
        }
        let passed = now.saturating_sub(self.seen_at);
        if passed == 0 {
            return;
        }
        let kept = kept(passed);
        self.micros = self.micros * kept + micros * (1.0 - kept);
        self.seen_at = now;
    }

    /// The latency to reckon with now. What was not heard of for a while is believed ever less and
    /// draws near `usual`, not zero: then it is tried again by one request, and not by a burst that
    /// finds out together. `None`: nothing was ever seen.
    pub(crate) fn read(self, now: u64, usual: f32) -> Option<f32> {
        if self.micros <= 0.0 {
            return None;
        }
        let passed = now.saturating_sub(self.seen_at);
        if passed < FRESH_MS || self.micros <= usual {
            return Some(self.micros);
        }
        Some(usual + (self.micros - usual) * kept(passed))
    }
}

/// What is younger has lost less than 1 %: not worth an exponential.
const FRESH_MS: u64 = 100;

#[expect(
    clippy::cast_precision_loss,
    reason = "what a float cannot tell apart has decayed to nothing"
)]
fn kept(passed: u64) -> f32 {
    (-(passed as f32) / DECAY_MS).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(samples: &[(u64, f32)]) -> PeakEwma {
        let mut ewma = PeakEwma::default();
        for (now, micros) in samples {
            ewma.observe(*now, *micros);
        }
        ewma
    }

    #[test]
    fn it_rises_at_once_and_falls_by_the_clock_not_by_the_number_of_answers() {
        assert_eq!(
            seen(&[(0, 100.0), (1, 9_000.0)]).read(1, 0.0),
            Some(9_000.0)
        );

        let many: Vec<_> = (1..=10_000).map(|at| (at, 100.0)).collect();
        let few: Vec<_> = (1..=10).map(|at| (at * 1_000, 100.0)).collect();
        for answers in [many, few] {
            let mut ewma = seen(&[(0, 10_000.0)]);
            for (now, micros) in answers {
                ewma.observe(now, micros);
            }
            let after_ten_seconds = ewma.read(10_000, 0.0).unwrap();
            assert!(
                (3_650.0..3_850.0).contains(&after_ten_seconds),
                "{after_ten_seconds}"
            );
        }
    }

    #[test]
    fn what_is_not_heard_of_draws_near_the_usual_and_not_below() {
        let ewma = seen(&[(0, 200_000.0)]);

        assert_eq!(ewma.read(50, 10_000.0), Some(200_000.0));
        let later = |secs: u64| ewma.read(secs * 1_000, 10_000.0).unwrap();
        assert!((later(10) - 79_900.0).abs() < 500.0, "{}", later(10));
        assert!((later(600) - 10_000.0).abs() < 1.0, "{}", later(600));
        assert_eq!(seen(&[(0, 5_000.0)]).read(600_000, 10_000.0), Some(5_000.0));
    }

    #[test]
    fn nothing_seen_is_told_apart_from_no_time_taken() {
        assert_eq!(PeakEwma::default().read(0, 10.0), None);
        assert_eq!(seen(&[(0, 0.0)]).read(0, 10.0), Some(1.0));
    }

    #[test]
    fn a_clock_that_was_read_a_moment_earlier_changes_nothing() {
        let mut ewma = seen(&[(1_000, 500.0)]);
        ewma.observe(900, 100.0);

        assert_eq!(ewma.read(950, 0.0), Some(500.0));
    }

    /// An endpoint that answers each millisecond, after 1 ms, begins to take 100: how many answers does it take until
    /// half of that is reckoned with?
    fn answers_to_believe(observe: impl Fn(&mut PeakEwma, u64, f32)) -> usize {
        let mut ewma = PeakEwma::default();
        (0..2_000).for_each(|now| observe(&mut ewma, now, 1_000.0));
        let slow = (2_000..).take_while(|now| {
            let believed = ewma
                .read(*now, 1_000.0)
                .is_some_and(|micros| micros > 50_000.0);
            observe(&mut ewma, *now, 100_000.0);
            !believed
        });
        slow.count()
    }

    #[test]
    fn without_the_peak_an_endpoint_that_gets_slow_has_thousands_of_requests_more() {
        let with = answers_to_believe(PeakEwma::observe);
        let without = answers_to_believe(|ewma, now, micros| {
            let kept = match ewma.micros > 0.0 {
                true => kept(now.saturating_sub(ewma.seen_at)),
                false => 0.0,
            };
            ewma.micros = ewma.micros * kept + micros * (1.0 - kept);
            ewma.seen_at = now;
        });
        assert_eq!(with, 1);
        assert!(without > 5_000, "{without}");
    }
}
