//! BORDER. A transfer on its way out, message by message. Holds the version that it began with to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use domain::tsig::ServerSequence;

use super::key::TsigKey;
use super::message::{self, Request};
use super::version::{Step, Version};
use crate::dnssec::timing::Moment;
use crate::name::Name;
use crate::record::Record;
use crate::wire::Rcode;

/// Transfers at once; who asks for one more is answered SERVFAIL and comes back.
pub const SENDINGS_MAX: usize = 32;

/// A stretch of a transfer.
#[derive(Debug)]
enum Part {
    Soa(Record),
    All(Arc<Version>),
    Removed(Arc<Step>),
    Added(Arc<Step>),
}

impl Part {
    fn get(&self, place: usize) -> Option<&Record> {
        match self {
            Self::Soa(soa) => (place == 0).then_some(soa),
            Self::All(version) => version.records.get(place),
            Self::Removed(step) => step.removed.get(place),
            Self::Added(step) => step.added.get(place),
        }
    }
}

/// One of [`SENDINGS_MAX`], given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn(Arc<AtomicUsize>);

impl Turn {
    pub(crate) fn take(taken: &Arc<AtomicUsize>) -> Option<Self> {
        let before = taken.fetch_add(1, Ordering::Relaxed);
        // Dropped at once, if it is one too many.
        let turn = Self(Arc::clone(taken));
        (before < SENDINGS_MAX).then_some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A record is too large for any message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record is too large for a message")]
pub struct TooLarge;

/// A transfer under way.
#[derive(Debug)]
pub struct Sending {
    /// What the client has at its end.
    pub serial: u32,
    is_whole: bool,
    request: Request,
    signer: Option<ServerSequence<TsigKey>>,
    parts: Vec<Part>,
    /// Which part comes next, and which record of it.
    part: usize,
    place: usize,
    _turn: Option<Turn>,
}

impl Sending {
    pub(crate) fn new(
        request: Request,
        signer: Option<ServerSequence<TsigKey>>,
        what: &What,
        turn: Option<Turn>,
    ) -> Self {
        let (What::Soa(version) | What::Whole(version) | What::Steps(version, _)) = what;
        Self {
            serial: version.serial,
            is_whole: matches!(what, What::Whole(_)),
            request,
            signer,
            parts: what.parts(),
            part: 0,
            place: 0,
            _turn: turn,
        }
    }

    /// A whole zone as it is kept, with the id 0. `None`: it has no lawful name.
    pub(crate) fn to_disk(apex: &Name, version: Arc<Version>) -> Option<Self> {
        let now = Moment(0);
        let (octets, _) = message::question(0, apex, message::Ask::Axfr, None, now).ok()?;
        let request = Request::from_octets(octets).ok()?;
        Some(Self::new(request, None, &What::Whole(version), None))
    }

    /// For people.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        if self.is_whole { "axfr" } else { "ixfr" }
    }

    #[must_use]
    pub fn zone(&self) -> Name {
        let first = self.parts.first().and_then(|part| part.get(0));
        first.map_or_else(Name::root, |soa| soa.owner.clone())
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// [`TooLarge`]: the transfer cannot be ended.
    pub fn next(&mut self, now: Moment) -> Option<Result<Vec<u8>, TooLarge>> {
        self.current()?;
        let mut answer = message::answer(&self.request, Rcode::NoError);
        answer.header_mut().set_aa(true);
        let mut count = 0;
        while let Some(record) = self.current() {
            if message::push(&mut answer, record).is_err() {
                break;
            }
            count += 1;
            self.place += 1;
        }
        if count == 0 {
            return Some(Err(TooLarge));
        }
        let signer = self.signer.as_mut();
        let whole = message::finish(answer, &self.request, signer, now);
        Some(whole.map_err(|_| TooLarge))
    }

    fn current(&mut self) -> Option<&Record> {
        // By place, and not by reference, for the borrow checker's sake.
        while self.parts.get(self.part)?.get(self.place).is_none() {
            self.part += 1;
            self.place = 0;
        }
        self.parts.get(self.part)?.get(self.place)
    }
}

/// What is sent.
#[derive(Debug)]
pub(crate) enum What {
    /// Just the SOA: there is nothing newer.
    Soa(Arc<Version>),
    Whole(Arc<Version>),
    /// From the place of the first step among the version's.
    Steps(Arc<Version>, usize),
}

impl What {
    fn parts(&self) -> Vec<Part> {
        match self {
            Self::Soa(version) => vec![Part::Soa(version.soa.clone())],
            Self::Whole(version) => vec![
                Part::Soa(version.soa.clone()),
                Part::All(Arc::clone(version)),
                Part::Soa(version.soa.clone()),
            ],
            Self::Steps(version, first) => {
                let mut parts = vec![Part::Soa(version.soa.clone())];
                for step in version.steps.iter().skip(*first) {
                    parts.push(Part::Soa(step.from.clone()));
                    parts.push(Part::Removed(Arc::clone(step)));
                    parts.push(Part::Soa(step.to.clone()));
                    parts.push(Part::Added(Arc::clone(step)));
                }
                parts.push(Part::Soa(version.soa.clone()));
                parts
            }
        }
    }
}
