//! Whether a failed attempt may be followed by another one.
//!
//! Called by `http::attempt` after each failure. Pure but for the token that it takes from the
//! route's budget in the moment it decides; waits for nothing and chooses no endpoint.

use std::time::Instant;

use http::Method;
use sealane_model::Failure;

use super::fields::{Fields, Known};
use crate::config::RetryPolicy;
use crate::upstream::budget::Budget;

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
    /// What failed does not matter, only how far it came; named in the trace.
    pub(crate) failure: &'a Failure,
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
    /// The time for all attempts together is over. Concluded by the caller, who has the clock: a
    /// further attempt would only blame an endpoint that was given no time.
    OutOfTime,
}

impl GiveUp {
    /// In the order of their discriminants: tables are indexed by them.
    pub(crate) const ALL: [Self; 7] = [
        Self::NotSafe,
        Self::BodyGone,
        Self::AnswerBegun,
        Self::AttemptsUsed,
        Self::BudgetEmpty,
        Self::NothingLeft,
        Self::OutOfTime,
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
            Self::OutOfTime => "out_of_time",
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
    if attempt.sent == Sent::HeadOrBody && !may_repeat(attempt.method, attempt.fields) {
        return Some(GiveUp::NotSafe);
    }
    if !attempt.body_replayable {
        return Some(GiveUp::BodyGone);
    }
    (attempt.attempts_made >= policy.attempts).then_some(GiveUp::AttemptsUsed)
}

/// May the endpoint see this request twice? Idempotent methods (RFC 9110 §9.2.2), and whatever its
/// sender marked by an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).
pub(crate) fn may_repeat(method: &Method, fields: &Fields) -> bool {
    method.is_idempotent()
        || fields
            .get(Known::IdempotencyKey)
            .is_some_and(|key| !key.is_empty())
}

#[cfg(test)]
mod tests;
