//! Connections to endpoints: opened within a time-out, kept while idle, shared by streams.
//!
//! One [`Connections`] a worker; nothing of it leaves the worker's thread. Chooses no endpoint and
//! sends no request.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use rustls::pki_types::ServerName;
use sealane_model::{EndpointProtocol, Failure, Snapshot, Verdict};
use sealane_tls::Connectors;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::endpoint::{ANSWER_HEAD_MAX, Endpoint, H1Endpoint, H2Endpoint};
use crate::clock;
use crate::io::{Mode, Transport, Wire};
use crate::metrics::PoolMetrics;
use crate::upstream::{Known, Selected};

/// Idle HTTP/1 connections that one worker keeps for one endpoint. Further ones are closed when
/// their exchange ends.
pub(crate) const IDLE_PER_ENDPOINT_MAX: usize = 256;
/// Idle HTTP/1 connections that one worker keeps in all. Further ones are closed likewise.
pub(crate) const IDLE_MAX: usize = 4_096;
/// An idle connection is closed after this: below the 60–75 s after which common servers close
/// theirs, so that we rarely meet a closing one.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often idle connections are looked through.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Times that one is looked at and left: it is closed within [`SWEEP_EVERY`] of [`IDLE_TIMEOUT`].
const IDLE_SWEEPS: u32 = (IDLE_TIMEOUT.as_secs() / SWEEP_EVERY.as_secs()) as u32;
/// HTTP/2 connections of one worker to one endpoint. When all of them have
/// [`STREAMS_PER_CONNECTION_MAX`] streams, the least busy one takes more, which wait inside h2.
pub(crate) const H2_CONNECTIONS_MAX: usize = 8;
pub(crate) const STREAMS_PER_CONNECTION_MAX: usize = 100;
/// Streams that are begun before the endpoint has said how many it takes. Others wait inside h2 for
/// that, rather than to be refused by an endpoint that takes few.
const STREAMS_UNHEARD: usize = 1;

/// HTTP/2 windows toward endpoints: one stream, one connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of request bodies that one stream may hold inside h2.
const STREAM_SEND_MAX: usize = 64 * 1024;
/// Probes of a silent upstream connection by the kernel: first after, then every.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);

/// Who may share a connection: everything that decides whom we talk to, and how.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    known: Rc<Known>,
    address: SocketAddr,
}

impl Key {
    pub(crate) fn of(selected: &Selected) -> Self {
        Self {
            known: Rc::clone(&selected.known),
            address: selected.address,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let talks_alike = |a: &Known, b: &Known| {
            (a.endpoint, a.protocol, &a.tls) == (b.endpoint, b.protocol, &b.tls)
        };
        self.address == other.address
            && (Rc::ptr_eq(&self.known, &other.known) || talks_alike(&self.known, &other.known))
    }
}

/// What is kept for each key: by endpoint, then among the few keys that one endpoint has (one for
/// each address that its name resolves to; more only just after a reload).
struct ByKey<T> {
    by_endpoint: Vec<Vec<(Key, T)>>,
}

impl<T> Default for ByKey<T> {
    fn default() -> Self {
        Self {
            by_endpoint: Vec::new(),
        }
    }
}

impl<T: Default> ByKey<T> {
    fn get_mut(&mut self, key: &Key) -> Option<&mut T> {
        let kept = self.by_endpoint.get_mut(key.known.endpoint.index())?;
        let found = kept.iter_mut().find(|(known, _)| known == key);
        found.map(|(_, value)| value)
    }

    fn get_or_default(&mut self, key: &Key) -> &mut T {
        let endpoint = key.known.endpoint.index();
        if self.by_endpoint.len() <= endpoint {
            self.by_endpoint.resize_with(endpoint + 1, Vec::new);
        }
        let kept = &mut self.by_endpoint[endpoint];
        let at = kept.iter().position(|(known, _)| known == key);
        let at = at.unwrap_or_else(|| {
            kept.push((key.clone(), T::default()));
            kept.len() - 1
        });
        &mut kept[at].1
    }

    fn retain(&mut self, mut wanted: impl FnMut(&Key, &mut T) -> bool) {
        for kept in &mut self.by_endpoint {
            kept.retain_mut(|(key, value)| wanted(key, value));
        }
    }
}

struct Idle {
    wire: Wire,
    /// Times that [`Connections::sweep`] saw it.
    swept: u32,
}

/// One worker's connections to endpoints.
pub(crate) struct Connections {
    idle: RefCell<ByKey<Vec<Idle>>>,
    idle_count: Cell<usize>,
    shared: RefCell<ByKey<Rc<Shared>>>,
    /// By the pool's index.
    metrics: RefCell<Vec<Option<PoolMetrics>>>,
    tls: Arc<Connectors>,
}

/// The HTTP/2 connections to one endpoint.
#[derive(Default)]
struct Shared {
    open: RefCell<Vec<Rc<H2Connection>>>,
    /// Held while connecting, so that requests that come together share one connection.
    connecting: tokio::sync::Mutex<()>,
}

impl Connections {
    pub(crate) fn new(tls: Arc<Connectors>) -> Self {
        Self {
            idle: RefCell::default(),
            idle_count: Cell::new(0),
            shared: RefCell::default(),
            metrics: RefCell::default(),
            tls,
        }
    }

    /// A connection on which a request can be sent now. `fresh`: not an idle one.
    ///
    /// # Errors
    /// Why there is none; [`Failure::ConnectTimedOut`] after `within`, TLS included.
    pub(crate) async fn open(
        &self,
        selected: &Selected,
        within: Duration,
        fresh: bool,
    ) -> Result<Endpoint, Failure> {
        let key = Key::of(selected);
        if !fresh
            && selected.protocol == EndpointProtocol::Http1
            && let Some(wire) = self.take_idle(&key)
        {
            self.count(selected, |metrics| metrics.reuses.increment(1));
            return Ok(Endpoint::H1(Box::new(H1Endpoint::new(wire, true))));
        }
        let opening = tokio::time::timeout(within, self.open_new(&key, selected));
        Box::pin(opening)
            .await
            .unwrap_or(Err(Failure::ConnectTimedOut))
    }

    async fn open_new(&self, key: &Key, selected: &Selected) -> Result<Endpoint, Failure> {
        match key.known.protocol {
            EndpointProtocol::Http1 => {
                let wire = self.dial(key).await?;
                self.count(selected, |metrics| metrics.connects.increment(1));
                Ok(Endpoint::H1(Box::new(H1Endpoint::new(wire, false))))
            }
            EndpointProtocol::Http2 => {
                let lease = self.lease(key, selected).await?;
                let endpoint = H2Endpoint::new(lease, key.known.tls.is_some());
                Ok(Endpoint::H2(Box::new(endpoint)))
            }
        }
    }

    /// Takes back a connection whose exchange went well.
    pub(crate) fn keep(&self, selected: &Selected, wire: Wire) {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_or_default(&Key::of(selected));
        if kept.len() < IDLE_PER_ENDPOINT_MAX && self.idle_count.get() < IDLE_MAX {
            kept.push(Idle { wire, swept: 0 });
            self.idle_count.set(self.idle_count.get() + 1);
        }
    }

    /// The one used last: the likeliest to be alive, and the others can grow old.
    fn take_idle(&self, key: &Key) -> Option<Wire> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(key)?;
        while let Some(Idle { wire, .. }) = kept.pop() {
            self.idle_count.set(self.idle_count.get() - 1);
            if is_alive(&wire) {
                return Some(wire);
            }
        }
        None
    }

    /// Closes what was idle too long, and idle connections to endpoints that are gone, draining or
    /// down.
    pub(crate) fn sweep(&self, world: &Snapshot, now: Instant) {
        let wanted = |key: &Key| {
            let known = world.topology.endpoint(key.known.endpoint).is_some();
            let verdict = world.verdict(key.known.endpoint);
            known && !matches!(verdict, Verdict::Down | Verdict::Draining)
        };
        let mut left = 0;
        self.idle.borrow_mut().retain(|key, kept| {
            let wanted = wanted(key);
            kept.retain_mut(|idle| {
                idle.swept += 1;
                wanted && idle.swept <= IDLE_SWEEPS
            });
            left += kept.len();
            !kept.is_empty()
        });
        self.idle_count.set(left);
        self.shared.borrow_mut().retain(|key, shared| {
            let wanted = wanted(key);
            shared.open.borrow_mut().retain(|connection| {
                let idle = connection.streams.get() == 0
                    && now.duration_since(connection.used.get()) >= IDLE_TIMEOUT;
                !connection.retired.get() && wanted && !idle
            });
            let unused = Rc::strong_count(shared) == 1;
            !(unused && shared.open.borrow().is_empty())
        });
    }

    async fn dial(&self, key: &Key) -> Result<Wire, Failure> {
        let tcp = TcpStream::connect(key.address)
            .await
            .map_err(|error| failure_of_connect(&error))?;
        prepare(&tcp).map_err(|error| failure_of_connect(&error))?;
        let Some(tls) = &key.known.tls else {
            return Ok(Wire::new(Transport::Tcp(tcp)));
        };
        let failed = |reason: String| Failure::Tls(reason);
        let config = self
            .tls
            .config(tls, key.known.protocol)
            .map_err(|error| failed(error.to_string()))?;
        let name = ServerName::try_from(tls.server_name.to_string())
            .map_err(|error| failed(error.to_string()))?;
        let stream = TlsConnector::from(config)
            .connect(name, tcp)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let chosen = stream.get_ref().1.alpn_protocol();
        if key.known.protocol == EndpointProtocol::Http2 && chosen != Some(b"h2") {
            return Err(failed("h2 was not chosen by ALPN".to_owned()));
        }
        Ok(Wire::new(Transport::ClientTls(Box::new(stream))))
    }

    async fn lease(&self, key: &Key, selected: &Selected) -> Result<H2Lease, Failure> {
        let shared = {
            let mut all = self.shared.borrow_mut();
            Rc::clone(all.get_or_default(key))
        };
        if let Some(lease) = shared.lease() {
            self.count(selected, |metrics| metrics.reuses.increment(1));
            return Ok(lease);
        }
        let _connecting = shared.connecting.lock().await;
        if let Some(lease) = shared.lease() {
            self.count(selected, |metrics| metrics.reuses.increment(1));
            return Ok(lease);
        }
        let wire = self.dial(key).await?;
        let connection = Rc::new(H2Connection::open(wire).await?);
        self.count(selected, |metrics| metrics.connects.increment(1));
        shared.open.borrow_mut().push(Rc::clone(&connection));
        Ok(H2Lease::new(connection, false))
    }

    fn count(&self, selected: &Selected, count: impl Fn(&PoolMetrics)) {
        let mut known = self.metrics.borrow_mut();
        let pool = selected.pool.index();
        if known.len() <= pool {
            known.resize(pool + 1, None);
        }
        count(known[pool].get_or_insert_with(|| PoolMetrics::new(&selected.pool_name)));
    }
}

impl Shared {
    /// A place on the least busy connection; `None` when another one should be opened.
    fn lease(&self) -> Option<H2Lease> {
        let mut open = self.open.borrow_mut();
        open.retain(|connection| !connection.retired.get());
        let least = open
            .iter()
            .min_by_key(|connection| connection.streams.get())?;
        let full = least.streams.get() >= least.streams_max();
        (!full || open.len() >= H2_CONNECTIONS_MAX).then(|| H2Lease::new(Rc::clone(least), true))
    }
}

/// One HTTP/2 connection and the task that drives it.
struct H2Connection {
    requests: RefCell<h2::client::SendRequest<Bytes>>,
    streams: Cell<usize>,
    /// A stream of it is over: the endpoint's settings, which come first, must be here.
    heard: Cell<bool>,
    used: Cell<Instant>,
    /// Broken, closing or silent: takes no further streams.
    retired: Rc<Cell<bool>>,
    driver: AbortHandle,
}

impl Drop for H2Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl H2Connection {
    async fn open(wire: Wire) -> Result<Self, Failure> {
        let (requests, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(STREAMS_UNHEARD)
            .max_send_buffer_size(STREAM_SEND_MAX)
            .max_header_list_size(u32::try_from(ANSWER_HEAD_MAX).unwrap_or(u32::MAX))
            .enable_push(false)
            .handshake::<_, Bytes>(wire.conn(Mode::Coalesce))
            .await
            .map_err(|_| Failure::Closed)?;
        let retired = Rc::new(Cell::new(false));
        let when_over = Rc::clone(&retired);
        let driving = async move {
            let driven = std::future::poll_fn(|cx| {
                let driven = Pin::new(&mut connection).poll(cx);
                if driven.is_ready() {
                    wire.push_now(cx); // a GOAWAY may say why
                } else {
                    wire.push(cx);
                }
                driven
            });
            if let Err(error) = driven.await {
                tracing::debug!("connection to an endpoint ended: {error}");
            }
            when_over.set(true);
        };
        let driver = tokio::task::spawn_local(driving).abort_handle();
        Ok(Self {
            requests: RefCell::new(requests),
            streams: Cell::new(0),
            heard: Cell::new(false),
            used: Cell::new(clock::now()),
            retired,
            driver,
        })
    }

    fn streams_max(&self) -> usize {
        let peer = self.requests.borrow().current_max_send_streams();
        // Not to open further connections for the time of one round trip.
        if peer == STREAMS_UNHEARD && !self.heard.get() {
            return STREAMS_PER_CONNECTION_MAX;
        }
        peer.clamp(1, STREAMS_PER_CONNECTION_MAX)
    }
}

/// A place for one stream on a connection.
pub(crate) struct H2Lease {
    connection: Rc<H2Connection>,
    reused: bool,
}

impl H2Lease {
    fn new(connection: Rc<H2Connection>, reused: bool) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self { connection, reused }
    }

    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    pub(crate) fn retire(&self) {
        self.connection.retired.set(true);
    }

    pub(crate) fn send(
        &self,
        request: Request<()>,
        end: bool,
    ) -> Result<(h2::client::ResponseFuture, h2::SendStream<Bytes>), h2::Error> {
        // A handle of its own: h2 allows each handle one stream that is waiting to be opened.
        let mut requests = self.connection.requests.borrow().clone();
        requests.send_request(request, end)
    }
}

impl Drop for H2Lease {
    fn drop(&mut self) {
        self.connection
            .streams
            .set(self.connection.streams.get() - 1);
        self.connection.heard.set(true);
        self.connection.used.set(clock::now());
    }
}

/// Silent and open: an idle endpoint has nothing to say, so bytes are as bad as an end.
fn is_alive(wire: &Wire) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    matches!(wire.poll_silent(&mut cx), Poll::Pending)
}

/// Says at once what is written, and finds out when the peer is gone.
pub(crate) fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_AFTER);
    socket2::SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}

pub(crate) fn failure_of_connect(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Failure::Refused,
        io::ErrorKind::TimedOut => Failure::ConnectTimedOut,
        // No route, network down, and what is our own fault (out of ports or descriptors): a
        // probe will tell.
        _ => Failure::Unreachable,
    }
}
