//! What curl asks for, over each version of HTTP that it speaks: bodies that are asked for, heads
//! alone, answers without bodies, answers that come early, parts of files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
mod edge;

use std::process::Command;

use edge::{Edge, any_port, certificate, listener, server_tls};
use sealane_model::Verdict::Up;
use sealane_proxy::config::ListenerProtocol;
use sealane_testkit::http1::Head;
use sealane_testkit::{ScriptedEndpoint, World};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The listener, and how curl is told which version to speak there.
const WAYS: [(&str, &[&str]); 5] = [
    ("web", &["--http1.1"]),
    ("web", &["--http1.0"]),
    ("web", &["--http2-prior-knowledge"]),
    ("secure", &["--http1.1"]),
    ("secure", &["--http2"]),
];

fn edge_to(address: &str) -> Edge {
    let world = World::new().region("eu", Up).endpoint(address, Up);
    Edge::start_with(world.build(), |config| {
        let tls = ListenerProtocol::Https(server_tls(&certificate()));
        config.listeners.push(listener("secure", tls));
    })
}

/// Heads that are alone in `printed`, and what came behind them; curl must be content.
async fn curl(edge: &Edge, way: (&str, &[&str]), path: &str, arguments: &[&str]) -> Curled {
    let scheme = if way.0 == "web" { "http" } else { "https" };
    let url = format!("{scheme}://{}{path}", edge.address_of(way.0));
    let mut command = Command::new("curl");
    command.args(["-sSk", "--max-time", "20", "-D", "/dev/stderr", &url]);
    command.args(way.1).args(arguments);
    let ran = tokio::task::spawn_blocking(move || command.output());
    let ran = ran.await.unwrap().expect("curl is installed");
    let heads = String::from_utf8(ran.stderr).unwrap().replace('\r', "");
    assert!(
        ran.status.success(),
        "{way:?} {path} {arguments:?}: {heads}"
    );
    Curled {
        heads,
        body: ran.stdout,
    }
}

struct Curled {
    heads: String,
    body: Vec<u8>,
}

impl Curled {
    /// Of each head, informational ones first.
    fn statuses(&self) -> Vec<u16> {
        let first_lines = self.heads.lines().filter(|line| line.starts_with("HTTP/"));
        first_lines
            .map(|line| line.split(' ').nth(1).unwrap().parse().unwrap())
            .collect()
    }

    fn status(&self) -> u16 {
        *self.statuses().last().unwrap()
    }

    fn says(&self, field: &str) -> bool {
        self.heads
            .lines()
            .any(|line| line.eq_ignore_ascii_case(field))
    }
}

#[tokio::test]
async fn answers_without_a_body_are_ends_in_themselves() {
    let one = ScriptedEndpoint::start_anywhere("one", "eu").await.unwrap();
    let edge = edge_to(&one.address().to_string());
    for way in WAYS {
        let head = curl(&edge, way, "/bytes/1000", &["--head"]).await;
        assert_eq!(head.status(), 200, "{way:?}");
        assert!(head.says("content-length: 1000"), "{}", head.heads);
        for status in [204, 304, 404] {
            let path = format!("/status/{status}");
            let answer = curl(&edge, way, &path, &[]).await;
            assert_eq!(answer.status(), status, "{way:?}");
        }
        // Two requests on one connection: the second is in step. With prior knowledge, curl 7.88
        // fails at its second request whoever serves.
        if way.1 == ["--http2-prior-knowledge"] {
            continue;
        }
        let both = format!(
            "http{}://{}/bytes/7",
            if way.0 == "web" { "" } else { "s" },
            edge.address_of(way.0)
        );
        let answer = curl(&edge, way, "/status/204", &[&both]).await;
        assert_eq!(answer.statuses(), [204, 200], "{way:?}");
        assert_eq!(answer.body.len(), 7);
    }
}

#[tokio::test]
async fn uploads_arrive_whole_whether_or_not_they_wait_to_be_asked_for() {
    let one = ScriptedEndpoint::start_anywhere("one", "eu").await.unwrap();
    let edge = edge_to(&one.address().to_string());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("upload");
    let bytes = 2_000_000;
    std::fs::write(&file, vec![b'u'; bytes]).unwrap();
    let file = file.to_str().unwrap();
    let counted = format!("\"bytes\":{bytes}");
    for way in WAYS {
        let chunked = ["-T", file, "-H", "transfer-encoding: chunked"];
        let expecting = ["-T", file, "-H", "expect: 100-continue"];
        let plain = ["-T", file, "-H", "expect:"];
        let old = way.1 == ["--http1.0"];
        for arguments in [&chunked[..], &expecting, &plain] {
            if old && arguments != plain {
                continue; // it has neither chunks nor expectations
            }
            let answer = curl(&edge, way, "/upload", arguments).await;
            let told = String::from_utf8(answer.body).unwrap().replace(' ', "");
            assert!(told.contains(&counted), "{way:?} {arguments:?}: {told}");
        }
        // curl 7.88 takes the RST_STREAM(NO_ERROR) of RFC 9113 §8.1 for a failure, nghttp does not:
        // nghttp2.rs has this over HTTP/2.
        if way.1[0].starts_with("--http2") {
            continue;
        }
        let early = curl(&edge, way, "/early", &["-T", file]).await;
        assert_eq!(early.status(), 413, "{way:?}");
    }
}

/// Serves one text, and parts of it as RFC 9110 §14 has them.
async fn serve_parts(io: TcpStream) -> Option<()> {
    let text = "0123456789abcdef";
    let mut io = BufReader::new(io);
    loop {
        let head = Head::read(&mut io).await.ok()??;
        let part = head.field("range").and_then(|range| {
            let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
            let from: usize = from.parse().ok()?;
            let to = to.parse().unwrap_or(text.len() - 1);
            Some((from, to))
        });
        let answer = match part {
            None => format!(
                "HTTP/1.1 200 OK\r\naccept-ranges: bytes\r\ncontent-length: {}\r\n\r\n{text}",
                text.len()
            ),
            Some((from, to)) => format!(
                "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-{to}/{}\r\ncontent-length: {}\r\n\r\n{}",
                text.len(),
                to + 1 - from,
                &text[from..=to]
            ),
        };
        io.write_all(answer.as_bytes()).await.ok()?;
    }
}

#[tokio::test]
async fn parts_are_asked_for_and_downloads_resumed() {
    let socket = TcpListener::bind(any_port()).await.unwrap();
    let edge = edge_to(&socket.local_addr().unwrap().to_string());
    let mut endpoint = JoinSet::new();
    endpoint.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (io, _) = socket.accept().await.unwrap();
            connections.spawn(serve_parts(io));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("half");
    for way in WAYS {
        let part = curl(&edge, way, "/", &["-r", "2-5"]).await;
        assert_eq!((part.status(), &*part.body), (206, &b"2345"[..]));
        assert!(part.says("content-range: bytes 2-5/16"), "{}", part.heads);

        std::fs::write(&file, "01234567").unwrap();
        let output = ["-C", "-", "-o", file.to_str().unwrap()];
        let rest = curl(&edge, way, "/", &output).await;
        assert_eq!(rest.status(), 206, "{way:?}");
        assert_eq!(std::fs::read(&file).unwrap(), b"0123456789abcdef");
    }
}
