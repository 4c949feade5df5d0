//! NSEC: which names and types a zone has, so that the absence of others can be proven (RFC 4034 §4).
//!
//! One chain for each zone, made when rules are compiled: names come from the configuration, so health
//! never changes it. Where a steered name has no address of a family for now, a second form of its
//! link, made ahead too, leaves that type out.

use std::sync::Arc;

use sealane_model::Ttl;

use super::canonical::sort_key;
use super::sign::{Data, Set};
use crate::name::Name;
use crate::wire::rtype;
use crate::zone::RecordSet;

/// How absence is proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Denial {
    /// By the chain, signed ahead: costs no signature, and tells who asks for it which names there
    /// are.
    #[default]
    Nsec,
    /// Compact denial of existence (RFC 9824): a signature for each name that is absent; tells nothing.
    Compact,
}

/// The links of one zone, in canonical order.
#[derive(Debug, Default)]
pub struct Chain {
    links: Vec<Link>,
}

/// What is said of one name.
#[derive(Debug)]
pub struct Link {
    key: Box<[u8]>,
    pub owner: Name,
    pub nsec: RecordSet,
    /// The same without one type, for steered names.
    pub without: Box<[(u16, RecordSet)]>,
    /// For a zone cut to a zone that is served here too: what the parent says of it.
    pub ds: Option<RecordSet>,
}

impl Link {
    /// The set that proves that the name has no record of `rtype`.
    #[must_use]
    pub fn lacking(&self, rtype: u16) -> &RecordSet {
        let mut without = self.without.iter();
        without
            .find(|(kind, _)| *kind == rtype)
            .map_or(&self.nsec, |(_, set)| set)
    }

    #[must_use]
    pub fn is_of(&self, wire: &[u8]) -> bool {
        self.owner.wire() == wire
    }
}

/// A name with data, before it is linked to the next.
#[derive(Clone, Debug)]
pub struct Entry {
    pub owner: Name,
    /// Types there, without RRSIG and NSEC.
    pub types: Vec<u16>,
    /// Those of them that may be absent for now.
    pub at_times: &'static [u16],
    pub ds: Option<RecordSet>,
}

impl Chain {
    /// Links `entries` of one zone in a ring; nothing is signed yet.
    #[must_use]
    pub fn link(entries: Vec<Entry>, denial: Denial, ttl: Ttl) -> Self {
        let mut sorted: Vec<_> = entries
            .into_iter()
            .map(|entry| (sort_key(entry.owner.wire()), entry))
            .collect();
        sorted.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let owners: Vec<Name> = sorted
            .iter()
            .map(|(_, entry)| entry.owner.clone())
            .collect();
        let links = sorted.into_iter().enumerate().map(|(place, (key, entry))| {
            let next = match denial {
                Denial::Nsec => owners[(place + 1) % owners.len()].wire().to_vec(),
                Denial::Compact => right_after(entry.owner.wire()),
            };
            let set = |types: &[u16]| nsec_set(&next, types, ttl);
            let without = entry.at_times.iter().map(|absent| {
                let mut types = entry.types.clone();
                types.retain(|kind| kind != absent);
                (*absent, set(&types))
            });
            Link {
                key: key.as_slice().into(),
                nsec: set(&entry.types),
                without: without.collect(),
                owner: entry.owner,
                ds: entry.ds,
            }
        });
        Self {
            links: links.collect(),
        }
    }

    /// The link of this name, or else the one that spans the place where it would be. `None` for a
    /// name that sorts before the zone's own.
    #[must_use]
    pub fn at(&self, wire: &[u8]) -> Option<&Link> {
        let key = sort_key(wire);
        let after = self.links.partition_point(|link| *link.key <= *key);
        self.links.get(after.checked_sub(1)?)
    }

    /// The link of this very name.
    #[must_use]
    pub fn of(&self, wire: &[u8]) -> Option<&Link> {
        self.at(wire).filter(|link| link.is_of(wire))
    }

    pub(crate) fn links(&self) -> &[Link] {
        &self.links
    }

    pub(super) fn links_mut(&mut self) -> &mut [Link] {
        &mut self.links
    }
}

/// The least name above `wire` in canonical order (RFC 4471 §3.1.2, RFC 9824 §3.2), as long as there
/// is room; else the name itself, which no resolver takes for another one's range.
pub(super) fn right_after(wire: &[u8]) -> Vec<u8> {
    if wire.len() + 2 > crate::wire::NAME_MAX {
        return wire.to_vec();
    }
    [b"\x01\0", wire].concat()
}

/// The one NSEC record, as a set that answers can copy.
fn nsec_set(next: &[u8], types: &[u16], ttl: Ttl) -> RecordSet {
    RecordSet::single(rtype::NSEC, ttl, &nsec_data(next, types))
}

/// RFC 4034 §4.1: the next name, and a bit for each type; RRSIG and NSEC are always there. At most 255 + 256 · 34
/// octets.
#[must_use]
pub(super) fn nsec_data(next: &[u8], types: &[u16]) -> Vec<u8> {
    let mut types: Vec<u16> = types.to_vec();
    types.extend([rtype::RRSIG, rtype::NSEC]);
    types.sort_unstable();
    types.dedup();
    let mut data = next.to_vec();
    for window in types.chunk_by(|one, other| one >> 8 == other >> 8) {
        let mut bits = [0_u8; 32];
        let mut length = 0;
        for kind in window {
            let low = usize::from(kind & 0xff);
            bits[low / 8] |= 0x80 >> (low % 8);
            length = low / 8 + 1;
        }
        // A window's number and its length in octets, 1 to 32.
        data.extend_from_slice(&[(window[0] >> 8) as u8, length as u8]);
        data.extend_from_slice(&bits[..length]);
    }
    data
}

/// The set as it is signed: its records' data, taken from their wire form.
pub(super) fn as_signed<'s>(owner: &'s [u8], set: &'s RecordSet) -> Set<'s> {
    const HEAD_LEN: usize = 12;
    let mut data = Data::new();
    let mut rest = &set.wire[..];
    let mut ttl = 0;
    while let Some((head, after)) = rest.split_at_checked(HEAD_LEN) {
        ttl = u32::from_be_bytes([head[6], head[7], head[8], head[9]]);
        let length = usize::from(u16::from_be_bytes([head[10], head[11]]));
        let (one, after) = after.split_at(length.min(after.len()));
        data.push(one);
        rest = after;
    }
    Set {
        owner,
        rtype: set.rtype,
        ttl,
        data,
    }
}

/// Whether a set of an earlier table may lend its signature.
pub(super) fn lends<'s>(
    before: Option<&'s RecordSet>,
    now: &RecordSet,
) -> Option<&'s Arc<super::sign::Signature>> {
    before
        .filter(|before| before.rtype == now.rtype && before.wire == now.wire)?
        .signature
        .as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text, None).unwrap()
    }

    fn entry(owner: &str, types: &[u16]) -> Entry {
        Entry {
            owner: name(owner),
            types: types.to_vec(),
            at_times: &[],
            ds: None,
        }
    }

    #[test]
    fn the_bitmap_of_rfc_4034_is_made() {
        // §4.3: alfa.example.com. 86400 IN NSEC host.example.com. ( A MX RRSIG NSEC TYPE1234 )
        let next = name("host.example.com");
        let mut expected = next.wire().to_vec();
        expected.extend_from_slice(b"\x00\x06\x40\x01\x00\x00\x00\x03\x04\x1b");
        expected.extend_from_slice(&[0; 26]);
        expected.push(0x20);
        assert_eq!(nsec_data(next.wire(), &[15, 1, 1_234]), expected);
    }

    #[test]
    fn every_absent_name_lies_in_one_link() {
        let entries = vec![
            entry("z.example", &[1]),
            entry("example", &[2, 6]),
            entry("a.example", &[1]),
            entry("b.a.example", &[1]),
        ];
        let chain = Chain::link(entries, Denial::Nsec, Ttl::from_secs(5));
        let at = |text: &str| chain.at(name(text).wire()).unwrap().owner.to_string();

        assert_eq!(at("example"), "example");
        assert_eq!(at("*.example"), "example");
        assert_eq!(at("a.a.example"), "a.example");
        assert_eq!(at("c.a.example"), "b.a.example");
        assert_eq!(at("zz.example"), "z.example");
        assert!(chain.at(name("com").wire()).is_none());
        assert!(chain.of(name("zz.example").wire()).is_none());
        let last = chain.of(name("z.example").wire()).unwrap();
        assert!(last.nsec.wire[12..].starts_with(b"\x07example\0"));
    }

    #[test]
    fn a_type_that_is_absent_at_times_is_left_out_of_its_own_form_only() {
        let mut steered = entry("api.example", &[1, 28]);
        steered.at_times = &[1, 28];
        let chain = Chain::link(vec![steered], Denial::Nsec, Ttl::from_secs(5));
        let link = chain.of(name("api.example").wire()).unwrap();
        let types = |rtype| link.lacking(rtype).wire[12 + 13..].to_vec();

        assert_eq!(types(1), b"\0\x06\0\0\0\x08\0\x03");
        assert_eq!(types(28), b"\0\x06\x40\0\0\0\0\x03");
        assert_eq!(types(15), b"\0\x06\x40\0\0\x08\0\x03");
    }
}
