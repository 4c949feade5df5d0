//! What is to be ordered, and from whom: already valid, no strings left to check.
//!
//! Built by the daemon from the configuration file.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Names that one certificate may bear; the best-known authority takes no more either.
pub const NAMES_MAX: usize = 100;

/// What the file asks for. Replaced whole on reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The directory's URL (RFC 8555 §7.1.1): `https` alone.
    pub directory: Arc<str>,
    /// URLs at which the authority reaches the operator: `mailto:ops@example.com`.
    pub contact: Vec<String>,
    /// PEM of the roots that vouch for the directory's server. `None`: the system's.
    pub roots: Option<Arc<[u8]>>,
    /// Where account and certificates are kept.
    pub folder: PathBuf,
    /// In the order in which they are tried: one an order, the next one after a failure. Not empty.
    pub challenges: Vec<ChallengeKind>,
    /// From a first failure to the next order; further ones take longer and longer.
    pub retry: Duration,
    pub wanted: BTreeSet<Names>,
}

/// How it is proved that a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeKind {
    /// RFC 8555 §8.3: a file at a well-known path, on port 80.
    Http01,
    /// RFC 8737: a certificate in a handshake of its own, on port 443.
    TlsAlpn01,
}

impl ChallengeKind {
    /// As RFC 8555 and the configuration file call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

/// The DNS names of one certificate, in one order and each once: what tells certificates apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names(Arc<[Arc<str>]>);

impl Names {
    /// `None` without names, or with more than [`NAMES_MAX`]. Names are lower-case host names;
    /// their spelling is checked where they are read.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let names: BTreeSet<&str> = names.into_iter().collect();
        let count = names.len();
        (1..=NAMES_MAX)
            .contains(&count)
            .then(|| Self(names.into_iter().map(Arc::from).collect()))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter()
    }

    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|own| **own == *name)
    }

    /// How logs and files call the certificate.
    #[must_use]
    pub fn first(&self) -> &str {
        self.0.first().map_or("", |name| name)
    }

    #[must_use]
    pub fn as_slice(&self) -> &[Arc<str>] {
        &self.0
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.first())?;
        for name in self.0.iter().skip(1) {
            write!(f, ", {name}")?;
        }
        Ok(())
    }
}
