//! Splits and canaries as clients and endpoints see them, over real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
mod edge;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge::{Edge, Http1, Http2};
use http::HeaderName;
use sealane_model::Verdict::Up;
use sealane_model::{Ratio, Snapshot};
use sealane_proxy::config::{
    AbortRule, Coalesce, Config, Credentials, Destination, Split, SplitKey,
};
use sealane_steering::{Decision, SteeringPolicy};
use sealane_testkit::{Mode, ScriptedEndpoint, World};

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

#[expect(clippy::disallowed_methods, reason = "a test is its own shell")]
fn now() -> Instant {
    Instant::now()
}

struct Stage {
    edge: Edge,
    own: ScriptedEndpoint,
    canary: ScriptedEndpoint,
}

fn world(own: &ScriptedEndpoint, canary: &ScriptedEndpoint) -> Snapshot {
    World::new()
        .region("eu", Up)
        .endpoint(&own.address().to_string(), Up)
        .pool("canary")
        .region("eu", Up)
        .endpoint(&canary.address().to_string(), Up)
        .build()
}

fn user() -> SplitKey {
    SplitKey::Header(HeaderName::from_static("x-user"))
}

const RULE: AbortRule = AbortRule {
    errors: Some(0.02),
    latency: Some(1.5),
    requests_min: 10,
    window: Duration::from_secs(30),
};

fn split(world: &Snapshot, share: f64, key: Option<SplitKey>) -> Split {
    Split {
        to: Destination {
            pool: world.topology.pool_named("canary").unwrap().id,
            steering: Arc::new(SteeringPolicy::Priority),
            balance: Arc::default(),
        },
        name: "canary".into(),
        share: Ratio::new(share).unwrap(),
        key,
        abort: Some(RULE),
    }
}

impl Stage {
    async fn start(share: f64, key: Option<SplitKey>) -> Self {
        let own = ScriptedEndpoint::start_anywhere("own", "eu").await.unwrap();
        let canary = ScriptedEndpoint::start_anywhere("canary", "eu")
            .await
            .unwrap();
        let world = world(&own, &canary);
        let rule = split(&world, share, key);
        let edge = Edge::start_with(world, |config| config.routes[0].options.split = vec![rule]);
        Self { edge, own, canary }
    }

    /// As a reload does it.
    fn reload(&self, change: impl FnOnce(&mut Config)) {
        let world = world(&self.own, &self.canary);
        let mut config = edge::config(&world);
        config.routes[0].options.split = vec![split(&world, 0.5, Some(user()))];
        change(&mut config);
        let prepared = self.edge.proxy.prepare(config).unwrap();
        self.edge.proxy.replace_rules(prepared);
    }

    /// Asks as one user after another, until the canary is aborted.
    async fn until_aborted(&self, client: &mut Http1) -> Duration {
        let began = now();
        for user in 0..100_000 {
            ask(client, &user.to_string()).await;
            if self.edge.proxy.canaries()[0].aborted.is_some() {
                return began.elapsed();
            }
            assert!(began.elapsed() < Duration::from_secs(15), "no abort");
            // 50 requests a second at the most.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        unreachable!()
    }
}

fn split_note(decision: &Decision) -> &str {
    let mut notes = decision.notes.iter();
    let (_, note) = notes.find(|(what, _)| *what == "split").unwrap();
    note
}

async fn ask(client: &mut Http1, user: &str) -> (u16, String) {
    client
        .send(format!(
            "GET /who HTTP/1.1\r\nHost: x.test\r\nx-user: {user}\r\n\r\n"
        ))
        .await;
    let reply = client.reply("GET").await;
    let endpoint = reply.head.field("x-sealane-endpoint").unwrap_or_default();
    (reply.status(), endpoint.to_owned())
}

#[tokio::test]
async fn a_share_of_the_users_goes_to_the_canary_and_each_keeps_its_side() {
    let stage = Stage::start(0.1, Some(user())).await;
    let mut client = stage.edge.connect().await;
    let canary = stage.canary.address().to_string();

    let mut first = Vec::new();
    for user in 0..500 {
        first.push(ask(&mut client, &user.to_string()).await.1);
    }
    let went = first.iter().filter(|endpoint| **endpoint == canary).count();
    assert!((25..80).contains(&went), "{went}");
    let mut other = stage.edge.connect().await;
    for (user, endpoint) in first.iter().enumerate().take(100) {
        assert_eq!(&ask(&mut other, &user.to_string()).await.1, endpoint);
    }

    // A share that grows keeps those it had, over the reload.
    stage.reload(|config| config.routes[0].options.split[0].share = Ratio::new(0.3).unwrap());
    for (user, endpoint) in first.iter().enumerate() {
        let now = ask(&mut client, &user.to_string()).await.1;
        assert!(*endpoint != canary || now == canary, "{user}");
    }
}

#[tokio::test]
async fn without_a_key_each_request_is_drawn() {
    let stage = Stage::start(0.5, None).await;
    let mut client = stage.edge.connect().await;
    for _ in 0..200 {
        ask(&mut client, "same").await;
    }
    let went = stage.canary.requests();
    assert!((95..=105).contains(&went), "{went}");
    assert_eq!(stage.canary.requests() + stage.own.requests(), 200);
}

#[tokio::test]
async fn a_client_keeps_its_side_by_its_address_over_http1_and_http2() {
    let stage = Stage::start(1.0, Some(SplitKey::ClientIp)).await;
    let decision = stage.edge.proxy.explain("http://x.test/", CLIENT).unwrap();
    assert_eq!(split_note(&decision), "100% to canary, by client address");
    assert_eq!(
        decision.world.topology.pool(decision.pool).unwrap().name,
        "canary".into()
    );

    assert_eq!(stage.edge.connect().await.get("/who").await.status(), 200);
    let mut client = Http2::connect(stage.edge.address()).await;
    assert_eq!(client.get("http://x.test/who").await.head.status, 200);

    assert_eq!((stage.canary.requests(), stage.own.requests()), (2, 0));
}

#[tokio::test]
async fn a_websocket_goes_to_the_canary_by_its_cookie() {
    let stage = Stage::start(1.0, Some(SplitKey::Cookie("id".into()))).await;
    let mut client = stage.edge.connect().await;
    client
        .send(
            "GET /ws HTTP/1.1\r\nHost: x.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Cookie: a=b; id=7\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;

    assert_eq!(client.head().await.status().unwrap(), 101);
    assert_eq!((stage.canary.requests(), stage.own.requests()), (1, 0));
}

#[tokio::test]
async fn a_canary_that_fails_is_aborted_in_time_and_stays_so_until_its_rule_changes() {
    let stage = Stage::start(0.5, Some(user())).await;
    stage.canary.set_mode(Mode::Status(500)).await.unwrap();
    let mut client = stage.edge.connect().await;

    let took = stage.until_aborted(&mut client).await;
    assert!(took < Duration::from_secs(10), "{took:?}");

    let (why, _) = stage.edge.proxy.canaries()[0].aborted.clone().unwrap();
    assert!(
        why.contains("errors: ") && why.contains("(100.0 %)"),
        "{why}"
    );
    let decision = stage.edge.proxy.explain("http://x.test/", CLIENT).unwrap();
    let note = split_note(&decision);
    assert!(note.contains("was aborted"), "{note}");
    let asked = stage.canary.requests();
    for user in 0..50 {
        assert_eq!(ask(&mut client, &user.to_string()).await.0, 200);
    }
    stage.reload(|_| {});
    for user in 0..50 {
        assert_eq!(ask(&mut client, &user.to_string()).await.0, 200);
    }
    assert_eq!(stage.canary.requests(), asked);

    stage.reload(|config| config.routes[0].options.split[0].share = Ratio::new(0.6).unwrap());
    for user in 0..50 {
        ask(&mut client, &user.to_string()).await;
    }
    assert!(stage.canary.requests() > asked);
}

#[tokio::test]
async fn an_operator_gives_an_aborted_canary_its_share_again() {
    let stage = Stage::start(0.5, Some(user())).await;
    // Nobody is there.
    stage.canary.set_mode(Mode::Refuse).await.unwrap();
    let mut client = stage.edge.connect().await;
    stage.until_aborted(&mut client).await;

    stage.canary.set_mode(Mode::Serve).await.unwrap();
    assert_eq!(stage.edge.proxy.reset_canary("all", "canary"), Ok(true));
    assert_eq!(stage.edge.proxy.reset_canary("all", "canary"), Ok(false));
    assert!(stage.edge.proxy.reset_canary("all", "api").is_err());
    assert!(stage.edge.proxy.canaries()[0].aborted.is_none());
    for user in 0..50 {
        assert_eq!(ask(&mut client, &user.to_string()).await.0, 200);
    }
    assert!(stage.canary.requests() > 10);
}

#[tokio::test]
async fn a_slow_canary_is_aborted_by_its_latency() {
    let stage = Stage::start(0.5, Some(user())).await;
    let slow = Mode::Slow(Duration::from_millis(60));
    stage.canary.set_mode(slow).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(stage.edge.connect().await);
    }
    let began = now();
    let mut user = 0;
    while stage.edge.proxy.canaries()[0].aborted.is_none() {
        assert!(began.elapsed() < Duration::from_secs(15), "no abort");
        for client in &mut clients {
            user += 1;
            ask(client, &user.to_string()).await;
        }
    }
    let (why, _) = stage.edge.proxy.canaries()[0].aborted.clone().unwrap();
    assert!(why.starts_with("latency: p"), "{why}");
}

#[tokio::test]
async fn one_failed_attempt_that_many_shared_is_one_error() {
    let stage = Stage::start(0.5, Some(user())).await;
    stage.reload(|config| {
        config.routes[0].options.coalesce = Some(Coalesce {
            methods: vec![http::Method::GET],
            headers: Vec::new(),
            credentials: Credentials::Alone,
            wait: Duration::from_secs(5),
            followers: 100,
            body_max: 1 << 20,
        });
        config.routes[0].timeouts.attempt = Duration::from_secs(10);
        config.routes[0].options.split[0].abort = Some(AbortRule {
            requests_min: 5,
            ..RULE
        });
    });
    let mut client = stage.edge.connect().await;
    let canary = stage.canary.address().to_string();
    let mut theirs = None;
    for at in 0..40 {
        let at = at.to_string();
        if ask(&mut client, &at).await.1 == canary {
            theirs = Some(at);
        }
    }
    let (theirs, before) = (theirs.unwrap(), stage.canary.requests());

    // Nobody answers, and forty wait for it.
    stage.canary.set_mode(Mode::BlackHole).await.unwrap();
    let mut waiting = Vec::new();
    for _ in 0..40 {
        let mut client = stage.edge.connect().await;
        let request = format!("GET /who HTTP/1.1\r\nHost: x.test\r\nx-user: {theirs}\r\n\r\n");
        client.send(request).await;
        waiting.push(client);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.canary.set_mode(Mode::Refuse).await.unwrap();
    for mut client in waiting {
        assert_ne!(client.reply("GET").await.status(), 200);
    }
    assert!(stage.canary.requests() <= before + 1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    ask(&mut client, "1").await;
    assert!(stage.edge.proxy.canaries()[0].aborted.is_none());
}
