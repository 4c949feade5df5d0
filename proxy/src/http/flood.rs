//! Counts the frames of a client's HTTP/2 connection as they arrive, and says when they are a flood:
//! more of what costs us work and asks for nothing than any lawful use brings. `http::h2` reads
//! through a [`Counted`] and ends a flooding connection. Decides nothing about requests, and judges
//! no frame: whether it is lawful is the codec's to say.
//!
//! What answers carry pays for what a client must send because of them: window updates, pings that
//! measure the line, priorities. So a busy connection may send many such frames, and an idle one
//! few. The clock is asked only when the allowance is used up.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::clock;
use crate::io::Conn;

/// Before the first frame (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// RFC 9113 §4.1.
const FRAME_HEAD: usize = 9;
/// Bytes that go either way in requests and answers pay for one control frame.
const BYTES_FOR_A_FRAME: u64 = 64;
/// Streams that a client resets: so many at once, and in a second, on top of half of those that it
/// opens. Clients that give up what they asked for do so; CVE-2023-44487 resets each.
const RESETS: u64 = 500;
const RESETS_PER_SECOND: u64 = 50;
/// Heads that did not become an exchange (too large, malformed, beyond the streams or the bytes of
/// heads under way) may outnumber those that did by so many.
const REFUSED_HEADS: u64 = 256;

/// Bytes that are read at once from a client whose last read brought heads, and from one that has just begun.
/// An octet may stand for 4 KiB of a head (RFC 7541): what one read brings is taken apart whole before others
/// have their turn.
const READ_AMONG_HEADS: usize = 2 * 1024;

/// What a client floods us with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    /// PING, SETTINGS, PRIORITY, WINDOW_UPDATE, unknown and empty frames.
    ControlFrames,
    Resets,
    RefusedHeads,
}

impl Flood {
    /// The word in metrics and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ControlFrames => "control_frames",
            Self::Resets => "resets",
            Self::RefusedHeads => "refused_heads",
        }
    }
}

/// What is left to a client. Full at first; refilled by time, up to full, when it is used up.
#[derive(Debug)]
struct Allowance {
    left: u64,
    full: u64,
    per_second: u64,
    refilled: Instant,
}

impl Allowance {
    const fn new(full: u64, per_second: u64, now: Instant) -> Self {
        Self {
            left: full,
            full,
            per_second,
            refilled: now,
        }
    }

    fn earn(&mut self, amount: u64) {
        self.left = (self.left + amount).min(self.full);
    }

    /// `false`: there is not so much left.
    fn spend(&mut self, amount: u64, now: impl FnOnce() -> Instant) -> bool {
        if self.left < amount {
            self.refill(now());
        }
        let enough = self.left >= amount;
        self.left = self.left.saturating_sub(amount);
        enough
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled);
        let micros = passed.min(Duration::from_secs(3_600)).as_micros();
        let earned = micros * u128::from(self.per_second) / 1_000_000;
        if earned > 0 {
            self.refilled = now;
            self.earn(u64::try_from(earned).unwrap_or(u64::MAX / 2));
        }
    }
}

/// The frames of one connection so far.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Bytes of the preface or of a payload that are still to pass.
    passing: usize,
    /// The head of the frame that is arriving.
    head: [u8; FRAME_HEAD],
    have: usize,
    /// In bytes: a frame costs [`BYTES_FOR_A_FRAME`].
    control: Allowance,
    /// In halves of a stream.
    resets: Allowance,
    /// The last stream that was opened, and how many were.
    newest: u32,
    opened: u64,
    accepted: u64,
    found: Option<Flood>,
}

impl Frames {
    /// `control`: frames in a second.
    pub(crate) fn new(control: u32, now: Instant) -> Self {
        let control = u64::from(control) * BYTES_FOR_A_FRAME;
        Self {
            passing: PREFACE,
            head: [0; FRAME_HEAD],
            have: 0,
            control: Allowance::new(control, control, now),
            resets: Allowance::new(2 * RESETS, 2 * RESETS_PER_SECOND, now),
            newest: 0,
            opened: 0,
            accepted: 0,
            found: None,
        }
    }

    /// Takes the next bytes that the client has sent.
    fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) {
        loop {
            let passing = self.passing.min(bytes.len());
            self.passing -= passing;
            bytes = &bytes[passing..];
            if bytes.is_empty() {
                return;
            }
            let more = (FRAME_HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + more].copy_from_slice(&bytes[..more]);
            self.have += more;
            bytes = &bytes[more..];
            if self.have == FRAME_HEAD {
                self.have = 0;
                self.frame(&now);
            }
        }
    }

    fn frame(&mut self, now: &impl Fn() -> Instant) {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.head;
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        self.passing = length as usize;
        const END: u8 = 1;
        match kind {
            // DATA. One that ends its stream may be empty.
            0 if length > 0 => self.control.earn(u64::from(length)),
            0 if flags & END != 0 => {}
            // HEADERS: of a request, or its trailers.
            1 => {
                self.control.earn(u64::from(length));
                if stream > self.newest {
                    self.newest = stream;
                    self.opened += 1;
                    self.resets.earn(1);
                }
            }
            // RST_STREAM
            3 if !self.resets.spend(2, now) => self.found = Some(Flood::Resets),
            3 => {}
            // CONTINUATION: how many may follow each other is bounded by the codec.
            9 if length > 0 => {}
            _ if !self.control.spend(BYTES_FOR_A_FRAME, now) => {
                self.found = Some(Flood::ControlFrames);
            }
            _ => {}
        }
    }

    /// So many bytes went to the client.
    fn written(&mut self, bytes: usize) {
        self.control.earn(bytes as u64);
    }

    /// A head became an exchange.
    pub(crate) fn accept(&mut self) {
        self.accepted += 1;
    }

    /// To be asked when every head that arrived was looked at.
    pub(crate) fn flood(&self) -> Option<Flood> {
        let refused = self.opened - self.accepted.min(self.opened);
        let too_many = refused > self.accepted + REFUSED_HEADS;
        self.found
            .or_else(|| too_many.then_some(Flood::RefusedHeads))
    }
}

/// A connection whose frames are counted. Once they are a flood nothing more is read: its driver
/// asks [`Frames::flood`] after each poll and ends it.
pub(crate) struct Counted {
    conn: Conn,
    frames: Rc<RefCell<Frames>>,
}

impl Counted {
    pub(crate) fn new(conn: Conn, control: u32) -> (Self, Rc<RefCell<Frames>>) {
        let frames = Rc::new(RefCell::new(Frames::new(control, clock::now())));
        conn.read_at_most(READ_AMONG_HEADS);
        let counted = Self {
            conn,
            frames: Rc::clone(&frames),
        };
        (counted, frames)
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.frames.borrow().found.is_some() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.conn).poll_read(cx, buf))?;
        let arrived = &buf.filled()[before..];
        let brought_heads = {
            let mut frames = self.frames.borrow_mut();
            let before = frames.opened;
            frames.read(arrived, clock::now);
            frames.opened > before
        };
        let was_full = arrived.len() >= READ_AMONG_HEADS;
        match (brought_heads, was_full) {
            (true, true) => {
                self.conn.read_at_most(READ_AMONG_HEADS);
                self.conn.end_turn();
            }
            (true, false) => self.conn.read_at_most(READ_AMONG_HEADS),
            (false, true) => self.conn.read_at_most(usize::MAX),
            (false, false) => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.conn).poll_write(cx, data))?;
        self.frames.borrow_mut().written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.conn).poll_write_vectored(cx, slices))?;
        self.frames.borrow_mut().written(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.conn.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
