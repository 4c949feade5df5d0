//! The plan as values, in virtual time.

use proptest::prelude::*;

use super::*;

const DAY: u64 = 24 * 3600;
const RETRY: Duration = Duration::from_secs(120);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000) + Duration::from_secs(seconds)
}

fn names(text: &str) -> Names {
    Names::new(text.split(' ')).unwrap()
}

fn valid(from: u64, to: u64) -> Validity {
    Validity {
        not_before: at(from),
        not_after: at(to),
    }
}

fn wanting(wanted: &[&str], held: &[(&str, Validity)]) -> Plan {
    let mut plan = Plan::new(RETRY, 7);
    want(&mut plan, 0, wanted, held);
    plan
}

fn want(plan: &mut Plan, now: u64, wanted: &[&str], held: &[(&str, Validity)]) {
    let wanted = wanted.iter().map(|text| names(text)).collect();
    let find = |wanted: &Names| {
        let mut held = held.iter();
        held.find(|(text, _)| names(text) == *wanted)
            .map(|(_, validity)| *validity)
    };
    plan.want(at(now), RETRY, &wanted, &find);
}

fn begun(plan: &mut Plan, now: u64) -> Vec<String> {
    let begun = plan.begin(at(now)).into_iter();
    begun.map(|due| due.names.to_string()).collect()
}

fn fail(plan: &mut Plan, now: u64, text: &str) -> Duration {
    let next = plan.end(at(now), &names(text), End::Failed(Asked::Nothing));
    next.unwrap().since(at(now))
}

#[test]
fn what_is_missing_is_ordered_at_once_and_only_once() {
    let mut plan = wanting(&["one.test", "two.test"], &[]);

    assert_eq!(begun(&mut plan, 0), ["one.test", "two.test"]);
    assert_eq!(begun(&mut plan, 1), [] as [&str; 0]);
}

#[test]
fn what_is_held_is_renewed_when_about_a_third_of_its_life_is_left() {
    let mut plan = wanting(&["one.test"], &[("one.test", valid(0, 90 * DAY))]);

    let wake = plan.wake_at().unwrap().since(at(0)).as_secs();
    assert!(wake > 57 * DAY - 1 && wake <= 60 * DAY, "{wake}");
    assert!(begun(&mut plan, wake - 1).is_empty());
    assert_eq!(begun(&mut plan, wake + 1), ["one.test"]);
}

#[test]
fn an_expired_certificate_is_ordered_anew_and_a_missing_one_before_it() {
    let held = [
        ("expired.test", valid(0, 10)),
        ("ending.test", valid(0, 200)),
    ];
    let mut plan = wanting(&[], &[]);
    want(
        &mut plan,
        190,
        &["ending.test", "expired.test", "missing.test"],
        &held,
    );

    assert_eq!(
        begun(&mut plan, 190),
        ["missing.test", "expired.test", "ending.test"]
    );
}

#[test]
fn processes_with_the_same_certificate_do_not_renew_at_the_same_moment() {
    let moment = |seed| {
        let mut plan = Plan::new(RETRY, seed);
        want(
            &mut plan,
            0,
            &["one.test"],
            &[("one.test", valid(0, 90 * DAY))],
        );
        plan.wake_at().unwrap()
    };
    let moments: BTreeSet<_> = (0..20).map(moment).collect();

    assert_eq!(moments.len(), 20);
}

#[test]
fn pauses_after_failures_grow_and_stay_bounded() {
    let mut plan = wanting(&["one.test"], &[]);
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..40 {
        assert_eq!(begun(&mut plan, now), ["one.test"]);
        let pause = fail(&mut plan, now, "one.test");
        pauses.push(pause);
        assert!(begun(&mut plan, now + pause.as_secs() - 1).is_empty());
        now += pause.as_secs() + 1;
    }

    let longest = PAUSE_MAX + PAUSE_MAX / 10;
    assert!(pauses[0] >= RETRY && pauses[0] <= RETRY * 11 / 10);
    assert!(pauses[1] >= RETRY * 3 && pauses[1] <= RETRY * 33 / 10);
    assert!(pauses.iter().all(|pause| *pause <= longest), "{pauses:?}");
    assert!(pauses[39] >= PAUSE_MAX);
}

#[test]
fn a_name_fails_at_most_four_times_in_its_first_hour() {
    let mut plan = wanting(&["one.test"], &[]);
    let mut failures = 0;
    for now in 0..3600 {
        if !begun(&mut plan, now).is_empty() {
            failures += 1;
            fail(&mut plan, now, "one.test");
        }
    }

    assert!(failures <= 4, "{failures}");
}

#[test]
fn after_a_success_pauses_begin_anew() {
    let mut plan = wanting(&["one.test"], &[]);
    for round in 0..5 {
        begun(&mut plan, round * DAY);
        fail(&mut plan, round * DAY, "one.test");
    }
    begun(&mut plan, 6 * DAY);
    let life = valid(6 * DAY, 96 * DAY);
    plan.end(at(6 * DAY), &names("one.test"), End::Issued(life));

    assert!(begun(&mut plan, 60 * DAY).is_empty());
    assert_eq!(begun(&mut plan, 67 * DAY), ["one.test"]);
    assert!(fail(&mut plan, 67 * DAY, "one.test") <= RETRY * 11 / 10);
}

#[test]
fn what_the_authority_asks_for_is_waited_for_but_not_for_ever() {
    let mut plan = wanting(&["one.test", "two.test"], &[]);
    begun(&mut plan, 0);
    let asked = |seconds| End::Failed(Asked::ForThisOrder(Duration::from_secs(seconds)));

    let next = plan.end(at(0), &names("one.test"), asked(5_000));
    assert_eq!(next, Some(at(5_000)));
    let next = plan.end(at(0), &names("two.test"), asked(u64::MAX / 2_000));
    assert_eq!(next, Some(at(0) + ASKED_PAUSE_MAX));
}

#[test]
fn a_reload_hurries_what_failed_but_not_past_what_the_authority_asked_for() {
    let mut plan = wanting(&["one.test", "two.test"], &[]);
    begun(&mut plan, 0);
    fail(&mut plan, 0, "one.test");
    let asked = End::Failed(Asked::ForThisOrder(Duration::from_secs(900)));
    plan.end(at(0), &names("two.test"), asked);

    want(&mut plan, 5, &["one.test", "two.test"], &[]);

    assert_eq!(begun(&mut plan, 5), ["one.test"]);
    assert_eq!(begun(&mut plan, 900), ["two.test"]);
}

#[test]
fn an_overloaded_authority_is_left_alone_with_everything() {
    let mut plan = wanting(&["one.test", "two.test"], &[]);
    begun(&mut plan, 0);
    let asked = End::Failed(Asked::ForAll(Duration::from_secs(900)));
    let next = plan.end(at(0), &names("one.test"), asked);
    fail(&mut plan, 0, "two.test");

    assert_eq!(next, Some(at(900)));
    assert_eq!(plan.wake_at(), Some(at(900)));
    assert!(begun(&mut plan, 899).is_empty());
    assert_eq!(begun(&mut plan, 900).len(), 2);
}

#[test]
fn orders_at_once_and_within_an_hour_are_bounded() {
    let wanted: Vec<String> = (0..100).map(|n| format!("n{n:03}.test")).collect();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let mut plan = wanting(&wanted, &[]);
    let mut in_all = 0;
    loop {
        let due = plan.begin(at(10));
        if due.is_empty() {
            break;
        }
        assert!(due.len() <= ORDERS_AT_ONCE);
        in_all += due.len();
        for due in due {
            let life = valid(0, 90 * DAY);
            plan.end(at(10), &due.names, End::Issued(life));
        }
    }

    assert_eq!(in_all, ORDERS_PER_HOUR);
    assert_eq!(plan.wake_at(), Some(at(10 + 3600)));
    assert_eq!(plan.begin(at(10 + 3600)).len(), ORDERS_AT_ONCE);
}

#[test]
fn with_all_places_taken_only_an_end_wakes() {
    let mut plan = wanting(&["a.test", "b.test", "c.test", "d.test", "e.test"], &[]);

    assert_eq!(begun(&mut plan, 0).len(), ORDERS_AT_ONCE);
    assert_eq!(plan.wake_at(), None);
    fail(&mut plan, 1, "a.test");
    assert_eq!(begun(&mut plan, 1), ["e.test"]);
}

#[test]
fn orders_with_a_name_in_common_come_one_after_the_other() {
    let mut plan = wanting(&["a.test b.test", "b.test c.test"], &[]);

    assert_eq!(begun(&mut plan, 0), ["a.test, b.test"]);
    assert_eq!(plan.wake_at(), None);
    fail(&mut plan, 1, "a.test b.test");
    assert_eq!(begun(&mut plan, 1), ["b.test, c.test"]);
}

#[test]
fn what_is_not_wanted_any_more_is_forgotten_and_its_order_s_end_is_ignored() {
    let mut plan = wanting(&["one.test"], &[]);
    begun(&mut plan, 0);

    want(&mut plan, 1, &[], &[]);

    let end = End::Issued(valid(0, 90 * DAY));
    assert_eq!(plan.end(at(2), &names("one.test"), end), None);
    assert_eq!(plan.wake_at(), None);
}

#[test]
fn a_certificate_that_is_issued_near_its_end_is_not_ordered_in_a_loop() {
    let mut plan = wanting(&["one.test"], &[]);
    begun(&mut plan, 1_000);
    let life = valid(0, 1_001);
    plan.end(at(1_000), &names("one.test"), End::Issued(life));

    assert!(begun(&mut plan, 1_059).is_empty());
    assert_eq!(begun(&mut plan, 1_060), ["one.test"]);
}

#[test]
fn a_clock_that_is_set_back_stops_nothing() {
    let mut plan = wanting(&["one.test", "two.test"], &[]);
    let future = 400 * DAY;
    begun(&mut plan, future);
    fail(&mut plan, future, "one.test");
    let asked = End::Failed(Asked::ForAll(Duration::from_secs(900)));
    plan.end(at(future), &names("two.test"), asked);

    assert_eq!(begun(&mut plan, 0), ["one.test", "two.test"]);
}

/// What can happen to a plan.
#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    /// Which of the orders under way ends, and how.
    End(usize, u8, u64),
    /// Which of all certificates are wanted from now on.
    Want(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..7_200_u64).prop_map(Event::Pass),
        (any::<usize>(), 0..4_u8, 0..200_000_u64)
            .prop_map(|(which, how, seconds)| Event::End(which, how, seconds)),
        any::<u8>().prop_map(Event::Want),
    ]
}

const ALL: [&str; 8] = ["a", "b", "c", "d", "a e", "e f", "g", "h"];

proptest! {
    #[test]
    fn whatever_happens_orders_are_bounded_and_the_plan_never_spins(
        events in proptest::collection::vec(event(), 1..200),
        seed in any::<u64>(),
    ) {
        let mut plan = Plan::new(RETRY, seed);
        let (mut now, mut under_way, mut begun) = (0, Vec::<Names>::new(), Vec::new());
        want(&mut plan, now, &ALL, &[]);
        for event in events {
            match event {
                Event::Pass(seconds) => now += seconds,
                Event::Want(mask) => {
                    let chosen = ALL.iter().enumerate().filter(|(n, _)| mask >> n & 1 == 1);
                    let chosen: Vec<&str> = chosen.map(|(_, text)| *text).collect();
                    want(&mut plan, now, &chosen, &[]);
                }
                Event::End(..) if under_way.is_empty() => {}
                Event::End(which, how, seconds) => {
                    let names = under_way.swap_remove(which % under_way.len());
                    let pause = Duration::from_secs(seconds);
                    let end = match how {
                        0 => End::Issued(valid(now, now + seconds)),
                        1 => End::Failed(Asked::Nothing),
                        2 => End::Failed(Asked::ForThisOrder(pause)),
                        _ => End::Failed(Asked::ForAll(pause)),
                    };
                    plan.end(at(now), &names, end);
                }
            }
            for due in plan.begin(at(now)) {
                prop_assert!(plan.is_wanted(&due.names));
                under_way.push(due.names);
                begun.push(now);
            }
            let within_an_hour = begun.iter().filter(|then| now < **then + 3_600);
            prop_assert!(within_an_hour.count() <= ORDERS_PER_HOUR);
            prop_assert!(plan.begin(at(now)).is_empty());
            prop_assert!(plan.wake_at().is_none_or(|wake| wake > at(now)), "it spins");
            prop_assert!(under_way.len() <= ORDERS_AT_ONCE);
            let names: Vec<_> = under_way.iter().flat_map(Names::iter).collect();
            let different: BTreeSet<_> = names.iter().collect();
            prop_assert_eq!(names.len(), different.len(), "a name is in two orders");
        }
    }
}
