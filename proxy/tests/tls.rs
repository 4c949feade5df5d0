//! TLS as independent clients and servers see it: `openssl` and `curl` against a proxy on loopback.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[allow(dead_code, reason = "other tests speak less TLS")]
mod edge;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use edge::{Edge, listener};
use sealane_model::Verdict::Up;
use sealane_model::{EndpointTls, Roots, Snapshot, TlsVersion};
use sealane_proxy::config::{Config, ListenerProtocol};
use sealane_proxy::tls::{
    Allow, CertificatePem, ClientAuth, ClientAuthMode, DnsPattern, ServerRules, ServerTls,
    SpiffePattern,
};
use sealane_testkit::{Authority, Issued, ScriptedEndpoint, World};

fn pem(issued: &Issued) -> CertificatePem {
    CertificatePem {
        chain: issued.chain.clone().into_bytes().into(),
        key: issued.key.clone().into_bytes().into(),
    }
}

fn rules(certificates: &[&Issued]) -> ServerRules {
    ServerRules {
        certificates: certificates.iter().map(|issued| pem(issued)).collect(),
        ..ServerRules::default()
    }
}

fn asks(names: &[&str], authority: &Authority) -> ClientAuth {
    ClientAuth {
        names: names.iter().map(|name| (*name).into()).collect(),
        mode: ClientAuthMode::Required,
        authorities: authority.pem().as_bytes().into(),
        revocations: None,
        allow: Allow::default(),
    }
}

/// A proxy whose listener `web` serves TLS, one endpoint, and a folder for clients' files.
struct Site {
    edge: Edge,
    world: Snapshot,
    endpoint: ScriptedEndpoint,
    folder: tempfile::TempDir,
}

impl Site {
    async fn start(rules: &ServerRules) -> Self {
        let endpoint = ScriptedEndpoint::start_anywhere("one", "eu").await.unwrap();
        let world = World::new()
            .region("eu", Up)
            .endpoint(&endpoint.address().to_string(), Up)
            .build();
        Self::over(rules, world, endpoint)
    }

    fn over(rules: &ServerRules, world: Snapshot, endpoint: ScriptedEndpoint) -> Self {
        let tls = ServerTls::with_rules(rules).unwrap();
        let edge = Edge::start_with(world.clone(), |config| serve(config, tls));
        Self {
            edge,
            world,
            endpoint,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn address(&self) -> SocketAddr {
        self.edge.address()
    }

    /// New rules for the same listener.
    fn reload(&self, rules: &ServerRules) {
        let mut config = edge::config(&self.world);
        serve(&mut config, ServerTls::with_rules(rules).unwrap());
        let prepared = self.edge.proxy.prepare(config).unwrap();
        self.edge.proxy.replace_rules(prepared);
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// What `openssl s_client` prints of one request to `/`.
    async fn s_client(&self, arguments: &[&str]) -> String {
        s_client(self.address(), arguments).await
    }

    /// Status and body of a GET by curl, of `https://NAME/PATH` on this listener.
    async fn curl(&self, name: &str, path: &str, arguments: &[&str]) -> (u16, String) {
        let address = self.address();
        let mut all = vec![
            "--silent".to_owned(),
            "--max-time".to_owned(),
            "30".to_owned(),
            "--write-out".to_owned(),
            "\n%{http_code}".to_owned(),
            "--resolve".to_owned(),
            format!("{name}:{}:{}", address.port(), address.ip()),
            format!("https://{name}:{}{path}", address.port()),
        ];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let output = blocking(move || Command::new("curl").args(all).output().unwrap()).await;
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }
}

fn serve(config: &mut Config, tls: ServerTls) {
    config.listeners = vec![listener("web", ListenerProtocol::Https(tls))];
}

async fn s_client(address: SocketAddr, arguments: &[&str]) -> String {
    let mut all = vec![
        "s_client".to_owned(),
        "-connect".to_owned(),
        address.to_string(),
    ];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    // It reads until the server closes, so that tickets arrive that follow the handshake.
    all.push("-ign_eof".to_owned());
    blocking(move || {
        let mut child = Command::new("openssl")
            .args(all)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        // An error means that the handshake failed.
        let _ = child.stdin.take().unwrap().write_all(request);
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn subject(printed: &str) -> &str {
    let line = printed.lines().find(|line| line.starts_with("subject="));
    line.unwrap_or_else(|| panic!("no subject:\n{printed}"))
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate() {
    let authority = Authority::new("CA");
    let default = authority.issue("default", &["a.test"]);
    let wild = authority.issue("wild", &["*.w.test"]);
    let exact = authority.issue("exact", &["x.w.test"]);
    let site = Site::start(&rules(&[&default, &wild, &exact])).await;

    let served = |name: &'static str| {
        let site = &site;
        async move { subject(&site.s_client(&["-servername", name]).await).to_owned() }
    };
    assert!(served("a.test").await.ends_with("default"));
    assert!(served("any.w.test").await.ends_with("wild"));
    assert!(served("ANY.W.test").await.ends_with("wild"));
    assert!(served("x.w.test").await.ends_with("exact"));
    assert!(served("w.test").await.ends_with("default"));
    assert!(served("a.b.w.test").await.ends_with("default"));
    assert!(served("unknown.test").await.ends_with("default"));
    let nameless = site.s_client(&["-noservername"]).await;
    assert!(subject(&nameless).ends_with("default"));
}

#[tokio::test]
async fn versions_below_the_minimum_are_refused() {
    let authority = Authority::new("CA");
    let issued = authority.issue("a", &["a.test"]);
    let older = Site::start(&rules(&[&issued])).await;
    let newer = Site::start(&ServerRules {
        minimum: TlsVersion::Tls13,
        ..rules(&[&issued])
    })
    .await;

    assert!(
        older
            .s_client(&["-tls1_2"])
            .await
            .contains("Protocol  : TLSv1.2")
    );
    assert!(older.s_client(&["-tls1_3"]).await.contains("New, TLSv1.3"));
    let refused = older
        .s_client(&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"])
        .await;
    assert!(refused.contains("New, (NONE)"), "{refused}");
    let refused = newer.s_client(&["-tls1_2"]).await;
    assert!(refused.contains("protocol version"), "{refused}");
    assert!(newer.s_client(&["-tls1_3"]).await.contains("HTTP/1.1 200"));
}

#[tokio::test]
async fn alpn_agrees_on_what_both_speak_or_refuses() {
    let authority = Authority::new("CA");
    let site = Site::start(&rules(&[&authority.issue("a", &["a.test"])])).await;

    let both = site.s_client(&["-alpn", "http/1.1,h2"]).await;
    assert!(both.contains("ALPN protocol: h2"), "{both}");
    let one = site.s_client(&["-alpn", "http/1.1"]).await;
    assert!(one.contains("ALPN protocol: http/1.1"), "{one}");
    let none = site.s_client(&[]).await;
    assert!(none.contains("No ALPN negotiated") && none.contains("HTTP/1.1 200"));
    let refused = site.s_client(&["-alpn", "spdy/3"]).await;
    assert!(refused.contains("no application protocol"), "{refused}");
}

#[tokio::test]
async fn sessions_resume_on_every_worker_and_after_a_reload() {
    let authority = Authority::new("CA");
    let clients = Authority::new("clients");
    let guarded = |certificate: &Issued, clients: &Authority| ServerRules {
        client_auth: vec![ClientAuth {
            mode: ClientAuthMode::Optional,
            ..asks(&["in.test"], clients)
        }],
        ..rules(&[certificate])
    };
    let site = Site::start(&guarded(&authority.issue("a", &["a.test"]), &clients)).await;
    for version in ["-tls1_3", "-tls1_2"] {
        for name in ["a.test", "in.test"] {
            let session = site.file("session", "");
            let begun = site
                .s_client(&[version, "-servername", name, "-sess_out", &session])
                .await;
            assert!(begun.contains("New, TLSv1"), "{begun}");
            let resumed = [version, "-servername", name, "-sess_in", &session];
            for _ in 0..6 {
                let printed = site.s_client(&resumed).await;
                assert!(
                    printed.contains("Reused, TLSv1"),
                    "{name} {version}: {printed}"
                );
            }

            site.reload(&guarded(&authority.issue("renewed", &["a.test"]), &clients));
            let printed = site.s_client(&resumed).await;
            assert!(
                printed.contains("Reused, TLSv1"),
                "{name} {version}: {printed}"
            );
        }
    }
    let session = site.file("session", "");
    site.s_client(&["-servername", "in.test", "-sess_out", &session])
        .await;

    let others = Authority::new("other clients");
    site.reload(&guarded(&authority.issue("a", &["a.test"]), &others));

    let printed = site
        .s_client(&["-servername", "in.test", "-sess_in", &session])
        .await;
    assert!(printed.contains("New, TLSv1"), "{printed}");
}

/// A session that was begun where nothing is asked must not open what asks.
#[tokio::test]
async fn a_session_does_not_resume_under_a_name_that_asks_for_more() {
    let (authority, clients) = (Authority::new("CA"), Authority::new("clients"));
    let site = Site::start(&ServerRules {
        client_auth: vec![asks(&["in.test"], &clients)],
        ..rules(&[&authority.issue("a", &["a.test", "in.test"])])
    })
    .await;
    let session = site.file("session", "");
    site.s_client(&["-servername", "a.test", "-sess_out", &session])
        .await;

    let printed = site
        .s_client(&["-servername", "in.test", "-sess_in", &session])
        .await;

    assert!(!printed.contains("Reused"), "{printed}");
    assert!(printed.contains("certificate required"), "{printed}");
}

#[tokio::test]
async fn a_client_is_let_in_by_its_certificate_and_the_endpoint_told_who_it_is() {
    let (authority, clients) = (Authority::new("CA"), Authority::new("clients"));
    let strangers = Authority::new("strangers");
    let web = clients.issue("web", &["spiffe://corp/ns/web", "web.test"]);
    let job = clients.issue("job", &["nightly.jobs.test"]);
    let other = clients.issue("other", &["spiffe://corp/db", "other.test"]);
    let ended = clients.issue_until("ended", &["spiffe://corp/ns/old"], 2025);
    let revoked = clients.issue("revoked", &["spiffe://corp/ns/gone"]);
    let forged = strangers.issue("forged", &["spiffe://corp/ns/web"]);
    let server = authority.issue("s", &["in.test", "a.test"]);
    let site = Site::start(&ServerRules {
        minimum: TlsVersion::Tls13,
        client_auth: vec![ClientAuth {
            revocations: Some(clients.revoke(&[&revoked]).into_bytes().into()),
            allow: Allow {
                dns: vec![DnsPattern::parse("*.jobs.test").unwrap()],
                spiffe: vec![SpiffePattern::parse("spiffe://corp/ns/*").unwrap()],
            },
            ..asks(&["in.test"], &clients)
        }],
        ..rules(&[&server])
    })
    .await;
    let ca = site.file("ca.pem", authority.pem());
    let get = |client: Option<Issued>, name: &'static str| {
        let (site, ca) = (&site, &ca);
        async move {
            let header = "x-sealane-client-identity: sha256=\"forged\"";
            let mut arguments = vec!["--cacert".to_owned(), ca.clone()];
            arguments.extend(["--header".to_owned(), header.to_owned()]);
            if let Some(client) = client {
                let chain = site.file("client.pem", &client.chain);
                let key = site.file("client.key", &client.key);
                arguments.extend(["--cert".to_owned(), chain, "--key".to_owned(), key]);
            }
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            site.curl(name, "/headers", &arguments).await
        }
    };

    let (status, head) = get(Some(web), "in.test").await;
    assert_eq!(status, 200, "{head}");
    let told: Vec<_> = head
        .lines()
        .filter(|line| line.to_ascii_lowercase().starts_with("x-sealane-client"))
        .collect();
    assert_eq!(told.len(), 1, "{head}");
    assert!(
        told[0].contains("uri=(\"spiffe://corp/ns/web\"), dns=(\"web.test\")"),
        "{head}"
    );
    assert!(!head.contains("forged"), "{head}");
    assert_eq!(get(Some(job.clone()), "in.test").await.0, 200);
    for refused in [None, Some(other), Some(ended), Some(revoked), Some(forged)] {
        let (status, body) = get(refused.clone(), "in.test").await;
        assert_eq!(status, 0, "no answer at all: {refused:?} {body}");
    }
    // Where nothing is asked, nothing is told.
    let (status, head) = get(Some(job), "a.test").await;
    assert_eq!(status, 200);
    assert!(
        !head.to_ascii_lowercase().contains("x-sealane-client"),
        "{head}"
    );
    let printed = site.s_client(&["-servername", "in.test"]).await;
    assert!(printed.contains("certificate required"), "{printed}");
    assert_eq!(site.endpoint.requests(), 3);
}

#[tokio::test]
async fn a_host_that_asks_for_a_certificate_is_not_reached_under_another_name() {
    let (authority, clients) = (Authority::new("CA"), Authority::new("clients"));
    let server = authority.issue("s", &["a.test", "in.test", "sub.in.test"]);
    let guarded = ServerRules {
        client_auth: vec![
            asks(&["*.in.test", "in.test"], &clients),
            ClientAuth {
                mode: ClientAuthMode::Optional,
                ..asks(&["opt.test"], &clients)
            },
        ],
        ..rules(&[&server])
    };
    let site = Site::start(&guarded).await;
    let ca = site.file("ca.pem", authority.pem());
    let hosts = [
        ("in.test", 421),
        ("IN.test:443", 421),
        ("in.test.", 421),
        ("deep.sub.in.test", 421),
        ("opt.test", 421),
        ("a.test", 200),
        ("elsewhere.test", 200),
    ];
    for version in ["--http1.1", "--http2"] {
        for (host, wanted) in hosts {
            let header = format!("Host: {host}");
            let arguments = ["--cacert", &ca, version, "--header", &header];
            let (status, body) = site.curl("a.test", "/", &arguments).await;
            assert_eq!(status, wanted, "{version} {host}: {body}");
        }
    }
    // A client that was let in may ask for every name of the same rule, and for open ones.
    let client = clients.issue("c", &[]);
    let chain = site.file("c.pem", &client.chain);
    let key = site.file("c.key", &client.key);
    for (host, wanted) in [("sub.in.test", 200), ("a.test", 200), ("opt.test", 421)] {
        let header = format!("Host: {host}");
        let arguments = [
            "--cacert", &ca, "--cert", &chain, "--key", &key, "--header", &header,
        ];
        let (status, body) = site.curl("in.test", "/", &arguments).await;
        assert_eq!(status, wanted, "{host}: {body}");
    }
}

#[tokio::test]
async fn a_connection_from_before_a_reload_is_held_against_the_new_rules() {
    let (authority, clients) = (Authority::new("CA"), Authority::new("clients"));
    let server = authority.issue("s", &["x.test"]);
    let site = Site::start(&rules(&[&server])).await;
    let root = CertificatePem {
        chain: authority.pem().as_bytes().into(),
        key: (*b"").into(),
    };
    let stream = edge::connect_tls(site.address(), &root, b"h2").await;
    let mut client = edge::Http2::over(stream).await;
    assert_eq!(client.get("https://x.test/").await.head.status, 200);

    site.reload(&ServerRules {
        client_auth: vec![asks(&["x.test"], &clients)],
        ..rules(&[&server])
    });

    let reply = client.get("https://x.test/").await;
    assert_eq!(reply.head.status, 421);
    assert_eq!(reply.head.headers["x-sealane-refusal"], "misdirected");
    assert_eq!(client.get("https://y.test/").await.head.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_lost_while_certificates_are_renewed() {
    let authority = Authority::new("CA");
    let site = Site::start(&rules(&[&authority.issue("0", &["x.test"])])).await;
    let root = CertificatePem {
        chain: authority.pem().as_bytes().into(),
        key: (*b"").into(),
    };
    let address = site.address();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (root, stopped) = (root.clone(), stopped.clone());
        clients.spawn(async move {
            let mut served = 0;
            while !*stopped.borrow() {
                let stream = edge::connect_tls(address, &root, b"h2").await;
                let mut client = edge::Http2::over(stream).await;
                assert_eq!(client.get("https://x.test/").await.head.status, 200);
                served += 1;
            }
            served
        });
    }

    for round in 1..=20 {
        site.reload(&rules(&[&authority.issue(&round.to_string(), &["x.test"])]));
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }

    let printed = site.s_client(&["-servername", "x.test"]).await;
    assert!(subject(&printed).ends_with("20"), "{printed}");
    stop.send_replace(true);
    let served: u32 = clients.join_all().await.into_iter().sum();
    assert!(served >= 8, "{served}");
}

/// `openssl s_server -www`, which answers every GET with a page about the connection.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(folder: &Path, issued: &Issued, arguments: &[&str]) -> Self {
        let file = |name: &str, text: &str| -> PathBuf {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut child = Command::new("openssl")
            .args([
                "s_server",
                "-accept",
                "127.0.0.1:0",
                "-www",
                "-naccept",
                "20",
            ])
            .arg("-cert")
            .arg(file("server.pem", &issued.chain))
            .arg("-key")
            .arg(file("server.key", &issued.key))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            line.strip_prefix("ACCEPT ")?.parse().ok()
        });
        // It stops when nobody reads what it prints.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            address: address.expect("an address"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn an_endpoint_that_asks_who_we_are_is_shown_our_certificate() {
    let (authority, nodes) = (Authority::new("CA"), Authority::new("nodes"));
    let folder = tempfile::tempdir().unwrap();
    let nodes_file = folder.path().join("nodes.pem");
    std::fs::write(&nodes_file, nodes.pem()).unwrap();
    let ours = nodes.issue("node-1", &["node-1.test"]);
    let wrong = authority.issue("node-1", &["node-1.test"]);
    let issued = authority.issue("endpoint", &["endpoint.test"]);
    let asking = [
        "-Verify",
        "2",
        "-verify_return_error",
        "-CAfile",
        nodes_file.to_str().unwrap(),
    ];
    let older = [&asking[..], &["-no_tls1_3"]].concat();
    let asking = Server::start(folder.path(), &issued, &asking);
    let older = Server::start(folder.path(), &issued, &older);
    let tls = |certificate: Option<&Issued>, minimum: TlsVersion, name: &str| EndpointTls {
        server_name: name.into(),
        roots: Roots::Pem(authority.pem().as_bytes().into()),
        certificate: certificate.map(pem),
        minimum,
    };
    let status = |server: &Server, tls: &EndpointTls| {
        let world = World::new()
            .region("eu", Up)
            .endpoint(&server.address.to_string(), Up)
            .tls(tls)
            .build();
        let edge = Edge::start(world);
        async move {
            let mut client = edge.connect().await;
            let reply = client.get("/").await;
            (reply.status(), String::from_utf8(reply.body).unwrap())
        }
    };
    let (any, new) = (TlsVersion::Tls12, TlsVersion::Tls13);
    let name = "endpoint.test";

    let (code, page) = status(&asking, &tls(Some(&ours), any, name)).await;
    assert_eq!(code, 200, "{page}");
    assert!(page.contains("TLSv1.3"), "{page}");
    assert_eq!(status(&asking, &tls(None, any, name)).await.0, 502);
    assert_eq!(status(&asking, &tls(Some(&wrong), any, name)).await.0, 502);
    assert_eq!(
        status(&asking, &tls(Some(&ours), any, "other.test"))
            .await
            .0,
        502
    );
    assert_eq!(status(&older, &tls(Some(&ours), any, name)).await.0, 200);
    let (code, body) = status(&older, &tls(Some(&ours), new, name)).await;
    assert!(
        code == 502 && body.contains("endpoint_tls"),
        "{code} {body}"
    );
}

#[tokio::test]
async fn between_nodes_nothing_below_tls_1_3_is_spoken_and_both_show_who_they_are() {
    let mesh = Authority::new("mesh");
    let near = mesh.issue("near", &["spiffe://corp/edge/near", "near.test"]);
    let far = mesh.issue("far", &["spiffe://corp/edge/far", "far.test"]);
    let rules = ServerRules {
        minimum: TlsVersion::Tls13,
        client_auth: vec![ClientAuth {
            allow: Allow {
                dns: Vec::new(),
                spiffe: vec![SpiffePattern::parse("spiffe://corp/edge/*").unwrap()],
            },
            ..asks(&[], &mesh)
        }],
        ..rules(&[&far])
    };
    let site = Site::start(&rules).await;
    let toward_far = EndpointTls {
        server_name: "far.test".into(),
        roots: Roots::Pem(mesh.pem().as_bytes().into()),
        certificate: Some(pem(&near)),
        minimum: TlsVersion::Tls13,
    };
    let world = World::new()
        .region("far", Up)
        .endpoint(&site.address().to_string(), Up)
        .tls(&toward_far)
        .build();
    let edge = Edge::start(world);

    let mut client = edge.connect().await;
    let reply = client.get("/headers").await;

    assert_eq!(reply.status(), 200);
    assert!(
        reply.text().contains("uri=(\"spiffe://corp/edge/near\")"),
        "{}",
        reply.text()
    );
    let refused = site.s_client(&["-tls1_2"]).await;
    assert!(refused.contains("protocol version"), "{refused}");
    let refused = site.s_client(&["-tls1_3", "-noservername"]).await;
    assert!(refused.contains("certificate required"), "{refused}");
}
