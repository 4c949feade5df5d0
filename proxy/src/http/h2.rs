//! One client's HTTP/2 connection: accepts its streams and runs an exchange for each, all in the
//! connection's own task, so that one write carries what all of them have to send.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::header::CONTENT_LENGTH;
use http::{Request, request};
use tokio::time::{Instant, timeout};

use super::client::{Client, ClientError, H2Client};
use super::context::Inbound;
use super::fields::Known;
use super::flood::{Counted, Frames};
use super::refuse::Refusal;
use super::rules::websocket;
use super::{admit, exchange};
use crate::alarm::Alarm;
use crate::clock;
use crate::config::Limits;
use crate::io::{Mode, Wire, yield_turn};
use crate::metrics;
use crate::random;

/// What clients may send ahead: one stream, one connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of answers that one stream may hold inside h2 while the client's window is closed.
const STREAM_SEND_MAX: usize = 64 * 1024;
/// Streams that a client reset before we accepted them; more end the connection
/// (CVE-2023-44487).
const RESETS_PENDING_MAX: usize = 20;
/// Streams that we reset for a client's mistakes; more end the connection (CVE-2025-8671).
const ERROR_RESETS_MAX: usize = 256;
/// Bytes of heads whose exchanges one connection may have under way, counted as in RFC 9113
/// §6.5.2. A stream beyond it is refused as unprocessed, so that the client may send it again; one
/// alone is never refused.
const HEADS_MAX: usize = 512 * 1024;
/// Bytes that are read from one connection before others have their turn: without a bound, one that
/// sends SETTINGS without pause held its worker for 17 ms at a time.
const TURN: usize = 16 * 1024;
/// Bytes of heads, counted as above, that become exchanges before others have their turn: to pass a
/// head of 60 KB on takes as long as several requests.
const HEADS_IN_A_TURN: usize = 32 * 1024;
/// How long the exchanges of a broken connection may take to notice.
const LEAVE_TIME: Duration = Duration::from_secs(1);

type Streams<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = ()> + 'a>>>;

/// Serves the connection to its end.
pub(crate) async fn serve(wire: &Wire, inbound: &Inbound) {
    let limits = inbound.worker.shared.rules.load().config.limits.clone();
    let (conn, frames) = Counted::new(wire.conn(Mode::Coalesce), limits.control_frames);
    let shaking = h2::server::Builder::new()
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(STREAM_SEND_MAX)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .enable_connect_protocol()
        .handshake::<_, Bytes>(conn);
    let connection = match timeout(limits.head_timeout, shaking).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!("no HTTP/2 connection: {error}"),
        Err(_) => return tracing::debug!("no HTTP/2 connection: took too long"),
    };
    let mut streams = Streams::new();
    let mut driver = Driver {
        connection,
        wire,
        inbound,
        alarm: Alarm::default(),
        idle_until: clock::now() + limits.keep_alive,
        limits: &limits,
        said_goodbye: false,
        frames,
        cut_at: None,
        heads: Rc::default(),
        alarms: Rc::default(),
    };
    let listening = inbound.worker.draining.listen();
    loop {
        tokio::select! {
            biased;
            () = listening.raised(), if !driver.said_goodbye => driver.say_goodbye(),
            () = poll_fn(|cx| driver.poll(cx, &mut streams)) => break,
        }
    }
    let cut_at = driver.cut_at;
    drop(driver);
    let leaving = async { while streams.next().await.is_some() {} };
    // Those that do not notice in time are dropped, and settled by that.
    let _ = timeout(LEAVE_TIME, leaving).await;
    let _ = timeout(LEAVE_TIME, wire.shutdown()).await;
    if let Some(cut_at) = cut_at {
        // Nothing is read: a flooder that would come back at once first fills the kernel's buffers.
        tokio::time::sleep_until(cut_at).await;
    }
}

struct Driver<'a> {
    connection: Connection<Counted, Bytes>,
    wire: &'a Wire,
    inbound: &'a Inbound,
    alarm: Alarm,
    idle_until: Instant,
    limits: &'a Limits,
    said_goodbye: bool,
    frames: Rc<RefCell<Frames>>,
    /// The client floods us: by then it is gone, whether it reads why or not.
    cut_at: Option<Instant>,
    /// See [`HEADS_MAX`].
    heads: Rc<Cell<usize>>,
    /// Alarms of exchanges that are over, for those to come: making one costs more than moving it. At
    /// most as many as there were streams at once.
    alarms: Rc<RefCell<Vec<Alarm>>>,
}

impl<'a> Driver<'a> {
    /// GOAWAY: what began is finished, nothing more is accepted.
    fn say_goodbye(&mut self) {
        self.said_goodbye = true;
        self.connection.graceful_shutdown();
    }

    /// Ready when the connection is over. Exchanges go first: what they send leaves in one write.
    fn poll(&mut self, cx: &mut Context<'_>, streams: &mut Streams<'a>) -> Poll<()> {
        self.wire.begin_turn(TURN);
        let mut heads = 0;
        loop {
            let mut ended = false;
            while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {
                ended = true;
            }
            let accepted = self.connection.poll_accept(cx);
            match accepted {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    heads += self.begin(request, respond, streams);
                    if heads < HEADS_IN_A_TURN {
                        continue;
                    }
                    self.wire.push(cx);
                    return yield_turn(cx);
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!("HTTP/2 connection broke: {error}");
                    self.wire.push(cx); // a GOAWAY may say why
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if self.stop_flood() {
                continue; // the GOAWAY is to be written
            }
            self.wire.push(cx);
            if let Some(cut_at) = self.cut_at {
                return self.alarm.poll_due(cx, cut_at);
            }
            if !streams.is_empty() {
                return Poll::Pending;
            }
            if ended {
                self.idle_until = clock::now() + self.limits.keep_alive;
            }
            if self.alarm.poll_due(cx, self.idle_until).is_pending() {
                return Poll::Pending;
            }
            if self.said_goodbye {
                return Poll::Ready(());
            }
            self.say_goodbye();
            self.idle_until = clock::now() + LEAVE_TIME;
        }
    }

    /// `true`: a flood was noticed just now.
    fn stop_flood(&mut self) -> bool {
        if self.cut_at.is_some() {
            return false;
        }
        let Some(flood) = self.frames.borrow().flood() else {
            return false;
        };
        metrics::flooded(flood.as_str());
        tracing::debug!("HTTP/2 connection ended: a flood of {}", flood.as_str());
        self.connection
            .abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
        self.cut_at = Some(clock::now() + LEAVE_TIME);
        true
    }

    /// Bytes of the head.
    fn begin(
        &self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        streams: &Streams<'a>,
    ) -> usize {
        let (head, body) = request.into_parts();
        let size = size(&head);
        if head.headers.len() > self.limits.head_fields {
            let refusal = Refusal::HeadTooLarge;
            metrics::refused(refusal.as_str());
            let (mut answer, _) = refusal.answer(false);
            answer.fields.remove(Known::ContentLength); // and no body
            let answer = answer.into_response();
            // If it cannot be sent, the stream is gone.
            let _ = respond.send_response(answer, true);
            return size;
        }
        let Some(held) = HeldHead::take(&self.heads, size) else {
            metrics::refused(Refusal::HeadTooLarge.as_str());
            respond.send_reset(h2::Reason::REFUSED_STREAM);
            return size;
        };
        self.frames.borrow_mut().accept();
        let inbound = self.inbound;
        let limit = self.limits.head_timeout;
        let alarms = Rc::clone(&self.alarms);
        streams.push(Box::pin(async move {
            let _held = held;
            let tunnel = admit::is_websocket(&head);
            let length = promised_length(&head);
            let mut client = Box::new(H2Client::new(body, length, respond, tunnel));
            if client.is_to_prove_empty() && !proves_empty(&mut client, limit).await {
                return;
            }
            let mut client = Client::H2(client);
            let (mut head, admitted) = admit::admit(head);
            if tunnel {
                websocket::ask(&mut head.fields, random::wide_number());
            }
            let mut alarm = alarms.borrow_mut().pop().unwrap_or_default();
            exchange::run(&mut client, head, admitted, inbound, &mut alarm).await;
            alarms.borrow_mut().push(alarm);
        }));
        size
    }
}

/// What the head says of the body's length.
fn promised_length(head: &request::Parts) -> Option<u64> {
    let value = head.headers.get(CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

/// Whether no body comes, as the head says: an endpoint would take the head alone for a whole
/// request, and what follows may make the request malformed (RFC 9113 §8.1.1). In nearly every case
/// the stream's end has arrived already.
async fn proves_empty(client: &mut H2Client, limit: Duration) -> bool {
    let proving = Box::pin(timeout(limit, client.prove_empty()));
    let refusal = match proving.await {
        Ok(Ok(())) => return true,
        Ok(Err(ClientError::Gone)) => return false,
        // h2 has reset the stream.
        Ok(Err(_)) => Refusal::Malformed("a body unlike its length"),
        // Dropped unanswered, the stream is reset.
        Err(_) => Refusal::BodyTimedOut,
    };
    metrics::refused(refusal.as_str());
    false
}

/// A head that counts until its exchange is over.
struct HeldHead {
    all: Rc<Cell<usize>>,
    size: usize,
}

impl HeldHead {
    fn take(all: &Rc<Cell<usize>>, size: usize) -> Option<Self> {
        let held = all.get();
        if held > 0 && held + size > HEADS_MAX {
            return None;
        }
        all.set(held + size);
        Some(Self {
            all: Rc::clone(all),
            size,
        })
    }
}

impl Drop for HeldHead {
    fn drop(&mut self) {
        self.all.set(self.all.get() - self.size);
    }
}

/// RFC 9113 §6.5.2: an entry's name and value, and 32 bytes.
fn size(head: &request::Parts) -> usize {
    let fields = head.headers.iter();
    let of_fields: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len() + 32)
        .sum();
    let target = &head.uri;
    let path = target
        .path_and_query()
        .map_or(0, |path| path.as_str().len());
    of_fields + path + target.authority().map_or(0, |host| host.as_str().len())
}
