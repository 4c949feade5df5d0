//! When certificates and revocation lists end. Reads what it is handed; watches no clock.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

/// Certificates of one file that are followed. A file with more is a bundle of public authorities,
/// whose ends are nobody's business here: none of it is followed.
const PER_FILE_MAX: usize = 16;

/// One thing that ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiring {
    /// What it is for: a word of few.
    pub kind: &'static str,
    /// Where it came from, as the operator knows it.
    pub source: Arc<str>,
    /// Its common name, or its first alternative name, or its issuer for a revocation list.
    pub subject: Arc<str>,
    /// In seconds since 1970.
    pub not_after: i64,
}

/// All certificates and revocation lists in `pem`. What cannot be read is left out: whoever uses
/// it has said so.
#[must_use]
pub fn expiring(kind: &'static str, source: &str, pem: &[u8]) -> Vec<Expiring> {
    let source: Arc<str> = source.into();
    let entry = |(subject, not_after): (String, i64)| Expiring {
        kind,
        source: Arc::clone(&source),
        subject: subject.into(),
        not_after,
    };
    let certificates = CertificateDer::pem_slice_iter(pem).flatten();
    let lists = CertificateRevocationListDer::pem_slice_iter(pem).flatten();
    let found: Vec<Expiring> = certificates
        .filter_map(|der| of_certificate(&der))
        .chain(lists.filter_map(|der| of_list(&der)))
        .map(entry)
        .take(PER_FILE_MAX + 1)
        .collect();
    if found.len() > PER_FILE_MAX {
        return Vec::new();
    }
    found
}

pub(crate) fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

fn of_certificate(der: &CertificateDer<'_>) -> Option<(String, i64)> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let common = parsed.subject().iter_common_name().next();
    let common = common.and_then(|name| name.as_str().ok().map(str::to_owned));
    let subject = common.or_else(|| first_name(der));
    let subject = subject.unwrap_or_else(|| parsed.subject().to_string());
    Some((subject, parsed.validity().not_after.timestamp()))
}

fn first_name(der: &CertificateDer<'_>) -> Option<String> {
    let parsed = webpki::EndEntityCert::try_from(der).ok()?;
    let mut names = parsed.valid_dns_names().chain(parsed.valid_uri_names());
    names.next().map(str::to_owned)
}

fn of_list(der: &CertificateRevocationListDer<'_>) -> Option<(String, i64)> {
    let (_, parsed) = CertificateRevocationList::from_der(der).ok()?;
    Some((
        parsed.issuer().to_string(),
        parsed.next_update()?.timestamp(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn pem(common: Option<&str>, names: &[&str], year: i32) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        params.not_after = rcgen::date_time_ymd(year, 1, 2);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn every_certificate_of_a_file_is_followed_under_its_own_name() {
        let file = pem(Some("Leaf"), &["a.test"], 2031) + &pem(None, &["b.test"], 2032);

        let found = expiring("listener", "api.pem", file.as_bytes());

        let found: Vec<_> = found
            .iter()
            .map(|one| (one.kind, &*one.source, &*one.subject, one.not_after))
            .collect();
        assert_eq!(
            found,
            [
                ("listener", "api.pem", "Leaf", 1_925_078_400),
                ("listener", "api.pem", "b.test", 1_956_614_400),
            ]
        );
    }

    #[test]
    fn a_bundle_of_public_authorities_is_not_followed() {
        let bundle = pem(Some("CA"), &[], 2031).repeat(PER_FILE_MAX + 1);

        assert!(expiring("authority", "all.pem", bundle.as_bytes()).is_empty());
    }
}
