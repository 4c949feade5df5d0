//! Some questions with their answers, for those who want to see them: the query log and dnstap.
//!
//! Called by the threads that answer: draws whether a question is one of the sample, copies it, and hands it over
//! to a thread that writes ([`writer`]). Never waits: what finds no room is counted and gone.

pub(crate) mod dnstap;
pub(crate) mod log;
pub(crate) mod writer;

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, TrySendError};

use metrics::{Counter, counter};
use sealane_model::Ratio;

use crate::config::Dnstap;
use crate::engine::{Answered, Transport};
use crate::limit::Verdict;

/// Questions that wait to be written, for each place that they are written to; more are dropped.
pub(crate) const WAITING_MAX: usize = 4_096;

/// Where questions are told. Part of the rules; `None` there when nobody wants to see any.
#[derive(Clone, Debug)]
pub(crate) struct Taps {
    pub(crate) outlets: Vec<Outlet>,
}

/// What is written somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Log,
    /// Whatever the share of questions.
    Dnstap(Dnstap),
}

impl To {
    /// As metrics call it.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Dnstap(_) => "dnstap",
        }
    }
}

/// Who one kind of record is handed to.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    pub(crate) to: To,
    /// Of 2^32 questions so many.
    sample: u64,
    sender: SyncSender<Seen>,
    dropped: Counter,
}

/// One question as it was seen where it was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glimpse<'a> {
    pub(crate) client: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) message: &'a [u8],
    /// What its answer says, be it sent or not; `None` when it gets none.
    pub(crate) answered: Option<Answered>,
    /// What became of the answer.
    pub(crate) verdict: Verdict,
    /// What is sent; empty when nothing is.
    pub(crate) reply: &'a [u8],
    /// Seconds since 1970, and nanoseconds.
    pub(crate) at: (u64, u32),
}

/// The same, to be taken elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) client: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) answered: Option<Answered>,
    pub(crate) verdict: Verdict,
    pub(crate) at: (u64, u32),
    /// The message, and what was sent back.
    octets: Box<[u8]>,
    message_length: usize,
}

impl Seen {
    pub(crate) fn new(glimpse: &Glimpse<'_>) -> Self {
        Self {
            client: glimpse.client,
            transport: glimpse.transport,
            answered: glimpse.answered,
            verdict: glimpse.verdict,
            at: glimpse.at,
            octets: [glimpse.message, glimpse.reply].concat().into(),
            message_length: glimpse.message.len(),
        }
    }

    pub(crate) fn message(&self) -> &[u8] {
        &self.octets[..self.message_length]
    }

    /// Empty when nothing was sent.
    pub(crate) fn reply(&self) -> &[u8] {
        &self.octets[self.message_length..]
    }
}

impl Taps {
    /// `None` where there is no outlet.
    pub(crate) fn of(outlets: Vec<Outlet>) -> Option<Box<Self>> {
        (!outlets.is_empty()).then(|| Box::new(Self { outlets }))
    }

    pub(crate) fn see(&self, glimpse: &Glimpse<'_>) {
        for outlet in &self.outlets {
            if draw() < outlet.sample {
                outlet.hand_over(glimpse);
            }
        }
    }
}

impl Outlet {
    pub(crate) fn new(to: To, sample: Ratio, sender: SyncSender<Seen>) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "at most 2^32")]
        let sample = (sample.get() * WHOLE) as u64;
        Self {
            sample,
            sender,
            dropped: counter!("dns_tap_dropped_total", "to" => to.word()),
            to,
        }
    }

    #[cold]
    fn hand_over(&self, glimpse: &Glimpse<'_>) {
        match self.sender.try_send(Seen::new(glimpse)) {
            // Without a receiver the rules are about to be replaced.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => self.dropped.increment(1),
        }
    }
}

/// All that [`draw`] may give.
const WHOLE: f64 = 4_294_967_296.0;

/// A number below 2^32, by chance. Which questions are told of need not be hard to guess.
fn draw() -> u64 {
    thread_local! {
        /// Weyl's sequence, mixed (splitmix64, Steele 2014).
        static STATE: Cell<u64> = const { Cell::new(0) };
    }
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    STATE.with(|state| {
        let next = state.get().wrapping_add(STEP);
        state.set(next);
        let mixed = (next ^ next >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) >> 32
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn glimpse() -> Glimpse<'static> {
        Glimpse {
            client: "192.0.2.1:5353".parse().unwrap(),
            transport: Transport::Udp,
            message: b"question",
            answered: None,
            verdict: Verdict::Send,
            reply: b"answer",
            at: (1, 2),
        }
    }

    #[test]
    fn a_share_of_questions_is_handed_over_with_what_was_sent() {
        for (share, range) in [(0.0, 0..=0), (0.1, 900..=1_100), (1.0, 10_000..=10_000)] {
            let (sender, receiver) = sync_channel(10_000);
            let outlet = Outlet::new(To::Log, Ratio::new(share).unwrap(), sender);
            let taps = Taps::of(vec![outlet]).unwrap();
            (0..10_000).for_each(|_| taps.see(&glimpse()));
            let seen: Vec<_> = receiver.try_iter().collect();
            assert!(range.contains(&seen.len()), "{share}: {}", seen.len());
            let as_sent = |seen: &Seen| seen.message() == b"question" && seen.reply() == b"answer";
            assert!(seen.iter().all(as_sent));
        }
    }

    #[test]
    fn what_finds_no_room_is_gone() {
        let (sender, receiver) = sync_channel(2);
        let outlet = Outlet::new(To::Log, Ratio::new(1.0).unwrap(), sender);
        let taps = Taps::of(vec![outlet]).unwrap();
        (0..5).for_each(|_| taps.see(&glimpse()));
        assert_eq!(receiver.try_iter().count(), 2);
        drop(receiver);
        taps.see(&glimpse());
    }
}
