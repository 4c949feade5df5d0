//! The one form and the one order in which data are signed (RFC 4034 §6). Pure.

use std::borrow::Cow;

use crate::name::{count_labels, parent};
use crate::wire::rtype;

/// The key by which names sort canonically (RFC 4034 §6.1) when compared as plain octets: labels
/// from the right, each ended by a zero that sorts below every octet of a label. `wire` must be
/// lower-cased.
#[must_use]
pub fn sort_key(wire: &[u8]) -> SortKey {
    let mut begins = [0_u8; LABELS_MAX];
    let mut count = 0;
    let mut rest = wire;
    while let Some(above) = parent(rest) {
        if let Some(place) = begins.get_mut(count) {
            // A name has at most 255 octets.
            *place = (wire.len() - rest.len()) as u8;
            count += 1;
        }
        rest = above;
    }
    let mut key = SortKey::new();
    for begin in begins[..count].iter().rev() {
        let at = usize::from(*begin);
        let length = usize::from(wire[at]);
        for octet in wire.get(at + 1..=at + length).unwrap_or_default() {
            // 0 ends a label: what is 0 or 1 itself takes two octets, in the same order.
            match octet {
                0 => key.extend_from_slice(&[1, 1]),
                1 => key.extend_from_slice(&[1, 2]),
                octet => key.push(*octet),
            }
        }
        key.push(0);
    }
    key
}

/// Long enough for most names; longer ones (of hundreds of octets) are put on the heap.
pub type SortKey = smallvec::SmallVec<[u8; 256]>;

/// Labels of the longest name: 127 of one octet each.
const LABELS_MAX: usize = 128;

/// Labels of an owner as RRSIG counts them: without the root and without a leading `*` (RFC 4034
/// §3.1.3).
#[must_use]
pub fn signed_labels(owner: &[u8]) -> u8 {
    count_labels(owner.strip_prefix(b"\x01*").unwrap_or(owner))
}

/// A record's data with the names in it lower-cased, for the types of RFC 4034 §6.2 as RFC 6840 §5.1
/// amends the list. Names are never compressed here.
#[must_use]
pub fn data(kind: u16, data: &[u8]) -> Cow<'_, [u8]> {
    let names = names_in(kind, data);
    let range = data.get(names.clone()).unwrap_or_default();
    // Lengths of labels are at most 63 and so no letters.
    if !range.iter().any(u8::is_ascii_uppercase) {
        return Cow::Borrowed(data);
    }
    let mut lowered = data.to_vec();
    lowered[names].make_ascii_lowercase();
    Cow::Owned(lowered)
}

/// Where the data hold names and nothing else.
fn names_in(kind: u16, data: &[u8]) -> std::ops::Range<usize> {
    const RP: u16 = 17;
    const AFSDB: u16 = 18;
    const RT: u16 = 21;
    const PX: u16 = 26;
    const NAPTR: u16 = 35;
    const KX: u16 = 36;
    match kind {
        rtype::NS | rtype::CNAME | rtype::PTR | rtype::DNAME | RP => 0..data.len(),
        rtype::MX | AFSDB | RT | KX | PX => 2.min(data.len())..data.len(),
        rtype::SRV => 6.min(data.len())..data.len(),
        // Two names, then five numbers of four octets.
        rtype::SOA => 0..data.len().saturating_sub(20),
        NAPTR => after_texts(data)..data.len(),
        _ => 0..0,
    }
}

/// Behind order, preference and the three texts of a NAPTR record.
fn after_texts(data: &[u8]) -> usize {
    let mut at = 4;
    for _ in 0..3 {
        at += usize::from(data.get(at).copied().unwrap_or_default()) + 1;
    }
    at.min(data.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::name::Name;

    fn wire(name: &str) -> Vec<u8> {
        Name::parse(name, None).unwrap().wire().to_vec()
    }

    #[test]
    fn names_sort_as_in_the_example_of_rfc_4034() {
        let sorted = [
            "example.",
            "a.example.",
            "yljkjljk.a.example.",
            "Z.a.example.",
            "zABC.a.EXAMPLE.",
            "z.example.",
            r"\001.z.example.",
            "*.z.example.",
            r"\200.z.example.",
        ];
        let keys: Vec<_> = sorted.iter().map(|name| sort_key(&wire(name))).collect();
        assert!(keys.is_sorted() && keys.windows(2).all(|two| two[0] != two[1]));
    }

    #[test]
    fn a_leading_asterisk_and_the_root_are_no_signed_labels() {
        let cases = [
            (".", 0),
            ("example", 1),
            ("www.example", 2),
            ("*.example", 1),
            ("a.*.example", 3),
        ];
        for (name, labels) in cases {
            assert_eq!(signed_labels(&wire(name)), labels, "{name}");
        }
    }

    #[test]
    fn only_names_in_data_are_lower_cased() {
        assert_eq!(&*data(rtype::MX, b"\x41\x42\x02MX\0"), b"\x41\x42\x02mx\0");
        assert_eq!(&*data(rtype::TXT, b"\x02TX"), b"\x02TX");
        let naptr = b"\0\x01\0\x02\x01U\x03E2U\x01X\x01A\0";
        assert_eq!(&*data(35, naptr), b"\0\x01\0\x02\x01U\x03E2U\x01X\x01a\0");
        let soa = [b"\x01A\0\x01B\0".as_slice(), &[b'A'; 20]].concat();
        let lowered = [b"\x01a\0\x01b\0".as_slice(), &[b'A'; 20]].concat();
        assert_eq!(&*data(rtype::SOA, &soa), lowered);
        assert_eq!(&*data(rtype::SOA, b"short"), b"short");
    }

    /// The order as RFC 4034 §6.1 words it, label by label.
    fn order(one: &[u8], other: &[u8]) -> std::cmp::Ordering {
        let labels = |wire: &[u8]| {
            let name = Name::from_wire(wire).unwrap();
            let mut labels: Vec<_> = name.labels().map(<[u8]>::to_vec).collect();
            labels.reverse();
            labels
        };
        labels(one).cmp(&labels(other))
    }

    proptest! {
        #[test]
        fn the_keys_order_is_the_canonical_one(
            one in proptest::collection::vec(proptest::collection::vec(0_u8..4, 1..4), 0..4),
            other in proptest::collection::vec(proptest::collection::vec(0_u8..4, 1..4), 0..4),
        ) {
            let wire = |labels: &[Vec<u8>]| {
                let mut wire = Vec::new();
                for label in labels {
                    wire.push(label.len() as u8);
                    wire.extend_from_slice(label);
                }
                wire.push(0);
                wire
            };
            let (one, other) = (wire(&one), wire(&other));
            prop_assert_eq!(sort_key(&one).cmp(&sort_key(&other)), order(&one, &other));
        }

        #[test]
        fn no_data_make_it_panic(kind in 0_u16..64, octets in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(data(kind, &octets).len(), octets.len());
        }
    }
}
