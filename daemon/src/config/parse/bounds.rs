//! What pools, routes and tenants may ask for: places and rates.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use sealane_model::PoolId;
use sealane_proxy::config::{
    AdaptiveRate, Bounds, Bulkhead, Concurrency, PoolLimits, Rate, RateKey, RateRule, RouteLimits,
    TenantKey, Tier,
};

use super::super::bounds::{
    AdaptiveRateSpec, ConcurrencyMaxSpec, ConcurrencySpec, HeaderNameSpec, Places,
    PoolBulkheadSpec, RateKeySpec, RateKeyWord, RateLimitSpec, RouteBulkheadSpec, TenantSpec, Wait,
};
use super::super::decode::{At, List};
use super::super::error::Mistake;
use super::super::spec::RouteSpec;
use super::super::unit::{Text, Whole};
use super::Parser;

/// Characters of a rate's name: it stands in a header field.
const NAME_MAX: usize = 64;

impl Parser<'_> {
    pub(super) fn pool_limits(
        &mut self,
        pool: PoolId,
        name: &str,
        concurrency: Option<&At<ConcurrencySpec>>,
        bulkhead: Option<&At<PoolBulkheadSpec>>,
    ) {
        let concurrency = match concurrency.map(|at| &at.value) {
            None | Some(ConcurrencySpec::Off) => Concurrency::Off,
            Some(ConcurrencySpec::Adaptive) => Concurrency::Adaptive,
            Some(ConcurrencySpec::Max(ConcurrencyMaxSpec { max, .. })) => match whole(max.as_ref())
            {
                Some(max) => Concurrency::Max(max),
                None => return,
            },
        };
        let mut limits = PoolLimits {
            pool,
            name: name.into(),
            concurrency,
            bulkhead: None,
        };
        if let Some(spec) = bulkhead {
            let PoolBulkheadSpec {
                span: _,
                broken: _,
                requests,
                queue,
                wait,
            } = &spec.value;
            limits.bulkhead = bulkhead_of(requests.as_ref(), queue.as_ref(), wait.as_ref());
        }
        if limits.concurrency != Concurrency::Off || limits.bulkhead.is_some() {
            self.pool_limits.push(limits);
        }
    }

    pub(super) fn bounds(&mut self, tier_header: Option<&At<Text>>) -> Bounds {
        Bounds {
            pools: std::mem::take(&mut self.pool_limits),
            tier_header: tier_header.and_then(|at| self.header_name_of(at)),
        }
    }

    pub(super) fn route_limits(&mut self, spec: &RouteSpec) -> Option<RouteLimits> {
        let RouteSpec {
            tier,
            tenant,
            bulkhead,
            rate_limit,
            ..
        } = spec;
        let tenant = match tenant {
            Some(tenant) => Some(self.tenant(&tenant.value)?),
            None => None,
        };
        let mut limits = RouteLimits {
            tier: Tier::new(tier.as_ref()?.value.0)?,
            ..RouteLimits::default()
        };
        if let Some(spec) = bulkhead {
            let RouteBulkheadSpec {
                span: _,
                broken,
                requests,
                queue,
                wait,
                per_tenant,
            } = &spec.value;
            if requests.is_none() && per_tenant.is_none() && !broken {
                let mistake = Mistake::new(spec.span, "the bulkhead bounds nothing");
                self.notes
                    .mistake(mistake.expected("`requests`, `per_tenant` or both"));
            }
            if let (Some(per_tenant), None) = (per_tenant, &tenant) {
                self.lacks_tenant(per_tenant.span, "`per_tenant`");
            }
            limits.bulkhead = bulkhead_of(requests.as_ref(), queue.as_ref(), wait.as_ref());
            limits.per_tenant = whole(per_tenant.as_ref());
        }
        limits.rates = self.rates(rate_limit.as_ref(), tenant.as_ref())?;
        limits.tenant = tenant;
        Some(limits)
    }

    fn lacks_tenant(&mut self, span: super::super::source::Span, what: &str) {
        let message = format!("{what} is for each tenant, and the route has no `tenant`");
        let mistake = Mistake::new(span, message);
        self.notes
            .mistake(mistake.help("say who a tenant is: `tenant: { header: x-tenant }`"));
    }

    fn tenant(&mut self, spec: &TenantSpec) -> Option<TenantKey> {
        match spec {
            TenantSpec::Host => Some(TenantKey::Host),
            TenantSpec::Header(header) => self.header_of(header).map(TenantKey::Header),
        }
    }

    fn header_of(&mut self, spec: &HeaderNameSpec) -> Option<HeaderName> {
        self.header_name_of(spec.header.as_ref()?)
    }

    fn header_name_of(&mut self, at: &At<Text>) -> Option<HeaderName> {
        let name = HeaderName::from_bytes(at.0.as_bytes());
        if name.is_err() {
            let message = format!("`{}` is no header field's name", at.0.escape_debug());
            self.notes.wrong(at.span, message);
        }
        name.ok()
    }

    fn rates(
        &mut self,
        list: Option<&At<List<RateLimitSpec>>>,
        tenant: Option<&TenantKey>,
    ) -> Option<Vec<RateRule>> {
        let mut rules: Vec<RateRule> = Vec::new();
        for spec in list.iter().flat_map(|list| list.value.iter()) {
            let number = rules.len() + 1;
            let rule = self.rate(spec, number, tenant)?;
            if rules.iter().any(|other| other.name == rule.name) {
                let message = format!("two rates of the route are called `{}`", rule.name);
                self.notes.wrong(spec.span, message);
            }
            rules.push(rule);
        }
        Some(rules)
    }

    fn rate(
        &mut self,
        spec: &At<RateLimitSpec>,
        number: usize,
        tenant: Option<&TenantKey>,
    ) -> Option<RateRule> {
        let RateLimitSpec {
            span: _,
            broken: _,
            name,
            key,
            rate,
            burst,
            keys,
            adaptive,
        } = &spec.value;
        let name: Arc<str> = match name {
            Some(name) => self.rate_name(name)?,
            None => format!("limit-{number}").into(),
        };
        let key = key.as_ref()?;
        let key = match &key.value {
            RateKeySpec::Word(RateKeyWord::Client) => RateKey::Client,
            RateKeySpec::Word(RateKeyWord::Route) => RateKey::Route,
            RateKeySpec::Word(RateKeyWord::Tenant) => match tenant {
                Some(tenant) => RateKey::Tenant(tenant.clone()),
                None => {
                    self.lacks_tenant(key.span.or(spec.span), "`key: tenant`");
                    return None;
                }
            },
            RateKeySpec::Header(header) => RateKey::Header(self.header_of(header)?),
        };
        let rate = rate.as_ref()?.value;
        let per_second = u64::from(rate.count) / rate.unit.seconds();
        let usual = u32::try_from(per_second).unwrap_or(u32::MAX).max(1);
        let adaptive = match adaptive {
            Some(spec) => {
                let AdaptiveRateSpec {
                    span: _,
                    broken: _,
                    latency,
                    floor,
                } = &spec.value;
                let floor = floor.as_ref()?;
                if floor.value.0 < 0.01 {
                    let mistake = Mistake::new(floor.span, "nothing would be left of the rate");
                    self.notes.mistake(mistake.expected("a floor of 1%–100%"));
                    return None;
                }
                Some(AdaptiveRate {
                    latency: latency.as_ref()?.value.0,
                    floor: floor.value.0,
                })
            }
            None => None,
        };
        Some(RateRule {
            name,
            key,
            rate: Rate {
                count: rate.count,
                per: Duration::from_secs(rate.unit.seconds()),
            },
            burst: whole(burst.as_ref()).unwrap_or(usual),
            keys: whole(keys.as_ref())?,
            adaptive,
        })
    }

    /// It becomes a quoted string in a header field (RFC 9651 §3.3.3).
    fn rate_name(&mut self, at: &At<Text>) -> Option<Arc<str>> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let text = at.0.as_str();
        if text.len() <= NAME_MAX && text.bytes().all(plain) {
            return Some(text.into());
        }
        let message = format!("`{}` cannot be the name of a rate", text.escape_debug());
        let expected = format!("at most {NAME_MAX} letters, digits, `-`, `_` and `.`");
        self.notes
            .mistake(Mistake::new(at.span, message).expected(expected));
        None
    }
}

fn bulkhead_of(
    requests: Option<&At<Places>>,
    queue: Option<&At<Whole<0, 10_000>>>,
    wait: Option<&At<Wait>>,
) -> Option<Bulkhead> {
    Some(Bulkhead {
        requests: whole(requests)?,
        queue: whole(queue)?,
        wait: wait?.value.0,
    })
}

fn whole<const MIN: u64, const MAX: u64>(at: Option<&At<Whole<MIN, MAX>>>) -> Option<u32> {
    u32::try_from(at?.value.0).ok()
}
