//! What a finished attempt or request becomes: load released, an observation, metrics, one line in
//! the access log. The one place where that happens.
//!
//! Called by `http::exchange` and `http::attempt`. Never waits: observations are dropped when
//! control cannot keep up.
//!
//! What becomes an observation: failures of transport alone (refused, unreachable, timed out,
//! closed, TLS, unlawful HTTP). Never an abort by the client, a 4xx, or a refusal of our own: they
//! say nothing about the endpoint. Nor, so far, a 5xx that the endpoint itself answered: it may be
//! the request's fault, and probes see what is not. Nor a kept connection found closed: an endpoint
//! may close an idle one at any time (RFC 9112 §9.5).

use std::net::IpAddr;
use std::time::Duration;

use http::{Method, StatusCode};
use sealane_model::{Failure, Observation, ObservationSender, Outcome, Source};

use super::access_log;
use super::coalesce::Part;
use super::fields::{Fields, Known};
use super::message::AnswerHead;
use super::retry::Retry;
use super::route::RouteState;
use super::split::Way;
use super::sticky::Session;
use crate::clock;
use crate::config::Tier;
use crate::metrics;
use crate::upstream::hedging::Hedged;
use crate::upstream::{Answered, LoadGuard, Selected};

/// How one try at one endpoint ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AttemptEnd<'a> {
    /// The endpoint's answer came to its end, whatever its status.
    Answered,
    /// Given up by us or by the client, through no fault of the endpoint.
    Abandoned,
    Failed(&'a Failure),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct AttemptOutcome<'a> {
    pub(crate) route: &'a RouteState,
    pub(crate) selected: &'a Selected,
    pub(crate) end: AttemptEnd<'a>,
    /// It went over a connection that an earlier attempt had opened.
    pub(crate) reused: bool,
    /// What was decided after a failure; `None` otherwise.
    pub(crate) retry: Option<Retry>,
}

/// Called once for each attempt, after [`super::retry::decide`] where it failed.
pub(crate) fn settle_attempt(
    outcome: &AttemptOutcome<'_>,
    load: LoadGuard,
    observations: &ObservationSender,
) {
    drop(load);
    let AttemptOutcome {
        route, selected, ..
    } = outcome;
    route
        .metrics
        .attempt(selected.region, &selected.region_name, selected.reason);
    let AttemptEnd::Failed(failure) = outcome.end else {
        return;
    };
    route.metrics.attempt_failed(failure);
    match outcome.retry {
        Some(Retry::Again) => route.metrics.retried(failure),
        Some(Retry::GiveUp(why)) => route.metrics.not_retried(why),
        None => {}
    }
    tracing::debug!(
        route = &*route.rule.name,
        region = &*selected.region_name,
        endpoint = &*selected.name,
        address = %selected.address,
        retry = ?outcome.retry,
        "attempt failed: {failure}"
    );
    let is_fault = is_the_endpoints_fault(failure, outcome.reused);
    selected.failed(clock::now().into_std(), is_fault);
    if is_fault {
        observations.offer(Observation {
            endpoint: selected.endpoint,
            source: Source::Traffic,
            outcome: Outcome::Failed(failure.clone()),
        });
    }
}

/// What the head of an answer says about the endpoint. An answer by which it refuses work is no sign
/// that it is out of order: 429, and 503 with a `Retry-After` (RFC 9110 §10.2.3).
pub(crate) fn answered(head: &AnswerHead) -> Answered {
    match head.status.as_u16() {
        429 => Answered::Overloaded,
        503 if is_too_busy(&head.fields) => Answered::Overloaded,
        500 | 502 | 503 | 504 => Answered::Badly,
        200 => answered_grpc(head),
        _ => Answered::Well,
    }
}

/// It says when to come back, or is a Sealane that sheds.
fn is_too_busy(fields: &Fields) -> bool {
    fields.contains(Known::RetryAfter) || fields.get(Known::XSealaneRefusal) == Some(b"overloaded")
}

/// A gRPC answer that is trailers alone has its status in the head: 13 (internal) and 14
/// (unavailable) are the endpoint's, the latter with a push-back its way to refuse work.
fn answered_grpc(head: &AnswerHead) -> Answered {
    match head.fields.get(Known::GrpcStatus) {
        Some(b"14") if head.fields.contains("grpc-retry-pushback-ms") => Answered::Overloaded,
        Some(b"13" | b"14") => Answered::Badly,
        _ => Answered::Well,
    }
}

const fn is_the_endpoints_fault(failure: &Failure, reused: bool) -> bool {
    match failure {
        Failure::Refused
        | Failure::Unreachable
        | Failure::ConnectTimedOut
        | Failure::Tls(_)
        | Failure::TimedOut
        | Failure::Protocol(_) => true,
        Failure::Closed => !reused,
        Failure::Unresolved(_) | Failure::Status { .. } | Failure::Body => false,
    }
}

/// One request, from its head to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestOutcome<'a> {
    pub(crate) client: IpAddr,
    pub(crate) method: &'a Method,
    pub(crate) host: &'a str,
    /// A query behind it is not logged.
    pub(crate) path: &'a str,
    /// Of the answer whose head was sent; `None` if the client left before.
    pub(crate) status: Option<StatusCode>,
    /// Bytes of the request's body.
    pub(crate) received: u64,
    /// Bytes of the answer's body.
    pub(crate) sent: u64,
    /// `None`: no route was found, or the request was refused before it was looked for.
    pub(crate) route: Option<&'a RouteState>,
    /// The last attempt's choice.
    pub(crate) selected: Option<&'a Selected>,
    pub(crate) attempts: u32,
    /// `None`: no second attempt beside the first was thought of.
    pub(crate) hedge: Option<Hedged>,
    /// `None`: the route is not split.
    pub(crate) way: Option<Way>,
    /// `None`: the route's requests belong to no session.
    pub(crate) session: Option<Session>,
    pub(crate) took: Duration,
    pub(crate) request_id: &'a str,
    /// The word for our own "no" (`Refusal::as_str` and the like), `None` if the endpoint answered.
    pub(crate) refusal: Option<&'static str>,
    /// The answer's head was sent, but not its end.
    pub(crate) cut_short: bool,
    /// What it had to do with others that asked the same.
    pub(crate) shared: Option<Part>,
    pub(crate) tier: Tier,
}

/// Called once for each request that had a readable head.
pub(crate) fn settle_request(outcome: &RequestOutcome<'_>) {
    if let Some(route) = outcome.route {
        let RequestOutcome {
            status,
            took,
            received,
            sent,
            ..
        } = *outcome;
        route.metrics.request(status, took, received, sent);
        if let Some(hedge) = outcome.hedge {
            route.metrics.hedged(hedge);
        }
        if let Some(session) = outcome.session {
            route.metrics.session(session.found.as_str());
        }
    }
    if let Some(kind) = outcome.refusal {
        metrics::refused(kind);
    }
    access_log::write(outcome);
}

#[cfg(test)]
mod tests;
