//! Percentiles over virtual time.

use proptest::prelude::*;

use super::*;
use crate::config::Adaptive;

#[expect(
    clippy::disallowed_methods,
    reason = "only the start of a virtual time"
)]
fn start() -> Instant {
    Instant::now()
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Adds up what was recorded: the next second's first attempt does.
fn settle(latency: &Latency, at: Instant) -> Instant {
    let next = at + Duration::from_secs(1);
    latency.record(0, millis(1), next);
    next
}

#[test]
fn nothing_is_said_of_fewer_than_a_hundred_attempts() {
    let (latency, at) = (Latency::default(), start());
    for _ in 0..SAMPLES_MIN - 2 {
        latency.record(0, millis(10), at);
    }

    let at = settle(&latency, at);
    assert_eq!(latency.quantile(Percentile::P95, at), None);

    let at = settle(&latency, at);
    assert!(latency.quantile(Percentile::P95, at).is_some());
}

#[test]
fn all_workers_count() {
    let (latency, at) = (Latency::default(), start());
    for worker in 0..4 {
        for _ in 0..100 {
            latency.record(worker, millis(10 * u64::from(worker + 1)), at);
        }
    }

    let at = settle(&latency, at);
    let median = latency.quantile(Percentile::P50, at).unwrap();
    assert!(median >= millis(20) && median < millis(22), "{median:?}");
    let most = latency.quantile(Percentile::P99, at).unwrap();
    assert!(most >= millis(40) && most < millis(43), "{most:?}");
}

#[test]
fn what_is_older_than_half_a_minute_is_forgotten() {
    let (latency, at) = (Latency::default(), start());
    for _ in 0..1_000 {
        latency.record(0, millis(500), at);
    }
    let mut at = settle(&latency, at);
    for _ in 0..WINDOW_SECS {
        at += Duration::from_secs(1);
        for _ in 0..10 {
            latency.record(0, millis(10), at);
        }
    }

    let at = settle(&latency, at);
    let most = latency.quantile(Percentile::P99, at).unwrap();
    assert!(most < millis(11), "{most:?}");
}

#[test]
fn a_route_that_fell_silent_is_unknown_again() {
    let (latency, at) = (Latency::default(), start());
    for _ in 0..1_000 {
        latency.record(0, millis(10), at);
    }
    let at = settle(&latency, at);

    let within = at + Duration::from_secs(WINDOW_SECS.into());
    assert!(latency.quantile(Percentile::P50, within).is_some());
    let beyond = within + Duration::from_secs(1);
    assert_eq!(latency.quantile(Percentile::P50, beyond), None);
}

#[test]
fn buckets_follow_each_other_without_a_gap() {
    let mut last = 0;
    for micros in 0..300_000 {
        let bucket = bucket(Duration::from_micros(micros));
        assert!(bucket == last || bucket == last + 1, "{micros}");
        assert!(end_of(bucket) > micros && (bucket == 0 || end_of(bucket - 1) <= micros));
        last = bucket;
    }
    assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
}

proptest! {
    #[test]
    fn a_quantile_is_never_too_low_and_at_most_a_sixteenth_too_high(
        mut micros in prop::collection::vec(0_u64..100_000_000, 200..400),
        skew in 0_u32..20,
    ) {
        let (latency, at) = (Latency::default(), start());
        for (index, took) in micros.iter_mut().enumerate() {
            *took >>= skew;
            latency.record(index as u32 % 3, Duration::from_micros(*took), at);
        }
        let next = at + Duration::from_secs(1);
        latency.record(0, Duration::from_micros(micros[0]), next);
        micros.push(micros[0]);
        micros.sort_unstable();

        for which in Percentile::ALL {
            let within = (micros.len() as u64 * which.percent()).div_ceil(100);
            let exact = micros[within as usize - 1];
            let told = latency.quantile(which, next).unwrap().as_micros() as u64;
            prop_assert!(told > exact, "{told} {exact}");
            prop_assert!(told <= exact + exact / 16 + 1, "{told} {exact}");
        }
    }
}

/// What becomes of attempts whose time-out follows the route, with as many retries as they want.
struct Learned {
    /// By second, the share of attempts that were given up.
    given_up: Vec<f64>,
    last_patience: Duration,
}

/// 500 attempts a second; `takes` says how long each takes, by its number and second.
fn learn(
    adaptive: Adaptive,
    count_given_up: bool,
    takes: impl Fn(u64, u64) -> Duration,
) -> Learned {
    const RATE: u64 = 500;
    let (latency, origin) = (Latency::default(), start());
    let most = Duration::from_secs(2);
    let mut learned = Learned {
        given_up: Vec::new(),
        last_patience: most,
    };
    for second in 0..60 {
        let mut given_up = 0;
        for number in 0..RATE {
            let now = origin + Duration::from_micros((second * RATE + number) * 2_000);
            let took = takes(number, second);
            let patience = adaptive.patience(latency.quantile(adaptive.of, now), most);
            learned.last_patience = patience;
            if took <= patience {
                latency.record(0, took, now);
                continue;
            }
            given_up += 1;
            if count_given_up {
                latency.record(0, patience, now);
            }
        }
        learned.given_up.push(given_up as f64 / RATE as f64);
    }
    learned
}

const USUAL: Adaptive = Adaptive {
    of: Percentile::P99,
    factor: 2.0,
    floor: millis(50),
};

/// 10 ms, and from the thirtieth second on 200.
fn slowing_down(_: u64, second: u64) -> Duration {
    millis(if second < 30 { 10 } else { 200 })
}

#[test]
fn a_time_out_follows_a_service_that_slows_down_within_seconds() {
    let with = learn(USUAL, true, slowing_down);
    let without = learn(USUAL, false, slowing_down);

    assert_eq!(with.given_up[29], 0.0);
    assert!(with.given_up[30] > 0.9, "{:?}", with.given_up);
    assert!(with.given_up[35..].iter().all(|share| *share == 0.0));
    assert!(with.last_patience < millis(430));
    // Where what was given up does not count, nobody ever learns how long it would have taken.
    assert!(without.given_up[30..].iter().all(|share| *share > 0.9));
}

#[test]
fn without_the_floor_each_pause_of_a_quick_service_is_a_failure() {
    let pausing = |number, _| {
        let paused = number % 200 == 0;
        millis(if paused { 30 } else { 1 })
    };
    let floorless = Adaptive {
        floor: millis(1),
        ..USUAL
    };
    let lost = |learned: Learned| learned.given_up[2..].iter().sum::<f64>();

    assert_eq!(lost(learn(USUAL, true, pausing)), 0.0);
    assert!(lost(learn(floorless, true, pausing)) > 0.2);
}

#[test]
fn without_the_factor_attempts_are_given_up_for_nothing() {
    // A tail that ends at twice its 99th percentile.
    let tailed = |number: u64, _| match number % 250 {
        0 => millis(180),
        1 | 2 => millis(100),
        _ => millis(60),
    };
    let bare = Adaptive {
        factor: 1.0,
        ..USUAL
    };
    let lost = |learned: Learned| learned.given_up[2..].iter().sum::<f64>();

    assert_eq!(lost(learn(USUAL, true, tailed)), 0.0);
    assert!(lost(learn(bare, true, tailed)) > 0.15);
}

#[test]
fn until_a_route_is_known_an_attempt_has_all_its_time() {
    let most = Duration::from_secs(2);

    assert_eq!(USUAL.patience(None, most), most);
    assert_eq!(USUAL.patience(Some(millis(1)), most), millis(50));
    assert_eq!(USUAL.patience(Some(millis(100)), most), millis(200));
    assert_eq!(USUAL.patience(Some(millis(5_000)), most), most);
}
