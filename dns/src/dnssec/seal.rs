//! Signs a whole zone while rules are compiled, and steered sets when they are first answered.
//!
//! What an earlier table signed by the same keys is taken over while it holds for long enough, so that
//! a reload of a large zone signs what changed. The time comes in as [`Moment`]; nothing here waits.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sealane_model::Ttl;
use smallvec::SmallVec;
use tracing::error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::chain::{Chain, Denial, Entry, as_signed, lends, nsec_data, right_after};
use super::kept::{Kept, key as kept_key};
use super::key::Key;
use super::sign::{Data, Period, Set, Signature, sign};
use super::timing::{Duties, Moment, duties};
use crate::config;
use crate::name::Name;
use crate::record::Record;
use crate::wire::rtype;
use crate::zone::RecordSet;

/// Inception lies this much in the past, for resolvers whose clocks are slow.
const BACKDATED: Duration = Duration::from_secs(3_600);

/// What a signed zone has besides its records.
#[derive(Debug)]
pub(crate) struct Sealed {
    apex: Name,
    zone_keys: Vec<Arc<Key>>,
    entry_keys: Vec<Arc<Key>>,
    /// For signatures made from now on.
    period: Period,
    pub(crate) denial: Denial,
    pub(crate) chain: Chain,
    /// The SOA's, for negative answers.
    pub(crate) soa: Option<Arc<Signature>>,
    pub(crate) kept: Kept,
    signatures_per_second: u32,
    pub(crate) made_at: Moment,
    /// The end of the signature that ends first.
    pub(crate) expiration: Moment,
    /// When the zone is to be compiled again: keys change their duties, or signatures grow old.
    pub(crate) until: Moment,
    /// Signatures made while it was compiled, and taken over.
    pub(crate) made: u64,
    pub(crate) taken_over: u64,
}

/// A signature for one answer.
#[derive(Debug)]
pub(crate) enum Given<'s> {
    Kept(&'s Signature),
    /// There was no room to keep it.
    Once(Signature),
}

impl AsRef<Signature> for Given<'_> {
    fn as_ref(&self) -> &Signature {
        match self {
            Self::Kept(signature) => signature,
            Self::Once(signature) => signature,
        }
    }
}

/// Whose set is signed, and by which TTL: the largest that it is answered with.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'n> {
    pub(crate) name: &'n [u8],
    pub(crate) ttl: Ttl,
}

impl<'n> Owner<'n> {
    /// `data`: in order.
    fn set(self, rtype: u16, data: Data<'n>) -> Set<'n> {
        Set {
            owner: self.name,
            rtype,
            ttl: self.ttl.as_secs(),
            data,
        }
    }
}

impl Sealed {
    /// The signature of a steered set. `None`: too many were made in this second.
    pub(crate) fn addresses(
        &self,
        owner: Owner<'_>,
        rtype: u16,
        addresses: &[IpAddr],
        keep: bool,
    ) -> Option<Given<'_>> {
        let octets = in_order(addresses);
        self.given(&owner.set(rtype, slices(&octets)), keep)
    }

    /// The signature of a steered set of one record. `None`: too many were made in this second.
    pub(crate) fn single(
        &self,
        owner: Owner<'_>,
        rtype: u16,
        data: &[u8],
        keep: bool,
    ) -> Option<Given<'_>> {
        self.given(&owner.set(rtype, Data::from_slice(&[data])), keep)
    }

    fn given(&self, set: &Set<'_>, keep: bool) -> Option<Given<'_>> {
        if keep {
            self.kept_signature(set, true)
        } else {
            self.once(set).map(Given::Once)
        }
    }

    /// The signature of a set whose data are in order, made now if need be.
    fn kept_signature(&self, set: &Set<'_>, is_asked: bool) -> Option<Given<'_>> {
        let key = kept_key(set);
        if let Some(kept) = self.kept.get(&key) {
            return Some(Given::Kept(kept));
        }
        if is_asked && !self.kept.allow() {
            return None;
        }
        let signature = self.sign_now(set)?;
        match self.kept.put(&key, signature, is_asked) {
            Ok(()) => self.kept.get(&key).map(Given::Kept),
            Err(signature) => Some(Given::Once(signature)),
        }
    }

    /// A signature for one answer, which strangers may ask for under any number of names.
    fn once(&self, set: &Set<'_>) -> Option<Signature> {
        self.kept.allow().then(|| self.sign_now(set)).flatten()
    }

    /// A set of a wildcard, signed as if it belonged to the name in question.
    pub(crate) fn expanded(&self, owner: &[u8], set: &RecordSet) -> Option<RecordSet> {
        let signature = self.once(&as_signed(owner, set))?;
        Some(RecordSet {
            signature: Some(Arc::new(signature)),
            ..set.clone()
        })
    }

    fn sign_now(&self, set: &Set<'_>) -> Option<Signature> {
        let signature = sign(set, &self.zone_keys, self.period)
            .inspect_err(|error| error!(%error, "could not sign"))
            .ok()?;
        self.kept.made.fetch_add(1, Ordering::Relaxed);
        Some(signature)
    }

    /// Signs, ahead of any question, what may well be answered soon.
    pub(crate) fn sign_ahead(&self, owner: Owner<'_>, rtype: u16, addresses: &[IpAddr]) {
        let octets = in_order(addresses);
        self.keep_ahead(&owner.set(rtype, slices(&octets)));
    }

    /// The same for a set of one record.
    pub(crate) fn sign_single_ahead(&self, owner: Owner<'_>, rtype: u16, data: &[u8]) {
        self.keep_ahead(&owner.set(rtype, Data::from_slice(&[data])));
    }

    fn keep_ahead(&self, set: &Set<'_>) {
        // No room, or no random numbers: it is made when it is asked for.
        let _ = self.kept_signature(set, false);
    }

    /// Compact denial (RFC 9824): the signed NSEC record of a name that is absent, or that has no data
    /// of its own. `None`: too many were made in this second.
    pub(crate) fn compact(
        &self,
        owner: &[u8],
        types: &[u16],
        ttl: Ttl,
    ) -> Option<(Vec<u8>, Signature)> {
        let data = nsec_data(&right_after(owner), types);
        let owner = Owner { name: owner, ttl };
        let signature = self.once(&owner.set(rtype::NSEC, Data::from_slice(&[&data])))?;
        Some((data, signature))
    }

    /// The keys that sign its data, for people.
    pub(crate) fn signers(&self) -> String {
        let keys = self.zone_keys.iter();
        let names: Vec<_> = keys.map(|key| key.file_stem()).collect();
        names.join(" ")
    }

    /// As many more signatures may be made as in one second.
    pub(crate) fn refill(&self) {
        self.kept.refill(self.signatures_per_second);
    }

    /// The keys that sign sets of this type.
    fn keys_of(&self, rtype: u16) -> &[Arc<Key>] {
        match rtype {
            rtype::DNSKEY | rtype::CDS | rtype::CDNSKEY => &self.entry_keys,
            _ => &self.zone_keys,
        }
    }
}

fn same(one: &[Arc<Key>], other: &[Arc<Key>]) -> bool {
    let mut pairs = one.iter().zip(other);
    one.len() == other.len() && pairs.all(|(one, other)| one.is_same_pair(other))
}

fn in_order(addresses: &[IpAddr]) -> SmallVec<[Octets; 32]> {
    let mut octets: SmallVec<_> = addresses.iter().map(Octets::new).collect();
    octets.sort_unstable();
    octets
}

fn slices(octets: &[Octets]) -> Data<'_> {
    octets.iter().map(Octets::as_slice).collect()
}

/// An address as its record has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Octets {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Octets {
    fn new(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => Self::V6(v6.octets()),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::V4(octets) => octets,
            Self::V6(octets) => octets,
        }
    }
}

/// The records that keys add to their zone: DNSKEY, CDS and CDNSKEY (RFC 7344).
pub(crate) fn key_records(zone: &config::Zone, now: Moment) -> Vec<Record> {
    let Some(dnssec) = &zone.dnssec else {
        return Vec::new();
    };
    let duties = duties_of(dnssec, now);
    let record = |rtype, data: Vec<u8>| Record {
        owner: zone.apex.clone(),
        rtype,
        ttl: dnssec.key_ttl,
        data: data.into(),
    };
    let published = duties.published.iter().map(|place| &dnssec.keys[*place]);
    let mut records: Vec<_> = published
        .map(|key| record(rtype::DNSKEY, key.dnskey()))
        .collect();
    for key in duties.synced.iter().map(|place| &dnssec.keys[*place]) {
        records.push(record(rtype::CDS, key.ds()));
        records.push(record(rtype::CDNSKEY, key.dnskey()));
    }
    records
}

fn duties_of(dnssec: &config::Dnssec, now: Moment) -> Duties {
    let keys: Vec<&Key> = dnssec.keys.iter().map(AsRef::as_ref).collect();
    duties(&keys, now)
}

/// Signs one zone.
pub(crate) struct Sealer<'b> {
    sealed: Sealed,
    now: Moment,
    validity: Duration,
    duties_until: Option<Moment>,
    /// The zone as it was signed before.
    before: Option<&'b Sealed>,
}

impl<'b> Sealer<'b> {
    /// `None` when the zone is not to be signed. `names`: how many of its names are steered.
    pub(crate) fn new(
        zone: &config::Zone,
        names: usize,
        now: Moment,
        before: Option<&'b Sealed>,
    ) -> Option<Self> {
        let dnssec = zone.dnssec.as_ref()?;
        let duties = duties_of(dnssec, now);
        if duties.published.is_empty() {
            error!(zone = %zone.apex, "the zone has no key: it is served without signatures");
            return None;
        }
        if duties.overdue {
            error!(zone = %zone.apex, "a key signs on although its time is over: there is no other");
        }
        let keys = |places: &[usize]| {
            places
                .iter()
                .map(|p| Arc::clone(&dnssec.keys[*p]))
                .collect()
        };
        let expiration = now.plus(dnssec.validity);
        Some(Self {
            sealed: Sealed {
                apex: zone.apex.clone(),
                zone_keys: keys(&duties.sign_zone),
                entry_keys: keys(&duties.sign_keys),
                period: Period {
                    inception: Moment(now.0.saturating_sub(BACKDATED.as_secs())),
                    expiration,
                },
                denial: dnssec.denial,
                chain: Chain::default(),
                soa: None,
                kept: Kept::for_names(names, dnssec.signatures_per_second),
                signatures_per_second: dnssec.signatures_per_second,
                made_at: now,
                expiration,
                until: expiration,
                made: 0,
                taken_over: 0,
            },
            now,
            validity: dnssec.validity,
            duties_until: duties.until,
            before: before.filter(|before| before.apex == zone.apex),
        })
    }

    /// With a third of its time left a signature is made anew, …
    fn refresh(&self) -> Duration {
        self.validity / 3
    }

    /// … and those that would be soon are made anew in the same turn.
    fn is_fresh(&self, signature: &Signature) -> bool {
        signature.expiration > self.now.plus(self.refresh() + self.validity / 24)
    }

    /// The signature of a set with this owner. `before`: the set as it was.
    pub(crate) fn signature(
        &mut self,
        owner: &[u8],
        set: &RecordSet,
        before: Option<&RecordSet>,
    ) -> Option<Arc<Signature>> {
        let keys = self.sealed.keys_of(set.rtype);
        let is_same_keys = self
            .before
            .is_some_and(|before| same(before.keys_of(set.rtype), keys));
        if is_same_keys
            && let Some(kept) = lends(before, set)
            && self.is_fresh(kept)
        {
            self.sealed.taken_over += 1;
            self.sealed.expiration = self.sealed.expiration.min(kept.expiration);
            return Some(Arc::clone(kept));
        }
        let period = self.period(owner, set.rtype);
        let made = sign(&as_signed(owner, set), keys, period);
        let made = made
            .inspect_err(|error| error!(%error, "could not sign"))
            .ok()?;
        self.sealed.made += 1;
        self.sealed.expiration = self.sealed.expiration.min(made.expiration);
        Some(Arc::new(made))
    }

    /// Ends are spread over a quarter of the time, so that not everything is signed anew at once.
    fn period(&self, owner: &[u8], rtype: u16) -> Period {
        let spread = (self.validity / 4).as_secs().max(1);
        let early = xxh3_64_with_seed(owner, u64::from(rtype)) % spread;
        let Period {
            inception,
            expiration,
        } = self.sealed.period;
        Period {
            inception,
            expiration: Moment(expiration.0 - early),
        }
    }

    /// Links the zone's names and signs the links.
    pub(crate) fn chain(&mut self, entries: Vec<Entry>, ttl: Ttl) {
        let mut chain = Chain::link(entries, self.sealed.denial, ttl);
        for link in chain.links_mut() {
            let owner = link.owner.clone();
            let before = self.before.and_then(|before| before.chain.of(owner.wire()));
            let was = before.map(|link| &link.nsec);
            link.nsec.signature = self.signature(owner.wire(), &link.nsec, was);
            for (absent, set) in &mut link.without {
                let was = before.map(|before| before.lacking(*absent));
                set.signature = self.signature(owner.wire(), set, was);
            }
            if let Some(ds) = &mut link.ds {
                let was = before.and_then(|before| before.ds.as_ref());
                ds.signature = self.signature(owner.wire(), ds, was);
            }
        }
        self.sealed.chain = chain;
    }

    /// The work is done; `soa` is the signature of the zone's SOA.
    pub(crate) fn finish(mut self, soa: Option<Arc<Signature>>) -> Sealed {
        self.take_over_steered();
        self.sealed.soa = soa;
        let refresh = self.refresh().as_secs();
        let old = Moment(self.sealed.expiration.0.saturating_sub(refresh));
        self.sealed.until = self.duties_until.map_or(old, |until| until.min(old));
        self.sealed
    }

    /// Signatures of steered sets that were asked for since the zone was compiled last.
    fn take_over_steered(&mut self) {
        let is_signed_alike = |before: &&Sealed| same(&before.zone_keys, &self.sealed.zone_keys);
        let Some(before) = self.before.filter(is_signed_alike) else {
            return;
        };
        for entry in before.kept.used() {
            if self.is_fresh(&entry.signature) {
                let signature = Signature {
                    wire: entry.signature.wire.clone(),
                    ..entry.signature
                };
                self.sealed.expiration = self.sealed.expiration.min(signature.expiration);
                // No room: it is made when it is asked for.
                let _ = self.sealed.kept.put(&entry.key, signature, false);
                self.sealed.taken_over += 1;
            }
        }
    }
}
