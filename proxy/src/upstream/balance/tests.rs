//! Balance by numbers: seeded draws, so that each run counts the same.

use proptest::prelude::*;

use super::*;

fn endpoints(weights: &[u32]) -> Vec<Entry> {
    let entry = |(at, weight): (u32, &u32)| Entry {
        at,
        weight: *weight,
    };
    (0..).zip(weights).map(entry).collect()
}

/// Picks where no latency is known yet.
fn pick(entries: &[Entry], random: u64, load: impl Fn(usize) -> u32) -> Option<usize> {
    let see = |entry: Entry| Seen {
        in_flight: load(entry.at as usize),
        micros: 0.0,
    };
    less_loaded(entries, random, &mut Recent::default(), see).map(|picked| picked.at)
}

/// How often each of them is picked in 100,000 draws.
fn shares(weights: &[u32], load: impl Fn(usize) -> u32) -> Vec<f64> {
    const DRAWS: u64 = 100_000;
    let candidates = endpoints(weights);
    let mut counts = vec![0.0; weights.len()];
    for random in 0..DRAWS {
        let random = mix(random.wrapping_mul(SECOND_DRAW));
        let picked = pick(&candidates, random, &load).unwrap();
        counts[picked] += 1.0 / DRAWS as f64;
    }
    counts
}

fn near(shares: &[f64], expected: &[f64]) {
    let close = |(a, b): (&f64, &f64)| (a - b).abs() < 0.01;
    assert!(
        shares.len() == expected.len() && shares.iter().zip(expected).all(close),
        "{shares:?}, expected {expected:?}"
    );
}

#[test]
fn nothing_is_picked_from_nothing() {
    assert_eq!(pick(&[], 1, |_| 0), None);
}

#[test]
fn idle_endpoints_share_by_weight() {
    near(&shares(&[100; 4], |_| 0), &[0.25; 4]);
    near(&shares(&[100, 300], |_| 0), &[0.25, 0.75]);
    near(&shares(&[1, 2, 7], |_| 0), &[0.1, 0.2, 0.7]);
}

#[test]
fn of_two_the_less_loaded_one_is_always_picked() {
    near(&shares(&[100, 100], |at| [3, 2][at]), &[0.0, 1.0]);
}

#[test]
fn load_counts_per_weight() {
    // 3 in flight at weight 300 is as much as 1 at 100.
    near(&shares(&[100, 300], |at| [1, 3][at]), &[0.25, 0.75]);
    near(&shares(&[100, 300], |at| [2, 3][at]), &[0.0, 1.0]);
}

#[test]
fn the_most_loaded_of_many_is_never_picked() {
    let shares = shares(&[100; 5], |at| [0, 0, 9, 0, 0][at]);

    assert_eq!(shares[2], 0.0);
}

#[test]
fn what_weighs_nothing_serves_only_when_alone() {
    near(&shares(&[0, 100], |at| [0, 50][at]), &[0.0, 1.0]);
    near(&shares(&[0, 0], |_| 0), &[0.5, 0.5]);
}

#[test]
fn slow_endpoints_get_less_in_a_closed_loop() {
    // 16 requests are always in flight; endpoint 0 takes four times as long as the others.
    let candidates = endpoints(&[100; 4]);
    let mut in_flight = [0_u32; 4];
    let mut done = [0_u32; 4];
    let mut running: Vec<(u64, usize)> = Vec::new();
    let mut random = 1_u64;
    let mut now = 0;
    for _ in 0..20_000 {
        random = mix(random.wrapping_add(SECOND_DRAW));
        let at = pick(&candidates, random, |at| in_flight[at]).unwrap();
        in_flight[at] += 1;
        let takes = if at == 0 { 400 } else { 100 };
        running.push((now + takes + random % 7, at));
        if running.len() == 16 {
            running.sort_by_key(|(ends, _)| std::cmp::Reverse(*ends));
            let (ends, at) = running.pop().unwrap();
            now = ends;
            in_flight[at] -= 1;
            done[at] += 1;
        }
    }

    let fast = f64::from(done[1] + done[2] + done[3]) / 3.0;
    let ratio = f64::from(done[0]) / fast;
    // Blind, each would get as many (1.0); in proportion to speed, 0.25.
    assert!((0.2..0.4).contains(&ratio), "{done:?}");
}

/// Ten endpoints with a thousand requests a second; the first was by far the quickest and has just
/// stopped answering, so that its latency is of yesterday. How many it catches in a second.
fn caught(endpoints: usize, mut recent: impl FnMut() -> Recent, keep: bool) -> u32 {
    let entries = endpoints_of(endpoints);
    let mut in_flight = vec![0_u32; endpoints];
    let mut running: Vec<(u64, usize)> = Vec::new();
    let mut lately = recent();
    for request in 0..1_000_u64 {
        let now = request * 1_000;
        running.retain(|(ends, at)| {
            let over = *ends <= now;
            in_flight[*at] -= u32::from(over);
            !over
        });
        if !keep {
            lately = recent();
        }
        let see = |entry: Entry| Seen {
            in_flight: in_flight[entry.at as usize],
            micros: if entry.at == 0 { 1_000.0 } else { 20_000.0 },
        };
        let picked = less_loaded(&entries, mix(request), &mut lately, see).unwrap();
        in_flight[picked.at] += 1;
        if picked.at > 0 {
            running.push((now + 20_000, picked.at));
        }
    }
    in_flight[0]
}

fn endpoints_of(count: usize) -> Vec<Entry> {
    endpoints(&vec![100; count])
}

#[test]
fn a_stall_catches_few_and_without_the_rule_for_hot_ones_many() {
    // Nothing is above what is without end: never hot.
    let never = || Recent {
        loads: [f32::INFINITY; 16],
        next: 0,
    };
    for endpoints in [2, 3, 10] {
        let (with, without) = (
            caught(endpoints, Recent::default, true),
            caught(endpoints, never, false),
        );
        assert!(with * 2 < without, "{endpoints}: {with}, {without}");
    }
}

#[test]
fn of_two_that_are_level_the_less_loaded_and_of_two_that_are_not_the_sooner_done() {
    let picked = |in_flight, millis: f32| Picked {
        at: 0,
        seen: Seen {
            in_flight,
            micros: millis * 1_000.0,
        },
        load: in_flight as f32,
        is_hot: false,
    };

    assert!(is_better(&picked(2, 14.0), &picked(3, 10.0)));
    assert!(is_better(&picked(9, 10.0), &picked(0, 200.0)));
    assert!(!is_better(&picked(20, 10.0), &picked(0, 200.0)));
    // Alike: the first one drawn stays.
    assert!(!is_better(&picked(3, 10.0), &picked(3, 12.0)));
    assert!(!is_better(&picked(3, 12.0), &picked(3, 10.0)));
}

#[test]
fn in_turn_each_has_its_share_to_the_request_and_never_all_of_it_at_once() {
    let entries = endpoints(&[500, 100, 100]);
    let turns: Vec<_> = (0..3).map(|_| std::cell::Cell::new(0_i64)).collect();
    let turn = |entry: Entry, change: &dyn Fn(i64) -> i64| {
        let turn = &turns[entry.at as usize];
        turn.set(change(turn.get()));
        turn.get()
    };
    let picks: Vec<_> = (0..14).map(|_| in_turn(&entries, turn).unwrap()).collect();

    // nginx's own example.
    assert_eq!(picks[..7], [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(picks[..7], picks[7..]);
    assert_eq!(in_turn(&[], turn), None);
    assert!(in_turn(&endpoints(&[0, 0]), turn).is_some());
}

proptest! {
    #[test]
    fn a_pick_is_one_of_the_candidates_and_the_same_for_the_same_number(
        weights in prop::collection::vec(0_u32..=100_000_000, 1..40),
        loads in prop::collection::vec(any::<u32>(), 40),
        random in any::<u64>(),
    ) {
        let candidates = endpoints(&weights);
        let once = pick(&candidates, random, |at| loads[at]).unwrap();
        let again = pick(&candidates, random, |at| loads[at]).unwrap();

        prop_assert_eq!(once, again);
        let weighs = weights[once] > 0 || weights.iter().all(|w| *w == 0);
        prop_assert!(weighs);
    }
}
