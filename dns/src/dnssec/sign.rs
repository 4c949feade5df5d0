//! Signs one set (RFC 4034 §3.1.8.1): what is signed, and the RRSIG record that says so. Pure.

use std::sync::Arc;

use sealane_model::Ttl;
use smallvec::SmallVec;

use super::canonical::{self, signed_labels};
use super::key::{Key, KeyError};
use super::timing::Moment;
use crate::wire::{CLASS_IN, rtype};
use crate::zone::push_record;

/// Records of one owner and one type, in any order.
#[derive(Clone, Debug)]
pub struct Set<'a> {
    /// Lower-cased and uncompressed.
    pub owner: &'a [u8],
    pub rtype: u16,
    /// The largest TTL that the set is answered with: a signature holds for all lower ones.
    pub ttl: u32,
    pub data: Data<'a>,
}

/// As many as a steered set has at most; more are put on the heap.
pub type Data<'a> = SmallVec<[&'a [u8]; 32]>;

/// From when to when a signature holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub inception: Moment,
    pub expiration: Moment,
}

/// The RRSIG records of one set.
#[derive(Debug, PartialEq, Eq)]
pub struct Signature {
    /// As [`crate::zone::RecordSet::wire`]: each with an owner that points to the name in question.
    pub wire: Box<[u8]>,
    pub count: u16,
    pub expiration: Moment,
}

/// Signs `set` by each of `keys`.
///
/// # Errors
/// The system has no random numbers.
pub fn sign(set: &Set<'_>, keys: &[Arc<Key>], period: Period) -> Result<Signature, KeyError> {
    let body = body(set);
    let mut wire = Vec::new();
    let mut count = 0;
    for key in keys {
        let head = head(set, key, period);
        let signature = key.sign(&[&head, body.as_slice()].concat())?;
        let data = [&head[..], &signature].concat();
        push_record(&mut wire, rtype::RRSIG, Ttl::from_secs(set.ttl), &data);
        count += 1;
    }
    Ok(Signature {
        wire: wire.into(),
        count,
        expiration: period.expiration,
    })
}

/// The RRSIG's data but for the signature itself.
fn head(set: &Set<'_>, key: &Key, period: Period) -> Vec<u8> {
    let mut head = set.rtype.to_be_bytes().to_vec();
    head.extend_from_slice(&[key.algorithm().number(), signed_labels(set.owner)]);
    head.extend_from_slice(&set.ttl.to_be_bytes());
    head.extend_from_slice(&period.expiration.serial().to_be_bytes());
    head.extend_from_slice(&period.inception.serial().to_be_bytes());
    head.extend_from_slice(&key.tag().to_be_bytes());
    head.extend_from_slice(key.zone().wire());
    head
}

/// The records in canonical form and order, duplicates left out (RFC 4034 §6.3).
fn body(set: &Set<'_>) -> Vec<u8> {
    let canonical = set.data.iter().map(|data| canonical::data(set.rtype, data));
    let mut records: Vec<_> = canonical.collect();
    records.sort_unstable();
    records.dedup();
    let mut body = Vec::new();
    for data in &records {
        body.extend_from_slice(set.owner);
        body.extend_from_slice(&set.rtype.to_be_bytes());
        body.extend_from_slice(&CLASS_IN.to_be_bytes());
        body.extend_from_slice(&set.ttl.to_be_bytes());
        body.extend_from_slice(&u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
        body.extend_from_slice(data);
    }
    body
}

#[cfg(test)]
pub(crate) mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use proptest::prelude::*;

    use super::*;
    use crate::dnssec::key::{Algorithm, SIGNATURE_LEN};
    use crate::dnssec::key_file::parse;
    use crate::name::Name;

    fn wire(name: &str) -> Vec<u8> {
        Name::parse(name, None).unwrap().wire().to_vec()
    }

    /// Whether the one RRSIG in `signature` is `key`'s for this set.
    pub(crate) fn holds(signature: &Signature, key: &Key, set: &Set<'_>) -> bool {
        let data = &signature.wire[12..];
        let (head, octets) = data.split_at(data.len() - SIGNATURE_LEN);
        let message = [head, &body(set)].concat();
        let (algorithm, public): (&dyn aws_lc_rs::signature::VerificationAlgorithm, _) =
            match key.algorithm() {
                Algorithm::EcdsaP256 => (&ECDSA_P256_SHA256_FIXED, [&[4], key.public()].concat()),
                Algorithm::Ed25519 => (&ED25519, key.public().to_vec()),
            };
        UnparsedPublicKey::new(algorithm, public)
            .verify(&message, octets)
            .is_ok()
    }

    #[test]
    fn the_signature_of_rfc_8080_is_made() {
        let public = "example.com. IN DNSKEY 257 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=";
        let private = "Private-key-format: v1.2\nAlgorithm: 15 (ED25519)\nPrivateKey: ODIyNjAzODQ2MjgwODAxMjI2NDUxOTAyMDQxNDIyNjI=\n";
        let key = Arc::new(parse(public, private).unwrap());
        let data = [b"\0\x0a".to_vec(), wire("mail.example.com")].concat();
        let set = Set {
            owner: &wire("example.com"),
            rtype: rtype::MX,
            ttl: 3_600,
            data: Data::from_slice(&[&data]),
        };
        let period = Period {
            inception: Moment(1_438_207_200),
            expiration: Moment(1_440_021_600),
        };
        let signature = sign(&set, &[key], period).unwrap();
        let expected = "oL9krJun7xfBOIWcGHi7mag5/hdZrKWw15jPGrHpjQeRAvTdszaPD+QLs3fx8A4M3e23mRZ9VrbpMngwcrqNAg==";
        assert_eq!(
            BASE64.encode(&signature.wire[signature.wire.len() - SIGNATURE_LEN..]),
            expected
        );
    }

    #[test]
    fn the_signature_of_rfc_6605_holds_for_what_we_would_sign() {
        let public = "example.net. IN DNSKEY 257 3 13 GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA==";
        let private = "Private-key-format: v1.2\nAlgorithm: 13 (ECDSAP256SHA256)\nPrivateKey: GU6SnQ/Ou+xC5RumuIUIuJZteXT2z0O/ok1s38Et6mQ=\n";
        let key = Arc::new(parse(public, private).unwrap());
        let set = Set {
            owner: &wire("www.example.net"),
            rtype: rtype::A,
            ttl: 3_600,
            data: Data::from_slice(&[&[192, 0, 2, 1]]),
        };
        let moment = |text| Moment::parse(text).unwrap();
        let period = Period {
            inception: moment("20100812100439"),
            expiration: moment("20100909100439"),
        };
        let ours = sign(&set, std::slice::from_ref(&key), period).unwrap();
        assert!(holds(&ours, &key, &set));

        let theirs = "qx6wLYqmh+l9oCKTN6qIc+bw6ya+KJ8oMz0YP107epXAyGmt+3SNruPFKG7tZoLBLlUzGGus7ZwmwWep666VCw==";
        let mut wire = ours.wire.to_vec();
        let at = wire.len() - SIGNATURE_LEN;
        wire[at..].copy_from_slice(&BASE64.decode(theirs).unwrap());
        let theirs = Signature {
            wire: wire.into(),
            ..ours
        };
        assert!(holds(&theirs, &key, &set));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn neither_order_nor_duplicates_change_what_is_signed(
            mut data in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..6), 1..8),
            seed in any::<usize>(),
        ) {
            let owner = wire("www.example");
            let set = |data: &[Vec<u8>]| body(&Set {
                owner: &owner,
                rtype: rtype::TXT,
                ttl: 5,
                data: data.iter().map(Vec::as_slice).collect(),
            });
            let before = set(&data);
            let turn = seed % data.len();
            data.rotate_left(turn);
            data.push(data[turn].clone());
            prop_assert_eq!(set(&data), before);
        }
    }
}
