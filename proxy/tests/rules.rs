//! What a route may do besides choosing an endpoint, as curl and plain clients see it: headers,
//! paths, redirects, fixed answers, maintenance, CORS, compression.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
mod edge;

use std::net::SocketAddr;
use std::time::Duration;

use edge::{Edge, Http1, Http2, PATIENCE, any_port, ask};
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use sealane_model::Snapshot;
use sealane_model::Verdict::Up;
use sealane_proxy::config::{
    Action, AllowedHeaders, Compression, Config, Cors, Encoding, FixedAnswer, Maintenance, NewPath,
    OriginPattern, Origins, Part, Placeholder, Redirect, Template, TypePattern,
};
use sealane_testkit::{ScriptedEndpoint, World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

async fn endpoint() -> ScriptedEndpoint {
    ScriptedEndpoint::start_anywhere("one", "eu").await.unwrap()
}

fn world_at(address: SocketAddr) -> Snapshot {
    World::new()
        .region("eu", Up)
        .endpoint(&address.to_string(), Up)
        .build()
}

async fn edge_with(change: impl FnOnce(&mut Config)) -> (Edge, ScriptedEndpoint) {
    let one = endpoint().await;
    let edge = Edge::start_with(world_at(one.address()), change);
    (edge, one)
}

struct Curled {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Curled {
    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Runs curl; its body is decoded if `--compressed` is among the arguments.
async fn curl(edge: &Edge, path: &str, arguments: &[&str]) -> Curled {
    let url = format!("http://{}{path}", edge.address());
    let mut command = std::process::Command::new("curl");
    command.args(["-s", "-S", "--max-time", "20", "-D", "/dev/stderr", &url]);
    command.args(["-H", "host: x.test"]).args(arguments);
    let ran = tokio::task::spawn_blocking(move || command.output());
    let ran = ran.await.unwrap().expect("curl is installed");
    let head = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.success(), "curl {arguments:?}: {head}");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Curled {
        status,
        head: head.replace('\r', ""),
        body: ran.stdout,
    }
}

fn name(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

fn template(parts: &[Part]) -> Template {
    Template(parts.to_vec())
}

fn text(text: &str) -> Part {
    Part::Text(text.into())
}

#[tokio::test]
async fn the_operators_headers_and_path_are_what_endpoints_and_clients_see() {
    let (edge, _one) = edge_with(|config| {
        let route = &mut config.routes[0];
        route.when.path_prefix = Some("/api".into());
        let options = &mut route.options;
        options.rewrite.prefix = Some("/headers".into());
        options.rewrite.host = Some(HeaderValue::from_static("inside.test:81"));
        let edits = &mut options.request_headers;
        edits.remove.push(name("x-secret"));
        let client = [
            Part::Value(Placeholder::ClientIp),
            text("/"),
            Part::Value(Placeholder::Host),
        ];
        edits.set.push((name("x-client"), template(&client)));
        edits.add.push((name("x-tag"), template(&[text("two")])));
        let edits = &mut options.response_headers;
        edits.remove.push(name("x-endpoint"));
        let who = [Part::Value(Placeholder::Region), text("!")];
        edits.set.push((name("x-served-by"), template(&who)));
    })
    .await;

    let sent = [
        "-H",
        "x-secret: 1",
        "-H",
        "x-client: forged",
        "-H",
        "x-tag: one",
    ];
    let reply = curl(&edge, "/api/x?y=1", &sent).await;

    let seen = reply.text().replace('\r', "").to_lowercase();
    assert!(seen.starts_with("get /headers/x?y=1 http/1.1\n"), "{seen}");
    assert!(seen.contains("\nhost: inside.test:81\n"), "{seen}");
    assert!(seen.contains("\nx-forwarded-host: x.test\n"), "{seen}");
    assert!(seen.contains("\nx-client: 127.0.0.1/x.test\n"), "{seen}");
    assert!(
        seen.contains("\nx-tag: one\n") && seen.contains("\nx-tag: two\n"),
        "{seen}"
    );
    assert!(
        !seen.contains("x-secret") && !seen.contains("forged"),
        "{seen}"
    );
    assert_eq!(reply.field("x-served-by"), Some("eu!"));
    assert_eq!(reply.field("x-endpoint"), None);
}

#[tokio::test]
async fn the_operators_headers_are_on_refusals_too() {
    let (edge, one) = edge_with(|config| {
        let edits = &mut config.routes[0].options.response_headers;
        edits
            .set
            .push((name("x-policy"), template(&[text("strict")])));
    })
    .await;
    one.set_mode(sealane_testkit::Mode::Refuse).await.unwrap();

    let reply = curl(&edge, "/", &[]).await;

    assert_eq!(reply.status, 502);
    assert_eq!(reply.field("x-sealane-refusal"), Some("endpoint_refused"));
    assert_eq!(reply.field("x-policy"), Some("strict"));
}

fn redirect() -> Redirect {
    Redirect {
        status: StatusCode::MOVED_PERMANENTLY,
        scheme: None,
        host: Some("new.test".into()),
        port: None,
        path: NewPath::Prefix("/fresh".into()),
        keep_query: true,
    }
}

#[tokio::test]
async fn a_route_can_send_clients_elsewhere() {
    let (edge, one) = edge_with(|config| {
        config.routes[0].when.path_prefix = Some("/old".into());
        config.routes[0].action = Action::Redirect(redirect());
    })
    .await;

    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let reply = curl(&edge, "/old/a?b=c", &[version]).await;
        assert_eq!(reply.status, 301);
        assert_eq!(reply.field("location"), Some("http://new.test/fresh/a?b=c"));
        assert!(reply.body.is_empty());
    }
    let posted = curl(&edge, "/old", &["-d", "a body that nobody reads"]).await;
    assert_eq!(posted.field("location"), Some("http://new.test/fresh"));
    assert_eq!(one.requests(), 0);
}

#[tokio::test]
async fn a_redirect_to_the_same_place_is_refused_before_it_turns_in_circles() {
    let (edge, _one) = edge_with(|config| {
        config.routes[0].action = Action::Redirect(Redirect {
            scheme: Some(Scheme::HTTP),
            host: Some("x.test".into()),
            path: NewPath::Same,
            ..redirect()
        });
    })
    .await;

    let reply = curl(&edge, "/", &[]).await;

    assert_eq!(reply.status, 500);
    assert_eq!(reply.field("x-sealane-refusal"), Some("redirect_loop"));
}

#[tokio::test]
async fn a_listener_can_send_everybody_to_https() {
    let (edge, one) = edge_with(|config| {
        config.listeners[0].redirect_to_https = Some(443);
        config.routes.clear();
    })
    .await;

    let reply = curl(&edge, "/a/b?c", &[]).await;
    assert_eq!(reply.status, 308);
    assert_eq!(reply.field("location"), Some("https://x.test/a/b?c"));
    let two = curl(&edge, "/", &["--http2-prior-knowledge"]).await;
    assert_eq!(two.field("location"), Some("https://x.test/"));
    let hostless = ask(edge.address(), "GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(hostless.status(), 400);
    assert_eq!(one.requests(), 0);
}

fn fixed(status: u16, body: impl Into<bytes::Bytes>) -> FixedAnswer {
    FixedAnswer {
        status: StatusCode::from_u16(status).unwrap(),
        content_type: HeaderValue::from_static("text/html"),
        body: body.into(),
    }
}

#[tokio::test]
async fn a_fixed_answer_of_any_size_needs_no_endpoint() {
    let large = vec![b'x'; 1 << 20];
    let body = large.clone();
    let (edge, one) = edge_with(|config| {
        config.routes[0].action = Action::Respond(fixed(200, body));
    })
    .await;

    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let reply = curl(&edge, "/", &[version]).await;
        assert_eq!(reply.field("content-type"), Some("text/html"));
        assert_eq!(reply.field("content-length"), Some("1048576"));
        assert!(reply.body == large);
    }
    let mut client = edge.connect().await;
    client.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let head = client.reply("HEAD").await;
    assert_eq!(head.head.field("content-length"), Some("1048576"));
    assert_eq!(client.get("/").await.body.len(), 1 << 20);
    assert_eq!(one.requests(), 0);
}

#[tokio::test]
async fn a_fixed_answer_without_a_body_leaves_the_connection_in_step() {
    let (edge, _one) = edge_with(|config| {
        config.routes[0].action = Action::Respond(fixed(204, ""));
    })
    .await;
    let mut client = edge.connect().await;

    for _ in 0..2 {
        let reply = client.get("/").await;
        assert_eq!(reply.status(), 204);
        assert_eq!(reply.head.field("content-length"), None);
        assert_eq!(reply.head.field("content-type"), None);
    }
}

fn maintenance(except: &str) -> Maintenance {
    Maintenance {
        answer: fixed(503, "<h1>Back at noon</h1>"),
        retry_after: Some(Duration::from_secs(600)),
        except: vec![except.parse().unwrap()],
    }
}

#[tokio::test]
async fn in_maintenance_nobody_gets_through_but_some() {
    let (closed, one) = edge_with(|config| {
        config.routes[0].options.maintenance = Some(maintenance("192.0.2.0/24"));
    })
    .await;
    let reply = curl(&closed, "/", &[]).await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.text(), "<h1>Back at noon</h1>");
    assert_eq!(reply.field("retry-after"), Some("600"));
    assert_eq!(reply.field("x-sealane-refusal"), Some("maintenance"));
    let grpc = [
        "--http2-prior-knowledge",
        "-H",
        "content-type: application/grpc",
        "-d",
        "",
    ];
    let reply = curl(&closed, "/s/m", &grpc).await;
    assert_eq!(
        (reply.status, reply.field("grpc-status")),
        (200, Some("14"))
    );
    assert_eq!(one.requests(), 0);

    let (open, _one) = edge_with(|config| {
        config.routes[0].options.maintenance = Some(maintenance("127.0.0.0/8"));
    })
    .await;
    assert_eq!(curl(&open, "/", &[]).await.status, 200);
}

fn cors() -> Cors {
    Cors {
        origins: Origins::Listed(vec![OriginPattern::Below {
            scheme: "https://".into(),
            suffix: ".app.test".into(),
        }]),
        methods: vec![Method::PUT],
        headers: AllowedHeaders::Listed(vec![name("x-token")]),
        expose: vec![name("x-endpoint")],
        credentials: true,
        max_age: Duration::from_secs(600),
    }
}

fn preflight(origin: &str, method: &str) -> Vec<String> {
    let fields = [
        format!("origin: {origin}"),
        format!("access-control-request-method: {method}"),
        "access-control-request-headers: x-token".to_owned(),
    ];
    let mut arguments = vec!["-X".to_owned(), "OPTIONS".to_owned()];
    arguments.extend(
        fields
            .into_iter()
            .flat_map(|field| ["-H".to_owned(), field]),
    );
    arguments
}

async fn ask_leave(edge: &Edge, origin: &str, method: &str) -> Curled {
    let arguments = preflight(origin, method);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    curl(edge, "/", &arguments).await
}

#[tokio::test]
async fn a_page_of_another_origin_gets_its_leave_and_its_answer() {
    let (edge, one) = edge_with(|config| {
        // The preflight itself is no PUT.
        config.routes[0].when.methods = vec![Method::PUT, Method::GET];
        config.routes[0].options.cors = Some(cors());
    })
    .await;
    let origin = "https://www.app.test";

    let leave = ask_leave(&edge, origin, "PUT").await;
    assert_eq!(leave.status, 204);
    assert_eq!(leave.field("access-control-allow-origin"), Some(origin));
    assert_eq!(leave.field("access-control-allow-methods"), Some("PUT"));
    assert_eq!(leave.field("access-control-allow-headers"), Some("x-token"));
    assert_eq!(leave.field("access-control-max-age"), Some("600"));
    assert_eq!(one.requests(), 0);

    let answer = curl(&edge, "/", &["-H", "origin: https://www.app.test"]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("access-control-allow-origin"), Some(origin));
    assert_eq!(
        answer.field("access-control-allow-credentials"),
        Some("true")
    );
    assert_eq!(
        answer.field("access-control-expose-headers"),
        Some("x-endpoint")
    );
    assert_eq!(answer.field("vary"), Some("Origin"));

    let nobody = curl(&edge, "/", &[]).await;
    assert_eq!(nobody.field("access-control-allow-origin"), None);
    assert_eq!(nobody.field("vary"), Some("Origin"));
}

#[tokio::test]
async fn a_page_without_leave_is_told_why() {
    let (edge, one) = edge_with(|config| config.routes[0].options.cors = Some(cors())).await;

    let stranger = ask_leave(&edge, "https://evil.test", "PUT").await;
    assert_eq!(stranger.status, 403);
    assert_eq!(stranger.field("x-sealane-refusal"), Some("cors_origin"));
    assert_eq!(stranger.field("access-control-allow-origin"), None);
    let deleting = ask_leave(&edge, "https://www.app.test", "DELETE").await;
    assert_eq!(deleting.field("x-sealane-refusal"), Some("cors_method"));
    assert_eq!(one.requests(), 0);
}

#[tokio::test]
async fn a_page_can_read_why_it_was_refused() {
    let (edge, one) = edge_with(|config| config.routes[0].options.cors = Some(cors())).await;
    one.set_mode(sealane_testkit::Mode::Refuse).await.unwrap();

    let refused = curl(&edge, "/", &["-H", "origin: https://www.app.test"]).await;

    assert_eq!(refused.status, 502);
    let origin = refused.field("access-control-allow-origin");
    assert_eq!(origin, Some("https://www.app.test"));
}

fn compression(encodings: &[Encoding]) -> Compression {
    Compression {
        encodings: encodings.to_vec(),
        types: vec![
            TypePattern::Exact("application/octet-stream".into()),
            TypePattern::Around("text/".into(), "".into()),
        ],
        size_min: 1024,
        level: 4,
    }
}

#[tokio::test]
async fn answers_are_compressed_for_curl_in_each_coding_and_version() {
    for encoding in [Encoding::Zstd, Encoding::Brotli, Encoding::Gzip] {
        let (edge, _one) = edge_with(|config| {
            config.routes[0].options.compression = Some(compression(&[encoding]));
        })
        .await;
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            for path in [
                "/bytes/300000",
                "/chunked/300000",
                "/chunked/0",
                "/chunked/1",
            ] {
                let plain = curl(&edge, path, &[version]).await;
                let small = curl(
                    &edge,
                    path,
                    &[version, "-H", "accept-encoding: zstd, br, gzip"],
                )
                .await;
                let read = curl(&edge, path, &[version, "--compressed"]).await;
                assert_eq!(plain.field("content-encoding"), None);
                assert_eq!(plain.field("vary"), Some("Accept-Encoding"));
                assert_eq!(read.field("content-encoding"), Some(encoding.as_str()));
                assert_eq!(read.field("content-length"), None);
                assert!(read.body == plain.body, "{encoding:?} {version} {path}");
                if plain.body.len() > 1000 {
                    assert!(
                        small.body.len() * 20 < plain.body.len(),
                        "{}",
                        small.body.len()
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_small_or_unasked_for_is_not_compressed() {
    let (edge, _one) = edge_with(|config| {
        config.routes[0].options.compression = Some(compression(&[Encoding::Gzip]));
    })
    .await;
    let mut client = edge.connect().await;

    let small = curl(&edge, "/bytes/1023", &["--compressed"]).await;
    assert_eq!(small.field("content-encoding"), None);
    assert_eq!(small.field("content-length"), Some("1023"));
    let other = curl(&edge, "/bytes/9000", &["-H", "accept-encoding: br"]).await;
    assert_eq!(other.field("content-length"), Some("9000"));
    let old = "GET /bytes/9000 HTTP/1.0\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n";
    assert_eq!(ask(edge.address(), old).await.body.len(), 9000);
    let head = "HEAD /bytes/9000 HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n";
    client.send(head).await;
    let head = client.reply("HEAD").await;
    assert_eq!(head.head.field("content-length"), Some("9000"));
    assert_eq!(client.get("/who").await.status(), 200);
}

#[tokio::test]
async fn trailers_follow_a_compressed_body() {
    let (edge, _one) = edge_with(|config| {
        config.routes[0].options.compression = Some(compression(&[Encoding::Gzip]));
    })
    .await;
    let mut client = Http2::connect(edge.address()).await;
    let request = http::Request::get("http://x/chunked/5000")
        .header("accept-encoding", "gzip")
        .header("te", "trailers");
    let request = request.body(()).unwrap();
    let (answer, _) = client.requests.send_request(request, true).unwrap();

    let reply = edge::reply2(answer).await;

    assert_eq!(reply.head.headers["content-encoding"], "gzip");
    assert!(reply.body.len() < 1000);
    assert_eq!(reply.trailers.unwrap()["x-bytes"], "5000");
}

/// An endpoint that sends its answer's head at once and then what it is told to, piece by piece.
async fn live_endpoint(head: &'static str) -> (SocketAddr, mpsc::Sender<String>, JoinSet<()>) {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (events, mut told) = mpsc::channel::<String>(8);
    let mut task = JoinSet::new();
    task.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(head.as_bytes()).await.unwrap();
        while let Some(event) = told.recv().await {
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            stream.write_all(chunk.as_bytes()).await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        let _ = stream.read(&mut request).await;
    });
    (address, events, task)
}

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

#[tokio::test]
async fn server_sent_events_pass_one_by_one() {
    let (address, events, _task) = live_endpoint(EVENTS).await;
    let edge = Edge::start(world_at(address));
    let mut client = edge.connect().await;
    client.send("GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.head().await;

    for number in 0..3 {
        let event = format!("data: {number}\n\n");
        events.send(event.clone()).await.unwrap();
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        let mut read = vec![0; chunk.len()];
        within(client.stream.read_exact(&mut read)).await.unwrap();
        assert_eq!(read, chunk.as_bytes());
    }
    drop(events);
    let mut end = [0; 5];
    within(client.stream.read_exact(&mut end)).await.unwrap();
    assert_eq!(&end, b"0\r\n\r\n");
}

/// What can be decoded of a stream that has not ended.
fn decoded(encoding: Encoding, bytes: &[u8]) -> String {
    use std::io::Read as _;
    let mut out = Vec::new();
    let _ = match encoding {
        Encoding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out),
        Encoding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out),
        Encoding::Zstd => zstd::stream::read::Decoder::new(bytes)
            .and_then(|mut decoder| decoder.read_to_end(&mut out)),
    };
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn compressed_events_pass_one_by_one_too() {
    for encoding in [Encoding::Zstd, Encoding::Brotli, Encoding::Gzip] {
        let (address, events, _task) = live_endpoint(EVENTS).await;
        let edge = Edge::start_with(world_at(address), |config| {
            config.routes[0].options.compression = Some(compression(&[encoding]));
        });
        let mut client = Http2::connect(edge.address()).await;
        let request = http::Request::get("http://x/").header("accept-encoding", encoding.as_str());
        let request = request.body(()).unwrap();
        let (answer, _) = client.requests.send_request(request, true).unwrap();
        let mut body = within(answer).await.unwrap().into_body();

        let mut read = Vec::new();
        let mut expected = String::new();
        for number in 0..3 {
            let event = format!("data: {number}\n\n");
            expected.push_str(&event);
            events.send(event).await.unwrap();
            while decoded(encoding, &read) != expected {
                let piece = within(body.data()).await.unwrap().unwrap();
                read.extend_from_slice(&piece);
            }
        }
        drop(events);
        while let Some(piece) = within(body.data()).await {
            read.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(decoded(encoding, &read), expected);
    }
}

#[tokio::test]
async fn a_strong_validator_becomes_a_weak_one_and_forbidden_changes_are_not_made() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\netag: \"a\"\r\naccept-ranges: bytes\r\n\
                transfer-encoding: chunked\r\n\r\n";
    let (address, events, _task) = live_endpoint(head).await;
    drop(events);
    let on = |config: &mut Config| {
        config.routes[0].options.compression = Some(compression(&[Encoding::Gzip]));
    };
    let edge = Edge::start_with(world_at(address), on);
    let reply = curl(&edge, "/", &["--compressed"]).await;
    assert_eq!(reply.field("etag"), Some("W/\"a\""));
    assert_eq!(reply.field("accept-ranges"), None);

    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\netag: \"a\"\r\n\
                cache-control: public, no-transform\r\ntransfer-encoding: chunked\r\n\r\n";
    let (address, events, _task) = live_endpoint(head).await;
    drop(events);
    let edge = Edge::start_with(world_at(address), on);
    let reply = curl(&edge, "/", &["--compressed"]).await;
    assert_eq!(reply.field("etag"), Some("\"a\""));
    assert_eq!(reply.field("content-encoding"), None);
}

/// An endpoint whose answers begin and do not end.
async fn endless_endpoint() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            let start = format!("{EVENTS}6\r\nevent\n\r\n");
            stream.write_all(start.as_bytes()).await.unwrap();
            open.push(stream);
        }
    });
    (address, tasks)
}

#[tokio::test]
async fn compressors_are_bounded_and_given_back() {
    let (address, _tasks) = endless_endpoint().await;
    let edge = Edge::start_with(world_at(address), |config| {
        config.routes[0].options.compression = Some(compression(&[Encoding::Brotli]));
    });
    let is_compressed = async || {
        let mut client = Http1::connect(edge.address()).await;
        client
            .send("GET / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: br\r\n\r\n")
            .await;
        let head = client.head().await;
        (head.field("content-encoding").is_some(), client)
    };
    let mut clients = Vec::new();
    let mut compressed = 0;
    // Two workers with 64 MiB each, of which each of these takes 3.
    for _ in 0..60 {
        let (is, client) = is_compressed().await;
        compressed += usize::from(is);
        clients.push(client);
    }
    assert!((20..=42).contains(&compressed), "{compressed}");

    drop(clients);
    let again = async {
        while !is_compressed().await.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(again).await;
}
