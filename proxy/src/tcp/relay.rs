//! Copies a session's bytes both ways until both have ended, one broke, or its time is up.
//!
//! One poll moves both directions. Small pieces are read and written through one buffer that all of
//! a worker's sessions share; what fills it goes through a pipe (see [`super::splice`]). A session
//! in which nothing moves holds neither. Knows no endpoint and no rule.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::splice::{Pipe, Pipes};
use crate::alarm::Alarm;
use crate::clock;
use crate::pace::Pace;

/// Bytes read at once while copying, and so what a session whose receiver is slow holds a
/// direction: fewer than 16 KiB cost less to copy than to splice.
const COPY_BYTES: usize = 16 * 1024;
/// What a splice takes at first, and at least, from a sender whose receiver is slow. Doubled with
/// each that passes whole.
const SPLICE_BYTES_MIN: usize = 64 * 1024;
/// Bytes that one direction moves before the other one, and other sessions, have their turn.
const TURN_BYTES: usize = 1024 * 1024;

/// What all sessions of one worker move their bytes with.
pub(crate) struct Kit {
    pipes: Pipes,
    /// Borrowed within one poll only.
    buffer: RefCell<Box<[u8]>>,
}

impl Default for Kit {
    fn default() -> Self {
        Self {
            pipes: Pipes::default(),
            buffer: RefCell::new(vec![0; COPY_BYTES].into_boxed_slice()),
        }
    }
}

/// Bytes that went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) from_client: u64,
    pub(crate) from_endpoint: u64,
}

impl Moved {
    pub(crate) const fn total(self) -> u64 {
        self.from_client.wrapping_add(self.from_endpoint)
    }
}

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Both sides ended their direction.
    Finished,
    /// That side's connection broke.
    ClientBroke,
    EndpointBroke,
    Idle,
    Lifetime,
    /// `stop` resolved.
    Stopped,
}

/// When to give a session up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Without a byte either way.
    pub(crate) idle: Duration,
    /// Whatever moves.
    pub(crate) until: Option<Instant>,
}

/// Runs until the session is over. `moved` is true at any time, also when this is dropped;
/// `progress` is told of it after each step that moved something.
pub(crate) async fn run(
    client: &mut TcpStream,
    endpoint: &mut TcpStream,
    kit: &Kit,
    patience: Patience,
    stop: impl Future<Output = ()>,
    moved: &mut Moved,
    mut progress: impl FnMut(Moved, Instant),
) -> Ended {
    let mut stop = std::pin::pin!(stop);
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let mut moved_at = clock::now();
    let due = |moved_at: Instant| {
        let idle = moved_at + patience.idle;
        patience.until.map_or(idle, |until| until.min(idle))
    };
    let mut alarm = Alarm::default();
    let mut pace = Pace::default();
    poll_fn(|cx| {
        if stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ended::Stopped);
        }
        let before = moved.total();
        ready!(pace.poll(cx, before));
        let upward = up.poll(cx, client, endpoint, kit, &mut moved.from_client);
        let downward = down.poll(cx, endpoint, client, kit, &mut moved.from_endpoint);
        if moved.total() != before {
            moved_at = clock::now();
            progress(*moved, moved_at);
        }
        match (upward, downward) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ended::Finished),
            (Poll::Ready(Err(Broken::From)), _) | (_, Poll::Ready(Err(Broken::To))) => {
                return Poll::Ready(Ended::ClientBroke);
            }
            (Poll::Ready(Err(Broken::To)), _) | (_, Poll::Ready(Err(Broken::From))) => {
                return Poll::Ready(Ended::EndpointBroke);
            }
            _ => {}
        }
        let due = due(moved_at);
        ready!(alarm.poll_due(cx, due));
        let is_old = patience.until.is_some_and(|until| due >= until);
        Poll::Ready(if is_old { Ended::Lifetime } else { Ended::Idle })
    })
    .await
}

/// Which side of a direction broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    From,
    To,
}

/// One of a session's two directions.
struct Direction {
    held: Held,
    /// The last read filled the buffer: splice.
    bulk: bool,
    /// What the next splice takes.
    splice_bytes: usize,
    /// Something was spliced since the sender had nothing more.
    spliced: bool,
    /// The sender has ended.
    ended: bool,
    /// And its end was passed on.
    over: bool,
}

/// Taken from the sender, not yet by the receiver.
enum Held {
    Nothing,
    /// Those from `at` on.
    Bytes {
        bytes: Box<[u8]>,
        at: usize,
    },
    Piped {
        pipe: Pipe,
        left: usize,
    },
}

impl Default for Direction {
    fn default() -> Self {
        Self {
            held: Held::Nothing,
            bulk: false,
            splice_bytes: SPLICE_BYTES_MIN,
            spliced: false,
            ended: false,
            over: false,
        }
    }
}

impl Direction {
    /// Ready when this direction is over: its end was passed on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        kit: &Kit,
        moved: &mut u64,
    ) -> Poll<Result<(), Broken>> {
        let mut turn = 0;
        while turn < TURN_BYTES {
            if self.over {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_hand_on(cx, to, kit)).map_err(|_| Broken::To)?;
            if self.ended {
                end(to).map_err(|_| Broken::To)?;
                self.over = true;
                continue;
            }
            let taken = match self.pipe_for_bulk(kit) {
                Some(pipe) => ready!(self.poll_splice(cx, from, pipe, kit)),
                None => ready!(self.poll_copy(cx, from, to, kit)),
            }?;
            self.ended = taken == 0;
            *moved += taken as u64;
            turn += taken;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn pipe_for_bulk(&self, kit: &Kit) -> Option<Pipe> {
        self.bulk.then(|| kit.pipes.borrow()).flatten()
    }

    /// Ready when nothing is held.
    fn poll_hand_on(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut TcpStream,
        kit: &Kit,
    ) -> Poll<io::Result<()>> {
        match &mut self.held {
            Held::Nothing => return Poll::Ready(Ok(())),
            Held::Bytes { bytes, at } => {
                while *at < bytes.len() {
                    match ready!(Pin::new(&mut *to).poll_write(cx, &bytes[*at..]))? {
                        0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        written => *at += written,
                    }
                }
            }
            Held::Piped { pipe, left } => {
                while *left > 0 {
                    ready!(to.poll_write_ready(cx))?;
                    match pipe.drain(to, *left) {
                        Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        Ok(drained) => *left -= drained,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            // Seldom worth more than the receiver took now.
                            self.splice_bytes = (self.splice_bytes / 2).max(SPLICE_BYTES_MIN);
                        }
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
            }
        }
        if let Held::Piped { pipe, .. } = std::mem::replace(&mut self.held, Held::Nothing) {
            kit.pipes.give_back(pipe);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes what the receiver takes at once; the rest is held. 0: the sender
    /// ended.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        kit: &Kit,
    ) -> Poll<Result<usize, Broken>> {
        let mut buffer = kit.buffer.borrow_mut();
        let mut read = ReadBuf::new(&mut buffer);
        ready!(Pin::new(from).poll_read(cx, &mut read)).map_err(|_| Broken::From)?;
        let bytes = read.filled();
        self.bulk = bytes.len() == COPY_BYTES;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let written = match Pin::new(to).poll_write(cx, bytes) {
            Poll::Ready(written) => written.map_err(|_| Broken::To)?,
            Poll::Pending => 0,
        };
        if written < bytes.len() {
            self.held = Held::Bytes {
                bytes: bytes[written..].into(),
                at: 0,
            };
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// Takes once into the pipe, which is held until the receiver has it all. 0: the sender ended.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        pipe: Pipe,
        kit: &Kit,
    ) -> Poll<Result<usize, Broken>> {
        let most = self.splice_bytes.min(pipe.capacity());
        let taken = loop {
            match from.poll_read_ready(cx) {
                Poll::Pending => {
                    kit.pipes.give_back(pipe);
                    return Poll::Pending;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::From)),
                Poll::Ready(Ok(())) => {}
            }
            match pipe.fill(from, most) {
                Ok(taken) => break taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Called for nothing: urgent data stands in the way, which only a read passes.
                    self.bulk = std::mem::take(&mut self.spliced);
                }
                Err(_) => return Poll::Ready(Err(Broken::From)),
            }
        };
        if taken == 0 {
            kit.pipes.give_back(pipe);
            return Poll::Ready(Ok(0));
        }
        if taken == most {
            self.splice_bytes = (self.splice_bytes * 2).min(pipe.capacity());
        }
        self.bulk = taken >= COPY_BYTES;
        self.spliced = true;
        self.held = Held::Piped { pipe, left: taken };
        Poll::Ready(Ok(taken))
    }
}

/// Passes on that the other side has ended.
fn end(to: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(to).shutdown(std::net::Shutdown::Write)
}
