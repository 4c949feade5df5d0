//! One attempt's answer on its way to many: a log that one lead writes and any number of readers
//! follow, on whichever worker they are.
//!
//! The log is bounded in bytes; the lead waits for the reader that is furthest, and a reader that is
//! further behind than the log is long has lost its place. The lock is held for a few field accesses
//! at a time. Knows no socket and no route.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use sealane_model::{EndpointId, Failure};
use sealane_steering::Reason;
use slab::Slab;
use smallvec::SmallVec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Part;
use crate::http::client::Piece;
use crate::http::fields::Fields;
use crate::http::message::AnswerHead;
use crate::http::refuse::Refusal;
use crate::upstream::select::Choice;

/// Those who got no answer here and go on by themselves, at a time; the others wait for their turn
/// (card 7): a thousand that were held together would otherwise fall on the endpoints at once.
pub(crate) const RELEASED_MAX: usize = 16;
/// Bytes that the furthest reader has not taken above which the lead waits.
const WINDOW: u64 = 16 * 1024;
/// Bytes of all logs in the process. Above it, each holds no more than its furthest reader has still
/// to take: nobody joins any more, and readers that are behind lose their place.
pub(crate) const HELD_BY_ALL_MAX: usize = 64 * 1024 * 1024;
/// What a piece costs in the log beside its bytes.
const PIECE_COST: usize = 128;
/// Smaller pieces are copied: one may be a small part of a large buffer, which it would keep.
const COPIED_BELOW: usize = 4 * 1024;

/// Which endpoint answers, as any worker can look it up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen {
    pub(super) endpoint: EndpointId,
    pub(super) address: SocketAddr,
    pub(super) reason: Reason,
    pub(super) choice: Choice,
    pub(super) ignored_health: bool,
}

/// How far it must hold together, fixed at its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) followers: usize,
    pub(super) body_max: usize,
    /// Nobody joins afterwards.
    pub(super) joined_until: Instant,
}

/// One attempt and everybody who waits for it.
pub(super) struct Flight {
    pub(super) key: Arc<[u8]>,
    bounds: Bounds,
    state: Mutex<State>,
    turns: OnceLock<Arc<Semaphore>>,
    /// Bytes in all logs.
    held_by_all: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    interim: Vec<AnswerHead>,
    head: Option<(AnswerHead, bool)>,
    chosen: Option<Chosen>,
    attempts: u32,
    /// The answer is for the one who began it alone.
    apart: Option<Part>,
    log: VecDeque<Bytes>,
    /// The place of the log's first piece among all.
    first: usize,
    /// Bytes of the pieces before that.
    dropped: u64,
    /// What the log costs.
    held: usize,
    pushed: u64,
    /// Bytes that the furthest reader has taken.
    furthest: u64,
    end: Option<End>,
    readers: Slab<Seat>,
    /// The seat of the one who began it, while it is there.
    starter: Option<usize>,
    was_joined: bool,
    lead: Option<Waker>,
}

struct Seat {
    waker: Option<Waker>,
    taken: u64,
}

enum End {
    Whole(Option<Box<Fields>>),
    Refused(Refusal),
    /// The answer broke off.
    Broken,
    /// Nobody leads any more, and there is no answer.
    Lost,
}

type Wakers = SmallVec<[Waker; 8]>;

impl State {
    fn wakers(&mut self) -> Wakers {
        let seats = self.readers.iter_mut();
        seats.filter_map(|(_, seat)| seat.waker.take()).collect()
    }

    /// Those for whom the answer is.
    fn audience(&self) -> usize {
        match self.apart {
            None => self.readers.len(),
            Some(_) => usize::from(self.starter.is_some()),
        }
    }

    fn is_open(&self) -> bool {
        self.end.is_none() && self.apart.is_none() && self.first == 0
    }

    /// Drops what the furthest reader has taken, until no more than `most` is held.
    fn trim(&mut self, most: usize) {
        while self.held > most
            && let Some(piece) = self.log.front()
            && self.dropped + piece.len() as u64 <= self.furthest
        {
            self.dropped += piece.len() as u64;
            self.held -= piece.len() + PIECE_COST;
            self.first += 1;
            self.log.pop_front();
        }
    }
}

fn wake(wakers: Wakers) {
    wakers.into_iter().for_each(Waker::wake);
}

/// Why somebody cannot join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// As many follow as may.
    Full,
    /// It is too late: whoever comes now begins anew.
    Late,
}

impl Flight {
    /// With the seat of the one who begins it.
    pub(super) fn begin(
        key: Arc<[u8]>,
        bounds: Bounds,
        held_by_all: &Arc<AtomicUsize>,
    ) -> (Arc<Self>, Reader) {
        let mut state = State::default();
        let seat = state.readers.insert(Seat {
            waker: None,
            taken: 0,
        });
        state.starter = Some(seat);
        let flight = Arc::new(Self {
            key,
            bounds,
            state: Mutex::new(state),
            turns: OnceLock::new(),
            held_by_all: Arc::clone(held_by_all),
        });
        let reader = Reader::new(&flight, seat);
        (flight, reader)
    }

    /// # Errors
    /// Why not.
    pub(super) fn join(self: &Arc<Self>, now: Instant) -> Result<Reader, Closed> {
        let mut state = self.state();
        if !state.is_open() || now >= self.bounds.joined_until {
            return Err(Closed::Late);
        }
        let starter = usize::from(state.starter.is_some());
        if state.readers.len() - starter >= self.bounds.followers {
            return Err(Closed::Full);
        }
        state.was_joined = true;
        let seat = state.readers.insert(Seat {
            waker: None,
            taken: 0,
        });
        drop(state);
        Ok(Reader::new(self, seat))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was for others than the one who began it, too.
    pub(super) fn was_shared(&self) -> bool {
        let state = self.state();
        state.was_joined && state.apart.is_none()
    }

    pub(super) fn chosen(&self) -> (Option<Chosen>, u32) {
        let state = self.state();
        (state.chosen, state.attempts)
    }

    fn count_held(&self, before: usize, after: usize) {
        if after >= before {
            self.held_by_all
                .fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.held_by_all
                .fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    fn end(&self, end: End) {
        let mut state = self.state();
        if state.end.is_some() {
            return;
        }
        state.end = Some(end);
        let wakers = state.wakers();
        drop(state);
        wake(wakers);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let held = self.state().held;
        self.count_held(held, 0);
    }
}

/// The one that writes. Dropped before the end, it leaves its readers without an answer.
pub(crate) struct Lead(pub(super) Arc<Flight>);

impl Lead {
    /// Who answers, or was tried last.
    pub(super) fn note(&self, chosen: Option<Chosen>, attempts: u32) {
        let mut state = self.0.state();
        state.chosen = chosen;
        state.attempts = attempts;
    }

    /// The answer is not for those who joined.
    pub(super) fn set_apart(&self, why: Part) {
        let mut state = self.0.state();
        state.apart = Some(why);
        let wakers = state.wakers();
        drop(state);
        wake(wakers);
    }

    pub(super) fn refuse(&self, refusal: Refusal) {
        self.0.end(End::Refused(refusal));
    }

    /// As [`crate::http::client::Client::send_head`].
    pub(crate) fn send_head(&self, head: AnswerHead, end: bool) {
        let mut state = self.0.state();
        if head.is_interim() {
            state.interim.push(head); // few, and small: the endpoint's side sees to that
        } else {
            state.head = Some((head, end));
            if end {
                state.end = Some(End::Whole(None));
            }
        }
        let wakers = state.wakers();
        drop(state);
        wake(wakers);
    }

    pub(crate) fn send_piece(&self, piece: Piece) {
        let (bytes, end) = match piece {
            Piece::Data(bytes) => (bytes, None),
            Piece::Last(bytes) => (bytes, Some(End::Whole(None))),
            Piece::End(trailers) => (Bytes::new(), Some(End::Whole(trailers))),
        };
        let flight = &*self.0;
        let mut state = flight.state();
        let before = state.held;
        if !bytes.is_empty() {
            state.pushed += bytes.len() as u64;
            state.held += bytes.len() + PIECE_COST;
            state.log.push_back(if bytes.len() < COPIED_BELOW {
                Bytes::copy_from_slice(&bytes)
            } else {
                bytes
            });
            let pressed = flight.held_by_all.load(Ordering::Relaxed) > HELD_BY_ALL_MAX;
            let most = if pressed { 0 } else { flight.bounds.body_max };
            state.trim(most);
        }
        if end.is_some() {
            state.end = end;
        }
        let after = state.held;
        let wakers = state.wakers();
        drop(state);
        flight.count_held(before, after);
        wake(wakers);
    }

    /// Ready when one more piece may be sent: the furthest reader has taken nearly all.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.state();
        if state.pushed - state.furthest < WINDOW {
            return Poll::Ready(());
        }
        keep_waker(&mut state.lead, cx);
        Poll::Pending
    }

    /// Ready when nobody waits for the answer any more.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.state();
        if state.audience() == 0 {
            return Poll::Ready(());
        }
        keep_waker(&mut state.lead, cx);
        Poll::Pending
    }

    /// The answer cannot be finished.
    pub(crate) fn cut(&self) {
        self.0.end(End::Broken);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let begun = self.0.state().head.is_some();
        self.0.end(if begun { End::Broken } else { End::Lost });
    }
}

fn keep_waker(kept: &mut Option<Waker>, cx: &Context<'_>) {
    if !kept
        .as_ref()
        .is_some_and(|waker| waker.will_wake(cx.waker()))
    {
        *kept = Some(cx.waker().clone());
    }
}

/// What a reader is told in place of a head.
#[derive(Debug)]
pub(super) enum Told {
    Refused(Refusal),
    /// It gets no answer here, for this reason.
    Released(Part),
    /// It need not wait any longer, and goes on by itself.
    Turn(OwnedSemaphorePermit),
    /// Nobody leads any more.
    Lost,
}

type Queueing = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>>>>;

/// One of those who wait. Dropped, it leaves.
pub(crate) struct Reader {
    flight: Arc<Flight>,
    seat: usize,
    /// The next piece of all.
    next: usize,
    interim_seen: usize,
    told: Option<Told>,
    queueing: Option<Queueing>,
}

impl Reader {
    fn new(flight: &Arc<Flight>, seat: usize) -> Self {
        Self {
            flight: Arc::clone(flight),
            seat,
            next: 0,
            interim_seen: 0,
            told: None,
            queueing: None,
        }
    }

    pub(super) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// What it was told instead of a head, once [`Reader::poll_head`] failed.
    pub(super) fn told(&mut self) -> Told {
        self.told.take().unwrap_or(Told::Lost)
    }

    /// From now on it also waits for its turn to go on by itself.
    pub(super) fn queue(&mut self) {
        let turns = self.flight.turns.get_or_init(|| {
            let turns = Semaphore::new(RELEASED_MAX);
            Arc::new(turns)
        });
        let turns = Arc::clone(turns);
        self.queueing
            .get_or_insert_with(|| Box::pin(async move { turns.acquire_owned().await.ok() }));
    }

    /// The final head, after those that are informational.
    ///
    /// # Errors
    /// There will be none: [`Reader::told`] says why.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(AnswerHead, bool), Failure>> {
        let polled = self.poll_answer(cx);
        if polled.is_pending()
            && let Some(queueing) = &mut self.queueing
            && let Poll::Ready(turn) = queueing.as_mut().poll(cx)
        {
            self.queueing = None;
            self.told = turn.map(Told::Turn);
            return Poll::Ready(Err(Failure::Closed));
        }
        polled
    }

    fn poll_answer(&mut self, cx: &Context<'_>) -> Poll<Result<(AnswerHead, bool), Failure>> {
        let mut state = self.flight.state();
        if let Some(part) = state.apart
            && state.starter != Some(self.seat)
        {
            if self.queueing.is_none() {
                self.told = Some(Told::Released(part));
                return Poll::Ready(Err(Failure::Closed));
            }
            return Poll::Pending; // nothing but its turn is to come
        }
        if let Some(interim) = state.interim.get(self.interim_seen) {
            self.interim_seen += 1;
            return Poll::Ready(Ok((interim.clone(), false)));
        }
        if let Some((head, end)) = &state.head {
            if state.first > 0 {
                self.told = Some(Told::Released(Part::Lagged));
                return Poll::Ready(Err(Failure::Closed));
            }
            return Poll::Ready(Ok((head.clone(), *end)));
        }
        match &state.end {
            None => {
                if let Some(seat) = state.readers.get_mut(self.seat) {
                    keep_waker(&mut seat.waker, cx);
                }
                return Poll::Pending;
            }
            Some(End::Refused(refusal)) => self.told = Some(Told::Refused(refusal.clone())),
            Some(_) => self.told = Some(Told::Lost),
        }
        Poll::Ready(Err(Failure::Closed))
    }

    /// The next piece of the body.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Failure>> {
        let mut guard = self.flight.state();
        let state = &mut *guard;
        let Some(at) = self.next.checked_sub(state.first) else {
            return Poll::Ready(Err(Failure::Closed)); // too far behind
        };
        let Some(seat) = state.readers.get_mut(self.seat) else {
            return Poll::Ready(Err(Failure::Closed));
        };
        let Some(bytes) = state.log.get(at) else {
            return match &state.end {
                None => {
                    keep_waker(&mut seat.waker, cx);
                    Poll::Pending
                }
                Some(End::Whole(trailers)) => Poll::Ready(Ok(Piece::End(trailers.clone()))),
                Some(_) => Poll::Ready(Err(Failure::Closed)),
            };
        };
        let bytes = bytes.clone();
        self.next += 1;
        seat.taken += bytes.len() as u64;
        let lead = if seat.taken > state.furthest {
            state.furthest = seat.taken;
            state.lead.take()
        } else {
            None
        };
        let is_last = at + 1 == state.log.len() && matches!(state.end, Some(End::Whole(None)));
        drop(guard);
        wake(lead.into_iter().collect());
        Poll::Ready(Ok(if is_last {
            Piece::Last(bytes)
        } else {
            Piece::Data(bytes)
        }))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.flight.state();
        let seat = state.readers.remove(self.seat);
        if state.starter == Some(self.seat) {
            state.starter = None;
        }
        if state.end.is_some() {
            return;
        }
        if seat.taken > 0 && seat.taken == state.furthest {
            // The lead must not run away from those who are left.
            let furthest = state.readers.iter().map(|(_, seat)| seat.taken).max();
            state.furthest = furthest.unwrap_or(state.furthest);
        }
        let lead = state.lead.take();
        drop(state);
        wake(lead.into_iter().collect());
    }
}

#[cfg(test)]
mod tests;
