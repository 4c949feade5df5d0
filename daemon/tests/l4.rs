//! What is not HTTP, through the real program, by clients and servers that others wrote: socat, openssl,
//! curl.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sealane_testkit::port::free_port;
use tempfile::TempDir;
use world::{Sealane, curl, text, until};

/// A process of the test's own, ended with it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(program: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Process(command.spawn().unwrap())
}

fn until_open(port: u16) {
    until("the server listens", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
}

/// The file of a test, and the program that serves it.
struct Served {
    sealane: Sealane,
    file: PathBuf,
    _folder: TempDir,
}

fn serve(yaml: &str, listeners: &[&str]) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sealane.yaml");
    std::fs::write(&file, format!("{HEAD}{yaml}")).unwrap();
    Served {
        sealane: Sealane::run(&file, listeners),
        file,
        _folder: folder,
    }
}

const HEAD: &str = "version: 1
node: { name: test, drain_limit: 20s }
admin: { bind: \"127.0.0.1:0\" }
";

fn pool(name: &str, address: impl std::fmt::Display) -> String {
    format!(
        "  {name}: {{ regions: {{ us-east-1: {{ endpoints: [{{ address: \"{address}\" }}] }} }} }}\n"
    )
}

/// What `input` becomes behind `address`, for a client that ends its direction after it.
fn through_socat(address: SocketAddr, input: &Path) -> Vec<u8> {
    let output = Command::new("socat")
        .args(["-t", "60", "-", &format!("TCP:{address}")])
        .stdin(std::fs::File::open(input).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    output.stdout
}

#[test]
fn socat_ends_its_direction_and_still_gets_the_answer() {
    let port = free_port();
    let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr");
    // Says nothing before it has read the end.
    let _server = run("socat", &["-t", "60", &listen, "SYSTEM:sha256sum"]);
    until_open(port);
    let yaml = format!(
        "pools:\n{}listeners: {{ db: {{ bind: \"127.0.0.1:0\", protocol: tcp, pool: db }} }}\n",
        pool("db", format!("127.0.0.1:{port}"))
    );
    let served = serve(&yaml, &["db"]);
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    let bytes: Vec<u8> = (0..8_000_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&input, bytes).unwrap();

    let through = through_socat(served.sealane.address("db"), &input);

    let wanted = Command::new("sha256sum")
        .stdin(std::fs::File::open(&input).unwrap())
        .output()
        .unwrap();
    assert_eq!(text(&through), text(&wanted.stdout));
    until("the session is logged", || {
        served.sealane.log().contains("\"end\":\"finished\"")
    });
    let log = served.sealane.log();
    let line = log.lines().find(|line| line.contains("\"end\"")).unwrap();
    assert!(line.contains("\"bytes_received\":32000000"), "{line}");
    assert!(line.contains("\"listener\":\"db\""), "{line}");
}

/// `openssl s_server` with a certificate for `name`; `www`: answers a GET with its status.
fn tls_server(folder: &Path, name: &str) -> (Process, u16) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (chain, key) = (
        folder.join(format!("{name}.pem")),
        folder.join(format!("{name}.key")),
    );
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let port = free_port();
    let accept = format!("127.0.0.1:{port}");
    let server = run(
        "openssl",
        &[
            "s_server",
            "-quiet",
            "-www",
            "-accept",
            &accept,
            "-cert",
            chain.to_str().unwrap(),
            "-key",
            key.to_str().unwrap(),
        ],
    );
    until_open(port);
    (server, port)
}

/// Whether the certificate that answers for `name` is the one in `folder`; and what openssl said.
fn verified(address: SocketAddr, folder: &Path, name: &str, extra: &[&str]) -> (bool, String) {
    let trusted = folder.join(format!("{name}.pem"));
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(["-servername", name, "-verify_hostname", name])
        .args(["-verify_return_error", "-CAfile"])
        .arg(trusted)
        .args(extra)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    (
        output.status.success() && said.contains("Verify return code: 0"),
        said,
    )
}

#[test]
fn openssl_is_led_by_its_server_name_to_who_has_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (_a, a) = tls_server(folder.path(), "a.test");
    let (_b, b) = tls_server(folder.path(), "x.b.test");
    let yaml = format!(
        "pools:\n{}{}listeners:
  tls:
    bind: \"127.0.0.1:0\"
    protocol: tls_passthrough
    sni: [{{ match: a.test, pool: a }}, {{ match: \"*.b.test\", pool: b }}]\n",
        pool("a", format!("127.0.0.1:{a}")),
        pool("b", format!("127.0.0.1:{b}"))
    );
    let served = serve(&yaml, &["tls"]);
    let address = served.sealane.address("tls");

    for version in ["-tls1_2", "-tls1_3"] {
        for name in ["a.test", "x.b.test"] {
            let (verified, said) = verified(address, folder.path(), name, &[version]);
            assert!(verified, "{name} {version}: {said}");
        }
    }
    std::fs::copy(
        folder.path().join("a.test.pem"),
        folder.path().join("c.test.pem"),
    )
    .unwrap();
    let (_, said) = verified(address, folder.path(), "c.test", &[]);
    assert!(said.contains("unrecognized name"), "{said}");
    until("the refusal is logged", || {
        served.sealane.log().contains("\"end\":\"unknown_name\"")
    });
}

#[test]
fn curl_says_whom_its_request_is_from() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let yaml = format!(
        "pools:\n{}listeners:
  web: {{ bind: \"127.0.0.1:0\", proxy_protocol: {{ from: [127.0.0.0/8] }} }}
routes: [{{ pool: api }}]\n",
        pool("api", origin.local_addr().unwrap())
    );
    let served = serve(&yaml, &["web"]);
    std::thread::spawn(move || {
        for stream in origin.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut head = [0; 4_096];
                while stream.read(&mut head).is_ok_and(|read| read > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if stream.write_all(answer).is_err() {
                        break;
                    }
                }
            });
        }
    });
    let url = served.sealane.url("web", "/");

    let with = curl(&["-s", "--haproxy-protocol", &url]);
    assert_eq!(text(&with.stdout), "ok");
    let without = curl(&["-s", &url]);
    assert!(!without.status.success());
}

/// An endpoint that echoes; how long it lives is the test's.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut bytes = [0; 16 * 1024];
                while let Ok(read) = stream.read(&mut bytes) {
                    if read == 0 || stream.write_all(&bytes[..read]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

fn is_echoed(stream: &mut TcpStream, word: &[u8]) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut back = vec![0; word.len()];
    stream.write_all(word).is_ok() && stream.read_exact(&mut back).is_ok() && back == word
}

#[test]
fn sessions_of_an_endpoint_that_probes_find_dead_are_closed() {
    let endpoint = echo();
    // What probes ask is another port, so that the session itself is well.
    let health = TcpListener::bind("127.0.0.1:0").unwrap();
    let probed = health.local_addr().unwrap().port();
    let yaml = format!(
        "pools:
  db:
    regions: {{ us-east-1: {{ endpoints: [{{ address: \"{endpoint}\" }}] }} }}
    probe: {{ tcp: {{}}, port: {probed}, interval: 300ms, timeout: 200ms, recheck: 10ms }}
listeners:
  close: {{ bind: \"127.0.0.1:0\", protocol: tcp, pool: db, on_down: close }}
  keep: {{ bind: \"127.0.0.1:0\", protocol: tcp, pool: db }}\n"
    );
    let served = serve(&yaml, &["close", "keep"]);
    let mut closed = TcpStream::connect(served.sealane.address("close")).unwrap();
    let mut kept = TcpStream::connect(served.sealane.address("keep")).unwrap();
    assert!(is_echoed(&mut closed, b"one") && is_echoed(&mut kept, b"one"));

    drop(health);

    let end = closed.read(&mut [0; 10]);
    assert!(end.is_err(), "reset, and no end: {end:?}");
    assert!(is_echoed(&mut kept, b"two"));
    until("its end is logged", || {
        served.sealane.log().contains("\"end\":\"endpoint_down\"")
    });
}

#[test]
fn no_session_is_lost_while_the_file_changes() {
    let (first, second) = (echo(), echo());
    let yaml = |pool_now: &str, idle: &str| {
        format!(
            "{HEAD}pools:\n{}{}listeners:
  db: {{ bind: \"127.0.0.1:0\", protocol: tcp, pool: {pool_now}, timeouts: {{ idle: {idle} }} }}\n",
            pool("first", first),
            pool("second", second)
        )
    };
    let served = serve(yaml("first", "10s").strip_prefix(HEAD).unwrap(), &["db"]);
    let address = served.sealane.address("db");
    let mut sessions: Vec<TcpStream> = Vec::new();
    for (round, pool_now) in ["second", "first", "second"].into_iter().enumerate() {
        sessions.extend((0..20).map(|_| TcpStream::connect(address).unwrap()));
        let idle = format!("{}s", 20 + round);
        std::fs::write(&served.file, yaml(pool_now, &idle)).unwrap();
        // The first counted was the start.
        let reloads = format!(
            "sealane_config_reloads_total{{result=\"applied\"}} {}",
            round + 2
        );
        let mut word = 0_u32;
        until("the file is reloaded", || {
            word += 1;
            for session in &mut sessions {
                assert!(is_echoed(session, &word.to_le_bytes()));
            }
            let metrics = curl(&["-s", &served.sealane.url("admin", "/metrics")]);
            text(&metrics.stdout).contains(&reloads)
        });
    }
    let mut newest = TcpStream::connect(address).unwrap();
    assert!(is_echoed(&mut newest, b"newest"));
    sessions.iter_mut().for_each(|session| {
        assert!(is_echoed(session, b"last"));
    });
    drop(newest);
    until("the newest went to the other pool", || {
        served.sealane.log().contains("\"pool\":\"second\"")
    });
}

#[test]
fn a_session_that_began_before_sigterm_goes_on_to_its_end() {
    let endpoint = echo();
    let yaml = format!(
        "pools:\n{}listeners: {{ db: {{ bind: \"127.0.0.1:0\", protocol: tcp, pool: db }} }}\n",
        pool("db", endpoint)
    );
    let mut served = serve(&yaml, &["db"]);
    let address = served.sealane.address("db");
    let mut session = TcpStream::connect(address).unwrap();
    assert!(is_echoed(&mut session, b"before"));

    served.sealane.signal("TERM");
    until("new connections are refused", || {
        TcpStream::connect(address).is_err()
    });

    assert!(is_echoed(&mut session, &vec![7; 300_000]));
    session.shutdown(Shutdown::Write).unwrap();
    assert_eq!(
        session.read(&mut [0; 10]).unwrap(),
        0,
        "an end, and no break"
    );
    assert!(served.sealane.wait().success());
}
