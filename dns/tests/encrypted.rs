//! Questions over TLS and HTTPS on real sockets, asked by `kdig` and `curl`, and by hand where those are too polite.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod encrypted_server;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use encrypted_server::{HOST, Identity, PATIENCE, Server, config, question};
use sealane_dns::config::Protocol;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Those that come over TCP.
const OVER_TCP: [Protocol; 2] = [Protocol::Tls, Protocol::Https];

trait Asked {
    fn curl(&self, words: &[&str], path: &str, body: Option<&[u8]>) -> (String, Vec<u8>);
    fn curl_with(&self, words: &[&str], path: &str, input: &[u8]) -> (String, Vec<u8>);
    fn shake(&self, protocol: Protocol, alpn: &[&str]) -> std::io::Result<Session>;
}

impl Asked for Server {
    /// What `curl` gets: head and body. `body`: what is posted.
    fn curl(&self, words: &[&str], path: &str, body: Option<&[u8]>) -> (String, Vec<u8>) {
        let posted: &[&str] = if body.is_some() {
            &["--data-binary", "@-"]
        } else {
            &[]
        };
        self.curl_with(&[words, posted].concat(), path, body.unwrap_or_default())
    }

    fn curl_with(&self, words: &[&str], path: &str, input: &[u8]) -> (String, Vec<u8>) {
        let port = self.at(Protocol::Https).port();
        let url = format!("https://{HOST}:{port}{path}");
        let to = format!("{HOST}:{port}:127.0.0.1");
        let ca = self.identity.file.to_str().unwrap();
        let always = [
            "-sSi",
            "--max-time",
            "10",
            "--resolve",
            &to,
            "--cacert",
            ca,
            "-H",
            "expect:",
        ];
        let mut curl = Command::new("curl");
        curl.args(always).args(words).arg(&url);
        let pipes = curl.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut curl = pipes.spawn().unwrap();
        // An error means that curl has enough.
        let _ = curl.stdin.take().unwrap().write_all(input);
        let output = curl.wait_with_output().unwrap().stdout;
        let end = output.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, body) = output.split_at(end.expect("a head") + 4);
        (String::from_utf8_lossy(head).to_lowercase(), body.to_vec())
    }

    /// A session that offers these protocols.
    fn shake(&self, protocol: Protocol, alpn: &[&str]) -> std::io::Result<Session> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(&self.identity.pem.chain).unwrap();
        roots.add(ca).unwrap();
        let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
        let config = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
        let host = ServerName::try_from(HOST).unwrap();
        let client = ClientConnection::new(Arc::new(config), host).unwrap();
        let stream = TcpStream::connect(self.at(protocol)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut session = StreamOwned::new(client, stream);
        session.conn.complete_io(&mut session.sock)?;
        Ok(session)
    }
}

type Session = StreamOwned<ClientConnection, TcpStream>;

fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    framed
}

fn receive(stream: &mut impl Read) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).unwrap();
    reply
}

#[test]
fn kdig_is_answered_over_tls_and_over_https_by_get_and_post() {
    let server = Server::start(|_| ());
    let ways: [(Protocol, &[&str]); 3] = [
        (Protocol::Tls, &["+tls"]),
        (Protocol::Https, &["+https"]),
        (Protocol::Https, &["+https", "+https-get"]),
    ];
    for (protocol, words) in ways {
        let said = server.kdig(protocol, &[words, &["www.example.test"]].concat());
        assert!(said.contains("status: NOERROR"), "{words:?}: {said}");
        assert!(said.contains("192.0.2.80"), "{words:?}: {said}");
        assert!(said.contains("TLS session"), "{words:?}: {said}");
    }
    let steered = server.kdig(Protocol::Tls, &["+tls", "api.example.test"]);
    assert!(steered.contains("192.0.2.10"), "{steered}");
}

#[test]
fn a_tls_session_carries_many_questions_and_only_padded_ones_get_padded_answers() {
    let server = Server::start(|_| ());
    let mut session = server.shake(Protocol::Tls, &["dot"]).unwrap();
    assert_eq!(session.conn.alpn_protocol(), Some(&b"dot"[..]));
    let asked = |id, padded| framed(&question("www.example.test", id, padded));
    let all = [asked(1, true), asked(2, false), asked(3, true)].concat();
    session.write_all(&all).unwrap();

    let replies = [1, 2, 3].map(|_| receive(&mut session));

    assert_eq!([1, 2, 3], replies.each_ref().map(|reply| reply[1]));
    let lengths = replies.each_ref().map(Vec::len);
    let plain = question("www.example.test", 2, false).len() + 16;
    assert_eq!(lengths, [468, plain, 468]);
    let without = question("www.example.test", 1, false).len();
    let opt = without + 16 + 9;
    let length = u16::from_be_bytes([replies[0][opt], replies[0][opt + 1]]);
    assert_eq!(usize::from(length), 468 - opt - 2, "OPT ends the message");
}

#[test]
fn in_the_clear_nothing_is_padded() {
    let server = Server::start(|_| ());
    let mut stream = TcpStream::connect(server.dns.addresses()[0]).unwrap();
    let asked = framed(&question("www.example.test", 1, true));
    stream.write_all(&asked).unwrap();
    assert!(receive(&mut stream).len() < 100);
}

#[test]
fn a_client_that_speaks_another_protocol_is_turned_away_and_one_that_names_none_is_served() {
    let server = Server::start(|_| ());
    server.shake(Protocol::Tls, &["h2"]).unwrap_err();
    server.shake(Protocol::Https, &["dot"]).unwrap_err();
    let mut session = server.shake(Protocol::Tls, &[]).unwrap();
    let asked = framed(&question("www.example.test", 9, false));
    session.write_all(&asked).unwrap();
    assert_eq!(receive(&mut session)[1], 9);
}

#[test]
fn who_says_nothing_is_hung_up_on() {
    let server = Server::start(|config| config.limits.tcp_idle = Duration::from_millis(200));
    for protocol in OVER_TCP {
        let mut silent = TcpStream::connect(server.at(protocol)).unwrap();
        silent.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(silent.read(&mut [0; 16]).unwrap(), 0, "{protocol:?}");

        let mut silent = server.shake(protocol, &[]).unwrap();
        let mut heard = Vec::new();
        // HTTP/2 may say goodbye; without close_notify the end is an error.
        let _ = silent.read_to_end(&mut heard);
        assert!(heard.len() < 100, "{protocol:?}");
    }
    let mut slow = server.shake(Protocol::Https, &["http/1.1"]).unwrap();
    let head = b"POST /dns-query HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\ncontent-type: application/dns-message\r\n\r\n";
    slow.write_all(head).unwrap();
    let mut heard = Vec::new();
    let _ = slow.read_to_end(&mut heard);
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.is_empty() || heard.contains("408"), "{heard}");
}

#[test]
fn connections_over_tls_and_https_count_among_all_of_a_client() {
    let server = Server::start(|config| config.limits.tcp_connections = 2);
    let first = server.shake(Protocol::Tls, &["dot"]).unwrap();
    let _second = server.shake(Protocol::Https, &["h2"]).unwrap();

    let mut third = TcpStream::connect(server.dns.addresses()[0]).unwrap();
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(third.read(&mut [0; 1]), Ok(0) | Err(_)));
    server.shake(Protocol::Tls, &["dot"]).unwrap_err();

    drop(first);
    let again = (0..100).find_map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        server.shake(Protocol::Tls, &["dot"]).ok()
    });
    assert!(again.is_some(), "its place was given back");
}

#[test]
fn https_answers_with_how_long_they_may_be_kept() {
    let server = Server::start(|_| ());
    let message = &["-H", "content-type: application/dns-message"];
    let asked = question("www.example.test", 0, false);
    for version in ["--http2", "--http1.1"] {
        let words = [&[version][..], message].concat();
        let (head, body) = server.curl(&words, "/dns-query", Some(&asked));
        let first = head.lines().next().unwrap_or_default();
        assert!(first.contains(" 200"), "{head}");
        assert_eq!(first.starts_with("http/2"), version == "--http2", "{head}");
        assert!(
            head.contains("content-type: application/dns-message"),
            "{head}"
        );
        assert!(head.contains("cache-control: max-age=42\r\n"), "{head}");
        assert!(body.ends_with(&[192, 0, 2, 80]), "{body:?}");
    }
    let kept = |name: &str| {
        let (head, _) = server.curl(message, "/dns-query", Some(&question(name, 0, false)));
        let line = head.lines().find(|line| line.starts_with("cache-control"));
        line.unwrap_or_default().to_owned()
    };
    assert_eq!(kept("no.example.test"), "cache-control: max-age=5");
    assert_eq!(
        kept("api.example.test"),
        "cache-control: private, max-age=10"
    );
    assert_eq!(kept("elsewhere.test"), "cache-control: no-store");
}

/// `curl`'s words, the path, what is posted, the status.
type Refused<'a> = (&'a [&'a str], &'a str, Option<&'a [u8]>, &'a str);

#[test]
fn https_refuses_what_holds_no_question() {
    let server = Server::start(|_| ());
    let message: &[&str] = &["-H", "content-type: application/dns-message"];
    let refused: [Refused<'_>; 9] = [
        (&[], "/dns-query", None, "400"),
        (&[], "/dns-query?dns=%20", None, "400"),
        (&[], "/dns-query?dns=AAAA", None, "400"),
        (&[], "/other?dns=AAAA", None, "404"),
        (&["-X", "PUT"], "/dns-query", None, "405"),
        (message, "/dns-query", Some(&[0; 4_097]), "413"),
        (&[], "/dns-query", Some(b"x"), "415"),
        (
            message,
            "/dns-query",
            Some(b"\0\x01\x80\0\0\0\0\0\0\0\0\0"),
            "400",
        ),
        (message, "/dns-query", Some(b"short"), "400"),
    ];
    for version in ["--http2", "--http1.1"] {
        for (words, path, body, status) in refused {
            let words = [&[version], words].concat();
            let (head, _) = server.curl(&words, path, body);
            let first = head.lines().next().unwrap_or_default();
            assert!(first.contains(status), "{version} {path} {status}: {head}");
            assert_eq!(head.contains("allow: get, post"), status == "405", "{head}");
        }
        // As many octets without saying so before.
        let upload = ["-X", "POST", "-T", "-"];
        let words = [&[version], message, &upload].concat();
        let (head, _) = server.curl_with(&words, "/dns-query", &[0; 9_000]);
        assert!(head.lines().next().unwrap().contains("413"), "{head}");
    }
    let mut session = server.shake(Protocol::Https, &["http/1.1"]).unwrap();
    let long = format!("GET /dns-query?dns={} HTTP/1.1\r\n", "A".repeat(60_000));
    // It may be closed before all is sent, and then the answer is lost.
    let _ = session.write_all(long.as_bytes());
    let mut heard = Vec::new();
    let _ = session.read_to_end(&mut heard);
    let heard = String::from_utf8_lossy(&heard);
    assert!(
        heard.is_empty() || heard.contains(" 431 ") || heard.contains(" 414 "),
        "{heard}"
    );
}

#[test]
fn a_renewed_certificate_serves_the_next_session() {
    let mut server = Server::start(|_| ());
    let new = Identity::new();
    server.shake(Protocol::Tls, &["dot"]).unwrap();
    let renewed = Protocol::ALL.map(|protocol| (protocol, new.tls()));
    server.dns.renew_tls(&renewed);
    server.shake(Protocol::Tls, &["dot"]).unwrap_err();
    server.identity = new;
    server.shake(Protocol::Tls, &["dot"]).unwrap();
    server.shake(Protocol::Https, &["h2"]).unwrap();

    let newest = Identity::new();
    let mut rules = config(&newest);
    rules.encrypted.retain(|one| one.protocol == Protocol::Tls);
    let prepared = server.dns.prepare(rules).unwrap();
    server.dns.replace_rules(prepared);
    server.identity = newest;
    server.shake(Protocol::Tls, &["dot"]).unwrap();
    assert!(server.dns.encrypted_addresses(Protocol::Https).is_empty());
}

#[test]
fn a_stop_ends_sessions_after_their_last_words() {
    let server = Server::start(|_| ());
    let mut tls = server.shake(Protocol::Tls, &["dot"]).unwrap();
    let mut https = server.shake(Protocol::Https, &["h2"]).unwrap();
    let asked = framed(&question("www.example.test", 5, false));
    tls.write_all(&asked).unwrap();

    server.dns.stop(PATIENCE);

    assert_eq!(receive(&mut tls)[1], 5);
    let mut rest = Vec::new();
    let _ = https.read_to_end(&mut rest);
    assert!(rest.len() < 200, "a goodbye at most");
}
