//! BORDER. DNS over HTTPS (RFC 8484): hyper carries requests, by HTTP/2 and HTTP/1.1; the engine answers what they ask.
//!
//! Knows one path; serves no pages. What one connection can hold is bounded by the constants below.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::clock::steady_micros;
use super::door::{Guest, LAST_WORDS};
use crate::lifetime::lifetime;
use crate::metrics::count_refused_request;

/// Octets of a question, in a body or a path; longer ones are refused (413). None is as long, so that all that a
/// connection asks at once is small.
const QUESTION_MAX: usize = 4_096;
/// Octets of a body that are read before it is refused, so that its sender hears of it: the longest message that DNS
/// has. Of longer ones the stream is reset, or the connection closed.
const PASSED_OVER_MAX: usize = 65_535;
/// Requests of one HTTP/2 connection at once; more wait, or are refused (RFC 9113 §5.1.2).
const STREAMS_MAX: u32 = 32;
/// Octets of a request's head: a whole question in the path, and what browsers add. More is refused (431).
const HEAD_MAX: usize = 16 * 1_024;
/// Answers of one HTTP/2 stream that wait to be sent, in octets: the longest one.
const ANSWER_MAX: usize = 64 * 1_024;

const MESSAGE: &str = "application/dns-message";

/// Serves one connection to its end.
pub(crate) async fn run<S>(guest: Guest, stream: S, path: Arc<str>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (idle, peer, stop) = (guest.idle(), guest.peer, Arc::clone(&guest.stop));
    let desk = Arc::new(Desk {
        guest,
        path,
        idle,
        answered_at: AtomicU64::new(steady_micros()),
    });
    let clerk = Arc::clone(&desk);
    let service = service_fn(move |request| {
        let clerk = Arc::clone(&clerk);
        async move { Ok::<_, Infallible>(clerk.take(request).await) }
    });
    let http = http();
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            // First, or a client that never pauses would be served for ever.
            biased;
            () = stop.asked() => break,
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%peer, %error, "DNS connection closed");
                }
                return;
            }
            () = tokio::time::sleep(desk.rest()) => {
                if desk.rest().is_zero() {
                    break;
                }
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_WORDS, connection).await;
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    // The limit on idle connections holds for heads, too: it needs no timer of hyper's.
    http.http1()
        .header_read_timeout(None)
        .max_buf_size(HEAD_MAX);
    http.http2()
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_MAX as u32)
        .max_send_buf_size(ANSWER_MAX);
    http
}

/// What the requests of one connection share.
struct Desk {
    guest: Guest,
    path: Arc<str>,
    idle: Duration,
    /// By [`steady_micros`]; at first, when the connection began.
    answered_at: AtomicU64,
}

impl Desk {
    /// How long the connection may still ask nothing. The limit runs from question to question, so that octets sent
    /// one by one, and requests that are refused, don't prolong it.
    fn rest(&self) -> Duration {
        let since = steady_micros().saturating_sub(self.answered_at.load(Ordering::Relaxed));
        self.idle.saturating_sub(Duration::from_micros(since))
    }

    async fn take(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let asked = tokio::time::timeout(self.idle, question(&self.path, request));
        let answered = match asked.await {
            Ok(Ok(question)) => self.answer(&question),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Err(Refusal::Slow),
        };
        answered.unwrap_or_else(Refusal::response)
    }

    fn answer(&self, question: &[u8]) -> Result<Response<Full<Bytes>>, Refusal> {
        let (reply, is_steered) = self
            .guest
            .turn(|turn, room| {
                let answered = turn.answer(question, room)?;
                let reply = Bytes::copy_from_slice(&room[..answered.length]);
                Some((reply, answered.steered.is_some()))
            })
            .ok_or(Refusal::NoQuestion)?;
        self.answered_at.store(steady_micros(), Ordering::Relaxed);
        let kept = kept(&reply, is_steered);
        let mut response = Response::new(Full::from(reply));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MESSAGE));
        headers.insert(CACHE_CONTROL, kept);
        Ok(response)
    }
}

/// `Cache-Control` (RFC 8484 §5.1). What depends on who asks is for nobody else.
fn kept(reply: &[u8], depends_on_client: bool) -> HeaderValue {
    let private = if depends_on_client { "private, " } else { "" };
    let text = lifetime(reply).map(|seconds| format!("{private}max-age={seconds}"));
    let value = text.and_then(|text| HeaderValue::try_from(text).ok());
    value.unwrap_or_else(|| HeaderValue::from_static("no-store"))
}

/// Why a request gets no DNS answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Path,
    Method,
    NoParameter,
    NotBase64,
    MediaType,
    TooLong,
    Slow,
    /// Too short, or an answer itself.
    NoQuestion,
    /// The client went away, or broke the protocol.
    Body,
}

impl Refusal {
    const fn say(self) -> (StatusCode, &'static str) {
        match self {
            Self::Path => (StatusCode::NOT_FOUND, "not here"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "GET or POST"),
            Self::NoParameter => (StatusCode::BAD_REQUEST, "no parameter `dns`"),
            Self::NotBase64 => (
                StatusCode::BAD_REQUEST,
                "the parameter `dns` is not base64url without padding",
            ),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, MESSAGE),
            Self::TooLong => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "no question is longer than 4096 octets",
            ),
            Self::Slow => (StatusCode::REQUEST_TIMEOUT, "the question took too long"),
            Self::NoQuestion => (StatusCode::BAD_REQUEST, "this is no question"),
            Self::Body => (StatusCode::BAD_REQUEST, "the body ended too early"),
        }
    }

    fn response(self) -> Response<Full<Bytes>> {
        let (status, text) = self.say();
        count_refused_request(status_word(status));
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if self == Self::Method {
            headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        response
    }
}

const fn status_word(status: StatusCode) -> &'static str {
    match status.as_u16() {
        404 => "404",
        405 => "405",
        408 => "408",
        413 => "413",
        415 => "415",
        _ => "400",
    }
}

/// The DNS message of a request (RFC 8484 §4.1).
async fn question(path: &str, request: Request<Incoming>) -> Result<Bytes, Refusal> {
    if request.uri().path() != path {
        return Err(Refusal::Path);
    }
    match *request.method() {
        Method::GET => in_query(request.uri().query().unwrap_or_default()),
        Method::POST => {
            let is_message = is_message(&request);
            let question = in_body(request.into_body()).await?;
            is_message.then_some(question).ok_or(Refusal::MediaType)
        }
        _ => Err(Refusal::Method),
    }
}

fn in_query(query: &str) -> Result<Bytes, Refusal> {
    let mut parameters = query.split('&');
    let found = parameters.find_map(|one| one.strip_prefix("dns="));
    let text = found.ok_or(Refusal::NoParameter)?;
    if text.len() > QUESTION_MAX.div_ceil(3) * 4 {
        return Err(Refusal::TooLong);
    }
    let decoded = URL_SAFE_NO_PAD.decode(text);
    decoded.map(Bytes::from).map_err(|_| Refusal::NotBase64)
}

fn is_message(request: &Request<Incoming>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    // Parameters, which this media type has none of, are passed over.
    let kind = kind.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case(MESSAGE)
}

async fn in_body(mut body: Incoming) -> Result<Bytes, Refusal> {
    let (mut question, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::Body)?.into_data() else {
            continue;
        };
        length += data.len();
        if length <= QUESTION_MAX {
            question.extend_from_slice(&data);
        } else if length > PASSED_OVER_MAX {
            break;
        }
    }
    if length > QUESTION_MAX {
        return Err(Refusal::TooLong);
    }
    Ok(question.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_in_paths_are_base64url_without_padding() {
        assert_eq!(in_query("dns=AAAB").unwrap(), &[0, 0, 1][..]);
        assert_eq!(in_query("x=1&dns=_-8").unwrap(), &[0xff, 0xef][..]);
        assert_eq!(in_query("ct=1"), Err(Refusal::NoParameter));
        assert_eq!(in_query("dns=/+8"), Err(Refusal::NotBase64));
        assert_eq!(in_query("dns=_-8="), Err(Refusal::NotBase64));
        let long = format!("dns={}", "A".repeat(5_466));
        assert_eq!(in_query(&long), Err(Refusal::TooLong));
    }
}
