//! Where TCP connections come in: accepts them as far as limits go, shakes hands where they are encrypted, and ends them
//! when the server stops. What they carry is for [`super::stream`] and [`super::https`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealane_model::Snapshot;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, error, warn};

use super::clock::{calendar, calendar_seconds};
use super::{Shared, Stop, https, stream, transfer};
use crate::config::{Encrypted, Protocol};
use crate::engine::{Answered, Client, Rules, Transport, answer_to};
use crate::limit::Verdict;
use crate::metrics::{Metrics, Tally};
use crate::tap::Glimpse;
use crate::wire::Rcode;

/// How long a connection has, once the server stops, for what it has already sent. A new one may
/// not have sent its first question yet.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a TLS handshake may take, or as long as a connection may be idle if that is less; then it is closed.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Rest after an error in accepting (out of file descriptors, say): it will not go away at once.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Serves one address on the calling thread until asked to stop.
pub(crate) fn run(
    listener: TcpListener,
    protocol: Option<Protocol>,
    shared: &Arc<Shared>,
    stop: &Arc<Stop>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served =
        runtime.and_then(|runtime| runtime.block_on(serve(listener, protocol, shared, stop)));
    if let Err(error) = served {
        error!(%error, "could not serve DNS over {}", transport(protocol).as_str());
    }
}

fn transport(protocol: Option<Protocol>) -> Transport {
    protocol.map_or(Transport::Stream, Protocol::transport)
}

async fn serve(
    listener: TcpListener,
    protocol: Option<Protocol>,
    shared: &Arc<Shared>,
    stop: &Arc<Stop>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let metrics = Metrics::new(transport(protocol));
    let mut door = Door {
        protocol,
        shared,
        stop,
        metrics: &metrics,
        connections: JoinSet::new(),
        refused: Refused::default(),
    };
    loop {
        let accepted = tokio::select! {
            () = stop.asked() => break,
            Some(_) = door.connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => door.admit(stream, peer),
            Err(error) => {
                debug!(%error, "could not accept a DNS connection");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    // Clients in the kernel's queue believe that they are connected: closing now would reset them.
    let listener = listener.into_std()?;
    while let Ok((stream, peer)) = listener.accept() {
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| tokio::net::TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            door.admit(stream, peer);
        }
    }
    drop(listener);
    while door.connections.join_next().await.is_some() {}
    Ok(())
}

/// Where connections come in.
struct Door<'a> {
    protocol: Option<Protocol>,
    shared: &'a Arc<Shared>,
    stop: &'a Arc<Stop>,
    metrics: &'a Metrics,
    connections: JoinSet<()>,
    refused: Refused,
}

impl Door<'_> {
    fn admit(&mut self, stream: tokio::net::TcpStream, peer: SocketAddr) {
        let transport = transport(self.protocol);
        let guest = Guest::welcome(self.shared, self.stop, self.metrics, peer, transport);
        let Some(guest) = guest else {
            self.refused.one(self.metrics, transport);
            return;
        };
        // Answers are whole; waiting to send them together with later ones only delays them.
        let _ = stream.set_nodelay(true);
        self.connections.spawn(guest.serve(stream, self.protocol));
    }
}

/// Connections for which there was no seat.
#[derive(Default)]
pub(super) struct Refused(u64);

impl Refused {
    pub(super) fn one(&mut self, metrics: &Metrics, transport: Transport) {
        metrics.connections_refused.increment(1);
        self.0 += 1;
        // Ever more rarely: strangers must not write our log.
        if self.0.is_power_of_two() {
            warn!(
                refused = self.0,
                "too many DNS connections over {}; more are closed at once",
                transport.as_str()
            );
        }
    }
}

/// A client (an IPv4 address, or a /64 of IPv6) may have this part of all connections, …
const ONE_CLIENT_PART: usize = 4;
/// … or this many, if that is more; more of its connections are closed at once. So one stranger
/// cannot keep all others out.
const ONE_CLIENT_LEAST: usize = 8;

/// Who has which connections: as many entries as connections at most.
///
/// A lock, because a connection is counted in all and for its client at once; taken when one is
/// accepted and when it ends, never for a question.
#[derive(Debug, Default)]
pub(crate) struct Seats(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing between taking and giving back can panic and leave the counts wrong.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, client: IpAddr, most: usize) -> bool {
        let mut taken = self.taken();
        let most_of_one = (most / ONE_CLIENT_PART).max(ONE_CLIENT_LEAST);
        let of_one = taken.by_client.get(&client).copied().unwrap_or(0);
        if taken.all >= most || of_one >= most_of_one {
            return false;
        }
        taken.all += 1;
        taken.by_client.insert(client, of_one + 1);
        true
    }

    /// Does the client have a connection already?
    pub(super) fn knows(&self, peer: IpAddr) -> bool {
        self.taken().by_client.contains_key(&client(peer))
    }

    fn give_back(&self, client: IpAddr) {
        let mut taken = self.taken();
        taken.all = taken.all.saturating_sub(1);
        match taken.by_client.get_mut(&client) {
            Some(of_one) if *of_one > 1 => *of_one -= 1,
            _ => {
                taken.by_client.remove(&client);
            }
        }
    }
}

/// One of `Limits::tcp_connections`, given back when dropped.
struct Seat {
    shared: Arc<Shared>,
    metrics: Metrics,
    client: IpAddr,
}

impl Seat {
    fn take(shared: &Arc<Shared>, metrics: &Metrics, peer: IpAddr) -> Option<Self> {
        let most = shared.rules.load().limits.tcp_connections;
        let client = client(peer);
        if !shared.seats.take(client, most) {
            return None;
        }
        metrics.connections.increment(1.0);
        Some(Self {
            shared: Arc::clone(shared),
            metrics: metrics.clone(),
            client,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.seats.give_back(self.client);
        self.metrics.connections.decrement(1.0);
    }
}

/// A host with IPv6 has a /64 at least, and any address in it.
fn client(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

/// A client that is connected.
pub(crate) struct Guest {
    seat: Seat,
    pub(crate) stop: Arc<Stop>,
    pub(crate) peer: SocketAddr,
    transport: Transport,
}

impl Guest {
    /// `None`: there is no seat.
    pub(super) fn welcome(
        shared: &Arc<Shared>,
        stop: &Arc<Stop>,
        metrics: &Metrics,
        peer: SocketAddr,
        transport: Transport,
    ) -> Option<Self> {
        Some(Self {
            seat: Seat::take(shared, metrics, peer.ip())?,
            stop: Arc::clone(stop),
            peer,
            transport,
        })
    }

    /// There will be no connection.
    pub(super) fn gives_up(&self) {
        self.seat.metrics.handshakes_failed.increment(1);
    }

    async fn serve(self, stream: tokio::net::TcpStream, protocol: Option<Protocol>) {
        let Some(protocol) = protocol else {
            return self.talk(stream).await;
        };
        let Some((stream, encrypted)) = self.shake(stream, protocol).await else {
            self.gives_up();
            return;
        };
        match protocol {
            Protocol::Tls => self.talk(stream).await,
            Protocol::Https => https::run(self, stream, encrypted.path).await,
            // Comes in by another door: see `quic`.
            Protocol::Quic => {}
        }
    }

    async fn talk(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let may_transfer = transfer::connection::is_expected(&self.rules(), self.peer.ip());
        match may_transfer {
            true => transfer::connection::run(self, stream).await,
            false => stream::run(self, stream).await,
        }
    }

    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.seat.shared.rules.load_full()
    }

    /// `None`: there will be no connection.
    async fn shake(
        &self,
        stream: tokio::net::TcpStream,
        protocol: Protocol,
    ) -> Option<(TlsStream<tokio::net::TcpStream>, Encrypted)> {
        let encrypted = self.seat.shared.encrypted(protocol)?;
        // Its clients are asked for nothing, whatever name they call.
        let config = encrypted.tls().choose(None).config;
        let handshake = TlsAcceptor::from(config).accept(stream);
        let shaken = tokio::select! {
            shaken = handshake => shaken,
            () = tokio::time::sleep(HANDSHAKE_MAX.min(self.idle())) => {
                Err(io::ErrorKind::TimedOut.into())
            }
            () = self.stop.asked_long_ago(LAST_WORDS) => return None,
        };
        match shaken {
            Ok(stream) => Some((stream, encrypted)),
            Err(error) => {
                debug!(peer = %self.peer, %error, "no TLS with this client");
                None
            }
        }
    }

    /// How long it may ask nothing. Never zero.
    pub(crate) fn idle(&self) -> Duration {
        let idle = self.seat.shared.rules.load().limits.tcp_idle;
        idle.max(Duration::from_millis(1))
    }

    /// Lets `work` answer this client, with [`stream::ROOM_LEN`] octets of room.
    pub(crate) fn turn<T>(&self, work: impl FnOnce(&mut Turn<'_>, &mut [u8]) -> T) -> T {
        let shared = &self.seat.shared;
        let (rules, world) = (shared.rules.load(), shared.world.load());
        SHARED.with_borrow_mut(|(tally, room)| {
            let now = calendar_seconds();
            let client = Client {
                address: self.peer.ip(),
                transport: self.transport,
                cookies: rules.cookies(now),
                now,
            };
            let mut turn = Turn {
                client,
                peer: self.peer,
                rules: &rules,
                world: &world,
                tally,
            };
            let done = work(&mut turn, room);
            tally.flush(&self.seat.metrics, &rules, &world.topology);
            done
        })
    }
}

thread_local! {
    /// What the connections of this thread share: as each of them answers in one go, none meets another's.
    static SHARED: RefCell<(Tally, Box<[u8]>)> =
        RefCell::new((Tally::default(), vec![0; stream::ROOM_LEN].into()));
}

/// Answers one client by the rules and the world of this moment.
pub(crate) struct Turn<'a> {
    client: Client<'a>,
    peer: SocketAddr,
    rules: &'a Rules,
    world: &'a Snapshot,
    tally: &'a mut Tally,
}

impl Turn<'_> {
    /// Writes the answer to the beginning of `out`, which has [`crate::engine::STREAM_SIZE_MAX`] octets. `None` for
    /// what gets none.
    pub(crate) fn answer(&mut self, message: &[u8], out: &mut [u8]) -> Option<Answered> {
        let answered = answer_to(self.client, message, self.rules, self.world, out);
        self.tally.record(answered.as_ref());
        if let Some(taps) = &self.rules.taps {
            let length = answered.map_or(0, |answered| answered.length);
            taps.see(&Glimpse {
                client: self.peer,
                transport: self.client.transport,
                message,
                answered,
                verdict: Verdict::Send,
                reply: &out[..length],
                at: calendar(),
            });
        }
        answered
    }

    /// A message that was answered by others.
    pub(crate) fn count(&mut self, rcode: Rcode) {
        self.tally.record(Some(&Answered::plain(0, rcode)));
    }
}
