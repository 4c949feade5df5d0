//! Certificates by ACME against a real authority: ordered, proved both ways, served, renewed, kept
//! over a restart; and what happens when the authority refuses.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod pebble;
mod world;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pebble::{Outside, Pebble, Place};
use sealane_testkit::ScriptedEndpoint;
use sealane_testkit::port::free_port;
use sha2::{Digest as _, Sha256};
use world::{Sealane, curl, text, until};

const LISTENERS: [&str; 4] = ["web", "secure", "dns", "admin"];

/// What a test writes into the file.
struct File<'a> {
    folder: &'a Path,
    directory: String,
    ca: PathBuf,
    challenges: &'a str,
    endpoint: SocketAddr,
    retry: &'a str,
}

impl File<'_> {
    fn write(&self) -> PathBuf {
        let Self {
            folder,
            directory,
            ca,
            challenges,
            endpoint,
            retry,
        } = self;
        let (state, ca) = (folder.join("state"), ca.display());
        let file = folder.join("sealane.yaml");
        let state = state.display();
        let text = format!(
            r#"version: 1
node: {{ name: test, state_dir: "{state}", first_round_limit: 1s, drain_limit: 1s }}
regions: {{ here: {{}} }}
pools:
  api: {{ regions: {{ here: {{ endpoints: [{{ address: "{endpoint}" }}] }} }} }}
routes: [{{ pool: api }}]
acme:
  directory: "{directory}"
  terms_agreed: true
  contact: "mailto:ops@example.com"
  ca: "{ca}"
  challenges: {challenges}
  retry: {retry}
listeners:
  web: {{ bind: "127.0.0.1:0" }}
  secure:
    bind: "127.0.0.1:0"
    protocol: https
    certificates:
      - {{ acme: one.acme.test }}
      - {{ acme: [two.acme.test, three.acme.test] }}
dns:
  bind: "127.0.0.1:0"
  zones:
    acme.test:
      ns: [ns.acme.test.]
      records:
        - {{ name: ns, type: A, value: 127.0.0.1 }}
        - {{ name: one, type: A, value: 127.0.0.1 }}
        - {{ name: two, type: A, value: 127.0.0.1 }}
        - {{ name: three, type: A, value: 127.0.0.1 }}
admin: {{ bind: "127.0.0.1:0" }}
"#
        );
        std::fs::write(&file, text).unwrap();
        file
    }
}

/// One endpoint, one authority's place, and a file that names both.
struct Stage {
    folder: tempfile::TempDir,
    place: Place,
    // Lives as long as its endpoint.
    _runtime: tokio::runtime::Runtime,
    endpoint: ScriptedEndpoint,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let endpoint = runtime
            .block_on(ScriptedEndpoint::start_anywhere("one", "here"))
            .unwrap();
        Self {
            folder,
            place,
            _runtime: runtime,
            endpoint,
        }
    }

    fn file(&self, challenges: &str) -> PathBuf {
        File {
            folder: self.folder.path(),
            directory: self.place.directory(),
            ca: self.place.ca(),
            challenges,
            endpoint: self.endpoint.address(),
            retry: "1s",
        }
        .write()
    }

    /// The program, and the authority that can reach it.
    fn start(&self, challenges: &str) -> (Sealane, Pebble) {
        let sealane = Sealane::run(&self.file(challenges), &LISTENERS);
        let pebble = self.place.start(outside(&sealane));
        // It found nobody at first: it need not wait until it looks again.
        sealane.signal("HUP");
        (sealane, pebble)
    }

    /// The file that holds the certificate for these names, which are sorted.
    fn kept(&self, names: &[&str]) -> PathBuf {
        let mut hash = Sha256::new();
        for name in names {
            hash.update(name.as_bytes());
            hash.update(b"\n");
        }
        let short: String = hash.finalize()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let file = format!("{}-{short}.pem", names[0]);
        self.folder.path().join("state/acme").join(file)
    }
}

fn outside(sealane: &Sealane) -> Outside {
    Outside {
        dns: sealane.address("dns"),
        http: sealane.address("web").port(),
        tls: sealane.address("secure").port(),
    }
}

/// A GET over TLS for `name`, by whoever trusts `root` alone; the status.
fn get(sealane: &Sealane, name: &str, root: &Path) -> Result<String, String> {
    let address = sealane.address("secure");
    let resolve = format!("{name}:{}:{}", address.port(), address.ip());
    let url = format!("https://{name}:{}/", address.port());
    let output = curl(&[
        "-sS",
        "--cacert",
        root.to_str().unwrap(),
        "--resolve",
        &resolve,
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        &url,
    ]);
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// What `openssl s_client` prints of a handshake.
fn s_client(address: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    text(&output.stdout) + &text(&output.stderr)
}

fn metric(sealane: &Sealane, line: &str) -> Option<f64> {
    let output = curl(&["-s", &sealane.url("admin", "/metrics")]);
    let all = text(&output.stdout);
    let found = all.lines().find_map(|shown| shown.strip_prefix(line));
    found.and_then(|value| value.trim().parse().ok())
}

fn issued(challenges: &str) {
    let stage = Stage::new();
    let (sealane, pebble) = stage.start(challenges);
    let root = pebble.root();

    for name in ["one.acme.test", "two.acme.test", "three.acme.test"] {
        until("a certificate serves", || {
            get(&sealane, name, &root).is_ok()
        });
        assert_eq!(get(&sealane, name, &root).unwrap(), "200");
    }
    let address = sealane.address("secure");
    let root = root.to_str().unwrap();
    let shown = s_client(
        address,
        &[
            "-servername",
            "two.acme.test",
            "-verify_hostname",
            "two.acme.test",
            "-CAfile",
            root,
        ],
    );
    assert!(shown.contains("Verify return code: 0 (ok)"), "{shown}");

    assert!(metric(&sealane, "sealane_acme_orders_total{result=\"issued\"}") >= Some(2.0));
    until("the stock is counted", || {
        metric(&sealane, "sealane_acme_certificates{state=\"held\"}") == Some(2.0)
            && metric(&sealane, "sealane_acme_certificates{state=\"missing\"}") == Some(0.0)
    });
    let line = "sealane_tls_certificate_not_after_timestamp_seconds{kind=\"listener\",source=\"acme: one.acme.test\"";
    let shown = text(&curl(&["-s", &sealane.url("admin", "/metrics")]).stdout);
    assert!(shown.contains(line), "{shown}");
    let log = pebble.log();
    let other = if challenges.contains("http") {
        "TLS-ALPN-01"
    } else {
        "HTTP-01"
    };
    let validated = |kind: &str| log.to_uppercase().contains(&format!("[{kind}]"));
    assert!(!validated(other), "{log}");
}

#[test]
fn certificates_are_issued_for_names_proved_over_http() {
    issued("http-01");
}

#[test]
fn certificates_are_issued_for_names_proved_by_a_handshake() {
    issued("tls-alpn-01");
}

#[test]
fn a_restart_finds_account_and_certificates_on_disk() {
    let stage = Stage::new();
    let (mut sealane, pebble) = stage.start("[http-01, tls-alpn-01]");
    let root = pebble.root();
    until("the certificates are on disk", || {
        stage.kept(&["one.acme.test"]).exists()
            && stage.kept(&["three.acme.test", "two.acme.test"]).exists()
    });
    let folder = stage.folder.path().join("state/acme");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
    sealane.signal("TERM");
    sealane.wait();
    drop(pebble);

    // Nobody is there to order from.
    let sealane = Sealane::run(&stage.file("http-01"), &LISTENERS);

    assert_eq!(get(&sealane, "one.acme.test", &root).unwrap(), "200");
    assert_eq!(get(&sealane, "three.acme.test", &root).unwrap(), "200");
    assert!(!sealane.log().contains("ordering a certificate"));
}

#[test]
fn an_authority_that_has_forgotten_the_account_is_given_a_new_one() {
    let stage = Stage::new();
    let (mut sealane, pebble) = stage.start("http-01");
    let kept = stage.kept(&["one.acme.test"]);
    until("the certificate is on disk", || kept.exists());
    sealane.signal("TERM");
    sealane.wait();
    // It keeps nothing over a restart.
    drop(pebble);
    std::fs::remove_file(&kept).unwrap();

    let (sealane, pebble) = stage.start("http-01");
    let root = pebble.root();

    until("a certificate serves", || {
        get(&sealane, "one.acme.test", &root).is_ok()
    });
    let folder = std::fs::read_dir(kept.parent().unwrap()).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let accounts: Vec<String> = names.filter(|name| name.starts_with("account-")).collect();
    let aside = accounts.iter().filter(|name| name.contains(".broken-"));
    assert_eq!((accounts.len(), aside.count()), (2, 1), "{accounts:?}");
}

#[test]
fn a_certificate_near_its_end_is_renewed_and_serves_without_a_lost_request() {
    let stage = Stage::new();
    let kept = stage.kept(&["one.acme.test"]);
    std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
    let old = near_its_end("one.acme.test");
    std::fs::write(&kept, &old).unwrap();
    let old_root = stage.folder.path().join("old.pem");
    std::fs::write(&old_root, &old).unwrap();

    let sealane = Sealane::run(&stage.file("tls-alpn-01"), &LISTENERS);
    assert_eq!(get(&sealane, "one.acme.test", &old_root).unwrap(), "200");

    let address = sealane.address("secure");
    let mut keep_alive = Kept::open(address, "one.acme.test", &old);
    keep_alive.get();
    let pebble = stage.place.start(outside(&sealane));
    sealane.signal("HUP");
    let root = pebble.root();
    until("the renewed certificate serves", || {
        keep_alive.get();
        let old = get(&sealane, "one.acme.test", &old_root).is_ok();
        let new = get(&sealane, "one.acme.test", &root).is_ok();
        // It may have been replaced between the two.
        assert!(old || new || get(&sealane, "one.acme.test", &root).is_ok());
        new
    });
    // What was open before goes on with what it began with.
    keep_alive.get();
    until("the renewed certificate is on disk", || {
        std::fs::read_to_string(&kept).unwrap() != old
    });
}

#[test]
fn a_name_that_cannot_be_proved_is_refused_and_the_log_says_why() {
    let stage = Stage::new();
    let mut sealane = Sealane::run(&stage.file("http-01"), &LISTENERS);
    let nobody = free_port();
    let pebble = stage.place.start(Outside {
        http: nobody,
        ..outside(&sealane)
    });
    sealane.signal("HUP");

    let line = sealane.wait_log("not proved by http-01");

    assert!(
        line.contains("handshakes for its names are refused"),
        "{line}"
    );
    assert!(line.contains("onnection refused"), "{line}");
    assert!(metric(&sealane, "sealane_acme_orders_total{result=\"unproved\"}") >= Some(1.0));
    let shown = s_client(sealane.address("secure"), &["-servername", "one.acme.test"]);
    assert!(shown.contains("no peer certificate available"), "{shown}");
    drop(pebble);
}

#[test]
fn after_a_failure_the_other_way_of_proving_has_its_turn() {
    let stage = Stage::new();
    let sealane = Sealane::run(&stage.file("[http-01, tls-alpn-01]"), &LISTENERS);
    let pebble = stage.place.start(Outside {
        http: free_port(),
        ..outside(&sealane)
    });
    sealane.signal("HUP");
    let root = pebble.root();

    until("a certificate serves", || {
        get(&sealane, "one.acme.test", &root).is_ok()
    });
}

#[test]
fn an_authority_that_asks_for_patience_is_left_alone() {
    let stage = Stage::new();
    let folder = stage.folder.path();
    let directory = Overloaded::start(folder);
    let file = File {
        folder,
        directory: format!("https://localhost:{}/dir", directory.port),
        ca: stage.place.ca(),
        challenges: "http-01",
        endpoint: stage.endpoint.address(),
        retry: "1s",
    };

    let mut sealane = Sealane::run(&file.write(), &LISTENERS);
    // Both orders were under way when the first answer came.
    sealane.wait_log("it answered 503");
    let line = sealane.wait_log("it answered 503");

    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
    let again = entry["again_s"].as_u64().unwrap();
    assert!((3_500..=3_600).contains(&again), "{line}");
    let asked = directory.asked.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(directory.asked.load(Ordering::Relaxed), asked);
    assert_eq!(asked, 2);
    assert!(
        metric(
            &sealane,
            "sealane_acme_orders_total{result=\"unreachable\"}"
        ) >= Some(1.0)
    );
}

#[test]
fn what_nobody_is_shown_is_for_the_routes() {
    let stage = Stage::new();
    let sealane = Sealane::run(&stage.file("http-01"), &LISTENERS);
    let before = stage.endpoint.requests();

    let url = sealane.url("web", "/.well-known/acme-challenge/unknown");
    let output = curl(&["-s", "-o", "/dev/null", "-w", "%{http_code}", &url]);

    assert_eq!(text(&output.stdout), "200");
    assert_eq!(stage.endpoint.requests(), before + 1);
    let shown = s_client(
        sealane.address("secure"),
        &["-servername", "one.acme.test", "-alpn", "acme-tls/1"],
    );
    assert!(shown.contains("no peer certificate available"), "{shown}");
}

/// Chain and key of a certificate that has a day left of its ninety.
fn near_its_end(name: &str) -> String {
    use std::time::{SystemTime, UNIX_EPOCH};
    #[expect(clippy::disallowed_methods, reason = "certificates live by the clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let at = |days: i64| {
        let days = days + i64::try_from(now.as_secs() / 86_400).unwrap();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        epoch + Duration::from_secs(u64::try_from(days * 86_400).unwrap())
    };
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = at(-88);
    params.not_after = at(2);
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem() + &key.serialize_pem()
}

/// One connection over TLS that is kept.
struct Kept(rustls::StreamOwned<rustls::ClientConnection, TcpStream>);

impl Kept {
    fn open(address: SocketAddr, name: &str, root: &str) -> Self {
        use rustls::pki_types::pem::PemObject as _;
        let root = rustls::pki_types::CertificateDer::from_pem_slice(root.as_bytes()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = name.to_owned().try_into().unwrap();
        let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let tcp = TcpStream::connect(address).unwrap();
        Self(rustls::StreamOwned::new(connection, tcp))
    }

    fn get(&mut self) {
        let request = "GET / HTTP/1.1\r\nHost: one.acme.test\r\n\r\n";
        self.0.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        let head = text(&answer);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().unwrap())
        });
        let mut body = vec![0; length.unwrap()];
        self.0.read_exact(&mut body).unwrap();
    }
}

/// A directory's server that answers everything with 503 and asks for an hour.
struct Overloaded {
    port: u16,
    asked: Arc<AtomicU32>,
}

impl Overloaded {
    /// With the certificate that [`Place::new`] made in `folder`.
    fn start(folder: &Path) -> Self {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let chain = CertificateDer::from_pem_file(folder.join("directory.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("directory.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        std::thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                let connection = rustls::ServerConnection::new(config.clone()).unwrap();
                let mut stream = rustls::StreamOwned::new(connection, tcp);
                let mut byte = [0];
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                    head.push(byte[0]);
                }
                count.fetch_add(1, Ordering::Relaxed);
                let answer = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3600\r\n\
                              Content-Type: text/html\r\nContent-Length: 0\r\n\
                              Connection: close\r\n\r\n";
                // Errors mean that the client has left.
                let _ = stream.write_all(answer.as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        Self { port, asked }
    }
}
