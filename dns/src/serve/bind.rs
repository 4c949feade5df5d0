//! Opens sockets: one for UDP for each worker, one for TCP, all at the same address and port.
//!
//! Receives nothing: until threads are given the sockets, questions wait in the kernel.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroUsize;

use socket2::{Domain, Protocol, Socket, Type};

use super::udp;
use crate::engine::Transport;

/// Why an address cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("could not bind {address} for DNS over {}{}", protocol.as_str(), hint(source))]
pub struct BindError {
    pub address: SocketAddr,
    pub protocol: Transport,
    #[source]
    pub source: io::Error,
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => ": another program has it",
        io::ErrorKind::PermissionDenied => {
            ": not allowed (ports below 1024 need the capability CAP_NET_BIND_SERVICE)"
        }
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
        _ => "",
    }
}

impl BindError {
    /// Another program, or another part of this one, has the address.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// Sockets of one address that nobody reads yet.
#[derive(Debug)]
pub(crate) struct Bound {
    /// As the operator wrote it: port 0 lets the system choose.
    pub(crate) requested: SocketAddr,
    pub(crate) address: SocketAddr,
    pub(crate) udp: Vec<UdpSocket>,
    pub(crate) tcp: TcpListener,
}

/// Tries, where port 0 asks for any port, until one is free for both UDP and TCP.
const ANY_PORT_TRIES: usize = 32;
/// Connections that the kernel holds until they are accepted; it refuses more.
const TCP_BACKLOG: i32 = 1_024;
/// Octets of questions that wait in the kernel for each UDP socket, for bursts; it drops more. The
/// system may allow less (`net.core.rmem_max`).
const UDP_WAITING_BYTES: usize = 4 << 20;

/// `shared`: this process has the same port at another address already (a wildcard and one of its
/// addresses, say), so that looking whether it is free would find ourselves.
pub(crate) fn bind(
    requested: SocketAddr,
    workers: NonZeroUsize,
    shared: bool,
) -> Result<Bound, BindError> {
    let mut last = None;
    let tries = if requested.port() == 0 {
        ANY_PORT_TRIES
    } else {
        1
    };
    for _ in 0..tries {
        match bind_once(requested, workers, shared) {
            Err(error) if error.is_in_use() => last = Some(error),
            done => return done,
        }
    }
    Err(last.unwrap_or_else(|| BindError {
        address: requested,
        protocol: Transport::Udp,
        source: io::ErrorKind::AddrInUse.into(),
    }))
}

fn bind_once(
    requested: SocketAddr,
    workers: NonZeroUsize,
    shared: bool,
) -> Result<Bound, BindError> {
    let error = |protocol| {
        move |source| BindError {
            address: requested,
            protocol,
            source,
        }
    };
    // With SO_REUSEPORT another program's sockets would silently share our questions; a socket
    // without it finds out.
    let mut address = requested;
    if !shared || requested.port() == 0 {
        let probe = probe(address, Transport::Udp).map_err(error(Transport::Udp))?;
        address = probe;
        self::probe(address, Transport::Stream).map_err(error(Transport::Stream))?;
    }
    let udp: Result<Vec<_>, _> = (0..workers.get()).map(|_| udp_socket(address)).collect();
    let udp = udp.map_err(error(Transport::Udp))?;
    let tcp = tcp_listener(address).map_err(error(Transport::Stream))?;
    Ok(Bound {
        requested,
        address,
        udp,
        tcp,
    })
}

/// Is the address free? Returns it with the port that the system chose.
fn probe(address: SocketAddr, transport: Transport) -> io::Result<SocketAddr> {
    let socket = socket(address, transport)?;
    if transport == Transport::Stream {
        // Connections of an earlier process that are being forgotten are no obstacle.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if transport == Transport::Stream {
        // Only listening tells whether another socket listens there.
        socket.listen(1)?;
    }
    local_address(&socket)
}

fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, Transport::Udp)?;
    socket.set_reuse_port(true)?;
    // Less than asked for is no reason not to serve.
    let _ = socket.set_recv_buffer_size(UDP_WAITING_BYTES);
    socket.set_read_timeout(Some(udp::RECEIVE_WAIT))?;
    socket.set_write_timeout(Some(udp::SEND_WAIT))?;
    if address.ip().is_unspecified() {
        udp::ask_for_destination(&socket, address)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Transport::Stream)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(TCP_BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, transport: Transport) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::Stream => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // IPv4 has sockets of its own; here its clients would look like IPv6 ones.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    let address = socket.local_addr()?.as_socket();
    address.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}
