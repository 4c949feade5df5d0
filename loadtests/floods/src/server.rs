//! Programs that a run needs: started on their core, watched, and ended by pid.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long a program may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where a program runs, and how far ahead of others: a priority of `SCHED_RR`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) core: Option<u16>,
    pub(crate) realtime: Option<u8>,
}

impl Place {
    /// `program`, there.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut words: Vec<String> = Vec::new();
        if let Some(core) = self.core {
            words.extend(["taskset".to_owned(), "-c".to_owned(), core.to_string()]);
        }
        if let Some(priority) = self.realtime {
            words.extend(["chrt".to_owned(), "--rr".to_owned(), priority.to_string()]);
        }
        words.push(program.display().to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }
}

/// A process that is killed when dropped: it keeps nothing.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn start(command: &mut Command, port: u16) -> Result<Self> {
        let started = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn();
        let program = command.get_program().to_string_lossy().into_owned();
        let server = Self(started.with_context(|| format!("could not start {program}"))?);
        let began = now();
        while began.elapsed() < START_LIMIT {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        bail!("nothing listens on port {port}")
    }

    /// Resident memory in KiB.
    pub(crate) fn memory(&self) -> Result<u64> {
        memory(self.0.id()).context("the program has ended")
    }

    pub(crate) fn watch_memory(&self) -> Peak {
        let (most, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let pid = self.0.id();
        let (noted, stopped) = (Arc::clone(&most), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                noted.fetch_max(memory(pid).unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(LOOK_EVERY);
            }
        });
        Peak { most, stop, thread }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The most memory that a process has while this is watching.
pub(crate) struct Peak {
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Peak {
    pub(crate) fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        // It does nothing that could fail.
        let _ = self.thread.join();
        self.most.load(Ordering::Relaxed)
    }
}

/// `taskset` and `chrt` become the program that they start: the pid stays.
fn memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[expect(clippy::disallowed_methods, reason = "a load test measures time")]
fn now() -> Instant {
    Instant::now()
}
