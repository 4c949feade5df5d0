//! What live traffic brings about: room in regions, steps of a region's return, damped shares.

use std::collections::BTreeMap;

use sealane_model::{Member, Pool, PoolId, RegionId, Standing, Timestamp, TrafficCounts};

use super::settle::member_of;
use super::{Change, Core, Effects, MemberState, Publish};
use crate::cascade::{self, Left};
use crate::damping::{next_turn, turn_of};
use crate::ramp::{Climb, Progress};

/// What was counted of each region of each pool since the process began.
pub type Totals = BTreeMap<(PoolId, RegionId), TrafficCounts>;

/// A share that moves by less than this is told to the world in its own time.
const NOTABLE: f64 = 0.005;

impl Core {
    /// Does anything depend on what live traffic amounts to? Otherwise nobody need count it up.
    #[must_use]
    pub fn wants_counts(&self) -> bool {
        let climbs = self.members.values().any(|state| state.climb.is_some());
        climbs || self.topology.pools().any(has_capacity)
    }

    pub(super) fn counted(&mut self, totals: &Totals, effects: &mut Effects) {
        let (topology, now) = (self.topology.clone(), self.now);
        for pool in topology.pools() {
            for member in &pool.members {
                let key = (pool.id, member.region);
                let Some(state) = self.members.get_mut(&key) else {
                    continue;
                };
                state.counts = totals.get(&key).copied().unwrap_or_default();
                if has_capacity(pool) {
                    let limit = limit(member, state);
                    let before = state.demand.room(limit);
                    let counts = state.counts;
                    state.demand.count(now, &counts, limit);
                    note_room(before, state.demand.room(limit), effects);
                }
            }
            for member in &pool.members {
                let elsewhere = self.counted_elsewhere(pool, member.region);
                if let Some(state) = self.members.get_mut(&(pool.id, member.region))
                    && let Some(climb) = &mut state.climb
                {
                    climb.count(&state.counts, &elsewhere);
                }
            }
        }
    }

    fn counted_elsewhere(&self, pool: &Pool, region: RegionId) -> TrafficCounts {
        let others = pool.members.iter().filter(|one| one.region != region);
        let counts = others.filter_map(|one| self.members.get(&(pool.id, one.region)));
        counts.fold(TrafficCounts::default(), |sum, state| TrafficCounts {
            answered: sum.answered + state.counts.answered,
            failed: sum.failed + state.counts.failed,
            ..sum
        })
    }

    /// A region's standing changed: what it carried comes to the others at once; what comes back to
    /// it comes step by step, if it ever worked before: a first start is no return.
    pub(super) fn regard_move(
        &mut self,
        pool: &Pool,
        member: &Member,
        from: Standing,
        has_worked: bool,
    ) {
        let now = self.now;
        let key = (pool.id, member.region);
        let Some(state) = self.members.get_mut(&key) else {
            return;
        };
        match (from, state.standing) {
            (Standing::Out(_), Standing::In) => {
                let basis = basis_of(member, state, now);
                state.damped.returns(now, basis);
                let rule = pool.failover.ramp.as_ref();
                // Where there is no other region, there is nothing to hold back.
                let rule = rule.filter(|_| has_worked && is_a_choice(pool));
                state.climb = rule.map(|rule| Climb::begin(now, 0, rule));
            }
            (Standing::In, Standing::Out(_)) => {
                state.climb = None;
                let lost = state.demand.wanted();
                if has_capacity(pool) && lost > 0.0 {
                    self.brace(pool, lost);
                }
            }
            _ => {}
        }
    }

    /// Whoever is left will get what a region carried that has left: those of the lowest tier in
    /// proportion to what they have already, the others what those turn away, until that is measured.
    fn brace(&mut self, pool: &Pool, lost: f64) {
        let now = self.now;
        let left: Vec<(&Member, &MemberState)> = pool
            .members
            .iter()
            .filter(|member| member.weight.get() > 0)
            .filter_map(|member| Some((member, self.members.get(&(pool.id, member.region))?)))
            .filter(|(_, state)| state.standing == Standing::In)
            .collect();
        let lowest = left.iter().map(|(member, _)| member.priority).min();
        let serves = |member: &Member| Some(member.priority) == lowest;
        let in_lowest = || left.iter().filter(|(member, _)| serves(member));
        let has: f64 = in_lowest().map(|(_, state)| state.demand.wanted()).sum();
        #[expect(clippy::cast_precision_loss, reason = "a number of regions")]
        let equally = 1.0 / in_lowest().count().max(1) as f64;
        let asks = left.iter().map(|(member, state)| {
            let wanted = state.demand.wanted();
            let part = if has > 0.0 { wanted / has } else { equally };
            Left {
                tier: member.priority,
                first: wanted + if serves(member) { lost * part } else { 0.0 },
                room: state.demand.room_to_fill(limit(member, state)),
            }
        });
        let asked = cascade::asked(&asks.collect::<Vec<_>>());
        let braced: Vec<_> = left.iter().map(|(one, _)| one.region).zip(asked).collect();
        for (region, asked) in braced {
            if let Some(member) = pool.members.iter().find(|one| one.region == region)
                && let Some(state) = self.members.get_mut(&(pool.id, region))
            {
                let limit = limit(member, state);
                state.demand.brace(now, asked, limit);
            }
        }
    }

    pub(super) fn climb(&mut self, effects: &mut Effects) {
        if self.climb_at.is_none_or(|at| at > self.now) {
            return;
        }
        let (topology, now) = (self.topology.clone(), self.now);
        let climbing: Vec<_> = self
            .members
            .iter()
            .filter(|(_, state)| state.climb.is_some())
            .map(|(key, _)| *key)
            .collect();
        for key in climbing {
            let Some((pool, _)) = member_of(&topology, key.0, key.1) else {
                continue;
            };
            let elsewhere = self.counted_elsewhere(pool, key.1);
            let Some(state) = self.members.get_mut(&key) else {
                continue;
            };
            let (Some(climb), Some(rule)) = (&mut state.climb, &pool.failover.ramp) else {
                // A reload took the rule away.
                state.climb = None;
                effects.publish = Publish::Promptly;
                continue;
            };
            let progress = climb.look(now, rule, &state.counts, &elsewhere);
            if progress == Progress::Waits {
                continue;
            }
            if progress == Progress::Done {
                state.climb = None;
            }
            effects.changes.push(Change::Ramp {
                pool: key.0,
                region: key.1,
                step: state.climb.as_ref().and_then(|climb| climb.shown(rule)),
            });
            effects.publish = Publish::Promptly;
            effects.remember = true;
        }
        self.note_climbs();
    }

    /// When the next step of any region may end.
    pub(super) fn note_climbs(&mut self) {
        let ends = self.members.iter().filter_map(|((pool, _), state)| {
            let climb = state.climb.as_ref()?;
            let rule = self.topology.pool(*pool)?.failover.ramp.as_ref();
            // A rule that is gone is looked at at once.
            Some(rule.map_or(self.now, |rule| climb.wake_at(rule)))
        });
        self.climb_at = ends.min();
    }

    /// The next part of the clients goes by the present figures.
    pub(super) fn turn_parts(&mut self, effects: &mut Effects) {
        let (topology, now) = (self.topology.clone(), self.now);
        let turn = turn_of(now);
        if turn <= self.turned {
            return;
        }
        let from = std::mem::replace(&mut self.turned, turn) + 1;
        for pool in topology.pools().filter(|pool| is_a_choice(pool)) {
            for member in &pool.members {
                let Some(state) = self.members.get_mut(&(pool.id, member.region)) else {
                    continue;
                };
                if state.standing != Standing::In {
                    continue; // takes over the present figures when it returns
                }
                let basis = basis_of(member, state, now);
                if state.damped.turn(from, turn, basis) {
                    effects.publish = effects.publish.max(Publish::Lazily);
                }
            }
        }
    }

    pub(super) fn turn_at(&self) -> Option<Timestamp> {
        let any = self.topology.pools().any(is_a_choice);
        any.then(|| next_turn(self.now))
    }
}

/// A single region has all of the share, whatever its figures.
fn is_a_choice(pool: &Pool) -> bool {
    pool.members.len() > 1
}

fn has_capacity(pool: &Pool) -> bool {
    pool.members.iter().any(|member| member.capacity.is_some())
}

/// What the region can carry now, a second: without the endpoints that cannot be used.
pub(super) fn limit(member: &Member, state: &MemberState) -> f64 {
    let Some(capacity) = member.capacity else {
        return f64::INFINITY;
    };
    let tally = &state.tally;
    if tally.total == 0 || tally.healthy == 0 {
        return capacity.get();
    }
    capacity.get() * f64::from(tally.healthy) / f64::from(tally.total)
}

fn basis_of(member: &Member, state: &MemberState, now: Timestamp) -> sealane_model::Basis {
    super::view::figures(member, state, now).basis_now()
}

fn note_room(before: sealane_model::Room, after: sealane_model::Room, effects: &mut Effects) {
    let publish = if (before.accepts - after.accepts).abs() >= NOTABLE {
        Publish::Promptly
    } else if before == after {
        Publish::NotNeeded
    } else {
        Publish::Lazily
    };
    effects.publish = effects.publish.max(publish);
}
