//! The endpoint's side of an exchange, an enum of lanes: HTTP/1 by our strict codec, HTTP/2 by
//! `h2`. Everything is polled from the exchange's one task.
//!
//! The mirror of [`super::client`]. Opens and keeps no connection: see [`super::connect`].

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, StatusCode, Uri, Version};
use sealane_model::Failure;

use super::admit::check_length;
use super::client::{
    CONNECTION_SPECIFIC, Piece, content_length, end_chunks, give_back, poll_capacity, poll_stream,
    send_chunk, send_on_stream,
};
use super::coalesce::flight::Reader;
use super::connect::H2Lease;
use super::fields::{Known, is_name};
use super::message::{AnswerHead, RequestHead};
use super::refuse::Refusal;
use crate::h1::chunked::{Decoded, Decoder};
use crate::h1::head::{self, Answer, AnswerFraming, HeadLimits, Scanner};
use crate::io::Wire;

pub(crate) enum Endpoint {
    H1(Box<H1Endpoint>),
    H2(Box<H2Endpoint>),
    /// The answer to another request that asks the same.
    Shared(Box<Reader>),
}

impl Endpoint {
    /// Sends the request's head, with the next poll; `end`: no body follows.
    pub(crate) fn send_head(&mut self, head: RequestHead, end: bool) -> Result<(), Failure> {
        match self {
            Self::H1(h1) => {
                h1.send_head(head, end);
                Ok(())
            }
            Self::H2(h2) => h2.send_head(head, end),
            Self::Shared(_) => Ok(()),
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
            Self::Shared(_) => Poll::Ready(Ok(())),
        }
    }

    /// Nothing more comes from the client for now: as [`Client::poll_rest`](super::client::Client::poll_rest).
    /// What goes wrong shows when the next piece is sent.
    pub(crate) fn rest(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::H1(h1) => {
                let _ = h1.wire.poll_ready(cx);
            }
            Self::H2(h2) => {
                if let Some(send) = &mut h2.send {
                    give_back(send);
                }
            }
            Self::Shared(_) => {}
        }
    }

    /// As [`Endpoint::poll_ready`], but what is little may go on waiting for more: to be followed by
    /// [`Endpoint::rest`] when nothing more comes.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Self::H1(h1) => h1.wire.poll_room(cx).map_err(|_| Failure::Closed),
            Self::H2(_) | Self::Shared(_) => self.poll_ready(cx),
        }
    }

    pub(crate) fn send_piece(&mut self, cx: &mut Context<'_>, piece: Piece) -> Result<(), Failure> {
        match self {
            Self::H1(h1) => h1.send_piece(cx, piece),
            Self::H2(h2) => match &mut h2.send {
                Some(send) => send_on_stream(send, piece).map_err(|_| Failure::Closed),
                None => Ok(()),
            },
            Self::Shared(_) => Ok(()),
        }
    }

    /// A head of the answer: any number with a status of 100–199, then the final one and whether
    /// it ends the answer.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(AnswerHead, bool), Failure>> {
        match self {
            Self::H1(h1) => h1.poll_head(cx),
            Self::H2(h2) => h2.poll_head(cx),
            Self::Shared(reader) => reader.poll_head(cx),
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
            Self::Shared(reader) => reader.poll_piece(cx),
        }
    }

    /// Where the answer's bytes can be read as they are, and how many are left; `None` where they are
    /// framed, or few.
    pub(crate) fn passable(&self) -> Option<(&Wire, u64)> {
        match self {
            Self::H1(h1) if h1.arrived.is_empty() => match h1.body {
                Body::Length(left) if left >= PASS_MIN => Some((&h1.wire, left)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Bytes of the answer's body that came with its head, and how many are left with them; `None`
    /// where there are none, or they are framed.
    pub(crate) fn arrived(&self) -> Option<(&[u8], u64)> {
        match self {
            Self::H1(h1) if !h1.arrived.is_empty() => match h1.body {
                Body::Length(left) => {
                    let here = h1.arrived.len();
                    let here = usize::try_from(left).map_or(here, |left| left.min(here));
                    Some((&h1.arrived[..here], left))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// So many bytes were taken that way.
    pub(crate) fn note_taken(&mut self, bytes: usize) {
        if let Self::H1(h1) = self {
            h1.arrived.advance(bytes);
        }
        self.note_passed(bytes as u64);
    }

    /// So many bytes were read that way.
    pub(crate) fn note_passed(&mut self, bytes: u64) {
        if let Self::H1(h1) = self
            && let Body::Length(left) = h1.body
        {
            h1.body = match left.saturating_sub(bytes) {
                0 => Body::Over,
                left => Body::Length(left),
            };
        }
    }

    /// Pieces of the answer are not larger than `most` bytes from now on. On HTTP/2 the windows
    /// that we grant do that.
    pub(crate) fn take_at_most(&mut self, most: usize) {
        if let Self::H1(h1) = self {
            h1.piece_max = most.clamp(1, PIECE_MAX);
        }
    }

    /// After a 101: bytes pass as they are, both ways.
    pub(crate) fn become_tunnel(&mut self) {
        if let Self::H1(h1) = self {
            h1.sending = Sending::Tunnel;
        }
    }

    /// Writes on what waits of a request that has ended: while only the answer is asked for, nobody
    /// else does. What goes wrong shows when reading.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Self::H1(h1) = self {
            h1.drive(cx);
        }
    }

    /// It went over a connection that an earlier attempt had opened.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Self::H1(h1) => h1.reused,
            Self::H2(h2) => h2.lease.is_reused(),
            Self::Shared(_) => false,
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
            Self::Shared(_) => None,
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
/// Header fields of one head of an answer.
const ANSWER_FIELDS_MAX: usize = 512;

/// Bytes of a body that are worth passing by.
const PASS_MIN: u64 = 16 * 1024;

/// The lane of HTTP/1, by our strict codec.
pub(crate) struct H1Endpoint {
    wire: Wire,
    reused: bool,
    /// Read, and not yet taken.
    arrived: BytesMut,
    scanner: Scanner,
    /// Bytes of the heads before the one that is awaited.
    head_bytes: usize,
    to_head: bool,
    sending: Sending,
    body: Body,
    /// The endpoint takes another request on this connection.
    keep: bool,
    /// Bytes that one piece of the answer has at most.
    piece_max: usize,
}

/// How the request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    /// So many bytes are still owed.
    Length(u64),
    Chunked,
    Tunnel,
    /// Nothing more follows in the tunnel: the endpoint is to be told.
    TunnelEnds,
    Ended,
}

/// What is left of the answer's body.
enum Body {
    HeadFirst,
    Length(u64),
    Chunked(Decoder),
    UntilClose,
    Over,
}

/// Room for an answer's head, with a small body behind it.
const HEAD_READ: usize = 4 * 1024;
/// Bytes of an answer that are read at once.
const PIECE_MAX: usize = 64 * 1024;

impl H1Endpoint {
    pub(crate) fn new(wire: Wire, reused: bool) -> Self {
        Self {
            wire,
            reused,
            arrived: BytesMut::new(),
            scanner: Scanner::default(),
            head_bytes: 0,
            to_head: false,
            sending: Sending::Ended,
            body: Body::HeadFirst,
            keep: false,
            piece_max: PIECE_MAX,
        }
    }

    fn send_head(&mut self, mut head: RequestHead, end: bool) {
        self.to_head = head.method == Method::HEAD;
        let length = content_length(&head.fields);
        let fields = &mut head.fields;
        fields.remove(Known::TransferEncoding);
        self.sending = match length {
            Some(length) => Sending::Length(length),
            None if !end => {
                fields.append(Known::TransferEncoding, b"chunked");
                Sending::Chunked
            }
            None => {
                // Where a body would be usual, its absence is said (RFC 9110 §8.6).
                if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
                    fields.append(Known::ContentLength, b"0");
                }
                Sending::Ended
            }
        };
        if end {
            self.sending = Sending::Ended;
        }
        if fields.contains(Known::Te) && !fields.contains(Known::Connection) {
            fields.append(Known::Connection, b"te"); // RFC 9110 §10.1.4
        }
        self.wire.compose(|out| head.write_to(out));
    }

    fn send_piece(&mut self, cx: &mut Context<'_>, piece: Piece) -> Result<(), Failure> {
        let (bytes, last, trailers) = match piece {
            Piece::Data(bytes) => (bytes, false, None),
            Piece::Last(bytes) => (bytes, true, None),
            Piece::End(trailers) => (Bytes::new(), true, trailers),
        };
        let closed = |_| Failure::Closed;
        match &mut self.sending {
            Sending::Length(owed) => {
                let left = owed.checked_sub(bytes.len() as u64);
                *owed = left.ok_or(Failure::Closed)?;
                self.wire.write(cx, &bytes).map_err(closed)?;
            }
            // An empty chunk would end the body.
            Sending::Chunked if bytes.is_empty() => {}
            Sending::Chunked => send_chunk(&self.wire, cx, &bytes).map_err(closed)?,
            Sending::Tunnel => self.wire.write(cx, &bytes).map_err(closed)?,
            Sending::TunnelEnds | Sending::Ended => {}
        }
        if last && self.sending == Sending::Tunnel {
            self.sending = Sending::TunnelEnds;
            self.drive(cx);
            return Ok(());
        }
        if last {
            if self.sending == Sending::Chunked {
                self.wire
                    .compose(|out| end_chunks(out, trailers.as_deref()));
            }
            // A body shorter than its length leaves the endpoint waiting: not to be reused.
            if !matches!(self.sending, Sending::Length(owed) if owed > 0) {
                self.sending = Sending::Ended;
            }
        }
        Ok(())
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(AnswerHead, bool), Failure>> {
        if let Poll::Ready(Err(_)) = self.wire.poll_ready(cx)
            && self.arrived.is_empty()
        {
            // It may have answered before it closed: that is read first.
            tracing::trace!("the endpoint takes no more");
        }
        let answer = ready!(self.poll_answer(cx))?;
        if answer.head.is_interim() {
            return Poll::Ready(Ok((answer.head, false)));
        }
        self.keep = answer.keep;
        let switches = answer.head.status == StatusCode::SWITCHING_PROTOCOLS;
        self.body = match answer.framing {
            _ if switches => Body::UntilClose,
            AnswerFraming::None => Body::Over,
            AnswerFraming::Length(length) => Body::Length(length),
            AnswerFraming::Chunked => Body::Chunked(Decoder::new()),
            AnswerFraming::UntilClose => Body::UntilClose,
        };
        let end = matches!(self.body, Body::Over);
        Poll::Ready(Ok((answer.head, end)))
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Failure>> {
        loop {
            let taken = self.take_answer();
            let unlawful = |what: &str| Failure::Protocol(what.to_owned());
            if let Some(answer) = taken.map_err(unlawful)? {
                self.scanner = Scanner::default();
                return Poll::Ready(Ok(answer));
            }
            match ready!(self.wire.poll_fill(cx, &mut self.arrived, HEAD_READ)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(Failure::Closed)),
                Ok(_) => {}
            }
        }
    }

    /// The head that `arrived` begins with, once it is whole.
    fn take_answer(&mut self) -> Result<Option<Answer>, &'static str> {
        let limits = HeadLimits {
            bytes: ANSWER_HEAD_MAX.saturating_sub(self.head_bytes),
            fields: ANSWER_FIELDS_MAX,
        };
        let before = self.arrived.len();
        if !self.scanner.has_begun()
            && let Some(answer) = head::plain_answer(&mut self.arrived, limits, self.to_head)?
        {
            self.head_bytes += before - self.arrived.len();
            return Ok(Some(answer));
        }
        let length = match self.scanner.scan(&self.arrived, limits) {
            Ok(Some(length)) => length,
            Ok(None) => return Ok(None),
            Err(Refusal::Malformed(what)) => return Err(what),
            Err(_) => return Err("head too large"),
        };
        self.head_bytes += length;
        head::answer(head::take(&mut self.arrived, length), self.to_head).map(Some)
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.sending == Sending::TunnelEnds {
            if self.wire.poll_shutdown(cx).is_ready() {
                self.sending = Sending::Ended;
            }
        } else if self.sending == Sending::Ended && !self.wire.is_flushed() {
            let _ = self.wire.poll_ready(cx);
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Failure>> {
        loop {
            if let Some(piece) = self.take_piece()? {
                if !matches!(piece, Piece::Data(_)) {
                    self.body = Body::Over;
                }
                return Poll::Ready(Ok(piece));
            }
            let room = match self.body {
                Body::Length(left) => usize::try_from(left).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            let most = room.min(self.piece_max);
            match ready!(self.wire.poll_fill(cx, &mut self.arrived, most)) {
                Ok(0) if matches!(self.body, Body::UntilClose) => {
                    self.body = Body::Over;
                    return Poll::Ready(Ok(Piece::End(None)));
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(Failure::Closed)),
                Ok(_) => {}
            }
        }
    }

    /// A piece of what has arrived.
    fn take_piece(&mut self) -> Result<Option<Piece>, Failure> {
        let arrived = &mut self.arrived;
        Ok(match &mut self.body {
            Body::HeadFirst | Body::Over => Some(Piece::End(None)),
            Body::Chunked(decoder) => match decoder.decode(arrived) {
                Ok(Some(Decoded::Data(bytes))) => Some(Piece::Data(bytes)),
                Ok(Some(Decoded::End(trailers))) => Some(Piece::End(trailers)),
                Ok(None) => None,
                Err(bad) => return Err(Failure::Protocol(bad.0.to_owned())),
            },
            _ if arrived.is_empty() => None,
            Body::UntilClose => Some(Piece::Data(std::mem::take(arrived).freeze())),
            Body::Length(left) => {
                let taken = usize::try_from(*left).map_or(arrived.len(), |n| n.min(arrived.len()));
                *left -= taken as u64;
                let bytes = arrived.split_to(taken).freeze();
                Some(match left {
                    0 => Piece::Last(bytes),
                    _ => Piece::Data(bytes),
                })
            }
        })
    }

    /// Bytes behind an answer belong to none: whoever sends them is not to be trusted further.
    fn reusable(self) -> Option<Wire> {
        let whole = self.sending == Sending::Ended && matches!(self.body, Body::Over);
        let clean = self.arrived.is_empty() && self.wire.is_flushed();
        (self.keep && whole && clean).then_some(self.wire)
    }

    /// After a 101: the wire, with what the endpoint sent behind its head back in front.
    pub(crate) fn into_wire(self) -> Wire {
        if !self.arrived.is_empty() {
            self.wire.unread(self.arrived);
        }
        self.wire
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

    fn send_head(&mut self, mut head: RequestHead, end: bool) -> Result<(), Failure> {
        head.fields.remove_all(CONNECTION_SPECIFIC);
        let unlawful = |what: &str| Failure::Protocol(what.to_owned());
        let authority = Authority::try_from(head.host().as_bytes());
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(self.scheme.clone());
        uri.authority = Some(authority.unwrap_or_else(|_| Authority::from_static("localhost")));
        let target = PathAndQuery::try_from(head.target()).map_err(|_| unlawful("target"))?;
        uri.path_and_query = Some(target);
        // `:authority` says it (RFC 9113 §8.3.1).
        head.fields.remove(Known::Host);
        let mut request = Request::new(());
        *request.method_mut() = head.method;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| unlawful("target"))?;
        *request.headers_mut() = head.fields.into_map();
        let (answer, send) = self.lease.send(request, end).map_err(|error| {
            self.lease.retire();
            self.unprocessed = true; // it was not even queued
            failure_of_h2(&error)
        })?;
        self.answer = Some(answer);
        self.send = (!end).then_some(send);
        Ok(())
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(AnswerHead, bool), Failure>> {
        let Some(answer) = &mut self.answer else {
            return Poll::Ready(Err(Failure::Closed));
        };
        let answered = match answer.poll_informational(cx) {
            Poll::Ready(Some(Ok(response))) => {
                let (head, ()) = response.into_parts();
                return Poll::Ready(answer_head(&head).map(|head| (head, false)));
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
        Poll::Ready(answer_head(&head).map(|head| (head, end)))
    }
}

fn answer_head(head: &http::response::Parts) -> Result<AnswerHead, Failure> {
    if !head.headers.keys().all(is_name) {
        return Err(Failure::Protocol("field name".to_owned()));
    }
    if check_length(&head.headers).is_err() {
        return Err(Failure::Protocol("length".to_owned()));
    }
    Ok(AnswerHead::from_parts(head))
}
