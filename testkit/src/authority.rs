//! A certificate authority for tests: servers' and clients' certificates, and what was revoked.

use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};

/// Everything that it issues is good until then, unless it is asked otherwise.
const YEAR_FAR: i32 = 2050;

#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate with its key, in PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    pub chain: String,
    pub key: String,
    serial: SerialNumber,
}

impl Authority {
    /// # Panics
    /// When no key can be made, as everything here.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = params(name, &[], YEAR_FAR);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// `names`: host names, IP addresses and URIs.
    #[must_use]
    pub fn issue(&self, common: &str, names: &[&str]) -> Issued {
        self.issue_until(common, names, YEAR_FAR)
    }

    /// A certificate that ends on 1 January of `year`.
    #[must_use]
    pub fn issue_until(&self, common: &str, names: &[&str], year: i32) -> Issued {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let serial = SerialNumber::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let mut params = params(common, names, year);
        params.serial_number = Some(serial.clone());
        let key = KeyPair::generate().expect("a key");
        let made = params.signed_by(&key, &self.issuer);
        Issued {
            chain: made.expect("a certificate").pem(),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// The list of what is revoked: these.
    #[must_use]
    pub fn revoke(&self, revoked: &[&Issued]) -> String {
        let long_ago = date_time_ymd(2024, 1, 1);
        let entry = |issued: &&Issued| RevokedCertParams {
            serial_number: issued.serial.clone(),
            revocation_time: long_ago,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: long_ago,
            next_update: date_time_ymd(YEAR_FAR, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.issuer).expect("a list");
        signed.pem().expect("PEM")
    }
}

fn params(common: &str, names: &[&str], year: i32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(year, 1, 1);
    params.subject_alt_names = names.iter().map(|name| alternative(name)).collect();
    params
}

fn alternative(name: &str) -> SanType {
    if let Ok(address) = name.parse() {
        return SanType::IpAddress(address);
    }
    let text = name.try_into().expect("ASCII");
    if name.contains("://") {
        SanType::URI(text)
    } else {
        SanType::DnsName(text)
    }
}
