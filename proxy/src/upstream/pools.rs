//! What bounds the requests of each pool: places for all of it, and places in each region.
//!
//! Shared by all workers, asked by `http::overload` once a request, and changed by reloads alone. Who is
//! in stays in, whatever a reload changes. Decides nothing.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};
use metrics::{Gauge, SharedString, gauge};
use sealane_model::{PoolId, RegionId};

use super::adaptive::Adaptive;
use super::gate::{Bounds, Gate};
use crate::config::{Bulkhead, Concurrency, PoolLimits};
use crate::slots::Slots;

/// By the pool's index; one entry for each pool that ever had a bound.
#[derive(Debug, Default)]
pub(crate) struct PoolGates {
    pools: Slots<ArcSwapOption<PoolGate>>,
}

/// The bounds of one pool.
#[derive(Debug)]
pub(crate) struct PoolGate {
    rule: PoolLimits,
    pub(crate) bulkhead: Option<Arc<Gate>>,
    /// By the region's index.
    regions: Slots<Arc<RegionGate>>,
    shown: Gauges,
}

/// The places that a pool has in one region.
#[derive(Debug)]
pub(crate) struct RegionGate {
    pub(crate) places: Adaptive,
    shown: Gauges,
}

/// What is told of a gate, now and then.
pub(crate) struct Gauges {
    places: Gauge,
    taken: Gauge,
    waiting: Gauge,
}

/// Lossless: an id has 16 bits.
fn slot(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl PoolGates {
    /// `None`: nothing bounds this pool.
    pub(crate) fn get(&self, pool: PoolId) -> Option<Guard<Option<Arc<PoolGate>>>> {
        let entry = self.pools.get(slot(pool.index()))?.load();
        entry.is_some().then_some(entry)
    }

    /// Which share of the places of a region is taken; `None`: nobody bounds them.
    pub(crate) fn busy(&self, pool: PoolId, region: RegionId) -> Option<f32> {
        let gates = self.get(pool)?;
        let gate = gates.as_deref()?.regions.get(slot(region.index()))?;
        let gate = &gate.places.gate;
        Some(gate.taken() as f32 / gate.places().max(1) as f32)
    }

    /// New rules. Bounds that are the same keep what they learned.
    pub(crate) fn apply(&self, limits: &[PoolLimits]) {
        for (at, kept) in self.pools.iter() {
            let mut wanted = limits.iter().map(|limit| slot(limit.pool.index()));
            if !wanted.any(|wanted| wanted == at) {
                kept.store(None);
            }
        }
        for rule in limits {
            let at = slot(rule.pool.index());
            let entry = self.pools.get_or_make(at, ArcSwapOption::empty);
            let old = entry.load_full();
            entry.store(Some(Arc::new(PoolGate::new(rule, old.as_deref()))));
        }
    }

    /// Writes the gauges.
    pub(crate) fn show(&self) {
        for (_, pool) in self.pools.iter() {
            if let Some(pool) = pool.load_full() {
                pool.show();
            }
        }
    }
}

impl PoolGate {
    fn new(rule: &PoolLimits, old: Option<&Self>) -> Self {
        let regions = Slots::default();
        if let Some(old) = old.filter(|old| old.rule.concurrency == rule.concurrency) {
            for (at, region) in old.regions.iter() {
                regions.get_or_make(at, || Arc::clone(region));
            }
        }
        let kept = old.and_then(|old| old.bulkhead.as_ref());
        Self {
            bulkhead: keep_gate(rule.bulkhead.as_ref(), kept),
            regions,
            shown: Gauges::new("pool", &rule.name, ""),
            rule: rule.clone(),
        }
    }

    /// `None`: requests of a region are not bounded. `name`: the region's.
    pub(crate) fn region(&self, region: RegionId, name: &str) -> Option<&Arc<RegionGate>> {
        let make = || match self.rule.concurrency {
            Concurrency::Max(places) => Adaptive::fixed(places),
            Concurrency::Adaptive | Concurrency::Off => Adaptive::new(),
        };
        if self.rule.concurrency == Concurrency::Off {
            return None;
        }
        Some(self.regions.get_or_make(slot(region.index()), || {
            Arc::new(RegionGate {
                places: make(),
                shown: Gauges::new("region", &self.rule.name, name),
            })
        }))
    }

    pub(crate) fn is_adaptive(&self) -> bool {
        self.rule.concurrency == Concurrency::Adaptive
    }

    pub(crate) fn has_regions(&self) -> bool {
        self.rule.concurrency != Concurrency::Off
    }

    fn show(&self) {
        if let Some(gate) = &self.bulkhead {
            self.shown.set(gate);
        }
        for (_, region) in self.regions.iter() {
            region.shown.set(&region.places.gate);
        }
    }
}

/// The gate for this rule: the one before, with new bounds, if there was one.
pub(crate) fn keep_gate(rule: Option<&Bulkhead>, kept: Option<&Arc<Gate>>) -> Option<Arc<Gate>> {
    let rule = rule?;
    let bounds = Bounds {
        places: rule.requests,
        first: rule.requests,
        below_first: rule.requests,
        queue: rule.queue,
        wait: rule.wait,
    };
    if let Some(kept) = kept {
        kept.set(bounds);
        return Some(Arc::clone(kept));
    }
    Some(Gate::new(bounds, false))
}

impl Gauges {
    /// `of`: `pool`, `region` or `route`.
    pub(crate) fn new(of: &'static str, name: &Arc<str>, region: &str) -> Self {
        let name = || SharedString::from(Arc::clone(name));
        let region = || SharedString::from(region.to_owned());
        Self {
            places: gauge!("proxy_places", "of" => of, "name" => name(), "region" => region()),
            taken: gauge!("proxy_places_taken", "of" => of, "name" => name(), "region" => region()),
            waiting: gauge!("proxy_places_waiting", "of" => of, "name" => name(), "region" => region()),
        }
    }

    pub(crate) fn set(&self, gate: &Gate) {
        self.places.set(gate.places());
        self.taken.set(gate.taken());
        self.waiting.set(gate.waiting());
    }
}

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gauges").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::gate::Entry;
    use super::*;
    use crate::config::Tier;

    fn limits(concurrency: Concurrency, requests: Option<u32>) -> PoolLimits {
        PoolLimits {
            pool: PoolId::from_index(3).unwrap(),
            name: "api".into(),
            concurrency,
            bulkhead: requests.map(|requests| Bulkhead {
                requests,
                queue: 0,
                wait: Duration::ZERO,
            }),
        }
    }

    fn eu() -> RegionId {
        RegionId::from_index(5).unwrap()
    }

    #[test]
    fn a_pool_without_bounds_has_none() {
        let gates = PoolGates::default();
        let pool = PoolId::from_index(3).unwrap();
        assert!(gates.get(pool).is_none());

        gates.apply(&[limits(Concurrency::Off, Some(2))]);
        let gate = gates.get(pool).unwrap();
        let gate = gate.as_ref().unwrap();
        assert!(gate.region(eu(), "eu").is_none());

        gates.apply(&[]);
        assert!(gates.get(pool).is_none());
    }

    #[test]
    fn a_reload_keeps_who_is_in_and_what_was_learned() {
        let gates = PoolGates::default();
        let pool = PoolId::from_index(3).unwrap();
        let region = |gates: &PoolGates| {
            let gate = gates.get(pool).unwrap();
            Arc::clone(gate.as_ref().unwrap().region(eu(), "eu").unwrap())
        };
        let bulkhead = |gates: &PoolGates| {
            let gate = gates.get(pool).unwrap();
            Arc::clone(gate.as_ref().unwrap().bulkhead.as_ref().unwrap())
        };
        gates.apply(&[limits(Concurrency::Max(10), Some(2))]);
        let Entry::In(place) = bulkhead(&gates).enter(Tier::Second, None) else {
            panic!("no place");
        };
        let before = region(&gates);

        gates.apply(&[limits(Concurrency::Max(10), Some(5))]);
        assert!(Arc::ptr_eq(&before, &region(&gates)));
        assert_eq!(
            (bulkhead(&gates).taken(), bulkhead(&gates).places()),
            (1, 5)
        );

        gates.apply(&[limits(Concurrency::Adaptive, Some(5))]);
        assert!(!Arc::ptr_eq(&before, &region(&gates)));
        drop(place);
        assert_eq!(bulkhead(&gates).taken(), 0);
    }
}
