//! One request from its head to its last byte. **Start reading here.**
//!
//! `admit → route → (own answer) → rate → (session, split) → (coalesce) → places → (mirror) → attempts
//! → relay → settle`, in the one task of the client's connection or stream. Each step is a module of its own; this one
//! says in which order. What a route may do besides is in [`super::rules`].

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::StatusCode;
use sealane_model::Failure;

use super::attempt::{Answer, Stop, answer, is_bodiless_answer};
use super::client::{Client, Piece, content_length};
use super::coalesce::{self, Shared};
use super::context::{Inbound, RequestContext, Settled};
use super::endpoint::Endpoint;
use super::fields::{Fields, Known};
use super::message::{AnswerHead, RequestHead};
use super::outcome::{AttemptEnd, AttemptOutcome, settle_attempt};
use super::refuse::Refusal;
use super::relay::{Relayed, Terms, Upload, flush, relay};
use super::route::RouteState;
use super::rules::squeeze::Squeeze;
use super::rules::{self, OwnAnswer};
use super::{headers, mirror, overload, rate_limit, split, sticky, upgrade};
use crate::alarm::Alarm;
use crate::clock;
use crate::door::Misdirected;
use crate::upstream::Selected;

/// How long a client may take to read a piece of an answer of our own.
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
    let mut settled = Settled {
        request: RequestContext::start(head, inbound),
        worker: inbound.worker.index,
    };
    let request = &mut settled.request;
    let answered = match admitted {
        Ok(()) => respond(client, request, inbound, alarm).await,
        Err(refusal) => Err(Stop::Refused(refusal)),
    };
    match answered {
        Ok(()) => {}
        Err(Stop::ClientGone) => client.cut(),
        Err(Stop::Refused(refusal)) => {
            if matches!(refusal, Refusal::Malformed(_)) {
                client.close_after();
            }
            let own = OwnAnswer::from(&refusal, request.is_grpc);
            Box::pin(answer_self(client, request, own, inbound.scheme)).await;
        }
    }
}

async fn respond(
    client: &mut Client,
    request: &mut RequestContext,
    inbound: &Inbound,
    alarm: &mut Alarm,
) -> Result<(), Stop> {
    let challenges = &inbound.worker.shared.challenges;
    if let Some(proof) = challenges.answer(&request.head) {
        // For an authority that looks for a proof (RFC 8555 §8.3).
        let own = OwnAnswer::whole(b"application/octet-stream", proof);
        Box::pin(answer_self(client, request, own, inbound.scheme)).await;
        return Ok(());
    }
    if let Some(door) = &inbound.door {
        let admitted = door.admit(request.head.host(), request.started);
        request.asked = admitted.map_err(|Misdirected| Stop::Refused(Refusal::Misdirected))?;
    }
    let rules = Arc::clone(&request.rules);
    let route = if let Some(port) = inbound.redirect_to_https {
        let own = rules::to_https(&request.head, port).map_err(Stop::Refused)?;
        Box::pin(answer_self(client, request, own, inbound.scheme)).await;
        return Ok(());
    } else {
        rules::find(&rules.routes, &request.head).ok_or(Stop::Refused(Refusal::NoRoute))?
    };
    request.route = Some(Arc::clone(route));
    let own = rules::own_answer(&route.rule, request, inbound.scheme);
    if let Some(own) = own.map_err(Stop::Refused)? {
        Box::pin(answer_self(client, request, own, inbound.scheme)).await;
        return Ok(());
    }
    request.deadline = rules::deadline(request).map_err(Stop::Refused)?;
    let head = &request.head;
    let max = route.rule.body_max;
    let too_large = |length| max.is_some_and(|max| length > max);
    if content_length(&head.fields).is_some_and(too_large) {
        return Err(Stop::Refused(Refusal::BodyTooLarge));
    }
    rate_limit::check(route, request).map_err(Stop::Refused)?;
    request.session = sticky::look(route, request, inbound);
    request.way = split::choose(route, request);
    // Held while the request goes on by itself.
    let mut _turn = None;
    // A session's requests are answered by its own endpoint, and may be given its cookie.
    if let Some(rule) = &route.rule.options.coalesce
        && request.session.is_none()
    {
        let sharing = coalesce::share(client, rule, route, request, inbound, alarm);
        match Box::pin(sharing).await? {
            Shared::Served => return Ok(()),
            Shared::Apart(turn) => _turn = turn,
        }
    }
    // What is left of them is given back when the exchange ends, however it ends.
    let places = overload::enter(route, request, inbound).await;
    let mut places = places.map_err(Stop::Refused)?;
    let now = request.started; // each attempt begins its own time
    route.budget.deposit(now.into_std());
    let keep = route.rule.retry.attempts > 1 || route.rule.hedge.is_some();
    let mut upload = Upload::new(max, keep, &inbound.worker.kept_for_replay, now);
    if let Some(rule) = &route.rule.options.mirror {
        let body_done = client.body_done();
        mirror::begin(rule, route, request, body_done, &mut upload, inbound);
    }
    let answered = answer(client, route, request, &mut upload, inbound, alarm).await;
    places.answered(&answered, request, &upload, route);
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
    if request.session.is_some() {
        sticky::toward_client(request, &answer.selected, &mut answer.head, inbound);
    }
    let named = Some(&answer.selected);
    let (end, squeeze) = prepare(
        client,
        &mut answer.head,
        answer.end,
        named,
        request,
        inbound,
    );
    let head = std::mem::replace(&mut answer.head, AnswerHead::new(StatusCode::OK));
    let relayed = if client.send_head(head, end && !switched).is_err() {
        Relayed::ClientGone
    } else if switched {
        let tunnel = tunnel(client, answer, route, request, upload, inbound, alarm);
        return Box::pin(tunnel).await;
    } else if end {
        finish_bodiless(client).await
    } else {
        let terms = terms(route, request, squeeze);
        let sent = &mut request.sent;
        relay(client, &mut answer.endpoint, upload, terms, alarm, sent).await
    };
    request.received = upload.received();
    let whole = relayed == Relayed::Whole;
    if let (Some(way), Relayed::Endpoint(failure)) = (&mut request.way, &relayed) {
        // Silence within an answer is no fault: see `settle_answer`.
        way.broke_off = *failure != Failure::TimedOut;
    }
    // The endpoint has done its part: it need not wait for a slow client.
    settle_answer(answer, &relayed, whole && upload.is_whole(), route, inbound);
    conclude(client, &relayed, route, request).await;
}

/// Makes an answer's head what this client is to get. Whether the head is all, and what the body
/// passes through. `named`: who answered.
fn prepare(
    client: &mut Client,
    head: &mut AnswerHead,
    end: bool,
    named: Option<&Selected>,
    request: &mut RequestContext,
    inbound: &Inbound,
) -> (bool, Option<Box<Squeeze>>) {
    let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
    name_answer(&mut head.fields, named, request, switched);
    rules::toward_client(&mut head.fields, request, inbound.scheme);
    if inbound.worker.draining.is_raised() {
        client.close_after();
    }
    request.status = Some(head.status);
    if let Some(way) = &mut request.way {
        let after = clock::now().duration_since(request.started);
        way.note_answer(after, head, request.is_grpc);
    }
    // Until its end was sent: this future may be dropped at any time.
    request.cut_short = true;
    let end = end || is_bodiless_answer(&request.head.method, head.status);
    let squeeze = match &request.route {
        Some(route) if !end && !switched => {
            let held = &inbound.worker.held_by_squeezes;
            rules::squeeze(&route.rule, &request.head, head, held)
        }
        _ => None,
    };
    (end, squeeze)
}

fn terms(route: &RouteState, request: &RequestContext, squeeze: Option<Box<Squeeze>>) -> Terms {
    Terms {
        idle: route.rule.timeouts.idle,
        deadline: request.deadline,
        squeeze,
    }
}

/// Sends on to this client an answer that several read. Whoever leads them settles it.
pub(super) async fn pass_on(
    client: &mut Client,
    endpoint: &mut Endpoint,
    (mut head, end): (AnswerHead, bool),
    upload: &mut Upload,
    request: &mut RequestContext,
    inbound: &Inbound,
    alarm: &mut Alarm,
) {
    let Some(route) = request.route.clone() else {
        return; // there is no sharing without
    };
    let named = request.selected.clone();
    let (end, squeeze) = prepare(client, &mut head, end, named.as_ref(), request, inbound);
    let relayed = if client.send_head(head, end).is_err() {
        Relayed::ClientGone
    } else if end {
        finish_bodiless(client).await
    } else {
        let terms = terms(&route, request, squeeze);
        let sent = &mut request.sent;
        relay(client, endpoint, upload, terms, alarm, sent).await
    };
    conclude(client, &relayed, &route, request).await;
}

/// Ends the client's side as the answer ended.
async fn conclude(
    client: &mut Client,
    relayed: &Relayed,
    route: &RouteState,
    request: &mut RequestContext,
) {
    if *relayed == Relayed::Whole {
        request.cut_short = !flush(client, route.rule.timeouts.idle).await;
    } else if *relayed == Relayed::Deadline && client.may_end_early() {
        request.refusal = Some(Refusal::Deadline.as_str());
        Box::pin(end_overdue(client)).await;
    } else {
        // What came before it broke off is the client's.
        poll_fn(|cx| {
            client.push(cx);
            Poll::Ready(())
        })
        .await;
        client.cut();
        tracing::debug!("answer broke off: {relayed:?}");
    }
}

/// `whole`: request and answer both came to their end, so that the connection can serve again.
pub(super) fn settle_answer(
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
        Relayed::ClientGone
        | Relayed::ClientStalled
        | Relayed::Upload(_)
        | Relayed::Deadline
        | Relayed::Unsqueezed => AttemptEnd::Abandoned,
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

fn name_answer(
    fields: &mut Fields,
    named: Option<&Selected>,
    request: &RequestContext,
    switched: bool,
) {
    let named = named.filter(|_| request.rules.config.name_endpoint);
    let names = named.map(|selected| (&*selected.region_name, &*selected.name));
    headers::toward_client(fields, names, &request.request_id, switched);
}

/// The client's deadline passed within the answer: it is told in the trailers.
async fn end_overdue(client: &mut Client) {
    let mut trailers = Fields::new();
    let status = Refusal::Deadline.grpc_status();
    trailers.append(Known::GrpcStatus, status.as_bytes());
    trailers.append("grpc-message", Refusal::Deadline.as_str().as_bytes());
    let mut end = Some(Piece::End(Some(Box::new(trailers))));
    let sent = poll_fn(|cx| Poll::Ready(end.take().map(|end| client.send_piece(cx, end)))).await;
    if sent.is_some_and(|sent| sent.is_err()) {
        client.cut();
    }
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
    mut answer: Answer,
    route: &RouteState,
    request: &mut RequestContext,
    upload: &mut Upload,
    inbound: &Inbound,
    alarm: &mut Alarm,
) {
    client.close_after();
    let mut end = AttemptEnd::Abandoned;
    if client.wants_tunnel_only() {
        let endpoint = &mut answer.endpoint;
        tunnel_stream(client, endpoint, route, request, upload, alarm).await;
        end = AttemptEnd::Answered;
    } else if let (Client::H1(ours), Endpoint::H1(theirs)) = (client, answer.endpoint) {
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

/// The client's side is one stream (RFC 8441): its body, both ways, is the tunnel.
async fn tunnel_stream(
    client: &mut Client,
    endpoint: &mut Endpoint,
    route: &RouteState,
    request: &mut RequestContext,
    upload: &mut Upload,
    alarm: &mut Alarm,
) {
    endpoint.become_tunnel();
    upload.begin_tunnel(clock::now());
    let terms = Terms {
        idle: route.rule.timeouts.idle,
        deadline: None,
        squeeze: None,
    };
    let sent = &mut request.sent;
    let relayed = Box::pin(relay(client, endpoint, upload, terms, alarm, sent)).await;
    request.received = upload.received();
    if relayed != Relayed::Whole {
        tracing::debug!("tunnel broke off: {relayed:?}");
        client.cut();
    }
    // Tunnels have no end of their own: whoever closes first ends them.
    request.cut_short = false;
}

/// Bytes of a body of our own that are handed over at once.
const OWN_PIECE: usize = 16 * 1024;

/// Sends an answer that needs no endpoint.
async fn answer_self(
    client: &mut Client,
    request: &mut RequestContext,
    own: OwnAnswer,
    scheme: &str,
) {
    let OwnAnswer {
        mut head,
        mut body,
        refusal,
        is_preflight,
    } = own;
    request.refusal = refusal;
    let id = request.request_id.as_bytes();
    head.fields.append(Known::XRequestId, id);
    if !is_preflight {
        rules::toward_client(&mut head.fields, request, scheme);
    }
    request.status = Some(head.status);
    request.cut_short = true;
    let end = body.is_empty() || is_bodiless_answer(&request.head.method, head.status);
    if client.send_head(head, end).is_err() {
        return client.cut();
    }
    let mut ended = false;
    while !ended {
        let piece = if end {
            Piece::End(None)
        } else if body.len() > OWN_PIECE {
            Piece::Data(body.split_to(OWN_PIECE))
        } else {
            Piece::Last(std::mem::take(&mut body))
        };
        ended = !matches!(piece, Piece::Data(_));
        match send_own(client, piece).await {
            Some(bytes) => request.sent += bytes,
            None => return client.cut(),
        }
    }
    request.cut_short = !flush(client, REFUSAL_TIMEOUT).await;
}

/// How many bytes it had. `None`: the client left, or took nothing for too long.
async fn send_own(client: &mut Client, piece: Piece) -> Option<u64> {
    let bytes = match &piece {
        Piece::Data(bytes) | Piece::Last(bytes) => bytes.len() as u64,
        Piece::End(_) => 0,
    };
    let mut piece = Some(piece);
    let sending = poll_fn(|cx| {
        if bytes > 0 {
            ready!(client.poll_room(cx))?;
        }
        let sent = piece.take().map(|piece| client.send_piece(cx, piece));
        Poll::Ready(sent.unwrap_or(Ok(())))
    });
    let sent = tokio::time::timeout(REFUSAL_TIMEOUT, sending).await;
    matches!(sent, Ok(Ok(()))).then_some(bytes)
}
