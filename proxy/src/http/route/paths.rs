//! The routes of one host by their path prefixes, so that a thousand of them cost hardly more than one.
//!
//! Built by [`RouteTable`](super::RouteTable) once for each set of rules, asked for each request.

use std::cmp::Reverse;
use std::sync::Arc;

use super::{RouteState, conditions};

/// Prefixes in the order of their bytes. All those that a path begins with lie on one chain: from
/// the last one that is not above the path, each to the longest other one that it begins with.
#[derive(Debug, Default)]
pub(super) struct Paths {
    prefixes: Vec<Prefix>,
}

#[derive(Debug)]
struct Prefix {
    text: Box<str>,
    /// Where the longest other prefix stands that this one begins with.
    shorter: Option<usize>,
    /// The one that would win stands first.
    routes: Vec<Arc<RouteState>>,
}

impl Paths {
    /// `routes`: in the order of the file.
    pub(super) fn new(mut routes: Vec<Arc<RouteState>>) -> Self {
        // Stable: equal ones keep the order of the file.
        routes.sort_by(|a, b| order(a).cmp(&order(b)));
        let mut prefixes: Vec<Prefix> = Vec::new();
        // From the shortest to the longest, those that the one at hand begins with.
        let mut chain: Vec<usize> = Vec::new();
        for route in routes {
            if let Some(last) = prefixes.last_mut()
                && *last.text == *prefix(&route)
            {
                last.routes.push(route);
                continue;
            }
            let text: Box<str> = prefix(&route).into();
            while let Some(last) = chain.last()
                && !text.starts_with(&*prefixes[*last].text)
            {
                chain.pop();
            }
            let shorter = chain.last().copied();
            chain.push(prefixes.len());
            prefixes.push(Prefix {
                text,
                shorter,
                routes: vec![route],
            });
        }
        Self { prefixes }
    }

    /// The first that `fits`: of those with the longest matching prefix first. `path`: without query.
    pub(super) fn find(
        &self,
        path: &str,
        fits: impl Fn(&RouteState) -> bool,
    ) -> Option<&Arc<RouteState>> {
        let above = self
            .prefixes
            .partition_point(|prefix| *prefix.text <= *path);
        let mut at = above.checked_sub(1);
        while let Some(prefix) = at.and_then(|at| self.prefixes.get(at)) {
            if has_prefix(path, &prefix.text)
                && let Some(route) = prefix.routes.iter().find(|route| fits(route))
            {
                return Some(route);
            }
            at = prefix.shorter;
        }
        None
    }
}

fn prefix(route: &RouteState) -> &str {
    route.rule.when.path_prefix.as_deref().unwrap_or_default()
}

/// By prefix; among equal ones, those with the most conditions first.
fn order(route: &RouteState) -> (&str, Reverse<usize>) {
    (prefix(route), Reverse(conditions(&route.rule.when)))
}

/// By whole segments: `/v1` is a prefix of `/v1` and `/v1/x`; `/v1/` of `/v1/x`, not of `/v1`.
fn has_prefix(path: &str, prefix: &str) -> bool {
    let Some(rest) = path.strip_prefix(prefix) else {
        return false;
    };
    rest.is_empty() || prefix.is_empty() || prefix.ends_with('/') || rest.starts_with('/')
}
