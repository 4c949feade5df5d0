//! What goes from one process to the next: sockets, by name and address, and the way they travel.
//!
//! Sockets travel as descriptors over a pair of Unix sockets, one message for each address and a
//! text beside it; the health map travels as a descriptor of memory. [`upgrade`](crate::upgrade)
//! speaks for the old process, [`successor`](crate::successor) for the new one. Nothing here
//! decides anything.

pub mod flows;

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use sealane_control::state::{self, Remembered, STATE_FILE_MAX};
use socket2::{SockRef, Type};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Descriptors that go with one message; the kernel takes 253 at most. More go in further ones.
const DESCRIPTORS_MAX: usize = 64;
/// A longer message is cut by the receiver: only the reason for a refusal may be that long.
const MESSAGE_MAX: usize = 32 * 1024;

/// One end of the way between two processes. Messages arrive whole, or not at all.
#[derive(Debug)]
// Tokio's type for a stream serves for packets as well, as nothing but its readiness is used.
pub struct Channel(UnixStream);

#[derive(Debug, Default)]
pub struct Message {
    pub text: String,
    pub descriptors: Vec<OwnedFd>,
}

impl Channel {
    /// Our end, and the one for the new process.
    ///
    /// # Errors
    /// The process has too many descriptors open.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::over(ours)?, theirs))
    }

    /// Over an end that came from elsewhere.
    ///
    /// # Errors
    /// It is no socket.
    pub fn over(end: OwnedFd) -> io::Result<Self> {
        if SockRef::from(&end).r#type()? != Type::SEQPACKET {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        rustix::io::ioctl_fionbio(&end, true)?;
        UnixStream::from_std(end.into()).map(Self)
    }

    /// # Errors
    /// The other process is gone.
    pub async fn send(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let send = || send(self.0.as_fd(), text.as_bytes(), descriptors);
        self.0.async_io(Interest::WRITABLE, send).await
    }

    /// The next message; `None` when the other process is gone. Cancel-safe.
    ///
    /// # Errors
    /// The system refuses, or descriptors were lost for want of room for them.
    pub async fn receive(&self) -> io::Result<Option<Message>> {
        let receive = || receive(self.0.as_fd());
        match self.0.async_io(Interest::READABLE, receive).await {
            // It ended with messages of ours unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            received => received,
        }
    }
}

fn send(end: BorrowedFd<'_>, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let text = &text[..text.len().min(MESSAGE_MAX)];
    sendmsg(
        end,
        &[IoSlice::new(text)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn receive(end: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = vec![0; MESSAGE_MAX];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(end, &mut [IoSliceMut::new(&mut text)], &mut control, flags)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("descriptors were lost on the way"));
    }
    if received.bytes == 0 {
        return Ok(None); // no message of ours is empty
    }
    text.truncate(received.bytes);
    Ok(Some(Message {
        text: String::from_utf8_lossy(&text).into_owned(),
        descriptors,
    }))
}

/// Which part of the program a socket serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Proxy,
    Dns,
    Admin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stream,
    Datagram,
}

const ROOMS: [(Room, &str); 3] = [
    (Room::Proxy, "proxy"),
    (Room::Dns, "dns"),
    (Room::Admin, "admin"),
];
const KINDS: [(Kind, &str); 2] = [(Kind::Stream, "stream"), (Kind::Datagram, "datagram")];

/// What the sockets of one message are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub room: Room,
    pub kind: Kind,
    /// As configured: port 0 where the system chose.
    pub asked: SocketAddr,
    /// Of the listener.
    pub name: String,
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let room = ROOMS.iter().find(|(room, _)| *room == self.room);
        let kind = KINDS.iter().find(|(kind, _)| *kind == self.kind);
        let (room, kind) = (room.map_or("", |r| r.1), kind.map_or("", |k| k.1));
        write!(f, "{room} {kind} {} {}", self.asked, self.name)
    }
}

impl Label {
    /// Reads what `Display` writes. A name may hold anything: it comes last.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(4, ' ');
        let (room, kind, asked) = (words.next()?, words.next()?, words.next()?);
        Some(Self {
            room: ROOMS.iter().find(|(_, word)| *word == room)?.0,
            kind: KINDS.iter().find(|(_, word)| *word == kind)?.0,
            asked: asked.parse().ok()?,
            name: words.next()?.to_owned(),
        })
    }
}

/// Everything that a process gives away, in messages' portions.
#[derive(Debug, Default)]
pub struct Estate(Vec<(Label, Vec<OwnedFd>)>);

impl Estate {
    pub fn add(&mut self, label: &Label, sockets: impl IntoIterator<Item = OwnedFd>) {
        let mut sockets = sockets.into_iter().peekable();
        while sockets.peek().is_some() {
            let portion = sockets.by_ref().take(DESCRIPTORS_MAX).collect();
            self.0.push((label.clone(), portion));
        }
    }

    pub fn portions(&self) -> impl Iterator<Item = (String, Vec<BorrowedFd<'_>>)> {
        let portions = self.0.iter();
        portions
            .map(|(label, sockets)| (label.to_string(), sockets.iter().map(AsFd::as_fd).collect()))
    }
}

/// Sockets that were left to this process and wait for the part that serves them.
#[derive(Debug, Default)]
pub struct Inheritance(Vec<Inherited>);

#[derive(Debug)]
struct Inherited {
    /// `None`: it came from a service manager, and is known by its address alone.
    label: Option<Label>,
    /// What a service manager calls it.
    name: String,
    kind: Kind,
    address: SocketAddr,
    socket: OwnedFd,
}

/// Why a socket is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Useless {
    #[error("it has no IP address")]
    Address,
    #[error("it is neither UDP nor a TCP socket that listens")]
    Kind,
}

impl Inheritance {
    /// # Errors
    /// [`Useless`]; the socket is closed.
    pub fn add(
        &mut self,
        label: Option<Label>,
        name: &str,
        socket: OwnedFd,
    ) -> Result<(), Useless> {
        let known = SockRef::from(&socket);
        let address = known.local_addr().ok().and_then(|at| at.as_socket());
        let address = address.ok_or(Useless::Address)?;
        let kind = match known.r#type() {
            Ok(Type::DGRAM) => Kind::Datagram,
            Ok(Type::STREAM) if known.is_listener().unwrap_or(false) => Kind::Stream,
            _ => return Err(Useless::Kind),
        };
        self.0.push(Inherited {
            label,
            name: name.to_owned(),
            kind,
            address,
            socket,
        });
        Ok(())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sockets for an address. A port that the system chose is found by the listener's name.
    pub fn take(&mut self, room: Room, kind: Kind, name: &str, asked: SocketAddr) -> Vec<OwnedFd> {
        let wanted = Label {
            room,
            kind,
            asked,
            name: name.to_owned(),
        };
        let fits = |one: &mut Inherited| {
            let at = |address: SocketAddr| (address.ip(), address.port());
            let same_address = asked.port() != 0 && at(one.address) == at(asked);
            one.kind == kind && (same_address || one.label.as_ref() == Some(&wanted))
        };
        self.0.extract_if(.., fits).map(|one| one.socket).collect()
    }

    pub fn take_tcp(&mut self, room: Room, name: &str, asked: SocketAddr) -> Vec<TcpListener> {
        let taken = self.take(room, Kind::Stream, name, asked);
        taken.into_iter().map(Into::into).collect()
    }

    pub fn take_udp(&mut self, room: Room, name: &str, asked: SocketAddr) -> Vec<UdpSocket> {
        let taken = self.take(room, Kind::Datagram, name, asked);
        taken.into_iter().map(Into::into).collect()
    }

    /// Closes what nothing took, and says what that was: (name, address).
    pub fn close_rest(&mut self) -> Vec<(String, SocketAddr)> {
        let mut rest: Vec<_> = std::mem::take(&mut self.0)
            .into_iter()
            .map(|one| {
                let name = one.label.map_or(one.name, |label| label.name);
                (name, one.address)
            })
            .collect();
        rest.dedup();
        rest
    }
}

/// The map as something that goes with a message.
///
/// # Errors
/// No memory.
pub fn pack(node: &str, map: &Remembered) -> io::Result<OwnedFd> {
    let mut memory = File::from(memfd_create("sealane-map", MemfdFlags::CLOEXEC)?);
    memory.write_all(&state::encode(node, map)?)?;
    memory.rewind()?;
    Ok(memory.into())
}

/// Reads what [`pack`] made.
///
/// # Errors
/// It is no such thing, or larger than [`STATE_FILE_MAX`].
pub fn unpack(packed: OwnedFd) -> io::Result<Remembered> {
    let mut bytes = Vec::new();
    File::from(packed)
        .take(STATE_FILE_MAX)
        .read_to_end(&mut bytes)?;
    state::decode(&bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(name: &str, asked: &str) -> Label {
        Label {
            room: Room::Proxy,
            kind: Kind::Stream,
            asked: asked.parse().unwrap(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn a_label_is_read_as_it_was_written_whatever_the_name() {
        for name in ["web", "two words", "line\nbreak", ""] {
            for asked in ["0.0.0.0:80", "[::1]:0"] {
                let label = label(name, asked);
                assert_eq!(Label::parse(&label.to_string()), Some(label));
            }
        }
        assert_eq!(Label::parse("proxy stream"), None);
        assert_eq!(Label::parse("kitchen stream 0.0.0.0:80 x"), None);
    }

    #[tokio::test]
    async fn sockets_arrive_with_their_labels_and_can_be_used() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (old, end) = Channel::pair().unwrap();
        let new = Channel::over(end).unwrap();
        let mut estate = Estate::default();
        let label = label("web", "127.0.0.1:0");
        estate.add(&label, [OwnedFd::from(listener)]);

        for (text, sockets) in estate.portions() {
            old.send(&text, &sockets).await.unwrap();
        }
        drop((old, estate));

        let message = new.receive().await.unwrap().unwrap();
        let mut inheritance = Inheritance::default();
        for socket in message.descriptors {
            let label = Label::parse(&message.text);
            inheritance.add(label, "", socket).unwrap();
        }
        let taken = inheritance.take_tcp(Room::Proxy, "web", label.asked);
        assert_eq!(taken[0].local_addr().unwrap(), address);
        let client = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(taken[0].accept().unwrap().1, client.local_addr().unwrap());
        assert!(
            new.receive().await.unwrap().is_none(),
            "the other end is closed"
        );
    }

    #[test]
    fn sockets_go_to_those_who_ask_for_their_address_and_the_rest_is_told() {
        let mut inheritance = Inheritance::default();
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (one, two, udp) = (listen(), listen(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (first, second) = (one.local_addr().unwrap(), two.local_addr().unwrap());
        let at_udp = udp.local_addr().unwrap();
        for socket in [OwnedFd::from(one), two.into(), udp.into()] {
            inheritance.add(None, "unit", socket).unwrap();
        }

        assert_eq!(inheritance.take_tcp(Room::Admin, "admin", first).len(), 1);
        assert_eq!(inheritance.take_tcp(Room::Admin, "admin", first).len(), 0);
        assert_eq!(
            inheritance.take_tcp(Room::Dns, "dns", at_udp).len(),
            0,
            "it is UDP"
        );
        assert_eq!(inheritance.take_udp(Room::Dns, "dns", at_udp).len(), 1);

        assert_eq!(inheritance.close_rest(), [("unit".to_owned(), second)]);
        assert!(inheritance.is_empty());
    }

    #[test]
    fn what_is_no_listening_socket_is_useless() {
        let mut inheritance = Inheritance::default();
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let bound = socket2::Socket::new(socket2::Domain::IPV4, Type::STREAM, None).unwrap();
        bound
            .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
            .unwrap();

        assert_eq!(
            inheritance.add(None, "", unix.into()),
            Err(Useless::Address)
        );
        assert_eq!(inheritance.add(None, "", bound.into()), Err(Useless::Kind));
    }

    #[test]
    fn a_map_survives_the_way() {
        let map = Remembered::default();
        let unpacked = unpack(pack("edge-1", &map).unwrap()).unwrap();
        assert!(unpacked.overrides.is_empty() && unpacked.endpoints.is_empty());
    }
}
