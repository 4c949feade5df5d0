//! The threads that write what [`super::Taps`] hand over: one for the query log, one for each dnstap socket.
//!
//! Answers no question. Where nobody takes what is written, it is dropped and counted, and who should take it is
//! called again, less and less often.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::{Counter, counter};
use sealane_model::Ratio;
use tracing::{error, info, warn};

use super::dnstap::{self, Sender};
use super::{Outlet, Seen, Taps, To, WAITING_MAX, log};
use crate::config::{Config, Dnstap};
use crate::serve::Shared;
use crate::serve::clock::steady_micros;

/// How long a writer waits for something to write before it looks around.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Frames are gathered up to this many octets, or until nothing waits.
const GATHERED_MAX: usize = 64 * 1_024;
/// How long who takes frames may take for them, or for its part of a handshake; then it is hung up on.
const PATIENCE: Duration = Duration::from_secs(1);
/// After a failure it is called again after this, then after twice as long, …
const AGAIN_FIRST: Duration = Duration::from_millis(100);
/// … up to this.
const AGAIN_MOST: Duration = Duration::from_secs(10);

/// Who writes what.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    /// A lock because rules are replaced through `&self`; no thread that answers takes it.
    lines: Mutex<Vec<Line>>,
}

#[derive(Debug)]
struct Line {
    to: To,
    sender: SyncSender<Seen>,
    /// Until its thread takes it.
    receiver: Option<Receiver<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writers {
    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        // Nothing between taking and giving back can panic and leave it half done.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What rules made of this configuration hand questions to. Nothing is written before [`Writers::follow`].
    pub(crate) fn taps(&self, config: &Config) -> Option<Box<Taps>> {
        let mut lines = self.lines();
        let outlets = wanted(config).map(|(to, share)| {
            let known = lines.iter().position(|line| line.to == to);
            let place = known.unwrap_or_else(|| {
                lines.push(Line::new(to.clone()));
                lines.len() - 1
            });
            Outlet::new(to, share, lines[place].sender.clone())
        });
        Taps::of(outlets.collect())
    }

    /// Begins to write what is told by rules that serve from now on, and ends the rest.
    pub(crate) fn follow(&self, taps: Option<&Taps>, shared: &Arc<Shared>) -> io::Result<()> {
        let outlets = taps.map_or(&[][..], |taps| &taps.outlets);
        let mut lines = self.lines();
        lines.retain(|line| {
            let stays = outlets.iter().any(|outlet| outlet.to == line.to);
            line.stop.store(!stays, Ordering::Release);
            stays
        });
        lines.iter_mut().try_for_each(|line| line.start(shared))
    }

    /// Writes what waits, and ends. Waits for that, but not for long.
    pub(crate) fn stop(&self) {
        let lines = std::mem::take(&mut *self.lines());
        for line in &lines {
            line.stop.store(true, Ordering::Release);
        }
        let until = steady_micros() + 3 * PATIENCE.as_micros() as u64;
        let is_busy = |line: &Line| line.thread.as_ref().is_some_and(|one| !one.is_finished());
        while lines.iter().any(is_busy) && steady_micros() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for line in &*self.lines() {
            line.stop.store(true, Ordering::Release);
        }
    }
}

fn wanted(config: &Config) -> impl Iterator<Item = (To, Ratio)> {
    let log = config.query_log.map(|share| (To::Log, share));
    let dnstap = config.dnstap.clone();
    let dnstap = dnstap.map(|(dnstap, share)| (To::Dnstap(dnstap), share));
    log.into_iter().chain(dnstap)
}

impl Line {
    fn new(to: To) -> Self {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        Self {
            to,
            sender,
            receiver: Some(receiver),
            stop: Arc::default(),
            thread: None,
        }
    }

    fn start(&mut self, shared: &Arc<Shared>) -> io::Result<()> {
        let Some(receiver) = self.receiver.take() else {
            return Ok(());
        };
        let (stop, shared, to) = (Arc::clone(&self.stop), Arc::clone(shared), self.to.clone());
        let written = counter!("dns_tap_written_total", "to" => to.word());
        let builder = std::thread::Builder::new().name(format!("dns-{}", to.word()));
        let thread = builder.spawn(move || match to {
            To::Log => run(&receiver, &stop, &mut Log { shared, written }),
            To::Dnstap(dnstap) => run(&receiver, &stop, &mut Frames::new(dnstap, written)),
        })?;
        self.thread = Some(thread);
        Ok(())
    }
}

trait Sink {
    fn take(&mut self, seen: &Seen);
    /// Nothing waits now.
    fn pause(&mut self) {}
    fn end(&mut self) {}
}

fn run(receiver: &Receiver<Seen>, stop: &AtomicBool, sink: &mut impl Sink) {
    loop {
        // Seen before receiving: what was handed over before the stop is written.
        let stopping = stop.load(Ordering::Acquire);
        match receiver.recv_timeout(LOOK_EVERY) {
            Ok(first) => {
                sink.take(&first);
                // No more than were there: who comes to stop it must be noticed.
                receiver
                    .try_iter()
                    .take(WAITING_MAX)
                    .for_each(|seen| sink.take(&seen));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        sink.pause();
        if stopping {
            break;
        }
    }
    sink.end();
}

struct Log {
    shared: Arc<Shared>,
    written: Counter,
}

impl Sink for Log {
    fn take(&mut self, seen: &Seen) {
        log::write(seen, &self.shared.rules.load(), &self.shared.world.load());
        self.written.increment(1);
    }
}

/// Frames on their way to a socket.
struct Frames {
    to: Dnstap,
    sender: Sender,
    stream: Option<UnixStream>,
    gathered: Vec<u8>,
    /// In `gathered`.
    frames: u64,
    written: Counter,
    lost: Counter,
    /// By [`steady_micros`]: no attempt before.
    again_at: u64,
    again_after: Duration,
}

impl Frames {
    fn new(to: Dnstap, written: Counter) -> Self {
        let octets = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().into();
        Self {
            sender: Sender {
                identity: octets(&to.identity),
                version: octets(&to.version),
            },
            to,
            stream: None,
            gathered: Vec::new(),
            frames: 0,
            written,
            lost: counter!("dns_tap_lost_total"),
            again_at: 0,
            again_after: AGAIN_FIRST,
        }
    }

    /// Calls who takes frames, if it is time to.
    fn connect(&mut self) {
        if self.stream.is_some() || steady_micros() < self.again_at {
            return;
        }
        let socket = self.to.socket.display();
        match open(&self.to) {
            Ok(stream) => {
                info!(%socket, "dnstap has a reader");
                self.stream = Some(stream);
                self.again_after = AGAIN_FIRST;
            }
            Err(error) => {
                // Once for each time that it is gone.
                if self.again_after == AGAIN_FIRST {
                    warn!(%socket, %error, "dnstap has no reader; trying again");
                }
                self.rest();
            }
        }
    }

    fn rest(&mut self) {
        self.again_at = steady_micros() + self.again_after.as_micros() as u64;
        self.again_after = (self.again_after * 2).min(AGAIN_MOST);
    }

    fn flush(&mut self) {
        let (frames, gathered) = (std::mem::take(&mut self.frames), &self.gathered);
        if frames == 0 {
            return;
        }
        match self
            .stream
            .as_mut()
            .map(|stream| stream.write_all(gathered))
        {
            Some(Ok(())) => self.written.increment(frames),
            Some(Err(error)) => {
                let socket = self.to.socket.display();
                warn!(%socket, %error, "dnstap has lost its reader");
                self.lost.increment(frames);
                // Half a frame may have left: there is no going on with this stream.
                self.stream = None;
                self.rest();
            }
            None => self.lost.increment(frames),
        }
        self.gathered.clear();
    }
}

impl Sink for Frames {
    fn take(&mut self, seen: &Seen) {
        self.connect();
        self.frames += dnstap::write(seen, &self.sender, &mut self.gathered);
        if self.gathered.len() >= GATHERED_MAX || self.stream.is_none() {
            self.flush();
        }
    }

    fn pause(&mut self) {
        self.flush();
        self.connect();
    }

    fn end(&mut self) {
        if let Some(stream) = &mut self.stream
            && let Err(error) = dnstap::end(stream)
        {
            error!(%error, "dnstap's reader took no leave");
        }
    }
}

fn open(to: &Dnstap) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(&to.socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    dnstap::begin(&mut stream)?;
    Ok(stream)
}
