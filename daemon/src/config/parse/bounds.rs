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
use super::super::source::Span;
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
        let tenant = match tenant.as_ref().map(|tenant| self.tenant(&tenant.value)) {
            None => Tenant::Nobody,
            Some(None) => Tenant::Unreadable,
            Some(Some(key)) => Tenant::Is(key),
        };
        let mut limits = RouteLimits::default();
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
            if let (Some(per_tenant), Tenant::Nobody) = (per_tenant, &tenant) {
                self.lacks_tenant(per_tenant.span, "`per_tenant`");
            }
            limits.bulkhead = bulkhead_of(requests.as_ref(), queue.as_ref(), wait.as_ref());
            limits.per_tenant = whole(per_tenant.as_ref());
        }
        // All of them are looked at, whichever is wrong.
        let rates = self.rates(rate_limit.as_ref(), &tenant);
        limits.tenant = match tenant {
            Tenant::Nobody => None,
            Tenant::Unreadable => return None,
            Tenant::Is(key) => Some(key),
        };
        limits.tier = Tier::new(tier.as_ref()?.value.0)?;
        limits.rates = rates?;
        Some(limits)
    }

    fn lacks_tenant(&mut self, span: Span, what: &str) {
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
        tenant: &Tenant,
    ) -> Option<Vec<RateRule>> {
        let mut rules = Vec::new();
        let mut names: Vec<Arc<str>> = Vec::new();
        let list = list.iter().flat_map(|list| list.value.iter());
        for (spec, number) in list.zip(1..) {
            let name = self.rate_name(spec.value.name.as_ref(), number);
            if let Some(name) = &name {
                if names.contains(name) {
                    let message = format!("two rates of the route are called `{name}`");
                    self.notes.wrong(spec.span, message);
                }
                names.push(Arc::clone(name));
            }
            rules.push(self.rate(spec, name, tenant));
        }
        rules.into_iter().collect()
    }

    fn rate(
        &mut self,
        spec: &At<RateLimitSpec>,
        name: Option<Arc<str>>,
        tenant: &Tenant,
    ) -> Option<RateRule> {
        let RateLimitSpec {
            span: _,
            broken: _,
            name: _,
            key,
            rate,
            burst,
            keys,
            adaptive,
        } = &spec.value;
        let key = key
            .as_ref()
            .and_then(|key| self.rate_key(key, spec.span, tenant));
        let adaptive = match adaptive
            .as_ref()
            .map(|spec| self.adaptive_rate(&spec.value))
        {
            None => None,
            Some(adaptive) => Some(adaptive?),
        };
        let rate = rate.as_ref()?.value;
        let per_second = u64::from(rate.count) / rate.unit.seconds();
        let usual = u32::try_from(per_second).unwrap_or(u32::MAX).max(1);
        Some(RateRule {
            name: name?,
            key: key?,
            rate: Rate {
                count: rate.count,
                per: Duration::from_secs(rate.unit.seconds()),
            },
            burst: whole(burst.as_ref()).unwrap_or(usual),
            keys: whole(keys.as_ref())?,
            adaptive,
        })
    }

    /// `all`: where it would stand if it were written.
    fn rate_key(&mut self, key: &At<RateKeySpec>, all: Span, tenant: &Tenant) -> Option<RateKey> {
        Some(match &key.value {
            RateKeySpec::Word(RateKeyWord::Client) => RateKey::Client,
            RateKeySpec::Word(RateKeyWord::Route) => RateKey::Route,
            RateKeySpec::Word(RateKeyWord::Tenant) => match tenant {
                Tenant::Is(tenant) => RateKey::Tenant(tenant.clone()),
                Tenant::Unreadable => return None,
                Tenant::Nobody => {
                    self.lacks_tenant(key.span.or(all), "`key: tenant`");
                    return None;
                }
            },
            RateKeySpec::Header(header) => RateKey::Header(self.header_of(header)?),
        })
    }

    fn adaptive_rate(&mut self, spec: &AdaptiveRateSpec) -> Option<AdaptiveRate> {
        let AdaptiveRateSpec {
            span: _,
            broken: _,
            latency,
            floor,
        } = spec;
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

    /// It becomes a quoted string in a header field (RFC 9651 §3.3.3). `number`: of the rule.
    fn rate_name(&mut self, at: Option<&At<Text>>, number: u32) -> Option<Arc<str>> {
        let Some(at) = at else {
            return Some(format!("limit-{number}").into());
        };
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

/// On whose behalf a route's requests come, as far as that could be read.
enum Tenant {
    Nobody,
    Unreadable,
    Is(TenantKey),
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
