//! For how long an answer may be kept by who does not read it: a cache of HTTP, say.
//!
//! Reads messages that [`crate::engine`] wrote; what it cannot read may not be kept.

use crate::wire::{HEADER_LEN, rtype};

/// Type, class, TTL and length, after the owner.
const RECORD_TAIL_LEN: usize = 10;

/// Seconds: the least TTL of the answer section (RFC 8484 §5.1), and of the SOA record that says that there is no
/// answer, or no more of it. `None`: not at all.
pub(crate) fn lifetime(message: &[u8]) -> Option<u32> {
    const NO_ERROR: u8 = 0;
    const NX_DOMAIN: u8 = 3;
    let header: &[u8; HEADER_LEN] = message.first_chunk()?;
    if !matches!(header[3] & 0x0f, NO_ERROR | NX_DOMAIN) {
        return None;
    }
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let mut rest = &message[HEADER_LEN..];
    for _ in 0..count(4) {
        rest = after_name(rest)?.get(4..)?;
    }
    let mut least: Option<u32> = None;
    for number in 0..u32::from(count(6)) + u32::from(count(8)) {
        let is_answer = number < u32::from(count(6));
        let record = Record::read(rest)?;
        if is_answer || record.rtype == rtype::SOA {
            least = Some(least.map_or(record.ttl, |least| least.min(record.ttl)));
        }
        rest = record.rest;
    }
    least
}

struct Record<'m> {
    rtype: u16,
    ttl: u32,
    rest: &'m [u8],
}

impl<'m> Record<'m> {
    fn read(message: &'m [u8]) -> Option<Self> {
        let (tail, rest) = after_name(message)?.split_first_chunk::<RECORD_TAIL_LEN>()?;
        let [rtype @ .., _, _, t0, t1, t2, t3, high, low] = *tail;
        Some(Self {
            rtype: u16::from_be_bytes(rtype),
            ttl: u32::from_be_bytes([t0, t1, t2, t3]),
            rest: rest.get(usize::from(u16::from_be_bytes([high, low]))..)?,
        })
    }
}

/// What follows a name, compressed or not. Moves forward with each turn.
fn after_name(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (first, after) = rest.split_first()?;
        match *first {
            0 => return Some(after),
            0xc0.. => return after.get(1..),
            length => rest = after.get(usize::from(length)..)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `www.test`, then records of the answer and authority sections: (type, TTL).
    fn message(rcode: u8, answer: &[(u16, u32)], authority: &[(u16, u32)]) -> Vec<u8> {
        let mut message = vec![0, 0, 0x84, rcode, 0, 1];
        for section in [answer, authority, &[]] {
            message.extend_from_slice(&(section.len() as u16).to_be_bytes());
        }
        message.extend_from_slice(b"\x03www\x04test\0\0\x01\0\x01");
        for (rtype, ttl) in answer.iter().chain(authority) {
            message.extend_from_slice(b"\xc0\x0c");
            message.extend_from_slice(&rtype.to_be_bytes());
            message.extend_from_slice(b"\0\x01");
            message.extend_from_slice(&ttl.to_be_bytes());
            message.extend_from_slice(b"\0\x04data");
        }
        message
    }

    #[test]
    fn the_least_ttl_of_the_answer_counts_and_of_an_absence_the_soa() {
        let (a, ns, soa) = (1, 2, 6);
        assert_eq!(lifetime(&message(0, &[(a, 60), (a, 5)], &[])), Some(5));
        assert_eq!(lifetime(&message(0, &[(a, 60)], &[(ns, 1)])), Some(60));
        assert_eq!(lifetime(&message(3, &[(5, 60)], &[(soa, 10)])), Some(10));
        assert_eq!(lifetime(&message(0, &[], &[(soa, 7)])), Some(7));
    }

    #[test]
    fn referrals_and_failures_are_not_kept() {
        assert_eq!(lifetime(&message(0, &[], &[(2, 60)])), None);
        assert_eq!(lifetime(&message(2, &[(1, 60)], &[])), None);
    }

    #[test]
    fn a_message_that_ends_early_is_not_kept() {
        let whole = message(0, &[(1, 60), (1, 60)], &[]);
        for length in 0..whole.len() {
            assert_eq!(lifetime(&whole[..length]), None);
        }
    }
}
