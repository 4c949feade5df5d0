//! BORDER. TSIG keys (RFC 8945), as NLnet Labs' `domain` has them. Never shows a secret.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use domain::base::ToName;
use domain::rdata::tsig::Time48;
use domain::tsig;

use crate::dnssec::timing::Moment;
use crate::name::Name;

/// How messages are authenticated: those that RFC 8945 §6 has implementations use or allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

impl Algorithm {
    const fn of_domain(self) -> tsig::Algorithm {
        match self {
            Self::HmacSha256 => tsig::Algorithm::Sha256,
            Self::HmacSha384 => tsig::Algorithm::Sha384,
            Self::HmacSha512 => tsig::Algorithm::Sha512,
        }
    }
}

/// A secret that two servers share, and its name.
#[derive(Clone)]
pub struct TsigKey {
    name: Name,
    key: Arc<tsig::Key>,
    /// To tell whether a reload changed it.
    secret: Arc<[u8]>,
}

impl TsigKey {
    /// `None`: no key can be made of these.
    #[must_use]
    pub fn new(name: Name, algorithm: Algorithm, secret: &[u8]) -> Option<Self> {
        let of_domain = domain::base::Name::from_octets(name.wire()).ok()?;
        let of_domain = of_domain.try_to_name().ok()?;
        let key = tsig::Key::new(algorithm.of_domain(), secret, of_domain, None, None).ok()?;
        Some(Self {
            name,
            key: Arc::new(key),
            secret: secret.into(),
        })
    }

    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }
}

impl PartialEq for TsigKey {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.key.algorithm() == other.key.algorithm()
            && self.secret == other.secret
    }
}

impl Eq for TsigKey {}

impl fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TsigKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl AsRef<tsig::Key> for TsigKey {
    fn as_ref(&self) -> &tsig::Key {
        &self.key
    }
}

/// A secret as key files have it.
#[must_use]
pub fn secret_from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// Keys that requests may be signed with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys(pub(crate) Vec<TsigKey>);

impl tsig::KeyStore for Keys {
    type Key = TsigKey;

    fn get_key<N: ToName>(&self, name: &N, algorithm: tsig::Algorithm) -> Option<TsigKey> {
        let is_it = |key: &&TsigKey| key.key.name() == name && key.key.algorithm() == algorithm;
        self.0.iter().find(is_it).cloned()
    }
}

/// A time as signatures carry it.
pub(crate) fn time_signed(now: Moment) -> Time48 {
    // 48 bits last for 8.9 million years.
    Time48::from_u64(now.0 & 0xffff_ffff_ffff)
}
