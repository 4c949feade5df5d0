//! Bodies both ways at once, in the exchange's one task: back-pressure, trailers, early answers.
//!
//! Holds one piece a direction, and up to [`REPLAY_MAX`] of the request's body while an attempt
//! may have to be repeated. Decides nothing about retries: see [`super::attempt`].

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use sealane_model::Failure;
use tokio::time::Instant;

use super::client::{Client, ClientError, Piece};
use super::endpoint::Endpoint;
use super::fields::Fields;
use super::headers::{interim_toward_client, trailers_onward};
use super::message::AnswerHead;
use super::mirror::Gathering;
use super::rules::squeeze::Squeeze;
use crate::alarm::Alarm;
use crate::clock;
use crate::io::{Gone, Side};
use crate::pace::Pace;

/// Bytes of a request's body that are kept for another attempt. With a larger one, what arrived is
/// let go and the request is not repeated.
pub(crate) const REPLAY_MAX: usize = 64 * 1024;
/// What a piece costs beside its bytes: a body in chunks of one byte would cost a hundred times its
/// size.
const KEPT_PIECE_COST: usize = 128;
/// Smaller pieces are kept as copies, but for a body's last: what is read is a part of a large
/// buffer, and bodies that drip would keep one for each byte.
const COPIED_BELOW: usize = 4 * 1024;
/// Bytes of requests' bodies that one worker keeps for further attempts in all. What does not fit is
/// let go, as with a large body: many clients that send half of their bodies hold no more.
const REPLAY_OF_ALL_MAX: usize = 8 * 1024 * 1024;
/// How long an exchange without progress goes on after the client ended its direction. Most such
/// clients have left; some, rightly, wait for their answer (RFC 9112 §9.6).
pub(crate) const HALF_CLOSED_PATIENCE: Duration = Duration::from_secs(5);

/// The request's body on its way to an endpoint.
pub(crate) struct Upload {
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// `kept_bytes` of all exchanges of this worker.
    kept_by_all: Rc<Cell<usize>>,
    /// Everything that arrived is in `kept`.
    replayable: bool,
    /// The next one of `kept` that this attempt has to send.
    next: usize,
    trailers: Option<Box<Fields>>,
    /// This attempt has sent everything.
    sent: bool,
    /// The endpoint takes no more of it; the answer may still come.
    stopped: bool,
    received: u64,
    max: Option<u64>,
    /// A piece went to the endpoint, or this attempt began.
    moved_at: Instant,
    /// A piece came from the client.
    arrived_at: Option<Instant>,
    waits_for_client: bool,
    /// Who else wants it.
    copy: Option<Gathering>,
}

/// Why a request's body cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UploadError {
    Client(ClientError),
    TooLarge,
}

impl Upload {
    /// `max`: bytes that the route lets through. `keep`: another attempt may follow. `kept_by_all`:
    /// what the worker's exchanges keep, counted in bytes.
    pub(crate) fn new(
        max: Option<u64>,
        keep: bool,
        kept_by_all: &Rc<Cell<usize>>,
        now: Instant,
    ) -> Self {
        Self {
            kept: Vec::new(),
            kept_bytes: 0,
            kept_by_all: Rc::clone(kept_by_all),
            replayable: keep,
            next: 0,
            trailers: None,
            sent: false,
            stopped: false,
            received: 0,
            max,
            moved_at: now,
            arrived_at: None,
            waits_for_client: false,
            copy: None,
        }
    }

    /// What is read of it from now on goes there as well.
    pub(crate) fn copy_to(&mut self, copy: Gathering) {
        self.copy = Some(copy);
    }

    /// A new attempt sends everything from the beginning. `empty`: there is no body at all.
    pub(crate) fn restart(&mut self, empty: bool, now: Instant) {
        self.next = 0;
        self.sent = empty;
        self.stopped = false;
        self.waits_for_client = false;
        self.moved_at = now;
    }

    /// The same body for a second attempt beside the first, when the client has sent all of it and
    /// it was kept. What both hold is counted once.
    pub(super) fn beside(&self, now: Instant) -> Self {
        Self {
            kept: self.kept.clone(),
            kept_bytes: 0,
            kept_by_all: Rc::clone(&self.kept_by_all),
            replayable: true,
            next: 0,
            trailers: self.trailers.clone(),
            sent: self.is_empty(),
            stopped: false,
            received: self.received,
            max: self.max,
            moved_at: now,
            arrived_at: self.arrived_at,
            waits_for_client: false,
            copy: None,
        }
    }

    /// Nothing of it has gone by unkept.
    pub(crate) fn is_replayable(&self) -> bool {
        self.replayable || self.received == 0
    }

    /// No further attempt will follow.
    pub(crate) fn keep_no_more(&mut self) {
        self.replayable = false;
        self.kept.drain(..self.next);
        self.next = 0;
        self.count_no_more();
    }

    /// What follows is no body but a tunnel: nothing of it was asked for yet, and none is kept.
    pub(crate) fn begin_tunnel(&mut self, now: Instant) {
        self.restart(false, now);
        self.replayable = false;
        self.max = None;
    }

    /// Nothing at all has arrived: neither bytes nor trailers.
    pub(crate) fn is_empty(&self) -> bool {
        self.received == 0 && self.trailers.is_none()
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) fn moved_at(&self) -> Instant {
        self.moved_at
    }

    pub(crate) fn arrived_at(&self) -> Option<Instant> {
        self.arrived_at
    }

    /// The client is slow with its body, not the endpoint with its answer.
    pub(crate) fn waits_for_client(&self) -> bool {
        self.waits_for_client && !self.is_over()
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.sent
    }

    pub(super) fn is_over(&self) -> bool {
        self.sent || self.stopped
    }

    /// Moves one piece. Pending when neither side lets it; not to be called when it is over.
    pub(super) fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        endpoint: &mut Endpoint,
    ) -> Poll<Result<(), UploadError>> {
        self.waits_for_client = false;
        match endpoint.poll_room(cx) {
            Poll::Pending => {
                client.gather(cx);
                return Poll::Pending;
            }
            Poll::Ready(Err(_)) => {
                self.stopped = true;
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Ok(())) => {}
        }
        let piece = match self.poll_next(cx, client) {
            Poll::Pending => {
                self.waits_for_client = true;
                return Poll::Pending;
            }
            Poll::Ready(piece) => piece?,
        };
        self.moved_at = clock::now();
        self.sent = !matches!(piece, Piece::Data(_));
        if endpoint.send_piece(cx, piece).is_err() {
            self.stopped = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
    ) -> Poll<Result<Piece, UploadError>> {
        if let Some(bytes) = self.kept.get(self.next) {
            let bytes = bytes.clone();
            self.next += 1;
            return Poll::Ready(Ok(Piece::Data(bytes)));
        }
        if client.body_done() {
            return Poll::Ready(Ok(Piece::End(self.trailers.clone())));
        }
        let piece = match client.poll_piece(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(UploadError::Client(error))),
            Poll::Ready(Ok(piece)) => piece,
        };
        self.arrived_at = Some(clock::now());
        if self.copy.as_mut().is_some_and(|copy| copy.take(&piece)) {
            self.copy = None;
        }
        match piece {
            Piece::End(Some(mut trailers)) => {
                trailers_onward(&mut trailers);
                self.trailers = Some(trailers.clone());
                Poll::Ready(Ok(Piece::End(Some(trailers))))
            }
            Piece::End(None) => Poll::Ready(Ok(Piece::End(None))),
            Piece::Data(bytes) => {
                Poll::Ready(self.note(&bytes, false).map(|()| Piece::Data(bytes)))
            }
            Piece::Last(bytes) => Poll::Ready(self.note(&bytes, true).map(|()| Piece::Last(bytes))),
        }
    }

    fn count_no_more(&mut self) {
        let by_others = self.kept_by_all.get() - self.kept_bytes;
        self.kept_by_all.set(by_others);
        self.kept_bytes = 0;
    }

    fn note(&mut self, bytes: &Bytes, last: bool) -> Result<(), UploadError> {
        self.received += bytes.len() as u64;
        if self.max.is_some_and(|max| self.received > max) {
            return Err(UploadError::TooLarge);
        }
        if !self.replayable {
            self.kept.clear();
            self.next = 0;
            return Ok(());
        }
        let cost = bytes.len() + KEPT_PIECE_COST;
        let by_all = self.kept_by_all.get() + cost;
        if self.kept_bytes + cost > REPLAY_MAX || by_all > REPLAY_OF_ALL_MAX {
            self.replayable = false;
            self.kept = Vec::new();
            self.next = 0;
            self.count_no_more();
            return Ok(());
        }
        self.kept_bytes += cost;
        self.kept_by_all.set(by_all);
        if !bytes.is_empty() {
            self.kept.push(if bytes.len() < COPIED_BELOW && !last {
                Bytes::copy_from_slice(bytes)
            } else {
                bytes.clone()
            });
            self.next = self.kept.len();
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.count_no_more();
    }
}

/// Informational heads that an endpoint may send before its final one; with more it fails. A client
/// that reads nothing would have us hold them all.
pub(super) const INFORMATIONAL_MAX: usize = 32;
/// Pieces that one exchange moves before others have their turn: a peer that sends bodies in chunks
/// of one byte brings thousands of pieces with each read.
pub(super) const PIECES_IN_A_ROW: usize = 64;

/// What drew the attention of whoever awaits an answer's head.
#[derive(Debug)]
pub(crate) enum Awaited {
    /// The final head, and whether it ends the answer.
    Head(AnswerHead, bool),
    Failed(Failure),
    Upload(UploadError),
    ClientGone,
    /// `due` has come.
    Due,
}

/// Sends the request's body and awaits the answer's head; passes informational heads on. `due`
/// tells from the upload's state when to stop waiting.
pub(crate) async fn await_head(
    client: &mut Client,
    endpoint: &mut Endpoint,
    upload: &mut Upload,
    alarm: &mut Alarm,
    due: impl Fn(&Upload) -> Instant,
) -> Awaited {
    let mut half_closed = None;
    let mut informational = 0;
    let mut pace = Pace::default();
    poll_fn(|cx| {
        ready!(pace.poll(cx, upload.received()));
        for _ in 0..PIECES_IN_A_ROW {
            if let Poll::Ready(Err(_)) = client.poll_ready(cx) {
                return Poll::Ready(Awaited::ClientGone);
            }
            // Before the head is awaited: head and body of a small request leave in one write.
            let moved = if upload.is_over() {
                None
            } else {
                Some(upload.poll_move(cx, client, endpoint))
            };
            match endpoint.poll_head(cx) {
                Poll::Ready(Ok((head, end))) if !head.is_interim() => {
                    return Poll::Ready(Awaited::Head(head, end));
                }
                Poll::Ready(Ok((mut head, _))) => {
                    informational += 1;
                    if informational > INFORMATIONAL_MAX {
                        let failure = Failure::Protocol("informational heads".to_owned());
                        return Poll::Ready(Awaited::Failed(failure));
                    }
                    interim_toward_client(&mut head.fields);
                    if client.send_head(head, false).is_err() {
                        return Poll::Ready(Awaited::ClientGone);
                    }
                    continue;
                }
                Poll::Ready(Err(failure)) => return Poll::Ready(Awaited::Failed(failure)),
                Poll::Pending => {}
            }
            match moved {
                Some(Poll::Ready(Ok(()))) => continue,
                Some(Poll::Ready(Err(error))) => return Poll::Ready(Awaited::Upload(error)),
                Some(Poll::Pending) => endpoint.rest(cx),
                None if poll_gone(cx, client, &mut half_closed).is_ready() => {
                    return Poll::Ready(Awaited::ClientGone);
                }
                None => {}
            }
            let due = due(upload);
            let patience = half_closed.map(|since| since + HALF_CLOSED_PATIENCE);
            let soonest = patience.map_or(due, |patience| patience.min(due));
            return alarm.poll_due(cx, soonest).map(|()| {
                if patience == Some(soonest) {
                    Awaited::ClientGone
                } else {
                    Awaited::Due
                }
            });
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Ready when the client has left for good; notes since when it is half closed.
pub(super) fn poll_gone(
    cx: &mut Context<'_>,
    client: &mut Client,
    half_closed: &mut Option<Instant>,
) -> Poll<()> {
    match client.poll_gone(cx) {
        Poll::Ready(Gone::Reset) => Poll::Ready(()),
        Poll::Ready(Gone::HalfClosed) => {
            half_closed.get_or_insert_with(clock::now);
            Poll::Pending
        }
        Poll::Pending => Poll::Pending,
    }
}

/// How the relaying of an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Relayed {
    /// The answer came to its end.
    Whole,
    ClientGone,
    /// The client's body broke off or is too large, after the answer began.
    Upload(UploadError),
    Endpoint(Failure),
    /// The client took nothing for longer than the idle time-out.
    ClientStalled,
    /// The client's own deadline passed.
    Deadline,
    /// The answer could not be compressed: our own fault.
    Unsqueezed,
}

/// How an answer is relayed.
pub(crate) struct Terms {
    /// Silence on either side that is put up with.
    pub(crate) idle: Duration,
    /// When it is over whatever moves.
    pub(crate) deadline: Option<Instant>,
    /// What the body passes through.
    pub(crate) squeeze: Option<Box<Squeeze>>,
}

/// The same where pieces are compressed: each may take a millisecond.
const SQUEEZED_IN_A_ROW: usize = 4;

/// Relays the answer's body, and what is left of the request's, after the answer's head was sent.
/// Counts the answer's bytes in `sent`.
pub(crate) async fn relay(
    client: &mut Client,
    endpoint: &mut Endpoint,
    upload: &mut Upload,
    terms: Terms,
    alarm: &mut Alarm,
    sent: &mut u64,
) -> Relayed {
    let Terms {
        idle,
        deadline,
        mut squeeze,
    } = terms;
    // When the last piece moved; read off the clock only once there is something to wait for.
    let mut moved_at = None;
    let mut half_closed = None;
    let in_a_row = match squeeze {
        Some(_) => SQUEEZED_IN_A_ROW,
        None => PIECES_IN_A_ROW,
    };
    let mut pace = Pace::default();
    poll_fn(|cx| {
        ready!(pace.poll(cx, *sent + upload.received()));
        // Also where pieces come without a pause.
        if deadline.is_some_and(|deadline| clock::now() >= deadline) {
            return Poll::Ready(Relayed::Deadline);
        }
        for _ in 0..in_a_row {
            let ready = client.poll_room(cx);
            let client_lets = match ready {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(_)) => return Poll::Ready(Relayed::ClientGone),
                Poll::Pending => false,
            };
            if client_lets
                && let Poll::Ready(passed) = poll_pass(cx, client, endpoint, &mut squeeze, sent)
            {
                moved_at = None;
                match passed {
                    Ok(false) => continue,
                    Ok(true) => return Poll::Ready(Relayed::Whole),
                    Err(relayed) => return Poll::Ready(relayed),
                }
            }
            if upload.is_over() {
                if poll_gone(cx, client, &mut half_closed).is_ready() {
                    return Poll::Ready(Relayed::ClientGone);
                }
            } else {
                match upload.poll_move(cx, client, endpoint) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(error)) => return Poll::Ready(Relayed::Upload(error)),
                    Poll::Pending => {}
                }
            }
            if let Poll::Ready(Err(_)) = client.poll_rest(cx) {
                return Poll::Ready(Relayed::ClientGone);
            }
            if upload.is_over() {
                endpoint.drive(cx);
            } else {
                endpoint.rest(cx);
            }
            let moved_at = *moved_at.get_or_insert_with(clock::now);
            let moved_at = moved_at.max(upload.moved_at);
            let patience = if half_closed.is_some() {
                idle.min(HALF_CLOSED_PATIENCE)
            } else {
                idle
            };
            let silent = moved_at + patience;
            let due = deadline.map_or(silent, |deadline| deadline.min(silent));
            return alarm.poll_due(cx, due).map(|()| {
                if deadline == Some(due) {
                    Relayed::Deadline
                } else if half_closed.is_some() {
                    Relayed::ClientGone
                } else if client_lets {
                    Relayed::Endpoint(Failure::TimedOut)
                } else {
                    Relayed::ClientStalled
                }
            });
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Moves one piece. Whether it was the answer's end.
fn poll_pass(
    cx: &mut Context<'_>,
    client: &mut Client,
    endpoint: &mut Endpoint,
    squeeze: &mut Option<Box<Squeeze>>,
    sent: &mut u64,
) -> Poll<Result<bool, Relayed>> {
    if let Some(passed) = pass_arrived(cx, client, endpoint, sent) {
        return Poll::Ready(passed);
    }
    if let Some(passed) = poll_pass_by(cx, client, endpoint, sent) {
        return passed;
    }
    endpoint.take_at_most(client.room());
    match endpoint.poll_piece(cx) {
        Poll::Ready(Ok(piece)) => Poll::Ready(squeeze_and_pass(cx, client, piece, squeeze, sent)),
        Poll::Ready(Err(failure)) => Poll::Ready(Err(Relayed::Endpoint(failure))),
        // Nothing more for now: the client is not to wait for what has come.
        Poll::Pending => match let_go(cx, client, squeeze, sent) {
            Ok(false) => Poll::Pending,
            Ok(true) => Poll::Ready(Ok(false)),
            Err(relayed) => Poll::Ready(Err(relayed)),
        },
    }
}

/// Sends what came with the head, as a small body does, from where it lies. `None`: there is nothing
/// such.
fn pass_arrived(
    cx: &mut Context<'_>,
    client: &mut Client,
    endpoint: &mut Endpoint,
    sent: &mut u64,
) -> Option<Result<bool, Relayed>> {
    let (bytes, left) = endpoint.arrived()?;
    let (to, owed) = client.passable()?;
    if left != owed {
        return None; // the general way finds out what is wrong
    }
    if to.write(cx, bytes).is_err() {
        return Some(Err(Relayed::ClientGone));
    }
    let passed = bytes.len();
    *sent += passed as u64;
    endpoint.note_taken(passed);
    client.note_passed(passed as u64);
    Some(Ok(passed as u64 == left))
}

/// Moves bytes of a large body from HTTP/1 to HTTP/1 without holding them. `None`: not such a body.
fn poll_pass_by(
    cx: &mut Context<'_>,
    client: &mut Client,
    endpoint: &mut Endpoint,
    sent: &mut u64,
) -> Option<Poll<Result<bool, Relayed>>> {
    let (from, left) = endpoint.passable()?;
    let (to, owed) = client.passable()?;
    if left != owed {
        return None; // the general way finds out what is wrong
    }
    let most = usize::try_from(left).unwrap_or(usize::MAX);
    let passed = match to.poll_pass(cx, from, most) {
        Poll::Pending => return Some(Poll::Pending),
        Poll::Ready(passed) => passed,
    };
    Some(Poll::Ready(match passed {
        Ok(0) | Err(Side::From) => Err(Relayed::Endpoint(Failure::Closed)),
        Err(Side::To) => Err(Relayed::ClientGone),
        Ok(bytes) => {
            *sent += bytes as u64;
            endpoint.note_passed(bytes as u64);
            client.note_passed(bytes as u64);
            Ok(bytes as u64 == left)
        }
    }))
}

/// As [`pass`], of what comes out of the compressor for this piece.
fn squeeze_and_pass(
    cx: &mut Context<'_>,
    client: &mut Client,
    piece: Piece,
    squeeze: &mut Option<Box<Squeeze>>,
    sent: &mut u64,
) -> Result<bool, Relayed> {
    let Some(mut squeezing) = squeeze.take() else {
        return pass(cx, client, piece, sent);
    };
    let failed = |_| Relayed::Unsqueezed;
    let (bytes, end) = match piece {
        Piece::Data(bytes) => {
            let out = squeezing.take(&bytes).map_err(failed)?;
            *squeeze = Some(squeezing);
            // Not an empty piece: over HTTP/1 it would cost a chunk.
            return if out.is_empty() {
                Ok(false)
            } else {
                pass(cx, client, Piece::Data(out), sent)
            };
        }
        Piece::Last(bytes) => (bytes, None),
        Piece::End(trailers) => (Bytes::new(), trailers),
    };
    let mut out = squeezing.take(&bytes).map_err(failed)?;
    let rest = squeezing.finish().map_err(failed)?;
    if out.is_empty() {
        out = rest;
    } else if !rest.is_empty() {
        pass(cx, client, Piece::Data(out), sent)?;
        out = rest;
    }
    match end {
        None => pass(cx, client, Piece::Last(out), sent),
        Some(trailers) => {
            pass(cx, client, Piece::Data(out), sent)?;
            pass(cx, client, Piece::End(Some(trailers)), sent)
        }
    }
}

/// Sends what the compressor holds back. Whether there was something.
fn let_go(
    cx: &mut Context<'_>,
    client: &mut Client,
    squeeze: &mut Option<Box<Squeeze>>,
    sent: &mut u64,
) -> Result<bool, Relayed> {
    let Some(squeeze) = squeeze.as_mut().filter(|squeeze| squeeze.holds_back()) else {
        return Ok(false);
    };
    let out = squeeze.flush().map_err(|_| Relayed::Unsqueezed)?;
    pass(cx, client, Piece::Data(out), sent)?;
    Ok(true)
}

/// Whether this was the answer's end.
fn pass(
    cx: &mut Context<'_>,
    client: &mut Client,
    mut piece: Piece,
    sent: &mut u64,
) -> Result<bool, Relayed> {
    if let Piece::End(Some(trailers)) = &mut piece {
        trailers_onward(trailers);
    }
    let (bytes, end) = match &piece {
        Piece::Data(bytes) => (bytes.len(), false),
        Piece::Last(bytes) => (bytes.len(), true),
        Piece::End(_) => (0, true),
    };
    client.send_piece(cx, piece).map_err(|error| match error {
        ClientError::Unsendable => {
            Relayed::Endpoint(Failure::Protocol("a body unlike its length".to_owned()))
        }
        ClientError::Gone | ClientError::Malformed => Relayed::ClientGone,
    })?;
    *sent += bytes as u64;
    Ok(end)
}

/// Waits until the client's side is written out, or is little and about to be
/// ([`crate::io::Wire::poll_flush`]). `false`: it was not, within `idle` of silence.
pub(crate) async fn flush(client: &mut Client, idle: Duration) -> bool {
    let at_once = poll_fn(|cx| Poll::Ready(client.poll_flush(cx))).await;
    if let Poll::Ready(flushed) = at_once {
        return flushed.is_ok();
    }
    let flushed = poll_fn(|cx| client.poll_flush(cx));
    let flushed = Box::pin(tokio::time::timeout(idle, flushed));
    matches!(flushed.await, Ok(Ok(())))
}
