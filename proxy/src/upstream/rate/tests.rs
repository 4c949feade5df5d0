//! Rates on virtual time.

use proptest::prelude::*;

use super::*;

#[expect(
    clippy::disallowed_methods,
    reason = "only the start of a virtual time"
)]
fn start() -> Instant {
    Instant::now()
}

const fn per_second(count: u32) -> Rate {
    Rate {
        count,
        per: Duration::from_secs(1),
    }
}

#[test]
fn a_burst_passes_at_once_and_then_the_rate() {
    let (table, begin) = (RateTable::new(per_second(10), 5, 100), start());
    for left in (0..5).rev() {
        assert_eq!(table.take("key", begin).unwrap().left, left);
    }
    let refused = table.take("key", begin).unwrap_err();
    assert_eq!(refused.left, 0);
    let millis = |time: Duration| (time.as_secs_f64() * 1e3).round();
    assert!(
        (98.0..=100.0).contains(&millis(refused.next_in)),
        "{refused:?}"
    );
    assert_eq!(millis(refused.full_in), 500.0);

    assert!(table.take("other", begin).is_ok());
    let later = begin + Duration::from_millis(100);
    assert!(table.take("key", later).is_ok());
    assert!(table.take("key", later).is_err());
    let much_later = begin + Duration::from_secs(60);
    assert_eq!(table.take("key", much_later).unwrap().left, 4);
}

#[test]
fn one_a_day_is_one_a_day() {
    let day = Duration::from_secs(86_400);
    let table = RateTable::new(Rate { count: 1, per: day }, 1, 8);
    let begin = start();
    assert!(table.take(1, begin).is_ok());
    assert!(table.take(1, begin + day / 2).is_err());
    for days in 1..100 {
        assert!(table.take(1, begin + day * days).is_ok(), "{days}");
    }
}

#[test]
fn a_smaller_share_slows_the_rate_and_leaves_the_burst() {
    let (table, begin) = (RateTable::new(per_second(100), 10, 8), start());
    table.set_multiplier(0.25);
    let passed = (0..10_000_u32)
        .filter(|ms| {
            let now = begin + Duration::from_millis(u64::from(*ms));
            table.take("key", now).is_ok()
        })
        .count();
    assert!((255..=262).contains(&passed), "{passed}");
}

#[test]
fn a_greedy_key_is_held_while_a_million_others_pass() {
    let (table, begin) = (RateTable::new(per_second(10), 10, 4_096), start());
    let mut greedy = 0;
    for other in 0..1_000_000_u64 {
        // 100,000 new keys a second, each with one request; the greedy one asks 1,000 times a second.
        let now = begin + Duration::from_micros(10) * u32::try_from(other).unwrap();
        assert!(table.take(other, now).is_ok());
        if other % 100 == 0 && table.take("greedy", now).is_ok() {
            greedy += 1;
        }
    }
    // 10 seconds of 10, and the burst.
    assert!((100..=112).contains(&greedy), "{greedy}");
    // The others had to forget each other: 4,096 words for 10,000 keys that are not full again.
    assert!(table.forgotten() > 0);
}

#[test]
fn as_many_keys_as_there_is_room_for_are_told_apart() {
    let (table, begin) = (RateTable::new(per_second(1), 1, 100_000), start());
    let mut refused = 0;
    for key in 0..5_000 {
        refused += u32::from(table.take(key, begin).is_err());
    }
    assert!(refused <= 1, "{refused}");
    for key in 0..5_000 {
        assert!(table.take(key, begin).is_err());
    }
    assert_eq!(table.forgotten(), 0);
}

#[test]
fn workers_together_get_no_more_than_one() {
    let (table, begin) = (RateTable::new(per_second(1), 1_000, 64), start());
    let passed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let taken = table.take("key", begin).is_ok();
                    passed.fetch_add(u32::from(taken), Ordering::Relaxed);
                }
            });
        }
    });
    let passed = passed.into_inner();
    // One more for each worker that added the key in the same moment.
    assert!((1_000..=1_003).contains(&passed), "{passed}");
}

#[test]
fn time_that_wraps_round_refuses_nobody_for_long() {
    let (table, begin) = (RateTable::new(per_second(1_000_000), 10, 8), start());
    assert!(table.take("key", begin).is_ok());
    // 2^40 parts of 15.6 ns are 4.8 hours.
    for hours in 1..200 {
        let now = begin + Duration::from_secs(3_600) * hours;
        assert!(table.take("key", now).is_ok(), "{hours}");
    }
}

#[test]
fn the_share_falls_fast_rises_slowly_and_has_a_floor() {
    let mut multiplier = Multiplier::new(0.2);
    let well = Second {
        answers: 1_000,
        slow: 10,
        shed: 0,
    };
    let slow = Second { slow: 11, ..well };
    let shed = Second { shed: 1, ..well };

    multiplier.step(well);
    assert_eq!(multiplier.share(), 1.0);
    multiplier.step(slow);
    assert!((multiplier.share() - 0.7).abs() < 1e-9);
    multiplier.step(shed);
    assert!((multiplier.share() - 0.49).abs() < 1e-9);
    for _ in 0..10 {
        multiplier.step(slow);
    }
    assert_eq!(multiplier.share(), 0.2);
    for _ in 0..4 {
        multiplier.step(Second::default());
    }
    assert!((multiplier.share() - 0.4).abs() < 1e-9);
}

prop_compose! {
    fn arrivals()(gaps in prop::collection::vec(0_u64..50_000, 1..300)) -> Vec<Duration> {
        let mut at = 0;
        gaps.into_iter().map(|gap| { at += gap; Duration::from_micros(at) }).collect()
    }
}

proptest! {
    #[test]
    fn never_more_than_the_burst_and_the_rate_in_any_window(
        arrivals in arrivals(), rate in 1_u32..2_000, burst in 1_u32..50,
    ) {
        let (table, begin) = (RateTable::new(per_second(rate), burst, 64), start());
        let passed: Vec<f64> = arrivals
            .iter()
            .filter(|at| table.take("key", begin + **at).is_ok())
            .map(Duration::as_secs_f64)
            .collect();
        for (from, since) in passed.iter().enumerate() {
            for (to, until) in passed.iter().enumerate().skip(from) {
                let count = (to - from + 1) as f64;
                // Times are cut to a 64th of the interval.
                let most = f64::from(burst) + f64::from(rate) * (until - since) + 0.05;
                prop_assert!(count <= most, "{count} in {}", until - since);
            }
        }
    }

    #[test]
    fn whoever_keeps_to_the_rate_is_never_refused(
        extra in prop::collection::vec(0_u64..1_000, 1..300), rate in 1_u32..2_000, burst in 1_u32..5,
    ) {
        let (table, begin) = (RateTable::new(per_second(rate), burst, 64), start());
        let interval = Duration::from_secs(1) / rate + Duration::from_nanos(1);
        let mut now = begin;
        for micros in extra {
            prop_assert!(table.take("key", now).is_ok());
            now += interval + Duration::from_micros(micros);
        }
    }

    #[test]
    fn whoever_asks_for_more_still_gets_the_rate(
        arrivals in arrivals(), rate in 1_u32..100, burst in 6_u32..50,
    ) {
        let (table, begin) = (RateTable::new(per_second(rate), burst, 64), start());
        // At each of these times as many as will pass.
        let mut passed = 0.0;
        let first = arrivals[0];
        for at in &arrivals {
            while table.take("key", begin + *at).is_ok() {
                passed += 1.0;
            }
        }
        let last = arrivals[arrivals.len() - 1];
        let span = (last - first).as_secs_f64();
        // Pauses longer than what the burst saves lose what comes above it.
        let longest = arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        prop_assume!(longest.as_secs_f64() * f64::from(rate) + 1.0 < f64::from(burst));
        let due = f64::from(burst) + f64::from(rate) * span - 1.0;
        prop_assert!(passed >= due.floor(), "{passed} of {due}");
    }
}

/// Half a minute in which 1,000 requests a second are asked for and 300 can be served well: (seconds of
/// overload until there was none for the first time, seconds of it in all, what was let through).
fn adapted(step: impl Fn(&mut Multiplier, Second)) -> (usize, usize, f64) {
    let mut multiplier = Multiplier::new(0.05);
    let (mut first, mut all, mut through) = (None, 0, 0.0);
    for second in 0..30 {
        let let_in = 1_000.0 * multiplier.share();
        let is_over = let_in > 300.0;
        all += usize::from(is_over);
        if !is_over {
            first = first.or(Some(second));
        }
        through += let_in.min(300.0);
        step(
            &mut multiplier,
            Second {
                answers: let_in as u32,
                slow: if is_over { let_in as u32 } else { 0 },
                shed: 0,
            },
        );
    }
    (first.unwrap_or(30), all, through)
}

#[test]
fn without_the_factor_an_overload_lasts_and_without_small_steps_up_it_returns() {
    let (first, all, through) = adapted(Multiplier::step);
    assert!(first <= 4, "{first}");
    assert!(all <= 12, "{all}");
    assert!(through > 7_500.0, "{through}");

    // As far down as up.
    let (slow, ..) = adapted(|multiplier, second| {
        let change = if second.slow > 0 { -0.05 } else { 0.05 };
        multiplier.share = (multiplier.share + change).clamp(multiplier.floor, 1.0);
    });
    assert!(slow >= 3 * first, "{slow}");

    // All at once again as soon as it is well.
    let (_, again, _) = adapted(|multiplier, second| {
        multiplier.step(second);
        if second.slow == 0 {
            multiplier.share = 1.0;
        }
    });
    assert!(again >= 2 * all, "{again} {all}");
}
