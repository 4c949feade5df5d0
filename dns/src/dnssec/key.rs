//! One signing key: its DNSKEY record, its DS record, its signatures. Reads no file.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsBigEndian as _, EcPrivateKeyBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};

use super::timing::Times;
use crate::name::Name;

/// A signature by either algorithm.
pub const SIGNATURE_LEN: usize = 64;
/// What the flags field says of a key that signs at all (RFC 4034 §2.1.1).
const FLAG_ZONE: u16 = 0x0100;
/// Secure entry point: the parent's DS is meant to point to it.
const FLAG_SEP: u16 = 0x0001;
/// RFC 4034 §2.1.2.
const PROTOCOL: u8 = 3;

/// The algorithms that keys are made of here: small, fast, and RECOMMENDED for signing or the
/// strongest that is (RFC 8624 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    EcdsaP256,
    Ed25519,
}

impl Algorithm {
    /// IANA "DNS Security Algorithm Numbers".
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::EcdsaP256 => 13,
            Self::Ed25519 => 15,
        }
    }

    #[must_use]
    pub const fn numbered(number: u8) -> Option<Self> {
        match number {
            13 => Some(Self::EcdsaP256),
            15 => Some(Self::Ed25519),
            _ => None,
        }
    }

    /// As `dnssec-keygen` spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ECDSAP256SHA256",
            Self::Ed25519 => "ED25519",
        }
    }
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Signs the DNSKEY set and is what the parent's DS points to; signs everything where the zone
    /// has no [`Role::Zone`] key of its algorithm (a "CSK").
    Entry,
    /// Signs everything but the DNSKEY set (a "ZSK").
    Zone,
}

impl Role {
    const fn flags(self) -> u16 {
        match self {
            Self::Entry => FLAG_ZONE | FLAG_SEP,
            Self::Zone => FLAG_ZONE,
        }
    }
}

/// Why a key cannot be used. Says nothing of its private part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the private part is not that of the public one, or is none at all")]
    Inconsistent,
    #[error("the system has no random numbers")]
    Random,
}

/// A key pair of one zone, with the times of its life.
pub struct Key {
    zone: Name,
    role: Role,
    algorithm: Algorithm,
    pair: Pair,
    /// As DNSKEY carries it.
    public: Box<[u8]>,
    tag: u16,
    pub times: Times,
}

enum Pair {
    EcdsaP256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Key {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate(
        zone: Name,
        role: Role,
        algorithm: Algorithm,
        times: Times,
    ) -> Result<Self, KeyError> {
        let pair = match algorithm {
            Algorithm::EcdsaP256 => {
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Pair::EcdsaP256)
            }
            Algorithm::Ed25519 => Ed25519KeyPair::generate().map(Pair::Ed25519),
        };
        let pair = pair.map_err(|_| KeyError::Random)?;
        Ok(Self::new(zone, role, algorithm, pair, times))
    }

    /// The key of these parts, each as files and records carry it.
    ///
    /// # Errors
    /// [`KeyError::Inconsistent`].
    pub fn from_parts(
        zone: Name,
        role: Role,
        algorithm: Algorithm,
        private: &[u8],
        public: &[u8],
        times: Times,
    ) -> Result<Self, KeyError> {
        let pair = match algorithm {
            Algorithm::EcdsaP256 => {
                // DNSKEY has the point's coordinates without SEC 1's octet for its form (RFC 6605 §4).
                let point = [&[4], public].concat();
                let alg = &ECDSA_P256_SHA256_FIXED_SIGNING;
                EcdsaKeyPair::from_private_key_and_public_key(alg, private, &point)
                    .map(Pair::EcdsaP256)
            }
            Algorithm::Ed25519 => {
                Ed25519KeyPair::from_seed_and_public_key(private, public).map(Pair::Ed25519)
            }
        };
        let pair = pair.map_err(|_| KeyError::Inconsistent)?;
        Ok(Self::new(zone, role, algorithm, pair, times))
    }

    fn new(zone: Name, role: Role, algorithm: Algorithm, pair: Pair, times: Times) -> Self {
        let public: Box<[u8]> = match &pair {
            Pair::EcdsaP256(pair) => pair
                .public_key()
                .as_ref()
                .get(1..)
                .unwrap_or_default()
                .into(),
            Pair::Ed25519(pair) => pair.public_key().as_ref().into(),
        };
        let mut key = Self {
            zone,
            role,
            algorithm,
            pair,
            public,
            tag: 0,
            times,
        };
        key.tag = tag(&key.dnskey());
        key
    }

    #[must_use]
    pub const fn zone(&self) -> &Name {
        &self.zone
    }

    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    #[must_use]
    pub const fn tag(&self) -> u16 {
        self.tag
    }

    #[must_use]
    pub const fn public(&self) -> &[u8] {
        &self.public
    }

    /// The private part as `.private` files carry it.
    ///
    /// # Errors
    /// [`KeyError::Inconsistent`]: the provider does not give it out.
    pub fn private(&self) -> Result<Vec<u8>, KeyError> {
        match &self.pair {
            Pair::EcdsaP256(pair) => {
                let private: Result<EcPrivateKeyBin<'_>, _> = pair.private_key().as_be_bytes();
                private
                    .map(|private| private.as_ref().to_vec())
                    .map_err(|_| KeyError::Inconsistent)
            }
            Pair::Ed25519(pair) => {
                let seed = pair.seed().map_err(|_| KeyError::Inconsistent)?;
                let seed = seed.as_be_bytes().map_err(|_| KeyError::Inconsistent)?;
                Ok(seed.as_ref().to_vec())
            }
        }
    }

    /// `K<zone>.+<algorithm>+<tag>`, as BIND names the files of a key.
    #[must_use]
    pub fn file_stem(&self) -> String {
        let (algorithm, tag) = (self.algorithm.number(), self.tag);
        format!("{}{algorithm:03}+{tag:05}", file_prefix(&self.zone))
    }

    /// The data of its DNSKEY record (RFC 4034 §2.1), and of CDNSKEY.
    #[must_use]
    pub fn dnskey(&self) -> Vec<u8> {
        let mut data = self.role.flags().to_be_bytes().to_vec();
        data.extend_from_slice(&[PROTOCOL, self.algorithm.number()]);
        data.extend_from_slice(&self.public);
        data
    }

    /// The data of its DS record by SHA-256 (RFC 4034 §5.1, RFC 4509), and of CDS.
    #[must_use]
    pub fn ds(&self) -> Vec<u8> {
        const SHA256: u8 = 2;
        let digest = digest::digest(
            &digest::SHA256,
            &[self.zone.wire(), &self.dnskey()].concat(),
        );
        let mut data = self.tag.to_be_bytes().to_vec();
        data.extend_from_slice(&[self.algorithm.number(), SHA256]);
        data.extend_from_slice(digest.as_ref());
        data
    }

    /// # Errors
    /// [`KeyError::Random`]: ECDSA draws a number for each signature.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_LEN], KeyError> {
        let signature = match &self.pair {
            Pair::EcdsaP256(pair) => pair.sign(&SystemRandom::new(), message),
            Pair::Ed25519(pair) => pair.try_sign(message),
        };
        let signature = signature.map_err(|_| KeyError::Random)?;
        signature.as_ref().try_into().map_err(|_| KeyError::Random)
    }

    /// The very same key pair, whatever its times.
    #[must_use]
    pub fn is_same_pair(&self, other: &Self) -> bool {
        self.role == other.role
            && self.algorithm == other.algorithm
            && self.public == other.public
            && self.zone == other.zone
    }
}

/// The names of a zone's key files begin so.
#[must_use]
pub fn file_prefix(zone: &Name) -> String {
    format!("K{}+", zone.absolute())
}

/// RFC 4034 appendix B.
fn tag(dnskey: &[u8]) -> u16 {
    let sum: u32 = dnskey
        .iter()
        .enumerate()
        .map(|(at, octet)| u32::from(*octet) << if at % 2 == 0 { 8 } else { 0 })
        .sum();
    ((sum + (sum >> 16 & 0xffff)) & 0xffff) as u16
}

impl fmt::Debug for Key {
    /// Never its private part.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("name", &self.file_stem())
            .field("role", &self.role)
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}
