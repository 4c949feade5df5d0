//! Who asks the same.

use std::time::Duration;

use http::Version;

use super::*;

const LISTED: [HeaderName; 2] = [
    HeaderName::from_static("accept"),
    HeaderName::from_static("accept-encoding"),
];

fn rule(credentials: Credentials) -> Coalesce {
    Coalesce {
        methods: vec![Method::GET, Method::HEAD],
        headers: LISTED.to_vec(),
        credentials,
        wait: Duration::from_secs(5),
        followers: 10,
        body_max: 1_000,
    }
}

fn head(method: Method, target: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut lines = Fields::over(target.as_bytes().to_vec());
    for (name, value) in fields {
        lines.append(*name, value.as_bytes());
    }
    RequestHead::new(method, Version::HTTP_11, lines, 0..target.len())
}

fn asked(head: &RequestHead) -> Asked<'_> {
    Asked {
        head,
        scheme: "http",
        route: 1,
        trusted_peer: false,
        identity: None,
    }
}

fn key_by(credentials: Credentials, fields: &[(&str, &str)]) -> Result<Key, Option<Part>> {
    let head = head(Method::GET, "/a?b", fields);
    key(&rule(credentials), &asked(&head))
}

/// With a host before `fields`.
fn get(fields: &[(&str, &str)]) -> Key {
    let mut all = vec![("host", "x.test")];
    all.extend_from_slice(fields);
    key_by(Credentials::Alone, &all).unwrap()
}

#[test]
fn what_tells_of_the_client_alone_makes_no_difference() {
    let plain = get(&[]);

    for harmless in [
        ("User-Agent", "curl/8"),
        ("referer", "https://a.test/"),
        ("accept-language", "de"),
        ("x-forwarded-for", "192.0.2.1"),
        ("sec-fetch-mode", "navigate"),
        ("sec-ch-ua", "\"x\""),
        ("traceparent", "00-0-0-01"),
        ("te", "trailers"),
        ("cache-control", "max-age=0"),
        ("x-forwarded-host", "evil.test"),
    ] {
        assert_eq!(get(&[harmless]), plain, "{harmless:?}");
    }
}

#[test]
fn what_is_listed_or_unknown_makes_one() {
    let plain = get(&[]);

    for telling in [
        ("accept", "text/html"),
        ("Accept-Encoding", "gzip"),
        ("accept-encoding", ""),
        ("x-tenant", "a"),
        ("x-original-url", "/admin"),
        ("x-http-method-override", "DELETE"),
    ] {
        assert_ne!(get(&[telling]), plain, "{telling:?}");
    }
    assert_ne!(get(&[("x-tenant", "a")]), get(&[("x-tenant", "b")]));
    assert_eq!(get(&[("X-Tenant", "a")]), get(&[("x-tenant", "a")]));
    let (first, second) = (("accept", "a"), ("accept-encoding", "b"));
    assert_eq!(get(&[first, second]), get(&[second, first]));
}

#[test]
fn scheme_method_host_target_and_route_make_one() {
    let one = head(Method::GET, "/a", &[("host", "x.test")]);
    let plain = asked(&one);
    let rule = rule(Credentials::Alone);
    let wanted = key(&rule, &plain).unwrap();
    let differs = |other: Asked<'_>| assert_ne!(key(&rule, &other).unwrap(), wanted, "{other:?}");

    differs(Asked {
        scheme: "https",
        ..plain
    });
    differs(Asked { route: 2, ..plain });
    let others = [
        head(Method::HEAD, "/a", &[("host", "x.test")]),
        head(Method::GET, "/a?", &[("host", "x.test")]),
        head(Method::GET, "/b", &[("host", "x.test")]),
        head(Method::GET, "/a", &[("host", "y.test")]),
        head(Method::GET, "/a", &[("host", "x.test:81")]),
    ];
    for other in &others {
        differs(asked(other));
    }
    let same = head(Method::GET, "/a", &[("host", "X.Test:80")]);
    assert_eq!(key(&rule, &asked(&same)).unwrap(), wanted);
}

#[test]
fn a_trusted_peers_word_on_the_way_makes_one() {
    let told = head(
        Method::GET,
        "/a",
        &[("host", "x"), ("x-forwarded-host", "y")],
    );
    let plain = head(Method::GET, "/a", &[("host", "x")]);
    let rule = rule(Credentials::Alone);
    let by = |head, trusted_peer| {
        key(
            &rule,
            &Asked {
                trusted_peer,
                ..asked(head)
            },
        )
        .unwrap()
    };

    assert_ne!(by(&told, true), by(&plain, true));
    assert_eq!(by(&told, false), by(&plain, false));
}

#[test]
fn whoever_says_who_it_is_shares_with_nobody() {
    for credential in [
        ("authorization", "Bearer a"),
        ("cookie", "a=b"),
        ("x-api-key", "a"),
        ("X-Auth-Token", "a"),
        ("x-session-id", "a"),
        ("x-amz-security-token", "a"),
    ] {
        let refused = key_by(Credentials::Alone, &[credential]);
        assert_eq!(refused, Err(Some(Part::Credentials)), "{credential:?}");
    }
    let plain = head(Method::GET, "/a", &[]);
    let identified = Asked {
        identity: Some("sha256=\"a\""),
        ..asked(&plain)
    };
    let refused = key(&rule(Credentials::Alone), &identified);
    assert_eq!(refused, Err(Some(Part::Credentials)));
}

#[test]
fn by_value_the_same_user_shares_with_itself_alone() {
    let by_value = |fields: &[(&str, &str)]| key_by(Credentials::ByValue, fields).unwrap();
    let alice = ("authorization", "Bearer alice");
    let bob = ("authorization", "Bearer bob");

    assert_eq!(by_value(&[alice]), by_value(&[alice]));
    assert_ne!(by_value(&[alice]), by_value(&[bob]));
    assert_ne!(by_value(&[alice]), by_value(&[]));
    assert_ne!(by_value(&[("cookie", "a")]), by_value(&[("cookie", "b")]));

    let plain = head(Method::GET, "/a", &[]);
    let of = |identity| {
        let asked = Asked {
            identity,
            ..asked(&plain)
        };
        key(&rule(Credentials::ByValue), &asked).unwrap()
    };
    assert_ne!(of(Some("a")), of(Some("b")));
    assert_ne!(of(Some("a")), of(None));
}

#[test]
fn a_listed_credential_is_shared_by_value() {
    let mut rule = rule(Credentials::Alone);
    rule.headers.push(HeaderName::from_static("x-api-key"));
    let of = |value| {
        let head = head(Method::GET, "/a", &[("x-api-key", value)]);
        key(&rule, &asked(&head)).unwrap()
    };

    assert_eq!(of("a"), of("a"));
    assert_ne!(of("a"), of("b"));
}

#[test]
fn conditions_and_wishes_for_freshness_share_with_nobody() {
    let cases = [
        (("range", "bytes=0-1"), Part::Conditional),
        (("if-none-match", "\"a\""), Part::Conditional),
        (("If-Modified-Since", "x"), Part::Conditional),
        (("if-range", "\"a\""), Part::Conditional),
        (("cache-control", "no-cache"), Part::Fresh),
        (("cache-control", "only-if-cached"), Part::Fresh),
        (("pragma", "no-cache"), Part::Fresh),
    ];
    for (field, why) in cases {
        let refused = key_by(Credentials::ByValue, &[field]);
        assert_eq!(refused, Err(Some(why)), "{field:?}");
    }
}

#[test]
fn what_may_have_an_effect_or_a_body_is_not_looked_at() {
    for method in [Method::POST, Method::OPTIONS, Method::DELETE] {
        let head = head(method, "/a", &[]);
        let mut rule = rule(Credentials::ByValue);
        rule.methods.push(Method::POST); // whatever is asked for
        assert_eq!(key(&rule, &asked(&head)), Err(None));
    }
    for field in [
        ("upgrade", "websocket"),
        ("expect", "100-continue"),
        ("transfer-encoding", "chunked"),
    ] {
        assert_eq!(key_by(Credentials::ByValue, &[field]), Err(None));
    }
}

#[test]
fn a_head_that_is_very_long_is_not_held_as_a_key() {
    let long = "x".repeat(KEY_MAX);
    let refused = key_by(Credentials::Alone, &[("x-long", &long)]);
    assert_eq!(refused, Err(Some(Part::LongHead)));
}

#[test]
fn no_part_of_a_head_can_be_taken_for_another() {
    let joined = get(&[("x-a", "1"), ("x-b", "2")]);
    for other in [
        get(&[("x-a", "1x-b:2")]),
        get(&[("x-a", "1, 2")]),
        get(&[("x-a", "12")]),
    ] {
        assert_ne!(other, joined);
    }
}
