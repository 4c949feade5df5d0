//! What the proxy does for clients that speak something else than HTTP: sessions over real sockets.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[allow(dead_code, reason = "other tests speak HTTP")]
mod edge;

use std::sync::Arc;
use std::time::Duration;

use edge::{Edge, PATIENCE, listener};
use sealane_model::{Failure, Outcome, ProxyVersion, Snapshot, Verdict};
use sealane_proxy::config::{
    Config, Destination, HostPattern, ListenerProtocol, OnDown, SessionRule, SessionTimeouts,
};
use sealane_proxy::proxy_protocol::{Addresses, compose};
use sealane_steering::SteeringPolicy;
use sealane_testkit::World;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// An endpoint that hands each connection to the test.
struct Scripted {
    address: String,
    accepted: mpsc::Receiver<TcpStream>,
    _tasks: JoinSet<()>,
}

impl Scripted {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, accepted) = mpsc::channel(1_024);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                sender.send(stream).await.unwrap();
            }
        });
        Self {
            address,
            accepted,
            _tasks: tasks,
        }
    }

    async fn next(&mut self) -> TcpStream {
        let accepted = timeout(PATIENCE, self.accepted.recv()).await;
        accepted.expect("a connection").unwrap()
    }
}

fn destination(world: &Snapshot) -> Destination {
    Destination {
        pool: world.topology.pool_named("api").unwrap().id,
        steering: Arc::new(SteeringPolicy::Priority),
        balance: Arc::default(),
    }
}

const fn rule() -> SessionRule {
    SessionRule {
        timeouts: SessionTimeouts {
            connect: Duration::from_secs(2),
            idle: Duration::from_secs(60),
            lifetime: None,
        },
        on_down: OnDown::Keep,
    }
}

/// One listener `db` for TCP.
fn tcp_edge(world: Snapshot, change: impl FnOnce(&mut SessionRule)) -> Edge {
    let to = destination(&world);
    let mut how = rule();
    change(&mut how);
    Edge::start_with(world, |config: &mut Config| {
        config.listeners = vec![listener("db", ListenerProtocol::Tcp { to, how })];
        config.routes.clear();
    })
}

fn world_of(addresses: &[&str]) -> World {
    let world = World::new().region("eu", Verdict::Up);
    addresses
        .iter()
        .fold(world, |world, address| world.endpoint(address, Verdict::Up))
}

async fn connect(edge: &Edge) -> TcpStream {
    TcpStream::connect(edge.address_of("db")).await.unwrap()
}

async fn read_some(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    let read = timeout(PATIENCE, stream.read(&mut bytes)).await;
    let read = read.expect("something").unwrap();
    bytes.truncate(read);
    bytes
}

/// `Ok`: it ended (FIN); `Err`: it broke (RST).
async fn end_of(stream: &mut TcpStream) -> Result<Vec<u8>, std::io::ErrorKind> {
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    read.expect("an end").map(|_| rest).map_err(|e| e.kind())
}

fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
}

/// A port where nothing listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[tokio::test]
async fn bytes_pass_both_ways_and_the_endpoint_may_speak_first() {
    let mut endpoint = Scripted::start().await;
    let edge = tcp_edge(world_of(&[&endpoint.address]).build(), |_| {});
    let mut client = connect(&edge).await;
    let mut server = endpoint.next().await;

    server.write_all(b"220 ready").await.unwrap();
    assert_eq!(read_some(&mut client).await, b"220 ready");
    client.write_all(b"HELO").await.unwrap();
    assert_eq!(read_some(&mut server).await, b"HELO");
}

#[tokio::test]
async fn each_side_may_end_before_the_other() {
    let mut endpoint = Scripted::start().await;
    let edge = tcp_edge(world_of(&[&endpoint.address]).build(), |_| {});

    let mut client = connect(&edge).await;
    let mut server = endpoint.next().await;
    client.write_all(b"all I say").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(end_of(&mut server).await.unwrap(), b"all I say");
    server.write_all(b"an answer after the end").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(
        end_of(&mut client).await.unwrap(),
        b"an answer after the end"
    );

    let mut client = connect(&edge).await;
    let mut server = endpoint.next().await;
    server.shutdown().await.unwrap();
    assert_eq!(end_of(&mut client).await.unwrap(), b"");
    client.write_all(b"still talking").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(end_of(&mut server).await.unwrap(), b"still talking");
}

#[tokio::test]
async fn a_break_on_one_side_is_a_break_on_the_other() {
    let mut endpoint = Scripted::start().await;
    let edge = tcp_edge(world_of(&[&endpoint.address]).build(), |_| {});

    let mut client = connect(&edge).await;
    reset(endpoint.next().await);
    assert_eq!(
        end_of(&mut client).await,
        Err(std::io::ErrorKind::ConnectionReset)
    );

    let client = connect(&edge).await;
    let mut server = endpoint.next().await;
    reset(client);
    assert_eq!(
        end_of(&mut server).await,
        Err(std::io::ErrorKind::ConnectionReset)
    );
}

async fn send_and_end(mut half: tokio::net::tcp::OwnedWriteHalf, bytes: Arc<Vec<u8>>) {
    half.write_all(&bytes).await.unwrap();
    half.shutdown().await.unwrap();
}

async fn receive(mut half: tokio::net::tcp::OwnedReadHalf) -> Vec<u8> {
    let mut bytes = Vec::new();
    half.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn sixty_four_mebibytes_each_way_at_once_arrive_as_they_were() {
    let mut endpoint = Scripted::start().await;
    let edge = tcp_edge(world_of(&[&endpoint.address]).build(), |_| {});
    let upward = Arc::new(noise(64 * 1024 * 1024, 1));
    let downward = Arc::new(noise(64 * 1024 * 1024, 2));
    let (client_read, client_write) = connect(&edge).await.into_split();
    let (server_read, server_write) = endpoint.next().await.into_split();

    let (_, _, at_client, at_server) = tokio::join!(
        send_and_end(client_write, Arc::clone(&upward)),
        send_and_end(server_write, Arc::clone(&downward)),
        receive(client_read),
        receive(server_read),
    );

    assert!(at_client == *downward, "{} bytes down", at_client.len());
    assert!(at_server == *upward, "{} bytes up", at_server.len());
}

#[tokio::test]
async fn many_sessions_of_mixed_sizes_keep_their_bytes_to_themselves() {
    let mut endpoint = Scripted::start().await;
    let edge = tcp_edge(world_of(&[&endpoint.address]).build(), |_| {});
    let mut echoes = JoinSet::new();
    let mut clients = JoinSet::new();
    for index in 0..100_u64 {
        let client = connect(&edge).await;
        let (mut read, mut write) = endpoint.next().await.into_split();
        echoes.spawn(async move {
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });
        clients.spawn(async move {
            let size = [1, 1_000, 16 * 1024, 16 * 1024 + 1, 300_000][index as usize % 5];
            let bytes = Arc::new(noise(size, index));
            let (read, write) = client.into_split();
            let (_, back) = tokio::join!(send_and_end(write, Arc::clone(&bytes)), receive(read));
            assert!(back == *bytes, "session {index}");
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_stops_its_sender() {
    let mut endpoint = Scripted::start().await;
    let edge = tcp_edge(world_of(&[&endpoint.address]).build(), |_| {});
    let client = connect(&edge).await;
    let mut server = endpoint.next().await;

    let chunk = vec![7; 64 * 1024];
    let mut sent = 0_usize;
    while let Ok(written) = timeout(Duration::from_millis(500), server.write(&chunk)).await {
        sent += written.unwrap();
        assert!(sent < 64 * 1024 * 1024, "the sender was never stopped");
    }
    server.shutdown().await.unwrap();

    let mut client = client;
    assert_eq!(end_of(&mut client).await.unwrap().len(), sent);
}

#[tokio::test]
async fn what_cannot_be_connected_to_is_passed_over_and_reported() {
    let mut endpoint = Scripted::start().await;
    let dead = nobody();
    let world = World::new()
        .region("eu", Verdict::Up)
        .priority(1)
        .endpoint(&dead, Verdict::Up)
        .region("us", Verdict::Up)
        .priority(2)
        .endpoint(&endpoint.address, Verdict::Up)
        .build();
    let mut edge = tcp_edge(world, |_| {});

    let mut client = connect(&edge).await;
    let mut server = endpoint.next().await;
    server.write_all(b"hello").await.unwrap();

    assert_eq!(read_some(&mut client).await, b"hello");
    let observed = edge.observed().await;
    assert_eq!(observed.outcome, Outcome::Failed(Failure::Refused));
}

#[tokio::test]
async fn without_an_endpoint_the_client_is_reset() {
    let (one, two) = (nobody(), nobody());
    let edge = tcp_edge(world_of(&[&one, &two]).build(), |_| {});
    let mut client = connect(&edge).await;

    assert_eq!(
        end_of(&mut client).await,
        Err(std::io::ErrorKind::ConnectionReset)
    );
}

#[tokio::test]
async fn a_silent_session_is_cut_and_a_busy_one_is_not() {
    let mut endpoint = Scripted::start().await;
    let edge = tcp_edge(world_of(&[&endpoint.address]).build(), |how| {
        how.timeouts.idle = Duration::from_millis(600);
    });
    let mut busy = connect(&edge).await;
    let mut at_busy = endpoint.next().await;
    let mut silent = connect(&edge).await;
    let _at_silent = endpoint.next().await;

    for _ in 0..12 {
        busy.write_all(b"x").await.unwrap();
        assert_eq!(read_some(&mut at_busy).await, b"x");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    assert!(end_of(&mut silent).await.is_err());
    at_busy.write_all(b"still here").await.unwrap();
    assert_eq!(read_some(&mut busy).await, b"still here");
}

#[tokio::test]
async fn a_session_lives_no_longer_than_it_may() {
    let mut endpoint = Scripted::start().await;
    let edge = tcp_edge(world_of(&[&endpoint.address]).build(), |how| {
        how.timeouts.lifetime = Some(Duration::from_millis(500));
    });
    let client = connect(&edge).await;
    let server = endpoint.next().await;
    let (mut read, mut write) = client.into_split();
    let (_server_read, mut server_write) = server.into_split();
    let mut talkers = JoinSet::new();
    talkers.spawn(async move { while write.write_all(b"x").await.is_ok() {} });
    talkers.spawn(async move { while server_write.write_all(b"y").await.is_ok() {} });

    let mut rest = Vec::new();
    // Which of them sees the break, and which just an end, is chance.
    let ended = timeout(PATIENCE, read.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && !rest.is_empty());
    let ended = timeout(PATIENCE, talkers.join_all()).await;
    assert!(ended.is_ok());
}

#[tokio::test]
async fn sessions_to_an_endpoint_that_goes_down_are_closed_only_if_asked() {
    for (on_down, is_cut) in [(OnDown::Close, true), (OnDown::Keep, false)] {
        let mut endpoint = Scripted::start().await;
        let mut other = Scripted::start().await;
        let plan = World::new()
            .region("eu", Verdict::Up)
            .priority(1)
            .endpoint(&endpoint.address, Verdict::Up)
            .region("us", Verdict::Up)
            .priority(2)
            .endpoint(&other.address, Verdict::Up);
        let mut edge = tcp_edge(plan.clone().build(), |how| how.on_down = on_down);
        let mut client = connect(&edge).await;
        let mut server = endpoint.next().await;

        edge.world.publish(plan.turn("eu", Verdict::Down).build());
        let mut elsewhere = connect(&edge).await;
        other.next().await.write_all(b"us").await.unwrap();
        assert_eq!(read_some(&mut elsewhere).await, b"us");

        if is_cut {
            assert!(end_of(&mut client).await.is_err());
            assert!(end_of(&mut server).await.is_err());
        } else {
            server.write_all(b"still here").await.unwrap();
            assert_eq!(read_some(&mut client).await, b"still here");
        }
    }
}

#[tokio::test]
async fn a_session_goes_on_while_the_proxy_drains_and_is_cut_at_its_end() {
    let mut endpoint = Scripted::start().await;
    let edge = tcp_edge(world_of(&[&endpoint.address]).build(), |_| {});
    let address = edge.address_of("db");
    let mut client = connect(&edge).await;
    let mut server = endpoint.next().await;
    let mut cut = connect(&edge).await;
    let _at_cut = endpoint.next().await;

    let draining = edge.proxy.drain(Duration::from_secs(2));
    let talking = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client.write_all(b"in the drain").await.unwrap();
        assert_eq!(read_some(&mut server).await, b"in the drain");
        drop(client);
        assert_eq!(end_of(&mut server).await.unwrap(), b"");
        drop(server);
    };
    let (left, ()) = tokio::join!(draining, talking);

    // Attempts to connect may have left further ones.
    assert!(left >= 1);
    assert!(end_of(&mut cut).await.is_err());
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_closed_at_once() {
    let mut endpoint = Scripted::start().await;
    let world = world_of(&[&endpoint.address]).build();
    let (to, how) = (destination(&world), rule());
    let edge = Edge::start_with(world, |config| {
        config.listeners = vec![listener("db", ListenerProtocol::Tcp { to, how })];
        config.limits.connections = 1;
    });
    let _first = connect(&edge).await;
    let _server = endpoint.next().await;

    let mut second = connect(&edge).await;
    assert_eq!(end_of(&mut second).await.unwrap_or_default(), b"");
}

/// What a client sends that asks for `name`.
fn hello(name: &'static str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// `a.test` and `*.b.test` have endpoints of their own; a third one serves the rest, if any.
struct Passthrough {
    edge: Edge,
    endpoints: [Scripted; 3],
}

impl Passthrough {
    async fn start(has_rest: bool) -> Self {
        let endpoints = [
            Scripted::start().await,
            Scripted::start().await,
            Scripted::start().await,
        ];
        let mut world = World::new();
        for (endpoint, pool) in endpoints.iter().zip(["a", "b", "api"]) {
            let with_region = world.pool(pool).region("eu", Verdict::Up);
            world = with_region.endpoint(&endpoint.address, Verdict::Up);
        }
        let world = world.build();
        let to = |pool: &str| Destination {
            pool: world.topology.pool_named(pool).unwrap().id,
            steering: Arc::new(SteeringPolicy::Priority),
            balance: Arc::default(),
        };
        let protocol = ListenerProtocol::TlsPassthrough {
            names: vec![
                (HostPattern::Exact("a.test".into()), to("a")),
                (HostPattern::Suffix(".b.test".into()), to("b")),
            ],
            otherwise: has_rest.then(|| to("api")),
            how: rule(),
        };
        let edge = Edge::start_with(world, |config| {
            config.listeners = vec![listener("db", protocol)];
            config.routes.clear();
            config.limits.handshake_timeout = Duration::from_millis(700);
        });
        Self { edge, endpoints }
    }
}

async fn read_exactly(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let read = timeout(PATIENCE, stream.read_exact(&mut bytes)).await;
    read.expect("so many bytes").unwrap();
    bytes
}

#[tokio::test]
async fn the_server_name_leads_to_a_pool_and_the_hello_arrives_as_it_was_sent() {
    let mut world = Passthrough::start(true).await;
    let cases = [
        ("a.test", 0),
        ("x.y.b.test", 1),
        ("c.test", 2),
        ("192.0.2.1", 2),
    ];
    for (name, endpoint) in cases {
        let hello = hello(name);
        let mut client = connect(&world.edge).await;
        client.set_nodelay(true).unwrap();
        // In three pieces, and with more behind it.
        for piece in [&hello[..3], &hello[3..100], &hello[100..], b"more"] {
            client.write_all(piece).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut server = world.endpoints[endpoint].next().await;
        let arrived = read_exactly(&mut server, hello.len() + 4).await;
        assert!(arrived == [&hello[..], b"more"].concat(), "{name}");
        server.write_all(b"answer").await.unwrap();
        assert_eq!(read_some(&mut client).await, b"answer");
    }
}

#[tokio::test]
async fn a_server_name_that_nobody_serves_is_refused_with_an_alert() {
    let world = Passthrough::start(false).await;
    let mut client = connect(&world.edge).await;
    client.write_all(&hello("c.test")).await.unwrap();

    // RFC 6066 §3: unrecognized_name, fatal.
    assert_eq!(end_of(&mut client).await.unwrap(), [21, 3, 1, 0, 2, 2, 112]);
}

#[tokio::test]
async fn what_is_no_hello_is_not_waited_for_and_not_passed_on() {
    let mut world = Passthrough::start(true).await;
    let mut plain = connect(&world.edge).await;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(end_of(&mut plain).await.is_err());

    let mut malformed = connect(&world.edge).await;
    malformed
        .write_all(&[22, 3, 1, 0, 4, 1, 0, 0, 0])
        .await
        .unwrap();
    assert_eq!(
        end_of(&mut malformed).await.unwrap(),
        [21, 3, 1, 0, 2, 2, 50]
    );

    let mut slow = connect(&world.edge).await;
    slow.write_all(&hello("a.test")[..50]).await.unwrap();
    assert!(end_of(&mut slow).await.is_err());

    for endpoint in &mut world.endpoints {
        assert!(endpoint.accepted.try_recv().is_err());
    }
}

fn addresses() -> Addresses {
    Addresses {
        source: "198.51.100.7:4711".parse().unwrap(),
        destination: "203.0.113.9:443".parse().unwrap(),
    }
}

/// Everybody on loopback says whom a connection is from.
fn believing(name: &str, protocol: ListenerProtocol) -> sealane_proxy::config::Listener {
    let mut listener = listener(name, protocol);
    listener.senders = vec!["127.0.0.0/8".parse().unwrap()];
    listener
}

#[tokio::test]
async fn an_endpoint_is_told_who_the_client_is() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut endpoint = Scripted::start().await;
        let world = world_of(&[&endpoint.address])
            .proxy_protocol(version)
            .build();
        let edge = tcp_edge(world, |_| {});
        let mut client = connect(&edge).await;
        client.write_all(b"hello").await.unwrap();

        let told = compose(
            version,
            Addresses {
                source: client.local_addr().unwrap(),
                destination: client.peer_addr().unwrap(),
            },
        );
        let mut server = endpoint.next().await;
        let arrived = read_exactly(&mut server, told.len() + 5).await;
        assert_eq!(arrived, [&told[..], b"hello"].concat());
    }
}

#[tokio::test]
async fn a_client_that_a_trusted_sender_names_is_told_onwards() {
    let mut endpoint = Scripted::start().await;
    let world = world_of(&[&endpoint.address])
        .proxy_protocol(ProxyVersion::V2)
        .build();
    let (to, how) = (destination(&world), rule());
    let edge = Edge::start_with(world, |config| {
        config.listeners = vec![believing("db", ListenerProtocol::Tcp { to, how })];
    });
    let mut client = connect(&edge).await;
    let said = compose(ProxyVersion::V1, addresses());
    client
        .write_all(&[&said[..], b"hello"].concat())
        .await
        .unwrap();

    let told = compose(ProxyVersion::V2, addresses());
    let mut server = endpoint.next().await;
    let arrived = read_exactly(&mut server, told.len() + 5).await;
    assert_eq!(arrived, [&told[..], b"hello"].concat());
}

#[tokio::test]
async fn a_trusted_sender_must_say_whom_a_connection_is_from() {
    let mut endpoint = Scripted::start().await;
    let world = world_of(&[&endpoint.address]).build();
    let (to, how) = (destination(&world), rule());
    let edge = Edge::start_with(world, |config| {
        config.listeners = vec![believing("db", ListenerProtocol::Tcp { to, how })];
        config.limits.handshake_timeout = Duration::from_millis(500);
    });
    let mut without = connect(&edge).await;
    without.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert!(end_of(&mut without).await.unwrap_or_default().is_empty());
    let mut silent = connect(&edge).await;
    assert!(end_of(&mut silent).await.unwrap_or_default().is_empty());

    let mut local = connect(&edge).await;
    local
        .write_all(ProxyVersion::V2.local_header())
        .await
        .unwrap();
    local.write_all(b"probing").await.unwrap();
    assert_eq!(read_some(&mut endpoint.next().await).await, b"probing");
    assert!(endpoint.accepted.try_recv().is_err());
}

#[tokio::test]
async fn a_header_from_somebody_else_is_no_header() {
    let mut endpoint = Scripted::start().await;
    let world = world_of(&[&endpoint.address])
        .proxy_protocol(ProxyVersion::V1)
        .build();
    let (to, how) = (destination(&world), rule());
    let edge = Edge::start_with(world, |config| {
        let mut listener = listener("db", ListenerProtocol::Tcp { to, how });
        listener.senders = vec!["192.0.2.0/24".parse().unwrap()];
        config.listeners = vec![listener];
    });
    let mut client = connect(&edge).await;
    let forged = compose(ProxyVersion::V1, addresses());
    client.write_all(&forged).await.unwrap();

    let told = compose(
        ProxyVersion::V1,
        Addresses {
            source: client.local_addr().unwrap(),
            destination: client.peer_addr().unwrap(),
        },
    );
    let mut server = endpoint.next().await;
    let arrived = read_exactly(&mut server, told.len() + forged.len()).await;
    assert_eq!(arrived, [told, forged].concat(), "ours comes first");
}

#[tokio::test]
async fn requests_come_from_whom_the_header_names() {
    let mut endpoint = Scripted::start().await;
    let certificate = edge::certificate();
    let secure = ListenerProtocol::Https(edge::server_tls(&certificate));
    let edge = Edge::start_with(world_of(&[&endpoint.address]).build(), |config| {
        config.listeners = vec![
            believing("web", ListenerProtocol::Http),
            believing("secure", secure),
        ];
    });
    let header = compose(ProxyVersion::V2, addresses());
    let request = b"GET / HTTP/1.1\r\nHost: x.test\r\n\r\n";

    let mut plain = TcpStream::connect(edge.address()).await.unwrap();
    plain
        .write_all(&[&header[..], request].concat())
        .await
        .unwrap();
    let head = read_some(&mut endpoint.next().await).await;
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.contains("x-forwarded-for: 198.51.100.7\r\n"), "{head}");

    let mut tcp = TcpStream::connect(edge.address_of("secure")).await.unwrap();
    tcp.write_all(&header).await.unwrap();
    let mut tls = edge::tls_over(tcp, &certificate, b"http/1.1").await;
    tls.write_all(request).await.unwrap();
    let head = read_some(&mut endpoint.next().await).await;
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.contains("x-forwarded-for: 198.51.100.7\r\n"), "{head}");
}
