//! How a region that returns gets its share back: step by step, each held by live errors.
//!
//! A step lasts at least the rule's `hold`. It ends only if its requests failed no more often than the
//! rule allows, beyond how often they fail in the pool's other regions; otherwise it begins anew. A
//! region that this node sends nothing to climbs by time alone. Pure: takes counts and times.

use sealane_model::{RampRule, RampStep, Ratio, Timestamp, TrafficCounts};

/// With fewer requests in a step than this, a single failure proves nothing.
pub const TELLING_MIN: u64 = 20;

/// A region on its way back.
#[derive(Clone, Debug, PartialEq)]
pub struct Climb {
    /// From 0.
    step: usize,
    since: Timestamp,
    /// When the present trial of this step began; `since` or later.
    tried_since: Timestamp,
    /// What was counted by then, here and in the other regions. `None`: not known yet.
    counted: Option<(TrafficCounts, TrafficCounts)>,
    held: bool,
}

/// What a look at a climb says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The step goes on.
    Waits,
    /// Too many errors: the step begins anew.
    Held,
    /// The next step begins.
    Next,
    /// That was the last step: the region has its whole share.
    Done,
}

impl Climb {
    /// Begins at `step` (from 0); a rule with fewer steps now begins at its last one.
    #[must_use]
    pub fn begin(now: Timestamp, step: usize, rule: &RampRule) -> Self {
        Self {
            step: step.min(rule.steps.len().saturating_sub(1)),
            since: now,
            tried_since: now,
            counted: None,
            held: false,
        }
    }

    /// Takes in what was counted until now, in this region and in the pool's others.
    pub fn count(&mut self, here: &TrafficCounts, elsewhere: &TrafficCounts) {
        self.counted.get_or_insert((*here, *elsewhere));
    }

    #[must_use]
    pub fn wake_at(&self, rule: &RampRule) -> Timestamp {
        self.tried_since + rule.hold
    }

    /// Whether the step is over, by what was counted until now.
    pub fn look(
        &mut self,
        now: Timestamp,
        rule: &RampRule,
        here: &TrafficCounts,
        elsewhere: &TrafficCounts,
    ) -> Progress {
        if now < self.wake_at(rule) {
            return Progress::Waits;
        }
        let (here_before, elsewhere_before) = self.counted.unwrap_or((*here, *elsewhere));
        let went_well = is_well(
            &here.since(&here_before),
            &elsewhere.since(&elsewhere_before),
            rule.max_errors,
        );
        self.tried_since = now;
        self.counted = Some((*here, *elsewhere));
        if !went_well {
            self.held = true;
            return Progress::Held;
        }
        self.held = false;
        self.step += 1;
        self.since = now;
        if self.step >= rule.steps.len() {
            return Progress::Done;
        }
        Progress::Next
    }

    /// From 0.
    #[must_use]
    pub const fn step(&self) -> usize {
        self.step
    }

    /// As the world is told. A rule with fewer steps than there were counts as its last one.
    #[must_use]
    pub fn shown(&self, rule: &RampRule) -> Option<RampStep> {
        let last = rule.steps.len().checked_sub(1)?;
        let step = self.step.min(last);
        let share = rule.steps.get(step)?.get();
        let number = |place: usize| u16::try_from(place + 1).unwrap_or(u16::MAX);
        Some(RampStep {
            share,
            step: number(step),
            of: number(last),
            since: self.since,
            held: self.held,
        })
    }
}

fn is_well(here: &TrafficCounts, elsewhere: &TrafficCounts, max_errors: Ratio) -> bool {
    let ended = here.answered + here.failed;
    if ended < TELLING_MIN {
        return here.failed <= 1;
    }
    share_failed(here) <= max_errors.get() + share_failed(elsewhere)
}

fn share_failed(counts: &TrafficCounts) -> f64 {
    let ended = counts.answered + counts.failed;
    if ended == 0 {
        return 0.0;
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "exact up to 2^53 requests in one step"
    )]
    let share = counts.failed as f64 / ended as f64;
    share
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rule() -> RampRule {
        RampRule {
            steps: [0.05, 0.25, 0.5]
                .map(|share| Ratio::new(share).unwrap())
                .into(),
            hold: Duration::from_secs(30),
            max_errors: Ratio::new(0.01).unwrap(),
        }
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_millis(secs * 1_000)
    }

    fn ended(answered: u64, failed: u64) -> TrafficCounts {
        TrafficCounts {
            answered,
            failed,
            ..TrafficCounts::default()
        }
    }

    /// Looks each second until `until`; each second ends `here` and `elsewhere`.
    fn climb(
        until: u64,
        here: TrafficCounts,
        elsewhere: TrafficCounts,
    ) -> Vec<(u64, Progress, f64)> {
        let rule = rule();
        let mut climb = Climb::begin(at(0), 0, &rule);
        let times = |counts: &TrafficCounts, times: u64| {
            ended(counts.answered * times, counts.failed * times)
        };
        let mut seen = Vec::new();
        for second in 0..until {
            let (here, elsewhere) = (times(&here, second), times(&elsewhere, second));
            climb.count(&here, &elsewhere);
            let progress = climb.look(at(second), &rule, &here, &elsewhere);
            if progress != Progress::Waits {
                let share = climb.shown(&rule).unwrap().share;
                seen.push((second, progress, share));
            }
            if progress == Progress::Done {
                break;
            }
        }
        seen
    }

    #[test]
    fn a_region_that_answers_well_climbs_one_step_each_hold() {
        let seen = climb(1_000, ended(10, 0), ended(100, 0));
        assert_eq!(
            seen,
            [
                (30, Progress::Next, 0.25),
                (60, Progress::Next, 0.5),
                (90, Progress::Done, 0.5)
            ]
        );
    }

    #[test]
    fn a_region_nobody_is_sent_to_climbs_by_time() {
        let seen = climb(1_000, ended(0, 0), ended(0, 0));
        assert_eq!(seen.last(), Some(&(90, Progress::Done, 0.5)));
    }

    #[test]
    fn errors_hold_a_region_at_its_step() {
        let seen = climb(200, ended(9, 1), ended(100, 0));
        assert_eq!(seen.len(), 6);
        for (_, progress, share) in seen {
            assert_eq!((progress, share), (Progress::Held, 0.05));
        }
    }

    #[test]
    fn errors_that_all_regions_have_hold_nobody() {
        let seen = climb(1_000, ended(9, 1), ended(90, 10));
        assert_eq!(seen.last(), Some(&(90, Progress::Done, 0.5)));
    }

    #[test]
    fn a_region_that_heals_goes_on_from_where_it_was_held() {
        let rule = rule();
        let mut climb = Climb::begin(at(0), 1, &rule);
        let none = TrafficCounts::default();
        climb.count(&none, &none);
        let bad = ended(50, 50);
        assert_eq!(climb.look(at(30), &rule, &bad, &none), Progress::Held);
        assert!(climb.shown(&rule).unwrap().held);
        let healed = ended(150, 50);
        assert_eq!(climb.look(at(59), &rule, &healed, &none), Progress::Waits);
        assert_eq!(climb.look(at(60), &rule, &healed, &none), Progress::Next);
        let shown = climb.shown(&rule).unwrap();
        assert_eq!(
            (shown.step, shown.of, shown.share, shown.held),
            (3, 3, 0.5, false)
        );
    }

    #[test]
    fn one_failure_among_few_requests_holds_nobody_and_two_do() {
        assert!(is_well(
            &ended(3, 1),
            &TrafficCounts::default(),
            Ratio::ZERO
        ));
        assert!(!is_well(
            &ended(3, 2),
            &TrafficCounts::default(),
            Ratio::ZERO
        ));
        assert!(!is_well(
            &ended(19, 1),
            &TrafficCounts::default(),
            Ratio::ZERO
        ));
    }

    #[test]
    fn what_failed_before_the_step_is_not_held_against_it() {
        let rule = rule();
        let mut climb = Climb::begin(at(0), 0, &rule);
        let (before, none) = (ended(0, 500), TrafficCounts::default());
        climb.count(&before, &none);
        let after = ended(100, 500);
        assert_eq!(climb.look(at(30), &rule, &after, &none), Progress::Next);
    }
}
