//! Names with the addresses of another name, which a real resolver path finds: another name server on loopback,
//! asked over its own socket. Judged by `dig`, and by `delv` where the zone is signed.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use sealane_dns::config::{AliasName, Dnssec, Zone};
use sealane_dns::dnssec::chain::Denial;
use sealane_dns::dnssec::key::{Algorithm, Key, Role};
use sealane_dns::dnssec::key_file::ds_text;
use sealane_dns::dnssec::timing::Times;
use sealane_dns::name::Name;
use sealane_dns::record::parse_zone_file;
use sealane_dns::{Config, Deps, Dns, Options};
use sealane_model::publish::snapshot_channel;
use sealane_model::{SnapshotWriter, Ttl};
use sealane_steering::GeoTable;
use sealane_testkit::World;

/// Turns of a tenth of a second: long enough for a busy machine.
const TURNS_MAX: usize = 600;

fn wait_until(mut holds: impl FnMut() -> Result<(), String>) {
    let mut last = String::new();
    for _ in 0..TURNS_MAX {
        match holds() {
            Ok(()) => return,
            Err(got) => last = got,
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{last}");
}

fn name(text: &str) -> Name {
    Name::parse(text, None).unwrap()
}

fn zone(apex: &str, text: &str) -> Zone {
    let apex = name(apex);
    let text = format!("@ 60 SOA ns host 1 2 3 4 5\n@ 60 NS ns\nns 60 A 192.0.2.53\n{text}");
    let file = parse_zone_file(&text, &apex, Ttl::from_secs(60)).unwrap();
    Zone::new(apex, file.soa.unwrap(), file.records)
}

fn config(zones: Vec<Zone>, resolvers: &[SocketAddr]) -> Config {
    let mut config = Config::new(zones, Arc::new(GeoTable::empty()));
    config.bind = vec!["127.0.0.1:0".parse().unwrap()];
    config.resolvers = resolvers.to_vec();
    config
}

struct Server {
    dns: Dns,
    _world: SnapshotWriter,
}

impl Server {
    fn start(config: Config) -> Self {
        let (writer, world) = snapshot_channel(World::new().build());
        let workers = NonZeroUsize::MIN;
        let dns = Dns::bind(config, Deps { world }, Options { workers }).unwrap();
        dns.start().unwrap();
        Self {
            dns,
            _world: writer,
        }
    }

    fn address(&self) -> SocketAddr {
        self.dns.addresses()[0]
    }

    fn reload(&self, zones: Vec<Zone>, resolvers: &[SocketAddr]) {
        let mut config = config(zones, resolvers);
        // The address that it has stays.
        config.bind = vec!["127.0.0.1:0".parse().unwrap()];
        let prepared = self.dns.prepare(config).unwrap();
        self.dns.replace_rules(prepared);
    }

    fn dig(&self, words: &[&str]) -> String {
        let address = self.address();
        let output = Command::new("dig")
            .arg(format!("@{}", address.ip()))
            .args(["-p", &address.port().to_string(), "+tries=1", "+time=5"])
            .args(words)
            .output()
            .expect("dig is needed (Debian: bind9-dnsutils)");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The data of an answer's records, in order.
    fn answers(&self, owner: &str, kind: &str) -> Vec<String> {
        let said = self.dig(&["+short", owner, kind]);
        let mut lines: Vec<_> = said.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn wait_for(&self, owner: &str, kind: &str, expected: &[&str]) {
        wait_until(|| {
            let got = self.answers(owner, kind);
            (got == expected)
                .then_some(())
                .ok_or_else(|| format!("{got:?}"))
        });
    }
}

/// What is elsewhere: `lb` by way of a CNAME, with a TTL of 1 s.
fn elsewhere(address: &str) -> Zone {
    let text = format!("lb 300 CNAME real\nreal 1 A {address}\nreal 300 AAAA 2001:db8::7\n");
    zone("example.net", &text)
}

fn alias(owner: &str) -> AliasName {
    AliasName {
        owner: name(owner),
        target: name("lb.example.net"),
        ttl: Ttl::from_secs(30),
    }
}

fn ours() -> Zone {
    let mut ours = zone("example.test", "www CNAME @\n");
    ours.aliases.push(alias("example.test"));
    ours
}

#[test]
fn a_zones_own_name_follows_another_name_and_keeps_what_is_not_found_anew() {
    let resolver = Server::start(config(vec![elsewhere("203.0.113.7")], &[]));
    let server = Server::start(config(vec![ours()], &[resolver.address()]));

    // Looked up before the first question could come.
    assert_eq!(server.answers("example.test", "A"), ["203.0.113.7"]);
    assert_eq!(server.answers("example.test", "AAAA"), ["2001:db8::7"]);
    let explained = server.dns.explain("example.test", [192, 0, 2, 1].into());
    let explained = explained.unwrap_err().to_string();
    let expected = "example.test has the addresses of lb.example.net, whoever asks: 203.0.113.7 2001:db8::7, found ";
    assert!(explained.starts_with(expected), "{explained}");
    let whole = server.dig(&["example.test", "AAAA"]);
    assert!(whole.contains("flags: qr aa"), "{whole}");
    let ttl = whole.lines().find(|line| line.starts_with("example.test."));
    let ttl: u32 = ttl
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap();
    assert!((1..=30).contains(&ttl), "{whole}");

    resolver.reload(vec![elsewhere("203.0.113.8")], &[]);
    server.wait_for("example.test", "A", &["203.0.113.8"]);
    assert_eq!(
        server.answers("www.example.test", "A"),
        ["203.0.113.8", "example.test."]
    );

    // The target's zone is gone: REFUSED is no reason to forget.
    resolver.reload(vec![zone("example.org", "")], &[]);
    wait_until(|| {
        let said = server.dig(&["example.test", "A"]);
        assert!(said.contains("203.0.113.8"), "{said}");
        said.contains("EDE: 3").then_some(()).ok_or(said)
    });
}

#[test]
fn a_target_that_nobody_finds_is_a_failure_and_no_absence() {
    let resolver = Server::start(config(vec![zone("example.net", "")], &[]));
    let server = Server::start(config(vec![ours()], &[resolver.address()]));

    let said = server.dig(&["example.test", "A"]);
    assert!(
        said.contains("status: SERVFAIL") && said.contains("EDE: 22"),
        "{said}"
    );
    let said = server.dig(&["example.test", "NS"]);
    assert!(said.contains("status: NOERROR"), "{said}");
}

#[test]
fn an_alias_that_comes_with_a_reload_has_its_answers_at_once() {
    let resolver = Server::start(config(vec![elsewhere("203.0.113.7")], &[]));
    let server = Server::start(config(vec![zone("example.test", "")], &[]));
    assert!(server.answers("example.test", "A").is_empty());

    let mut with_more = ours();
    with_more.aliases.push(alias("shop.example.test"));
    server.reload(vec![with_more], &[resolver.address()]);

    assert_eq!(server.answers("example.test", "A"), ["203.0.113.7"]);
    assert_eq!(server.answers("shop.example.test", "A"), ["203.0.113.7"]);
}

#[test]
fn what_an_alias_leads_to_validates_in_a_signed_zone_when_it_changes_too() {
    for denial in [Denial::Nsec, Denial::Compact] {
        let key = Key::generate(
            name("example.test"),
            Role::Entry,
            Algorithm::EcdsaP256,
            Times::default(),
        );
        let key = Arc::new(key.unwrap());
        let mut dnssec = Dnssec::new(vec![key.clone()]);
        dnssec.denial = denial;
        let mut signed = ours();
        signed.aliases.push(alias("*.wild.example.test"));
        signed.dnssec = Some(Arc::new(dnssec));
        let resolver = Server::start(config(vec![elsewhere("203.0.113.7")], &[]));
        let server = Server::start(config(vec![signed], &[resolver.address()]));
        let folder = tempfile::tempdir().unwrap();
        let anchors = folder.path().join("anchors");
        let ds = ds_text(&key);
        let (owner, rest) = ds.split_once(" IN DS ").unwrap();
        let (numbers, digest) = rest.rsplit_once(' ').unwrap();
        let text = format!("trust-anchors {{ {owner} static-ds {numbers} \"{digest}\"; }};\n");
        fs::write(&anchors, text).unwrap();
        let judged = |owner: &str, kind: &str| {
            let address = server.address();
            let output = Command::new("delv")
                .arg(format!("@{}", address.ip()))
                .args(["-p", &address.port().to_string(), "-a"])
                .arg(&anchors)
                .args(["+root=example.test", owner, kind])
                .output()
                .expect("delv is needed (Debian: bind9-dnsutils)");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            said + &String::from_utf8_lossy(&output.stderr)
        };
        for owner in ["example.test", "a.wild.example.test"] {
            for (kind, data) in [("A", "203.0.113.7"), ("AAAA", "2001:db8::7")] {
                let said = judged(owner, kind);
                let is_valid = said.contains("; fully validated") && said.contains(data);
                assert!(is_valid, "{denial:?} {owner} {kind}: {said}");
            }
        }
        let said = judged("example.test", "TXT");
        assert!(said.contains("validated"), "{said}");

        // Of one family alone.
        let only_v4 = zone("example.net", "lb 1 A 203.0.113.9\n");
        resolver.reload(vec![only_v4], &[]);
        server.wait_for("example.test", "A", &["203.0.113.9"]);
        let said = judged("example.test", "A");
        assert!(said.contains("; fully validated"), "{denial:?}: {said}");
        let said = judged("example.test", "AAAA");
        assert!(
            said.contains("negative response, fully validated"),
            "{denial:?}: {said}"
        );
    }
}
