//! What of a head goes on, and what does not.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

const PEER: &str = "203.0.113.7";

fn map(lines: &[(&str, &str)]) -> Fields {
    let mut headers = Fields::new();
    for (name, value) in lines {
        headers.append(*name, value.as_bytes());
    }
    headers
}

fn lines(headers: &Fields, name: &str) -> Vec<String> {
    let lines = headers.all(name);
    lines
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
        .collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

static ID: LazyLock<RequestId> =
    LazyLock::new(|| request_id(&map(&[("x-request-id", "id-1")]), true, 0));
fn stranger() -> Forwarding<'static> {
    Forwarding {
        peer: Box::leak(Box::new(PeerText::new(ip(PEER)))),
        trusted_peer: false,
        scheme: "https",
        request_id: &ID,
        identity: None,
        upgrade: false,
        received: Version::HTTP_11,
    }
}

fn friend() -> Forwarding<'static> {
    Forwarding {
        trusted_peer: true,
        ..stranger()
    }
}

/// For `www.test:8443`, unless another host is given.
fn onward(given: &[(&str, &str)], forwarding: &Forwarding<'_>) -> Fields {
    let mut headers = map(given);
    if !headers.contains("host") {
        headers.append("host", b"www.test:8443");
    }
    toward_endpoint(&mut headers, forwarding);
    headers
}

#[test]
fn what_endpoints_are_told_of_one_request_is_not_what_they_were_told_of_another() {
    let one = stranger();
    let long = "x".repeat(300);
    for (host, scheme, received) in [
        ("a.test", "https", Version::HTTP_11),
        ("a.test", "https", Version::HTTP_11),
        ("b.test", "https", Version::HTTP_11),
        ("b.test", "http", Version::HTTP_11),
        ("b.test", "http", Version::HTTP_2),
        (&*long, "http", Version::HTTP_2),
        ("b.test", "http", Version::HTTP_2),
        ("", "http", Version::HTTP_10),
    ] {
        let known = Forwarding {
            scheme,
            received,
            ..one
        };
        let fresh = Forwarding {
            peer: stranger().peer,
            ..known
        };
        let given = [("host", host), ("accept", "*/*")];
        let (known, fresh) = (onward(&given, &known), onward(&given, &fresh));
        assert!(known.iter().eq(fresh.iter()), "{host}, {known:?}");
        assert_eq!(known.get_str(Known::XForwardedProto), Some(scheme));
    }
}

#[test]
fn fields_of_the_connection_end_here_both_ways() {
    let hop_by_hop = [
        ("connection", "keep-alive, X-Private"),
        ("connection", "x-other ,, close"),
        ("x-private", "1"),
        ("x-other", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic eDp5"),
        ("proxy-authenticate", "Basic"),
        ("te", "deflate"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("x-kept", "1"),
    ];

    let request = onward(&hop_by_hop, &stranger());
    let mut answer = map(&hop_by_hop);
    toward_client(&mut answer, None, &ID, false);

    for headers in [&request, &answer] {
        for (name, _) in hop_by_hop {
            assert_eq!(headers.contains(name), name == "x-kept", "{name}");
        }
    }
    assert_eq!(answer.len(), 2);
}

#[test]
fn what_belongs_to_the_message_passes_as_it_is() {
    let end_to_end = [
        ("accept", "*/*"),
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
        ("content-length", "5"),
        ("content-type", "text/plain"),
        ("cache-control", "no-cache"),
        ("expect", "100-continue"),
        ("trailer", "x-sum"),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
    ];

    let headers = onward(&end_to_end, &stranger());

    for (name, _) in end_to_end {
        assert_eq!(lines(&headers, name), lines(&map(&end_to_end), name));
    }
}

#[test]
fn connection_cannot_name_away_what_the_message_rests_on() {
    let headers = onward(
        &[
            (
                "connection",
                "host, content-length, x-forwarded-for, via, x-request-id, forwarded",
            ),
            ("host", "www.test"),
            ("content-length", "3"),
            ("x-forwarded-for", "192.0.2.1"),
            ("via", "1.1 front"),
        ],
        &friend(),
    );

    assert_eq!(lines(&headers, "host"), ["www.test"]);
    assert_eq!(lines(&headers, "content-length"), ["3"]);
    assert_eq!(lines(&headers, "via"), ["1.1 front", "1.1 sealane"]);
    assert_eq!(
        lines(&headers, "x-forwarded-for"),
        [format!("192.0.2.1, {PEER}")]
    );
    assert_eq!(lines(&headers, "x-request-id"), ["id-1"]);
}

#[test]
fn trailers_are_asked_for_if_the_client_takes_them() {
    let toward = |given: &str| lines(&onward(&[("te", given)], &stranger()), "te");

    assert_eq!(toward("trailers"), ["trailers"]);
    assert_eq!(toward("gzip, Trailers"), ["trailers"]);
    assert!(toward("gzip").is_empty());
}

#[test]
fn a_tunnel_keeps_its_upgrade_and_nothing_else_of_the_connection() {
    let given = [
        ("connection", "keep-alive, Upgrade, x-private"),
        ("upgrade", "websocket"),
        ("x-private", "1"),
        ("sec-websocket-key", "abc"),
    ];
    let forwarding = Forwarding {
        upgrade: true,
        ..stranger()
    };

    let request = onward(&given, &forwarding);
    let mut answer = map(&given);
    toward_client(&mut answer, None, &ID, true);

    for headers in [request, answer] {
        assert_eq!(lines(&headers, "connection"), ["upgrade"]);
        assert_eq!(lines(&headers, "upgrade"), ["websocket"]);
        assert_eq!(lines(&headers, "sec-websocket-key"), ["abc"]);
        assert!(!headers.contains("x-private"));
    }
}

#[test]
fn a_stranger_is_whom_its_connection_comes_from_whatever_it_says() {
    let headers = onward(
        &[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x_forwarded_for", "10.0.0.3"),
            ("x-forwarded_for", "10.0.0.3"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-host", "admin.test"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", "10.0.0.4"),
            ("x_real_ip", "10.0.0.4"),
            ("x-real-ipx", "kept"),
            ("forwarded", "for=10.0.0.5;proto=http"),
            ("x-request-id", "chosen"),
        ],
        &stranger(),
    );

    assert_eq!(lines(&headers, "x-forwarded-for"), [PEER]);
    assert_eq!(lines(&headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(lines(&headers, "x-forwarded-host"), ["www.test:8443"]);
    assert_eq!(
        lines(&headers, "forwarded"),
        [format!("for={PEER};host=\"www.test:8443\";proto=https")]
    );
    assert_eq!(lines(&headers, "x-request-id"), ["id-1"]);
    assert_eq!(lines(&headers, "x-real-ipx"), ["kept"]);
    for gone in [
        "x_forwarded_for",
        "x-forwarded_for",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-real-ip",
        "x_real_ip",
    ] {
        assert!(!headers.contains(gone), "{gone}");
    }
}

#[test]
fn a_trusted_proxy_is_believed_and_added() {
    let headers = onward(
        &[
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.2"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "shop.test"),
            ("x-forwarded-port", "80"),
            ("forwarded", "for=192.0.2.1"),
        ],
        &friend(),
    );

    assert_eq!(
        lines(&headers, "x-forwarded-for"),
        [format!("192.0.2.1, 192.0.2.2, {PEER}")]
    );
    assert_eq!(lines(&headers, "x-forwarded-proto"), ["http"]);
    assert_eq!(lines(&headers, "x-forwarded-host"), ["shop.test"]);
    assert_eq!(lines(&headers, "x-forwarded-port"), ["80"]);
    assert_eq!(
        lines(&headers, "forwarded"),
        [format!(
            "for=192.0.2.1, for={PEER};host=\"www.test:8443\";proto=https"
        )]
    );
}

#[test]
fn addresses_are_written_as_each_header_wants_them() {
    let from = |peer: &str| {
        let forwarding = Forwarding {
            peer: &PeerText::new(ip(peer)),
            ..stranger()
        };
        let headers = onward(&[("host", "www.test")], &forwarding);
        [
            lines(&headers, "x-forwarded-for").concat(),
            lines(&headers, "forwarded").concat(),
        ]
    };

    assert_eq!(
        from("2001:db8::1"),
        [
            "2001:db8::1",
            "for=\"[2001:db8::1]\";host=www.test;proto=https"
        ]
    );
    assert_eq!(
        from("::ffff:192.0.2.1"),
        ["192.0.2.1", "for=192.0.2.1;host=www.test;proto=https"]
    );
}

#[test]
fn a_quote_in_the_host_does_not_end_the_quoted_string() {
    let given = [("host", "a\";for=10.0.0.1;x=\"\\")];

    let forwarded = lines(&onward(&given, &stranger()), "forwarded").concat();

    assert_eq!(
        forwarded,
        format!("for={PEER};host=\"a\\\";for=10.0.0.1;x=\\\"\\\\\";proto=https")
    );
}

#[test]
fn a_client_that_names_no_host_is_not_said_to_have_named_one() {
    let headers = onward(&[("host", "")], &stranger());

    assert!(!headers.contains("x-forwarded-host"));
    assert_eq!(
        lines(&headers, "forwarded"),
        [format!("for={PEER};proto=https")]
    );
}

#[test]
fn via_says_in_which_version_the_request_came() {
    let from = |received| {
        let forwarding = Forwarding {
            received,
            ..stranger()
        };
        lines(&onward(&[], &forwarding), "via").concat()
    };

    assert_eq!(from(Version::HTTP_10), "1.0 sealane");
    assert_eq!(from(Version::HTTP_11), "1.1 sealane");
    assert_eq!(from(Version::HTTP_2), "2.0 sealane");
}

#[test]
fn only_we_say_who_answered() {
    let spoofed = [("x-sealane-region", "mars"), ("x-sealane-endpoint", "x")];

    let mut silent = map(&spoofed);
    toward_client(&mut silent, None, &ID, false);
    let mut named = map(&spoofed);
    toward_client(&mut named, Some(("eu", "10.0.0.1:80")), &ID, false);

    assert_eq!(silent.len(), 1);
    assert_eq!(lines(&named, "x-sealane-region"), ["eu"]);
    assert_eq!(lines(&named, "x-sealane-endpoint"), ["10.0.0.1:80"]);
    assert_eq!(lines(&named, "x-request-id"), ["id-1"]);
}

#[test]
fn trailers_cannot_tell_another_framing_route_or_identity() {
    let mut trailers = map(&[
        ("grpc-status", "0"),
        ("x-checksum", "1"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("host", "x"),
        ("authorization", "x"),
        ("set-cookie", "a=b"),
        ("x-forwarded-for", "10.0.0.1"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ]);

    trailers_onward(&mut trailers);

    let left: Vec<_> = trailers.iter().collect();
    assert_eq!(
        left,
        [(&b"grpc-status"[..], &b"0"[..]), (b"x-checksum", b"1")]
    );
}

fn trusted() -> Vec<IpNet> {
    ["10.0.0.0/8", "2001:db8::/32"]
        .map(|net| net.parse().unwrap())
        .to_vec()
}

fn client(peer: &str, forwarded_for: &[&str]) -> String {
    let lines: Vec<_> = forwarded_for
        .iter()
        .map(|v| ("x-forwarded-for", *v))
        .collect();
    client_address(ip(peer), &map(&lines), &trusted()).to_string()
}

#[test]
fn the_client_is_the_right_most_address_that_is_not_ours() {
    assert_eq!(client("10.0.0.1", &["192.0.2.9"]), "192.0.2.9");
    assert_eq!(client("10.0.0.1", &["192.0.2.9, 10.0.0.2"]), "192.0.2.9");
    assert_eq!(
        client("10.0.0.1", &["1.1.1.1, 192.0.2.9, 10.0.0.2"]),
        "192.0.2.9"
    );
    assert_eq!(
        client("10.0.0.1", &["1.1.1.1, 192.0.2.9", "10.0.0.2"]),
        "192.0.2.9"
    );
    assert_eq!(client("2001:db8::1", &["2a00::1"]), "2a00::1");
    assert_eq!(
        client("::ffff:10.0.0.1", &["::ffff:192.0.2.9"]),
        "192.0.2.9"
    );
    assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
}

#[test]
fn a_stranger_cannot_say_who_it_is() {
    assert_eq!(client("192.0.2.1", &["10.0.0.9"]), "192.0.2.1");
    assert_eq!(client("192.0.2.1", &["1.1.1.1", "8.8.8.8"]), "192.0.2.1");
}

#[test]
fn a_part_that_is_no_address_ends_the_walk() {
    for bad in [
        "unknown",
        "",
        "_hidden",
        "300.1.1.1",
        "1.1.1.1.1",
        "fe80::1%eth0",
        "é",
    ] {
        let given = format!("1.1.1.1, {bad}, 10.0.0.2");
        assert_eq!(client("10.0.0.1", &[&given]), "10.0.0.2", "{bad}");
    }
}

#[test]
fn ports_and_brackets_are_understood() {
    assert_eq!(client("10.0.0.1", &["192.0.2.9:4711"]), "192.0.2.9");
    assert_eq!(client("10.0.0.1", &["[2a00::1]:4711"]), "2a00::1");
    assert_eq!(client("10.0.0.1", &["[2a00::1]"]), "2a00::1");
}

#[test]
fn the_walk_has_an_end() {
    let many = "10.0.0.2,".repeat(7_000) + "10.0.0.2";
    let beyond = format!("192.0.2.9, {many}");

    assert_eq!(client("10.0.0.1", &[&beyond]), "10.0.0.2");
}

#[test]
fn a_request_id_is_taken_from_friends_and_made_for_strangers() {
    let of = |headers: &Fields, trusted, random| {
        request_id(headers, trusted, random).as_str().to_owned()
    };
    let given = |id: &str, trusted| of(&map(&[("x-request-id", id)]), trusted, 0xabc);
    let made = format!("{:032x}", 0xabc);

    assert_eq!(given("my-id.1:2", true), "my-id.1:2");
    assert_eq!(given("my-id", false), made);
    for bad in ["", "a b", "a\"b", "a\tb", &"x".repeat(129)] {
        assert_eq!(given(bad, true), made, "{bad}");
    }
    assert_eq!(of(&Fields::new(), true, 0xabc), made);
    assert_eq!(of(&Fields::new(), false, u128::MAX), "f".repeat(32));
}

#[test]
fn grpc_is_told_by_its_content_type() {
    let is = |kind: &str| is_grpc(&map(&[("content-type", kind)]));

    assert!(is("application/grpc"));
    assert!(is("application/grpc+proto"));
    assert!(is("Application/gRPC; charset=utf-8"));
    assert!(!is("application/grpc-web"));
    assert!(!is("application/grpcx"));
    assert!(!is("application/json"));
    assert!(!is_grpc(&Fields::new()));
}

#[test]
fn a_tunnel_is_asked_for_by_both_headers_and_never_into_http_itself() {
    let wants = |connection: &str, upgrade: &str| {
        wants_upgrade(&map(&[("connection", connection), ("upgrade", upgrade)]))
    };

    assert!(wants("Upgrade", "websocket"));
    assert!(wants("keep-alive, upgrade", "WebSocket"));
    assert!(wants("upgrade", "tcp"));
    assert!(!wants("keep-alive", "websocket"));
    assert!(!wants("upgrade", ""));
    for hidden in ["h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.0", "websocket, h2c"] {
        assert!(!wants("upgrade, http2-settings", hidden), "{hidden}");
    }
    assert!(!wants_upgrade(&map(&[("connection", "upgrade")])));
    assert!(!wants_upgrade(&map(&[("upgrade", "websocket")])));
}

fn any_line() -> impl Strategy<Value = (String, Vec<u8>)> {
    let name = prop_oneof![
        "[a-z_-]{1,12}",
        prop::sample::select(vec![
            "connection",
            "te",
            "upgrade",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-real-ip",
            "x-request-id",
            "via",
            "content-type",
        ])
        .prop_map(str::to_owned),
    ];
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..24),
        "[a-z, -]{0,40}".prop_map(String::into_bytes),
    ];
    (name, value)
}

proptest! {
    #[test]
    fn whatever_comes_goes_on_without_a_trace_of_the_connection(
        given in prop::collection::vec(any_line(), 0..20),
        host in "\\PC{0,20}",
        trusted_peer in any::<bool>(),
    ) {
        let mut headers = map(&[("host", &host)]);
        for (name, value) in &given {
            headers.append(&**name, value);
        }
        let upgrade = wants_upgrade(&headers);
        let _ = is_grpc(&headers);
        let address = client_address(ip(PEER), &headers, &trusted());
        prop_assert_eq!(address, ip(PEER));
        let id = request_id(&headers, trusted_peer, 1);
        prop_assert!(is_loggable(id.as_bytes()));
        let forwarding = Forwarding {
            trusted_peer,
            upgrade,
            request_id: &id,
            ..stranger()
        };

        toward_endpoint(&mut headers, &forwarding);

        prop_assert_eq!(headers.contains("connection"), upgrade);
        prop_assert_eq!(headers.contains("upgrade"), upgrade);
        prop_assert!(!headers.contains("transfer-encoding"));
        if !trusted_peer {
            prop_assert_eq!(lines(&headers, "x-forwarded-for"), [PEER]);
            prop_assert!(!headers.contains("x-real-ip"));
        }
        prop_assert_eq!(headers.all("x-forwarded-for").count(), 1);
        prop_assert_eq!(headers.get("x-request-id"), Some(id.as_bytes()));
    }
}

#[test]
fn a_clients_identity_is_ours_alone_to_tell() {
    let forged = [
        ("x-sealane-client-identity", "sha256=\"forged\""),
        ("X_Sealane_Client_Identity", "sha256=\"forged\""),
        ("x-sealane-client-name", "root"),
    ];
    let proven = Forwarding {
        identity: Some("sha256=\"5f\""),
        ..friend()
    };

    for forwarding in [stranger(), friend()] {
        let headers = onward(&forged, &forwarding);
        assert!(
            !headers
                .iter()
                .any(|(name, _)| starts_plainly(name, b"x-sealane-client-"))
        );
    }
    let headers = onward(&forged, &proven);
    assert_eq!(
        lines(&headers, "x-sealane-client-identity"),
        ["sha256=\"5f\""]
    );
    let mut trailers = map(&forged);
    trailers_onward(&mut trailers);
    assert!(trailers.is_empty());
}
