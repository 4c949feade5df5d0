//! What the name server answers, told as scripts: one file of `scenarios/` for each rule.
//!
//! The language is described in `scenario/mod.rs`. Each answer comes from the engine, each world
//! from control's own core on a virtual clock; nothing here opens a socket or waits.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod scenario;
#[path = "../../control/tests/world/mod.rs"]
mod world;

use std::path::PathBuf;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn play(name: &str) {
    let report = scenario::play(&directory().join(name).with_extension("scn"));
    assert!(report.failures.is_empty(), "\n{}", report.failures);
    assert!(report.checks > 0, "{name} asks nothing");
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                play(stringify!($name));
            }
        )*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

scenarios! {
    alias_records
    aliases
    all_down
    areas
    canary
    capacity
    client_subnets
    delegations
    dname
    edns_and_sizes
    extended_errors
    failover
    identity
    learned
    names_and_absences
    records
    steered_hosts
    steered_https
    steering
    wildcards
}

/// A file that no test plays would rot, and the whole should not become thin unnoticed.
#[test]
fn every_script_is_played_and_together_they_ask_enough() {
    let mut checks = 0;
    for entry in std::fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(NAMES.contains(&&*name), "{name} is played by no test");
        checks += scenario::play(&path).checks;
    }
    assert!(checks >= CHECKS_LEAST, "{checks} checks");
    println!("{checks} checks");
}

/// Questions with their expected answers, over all scripts.
const CHECKS_LEAST: usize = 450;

#[test]
fn what_is_not_as_expected_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.scn");
    let script = "ZONE example.test\n    @ 60 SOA ns h 1 2 3 4 5\n    www A 192.0.2.1\n\n\
                  ASK www A\n    noerror aa\n    answer www 300 A 192.0.2.2\n\
                  ASK www A\n    nxdomain aa\nFLY away\n";
    std::fs::write(&path, script).unwrap();
    let report = scenario::play(&path);
    let lines: Vec<&str> = report
        .failures
        .lines()
        .filter(|l| !l.starts_with(' '))
        .collect();
    let begins = |line: &str, with: &str| line.split_once(".scn:").unwrap().1.starts_with(with);

    assert_eq!((report.checks, lines.len()), (2, 3), "{}", report.failures);
    assert!(begins(
        lines[0],
        "5: expected answer www.example.test. 300 A 192.0.2.2, got noerror"
    ));
    assert!(begins(lines[1], "9: expected nxdomain aa, got noerror aa"));
    assert!(begins(lines[2], "10: FLY is no verb"));
}
