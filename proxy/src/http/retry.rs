//! Whether a failed attempt may be followed by another one, and how soon.
//!
//! Called by `http::attempt` after each failure, and after each answer that the operator would
//! rather have from another endpoint. Pure but for the token that it takes from the route's budget
//! in the moment it decides; waits for nothing and chooses no endpoint.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use sealane_model::Failure;

use super::fields::{Fields, Known};
use super::message::AnswerHead;
use crate::config::{RetryOn, RetryPolicy};
use crate::upstream::budget::Budget;
use crate::upstream::route::Shed;

/// How far a failed attempt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// No byte of the request reached the endpoint: connecting failed.
    Nothing,
    /// Some of it may have: the endpoint may have acted on it.
    HeadOrBody,
    /// The client has seen a part of the answer.
    AnswerBegun,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Try<'a> {
    pub(crate) method: &'a Method,
    pub(crate) fields: &'a Fields,
    /// The failed one included.
    pub(crate) attempts_made: u32,
    pub(crate) sent: Sent,
    /// Everything that was read of the request's body can be sent again.
    pub(crate) body_replayable: bool,
    pub(crate) failure: &'a Failure,
    /// The endpoint's own word about another attempt, with an answer.
    pub(crate) wish: Wish,
    /// From now until the next attempt would have answered: its pause, and what attempts usually
    /// take where that is known.
    pub(crate) needs: Duration,
    /// Until the request's time is up.
    pub(crate) left: Duration,
}

/// What an endpoint says about another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Nothing,
    /// It, or what is behind it, has too much to do: asking elsewhere would not help for long.
    Stop,
    /// Not before so long (`grpc-retry-pushback-ms`).
    After(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    Again,
    GiveUp(GiveUp),
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GiveUp {
    /// The endpoint may have acted on the request, and acting twice may differ from acting once.
    NotSafe,
    /// A part of the body went by and was not kept.
    BodyGone,
    AnswerBegun,
    AttemptsUsed,
    BudgetEmpty,
    /// No other endpoint can be tried. Concluded by the caller, who knows the world; asks no token.
    NothingLeft,
    /// No region that it could go to may be sent more just now. As [`GiveUp::NothingLeft`].
    NoRoom,
    /// The time for all attempts together is over. Concluded by the caller, who has the clock: a
    /// further attempt would only blame an endpoint that was given no time.
    OutOfTime,
    /// The route's `retry.on` does not have it.
    NotChosen,
    /// The endpoint said that it has too much to do.
    Overloaded,
}

impl GiveUp {
    /// In the order of their discriminants: tables are indexed by them.
    pub(crate) const ALL: [Self; 10] = [
        Self::NotSafe,
        Self::BodyGone,
        Self::AnswerBegun,
        Self::AttemptsUsed,
        Self::BudgetEmpty,
        Self::NothingLeft,
        Self::NoRoom,
        Self::OutOfTime,
        Self::NotChosen,
        Self::Overloaded,
    ];

    /// A word for logs and metric labels.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NotSafe => "not_safe",
            Self::BodyGone => "body_gone",
            Self::AnswerBegun => "answer_begun",
            Self::AttemptsUsed => "attempts_used",
            Self::BudgetEmpty => "budget_empty",
            Self::NothingLeft => "nothing_left",
            Self::NoRoom => "no_room",
            Self::OutOfTime => "out_of_time",
            Self::NotChosen => "not_chosen",
            Self::Overloaded => "overloaded",
        }
    }
}

/// Takes a token from the budget when, and only when, it says [`Retry::Again`].
pub(crate) fn decide(
    policy: &RetryPolicy,
    attempt: &Try<'_>,
    budget: &Budget,
    now: Instant,
) -> Retry {
    let decided = match obstacle(policy, attempt) {
        Some(why) => Retry::GiveUp(why),
        None if budget.withdraw(now) => Retry::Again,
        None => Retry::GiveUp(GiveUp::BudgetEmpty),
    };
    tracing::trace!(failure = attempt.failure.as_str(), ?decided, "retry");
    decided
}

/// What stands in the way besides the budget; what the client could see comes first.
fn obstacle(policy: &RetryPolicy, attempt: &Try<'_>) -> Option<GiveUp> {
    if attempt.sent == Sent::AnswerBegun {
        return Some(GiveUp::AnswerBegun);
    }
    if !is_chosen(&policy.on, attempt.failure) {
        return Some(GiveUp::NotChosen);
    }
    if attempt.sent == Sent::HeadOrBody && !may_repeat(policy, attempt.method, attempt.fields) {
        return Some(GiveUp::NotSafe);
    }
    if attempt.wish == Wish::Stop {
        return Some(GiveUp::Overloaded);
    }
    if !attempt.body_replayable {
        return Some(GiveUp::BodyGone);
    }
    if attempt.attempts_made >= policy.attempts {
        return Some(GiveUp::AttemptsUsed);
    }
    (attempt.needs >= attempt.left).then_some(GiveUp::OutOfTime)
}

fn is_chosen(on: &RetryOn, failure: &Failure) -> bool {
    match failure {
        Failure::Refused
        | Failure::Unreachable
        | Failure::ConnectTimedOut
        | Failure::Tls(_)
        | Failure::Unresolved(_) => on.connect,
        Failure::Closed | Failure::Protocol(_) | Failure::Body => on.reset,
        Failure::TimedOut => on.timeout,
        Failure::Status { status, .. } => on_answer(on, *status),
    }
}

const fn on_answer(on: &RetryOn, status: u16) -> bool {
    match status {
        502 => on.bad_gateway,
        503 => on.unavailable,
        504 => on.gateway_timeout,
        _ => false,
    }
}

/// How long the next attempt waits: "full jitter" (Brooker 2015), a number from 0 to a bound that
/// doubles.
///
/// After one endpoint's failure another one is asked at once, as nginx and HAProxy do: it is one
/// endpoint that failed, the client waits, and what many such retries may add is the budget's to
/// bound. When a second one failed, the trouble is likely not theirs alone; and one that answers
/// that it cannot serve is most often short of something that the next one shares. Then clients that
/// failed together are spread over time.
pub(crate) fn pause(
    policy: &RetryPolicy,
    failure: &Failure,
    attempts_made: u32,
    wish: Wish,
    random: u64,
) -> Duration {
    if let Wish::After(pause) = wish {
        return pause;
    }
    let free = match failure {
        Failure::Status { .. } => 1,
        _ => 2,
    };
    let Some(doublings) = attempts_made.checked_sub(free) else {
        return Duration::ZERO;
    };
    let backoff = &policy.backoff;
    let bound = backoff.first.saturating_mul(1 << doublings.min(16));
    let nanos = bound.min(backoff.max).as_nanos();
    let drawn = (nanos * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(drawn).unwrap_or(u64::MAX))
}

/// May the endpoint see this request twice? Idempotent methods (RFC 9110 §9.2.2), whatever its
/// sender marked by an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), and what the
/// operator says of the route.
pub(crate) fn may_repeat(policy: &RetryPolicy, method: &Method, fields: &Fields) -> bool {
    method.is_idempotent()
        || policy.methods.contains(method)
        || fields
            .get(Known::IdempotencyKey)
            .is_some_and(|key| !key.is_empty())
}

/// The status of an answer as `retry.on` has it. A gRPC call that failed without a message says so
/// in a head of its own ("Trailers-Only" in gRPC over HTTP/2): UNAVAILABLE is what 503 is elsewhere.
pub(crate) fn status_of(head: &AnswerHead, grpc: bool) -> u16 {
    let is_unavailable = || head.fields.get(Known::GrpcStatus) == Some(b"14");
    if grpc && head.status == StatusCode::OK && is_unavailable() {
        return StatusCode::SERVICE_UNAVAILABLE.as_u16();
    }
    head.status.as_u16()
}

/// Whether another endpoint might rather answer.
pub(crate) fn is_unwelcome(policy: &RetryPolicy, head: &AnswerHead, grpc: bool) -> bool {
    on_answer(&policy.on, status_of(head, grpc))
}

/// What the head of a refusing answer says about another attempt: `Retry-After` (RFC 9110 §10.2.3),
/// a Sealane behind us that sheds, or gRPC's push-back (gRFC A6: what cannot be read, or is below
/// zero, asks to stop).
pub(crate) fn wish_of(head: &AnswerHead) -> Wish {
    let fields = &head.fields;
    if let Some(pushback) = fields.get_str("grpc-retry-pushback-ms") {
        let millis = pushback.parse::<u32>();
        return millis.map_or(Wish::Stop, |millis| {
            Wish::After(Duration::from_millis(millis.into()))
        });
    }
    let sheds = fields
        .get(Known::XSealaneRefusal)
        .is_some_and(Shed::is_word);
    if sheds || fields.contains(Known::RetryAfter) {
        return Wish::Stop;
    }
    Wish::Nothing
}

#[cfg(test)]
mod tests;
