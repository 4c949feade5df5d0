//! The file is edited while requests flow: none is lost, whatever was changed, and a broken file
//! changes nothing.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "world/traffic.rs"]
mod traffic;
mod world;

use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealane_testkit::load::Load;
use sealane_testkit::{HttpClient, ScriptedEndpoint};
use traffic::{LISTENERS, Needs, Traffic, is_lost};
use world::Sealane;

const RATE: NonZeroU32 = NonZeroU32::new(200).unwrap();

/// What the test writes into the file, piece by piece.
#[derive(Clone)]
struct File {
    path: PathBuf,
    east: SocketAddr,
    west: SocketAddr,
    weights: (u32, u32),
    /// A route to a pool of the western endpoint alone.
    route: bool,
    /// A second listener.
    extra: bool,
}

impl File {
    fn write(&self) {
        let Self {
            path,
            east,
            west,
            weights,
            route,
            extra,
        } = self;
        let (west_pool, west_route) = if *route {
            (
                format!(
                    "  west:\n    regions: {{ us-west-2: {{ endpoints: [{{ address: \"{west}\" }}] }} }}\n"
                ),
                "  - { match: { path_prefix: /west }, pool: west }\n",
            )
        } else {
            (String::new(), "")
        };
        let extra = if *extra {
            "  extra: { bind: [\"127.0.0.1:0\"], protocol: http }\n"
        } else {
            ""
        };
        let yaml = format!(
            "version: 1
pools:
  api:
    regions:
      us-east-1: {{ endpoints: [{{ address: \"{east}\" }}] }}
      us-west-2: {{ endpoints: [{{ address: \"{west}\" }}] }}
    probe: {{ http: {{ path: /health }}, interval: 1s, timeout: 500ms }}
    steering: {{ policy: weighted, weights: {{ us-east-1: {}, us-west-2: {} }} }}
{west_pool}listeners:
  web: {{ bind: [\"127.0.0.1:0\"], protocol: http }}
{extra}routes:
{west_route}  - {{ pool: api }}
admin: {{ bind: [\"127.0.0.1:0\"] }}
",
            weights.0, weights.1
        );
        replace(path, &yaml);
    }
}

/// As editors do: a new file, renamed over the old one.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_the_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let east = ScriptedEndpoint::start_anywhere("east", "us-east-1")
        .await
        .unwrap();
    let west = ScriptedEndpoint::start_anywhere("west", "us-west-2")
        .await
        .unwrap();
    let mut file = File {
        path: folder.path().join("sealane.yaml"),
        east: east.address(),
        west: west.address(),
        weights: (1, 0),
        route: false,
        extra: false,
    };
    file.write();
    let path = file.path.clone();
    let mut sealane = blocking(move || Sealane::run(&path, &["web", "admin"])).await;
    let web = sealane.address("web");
    let load = Load::new(web, "api.example.test", RATE).start(now());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        load.so_far()
            .iter()
            .all(|get| get.region() == Some("us-east-1")),
        "weight 0 is none"
    );

    file.weights = (0, 1);
    sealane = applied(&file, sealane).await;
    world_follows(web, "/", "us-west-2").await;

    file.weights = (1, 0);
    file.route = true;
    sealane = applied(&file, sealane).await;
    world_follows(web, "/", "us-east-1").await;
    world_follows(web, "/west/x", "us-west-2").await;

    file.extra = true;
    sealane = applied(&file, sealane).await;
    let extra = sealane.address("extra");
    let mut kept = HttpClient::connect(extra).await.unwrap();
    assert_eq!(
        kept.get("/").await.unwrap().status(),
        200,
        "the new listener serves"
    );

    replace(&file.path, "version: 1\npools: [this is no map\n");
    sealane = logged(sealane, "the old rules go on serving").await;
    assert_eq!(
        kept.get("/").await.unwrap().status(),
        200,
        "a broken file changes nothing"
    );

    // A download that began on a listener goes on when the listener is removed.
    let size = 8 * 1024 * 1024;
    let mut download = HttpClient::connect(extra).await.unwrap();
    let mut downloads = tokio::task::JoinSet::new();
    downloads.spawn(async move {
        let whole = download.download(&format!("/bytes/{size}")).await;
        whole.map(|streamed| streamed.bytes)
    });
    file.extra = false;
    file.route = false;
    sealane = applied(&file, sealane).await;
    assert_eq!(downloads.join_next().await.unwrap().unwrap().unwrap(), size);
    until("the removed listener refuses", || {
        TcpStream::connect(extra).is_err()
    })
    .await;

    sealane.signal("HUP");
    sealane = logged(sealane, "new rules serve").await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let records = load.stop().await;
    let failed: Vec<_> = records.iter().filter(|get| is_lost(get)).collect();
    println!(
        "{} requests while the file changed seven times, {} lost",
        records.len(),
        failed.len()
    );
    assert!(records.len() > 200 && failed.is_empty(), "{failed:?}");
    drop(sealane);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_reloads_under_everything_that_clients_do_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = ScriptedEndpoint::start_anywhere("one", "us-east-1")
        .await
        .unwrap();
    let needs = Needs::new(folder.path(), endpoint.address()).await;
    let path = folder.path().join("sealane.yaml");
    let write = |number: usize| {
        // Another rule, another pool, another listener and another name each time.
        let yaml = format!(
            "version: 1
node: {{ workers: 2, drain_limit: 60s }}
pools:
  api: {{ regions: {{ us-east-1: {{ addresses: [192.0.2.10], endpoints: [{{ address: \"{at}\" }}] }} }}, probe: {{ tcp: {{}} }} }}
  other{number}: {{ regions: {{ us-east-1: {{ endpoints: [{{ address: \"{at}\" }}] }} }}, probe: {{ tcp: {{}} }} }}
{pools}listeners:
  web: {{ bind: [\"127.0.0.1:0\"] }}
  web{number}: {{ bind: [\"127.0.0.1:0\"] }}
  datagrams{number}: {{ bind: [\"127.0.0.1:0\"], protocol: udp, pool: echoes }}
{listeners}routes:
  - {{ match: {{ path_prefix: /other{number} }}, pool: other{number} }}
  - {{ pool: api }}
{dns}    other{number}.test: {{ ns: [ns1.example.test.], steered: {{ \"@\": {{ pool: api }} }} }}
admin: {{ bind: [\"127.0.0.1:0\"] }}
",
            at = endpoint.address(),
            pools = needs.pools(),
            listeners = Needs::listeners(),
            dns = Needs::dns(),
        );
        replace(&path, &yaml);
    };
    write(0);
    let started = path.clone();
    let mut sealane = blocking(move || Sealane::run(&started, &LISTENERS)).await;
    let traffic = Traffic::start(&sealane, &needs);

    for number in 1..=5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        write(number);
        sealane = logged(sealane, "new rules serve").await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;

    let summary = traffic.stop().await;
    println!("five reloads, nothing lost:{summary}");
    assert_eq!(summary.flows_moved(), 0);
    drop(sealane);
}

/// Writes the file and waits until its rules serve.
async fn applied(file: &File, sealane: Sealane) -> Sealane {
    file.write();
    logged(sealane, "new rules serve").await
}

async fn logged(mut sealane: Sealane, text: &'static str) -> Sealane {
    blocking(move || {
        sealane.wait_log(text);
        sealane
    })
    .await
}

async fn world_follows(web: SocketAddr, path: &str, region: &str) {
    for _ in 0..10 {
        let answer = HttpClient::connect(web)
            .await
            .unwrap()
            .get(path)
            .await
            .unwrap();
        assert_eq!(answer.field("x-region"), Some(region), "{path}");
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let patience = now() + Duration::from_secs(60);
    while !holds() {
        assert!(now() < patience, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "this test measures the real program by the clock"
)]
fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
