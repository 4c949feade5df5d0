//! Fills in what the file leaves out: the operator's `defaults:`, then ours.

use std::collections::HashSet;
use std::time::Duration;

use super::decode::{At, Entry, OneOrMany, Shape, Table};
use super::expand::Environment;
use super::places;
use super::source::Span;
use super::spec::{
    ChallengeWord, DefaultsSpec, EndpointSpec, FileSpec, FlowsSpec, ListenerKind, ListenerSpec,
    NodeSpec, OnDownWord, Point, PoolDefaultsSpec, PoolSpec, ProbeSpec, RegionSpec, RetrySpec,
    RouteDefaultsSpec, RouteSpec, SessionTimeoutsSpec, SoaSpec, SteeredSpec, TimeoutsSpec,
    ZoneSpec,
};
use super::unit::{Period, Reach, Text, Version};

/// Set by service managers (systemd's `StateDirectory=`): where state may be kept.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

/// Pools of database connections are silent for long.
const TCP_IDLE: Duration = Duration::from_secs(3_600);

/// Most protocols over UDP are done within seconds, or say something at least this often.
const UDP_IDLE: Duration = Duration::from_secs(60);

pub(super) fn complete(spec: &mut FileSpec, env: &Environment<'_>) {
    if let Some(defaults) = spec.defaults.take() {
        apply_defaults(spec, defaults.value);
    }
    hand_down_tls(spec);
    spec.fill();
    if spec.version.is_none() {
        spec.version = Some(At::unwritten(Version));
    }
    if let Some(node) = &mut spec.node {
        complete_node(&mut node.value, env);
    }
    if let Some(pools) = &mut spec.pools {
        let pools = pools.value.0.iter_mut();
        for pool in pools.filter_map(|entry| entry.value.as_mut()) {
            complete_pool(&mut pool.value);
        }
    }
    let listeners = spec
        .listeners
        .iter_mut()
        .flat_map(|table| &mut table.value.0);
    for listener in listeners.filter_map(|entry| entry.value.as_mut()) {
        complete_listener(&mut listener.value);
    }
    if let Some(routes) = &mut spec.routes {
        for route in &mut routes.value.0 {
            if let Some(timeouts) = &mut route.value.timeouts {
                complete_timeouts(&mut timeouts.value);
            }
            if let Some(retry) = &mut route.value.retry {
                complete_backoff(&mut retry.value);
            }
        }
        name_routes(&mut routes.value.0);
    }
    if let Some(listeners) = &mut spec.listeners {
        let listeners = listeners.value.0.iter_mut();
        for listener in listeners.filter_map(|entry| entry.value.as_mut()) {
            complete_listener(&mut listener.value);
        }
    }
    let dns = spec.dns.as_mut();
    if let Some(zones) = dns.and_then(|dns| dns.value.zones.as_mut()) {
        for entry in &mut zones.value.0 {
            if let Some(zone) = &mut entry.value {
                complete_zone(&entry.name.value, &mut zone.value);
            }
        }
    }
    complete_challenges(spec);
    complete_regions(spec);
}

/// What is left out depends on what is spoken.
fn complete_listener(listener: &mut ListenerSpec) {
    let kind = listener.protocol.as_ref().map(|protocol| protocol.value);
    let (idle, on_down) = match kind {
        Some(ListenerKind::Tcp | ListenerKind::TlsPassthrough) => (TCP_IDLE, OnDownWord::Keep),
        Some(ListenerKind::Udp) => (UDP_IDLE, OnDownWord::Close),
        Some(ListenerKind::Http | ListenerKind::Https) | None => return,
    };
    let timeouts = listener
        .timeouts
        .get_or_insert_with(|| At::unwritten(SessionTimeoutsSpec::default()));
    if kind == Some(ListenerKind::Udp) {
        // What nobody wrote says nothing here.
        let connect = &mut timeouts.value.connect;
        connect.take_if(|connect| !connect.span.is_written());
        let flows = listener
            .flows
            .get_or_insert_with(|| At::unwritten(FlowsSpec::default()));
        flows.value.fill();
    } else {
        timeouts.value.fill();
    }
    timeouts
        .value
        .idle
        .get_or_insert_with(|| At::unwritten(Period(idle)));
    listener
        .on_down
        .get_or_insert_with(|| At::unwritten(on_down));
}

/// Plain HTTP is asked first where it is spoken: it also works behind what ends TLS before us.
fn complete_challenges(spec: &mut FileSpec) {
    let listeners = spec.listeners.iter().flat_map(|table| table.value.iter());
    let mut listeners = listeners.filter_map(|entry| entry.value.as_ref());
    let speaks_http = listeners.any(|listener| {
        let protocol = listener.protocol.as_ref();
        protocol.is_some_and(|protocol| protocol.value == ListenerKind::Http)
    });
    let http = speaks_http.then_some(ChallengeWord::Http01);
    let words = http.into_iter().chain([ChallengeWord::TlsAlpn01]);
    if let Some(acme) = &mut spec.acme {
        let words = || OneOrMany(words.map(At::unwritten).collect());
        let challenges = &mut acme.value.challenges;
        challenges.get_or_insert_with(|| At::unwritten(words()));
    }
}

/// Limits that nobody wrote give way to those that somebody wrote.
fn complete_timeouts(timeouts: &mut TimeoutsSpec) {
    let TimeoutsSpec {
        connect: Some(connect),
        attempt: Some(attempt),
        request: Some(request),
        adaptive,
        ..
    } = timeouts
    else {
        return;
    };
    if !attempt.span.is_written() {
        if connect.span.is_written() {
            attempt.value.0 = attempt.value.0.max(connect.value.0);
        }
        attempt.value.0 = attempt.value.0.min(request.value.0);
    }
    if !connect.span.is_written() {
        connect.value.0 = connect.value.0.min(attempt.value.0);
    }
    if !request.span.is_written() {
        request.value.0 = request.value.0.max(attempt.value.0);
    }
    if let Some(adaptive) = adaptive
        && let Some(floor) = &mut adaptive.value.floor
        && !floor.span.is_written()
    {
        floor.value.0 = floor.value.0.min(attempt.value.0);
    }
}

/// The same for pauses.
fn complete_backoff(retry: &mut RetrySpec) {
    let Some(backoff) = &mut retry.backoff else {
        return;
    };
    if let (Some(first), Some(max)) = (&mut backoff.value.first, &mut backoff.value.max) {
        if !max.span.is_written() {
            max.value.0 = max.value.0.max(first.value.0);
        }
        if !first.span.is_written() {
            first.value.0 = first.value.0.min(max.value.0);
        }
    }
}

/// A time limit that nobody wrote is at most half of an interval that somebody wrote.
fn complete_probe(probe: &mut ProbeSpec) {
    let ProbeSpec {
        interval: Some(interval),
        timeout: Some(timeout),
        recheck: Some(recheck),
        ..
    } = probe
    else {
        return;
    };
    let half = interval.value.0 / 2;
    if !timeout.span.is_written() {
        timeout.value.0 = timeout.value.0.min(half);
    }
    if !recheck.span.is_written() {
        recheck.value.0 = recheck.value.0.min(half);
    }
}

/// Names for routes that have none: host and path, with a number where that is taken.
fn name_routes(routes: &mut [At<RouteSpec>]) {
    let written = routes.iter().filter_map(|route| route.value.name.as_ref());
    let mut taken: HashSet<String> = written.map(|name| name.value.0.clone()).collect();
    for route in routes {
        if route.value.name.is_some() {
            continue;
        }
        let when = route.value.r#match.as_ref();
        let host = when.and_then(|when| when.value.host.as_ref());
        let path = when.and_then(|when| when.value.path_prefix.as_ref());
        let part = |part: Option<&At<Text>>| {
            part.filter(|part| part.written.is_none())
                .map_or(String::new(), |part| part.value.0.clone())
        };
        let mut wanted = part(host) + &part(path);
        if wanted.is_empty() {
            wanted = match part(route.value.pool.as_ref()) {
                pool if pool.is_empty() => "route".to_owned(),
                pool => pool,
            };
        }
        let mut number = 1;
        let mut name = wanted.clone();
        while !taken.insert(name.clone()) {
            number += 1;
            name = format!("{wanted}-{number}");
        }
        route.value.name = Some(At::unwritten(Text(name)));
    }
}

fn complete_zone(name: &str, zone: &mut ZoneSpec) {
    if zone.file.is_none() {
        zone.soa
            .get_or_insert_with(|| At::unwritten(SoaSpec::default()));
    }
    if let Some(soa) = &mut zone.soa {
        soa.value.fill();
        let name = name.trim_end_matches('.');
        let first = zone.ns.as_ref().and_then(|list| list.value.first());
        if soa.value.primary.is_none()
            && let Some(first) = first
        {
            soa.value.primary = Some(At {
                span: Span::NONE,
                ..first.clone()
            });
        }
        if soa.value.mailbox.is_none() {
            soa.value.mailbox = Some(At::unwritten(Text(format!("hostmaster.{name}."))));
        }
    }
    let names = zone.steered.iter_mut().flat_map(|table| &mut table.value.0);
    for steered in names.filter_map(|entry| entry.value.as_mut()) {
        if let SteeredSpec {
            ttl: Some(ttl),
            ttl_suspect: Some(suspect),
            ..
        } = &mut steered.value
            && !suspect.span.is_written()
        {
            suspect.value.0 = suspect.value.0.min(ttl.value.0);
        }
    }
}

fn apply_defaults(spec: &mut FileSpec, defaults: DefaultsSpec) {
    let DefaultsSpec {
        span: _,
        broken: _,
        pool,
        route,
    } = defaults;
    if let (Some(defaults), Some(pools)) = (pool, &mut spec.pools) {
        let PoolDefaultsSpec {
            span: _,
            broken: _,
            protocol,
            tls,
            probe,
            steering,
            failover,
            concurrency,
            bulkhead,
            balance,
            ejection,
        } = defaults.value;
        let from = PoolSpec {
            protocol,
            tls,
            probe,
            steering,
            failover,
            concurrency,
            bulkhead,
            balance,
            ejection,
            ..PoolSpec::default()
        };
        let pools = pools.value.0.iter_mut();
        for pool in pools.filter_map(|entry| entry.value.as_mut()) {
            pool.value.inherit(&from);
        }
    }
    if let (Some(defaults), Some(routes)) = (route, &mut spec.routes) {
        let RouteDefaultsSpec {
            span: _,
            broken: _,
            timeouts,
            retry,
            hedge,
            body_max,
            request_headers,
            response_headers,
            maintenance,
            cors,
            compression,
            coalesce,
            tier,
            tenant,
            bulkhead,
            rate_limit,
        } = defaults.value;
        let from = RouteSpec {
            timeouts,
            retry,
            hedge,
            body_max,
            request_headers,
            response_headers,
            maintenance,
            cors,
            compression,
            coalesce,
            tier,
            tenant,
            bulkhead,
            rate_limit,
            ..RouteSpec::default()
        };
        for route in &mut routes.value.0 {
            route.value.inherit(&from);
        }
    }
}

/// What a pool says of TLS holds for all its endpoints, before any default of ours.
fn hand_down_tls(spec: &mut FileSpec) {
    let pools = spec.pools.iter_mut().flat_map(|table| &mut table.value.0);
    for pool in pools.filter_map(|entry| entry.value.as_mut()) {
        let from = EndpointSpec {
            tls: pool.value.tls.clone(),
            ..EndpointSpec::default()
        };
        let members = pool.value.regions.iter_mut();
        let members = members.flat_map(|table| &mut table.value.0);
        for member in members.filter_map(|entry| entry.value.as_mut()) {
            let endpoints = member.value.endpoints.iter_mut();
            for endpoint in endpoints.flat_map(|list| &mut list.value.0) {
                endpoint.value.inherit(&from);
            }
        }
    }
}

fn complete_node(node: &mut NodeSpec, env: &Environment<'_>) {
    if node.name.is_none() {
        node.name = Some(At::unwritten(Text(host_name())));
    }
    if node.state_dir.is_none() {
        // A service manager may give several, separated by colons; the first is ours.
        let given = env(STATE_DIRECTORY)
            .and_then(|paths| paths.split(':').next().map(ToOwned::to_owned))
            .filter(|path| !path.is_empty());
        node.state_dir = given.map(|path| At::unwritten(Text(path)));
    }
}

/// What the kernel calls this machine.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "sealane".to_owned(),
        name => name.to_owned(),
    }
}

/// What endpoints take from their pool and their own address.
fn complete_pool(pool: &mut PoolSpec) {
    if let Some(probe) = &mut pool.probe {
        complete_probe(&mut probe.value);
    }
    let protocol = pool.protocol.clone();
    let proxy_protocol = pool.proxy_protocol.clone();
    let members = pool.regions.iter_mut().flat_map(|table| &mut table.value.0);
    for member in members.filter_map(|entry| entry.value.as_mut()) {
        let endpoints = member.value.endpoints.iter_mut();
        for endpoint in endpoints.flat_map(|list| &mut list.value.0) {
            let EndpointSpec {
                address,
                protocol: own,
                proxy_protocol: own_proxy_protocol,
                tls,
                ..
            } = &mut endpoint.value;
            if own.is_none() {
                *own = protocol
                    .clone()
                    .map(|protocol| At::unwritten(protocol.value));
            }
            if own_proxy_protocol.is_none() {
                *own_proxy_protocol = proxy_protocol.clone().map(|at| At::unwritten(at.value));
            }
            if let (Some(tls), Some(address)) = (tls, address)
                && tls.value.server_name.is_none()
            {
                let name = match &address.value {
                    Reach::Address(address) => address.ip().to_string(),
                    Reach::Host { host, .. } => host.clone(),
                };
                tls.value.server_name = Some(At::unwritten(Text(name)));
            }
        }
    }
}

/// Well-known regions that the file uses are listed, and located where it does not say where.
fn complete_regions(spec: &mut FileSpec) {
    let used = used_regions(spec);
    let table = spec
        .regions
        .get_or_insert_with(|| At::unwritten(Table::default()));
    let mut listed: HashSet<String> = table.value.names().map(ToOwned::to_owned).collect();
    for name in used {
        if listed.insert(name.clone()) && places::well_known(&name).is_some() {
            table.value.0.push(Entry {
                name: At::unwritten(name),
                value: Some(At::unwritten(RegionSpec::default())),
            });
        }
    }
    for entry in &mut table.value.0 {
        if let Some(region) = &mut entry.value
            && region.value.location.is_none()
        {
            let known = places::well_known(&entry.name);
            region.value.location = known.map(|location| At::unwritten(Point(location)));
        }
    }
}

/// In the order of the file, each as often as it is used.
fn used_regions(spec: &FileSpec) -> Vec<String> {
    let mut used = Vec::new();
    let pools = spec.pools.iter().flat_map(|table| &table.value.0);
    for pool in pools.filter_map(|entry| entry.value.as_ref()) {
        let members = pool.regions.iter().flat_map(|table| &table.value.0);
        used.extend(members.map(|entry| entry.name.value.clone()));
        let pinned = pool.steering.iter().filter_map(|s| s.region.as_ref());
        used.extend(pinned.map(|region| region.0.clone()));
        let lists = pool.steering.iter().filter_map(|s| s.clients.as_ref());
        let clients = lists.flat_map(|list| list.value.iter());
        let fenced = clients.filter_map(|clients| clients.regions.as_ref());
        let names = fenced.flat_map(|regions| regions.value.0.iter());
        used.extend(names.map(|region| region.0.clone()));
    }
    let own = spec.node.iter().filter_map(|node| node.region.as_ref());
    used.extend(own.map(|region| region.0.clone()));
    let geo = spec.dns.iter().filter_map(|dns| dns.geo.as_ref());
    let overrides = geo
        .filter_map(|geo| geo.overrides.as_ref())
        .flat_map(|list| &list.value.0);
    used.extend(overrides.filter_map(|o| o.region.as_ref().map(|region| region.0.clone())));
    used
}
