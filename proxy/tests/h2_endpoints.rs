//! HTTP/2 toward endpoints, frame by frame: endpoints that break the protocol, reset streams, leave,
//! or grant little. Each case names the section of RFC 9113 that it follows.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
mod edge;
#[allow(dead_code, reason = "other tests use more of it")]
mod frames;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use edge::{Edge, Http2, PATIENCE, any_port, reply2};
use frames::{
    ACK, END_STREAM, PREFACE, RawClient, block, data, frame, headers, kind, literal, reset,
    settings, window_update,
};
use sealane_model::Verdict::Up;
use sealane_testkit::World;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// `:status: 200`.
const OK: &[u8] = b"\x88";

/// A connection from the proxy after both prefaces.
async fn accept(listener: &TcpListener, ours: &[(u16, u32)]) -> RawClient<TcpStream> {
    let (mut io, _) = listener.accept().await.unwrap();
    let mut preface = [0; PREFACE.len()];
    io.read_exact(&mut preface).await.unwrap();
    assert_eq!(preface, PREFACE);
    let mut connection = RawClient::over(io);
    connection.send(&settings(ours)).await;
    connection
}

/// The next stream that the proxy begins; `None` when it closes.
async fn stream(connection: &mut RawClient<TcpStream>) -> Option<u32> {
    while let Some(frame) = connection.frame().await {
        if frame.kind == kind::HEADERS {
            return Some(frame.stream);
        }
        if frame.kind == kind::SETTINGS && frame.flags & ACK == 0 {
            connection.send(&acknowledged()).await;
        }
    }
    None
}

fn acknowledged() -> Vec<u8> {
    frame(kind::SETTINGS, ACK, 0, &[])
}

/// Answers the first request of all with these bytes, and every other one with 200.
struct Misbehaving {
    edge: Edge,
    connections: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Misbehaving {
    async fn start(bytes: Vec<u8>) -> Self {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut serving = JoinSet::new();
            let bytes = Arc::new(bytes);
            loop {
                let mut connection = accept(&listener, &[]).await;
                let nth = count.fetch_add(1, Ordering::Relaxed);
                let bytes = Arc::clone(&bytes);
                serving.spawn(async move {
                    let mut first = nth == 0;
                    while let Some(stream) = stream(&mut connection).await {
                        if std::mem::take(&mut first) {
                            connection.send(&bytes).await;
                        } else {
                            connection.send(&headers(stream, END_STREAM, OK)).await;
                        }
                    }
                });
            }
        });
        let world = World::new().region("eu", Up).endpoint(&address, Up).http2();
        let edge = Edge::start_with_workers(world.build(), 1, |config| {
            config.routes[0].retry.attempts = 1;
            config.routes[0].timeouts.attempt = Duration::from_secs(3);
        });
        Self {
            edge,
            connections,
            _task: task,
        }
    }

    /// Status and refusal of the request that is answered in the strange way, the status of the one
    /// behind it, and the connections that both took.
    async fn observe(&self) -> (u16, String, u16, usize) {
        let mut client = self.edge.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: x.test\r\n\r\n").await;
        let mut first = client.reply("GET").await;
        while first.status() < 200 {
            first = client.reply("GET").await;
        }
        let refusal = first.head.field("x-sealane-refusal").unwrap_or_default();
        let mut other = self.edge.connect().await;
        let second = other.get("/").await.status();
        let connections = self.connections.load(Ordering::Relaxed);
        (first.status(), refusal.to_owned(), second, connections)
    }
}

#[tokio::test]
async fn an_endpoint_that_breaks_the_protocol_is_left() {
    let on_one = |bytes: &[u8]| headers(1, END_STREAM, bytes);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "4.2 a frame above the limit",
            frame(kind::DATA, 0, 1, &[0; 16_385]),
        ),
        ("4.3 a block that cannot be decoded", on_one(b"\x80")),
        ("5.1 DATA on an idle stream", data(5, 0, b"x")),
        (
            "5.1.1 HEADERS on a stream of its own",
            headers(2, END_STREAM, OK),
        ),
        ("6.1 DATA on stream 0", data(0, 0, b"x")),
        ("6.2 HEADERS on stream 0", headers(0, END_STREAM, OK)),
        ("6.4 RST_STREAM on stream 0", reset(0, 8)),
        ("6.5 SETTINGS on a stream", frame(kind::SETTINGS, 0, 1, b"")),
        ("6.5.2 a server that pushes", settings(&[(2, 2)])),
        ("6.5.2 MAX_FRAME_SIZE of 1", settings(&[(5, 1)])),
        (
            "6.6 PUSH_PROMISE, which was forbidden",
            frame(kind::PUSH_PROMISE, 4, 1, b"\0\0\0\x02\x82"),
        ),
        ("6.7 PING of 7 bytes", frame(kind::PING, 0, 0, &[0; 7])),
        ("6.9 an increment of 0", window_update(0, 0)),
        (
            "6.10 CONTINUATION of nothing",
            frame(kind::CONTINUATION, 4, 1, OK),
        ),
        ("3.4 HTTP/1.1", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
    ];
    let mut wrong = String::new();
    for (what, bytes) in cases {
        let seen = Misbehaving::start(bytes).await.observe().await;
        if !matches!(&seen, (502, refusal, 200, 2) if refusal == "endpoint_protocol") {
            writeln!(wrong, "{what}: {seen:?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test]
async fn an_answer_that_is_malformed_goes_no_further_and_others_do() {
    let answer = |fields: &[(&[u8], &[u8])]| headers(1, END_STREAM, &block(fields));
    let ok: (&[u8], &[u8]) = (b":status", b"200");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("8.1 DATA before a head", data(1, END_STREAM, b"x")),
        (
            "8.1.1 less than its length",
            answer(&[ok, (b"content-length", b"5")]),
        ),
        (
            "8.1.1 an empty length",
            answer(&[ok, (b"content-length", b"")]),
        ),
        (
            "8.1.1 two lengths",
            answer(&[ok, (b"content-length", b"0"), (b"content-length", b"5")]),
        ),
        ("8.2.1 an uppercase name", answer(&[ok, (b"X-A", b"b")])),
        (
            "8.2.1 a quotation mark in a name",
            answer(&[ok, (b"x\"a", b"b")]),
        ),
        (
            "8.2.1 CR LF in a value",
            answer(&[ok, (b"x-a", b"b\r\nc: d")]),
        ),
        ("8.2.2 connection", answer(&[ok, (b"connection", b"close")])),
        (
            "8.3 a pseudo-header behind others",
            answer(&[(b"x-a", b"b"), ok]),
        ),
        ("8.3.2 no status", answer(&[(b"x-a", b"b")])),
        (
            "8.3.2 a status that is none",
            answer(&[(b":status", b"abc")]),
        ),
        (
            "8.1 an interim head that ends",
            answer(&[(b":status", b"103")]),
        ),
    ];
    let mut wrong = String::new();
    for (what, bytes) in cases {
        let seen = Misbehaving::start(bytes).await.observe().await;
        if !matches!(seen, (502, _, 200, _)) {
            writeln!(wrong, "{what}: {seen:?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test]
async fn a_stream_that_is_reset_is_a_failure_of_its_own_whatever_the_code() {
    // §7: all that are defined, and one that is not.
    let mut wrong = String::new();
    for code in (0..=13).chain([0xff]) {
        let seen = Misbehaving::start(reset(1, code)).await.observe().await;
        if !matches!(seen, (502, _, 200, 1)) {
            writeln!(wrong, "{code}: {seen:?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// §6.8, §8.7: what is above the last stream that the endpoint takes was not looked at.
#[tokio::test]
async fn a_goodbye_under_load_loses_nothing() {
    let leaving = TcpListener::bind(any_port()).await.unwrap();
    let address = leaving.local_addr().unwrap().to_string();
    let world = World::new().region("eu", Up).endpoint(&address, Up).http2();
    let edge = Edge::start_with_workers(world.build(), 1, |config| {
        config.routes[0].timeouts.attempt = PATIENCE;
        config.routes[0].retry.budget = sealane_model::Ratio::new(1.0).unwrap();
    });
    let serving = async {
        let mut connection = accept(&leaving, &[]).await;
        let mut begun = Vec::new();
        while begun.len() < 5 {
            begun.push(stream(&mut connection).await.unwrap());
        }
        assert_eq!(begun, [1, 3, 5, 7, 9]);
        // Two are taken; and the settings shrink.
        let goodbye = frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]);
        connection.send(&goodbye).await;
        connection.send(&settings(&[(3, 1)])).await;
        for stream in [1, 3] {
            connection.send(&headers(stream, 0, OK)).await;
            connection.send(&data(stream, END_STREAM, b"taken")).await;
        }
        // The others come again, on a connection of their own.
        let mut next = accept(&leaving, &[]).await;
        for _ in 0..3 {
            let stream = stream(&mut next).await.unwrap();
            next.send(&headers(stream, END_STREAM, OK)).await;
        }
        assert!(connection.ends().await, "it is no longer of use");
        next // closed with bodies unread, it would take its answers back
    };
    let asking = async {
        let client = Http2::connect(edge.address()).await;
        let mut answers = Vec::new();
        for _ in 0..5 {
            let request = http::Request::post("http://x.test/upload")
                .body(())
                .unwrap();
            let mut requests = client.requests.clone().ready().await.unwrap();
            let (answer, mut send) = requests.send_request(request, false).unwrap();
            send.send_data(bytes::Bytes::from_static(b"abc"), true)
                .unwrap();
            answers.push(answer);
        }
        let mut taken = 0;
        for answer in answers {
            let reply = reply2(answer).await;
            assert_eq!(reply.head.status, 200, "{:?}", reply.head.headers);
            taken += usize::from(reply.body == b"taken");
        }
        assert_eq!(taken, 2);
    };

    let both = async { tokio::join!(asking, serving) };
    tokio::time::timeout(PATIENCE, both).await.unwrap();
}

/// §6.9.2: the windows of streams that are open change with the setting.
#[tokio::test]
async fn an_upload_keeps_within_what_the_endpoint_grants() {
    const GRANTED: u32 = 10;
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let world = World::new().region("eu", Up).endpoint(&address, Up);
    let edge = Edge::start_with_workers(world.http2().build(), 1, |config| {
        config.routes[0].timeouts.attempt = PATIENCE;
    });
    let serving = async {
        let mut connection = accept(&listener, &[(4, GRANTED)]).await;
        // By the second request, the settings were read.
        let first = stream(&mut connection).await.unwrap();
        connection.send(&headers(first, END_STREAM, OK)).await;
        let stream = stream(&mut connection).await.unwrap();
        let (mut body, mut granted) = (Vec::new(), GRANTED as usize);
        loop {
            let frame = connection.frame().await.unwrap();
            if frame.kind != kind::DATA {
                continue;
            }
            body.extend_from_slice(&frame.payload);
            assert!(body.len() <= granted, "{} of {granted}", body.len());
            if frame.ends_stream() {
                break;
            }
            if body.len() < granted {
                continue;
            }
            if body.len() == 50 {
                // As if 5 more bytes had been granted.
                connection.send(&settings(&[(4, GRANTED + 5)])).await;
                granted += 5;
            } else {
                connection.send(&window_update(stream, GRANTED)).await;
                granted += GRANTED as usize;
            }
        }
        let length = literal(b"content-length", b"3");
        connection
            .send(&headers(stream, 0, &[OK, &length].concat()))
            .await;
        connection.send(&data(stream, END_STREAM, b"yes")).await;
        body
    };
    let asking = async {
        let mut client = edge.connect().await;
        assert_eq!(client.get("/").await.status(), 200);
        let body = "0123456789".repeat(20);
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n{body}"
            ))
            .await;
        assert_eq!(client.reply("POST").await.text(), "yes");
        body.into_bytes()
    };

    let both = async { tokio::join!(asking, serving) };
    let (sent, arrived) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!(sent, arrived);
}

/// §5.1.2, before the endpoint's settings are there: nobody is refused for not knowing them.
#[tokio::test]
async fn one_stream_is_begun_until_the_endpoint_has_said_how_many_it_takes() {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let world = World::new().region("eu", Up).endpoint(&address, Up);
    let edge = Edge::start_with_workers(world.http2().build(), 1, |config| {
        config.routes[0].timeouts.attempt = PATIENCE;
    });
    let serving = async {
        let (mut io, _) = listener.accept().await.unwrap();
        let mut preface = [0; PREFACE.len()];
        io.read_exact(&mut preface).await.unwrap();
        let mut connection = RawClient::over(io);
        assert_eq!(stream(&mut connection).await, Some(1));
        let silence = Duration::from_millis(300);
        let more = tokio::time::timeout(silence, stream(&mut connection)).await;
        assert!(more.is_err(), "{more:?}");
        connection.send(&settings(&[(3, 2)])).await;
        assert_eq!(stream(&mut connection).await, Some(3));
        let more = tokio::time::timeout(silence, stream(&mut connection)).await;
        assert!(more.is_err(), "{more:?}");
        for nth in [1, 3, 5] {
            connection.send(&headers(nth, END_STREAM, OK)).await;
            if nth == 1 {
                assert_eq!(stream(&mut connection).await, Some(5));
            }
        }
    };
    let asking = async {
        let client = Http2::connect(edge.address()).await;
        let get = || async {
            let status = client_get(&client).await;
            assert_eq!(status, 200);
        };
        tokio::join!(get(), get(), get());
    };

    let both = async { tokio::join!(asking, serving) };
    tokio::time::timeout(PATIENCE, both).await.unwrap();
}

async fn client_get(client: &Http2) -> u16 {
    let request = http::Request::get("http://x.test/").body(()).unwrap();
    let mut requests = client.requests.clone().ready().await.unwrap();
    let (answer, _) = requests.send_request(request, true).unwrap();
    reply2(answer).await.head.status.as_u16()
}
