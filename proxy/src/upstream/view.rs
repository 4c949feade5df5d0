//! What may be chosen from in one region of a pool, as one worker sees it: made once for each world,
//! so that a request looks at no verdict, address or zone of endpoints that it does not draw.
//!
//! Kept by [`Endpoints`](super::Endpoints), read by [`select`](super::select). Decides nothing.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sealane_model::{Endpoint, Generation, Member, Snapshot, Target, Verdict};
use sealane_steering::Standard;
use smallvec::SmallVec;

use super::account::Group;
use super::balance::Entry;
use super::known::Known;
use super::mark::Mark;
use super::ring::Ring;
use crate::config::{BalancePolicy, Balancing};

/// What a weight of 1 is here, so that shares of it are whole numbers.
pub(crate) const WEIGHT_UNIT: u32 = 100;
/// An endpoint that just came up has this share of its weight: to warm up it must be used.
const WARM_MIN: f32 = 0.1;

/// In the order of the member's endpoints, those with an address.
#[derive(Debug)]
pub(crate) struct View {
    generation: Generation,
    pub(crate) balancing: Arc<Balancing>,
    pub(crate) group: Rc<Group>,
    /// How well an endpoint must be to be chosen.
    pub(crate) standard: Standard,
    pub(crate) candidates: Vec<Candidate>,
    /// Those that meet the standard, at their whole weight; those in our own zone first.
    pub(crate) open: Vec<Entry>,
    /// How many of `open` are in our own zone, if it is not all or none.
    pub(crate) local: usize,
    /// Too few meet the standard: all are in `open`.
    pub(crate) panic: bool,
    /// The last warm-up ends then.
    warm_until: u64,
    ring: OnceCell<Rc<Ring>>,
}

#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) known: Rc<Known>,
    pub(crate) verdict: Verdict,
    pub(crate) is_local: bool,
    weight: u32,
    /// When it came up.
    warm_from: Option<u64>,
    addresses: SmallVec<[SocketAddr; 1]>,
}

impl View {
    pub(super) fn new(
        world: &Snapshot,
        member: &Member,
        balancing: &Arc<Balancing>,
        group: &Rc<Group>,
        earlier: Option<&Self>,
        now: u64,
        known: impl Fn(&Endpoint) -> Rc<Known>,
    ) -> Self {
        group.rule.set(balancing.ejection);
        group.slow_start.set(balancing.slow_start);
        let standard = Standard::of(member, world);
        let mut candidates = Vec::new();
        for id in &member.endpoints {
            let Some(endpoint) = world.topology.endpoint(*id) else {
                continue;
            };
            let addresses = addresses(world, endpoint);
            if addresses.is_empty() {
                continue;
            }
            let warm_from = earlier.and_then(|earlier| {
                let slow_start = balancing.slow_start;
                earlier.warm_from(world, endpoint, now, slow_start)
            });
            candidates.push(Candidate {
                known: known(endpoint),
                verdict: world.verdict(*id),
                is_local: is_local(endpoint, balancing),
                weight: endpoint.weight.get(),
                warm_from,
                addresses,
            });
        }
        let (open, local, panic) = open(&candidates, standard, balancing);
        let slow_start = u64::try_from(balancing.slow_start.as_millis()).unwrap_or(u64::MAX);
        let warm_from = candidates.iter().filter_map(|one| one.warm_from).max();
        Self {
            generation: world.generation,
            balancing: Arc::clone(balancing),
            group: Rc::clone(group),
            standard,
            candidates,
            open,
            local,
            panic,
            warm_until: warm_from.map_or(0, |from| from.saturating_add(slow_start)),
            ring: OnceCell::new(),
        }
        .with_ring_of(earlier)
    }

    /// A ring of the same endpoints is the same ring.
    fn with_ring_of(mut self, earlier: Option<&Self>) -> Self {
        let is_same = |earlier: &&Self| {
            let places = |view: &Self| -> Vec<_> {
                let all = view.candidates.iter();
                all.map(|one| (one.known.endpoint, one.weight)).collect()
            };
            earlier.ring.get().is_some() && places(earlier) == places(&self)
        };
        if let Some(earlier) = earlier.filter(is_same) {
            self.ring = earlier.ring.clone();
        }
        self
    }

    pub(super) fn holds(&self, world: &Snapshot, balancing: &Arc<Balancing>) -> bool {
        self.generation == world.generation && Arc::ptr_eq(&self.balancing, balancing)
    }

    /// When an endpoint that is up began to warm up, where `self` is the view before. It came up if it
    /// was not up then, or not there; what a worker finds in its first view has been up for who knows
    /// how long.
    fn warm_from(
        &self,
        world: &Snapshot,
        endpoint: &Endpoint,
        now: u64,
        slow_start: Duration,
    ) -> Option<u64> {
        let is_up = |verdict: Verdict| matches!(verdict, Verdict::Up | Verdict::Suspect);
        if !is_up(world.verdict(endpoint.id)) || slow_start.is_zero() {
            return None;
        }
        let mut candidates = self.candidates.iter();
        let before = candidates.find(|one| one.known.endpoint == endpoint.id);
        let Some(before) =
            before.filter(|one| is_up(one.verdict) || one.verdict == Verdict::Draining)
        else {
            return Some(now);
        };
        let slow_start = u64::try_from(slow_start.as_millis()).ok()?;
        let from = before.warm_from?;
        (now < from.saturating_add(slow_start)).then_some(from)
    }

    pub(super) fn is_warming(&self, now: u64) -> bool {
        now < self.warm_until
    }

    /// A candidate's share, warming up and cut.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a weight, which has 20 bits"
    )]
    pub(super) fn weight(&self, candidate: &Candidate, now: u64, mark: Mark) -> u32 {
        let (percent, warm_from) = match mark {
            Mark::Less { percent, warm_from } => (percent, warm_from),
            Mark::Plain | Mark::Out { .. } | Mark::Trial { .. } => (100, None),
        };
        let whole = candidate.weight * WEIGHT_UNIT;
        let from = candidate.warm_from.max(warm_from);
        let warm = from.map_or(1.0, |from| {
            let slow_start = self.balancing.slow_start.as_secs_f32() * 1e3;
            let passed = now.saturating_sub(from) as f32;
            (passed / slow_start).clamp(WARM_MIN, 1.0)
        });
        let share = warm * f32::from(percent) / 100.0;
        ((whole as f32 * share) as u32).max(u32::from(whole > 0))
    }

    /// Of all that have an address, whatever their health: it is walked past those that may not be
    /// chosen, so that their keys alone go elsewhere.
    pub(super) fn ring(&self) -> &Ring {
        self.ring.get_or_init(|| {
            let endpoints = self.candidates.iter();
            Rc::new(Ring::new(
                endpoints.map(|one| (&*one.known.name, one.weight)),
            ))
        })
    }
}

impl Candidate {
    pub(super) const fn weight(&self) -> u32 {
        self.weight
    }

    /// One of the addresses that it has now.
    pub(super) fn address(&self, random: u64) -> Option<SocketAddr> {
        // The high half: the low one took part in picking the endpoint.
        let at = (random >> 32) % self.addresses.len().max(1) as u64;
        self.addresses.get(usize::try_from(at).ok()?).copied()
    }
}

fn open(
    candidates: &[Candidate],
    standard: Standard,
    balancing: &Balancing,
) -> (Vec<Entry>, usize, bool) {
    let undrained = |one: &Candidate| one.verdict != Verdict::Draining;
    let all = candidates.iter().filter(|one| undrained(one)).count();
    let met = candidates
        .iter()
        .filter(|one| standard.takes(one.verdict))
        .count();
    #[expect(clippy::cast_precision_loss, reason = "a number of endpoints")]
    let panic = standard != Standard::None
        && met < all
        && (met as f64) < balancing.panic.get() * all as f64;
    let is_open = |one: &Candidate| {
        if panic {
            undrained(one)
        } else {
            standard.takes(one.verdict)
        }
    };
    let entries = |local: bool| {
        let all = (0..).zip(candidates);
        all.filter(move |(_, one)| one.is_local == local && is_open(one))
            .map(|(at, one)| Entry {
                at,
                weight: one.weight * WEIGHT_UNIT,
            })
    };
    let mut open: Vec<Entry> = entries(true).collect();
    let local = open.len();
    open.extend(entries(false));
    let is_split = local > 0 && local < open.len();
    (open, if is_split { local } else { 0 }, panic)
}

/// Keys keep to their endpoints whatever zone those are in.
fn is_local(endpoint: &Endpoint, balancing: &Balancing) -> bool {
    let by_key = matches!(balancing.policy, BalancePolicy::RingHash(_));
    let here = balancing.local.as_ref().filter(|_| !by_key);
    here.is_some_and(|here| {
        here.region == endpoint.region && endpoint.az.as_ref() == Some(&here.az)
    })
}

/// A literal address needs no word from control.
fn addresses(world: &Snapshot, endpoint: &Endpoint) -> SmallVec<[SocketAddr; 1]> {
    let known = world
        .endpoint(endpoint.id)
        .map_or(&[][..], |health| &health.addresses);
    if !known.is_empty() {
        return known.into();
    }
    match endpoint.target {
        Target::Address(address) => [address].into_iter().collect(),
        Target::Host { .. } => SmallVec::new(),
    }
}
