//! What a request's endpoint is found by where its pool hashes: the client's address, a header or a
//! cookie.
//!
//! Called by `http::attempt` for each attempt; chooses nothing itself.

use super::context::RequestContext;
use super::fields::{Fields, Known};
use crate::config::{BalancePolicy, Balancing, HashKey};
use crate::upstream::{hash, hash_of_client};

/// `None`: the pool does not hash, or the request lacks the key.
pub(crate) fn of(balance: &Balancing, request: &RequestContext) -> Option<u64> {
    let BalancePolicy::RingHash(key) = &balance.policy else {
        return None;
    };
    match key {
        HashKey::ClientIp => hash_of_client(balance, request.place.address),
        HashKey::Header(name) => of_value(request.head.fields.get(name.as_str())?),
        HashKey::Cookie(name) => of_value(cookie(&request.head.fields, name.as_bytes())?),
    }
}

fn of_value(value: &[u8]) -> Option<u64> {
    (!value.is_empty()).then(|| hash(value))
}

/// The value of the first cookie of that name (RFC 6265 §5.4), as it was sent.
fn cookie<'f>(fields: &'f Fields, name: &[u8]) -> Option<&'f [u8]> {
    let pairs = fields
        .all(Known::Cookie)
        .flat_map(|line| line.split(|byte| *byte == b';'));
    let mut found = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|byte| *byte == b'=')?;
        (&pair[..at] == name).then_some(&pair[at + 1..])
    });
    found.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(cookies: &[&str], name: &str) -> Option<String> {
        let mut fields = Fields::new();
        for line in cookies {
            fields.append(Known::Cookie, line.as_bytes());
        }
        cookie(&fields, name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_any_line() {
        let lines = ["a=1; sid=x=y; b=", "other=3"];

        assert_eq!(value(&lines, "sid").as_deref(), Some("x=y"));
        assert_eq!(value(&lines, "other").as_deref(), Some("3"));
        assert_eq!(value(&lines, "b").as_deref(), Some(""));
        for absent in ["id", "SID", "si", "c"] {
            assert_eq!(value(&lines, absent), None);
        }
        assert_eq!(value(&["junk; ;=;;"], "sid"), None);
    }
}
