//! The listeners' side of TLS: certificates chosen by server name, and the rustls configuration
//! made of them. Reads no file and never logs a key.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A certificate chain, leaf first, and the leaf's private key, both as PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificatePem {
    pub chain: Vec<u8>,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: Vec<u8>,
}

impl fmt::Debug for CertificatePem {
    /// Sizes only: a key must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificatePem")
            .field("chain", &format_args!("{} bytes", self.chain.len()))
            .field("key", &"redacted")
            .finish()
    }
}

/// Why certificates cannot serve. `index` counts from 0, in the order they were given.
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
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// What a TLS listener serves with. Clones share everything, session tickets' keys included.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<rustls::ServerConfig>,
    certificates: Arc<ByName>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("names", &self.certificates.exact.len())
            .field("wildcards", &self.certificates.wildcard.len())
            .finish()
    }
}

impl ServerTls {
    /// The first certificate serves clients that name no server, or one that nobody has. A name
    /// that several certificates have is served by the first of them.
    ///
    /// TLS 1.2 and 1.3; `h2` and `http/1.1` by ALPN (RFC 7301); resumption by tickets only.
    ///
    /// # Errors
    /// [`TlsError`] when a part is not PEM, not usable, or a key belongs to another certificate.
    pub fn new(certificates: &[CertificatePem]) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut by_name: Option<ByName> = None;
        for (index, pem) in certificates.iter().enumerate() {
            let key = Arc::new(certified(index, pem, &provider)?);
            let names = names_of(index, &key)?;
            by_name
                .get_or_insert_with(|| ByName::new(key.clone()))
                .add(&names, &key);
        }
        let certificates = Arc::new(by_name.ok_or(TlsError::NoCertificate)?);
        let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(setup)?
            .with_no_client_auth()
            .with_cert_resolver(certificates.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(setup)?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Self {
            config: Arc::new(config),
            certificates,
        })
    }

    pub(crate) fn config(&self) -> &Arc<rustls::ServerConfig> {
        &self.config
    }
}

fn certified(
    index: usize,
    pem: &CertificatePem,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem.chain)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Chain {
            index,
            reason: error.to_string(),
        })?;
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

/// The DNS names of the leaf's subjectAltName (RFC 6125 §6.4), lower-case.
fn names_of(index: usize, key: &CertifiedKey) -> Result<Vec<String>, TlsError> {
    let unusable = |reason: String| TlsError::Unusable { index, reason };
    let leaf = key
        .end_entity_cert()
        .map_err(|error| unusable(error.to_string()))?;
    let leaf =
        webpki::EndEntityCert::try_from(leaf).map_err(|error| unusable(error.to_string()))?;
    Ok(leaf
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect())
}

/// Certificates by server name. Names come from the operator's certificates: no bound is needed.
#[derive(Debug)]
struct ByName {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// `*.example.com` under `example.com`: stands for exactly one label (RFC 6125 §6.4.3).
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl ByName {
    fn new(default: Arc<CertifiedKey>) -> Self {
        Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            default,
        }
    }

    fn add(&mut self, names: &[String], key: &Arc<CertifiedKey>) {
        for name in names {
            let (table, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.wildcard, parent),
                None => (&mut self.exact, name.as_str()),
            };
            table.entry(name.to_owned()).or_insert_with(|| key.clone());
        }
    }

    fn find(&self, name: &str) -> &Arc<CertifiedKey> {
        let parent = || name.split_once('.').map(|(_, parent)| parent);
        self.exact
            .get(name)
            .or_else(|| self.wildcard.get(parent()?))
            .unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls has lower-cased the name and refused what is no DNS name.
        let key = hello
            .server_name()
            .map_or(&self.default, |name| self.find(name));
        Some(key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(names: &[&str]) -> CertificatePem {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        CertificatePem {
            chain: made.cert.pem().into_bytes(),
            key: made.signing_key.serialize_pem().into_bytes(),
        }
    }

    fn serves(tls: &ServerTls, name: &str) -> Vec<u8> {
        tls.certificates.find(name).cert[0].to_vec()
    }

    #[test]
    fn the_most_exact_name_chooses_the_certificate_and_the_first_one_serves_the_rest() {
        let certificates = [
            pem(&["one.test"]),
            pem(&["*.two.test"]),
            pem(&["deep.two.test", "one.test"]),
        ];
        let tls = ServerTls::new(&certificates).unwrap();
        let der = |n: usize| CertificateDer::from_pem_slice(&certificates[n].chain).unwrap();

        assert_eq!(serves(&tls, "one.test"), der(0).to_vec());
        assert_eq!(serves(&tls, "any.two.test"), der(1).to_vec());
        assert_eq!(serves(&tls, "deep.two.test"), der(2).to_vec());
        assert_eq!(serves(&tls, "two.test"), der(0).to_vec());
        assert_eq!(serves(&tls, "a.b.two.test"), der(0).to_vec());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let mut wrong = pem(&["one.test"]);
        wrong.key = pem(&["one.test"]).key;

        let refused = ServerTls::new(&[pem(&["zero.test"]), wrong]).unwrap_err();

        assert_eq!(refused, TlsError::KeyOfAnother { index: 1 });
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let good = pem(&["one.test"]);
        let with = |chain: &[u8], key: &[u8]| {
            ServerTls::new(&[CertificatePem {
                chain: chain.to_vec(),
                key: key.to_vec(),
            }])
        };

        assert_eq!(ServerTls::new(&[]).unwrap_err(), TlsError::NoCertificate);
        assert_eq!(
            with(b"", &good.key).unwrap_err(),
            TlsError::EmptyChain { index: 0 }
        );
        assert!(matches!(
            with(&good.chain, b"no key").unwrap_err(),
            TlsError::Key { index: 0, .. }
        ));
    }

    #[test]
    fn a_key_is_never_printed() {
        let pem = pem(&["one.test"]);

        assert!(!format!("{pem:?}").contains("PRIVATE"));
    }
}
