//! A probe that asks: one GET over HTTP/1.1 or HTTP/2, with TLS or without, judged by the status
//! and, where asked, by words in the body.
//!
//! Reads at most [`BODY_READ_MAX`] of the body and [`HEAD_READ_MAX`] of the head. Never follows a
//! redirect and never keeps a connection.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use sealane_model::{EndpointProtocol, Failure, Outcome};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connect::{self, connect};
use super::tls;

/// What a body is searched in; the rest is not read.
pub(crate) const BODY_READ_MAX: usize = 64 * 1024;
/// A longer head is not lawful for a health check.
pub(crate) const HEAD_READ_MAX: usize = 64 * 1024;

/// One question to one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct HttpProbe {
    pub(crate) protocol: EndpointProtocol,
    pub(crate) tls: Option<HttpTls>,
    /// What the endpoint wants to be told before anything else; empty if nothing.
    pub(crate) header: &'static [u8],
    /// For the `Host` header, with the port where it is not the scheme's own.
    pub(crate) authority: String,
    pub(crate) path: Arc<str>,
    pub(crate) expect: Vec<(u16, u16)>,
    pub(crate) body_contains: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
pub(crate) struct HttpTls {
    pub(crate) server_name: Arc<str>,
    pub(crate) config: Arc<ClientConfig>,
}

/// The round trip is that of the question alone, from its first byte sent to the first byte of the
/// answer: neither the connection's nor TLS's handshakes are in it, so endpoints with and without
/// TLS compare.
pub(crate) async fn probe(probe: &HttpProbe, addresses: &[SocketAddr], limit: Duration) -> Outcome {
    let begun = super::instant();
    let connected = match connect(addresses, limit).await {
        Ok(connected) => connected,
        Err(failure) => return Outcome::Failed(failure),
    };
    let left = limit.saturating_sub(begun.elapsed());
    match timeout(left, ask(probe, connected.stream)).await {
        Ok(Ok(rtt)) => Outcome::Passed { rtt },
        Ok(Err(failure)) => Outcome::Failed(failure),
        Err(_) => Outcome::Failed(Failure::TimedOut),
    }
}

async fn ask(probe: &HttpProbe, mut stream: TcpStream) -> Result<Duration, Failure> {
    // Only latency is lost where this fails.
    let _ = stream.set_nodelay(true);
    connect::introduce(&mut stream, probe.header).await?;
    match &probe.tls {
        None => ask_over(probe, stream).await,
        Some(HttpTls {
            server_name,
            config,
        }) => {
            let stream = tls::handshake(config.clone(), server_name, stream).await?;
            let chosen = stream.get_ref().1.alpn_protocol();
            if probe.protocol == EndpointProtocol::Http2 && chosen != Some(b"h2") {
                return Err(Failure::Protocol(
                    "HTTP/2 was not agreed on (ALPN)".to_owned(),
                ));
            }
            ask_over(probe, stream).await
        }
    }
}

async fn ask_over(
    probe: &HttpProbe,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Duration, Failure> {
    match probe.protocol {
        EndpointProtocol::Http1 => ask_http1(probe, stream).await,
        EndpointProtocol::Http2 => ask_http2(probe, stream).await,
    }
}

async fn ask_http1(
    probe: &HttpProbe,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Duration, Failure> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD_READ_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| why_http1(&error))?;
    let request = request(probe)?;
    let exchange = async {
        let asked = super::instant();
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| why_http1(&error))?;
        let rtt = asked.elapsed();
        check_status(probe, answer.status())?;
        let Some(wanted) = &probe.body_contains else {
            return Ok(rtt);
        };
        let mut search = Search::new(wanted);
        let mut body = answer.into_body();
        while !search.is_over() {
            let Some(frame) = body.frame().await else {
                break;
            };
            if let Ok(data) = frame.map_err(|error| why_http1(&error))?.into_data() {
                search.feed(&data);
            }
        }
        search.result().map(|()| rtt)
    };
    driven_by(connection, exchange).await
}

async fn ask_http2(
    probe: &HttpProbe,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Duration, Failure> {
    let (sender, connection) = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(HEAD_READ_MAX as u32)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|error| why_http2(&error))?;
    let request = request(probe)?.map(|_| ());
    let exchange = async {
        let mut sender = sender.ready().await.map_err(|error| why_http2(&error))?;
        let asked = super::instant();
        let (answer, _) = sender
            .send_request(request, true)
            .map_err(|error| why_http2(&error))?;
        let answer = answer.await.map_err(|error| why_http2(&error))?;
        let rtt = asked.elapsed();
        check_status(probe, answer.status())?;
        let Some(wanted) = &probe.body_contains else {
            return Ok(rtt);
        };
        let mut search = Search::new(wanted);
        let mut body = answer.into_body();
        while !search.is_over() {
            let Some(data) = body.data().await else { break };
            let data = data.map_err(|error| why_http2(&error))?;
            search.feed(&data);
            // An error means that the stream has ended: the next read says so as well.
            let _ = body.flow_control().release_capacity(data.len());
        }
        search.result().map(|()| rtt)
    };
    driven_by(connection, exchange).await
}

/// Moves the connection while the exchange runs. The connection may end first, with what the
/// exchange still has to read in its hands.
async fn driven_by<C, T>(
    connection: impl Future<Output = C>,
    exchange: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    let mut ended = false;
    loop {
        tokio::select! {
            biased;
            result = &mut exchange => return result,
            _ = &mut connection, if !ended => ended = true,
        }
    }
}

fn request(probe: &HttpProbe) -> Result<Request<Empty<Bytes>>, Failure> {
    const AGENT: &str = concat!("sealane-probe/", env!("CARGO_PKG_VERSION"));
    let unlawful = |error: http::Error| Failure::Protocol(format!("cannot be asked: {error}"));
    let request = Request::builder()
        .method(Method::GET)
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "*/*");
    let request = match probe.protocol {
        EndpointProtocol::Http1 => request
            .uri(&*probe.path)
            .header(HOST, &probe.authority)
            .header(CONNECTION, "close"),
        EndpointProtocol::Http2 => {
            let scheme = if probe.tls.is_some() { "https" } else { "http" };
            let uri = Uri::builder()
                .scheme(scheme)
                .authority(probe.authority.as_str())
                .path_and_query(&*probe.path)
                .build()
                .map_err(unlawful)?;
            request.uri(uri).version(http::Version::HTTP_2)
        }
    };
    request.body(Empty::new()).map_err(unlawful)
}

fn check_status(probe: &HttpProbe, status: StatusCode) -> Result<(), Failure> {
    let status = status.as_u16();
    if probe
        .expect
        .iter()
        .any(|(low, high)| (*low..=*high).contains(&status))
    {
        return Ok(());
    }
    Err(Failure::Status {
        status,
        expected: in_words(&probe.expect),
    })
}

/// `200-299, 304`.
fn in_words(ranges: &[(u16, u16)]) -> String {
    let word = |(low, high): &(u16, u16)| match low == high {
        true => low.to_string(),
        false => format!("{low}-{high}"),
    };
    ranges.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// Looks for words in a body that comes in pieces.
struct Search<'a> {
    wanted: &'a [u8],
    read: Vec<u8>,
    found: bool,
}

impl<'a> Search<'a> {
    fn new(wanted: &'a str) -> Self {
        Self {
            wanted: wanted.as_bytes(),
            read: Vec::new(),
            found: wanted.is_empty(),
        }
    }

    const fn is_over(&self) -> bool {
        self.found || self.read.len() >= BODY_READ_MAX
    }

    fn feed(&mut self, piece: &[u8]) {
        let room = BODY_READ_MAX - self.read.len();
        // What was searched before can hold the beginning of the words only.
        let from = self.read.len().saturating_sub(self.wanted.len());
        self.read.extend_from_slice(&piece[..piece.len().min(room)]);
        let fresh = &self.read[from..];
        self.found = self.found || fresh.windows(self.wanted.len()).any(|at| at == self.wanted);
    }

    const fn result(&self) -> Result<(), Failure> {
        if self.found {
            Ok(())
        } else {
            Err(Failure::Body)
        }
    }
}

fn why_http1(error: &hyper::Error) -> Failure {
    if error.is_parse() || error.is_parse_too_large() {
        return Failure::Protocol(error.to_string());
    }
    in_source(error).unwrap_or(Failure::Closed)
}

fn why_http2(error: &h2::Error) -> Failure {
    match error.get_io() {
        Some(io) => connect::why(io),
        None => Failure::Protocol(error.to_string()),
    }
}

/// The I/O error at the bottom, if there is one.
fn in_source(error: &dyn std::error::Error) -> Option<Failure> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return Some(connect::why(io));
        }
        source = inner.source();
    }
    None
}

#[cfg(test)]
mod tests;
