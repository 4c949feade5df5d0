//! The first minute with Sealane: the demo, tried with the clients that people have.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use world::{Sealane, curl, dig, sealane, text};

const GIB: u64 = 1024 * 1024 * 1024;
/// What the process may grow by while a GiB passes through: buffers, not bodies.
const GROWTH_MAX: u64 = 64 * 1024 * 1024;

#[test]
fn curl_names_region_and_endpoint_over_every_protocol() {
    let sealane = Sealane::demo(&[]);
    let (web, secure) = (sealane.url("web", "/"), sealane.url("secure", "/"));

    for (arguments, version) in [
        (vec![web.as_str()], "1.1"),
        (vec!["--http2-prior-knowledge", &web], "2"),
        (vec!["-k", "--http1.1", &secure], "1.1"),
        (vec!["-k", "--http2", &secure], "2"),
    ] {
        let mut all = vec!["-s", "-i", "-w", "\nversion %{http_version}"];
        all.extend(&arguments);
        let answer = text(&curl(&all).stdout);

        assert!(answer.contains(" 200"), "{arguments:?}: {answer}");
        assert!(answer.ends_with(&format!("version {version}")), "{answer}");
        for header in ["x-sealane-region: ", "x-sealane-endpoint: 127.0.1."] {
            assert!(
                answer.to_lowercase().contains(header),
                "{arguments:?}: {answer}"
            );
        }
        assert!(answer.contains("\"region\":\""), "{answer}");
    }
}

#[test]
fn dig_is_answered_by_geography() {
    let sealane = Sealane::demo(&[]);
    let dns = sealane.address("dns");
    let ask = |subnet: &str| {
        dig(
            dns,
            &["api.example.test", "A", &format!("+subnet={subnet}")],
        )
        .first()
        .cloned()
    };

    assert_eq!(
        ask("198.51.100.0/24").as_deref(),
        Some("198.51.100.10"),
        "Europe"
    );
    assert_eq!(
        ask("192.0.2.0/24").as_deref(),
        Some("192.0.2.10"),
        "America, east"
    );
    assert_eq!(
        ask("203.0.113.0/24").as_deref(),
        Some("203.0.113.10"),
        "America, west"
    );
    let over_tcp = dig(
        dns,
        &["+tcp", "api.example.test", "A", "+subnet=198.51.100.0/24"],
    );
    assert_eq!(over_tcp.first().map(String::as_str), Some("198.51.100.10"));
}

#[test]
fn a_gib_streams_down_and_up_with_flat_memory() {
    let sealane = Sealane::demo(&[]);
    let before = sealane.memory();

    let size = GIB.to_string();
    let down = sealane.url("web", &format!("/bytes/{GIB}"));
    let got = curl(&["-s", "-o", "/dev/null", "-w", "%{size_download}", &down]);
    assert_eq!(text(&got.stdout), size);
    let after_down = sealane.memory();

    let gib = tempfile::tempfile().unwrap();
    gib.set_len(GIB).unwrap();
    let up = sealane.url("web", "/upload");
    let sent = std::process::Command::new("curl")
        .args(["-s", "--max-time", "120", "-T", "-", "-H", "Expect:", &up])
        .stdin(gib)
        .output()
        .unwrap();
    assert_eq!(text(&sent.stdout), format!("{{\"received\":{GIB}}}\n"));
    let after_up = sealane.memory();

    println!("resident: {before} before, {after_down} after 1 GiB down, {after_up} after 1 GiB up");
    assert!(
        after_down.saturating_sub(before) < GROWTH_MAX,
        "{before} -> {after_down}"
    );
    assert!(
        after_up.saturating_sub(before) < GROWTH_MAX,
        "{before} -> {after_up}"
    );
}

#[test]
fn the_command_line_shows_status_and_explains_both_sides() {
    let sealane_ = Sealane::demo(&[]);
    let admin = format!("http://{}", sealane_.address("admin"));

    let status = sealane(&["status", "--admin", &admin]);
    let dns = sealane(&[
        "explain",
        "--dns",
        "api.example.test",
        "--client",
        "198.51.100.7",
        "--admin",
        &admin,
    ]);
    let url = sealane(&[
        "explain",
        "--url",
        "http://api.example.test/x",
        "--client",
        "198.51.100.7",
        "--admin",
        &admin,
    ]);
    let health = sealane(&["health", "--admin", &admin]);

    for (output, wanted) in [
        (&status, "eu-central-1"),
        (&dns, "eu-central-1"),
        (&url, "eu-central-1"),
    ] {
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(
            text(&output.stdout).contains(wanted),
            "{}",
            text(&output.stdout)
        );
    }
    assert!(health.status.success());
}

#[test]
fn a_region_that_the_operator_moves_out_is_left_at_once_and_again_used_after_failback() {
    let sealane_ = Sealane::demo(&[]);
    let admin = format!("http://{}", sealane_.address("admin"));
    let dns = sealane_.address("dns");
    let european = || dig(dns, &["api.example.test", "A", "+subnet=198.51.100.0/24"]);

    let dry = sealane(&[
        "failover",
        "--region",
        "eu-central-1",
        "--dry-run",
        "--admin",
        &admin,
    ]);
    assert!(dry.status.success(), "{}", text(&dry.stderr));
    assert_eq!(european(), ["198.51.100.10"], "a dry run changes nothing");

    let out = sealane(&["failover", "--region", "eu-central-1", "--admin", &admin]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    world::until("DNS leaves the region", || european() != ["198.51.100.10"]);
    for _ in 0..30 {
        let answer = text(&curl(&["-s", &sealane_.url("web", "/")]).stdout);
        assert!(!answer.contains("eu-central-1"), "{answer}");
    }

    let back = sealane(&["failback", "--region", "eu-central-1", "--admin", &admin]);
    assert!(back.status.success(), "{}", text(&back.stderr));
    world::until("DNS returns to the region", || {
        european() == ["198.51.100.10"]
    });
}

#[tokio::test]
async fn a_websocket_echoes_small_and_large_messages() {
    use sealane_testkit::http1::Head;
    use sealane_testkit::websocket::{CLIENT_KEY, Kind, accept_of, read, write};
    use tokio::io::{AsyncWriteExt as _, BufReader};

    let sealane = tokio::task::spawn_blocking(|| Sealane::demo(&[]))
        .await
        .unwrap();
    let address = sealane.address("web");
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut stream = BufReader::new(stream);
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {CLIENT_KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = Head::read(&mut stream).await.unwrap().unwrap();
    assert_eq!(head.status(), Some(101), "{head:?}");
    assert_eq!(
        head.field("sec-websocket-accept"),
        Some(accept_of(CLIENT_KEY).as_str())
    );

    for size in [1, 125, 126, 70_000, 1_000_000] {
        let message: Vec<u8> = (0..size).map(|i: u32| i.to_le_bytes()[0]).collect();
        let mask = Some([1, 2, 3, 4]);
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let (sent, echoed) = tokio::join!(
            write(&mut writer, Kind::Binary, &message, mask),
            read(&mut reader)
        );
        sent.unwrap();
        let echoed = echoed.unwrap();
        assert_eq!(
            (echoed.kind, echoed.payload == message),
            (Kind::Binary, true),
            "{size} bytes"
        );
    }
}
