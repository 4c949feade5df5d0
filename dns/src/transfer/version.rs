//! What a zone is at one serial: its records as others get them, and the differences that led there.

use std::cmp::Ordering;
use std::sync::Arc;

use sealane_model::{ScopePrefix, Snapshot};
use sealane_steering::{ClientPlace, How};
use std::net::Ipv4Addr;

use super::SteeredAs;
use crate::config::{self, SteeredName};
use crate::dnssec::timing::Moment;
use crate::name::Name;
use crate::record::Record;
use crate::steer::{Choice, Family, Outcome, choose, choose_host};
use crate::wire::rtype;
use crate::zone::{RecordSet, Steered, ZoneTable};

/// A zone at one serial.
#[derive(Debug)]
pub struct Version {
    pub serial: u32,
    pub soa: Record,
    /// All but the SOA, in order, each once.
    pub records: Vec<Record>,
    /// From one version to the next; the last one leads to this version.
    pub steps: Vec<Arc<Step>>,
    /// In octets, about as they go over the wire.
    pub size: usize,
    /// Of a signed zone: what its signatures are taken over from.
    pub(crate) table: Option<ZoneTable>,
}

/// What changed between two versions that follow each other.
#[derive(Debug)]
pub struct Step {
    pub from: Record,
    pub to: Record,
    pub removed: Vec<Record>,
    pub added: Vec<Record>,
    pub size: usize,
}

/// Steps that are kept of one zone, …
pub const STEPS_MAX: usize = 64;
/// … as long as they take no more octets than this together. Who has an older version gets the whole zone.
pub const STEPS_SIZE_MAX: usize = 4 << 20;

impl Version {
    /// A zone that somebody else gave.
    pub(crate) fn of_held(held: &super::book::Held) -> Self {
        Self {
            serial: held.soa.serial,
            soa: held.soa_record.clone(),
            records: held.records.clone(),
            steps: Vec::new(),
            size: 0,
            table: None,
        }
    }

    /// The first of the steps that lead from `serial` to here. `None`: they are not kept, or the whole zone is
    /// less.
    #[must_use]
    pub fn steps_since(&self, serial: u32) -> Option<usize> {
        let begins = |step: &Arc<Step>| soa_serial(&step.from) == Some(serial);
        let first = self.steps.iter().rposition(begins)?;
        let steps = self.steps.get(first..)?;
        let size: usize = steps.iter().map(|step| step.size).sum();
        (size <= self.size).then_some(first)
    }
}

/// What a version is made of, before it has a serial for good.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) soa: Record,
    pub(crate) records: Vec<Record>,
    pub(crate) table: Option<ZoneTable>,
}

impl Contents {
    /// Compiles a zone without steered names, alone, and signs it where it is signed.
    pub(crate) fn of(flat: &config::Zone, now: Moment, before: Option<&ZoneTable>) -> Option<Self> {
        let table = ZoneTable::compile(std::slice::from_ref(flat), now, before);
        let mut records = all_records(&table);
        let place = records
            .iter()
            .position(|record| record.rtype == rtype::SOA)?;
        let soa = records.swap_remove(place);
        records.sort_unstable_by(order);
        records.dedup();
        Some(Self {
            soa,
            records,
            table: flat.dnssec.is_some().then_some(table),
        })
    }

    /// The same with the zone's serial as it is now.
    pub(crate) fn renumbered(self, flat: &config::Zone, now: Moment) -> Option<Self> {
        // Of a signed zone the signature of the SOA is another one: it is compiled again, which takes over the rest.
        if let Some(table) = &self.table {
            return Self::of(flat, now, Some(table));
        }
        let mut data = self.soa.data.to_vec();
        let begin = data.len().checked_sub(20)?;
        data.get_mut(begin..begin + 4)?
            .copy_from_slice(&flat.soa.serial.to_be_bytes());
        let soa = Record {
            data: data.into(),
            ..self.soa
        };
        Some(Self { soa, ..self })
    }

    /// The version of this serial, which the SOA has already.
    pub(crate) fn into_version(self, before: Option<&Version>) -> Version {
        let serial = soa_serial(&self.soa).unwrap_or_default();
        let steps = before.map_or_else(Vec::new, |before| self.steps_after(before));
        Version {
            serial,
            size: size_of(&self.records),
            soa: self.soa,
            records: self.records,
            steps,
            table: self.table,
        }
    }

    fn steps_after(&self, before: &Version) -> Vec<Arc<Step>> {
        let (removed, added) = difference(&before.records, &self.records);
        let size = size_of(&removed) + size_of(&added);
        let mut steps = before.steps.clone();
        steps.push(Arc::new(Step {
            from: before.soa.clone(),
            to: self.soa.clone(),
            removed,
            added,
            size,
        }));
        let mut total = 0;
        let kept = steps.iter().rev().take(STEPS_MAX).take_while(|step| {
            total += step.size;
            total <= STEPS_SIZE_MAX
        });
        let kept = kept.count();
        steps.split_off(steps.len() - kept)
    }

    /// Nothing but the serial, and what is signed of it, is another one.
    pub(crate) fn is_like(&self, version: &Version) -> bool {
        let ours = self.records.iter().filter(|record| !signs_soa(record));
        let theirs = version.records.iter().filter(|record| !signs_soa(record));
        without_serial(&self.soa) == without_serial(&version.soa)
            && self.soa.ttl == version.soa.ttl
            && ours.eq(theirs)
    }
}

/// A zone whose steered names stand there as others get them.
pub(crate) fn flatten(zone: &config::Zone, snapshot: Vec<Record>) -> config::Zone {
    let mut flat = zone.clone();
    flat.steered = Vec::new();
    // What they lead to is looked up here, for answers alone.
    flat.aliases = Vec::new();
    flat.records.extend(snapshot);
    flat
}

/// What steered names are in a copy of the zone.
pub(crate) fn snapshot(zone: &config::Zone, how: SteeredAs, world: &Snapshot) -> Vec<Record> {
    if how == SteeredAs::Omit {
        return Vec::new();
    }
    // Somebody of whom nothing is known.
    let place = ClientPlace {
        address: Ipv4Addr::UNSPECIFIED.into(),
        how: How::Resolver,
        location: None,
        region: None,
        scope: ScopePrefix::EVERYONE,
    };
    let names = zone.steered.iter();
    names
        .flat_map(|name| snapshot_of(name, &place, world))
        .collect()
}

fn snapshot_of(name: &SteeredName, place: &ClientPlace, world: &Snapshot) -> Vec<Record> {
    let steered = Steered::new(name);
    let record = |rtype, data: &[u8]| Record {
        owner: name.owner.clone(),
        rtype,
        ttl: name.ttl,
        data: data.into(),
    };
    let choice = |family| {
        if steered.hosts.is_empty() {
            return choose(&steered, family, place, world);
        }
        choose_host(&steered, family, place, world).fallback
    };
    if !steered.hosts.is_empty()
        && let Some(host) = choose_host(&steered, Family::V4, place, world).host
    {
        return vec![record(rtype::CNAME, host.wire())];
    }
    let addresses = |family| -> Choice { choice(family) };
    let (v4, v6) = (addresses(Family::V4), addresses(Family::V6));
    let mut records = Vec::new();
    for choice in [&v4, &v6] {
        if choice.outcome != Outcome::Addresses {
            continue;
        }
        for address in &choice.addresses {
            records.push(match address {
                std::net::IpAddr::V4(v4) => record(rtype::A, &v4.octets()),
                std::net::IpAddr::V6(v6) => record(rtype::AAAA, &v6.octets()),
            });
        }
    }
    if let Some(service) = &steered.https
        && !records.is_empty()
    {
        let data = service.data(&v4.addresses, &v6.addresses);
        records.push(record(rtype::HTTPS, &data));
    }
    records
}

/// Everything in a table of one zone, signatures and the chain of its names included.
fn all_records(table: &ZoneTable) -> Vec<Record> {
    let mut records = Vec::new();
    for (wire, node) in table.named_nodes() {
        let Some(owner) = Name::from_wire(wire) else {
            continue;
        };
        for set in node.sets() {
            add_set(&mut records, &owner, set);
        }
    }
    for (_, sealed) in table.sealed() {
        for link in sealed.chain.links() {
            add_set(&mut records, &link.owner, &link.nsec);
        }
    }
    records
}

fn add_set(records: &mut Vec<Record>, owner: &Name, set: &RecordSet) {
    add_wire(records, owner, &set.wire);
    if let Some(signature) = &set.signature {
        add_wire(records, owner, &signature.wire);
    }
}

/// Records as sets keep them: a pointer, type, class, TTL, length, data.
fn add_wire(records: &mut Vec<Record>, owner: &Name, wire: &[u8]) {
    let mut rest = wire;
    while let Some((head, after)) = rest.split_first_chunk::<12>() {
        let length = usize::from(u16::from_be_bytes([head[10], head[11]]));
        let (data, after) = after.split_at(length.min(after.len()));
        records.push(Record {
            owner: owner.clone(),
            rtype: u16::from_be_bytes([head[2], head[3]]),
            ttl: sealane_model::Ttl::from_secs(u32::from_be_bytes([
                head[6], head[7], head[8], head[9],
            ])),
            data: data.into(),
        });
        rest = after;
    }
}

/// The order of [`Version::records`].
pub(crate) fn order(one: &Record, other: &Record) -> Ordering {
    let key = |record: &Record| (record.rtype, record.ttl);
    one.owner
        .cmp(&other.owner)
        .then_with(|| key(one).0.cmp(&key(other).0))
        .then_with(|| one.data.cmp(&other.data))
        .then_with(|| key(one).1.cmp(&key(other).1))
}

/// What only the first has, and what only the second has; both in order.
fn difference(before: &[Record], after: &[Record]) -> (Vec<Record>, Vec<Record>) {
    let (mut removed, mut added) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let side = match (old.peek(), new.peek()) {
            (None, None) => return (removed, added),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => order(one, other),
        };
        if side != Ordering::Greater {
            let one = old.next();
            removed.extend(one.filter(|_| side == Ordering::Less).cloned());
        }
        if side != Ordering::Less {
            let one = new.next();
            added.extend(one.filter(|_| side == Ordering::Greater).cloned());
        }
    }
}

fn size_of(records: &[Record]) -> usize {
    let size = |record: &Record| record.owner.wire().len() + 10 + record.data.len();
    records.iter().map(size).sum()
}

fn signs_soa(record: &Record) -> bool {
    record.rtype == rtype::RRSIG && record.data.starts_with(&rtype::SOA.to_be_bytes())
}

/// The serial of an SOA record.
#[must_use]
pub fn soa_serial(soa: &Record) -> Option<u32> {
    let (_, numbers) = soa.data.split_last_chunk::<20>()?;
    Some(u32::from_be_bytes(*numbers.first_chunk()?))
}

fn without_serial(soa: &Record) -> Vec<u8> {
    let mut data = soa.data.to_vec();
    if let Some(begin) = data.len().checked_sub(20) {
        data[begin..begin + 4].fill(0);
    }
    data
}

/// For telling whether a zone is what it was before a restart.
pub(crate) fn digest(contents: &Contents) -> u128 {
    use xxhash_rust::xxh3::Xxh3;
    let mut hash = Xxh3::new();
    hash.update(&without_serial(&contents.soa));
    for record in &contents.records {
        hash.update(record.owner.wire());
        hash.update(&record.rtype.to_be_bytes());
        hash.update(&record.ttl.as_secs().to_be_bytes());
        hash.update(&(record.data.len() as u32).to_be_bytes());
        hash.update(&record.data);
    }
    hash.digest128()
}
