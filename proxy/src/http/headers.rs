//! Headers on their way through: those that speak of one connection end here, and those that say
//! where a request comes from are written here.
//!
//! RFC 9110 §7.6 (hop-by-hop, `Via`), RFC 7239 (`Forwarded`) and the older `X-Forwarded-…`. Pure.
//! Frames no body: `Content-Length` passes as it is and `Transfer-Encoding` never passes, as each
//! side frames its own. Trace context (W3C `traceparent`, `tracestate`) is left as it came.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use ipnet::IpNet;
use sealane_model::EndpointProtocol;
use smallvec::SmallVec;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const X_SEALANE_REGION: HeaderName = HeaderName::from_static("x-sealane-region");
pub(crate) const X_SEALANE_ENDPOINT: HeaderName = HeaderName::from_static("x-sealane-endpoint");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What is known of a request's way to us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forwarding<'a> {
    /// The connection's other side: the client, or a trusted proxy in front of us.
    pub(crate) peer: IpAddr,
    /// Its word about where the request comes from is believed.
    pub(crate) trusted_peer: bool,
    /// `http` or `https`.
    pub(crate) scheme: &'a str,
    /// As the client wrote it (`Host` or `:authority`); empty if it named none.
    pub(crate) host: &'a str,
    pub(crate) request_id: &'a HeaderValue,
    /// `Connection` and `Upgrade` stay: the request asks for a tunnel (see [`wants_upgrade`]).
    pub(crate) upgrade: bool,
    /// In which version the request was received: `Via` says so.
    pub(crate) received: Version,
    /// In which protocol it goes on: `te: trailers` means something in HTTP/2 only, as our HTTP/1
    /// side carries no trailers.
    pub(crate) toward: EndpointProtocol,
}

/// Makes a client's headers those of our own request to an endpoint. To be called once per attempt,
/// each time on the headers that the client sent.
pub(crate) fn toward_endpoint(headers: &mut HeaderMap, forwarding: &Forwarding<'_>) {
    let trailers = forwarding.toward == EndpointProtocol::Http2 && takes_trailers(headers);
    end_here(headers, forwarding.upgrade);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if !forwarding.trusted_peer {
        forget_origin(headers);
    }
    tell_origin(headers, forwarding);
    headers.append(VIA, via(forwarding.received));
    headers.insert(X_REQUEST_ID, forwarding.request_id.clone());
}

/// Makes an endpoint's headers those of our own answer. `named`: the region and the endpoint that
/// answered, where the client may know; what an endpoint itself says about that is never passed on.
pub(crate) fn toward_client(
    headers: &mut HeaderMap,
    named: Option<(&HeaderValue, &HeaderValue)>,
    request_id: &HeaderValue,
    upgrade: bool,
) {
    end_here(headers, upgrade);
    headers.insert(X_REQUEST_ID, request_id.clone());
    match named {
        Some((region, endpoint)) => {
            headers.insert(X_SEALANE_REGION, region.clone());
            headers.insert(X_SEALANE_ENDPOINT, endpoint.clone());
        }
        None => {
            headers.remove(X_SEALANE_REGION);
            headers.remove(X_SEALANE_ENDPOINT);
        }
    }
}

/// Takes out of trailers what only a head may say: who merges trailers into headers must not be told
/// another framing, route or identity by them (RFC 9110 §6.5.1). For both directions.
pub(crate) fn trailers_onward(trailers: &mut HeaderMap) {
    end_here(trailers, false);
    for name in NEVER_TRAILERS {
        trailers.remove(name);
    }
    forget_origin(trailers);
}

const NEVER_TRAILERS: [HeaderName; 11] = [
    HOST,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    CONTENT_ENCODING,
    CONTENT_RANGE,
    TRAILER,
    AUTHORIZATION,
    COOKIE,
    SET_COOKIE,
    VIA,
    X_REQUEST_ID,
];

/// Where a request comes from: the right-most address of `X-Forwarded-For` that is not trusted, if
/// the peer is. A part that is no address ends the walk, and so do [`HOPS_MAX`] parts: what stands
/// left of either is anyone's word.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut nearest = peer.to_canonical();
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let mut parts = lines
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
        .take(HOPS_MAX);
    while is_trusted(&nearest) {
        let Some(next) = parts.next().and_then(address_of) else {
            break;
        };
        nearest = next;
    }
    nearest
}

/// Proxies in front of us that are followed at most.
const HOPS_MAX: usize = 32;

/// An address, perhaps with a port behind it: some proxies write one.
fn address_of(part: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(part.trim_ascii()).ok()?;
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let plain = bare.unwrap_or(text).parse::<IpAddr>();
    let address = plain.or_else(|_| text.parse::<SocketAddr>().map(|with_port| with_port.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// The request's name in all logs: the one that a trusted peer gave, if it can be logged as it
/// stands; else `random` in hexadecimal.
pub(crate) fn request_id(headers: &HeaderMap, trusted_peer: bool, random: u128) -> HeaderValue {
    let given = headers.get(X_REQUEST_ID).filter(|_| trusted_peer);
    if let Some(given) = given.filter(|given| is_loggable(given)) {
        return given.clone();
    }
    let mut hex = [0; 32];
    for (at, digit) in hex.iter_mut().enumerate() {
        let nibble = (random >> (124 - 4 * at)) & 0xf;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
    // Never an error: hexadecimal digits are lawful in a header.
    HeaderValue::from_bytes(&hex).unwrap_or(HeaderValue::from_static("-"))
}

/// Bytes of the longest request id that is taken over.
const REQUEST_ID_MAX: usize = 128;

fn is_loggable(id: &HeaderValue) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:=+/@".contains(byte);
    !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.as_bytes().iter().all(plain)
}

/// Does the client speak gRPC? It reads errors from `grpc-status`, not from the status. (gRPC-Web
/// does not count: it is translated before or behind us.)
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    let kind = kind.as_bytes();
    let Some((start, rest)) = kind.split_at_checked(GRPC.len()) else {
        return false;
    };
    start.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

const GRPC: &[u8] = b"application/grpc";

/// Does an HTTP/1.1 request ask for a tunnel, such as a WebSocket (RFC 9110 §7.8)? Changing to
/// another version of HTTP, or to TLS, is not passed on: requests could hide in it from us.
pub(crate) fn wants_upgrade(headers: &HeaderMap) -> bool {
    let mut protocols = tokens(headers, &UPGRADE).peekable();
    let hides = |protocol: &[u8]| {
        let starts = |with: &[u8]| {
            let start = protocol.get(..with.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(with))
        };
        starts(b"h2") || starts(b"http") || starts(b"tls")
    };
    protocols.peek().is_some()
        && !protocols.any(hides)
        && tokens(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// Removes what speaks of one connection only: the fields that `Connection` names, and those that
/// are known to even if it does not (RFC 9110 §7.6.1).
fn end_here(headers: &mut HeaderMap, upgrade: bool) {
    let kept = headers.get(UPGRADE).filter(|_| upgrade).cloned();
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if let Some(protocol) = kept {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

fn named_by_connection(headers: &HeaderMap) -> SmallVec<[HeaderName; 2]> {
    tokens(headers, &CONNECTION)
        .take(CONNECTION_OPTIONS_MAX)
        .filter(|option| {
            let usual: [&[u8]; 3] = [b"keep-alive", b"close", b"upgrade"];
            !usual.iter().any(|usual| option.eq_ignore_ascii_case(usual))
        })
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| !is_load_bearing(name))
        .collect()
}

/// Fields that `Connection` may name; the ones behind are not removed. A lawful sender names a few.
const CONNECTION_OPTIONS_MAX: usize = 128;

/// What a `Connection` header cannot talk us out of: without it the message would be another one,
/// or come from somewhere else.
fn is_load_bearing(name: &HeaderName) -> bool {
    [HOST, CONTENT_LENGTH, VIA, X_REQUEST_ID].contains(name) || speaks_of_origin(name)
}

/// The parts of a comma-separated list over all its lines, without empty ones (RFC 9110 §5.6.1).
fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(name).into_iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|part| !part.is_empty())
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, &TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Takes out everything by which an endpoint could mistake the client for another one.
fn forget_origin(headers: &mut HeaderMap) {
    let claims = headers.keys().filter(|name| speaks_of_origin(name));
    let claims: SmallVec<[HeaderName; 4]> = claims.cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// `Forwarded`, `X-Forwarded-…` and `X-Real-IP`; also as `X_Forwarded_…`, which many endpoints
/// cannot tell from it.
fn speaks_of_origin(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let starts = |with: &[u8]| {
        let start = name.get(..with.len());
        start.is_some_and(|start| {
            start
                .iter()
                .map(|byte| dashed(*byte))
                .eq(with.iter().copied())
        })
    };
    name == b"forwarded" || starts(b"x-forwarded-") || (starts(b"x-real-ip") && name.len() == 9)
}

/// Adds the peer to what is believed of the hops before it.
fn tell_origin(headers: &mut HeaderMap, forwarding: &Forwarding<'_>) {
    let peer = forwarding.peer.to_canonical();
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = write!(text, "{peer}");
    extend_list(headers, X_FORWARDED_FOR, text.as_bytes());
    set_if_absent(headers, X_FORWARDED_PROTO, forwarding.scheme);
    // HTTP/1.0 needs no host (RFC 9112 §3.2).
    if !forwarding.host.is_empty() {
        set_if_absent(headers, X_FORWARDED_HOST, forwarding.host);
    }

    text.clear();
    let _ = match peer {
        IpAddr::V4(v4) => write!(text, "for={v4}"),
        IpAddr::V6(v6) => write!(text, "for=\"[{v6}]\""),
    };
    if !forwarding.host.is_empty() {
        text.push_str(";host=");
        push_quoted(&mut text, forwarding.host);
    }
    text.push_str(";proto=");
    text.push_str(forwarding.scheme);
    extend_list(headers, FORWARDED, text.as_bytes());
}

/// Makes one line of all that are there, with `last` behind them.
fn extend_list(headers: &mut HeaderMap, name: HeaderName, last: &[u8]) {
    let mut list: SmallVec<[u8; 128]> = SmallVec::new();
    for line in headers.get_all(&name) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(last);
    // An error only if `last` holds control characters: then nothing is better than a half-truth.
    match HeaderValue::from_bytes(&list) {
        Ok(list) => drop(headers.insert(name, list)),
        Err(_) => drop(headers.remove(name)),
    }
}

fn set_if_absent(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if headers.contains_key(&name) {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A token as it is, anything else as a quoted string (RFC 9110 §5.6.4).
fn push_quoted(text: &mut String, value: &str) {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !value.is_empty() && value.bytes().all(is_token) {
        return text.push_str(value);
    }
    text.push('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('"');
}

/// Our own entry (RFC 9110 §7.6.3).
fn via(received: Version) -> HeaderValue {
    HeaderValue::from_static(match received {
        Version::HTTP_09 | Version::HTTP_10 => "1.0 sealane",
        Version::HTTP_2 => "2.0 sealane",
        Version::HTTP_3 => "3.0 sealane",
        _ => "1.1 sealane",
    })
}

#[cfg(test)]
mod tests;
