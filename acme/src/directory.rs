//! BORDER. How the authority is spoken to: one HTTPS connection a request, bounded in time and size.
//!
//! The ACME library builds and signs the requests; this carries them, and remembers how long the
//! authority asks to be left alone, which the library does not pass on with a refusal.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::uri::Scheme;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::plan::Asked;

/// For one request, from connecting to the last byte of its answer.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer; a chain of certificates has a few thousand.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const AGENT: &str = concat!("sealane/", env!("CARGO_PKG_VERSION"));

/// What a request's answer is boxed in by the library.
type Answering = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

/// The way to one authority. Clones share it.
#[derive(Clone)]
pub(crate) struct Way {
    tls: Arc<ClientConfig>,
    asked: Arc<Mutex<Asked>>,
}

/// The authority cannot be reached by this configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WayError {
    #[error("the roots for the directory's server are not PEM certificates")]
    Roots,
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("`{0}` is no https URL")]
    NotHttps(Uri),
    #[error("{host}:{port} cannot be reached")]
    Connect {
        host: String,
        port: u16,
        source: io::Error,
    },
    #[error("no TLS with {host}")]
    Handshake { host: String, source: io::Error },
    #[error("HTTP failed")]
    Http(#[source] hyper::Error),
    #[error("the answer cannot be read")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {} s", REQUEST_TIME_MAX.as_secs())]
    TooLate,
    #[error("it answered {0}")]
    Status(StatusCode),
}

impl Way {
    /// `roots`: PEM; the system's when `None`.
    pub(crate) fn new(roots: Option<&[u8]>) -> Result<Self, WayError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(WayError::Tls)?
            .with_root_certificates(root_store(roots)?)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: Arc::new(config),
            asked: Arc::new(Mutex::new(Asked::Nothing)),
        })
    }

    /// What the authority asked for with its last refusal since this was last called.
    pub(crate) fn take_asked(&self) -> Asked {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *asked, Asked::Nothing)
    }

    fn note_refusal(&self, answer: &Response<Bytes>) {
        let Some(pause) = retry_after(answer.headers().get(RETRY_AFTER), wall()) else {
            return;
        };
        let asked = if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            Asked::ForAll(pause)
        } else {
            Asked::ForThisOrder(pause)
        };
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = asked;
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Unanswered> {
        let answer = timeout(REQUEST_TIME_MAX, self.exchange(request));
        let answer = answer.await.map_err(|_| Unanswered::TooLate)??;
        if answer.status().is_client_error() || answer.status().is_server_error() {
            self.note_refusal(&answer);
            // What stands before an authority answers in HTML; its words are for a browser.
            if !is_problem(&answer) {
                return Err(Unanswered::Status(answer.status()));
            }
        }
        Ok(BytesResponse::from(answer.map(Full::new)))
    }

    async fn exchange(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<Response<Bytes>, Unanswered> {
        let (mut head, body) = request.into_parts();
        let not_https = |uri: &Uri| Unanswered::NotHttps(uri.clone());
        let authority = match (head.uri.scheme(), head.uri.authority()) {
            (Some(scheme), Some(authority)) if *scheme == Scheme::HTTPS => authority.clone(),
            _ => return Err(not_https(&head.uri)),
        };
        let (host, port) = (authority.host(), authority.port_u16().unwrap_or(443));
        let name = HeaderValue::from_str(authority.as_str()).map_err(|_| not_https(&head.uri))?;
        head.headers.insert(HOST, name);
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("close"));
        head.headers
            .insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = path.parse().map_err(|_| not_https(&head.uri))?;

        let stream = self.connect(host, port).await?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Unanswered::Http)?;
        let answer = async {
            let answer = sender
                .send_request(Request::from_parts(head, body))
                .await
                .map_err(Unanswered::Http)?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(Unanswered::Body)?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        let (mut connection, mut answer) = (std::pin::pin!(connection), std::pin::pin!(answer));
        let mut ended = false;
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                // It may end first, with what is still to be read in the answer's hands.
                _ = &mut connection, if !ended => ended = true,
            }
        }
    }

    async fn connect(
        &self,
        host: &str,
        port: u16,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Unanswered> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let handshake = |source| Unanswered::Handshake {
            host: host.to_owned(),
            source,
        };
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|error| handshake(io::Error::other(error)))?;
        let tcp = TcpStream::connect((bare, port))
            .await
            .map_err(|source| Unanswered::Connect {
                host: host.to_owned(),
                port,
                source,
            })?;
        TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, tcp)
            .await
            .map_err(handshake)
    }
}

impl HttpClient for Way {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answering {
        let way = self.clone();
        Box::pin(async move {
            way.ask(request)
                .await
                .map_err(|e| Error::Other(Box::new(e)))
        })
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").finish_non_exhaustive()
    }
}

fn root_store(roots: Option<&[u8]>) -> Result<RootCertStore, WayError> {
    let mut store = RootCertStore::empty();
    match roots {
        None => {
            // Some of a system's roots may be unusable; without any, each handshake says so.
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
        }
        Some(pem) => {
            for root in CertificateDer::pem_slice_iter(pem) {
                let root = root.map_err(|_| WayError::Roots)?;
                store.add(root).map_err(|_| WayError::Roots)?;
            }
            if store.is_empty() {
                return Err(WayError::Roots);
            }
        }
    }
    Ok(store)
}

/// Whether `pem` holds certificates that can vouch for a directory's server.
#[must_use]
pub fn are_roots(pem: &[u8]) -> bool {
    root_store(Some(pem)).is_ok()
}

/// RFC 7807 §3, by RFC 8555 §6.7.
fn is_problem(answer: &Response<Bytes>) -> bool {
    let kind = answer.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/problem+json"))
}

/// Seconds, or a date (RFC 9110 §10.2.3).
fn retry_after(value: Option<&HeaderValue>, now: SystemTime) -> Option<Duration> {
    let text = value?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[expect(
    clippy::disallowed_methods,
    reason = "authorities name a moment by the wall clock"
)]
fn wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_by_a_date() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap();
        let asked = |text| retry_after(Some(&HeaderValue::from_static(text)), now);

        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(
            asked("Wed, 21 Oct 2015 07:29:30 GMT"),
            Some(Duration::from_secs(90))
        );
        assert_eq!(asked("Wed, 21 Oct 2015 07:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("soon"), None);
        assert_eq!(retry_after(None, now), None);
    }

    #[test]
    fn roots_that_are_none_are_refused() {
        assert!(matches!(Way::new(Some(b"nothing")), Err(WayError::Roots)));
        assert!(Way::new(None).is_ok());
    }
}
