//! Everything that clients do at once, as long as a test wants it: HTTP/1.1 and HTTP/2, plain and over TLS,
//! WebSockets, TCP sessions, UDP flows, questions over UDP and TCP.
//!
//! Whoever is let down fails the test: a request without an answer, a datagram without its echo. What clients
//! repeat by themselves is counted, and so are UDP flows that go on another way.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sealane_testkit::dns_client::Question;
use sealane_testkit::load::{DnsRecord, GetRecord, Load, Poll, Run};
use sealane_testkit::websocket::{self, Kind};
use sealane_testkit::{Authority, HttpClient};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::world::Sealane;

const NAME: &str = "api.example.test";
/// Little, as these keep coming however slow the machine is; the others wait for their answers.
const RATE: NonZeroU32 = NonZeroU32::new(50).unwrap();
const SESSIONS: NonZeroU32 = NonZeroU32::new(20).unwrap();
/// More than one client, so that each of several endpoints has some.
const FLOWS: usize = 8;
const PAUSE: Duration = Duration::from_millis(5);
/// For one answer: what comes late is not lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// A datagram without an echo.
const LOST_AFTER: Duration = Duration::from_secs(15);
/// A machine on which echoes take this long.
const SLOW: Duration = Duration::from_millis(500);

/// What a configuration file needs for all of it, beside a listener `web` and a pool `api`.
pub struct Needs {
    authority: Authority,
    echoes: Vec<SocketAddr>,
    probed: SocketAddr,
    _echoing: JoinSet<()>,
}

impl Needs {
    /// Writes a certificate into `folder`. `probed`: where a pool of UDP endpoints is probed.
    pub async fn new(folder: &Path, probed: SocketAddr) -> Self {
        let authority = Authority::new("traffic");
        let issued = authority.issue("edge", &[NAME]);
        std::fs::write(folder.join("edge.pem"), issued.chain).unwrap();
        std::fs::write(folder.join("edge.key"), issued.key).unwrap();
        let mut echoing = JoinSet::new();
        let mut echoes = Vec::new();
        for _ in 0..3 {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            echoes.push(socket.local_addr().unwrap());
            echoing.spawn(echo_datagrams(socket));
        }
        Self {
            authority,
            echoes,
            probed,
            _echoing: echoing,
        }
    }

    /// To stand below `pools:`.
    pub fn pools(&self) -> String {
        let echoes: String = self
            .echoes
            .iter()
            .map(|at| format!("{{ address: \"{at}\" }}, "))
            .collect();
        let port = self.probed.port();
        format!(
            "  echoes: {{ regions: {{ us-east-1: {{ endpoints: [{echoes}] }} }}, probe: {{ tcp: {{}}, port: {port} }} }}\n"
        )
    }

    /// To stand below `listeners:`.
    pub fn listeners() -> &'static str {
        "  secure: { bind: [\"127.0.0.1:0\"], protocol: https, certificates: [{ chain: edge.pem, key: edge.key }] }
  raw: { bind: [\"127.0.0.1:0\"], protocol: tcp, pool: api }
  datagrams: { bind: [\"127.0.0.1:0\"], protocol: udp, pool: echoes }
"
    }

    /// To stand by itself.
    pub fn dns() -> String {
        format!(
            "dns:
  bind: [\"127.0.0.1:0\"]
  zones:
    {NAME}: {{ ns: [ns1.example.test.], steered: {{ \"@\": {{ pool: api }} }} }}
"
        )
    }
}

pub const LISTENERS: [&str; 6] = ["web", "secure", "raw", "datagrams", "dns", "admin"];

/// Says which client, as the endpoint sees it, and who says so.
async fn echo_datagrams(socket: UdpSocket) {
    let mut room = [0; 2048];
    let own = socket.local_addr().unwrap();
    loop {
        let (length, from) = socket.recv_from(&mut room).await.unwrap();
        let heard = String::from_utf8_lossy(&room[..length]);
        let answer = format!("{heard} {own} {from}");
        socket.send_to(answer.as_bytes(), from).await.unwrap();
    }
}

/// Under way from its start until [`Traffic::stop`].
pub struct Traffic {
    stop: Arc<AtomicBool>,
    web: Run<GetRecord>,
    sessions: Run<GetRecord>,
    questions: Run<DnsRecord>,
    others: JoinSet<(&'static str, Count)>,
}

/// What one kind of client did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    done: usize,
    /// On a connection that turned out to be closed, or was not processed: sent anew, as every client does.
    /// Of UDP flows: changes of their way.
    again: usize,
}

impl Traffic {
    pub fn start(sealane: &Sealane, needs: &Needs) -> Self {
        let (web, dns) = (sealane.address("web"), sealane.address("dns"));
        let (raw, secure) = (sealane.address("raw"), sealane.address("secure"));
        let mut load = Load::new(web, NAME, RATE);
        load.fresh_every = const { NonZeroU32::new(2).unwrap() };
        let mut sessions = Load::new(raw, NAME, SESSIONS);
        sessions.fresh_every = NonZeroU32::MIN;
        (load.limit, sessions.limit) = (PATIENCE, PATIENCE);
        let mut poll = Poll::new(dns, Question::a(NAME));
        poll.interval = PAUSE;
        poll.limit = PATIENCE;
        let stop = Arc::new(AtomicBool::new(false));
        let tls = Tls::new(&needs.authority);
        let mut others = JoinSet::new();
        let until = || Arc::clone(&stop);
        others.spawn(ask_over_tcp(dns, until()));
        others.spawn(speak_http_2(web, None, until()));
        others.spawn(speak_http_2(secure, Some(tls.clone()), until()));
        others.spawn(speak_http_1_over_tls(secure, tls.clone(), until()));
        others.spawn(keep_a_websocket("WebSocket", web, until()));
        others.spawn(keep_a_websocket("WebSocket in a TCP session", raw, until()));
        others.spawn(keep_a_websocket_over_tls(secure, tls, until()));
        for _ in 0..FLOWS {
            others.spawn(keep_a_flow(sealane.address("datagrams"), until()));
        }
        Self {
            web: load.start(now()),
            sessions: sessions.start(now()),
            questions: poll.start(now()),
            stop,
            others,
        }
    }

    /// Ends it all, fails the test if anything was lost, and says how much there was.
    pub async fn stop(self) -> Summary {
        let gets = self.web.stop().await;
        let sessions = self.sessions.stop().await;
        let questions = self.questions.stop().await;
        self.stop.store(true, Ordering::Relaxed);
        let mut counts: Vec<(&str, Count)> = Vec::new();
        for (kind, count) in self.others.join_all().await {
            assert!(count.done > 0, "{kind}: nothing at all");
            match counts.iter_mut().find(|(other, _)| *other == kind) {
                Some((_, sum)) => {
                    sum.done += count.done;
                    sum.again += count.again;
                }
                None => counts.push((kind, count)),
            }
        }
        for (kind, gets) in [("HTTP/1.1", &gets), ("TCP session", &sessions)] {
            let lost: Vec<_> = gets.iter().filter(|get| is_lost(get)).collect();
            assert!(gets.len() > 50 && lost.is_empty(), "{kind}: {lost:?}");
            let replies = gets.iter().filter_map(|get| get.outcome.as_ref().ok());
            let again = replies.filter(|reply| reply.asked_again).count();
            let done = gets.len();
            counts.push((kind, Count { done, again }));
        }
        let lost: Vec<_> = questions
            .iter()
            .filter(|one| one.outcome.is_err())
            .collect();
        assert!(questions.len() > 50 && lost.is_empty(), "{lost:?}");
        let done = questions.len();
        counts.push(("question over UDP", Count { done, again: 0 }));
        Summary(counts)
    }
}

/// What there was, by kind.
pub struct Summary(Vec<(&'static str, Count)>);

impl Summary {
    /// How often a UDP flow went on another way.
    pub fn flows_moved(&self) -> usize {
        let flows = self.0.iter().filter(|(kind, _)| *kind == FLOW);
        flows.map(|(_, count)| count.again).sum()
    }
}

const FLOW: &str = "datagram of a UDP flow";

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, Count { done, again }) in &self.0 {
            write!(f, "\n  {kind}: {done}")?;
            if *again > 0 {
                write!(f, " ({again} anew)")?;
            }
        }
        Ok(())
    }
}

pub fn is_lost(get: &GetRecord) -> bool {
    get.outcome
        .as_ref()
        .map_or(true, |reply| reply.status != 200)
}

/// A client that trusts the tests' authority.
#[derive(Clone)]
struct Tls(Arc<ClientConfig>);

impl Tls {
    fn new(authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        Self(Arc::new(config.with_no_client_auth()))
    }

    async fn connect(&self, address: SocketAddr, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut config = (*self.0).clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, tcp).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        stream
    }
}

async fn ask_over_tcp(dns: SocketAddr, stop: Arc<AtomicBool>) -> (&'static str, Count) {
    let mut count = Count::default();
    while !stop.load(Ordering::Relaxed) {
        let answer = Question::a(NAME).ask_tcp(dns, PATIENCE).await;
        assert_eq!(answer.unwrap().rcode, 0);
        count.done += 1;
        tokio::time::sleep(PAUSE).await;
    }
    ("question over TCP", count)
}

/// Request after request on one connection, and on a new one when that is closed.
async fn speak_http_1_over_tls(
    secure: SocketAddr,
    tls: Tls,
    stop: Arc<AtomicBool>,
) -> (&'static str, Count) {
    let mut count = Count::default();
    let connect = async || {
        let stream = tls.connect(secure, b"http/1.1").await;
        HttpClient::over(stream).within(PATIENCE)
    };
    let mut client = connect().await;
    let mut is_new = true;
    while !stop.load(Ordering::Relaxed) {
        let answer = match client.get("/").await {
            Ok(answer) => answer,
            Err(error) => {
                // Closed before the answer began, on a connection that was used before: RFC 9112 §9.3.1.
                assert!(!is_new, "HTTP/1.1 over TLS: {error}");
                count.again += 1;
                client = connect().await;
                client.get("/").await.unwrap()
            }
        };
        assert_eq!(answer.status(), 200);
        count.done += 1;
        is_new = !answer.keeps_alive();
        if is_new {
            client = connect().await;
        }
        tokio::time::sleep(PAUSE).await;
    }
    ("HTTP/1.1 over TLS", count)
}

/// Request after request on one connection, and on a new one when it says goodbye.
async fn speak_http_2(
    at: SocketAddr,
    tls: Option<Tls>,
    stop: Arc<AtomicBool>,
) -> (&'static str, Count) {
    let mut count = Count::default();
    let kind = match &tls {
        Some(_) => "HTTP/2 over TLS",
        None => "HTTP/2",
    };
    while !stop.load(Ordering::Relaxed) {
        match &tls {
            Some(tls) => {
                let stream = tls.connect(at, b"h2").await;
                speak_until_goodbye(stream, "https", &mut count, &stop).await;
            }
            None => {
                let stream = TcpStream::connect(at).await.unwrap();
                speak_until_goodbye(stream, "http", &mut count, &stop).await;
            }
        }
    }
    (kind, count)
}

async fn speak_until_goodbye<S>(stream: S, scheme: &str, count: &mut Count, stop: &AtomicBool)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    while !stop.load(Ordering::Relaxed) {
        let url = format!("{scheme}://{NAME}/");
        let request = http::Request::get(url).body(());
        let sent = async {
            client = client.clone().ready().await?;
            let (answer, _) = client.send_request(request.unwrap(), true)?;
            let answer = answer.await?;
            let status = answer.status();
            let mut body = answer.into_body();
            let mut bytes = 0;
            while let Some(piece) = body.data().await {
                let piece = piece?;
                body.flow_control().release_capacity(piece.len())?;
                bytes += piece.len();
            }
            Ok::<_, h2::Error>((status, bytes))
        };
        match tokio::time::timeout(PATIENCE, sent).await.unwrap() {
            Ok((status, bytes)) => assert!(status == 200 && bytes > 0),
            // Not processed, it says (RFC 9113 §8.7): asked again elsewhere.
            Err(error) if is_unprocessed(&error) => {
                count.again += 1;
                return;
            }
            Err(error) => panic!("HTTP/2: {error}"),
        }
        count.done += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
        || error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

async fn keep_a_websocket(
    kind: &'static str,
    at: SocketAddr,
    stop: Arc<AtomicBool>,
) -> (&'static str, Count) {
    let stream = TcpStream::connect(at).await.unwrap();
    (kind, echo_until(stream, &stop).await)
}

async fn keep_a_websocket_over_tls(
    secure: SocketAddr,
    tls: Tls,
    stop: Arc<AtomicBool>,
) -> (&'static str, Count) {
    let stream = tls.connect(secure, b"http/1.1").await;
    ("WebSocket over TLS", echo_until(stream, &stop).await)
}

async fn echo_until<S>(stream: S, stop: &AtomicBool) -> Count
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut client = HttpClient::over(stream).within(PATIENCE);
    client.upgrade_to_websocket("/ws").await.unwrap();
    let mut socket = client.into_stream();
    let mut count = Count::default();
    while !stop.load(Ordering::Relaxed) {
        let mask = Some([1, 2, 3, 4]);
        let sent = websocket::write(&mut socket, Kind::Text, b"still there?", mask).await;
        sent.unwrap();
        let frame = websocket::read(&mut socket).await.unwrap();
        assert_eq!(frame.payload, b"still there?");
        count.done += 1;
        tokio::time::sleep(PAUSE * 4).await;
    }
    count
}

/// Datagram after datagram; each must be echoed. Counts when another endpoint echoes than before, or hears
/// them from another address.
async fn keep_a_flow(datagrams: SocketAddr, stop: Arc<AtomicBool>) -> (&'static str, Count) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(datagrams).await.unwrap();
    let mut count = Count::default();
    let mut way = None;
    let mut slowest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let sent = count.done.to_string();
        socket.send(sent.as_bytes()).await.unwrap();
        let since = now();
        let Ok(through) = tokio::time::timeout(LOST_AFTER, echo_of(&socket, &sent)).await else {
            // A process that was succeeded carries answers for five seconds (docs/UPGRADE.md), and where
            // everything takes that long, some come later.
            assert!(slowest > SLOW, "lost, though none took over {slowest:?}");
            continue;
        };
        slowest = slowest.max(since.elapsed());
        if way.as_ref().is_some_and(|way| *way != through) {
            count.again += 1;
        }
        way = Some(through);
        count.done += 1;
        tokio::time::sleep(PAUSE).await;
    }
    (FLOW, count)
}

/// Who echoed it, and whom that one took for the client.
async fn echo_of(socket: &UdpSocket, sent: &str) -> String {
    let mut room = [0; 256];
    loop {
        let length = socket.recv(&mut room).await.unwrap();
        let answer = String::from_utf8_lossy(&room[..length]);
        // Another number is that of a datagram that was given up.
        if let Some((number, through)) = answer.split_once(' ')
            && number == sent
        {
            return through.to_owned();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests of the real program measure by the clock"
)]
fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
