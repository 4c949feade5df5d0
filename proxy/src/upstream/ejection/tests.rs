//! Who is left out, and when it is let in again.

use EjectionCause::{ErrorsInARow, FailedTrial, SuccessRate};
use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000;

/// A region `eu` of so many endpoints, on a clock of its own.
struct Court {
    core: Ejection,
    rule: EjectionRule,
    now: u64,
}

impl Court {
    fn of(endpoints: usize) -> Self {
        Self::of_zones(&vec![None; endpoints])
    }

    fn of_zones(azs: &[Option<&str>]) -> Self {
        let mut core = Ejection::default();
        let seat = |(at, az): (usize, &Option<&str>)| Seat {
            endpoint: endpoint(at),
            az: az.map(Arc::from),
        };
        let seats: Vec<_> = azs.iter().enumerate().map(seat).collect();
        core.seat(0, RegionId::from_index(0).unwrap(), &seats);
        Self {
            core,
            rule: EjectionRule::default(),
            now: 0,
        }
    }

    fn report(&mut self, at: usize, report: &Report) -> Option<Verdict> {
        self.core.report(self.now, endpoint(at), report, &self.rule)
    }

    fn good(&mut self, at: usize, count: u32) -> Option<Verdict> {
        let good = count;
        self.report(
            at,
            &Report {
                good,
                ..Report::default()
            },
        )
    }

    fn bad(&mut self, at: usize) -> Option<Verdict> {
        self.report(
            at,
            &Report {
                bad: 1,
                ..Report::default()
            },
        )
    }

    /// So many errors in a row; what the last one came to.
    fn fail(&mut self, at: usize, times: u32) -> Option<Verdict> {
        (0..times).map(|_| self.bad(at)).last().flatten()
    }

    fn trial(&mut self, at: usize, passed: bool) -> Option<Verdict> {
        self.report(
            at,
            &Report {
                trials_passed: passed.into(),
                trials_failed: (!passed).into(),
                ..Report::default()
            },
        )
    }

    fn out(&self) -> Vec<usize> {
        let all = 0..self.core.tracks.len();
        all.filter(|at| self.core.state(endpoint(*at)) != State::In)
            .collect()
    }

    fn until(&self, at: usize) -> u64 {
        match self.core.state(endpoint(at)) {
            State::Out { until, .. } => until,
            State::In => panic!("it is in"),
        }
    }

    /// To its trial, which it passes or not, and on to the end of it.
    fn retry(&mut self, at: usize, passes: bool) -> Option<Verdict> {
        self.now = self.until(at);
        if !passes {
            return self.trial(at, false);
        }
        (0..=SECOND_TRIALS)
            .map(|_| self.trial(at, true))
            .last()
            .flatten()
    }

    /// A window of so many good answers of that latency from each endpoint.
    fn window(&mut self, millis: &[f32]) -> Vec<Option<Verdict>> {
        self.now += WINDOW_MS;
        let report = |millis: f32| {
            let mut latencies = Sketch::default();
            (0..50).for_each(|_| latencies.add(millis * 1_000.0));
            Report {
                good: 50,
                latencies,
                ..Report::default()
            }
        };
        let all = millis.iter().enumerate().rev();
        let mut verdicts: Vec<_> = all
            .map(|(at, millis)| self.report(at, &report(*millis)))
            .collect();
        verdicts.reverse();
        verdicts
    }
}

fn endpoint(at: usize) -> EndpointId {
    EndpointId::from_index(at).unwrap()
}

fn why(verdict: Option<Verdict>) -> Option<EjectionCause> {
    match verdict? {
        Verdict::Ejected { why, .. } => Some(why),
        _ => None,
    }
}

#[test]
fn the_fifth_error_in_a_row_ejects_and_a_good_answer_begins_the_row_anew() {
    let mut court = Court::of(3);

    assert_eq!(court.fail(0, 4), None);
    court.good(0, 1);
    assert_eq!(court.fail(0, 4), None);
    assert_eq!(why(court.bad(0)), Some(ErrorsInARow));
    assert_eq!(court.out(), [0]);
}

#[test]
fn a_good_answer_that_is_reported_with_a_later_error_ends_the_row_too() {
    let mut court = Court::of(3);
    court.fail(0, 4);

    let both = Report {
        good: 1,
        bad: 1,
        ..Report::default()
    };

    assert_eq!(court.report(0, &both), None);
}

#[test]
fn a_share_below_the_limit_ejects_even_where_there_is_only_one_to_compare_with() {
    let mut court = Court::of(2);
    court.good(1, 100);
    let mut verdict = None;
    // Every fourth fails: never five in a row.
    for at in 0..40 {
        verdict = if at % 4 == 3 {
            court.bad(0)
        } else {
            court.good(0, 1)
        };
        if verdict.is_some() {
            break;
        }
    }

    assert_eq!(why(verdict), Some(SuccessRate));
}

#[test]
fn a_share_that_all_have_ejects_nobody() {
    for endpoints in [2, 3, 10] {
        let mut court = Court::of(endpoints);
        for round in 0..400 {
            court.now += 20;
            for at in 0..endpoints {
                let verdict = if (round + at) % 4 == 3 {
                    court.bad(at)
                } else {
                    court.good(at, 1)
                };
                assert_eq!(verdict, None);
            }
        }
    }
}

#[test]
fn without_the_comparison_with_peers_a_fault_of_the_requests_would_eject() {
    // The term of the formula that the scenario above rests on: the same counts, and peers that are
    // well.
    let rule = EjectionRule::default();
    let own = Lately {
        good: 30.0,
        bad: 10.0,
        at: 0,
    };

    assert!(!is_worse(own, own, &rule));
    let well = Lately {
        good: 90.0,
        bad: 0.0,
        at: 0,
    };
    assert!(is_worse(own, well, &rule));
}

#[test]
fn few_requests_say_nothing_and_old_ones_are_forgotten() {
    let mut court = Court::of(2);
    court.good(1, 100);
    for at in 0..15 {
        let verdict = if at % 3 == 2 {
            court.bad(0)
        } else {
            court.good(0, 1)
        };
        assert_eq!(verdict, None);
    }
    // Half a minute later they weigh a twentieth: again there are few.
    court.now += 30 * SECOND;
    court.good(1, 100);
    court.good(0, 3);
    assert_eq!(court.bad(0), None);
}

#[test]
fn at_most_a_third_is_out_and_one_always_serves() {
    for (endpoints, expected) in [(1, 0), (2, 1), (3, 1), (5, 1), (6, 2), (9, 3), (10, 3)] {
        let mut court = Court::of(endpoints);
        for at in 0..endpoints {
            court.fail(at, 5);
        }
        assert_eq!(court.out().len(), expected, "of {endpoints}");
    }
}

#[test]
fn what_the_cap_keeps_in_is_said_once_for_as_long_as_it_holds() {
    let mut court = Court::of(2);
    court.fail(0, 5);

    let refused = court.fail(1, 5);

    assert_eq!(refused, Some(Verdict::Refused { why: ErrorsInARow }));
    assert_eq!(court.bad(1), None);
    court.now += u64::try_from(REFUSAL_HOLDS.as_millis()).unwrap();
    assert_eq!(court.bad(1), Some(Verdict::Refused { why: ErrorsInARow }));
}

#[test]
fn a_zone_keeps_two_thirds_of_its_endpoints_whatever_the_region_could_spare() {
    let azs = [
        Some("a"),
        Some("a"),
        Some("b"),
        Some("b"),
        Some("b"),
        Some("b"),
    ];
    let mut court = Court::of_zones(&azs);

    court.fail(0, 5);
    assert_eq!(
        court.fail(1, 5),
        Some(Verdict::Refused { why: ErrorsInARow })
    );
    assert_eq!(why(court.fail(2, 5)), Some(ErrorsInARow));
    assert_eq!(court.out(), [0, 2]);
}

#[test]
fn other_regions_do_not_count_against_the_cap_nor_as_peers() {
    let mut court = Court::of(2);
    let us = RegionId::from_index(1).unwrap();
    let seat = |at| Seat {
        endpoint: endpoint(at),
        az: None,
    };
    court.core.seat(0, us, &[seat(2), seat(3)]);

    assert_eq!(why(court.fail(0, 5)), Some(ErrorsInARow));
    assert_eq!(why(court.fail(2, 5)), Some(ErrorsInARow));
}

#[test]
fn each_further_ejection_is_longer_up_to_five_minutes_and_no_two_end_together() {
    let mut court = Court::of(3);
    court.fail(0, 5);
    let mut seconds = Vec::new();
    for _ in 0..14 {
        seconds.push((court.until(0) - court.now) as f64 / 1e3);
        assert_eq!(why(court.retry(0, false)), Some(FailedTrial));
    }

    for (at, seconds) in (1..).zip(seconds) {
        let least = f64::from(at * 30).min(300.0);
        assert!((least..=least * 1.1).contains(&seconds), "{at}: {seconds}");
    }
    let mut other = Court::of(3);
    other.fail(1, 5);
    let mut first = Court::of(3);
    first.fail(0, 5);
    assert_ne!(first.until(0), other.until(1));
}

#[test]
fn ejections_are_forgotten_one_by_one_while_it_serves() {
    let mut court = Court::of(3);
    let times = |verdict| match verdict {
        Some(Verdict::Ejected { times, .. }) => times,
        _ => 0,
    };
    assert_eq!(times(court.fail(0, 5)), 1);
    assert_eq!(times(court.retry(0, false)), 2);
    assert_eq!(times(court.retry(0, false)), 3);
    court.retry(0, true);

    court.now += 61 * SECOND;
    court.good(0, 1);
    assert_eq!(times(court.fail(0, 5)), 2);
}

#[test]
fn one_trial_then_three_and_then_it_is_in_with_a_clean_slate() {
    let mut court = Court::of(3);
    court.fail(0, 5);
    court.now = court.until(0);

    assert_eq!(court.trial(0, true), Some(Verdict::OnTrial));
    assert_eq!(court.trial(0, true), None);
    assert_eq!(court.trial(0, true), None);
    assert_eq!(court.trial(0, true), Some(Verdict::Readmitted));
    assert!(court.out().is_empty());
    assert_eq!(court.fail(0, 4), None);
}

/// How often one that fails every other request, by chance, is let in again within a hundred ejections. `passed`:
/// what one trial that went well is taken for.
fn let_in(passed: u32) -> usize {
    let mut court = Court::of(3);
    let mut chance = 0x2545_f491_4f6c_dd1d_u64;
    let mut let_in = 0;
    court.fail(0, 5);
    for _ in 0..100 {
        court.now = court.until(0);
        loop {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            let report = match chance >> 63 {
                0 => Report {
                    trials_passed: passed,
                    ..Report::default()
                },
                _ => Report {
                    trials_failed: 1,
                    ..Report::default()
                },
            };
            match court.report(0, &report) {
                Some(Verdict::Readmitted) => {
                    let_in += 1;
                    court.fail(0, 5);
                    break;
                }
                Some(Verdict::Ejected { .. }) => break,
                _ => {}
            }
        }
    }
    let_in
}

#[test]
fn without_the_three_further_trials_one_that_fails_half_the_time_is_let_in_by_chance() {
    let with = let_in(1);
    let without = let_in(1 + SECOND_TRIALS);
    assert!(without > 4 * with, "{without} {with}");
}

#[test]
fn without_jitter_all_that_were_ejected_together_are_tried_together() {
    let mut court = Court::of(100);
    for at in 0..33 {
        court.fail(at, 5);
    }
    let ends: Vec<u64> = (0..33).map(|at| court.until(at)).collect();
    let within = |begin: u64, width: u64| {
        let together = |end: &&u64| (begin..begin + width).contains(*end);
        ends.iter().filter(together).count()
    };
    let busiest = |width: u64| {
        ends.iter()
            .map(|begin| within(*begin, width))
            .max()
            .unwrap()
    };
    // Without, each would end 30 s after the same moment.
    assert_eq!(busiest(3_001), 33, "a tenth of 30 s");
    assert!(busiest(300) <= 11, "{}", busiest(300));
}

#[test]
fn a_failed_trial_at_either_stage_ejects_again() {
    for passed in [0, 1, 3] {
        let mut court = Court::of(3);
        court.fail(0, 5);
        court.now = court.until(0);
        (0..passed).for_each(|_| _ = court.trial(0, true));

        assert_eq!(why(court.trial(0, false)), Some(FailedTrial));
        assert!(court.until(0) > court.now);
    }
}

#[test]
fn answers_to_requests_from_before_the_ejection_bring_nothing_back() {
    let mut court = Court::of(3);
    court.fail(0, 5);

    assert_eq!(court.good(0, 1_000), None);
    assert_eq!(court.bad(0), None);
    assert_eq!(court.out(), [0]);
}

#[test]
fn three_slow_windows_cut_the_weight_and_fast_ones_give_it_back() {
    let mut court = Court::of(3);
    let slow = [80.0, 10.0, 10.0];

    assert_eq!(court.window(&slow), [None, None, None]);
    assert_eq!(court.window(&slow), [None, None, None]);
    let cut = court.window(&slow)[0];
    let Some(Verdict::Cut { share }) = cut else {
        panic!("{cut:?}");
    };
    assert!((0.11..0.14).contains(&share), "{share}");
    assert!(court.out().is_empty());

    let shares: Vec<_> = (0..4)
        .map(|_| {
            court.window(&[10.0, 10.0, 10.0]);
            court.core.share(endpoint(0))
        })
        .collect();
    assert_eq!(shares, [share * 2.0, share * 4.0, 1.0, 1.0]);
}

#[test]
fn a_cut_leaves_a_tenth_and_two_endpoints_are_enough_to_compare() {
    let mut court = Court::of(2);
    for _ in 0..6 {
        court.window(&[5_000.0, 10.0]);
    }

    assert!((court.core.share(endpoint(0)) - CUT_MIN).abs() < 1e-6);
    assert!((court.core.share(endpoint(1)) - 1.0).abs() < 1e-6);
}

#[test]
fn two_times_slower_and_what_nobody_feels_are_no_slowness() {
    for slow in [[20.0, 10.0], [4.0, 0.2]] {
        let mut court = Court::of(2);
        for _ in 0..6 {
            assert_eq!(court.window(&slow), [None, None]);
        }
    }
}

#[test]
fn who_leaves_is_forgotten_and_who_stays_keeps_what_is_known() {
    let mut court = Court::of(6);
    court.fail(0, 5);
    court.fail(1, 5);
    let seats: Vec<_> = [1, 2, 3, 4, 5]
        .map(|at| Seat {
            endpoint: endpoint(at),
            az: None,
        })
        .into();

    court.core.seat(0, RegionId::from_index(0).unwrap(), &seats);

    assert_eq!(court.core.state(endpoint(0)), State::In);
    assert_ne!(court.core.state(endpoint(1)), State::In);
    assert_eq!(court.fail(0, 10), None);
}

/// Anything that may be reported.
fn reports() -> impl Strategy<Value = Vec<(usize, u32, u32, u32, u32, u64)>> {
    prop::collection::vec(
        (
            0_usize..7,
            0_u32..30,
            0_u32..8,
            0_u32..3,
            0_u32..2,
            0_u64..60_000,
        ),
        1..300,
    )
}

proptest! {
    #[test]
    fn whatever_is_reported_the_cap_holds_and_time_spent_out_is_bounded(reports in reports()) {
        let mut court = Court::of(7);
        for (at, good, bad, trials_passed, trials_failed, passed) in reports {
            court.now += passed;
            let report = Report { good, bad, trials_passed, trials_failed, ..Report::default() };
            court.report(at, &report);

            prop_assert!(court.out().len() <= 2);
            for out in court.out() {
                prop_assert!(court.until(out) <= court.now + 330 * SECOND);
            }
        }
    }
}
