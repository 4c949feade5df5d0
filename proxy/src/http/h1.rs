//! One client's HTTP/1 connection: request after request, until either side ends it.
//!
//! Between requests it holds no session and no buffer. Reads heads within their limits and their
//! time.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::Version;
use tokio::sync::watch;
use tokio::time::timeout;

use self::held::{Held, HeldHeads};
use super::client::{After, Client, H1Client, compose_refusal};
use super::context::Inbound;
use super::message::RequestHead;
use super::refuse::Refusal;
use super::{admit, exchange};
use crate::alarm::Alarm;
use crate::clock;
use crate::config::Limits;
use crate::h1::head::{self, Form, HeadLimits, Scanner};
use crate::io::Wire;
use crate::metrics;
use crate::random;
use crate::shared::Phase;
use crate::signal::Listening;

pub(crate) mod held;

/// Room for one read of a head.
const HEAD_READ: usize = 4 * 1024;
/// Empty lines passed over before a request line (RFC 9112 §2.2).
const EMPTY_LINES_MAX: usize = 2;
/// What a client may still send after our last answer, and for how long it is read: closing at
/// once would make its kernel throw that answer away.
const LINGER_BYTES: usize = 16 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);
/// How long a new connection may take to its first byte while draining.
const LATE_FIRST_REQUEST: Duration = Duration::from_secs(1);
/// How long an idle client may take to its next request once a successor serves. Its answer tells
/// that the connection ends, which cannot cross with another request as our closing could.
const IDLE_AFTER_HANDOVER: Duration = Duration::from_secs(3);
/// So much longer at most, so that idle clients don't all come back in the same moment.
const IDLE_SPREAD_MAX: Duration = Duration::from_secs(3);
/// The first bytes of an HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How an HTTP/1 connection's time as one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    Over,
    /// It speaks HTTP/2 by prior knowledge; nothing of it was consumed.
    IsHttp2,
}

/// Serves the connection to its end. `may_be_http2`: the preface is looked for.
pub(crate) async fn serve(wire: &Wire, inbound: &Inbound, may_be_http2: bool) -> Served {
    let draining = inbound.worker.draining.listen();
    let mut alarm = Alarm::default();
    let mut arrived = BytesMut::new();
    let mut first = true;
    let end = loop {
        let limits = inbound.worker.shared.rules.load().config.limits.clone();
        let reading = Reading {
            wire,
            limits: &limits,
            draining: &draining,
            phase: &inbound.worker.shared.phase,
            held: &inbound.worker.held_heads,
            first,
            may_be_http2: may_be_http2 && first,
        };
        first = false;
        // What was read moves into its exchange before anything is awaited: while a connection is idle, no
        // room is kept for it.
        let mut ended = End::Closed;
        let after = {
            let exchange = match reading.head(&mut arrived, &mut alarm).await {
                Read::Head(read) => {
                    let exchange = one_request(wire, inbound, &mut arrived, read, &mut alarm);
                    Some(Box::pin(exchange))
                }
                Read::Ended(why) => {
                    ended = why;
                    None
                }
            };
            match exchange {
                Some(exchange) => exchange.await,
                None => break ended,
            }
        };
        match after {
            After::Next => {}
            After::Close => {
                Box::pin(linger(wire)).await;
                return Served::Over;
            }
            After::Drop => return Served::Over,
        }
        if arrived.is_empty() {
            arrived = BytesMut::new(); // the room for the last head goes with it
        }
    };
    Box::pin(conclude(wire, arrived, end)).await
}

/// Why there is no further request.
enum End {
    Refused(Refusal),
    Http2,
    /// The client left, idled too long, or we drain.
    Closed,
}

async fn conclude(wire: &Wire, arrived: BytesMut, end: End) -> Served {
    match end {
        End::Refused(refusal) => {
            drop(arrived); // lingering takes a while
            refuse(wire, &refusal).await;
            Served::Over
        }
        End::Http2 => {
            wire.unread(arrived);
            Served::IsHttp2
        }
        End::Closed => {
            // Nothing is owed: if saying goodbye fails, it is gone already.
            let _ = timeout(LINGER_TIME, wire.shutdown()).await;
            Served::Over
        }
    }
}

fn spread() -> Duration {
    let part = random::number() % IDLE_SPREAD_MAX.as_millis() as u64;
    Duration::from_millis(part)
}

async fn one_request(
    wire: &Wire,
    inbound: &Inbound,
    arrived: &mut BytesMut,
    read: head::Request,
    alarm: &mut Alarm,
) -> After {
    let began = match begin(wire, arrived, read).await {
        Ok(began) => began,
        Err(refusal) => {
            Box::pin(refuse(wire, &refusal)).await;
            return After::Drop;
        }
    };
    let Began {
        mut client,
        head,
        admitted,
    } = began;
    if inbound.worker.draining.is_raised() {
        client.close_after();
    }
    exchange::run(&mut client, head, admitted, inbound, alarm).await;
    match client {
        Client::H1(h1) => h1.finish(arrived),
        Client::H2(_) | Client::Shared(_) => After::Drop,
    }
}

struct Began {
    client: Client,
    head: RequestHead,
    admitted: Result<(), Refusal>,
}

/// Chooses who reads the body: of HTTP/1.1 requests in origin form the strict codec, of older and rarer
/// ones Pingora's (but for chunks). `arrived`: what stands behind the head.
async fn begin(wire: &Wire, arrived: &mut BytesMut, read: head::Request) -> Result<Began, Refusal> {
    let (framing, is_newest) = (read.framing, read.head.version == Version::HTTP_11);
    if read.form == Form::Origin && is_newest {
        let admitted = admit::check(&read.head);
        let h1 = H1Client::lean(wire, &read.head, framing, std::mem::take(arrived));
        return Ok(Began {
            client: Client::H1(Box::new(h1)),
            head: read.head,
            admitted,
        });
    }
    let text = read.head.fields.text();
    let (h1, parts) = Box::pin(H1Client::pingora(wire, text, framing, arrived)).await?;
    let (head, admitted) = admit::admit(parts);
    Ok(Began {
        client: Client::H1(Box::new(h1)),
        head,
        admitted,
    })
}

/// Sends what can be said to something that was no request, and ends the connection.
async fn refuse(wire: &Wire, refusal: &Refusal) {
    metrics::refused(refusal.as_str());
    tracing::debug!("refused: {refusal:?}");
    wire.queue(&compose_refusal(refusal));
    linger(wire).await;
}

async fn linger(wire: &Wire) {
    let lingering = async {
        wire.shutdown().await?;
        let mut discarded = 0;
        let mut buffer = BytesMut::new();
        while discarded < LINGER_BYTES {
            buffer.clear();
            match poll_fn(|cx| wire.poll_fill(cx, &mut buffer, HEAD_READ)).await? {
                0 => break,
                read => discarded += read,
            }
        }
        std::io::Result::Ok(())
    };
    // Whatever comes of it, the connection is over.
    let _ = timeout(LINGER_TIME, lingering).await;
}

enum Read {
    Head(head::Request),
    Ended(End),
}

struct Reading<'a> {
    wire: &'a Wire,
    limits: &'a Limits,
    draining: &'a Listening,
    phase: &'a watch::Sender<Phase>,
    held: &'a Rc<HeldHeads>,
    first: bool,
    may_be_http2: bool,
}

const fn refused(refusal: Refusal) -> Read {
    Read::Ended(End::Refused(refusal))
}

impl Reading<'_> {
    /// Reads until `arrived` begins with a whole head.
    async fn head(&self, arrived: &mut BytesMut, alarm: &mut Alarm) -> Read {
        if arrived.is_empty() && !self.first_byte(alarm).await {
            return Read::Ended(End::Closed);
        }
        if let Some(read) = self.at_once(arrived).await {
            return read;
        }
        let read = Box::pin(timeout(self.limits.head_timeout, self.rest(arrived)));
        match read.await {
            Ok(read) => read,
            Err(_) if arrived.is_empty() => Read::Ended(End::Closed),
            Err(_) => refused(Refusal::HeadTimedOut),
        }
    }

    /// Waits without a buffer. `false`: there will be none.
    async fn first_byte(&self, alarm: &mut Alarm) -> bool {
        let began = clock::now();
        let mut until = began + self.limits.keep_alive;
        let mut leaving = false;
        poll_fn(|cx| {
            self.wire.drive(cx);
            if let Poll::Ready(readable) = self.wire.poll_readable(cx) {
                return Poll::Ready(readable.is_ok());
            }
            if !leaving && self.draining.poll_raised(cx).is_ready() {
                let patience = match *self.phase.borrow() {
                    Phase::SteppingAside => IDLE_AFTER_HANDOVER + spread(),
                    _ if self.first => LATE_FIRST_REQUEST,
                    _ => return Poll::Ready(false),
                };
                leaving = true;
                until = until.min(clock::now() + patience);
            }
            alarm.poll_due(cx, until).map(|()| false)
        })
        .await
    }

    /// The usual case: the head is there, or arrives whole with one read. No timer is made for it.
    /// `None`: [`Reading::rest`] finds out.
    async fn at_once(&self, arrived: &mut BytesMut) -> Option<Read> {
        if arrived.is_empty() {
            let mut reading = |cx: &mut Context<'_>| self.wire.poll_fill(cx, arrived, HEAD_READ);
            match poll_fn(|cx| Poll::Ready(reading(cx))).await {
                Poll::Pending => return None,
                Poll::Ready(Ok(0) | Err(_)) => return Some(Read::Ended(End::Closed)),
                Poll::Ready(Ok(_)) => {}
            }
        }
        // Empty lines, or perhaps HTTP/2.
        let first = arrived.first();
        if first == Some(&b'\r') || (self.may_be_http2 && first == Some(&b'P')) {
            return None;
        }
        match head::plain_request(arrived, self.head_limits()) {
            Ok(Some(read)) => Some(Read::Head(read)),
            Ok(None) => None,
            Err(refusal) => Some(refused(refusal)),
        }
    }

    const fn head_limits(&self) -> HeadLimits {
        HeadLimits {
            bytes: self.limits.head_bytes,
            fields: self.limits.head_fields,
        }
    }

    async fn rest(&self, arrived: &mut BytesMut) -> Read {
        let limits = self.head_limits();
        let mut scanner = Scanner::default();
        let mut held = Held::new(Rc::clone(self.held));
        let mut empty_lines = 0;
        let mut started = false;
        loop {
            while !started && arrived.starts_with(b"\r\n") && empty_lines < EMPTY_LINES_MAX {
                bytes::Buf::advance(arrived, 2);
                empty_lines += 1;
            }
            let undecided = arrived.is_empty() || &arrived[..] == b"\r";
            // It stands at the very start, or it is none (RFC 9113 §3.4).
            let may_be_http2 = self.may_be_http2 && empty_lines == 0;
            if may_be_http2 && arrived.starts_with(PREFACE) {
                return Read::Ended(End::Http2);
            }
            let perhaps_http2 = may_be_http2 && PREFACE.starts_with(arrived);
            if !undecided && !perhaps_http2 {
                started = true;
                match scanner.scan(arrived, limits) {
                    Ok(Some(length)) => {
                        let read = head::request(head::take(arrived, length));
                        return read.map_or_else(refused, Read::Head);
                    }
                    Ok(None) => {}
                    Err(refusal) => return refused(refusal),
                }
            }
            held.set(arrived.capacity());
            let reading = held.unless_refused(|cx| self.wire.poll_fill(cx, arrived, HEAD_READ));
            match reading.await {
                None => return refused(Refusal::HeadsFull),
                Some(Ok(0) | Err(_)) => return Read::Ended(End::Closed),
                Some(Ok(_)) => {}
            }
        }
    }
}
