//! What clients see when there are not enough places, or when they come too often: over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod edge;

use std::net::SocketAddr;
use std::time::Duration;

use edge::{Edge, Http1, Http2, Reply};
use sealane_model::Snapshot;
use sealane_model::Verdict::Up;
use sealane_proxy::config::{
    Bulkhead, Concurrency, Config, PoolLimits, Rate, RateKey, RateRule, RouteMatch, TenantKey, Tier,
};
use sealane_testkit::{ScriptedEndpoint, World};
use tokio::task::JoinSet;

async fn endpoint() -> ScriptedEndpoint {
    ScriptedEndpoint::start_anywhere("one", "eu").await.unwrap()
}

fn world_of(endpoint: &ScriptedEndpoint) -> Snapshot {
    World::new()
        .region("eu", Up)
        .endpoint(&endpoint.address().to_string(), Up)
        .build()
}

const fn bulkhead(requests: u32, queue: u32, wait: Duration) -> Bulkhead {
    Bulkhead {
        requests,
        queue,
        wait,
    }
}

fn pool(world: &Snapshot, concurrency: Concurrency, bulkhead: Option<Bulkhead>) -> PoolLimits {
    PoolLimits {
        pool: world.topology.pool_named("api").unwrap().id,
        name: "api".into(),
        concurrency,
        bulkhead,
    }
}

/// A second route beside the one for everything.
fn add_route(config: &mut Config, name: &str, prefix: &str) {
    let mut route = config.routes[0].clone();
    route.name = name.into();
    route.when = RouteMatch {
        path_prefix: Some(prefix.into()),
        ..RouteMatch::default()
    };
    // Tests that ask for slow answers do not want another attempt.
    route.timeouts.attempt = Duration::from_secs(10);
    config.routes.push(route);
}

async fn get(address: SocketAddr, path: &str, fields: &str) -> Reply {
    let mut client = Http1::connect(address).await;
    client
        .send(format!(
            "GET {path} HTTP/1.1\r\nHost: x.test\r\n{fields}\r\n"
        ))
        .await;
    client.reply("GET").await
}

/// So many requests on connections of their own, under way.
fn start(
    address: SocketAddr,
    count: usize,
    path: &'static str,
    fields: &'static str,
) -> JoinSet<Reply> {
    let mut set = JoinSet::new();
    for _ in 0..count {
        set.spawn(get(address, path, fields));
    }
    set
}

async fn until_asked(endpoint: &ScriptedEndpoint, count: u64) {
    while endpoint.requests() < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn word(reply: &Reply) -> &str {
    reply.head.field("x-sealane-refusal").unwrap_or("")
}

#[tokio::test]
async fn a_saturated_route_leaves_another_at_all_it_needs() {
    let one = endpoint().await;
    let edge = Edge::start_with(world_of(&one), |config| {
        add_route(config, "slow", "/slow");
        let limits = &mut config.routes[1].options.limits;
        limits.bulkhead = Some(bulkhead(4, 0, Duration::ZERO));
    });
    let mut slow = start(edge.address(), 4, "/slow/1500", "");
    until_asked(&one, 4).await;

    let refused = start(edge.address(), 16, "/slow/1500", "").join_all().await;
    for reply in &refused {
        assert_eq!((reply.status(), word(reply)), (503, "route_full"));
        let after: u32 = reply.head.field("retry-after").unwrap().parse().unwrap();
        assert!((1..=2).contains(&after));
    }
    let mut client = edge.connect().await;
    for _ in 0..200 {
        assert_eq!(client.get("/other").await.status(), 200);
    }
    while let Some(reply) = slow.join_next().await {
        assert_eq!(reply.unwrap().status(), 200);
    }
    // All places are free again.
    let again = start(edge.address(), 4, "/slow/1", "").join_all().await;
    assert!(again.iter().all(|reply| reply.status() == 200));
}

#[tokio::test]
async fn who_may_wait_is_served_after_the_one_before() {
    let one = endpoint().await;
    let edge = Edge::start_with(world_of(&one), |config| {
        add_route(config, "slow", "/slow");
        let limits = &mut config.routes[1].options.limits;
        limits.bulkhead = Some(bulkhead(1, 2, Duration::from_secs(10)));
    });
    let all = start(edge.address(), 3, "/slow/100", "").join_all().await;
    assert!(all.iter().all(|reply| reply.status() == 200));
}

#[tokio::test]
async fn who_waits_too_long_is_told_so() {
    let one = endpoint().await;
    let edge = Edge::start_with(world_of(&one), |config| {
        add_route(config, "slow", "/slow");
        let limits = &mut config.routes[1].options.limits;
        limits.bulkhead = Some(bulkhead(1, 2, Duration::from_millis(50)));
    });
    let mut first = start(edge.address(), 1, "/slow/1500", "");
    until_asked(&one, 1).await;
    let second = get(edge.address(), "/slow/1", "").await;
    assert_eq!((second.status(), word(&second)), (503, "route_full_waited"));
    assert_eq!(first.join_next().await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn what_no_region_has_room_for_is_refused_unless_it_is_vital() {
    let one = endpoint().await;
    let world = World::new()
        .region("eu", Up)
        .endpoint(&one.address().to_string(), Up)
        .room(200.0, 100.0, 0.0)
        .build();
    let edge = Edge::start_with(world, |config| {
        add_route(config, "vital", "/vital");
        config.routes[1].options.limits.tier = Tier::First;
    });

    let refused = get(edge.address(), "/", "").await;
    assert_eq!((refused.status(), word(&refused)), (503, "no_room"));
    assert!(refused.head.field("retry-after").is_some());
    assert_eq!(one.requests(), 0);

    assert_eq!(get(edge.address(), "/vital", "").await.status(), 200);
}

#[tokio::test]
async fn each_tenant_has_places_of_its_own() {
    let one = endpoint().await;
    let edge = Edge::start_with(world_of(&one), |config| {
        add_route(config, "slow", "/slow");
        let limits = &mut config.routes[1].options.limits;
        limits.tenant = Some(TenantKey::Header("x-tenant".parse().unwrap()));
        limits.per_tenant = Some(2);
    });
    let loud = start(edge.address(), 2, "/slow/1000", "X-Tenant: loud\r\n");
    until_asked(&one, 2).await;

    let reply = get(edge.address(), "/slow/1", "X-Tenant: loud\r\n").await;
    assert_eq!((reply.status(), word(&reply)), (503, "tenant_full"));
    let reply = get(edge.address(), "/slow/1", "X-Tenant: quiet\r\n").await;
    assert_eq!(reply.status(), 200);
    assert!(
        loud.join_all()
            .await
            .iter()
            .all(|reply| reply.status() == 200)
    );
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_place_back() {
    let one = endpoint().await;
    let world = world_of(&one);
    let limits = pool(
        &world,
        Concurrency::Off,
        Some(bulkhead(1, 0, Duration::ZERO)),
    );
    let edge = Edge::start_with(world, |config| {
        add_route(config, "slow", "/slow");
        config.bounds.pools = vec![limits];
    });
    let gone = start(edge.address(), 1, "/slow/60000", "");
    until_asked(&one, 1).await;
    let refused = get(edge.address(), "/", "").await;
    assert_eq!((refused.status(), word(&refused)), (503, "pool_full"));

    drop(gone);
    while get(edge.address(), "/", "").await.status() != 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Ten places in the region, and a trusted peer that says how much a request matters.
fn ten_places(world: &Snapshot) -> impl FnOnce(&mut Config) + use<> {
    let limits = pool(world, Concurrency::Max(10), None);
    |config| {
        config.bounds.pools = vec![limits];
        config.bounds.tier_header = Some("x-tier".parse().unwrap());
        config.trusted = vec!["127.0.0.0/8".parse().unwrap()];
        config.routes[0].timeouts.attempt = Duration::from_secs(10);
    }
}

#[tokio::test]
async fn what_matters_least_is_refused_first() {
    let one = endpoint().await;
    let world = world_of(&one);
    let change = ten_places(&world);
    let edge = Edge::start_with(world, change);
    let held = start(edge.address(), 9, "/slow/1500", "X-Tier: 1\r\n");
    until_asked(&one, 9).await;

    let fourth = get(edge.address(), "/", "X-Tier: 4\r\n").await;
    assert_eq!((fourth.status(), word(&fourth)), (503, "overloaded_waited"));
    let first = get(edge.address(), "/", "X-Tier: 1\r\n").await;
    assert_eq!(first.status(), 200);
    let usual = get(edge.address(), "/", "").await;
    assert_eq!(usual.status(), 200);
    assert!(
        held.join_all()
            .await
            .iter()
            .all(|reply| reply.status() == 200)
    );
    let fourth = get(edge.address(), "/", "X-Tier: 4\r\n").await;
    assert_eq!(fourth.status(), 200);
}

#[tokio::test]
async fn endpoints_are_told_the_tier_and_strangers_cannot_choose_it() {
    let one = endpoint().await;
    let world = world_of(&one);
    let change = ten_places(&world);
    let edge = Edge::start_with(world, change);
    let seen = get(edge.address(), "/headers", "X-Tier: 3\r\n").await;
    assert!(
        seen.text().to_lowercase().contains("x-tier: 3"),
        "{}",
        seen.text()
    );
    let seen = get(edge.address(), "/headers", "X-Tier: 9\r\n").await;
    assert!(
        seen.text().to_lowercase().contains("x-tier: 2"),
        "{}",
        seen.text()
    );

    let world = world_of(&one);
    let change = ten_places(&world);
    let edge = Edge::start_with(world, |config| {
        change(config);
        config.trusted.clear();
        config.routes[0].options.limits.tier = Tier::Fourth;
    });
    let seen = get(edge.address(), "/headers", "X-Tier: 1\r\n").await;
    let text = seen.text().to_lowercase();
    assert!(
        text.contains("x-tier: 4") && !text.contains("x-tier: 1"),
        "{text}"
    );
}

#[tokio::test]
async fn a_place_in_the_region_is_free_once_the_head_is_there() {
    let one = endpoint().await;
    let world = world_of(&one);
    let limits = pool(&world, Concurrency::Max(1), None);
    let edge = Edge::start_with(world, |config| config.bounds.pools = vec![limits]);
    let mut tunnel = edge.connect().await;
    tunnel
        .send(
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    assert_eq!(tunnel.head().await.status(), Some(101));
    for _ in 0..10 {
        assert_eq!(get(edge.address(), "/", "").await.status(), 200);
    }
}

fn rule(key: RateKey, count: u32, per: Duration, burst: u32) -> RateRule {
    RateRule {
        name: "default".into(),
        key,
        rate: Rate { count, per },
        burst,
        keys: 1_000,
        adaptive: None,
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_client_that_comes_too_often_is_told_when_to_come_back() {
    let one = endpoint().await;
    let edge = Edge::start_with(world_of(&one), |config| {
        let rates = &mut config.routes[0].options.limits.rates;
        rates.push(rule(RateKey::Client, 1, MINUTE, 3));
    });
    let mut client = edge.connect().await;
    for left in (0..3).rev() {
        let reply = client.get("/").await;
        assert_eq!(reply.status(), 200);
        let told = reply.head.field("ratelimit").unwrap();
        assert!(
            told.starts_with(&format!("\"default\";r={left};t=")),
            "{told}"
        );
        let policy = reply.head.field("ratelimit-policy");
        assert_eq!(policy, Some("\"default\";q=3;w=180"));
    }
    let reply = client.get("/").await;
    assert_eq!((reply.status(), word(&reply)), (429, "rate_limited"));
    let after: u64 = reply.head.field("retry-after").unwrap().parse().unwrap();
    assert!((50..=60).contains(&after), "{after}");
    assert!(reply.head.field("ratelimit").unwrap().contains(";r=0;"));
    assert_eq!(one.requests(), 3);
}

#[tokio::test]
async fn a_limit_holds_for_all_workers_together_and_each_key_has_its_own() {
    let one = endpoint().await;
    let edge = Edge::start_with_workers(world_of(&one), 4, |config| {
        let key = RateKey::Header("x-key".parse().unwrap());
        let rates = &mut config.routes[0].options.limits.rates;
        rates.push(rule(key, 1, MINUTE, 10));
    });
    for key in ["X-Key: a\r\n", "X-Key: b\r\n", ""] {
        let replies = start(edge.address(), 60, "/", key).join_all().await;
        let served = replies.iter().filter(|reply| reply.status() == 200).count();
        assert_eq!(served, 10, "{key}");
    }
}

#[tokio::test]
async fn a_grpc_client_is_told_to_push_back() {
    let one = endpoint().await;
    let edge = Edge::start_with(world_of(&one), |config| {
        let rates = &mut config.routes[0].options.limits.rates;
        rates.push(rule(RateKey::Route, 1, MINUTE, 1));
    });
    assert_eq!(get(edge.address(), "/", "").await.status(), 200);
    let client = Http2::connect(edge.address()).await;
    let request = http::Request::post("http://x.test/api")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut requests = client.requests.clone().ready().await.unwrap();
    let (answer, _) = requests.send_request(request, true).unwrap();
    let reply = edge::reply2(answer).await;

    assert_eq!(reply.head.status, 200);
    assert_eq!(reply.head.headers["grpc-status"], "8");
    assert_eq!(reply.head.headers["x-sealane-refusal"], "rate_limited");
    let pushback: u64 = reply.head.headers["grpc-retry-pushback-ms"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((50_000..=60_000).contains(&pushback), "{pushback}");
}

#[tokio::test]
async fn a_reload_keeps_what_was_counted() {
    let one = endpoint().await;
    let world = world_of(&one);
    let mut config = edge::config(&world);
    let rates = &mut config.routes[0].options.limits.rates;
    rates.push(rule(RateKey::Client, 1, MINUTE, 2));
    let again = config.clone();
    let edge = Edge::start_inheriting(world, config, &mut |_| Vec::new());
    assert_eq!(get(edge.address(), "/", "").await.status(), 200);
    assert_eq!(get(edge.address(), "/", "").await.status(), 200);

    let prepared = edge.proxy.prepare(again).unwrap();
    edge.proxy.replace_rules(prepared);
    assert_eq!(get(edge.address(), "/", "").await.status(), 429);
}
