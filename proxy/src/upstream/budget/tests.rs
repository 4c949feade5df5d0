//! Budgets over virtual time.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const PACE: usize = RESERVE_PER_SEC as usize;
const RESERVE: usize = (RESERVE_PER_SEC * TOKENS_LIVE_SECS) as usize;

fn fifth() -> Budget {
    Budget::new(Ratio::new(0.2).unwrap())
}

#[expect(
    clippy::disallowed_methods,
    reason = "only the start of a virtual time"
)]
fn start() -> Instant {
    Instant::now()
}

/// Where no further attempt comes to anything.
fn drain(budget: &Budget, now: Instant) -> usize {
    (0..1_000_000)
        .take_while(|_| withdraw_in_vain(budget, now))
        .count()
}

fn withdraw_in_vain(budget: &Budget, now: Instant) -> bool {
    let granted = budget.withdraw(now);
    if granted {
        budget.note_failed(now);
    }
    granted
}

/// Where each does, at once.
fn drain_well(budget: &Budget, now: Instant) -> usize {
    (0..1_000_000).take_while(|_| budget.withdraw(now)).count()
}

fn deposit(budget: &Budget, count: usize, now: Instant) {
    for _ in 0..count {
        budget.deposit(now);
    }
}

#[test]
fn a_quiet_route_has_ten_tokens_for_each_of_ten_seconds() {
    let (budget, now) = (fifth(), start());

    assert_eq!(drain_well(&budget, now), RESERVE);
    assert_eq!(drain_well(&budget, now + Duration::from_millis(9_999)), 0);
    let later = now + Duration::from_millis(10_500);
    assert_eq!(drain_well(&budget, later), RESERVE);
}

#[test]
fn a_fifth_of_the_requests_comes_on_top() {
    let (budget, now) = (fifth(), start());
    deposit(&budget, 1_000, now);

    assert_eq!(drain_well(&budget, now), RESERVE + 200);
}

#[test]
fn what_was_saved_is_not_spent_on_what_comes_to_nothing() {
    let (budget, mut now) = (fifth(), start());
    for _ in 0..10 {
        deposit(&budget, 300, now);
        now += Duration::from_secs(1);
    }

    assert_eq!(drain(&budget, now), PACE + 60);
    assert_eq!(
        drain_well(&budget, now + Duration::from_millis(1_500)),
        RESERVE + 480 - 70
    );
}

#[test]
fn five_requests_make_one_token() {
    let (budget, now) = (fifth(), start());
    drain(&budget, now);

    deposit(&budget, 4, now);
    assert!(!withdraw_in_vain(&budget, now));
    deposit(&budget, 1, now);
    assert!(withdraw_in_vain(&budget, now));
    assert!(!withdraw_in_vain(&budget, now));
}

#[test]
fn tokens_expire_after_ten_seconds() {
    let (budget, now) = (fifth(), start());
    deposit(&budget, 1_000, now);

    let half_of_them = drain_well(&budget, now + Duration::from_millis(10_250));
    assert_eq!(half_of_them, RESERVE + 100);
    let budget = fifth();
    deposit(&budget, 1_000, now);
    let later = now + Duration::from_millis(10_500);
    assert_eq!(drain_well(&budget, later), RESERVE);
}

#[test]
fn a_ratio_of_nothing_leaves_the_reserve() {
    let (budget, now) = (Budget::new(Ratio::new(0.0).unwrap()), start());
    deposit(&budget, 1_000, now);

    assert_eq!(drain_well(&budget, now), RESERVE);
}

#[test]
fn a_new_ratio_holds_for_new_requests() {
    let (budget, now) = (fifth(), start());
    deposit(&budget, 100, now);
    budget.set_ratio(Ratio::new(1.0).unwrap());
    deposit(&budget, 100, now);

    assert_eq!(drain_well(&budget, now), RESERVE + 20 + 100);
}

#[test]
fn what_nobody_could_refuse_is_owed() {
    let (budget, now) = (fifth(), start());
    for _ in 0..RESERVE {
        budget.charge(now);
    }

    assert!(!budget.withdraw(now + Duration::from_secs(9)));
    assert!(budget.withdraw(now + Duration::from_millis(10_500)));
}

/// Requests come evenly, and all attempts fail from a moment on: how many further ones in each half of a second.
fn outage(budget: &Budget, rate: usize, healthy: usize, broken: usize) -> Vec<usize> {
    let now = start();
    let mut granted = vec![0; 2 * broken];
    for number in 0..rate * (healthy + broken) {
        let now = now + Duration::from_secs(1).mul_f64(number as f64 / rate as f64);
        budget.deposit(now);
        if let Some(broken) = number.checked_sub(rate * healthy) {
            let tries = (0..2).take_while(|_| withdraw_in_vain(budget, now)).count();
            granted[2 * broken / rate] += tries;
        }
    }
    granted
}

#[test]
fn a_total_outage_costs_a_fifth_and_ten_a_second_from_its_first_second_on() {
    let granted = outage(&fifth(), 300, 15, 20);

    let seconds = granted.windows(2).map(|two| two[0] + two[1]);
    assert!(seconds.max().unwrap() <= 70, "{granted:?}");
    let ten = granted.windows(20).map(|ten| ten.iter().sum::<usize>());
    assert!(ten.max().unwrap() <= 700, "{granted:?}");
    // Not much less either: a budget is there to be used.
    assert!(granted.iter().sum::<usize>() > 20 * 55, "{granted:?}");
}

#[test]
fn without_a_pace_the_first_second_of_an_outage_has_all_that_was_saved() {
    let first = |budget: &Budget| outage(budget, 300, 15, 5)[..2].iter().sum::<usize>();
    let without = without(Term::Pace);

    assert!(first(&fifth()) <= 70);
    assert!(first(&without) > 300, "{}", first(&without));
}

#[test]
fn where_each_request_needs_a_second_attempt_one_in_five_has_it_and_all_without_the_budget() {
    let granted = |budget: &Budget| {
        let now = start();
        let one = |number: u32| {
            let now = now + Duration::from_millis(2) * number;
            budget.deposit(now);
            budget.withdraw(now)
        };
        (0..30_000).filter(|number| one(*number)).count()
    };

    // A minute: a fifth of 30,000, ten a second, and what was saved at the beginning.
    let with = granted(&fifth());
    assert!((6_000..=6_700).contains(&with), "{with}");
    assert_eq!(granted(&without(Term::Saved)), 30_000);
}

#[test]
fn without_the_reserve_a_quiet_route_has_no_second_attempt() {
    let granted = |budget: &Budget| {
        let now = start();
        let one = |minute: u32| {
            let now = now + Duration::from_secs(60) * minute;
            budget.deposit(now);
            budget.withdraw(now)
        };
        (0..10).filter(|minute| one(*minute)).count()
    };

    assert_eq!(granted(&fifth()), 10);
    assert_eq!(granted(&without(Term::Reserve)), 0);
}

fn without(term: Term) -> Budget {
    Budget {
        without: Some(term),
        ..fifth()
    }
}

#[test]
fn an_earlier_clock_of_another_worker_does_no_harm() {
    let (budget, now) = (fifth(), start());
    let later = now + Duration::from_secs(30);
    budget.deposit(now);
    budget.deposit(later);

    assert!(budget.withdraw(now));
    assert!(budget.withdraw(later));
}

#[test]
fn workers_together_never_overdraw_within_a_second() {
    let (budget, now) = (fifth(), start());
    deposit(&budget, 1_000, now);

    let granted: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..1_000).filter(|_| budget.withdraw(now)).count()))
            .collect();
        workers.into_iter().map(|w| w.join().unwrap()).sum()
    });

    assert_eq!(granted, RESERVE + 200);
}

proptest! {
    /// Both laws of [`Budget`], at each withdrawal, against a plain list of what happened, whatever the times.
    #[test]
    fn no_span_holds_more_withdrawals_than_its_deposits_and_reserve_allow(
        steps in prop::collection::vec((0_u64..1_500, 0_usize..60, 0_usize..60, any::<bool>()), 1..80),
        percent in 0_u32..=100,
    ) {
        let budget = Budget::new(Ratio::new(f64::from(percent) / 100.0).unwrap());
        let origin = start();
        let mut at = 0;
        // Ticks are counted from the first use.
        budget.deposit(origin);
        let mut earned = vec![(0_u64, 1)];
        let mut spent: Vec<(u64, usize)> = vec![];
        let mut unproven: Vec<(u64, usize)> = vec![];
        for (millis, requests, failures, well) in steps {
            at += millis;
            let now = origin + Duration::from_millis(at);
            deposit(&budget, requests, now);
            earned.push((at, requests));
            let granted = drain_some(&budget, now, failures, well);
            spent.push((at, granted));
            if !well {
                unproven.push((at, granted));
            }
            // Deposits are known to half a second.
            let within = |of: &[(u64, usize)], span: u64| -> f64 {
                of.iter().filter(|(then, _)| then + span > at).map(|(_, n)| *n as f64).sum()
            };
            let ratio = f64::from(percent) / 100.0;
            let saved = ratio * within(&earned, 10_500) + RESERVE as f64;
            prop_assert!(granted == 0 || within(&spent, 10_000) <= saved + 1e-6);
            if !well && granted > 0 {
                let pace = ratio * within(&earned, 1_500) + PACE as f64;
                prop_assert!(within(&unproven, 1_000) <= pace + 1e-6);
            }
        }
    }
}

fn drain_some(budget: &Budget, now: Instant, many: usize, well: bool) -> usize {
    let try_one = |_: &usize| {
        if well {
            budget.withdraw(now)
        } else {
            withdraw_in_vain(budget, now)
        }
    };
    (0..many).take_while(try_one).count()
}
