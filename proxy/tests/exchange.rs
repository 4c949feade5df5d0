//! What clients and endpoints see of the proxy, over real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod edge;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use edge::{
    Edge, Http1, Http2, PATIENCE, ask, certificate, connect_tls, listener, reply2, server_tls,
};
use sealane_model::Verdict::Up;
use sealane_model::{AllDown, EndpointTls, Failure, Outcome, Roots, Snapshot, TlsVersion};
use sealane_proxy::config::ListenerProtocol;
use sealane_proxy::{Deps, Options, Proxy};
use sealane_testkit::{Mode, ScriptedEndpoint, World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

async fn endpoint(name: &str) -> ScriptedEndpoint {
    ScriptedEndpoint::start_anywhere(name, "eu").await.unwrap()
}

fn world_of(endpoints: &[&ScriptedEndpoint]) -> Snapshot {
    let mut world = World::new().region("eu", Up);
    for endpoint in endpoints {
        world = world.endpoint(&endpoint.address().to_string(), Up);
    }
    world.build()
}

fn world_at(address: SocketAddr) -> World {
    World::new()
        .region("eu", Up)
        .endpoint(&address.to_string(), Up)
}

/// The first tier has one endpoint, the second tier the other.
fn first_and_second(first: &ScriptedEndpoint, second: &ScriptedEndpoint) -> Snapshot {
    World::new()
        .region("near", Up)
        .endpoint(&first.address().to_string(), Up)
        .priority(1)
        .region("far", Up)
        .endpoint(&second.address().to_string(), Up)
        .priority(2)
        .build()
}

#[tokio::test]
async fn requests_share_connections_on_both_sides() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let mut client = edge.connect().await;

    for _ in 0..3 {
        let reply = client.get("/who").await;
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.head.field("x-sealane-region"), Some("eu"));
        assert!(reply.text().contains("\"endpoint\":\"one\""));
    }
    assert_eq!((one.requests(), one.connections()), (3, 1));
}

#[tokio::test]
async fn bodies_pass_in_every_framing() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let mut client = edge.connect().await;

    client
        .send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
        .await;
    assert_eq!(client.reply("POST").await.text(), "hello");
    client
        .send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client
        .send("5\r\nhello\r\n7\r\n, world\r\n0\r\nx: y\r\n\r\n")
        .await;
    let echoed = client.reply("POST").await;
    assert_eq!(echoed.text(), "hello, world");
}

#[tokio::test]
async fn an_answer_in_chunks_arrives_whole() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let mut client = edge.connect().await;

    for size in [0, 1, 100_000, 3_000_000] {
        let chunked = client.get(&format!("/chunked/{size}")).await;
        assert_eq!(chunked.body.len(), size);
        let plain = client.get(&format!("/bytes/{size}")).await;
        assert_eq!(plain.body.len(), size);
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let mut client = edge.connect().await;

    client
        .send(
            "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab\
             POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
             GET /last HTTP/1.1\r\nHost: x\r\n\r\n\r\n\
             GET /very-last HTTP/1.1\r\nHost: x\r\n\r\n",
        )
        .await;

    assert!(client.reply("POST").await.text().contains("\"bytes\":2"));
    assert!(client.reply("POST").await.text().contains("\"bytes\":3"));
    assert!(client.reply("GET").await.text().contains("/last"));
    assert!(client.reply("GET").await.text().contains("/very-last"));
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_in_step() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let mut client = edge.connect().await;

    client
        .send("HEAD /bytes/1000 HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    let head = client.reply("HEAD").await;
    assert_eq!(head.head.field("content-length"), Some("1000"));
    assert_eq!(client.get("/status/204").await.status(), 204);
    assert_eq!(client.get("/status/304").await.status(), 304);
    assert_eq!(client.get("/who").await.status(), 200);
}

#[tokio::test]
async fn an_http_1_0_client_gets_its_answer_to_the_connections_end() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let mut client = edge.connect().await;

    client.send("GET /chunked/1000 HTTP/1.0\r\n\r\n").await;

    let head = client.head().await;
    assert_eq!(head.field("transfer-encoding"), None);
    assert_eq!(head.field("connection"), Some("close"));
    assert_eq!(client.rest().await.len(), 1000);
}

#[tokio::test]
async fn http_2_is_served_by_prior_knowledge() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let mut client = Http2::connect(edge.address()).await;

    let reply = client.get("http://x.test/who").await;
    assert_eq!(reply.head.status, 200);
    assert_eq!(
        client.get("http://x.test/bytes/300000").await.body.len(),
        300_000
    );
    assert_eq!(one.connections(), 1);
}

#[tokio::test]
async fn an_upload_that_ends_in_an_empty_frame_leaves_the_endpoints_connection_in_step() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let mut client = Http2::connect(edge.address()).await;
    for bytes in [3, 0] {
        let request = http::Request::post("http://x/upload").body(()).unwrap();
        let (answer, mut send) = client.requests.send_request(request, false).unwrap();
        send.send_data(Bytes::from(vec![b'a'; bytes]), false)
            .unwrap();
        send.send_data(Bytes::new(), true).unwrap();

        let reply = String::from_utf8(reply2(answer).await.body).unwrap();
        assert!(reply.contains(&format!("\"bytes\":{bytes}")), "{reply}");
        assert_eq!(client.get("http://x/who").await.head.status, 200);
    }
    assert_eq!(one.connections(), 1);
}

#[tokio::test]
async fn a_stream_that_the_endpoint_refused_is_sent_again_whatever_its_method() {
    let listener = TcpListener::bind(edge::any_port()).await.unwrap();
    let alive = endpoint("alive").await;
    let world = world_at(listener.local_addr().unwrap()).http2().priority(1);
    let world = world
        .region("far", Up)
        .endpoint(&alive.address().to_string(), Up);
    let edge = Edge::start(world.priority(2).build());
    let refusing = async {
        let (io, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(io).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
    };
    let asking = async {
        let mut client = edge.connect().await;
        client
            .send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
            .await;
        let reply = client.reply("POST").await;
        assert!(reply.text().contains("\"bytes\":3"), "{}", reply.text());
    };

    tokio::select! {
        () = asking => {}
        () = refusing => {}
    }
}

#[tokio::test]
async fn an_endpoint_that_says_goodbye_to_a_connection_gets_the_next_request_on_another() {
    let listener = TcpListener::bind(edge::any_port()).await.unwrap();
    let edge = Edge::start(world_at(listener.local_addr().unwrap()).http2().build());
    let serving = async {
        let mut leaving = Vec::new();
        loop {
            let (io, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(io).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            respond
                .send_response(http::Response::new(()), true)
                .unwrap();
            connection.graceful_shutdown();
            assert!(connection.accept().await.is_none());
            leaving.push(connection);
        }
    };
    let asking = async {
        let mut client = edge.connect().await;
        for _ in 0..5 {
            client
                .send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
                .await;
            assert_eq!(client.reply("POST").await.status(), 200);
        }
    };

    tokio::select! {
        () = asking => {}
        () = serving => {}
    }
}

#[tokio::test]
async fn no_get_fails_while_an_endpoint_dies_and_comes_back_under_load() {
    let (one, two) = (endpoint("one").await, endpoint("two").await);
    let edge = Edge::start_with(world_of(&[&one, &two]), |config| {
        config.routes[0].retry.budget = sealane_model::Ratio::new(1.0).unwrap();
    });
    const PHASE: u32 = 40;
    let over = std::cell::Cell::new(false);
    let answered = std::cell::Cell::new(0);
    let ask = async || {
        let mut client = edge.connect().await;
        while !over.get() {
            assert_eq!(client.get("/who").await.status(), 200);
            answered.set(answered.get() + 1);
        }
    };
    let dying = async {
        for mode in [
            Mode::Refuse,
            Mode::Serve,
            Mode::CloseBeforeAnswer,
            Mode::Serve,
        ] {
            one.set_mode(mode).await.unwrap();
            let before = answered.get();
            while answered.get() < before + PHASE {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        over.set(true);
    };

    let all = async { tokio::join!(ask(), ask(), ask(), dying) };
    timeout(2 * PATIENCE, all).await.unwrap();
}

#[tokio::test]
async fn a_tunnel_lasts_until_the_deadline_of_a_drain() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let mut client = edge.connect().await;
    client
        .send(
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    assert_eq!(client.head().await.status(), Some(101));
    let echo = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.send([0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await;
        let mut echoed = [0; 4];
        client.stream.read_exact(&mut echoed).await.unwrap();
        echoed
    };

    let (left, echoed) = tokio::join!(edge.proxy.drain(Duration::from_millis(600)), echo);

    assert_eq!(left, 1);
    assert_eq!(echoed, [0x81, 0x02, b'h', b'i']);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn alpn_chooses_between_both_protocols() {
    let one = endpoint("one").await;
    let certificate = certificate();
    let edge = Edge::start_with(world_of(&[&one]), |config| {
        let tls = ListenerProtocol::Https(server_tls(&certificate));
        config.listeners.push(listener("tls", tls));
    });
    let address = edge.address_of("tls");

    let mut two = Http2::over(connect_tls(address, &certificate, b"h2").await).await;
    let reply = two.get("https://x.test/headers").await;
    let seen = String::from_utf8(reply.body).unwrap();
    assert!(seen.contains("x-forwarded-proto: https"), "{seen}");

    let mut plain = connect_tls(address, &certificate, b"http/1.1").await;
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn a_websocket_echoes_what_was_sent_before_it_was_agreed_on() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let mut client = edge.connect().await;
    let handshake = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut early = handshake.as_bytes().to_vec();
    // A masked text frame "hi", with a mask of zeros.
    early.extend_from_slice(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);

    client.send(early).await;

    let head = client.head().await;
    assert_eq!(head.status(), Some(101));
    assert_eq!(
        head.field("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    let mut echoed = [0; 4];
    client.stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(echoed, [0x81, 0x02, b'h', b'i']);
}

#[tokio::test]
async fn a_refused_connection_is_tried_elsewhere_whatever_the_method() {
    let (dead, alive) = (endpoint("dead").await, endpoint("alive").await);
    dead.set_mode(Mode::Refuse).await.unwrap();
    let mut edge = Edge::start(first_and_second(&dead, &alive));
    let mut client = edge.connect().await;

    client
        .send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    let reply = client.reply("POST").await;

    assert_eq!(reply.status(), 200);
    assert_eq!(reply.head.field("x-sealane-region"), Some("far"));
    assert!(reply.text().contains("\"bytes\":3"));
    let observed = edge.observed().await;
    assert_eq!(observed.outcome, Outcome::Failed(Failure::Refused));
}

#[tokio::test]
async fn a_black_holed_endpoint_is_left_within_the_time_of_one_attempt() {
    let (hole, alive) = (endpoint("hole").await, endpoint("alive").await);
    hole.set_mode(Mode::BlackHole).await.unwrap();
    let mut edge = Edge::start(first_and_second(&hole, &alive));
    let mut client = edge.connect().await;
    let before = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();

    let reply = client.get("/who").await;

    let took = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap() - before;
    assert_eq!(reply.head.field("x-sealane-region"), Some("far"));
    assert!(took < Duration::from_secs(2), "took {took:?}");
    let observed = edge.observed().await;
    assert_eq!(observed.outcome, Outcome::Failed(Failure::TimedOut));
}

#[tokio::test]
async fn a_slow_endpoint_is_waited_for_when_there_is_no_other() {
    let only = endpoint("only").await;
    let edge = Edge::start(world_of(&[&only]));

    let reply = edge.connect().await.get("/slow/800").await;

    assert_eq!(reply.status(), 200);
    assert_eq!(only.requests(), 1);
}

#[tokio::test]
async fn a_get_is_repeated_after_bytes_were_sent_and_a_post_is_not() {
    let (flaky, alive) = (endpoint("flaky").await, endpoint("alive").await);
    flaky.set_mode(Mode::CloseBeforeAnswer).await.unwrap();
    let edge = Edge::start(first_and_second(&flaky, &alive));
    let mut client = edge.connect().await;

    let repeated = client.get("/who").await;
    assert_eq!(repeated.head.field("x-sealane-region"), Some("far"));
    assert_eq!(alive.requests(), 1);

    client
        .send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    let refused = client.reply("POST").await;
    assert_eq!(refused.status(), 502);
    assert_eq!(
        refused.head.field("x-sealane-refusal"),
        Some("endpoint_closed")
    );
    assert_eq!(alive.requests(), 1);

    client
        .send("PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    let replayed = client.reply("PUT").await;
    assert!(replayed.text().contains("\"bytes\":3"));
}

#[tokio::test]
async fn an_idle_connection_that_the_endpoint_closed_costs_no_request() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let mut client = edge.connect().await;
    client.get("/who").await;

    one.set_mode(Mode::Refuse).await.unwrap();
    one.set_mode(Mode::Serve).await.unwrap();

    assert_eq!(client.get("/who").await.status(), 200);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_off_as_whole() {
    let one = endpoint("one").await;
    one.set_mode(Mode::CloseMidBody).await.unwrap();
    let mut edge = Edge::start(world_of(&[&one]));
    let mut client = edge.connect().await;

    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;

    let head = client.head().await;
    let promised: usize = head.field("content-length").unwrap().parse().unwrap();
    assert!(client.rest().await.len() < promised);
    let observed = edge.observed().await;
    assert_eq!(observed.outcome, Outcome::Failed(Failure::Closed));
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_uploading() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let stream = TcpStream::connect(edge.address()).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    // Ends by an error, once the answer is there and the proxy reads no more.
    let upload = async {
        to.write_all(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
            .await?;
        loop {
            to.write_all(&[b'x'; 65_536]).await?;
        }
    };
    let answer = async {
        let mut answer = vec![0; 12];
        from.read_exact(&mut answer).await.unwrap();
        answer
    };

    let both = timeout(PATIENCE, async { tokio::join!(answer, upload) });
    let (answer, ended): (_, std::io::Result<()>) = both.await.unwrap();

    assert!(ended.is_err());
    assert_eq!(answer, b"HTTP/1.1 413");
}

/// What is there of a small message.
async fn read_some(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    assert!(stream.read(&mut buffer).await.unwrap() > 0);
}

/// An endpoint that reads a head, never answers, and tells when the connection ends.
async fn silent_endpoint() -> (
    SocketAddr,
    tokio::task::JoinHandle<()>,
    tokio::sync::oneshot::Receiver<()>,
) {
    let listener = TcpListener::bind(edge::any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, when_asked) = tokio::sync::oneshot::channel();
    #[expect(clippy::disallowed_methods, reason = "the test joins it")]
    let ended = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_some(&mut stream).await;
        asked.send(()).unwrap();
        let mut rest = [0; 4096];
        while !matches!(stream.read(&mut rest).await, Ok(0) | Err(_)) {}
    });
    (address, ended, when_asked)
}

#[tokio::test]
async fn a_client_that_breaks_off_ends_the_endpoints_work_and_blames_nobody() {
    let (address, ended, asked) = silent_endpoint().await;
    let mut edge = Edge::start_with(world_at(address).build(), |config| {
        config.routes[0].timeouts.attempt = PATIENCE;
        config.routes[0].timeouts.request = PATIENCE;
    });
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    asked.await.unwrap();

    let socket = client.stream.into_inner();
    socket.set_zero_linger().unwrap();
    drop(socket);

    timeout(Duration::from_secs(3), ended)
        .await
        .unwrap()
        .unwrap();
    assert!(edge.observations.try_recv().is_err());
}

#[tokio::test]
async fn a_client_that_left_without_a_word_ends_the_endpoints_work_after_a_while() {
    let (address, ended, asked) = silent_endpoint().await;
    let edge = Edge::start_with(world_at(address).build(), |config| {
        config.routes[0].timeouts.request = 3 * PATIENCE;
    });
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    asked.await.unwrap();

    drop(client);

    // Not at once: it might only have ended its own direction.
    timeout(Duration::from_secs(8), ended)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_reset_stream_ends_the_endpoints_work() {
    let (address, ended, asked) = silent_endpoint().await;
    let edge = Edge::start_with(world_at(address).build(), |config| {
        config.routes[0].timeouts.request = PATIENCE;
    });
    let client = Http2::connect(edge.address()).await;
    let mut requests = client.requests.clone().ready().await.unwrap();
    let request = http::Request::get("http://x/").body(()).unwrap();
    let (answer, mut stream) = requests.send_request(request, true).unwrap();
    asked.await.unwrap();

    stream.send_reset(h2::Reason::CANCEL);
    drop(answer);

    timeout(Duration::from_secs(3), ended)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_client_that_only_ends_its_own_direction_still_gets_its_answer() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let mut client = edge.connect().await;
    client
        .send("GET /slow/500 HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;

    client.stream.get_mut().shutdown().await.unwrap();

    assert_eq!(client.reply("GET").await.status(), 200);
}

#[tokio::test]
async fn a_head_beyond_64_kib_or_100_fields_is_refused() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let long = "x".repeat(70_000);

    let large = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n");
    assert_eq!(ask(edge.address(), large).await.status(), 431);
    let fields = "A: b\r\n".repeat(101);
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    assert_eq!(ask(edge.address(), many).await.status(), 431);

    let mut two = Http2::connect(edge.address()).await;
    let mut request = http::Request::get("http://x/");
    for n in 0..101 {
        request = request.header(format!("a{n}"), "b");
    }
    let (answer, _) = two
        .requests
        .send_request(request.body(()).unwrap(), true)
        .unwrap();
    assert_eq!(reply2(answer).await.head.status, 431);
    assert_eq!(one.requests(), 0);
    assert_eq!(two.get("http://x/").await.head.status, 200);
}

#[tokio::test]
async fn what_two_recipients_could_read_in_two_ways_is_refused_and_the_connection_closed() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let corpus: &[&[u8]] = &[
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x, y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a@x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\"a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /#a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"G/T / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
    ];
    for request in corpus {
        let shown = request.escape_ascii();
        let mut client = edge.connect().await;
        client.send(request).await;
        let reply = client.reply("GET").await;
        assert_eq!(reply.status(), 400, "{shown}");
        assert!(client.is_closed().await, "{shown}");
    }
    for (status, request) in [
        (
            501,
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ),
        (405, "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n"),
        (505, "GET / HTTP/2.0\r\nHost: x\r\n\r\n"),
    ] {
        assert_eq!(
            ask(edge.address(), request).await.status(),
            status,
            "{request}"
        );
    }
}

#[tokio::test]
async fn a_head_that_takes_too_long_is_refused() {
    let one = endpoint("one").await;
    let edge = Edge::start_with(world_of(&[&one]), |config| {
        config.limits.head_timeout = Duration::from_millis(300);
    });
    let mut client = edge.connect().await;

    client.send("GET / HTTP/1.1\r\nHost: ").await;

    assert_eq!(client.reply("GET").await.status(), 408);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_client_that_stops_sending_its_body_is_refused_and_the_endpoint_not_blamed() {
    let one = endpoint("one").await;
    let mut edge = Edge::start_with(world_of(&[&one]), |config| {
        config.routes[0].timeouts.idle = Duration::from_millis(500);
    });
    let mut client = edge.connect().await;

    client
        .send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        .await;

    let reply = client.reply("POST").await;
    assert_eq!(reply.status(), 408);
    assert_eq!(reply.head.field("x-sealane-refusal"), Some("body_timeout"));
    assert!(edge.observations.try_recv().is_err());
}

#[tokio::test]
async fn a_body_larger_than_the_route_allows_is_refused() {
    let one = endpoint("one").await;
    let edge = Edge::start_with(world_of(&[&one]), |config| {
        config.routes[0].body_max = Some(4);
    });
    let post = "POST /upload HTTP/1.1\r\nHost: x\r\n";

    let declared = format!("{post}Content-Length: 5\r\n\r\nabcde");
    assert_eq!(ask(edge.address(), declared).await.status(), 413);
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n");
    assert_eq!(ask(edge.address(), chunked).await.status(), 413);
    let allowed = format!("{post}Content-Length: 4\r\n\r\nabcd");
    assert_eq!(ask(edge.address(), allowed).await.status(), 200);
}

#[tokio::test]
async fn a_refusal_says_why_in_the_clients_own_protocol() {
    let one = endpoint("one").await;
    let edge = Edge::start_with(world_of(&[&one]), |config| {
        config.routes[0].when.path_prefix = Some("/only".into());
    });

    let mut client = edge.connect().await;
    let missing = client.get("/other").await;
    assert_eq!(missing.status(), 404);
    assert_eq!(missing.head.field("x-sealane-refusal"), Some("no_route"));
    assert_eq!(client.get("/only/this").await.status(), 200);

    let client = Http2::connect(edge.address()).await;
    let request = http::Request::post("http://x/other")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut requests = client.requests.clone();
    let (answer, _) = requests.send_request(request, true).unwrap();
    let refused = reply2(answer).await;
    assert_eq!(refused.head.status, 200);
    assert_eq!(refused.head.headers["grpc-status"], "12");
}

#[tokio::test]
async fn with_no_usable_region_and_no_data_wanted_the_answer_is_503() {
    let one = endpoint("one").await;
    let world = world_at(one.address()).all_down(AllDown::NoData);
    let edge = Edge::start(world.turn("eu", sealane_model::Verdict::Down).build());

    let reply = edge.connect().await.get("/").await;

    assert_eq!(reply.status(), 503);
    assert_eq!(
        reply.head.field("x-sealane-refusal"),
        Some("no_usable_region")
    );
}

#[tokio::test]
async fn a_new_snapshot_moves_the_next_request() {
    let (one, two) = (endpoint("one").await, endpoint("two").await);
    let mut edge = Edge::start(world_of(&[&one]));
    let mut client = edge.connect().await;
    assert!(client.get("/").await.text().contains("\"one\""));

    edge.world.publish(world_of(&[&two]));

    assert!(client.get("/").await.text().contains("\"two\""));
}

#[tokio::test]
async fn informational_answers_pass_and_the_body_follows_them() {
    let listener = TcpListener::bind(edge::any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let edge = Edge::start_with(world_at(address).build(), |config| {
        config.routes[0].timeouts.attempt = PATIENCE;
    });
    let mut client = edge.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        .await;
    let (mut theirs, _) = listener.accept().await.unwrap();
    read_some(&mut theirs).await;
    theirs
        .write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        .await
        .unwrap();

    let hints = client.head().await;
    assert_eq!(hints.status(), Some(103));
    assert_eq!(hints.field("link"), Some("</x>"));
    assert_eq!(client.head().await.status(), Some(100));
    client.send("abc").await;
    let mut body = [0; 3];
    theirs.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"abc");
    theirs
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await
        .unwrap();
    assert_eq!(client.reply("POST").await.text(), "ok");
}

#[tokio::test]
async fn an_unlawful_answer_is_not_passed_on() {
    let answers: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"nonsense\r\n\r\n",
    ];
    for answer in answers {
        let listener = TcpListener::bind(edge::any_port()).await.unwrap();
        let world = world_at(listener.local_addr().unwrap()).build();
        let edge = Edge::start(world);
        let serving = async {
            loop {
                let (mut theirs, _) = listener.accept().await.unwrap();
                read_some(&mut theirs).await;
                theirs.write_all(answer).await.unwrap();
                theirs.shutdown().await.unwrap();
            }
        };
        let mut client = edge.connect().await;
        let status = tokio::select! {
            reply = client.get("/") => reply.status(),
            () = serving => 0,
        };
        assert_eq!(status, 502, "{}", answer.escape_ascii());
    }
}

/// An HTTP/2 endpoint that echoes body and trailers.
async fn echo_over_h2(io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    let mut streams = tokio::task::JoinSet::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        streams.spawn(async move {
            let (head, mut body) = request.into_parts();
            let response = http::Response::builder()
                .header(
                    "x-te",
                    head.headers
                        .get("te")
                        .cloned()
                        .unwrap_or(http::HeaderValue::from_static("-")),
                )
                .header("x-authority", head.uri.authority().unwrap().as_str())
                .body(())
                .unwrap();
            let mut send = respond.send_response(response, false).unwrap();
            while let Some(piece) = body.data().await {
                let piece = piece.unwrap();
                body.flow_control().release_capacity(piece.len()).unwrap();
                send.send_data(piece, false).unwrap();
            }
            let mut trailers = body.trailers().await.unwrap().unwrap_or_default();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            send.send_trailers(trailers).unwrap();
        });
    }
}

async fn grpc_passes_through(edge: &Edge) {
    let client = Http2::connect(edge.address()).await;
    for round in 0..3 {
        let request = http::Request::post("http://x.test/pkg.Service/Call")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let mut requests = client.requests.clone().ready().await.unwrap();
        let (answer, mut send) = requests.send_request(request, false).unwrap();
        send.send_data(Bytes::from(vec![b'm'; 100_000]), false)
            .unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-round", http::HeaderValue::from(round));
        send.send_trailers(trailers).unwrap();

        let reply = reply2(answer).await;

        assert_eq!(reply.head.status, 200);
        assert_eq!(reply.head.headers["x-te"], "trailers");
        assert_eq!(reply.head.headers["x-authority"], "x.test");
        assert_eq!(reply.body.len(), 100_000);
        let trailers = reply.trailers.unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-round"], round.to_string());
    }
}

#[tokio::test]
async fn grpc_passes_with_its_trailers_in_the_clear() {
    let listener = TcpListener::bind(edge::any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let edge = Edge::start(world_at(address).http2().build());
    let serving = async {
        let (io, _) = listener.accept().await.unwrap();
        echo_over_h2(io).await;
        std::future::pending::<()>().await;
    };

    tokio::select! {
        () = grpc_passes_through(&edge) => {}
        () = serving => {}
    }
}

#[tokio::test]
async fn grpc_passes_over_tls_and_the_endpoints_name_is_checked() {
    let certificate = certificate();
    let listener = TcpListener::bind(edge::any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = {
        use rustls::pki_types::pem::PemObject as _;
        let chain = rustls::pki_types::CertificateDer::from_pem_slice(&certificate.chain).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(&certificate.key).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config))
    };
    let tls = |name: &str| EndpointTls {
        server_name: name.into(),
        roots: Roots::Pem(certificate.chain.clone()),
        certificate: None,
        minimum: TlsVersion::Tls12,
    };
    let serving = async {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            if let Ok(io) = acceptor.accept(io).await {
                echo_over_h2(io).await;
            }
        }
    };
    let asking = async {
        let mut edge = Edge::start(world_at(address).http2().tls(&tls("other.test")).build());
        let mut client = Http2::connect(edge.address()).await;
        let refused = client.get("http://x.test/").await;
        assert_eq!(refused.head.status, 502);
        assert_eq!(refused.head.headers["x-sealane-refusal"], "endpoint_tls");
        let observed = edge.observed().await.outcome;
        assert!(matches!(observed, Outcome::Failed(Failure::Tls(_))));

        let edge = Edge::start(world_at(address).http2().tls(&tls("x.test")).build());
        grpc_passes_through(&edge).await;
    };

    tokio::select! {
        () = asking => {}
        () = serving => {}
    }
}

#[tokio::test]
async fn a_drain_finishes_what_it_began_and_accepts_no_more() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let address = edge.address();
    let mut idle = edge.connect().await;
    idle.get("/who").await;
    let mut idle_two = Http2::connect(address).await;
    idle_two.get("http://x/who").await;
    let mut busy = edge.connect().await;
    busy.send("GET /slow/600 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut busy_two = Http2::connect(address).await;
    while one.requests() < 3 {
        tokio::task::yield_now().await;
    }

    let (left, idle_closed, reply, reply_two) = tokio::join!(
        edge.proxy.drain(Duration::from_secs(10)),
        idle.is_closed(),
        busy.reply("GET"),
        busy_two.get("http://x/slow/600"),
    );

    assert_eq!(left, 0);
    assert!(idle_closed);
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.head.field("connection"), Some("close"));
    assert_eq!(reply_two.head.status, 200);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn who_steps_aside_tells_idle_clients_in_an_answer_before_it_closes_on_them() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let address = edge.address();
    let mut active = edge.connect().await;
    active.get("/who").await;
    let mut silent = edge.connect().await;
    silent.get("/who").await;

    let asking = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let reply = active.get("/who").await;
        assert!(active.is_closed().await);
        reply
    };
    let (left, reply, silent_closed) = tokio::join!(
        edge.proxy.step_aside(Duration::from_secs(30)),
        asking,
        silent.is_closed(),
    );

    assert_eq!(reply.status(), 200);
    assert_eq!(reply.head.field("connection"), Some("close"));
    assert!(silent_closed);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn what_is_not_finished_at_the_deadline_is_cut_off_and_counted() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let mut busy = edge.connect().await;
    busy.send("GET /slow/60000 HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    while one.requests() == 0 {
        tokio::task::yield_now().await;
    }

    assert_eq!(edge.proxy.drain(Duration::from_millis(100)).await, 1);
    assert!(busy.is_closed().await);
}

#[tokio::test]
async fn a_reload_adds_and_removes_listeners_without_losing_a_request() {
    let one = endpoint("one").await;
    let world = world_of(&[&one]);
    let edge = Edge::start(world.clone());
    let old = edge.address();
    let mut kept = edge.connect().await;
    kept.get("/who").await;
    let asking = async {
        let mut answered = 0;
        while let Ok(stream) = TcpStream::connect(old).await {
            let mut client = Http1 {
                stream: tokio::io::BufReader::new(stream),
            };
            assert_eq!(client.get("/who").await.status(), 200);
            answered += 1;
        }
        answered
    };
    let reloading = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut config = edge::config(&world);
        config.listeners = vec![listener("new", ListenerProtocol::Http)];
        let prepared = edge.proxy.prepare(config).unwrap();
        edge.proxy.replace_rules(prepared);
    };

    let (answered, ()) = tokio::join!(timeout(PATIENCE, asking), reloading);

    assert!(answered.unwrap() > 0);
    assert_eq!(kept.get("/who").await.status(), 200);
    let mut new = Http1::connect(edge.address_of("new")).await;
    assert_eq!(new.get("/who").await.status(), 200);
}

#[tokio::test]
async fn new_rules_hold_for_the_next_request_of_an_old_connection() {
    let one = endpoint("one").await;
    let world = world_of(&[&one]);
    let edge = Edge::start(world.clone());
    let mut client = edge.connect().await;
    assert_eq!(client.get("/who").await.status(), 200);

    let mut config = edge::config(&world);
    config.routes.clear();
    edge.proxy
        .replace_rules(edge.proxy.prepare(config).unwrap());

    assert_eq!(client.get("/who").await.status(), 404);
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_listener() {
    let taken = TcpListener::bind(edge::any_port()).await.unwrap();
    let one = endpoint("one").await;
    let world = world_of(&[&one]);
    let running = Edge::start(world.clone());
    for address in [taken.local_addr().unwrap(), running.address()] {
        let mut config = edge::config(&world);
        config.listeners[0].bind = vec![address];
        let (_world, reader) = sealane_model::publish::snapshot_channel(world.clone());
        let (observations, _) = sealane_model::publish::observation_channel();
        let deps = Deps {
            world: reader,
            observations,
        };
        let options = Options {
            workers: 1.try_into().unwrap(),
        };

        let refused = Proxy::bind(config, deps, options).unwrap_err();

        assert_eq!(refused.source.kind(), std::io::ErrorKind::AddrInUse);
        let said = refused.to_string();
        assert!(
            said.contains("web") && said.contains(&address.to_string()),
            "{said}"
        );
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let one = endpoint("one").await;
    let edge = Edge::start_with(world_of(&[&one]), |config| config.limits.connections = 1);
    let mut first = edge.connect().await;
    assert_eq!(first.get("/who").await.status(), 200);

    assert!(edge.connect().await.is_closed().await);
    assert_eq!(first.get("/who").await.status(), 200);
}

#[tokio::test]
async fn explain_names_the_route_and_the_region_that_a_request_gets() {
    let one = endpoint("one").await;
    let edge = Edge::start(world_of(&[&one]));
    let client = "192.0.2.1".parse().unwrap();

    let decision = edge.proxy.explain("http://x.test/a?b", client).unwrap();

    assert_eq!(decision.via, "all");
    let endpoints = decision.notes.iter().find(|note| note.0 == "endpoints");
    assert!(endpoints.unwrap().1.contains(&one.address().to_string()));
    assert!(edge.proxy.explain("/a", client).is_err());
}
