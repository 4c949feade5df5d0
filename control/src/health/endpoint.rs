//! The rise and fall of one endpoint: from single outcomes to a verdict.
//!
//! Probes alone take an endpoint down; failed live requests only make it suspect. A single failure
//! between two passes changes nothing that lasts. Knows no override and no region.

use std::sync::Arc;
use std::time::Duration;

use sealane_model::{Failure, Outcome, Source, Timestamp, Verdict};

use super::rtt::smoothed;

/// How often in a row something must happen before it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Failed probes in a row that take an endpoint down. At least 1.
    pub fall: u32,
    /// Passed probes in a row that bring a down endpoint back. At least 1.
    pub rise: u32,
}

/// Characters of a cause that are kept: some are quoted from what the endpoint sent.
pub const CAUSE_MAX: usize = 300;

/// What is known of one endpoint, the operator's word left aside.
#[derive(Clone, Debug, Default)]
pub struct Track {
    pub verdict: Verdict,
    pub since: Timestamp,
    pub by: Source,
    /// The last failure, until the endpoint is up again.
    pub cause: Option<Arc<str>>,
    pub rtt: Option<Duration>,
    passes: u32,
    fails: u32,
}

impl Track {
    /// What an earlier process concluded; it holds until this process's first probe.
    ///
    /// One that was on trial begins its trial anew: the passes before the restart do not count.
    #[must_use]
    pub fn restored(
        verdict: Verdict,
        since: Timestamp,
        cause: Option<Arc<str>>,
        rtt: Option<Duration>,
    ) -> Self {
        let verdict = match verdict {
            // Only an operator's word drains; that is kept as an override, not as a verdict.
            Verdict::Draining => Verdict::Unknown,
            other => other,
        };
        Self {
            verdict,
            since,
            by: Source::Restored,
            cause,
            rtt,
            passes: 0,
            fails: 0,
        }
    }

    /// Takes in one probe; `true` when the verdict changed.
    pub fn probed(&mut self, now: Timestamp, outcome: &Outcome, counts: Counts) -> bool {
        let next = match outcome {
            Outcome::Passed { rtt } => {
                self.rtt = Some(smoothed(self.rtt_to_go_on_from(), *rtt));
                self.passes = self.passes.saturating_add(1);
                self.fails = 0;
                self.after_pass(counts)
            }
            Outcome::Failed(failure) => {
                self.fails = self.fails.saturating_add(1);
                self.passes = 0;
                self.cause = Some(in_words(failure));
                self.after_fail(counts)
            }
            // No probe concludes from many requests.
            Outcome::Judged(_) => self.verdict,
        };
        if next == Verdict::Up {
            self.cause = None;
        }
        self.turn(now, next, Source::Probe)
    }

    /// Takes in a failed live request: doubt, never more. `true` when the verdict changed.
    pub fn failed_in_traffic(&mut self, now: Timestamp, failure: &Failure) -> bool {
        if self.verdict != Verdict::Up {
            return false;
        }
        self.cause = Some(in_words(failure));
        self.turn(now, Verdict::Suspect, Source::Traffic)
    }

    /// Is this the first failure of a row that may end in a fall, so that a quick second look
    /// is worth it?
    #[must_use]
    pub const fn wants_recheck(&self) -> bool {
        self.fails == 1
            && matches!(
                self.verdict,
                Verdict::Up | Verdict::Suspect | Verdict::Unknown
            )
    }

    /// Notes what went wrong without counting it.
    pub fn doubt(&mut self, failure: &Failure) {
        self.cause = Some(in_words(failure));
    }

    /// Settles the verdict from outside the counting: what is never probed is as it is told to be.
    pub fn settle(&mut self, now: Timestamp, verdict: Verdict, by: Source) -> bool {
        if verdict == Verdict::Up {
            self.cause = None;
        }
        self.turn(now, verdict, by)
    }

    /// The round trips of an outage and of its end say nothing about the endpoint that came back:
    /// smoothing begins anew with each pass on trial.
    const fn rtt_to_go_on_from(&self) -> Option<Duration> {
        match self.verdict {
            Verdict::Down | Verdict::Probation => None,
            _ => self.rtt,
        }
    }

    const fn after_pass(&self, counts: Counts) -> Verdict {
        match self.verdict {
            Verdict::Down | Verdict::Probation if self.passes < counts.rise => Verdict::Probation,
            _ => Verdict::Up,
        }
    }

    const fn after_fail(&self, counts: Counts) -> Verdict {
        match self.verdict {
            Verdict::Down | Verdict::Probation => Verdict::Down,
            _ if self.fails >= counts.fall => Verdict::Down,
            Verdict::Unknown => Verdict::Unknown,
            _ => Verdict::Suspect,
        }
    }

    fn turn(&mut self, now: Timestamp, verdict: Verdict, by: Source) -> bool {
        if verdict == self.verdict {
            if self.by == Source::Restored {
                self.by = by;
            }
            return false;
        }
        self.verdict = verdict;
        self.since = now.max(self.since);
        self.by = by;
        true
    }
}

fn in_words(failure: &Failure) -> Arc<str> {
    failure
        .to_string()
        .chars()
        .take(CAUSE_MAX)
        .collect::<String>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: Counts = Counts { fall: 2, rise: 3 };

    fn pass() -> Outcome {
        Outcome::Passed {
            rtt: Duration::from_millis(10),
        }
    }

    fn fail() -> Outcome {
        Outcome::Failed(Failure::Refused)
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_millis(secs * 1_000)
    }

    /// The verdict after each of `outcomes` (`p` passes, `f` fails, `t` fails in traffic).
    fn verdicts(mut track: Track, outcomes: &str) -> Vec<&'static str> {
        let mut seen = Vec::new();
        for (second, what) in (1..).zip(outcomes.chars()) {
            match what {
                'p' => track.probed(at(second), &pass(), COUNTS),
                'f' => track.probed(at(second), &fail(), COUNTS),
                _ => track.failed_in_traffic(at(second), &Failure::Closed),
            };
            seen.push(track.verdict.as_str());
        }
        seen
    }

    #[test]
    fn the_first_pass_brings_an_unknown_endpoint_up() {
        assert_eq!(verdicts(Track::default(), "p"), ["up"]);
    }

    #[test]
    fn an_unknown_endpoint_goes_down_after_fall_failures() {
        assert_eq!(verdicts(Track::default(), "ff"), ["unknown", "down"]);
    }

    #[test]
    fn fail_pass_fail_does_not_flip() {
        assert_eq!(
            verdicts(Track::default(), "pfpfp"),
            ["up", "suspect", "up", "suspect", "up"]
        );
    }

    #[test]
    fn a_down_endpoint_needs_rise_passes_in_a_row() {
        assert_eq!(
            verdicts(Track::default(), "pffpfppp"),
            [
                "up",
                "suspect",
                "down",
                "probation",
                "down",
                "probation",
                "probation",
                "up"
            ]
        );
    }

    #[test]
    fn an_endpoint_that_comes_back_is_not_slow_because_its_outage_was() {
        let passed = |millis| Outcome::Passed {
            rtt: Duration::from_millis(millis),
        };
        let mut track = Track::default();
        for outcome in [
            pass(),
            fail(),
            fail(),
            passed(1_900),
            passed(12),
            passed(10),
        ] {
            track.probed(at(1), &outcome, COUNTS);
        }

        assert_eq!(track.verdict, Verdict::Up);
        assert_eq!(track.rtt, Some(Duration::from_millis(10)));
    }

    #[test]
    fn traffic_alone_makes_suspect_and_never_down() {
        assert_eq!(
            verdicts(Track::default(), "ptttt"),
            ["up", "suspect", "suspect", "suspect", "suspect"]
        );
        assert_eq!(verdicts(Track::default(), "ptp"), ["up", "suspect", "up"]);
        assert_eq!(verdicts(Track::default(), "tt"), ["unknown", "unknown"]);
    }

    #[test]
    fn a_restored_down_endpoint_still_needs_rise_passes() {
        let restored = || Track::restored(Verdict::Down, at(0), None, None);
        assert_eq!(
            verdicts(restored(), "ppp"),
            ["probation", "probation", "up"]
        );

        let mut track = restored();
        assert_eq!(track.by, Source::Restored);
        track.probed(at(1), &fail(), COUNTS);
        assert_eq!(
            (track.verdict, track.by, track.since),
            (Verdict::Down, Source::Probe, at(0))
        );
    }

    #[test]
    fn a_long_winded_cause_is_cut() {
        let mut track = Track::default();
        let long = Outcome::Failed(Failure::Tls("é".repeat(100_000)));
        track.probed(at(1), &long, COUNTS);
        assert_eq!(track.cause.unwrap().chars().count(), CAUSE_MAX);
    }

    #[test]
    fn since_never_moves_backwards() {
        let mut track = Track::restored(Verdict::Up, at(100), None, None);
        track.probed(at(5), &fail(), COUNTS);
        assert_eq!(track.since, at(100));
    }

    #[test]
    fn only_the_first_failure_of_a_row_asks_for_a_recheck() {
        let mut track = Track::default();
        let slow = Counts { fall: 3, rise: 1 };
        track.probed(at(1), &fail(), slow);
        assert!(track.wants_recheck());
        track.probed(at(2), &fail(), slow);
        assert!(!track.wants_recheck());
    }
}
