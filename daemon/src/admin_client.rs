//! The command line's side of the admin API: one request, one answer, in the words of a person.
//!
//! Uses nothing but the public API; holds no knowledge of health or rules.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// For a whole exchange with the admin API.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read; a larger one is an error.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// Where the admin API is, and with what right it is asked.
#[derive(Clone)]
pub struct AdminClient {
    authority: String,
    token: Option<String>,
    header: Option<(&'static str, &'static str)>,
}

impl std::fmt::Debug for AdminClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminClient")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

/// Status and JSON body of an answer.
#[derive(Debug)]
pub struct Answer {
    pub status: http::StatusCode,
    pub body: Value,
}

impl AdminClient {
    /// `url`: `http://HOST:PORT`, nothing behind it.
    ///
    /// # Errors
    /// `url` is not of that form.
    pub fn new(url: &str, token: Option<String>) -> anyhow::Result<Self> {
        let expected = || format!("the admin API's address is http://HOST:PORT, not {url:?}");
        let uri: Uri = url.parse().with_context(expected)?;
        if uri.scheme_str() != Some("http") || uri.path() != "/" || uri.query().is_some() {
            bail!(expected());
        }
        let Some(authority) = uri.authority() else {
            bail!(expected())
        };
        Ok(Self {
            authority: authority.to_string(),
            token,
            header: None,
        })
    }

    /// Sends one more header with each request.
    #[must_use]
    pub fn with_header(self, name: &'static str, value: &'static str) -> Self {
        Self {
            header: Some((name, value)),
            ..self
        }
    }

    /// # Errors
    /// Nobody answers there, or not in JSON.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.exchange(Method::GET, path, None).await
    }

    /// # Errors
    /// Nobody answers there, or not in JSON.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.exchange(Method::POST, path, Some(body)).await
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let exchange = tokio::time::timeout(TIMEOUT, self.send(method, path, body));
        let at = || format!("the admin API at {}", self.authority);
        exchange
            .await
            .with_context(|| format!("{} took over {TIMEOUT:?}", at()))?
            .with_context(at)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let stream = TcpStream::connect(&self.authority)
            .await
            .context("cannot connect")?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some((name, value)) = self.header {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let answer = async {
            let answer = sender.send_request(request).await.context("no answer")?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
            Ok((status, body.to_bytes()))
        };
        // The connection is driven beside the exchange, and ends with it.
        let (status, bytes) = tokio::select! {
            answered = answer => answered,
            ended = connection => match ended {
                Ok(()) => Err(anyhow::anyhow!("the connection was closed before an answer")),
                Err(error) => Err(error.into()),
            },
        }?;
        let body = serde_json::from_slice(&bytes).with_context(|| format!("{status}, not JSON"))?;
        Ok(Answer { status, body })
    }
}

/// Percent-encodes everything that is not unreserved (RFC 3986 §2.3), for a query's value.
#[must_use]
pub fn query_value(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_http_address_is_taken() {
        assert!(AdminClient::new("http://127.0.0.1:9900", None).is_ok());
        for odd in [
            "https://x:1",
            "127.0.0.1:9900",
            "http://x:1/path",
            "http://x:1/?q",
            "",
        ] {
            assert!(AdminClient::new(odd, None).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let client = AdminClient::new("http://x:1", Some("s3cret".to_owned())).unwrap();

        assert!(!format!("{client:?}").contains("s3cret"));
    }

    #[test]
    fn a_url_survives_as_a_query_value() {
        assert_eq!(
            query_value("https://a.b/c?d=ü"),
            "https%3A%2F%2Fa.b%2Fc%3Fd%3D%C3%BC"
        );
    }
}
