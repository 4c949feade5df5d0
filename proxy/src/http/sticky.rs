//! Sticky sessions as clients see them: reads who a request belongs to, and tells the client whom it
//! belongs to from now on. Where a session goes is decided in [`crate::upstream::sticky`].
//!
//! Called by `http::exchange` once the route is known and when an endpoint has answered, by
//! `http::attempt` for each attempt. Forged and garbled cookies are as good as none.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sealane_model::{RegionId, Snapshot};
use xxhash_rust::xxh3::xxh3_64;

use super::context::{Inbound, RequestContext};
use super::cookies::{cookie, without};
use super::fields::{Fields, Known};
use super::message::AnswerHead;
use super::route::RouteState;
use crate::config::{Route, SameSite, Sticky, StickyCookie};
use crate::random;
use crate::upstream::sticky::{self, Home, TAG_BYTES, Tag, stay};
use crate::upstream::{SelectAsk, Selected};

/// Of a session's own number, which says where it goes while its endpoint cannot serve it.
const NUMBER_BYTES: usize = 8;
const BYTES: usize = NUMBER_BYTES + TAG_BYTES;
/// What [`BYTES`] come to in text.
const TEXT_BYTES: usize = BYTES.div_ceil(3) * 4;
const _: () = assert!(BYTES.is_multiple_of(3), "no padding");

/// A request of a sticky route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    /// `None`: anybody may have it.
    home: Option<Home>,
    /// For the cookie. `None`: sessions are known by a header.
    number: Option<u64>,
    /// Its cookie was made with a key that makes none any more.
    is_old: bool,
    pub(crate) found: Found,
}

impl Session {
    /// Its own, which it keeps wherever it goes.
    pub(crate) const fn number(&self) -> Option<u64> {
        self.number
    }
}

/// What a request brought: the same word in the access log and in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A cookie of ours, and its endpoint serves it.
    Kept,
    /// A cookie of ours, whose endpoint is gone or cannot serve.
    Moved,
    /// No cookie.
    New,
    /// One that we did not make, or with a key that is no longer ours; or its endpoint is gone.
    Unknown,
    /// The header that sessions are known by.
    Keyed,
    /// No such header.
    Keyless,
}

impl Found {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Moved => "moved",
            Self::New => "new",
            Self::Unknown => "unknown",
            Self::Keyed => "keyed",
            Self::Keyless => "keyless",
        }
    }
}

/// `None`: the route has no sessions.
pub(crate) fn look(
    route: &RouteState,
    request: &RequestContext,
    inbound: &Inbound,
) -> Option<Session> {
    let fields = &request.head.fields;
    match route.rule.options.sticky.as_ref()? {
        Sticky::Header(name) => {
            let value = fields.get(name).filter(|value| !value.is_empty());
            let key = value.map(xxh3_64);
            Some(Session {
                home: key.map(Home::Key),
                number: None,
                is_old: false,
                found: key.map_or(Found::Keyless, |_| Found::Keyed),
            })
        }
        Sticky::Cookie(rule) => Some(by_cookie(rule, route, fields, inbound)),
    }
}

fn by_cookie(
    rule: &StickyCookie,
    route: &RouteState,
    fields: &Fields,
    inbound: &Inbound,
) -> Session {
    let fresh = |found| Session {
        home: None,
        number: Some(random::number()),
        is_old: false,
        found,
    };
    let (Some(value), Some(tags)) = (cookie(fields, &rule.name), &route.tags) else {
        return fresh(Found::New);
    };
    let Some((number, tag)) = read(value) else {
        return fresh(Found::Unknown);
    };
    let world = inbound.worker.shared.world.load();
    let named = tags.named(&tag, &world.topology);
    let home = named.map(|named| Home::Endpoint(named.endpoint, number));
    Session {
        home: Some(home.unwrap_or(Home::Key(number))),
        number: Some(number),
        is_old: named.is_some_and(|named| named.is_old),
        found: home.map_or(Found::Unknown, |_| Found::Kept),
    }
}

/// Where the session's attempt goes. `None`: wherever others would go.
pub(crate) fn select(
    request: &RequestContext,
    inbound: &Inbound,
    world: &Snapshot,
    ask: &SelectAsk<'_>,
) -> Option<Selected> {
    let home = request.session.as_ref()?.home?;
    stay(world, &inbound.worker.endpoints, ask, home)
}

/// The region of that attempt. `None`: that of others.
pub(crate) fn region(
    request: &RequestContext,
    inbound: &Inbound,
    world: &Snapshot,
    ask: &SelectAsk<'_>,
) -> Option<RegionId> {
    let home = request.session.as_ref()?.home?;
    sticky::region(world, &inbound.worker.endpoints, ask, home)
}

/// Tells the client which endpoint it belongs to, if that is news.
pub(crate) fn toward_client(
    request: &mut RequestContext,
    selected: &Selected,
    head: &mut AnswerHead,
    inbound: &Inbound,
) {
    let (Some(session), Some(route)) = (&mut request.session, &request.route) else {
        return;
    };
    let (Some(Sticky::Cookie(rule)), Some(tags)) = (&route.rule.options.sticky, &route.tags) else {
        return;
    };
    let home = session.home.and_then(Home::endpoint);
    let first = request.tried.first().map(|first| first.endpoint);
    // Another endpoint may answer for one that failed this time: the session is still there.
    let stays = home.is_some() && home == first;
    if stays && !session.is_old {
        return;
    }
    if home.is_some() && !stays {
        session.found = Found::Moved;
    }
    // Who begins with an endpoint's failure had better begin anew.
    if head.status.is_server_error() {
        return;
    }
    let endpoint = home.filter(|_| stays).unwrap_or(selected.endpoint);
    let world = inbound.worker.shared.world.load();
    let tag = tags.tag(endpoint, &world.topology);
    if let (Some(tag), Some(number)) = (tag, session.number) {
        let line = set_cookie(rule, number, &tag, inbound.scheme);
        head.fields.append(Known::SetCookie, line.as_bytes());
    }
}

/// Takes our cookie out of what an endpoint sees: it means nothing to it.
pub(crate) fn toward_endpoint(fields: &mut Fields, route: &Route) {
    if let Some(Sticky::Cookie(rule)) = &route.options.sticky {
        without(fields, &rule.name);
    }
}

fn read(value: &[u8]) -> Option<(u64, Tag)> {
    if value.len() != TEXT_BYTES {
        return None;
    }
    let mut bytes = [0; BYTES];
    let length = URL_SAFE_NO_PAD.decode_slice(value, &mut bytes).ok()?;
    let (number, tag) = bytes.split_first_chunk::<NUMBER_BYTES>()?;
    let tag = tag.try_into().ok()?;
    (length == BYTES).then_some((u64::from_be_bytes(*number), tag))
}

fn set_cookie(rule: &StickyCookie, number: u64, tag: &Tag, scheme: &str) -> String {
    let mut bytes = [0; BYTES];
    let (first, rest) = bytes.split_at_mut(NUMBER_BYTES);
    first.copy_from_slice(&number.to_be_bytes());
    rest.copy_from_slice(tag);
    let mut line = format!("{}={}; Path=/", rule.name, URL_SAFE_NO_PAD.encode(bytes));
    if let Some(age) = rule.max_age {
        line.push_str(&format!("; Max-Age={}", age.as_secs()));
    }
    if rule.secure.unwrap_or(scheme == "https") {
        line.push_str("; Secure");
    }
    if rule.http_only {
        line.push_str("; HttpOnly");
    }
    line.push_str(match rule.same_site {
        SameSite::Strict => "; SameSite=Strict",
        SameSite::Lax => "; SameSite=Lax",
        SameSite::None => "; SameSite=None",
    });
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> StickyCookie {
        StickyCookie {
            name: "sealane".into(),
            max_age: Some(std::time::Duration::from_secs(3_600)),
            secure: None,
            http_only: true,
            same_site: SameSite::Lax,
            keys: Vec::new().into(),
        }
    }

    #[test]
    fn a_cookie_is_read_as_it_was_written() {
        let tag = [7; TAG_BYTES];
        let line = set_cookie(&rule(), 42, &tag, "https");

        let (pair, rest) = line.split_once(';').unwrap();
        let value = pair.strip_prefix("sealane=").unwrap();
        assert_eq!(read(value.as_bytes()), Some((42, tag)));
        assert_eq!(
            rest,
            " Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=Lax"
        );
        let plain = set_cookie(&rule(), 42, &tag, "http");
        assert!(!plain.contains("Secure"), "{plain}");
    }

    #[test]
    fn garbled_cookies_are_none() {
        let lawful = "A".repeat(TEXT_BYTES);
        assert!(read(lawful.as_bytes()).is_some());

        for garbled in [
            "",
            "A",
            &lawful[1..],
            &format!("{lawful}A"),
            &format!("{}=", &lawful[1..]),
        ] {
            assert_eq!(read(garbled.as_bytes()), None, "{garbled}");
        }
        assert_eq!(read(&[0xff; TEXT_BYTES]), None);
    }
}
