//! BORDER. The endpoint's side of an exchange, an enum of lanes: HTTP/1 by Pingora's session,
//! HTTP/2 by `h2`. Everything is polled from the exchange's one task.
//!
//! The mirror of [`super::client`]. Opens and keeps no connection: see [`super::connect`].

use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, Version, request, response};
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_error::ErrorType;
use pingora_http::RequestHeader;
use sealane_model::Failure;

use super::client::{CONNECTION_SPECIFIC, Piece, poll_capacity, poll_stream, send_on_stream};
use super::connect::H2Lease;
use crate::io::{Mode, Wire};

pub(crate) enum Endpoint {
    H1(Box<H1Endpoint>),
    H2(Box<H2Endpoint>),
}

impl Endpoint {
    /// Sends the request's head; `end`: no body follows.
    pub(crate) fn send_head(
        &mut self,
        cx: &mut Context<'_>,
        head: request::Parts,
        end: bool,
    ) -> Result<(), Failure> {
        match self {
            Self::H1(h1) => h1.send_head(cx, head, end),
            Self::H2(h2) => h2.send_head(head, end),
        }
    }

    /// Drives what is being written. Ready when one more piece may be sent.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Self::H1(h1) => h1.wire.poll_ready(cx).map_err(|_| Failure::Closed),
            Self::H2(h2) => match &mut h2.send {
                Some(send) => poll_capacity(send, cx).map_err(|_| Failure::Closed),
                None => Poll::Ready(Ok(())),
            },
        }
    }

    pub(crate) fn send_piece(&mut self, cx: &mut Context<'_>, piece: Piece) -> Result<(), Failure> {
        match self {
            Self::H1(h1) => h1.send_piece(cx, piece),
            Self::H2(h2) => match &mut h2.send {
                Some(send) => send_on_stream(send, piece).map_err(|_| Failure::Closed),
                None => Ok(()),
            },
        }
    }

    /// A head of the answer: any number with a status of 100–199, then the final one and whether
    /// it ends the answer.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(response::Parts, bool), Failure>> {
        match self {
            Self::H1(h1) => h1.poll_head(cx),
            Self::H2(h2) => h2.poll_head(cx),
        }
    }

    /// The next piece of the answer's body. Not to be called after its end.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Failure>> {
        match self {
            Self::H1(h1) => h1.poll_piece(cx),
            Self::H2(h2) => match &mut h2.body {
                Some(body) => poll_stream(body, cx).map_err(|error| failure_of_h2(&error)),
                None => Poll::Ready(Ok(Piece::End(None))),
            },
        }
    }

    /// Pieces of the answer are not larger than `most` bytes from now on. On HTTP/2 the windows
    /// that we grant do that.
    pub(crate) fn take_at_most(&self, most: usize) {
        if let Self::H1(h1) = self {
            h1.wire.read_at_most(most);
        }
    }

    /// It went over a connection that an earlier attempt had opened.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Self::H1(h1) => h1.reused,
            Self::H2(h2) => h2.lease.is_reused(),
        }
    }

    /// The exchange is over. `whole`: request and answer both came to their end; otherwise an
    /// HTTP/1 connection is of no further use and a stream is reset. Returns the wire that may
    /// serve another request.
    pub(crate) fn finish(self, whole: bool) -> Option<Wire> {
        match self {
            Self::H1(h1) if whole => h1.reusable(),
            Self::H1(_) => None,
            Self::H2(mut h2) => {
                if !whole && let Some(send) = &mut h2.send {
                    send.send_reset(h2::Reason::CANCEL);
                }
                None
            }
        }
    }

    /// The endpoint, or h2 on our side, said that it has not looked at the request: it may be sent
    /// again whatever it is (RFC 9113 §8.7).
    pub(crate) fn is_unprocessed(&self) -> bool {
        matches!(self, Self::H2(h2) if h2.unprocessed)
    }

    /// An HTTP/2 connection that does not answer is not given further streams.
    pub(crate) fn distrust(&self) {
        if let Self::H2(h2) = self {
            h2.lease.retire();
        }
    }
}

/// Bytes of one answer's heads, informational ones and the beginning of the body that was read with
/// them included. More is a failure of the endpoint: its answer is not awaited further. On HTTP/2,
/// of the head's fields (RFC 9113 §6.5.2).
pub(crate) const ANSWER_HEAD_MAX: usize = 64 * 1024;

/// The lane of HTTP/1.
pub(crate) struct H1Endpoint {
    session: HttpSession,
    wire: Wire,
    reused: bool,
}

impl H1Endpoint {
    pub(crate) fn new(wire: Wire, reused: bool) -> Self {
        wire.allow(Some(ANSWER_HEAD_MAX));
        wire.read_at_most(usize::MAX); // whatever the exchange before this one had
        Self {
            session: HttpSession::new(Box::new(wire.conn(Mode::Behind))),
            wire,
            reused,
        }
    }

    fn send_head(
        &mut self,
        cx: &mut Context<'_>,
        mut head: request::Parts,
        end: bool,
    ) -> Result<(), Failure> {
        head.version = Version::HTTP_11;
        head.headers.remove(TRANSFER_ENCODING);
        if !end && !head.headers.contains_key(CONTENT_LENGTH) {
            let chunked = HeaderValue::from_static("chunked");
            head.headers.insert(TRANSFER_ENCODING, chunked);
        }
        let head = Box::new(RequestHeader::from(head));
        let sent = at_once(self.session.write_request_header(head), cx)?;
        sent.map(|_| ()).map_err(|error| failure(&error))
    }

    fn send_piece(&mut self, cx: &mut Context<'_>, piece: Piece) -> Result<(), Failure> {
        let (bytes, last) = match piece {
            Piece::Data(bytes) => (bytes, false),
            Piece::Last(bytes) => (bytes, true),
            Piece::End(_) => (Bytes::new(), true), // no trailers over HTTP/1
        };
        // An empty chunk would end the body.
        if !bytes.is_empty() {
            let sent = at_once(self.session.write_body(&bytes), cx)?;
            sent.map_err(|error| failure(&error))?;
        }
        if last {
            let sent = at_once(self.session.finish_body(), cx)?;
            sent.map_err(|error| failure(&error))?;
        }
        Ok(())
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(response::Parts, bool), Failure>> {
        {
            let reading = pin!(self.session.read_response());
            ready!(reading.poll(cx)).map_err(|error| failure(&error))?;
        }
        let Some(head) = self.session.resp_header() else {
            return Poll::Ready(Err(Failure::Closed));
        };
        check_head(&head.headers)?;
        let head = head.as_owned_parts();
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if !head.status.is_informational() || switches {
            self.wire.allow(None);
        }
        let end = !head.status.is_informational() && !switches && self.session.is_body_done();
        Poll::Ready(Ok((head, end)))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Failure>> {
        let bytes = {
            let reading = pin!(self.session.read_body_bytes());
            ready!(reading.poll(cx)).map_err(|error| failure(&error))?
        };
        Poll::Ready(Ok(match bytes {
            Some(bytes) if self.session.is_body_done() => Piece::Last(bytes),
            Some(bytes) => Piece::Data(bytes),
            None => Piece::End(None),
        }))
    }

    fn reusable(mut self) -> Option<Wire> {
        self.session.respect_keepalive();
        let kept = self.session.reuse().now_or_never().flatten().is_some();
        (kept && self.wire.is_flushed()).then_some(self.wire)
    }

    /// After a 101: the wire, with what the endpoint sent behind its head back in front.
    pub(crate) fn into_wire(mut self) -> Wire {
        // Read-ahead bytes come first and at once, in one piece.
        if let Some(Ok(Some(read))) = self.session.read_body_bytes().now_or_never() {
            self.wire.unread(read.as_ref().into());
        }
        self.wire
    }
}

/// Writes never wait in [`Mode::Behind`]: one poll is all it takes.
fn at_once<F: Future>(writing: F, cx: &mut Context<'_>) -> Result<F::Output, Failure> {
    match pin!(writing).as_mut().poll(cx) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Err(Failure::Closed),
    }
}

/// Refuses codings that we would not take off. (Folded lines and control characters: Pingora makes
/// spaces of them, as RFC 9112 §5.2 asks.)
fn check_head(headers: &HeaderMap) -> Result<(), Failure> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_some_and(|first| !chunked(first)) || codings.next().is_some() {
        return Err(Failure::Protocol("transfer coding".to_owned()));
    }
    Ok(())
}

fn failure(error: &pingora_error::Error) -> Failure {
    match error.etype() {
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => {
            Failure::Closed
        }
        other => Failure::Protocol(other.as_str().to_owned()),
    }
}

/// A refused stream, or one beyond the last that a leaving endpoint will answer.
fn is_unprocessed(error: &h2::Error) -> bool {
    let left = error.is_go_away() && error.is_remote();
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => error.is_remote(),
        Some(h2::Reason::NO_ERROR) => left,
        _ => false,
    }
}

fn failure_of_h2(error: &h2::Error) -> Failure {
    match error.reason() {
        _ if error.is_io() => Failure::Closed,
        Some(h2::Reason::NO_ERROR | h2::Reason::REFUSED_STREAM | h2::Reason::CANCEL) | None => {
            Failure::Closed
        }
        Some(reason) => Failure::Protocol(reason.to_string()),
    }
}

/// The lane of HTTP/2: one stream.
pub(crate) struct H2Endpoint {
    lease: H2Lease,
    scheme: Scheme,
    answer: Option<h2::client::ResponseFuture>,
    send: Option<h2::SendStream<Bytes>>,
    body: Option<h2::RecvStream>,
    unprocessed: bool,
}

impl H2Endpoint {
    pub(crate) fn new(lease: H2Lease, tls: bool) -> Self {
        Self {
            lease,
            scheme: if tls { Scheme::HTTPS } else { Scheme::HTTP },
            answer: None,
            send: None,
            body: None,
            unprocessed: false,
        }
    }

    fn send_head(&mut self, mut head: request::Parts, end: bool) -> Result<(), Failure> {
        head.version = Version::HTTP_2;
        for name in CONNECTION_SPECIFIC {
            head.headers.remove(name);
        }
        let trailers = |te: &HeaderValue| te.as_bytes().eq_ignore_ascii_case(b"trailers");
        if head.headers.get(TE).is_some_and(|te| !trailers(te)) {
            head.headers.remove(TE);
        }
        let unlawful = |what: &str| Failure::Protocol(what.to_owned());
        // `:authority` says it (RFC 9113 §8.3.1).
        let host = head.headers.remove(HOST);
        let mut uri = std::mem::take(&mut head.uri).into_parts();
        uri.scheme = Some(self.scheme.clone());
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        uri.authority = Some(authority.unwrap_or_else(|| Authority::from_static("localhost")));
        head.uri = Uri::from_parts(uri).map_err(|_| unlawful("target"))?;
        let request = Request::from_parts(head, ());
        let (answer, send) = self.lease.send(request, end).map_err(|error| {
            self.lease.retire();
            self.unprocessed = true; // it was not even queued
            failure_of_h2(&error)
        })?;
        self.answer = Some(answer);
        self.send = (!end).then_some(send);
        Ok(())
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(response::Parts, bool), Failure>> {
        let Some(answer) = &mut self.answer else {
            return Poll::Ready(Err(Failure::Closed));
        };
        let answered = match answer.poll_informational(cx) {
            Poll::Ready(Some(Ok(response))) => {
                return Poll::Ready(Ok((response.into_parts().0, false)));
            }
            Poll::Ready(Some(Err(error))) => Err(error),
            Poll::Ready(None) => ready!(Pin::new(answer).poll(cx)),
            Poll::Pending => return Poll::Pending,
        };
        let response = answered.map_err(|error| {
            self.unprocessed = is_unprocessed(&error);
            if error.is_go_away() {
                self.lease.retire();
            }
            failure_of_h2(&error)
        })?;
        let (head, body) = response.into_parts();
        let end = body.is_end_stream();
        self.body = (!end).then_some(body);
        self.answer = None;
        Poll::Ready(Ok((head, end)))
    }
}
