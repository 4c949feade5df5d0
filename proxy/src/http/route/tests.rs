//! The route table, by sentences and against a matcher that is too slow but plainly right.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use sealane_model::{PoolId, Ratio};
use sealane_steering::SteeringPolicy;

use super::*;
use crate::config::{Action, Backoff, Destination, RetryOn, RetryPolicy, RouteOptions, Timeouts};

pub(crate) fn route(name: &str, when: RouteMatch) -> Route {
    Route {
        name: name.into(),
        when,
        action: Action::Forward(Destination {
            pool: PoolId::from_index(0).unwrap(),
            steering: Arc::new(SteeringPolicy::Nearest),
            balance: Arc::default(),
        }),
        timeouts: Timeouts {
            connect: Duration::from_secs(1),
            attempt: Duration::from_secs(5),
            adaptive: None,
            request: Duration::from_secs(30),
            idle: Duration::from_secs(60),
        },
        retry: RetryPolicy {
            attempts: 2,
            budget: Ratio::new(0.2).unwrap(),
            on: RetryOn::default(),
            methods: Vec::new(),
            backoff: Backoff::default(),
        },
        hedge: None,
        body_max: None,
        options: RouteOptions::default(),
    }
}

fn when(host: &str, path: &str) -> RouteMatch {
    RouteMatch {
        host: match host.strip_prefix('*') {
            _ if host.is_empty() => None,
            Some(suffix) => Some(HostPattern::Suffix(suffix.into())),
            None => Some(HostPattern::Exact(host.into())),
        },
        path_prefix: (!path.is_empty()).then(|| path.into()),
        ..RouteMatch::default()
    }
}

/// Routes that are called as they are written: `host path`.
fn table(routes: &[(&str, &str)]) -> RouteTable {
    let routes: Vec<Route> = routes
        .iter()
        .map(|(host, path)| route(format!("{host} {path}").trim(), when(host, path)))
        .collect();
    RouteTable::new(&routes)
}

fn found(table: &RouteTable, host: &str, path: &str) -> String {
    table
        .find(host, path, &Method::GET, &Fields::new())
        .map_or_else(|| "none".to_owned(), |route| route.rule.name.to_string())
}

#[test]
fn an_exact_host_wins_over_the_longest_suffix_over_any() {
    let table = table(&[
        ("", "/a/long/path"),
        ("*.test", ""),
        ("*.api.test", ""),
        ("www.api.test", ""),
        ("", ""),
    ]);

    assert_eq!(
        found(&table, "www.api.test", "/a/long/path"),
        "www.api.test"
    );
    assert_eq!(found(&table, "x.api.test", "/a/long/path"), "*.api.test");
    assert_eq!(found(&table, "x.y.api.test", "/"), "*.api.test");
    assert_eq!(found(&table, "api.test", "/"), "*.test");
    assert_eq!(found(&table, "test", "/a/long/path/x"), "/a/long/path");
    assert_eq!(found(&table, "test", "/"), "");
    assert_eq!(found(&table, ".api.test", "/"), "*.test");
}

#[test]
fn a_host_is_compared_without_case_port_brackets_and_trailing_dot() {
    let table = table(&[("www.test", ""), ("*.api.test", ""), ("::1", "")]);

    for host in [
        "www.test",
        "WWW.Test",
        "www.test:80",
        "www.test.",
        "www.test.:8443",
        "www.test:",
    ] {
        assert_eq!(found(&table, host, "/"), "www.test", "{host}");
    }
    assert_eq!(found(&table, "A.API.TEST.:1", "/"), "*.api.test");
    for host in ["[::1]", "[::1]:80", "::1"] {
        assert_eq!(found(&table, host, "/"), "::1", "{host}");
    }
    for host in [
        "",
        "www.test..",
        "www.test:x",
        "wwwtest",
        "[www.test]",
        ":80",
        ".",
    ] {
        assert_eq!(found(&table, host, "/"), "none", "{host}");
    }
}

#[test]
fn a_host_that_no_pattern_can_name_takes_the_routes_for_any() {
    let long = "a.".repeat(40_000);

    assert_eq!(found(&table(&[("*.test", ""), ("", "")]), &long, "/"), "");
    assert_eq!(found(&table(&[("*.a", "")]), &long, "/"), "none");
}

#[test]
fn a_prefix_matches_whole_segments_and_the_longest_wins() {
    let table = table(&[("", "/v1"), ("", "/v1/users"), ("", "/tree/"), ("", "/")]);

    assert_eq!(found(&table, "h", "/v1"), "/v1");
    assert_eq!(found(&table, "h", "/v1/x"), "/v1");
    assert_eq!(found(&table, "h", "/v1?a=/v1/users"), "/v1");
    assert_eq!(found(&table, "h", "/v1/users?x"), "/v1/users");
    assert_eq!(found(&table, "h", "/v1/users/7"), "/v1/users");
    assert_eq!(found(&table, "h", "/v1/users7"), "/v1");
    assert_eq!(found(&table, "h", "/v10"), "/");
    assert_eq!(found(&table, "h", "/V1"), "/");
    assert_eq!(found(&table, "h", "/v%31"), "/");
    assert_eq!(found(&table, "h", "/tree"), "/");
    assert_eq!(found(&table, "h", "/tree/leaf"), "/tree/");
}

#[test]
fn more_conditions_win_and_then_the_order_of_the_file() {
    let region = HeaderMatch {
        name: HeaderName::from_static("x-region"),
        value: Some(HeaderValue::from_static("eu")),
    };
    let tenant = HeaderMatch {
        name: HeaderName::from_static("x-tenant"),
        value: None,
    };
    let with = |methods: &[Method], headers: &[&HeaderMatch]| RouteMatch {
        methods: methods.to_vec(),
        headers: headers.iter().map(|h| (*h).clone()).collect(),
        ..when("", "/v1")
    };
    let table = RouteTable::new(&[
        route("plain", with(&[], &[])),
        route("write", with(&[Method::POST, Method::PUT], &[])),
        route("eu", with(&[], &[&region])),
        route("eu tenant", with(&[], &[&region, &tenant])),
        route("eu write", with(&[Method::POST], &[&region])),
    ]);
    let find = |method: Method, headers: &[(&'static str, &'static str)]| {
        let mut fields = Fields::new();
        for (name, value) in headers {
            fields.append(*name, value.as_bytes());
        }
        let route = table.find("h", "/v1", &method, &fields);
        route.unwrap().rule.name.to_string()
    };

    assert_eq!(find(Method::GET, &[]), "plain");
    assert_eq!(find(Method::POST, &[]), "write");
    assert_eq!(find(Method::GET, &[("x-region", "eu")]), "eu");
    assert_eq!(find(Method::GET, &[("x-region", "us")]), "plain");
    assert_eq!(find(Method::GET, &[("x-tenant", "7")]), "plain");
    let both = [("x-region", "eu"), ("x-tenant", "7")];
    assert_eq!(find(Method::GET, &both), "eu tenant");
    assert_eq!(find(Method::POST, &both), "eu tenant");
    assert_eq!(find(Method::POST, &[("x-region", "eu")]), "eu write");
    assert_eq!(find(Method::PUT, &[("x-region", "eu")]), "write");
}

#[test]
fn any_line_of_a_header_may_hold_the_value() {
    let wanted = HeaderMatch {
        name: HeaderName::from_static("x-flag"),
        value: Some(HeaderValue::from_static("b")),
    };
    let when = RouteMatch {
        headers: vec![wanted],
        ..RouteMatch::default()
    };
    let table = RouteTable::new(&[route("flag", when)]);
    let mut headers = Fields::new();
    for value in ["a", "b"] {
        headers.append("x-flag", value.as_bytes());
    }

    assert!(table.find("h", "/", &Method::GET, &headers).is_some());
}

#[test]
fn no_route_is_no_route() {
    assert_eq!(found(&table(&[]), "h", "/"), "none");
    assert_eq!(
        found(&table(&[("www.test", "/v1")]), "www.test", "/"),
        "none"
    );
    assert_eq!(found(&table(&[("", "/")]), "h", "*"), "none");
}

#[test]
fn a_budget_outlives_a_reload_that_keeps_the_name() {
    let old = table(&[("a.test", ""), ("b.test", "")]);
    let mut kept = route("a.test", when("a.test", "/moved"));
    kept.retry.budget = Ratio::new(1.0).unwrap();

    let new = RouteTable::new_keeping(&old, &[kept, route("c", when("c.test", ""))]);

    let [a, c] = new.routes().collect::<Vec<_>>()[..] else {
        panic!("two routes");
    };
    let before = old.routes().next().unwrap();
    assert!(Arc::ptr_eq(&a.budget, &before.budget));
    assert!(old.routes().all(|o| !Arc::ptr_eq(&c.budget, &o.budget)));
}

/// What [`RouteTable::find`] means, one rule after the other.
fn naive<'r>(
    routes: &'r [Route],
    host: &str,
    path: &str,
    method: &Method,
    headers: &Fields,
) -> Option<&'r Route> {
    let host = host.to_ascii_lowercase();
    let host = host.split(':').next().unwrap();
    let host = host.strip_suffix('.').unwrap_or(host);
    let path = path.split('?').next().unwrap();
    let host_class = |route: &Route| match &route.when.host {
        None => Some(0),
        Some(HostPattern::Exact(name)) => (&**name == host).then_some(usize::MAX),
        Some(HostPattern::Suffix(end)) => {
            (host.ends_with(&**end) && host.len() > end.len()).then_some(end.len())
        }
    };
    let path_class = |route: &Route| match route.when.path_prefix.as_deref() {
        None => Some(0),
        Some(prefix) => {
            let slashed = match prefix.ends_with('/') {
                true => prefix.to_owned(),
                false => format!("{prefix}/"),
            };
            let below = path.starts_with(&slashed);
            let fits = below || (path == prefix);
            fits.then_some(prefix.len())
        }
    };
    let conditions = |route: &Route| {
        let when = &route.when;
        let fits = (when.methods.is_empty() || when.methods.contains(method))
            && when.headers.iter().all(|wanted| {
                let mut values = headers.all(&wanted.name);
                match &wanted.value {
                    Some(wanted) => values.any(|value| value == wanted),
                    None => values.next().is_some(),
                }
            });
        fits.then_some(when.headers.len() + usize::from(!when.methods.is_empty()))
    };
    let mut best: Option<((usize, usize, usize), &Route)> = None;
    for route in routes {
        let (Some(h), Some(p), Some(c)) = (host_class(route), path_class(route), conditions(route))
        else {
            continue;
        };
        if best.is_none_or(|(key, _)| (h, p, c) > key) {
            best = Some(((h, p, c), route));
        }
    }
    best.map(|(_, route)| route)
}

fn any_label() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab", "test"]).prop_map(str::to_owned)
}

fn any_host() -> impl Strategy<Value = String> {
    prop::collection::vec(any_label(), 1..5).prop_map(|labels| labels.join("."))
}

fn any_path() -> impl Strategy<Value = String> {
    let segments = prop::sample::select(vec!["", "v1", "v10", "x", "v"]);
    prop::collection::vec(segments, 0..4).prop_map(|s| format!("/{}", s.join("/")))
}

fn any_headers() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0_u8..2, 0_u8..3), 0..3)
}

fn any_route() -> impl Strategy<Value = RouteMatch> {
    let host = prop_oneof![
        Just(None),
        any_host().prop_map(|host| Some(HostPattern::Exact(host.into()))),
        any_host().prop_map(|host| Some(HostPattern::Suffix(format!(".{host}").into()))),
    ];
    let methods = prop::sample::subsequence(vec![Method::GET, Method::POST], 0..3);
    let headers = any_headers().prop_map(|headers| {
        let headers = headers.into_iter().map(|(name, value)| HeaderMatch {
            name: header_name(name),
            value: (value > 0).then(|| HeaderValue::from(u16::from(value))),
        });
        headers.collect()
    });
    let path = prop::option::of(any_path());
    (host, path, methods, headers).prop_map(|(host, path, methods, headers)| RouteMatch {
        host,
        path_prefix: path.map(Into::into),
        methods,
        headers,
    })
}

fn header_name(index: u8) -> HeaderName {
    [
        HeaderName::from_static("x-one"),
        HeaderName::from_static("x-two"),
    ][usize::from(index)]
    .clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_table_finds_what_the_naive_matcher_finds(
        routes in prop::collection::vec(any_route(), 0..32),
        host in any_host(),
        ending in prop::sample::select(vec!["", ".", ":80", ".:8080"]),
        path in any_path(),
        query in prop::sample::select(vec!["", "?", "?/v1/x"]),
        post in any::<bool>(),
        headers in any_headers(),
    ) {
        let routes: Vec<Route> = routes
            .into_iter()
            .enumerate()
            .map(|(at, when)| route(&at.to_string(), when))
            .collect();
        let method = if post { Method::POST } else { Method::GET };
        let mut fields = Fields::new();
        for (name, value) in headers {
            fields.append(&header_name(name), value.to_string().as_bytes());
        }
        let (host, path) = (format!("{host}{ending}").to_uppercase(), format!("{path}{query}"));

        let expected = naive(&routes, &host, &path, &method, &fields);
        let table = RouteTable::new(&routes);
        let found = table.find(&host, &path, &method, &fields);

        prop_assert_eq!(
            found.map(|route| &*route.rule.name),
            expected.map(|route| &*route.name)
        );
    }

    #[test]
    fn no_host_or_path_makes_it_panic(host in any::<String>(), path in any::<String>()) {
        let table = table(&[("a.test", "/x"), ("*.test", ""), ("", "/")]);
        let _ = table.find(&host, &path, &Method::GET, &Fields::new());
    }
}
