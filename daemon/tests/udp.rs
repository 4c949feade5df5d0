//! A UDP listener of the real program between real clients and servers: dig and a name server, socat
//! and socat.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use sealane_testkit::port::free_port;
use serde_json::Value;
use world::{Sealane, text, until};

/// A name server: what the relay's clients ask in the end. `long` does not fit a small datagram.
fn name_server(folder: &Path) -> Sealane {
    let mut texts = String::new();
    for number in 0..4 {
        write!(texts, "\"{}{number}\", ", "x".repeat(200)).unwrap();
    }
    let file = folder.join("names.yaml");
    let yaml = format!(
        "version: 1
admin: {{ bind: \"127.0.0.1:0\" }}
dns:
  bind: \"127.0.0.1:0\"
  zones:
    relay.test:
      ns: ns1.relay.test
      records:
        - {{ name: ns1, type: A, value: 127.0.0.1 }}
        - {{ name: www, type: A, value: 192.0.2.1 }}
        - {{ name: long, type: TXT, values: [{texts}] }}
"
    );
    std::fs::write(&file, yaml).unwrap();
    Sealane::run(&file, &["dns", "admin"])
}

fn relay(folder: &Path, endpoint: SocketAddr, probed: SocketAddr, more: &str) -> Sealane {
    let file = folder.join("relay.yaml");
    let yaml = format!(
        "version: 1
admin: {{ bind: \"127.0.0.1:0\" }}
pools:
  resolvers:
    regions: {{ us-east-1: {{ endpoints: [{{ address: \"{endpoint}\" }}] }} }}
    probe: {{ tcp: {{}}, port: {} }}
listeners:
  names: {{ bind: \"127.0.0.1:0\", protocol: udp, pool: resolvers{more} }}
",
        probed.port()
    );
    std::fs::write(&file, yaml).unwrap();
    Sealane::run(&file, &["names", "admin"])
}

fn metric(sealane: &Sealane, line: &str) -> Option<String> {
    let metrics = text(&world::curl(&["-s", &sealane.url("admin", "/metrics")]).stdout);
    let found = metrics.lines().find_map(|each| each.strip_prefix(line));
    found.map(|value| value.trim().to_owned())
}

#[test]
fn dig_asks_a_name_server_through_the_relay() {
    let folder = tempfile::tempdir().unwrap();
    let names = name_server(folder.path());
    let server = names.address("dns");
    let mut relay = relay(folder.path(), server, server, ", flows: { answers: 1 }");
    let at = relay.address("names");

    for _ in 0..20 {
        assert_eq!(world::dig(at, &["www.relay.test", "A"]), ["192.0.2.1"]);
    }
    let long = world::dig(at, &["+notcp", "+bufsize=1232", "long.relay.test", "TXT"]);
    assert_eq!(long.len(), 4);

    let line = relay.wait_log("\"end\":\"answered\"");
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["target"], "sealane::access");
    assert_eq!(
        (&line["protocol"], &line["listener"]),
        (&"udp".into(), &"names".into())
    );
    assert_eq!(
        (&line["pool"], &line["region"]),
        (&"resolvers".into(), &"us-east-1".into())
    );
    assert_eq!(
        (&line["datagrams_received"], &line["datagrams_sent"]),
        (&1.into(), &1.into())
    );
    let opened = metric(&relay, "sealane_proxy_flows_total{listener=\"names\"}");
    assert_eq!(opened.as_deref(), Some("21"));
    until("every flow has ended", || {
        metric(&relay, "sealane_proxy_flows{listener=\"names\"}").as_deref() == Some("0")
    });
    relay.signal("TERM");
    assert!(relay.wait().success());
}

/// Ends with the test.
struct Socat(Child);

impl Socat {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new("socat")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Socat {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn socat_talks_to_socat_through_the_relay() {
    let folder = tempfile::tempdir().unwrap();
    let names = name_server(folder.path());
    let endpoint = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let listen = format!("UDP4-LISTEN:{},bind=127.0.0.1", endpoint.port());
    let mut server = Socat::start(&["-u", &listen, "STDOUT"]);
    until("socat listens", || UdpSocket::bind(endpoint).is_err());
    let relay = relay(folder.path(), endpoint, names.address("dns"), "");

    let mut client = Socat::start(&["-", &format!("UDP4:{}", relay.address("names"))]);
    let mut into = client.0.stdin.take().unwrap();
    let mut from = BufReader::new(server.0.stdout.take().unwrap());
    for line in ["hello\n", "again\n"] {
        into.write_all(line.as_bytes()).unwrap();
        let mut heard = String::new();
        from.read_line(&mut heard).unwrap();
        assert_eq!(heard, line);
    }
    let opened = metric(&relay, "sealane_proxy_flows_total{listener=\"names\"}");
    assert_eq!(opened.as_deref(), Some("1"));
}
