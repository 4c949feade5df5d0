//! What a request would get now, and why, without sending it. The same table, the same ranking and
//! the same loads as for a real one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ::http::{Method, Uri};
use sealane_model::{EndpointId, Snapshot};
use sealane_steering::{Ask, ClientPlace, Decision, How};

use crate::canaries;
use crate::clock;
use crate::config::{Action, Coalesce, Credentials, Mirror, Percentile, RouteOptions, Sticky};
use crate::http::fields::Fields;
use crate::http::route::RouteState;
use crate::shared::Shared;
use crate::upstream::Mark;
use crate::upstream::hedging::Hedging;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error("not an absolute URL: {0}")]
    Url(String),
    #[error("no route matches {host}{path}")]
    NoRoute { host: String, path: String },
    #[error("the route {route} answers by itself, without an endpoint")]
    NoPool { route: String },
}

/// What the choice among a region's endpoints would see of one.
fn what_is_known(shared: &Shared, id: EndpointId) -> String {
    let mut known = format!("{} in flight", shared.loads.in_flight(id));
    if let Some(micros) = shared.loads.micros(id) {
        known += &format!(", {:.1} ms", micros / 1e3);
    }
    let now = shared.loads.millis(clock::now().into_std());
    match shared.loads.mark(id) {
        Mark::Plain => {}
        Mark::Less { percent, warm_from } => {
            if percent < 100 {
                known += &format!(", {percent} % of its weight for its latency");
            }
            if warm_from.is_some() {
                known += ", warming up";
            }
        }
        Mark::Out { until } if now < until => {
            known += &format!(", ejected for {} s more", (until - now).div_ceil(1_000));
        }
        Mark::Out { .. } => known += ", ejected; a trial is due",
        Mark::Trial { .. } => known += ", on trial",
    }
    known
}

pub(crate) fn explain(
    shared: &Shared,
    url: &str,
    client: IpAddr,
) -> Result<Decision, ExplainError> {
    let not_absolute = || ExplainError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| not_absolute())?;
    let host = uri.host().ok_or_else(not_absolute)?;
    let rules = shared.rules.load();
    let found = rules
        .routes
        .find(host, uri.path(), &Method::GET, &Fields::new());
    let route = found.ok_or_else(|| ExplainError::NoRoute {
        host: host.to_owned(),
        path: uri.path().to_owned(),
    })?;
    let Action::Forward(to) = &route.rule.action else {
        let route = route.rule.name.to_string();
        return Err(ExplainError::NoPool { route });
    };
    let place = ClientPlace::locate(client, How::Connection, &rules.config.geo);
    let (to, split) = canaries::explain(route, to, client);
    let pool = to.pool;
    let world = shared.world.load_full();
    let ask = Ask {
        pool,
        policy: &to.steering,
        place: &place,
        // Requests spread by a number of their own; this is the one they would all have if their
        // choice stuck to the client's network.
        key: place.key(),
    };
    let explanation = sealane_steering::explain(&ask, &world);
    let mut notes = vec![("balance", to.balance.policy.as_str().to_owned())];
    notes.extend(split.into_iter().map(|said| ("split", said)));
    let RouteOptions {
        sticky,
        coalesce,
        mirror,
        ..
    } = &route.rule.options;
    notes.extend(sticky.iter().map(|sticky| ("sticky", say_sticky(sticky))));
    notes.extend(
        coalesce
            .iter()
            .map(|rule| ("coalesce", say_coalesce(rule, route))),
    );
    notes.extend(
        mirror
            .iter()
            .map(|rule| ("mirror", say_mirror(rule, &world))),
    );
    for region in explanation.ranking.regions() {
        let Some((member, _)) = world.member(pool, region) else {
            continue;
        };
        let usable = sealane_steering::usable(member, &world);
        let loads = usable.endpoints.iter().map(|id| {
            let name = world.topology.endpoint(*id);
            let name = name.map_or("?", |endpoint| &endpoint.name);
            format!("{name} ({})", what_is_known(shared, *id))
        });
        let loads = loads.collect::<Vec<_>>().join(", ");
        let region = world.topology.region_name(region);
        notes.push(("endpoints", format!("{region}: {loads}")));
        let gates = shared.gates.get(pool);
        let gate = gates.as_deref().and_then(Option::as_deref);
        if let Some(gate) = gate.and_then(|gate| gate.region(member.region, region)) {
            notes.push(("places", format!("{region}: {}", gate.places.shown())));
        }
    }
    notes.extend(tempo(route, clock::now().into_std()));
    Ok(Decision {
        via: route.rule.name.to_string(),
        pool,
        policy: to.steering.as_str(),
        place,
        explanation,
        world: Arc::clone(&world),
        notes,
    })
}

fn say_sticky(sticky: &Sticky) -> String {
    match sticky {
        Sticky::Cookie(cookie) => format!("by cookie {}: as below for new sessions", cookie.name),
        Sticky::Header(name) => format!("by header {name}: as below for requests without it"),
    }
}

fn say_coalesce(rule: &Coalesce, route: &RouteState) -> String {
    if route.rule.options.sticky.is_some() {
        return "nothing, as requests belong to sessions".to_owned();
    }
    let methods: Vec<_> = rule.methods.iter().map(Method::as_str).collect();
    let who = match rule.credentials {
        Credentials::Alone => "not those that say who asks",
        Credentials::ByValue => "of those that say who asks, those that say the same",
    };
    format!(
        "{} for the same, up to {} an attempt, within {:?}; {who}",
        methods.join(" and "),
        rule.followers + 1,
        rule.wait_within(route.rule.timeouts.request),
    )
}

fn say_mirror(rule: &Mirror, world: &Snapshot) -> String {
    let pool = world.topology.pool(rule.to.pool);
    let pool = pool.map_or("?", |pool| &pool.name);
    let methods: Vec<_> = rule.methods.iter().map(Method::as_str).collect();
    let which = match &*methods {
        [] => "all requests".to_owned(),
        some => some.join(" and "),
    };
    format!(
        "{}% of {which} to {pool}, with bodies of {} bytes at most",
        rule.share.get() * 100.0,
        rule.body_max,
    )
}

/// What the route's attempts take, and when a second endpoint is asked beside a slow one.
fn tempo(route: &RouteState, now: Instant) -> Vec<(&'static str, String)> {
    let mut notes = Vec::new();
    let Some(latency) = &route.latency else {
        return notes;
    };
    let took = Percentile::ALL.map(|which| {
        let took = latency.quantile(which, now)?;
        Some(format!("p{} {took:.1?}", which.percent()))
    });
    let took: Option<Vec<_>> = took.into_iter().collect();
    let unknown = || "too few to tell".to_owned();
    notes.push((
        "attempts",
        took.map_or_else(unknown, |took| took.join(", ")),
    ));
    if let Some(hedge) = &route.rule.hedge {
        let delay = Hedging::delay(hedge.after, latency, now);
        let unknown = || "none, attempts are not known yet".to_owned();
        let told = |delay| format!("after {delay:.1?}");
        notes.push(("hedge", delay.map_or_else(unknown, told)));
    }
    if let Some(adaptive) = &route.rule.timeouts.adaptive {
        let usual = latency.quantile(adaptive.of, now);
        let patience = adaptive.patience(usual, route.rule.timeouts.attempt);
        notes.push(("attempt time-out", format!("{patience:.1?}")));
    }
    notes
}
