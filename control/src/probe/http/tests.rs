//! Probes against scripted endpoints on loopback: lawful ones, silent ones and liars.

use std::net::Ipv4Addr;
use std::time::Instant;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sealane_model::{CertificatePem, EndpointTls, Roots, TlsVersion};
use sealane_tls::{Allow, ClientAuth, ClientAuthMode, Connectors, ServerRules, ServerTls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

const LIMIT: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(200);

/// An endpoint that answers every connection with these bytes and closes; ends with the test.
struct Scripted {
    address: SocketAddr,
    asked: tokio::sync::mpsc::Receiver<String>,
    _tasks: JoinSet<()>,
}

impl Scripted {
    async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        Self::new(answer, None).await
    }

    async fn new(answer: impl Into<Vec<u8>>, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let answer = answer.into();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = tokio::sync::mpsc::channel(8);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match &tls {
                    None => converse(stream, &answer, &tell).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            converse(stream, &answer, &tell).await;
                        }
                    }
                }
            }
        });
        Self {
            address,
            asked,
            _tasks: tasks,
        }
    }

    async fn probe(&self, probe: &HttpProbe) -> Outcome {
        super::probe(probe, &[self.address], LIMIT).await
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &[u8],
    tell: &tokio::sync::mpsc::Sender<String>,
) {
    let mut head = vec![0; 4_096];
    let read = stream.read(&mut head).await.unwrap_or(0);
    let _ = tell
        .send(String::from_utf8_lossy(&head[..read]).into_owned())
        .await;
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
}

fn plain() -> HttpProbe {
    HttpProbe {
        header: &[],
        protocol: EndpointProtocol::Http1,
        tls: None,
        authority: "api.test:8080".to_owned(),
        path: "/health?deep=1".into(),
        expect: vec![(200, 299), (304, 304)],
        body_contains: None,
    }
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

fn assert_passed(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Passed { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_lawful_status_passes_and_the_question_is_what_it_should_be() {
    let mut endpoint =
        Scripted::answering("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;

    assert_passed(&endpoint.probe(&plain()).await);

    let asked = endpoint.asked.recv().await.unwrap().to_lowercase();
    assert!(
        asked.starts_with("get /health?deep=1 http/1.1\r\n"),
        "{asked}"
    );
    for header in [
        "host: api.test:8080",
        "connection: close",
        "user-agent: sealane-probe/",
    ] {
        assert!(asked.contains(header), "{asked}");
    }
}

#[tokio::test]
async fn another_status_fails_and_says_what_was_expected() {
    let endpoint = Scripted::answering("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;

    let failure = failure(endpoint.probe(&plain()).await);

    assert_eq!(failure.to_string(), "answered 503, expected 200-299, 304");
}

#[tokio::test]
async fn the_body_is_searched_across_pieces_and_no_further_than_its_bound() {
    let mut probe = plain();
    probe.body_contains = Some("all systems go".into());
    let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                  8\r\n all sys\r\n8\r\ntems go.\r\n0\r\n\r\n";
    assert_passed(&Scripted::answering(chunks).await.probe(&probe).await);

    let other = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnope";
    let missed = Scripted::answering(other).await.probe(&probe).await;
    assert_eq!(failure(missed), Failure::Body);

    let mut late = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    late.resize(late.len() + BODY_READ_MAX, b'.');
    late.extend_from_slice(b"all systems go");
    let missed = Scripted::answering(late).await.probe(&probe).await;
    assert_eq!(failure(missed), Failure::Body);
}

#[tokio::test]
async fn a_body_that_is_cut_short_fails() {
    let mut probe = plain();
    probe.body_contains = Some("go".into());
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\nall systems";
    let outcome = Scripted::answering(cut).await.probe(&probe).await;
    assert_eq!(failure(outcome), Failure::Closed);
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_refused_at_once() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(
        failure(probe(&plain(), &[address], LIMIT).await),
        Failure::Refused
    );
    assert_eq!(
        failure(crate::probe::tcp::probe(&[address], LIMIT, &[], None).await),
        Failure::Refused
    );
}

#[tokio::test]
async fn a_black_hole_fails_when_its_time_is_over_and_not_later() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test times what it sees")]
    let begun = Instant::now();

    let outcome = probe(&plain(), &[address], SHORT).await;

    assert_eq!(failure(outcome), Failure::TimedOut);
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < SHORT * 10);
    assert_passed(&crate::probe::tcp::probe(&[address], LIMIT, &[], None).await);
}

#[tokio::test]
async fn an_endless_trickle_fails_when_its_time_is_over() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"x: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert_eq!(
        failure(probe(&plain(), &[address], SHORT).await),
        Failure::TimedOut
    );
}

#[tokio::test]
async fn what_is_no_http_and_what_closes_at_once_are_told_apart() {
    let noise = Scripted::answering("SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    assert_eq!(failure(noise.probe(&plain()).await).as_str(), "protocol");

    let silent = Scripted::answering("").await;
    assert_eq!(failure(silent.probe(&plain()).await), Failure::Closed);

    let mut endless = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    endless.resize(endless.len() + 2 * HEAD_READ_MAX, b'y');
    let endless = Scripted::answering(endless).await;
    assert_eq!(failure(endless.probe(&plain()).await).as_str(), "protocol");
}

#[tokio::test]
async fn a_dead_first_address_does_not_hide_a_living_second() {
    let endpoint = Scripted::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let dead = listener.local_addr().unwrap();
    drop(listener);

    assert_passed(&probe(&plain(), &[dead, endpoint.address], LIMIT).await);
}

/// A certificate for `names`, as an acceptor and as the PEM file that trusts it.
fn certified(names: &[&str], alpn: &[u8]) -> (tokio_rustls::TlsAcceptor, Roots) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    (
        Arc::new(config).into(),
        Roots::Pem(cert.pem().into_bytes().into()),
    )
}

fn over_tls(server_name: &str, roots: Roots, protocol: EndpointProtocol) -> HttpProbe {
    let tls = EndpointTls {
        server_name: server_name.into(),
        roots,
        certificate: None,
        minimum: TlsVersion::Tls12,
    };
    let config = Connectors::default().config(&tls, protocol).unwrap();
    HttpProbe {
        tls: Some(HttpTls {
            server_name: tls.server_name,
            config,
        }),
        protocol,
        ..plain()
    }
}

#[tokio::test]
async fn over_tls_the_servers_name_must_be_the_right_one() {
    let (acceptor, roots) = certified(&["api.test"], b"http/1.1");
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let endpoint = Scripted::new(answer, Some(acceptor)).await;

    let right = over_tls("api.test", roots.clone(), EndpointProtocol::Http1);
    assert_passed(&endpoint.probe(&right).await);

    let wrong = over_tls("other.test", roots, EndpointProtocol::Http1);
    let wrong = failure(endpoint.probe(&wrong).await);
    assert!(
        matches!(&wrong, Failure::Tls(why) if why.contains("name")),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn over_tcp_tls_is_agreed_on_where_the_endpoint_speaks_it() {
    let (acceptor, roots) = certified(&["api.test"], b"http/1.1");
    let endpoint = Scripted::new("", Some(acceptor)).await;
    let probe = |name: &str| {
        let tls = over_tls(name, roots.clone(), EndpointProtocol::Http1).tls;
        let address = endpoint.address;
        async move { crate::probe::tcp::probe(&[address], LIMIT, &[], tls.as_ref()).await }
    };

    assert_passed(&probe("api.test").await);
    assert!(matches!(
        failure(probe("other.test").await),
        Failure::Tls(_)
    ));

    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let tls = over_tls("api.test", roots, EndpointProtocol::Http1).tls;
    let address = [silent.local_addr().unwrap()];
    let stalled = crate::probe::tcp::probe(&address, SHORT, &[], tls.as_ref()).await;
    assert_eq!(failure(stalled), Failure::TimedOut);
}

#[tokio::test]
async fn an_endpoint_that_asks_who_we_are_is_shown_what_traffic_shows() {
    let made = |name: &str| {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([name.to_owned()]).unwrap();
        CertificatePem {
            chain: cert.pem().into_bytes().into(),
            key: signing_key.serialize_pem().into_bytes().into(),
        }
    };
    let (ours, theirs) = (made("node.test"), made("api.test"));
    let asking = ServerTls::with_rules(&ServerRules {
        certificates: vec![theirs.clone()],
        places: Vec::new(),
        minimum: TlsVersion::Tls13,
        client_auth: vec![ClientAuth {
            names: Vec::new(),
            mode: ClientAuthMode::Required,
            authorities: ours.chain.clone(),
            revocations: None,
            allow: Allow::default(),
        }],
    });
    let acceptor = asking.unwrap().choose(None).config.into();
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let endpoint = Scripted::new(answer, Some(acceptor)).await;
    let probe = |certificate: Option<CertificatePem>| {
        let tls = EndpointTls {
            server_name: "api.test".into(),
            roots: Roots::Pem(theirs.chain.clone()),
            certificate,
            minimum: TlsVersion::Tls13,
        };
        let config = Connectors::default().config(&tls, EndpointProtocol::Http1);
        HttpProbe {
            tls: Some(HttpTls {
                server_name: tls.server_name,
                config: config.unwrap(),
            }),
            ..plain()
        }
    };

    assert_passed(&endpoint.probe(&probe(Some(ours))).await);
    failure(endpoint.probe(&probe(None)).await);
    failure(endpoint.probe(&probe(Some(made("node.test")))).await);
}

#[tokio::test]
async fn over_tls_a_stranger_and_a_plain_text_server_fail() {
    let (acceptor, _) = certified(&["api.test"], b"http/1.1");
    let (_, other_roots) = certified(&["api.test"], b"http/1.1");
    let endpoint = Scripted::new("", Some(acceptor)).await;
    let probe = over_tls("api.test", other_roots, EndpointProtocol::Http1);
    assert_eq!(failure(endpoint.probe(&probe).await).as_str(), "tls");

    let plain_text = Scripted::answering("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert_eq!(failure(plain_text.probe(&probe).await).as_str(), "tls");
}

/// An HTTP/2 endpoint, by prior knowledge or over TLS, that answers one request.
async fn http2_endpoint(acceptor: Option<tokio_rustls::TlsAcceptor>) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        match acceptor {
            None => answer_http2(stream).await,
            Some(acceptor) => answer_http2(acceptor.accept(stream).await.unwrap()).await,
        }
    });
    (address, tasks)
}

async fn answer_http2(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        assert_eq!(request.uri().path(), "/health");
        let head = http::Response::builder().status(200).body(()).unwrap();
        let mut body = respond.send_response(head, false).unwrap();
        body.send_data(Bytes::from_static(b"all systems go"), true)
            .unwrap();
    }
}

#[tokio::test]
async fn http2_is_probed_by_prior_knowledge_and_by_alpn() {
    let mut probe = plain();
    probe.protocol = EndpointProtocol::Http2;
    probe.path = "/health".into();
    probe.body_contains = Some("systems go".into());
    let (address, _tasks) = http2_endpoint(None).await;
    assert_passed(&super::probe(&probe, &[address], LIMIT).await);

    let (acceptor, roots) = certified(&["api.test"], b"h2");
    let mut secure = over_tls("api.test", roots, EndpointProtocol::Http2);
    secure.path = "/health".into();
    let (address, _tasks) = http2_endpoint(Some(acceptor)).await;
    assert_passed(&super::probe(&secure, &[address], LIMIT).await);
}

#[tokio::test]
async fn an_http1_endpoint_probed_as_http2_fails_as_a_protocol_error() {
    let mut probe = plain();
    probe.protocol = EndpointProtocol::Http2;
    let endpoint = Scripted::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let failure = failure(endpoint.probe(&probe).await);
    assert!(
        matches!(failure.as_str(), "protocol" | "closed"),
        "{failure:?}"
    );
}

#[test]
fn a_head_that_cannot_be_written_is_a_failure_and_no_panic() {
    let mut probe = plain();
    probe.path = "no slash\u{7f} here".into();
    assert_eq!(request(&probe).unwrap_err().as_str(), "protocol");
    probe.protocol = EndpointProtocol::Http2;
    assert_eq!(request(&probe).unwrap_err().as_str(), "protocol");
}

#[tokio::test]
async fn an_endpoint_that_wants_a_proxy_header_is_told_that_nobody_is_behind_the_probe() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    for version in [
        sealane_model::ProxyVersion::V1,
        sealane_model::ProxyVersion::V2,
    ] {
        let header = version.local_header();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut wanting = JoinSet::new();
        wanting.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut told = vec![0; header.len()];
            stream.read_exact(&mut told).await.unwrap();
            assert_eq!(told, header);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut told = Vec::new();
            stream.read_to_end(&mut told).await.unwrap();
            assert_eq!(told, header);
        });
        let mut plain = plain();
        plain.header = header;

        assert_passed(&probe(&plain, &[address], LIMIT).await);
        assert_passed(&crate::probe::tcp::probe(&[address], LIMIT, header, None).await);
        wanting.join_next().await.unwrap().unwrap();
    }
}
