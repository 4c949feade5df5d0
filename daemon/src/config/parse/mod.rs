//! From the filled-in spec to the rooms' rules: what keys have to do with each other.
//!
//! Every struct of the spec is taken apart here, so that a key that is added must be handled.
//! Ids are handed out here and nowhere else.

mod acme;
mod admin;
mod balance;
mod bounds;
mod clients;
mod dns;
mod dns_encrypted;
mod dnssec;
mod options;
mod pools;
mod proxy;
mod retries;
mod sharing;
mod splits;
mod sticky;
mod tls;
mod transfers;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use sealane_acme::Names;
use sealane_control::learn::LearnRule;
use sealane_model::{IdBook, Member, PoolId, Region, RegionId, Topology};
use sealane_proxy::config::{Balancing, Destination, Listener, LocalZone, PoolLimits, StickyKey};
use sealane_steering::{GeoOverride, GeoTable, SteeringPolicy};

use super::decode::{At, Table, nearest};
use super::error::{Mistake, Notes};
use super::files::Files;
use super::kept::Kept;
use super::places;
use super::source::Span;
use super::spec::{DnsSpec, FileSpec, GeoSpec, ListenerSpec, NodeSpec, OverrideSpec, RegionSpec};
use super::unit::Text;
use super::{Node, RenewedTls, Rules};
use crate::dnssec::KeyPolicy;
use clients::GeoTables;
use proxy::is_http;

/// The folder in `node.state_dir` that holds the keys of signed zones.
pub(super) const KEY_FOLDER: &str = "dnssec";
/// The folder in `node.state_dir` that holds copies of other servers' zones, and serials.
const TRANSFER_FOLDER: &str = "transfers";
/// The file in `node.state_dir` that holds the health map over a restart.
const STATE_FILE: &str = "health.json";

/// `None`, or rules beside mistakes, when something is wrong.
pub(super) fn parse(
    spec: &FileSpec,
    files: &mut Files,
    ids: &mut IdBook,
    notes: &mut Notes,
    kept: &mut Kept,
) -> Option<Rules> {
    let FileSpec {
        span: _,
        broken: _,
        version: _,
        node,
        regions,
        defaults: _,
        pools,
        listeners,
        routes,
        dns,
        acme,
        admin,
        limits,
        trusted_proxies,
        tier_header,
        sticky_keys,
        name_endpoint,
        global_load_balancer: _,
    } = spec;
    let mut parser = Parser {
        files,
        ids,
        notes,
        kept,
        regions: HashMap::new(),
        geo_tables: GeoTables::default(),
        local: None,
        pools: HashMap::new(),
        binds: Binds::default(),
        acme_wanted: Vec::new(),
        pool_limits: Vec::new(),
        sticky_keys: None,
        key_dir: None,
        transfer_dir: None,
        key_policies: Vec::new(),
    };
    let regions = parser.regions(regions.as_ref());
    let node_spec = node.as_ref();
    let node = parser.node(node_spec);
    parser.local = parser.local_zone(node_spec);
    parser.geo_tables = parser.geo_tables(dns.as_ref());
    let (pools, endpoints, probes) = parser.pools(pools.as_ref());
    let topology = Arc::new(Topology::new(regions, pools, endpoints));
    let geo = parser.geo(dns.as_ref());
    let learn = parser.learn(node_spec, dns.as_ref(), &geo);
    let listener_specs = listeners.as_ref();
    let listeners = parser.listeners(listener_specs);
    let encrypted = parser.dns_encrypted(dns.as_ref());
    let state_dir = parser.state_dir(node_spec);
    let acme = parser.acme(acme.as_ref(), state_dir.as_ref());
    parser.sticky_keys = parser.sticky_keys(sticky_keys.as_ref());
    let routes = parser.routes(routes.as_ref(), listeners.iter().any(is_http));
    let limits = parser.proxy_limits(limits.as_ref());
    let bounds = parser.bounds(tier_header.as_ref());
    parser.transfer_dir = state_dir.as_ref().map(|dir| dir.join(TRANSFER_FOLDER));
    parser.key_dir = dnssec::key_dir(spec, parser.files);
    let dns = parser.dns(dns.as_ref(), geo.clone(), encrypted);
    let admin = parser.admin(admin.as_ref());
    parser.check_purpose(spec, &listeners, &dns);
    parser.check_unused_pools();
    parser.warn_of_open_doors(listener_specs, &listeners, &routes);

    let (node, first_round_limit, state_file) = node?;
    let trusted = trusted_proxies.iter().flat_map(|list| list.value.iter());
    Some(Rules {
        proxy: sealane_proxy::config::Config {
            listeners,
            routes,
            limits: limits?,
            trusted: trusted.map(|net| net.value.0).collect(),
            geo,
            name_endpoint: name_endpoint.as_ref().is_some_and(|flag| flag.value.0),
            bounds,
        },
        dns: dns?,
        control: sealane_control::config::Config {
            node: node.name.clone(),
            topology,
            probes,
            first_round_limit,
            state_file,
            learn,
            admin: admin?,
        },
        acme,
        keys: parser.key_policies,
        node,
    })
}

pub(super) use dnssec::{default_key_policy, key_policies};

/// The TLS of each listener, and of the name server, that has all it needs, whatever else is wrong.
pub(super) fn renewed_tls(
    spec: &FileSpec,
    files: &mut Files,
    notes: &mut Notes,
    kept: &mut Kept,
) -> RenewedTls {
    let mut parser = Parser {
        files,
        ids: &mut IdBook::default(),
        notes,
        kept,
        regions: HashMap::new(),
        geo_tables: GeoTables::default(),
        local: None,
        pools: HashMap::new(),
        acme_wanted: Vec::new(),
        pool_limits: Vec::new(),
        binds: Binds::default(),
        sticky_keys: None,
        key_dir: None,
        transfer_dir: None,
        key_policies: Vec::new(),
    };
    let entries = spec.listeners.iter().flat_map(|table| table.value.iter());
    let named = entries.filter_map(|entry| Some((&entry.name, entry.value.as_ref()?)));
    let tls = named.filter_map(|(name, listener)| {
        let ListenerSpec {
            certificates, tls, ..
        } = &listener.value;
        let tls = parser.server_tls(certificates.as_ref()?, tls.as_ref())?;
        Some((name.as_str().into(), tls))
    });
    let listeners = tls.collect();
    let dns = spec.dns.as_ref();
    RenewedTls {
        listeners,
        dns: dns.map_or_else(Vec::new, |dns| {
            dns_encrypted::renewed(&mut parser, &dns.value)
        }),
    }
}

struct Parser<'a> {
    files: &'a mut Files,
    ids: &'a mut IdBook,
    notes: &'a mut Notes,
    kept: &'a mut Kept,
    regions: HashMap<String, RegionId>,
    geo_tables: GeoTables,
    /// Where this node stands.
    local: Option<LocalZone>,
    pools: HashMap<String, KnownPool>,
    binds: Binds,
    /// What listeners want to be ordered, and where they say so.
    acme_wanted: Vec<(Names, Span)>,
    /// Of pools that have any.
    pool_limits: Vec<PoolLimits>,
    /// `None`: they could not be read.
    sticky_keys: Option<Arc<[StickyKey]>>,
    /// Where keys of zones are.
    key_dir: Option<PathBuf>,
    /// Where copies of other servers' zones and serials are kept.
    transfer_dir: Option<PathBuf>,
    /// How keys of signed zones are kept.
    key_policies: Vec<KeyPolicy>,
}

/// A pool that routes and steered names may refer to.
struct KnownPool {
    id: PoolId,
    /// `None`: its policy could not be read.
    steering: Option<Arc<SteeringPolicy>>,
    /// `None`: it could not be read.
    balance: Option<Arc<Balancing>>,
    span: Span,
    used: bool,
    /// What it has in which region, and where the file says so; for steering of its own by a name.
    members: Vec<Member>,
    regions: HashMap<RegionId, Span>,
    /// Where its first endpoint is that is spoken to over TLS.
    tls: Option<Span>,
    /// Where it first says that an endpoint is told who the client is.
    proxy_protocol: Option<Span>,
}

impl Parser<'_> {
    fn node(
        &mut self,
        node: Option<&At<NodeSpec>>,
    ) -> Option<(Node, std::time::Duration, Option<PathBuf>)> {
        let NodeSpec {
            span: _,
            broken: _,
            name,
            region,
            az: _, // see `local_zone`
            state_dir,
            workers,
            first_round_limit,
            drain_limit,
            upgrade_limit,
        } = &node?.value;
        let region = match region {
            Some(region) => Some(self.region(&region.0, region.span)?),
            None => None,
        };
        let workers = workers.as_ref().and_then(|at| {
            let workers = usize::try_from(at.value.0).ok()?;
            NonZeroUsize::new(workers)
        });
        let node = Node {
            name: name.as_ref()?.0.as_str().into(),
            region,
            workers,
            drain_limit: drain_limit.as_ref()?.0,
            upgrade_limit: upgrade_limit.as_ref()?.0,
        };
        let state_file = state_dir
            .as_ref()
            .map(|dir| self.files.resolve(&dir.0).join(STATE_FILE));
        Some((node, first_round_limit.as_ref()?.0, state_file))
    }

    fn state_dir(&self, node: Option<&At<NodeSpec>>) -> Option<PathBuf> {
        let dir = node?.value.state_dir.as_ref()?;
        Some(self.files.resolve(&dir.0))
    }

    fn regions(&mut self, table: Option<&At<Table<RegionSpec>>>) -> Vec<Region> {
        let mut regions = Vec::new();
        for entry in table.iter().flat_map(|table| table.value.iter()) {
            let id = match self.ids.region(&entry.name) {
                Ok(id) => id,
                Err(error) => {
                    self.notes.wrong(entry.name.span, error.to_string());
                    break;
                }
            };
            self.regions.insert(entry.name.value.clone(), id);
            let Some(region) = &entry.value else {
                continue;
            };
            let RegionSpec {
                span: _,
                broken: _,
                location,
            } = &region.value;
            let location = location.as_ref().map(|point| point.value.0);
            regions.push(Region::new(id, &entry.name, location));
        }
        regions
    }

    /// The id of a region that the file names; a mistake when there is none.
    fn region(&mut self, name: &str, span: Span) -> Option<RegionId> {
        if let Some(id) = self.regions.get(name) {
            return Some(*id);
        }
        let near = self.nearest(name, |parser| {
            let mut known: Vec<&str> = places::names().collect();
            known.extend(parser.regions.keys().map(String::as_str));
            known
        });
        self.notes.mistake(
            Mistake::new(
                span,
                format!("there is no region `{}`", name.escape_debug()),
            )
            .expected("a name from `regions:`, or that of a well-known cloud region")
            .nearest(near.as_deref()),
        );
        None
    }

    /// The pool that the file names; a mistake when there is none.
    fn pool(&mut self, name: &At<Text>) -> Option<(PoolId, Arc<SteeringPolicy>)> {
        if let Some(pool) = self.pools.get_mut(&name.0) {
            pool.used = true;
            return Some((pool.id, pool.steering.clone()?));
        }
        let near = self.nearest(&name.0, |parser| {
            parser.pools.keys().map(String::as_str).collect()
        });
        let message = format!("there is no pool `{}`", name.0.escape_debug());
        let mut mistake = Mistake::new(name.span, message).nearest(near.as_deref());
        if self.pools.is_empty() {
            mistake = mistake.expected("a name from `pools:`, which has none");
        }
        self.notes.mistake(mistake);
        None
    }

    /// Where requests and sessions for the pool that the file names go.
    fn destination_of(&mut self, name: &At<Text>) -> Option<Destination> {
        let (pool, steering) = self.pool(name)?;
        let balance = self.pools.get(&name.0)?.balance.clone()?;
        Some(Destination {
            pool,
            steering,
            balance,
        })
    }

    /// What was probably meant. Looks no further once nobody will read it.
    fn nearest(&self, name: &str, known: impl Fn(&Self) -> Vec<&str>) -> Option<String> {
        if self.notes.is_full() {
            return None;
        }
        let mut known = known(self);
        known.sort_unstable();
        nearest(name, known).map(ToOwned::to_owned)
    }

    /// Whether clients' connections correct the map: it takes a map, and a place where they end.
    fn learn(
        &self,
        node: Option<&At<NodeSpec>>,
        dns: Option<&At<DnsSpec>>,
        geo: &Arc<GeoTable>,
    ) -> Option<LearnRule> {
        let asked = dns.and_then(|dns| dns.geo.as_ref()?.value.learn.as_ref());
        let is_asked = asked.is_some_and(|flag| flag.value.0);
        let region = node.and_then(|node| node.value.region.as_ref())?;
        let region = *self.regions.get(&region.0)?;
        (is_asked && geo.ranges() > 0).then(|| LearnRule {
            region,
            geo: Arc::clone(geo),
        })
    }

    fn geo(&mut self, dns: Option<&At<DnsSpec>>) -> Arc<GeoTable> {
        let Some(geo) = dns.and_then(|dns| dns.geo.as_ref()) else {
            return Arc::new(GeoTable::empty());
        };
        let GeoSpec {
            span: _,
            broken: _,
            database,
            asn: _,
            overrides,
            learn: _,
        } = &geo.value;
        let mut parsed = Vec::new();
        let mut seen = HashMap::new();
        for entry in overrides.iter().flat_map(|list| list.value.iter()) {
            let OverrideSpec {
                span: _,
                broken: _,
                net,
                region,
            } = &entry.value;
            let (Some(net), Some(region)) = (net, region) else {
                continue;
            };
            if let Some(first) = seen.insert(net.value.0, net.span) {
                let message = format!("the network {} stands here twice", net.value.0);
                self.notes
                    .mistake(Mistake::new(net.span, message).related(first, "first here"));
            }
            if let Some(region) = self.region(&region.0, region.span) {
                parsed.push(GeoOverride {
                    net: net.value.0,
                    region,
                });
            }
        }
        let span = database.as_ref().map_or(geo.span, |path| path.span);
        match GeoTable::build(self.geo_tables.places.take(), &parsed) {
            Ok(table) => Arc::new(table),
            Err(error) => {
                self.notes.wrong(span, error.to_string());
                Arc::new(GeoTable::empty())
            }
        }
    }

    fn check_purpose(
        &mut self,
        spec: &FileSpec,
        listeners: &[Listener],
        dns: &Option<sealane_dns::config::Config>,
    ) {
        let serves_names = dns.as_ref().is_none_or(|dns| !dns.zones.is_empty());
        if listeners.is_empty() && !serves_names && self.notes.count() == 0 {
            self.notes.mistake(
                Mistake::new(Span::at(0, 1, 1), "the file gives nothing to do")
                    .expected("`listeners` with `routes`, or `dns` with `zones`"),
            );
        }
        let Some(dns) = &spec.dns else {
            return;
        };
        let bind = dns.bind.as_ref().filter(|bind| bind.span.is_written());
        if let (false, Some(bind)) = (serves_names, bind) {
            self.notes.warn(
                bind.span,
                "there are no `dns.zones`, so no name server listens",
            );
        }
    }

    fn check_unused_pools(&mut self) {
        let mut unused: Vec<_> = self.pools.iter().filter(|(_, pool)| !pool.used).collect();
        unused.sort_unstable_by_key(|(_, pool)| pool.span);
        for (name, pool) in unused {
            let message =
                format!("no route, no listener and no steered name leads to the pool `{name}`");
            self.notes.warn(pool.span, message);
        }
    }
}

/// Addresses that are taken. TCP and UDP have ports of their own.
#[derive(Default)]
struct Binds {
    tcp: Taken,
    udp: Taken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

/// Addresses that are listened on, and by whom.
#[derive(Default)]
struct Taken {
    exact: HashMap<SocketAddr, (Span, String)>,
    /// By family (is it IPv4?) and port.
    wildcard: HashMap<(bool, u16), (Span, String)>,
    any: HashMap<(bool, u16), (Span, String)>,
}

impl Parser<'_> {
    /// Notes that `who` listens there; a mistake when somebody else does. IPv6 sockets are for
    /// IPv6 only, and port 0 is a free one each time.
    fn bind(&mut self, transport: Transport, address: SocketAddr, span: Span, who: &str) {
        if address.port() == 0 {
            return;
        }
        let key = (address.is_ipv4(), address.port());
        let binds = match transport {
            Transport::Tcp => &mut self.binds.tcp,
            Transport::Udp => &mut self.binds.udp,
        };
        let other = binds
            .exact
            .get(&address)
            .or_else(|| binds.wildcard.get(&key))
            .or_else(|| {
                let is_all = address.ip().is_unspecified();
                is_all.then(|| binds.any.get(&key)).flatten()
            });
        if let Some((first, other)) = other {
            let message = format!("{address} of {who} is taken by {other}");
            self.notes
                .mistake(Mistake::new(span, message).related(*first, "taken here"));
            return;
        }
        let entry = || (span, who.to_owned());
        binds.exact.insert(address, entry());
        binds.any.entry(key).or_insert_with(entry);
        if address.ip().is_unspecified() {
            binds.wildcard.insert(key, entry());
        }
    }
}
