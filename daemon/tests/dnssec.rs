//! A signed zone from its first key to the end of a roll-over, judged by `delv`.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use world::{Sealane, sealane, text, until};

/// TTLs of a second, so that a roll-over takes a few.
const CONFIG: &str = r#"
version: 1
regions:
  frankfurt: { location: [50.1, 8.7] }
  virginia: { location: [39.0, -77.5] }
pools:
  api:
    regions:
      frankfurt: { addresses: [192.0.2.10], endpoints: [{ address: "127.0.0.1:9" }] }
      virginia: { addresses: [192.0.2.20], endpoints: [{ address: "127.0.0.1:9" }] }
    failover: { all_down: fail_open }
dns:
  bind: ["127.0.0.1:0"]
  dnssec: { key_dir: keys, propagation: 0s }
  zones:
    example.test:
      soa: { ttl: 1s, minimum: 1s }
      ns: [ns1.example.test]
      ttl: 1s
      records: [{ name: ns1, type: A, value: 192.0.2.53 }]
      steered: { api: { pool: api, ttl: 1s, ttl_suspect: 1s } }
      dnssec: { key_ttl: 1s, ds_ttl: 1s, longest_ttl: 1s, validity: 1h }
admin: { bind: ["127.0.0.1:0"] }
node: { first_round_limit: 0s }
"#;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("sealane.yaml"), CONFIG).unwrap();
        Self { dir }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("sealane.yaml")
    }

    fn keys(&self, arguments: &[&str]) -> (bool, String) {
        let config = self.config();
        let mut all = vec!["dnssec", "--config", config.to_str().unwrap()];
        all.extend_from_slice(arguments);
        let output = sealane(&all);
        let said = [text(&output.stdout), text(&output.stderr)].concat();
        (output.status.success(), said)
    }

    fn done(&self, arguments: &[&str]) -> String {
        let (success, said) = self.keys(arguments);
        assert!(success, "{arguments:?}: {said}");
        said
    }

    /// What `delv` says of an answer when it trusts the DS records that the parent would have.
    fn judged(&self, server: SocketAddr, ds: &str, name: &str, kind: &str) -> String {
        let anchors = self.dir.path().join("anchors");
        fs::write(&anchors, anchors_of(ds)).unwrap();
        let output = Command::new("delv")
            .arg(format!("@{}", server.ip()))
            .args(["-p", &server.port().to_string(), "-a"])
            .arg(&anchors)
            .args(["+root=example.test", name, kind])
            .output()
            .expect("delv is needed (Debian: bind9-dnsutils)");
        let said = text(&output.stdout);
        let judgement = said.lines().find(|line| line.ends_with("validated"));
        judgement.map_or_else(|| text(&output.stderr), str::to_owned)
    }

    fn assert_valid(&self, server: SocketAddr, ds: &str, when: &str) {
        for (name, kind, expected) in [
            ("api.example.test", "A", "; fully validated"),
            (
                "api.example.test",
                "AAAA",
                "; negative response, fully validated",
            ),
            (
                "no.example.test",
                "A",
                "; negative response, fully validated",
            ),
            ("example.test", "DNSKEY", "; fully validated"),
        ] {
            let said = self.judged(server, ds, name, kind);
            assert_eq!(said, expected, "{when}: {name} {kind}");
        }
    }
}

fn anchors_of(ds: &str) -> String {
    let lines = ds.lines().filter(|line| line.contains(" IN DS "));
    let anchors = lines.map(|line| {
        let (zone, rest) = line.split_once(" IN DS ").unwrap();
        let (numbers, digest) = rest.rsplit_once(' ').unwrap();
        format!("{zone} static-ds {numbers} \"{digest}\"; ")
    });
    format!("trust-anchors {{ {} }};\n", anchors.collect::<String>())
}

/// The tags of those keys in the list that sign what `word` says.
fn signing(list: &str, word: &str) -> Vec<String> {
    let rows = list
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let tags = rows
        .filter(|row| row.get(2) == Some(&word))
        .map(|row| row[0].to_owned());
    tags.collect()
}

#[test]
fn a_zone_is_signed_from_its_first_key_through_a_roll_over() {
    let place = Place::new();
    let check = sealane(&["check", place.config().to_str().unwrap()]);
    let complaint = text(&check.stderr);
    assert!(
        complaint.contains("sealane dnssec keygen example.test"),
        "{complaint}"
    );

    place.done(&["keygen", "example.test"]);
    let ds = place.done(&["ds", "example.test"]);
    let server = Sealane::run(&place.config(), &["dns"]);
    let dns = server.address("dns");
    place.assert_valid(dns, &ds, "at first");

    // Without its keys the file is refused, and what was served is served on.
    let (keys, aside) = (
        place.dir.path().join("keys"),
        place.dir.path().join("aside"),
    );
    fs::rename(&keys, &aside).unwrap();
    server.signal("HUP");
    until("the file is refused", || {
        server.log().contains("there is no key for example.test")
    });
    place.assert_valid(dns, &ds, "without key files");
    fs::rename(&aside, &keys).unwrap();

    roll_over(&place, dns, &ds);
}

fn roll_over(place: &Place, dns: SocketAddr, old_ds: &str) {
    let old = signing(&place.done(&["list", "example.test"]), "all");
    let said = place.done(&["roll", "example.test"]);
    let (early, why) = place.keys(&["roll", "example.test"]);
    assert!(!early && why.contains("under way"), "{why}");
    until("the new key is served", || served_keys(dns) == 2);
    place.assert_valid(dns, old_ds, "while the new key is published");
    until("the new key signs the zone", || {
        signing(&place.done(&["list", "example.test"]), "keys") == old
    });
    place.assert_valid(dns, old_ds, "before the parent has the new DS");
    place.assert_valid(dns, &said, "once the parent has the new DS");
    until("the new DS may be seen", || {
        place.keys(&["ds-seen", "example.test"]).0
    });
    until("the old key is gone", || served_keys(dns) == 1);
    let new_ds = place.done(&["ds", "example.test"]);
    assert_eq!(anchors_of(&new_ds), anchors_of(&said));
    place.assert_valid(dns, &new_ds, "at the end");
}

fn served_keys(dns: SocketAddr) -> usize {
    let lines = world::dig(dns, &["example.test", "DNSKEY"]);
    lines.len()
}

#[test]
fn keys_of_bind_are_served_and_theirs_are_ours() {
    let place = Place::new();
    let keys = place.dir.path().join("keys");
    fs::create_dir(&keys).unwrap();
    make_with_bind(&keys);
    let ds = place.done(&["ds", "example.test"]);
    let server = Sealane::run(&place.config(), &["dns"]);
    place.assert_valid(server.address("dns"), &ds, "with keys of BIND");

    let ours = place.done(&["keygen", "example.test", "--algorithm", "ed25519"]);
    let stem = ours.trim();
    let settime = Command::new("dnssec-settime")
        .args(["-p", "P", stem])
        .output()
        .unwrap();
    assert!(settime.status.success(), "{}", text(&settime.stderr));
    let digest = Command::new("dnssec-dsfromkey")
        .args(["-2", stem])
        .output()
        .unwrap();
    let theirs = text(&digest.stdout);
    let list = place.done(&["ds", "example.test"]);
    assert!(list.contains(theirs.trim()), "{list}\n{theirs}");
}

fn make_with_bind(keys: &Path) {
    let kinds: [&[&str]; 2] = [&["-f", "KSK"], &[]];
    for kind in kinds {
        let made = Command::new("dnssec-keygen")
            .args(["-q", "-a", "ECDSAP256SHA256", "-K"])
            .arg(keys)
            .args(kind)
            .arg("example.test")
            .output()
            .expect("dnssec-keygen is needed (Debian: bind9-utils)");
        assert!(made.status.success(), "{}", text(&made.stderr));
    }
}
