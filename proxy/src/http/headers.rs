//! Headers on their way through: those that speak of one connection end here, and those that say
//! where a request comes from are written here.
//!
//! RFC 9110 §7.6 (hop-by-hop, `Via`), RFC 7239 (`Forwarded`) and the older `X-Forwarded-…`. Pure.
//! Frames no body: `Content-Length` passes as it is and `Transfer-Encoding` never passes, as each
//! side frames its own. Trace context (W3C `traceparent`, `tracestate`) is left as it came.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};

use http::Version;
use ipnet::IpNet;
use smallvec::SmallVec;

use super::fields::{Fields, Known, KnownSet, Written};
use crate::h1::head::is_token;

/// A peer's address as headers have it; made once for each connection.
#[derive(Clone, Debug)]
pub(crate) struct PeerText {
    pub(crate) address: IpAddr,
    /// As in `X-Forwarded-For`.
    plain: Box<str>,
    /// As in `Forwarded`: `for=…`.
    forwarded: Box<str>,
    told: RefCell<Option<Told>>,
}

/// The lines that endpoints were last told of a peer's request: most ask for one host, over and over.
#[derive(Clone, Debug)]
struct Told(Written);

impl Told {
    fn about(host: &[u8], forwarding: &Forwarding<'_>) -> Option<Self> {
        let mut lines = Fields::new();
        add_origin(&mut lines, host, forwarding);
        Written::of(&lines).map(Self)
    }

    fn is_for(&self, host: &[u8], forwarding: &Forwarding<'_>) -> bool {
        self.0.get(Known::XForwardedHost).unwrap_or_default() == host
            && self.0.get(Known::XForwardedProto) == Some(forwarding.scheme.as_bytes())
            && self.0.get(Known::Via) == Some(via(forwarding.received))
    }
}

/// Bytes of the longest host for which it is kept: it is kept as long as the connection.
const TOLD_HOST_MAX: usize = 255;

impl PeerText {
    pub(crate) fn new(peer: IpAddr) -> Self {
        let address = peer.to_canonical();
        let forwarded = match address {
            IpAddr::V4(v4) => format!("for={v4}"),
            IpAddr::V6(v6) => format!("for=\"[{v6}]\""),
        };
        Self {
            address,
            plain: address.to_string().into(),
            forwarded: forwarded.into(),
            told: RefCell::default(),
        }
    }
}

/// A request's name in logs and headers: 32 hexadecimal digits, or what a trusted peer gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestId(SmallVec<[u8; 32]>);

impl RequestId {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// What is known of a request's way to us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forwarding<'a> {
    /// The connection's other side: the client, or a trusted proxy in front of us.
    pub(crate) peer: &'a PeerText,
    /// Its word about where the request comes from is believed.
    pub(crate) trusted_peer: bool,
    /// `http` or `https`.
    pub(crate) scheme: &'a str,
    pub(crate) request_id: &'a RequestId,
    /// Who the client proved to be, where its certificate was asked for.
    pub(crate) identity: Option<&'a str>,
    /// `Connection` and `Upgrade` stay: the request asks for a tunnel (see [`wants_upgrade`]).
    pub(crate) upgrade: bool,
    /// In which version the request was received: `Via` says so.
    pub(crate) received: Version,
}

/// Makes a client's headers those of our own request to an endpoint. To be called once per attempt,
/// each time on the headers that the client sent, with their one `Host`.
pub(crate) fn toward_endpoint(fields: &mut Fields, forwarding: &Forwarding<'_>) {
    let trailers = takes_trailers(fields);
    end_here(fields, forwarding.upgrade, !forwarding.trusted_peer);
    if trailers {
        fields.append(Known::Te, b"trailers");
    }
    tell_origin(fields, forwarding);
    fields.insert(Known::XRequestId, forwarding.request_id.as_bytes());
    if let Some(identity) = forwarding.identity {
        fields.append(Known::XSealaneClientIdentity, identity.as_bytes());
    }
}

/// Tells an endpoint that others were asked before it, so that it can tell retries from fresh work.
/// `number`: of this attempt. gRPC has a name of its own for it (gRFC A6), to which a client's earlier
/// attempts are added.
pub(crate) fn say_attempt(fields: &mut Fields, number: u32, grpc: bool) {
    fields.insert(X_SEALANE_ATTEMPT, number.to_string().as_bytes());
    if grpc {
        let before = fields.get_str(GRPC_PREVIOUS_ATTEMPTS);
        let before = before.and_then(|text| text.parse::<u32>().ok());
        let before = before.unwrap_or(0).saturating_add(number - 1);
        fields.insert(GRPC_PREVIOUS_ATTEMPTS, before.to_string().as_bytes());
    }
}

const X_SEALANE_ATTEMPT: &str = "x-sealane-attempt";
const GRPC_PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";

/// Makes an endpoint's headers those of our own answer. `named`: the region and the endpoint that
/// answered, where the client may know; what an endpoint itself says about that is never passed on.
pub(crate) fn toward_client(
    fields: &mut Fields,
    named: Option<(&str, &str)>,
    request_id: &RequestId,
    upgrade: bool,
) {
    end_here(fields, upgrade, false);
    fields.remove_all(OURS);
    fields.append(Known::XRequestId, request_id.as_bytes());
    if let Some((region, endpoint)) = named {
        fields.append(Known::XSealaneRegion, region.as_bytes());
        fields.append(Known::XSealaneEndpoint, endpoint.as_bytes());
    }
}

/// The same for an informational head. How the final answer is framed has no place in it (RFC 9110
/// §8.6, RFC 9112 §6.1): a client that believed it would read another answer than we.
pub(crate) fn interim_toward_client(fields: &mut Fields) {
    end_here(fields, false, false);
    fields.remove_all(OURS);
    fields.remove(Known::ContentLength);
}

/// What only Sealane says in an answer.
const OURS: KnownSet = KnownSet::new(&[
    Known::XRequestId,
    Known::XSealaneRegion,
    Known::XSealaneEndpoint,
]);

/// Takes out of trailers what only a head may say: who merges trailers into headers must not be told
/// another framing, route or identity by them (RFC 9110 §6.5.1). For both directions.
pub(crate) fn trailers_onward(trailers: &mut Fields) {
    end_here(trailers, false, true);
    trailers.remove_all(NEVER_TRAILERS);
}

const NEVER_TRAILERS: KnownSet = KnownSet::new(&[
    Known::Host,
    Known::ContentLength,
    Known::ContentType,
    Known::ContentEncoding,
    Known::ContentRange,
    Known::Trailer,
    Known::Authorization,
    Known::Cookie,
    Known::SetCookie,
    Known::Via,
    Known::XRequestId,
    Known::XSealaneClientIdentity,
    Known::DisguisedLength,
    Known::DisguisedCoding,
]);

/// Where a request comes from: the right-most address of `X-Forwarded-For` that is not trusted, if
/// the peer is. A part that is no address ends the walk, and so do [`HOPS_MAX`] parts: what stands
/// left of either is anyone's word.
pub(crate) fn client_address(peer: IpAddr, fields: &Fields, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut nearest = peer.to_canonical();
    let lines = fields.all(Known::XForwardedFor).rev();
    let mut parts = lines
        .flat_map(|line| line.rsplit(|byte| *byte == b','))
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
pub(crate) fn request_id(fields: &Fields, trusted_peer: bool, random: u128) -> RequestId {
    let given = fields.get(Known::XRequestId).filter(|_| trusted_peer);
    if let Some(given) = given.filter(|given| is_loggable(given)) {
        return RequestId(SmallVec::from_slice(given));
    }
    let mut hex = [0; 32];
    for (at, digit) in hex.iter_mut().enumerate() {
        let nibble = (random >> (124 - 4 * at)) & 0xf;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
    RequestId(SmallVec::from_buf(hex))
}

/// Bytes of the longest request id that is taken over.
const REQUEST_ID_MAX: usize = 128;

fn is_loggable(id: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:=+/@".contains(byte);
    !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.iter().all(plain)
}

/// Does the client speak gRPC? It reads errors from `grpc-status`, not from the status. (gRPC-Web
/// does not count: it is translated before or behind us.)
pub(crate) fn is_grpc(fields: &Fields) -> bool {
    let Some(kind) = fields.get(Known::ContentType) else {
        return false;
    };
    let Some((start, rest)) = kind.split_at_checked(GRPC.len()) else {
        return false;
    };
    start.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

const GRPC: &[u8] = b"application/grpc";

/// Does an HTTP/1.1 request ask for a tunnel, such as a WebSocket (RFC 9110 §7.8)? Changing to
/// another version of HTTP, or to TLS, is not passed on: requests could hide in it from us.
pub(crate) fn wants_upgrade(fields: &Fields) -> bool {
    if !fields.contains(Known::Upgrade) {
        return false;
    }
    let mut protocols = fields.tokens(Known::Upgrade).peekable();
    let hides = |protocol: &[u8]| {
        let starts = |with: &[u8]| {
            let start = protocol.get(..with.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(with))
        };
        starts(b"h2") || starts(b"http") || starts(b"tls")
    };
    protocols.peek().is_some()
        && !protocols.any(hides)
        && fields
            .tokens(Known::Connection)
            .any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// Removes what speaks of one connection only: the fields that `Connection` names, and those that
/// are known to even if it does not (RFC 9110 §7.6.1). `forget_origin`: also everything by which an
/// endpoint could mistake the client for another one.
fn end_here(fields: &mut Fields, upgrade: bool, forget_origin: bool) {
    // As nearly always.
    if !fields.contains_any(HOP_BY_HOP.with(ORIGIN)) && !fields.may_have_other_x() {
        return;
    }
    let kept = fields.get(Known::Upgrade).filter(|_| upgrade);
    let kept: Option<SmallVec<[u8; 32]>> = kept.map(SmallVec::from_slice);
    let named = named_by_connection(fields);
    // Names that we do not know by heart may still speak of an origin: `X_Forwarded_For`.
    let ends = |known, name: &[u8]| {
        HOP_BY_HOP.contains(known)
            || (forget_origin && speaks_of_origin(known, name))
            || speaks_of_identity(known, name)
            || named.iter().any(|option| option.eq_ignore_ascii_case(name))
    };
    fields.retain(|known, name| !ends(known, name));
    if let Some(protocol) = kept {
        fields.append(Known::Connection, b"upgrade");
        fields.append(Known::Upgrade, &protocol);
    }
}

const HOP_BY_HOP: KnownSet = KnownSet::new(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Http2Settings,
    Known::ProxyAuthenticate,
    Known::ProxyAuthorization,
    Known::Te,
    Known::TransferEncoding,
    Known::Upgrade,
]);

type FieldName = SmallVec<[u8; 32]>;

fn named_by_connection(fields: &Fields) -> SmallVec<[FieldName; 2]> {
    if !fields.contains(Known::Connection) {
        return SmallVec::new();
    }
    fields
        .tokens(Known::Connection)
        .take(CONNECTION_OPTIONS_MAX)
        .filter(|option| {
            let usual: [&[u8]; 3] = [b"keep-alive", b"close", b"upgrade"];
            !usual.iter().any(|usual| option.eq_ignore_ascii_case(usual))
        })
        .filter(|option| !is_load_bearing(option))
        .map(SmallVec::from_slice)
        .collect()
}

/// Fields that `Connection` may name; the ones behind are not removed. A lawful sender names a few.
const CONNECTION_OPTIONS_MAX: usize = 128;

/// What a `Connection` header cannot talk us out of: without it the message would be another one,
/// or come from somewhere else.
fn is_load_bearing(name: &[u8]) -> bool {
    let known = Known::of(name);
    LOAD_BEARING.contains(known) || speaks_of_origin(known, name)
}

const LOAD_BEARING: KnownSet = KnownSet::new(&[
    Known::Host,
    Known::ContentLength,
    Known::Via,
    Known::XRequestId,
    Known::XSealaneClientIdentity,
]);

fn takes_trailers(fields: &Fields) -> bool {
    let mut codings = fields.tokens(Known::Te);
    codings.any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Nobody's word about attempts of ours is believed, nor about a client's certificate, not even a trusted peer's: a peer that
/// speaks for its own clients is not the client whose certificate we saw.
fn speaks_of_identity(known: Known, name: &[u8]) -> bool {
    known == Known::XSealaneClientIdentity
        || (known == Known::Other
            && (starts_plainly(name, b"x-sealane-client-")
                || (name.len() == X_SEALANE_ATTEMPT.len()
                    && starts_plainly(name, X_SEALANE_ATTEMPT.as_bytes()))))
}

/// `Forwarded`, `X-Forwarded-…`, `X-Real-IP`, our own word on the client's identity and on mirrors; also as
/// `X_Forwarded_…`, which many endpoints cannot tell from it.
fn speaks_of_origin(known: Known, name: &[u8]) -> bool {
    if ORIGIN.contains(known) {
        return true;
    }
    // The shortest of them has nine letters, and all begin so.
    if known != Known::Other || name.len() < 9 || !matches!(name[0], b'x' | b'X') {
        return false;
    }
    starts_plainly(name, b"x-forwarded-")
        || is_plainly(name, b"x-real-ip")
        || is_plainly(name, MIRROR_MARK.as_bytes())
}

/// In any case, and with hyphens in place of underscores: some recipients do not tell them apart.
fn starts_plainly(name: &[u8], with: &[u8]) -> bool {
    let plain = |byte: &u8| match byte {
        b'_' => b'-',
        other => other.to_ascii_lowercase(),
    };
    let start = name.get(..with.len());
    start.is_some_and(|start| start.iter().map(plain).eq(with.iter().copied()))
}

/// By this, endpoints know what is mirrored (see [`super::mirror`]). From clients it is not believed.
pub(crate) const MIRROR_MARK: &str = "x-sealane-mirror";

fn is_plainly(name: &[u8], wanted: &[u8]) -> bool {
    name.len() == wanted.len() && starts_plainly(name, wanted)
}

const ORIGIN: KnownSet = KnownSet::new(&[
    Known::Forwarded,
    Known::XForwardedFor,
    Known::XForwardedProto,
    Known::XForwardedHost,
    Known::XRealIp,
    Known::XSealaneClientIdentity,
]);

/// Adds the peer to what is believed of the hops before it, and ourselves to both.
fn tell_origin(fields: &mut Fields, forwarding: &Forwarding<'_>) {
    let host = fields.get(Known::Host).unwrap_or_default();
    let mut told = forwarding.peer.told.borrow_mut();
    if fields.contains_any(ORIGIN) || host.len() > TOLD_HOST_MAX {
        *told = None;
    } else if !told
        .as_ref()
        .is_some_and(|told| told.is_for(host, forwarding))
    {
        *told = Told::about(host, forwarding);
    }
    match &*told {
        Some(told) => fields.append_written(&told.0),
        None => {
            let host: SmallVec<[u8; 64]> = SmallVec::from_slice(host);
            add_origin(fields, &host, forwarding);
        }
    }
}

/// `host`: the request's; empty if it has none.
fn add_origin(fields: &mut Fields, host: &[u8], forwarding: &Forwarding<'_>) {
    let peer = forwarding.peer;
    extend_list(fields, Known::XForwardedFor, &[peer.plain.as_bytes()]);
    if !fields.contains(Known::XForwardedProto) {
        fields.append(Known::XForwardedProto, forwarding.scheme.as_bytes());
    }
    let forwarded = peer.forwarded.as_bytes();
    let scheme = forwarding.scheme.as_bytes();
    // HTTP/1.0 needs no host (RFC 9112 §3.2).
    if host.is_empty() {
        extend_list(fields, Known::Forwarded, &[forwarded, b";proto=", scheme]);
    } else {
        if !fields.contains(Known::XForwardedHost) {
            fields.append(Known::XForwardedHost, host);
        }
        let quoted = quoted(host);
        let parts = [forwarded, b";host=", &quoted, b";proto=", scheme];
        extend_list(fields, Known::Forwarded, &parts);
    }
    fields.append(Known::Via, via(forwarding.received));
}

/// Makes one line of all that are there, with `last` behind them.
fn extend_list(fields: &mut Fields, name: Known, last: &[&[u8]]) {
    if !fields.contains(name) {
        return fields.append_parts(name, last);
    }
    let mut list: SmallVec<[u8; 128]> = SmallVec::new();
    for line in fields.all(name) {
        list.extend_from_slice(line);
        list.extend_from_slice(b", ");
    }
    for part in last {
        list.extend_from_slice(part);
    }
    fields.insert(name, &list);
}

/// A token as it is, anything else as a quoted string (RFC 9110 §5.6.4).
fn quoted(value: &[u8]) -> SmallVec<[u8; 64]> {
    if is_token(value) {
        return SmallVec::from_slice(value);
    }
    let mut text = SmallVec::new();
    text.push(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            text.push(b'\\');
        }
        text.push(*byte);
    }
    text.push(b'"');
    text
}

/// Our own entry (RFC 9110 §7.6.3).
const fn via(received: Version) -> &'static [u8] {
    match received {
        Version::HTTP_09 | Version::HTTP_10 => b"1.0 sealane",
        Version::HTTP_2 => b"2.0 sealane",
        Version::HTTP_3 => b"3.0 sealane",
        _ => b"1.1 sealane",
    }
}

#[cfg(test)]
mod tests;
