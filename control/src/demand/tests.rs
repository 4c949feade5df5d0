//! What a region accepts, second by second, under so much demand.

use super::*;

/// One region under `offered` a second for so many seconds, each second one sample. Returns what it
/// took and what it turned away in the last second.
fn run(demand: &mut Demand, from: u64, seconds: u64, offered: f64, limit: f64) -> (f64, f64) {
    let mut last = (0.0, 0.0);
    for second in from..from + seconds {
        let taken = offered * demand.accepts;
        last = (taken, offered - taken);
        let mut counts = demand
            .counted
            .map_or_else(TrafficCounts::default, |(_, counts)| counts);
        counts.drawn += taken.round() as u64;
        demand.count(at(second + 1), &counts, limit);
    }
    last
}

fn begun() -> Demand {
    let mut demand = Demand::default();
    demand.count(at(0), &TrafficCounts::default(), 1_000.0);
    demand
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_millis(secs * 1_000)
}

#[test]
fn a_region_with_room_takes_everyone() {
    let mut demand = begun();
    assert_eq!(run(&mut demand, 0, 60, 900.0, 1_000.0), (900.0, 0.0));
}

#[test]
fn what_a_region_cannot_carry_is_turned_away_within_seconds() {
    let mut demand = begun();
    run(&mut demand, 0, 30, 500.0, 1_000.0);
    run(&mut demand, 30, 4, 1_500.0, 1_000.0);
    let (taken, _) = run(&mut demand, 34, 1, 1_500.0, 1_000.0);
    assert!(taken <= 1_000.0, "{taken} after four seconds");
    let (taken, turned) = run(&mut demand, 35, 60, 1_500.0, 1_000.0);
    assert!(
        (930.0..=955.0).contains(&taken),
        "{taken}, turned away {turned}"
    );
}

#[test]
fn a_share_rises_by_no_more_than_ten_points_in_ten_seconds() {
    let mut demand = begun();
    run(&mut demand, 0, 60, 2_000.0, 1_000.0);
    let mut before = vec![demand.accepts];
    for second in 60..200 {
        run(&mut demand, second, 1, 300.0, 1_000.0);
        before.push(demand.accepts);
    }
    assert!(before.windows(11).all(|ten| ten[10] - ten[0] <= 0.1 + 1e-9));
    assert_eq!(demand.accepts, 1.0);
}

#[test]
fn a_region_braces_for_what_a_lost_one_carried_and_finds_its_level_soon() {
    let mut demand = begun();
    run(&mut demand, 0, 60, 600.0, 1_000.0);
    demand.brace(at(60), 1_200.0, 1_000.0);
    let (taken, _) = run(&mut demand, 60, 1, 1_200.0, 1_000.0);
    assert!(taken <= 955.0, "{taken} in the first second");
    // It was a wrong guess: nothing came. The share rises freely for a while.
    let mut guessed = begun();
    run(&mut guessed, 0, 60, 600.0, 1_000.0);
    guessed.brace(at(60), 3_600.0, 1_000.0);
    assert!(guessed.accepts < 0.3);
    run(&mut guessed, 60, 10, 600.0, 1_000.0);
    assert!(guessed.accepts > 0.95, "{}", guessed.accepts);
}

#[test]
fn excess_that_nobody_sheds_does_not_shut_the_region() {
    let mut demand = begun();
    for second in 0..60 {
        let mut counts = demand.counted.unwrap().1;
        let taken = 1_500.0 * demand.accepts;
        counts.drawn += taken as u64;
        counts.excess += (1_500.0 - taken) as u64;
        demand.count(at(second + 1), &counts, 1_000.0);
    }
    let room = demand.room(1_000.0);
    assert!((0.6..0.66).contains(&room.accepts), "{}", room.accepts);
    assert!((1_490.0..1_510.0).contains(&room.load), "{}", room.load);
    assert!((room.excess - 550.0).abs() < 30.0, "{}", room.excess);
}

#[test]
fn retries_take_room_from_those_who_choose_the_region() {
    let mut demand = begun();
    for second in 0..60 {
        let mut counts = demand.counted.unwrap().1;
        counts.drawn += (1_000.0 * demand.accepts) as u64;
        counts.extra += 400;
        demand.count(at(second + 1), &counts, 1_000.0);
    }
    assert!(
        (0.53..=0.56).contains(&demand.accepts),
        "{}",
        demand.accepts
    );
}

#[test]
fn without_a_limit_nobody_is_turned_away() {
    let mut demand = begun();
    run(&mut demand, 0, 30, 1e6, f64::INFINITY);
    assert_eq!(demand.accepts, 1.0);
}

#[test]
fn few_requests_are_believed_slowly() {
    let mut demand = begun();
    run(&mut demand, 0, 60, 8.0, 10.0);
    // One lively second is chance.
    run(&mut demand, 60, 1, 14.0, 10.0);
    assert_eq!(demand.accepts, 1.0);
    run(&mut demand, 61, 60, 14.0, 10.0);
    assert!((0.6..0.75).contains(&demand.accepts), "{}", demand.accepts);
}
