//! What is shown of the core's state: the snapshot for everyone, an overview for the admin API,
//! and what is worth remembering over a restart. Changes nothing but the generation.

use std::net::IpAddr;
use std::sync::Arc;

use sealane_model::{
    Addresses, EndpointHealth, EndpointId, Generation, Member, MemberHealth, PoolId, Snapshot,
    Timestamp, Verdict,
};

use super::traffic::limit;
use super::{Core, MemberState};
use crate::health::judged;
use crate::overrides::Override;
use crate::state::{Remembered, RememberedEndpoint, RememberedMember};

/// What the admin API shows beside the snapshot.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    pub node: Arc<str>,
    pub started_at: Timestamp,
    /// When the map that this process began with was written. `None`: it began without.
    pub restored_at: Option<Timestamp>,
    pub first_round_over: bool,
    pub overrides: Vec<Override>,
}

/// What is known of a member by its endpoints and its traffic.
pub(super) fn figures(member: &Member, state: &MemberState, now: Timestamp) -> MemberHealth {
    MemberHealth {
        standing: state.standing,
        since: state.since,
        healthy: state.tally.healthy,
        total: state.tally.total,
        suspect: state.tally.suspect,
        degraded: state.tally.degraded,
        rtt: state.tally.rtt,
        rtt_floor: state.floor.lowest(now),
        room: member
            .capacity
            .map(|_| state.demand.room(limit(member, state))),
        ..MemberHealth::default()
    }
}

impl Core {
    /// The world as it is now, with the next generation's number.
    pub fn snapshot(&mut self, now: Timestamp) -> Snapshot {
        self.now = self.now.max(now);
        self.generation = self.generation.next();
        self.compose(self.generation)
    }

    #[must_use]
    pub fn overview(&self) -> Overview {
        Overview {
            node: self.node.clone(),
            started_at: self.started_at,
            restored_at: self.restored_at,
            first_round_over: self.first_round.over,
            overrides: self.overrides.iter().cloned().collect(),
        }
    }

    /// What the next process should know.
    #[must_use]
    pub fn remembered(&self, written_at: Timestamp) -> Remembered {
        Remembered {
            written_at: Some(written_at),
            endpoints: self
                .endpoints
                .keys()
                .filter_map(|id| self.remember_endpoint(*id))
                .collect(),
            members: self.remember_members(),
            overrides: self.overrides.iter().cloned().collect(),
        }
    }

    fn compose(&self, generation: Generation) -> Snapshot {
        let endpoints = self
            .endpoints
            .keys()
            .filter_map(|id| Some((*id, self.health(*id)?)));
        let members = self.topology.pools().map(|pool| {
            let of = |member| self.member_health(pool.id, member);
            (pool.id, pool.members.iter().map(of).collect())
        });
        Snapshot::new(
            generation,
            self.now,
            self.topology.clone(),
            endpoints.collect(),
            members.collect(),
        )
        .with_learned(self.learned.clone())
    }

    fn health(&self, id: EndpointId) -> Option<EndpointHealth> {
        let effective = self.effective(id, &self.overrides)?;
        let state = self.endpoints.get(&id)?;
        Some(EndpointHealth {
            verdict: effective.verdict,
            since: effective.since,
            by: effective.by,
            cause: effective.cause,
            rtt: state.track.rtt,
            judged: judged::shown(self.now, state.judged),
            addresses: state.addresses.clone(),
        })
    }

    fn member_health(&self, pool: PoolId, member: &Member) -> MemberHealth {
        let Some(state) = self.members.get(&(pool, member.region)) else {
            return MemberHealth::default();
        };
        let pool = self.topology.pool(pool);
        let rule = pool.and_then(|pool| pool.failover.ramp.as_ref());
        let climb = state.climb.as_ref();
        MemberHealth {
            addresses: self.addresses(member),
            ramp: climb.zip(rule).and_then(|(climb, rule)| climb.shown(rule)),
            basis: state.damped.shown(),
            ..figures(member, state, self.now)
        }
    }

    /// What DNS answers for a region: as written, or its usable endpoints', or all endpoints' if
    /// none is usable (A5).
    fn addresses(&self, member: &Member) -> Arc<[IpAddr]> {
        if let Addresses::Fixed(addresses) = &member.addresses {
            return addresses.clone();
        }
        let having = |wanted: fn(Verdict) -> bool| {
            let mut addresses: Vec<IpAddr> = Vec::new();
            for id in &member.endpoints {
                let Some(state) = self.endpoints.get(id).filter(|state| wanted(state.said)) else {
                    continue;
                };
                for address in state
                    .addresses
                    .iter()
                    .map(|address| address.ip().to_canonical())
                {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
            }
            addresses
        };
        let usable = having(Verdict::is_usable);
        if usable.is_empty() {
            having(|_| true).into()
        } else {
            usable.into()
        }
    }

    fn remember_endpoint(&self, id: EndpointId) -> Option<RememberedEndpoint> {
        let endpoint = self.topology.endpoint(id)?;
        let track = &self.endpoints.get(&id)?.track;
        Some(RememberedEndpoint {
            pool: self.topology.pool(endpoint.pool)?.name.clone(),
            region: self.topology.region(endpoint.region)?.name.clone(),
            name: endpoint.name.clone(),
            verdict: track.verdict,
            since: track.since,
            cause: track.cause.clone(),
            rtt: track.rtt,
        })
    }

    fn remember_members(&self) -> Vec<RememberedMember> {
        let remember = |((pool, region), state): (&(PoolId, _), &MemberState)| {
            Some(RememberedMember {
                pool: self.topology.pool(*pool)?.name.clone(),
                region: self.topology.region(*region)?.name.clone(),
                standing: state.watch.standing(),
                since: state.since,
                rtt_floor: state.floor.lowest(self.now),
                ramp_step: state
                    .climb
                    .as_ref()
                    .map(|climb| u16::try_from(climb.step()).unwrap_or(u16::MAX)),
            })
        };
        self.members.iter().filter_map(remember).collect()
    }
}
