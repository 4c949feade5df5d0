//! Which route a request takes. Built once for each set of rules; finding allocates nothing.
//!
//! Of the routes that match, the one with the most specific host wins (exact, then the longest
//! suffix, then any), then the longest path prefix, then the most conditions on method and headers,
//! then the first in the file. Matches raw bytes: percent-encoding is not decoded and dots are not
//! resolved, so that what is matched is what the endpoint will see.

mod paths;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::Method;

use super::fields::Fields;
use crate::config::{Action, HeaderMatch, HostPattern, Route, RouteMatch, Split, Sticky};
use crate::metrics::RouteMetrics;
use crate::upstream::budget::Budget;
use crate::upstream::canary::{Branch, Canary};
use crate::upstream::hedging::Hedging;
use crate::upstream::latency::Latency;
use crate::upstream::rates::Rates;
use crate::upstream::route::RoutePlaces;
use crate::upstream::sticky::Tags;
use paths::Paths;

/// One route with what lives as long as it; shared by all workers.
#[derive(Debug)]
pub(crate) struct RouteState {
    pub(crate) rule: Route,
    /// The same one over all reloads that keep the route's name.
    pub(crate) budget: Arc<Budget>,
    /// Kept likewise. Only where something asks for it.
    pub(crate) latency: Option<Arc<Latency>>,
    pub(crate) hedging: Option<Arc<Hedging>>,
    /// For each of the rule's splits, in their order. Kept likewise, while they stay as they are.
    pub(crate) branches: Vec<Branch>,
    /// Where sessions are known by a cookie.
    pub(crate) tags: Option<Tags>,
    pub(crate) metrics: RouteMetrics,
    pub(crate) places: RoutePlaces,
    pub(crate) rates: Rates,
}

#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    exact: HashMap<Box<str>, Paths>,
    /// By suffix, its leading dot included.
    suffix: HashMap<Box<str>, Paths>,
    /// The longest key of `suffix`, in bytes: longer ends of a host need no look.
    suffix_max: usize,
    any: Paths,
    /// All of them, in the order of the file.
    all: Vec<Arc<RouteState>>,
}

impl RouteTable {
    pub(crate) fn new(routes: &[Route]) -> Self {
        Self::new_keeping(&Self::default(), routes)
    }

    /// Routes that keep their name keep their budgets and what is known of their latency.
    pub(crate) fn new_keeping(old: &Self, routes: &[Route]) -> Self {
        let all: Vec<_> = routes
            .iter()
            .map(|rule| Arc::new(RouteState::new(old, rule)))
            .collect();
        let (mut exact, mut suffix) = (Lists::new(), Lists::new());
        let mut any = Vec::new();
        for route in &all {
            let list = match &route.rule.when.host {
                None => &mut any,
                Some(HostPattern::Exact(name)) => {
                    exact.entry(unbracketed(name).into()).or_default()
                }
                Some(HostPattern::Suffix(end)) => suffix.entry(Box::from(&**end)).or_default(),
            };
            list.push(Arc::clone(route));
        }
        Self {
            suffix_max: suffix.keys().map(|end| end.len()).max().unwrap_or_default(),
            exact: by_path(exact),
            suffix: by_path(suffix),
            any: Paths::new(any),
            all,
        }
    }

    /// `host`: as the client wrote it, in any case; a port and one trailing dot are passed over.
    /// `path`: a query may follow.
    pub(crate) fn find(
        &self,
        host: &str,
        path: &str,
        method: &Method,
        headers: &Fields,
    ) -> Option<&Arc<RouteState>> {
        let path = without_query(path);
        let request = Request { method, headers };
        if self.exact.is_empty() && self.suffix.is_empty() {
            return self.any.find(path, |route| request.fits(&route.rule.when));
        }
        let mut buffer = [0; HOST_MAX];
        let host = plain(host, &mut buffer);
        self.paths_for(host)
            .find_map(|paths| paths.find(path, |route| request.fits(&route.rule.when)))
    }

    /// In the order of the file.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &Arc<RouteState>> {
        self.all.iter()
    }

    /// The routes that this host may take, those of the most specific pattern first.
    fn paths_for<'t, 'h>(&'t self, host: &'h str) -> impl Iterator<Item = &'t Paths> + use<'t, 'h> {
        let exact = self.exact.get(host);
        let dots = host.bytes().enumerate().skip(1);
        let ends = dots
            .filter(|(_, byte)| *byte == b'.')
            .map(|(at, _)| &host[at..])
            .filter(|end| end.len() <= self.suffix_max);
        let suffixes = ends.filter_map(|end| self.suffix.get(end));
        exact.into_iter().chain(suffixes).chain([&self.any])
    }
}

/// Routes by host pattern, in the order of the file.
type Lists = HashMap<Box<str>, Vec<Arc<RouteState>>>;

fn by_path(lists: Lists) -> HashMap<Box<str>, Paths> {
    let indexed = |(host, routes)| (host, Paths::new(routes));
    lists.into_iter().map(indexed).collect()
}

impl RouteState {
    fn new(old: &RouteTable, rule: &Route) -> Self {
        let predecessor = old.routes().find(|route| route.rule.name == rule.name);
        let budget = match predecessor {
            Some(predecessor) => Arc::clone(&predecessor.budget),
            None => Arc::new(Budget::new(rule.retry.budget)),
        };
        budget.set_ratio(rule.retry.budget);
        let measured = rule.hedge.is_some() || rule.timeouts.adaptive.is_some();
        let known = predecessor.and_then(|route| route.latency.clone());
        let hedging = rule.hedge.map(|hedge| {
            let known = predecessor.and_then(|route| route.hedging.clone());
            let hedging = known.unwrap_or_else(|| Arc::new(Hedging::new(hedge.budget)));
            hedging.set_share(hedge.budget);
            hedging
        });
        Self {
            rule: rule.clone(),
            budget,
            latency: measured.then(|| known.unwrap_or_default()),
            hedging,
            branches: branches(predecessor.map(|route| &**route), rule),
            tags: tags(rule),
            metrics: RouteMetrics::new(&rule.name),
            places: RoutePlaces::new(rule, predecessor.map(|old| &old.places)),
            rates: Rates::new(rule, predecessor.map(|old| &old.rates)),
        }
    }
}

fn tags(rule: &Route) -> Option<Tags> {
    let Some(Sticky::Cookie(cookie)) = &rule.options.sticky else {
        return None;
    };
    let own = match &rule.action {
        Action::Forward(to) => Some(to.pool),
        Action::Redirect(_) | Action::Respond(_) => None,
    };
    let others = rule.options.split.iter().map(|split| split.to.pool);
    Some(Tags::new(
        &cookie.keys,
        own.into_iter().chain(others).collect(),
    ))
}

fn branches(predecessor: Option<&RouteState>, rule: &Route) -> Vec<Branch> {
    let mut taken = 0.0;
    let branch = |split: &Split| {
        let known = predecessor.and_then(|route| {
            let at = route
                .rule
                .options
                .split
                .iter()
                .position(|old| old.is_same(split))?;
            Some(Arc::clone(&route.branches.get(at)?.canary))
        });
        let canary = known.unwrap_or_else(|| Arc::new(Canary::new(split.abort)));
        let branch = Branch::new(&rule.name, split, taken, canary);
        taken += split.share.get();
        branch
    };
    rule.options.split.iter().map(branch).collect()
}

/// Among routes for the same host and path prefix: more wins.
fn conditions(when: &RouteMatch) -> usize {
    when.headers.len() + usize::from(!when.methods.is_empty())
}

struct Request<'r> {
    method: &'r Method,
    headers: &'r Fields,
}

impl Request<'_> {
    /// Host and path were looked at before.
    fn fits(&self, when: &RouteMatch) -> bool {
        (when.methods.is_empty() || when.methods.contains(self.method))
            && when.headers.iter().all(|wanted| self.has(wanted))
    }

    fn has(&self, wanted: &HeaderMatch) -> bool {
        match &wanted.value {
            None => self.headers.contains(&wanted.name),
            Some(value) => self
                .headers
                .all(&wanted.name)
                .any(|line| line == value.as_bytes()),
        }
    }
}

fn without_query(path: &str) -> &str {
    let end = memchr::memchr2(b'?', b'#', path.as_bytes());
    &path[..end.unwrap_or(path.len())]
}

/// Bytes of the longest host that a pattern can name (RFC 1035 §2.3.4: 253). A longer one takes the
/// routes for any host.
pub(crate) const HOST_MAX: usize = 255;

/// The host in lower case, without port, brackets and trailing dot. Empty if it is too long.
pub(crate) fn plain<'b>(host: &str, buffer: &'b mut [u8; HOST_MAX]) -> &'b str {
    let host = unbracketed(without_port(host));
    let host = host.strip_suffix('.').unwrap_or(host);
    let Some(buffer) = buffer.get_mut(..host.len()) else {
        return "";
    };
    buffer.copy_from_slice(host.as_bytes());
    buffer.make_ascii_lowercase();
    // Never an error: lower-casing ASCII letters keeps text text.
    std::str::from_utf8(buffer).unwrap_or_default()
}

/// `example.com:80`, `[::1]:80` and `example.com:` lose what follows the host; a bare IPv6 address
/// is left whole.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (name.ends_with(']') || !name.contains(':')) =>
        {
            name
        }
        _ => host,
    }
}

fn unbracketed(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inner
        .filter(|inner| inner.parse::<IpAddr>().is_ok())
        .unwrap_or(host)
}

#[cfg(test)]
pub(crate) mod tests;
