//! DNS over TLS, HTTPS and QUIC in the running program: certificates are renewed, and an upgrade hands the sockets on.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use std::fs;
use std::path::Path;
use std::process::Command;

use sealane_testkit::{Authority, Issued};
use world::{Sealane, text, until};

const LISTENERS: &[&str] = &["dns", "dns-tls", "dns-https", "dns-quic", "admin"];
const CONFIG: &str = r#"
version: 1
pools:
  api:
    regions:
      us-east-1: { addresses: [192.0.2.20], endpoints: [{ address: "127.0.0.1:9" }] }
    failover: { all_down: fail_open }
dns:
  bind: ["127.0.0.1:0"]
  tls: { bind: ["127.0.0.1:0"], certificates: [{ chain: ns1.pem, key: ns1.key }] }
  https: { bind: ["127.0.0.1:0"], path: /ask, certificates: [{ chain: ns1.pem, key: ns1.key }] }
  quic: { bind: ["127.0.0.1:0"], certificates: [{ chain: ns1.pem, key: ns1.key }] }
  zones:
    example.test:
      ns: [ns1.example.test]
      records: [{ name: ns1, type: A, value: 192.0.2.53 }]
      steered: { api: { pool: api } }
admin: { bind: ["127.0.0.1:0"] }
node: { first_round_limit: 0s }
"#;

fn renew(folder: &Path, issued: &Issued) {
    for (name, content) in [("ns1.pem", &issued.chain), ("ns1.key", &issued.key)] {
        let new = folder.join("new");
        fs::write(&new, content).unwrap();
        fs::rename(new, folder.join(name)).unwrap();
    }
}

/// What `kdig` says that trusts nobody but `ca`.
fn kdig(sealane: &Sealane, ca: &Path, way: &str) -> String {
    let listener = match way {
        "+tls" => "dns-tls",
        "+quic" => "dns-quic",
        _ => "dns-https",
    };
    let port = sealane.address(listener).port().to_string();
    let ca = format!("+tls-ca={}", ca.display());
    let host = "+tls-hostname=ns1.example.test";
    let output = Command::new("kdig")
        .args([
            "@127.0.0.1",
            "-p",
            &port,
            &ca,
            host,
            // Last: the options before it ask for TLS over TCP.
            way,
            "api.example.test",
        ])
        .output()
        .expect("kdig is needed (Debian: knot-dnsutils)");
    [text(&output.stdout), text(&output.stderr)].concat()
}

fn is_answered(sealane: &Sealane, ca: &Path) -> bool {
    let mut ways = ["+tls", "+https=/ask", "+quic"].into_iter();
    ways.all(|way| kdig(sealane, ca, way).contains("192.0.2.20"))
}

#[test]
fn certificates_are_renewed_and_sockets_outlive_an_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let authority = |name: &str| {
        let authority = Authority::new(name);
        let file = path.join(name);
        fs::write(&file, authority.pem()).unwrap();
        (authority, file)
    };
    let ((first, first_file), (second, second_file)) = (authority("one"), authority("two"));
    let (third, third_file) = authority("three");
    renew(path, &first.issue("first", &["ns1.example.test"]));
    let config = path.join("sealane.yaml");
    fs::write(&config, CONFIG).unwrap();
    let mut sealane = Sealane::run(&config, LISTENERS);
    assert!(is_answered(&sealane, &first_file), "{}", sealane.log());
    assert!(!is_answered(&sealane, &second_file));

    renew(path, &second.issue("second", &["ns1.example.test"]));
    until("the renewed certificate", || {
        is_answered(&sealane, &second_file)
    });

    // Beside a mistake in the file, too.
    fs::write(&config, format!("{CONFIG}mistake: 1\n")).unwrap();
    sealane.wait_log("mistake");
    renew(path, &third.issue("third", &["ns1.example.test"]));
    until("a certificate beside a mistake", || {
        is_answered(&sealane, &third_file)
    });

    fs::write(&config, CONFIG).unwrap();
    sealane.wait_log("new rules serve");
    let old = sealane.upgrade();
    sealane.wait_gone(old);
    assert!(is_answered(&sealane, &third_file), "{}", sealane.log());
}
