//! What makes two requests the same, and which requests share with nobody. Pure.
//!
//! Two requests are the same if an endpoint cannot tell them apart but by headers of which the
//! operator says, or nearly everybody would say, that answers don't depend on them. A header that is
//! not known to be harmless is a part of what is asked: an attempt that one client began must not be
//! bent by it for others.

use http::{HeaderName, Method};
use smallvec::SmallVec;

use super::Part;
use crate::config::{Coalesce, Credentials};
use crate::http::fields::{Fields, Known, KnownSet};
use crate::http::message::RequestHead;

/// Longer ones are not coalesced: a head may have 64 KiB.
const KEY_MAX: usize = 8 * 1024;

/// Everything that two requests must have in common, in one normal form whatever version of HTTP
/// they came in.
pub(super) type Key = SmallVec<[u8; 512]>;

/// What is known of a request besides its head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) scheme: &'a str,
    /// Tells routes apart: the same target may lead elsewhere by other headers.
    pub(super) route: usize,
    /// Its word on the way that the request came is passed on.
    pub(super) trusted_peer: bool,
    /// Who the client proved to be, where endpoints are told.
    pub(super) identity: Option<&'a str>,
}

/// The request's key.
///
/// # Errors
/// Why it shares with nobody; `None` where that needs no mention.
pub(super) fn key(rule: &Coalesce, asked: &Asked<'_>) -> Result<Key, Option<Part>> {
    let head = asked.head;
    let may_share = matches!(head.method, Method::GET | Method::HEAD);
    if !may_share || !rule.methods.contains(&head.method) || head.fields.contains_any(NEVER) {
        return Err(None);
    }
    if head.fields.contains_any(CONDITIONAL) {
        return Err(Some(Part::Conditional));
    }
    let mut key = Key::new();
    key.extend_from_slice(&asked.route.to_ne_bytes());
    put(&mut key, asked.scheme.as_bytes());
    put(&mut key, head.method.as_str().as_bytes());
    put_host(&mut key, head.host(), asked.scheme);
    put(&mut key, head.target().as_bytes());
    if let Some(identity) = asked.identity {
        if rule.credentials == Credentials::Alone {
            return Err(Some(Part::Credentials));
        }
        put(&mut key, identity.as_bytes());
    }
    for name in &rule.headers {
        put_listed(&mut key, &head.fields, name);
    }
    for (name, value) in head.fields.iter() {
        if is_listed(rule, name) {
            continue;
        }
        match Kind::of(name, asked.trusted_peer) {
            Kind::Harmless => {}
            Kind::Telling => put_line(&mut key, name, value),
            Kind::Credential if rule.credentials == Credentials::ByValue => {
                put_line(&mut key, name, value);
            }
            Kind::Credential => return Err(Some(Part::Credentials)),
            Kind::Condition => return Err(Some(Part::Conditional)),
            Kind::Freshness if is_reload(value) => {}
            Kind::Freshness => return Err(Some(Part::Fresh)),
        }
    }
    if key.len() > KEY_MAX {
        return Err(Some(Part::LongHead));
    }
    Ok(key)
}

/// Whether all requests of one key say the same under this name, though they may differ in others.
pub(super) fn is_covered(rule: &Coalesce, name: &[u8], trusted_peer: bool) -> bool {
    if is_listed(rule, name) || matches!(Known::of(name), Known::Host) {
        return true;
    }
    match Kind::of(name, trusted_peer) {
        Kind::Harmless | Kind::Freshness => false,
        // Its value is in the key, or none of them has it.
        Kind::Telling | Kind::Credential | Kind::Condition => true,
    }
}

/// Bodies and tunnels are never shared; what is to be framed is not even looked at.
const NEVER: KnownSet = KnownSet::new(&[
    Known::Upgrade,
    Known::Expect,
    Known::TransferEncoding,
    Known::WebsocketKey,
]);

const CONDITIONAL: KnownSet = KnownSet::new(&[Known::Range]);

/// What a header says of the request that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It tells of the client or of the way, and is not listed: answers don't depend on it.
    Harmless,
    /// Answers may depend on it.
    Telling,
    /// It tells who asks.
    Credential,
    /// The answer depends on what the client has already.
    Condition,
    /// The client has its own idea of how fresh an answer must be.
    Freshness,
}

impl Kind {
    fn of(name: &[u8], trusted_peer: bool) -> Self {
        match Known::of(name) {
            Known::Authorization | Known::Cookie | Known::ProxyAuthorization => Self::Credential,
            Known::CacheControl => Self::Freshness,
            Known::Range => Self::Condition,
            // From others than trusted peers they don't reach an endpoint.
            Known::XForwardedHost | Known::XForwardedProto if trusted_peer => Self::Telling,
            Known::Other => Self::of_other(name),
            known if HARMLESS.contains(known) => Self::Harmless,
            _ => Self::Telling,
        }
    }

    fn of_other(name: &[u8]) -> Self {
        let mut lower: SmallVec<[u8; 64]> = SmallVec::from_slice(name);
        lower.make_ascii_lowercase();
        let lower = &*lower;
        if HARMLESS_OTHER.contains(&lower) {
            return Self::Harmless;
        }
        if lower.starts_with(b"sec-fetch-") || lower.starts_with(b"sec-ch-") {
            return Self::Harmless;
        }
        if lower.starts_with(b"if-") {
            return Self::Condition;
        }
        if lower == b"pragma" {
            return Self::Freshness;
        }
        let tells_who = |part: &&[u8]| memchr::memmem::find(lower, part).is_some();
        if CREDENTIAL_PARTS.iter().any(tells_who) {
            return Self::Credential;
        }
        Self::Telling
    }
}

/// Known fields that speak of one connection, of the way, or of the client in general.
const HARMLESS: KnownSet = KnownSet::new(&[
    Known::Host, // it is in the key by itself
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Http2Settings,
    Known::Te,
    Known::Trailer,
    Known::ContentLength, // 0
    Known::Via,
    Known::Forwarded,
    Known::XForwardedFor,
    Known::XForwardedProto,
    Known::XForwardedHost,
    Known::XRealIp,
    Known::XRequestId,
    Known::XSealaneClientIdentity, // what clients say of it is not passed on
    Known::AcceptEncoding,
    Known::Origin,
]);

/// Further ones, in lower case.
const HARMLESS_OTHER: &[&[u8]] = &[
    b"accept",
    b"accept-charset",
    b"accept-language",
    b"baggage",
    b"device-memory",
    b"dnt",
    b"downlink",
    b"ect",
    b"priority",
    b"referer",
    b"rtt",
    b"save-data",
    b"sec-gpc",
    b"traceparent",
    b"tracestate",
    b"upgrade-insecure-requests",
    b"user-agent",
    b"viewport-width",
    b"x-amzn-trace-id",
    b"x-b3-parentspanid",
    b"x-b3-sampled",
    b"x-b3-spanid",
    b"x-b3-traceid",
    b"x-cloud-trace-context",
];

/// Parts of names by which headers of many makes tell who asks.
const CREDENTIAL_PARTS: &[&[u8]] = &[
    b"auth",
    b"token",
    b"secret",
    b"session",
    b"apikey",
    b"api-key",
    b"signature",
    b"credential",
    b"passw",
    b"jwt",
    b"csrf",
    b"xsrf",
];

fn is_listed(rule: &Coalesce, name: &[u8]) -> bool {
    let mut listed = rule.headers.iter();
    listed.any(|listed| listed.as_str().as_bytes().eq_ignore_ascii_case(name))
}

/// What browsers send when a page is loaded again: no attempt that is under way is older.
fn is_reload(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"max-age=0")
}

/// No part of a head has a line feed in it: where one part ends and another begins is plain.
fn put(key: &mut Key, part: &[u8]) {
    key.extend_from_slice(part);
    key.push(b'\n');
}

fn put_line(key: &mut Key, name: &[u8], value: &[u8]) {
    let start = key.len();
    key.extend_from_slice(name);
    key[start..].make_ascii_lowercase();
    key.push(b':');
    put(key, value);
}

/// A header that is not there differs from an empty one.
fn put_listed(key: &mut Key, fields: &Fields, name: &HeaderName) {
    for value in fields.all(name) {
        put_line(key, name.as_str().as_bytes(), value);
    }
}

/// In lower case, without the scheme's own port.
fn put_host(key: &mut Key, host: &str, scheme: &str) {
    let own_port = if scheme == "https" { ":443" } else { ":80" };
    let bare = host.strip_suffix(own_port).unwrap_or(host);
    let start = key.len();
    key.extend_from_slice(bare.as_bytes());
    key[start..].make_ascii_lowercase();
    key.push(b'\n');
}

#[cfg(test)]
mod tests;
