//! How a route's requests share attempts.

use http::Method;
use sealane_proxy::config::{Coalesce, Credentials};

use super::super::decode::At;
use super::super::error::Mistake;
use super::super::spec::{AuthorizationWord, CoalesceSpec, SharedMethodWord};
use super::Parser;
use super::options::texts;

impl Parser<'_> {
    pub(super) fn coalesce(&mut self, spec: &At<CoalesceSpec>) -> Option<Coalesce> {
        let CoalesceSpec {
            span: _,
            broken: _,
            methods,
            headers,
            authorization,
            wait,
            followers,
            body_max,
        } = &spec.value;
        let methods = methods.as_ref()?.value.iter();
        let methods: Vec<Method> = methods
            .map(|word| match word.value {
                SharedMethodWord::Get => Method::GET,
                SharedMethodWord::Head => Method::HEAD,
            })
            .collect();
        let mut names = Vec::new();
        for at in texts(headers.as_ref()) {
            let Some(name) = self.header_name(&at.value.0, at) else {
                continue;
            };
            // Whatever else is listed, these have a meaning of their own.
            if NEVER_LISTED.contains(&name.as_str()) {
                let message = format!("requests with `{name}` are never shared by its value");
                self.notes.mistake(
                    Mistake::new(at.span, message).help("leave it out; see `authorization`"),
                );
                continue;
            }
            names.push(name);
        }
        (!methods.is_empty()).then_some(Coalesce {
            methods,
            headers: names,
            credentials: match authorization.as_ref()?.value {
                AuthorizationWord::None => Credentials::Alone,
                AuthorizationWord::ByValue => Credentials::ByValue,
            },
            wait: wait.as_ref()?.value.0,
            followers: usize::try_from(followers.as_ref()?.value.0).ok()?,
            body_max: body_max.as_ref()?.value.0,
        })
    }
}

/// What decides by itself whether a request may share.
const NEVER_LISTED: [&str; 14] = [
    "authorization",
    "cache-control",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
    "transfer-encoding",
    "upgrade",
];
