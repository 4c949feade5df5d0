//! What was concluded about one endpoint, in one word that the choice of an endpoint reads without
//! a lock: whether it is left out, how much of its weight it gets, since when it warms up.
//!
//! Written by [`court`](super::court); [`select`](super::select) takes trials from it. Zero is an
//! endpoint of which there is nothing to say.

/// How long a trial may take until another request is sent instead.
pub(crate) const TRIAL_LIMIT_MS: u64 = 10_000;
/// For so long a trial waits for a request that may be repeated if it fails, before any will do.
pub(crate) const TRIAL_PATIENCE_MS: u64 = 5_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mark {
    #[default]
    Plain,
    /// It serves with a share of its weight, or since `warm_from` as an endpoint that came up.
    Less {
        /// Of its weight, 1–100.
        percent: u8,
        warm_from: Option<u64>,
    },
    /// It is left out until then; then one request is a trial, and one more each
    /// [`TRIAL_LIMIT_MS`] while nothing is heard.
    Out { until: u64 },
    /// The first trial was passed: so many more may begin now; all anew at `again`.
    Trial { left: u8, again: u64 },
}

const OUT: u64 = 1;
const TRIAL: u64 = 2;
const LESS: u64 = 3;

impl Mark {
    /// Two bits of kind, a byte, the rest a time.
    pub(crate) const fn pack(self) -> u64 {
        match self {
            Self::Plain => 0,
            Self::Less { percent, warm_from } => {
                let from = match warm_from {
                    Some(from) => from + 1,
                    None => 0,
                };
                LESS | (percent as u64) << 2 | from << 10
            }
            Self::Out { until } => OUT | until << 10,
            Self::Trial { left, again } => TRIAL | (left as u64) << 2 | again << 10,
        }
    }

    pub(crate) const fn unpack(word: u64) -> Self {
        let byte = (word >> 2) as u8;
        let time = word >> 10;
        match word & 3 {
            OUT => Self::Out { until: time },
            TRIAL => Self::Trial {
                left: byte,
                again: time,
            },
            LESS => Self::Less {
                percent: byte,
                warm_from: time.checked_sub(1),
            },
            _ => Self::Plain,
        }
    }

    /// Is it left out but for trials?
    pub(crate) const fn is_out(self) -> bool {
        matches!(self, Self::Out { .. } | Self::Trial { .. })
    }

    /// The mark after a request was sent on trial. `None`: none may be now. `repeatable`: the
    /// request can be sent elsewhere if the trial fails.
    pub(crate) const fn try_out(self, now: u64, repeatable: bool) -> Option<Self> {
        match self {
            Self::Plain | Self::Less { .. } => None,
            Self::Out { until } => {
                let since = if repeatable {
                    until
                } else {
                    until + TRIAL_PATIENCE_MS
                };
                if now < since {
                    return None;
                }
                Some(Self::Out {
                    until: now + TRIAL_LIMIT_MS,
                })
            }
            Self::Trial { left, again } => {
                if now >= again {
                    return Some(Self::Trial {
                        left: super::ejection::SECOND_TRIALS as u8 - 1,
                        again: now + TRIAL_LIMIT_MS,
                    });
                }
                let is_time = repeatable || now + TRIAL_PATIENCE_MS >= again;
                if left == 0 || !is_time {
                    return None;
                }
                Some(Self::Trial {
                    left: left - 1,
                    again,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_fits_one_word() {
        for mark in [
            Mark::Plain,
            Mark::Less {
                percent: 10,
                warm_from: None,
            },
            Mark::Less {
                percent: 100,
                warm_from: Some(0),
            },
            Mark::Out {
                until: 1_000_000_000_000,
            },
            Mark::Trial { left: 3, again: 77 },
        ] {
            assert_eq!(Mark::unpack(mark.pack()), mark);
        }
        assert_eq!(Mark::Plain.pack(), 0);
    }

    #[test]
    fn the_first_trial_is_one_request_and_another_only_when_that_is_overdue() {
        let out = Mark::Out { until: 30_000 };

        assert_eq!(out.try_out(29_999, true), None);
        let tried = out.try_out(30_000, true).unwrap();
        assert_eq!(tried.try_out(30_001, true), None);
        assert!(tried.try_out(30_000 + TRIAL_LIMIT_MS, true).is_some());
    }

    #[test]
    fn what_cannot_be_repeated_is_no_trial_until_nothing_else_came() {
        let out = Mark::Out { until: 30_000 };

        assert_eq!(out.try_out(30_000, false), None);
        assert!(out.try_out(30_000 + TRIAL_PATIENCE_MS, false).is_some());
    }

    #[test]
    fn the_second_stage_is_three_requests() {
        let mut mark = Mark::Trial { left: 3, again: 50 };
        for _ in 0..3 {
            mark = mark.try_out(10, true).unwrap();
        }

        assert_eq!(mark.try_out(10, true), None);
        let anew = mark.try_out(50, true).unwrap();
        assert_eq!(
            anew,
            Mark::Trial {
                left: 2,
                again: 50 + TRIAL_LIMIT_MS
            }
        );
    }
}
