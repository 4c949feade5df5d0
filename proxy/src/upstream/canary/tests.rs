//! Shares over many keys and requests, and canaries of several kinds over hours of virtual time.

use proptest::prelude::*;
use sealane_model::{PoolId, Ratio};
use sealane_steering::SteeringPolicy;

use super::*;
use crate::config::{Destination, Percentile};
use crate::random;

const RULE: AbortRule = AbortRule {
    errors: Some(0.02),
    latency: Some(1.5),
    requests_min: 10,
    window: Duration::from_secs(30),
};

fn split(name: &str, share: f64) -> Split {
    Split {
        to: Destination {
            pool: PoolId::from_index(0).unwrap(),
            steering: Arc::new(SteeringPolicy::Priority),
            balance: Arc::default(),
        },
        name: name.into(),
        share: Ratio::new(share).unwrap(),
        key: None,
        abort: None,
    }
}

fn branch(route: &str, name: &str, share: f64, taken: f64) -> Branch {
    let canary = Arc::new(Canary::new(None));
    Branch::new(route, &split(name, share), taken, canary)
}

fn key(of: u32) -> [u8; 4] {
    of.to_be_bytes()
}

fn share_of(branch: &Branch, keys: u32) -> f64 {
    let taken = (0..keys).filter(|of| branch.takes(&key(*of))).count();
    taken as f64 / f64::from(keys)
}

#[test]
fn shares_are_kept_to_half_a_point_over_20_000_keys() {
    for share in [0.0, 0.01, 0.05, 0.5, 1.0] {
        let is = share_of(&branch("all", "canary", share, 0.0), 20_000);
        assert!((is - share).abs() < 0.005, "{is} of {share}");
    }
    assert_eq!(share_of(&branch("all", "canary", 0.0, 0.0), 20_000), 0.0);
    assert_eq!(share_of(&branch("all", "canary", 1.0, 0.0), 20_000), 1.0);
}

#[test]
fn shares_are_kept_to_half_a_point_over_20_000_requests_without_keys_on_four_workers() {
    // By chance, one half would be half a point off in one run of six.
    for share in [0.01, 0.05, 0.5] {
        let branch = branch("all", "canary", share, 0.0);
        let draw = || {
            let requests = 0..5_000;
            let went = requests.filter(|_| branch.takes_point(&mut random::point()));
            went.count()
        };
        let went: usize = std::thread::scope(|scope| {
            let workers = [(); 4].map(|()| scope.spawn(draw));
            let counts = workers.map(|worker| worker.join().unwrap());
            counts.into_iter().sum()
        });
        let is = went as f64 / 20_000.0;
        assert!((is - share).abs() < 0.005, "{is} of {share}");
    }
}

#[test]
fn several_canaries_draw_their_shares_of_the_whole_one_after_the_other() {
    let rules = [("one", 0.05), ("two", 0.1), ("three", 0.5), ("rest", 0.35)];
    let mut taken = 0.0;
    let mut branches = Vec::new();
    for (name, share) in rules {
        branches.push(branch("all", name, share, taken));
        taken += share;
    }
    let mut counts = [0_u32; 4];
    for _ in 0..20_000 {
        let mut point = random::point();
        let at = branches
            .iter()
            .position(|branch| branch.takes_point(&mut point));
        counts[at.unwrap_or(3)] += 1; // a sum of shares may be a hair below 1
    }
    for ((_, share), count) in rules.into_iter().zip(counts) {
        let is = f64::from(count) / 20_000.0;
        assert!((is - share).abs() < 0.005, "{is} of {share}");
    }
}

#[test]
fn several_canaries_each_have_their_share_of_the_whole() {
    let rules = [("one", 0.05), ("two", 0.1), ("three", 0.5), ("rest", 0.35)];
    let mut taken = 0.0;
    let mut branches = Vec::new();
    for (name, share) in rules {
        branches.push(branch("all", name, share, taken));
        taken += share;
    }
    let mut counts = [0_u32; 4];
    for of in 0..20_000 {
        let at = branches.iter().position(|branch| branch.takes(&key(of)));
        counts[at.expect("all is given away")] += 1;
    }
    for ((_, share), count) in rules.into_iter().zip(counts) {
        let is = f64::from(count) / 20_000.0;
        assert!((is - share).abs() < 0.01, "{is} of {share}");
    }
}

#[test]
fn two_routes_and_two_canaries_draw_independently() {
    let of = |route, name| branch(route, name, 0.1, 0.0);
    let (one, other, elsewhere) = (of("all", "a"), of("all", "b"), of("shop", "a"));
    let both = |x: &Branch, y: &Branch| {
        let both = |of: &u32| x.takes(&key(*of)) && y.takes(&key(*of));
        (0..20_000).filter(both).count()
    };

    // A hundredth.
    assert!((100..300).contains(&both(&one, &other)));
    assert!((100..300).contains(&both(&one, &elsewhere)));
    assert_eq!(both(&one, &one), both(&one, &of("all", "a")));
}

proptest! {
    /// Going from 5 % to 10 % sends nobody back.
    #[test]
    fn a_share_that_grows_keeps_those_it_had(
        share in 0.0..0.5_f64,
        more in 0.0..0.5_f64,
        keys in prop::collection::vec(any::<u64>(), 200),
    ) {
        let before = branch("all", "canary", share, 0.0);
        let after = branch("all", "canary", share + more, 0.0);
        for key in keys {
            let key = key.to_be_bytes();
            prop_assert!(!before.takes(&key) || after.takes(&key));
        }
    }
}

/// Requests of both sides on virtual time.
struct Stage {
    canary: Canary,
    started: Instant,
    now: Instant,
    random: u64,
}

/// How one side does: errors, and latencies by a number of 0 to 1.
#[derive(Clone, Copy)]
struct Conduct {
    errors: f64,
    latency: fn(f64) -> Duration,
}

/// 20 ms, some up to 70; one in a hundred takes 300 ms.
fn usual(u: f64) -> Duration {
    if u > 0.99 {
        return Duration::from_millis(300);
    }
    Duration::from_secs_f64(0.02 + 0.05 * u.powi(8))
}

fn much_slower(u: f64) -> Duration {
    usual(u) * 3
}

/// As quick as the others but for one in ten.
fn with_stragglers(u: f64) -> Duration {
    if u > 0.9 {
        return Duration::from_millis(900);
    }
    usual(u)
}

const GOOD: Conduct = Conduct {
    errors: 0.001,
    latency: usual,
};

impl Stage {
    #[expect(clippy::disallowed_methods, reason = "the test's own origin of time")]
    fn new(rule: AbortRule) -> Self {
        let started = Instant::now();
        Self {
            canary: Canary::new(Some(rule)),
            started,
            now: started,
            random: 0x5eed,
        }
    }

    fn draw(&mut self) -> f64 {
        self.random = xxh3_64(&self.random.to_le_bytes());
        (self.random >> 11) as f64 / 2_f64.powi(53)
    }

    /// `rate` requests a second, until the canary is aborted or `limit` passed.
    fn run(
        &mut self,
        rate: f64,
        share: f64,
        canary: Conduct,
        baseline: Conduct,
        limit: Duration,
    ) -> Option<(Duration, Grounds)> {
        let until = self.now + limit;
        while self.now < until {
            self.now += Duration::from_secs_f64(1.0 / rate);
            let (side, conduct) = if self.draw() < share {
                (Side::Canary, canary)
            } else {
                (Side::Baseline, baseline)
            };
            let failed = self.draw() < conduct.errors;
            let took = (conduct.latency)(self.draw());
            let worker = (self.random % 3) as u32;
            let grounds = self.canary.record(worker, side, failed, took, self.now);
            if let Some(grounds) = grounds {
                return Some((self.now - self.started, grounds));
            }
        }
        None
    }
}

/// Several thousand judgements.
const LONG: Duration = Duration::from_secs(1_200);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_canary_that_fails_is_aborted_within_ten_seconds_at_fifty_requests_a_second() {
    for share in [0.05, 0.1, 0.5] {
        let bad = Conduct {
            errors: 0.8,
            latency: usual,
        };
        let mut stage = Stage::new(RULE);
        let (after, grounds) = stage.run(50.0, share, bad, GOOD, MINUTE).unwrap();

        assert!(after < Duration::from_secs(10), "{share}: {after:?}");
        assert_eq!(grounds.as_str(), "errors");
        assert!(stage.canary.is_aborted());
        assert_eq!(stage.canary.aborted().unwrap().grounds, grounds);
    }
}

#[test]
fn a_canary_that_fails_a_little_more_is_found_out_by_and_by() {
    let bad = Conduct {
        errors: 0.06,
        latency: usual,
    };
    let (after, _) = Stage::new(RULE)
        .run(500.0, 0.2, bad, GOOD, 10 * MINUTE)
        .expect("an abort");
    assert!(after < MINUTE, "{after:?}");
}

#[test]
fn a_slow_canary_is_aborted_by_its_95th_percentile_and_stragglers_by_the_99th() {
    for latency in [much_slower as fn(f64) -> Duration, with_stragglers] {
        let bad = Conduct {
            errors: 0.0,
            latency,
        };
        let mut stage = Stage::new(RULE);
        let (after, grounds) = stage.run(200.0, 0.3, bad, GOOD, MINUTE).unwrap();
        assert!(after < Duration::from_secs(10), "{after:?} {grounds}");
        assert_eq!(grounds.as_str(), "latency");
    }
    let Some((after, Grounds::Latency { of, .. })) = Stage::new(RULE).run(
        500.0,
        0.5,
        Conduct {
            errors: 0.0,
            latency: |u| {
                if u > 0.96 {
                    Duration::from_millis(900)
                } else {
                    usual(u)
                }
            },
        },
        GOOD,
        MINUTE,
    ) else {
        panic!("no abort");
    };
    assert_eq!(of, Percentile::P99);
    assert!(after < Duration::from_secs(10), "{after:?}");
}

#[test]
fn a_canary_like_its_baseline_lives_whatever_both_do() {
    let poor = Conduct {
        errors: 0.05,
        latency: with_stragglers,
    };
    for conduct in [GOOD, poor] {
        for (rate, share) in [(5.0, 0.5), (50.0, 0.05), (500.0, 0.01), (200.0, 0.5)] {
            let aborted = Stage::new(RULE).run(rate, share, conduct, conduct, LONG);
            assert!(aborted.is_none(), "{rate} {share}: {aborted:?}");
        }
    }
}

#[test]
fn a_canary_is_not_blamed_for_what_is_within_its_allowance_or_below_the_noise() {
    let little_worse = Conduct {
        errors: 0.015,
        latency: |u| usual(u).mul_f64(1.3),
    };
    let aborted = Stage::new(RULE).run(100.0, 0.2, little_worse, GOOD, LONG);
    assert!(aborted.is_none(), "{aborted:?}");

    let quick = |latency| Conduct {
        errors: 0.0,
        latency,
    };
    let (twice, once) = (
        quick(|_| Duration::from_micros(900)),
        quick(|_| Duration::from_micros(300)),
    );
    assert!(
        Stage::new(RULE)
            .run(100.0, 0.2, twice, once, LONG)
            .is_none()
    );
}

#[test]
fn each_test_can_be_left_out() {
    let bad = Conduct {
        errors: 1.0,
        latency: usual,
    };
    let deaf = AbortRule {
        errors: None,
        ..RULE
    };
    assert!(Stage::new(deaf).run(50.0, 0.5, bad, GOOD, MINUTE).is_none());

    let slow = Conduct {
        errors: 0.0,
        latency: much_slower,
    };
    let patient = AbortRule {
        latency: None,
        ..RULE
    };
    let aborted = Stage::new(patient).run(50.0, 0.5, slow, GOOD, MINUTE);
    assert!(aborted.is_none());
}

#[test]
fn without_a_baseline_or_before_enough_requests_nothing_is_said() {
    let bad = Conduct {
        errors: 1.0,
        latency: usual,
    };
    assert!(Stage::new(RULE).run(50.0, 1.0, bad, GOOD, MINUTE).is_none());
    let patient = AbortRule {
        requests_min: 1_000,
        ..RULE
    };
    assert!(
        Stage::new(patient)
            .run(50.0, 0.5, bad, GOOD, MINUTE)
            .is_none()
    );
}

#[test]
fn what_lies_beyond_the_window_is_forgotten() {
    let bad = Conduct {
        errors: 1.0,
        latency: usual,
    };
    let patient = AbortRule {
        requests_min: 60,
        ..RULE
    };
    let mut stage = Stage::new(patient);
    // Fifty failures, then a good hour that would not outweigh them.
    assert!(
        stage
            .run(50.0, 1.0, bad, GOOD, Duration::from_secs(1))
            .is_none()
    );
    stage.now += MINUTE;
    let after = stage.run(5.0, 0.5, GOOD, GOOD, LONG);
    assert!(after.is_none(), "{after:?}");
}

#[test]
fn a_reset_gives_the_share_back_and_the_next_abort_needs_new_grounds() {
    let bad = Conduct {
        errors: 1.0,
        latency: usual,
    };
    let mut stage = Stage::new(RULE);
    assert!(stage.run(50.0, 0.5, bad, GOOD, MINUTE).is_some());
    assert!(
        stage.run(50.0, 0.5, bad, GOOD, MINUTE).is_none(),
        "once is enough"
    );

    assert!(stage.canary.reset());
    assert!(!stage.canary.is_aborted() && stage.canary.aborted().is_none());
    assert!(!stage.canary.reset());
    assert!(stage.run(50.0, 0.5, GOOD, GOOD, LONG).is_none());
    assert!(stage.run(50.0, 0.5, bad, GOOD, MINUTE).is_some());
}

#[test]
fn the_grounds_have_the_numbers_in_them() {
    let bad = Conduct {
        errors: 1.0,
        latency: usual,
    };
    let (_, grounds) = Stage::new(RULE).run(50.0, 0.5, bad, GOOD, MINUTE).unwrap();
    let text = grounds.to_string();

    assert!(text.contains("requests failed (100.0 %)"), "{text}");
    assert!(text.contains("2.0 % more are allowed"), "{text}");
}
