//! Sockets that outlive the process: what the successor needs of them, and how it takes them over.
//!
//! A socket is handed over as a duplicate: both processes accept from the same queue, so that
//! closing one end loses nothing. How sockets travel between processes is the daemon's affair.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use socket2::Socket;

use crate::config::ListenerProtocol;
pub use crate::udp::legacy::{FLOWS_LEFT_MAX, LeftFlow};
use crate::{listener, udp};

/// An address whose sockets an earlier process may have left.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The listener's name: all that is known of an address with port 0.
    pub listener: &'a str,
    pub address: SocketAddr,
    pub kind: SocketKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    Stream,
    Datagram,
}

impl SocketKind {
    /// An address may have one listener of each kind.
    pub(crate) const fn of(protocol: &ListenerProtocol) -> Self {
        match protocol {
            ListenerProtocol::Udp { .. } => Self::Datagram,
            _ => Self::Stream,
        }
    }
}

/// Gives the sockets that there are for an address; none where it has to be bound.
pub type Inherit<'a> = dyn FnMut(Wanted<'_>) -> Vec<OwnedFd> + 'a;

/// Binds everything itself.
pub(crate) fn nothing(_: Wanted<'_>) -> Vec<OwnedFd> {
    Vec::new()
}

/// The sockets of one address, for a successor.
#[derive(Debug)]
pub struct Held {
    pub listener: Arc<str>,
    /// As configured.
    pub address: SocketAddr,
    pub kind: SocketKind,
    pub sockets: Vec<OwnedFd>,
}

/// The UDP flows of one address, for a successor.
#[derive(Debug)]
pub struct LeftFlows {
    pub listener: Arc<str>,
    /// As configured.
    pub address: SocketAddr,
    pub flows: Vec<LeftFlow>,
}

/// Makes an earlier process's listening sockets ours. All of them are accepted from, however few
/// workers there are: a queue that nobody empties would keep its clients waiting for ever. Where
/// workers are more, they get sockets of their own.
pub(crate) fn adopt(
    inherited: Vec<OwnedFd>,
    kind: SocketKind,
    workers: usize,
) -> io::Result<(SocketAddr, Vec<Socket>)> {
    let mut sockets: Vec<Socket> = inherited.into_iter().map(Socket::from).collect();
    let first = sockets.first().ok_or(io::ErrorKind::InvalidInput)?;
    let address = first.local_addr()?.as_socket();
    let address = address.ok_or(io::ErrorKind::InvalidInput)?;
    for socket in &sockets {
        socket.set_nonblocking(true)?;
        if kind == SocketKind::Datagram {
            udp::note_destinations(socket, address)?;
        }
    }
    let given = sockets.len();
    for index in given..workers {
        // One that lacks SO_REUSEPORT, or belongs to another user (a service manager's), can't be
        // joined: then workers share it.
        let more = listener::socket(address, kind, true)
            .or_else(|_| sockets[index % given].try_clone())?;
        sockets.push(more);
    }
    Ok((address, sockets))
}

/// Duplicates for a successor.
pub(crate) fn duplicates(sockets: &[Socket]) -> io::Result<Vec<OwnedFd>> {
    let all = sockets.iter().map(Socket::try_clone);
    all.map(|one| one.map(OwnedFd::from)).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn address() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn each_inherited_socket_is_kept_though_workers_are_fewer() {
        let (address, sockets) = listener::bind(address(), SocketKind::Stream, 3).unwrap();

        let (adopted, taken) = adopt(duplicates(&sockets).unwrap(), SocketKind::Stream, 1).unwrap();

        assert_eq!((adopted, taken.len()), (address, 3));
    }

    #[test]
    fn further_workers_get_sockets_of_their_own() {
        let (address, sockets) = listener::bind(address(), SocketKind::Stream, 1).unwrap();

        let (_, taken) = adopt(duplicates(&sockets).unwrap(), SocketKind::Stream, 3).unwrap();

        let bound = |socket: &Socket| socket.local_addr().unwrap().as_socket();
        assert_eq!(taken.len(), 3);
        assert!(taken.iter().all(|socket| bound(socket) == Some(address)));
    }

    #[test]
    fn a_socket_that_cannot_be_joined_is_shared() {
        let alone = TcpListener::bind(address()).unwrap();
        let address = alone.local_addr().unwrap();

        let (_, taken) = adopt(vec![alone.into()], SocketKind::Stream, 2).unwrap();

        let client = TcpStream::connect(address).unwrap();
        let second: TcpListener = taken.into_iter().nth(1).unwrap().into();
        second.set_nonblocking(false).unwrap();
        let (_, peer) = second.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }
}
