//! The admin API over real sockets, with a whole control behind it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sealane_control::admin::{
    self, BindError, Canary, Deps, Explain, ExplainError, Readiness, Zone,
};
use sealane_control::config::{AdminConfig, AdminToken, Config, Probe, ProbeKind, Role};
use sealane_control::{ControlHandle, build};
use sealane_model::{
    Addresses, AllDown, Endpoint, EndpointProtocol, FailoverRule, IdBook, Member, Pool, Ratio,
    Region, SnapshotReader, Target, Topology, Weight,
};
use sealane_steering::{Ask, ClientPlace, Decision, GeoTable, How, SteeringPolicy, explain};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Control and its admin API on loopback; ends with the test.
struct Running {
    address: SocketAddr,
    handle: ControlHandle,
    world: SnapshotReader,
    endpoints: Vec<SocketAddr>,
    config: Config,
    stop_control: Option<oneshot::Sender<()>>,
    stop_admin: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
    _accepting: JoinSet<()>,
}

struct Setup {
    tokens: Vec<(&'static str, Role)>,
    open: bool,
    state_file: Option<PathBuf>,
    /// `false`: control is built but never runs, so orders wait for ever.
    run: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            tokens: vec![("s3cret", Role::Operator), ("look", Role::Viewer)],
            open: false,
            state_file: None,
            run: true,
        }
    }
}

impl Running {
    async fn start(setup: Setup) -> Self {
        let mut accepting = JoinSet::new();
        let mut endpoints = Vec::new();
        for _ in 0..2 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            endpoints.push(listener.local_addr().unwrap());
            accepting.spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    drop(stream);
                }
            });
        }
        let config = config(&setup, &endpoints);
        let control = build(config.clone()).unwrap();
        let (handle, world) = (control.handle.clone(), control.world.clone());
        let bound = admin::bind(&config.admin).unwrap();
        let address = bound.addresses()[0];
        let deps = Deps {
            handle: handle.clone(),
            world: world.clone(),
            explain: Arc::new(Oracle(world.clone())),
            ready: Arc::new(|| Readiness::Ready),
            metrics: Arc::new(|| "sealane_up 1\n".to_owned()),
        };
        let (stop_control, control_stopped) = oneshot::channel();
        let (stop_admin, admin_stopped) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if setup.run {
                let stopped = async {
                    let _ = control_stopped.await;
                };
                control.run(stopped).await;
            } else {
                let _ = control_stopped.await;
                drop(control);
            }
        });
        let tokens = Arc::new(ArcSwap::from_pointee(config.admin.clone()));
        tasks.spawn(admin::serve(bound, tokens, deps, async {
            let _ = admin_stopped.await;
        }));
        if setup.run {
            handle.first_round().await;
        }
        Self {
            address,
            handle,
            world,
            endpoints,
            config,
            stop_control: Some(stop_control),
            stop_admin: Some(stop_admin),
            tasks,
            _accepting: accepting,
        }
    }

    async fn stop(mut self) {
        let _ = self.stop_admin.take().unwrap().send(());
        let _ = self.stop_control.take().unwrap().send(());
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }

    async fn ask(&self, head: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut text = format!("{head} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            text += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!("content-length: {}\r\n\r\n{body}", body.len());
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Reply {
            status: head[9..12].parse().unwrap(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path}"), &[], "").await
    }

    async fn post(&self, path: &str, body: &str) -> Reply {
        self.ask(
            &format!("POST {path}"),
            &[("authorization", "Bearer s3cret")],
            body,
        )
        .await
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

/// One pool, one endpoint each in two regions.
fn config(setup: &Setup, endpoints: &[SocketAddr]) -> Config {
    let mut book = IdBook::default();
    let pool = book.pool("api").unwrap();
    let (mut regions, mut members, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for (name, address) in ["eu-central-1", "us-east-1"].into_iter().zip(endpoints) {
        let region = book.region(name).unwrap();
        let id = book.endpoint(pool, region, &address.to_string()).unwrap();
        regions.push(Region::new(region, name, None));
        members.push(Member {
            region,
            weight: Weight::DEFAULT,
            priority: 1,
            capacity: None,
            addresses: Addresses::OfEndpoints,
            endpoints: vec![id],
        });
        all.push(Endpoint {
            id,
            pool,
            region,
            name: address.to_string().into(),
            target: Target::Address(*address),
            az: Some("a".into()),
            weight: Weight::DEFAULT,
            protocol: EndpointProtocol::Http1,
            tls: None,
            proxy_protocol: None,
        });
    }
    let rule = FailoverRule {
        threshold: Ratio::new(0.5).unwrap(),
        hold_down: Duration::from_secs(60),
        all_down: AllDown::FailOpen,
        panic: Ratio::ZERO,
        ramp: None,
    };
    let probe = Probe {
        kind: ProbeKind::Tcp,
        port: None,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        fall: 2,
        rise: 3,
        recheck: Duration::from_millis(100),
    };
    let token = |(token, role): &(&str, Role)| AdminToken {
        name: format!("{role:?}").to_lowercase().into(),
        sha256: Sha256::digest(token.as_bytes()).into(),
        role: *role,
    };
    Config {
        node: "edge-1".into(),
        topology: Arc::new(Topology::new(
            regions,
            vec![Pool {
                id: pool,
                name: "api".into(),
                members,
                failover: rule,
            }],
            all,
        )),
        probes: vec![(pool, probe)],
        first_round_limit: Duration::from_secs(5),
        state_file: setup.state_file.clone(),
        learn: None,
        admin: AdminConfig {
            bind: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            tokens: setup.tokens.iter().map(token).collect(),
            open: setup.open,
        },
    }
}

/// Explains `api.test` with the real decision.
struct Oracle(SnapshotReader);

impl Oracle {
    fn decide(&self, what: &str, client: IpAddr) -> Result<Decision, ExplainError> {
        if !what.contains("api.test") {
            return Err(ExplainError::not_found(format!(
                "{what} is in none of our zones"
            )));
        }
        let world = self.0.load_full();
        let pool = world.topology.pool_named("api").unwrap().id;
        let place = ClientPlace::locate(client, How::ClientSubnet, &GeoTable::empty());
        let wished = world.topology.region_named("eu-central-1").unwrap().id;
        let policy = SteeringPolicy::Pinned(wished);
        let ask = Ask {
            pool,
            policy: &policy,
            place: &place,
            key: place.key(),
        };
        let explanation = explain(&ask, &world);
        Ok(Decision {
            via: what.to_owned(),
            pool,
            policy: policy.as_str(),
            place,
            explanation,
            world,
            notes: vec![("ttl", "10".to_owned())],
        })
    }
}

impl Explain for Oracle {
    fn dns(&self, name: &str, client: IpAddr) -> Result<Decision, ExplainError> {
        self.decide(name, client)
    }

    fn url(&self, url: &str, client: IpAddr) -> Result<Decision, ExplainError> {
        assert_ne!(url, "panic", "a fault of the explainer");
        self.decide(url, client)
    }

    fn zones(&self) -> Vec<Zone> {
        let copy = Zone {
            name: "example.test".to_owned(),
            serial: Some(7),
            is_secondary: true,
            from: Some("192.0.2.9:53".to_owned()),
            heard_at: Some(1_000),
            expires_at: Some(2_000),
            ..Zone::default()
        };
        let own = Zone {
            name: "own.test".to_owned(),
            told: (1, 2),
            ..Zone::default()
        };
        vec![copy, own]
    }

    fn canaries(&self) -> Vec<Canary> {
        let canary = |pool: &str, aborted| Canary {
            route: "all".to_owned(),
            pool: pool.to_owned(),
            share: 0.05,
            aborted,
        };
        let grounds = ("errors: 9 of 20".to_owned(), Duration::from_secs(7));
        vec![canary("good", None), canary("bad", Some(grounds))]
    }

    fn reset_canary(&self, route: &str, pool: &str) -> Result<bool, ExplainError> {
        match (route, pool) {
            ("all", "bad") => Ok(true),
            ("all", "good") => Ok(false),
            _ => Err(ExplainError::not_found("no such canary")),
        }
    }
}

#[tokio::test]
async fn a_running_control_shows_what_it_knows() {
    let running = Running::start(Setup::default()).await;

    assert_eq!(running.get("/livez").await.status, 200);
    let ready = running.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)));
    assert_eq!(running.get("/metrics").await.body, "sealane_up 1\n");

    let snapshot = running.get("/v1/snapshot").await.json();
    assert_eq!(snapshot["node"], "edge-1");
    let member = &snapshot["pools"][0]["members"][0];
    assert_eq!(member["region"], "eu-central-1");
    assert_eq!(member["standing"], json!({"in": true}));
    assert_eq!(
        (&member["healthy"], &member["total"]),
        (&json!(1), &json!(1))
    );
    let endpoint = &member["endpoints"][0];
    assert_eq!(endpoint["verdict"], "up");
    assert_eq!(endpoint["by"], "probe");
    assert_eq!(endpoint["addresses"][0], running.endpoints[0].to_string());
    assert!(endpoint["rtt_ms"].as_f64().unwrap() < 1_000.0);
    assert!(snapshot["published_at"].as_str().unwrap().ends_with('Z'));

    let status = running.get("/v1/status").await.json();
    assert_eq!(status["pools"][0]["regions_in"], 2);
    assert_eq!(status["pools"][0]["regions"][1]["standing"], "in");
    running.stop().await;
}

#[tokio::test]
async fn failover_and_failback_as_users_call_them() {
    let running = Running::start(Setup::default()).await;

    let reply = running
        .post(
            "/api/failover",
            r#"{"target": "eu_central_1", "reason": "drill"}"#,
        )
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let view = reply.json();
    assert_eq!(
        (&view["result"], &view["target"]),
        (&json!("followed"), &json!("eu-central-1"))
    );
    assert_eq!(view["pools"][0]["regions_after"], json!(["us-east-1"]));
    let shown = running.get("/v1/snapshot").await.json();
    assert_eq!(
        shown["pools"][0]["members"][0]["standing"],
        json!({"in": false, "reason": "failed_over"})
    );
    assert_eq!(shown["overrides"][0]["by"], "operator");
    assert_eq!(shown["overrides"][0]["reason"], "drill");
    assert!(!reply.body.contains("s3cret") && !shown.to_string().contains("s3cret"));

    let other = json!({"target": running.endpoints[1].to_string()}).to_string();
    let refused = running.post("/v1/drain", &other).await;
    assert_eq!(
        (refused.status, refused.error()),
        (
            409,
            "pool api would be left without any usable region".to_owned()
        )
    );

    let reply = running
        .post("/api/failback", r#"{"target": "eu-central-1"}"#)
        .await;
    assert_eq!(reply.json()["result"], "followed");
    let reply = running
        .post("/api/failback", r#"{"target": "eu-central-1"}"#)
        .await;
    assert_eq!(reply.json()["result"], "already");
    running.stop().await;
}

#[tokio::test]
async fn a_change_needs_an_operators_token() {
    let running = Running::start(Setup::default()).await;
    let order = r#"{"target": "eu-central-1"}"#;
    let post = async |authorization: &str| {
        running
            .ask(
                "POST /api/failover",
                &[("authorization", authorization)],
                order,
            )
            .await
    };
    let none = running.ask("POST /api/failover", &[], order).await;
    assert_eq!(none.status, 401);
    assert!(none.head.contains("www-authenticate: bearer"));
    assert_eq!(post("Bearer wrong").await.status, 401);
    assert_eq!(post("Bearer look").await.status, 403);
    assert_eq!(running.world.load().topology.regions().count(), 2);
    assert!(running.handle.overview().overrides.is_empty());
    assert_eq!(post("Bearer s3cret").await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn zones_that_are_transferred_are_shown() {
    let running = Running::start(Setup::default()).await;

    let shown = running.get("/v1/zones").await.json();
    let (copy, own) = (&shown["zones"][0], &shown["zones"][1]);
    assert_eq!(
        (&copy["role"], &copy["serial"]),
        (&json!("secondary"), &json!(7))
    );
    assert_eq!(copy["from"], "192.0.2.9:53");
    assert_eq!(copy["expires_at"], 2_000);
    assert_eq!(
        (&own["role"], &own["serial"]),
        (&json!("primary"), &json!(null))
    );
    assert_eq!(own["servers_told"], 1);
    assert_eq!(own["servers_to_tell"], 2);

    running.stop().await;
}

#[tokio::test]
async fn canaries_are_shown_and_an_operator_may_reset_one() {
    let running = Running::start(Setup::default()).await;

    let shown = running.get("/v1/canaries").await.json();
    let (good, bad) = (&shown["canaries"][0], &shown["canaries"][1]);
    assert_eq!(
        (&good["share"], &good["aborted"]),
        (&json!(0.05), &json!(null))
    );
    assert_eq!(
        (&bad["share"], &bad["configured_share"]),
        (&json!(0.0), &json!(0.05))
    );
    assert_eq!(bad["aborted"], "errors: 9 of 20");
    assert_eq!(bad["aborted_seconds_ago"], 7);

    let reset = async |body: &str| running.post("/v1/canaries/reset", body).await;
    let done = reset(r#"{"route": "all", "pool": "bad"}"#).await;
    assert_eq!((done.status, &done.json()["result"]), (200, &json!("done")));
    let already = reset(r#"{"route": "all", "pool": "good"}"#).await;
    assert_eq!(already.json()["result"], "already");
    assert_eq!(reset(r#"{"route": "all", "pool": "x"}"#).await.status, 404);
    assert_eq!(reset(r#"{"route": "all"}"#).await.status, 422);
    assert_eq!(reset("{").await.status, 400);
    let look = [("authorization", "Bearer look")];
    let body = r#"{"route": "all", "pool": "bad"}"#;
    let denied = running.ask("POST /v1/canaries/reset", &look, body).await;
    assert_eq!(denied.status, 403);
    running.stop().await;
}

#[tokio::test]
async fn without_tokens_changes_are_off_and_the_answer_says_how_to_turn_them_on() {
    let running = Running::start(Setup {
        tokens: Vec::new(),
        ..Setup::default()
    })
    .await;
    let reply = running
        .ask("POST /v1/drain", &[], r#"{"target": "eu-central-1"}"#)
        .await;
    assert_eq!(reply.status, 403);
    assert!(
        reply.json()["hint"]
            .as_str()
            .unwrap()
            .contains("admin.tokens")
    );
    running.stop().await;

    let open = Setup {
        tokens: Vec::new(),
        open: true,
        ..Setup::default()
    };
    let running = Running::start(open).await;
    let reply = running
        .ask("POST /v1/drain", &[], r#"{"target": "eu-central-1"}"#)
        .await;
    assert_eq!(reply.status, 200);
    let foreign = [("origin", "http://evil.example")];
    let reply = running
        .ask("POST /v1/drain", &foreign, r#"{"target": "us-east-1"}"#)
        .await;
    assert_eq!(reply.status, 403);
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused_with_its_place() {
    let running = Running::start(Setup::default()).await;
    let broken = running.post("/api/failover", "{\"target\": \"eu\"").await;
    assert_eq!(broken.status, 400);
    assert!(broken.error().contains("line 1 column"), "{broken:?}");
    let typed = running.post("/api/failover", r#"{"target": 7}"#).await;
    assert_eq!(typed.status, 422);
    let unknown_key = running
        .post("/api/failover", r#"{"target": "eu", "dryrun": true}"#)
        .await;
    assert_eq!(unknown_key.status, 422);
    assert_eq!(
        running
            .post("/api/failover", r#"{"target": " "}"#)
            .await
            .status,
        422
    );
    let nobody = running.post("/api/failover", r#"{"target": "mars"}"#).await;
    assert_eq!(nobody.status, 404);
    assert!(nobody.error().contains("eu-central-1"), "{nobody:?}");
    let large = running.post("/api/failover", &"x".repeat(65 * 1024)).await;
    assert_eq!(
        (large.status, large.error()),
        (413, "the body is too large".to_owned())
    );

    let lost = running.get("/v2/nothing").await;
    assert_eq!(lost.status, 404);
    assert!(lost.json()["paths"].as_array().unwrap().len() > 5);
    let wrong = running.get("/api/failover").await;
    assert_eq!(wrong.status, 405);
    assert!(wrong.head.contains("allow: post"), "{wrong:?}");
    let rebound = running
        .ask("GET /v1/snapshot", &[("host", "evil.example")], "")
        .await;
    assert_eq!(rebound.status, 403);
    running.stop().await;
}

#[tokio::test]
async fn the_same_idempotency_key_gets_the_same_reply_and_not_a_second_order() {
    let running = Running::start(Setup::default()).await;
    let headers = [
        ("authorization", "Bearer s3cret"),
        ("idempotency-key", "k-1"),
    ];
    let order = r#"{"target": "eu-central-1"}"#;
    let first = running.ask("POST /api/failover", &headers, order).await;
    running.post("/api/failback", order).await;

    let again = running.ask("POST /api/failover", &headers, order).await;

    assert_eq!((again.status, &again.body), (200, &first.body));
    assert!(again.head.contains("idempotency-replayed: true"));
    assert!(
        running.handle.overview().overrides.is_empty(),
        "not followed again"
    );
    let other = running
        .ask("POST /api/failover", &headers, r#"{"target": "us-east-1"}"#)
        .await;
    assert_eq!(other.status, 422);
    running.stop().await;
}

#[tokio::test]
async fn a_dry_run_tells_and_changes_nothing() {
    let running = Running::start(Setup::default()).await;
    let order = r#"{"target": "eu-central-1", "dry_run": true}"#;
    let view = running.post("/api/failover", order).await.json();
    assert_eq!(view["result"], "would_follow");
    assert_eq!(
        view["pools"][0]["regions_before"],
        json!(["eu-central-1", "us-east-1"])
    );
    assert!(running.handle.overview().overrides.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn explain_shows_every_candidate_and_what_kept_it_from_winning() {
    let running = Running::start(Setup::default()).await;
    running
        .post("/api/failover", r#"{"target": "eu-central-1"}"#)
        .await;

    let told = running
        .get("/v1/explain?dns=api.test&client=203.0.113.9")
        .await
        .json();
    assert_eq!(
        (&told["winner"], &told["reason"]),
        (&json!("us-east-1"), &json!("failed_over(eu-central-1)"))
    );
    assert_eq!(told["candidates"].as_array().unwrap().len(), 2);
    assert_eq!(
        told["candidates"][0]["filter"],
        "failed over by the operator"
    );
    assert_eq!(told["candidates"][1]["filter"], Value::Null);
    assert_eq!(told["client"]["address"], "203.0.113.9");
    assert_eq!(told["notes"]["ttl"], json!(["10"]));
    assert!(told["generation"].as_u64().unwrap() > 0);

    let by_url = running
        .get("/v1/explain?url=http%3A%2F%2Fapi.test%2F&client=%3A%3A1")
        .await;
    assert_eq!(
        (by_url.status, by_url.json()["via"].as_str().unwrap()),
        (200, "http://api.test/")
    );
    for (query, status) in [
        ("dns=other.test&client=::1", 404),
        ("dns=api.test", 400),
        ("client=::1", 400),
        ("dns=api.test&client=nowhere", 400),
        ("dns=api.test&url=http://api.test&client=::1", 400),
        ("name=api.test&client=::1", 400),
        ("url=panic&client=::1", 500),
    ] {
        let reply = running.get(&format!("/v1/explain?{query}")).await;
        assert_eq!(reply.status, status, "{query}: {reply:?}");
        assert!(!reply.error().is_empty());
    }
    running.stop().await;
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let config = AdminConfig {
        bind: vec![address],
        tokens: Vec::new(),
        open: false,
    };

    let error = admin::bind(&config).unwrap_err();

    assert!(matches!(error, BindError::InUse { .. }));
    assert_eq!(
        error.to_string(),
        format!("{address} is in use by another program")
    );
}

#[tokio::test]
async fn a_restart_keeps_the_operators_word_and_the_age_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let state_file = Some(folder.path().join("state.json"));
    let setup = || Setup {
        state_file: state_file.clone(),
        ..Setup::default()
    };
    let running = Running::start(setup()).await;
    running
        .post(
            "/api/failover",
            r#"{"target": "eu-central-1", "reason": "drill"}"#,
        )
        .await;
    running.stop().await;

    let running = Running::start(setup()).await;
    let snapshot = running.get("/v1/snapshot").await.json();

    assert!(
        snapshot["restored_state_age_seconds"].is_u64(),
        "{snapshot}"
    );
    assert_eq!(snapshot["overrides"][0]["reason"], "drill");
    assert_eq!(
        snapshot["pools"][0]["members"][0]["standing"]["reason"],
        "failed_over"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_broken_or_unwritable_state_file_keeps_nothing_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    std::fs::write(&path, "{ this is no map").unwrap();
    let running = Running::start(Setup {
        state_file: Some(path.clone()),
        ..Setup::default()
    })
    .await;
    running.stop().await;
    let names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names
            .iter()
            .any(|name| name.starts_with("state.json.broken-")),
        "{names:?}"
    );
    assert!(names.contains(&"state.json".to_owned()), "{names:?}");

    let nowhere = folder.path().join("missing").join("state.json");
    let running = Running::start(Setup {
        state_file: Some(nowhere),
        ..Setup::default()
    })
    .await;
    assert_eq!(running.get("/readyz").await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn a_reload_is_published_when_it_returns() {
    let running = Running::start(Setup::default()).await;
    let before = running.world.load().generation;
    let mut config = running.config.clone();
    config.node = "edge-2".into();
    config.topology = Arc::new(Topology::new(Vec::new(), Vec::new(), Vec::new()));

    running.handle.replace(config).await.unwrap();

    assert!(running.world.load().generation > before);
    assert_eq!(running.world.load().topology.pools().count(), 0);
    assert_eq!(running.get("/v1/status").await.json()["node"], "edge-2");
    running.stop().await;
}

#[tokio::test]
async fn after_the_end_a_handle_says_so_instead_of_waiting() {
    let running = Running::start(Setup::default()).await;
    let (handle, config) = (running.handle.clone(), running.config.clone());
    running.stop().await;

    assert!(handle.replace(config).await.is_err());
    handle.first_round().await;
}

#[tokio::test]
async fn when_too_much_is_asked_the_rest_is_refused_and_the_vital_signs_still_answer() {
    let running = Running::start(Setup {
        run: false,
        ..Setup::default()
    })
    .await;
    let order = r#"{"target": "eu-central-1"}"#;
    let text = format!(
        "POST /api/failover HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer s3cret\r\n\
         content-length: {}\r\n\r\n{order}",
        order.len()
    );
    let mut waiting = Vec::new();
    for _ in 0..admin::serve::REQUESTS_MAX {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        waiting.push(stream);
    }

    // The others may still be on their way in: ask until the door is full.
    let refused = async {
        loop {
            let reply = running.get("/v1/status").await;
            if reply.status != 200 {
                return reply;
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(5), refused)
        .await
        .unwrap();

    assert_eq!(
        (refused.status, refused.error()),
        (503, "too many requests at once".to_owned())
    );
    assert_eq!(running.get("/livez").await.status, 200);
    assert_eq!(
        running.get("/readyz").await.status,
        503,
        "the first round never ended"
    );
    drop(waiting);
    running.stop().await;
}
