//! Whether a region is in or out, by its health: threshold, hold-down, and back in.
//!
//! A region leaves at once when the share of its failed endpoints reaches the threshold. It comes
//! back only after it has stayed below the threshold for the whole hold-down; a failure meanwhile
//! sends it back out and the hold-down begins anew. That is the hysteresis: a region on the edge
//! is out, instead of in and out. Overrides are laid over this in [`crate::core`].

use sealane_model::{FailoverRule, OutReason, Standing, Timestamp};

use crate::health::region::Tally;

/// One region of one pool, watched.
#[derive(Clone, Debug)]
pub struct Watch {
    standing: Standing,
    /// Was in, with an endpoint known to have worked; or was out in an earlier process. Only then
    /// does it owe a hold-down: a region that is slow to start need not wait once it is there.
    owes_hold_down: bool,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            standing: Standing::In,
            owes_hold_down: false,
        }
    }
}

impl Watch {
    /// As an earlier process left it. A hold-down goes on, at most as long as the rule says now.
    #[must_use]
    pub fn restored(now: Timestamp, standing: Standing, rule: &FailoverRule) -> Self {
        let out = match standing {
            Standing::Out(OutReason::HoldDown { until }) => OutReason::HoldDown {
                until: until.min(now + rule.hold_down),
            },
            Standing::Out(OutReason::Failed) => OutReason::Failed,
            // What the operator took out is restored with the overrides; emptiness is seen anew.
            Standing::In | Standing::Out(_) => return Self::default(),
        };
        Self {
            standing: Standing::Out(out),
            owes_hold_down: true,
        }
    }

    /// By health alone.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// Was it known to work, before it went out or since?
    #[must_use]
    pub const fn has_worked(&self) -> bool {
        self.owes_hold_down
    }

    /// When the hold-down ends, if one runs.
    #[must_use]
    pub const fn wake_at(&self) -> Option<Timestamp> {
        match self.standing {
            Standing::Out(OutReason::HoldDown { until }) => Some(until),
            _ => None,
        }
    }

    pub fn settle(&mut self, now: Timestamp, tally: &Tally, rule: &FailoverRule) {
        self.standing = self.next(now, tally, rule);
        if self.standing == Standing::In && tally.proven > 0 {
            self.owes_hold_down = true;
        }
    }

    /// Ends a hold-down early: the operator asked for the region back.
    pub const fn waive_hold_down(&mut self) {
        if let Standing::Out(OutReason::HoldDown { .. }) = self.standing {
            self.standing = Standing::In;
        }
    }

    fn next(&self, now: Timestamp, tally: &Tally, rule: &FailoverRule) -> Standing {
        if tally.total == 0 {
            return Standing::Out(OutReason::Empty);
        }
        if tally.total == tally.draining {
            return Standing::Out(OutReason::Draining);
        }
        if tally.reaches(rule.threshold) {
            return Standing::Out(OutReason::Failed);
        }
        match self.standing {
            Standing::Out(OutReason::Failed)
                if self.owes_hold_down && !rule.hold_down.is_zero() =>
            {
                Standing::Out(OutReason::HoldDown {
                    until: now + rule.hold_down,
                })
            }
            Standing::Out(OutReason::HoldDown { until }) if now < until => self.standing,
            _ => Standing::In,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sealane_model::{AllDown, Ratio, Verdict};

    use super::*;

    fn rule() -> FailoverRule {
        FailoverRule {
            threshold: Ratio::new(0.5).unwrap(),
            hold_down: Duration::from_secs(60),
            all_down: AllDown::FailOpen,
            panic: Ratio::ZERO,
            ramp: None,
        }
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_millis(secs * 1_000)
    }

    fn all(verdict: Verdict) -> Tally {
        Tally::of(std::iter::repeat_n((verdict, None), 2))
    }

    const HELD: fn(u64) -> Standing = |secs| Standing::Out(OutReason::HoldDown { until: at(secs) });
    const FAILED: Standing = Standing::Out(OutReason::Failed);

    #[test]
    fn a_region_that_was_in_comes_back_after_the_hold_down_only() {
        let mut watch = Watch::default();
        watch.settle(at(0), &all(Verdict::Up), &rule());
        watch.settle(at(1), &all(Verdict::Down), &rule());
        assert_eq!(watch.standing(), FAILED);
        watch.settle(at(10), &all(Verdict::Up), &rule());
        assert_eq!(watch.standing(), HELD(70));
        watch.settle(at(69), &all(Verdict::Up), &rule());
        assert_eq!(watch.standing(), HELD(70));
        watch.settle(at(70), &all(Verdict::Up), &rule());
        assert_eq!(watch.standing(), Standing::In);
    }

    #[test]
    fn a_failure_during_the_hold_down_begins_it_anew() {
        let mut watch = Watch::default();
        watch.settle(at(0), &all(Verdict::Up), &rule());
        watch.settle(at(1), &all(Verdict::Down), &rule());
        watch.settle(at(10), &all(Verdict::Up), &rule());
        watch.settle(at(60), &all(Verdict::Down), &rule());
        assert_eq!(watch.standing(), FAILED);
        watch.settle(at(65), &all(Verdict::Up), &rule());
        assert_eq!(watch.standing(), HELD(125));
    }

    #[test]
    fn a_region_that_never_worked_owes_no_hold_down() {
        let mut watch = Watch::default();
        watch.settle(at(0), &all(Verdict::Unknown), &rule());
        watch.settle(at(1), &all(Verdict::Down), &rule());
        watch.settle(at(2), &all(Verdict::Up), &rule());
        assert_eq!(watch.standing(), Standing::In);
    }

    #[test]
    fn a_region_that_was_out_before_the_restart_owes_its_hold_down() {
        let mut watch = Watch::restored(at(0), FAILED, &rule());
        watch.settle(at(1), &all(Verdict::Up), &rule());
        assert_eq!(watch.standing(), HELD(61));

        let far = Standing::Out(OutReason::HoldDown { until: at(9_999) });
        let watch = Watch::restored(at(0), far, &rule());
        assert_eq!(watch.standing(), HELD(60), "no longer than the rule says");
    }

    #[test]
    fn a_waived_hold_down_is_over_but_a_failure_is_not() {
        let mut watch = Watch::restored(at(0), FAILED, &rule());
        watch.waive_hold_down();
        assert_eq!(watch.standing(), FAILED);
        watch.settle(at(1), &all(Verdict::Up), &rule());
        watch.waive_hold_down();
        assert_eq!(watch.standing(), Standing::In);
    }

    #[test]
    fn a_region_without_endpoints_is_empty_and_one_that_is_all_drained_is_draining() {
        let mut watch = Watch::default();
        watch.settle(at(0), &Tally::default(), &rule());
        assert_eq!(watch.standing(), Standing::Out(OutReason::Empty));
        watch.settle(at(0), &all(Verdict::Draining), &rule());
        assert_eq!(watch.standing(), Standing::Out(OutReason::Draining));
        watch.settle(at(0), &all(Verdict::Up), &rule());
        assert_eq!(watch.standing(), Standing::In);
    }
}
