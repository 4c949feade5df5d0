//! Who a client is by its certificate, and who is let in.
//!
//! The verifier asks webpki whether the certificate is good (RFC 5280), then [`Allow`] whether its
//! bearer is wanted: both within the handshake, so that nobody else ever sends a request.

use std::fmt::Write as _;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use sha2::{Digest as _, Sha256};

use crate::expiry;

/// Names of one certificate that are passed on; further ones are left out.
const NAMES_MAX: usize = 16;
/// Bytes of one name that is passed on; a longer one is left out (RFC 1035 §2.3.4 allows 253 for a
/// host, SPIFFE-ID §2.3 2,048 for an id).
const NAME_BYTES_MAX: usize = 2_048;

/// A verified client, in words for its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// What endpoints are told: a structured dictionary (RFC 9651) of `sha256`, the leaf's
    /// fingerprint in hexadecimal, `uri` and `dns`, its alternative names, as inner lists.
    pub header: Box<str>,
    /// The first certificate of the chain to expire does so then, in seconds since 1970.
    pub not_after: i64,
}

impl ClientIdentity {
    /// Of a chain that a handshake verified, leaf first. `None`: it cannot be read, which a
    /// verified one can.
    pub(crate) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let leaf = chain.first()?;
        let parsed = webpki::EndEntityCert::try_from(leaf).ok()?;
        let mut header = String::from("sha256=\"");
        for byte in Sha256::digest(leaf) {
            // Writing to a String never fails.
            let _ = write!(header, "{byte:02x}");
        }
        header.push('"');
        push_list(&mut header, "uri", parsed.valid_uri_names());
        push_list(&mut header, "dns", parsed.valid_dns_names());
        let ends = chain.iter().map(|der| expiry::not_after(der));
        Some(Self {
            header: header.into(),
            not_after: ends.collect::<Option<Vec<_>>>()?.into_iter().min()?,
        })
    }
}

fn push_list<'a>(header: &mut String, key: &str, names: impl Iterator<Item = &'a str>) {
    let names = names
        .filter(|name| name.len() <= NAME_BYTES_MAX && name.bytes().all(|b| b.is_ascii_graphic()));
    let mut separator = format!(", {key}=(");
    let mut any = false;
    for name in names.take(NAMES_MAX) {
        header.push_str(&separator);
        separator.replace_range(.., " ");
        header.push('"');
        for letter in name.chars() {
            if matches!(letter, '"' | '\\') {
                header.push('\\');
            }
            header.push(letter);
        }
        header.push('"');
        any = true;
    }
    if any {
        header.push(')');
    }
}

/// Which clients are let in, of those whose certificate is good. Empty: all of them; else who
/// matches any one pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Allow {
    pub dns: Vec<DnsPattern>,
    pub spiffe: Vec<SpiffePattern>,
}

impl Allow {
    fn is_empty(&self) -> bool {
        self.dns.is_empty() && self.spiffe.is_empty()
    }

    fn admits(&self, leaf: &CertificateDer<'_>) -> bool {
        if self.is_empty() {
            return true;
        }
        let Ok(leaf) = webpki::EndEntityCert::try_from(leaf) else {
            return false;
        };
        let by_name = leaf
            .valid_dns_names()
            .any(|name| self.dns.iter().any(|pattern| pattern.matches(name)));
        by_name || spiffe_id(leaf.valid_uri_names()).is_some_and(|id| self.admits_spiffe(id))
    }

    fn admits_spiffe(&self, id: &str) -> bool {
        self.spiffe.iter().any(|pattern| pattern.matches(id))
    }
}

/// A certificate with several URIs is no SPIFFE identity (X509-SVID §2).
fn spiffe_id<'a>(mut uris: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (first, more) = (uris.next()?, uris.next().is_some());
    (!more && is_spiffe_id(first)).then_some(first)
}

/// `spiffe://domain/path` (SPIFFE-ID §2): a domain in lower case, segments that are neither empty
/// nor made of dots.
fn is_spiffe_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("spiffe://") else {
        return false;
    };
    let (domain, path) = match rest.split_once('/') {
        Some((domain, path)) => (domain, Some(path)),
        None => (rest, None),
    };
    let in_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    let in_path = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let is_segment =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(in_path);
    text.len() <= NAME_BYTES_MAX
        && !domain.is_empty()
        && domain.bytes().all(in_domain)
        && path.is_none_or(|path| path.split('/').all(is_segment))
}

/// `api.example.com`, or `*.example.com` for exactly one label before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsPattern(Box<str>);

impl DnsPattern {
    /// `None` when no certificate could match. `text` is a host name, `*.` may stand before it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let name = rustls::pki_types::DnsName::try_from(name).ok()?;
        let lawful = !name.as_ref().ends_with('.');
        lawful.then(|| Self(text.to_ascii_lowercase().into()))
    }

    /// A wildcard in the certificate itself matches nothing: it names nobody.
    fn matches(&self, name: &str) -> bool {
        if name.contains('*') {
            return false;
        }
        match self.0.strip_prefix("*.") {
            Some(parent) => name
                .split_once('.')
                .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
            None => name.eq_ignore_ascii_case(&self.0),
        }
    }
}

/// `spiffe://domain/path`, or `spiffe://domain/path/*` for everything below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffePattern(Box<str>);

impl SpiffePattern {
    /// `None` when no SPIFFE identity could match.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let id = text.strip_suffix("/*").unwrap_or(text);
        is_spiffe_id(id).then(|| Self(text.into()))
    }

    fn matches(&self, id: &str) -> bool {
        match self.0.strip_suffix('*') {
            // It ends in the slash.
            Some(above) => id.len() > above.len() && id.starts_with(above),
            None => id == &*self.0,
        }
    }
}

/// webpki's verdict, then ours.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) webpki: Arc<dyn ClientCertVerifier>,
    pub(crate) allow: Allow,
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.webpki.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.webpki.verify_client_cert(leaf, intermediates, now)?;
        if self.allow.admits(leaf) {
            return Ok(verified);
        }
        // Told to the client as `access_denied` (RFC 8446 §6.2).
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(dns: &[&str], uris: &[&str]) -> CertificateDer<'static> {
        let dns: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(dns).unwrap();
        for uri in uris {
            let uri = (*uri).try_into().unwrap();
            params.subject_alt_names.push(SanType::URI(uri));
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    fn allow(dns: &[&str], spiffe: &[&str]) -> Allow {
        Allow {
            dns: dns.iter().map(|p| DnsPattern::parse(p).unwrap()).collect(),
            spiffe: spiffe
                .iter()
                .map(|p| SpiffePattern::parse(p).unwrap())
                .collect(),
        }
    }

    #[test]
    fn whoever_matches_one_pattern_is_let_in_and_nobody_else() {
        let allow = allow(&["*.jobs.test", "api.test"], &["spiffe://corp/ns/*"]);

        assert!(allow.admits(&certificate(&["API.test"], &[])));
        assert!(allow.admits(&certificate(&["x.test", "a.jobs.test"], &[])));
        assert!(allow.admits(&certificate(&[], &["spiffe://corp/ns/sa/web"])));
        assert!(!allow.admits(&certificate(&["a.b.jobs.test"], &[])));
        assert!(!allow.admits(&certificate(&["jobs.test"], &[])));
        assert!(!allow.admits(&certificate(&[], &["spiffe://corp/ns"])));
        assert!(!allow.admits(&certificate(&[], &["spiffe://corp/nsx/sa"])));
        assert!(!allow.admits(&certificate(&[], &["spiffe://corp.evil/ns/sa"])));
        assert!(!allow.admits(&certificate(&[], &[])));
        assert!(Allow::default().admits(&certificate(&[], &[])));
    }

    #[test]
    fn a_certificate_of_two_uris_or_of_a_wildcard_names_nobody() {
        let both = ["spiffe://corp/ns/a", "spiffe://corp/ns/b"];

        assert!(!allow(&[], &["spiffe://corp/ns/*"]).admits(&certificate(&[], &both)));
        assert!(!allow(&["*.test"], &[]).admits(&certificate(&["*.test"], &[])));
    }

    #[test]
    fn a_pattern_that_could_match_nobody_is_refused() {
        for text in ["", "*", "a b", "*.*.test", "a..test", "a.test."] {
            assert_eq!(DnsPattern::parse(text), None, "{text}");
        }
        for text in [
            "",
            "corp/ns",
            "spiffe://",
            "spiffe://Corp/ns",
            "spiffe://corp/ns/",
            "spiffe://corp/a//b",
            "spiffe://corp/../b",
            "spiffe://corp/*/b",
            "https://corp/ns",
        ] {
            assert_eq!(SpiffePattern::parse(text), None, "{text}");
        }
        assert!(SpiffePattern::parse("spiffe://corp/*").is_some());
    }

    #[test]
    fn an_identity_is_a_structured_dictionary_that_no_name_can_break_out_of() {
        let leaf = certificate(&["a.test", "b.test"], &["spiffe://corp/a", "x:\"\\,y=1"]);

        let identity = ClientIdentity::of(std::slice::from_ref(&leaf)).unwrap();

        let hash: String = Sha256::digest(&leaf)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let wanted = format!(
            "sha256=\"{hash}\", uri=(\"spiffe://corp/a\" \"x:\\\"\\\\,y=1\"), dns=(\"a.test\" \"b.test\")"
        );
        assert_eq!(&*identity.header, wanted);
        assert!(identity.not_after > 1_700_000_000);
    }

    #[test]
    fn a_certificate_without_names_is_known_by_its_fingerprint() {
        let identity = ClientIdentity::of(&[certificate(&[], &[])]).unwrap();

        assert_eq!(identity.header.len(), "sha256=\"\"".len() + 64);
    }
}
