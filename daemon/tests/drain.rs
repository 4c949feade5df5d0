//! SIGTERM: what was accepted finishes, what is new is refused, then the process ends.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use world::{Sealane, text, until};

#[test]
fn a_download_that_began_before_sigterm_arrives_whole_and_new_connections_are_refused() {
    let mut sealane = Sealane::demo(&["--drain=60s"]);
    let size = 64 * 1024 * 1024;
    let url = sealane.url("web", &format!("/bytes/{size}"));
    let download = Command::new("curl")
        .args([
            "-s",
            "--limit-rate",
            "24M",
            "-o",
            "/dev/null",
            "-w",
            "%{size_download} %{time_starttransfer}",
            &url,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    until("the download has begun", || {
        text(&world::curl(&["-s", &sealane.url("admin", "/metrics")]).stdout)
            .lines()
            .any(|line| line.starts_with("sealane_proxy_connections") && !line.ends_with(" 0"))
    });

    sealane.signal("TERM");

    let web = sealane.address("web");
    until("new connections are refused", || {
        TcpStream::connect(web).is_err()
    });
    let output = download.wait_with_output().unwrap();
    assert!(
        text(&output.stdout).starts_with(&size.to_string()),
        "{}",
        text(&output.stdout)
    );
    assert!(sealane.wait().success());
}

#[test]
fn an_idle_program_ends_at_once() {
    let mut sealane = Sealane::demo(&["--drain=60s"]);
    let since = world::now();

    sealane.signal("TERM");

    assert!(sealane.wait().success());
    assert!(
        since.elapsed() < Duration::from_secs(20),
        "{:?}",
        since.elapsed()
    );
}

#[test]
fn at_the_deadline_what_is_left_is_cut() {
    let mut sealane = Sealane::demo(&["--drain=1s"]);
    let size = 1_000_000_000;
    let mut download = TcpStream::connect(sealane.address("web")).unwrap();
    let request = format!("GET /bytes/{size} HTTP/1.1\r\nHost: a\r\n\r\n");
    download.write_all(request.as_bytes()).unwrap();
    let mut begun = [0; 4096];
    download.read_exact(&mut begun).unwrap();

    // Nothing more is read: the download cannot end by itself.
    sealane.signal("TERM");

    assert!(sealane.wait().success());
    let mut rest = Vec::new();
    // An error is the cut, seen as a reset.
    let _ = download.read_to_end(&mut rest);
    assert!(begun.len() + rest.len() < size, "the download was cut");
    assert!(sealane.log().contains("cut"), "and the log says so");
}
