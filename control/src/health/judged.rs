//! What the proxy concluded about endpoints from live requests, as control keeps it.
//!
//! Called by [`crate::core`]. Concludes nothing: it keeps what it was told, with the time until which
//! it holds, and says when a region is degraded by it.

use std::time::Duration;

use sealane_model::{Judged, Judgement, Timestamp};

/// How long after its end an ejection is still shown: what ended it may not have been heard of, as
/// observations may be dropped.
pub const SHOWN_AFTER_END: Duration = Duration::from_secs(600);

/// What is kept of a judgement. `None`: there is no more to say.
#[must_use]
pub fn judged(now: Timestamp, before: Option<Judged>, judgement: Judgement) -> Option<Judged> {
    match judgement {
        Judgement::Ejected { why, times, time } => Some(Judged::Ejected {
            why,
            times,
            until: now + time,
        }),
        Judgement::KeptInNeed { why, time } => Some(Judged::KeptInNeed {
            why,
            until: now + time,
        }),
        Judgement::OnTrial => Some(Judged::OnTrial {
            times: match before {
                Some(Judged::Ejected { times, .. } | Judged::OnTrial { times, .. }) => times,
                _ => 1,
            },
            since: now,
        }),
        Judgement::Readmitted => None,
        Judgement::Weighs { share } if share >= 1.0 => None,
        Judgement::Weighs { share } => Some(Judged::Weighs { share }),
    }
}

/// When it ceases to count against its region.
#[must_use]
pub const fn counts_until(judged: &Judged) -> Option<Timestamp> {
    match judged {
        Judged::Ejected { until, .. } | Judged::KeptInNeed { until, .. } => Some(*until),
        Judged::OnTrial { .. } | Judged::Weighs { .. } => None,
    }
}

/// Does it say now that the endpoint is out of order?
#[must_use]
pub fn counts(now: Timestamp, judged: Option<&Judged>) -> bool {
    judged
        .and_then(counts_until)
        .is_some_and(|until| now < until)
}

/// Is it one more than may be left out? Then all that count are the region's failures.
#[must_use]
pub fn degrades(now: Timestamp, judged: Option<&Judged>) -> bool {
    matches!(judged, Some(Judged::KeptInNeed { .. })) && counts(now, judged)
}

/// What is still worth showing.
#[must_use]
pub fn shown(now: Timestamp, judged: Option<Judged>) -> Option<Judged> {
    let over = match judged? {
        Judged::KeptInNeed { until, .. } => now >= until,
        Judged::Ejected { until, .. } => now >= until + SHOWN_AFTER_END,
        Judged::OnTrial { since, .. } => now >= since + SHOWN_AFTER_END,
        Judged::Weighs { .. } => false,
    };
    judged.filter(|_| !over)
}

#[cfg(test)]
mod tests {
    use sealane_model::EjectionCause::ErrorsInARow;

    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_millis(secs * 1_000)
    }

    fn ejected(times: u32) -> Judgement {
        Judgement::Ejected {
            why: ErrorsInARow,
            times,
            time: Duration::from_secs(30),
        }
    }

    #[test]
    fn an_ejection_counts_for_its_time_and_is_shown_until_it_is_over() {
        let out = judged(at(10), None, ejected(2));

        assert!(counts(at(39), out.as_ref()) && !counts(at(40), out.as_ref()));
        assert!(!degrades(at(11), out.as_ref()));
        assert!(shown(at(100), out).is_some());
        assert_eq!(shown(at(640), out), None);
        let trial = judged(at(41), out, Judgement::OnTrial);
        assert!(matches!(trial, Some(Judged::OnTrial { times: 2, .. })));
        assert_eq!(judged(at(42), trial, Judgement::Readmitted), None);
    }

    #[test]
    fn one_that_is_kept_in_need_degrades_its_region_while_it_holds() {
        let time = Duration::from_secs(30);
        let why = ErrorsInARow;
        let kept = judged(at(0), None, Judgement::KeptInNeed { why, time });

        assert!(degrades(at(29), kept.as_ref()));
        assert!(!degrades(at(30), kept.as_ref()));
        assert_eq!(shown(at(30), kept), None);
    }

    #[test]
    fn a_whole_weight_is_nothing_to_say() {
        let cut = judged(at(0), None, Judgement::Weighs { share: 0.25 });

        assert_eq!(cut, Some(Judged::Weighs { share: 0.25 }));
        assert_eq!(judged(at(1), cut, Judgement::Weighs { share: 1.0 }), None);
    }
}
