//! DNS over TCP (RFC 7766) and TLS (RFC 7858): messages with two octets of length before each, answered in their order.
//!
//! A connection holds memory only for what came in part, or could not be sent yet. What is answered is decided in
//! [`crate::engine`].

use std::future::poll_fn;
use std::io;
use std::mem::{self, MaybeUninit};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::clock::steady_micros;
use super::door::{Guest, LAST_WORDS};
use crate::engine::STREAM_SIZE_MAX;

/// Octets of a message's length, before the message.
pub(crate) const LENGTH_LEN: usize = 2;
/// Octets read at once: many questions. More wait in the kernel until these are answered.
const READ_MAX: usize = 4_096;
/// Answers go out together until they are this long, in octets; the questions after that wait until they have left.
/// So a client that takes no answers makes us hold as much and one answer, and what was read at once.
const TOGETHER_MAX: usize = 16 * 1_024;
/// Octets of room for the answers that go out together.
pub(crate) const ROOM_LEN: usize = TOGETHER_MAX + LENGTH_LEN + STREAM_SIZE_MAX;

/// Serves one connection to its end.
pub(crate) async fn run<S>(guest: Guest, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stop = Arc::clone(&guest.stop);
    let mut talk = Talk {
        idle: guest.idle(),
        guest,
        line: Line {
            stream,
            unsent: Vec::new(),
            unflushed: false,
        },
        received: Vec::new(),
        answered_at: steady_micros(),
        is_over: false,
    };
    tokio::select! {
        // First, or a client that never pauses would be served for ever.
        biased;
        () = stop.asked() => {}
        () = talk.go_on() => return,
    }
    let _ = timeout(LAST_WORDS, talk.go_on()).await;
}

struct Talk<S> {
    guest: Guest,
    line: Line<S>,
    idle: Duration,
    /// Questions that wait for their turn, and the beginning of the next one.
    received: Vec<u8>,
    /// By [`steady_micros`]; at first, when the connection began.
    answered_at: u64,
    /// Nothing more will be read.
    is_over: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    /// Answers until the connection is over.
    async fn go_on(&mut self) {
        // Set anew when it ends and not with each message, which costs more than an answer.
        let mut rest = pin!(sleep(self.rest()));
        poll_fn(|cx| {
            if let Poll::Ready(ended) = self.poll(cx) {
                if let Err(error) = ended {
                    debug!(peer = %self.guest.peer, %error, "DNS connection closed");
                }
                return Poll::Ready(());
            }
            while rest.as_mut().poll(cx).is_ready() {
                if self.rest().is_zero() {
                    debug!(peer = %self.guest.peer, "DNS connection closed: idle");
                    return Poll::Ready(());
                }
                rest.set(sleep(self.rest()));
            }
            Poll::Pending
        })
        .await;
    }

    /// How long the client may still ask nothing. The limit runs from message to message, so that octets sent one by
    /// one don't prolong it; it also ends a connection whose client takes no answers.
    fn rest(&self) -> Duration {
        let since = steady_micros().saturating_sub(self.answered_at);
        self.idle.saturating_sub(Duration::from_micros(since))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.line.poll_empty(cx))?;
            if self.is_over {
                return Poll::Ready(Ok(()));
            }
            if first_message(&self.received).is_some() {
                let mut received = mem::take(&mut self.received);
                let taken = self.answer_all(cx, &received)?;
                received.drain(..taken);
                self.received = received;
            } else {
                ready!(self.poll_receive(cx))?;
            }
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [MaybeUninit::uninit(); READ_MAX];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.line.stream).poll_read(cx, &mut room))?;
        let octets = room.filled();
        self.is_over = octets.is_empty();
        // What comes whole, as it mostly does, is answered where it is.
        let taken = if self.received.is_empty() {
            self.answer_all(cx, octets)?
        } else {
            0
        };
        self.received.extend_from_slice(&octets[taken..]);
        if self.received.is_empty() {
            self.received = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Answers the whole messages among `octets`, as far as their answers go out together. How many octets those were.
    fn answer_all(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> io::Result<usize> {
        if first_message(octets).is_none() {
            return Ok(0);
        }
        self.answered_at = steady_micros();
        let (line, is_over) = (&mut self.line, &mut self.is_over);
        self.guest.turn(|turn, room| {
            let (mut taken, mut filled) = (0, 0);
            while filled < TOGETHER_MAX
                && let Some(message) = first_message(&octets[taken..])
            {
                taken += LENGTH_LEN + message.len();
                let begin = filled + LENGTH_LEN;
                let Some(answered) = turn.answer(message, &mut room[begin..][..STREAM_SIZE_MAX])
                else {
                    // Nothing good follows a message that gets no answer.
                    *is_over = true;
                    break;
                };
                let length = u16::try_from(answered.length).map_err(io::Error::other)?;
                room[filled..begin].copy_from_slice(&length.to_be_bytes());
                filled = begin + answered.length;
            }
            line.send(cx, &room[..filled])?;
            Ok(taken)
        })
    }
}

/// The way out.
struct Line<S> {
    stream: S,
    /// What the stream did not take yet. While there is any, nothing is read.
    unsent: Vec<u8>,
    /// An encrypted stream may hold what it took.
    unflushed: bool,
}

impl<S: AsyncWrite + Unpin> Line<S> {
    /// What the stream does not take now is kept.
    fn send(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        while sent < octets.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &octets[sent..])? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(taken) => sent += taken,
                Poll::Pending => break,
            }
        }
        self.unsent.extend_from_slice(&octets[sent..]);
        self.unflushed = true;
        Ok(())
    }

    /// Ready when everything has left.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unsent.is_empty() {
            let unsent = mem::take(&mut self.unsent);
            self.send(cx, &unsent)?;
            if !self.unsent.is_empty() {
                return Poll::Pending;
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// The message that `octets` begin with, if it is whole; its length comes first.
fn first_message(octets: &[u8]) -> Option<&[u8]> {
    let (length, rest) = octets.split_first_chunk::<LENGTH_LEN>()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}
