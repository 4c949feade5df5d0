//! BORDER. TCP (RFC 7766): hickory carries the messages, the engine answers them.
//!
//! hickory's framing (`TcpStream`) and idle limit (`TimeoutStream`) are used; its accept loop is not,
//! because it takes any number of connections, and its parser and catalog are not, because they
//! answer otherwise than over UDP. Questions and answers pass through here as octets.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use hickory_server::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_server::net::tcp::TcpStream;
use hickory_server::net::{BufDnsStreamHandle, DnsStreamHandle};
use hickory_server::proto::op::SerialMessage;
use hickory_server::server::TimeoutStream;
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use super::clock::calendar_seconds;
use super::{Shared, Stop};
use crate::engine::{Client, STREAM_SIZE_MAX, Transport, answer_to};
use crate::metrics::{Metrics, Tally};

/// Answers of one connection that wait to be sent. One would do: the next question is read when the
/// answer before it has left.
const ANSWERS_WAITING_MAX: usize = 4;
/// How long a connection has, once the server stops, for what it has already sent. A new one may
/// not have sent its first question yet.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Rest after an error in accepting (out of file descriptors, say): it will not go away at once.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Serves one address on the calling thread until asked to stop.
pub(crate) fn run(listener: TcpListener, shared: &Arc<Shared>, stop: &Arc<Stop>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = runtime.and_then(|runtime| runtime.block_on(serve(listener, shared, stop)));
    if let Err(error) = served {
        error!(%error, "could not serve DNS over TCP");
    }
}

async fn serve(listener: TcpListener, shared: &Arc<Shared>, stop: &Arc<Stop>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let metrics = Metrics::new(Transport::Stream);
    let mut door = Door {
        shared,
        stop,
        metrics: &metrics,
        connections: JoinSet::new(),
        refused: 0,
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
    shared: &'a Arc<Shared>,
    stop: &'a Arc<Stop>,
    metrics: &'a Metrics,
    connections: JoinSet<()>,
    refused: u64,
}

impl Door<'_> {
    fn admit(&mut self, stream: tokio::net::TcpStream, peer: SocketAddr) {
        let Some(seat) = Seat::take(self.shared, self.metrics, peer.ip()) else {
            self.metrics.connections_refused.increment(1);
            self.refused += 1;
            // Ever more rarely: strangers must not write our log.
            if self.refused.is_power_of_two() {
                warn!(
                    refused = self.refused,
                    "too many DNS connections over TCP; more are closed at once"
                );
            }
            return;
        };
        // Answers are whole; waiting to send them together with later ones only delays them.
        let _ = stream.set_nodelay(true);
        let connection = Connection::new(seat, self.stop, peer);
        self.connections.spawn(connection.run(stream));
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

struct Connection {
    seat: Seat,
    stop: Arc<Stop>,
    peer: SocketAddr,
    tally: Tally,
}

impl Connection {
    fn new(seat: Seat, stop: &Arc<Stop>, peer: SocketAddr) -> Self {
        Self {
            seat,
            stop: Arc::clone(stop),
            peer,
            tally: Tally::default(),
        }
    }

    async fn run(mut self, stream: tokio::net::TcpStream) {
        let idle = self.seat.shared.rules.load().limits.tcp_idle;
        let (messages, mut replies) = TcpStream::from_stream_with_buffer_size(
            AsyncIoTokioAsStd(stream),
            self.peer,
            ANSWERS_WAITING_MAX,
        );
        // The limit runs from message to message, so that octets sent one by one don't prolong it;
        // it also ends a connection whose client takes no answers. Zero would mean none.
        let mut messages = TimeoutStream::new(messages, idle.max(Duration::from_millis(1)));
        let stop = Arc::clone(&self.stop);
        loop {
            let message = tokio::select! {
                // First, or a client that never pauses would be served for ever.
                biased;
                () = stop.asked() => break,
                message = messages.next() => message,
            };
            if self.take(message, &mut replies).is_none() {
                return;
            }
        }
        let last_words = async {
            while let Some(message) = messages.next().await {
                self.take(Some(message), &mut replies)?;
            }
            Some(())
        };
        let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
    }

    /// Answers one message. `None` when the connection is over.
    fn take(
        &mut self,
        message: Option<io::Result<SerialMessage>>,
        replies: &mut BufDnsStreamHandle,
    ) -> Option<()> {
        let message = match message? {
            Ok(message) => message,
            Err(error) => {
                debug!(peer = %self.peer, %error, "DNS connection closed");
                return None;
            }
        };
        let reply = self.answer(message.bytes())?;
        replies.send(SerialMessage::new(reply, self.peer)).ok()
    }

    /// `None`, and so the end, for what gets no answer: nothing good follows such a message.
    fn answer(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let shared = &self.seat.shared;
        let (rules, world) = (shared.rules.load(), shared.world.load());
        let mut reply = vec![0; STREAM_SIZE_MAX];
        let client = Client {
            address: self.peer.ip(),
            transport: Transport::Stream,
            cookies: rules.cookies(calendar_seconds()),
        };
        let answered = answer_to(client, message, &rules, &world, &mut reply);
        self.tally.record(answered.as_ref());
        self.tally.flush(&self.seat.metrics, &world.topology);
        reply.truncate(answered?.length);
        reply.shrink_to_fit();
        Some(reply)
    }
}
