//! Budgets over virtual time.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

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

fn drain(budget: &Budget, now: Instant) -> usize {
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

    assert_eq!(drain(&budget, now), RESERVE);
    assert_eq!(drain(&budget, now + Duration::from_millis(9_999)), 0);
    assert_eq!(drain(&budget, now + Duration::from_secs(10)), RESERVE);
}

#[test]
fn a_fifth_of_the_requests_comes_on_top() {
    let (budget, now) = (fifth(), start());
    deposit(&budget, 1_000, now);

    assert_eq!(drain(&budget, now), RESERVE + 200);
}

#[test]
fn five_requests_make_one_token() {
    let (budget, now) = (fifth(), start());
    drain(&budget, now);

    deposit(&budget, 4, now);
    assert!(!budget.withdraw(now));
    deposit(&budget, 1, now);
    assert!(budget.withdraw(now));
    assert!(!budget.withdraw(now));
}

#[test]
fn tokens_expire_after_ten_seconds() {
    let (budget, now) = (fifth(), start());
    deposit(&budget, 1_000, now);

    assert_eq!(drain(&budget, now + Duration::from_secs(10)), RESERVE);
}

#[test]
fn a_ratio_of_nothing_leaves_the_reserve() {
    let (budget, now) = (Budget::new(Ratio::new(0.0).unwrap()), start());
    deposit(&budget, 1_000, now);

    assert_eq!(drain(&budget, now), RESERVE);
}

#[test]
fn a_new_ratio_holds_for_new_requests() {
    let (budget, now) = (fifth(), start());
    deposit(&budget, 100, now);
    budget.set_ratio(Ratio::new(1.0).unwrap());
    deposit(&budget, 100, now);

    assert_eq!(drain(&budget, now), RESERVE + 20 + 100);
}

#[test]
fn a_total_outage_at_constant_load_costs_a_fifth_and_ten_a_second() {
    let (budget, now) = (fifth(), start());
    let (mut asked, mut granted) = (0, 0);
    for millis in (0..60_000).step_by(2) {
        let now = now + Duration::from_millis(millis);
        budget.deposit(now);
        asked += 1;
        granted += usize::from(budget.withdraw(now));
    }

    // 60 s at 500/s: a fifth of 30,000, and 10/s; the first 10 s may spend the reserve at once.
    assert_eq!(asked, 30_000);
    let expected = 6_000 + 600;
    assert!(
        (expected - 110..=expected + RESERVE).contains(&granted),
        "{granted}"
    );
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
    /// The law of [`Budget`], checked at each withdrawal against a plain list of what happened.
    #[test]
    fn no_window_holds_more_withdrawals_than_its_deposits_and_reserve_allow(
        steps in prop::collection::vec((0_u64..1_500, 0_usize..60, 0_usize..60), 1..80),
        percent in 0_u32..=100,
    ) {
        let budget = Budget::new(Ratio::new(f64::from(percent) / 100.0).unwrap());
        let origin = start();
        let mut at = 0;
        // Seconds are counted from the first use.
        budget.deposit(origin);
        let mut seen: Vec<(u64, i64)> = vec![(0, i64::from(percent) * 10)];
        for (millis, requests, failures) in steps {
            at += millis;
            let now = origin + Duration::from_millis(at);
            deposit(&budget, requests, now);
            seen.push((at / 1_000, i64::from(percent) * 10 * requests as i64));
            for _ in 0..failures {
                let lives = |second: u64| second + 10 > at / 1_000;
                let net: i64 = seen.iter().filter(|(s, _)| lives(*s)).map(|(_, n)| n).sum();
                let allowed = RESERVE_MILLIS + net >= 1_000;
                prop_assert_eq!(budget.withdraw(now), allowed);
                if allowed {
                    seen.push((at / 1_000, -1_000));
                }
            }
        }
    }
}
