//! What a route may do besides choosing an endpoint, as the operator wrote it: changed headers and
//! paths, answers of its own, CORS, compression. Plain data, already valid.
//!
//! What it means is in `http::rules`, one file for each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use sealane_model::Ratio;

use super::Destination;

use super::limits::RouteLimits;
use super::sharing::{Coalesce, Mirror};

/// Small things that a route may do; by default none of them.
#[derive(Clone, Debug, Default)]
pub struct RouteOptions {
    /// On the request, after our own headers were written on it: the operator has the last word.
    pub request_headers: HeaderEdits,
    /// On every answer of the route, our own included.
    pub response_headers: HeaderEdits,
    pub rewrite: Rewrite,
    pub maintenance: Option<Maintenance>,
    pub cors: Option<Cors>,
    pub compression: Option<Compression>,
    pub coalesce: Option<Coalesce>,
    pub mirror: Option<Mirror>,
    pub limits: RouteLimits,
    /// Pools that get a share of the requests in place of the route's own. No more in all than all.
    pub split: Vec<Split>,
    /// Requests of one session go to one endpoint.
    pub sticky: Option<Sticky>,
}

/// How a session is known.
#[derive(Clone, Debug)]
pub enum Sticky {
    Cookie(StickyCookie),
    /// By the value of a header.
    Header(HeaderName),
}

/// The cookie that names a session's endpoint, in a way that only we can read.
#[derive(Clone, Debug)]
pub struct StickyCookie {
    pub name: Box<str>,
    /// `None`: until the browser is closed.
    pub max_age: Option<Duration>,
    /// Over TLS only. `None`: if it was given over TLS.
    pub secure: Option<bool>,
    /// Not for scripts.
    pub http_only: bool,
    pub same_site: SameSite,
    /// The first one makes cookies, all of them are honoured. At least one.
    pub keys: Arc<[StickyKey]>,
}

/// Whether other sites' pages send it along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    Strict,
    Lax,
    None,
}

/// A secret that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct StickyKey(Arc<[u8]>);

impl StickyKey {
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(secret.into())
    }

    pub(crate) fn secret(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StickyKey")
    }
}

/// A pool that gets a share of a route's requests.
#[derive(Clone, Debug)]
pub struct Split {
    pub to: Destination,
    /// The pool's.
    pub name: Arc<str>,
    pub share: Ratio,
    /// Requests with the same key go the same way. `None`: each is drawn by itself.
    pub key: Option<SplitKey>,
    /// When it gets no more. `None`: never.
    pub abort: Option<AbortRule>,
}

impl Split {
    /// Whether it says the same, whichever numbers pools have.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.share == other.share
            && self.key == other.key
            && self.abort == other.abort
    }
}

/// What a request is known by. One that has no such thing is drawn by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SplitKey {
    /// An IPv4 address, or an IPv6 /64.
    ClientIp,
    Header(HeaderName),
    Cookie(Box<str>),
}

/// When a canary is worse than its baseline. At least one of the two is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AbortRule {
    /// What share of its requests may fail beyond the share that fails at the baseline.
    pub errors: Option<f64>,
    /// So many times the baseline's latency is allowed. At least 1.
    pub latency: Option<f64>,
    /// Nothing is said before each side had so many in the window.
    pub requests_min: u32,
    /// How far back requests count.
    pub window: Duration,
}

/// In the order in which they happen.
#[derive(Clone, Debug, Default)]
pub struct HeaderEdits {
    pub remove: Vec<HeaderName>,
    /// Instead of what is there.
    pub set: Vec<(HeaderName, Template)>,
    /// Beside what is there.
    pub add: Vec<(HeaderName, Template)>,
}

impl HeaderEdits {
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// A header's value. Where nothing is left of it, the header is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(Box<str>),
    Value(Placeholder),
}

/// What can stand in a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// The client's address, after trusted proxies in front of us.
    ClientIp,
    /// As the client wrote it, a port included.
    Host,
    Method,
    /// As the client wrote it, without the query.
    Path,
    /// Without its question mark; nothing if there is none.
    Query,
    /// `http` or `https`.
    Scheme,
    RequestId,
    Route,
    /// Who answers, or was tried last; nothing where no endpoint was.
    Region,
    Endpoint,
}

impl Placeholder {
    pub const ALL: [(&'static str, Self); 10] = [
        ("client_ip", Self::ClientIp),
        ("host", Self::Host),
        ("method", Self::Method),
        ("path", Self::Path),
        ("query", Self::Query),
        ("scheme", Self::Scheme),
        ("request_id", Self::RequestId),
        ("route", Self::Route),
        ("region", Self::Region),
        ("endpoint", Self::Endpoint),
    ];
}

/// What endpoints see instead of what the client asked for.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// In place of the route's `path_prefix`; without a slash at its end.
    pub prefix: Option<Arc<str>>,
    pub host: Option<HeaderValue>,
}

/// Where else the client is sent.
#[derive(Clone, Debug)]
pub struct Redirect {
    pub status: StatusCode,
    /// `None` for each of these: as the client asked.
    pub scheme: Option<Scheme>,
    /// Without a port.
    pub host: Option<Arc<str>>,
    pub port: Option<u16>,
    pub path: NewPath,
    pub keep_query: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewPath {
    Same,
    /// In place of the route's `path_prefix`; without a slash at its end.
    Prefix(Arc<str>),
    Whole(Arc<str>),
}

/// Bytes of a fixed answer's body. It is held once, however many clients read it.
pub const FIXED_BODY_MAX: usize = 1 << 20;

/// An answer that needs no endpoint.
#[derive(Clone, Debug)]
pub struct FixedAnswer {
    pub status: StatusCode,
    pub content_type: HeaderValue,
    /// At most [`FIXED_BODY_MAX`].
    pub body: Bytes,
}

/// In force: nobody but `except` gets through.
#[derive(Clone, Debug)]
pub struct Maintenance {
    pub answer: FixedAnswer,
    pub retry_after: Option<Duration>,
    pub except: Vec<IpNet>,
}

/// Which other origins' pages may read the answers (Fetch §3.3, "HTTP extensions").
#[derive(Clone, Debug)]
pub struct Cors {
    pub origins: Origins,
    /// Allowed besides GET, HEAD and POST.
    pub methods: Vec<Method>,
    pub headers: AllowedHeaders,
    pub expose: Vec<HeaderName>,
    /// Never with [`Origins::Any`].
    pub credentials: bool,
    pub max_age: Duration,
}

#[derive(Clone, Debug)]
pub enum Origins {
    Any,
    Listed(Vec<OriginPattern>),
}

/// Compared byte for byte: browsers write origins in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// `https://app.example.com`, or `null`.
    Exact(Box<str>),
    /// `https://*.example.com:8443`: `https://` and `.example.com:8443`, any labels between.
    Below { scheme: Box<str>, suffix: Box<str> },
}

#[derive(Clone, Debug)]
pub enum AllowedHeaders {
    /// Whatever a page asks for.
    Any,
    Listed(Vec<HeaderName>),
}

/// Content codings that we put on answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Zstd,
    Brotli,
    Gzip,
}

impl Encoding {
    pub const ALL: [(&'static str, Self); 3] = [
        ("zstd", Self::Zstd),
        ("br", Self::Brotli),
        ("gzip", Self::Gzip),
    ];

    /// Its name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// Which answers are compressed, and how.
#[derive(Clone, Debug)]
pub struct Compression {
    /// Of those that a client likes equally, the first.
    pub encodings: Vec<Encoding>,
    pub types: Vec<TypePattern>,
    /// Answers that are known to be smaller are left alone.
    pub size_min: u64,
    /// 1 (fast) – 9 (small).
    pub level: u8,
}

/// A media type in lower case with at most one `*`: what stands before and behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypePattern {
    Exact(Box<str>),
    Around(Box<str>, Box<str>),
}
