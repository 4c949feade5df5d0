//! Endpoints as one worker knows them: what an attempt must know of each, gathered once, and what the
//! worker has seen of them.
//!
//! One [`Endpoints`] a worker, so that handing an endpoint on costs no count that other workers
//! share. Asked by [`select`](super::select). Decides nothing.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use sealane_model::{
    Endpoint, EndpointId, EndpointProtocol, EndpointTls, Member, MemberTraffic, PoolId, RegionId,
    Snapshot, Topology, TrafficShard,
};

use super::account::{Account, Group};
use super::ejection::Seat;
use super::load::LoadTable;
use super::view::View;
use crate::config::Balancing;

/// At most one entry for each endpoint of the topology that was seen last; what attempts still
/// hold of earlier ones goes with them. Accounts stay while ids are not reused: as many as endpoints
/// were ever used.
#[derive(Debug)]
pub(crate) struct Endpoints {
    loads: Arc<LoadTable>,
    traffic: TrafficShard,
    known: RefCell<OfTopology>,
    accounts: RefCell<Vec<Option<Rc<Account>>>>,
    /// By pool; for each, as many as it has regions.
    groups: RefCell<Vec<ByRegion<Group>>>,
}

type ByRegion<T> = Vec<(RegionId, Rc<T>)>;

#[derive(Debug, Default)]
struct OfTopology {
    topology: Arc<Topology>,
    by_index: Vec<Option<Rc<Known>>>,
    /// By pool; for each, as many as it has regions.
    views: Vec<ByRegion<View>>,
}

/// All that an attempt must know of its endpoint; holds no snapshot.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) pool: PoolId,
    pub(crate) pool_name: Arc<str>,
    pub(crate) region: RegionId,
    pub(crate) region_name: Arc<str>,
    pub(crate) endpoint: EndpointId,
    /// As the operator wrote it.
    pub(crate) name: Arc<str>,
    pub(crate) az: Option<Arc<str>>,
    pub(crate) protocol: EndpointProtocol,
    pub(crate) tls: Option<EndpointTls>,
    pub(crate) account: Rc<Account>,
}

impl Endpoints {
    /// `traffic`: where this worker counts.
    pub(crate) fn new(loads: Arc<LoadTable>, traffic: TrafficShard) -> Self {
        Self {
            loads,
            traffic,
            known: RefCell::default(),
            accounts: RefCell::default(),
            groups: RefCell::default(),
        }
    }

    pub(super) fn loads(&self) -> &LoadTable {
        &self.loads
    }

    pub(super) fn millis(&self, now: Instant) -> u64 {
        self.loads.millis(now)
    }

    /// What may be chosen from in one region of a pool: made once for each world and rules.
    pub(super) fn view(
        &self,
        world: &Snapshot,
        member: &Member,
        pool: PoolId,
        balancing: &Arc<Balancing>,
        now: u64,
    ) -> Rc<View> {
        self.follow(&world.topology);
        if let Some(view) = self.view_made(pool, member.region)
            && view.holds(world, balancing)
        {
            return view;
        }
        let group = self.group(pool, member.region);
        if self.view_made(pool, member.region).is_none() {
            self.seat(world, member, pool, now);
        }
        let earlier = group.last_view.take();
        let known = |endpoint: &Endpoint| self.known(world, endpoint);
        let view = View::new(
            world,
            member,
            balancing,
            &group,
            earlier.as_deref(),
            now,
            known,
        );
        let view = Rc::new(view);
        group.last_view.replace(Some(Rc::clone(&view)));
        let views = &mut self.known.borrow_mut().views;
        let of_pool = entry(views, pool.index());
        of_pool.retain(|(region, _)| *region != member.region);
        of_pool.push((member.region, Rc::clone(&view)));
        view
    }

    fn view_made(&self, pool: PoolId, region: RegionId) -> Option<Rc<View>> {
        let known = self.known.borrow();
        let views = known.views.get(pool.index())?;
        let (_, view) = views.iter().find(|(of, _)| *of == region)?;
        Some(Rc::clone(view))
    }

    /// Tells the pool's court who is in the region.
    fn seat(&self, world: &Snapshot, member: &Member, pool: PoolId, now: u64) {
        let endpoints = member.endpoints.iter();
        let seats = endpoints.filter_map(|id| {
            let endpoint = world.topology.endpoint(*id)?;
            Some(Seat {
                endpoint: *id,
                az: endpoint.az.clone(),
            })
        });
        let seats: Vec<Seat> = seats.collect();
        self.loads.court(pool).seat(now, member.region, &seats);
    }

    fn group(&self, pool: PoolId, region: RegionId) -> Rc<Group> {
        let mut groups = self.groups.borrow_mut();
        let of_pool = entry(&mut groups, pool.index());
        if let Some((_, group)) = of_pool.iter().find(|(of, _)| *of == region) {
            return Rc::clone(group);
        }
        let traffic = self.traffic.of(pool, region);
        let group = Rc::new(Group::new(Arc::clone(&self.loads), traffic));
        of_pool.push((region, Rc::clone(&group)));
        group
    }

    /// What is counted of a region.
    pub(super) fn traffic_of(&self, pool: PoolId, region: RegionId) -> MemberTraffic {
        self.group(pool, region).traffic.clone()
    }

    fn account(&self, endpoint: &Endpoint) -> Rc<Account> {
        let mut accounts = self.accounts.borrow_mut();
        let made = entry(&mut accounts, endpoint.id.index()).get_or_insert_with(|| {
            let group = self.group(endpoint.pool, endpoint.region);
            let load = self.loads.hold(endpoint.id);
            Rc::new(Account::new(load, group))
        });
        Rc::clone(made)
    }

    fn follow(&self, topology: &Arc<Topology>) {
        let mut known = self.known.borrow_mut();
        if !Arc::ptr_eq(&known.topology, topology) {
            *known = OfTopology {
                topology: Arc::clone(topology),
                ..OfTopology::default()
            };
        }
    }

    /// `None`: the topology has it no more.
    pub(crate) fn find(&self, world: &Snapshot, endpoint: EndpointId) -> Option<Rc<Known>> {
        let endpoint = world.topology.endpoint(endpoint)?;
        Some(self.known(world, endpoint))
    }

    pub(super) fn known(&self, world: &Snapshot, endpoint: &Endpoint) -> Rc<Known> {
        self.follow(&world.topology);
        let mut known = self.known.borrow_mut();
        let made = entry(&mut known.by_index, endpoint.id.index());
        let made = made.get_or_insert_with(|| {
            let account = self.account(endpoint);
            Rc::new(Known::new(endpoint, &world.topology, account))
        });
        Rc::clone(made)
    }
}

/// The entry at an index, made if need be.
fn entry<T: Default>(table: &mut Vec<T>, at: usize) -> &mut T {
    if table.len() <= at {
        table.resize_with(at + 1, T::default);
    }
    &mut table[at]
}

impl Known {
    fn new(endpoint: &Endpoint, topology: &Topology, account: Rc<Account>) -> Self {
        let name_of_region = topology.region(endpoint.region);
        let name_of_pool = topology.pool(endpoint.pool);
        Self {
            pool: endpoint.pool,
            pool_name: name_of_pool.map_or_else(nameless, |pool| Arc::clone(&pool.name)),
            region: endpoint.region,
            region_name: name_of_region.map_or_else(nameless, |region| Arc::clone(&region.name)),
            endpoint: endpoint.id,
            name: Arc::clone(&endpoint.name),
            az: endpoint.az.clone(),
            protocol: endpoint.protocol,
            tls: endpoint.tls.clone(),
            account,
        }
    }
}

fn nameless() -> Arc<str> {
    Arc::from("?")
}

#[cfg(test)]
mod tests {
    use sealane_model::Traffic;
    use sealane_model::Verdict::Up;
    use sealane_testkit::World;

    use super::*;

    fn first(world: &Snapshot) -> &Endpoint {
        world.topology.endpoints().next().unwrap()
    }

    #[test]
    fn an_endpoint_is_gathered_once_and_anew_when_the_topology_changed() {
        let before = World::new().region("eu", Up).build();
        let after = World::new().region("eu", Up).endpoints(2).build();
        let endpoints = Endpoints::new(Arc::default(), Traffic::default().shard());

        let one = endpoints.known(&before, first(&before));
        assert!(Rc::ptr_eq(&one, &endpoints.known(&before, first(&before))));
        assert_eq!((&*one.pool_name, &*one.region_name), ("api", "eu"));

        let other = endpoints.known(&after, first(&after));
        assert!(!Rc::ptr_eq(&one, &other));
        assert_eq!(one.endpoint, other.endpoint);
    }

    #[test]
    fn a_worker_sees_what_others_began() {
        let world = World::new().region("eu", Up).build();
        let endpoint = world.topology.endpoints().next().unwrap().id;
        let loads = Arc::<LoadTable>::default();
        let worker = Endpoints::new(Arc::clone(&loads), Traffic::default().shard());

        let running = loads.begin(endpoint);
        assert_eq!(worker.loads.in_flight(endpoint), 1);
        drop(running);
        assert_eq!(worker.loads.in_flight(endpoint), 0);
    }
}
