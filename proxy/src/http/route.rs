//! Which route a request takes. Built once for each set of rules; finding allocates nothing.
//!
//! Of the routes that match, the one with the most specific host wins (exact, then the longest
//! suffix, then any), then the longest path prefix, then the most conditions on method and headers,
//! then the first in the file. Matches raw bytes: percent-encoding is not decoded and dots are not
//! resolved, so that what is matched is what the endpoint will see.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::Method;

use super::fields::Fields;
use crate::config::{HeaderMatch, HostPattern, Route, RouteMatch};
use crate::metrics::RouteMetrics;
use crate::upstream::budget::Budget;

/// One route with what lives as long as it; shared by all workers.
#[derive(Debug)]
pub(crate) struct RouteState {
    pub(crate) rule: Route,
    /// The same one over all reloads that keep the route's name.
    pub(crate) budget: Arc<Budget>,
    pub(crate) metrics: RouteMetrics,
}

/// In each list, the one that would win stands first.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    exact: HashMap<Box<str>, Vec<Arc<RouteState>>>,
    /// By suffix, its leading dot included.
    suffix: HashMap<Box<str>, Vec<Arc<RouteState>>>,
    /// The longest key of `suffix`, in bytes: longer ends of a host need no look.
    suffix_max: usize,
    any: Vec<Arc<RouteState>>,
    /// All of them, in the order of the file.
    all: Vec<Arc<RouteState>>,
}

impl RouteTable {
    pub(crate) fn new(routes: &[Route]) -> Self {
        Self::new_keeping(&Self::default(), routes)
    }

    /// Routes that keep their name keep their budget.
    pub(crate) fn new_keeping(old: &Self, routes: &[Route]) -> Self {
        let mut table = Self::default();
        for rule in routes {
            let state = Arc::new(RouteState::new(old, rule));
            table
                .list_for(rule.when.host.as_ref())
                .push(Arc::clone(&state));
            table.all.push(state);
        }
        let lists = table.exact.values_mut().chain(table.suffix.values_mut());
        for list in lists.chain([&mut table.any]) {
            // Stable: equal ones keep the order of the file.
            list.sort_by_key(|route| std::cmp::Reverse(specificity(&route.rule.when)));
        }
        table
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
        let request = Request {
            path: without_query(path),
            method,
            headers,
        };
        let mut buffer = [0; HOST_MAX];
        let host = plain(host, &mut buffer);
        self.lists_for(host).find_map(|list| {
            let mut routes = list.iter();
            routes.find(|route| request.matches(&route.rule.when))
        })
    }

    /// In the order of the file.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &Arc<RouteState>> {
        self.all.iter()
    }

    /// The lists whose routes this host may take, the most specific one first.
    fn lists_for<'t, 'h>(
        &'t self,
        host: &'h str,
    ) -> impl Iterator<Item = &'t [Arc<RouteState>]> + use<'t, 'h> {
        let exact = self.exact.get(host);
        let dots = host.bytes().enumerate().skip(1);
        let ends = dots
            .filter(|(_, byte)| *byte == b'.')
            .map(|(at, _)| &host[at..])
            .filter(|end| end.len() <= self.suffix_max);
        let suffixes = ends.filter_map(|end| self.suffix.get(end));
        exact
            .into_iter()
            .chain(suffixes)
            .chain([&self.any])
            .map(Vec::as_slice)
    }

    fn list_for(&mut self, host: Option<&HostPattern>) -> &mut Vec<Arc<RouteState>> {
        match host {
            None => &mut self.any,
            Some(HostPattern::Exact(name)) => {
                self.exact.entry(unbracketed(name).into()).or_default()
            }
            Some(HostPattern::Suffix(end)) => {
                self.suffix_max = self.suffix_max.max(end.len());
                self.suffix.entry(Box::from(&**end)).or_default()
            }
        }
    }
}

impl RouteState {
    fn new(old: &RouteTable, rule: &Route) -> Self {
        let predecessor = old.routes().find(|route| route.rule.name == rule.name);
        let budget = match predecessor {
            Some(predecessor) => Arc::clone(&predecessor.budget),
            None => Arc::new(Budget::new(rule.retry.budget)),
        };
        budget.set_ratio(rule.retry.budget);
        Self {
            rule: rule.clone(),
            budget,
            metrics: RouteMetrics::new(&rule.name),
        }
    }
}

/// Among routes for the same host: greater wins.
fn specificity(when: &RouteMatch) -> (usize, usize) {
    let path = when.path_prefix.as_ref().map_or(0, |prefix| prefix.len());
    let conditions = when.headers.len() + usize::from(!when.methods.is_empty());
    (path, conditions)
}

struct Request<'r> {
    path: &'r str,
    method: &'r Method,
    headers: &'r Fields,
}

impl Request<'_> {
    /// The host was looked at before.
    fn matches(&self, when: &RouteMatch) -> bool {
        let path = when.path_prefix.as_deref();
        path.is_none_or(|prefix| has_prefix(self.path, prefix))
            && (when.methods.is_empty() || when.methods.contains(self.method))
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

/// By whole segments: `/v1` is a prefix of `/v1` and `/v1/x`; `/v1/` of `/v1/x`, not of `/v1`.
fn has_prefix(path: &str, prefix: &str) -> bool {
    let Some(rest) = path.strip_prefix(prefix) else {
        return false;
    };
    rest.is_empty() || prefix.is_empty() || prefix.ends_with('/') || rest.starts_with('/')
}

fn without_query(path: &str) -> &str {
    let end = path.bytes().position(|byte| matches!(byte, b'?' | b'#'));
    &path[..end.unwrap_or(path.len())]
}

/// Bytes of the longest host that a pattern can name (RFC 1035 §2.3.4: 253). A longer one takes the
/// routes for any host.
const HOST_MAX: usize = 255;

/// The host in lower case, without port, brackets and trailing dot. Empty if it is too long.
fn plain<'b>(host: &str, buffer: &'b mut [u8; HOST_MAX]) -> &'b str {
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
