//! Who finds whom.

use super::*;

fn at(seconds: u64) -> Instant {
    // A fixed beginning would do as well, but there is none for `Instant`.
    thread_local! {
        static EPOCH: Instant = crate::clock::now();
    }
    EPOCH.with(|epoch| *epoch) + Duration::from_secs(seconds)
}

fn bounds(now: Instant) -> Bounds {
    Bounds {
        followers: 2,
        body_max: 1_000,
        joined_until: now + Duration::from_secs(5),
    }
}

fn turn(flights: &Flights, key: &[u8], now: Instant) -> Turn {
    flights.turn(key, bounds(now), now)
}

fn lead(flights: &Flights, key: &[u8], now: Instant) -> (Lead, Reader) {
    match turn(flights, key, now) {
        Turn::Lead(lead, reader) => (lead, reader),
        Turn::Follow(_) => panic!("it follows"),
        Turn::Alone(part) => panic!("alone: {part:?}"),
    }
}

#[tokio::test]
async fn whoever_asks_the_same_follows_and_others_lead() {
    let flights = Flights::default();
    let (_lead, _reader) = lead(&flights, b"a", at(0));

    let first = turn(&flights, b"a", at(0));
    let second = turn(&flights, b"a", at(1));
    assert!(matches!(first, Turn::Follow(_)));
    assert!(matches!(second, Turn::Follow(_)));
    assert!(matches!(
        turn(&flights, b"a", at(1)),
        Turn::Alone(Part::Full)
    ));
    let (_other, _its_reader) = lead(&flights, b"b", at(1));
    // A place that is left is free again.
    drop(first);
    assert!(matches!(turn(&flights, b"a", at(1)), Turn::Follow(_)));
}

#[tokio::test]
async fn an_attempt_that_began_long_ago_is_not_joined_and_its_end_leaves_the_next_one_alone() {
    let flights = Flights::default();
    let (old, _old_reader) = lead(&flights, b"a", at(0));

    let (_new, _new_reader) = lead(&flights, b"a", at(5));
    flights.close(&old.0, None);

    assert!(matches!(turn(&flights, b"a", at(6)), Turn::Follow(_)));
    assert_eq!(flights.len(), 1);
}

#[tokio::test]
async fn what_is_not_to_be_shared_is_remembered_for_a_while() {
    let flights = Flights::default();
    let (leading, _reader) = lead(&flights, b"a", at(0));
    flights.close(&leading.0, Some(at(10)));

    assert!(matches!(
        turn(&flights, b"a", at(9)),
        Turn::Alone(Part::Known)
    ));
    let _again = lead(&flights, b"a", at(10));
    assert!(matches!(turn(&flights, b"a", at(10)), Turn::Follow(_)));
}

#[tokio::test]
async fn a_full_table_forgets_what_it_remembers_before_it_turns_anyone_away() {
    let flights = Flights::default();
    let mut leading = Vec::new();
    for at_key in 0..FLIGHTS_MAX * 2 {
        if let Turn::Lead(lead, reader) = turn(&flights, &at_key.to_ne_bytes(), at(0)) {
            leading.push((lead, reader));
        }
    }
    assert_eq!(flights.len(), FLIGHTS_MAX);
    assert!(matches!(
        turn(&flights, b"a", at(0)),
        Turn::Alone(Part::Crowded)
    ));

    for (lead, _) in &leading {
        flights.close(&lead.0, Some(at(10)));
    }
    assert_eq!(flights.len(), FLIGHTS_MAX);
    let _fits = lead(&flights, b"a", at(0));
    assert!(flights.len() < FLIGHTS_MAX);
}
