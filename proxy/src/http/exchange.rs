//! One request from its head to its last byte. **Start reading here.**
//!
//! `admit → route → attempts → relay → settle`, in the one task of the client's connection or
//! stream. Each step is a module of its own; this one says in which order.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use sealane_model::Failure;

use super::attempt::{Answer, Stop, answer, is_bodiless_answer};
use super::client::{Client, Piece, content_length};
use super::context::{Inbound, RequestContext, Settled};
use super::endpoint::Endpoint;
use super::fields::Known;
use super::message::{AnswerHead, RequestHead};
use super::outcome::{AttemptEnd, AttemptOutcome, settle_attempt};
use super::refuse::Refusal;
use super::relay::{Relayed, Upload, flush, relay};
use super::route::RouteState;
use super::{headers, upgrade};
use crate::alarm::Alarm;
use crate::clock;

/// How long a client may take to read a refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers one request, by an endpoint or by a refusal, and settles it. `admitted`: what
/// [`super::admit`] said of its head.
pub(crate) async fn run(
    client: &mut Client,
    head: RequestHead,
    admitted: Result<(), Refusal>,
    inbound: &Inbound,
    alarm: &mut Alarm,
) {
    let mut settled = Settled(RequestContext::start(head, inbound));
    let request = &mut settled.0;
    let answered = match admitted {
        Ok(()) => respond(client, request, inbound, alarm).await,
        Err(refusal) => Err(Stop::Refused(refusal)),
    };
    match answered {
        Ok(()) => {}
        Err(Stop::ClientGone) => client.cut(),
        Err(Stop::Refused(refusal)) => refuse(client, request, &refusal).await,
    }
}

async fn respond(
    client: &mut Client,
    request: &mut RequestContext,
    inbound: &Inbound,
    alarm: &mut Alarm,
) -> Result<(), Stop> {
    let challenges = &inbound.worker.shared.challenges;
    if let Some(proof) = challenges.answer(request.head.path()) {
        show_proof(client, request, proof).await;
        return Ok(());
    }
    let rules = Arc::clone(&request.rules);
    let head = &request.head;
    let found = rules
        .routes
        .find(head.host(), head.path(), &head.method, &head.fields);
    let route = found.ok_or(Stop::Refused(Refusal::NoRoute))?;
    let max = route.rule.body_max;
    let too_large = |length| max.is_some_and(|max| length > max);
    let length = content_length(&head.fields);
    request.route = Some(Arc::clone(route));
    if length.is_some_and(too_large) {
        return Err(Stop::Refused(Refusal::BodyTooLarge));
    }
    let now = clock::now();
    route.budget.deposit(now.into_std());
    let keep = route.rule.retry.attempts > 1;
    let mut upload = Upload::new(max, keep, &inbound.worker.kept_for_replay, now);
    let answered = answer(client, route, request, &mut upload, inbound, alarm).await;
    request.received = upload.received();
    let answer = answered?;
    deliver(client, *answer, request, &mut upload, inbound, alarm).await;
    Ok(())
}

/// Sends an endpoint's answer on, to its end or to where it breaks off.
async fn deliver(
    client: &mut Client,
    mut answer: Answer,
    request: &mut RequestContext,
    upload: &mut Upload,
    inbound: &Inbound,
    alarm: &mut Alarm,
) {
    let Some(route) = request.route.clone() else {
        return; // there is none without an answer
    };
    let route = &*route;
    let switched = answer.head.status == StatusCode::SWITCHING_PROTOCOLS;
    upload.keep_no_more();
    name_answer(&mut answer, request, switched);
    if inbound.worker.draining.is_raised() {
        client.close_after();
    }
    request.status = Some(answer.head.status);
    // Until its end was sent: this future may be dropped at any time.
    request.cut_short = true;
    let end = answer.end || is_bodiless_answer(&request.head.method, answer.head.status);
    let head = std::mem::replace(&mut answer.head, AnswerHead::new(StatusCode::OK));
    let relayed = if client.send_head(head, end && !switched).is_err() {
        Relayed::ClientGone
    } else if switched {
        return tunnel(client, answer, route, request, inbound).await;
    } else if end {
        finish_bodiless(client).await
    } else {
        let idle = route.rule.timeouts.idle;
        relay(
            client,
            &mut answer.endpoint,
            upload,
            idle,
            alarm,
            &mut request.sent,
        )
        .await
    };
    request.received = upload.received();
    let whole = relayed == Relayed::Whole;
    // The endpoint has done its part: it need not wait for a slow client.
    settle_answer(answer, &relayed, whole && upload.is_whole(), route, inbound);
    if whole {
        request.cut_short = !flush(client, route.rule.timeouts.idle).await;
    } else {
        // What came before it broke off is the client's.
        poll_fn(|cx| {
            let _ = client.poll_ready(cx);
            Poll::Ready(())
        })
        .await;
        client.cut();
        tracing::debug!("answer broke off: {relayed:?}");
    }
}

/// `whole`: request and answer both came to their end, so that the connection can serve again.
fn settle_answer(
    answer: Answer,
    relayed: &Relayed,
    whole: bool,
    route: &RouteState,
    inbound: &Inbound,
) {
    let reused = answer.endpoint.is_reused();
    if let Some(wire) = answer.endpoint.finish(whole) {
        inbound.worker.connections.keep(&answer.selected, wire);
    }
    let end = match relayed {
        Relayed::Whole => AttemptEnd::Answered,
        // Silence within an answer is no fault: event streams may have nothing to say for long.
        Relayed::Endpoint(Failure::TimedOut) => AttemptEnd::Abandoned,
        Relayed::Endpoint(failure) => AttemptEnd::Failed(failure),
        Relayed::ClientGone | Relayed::ClientStalled | Relayed::Upload(_) => AttemptEnd::Abandoned,
    };
    let outcome = AttemptOutcome {
        route,
        selected: &answer.selected,
        end,
        // A connection that broke within an answer did not break for having been idle.
        reused: reused && matches!(end, AttemptEnd::Answered),
        retry: None,
    };
    settle_attempt(&outcome, answer.load, &inbound.worker.shared.observations);
}

fn name_answer(answer: &mut Answer, request: &RequestContext, switched: bool) {
    let selected = &answer.selected;
    let names = (&*selected.region_name, &*selected.name);
    let names = request.rules.config.name_endpoint.then_some(names);
    let fields = &mut answer.head.fields;
    headers::toward_client(fields, names, &request.request_id, switched);
}

/// The head was all: HTTP/1 still wants to be told.
async fn finish_bodiless(client: &mut Client) -> Relayed {
    let sent = poll_fn(|cx| Poll::Ready(client.send_piece(cx, Piece::End(None)))).await;
    match sent {
        Ok(()) => Relayed::Whole,
        Err(_) => Relayed::Endpoint(Failure::Protocol("a body unlike its length".to_owned())),
    }
}

async fn tunnel(
    client: &mut Client,
    answer: Answer,
    route: &RouteState,
    request: &mut RequestContext,
    inbound: &Inbound,
) {
    client.close_after();
    let mut end = AttemptEnd::Abandoned;
    if let (Client::H1(ours), Endpoint::H1(theirs)) = (client, answer.endpoint) {
        let theirs = theirs.into_wire();
        let idle = route.rule.timeouts.idle;
        let moved = Box::pin(upgrade::run(ours.tunnel_wire(), &theirs, idle)).await;
        request.received += moved.from_client;
        request.sent += moved.from_endpoint;
        // Tunnels have no end of their own: whoever closes first ends them.
        request.cut_short = false;
        end = AttemptEnd::Answered;
    }
    let outcome = AttemptOutcome {
        route,
        selected: &answer.selected,
        end,
        reused: false,
        retry: None,
    };
    settle_attempt(&outcome, answer.load, &inbound.worker.shared.observations);
}

/// Answers an authority that looks for a proof (RFC 8555 §8.3).
async fn show_proof(client: &mut Client, request: &mut RequestContext, proof: Bytes) {
    let mut head = AnswerHead::new(StatusCode::OK);
    let length = proof.len().to_string();
    head.fields
        .append(Known::ContentType, b"application/octet-stream");
    head.fields.append(Known::ContentLength, length.as_bytes());
    answer_here(client, request, head, proof).await;
}

async fn refuse(client: &mut Client, request: &mut RequestContext, refusal: &Refusal) {
    request.refusal = Some(refusal.as_str());
    let (mut head, body) = refusal.answer(request.is_grpc);
    let id = request.request_id.as_bytes();
    head.fields.append(Known::XRequestId, id);
    if matches!(refusal, Refusal::Malformed(_)) {
        client.close_after();
    }
    answer_here(client, request, head, body).await;
}

/// An answer of our own.
async fn answer_here(
    client: &mut Client,
    request: &mut RequestContext,
    head: AnswerHead,
    body: Bytes,
) {
    request.status = Some(head.status);
    let end = body.is_empty() || is_bodiless_answer(&request.head.method, head.status);
    if client.send_head(head, end).is_err() {
        request.cut_short = true;
        return client.cut();
    }
    request.sent = if end { 0 } else { body.len() as u64 };
    let mut piece = Some(if end {
        Piece::End(None)
    } else {
        Piece::Last(body)
    });
    let sent = poll_fn(|cx| {
        Poll::Ready(
            piece
                .take()
                .map_or(Ok(()), |piece| client.send_piece(cx, piece)),
        )
    });
    request.cut_short = sent.await.is_err() || !flush(client, REFUSAL_TIMEOUT).await;
}
