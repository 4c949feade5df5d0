//! The limit against scripted endpoints, on virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::*;

/// Endpoints that serve `places` requests at once and queue the rest.
#[derive(Clone, Copy, Debug)]
struct Endpoints {
    places: usize,
    /// Seconds, on average.
    time: f64,
    /// The same for every request, or exponential.
    varies: bool,
}

/// What happened in one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    limit: u32,
    offered: [u32; 4],
    served: [u32; 4],
    answers: u32,
    latency: f64,
    baseline: f64,
}

struct Simulation {
    gradient: Gradient,
    start: Instant,
    now: f64,
    random: u64,
    in_flight: u32,
    /// Ends of service, and when the request began, its load then and its tier.
    serving: BinaryHeap<Reverse<(u64, u64)>>,
    begun: std::collections::HashMap<u64, (f64, u32, usize)>,
    queue: VecDeque<u64>,
    /// At the gate, by tier: since when.
    waiting: [VecDeque<f64>; 4],
    next_id: u64,
    window: (f64, u32, f64, f64, u32),
    /// Of the window's latencies: the squares of their logarithms, and themselves.
    squares: f64,
    sum: f64,
    shares: [f64; 4],
}

const PRIORITIES: [f64; 4] = [10.0, 40.0, 70.0, 95.0];

impl Simulation {
    fn new() -> Self {
        Self {
            gradient: Gradient::default(),
            start: start(),
            now: 0.0,
            random: 7,
            in_flight: 0,
            serving: BinaryHeap::new(),
            begun: std::collections::HashMap::new(),
            queue: VecDeque::new(),
            waiting: Default::default(),
            next_id: 0,
            window: (0.0, 0, 0.0, 0.0, 0),
            squares: 0.0,
            sum: 0.0,
            shares: [0.25; 4],
        }
    }

    fn uniform(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.uniform()).ln()
    }

    /// `rate`: requests a second. Nobody waits for a place: who finds none is gone.
    fn run(&mut self, seconds: usize, rate: f64, endpoints: Endpoints) -> Vec<Second> {
        let mut told = Vec::new();
        for _ in 0..seconds {
            let mut second = Second::default();
            let end = self.now + 1.0;
            let mut arrival = self.now + self.exponential(1.0 / rate);
            loop {
                let done = self.serving.peek().map(|Reverse((at, _))| *at as f64 / 1e9);
                let next = done.map_or(arrival, |done| done.min(arrival));
                if next >= end {
                    break;
                }
                self.now = next;
                if done == Some(next) {
                    self.finish(&mut second, endpoints);
                } else {
                    self.arrive(&mut second, endpoints);
                    arrival = self.now + self.exponential(1.0 / rate);
                }
            }
            self.now = end;
            second.limit = self.gradient.limit();
            second.latency /= f64::from(second.answers.max(1));
            second.baseline = self.gradient.baseline();
            told.push(second);
        }
        told
    }

    fn arrive(&mut self, second: &mut Second, endpoints: Endpoints) {
        let mut draw = self.uniform();
        let mut tier = 0;
        while tier < 3 && draw >= self.shares[tier] {
            draw -= self.shares[tier];
            tier += 1;
        }
        second.offered[tier] += 1;
        if !self.has_place(tier) {
            self.window.4 += 1;
            let room = f64::from(self.gradient.limit()) / 5.0;
            let waiting = |s: &Self| s.waiting.iter().map(VecDeque::len).sum::<usize>() as f64;
            if PRIORITIES[tier] <= threshold(waiting(self) / room) || tier == 0 {
                self.waiting[tier].push_back(self.now);
                if waiting(self) > room {
                    let worst = self.waiting.iter_mut().rev().find(|w| !w.is_empty());
                    worst.unwrap().pop_front();
                }
            }
            return;
        }
        self.admit(second, endpoints, tier);
    }

    fn has_place(&self, tier: usize) -> bool {
        if tier == 0 {
            return self.in_flight < self.gradient.limit_of_first();
        }
        let limit = self.gradient.limit_below_first();
        self.in_flight < limit && (PRIORITIES[tier] <= threshold(crowding(self.in_flight, limit)))
    }

    fn admit_waiting(&mut self, second: &mut Second, endpoints: Endpoints) {
        for tier in 0..4 {
            let patience = if tier == 0 { 0.1 } else { 0.005 };
            self.waiting[tier].retain(|since| self.now - since < patience);
            while self.has_place(tier) && self.waiting[tier].pop_back().is_some() {
                self.admit(second, endpoints, tier);
            }
        }
    }

    fn admit(&mut self, second: &mut Second, endpoints: Endpoints, tier: usize) {
        second.served[tier] += 1;
        self.in_flight += 1;
        let id = self.next_id;
        self.next_id += 1;
        self.begun.insert(id, (self.now, self.in_flight, tier));
        if self.serving.len() < endpoints.places {
            self.serve(id, endpoints);
        } else {
            self.queue.push_back(id);
        }
    }

    fn serve(&mut self, id: u64, endpoints: Endpoints) {
        let time = if endpoints.varies {
            self.exponential(endpoints.time)
        } else {
            endpoints.time
        };
        let at = ((self.now + time) * 1e9) as u64;
        self.serving.push(Reverse((at, id)));
    }

    fn finish(&mut self, second: &mut Second, endpoints: Endpoints) {
        let Some(Reverse((_, id))) = self.serving.pop() else {
            return;
        };
        let (began, load, _) = self.begun.remove(&id).unwrap();
        self.in_flight -= 1;
        let latency = self.now - began;
        second.answers += 1;
        second.latency += latency;
        while self.serving.len() < endpoints.places
            && let Some(next) = self.queue.pop_front()
        {
            self.serve(next, endpoints);
        }
        self.admit_waiting(second, endpoints);
        let (since, samples, logs, loads, crowded) = &mut self.window;
        *samples += 1;
        *logs += latency.ln();
        self.squares += latency.ln().powi(2);
        self.sum += latency;
        *loads += f64::from(load);
        let took = Duration::from_secs_f64(self.now - *since);
        if *samples < SAMPLES_MIN || took < self.gradient.window_min() {
            return;
        }
        let window = Window {
            samples: *samples,
            latency: (*logs / f64::from(*samples)).exp(),
            mean: self.sum / f64::from(*samples),
            spread: {
                let mean = *logs / f64::from(*samples);
                let square = self.squares / f64::from(*samples);
                (square - mean * mean).max(0.0).sqrt()
            },
            load: *loads / f64::from(*samples),
            crowded: *crowded,
            overloads: 0,
            taken: self.in_flight,
        };
        self.window = (self.now, 0, 0.0, 0.0, 0);
        (self.squares, self.sum) = (0.0, 0.0);
        self.gradient
            .step(self.start + Duration::from_secs_f64(self.now), &window);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "only the start of a virtual time"
)]
fn start() -> Instant {
    Instant::now()
}

/// The share of a tier's requests that were let in.
fn served(seconds: &[Second], tier: usize) -> f64 {
    let sum = |of: fn(&Second) -> [u32; 4]| -> f64 {
        seconds.iter().map(|s| f64::from(of(s)[tier])).sum()
    };
    sum(|s| s.served) / sum(|s| s.offered)
}

fn latency(seconds: &[Second]) -> f64 {
    seconds.iter().map(|s| s.latency).sum::<f64>() / seconds.len() as f64
}

fn answers(seconds: &[Second]) -> f64 {
    let sum: u32 = seconds.iter().map(|s| s.answers).sum();
    f64::from(sum) / seconds.len() as f64
}

/// 100 places of 20 ms: 5,000 requests a second.
const REGULAR: Endpoints = Endpoints {
    places: 100,
    time: 0.02,
    varies: false,
};
const IRREGULAR: Endpoints = Endpoints {
    varies: true,
    ..REGULAR
};
const BOTH: [Endpoints; 2] = [REGULAR, IRREGULAR];

fn half(of: Endpoints) -> Endpoints {
    Endpoints { places: 50, ..of }
}

fn without(terms: &'static [Term]) -> Simulation {
    let mut simulation = Simulation::new();
    simulation.gradient.without = terms;
    simulation
}

#[test]
fn nobody_is_refused_while_there_is_room() {
    for endpoints in BOTH {
        let seconds = Simulation::new().run(30, 4_000.0, endpoints);
        for tier in 0..4 {
            assert_eq!(served(&seconds, tier), 1.0, "{endpoints:?}");
        }
    }
}

#[test]
fn the_limit_follows_endpoints_that_lose_half_their_places_and_get_them_back() {
    for endpoints in BOTH {
        let mut simulation = Simulation::new();
        simulation.run(20, 4_000.0, endpoints);

        let lost = simulation.run(30, 4_000.0, half(endpoints));
        let settled = &lost[5..];
        assert!(
            settled.iter().all(|s| (45..75).contains(&s.limit)),
            "{lost:?}"
        );
        assert!(latency(settled) < 1.2 * 0.02, "{}", latency(settled));
        assert!(answers(settled) > 0.98 * 2_500.0);
        assert!(served(settled, 0) >= 0.999);
        assert!(served(settled, 3) < served(settled, 2));
        assert!(served(settled, 2) < served(settled, 1));

        let back = simulation.run(20, 4_000.0, endpoints);
        for tier in 0..4 {
            assert_eq!(served(&back[10..], tier), 1.0, "{back:?}");
        }
    }
}

#[test]
fn twice_what_can_be_served_costs_the_lowest_tiers_alone() {
    for endpoints in BOTH {
        let mut simulation = Simulation::new();
        simulation.run(20, 4_000.0, endpoints);
        let seconds = simulation.run(60, 10_000.0, endpoints);

        assert!(served(&seconds, 0) >= 0.999, "{}", served(&seconds, 0));
        assert!(served(&seconds, 1) > 0.5, "{}", served(&seconds, 1));
        assert!(served(&seconds, 3) < 0.1, "{}", served(&seconds, 3));
        assert!(answers(&seconds) > 0.97 * 5_000.0, "{}", answers(&seconds));
        assert!(
            latency(&seconds[5..]) < 1.15 * 0.02,
            "{}",
            latency(&seconds)
        );
    }
}

#[test]
fn lasting_overload_does_not_become_the_measure() {
    let overloaded = |mut simulation: Simulation| {
        simulation.run(20, 4_000.0, REGULAR);
        let seconds = simulation.run(60, 10_000.0, REGULAR);
        latency(&seconds[50..])
    };

    assert!(overloaded(Simulation::new()) < 0.025);
    // As in Gradient2, whose baseline is a long average.
    assert!(overloaded(without(&[Term::FixedBaseline, Term::Probe])) > 0.03);
}

#[test]
fn a_slower_release_is_no_overload() {
    let released = |mut simulation: Simulation| {
        simulation.run(20, 4_000.0, REGULAR);
        let slower = Endpoints {
            places: 1_000,
            time: 0.06,
            ..REGULAR
        };
        let seconds = simulation.run(30, 4_000.0, slower);
        answers(&seconds[10..])
    };

    assert!(released(Simulation::new()) > 3_900.0);
    assert!(released(without(&[Term::Fall])) < 2_000.0);
}

#[test]
fn a_baseline_that_was_learned_under_load_is_found_out() {
    let begun_in_overload = |mut simulation: Simulation| {
        simulation.run(20, 10_000.0, REGULAR);
        let seconds = simulation.run(120, 10_000.0, REGULAR);
        latency(&seconds[100..])
    };

    assert!(begun_in_overload(Simulation::new()) < 0.03);
    assert!(begun_in_overload(without(&[Term::Probe])) > 0.1);
}

#[test]
fn an_overload_that_it_begins_in_costs_the_lowest_tiers_from_the_third_second_on() {
    for endpoints in BOTH {
        let seconds = Simulation::new().run(20, 10_000.0, endpoints);
        let settled = &seconds[2..];

        assert!(served(settled, 0) >= 0.999, "{seconds:?}");
        assert!(served(settled, 3) < 0.1, "{seconds:?}");
        assert!(answers(settled) > 0.97 * 5_000.0, "{seconds:?}");
    }
}

#[test]
fn without_headroom_the_limit_never_grows_again() {
    let recovered = |mut simulation: Simulation| {
        simulation.run(20, 4_000.0, REGULAR);
        simulation.run(20, 4_000.0, half(REGULAR));
        let seconds = simulation.run(30, 4_000.0, REGULAR);
        answers(&seconds[20..])
    };

    assert!(recovered(Simulation::new()) > 3_900.0);
    assert!(recovered(without(&[Term::Headroom])) < 3_500.0);
}

/// Half of the places go where each request takes 100 ms: second by second, from the first on.
fn half_of_slow_ones_gone(mut simulation: Simulation) -> Vec<Second> {
    let slow = Endpoints {
        time: 0.1,
        ..REGULAR
    };
    simulation.run(20, 750.0, slow);
    simulation.run(12, 750.0, half(slow))
}

#[test]
fn a_queue_is_gone_seconds_sooner_for_going_where_littles_law_says() {
    let soon = |terms| latency(&half_of_slow_ones_gone(without(terms))[2..4]);

    let (with, without) = (soon(&[]), soon(&[Term::Little]));
    assert!(with < 0.12, "{with}");
    assert!(without > 1.5 * with, "{without} {with}");
}

#[test]
fn tier_1_is_served_while_a_queue_empties_that_others_made() {
    let first = |terms| served(&half_of_slow_ones_gone(without(terms)), 0);

    assert!(first(&[]) >= 0.999, "{}", first(&[]));
    let without = first(&[Term::Overdraft]);
    assert!(without < 0.99, "{without}");
}

#[test]
fn times_that_are_alike_need_no_tolerance_for_chance() {
    let settled = |terms| latency(&half_of_slow_ones_gone(without(terms))[6..]);

    let (with, without) = (settled(&[]), settled(&[Term::Spread]));
    assert!(with < 0.12, "{with}");
    assert!(without > 1.05 * with, "{without} {with}");
}

#[test]
fn a_limit_that_nobody_needs_does_not_grow() {
    let idle = |mut simulation: Simulation| {
        simulation.run(20, 4_000.0, REGULAR);
        simulation.run(20, 10_000.0, REGULAR);
        let before = simulation.gradient.limit();
        simulation.run(30, 1_000.0, REGULAR);
        (before, simulation.gradient.limit())
    };

    let (before, after) = idle(Simulation::new());
    assert!(after <= before + 5, "{before} {after}");
    let (before, after) = idle(without(&[Term::GrowthOnlyUnderLoad]));
    assert!(after > 2 * before, "{before} {after}");
}

#[test]
fn endpoints_that_say_so_are_overloaded() {
    let mut gradient = Gradient::default();
    let window = |overloads| Window {
        samples: 100,
        latency: 0.01,
        mean: 0.01,
        spread: 0.0,
        load: 100.0,
        crowded: 0,
        overloads,
        taken: 100,
    };
    let begin = start();
    let mut second = 0;
    let mut step = |gradient: &mut Gradient, overloads| {
        second += 1;
        gradient.step(begin + Duration::from_secs(second), &window(overloads));
    };
    for _ in 0..20 {
        step(&mut gradient, 0);
    }
    assert_eq!(f64::from(gradient.limit()), LIMIT_MAX);

    step(&mut gradient, 10); // one of many
    assert_eq!(f64::from(gradient.limit()), LIMIT_MAX);
    step(&mut gradient, 11);
    assert_eq!(gradient.limit(), 180);
    step(&mut gradient, 1_000);
    assert_eq!(gradient.limit(), 162);
}

#[test]
fn tiers_are_shed_where_zuul_sheds_them() {
    for (taken, highest) in [(80, 100.0), (90, 87.5), (95, 57.8), (99, 14.3), (100, 0.0)] {
        let threshold = threshold(crowding(taken, 100));
        assert!((threshold - highest).abs() < 0.1, "{taken}: {threshold}");
    }
}

proptest::proptest! {
    #[test]
    fn whatever_is_measured_the_limit_stays_within_its_bounds(
        windows in proptest::collection::vec(
            (
                (0_u32..10_000, 0.0_f64..100.0, 0.0_f64..5.0),
                (0.0_f64..20_000.0, 0_u32..20_000),
                (0_u32..3, 0_u32..2_000, 1_u64..20_000),
            ),
            0..200,
        ),
    ) {
        let mut gradient = Gradient::default();
        let mut now = start();
        for ((samples, latency, spread), (load, taken), (crowded, overloads, millis)) in windows {
            now += Duration::from_millis(millis);
            let mean = latency * (1.0 + spread);
            let window = Window { samples, latency, mean, spread, load, crowded, overloads, taken };
            gradient.step(now, &window);
            let limit = f64::from(gradient.limit());
            proptest::prop_assert!((LIMIT_MIN..=LIMIT_MAX).contains(&limit));
            proptest::prop_assert!(gradient.limit_below_first() <= gradient.limit());
            let first = f64::from(gradient.limit_of_first());
            proptest::prop_assert!((limit..=LIMIT_MAX).contains(&first));
            proptest::prop_assert!(gradient.baseline().is_finite());
            proptest::prop_assert!(gradient.window_min() <= Duration::from_secs(6));
        }
    }
}
