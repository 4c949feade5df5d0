//! A builder of [`Snapshot`]s that tests read aloud. Probes nothing and concludes little: a region
//! stands as its endpoints' verdicts suggest, or as the test says.
//!
//! ```
//! use sealane_model::Verdict::{Down, Up};
//! use sealane_testkit::{Names, World};
//!
//! let world = World::new()
//!     .region("eu-central-1", Up).at(50.11, 8.68).endpoints(3)
//!     .region("us-east-1", Down).at(39.04, -77.49).weight(33)
//!     .build();
//! assert_eq!(world.topology.region_name(world.region_id("us-east-1")), "us-east-1");
//! ```
//!
//! Verbs after [`World::region`] speak of that region in the pool at hand; verbs after
//! [`World::pool`] of that pool. A builder is `Clone`, and ids go by first mention, so that two
//! worlds grown from one builder agree on them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sealane_model::{
    Addresses, AllDown, Basis, Correction, Endpoint, EndpointHealth, EndpointId, EndpointProtocol,
    EndpointTls, FailoverRule, Generation, IdBook, Learned, Location, Member, MemberHealth,
    Network, OutReason, Pool, PoolId, ProxyVersion, RampStep, Rate, Ratio, Region, RegionId, Room,
    Snapshot, Source, Standing, Target, Timestamp, Topology, Verdict, Weight,
};

/// The pool that a world has when the test names none.
pub const DEFAULT_POOL: &str = "api";

#[derive(Clone, Debug)]
pub struct World {
    ids: IdBook,
    generation: Generation,
    published_at: Timestamp,
    regions: Vec<Region>,
    pools: Vec<PoolPlan>,
    learned: Arc<Learned>,
    /// The pool that verbs speak of.
    at_hand: usize,
}

#[derive(Clone, Debug)]
struct PoolPlan {
    id: PoolId,
    name: String,
    failover: FailoverRule,
    members: Vec<MemberPlan>,
}

#[derive(Clone, Debug)]
struct MemberPlan {
    region: RegionId,
    weight: Weight,
    priority: u16,
    standing: Option<Standing>,
    rtt: Option<Duration>,
    rtt_floor: Option<Duration>,
    capacity: Option<Rate>,
    room: Option<Room>,
    ramp: Option<RampStep>,
    basis: Arc<[Basis]>,
    suspect: Option<bool>,
    addresses: Option<Arc<[IpAddr]>>,
    endpoints: Vec<EndpointPlan>,
    /// The endpoints are the ones made up by [`World::region`], until the test names its own.
    made_up: bool,
}

#[derive(Clone, Debug)]
struct EndpointPlan {
    name: String,
    target: Target,
    verdict: Verdict,
    weight: Weight,
    az: Option<Arc<str>>,
    protocol: EndpointProtocol,
    tls: Option<EndpointTls>,
    proxy_protocol: Option<ProxyVersion>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// No region, and the pool [`DEFAULT_POOL`] at hand.
    #[must_use]
    pub fn new() -> Self {
        let nothing = Self {
            ids: IdBook::default(),
            generation: Generation(1),
            published_at: Timestamp::from_millis(1_700_000_000_000),
            regions: Vec::new(),
            pools: Vec::new(),
            learned: Arc::default(),
            at_hand: 0,
        };
        nothing.pool(DEFAULT_POOL)
    }

    /// This node stands in that region, and its connections have taught it this about clients' networks.
    #[must_use]
    pub fn learned(mut self, region: &str, corrections: &[(IpAddr, Correction)]) -> Self {
        let region = self.ids.region(region).expect("tests name few regions");
        let network =
            |(client, correction): &(IpAddr, Correction)| (Network::of(*client), *correction);
        let corrections = corrections.iter().map(network).collect();
        self.learned = Arc::new(Learned::new(region, corrections));
        self
    }

    /// What follows speaks of this pool. A pool without any region is left out of the world,
    /// unless it was the last one named.
    #[must_use]
    pub fn pool(mut self, name: &str) -> Self {
        let id = self.ids.pool(name).expect("tests name few pools");
        self.at_hand = match self.pools.iter().position(|pool| pool.id == id) {
            Some(known) => known,
            None => {
                self.pools.push(PoolPlan {
                    id,
                    name: name.to_owned(),
                    failover: FailoverRule {
                        threshold: Ratio::new(0.5).expect("0.5 is a ratio"),
                        hold_down: Duration::from_secs(60),
                        all_down: AllDown::FailOpen,
                        panic: Ratio::ZERO,
                        ramp: None,
                    },
                    members: Vec::new(),
                });
                self.pools.len() - 1
            }
        };
        self
    }

    /// The pool at hand is also in this region, with one endpoint of that verdict.
    #[must_use]
    pub fn region(mut self, name: &str, verdict: Verdict) -> Self {
        let region = self.region_known(name);
        let endpoint = made_up_endpoint(region, self.at_hand, 0, verdict);
        self.pools[self.at_hand].members.push(MemberPlan {
            region,
            weight: Weight::DEFAULT,
            priority: 1,
            standing: None,
            rtt: None,
            rtt_floor: None,
            capacity: None,
            room: None,
            ramp: None,
            basis: Arc::new([]),
            suspect: None,
            addresses: None,
            endpoints: vec![endpoint],
            made_up: true,
        });
        self
    }

    /// A region that exists but is in no pool yet.
    #[must_use]
    pub fn bare_region(mut self, name: &str) -> Self {
        self.region_known(name);
        self
    }

    fn region_known(&mut self, name: &str) -> RegionId {
        let id = self.ids.region(name).expect("tests name few regions");
        if !self.regions.iter().any(|region| region.id == id) {
            self.regions.push(Region::new(id, name, None));
        }
        id
    }

    /// The region lies there (degrees).
    #[must_use]
    pub fn at(mut self, latitude: f32, longitude: f32) -> Self {
        let location = Location::new(latitude, longitude).expect("a place on the globe");
        let last = self.member().region;
        let region = self.regions.iter_mut().find(|region| region.id == last);
        region.expect("members' regions are known").location = Some(location);
        self
    }

    /// The region has `count` endpoints, all with the verdict that it was opened with.
    #[must_use]
    pub fn endpoints(mut self, count: usize) -> Self {
        let pool = self.at_hand;
        let member = self.member();
        let verdict = member
            .endpoints
            .first()
            .map_or(Verdict::Up, |first| first.verdict);
        member.endpoints = (0..count)
            .map(|index| made_up_endpoint(member.region, pool, index, verdict))
            .collect();
        self
    }

    /// The region has an endpoint at this address. The first one named takes the place of the
    /// made-up ones.
    ///
    /// # Panics
    /// `address` is not `ip:port`.
    #[must_use]
    pub fn endpoint(mut self, address: &str, verdict: Verdict) -> Self {
        let target = Target::Address(address.parse().expect("an endpoint is written ip:port"));
        let member = self.member();
        if std::mem::take(&mut member.made_up) {
            member.endpoints.clear();
        }
        member.endpoints.push(EndpointPlan {
            name: address.to_owned(),
            target,
            verdict,
            weight: Weight::DEFAULT,
            az: None,
            protocol: EndpointProtocol::Http1,
            tls: None,
            proxy_protocol: None,
        });
        self
    }

    /// The last endpoint weighs this much (0–1,000,000).
    #[must_use]
    pub fn endpoint_weight(mut self, weight: u32) -> Self {
        self.last_endpoint().weight = Weight::new(weight).expect("a lawful weight");
        self
    }

    /// The last endpoint is in this availability zone.
    #[must_use]
    pub fn az(mut self, name: &str) -> Self {
        self.last_endpoint().az = Some(name.into());
        self
    }

    /// All endpoints of the region speak HTTP/2.
    #[must_use]
    pub fn http2(mut self) -> Self {
        for endpoint in &mut self.member().endpoints {
            endpoint.protocol = EndpointProtocol::Http2;
        }
        self
    }

    /// All endpoints of the region are reached over TLS.
    #[must_use]
    pub fn tls(mut self, tls: &EndpointTls) -> Self {
        for endpoint in &mut self.member().endpoints {
            endpoint.tls = Some(tls.clone());
        }
        self
    }

    /// All endpoints of the region are told who the client is, in this version.
    #[must_use]
    pub fn proxy_protocol(mut self, version: ProxyVersion) -> Self {
        for endpoint in &mut self.member().endpoints {
            endpoint.proxy_protocol = Some(version);
        }
        self
    }

    /// The region weighs this much in the pool (0–1,000,000).
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.member().weight = Weight::new(weight).expect("a lawful weight");
        self
    }

    #[must_use]
    pub fn priority(mut self, tier: u16) -> Self {
        self.member().priority = tier;
        self
    }

    /// The region stands so, whatever its endpoints' verdicts suggest.
    #[must_use]
    pub fn standing(mut self, standing: Standing) -> Self {
        self.member().standing = Some(standing);
        self
    }

    #[must_use]
    pub fn suspect(mut self) -> Self {
        self.member().suspect = Some(true);
        self
    }

    /// Probes of the region take this long now …
    #[must_use]
    pub fn rtt(mut self, rtt: Duration) -> Self {
        self.member().rtt = Some(rtt);
        self
    }

    /// … and took this long at their best.
    #[must_use]
    pub fn rtt_floor(mut self, floor: Duration) -> Self {
        self.member().rtt_floor = Some(floor);
        self
    }

    /// The region carries so much of what it can (requests a second), and has room for this share
    /// of those who choose it.
    #[must_use]
    pub fn room(mut self, load: f64, limit: f64, accepts: f64) -> Self {
        let member = self.member();
        member.capacity = Rate::per_second(limit);
        member.room = Some(Room {
            limit,
            load,
            excess: 0.0,
            accepts,
        });
        self
    }

    /// The region returns step by step, and is given this share now.
    #[must_use]
    pub fn ramp(mut self, share: f64) -> Self {
        let since = self.published_at;
        self.member().ramp = Some(RampStep {
            share,
            step: 1,
            of: 1,
            since,
            held: false,
        });
        self
    }

    /// Weighted shares go by these, for one part of the clients after another.
    #[must_use]
    pub fn basis(mut self, basis: &[Basis]) -> Self {
        self.member().basis = basis.into();
        self
    }

    /// DNS answers these for the region. Without this verb: one address of its own in
    /// 198.18.0.0/15.
    #[must_use]
    pub fn addresses(mut self, addresses: &[&str]) -> Self {
        let parsed = addresses
            .iter()
            .map(|a| a.parse().expect("an IP address"))
            .collect();
        self.member().addresses = Some(parsed);
        self
    }

    /// The pool at hand fails over by this rule.
    #[must_use]
    pub fn failover(mut self, rule: FailoverRule) -> Self {
        self.pools[self.at_hand].failover = rule;
        self
    }

    /// What the pool at hand answers when no region is usable.
    #[must_use]
    pub fn all_down(mut self, rule: AllDown) -> Self {
        self.pools[self.at_hand].failover.all_down = rule;
        self
    }

    #[must_use]
    pub fn generation(mut self, generation: u64) -> Self {
        self.generation = Generation(generation);
        self
    }

    #[must_use]
    pub fn published_at(mut self, at: Timestamp) -> Self {
        self.published_at = at;
        self
    }

    /// From now on all endpoints of that region, in every pool, have this verdict; its standing
    /// follows.
    ///
    /// # Panics
    /// No such region.
    #[must_use]
    pub fn turn(mut self, region: &str, verdict: Verdict) -> Self {
        for member in self.members_named(region) {
            member.standing = None;
            for endpoint in &mut member.endpoints {
                endpoint.verdict = verdict;
            }
        }
        self
    }

    /// From now on that region is out of every pool, for this reason.
    ///
    /// # Panics
    /// No such region.
    #[must_use]
    pub fn out(mut self, region: &str, reason: OutReason) -> Self {
        for member in self.members_named(region) {
            member.standing = Some(Standing::Out(reason));
        }
        self
    }

    fn members_named(&mut self, region: &str) -> impl Iterator<Item = &mut MemberPlan> {
        let known = self.regions.iter().find(|r| &*r.name == region);
        let id = known
            .unwrap_or_else(|| panic!("the world has no region {region}"))
            .id;
        let members = self.pools.iter_mut().flat_map(|pool| &mut pool.members);
        members.filter(move |member| member.region == id)
    }

    fn member(&mut self) -> &mut MemberPlan {
        let members = &mut self.pools[self.at_hand].members;
        members
            .last_mut()
            .expect("this verb follows region(\"…\", …)")
    }

    fn last_endpoint(&mut self) -> &mut EndpointPlan {
        let endpoints = &mut self.member().endpoints;
        endpoints
            .last_mut()
            .expect("this verb follows endpoint(\"…\", …)")
    }

    /// The world as published.
    #[must_use]
    pub fn build(mut self) -> Snapshot {
        let last_named = self.at_hand;
        let mut built = Built::default();
        for (index, pool) in self.pools.iter().enumerate() {
            if index == last_named || !pool.members.is_empty() {
                built.pool(pool, &mut self.ids, self.published_at);
            }
        }
        let topology = Topology::new(self.regions, built.pools, built.endpoints);
        Snapshot::new(
            self.generation,
            self.published_at,
            Arc::new(topology),
            built.endpoint_healths,
            built.member_healths,
        )
        .with_learned(self.learned)
    }
}

#[derive(Default)]
struct Built {
    pools: Vec<Pool>,
    endpoints: Vec<Endpoint>,
    endpoint_healths: Vec<(EndpointId, EndpointHealth)>,
    member_healths: Vec<(PoolId, Vec<MemberHealth>)>,
}

impl Built {
    fn pool(&mut self, plan: &PoolPlan, ids: &mut IdBook, at: Timestamp) {
        let mut members = Vec::new();
        let mut healths = Vec::new();
        for member in &plan.members {
            let endpoints: Vec<EndpointId> = member
                .endpoints
                .iter()
                .map(|endpoint| self.endpoint(plan.id, member, endpoint, ids, at))
                .collect();
            let addresses = member
                .addresses
                .clone()
                .unwrap_or_else(|| Arc::new([made_up_address(member.region)]));
            members.push(Member {
                region: member.region,
                weight: member.weight,
                priority: member.priority,
                capacity: member.capacity,
                addresses: Addresses::Fixed(addresses.clone()),
                endpoints,
            });
            healths.push(member_health(member, addresses, at));
        }
        self.member_healths.push((plan.id, healths));
        self.pools.push(Pool {
            id: plan.id,
            name: plan.name.as_str().into(),
            members,
            failover: plan.failover.clone(),
        });
    }

    fn endpoint(
        &mut self,
        pool: PoolId,
        member: &MemberPlan,
        plan: &EndpointPlan,
        ids: &mut IdBook,
        at: Timestamp,
    ) -> EndpointId {
        let id = ids
            .endpoint(pool, member.region, &plan.name)
            .expect("tests name few endpoints");
        self.endpoints.push(Endpoint {
            id,
            pool,
            region: member.region,
            name: plan.name.as_str().into(),
            target: plan.target.clone(),
            az: plan.az.clone(),
            weight: plan.weight,
            protocol: plan.protocol,
            tls: plan.tls.clone(),
            proxy_protocol: plan.proxy_protocol,
        });
        let addresses: Arc<[SocketAddr]> = match &plan.target {
            Target::Address(address) => Arc::new([*address]),
            Target::Host { .. } => Arc::new([]),
        };
        let health = EndpointHealth {
            verdict: plan.verdict,
            since: at,
            by: Source::Probe,
            cause: None,
            rtt: member.rtt,
            judged: None,
            addresses,
        };
        self.endpoint_healths.push((id, health));
        id
    }
}

fn member_health(plan: &MemberPlan, addresses: Arc<[IpAddr]>, at: Timestamp) -> MemberHealth {
    let having = |wanted: fn(Verdict) -> bool| {
        let matching = plan.endpoints.iter().filter(|e| wanted(e.verdict));
        u32::try_from(matching.count()).expect("tests name few endpoints")
    };
    let healthy = having(Verdict::is_usable);
    let doubtful = having(|verdict| matches!(verdict, Verdict::Suspect | Verdict::Probation)) > 0;
    MemberHealth {
        standing: plan
            .standing
            .unwrap_or_else(|| suggested_standing(plan, healthy)),
        since: at,
        healthy,
        total: having(|_| true),
        suspect: plan.suspect.unwrap_or(doubtful),
        degraded: false,
        rtt: plan.rtt,
        rtt_floor: plan.rtt_floor,
        addresses,
        room: plan.room,
        ramp: plan.ramp,
        basis: plan.basis.clone(),
    }
}

/// In while an endpoint is usable; which share is enough is for control to say, and for the test.
fn suggested_standing(plan: &MemberPlan, healthy: u32) -> Standing {
    let drains = |endpoint: &EndpointPlan| endpoint.verdict == Verdict::Draining;
    if plan.endpoints.is_empty() {
        Standing::Out(OutReason::Empty)
    } else if healthy > 0 {
        Standing::In
    } else if plan.endpoints.iter().all(drains) {
        Standing::Out(OutReason::Draining)
    } else {
        Standing::Out(OutReason::Failed)
    }
}

/// 198.18.R.10: the benchmarking block (RFC 2544) is nobody's.
fn made_up_address(region: RegionId) -> IpAddr {
    let region = u8::try_from(region.index() % 256).expect("below 256");
    Ipv4Addr::new(198, 18, region, 10).into()
}

/// 198.19.R.E:P: a socket address of its own for each endpoint of each pool.
fn made_up_endpoint(region: RegionId, pool: usize, index: usize, verdict: Verdict) -> EndpointPlan {
    let octet = |n: usize| u8::try_from(n % 256).expect("below 256");
    let port = 8_000 + u16::try_from(pool % 1_000).expect("below 1,000");
    let ip = Ipv4Addr::new(198, 19, octet(region.index()), octet(index + 1));
    let address = SocketAddr::from((ip, port));
    EndpointPlan {
        name: address.to_string(),
        target: Target::Address(address),
        verdict,
        weight: Weight::DEFAULT,
        az: None,
        protocol: EndpointProtocol::Http1,
        tls: None,
        proxy_protocol: None,
    }
}

/// Ids and names as tests speak of them. Each panics when there is no such thing: the test is
/// wrong then.
pub trait Names {
    fn region_id(&self, name: &str) -> RegionId;
    fn pool_id(&self, name: &str) -> PoolId;
    /// The endpoint at place `index` of that pool in that region.
    fn endpoint_id(&self, pool: &str, region: &str, index: usize) -> EndpointId;
    fn region_names(&self, ids: impl IntoIterator<Item = RegionId>) -> Vec<&str>;
}

impl Names for Snapshot {
    fn region_id(&self, name: &str) -> RegionId {
        let region = self.topology.region_named(name);
        region
            .unwrap_or_else(|| panic!("the world has no region {name}"))
            .id
    }

    fn pool_id(&self, name: &str) -> PoolId {
        let pool = self.topology.pool_named(name);
        pool.unwrap_or_else(|| panic!("the world has no pool {name}"))
            .id
    }

    fn endpoint_id(&self, pool: &str, region: &str, index: usize) -> EndpointId {
        let member = self.member(self.pool_id(pool), self.region_id(region));
        let (member, _) = member.unwrap_or_else(|| panic!("{pool} is not in {region}"));
        member.endpoints[index]
    }

    fn region_names(&self, ids: impl IntoIterator<Item = RegionId>) -> Vec<&str> {
        ids.into_iter()
            .map(|id| self.topology.region_name(id))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Down, Draining, Suspect, Up};

    #[test]
    fn a_region_stands_as_its_endpoints_suggest_unless_told() {
        let world = World::new()
            .region("well", Up)
            .region("dead", Down)
            .region("leaving", Draining)
            .region("bare", Up)
            .endpoints(0)
            .region("held", Up)
            .standing(Standing::Out(OutReason::FailedOver))
            .build();

        let standings: Vec<Standing> = world
            .members(world.pool_id("api"))
            .map(|(_, health)| health.standing)
            .collect();

        let out = Standing::Out;
        assert_eq!(
            standings,
            [
                Standing::In,
                out(OutReason::Failed),
                out(OutReason::Draining),
                out(OutReason::Empty),
                out(OutReason::FailedOver),
            ]
        );
    }

    #[test]
    fn worlds_grown_from_one_builder_agree_on_ids() {
        let builder = World::new().region("eu", Up).region("us", Up).endpoints(2);

        let before = builder.clone().build();
        let after = builder.region("ap", Up).turn("us", Down).build();

        assert_eq!(before.region_id("us"), after.region_id("us"));
        let us = before.endpoint_id("api", "us", 1);
        assert_eq!((before.verdict(us), after.verdict(us)), (Up, Down));
    }

    #[test]
    fn named_endpoints_take_the_place_of_made_up_ones_and_doubt_shows() {
        let world = World::new()
            .region("eu", Up)
            .endpoint("127.0.0.1:1000", Up)
            .endpoint("127.0.0.1:1001", Suspect)
            .build();

        let (member, health) = world
            .member(world.pool_id("api"), world.region_id("eu"))
            .unwrap();

        assert_eq!((member.endpoints.len(), health.healthy), (2, 2));
        assert!(health.suspect);
    }
}
