//! Bytes from one socket to another without passing through this process: splice(2) and its pipes.
//!
//! Used by `tcp::relay` for whatever fills its buffer. Each worker keeps a few pipes; a direction
//! borrows one for as long as bytes lie in it, so that silent sessions hold none. Decides nothing
//! about sessions.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a pipe is asked to hold: the most that Linux gives an unprivileged process by default
/// (`fs.pipe-max-size`), and 0.6 of the processor time that 64 KiB cost.
const PIPE_BYTES: usize = 1024 * 1024;
/// A pipe that holds less is not worth its calls: what the kernel gives a user who has more than
/// `fs.pipe-user-pages-soft` pages in pipes already.
const PIPE_BYTES_MIN: usize = 64 * 1024;
/// Pipes that one worker has at once. A direction that finds none copies instead.
pub(crate) const PIPES_MAX: usize = 64;
/// Unused pipes that one worker keeps; a directions' turn needs one, and gives it back unless the
/// receiver is slow.
pub(crate) const PIPES_KEPT_MAX: usize = 8;
/// Once the kernel gave none, so many directions copy before it is asked again: asking costs four
/// calls.
const ASK_AGAIN_AFTER: u32 = 1_024;

/// One worker's pipes.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    unused: RefCell<Vec<Pipe>>,
    alive: Rc<Cell<usize>>,
    /// Still to be turned away before the kernel is asked again.
    waiting: Cell<u32>,
}

impl Pipes {
    /// An empty pipe; `None` when there are too many, or the kernel gives none that is large
    /// enough.
    pub(crate) fn borrow(&self) -> Option<Pipe> {
        if let Some(pipe) = self.unused.borrow_mut().pop() {
            return Some(pipe);
        }
        if self.alive.get() >= PIPES_MAX {
            return None;
        }
        if self.waiting.get() > 0 {
            self.waiting.set(self.waiting.get() - 1);
            return None;
        }
        let made = Pipe::open(&self.alive);
        if made.is_none() {
            self.waiting.set(ASK_AGAIN_AFTER);
        }
        made
    }

    /// `pipe` must be empty: what is in it would reach another session.
    pub(crate) fn give_back(&self, pipe: Pipe) {
        let mut unused = self.unused.borrow_mut();
        if unused.len() < PIPES_KEPT_MAX {
            unused.push(pipe);
        }
    }
}

/// Counted while it lives. One that is dropped with bytes in it takes them along.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
    alive: Rc<Cell<usize>>,
}

impl Pipe {
    fn open(alive: &Rc<Cell<usize>>) -> Option<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let capacity = fcntl_setpipe_size(&write, PIPE_BYTES)
            .or_else(|_| fcntl_getpipe_size(&write))
            .ok()?;
        if capacity < PIPE_BYTES_MIN {
            return None;
        }
        alive.set(alive.get() + 1);
        Some(Self {
            read,
            write,
            capacity,
            alive: Rc::clone(alive),
        })
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Takes up to `most` bytes from the socket into the pipe, which must be empty: then
    /// `WouldBlock` can only mean the socket. 0 is the end.
    pub(crate) fn fill(&self, from: &TcpStream, most: usize) -> io::Result<usize> {
        from.try_io(Interest::READABLE, || {
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            Ok(splice(from, None, &self.write, None, most, flags)?)
        })
    }

    /// Gives the socket up to `most` of the bytes that are in the pipe: then `WouldBlock` can only
    /// mean the socket.
    pub(crate) fn drain(&self, to: &TcpStream, most: usize) -> io::Result<usize> {
        to.try_io(Interest::WRITABLE, || {
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            Ok(splice(&self.read, None, to, None, most, flags)?)
        })
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_bounded_and_come_back() {
        let pipes = Pipes::default();
        let mut held: Vec<Pipe> = std::iter::from_fn(|| pipes.borrow()).collect();

        assert!(!held.is_empty() && held.len() <= PIPES_MAX);
        assert!(held.iter().all(|pipe| pipe.capacity() >= PIPE_BYTES_MIN));

        pipes.give_back(held.pop().unwrap());
        assert_eq!(pipes.unused.borrow().len(), 1);
        drop(held);
        assert_eq!(pipes.alive.get(), 1, "those dropped are not counted");
    }

    #[test]
    fn few_unused_pipes_are_kept() {
        let pipes = Pipes::default();
        let held: Vec<Pipe> = std::iter::from_fn(|| pipes.borrow())
            .take(PIPES_KEPT_MAX + 2)
            .collect();
        let all = held.len();

        held.into_iter().for_each(|pipe| pipes.give_back(pipe));

        assert_eq!(pipes.unused.borrow().len(), all.min(PIPES_KEPT_MAX));
        assert_eq!(pipes.alive.get(), all.min(PIPES_KEPT_MAX));
    }
}
