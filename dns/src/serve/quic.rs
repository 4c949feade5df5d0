//! BORDER. DNS over QUIC (RFC 9250): quinn carries the streams, the engine answers what they ask.
//!
//! One socket and one thread for each address. Takes its seats and its certificates where the other doors
//! ([`super::door`]) take theirs. No early data (0-RTT), and no client that changes its address: what one connection,
//! and what strangers with forged addresses can hold is bounded by the constants below.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, Incoming, ReadToEndError, RecvStream, SendStream,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tracing::{debug, error};

use super::clock::steady_micros;
use super::door::{Guest, HANDSHAKE_MAX, LAST_WORDS, Refused};
use super::{Shared, Stop};
use crate::config::{Encrypted, Protocol};
use crate::engine::{Rules, Transport};
use crate::metrics::{Metrics, count_quic_retry};
use crate::question::Question;

/// Handshakes at once with clients of which it is not known whether their addresses are their own; the next ones
/// are to show first that they receive what is sent to them (Retry, RFC 9000 §8.1.2). So are those from an address
/// that has a connection already: whoever forges addresses can take one seat of a client's, for one handshake.
const UNPROVEN_MAX: usize = 32;
/// First datagrams that wait until this thread looks at them; clients beyond that are refused.
const INCOMING_MAX: usize = 256;
/// Octets of further datagrams that wait with them, for each and for all.
const INCOMING_OCTETS: u64 = 4 * 1_024;
const INCOMING_OCTETS_ALL: u64 = 256 * 1_024;
/// Questions of one connection at once; a client may not open more streams (RFC 9000 §4.6).
const STREAMS_MAX: u32 = 32;
/// Octets of a question; who sends more is told that it is too much. None is as long, so that all that a connection
/// asks at once is small.
const QUESTION_MAX: usize = 4_096;
/// Octets that a connection's questions may wait with.
const WAITING_MAX: u32 = 32 * 1_024;
/// Answers of one connection that wait to be sent, in octets; further ones are written when there is room.
const ANSWERS_MAX: u64 = 128 * 1_024;
/// Octets of a handshake out of order.
const HANDSHAKE_OCTETS_MAX: usize = 16 * 1_024;
/// What carries a length before each message (RFC 9250 §4.2).
const LENGTH: usize = 2;

/// What is said when a connection or a stream ends (RFC 9250 §8.4).
mod code {
    use quinn::VarInt;

    pub(super) const NO_ERROR: VarInt = VarInt::from_u32(0);
    pub(super) const PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);
    pub(super) const REQUEST_CANCELLED: VarInt = VarInt::from_u32(3);
    pub(super) const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(4);
}

/// Serves one address on the calling thread until asked to stop.
pub(crate) fn run(socket: UdpSocket, shared: &Arc<Shared>, stop: &Arc<Stop>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = runtime.and_then(|runtime| runtime.block_on(serve(socket, shared, stop)));
    if let Err(error) = served {
        error!(%error, "could not serve DNS over quic");
    }
}

async fn serve(socket: UdpSocket, shared: &Arc<Shared>, stop: &Arc<Stop>) -> io::Result<()> {
    let mut papers = Papers::default();
    let first = papers.present(shared).ok_or(io::ErrorKind::InvalidInput)?;
    let endpoint = Endpoint::new(
        EndpointConfig::default(),
        Some(ServerConfig::clone(&first)),
        socket,
        Arc::new(TokioRuntime),
    )?;
    let metrics = Metrics::new(Transport::Quic);
    let mut door = Door {
        shared,
        stop,
        papers,
        metrics: &metrics,
        unproven: Arc::new(Semaphore::new(UNPROVEN_MAX)),
        connections: JoinSet::new(),
        refused: Refused::default(),
    };
    loop {
        tokio::select! {
            () = stop.asked() => break,
            Some(_) = door.connections.join_next() => {}
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => door.admit(incoming),
                None => break,
            },
        }
    }
    // Whoever comes now comes again in a second, to a successor if there is one. Refused, it would not.
    let newcomers = async {
        while let Some(incoming) = endpoint.accept().await {
            incoming.ignore();
        }
    };
    let goodbyes = async {
        while door.connections.join_next().await.is_some() {}
        let _ = tokio::time::timeout(LAST_WORDS, endpoint.wait_idle()).await;
    };
    tokio::select! {
        () = newcomers => {}
        () = goodbyes => {}
    }
    Ok(())
}

/// The certificates of the moment, as quinn wants them.
#[derive(Default)]
struct Papers {
    /// What they were made of: replaced whole when certificates or rules are.
    of: Option<Arc<Vec<Encrypted>>>,
    config: Option<Arc<ServerConfig>>,
}

impl Papers {
    /// `None`: it was spoken until a moment ago.
    fn present(&mut self, shared: &Shared) -> Option<Arc<ServerConfig>> {
        let all = shared.encrypted.load_full();
        if !self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &all)) {
            let one = all.iter().find(|one| one.protocol == Protocol::Quic);
            let made = one.and_then(|one| self.made_of(one, &shared.rules.load()));
            self.config = made.map(Arc::new);
            self.of = Some(all);
        }
        self.config.clone()
    }

    fn made_of(&self, encrypted: &Encrypted, rules: &Rules) -> Option<ServerConfig> {
        // Its clients are asked for nothing, whatever name they call.
        let tls = encrypted.tls().choose(None).config;
        let crypto = match QuicServerConfig::try_from(tls) {
            Ok(crypto) => Arc::new(crypto),
            Err(error) => {
                error!(%error, "no TLS for DNS over quic");
                return None;
            }
        };
        let mut config = match &self.config {
            // With the same key: whoever was told to come back comes with a token.
            Some(before) => {
                let mut config = ServerConfig::clone(before);
                config.crypto = crypto;
                config
            }
            None => ServerConfig::with_crypto(crypto),
        };
        config
            .transport_config(Arc::new(transport(rules.limits.tcp_idle)))
            .migration(false)
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(INCOMING_OCTETS)
            .incoming_buffer_size_total(INCOMING_OCTETS_ALL);
        Some(config)
    }
}

fn transport(idle: Duration) -> TransportConfig {
    let idle = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX).max(1);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(0_u32.into())
        .stream_receive_window(VarInt::from_u32((LENGTH + QUESTION_MAX) as u32 + 1))
        .receive_window(WAITING_MAX.into())
        .send_window(ANSWERS_MAX)
        .crypto_buffer_size(HANDSHAKE_OCTETS_MAX)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(VarInt::from_u32(idle).into()))
        // Strangers on the way don't learn how long an answer is (RFC 9250 §5.4).
        .pad_to_mtu(true)
        .mtu_discovery_config(None);
    transport
}

/// Where connections come in.
struct Door<'a> {
    shared: &'a Arc<Shared>,
    stop: &'a Arc<Stop>,
    papers: Papers,
    metrics: &'a Metrics,
    unproven: Arc<Semaphore>,
    connections: JoinSet<()>,
    refused: Refused,
}

impl Door<'_> {
    fn admit(&mut self, incoming: Incoming) {
        let peer = incoming.remote_address();
        let unproven = if incoming.remote_address_validated() {
            None
        } else {
            let is_known = self.shared.seats.knows(peer.ip());
            let permit = Arc::clone(&self.unproven).try_acquire_owned().ok();
            let Some(permit) = permit.filter(|_| !is_known) else {
                count_quic_retry();
                // An error would be one that has shown it, which was looked at before.
                let _ = incoming.retry();
                return;
            };
            Some(permit)
        };
        let Some(papers) = self.papers.present(self.shared) else {
            return incoming.refuse();
        };
        let guest = Guest::welcome(self.shared, self.stop, self.metrics, peer, Transport::Quic);
        let Some(guest) = guest else {
            self.refused.one(self.metrics, Transport::Quic);
            return incoming.refuse();
        };
        self.connections
            .spawn(serve_one(guest, incoming, papers, unproven));
    }
}

/// From the handshake to the end.
async fn serve_one(
    guest: Guest,
    incoming: Incoming,
    papers: Arc<ServerConfig>,
    unproven: Option<OwnedSemaphorePermit>,
) {
    let peer = guest.peer;
    let handshake = async { incoming.accept_with(papers)?.await };
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(HANDSHAKE_MAX.min(guest.idle()), handshake) => shaken,
        () = guest.stop.asked_long_ago(LAST_WORDS) => return,
    };
    drop(unproven);
    match shaken {
        Ok(Ok(connection)) => converse(guest, connection).await,
        Ok(Err(error)) => {
            debug!(%peer, %error, "no QUIC with this client");
            guest.gives_up();
        }
        Err(_) => {
            debug!(%peer, "no QUIC with this client: it took too long");
            guest.gives_up();
        }
    }
}

async fn converse(guest: Guest, connection: Connection) {
    let (peer, stop) = (guest.peer, Arc::clone(&guest.stop));
    let desk = Arc::new(Desk {
        idle: guest.idle(),
        guest,
        connection: connection.clone(),
        answered_at: AtomicU64::new(steady_micros()),
    });
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            // First, or a client that never pauses would be served for ever.
            biased;
            () = stop.asked() => break,
            Some(_) = streams.join_next() => {}
            opened = connection.accept_bi() => match opened {
                Ok((send, receive)) => {
                    streams.spawn(Arc::clone(&desk).take(send, receive));
                }
                Err(error) => {
                    debug!(%peer, %error, "DNS connection closed");
                    return;
                }
            },
            () = tokio::time::sleep(desk.rest()) => {
                if desk.rest().is_zero() {
                    break;
                }
            }
        }
    }
    let last_words = async {
        loop {
            tokio::select! {
                Some(_) = streams.join_next() => {}
                // What it sent before may still be on its way through the socket.
                Ok((send, receive)) = connection.accept_bi() => {
                    streams.spawn(Arc::clone(&desk).take(send, receive));
                }
                else => return,
            }
        }
    };
    let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
    connection.close(code::NO_ERROR, b"");
}

/// What the streams of one connection share.
struct Desk {
    guest: Guest,
    connection: Connection,
    idle: Duration,
    /// By [`steady_micros`]; at first, when the connection began.
    answered_at: AtomicU64,
}

/// Why a stream gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// The client breaks the protocol: its connection ends (RFC 9250 §4.3.3).
    Protocol,
    /// It sends more than any question is long, or too slowly.
    TooMuch,
    /// It does not want the answer any more.
    Cancelled,
}

impl Desk {
    /// How long the connection may still ask nothing. The limit runs from question to question, so that what does
    /// not ask anything does not prolong it.
    fn rest(&self) -> Duration {
        let since = steady_micros().saturating_sub(self.answered_at.load(Ordering::Relaxed));
        self.idle.saturating_sub(Duration::from_micros(since))
    }

    /// Serves one stream: one question, one answer.
    async fn take(self: Arc<Self>, mut send: SendStream, mut receive: RecvStream) {
        let asked = tokio::time::timeout(self.idle, question(&mut receive)).await;
        let reply = asked
            .unwrap_or(Err(Wrong::TooMuch))
            .and_then(|question| self.answer(&question));
        // Errors here mean that the stream or its connection is over already.
        match reply {
            Ok(reply) => {
                if send.write_all(&reply).await.is_ok() && send.finish().is_ok() {
                    // A connection that ends before the client has its answers takes them along.
                    let _ = send.stopped().await;
                }
            }
            Err(Wrong::Protocol) => self.connection.close(code::PROTOCOL_ERROR, b""),
            Err(Wrong::TooMuch) => {
                let _ = receive.stop(code::EXCESSIVE_LOAD);
                let _ = send.reset(code::EXCESSIVE_LOAD);
            }
            Err(Wrong::Cancelled) => {
                let _ = send.reset(code::REQUEST_CANCELLED);
            }
        }
    }

    /// With its length before it.
    fn answer(&self, question: &[u8]) -> Result<Vec<u8>, Wrong> {
        let framed = self.guest.turn(|turn, room| {
            let (length, reply) = room.split_first_chunk_mut::<LENGTH>()?;
            let answered = turn.answer(question, reply)?;
            *length = u16::try_from(answered.length).ok()?.to_be_bytes();
            Some(room.get(..LENGTH + answered.length)?.to_vec())
        });
        self.answered_at.store(steady_micros(), Ordering::Relaxed);
        // Nothing good follows what gets no answer.
        framed.ok_or(Wrong::Protocol)
    }
}

/// The one question of a stream, which its client has ended after it (RFC 9250 §4.2).
async fn question(receive: &mut RecvStream) -> Result<Vec<u8>, Wrong> {
    let read = receive.read_to_end(LENGTH + QUESTION_MAX).await;
    let mut read = read.map_err(|error| match error {
        ReadToEndError::TooLong => Wrong::TooMuch,
        ReadToEndError::Read(_) => Wrong::Cancelled,
    })?;
    let (length, message) = read.split_first_chunk::<LENGTH>().ok_or(Wrong::Protocol)?;
    if usize::from(u16::from_be_bytes(*length)) != message.len() || !is_allowed(message) {
        return Err(Wrong::Protocol);
    }
    read.drain(..LENGTH);
    Ok(read)
}

/// Streams tell messages apart, not ids, which are 0 (RFC 9250 §4.2.1); and how long a connection may be idle is
/// QUIC's to tell (§5.5.2).
fn is_allowed(message: &[u8]) -> bool {
    let has_no_id = message.starts_with(&[0, 0]);
    let asks_for_time = Question::parse(message)
        .is_ok_and(|question| question.edns.is_some_and(|edns| edns.keepalive));
    has_no_id && !asks_for_time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_or_a_wish_for_time_breaks_the_protocol() {
        let plain = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
        assert!(is_allowed(plain));
        let mut with_id = *plain;
        with_id[1] = 1;
        assert!(!is_allowed(&with_id));
        let mut with_time = plain.to_vec();
        with_time[11] = 1;
        with_time.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\x04\0\x0b\0\0");
        assert!(!is_allowed(&with_time));
        assert!(!is_allowed(b""));
    }
}
