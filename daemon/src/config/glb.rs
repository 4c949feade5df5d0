//! The short form `global_load_balancer`, written out as pools, routes, listeners and zones.
//!
//! What the file says in full wins: existing listeners, a pool's route, a zone's steered name.

use super::decode::{At, Entry, List, OneOrMany, Table, nearest};
use super::error::{Mistake, Notes};
use super::places;
use super::source::Span;
use super::spec::{
    DnsSpec, EndpointSpec, EndpointTlsSpec, FailoverSpec, FileSpec, GlbChecksSpec, GlbEndpointSpec,
    GlbFailoverSpec, GlbPolicySpec, GlbSpec, HttpProbeSpec, ListenerSpec, MatchSpec, MemberSpec,
    PoolSpec, ProbeSpec, RegionSpec, RouteSpec, SteeredSpec, SteeringSpec, WeightNumber, ZoneSpec,
};
use super::unit::{Bind, Host, Period, Reach, Share, Text, Whole, host_name};

/// Spoken to an endpoint whose port is not written.
const HTTPS_PORT: u16 = 443;

/// Takes the block out of `spec` and puts what it stands for in its place.
pub(super) fn unfold(spec: &mut FileSpec, notes: &mut Notes) {
    let Some(block) = spec.global_load_balancer.take() else {
        if spec.version.is_none() && !spec.broken {
            let message = "the key `version` is missing in the file";
            notes.mistake(Mistake::new(Span::at(0, 1, 1), message).help("begin with `version: 1`"));
        }
        return;
    };
    let at = block.span;
    if block.value.broken {
        return;
    }
    let GlbSpec {
        span: _,
        broken: _,
        r#type: _,
        domain,
        health_checks,
        routing_policy,
        failover,
        endpoints,
    } = block.value;
    let endpoints = endpoints.map_or_else(List::default, |list| list.value);
    let reached = read_endpoints(&endpoints, notes);
    let Some(domain) = domain_of(domain, &reached, at, notes) else {
        return;
    };
    let known = region_names(spec, &reached);
    let members = members(&reached, &known, spec, notes);
    let pool = PoolSpec {
        span: at,
        regions: Some(At::new(members, at)),
        probe: Some(At::new(probe(health_checks), at)),
        steering: Some(At::new(steering(routing_policy, &known), at)),
        failover: Some(At::new(failover_rule(failover), at)),
        ..PoolSpec::default()
    };
    add_pool(spec, &domain, pool, at, notes);
    add_route(spec, &domain, at);
    add_listener(spec, at);
    add_zone(spec, &domain, at, notes);
}

struct Reached<'a> {
    entry: &'a At<GlbEndpointSpec>,
    region: &'a At<Text>,
    host: String,
    port: u16,
}

fn read_endpoints<'a>(endpoints: &'a List<GlbEndpointSpec>, notes: &mut Notes) -> Vec<Reached<'a>> {
    let mut reached = Vec::new();
    for entry in endpoints.iter() {
        let (Some(region), Some(endpoint)) = (&entry.region, &entry.endpoint) else {
            continue;
        };
        let (host, port) = match endpoint.0.rsplit_once(':') {
            Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port != 0)),
            None => (endpoint.0.as_str(), Some(HTTPS_PORT)),
        };
        match (host_name(host), port) {
            (Some(host), Some(port)) => reached.push(Reached {
                entry,
                region,
                host,
                port,
            }),
            _ => notes.mistake(
                Mistake::new(endpoint.span, "this endpoint is no host name")
                    .expected("a host name such as `us-east-1.api.example.com`, or `host:port`"),
            ),
        }
    }
    reached
}

/// What is written, else the domain that all host names share.
fn domain_of(
    written: Option<At<Host>>,
    reached: &[Reached<'_>],
    at: Span,
    notes: &mut Notes,
) -> Option<String> {
    if let Some(domain) = written {
        return Some(domain.value.0);
    }
    let hosts: Vec<&str> = reached.iter().map(|r| r.host.as_str()).collect();
    if hosts.is_empty() {
        if notes.count() == 0 {
            notes.wrong(at, "`global_load_balancer` has no endpoints");
        }
        return None;
    }
    let shared = shared_domain(&hosts);
    if shared.is_none() {
        notes.mistake(
            Mistake::new(at, "the endpoints' host names share no domain")
                .help("say which name clients use: `domain: api.example.com`"),
        );
    }
    shared
}

/// The longest common suffix, in whole labels, that is not a host itself; two labels at least.
fn shared_domain(hosts: &[&str]) -> Option<String> {
    let labels = |host: &str| host.rsplit('.').map(ToOwned::to_owned).collect::<Vec<_>>();
    let mut shared: Vec<String> = labels(hosts.first()?);
    let mut shortest = shared.len();
    for host in hosts {
        let own = labels(host);
        shortest = shortest.min(own.len());
        let common = shared.iter().zip(&own).take_while(|(a, b)| a == b).count();
        shared.truncate(common);
    }
    shared.truncate(shortest.saturating_sub(1));
    shared.reverse();
    (shared.len() >= 2).then(|| shared.join("."))
}

/// Every region name that this file may mean.
fn region_names(spec: &FileSpec, reached: &[Reached<'_>]) -> Vec<String> {
    let declared = spec.regions.iter().flat_map(|table| table.names());
    let mut known: Vec<String> = declared.map(ToOwned::to_owned).collect();
    for endpoint in reached {
        let name = spelled(&endpoint.region.0, &known);
        if !known.contains(&name) {
            known.push(name);
        }
    }
    known
}

/// The name as it is spelled elsewhere: hyphens and underscores are the same.
fn spelled(name: &str, known: &[String]) -> String {
    let flat = |name: &str| name.replace('_', "-");
    let wanted = flat(name);
    let declared = known.iter().find(|known| flat(known) == wanted);
    match declared {
        Some(declared) => declared.clone(),
        None if places::well_known(&wanted).is_some() => wanted,
        None => name.to_owned(),
    }
}

fn members(
    reached: &[Reached<'_>],
    known: &[String],
    spec: &mut FileSpec,
    notes: &mut Notes,
) -> Table<MemberSpec> {
    let mut table: Table<MemberSpec> = Table::default();
    for endpoint in reached {
        let name = spelled(&endpoint.region.0, known);
        declare_region(spec, &name, endpoint.region.span, notes);
        let Some(index) = table.0.iter().position(|e| e.name.value == name) else {
            table.0.push(Entry {
                name: At::new(name, endpoint.region.span),
                value: Some(At::new(member(endpoint), endpoint.entry.span)),
            });
            continue;
        };
        let member = table.0[index].value.as_mut();
        if let Some(member) = member {
            same_in_region(&member.value, endpoint, notes);
            if let Some(list) = &mut member.value.endpoints {
                list.value.0.push(server(endpoint));
            }
        }
    }
    table
}

/// A region of the short form needs no entry; without a place it is chosen by measured latency.
fn declare_region(spec: &mut FileSpec, name: &str, span: Span, notes: &mut Notes) {
    let regions = spec
        .regions
        .get_or_insert_with(|| At::unwritten(Table::default()));
    if regions.value.get(name).is_some() || places::well_known(name).is_some() {
        return;
    }
    let near = nearest(name, places::names())
        .map(|near| format!(" (did you mean `{near}`?)"))
        .unwrap_or_default();
    notes.warn(
        span,
        format!("nobody knows where the region `{name}` is{near}: add it to `regions:`"),
    );
    regions.value.0.push(Entry {
        name: At::new(name.to_owned(), span),
        value: Some(At::new(RegionSpec::default(), span)),
    });
}

fn member(endpoint: &Reached<'_>) -> MemberSpec {
    let entry = &endpoint.entry;
    MemberSpec {
        span: entry.span,
        weight: entry.weight.clone(),
        priority: entry.priority.clone(),
        endpoints: Some(At::new(List(vec![server(endpoint)]), entry.span)),
        ..MemberSpec::default()
    }
}

/// Weight and priority are the region's; endpoints of one region must not disagree on them.
fn same_in_region(member: &MemberSpec, endpoint: &Reached<'_>, notes: &mut Notes) {
    let entry = &endpoint.entry;
    let number = |value: &Option<At<WeightNumber>>| value.as_ref().map_or(100, |at| at.value.0);
    let tier = |value: &Option<At<Whole<0, 65535>>>| value.as_ref().map_or(1, |at| at.value.0);
    let differing = [
        ("weight", number(&member.weight) != number(&entry.weight)),
        ("priority", tier(&member.priority) != tier(&entry.priority)),
    ];
    for (key, _) in differing.iter().filter(|(_, differs)| *differs) {
        let message = format!(
            "the {key} of `{}` differs from that of the region's first endpoint; it is the \
             region's, so the first one counts",
            endpoint.host
        );
        notes.warn(entry.span, message);
    }
}

fn server(endpoint: &Reached<'_>) -> At<EndpointSpec> {
    let span = endpoint
        .entry
        .endpoint
        .as_ref()
        .map_or(endpoint.entry.span, |at| at.span);
    let reach = Reach::Host {
        host: endpoint.host.clone(),
        port: endpoint.port,
    };
    let server = EndpointSpec {
        span,
        address: Some(At::new(reach, span)),
        tls: Some(At::new(EndpointTlsSpec::default(), span)),
        ..EndpointSpec::default()
    };
    At::new(server, span)
}

fn probe(checks: Option<At<GlbChecksSpec>>) -> ProbeSpec {
    let Some(checks) = checks else {
        return ProbeSpec {
            http: Some(At::unwritten(HttpProbeSpec::default())),
            ..ProbeSpec::default()
        };
    };
    let GlbChecksSpec {
        span,
        broken,
        interval,
        timeout,
        unhealthy_threshold,
        healthy_threshold,
        path,
    } = checks.value;
    let http = HttpProbeSpec {
        span,
        path,
        ..HttpProbeSpec::default()
    };
    ProbeSpec {
        span,
        broken,
        http: Some(At::new(http, span)),
        interval: interval.map(|at| At::new(Period(at.value.0), at.span)),
        timeout: timeout.map(|at| At::new(Period(at.value.0), at.span)),
        fall: unhealthy_threshold,
        rise: healthy_threshold,
        ..ProbeSpec::default()
    }
}

fn steering(policy: Option<At<GlbPolicySpec>>, known: &[String]) -> SteeringSpec {
    let Some(policy) = policy else {
        return SteeringSpec::default();
    };
    let GlbPolicySpec {
        span,
        broken,
        r#type,
        weights,
    } = policy.value;
    let weights = weights.map(|at| {
        let mut table = at.value;
        for entry in &mut table.0 {
            entry.name.value = spelled(&entry.name.value, known);
        }
        At::new(table, at.span)
    });
    SteeringSpec {
        span,
        broken,
        policy: r#type,
        weights,
        ..SteeringSpec::default()
    }
}

fn failover_rule(failover: Option<At<GlbFailoverSpec>>) -> FailoverSpec {
    let Some(failover) = failover else {
        return FailoverSpec::default();
    };
    let GlbFailoverSpec {
        span,
        broken,
        detection_time,
        failover_threshold,
    } = failover.value;
    FailoverSpec {
        span,
        broken,
        threshold: failover_threshold.map(|at| At::new(Share(at.value.0), at.span)),
        detection_time: detection_time.map(|at| At::new(Period(at.value.0), at.span)),
        ..FailoverSpec::default()
    }
}

fn add_pool(spec: &mut FileSpec, domain: &str, pool: PoolSpec, at: Span, notes: &mut Notes) {
    let pools = spec
        .pools
        .get_or_insert_with(|| At::unwritten(Table::default()));
    if let Some(other) = pools.value.get(domain) {
        let message = format!("`global_load_balancer` makes a pool `{domain}`, and there is one");
        notes.mistake(Mistake::new(at, message).related(other.name.span, "here"));
        return;
    }
    pools.value.0.push(Entry {
        name: At::new(domain.to_owned(), at),
        value: Some(At::new(pool, at)),
    });
}

fn add_route(spec: &mut FileSpec, domain: &str, at: Span) {
    let routes = spec
        .routes
        .get_or_insert_with(|| At::unwritten(List::default()));
    let leads_there = |route: &At<RouteSpec>| route.pool.as_ref().is_some_and(|p| p.0 == domain);
    if routes.value.iter().any(leads_there) {
        return;
    }
    let text = || Some(At::new(Text(domain.to_owned()), at));
    let wanted = MatchSpec {
        host: text(),
        ..MatchSpec::default()
    };
    let route = RouteSpec {
        span: at,
        r#match: Some(At::new(wanted, at)),
        pool: text(),
        ..RouteSpec::default()
    };
    routes.value.0.push(At::new(route, at));
}

/// Port 80 of all addresses, where no listener is written: there is no certificate for another.
fn add_listener(spec: &mut FileSpec, at: Span) {
    if spec.listeners.is_some() {
        return;
    }
    let all = ["0.0.0.0:80", "[::]:80"];
    let bind = all.iter().filter_map(|text| text.parse().ok());
    let listener = ListenerSpec {
        span: at,
        bind: Some(At::new(
            OneOrMany(bind.map(|address| At::new(Bind(address), at)).collect()),
            at,
        )),
        ..ListenerSpec::default()
    };
    spec.listeners = Some(At::unwritten(Table(vec![Entry {
        name: At::new("http".to_owned(), at),
        value: Some(At::new(listener, at)),
    }])));
}

fn add_zone(spec: &mut FileSpec, domain: &str, at: Span, notes: &mut Notes) {
    let dns = spec
        .dns
        .get_or_insert_with(|| At::unwritten(DnsSpec::default()));
    let zones = dns
        .value
        .zones
        .get_or_insert_with(|| At::unwritten(Table::default()));
    let flat = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    let existing = zones.value.0.iter().position(|e| flat(&e.name) == domain);
    let index = existing.unwrap_or_else(|| {
        let server = format!("ns1.{domain}.");
        notes.warn(
            at,
            format!(
                "nothing says which name servers the zone `{domain}` has: it answers `{server}`; \
                 name them in `dns: {{ zones: {{ {domain}: {{ ns: [...] }} }} }}`"
            ),
        );
        let zone = ZoneSpec {
            span: at,
            ns: Some(At::new(OneOrMany(vec![At::new(Text(server), at)]), at)),
            ..ZoneSpec::default()
        };
        zones.value.0.push(Entry {
            name: At::new(domain.to_owned(), at),
            value: Some(At::new(zone, at)),
        });
        zones.value.0.len() - 1
    });
    let zone = zones.value.0.get_mut(index).and_then(|e| e.value.as_mut());
    if let Some(zone) = zone {
        let steered = zone
            .value
            .steered
            .get_or_insert_with(|| At::unwritten(Table::default()));
        if steered.value.get("@").is_none() {
            let name = SteeredSpec {
                span: at,
                pool: Some(At::new(Text(domain.to_owned()), at)),
                ..SteeredSpec::default()
            };
            steered.value.0.push(Entry {
                name: At::new("@".to_owned(), at),
                value: Some(At::new(name, at)),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_share_the_longest_domain_that_is_none_of_them() {
        let shared = |hosts: &[&str]| shared_domain(hosts);
        assert_eq!(
            shared(&["eu.api.example.com", "us.api.example.com"]).as_deref(),
            Some("api.example.com")
        );
        assert_eq!(
            shared(&["api.example.com", "eu.api.example.com"]).as_deref(),
            Some("example.com")
        );
        assert_eq!(
            shared(&["eu.api.example.com"]).as_deref(),
            Some("api.example.com")
        );
        assert_eq!(shared(&["a.com", "b.com"]), None);
        assert_eq!(shared(&["a.com", "b.net"]), None);
    }
}
