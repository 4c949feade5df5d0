//! Which other pools get a share of a route's requests, and when they get no more.

use std::collections::HashMap;

use sealane_model::Ratio;
use sealane_proxy::config::{AbortRule, Split, SplitKey};

use super::super::decode::{At, List};
use super::super::error::Mistake;
use super::super::source::Span;
use super::super::spec::{AbortSpec, NamedKeySpec, SplitKeySpec, SplitSpec};
use super::super::unit::Text;
use super::Parser;

/// More canaries of one route are refused: each request would be compared with each.
const SPLITS_MAX: usize = 8;

impl Parser<'_> {
    /// `own`: the route's pool. `broken`: there may be one, which could not be read.
    pub(super) fn splits(
        &mut self,
        list: Option<&At<List<SplitSpec>>>,
        own: Option<&At<Text>>,
        broken: bool,
    ) -> Vec<Split> {
        let Some(list) = list.filter(|list| !list.value.is_empty()) else {
            return Vec::new();
        };
        let Some(own) = own else {
            if !broken {
                let message = "`split` shares out what a pool serves, and this route has none";
                self.notes.wrong(list.span, message);
            }
            return Vec::new();
        };
        if list.value.len() > SPLITS_MAX {
            let message = format!("a route is split at most {SPLITS_MAX} times");
            self.notes.wrong(list.span, message);
            return Vec::new();
        }
        let mut seen: HashMap<&str, Span> = HashMap::from([(own.0.as_str(), own.span)]);
        let mut splits = Vec::new();
        let mut sum = 0.0;
        for spec in list.value.iter() {
            if let Some(pool) = &spec.value.pool
                && let Some(first) = seen.insert(pool.0.as_str(), pool.span)
            {
                let message = format!("the pool `{}` serves this route already", pool.0);
                self.notes
                    .mistake(Mistake::new(pool.span, message).related(first, "here"));
            }
            splits.extend(self.split(&spec.value));
            sum += spec.value.share.as_ref().map_or(0.0, |share| share.value.0);
        }
        if sum > 1.0 + 1e-9 {
            let message = format!("the shares come to {}%", (sum * 1e4).round() / 1e2);
            self.notes
                .mistake(Mistake::new(list.span, message).expected("no more than 100% in all"));
        }
        splits
    }

    fn split(&mut self, spec: &SplitSpec) -> Option<Split> {
        let SplitSpec {
            span: _,
            broken: _,
            pool,
            share,
            key,
            abort,
        } = spec;
        let pool = pool.as_ref()?;
        let found = self.pool_for_requests(pool);
        let key = match key {
            Some(key) => Some(self.split_key(key)?),
            None => None,
        };
        Some(Split {
            to: found?,
            name: pool.0.as_str().into(),
            share: Ratio::new(share.as_ref()?.value.0)?,
            key,
            abort: abort_rule(&abort.as_ref()?.value)?,
        })
    }

    fn split_key(&mut self, spec: &At<SplitKeySpec>) -> Option<SplitKey> {
        let named = match &spec.value {
            SplitKeySpec::ClientIp => return Some(SplitKey::ClientIp),
            SplitKeySpec::Named(named) => named,
        };
        let NamedKeySpec {
            span: _,
            broken,
            header,
            cookie,
        } = named;
        match (header, cookie) {
            (Some(header), None) => self.header_name(&header.0, header).map(SplitKey::Header),
            (None, Some(cookie)) => self
                .cookie_name(cookie)
                .map(|name| SplitKey::Cookie(name.into())),
            _ => {
                if !broken {
                    self.notes.mistake(
                        Mistake::new(spec.span, "a key is one thing")
                            .expected("`{header: NAME}` or `{cookie: NAME}`"),
                    );
                }
                None
            }
        }
    }

    /// A token (RFC 6265 §4.1.1).
    pub(super) fn cookie_name<'t>(&mut self, at: &'t At<Text>) -> Option<&'t str> {
        const MARKS: &[u8] = b"!#$%&'*+-.^_`|~";
        let text = at.0.as_str();
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || MARKS.contains(&byte);
        if !text.is_empty() && text.bytes().all(is_token) {
            return Some(text);
        }
        let message = format!("`{}` is no cookie's name", text.escape_debug());
        self.notes.wrong(at.span, message);
        None
    }
}

/// The outer `None`: something could not be read; the inner one: never.
fn abort_rule(spec: &AbortSpec) -> Option<Option<AbortRule>> {
    let AbortSpec {
        span: _,
        broken: _,
        errors,
        latency,
        requests_min,
        window,
    } = spec;
    let (errors, latency) = (errors.as_ref()?.value.0, latency.as_ref()?.value.0);
    let rule = AbortRule {
        errors,
        latency,
        requests_min: u32::try_from(requests_min.as_ref()?.value.0).ok()?,
        window: window.as_ref()?.value.0,
    };
    Some((errors.is_some() || latency.is_some()).then_some(rule))
}
