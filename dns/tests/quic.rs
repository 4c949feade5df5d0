//! Questions over QUIC on real sockets, asked by `kdig`, and by hand where that one is too polite.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod encrypted_server;

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use encrypted_server::{HOST, Identity, PATIENCE, Server, config, question};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::rustls::pki_types::{CertificateDer, pem::PemObject as _};
use quinn::rustls::{ClientConfig, RootCertStore};
use quinn::{Connection, ConnectionError, Endpoint, VarInt};
use sealane_dns::config::Protocol;

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 2;
const EXCESSIVE_LOAD: u32 = 4;

fn client_config(server: &Server, alpn: &[&str]) -> quinn::ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(&server.identity.pem.chain).unwrap();
    roots.add(ca).unwrap();
    let provider = quinn::rustls::crypto::aws_lc_rs::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
    config.enable_early_data = true;
    let crypto = QuicClientConfig::try_from(config).unwrap();
    quinn::ClientConfig::new(Arc::new(crypto))
}

fn endpoint() -> Endpoint {
    Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap()
}

async fn connect_with(server: &Server, alpn: &[&str]) -> Result<Connection, ConnectionError> {
    let config = client_config(server, alpn);
    let connecting = endpoint().connect_with(config, server.at(Protocol::Quic), HOST);
    let shaken = tokio::time::timeout(PATIENCE, connecting.unwrap()).await;
    shaken.expect("an end of the handshake")
}

async fn connect(server: &Server) -> Connection {
    connect_with(server, &["doq"]).await.unwrap()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    framed
}

/// What comes on a stream on which this was sent.
async fn exchange(connection: &Connection, octets: &[u8]) -> Result<Vec<u8>, String> {
    let (mut send, mut receive) = connection
        .open_bi()
        .await
        .map_err(|error| error.to_string())?;
    // Who says too much is stopped while it speaks.
    let _ = send.write_all(octets).await;
    let _ = send.finish();
    let read = tokio::time::timeout(PATIENCE, receive.read_to_end(70_000)).await;
    read.expect("an end of the stream")
        .map_err(|error| format!("{error:?}"))
}

async fn ask(connection: &Connection, name: &str) -> Vec<u8> {
    let asked = framed(&question(name, 0, false));
    let reply = exchange(connection, &asked).await.unwrap();
    let (length, message) = reply.split_at(2);
    assert_eq!(length, (message.len() as u16).to_be_bytes());
    message.to_vec()
}

/// By which code the server ended it.
async fn ended(connection: &Connection) -> u32 {
    let closed = tokio::time::timeout(PATIENCE, connection.closed()).await;
    match closed.expect("an end") {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner() as u32,
        other => panic!("{other}"),
    }
}

#[test]
fn kdig_is_answered_over_quic() {
    let server = Server::start(|_| ());
    for (name, wanted) in [
        ("www.example.test", "192.0.2.80"),
        ("api.example.test", "192.0.2.10"),
    ] {
        let said = server.kdig(Protocol::Quic, &["+quic", name]);
        assert!(said.contains("status: NOERROR"), "{said}");
        assert!(said.contains(wanted), "{said}");
        assert!(said.contains("QUIC session"), "{said}");
    }
}

#[tokio::test]
async fn a_connection_carries_many_questions_at_once_and_each_stream_has_its_answer() {
    let server = Server::start(|_| ());
    let connection = connect(&server).await;
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..100 {
        let connection = connection.clone();
        asked.spawn(async move {
            let name = ["www.example.test", "no.example.test"][number % 2];
            (number % 2, ask(&connection, name).await)
        });
    }
    while let Some(answered) = asked.join_next().await {
        let (rcode, reply) = answered.unwrap();
        assert_eq!(usize::from(reply[3] & 0x0f), rcode * 3);
        assert_eq!(reply.ends_with(&[192, 0, 2, 80]), rcode == 0);
    }
}

#[tokio::test]
async fn an_answer_takes_a_whole_datagram_however_short_it_is() {
    let server = Server::start(|_| ());
    let connection = connect(&server).await;
    ask(&connection, "www.example.test").await;
    let before = connection.stats().udp_rx;
    for _ in 0..10 {
        ask(&connection, "www.example.test").await;
    }
    let after = connection.stats().udp_rx;
    let octets = after.bytes - before.bytes;
    assert!(octets >= 10 * 1_200, "{octets} octets for ten answers");
}

#[tokio::test]
async fn only_who_speaks_doq_is_served() {
    let server = Server::start(|_| ());
    for alpn in [&["h3"][..], &[]] {
        let refused = connect_with(&server, alpn).await.unwrap_err();
        assert!(refused.to_string().contains("120"), "{refused}"); // no_application_protocol
    }
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_connection() {
    let server = Server::start(|_| ());
    let with_id = framed(&question("www.example.test", 7, false));
    let mut keepalive = question("www.example.test", 0, false);
    keepalive[11] = 1;
    keepalive.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\x04\0\x0b\0\0");
    let two = framed(&question("www.example.test", 0, false)).repeat(2);
    let mut response = question("www.example.test", 0, false);
    response[2] = 0x80;
    let cases = [
        ("an id", with_id),
        ("a keepalive", framed(&keepalive)),
        ("two messages", two),
        ("a length alone", vec![0, 30]),
        ("nothing", Vec::new()),
        ("half a message", b"\0\x40\0\0\0\0".to_vec()),
        ("an answer", framed(&response)),
    ];
    for (what, octets) in cases {
        let connection = connect(&server).await;
        exchange(&connection, &octets).await.unwrap_err();
        assert_eq!(ended(&connection).await, PROTOCOL_ERROR, "{what}");
    }
}

#[tokio::test]
async fn too_long_a_question_loses_its_stream_alone_and_a_second_kind_of_stream_is_not_there() {
    let server = Server::start(|_| ());
    let connection = connect(&server).await;
    let refused = exchange(&connection, &framed(&[0; 5_000])).await;
    let wanted = format!("Reset({EXCESSIVE_LOAD})");
    assert!(
        refused.as_ref().unwrap_err().contains(&wanted),
        "{refused:?}"
    );
    let nothing = tokio::time::timeout(Duration::from_millis(200), connection.open_uni()).await;
    nothing.unwrap_err();
    assert!(
        ask(&connection, "www.example.test")
            .await
            .ends_with(&[192, 0, 2, 80])
    );
}

#[tokio::test]
async fn a_client_that_asks_nothing_is_hung_up_on_though_it_keeps_the_connection_alive() {
    let server = Server::start(|config| config.limits.tcp_idle = Duration::from_millis(500));
    let mut config = client_config(&server, &["doq"]);
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_millis(50)));
    config.transport_config(Arc::new(transport));
    let connecting = endpoint().connect_with(config, server.at(Protocol::Quic), HOST);
    let connection = connecting.unwrap().await.unwrap();
    let (mut half, _receive) = connection.open_bi().await.unwrap();
    half.write_all(&[0]).await.unwrap();

    assert_eq!(ended(&connection).await, NO_ERROR);
}

#[tokio::test]
async fn connections_count_among_all_of_a_client_and_places_are_given_back() {
    let server = Server::start(|config| config.limits.tcp_connections = 2);
    let first = connect(&server).await;
    let _second = connect(&server).await;
    let refused = connect_with(&server, &["doq"]).await.unwrap_err();
    assert!(
        matches!(&refused, ConnectionError::ConnectionClosed(close) if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED),
        "{refused:?}"
    );
    first.close(VarInt::from_u32(NO_ERROR), b"");
    let again = async {
        while connect_with(&server, &["doq"]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let again = tokio::time::timeout(PATIENCE, again).await;
    again.expect("its place was given back");
}

/// The first datagram of a handshake that never goes on.
async fn first_datagram(server: &Server) -> Vec<u8> {
    let trap = UdpSocket::bind("127.0.0.1:0").unwrap();
    trap.set_read_timeout(Some(PATIENCE)).unwrap();
    let config = client_config(server, &["doq"]);
    let endpoint = endpoint();
    let connecting = endpoint.connect_with(config, trap.local_addr().unwrap(), HOST);
    let read = tokio::task::spawn_blocking(move || {
        let mut datagram = vec![0; 2_048];
        let length = trap.recv(&mut datagram).unwrap();
        datagram.truncate(length);
        datagram
    });
    let datagram = read.await.unwrap();
    drop(connecting);
    datagram
}

#[tokio::test]
async fn who_forges_addresses_meets_a_retry_and_honest_clients_are_served() {
    let server = Server::start(|config| config.limits.tcp_connections = 1_000);
    let forger = UdpSocket::bind("127.0.0.1:0").unwrap();
    forger
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let mut retries = 0;
    for _ in 0..8 {
        let datagram = first_datagram(&server).await;
        assert!(datagram.len() >= 1_200);
        forger
            .send_to(&datagram, server.at(Protocol::Quic))
            .unwrap();
        let mut heard = [0; 2_048];
        let length = forger.recv(&mut heard).unwrap();
        // A long header of type Retry (RFC 9000 §17.2.5); never more than three times what came (§8.1).
        retries += usize::from(heard[0] & 0xf0 == 0xf0);
        assert!(length <= 3 * datagram.len());
    }
    assert!(retries >= 6, "{retries} of 8 were to show who they are");
    let connection = connect(&server).await;
    ask(&connection, "www.example.test").await;
}

#[test]
fn hostile_datagrams_are_survived() {
    let server = Server::start(|_| ());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sound = runtime.block_on(first_datagram(&server));
    let mut seed = 7_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    for round in 0..400 {
        let mut datagram = sound.clone();
        match round % 4 {
            0 => datagram.truncate(random(datagram.len())),
            1 => datagram.fill(round as u8),
            2 => {
                let at = random(datagram.len());
                datagram[at] ^= 1 << random(8);
            }
            _ => datagram
                .iter_mut()
                .for_each(|octet| *octet = random(256) as u8),
        }
        let _ = socket.send_to(&datagram, server.at(Protocol::Quic));
    }
    let connection = runtime.block_on(connect(&server));
    runtime.block_on(ask(&connection, "www.example.test"));
    assert!(server.dns.is_alive());
}

#[tokio::test]
async fn a_renewed_certificate_serves_the_next_connection_and_the_others_go_on() {
    let mut server = Server::start(|_| ());
    let before = connect(&server).await;
    let new = Identity::new();
    server.dns.renew_tls(&[(Protocol::Quic, new.tls())]);
    connect_with(&server, &["doq"]).await.unwrap_err();
    server.identity = new;
    let after = connect(&server).await;
    ask(&before, "www.example.test").await;
    ask(&after, "www.example.test").await;

    let mut rules = config(&server.identity);
    rules.encrypted.retain(|one| one.protocol == Protocol::Tls);
    let prepared = server.dns.prepare(rules).unwrap();
    server.dns.replace_rules(prepared);
    assert_eq!(ended(&after).await, NO_ERROR);
    assert!(server.dns.encrypted_addresses(Protocol::Quic).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_what_was_asked_and_says_goodbye() {
    let server = Server::start(|_| ());
    let connection = connect(&server).await;
    ask(&connection, "www.example.test").await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let asked = framed(&question("www.example.test", 0, false));
    send.write_all(&asked).await.unwrap();
    send.finish().unwrap();
    let stopping = tokio::task::spawn_blocking(move || server.dns.stop(PATIENCE));

    let reply = receive.read_to_end(70_000).await.unwrap();
    assert!(reply.ends_with(&[192, 0, 2, 80]));
    assert_eq!(ended(&connection).await, NO_ERROR);
    stopping.await.unwrap();
}
