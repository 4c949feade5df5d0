//! BORDER. The client's side of an exchange, an enum of lanes: HTTP/1 read by our strict codec, or
//! by Pingora's session where the codec hands over, HTTP/2 by `h2`. Everything is polled from the
//! exchange's one task.
//!
//! Heads come out and go in flat, bodies as [`Piece`]s. At most one piece is in flight
//! each way: ask [`Client::poll_ready`] before each one. Chooses nothing, times nothing.

use std::future::poll_fn;
use std::io::Write as _;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version, request};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::http::v1::server::HttpSession;
use pingora_error::ErrorType;
use pingora_http::RequestHeader;

use super::border::PingoraConn;
use super::coalesce::flight::Lead;
use super::fields::{Fields, Known, KnownSet, is_name};
use super::message::{AnswerHead, RequestHead};
use super::refuse::Refusal;
use super::rules::websocket;
use crate::h1::chunked::{Decoded, Decoder};
use crate::h1::head::length;
use crate::h1::head::{Framing, names_close};
use crate::io::{Gone, Mode, Wire};

/// A part of a body, in either direction.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    /// The last bytes; no trailers follow.
    Last(Bytes),
    End(Option<Box<Fields>>),
}

/// Why the client's side ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientError {
    /// It closed or broke the connection, or reset the stream.
    Gone,
    /// Its body is not lawful.
    Malformed,
    /// The answer breaks its own framing: it cannot be sent on.
    Unsendable,
}

/// Bytes of an answer that are read at once for a client that takes fewer, or hardly any: what it
/// can make us hold for each of its requests.
const PIECE_MIN: usize = 4 * 1024;
/// Bytes of an answer that are read at once for several.
const SHARED_ROOM: usize = 32 * 1024;
/// Bytes of a request's body that are read at once: what a client that stops half-way leaves in
/// our buffer. One TLS record.
const BODY_READ_MAX: usize = 16 * 1024;

pub(crate) enum Client {
    H1(Box<H1Client>),
    H2(Box<H2Client>),
    /// Nobody by itself: whoever waits for the answer to the same request.
    Shared(Box<Lead>),
}

impl Client {
    /// Whether the whole request body was taken.
    pub(crate) fn body_done(&self) -> bool {
        match self {
            Self::H1(h1) => h1.ended,
            Self::H2(h2) => h2.ended,
            Self::Shared(_) => true,
        }
    }

    /// The next piece of the request body. Not to be called after its end.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, ClientError>> {
        match self {
            Self::H1(h1) => h1.poll_piece(cx),
            Self::H2(h2) => h2.poll_piece(cx),
            Self::Shared(_) => Poll::Ready(Ok(Piece::End(None))),
        }
    }

    /// While its body cannot go on: keeps what has arrived on a stream as bytes, not as frames.
    pub(crate) fn gather(&mut self, cx: &mut Context<'_>) {
        if let Self::H2(h2) = self
            && !h2.ended
        {
            merge(&mut h2.body, cx, &mut h2.gathered);
        }
    }

    /// Drives what is being written. Ready when one more piece may be sent.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        match self {
            Self::H1(h1) => h1.wire.poll_ready(cx).map_err(|_| ClientError::Gone),
            Self::H2(h2) => h2.send.as_mut().map_or(Poll::Ready(Ok(())), |send| {
                poll_capacity(send, cx).map_err(|_| ClientError::Gone)
            }),
            Self::Shared(lead) => lead.poll_room(cx).map(Ok),
        }
    }

    /// Nothing more comes for now, after [`Client::poll_room`]: what waits for company leaves, and window that
    /// the stream was given and does not use goes back to the others of its connection (RFC 9113 §5.2.1).
    pub(crate) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        match self {
            Self::H1(_) => self.poll_ready(cx),
            Self::H2(h2) => {
                if let Some(send) = &mut h2.send {
                    give_back(send);
                }
                Poll::Ready(Ok(()))
            }
            Self::Shared(_) => Poll::Ready(Ok(())),
        }
    }

    /// As [`Client::poll_ready`], but what is little may go on waiting for more: to be followed by
    /// [`Client::poll_rest`] when nothing more comes.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        match self {
            Self::H1(h1) => h1.wire.poll_room(cx).map_err(|_| ClientError::Gone),
            Self::H2(_) | Self::Shared(_) => self.poll_ready(cx),
        }
    }

    /// Bytes that the client takes now, as far as is known, at least [`PIECE_MIN`].
    pub(crate) fn room(&self) -> usize {
        let room = match self {
            Self::H1(h1) => h1.wire.room(),
            Self::H2(h2) => h2.send.as_ref().map_or(0, h2::SendStream::capacity),
            Self::Shared(_) => SHARED_ROOM,
        };
        room.max(PIECE_MIN)
    }

    /// Where the answer's bytes may be written as they are, and how many are owed; `None` where
    /// they are framed.
    pub(crate) fn passable(&self) -> Option<(&Wire, u64)> {
        match self {
            Self::H1(h1) => match h1.sending {
                Sending::Length(owed) => Some((&h1.wire, owed)),
                _ => None,
            },
            Self::H2(_) | Self::Shared(_) => None,
        }
    }

    /// So many bytes were written that way.
    pub(crate) fn note_passed(&mut self, bytes: u64) {
        if let Self::H1(h1) = self
            && let Sending::Length(owed) = h1.sending
        {
            h1.sending = match owed.saturating_sub(bytes) {
                0 => Sending::Ended,
                left => Sending::Length(left),
            };
        }
    }

    /// Writes what it can at once, before the client is let go.
    pub(crate) fn push(&mut self, cx: &mut Context<'_>) {
        if let Self::H1(h1) = self {
            h1.wire.push_now(cx);
        }
    }

    /// Ready when everything sent is out of our hands, or is little and leaves at the end of this turn
    /// (HTTP/1), or queued (HTTP/2).
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        match self {
            Self::H1(h1) => h1.wire.poll_flush(cx).map_err(|_| ClientError::Gone),
            Self::H2(_) | Self::Shared(_) => Poll::Ready(Ok(())),
        }
    }

    /// Sends the answer's head; `end`: no body follows. Statuses 100–199 may come before.
    pub(crate) fn send_head(&mut self, head: AnswerHead, end: bool) -> Result<(), ClientError> {
        match self {
            Self::H1(h1) => {
                h1.send_head(head, end);
                Ok(())
            }
            Self::H2(h2) => h2.send_head(head, end),
            Self::Shared(lead) => {
                lead.send_head(head, end);
                Ok(())
            }
        }
    }

    pub(crate) fn send_piece(
        &mut self,
        cx: &mut Context<'_>,
        piece: Piece,
    ) -> Result<(), ClientError> {
        match self {
            Self::H1(h1) => h1.send_piece(cx, piece),
            Self::H2(h2) => h2.send_piece(piece),
            Self::Shared(lead) => {
                lead.send_piece(piece);
                Ok(())
            }
        }
    }

    /// Ready when the client has left, while nothing is expected from it.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        match self {
            Self::H1(h1) => h1.wire.poll_gone(cx),
            Self::H2(h2) => {
                let reset = match &mut h2.send {
                    Some(send) => send.poll_reset(cx),
                    None => h2.respond.poll_reset(cx),
                };
                reset.map(|_| Gone::Reset)
            }
            Self::Shared(lead) => lead.poll_gone(cx).map(|()| Gone::Reset),
        }
    }

    /// The answer cannot be finished: makes sure that the client notices.
    pub(crate) fn cut(&mut self) {
        match self {
            Self::H1(h1) => {
                h1.keep = false;
                h1.broken = true;
                if h1.sending == Sending::UntilClose {
                    h1.wire.reset_on_close();
                }
            }
            Self::H2(h2) => {
                let reason = h2::Reason::INTERNAL_ERROR;
                match &mut h2.send {
                    Some(send) => send.send_reset(reason),
                    None => h2.respond.send_reset(reason),
                }
            }
            Self::Shared(lead) => lead.cut(),
        }
    }

    /// Whether an answer that began can be ended in order at any time, by trailers.
    pub(crate) fn may_end_early(&self) -> bool {
        matches!(self, Self::H2(_))
    }

    /// HTTP/1: `Connection: close` on the answer, and no further request.
    pub(crate) fn close_after(&mut self) {
        if let Self::H1(h1) = self {
            h1.keep = false;
        }
    }

    /// Can this side become a tunnel (RFC 9110 §7.8)?
    pub(crate) fn may_upgrade(&self) -> bool {
        match self {
            Self::H1(h1) => h1.framing == Framing::None && h1.version == Version::HTTP_11,
            Self::H2(h2) => h2.tunnel,
            Self::Shared(_) => false,
        }
    }

    /// It asked for nothing but a tunnel (RFC 8441): any 2xx would tell it that there is one.
    pub(crate) fn wants_tunnel_only(&self) -> bool {
        matches!(self, Self::H2(h2) if h2.tunnel)
    }
}

/// The lane of HTTP/1: who reads the body depends on the request, the answer is written here.
pub(crate) struct H1Client {
    reader: Reader,
    wire: Wire,
    version: Version,
    framing: Framing,
    is_head: bool,
    /// The client keeps trailers apart from fields (RFC 9110 §6.5.1).
    takes_trailers: bool,
    ended: bool,
    /// The connection may serve another request.
    keep: bool,
    broken: bool,
    sending: Sending,
}

/// Who reads the request's body.
enum Reader {
    /// The strict codec. `arrived`: what was read and not yet taken, first of this body, then of
    /// later requests.
    Lean { arrived: BytesMut, body: LeanBody },
    /// Pingora's session, for the forms of requests that the strict codec leaves to it. It never
    /// reads chunks: see [`H1Client::pingora`].
    Pingora(Box<HttpSession>),
}

enum LeanBody {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(Decoder),
}

/// What becomes of an HTTP/1 connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Next,
    /// Ended in order: what the client still sends is read for a while, so that our last bytes
    /// reach it (RFC 9112 §9.6).
    Close,
    /// Broken off: the client must not take it for an end.
    Drop,
}

/// How the answer's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    HeadFirst,
    /// No body, whatever the head says (RFC 9112 §6.3, rules 1 and 2).
    Nothing,
    /// So many bytes are still owed.
    Length(u64),
    Chunked,
    UntilClose,
    Ended,
}

impl H1Client {
    /// A request whose body the strict codec reads. `arrived`: what came behind its
    /// head.
    pub(crate) fn lean(
        wire: &Wire,
        head: &RequestHead,
        framing: Framing,
        arrived: BytesMut,
    ) -> Self {
        let body = match framing {
            Framing::None => LeanBody::Length(0),
            Framing::Length(length) => LeanBody::Length(length),
            Framing::Chunked => LeanBody::Chunked(Decoder::new()),
        };
        let ended = framing == Framing::None;
        let reader = Reader::Lean { arrived, body };
        Self::new(reader, wire, head, framing, ended)
    }

    fn new(reader: Reader, wire: &Wire, head: &RequestHead, framing: Framing, ended: bool) -> Self {
        let mut codings = head.fields.tokens(Known::Te);
        Self {
            reader,
            wire: wire.clone(),
            version: head.version,
            framing,
            is_head: head.method == Method::HEAD,
            takes_trailers: codings.any(|coding| coding.eq_ignore_ascii_case(b"trailers")),
            ended,
            keep: head.version == Version::HTTP_11 && !names_close(&head.fields),
            broken: false,
            sending: Sending::HeadFirst,
        }
    }

    /// Any other request. `text`: its head, as it came; `arrived`: what came behind, of which later
    /// requests' part is left.
    ///
    /// A chunked body is read by the strict codec even here: httparse, which Pingora's session asks,
    /// takes a size line without digits for a last chunk, and what follows would be a request.
    ///
    /// # Errors
    /// The head is not lawful after all.
    pub(crate) async fn pingora(
        wire: &Wire,
        text: &[u8],
        framing: Framing,
        arrived: &mut BytesMut,
    ) -> Result<(Self, request::Parts), Refusal> {
        let of_body = match framing {
            Framing::None | Framing::Chunked => 0,
            Framing::Length(length) => {
                usize::try_from(length).map_or(arrived.len(), |n| n.min(arrived.len()))
            }
        };
        let later = arrived.split_off(of_body);
        let mut ours = BytesMut::from(text);
        ours.extend_from_slice(arrived);
        *arrived = later;

        wire.read_at_most(BODY_READ_MAX);
        let mut session = HttpSession::new(Box::new(PingoraConn::new(wire.conn(Mode::Behind))));
        session.set_read_timeout(None); // the exchange has its own
        session.set_pipelining_enabled(true);
        session.set_pipelined_prefix(ours);
        let refused = || Refusal::Malformed("head");
        let read = session.read_request().await;
        read.ok().flatten().ok_or_else(refused)?;
        // The body's framing is read off the head: before the head is taken away.
        let ended = session.is_body_done();
        let blank = RequestHeader::build_no_case("GET", b"/", Some(0)).map_err(|_| refused())?;
        let parts: request::Parts = std::mem::replace(session.req_header_mut(), blank).into();
        let head = RequestHead::from_parts(&parts);
        if framing == Framing::Chunked {
            let arrived = std::mem::take(arrived);
            return Ok((Self::lean(wire, &head, framing, arrived), parts));
        }
        let reader = Reader::Pingora(Box::new(session));
        Ok((Self::new(reader, wire, &head, framing, ended), parts))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, ClientError>> {
        let polled = match &mut self.reader {
            Reader::Lean { arrived, body } => poll_lean(&self.wire, cx, arrived, body),
            Reader::Pingora(session) => poll_session(session, cx),
        };
        let piece = ready!(polled);
        match &piece {
            Ok(Piece::Data(_)) => {}
            Ok(_) => self.ended = true,
            Err(_) => self.keep = false,
        }
        Poll::Ready(piece)
    }

    fn send_head(&mut self, mut head: AnswerHead, end: bool) {
        if head.is_interim() {
            // HTTP/1.0 has no informational answers (RFC 9110 §15.2).
            if self.version == Version::HTTP_11 {
                self.wire.compose(|out| head.write_to(out));
            }
            return;
        }
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            self.frame(&mut head, end);
        }
        if !head.fields.contains(Known::Date) {
            head.fields
                .append(Known::Date, get_cached_date().as_bytes());
        }
        self.wire.compose(|out| head.write_to(out));
    }

    fn frame(&mut self, head: &mut AnswerHead, end: bool) {
        let bodiless = matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        let fields = &mut head.fields;
        fields.remove(Known::TransferEncoding);
        if head.status == StatusCode::NO_CONTENT {
            fields.remove(Known::ContentLength);
        }
        let length = content_length(fields);
        self.sending = if self.is_head || bodiless {
            Sending::Nothing
        } else if let Some(length) = length {
            Sending::Length(length)
        } else if end {
            fields.append(Known::ContentLength, b"0");
            Sending::Length(0)
        } else if self.version == Version::HTTP_11 {
            fields.append(Known::TransferEncoding, b"chunked");
            Sending::Chunked
        } else {
            Sending::UntilClose
        };
        // A body that was not taken stands between this request and the next.
        self.keep &= self.ended && self.sending != Sending::UntilClose;
        if !self.keep {
            fields.insert(Known::Connection, b"close");
        }
    }

    fn send_piece(&mut self, cx: &mut Context<'_>, piece: Piece) -> Result<(), ClientError> {
        match piece {
            Piece::Data(bytes) => self.send_bytes(cx, &bytes),
            Piece::Last(bytes) => {
                self.send_bytes(cx, &bytes)?;
                self.send_end(None)
            }
            Piece::End(trailers) => self.send_end(trailers.as_deref()),
        }
    }

    fn send_bytes(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), ClientError> {
        if bytes.is_empty() {
            return Ok(());
        }
        match &mut self.sending {
            Sending::Nothing => return Ok(()),
            Sending::HeadFirst | Sending::Ended => return Err(ClientError::Unsendable),
            Sending::UntilClose => {}
            Sending::Length(owed) => match owed.checked_sub(bytes.len() as u64) {
                Some(left) => *owed = left,
                None => return Err(ClientError::Unsendable),
            },
            Sending::Chunked => {
                return send_chunk(&self.wire, cx, bytes).map_err(|_| ClientError::Gone);
            }
        }
        self.wire.write(cx, bytes).map_err(|_| ClientError::Gone)
    }

    fn send_end(&mut self, trailers: Option<&Fields>) -> Result<(), ClientError> {
        match std::mem::replace(&mut self.sending, Sending::Ended) {
            Sending::Length(owed) if owed > 0 => Err(ClientError::Unsendable),
            Sending::HeadFirst => Err(ClientError::Unsendable),
            Sending::Chunked => {
                // Who did not say that it keeps trailers apart gets none (RFC 9110 §6.5.1).
                let trailers = trailers.filter(|_| self.takes_trailers);
                self.wire.compose(|out| end_chunks(out, trailers));
                Ok(())
            }
            Sending::Length(_) | Sending::Nothing | Sending::UntilClose | Sending::Ended => Ok(()),
        }
    }

    /// What becomes of the connection. If it goes on, what was read of the next request goes in
    /// front of `later`.
    pub(crate) fn finish(self, later: &mut BytesMut) -> After {
        if self.broken {
            return After::Drop;
        }
        let whole = matches!(self.sending, Sending::Ended | Sending::Nothing);
        if !(self.keep && self.ended && whole) {
            return After::Close;
        }
        if let Reader::Lean { arrived, .. } = self.reader {
            *later = arrived;
        }
        After::Next
    }

    /// For a tunnel: what was read ahead goes in front of what the wire gives next.
    pub(crate) fn tunnel_wire(&mut self) -> &Wire {
        if let Reader::Lean { arrived, .. } = &mut self.reader
            && !arrived.is_empty()
        {
            self.wire.unread(std::mem::take(arrived));
        }
        &self.wire
    }
}

fn poll_lean(
    wire: &Wire,
    cx: &mut Context<'_>,
    arrived: &mut BytesMut,
    body: &mut LeanBody,
) -> Poll<Result<Piece, ClientError>> {
    loop {
        match body {
            LeanBody::Length(0) => return Poll::Ready(Ok(Piece::End(None))),
            LeanBody::Length(left) if !arrived.is_empty() => {
                let taken = usize::try_from(*left).map_or(arrived.len(), |n| n.min(arrived.len()));
                *left -= taken as u64;
                let bytes = arrived.split_to(taken).freeze();
                return Poll::Ready(Ok(match left {
                    0 => Piece::Last(bytes),
                    _ => Piece::Data(bytes),
                }));
            }
            LeanBody::Length(_) => {}
            LeanBody::Chunked(decoder) => match decoder.decode(arrived) {
                Ok(Some(Decoded::Data(bytes))) => return Poll::Ready(Ok(Piece::Data(bytes))),
                Ok(Some(Decoded::End(trailers))) => {
                    return Poll::Ready(Ok(Piece::End(trailers)));
                }
                Ok(None) => {}
                Err(bad) => {
                    tracing::debug!("a request's body is not lawful: {}", bad.0);
                    return Poll::Ready(Err(ClientError::Malformed));
                }
            },
        }
        match ready!(wire.poll_fill(cx, arrived, BODY_READ_MAX)) {
            Ok(0) | Err(_) => return Poll::Ready(Err(ClientError::Gone)),
            Ok(_) => {}
        }
    }
}

fn poll_session(
    session: &mut HttpSession,
    cx: &mut Context<'_>,
) -> Poll<Result<Piece, ClientError>> {
    let read = {
        let reading = pin!(session.read_body_bytes());
        ready!(reading.poll(cx))
    };
    let read = read.map_err(|error| match error.etype() {
        ErrorType::ConnectionClosed | ErrorType::ReadError => ClientError::Gone,
        _ => ClientError::Malformed,
    });
    Poll::Ready(read.map(|bytes| match bytes {
        Some(bytes) if session.is_body_done() => Piece::Last(bytes),
        Some(bytes) => Piece::Data(bytes),
        None => Piece::End(None),
    }))
}

/// One chunk (RFC 9112 §7.1). `bytes` is not empty: that would be the last one.
pub(crate) fn send_chunk(wire: &Wire, cx: &mut Context<'_>, bytes: &[u8]) -> std::io::Result<()> {
    let mut size = [0; 18];
    let room = size.len();
    let mut rest = &mut size[..];
    // 16 hex digits and CRLF fit.
    let _ = write!(rest, "{:x}\r\n", bytes.len());
    let written = room - rest.len();
    wire.queue(&size[..written]);
    let result = wire.write(cx, bytes);
    wire.queue(b"\r\n");
    result
}

/// The last chunk, with trailers.
pub(crate) fn end_chunks(out: &mut BytesMut, trailers: Option<&Fields>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.write_to(out);
    }
    out.extend_from_slice(b"\r\n");
}

/// The answer to what could not even be read as a request; the connection ends behind it.
pub(crate) fn compose_refusal(refusal: &Refusal) -> BytesMut {
    let (mut head, body) = refusal.answer(false);
    head.fields
        .append(Known::Date, get_cached_date().as_bytes());
    head.fields.append(Known::Connection, b"close");
    let mut out = BytesMut::new();
    head.write_to(&mut out);
    out.extend_from_slice(&body);
    out
}

/// The one length that the head gives, if it gives one.
pub(crate) fn content_length(fields: &Fields) -> Option<u64> {
    let value = fields.get(Known::ContentLength)?;
    // Pingora lets equal ones in a list pass.
    let first = value.split(|byte| *byte == b',').next()?;
    length(first.trim_ascii()).ok()
}

/// The lane of HTTP/2: one stream.
pub(crate) struct H2Client {
    body: h2::RecvStream,
    /// Bytes that the head promises and that have not come, if it promises any number.
    owed: Option<u64>,
    /// See [`H2Client::hold_back`].
    held: Option<Piece>,
    /// Arrived, and not yet asked for; its window is not given back.
    gathered: BytesMut,
    respond: h2::server::SendResponse<Bytes>,
    send: Option<h2::SendStream<Bytes>>,
    ended: bool,
    /// The stream is to become a WebSocket (RFC 8441).
    tunnel: bool,
}

impl H2Client {
    /// `length`: what the head says of the body's.
    pub(crate) fn new(
        body: h2::RecvStream,
        length: Option<u64>,
        respond: h2::server::SendResponse<Bytes>,
        tunnel: bool,
    ) -> Self {
        Self {
            tunnel,
            ended: body.is_end_stream(),
            body,
            owed: length,
            held: None,
            gathered: BytesMut::new(),
            respond,
            send: None,
        }
    }

    /// Its head says that no body comes, and its stream goes on: whether that is true, only the
    /// stream's end can tell.
    pub(crate) fn is_to_prove_empty(&self) -> bool {
        !self.ended && self.owed == Some(0)
    }

    /// Waits for that. An error: something came after all, or the client left.
    pub(crate) async fn prove_empty(&mut self) -> Result<(), ClientError> {
        while !self.ended {
            poll_fn(|cx| self.poll_piece(cx)).await?;
        }
        Ok(())
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, ClientError>> {
        if let Some(Piece::End(_)) = self.held {
            self.ended = true;
            return Poll::Ready(Ok(self.held.take().unwrap_or(Piece::End(None))));
        }
        loop {
            let piece = if self.gathered.is_empty() {
                ready!(poll_stream(&mut self.body, cx))
            } else {
                self.take_gathered()
            };
            let piece = match piece {
                Ok(piece) => self.hold_back(piece),
                Err(error) => {
                    self.ended = true;
                    return Poll::Ready(Err(unreadable(&error)));
                }
            };
            let Some(piece) = piece else { continue };
            if !matches!(piece, Piece::Data(_)) {
                self.ended = true;
            }
            return Poll::Ready(Ok(piece));
        }
    }

    /// A body longer than its head says is malformed (RFC 9113 §8.1.1), and an endpoint that has
    /// all of the promised bytes takes the request for whole. So the last of them wait until the
    /// stream has ended.
    fn hold_back(&mut self, piece: Piece) -> Option<Piece> {
        let Some(owed) = &mut self.owed else {
            return Some(piece);
        };
        let (bytes, end) = match piece {
            Piece::Data(bytes) => {
                *owed = owed.saturating_sub(bytes.len() as u64);
                if *owed > 0 {
                    return Some(Piece::Data(bytes));
                }
                // What comes behind the last promised byte is empty: h2 has counted.
                if !bytes.is_empty() {
                    self.held = Some(Piece::Data(bytes));
                }
                return None;
            }
            Piece::Last(bytes) => (bytes, None),
            Piece::End(trailers) => (Bytes::new(), trailers),
        };
        let Some(Piece::Data(held)) = self.held.take() else {
            return Some(match end {
                None => Piece::Last(bytes),
                trailers => Piece::End(trailers),
            });
        };
        Some(match end {
            None => Piece::Last(held),
            trailers => {
                self.held = Some(Piece::End(trailers));
                Piece::Data(held)
            }
        })
    }

    fn take_gathered(&mut self) -> Result<Piece, h2::Error> {
        let bytes = std::mem::take(&mut self.gathered).freeze();
        let released = self.body.flow_control().release_capacity(bytes.len());
        let last = self.body.is_end_stream();
        released.map(|()| {
            if last {
                Piece::Last(bytes)
            } else {
                Piece::Data(bytes)
            }
        })
    }

    fn send_head(&mut self, mut head: AnswerHead, end: bool) -> Result<(), ClientError> {
        if self.tunnel && head.status == StatusCode::SWITCHING_PROTOCOLS {
            head.status = StatusCode::OK; // RFC 8441 §5
            head.fields.remove_all(websocket::OF_HTTP_1);
        }
        let informational = head.status.is_informational();
        if !informational && !head.fields.contains(Known::Date) {
            head.fields
                .append(Known::Date, get_cached_date().as_bytes());
        }
        head.fields.remove_all(CONNECTION_SPECIFIC);
        let response = head.into_response();
        let gone = |_| ClientError::Gone;
        if informational {
            return self.respond.send_informational(response).map_err(gone);
        }
        let send = self.respond.send_response(response, end).map_err(gone)?;
        self.send = (!end).then_some(send);
        Ok(())
    }

    fn send_piece(&mut self, piece: Piece) -> Result<(), ClientError> {
        let Some(send) = &mut self.send else {
            return Ok(()); // the head ended the stream
        };
        send_on_stream(send, piece).map_err(|_| ClientError::Gone)
    }
}

fn unreadable(error: &h2::Error) -> ClientError {
    if error.is_reset() && error.reason() == Some(h2::Reason::PROTOCOL_ERROR) {
        ClientError::Malformed
    } else {
        ClientError::Gone
    }
}

/// RFC 9113 §8.2.2.
pub(crate) const CONNECTION_SPECIFIC: KnownSet = KnownSet::new(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
]);

/// Bytes of window asked for before a piece is sent; HTTP/2's default frame.
const WINDOW_ASKED: usize = 16 * 1024;

/// Ready when the stream has room for at least one byte: what does not fit waits in h2, one piece
/// at most.
pub(crate) fn poll_capacity(
    send: &mut h2::SendStream<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>> {
    send.reserve_capacity(WINDOW_ASKED);
    loop {
        if send.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Err(h2::Reason::STREAM_CLOSED.into())),
        }
    }
}

/// Gives back what window the stream has. One that has none goes on waiting for some.
pub(crate) fn give_back(send: &mut h2::SendStream<Bytes>) {
    if send.capacity() > 0 {
        send.reserve_capacity(0);
    }
}

pub(crate) fn send_on_stream(
    send: &mut h2::SendStream<Bytes>,
    piece: Piece,
) -> Result<(), h2::Error> {
    match piece {
        Piece::Data(bytes) if bytes.is_empty() => Ok(()),
        Piece::Data(bytes) => send.send_data(bytes, false),
        Piece::Last(bytes) => send.send_data(bytes, true),
        Piece::End(None) => send.send_data(Bytes::new(), true),
        Piece::End(Some(trailers)) => send.send_trailers(trailers.into_map()),
    }
}

/// Frames of a body that are smaller than this are put together, as far as they have arrived: h2
/// keeps some hundred bytes with each, and a window of 64 KiB lets 65,536 of them in.
const SMALL_FRAME: usize = 1024;
/// Bytes put together at most: a stream's window lets no more arrive.
const MERGED_MAX: usize = 64 * 1024;

/// Adds what has arrived. An error or the end is left for the next read, which finds it again.
fn merge(body: &mut h2::RecvStream, cx: &mut Context<'_>, merged: &mut BytesMut) {
    while merged.len() < MERGED_MAX
        && let Poll::Ready(Some(Ok(bytes))) = body.poll_data(cx)
    {
        merged.extend_from_slice(&bytes);
    }
}

/// The next piece of a body that arrives on a stream. Its window is given back at once: the piece
/// is asked for only when it can be sent on.
pub(crate) fn poll_stream(
    body: &mut h2::RecvStream,
    cx: &mut Context<'_>,
) -> Poll<Result<Piece, h2::Error>> {
    match ready!(body.poll_data(cx)) {
        Some(Ok(bytes)) => {
            let bytes = if bytes.len() < SMALL_FRAME {
                let mut merged = BytesMut::from(bytes);
                merge(body, cx, &mut merged);
                merged.freeze()
            } else {
                bytes
            };
            let released = body.flow_control().release_capacity(bytes.len());
            let last = body.is_end_stream();
            Poll::Ready(released.map(|()| {
                if last {
                    Piece::Last(bytes)
                } else {
                    Piece::Data(bytes)
                }
            }))
        }
        Some(Err(error)) => Poll::Ready(Err(error)),
        None => body
            .poll_trailers(cx)
            .map_ok(|trailers| Piece::End(trailers.map(trailer_fields))),
    }
}

/// Without what is no field: h2 leaves pseudo-headers out of trailers as quietly.
fn trailer_fields(mut map: HeaderMap) -> Box<Fields> {
    if !map.keys().all(is_name) {
        map = map
            .iter()
            .filter(|(name, _)| is_name(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
    }
    Box::new(Fields::from_map(&map))
}
