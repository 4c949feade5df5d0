//! Which serial which contents of a zone have, and what came from primaries: outlives rules.
//!
//! Locks are taken while rules are compiled, when a transfer ends and at a NOTIFY; never for an answer.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealane_model::{Snapshot, Ttl};
use tokio::sync::Notify;

use super::desk::{Desk, DeskZone};
use super::rules::{OfZone, Outgoing};
use super::serial::{after, is_newer};
use super::version::{Contents, Version, digest, flatten, snapshot};
use crate::config::{Config, Soa, Zone};
use crate::dnssec::timing::Moment;
use crate::name::Name;
use crate::record::Record;
use crate::rules::Rules;

/// What all rules of this process share.
#[derive(Debug, Default)]
pub struct Book {
    pages: Mutex<Pages>,
    /// Transfers on their way out.
    pub(crate) sendings: Arc<AtomicUsize>,
    /// Somebody was told something.
    pub(crate) wake: Notify,
}

#[derive(Debug, Default)]
struct Pages {
    /// By zone that others may have.
    lines: HashMap<Name, Line>,
    /// What primaries gave; by zone that is secondary here.
    held: HashMap<Name, Arc<Held>>,
    /// Zones whose primaries said that they changed. Holds no more than there are such zones.
    notified: BTreeSet<Name>,
    statuses: Vec<Status>,
}

#[derive(Debug, Default)]
struct Line {
    /// As it was issued last, be it that no rules have it yet.
    last: Option<Arc<Version>>,
    /// From before the start: a serial, and the digest of what had it.
    remembered: Option<Issued>,
}

/// What has a serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    pub serial: u32,
    pub digest: u128,
}

/// A zone as its primary gave it.
#[derive(Debug)]
pub struct Held {
    pub soa: Soa,
    /// As it came.
    pub soa_record: Record,
    /// All but the SOA.
    pub records: Vec<Record>,
    pub from: SocketAddr,
    /// When a primary last said that this is what it has, in seconds since 1970.
    pub heard_at: AtomicU64,
    /// The primary was not heard of for too long (RFC 1035 §3.3.13, EXPIRE).
    pub is_expired: bool,
}

impl Held {
    pub(crate) fn heard_at(&self) -> Moment {
        Moment(self.heard_at.load(Ordering::Relaxed))
    }

    /// The same, whether or not it may be answered.
    pub(crate) fn expired(&self, is_expired: bool) -> Self {
        Self {
            soa: self.soa.clone(),
            soa_record: self.soa_record.clone(),
            records: self.records.clone(),
            from: self.from,
            heard_at: AtomicU64::new(self.heard_at().0),
            is_expired,
        }
    }
}

/// How a zone stands with its primaries, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub zone: String,
    /// `None`: it has none yet, or expired.
    pub serial: Option<u32>,
    /// It is another server's.
    pub is_secondary: bool,
    /// Who gave it.
    pub from: Option<SocketAddr>,
    /// When a primary was last heard of, and when the zone ends if none is; seconds since 1970.
    pub heard_at: Option<u64>,
    pub expires_at: Option<u64>,
    /// In a row.
    pub failures: u32,
    /// Why the last try failed, if it did.
    pub error: Option<String>,
    /// How many servers were told of this serial and have answered, and how many were to be told.
    pub told: (usize, usize),
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        // Whatever a panic left there is whole: each change is one insertion.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn notified(&self, zone: &Name) {
        self.pages().notified.insert(zone.clone());
        self.wake.notify_one();
    }

    pub(crate) fn take_notified(&self) -> BTreeSet<Name> {
        std::mem::take(&mut self.pages().notified)
    }

    pub(crate) fn set_statuses(&self, statuses: Vec<Status>) {
        self.pages().statuses = statuses;
    }

    pub(crate) fn statuses(&self) -> Vec<Status> {
        self.pages().statuses.clone()
    }

    pub(crate) fn held(&self, zone: &Name) -> Option<Arc<Held>> {
        self.pages().held.get(zone).cloned()
    }

    pub(crate) fn hold(&self, zone: &Name, held: Held) -> Arc<Held> {
        let held = Arc::new(held);
        self.pages().held.insert(zone.clone(), Arc::clone(&held));
        held
    }

    /// Forgets what no rule names any more.
    pub(crate) fn forget_but(&self, config: &Config) {
        let zones: HashMap<&Name, &OfZone> = config
            .zones
            .iter()
            .map(|zone| (&zone.apex, &zone.transfers))
            .collect();
        let mut pages = self.pages();
        pages.held.retain(|zone, _| {
            zones
                .get(zone)
                .is_some_and(|rules| rules.secondary.is_some())
        });
        pages.lines.retain(|zone, _| zones.contains_key(zone));
    }

    pub(crate) fn last(&self, zone: &Name) -> Option<Arc<Version>> {
        self.pages().lines.get(zone)?.last.clone()
    }

    /// What a zone had before the start. Of no effect once it was issued a serial.
    pub(crate) fn remember(&self, zone: &Name, issued: Issued) {
        let mut pages = self.pages();
        pages
            .lines
            .entry(zone.clone())
            .or_default()
            .remembered
            .get_or_insert(issued);
    }

    /// What to remember for the next start.
    pub(crate) fn issued(&self, zone: &Name) -> Option<Issued> {
        self.pages().lines.get(zone)?.remembered
    }

    /// The version of a zone that has no steered names, with a serial that grew if its contents changed.
    fn issue(&self, flat: &mut Zone, now: Moment, before: Option<&Rules>) -> Option<Arc<Version>> {
        let is_pinned = is_verbatim(flat);
        let written = flat.soa.serial;
        let before = before.map(|rules| &rules.table);
        // Compiling may take long: the lock is not held. Whoever was faster is seen below.
        loop {
            let last = self.last(&flat.apex);
            if let Some(last) = &last {
                flat.soa.serial = last.serial;
            }
            let earlier = last.as_ref().and_then(|last| last.table.as_ref());
            let contents = Contents::of(flat, now, earlier.or(before))?;
            let of_now = digest(&contents);
            let remembered = self.issued(&flat.apex);
            let (serial, is_new) = match (&last, remembered) {
                _ if is_pinned => (written, last.as_ref().is_none_or(|l| l.serial != written)),
                (Some(last), _) => {
                    let is_same = contents.is_like(last);
                    let serial = next_serial(written, last.serial, is_same);
                    (serial, serial != last.serial)
                }
                (None, Some(issued)) => {
                    let is_same = issued.digest == of_now;
                    (next_serial(written, issued.serial, is_same), true)
                }
                (None, None) => (written, true),
            };
            if !is_new && let Some(last) = last {
                flat.soa.serial = serial;
                return Some(last);
            }
            flat.soa.serial = serial;
            let contents = contents.renumbered(flat, now)?;
            let issued = Issued {
                serial,
                digest: digest(&contents),
            };
            let version = Arc::new(contents.into_version(last.as_deref()));
            let mut pages = self.pages();
            let line = pages.lines.entry(flat.apex.clone()).or_default();
            let is_still = match (&line.last, &last) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            };
            if is_still {
                line.last = Some(Arc::clone(&version));
                line.remembered = Some(issued);
                return Some(version);
            }
        }
    }
}

/// What its primary says is said on, the serial included.
fn is_verbatim(flat: &Zone) -> bool {
    flat.transfers.secondary.is_some() && flat.dnssec.is_none() && !flat.is_overlaid
}

/// The serial of a zone, that of its file being `written`.
fn next_serial(written: u32, last: u32, is_same: bool) -> u32 {
    match is_same {
        _ if is_newer(written, last) => written,
        true => last,
        false => after(last),
    }
}

/// Compiles rules: secondary zones are filled with what their primaries gave, and zones that others may have
/// get their serials.
pub(crate) fn compile(
    config: &Config,
    book: &Arc<Book>,
    world: &Snapshot,
    now: Moment,
    before: Option<&Rules>,
) -> Rules {
    let concerned = |zone: &Zone| {
        let OfZone {
            outgoing,
            secondary,
        } = &zone.transfers;
        outgoing.is_some() || secondary.is_some()
    };
    if !config.zones.iter().any(concerned) {
        return Rules::compile_at(config, now, before);
    }
    let mut filled = config.clone();
    let mut desk = HashMap::new();
    for zone in filled.zones.iter_mut().filter(|zone| concerned(zone)) {
        let mut held = None;
        if zone.transfers.secondary.is_some() {
            held = book.held(&zone.apex);
            fill(zone, held.as_deref());
        }
        let outgoing = zone.transfers.outgoing.clone();
        let (version, snapshot) = match outgoing {
            Some(outgoing) if !zone.is_void => publish(zone, &outgoing, book, world, now, before),
            _ => (None, Vec::new()),
        };
        let of_zone = DeskZone {
            rules: zone.transfers.clone(),
            held,
            version,
            snapshot,
        };
        desk.insert(zone.apex.clone(), of_zone);
    }
    let mut rules = Rules::compile_at(&filled, now, before);
    rules.config = Some(Arc::new(config.clone()));
    rules.transfers = Some(Box::new(Desk::new(desk, Arc::clone(book))));
    rules
}

/// A secondary zone has what its primary gave, or nothing that could be answered.
pub(crate) fn fill(zone: &mut Zone, held: Option<&Held>) {
    let Some(held) = held.filter(|held| !held.is_expired) else {
        zone.is_void = true;
        zone.records = Vec::new();
        zone.steered = Vec::new();
        zone.dnssec = None;
        return;
    };
    zone.soa = held.soa.clone();
    zone.records = held.records.clone();
    zone.is_overlaid = !zone.steered.is_empty();
}

fn publish(
    zone: &mut Zone,
    outgoing: &Outgoing,
    book: &Book,
    world: &Snapshot,
    now: Moment,
    before: Option<&Rules>,
) -> (Option<Arc<Version>>, Vec<Record>) {
    let snapshot = snapshot(zone, outgoing.steered, world);
    let mut flat = flatten(zone, snapshot.clone());
    let version = book.issue(&mut flat, now, before);
    if version.is_some() {
        zone.soa.serial = flat.soa.serial;
    }
    (version, snapshot)
}

/// The SOA of a zone of which nothing is known.
pub(crate) fn no_soa(apex: &Name) -> Soa {
    let zero = Ttl::from_secs(0);
    Soa {
        ttl: zero,
        primary: apex.clone(),
        mailbox: apex.clone(),
        serial: 0,
        refresh: zero,
        retry: zero,
        expire: zero,
        minimum: zero,
    }
}

#[cfg(test)]
mod tests;
