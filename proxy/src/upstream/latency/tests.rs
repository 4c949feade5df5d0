//! Percentiles over virtual time.

use proptest::prelude::*;

use super::*;

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
