//! Certificates are renewed on disk while the program serves: piece by piece, badly, and beside a
//! broken configuration file.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use sealane_testkit::{Authority, Issued};
use world::{Sealane, curl, text};

fn configuration(folder: &Path, streams: u32) {
    let yaml = format!(
        "version: 1
pools: {{ api: {{ regions: {{ us-east-1: {{ endpoints: [{{ address: \"127.0.0.1:9\" }}] }} }} }} }}
listeners:
  secure:
    bind: [\"127.0.0.1:0\"]
    protocol: https
    certificates: [{{ chain: secure.pem, key: secure.key }}]
    tls: {{ client_auth: [{{ for: in.test, ca: clients.pem, crl: clients.crl }}] }}
routes: [{{ match: {{ host: a.test }}, pool: api }}]
limits: {{ streams: {streams} }}
admin: {{ bind: [\"127.0.0.1:0\"] }}
"
    );
    replace(&folder.join("sealane.yaml"), &yaml);
}

/// As renewal programs do: a new file, renamed over the old one.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn renew(folder: &Path, issued: &Issued) {
    replace(&folder.join("secure.pem"), &issued.chain);
    replace(&folder.join("secure.key"), &issued.key);
}

/// The common name of the certificate that is served.
fn served(address: SocketAddr) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-servername", "a.test", "-connect"])
        .arg(address.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = text(&output.stdout);
    let line = printed.lines().find(|line| line.starts_with("subject="));
    line.unwrap_or_else(|| panic!("{printed}"))
        .replace("subject=CN = ", "")
}

fn metric(sealane: &Sealane, name: &str) -> Option<f64> {
    let shown = text(&curl(&["-s", &sealane.url("admin", "/metrics")]).stdout);
    let line = shown.lines().find(|line| line.starts_with(name))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn a_renewed_certificate_serves_and_a_broken_one_does_not_whatever_else_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (authority, clients) = (Authority::new("CA"), Authority::new("clients"));
    let revoked = clients.issue("gone", &[]);
    renew(path, &authority.issue("first", &["a.test", "in.test"]));
    replace(&path.join("clients.pem"), clients.pem());
    replace(&path.join("clients.crl"), &clients.revoke(&[]));
    configuration(path, 100);
    let mut sealane = Sealane::run(&path.join("sealane.yaml"), &["secure", "admin"]);
    let secure = sealane.address("secure");
    assert_eq!(served(secure), "first");
    let series = "sealane_tls_certificate_not_after_timestamp_seconds{kind=\"listener\",source=\"secure.pem\",subject=\"first\"}";
    assert_eq!(metric(&sealane, series), Some(2_524_608_000.0));
    assert_eq!(
        metric(&sealane, "sealane_tls_certificates_refused"),
        Some(0.0)
    );

    // The chain is there before its key, and the rest of the file changes with it.
    let second = authority.issue("second", &["a.test"]);
    replace(&path.join("secure.pem"), &second.chain);
    configuration(path, 101);
    let warning = sealane.wait_log("what it was before goes on serving");
    assert!(
        warning.contains("does not belong to the certificate"),
        "{warning}"
    );
    sealane.wait_log("new rules serve");
    assert_eq!(served(secure), "first");
    let refused = "sealane_tls_certificates_refused";
    assert_eq!(metric(&sealane, refused), Some(1.0));

    replace(&path.join("secure.key"), &second.key);
    world::until("the second certificate", || served(secure) == "second");
    assert_eq!(metric(&sealane, refused), Some(0.0));
    assert_eq!(metric(&sealane, series), None, "it is gone");

    // A list that is gone, and one that is half written, leave the one before in place.
    std::fs::remove_file(path.join("clients.crl")).unwrap();
    let warning = sealane.wait_log("clients.crl cannot be read");
    assert!(warning.contains("what it was before goes on"), "{warning}");
    let half = "-----BEGIN X509 CRL-----\nMII\n-----END X509 CRL-----\n";
    replace(&path.join("clients.crl"), half);
    sealane.wait_log("no usable revocation list");
    replace(&path.join("clients.crl"), &clients.revoke(&[&revoked]));
    world::until("the new list", || metric(&sealane, refused) == Some(0.0));

    // The file has a mistake, and the certificate is renewed.
    replace(
        &path.join("sealane.yaml"),
        "version: 1\npools: [this is no map\n",
    );
    sealane.wait_log("the old rules go on serving");
    renew(path, &authority.issue("third", &["a.test"]));
    world::until("the third certificate", || served(secure) == "third");
    assert_eq!(
        metric(&sealane, "sealane_config_last_reload_successful"),
        Some(0.0)
    );
}

#[test]
fn what_ends_soon_and_what_has_ended_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (authority, clients) = (Authority::new("CA"), Authority::new("clients"));
    renew(path, &authority.issue_until("ended", &["a.test"], 2025));
    replace(&path.join("clients.pem"), clients.pem());
    replace(&path.join("clients.crl"), &clients.revoke(&[]));
    configuration(path, 100);

    let mut sealane = Sealane::spawn(
        &[
            "run",
            "--config",
            path.join("sealane.yaml").to_str().unwrap(),
        ],
        &[],
    );

    let line = sealane.wait_log("has ended");
    assert!(
        line.contains("\"ERROR\"") && line.contains("secure.pem"),
        "{line}"
    );
}
