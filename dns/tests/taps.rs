//! Questions told to those who want to see them: dnstap, read by its own reference reader (`fstrm_capture`, and
//! `dnstap-read` for what it captured), and what the answering threads do when nobody reads.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::num::NonZeroUsize;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sealane_dns::config::{Dnstap, Zone};
use sealane_dns::name::Name;
use sealane_dns::record::parse_zone_file;
use sealane_dns::{Config, Deps, Dns, Options};
use sealane_model::publish::snapshot_channel;
use sealane_model::{Ratio, SnapshotWriter, Ttl};
use sealane_steering::GeoTable;
use sealane_testkit::World;

/// Turns of a tenth of a second: long enough for a busy machine.
const TURNS_MAX: usize = 600;

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..TURNS_MAX {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}");
}

fn config(socket: &Path, share: f64) -> Config {
    let apex = Name::parse("example.test", None).unwrap();
    let text = "@ 60 SOA ns host 1 2 3 4 5\n@ 60 NS ns\nns 60 A 192.0.2.53\nwww 60 A 192.0.2.80\n";
    let file = parse_zone_file(text, &apex, Ttl::from_secs(60)).unwrap();
    let zone = Zone::new(apex, file.soa.unwrap(), file.records);
    let mut config = Config::new(vec![zone], Arc::new(GeoTable::empty()));
    config.bind = vec!["127.0.0.1:0".parse().unwrap()];
    let dnstap = Dnstap {
        socket: socket.to_owned(),
        identity: Some("ams-1".into()),
        version: Some("sealane".into()),
    };
    config.dnstap = Some((dnstap, Ratio::new(share).unwrap()));
    config
}

struct Server {
    dns: Dns,
    _world: SnapshotWriter,
}

impl Server {
    fn start(config: Config) -> Self {
        let (writer, world) = snapshot_channel(World::new().build());
        let workers = NonZeroUsize::MIN;
        let dns = Dns::bind(config, Deps { world }, Options { workers }).unwrap();
        dns.start().unwrap();
        Self {
            dns,
            _world: writer,
        }
    }

    fn address(&self) -> SocketAddr {
        self.dns.addresses()[0]
    }

    fn ask(&self, id: u8, name: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        socket.send_to(&question(id, name), self.address()).unwrap();
        let mut reply = [0; 512];
        let length = socket.recv(&mut reply).unwrap();
        reply[..length].to_vec()
    }

    fn ask_by_tcp(&self, id: u8, name: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        let question = question(id, name);
        let length = u16::try_from(question.len()).unwrap().to_be_bytes();
        stream
            .write_all(&[&length[..], &question].concat())
            .unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply).unwrap();
        reply
    }
}

fn question(id: u8, name: &[u8]) -> Vec<u8> {
    let head = [0, id, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    [&head[..], name, b"\0\x01\0\x01"].concat()
}

const WWW: &[u8] = b"\x03www\x07example\x04test\0";
const NOWHERE: &[u8] = b"\x07nowhere\x07example\x04test\0";

/// `fstrm_capture`, which ends with its value.
struct Reader(Child);

impl Reader {
    fn start(socket: &Path, file: &Path) -> Self {
        let _ = fs::remove_file(socket);
        let child = Command::new("fstrm_capture")
            .args(["-t", "protobuf:dnstap.Dnstap", "-u"])
            .arg(socket)
            .arg("-w")
            .arg(file)
            .stderr(Stdio::null())
            .spawn()
            .expect("fstrm_capture is needed (Debian: fstrm-bin)");
        let reader = Self(child);
        wait_until("fstrm_capture listens", || socket.exists());
        reader
    }

    /// Has it write what it has, and end.
    fn end(mut self) {
        let id = self.0.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(asked.success());
        self.0.wait().unwrap();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(file: &Path) -> String {
    let output = Command::new("dnstap-read")
        .arg("-y")
        .arg(file)
        .output()
        .expect("dnstap-read is needed (Debian: bind9-dnsutils)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn the_reference_reader_reads_questions_and_answers_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, file) = (
        folder.path().join("tap.sock"),
        folder.path().join("tap.fstrm"),
    );
    let reader = Reader::start(&socket, &file);
    let server = Server::start(config(&socket, 1.0));

    assert_eq!(server.ask(1, WWW)[3], 0);
    assert_eq!(server.ask(2, NOWHERE)[3], 3);
    assert_eq!(server.ask_by_tcp(3, WWW)[3], 0);
    // What waits is written before the server ends.
    server.dns.stop(Duration::from_secs(20));
    reader.end();

    let said = read(&file);
    let count = |what: &str| said.matches(what).count();
    assert_eq!(count("type: AUTH_QUERY"), 3, "{said}");
    assert_eq!(count("type: AUTH_RESPONSE"), 3, "{said}");
    assert_eq!(count("identity: ams-1"), 6, "{said}");
    assert_eq!(count("version: sealane"), 6, "{said}");
    assert_eq!(count("query_address: \"127.0.0.1\""), 6, "{said}");
    assert_eq!(count("socket_protocol: UDP"), 4, "{said}");
    assert_eq!(count("socket_protocol: TCP"), 2, "{said}");
    assert_eq!(count("    status: NXDOMAIN\n"), 1, "{said}");
    assert_eq!(
        count("- 'www.example.test. 60 IN A 192.0.2.80'"),
        2,
        "{said}"
    );
}

#[test]
fn a_reader_that_comes_late_or_comes_back_is_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("tap.sock");
    let server = Server::start(config(&socket, 1.0));
    // Nobody reads: that is no reason not to answer.
    assert_eq!(server.ask(1, WWW)[3], 0);

    for turn in ["first", "second"] {
        let file = folder.path().join(turn);
        // It is called again by and by; what comes meanwhile is not kept for it.
        wait_until("frames come", || {
            let reader = Reader::start(&socket, &file);
            for _ in 0..20 {
                assert_eq!(server.ask(2, WWW)[3], 0);
                std::thread::sleep(Duration::from_millis(50));
            }
            reader.end();
            read(&file).contains("type: AUTH_RESPONSE")
        });
    }
    server.dns.stop(Duration::from_secs(20));
}

#[test]
fn a_reader_that_takes_nothing_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("tap.sock");
    // Accepts by the kernel's queue, and never says a word.
    let _deaf = UnixListener::bind(&socket).unwrap();
    let server = Server::start(config(&socket, 1.0));
    for _ in 0..6_000 {
        assert_eq!(server.ask(1, WWW)[3], 0);
    }
    server.dns.stop(Duration::from_secs(20));
}

#[test]
fn nothing_is_told_of_what_is_not_in_the_sample_and_a_reload_begins_and_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, file) = (
        folder.path().join("tap.sock"),
        folder.path().join("tap.fstrm"),
    );
    let reader = Reader::start(&socket, &file);
    let server = Server::start(config(&socket, 0.0));
    let reload = |change: fn(&mut Config)| {
        let mut config = config(&socket, 1.0);
        change(&mut config);
        server
            .dns
            .replace_rules(server.dns.prepare(config).unwrap());
    };
    let ask = |number: usize| (0..number).for_each(|_| assert_eq!(server.ask(1, WWW)[3], 0));

    ask(50);
    reload(|_| {});
    ask(7);
    reload(|config| config.dnstap = None);
    ask(50);
    server.dns.stop(Duration::from_secs(20));
    // Its thread ends by itself, and takes its leave of the reader.
    std::thread::sleep(Duration::from_millis(500));
    reader.end();
    let said = read(&file);
    let count = said.matches("type: AUTH_QUERY").count();
    // The thread that answers follows new rules from its next batch on.
    assert!((6..=8).contains(&count), "{count}: {said}");
}
