//! WebSockets over HTTP/2 and gRPC's deadlines, through the proxy, by plain HTTP/2 clients.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
mod edge;
mod stream_io;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use edge::{Edge, Http2, PATIENCE, any_port, reply2};
use sealane_model::Snapshot;
use sealane_model::Verdict::Up;
use sealane_proxy::config::Config;
use sealane_testkit::websocket::{self, Kind};
use sealane_testkit::{ScriptedEndpoint, World};
use stream_io::{connect, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

fn world_at(address: SocketAddr) -> World {
    World::new()
        .region("eu", Up)
        .endpoint(&address.to_string(), Up)
}

async fn edge_to_one() -> (Edge, ScriptedEndpoint) {
    let one = ScriptedEndpoint::start_anywhere("one", "eu").await.unwrap();
    (Edge::start(world_at(one.address()).build()), one)
}

#[tokio::test]
async fn a_websocket_over_http_2_reaches_an_endpoint_that_speaks_http_1() {
    let (edge, _one) = edge_to_one().await;
    let client = Http2::connect(edge.address()).await;

    let (head, mut socket) = connect(&client, "/ws", "websocket", &[]).await;
    assert_eq!(head.status, 200);
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!head.headers.contains_key(name), "{name}");
    }
    for length in [0, 5, 70_000, 1_000_000] {
        let payload = vec![b'x'; length];
        let mask = Some([1, 2, 3, 4]);
        within(websocket::write(&mut socket, Kind::Binary, &payload, mask))
            .await
            .unwrap();
        let echoed = within(websocket::read(&mut socket)).await.unwrap();
        assert!(echoed.payload == payload);
    }
    websocket::write(&mut socket, Kind::Close, b"", Some([0; 4]))
        .await
        .unwrap();
    let closed = within(websocket::read(&mut socket)).await.unwrap();
    assert_eq!(closed.kind, Kind::Close);
    assert_eq!(
        within(socket.read_u8()).await.unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
}

#[tokio::test]
async fn other_streams_go_on_beside_a_websocket() {
    let (edge, _one) = edge_to_one().await;
    let mut client = Http2::connect(edge.address()).await;

    let (_, mut first) = connect(&client, "/ws/1", "websocket", &[]).await;
    let (_, mut second) = connect(&client, "/ws/2", "websocket", &[]).await;
    for socket in [&mut first, &mut second] {
        websocket::write(socket, Kind::Text, b"hello", Some([9; 4]))
            .await
            .unwrap();
        assert_eq!(
            within(websocket::read(socket)).await.unwrap().payload,
            b"hello"
        );
    }
    assert_eq!(client.get("http://x.test/who").await.head.status, 200);
}

/// Switches, says something at once, and sends back all it gets when that has ended.
async fn patient_endpoint() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 8192];
        let read = stream.read(&mut head).await.unwrap();
        let head = std::str::from_utf8(&head[..read]).unwrap();
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            let found = lines.find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value)
        };
        assert!(head.starts_with("GET /x HTTP/1.1\r\n"), "{head}");
        assert_eq!(field("content-length"), None);
        assert_eq!(field("transfer-encoding"), None);
        let accept = websocket::accept_of(field("sec-websocket-key").unwrap());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: {accept}\r\n\r\nwelcome "
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
    });
    (address, task)
}

#[tokio::test]
async fn a_client_that_ends_its_direction_is_still_answered() {
    let (address, _task) = patient_endpoint().await;
    let edge = Edge::start(world_at(address).build());
    let client = Http2::connect(edge.address()).await;

    let (head, mut socket) = connect(&client, "/x", "websocket", &[]).await;
    assert_eq!(head.status, 200);
    let much = vec![b'y'; 300_000];
    within(socket.write_all(&much)).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut all = Vec::new();
    within(socket.read_to_end(&mut all)).await.unwrap();

    assert_eq!(&all[..8], b"welcome ");
    assert!(all[8..] == much);
}

#[tokio::test]
async fn an_endpoint_that_does_not_switch_leaves_no_tunnel_behind() {
    let (edge, _one) = edge_to_one().await;
    let client = Http2::connect(edge.address()).await;

    // It answers 200, as if nothing had been asked for.
    let (head, _) = connect(&client, "/who", "websocket", &[]).await;
    assert_eq!(head.status, 501);
    assert_eq!(head.headers["x-sealane-refusal"], "websocket_unsupported");
    let (head, _) = connect(&client, "/status/403", "websocket", &[]).await;
    assert_eq!(head.status, 403);
}

#[tokio::test]
async fn an_unknown_protocol_and_a_plain_connect_are_refused() {
    let (edge, one) = edge_to_one().await;
    let client = Http2::connect(edge.address()).await;

    let (head, _) = connect(&client, "/", "connect-udp", &[]).await;
    assert_eq!(head.status, 501);
    assert_eq!(head.headers["x-sealane-refusal"], "connect_protocol");
    let plain = http::Request::builder().method("CONNECT").uri("x.test:80");
    let (answer, _) = client
        .requests
        .clone()
        .send_request(plain.body(()).unwrap(), false)
        .unwrap();
    assert_eq!(within(answer).await.unwrap().status(), 405);
    assert_eq!(one.requests(), 0);
}

#[tokio::test]
async fn a_websocket_for_an_endpoint_that_speaks_http_2_is_refused() {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let edge = Edge::start(world_at(listener.local_addr().unwrap()).http2().build());
    let client = Http2::connect(edge.address()).await;

    let (head, _) = connect(&client, "/", "websocket", &[]).await;

    assert_eq!(head.status, 501);
    assert_eq!(head.headers["x-sealane-refusal"], "websocket_unsupported");
}

#[tokio::test]
async fn a_silent_websocket_is_cut_after_the_idle_time_out() {
    let one = ScriptedEndpoint::start_anywhere("one", "eu").await.unwrap();
    let edge = Edge::start_with(world_at(one.address()).build(), |config| {
        config.routes[0].timeouts.idle = Duration::from_millis(300);
    });
    let client = Http2::connect(edge.address()).await;

    let (_, mut socket) = connect(&client, "/ws", "websocket", &[]).await;

    assert!(within(socket.read_u8()).await.is_err());
}

/// How an endpoint of gRPC behaves in these tests.
#[derive(Clone, Copy)]
enum Answering {
    /// Not at all.
    Never,
    /// With a head and one message, and then not any more.
    Begins,
}

/// Tells what `grpc-timeout` it was sent, and when its stream was reset.
async fn grpc_endpoint(how: Answering) -> (Snapshot, mpsc::Receiver<String>, JoinSet<()>) {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let world = world_at(listener.local_addr().unwrap()).http2().build();
    let (tell, told) = mpsc::channel(8);
    let mut task = JoinSet::new();
    task.spawn(async move {
        let (io, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(io).await.unwrap();
        let mut streams = JoinSet::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let timeout = request.headers()["grpc-timeout"]
                .to_str()
                .unwrap()
                .to_owned();
            tell.send(timeout).await.unwrap();
            let tell = tell.clone();
            streams.spawn(async move {
                let mut send = None;
                if let Answering::Begins = how {
                    let head = http::Response::builder().header("content-type", "application/grpc");
                    let mut begun = respond
                        .send_response(head.body(()).unwrap(), false)
                        .unwrap();
                    begun
                        .send_data(Bytes::from_static(b"\0\0\0\0\x01x"), false)
                        .unwrap();
                    send = Some(begun);
                }
                let reset = std::future::poll_fn(|cx| match &mut send {
                    Some(send) => send.poll_reset(cx),
                    None => respond.poll_reset(cx),
                });
                let reset = format!("{:?}", reset.await.unwrap());
                tell.send(reset).await.unwrap();
            });
        }
    });
    (world, told, task)
}

async fn call(
    client: &mut Http2,
    timeout: &str,
) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
    let request = http::Request::post("http://x.test/service/method")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout);
    client
        .requests
        .send_request(request.body(()).unwrap(), false)
        .unwrap()
}

fn millis(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().unwrap();
    match unit {
        "n" => number / 1_000_000,
        "u" => number / 1_000,
        "m" => number,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_deadline_goes_along_and_ends_a_call_that_was_not_answered() {
    let (world, mut told, _task) = grpc_endpoint(Answering::Never).await;
    let edge = Edge::start_with(world, |config| {
        config.routes[0].timeouts.attempt = PATIENCE;
        config.routes[0].timeouts.request = PATIENCE;
    });
    let mut client = Http2::connect(edge.address()).await;

    let (mut answer, _send) = call(&mut client, "700m").await;
    let early = tokio::time::timeout(Duration::from_millis(600), &mut answer).await;
    assert!(early.is_err());
    let reply = reply2(answer).await;

    assert_eq!(reply.head.headers["grpc-status"], "4");
    assert_eq!(reply.head.headers["x-sealane-refusal"], "deadline_exceeded");
    let passed_on = millis(&within(told.recv()).await.unwrap());
    assert!((300..700).contains(&passed_on), "{passed_on}");
    assert_eq!(within(told.recv()).await.unwrap(), "CANCEL");
}

#[tokio::test]
async fn a_deadline_ends_a_call_in_the_middle_of_its_answer() {
    let (world, mut told, _task) = grpc_endpoint(Answering::Begins).await;
    let mut edge = Edge::start(world);
    let mut client = Http2::connect(edge.address()).await;

    let (answer, _send) = call(&mut client, "500m").await;
    let reply = reply2(answer).await;

    assert_eq!(reply.body, b"\0\0\0\0\x01x");
    let trailers = reply.trailers.unwrap();
    assert_eq!(trailers["grpc-status"], "4");
    assert_eq!(within(told.recv()).await.map(|_| ()), Some(()));
    assert_eq!(within(told.recv()).await.unwrap(), "CANCEL");
    // It was the client's deadline, not the endpoint's fault.
    assert!(edge.observations.try_recv().is_err());
}

#[tokio::test]
async fn a_deadline_that_cannot_be_read_is_refused() {
    let (edge, one) = edge_to_one().await;
    let mut client = Http2::connect(edge.address()).await;

    let (answer, _send) = call(&mut client, "5 seconds").await;
    let reply = reply2(answer).await;

    assert_eq!(reply.head.headers["grpc-status"], "13");
    assert_eq!(one.requests(), 0);
}

/// More than have room in a default window of 64 KiB where each keeps 16 KiB of it.
const IDLE: usize = 20;
const MUCH: usize = 1_000_000;

/// No time-out frees a window in time for these tests.
fn never_ends(config: &mut Config) {
    let timeouts = &mut config.routes[0].timeouts;
    timeouts.attempt = 10 * PATIENCE;
    timeouts.request = 10 * PATIENCE;
    timeouts.idle = 10 * PATIENCE;
}

/// Answers `/much` with much, and everything else with the first event of a stream that goes on.
async fn endpoint_of_events() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let mut head = vec![0; 8192];
                let read = stream.read(&mut head).await.unwrap();
                let answer = if head[..read].starts_with(b"GET /much ") {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {MUCH}\r\n\r\n");
                    [head.into_bytes(), vec![b'm'; MUCH]].concat()
                } else {
                    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                                 transfer-encoding: chunked\r\n\r\n9\r\ndata: a\n\n\r\n";
                    head.to_vec()
                };
                stream.write_all(&answer).await.unwrap();
                // Until the proxy leaves.
                let _ = stream.read(&mut head).await;
            });
        }
    });
    (address, task)
}

#[tokio::test]
async fn idle_answers_leave_their_connection_s_window_to_a_busy_one() {
    let (address, _task) = endpoint_of_events().await;
    let edge = Edge::start_with(world_at(address).build(), never_ends);
    let mut client = Http2::connect(edge.address()).await;

    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let request = http::Request::get("http://x.test/events").body(()).unwrap();
        let mut requests = client.requests.clone().ready().await.unwrap();
        let (answer, _) = requests.send_request(request, true).unwrap();
        let mut events = within(answer).await.unwrap().into_body();
        let event = within(events.data()).await.unwrap().unwrap();
        assert_eq!(&event[..], b"data: a\n\n");
        let released = events.flow_control().release_capacity(event.len());
        released.unwrap();
        idle.push(events);
    }
    let busy = within(client.get("http://x.test/much")).await;

    assert_eq!(busy.body.len(), MUCH);
}

/// Counts the bytes of a request for `/sum` and leaves every other one unfinished; before or after the
/// answer's head. One connection, with a window of 64 KiB.
async fn endpoint_of_uploads(how: Answering) -> (Snapshot, mpsc::Receiver<()>, JoinSet<()>) {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let world = world_at(listener.local_addr().unwrap()).http2().build();
    let (tell, told) = mpsc::channel(IDLE);
    let mut task = JoinSet::new();
    task.spawn(async move {
        let (io, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(io).await.unwrap();
        let mut streams = JoinSet::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let tell = tell.clone();
            streams.spawn(async move {
                if request.uri().path() == "/sum" {
                    let mut body = request.into_body();
                    let mut sum = 0;
                    while let Some(piece) = body.data().await {
                        let length = piece.unwrap().len();
                        body.flow_control().release_capacity(length).unwrap();
                        sum += length;
                    }
                    let mut send = respond
                        .send_response(http::Response::new(()), false)
                        .unwrap();
                    send.send_data(sum.to_string().into(), true).unwrap();
                    return;
                }
                let begun = match how {
                    Answering::Never => None,
                    Answering::Begins => {
                        Some(respond.send_response(http::Response::new(()), false))
                    }
                };
                tell.send(()).await.unwrap();
                std::future::pending::<()>().await;
                drop((request, begun));
            });
        }
    });
    (world, told, task)
}

#[tokio::test]
async fn idle_uploads_leave_their_connection_s_window_to_a_busy_one() {
    for how in [Answering::Never, Answering::Begins] {
        let (world, mut told, _task) = endpoint_of_uploads(how).await;
        let edge = Edge::start_with(world, never_ends);
        let client = Http2::connect(edge.address()).await;
        let post = |path: &str| {
            let request = http::Request::post(format!("http://x.test{path}")).body(());
            let client = client.requests.clone();
            async move {
                let mut ready = client.ready().await.unwrap();
                ready.send_request(request.unwrap(), false).unwrap()
            }
        };

        let mut idle = Vec::new();
        for _ in 0..IDLE {
            idle.push(post("/idle").await);
            within(told.recv()).await.unwrap();
        }
        let (answer, mut send) = post("/sum").await;
        send.send_data(vec![b'u'; MUCH].into(), true).unwrap();

        assert_eq!(
            within(reply2(answer)).await.body,
            MUCH.to_string().as_bytes()
        );
    }
}
