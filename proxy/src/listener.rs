//! Listeners: sockets bound, accepted from, and closed without losing a connection.
//!
//! Each worker has a socket of its own for each address (`SO_REUSEPORT`), so that the kernel
//! spreads connections and no worker wakes another. Knows TLS and ALPN; HTTP begins in
//! [`crate::http`], sessions in [`crate::tcp`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use rustls::server::Acceptor;
use sealane_tls::{Seal, ServerTls};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::challenge::Challenges;
use crate::clients::{Clients, Place};
use crate::config::{Listener, ListenerProtocol};
use crate::door::Door;
use crate::handover::SocketKind;
use crate::http::context::Inbound;
use crate::http::h1::Served;
use crate::http::headers::PeerText;
use crate::http::{h1, h2};
use crate::io::{Transport, Wire};
use crate::metrics::{ListenerMetrics, SessionMetrics};
use crate::proxy_protocol::{self, Header};
use crate::round_trip;
use crate::shared::{AcceptingGuard, OpenConnections, OpenGuard, Phase};
use crate::tcp;
use crate::tcp::names::Names;
use crate::udp::legacy::LeftFlow;
use crate::udp::{self, UdpRule};
use crate::worker::{Worker, note_panic};

/// Connections that the kernel queues for each worker's socket.
const BACKLOG: i32 = 4_096;
/// Pause after an accept that failed for want of descriptors or memory: retrying at once would
/// spin, as the connection stays in the queue.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener} cannot listen on {address}")]
pub struct BindError {
    pub listener: Arc<str>,
    pub address: SocketAddr,
    pub source: io::Error,
}

/// One address with the rules that hold for its next connections.
pub(crate) struct ListenerState {
    pub(crate) rule: ArcSwap<ListenerRule>,
    /// `true`: removed by the operator.
    pub(crate) closing: watch::Sender<bool>,
}

pub(crate) struct ListenerRule {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: ListenerProtocol,
    pub(crate) redirect_to_https: Option<u16>,
    pub(crate) metrics: ListenerMetrics,
    /// As in the configuration.
    senders: Vec<IpNet>,
    /// For `tls_passthrough`.
    pub(crate) names: Option<Names>,
    /// For listeners whose connections are sessions.
    sessions: OnceLock<Arc<SessionMetrics>>,
    /// For `udp`.
    pub(crate) udp: Option<Arc<UdpRule>>,
}

impl ListenerRule {
    /// `protocol`: the listener's, or that with what was kept of an earlier one.
    pub(crate) fn new(listener: &Listener, protocol: &ListenerProtocol, workers: usize) -> Self {
        let names = match protocol {
            ListenerProtocol::TlsPassthrough {
                names, otherwise, ..
            } => Some(Names::new(names, otherwise.as_ref())),
            _ => None,
        };
        let udp = match protocol {
            ListenerProtocol::Udp { to, how } => {
                Some(Arc::new(UdpRule::new(&listener.name, to, *how, workers)))
            }
            _ => None,
        };
        let rule = Self {
            udp,
            senders: listener.senders.clone(),
            names,
            name: Arc::clone(&listener.name),
            protocol: protocol.clone(),
            redirect_to_https: listener.redirect_to_https,
            metrics: ListenerMetrics::new(&listener.name),
            sessions: OnceLock::new(),
        };
        if protocol.has_sessions() {
            // Numbers that are there from the start, as 0.
            rule.sessions();
        }
        rule
    }

    /// The same rule of an HTTPS listener, with other certificates.
    pub(crate) fn renewed(&self, protocol: ListenerProtocol) -> Self {
        Self {
            senders: self.senders.clone(),
            names: None,
            name: Arc::clone(&self.name),
            protocol,
            redirect_to_https: self.redirect_to_https,
            metrics: self.metrics.clone(),
            udp: None,
            sessions: OnceLock::new(),
        }
    }

    pub(crate) fn sessions(&self) -> &Arc<SessionMetrics> {
        let make = || Arc::new(SessionMetrics::new(&self.name));
        self.sessions.get_or_init(make)
    }
}

/// A listening socket on its way to a worker.
pub(crate) struct Opened {
    pub(crate) socket: Listening,
    pub(crate) state: Arc<ListenerState>,
    pub(crate) accepting: AcceptingGuard,
}

pub(crate) enum Listening {
    Stream(std::net::TcpListener),
    /// Its place among its address's sockets, and the flows that an earlier process left there.
    Datagram(std::net::UdpSocket, (usize, Vec<LeftFlow>)),
}

/// One socket for each of `count` workers, bound and not yet listening. With port 0 all get the
/// same free port.
pub(crate) fn bind(
    address: SocketAddr,
    kind: SocketKind,
    count: usize,
) -> io::Result<(SocketAddr, Vec<Socket>)> {
    let mut address = address;
    if address.port() != 0 {
        // Sockets that share a port would not notice another process's: this one does.
        socket(address, kind, false)?;
    }
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = socket(address, kind, true)?;
        if address.port() == 0
            && let Some(bound) = socket.local_addr()?.as_socket()
        {
            address = bound;
        }
        sockets.push(socket);
    }
    Ok((address, sockets))
}

pub(crate) fn socket(address: SocketAddr, kind: SocketKind, shared: bool) -> io::Result<Socket> {
    match kind {
        SocketKind::Stream => stream_socket(address, shared),
        SocketKind::Datagram => udp::open(address, shared),
    }
}

fn stream_socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier process that wait out their time do not stand in the way.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// `of_socket`: see [`Listening::Datagram`].
pub(crate) fn listen(
    socket: Socket,
    kind: SocketKind,
    of_socket: (usize, Vec<LeftFlow>),
) -> io::Result<Listening> {
    if kind == SocketKind::Datagram {
        return Ok(Listening::Datagram(socket.into(), of_socket));
    }
    socket.listen(BACKLOG)?;
    Ok(Listening::Stream(socket.into()))
}

/// Clients that are let in before others have their turn: whoever connects as fast as it can must not keep
/// those waiting who are in. The rest waits in the kernel's queue, of [`BACKLOG`].
const ACCEPTS_IN_A_ROW: u32 = 8;

/// Accepts until the listener is removed or the proxy drains, then sees its connections to their
/// end. Dropping it cuts them off.
pub(crate) async fn accept(opened: Opened, worker: Rc<Worker>) {
    let Opened {
        socket,
        state,
        accepting,
    } = opened;
    let socket = match socket {
        Listening::Stream(socket) => socket,
        Listening::Datagram(socket, of_socket) => {
            return Box::pin(udp::run(socket, of_socket, state, worker, accepting)).await;
        }
    };
    let mut connections = JoinSet::new();
    match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => accept_until_closed(socket, &state, &worker, &mut connections).await,
        Err(error) => tracing::error!("a listener was lost: {error}"),
    }
    drop(accepting);
    while let Some(ended) = connections.join_next().await {
        note_panic(ended);
    }
}

async fn accept_until_closed(
    socket: tokio::net::TcpListener,
    state: &Arc<ListenerState>,
    worker: &Rc<Worker>,
    connections: &mut JoinSet<()>,
) {
    let mut closing = state.closing.subscribe();
    let mut phase = worker.shared.phase.subscribe();
    let mut in_a_row = 0;
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((tcp, peer)) => {
                    admit(tcp, peer, state, worker, connections);
                    in_a_row += 1;
                    if in_a_row == ACCEPTS_IN_A_ROW {
                        in_a_row = 0;
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) => pause(&error, state).await,
            },
            Some(ended) = connections.join_next() => note_panic(ended),
            // Errors mean that the proxy is gone.
            _ = closing.wait_for(|closing| *closing) => break,
            _ = phase.wait_for(|phase| *phase > Phase::Serving) => break,
        }
    }
    // Clients in the kernel's queue believe that they are connected: closing now would reset them.
    if let Ok(socket) = socket.into_std() {
        while let Ok((tcp, peer)) = socket.accept() {
            let tcp = tcp
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(tcp));
            if let Ok(tcp) = tcp {
                admit(tcp, peer, state, worker, connections);
            }
        }
    }
}

async fn pause(error: &io::Error, state: &ListenerState) {
    let aborted = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    );
    if aborted {
        return; // the client left the queue
    }
    state.rule.load().metrics.accept_failures.increment(1);
    tracing::warn!("cannot accept: {error}");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

fn admit(
    tcp: TcpStream,
    peer: SocketAddr,
    state: &Arc<ListenerState>,
    worker: &Rc<Worker>,
    connections: &mut JoinSet<()>,
) {
    let rule = state.rule.load_full();
    let max = worker.shared.rules.load().config.limits.connections;
    let Some(open) = OpenConnections::admit(&worker.shared, max) else {
        rule.metrics.over_limit.increment(1);
        return;
    };
    rule.metrics.accepts.increment(1);
    // A service manager's IPv6 socket may take IPv4 clients as well.
    let peer = canonical(peer);
    let (state, worker) = (Arc::clone(state), Rc::clone(worker));
    connections.spawn_local(connection(tcp, peer, state, rule, worker, open));
}

/// Counts one connection of a listener while it lives.
struct Gauged(Arc<ListenerRule>);

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.metrics.connections.decrement(1);
    }
}

/// One client connection, from its first byte to its last.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps room for each argument twice (rust-lang/rust#62958)"
)]
fn connection(
    tcp: TcpStream,
    peer: SocketAddr,
    state: Arc<ListenerState>,
    rule: Arc<ListenerRule>,
    worker: Rc<Worker>,
    open: OpenGuard,
) -> impl Future<Output = ()> {
    async move {
        let _open = open;
        rule.metrics.connections.increment(1);
        let gauged = Gauged(rule);
        if let Err(error) = tcp.set_nodelay(true) {
            return tracing::debug!("client left: {error}");
        }
        let Some(caller) = caller(&tcp, peer, &gauged.0, &worker).await else {
            return gauged.0.metrics.protocol_failures.increment(1);
        };
        let Ok(_place) = place(&caller, &worker) else {
            return gauged.0.metrics.over_client_limit.increment(1);
        };
        if caller.source == peer {
            round_trip::note(&worker.notebook, &tcp, peer.ip());
        }
        // In a box of its own: an idle connection is no larger than it must be.
        let serving: Pin<Box<dyn Future<Output = ()>>> = match &gauged.0.protocol {
            ListenerProtocol::Http => {
                let inbound = inbound(&worker, &caller, &gauged.0, None);
                Box::pin(serve(Transport::Tcp(tcp), inbound, Spoken::Either))
            }
            ListenerProtocol::Https(_) => {
                Box::pin(serve_tls(tcp, caller, state, Arc::clone(&gauged.0), worker))
            }
            ListenerProtocol::Tcp { .. } | ListenerProtocol::TlsPassthrough { .. } => {
                Box::pin(tcp::serve(tcp, caller, Arc::clone(&gauged.0), worker))
            }
            // No connection comes from a UDP socket.
            ListenerProtocol::Udp { .. } => return,
        };
        serving.await;
    }
}

async fn serve_tls(
    tcp: TcpStream,
    caller: Caller,
    state: Arc<ListenerState>,
    rule: Arc<ListenerRule>,
    worker: Rc<Worker>,
) {
    let ListenerProtocol::Https(tls) = &rule.protocol else {
        return;
    };
    match Box::pin(handshake(tcp, tls, state, &worker)).await {
        Shaken::Failed => rule.metrics.handshake_failures.increment(1),
        Shaken::Proof => {}
        Shaken::Client {
            transport,
            spoken,
            door,
        } => {
            let inbound = inbound(&worker, &caller, &rule, Some(door));
            Box::pin(serve(transport, inbound, spoken)).await;
        }
    }
}

fn inbound(
    worker: &Rc<Worker>,
    caller: &Caller,
    rule: &ListenerRule,
    door: Option<Box<Door>>,
) -> Inbound {
    Inbound {
        worker: Rc::clone(worker),
        peer: PeerText::new(caller.source.ip()),
        scheme: if door.is_some() { "https" } else { "http" },
        redirect_to_https: rule.redirect_to_https,
        door,
    }
}

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    Http1,
    Http2,
    /// Its first bytes tell.
    Either,
}

/// For [`connection`]'s reason, no async fn either.
fn serve(transport: Transport, inbound: Inbound, spoken: Spoken) -> impl Future<Output = ()> {
    let wire = Wire::new(transport);
    async move {
        let is_http2 = match spoken {
            Spoken::Http2 => true,
            _ => h1::serve(&wire, &inbound, spoken == Spoken::Either).await == Served::IsHttp2,
        };
        if is_http2 {
            Box::pin(h2::serve(&wire, &inbound)).await;
        }
    }
}

/// The client has as many connections as one may have.
struct TooMany;

/// A place for one more connection. `None`: whoever speaks for many clients needs none.
fn place(caller: &Caller, worker: &Worker) -> Result<Option<Place>, TooMany> {
    let (shared, source) = (&worker.shared, caller.source.ip());
    let rules = shared.rules.load();
    if rules.config.trusted.iter().any(|net| net.contains(&source)) {
        return Ok(None);
    }
    let max = rules.config.limits.connections_per_client;
    Clients::admit(shared, source, max).map(Some).ok_or(TooMany)
}

/// Whom a connection is from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) source: SocketAddr,
    /// Where that client connected to, if another than us.
    pub(crate) destination: Option<SocketAddr>,
}

/// The peer, or whom it says. `None`: it must say so and did not.
async fn caller(
    tcp: &TcpStream,
    peer: SocketAddr,
    rule: &ListenerRule,
    worker: &Worker,
) -> Option<Caller> {
    let direct = Caller {
        source: peer,
        destination: None,
    };
    if !rule.senders.iter().any(|net| net.contains(&peer.ip())) {
        return Some(direct);
    }
    let within = worker.shared.rules.load().config.limits.handshake_timeout;
    match Box::pin(proxy_protocol::receive(tcp, within)).await {
        Ok(Header::Local) => Some(direct),
        Ok(Header::Proxied(addresses)) => Some(Caller {
            source: canonical(addresses.source),
            destination: Some(canonical(addresses.destination)),
        }),
        Err(error) => {
            tracing::debug!(%peer, listener = &*rule.name, "connection refused: {error}");
            None
        }
    }
}

/// An IPv4 address that is written as one of IPv6 is one of IPv4.
const fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// How a handshake ended.
enum Shaken {
    Client {
        transport: Transport,
        spoken: Spoken,
        door: Box<Door>,
    },
    /// Somebody looked for a proof (RFC 8737), and that was all.
    Proof,
    Failed,
}

async fn handshake(
    tcp: TcpStream,
    tls: &ServerTls,
    state: Arc<ListenerState>,
    worker: &Worker,
) -> Shaken {
    let within = worker.shared.rules.load().config.limits.handshake_timeout;
    let shaking = shake(tcp, tls, &worker.shared.challenges);
    let (stream, asked) = match timeout(within, shaking).await {
        Ok(Ok(Some(shaken))) => shaken,
        Ok(Ok(None)) => return Shaken::Proof,
        Ok(Err(error)) => {
            tracing::debug!("TLS handshake failed: {error}");
            return Shaken::Failed;
        }
        Err(_) => {
            tracing::debug!("TLS handshake took too long");
            return Shaken::Failed;
        }
    };
    let agreed = stream.get_ref().1;
    let spoken = match agreed.alpn_protocol() {
        Some(b"h2") => Spoken::Http2,
        _ => Spoken::Http1,
    };
    let identity = ServerTls::identity(agreed.peer_certificates());
    let Some(door) = Door::enter(state, asked, identity) else {
        tracing::debug!("the client's certificate ended since its session began");
        return Shaken::Failed;
    };
    Shaken::Client {
        transport: Transport::ServerTls(Box::new(stream)),
        spoken,
        door: Box::new(door),
    }
}

/// The client's hello first: what is asked of it depends on the name that it wants. `None`: it
/// looked for a proof alone.
async fn shake(
    tcp: TcpStream,
    tls: &ServerTls,
    challenges: &Challenges,
) -> io::Result<Option<(TlsStream<TcpStream>, Option<Seal>)>> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
    if let Some(proof) = challenges.handshake(&hello.client_hello()) {
        hello.into_stream(proof).await?.shutdown().await?;
        return Ok(None);
    }
    let chosen = tls.choose(hello.client_hello().server_name());
    let stream = hello.into_stream(chosen.config).await?;
    Ok(Some((stream, chosen.seal)))
}
