//! The retry table.

use sealane_model::Ratio;

use super::*;
use crate::config::Backoff;

#[expect(
    clippy::disallowed_methods,
    reason = "only the start of a virtual time"
)]
fn start() -> Instant {
    Instant::now()
}

fn policy() -> RetryPolicy {
    RetryPolicy {
        attempts: 3,
        budget: Ratio::new(0.2).unwrap(),
        on: RetryOn::default(),
        methods: Vec::new(),
        backoff: Backoff::default(),
    }
}

fn budget() -> Budget {
    Budget::new(policy().budget)
}

fn keyed(key: &'static str) -> Fields {
    let mut fields = Fields::new();
    fields.append(Known::IdempotencyKey, key.as_bytes());
    fields
}

fn failed<'a>(method: &'a Method, headers: &'a Fields, sent: Sent) -> Try<'a> {
    Try {
        method,
        fields: headers,
        attempts_made: 1,
        sent,
        body_replayable: true,
        failure: &Failure::Closed,
        wish: Wish::Nothing,
        needs: Duration::ZERO,
        left: Duration::from_secs(1),
    }
}

fn decided(attempt: &Try<'_>) -> Retry {
    decide(&policy(), attempt, &budget(), start())
}

#[test]
fn what_may_be_repeated_depends_on_the_method_its_key_and_how_far_it_came() {
    let (plain, key, empty) = (Fields::new(), keyed("abc"), keyed(""));
    let again = Retry::Again;
    let not_safe = Retry::GiveUp(GiveUp::NotSafe);
    let begun = Retry::GiveUp(GiveUp::AnswerBegun);
    let custom = Method::from_bytes(b"FROB").unwrap();
    let table = [
        (Method::GET, &plain, Sent::Nothing, again),
        (Method::GET, &plain, Sent::HeadOrBody, again),
        (Method::GET, &plain, Sent::AnswerBegun, begun),
        (Method::HEAD, &plain, Sent::HeadOrBody, again),
        (Method::OPTIONS, &plain, Sent::HeadOrBody, again),
        (Method::TRACE, &plain, Sent::HeadOrBody, again),
        (Method::PUT, &plain, Sent::HeadOrBody, again),
        (Method::DELETE, &plain, Sent::HeadOrBody, again),
        (Method::POST, &plain, Sent::Nothing, again),
        (Method::POST, &plain, Sent::HeadOrBody, not_safe),
        (Method::POST, &key, Sent::HeadOrBody, again),
        (Method::POST, &empty, Sent::HeadOrBody, not_safe),
        (Method::POST, &key, Sent::AnswerBegun, begun),
        (Method::PATCH, &plain, Sent::HeadOrBody, not_safe),
        (Method::PATCH, &plain, Sent::Nothing, again),
        (custom.clone(), &plain, Sent::HeadOrBody, not_safe),
        (custom, &plain, Sent::Nothing, again),
    ];

    for (method, headers, sent, expected) in table {
        let decided = decided(&failed(&method, headers, sent));
        assert_eq!(decided, expected, "{method} {headers:?} {sent:?}");
    }
}

#[test]
fn a_body_that_went_by_ends_it_even_when_connecting_failed() {
    let headers = Fields::new();
    for sent in [Sent::Nothing, Sent::HeadOrBody] {
        let attempt = Try {
            body_replayable: false,
            ..failed(&Method::PUT, &headers, sent)
        };
        assert_eq!(decided(&attempt), Retry::GiveUp(GiveUp::BodyGone));
    }
}

#[test]
fn attempts_are_counted_with_the_first_one() {
    let headers = Fields::new();
    let after = |attempts_made| {
        decided(&Try {
            attempts_made,
            ..failed(&Method::GET, &headers, Sent::HeadOrBody)
        })
    };

    assert_eq!(after(2), Retry::Again);
    assert_eq!(after(3), Retry::GiveUp(GiveUp::AttemptsUsed));
    assert_eq!(after(4), Retry::GiveUp(GiveUp::AttemptsUsed));
}

#[test]
fn an_empty_budget_ends_it_and_what_is_refused_otherwise_costs_no_token() {
    let (headers, budget, now) = (Fields::new(), budget(), start());
    let get = failed(&Method::GET, &headers, Sent::HeadOrBody);
    let post = failed(&Method::POST, &headers, Sent::HeadOrBody);

    for _ in 0..200 {
        decide(&policy(), &post, &budget, now);
    }
    let granted = (0..200).filter(|_| decide(&policy(), &get, &budget, now) == Retry::Again);
    assert_eq!(granted.count(), 100);
    let empty = Retry::GiveUp(GiveUp::BudgetEmpty);
    assert_eq!(decide(&policy(), &get, &budget, now), empty);

    let later = now + Duration::from_millis(10_500);
    assert_eq!(decide(&policy(), &get, &budget, later), Retry::Again);
}

#[test]
fn what_is_repeated_after_is_the_operators_to_choose() {
    let headers = Fields::new();
    let refused = Failure::Refused;
    let unavailable = Failure::Status {
        status: 503,
        expected: String::new(),
    };
    let decided_with = |policy: &RetryPolicy, failure: &Failure| {
        let attempt = Try {
            failure,
            ..failed(&Method::GET, &headers, Sent::HeadOrBody)
        };
        decide(policy, &attempt, &budget(), start())
    };
    let not_chosen = Retry::GiveUp(GiveUp::NotChosen);

    assert_eq!(decided_with(&policy(), &refused), Retry::Again);
    assert_eq!(decided_with(&policy(), &unavailable), not_chosen);
    let mut other = policy();
    other.on.connect = false;
    other.on.unavailable = true;
    assert_eq!(decided_with(&other, &refused), not_chosen);
    assert_eq!(decided_with(&other, &unavailable), Retry::Again);
}

#[test]
fn the_operator_may_say_that_a_method_can_be_repeated() {
    let headers = Fields::new();
    let mut policy = policy();
    let post = failed(&Method::POST, &headers, Sent::HeadOrBody);

    let not_safe = Retry::GiveUp(GiveUp::NotSafe);
    assert_eq!(decide(&policy, &post, &budget(), start()), not_safe);
    policy.methods.push(Method::POST);
    assert_eq!(decide(&policy, &post, &budget(), start()), Retry::Again);
}

#[test]
fn an_attempt_that_could_not_answer_in_time_is_not_begun_and_costs_no_token() {
    let (headers, budget) = (Fields::new(), budget());
    let millis = Duration::from_millis;
    let with = |needs, left| {
        let attempt = Try {
            needs,
            left,
            ..failed(&Method::GET, &headers, Sent::HeadOrBody)
        };
        decide(&policy(), &attempt, &budget, start())
    };

    assert_eq!(with(millis(30), millis(31)), Retry::Again);
    for _ in 0..1_000 {
        let late = Retry::GiveUp(GiveUp::OutOfTime);
        assert_eq!(with(millis(31), millis(31)), late);
    }
    assert_eq!(with(millis(0), millis(1)), Retry::Again);
}

#[test]
fn an_endpoint_with_too_much_to_do_ends_it() {
    let headers = Fields::new();
    let attempt = Try {
        wish: Wish::Stop,
        ..failed(&Method::GET, &headers, Sent::HeadOrBody)
    };

    assert_eq!(decided(&attempt), Retry::GiveUp(GiveUp::Overloaded));
}

fn answered(status: u16, fields: &[(&str, &str)]) -> AnswerHead {
    let mut head = AnswerHead::new(StatusCode::from_u16(status).unwrap());
    for (name, value) in fields {
        head.fields.append(*name, value.as_bytes());
    }
    head
}

#[test]
fn an_answer_says_by_its_head_whether_to_ask_again() {
    let wish = |fields: &[(&str, &str)]| wish_of(&answered(503, fields));
    let after = |millis| Wish::After(Duration::from_millis(millis));

    assert_eq!(wish(&[]), Wish::Nothing);
    assert_eq!(wish(&[("retry-after", "5")]), Wish::Stop);
    assert_eq!(wish(&[("x-sealane-refusal", "overloaded")]), Wish::Stop);
    let refused = [("x-sealane-refusal", "endpoint_refused")];
    assert_eq!(wish(&refused), Wish::Nothing);
    assert_eq!(wish(&[("grpc-retry-pushback-ms", "40")]), after(40));
    assert_eq!(wish(&[("grpc-retry-pushback-ms", "-1")]), Wish::Stop);
    assert_eq!(wish(&[("grpc-retry-pushback-ms", "soon")]), Wish::Stop);
}

#[test]
fn a_grpc_call_that_failed_without_a_message_is_known_by_its_status() {
    let unavailable = answered(200, &[("grpc-status", "14")]);
    assert_eq!(status_of(&unavailable, true), 503);
    assert_eq!(status_of(&unavailable, false), 200);
    assert_eq!(
        status_of(&answered(200, &[("grpc-status", "5")]), true),
        200
    );
    assert_eq!(status_of(&answered(502, &[]), false), 502);
}

#[test]
fn the_first_retry_after_a_broken_connection_comes_at_once_and_later_ones_are_spread() {
    let most = |failure: &Failure, attempts| {
        let pause = |random| pause(&policy(), failure, attempts, Wish::Nothing, random);
        assert_eq!(pause(0), Duration::ZERO);
        pause(u64::MAX).as_millis()
    };
    let busy = Failure::Status {
        status: 503,
        expected: String::new(),
    };

    let bounds: Vec<_> = (1..=8).map(|n| most(&Failure::Closed, n)).collect();
    assert_eq!(bounds, [0, 24, 49, 99, 199, 399, 799, 999]);
    let bounds: Vec<_> = (1..=3).map(|n| most(&busy, n)).collect();
    assert_eq!(bounds, [24, 49, 99]);
    let told = Wish::After(Duration::from_millis(70));
    let pause = pause(&policy(), &busy, 1, told, 0);
    assert_eq!(pause.as_millis(), 70);
}

/// A burst of requests at a service that takes forty in ten milliseconds and refuses the rest.
/// How many of them are answered in three attempts.
fn served_of_a_burst(pause: impl Fn(u32, u64) -> Duration) -> usize {
    const WINDOW: u128 = 10;
    const ROOM: usize = 40;
    let mut taken = std::collections::BTreeMap::<u128, usize>::new();
    let mut due: Vec<(Duration, u32)> = vec![(Duration::ZERO, 1); 300];
    let mut random = 7_u64;
    let mut served = 0;
    while let Some(at) = (0..due.len()).min_by_key(|at| due[*at].0) {
        let (now, attempt) = due.swap_remove(at);
        let taken = taken.entry(now.as_millis() / WINDOW).or_default();
        if *taken < ROOM {
            *taken += 1;
            served += 1;
        } else if attempt < 3 {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            due.push((now + pause(attempt, random), attempt + 1));
        }
    }
    served
}

#[test]
fn pauses_that_are_drawn_spread_a_burst_and_the_same_pause_for_all_does_not() {
    let busy = Failure::Status {
        status: 503,
        expected: String::new(),
    };
    let policy = policy();
    let with = |random: &dyn Fn(u64) -> u64| {
        served_of_a_burst(|n, drawn| pause(&policy, &busy, n, Wish::Nothing, random(drawn)))
    };

    let spread = with(&|drawn| drawn);
    let together = with(&|_| u64::MAX / 2);
    let at_once = served_of_a_burst(|_, _| Duration::ZERO);
    assert_eq!((at_once, together), (40, 120));
    assert!(spread > 200, "{spread}");
}
