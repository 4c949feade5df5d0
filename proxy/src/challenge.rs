//! What an authority is shown so that it issues a certificate for a name: answers at a well-known
//! path (RFC 8555 §8.3) and handshakes of their own kind (RFC 8737).
//!
//! Filled and emptied by the daemon for whoever orders certificates; read by every worker, without
//! a lock. Knows no authority and decides nothing: what is not shown here goes its usual way.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::http::message::RequestHead;

/// Answers shown at once, of each kind; one more is not shown, and its order fails. A hundred names
/// of each of the orders that are under way at once take fewer.
pub const CHALLENGES_MAX: usize = 1_024;

const PATH: &str = "/.well-known/acme-challenge/";
/// RFC 8737 §6.2.
const PROTOCOL: &[u8] = b"acme-tls/1";

/// What is shown now.
#[derive(Default)]
pub struct Challenges {
    /// By token.
    http: ArcSwap<HashMap<Box<str>, Bytes>>,
    /// By name, lower-case.
    tls: ArcSwap<HashMap<Box<str>, Arc<ServerConfig>>>,
}

/// Why an answer is not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotShown {
    #[error("{CHALLENGES_MAX} answers are shown already")]
    Full,
    #[error("the certificate cannot be used: {0}")]
    Unusable(String),
}

impl Challenges {
    /// From now on the well-known path with `token` is answered with `authorization`.
    ///
    /// # Errors
    /// [`NotShown::Full`].
    pub fn show_http(&self, token: &str, authorization: &str) -> Result<(), NotShown> {
        let answer = Bytes::copy_from_slice(authorization.as_bytes());
        insert(&self.http, token, &answer)
    }

    /// From now on a handshake for `name` that offers `acme-tls/1` gets this certificate. Both parts
    /// are DER, the key PKCS#8.
    ///
    /// # Errors
    /// [`NotShown`].
    pub fn show_tls(&self, name: &str, certificate: &[u8], key: &[u8]) -> Result<(), NotShown> {
        let config = configure(certificate, key);
        let config = config.map_err(|error| NotShown::Unusable(error.to_string()))?;
        insert(&self.tls, name, &Arc::new(config))
    }

    pub fn hide_http(&self, token: &str) {
        remove(&self.http, token);
    }

    pub fn hide_tls(&self, name: &str) {
        remove(&self.tls, name);
    }

    /// The answer to a request. `None`: it is for the routes.
    pub(crate) fn answer(&self, request: &RequestHead) -> Option<Bytes> {
        if !request.target_starts_with(PATH) {
            return None;
        }
        let token = request.path().strip_prefix(PATH)?;
        self.http.load().get(token).cloned()
    }

    /// How to shake hands with whoever looks for a proof. `None`: as with any client. A client that
    /// looks for one offers this protocol alone (RFC 8737 §3).
    pub(crate) fn handshake(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let shown = self.tls.load();
        if shown.is_empty() {
            return None;
        }
        let mut offered = hello.alpn()?;
        let is_alone = offered.next() == Some(PROTOCOL) && offered.next().is_none();
        let name = hello.server_name().filter(|_| is_alone)?;
        shown.get(name).cloned()
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges")
            .field("http", &self.http.load().len())
            .field("tls", &self.tls.load().len())
            .finish()
    }
}

type Table<T> = ArcSwap<HashMap<Box<str>, T>>;

fn insert<T: Clone>(table: &Table<T>, key: &str, value: &T) -> Result<(), NotShown> {
    let mut full = false;
    table.rcu(|old| {
        full = old.len() >= CHALLENGES_MAX && !old.contains_key(key);
        let mut new = HashMap::clone(old);
        if !full {
            new.insert(key.into(), value.clone());
        }
        new
    });
    if full { Err(NotShown::Full) } else { Ok(()) }
}

fn remove<T: Clone>(table: &Table<T>, key: &str) {
    table.rcu(|old| {
        let mut new = HashMap::clone(old);
        new.remove(key);
        new
    });
}

fn configure(certificate: &[u8], key: &[u8]) -> Result<ServerConfig, rustls::Error> {
    let chain = vec![CertificateDer::from(certificate.to_vec())];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
    let key = aws_lc_rs::sign::any_supported_type(&key)?;
    // Not checked against the certificate: the check refuses the extension that is the proof, as it
    // must be critical and is known to authorities alone.
    let certified = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    let mut config = ServerConfig::builder_with_provider(sealane_tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certified));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // Nobody comes back.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_that_is_shown_is_answered() {
        let challenges = Challenges::default();
        challenges.show_http("token", "token.thumb").unwrap();

        let answer = |path: &str| {
            let request = http::Request::get(path).body(()).unwrap();
            challenges.answer(&RequestHead::from_parts(&request.into_parts().0))
        };
        assert_eq!(
            answer("/.well-known/acme-challenge/token"),
            Some(Bytes::from_static(b"token.thumb"))
        );
        assert_eq!(answer("/.well-known/acme-challenge/other"), None);
        assert_eq!(answer("/.well-known/acme-challenge/token/"), None);
        assert_eq!(answer("/.well-known/acme-challenge/"), None);
        assert_eq!(answer("/token"), None);

        challenges.hide_http("token");
        assert_eq!(answer("/.well-known/acme-challenge/token"), None);
    }

    #[test]
    fn answers_are_bounded_and_one_that_is_hidden_makes_room() {
        let challenges = Challenges::default();
        for n in 0..CHALLENGES_MAX {
            challenges.show_http(&format!("t{n}"), "a").unwrap();
        }

        assert_eq!(challenges.show_http("more", "a"), Err(NotShown::Full));
        challenges.show_http("t0", "b").unwrap();
        challenges.hide_http("t1");
        challenges.show_http("more", "a").unwrap();
    }

    #[test]
    fn a_certificate_that_cannot_be_used_is_not_shown() {
        let challenges = Challenges::default();

        let refused = challenges.show_tls("one.test", b"no", b"no").unwrap_err();

        assert!(matches!(refused, NotShown::Unusable(_)), "{refused}");
        assert!(challenges.tls.load().is_empty());
    }
}
