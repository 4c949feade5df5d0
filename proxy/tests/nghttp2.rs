//! HTTP/2 against nghttp2, an implementation that shares no code with ours: `h2load` and `nghttp` as
//! clients, `nghttpd` as the endpoint, in the clear and over TLS.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
mod edge;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use edge::{Edge, Http2, PATIENCE, certificate, reply2, server_tls};
use sealane_model::Verdict::Up;
use sealane_model::{EndpointTls, Roots, TlsVersion};
use sealane_proxy::config::ListenerProtocol;
use sealane_proxy::tls::CertificatePem;
use sealane_testkit::{ScriptedEndpoint, World};

/// Bytes of the file that endpoints serve.
const LARGE: usize = 300_000;

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// What the program prints; it must succeed.
async fn run(program: &'static str, arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    blocking(move || {
        let output = Command::new(program).args(&arguments).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{printed}\n{complaint}");
        printed
    })
    .await
}

/// Asks that often, and is answered every time.
async fn load(url: &str, requests: u32, arguments: &[&str]) {
    let count = requests.to_string();
    let mut all = vec!["-n", &count, "-T", "20"];
    all.extend(arguments);
    all.push(url);
    let printed = run("h2load", &all).await;
    let wanted = format!(
        "requests: {requests} total, {requests} started, {requests} done, {requests} succeeded, 0 failed, 0 errored, 0 timeout"
    );
    assert!(printed.contains(&wanted), "{arguments:?} {printed}");
    let codes = format!("status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx");
    assert!(printed.contains(&codes), "{printed}");
}

async fn scripted() -> (Edge, ScriptedEndpoint) {
    let one = ScriptedEndpoint::start_anywhere("one", "eu").await.unwrap();
    let world = World::new().region("eu", Up);
    let world = world.endpoint(&one.address().to_string(), Up).build();
    let edge = Edge::start_with(world, |config| {
        let tls = ListenerProtocol::Https(server_tls(&certificate()));
        config.listeners.push(edge::listener("secure", tls));
        // As many as here may fill the endpoint's queue of connections.
        config.routes[0].timeouts.connect = PATIENCE;
        config.routes[0].timeouts.attempt = PATIENCE;
        config.routes[0].timeouts.request = PATIENCE;
    });
    (edge, one)
}

/// A file to be sent.
fn upload(folder: &tempfile::TempDir, bytes: usize) -> String {
    let path = folder.path().join("upload");
    std::fs::write(&path, vec![b'u'; bytes]).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_of_many_streams_and_connections_is_answered() {
    let (edge, one) = scripted().await;
    let plain = format!("http://{}", edge.address());
    let secure = format!("https://{}", edge.address_of("secure"));

    for base in [&plain, &secure] {
        load(
            &format!("{base}/bytes/100"),
            1_000,
            &["-c", "10", "-m", "50"],
        )
        .await;
        load(
            &format!("{base}/chunked/50000"),
            100,
            &["-c", "3", "-m", "10"],
        )
        .await;
        load(
            &format!("{base}/bytes/100"),
            200,
            &["-c", "5", "-m", "1", "--h1"],
        )
        .await;
    }
    assert!(one.requests() >= 2 * 1_300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_windows_and_uploads_lose_nothing() {
    let (edge, _one) = scripted().await;
    let folder = tempfile::tempdir().unwrap();
    let file = upload(&folder, 100_000);
    let secure = format!("https://{}", edge.address_of("secure"));

    // Windows of 127 bytes, of streams and then of the connection.
    let narrow = format!("{secure}/bytes/20000");
    load(&narrow, 20, &["-c", "2", "-m", "5", "-w", "7"]).await;
    load(&narrow, 10, &["-c", "1", "-m", "5", "-W", "16", "-w", "12"]).await;
    // Tables of no size, either way.
    let tables = ["--header-table-size=0", "--encoder-header-table-size=0"];
    load(&format!("{secure}/who"), 100, &tables).await;
    load(
        &format!("{secure}/upload"),
        50,
        &["-c", "2", "-m", "10", "-d", &file],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nghttp_asks_for_in_its_own_way_is_answered() {
    let (edge, _one) = scripted().await;
    let folder = tempfile::tempdir().unwrap();
    let file = upload(&folder, 40_000);
    let secure = format!("https://{}", edge.address_of("secure"));
    let url = |path: &str| format!("{secure}{path}");

    // Trailers of the answer, for one that says it takes them.
    let shown = run(
        "nghttp",
        &["-vny", "-H", "te: trailers", &url("/chunked/5")],
    )
    .await;
    assert!(shown.contains("x-bytes: 5"), "{shown}");

    // Padding, trailers of the request, no length, pushing forbidden.
    let odd = [
        "-vy",
        "--no-push",
        "-b",
        "200",
        "--no-content-length",
        "--trailer",
        "x-sum: 1",
        "-d",
        &file,
        &url("/upload"),
    ];
    let shown = run("nghttp", &odd).await;
    assert!(shown.contains(":status: 200"), "{shown}");
    assert!(shown.replace(' ', "").contains("\"bytes\":40000"));

    // Priorities in RFC 7540's way, and a head in several frames.
    let weighed = ["-vny", "-p", "200", "--continuation", &url("/who")];
    let shown = run("nghttp", &weighed).await;
    assert!(shown.contains(":status: 200"), "{shown}");

    // A body that waits until it is asked for.
    let patient = ["-vny", "--expect-continue", "-d", &file, &url("/upload")];
    let shown = run("nghttp", &patient).await;
    assert!(shown.contains(":status: 200"), "{shown}");
}

/// Stops when dropped.
struct Nghttpd {
    process: Child,
    address: SocketAddr,
    certificate: Option<CertificatePem>,
    _folder: tempfile::TempDir,
}

impl Drop for Nghttpd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Debian puts it where not everybody looks.
fn nghttpd() -> PathBuf {
    let aside = PathBuf::from("/usr/sbin/nghttpd");
    if aside.exists() {
        aside
    } else {
        "nghttpd".into()
    }
}

impl Nghttpd {
    async fn start(certificate: Option<CertificatePem>, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("small"), "small").unwrap();
        std::fs::write(path("large"), vec![b'x'; LARGE]).unwrap();
        if let Some(certificate) = &certificate {
            std::fs::write(path("key"), &certificate.key).unwrap();
            std::fs::write(path("chain"), &certificate.chain).unwrap();
        }
        // It does not say which port it was given, so it is told one that was free a moment ago.
        for _ in 0..10 {
            let free = std::net::TcpListener::bind(edge::any_port()).unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let mut command = Command::new(nghttpd());
            command
                .args(["--address=127.0.0.1", "-d"])
                .arg(folder.path());
            command.args(arguments);
            match certificate {
                None => command.arg("--no-tls").arg(address.port().to_string()),
                Some(_) => {
                    command.arg(address.port().to_string());
                    command.arg(path("key")).arg(path("chain"))
                }
            };
            let mut process = command.stdout(Stdio::null()).spawn().unwrap();
            if listens(&mut process, address).await {
                return Self {
                    process,
                    address,
                    certificate,
                    _folder: folder,
                };
            }
        }
        panic!("nghttpd does not listen");
    }

    fn edge(&self) -> Edge {
        let world = World::new().region("eu", Up);
        let mut world = world.endpoint(&self.address.to_string(), Up).http2();
        if let Some(certificate) = &self.certificate {
            world = world.tls(&EndpointTls {
                server_name: "x.test".into(),
                roots: Roots::Pem(certificate.chain.clone()),
                certificate: None,
                minimum: TlsVersion::Tls12,
            });
        }
        Edge::start_with(world.build(), |config| {
            config.routes[0].timeouts.attempt = PATIENCE;
            config.routes[0].timeouts.request = PATIENCE;
        })
    }
}

/// Whether it listens before it ends.
async fn listens(process: &mut Child, address: SocketAddr) -> bool {
    loop {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return true;
        }
        if process.try_wait().unwrap().is_some() {
            return false;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn post(client: &Http2, path: &str, body: Vec<u8>) -> edge::Reply2 {
    let request = http::Request::post(format!("http://x.test{path}"));
    let mut requests = client.requests.clone().ready().await.unwrap();
    let (answer, mut send) = requests
        .send_request(request.body(()).unwrap(), false)
        .unwrap();
    send.send_data(body.into(), true).unwrap();
    reply2(answer).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_nghttpd_answers_everybody() {
    for certificate in [None, Some(certificate())] {
        let endpoint = Nghttpd::start(certificate, &["--trailer=x-end: yes"]).await;
        let edge = endpoint.edge();
        let url = |path: &str| format!("http://{}{path}", edge.address());

        load(&url("/small"), 1_000, &["-c", "10", "-m", "50"]).await;
        load(&url("/large"), 60, &["-c", "3", "-m", "10"]).await;
        load(&url("/small"), 200, &["-c", "5", "-m", "1", "--h1"]).await;

        let mut client = Http2::connect(edge.address()).await;
        let reply = client.get("http://x.test/large").await;
        assert_eq!((reply.head.status.as_u16(), reply.body.len()), (200, LARGE));
        assert_eq!(reply.trailers.unwrap()["x-end"], "yes");
        let reply = client.get("http://x.test/missing").await;
        assert_eq!(reply.head.status, 404);
        let mut one = edge.connect().await;
        one.send("HEAD /large HTTP/1.1\r\nHost: x.test\r\n\r\n")
            .await;
        let reply = one.reply("HEAD").await;
        let length = reply.head.field("content-length").unwrap().to_owned();
        assert_eq!((reply.status(), &*length), (200, &*LARGE.to_string()));
        assert_eq!(one.get("/small").await.text(), "small");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_s_narrow_settings_are_kept_to() {
    // One stream at a time; windows of 255 bytes and of 4 KiB.
    for narrow in [
        &["-m", "1"][..],
        &["-w", "8"],
        &["-w", "12", "-W", "16", "-m", "3"],
        &["-c", "0"],
        &["-b", "100", "--no-content-length"],
    ] {
        let mut arguments = vec!["--echo-upload"];
        arguments.extend(narrow);
        let endpoint = Nghttpd::start(None, &arguments).await;
        let edge = endpoint.edge();
        let url = format!("http://{}/small", edge.address());
        load(&url, 100, &["-c", "4", "-m", "10"]).await;

        let client = Http2::connect(edge.address()).await;
        let body: Vec<u8> = (0..50_000_u32)
            .flat_map(u32::to_le_bytes)
            .take(60_000)
            .collect();
        let reply = post(&client, "/echo", body.clone()).await;
        assert_eq!(reply.head.status, 200, "{narrow:?}");
        assert!(reply.body == body, "{narrow:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_before_the_upload_has_ended_is_passed_on() {
    let endpoint = Nghttpd::start(None, &["--early-response"]).await;
    let edge = endpoint.edge();
    let folder = tempfile::tempdir().unwrap();
    let file = upload(&folder, 1_000_000);

    let url = format!("http://{}/small", edge.address());
    load(&url, 20, &["-c", "2", "-m", "5", "-d", &file]).await;
}
