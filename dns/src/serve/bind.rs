//! Opens sockets: one for UDP for each worker, one for TCP, all at the same address and port.
//!
//! Sockets of an earlier process are used where it left some. Receives nothing: until threads are
//! given the sockets, questions wait in the kernel.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroUsize;

use socket2::{Domain, Socket, Type};

use super::udp;
use crate::config::Protocol;
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
    /// `None`: in the clear, over UDP and TCP.
    pub(crate) protocol: Option<Protocol>,
    /// As the operator wrote it: port 0 lets the system choose.
    pub(crate) requested: SocketAddr,
    pub(crate) address: SocketAddr,
    pub(crate) sockets: Sockets,
}

/// The sockets of one address.
#[derive(Debug, Default)]
pub struct Sockets {
    pub udp: Vec<UdpSocket>,
    pub tcp: Vec<TcpListener>,
}

/// Gives the sockets that an earlier process left for an address, which may be none; without a protocol, those for
/// questions in the clear.
pub type Inherit<'a> = dyn FnMut(Option<Protocol>, SocketAddr) -> Sockets + 'a;

impl Sockets {
    fn is_empty(&self) -> bool {
        self.udp.is_empty() && self.tcp.is_empty()
    }

    fn address(&self) -> io::Result<SocketAddr> {
        match (self.udp.first(), self.tcp.first()) {
            (Some(udp), _) => udp.local_addr(),
            (None, Some(tcp)) => tcp.local_addr(),
            (None, None) => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    /// The same sockets once more.
    ///
    /// # Errors
    /// The process has too many descriptors open.
    pub fn try_clone(&self) -> io::Result<Self> {
        let udp: io::Result<_> = self.udp.iter().map(UdpSocket::try_clone).collect();
        let tcp: io::Result<_> = self.tcp.iter().map(TcpListener::try_clone).collect();
        Ok(Self {
            udp: udp?,
            tcp: tcp?,
        })
    }
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
    inherited: Sockets,
) -> Result<Bound, BindError> {
    if !inherited.is_empty() {
        return adopt(requested, workers, inherited);
    }
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

/// The same for a protocol over TCP or, if it is QUIC, over UDP alone.
pub(crate) fn bind_encrypted(
    protocol: Protocol,
    requested: SocketAddr,
    shared: bool,
    inherited: Sockets,
) -> Result<Bound, BindError> {
    if protocol == Protocol::Quic {
        return bind_quic(requested, shared, inherited);
    }
    let bound = || {
        let listeners = match inherited.tcp {
            given if !given.is_empty() => adopt_tcp(requested, given)?,
            _ if shared => vec![tcp_listener(requested)?],
            _ => vec![tcp_listener(probe(requested, Transport::Stream)?)?],
        };
        let first = listeners.first().map(TcpListener::local_addr);
        let address = first.unwrap_or_else(|| Err(io::ErrorKind::AddrNotAvailable.into()))?;
        Ok((address, listeners))
    };
    let (address, tcp) = bound().map_err(|source| BindError {
        address: requested,
        protocol: protocol.transport(),
        source,
    })?;
    Ok(Bound {
        protocol: Some(protocol),
        requested,
        address,
        sockets: Sockets {
            udp: Vec::new(),
            tcp,
        },
    })
}

/// One socket, which one thread reads: a connection's datagrams must all come to the same.
fn bind_quic(requested: SocketAddr, shared: bool, inherited: Sockets) -> Result<Bound, BindError> {
    let bound = || {
        let socket = match inherited.udp.into_iter().next() {
            Some(given) => given,
            None if shared && requested.port() != 0 => udp_socket(requested)?,
            None => udp_socket(probe(requested, Transport::Udp)?)?,
        };
        socket.set_nonblocking(true)?;
        Ok((socket.local_addr()?, socket))
    };
    let (address, socket) = bound().map_err(|source| BindError {
        address: requested,
        protocol: Transport::Quic,
        source,
    })?;
    Ok(Bound {
        protocol: Some(Protocol::Quic),
        requested,
        address,
        sockets: Sockets {
            udp: vec![socket],
            tcp: Vec::new(),
        },
    })
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
        protocol: None,
        requested,
        address,
        sockets: Sockets {
            udp,
            tcp: vec![tcp],
        },
    })
}

/// Makes an earlier process's sockets ours and binds what is missing. Each of them gets a thread,
/// however few workers there are: questions that wait in it must be answered.
fn adopt(
    requested: SocketAddr,
    workers: NonZeroUsize,
    inherited: Sockets,
) -> Result<Bound, BindError> {
    let error = |protocol| {
        move |source| BindError {
            address: requested,
            protocol,
            source,
        }
    };
    let address = inherited.address().map_err(error(Transport::Udp))?;
    let Sockets { udp, tcp } = inherited;
    let udp = adopt_udp(address, workers.get(), udp).map_err(error(Transport::Udp))?;
    let tcp = adopt_tcp(address, tcp).map_err(error(Transport::Stream))?;
    Ok(Bound {
        protocol: None,
        requested,
        address,
        sockets: Sockets { udp, tcp },
    })
}

fn adopt_udp(
    address: SocketAddr,
    workers: usize,
    given: Vec<UdpSocket>,
) -> io::Result<Vec<UdpSocket>> {
    if given.is_empty() {
        probe(address, Transport::Udp)?;
    }
    let mut sockets = Vec::with_capacity(workers);
    for socket in given {
        let socket = Socket::from(socket);
        socket.set_nonblocking(false)?;
        prepare_udp(&socket, address)?;
        sockets.push(UdpSocket::from(socket));
    }
    for index in sockets.len()..workers {
        // One that lacks SO_REUSEPORT, or belongs to another user (a service manager's), can't be
        // joined: then threads share it.
        let more = udp_socket(address);
        let more = match sockets.get(index % sockets.len().max(1)) {
            Some(given) => more.or_else(|_| given.try_clone())?,
            None => more?,
        };
        sockets.push(more);
    }
    Ok(sockets)
}

fn adopt_tcp(address: SocketAddr, given: Vec<TcpListener>) -> io::Result<Vec<TcpListener>> {
    if given.is_empty() {
        probe(address, Transport::Stream)?;
        return Ok(vec![tcp_listener(address)?]);
    }
    for listener in &given {
        listener.set_nonblocking(true)?;
    }
    Ok(given)
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
    prepare_udp(&socket, address)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn prepare_udp(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    // Less than asked for is no reason not to serve.
    let _ = socket.set_recv_buffer_size(UDP_WAITING_BYTES);
    socket.set_read_timeout(Some(udp::RECEIVE_WAIT))?;
    socket.set_write_timeout(Some(udp::SEND_WAIT))?;
    if address.ip().is_unspecified() {
        udp::ask_for_destination(socket, address)?;
    }
    Ok(())
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
        Transport::Udp => (Type::DGRAM, socket2::Protocol::UDP),
        _ => (Type::STREAM, socket2::Protocol::TCP),
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

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    fn bound() -> Bound {
        let any = "127.0.0.1:0".parse().unwrap();
        bind(any, TWO, false, Sockets::default()).unwrap()
    }

    fn adopted(from: &Bound, workers: NonZeroUsize, sockets: Sockets) -> Bound {
        bind(from.address, workers, false, sockets).unwrap()
    }

    #[test]
    fn inherited_sockets_are_all_kept_and_none_is_bound_beside_them() {
        let first = bound();

        let second = adopted(
            &first,
            NonZeroUsize::MIN,
            first.sockets.try_clone().unwrap(),
        );

        let Sockets { udp, tcp } = &second.sockets;
        assert_eq!(
            (second.address, udp.len(), tcp.len()),
            (first.address, 2, 1)
        );
    }

    #[test]
    fn what_an_earlier_process_did_not_leave_is_bound() {
        let Bound {
            protocol,
            requested,
            address,
            sockets,
        } = bound();
        let Sockets { udp, tcp } = sockets;
        drop(tcp);
        let first = Bound {
            protocol,
            requested,
            address,
            sockets: Sockets {
                udp,
                tcp: Vec::new(),
            },
        };

        let second = adopted(&first, TWO, first.sockets.try_clone().unwrap());

        assert_eq!(second.sockets.tcp[0].local_addr().unwrap(), address);
    }

    #[test]
    fn a_socket_that_cannot_be_joined_is_shared() {
        // A port that is free for both: of TCP another program may have it.
        let (alone, tcp) = std::iter::repeat_with(|| {
            let alone = UdpSocket::bind("127.0.0.1:0").unwrap();
            let tcp = tcp_listener(alone.local_addr().unwrap());
            tcp.map(|tcp| (alone, tcp))
        })
        .take(100)
        .find_map(Result::ok)
        .unwrap();
        let address = alone.local_addr().unwrap();
        let sockets = Sockets {
            udp: vec![alone],
            tcp: vec![tcp],
        };

        let bound = bind(address, TWO, false, sockets).unwrap();

        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"question", address).unwrap();
        let mut octets = [0; 16];
        assert_eq!(bound.sockets.udp[1].recv(&mut octets).unwrap(), 8);
    }
}
