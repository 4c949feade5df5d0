//! SIGUSR2 while clients come and go: a new process takes over and nobody notices; and whatever is
//! wrong with the new one, the old one goes on.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "world/traffic.rs"]
mod traffic;
mod world;

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sealane_testkit::load::Load;
use sealane_testkit::{HttpClient, Mode, ScriptedEndpoint};
use traffic::{LISTENERS, Needs, Traffic, is_lost};
use world::{Sealane, binary, curl, text, until};

const RATE: NonZeroU32 = NonZeroU32::new(200).unwrap();
const NAME: &str = "api.example.test";

/// What a test writes into the file.
struct File {
    path: PathBuf,
    endpoints: Vec<SocketAddr>,
    workers: usize,
    upgrade_limit: &'static str,
    /// HTTP listeners beside `web`.
    more: Vec<&'static str>,
    /// Further pools and listeners, as they stand in the file.
    pools: String,
    listeners: String,
}

impl File {
    fn new(folder: &Path, endpoints: &[SocketAddr]) -> Self {
        Self {
            path: folder.join("sealane.yaml"),
            endpoints: endpoints.to_vec(),
            workers: 1,
            upgrade_limit: "60s",
            more: Vec::new(),
            pools: String::new(),
            listeners: String::new(),
        }
    }

    fn write(&self) {
        let Self {
            path,
            endpoints,
            workers,
            upgrade_limit,
            more,
            pools,
            listeners,
        } = self;
        let endpoints: String = endpoints
            .iter()
            .map(|at| format!("{{ address: \"{at}\" }}, "))
            .collect();
        let more: String = more
            .iter()
            .map(|name| format!("  {name}: {{ bind: [\"127.0.0.1:0\"] }}\n"))
            .collect();
        let dns = Needs::dns();
        let yaml = format!(
            "version: 1
node: {{ name: test, workers: {workers}, first_round_limit: 3s, drain_limit: 60s, upgrade_limit: {upgrade_limit} }}
pools:
  api:
    regions: {{ us-east-1: {{ addresses: [192.0.2.10], endpoints: [{endpoints}] }} }}
    probe: {{ tcp: {{}}, interval: 1s, timeout: 500ms }}
{pools}listeners:
  web: {{ bind: [\"127.0.0.1:0\"] }}
{listeners}{more}routes:
  - {{ pool: api }}
{dns}admin: {{ bind: [\"127.0.0.1:0\"], tokens: [{{ name: ops, token: \"file:token\", role: operator }}] }}
"
        );
        let token = path.with_file_name("token");
        std::fs::write(token, "a token for this test alone").unwrap();
        replace(path, yaml.as_bytes());
    }
}

/// As editors and packages do: a new file, renamed over the old one.
fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_upgrades_under_load_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = endpoint().await;
    let needs = Needs::new(folder.path(), endpoint.address()).await;
    let mut file = File::new(folder.path(), &[endpoint.address()]);
    file.pools = needs.pools();
    file.listeners = Needs::listeners().to_owned();
    file.write();
    let path = file.path.clone();
    let mut sealane = blocking(move || Sealane::run(&path, &LISTENERS)).await;
    let first = sealane.pid();
    let traffic = Traffic::start(&sealane, &needs);
    tokio::time::sleep(Duration::from_secs(1)).await;

    // More workers than before, then fewer: sockets are bound beside, and shared out.
    for workers in [3, 1] {
        file.workers = workers;
        file.write();
        sealane = blocking(move || {
            sealane.wait_log("new rules serve");
            sealane.upgrade();
            sealane
        })
        .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    let summary = traffic.stop().await;
    println!("two upgrades, nothing lost:{summary}");
    // The first process ends as soon as the WebSockets, which it kept all the time, are closed.
    blocking(move || {
        assert_ne!(sealane.pid(), first);
        sealane.wait_gone(first);
        sealane.signal("TERM");
        let last = sealane.pid();
        sealane.wait_gone(last);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_that_the_new_file_lacks_close_and_new_ones_open() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = endpoint().await;
    let mut file = File::new(folder.path(), &[endpoint.address()]);
    file.more = vec!["old"];
    file.write();
    let path = file.path.clone();
    // It reads the file once alone: what is written later holds from the upgrade on.
    blocking(move || {
        let mut sealane = Sealane::run(&path, &["web", "old", "admin"]);
        let (web, old) = (sealane.address("web"), sealane.address("old"));
        sealane.signal("STOP");
        file.more = vec!["new"];
        file.write();
        sealane.signal("USR2");
        sealane.signal("CONT");
        sealane.wait_log("upgrade: this process serves now");
        sealane.wait_open(&["new"]);

        until("the old listener refuses", || {
            TcpStream::connect(old).is_err()
        });
        for address in [web, sealane.address("new")] {
            let url = format!("http://{address}/");
            assert!(curl(&["-sf", &url]).status.success());
        }
        assert_eq!(sealane.address("web"), web);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_new_program_leaves_the_old_one_serving() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = endpoint().await;
    let mut file = File::new(folder.path(), &[endpoint.address()]);
    file.upgrade_limit = "10s"; // the last one has to be ready in it
    file.write();
    let path = file.path.clone();
    let program = folder.path().join("sealane");
    install(&program);
    let mut sealane = {
        let (program, path) = (program.clone(), path.clone());
        blocking(move || run(&program, &path)).await
    };
    let load = Load::new(sealane.address("web"), NAME, RATE).start(now());

    sealane = blocking(move || {
        let script = |text: &str| {
            replace(&program, text.as_bytes());
            let executable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&program, executable).unwrap();
        };
        let failed = "upgrade failed, this process goes on serving";

        script("#!/bin/sh\necho 'no such library' >&2\nexit 3\n");
        sealane.signal("USR2");
        assert!(sealane.wait_log(failed).contains("exit status: 3"));
        assert!(
            sealane.log().contains("no such library"),
            "what it says is in the log"
        );

        script("#!/bin/sh\nexec sleep 1000\n");
        sealane.signal("USR2");
        sealane.wait_log("the new program starts");
        sealane.signal("USR2");
        assert!(sealane.wait_log("no upgrade").contains("one is under way"));
        assert!(sealane.wait_log(failed).contains("not ready within 10s"));

        script("this is no program");
        sealane.signal("USR2");
        sealane.wait_log(failed);

        install(&program);
        replace(&path, b"version: 1\npools: [this is no map\n");
        sealane.wait_log("the old rules go on serving");
        sealane.signal("USR2");
        assert!(sealane.wait_log(failed).contains("cannot take over"));

        let metrics = curl(&["-sf", &sealane.url("admin", "/metrics")]);
        let metrics = text(&metrics.stdout);
        for line in [
            "sealane_upgrades_total{result=\"failed\"} 4",
            "sealane_upgrades_total{result=\"refused\"} 1",
        ] {
            assert!(metrics.contains(line), "{line} is not in {metrics}");
        }

        // And when everything is right again, it works.
        file.write();
        sealane.wait_log("new rules serve");
        let old = sealane.upgrade();
        sealane.wait_gone(old);
        sealane
    })
    .await;

    let gets = load.stop().await;
    let lost: Vec<_> = gets.iter().filter(|get| is_lost(get)).collect();
    assert!(gets.len() > 200 && lost.is_empty(), "{lost:?}");
    drop(sealane);
}

fn install(program: &Path) {
    let _ = std::fs::remove_file(program);
    // The folder may lie on another file system.
    std::fs::hard_link(binary(), program)
        .or_else(|_| std::fs::copy(binary(), program).map(drop))
        .unwrap();
}

fn run(program: &Path, config: &Path) -> Sealane {
    let mut command = Command::new(program);
    let config = config.to_str().unwrap();
    command.args(["--log-format", "json", "run", "--config", config]);
    let mut sealane = Sealane::start(command.stdout(Stdio::piped()));
    sealane.wait_open(&["web", "dns", "admin"]);
    sealane
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_the_old_process_dies_meanwhile_the_new_one_serves() {
    let folder = tempfile::tempdir().unwrap();
    let (good, silent) = (endpoint().await, endpoint().await);
    let file = File::new(folder.path(), &[good.address()]);
    file.write();
    let path = file.path.clone();
    let mut sealane = blocking(move || Sealane::run(&path, &["web", "dns", "admin"])).await;
    let web = sealane.address("web");
    // Never answers a probe, so that the first round takes its time.
    silent.set_mode(Mode::BlackHole).await.unwrap();
    let slow = format!(
        "version: 1\nnode: {{ first_round_limit: 3s }}\npools:\n  api: {{ regions: {{ us-east-1: {{ endpoints: [{{ address: \"{}\" }}] }} }} }}\n  \
         slow: {{ regions: {{ us-east-1: {{ endpoints: [{{ address: \"{}\" }}] }} }}, \
         probe: {{ http: {{ path: /health }}, interval: 60s, timeout: 50s }} }}\nlisteners: {{ web: {{ bind: [\"127.0.0.1:0\"] }} }}\n\
         routes: [{{ match: {{ path_prefix: /slow }}, pool: slow }}, {{ pool: api }}]\nadmin: {{ bind: [\"127.0.0.1:0\"] }}\n",
        good.address(),
        silent.address()
    );
    sealane = blocking(move || {
        sealane.signal("STOP");
        replace(&file.path, slow.as_bytes());
        sealane.signal("USR2");
        sealane.signal("CONT");
        sealane.wait_log("upgrade: taking over from a running process");
        sealane.signal("KILL");
        sealane
    })
    .await;

    // The sockets are open all the time: this waits until the new process serves.
    let client = HttpClient::connect(web).await.unwrap();
    let answer = client
        .within(Duration::from_secs(60))
        .get("/")
        .await
        .unwrap();

    assert_eq!(answer.status(), 200);
    blocking(move || {
        sealane.wait_log("the earlier process is gone");
        sealane.wait_log("upgrade: this process serves now");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_flows_keep_their_endpoints_and_ports() {
    let folder = tempfile::tempdir().unwrap();
    let probed = endpoint().await;
    let echoes: Vec<UdpSocket> = (0..3).map(|_| socket()).collect();
    let list: Vec<String> = echoes
        .iter()
        .map(|echo| format!("{{ address: \"{}\" }}", at(echo)))
        .collect();
    let mut file = File::new(folder.path(), &[probed.address()]);
    file.workers = 2;
    file.pools = format!(
        "  echoes: {{ regions: {{ us-east-1: {{ endpoints: [{}] }} }}, probe: {{ tcp: {{}}, port: {} }} }}\n",
        list.join(", "),
        probed.address().port()
    );
    file.listeners =
        "  games: { bind: [\"127.0.0.1:0\"], protocol: udp, pool: echoes }\n".to_owned();
    file.write();
    blocking(move || {
        let mut sealane = Sealane::run(&file.path, &["web", "games", "admin"]);
        let games = sealane.address("games");
        // More clients than sockets: each socket has some.
        let clients: Vec<UdpSocket> = (0..8).map(|_| socket()).collect();
        let ask = |client: &UdpSocket| {
            client.send_to(b"ask", games).unwrap();
            heard(&echoes)
        };
        let before: Vec<_> = clients.iter().map(ask).collect();

        let old = sealane.upgrade();

        let after: Vec<_> = clients.iter().map(ask).collect();
        assert_eq!(after, before, "(endpoint, the port that it sees)");
        sealane.wait_gone(old);
        for (client, (endpoint, port)) in clients.iter().zip(&before) {
            let said = format!("from {endpoint}");
            echoes[*endpoint].send_to(said.as_bytes(), port).unwrap();
            let mut room = [0; 64];
            let (length, from) = client.recv_from(&mut room).unwrap();
            assert_eq!((text(&room[..length]), from), (said, games));
        }
    })
    .await;
}

/// That waits for ten seconds at most.
fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket
}

fn at(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

/// Which of them hears something, and from whom.
fn heard(echoes: &[UdpSocket]) -> (usize, SocketAddr) {
    let mut found = None;
    until("an endpoint hears something", || {
        for (number, echo) in echoes.iter().enumerate() {
            echo.set_nonblocking(true).unwrap();
            if let Ok((_, from)) = echo.recv_from(&mut [0; 64]) {
                found = Some((number, from));
            }
        }
        found.is_some()
    });
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_s_word_holds_in_the_new_process() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = endpoint().await;
    let file = File::new(folder.path(), &[endpoint.address()]);
    file.write();
    let path = file.path;
    blocking(move || {
        let mut sealane = Sealane::run(&path, &["web", "admin"]);
        order(&sealane, "drain", folder.path());
        let old = sealane.upgrade();

        let snapshot = sealane.admin("/v1/snapshot");
        let overrides = snapshot["overrides"].as_array().unwrap();
        assert_eq!(overrides.len(), 1, "{snapshot}");
        sealane.wait_gone(old);
        order(&sealane, "failback", folder.path());
        let snapshot = sealane.admin("/v1/snapshot");
        assert_eq!(snapshot["overrides"].as_array().unwrap().len(), 0);
    })
    .await;
}

fn order(sealane: &Sealane, verb: &str, folder: &Path) {
    let admin = format!("--admin={}", sealane.url("admin", ""));
    let token = format!("--token-file={}", folder.join("token").display());
    let output = world::sealane(&[verb, "--region=us-east-1", "--force", &admin, &token]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn the_demo_is_not_upgraded() {
    let mut sealane = Sealane::demo(&[]);

    sealane.signal("USR2");

    sealane.wait_log("no upgrade");
    assert!(curl(&["-sf", &sealane.url("web", "/")]).status.success());
}

async fn endpoint() -> ScriptedEndpoint {
    ScriptedEndpoint::start_anywhere("one", "us-east-1")
        .await
        .unwrap()
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
