//! Endpoints as one worker knows them: what an attempt must know of each, gathered once.
//!
//! One [`Endpoints`] a worker, so that handing an endpoint on costs no count that other workers
//! share. Asked by [`select`](super::select). Decides nothing.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use sealane_model::{
    Endpoint, EndpointId, EndpointProtocol, EndpointTls, PoolId, RegionId, Snapshot, Topology,
};

use super::load::LoadTable;

/// At most one entry for each endpoint of the topology that was seen last; what attempts still
/// hold of earlier ones goes with them.
#[derive(Debug)]
pub(crate) struct Endpoints {
    loads: Arc<LoadTable>,
    known: RefCell<OfTopology>,
}

#[derive(Debug, Default)]
struct OfTopology {
    topology: Arc<Topology>,
    by_index: Vec<Option<Rc<Known>>>,
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
    pub(crate) protocol: EndpointProtocol,
    pub(crate) tls: Option<EndpointTls>,
}

impl Endpoints {
    pub(crate) fn new(loads: Arc<LoadTable>) -> Self {
        Self {
            loads,
            known: RefCell::default(),
        }
    }

    /// Attempts of all workers that run at this endpoint now.
    pub(crate) fn in_flight(&self, endpoint: EndpointId) -> u32 {
        self.loads.in_flight(endpoint)
    }

    /// `None`: the topology has it no more.
    pub(crate) fn find(&self, world: &Snapshot, endpoint: EndpointId) -> Option<Rc<Known>> {
        let endpoint = world.topology.endpoint(endpoint)?;
        Some(self.known(world, endpoint))
    }

    pub(super) fn known(&self, world: &Snapshot, endpoint: &Endpoint) -> Rc<Known> {
        let mut known = self.known.borrow_mut();
        if !Arc::ptr_eq(&known.topology, &world.topology) {
            *known = OfTopology {
                topology: Arc::clone(&world.topology),
                by_index: Vec::new(),
            };
        }
        let at = endpoint.id.index();
        if known.by_index.len() <= at {
            known.by_index.resize(at + 1, None);
        }
        let entry = &mut known.by_index[at];
        Rc::clone(entry.get_or_insert_with(|| Rc::new(Known::new(endpoint, &world.topology))))
    }
}

impl Known {
    fn new(endpoint: &Endpoint, topology: &Topology) -> Self {
        let name_of_region = topology.region(endpoint.region);
        let name_of_pool = topology.pool(endpoint.pool);
        Self {
            pool: endpoint.pool,
            pool_name: name_of_pool.map_or_else(nameless, |pool| Arc::clone(&pool.name)),
            region: endpoint.region,
            region_name: name_of_region.map_or_else(nameless, |region| Arc::clone(&region.name)),
            endpoint: endpoint.id,
            name: Arc::clone(&endpoint.name),
            protocol: endpoint.protocol,
            tls: endpoint.tls.clone(),
        }
    }
}

fn nameless() -> Arc<str> {
    Arc::from("?")
}

#[cfg(test)]
mod tests {
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
        let endpoints = Endpoints::new(Arc::default());

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
        let worker = Endpoints::new(Arc::clone(&loads));

        let running = loads.begin(endpoint);
        assert_eq!(worker.in_flight(endpoint), 1);
        drop(running);
        assert_eq!(worker.in_flight(endpoint), 0);
    }
}
