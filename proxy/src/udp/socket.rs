//! The sockets: one for each listener's address and worker, and one for each flow.
//!
//! A listener on all addresses notes at which of them a datagram arrived, and answers from there:
//! clients drop what comes from elsewhere. Decides nothing.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd as _, RawFd};

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6,
    SockaddrStorage, recv, recvmmsg, sendmsg, setsockopt,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Datagrams taken from the kernel at once.
pub(crate) const BATCH: usize = 32;
/// No datagram is longer (RFC 768: the length has 16 bits), so none is ever cut.
pub(crate) const DATAGRAM_MAX: usize = 65_535;
/// Bytes of datagrams that wait in the kernel for each listening socket, for bursts; it drops more.
/// The system may allow less (`net.core.rmem_max`).
const WAITING_BYTES: usize = 4 << 20;

/// What a flow's socket is waited for: an answer, or word that nobody listens (which alone doesn't make
/// a socket readable).
const ANSWER_OR_ERROR: Interest = Interest::READABLE.add(Interest::ERROR);

/// Our address that a datagram was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Local {
    /// The one that the socket is bound to.
    Bound,
    V4(Ipv4Addr),
    /// With the interface where the address is link-local, and 0 elsewhere.
    V6(Ipv6Addr, u32),
}

/// Opens a listener's socket and binds it. `shared`: others of this process have the same port.
pub(crate) fn open(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Without it, another program's socket is noticed; with it, the kernel keeps each client with one
    // worker, by a hash of both addresses.
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(WAITING_BYTES)?;
    note_destinations(&socket, address)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Has the system tell for each datagram to which of our addresses it was sent, where there are
/// several.
pub(crate) fn note_destinations(socket: &Socket, bound: SocketAddr) -> io::Result<()> {
    if bound.ip().is_unspecified() {
        match bound {
            SocketAddr::V4(_) => setsockopt(socket, Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(socket, Ipv6RecvPacketInfo, &true)?,
        }
    }
    Ok(())
}

/// A socket of its own for one flow: the kernel lets in what comes from the endpoint alone, and tells
/// when nobody listens there.
pub(crate) fn connect(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(endpoint),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_nonblocking(true)?;
    socket.connect(&endpoint.into())?;
    UdpSocket::from_std(socket.into())
}

/// Waits until [`Batch::receive_one`] has something to take or to tell.
pub(crate) async fn answerable(socket: &UdpSocket) -> io::Result<()> {
    socket.ready(ANSWER_OR_ERROR).await.map(drop)
}

/// Sends now or not at all.
pub(crate) fn send(socket: &UdpSocket, bytes: &[u8]) -> io::Result<usize> {
    // Tokio's own would first wait to hear that a new socket can be written to.
    SockRef::from(socket).send(bytes)
}

/// Sends to a client, from the address that it sent to, now or not at all.
pub(crate) fn answer(
    socket: &UdpSocket,
    client: SocketAddr,
    local: Local,
    bytes: &[u8],
) -> io::Result<usize> {
    if local == Local::Bound {
        return SockRef::from(socket).send_to(bytes, &client.into());
    }
    let slices = [io::IoSlice::new(bytes)];
    let client = SockaddrStorage::from(client);
    let send = |from: ControlMessage<'_>| {
        let flags = MsgFlags::empty();
        let sent = sendmsg(socket.as_raw_fd(), &slices, &[from], flags, Some(&client));
        sent.map_err(io::Error::from)
    };
    match local {
        Local::V4(address) => send(ControlMessage::Ipv4PacketInfo(&in_pktinfo {
            // The route decides on the interface.
            ipi_ifindex: 0,
            ipi_spec_dst: in_addr {
                s_addr: u32::from(address).to_be(),
            },
            ipi_addr: in_addr { s_addr: 0 },
        })),
        Local::V6(address, interface) => send(ControlMessage::Ipv6PacketInfo(&in6_pktinfo {
            ipi6_addr: in6_addr {
                s6_addr: address.octets(),
            },
            ipi6_ifindex: interface,
        })),
        Local::Bound => Ok(0),
    }
}

/// A datagram that was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram {
    pub(crate) client: SocketAddr,
    pub(crate) local: Local,
    length: usize,
}

/// Room for [`BATCH`] datagrams, 2 MiB: one for all listeners of a worker, for what is received is
/// sent on before anything else is done. What was never needed is never resident.
#[derive(Debug)]
pub(crate) struct Batch {
    buffers: Vec<u8>,
    datagrams: Vec<Datagram>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            buffers: vec![0; BATCH * DATAGRAM_MAX],
            datagrams: Vec::with_capacity(BATCH),
        }
    }
}

impl Batch {
    /// Takes what waits in the socket, at most [`BATCH`] datagrams.
    ///
    /// # Errors
    /// As the system says; `WouldBlock` when nothing waits.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let Self { buffers, datagrams } = self;
        datagrams.clear();
        receive(socket.as_raw_fd(), buffers, datagrams)
    }

    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (&Datagram, &[u8])> {
        let buffers = self.buffers.chunks_exact(DATAGRAM_MAX);
        let both = self.datagrams.iter().zip(buffers);
        both.map(|(datagram, buffer)| (datagram, &buffer[..datagram.length]))
    }

    /// Takes one datagram of a connected socket.
    ///
    /// # Errors
    /// As the system says; `WouldBlock` when nothing waits.
    pub(crate) fn receive_one(&mut self, socket: &UdpSocket) -> io::Result<&[u8]> {
        let buffer = &mut self.buffers[..DATAGRAM_MAX];
        let mut receive = || Ok(recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?);
        let length = match socket.try_io(Interest::READABLE, &mut receive) {
            // Tokio knows the two apart only one at a time.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.try_io(Interest::ERROR, &mut receive)?
            }
            received => received?,
        };
        Ok(&buffer[..length])
    }
}

fn receive(fd: RawFd, buffers: &mut [u8], datagrams: &mut Vec<Datagram>) -> io::Result<()> {
    // Made anew each time: the kernel writes into it how much of it was used, and what is not put
    // back would be all the room that the next datagrams have.
    let control = nix::cmsg_space!(in6_pktinfo);
    let mut headers: MultiHeaders<SockaddrStorage> =
        MultiHeaders::preallocate(BATCH, Some(control));
    let chunks = buffers.chunks_exact_mut(DATAGRAM_MAX);
    let mut slices: Vec<[IoSliceMut<'_>; 1]> =
        chunks.map(|chunk| [IoSliceMut::new(chunk)]).collect();
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmmsg(fd, &mut headers, slices.iter_mut(), flags, None)?;
    for message in received {
        let client = message.address.as_ref().and_then(address);
        let note = message.cmsgs().ok().and_then(|mut notes| notes.next());
        datagrams.push(Datagram {
            client: client.unwrap_or(NOBODY),
            local: note.as_ref().map_or(Local::Bound, local),
            length: message.bytes,
        });
    }
    Ok(())
}

/// Port 0: nobody can be answered there.
const NOBODY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = |address: &SockaddrIn| SocketAddrV4::from(*address).into();
    let v6 = |address: &SockaddrIn6| SocketAddrV6::from(*address).into();
    let first = storage.as_sockaddr_in().map(v4);
    first.or_else(|| storage.as_sockaddr_in6().map(v6))
}

fn local(note: &ControlMessageOwned) -> Local {
    match note {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Local::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            // A link-local address means nothing without its interface.
            let interface = if address.is_unicast_link_local() {
                info.ipi6_ifindex
            } else {
                0
            };
            Local::V6(address, interface)
        }
        _ => Local::Bound,
    }
}
