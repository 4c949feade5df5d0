//! What the running program tells of its questions: lines of the query log, counters by zone, and of an alias how
//! it stands.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use std::fs;

use serde_json::Value;
use world::{Sealane, curl, dig, text};

const LISTENERS: &[&str] = &["dns", "admin"];
const CONFIG: &str = r#"
version: 1
pools:
  api:
    regions:
      us-east-1: { addresses: [192.0.2.20], endpoints: [{ address: "127.0.0.1:9" }] }
    failover: { all_down: fail_open }
dns:
  bind: ["127.0.0.1:0"]
  resolvers: ["127.0.0.1:9"]
  query_log: { sample: 100% }
  zones:
    example.test:
      ns: [ns1.example.test]
      records: [{ name: ns1, type: A, value: 192.0.2.53 }]
      steered: { api: { pool: api } }
      aliases: { "@": { to: pages.example.net } }
admin: { bind: ["127.0.0.1:0"] }
node: { first_round_limit: 0s }
"#;

#[test]
fn questions_are_logged_counted_by_zone_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sealane.yaml");
    fs::write(&config, CONFIG).unwrap();
    let mut sealane = Sealane::run(&config, LISTENERS);
    let server = sealane.address("dns");

    assert_eq!(dig(server, &["api.example.test", "A"]), ["192.0.2.20"]);
    assert!(dig(server, &["nowhere.example.test", "TXT", "+tcp"]).is_empty());
    assert!(dig(server, &["www.example.com", "A"]).is_empty());

    let line: Value = serde_json::from_str(&sealane.wait_log("\"api.example.test\"")).unwrap();
    assert_eq!(line["target"], "sealane::query");
    for (key, expected) in [
        ("transport", "udp"),
        ("type", "A"),
        ("zone", "example.test"),
        ("code", "noerror"),
        ("region", "us-east-1"),
    ] {
        assert_eq!(line[key], expected, "{line}");
    }
    assert!(
        line["client"].as_str().unwrap().starts_with("127.0.0.1:"),
        "{line}"
    );
    let line: Value = serde_json::from_str(&sealane.wait_log("\"nowhere.example.test\"")).unwrap();
    let seen = [&line["transport"], &line["type"], &line["code"]];
    assert_eq!(seen, ["tcp", "TXT", "nxdomain"], "{line}");
    let line: Value = serde_json::from_str(&sealane.wait_log("\"www.example.com\"")).unwrap();
    assert_eq!(
        (&line["zone"], &line["code"]),
        (&Value::Null, &"refused".into()),
        "{line}"
    );

    let metrics = text(&curl(&["-s", &sealane.url("admin", "/metrics")]).stdout);
    for counter in [
        r#"sealane_dns_zone_answers_total{zone="example.test",transport="udp",code="noerror"} 1"#,
        r#"sealane_dns_zone_answers_total{zone="example.test",transport="tcp",code="nxdomain"} 1"#,
        r#"sealane_dns_zone_answers_total{zone="(none)",transport="udp",code="refused"} 1"#,
    ] {
        assert!(metrics.contains(counter), "{counter}: {metrics}");
    }

    let explained = sealane
        .admin("/v1/explain?dns=example.test&client=192.0.2.1")
        .to_string();
    let expected = "example.test has the addresses of pages.example.net, whoever asks: none is known (SERVFAIL)";
    assert!(explained.contains(expected), "{explained}");
}
