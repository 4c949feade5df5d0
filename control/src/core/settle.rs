//! Bringing members and endpoints in line: with a new topology, new verdicts, the operator's word.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use sealane_model::{
    EndpointId, Member, OutReason, Pool, PoolId, RegionId, Source, Standing, Target, Timestamp,
    TrafficCounts, Verdict,
};

use super::{
    Change, Core, Effects, EndpointState, LOOKUP_PACE, MemberState, Publish, is_host, probe_pace,
};
use crate::config::Config;
use crate::damping::Damped;
use crate::demand::Demand;
use crate::failover::Watch;
use crate::health::endpoint::Track;
use crate::health::judged;
use crate::health::region::Tally;
use crate::health::rtt::Floor;
use crate::overrides::{Overrides, Wish};
use crate::ramp::Climb;
use crate::state::Remembered;

impl Core {
    /// Makes a configuration ours. What stays keeps its health; what is new starts unknown, or as
    /// remembered; what is gone is forgotten.
    pub(super) fn adopt(&mut self, config: Config, remembered: &Remembered, effects: &mut Effects) {
        let old = std::mem::replace(&mut self.topology, config.topology);
        self.node = config.node;
        self.rules = config.probes.into_iter().collect();
        self.forget_gone();
        let topology = self.topology.clone();
        for endpoint in topology.endpoints() {
            let id = endpoint.id;
            let changed = old
                .endpoint(id)
                .is_some_and(|before| before.target != endpoint.target);
            if changed {
                // Its name stayed, where it is reached did not: look anew.
                self.lookups.remove(id);
                self.probes.remove(id);
            }
            let state = self.endpoints.entry(id).or_insert_with(|| EndpointState {
                track: remembered.track(&topology, endpoint).unwrap_or_default(),
                judged: None,
                addresses: Arc::new([]),
                said: Verdict::Unknown,
            });
            match endpoint.target {
                Target::Address(address) => state.addresses = Arc::new([address]),
                Target::Host { .. } if changed => state.addresses = Arc::new([]),
                Target::Host { .. } => {}
            }
            self.arrange(id, is_host(&endpoint.target), endpoint.pool);
        }
        self.learn_by(config.learn);
        self.rebuild_members(remembered, effects);
    }

    fn forget_gone(&mut self) {
        let topology = self.topology.clone();
        let gone: Vec<_> = self
            .endpoints
            .keys()
            .copied()
            .filter(|id| topology.endpoint(*id).is_none())
            .collect();
        for id in gone {
            self.endpoints.remove(&id);
            self.probes.remove(id);
            self.lookups.remove(id);
            self.first_round.awaited.remove(&id);
            self.doubts.retain(|(_, doubted)| *doubted != id);
            self.judgements.retain(|(_, judged)| *judged != id);
        }
    }

    /// Puts the endpoint on the schedules that its pool asks for, and takes it off the others.
    fn arrange(&mut self, id: EndpointId, is_host: bool, pool: PoolId) {
        let now = self.now;
        let Some(state) = self.endpoints.get_mut(&id) else {
            return;
        };
        if is_host {
            if !self.lookups.contains(id) {
                self.lookups.add(now, id, LOOKUP_PACE);
            }
        } else {
            self.lookups.remove(id);
        }
        let resolved = !state.addresses.is_empty();
        match self.rules.get(&pool) {
            Some(probe) if resolved => self.probes.add(now, id, probe_pace(probe)),
            // Probed from its first resolution on.
            Some(_) => {}
            None => {
                self.probes.remove(id);
                if resolved {
                    // Not to be probed is the operator's word that it is up.
                    state.track.settle(now, Verdict::Up, Source::Operator);
                }
            }
        }
    }

    fn rebuild_members(&mut self, remembered: &Remembered, effects: &mut Effects) {
        let (topology, now) = (self.topology.clone(), self.now);
        let mut before = std::mem::take(&mut self.members);
        let mut members = BTreeMap::new();
        for pool in topology.pools() {
            for member in &pool.members {
                let key = (pool.id, member.region);
                let state = before.remove(&key).unwrap_or_else(|| {
                    remembered_member(now, remembered, pool, member.region, self)
                });
                members.insert(key, state);
            }
        }
        self.members = members;
        self.settle_all(effects);
    }

    /// Says anew what every endpoint and every region is: after an order, or a reload.
    pub(super) fn settle_all(&mut self, effects: &mut Effects) {
        let ids: Vec<_> = self.endpoints.keys().copied().collect();
        for id in ids {
            self.say_endpoint(id, effects);
        }
        let keys: Vec<_> = self.members.keys().copied().collect();
        for (pool, region) in keys {
            self.recount(pool, region, effects);
        }
        self.note_hold_downs();
        self.note_climbs();
    }

    /// An endpoint that is never probed is as it is told to be.
    pub(super) fn settle_unprobed(
        &mut self,
        id: EndpointId,
        verdict: Verdict,
        by: Source,
        effects: &mut Effects,
    ) {
        let (Some(state), Some(endpoint)) =
            (self.endpoints.get_mut(&id), self.topology.endpoint(id))
        else {
            return;
        };
        let (pool, region) = (endpoint.pool, endpoint.region);
        state.track.settle(self.now, verdict, by);
        self.say_endpoint(id, effects);
        self.recount(pool, region, effects);
    }

    /// Notes what is to be said of an endpoint, and whether that is new.
    pub(super) fn say_endpoint(&mut self, id: EndpointId, effects: &mut Effects) {
        let Some(now) = self.effective(id, &self.overrides) else {
            return;
        };
        let Some(state) = self.endpoints.get_mut(&id) else {
            return;
        };
        let from = std::mem::replace(&mut state.said, now.verdict);
        if from != now.verdict {
            let Effective {
                verdict: to,
                by,
                cause,
                ..
            } = now;
            effects.changes.push(Change::Verdict {
                endpoint: id,
                from,
                to,
                by,
                cause,
            });
            effects.publish = Publish::Promptly;
            effects.remember = true;
        }
    }

    /// Counts a region's endpoints anew and settles whether it is in.
    pub(super) fn recount(&mut self, pool: PoolId, region: RegionId, effects: &mut Effects) {
        let (topology, now) = (self.topology.clone(), self.now);
        let Some((pool, member)) = member_of(&topology, pool, region) else {
            return;
        };
        let tally = self.tally(member, &self.overrides);
        let word = self.word_on_region(region, &self.overrides);
        let Some(state) = self.members.get_mut(&(pool.id, region)) else {
            return;
        };
        let held_until = state.watch.wake_at();
        let has_worked = state.watch.has_worked();
        state.watch.settle(now, &tally, &pool.failover);
        if let Some(rtt) = tally.rtt {
            state.floor.record(now, rtt);
        }
        if tally != state.tally {
            effects.publish = effects.publish.max(Publish::Lazily);
        }
        state.tally = tally;
        let to = word.unwrap_or_else(|| state.watch.standing());
        let hold_down_moved = held_until != state.watch.wake_at();
        if to != state.standing {
            let from = std::mem::replace(&mut state.standing, to);
            state.since = now;
            effects.changes.push(Change::Standing {
                pool: pool.id,
                region,
                from,
                to,
            });
            effects.publish = Publish::Promptly;
            effects.remember = true;
            self.regard_move(pool, member, from, has_worked);
            self.note_climbs();
        }
        if hold_down_moved {
            self.note_hold_downs();
        }
    }

    pub(super) fn note_hold_downs(&mut self) {
        let ends = self
            .members
            .values()
            .filter_map(|member| member.watch.wake_at());
        self.hold_down_ends = ends.min();
    }

    pub(super) fn tally(&self, member: &Member, overrides: &Overrides) -> Tally {
        let states = || {
            member
                .endpoints
                .iter()
                .filter_map(|id| self.endpoints.get(id))
        };
        let degraded = states().any(|state| judged::degrades(self.now, state.judged.as_ref()));
        let known = member.endpoints.iter().filter_map(|id| {
            let effective = self.effective(*id, overrides)?;
            let state = self.endpoints.get(id)?;
            let is_out = degraded && judged::counts(self.now, state.judged.as_ref());
            let verdict = match effective.verdict {
                verdict if is_out && verdict.is_usable() => Verdict::Down,
                verdict => verdict,
            };
            Some((verdict, state.track.rtt))
        });
        Tally {
            degraded,
            ..Tally::of(known)
        }
    }

    /// What is to be said of an endpoint: the operator's word, else what was concluded.
    pub(super) fn effective(&self, id: EndpointId, overrides: &Overrides) -> Option<Effective> {
        let track = &self.endpoints.get(&id)?.track;
        let endpoint = self.topology.endpoint(id)?;
        Some(match overrides.of_endpoint(endpoint) {
            Some(word) => Effective {
                verdict: match word.wish {
                    Wish::FailedOver => Verdict::Down,
                    Wish::Draining => Verdict::Draining,
                },
                since: word.at,
                by: Source::Operator,
                cause: Some(
                    word.reason
                        .clone()
                        .unwrap_or_else(|| word.wish.as_str().into()),
                ),
            },
            None => Effective::from(track),
        })
    }

    /// The operator's word on a whole region.
    pub(super) fn word_on_region(
        &self,
        region: RegionId,
        overrides: &Overrides,
    ) -> Option<Standing> {
        let word = overrides.of_region(&self.topology.region(region)?.name)?;
        Some(Standing::Out(match word.wish {
            Wish::FailedOver => OutReason::FailedOver,
            Wish::Draining => OutReason::Draining,
        }))
    }

    /// Settles every region, and ends the hold-downs of those that `of` names, which is also told
    /// whether one ran before. Says nothing yet.
    pub(super) fn come_back(&mut self, of: impl Fn(&(PoolId, RegionId), bool) -> bool) {
        let topology = self.topology.clone();
        let keys: Vec<_> = self.members.keys().copied().collect();
        for key in keys {
            let Some((pool, member)) = member_of(&topology, key.0, key.1) else {
                continue;
            };
            let tally = self.tally(member, &self.overrides);
            let Some(state) = self.members.get_mut(&key) else {
                continue;
            };
            let held_before = state.watch.wake_at().is_some();
            state.watch.settle(self.now, &tally, &pool.failover);
            if of(&key, held_before) {
                state.watch.waive_hold_down();
            }
        }
    }

    /// Where these endpoints belong.
    pub(super) fn members_of(&self, endpoints: &[EndpointId]) -> HashSet<(PoolId, RegionId)> {
        let known = endpoints
            .iter()
            .filter_map(|id| self.topology.endpoint(*id));
        known
            .map(|endpoint| (endpoint.pool, endpoint.region))
            .collect()
    }
}

/// What is said of an endpoint.
#[derive(Debug)]
pub(super) struct Effective {
    pub(super) verdict: Verdict,
    pub(super) since: Timestamp,
    pub(super) by: Source,
    pub(super) cause: Option<Arc<str>>,
}

impl From<&Track> for Effective {
    fn from(track: &Track) -> Self {
        Self {
            verdict: track.verdict,
            since: track.since,
            by: track.by,
            cause: track.cause.clone(),
        }
    }
}

pub(super) fn member_of(
    topology: &sealane_model::Topology,
    pool: PoolId,
    region: RegionId,
) -> Option<(&Pool, &Member)> {
    let pool = topology.pool(pool)?;
    let member = pool.members.iter().find(|member| member.region == region)?;
    Some((pool, member))
}

fn remembered_member(
    now: Timestamp,
    remembered: &Remembered,
    pool: &Pool,
    region: RegionId,
    core: &Core,
) -> MemberState {
    let known = remembered.member(&pool.name, core.topology.region_name(region));
    let mut floor = Floor::default();
    if let Some(rtt) = known.and_then(|known| known.rtt_floor) {
        floor.record(now, rtt);
    }
    MemberState {
        watch: known.map_or_else(Watch::default, |known| {
            Watch::restored(now, known.standing, &pool.failover)
        }),
        tally: Tally::default(),
        floor,
        standing: known.map_or(Standing::In, |known| known.standing),
        since: known.map_or(now, |known| known.since),
        counts: TrafficCounts::default(),
        demand: Demand::default(),
        damped: Damped::new(now),
        climb: known
            .and_then(|known| known.ramp_step)
            .zip(pool.failover.ramp.as_ref())
            .map(|(step, rule)| Climb::begin(now, usize::from(step), rule)),
    }
}
