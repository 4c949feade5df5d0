//! Other paths and places: what an endpoint is asked for instead, and where a client is sent. Pure.
//!
//! Works on bytes as the client wrote them, as routes match them: nothing is decoded or resolved.

use http::uri::Scheme;

use crate::config::{NewPath, Redirect};

/// `target` with `prefix` in place of `matched`, which it begins with; the query stays. `prefix` has
/// no slash at its end.
pub(crate) fn with_prefix(target: &str, matched: Option<&str>, prefix: &str) -> String {
    if !target.starts_with('/') {
        return target.to_owned(); // `OPTIONS *` has no path
    }
    let (path, query) = split_query(target);
    let rest = path.strip_prefix(matched.unwrap_or_default());
    let rest = rest.unwrap_or(path);
    let mut new = String::with_capacity(prefix.len() + rest.len() + query.len() + 1);
    new.push_str(prefix);
    if !rest.starts_with('/') && (new.is_empty() || !rest.is_empty()) {
        new.push('/');
    }
    new.push_str(rest);
    new.push_str(query);
    new
}

/// The query with its question mark.
fn split_query(target: &str) -> (&str, &str) {
    target.split_at(target.find('?').unwrap_or(target.len()))
}

/// What a client asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// `http` or `https`.
    pub(crate) scheme: &'a str,
    /// With its port, if one was written.
    pub(crate) host: &'a str,
    /// Path and query.
    pub(crate) target: &'a str,
    /// The route's path prefix.
    pub(crate) matched: Option<&'a str>,
}

/// Why there is nowhere to send the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nowhere {
    /// HTTP/1.0 names no host, and the rule neither.
    NoHost,
    /// The new place is where it is already.
    SamePlace,
}

/// Always absolute: a path that begins with two slashes would lead to another host.
pub(crate) fn location(rule: &Redirect, asked: &Asked<'_>) -> Result<String, Nowhere> {
    let scheme = rule.scheme.as_ref().map_or(asked.scheme, Scheme::as_str);
    let (host, asked_port) = split_port(asked.host);
    let moved = rule.host.is_some() || scheme != asked.scheme;
    let port = match rule.port {
        Some(port) => Some(port).filter(|port| *port != default_port(scheme)),
        // A port belongs to a scheme at a host.
        None => asked_port.filter(|_| !moved),
    };
    let host = rule.host.as_deref().unwrap_or(host);
    if host.is_empty() {
        return Err(Nowhere::NoHost);
    }
    let target = if asked.target.starts_with('/') {
        asked.target
    } else {
        "/"
    };
    let (path, query) = split_query(target);
    let path = match &rule.path {
        NewPath::Same => path.to_owned(),
        NewPath::Prefix(prefix) => with_prefix(path, asked.matched, prefix),
        NewPath::Whole(whole) => whole.to_string(),
    };
    let query = if rule.keep_query { query } else { "" };
    let port = port.map_or(String::new(), |port| format!(":{port}"));
    let there = format!("{scheme}://{host}{port}{path}{query}");
    let here = format!("{}://{}{target}", asked.scheme, asked.host);
    if there == here {
        return Err(Nowhere::SamePlace);
    }
    Ok(there)
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

/// `[::1]:80` and `x:80` lose their port; a bare host is left whole.
fn split_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port.parse().ok()),
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn a_prefix_takes_the_place_of_the_one_that_matched() {
        for (target, matched, prefix, wanted) in [
            ("/v1/x?y=1", Some("/v1"), "/api", "/api/x?y=1"),
            ("/v1", Some("/v1"), "/api", "/api"),
            ("/v1?a", Some("/v1"), "", "/?a"),
            ("/v1/x", Some("/v1"), "", "/x"),
            ("/v1//x", Some("/v1"), "", "//x"),
            ("/x", None, "/api", "/api/x"),
            ("/", None, "/api", "/api/"),
            ("/%2e%2e/x", None, "/api", "/api/%2e%2e/x"),
            ("*", None, "/api", "*"),
        ] {
            assert_eq!(with_prefix(target, matched, prefix), wanted, "{target}");
        }
    }

    fn rule() -> Redirect {
        Redirect {
            status: StatusCode::PERMANENT_REDIRECT,
            scheme: None,
            host: None,
            port: None,
            path: NewPath::Same,
            keep_query: true,
        }
    }

    fn asked<'a>(host: &'a str, target: &'a str) -> Asked<'a> {
        Asked {
            scheme: "http",
            host,
            target,
            matched: Some("/old"),
        }
    }

    fn to_https() -> Redirect {
        Redirect {
            scheme: Some(Scheme::HTTPS),
            ..rule()
        }
    }

    #[test]
    fn plain_http_is_sent_to_https_at_the_same_host() {
        let to = |host, target| location(&to_https(), &asked(host, target)).unwrap();

        assert_eq!(to("x.test", "/a?b=c"), "https://x.test/a?b=c");
        assert_eq!(to("x.test:8080", "/"), "https://x.test/");
        assert_eq!(to("[::1]:8080", "/"), "https://[::1]/");
        assert_eq!(to("[::1]", "/"), "https://[::1]/");
        assert_eq!(to("x.test", "//evil.test/a"), "https://x.test//evil.test/a");
        let elsewhere = Redirect {
            port: Some(8443),
            ..to_https()
        };
        let there = location(&elsewhere, &asked("x.test:8080", "/"));
        assert_eq!(there.unwrap(), "https://x.test:8443/");
    }

    #[test]
    fn host_path_and_query_change_where_the_rule_says_so() {
        let to = |rule: &Redirect| location(rule, &asked("x.test:8080", "/old/a?b")).unwrap();

        let host = Redirect {
            host: Some("y.test".into()),
            ..rule()
        };
        assert_eq!(to(&host), "http://y.test/old/a?b");
        let prefix = Redirect {
            path: NewPath::Prefix("/new".into()),
            ..rule()
        };
        assert_eq!(to(&prefix), "http://x.test:8080/new/a?b");
        let whole = Redirect {
            path: NewPath::Whole("/gone".into()),
            keep_query: false,
            ..rule()
        };
        assert_eq!(to(&whole), "http://x.test:8080/gone");
    }

    #[test]
    fn nobody_is_sent_where_they_are_or_to_no_host() {
        let same = location(&rule(), &asked("x.test", "/old/a"));
        let hostless = location(&to_https(), &asked("", "/"));

        assert_eq!(same, Err(Nowhere::SamePlace));
        assert_eq!(hostless, Err(Nowhere::NoHost));
    }
}
