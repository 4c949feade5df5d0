//! What the proxy is told to do: already valid, no strings left to check.
//!
//! Built by the daemon from the configuration file. Holds rules only, never health.

// Said in full for the bench, which takes this file in from elsewhere.
#[path = "config/balance.rs"]
mod balance;
#[path = "config/limits.rs"]
mod limits;
#[path = "config/options.rs"]
mod options;
#[path = "config/sharing.rs"]
mod sharing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use sealane_model::{PoolId, Ratio};
use sealane_steering::{GeoTable, SteeringPolicy};
use sealane_tls::ServerTls;

pub use self::balance::{BalancePolicy, Balancing, EjectionRule, HashKey, LocalZone};
pub use self::limits::{
    AdaptiveRate, Bounds, Bulkhead, Concurrency, PoolLimits, Rate, RateKey, RateRule, RouteLimits,
    TenantKey, Tier,
};
pub use self::options::{
    AbortRule, AllowedHeaders, Compression, Cors, Encoding, FIXED_BODY_MAX, FixedAnswer,
    HeaderEdits, Maintenance, NewPath, OriginPattern, Origins, Part, Placeholder, Redirect,
    Rewrite, RouteOptions, SameSite, Split, SplitKey, Sticky, StickyCookie, StickyKey, Template,
    TypePattern,
};
pub use self::sharing::{Coalesce, Credentials, Mirror};

/// The proxy's rules. Replaced whole on reload.
#[derive(Clone, Debug)]
pub struct Config {
    pub listeners: Vec<Listener>,
    /// In the order of the file; among the routes that match, the most specific wins
    /// (see `http::route`), then the first.
    pub routes: Vec<Route>,
    pub limits: Limits,
    /// Networks whose `X-Forwarded-For` and `X-Request-Id` are believed.
    pub trusted: Vec<IpNet>,
    pub geo: Arc<GeoTable>,
    /// Say in `x-sealane-region` and `x-sealane-endpoint` who answered.
    pub name_endpoint: bool,
    pub bounds: Bounds,
}

#[derive(Clone, Debug)]
pub struct Listener {
    pub name: Arc<str>,
    /// An IPv6 address takes IPv6 clients only: `[::]` beside `0.0.0.0` for both. Port 0: any
    /// free one, kept over reloads while the listener keeps its name.
    pub bind: Vec<SocketAddr>,
    pub protocol: ListenerProtocol,
    /// Who says in a PROXY header whom each connection is from. Connections from elsewhere are
    /// their sender's own.
    pub senders: Vec<IpNet>,
    /// Every request over plain HTTP is sent to the same place by HTTPS, at this port.
    pub redirect_to_https: Option<u16>,
}

#[derive(Clone, Debug)]
pub enum ListenerProtocol {
    /// HTTP/1.1, and HTTP/2 by prior knowledge (RFC 9113 §3.3).
    Http,
    /// The same over TLS, chosen by ALPN.
    Https(ServerTls),
    /// Whatever flows over TCP, both ways.
    Tcp { to: Destination, how: SessionRule },
    /// TLS that the endpoints speak: the server name in the client's hello leads to a pool.
    TlsPassthrough {
        names: Vec<(HostPattern, Destination)>,
        /// For other names, and for clients that send none. `None`: they are refused.
        otherwise: Option<Destination>,
        how: SessionRule,
    },
    /// Datagrams as they come, both ways.
    Udp { to: Destination, how: FlowRule },
}

impl ListenerProtocol {
    /// Its requests find their pools by [`Config::routes`].
    #[must_use]
    pub const fn is_http(&self) -> bool {
        matches!(self, Self::Http | Self::Https(_))
    }

    /// Connections are passed on as they are.
    pub(crate) const fn has_sessions(&self) -> bool {
        matches!(self, Self::Tcp { .. } | Self::TlsPassthrough { .. })
    }
}

/// Who serves: a route's requests, or the clients of a listener that is not HTTP's.
#[derive(Clone, Debug)]
pub struct Destination {
    pub pool: PoolId,
    pub steering: Arc<SteeringPolicy>,
    pub balance: Arc<Balancing>,
}

/// What a session may do.
#[derive(Clone, Copy, Debug)]
pub struct SessionRule {
    pub timeouts: SessionTimeouts,
    pub on_down: OnDown,
}

#[derive(Clone, Copy, Debug)]
pub struct SessionTimeouts {
    /// For one connection to an endpoint.
    pub connect: Duration,
    /// Without a byte either way.
    pub idle: Duration,
    /// Whatever moves. `None`: for good.
    pub lifetime: Option<Duration>,
}

/// What becomes of those whose endpoint goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDown {
    Keep,
    /// A session is closed; a flow's next datagram goes to another endpoint.
    Close,
}

/// What the flows of a UDP listener may do. A flow: one client's datagrams, from one port of its.
#[derive(Clone, Copy, Debug)]
pub struct FlowRule {
    /// Flows at once for each address; workers share them evenly. Beyond it, unproven flows make
    /// way, then new ones are refused.
    pub flows: usize,
    /// Of them, how many one client may have on a worker: an IPv4 address, or an IPv6 /64.
    pub flows_per_client: usize,
    /// A flow whose client was silent for this long ends.
    pub idle: Duration,
    /// A flow ends once each of its client's datagrams had so many answers. `None`: nobody counts.
    pub answers: Option<u32>,
    pub on_down: OnDown,
}

impl ListenerProtocol {
    /// With the session tickets' keys of what was served here before.
    pub(crate) fn keeping_tickets_of(&self, old: &Self) -> Self {
        match (self, old) {
            (Self::Https(new), Self::Https(old)) => Self::Https(new.keeping_tickets_of(old)),
            _ => self.clone(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Route {
    /// How metrics and logs call it.
    pub name: Arc<str>,
    pub when: RouteMatch,
    pub action: Action,
    pub timeouts: Timeouts,
    pub retry: RetryPolicy,
    pub hedge: Option<HedgePolicy>,
    /// Largest request body in bytes; more is refused with 413. `None`: no limit.
    pub body_max: Option<u64>,
    pub options: RouteOptions,
}

/// What becomes of a route's requests.
#[derive(Clone, Debug)]
pub enum Action {
    /// An endpoint answers.
    Forward(Destination),
    Redirect(Redirect),
    Respond(FixedAnswer),
}

/// All that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct RouteMatch {
    pub host: Option<HostPattern>,
    /// Matches whole segments: `/v1` matches `/v1` and `/v1/x`, not `/v10`. `None` matches all.
    pub path_prefix: Option<Arc<str>>,
    /// Empty: any.
    pub methods: Vec<Method>,
    pub headers: Vec<HeaderMatch>,
}

/// Lower-case, without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    Exact(Arc<str>),
    /// `*.example.com`: the suffix with its leading dot; any number of labels before it.
    Suffix(Arc<str>),
}

#[derive(Clone, Debug)]
pub struct HeaderMatch {
    pub name: HeaderName,
    /// `None`: it is enough that the header is there.
    pub value: Option<HeaderValue>,
}

#[derive(Clone, Debug)]
pub struct Timeouts {
    /// For a new connection to an endpoint, TLS included.
    pub connect: Duration,
    /// For one attempt, from connecting to the answer's head, while another one may follow.
    pub attempt: Duration,
    /// Less than `attempt` where the route is quicker.
    pub adaptive: Option<Adaptive>,
    /// From the request's head to the answer's head, over all attempts. A body that is still
    /// arriving puts the end off: it counts from the last piece.
    pub request: Duration,
    /// Between two pieces of a body, on either side.
    pub idle: Duration,
}

/// An attempt's time-out from what the route's attempts take: `factor` times `of` of them, but no
/// less than `floor`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adaptive {
    pub of: Percentile,
    /// At least 1.
    pub factor: f64,
    pub floor: Duration,
}

impl Adaptive {
    /// The time-out. `usual`: the percentile; `None` while too few attempts are known. `most`:
    /// whatever is measured.
    pub(crate) fn patience(&self, usual: Option<Duration>, most: Duration) -> Duration {
        let Some(usual) = usual else {
            return most;
        };
        // Neither factor is beyond hours: see where they come from.
        let wanted = usual.as_secs_f64() * self.factor;
        let wanted = Duration::try_from_secs_f64(wanted).unwrap_or(most);
        wanted.max(self.floor).min(most)
    }
}

/// So many percent of a route's attempts took no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Percentile {
    P50,
    P90,
    P95,
    P99,
}

impl Percentile {
    /// In the order of their discriminants: tables are indexed by them.
    pub const ALL: [Self; 4] = [Self::P50, Self::P90, Self::P95, Self::P99];

    #[must_use]
    pub const fn percent(self) -> u64 {
        match self {
            Self::P50 => 50,
            Self::P90 => 90,
            Self::P95 => 95,
            Self::P99 => 99,
        }
    }
}

#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Attempts in all, the first included. 1–8.
    pub attempts: u32,
    /// Share of requests that may be tried again, on top of ten a second (card 3).
    pub budget: Ratio,
    /// After what.
    pub on: RetryOn,
    /// Methods that may be repeated besides those that HTTP calls idempotent.
    pub methods: Vec<Method>,
    pub backoff: Backoff,
}

/// What may be followed by another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// No connection came about.
    pub connect: bool,
    /// The connection broke before an answer, or brought what is no HTTP.
    pub reset: bool,
    /// The attempt's time was up.
    pub timeout: bool,
    /// These answers.
    pub bad_gateway: bool,
    pub unavailable: bool,
    pub gateway_timeout: bool,
}

impl Default for RetryOn {
    /// What an endpoint itself answers is its word: asking again is the operator's to allow.
    fn default() -> Self {
        Self {
            connect: true,
            reset: true,
            timeout: true,
            bad_gateway: false,
            unavailable: false,
            gateway_timeout: false,
        }
    }
}

impl RetryOn {
    /// Some answers are among them.
    #[must_use]
    pub const fn has_answers(&self) -> bool {
        self.bad_gateway || self.unavailable || self.gateway_timeout
    }
}

/// Pauses between attempts: drawn from 0 to a bound that begins at `first` and doubles up to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(25),
            max: Duration::from_secs(1),
        }
    }
}

/// When an attempt that takes long gets a rival at another endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HedgePolicy {
    pub after: HedgeAfter,
    /// Share of requests that may be hedged. Not nothing: such routes have no policy.
    pub budget: Ratio,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    Fixed(Duration),
    /// Of what the route's attempts take.
    Measured(Percentile),
}

/// Bounds on what one client can make the proxy hold.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once over all listeners; more are accepted and closed at once.
    pub connections: usize,
    /// Of them, how many one client may have: an IPv4 address, or an IPv6 /64. More are closed at
    /// once. [`Config::trusted`] may have any number.
    pub connections_per_client: usize,
    /// The request's head in bytes; more is refused with 431.
    pub head_bytes: usize,
    /// Header fields in one head; more is refused with 431.
    pub head_fields: usize,
    /// For the whole head, from its first byte; then 408.
    pub head_timeout: Duration,
    /// A connection without a request is closed after this.
    pub keep_alive: Duration,
    /// Concurrent HTTP/2 streams of one connection.
    pub streams: u32,
    /// Frames of HTTP/2 without payload of their own (PING, SETTINGS and the like) that a connection
    /// may send in a second, on top of one for each 64 bytes that it gets or sends; more end it.
    pub control_frames: u32,
    /// For the TLS handshake, and for a PROXY header or a server name before it.
    pub handshake_timeout: Duration,
}
