//! BORDER. The client's side of an exchange, an enum of lanes: HTTP/1 read by Pingora's session,
//! HTTP/2 by `h2`. Everything is polled from the exchange's one task.
//!
//! Heads come out and go in as [`http`] parts, bodies as [`Piece`]s. At most one piece is in flight
//! each way: ask [`Client::poll_ready`] before each one. Chooses nothing, times nothing.

use std::io::Write as _;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, request, response};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::http::v1::server::HttpSession;
use pingora_error::ErrorType;
use pingora_http::RequestHeader;

use super::head::{Framing, Head};
use super::refuse::Refusal;
use crate::io::{Gone, Mode, Wire};

/// A part of a body, in either direction.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    /// The last bytes; no trailers follow.
    Last(Bytes),
    End(Option<HeaderMap>),
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
/// Bytes of a request's body that are read at once: what a client that stops half-way leaves in
/// our buffer. One TLS record.
const BODY_READ_MAX: usize = 16 * 1024;

pub(crate) enum Client {
    H1(Box<H1Client>),
    H2(Box<H2Client>),
}

impl Client {
    /// Whether the whole request body was taken.
    pub(crate) fn body_done(&self) -> bool {
        match self {
            Self::H1(h1) => h1.ended,
            Self::H2(h2) => h2.ended,
        }
    }

    /// The next piece of the request body. Not to be called after its end.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, ClientError>> {
        match self {
            Self::H1(h1) => h1.poll_piece(cx),
            Self::H2(h2) => h2.poll_piece(cx),
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
        }
    }

    /// Bytes that the client takes now, as far as is known, at least [`PIECE_MIN`].
    pub(crate) fn room(&self) -> usize {
        let room = match self {
            Self::H1(h1) => h1.wire.room(),
            Self::H2(h2) => h2.send.as_ref().map_or(0, h2::SendStream::capacity),
        };
        room.max(PIECE_MIN)
    }

    /// Ready when everything sent is out of our hands (HTTP/1) or queued (HTTP/2).
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        match self {
            Self::H1(h1) => h1.wire.poll_flush(cx).map_err(|_| ClientError::Gone),
            Self::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Sends the answer's head; `end`: no body follows. Statuses 100–199 may come before.
    pub(crate) fn send_head(
        &mut self,
        head: response::Parts,
        end: bool,
    ) -> Result<(), ClientError> {
        match self {
            Self::H1(h1) => {
                h1.send_head(head, end);
                Ok(())
            }
            Self::H2(h2) => h2.send_head(head, end),
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
        }
    }

    /// HTTP/1: `Connection: close` on the answer, and no further request.
    pub(crate) fn close_after(&mut self) {
        if let Self::H1(h1) = self {
            h1.keep = false;
        }
    }

    /// Can this side become a tunnel (RFC 9110 §7.8)?
    pub(crate) fn may_upgrade(&self) -> bool {
        matches!(self, Self::H1(h1) if h1.framing == Framing::None && h1.version == Version::HTTP_11)
    }
}

/// The lane of HTTP/1: Pingora reads the head and the body, we write the answer.
pub(crate) struct H1Client {
    session: HttpSession,
    wire: Wire,
    version: Version,
    framing: Framing,
    is_head: bool,
    ended: bool,
    /// The connection may serve another request.
    keep: bool,
    broken: bool,
    sending: Sending,
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
    /// `arrived` begins with the head that `head` describes; what belongs to later requests is left
    /// in it, except behind a chunked body, where only [`H1Client::finish`] can tell.
    ///
    /// # Errors
    /// The head is not lawful after all.
    pub(crate) async fn read(
        wire: &Wire,
        arrived: &mut BytesMut,
        head: Head,
    ) -> Result<(Self, request::Parts), Refusal> {
        let body = arrived.len() - head.length;
        let of_body = match head.framing {
            Framing::None => 0,
            Framing::Length(length) => usize::try_from(length).map_or(body, |n| n.min(body)),
            Framing::Chunked => body,
        };
        let later = arrived.split_off(head.length + of_body);
        let ours = std::mem::replace(arrived, later);

        wire.read_at_most(BODY_READ_MAX);
        let mut session = HttpSession::new(Box::new(wire.conn(Mode::Behind)));
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
        let client = Self {
            session,
            wire: wire.clone(),
            version: parts.version,
            framing: head.framing,
            is_head: parts.method == Method::HEAD,
            ended,
            keep: parts.version == Version::HTTP_11 && !names_close(&parts.headers),
            broken: false,
            sending: Sending::HeadFirst,
        };
        Ok((client, parts))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, ClientError>> {
        let read = {
            let reading = pin!(self.session.read_body_bytes());
            ready!(reading.poll(cx))
        };
        let bytes = read.map_err(|error| match error.etype() {
            ErrorType::ConnectionClosed | ErrorType::ReadError => ClientError::Gone,
            _ => ClientError::Malformed,
        });
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                self.keep = false;
                return Poll::Ready(Err(error));
            }
        };
        self.ended = bytes.is_none() || self.session.is_body_done();
        Poll::Ready(Ok(match bytes {
            Some(bytes) if self.ended => Piece::Last(bytes),
            Some(bytes) => Piece::Data(bytes),
            None => Piece::End(None),
        }))
    }

    fn send_head(&mut self, mut head: response::Parts, end: bool) {
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            // HTTP/1.0 has no informational answers (RFC 9110 §15.2).
            if self.version == Version::HTTP_11 {
                self.write_head(&head);
            }
            return;
        }
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            self.frame(&mut head, end);
        }
        if !head.headers.contains_key(DATE) {
            head.headers.insert(DATE, get_cached_date());
        }
        self.write_head(&head);
    }

    fn frame(&mut self, head: &mut response::Parts, end: bool) {
        let bodiless = matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        head.headers.remove(TRANSFER_ENCODING);
        if head.status == StatusCode::NO_CONTENT {
            head.headers.remove(CONTENT_LENGTH);
        }
        let length = content_length(&head.headers);
        self.sending = if self.is_head || bodiless {
            Sending::Nothing
        } else if let Some(length) = length {
            Sending::Length(length)
        } else if end {
            let nothing = HeaderValue::from_static("0");
            head.headers.insert(CONTENT_LENGTH, nothing);
            Sending::Length(0)
        } else if self.version == Version::HTTP_11 {
            let chunked = HeaderValue::from_static("chunked");
            head.headers.insert(TRANSFER_ENCODING, chunked);
            Sending::Chunked
        } else {
            Sending::UntilClose
        };
        // A body that was not taken stands between this request and the next.
        self.keep &= self.ended && self.sending != Sending::UntilClose;
        if !self.keep {
            let close = HeaderValue::from_static("close");
            head.headers.insert(CONNECTION, close);
        }
    }

    fn write_head(&self, head: &response::Parts) {
        self.wire.queue(&compose_head(head));
    }

    fn send_piece(&mut self, cx: &mut Context<'_>, piece: Piece) -> Result<(), ClientError> {
        match piece {
            Piece::Data(bytes) => self.send_bytes(cx, &bytes),
            Piece::Last(bytes) => {
                self.send_bytes(cx, &bytes)?;
                self.send_end()
            }
            // Trailers are not carried over HTTP/1: a recipient may drop them (RFC 9110 §6.5.1).
            Piece::End(_) => self.send_end(),
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
            Sending::Chunked => return self.send_chunk(cx, bytes),
        }
        self.wire.write(cx, bytes).map_err(|_| ClientError::Gone)
    }

    fn send_chunk(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), ClientError> {
        let mut size = [0; 18];
        let room = size.len();
        let mut rest = &mut size[..];
        // 16 hex digits and CRLF fit.
        let _ = write!(rest, "{:x}\r\n", bytes.len());
        let written = room - rest.len();
        self.wire.queue(&size[..written]);
        let result = self.wire.write(cx, bytes);
        self.wire.queue(b"\r\n");
        result.map_err(|_| ClientError::Gone)
    }

    fn send_end(&mut self) -> Result<(), ClientError> {
        match std::mem::replace(&mut self.sending, Sending::Ended) {
            Sending::Length(owed) if owed > 0 => Err(ClientError::Unsendable),
            Sending::HeadFirst => Err(ClientError::Unsendable),
            Sending::Chunked => {
                self.wire.queue(b"0\r\n\r\n");
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
        if self.framing == Framing::Chunked {
            let reusable = self.session.reuse().now_or_never();
            let Some(Ok(Some(reusable))) = reusable else {
                return After::Close;
            };
            if let (_, Some(mut read)) = reusable.into_parts() {
                read.unsplit(std::mem::take(later));
                *later = read;
            }
        }
        After::Next
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }
}

fn compose_head(head: &response::Parts) -> BytesMut {
    let mut out = BytesMut::with_capacity(512);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    let phrase = head.status.canonical_reason().unwrap_or_default();
    out.extend_from_slice(phrase.as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in &head.headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The answer to what could not even be read as a request; the connection ends behind it.
pub(crate) fn compose_refusal(refusal: &Refusal) -> BytesMut {
    let (mut head, body) = refusal.answer(false);
    head.headers.insert(DATE, get_cached_date());
    let close = HeaderValue::from_static("close");
    head.headers.insert(CONNECTION, close);
    let mut out = compose_head(&head);
    out.extend_from_slice(&body);
    out
}

/// Whether `Connection` says `close` (RFC 9112 §9.6).
fn names_close(headers: &HeaderMap) -> bool {
    let options = headers.get_all(CONNECTION).iter();
    options
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// The one length that the head gives, if it gives one.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    // Pingora and h2 let equal ones in a list pass.
    value.split(',').next()?.trim().parse().ok()
}

/// The lane of HTTP/2: one stream.
pub(crate) struct H2Client {
    body: h2::RecvStream,
    /// Arrived, and not yet asked for; its window is not given back.
    gathered: BytesMut,
    respond: h2::server::SendResponse<Bytes>,
    send: Option<h2::SendStream<Bytes>>,
    ended: bool,
}

impl H2Client {
    pub(crate) fn new(body: h2::RecvStream, respond: h2::server::SendResponse<Bytes>) -> Self {
        Self {
            ended: body.is_end_stream(),
            body,
            gathered: BytesMut::new(),
            respond,
            send: None,
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, ClientError>> {
        let piece = if self.gathered.is_empty() {
            ready!(poll_stream(&mut self.body, cx))
        } else {
            self.take_gathered()
        };
        if !matches!(piece, Ok(Piece::Data(_))) {
            self.ended = true;
        }
        Poll::Ready(piece.map_err(|error| {
            if error.is_reset() && error.reason() == Some(h2::Reason::PROTOCOL_ERROR) {
                ClientError::Malformed
            } else {
                ClientError::Gone
            }
        }))
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

    fn send_head(&mut self, mut head: response::Parts, end: bool) -> Result<(), ClientError> {
        head.version = Version::HTTP_2;
        let informational = head.status.is_informational();
        if !informational && !head.headers.contains_key(DATE) {
            head.headers.insert(DATE, get_cached_date());
        }
        for name in CONNECTION_SPECIFIC {
            head.headers.remove(name);
        }
        let response = Response::from_parts(head, ());
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

/// RFC 9113 §8.2.2.
pub(crate) const CONNECTION_SPECIFIC: [&str; 5] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

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

pub(crate) fn send_on_stream(
    send: &mut h2::SendStream<Bytes>,
    piece: Piece,
) -> Result<(), h2::Error> {
    match piece {
        Piece::Data(bytes) if bytes.is_empty() => Ok(()),
        Piece::Data(bytes) => send.send_data(bytes, false),
        Piece::Last(bytes) => send.send_data(bytes, true),
        Piece::End(None) => send.send_data(Bytes::new(), true),
        Piece::End(Some(trailers)) => send.send_trailers(trailers),
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
        None => body.poll_trailers(cx).map_ok(Piece::End),
    }
}
