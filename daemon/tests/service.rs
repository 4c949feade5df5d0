//! A service manager's part, played by the test: sockets opened for the program, notifications
//! heard from it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sealane_testkit::port::free_port;
use world::{Sealane, binary, curl, dig, text};

/// The longest that a notification is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where notifications arrive.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path }
    }

    fn hear(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("a notification comes");
        text(&bytes[..length])
    }

    /// The next notification that begins so, whatever comes before it.
    fn wait(&self, beginning: &str) -> String {
        loop {
            let heard = self.hear();
            if heard.starts_with(beginning) {
                return heard;
            }
        }
    }
}

/// The program with two sockets as its descriptors 3 and 4, as systemd starts it. Standard input
/// and output carry them as far as the shell: it alone can put them where they belong.
fn start(config: &Path, manager: &Manager, sockets: [OwnedFd; 2], env: &[(&str, &str)]) -> Sealane {
    let script = "exec 3<&0 4<&1 0</dev/null 1>&2; export LISTEN_PID=$$; exec \"$0\" \"$@\"";
    let [first, second] = sockets;
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .arg(binary())
        .args(["--log-format", "json", "run", "--config"])
        .arg(config)
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", "first:second")
        .env("NOTIFY_SOCKET", &manager.path)
        .envs(env.iter().copied())
        .stdin(Stdio::from(first))
        .stdout(Stdio::from(second));
    Sealane::start(&mut command)
}

fn tcp() -> (SocketAddr, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap(), listener.into())
}

fn configure(folder: &Path, web: SocketAddr, dns: Option<SocketAddr>) -> PathBuf {
    let dns = dns.map_or_else(String::new, |at| {
        format!(
            "dns: {{ bind: [\"{at}\"], zones: {{ api.example.test: {{ ns: [ns1.example.test.], steered: {{ \"@\": {{ pool: api }} }} }} }} }}\n"
        )
    });
    let file = folder.join("sealane.yaml");
    let yaml = format!(
        "version: 1
node: {{ first_round_limit: 100ms, workers: 2 }}
pools:
  api: {{ regions: {{ us-east-1: {{ addresses: [192.0.2.10], endpoints: [{{ address: \"127.0.0.1:1\" }}] }} }} }}
listeners: {{ web: {{ bind: [\"{web}\"] }} }}
routes: [{{ pool: api }}]
{dns}admin: {{ bind: [\"127.0.0.1:0\"] }}
"
    );
    std::fs::write(&file, yaml).unwrap();
    file
}

/// Nothing serves behind it: the answer is Sealane's own.
fn is_served(web: SocketAddr) {
    let output = curl(&[
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        &format!("http://{web}/"),
    ]);
    assert_eq!(text(&output.stdout), "502");
}

#[test]
fn a_service_s_life_is_told_to_its_manager() {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::new(folder.path());
    let (web, listener) = tcp();
    // Free over TCP as well, which the program opens by itself.
    let questions = UdpSocket::bind(("127.0.0.1", free_port())).unwrap();
    let dns = questions.local_addr().unwrap();
    let config = configure(folder.path(), web, Some(dns));
    let watched = [("WATCHDOG_USEC", "2000000")];

    let sockets = [listener, questions.into()];
    let mut sealane = start(&config, &manager, sockets, &watched);

    assert_eq!(manager.wait("READY=1"), "READY=1\nSTATUS=serving");
    sealane.wait_open(&["web", "dns", "admin"]);
    is_served(web);
    assert_eq!(dig(dns, &["api.example.test", "A"]), ["192.0.2.10"]);
    assert_eq!(
        dig(dns, &["+tcp", "api.example.test", "A"]),
        ["192.0.2.10"],
        "bound by itself"
    );

    // Every second, while everything lives.
    manager.wait("WATCHDOG=1");
    manager.wait("WATCHDOG=1");

    sealane.signal("HUP");
    let reloading = manager.wait("RELOADING=1");
    let (_, micros) = reloading.split_once("\nMONOTONIC_USEC=").unwrap();
    assert!(micros.parse::<u64>().unwrap() > 0);
    manager.wait("READY=1\nSTATUS=serving by new rules");

    let old = sealane.upgrade();
    let new = sealane.pid();
    assert_ne!(old, new);
    assert_eq!(manager.wait("MAINPID"), format!("MAINPID={new}\nREADY=1"));
    manager.wait("READY=1\nSTATUS=serving");
    sealane.wait_gone(old);
    is_served(web);
    assert_eq!(dig(dns, &["api.example.test", "A"]), ["192.0.2.10"]);
    manager.wait("WATCHDOG=1");

    sealane.signal("TERM");
    manager.wait("STOPPING=1");
    sealane.wait_gone(new);
}

#[test]
fn a_socket_that_the_file_does_not_name_is_told_and_closed() {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::new(folder.path());
    let ((web, listener), (stray, unwanted)) = (tcp(), tcp());
    let config = configure(folder.path(), web, None);

    let mut sealane = start(&config, &manager, [listener, unwanted], &[]);

    let line = sealane.wait_log("the configuration does not name it");
    assert!(
        line.contains("\"second\"") && line.contains(&stray.to_string()),
        "{line}"
    );
    sealane.wait_open(&["web"]);
    is_served(web);
    assert!(
        std::net::TcpStream::connect(stray).is_err(),
        "nobody listens there"
    );
}
