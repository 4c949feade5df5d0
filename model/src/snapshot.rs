//! The world at one moment: what exists and what is concluded about it, immutable.
//!
//! Written by control alone, loaded by everyone else; a reader that took one never sees it change.

use std::sync::Arc;

use crate::health::{EndpointHealth, MemberHealth, Verdict};
use crate::id::{EndpointId, PoolId, RegionId};
use crate::learned::Learned;
use crate::topology::{Member, Topology};
use crate::unit::{Generation, Timestamp};

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub generation: Generation,
    pub published_at: Timestamp,
    pub topology: Arc<Topology>,
    endpoints: Vec<Option<EndpointHealth>>,
    /// By pool, then in the order of the pool's members.
    members: Vec<Vec<MemberHealth>>,
    learned: Arc<Learned>,
}

impl Snapshot {
    /// `members` holds, for each pool, one entry for each of its members in their order.
    #[must_use]
    pub fn new(
        generation: Generation,
        published_at: Timestamp,
        topology: Arc<Topology>,
        endpoints: Vec<(EndpointId, EndpointHealth)>,
        members: Vec<(PoolId, Vec<MemberHealth>)>,
    ) -> Self {
        let endpoints = crate::topology::dense(endpoints, |(id, _)| id.index())
            .into_iter()
            .map(|slot| slot.map(|(_, health)| health))
            .collect();
        let members = crate::topology::dense(members, |(id, _)| id.index())
            .into_iter()
            .map(|slot| slot.map(|(_, healths)| healths).unwrap_or_default())
            .collect();
        Self {
            generation,
            published_at,
            topology,
            endpoints,
            members,
            learned: Arc::default(),
        }
    }

    /// The same, with what was learned of clients.
    #[must_use]
    pub fn with_learned(self, learned: Arc<Learned>) -> Self {
        Self { learned, ..self }
    }

    /// What this node has learned of how far clients are.
    #[must_use]
    #[inline]
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// Each region of the pool with its health. Empty for a pool that is gone.
    pub fn members(&self, pool: PoolId) -> impl Iterator<Item = (&Member, &MemberHealth)> {
        let members = self
            .topology
            .pool(pool)
            .map_or(&[][..], |pool| &pool.members);
        let healths = self
            .members
            .get(pool.index())
            .map_or(&[][..], Vec::as_slice);
        members.iter().zip(healths)
    }

    #[must_use]
    pub fn member(&self, pool: PoolId, region: RegionId) -> Option<(&Member, &MemberHealth)> {
        self.members(pool)
            .find(|(member, _)| member.region == region)
    }

    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<&EndpointHealth> {
        self.endpoints.get(id.index())?.as_ref()
    }

    /// Total: an endpoint that this snapshot never heard of is unknown.
    #[must_use]
    pub fn verdict(&self, id: EndpointId) -> Verdict {
        self.endpoint(id)
            .map_or(Verdict::Unknown, |health| health.verdict)
    }
}
