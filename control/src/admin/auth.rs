//! Who may do what: bearer tokens, known by their hash alone.
//!
//! Compares in constant time and never logs or keeps a token. Reading on loopback is free;
//! everything else needs a token, and changes need an operator's.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, Uri};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::{AdminConfig, AdminToken, Role};

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Change,
}

/// Whether the address that a request came in on is reached from this host alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Loopback,
    Network,
}

/// Who asks: a token's name, or what stands for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller(pub(super) Arc<str>);

/// Why a request is not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error("a token is required")]
    NoToken,
    #[error("the token is not known")]
    BadToken,
    #[error("the token may read, not change")]
    ViewerOnly,
    #[error("changes are off: no operator token is configured")]
    NoOperatorConfigured,
    #[error("reading from the network is off: no token is configured")]
    NoTokenConfigured,
    #[error("the Host header names neither an IP address nor localhost")]
    ForeignHost,
    #[error("a page of another site may not change anything")]
    ForeignOrigin,
}

impl Denied {
    pub(super) const fn hint(self) -> &'static str {
        match self {
            Self::NoToken => "send `Authorization: Bearer TOKEN`",
            Self::BadToken => "check the token; only its SHA-256 is in the configuration file",
            Self::ViewerOnly => "use a token with `role: operator`",
            Self::NoOperatorConfigured => {
                "add one under `admin.tokens` with `role: operator` and the SHA-256 of the token as \
                 `hash`, e.g. from: printf %s TOKEN | sha256sum"
            }
            Self::NoTokenConfigured => {
                "add one under `admin.tokens`, or bind the admin API to a loopback address"
            }
            Self::ForeignHost => "call it as 127.0.0.1, [::1] or localhost",
            Self::ForeignOrigin => "send a token",
        }
    }

    pub(super) const fn is_unauthenticated(self) -> bool {
        matches!(self, Self::NoToken | Self::BadToken)
    }
}

pub(super) fn admit(
    config: &AdminConfig,
    headers: &HeaderMap,
    uri: &Uri,
    reach: Reach,
    access: Access,
) -> Result<Caller, Denied> {
    if reach == Reach::Loopback && !is_local_host(headers, uri) {
        return Err(Denied::ForeignHost);
    }
    match (bearer(headers), access) {
        (Some(token), access) => by_token(config, token, access),
        (None, Access::Read) if reach == Reach::Loopback => Ok(Caller("anonymous".into())),
        (None, Access::Read) if config.tokens.is_empty() => Err(Denied::NoTokenConfigured),
        (None, Access::Read) => Err(Denied::NoToken),
        (None, Access::Change) if config.open && reach == Reach::Loopback => open(headers),
        (None, Access::Change) if !has_operator(config) => Err(Denied::NoOperatorConfigured),
        (None, Access::Change) => Err(Denied::NoToken),
    }
}

fn by_token(config: &AdminConfig, token: &[u8], access: Access) -> Result<Caller, Denied> {
    let hash: [u8; 32] = Sha256::digest(token).into();
    // Every token is compared, so that time tells nothing of which one came near.
    let mut known: Option<&AdminToken> = None;
    for token in &config.tokens {
        if bool::from(token.sha256.ct_eq(&hash)) {
            known = Some(token);
        }
    }
    match known {
        None if access == Access::Change && !has_operator(config) && !config.open => {
            Err(Denied::NoOperatorConfigured)
        }
        None => Err(Denied::BadToken),
        Some(token) if access == Access::Change && token.role != Role::Operator => {
            Err(Denied::ViewerOnly)
        }
        Some(token) => Ok(Caller(token.name.clone())),
    }
}

/// Without a token, a browser must not be made to change things by some page that it shows:
/// browsers name the page's origin with every such request.
fn open(headers: &HeaderMap) -> Result<Caller, Denied> {
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(Caller("open".into()));
    };
    let own = headers
        .get(HOST)
        .map(|host| [b"http://", host.as_bytes()].concat());
    if own.as_deref() == Some(origin.as_bytes()) {
        return Ok(Caller("open".into()));
    }
    Err(Denied::ForeignOrigin)
}

fn has_operator(config: &AdminConfig) -> bool {
    config
        .tokens
        .iter()
        .any(|token| token.role == Role::Operator)
}

/// The token of `Authorization: Bearer …` (RFC 6750 section 2.1); anything else there is no token
/// of ours, but was meant as one.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let scheme = value.get(..7).unwrap_or_default();
    if scheme.eq_ignore_ascii_case(b"bearer ") {
        return value.get(7..).map(<[u8]>::trim_ascii);
    }
    Some(value)
}

/// DNS rebinding makes a browser believe that a stranger's name is this host; the `Host` header
/// still has the stranger's name. An IP address or `localhost` cannot be rebound.
fn is_local_host(headers: &HeaderMap, uri: &Uri) -> bool {
    let named = uri.authority().map(http::uri::Authority::as_str);
    let Some(host) = named.or_else(|| headers.get(HOST)?.to_str().ok()) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(tokens: &[(&str, Role)]) -> AdminConfig {
        let token = |(token, role): &(&str, Role)| AdminToken {
            name: format!("name-of-{token}").into(),
            sha256: Sha256::digest(token.as_bytes()).into(),
            role: *role,
        };
        AdminConfig {
            bind: Vec::new(),
            tokens: tokens.iter().map(token).collect(),
            open: false,
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn ask(
        config: &AdminConfig,
        pairs: &[(&'static str, &str)],
        reach: Reach,
        access: Access,
    ) -> Result<String, Denied> {
        let admitted = admit(
            config,
            &headers(pairs),
            &"/".parse().unwrap(),
            reach,
            access,
        );
        admitted.map(|caller| caller.0.to_string())
    }

    const LOCAL: (&str, &str) = ("host", "127.0.0.1:9900");

    #[test]
    fn only_an_operators_token_may_change() {
        let config = config(&[("op", Role::Operator), ("view", Role::Viewer)]);
        let change = |token: &str| {
            ask(
                &config,
                &[LOCAL, ("authorization", token)],
                Reach::Loopback,
                Access::Change,
            )
        };
        assert_eq!(change("Bearer op"), Ok("name-of-op".to_owned()));
        assert_eq!(change("bearer  op "), Ok("name-of-op".to_owned()));
        assert_eq!(change("Bearer view"), Err(Denied::ViewerOnly));
        assert_eq!(change("Bearer wrong"), Err(Denied::BadToken));
        assert_eq!(change("Bearer "), Err(Denied::BadToken));
        assert_eq!(change("Basic b3A="), Err(Denied::BadToken));
        assert_eq!(
            ask(&config, &[LOCAL], Reach::Loopback, Access::Change),
            Err(Denied::NoToken)
        );
    }

    #[test]
    fn without_an_operators_token_changes_are_off_except_when_open_on_loopback() {
        let mut config = config(&[]);
        assert_eq!(
            ask(&config, &[LOCAL], Reach::Loopback, Access::Change),
            Err(Denied::NoOperatorConfigured)
        );
        config.open = true;
        assert_eq!(
            ask(&config, &[LOCAL], Reach::Loopback, Access::Change),
            Ok("open".to_owned())
        );
        assert_eq!(
            ask(&config, &[LOCAL], Reach::Network, Access::Change),
            Err(Denied::NoOperatorConfigured)
        );
    }

    #[test]
    fn a_foreign_page_cannot_change_an_open_admin_api() {
        let mut config = config(&[]);
        config.open = true;
        let from = |origin: &str| {
            ask(
                &config,
                &[LOCAL, ("origin", origin)],
                Reach::Loopback,
                Access::Change,
            )
        };
        assert_eq!(from("http://evil.example"), Err(Denied::ForeignOrigin));
        assert_eq!(from("null"), Err(Denied::ForeignOrigin));
        assert_eq!(from("http://127.0.0.1:9900"), Ok("open".to_owned()));
    }

    #[test]
    fn reading_from_the_network_needs_a_token_and_on_loopback_none() {
        let some = config(&[("view", Role::Viewer)]);
        assert_eq!(
            ask(&some, &[LOCAL], Reach::Loopback, Access::Read),
            Ok("anonymous".to_owned())
        );
        assert_eq!(
            ask(&some, &[], Reach::Network, Access::Read),
            Err(Denied::NoToken)
        );
        assert_eq!(
            ask(
                &some,
                &[("authorization", "Bearer view")],
                Reach::Network,
                Access::Read
            ),
            Ok("name-of-view".to_owned())
        );
        let none = config(&[]);
        assert_eq!(
            ask(&none, &[], Reach::Network, Access::Read),
            Err(Denied::NoTokenConfigured)
        );
    }

    #[test]
    fn a_host_that_is_not_this_one_is_refused_on_loopback() {
        let config = config(&[]);
        let named =
            |host: &str| ask(&config, &[("host", host)], Reach::Loopback, Access::Read).is_ok();
        assert!(named("localhost:9900") && named("[::1]:9900") && named("127.0.0.1"));
        assert!(!named("evil.example:9900") && !named("") && !named("127.0.0.1.evil.example"));
        assert_eq!(
            ask(&config, &[], Reach::Loopback, Access::Read),
            Err(Denied::ForeignHost)
        );
    }
}
