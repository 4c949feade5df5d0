//! WebSockets over HTTP/2 (RFC 8441) toward endpoints that speak HTTP/1.1: the handshake of RFC 6455,
//! which the client of a stream does not make. Pure but for the key, which is handed in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use super::super::fields::{Fields, Known, KnownSet};

/// RFC 6455 §1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Makes a stream's request one that asks for an upgrade (RFC 6455 §4.1). `nonce`: what no cache
/// has seen.
pub(crate) fn ask(fields: &mut Fields, nonce: u128) {
    fields.insert(Known::Connection, b"upgrade");
    fields.insert(Known::Upgrade, b"websocket");
    let key = STANDARD.encode(nonce.to_be_bytes());
    fields.insert(Known::WebsocketKey, key.as_bytes());
    if !fields.contains(Known::WebsocketVersion) {
        fields.append(Known::WebsocketVersion, b"13");
    }
}

/// Whether an endpoint's 101 answers the key that was asked with (RFC 6455 §4.1).
pub(crate) fn is_answered(answer: &Fields, key: &[u8]) -> bool {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(GUID);
    let wanted = STANDARD.encode(hash.finalize());
    let switched = answer.get(Known::Upgrade);
    switched.is_some_and(|to| to.eq_ignore_ascii_case(b"websocket"))
        && answer.get(Known::WebsocketAccept) == Some(wanted.as_bytes())
}

/// What is HTTP/1.1's alone (RFC 8441 §5).
pub(crate) const OF_HTTP_1: KnownSet = KnownSet::new(&[
    Known::Connection,
    Known::Upgrade,
    Known::WebsocketKey,
    Known::WebsocketAccept,
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_of_rfc_6455_is_recognised() {
        let key = b"dGhlIHNhbXBsZSBub25jZQ==";
        let mut fields = Fields::new();
        fields.append(Known::Upgrade, b"WebSocket");
        fields.append(Known::WebsocketAccept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

        assert!(is_answered(&fields, key));
        assert!(!is_answered(&fields, b"another"));
        fields.remove(Known::Upgrade);
        assert!(!is_answered(&fields, key));
    }

    #[test]
    fn a_key_is_sixteen_bytes_and_asks_for_version_13() {
        let mut fields = Fields::new();
        ask(&mut fields, 1);

        let key = STANDARD.decode(fields.get(Known::WebsocketKey).unwrap());
        assert_eq!(key.unwrap().len(), 16);
        assert_eq!(fields.get_str(Known::WebsocketVersion), Some("13"));
    }
}
