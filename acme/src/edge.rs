//! The seam to whoever faces the clients: shows answers to challenges, and serves certificates.
//!
//! The daemon puts the proxy behind it; tests put a table behind it.

use crate::certificate::Certificate;
use crate::config::Names;

/// What clients and authorities see of us. Calls must not wait.
pub trait Edge: Send + Sync + 'static {
    /// From now on `/.well-known/acme-challenge/TOKEN` is answered with `authorization` (RFC 8555
    /// §8.3).
    ///
    /// # Errors
    /// Too many answers are shown already.
    fn show_http(&self, token: &str, authorization: &str) -> Result<(), EdgeError>;

    /// From now on a handshake for `name` that asks for `acme-tls/1` gets this (RFC 8737 §3).
    ///
    /// # Errors
    /// Too many answers are shown already, or the certificate cannot be used.
    fn show_tls(&self, name: &str, certificate: &ChallengeCertificate) -> Result<(), EdgeError>;

    fn hide_http(&self, token: &str);

    fn hide_tls(&self, name: &str);

    /// From now on the next handshakes for these names get this certificate.
    ///
    /// # Errors
    /// It cannot be used; whatever served before goes on.
    fn serve(&self, names: &Names, certificate: &Certificate) -> Result<(), EdgeError>;
}

/// The certificate that proves a name (RFC 8737 §3), and its key (PKCS#8), both as DER.
pub struct ChallengeCertificate {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

impl std::fmt::Debug for ChallengeCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChallengeCertificate")
            .finish_non_exhaustive()
    }
}

/// Why the edge did not do as it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EdgeError(pub String);
