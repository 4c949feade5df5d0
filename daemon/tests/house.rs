//! The house keeps its shape: who may depend on whom, and where foreign types may appear.
//!
//! Reads manifests and sources as text; runs nothing.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms and what they must never depend on (`ARCHITECTURE.md`, "Direction").
const NEVER: [(&str, &[&str]); 8] = [
    (
        "model",
        &[
            "serde",
            "pingora-core",
            "pingora-http",
            "hickory-server",
            "hickory-proto",
            "rustls",
            "sealane-steering",
            "sealane-proxy",
            "sealane-dns",
            "sealane-control",
        ],
    ),
    (
        "steering",
        &[
            "tokio",
            "serde",
            "sealane-proxy",
            "sealane-dns",
            "sealane-control",
            "rand",
        ],
    ),
    (
        "tls",
        &[
            "tokio",
            "serde",
            "sealane-steering",
            "sealane-proxy",
            "sealane-dns",
            "sealane-control",
        ],
    ),
    (
        "proxy",
        &[
            "sealane-dns",
            "sealane-control",
            "serde",
            "hickory-server",
            "hickory-proto",
        ],
    ),
    (
        "dns",
        &[
            "sealane-proxy",
            "sealane-control",
            "serde",
            "pingora-core",
            "pingora-http",
        ],
    ),
    (
        "control",
        &[
            "sealane-proxy",
            "sealane-dns",
            "pingora-core",
            "pingora-http",
        ],
    ),
    (
        "acme",
        &[
            "sealane-steering",
            "sealane-proxy",
            "sealane-dns",
            "sealane-control",
            "pingora-core",
            "pingora-http",
        ],
    ),
    (
        "testkit",
        &[
            "sealane",
            "sealane-proxy",
            "sealane-dns",
            "sealane-control",
            "sealane-acme",
        ],
    ),
];

/// Frameworks and the only files that may name them (BORDER files).
const BORDERS: [(&str, &[&str]); 6] = [
    (
        "pingora_core",
        &[
            "proxy/src/http/border.rs",
            "proxy/src/http/client.rs",
            // A test: the reference that our codec is held against.
            "proxy/src/h1/differential.rs",
        ],
    ),
    ("quinn", &["dns/src/serve/quic.rs"]),
    ("hickory_resolver", &["dns/src/serve/resolver.rs"]),
    (
        "instant_acme",
        &[
            "acme/src/account.rs",
            "acme/src/directory.rs",
            "acme/src/order.rs",
        ],
    ),
    ("maxminddb", &["steering/src/geo/mmdb.rs"]),
    (
        "domain",
        &[
            "dns/src/transfer/desk.rs",
            "dns/src/transfer/incoming.rs",
            "dns/src/transfer/key.rs",
            "dns/src/transfer/message.rs",
            "dns/src/transfer/sending.rs",
        ],
    ),
];

#[test]
fn dependencies_only_point_down() {
    for (room, never) in NEVER {
        let used = dependencies(&root().join(room).join("Cargo.toml"));
        for name in never {
            assert!(!used.contains(*name), "{room} must not depend on {name}");
        }
    }
}

#[test]
fn every_source_file_opens_by_saying_what_it_does() {
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("//!"),
            "{} does not begin with //!",
            file.display()
        );
    }
}

#[test]
fn foreign_types_stop_at_the_border_files() {
    for file in sources() {
        let path = relative(&file);
        let text = fs::read_to_string(&file).unwrap();
        for (framework, borders) in BORDERS {
            let inside = borders.contains(&path.as_str()) || is_test(&path);
            let named = text
                .lines()
                .any(|line| code_of(line).contains(&format!("{framework}::")));
            assert!(
                inside || !named,
                "{path} names {framework}, which belongs in {borders:?}"
            );
        }
    }
}

#[test]
fn only_the_file_s_reader_knows_how_the_file_is_spelled() {
    for file in sources() {
        let path = relative(&file);
        let text = fs::read_to_string(&file).unwrap();
        let parses = text
            .lines()
            .any(|line| code_of(line).contains("saphyr_parser::"));
        assert!(
            !parses || path.starts_with("daemon/src/config/") || is_test(&path),
            "{path} parses YAML"
        );
    }
}

/// Tests may hold foreign types against ours.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// A line without its comment.
fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Names under `[dependencies]`: development dependencies may point anywhere.
fn dependencies(manifest: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(manifest).unwrap();
    let lines = text
        .lines()
        .skip_while(|line| line.trim() != "[dependencies]")
        .skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split(['.', '=', ' ']).next());
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn relative(file: &Path) -> String {
    file.strip_prefix(root())
        .unwrap()
        .to_string_lossy()
        .into_owned()
}

fn sources() -> Vec<PathBuf> {
    let rooms = [
        "model",
        "steering",
        "tls",
        "proxy",
        "dns",
        "control",
        "acme",
        "daemon",
        "testkit",
        "loadtests",
    ];
    let mut found = Vec::new();
    for room in rooms {
        collect(&root().join(room), &mut found);
    }
    assert!(found.len() > 50, "the sources were not found");
    found
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
