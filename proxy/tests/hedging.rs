//! Retries and hedges as clients and endpoints see them, over real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
mod edge;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edge::{Edge, Http2, PATIENCE, any_port, ask, reply2};
use sealane_model::Verdict::Up;
use sealane_model::{Ratio, Snapshot};
use sealane_proxy::config::{Adaptive, Config, HedgeAfter, HedgePolicy, Percentile, RetryOn};
use sealane_testkit::{Mode, ScriptedEndpoint, World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

const LATE: Duration = Duration::from_secs(3);

#[expect(clippy::disallowed_methods, reason = "a test is its own shell")]
fn now() -> Instant {
    Instant::now()
}

async fn endpoint(name: &str) -> ScriptedEndpoint {
    ScriptedEndpoint::start_anywhere(name, "eu").await.unwrap()
}

/// The first tier has one endpoint, the second tier the other: it is known who is asked first.
fn first_and_second(first: SocketAddr, second: SocketAddr) -> World {
    World::new()
        .region("near", Up)
        .endpoint(&first.to_string(), Up)
        .priority(1)
        .region("far", Up)
        .endpoint(&second.to_string(), Up)
        .priority(2)
}

fn world(first: &ScriptedEndpoint, second: &ScriptedEndpoint) -> Snapshot {
    first_and_second(first.address(), second.address()).build()
}

fn hedge_after(delay: Duration) -> impl FnOnce(&mut Config) {
    move |config| {
        config.routes[0].timeouts.attempt = LATE;
        config.routes[0].hedge = Some(HedgePolicy {
            after: HedgeAfter::Fixed(delay),
            budget: Ratio::new(1.0).unwrap(),
        });
    }
}

const SOON: Duration = Duration::from_millis(30);

#[tokio::test]
async fn a_hedge_answers_when_the_first_endpoint_is_slow() {
    let (slow, quick) = (endpoint("slow").await, endpoint("quick").await);
    slow.set_mode(Mode::Slow(LATE)).await.unwrap();
    let edge = Edge::start_with(world(&slow, &quick), hedge_after(SOON));
    let mut client = edge.connect().await;

    let began = now();
    let reply = client.get("/who").await;

    assert_eq!(reply.head.field("x-endpoint"), Some("quick"));
    assert_eq!(reply.head.field("x-sealane-region"), Some("far"));
    assert!(began.elapsed() >= SOON && began.elapsed() < LATE / 2);
    assert_eq!((slow.requests(), quick.requests()), (1, 1));
    // The connection is the client's to use again, and so is the winner's.
    assert_eq!(client.get("/headers").await.status(), 200);
    assert_eq!(quick.connections(), 1);
}

#[tokio::test]
async fn an_endpoint_that_answers_in_time_is_asked_alone() {
    let (one, two) = (endpoint("one").await, endpoint("two").await);
    let edge = Edge::start_with(world(&one, &two), hedge_after(Duration::from_millis(500)));
    let mut client = edge.connect().await;

    for _ in 0..20 {
        assert_eq!(client.get("/who").await.status(), 200);
    }

    assert_eq!((one.requests(), two.requests()), (20, 0));
}

#[tokio::test]
async fn the_first_endpoint_may_still_win() {
    let (slow, slower) = (endpoint("slow").await, endpoint("slower").await);
    let by = |millis| Mode::Slow(Duration::from_millis(millis));
    slow.set_mode(by(150)).await.unwrap();
    slower.set_mode(Mode::Slow(LATE)).await.unwrap();
    let edge = Edge::start_with(world(&slow, &slower), hedge_after(SOON));

    let reply = edge.connect().await.get("/who").await;

    assert_eq!(reply.head.field("x-endpoint"), Some("slow"));
    assert_eq!(slower.requests(), 1);
}

/// What a listener that reads and never answers sees of one connection: how long it lived, once
/// something was read.
async fn lifetime(listener: &TcpListener) -> Duration {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = [0; 4096];
    assert!(stream.read(&mut bytes).await.unwrap() > 0);
    let began = now();
    while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
    began.elapsed()
}

#[tokio::test]
async fn the_loser_is_cut_off_and_sees_it() {
    let silent = TcpListener::bind(any_port()).await.unwrap();
    let quick = endpoint("quick").await;
    let world = first_and_second(silent.local_addr().unwrap(), quick.address()).build();
    let edge = Edge::start_with(world, hedge_after(SOON));

    let asking = async { edge.connect().await.get("/who").await.status() };
    let both = async { tokio::join!(asking, lifetime(&silent)) };
    let (status, lived) = timeout(PATIENCE, both).await.unwrap();

    assert_eq!(status, 200);
    assert!(lived < LATE, "{lived:?}");
}

#[tokio::test]
async fn over_http2_the_losers_stream_is_reset_and_its_connection_serves_on() {
    let silent = TcpListener::bind(any_port()).await.unwrap();
    let second = TcpListener::bind(any_port()).await.unwrap();
    let at = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
    let world = World::new()
        .region("near", Up)
        .endpoint(&at(&silent), Up)
        .http2()
        .priority(1)
        .region("far", Up)
        .endpoint(&at(&second), Up)
        .http2()
        .priority(2)
        .build();
    let edge = Edge::start_with(world, hedge_after(SOON));

    let losing = async {
        let (io, _) = silent.accept().await.unwrap();
        let mut connection = h2::server::handshake(io).await.unwrap();
        let (_, mut cancelled) = connection.accept().await.unwrap().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // The stream of a second request, on the same connection.
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            respond
                .send_response(http::Response::new(()), true)
                .unwrap();
            assert!(connection.accept().await.is_none());
        });
        let reason = std::future::poll_fn(|cx| cancelled.poll_reset(cx)).await;
        assert_eq!(reason.unwrap(), h2::Reason::CANCEL);
        tasks
    };
    let winning = async move {
        let (io, _) = second.accept().await.unwrap();
        let mut connection = h2::server::handshake(io).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        assert_eq!(request.headers()["x-sealane-attempt"], "2");
        let answer = http::Response::builder().status(204).body(()).unwrap();
        respond.send_response(answer, true).unwrap();
        assert!(connection.accept().await.is_none());
    };
    let asking = async {
        let mut client = Http2::connect(edge.address()).await;
        let first = client.get("http://x.test/").await;
        assert_eq!(first.head.status, 204);
        client
    };
    let all = async {
        let mut tasks = JoinSet::new();
        tasks.spawn(winning);
        let (mut client, losing) = tokio::join!(asking, losing);
        assert_eq!(client.get("http://x.test/").await.head.status, 200);
        drop((tasks, losing));
    };
    timeout(PATIENCE, all).await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_cancels_both() {
    let (first, second) = (
        TcpListener::bind(any_port()).await.unwrap(),
        TcpListener::bind(any_port()).await.unwrap(),
    );
    let world = first_and_second(first.local_addr().unwrap(), second.local_addr().unwrap());
    let edge = Edge::start_with(world.build(), hedge_after(SOON));

    let leaving = async {
        let mut client = TcpStream::connect(edge.address()).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(request).await.unwrap();
        tokio::time::sleep(SOON * 5).await;
        client.set_zero_linger().unwrap();
    };
    let all = async { tokio::join!(leaving, lifetime(&first), lifetime(&second)) };
    let ((), one, two) = timeout(PATIENCE, all).await.unwrap();

    assert!(one < LATE && two < LATE, "{one:?} {two:?}");
}

#[tokio::test]
async fn without_budget_there_is_no_hedge() {
    let (slow, quick) = (endpoint("slow").await, endpoint("quick").await);
    let late = Duration::from_millis(60);
    slow.set_mode(Mode::Slow(late)).await.unwrap();
    let edge = Edge::start_with_workers(world(&slow, &quick), 1, |config| {
        hedge_after(Duration::from_millis(10))(config);
        let hedge = config.routes[0].hedge.as_mut().unwrap();
        hedge.budget = Ratio::new(0.05).unwrap();
    });
    let mut client = edge.connect().await;

    for _ in 0..39 {
        assert_eq!(client.get("/who").await.status(), 200);
    }

    // The one that it begins with, and one for each twenty requests.
    assert_eq!(quick.requests(), 2);
}

#[tokio::test]
async fn a_request_that_must_not_be_seen_twice_is_not_hedged() {
    let (slow, quick) = (endpoint("slow").await, endpoint("quick").await);
    let late = Duration::from_millis(150);
    slow.set_mode(Mode::Slow(late)).await.unwrap();
    let edge = Edge::start_with(world(&slow, &quick), hedge_after(SOON));

    let post = "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    let reply = ask(edge.address(), post).await;

    assert_eq!(reply.head.field("x-endpoint"), Some("slow"));
    assert_eq!(quick.requests(), 0);
}

#[tokio::test]
async fn a_body_is_sent_to_both() {
    let (slow, quick) = (endpoint("slow").await, endpoint("quick").await);
    slow.set_mode(Mode::Slow(LATE)).await.unwrap();
    let edge = Edge::start_with(world(&slow, &quick), hedge_after(SOON));
    let mut client = edge.connect().await;

    client
        .send("PUT /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await;
    // While the body is on its way, it is the client that is slow.
    tokio::time::sleep(SOON * 3).await;
    assert_eq!(quick.requests(), 0);
    client.send("7\r\n, world\r\n0\r\n\r\n").await;
    let reply = client.reply("PUT").await;

    assert_eq!(reply.head.field("x-endpoint"), Some("quick"));
    assert!(reply.text().contains("\"bytes\":12"), "{}", reply.text());
    let sha = "09ca7e4eaa6e8ae9c7d261167129184883644d07dfba7cbfbc4c8a2e08360d5b";
    assert!(reply.text().contains(sha), "{}", reply.text());
}

#[tokio::test]
async fn a_keyed_post_over_http2_is_hedged_with_its_body() {
    let (slow, quick) = (endpoint("slow").await, endpoint("quick").await);
    slow.set_mode(Mode::Slow(LATE)).await.unwrap();
    let edge = Edge::start_with(world(&slow, &quick), hedge_after(SOON));
    let client = Http2::connect(edge.address()).await;

    let request = http::Request::post("http://x.test/upload")
        .header("idempotency-key", "k1")
        .body(())
        .unwrap();
    let mut requests = client.requests.clone().ready().await.unwrap();
    let (answer, mut body) = requests.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"abc"), true).unwrap();
    let reply = reply2(answer).await;

    assert_eq!(reply.head.headers["x-endpoint"], "quick");
    let text = String::from_utf8(reply.body).unwrap();
    assert!(text.contains("\"bytes\":3"), "{text}");
}

#[tokio::test]
async fn a_hedge_that_answers_with_an_error_does_not_win() {
    let (slow, broken) = (endpoint("slow").await, endpoint("broken").await);
    slow.set_mode(Mode::Slow(Duration::from_millis(200)))
        .await
        .unwrap();
    broken.set_mode(Mode::Status(500)).await.unwrap();
    let edge = Edge::start_with(world(&slow, &broken), hedge_after(SOON));

    let reply = edge.connect().await.get("/who").await;

    assert_eq!(reply.status(), 200);
    assert_eq!(reply.head.field("x-endpoint"), Some("slow"));
    assert_eq!(broken.requests(), 1);
}

#[tokio::test]
async fn when_both_answer_with_errors_the_client_gets_one_of_them() {
    let broken = endpoint("broken").await;
    broken.set_mode(Mode::Status(503)).await.unwrap();
    let silent = TcpListener::bind(any_port()).await.unwrap();
    let world = first_and_second(silent.local_addr().unwrap(), broken.address()).build();
    let edge = Edge::start_with(world, hedge_after(SOON));

    let closing = async {
        let (mut stream, _) = silent.accept().await.unwrap();
        let mut bytes = [0; 4096];
        assert!(stream.read(&mut bytes).await.unwrap() > 0);
        tokio::time::sleep(SOON * 4).await;
    };
    let asking = async { edge.connect().await.get("/who").await };
    let (reply, ()) = tokio::join!(asking, closing);

    assert_eq!(reply.status(), 503);
    assert_eq!(reply.head.field("x-endpoint"), Some("broken"));
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_connected_to_is_hedged_as_well() {
    // A full backlog: the kernel lets further connections wait.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&any_port().into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = timeout(SOON * 5, TcpStream::connect(address)).await {
        waiting.push(stream);
    }
    let quick = endpoint("quick").await;
    let world = first_and_second(address, quick.address()).build();
    let edge = Edge::start_with(world, hedge_after(SOON));

    let began = now();
    let reply = edge.connect().await.get("/who").await;

    assert_eq!(reply.head.field("x-endpoint"), Some("quick"));
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_measured_delay_follows_the_route() {
    let (one, two) = (endpoint("one").await, endpoint("two").await);
    let edge = Edge::start_with_workers(world(&one, &two), 1, |config| {
        hedge_after(SOON)(config);
        config.routes[0].hedge.as_mut().unwrap().after = HedgeAfter::Measured(Percentile::P95);
    });
    let mut client = edge.connect().await;
    // Nothing is hedged before a hundred attempts are known.
    assert_eq!(client.get("/slow/100").await.status(), 200);
    assert_eq!(two.requests(), 0);

    let until = now() + Duration::from_millis(1_200);
    while now() < until || one.requests() < 150 {
        assert_eq!(client.get("/who").await.status(), 200);
    }
    let told = edge.proxy.explain("http://x.test/", [127, 0, 0, 1].into());
    let notes = told.unwrap().notes;
    let hedge = notes.iter().find(|(of, _)| *of == "hedge").unwrap();
    assert!(hedge.1.starts_with("after "), "{notes:?}");
    one.set_mode(Mode::Slow(LATE)).await.unwrap();
    let began = now();
    let reply = client.get("/who").await;

    assert_eq!(reply.head.field("x-endpoint"), Some("two"));
    assert!(began.elapsed() < LATE / 2, "{:?}", began.elapsed());
}

fn retry_on_answers(config: &mut Config) {
    config.routes[0].retry.on = RetryOn {
        bad_gateway: true,
        unavailable: true,
        gateway_timeout: true,
        ..RetryOn::default()
    };
}

#[tokio::test]
async fn a_chosen_answer_is_thrown_away_and_another_endpoint_asked() {
    let (broken, well) = (endpoint("broken").await, endpoint("well").await);
    broken.set_mode(Mode::Status(503)).await.unwrap();
    let edge = Edge::start_with(world(&broken, &well), retry_on_answers);
    let mut client = edge.connect().await;

    for _ in 0..3 {
        let reply = client.get("/who").await;
        assert_eq!(reply.head.field("x-endpoint"), Some("well"));
        assert!(reply.text().contains("\"well\""), "{}", reply.text());
    }
    // Its answers were read to their end.
    assert_eq!((broken.requests(), broken.connections()), (3, 1));
}

#[tokio::test]
async fn an_answer_of_the_last_endpoint_is_the_clients() {
    let (one, two) = (endpoint("one").await, endpoint("two").await);
    one.set_mode(Mode::Status(503)).await.unwrap();
    two.set_mode(Mode::Status(502)).await.unwrap();
    let edge = Edge::start_with(world(&one, &two), retry_on_answers);

    let reply = edge.connect().await.get("/who").await;

    assert_eq!(reply.status(), 502);
    assert_eq!(reply.text(), "status 502\n");
}

#[tokio::test]
async fn answers_that_were_not_chosen_are_passed_on() {
    let (broken, well) = (endpoint("broken").await, endpoint("well").await);
    broken.set_mode(Mode::Status(503)).await.unwrap();
    let edge = Edge::start_with(world(&broken, &well), |_| {});

    assert_eq!(edge.connect().await.get("/who").await.status(), 503);
    assert_eq!(well.requests(), 0);
}

/// Answers every request on every connection with these bytes.
async fn answer_all(listener: TcpListener, answer: &'static [u8]) {
    let mut connections = JoinSet::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        connections.spawn(async move {
            let mut bytes = [0; 4096];
            while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

#[tokio::test]
async fn an_endpoint_that_says_when_to_come_back_is_believed() {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let well = endpoint("well").await;
    let world = first_and_second(listener.local_addr().unwrap(), well.address()).build();
    let edge = Edge::start_with(world, retry_on_answers);
    let busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n";
    let mut tasks = JoinSet::new();
    tasks.spawn(answer_all(listener, busy));

    assert_eq!(edge.connect().await.get("/who").await.status(), 503);
    assert_eq!(well.requests(), 0);
}

#[tokio::test]
async fn a_further_attempt_says_which_one_it_is_and_nobody_else_may() {
    let (dead, well) = (endpoint("dead").await, endpoint("well").await);
    dead.set_mode(Mode::Refuse).await.unwrap();
    let edge = Edge::start(world(&dead, &well));
    let asking = "GET /headers HTTP/1.1\r\nHost: x\r\nX-Sealane-Attempt: 7\r\n\
                  Content-Type: application/grpc\r\nGrpc-Previous-Rpc-Attempts: 2\r\n\r\n";

    let reply = ask(edge.address(), asking).await;
    let seen = reply.text().to_ascii_lowercase();
    assert!(seen.contains("x-sealane-attempt: 2\r\n"), "{seen}");
    assert!(seen.contains("grpc-previous-rpc-attempts: 3\r\n"), "{seen}");

    dead.set_mode(Mode::Serve).await.unwrap();
    let reply = ask(edge.address(), asking).await;
    let seen = reply.text().to_ascii_lowercase();
    assert!(!seen.contains("x-sealane-attempt"), "{seen}");
    assert!(seen.contains("grpc-previous-rpc-attempts: 2\r\n"), "{seen}");
}

#[tokio::test]
async fn when_all_fail_endpoints_see_a_fifth_more_and_ten_a_second() {
    let (one, two) = (endpoint("one").await, endpoint("two").await);
    one.set_mode(Mode::CloseBeforeAnswer).await.unwrap();
    two.set_mode(Mode::CloseBeforeAnswer).await.unwrap();
    let edge = Edge::start(world(&one, &two));
    let began = now();
    let offered = 600;

    let asking = (0..4).map(|_| async {
        for _ in 0..offered / 4 {
            let reply = ask(edge.address(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
            assert_eq!(reply.status(), 502);
        }
    });
    futures_util::future::join_all(asking).await;

    // The reserve of ten seconds may be spent in one.
    let most = offered as f64 * 1.2 + 10.0 * began.elapsed().as_secs_f64().max(10.0) + 1.0;
    let seen = one.requests() + two.requests();
    assert!(seen as f64 <= most, "{seen} > {most}");
    assert!(seen > offered + 50, "{seen}: nothing was tried again");
}

#[tokio::test]
async fn a_measured_time_out_leaves_a_slow_endpoint_sooner() {
    let (one, two) = (endpoint("one").await, endpoint("two").await);
    let edge = Edge::start_with_workers(world(&one, &two), 1, |config| {
        let timeouts = &mut config.routes[0].timeouts;
        timeouts.attempt = LATE;
        timeouts.adaptive = Some(Adaptive {
            of: Percentile::P99,
            factor: 2.0,
            floor: Duration::from_millis(100),
        });
    });
    let mut client = edge.connect().await;
    let until = now() + Duration::from_millis(1_200);
    while now() < until || one.requests() < 150 {
        assert_eq!(client.get("/who").await.status(), 200);
    }
    one.set_mode(Mode::BlackHole).await.unwrap();

    let began = now();
    let reply = client.get("/who").await;

    assert_eq!(reply.head.field("x-endpoint"), Some("two"));
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(100) && took < LATE / 2,
        "{took:?}"
    );
}
