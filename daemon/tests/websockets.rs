//! Thousands of WebSockets that say nothing: they outlive a reload, and an upgrade until the drain's
//! deadline.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sealane_testkit::websocket::{self, Kind};
use sealane_testkit::{HttpClient, ScriptedEndpoint};
use tokio::task::JoinSet;
use world::Sealane;

/// How many, unless this variable says otherwise (`make test-slow`: 10,000).
const COUNT: usize = 1_000;
const COUNT_VARIABLE: &str = "SEALANE_IDLE_WEBSOCKETS";
/// Descriptors that each takes in the program, and as many here.
const BY_HTTP_1: u64 = 2;
const BY_HTTP_2: u64 = 1;
/// WebSockets in one connection of HTTP/2.
const STREAMS: usize = 100;
/// For everything else.
const DESCRIPTORS_SPARE: u64 = 120;
/// Opened at once.
const AT_ONCE: usize = 100;
const PATIENCE: Duration = Duration::from_secs(30);

/// A client's end.
enum WebSocket {
    Http1(tokio::io::BufReader<tokio::net::TcpStream>),
    Http2 {
        send: SendStream<Bytes>,
        body: RecvStream,
        /// Ends the connection with the last of its WebSockets.
        _driver: Arc<JoinSet<Result<(), h2::Error>>>,
    },
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_websockets_are_kept_over_a_reload_and_an_upgrade() {
    let count = wanted();
    // Some by HTTP/2 in any case: they share one connection's windows.
    let by_http_1 = fitting(count).min(count - count / 20);
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
    let mut sockets = open(web, by_http_1).await;
    sockets.extend(open_by_http_2(web, count - by_http_1).await);
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

    println!(
        "{count} idle WebSockets kept over a reload and an upgrade ({by_http_1} by HTTP/1.1, {} by HTTP/2), {each} bytes each",
        count - by_http_1
    );
    drop(sockets);
    blocking(move || sealane.wait_gone(old)).await;
}

fn wanted() -> usize {
    let asked = std::env::var(COUNT_VARIABLE).ok();
    asked.map_or(COUNT, |count| count.parse().unwrap())
}

/// How many of them may come by HTTP/1.1, each in a connection of its own: the limit on descriptors is raised
/// where we may, and where we may not, the rest come by HTTP/2, hundreds in one connection.
fn fitting(wanted: usize) -> usize {
    let needed = wanted as u64 * BY_HTTP_1 + DESCRIPTORS_SPARE;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raise = |to: Option<u64>| {
        let raised = Rlimit {
            current: to,
            maximum: to,
        };
        setrlimit(Resource::Nofile, raised)
    };
    // The program inherits it.
    let granted = match maximum {
        Some(most) if most < needed && raise(Some(needed)).is_ok() => Some(needed),
        most => {
            raise(most).unwrap();
            most
        }
    };
    let Some(room) = granted.filter(|granted| *granted < needed) else {
        return wanted;
    };
    // The others take one each, and one for each connection of theirs.
    let connections = wanted.div_ceil(STREAMS) as u64;
    let room = room - DESCRIPTORS_SPARE - connections;
    assert!(room > wanted as u64 * BY_HTTP_2, "{room} descriptors");
    let both = (room - wanted as u64 * BY_HTTP_2) / (BY_HTTP_1 - BY_HTTP_2);
    wanted.min(usize::try_from(both).unwrap())
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
            WebSocket::Http1(client.into_stream())
        });
    }
    sockets.extend(opening.join_all().await);
    sockets
}

/// Extended CONNECT (RFC 8441).
async fn open_by_http_2(web: SocketAddr, count: usize) -> Vec<WebSocket> {
    let mut sockets = Vec::with_capacity(count);
    while sockets.len() < count {
        let tcp = tokio::net::TcpStream::connect(web).await.unwrap();
        let (client, connection) = h2::client::handshake(tcp).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let driver = Arc::new(driver);
        let mut client = client.ready().await.unwrap();
        while !client.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..STREAMS.min(count - sockets.len()) {
            let request = http::Request::connect("http://api.example.test/ws")
                .extension(h2::ext::Protocol::from_static("websocket"))
                .header("sec-websocket-version", "13")
                .body(())
                .unwrap();
            client = client.ready().await.unwrap();
            let (answer, send) = client.send_request(request, false).unwrap();
            let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap();
            let answer = answer.unwrap();
            assert_eq!(answer.status(), 200);
            sockets.push(WebSocket::Http2 {
                send,
                body: answer.into_body(),
                _driver: Arc::clone(&driver),
            });
        }
    }
    sockets
}

/// Those that still echo.
async fn all_echo(sockets: Vec<WebSocket>) -> Vec<WebSocket> {
    let mut alive = Vec::with_capacity(sockets.len());
    for mut socket in sockets {
        let echoed = tokio::time::timeout(PATIENCE, socket.echo()).await;
        if matches!(echoed, Ok(Ok(frame)) if frame.payload == ASKED) {
            alive.push(socket);
        }
    }
    alive
}

const ASKED: &[u8] = b"still there?";
/// An unmasked frame with it.
const ECHOED: usize = 2 + ASKED.len();

impl WebSocket {
    async fn echo(&mut self) -> io::Result<websocket::Frame> {
        let mask = Some([1, 2, 3, 4]);
        match self {
            Self::Http1(stream) => {
                websocket::write(stream, Kind::Text, ASKED, mask).await?;
                websocket::read(stream).await
            }
            Self::Http2 { send, body, .. } => {
                let mut frame = Vec::new();
                websocket::write(&mut frame, Kind::Text, ASKED, mask).await?;
                let sent = send.send_data(frame.into(), false);
                sent.map_err(io::Error::other)?;
                let mut heard = Vec::new();
                while heard.len() < ECHOED {
                    let piece = body.data().await.ok_or(io::ErrorKind::UnexpectedEof)?;
                    let piece = piece.map_err(io::Error::other)?;
                    let released = body.flow_control().release_capacity(piece.len());
                    released.map_err(io::Error::other)?;
                    heard.extend_from_slice(&piece);
                }
                websocket::read(&mut &heard[..]).await
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}
