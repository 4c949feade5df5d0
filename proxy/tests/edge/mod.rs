//! A proxy on loopback over a hand-built world, and plain clients for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sealane_model::publish::{observation_channel, snapshot_channel};
use sealane_model::{Observation, Ratio, Snapshot, SnapshotWriter};
use sealane_proxy::config::{
    Action, Backoff, Bounds, Config, Destination, Limits, Listener, ListenerProtocol, RetryOn,
    RetryPolicy, Route, RouteMatch, RouteOptions, Timeouts,
};
use sealane_proxy::handover::Inherit;
use sealane_proxy::tls::{CertificatePem, ServerTls};
use sealane_proxy::{Deps, Options, Proxy};
use sealane_steering::{GeoTable, SteeringPolicy};
use sealane_testkit::http1::{Body, Framing, Head};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// What a test waits for at most: far more than anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Edge {
    pub(crate) proxy: Proxy,
    pub(crate) world: SnapshotWriter,
    pub(crate) observations: mpsc::Receiver<Observation>,
}

pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn listener(name: &str, protocol: ListenerProtocol) -> Listener {
    Listener {
        name: name.into(),
        bind: vec![any_port()],
        protocol,
        senders: Vec::new(),
        redirect_to_https: None,
    }
}

/// One listener `web`, one route for everything to the world's pool `api`.
pub(crate) fn config(world: &Snapshot) -> Config {
    let pool = world.topology.pool_named("api").unwrap().id;
    let route = Route {
        name: "all".into(),
        when: RouteMatch::default(),
        action: Action::Forward(Destination {
            pool,
            steering: Arc::new(SteeringPolicy::Priority),
            balance: Arc::default(),
        }),
        timeouts: Timeouts {
            connect: Duration::from_secs(2),
            attempt: Duration::from_millis(300),
            adaptive: None,
            request: Duration::from_secs(10),
            idle: Duration::from_secs(10),
        },
        retry: RetryPolicy {
            attempts: 3,
            budget: Ratio::new(0.2).unwrap(),
            on: RetryOn::default(),
            methods: Vec::new(),
            backoff: Backoff::default(),
        },
        hedge: None,
        body_max: None,
        options: RouteOptions::default(),
    };
    Config {
        listeners: vec![listener("web", ListenerProtocol::Http)],
        routes: vec![route],
        limits: Limits {
            connections: 1_000,
            connections_per_client: 1_000,
            head_bytes: 64 * 1024,
            head_fields: 100,
            head_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(30),
            streams: 100,
            control_frames: 2_000,
            handshake_timeout: Duration::from_secs(5),
        },
        trusted: Vec::new(),
        geo: Arc::new(GeoTable::empty()),
        name_endpoint: true,
        bounds: Bounds::default(),
    }
}

impl Edge {
    pub(crate) fn start(world: Snapshot) -> Self {
        Self::start_with(world, |_| {})
    }

    pub(crate) fn start_with(world: Snapshot, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(&world);
        change(&mut config);
        Self::start_inheriting(world, config, &mut |_| Vec::new())
    }

    #[allow(dead_code, reason = "most tests are content with two")]
    pub(crate) fn start_with_workers(
        world: Snapshot,
        workers: usize,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = config(&world);
        change(&mut config);
        Self::start_on(world, config, workers, &mut |_| Vec::new())
    }

    /// On sockets of another one.
    pub(crate) fn start_inheriting(
        world: Snapshot,
        config: Config,
        inherit: &mut Inherit<'_>,
    ) -> Self {
        Self::start_on(world, config, 2, inherit)
    }

    fn start_on(
        world: Snapshot,
        config: Config,
        workers: usize,
        inherit: &mut Inherit<'_>,
    ) -> Self {
        let (world, reader) = snapshot_channel(world);
        let (sender, observations) = observation_channel();
        let deps = Deps {
            world: reader,
            observations: sender,
        };
        let options = Options {
            workers: workers.try_into().unwrap(),
        };
        let proxy = Proxy::bind_inheriting(config, deps, options, inherit).unwrap();
        proxy.start().unwrap();
        Self {
            proxy,
            world,
            observations,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address_of("web")
    }

    pub(crate) fn address_of(&self, listener: &str) -> SocketAddr {
        let addresses = self.proxy.addresses();
        let found = addresses.iter().find(|(name, _)| &**name == listener);
        found.unwrap_or_else(|| panic!("no listener {listener}")).1
    }

    pub(crate) async fn connect(&self) -> Http1 {
        Http1::connect(self.address()).await
    }

    pub(crate) async fn observed(&mut self) -> Observation {
        let observed = tokio::time::timeout(PATIENCE, self.observations.recv());
        observed.await.expect("an observation").expect("a proxy")
    }
}

/// A plain HTTP/1.1 client.
pub(crate) struct Http1 {
    pub(crate) stream: BufReader<TcpStream>,
}

pub(crate) struct Reply {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn status(&self) -> u16 {
        self.head.status().unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Http1 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    pub(crate) async fn get(&mut self, path: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x.test\r\n\r\n"))
            .await;
        self.reply("GET").await
    }

    pub(crate) async fn head(&mut self) -> Head {
        let head = tokio::time::timeout(PATIENCE, Head::read(&mut self.stream));
        head.await.expect("an answer").unwrap().expect("an answer")
    }

    pub(crate) async fn reply(&mut self, method: &str) -> Reply {
        let head = self.head().await;
        let framing = Framing::of_answer(&head, method).unwrap();
        let mut body = Body::new(framing);
        let mut bytes = Vec::new();
        while let Some(piece) = body.next(&mut self.stream).await.unwrap() {
            bytes.extend_from_slice(&piece);
        }
        Reply { head, body: bytes }
    }

    /// Everything up to the end of the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let reading = self.stream.read_to_end(&mut rest);
        // A reset is an end as well.
        let _ = tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("an end");
        rest
    }

    pub(crate) async fn is_closed(&mut self) -> bool {
        self.rest().await.is_empty()
    }
}

/// Sends these bytes on a connection of their own.
pub(crate) async fn ask(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Reply {
    let mut client = Http1::connect(address).await;
    client.send(bytes).await;
    client.reply("GET").await
}

pub(crate) fn certificate() -> CertificatePem {
    let made = rcgen::generate_simple_self_signed(vec!["x.test".to_owned()]).unwrap();
    CertificatePem {
        chain: made.cert.pem().into_bytes().into(),
        key: made.signing_key.serialize_pem().into_bytes().into(),
    }
}

pub(crate) fn server_tls(certificate: &CertificatePem) -> ServerTls {
    ServerTls::new(std::slice::from_ref(certificate)).unwrap()
}

/// TLS as a client does it that trusts nothing but `certificate`.
pub(crate) async fn connect_tls(
    address: SocketAddr,
    certificate: &CertificatePem,
    alpn: &[u8],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let tcp = TcpStream::connect(address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    tls_over(tcp, certificate, alpn).await
}

/// The same over a connection that was used already.
pub(crate) async fn tls_over(
    tcp: TcpStream,
    certificate: &CertificatePem,
    alpn: &[u8],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    let root = rustls::pki_types::CertificateDer::from_pem_slice(&certificate.chain).unwrap();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = rustls::pki_types::ServerName::try_from("x.test").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, tcp).await.unwrap()
}

/// A plain HTTP/2 client; its connection lives as long as it.
pub(crate) struct Http2 {
    pub(crate) requests: h2::client::SendRequest<Bytes>,
    _driver: tokio::task::JoinSet<()>,
}

pub(crate) struct Reply2 {
    pub(crate) head: http::response::Parts,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<http::HeaderMap>,
}

impl Http2 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    pub(crate) async fn over(
        io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    ) -> Self {
        let (requests, connection) = h2::client::handshake(io).await.unwrap();
        let mut driver = tokio::task::JoinSet::new();
        driver.spawn(async move {
            // What goes wrong shows in the streams.
            let _ = connection.await;
        });
        Self {
            requests,
            _driver: driver,
        }
    }

    pub(crate) async fn get(&mut self, uri: &str) -> Reply2 {
        let request = http::Request::builder().uri(uri).body(()).unwrap();
        let mut requests = self.requests.clone().ready().await.unwrap();
        let (answer, _) = requests.send_request(request, true).unwrap();
        reply2(answer).await
    }
}

pub(crate) async fn reply2(answer: h2::client::ResponseFuture) -> Reply2 {
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    let (head, mut incoming) = answer.expect("an answer").unwrap().into_parts();
    let mut body = Vec::new();
    while let Some(piece) = incoming.data().await {
        let piece = piece.unwrap();
        incoming
            .flow_control()
            .release_capacity(piece.len())
            .unwrap();
        body.extend_from_slice(&piece);
    }
    let trailers = incoming.trailers().await.unwrap();
    Reply2 {
        head,
        body,
        trailers,
    }
}
