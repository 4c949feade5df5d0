//! Pools, their members and endpoints, how they are probed and steered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use sealane_control::config::{Probe, ProbeKind};
use sealane_model::{
    Addresses, AllDown, Endpoint, EndpointId, EndpointProtocol, EndpointTls, FailoverRule, Member,
    Pool, PoolId, ProxyVersion, RampRule, Rate, Ratio, RegionId, Roots, Target, Weight,
};
use sealane_proxy::tls::expiring;
use sealane_steering::fence::{FENCES_MAX, canonical};
use sealane_steering::{Fence, Fences, SteeringPolicy, Weights, Within};

use super::super::decode::{At, Entry, Leaf as _, List, Out, Table};
use super::super::error::Mistake;
use super::super::files::PEM_BYTES_MAX;
use super::super::source::Span;
use super::super::spec::{
    AddressesSpec, AllDownSpec, ClientsSpec, EndpointSpec, EndpointTlsSpec, FailoverSpec,
    FallbackSpec, HttpProbeSpec, MemberSpec, Policy, PoolSpec, ProbeSpec, Protocol,
    ProxyProtocolWord, RampSpec, RampStepsSpec, SteeringSpec, TcpProbeSpec, WeightNumber,
};
use super::super::unit::{Ip, Reach, Share, Text, print_duration};
use super::{KnownPool, Parser};

type Parsed = (Vec<Pool>, Vec<Endpoint>, Vec<(PoolId, Probe)>);

/// Steps of a ramp: more is a mistake, for nobody waits for so many.
const RAMP_STEPS_MAX: usize = 16;

/// The word for the host's own authorities.
const SYSTEM_ROOTS: &str = "system";

impl Parser<'_> {
    pub(super) fn pools(&mut self, table: Option<&At<Table<PoolSpec>>>) -> Parsed {
        let (mut pools, mut endpoints, mut probes) = Parsed::default();
        for entry in table.iter().flat_map(|table| table.value.iter()) {
            let id = match self.ids.pool(&entry.name) {
                Ok(id) => id,
                Err(error) => {
                    self.notes.wrong(entry.name.span, error.to_string());
                    break;
                }
            };
            let (mut steering, mut balance) = (None, None);
            let (mut members, mut regions) = (Vec::new(), HashMap::new());
            if let Some(spec) = &entry.value {
                let PoolSpec {
                    balance: shared,
                    ejection,
                    ..
                } = &spec.value;
                balance = self.balancing(shared.as_ref(), ejection.as_ref());
                let (pool, policy, probe) =
                    self.pool_of(id, entry, spec, &mut regions, &mut endpoints);
                members = pool
                    .as_ref()
                    .map_or_else(Vec::new, |pool| pool.members.clone());
                steering = policy.map(Arc::new);
                pools.extend(pool);
                probes.extend(probe.map(|probe| (id, probe)));
            }
            let known = KnownPool {
                id,
                steering,
                balance,
                span: entry.name.span,
                used: false,
                members,
                regions,
                tls: entry.value.as_ref().and_then(first_tls),
                proxy_protocol: entry.value.as_ref().and_then(first_told),
            };
            self.pools.insert(entry.name.value.clone(), known);
        }
        (pools, endpoints, probes)
    }

    fn pool_of(
        &mut self,
        id: PoolId,
        entry: &Entry<PoolSpec>,
        spec: &At<PoolSpec>,
        spans: &mut HashMap<RegionId, Span>,
        endpoints: &mut Vec<Endpoint>,
    ) -> (Option<Pool>, Option<SteeringPolicy>, Option<Probe>) {
        let PoolSpec {
            span,
            broken,
            protocol,
            tls: _,            // handed down to the endpoints
            proxy_protocol: _, // each endpoint has it
            regions,
            probe,
            steering,
            failover,
            concurrency,
            bulkhead,
            balance: _,  // see `balancing`
            ejection: _, // see `balancing`
        } = &spec.value;
        let name = &entry.name;
        self.pool_limits(id, name, concurrency.as_ref(), bulkhead.as_ref());
        let protocol = protocol.as_ref().map_or(Protocol::Http, |at| at.value);
        let mut members = Vec::new();
        let mut is_complete = true;
        for entry in regions.iter().flat_map(|table| table.value.iter()) {
            let region = self.region(&entry.name, entry.name.span);
            is_complete &= region.is_some();
            if let (Some(region), Some(member)) = (region, &entry.value) {
                spans.insert(region, entry.name.span);
                members.extend(self.member(id, region, entry, member, protocol, endpoints));
            }
        }
        if !broken && regions.as_ref().is_some_and(|table| table.value.is_empty()) {
            let message = format!("the pool `{}` has no region", name.value);
            self.notes.mistake(
                Mistake::new(*span, message).help("add endpoints: `regions: { NAME: {…} }`"),
            );
        }
        let policy = steering
            .as_ref()
            .filter(|_| is_complete)
            .and_then(|steering| self.steering(name, steering, &members, spans));
        if let Some(policy) = &policy
            && !broken
        {
            self.check_weights(name, policy, &members);
        }
        let probe = probe.as_ref().and_then(|probe| self.probe(probe));
        let checked = spec.value.probe.as_ref().is_some_and(|p| !p.value.broken);
        let failover = failover
            .as_ref()
            .and_then(|failover| self.failover(failover, probe.as_ref().filter(|_| checked)));
        let pool = failover.map(|failover| Pool {
            id,
            name: name.as_str().into(),
            members,
            failover,
        });
        (pool, policy, probe)
    }

    fn member(
        &mut self,
        pool: PoolId,
        region: RegionId,
        entry: &Entry<MemberSpec>,
        spec: &At<MemberSpec>,
        protocol: Protocol,
        all: &mut Vec<Endpoint>,
    ) -> Option<Member> {
        let MemberSpec {
            span,
            broken,
            addresses,
            weight,
            priority,
            capacity,
            endpoints,
        } = &spec.value;
        let region_name = &entry.name.value;
        let list = endpoints.as_ref()?;
        if list.value.is_empty() && !broken {
            let message = format!("the region `{region_name}` of this pool has no endpoints");
            self.notes.wrong(list.span.or(*span), message);
        }
        let (ids, weights) = self.endpoints(pool, region, list, protocol, all);
        if !weights.is_empty() && weights.iter().all(|weight| *weight == 0) && !broken {
            let message = format!("all endpoints of `{region_name}` have the weight 0");
            self.notes.mistake(
                Mistake::new(list.span.or(*span), message)
                    .help("nothing would be sent there; leave the region out instead"),
            );
        }
        Some(Member {
            region,
            weight: weight_of(weight.as_ref())?,
            priority: u16::try_from(priority.as_ref()?.value.0).ok()?,
            capacity: capacity
                .as_ref()
                .and_then(|at| Rate::per_second(at.value.per_second())),
            addresses: match &addresses.as_ref()?.value {
                AddressesSpec::OfEndpoints => Addresses::OfEndpoints,
                AddressesSpec::Fixed(list) => Addresses::Fixed(self.addresses(list, *span)),
            },
            endpoints: ids,
        })
    }

    /// Addresses that clients are to use.
    fn addresses(&mut self, list: &[At<Ip>], at: Span) -> Arc<[IpAddr]> {
        if list.is_empty() {
            self.notes.mistake(
                Mistake::new(at, "the list of addresses is empty")
                    .help("leave it out to answer the endpoints' own addresses"),
            );
        }
        for (index, address) in list.iter().enumerate() {
            let ip = address.value.0;
            if let Some(first) = list.iter().take(index).find(|other| other.value.0 == ip) {
                let message = format!("the address {ip} stands here twice");
                self.notes
                    .mistake(Mistake::new(address.span, message).related(first.span, "first here"));
            }
            if ip.is_unspecified() || ip.is_multicast() {
                self.notes.wrong(
                    address.span,
                    format!("no client can reach {ip}: it is no host's address"),
                );
            }
        }
        list.iter().map(|address| address.value.0).collect()
    }

    fn endpoints(
        &mut self,
        pool: PoolId,
        region: RegionId,
        list: &At<List<EndpointSpec>>,
        protocol: Protocol,
        all: &mut Vec<Endpoint>,
    ) -> (Vec<EndpointId>, Vec<u32>) {
        let (mut ids, mut weights) = (Vec::new(), Vec::new());
        let mut seen: HashMap<String, Span> = HashMap::new();
        for spec in list.value.iter() {
            let Some(endpoint) = self.endpoint(pool, region, spec, protocol) else {
                continue;
            };
            let at = spec.value.address.as_ref().map_or(spec.span, |at| at.span);
            if let Some(first) = seen.insert(endpoint.name.to_string(), at) {
                let message = format!("the endpoint {} stands here twice", endpoint.name);
                self.notes
                    .mistake(Mistake::new(at, message).related(first, "first here"));
                continue;
            }
            ids.push(endpoint.id);
            weights.push(endpoint.weight.get());
            all.push(endpoint);
        }
        (ids, weights)
    }

    fn endpoint(
        &mut self,
        pool: PoolId,
        region: RegionId,
        spec: &At<EndpointSpec>,
        of_pool: Protocol,
    ) -> Option<Endpoint> {
        let EndpointSpec {
            span,
            broken: _,
            address,
            az,
            weight,
            protocol,
            proxy_protocol,
            tls,
        } = &spec.value;
        let reach = &address.as_ref()?.value;
        let Out::Text(name) = reach.write() else {
            return None;
        };
        let tls = match tls {
            Some(tls) => Some(self.endpoint_tls(tls)?),
            None => None,
        };
        let id = match self.ids.endpoint(pool, region, &name) {
            Ok(id) => id,
            Err(error) => {
                self.notes.wrong(*span, error.to_string());
                return None;
            }
        };
        Some(Endpoint {
            id,
            pool,
            region,
            name: name.into(),
            target: match reach {
                Reach::Address(address) => Target::Address(*address),
                Reach::Host { host, port } => Target::Host {
                    host: host.as_str().into(),
                    port: *port,
                },
            },
            az: az.as_ref().map(|az| az.0.as_str().into()),
            weight: weight_of(weight.as_ref())?,
            protocol: match protocol.as_ref().map_or(of_pool, |at| at.value) {
                Protocol::Http => EndpointProtocol::Http1,
                Protocol::H2 => EndpointProtocol::Http2,
            },
            tls,
            proxy_protocol: match proxy_protocol.as_ref()?.value {
                ProxyProtocolWord::None => None,
                ProxyProtocolWord::V1 => Some(ProxyVersion::V1),
                ProxyProtocolWord::V2 => Some(ProxyVersion::V2),
            },
        })
    }

    fn endpoint_tls(&mut self, spec: &At<EndpointTlsSpec>) -> Option<EndpointTls> {
        let EndpointTlsSpec {
            span,
            broken: _,
            ca,
            server_name,
            certificate,
            minimum,
        } = &spec.value;
        let name = server_name.as_ref()?;
        if let Err(error) = ServerName::try_from(name.0.as_str()) {
            let message = format!("`{}` can be no server's name: {error}", name.0);
            self.notes.mistake(
                Mistake::new(name.span.or(*span), message)
                    .expected("a host name, such as `api.example.com`, or an IP address"),
            );
            return None;
        }
        let ca = ca.as_ref()?;
        let roots = if ca.0 == SYSTEM_ROOTS {
            Roots::System
        } else {
            Roots::Pem(self.authorities(ca)?)
        };
        let certificate = match certificate {
            Some(own) => Some(self.own_certificate(own)?),
            None => None,
        };
        Some(EndpointTls {
            server_name: name.0.as_str().into(),
            roots,
            certificate,
            minimum: minimum.as_ref()?.value.0,
        })
    }

    fn authorities(&mut self, path: &At<Text>) -> Option<Arc<[u8]>> {
        let file = self.files.resolve(&path.0);
        let bytes = match self.files.bytes(&file, PEM_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(message) => {
                self.notes.wrong(path.span, message);
                return None;
            }
        };
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let fault = match certificates {
            Ok(certificates) if !certificates.is_empty() => {
                let found = expiring("authority", &path.0, &bytes);
                self.kept.expiring.extend(found);
                return Some(bytes.into());
            }
            Ok(_) => "it has no certificate".to_owned(),
            Err(error) => error.to_string(),
        };
        let message = format!("{} is no PEM file of authorities: {fault}", file.display());
        self.notes.mistake(
            Mistake::new(path.span, message).expected("certificates, or `system` for the host's"),
        );
        None
    }

    fn probe(&mut self, spec: &At<ProbeSpec>) -> Option<Probe> {
        let ProbeSpec {
            span,
            broken,
            http,
            tcp,
            port,
            interval,
            timeout,
            fall,
            rise,
            recheck,
        } = &spec.value;
        if let (Some(http), Some(tcp)) = (http, tcp) {
            self.notes.mistake(
                Mistake::new(http.span, "a probe is over `http` or over `tcp`, not both")
                    .related(tcp.span, "the other one"),
            );
        }
        let (interval, timeout) = (interval.as_ref()?, timeout.as_ref()?);
        let recheck = recheck.as_ref()?;
        let print = print_duration;
        // A default in the place of what could not be read proves nothing.
        if !broken && timeout.value.0 >= interval.value.0 {
            let message = format!(
                "the probe's timeout of {} is not below its interval of {}",
                print(timeout.value.0),
                print(interval.value.0)
            );
            self.notes.mistake(
                Mistake::new(timeout.span.or(interval.span).or(*span), message)
                    .help("a probe must have ended when the next one starts"),
            );
        }
        if !broken && recheck.value.0 > interval.value.0 {
            let message = format!(
                "the recheck after {} comes later than the next probe, after {}",
                print(recheck.value.0),
                print(interval.value.0)
            );
            self.notes
                .wrong(recheck.span.or(interval.span).or(*span), message);
        }
        let kind = match (http, tcp) {
            (Some(http), _) => self.http_probe(http)?,
            (None, Some(tcp)) => {
                let TcpProbeSpec { span: _, broken: _ } = &tcp.value;
                ProbeKind::Tcp
            }
            (None, None) => ProbeKind::Tcp,
        };
        Some(Probe {
            kind,
            port: match port {
                Some(port) => Some(u16::try_from(port.value.0).ok()?),
                None => None,
            },
            interval: interval.value.0,
            timeout: timeout.value.0,
            fall: u32::try_from(fall.as_ref()?.value.0).ok()?,
            rise: u32::try_from(rise.as_ref()?.value.0).ok()?,
            recheck: recheck.value.0,
        })
    }

    fn http_probe(&mut self, spec: &At<HttpProbeSpec>) -> Option<ProbeKind> {
        let HttpProbeSpec {
            span,
            broken,
            path,
            expect,
            host,
            body_contains,
        } = &spec.value;
        let (path, expect) = (path.as_ref()?, expect.as_ref()?);
        let lawful = path.0.starts_with('/') && path.0.parse::<http::uri::PathAndQuery>().is_ok();
        if !lawful {
            let message = format!("`{}` is no path", path.0.escape_debug());
            self.notes.mistake(
                Mistake::new(path.span, message).expected("a path such as `/health`, from its `/`"),
            );
        }
        if let Some(host) = host
            && http::HeaderValue::from_str(&host.0).is_err()
        {
            let message = format!("`{}` can be in no Host header", host.0.escape_debug());
            self.notes.wrong(host.span, message);
        }
        if expect.value.is_empty() && !broken {
            self.notes
                .wrong(expect.span.or(*span), "no status would pass this probe");
        }
        let text = |at: &At<Text>| Arc::from(at.0.as_str());
        Some(ProbeKind::Http {
            path: text(path),
            host: host.as_ref().map(text),
            expect: expect
                .value
                .iter()
                .map(|at| (at.value.0, at.value.1))
                .collect(),
            body_contains: body_contains.as_ref().map(text),
        })
    }

    fn failover(&mut self, spec: &At<FailoverSpec>, probe: Option<&Probe>) -> Option<FailoverRule> {
        let FailoverSpec {
            span: _,
            broken: _,
            threshold,
            hold_down,
            all_down,
            detection_time,
            panic,
            ramp,
        } = &spec.value;
        let threshold = threshold.as_ref()?;
        if threshold.value.0 <= 0.0 {
            self.notes.mistake(
                Mistake::new(
                    threshold.span,
                    "a threshold of 0% would keep every region out",
                )
                .expected("a share above 0%, such as `50%`"),
            );
        }
        if let (Some(promise), Some(probe)) = (detection_time, probe) {
            self.check_detection(promise.value.0, promise.span, probe);
        }
        let all_down = self.all_down(&all_down.as_ref()?.value)?;
        let ramp = match &ramp.as_ref()?.value {
            RampSpec::None => None,
            RampSpec::Steps(steps) => Some(self.ramp(steps)?),
        };
        Some(FailoverRule {
            threshold: Ratio::new(threshold.value.0)?,
            hold_down: hold_down.as_ref()?.value.0,
            all_down,
            panic: Ratio::new(panic.as_ref()?.value.0)?,
            ramp,
        })
    }

    pub(super) fn all_down(&mut self, spec: &AllDownSpec) -> Option<AllDown> {
        Some(match spec {
            AllDownSpec::FailOpen => AllDown::FailOpen,
            AllDownSpec::NoData => AllDown::NoData,
            AllDownSpec::Fallback(fallback) => {
                let FallbackSpec {
                    span,
                    broken: _,
                    fallback,
                } = fallback;
                AllDown::Fallback(self.addresses(&fallback.as_ref()?.value, *span))
            }
        })
    }

    fn ramp(&mut self, spec: &RampStepsSpec) -> Option<RampRule> {
        let RampStepsSpec {
            span,
            broken: _,
            steps,
            hold,
            max_errors,
        } = spec;
        let list = steps.as_ref()?;
        if list.value.is_empty() {
            self.notes.mistake(
                Mistake::new(list.span.or(*span), "a ramp without steps")
                    .help("write `ramp: none` for a return at once"),
            );
            return None;
        }
        if list.value.len() > RAMP_STEPS_MAX {
            let message = format!("a ramp of more than {RAMP_STEPS_MAX} steps");
            self.notes.wrong(list.span.or(*span), message);
            return None;
        }
        let mut before = 0.0;
        for step in list.value.iter() {
            let share = step.value.0;
            if share <= before || share >= 1.0 {
                self.notes.mistake(
                    Mistake::new(
                        step.span,
                        "a ramp's steps must rise, from above 0% to below 100%",
                    )
                    .expected("shares such as `[5%, 25%, 50%]`; the whole follows by itself"),
                );
                return None;
            }
            before = share;
        }
        let ratio = |step: &At<Share>| Ratio::new(step.value.0);
        Some(RampRule {
            steps: list.value.iter().map(ratio).collect::<Option<_>>()?,
            hold: hold.as_ref()?.value.0,
            max_errors: Ratio::new(max_errors.as_ref()?.value.0)?,
        })
    }

    fn check_detection(&mut self, promise: Duration, span: Span, probe: &Probe) {
        let (worst, sum) = worst_detection(probe);
        if worst <= promise {
            return;
        }
        let message = format!(
            "a `detection_time` of {} cannot be met: at worst a dead endpoint is found after {} = {sum}",
            print_duration(promise),
            print_duration(worst),
        );
        self.notes.mistake(
            Mistake::new(span, message)
                .help("lower the probe's interval, timeout, recheck or count of failures"),
        );
    }

    pub(super) fn steering(
        &mut self,
        pool: &At<String>,
        spec: &At<SteeringSpec>,
        members: &[Member],
        spans: &HashMap<RegionId, Span>,
    ) -> Option<SteeringPolicy> {
        let SteeringSpec {
            span,
            broken,
            policy,
            weights,
            region,
            clients,
        } = &spec.value;
        let fences = match clients {
            Some(clients) => self.fences(clients, pool, spans),
            None => Some(Fences::default()),
        };
        let policy = policy.as_ref()?;
        let weighted = matches!(policy.value, Policy::WeightedLatency | Policy::Weighted);
        if let (false, Some(weights)) = (weighted, weights) {
            let message = format!("the policy `{}` has no weights", policy.value.as_str());
            self.notes.mistake(
                Mistake::new(weights.span, message)
                    .expected("`weights` beside `weighted_latency` or `weighted`"),
            );
        }
        if let (true, Some(region)) = (policy.value != Policy::Pinned, region) {
            let message = format!("the policy `{}` has no region", policy.value.as_str());
            self.notes.mistake(
                Mistake::new(region.span, message).expected("`region` beside `policy: pinned`"),
            );
        }
        let weights = match weights.as_ref().filter(|_| weighted) {
            Some(table) => self.weights(table, pool, members, spans)?,
            None => Vec::new(),
        };
        let policy = match policy.value {
            Policy::WeightedLatency => SteeringPolicy::WeightedLatency(Weights::new(weights)),
            Policy::Weighted => SteeringPolicy::Weighted(Weights::new(weights)),
            Policy::Nearest => SteeringPolicy::Nearest,
            Policy::Priority => SteeringPolicy::Priority,
            Policy::Pinned => {
                let Some(region) = region else {
                    if !broken {
                        let message = "the policy `pinned` lacks its `region`";
                        self.notes
                            .wrong(policy.span.or(*span).or(pool.span), message);
                    }
                    return None;
                };
                let id = self.region(&region.0, region.span)?;
                if !spans.contains_key(&id) {
                    let message = format!("the pool `{}` has no region `{}`", pool.value, region.0);
                    self.notes.wrong(region.span, message);
                    return None;
                }
                SteeringPolicy::Pinned(id)
            }
        };
        let fences = fences?;
        Some(if fences.is_empty() {
            policy
        } else {
            SteeringPolicy::Within(Box::new(Within {
                policy,
                fences,
                all_down: None,
            }))
        })
    }

    /// Which regions alone may serve which clients.
    fn fences(
        &mut self,
        list: &At<List<ClientsSpec>>,
        pool: &At<String>,
        spans: &HashMap<RegionId, Span>,
    ) -> Option<Fences> {
        if list.value.len() > FENCES_MAX {
            let message = format!("more than {FENCES_MAX} entries; write their networks together");
            self.notes.wrong(list.span, message);
            return None;
        }
        let fences = list.value.iter().map(|at| self.fence(at, pool, spans));
        let fences: Vec<_> = fences.collect();
        Some(Fences::new(fences.into_iter().collect::<Option<_>>()?))
    }

    fn fence(
        &mut self,
        spec: &At<ClientsSpec>,
        pool: &At<String>,
        spans: &HashMap<RegionId, Span>,
    ) -> Option<Fence> {
        let ClientsSpec {
            span: _,
            broken,
            nets,
            countries: _,
            continents: _,
            asns: _,
            regions,
        } = &spec.value;
        let wanted = self.wanted(&spec.value)?;
        let (nets, regions) = (nets.as_ref()?, regions.as_ref()?);
        // What could not be read is said already.
        let nobody = !broken && nets.value.0.is_empty() && wanted.is_empty();
        if nobody || regions.value.0.is_empty() {
            let message = "these clients could be served nowhere, or nobody is meant";
            self.notes
                .mistake(Mistake::new(spec.span, message).expected(
                    "at least one network, country, continent or autonomous system, and one region",
                ));
            return None;
        }
        let mut allowed = Vec::new();
        for name in &regions.value.0 {
            let id = self.region(&name.0, name.span)?;
            if !spans.contains_key(&id) {
                let message = format!("the pool `{}` has no region `{}`", pool.value, name.0);
                self.notes.wrong(name.span, message);
                return None;
            }
            allowed.push(id);
        }
        let nets = nets.value.0.iter().map(|net| canonical(net.value.0));
        let nets = nets.collect();
        let area = if wanted.is_empty() {
            None
        } else {
            Some(self.area(wanted, spec.span)?)
        };
        Some(Fence {
            nets,
            area,
            regions: allowed,
        })
    }

    fn weights(
        &mut self,
        table: &At<Table<WeightNumber>>,
        pool: &At<String>,
        members: &[Member],
        spans: &HashMap<RegionId, Span>,
    ) -> Option<Vec<(RegionId, Weight)>> {
        let mut weights = HashMap::new();
        let mut lawful = true;
        for entry in table.value.iter() {
            let id = self.regions.get(&entry.name.value).copied();
            let Some(id) = id.filter(|id| spans.contains_key(id)) else {
                lawful = false;
                let near = self.nearest(&entry.name, |parser| {
                    let in_pool = |(_, id): &(&String, &RegionId)| spans.contains_key(*id);
                    let names = parser.regions.iter().filter(in_pool);
                    names.map(|(name, _)| name.as_str()).collect()
                });
                let message = format!(
                    "the pool `{}` has no region `{}`",
                    pool.value,
                    entry.name.escape_debug()
                );
                self.notes
                    .mistake(Mistake::new(entry.name.span, message).nearest(near.as_deref()));
                continue;
            };
            match weight_of(entry.value.as_ref()) {
                Some(weight) => {
                    weights.insert(id, weight);
                }
                None => lawful = false,
            }
        }
        if lawful && !table.value.is_empty() {
            for member in members.iter().filter(|m| !weights.contains_key(&m.region)) {
                let name = self.region_name(member.region);
                let message = format!("`{name}` is not among the weights, so it weighs nothing");
                self.notes.warn(table.span, message);
            }
        }
        let in_order = members.iter().map(|member| member.region);
        lawful.then(|| {
            in_order
                .filter_map(|region| Some((region, *weights.get(&region)?)))
                .collect()
        })
    }

    fn region_name(&self, id: RegionId) -> String {
        let known = self.regions.iter().find(|(_, known)| **known == id);
        known.map_or_else(|| "?".to_owned(), |(name, _)| name.clone())
    }

    fn check_weights(&mut self, pool: &At<String>, policy: &SteeringPolicy, members: &[Member]) {
        let idle =
            |member: &Member| member.weight.get() == 0 || policy.weight(member.region).get() == 0;
        if !members.is_empty() && members.iter().all(idle) {
            let message = format!("all regions of the pool `{}` have the weight 0", pool.value);
            self.notes.mistake(
                Mistake::new(pool.span, message)
                    .help("the weight of a region is multiplied by that of `steering.weights`"),
            );
        }
    }
}

/// Where the pool's first endpoint is that is spoken to over TLS.
fn first_tls(pool: &At<PoolSpec>) -> Option<Span> {
    first(pool, |endpoint| Some(endpoint.tls.as_ref()?.span))
}

/// Where the pool first says that an endpoint is told who the client is.
fn first_told(pool: &At<PoolSpec>) -> Option<Span> {
    let of_pool = pool.value.proxy_protocol.as_ref()?.span;
    first(pool, |endpoint| {
        let said = endpoint.proxy_protocol.as_ref()?;
        (said.value != ProxyProtocolWord::None).then(|| said.span.or(of_pool))
    })
}

fn first<T>(pool: &At<PoolSpec>, what: impl Fn(&EndpointSpec) -> Option<T>) -> Option<T> {
    let members = pool
        .value
        .regions
        .iter()
        .flat_map(|table| table.value.iter());
    let members = members.filter_map(|entry| entry.value.as_ref());
    let lists = members.filter_map(|member| member.value.endpoints.as_ref());
    let mut endpoints = lists.flat_map(|list| list.value.iter());
    endpoints.find_map(|endpoint| what(&endpoint.value))
}

fn weight_of(weight: Option<&At<WeightNumber>>) -> Option<Weight> {
    Weight::new(u32::try_from(weight?.value.0).ok()?)
}

/// How long after its death an endpoint is found dead at the latest, when it swallows what is sent
/// to it; and how that is made up.
///
/// It dies just after a probe began that still passes. The next one starts an interval and its
/// jitter later and runs into its timeout. A second failure is looked for after `recheck`, further
/// ones an interval after the start of the one before.
fn worst_detection(probe: &Probe) -> (Duration, String) {
    let period = probe.interval + probe.interval / 10;
    let print = print_duration;
    let mut worst = period + probe.timeout;
    let mut sum = format!(
        "{} (interval {} and a tenth) + {} (timeout)",
        print(period),
        print(probe.interval),
        print(probe.timeout)
    );
    if probe.fall >= 2 {
        worst += probe.recheck;
        sum.push_str(&format!(" + {} (recheck)", print(probe.recheck)));
        let further = probe.fall - 2;
        if further > 0 {
            worst += period * further;
            sum.push_str(&format!(
                " + {further} × {} (further failures)",
                print(period)
            ));
        }
        worst += probe.timeout;
        sum.push_str(&format!(" + {} (timeout)", print(probe.timeout)));
    }
    (worst, sum)
}
