//! TLS, both ways: what we show to clients and ask of them, what we show to endpoints and ask of
//! them.
//!
//! One place for it, because traffic and probes must mean the same by an identity. Used by proxy,
//! control and daemon. Opens no socket, reads no file but the host's own authorities, and never
//! logs a key. Read [`ServerTls`] and [`Connectors`] first.

mod client;
mod expiry;
mod identity;
mod issued;
mod names;
mod pem;
mod server;
mod tickets;

pub use client::Connectors;
pub use expiry::{Expiring, expiring};
pub use identity::{Allow, ClientIdentity, DnsPattern, SpiffePattern};
pub use issued::{Issued, Place};
pub use pem::{TlsError, check_authorities, check_revocations};
pub use sealane_model::{CertificatePem, TlsVersion};
pub use server::{Chosen, ClientAuth, ClientAuthMode, Seal, ServerRules, ServerTls};

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// aws-lc-rs everywhere: the fastest at handshakes, and the one that has X25519MLKEM768.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

type Version = rustls::SupportedProtocolVersion;

/// The versions from `minimum` on, the newest first.
fn versions(minimum: TlsVersion) -> &'static [&'static Version] {
    static ALL: [&Version; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    match minimum {
        TlsVersion::Tls12 => &ALL,
        TlsVersion::Tls13 => &ALL[..1],
    }
}
