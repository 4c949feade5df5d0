//! The running program's proxy teaches its name server how far clients are.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use std::fs;
use std::net::TcpStream;

use sealane_testkit::mmdb::{Record, table};
use world::{Sealane, dig, sealane, text, until};

const LISTENERS: &[&str] = &["web", "dns", "admin"];
const CONFIG: &str = r#"
version: 1
node: { name: eu-1, region: eu-central-1, first_round_limit: 0s }
pools:
  api:
    regions:
      eu-central-1: { addresses: [192.0.2.10], endpoints: [{ address: "127.0.0.1:9" }] }
      ap-southeast-2: { addresses: [192.0.2.30], endpoints: [{ address: "127.0.0.1:9" }] }
    steering: { policy: nearest }
    failover: { all_down: fail_open }
listeners:
  web: { bind: ["127.0.0.1:0"], protocol: http }
routes: [{ pool: api }]
dns:
  bind: ["127.0.0.1:0"]
  geo: { database: geo.mmdb, learn: LEARN }
  zones:
    example.test:
      ns: [ns1.example.test]
      records: [{ name: ns1, type: A, value: 192.0.2.53 }]
      steered: { api: { pool: api } }
admin: { bind: ["127.0.0.1:0"] }
"#;

fn run(folder: &std::path::Path, learn: &str) -> Sealane {
    // Whoever answers a handshake in microseconds is not in Sydney.
    let map = table(&[("127.0.0.0/8", Record::At(-33.87, 151.21))]);
    fs::write(folder.join("geo.mmdb"), map).unwrap();
    let config = folder.join("sealane.yaml");
    fs::write(&config, CONFIG.replace("LEARN", learn)).unwrap();
    Sealane::run(&config, LISTENERS)
}

fn answer(sealane: &Sealane) -> Vec<String> {
    dig(sealane.address("dns"), &["api.example.test"])
}

fn connect(sealane: &Sealane, times: usize) {
    for _ in 0..times {
        TcpStream::connect(sealane.address("web")).unwrap();
    }
}

#[test]
fn connections_that_are_too_fast_for_the_map_correct_it() {
    let folder = tempfile::tempdir().unwrap();
    let sealane = run(folder.path(), "true");
    assert_eq!(answer(&sealane), ["192.0.2.30"], "as the map has it");

    connect(&sealane, 20);

    until("the map is corrected", || {
        answer(&sealane) == ["192.0.2.10"]
    });
    let admin = format!("http://{}", sealane.address("admin"));
    let explained = self::sealane(&[
        "explain",
        "--dns",
        "api.example.test",
        "--client",
        "127.0.0.1",
        "--admin",
        &admin,
    ]);
    let explained = text(&explained.stdout);
    assert!(explained.contains("learned"), "{explained}");
    let metrics = world::curl(&[&format!("{admin}/metrics")]);
    let metrics = text(&metrics.stdout);
    assert!(
        metrics.contains("sealane_control_client_corrections{kind=\"near\"} 1"),
        "{metrics}"
    );
}

#[test]
fn nothing_is_learned_where_the_operator_does_not_want_it() {
    let folder = tempfile::tempdir().unwrap();
    let sealane = run(folder.path(), "false");
    connect(&sealane, 20);
    // Longer than what is noted waits.
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert_eq!(answer(&sealane), ["192.0.2.30"]);
}
