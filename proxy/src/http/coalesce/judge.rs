//! Whether an answer may be shared by those who asked the same. Pure.
//!
//! An answer that says whom it is for, or that it depends on what its sharers may differ in, goes to
//! the one whose attempt it was.

use http::StatusCode;

use super::Part;
use super::key::is_covered;
use crate::config::Coalesce;
use crate::http::client::content_length;
use crate::http::fields::{Fields, Known};
use crate::http::message::AnswerHead;

/// What forbids to share the answer; `None`: nothing does.
pub(super) fn obstacle(rule: &Coalesce, head: &AnswerHead, trusted_peer: bool) -> Option<Part> {
    let fields = &head.fields;
    if speaks_of_client(head.status) {
        return Some(Part::Status);
    }
    if fields.contains(Known::SetCookie) {
        return Some(Part::SetCookie);
    }
    if let Some(part) = forbidden_by_cache_control(fields) {
        return Some(part);
    }
    let varies = |name: &[u8]| name == b"*" || !is_covered(rule, name, trusted_peer);
    if fields.tokens(Known::Vary).any(varies) {
        return Some(Part::Vary);
    }
    if content_length(fields).is_some_and(|length| length > rule.body_max) {
        return Some(Part::Large);
    }
    is_event_stream(fields).then_some(Part::Stream)
}

/// Statuses that may be about who asked, or for whom a part was chosen: blocked, over a limit, not
/// signed in.
fn speaks_of_client(status: StatusCode) -> bool {
    const OF_THE_TARGET: [StatusCode; 3] = [
        StatusCode::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED,
        StatusCode::GONE,
    ];
    status == StatusCode::PARTIAL_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || status.is_client_error() && !OF_THE_TARGET.contains(&status)
}

fn forbidden_by_cache_control(fields: &Fields) -> Option<Part> {
    fields.tokens(Known::CacheControl).find_map(|directive| {
        let name = directive.split(|byte| *byte == b'=').next();
        let name = name.unwrap_or(directive).trim_ascii();
        if name.eq_ignore_ascii_case(b"private") {
            Some(Part::Private)
        } else if name.eq_ignore_ascii_case(b"no-store") {
            Some(Part::NoStore)
        } else {
            None
        }
    })
}

/// Events are for whoever listens from then on: who comes later must not be told the old ones.
fn is_event_stream(fields: &Fields) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let kind = fields.get(Known::ContentType).unwrap_or_default();
    let start = kind.get(..EVENTS.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(EVENTS))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderName, Method};

    use super::*;
    use crate::config::Credentials;

    fn rule() -> Coalesce {
        Coalesce {
            methods: vec![Method::GET],
            headers: vec![HeaderName::from_static("accept-encoding")],
            credentials: Credentials::Alone,
            wait: Duration::from_secs(5),
            followers: 10,
            body_max: 1_000,
        }
    }

    fn obstacle_of(status: u16, fields: &[(&str, &str)]) -> Option<Part> {
        let mut head = AnswerHead::new(StatusCode::from_u16(status).unwrap());
        for (name, value) in fields {
            head.fields.append(*name, value.as_bytes());
        }
        obstacle(&rule(), &head, false)
    }

    #[test]
    fn an_answer_for_everybody_is_shared() {
        for status in [200, 204, 301, 404, 410, 500, 503] {
            assert_eq!(obstacle_of(status, &[]), None, "{status}");
        }
        let usual = [
            ("cache-control", "public, max-age=60, no-cache"),
            ("vary", "Accept-Encoding"),
            ("content-length", "1000"),
            ("content-type", "text/html"),
        ];
        assert_eq!(obstacle_of(200, &usual), None);
    }

    #[test]
    fn an_answer_for_one_is_not() {
        let cases = [
            (("set-cookie", "a=b"), Part::SetCookie),
            (("cache-control", "max-age=1, Private"), Part::Private),
            (("cache-control", "private=\"x-user\""), Part::Private),
            (("cache-control", "no-store"), Part::NoStore),
            (("vary", "*"), Part::Vary),
            (("vary", "accept-encoding, User-Agent"), Part::Vary),
            (("vary", "accept-language"), Part::Vary),
            (("content-length", "1001"), Part::Large),
            (
                ("content-type", "text/event-stream; charset=utf-8"),
                Part::Stream,
            ),
        ];
        for (field, wanted) in cases {
            assert_eq!(obstacle_of(200, &[field]), Some(wanted), "{field:?}");
        }
        for status in [206, 304, 400, 401, 403, 421, 429, 451] {
            assert_eq!(obstacle_of(status, &[]), Some(Part::Status), "{status}");
        }
    }

    #[test]
    fn what_no_sharer_has_or_all_have_alike_may_vary() {
        for name in [
            "cookie",
            "authorization",
            "host",
            "x-tenant",
            "range",
            "x-api-key",
        ] {
            assert_eq!(obstacle_of(200, &[("vary", name)]), None, "{name}");
        }
    }
}
