//! Hedging over virtual time: the law of its budget, and one scenario for each term of the rule in
//! which leaving that term out makes things worse.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;
use crate::config::Percentile;

#[expect(
    clippy::disallowed_methods,
    reason = "only the start of a virtual time"
)]
fn start() -> Instant {
    Instant::now()
}

fn ratio(share: f64) -> Ratio {
    Ratio::new(share).unwrap()
}

/// Enough retries for anything.
fn plenty() -> Budget {
    Budget::new(ratio(1.0))
}

fn ask(worker: u32) -> HedgeAsk {
    HedgeAsk {
        worker,
        busy: None,
        tier: 1,
    }
}

#[test]
fn one_request_in_twenty_is_hedged_and_the_first_one_may_be() {
    let (hedging, retries, now) = (Hedging::new(ratio(0.05)), plenty(), start());

    assert_eq!(hedging.allow(&ask(0), &retries, now), Ok(()));
    for _ in 0..5 {
        for _ in 0..19 {
            hedging.deposit(0);
            let denied = hedging.allow(&ask(0), &retries, now);
            assert_eq!(denied, Err(NoHedge::Budget));
        }
        hedging.deposit(0);
        assert_eq!(hedging.allow(&ask(0), &retries, now), Ok(()));
    }
}

#[test]
fn a_hedge_is_a_retry_and_costs_nothing_where_that_is_denied() {
    let (hedging, retries, now) = (Hedging::new(ratio(0.5)), Budget::new(ratio(0.0)), start());
    for _ in 0..100 {
        hedging.deposit(0);
    }
    while retries.withdraw(now) {}

    for _ in 0..100 {
        let denied = hedging.allow(&ask(0), &retries, now);
        assert_eq!(denied, Err(NoHedge::RetryBudget));
    }
    let later = now + Duration::from_secs(11);
    let granted = (0..100).filter(|_| hedging.allow(&ask(0), &retries, later).is_ok());
    assert_eq!(granted.count(), SAVED_MAX as usize);
}

#[test]
fn what_matters_less_and_what_is_busy_is_not_hedged() {
    let (hedging, retries, now) = (Hedging::new(ratio(1.0)), plenty(), start());
    let with = |busy, tier| {
        hedging.deposit(0);
        let ask = HedgeAsk {
            busy,
            tier,
            ..ask(0)
        };
        hedging.allow(&ask, &retries, now)
    };

    assert_eq!(with(Some(0.7), 2), Ok(()));
    assert_eq!(with(Some(0.71), 1), Err(NoHedge::Busy));
    assert_eq!(with(None, 3), Err(NoHedge::Tier));
    assert_eq!(with(None, 4), Err(NoHedge::Tier));
}

#[test]
fn where_hedges_rarely_win_one_a_second_finds_out_whether_they_do_again() {
    let (hedging, retries, mut now) = (Hedging::new(ratio(1.0)), plenty(), start());
    let allowed = |now| {
        hedging.deposit(0);
        hedging.allow(&ask(0), &retries, now)
    };
    for _ in 0..RACES_MIN {
        assert_eq!(allowed(now), Ok(()));
        hedging.note(false);
    }

    for _ in 0..5 {
        now += Duration::from_secs(1);
        assert_eq!(allowed(now), Ok(()));
        assert_eq!(allowed(now), Err(NoHedge::WinRate));
    }
    for _ in 0..20 {
        hedging.note(true);
    }
    assert_eq!(allowed(now), Ok(()));
    assert_eq!(allowed(now), Ok(()));
}

proptest! {
    #[test]
    fn hedges_never_exceed_their_share_of_the_requests(
        share in 0.01_f64..0.5,
        requests in prop::collection::vec((0_u32..4, any::<bool>()), 1..2_000),
    ) {
        let (hedging, retries, now) = (Hedging::new(ratio(share)), plenty(), start());
        let mut hedges = 0;
        for (worker, slow) in &requests {
            retries.deposit(now);
            hedging.deposit(*worker);
            if *slow && hedging.allow(&ask(*worker), &retries, now).is_ok() {
                hedges += 1;
            }
        }
        // Each worker begins with one, and shares are kept in thousandths.
        let most = 4.0 + requests.len() as f64 * (share + 0.000_5);
        prop_assert!(f64::from(hedges) <= most, "{hedges} > {most}");
    }
}

/// What is left out of the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    Hedging,
    Floor,
    Budget,
    Busy,
    WinRate,
    /// Losers do not count in the route's latency.
    Losers,
}

/// How long one attempt takes, by request, leg and when it begins.
type Takes<'a> = dyn FnMut(&mut Random, u64, Duration) -> Duration + 'a;

struct Scenario<'a> {
    /// Requests each second, and for how long.
    rate: f64,
    lasts: Duration,
    busy: Option<f32>,
    takes: Box<Takes<'a>>,
}

struct Outcome {
    /// Of the second half, when all has settled; sorted.
    took: Vec<Duration>,
    requests: usize,
    hedges: usize,
    /// The most hedges in one second, by its requests.
    worst_second: f64,
}

impl Outcome {
    fn percentile(&self, percent: f64) -> Duration {
        let at = (self.took.len() as f64 * percent / 100.0) as usize;
        self.took[at.min(self.took.len() - 1)]
    }

    fn share_beyond(&self, bound: Duration) -> f64 {
        let beyond = self.took.iter().filter(|took| **took > bound);
        beyond.count() as f64 / self.took.len() as f64
    }

    fn extra(&self) -> f64 {
        self.hedges as f64 / self.requests as f64
    }
}

/// `splitmix64`: the same scenario each time.
struct Random(u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        self.number() as f64 / u64::MAX as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).max(1e-12).ln()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives,
    HedgeDue(usize),
    Done(usize, bool),
}

#[derive(Clone, Copy)]
struct Request {
    began: Duration,
    hedged_at: Option<Duration>,
    over: bool,
}

fn simulate(scenario: Scenario<'_>, without: Without) -> Outcome {
    let Scenario {
        rate,
        lasts,
        busy,
        mut takes,
    } = scenario;
    let origin = start();
    let share = if without == Without::Budget {
        1.0
    } else {
        0.05
    };
    let (hedging, latency) = (Hedging::new(ratio(share)), Latency::default());
    let retries = plenty();
    let mut random = Random(42);
    let mut queue = BinaryHeap::from([Reverse((Duration::ZERO, Event::Arrives))]);
    let mut requests: Vec<Request> = Vec::new();
    let mut took = Vec::new();
    let mut hedges = 0;
    let mut by_second = vec![(0_u32, 0_u32); lasts.as_secs() as usize + 10];
    while let Some(Reverse((at, event))) = queue.pop() {
        let now = origin + at;
        let second = (at.as_secs() as usize).min(by_second.len() - 1);
        match event {
            Event::Arrives => {
                let id = requests.len();
                requests.push(Request {
                    began: at,
                    hedged_at: None,
                    over: false,
                });
                retries.deposit(now);
                hedging.deposit(0);
                by_second[second].0 += 1;
                let done = at + takes(&mut random, id as u64, at);
                queue.push(Reverse((done, Event::Done(id, false))));
                let measured = latency.quantile(Percentile::P95, now);
                let delay = match without {
                    Without::Hedging => None,
                    Without::Floor => measured,
                    _ => Hedging::delay(HedgeAfter::Measured(Percentile::P95), &latency, now),
                };
                if let Some(delay) = delay {
                    queue.push(Reverse((at + delay, Event::HedgeDue(id))));
                }
                let next = at + Duration::from_secs_f64(random.exponential(1.0 / rate));
                if next < lasts {
                    queue.push(Reverse((next, Event::Arrives)));
                }
            }
            Event::HedgeDue(id) if !requests[id].over => {
                let ask = HedgeAsk {
                    busy: busy.filter(|_| without != Without::Busy),
                    ..ask(0)
                };
                if hedging.allow(&ask, &retries, now).is_ok() {
                    requests[id].hedged_at = Some(at);
                    hedges += 1;
                    by_second[second].1 += 1;
                    let done = at + takes(&mut random, id as u64, at);
                    queue.push(Reverse((done, Event::Done(id, true))));
                }
            }
            Event::Done(id, by_hedge) if !requests[id].over => {
                let request = &mut requests[id];
                request.over = true;
                let whole = at - request.began;
                if at > lasts / 2 {
                    took.push(whole);
                }
                let own = match request.hedged_at {
                    Some(hedged_at) if by_hedge => at - hedged_at,
                    _ => whole,
                };
                latency.record(0, own, now);
                if request.hedged_at.is_some() {
                    if without != Without::WinRate {
                        hedging.note(by_hedge);
                    }
                    // The hedge ran for less than the delay: what it would have taken is unknown.
                    if by_hedge && without != Without::Losers {
                        latency.record(0, whole, now);
                    }
                }
            }
            _ => {}
        }
    }
    took.sort_unstable();
    let by_second = by_second.iter().filter(|(asked, _)| *asked > 0);
    let shares = by_second.map(|(asked, hedged)| f64::from(*hedged) / f64::from(*asked));
    Outcome {
        took,
        requests: requests.len(),
        hedges,
        worst_second: shares.fold(0.0, f64::max),
    }
}

fn millis(count: f64) -> Duration {
    Duration::from_secs_f64(count.max(0.0) / 1_000.0)
}

/// 10 ms with a tail, and one attempt in a hundred takes 500.
fn straggling() -> Scenario<'static> {
    Scenario {
        rate: 500.0,
        lasts: Duration::from_secs(60),
        busy: None,
        takes: Box::new(|random, _, _| {
            if random.unit() < 0.01 {
                return millis(500.0);
            }
            millis(9.0 + random.exponential(1.0))
        }),
    }
}

#[test]
fn with_one_attempt_in_a_hundred_straggling_the_last_thousandth_waits_for_two_usual_ones() {
    let hedged = simulate(straggling(), Without::Nothing);
    let alone = simulate(straggling(), Without::Hedging);

    assert!(alone.percentile(99.9) >= millis(500.0));
    let p50 = hedged.percentile(50.0);
    let delay = hedged.percentile(95.0).max(DELAY_MIN);
    let p999 = hedged.percentile(99.9);
    assert!(p999 <= 2 * p50 + delay, "{p999:?} {p50:?} {delay:?}");
    assert!(hedged.extra() <= 0.05, "{}", hedged.extra());
}

#[test]
fn without_the_floor_a_quick_service_is_hedged_for_nothing() {
    let quick = || Scenario {
        takes: Box::new(|random, _, _| millis(0.1 + random.exponential(0.2))),
        ..straggling()
    };
    let with = simulate(quick(), Without::Nothing);
    let without = simulate(quick(), Without::Floor);

    assert!(with.extra() < 0.001, "{}", with.extra());
    assert!(without.extra() > 0.03, "{}", without.extra());
    // What that would have bought is less than anybody feels.
    assert!(with.percentile(99.9) - without.percentile(99.9) < millis(2.0));
}

#[test]
fn without_the_budget_a_service_half_of_which_slows_down_gets_half_as_much_load_again() {
    let slowing = || Scenario {
        takes: Box::new(|random, _, at| {
            let slow = if at > Duration::from_secs(30) {
                0.4
            } else {
                0.01
            };
            let slow = random.unit() < slow;
            millis(if slow { 300.0 } else { 9.0 } + random.exponential(1.0))
        }),
        ..straggling()
    };
    let with = simulate(slowing(), Without::Nothing);
    let without = simulate(slowing(), Without::Budget);

    assert!(with.worst_second < 0.1, "{}", with.worst_second);
    assert!(with.extra() <= 0.051, "{}", with.extra());
    assert!(without.worst_second > 0.3, "{}", without.worst_second);
}

/// Ten endpoints that work on one request at a time, 98 % busy. Nobody takes back what was cancelled.
fn queueing() -> Scenario<'static> {
    let mut free_at = [Duration::ZERO; 10];
    Scenario {
        rate: 980.0,
        busy: Some(0.98),
        takes: Box::new(move |random, _, at| {
            let endpoint = (random.number() % 10) as usize;
            let begins = free_at[endpoint].max(at);
            free_at[endpoint] = begins + millis(random.exponential(10.0));
            free_at[endpoint] - at
        }),
        ..straggling()
    }
}

#[test]
fn where_hedges_go_to_busy_endpoints_everybody_waits_longer() {
    let with = simulate(queueing(), Without::Nothing);
    let without = simulate(queueing(), Without::Busy);

    assert_eq!(with.hedges, 0);
    let (good, bad) = (with.percentile(50.0), without.percentile(50.0));
    assert!(bad > good.mul_f64(1.2), "{good:?} {bad:?}");
}

#[test]
fn where_the_request_itself_is_slow_hedges_are_hardly_tried() {
    let heavy = || Scenario {
        // Whoever asks it again gets the same work done again.
        takes: Box::new(|random, request, _| {
            let heavy = request % 25 == 0;
            millis(if heavy { 200.0 } else { 9.0 } + random.exponential(1.0))
        }),
        ..straggling()
    };
    let with = simulate(heavy(), Without::Nothing);
    let without = simulate(heavy(), Without::WinRate);

    assert!(with.extra() < 0.015, "{}", with.extra());
    assert!(without.extra() > 0.03, "{}", without.extra());
}

#[test]
fn where_losers_do_not_count_hedges_come_too_soon_and_are_spent_on_those_that_need_none() {
    let slow = || Scenario {
        takes: Box::new(|random, _, _| {
            if random.unit() < 0.04 {
                return millis(300.0);
            }
            millis(5.0 + random.exponential(5.0))
        }),
        ..straggling()
    };
    let with = simulate(slow(), Without::Nothing);
    let without = simulate(slow(), Without::Losers);

    let denied = |outcome: &Outcome| outcome.share_beyond(millis(200.0));
    let (good, bad) = (denied(&with), denied(&without));
    assert!(bad > 0.01 && good < bad / 2.0, "{good} {bad}");
}
