//! Which key is published and which one signs, as a function of their times and of now (RFC 7583).
//!
//! Pure. The times stand in the key files ([`super::key_file`]), where `dnssec-settime` sets them too;
//! what a roll-over sets them to is in [`roll`] and [`ds_seen`].

use std::fmt;
use std::time::Duration;

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime};

use super::key::{Key, Role};

/// A moment in whole seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    #[must_use]
    pub const fn plus(self, time: Duration) -> Self {
        // Part of a second waits for the whole of it.
        let rest = (time.subsec_nanos() > 0) as u64;
        Self(self.0.saturating_add(time.as_secs()).saturating_add(rest))
    }

    /// As RRSIG carries times: modulo 2^32, compared as serial numbers (RFC 4034 §3.1.5).
    #[must_use]
    pub const fn serial(self) -> u32 {
        self.0 as u32
    }

    /// Reads `YYYYMMDDHHMMSS`, in UTC.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 14 || !text.bytes().all(|octet| octet.is_ascii_digit()) {
            return None;
        }
        let (year, rest) = text.split_at(4);
        let two = |at: usize| rest.get(at..at + 2)?.parse::<u8>().ok();
        let month = Month::try_from(two(0)?).ok()?;
        let date = Date::from_calendar_date(year.parse().ok()?, month, two(2)?).ok()?;
        let time = date.with_hms(two(4)?, two(6)?, two(8)?).ok()?;
        let seconds = time.assume_utc().unix_timestamp();
        u64::try_from(seconds).ok().map(Self)
    }
}

impl fmt::Display for Moment {
    /// `YYYYMMDDHHMMSS`, in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = i64::try_from(self.0).ok();
        let time = time.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        // No file can name a later moment.
        let time = time.unwrap_or(PrimitiveDateTime::MAX.assume_utc());
        let (year, month, day) = time.to_calendar_date();
        let (hour, minute, second) = time.to_hms();
        let month = u8::from(month);
        write!(
            f,
            "{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}"
        )
    }
}

/// The moments of a key's life, by the words of BIND's key files. What is `None` never comes, but
/// for `publish` and `activate`: then the key is in use since ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub created: Option<Moment>,
    pub publish: Option<Moment>,
    pub activate: Option<Moment>,
    pub inactive: Option<Moment>,
    pub delete: Option<Moment>,
    /// CDS and CDNSKEY (RFC 7344) ask the parent for this key's DS from then on, …
    pub sync_publish: Option<Moment>,
    /// … and not any more from then on.
    pub sync_delete: Option<Moment>,
}

impl Times {
    fn all(&self) -> [Option<Moment>; 6] {
        [
            self.publish,
            self.activate,
            self.inactive,
            self.delete,
            self.sync_publish,
            self.sync_delete,
        ]
    }

    #[must_use]
    pub fn is_published(&self, now: Moment) -> bool {
        // A key with an activation and no publication is published when it is activated.
        is_between(self.publish.or(self.activate), self.delete, now)
    }

    #[must_use]
    pub fn is_active(&self, now: Moment) -> bool {
        is_between(self.activate, self.inactive, now)
    }

    fn is_synced(&self, now: Moment) -> bool {
        self.sync_publish.is_some() && is_between(self.sync_publish, self.sync_delete, now)
    }
}

fn is_between(from: Option<Moment>, to: Option<Moment>, now: Moment) -> bool {
    from.is_none_or(|from| from <= now) && to.is_none_or(|to| now < to)
}

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet in the zone.
    Future,
    /// In the zone, and signs nothing yet that it would have to (RFC 7583 "published").
    Published,
    Active,
    /// Signs nothing any more; still in the zone for signatures that are remembered.
    Retired,
    Removed,
}

impl State {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Future => "future",
            Self::Published => "published",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Removed => "removed",
        }
    }
}

#[must_use]
pub fn state(times: &Times, now: Moment) -> State {
    if times.delete.is_some_and(|delete| delete <= now) {
        State::Removed
    } else if !times.is_published(now) {
        State::Future
    } else if times.is_active(now) {
        State::Active
    } else if times.inactive.is_some_and(|inactive| inactive <= now) {
        State::Retired
    } else {
        State::Published
    }
}

/// What each key does at a moment: places in the list of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Duties {
    /// In the DNSKEY set.
    pub published: Vec<usize>,
    /// Sign the sets DNSKEY, CDS and CDNSKEY.
    pub sign_keys: Vec<usize>,
    /// Sign everything else.
    pub sign_zone: Vec<usize>,
    /// In CDS and CDNSKEY.
    pub synced: Vec<usize>,
    /// A key signs on although its time is over, because there is no other one: a zone that is
    /// suddenly unsigned is down for everyone who validates.
    pub overdue: bool,
    /// When this changes next.
    pub until: Option<Moment>,
}

/// What `keys` do at `now`. Empty only when there are none.
#[must_use]
pub fn duties(keys: &[&Key], now: Moment) -> Duties {
    let mut duties = Duties {
        until: keys
            .iter()
            .flat_map(|key| key.times.all())
            .flatten()
            .filter(|time| *time > now)
            .min(),
        ..Duties::default()
    };
    for (place, key) in keys.iter().enumerate() {
        if key.times.is_published(now) {
            duties.published.push(place);
            if key.times.is_synced(now) && key.role() == Role::Entry {
                duties.synced.push(place);
            }
        }
    }
    if duties.published.is_empty() {
        let all: Vec<_> = (0..keys.len()).collect();
        duties.published.extend(stand_in(&all, keys));
        duties.overdue = true;
    }
    let mut algorithms: Vec<_> = duties
        .published
        .iter()
        .map(|p| keys[*p].algorithm())
        .collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    for algorithm in algorithms {
        let of_algorithm = |place: &usize| keys[*place].algorithm() == algorithm;
        let published: Vec<_> = duties
            .published
            .iter()
            .copied()
            .filter(of_algorithm)
            .collect();
        let (entry, zone): (Vec<usize>, Vec<usize>) = published
            .iter()
            .partition(|place| keys[**place].role() == Role::Entry);
        let for_zone = if zone.is_empty() { &entry } else { &zone };
        let for_keys = if entry.is_empty() { &zone } else { &entry };
        let mut signing: Vec<_> = for_zone
            .iter()
            .copied()
            .filter(|place| keys[*place].times.is_active(now))
            .collect();
        if signing.is_empty() {
            duties.overdue = true;
            signing.extend(stand_in(for_zone, keys));
        }
        duties.sign_zone.extend(signing);
        // Every published entry key: whichever DS a resolver remembers, it leads to a signature.
        duties.sign_keys.extend(for_keys);
    }
    duties
}

/// Of published keys of which none is active: the one that was last, else the one that will be
/// first.
fn stand_in(places: &[usize], keys: &[&Key]) -> Option<usize> {
    let retired = places.iter().filter(|p| keys[**p].times.inactive.is_some());
    let last = retired.max_by_key(|p| keys[**p].times.inactive);
    let first = places.iter().min_by_key(|p| keys[**p].times.activate);
    last.or(first).copied()
}

/// For how long things are remembered outside: what a roll-over has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// The TTL of the DNSKEY set.
    pub key_ttl: Duration,
    /// The longest TTL of the zone.
    pub zone_ttl: Duration,
    /// The TTL of the DS set, which the parent decides on.
    pub ds_ttl: Duration,
    /// Until all of the zone's servers have a change.
    pub propagation: Duration,
}

impl Delays {
    /// After this everyone knows a new key.
    #[must_use]
    pub const fn key_known(&self) -> Duration {
        self.key_ttl.saturating_add(self.propagation)
    }

    /// After this nobody remembers a signature that is not given any more.
    #[must_use]
    pub const fn signature_forgotten(&self) -> Duration {
        self.zone_ttl.saturating_add(self.propagation)
    }

    /// After this nobody remembers a DS that is not given any more.
    #[must_use]
    pub const fn ds_forgotten(&self) -> Duration {
        self.ds_ttl.saturating_add(self.propagation)
    }
}

/// The times of a zone's first key: in use at once.
#[must_use]
pub const fn first(now: Moment) -> Times {
    Times {
        created: Some(now),
        publish: Some(now),
        activate: Some(now),
        inactive: None,
        delete: None,
        sync_publish: None,
        sync_delete: None,
    }
}

/// The times of a successor that is made now, and those of the key that it succeeds. `role` is
/// [`Role::Entry`] for a key that a DS points to; `alone` when it signs the whole zone.
///
/// Zone keys are published before they sign (RFC 7583 §3.2.1). Entry keys sign the DNSKEY set from
/// the first moment (§3.3.1, Double-KSK); when the old one goes is for [`ds_seen`] to say.
#[must_use]
pub fn roll(old: &Times, role: Role, alone: bool, delays: &Delays, now: Moment) -> (Times, Times) {
    let known = now.plus(delays.key_known());
    let signs_zone = role == Role::Zone || alone;
    let mut new = first(now);
    let mut old = *old;
    if signs_zone {
        new.activate = Some(known);
        old.inactive = Some(known);
    }
    match role {
        Role::Zone => old.delete = Some(known.plus(delays.signature_forgotten())),
        Role::Entry => {
            new.sync_publish = Some(known);
            old.sync_publish = old.sync_publish.or(old.activate).or(Some(now));
            old.sync_delete = Some(known);
        }
    }
    (new, old)
}

/// The times of an entry key once the operator saw, at `now`, that the parent gives the DS of its
/// successor and not its own any more.
#[must_use]
pub fn ds_seen(old: &Times, delays: &Delays, now: Moment) -> Times {
    let ds_gone = now.plus(delays.ds_forgotten());
    let inactive = old.inactive.unwrap_or(ds_gone);
    let signatures_gone = inactive.plus(delays.signature_forgotten());
    let delete = if old.inactive.is_some() {
        ds_gone.max(signatures_gone)
    } else {
        ds_gone
    };
    Times {
        inactive: Some(inactive),
        delete: Some(delete),
        ..*old
    }
}

/// The times of a key that is taken out now, because others do its work.
#[must_use]
pub fn retire(old: &Times, role: Role, delays: &Delays, now: Moment) -> Times {
    let gone = match role {
        Role::Zone => now.plus(delays.signature_forgotten()),
        Role::Entry => now.plus(delays.signature_forgotten().max(delays.ds_forgotten())),
    };
    Times {
        inactive: Some(now),
        delete: Some(gone),
        sync_delete: old.sync_publish.map(|_| now),
        ..*old
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dnssec::key::Algorithm;
    use crate::name::Name;

    const DELAYS: Delays = Delays {
        key_ttl: Duration::from_secs(100),
        zone_ttl: Duration::from_secs(1_000),
        ds_ttl: Duration::from_secs(10_000),
        propagation: Duration::from_secs(7),
    };

    fn key(role: Role, times: Times) -> Key {
        let zone = Name::parse("example", None).unwrap();
        Key::generate(zone, role, Algorithm::Ed25519, times).unwrap()
    }

    fn at(keys: &[&Key], now: u64) -> String {
        let duties = duties(keys, Moment(now));
        format!(
            "in {:?} keys {:?} zone {:?} cds {:?}{}",
            duties.published,
            duties.sign_keys,
            duties.sign_zone,
            duties.synced,
            if duties.overdue { " overdue" } else { "" }
        )
    }

    #[test]
    fn moments_are_written_as_in_key_files() {
        for (seconds, text) in [
            (0, "19700101000000"),
            (951_782_400, "20000229000000"),
            (1_795_297_537, "20261121214537"),
            (4_102_444_799, "20991231235959"),
        ] {
            assert_eq!(Moment(seconds).to_string(), text);
            assert_eq!(Moment::parse(text), Some(Moment(seconds)));
        }
        for text in [
            "",
            "2026112121253",
            "20261321212537",
            "20260229000000",
            "19691231235959",
            "2026112121253x",
        ] {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
        assert_eq!(Moment(u64::MAX).to_string(), "99991231235959");
    }

    #[test]
    fn a_zone_key_is_published_before_it_signs_and_kept_until_it_is_forgotten() {
        let (new, old) = roll(&first(Moment(0)), Role::Zone, false, &DELAYS, Moment(1_000));
        let ksk = key(Role::Entry, first(Moment(0)));
        let (old, new) = (key(Role::Zone, old), key(Role::Zone, new));
        let keys = [&ksk, &old, &new];

        assert_eq!(at(&keys, 999), "in [0, 1] keys [0] zone [1] cds []");
        assert_eq!(at(&keys, 1_106), "in [0, 1, 2] keys [0] zone [1] cds []");
        assert_eq!(at(&keys, 1_107), "in [0, 1, 2] keys [0] zone [2] cds []");
        assert_eq!(at(&keys, 2_113), "in [0, 1, 2] keys [0] zone [2] cds []");
        assert_eq!(at(&keys, 2_114), "in [0, 2] keys [0] zone [2] cds []");
        assert_eq!(duties(&keys, Moment(1_000)).until, Some(Moment(1_107)));
    }

    #[test]
    fn an_entry_key_goes_only_after_its_ds_is_forgotten() {
        let (new, old) = roll(
            &first(Moment(0)),
            Role::Entry,
            false,
            &DELAYS,
            Moment(1_000),
        );
        let zsk = key(Role::Zone, first(Moment(0)));
        let seen = ds_seen(&old, &DELAYS, Moment(5_000));
        let (waiting, new) = (key(Role::Entry, old), key(Role::Entry, new));
        let keys = [&zsk, &waiting, &new];

        assert_eq!(
            at(&keys, 1_000),
            "in [0, 1, 2] keys [1, 2] zone [0] cds [1]"
        );
        assert_eq!(
            at(&keys, 1_107),
            "in [0, 1, 2] keys [1, 2] zone [0] cds [2]"
        );
        assert_eq!(
            at(&keys, 999_999),
            "in [0, 1, 2] keys [1, 2] zone [0] cds [2]"
        );
        let going = key(Role::Entry, seen);
        let keys = [&zsk, &going, &new];
        assert_eq!(
            at(&keys, 15_006),
            "in [0, 1, 2] keys [1, 2] zone [0] cds [2]"
        );
        assert_eq!(at(&keys, 15_007), "in [0, 2] keys [2] zone [0] cds [2]");
    }

    #[test]
    fn a_key_that_does_everything_hands_over_the_zone_first_and_the_ds_later() {
        let (new, old) = roll(&first(Moment(0)), Role::Entry, true, &DELAYS, Moment(1_000));
        let seen = ds_seen(&old, &DELAYS, Moment(5_000));
        let (going, new) = (key(Role::Entry, seen), key(Role::Entry, new));
        let keys = [&going, &new];

        assert_eq!(at(&keys, 1_106), "in [0, 1] keys [0, 1] zone [0] cds [0]");
        assert_eq!(at(&keys, 1_107), "in [0, 1] keys [0, 1] zone [1] cds [1]");
        assert_eq!(at(&keys, 15_006), "in [0, 1] keys [0, 1] zone [1] cds [1]");
        assert_eq!(at(&keys, 15_007), "in [1] keys [1] zone [1] cds [1]");
    }

    #[test]
    fn a_zone_never_stops_being_signed_because_a_time_is_over() {
        let mut times = first(Moment(0));
        times.inactive = Some(Moment(50));
        let old = key(Role::Entry, times);
        assert_eq!(at(&[&old], 60), "in [0] keys [0] zone [0] cds [] overdue");
        times.delete = Some(Moment(70));
        let gone = key(Role::Entry, times);
        assert_eq!(at(&[&gone], 70), "in [0] keys [0] zone [0] cds [] overdue");
    }

    #[test]
    fn both_algorithms_sign_while_both_have_keys() {
        let zone = Name::parse("example", None).unwrap();
        let make = |algorithm| {
            Key::generate(zone.clone(), Role::Entry, algorithm, first(Moment(0))).unwrap()
        };
        let (one, other) = (make(Algorithm::EcdsaP256), make(Algorithm::Ed25519));
        assert_eq!(
            at(&[&one, &other], 1),
            "in [0, 1] keys [0, 1] zone [0, 1] cds []"
        );
    }

    #[test]
    fn states_follow_each_other() {
        let times = Times {
            created: None,
            publish: Some(Moment(10)),
            activate: Some(Moment(20)),
            inactive: Some(Moment(30)),
            delete: Some(Moment(40)),
            ..Times::default()
        };
        let states = [5, 10, 20, 30, 40].map(|now| state(&times, Moment(now)).as_str());
        assert_eq!(
            states,
            ["future", "published", "active", "retired", "removed"]
        );
    }
}
