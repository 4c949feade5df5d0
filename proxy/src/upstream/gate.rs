//! A bounded number of places for requests, and a short queue for those who find none.
//!
//! Shared by all workers. Taking a place is one atomic step while nobody waits; the queue's lock is
//! touched by those alone who find no place, and by those who leave while somebody waits. What a
//! bound is for is not known here: see `http::overload` and [`super::adaptive`].
//!
//! The queue is CoDel's idea for servers (Nichols and Jacobson 2012; Facebook, "Fail at Scale"):
//! while it was empty within the last `wait`, first come, first served, and patience is `wait`; one
//! that did not empty for so long is no burst but an overload, and then the newest go first, whose
//! clients are still there, and patience is a twentieth (5 ms of 100), until nobody had to wait for as long. Better tiers go before worse ones,
//! and where the queue is full the oldest of the worst makes way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::concurrency::{crowding, threshold};
use crate::clock;
use crate::config::Tier;

/// The longest queue, whatever the bounds say.
pub(crate) const QUEUE_MAX: u32 = 10_000;
/// The share of the patience that is left in an overload.
const HASTE: u32 = 20;

/// How much fits. All of it may change at any time: who is in stays in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) places: u32,
    /// How many may be taken with tier 1, where tiers count.
    pub(crate) first: u32,
    /// Of the places, those that are not for tier 1 alone.
    pub(crate) below_first: u32,
    pub(crate) queue: u32,
    pub(crate) wait: Duration,
}

#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Gate {
    taken: AtomicU32,
    places: AtomicU32,
    first: AtomicU32,
    below_first: AtomicU32,
    /// As many as `line` holds.
    waiting: AtomicU32,
    queue: AtomicU32,
    wait_nanos: AtomicU64,
    /// Worse tiers are refused before all places are taken.
    by_tier: bool,
    line: Mutex<Line<oneshot::Sender<()>>>,
}

/// A place in use. Dropping it is what frees it.
#[derive(Debug)]
#[must_use = "dropped at once, it holds nothing"]
pub(crate) struct Place {
    gate: Arc<Gate>,
    /// How many were taken then, this one included.
    pub(crate) load: u32,
}

pub(crate) enum Entry {
    In(Place),
    /// There may be one soon.
    Wait(Turn),
    /// Neither a place nor room to wait for one.
    Full,
}

/// Why nobody was let in who waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    TooLong,
    /// Better ones came.
    MadeWay,
}

/// A place in the queue.
pub(crate) struct Turn {
    gate: Arc<Gate>,
    tier: Tier,
    id: u64,
    until: Instant,
    call: oneshot::Receiver<()>,
}

impl Gate {
    pub(crate) fn new(bounds: Bounds, by_tier: bool) -> Arc<Self> {
        let gate = Self {
            taken: AtomicU32::new(0),
            places: AtomicU32::new(0),
            first: AtomicU32::new(0),
            below_first: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            queue: AtomicU32::new(0),
            wait_nanos: AtomicU64::new(0),
            by_tier,
            line: Mutex::default(),
        };
        gate.set(bounds);
        Arc::new(gate)
    }

    pub(crate) fn set(&self, bounds: Bounds) {
        let wait = u64::try_from(bounds.wait.as_nanos()).unwrap_or(u64::MAX);
        self.places.store(bounds.places, Ordering::Relaxed);
        self.first.store(bounds.first, Ordering::Relaxed);
        self.below_first
            .store(bounds.below_first, Ordering::Relaxed);
        self.queue
            .store(bounds.queue.min(QUEUE_MAX), Ordering::Relaxed);
        self.wait_nanos.store(wait, Ordering::Relaxed);
        if self.waiting() > 0 {
            self.call_waiting();
        }
    }

    pub(crate) fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn places(&self) -> u32 {
        self.places.load(Ordering::Relaxed)
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// `deadline`: when the client stops waiting, if it said so.
    pub(crate) fn enter(self: &Arc<Self>, tier: Tier, deadline: Option<Instant>) -> Entry {
        // Who waits comes first, unless it is of a worse tier: that is found out in the queue.
        if self.waiting.load(Ordering::SeqCst) == 0
            && let Some(load) = self.take(tier)
        {
            return Entry::In(self.place(load));
        }
        self.queue_up(tier, deadline)
    }

    fn place(self: &Arc<Self>, load: u32) -> Place {
        Place {
            gate: Arc::clone(self),
            load,
        }
    }

    /// Takes a place; how many are taken with it.
    fn take(&self, tier: Tier) -> Option<u32> {
        let mut taken = self.taken.load(Ordering::SeqCst);
        loop {
            if !self.has_place(tier, taken) {
                return None;
            }
            match self.taken.compare_exchange_weak(
                taken,
                taken + 1,
                Ordering::SeqCst,
                Ordering::SeqCst,
            ) {
                Ok(_) => return Some(taken + 1),
                Err(now) => taken = now,
            }
        }
    }

    fn has_place(&self, tier: Tier, taken: u32) -> bool {
        if self.by_tier && tier == Tier::First {
            return taken < self.first.load(Ordering::Relaxed);
        }
        let places = self.places.load(Ordering::Relaxed);
        if !self.by_tier {
            return taken < places;
        }
        let places = places.min(self.below_first.load(Ordering::Relaxed));
        taken < places && tier.priority() <= threshold(crowding(taken, places))
    }

    fn lock(&self) -> MutexGuard<'_, Line<oneshot::Sender<()>>> {
        // A panic in between leaves the line as lawful as it was.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue_up(self: &Arc<Self>, tier: Tier, deadline: Option<Instant>) -> Entry {
        let now = clock::now();
        let room = self.queue.load(Ordering::Relaxed);
        let wait = Duration::from_nanos(self.wait_nanos.load(Ordering::Relaxed));
        let mut line = self.lock();
        let may = line.may_join(tier, room, self.by_tier);
        if !may || deadline.is_some_and(|deadline| deadline <= now) {
            return Entry::Full;
        }
        let patience = line.patience(tier, wait, now);
        let until = deadline.map_or(now + patience, |d| d.min(now + patience));
        let (sender, call) = oneshot::channel();
        let id = line.join(tier, sender, now);
        if line.len > room {
            // Its sender is dropped, which is how it hears of it.
            drop(line.leave_worst());
        }
        self.note_waiting(&line);
        // Places may have become free before anybody could see that somebody waits.
        self.call_from(&mut line, now);
        Entry::Wait(Turn {
            gate: Arc::clone(self),
            tier,
            id,
            until,
            call,
        })
    }

    fn note_waiting(&self, line: &Line<oneshot::Sender<()>>) {
        self.waiting.store(line.len, Ordering::SeqCst);
    }

    fn call_waiting(&self) {
        let now = clock::now();
        self.call_from(&mut self.lock(), now);
    }

    /// Gives free places to those who wait.
    fn call_from(&self, line: &mut Line<oneshot::Sender<()>>, now: Instant) {
        let wait = Duration::from_nanos(self.wait_nanos.load(Ordering::Relaxed));
        while let Some(tier) = line.best()
            && self.take(tier).is_some()
        {
            let called = line.call(tier, wait, now);
            if called.is_none_or(|call| call.send(()).is_err()) {
                // It has just given up.
                self.taken.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.note_waiting(line);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.taken.fetch_sub(1, Ordering::SeqCst);
        if self.gate.waiting.load(Ordering::SeqCst) > 0 {
            self.gate.call_waiting();
        }
    }
}

impl Turn {
    /// Until there is a place, or no more patience.
    pub(crate) async fn come(mut self) -> Result<Place, Left> {
        let until = self.until;
        match tokio::time::timeout_at(until, &mut self.call).await {
            Ok(Ok(())) => Ok(self.gate.place(self.gate.taken())),
            Ok(Err(_)) => Err(Left::MadeWay),
            // It may have been called a moment ago: then its place is free again once this is dropped.
            Err(_) => Err(Left::TooLong),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.call.is_terminated() {
            return;
        }
        {
            let mut line = self.gate.lock();
            line.leave(self.tier, self.id);
            self.gate.note_waiting(&line);
        }
        if self.call.try_recv().is_ok() {
            // Called, but gone.
            drop(self.gate.place(0));
        }
    }
}

/// Who waits, by tier and in the order of coming. Pure.
#[derive(Debug)]
struct Line<T> {
    tiers: [VecDeque<Waiter<T>>; Tier::ALL.len()],
    len: u32,
    next_id: u64,
    /// When somebody began to wait where nobody did.
    busy_since: Option<Instant>,
    /// When somebody waited last, in an overload that may not be over.
    overloaded_at: Option<Instant>,
}

#[derive(Debug)]
struct Waiter<T> {
    id: u64,
    call: T,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            tiers: std::array::from_fn(|_| VecDeque::new()),
            len: 0,
            next_id: 0,
            busy_since: None,
            overloaded_at: None,
        }
    }
}

impl<T> Line<T> {
    /// Whether one of this tier may join: worse tiers may not where it is nearly full, and any may
    /// where somebody worse can make way.
    fn may_join(&self, tier: Tier, room: u32, by_tier: bool) -> bool {
        if room == 0 {
            return false;
        }
        let is_better = self.worst().is_some_and(|worst| worst > tier);
        if self.len >= room {
            return is_better;
        }
        let filled = f64::from(self.len) / f64::from(room);
        !by_tier || tier == Tier::First || tier.priority() <= threshold(filled)
    }

    /// Asked when somebody waits. An overload is over once nobody had to for a whole `wait`: that the queue is
    /// empty for a moment only means that patience was short.
    fn is_overloaded(&mut self, wait: Duration, now: Instant) -> bool {
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let lasts = since(self.busy_since).is_some_and(|since| since >= wait);
        let goes_on = since(self.overloaded_at).is_some_and(|since| since < wait);
        if lasts || goes_on {
            self.overloaded_at = Some(now);
        }
        lasts || goes_on
    }

    /// Tier 1 keeps its patience: it is not what an overload is made of.
    fn patience(&mut self, tier: Tier, wait: Duration, now: Instant) -> Duration {
        if self.is_overloaded(wait, now) && tier != Tier::First {
            wait / HASTE
        } else {
            wait
        }
    }

    fn join(&mut self, tier: Tier, call: T, now: Instant) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.busy_since.get_or_insert(now);
        self.tiers[tier as usize].push_back(Waiter { id, call });
        self.len += 1;
        id
    }

    fn best(&self) -> Option<Tier> {
        let mut tiers = Tier::ALL.into_iter();
        tiers.find(|tier| !self.tiers[*tier as usize].is_empty())
    }

    fn worst(&self) -> Option<Tier> {
        let mut tiers = Tier::ALL.into_iter().rev();
        tiers.find(|tier| !self.tiers[*tier as usize].is_empty())
    }

    fn call(&mut self, tier: Tier, wait: Duration, now: Instant) -> Option<T> {
        let newest = self.is_overloaded(wait, now);
        let waiting = &mut self.tiers[tier as usize];
        let called = if newest {
            waiting.pop_back()
        } else {
            waiting.pop_front()
        };
        self.note_left(called)
    }

    fn leave_worst(&mut self) -> Option<T> {
        let worst = self.worst()?;
        let gone = self.tiers[worst as usize].pop_front();
        self.note_left(gone)
    }

    /// `None`: it is not there any more.
    fn leave(&mut self, tier: Tier, id: u64) -> Option<T> {
        let waiting = &mut self.tiers[tier as usize];
        // Ids grow within a tier.
        let at = waiting.binary_search_by_key(&id, |waiter| waiter.id).ok()?;
        let gone = waiting.remove(at);
        self.note_left(gone)
    }

    fn note_left(&mut self, gone: Option<Waiter<T>>) -> Option<T> {
        let gone = gone?;
        self.len -= 1;
        if self.len == 0 {
            self.busy_since = None;
        }
        Some(gone.call)
    }
}

#[cfg(test)]
mod tests;
