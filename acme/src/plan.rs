//! When which certificate is ordered: renewal in time, patience after failures, and a bound on
//! orders whatever happens. **Start reading here.**
//!
//! Pure: `now` in, orders to begin out. Called by the runner and nobody else; knows no authority
//! and no disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use sealane_model::Timestamp;

use crate::config::Names;

/// Orders that are under way at once; further ones wait for one to end.
pub const ORDERS_AT_ONCE: usize = 4;
/// Orders begun within any hour, renewals and failures alike; further ones wait. Authorities count
/// as well, and lock out who asks for more: the best-known one at 100 an hour.
pub const ORDERS_PER_HOUR: usize = 60;
/// The pause after a failure grows by this, up to [`PAUSE_MAX`]. With the default of 2 minutes
/// there are four tries in a first hour: one less than the failures that the best-known authority
/// forgives a name.
const PAUSE_FACTOR: u32 = 3;
/// The longest pause between two tries, unless the authority asks for a longer one.
pub const PAUSE_MAX: Duration = Duration::from_secs(12 * 3600);
/// An authority that asks to wait for longer is asked again after this anyway.
pub const ASKED_PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);
/// The shortest time from a certificate's arrival to the next order for it, whatever its dates say.
const RENEWAL_PAUSE_MIN: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// What is known of every certificate that is wanted.
#[derive(Debug)]
pub struct Plan {
    /// As many as the configuration file names.
    certificates: BTreeMap<Names, Track>,
    /// At most [`ORDERS_AT_ONCE`]; also orders for what is not wanted any more.
    under_way: BTreeSet<Names>,
    /// When orders began, within the last hour: at most [`ORDERS_PER_HOUR`].
    begun: VecDeque<Timestamp>,
    /// The authority asked to be left alone until then.
    quiet_until: Timestamp,
    retry: Duration,
    /// Sets this process's moments apart from those of others with the same certificates.
    seed: u64,
}

#[derive(Debug, Default)]
struct Track {
    held: Option<Validity>,
    next: Timestamp,
    /// The authority asked to be left alone with these names until then.
    quiet_until: Timestamp,
    failures: u32,
}

/// An order that is to begin now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub names: Names,
    /// How many orders for it failed since one succeeded.
    pub failures: u32,
}

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Issued(Validity),
    Failed(Asked),
}

/// What the authority asked for along with a refusal (`Retry-After`, RFC 8555 §6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Nothing,
    /// A limit of this account or these names.
    ForThisOrder(Duration),
    /// It is overloaded or being maintained.
    ForAll(Duration),
}

impl Plan {
    #[must_use]
    pub fn new(retry: Duration, seed: u64) -> Self {
        Self {
            certificates: BTreeMap::new(),
            under_way: BTreeSet::new(),
            begun: VecDeque::new(),
            quiet_until: Timestamp::default(),
            retry,
            seed,
        }
    }

    /// From now on these are wanted. `held`: what is there of those that were not wanted before.
    /// What failed is tried again at once, unless the authority asked for patience: whoever reloads
    /// has mended something.
    pub fn want(
        &mut self,
        now: Timestamp,
        retry: Duration,
        wanted: &BTreeSet<Names>,
        held: &dyn Fn(&Names) -> Option<Validity>,
    ) {
        self.retry = retry;
        let mut before = std::mem::take(&mut self.certificates);
        for names in wanted {
            let track = before.remove(names).unwrap_or_else(|| {
                let held = held(names);
                let next = held.map_or(now, |held| self.renewal(names, held));
                Track {
                    held,
                    next,
                    ..Track::default()
                }
            });
            let next = if track.failures > 0 {
                track.quiet_until.max(now)
            } else {
                track.next
            };
            self.certificates
                .insert(names.clone(), Track { next, ..track });
        }
    }

    #[must_use]
    pub fn is_wanted(&self, names: &Names) -> bool {
        self.certificates.contains_key(names)
    }

    /// The orders to begin now, most urgent first; they count as begun. Certificates that are
    /// missing come before those that still serve.
    pub fn begin(&mut self, now: Timestamp) -> Vec<Due> {
        self.follow_clock(now);
        if self.quiet_until > now {
            return Vec::new();
        }
        let waiting = self.certificates.iter().filter(|(_, t)| t.next <= now);
        let mut due: Vec<_> = waiting
            .map(|(names, track)| (track.held.map(|held| held.not_after), names.clone()))
            .collect();
        due.sort();
        let mut begun = Vec::new();
        for (_, names) in due {
            let is_full =
                self.under_way.len() >= ORDERS_AT_ONCE || self.begun.len() >= ORDERS_PER_HOUR;
            if is_full {
                break;
            }
            if self.is_blocked(&names) {
                continue;
            }
            let failures = self.certificates.get(&names).map_or(0, |t| t.failures);
            self.under_way.insert(names.clone());
            self.begun.push_back(now);
            begun.push(Due { names, failures });
        }
        begun
    }

    /// When [`Plan::begin`] may have something to begin. `None`: not before an order ends.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        if self.under_way.len() >= ORDERS_AT_ONCE {
            return None;
        }
        let tracks = self.certificates.iter();
        let next = tracks
            .filter(|(names, _)| !self.is_blocked(names))
            .map(|(_, track)| track.next)
            .min()?;
        let free = match self.begun.front() {
            Some(first) if self.begun.len() >= ORDERS_PER_HOUR => *first + HOUR,
            _ => Timestamp::default(),
        };
        Some(next.max(free).max(self.quiet_until))
    }

    /// Takes an order's end. Says when the next one for these names is due; `None` when they are
    /// not wanted any more.
    pub fn end(&mut self, now: Timestamp, names: &Names, end: End) -> Option<Timestamp> {
        if let End::Failed(Asked::ForAll(pause)) = end {
            self.quiet_until = now + pause.min(ASKED_PAUSE_MAX);
        }
        self.under_way.remove(names);
        let pause = self.pause(names);
        let track = self.certificates.get_mut(names)?;
        match end {
            End::Issued(held) => {
                track.failures = 0;
                track.held = Some(held);
                let renewal = self.renewal(names, held);
                let track = self.certificates.get_mut(names)?;
                track.next = renewal.max(now + RENEWAL_PAUSE_MIN);
            }
            End::Failed(asked) => {
                track.failures = track.failures.saturating_add(1);
                if let Asked::ForThisOrder(asked) = asked {
                    track.quiet_until = now + asked.min(ASKED_PAUSE_MAX);
                }
                track.next = (now + pause).max(track.quiet_until);
            }
        }
        let next = self.certificates.get(names).map(|track| track.next);
        next.map(|next| next.max(self.quiet_until))
    }

    /// What is held of each certificate that is wanted.
    pub fn held(&self) -> impl Iterator<Item = (&Names, Option<Validity>)> {
        self.certificates
            .iter()
            .map(|(names, track)| (names, track.held))
    }

    /// An order that has a name in common is under way: a name's challenge is answered for one
    /// order at a time.
    fn is_blocked(&self, names: &Names) -> bool {
        let mut others = self.under_way.iter();
        others.any(|other| other.iter().any(|name| names.contains(name)))
    }

    /// Forgets orders of more than an hour ago, and pauses that only a clock which was set back can
    /// have made so long: certificates live by the wall clock, and so must this.
    fn follow_clock(&mut self, now: Timestamp) {
        self.begun.retain(|at| *at <= now && now < *at + HOUR);
        let longest = now + ASKED_PAUSE_MAX * 2;
        if self.quiet_until > longest {
            self.quiet_until = now;
        }
        let failed = self.certificates.values_mut().filter(|t| t.failures > 0);
        for track in failed.filter(|track| track.next > longest) {
            (track.next, track.quiet_until) = (now, now);
        }
    }

    /// When a third of the life is left, and up to a thirtieth of the life earlier: processes that
    /// got their certificates together do not all come back together.
    fn renewal(&self, names: &Names, held: Validity) -> Timestamp {
        let life = held.not_after.since(held.not_before);
        let early = (life / 30).mul_f64(self.draw(names, 0));
        held.not_before + (life * 2 / 3).saturating_sub(early)
    }

    /// How long to wait after one more failure: up to a tenth more than the rule says.
    fn pause(&self, names: &Names) -> Duration {
        let failures = self.certificates.get(names).map_or(0, |t| t.failures);
        let factor = PAUSE_FACTOR.saturating_pow(failures.min(16));
        let pause = self.retry.saturating_mul(factor).min(PAUSE_MAX);
        pause + (pause / 10).mul_f64(self.draw(names, failures))
    }

    /// A number of [0, 1) that is the same each time it is asked for.
    fn draw(&self, names: &Names, round: u32) -> f64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, names, round).hash(&mut hasher);
        // The upper 32 bits: exact in a float.
        let upper = u32::try_from(hasher.finish() >> 32).unwrap_or(0);
        f64::from(upper) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests;
