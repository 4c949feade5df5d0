//! What operators see of canaries, and what they may say: the rest is in `upstream::canary`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sealane_model::Ratio;

use crate::clock;
use crate::config::{Destination, Split, SplitKey};
use crate::http::route::RouteState;
use crate::http::split::network;
use crate::shared::Shared;
use crate::upstream::canary::Branch;

/// One canary of one route.
#[derive(Clone, Debug, PartialEq)]
pub struct CanaryState {
    pub route: Arc<str>,
    pub pool: Arc<str>,
    /// What the rules say: nothing of it while it is aborted.
    pub share: Ratio,
    /// On which grounds, with the numbers, and how long ago.
    pub aborted: Option<(String, Duration)>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the route `{route}` sends no share of its requests to a pool `{pool}`")]
pub struct NoSuchCanary {
    pub route: String,
    pub pool: String,
}

pub(crate) fn states(shared: &Shared) -> Vec<CanaryState> {
    let rules = shared.rules.load();
    let routes = rules.routes.routes();
    let all = routes.flat_map(|route| {
        let splits = both(route);
        splits.map(|(rule, branch)| CanaryState {
            route: Arc::clone(&route.rule.name),
            pool: Arc::clone(&rule.name),
            share: rule.share,
            aborted: aborted(branch),
        })
    });
    all.collect()
}

pub(crate) fn reset(shared: &Shared, route: &str, pool: &str) -> Result<bool, NoSuchCanary> {
    let rules = shared.rules.load();
    let mut routes = rules.routes.routes();
    let found = routes.find(|known| *known.rule.name == *route);
    let branch = found.and_then(|route| {
        let mut splits = both(route);
        splits.find_map(|(rule, branch)| (*rule.name == *pool).then_some(branch))
    });
    let branch = branch.ok_or_else(|| NoSuchCanary {
        route: route.to_owned(),
        pool: pool.to_owned(),
    })?;
    let was = branch.canary.reset();
    if was {
        tracing::warn!(
            route,
            pool,
            "the canary gets its share again: an operator said so"
        );
    }
    Ok(was)
}

/// Where this client's requests go, as far as its address says, and what is to be said of each
/// split of the route.
pub(crate) fn explain<'r>(
    route: &'r RouteState,
    own: &'r Destination,
    client: IpAddr,
) -> (&'r Destination, Vec<String>) {
    let goes = |(rule, branch): &(&Split, &Branch)| {
        rule.key == Some(SplitKey::ClientIp) && branch.takes(&network(client))
    };
    let taken = both(route).find(goes);
    let open = taken.filter(|(_, branch)| !branch.canary.is_aborted());
    let to = open.map_or(own, |(rule, _)| &rule.to);
    (
        to,
        both(route)
            .map(|(rule, branch)| say(route, rule, branch))
            .collect(),
    )
}

fn say(route: &RouteState, rule: &Split, branch: &Branch) -> String {
    let by = match &rule.key {
        None if route.tags.is_some() => "by session".to_owned(),
        None => "drawn for each request".to_owned(),
        Some(SplitKey::ClientIp) => "by client address".to_owned(),
        Some(SplitKey::Header(name)) => format!("by header {name}"),
        Some(SplitKey::Cookie(name)) => format!("by cookie {name}"),
    };
    let (pool, share) = (&rule.name, rule.share.get() * 100.0);
    match aborted(branch) {
        None => format!("{share}% to {pool}, {by}"),
        Some((grounds, ago)) => format!(
            "{pool} was to have {share}%, {by}, and was aborted {} s ago: {grounds}",
            ago.as_secs()
        ),
    }
}

fn both(route: &RouteState) -> impl Iterator<Item = (&Split, &Branch)> {
    route.rule.options.split.iter().zip(&route.branches)
}

fn aborted(branch: &Branch) -> Option<(String, Duration)> {
    let aborted = branch.canary.aborted()?;
    let ago = clock::now()
        .into_std()
        .saturating_duration_since(aborted.at);
    Some((aborted.grounds.to_string(), ago))
}
