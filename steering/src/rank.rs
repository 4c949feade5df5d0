//! The decision: in which order should this client try the regions of a pool?
//!
//! Called once per attempt by the proxy, once per steered question by DNS and once per `explain`
//! by the admin API. Pure: no clock, no randomness but the key it is handed, no state.

mod admission;

pub use admission::Entry;

use std::cmp::Ordering;
use std::time::Duration;

use sealane_model::{
    AllDown, Basis, Correction, Lesson, Location, Member, MemberHealth, OutReason, PoolId,
    RegionId, ScopePrefix, Snapshot, Standing,
};
use smallvec::SmallVec;

use crate::place::{ClientPlace, How};
use crate::policy::SteeringPolicy;
use crate::reason::Reason;

/// Everything a ranking depends on besides the world.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub pool: PoolId,
    pub policy: &'a SteeringPolicy,
    pub place: &'a ClientPlace,
    /// What weighted choices are drawn from: the client's network where choices should stick
    /// ([`ClientPlace::key`]), a fresh number for each request where they should spread.
    pub key: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    regions: SmallVec<[RegionId; 8]>,
    pub reason: Reason,
    /// The leading bits of the client's address for which this order holds, as far as it depends
    /// on where the client is and on a key from [`ClientPlace::key`]. 0 = for everyone. (From
    /// which region somebody failed over may differ where the order does not.)
    pub scope: ScopePrefix,
    /// One of the pool's regions is in doubt: whoever keeps this ranking should keep it briefly.
    pub suspect: bool,
}

impl Ranking {
    /// Best first. Empty only for [`Reason::NoData`], [`Reason::Fallback`], [`Reason::NoMembers`].
    pub fn regions(&self) -> impl Iterator<Item = RegionId> + '_ {
        self.regions.iter().copied()
    }

    #[must_use]
    pub fn first(&self) -> Option<RegionId> {
        self.regions.first().copied()
    }
}

/// Orders the pool's regions for one client.
#[must_use]
pub fn rank(ask: &Ask<'_>, world: &Snapshot) -> Ranking {
    evaluate(ask, world, &mut Candidates::new())
}

/// The same decision with everything that led to it.
#[must_use]
pub fn explain(ask: &Ask<'_>, world: &Snapshot) -> Explanation {
    let mut candidates = Candidates::new();
    let ranking = evaluate(ask, world, &mut candidates);
    for candidate in &mut candidates {
        let mut regions = ranking.regions();
        candidate.position = regions.position(|region| region == candidate.region);
    }
    if moves(ask.policy, ask.pool, world) {
        draw_shares(ask, world, &mut candidates);
    } else {
        set_shares(ask, &mut candidates, ranking.first());
    }
    Explanation {
        ranking,
        candidates: candidates.into_vec(),
    }
}

#[derive(Clone, Debug)]
pub struct Explanation {
    pub ranking: Ranking,
    /// One for each member, in the order of the file.
    pub candidates: Vec<Candidate>,
}

/// One region with the numbers that placed it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    pub region: RegionId,
    pub standing: Standing,
    pub tier: u16,
    /// The region's weight in the pool, times the policy's.
    pub weight: f64,
    pub healthy: u32,
    pub total: u32,
    /// What latency this client is expected to see, and from what that is concluded.
    pub latency_ms: f64,
    pub basis: LatencyBasis,
    /// Near enough to share in a weighted choice (always true where latency plays no part).
    pub in_band: bool,
    /// The free part of its capacity that the choice goes by, 0–1; 1 where there is no limit.
    pub free: f64,
    /// The share of those who choose it that it has room for, 0–1.
    pub accepts: f64,
    /// The share that it is given while it returns step by step, 0–1.
    pub ramp: f64,
    /// What it says to this key, with regard to these two.
    pub entry: Entry,
    /// An operator's rule keeps this client from it.
    pub fenced: bool,
    /// The share of clients like this one that this region gets, 0–1.
    pub share: f64,
    /// 0 = the winner. `None`: not in the ranking.
    pub position: Option<usize>,
    draw: f64,
    usable: bool,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatencyBasis {
    /// The operator said that the client belongs here.
    Assigned,
    /// Great-circle distance, plus what probes saw above their floor.
    Distance,
    /// The same, with what connections of the client's network have taught this node.
    Learned,
    /// Probe round trips from this node: the client's own place is unknown.
    Measured,
    /// Nothing is known.
    Unknown,
}

impl LatencyBasis {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Distance => "distance",
            Self::Learned => "learned",
            Self::Measured => "measured",
            Self::Unknown => "unknown",
        }
    }
}

/// How strongly latency outweighs: share ∝ weight · health · free capacity / latency^this.
pub const LATENCY_EXPONENT: i32 = 2;
/// Latencies below this count as this: differences that no user sees must not move traffic.
pub const LATENCY_FLOOR_MS: f64 = 5.0;
/// A region shares in the choice up to this factor of the best latency, or …
pub const BAND_FACTOR: f64 = 1.25;
/// … this much above it, whichever is more.
pub const BAND_EXTRA_MS: f64 = 20.0;
/// Round-trip milliseconds per kilometre: light in fibre takes 0.01, real paths are some 40 %
/// longer than the great circle.
pub const RTT_MS_PER_KM: f64 = 0.014;
/// Added for a region whose distance cannot be told, so that it comes after all that can.
const FAR_AWAY_MS: f64 = 1_000.0;

type Candidates = SmallVec<[Candidate; 8]>;

/// `candidates`: empty; holds one for each member afterwards. What only people want to know of them
/// (position, share) is left to [`explain`].
fn evaluate(ask: &Ask<'_>, world: &Snapshot, candidates: &mut Candidates) -> Ranking {
    let lesson = lesson(ask.policy, ask.place, world);
    let from = Viewpoint::of(ask.place, lesson, world);
    let fence = ask.policy.fences().and_then(|f| f.of(ask.place.address));
    let mut suspect = false;
    let mut turned_away = false;
    let mut changing_over = false;
    for (member, health) in world.members(ask.pool) {
        let mut candidate = weigh(ask, world, &from, member, health);
        candidate.fenced = fence.is_some_and(|fence| !fence.lets_in(member.region));
        if !candidate.fenced {
            let turns_away = health.turns_away();
            turned_away |= turns_away;
            changing_over |= health.basis.len() > 1;
            // What is in motion should not be kept for long either.
            suspect |= health.suspect || turns_away;
        }
        candidates.push(candidate);
    }
    let (regions, reason) = ordered(ask, world, candidates);
    let (regions, reason) = if turned_away {
        admission::by_room(ask.key, candidates, regions, reason)
    } else {
        (regions, reason)
    };
    let reason = match reason {
        // The rule decided, wherever it left something to decide.
        reason if fence.is_some() && reason == by_policy(ask) => Reason::Confined,
        reason => reason,
    };
    Ranking {
        scope: scope(ask, candidates, lesson, turned_away, changing_over),
        regions,
        reason,
        suspect,
    }
}

fn ordered(
    ask: &Ask<'_>,
    world: &Snapshot,
    candidates: &mut Candidates,
) -> (SmallVec<[RegionId; 8]>, Reason) {
    let exists = |c: &Candidate| c.standing != Standing::Out(OutReason::Empty);
    let is_out = |c: &Candidate| c.standing != Standing::In;
    let mut all = candidates.iter();
    let some_are_out = all.any(|c| exists(c) && !c.fenced && is_out(c));
    // What the policy would choose; on most days that is what is usable too.
    let wished = order(ask, candidates, exists);
    let Some(first_wish) = wished.first().copied() else {
        return (wished, Reason::NoMembers);
    };
    if !some_are_out {
        return (wished, by_policy(ask));
    }
    let panics = panics(ask, world, candidates);
    let usable = order(ask, candidates, |c| {
        c.standing == Standing::In || (panics && still_works(c))
    });
    if let Some(first) = usable.first() {
        let reason = if candidates.iter().any(|c| c.region == *first && is_out(c)) {
            Reason::Panic
        } else if *first == first_wish {
            by_policy(ask)
        } else {
            Reason::FailedOver { from: first_wish }
        };
        return (usable, reason);
    }
    when_none_is_usable(ask, world, candidates)
}

/// Is so little usable, of all that is not taken out by an operator, that regions which are out for
/// their failures are better than the crowd on the others?
fn panics(ask: &Ask<'_>, world: &Snapshot, candidates: &Candidates) -> bool {
    let pool = world.topology.pool(ask.pool);
    let threshold = pool.map_or(0.0, |pool| pool.failover.panic.get());
    if threshold <= 0.0 {
        return false;
    }
    let (mut usable, mut all) = (0.0, 0.0);
    for one in candidates.iter().filter(|one| !one.fenced) {
        match one.standing {
            Standing::In => usable += f64::from(one.healthy),
            Standing::Out(OutReason::Failed | OutReason::HoldDown { .. }) => {}
            Standing::Out(_) => continue,
        }
        all += f64::from(one.total);
    }
    usable < threshold * all
}

fn still_works(candidate: &Candidate) -> bool {
    let failed = matches!(
        candidate.standing,
        Standing::Out(OutReason::Failed | OutReason::HoldDown { .. })
    );
    failed && candidate.healthy > 0
}

fn when_none_is_usable(
    ask: &Ask<'_>,
    world: &Snapshot,
    candidates: &mut Candidates,
) -> (SmallVec<[RegionId; 8]>, Reason) {
    let held = |c: &Candidate| matches!(c.standing, Standing::Out(OutReason::HoldDown { .. }));
    let well_but_held = order(ask, candidates, held);
    if !well_but_held.is_empty() {
        return (well_but_held, Reason::HoldDownIgnored);
    }
    let of_pool = || Some(&world.topology.pool(ask.pool)?.failover.all_down);
    match ask.policy.all_down().or_else(of_pool) {
        Some(AllDown::NoData) => (SmallVec::new(), Reason::NoData),
        Some(AllDown::Fallback(_)) => (SmallVec::new(), Reason::Fallback),
        Some(AllDown::FailOpen) | None => (fail_open(ask, candidates), Reason::AllDown),
    }
}

/// As if all were well; what the operator took out comes last even then.
fn fail_open(ask: &Ask<'_>, candidates: &mut Candidates) -> SmallVec<[RegionId; 8]> {
    let mut regions = order(ask, candidates, |c| {
        c.standing == Standing::Out(OutReason::Failed)
    });
    let by_operator = |c: &Candidate| {
        matches!(
            c.standing,
            Standing::Out(OutReason::FailedOver | OutReason::Draining)
        )
    };
    if regions.is_empty() {
        regions = order(ask, candidates, by_operator);
    }
    regions
}

fn by_policy(ask: &Ask<'_>) -> Reason {
    match ask.policy.order() {
        SteeringPolicy::WeightedLatency(_) => Reason::WeightedLatency,
        SteeringPolicy::Nearest => Reason::Nearest,
        SteeringPolicy::Weighted(_) => Reason::Weighted,
        SteeringPolicy::Priority => Reason::Priority,
        SteeringPolicy::Pinned(_) => Reason::Pinned,
        SteeringPolicy::Within(_) => Reason::Confined,
    }
}

fn weigh(
    ask: &Ask<'_>,
    world: &Snapshot,
    from: &Viewpoint,
    member: &Member,
    health: &MemberHealth,
) -> Candidate {
    let region = world.topology.region(member.region);
    let location = region.and_then(|region| region.location);
    let by = basis_for(ask, health);
    let (latency_ms, basis) = from.latency(member.region, location, &by);
    let policy_weight = f64::from(ask.policy.weight(member.region).get());
    let seed = region.map_or(0, |region| region.seed);
    Candidate {
        region: member.region,
        standing: health.standing,
        tier: member.priority,
        weight: f64::from(member.weight.get()) * policy_weight,
        healthy: health.healthy,
        total: health.total,
        latency_ms,
        basis,
        in_band: true,
        free: by.free,
        accepts: health.room.map_or(1.0, |room| room.accepts),
        ramp: health.ramp.map_or(1.0, |ramp| ramp.share),
        entry: Entry::Takes,
        fenced: false,
        share: 0.0,
        position: None,
        draw: uniform(ask.key, seed),
        usable: false,
        seed,
    }
}

/// What this key's weighted choice goes by: keys change over to new figures one part after another,
/// so that no share jumps. Choices by latency alone go by the present figures.
fn basis_for(ask: &Ask<'_>, health: &MemberHealth) -> Basis {
    /// Which part a key belongs to has nothing to do with where it is drawn to.
    const SEED: u64 = 0x7061_7274_6f66_6b65;
    match (ask.policy.order(), &*health.basis) {
        (SteeringPolicy::WeightedLatency(_), [one]) => *one,
        (SteeringPolicy::WeightedLatency(_), parts @ [.., last]) => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "parts are few, and the number lies between 0 and 1"
            )]
            let part = (uniform(ask.key, SEED) * parts.len() as f64) as usize;
            *parts.get(part).unwrap_or(last)
        }
        _ => health.basis_now(),
    }
}

/// What is learned of this client, where that plays a part: not against the operator's word, and not where latency
/// does not count. Whoever keeps rankings must keep them by this.
#[must_use]
#[inline]
pub fn lesson(policy: &SteeringPolicy, place: &ClientPlace, world: &Snapshot) -> Lesson {
    let learned = world.learned();
    if learned.is_empty()
        || place.region.is_some()
        || matches!(policy.order(), SteeringPolicy::Weighted(_))
    {
        return Lesson::default();
    }
    learned.of(place.address)
}

/// From where the client looks at the regions.
struct Viewpoint {
    assigned: Option<RegionId>,
    location: Option<Location>,
    /// The region whose distance was corrected, and what comes on top of it, in milliseconds.
    corrected: Option<(RegionId, f64)>,
}

impl Viewpoint {
    fn of(place: &ClientPlace, lesson: Lesson, world: &Snapshot) -> Self {
        let location_of = |id: RegionId| world.topology.region(id).and_then(|r| r.location);
        let mut location = place.region.and_then(location_of).or(place.location);
        let home = world.learned().region();
        let corrected = match (lesson.correction, home) {
            (Some(Correction::Near), Some(home)) => {
                location = location_of(home).or(location);
                Some((home, 0.0))
            }
            // Whoever is connected here has gone the long way already.
            (Some(Correction::Slower { milliseconds }), Some(home))
                if place.how != How::Connection =>
            {
                Some((home, f64::from(milliseconds)))
            }
            _ => None,
        };
        Self {
            assigned: place.region,
            location,
            corrected,
        }
    }

    /// The latency that this client would see at this region, in milliseconds.
    fn latency(
        &self,
        region: RegionId,
        location: Option<Location>,
        by: &Basis,
    ) -> (f64, LatencyBasis) {
        let millis = |d: Duration| d.as_secs_f64() * 1e3;
        let excess = match (by.rtt, by.rtt_floor) {
            (Some(rtt), Some(floor)) if rtt > floor => millis(rtt - floor),
            _ => 0.0,
        };
        if self.assigned == Some(region) {
            return (excess, LatencyBasis::Assigned);
        }
        match (self.location, location) {
            (Some(from), Some(to)) => {
                let distance = from.kilometres_to(to) * RTT_MS_PER_KM + excess;
                match self.corrected {
                    Some((corrected, more)) if corrected == region => {
                        (distance + more, LatencyBasis::Learned)
                    }
                    _ => (distance, LatencyBasis::Distance),
                }
            }
            (Some(_), None) => (FAR_AWAY_MS + excess, LatencyBasis::Unknown),
            (None, _) if self.assigned.is_some() => (FAR_AWAY_MS + excess, LatencyBasis::Unknown),
            (None, _) => match by.rtt {
                Some(rtt) => (millis(rtt), LatencyBasis::Measured),
                None => (0.0, LatencyBasis::Unknown),
            },
        }
    }
}

/// Orders those that `wanted` lets through, tier by tier, and notes who they are and who is near.
fn order(
    ask: &Ask<'_>,
    candidates: &mut Candidates,
    wanted: impl Fn(&Candidate) -> bool,
) -> SmallVec<[RegionId; 8]> {
    for candidate in candidates.iter_mut() {
        candidate.usable = !candidate.fenced && wanted(candidate);
    }
    if let SteeringPolicy::WeightedLatency(_) = ask.policy.order() {
        note_band(candidates);
    }
    let usable = || candidates.iter().filter(|candidate| candidate.usable);
    // A single one has nobody to be drawn against.
    let many_drawn = usable().filter(|one| is_drawn(ask, one)).nth(1).is_some();
    let mut order: SmallVec<[(Precedence, RegionId); 8]> = usable()
        .map(|one| (precedence(ask, one, many_drawn), one.region))
        .collect();
    order.sort_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    order.iter().map(|(_, region)| *region).collect()
}

/// Near enough is measured from the best of the tier that serves.
fn note_band(candidates: &mut Candidates) {
    let tier = first_tier(candidates);
    let best_ms = candidates
        .iter()
        .filter(|c| c.usable && c.tier == tier && c.weight > 0.0)
        .fold(f64::INFINITY, |best, c| best.min(c.latency_ms));
    let band_ms = (best_ms * BAND_FACTOR).max(best_ms + BAND_EXTRA_MS);
    for candidate in candidates {
        candidate.in_band = candidate.latency_ms <= band_ms;
    }
}

/// The tier that serves: the lowest one with something usable that weighs something.
fn first_tier(candidates: &Candidates) -> u16 {
    let usable = candidates.iter().filter(|c| c.usable && c.weight > 0.0);
    usable.map(|c| c.tier).min().unwrap_or(u16::MAX)
}

type Precedence = (bool, u16, bool, f64);

/// Sorts ascending: what weighs nothing last, then by tier, then as the policy says. Equal ones
/// keep the order of the file. `many_drawn`: more than one is drawn.
fn precedence(ask: &Ask<'_>, candidate: &Candidate, many_drawn: bool) -> Precedence {
    let not_wanted = candidate.weight <= 0.0;
    let (class, rank) = match ask.policy.order() {
        _ if is_drawn(ask, candidate) && many_drawn => (false, turn(ask, candidate)),
        _ if is_drawn(ask, candidate) => (false, 0.0),
        SteeringPolicy::WeightedLatency(_) => (true, candidate.latency_ms),
        SteeringPolicy::Weighted(_) => (true, 0.0),
        SteeringPolicy::Nearest | SteeringPolicy::Priority => (false, candidate.latency_ms),
        SteeringPolicy::Pinned(region) => (*region != candidate.region, candidate.latency_ms),
        SteeringPolicy::Within(_) => (false, 0.0), // never the order itself
    };
    // A pinned region serves whatever its tier.
    let tier = match ask.policy.order() {
        SteeringPolicy::Pinned(region) if *region == candidate.region => 0,
        _ => candidate.tier,
    };
    (not_wanted, tier, class, rank)
}

/// Is its place among those of its tier drawn by the key? Without weight there is nothing to draw.
fn is_drawn(ask: &Ask<'_>, candidate: &Candidate) -> bool {
    candidate.weight > 0.0
        && match ask.policy.order() {
            SteeringPolicy::WeightedLatency(_) => candidate.in_band,
            SteeringPolicy::Weighted(_) => true,
            SteeringPolicy::Nearest
            | SteeringPolicy::Priority
            | SteeringPolicy::Pinned(_)
            | SteeringPolicy::Within(_) => false,
        }
}

/// Weighted rendezvous hashing: an exponential arrival time at a rate of the region's appeal. The
/// first to arrive wins with probability appeal ÷ sum, and one region's change moves only its own
/// share (Thaler & Ravishankar 1998; weighted form by Schindelhauer & Schomaker 2005).
fn turn(ask: &Ask<'_>, candidate: &Candidate) -> f64 {
    -candidate.draw.ln() / appeal(ask, candidate).max(f64::MIN_POSITIVE)
}

/// What a region's share is proportional to.
fn appeal(ask: &Ask<'_>, candidate: &Candidate) -> f64 {
    match ask.policy.order() {
        SteeringPolicy::WeightedLatency(_) => {
            let latency = candidate
                .latency_ms
                .max(LATENCY_FLOOR_MS)
                .powi(LATENCY_EXPONENT);
            candidate.weight * health(candidate) * candidate.free / latency
        }
        _ => candidate.weight,
    }
}

/// The usable part of the region, 0–1; 1 while nothing is known, and when health is ignored.
fn health(candidate: &Candidate) -> f64 {
    if candidate.total == 0 || candidate.healthy == 0 {
        return 1.0;
    }
    f64::from(candidate.healthy) / f64::from(candidate.total)
}

/// Does the order depend on [`Ask::key`], for some clients at least? Whoever keeps rankings must keep
/// them by key then.
#[must_use]
pub fn depends_on_key(policy: &SteeringPolicy, pool: PoolId, world: &Snapshot) -> bool {
    let is_drawn = matches!(
        policy.order(),
        SteeringPolicy::WeightedLatency(_) | SteeringPolicy::Weighted(_)
    );
    is_drawn || moves(policy, pool, world)
}

/// Are keys turned away by a region, or changing over to new figures?
fn moves(policy: &SteeringPolicy, pool: PoolId, world: &Snapshot) -> bool {
    let by_latency = matches!(policy.order(), SteeringPolicy::WeightedLatency(_));
    let mut members = world.members(pool);
    members.any(|(_, health)| health.turns_away() || (by_latency && health.basis.len() > 1))
}

/// Keys that shares are counted over where no formula has them: to about a point.
const KEYS_COUNTED: u32 = 4_096;

/// The shares as they come out, counted.
fn draw_shares(ask: &Ask<'_>, world: &Snapshot, candidates: &mut Candidates) {
    let mut counted: SmallVec<[u32; 8]> = candidates.iter().map(|_| 0).collect();
    for number in 0..KEYS_COUNTED {
        let key = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let ranking = evaluate(&Ask { key, ..*ask }, world, &mut Candidates::new());
        let first = ranking.first();
        let place = candidates.iter().position(|one| Some(one.region) == first);
        if let Some(count) = place.and_then(|place| counted.get_mut(place)) {
            *count += 1;
        }
    }
    for (candidate, count) in candidates.iter_mut().zip(counted) {
        candidate.share = f64::from(count) / f64::from(KEYS_COUNTED);
    }
}

fn set_shares(ask: &Ask<'_>, candidates: &mut Candidates, winner: Option<RegionId>) {
    let weighted = matches!(
        ask.policy.order(),
        SteeringPolicy::WeightedLatency(_) | SteeringPolicy::Weighted(_)
    );
    let tier = first_tier(candidates);
    let takes_part = |c: &Candidate| c.usable && c.in_band && c.tier == tier && c.weight > 0.0;
    let sum: f64 = candidates
        .iter()
        .filter(|c| takes_part(c))
        .map(|c| appeal(ask, c))
        .sum();
    for candidate in candidates {
        candidate.share = if !weighted || sum <= 0.0 {
            f64::from(u8::from(winner == Some(candidate.region)))
        } else if takes_part(candidate) {
            appeal(ask, candidate) / sum
        } else {
            0.0
        };
    }
}

/// For whom the order holds: nobody's place matters where there is nothing to choose from, and
/// nobody's key where no two are drawn against each other.
fn scope(
    ask: &Ask<'_>,
    candidates: &Candidates,
    lesson: Lesson,
    turned_away: bool,
    changing_over: bool,
) -> ScopePrefix {
    let by_fence = ask.policy.fences().map_or(ScopePrefix::EVERYONE, |fences| {
        fences.scope(ask.place.address)
    });
    let usable = || candidates.iter().filter(|candidate| candidate.usable);
    if usable().nth(1).is_none() {
        return by_fence;
    }
    let by_place = if matches!(ask.policy.order(), SteeringPolicy::Weighted(_)) {
        ScopePrefix::EVERYONE
    } else {
        ask.place.scope.max(lesson.scope)
    };
    let drawn = || usable().filter(|one| is_drawn(ask, one));
    let tier_is_shared = |one: &Candidate| drawn().filter(|c| c.tier == one.tier).nth(1).is_some();
    let is_weighted = matches!(ask.policy.order(), SteeringPolicy::WeightedLatency(_));
    let by_key = turned_away || (changing_over && is_weighted) || drawn().any(tier_is_shared);
    let by_key = if by_key {
        ask.place.key_scope()
    } else {
        ScopePrefix::EVERYONE
    };
    by_place.max(by_key).max(by_fence)
}

/// A number in (0, 1] drawn from the key and the region (`splitmix64` finaliser, Steele 2014).
fn uniform(key: u64, seed: u64) -> f64 {
    let mut z = key ^ seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits fit a double's mantissa exactly"
    )]
    let unit = ((z >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
    unit
}
