//! How sessions are known, and the keys of their cookies.

use std::sync::Arc;
use std::time::Duration;

use sealane_proxy::config::{SameSite, Sticky, StickyCookie, StickyKey};

use super::super::decode::{At, OneOrMany};
use super::super::error::Mistake;
use super::super::spec::{SameSiteWord, StickyCookieSpec, StickySpec};
use super::super::unit::Secret;
use super::Parser;
use super::admin::ELSEWHERE;

/// Shorter secrets can be guessed: 32 characters are 128 bits in hexadecimal digits.
const KEY_CHARS_MIN: usize = 32;
/// Each cookie may be of any of them.
const KEYS_MAX: usize = 8;

impl Parser<'_> {
    /// `None`: one could not be read.
    pub(super) fn sticky_keys(
        &mut self,
        list: Option<&At<OneOrMany<Secret>>>,
    ) -> Option<Arc<[StickyKey]>> {
        let list = list?;
        if list.value.len() > KEYS_MAX {
            let message = format!("more than {KEYS_MAX} keys");
            self.notes.wrong(list.span, message);
            return None;
        }
        let keys = list.value.iter().map(|at| self.sticky_key(at));
        // All of them are looked at, whichever is wrong.
        let keys: Vec<Option<StickyKey>> = keys.collect();
        keys.into_iter().collect()
    }

    fn sticky_key(&mut self, at: &At<Secret>) -> Option<StickyKey> {
        let text = self.kept_elsewhere(at, "key", ELSEWHERE)?;
        let secret = text.trim();
        if secret.chars().count() < KEY_CHARS_MIN {
            let message = format!("the key is shorter than {KEY_CHARS_MIN} characters");
            self.notes.mistake(
                Mistake::new(at.span, message).help("make one with `openssl rand -hex 32`"),
            );
            return None;
        }
        Some(StickyKey::new(secret.as_bytes()))
    }

    pub(super) fn sticky(&mut self, spec: &At<StickySpec>) -> Option<Sticky> {
        let StickySpec {
            span: _,
            broken,
            cookie,
            header,
        } = &spec.value;
        match (cookie, header) {
            (Some(cookie), None) => self.sticky_cookie(cookie).map(Sticky::Cookie),
            (None, Some(header)) => self.header_name(&header.0, header).map(Sticky::Header),
            _ => {
                if !broken {
                    self.notes.mistake(
                        Mistake::new(spec.span, "a session is known by one thing")
                            .expected("`{cookie: {}}` or `{header: NAME}`"),
                    );
                }
                None
            }
        }
    }

    fn sticky_cookie(&mut self, spec: &At<StickyCookieSpec>) -> Option<StickyCookie> {
        let StickyCookieSpec {
            span: _,
            broken: _,
            name,
            max_age,
            secure,
            http_only,
            same_site,
        } = &spec.value;
        let keys = self.sticky_keys.clone();
        if keys.as_ref().is_some_and(|keys| keys.is_empty()) {
            self.notes.mistake(
                Mistake::new(spec.span, "sticky cookies need a key")
                    .expected("`sticky_keys: [\"file:sticky.key\"]` at the top of the file")
                    .help("make one with `openssl rand -hex 32`, the same for every node"),
            );
            return None;
        }
        let same_site = same_site.as_ref()?;
        let secure = secure.as_ref().map(|flag| flag.value.0);
        if same_site.value == SameSiteWord::None && secure != Some(true) {
            self.notes.mistake(
                Mistake::new(same_site.span, "browsers drop such a cookie")
                    .expected("`secure: true` beside `same_site: none`"),
            );
        }
        let name = self.cookie_name(name.as_ref()?)?;
        Some(StickyCookie {
            name: name.into(),
            max_age: max_age
                .as_ref()
                .map(|age| Duration::from_secs(age.value.0.into())),
            secure,
            http_only: http_only.as_ref()?.value.0,
            same_site: match same_site.value {
                SameSiteWord::Strict => SameSite::Strict,
                SameSiteWord::Lax => SameSite::Lax,
                SameSiteWord::None => SameSite::None,
            },
            keys: keys?,
        })
    }
}
