//! The harness of the program's tests: starts the real binary, learns its addresses, ends it.
//!
//! Everything listens on loopback, on ports that the system chose. A process that a test forgets is
//! killed when its handle is dropped.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of the harness"
)]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The longest that anything here is waited for: far above what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The running program.
pub struct Sealane {
    child: Child,
    lines: Receiver<String>,
    log: Arc<Mutex<Vec<String>>>,
    /// What listens where: `web`, `secure`, `dns`, `admin`, or a listener's name.
    pub addresses: HashMap<String, SocketAddr>,
    pub origins_port: u16,
    /// Processes that took over, or were to; the last that did is the one that signals go to.
    successors: Vec<u32>,
    current: u32,
    /// Where the demo's files go: a killed one leaves them behind.
    _temporary: TempDir,
}

impl Sealane {
    /// `sealane demo` on free ports, with `arguments` besides.
    pub fn demo(arguments: &[&str]) -> Self {
        let ports = ["--http=0", "--https=0", "--dns=0", "--admin=0"];
        let origins = free_origins_port();
        let origins_flag = format!("--origins-port={origins}");
        let mut all = vec!["demo"];
        all.extend(ports);
        all.push(&origins_flag);
        all.extend(arguments);
        let mut sealane = Self::spawn(&all, &[]);
        sealane.origins_port = origins;
        sealane.wait_open(&["web", "secure", "dns", "admin"]);
        sealane
    }

    /// `sealane run` on a file; returns when all of `listeners` are open.
    pub fn run(config: &Path, listeners: &[&str]) -> Self {
        let mut sealane = Self::spawn(&["run", "--config", config.to_str().unwrap()], &[]);
        sealane.wait_open(listeners);
        sealane
    }

    /// The program with these arguments; waits for nothing.
    pub fn spawn(arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary());
        command
            .args(["--log-format", "json"])
            .args(arguments)
            .envs(env.iter().copied());
        Self::start(command.stdout(Stdio::piped()))
    }

    /// The program by a command of the test's own; waits for nothing.
    pub fn start(command: &mut Command) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        command.env("TMPDIR", temporary.path());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let current = child.id();
        let (sender, lines) = channel();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let stdout = child.stdout.take().map(BufReader::new);
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line.clone());
                // An error means that the test no longer listens.
                let _ = sender.send(line);
            }
        });
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in stdout
                .into_iter()
                .flat_map(|out| out.lines().map_while(Result::ok))
            {
                kept.lock().unwrap().push(line);
            }
        });
        Self {
            child,
            lines,
            log,
            addresses: HashMap::new(),
            origins_port: 0,
            successors: Vec::new(),
            current,
            _temporary: temporary,
        }
    }

    pub fn wait_open(&mut self, wanted: &[&str]) {
        while !wanted.iter().all(|name| self.addresses.contains_key(*name)) {
            let line = self.next_line();
            self.note(&line);
        }
    }

    fn note(&mut self, line: &str) {
        let Ok(entry) = serde_json::from_str::<Value>(line) else {
            return;
        };
        let message = entry["message"].as_str().unwrap_or_default();
        if let (Some(name), Some(address)) =
            (message.strip_suffix(" is open"), entry["address"].as_str())
        {
            self.addresses
                .insert(name.to_owned(), address.parse().unwrap());
        }
        let pid = entry["pid"].as_u64().map(|pid| u32::try_from(pid).unwrap());
        match (message, pid) {
            (STARTS, Some(pid)) => self.successors.push(pid),
            (SERVES, Some(pid)) => self.current = pid,
            _ => {}
        }
    }

    /// SIGUSR2, and waits until the new process serves. Returns the old one's id.
    pub fn upgrade(&mut self) -> u32 {
        let old = self.current;
        self.signal("USR2");
        self.wait_log(SERVES);
        old
    }

    /// The next log line; fails the test, with the log, when none comes.
    fn next_line(&mut self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            panic!(
                "no further log line ({error}); exit {:?}\n{}",
                self.child.try_wait(),
                self.log()
            )
        })
    }

    /// Waits for a log line that contains `text`, and returns it.
    pub fn wait_log(&mut self, text: &str) -> String {
        let since = now();
        loop {
            let line = self.next_line();
            self.note(&line);
            if line.contains(text) {
                return line;
            }
            // Others may come without end.
            assert!(
                since.elapsed() < PATIENCE,
                "no log line with {text:?}\n{}",
                self.log()
            );
        }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    pub fn address(&self, what: &str) -> SocketAddr {
        self.addresses[what]
    }

    pub fn url(&self, what: &str, path: &str) -> String {
        let scheme = if what == "secure" { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address(what))
    }

    /// A verb of the demo: `region-down us-east-1`.
    pub fn demo_order(&self, arguments: &[&str]) {
        let port = format!("--origins-port={}", self.origins_port);
        let mut all = vec!["demo"];
        all.extend(arguments);
        all.push(&port);
        let output = sealane(&all);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// A GET of the admin API, which must answer in JSON.
    pub fn admin(&self, path: &str) -> Value {
        let output = curl(&["-s", "-g", &self.url("admin", path)]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{path}: {error}: {}", text(&output.stdout));
        })
    }

    /// To the process that serves.
    pub fn signal(&self, name: &str) {
        let pid = self.current.to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for the program's end.
    pub fn wait(&mut self) -> ExitStatus {
        let since = now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "still running\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn pid(&self) -> u32 {
        self.current
    }

    /// Waits for the end of a process: the first one, or one that took over.
    pub fn wait_gone(&mut self, pid: u32) {
        // A child that ended is there until it is waited for.
        until("the process ends", || {
            let _ = self.child.try_wait();
            !is_sealane(pid)
        });
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.current)).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kib: u64 = line
            .split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        kib * 1024
    }
}

const STARTS: &str = "upgrade: the new program starts; this one serves until that one does";
const SERVES: &str = "upgrade: this process serves now";

fn is_sealane(pid: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.starts_with("sealane"))
}

impl Drop for Sealane {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(20)) {
            self.note(&line);
        }
        for pid in self.successors.iter().filter(|pid| is_sealane(**pid)) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        if std::thread::panicking() {
            eprintln!("--- the program's log ---\n{}", self.log());
        }
    }
}

pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_sealane"))
}

/// Runs a verb to its end.
pub fn sealane(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

pub fn curl(arguments: &[&str]) -> Output {
    Command::new("curl")
        .args(["--max-time", "60"])
        .args(arguments)
        .output()
        .unwrap()
}

/// The lines of `dig +short`.
pub fn dig(server: SocketAddr, arguments: &[&str]) -> Vec<String> {
    let (at, port) = (format!("@{}", server.ip()), server.port().to_string());
    let output = Command::new("dig")
        .args([at.as_str(), "-p", &port, "+short", "+time=5", "+tries=2"])
        .args(arguments)
        .output()
        .unwrap();
    text(&output.stdout).lines().map(str::to_owned).collect()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A port that is free on the demo's origin addresses.
fn free_origins_port() -> u16 {
    let hosts = [1_u8, 11, 12, 13, 21, 22, 23, 31, 32, 33];
    let addresses = hosts.map(|host| std::net::Ipv4Addr::new(127, 0, 1, host));
    sealane_testkit::port::free_port_on(&addresses)
}

/// Waits until `holds`; fails the test with `what` when it never does.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests of the real program wait by the clock"
)]
pub fn now() -> Instant {
    Instant::now()
}
