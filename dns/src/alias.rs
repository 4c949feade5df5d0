//! Names that have the addresses of another name, wherever in the world that one is served: what is known of
//! them, how long it holds, and when to ask again.
//!
//! Pure: who looks them up (`serve::resolver`) hands in what was found, and when. Answers read a
//! [`Source`] without a lock.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use sealane_model::Ttl;

use crate::config::AliasName;
use crate::dnssec::seal::Owner;
use crate::name::Name;
use crate::steer::{ADDRESSES_MAX, Family};

/// What was found is asked for again when its TTL is over, but no sooner, …
const AGAIN_LEAST: u32 = 5;
/// … and no later than this.
const AGAIN_MOST: u32 = 3_600;
/// After a failure sooner, and less and less soon.
const AGAIN_FAILED_MOST: u32 = 60;
/// What could not be found anew is answered with this TTL (RFC 8767 §4), or the name's own if that is less, …
const STALE_TTL: u32 = 30;
/// … until so many seconds after it was found last (RFC 8767 §5). Then the answer is SERVFAIL.
pub const STALE_MAX: u32 = 86_400;

/// An alias of a zone. Fields as in [`AliasName`].
#[derive(Debug)]
pub struct Alias {
    pub owner: Name,
    pub ttl: Ttl,
    pub source: Arc<Source>,
}

impl Alias {
    pub(crate) fn new(alias: &AliasName, source: &Arc<Source>) -> Self {
        Self {
            owner: alias.owner.clone(),
            ttl: alias.ttl,
            source: Arc::clone(source),
        }
    }

    /// As its sets are signed: one signature holds for every lower TTL.
    pub(crate) fn owner(&self) -> Owner<'_> {
        Owner {
            name: self.owner.wire(),
            ttl: self.ttl,
        }
    }
}

/// Another name's addresses, as they were found last. Outlives rules.
#[derive(Debug)]
pub struct Source {
    pub target: Name,
    known: ArcSwap<Known>,
}

/// All that is known of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    v4: OfFamily,
    v6: OfFamily,
    /// Why the last look-up failed, if it did.
    pub failure: Option<Arc<str>>,
    /// Look-ups that failed since the last that did not.
    pub failures: u32,
    /// When it was looked up last, in seconds since 1970; 0: never.
    pub tried: u32,
}

/// Addresses of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OfFamily {
    /// `None`: never found. Empty: the target has none.
    last: Option<Found>,
    /// It could not be found anew.
    failing: bool,
}

/// What a look-up of one family found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Empty: there are none.
    pub addresses: Arc<[IpAddr]>,
    /// When, in seconds since 1970.
    pub at: u32,
    /// How long it may be kept.
    pub ttl: u32,
}

/// What a question about an alias is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'k> {
    Addresses {
        addresses: &'k [IpAddr],
        ttl: Ttl,
        stale: bool,
    },
    /// The target has addresses of the other family alone.
    NoData { ttl: Ttl },
    /// `tried`: it was looked for, in vain.
    NotKnown { tried: bool },
}

impl Source {
    #[must_use]
    pub fn new(target: Name) -> Self {
        Self {
            target,
            known: ArcSwap::default(),
        }
    }

    pub fn known(&self) -> Guard<Arc<Known>> {
        self.known.load()
    }

    /// Takes in what a look-up found. Whether other addresses are answered from now on.
    ///
    /// A target that has no address at all, of either family, is taken for a failure: what was good goes on.
    pub fn learn(&self, now: u32, v4: Result<Found, String>, v6: Result<Found, String>) -> bool {
        let before = self.known.load();
        let mut known = Known::clone(&before);
        known.tried = now;
        let none_at_all = |known: &Known| {
            let empty = |family: &OfFamily| family.last.as_ref().is_none_or(Found::is_empty);
            empty(&known.v4) && empty(&known.v6)
        };
        let error = v4.as_ref().err().or_else(|| v6.as_ref().err()).cloned();
        known.v4.learn(v4);
        known.v6.learn(v6);
        if none_at_all(&known) {
            known.v4 = before.v4.failed();
            known.v6 = before.v6.failed();
            let error = error.unwrap_or_else(|| "it has no address".to_owned());
            known.failure = Some(error.into());
        } else {
            known.failure = error.map(Into::into);
        }
        known.failures = known.failure.as_ref().map_or(0, |_| before.failures + 1);
        let changed = known.addresses() != before.addresses();
        self.known.store(Arc::new(known));
        changed
    }
}

impl Found {
    /// Addresses as they were told, each once, and of too many the first ones.
    #[must_use]
    pub fn new(told: impl IntoIterator<Item = IpAddr>, at: u32, ttl: u32) -> Self {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in told {
            if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Self {
            addresses: addresses.into(),
            at,
            ttl,
        }
    }

    fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }
}

impl OfFamily {
    fn learn(&mut self, found: Result<Found, String>) {
        self.failing = found.is_err();
        if let Ok(found) = found {
            self.last = Some(found);
        }
    }

    fn failed(&self) -> Self {
        Self {
            last: self.last.clone(),
            failing: true,
        }
    }
}

impl Known {
    const fn of(&self, family: Family) -> &OfFamily {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// For an answer at this time with a TTL of at most `bound`.
    #[must_use]
    pub fn told(&self, family: Family, bound: Ttl, now: u32) -> Told<'_> {
        let of_family = self.of(family);
        let tried = self.tried != 0;
        let Some(found) = &of_family.last else {
            return Told::NotKnown { tried };
        };
        let age = now.saturating_sub(found.at);
        if of_family.failing && age > found.ttl.max(STALE_MAX) {
            return Told::NotKnown { tried };
        }
        let stale = of_family.failing && age >= found.ttl;
        // While it is asked for anew it holds a moment longer.
        let left = match stale {
            true => STALE_TTL,
            false => found.ttl.saturating_sub(age).max(1),
        };
        let ttl = bound.min(Ttl::from_secs(left));
        match found.is_empty() {
            true => Told::NoData { ttl },
            false => Told::Addresses {
                addresses: &found.addresses,
                ttl,
                stale,
            },
        }
    }

    /// Those of both families, as they were found last.
    #[must_use]
    pub fn addresses(&self) -> [&[IpAddr]; 2] {
        [&self.v4, &self.v6].map(|family| {
            let last = family.last.as_ref();
            last.map_or(&[][..], |found| &found.addresses)
        })
    }

    /// When something was found last, in seconds since 1970.
    #[must_use]
    pub fn found_at(&self) -> Option<u32> {
        let found = [&self.v4, &self.v6].map(|family| family.last.as_ref().map(|last| last.at));
        found.into_iter().flatten().min()
    }

    /// When to look it up again.
    #[must_use]
    pub fn due(&self) -> u32 {
        let ttls = [&self.v4, &self.v6].map(|family| family.last.as_ref().map(|last| last.ttl));
        let least = ttls.into_iter().flatten().min().unwrap_or(AGAIN_LEAST);
        let wait = match self.failures {
            _ if self.tried == 0 => 0,
            0 => least.clamp(AGAIN_LEAST, AGAIN_MOST),
            failures => (AGAIN_LEAST << failures.min(5) >> 1).min(AGAIN_FAILED_MOST),
        };
        self.tried.saturating_add(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Ttl = Ttl::from_secs(60);

    fn source() -> Source {
        Source::new(Name::parse("lb.example.net", None).unwrap())
    }

    fn found(addresses: &[&str], at: u32, ttl: u32) -> Result<Found, String> {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        Ok(Found::new(addresses, at, ttl))
    }

    fn lost() -> Result<Found, String> {
        Err("no answer in time".to_owned())
    }

    fn told(source: &Source, family: Family, now: u32) -> String {
        match source.known().told(family, BOUND, now) {
            Told::Addresses {
                addresses,
                ttl,
                stale,
            } => {
                let stale = if stale { " stale" } else { "" };
                format!("{addresses:?} {}{stale}", ttl.as_secs())
            }
            Told::NoData { ttl } => format!("none {}", ttl.as_secs()),
            Told::NotKnown { tried } => format!("not known, tried: {tried}"),
        }
    }

    #[test]
    fn an_address_holds_for_what_is_left_of_its_ttl_within_the_bound() {
        let source = source();
        assert_eq!(told(&source, Family::V4, 1_000), "not known, tried: false");
        assert!(source.learn(
            1_000,
            found(&["192.0.2.1"], 1_000, 300),
            found(&[], 1_000, 20)
        ));
        for (now, v4, v6) in [
            (1_000, "[192.0.2.1] 60", "none 20"),
            (1_250, "[192.0.2.1] 50", "none 1"),
            (1_300, "[192.0.2.1] 1", "none 1"),
        ] {
            assert_eq!(told(&source, Family::V4, now), v4, "{now}");
            assert_eq!(told(&source, Family::V6, now), v6, "{now}");
        }
        assert_eq!(source.known().due(), 1_020);
        // The same again is no change, others are one.
        assert!(!source.learn(
            1_020,
            found(&["192.0.2.1"], 1_020, 300),
            found(&[], 1_020, 20)
        ));
        assert!(source.learn(
            1_040,
            found(&["192.0.2.2"], 1_040, 300),
            found(&[], 1_040, 20)
        ));
    }

    #[test]
    fn what_is_not_found_anew_stays_for_a_day() {
        let source = source();
        assert!(!source.learn(1_000, lost(), lost()));
        assert_eq!(told(&source, Family::V4, 1_000), "not known, tried: true");
        source.learn(
            1_010,
            found(&["192.0.2.1"], 1_010, 40),
            found(&["2001:db8::1"], 1_010, 40),
        );
        assert!(!source.learn(1_050, lost(), found(&["2001:db8::1"], 1_050, 40)));
        assert_eq!(told(&source, Family::V4, 1_050), "[192.0.2.1] 30 stale");
        assert_eq!(told(&source, Family::V6, 1_050), "[2001:db8::1] 40");
        assert_eq!(source.known().failure.as_deref(), Some("no answer in time"));
        // The name is gone, or has lost all of its addresses: what was good goes on.
        for (v4, v6) in [
            (found(&[], 1_060, 5), found(&[], 1_060, 5)),
            (lost(), lost()),
        ] {
            assert!(!source.learn(1_060, v4, v6));
            assert_eq!(told(&source, Family::V4, 87_410), "[192.0.2.1] 30 stale");
        }
        assert_eq!(told(&source, Family::V4, 87_411), "not known, tried: true");
    }

    #[test]
    fn failures_are_followed_by_ever_rarer_attempts() {
        let source = source();
        assert_eq!(source.known().due(), 0);
        let waits: Vec<u32> = (0..6)
            .map(|number| {
                let now = 1_000 * (number + 1);
                source.learn(now, lost(), lost());
                source.known().due() - now
            })
            .collect();
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        for (ttl, wait) in [(0, 5), (70, 70), (86_400, 3_600)] {
            source.learn(
                9_000,
                found(&["192.0.2.1"], 9_000, ttl),
                found(&[], 9_000, 86_400),
            );
            assert_eq!(source.known().due(), 9_000 + wait);
        }
    }

    #[test]
    fn of_too_many_addresses_the_first_ones_count() {
        let many = (0..=255_u8)
            .chain(0..=255)
            .map(|n| IpAddr::from([192, 0, 2, n]));
        let found = Found::new(many, 0, 0);
        assert_eq!(found.addresses.len(), ADDRESSES_MAX);
    }
}
