//! The transport under every lane: TCP or TLS, with three ways to write. Knows no HTTP.
//!
//! A [`Wire`] is shared between a codec (which owns a [`Conn`] of it) and whoever drives the
//! exchange, so that the driver can ask whether more may be sent, flush, or see the peer leave,
//! while the codec holds the stream. All of it stays on one thread.

pub(crate) mod outbox;

use std::cell::{RefCell, RefMut};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::http::fields::ADDED;

/// Bytes waiting to be written above which [`Wire::poll_ready`] waits: what one relay may hold a
/// direction besides the chunk in its hand.
pub(crate) const WRITE_WAITING_MAX: usize = 64 * 1024;
/// Writes at least this large skip the buffer while it is empty: copying would cost more.
const WRITE_DIRECT_MIN: usize = 16 * 1024;
/// In [`Mode::Coalesce`], bytes that are gathered before a write: one full TLS record.
const COALESCE_MAX: usize = 16 * 1024;
/// Room that a head is given, so that a small body fits behind it.
const HEAD_ROOM: usize = 2 * 1024;
/// Bytes read ahead of the codec at most, while looking whether the peer is still there. When
/// full, looking stops: a peer that sends is there.
const AHEAD_MAX: usize = 1024;

/// Bytes that are read at once on their way to somewhere else.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    /// Holds nothing between two calls.
    static SCRATCH_OF_THREAD: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH_OF_THREAD.with_borrow_mut(|scratch| work(scratch))
}

/// Which side of a move broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    From,
    To,
}

/// The bytes below: plain, or inside TLS on either side.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    ServerTls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    ClientTls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

macro_rules! on_stream {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self {
            Transport::Tcp(tcp) => {
                let $stream = Pin::new(tcp);
                $call
            }
            Transport::ServerTls(tls) => {
                let $stream = Pin::new(&mut **tls);
                $call
            }
            Transport::ClientTls(tls) => {
                let $stream = Pin::new(&mut **tls);
                $call
            }
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Self::poll_read(self.get_mut(), cx, buf)
    }
}

impl Transport {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::ServerTls(tls) => tls.get_ref().0,
            Self::ClientTls(tls) => tls.get_ref().0,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_read(cx, buf))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write(cx, data))
    }

    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_shutdown(cx))
    }

    /// Plaintext that TLS has decrypted already: the socket's readiness says nothing about it.
    fn holds_plaintext(&mut self) -> bool {
        use std::io::BufRead;
        match self {
            Self::Tcp(_) => false,
            Self::ServerTls(tls) => match tls.get_mut().1.reader().fill_buf() {
                Ok(_) => true, // bytes, or a clean end: a read returns at once
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            },
            Self::ClientTls(tls) => match tls.get_mut().1.reader().fill_buf() {
                Ok(_) => true,
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            },
        }
    }
}

#[derive(Debug)]
struct Inner {
    transport: Transport,
    /// Written by the codec, not yet by the socket.
    waiting: BytesMut,
    /// Read from the socket, not yet by the codec.
    ahead: BytesMut,
    /// The peer has ended its direction (seen while looking ahead).
    ended: bool,
    /// Bytes that the codec's next read takes at most.
    read_max: usize,
    /// Bytes that the codec may read before others have their turn.
    turn: usize,
    /// Its turn in the [`outbox`] is to come.
    listed: bool,
    /// The socket took not all of what was last written, or none of it ever again.
    blocked: bool,
    /// The buffer is not needed once everything is sent.
    is_last: bool,
}

impl Inner {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let drained = self.poll_write_waiting(cx);
        self.blocked = !matches!(drained, Poll::Ready(Ok(())));
        if self.is_last && !self.blocked {
            self.waiting = BytesMut::new();
        }
        drained
    }

    fn poll_write_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(self.transport.poll_write(cx, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        self.transport.poll_flush(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let taken = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(taken));
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        self.transport.poll_read(cx, buf)
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        if !self.ahead.is_empty() {
            let taken = self.ahead.len().min(most);
            buf.extend_from_slice(&self.ahead.split_to(taken));
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(taken));
        }
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        if most < WRITE_DIRECT_MIN {
            return self.poll_fill_little(cx, buf, most);
        }
        buf.reserve(most);
        let mut room = buf.limit(most);
        tokio_util::io::poll_read_buf(Pin::new(&mut self.transport), cx, &mut room)
    }

    /// By way of the thread's scratch: the buffer grows by what arrived, not by what might have.
    fn poll_fill_little(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        with_scratch(|scratch| {
            let mut read = ReadBuf::new(&mut scratch[..most]);
            ready!(self.transport.poll_read(cx, &mut read))?;
            if buf.capacity() == 0 {
                *buf = BytesMut::with_capacity(read.filled().len() + ADDED);
            }
            buf.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// As [`Inner::poll_read`], within `read_max`.
    fn poll_read_within(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() <= self.read_max {
            return self.poll_read(cx, buf);
        }
        // Initialised before it is lent out: no unsafe for a small memset.
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(self.read_max));
        ready!(self.poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        Poll::Ready(Ok(()))
    }

    /// Takes all of `data`; what the socket does not take now waits. Large writes go out with what
    /// waits in one call and are not copied.
    fn write_behind(&mut self, cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        while rest.len() >= WRITE_DIRECT_MIN {
            let slices = [io::IoSlice::new(&self.waiting), io::IoSlice::new(rest)];
            let written = match self.transport.poll_write_vectored(cx, &slices) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            };
            let of_waiting = written.min(self.waiting.len());
            self.waiting.advance(of_waiting);
            rest = &rest[written - of_waiting..];
        }
        self.waiting.extend_from_slice(rest);
        Ok(())
    }

    /// For what begins to wait: growing step by step would copy it each time.
    fn make_room(&mut self, room: usize) {
        if self.waiting.capacity() == 0 {
            self.waiting = BytesMut::with_capacity(room);
        }
    }

    fn poll_coalesce(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if !self.waiting.is_empty() && self.waiting.len() + data.len() > COALESCE_MAX {
            ready!(self.poll_drain(cx))?;
        }
        self.make_room(COALESCE_MAX);
        self.waiting.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }
}

/// What looking at a silent peer showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It ended its own direction; it may still be reading.
    HalfClosed,
    /// The connection is broken.
    Reset,
}

/// One connection's transport, shared between its codec and its driver.
#[derive(Clone, Debug)]
pub(crate) struct Wire(Rc<RefCell<Inner>>);

impl Wire {
    pub(crate) fn new(transport: Transport) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            transport,
            waiting: BytesMut::new(),
            ahead: BytesMut::new(),
            ended: false,
            read_max: usize::MAX,
            turn: usize::MAX,
            listed: false,
            blocked: false,
            is_last: false,
        })))
    }

    /// Each method borrows for itself alone: nothing that is called meanwhile knows the wire.
    fn inner(&self) -> RefMut<'_, Inner> {
        self.0.borrow_mut()
    }

    /// Whether what waits leaves at the end of this turn: it is little, and the socket took what came
    /// before.
    fn sends_at_turns_end(&self, inner: &mut Inner, cx: &Context<'_>) -> bool {
        let is_little = (1..WRITE_DIRECT_MIN).contains(&inner.waiting.len());
        if inner.blocked || !is_little {
            return false;
        }
        inner.listed = inner.listed || outbox::add(Rc::downgrade(&self.0), cx);
        inner.listed
    }

    /// Drives pending writes; what is little leaves at the end of this turn. Ready when one more chunk may
    /// be written.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        inner.is_last = false;
        if self.sends_at_turns_end(&mut inner, cx) {
            return Poll::Ready(Ok(()));
        }
        match inner.poll_drain(cx) {
            Poll::Pending if inner.waiting.len() < WRITE_WAITING_MAX => Poll::Ready(Ok(())),
            other => other,
        }
    }

    /// Ready when one more chunk may be written, without driving what waits as long as that is
    /// little: head and body leave in one write. Whoever then has nothing more to write calls
    /// [`Wire::poll_ready`].
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.inner().waiting.len() < WRITE_DIRECT_MIN {
            return Poll::Ready(Ok(()));
        }
        self.poll_ready(cx)
    }

    /// Ready when everything is written, or about to be: what is little leaves at the end of this turn,
    /// and if the socket does not take it, whoever waits for the next request has to drive it
    /// ([`Wire::drive`]). Also gives the buffer back.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        inner.is_last = true;
        if self.sends_at_turns_end(&mut inner, cx) {
            return Poll::Ready(Ok(()));
        }
        inner.poll_drain(cx)
    }

    /// Writes what it can now, or what is little at the end of this turn. The driver of a coalescing codec
    /// calls it after each poll of it; errors show at the codec's next write.
    pub(crate) fn push(&self, cx: &mut Context<'_>) {
        let idle = {
            let inner = self.inner();
            inner.waiting.is_empty() && !inner.blocked
        };
        if !idle {
            let _ = self.poll_flush(cx);
        }
    }

    /// Writes what it can now, for a wire that is then let go: nothing of it waits for the turn's end.
    pub(crate) fn push_now(&self, cx: &mut Context<'_>) {
        // If it fails, the peer has left.
        let _ = self.inner().poll_drain(cx);
    }

    /// Goes on with what the socket did not take. Errors show with the next read.
    pub(crate) fn drive(&self, cx: &mut Context<'_>) {
        let blocked = self.inner().blocked;
        if blocked {
            let _ = self.poll_ready(cx);
        }
    }

    /// Bytes the codec has written that are not yet handed to the kernel.
    pub(crate) fn is_flushed(&self) -> bool {
        self.inner().waiting.is_empty()
    }

    /// Bytes that may be written before [`Wire::poll_ready`] waits.
    pub(crate) fn room(&self) -> usize {
        WRITE_WAITING_MAX.saturating_sub(self.inner().waiting.len())
    }

    /// The codec's reads take at most `most` bytes each, at least one.
    pub(crate) fn read_at_most(&self, most: usize) {
        self.inner().read_max = most.max(1);
    }

    /// The codec reads at most `bytes` until this is called again, and is woken to go on: a peer that
    /// sends without pause must not keep its driver busy for ever. No bound until it is called.
    pub(crate) fn begin_turn(&self, bytes: usize) {
        self.inner().turn = bytes;
    }

    /// Ready when a read would return at once. Holds no buffer.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        if !inner.ahead.is_empty() || inner.ended || inner.transport.holds_plaintext() {
            return Poll::Ready(Ok(()));
        }
        inner.transport.tcp().poll_read_ready(cx)
    }

    /// Reads at most `most` bytes behind what `buf` holds. Ready(0) is the end.
    pub(crate) fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_fill(cx, buf, most)
    }

    /// Moves at most `most` bytes of what `from` sends, by way of the thread's scratch: nothing is
    /// allocated but for what the socket does not take. To be called when [`Wire::poll_ready`] says
    /// so. Ready(0) is the end of `from`.
    pub(crate) fn poll_pass(
        &self,
        cx: &mut Context<'_>,
        from: &Self,
        most: usize,
    ) -> Poll<Result<usize, Side>> {
        let mut from = from.inner();
        with_scratch(|scratch| {
            let most = most.min(scratch.len());
            let mut read = ReadBuf::new(&mut scratch[..most]);
            ready!(from.poll_read(cx, &mut read)).map_err(|_| Side::From)?;
            let mut to = self.inner();
            to.write_behind(cx, read.filled()).map_err(|_| Side::To)?;
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// Looks whether the peer has left, while nothing is expected from it. What it sends
    /// meanwhile is kept for the codec, up to [`AHEAD_MAX`] bytes.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<Gone> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        loop {
            if inner.ended {
                return Poll::Ready(Gone::HalfClosed);
            }
            if inner.ahead.len() >= AHEAD_MAX {
                return Poll::Pending;
            }
            let mut space = [0; 256];
            let mut read = ReadBuf::new(&mut space);
            match inner.transport.poll_read(cx, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Gone::Reset),
                Poll::Ready(Ok(())) if read.filled().is_empty() => inner.ended = true,
                Poll::Ready(Ok(())) => inner.ahead.extend_from_slice(read.filled()),
            }
        }
    }

    /// Pending while the peer is there and silent: what an idle connection should be.
    pub(crate) fn poll_silent(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.poll_gone(cx) {
            Poll::Pending if self.inner().ahead.is_empty() => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// Takes all of `data` (see [`Mode::Behind`]): ask [`Wire::poll_ready`] first.
    pub(crate) fn write(&self, cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        self.inner().write_behind(cx, data)
    }

    /// Adds what `write` writes to what waits, without sending it yet.
    pub(crate) fn compose(&self, write: impl FnOnce(&mut BytesMut)) {
        let mut inner = self.inner();
        inner.make_room(HEAD_ROOM);
        write(&mut inner.waiting);
    }

    /// Adds to what waits, without writing yet.
    pub(crate) fn queue(&self, data: &[u8]) {
        self.inner().waiting.extend_from_slice(data);
    }

    /// Writes what waits, then ends this side's direction (for TLS with `close_notify`).
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        ready!(inner.poll_drain(cx))?;
        inner.transport.poll_shutdown(cx)
    }

    /// Puts bytes back in front of what is read next.
    pub(crate) fn unread(&self, bytes: BytesMut) {
        let mut inner = self.inner();
        if inner.ahead.is_empty() {
            inner.ahead = bytes;
        } else {
            let later = std::mem::replace(&mut inner.ahead, bytes);
            inner.ahead.extend_from_slice(&later);
        }
    }

    /// The peer is to see that the connection broke, not that it ended.
    pub(crate) fn reset_on_close(&self) {
        let inner = self.inner();
        let socket = socket2::SockRef::from(inner.transport.tcp());
        // If it fails the peer sees an end: no worse than without.
        let _ = socket.set_linger(Some(std::time::Duration::ZERO));
    }

    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_shutdown(cx)).await
    }

    pub(crate) fn conn(&self, mode: Mode) -> Conn {
        Conn {
            wire: self.clone(),
            mode,
        }
    }
}

/// How a codec's writes reach the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Writes are taken at once and flushes never wait: the driver asks [`Wire::poll_ready`]
    /// before each chunk, so at most [`WRITE_WAITING_MAX`], one chunk and one head wait. Without
    /// it a codec that awaits its own writes stops reading, and two busy directions stall.
    Behind,
    /// Flushes do nothing and small writes gather: the driver calls [`Wire::push`] once for all
    /// frames of a poll.
    Coalesce,
}

/// Wakes the task once every other one that is ready had its turn and the sockets were looked at:
/// waking it at once would put it in front of those who have just been sent something.
pub(crate) fn yield_turn<T>(cx: &mut Context<'_>) -> Poll<T> {
    let yielding = std::pin::pin!(tokio::task::yield_now());
    // Its first poll hands the waker over, and is never ready.
    let _ = yielding.poll(cx);
    Poll::Pending
}

/// A codec's end of a [`Wire`].
#[derive(Debug)]
pub(crate) struct Conn {
    wire: Wire,
    mode: Mode,
}

impl Conn {
    /// As [`Wire::read_at_most`].
    pub(crate) fn read_at_most(&self, most: usize) {
        self.wire.read_at_most(most);
    }

    /// What there is to read waits for the next turn (see [`Wire::begin_turn`]).
    pub(crate) fn end_turn(&self) {
        self.wire.begin_turn(0);
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.wire.inner();
        if !inner.waiting.is_empty()
            && !inner.listed
            && let Poll::Ready(Err(error)) = inner.poll_drain(cx)
            && self.mode == Mode::Coalesce
        {
            return Poll::Ready(Err(error));
        }
        if inner.turn == 0 {
            return yield_turn(cx);
        }
        let before = buf.filled().len();
        ready!(inner.poll_read_within(cx, buf))?;
        inner.turn = inner.turn.saturating_sub(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.wire.inner();
        match self.mode {
            Mode::Behind => Poll::Ready(inner.write_behind(cx, data).map(|()| data.len())),
            Mode::Coalesce => inner.poll_coalesce(cx, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.wire.inner();
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.mode == Mode::Coalesce
            && !inner.waiting.is_empty()
            && inner.waiting.len() + total > COALESCE_MAX
        {
            ready!(inner.poll_drain(cx))?;
        }
        inner.make_room(if self.mode == Mode::Coalesce {
            COALESCE_MAX
        } else {
            total
        });
        for slice in slices {
            inner.waiting.extend_from_slice(slice);
        }
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.mode {
            Mode::Coalesce => Poll::Ready(Ok(())),
            Mode::Behind => match self.wire.inner().poll_drain(cx) {
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending => Poll::Ready(Ok(())),
            },
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_shutdown(cx)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// A connection over loopback: our end and the peer's.
    pub(crate) async fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peer = TcpStream::connect(address).await.unwrap();
        let (ours, _) = listener.accept().await.unwrap();
        (Wire::new(Transport::Tcp(ours)), peer)
    }

    /// Bytes that the codec gets before it has to wait.
    async fn read_in_a_turn(conn: &mut Conn) -> usize {
        let mut space = [0; 4_096];
        let mut total = 0;
        poll_fn(|cx| {
            loop {
                let mut read = ReadBuf::new(&mut space);
                match Pin::new(&mut *conn).poll_read(cx, &mut read) {
                    Poll::Pending => return Poll::Ready(total),
                    Poll::Ready(result) => result.unwrap(),
                }
                total += read.filled().len();
            }
        })
        .await
    }

    #[tokio::test]
    async fn a_peer_that_sends_without_pause_leaves_others_their_turn() {
        let (wire, mut peer) = pair().await;
        peer.write_all(&[0; 40_000]).await.unwrap();
        let mut conn = wire.conn(Mode::Coalesce);
        poll_fn(|cx| wire.poll_readable(cx)).await.unwrap();

        for _ in 0..2 {
            wire.begin_turn(10_000);
            let read = read_in_a_turn(&mut conn).await;
            assert!((10_000..10_000 + 4_096).contains(&read), "{read}");
        }
    }
}
