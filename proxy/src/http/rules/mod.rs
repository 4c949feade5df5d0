//! What a route's options mean, one file for each; here they are put together, in the order in which
//! `http::exchange` calls them:
//!
//! `find → own_answer (preflight, maintenance, redirect or fixed answer) → deadline → toward_endpoint
//! (rewrite, gRPC time-out, headers) → toward_client (CORS, headers) → squeeze`.
//!
//! Pure but for [`squeeze`], which holds a compressor.

pub(crate) mod cors;
mod edits;
mod encoding;
mod grpc;
mod location;
pub(crate) mod squeeze;
pub(crate) mod websocket;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Method, StatusCode, Version};
use tokio::time::Instant;

use self::cors::Preflight;
use self::edits::Values;
use self::location::{Asked, Nowhere};
use self::squeeze::Squeeze;
use super::context::RequestContext;
use super::fields::{Fields, Known};
use super::message::{AnswerHead, RequestHead};
use super::rate_limit;
use super::refuse::Refusal;
use super::route::{RouteState, RouteTable};
use crate::clock;
use crate::config::{Action, FixedAnswer, Maintenance, NewPath, Redirect, Route};

/// The request's route. A preflight takes that of the request which it asks for, if that one has a
/// rule for it: routes may be for some methods alone.
pub(crate) fn find<'t>(routes: &'t RouteTable, head: &RequestHead) -> Option<&'t Arc<RouteState>> {
    let find = |method: &Method| routes.find(head.host(), head.target(), method, &head.fields);
    if let Some(preflight) = Preflight::of(&head.method, &head.fields)
        && let Some(route) = find(&preflight.method)
        && route.rule.options.cors.is_some()
    {
        return Some(route);
    }
    find(&head.method)
}

/// An answer that needs no endpoint.
#[derive(Debug)]
pub(crate) struct OwnAnswer {
    pub(crate) head: AnswerHead,
    pub(crate) body: Bytes,
    /// The word for metrics and logs, where it is a no.
    pub(crate) refusal: Option<&'static str>,
    /// Says itself all that is to be said about CORS.
    pub(crate) is_preflight: bool,
}

impl OwnAnswer {
    pub(crate) fn from(refusal: &Refusal, grpc: bool) -> Self {
        let (head, body) = refusal.answer(grpc);
        Self {
            head,
            body,
            refusal: Some(refusal.as_str()),
            is_preflight: false,
        }
    }

    /// 200, with these bytes.
    pub(crate) fn whole(content_type: &[u8], body: Bytes) -> Self {
        let mut head = AnswerHead::new(StatusCode::OK);
        let length = body.len().to_string();
        head.fields.append(Known::ContentType, content_type);
        head.fields.append(Known::ContentLength, length.as_bytes());
        Self {
            body,
            ..Self::bodiless(head)
        }
    }

    fn bodiless(head: AnswerHead) -> Self {
        Self {
            head,
            body: Bytes::new(),
            refusal: None,
            is_preflight: false,
        }
    }

    fn fixed(answer: &FixedAnswer) -> Self {
        let mut head = AnswerHead::new(answer.status);
        if !answer.body.is_empty() {
            let kind = answer.content_type.as_bytes();
            head.fields.append(Known::ContentType, kind);
        }
        if !matches!(
            answer.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        ) {
            let length = answer.body.len().to_string();
            head.fields.append(Known::ContentLength, length.as_bytes());
        }
        Self {
            body: answer.body.clone(),
            ..Self::bodiless(head)
        }
    }
}

/// What the route answers by itself; `None`: an endpoint is asked.
///
/// # Errors
/// The no that the route's rules say.
pub(crate) fn own_answer(
    route: &Route,
    request: &RequestContext,
    scheme: &str,
) -> Result<Option<OwnAnswer>, Refusal> {
    let head = &request.head;
    if let Some(rule) = &route.options.cors
        && let Some(asked) = Preflight::of(&head.method, &head.fields)
    {
        let mut answer = AnswerHead::new(StatusCode::NO_CONTENT);
        cors::answer(rule, &asked, &mut answer.fields).map_err(Refusal::Cors)?;
        return Ok(Some(OwnAnswer {
            is_preflight: true,
            ..OwnAnswer::bodiless(answer)
        }));
    }
    if let Some(maintenance) = &route.options.maintenance
        && !maintenance
            .except
            .iter()
            .any(|net| net.contains(&request.place.address))
    {
        return Ok(Some(maintained(maintenance, request.is_grpc)));
    }
    match &route.action {
        Action::Forward(_) => Ok(None),
        Action::Redirect(rule) => {
            let matched = route.when.path_prefix.as_deref();
            redirect(rule, head, scheme, matched).map(Some)
        }
        Action::Respond(answer) => Ok(Some(OwnAnswer::fixed(answer))),
    }
}

fn maintained(rule: &Maintenance, grpc: bool) -> OwnAnswer {
    let word = Refusal::Maintenance.as_str();
    let mut answer = if grpc {
        OwnAnswer::from(&Refusal::Maintenance, true)
    } else {
        let mut answer = OwnAnswer::fixed(&rule.answer);
        let fields = &mut answer.head.fields;
        fields.append(Known::XSealaneRefusal, word.as_bytes());
        fields.append(Known::CacheControl, b"no-store"); // it will pass
        answer
    };
    if let Some(after) = rule.retry_after {
        let seconds = after.as_secs().to_string();
        let fields = &mut answer.head.fields;
        fields.append(Known::RetryAfter, seconds.as_bytes());
    }
    answer.refusal = Some(word);
    answer
}

fn redirect(
    rule: &Redirect,
    head: &RequestHead,
    scheme: &str,
    matched: Option<&str>,
) -> Result<OwnAnswer, Refusal> {
    let asked = Asked {
        scheme,
        host: head.host(),
        target: head.target(),
        matched,
    };
    let there = location::location(rule, &asked).map_err(|nowhere| match nowhere {
        Nowhere::NoHost => Refusal::Malformed("no host to redirect to"),
        Nowhere::SamePlace => Refusal::RedirectLoop,
    })?;
    let mut answer = AnswerHead::new(rule.status);
    answer.fields.append(Known::Location, there.as_bytes());
    answer.fields.append(Known::ContentLength, b"0");
    Ok(OwnAnswer::bodiless(answer))
}

/// The same place by HTTPS.
///
/// # Errors
/// The client named no host.
pub(crate) fn to_https(head: &RequestHead, port: u16) -> Result<OwnAnswer, Refusal> {
    let rule = Redirect {
        status: StatusCode::PERMANENT_REDIRECT,
        scheme: Some(Scheme::HTTPS),
        host: None,
        port: Some(port),
        path: NewPath::Same,
        keep_query: true,
    };
    redirect(&rule, head, "http", None)
}

/// Until when a gRPC client waits.
///
/// # Errors
/// It says so in no lawful way.
pub(crate) fn deadline(request: &RequestContext) -> Result<Option<Instant>, Refusal> {
    let asked = request.head.fields.get(Known::GrpcTimeout);
    let Some(asked) = asked.filter(|_| request.is_grpc) else {
        return Ok(None);
    };
    let timeout = grpc::read(asked).ok_or(Refusal::Malformed("grpc-timeout"))?;
    // Beyond what the clock can say, there is none.
    Ok(request.started.checked_add(timeout))
}

/// Changes one attempt's head, once it is otherwise done.
pub(crate) fn toward_endpoint(
    head: &mut RequestHead,
    route: &Route,
    request: &RequestContext,
    scheme: &str,
) {
    let options = &route.options;
    if let Some(prefix) = &options.rewrite.prefix {
        let matched = route.when.path_prefix.as_deref();
        head.set_target(&location::with_prefix(head.target(), matched, prefix));
    }
    if let Some(host) = &options.rewrite.host {
        head.fields.insert(Known::Host, host.as_bytes());
    }
    if let Some(name) = &request.rules.config.bounds.tier_header {
        // Ours, whatever came with the request: endpoints can believe it.
        head.fields
            .insert(name.as_str(), request.tier.as_str().as_bytes());
    }
    if let Some(deadline) = request.deadline {
        let left = deadline.saturating_duration_since(clock::now());
        let left = grpc::write(left);
        head.fields.insert(Known::GrpcTimeout, left.as_bytes());
    }
    if !options.request_headers.is_empty() {
        let values = values(request, scheme);
        edits::apply(&options.request_headers, &values, &mut head.fields);
    }
}

/// Changes an answer's head, an endpoint's or our own, once it is otherwise done.
pub(crate) fn toward_client(fields: &mut Fields, request: &RequestContext, scheme: &str) {
    let Some(route) = &request.route else {
        return;
    };
    if let Some(nearest) = &request.nearest {
        rate_limit::tell(fields, route, nearest);
    }
    let options = &route.rule.options;
    if let Some(rule) = &options.cors {
        cors::mark(rule, request.head.fields.get(Known::Origin), fields);
    }
    if !options.response_headers.is_empty() {
        edits::apply(&options.response_headers, &values(request, scheme), fields);
    }
}

fn values<'a>(request: &'a RequestContext, scheme: &'a str) -> Values<'a> {
    let selected = request.selected.as_ref();
    Values {
        client: request.place.address,
        host: request.head.host(),
        method: &request.head.method,
        target: request.head.target(),
        scheme,
        request_id: request.request_id.as_str(),
        route: request.route.as_ref().map_or("", |route| &route.rule.name),
        region: selected.map_or("", |selected| &selected.region_name),
        endpoint: selected.map_or("", |selected| &selected.name),
    }
}

/// The compressor for an answer with a body, whose head then says so. `None`: it passes as it is.
pub(crate) fn squeeze(
    route: &Route,
    asked: &RequestHead,
    answer: &mut AnswerHead,
    held_by_all: &Rc<Cell<usize>>,
) -> Option<Box<Squeeze>> {
    let rule = route.options.compression.as_ref()?;
    if asked.version == Version::HTTP_10 {
        return None; // without its length, the answer would cost the connection
    }
    let fields = &mut answer.fields;
    let encoding = encoding::choose(rule, &asked.fields, answer.status, fields)?;
    let squeeze = Squeeze::new(encoding, rule.level, held_by_all)?;
    encoding::mark(encoding, fields);
    Some(Box::new(squeeze))
}
