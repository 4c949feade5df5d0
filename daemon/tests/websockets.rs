//! Thousands of WebSockets that say nothing: they outlive a reload, and an upgrade until the drain's
//! deadline.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sealane_testkit::websocket::{self, Kind};
use sealane_testkit::{HttpClient, ScriptedEndpoint};
use tokio::task::JoinSet;
use world::Sealane;

/// How many, unless this variable says otherwise (`make test-slow`: 10,000).
const COUNT: usize = 1_000;
const COUNT_VARIABLE: &str = "SEALANE_IDLE_WEBSOCKETS";
/// Each takes two descriptors in the program, and two here.
const DESCRIPTORS_EACH: u64 = 2;
/// For everything else.
const DESCRIPTORS_SPARE: u64 = 120;
/// Opened at once.
const AT_ONCE: usize = 100;
const PATIENCE: Duration = Duration::from_secs(300);

type WebSocket = tokio::io::BufReader<tokio::net::TcpStream>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_websockets_are_kept_over_a_reload_and_an_upgrade() {
    let count = fitting(wanted());
    let folder = tempfile::tempdir().unwrap();
    let one = ScriptedEndpoint::start_anywhere("one", "us-east-1")
        .await
        .unwrap();
    let two = ScriptedEndpoint::start_anywhere("two", "us-east-1")
        .await
        .unwrap();
    let endpoints = [one.address(), two.address()];
    let file = folder.path().join("sealane.yaml");
    configure(&file, endpoints, "before");
    let (path, listeners) = (file.clone(), ["web", "admin"]);
    let mut sealane = blocking(move || Sealane::run(&path, &listeners)).await;
    let before = sealane.memory();
    let web = sealane.address("web");
    let sockets = open(web, count).await;
    let each = sealane.memory().saturating_sub(before) / count as u64;

    configure(&file, endpoints, "after");
    sealane = blocking(move || {
        sealane.wait_log("new rules serve");
        sealane
    })
    .await;
    let sockets = all_echo(sockets).await;
    assert_eq!(sockets.len(), count, "kept over the reload");

    let (mut sealane, old) = blocking(move || {
        let old = sealane.upgrade();
        (sealane, old)
    })
    .await;
    let sockets = all_echo(sockets).await;
    assert_eq!(sockets.len(), count, "kept over the upgrade");

    println!("{count} idle WebSockets kept over a reload and an upgrade, {each} bytes each");
    drop(sockets);
    blocking(move || sealane.wait_gone(old)).await;
}

fn wanted() -> usize {
    let asked = std::env::var(COUNT_VARIABLE).ok();
    asked.map_or(COUNT, |count| count.parse().unwrap())
}

/// As many as the system's limit on descriptors has room for.
fn fitting(wanted: usize) -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let room = maximum.map_or(u64::MAX, |most| {
        (most - DESCRIPTORS_SPARE) / DESCRIPTORS_EACH
    });
    let room = usize::try_from(room).unwrap();
    if room < wanted {
        println!("the limit on descriptors has room for {room} WebSockets, not for {wanted}");
    }
    wanted.min(room)
}

fn configure(file: &Path, [one, two]: [SocketAddr; 2], route: &str) {
    let yaml = format!(
        "version: 1
node: {{ drain_limit: 10m }}
pools:
  api:
    regions: {{ us-east-1: {{ endpoints: [{{ address: \"{one}\" }}, {{ address: \"{two}\" }}] }} }}
    probe: {{ tcp: {{}} }}
listeners: {{ web: {{ bind: [\"127.0.0.1:0\"] }} }}
routes: [{{ name: {route}, pool: api, timeouts: {{ idle: 30m }} }}]
limits: {{ connections_per_client: 20000 }}
admin: {{ bind: [\"127.0.0.1:0\"] }}
"
    );
    let new = file.with_extension("new");
    std::fs::write(&new, yaml).unwrap();
    std::fs::rename(new, file).unwrap();
}

async fn open(web: SocketAddr, count: usize) -> Vec<WebSocket> {
    let mut opening = JoinSet::new();
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        if opening.len() >= AT_ONCE {
            sockets.push(opening.join_next().await.unwrap().unwrap());
        }
        opening.spawn(async move {
            let client = HttpClient::connect(web).await.unwrap();
            let mut client = client.within(PATIENCE);
            client.upgrade_to_websocket("/ws").await.unwrap();
            client.into_stream()
        });
    }
    sockets.extend(opening.join_all().await);
    sockets
}

/// Those that still echo.
async fn all_echo(sockets: Vec<WebSocket>) -> Vec<WebSocket> {
    let mut alive = Vec::with_capacity(sockets.len());
    for mut socket in sockets {
        let mask = Some([1, 2, 3, 4]);
        let echoed = async {
            websocket::write(&mut socket, Kind::Text, b"still there?", mask).await?;
            websocket::read(&mut socket).await
        };
        let echoed = tokio::time::timeout(PATIENCE, echoed).await;
        if matches!(echoed, Ok(Ok(frame)) if frame.payload == b"still there?") {
            alive.push(socket);
        }
    }
    alive
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}
