//! Balance by numbers: seeded draws, so that each run counts the same.

use proptest::prelude::*;

use super::*;

fn endpoints(weights: &[u32]) -> Vec<(EndpointId, Weight)> {
    let ids = (0..).map(|index| EndpointId::from_index(index).unwrap());
    let weights = weights.iter().map(|weight| Weight::new(*weight).unwrap());
    ids.zip(weights).collect()
}

/// How often each of them is picked in 100,000 draws.
fn shares(weights: &[u32], load: impl Fn(usize) -> u32) -> Vec<f64> {
    const DRAWS: u64 = 100_000;
    let candidates = endpoints(weights);
    let mut counts = vec![0.0; weights.len()];
    for random in 0..DRAWS {
        let random = mix(random.wrapping_mul(SECOND_DRAW));
        let picked = pick(&candidates, random, |id| load(id.index())).unwrap();
        counts[picked.index()] += 1.0 / DRAWS as f64;
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
        let at = pick(&candidates, random, |id| in_flight[id.index()])
            .unwrap()
            .index();
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

proptest! {
    #[test]
    fn a_pick_is_one_of_the_candidates_and_the_same_for_the_same_number(
        weights in prop::collection::vec(0_u32..=Weight::MAX, 1..40),
        loads in prop::collection::vec(any::<u32>(), 40),
        random in any::<u64>(),
    ) {
        let candidates = endpoints(&weights);
        let once = pick(&candidates, random, |id| loads[id.index()]).unwrap();
        let again = pick(&candidates, random, |id| loads[id.index()]).unwrap();

        prop_assert_eq!(once, again);
        let weighs = weights[once.index()] > 0 || weights.iter().all(|w| *w == 0);
        prop_assert!(weighs);
    }
}
