//! A certificate with its key, as one PEM text: what it is for and how long it holds.
//!
//! Reads what an authority or the disk gave, and believes nothing of it before it was looked at.
//! Whether the key belongs to the certificate is for whoever serves it to find out.

use std::collections::BTreeSet;
use std::fmt;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sealane_model::Timestamp;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::Names;
use crate::plan::Validity;

/// Bytes of PEM, chain and key together; more is not taken from an authority or the disk.
pub(crate) const PEM_BYTES_MAX: usize = 256 * 1024;

/// A chain, leaf first, and the leaf's key, in one PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    pem: Vec<u8>,
    validity: Validity,
}

/// Why a PEM text cannot serve for these names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("it has more than {PEM_BYTES_MAX} bytes")]
    TooLong,
    #[error("it is not PEM")]
    NotPem,
    #[error("it holds no certificate")]
    NoCertificate,
    #[error("it holds no private key")]
    NoKey,
    #[error("its certificate cannot be understood")]
    NotX509,
    #[error("it is not for {0}")]
    NotFor(Box<str>),
}

impl Certificate {
    /// # Errors
    /// [`Broken`] when it lacks a part or does not bear each of `names`.
    pub fn parse(pem: Vec<u8>, names: &Names) -> Result<Self, Broken> {
        if pem.len() > PEM_BYTES_MAX {
            return Err(Broken::TooLong);
        }
        let leaf = CertificateDer::pem_slice_iter(&pem)
            .next()
            .ok_or(Broken::NoCertificate)?
            .map_err(|_| Broken::NotPem)?;
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| Broken::NoKey)?;
        let (_, leaf) = X509Certificate::from_der(&leaf).map_err(|_| Broken::NotX509)?;
        let borne = borne(&leaf)?;
        if let Some(missing) = names.iter().find(|name| !borne.contains(&***name)) {
            return Err(Broken::NotFor(missing.as_ref().into()));
        }
        let validity = Validity {
            not_before: moment(leaf.validity().not_before.timestamp()),
            not_after: moment(leaf.validity().not_after.timestamp()),
        };
        Ok(Self { pem, validity })
    }

    /// Chain and key: who looks for one of them passes over the other.
    #[must_use]
    pub fn pem(&self) -> &[u8] {
        &self.pem
    }

    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }
}

impl fmt::Debug for Certificate {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("pem", &format_args!("{} bytes", self.pem.len()))
            .field("validity", &self.validity)
            .finish()
    }
}

/// The DNS names of the subjectAltName (RFC 6125 §6.4), lower-case.
fn borne(leaf: &X509Certificate<'_>) -> Result<BTreeSet<String>, Broken> {
    let names = leaf
        .subject_alternative_name()
        .map_err(|_| Broken::NotX509)?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Ok(names.collect())
}

fn moment(seconds: i64) -> Timestamp {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    Timestamp::from_millis(seconds.saturating_mul(1_000))
}
