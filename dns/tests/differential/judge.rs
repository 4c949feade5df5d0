//! The servers that judge: NSD, Knot and BIND, each with the same zones on a port of its own. What is started here
//! ends when it is dropped.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sealane_testkit::port::free_port;

use crate::ask::{Ask, Line};
use crate::{NSID, VERSION, ZONES, wire};

/// Until a server has read its zones; less than a second where nothing else runs.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Another program may take a port between its being found free and its being used.
const PORT_TRIES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nsd,
    Knot,
    Bind,
}

pub(crate) struct Judge {
    pub(crate) kind: Kind,
    pub(crate) line: Line,
    child: Child,
}

impl Kind {
    /// Its program and its Debian package.
    const fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Nsd => ("nsd", "nsd"),
            Self::Knot => ("knotd", "knot"),
            Self::Bind => ("named", "bind9"),
        }
    }

    /// In this folder, where the zones lie, each in a file of its name.
    pub(crate) fn start(self, folder: &Path) -> Judge {
        let (program, package) = self.program();
        for number in 0..PORT_TRIES {
            let own = folder.join(format!("{program}-{number}"));
            fs::create_dir(&own).unwrap();
            let port = free_port();
            let configuration = own.join("conf");
            fs::write(&configuration, self.configuration(folder, &own, port)).unwrap();
            let log = fs::File::create(own.join("log")).unwrap();
            let mut child = self
                .command(&configuration)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap_or_else(|_| panic!("{program} is needed (Debian: {package})"));
            let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if serves(&mut child, server) {
                return Judge {
                    kind: self,
                    line: Line::to(server),
                    child,
                };
            }
            end(&mut child);
            let log = fs::read_to_string(own.join("log")).unwrap_or_default();
            eprintln!("{program} does not serve on port {port}:\n{log}");
        }
        panic!("{program} could not be started");
    }

    fn command(self, configuration: &Path) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(self.program().0);
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        match self {
            Self::Nsd => command.args(["-d", "-c"]),
            Self::Knot => command.arg("-c"),
            Self::Bind => command.args(["-g", "-c"]),
        };
        command.arg(configuration);
        command
    }

    fn configuration(self, zones: &Path, own: &Path, port: u16) -> String {
        let template = match self {
            Self::Nsd => include_str!("nsd.conf"),
            Self::Knot => include_str!("knot.conf"),
            Self::Bind => include_str!("named.conf"),
        };
        let mut text = template
            .replace("@PORT@", &port.to_string())
            .replace("@OWN@", &own.display().to_string())
            .replace("@NSID@", NSID)
            .replace("@VERSION@", VERSION);
        for (zone, _) in ZONES {
            let file = zones.join(zone).display().to_string();
            text.push_str(&match self {
                Self::Nsd => format!("zone:\n  name: {zone}\n  zonefile: {file}\n"),
                Self::Knot => format!("  - domain: {zone}\n    file: {file}\n"),
                Self::Bind => {
                    format!("zone \"{zone}\" {{ type primary; file \"{file}\"; }};\n")
                }
            });
        }
        text
    }
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        self.program().0
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Asked first, so that its own children end with it.
fn end(child: &mut Child) {
    let _ = Command::new("kill").arg(child.id().to_string()).status();
    let began = now();
    while began.elapsed() < Duration::from_secs(10) {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Until all zones are there. `false`: it ended, or the time is over.
fn serves(child: &mut Child, server: SocketAddr) -> bool {
    let began = now();
    while began.elapsed() < START_LIMIT {
        if !matches!(child.try_wait(), Ok(None)) {
            return false;
        }
        if TcpStream::connect(server).is_ok() && has_zones(server) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

fn has_zones(server: SocketAddr) -> bool {
    let mut line = Line::to(server);
    ZONES.iter().all(|(zone, _)| {
        let mut ask = Ask::of(wire(zone), 6);
        ask.by_tcp = true;
        let reply = line.put(&ask);
        reply.is_ok_and(|reply| reply.rcode == 0 && reply.flags.contains(&"aa"))
    })
}

#[expect(clippy::disallowed_methods, reason = "waits for other programs")]
fn now() -> Instant {
    Instant::now()
}
