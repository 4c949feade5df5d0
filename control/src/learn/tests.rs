//! What is learned, against a map that is right or wrong.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::{prop, prop_assert, proptest};
use sealane_testkit::mmdb::{Record, table};

use super::*;

const FRANKFURT: (f32, f32) = (50.11, 8.68);
const SYDNEY: (f32, f32) = (-33.9, 151.2);

fn at((latitude, longitude): (f32, f32)) -> Location {
    Location::new(latitude, longitude).unwrap()
}

/// In Frankfurt, where the map has 45.0/16 in Frankfurt, 45.1/16 in Sydney, 45.2.0/25 in Sydney too.
fn learner() -> Learner {
    let bytes = table(&[
        ("45.0.0.0/16", Record::At(50.0, 8.5)),
        ("45.1.0.0/16", Record::At(-34.0, 151.0)),
        ("45.2.0.0/25", Record::At(-34.0, 151.0)),
    ]);
    let rule = LearnRule {
        region: RegionId::from_index(0).unwrap(),
        geo: Arc::new(GeoTable::build(Some(bytes), &[]).unwrap()),
    };
    Learner::new(rule, at(FRANKFURT), 7, time(0))
}

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + seconds * 1_000)
}

fn hear(learner: &mut Learner, seconds: u64, client: &str, milliseconds: &[u64]) {
    let one = |milliseconds: &u64| RoundTrip {
        client: client.parse().unwrap(),
        time: Duration::from_millis(*milliseconds),
    };
    let heard: Vec<_> = milliseconds.iter().map(one).collect();
    learner.hear(time(seconds), &heard);
}

fn said(learner: &mut Learner, client: &str) -> Option<Correction> {
    let client: IpAddr = client.parse().unwrap();
    learner.learned().of(client).correction
}

const fn slower(milliseconds: u16) -> Option<Correction> {
    Some(Correction::Slower { milliseconds })
}

#[test]
fn who_answers_faster_than_light_from_its_place_on_the_map_is_near() {
    let mut learner = learner();
    hear(&mut learner, 0, "45.1.7.1", &[12; 4]);
    assert_eq!(said(&mut learner, "45.1.7.9"), None, "four are too few");
    hear(&mut learner, 1, "45.1.7.2", &[12]);
    assert_eq!(said(&mut learner, "45.1.7.9"), Some(Correction::Near));
    assert_eq!(said(&mut learner, "45.1.8.9"), None);
}

#[test]
fn a_slow_line_moves_nobody_and_a_long_way_is_added_in_steps_up_to_a_bound() {
    for (milliseconds, wanted) in [
        (5, None),
        (70, None),
        (95, slower(60)),
        (130, slower(80)),
        (150, slower(100)),
        (600, slower(100)),
    ] {
        let mut learner = learner();
        hear(&mut learner, 0, "45.0.7.1", &[milliseconds; 12]);
        assert_eq!(said(&mut learner, "45.0.7.1"), wanted, "{milliseconds} ms");
    }
    let mut learner = learner();
    hear(&mut learner, 0, "45.1.7.1", &[250; 12]);
    assert_eq!(
        said(&mut learner, "45.1.7.1"),
        None,
        "from Sydney that is no wonder"
    );
}

#[test]
fn a_conclusion_holds_while_figures_waver_and_goes_when_they_have_changed() {
    let mut learner = learner();
    hear(&mut learner, 0, "45.0.7.1", &[100; 12]);
    assert_eq!(said(&mut learner, "45.0.7.1"), slower(60));
    hear(&mut learner, 1, "45.0.7.1", &[112; 24]);
    assert_eq!(
        said(&mut learner, "45.0.7.1"),
        slower(60),
        "less than a step"
    );
    hear(&mut learner, 2, "45.0.7.1", &[60; 40]);
    assert!(matches!(
        said(&mut learner, "45.0.7.1"),
        Some(Correction::Slower { .. })
    ));
    hear(&mut learner, 3, "45.0.7.1", &[30; 60]);
    assert_eq!(said(&mut learner, "45.0.7.1"), None);
}

#[test]
fn one_lost_packet_is_damped_and_what_took_seconds_is_no_round_trip() {
    let mut learner = learner();
    hear(&mut learner, 0, "45.0.7.1", &[20; 10]);
    hear(&mut learner, 1, "45.0.7.1", &[1_000, 3_500, 0]);
    hear(&mut learner, 2, "45.0.7.1", &[20]);
    assert_eq!(said(&mut learner, "45.0.7.1"), None);
}

#[test]
fn a_network_that_the_map_cuts_in_two_and_one_that_it_does_not_know_teach_nothing() {
    let mut learner = learner();
    for client in ["45.2.0.1", "46.0.0.1", "127.0.0.1", "2001:db8::1"] {
        hear(&mut learner, 0, client, &[300; 12]);
        hear(&mut learner, 0, client, &[3; 12]);
        assert_eq!(said(&mut learner, client), None, "{client}");
    }
}

#[test]
fn the_operator_s_word_is_not_doubted() {
    let region = RegionId::from_index(0).unwrap();
    let net = "45.0.0.0/16".parse().unwrap();
    let over = sealane_steering::GeoOverride { net, region };
    let geo = Arc::new(GeoTable::build(None, &[over]).unwrap());
    let mut learner = Learner::new(LearnRule { region, geo }, at(FRANKFURT), 7, time(0));
    hear(&mut learner, 0, "45.0.7.1", &[300; 12]);
    assert_eq!(said(&mut learner, "45.0.7.1"), None);
}

#[test]
fn who_was_silent_for_six_hours_is_forgotten_and_another_map_begins_anew() {
    let mut learner = learner();
    hear(&mut learner, 0, "45.0.7.1", &[200; 12]);
    hear(&mut learner, 6 * 3_600 - 61, "45.0.8.1", &[20]);
    assert_eq!(said(&mut learner, "45.0.7.1"), slower(100));
    hear(&mut learner, 6 * 3_600 + 60, "45.0.8.1", &[20]);
    assert_eq!(said(&mut learner, "45.0.7.1"), None);
    assert_eq!(learner.networks(), 1);

    hear(&mut learner, 6 * 3_600 + 61, "45.0.7.1", &[200; 12]);
    let rule = LearnRule {
        geo: Arc::new(GeoTable::empty()),
        ..learner.rule.clone()
    };
    learner.follow(rule, at(FRANKFURT));
    assert_eq!(said(&mut learner, "45.0.7.1"), None);
    assert_eq!(learner.networks(), 2);
    let elsewhere = learner.rule.clone();
    learner.follow(elsewhere, at(SYDNEY));
    assert_eq!(
        learner.networks(),
        0,
        "figures to another place are of no use"
    );
}

#[test]
fn a_flood_of_networks_stays_within_its_bound_and_those_heard_of_lately_stay() {
    let mut learner = learner();
    for round in 0..4_u64 {
        for number in 0..60_000_u32 {
            let address = Ipv4Addr::from((100 << 24) + (round as u32 * 60_000 + number) * 256);
            let heard = RoundTrip {
                client: address.into(),
                time: Duration::from_millis(9),
            };
            learner.hear(time(round), &[heard]);
        }
        hear(&mut learner, round + 1, "45.0.7.1", &[200; 5]);
    }
    assert!(learner.networks() <= NETWORKS_MAX);
    assert!(learner.networks() > NETWORKS_MAX / 2);
    assert_eq!(said(&mut learner, "45.0.7.1"), slower(100));
}

proptest! {
    /// Whatever comes: never more than the most, never for those whom the map may have right, and no conclusion
    /// turns into another while figures stay.
    #[test]
    fn corrections_are_bounded_and_hold_still(
        milliseconds in 0.01..2_000.0_f64,
        kilometres in 0.0..20_000.0_f64,
        before in prop::option::of(prop::sample::select(vec![0_u16, 20, 60, 100])),
    ) {
        let before = before.map(|more| match more {
            0 => Correction::Near,
            milliseconds => Correction::Slower { milliseconds },
        });
        let first = correction(milliseconds, kilometres, before);
        prop_assert!(correction(milliseconds, kilometres, first) == first);
        let expected = kilometres * RTT_MS_PER_KM;
        match first {
            Some(Correction::Near) => {
                prop_assert!(milliseconds <= NEAR_NO_MORE_MS);
                prop_assert!(milliseconds < kilometres * LIGHT_MS_PER_KM);
            }
            Some(Correction::Slower { milliseconds: more }) => {
                prop_assert!(f64::from(more) <= SLOWER_MAX_MS);
                prop_assert!(milliseconds > expected + SLOWER_NO_MORE_MS);
                prop_assert!(f64::from(more) < milliseconds - expected);
            }
            None => {}
        }
    }
}
