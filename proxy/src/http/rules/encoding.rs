//! Whether an answer is compressed and how: what the client takes (RFC 9110 §12.5.3), what the answer
//! allows, and what its head says afterwards. Pure; the compressing is [`super::squeeze`]'s.

use http::StatusCode;

use super::super::fields::{Fields, Known};
use super::edits::add_to_vary;
use crate::config::{Compression, Encoding, TypePattern};

/// Decides for one answer with a body, and makes its head say so. `asked`: the request's headers.
/// `None`: it passes as it is.
pub(crate) fn choose(
    rule: &Compression,
    asked: &Fields,
    status: StatusCode,
    fields: &mut Fields,
) -> Option<Encoding> {
    if !may_change(rule, asked, status, fields) {
        return None;
    }
    // Whatever this client takes: another one may get another answer from a cache.
    add_to_vary(fields, "Accept-Encoding");
    accepted(&rule.encodings, asked)
}

/// The answer's body will be `encoding`'s.
pub(crate) fn mark(encoding: Encoding, fields: &mut Fields) {
    fields.remove(Known::ContentLength);
    fields.remove(Known::AcceptRanges); // ranges would be of the other bytes
    fields.insert(Known::ContentEncoding, encoding.as_str().as_bytes());
    weaken_etag(fields);
}

/// A strong validator promises the same bytes (RFC 9110 §8.8.1).
fn weaken_etag(fields: &mut Fields) {
    let etag = fields.get(Known::Etag);
    let strong = etag.filter(|etag| !etag.starts_with(b"W/"));
    if let Some(weak) = strong.map(|etag| [b"W/", etag].concat()) {
        fields.insert(Known::Etag, &weak);
    }
}

/// Digests of what the endpoint sent (RFC 9530): they would no longer be right.
const DIGESTS: [&str; 3] = ["content-digest", "digest", "content-md5"];

fn may_change(rule: &Compression, asked: &Fields, status: StatusCode, fields: &Fields) -> bool {
    let whole = !status.is_informational()
        && !matches!(
            status,
            StatusCode::NO_CONTENT | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
        );
    whole
        && !fields.contains(Known::ContentEncoding)
        && !fields.contains(Known::ContentRange)
        && !DIGESTS.iter().any(|name| fields.contains(*name))
        && !forbids_change(fields)
        && !forbids_change(asked)
        && is_large_enough(rule, fields)
        && has_type(rule, fields)
}

/// `no-transform` (RFC 9111 §5.2.1.6, §5.2.2.6).
fn forbids_change(fields: &Fields) -> bool {
    let mut directives = fields.tokens(Known::CacheControl);
    directives.any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

fn is_large_enough(rule: &Compression, fields: &Fields) -> bool {
    let length = fields.get_str(Known::ContentLength);
    let length = length.and_then(|length| length.parse::<u64>().ok());
    // Of unknown length: streams, where each byte saved counts.
    length.is_none_or(|length| length >= rule.size_min)
}

fn has_type(rule: &Compression, fields: &Fields) -> bool {
    let Some(kind) = fields.get_str(Known::ContentType) else {
        return false;
    };
    let kind = kind.split(';').next().unwrap_or_default().trim();
    rule.types.iter().any(|pattern| is_like(pattern, kind))
}

fn is_like(pattern: &TypePattern, kind: &str) -> bool {
    match pattern {
        TypePattern::Exact(exact) => kind.eq_ignore_ascii_case(exact),
        TypePattern::Around(before, behind) => {
            let fits = kind.len() >= before.len() + behind.len();
            let start = kind.get(..before.len());
            let end = kind.get(kind.len().saturating_sub(behind.len())..);
            fits && start.is_some_and(|start| start.eq_ignore_ascii_case(before))
                && end.is_some_and(|end| end.eq_ignore_ascii_case(behind))
        }
    }
}

/// Codings of one request that are looked at; a client knows a handful.
const CODINGS_MAX: usize = 32;

/// The coding that the client likes best; of equal ones our first. `None`: none of ours, or the
/// client prefers it plain.
fn accepted(ours: &[Encoding], asked: &Fields) -> Option<Encoding> {
    let parts = asked.tokens(Known::AcceptEncoding).take(CODINGS_MAX);
    let codings = parts.filter_map(coding);
    let mut named = [None; Encoding::ALL.len()];
    let mut others = 0;
    let mut plain = None;
    for (name, weight) in codings {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("*") {
            others = weight;
        } else if is("identity") {
            plain = Some(weight);
        } else if let Some(at) = Encoding::ALL.iter().position(|(known, _)| is(known)) {
            named[at] = Some(weight);
        } else if is("x-gzip") {
            named[Encoding::Gzip as usize] = Some(weight); // RFC 9110 §8.4.1.3
        }
    }
    let weight = |encoding: Encoding| named[encoding as usize].unwrap_or(others);
    let mut best: Option<Encoding> = None;
    for encoding in ours
        .iter()
        .copied()
        .filter(|encoding| weight(*encoding) > 0)
    {
        if best.is_none_or(|best| weight(encoding) > weight(best)) {
            best = Some(encoding);
        }
    }
    best.filter(|best| plain.is_none_or(|plain| weight(*best) >= plain))
}

/// A coding and its weight in thousandths (RFC 9110 §12.4.2). One whose weight cannot be read is
/// none.
fn coding(text: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = text.split(|byte| *byte == b';');
    let name = parts.next()?.trim_ascii();
    if name.is_empty() {
        return None;
    }
    let weight = match parts.next() {
        None => 1000,
        Some(parameter) => weight(parameter.trim_ascii())?,
    };
    Some((name, weight))
}

fn weight(parameter: &[u8]) -> Option<u16> {
    let value = parameter
        .strip_prefix(b"q=")
        .or_else(|| parameter.strip_prefix(b"Q="))?;
    let (whole, decimals) = match value {
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        [whole] => (whole, &[][..]),
        _ => return None,
    };
    let mut thousandths = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    let mut place = 100;
    for digit in decimals {
        if !digit.is_ascii_digit() {
            return None;
        }
        thousandths += u16::from(digit - b'0') * place;
        place /= 10;
    }
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Compression {
        Compression {
            encodings: vec![Encoding::Zstd, Encoding::Brotli, Encoding::Gzip],
            types: vec![
                TypePattern::Around("text/".into(), "".into()),
                TypePattern::Exact("application/json".into()),
                TypePattern::Around("application/".into(), "+json".into()),
            ],
            size_min: 100,
            level: 4,
        }
    }

    fn asking(accept: &str) -> Fields {
        let mut asked = Fields::new();
        asked.append(Known::AcceptEncoding, accept.as_bytes());
        asked
    }

    #[test]
    fn the_coding_that_the_client_likes_best_is_taken_then_our_first() {
        for (accept, wanted) in [
            ("gzip", Some(Encoding::Gzip)),
            ("x-gzip", Some(Encoding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Encoding::Zstd)),
            ("GZIP;q=1, zstd;q=0.5", Some(Encoding::Gzip)),
            ("gzip;q=0.001,zstd;q=0", Some(Encoding::Gzip)),
            ("*", Some(Encoding::Zstd)),
            ("zstd;q=0, *;q=0.5", Some(Encoding::Brotli)),
            ("gzip;q=0.5, identity", None),
            ("gzip;q=0.5, identity;q=0.5", Some(Encoding::Gzip)),
            ("gzip;q=0", None),
            ("gzip;q=2", None),
            ("gzip;q=0.1234", None),
            ("gzip;q=1.1", None),
            ("identity", None),
            ("deflate", None),
            ("", None),
        ] {
            assert_eq!(
                accepted(&rule().encodings, &asking(accept)),
                wanted,
                "{accept}"
            );
        }
        assert_eq!(accepted(&rule().encodings, &Fields::new()), None);
    }

    fn answer(with: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        fields.append(Known::ContentType, b"text/html; charset=utf-8");
        for (name, value) in with {
            fields.insert(*name, value.as_bytes());
        }
        fields
    }

    fn chosen(fields: &[(&str, &str)], status: u16) -> Option<Encoding> {
        let status = StatusCode::from_u16(status).unwrap();
        choose(&rule(), &asking("gzip"), status, &mut answer(fields))
    }

    #[test]
    fn an_answer_is_left_alone_where_changing_it_would_be_wrong_or_useless() {
        assert_eq!(chosen(&[], 200), Some(Encoding::Gzip));
        assert_eq!(
            chosen(&[("content-length", "100")], 404),
            Some(Encoding::Gzip)
        );
        let json = [("content-type", "application/problem+json")];
        assert_eq!(chosen(&json, 200), Some(Encoding::Gzip));
        for (fields, status) in [
            (("x", "y"), 206),
            (("x", "y"), 204),
            (("x", "y"), 304),
            (("content-range", "bytes 0-1/2"), 416),
            (("content-encoding", "br"), 200),
            (("content-length", "99"), 200),
            (("cache-control", "public, No-Transform"), 200),
            (("content-digest", "sha-256=:x:"), 200),
            (("content-type", "image/png"), 200),
            (("content-type", "application/json5"), 200),
            (("content-type", "application/grpc"), 200),
        ] {
            assert_eq!(chosen(&[fields], status), None, "{fields:?} {status}");
        }
    }

    #[test]
    fn a_client_that_wants_no_change_gets_none() {
        let mut asked = asking("gzip");
        asked.append(Known::CacheControl, b"no-transform");

        let chosen = choose(&rule(), &asked, StatusCode::OK, &mut answer(&[]));

        assert_eq!(chosen, None);
    }

    #[test]
    fn what_might_be_compressed_varies_and_what_is_has_another_head() {
        let mut fields = answer(&[
            ("etag", "\"x\""),
            ("content-length", "1000"),
            ("accept-ranges", "bytes"),
        ]);
        let plain = choose(&rule(), &asking("identity"), StatusCode::OK, &mut fields);
        assert_eq!(plain, None);
        assert_eq!(fields.get_str(Known::Vary), Some("Accept-Encoding"));
        assert_eq!(fields.get_str(Known::Etag), Some("\"x\""));

        mark(Encoding::Brotli, &mut fields);
        assert_eq!(fields.get_str(Known::ContentEncoding), Some("br"));
        assert_eq!(fields.get_str(Known::Etag), Some("W/\"x\""));
        assert!(!fields.contains(Known::ContentLength));
        assert!(!fields.contains(Known::AcceptRanges));
        mark(Encoding::Brotli, &mut fields);
        assert_eq!(fields.get_str(Known::Etag), Some("W/\"x\""));
    }
}
