//! What a second pool sees of a route's requests, and that nobody feels it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
mod edge;
#[allow(dead_code, reason = "other tests use more of it")]
mod told;

use std::sync::Arc;
use std::time::Duration;

use edge::{Edge, Http2};
use http::{HeaderName, Method};
use sealane_model::Verdict::Up;
use sealane_model::{Ratio, Snapshot};
use sealane_proxy::config::{Coalesce, Config, Credentials, Destination, Mirror};
use sealane_steering::SteeringPolicy;
use sealane_testkit::World;
use told::{Step, Told, send, until};

fn world_of(first: &Told, second: std::net::SocketAddr) -> Snapshot {
    World::new()
        .region("eu", Up)
        .endpoint(&first.address.to_string(), Up)
        .pool("shadow")
        .region("eu", Up)
        .endpoint(&second.to_string(), Up)
        .build()
}

fn rule(world: &Snapshot, share: f64) -> Mirror {
    Mirror {
        to: Destination {
            pool: world.topology.pool_named("shadow").unwrap().id,
            steering: Arc::new(SteeringPolicy::Priority),
            balance: Default::default(),
        },
        share: Ratio::new(share).unwrap(),
        methods: Vec::new(),
        body_max: 64 * 1024,
        timeout: Duration::from_secs(1),
    }
}

/// One worker: its bounds are the proxy's.
fn edge_with(world: Snapshot, rule: Mirror, change: impl FnOnce(&mut Config)) -> Edge {
    Edge::start_with_workers(world, 1, |config| {
        config.routes[0].options.mirror = Some(rule);
        change(config);
    })
}

fn edge(first: &Told, second: &Told) -> Edge {
    let world = world_of(first, second.address);
    let rule = rule(&world, 1.0);
    edge_with(world, rule, |_| {})
}

async fn answering(text: &'static str) -> Told {
    Told::start(move |_, _| {
        let length = text.len();
        vec![send(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}"
        ))]
    })
    .await
}

#[tokio::test]
async fn the_second_pool_sees_what_the_first_sees_and_its_answers_reach_nobody() {
    let (first, second) = (answering("first").await, answering("second").await);
    let edge = edge(&first, &second);
    let mut client = edge.connect().await;

    for _ in 0..20 {
        client
            .send("GET /a?b=c HTTP/1.1\r\nHost: x.test\r\nAuthorization: me\r\nX-Sealane-Mirror: 0\r\n\r\n")
            .await;
        assert_eq!(client.reply("GET").await.text(), "first");
    }
    second.has_requests(20).await;

    let (ours, theirs) = (&first.heads()[0], &second.heads()[0]);
    assert_eq!(ours.start, theirs.start);
    for name in ["host", "authorization", "x-forwarded-for", "via"] {
        assert_eq!(ours.field(name), theirs.field(name), "{name}");
    }
    assert_eq!(ours.field("x-sealane-mirror"), None);
    assert_eq!(theirs.field("x-sealane-mirror"), Some("1"));
    let ids = |told: &Told| {
        let heads = told.heads();
        let ids = heads.iter().map(|head| head.field("x-request-id").unwrap());
        let mut ids: Vec<_> = ids.map(str::to_owned).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&first), ids(&second));
    assert_eq!(first.requests(), 20);
}

#[tokio::test]
async fn bodies_are_copied_in_every_framing_up_to_the_bound() {
    let (first, second) = (answering("first").await, answering("second").await);
    let edge = edge(&first, &second);
    let mut client = edge.connect().await;
    let long = "x".repeat(64 * 1024);
    client
        .send(format!(
            "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{long}",
            long.len()
        ))
        .await;
    client.reply("POST").await;
    client
        .send("POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n")
        .await;
    client.reply("POST").await;
    client
        .send(format!(
            "POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{long}x",
            long.len() + 1
        ))
        .await;
    client.reply("POST").await;
    let request = http::Request::post("http://x/d").body(()).unwrap();
    let client = Http2::connect(edge.address()).await;
    let (answer, mut body) = client
        .requests
        .clone()
        .send_request(request, false)
        .unwrap();
    body.send_data(bytes::Bytes::from_static(b"over h2"), true)
        .unwrap();
    edge::reply2(answer).await;

    until(|| second.requests() == 3).await;
    let heads = second.heads().into_iter();
    let mut seen: Vec<_> = heads
        .map(|head| head.target().to_owned())
        .zip(second.bodies())
        .collect();
    seen.sort();
    let wanted = [
        ("/a".to_owned(), long.into_bytes()),
        ("/b".to_owned(), b"hello!".to_vec()),
        ("/d".to_owned(), b"over h2".to_vec()),
    ];
    assert!(seen == wanted);
    assert_eq!(first.requests(), 4);
}

#[tokio::test]
async fn the_share_is_kept_and_methods_that_are_not_listed_are_left_out() {
    let (first, second) = (answering("first").await, answering("second").await);
    let world = world_of(&first, second.address);
    let rule = Mirror {
        methods: vec![Method::GET],
        ..rule(&world, 0.2)
    };
    let edge = edge_with(world, rule, |_| {});
    let mut client = edge.connect().await;

    for _ in 0..2_000 {
        client.get("/a").await;
    }
    client.send("DELETE /a HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.reply("DELETE").await;
    tokio::time::sleep(Duration::from_millis(300)).await;

    // Five standard deviations are 90.
    let seen = second.requests();
    assert!((310..=490).contains(&seen), "{seen}");
    let heads = second.heads();
    assert!(heads.iter().all(|head| head.method() == "GET"));
}

#[tokio::test]
async fn a_second_pool_that_is_dead_or_silent_is_not_felt() {
    let first = answering("first").await;
    let silent = Told::start(|_, _| vec![Step::Wait]).await;
    let dead = {
        let gone = answering("gone").await;
        gone.address
    };
    for second in [silent.address, dead] {
        let world = world_of(&first, second);
        // Far longer than all of it takes: no place is given back meanwhile.
        let rule = Mirror {
            timeout: Duration::from_secs(600),
            ..rule(&world, 1.0)
        };
        let mut edge = edge_with(world, rule, |_| {});
        let mut client = edge.connect().await;
        for _ in 0..1_000 {
            let reply = tokio::time::timeout(Duration::from_millis(900), client.get("/a"));
            assert_eq!(reply.await.expect("at once").text(), "first");
        }
        assert!(edge.observations.try_recv().is_err(), "a word on health");
    }
    // As many as may be under way at a time, and no more.
    assert!(
        (1..=256).contains(&silent.requests()),
        "{}",
        silent.requests()
    );
    assert!(silent.running_most() <= 256);
}

#[tokio::test]
async fn an_endless_answer_of_the_second_pool_is_cut() {
    let first = answering("first").await;
    let second = Told::start(|_, _| {
        let mut steps = vec![send(
            "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n",
        )];
        steps.extend(std::iter::repeat_n(Step::Send(vec![b'a'; 1 << 20]), 900));
        steps
    })
    .await;
    let edge = edge(&first, &second);
    assert_eq!(edge.connect().await.get("/a").await.text(), "first");

    until(|| second.cancelled() == 1).await;
}

#[tokio::test]
async fn a_request_whose_body_breaks_off_is_not_mirrored() {
    let (first, second) = (answering("first").await, answering("second").await);
    let edge = edge(&first, &second);
    let mut client = edge.connect().await;
    client
        .send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(client);
    edge.connect().await.get("/b").await;

    second.has_requests(1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(second.heads().len(), 1);
    assert_eq!(second.heads()[0].target(), "/b");
}

#[tokio::test]
async fn requests_that_share_an_attempt_are_mirrored_once() {
    let first = Told::start(|_, _| {
        vec![
            Step::Wait,
            send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst"),
        ]
    })
    .await;
    let second = answering("second").await;
    let world = world_of(&first, second.address);
    let mirror = rule(&world, 1.0);
    let edge = edge_with(world, mirror, |config| {
        config.routes[0].timeouts.attempt = Duration::from_secs(10);
        config.routes[0].options.coalesce = Some(Coalesce {
            methods: vec![Method::GET],
            headers: vec![HeaderName::from_static("accept")],
            credentials: Credentials::Alone,
            wait: Duration::from_secs(5),
            followers: 10,
            body_max: 1_000,
        });
    });
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = edge.connect().await;
        client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await;
        clients.push(client);
    }
    second.has_requests(1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;

    first.open(1);

    for client in &mut clients {
        assert_eq!(client.reply("GET").await.text(), "first");
    }
    assert_eq!((first.requests(), second.requests()), (1, 1));
}

#[tokio::test]
async fn what_a_trusted_proxy_mirrored_is_not_mirrored_again() {
    let (first, second) = (answering("first").await, answering("second").await);
    let world = world_of(&first, second.address);
    let mirror = rule(&world, 1.0);
    let edge = edge_with(world, mirror, |config| {
        config.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let mut client = edge.connect().await;
    client
        .send("GET /a HTTP/1.1\r\nHost: x\r\nX-Sealane-Mirror: 1\r\n\r\n")
        .await;
    client.reply("GET").await;
    client.get("/b").await;

    second.has_requests(1).await;
    let mark = first.heads()[0]
        .field("x-sealane-mirror")
        .map(str::to_owned);
    assert_eq!(mark.as_deref(), Some("1"));
    assert_eq!(second.heads()[0].target(), "/b");
}

#[tokio::test]
async fn explain_says_what_the_second_pool_sees() {
    let (first, second) = (answering("first").await, answering("second").await);
    let edge = edge(&first, &second);
    let decision = edge
        .proxy
        .explain("http://x.test/", [127, 0, 0, 1].into())
        .unwrap();
    let note = decision.notes.iter().find(|(what, _)| *what == "mirror");
    assert_eq!(
        note.unwrap().1,
        "100% of all requests to shadow, with bodies of 65536 bytes at most"
    );
}
