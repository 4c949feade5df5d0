//! CORS as the Fetch standard has it (§3.3): who may read answers, and what may be asked for.
//!
//! Preflights are answered here and never reach an endpoint. On other answers what an endpoint says
//! itself about CORS is replaced. Guards nothing: a browser enforces it, anyone else ignores it.

use http::{HeaderName, Method};

use super::super::fields::{Fields, Known};
use super::super::refuse::NotAllowed;
use super::edits::add_to_vary;
use crate::config::{AllowedHeaders, Cors, OriginPattern, Origins};

const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const ALLOW_CREDENTIALS: &str = "access-control-allow-credentials";
const ALLOW_METHODS: &str = "access-control-allow-methods";
const ALLOW_HEADERS: &str = "access-control-allow-headers";
const EXPOSE_HEADERS: &str = "access-control-expose-headers";
const MAX_AGE: &str = "access-control-max-age";
const REQUEST_METHOD: &str = "access-control-request-method";
const REQUEST_HEADERS: &str = "access-control-request-headers";

/// What a page wants to know before it asks.
#[derive(Clone, Debug)]
pub(crate) struct Preflight<'a> {
    origin: &'a [u8],
    pub(crate) method: Method,
    headers: &'a [u8],
}

impl<'a> Preflight<'a> {
    /// `None`: an ordinary request (Fetch §4.8, "CORS-preflight fetch").
    pub(crate) fn of(method: &Method, fields: &'a Fields) -> Option<Self> {
        if *method != Method::OPTIONS {
            return None;
        }
        let origin = fields.get(Known::Origin)?;
        let method = Method::from_bytes(fields.get(REQUEST_METHOD)?).ok()?;
        Some(Self {
            origin,
            method,
            headers: fields.get(REQUEST_HEADERS).unwrap_or_default(),
        })
    }
}

/// Writes what a preflight is told; the answer has no body.
///
/// # Errors
/// The first of the three that the rule does not allow.
pub(crate) fn answer(
    rule: &Cors,
    asked: &Preflight<'_>,
    fields: &mut Fields,
) -> Result<(), NotAllowed> {
    add_to_vary(fields, "Origin");
    add_to_vary(fields, "Access-Control-Request-Method");
    add_to_vary(fields, "Access-Control-Request-Headers");
    let origin = allowed_origin(rule, asked.origin).ok_or(NotAllowed::Origin)?;
    let simple = [Method::GET, Method::HEAD, Method::POST];
    if !simple.contains(&asked.method) && !rule.methods.contains(&asked.method) {
        return Err(NotAllowed::Method);
    }
    if !allows_headers(&rule.headers, asked.headers) {
        return Err(NotAllowed::Header);
    }
    allow(rule, origin, fields);
    fields.insert(ALLOW_METHODS, asked.method.as_str().as_bytes());
    // Said back, not `*`: that would leave out `Authorization` (Fetch §4.8, step 7).
    if !asked.headers.is_empty() {
        fields.insert(ALLOW_HEADERS, asked.headers);
    }
    let seconds = rule.max_age.as_secs().to_string();
    fields.insert(MAX_AGE, seconds.as_bytes());
    Ok(())
}

/// Writes on an answer who may read it. `origin`: the request's.
pub(crate) fn mark(rule: &Cors, origin: Option<&[u8]>, fields: &mut Fields) {
    for name in SAID_BY_ENDPOINTS {
        fields.remove(name);
    }
    if !matches!(rule.origins, Origins::Any) {
        // Also for those who sent none: a cache must not hand this answer to a page that did.
        add_to_vary(fields, "Origin");
    }
    let Some(origin) = origin.and_then(|origin| allowed_origin(rule, origin)) else {
        return;
    };
    allow(rule, origin, fields);
    if !rule.expose.is_empty() {
        let names: Vec<&str> = rule.expose.iter().map(HeaderName::as_str).collect();
        fields.insert(EXPOSE_HEADERS, names.join(", ").as_bytes());
    }
}

const SAID_BY_ENDPOINTS: [&str; 6] = [
    ALLOW_ORIGIN,
    ALLOW_CREDENTIALS,
    ALLOW_METHODS,
    ALLOW_HEADERS,
    EXPOSE_HEADERS,
    MAX_AGE,
];

fn allow(rule: &Cors, origin: &[u8], fields: &mut Fields) {
    fields.insert(ALLOW_ORIGIN, origin);
    if rule.credentials {
        fields.insert(ALLOW_CREDENTIALS, b"true");
    }
}

/// What `Access-Control-Allow-Origin` says to it.
fn allowed_origin<'o>(rule: &Cors, origin: &'o [u8]) -> Option<&'o [u8]> {
    match &rule.origins {
        Origins::Any => Some(b"*"),
        Origins::Listed(patterns) => {
            let text = std::str::from_utf8(origin).ok()?;
            let allowed = patterns.iter().any(|pattern| is_like(pattern, text));
            allowed.then_some(origin)
        }
    }
}

fn is_like(pattern: &OriginPattern, origin: &str) -> bool {
    match pattern {
        OriginPattern::Exact(exact) => origin == &**exact,
        OriginPattern::Below { scheme, suffix } => {
            let between = origin
                .strip_prefix(&**scheme)
                .and_then(|rest| rest.strip_suffix(&**suffix));
            // Labels and dots alone: neither a port nor user information can hide there.
            between.is_some_and(|labels| {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
                !labels.is_empty() && labels.bytes().all(plain)
            })
        }
    }
}

fn allows_headers(allowed: &AllowedHeaders, names: &[u8]) -> bool {
    let AllowedHeaders::Listed(list) = allowed else {
        return true;
    };
    let names = names.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    names.filter(|name| !name.is_empty()).all(|name| {
        let mut list = list.iter();
        list.any(|allowed| allowed.as_str().as_bytes().eq_ignore_ascii_case(name))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rule() -> Cors {
        Cors {
            origins: Origins::Listed(vec![
                OriginPattern::Exact("https://app.test".into()),
                OriginPattern::Below {
                    scheme: "https://".into(),
                    suffix: ".example.test:8443".into(),
                },
            ]),
            methods: vec![Method::PUT],
            headers: AllowedHeaders::Listed(vec![HeaderName::from_static("x-token")]),
            expose: vec![HeaderName::from_static("x-total")],
            credentials: true,
            max_age: Duration::from_secs(600),
        }
    }

    fn told(rule: &Cors, origin: &str, method: &str, names: &str) -> Result<Fields, NotAllowed> {
        let mut asked = Fields::new();
        asked.append(Known::Origin, origin.as_bytes());
        asked.append(REQUEST_METHOD, method.as_bytes());
        asked.append(REQUEST_HEADERS, names.as_bytes());
        let asked = Preflight::of(&Method::OPTIONS, &asked).unwrap();
        let mut fields = Fields::new();
        answer(rule, &asked, &mut fields).map(|()| fields)
    }

    #[test]
    fn a_preflight_is_told_what_it_may() {
        let told = told(&rule(), "https://app.test", "PUT", "X-Token").unwrap();

        assert_eq!(told.get_str(ALLOW_ORIGIN), Some("https://app.test"));
        assert_eq!(told.get_str(ALLOW_METHODS), Some("PUT"));
        assert_eq!(told.get_str(ALLOW_HEADERS), Some("X-Token"));
        assert_eq!(told.get_str(ALLOW_CREDENTIALS), Some("true"));
        assert_eq!(told.get_str(MAX_AGE), Some("600"));
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        assert_eq!(told.get_str(Known::Vary), Some(vary));
    }

    #[test]
    fn a_preflight_is_refused_by_origin_method_or_header() {
        let why = |origin, method, names| told(&rule(), origin, method, names).unwrap_err();

        assert_eq!(why("https://evil.test", "PUT", ""), NotAllowed::Origin);
        assert_eq!(why("https://app.test", "DELETE", ""), NotAllowed::Method);
        let header = why("https://app.test", "GET", "x-token, authorization");
        assert_eq!(header, NotAllowed::Header);
    }

    #[test]
    fn origins_below_a_domain_are_those_and_no_others() {
        let Origins::Listed(patterns) = rule().origins else {
            unreachable!()
        };
        let below = |origin| is_like(&patterns[1], origin);

        assert!(below("https://a.example.test:8443"));
        assert!(below("https://a.b.example.test:8443"));
        assert!(!below("https://.example.test:8443"));
        assert!(!below("http://a.example.test:8443"));
        assert!(!below("https://a.example.test"));
        assert!(!below("https://evil.test:1/.example.test:8443"));
        assert!(!below("https://evil@a.example.test:8443"));
    }

    #[test]
    fn an_answer_is_marked_for_its_reader_and_the_endpoints_word_is_dropped() {
        let mut fields = Fields::new();
        fields.append(ALLOW_ORIGIN, b"*");
        fields.append(Known::Vary, b"Accept");
        mark(&rule(), Some(b"https://app.test"), &mut fields);
        assert_eq!(fields.get_str(ALLOW_ORIGIN), Some("https://app.test"));
        assert_eq!(fields.get_str(EXPOSE_HEADERS), Some("x-total"));
        assert_eq!(fields.get_str(Known::Vary), Some("Accept, Origin"));

        mark(&rule(), None, &mut fields);
        assert!(!fields.contains(ALLOW_ORIGIN));
        assert_eq!(fields.get_str(Known::Vary), Some("Accept, Origin"));
    }

    #[test]
    fn for_all_origins_an_answer_does_not_vary() {
        let anyone = Cors {
            origins: Origins::Any,
            credentials: false,
            ..rule()
        };
        let mut fields = Fields::new();
        mark(&anyone, Some(b"https://app.test"), &mut fields);

        assert_eq!(fields.get_str(ALLOW_ORIGIN), Some("*"));
        assert!(!fields.contains(Known::Vary));
        assert!(!fields.contains(ALLOW_CREDENTIALS));
    }
}
