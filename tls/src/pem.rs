//! From PEM text to certificates, keys, authorities and revocation lists, with what is wrong in
//! words.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sealane_model::CertificatePem;

/// Why something cannot serve. `index` counts from 0, in the order of what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    #[error("no certificate is given")]
    NoCertificate,
    #[error("certificate {index}: the chain is not PEM: {reason}")]
    Chain { index: usize, reason: String },
    #[error("certificate {index}: the chain holds no certificate")]
    EmptyChain { index: usize },
    #[error("certificate {index}: the key is not PEM: {reason}")]
    Key { index: usize, reason: String },
    #[error("certificate {index}: the key does not belong to the certificate")]
    KeyOfAnother { index: usize },
    #[error("certificate {index}: not usable: {reason}")]
    Unusable { index: usize, reason: String },
    #[error("no usable authorities: {0}")]
    Authorities(String),
    #[error("no usable revocation list: {0}")]
    Revocations(String),
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

pub(crate) fn setup(error: impl std::fmt::Display) -> TlsError {
    TlsError::Setup(error.to_string())
}

/// A chain with its leaf's key, both usable and belonging to each other.
pub(crate) fn certified(
    index: usize,
    pem: &CertificatePem,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&pem.chain).map_err(|reason| TlsError::Chain { index, reason })?;
    if chain.is_empty() {
        return Err(TlsError::EmptyChain { index });
    }
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|error| TlsError::Key {
        index,
        reason: error.to_string(),
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::KeyOfAnother { index },
        other => TlsError::Unusable {
            index,
            reason: other.to_string(),
        },
    })
}

pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

/// Whether a file's authorities can be believed; asked when the operator's file is read.
///
/// # Errors
/// [`TlsError::Authorities`], in words.
pub fn check_authorities(pem: &[u8]) -> Result<(), TlsError> {
    authorities(pem).map(|_| ())
}

/// Whether a file's revocation lists can be looked into.
///
/// # Errors
/// [`TlsError::Revocations`], in words.
pub fn check_revocations(pem: &[u8]) -> Result<(), TlsError> {
    for list in revocations(pem)? {
        webpki::BorrowedCertRevocationList::from_der(&list)
            .map_err(|error| TlsError::Revocations(error.to_string()))?;
    }
    Ok(())
}

pub(crate) fn authorities(pem: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem).map_err(TlsError::Authorities)? {
        store
            .add(certificate)
            .map_err(|error| TlsError::Authorities(error.to_string()))?;
    }
    if store.is_empty() {
        let reason = "the file has no certificate".to_owned();
        return Err(TlsError::Authorities(reason));
    }
    Ok(Arc::new(store))
}

pub(crate) fn revocations(
    pem: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let lists = lists.map_err(|error| TlsError::Revocations(error.to_string()))?;
    if lists.is_empty() {
        let reason = "the file has no revocation list".to_owned();
        return Err(TlsError::Revocations(reason));
    }
    Ok(lists)
}
