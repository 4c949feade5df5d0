//! Identical requests that come together are one for the endpoints, and no user gets what another
//! one's request brought.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
mod edge;
#[allow(dead_code, reason = "other tests use more of it")]
mod told;

use std::collections::BTreeSet;
use std::time::Duration;

use edge::{Edge, Http1, Http2, PATIENCE};
use http::{HeaderName, Method};
use sealane_model::Snapshot;
use sealane_model::Verdict::Up;
use sealane_proxy::config::{Coalesce, Config, Credentials, Sticky};
use sealane_testkit::World;
use sealane_testkit::http1::Head;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;
use told::{Step, Told, send, until};

fn rule() -> Coalesce {
    Coalesce {
        methods: vec![Method::GET, Method::HEAD],
        headers: vec![HeaderName::from_static("accept-encoding")],
        credentials: Credentials::Alone,
        wait: Duration::from_secs(5),
        followers: 2_000,
        body_max: 1 << 20,
    }
}

fn world_of(told: &Told) -> Snapshot {
    World::new()
        .region("eu", Up)
        .endpoint(&told.address.to_string(), Up)
        .build()
}

fn edge_with(told: &Told, rule: Coalesce) -> Edge {
    Edge::start_with_workers(world_of(told), 3, |config| coalesce(config, rule))
}

fn coalesce(config: &mut Config, rule: Coalesce) {
    let route = &mut config.routes[0];
    route.options.coalesce = Some(rule);
    route.timeouts.attempt = Duration::from_secs(20);
    route.timeouts.request = Duration::from_secs(40);
    config.limits.connections = 5_000;
}

fn edge_of(told: &Told) -> Edge {
    edge_with(told, rule())
}

/// Waits, then answers with the request's number and `fields`.
fn numbered(fields: &'static str) -> impl Fn(usize, &Head) -> Vec<Step> + Send + Sync {
    move |number, _| {
        let body = format!("answer {number}");
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}content-length: {length}\r\n\r\n{body}");
        vec![Step::Wait, send(answer)]
    }
}

const GET: &str = "GET /same HTTP/1.1\r\nHost: x.test\r\n\r\n";

/// So many clients ask, each over a connection of its own; their connections.
async fn ask(edge: &Edge, clients: usize, request: &str) -> Vec<Http1> {
    let mut asking = Vec::new();
    for _ in 0..clients {
        let mut client = edge.connect().await;
        client.send(request).await;
        asking.push(client);
    }
    asking
}

/// What each got.
async fn replies(clients: Vec<Http1>) -> Vec<String> {
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move { client.reply("GET").await.text().to_owned() });
    }
    tasks.join_all().await
}

/// At once: a client that closes in order may still wait for its answer.
fn leave(clients: impl IntoIterator<Item = Http1>) {
    for client in clients {
        let socket = socket2::SockRef::from(client.stream.get_ref());
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// Long enough for requests that were sent to be waiting for the same attempt.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_identical_gets_over_all_workers_are_one_request() {
    let told = Told::start(numbered("")).await;
    let edge = edge_of(&told);
    let clients = ask(&edge, 1_000, GET).await;
    told.has_requests(1).await;
    settle().await;

    told.open(1);

    let replies = replies(clients).await;
    assert_eq!(replies.len(), 1_000);
    assert!(replies.iter().all(|reply| reply == "answer 0"));
    assert_eq!(told.requests(), 1);
    // It is no cache.
    let next = ask(&edge, 1, GET).await;
    told.open(1);
    assert_eq!(crate::replies(next).await, ["answer 1"]);
}

#[tokio::test]
async fn http_2_and_http_1_share_and_each_gets_its_own_framing_and_id() {
    let told = Told::start(|_, _| {
        vec![
            Step::Wait,
            send("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"),
            send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
            Step::Wait,
            send("3\r\ndef\r\n0\r\nx-sum: 6\r\n\r\n"),
        ]
    })
    .await;
    let edge = edge_of(&told);
    let request = "GET /same HTTP/1.1\r\nHost: X.test:80\r\nTE: trailers\r\n\r\n";
    let mut first = ask(&edge, 1, request).await.remove(0);
    told.has_requests(1).await;
    let mut second = Http2::connect(edge.address()).await;
    let asking = second.get("http://x.test/same");
    let answering = async {
        settle().await;
        told.open(1);
        let hint = first.head().await;
        assert_eq!(hint.status(), Some(103));
        settle().await;
        told.open(1);
    };
    let (reply2, ()) = tokio::join!(asking, answering);

    let reply = first.reply("GET").await;
    assert_eq!(reply.text(), "abcdef");
    assert_eq!(reply2.body, b"abcdef");
    assert_eq!(reply2.trailers.unwrap()["x-sum"], "6");
    assert_eq!(reply2.head.headers["x-sealane-region"], "eu");
    let id = reply.head.field("x-request-id").unwrap();
    assert_ne!(reply2.head.headers["x-request-id"], id);
    assert_eq!(told.requests(), 1);
}

#[tokio::test]
async fn bytes_reach_everybody_as_they_come_and_late_comers_from_the_beginning() {
    let told = Told::start(|_, _| {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc";
        vec![send(head), Step::Wait, send("def")]
    })
    .await;
    let edge = edge_of(&told);
    let mut early = ask(&edge, 2, GET).await;
    for client in &mut early {
        client.head().await;
        let mut part = [0; 3];
        client.stream.read_exact(&mut part).await.unwrap();
        assert_eq!(&part, b"abc");
    }
    let late = ask(&edge, 1, GET).await;
    settle().await;

    told.open(1);

    assert_eq!(replies(late).await, ["abcdef"]);
    for client in &mut early {
        let mut rest = [0; 3];
        client.stream.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"def");
    }
    assert_eq!(told.requests(), 1);
}

#[tokio::test]
async fn two_users_never_get_each_others_answer() {
    for credentials in [Credentials::Alone, Credentials::ByValue] {
        let told = Told::start(|_, head| {
            let who = head.field("authorization").unwrap_or("nobody").to_owned();
            let length = who.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{who}");
            vec![Step::Wait, send(answer)]
        })
        .await;
        let rule = Coalesce {
            credentials,
            ..rule()
        };
        let edge = edge_with(&told, rule);
        let mut clients = Vec::new();
        for _ in 0..10 {
            for user in ["alice", "bob"] {
                let request =
                    format!("GET /me HTTP/1.1\r\nHost: x.test\r\nAuthorization: {user}\r\n\r\n");
                clients.push((user, ask(&edge, 1, &request).await.remove(0)));
            }
        }
        clients.push((
            "nobody",
            ask(&edge, 1, "GET /me HTTP/1.1\r\nHost: x.test\r\n\r\n")
                .await
                .remove(0),
        ));
        settle().await;

        told.open(100);

        for (user, mut client) in clients {
            assert_eq!(client.reply("GET").await.text(), user);
        }
        let wanted = match credentials {
            Credentials::Alone => 21,
            Credentials::ByValue => 3,
        };
        assert_eq!(told.requests(), wanted);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_for_all_goes_to_one_and_others_ask_a_few_at_a_time() {
    for fields in [
        "set-cookie: a=b\r\n",
        "cache-control: private\r\n",
        "cache-control: no-store\r\n",
        "vary: user-agent\r\n",
        "vary: *\r\n",
    ] {
        let told = Told::start(numbered(fields)).await;
        let edge = edge_of(&told);
        let clients = ask(&edge, 50, GET).await;
        told.has_requests(1).await;
        settle().await;

        told.open(1);
        told.has_requests(17).await;
        settle().await;
        assert_eq!(told.requests(), 17, "{fields}");
        told.open(100);

        let replies: BTreeSet<_> = replies(clients).await.into_iter().collect();
        assert_eq!(replies.len(), 50, "{fields}: each its own");
        assert_eq!(told.requests(), 50);
        assert_eq!(told.running_most(), 16, "{fields}");
        // For a while nobody waits for the same in vain.
        let next = ask(&edge, 20, GET).await;
        told.has_requests(70).await;
        told.open(100);
        assert_eq!(crate::replies(next).await.len(), 20);
    }
}

#[tokio::test]
async fn ranges_conditions_and_bodies_are_asked_for_each_by_itself() {
    let told = Told::start(numbered("")).await;
    let edge = edge_of(&told);
    let mut clients = Vec::new();
    for more in [
        "Range: bytes=0-1\r\n",
        "If-None-Match: \"a\"\r\n",
        "Cache-Control: no-cache\r\n",
        "Cookie: a=b\r\n",
        "Content-Length: 1\r\n\r\nx",
    ] {
        let end = if more.ends_with('x') { "" } else { "\r\n" };
        let request = format!("GET /same HTTP/1.1\r\nHost: x.test\r\n{more}{end}");
        clients.extend(ask(&edge, 2, &request).await);
    }
    told.has_requests(10).await;

    told.open(10);

    let replies: BTreeSet<_> = replies(clients).await.into_iter().collect();
    assert_eq!(replies.len(), 10);
}

#[tokio::test]
async fn a_head_request_shares_with_its_like_alone() {
    let told = Told::start(|_, head| {
        let body = if head.method() == "HEAD" { "" } else { "abc" };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{body}");
        vec![Step::Wait, send(answer)]
    })
    .await;
    let edge = edge_of(&told);
    let heads = ask(&edge, 3, "HEAD /same HTTP/1.1\r\nHost: x.test\r\n\r\n").await;
    let gets = ask(&edge, 3, GET).await;
    settle().await;

    told.open(2);

    for mut client in heads {
        let reply = client.reply("HEAD").await;
        assert_eq!(reply.head.field("content-length"), Some("3"));
        // The connection is in step.
        client
            .send("HEAD /next HTTP/1.1\r\nHost: x.test\r\n\r\n")
            .await;
        told.open(1);
        assert_eq!(client.reply("HEAD").await.status(), 200);
    }
    assert_eq!(replies(gets).await, ["abc", "abc", "abc"]);
}

#[tokio::test]
async fn the_leader_leaving_before_the_head_is_not_felt_by_those_who_follow() {
    let told = Told::start(numbered("")).await;
    let edge = edge_of(&told);
    let leader = ask(&edge, 1, GET).await;
    told.has_requests(1).await;
    let followers = ask(&edge, 10, GET).await;
    settle().await;

    leave(leader);
    settle().await;
    assert_eq!(told.cancelled(), 0);
    // Nor is it too late to join.
    let late = ask(&edge, 1, GET).await;
    settle().await;
    told.open(1);

    assert_eq!(replies(followers).await, vec!["answer 0"; 10]);
    assert_eq!(replies(late).await, ["answer 0"]);
    assert_eq!(told.requests(), 1);
}

#[tokio::test]
async fn the_leader_leaving_within_the_body_is_not_felt_by_those_who_follow() {
    let told = Told::start(|_, _| {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc";
        vec![send(head), Step::Wait, send("def")]
    })
    .await;
    let edge = edge_of(&told);
    let mut leader = ask(&edge, 1, GET).await.remove(0);
    leader.head().await;
    let followers = ask(&edge, 5, GET).await;
    settle().await;

    leave([leader]);
    settle().await;
    told.open(1);

    assert_eq!(replies(followers).await, vec!["abcdef"; 5]);
    assert_eq!((told.requests(), told.cancelled()), (1, 0));
}

#[tokio::test]
async fn an_http_2_leader_that_is_reset_is_not_felt_either() {
    let told = Told::start(numbered("")).await;
    let edge = edge_of(&told);
    let leader = Http2::connect(edge.address()).await;
    let request = http::Request::get("http://x.test/same").body(()).unwrap();
    let (answer, _) = leader.requests.clone().send_request(request, true).unwrap();
    told.has_requests(1).await;
    let followers = ask(&edge, 5, GET).await;
    settle().await;

    drop(answer);
    drop(leader);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    told.open(1);

    assert_eq!(replies(followers).await, vec!["answer 0"; 5]);
    assert_eq!((told.requests(), told.cancelled()), (1, 0));
}

#[tokio::test]
async fn when_all_have_left_the_endpoint_is_told() {
    let told = Told::start(numbered("")).await;
    let edge = edge_of(&told);
    let leader = ask(&edge, 1, GET).await;
    told.has_requests(1).await;
    let followers = ask(&edge, 5, GET).await;
    settle().await;

    leave(leader);
    settle().await;
    assert_eq!(told.cancelled(), 0);
    leave(followers);

    until(|| told.cancelled() == 1).await;
    let next = ask(&edge, 1, GET).await;
    told.has_requests(2).await;
    told.open(1);
    assert_eq!(replies(next).await, ["answer 1"]);
}

#[tokio::test]
async fn a_slow_follower_holds_up_nobody_and_is_cut_once_it_is_too_far_behind() {
    let told = Told::start(|_, _| {
        let mut steps = vec![
            send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
            Step::Wait,
        ];
        let mut chunk = b"8000\r\n".to_vec();
        chunk.extend_from_slice(&[b'a'; 0x8000]);
        chunk.extend_from_slice(b"\r\n");
        steps.extend(std::iter::repeat_n(Step::Send(chunk), 1_000));
        steps.push(send("0\r\n\r\n"));
        steps
    })
    .await;
    let edge = edge_with(
        &told,
        Coalesce {
            body_max: 256 * 1024,
            ..rule()
        },
    );
    let mut fast = ask(&edge, 1, GET).await.remove(0);
    told.has_requests(1).await;
    let mut slow = ask(&edge, 1, GET).await.remove(0);
    slow.head().await;

    told.open(1);

    // The slow one reads nothing meanwhile.
    let whole = fast.reply("GET").await;
    assert_eq!(whole.body.len(), 0x8000 * 1_000);
    let rest = slow.rest().await;
    assert!(rest.len() < 0x8000 * 1_000);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it looks whole");
}

#[tokio::test]
async fn a_slow_client_alone_is_waited_for() {
    let total = 8 * 1024 * 1024;
    let told = Told::start(move |_, _| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut body = format!("{total:x}\r\n").into_bytes();
        body.extend(std::iter::repeat_n(b'a', total));
        body.extend_from_slice(b"\r\n0\r\n\r\n");
        vec![send(head), Step::Send(body)]
    })
    .await;
    let edge = edge_with(
        &told,
        Coalesce {
            body_max: 64 * 1024,
            ..rule()
        },
    );
    let mut client = ask(&edge, 1, GET).await.remove(0);
    tokio::time::sleep(Duration::from_secs(1)).await;

    assert_eq!(client.reply("GET").await.body.len(), total);
}

#[tokio::test]
async fn an_answer_that_is_too_large_to_be_held_is_asked_for_by_each() {
    let told = Told::start(|_, _| {
        vec![
            Step::Wait,
            send("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world"),
        ]
    })
    .await;
    let edge = edge_with(
        &told,
        Coalesce {
            body_max: 10,
            ..rule()
        },
    );
    let clients = ask(&edge, 3, GET).await;
    told.has_requests(1).await;
    settle().await;

    told.open(3);

    assert_eq!(replies(clients).await, vec!["hello world"; 3]);
    assert_eq!(told.requests(), 3);
}

#[tokio::test]
async fn when_endpoints_fail_all_get_the_same_refusal_after_one_ones_attempts() {
    let told = Told::start(|_, _| vec![Step::Wait, Step::Close]).await;
    let edge = edge_of(&told);
    let mut clients = ask(&edge, 20, GET).await;
    told.has_requests(1).await;
    settle().await;

    told.open(10);

    let mut ids = BTreeSet::new();
    for client in &mut clients {
        let reply = client.reply("GET").await;
        assert_eq!(reply.status(), 502);
        let refusal = reply.head.field("x-sealane-refusal");
        assert_eq!(refusal, Some("endpoint_closed"));
        ids.insert(reply.head.field("x-request-id").unwrap().to_owned());
    }
    assert_eq!(ids.len(), 20);
    assert_eq!(told.requests(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_all() {
    let told = Told::start(|_, _| {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc";
        vec![send(head), Step::Wait, Step::Close]
    })
    .await;
    let edge = edge_of(&told);
    let mut clients = ask(&edge, 5, GET).await;
    for client in &mut clients {
        client.head().await;
    }

    told.open(1);

    for mut client in clients {
        assert_eq!(client.rest().await, b"abc");
    }
    assert_eq!(told.requests(), 1);
}

#[tokio::test]
async fn who_waited_long_enough_asks_by_itself_a_few_at_a_time_unless_the_answer_comes() {
    let told = Told::start(numbered("")).await;
    let edge = edge_with(
        &told,
        Coalesce {
            wait: Duration::from_millis(500),
            ..rule()
        },
    );
    let leader = ask(&edge, 1, GET).await;
    told.has_requests(1).await;
    let followers = ask(&edge, 30, GET).await;

    told.has_requests(17).await;
    // The first one's, which the endpoint got first.
    told.open(1);
    let of_first = replies(leader).await;
    settle().await;
    told.open(16);

    assert_eq!(of_first, ["answer 0"]);
    assert_eq!(replies(followers).await.len(), 30);
    assert_eq!(
        told.requests(),
        17,
        "the others took the first one's answer"
    );
}

#[tokio::test]
async fn more_than_may_follow_ask_by_themselves() {
    let told = Told::start(numbered("")).await;
    let edge = edge_with(
        &told,
        Coalesce {
            followers: 2,
            ..rule()
        },
    );
    let clients = ask(&edge, 5, GET).await;
    told.has_requests(3).await;
    settle().await;
    assert_eq!(told.requests(), 3);

    told.open(3);

    assert_eq!(replies(clients).await.len(), 5);
}

#[tokio::test]
async fn a_route_that_does_not_coalesce_asks_for_each() {
    let told = Told::start(numbered("")).await;
    let edge = Edge::start(world_of(&told));
    let clients = ask(&edge, 5, GET).await;
    told.has_requests(5).await;
    told.open(5);
    let all: BTreeSet<_> = replies(clients).await.into_iter().collect();
    assert_eq!(all.len(), 5);
}

#[tokio::test]
async fn followers_are_finished_when_the_proxy_drains() {
    let told = Told::start(numbered("")).await;
    let edge = edge_of(&told);
    let clients = ask(&edge, 5, GET).await;
    told.has_requests(1).await;
    settle().await;

    let address = edge.address();
    let draining = edge.proxy.drain(PATIENCE);
    let answering = async {
        until(|| std::net::TcpStream::connect(address).is_err()).await;
        told.open(1);
        assert_eq!(replies(clients).await, vec!["answer 0"; 5]);
    };
    let (cut_off, ()) = tokio::join!(draining, answering);
    assert_eq!(cut_off, 0);
}

#[tokio::test]
async fn explain_says_which_requests_share_an_attempt() {
    let told = Told::start(numbered("")).await;
    let edge = edge_of(&told);
    let note = |edge: &Edge| {
        let decision = edge.proxy.explain("http://x.test/", [127, 0, 0, 1].into());
        let mut notes = decision.unwrap().notes.into_iter();
        notes.find(|(what, _)| *what == "coalesce").unwrap().1
    };
    assert_eq!(
        note(&edge),
        "GET and HEAD for the same, up to 2001 an attempt, within 5s; not those that say who asks"
    );

    let mut config = edge::config(&world_of(&told));
    coalesce(&mut config, rule());
    let sticky = Sticky::Header(HeaderName::from_static("x-session"));
    config.routes[0].options.sticky = Some(sticky);
    edge.proxy
        .replace_rules(edge.proxy.prepare(config).unwrap());
    assert_eq!(note(&edge), "nothing, as requests belong to sessions");
}
