//! What must hold for heads after they were read: their admission, what is believed of where they come
//! from, and what they ask for.

use std::net::{IpAddr, Ipv4Addr};

use ::http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE,
};
use ::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version, request};
use bytes::BytesMut;

use crate::codec::{scanned, scanned_unbounded};
use crate::config::{Compression, Encoding, TypePattern};
use crate::h1::head;
use crate::http::admit;
use crate::http::fields::{Fields, Known};
use crate::http::headers::{self, Forwarding, PeerText};
use crate::http::message::RequestHead;
use crate::http::rules::{encoding, grpc};

/// Whatever of an HTTP/2 head is admitted is one lawful head of HTTP/1.1, and no more, with the same
/// method, target and host.
pub fn http2(text: &str) {
    let Some(parts) = http2_parts(text) else {
        return;
    };
    let lengths = parts.headers.get_all(CONTENT_LENGTH).iter().count();
    let tunnel = admit::is_websocket(&parts);
    let asked = parts.uri.clone();
    let (head, Ok(())) = admit::admit(parts) else {
        return;
    };
    assert!(!tunnel, "there is no protocol");
    assert!(head.target().starts_with('/') || head.target() == "*");
    assert_eq!(head.fields.all(Known::Host).count(), 1);
    assert!(lengths <= 1);
    if let Some(authority) = asked.authority() {
        assert!(head.host().eq_ignore_ascii_case(authority.as_str()));
    }
    // Admitted heads are lawful for HTTP/1.1 as well, where they are checked another time.
    assert!(admit::check(&head).is_ok());
    let mut onward = head.for_attempt();
    headers::toward_endpoint(&mut onward.fields, &forwarding(&peer(), false, Version::HTTP_2));
    read_again(&onward);
}

/// One head in lines, as h2 hands it over: method, authority (or none), target, then fields.
fn http2_parts(text: &str) -> Option<request::Parts> {
    let mut lines = text.lines();
    let method = Method::from_bytes(lines.next()?.as_bytes()).ok()?;
    if method == Method::CONNECT {
        return None;
    }
    let (authority, target) = (lines.next()?, lines.next()?);
    let uri = if authority.is_empty() {
        target.parse::<Uri>().ok()?
    } else {
        let builder = Uri::builder().scheme("https").authority(authority);
        builder.path_and_query(target).build().ok()?
    };
    let mut request = Request::builder().method(method).uri(uri);
    request = request.version(Version::HTTP_2);
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_lowercase(name.as_bytes()).ok()?;
        // These h2 refuses itself.
        if [CONNECTION, UPGRADE].contains(&name) {
            return None;
        }
        request = request.header(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

/// A request's head, as HTTP/1.1 has it. Nothing in it speaks of a connection or for somebody else
/// once it is on its way; the first byte says whether the peer is trusted.
pub fn forwarded(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let trusted_peer = first & 1 == 1;
    let Some(length) = scanned(bytes) else {
        return;
    };
    let Ok(read) = head::request(bytes[..length].to_vec()) else {
        return;
    };
    if admit::check(&read.head).is_err() {
        return;
    }
    let mut onward = read.head.for_attempt();
    let fields = &mut onward.fields;
    let trusted = ["127.0.0.0/8".parse().expect("a network")];
    let believed = if trusted_peer { &trusted[..] } else { &[] };
    let client = headers::client_address(PEER, fields, believed);
    assert!(trusted_peer || client == PEER);
    let upgrade = headers::wants_upgrade(fields);
    let peer = peer();
    let forwarding = forwarding(&peer, trusted_peer, read.head.version);
    headers::toward_endpoint(fields, &Forwarding { upgrade, ..forwarding });
    for name in [Known::KeepAlive, Known::ProxyConnection, Known::TransferEncoding] {
        assert!(!fields.contains(name), "{name:?}");
    }
    assert!(upgrade || !fields.contains(Known::Connection) && !fields.contains(Known::Upgrade));
    assert_eq!(fields.all(Known::XForwardedFor).count(), 1);
    if !trusted_peer {
        assert_eq!(fields.get(Known::XForwardedFor), Some(&b"127.0.0.1"[..]));
        assert_eq!(fields.get(Known::XForwardedProto), Some(&b"https"[..]));
    }
    read_again(&onward);

    let mut answer = read.head.fields.clone();
    headers::toward_client(&mut answer, Some(("eu", "one")), &forwarding.request_id.clone(), false);
    assert_eq!(answer.get(Known::XSealaneRegion), Some(&b"eu"[..]));
    assert!(!answer.contains(Known::Connection) && !answer.contains(Known::TransferEncoding));
    let mut trailers = read.head.fields;
    headers::trailers_onward(&mut trailers);
    assert!(!trailers.contains(Known::Host) && !trailers.contains(Known::ContentLength));
    headers::trailers_onward(&mut answer);
}

/// What an `Accept-Encoding` allows, in the first line; in the second a `grpc-timeout`.
pub fn asked_for(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let accept = parts.next().unwrap_or_default();
    if let Some(timeout) = parts.next()
        && let Some(read) = grpc::read(timeout)
    {
        let written = grpc::write(read);
        let again = grpc::read(written.as_bytes()).expect("what is written can be read");
        assert!(again <= read, "nobody is promised more than there is");
    }
    if accept.iter().any(|byte| byte.is_ascii_control()) {
        return; // no head has such a field
    }
    let chosen = choose(&[accept]);
    // An empty one takes none of ours.
    assert!(!(accept.trim_ascii().is_empty() && chosen.is_some()));
    // Refused by name, the last word.
    if accept.iter().filter(|byte| **byte == b',').count() < 16 && !accept.contains(&b'"') {
        let refused = [accept, &b",zstd;q=0,br;q=0.0,gzip;q=0.000"[..]].concat();
        assert_eq!(choose(&[&refused]), None);
        // One line or several: RFC 9110 §5.3.
        assert_eq!(choose(&[accept, b"zstd;q=0,br;q=0.0,gzip;q=0.000"]), None);
    }
}

fn choose(lines: &[&[u8]]) -> Option<Encoding> {
    let rule = Compression {
        encodings: vec![Encoding::Zstd, Encoding::Brotli, Encoding::Gzip],
        types: vec![TypePattern::Around("text/".into(), "".into())],
        size_min: 0,
        level: 4,
    };
    let mut asked = Fields::new();
    for line in lines {
        asked.append(Known::AcceptEncoding, line);
    }
    let mut answer = Fields::new();
    answer.append(Known::ContentType, b"text/plain");
    answer.append(Known::Etag, b"\"1\"");
    let chosen = encoding::choose(&rule, &asked, StatusCode::OK, &mut answer);
    if let Some(chosen) = chosen {
        encoding::mark(chosen, &mut answer);
        let coding = answer.get(Known::ContentEncoding);
        assert_eq!(coding, Some(chosen.as_str().as_bytes()));
    }
    chosen
}

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn peer() -> PeerText {
    PeerText::new(PEER)
}

fn forwarding(peer: &PeerText, trusted_peer: bool, received: Version) -> Forwarding<'_> {
    static ID: std::sync::OnceLock<headers::RequestId> = std::sync::OnceLock::new();
    Forwarding {
        peer,
        trusted_peer,
        scheme: "https",
        request_id: ID.get_or_init(|| headers::request_id(&Fields::new(), false, 7)),
        identity: None,
        upgrade: false,
        received,
    }
}

/// Written out, it is one head with one reading.
fn read_again(head: &RequestHead) {
    let mut written = BytesMut::new();
    head.write_to(&mut written);
    assert_eq!(scanned_unbounded(&written), Some(written.len()));
    let again = head::request(written.to_vec()).expect("what was admitted is lawful");
    assert_eq!(again.head.method, head.method);
    assert_eq!(again.head.target(), head.target());
    // h2 lets white space around values through, which HTTP/1.1 does not count as theirs.
    let trimmed = |fields: &Fields| -> Vec<(Vec<u8>, Vec<u8>)> {
        let each = fields.iter();
        each.map(|(name, value)| (name.to_vec(), value.trim_ascii().to_vec()))
            .collect()
    };
    assert_eq!(trimmed(&again.head.fields), trimmed(&head.fields));
}
