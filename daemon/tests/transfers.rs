//! Zones to and from NSD, Knot and BIND: AXFR, IXFR, NOTIFY and TSIG, both ways.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use world::{Sealane, dig, sealane, text, until};

/// The secret of the key `transfer.example`, in base64.
const SECRET: &str = "c2VhbGFuZS10cmFuc2Zlci1zZWNyZXQtMzItb2N0ZXQ=";
const KEY: &str = "hmac-sha256:transfer.example";

/// A directory with everything of one test, and ports that are free for its servers.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("transfer.key"), SECRET).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        // Renamed over, as operators should: a reader never sees half of it.
        let new = self.path("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }

    fn folder(&self, name: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Sealane with this as its `dns`, everything of the other parts quick.
    fn sealane(&self, dns: &str) -> Sealane {
        let config = self.write("sealane.yaml", &config(dns));
        Sealane::run(&config, &["dns", "admin"])
    }
}

fn config(dns: &str) -> String {
    format!(
        "version: 1\n\
         node: {{ state_dir: state, first_round_limit: 0s }}\n\
         regions:\n  frankfurt: {{ location: [50.1, 8.7] }}\n  virginia: {{ location: [39.0, -77.5] }}\n\
         pools:\n  api:\n    steering: {{ policy: priority }}\n    regions:\n\
         \x20     frankfurt: {{ priority: 1, addresses: [192.0.2.10, \"2001:db8::10\"], endpoints: [{{ address: \"127.0.0.1:9\" }}] }}\n\
         \x20     virginia: {{ priority: 2, addresses: [192.0.2.20], endpoints: [{{ address: \"127.0.0.1:9\" }}] }}\n\
         \x20   failover: {{ all_down: fail_open }}\n\
         admin: {{ bind: [\"127.0.0.1:0\"] }}\n\
         dns:\n  bind: [\"127.0.0.1:0\"]\n  tsig_keys: {{ transfer.example: {{ secret: \"file:transfer.key\" }} }}\n{dns}"
    )
}

/// A port that is free for UDP and TCP. Somebody else may take it before it is used: then the server says so and
/// the test fails with its words.
fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Another name server.
struct Peer {
    child: Child,
    log: PathBuf,
}

impl Peer {
    fn start(place: &Place, program: &str, arguments: &[&str]) -> Self {
        let log = place.path(&format!("{program}.log"));
        let out = fs::File::create(&log).unwrap();
        // Debian has name servers where only administrators look.
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
        let child = Command::new(program)
            .args(arguments)
            .env("PATH", path)
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
        Self { child, log }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Make {
    Nsd,
    Knot,
    Bind,
}

/// How a peer stands to Sealane.
enum Role {
    /// Of what is served there.
    SecondaryOf(SocketAddr),
    /// Of this zone file, telling who is there.
    PrimaryOf(PathBuf, SocketAddr),
}

impl Make {
    fn start(self, place: &Place, port: u16, role: &Role) -> Peer {
        let dir = place.folder(&format!("{self:?}"));
        match self {
            Self::Nsd => {
                let config = place.write("nsd.conf", &nsd(&dir, port, role));
                Peer::start(place, "nsd", &["-d", "-c", config.to_str().unwrap()])
            }
            Self::Knot => {
                let config = place.write("knot.conf", &knot(&dir, port, role));
                Peer::start(place, "knotd", &["-c", config.to_str().unwrap()])
            }
            Self::Bind => {
                let config = place.write("named.conf", &named(&dir, port, role));
                Peer::start(place, "named", &["-g", "-c", config.to_str().unwrap()])
            }
        }
    }
}

fn nsd(dir: &str, port: u16, role: &Role) -> String {
    let zone = match role {
        Role::SecondaryOf(primary) => format!(
            "zonefile: {dir}/secondary.zone\n  allow-notify: 127.0.0.1 transfer.example\n  request-xfr: {}@{} transfer.example",
            primary.ip(),
            primary.port()
        ),
        Role::PrimaryOf(file, secondary) => format!(
            "zonefile: {}\n  provide-xfr: 127.0.0.1 transfer.example\n  notify: {}@{} transfer.example\n  store-ixfr: yes\n  create-ixfr: yes",
            file.display(),
            secondary.ip(),
            secondary.port()
        ),
    };
    format!(
        "server:\n  ip-address: 127.0.0.1@{port}\n  username: \"\"\n  chroot: \"\"\n  zonesdir: {dir}\n  database: \"\"\n  \
         pidfile: {dir}/pid\n  xfrdfile: {dir}/xfrd\n  xfrdir: {dir}\n  zonelistfile: {dir}/zones\n  server-count: 1\n  verbosity: 2\n  cookie-secret-file: \"\"\n\
         remote-control:\n  control-enable: no\n\
         key:\n  name: transfer.example\n  algorithm: hmac-sha256\n  secret: \"{SECRET}\"\n\
         zone:\n  name: example.test\n  {zone}\n"
    )
}

fn knot(dir: &str, port: u16, role: &Role) -> String {
    let (remote, zone) = match role {
        Role::SecondaryOf(primary) => (*primary, "master: other\n    acl: other".to_owned()),
        Role::PrimaryOf(file, secondary) => (
            *secondary,
            format!(
                "file: {}\n    notify: other\n    acl: other\n    zonefile-load: difference\n    journal-content: changes",
                file.display()
            ),
        ),
    };
    format!(
        "server:\n    listen: 127.0.0.1@{port}\n    rundir: {dir}\n    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n\
         log:\n  - target: stderr\n    any: info\n\
         database:\n    storage: {dir}\n\
         key:\n  - id: transfer.example\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
         remote:\n  - id: other\n    address: {}@{}\n    key: transfer.example\n\
         acl:\n  - id: other\n    address: 127.0.0.1\n    key: transfer.example\n    action: [transfer, notify]\n\
         zone:\n  - domain: example.test\n    storage: {dir}\n    {zone}\n",
        remote.ip(),
        remote.port()
    )
}

fn named(dir: &str, port: u16, role: &Role) -> String {
    let zone = match role {
        Role::SecondaryOf(primary) => format!(
            "type secondary; file \"{dir}/secondary.zone\"; masterfile-format text; primaries {{ {} port {} key transfer.example; }}; allow-notify {{ key transfer.example; }};",
            primary.ip(),
            primary.port()
        ),
        Role::PrimaryOf(file, secondary) => format!(
            "type primary; file \"{}\"; ixfr-from-differences yes; allow-transfer {{ key transfer.example; }}; notify explicit; also-notify {{ {} port {} key transfer.example; }};",
            file.display(),
            secondary.ip(),
            secondary.port()
        ),
    };
    format!(
        "options {{ directory \"{dir}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file \"{dir}/pid\"; \
         session-keyfile \"{dir}/session.key\"; managed-keys-directory \"{dir}\"; recursion no; dnssec-validation no; notify-delay 0; \
         serial-query-rate 100; }};\n\
         controls {{ }};\n\
         key transfer.example {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
         zone example.test {{ {zone} }};\n"
    )
}

/// What `dig` says, its whole output.
fn dig_all(server: SocketAddr, arguments: &[&str]) -> String {
    let (at, port) = (format!("@{}", server.ip()), server.port().to_string());
    let output = Command::new("dig")
        .args([at.as_str(), "-p", &port, "+time=5", "+tries=2"])
        .args(arguments)
        .output()
        .unwrap();
    text(&output.stdout)
}

/// The answers to every question that a copy of `served` must answer alike.
fn answers(server: SocketAddr) -> Vec<Vec<String>> {
    let questions = [
        ["example.test", "SOA"],
        ["example.test", "NS"],
        ["ns1.example.test", "A"],
        ["www.example.test", "A"],
        ["www.example.test", "TXT"],
        ["alias.example.test", "CNAME"],
        ["any.wild.example.test", "MX"],
        ["child.example.test", "NS"],
        ["absent.example.test", "A"],
    ];
    let ask = |question: &[&str; 2]| {
        let mut lines = dig(server, &[&["+norec"], &question[..]].concat());
        lines.sort();
        lines
    };
    questions.iter().map(ask).collect()
}

const RECORDS: &str = r#"        - { name: ns1, type: A, value: 192.0.2.53 }
        - { name: www, type: A, values: [192.0.2.1, 192.0.2.2] }
        - { name: www, type: TXT, value: "some text; with a semicolon" }
        - { name: alias, type: CNAME, value: www }
        - { name: "*.wild", type: MX, value: "10 www" }
        - { name: child, type: NS, value: ns.child }
        - { name: ns.child, type: A, value: 192.0.2.99 }
"#;

fn primary_of(notify: u16, more: &str) -> String {
    format!(
        "  zones:\n    example.test:\n      soa: {{ serial: 10, refresh: 1h, retry: 1h }}\n      ns: [ns1.example.test]\n      \
         transfers: {{ to: [127.0.0.0/8], tsig: [transfer.example], notify: [\"127.0.0.1:{notify}\"] }}\n      \
         steered: {{ api: {{ pool: api }} }}\n      records:\n{RECORDS}{more}"
    )
}

/// A secondary of any make has what Sealane has, and follows it.
fn is_followed_by(make: Make) {
    let place = Place::new();
    let port = free_port();
    let mut sealane = place.sealane(&primary_of(port, ""));
    let ours = sealane.address("dns");
    let peer = make.start(&place, port, &Role::SecondaryOf(ours));
    let theirs = local(port);

    until("the secondary has the zone", || {
        dig(theirs, &["+norec", "example.test", "SOA"]) == dig(ours, &["example.test", "SOA"])
    });
    assert_eq!(answers(theirs), answers(ours), "{}", peer.log());
    // All endpoints are down, and all_down is fail_open: the first region of the order.
    let steered = dig(theirs, &["+norec", "api.example.test", "A"]);
    assert_eq!(steered, ["192.0.2.10"]);
    assert_eq!(
        dig(theirs, &["+norec", "api.example.test", "AAAA"]),
        ["2001:db8::10"]
    );
    sealane.wait_log("\"axfr\"");

    // The serial that is written stays: it is Sealane that counts on.
    let more = "        - { name: new, type: A, value: 192.0.2.7 }\n";
    place.write("sealane.yaml", &config(&primary_of(port, more)));
    until("the secondary has the change", || {
        dig(theirs, &["+norec", "new.example.test", "A"]) == ["192.0.2.7"]
    });
    let soa = dig(theirs, &["+norec", "example.test", "SOA"]);
    assert!(soa[0].contains(" 11 "), "{soa:?}");
    assert_eq!(answers(theirs), answers(ours));
    sealane.wait_log("\"ixfr\"");
    let log = sealane.log();
    assert!(!log.contains(SECRET), "the secret is in the log");
}

#[test]
fn nsd_follows_a_zone_of_ours() {
    is_followed_by(Make::Nsd);
}

#[test]
fn knot_follows_a_zone_of_ours() {
    is_followed_by(Make::Knot);
}

#[test]
fn bind_follows_a_zone_of_ours() {
    is_followed_by(Make::Bind);
}

#[test]
fn only_who_signs_with_the_key_gets_the_zone() {
    let place = Place::new();
    let sealane = place.sealane(&primary_of(9, ""));
    let ours = sealane.address("dns");
    let wrong = "hmac-sha256:transfer.example:d3JvbmctdHJhbnNmZXItc2VjcmV0LTMyLW9jdGV0cyE=";
    let other = format!("hmac-sha256:other.example:{SECRET}");
    let right = format!("{KEY}:{SECRET}");

    let whole = dig_all(ours, &["-y", &right, "example.test", "AXFR"]);
    assert!(whole.contains("ns.child.example.test."), "{whole}");
    assert!(
        whole.contains("api.example.test.\t10\tIN\tA\t192.0.2.10"),
        "{whole}"
    );
    assert_eq!(whole.matches("IN\tSOA").count(), 2, "{whole}");
    assert!(whole.contains("NOERROR"), "{whole}");

    let unsigned = dig_all(ours, &["example.test", "AXFR"]);
    assert!(unsigned.contains("Transfer failed"), "{unsigned}");
    let unknown = dig_all(ours, &["-y", &other, "+tcp", "example.test", "SOA"]);
    assert!(
        unknown.contains("NOTAUTH") && unknown.contains("BADKEY"),
        "{unknown}"
    );
    let forged = dig_all(ours, &["-y", wrong, "+tcp", "example.test", "SOA"]);
    assert!(
        forged.contains("NOTAUTH") && forged.contains("BADSIG"),
        "{forged}"
    );
    let forged = dig_all(ours, &["-y", wrong, "example.test", "AXFR"]);
    assert!(!forged.contains("192.0.2.1"), "{forged}");
    // Over UDP, too, what is asked signed is answered signed.
    let signed = dig_all(ours, &["-y", &right, "example.test", "SOA"]);
    assert!(
        signed.contains("TSIG PSEUDOSECTION") && !signed.contains("Couldn't verify"),
        "{signed}"
    );
    // Who has the newest version is told so by its SOA alone.
    let same = dig_all(ours, &["-y", &right, "example.test", "IXFR=10"]);
    assert_eq!(same.matches("IN\tSOA").count(), 1, "{same}");
    // A zone that is not for others is refused as ever.
    let refused = dig_all(ours, &["-y", &right, "+tcp", "other.test", "AXFR"]);
    assert!(refused.contains("Transfer failed"), "{refused}");
}

/// A zone file at its `serial`, with `more`.
fn zone_file(serial: u32, more: &str) -> String {
    format!(
        "$TTL 300\n@ IN SOA ns1.example.test. hostmaster.example.test. {serial} 3600 600 86400 60\n@ NS ns1\nns1 A 192.0.2.53\n\
         www A 192.0.2.1\nwww A 192.0.2.2\nwww TXT \"some text\"\nalias CNAME www\n*.wild MX 10 www\nchild NS ns.child\nns.child A 192.0.2.99\n{more}"
    )
}

fn secondary_of(primary: u16) -> String {
    format!(
        "  zones:\n    example.test:\n      secondary_of: {{ primaries: [\"127.0.0.1:{primary}\"], tsig: transfer.example }}\n      \
         steered: {{ api: {{ pool: api }} }}\n"
    )
}

/// Sealane has what a primary of any make has, follows it, and outlives it.
fn follows(make: Make) {
    let place = Place::new();
    let port = free_port();
    let file = place.write("example.test.zone", &zone_file(100, ""));
    let mut sealane = place.sealane(&secondary_of(port));
    let ours = sealane.address("dns");
    let servfail = dig_all(ours, &["www.example.test", "A"]);
    assert!(servfail.contains("SERVFAIL"), "{servfail}");
    assert!(servfail.contains("EDE: 24"), "{servfail}");

    let theirs = local(port);
    let peer = make.start(&place, port, &Role::PrimaryOf(file, ours));
    until("the zone is there", || {
        dig(ours, &["www.example.test", "A"]).len() == 2
    });
    assert_eq!(answers(ours), answers(theirs), "{}", peer.log());
    // Names of the file stand beside what came.
    assert_eq!(dig(ours, &["api.example.test", "A"]), ["192.0.2.10"]);

    place.write("example.test.zone", &zone_file(101, "new A 192.0.2.7\n"));
    peer.signal("HUP");
    until("the change is there", || {
        dig(ours, &["new.example.test", "A"]) == ["192.0.2.7"]
    });
    assert_eq!(answers(ours), answers(theirs));
    until("the admin API shows the zone", || {
        let zone = &sealane.admin("/v1/zones")["zones"][0];
        zone["serial"] == 101 && zone["role"] == "secondary" && zone["error"].is_null()
    });
    let line = sealane.wait_log("101");
    assert!(line.contains("\"ixfr\""), "{line}\n{}", peer.log());

    // Without its primary a new process has the zone at once.
    drop(peer);
    sealane.signal("TERM");
    assert!(sealane.wait().success());
    let again = Sealane::run(&place.path("sealane.yaml"), &["dns", "admin"]);
    let ours = again.address("dns");
    assert_eq!(dig(ours, &["new.example.test", "A"]), ["192.0.2.7"]);
    assert_eq!(dig(ours, &["api.example.test", "A"]), ["192.0.2.10"]);
}

#[test]
fn a_zone_of_nsd_is_followed() {
    follows(Make::Nsd);
}

#[test]
fn a_zone_of_knot_is_followed() {
    follows(Make::Knot);
}

#[test]
fn a_zone_of_bind_is_followed() {
    follows(Make::Bind);
}

#[test]
fn mistakes_about_transfers_are_told_with_their_places() {
    let place = Place::new();
    let dns = "  zones:\n    a.test: { transfers: {} }\n    \
               b.test: { ns: [ns1.b.test], transfers: { to: [192.0.2.0/24], tsig: [transfer.exampel] } }\n    \
               c.test: { secondary_of: { primaries: [nowhere] }, records: [] }\n";
    let path = place.write("sealane.yaml", &config(dns));
    let output = sealane(&["check", path.to_str().unwrap()]);
    let said = [text(&output.stdout), text(&output.stderr)].concat();

    assert!(!output.status.success());
    for part in [
        "nothing says who may have the zone",
        "there is no key `transfer.exampel`",
        "did you mean `transfer.example`?",
        "`nowhere` is no address",
        "a secondary zone has no `records` of its own",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert!(!Path::new(SECRET).exists() && !said.contains(SECRET));
}
