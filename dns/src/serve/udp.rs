//! UDP: one thread and one socket for each worker and address, datagrams in batches.
//!
//! A thread waits in `recvmmsg`, answers the whole batch with one world and one set of rules, and
//! hands the answers to `sendmmsg`. What it keeps between datagrams ([`Memory`]) changes no answer.

#![expect(
    unsafe_code,
    reason = "recvmmsg and sendmmsg have no safe form; one call for many datagrams takes half the time of a call for each"
)]

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tracing::{debug, error};

use super::clock::{calendar, calendar_seconds, steady_micros};
use super::{Shared, Stop};
use crate::cookie::Proof;
use crate::engine::{
    Answered, Memory, Transport, UDP_SIZE_MAX, answer_cut_short, answer_short, answer_with,
};
use crate::limit::{Limiter, Verdict};
use crate::metrics::{Metrics, Tally};
use crate::tap::Glimpse;

/// Datagrams received and sent by one call. More wait in the kernel. With 64, clients fall asleep between two
/// batches, and waking them costs more than the calls that are saved.
pub(crate) const BATCH: usize = 32;
/// How long a thread waits for a datagram before it looks whether it is asked to stop.
pub(crate) const RECEIVE_WAIT: Duration = Duration::from_millis(200);
/// How long a thread waits for the kernel to take answers; then they are dropped and counted.
pub(crate) const SEND_WAIT: Duration = Duration::from_millis(200);
/// Batches answered at most once a thread was asked to stop: more than the largest receive buffer
/// holds, so what still comes in then came after the stop.
const LAST_BATCHES_MAX: usize = 256;
/// Rest after an error that is not the network's, so that a lasting one does not burn a core.
const ERROR_REST: Duration = Duration::from_millis(50);
/// The longest message that is read; of longer ones only the beginning, and they are refused. A
/// question takes 271 octets at most, and options some more.
const MESSAGE_MAX: usize = 2_048;
/// Room for one control message: where a datagram was sent to.
const CONTROL_MAX: usize = 64;

/// Has the system tell for each datagram to which address it was sent, so that answers come from
/// there (RFC 1035 §4.2.1 leaves it open; resolvers drop answers from elsewhere: RFC 5452 §9.1).
pub(super) fn ask_for_destination(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    let (level, option) = match address {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int, and `on` outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Answers until asked to stop, and then what still waits in the socket.
pub(crate) fn run(socket: &UdpSocket, shared: &Shared, stop: &Stop) {
    let metrics = Metrics::new(Transport::Udp);
    let mut rules = arc_swap::Cache::new(Arc::clone(&shared.rules));
    let mut world = arc_swap::Cache::new(Arc::clone(shared.world.cell()));
    let mut memory = Memory::new(rules.load(), world.load());
    let mut limits = Limits::default();
    let mut tally = Tally::default();
    let mut batch = Batch::new();
    let fd = socket.as_raw_fd();
    let mut last_batches = 0;
    while last_batches < LAST_BATCHES_MAX {
        // Seen before receiving: what came before the stop is answered after it.
        let stopping = stop.is_asked();
        last_batches += usize::from(stopping);
        let received = match batch.receive(fd, stopping) {
            Ok(received) => received,
            Err(error) if is_silence(&error) && stopping => return,
            Err(error) if is_silence(&error) => 0,
            Err(error) => {
                metrics.receive_errors.increment(1);
                error!(%error, "could not receive DNS questions");
                std::thread::sleep(ERROR_REST);
                0
            }
        };
        // Loaded after an idle turn as well, so that an old world is not kept alive.
        memory.follow(rules.load(), world.load());
        memory.set_time(calendar_seconds());
        if received > 0 {
            limits.follow(&memory, steady_micros());
            batch.answer(received, &mut memory, &mut limits, &mut tally);
            let unsent = batch.send(fd, received);
            metrics.send_errors.increment(unsent);
            tally.flush(&metrics, &memory.rules, &memory.world().topology);
        }
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// One datagram's control message, aligned as the kernel wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_MAX]);

/// Buffers for [`BATCH`] datagrams and their answers, made once for each thread. The answer to
/// datagram `i` stands in place `i`; its length is 0 when there is none.
///
/// The headers for the system are made once, too: where few datagrams come at a time, making all of them for
/// each call costs more than the answers. They point into the other vectors, which never grow.
struct Batch {
    messages: Vec<[u8; MESSAGE_MAX]>,
    answers: Vec<[u8; UDP_SIZE_MAX]>,
    sources: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    received: Vec<Received>,
    /// For receiving: one for each place.
    headers: Vec<libc::mmsghdr>,
    _vectors: Vec<libc::iovec>,
    /// Those in front that the last call used.
    used: usize,
    /// For sending: those in front, one for each answer.
    outgoing: Vec<libc::mmsghdr>,
    outgoing_vectors: Vec<libc::iovec>,
}

#[derive(Clone, Copy, Default)]
struct Received {
    length: usize,
    cut_short: bool,
    source_length: libc::socklen_t,
    control_length: usize,
    /// For as long as it is judged.
    answered: Option<Answered>,
    answer_length: usize,
}

impl Batch {
    fn new() -> Self {
        // SAFETY: all-zero octets are a valid `sockaddr_storage` (of no family).
        let nowhere: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let mut messages = vec![[0; MESSAGE_MAX]; BATCH];
        let mut sources = vec![nowhere; BATCH];
        let mut controls = vec![Control([0; CONTROL_MAX]); BATCH];
        let vector = |message: &mut [u8; MESSAGE_MAX]| libc::iovec {
            iov_base: message.as_mut_ptr().cast(),
            iov_len: MESSAGE_MAX,
        };
        let mut vectors: Vec<_> = messages.iter_mut().map(vector).collect();
        let places = vectors.iter_mut().zip(&mut sources).zip(&mut controls);
        let headers = places.map(|((vector, source), control)| {
            let mut header = empty_header();
            header.msg_hdr.msg_name = ptr::from_mut(source).cast();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header
        });
        let headers = headers.collect();
        Self {
            messages,
            answers: vec![[0; UDP_SIZE_MAX]; BATCH],
            sources,
            controls,
            received: vec![Received::default(); BATCH],
            headers,
            _vectors: vectors,
            used: BATCH,
            outgoing: vec![empty_header(); BATCH],
            outgoing_vectors: vec![NOTHING; BATCH],
        }
    }

    /// Waits for a datagram (not when `only_waiting`) and takes with it what else is there.
    fn receive(&mut self, fd: RawFd, only_waiting: bool) -> io::Result<usize> {
        for header in &mut self.headers[..self.used] {
            header.msg_hdr.msg_namelen = SOURCE_MAX;
            header.msg_hdr.msg_controllen = CONTROL_MAX;
        }
        self.used = BATCH; // should the call fail half way
        let flags = if only_waiting {
            libc::MSG_DONTWAIT
        } else {
            libc::MSG_WAITFORONE
        };
        // SAFETY: `headers` has BATCH entries; each points to a name, a vector and a control buffer
        // of the lengths given. These live in vectors of this value that are neither moved out of it nor
        // resized, and nothing else uses them during the call.
        let count = unsafe {
            libc::recvmmsg(
                fd,
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                flags,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        self.used = count;
        for (received, header) in self.received.iter_mut().zip(&self.headers[..count]) {
            *received = Received {
                length: (header.msg_len as usize).min(MESSAGE_MAX),
                cut_short: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
                source_length: header.msg_hdr.msg_namelen.min(SOURCE_MAX),
                control_length: header.msg_hdr.msg_controllen.min(CONTROL_MAX),
                answered: None,
                answer_length: 0,
            };
        }
        Ok(count)
    }

    fn answer(
        &mut self,
        count: usize,
        memory: &mut Memory,
        limits: &mut Limits,
        tally: &mut Tally,
    ) {
        for i in 0..count {
            let received = &mut self.received[i];
            let message = &self.messages[i][..received.length];
            let out = &mut self.answers[i][..];
            received.answered =
                answer_one(message, received.cut_short, &self.sources[i], memory, out);
        }
        // By themselves: most of a verdict is waiting for memory, for one while the next one is already asked for.
        for i in 0..count {
            let received = &mut self.received[i];
            let message = &self.messages[i][..received.length];
            let out = &mut self.answers[i][..];
            let source = &self.sources[i];
            let answered = received.answered.take();
            let limited = match &answered {
                Some(answered) if limits.limiter.is_some() => {
                    limits.judge(answered, source, memory)
                }
                _ => Verdict::Send,
            };
            received.answer_length = match limited {
                Verdict::Send => {
                    tally.record(answered.as_ref());
                    answered.map_or(0, |answered| answered.length)
                }
                Verdict::Slip => {
                    let short = shorten(message, source, memory, out);
                    tally.limited(short.as_ref());
                    short.map_or(0, |short| short.length)
                }
                Verdict::Drop => {
                    tally.limited(None);
                    0
                }
            };
            if let Some(taps) = &memory.rules.taps
                && let Some(client) = address(source)
            {
                taps.see(&Glimpse {
                    client,
                    transport: Transport::Udp,
                    message,
                    answered,
                    verdict: limited,
                    reply: &out[..received.answer_length],
                    at: calendar(),
                });
            }
        }
    }

    /// Sends the answers to the first `received` datagrams. How many would the kernel not take?
    fn send(&mut self, fd: RawFd, received: usize) -> u64 {
        let mut count = 0;
        for (i, received) in self.received[..received].iter().enumerate() {
            if received.answer_length == 0 {
                continue;
            }
            let vector = &mut self.outgoing_vectors[count];
            *vector = libc::iovec {
                iov_base: self.answers[i].as_mut_ptr().cast(),
                iov_len: received.answer_length,
            };
            let header = &mut self.outgoing[count].msg_hdr;
            header.msg_name = ptr::from_mut(&mut self.sources[i]).cast();
            header.msg_namelen = received.source_length;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            let control = &mut self.controls[i];
            let control_length = answer_from(control, received.control_length);
            header.msg_control = match control_length {
                0 => ptr::null_mut(),
                _ => control.0.as_mut_ptr().cast(),
            };
            header.msg_controllen = control_length;
            count += 1;
        }
        send_all(fd, &mut self.outgoing[..count])
    }
}

const SOURCE_MAX: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;

const fn empty_header() -> libc::mmsghdr {
    // SAFETY: null pointers with zero lengths are a valid header of an empty message.
    unsafe { mem::zeroed() }
}

const NOTHING: libc::iovec = libc::iovec {
    iov_base: ptr::null_mut(),
    iov_len: 0,
};

fn send_all(fd: RawFd, headers: &mut [libc::mmsghdr]) -> u64 {
    let mut unsent = 0;
    let mut next = 0;
    while next < headers.len() {
        let left = &mut headers[next..];
        // SAFETY: `left` holds as many headers as is said, and what they point to is alive: the
        // callers' vectors, names, controls and answers.
        let sent = unsafe { libc::sendmmsg(fd, left.as_mut_ptr(), left.len() as libc::c_uint, 0) };
        match usize::try_from(sent) {
            Ok(sent) if sent > 0 => next += sent,
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                // The first one left is at fault (its client is unreachable, say): the others go on.
                debug!(%error, "could not send a DNS answer");
                unsent += 1;
                next += 1;
            }
        }
    }
    unsent
}

fn answer_one(
    message: &[u8],
    cut_short: bool,
    source: &libc::sockaddr_storage,
    memory: &mut Memory,
    out: &mut [u8],
) -> Option<Answered> {
    let source = address(source)?;
    if source.port() == 0 {
        return None;
    }
    if cut_short {
        return answer_cut_short(message, out);
    }
    if let Some(answered) = super::transfer::answer_datagram(&memory.rules, message, source, out) {
        return Some(answered);
    }
    answer_with(memory, message, source.ip(), Transport::Udp, out)
}

/// How many answers networks get from this thread.
#[derive(Default)]
struct Limits {
    /// While the operator limits them.
    limiter: Option<Limiter>,
    /// In microseconds.
    now: u64,
}

impl Limits {
    fn follow(&mut self, memory: &Memory, now: u64) {
        self.now = now;
        match (memory.rates(), &mut self.limiter) {
            (Some(rates), None) => {
                let seed = RandomState::new().hash_one(now);
                self.limiter = Some(Limiter::new(seed, rates));
            }
            (Some(rates), Some(limiter)) => limiter.follow(rates),
            (None, limiter) => *limiter = None,
        }
    }

    fn judge(
        &mut self,
        answered: &Answered,
        source: &libc::sockaddr_storage,
        memory: &Memory,
    ) -> Verdict {
        let to = address(source).filter(|_| answered.proof != Proof::Proven);
        match (&mut self.limiter, memory.rates(), to) {
            (Some(limiter), Some(rates), Some(to)) => {
                limiter.judge(rates, self.now, to.ip(), answered.said)
            }
            _ => Verdict::Send,
        }
    }
}

fn shorten(
    message: &[u8],
    source: &libc::sockaddr_storage,
    memory: &Memory,
    out: &mut [u8],
) -> Option<Answered> {
    let client = memory.client(address(source)?.ip(), Transport::Udp);
    answer_short(client, message, out)
}

fn address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel wrote a `sockaddr_in` for this family; the storage is large enough
            // and aligned for it.
            let v4 = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for `sockaddr_in6`.
            let v6 = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}

/// Turns the note on where a datagram was sent to into the order to answer from there. How long is
/// it? 0 when there is none: the socket is bound to one address.
fn answer_from(control: &mut Control, length: usize) -> usize {
    const HEAD: usize = size_of::<libc::cmsghdr>();
    if length < HEAD {
        return 0;
    }
    // SAFETY: `control` is aligned for a `cmsghdr` and longer than one.
    let head = unsafe { ptr::read(control.0.as_ptr().cast::<libc::cmsghdr>()) };
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute with their argument.
    let data_at = unsafe { libc::CMSG_LEN(0) } as usize;
    match (head.cmsg_level, head.cmsg_type) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            type Info = libc::in_pktinfo;
            if length < data_at + size_of::<Info>() {
                return 0;
            }
            let place = control.0[data_at..].as_mut_ptr().cast::<Info>();
            // SAFETY: the kernel wrote an `in_pktinfo` there, within `length`; read and written
            // unaligned.
            unsafe {
                let mut info = ptr::read_unaligned(place);
                // The route decides on the interface; the address is that of the question.
                info.ipi_spec_dst = info.ipi_addr;
                info.ipi_ifindex = 0;
                ptr::write_unaligned(place, info);
                libc::CMSG_SPACE(size_of::<Info>() as libc::c_uint) as usize
            }
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            type Info = libc::in6_pktinfo;
            if length < data_at + size_of::<Info>() {
                return 0;
            }
            let place = control.0[data_at..].as_mut_ptr().cast::<Info>();
            // SAFETY: the kernel wrote an `in6_pktinfo` there, within `length`; read and written
            // unaligned.
            unsafe {
                let mut info = ptr::read_unaligned(place);
                let octets = info.ipi6_addr.s6_addr;
                // A link-local address means nothing without its interface.
                let link_local = octets[0] == 0xfe && octets[1] & 0xc0 == 0x80;
                if !link_local {
                    info.ipi6_ifindex = 0;
                }
                ptr::write_unaligned(place, info);
                libc::CMSG_SPACE(size_of::<Info>() as libc::c_uint) as usize
            }
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use arc_swap::ArcSwap;
    use sealane_model::Snapshot;
    use sealane_model::publish::snapshot_channel;
    use sealane_steering::GeoTable;

    use super::super::bind::{Sockets, bind};
    use super::super::door::Seats;
    use super::*;
    use crate::config::Config;
    use crate::engine::Rules;

    #[test]
    fn what_waits_when_the_stop_comes_is_still_answered() {
        let config = Config::new(Vec::new(), Arc::new(GeoTable::empty()));
        let (_writer, world) = snapshot_channel(Snapshot::default());
        let shared = Shared {
            world,
            rules: Arc::new(ArcSwap::from_pointee(Rules::compile(&config))),
            seats: Seats::default(),
            encrypted: ArcSwap::from_pointee(Vec::new()),
            book: Arc::default(),
        };
        let bound = bind(
            "127.0.0.1:0".parse().unwrap(),
            NonZeroUsize::MIN,
            false,
            Sockets::default(),
        )
        .unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(bound.address).unwrap();
        client.set_nonblocking(true).unwrap();
        let question = b"\0\x01\0\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
        for _ in 0..BATCH + 1 {
            client.send(question).unwrap();
        }
        let stop = Stop::default();
        stop.ask();

        run(&bound.sockets.udp[0], &shared, &stop);

        let mut reply = [0; 512];
        let answers = (0..).take_while(|_| client.recv(&mut reply).is_ok());
        assert_eq!((answers.count(), reply[3]), (BATCH + 1, 5));
    }
}
