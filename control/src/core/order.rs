//! Following an operator's order, or refusing it before anything has changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealane_model::{OutReason, PoolId, RegionId, Standing};

use super::settle::member_of;
use super::{Core, Effects, Publish};
use crate::overrides::{Order, OrderKind, Overrides, Subject, TooManyOverrides, endpoints_of};

/// What an order did, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderReply {
    pub kind: OrderKind,
    /// The target by its proper name.
    pub subject: Subject,
    /// `pool/region/endpoint` for each endpoint meant; empty for a region.
    pub endpoints: Vec<String>,
    /// It was so before: nothing changed.
    pub already: bool,
    pub dry_run: bool,
    /// Of a dry run: why the order would be refused.
    pub refusal: Option<OrderError>,
    /// One for each pool that the target has a part in.
    pub pools: Vec<PoolEffect>,
}

/// The regions of one pool that may be chosen, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolEffect {
    pub pool: Arc<str>,
    pub before: Vec<Arc<str>>,
    pub after: Vec<Arc<str>>,
}

/// Why an order was not followed; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error("nothing is called `{target}`; regions are {}", regions.join(", "))]
    UnknownTarget {
        target: String,
        regions: Vec<String>,
    },
    #[error("pool {} would be left without any usable region", pools.join(", pool "))]
    LeavesNothing { pools: Vec<String> },
    #[error(transparent)]
    TooMany(#[from] TooManyOverrides),
    #[error("too many orders are waiting")]
    Busy,
    #[error("another process is taking over; ask again in a moment")]
    HandingOver,
    #[error("control has ended")]
    Gone,
}

/// Each pool's regions that could serve.
type Usable = BTreeMap<PoolId, Vec<RegionId>>;

impl Core {
    pub(super) fn ordered(
        &mut self,
        order: &Order,
        effects: &mut Effects,
    ) -> Result<OrderReply, OrderError> {
        let subject = self
            .overrides
            .subject(&self.topology, &order.target)
            .ok_or_else(|| self.unknown(&order.target))?;
        let mut wanted = self.overrides.clone();
        let changed = wanted.follow(self.now, order, &subject)?;
        let waived = (order.kind == OrderKind::FailBack).then_some(&subject);
        let before = self.usable_under(&self.overrides, None);
        let after = self.usable_under(&wanted, waived);

        let mut reply = self.reply(order, subject.clone(), !changed, &before, &after);
        if let Some(refusal) = self.refusal(order, changed, &before, &after) {
            if !order.dry_run {
                return Err(refusal);
            }
            reply.refusal = Some(refusal);
        }
        if !order.dry_run {
            self.follow(order, &subject, wanted, changed, effects);
        }
        Ok(reply)
    }

    fn follow(
        &mut self,
        order: &Order,
        subject: &Subject,
        wanted: Overrides,
        changed: bool,
        effects: &mut Effects,
    ) {
        self.overrides = wanted;
        if order.kind == OrderKind::FailBack {
            self.bring_back(subject, effects);
        } else {
            self.settle_all(effects);
        }
        if changed {
            effects.publish = Publish::Promptly;
            effects.remember = true;
        }
    }

    /// An operator's word needs no hold-down: a region that is asked back is back if it is well. An
    /// endpoint that is asked back spares its region the hold-down that its own return would
    /// begin, but not one that runs already: that one is about something else.
    fn bring_back(&mut self, subject: &Subject, effects: &mut Effects) {
        let region = self.region_of(subject);
        let concerned = self.members_of(&endpoints_of(&self.topology, subject));
        self.come_back(|key, held_before| {
            region == Some(key.1) || (concerned.contains(key) && !held_before)
        });
        self.settle_all(effects);
    }

    /// The regions that each pool could use if these were the overrides: those that are in, and
    /// those in hold-down, which serve when nothing else does.
    fn usable_under(&self, overrides: &Overrides, waived: Option<&Subject>) -> Usable {
        let waived_region = waived.and_then(|subject| self.region_of(subject));
        let mut usable = Usable::new();
        for ((pool, region), state) in &self.members {
            let Some((of, member)) = member_of(&self.topology, *pool, *region) else {
                continue;
            };
            let mut watch = state.watch.clone();
            watch.settle(self.now, &self.tally(member, overrides), &of.failover);
            if waived_region == Some(*region) {
                watch.waive_hold_down();
            }
            let standing = self
                .word_on_region(*region, overrides)
                .unwrap_or_else(|| watch.standing());
            let regions = usable.entry(*pool).or_default();
            if matches!(
                standing,
                Standing::In | Standing::Out(OutReason::HoldDown { .. })
            ) {
                regions.push(*region);
            }
        }
        usable
    }

    fn refusal(
        &self,
        order: &Order,
        changed: bool,
        before: &Usable,
        after: &Usable,
    ) -> Option<OrderError> {
        if order.force || !changed || order.kind == OrderKind::FailBack {
            return None;
        }
        let emptied = |pool: &PoolId| {
            before.get(pool).is_some_and(|regions| !regions.is_empty())
                && after.get(pool).is_none_or(Vec::is_empty)
        };
        let pools: Vec<_> = before
            .keys()
            .filter(|pool| emptied(pool))
            .filter_map(|pool| self.topology.pool(*pool))
            .map(|pool| pool.name.to_string())
            .collect();
        (!pools.is_empty()).then_some(OrderError::LeavesNothing { pools })
    }

    fn reply(
        &self,
        order: &Order,
        subject: Subject,
        already: bool,
        before: &Usable,
        after: &Usable,
    ) -> OrderReply {
        let endpoints = endpoints_of(&self.topology, &subject);
        let concerned = |pool: &sealane_model::Pool| match self.region_of(&subject) {
            Some(region) => pool.members.iter().any(|member| member.region == region),
            None => pool.members.iter().any(|member| {
                member
                    .endpoints
                    .iter()
                    .any(|endpoint| endpoints.contains(endpoint))
            }),
        };
        let names = |usable: &Usable, pool| -> Vec<Arc<str>> {
            let regions = usable.get(&pool).into_iter().flatten();
            regions
                .map(|region| self.topology.region_name(*region).into())
                .collect()
        };
        let pools = self
            .topology
            .pools()
            .filter(|pool| concerned(pool))
            .map(|pool| PoolEffect {
                pool: pool.name.clone(),
                before: names(before, pool.id),
                after: names(after, pool.id),
            });
        OrderReply {
            kind: order.kind,
            pools: pools.collect(),
            endpoints: endpoints.iter().map(|id| self.full_name(*id)).collect(),
            subject,
            already,
            dry_run: order.dry_run,
            refusal: None,
        }
    }

    fn region_of(&self, subject: &Subject) -> Option<RegionId> {
        match subject {
            Subject::Region(name) => self.topology.region_named(name).map(|region| region.id),
            Subject::Endpoint(_) => None,
        }
    }

    fn full_name(&self, id: sealane_model::EndpointId) -> String {
        let Some(endpoint) = self.topology.endpoint(id) else {
            return "?".to_owned();
        };
        let pool = self
            .topology
            .pool(endpoint.pool)
            .map_or("?", |pool| &pool.name);
        let region = self.topology.region_name(endpoint.region);
        format!("{pool}/{region}/{}", endpoint.name)
    }

    fn unknown(&self, target: &str) -> OrderError {
        let regions = self
            .topology
            .regions()
            .map(|region| region.name.to_string())
            .collect();
        OrderError::UnknownTarget {
            target: target.to_owned(),
            regions,
        }
    }
}
