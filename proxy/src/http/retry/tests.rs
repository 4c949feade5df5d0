//! The retry table.

use std::time::Duration;

use sealane_model::Ratio;

use super::*;

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

    let later = now + Duration::from_secs(10);
    assert_eq!(decide(&policy(), &get, &budget, later), Retry::Again);
}
