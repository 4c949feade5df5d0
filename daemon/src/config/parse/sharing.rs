//! How a route's requests share attempts, and which of them a second pool sees.

use http::Method;
use sealane_model::Ratio;
use sealane_proxy::config::{Coalesce, Credentials, Destination, Mirror};

use super::super::decode::At;
use super::super::error::Mistake;
use super::super::spec::{AuthorizationWord, CoalesceSpec, MirrorSpec, SharedMethodWord};
use super::super::unit::Text;
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

    /// `own`: the route's pool.
    pub(super) fn mirror(
        &mut self,
        spec: &At<MirrorSpec>,
        own: Option<&At<Text>>,
    ) -> Option<Mirror> {
        let MirrorSpec {
            span: _,
            broken: _,
            pool,
            share,
            methods,
            body_max,
            timeout,
        } = &spec.value;
        let to = pool.as_ref().and_then(|pool| self.mirror_pool(pool, own));
        let methods = texts(methods.as_ref());
        let methods: Vec<Method> = methods.filter_map(|at| self.method(at)).collect();
        Some(Mirror {
            to: to?,
            share: Ratio::new(share.as_ref()?.value.0)?,
            methods,
            body_max: usize::try_from(body_max.as_ref()?.value.0).ok()?,
            timeout: timeout.as_ref()?.value.0,
        })
    }

    fn mirror_pool(&mut self, pool: &At<Text>, own: Option<&At<Text>>) -> Option<Destination> {
        let Some(own) = own.filter(|own| own.value == pool.value) else {
            return self.pool_for_requests(pool);
        };
        let message = "the route's own pool would see the request twice";
        self.notes
            .mistake(Mistake::new(pool.span, message).related(own.span, "`pool`"));
        None
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
