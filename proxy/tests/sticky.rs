//! Sticky sessions as clients see them, over real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
mod edge;

use std::sync::Arc;
use std::time::Duration;

use edge::{Edge, Http1, Http2, Reply, reply2};
use http::HeaderName;
use sealane_model::Verdict::{self, Down, Draining, Up};
use sealane_model::{Ratio, Snapshot};
use sealane_proxy::config::{
    Action, BalancePolicy, Balancing, Coalesce, Concurrency, Config, Credentials, Destination,
    EjectionRule, PoolLimits, SameSite, Split, Sticky, StickyCookie, StickyKey,
};
use sealane_steering::SteeringPolicy;
use sealane_testkit::{Mode, ScriptedEndpoint, World};

fn key(text: &str) -> StickyKey {
    StickyKey::new(text.as_bytes())
}

fn cookie(keys: &[&str]) -> Sticky {
    let keys: Vec<_> = keys.iter().map(|text| key(text)).collect();
    Sticky::Cookie(StickyCookie {
        name: "sealane".into(),
        max_age: Some(Duration::from_secs(3_600)),
        secure: None,
        http_only: true,
        same_site: SameSite::Lax,
        keys: keys.into(),
    })
}

struct Stage {
    endpoints: Vec<ScriptedEndpoint>,
}

impl Stage {
    async fn new() -> Self {
        let mut endpoints = Vec::new();
        for name in ["a", "b", "c", "d"] {
            let endpoint = ScriptedEndpoint::start_anywhere(name, "eu").await;
            endpoints.push(endpoint.unwrap());
        }
        Self { endpoints }
    }

    /// With one endpoint in this state, the others up.
    fn world(&self, special: &str, verdict: Verdict) -> Snapshot {
        let mut world = World::new().region("eu", Up);
        for endpoint in &self.endpoints {
            let address = endpoint.address().to_string();
            let is = if address == special { verdict } else { Up };
            world = world.endpoint(&address, is);
        }
        world.build()
    }

    fn edge(&self, sticky: Sticky) -> Edge {
        Edge::start_with(self.world("", Up), |config| with(config, sticky))
    }

    fn at(&self, address: &str) -> &ScriptedEndpoint {
        let mut all = self.endpoints.iter();
        all.find(|endpoint| endpoint.address().to_string() == address)
            .unwrap()
    }
}

fn with(config: &mut Config, sticky: Sticky) {
    config.routes[0].options.sticky = Some(sticky);
    balance(config, Balancing::default());
}

/// In turn: on a busy machine latencies would decide.
fn balance(config: &mut Config, balancing: Balancing) {
    let Action::Forward(to) = &mut config.routes[0].action else {
        panic!("it forwards");
    };
    to.balance = Arc::new(Balancing {
        policy: BalancePolicy::RoundRobin,
        ..balancing
    });
}

async fn ask(client: &mut Http1, path: &str, cookie: &str) -> Reply {
    let line = if cookie.is_empty() {
        String::new()
    } else {
        format!("Cookie: {cookie}\r\n")
    };
    client
        .send(format!("GET {path} HTTP/1.1\r\nHost: x.test\r\n{line}\r\n"))
        .await;
    client.reply("GET").await
}

/// Who answered, and the cookie that came with it, if one came.
fn of(reply: &Reply) -> (String, Option<String>) {
    let endpoint = reply.head.field("x-sealane-endpoint").unwrap().to_owned();
    let set = reply.head.field("set-cookie");
    let pair = set.map(|line| line.split(';').next().unwrap().to_owned());
    (endpoint, pair)
}

/// A session that has begun: its endpoint and its cookie.
async fn begin(client: &mut Http1) -> (String, String) {
    let (endpoint, cookie) = of(&ask(client, "/who", "").await);
    (endpoint, cookie.unwrap())
}

#[tokio::test]
async fn a_session_stays_with_its_endpoint_and_is_told_once() {
    let stage = Stage::new().await;
    let edge = stage.edge(cookie(&["k"]));
    let mut client = edge.connect().await;

    let reply = ask(&mut client, "/who", "").await;
    let line = reply.head.field("set-cookie").unwrap();
    assert!(
        line.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"),
        "{line}"
    );
    let (endpoint, pair) = of(&reply);
    let pair = pair.unwrap();
    assert!(!pair.contains("127.0.0.1"));
    for _ in 0..30 {
        let again = ask(&mut client, "/who", &format!("x=1; {pair}")).await;
        assert_eq!(of(&again), (endpoint.clone(), None));
    }
    // Endpoints see the others' cookies only.
    let seen = ask(&mut client, "/headers", &format!("x=1; {pair}; y=2")).await;
    assert!(seen.text().contains("x=1; y=2"), "{}", seen.text());
    assert!(!seen.text().contains("sealane="), "{}", seen.text());
    // New ones spread.
    let mut seen = std::collections::HashSet::new();
    for _ in 0..60 {
        seen.insert(begin(&mut client).await.0);
    }
    assert_eq!(seen.len(), 4);
}

#[tokio::test]
async fn a_session_survives_reloads_and_the_loss_of_its_node() {
    let stage = Stage::new().await;
    let edge = stage.edge(cookie(&["old"]));
    let (endpoint, pair) = begin(&mut edge.connect().await).await;

    // The key is rotated by a reload.
    let mut config = edge::config(&stage.world("", Up));
    with(&mut config, cookie(&["new", "old"]));
    edge.proxy
        .replace_rules(edge.proxy.prepare(config).unwrap());
    let reply = ask(&mut edge.connect().await, "/who", &pair).await;
    let (there, renewed) = of(&reply);
    assert_eq!(there, endpoint);
    let renewed = renewed.expect("the old key makes no cookies any more");
    let reply = ask(&mut edge.connect().await, "/who", &renewed).await;
    assert_eq!(of(&reply), (endpoint.clone(), None));

    // When the old key is gone, sessions are still there.
    let mut config = edge::config(&stage.world("", Up));
    with(&mut config, cookie(&["new"]));
    edge.proxy
        .replace_rules(edge.proxy.prepare(config).unwrap());
    let reply = ask(&mut edge.connect().await, "/who", &renewed).await;
    assert_eq!(of(&reply), (endpoint.clone(), None));

    // Another node with the same key, or this one started again.
    drop(edge);
    let other = stage.edge(cookie(&["new"]));
    let reply = ask(&mut other.connect().await, "/who", &renewed).await;
    assert_eq!(of(&reply), (endpoint, None));
}

#[tokio::test]
async fn a_session_moves_when_its_endpoint_is_down_and_the_answer_says_so() {
    let stage = Stage::new().await;
    let mut edge = stage.edge(cookie(&["k"]));
    let mut client = edge.connect().await;
    let (endpoint, pair) = begin(&mut client).await;

    edge.world.publish(stage.world(&endpoint, Draining));
    let reply = ask(&mut client, "/who", &pair).await;
    assert_eq!(
        of(&reply),
        (endpoint.clone(), None),
        "drained, it keeps those it has"
    );

    edge.world.publish(stage.world(&endpoint, Down));
    let (moved, new) = of(&ask(&mut client, "/who", &pair).await);
    assert_ne!(moved, endpoint);
    for _ in 0..10 {
        // Requests that were on their way go to the same place.
        assert_eq!(of(&ask(&mut client, "/who", &pair).await).0, moved);
    }
    edge.world.publish(stage.world("", Up));
    let reply = ask(&mut client, "/who", &new.unwrap()).await;
    assert_eq!(of(&reply), (moved, None), "it does not go back");
}

#[tokio::test]
async fn one_failed_attempt_moves_nobody() {
    let stage = Stage::new().await;
    let edge = stage.edge(cookie(&["k"]));
    let mut client = edge.connect().await;
    let (endpoint, pair) = begin(&mut client).await;

    stage.at(&endpoint).set_mode(Mode::Refuse).await.unwrap();
    let (other, new) = of(&ask(&mut client, "/who", &pair).await);
    assert_ne!(other, endpoint);
    assert_eq!(new, None);
    stage.at(&endpoint).set_mode(Mode::Serve).await.unwrap();
    assert_eq!(of(&ask(&mut client, "/who", &pair).await).0, endpoint);
}

#[tokio::test]
async fn forged_and_garbled_cookies_are_as_good_as_none() {
    let stage = Stage::new().await;
    let edge = stage.edge(cookie(&["k"]));
    let mut client = edge.connect().await;
    let forger = stage.edge(cookie(&["guessed"]));
    let (_, forged) = begin(&mut forger.connect().await).await;
    let long = format!("sealane={}", "A".repeat(9_000));

    let many = "sealane=x; ".repeat(3_000);
    for bad in [
        "sealane=",
        "sealane=%00",
        "sealane=AAAA",
        &long,
        &many,
        &forged,
    ] {
        let (_, new) = of(&ask(&mut client, "/who", bad).await);
        assert!(new.is_some(), "{bad}");
    }
    let seen = ask(&mut client, "/headers", &format!("{many}x=1")).await;
    assert!(!seen.text().contains("sealane="), "{}", seen.text());
    // Somebody else's number with a lawful tag is the endpoint's all the same.
    let (endpoint, pair) = begin(&mut client).await;
    let (_, value) = pair.split_once('=').unwrap();
    let changed = format!("sealane=AAAAAAAA{}", &value[8..]);
    assert_ne!(changed, pair);
    assert_eq!(
        of(&ask(&mut client, "/who", &changed).await),
        (endpoint, None)
    );
    // A tag that differs by one bit is nobody's.
    let last = value.len() - 1;
    let other = if value.ends_with('A') { "B" } else { "A" };
    let forged = format!("sealane={}{other}", &value[..last]);
    assert!(of(&ask(&mut client, "/who", &forged).await).1.is_some());
}

#[tokio::test]
async fn a_websocket_and_an_http2_stream_belong_to_the_session_too() {
    let stage = Stage::new().await;
    let edge = stage.edge(cookie(&["k"]));
    let (endpoint, pair) = begin(&mut edge.connect().await).await;
    let handshake = |cookie: &str| {
        format!(
            "GET /ws HTTP/1.1\r\nHost: x.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             {cookie}Sec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    for _ in 0..6 {
        let mut client = edge.connect().await;
        client.send(handshake(&format!("Cookie: {pair}\r\n"))).await;
        let head = client.head().await;
        assert_eq!(head.status().unwrap(), 101);
        assert_eq!(head.field("x-sealane-endpoint"), Some(&*endpoint));
    }
    let mut client = edge.connect().await;
    client.send(handshake("")).await;
    assert!(client.head().await.field("set-cookie").is_some());

    let client = Http2::connect(edge.address()).await;
    for _ in 0..6 {
        let request = http::Request::builder()
            .uri("http://x.test/who")
            .header("cookie", "x=1")
            .header("cookie", &pair)
            .body(())
            .unwrap();
        let mut requests = client.requests.clone().ready().await.unwrap();
        let (answer, _) = requests.send_request(request, true).unwrap();
        let head = reply2(answer).await.head;
        assert_eq!(head.headers["x-sealane-endpoint"], &*endpoint);
    }
}

#[tokio::test]
async fn by_a_header_sessions_need_no_cookie_and_only_those_of_a_lost_endpoint_move() {
    let stage = Stage::new().await;
    let mut edge = stage.edge(Sticky::Header(HeaderName::from_static("x-session")));
    let mut client = edge.connect().await;
    let ask = async |client: &mut Http1, session: u32| {
        client
            .send(format!(
                "GET /who HTTP/1.1\r\nHost: x.test\r\nx-session: {session}\r\n\r\n"
            ))
            .await;
        let (endpoint, cookie) = of(&client.reply("GET").await);
        assert_eq!(cookie, None);
        endpoint
    };
    let mut homes = Vec::new();
    for session in 0..60 {
        homes.push(ask(&mut client, session).await);
    }
    let lost = homes[0].clone();
    edge.world.publish(stage.world(&lost, Down));
    for (session, home) in (0..).zip(&homes) {
        let now = ask(&mut client, session).await;
        assert_eq!(now == *home, *home != lost, "{session}");
    }
    edge.world.publish(stage.world("", Up));
    for (session, home) in (0..).zip(&homes) {
        assert_eq!(ask(&mut client, session).await, *home);
    }
}

#[tokio::test]
async fn requests_of_sessions_share_no_answers() {
    let stage = Stage::new().await;
    let edge = Edge::start_with(stage.world("", Up), |config| {
        with(config, cookie(&["k"]));
        config.routes[0].options.coalesce = Some(Coalesce {
            methods: vec![http::Method::GET],
            headers: Vec::new(),
            credentials: Credentials::ByValue,
            wait: Duration::from_secs(5),
            followers: 100,
            body_max: 1 << 20,
        });
        config.routes[0].timeouts.attempt = Duration::from_secs(5);
    });
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = edge.connect().await;
        client
            .send("GET /slow/200 HTTP/1.1\r\nHost: x.test\r\n\r\n")
            .await;
        clients.push(client);
    }
    let mut cookies = std::collections::HashSet::new();
    for mut client in clients {
        let (_, cookie) = of(&client.reply("GET").await);
        cookies.insert(cookie.expect("each new one is given its cookie"));
    }
    assert_eq!(cookies.len(), 20);
    let asked: u64 = stage.endpoints.iter().map(ScriptedEndpoint::requests).sum();
    assert_eq!(asked, 20);
}

#[tokio::test]
async fn a_session_keeps_its_side_of_a_split_without_a_key() {
    let stage = Stage::new().await;
    let [a, b, c, d] = &*stage.endpoints else {
        panic!("there are four");
    };
    let pair = |world: World, one: &ScriptedEndpoint, other: &ScriptedEndpoint| {
        let world = world.region("eu", Up);
        let world = world.endpoint(&one.address().to_string(), Up);
        world.endpoint(&other.address().to_string(), Up)
    };
    let world = pair(pair(World::new(), a, b).pool("canary"), c, d).build();
    let split = Split {
        to: Destination {
            pool: world.topology.pool_named("canary").unwrap().id,
            steering: Arc::new(SteeringPolicy::Priority),
            balance: Arc::default(),
        },
        name: "canary".into(),
        share: Ratio::new(0.5).unwrap(),
        key: None,
        abort: None,
    };
    let edge = Edge::start_with(world, |config| {
        with(config, cookie(&["k"]));
        config.routes[0].options.split = vec![split];
    });
    let mut client = edge.connect().await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..40 {
        let (endpoint, pair) = begin(&mut client).await;
        for _ in 0..5 {
            let again = of(&ask(&mut client, "/who", &pair).await);
            assert_eq!(again, (endpoint.clone(), None));
        }
        seen.insert(endpoint);
    }
    assert_eq!(seen.len(), 4);
}

#[tokio::test]
async fn an_endpoint_that_all_sessions_leave_comes_back_by_their_trials() {
    let stage = Stage::new().await;
    let edge = Edge::start_with(stage.world("", Up), |config| {
        with(config, Sticky::Header(HeaderName::from_static("x-session")));
        let ejection = EjectionRule {
            time: Duration::from_millis(300),
            ..EjectionRule::default()
        };
        let balancing = Balancing {
            slow_start: Duration::ZERO,
            ejection: Some(ejection),
            ..Balancing::default()
        };
        balance(config, balancing);
    });
    let mut client = edge.connect().await;
    let ask = async |client: &mut Http1| {
        client
            .send("GET /who HTTP/1.1\r\nHost: x.test\r\nx-session: 7\r\n\r\n")
            .await;
        let reply = client.reply("GET").await;
        (of(&reply).0, reply.status())
    };
    let (home, _) = ask(&mut client).await;
    stage.at(&home).set_mode(Mode::Status(500)).await.unwrap();
    let left = async |client: &mut Http1| {
        for _ in 0..50 {
            if ask(client).await.0 != home {
                return true;
            }
        }
        false
    };
    assert!(left(&mut client).await, "it is ejected");

    stage.at(&home).set_mode(Mode::Serve).await.unwrap();
    let back = async {
        while ask(&mut client).await != (home.clone(), 200) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let back = tokio::time::timeout(edge::PATIENCE, back).await;
    assert!(back.is_ok(), "a request of the session is its trial");
}

#[tokio::test]
async fn a_session_takes_its_place_in_its_own_region() {
    let stage = Stage::new().await;
    let [near, far, ..] = &*stage.endpoints else {
        panic!("there are four");
    };
    let world = |near_is: Verdict| {
        let world = World::new().region("near", Up).priority(1);
        let world = world.endpoint(&near.address().to_string(), near_is);
        let world = world.region("far", Up).priority(2);
        world.endpoint(&far.address().to_string(), Up).build()
    };
    let limits = PoolLimits {
        pool: world(Up).topology.pool_named("api").unwrap().id,
        name: "api".into(),
        concurrency: Concurrency::Max(1),
        bulkhead: None,
    };
    let mut edge = Edge::start_with(world(Down), |config| {
        with(config, cookie(&["k"]));
        config.bounds.pools = vec![limits];
        config.routes[0].timeouts.attempt = Duration::from_secs(5);
    });
    let mut client = edge.connect().await;
    let (endpoint, pair) = begin(&mut client).await;
    assert_eq!(endpoint, far.address().to_string());
    edge.world.publish(world(Up));

    // The session's region is full; the first one of the ranking has nothing to do.
    let mut slow = edge.connect().await;
    slow.send(format!(
        "GET /slow/3000 HTTP/1.1\r\nHost: x.test\r\nCookie: {pair}\r\n\r\n"
    ))
    .await;
    let asked = far.requests();
    while far.requests() == asked {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let reply = ask(&mut client, "/who", &pair).await;
    let word = reply.head.field("x-sealane-refusal").unwrap_or_default();
    assert!(word.starts_with("overloaded"), "{} {word}", reply.status());
    let (elsewhere, _) = begin(&mut client).await;
    assert_eq!(elsewhere, near.address().to_string());
}
