//! What Sealane says no to, and how: clearly, at once, and without losing anything.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use world::{Sealane, curl, sealane, text};

/// A small lawful configuration; `extra` is appended to it.
fn minimal(folder: &Path, extra: &str) -> std::path::PathBuf {
    let file = folder.join("sealane.yaml");
    let yaml = format!(
        "version: 1
node: {{ name: test, state_dir: state }}
pools:
  api:
    regions:
      us-east-1: {{ addresses: [192.0.2.10], endpoints: [{{ address: \"127.0.0.1:9\" }}] }}
    probe: {{ tcp: {{}}, interval: 1s, timeout: 500ms }}
listeners:
  web: {{ bind: [\"127.0.0.1:0\"], protocol: http }}
routes:
  - {{ pool: api }}
admin: {{ bind: [\"127.0.0.1:0\"] }}
{extra}"
    );
    std::fs::create_dir_all(folder.join("state")).unwrap();
    std::fs::write(&file, yaml).unwrap();
    file
}

#[test]
fn a_port_in_use_is_named_with_its_listener() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = minimal(folder.path(), "");
    let yaml = std::fs::read_to_string(&file).unwrap();
    let yaml = yaml.replace(
        "web: { bind: [\"127.0.0.1:0\"]",
        &format!("web: {{ bind: [\"{address}\"]"),
    );
    std::fs::write(&file, yaml).unwrap();

    let output = sealane(&["run", "--config", file.to_str().unwrap()]);

    let said = text(&output.stderr);
    assert!(!output.status.success());
    for word in ["web", address.as_str(), "in use"] {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
}

#[test]
fn the_demo_says_which_flags_change_a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let http = format!("--http={port}");

    let output = sealane(&[
        "demo",
        &http,
        "--https=0",
        "--dns=0",
        "--admin=0",
        "--origins-port=0",
    ]);

    let said = text(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
    assert!(said.contains("--http"), "{said}");
}

#[test]
fn a_dns_port_in_use_is_named_even_when_its_holder_shares_it() {
    let folder = tempfile::tempdir().unwrap();
    let holder = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    holder.set_reuse_port(true).unwrap();
    holder
        .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    let address = holder.local_addr().unwrap().as_socket().unwrap();
    let dns = format!(
        "dns:\n  bind: [\"{address}\"]\n  zones:\n    api.example.test: {{ ns: [ns1.example.test.], steered: {{ \"@\": {{ pool: api }} }} }}\n"
    );
    let file = minimal(folder.path(), &dns);

    let output = sealane(&["run", "--config", file.to_str().unwrap()]);

    let said = text(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains(&address.to_string()) && said.contains("in use"),
        "{said}"
    );
}

#[test]
fn a_missing_geographic_table_is_a_mistake_at_its_place_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = minimal(
        folder.path(),
        "dns:\n  bind: [\"127.0.0.1:0\"]\n  geo: { database: nowhere.mmdb }\n  zones:\n    api.example.test: { ns: [ns1.example.test.], steered: { \"@\": { pool: api } } }\n",
    );

    let output = sealane(&["check", file.to_str().unwrap()]);

    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("sealane.yaml:15:20") && said.contains("nowhere.mmdb"),
        "{said}"
    );
}

#[test]
fn a_broken_state_file_is_kept_aside_and_the_program_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = minimal(folder.path(), "");
    let first = Sealane::run(&file, &["web", "admin"]);
    first.signal("TERM");
    let mut first = first;
    assert!(first.wait().success());
    let state = folder.path().join("state");
    let kept: Vec<_> = std::fs::read_dir(&state)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    let [saved] = kept.as_slice() else {
        panic!("one state file, not {kept:?}")
    };
    std::fs::write(saved, "{ \"version\": 1, broken").unwrap();

    let mut second = Sealane::run(&file, &["web", "admin"]);

    let aside = std::fs::read_dir(&state)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|path| {
            path != saved && std::fs::read_to_string(path).unwrap() == "{ \"version\": 1, broken"
        });
    let aside = aside.expect("the broken file is kept under another name");
    assert!(
        second
            .log()
            .contains(&aside.file_name().unwrap().to_string_lossy().into_owned())
    );
    second.signal("TERM");
    assert!(second.wait().success());
}

#[test]
fn changes_need_a_token_and_say_how_to_have_one() {
    let folder = tempfile::tempdir().unwrap();
    let token = "correct-horse-battery-staple-correct";
    let none = Sealane::run(&minimal(folder.path(), ""), &["admin"]);
    let with = tempfile::tempdir().unwrap();
    let yaml = "admin: { bind: [\"127.0.0.1:0\"], tokens: [{ name: oncall, role: operator, token: \"file:token\" }] }";
    let file = minimal(with.path(), "");
    let text_ = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text_.replace("admin: { bind: [\"127.0.0.1:0\"] }", yaml),
    )
    .unwrap();
    std::fs::write(with.path().join("token"), token).unwrap();
    let some = Sealane::run(&file, &["admin"]);

    let post = |at: &Sealane, bearer: Option<&str>| {
        let url = at.url("admin", "/api/failover");
        let header = format!("Authorization: Bearer {}", bearer.unwrap_or_default());
        let mut all = vec![
            "-s",
            "-w",
            "\n%{http_code}",
            "-d",
            "{\"target\":\"us-east-1\",\"force\":true}",
        ];
        all.extend(["-H", "Content-Type: application/json"]);
        if bearer.is_some() {
            all.extend(["-H", &header]);
        }
        all.push(&url);
        text(&curl(&all).stdout)
    };

    let refused = post(&none, None);
    assert!(
        refused.ends_with("\n403") && refused.contains("token"),
        "{refused}"
    );
    assert!(post(&some, None).ends_with("\n401"));
    assert!(post(&some, Some("wrong")).ends_with("\n401"));
    assert!(post(&some, Some(token)).ends_with("\n200"));
    assert!(!some.log().contains(token), "a token was logged");
}

#[test]
fn malformed_http_is_refused_and_the_connection_closed() {
    let sealane = Sealane::demo(&[]);
    let cases: [(&str, &[u8]); 9] = [
        ("no host", b"GET / HTTP/1.1\r\n\r\n"),
        ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("two lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
        ("length and chunks", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("bad length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx"),
        ("folded line", b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n"),
        ("space before colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        ("no HTTP", b"\x16\x03\x01\x00\x05hello\r\n\r\n"),
        ("unknown coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
    ];
    for (what, bytes) in cases {
        let answer = raw(sealane.address("web"), bytes);

        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(matches!(status, "400" | "501"), "{what}: {answer:?}");
    }
    assert_eq!(
        text(
            &curl(&[
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                &sealane.url("web", "/")
            ])
            .stdout
        ),
        "200"
    );
}

/// Sends bytes and reads until the server closes.
fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is as good as a close.
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_ne!(
            error.kind(),
            std::io::ErrorKind::WouldBlock,
            "not closed: {:?}",
            text(&answer)
        );
    }
    text(&answer)
}

#[test]
fn malformed_dns_is_refused_by_its_code_or_not_answered() {
    let sealane = Sealane::demo(&[]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket.connect(sealane.address("dns")).unwrap();
    let name = b"\x03api\x07example\x04test\x00";
    let question = |flags: [u8; 2], count: u8, tail: &[u8]| {
        let mut bytes = vec![0x12, 0x34, flags[0], flags[1], 0, count, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(tail);
        bytes
    };
    let code = |bytes: &[u8]| {
        socket.send(bytes).unwrap();
        let mut answer = [0; 1500];
        let len = socket.recv(&mut answer).unwrap();
        assert!(
            len >= 12 && answer[..2] == bytes[..2],
            "not an answer to it"
        );
        answer[3] & 0xf
    };

    assert_eq!(code(&question([1, 0], 1, &[0, 1, 0, 1])), 0, "lawful");
    assert_eq!(
        code(&question([1, 0], 2, &[0, 1, 0, 1])),
        1,
        "two questions: FORMERR"
    );
    assert_eq!(code(&question([1, 0], 1, &[0, 1])), 1, "cut off: FORMERR");
    assert_eq!(
        code(&question([0x29, 0], 1, &[0, 6, 0, 1])),
        4,
        "UPDATE: NOTIMP"
    );
    assert_eq!(
        code(&question([1, 0], 1, &[0, 1, 0, 3])),
        5,
        "class CH: REFUSED"
    );
    // An answer is never answered, nor is what has no whole header: the next answer is the lawful one's.
    socket.send(&question([0x81, 0], 1, &[0, 1, 0, 1])).unwrap();
    socket.send(&[0, 1, 2]).unwrap();
    assert_eq!(code(&question([1, 0], 1, &[0, 1, 0, 1])), 0);
}
