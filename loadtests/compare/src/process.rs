//! Programs under test: started, measured, ended. By pid, and nobody else's.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long a program may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to end when asked to.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Of `/proc/PID/stat` (proc(5)): a second on every Linux that matters.
const TICKS_PER_SECOND: u64 = 100;

/// A process with whatever it starts; ends when dropped.
#[derive(Debug)]
pub(crate) struct Child(std::process::Child);

impl Child {
    /// In `folder`, without input and output; what it complains of is shown.
    pub(crate) fn start(command: &mut Command, folder: &Path) -> Result<Self> {
        let started = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn();
        let program = command.get_program().to_string_lossy().into_owned();
        started
            .map(Self)
            .with_context(|| format!("could not start {program}"))
    }

    pub(crate) fn until_it_listens(&self, port: u16) -> Result<()> {
        let began = now();
        while began.elapsed() < START_LIMIT {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("nothing listens on port {port}")
    }

    /// Until `ready` says so.
    pub(crate) fn until(&self, what: &str, ready: impl Fn() -> bool) -> Result<()> {
        let began = now();
        while began.elapsed() < START_LIMIT {
            if ready() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("{what}, still not after {} s", START_LIMIT.as_secs())
    }

    /// CPU time so far, of the process and all that it has started.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut others = HashMap::new();
        for entry in fs::read_dir("/proc").context("no /proc")?.flatten() {
            let pid = entry.file_name().to_str().and_then(|pid| pid.parse().ok());
            // A process may end while we look.
            if let Some((pid, stat)) = pid.and_then(|pid| Some((pid, Stat::of(pid)?))) {
                others.insert(pid, stat);
            }
        }
        let mut ticks = 0;
        let mut family: Vec<u32> = vec![self.0.id()];
        while let Some(pid) = family.pop() {
            ticks += others.remove(&pid).map_or(0, |stat| stat.ticks);
            let children = others.iter().filter(|(_, stat)| stat.parent == pid);
            family.extend(children.map(|(pid, _)| *pid));
        }
        Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Asked first, so that its own children end with it.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let began = now();
        while began.elapsed() < END_LIMIT {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // It is ours, and it does not listen.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a program is: as a path says, or in `PATH` and where Debian has servers.
pub(crate) fn find(program: &Path) -> Result<PathBuf> {
    if program.components().count() > 1 {
        let found = fs::canonicalize(program);
        return found.with_context(|| format!("{} is not there", program.display()));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let mut found = places.map(|place| place.join(program));
    match found.find(|program| program.is_file()) {
        Some(program) => Ok(program),
        None => bail!("{} is not installed", program.display()),
    }
}

struct Stat {
    parent: u32,
    ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold anything: what counts comes behind it.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(1)?).ok()?,
            ticks: number(11)? + number(12)?,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "a load test measures time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_has_used_time_and_ends_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 60";
        let child = Child::start(Command::new("sh").args(["-c", script]), folder.path()).unwrap();
        let pid = child.0.id();
        let began = now();
        while child.cpu().unwrap().is_zero() && began.elapsed() < START_LIMIT {
            std::thread::sleep(Duration::from_millis(10));
        }

        assert!(!child.cpu().unwrap().is_zero());
        drop(child);
        assert!(Stat::of(pid).is_none());
    }
}
