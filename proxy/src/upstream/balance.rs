//! Which of a region's endpoints: the less loaded of two that are drawn by weight, or each in turn.
//!
//! "The power of two choices" (Mitzenmacher 2001): nearly as even as looking at all, without all
//! workers running to the same idle one. Loads are requests in flight and Peak-EWMA, as Linkerd's,
//! with Prequal's rule (NSDI 2024) for endpoints that stall. Pure: randomness and loads are handed
//! in. The third way, by a key, is in [`ring`](super::ring).

/// An endpoint that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its place among the view's candidates.
    pub(crate) at: u32,
    /// Its share relative to the others', warming up and cut for latency.
    pub(crate) weight: u32,
}

/// How much an endpoint has to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) in_flight: u32,
    /// How long it takes; 0 while no endpoint of the region has answered.
    pub(crate) micros: f32,
}

/// What a choice came to: the place in the list of entries, and how costly that one is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Picked {
    pub(crate) at: usize,
    pub(crate) seen: Seen,
    /// In flight for its weight.
    pub(crate) load: f32,
    pub(crate) is_hot: bool,
}

/// Latencies of which neither is half as long again as the other are the noise of samples: they do
/// not decide, so that weights do.
const LEVEL: f32 = 1.5;

/// Draws two different entries by weight and takes the better one; the first drawn if they are
/// level, so that idle endpoints share by weight. What weighs nothing is picked only if nothing else
/// is there. `None` without entries.
pub(crate) fn less_loaded(
    entries: &[Entry],
    random: u64,
    recent: &mut Recent,
    see: impl Fn(Entry) -> Seen,
) -> Option<Picked> {
    let total: u64 = entries.iter().map(|entry| u64::from(entry.weight)).sum();
    let first = draw(entries, mix(random), total, None)?;
    let others = total - u64::from(entries[first].weight);
    let look = |at: usize, recent: &mut Recent| {
        let seen = see(entries[at]);
        let load = per_weight(seen.in_flight, entries[at].weight, total, entries.len());
        recent.note(load);
        Picked {
            at,
            seen,
            load,
            is_hot: recent.is_hot(load),
        }
    };
    let picked = look(first, recent);
    let Some(second) = draw(entries, mix(random ^ SECOND_DRAW), others, Some(first)) else {
        return Some(picked);
    };
    let second = look(second, recent);
    Some(if is_better(&second, &picked) {
        second
    } else {
        picked
    })
}

/// Is `one` better, and not merely as good?
pub(crate) fn is_better(one: &Picked, other: &Picked) -> bool {
    match (one.is_hot, other.is_hot) {
        (false, true) => return true,
        (true, false) => return false,
        // Latencies of what is flooded are of yesterday.
        (true, true) => return one.load < other.load,
        (false, false) => {}
    }
    let (a, b) = (one.seen.micros, other.seen.micros);
    if a < b * LEVEL && b < a * LEVEL || a <= 0.0 || b <= 0.0 {
        return one.load < other.load;
    }
    one.cost() < other.cost()
}

/// Is an endpoint in another zone so much better than the local one that a request should go there?
pub(crate) fn is_worth_leaving(local: &Picked, other: &Picked) -> bool {
    if local.is_hot != other.is_hot {
        return local.is_hot;
    }
    let is_slow = other.seen.micros > 0.0 && local.seen.micros > AZ_FACTOR * other.seen.micros;
    is_slow || local.load > AZ_FACTOR * other.load + AZ_FREE
}

/// Another zone is farther and costs money: the local one has twice the load or latency before …
const AZ_FACTOR: f32 = 2.0;
/// … and more than so many in flight, which any endpoint bears.
const AZ_FREE: f32 = 8.0;

impl Picked {
    /// How long a request would take there, about: behind those in flight.
    pub(crate) fn cost(&self) -> f32 {
        (self.load + 1.0) * self.seen.micros.max(1.0)
    }
}

/// In flight, as if all weighed the same.
#[expect(
    clippy::cast_precision_loss,
    reason = "loads are compared, not counted"
)]
pub(crate) fn per_weight(in_flight: u32, weight: u32, total: u64, entries: usize) -> f32 {
    if weight == 0 {
        return in_flight as f32;
    }
    in_flight as f32 * total as f32 / (weight as f32 * entries as f32)
}

/// Loads that choices saw lately: what is usual. As many as Prequal keeps of its probes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    loads: [f32; 16],
    next: usize,
}

/// A load is hot when it is above three times what six in sixteen of those are below, and some: a
/// stall and not the unevenness of every day. Prequal has the 0.84 quantile and no factor, as it ranks the others by
/// latency alone and among hundreds. Here what is in flight counts anyway, so that without the factor
/// a slow endpoint would get a share whenever the other one drawn is a little busy; and of a pair or
/// a pair half of what was seen is the one that stalls itself.
const HOT_FACTOR: f32 = 3.0;
const HOT_FLOOR: f32 = 4.0;
const HOT_ABOVE: usize = 6;

impl Recent {
    fn note(&mut self, load: f32) {
        self.loads[self.next % 16] = load;
        self.next = (self.next + 1) % 16;
    }

    /// For those that choose without looking at loads.
    pub(crate) fn would_be_hot(&mut self, in_flight: u32) -> bool {
        #[expect(
            clippy::cast_precision_loss,
            reason = "loads are compared, not counted"
        )]
        let load = in_flight as f32;
        self.note(load);
        self.is_hot(load)
    }

    fn is_hot(&self, load: f32) -> bool {
        let below = (load - HOT_FLOOR) / HOT_FACTOR;
        if below <= 0.0 {
            return false;
        }
        let lower = self.loads.iter().filter(|seen| **seen < below);
        lower.count() >= HOT_ABOVE
    }
}

/// Smooth weighted round robin (nginx's): each gains its weight, the richest is picked and pays the
/// sum. `turn` gives and takes what an entry has; every worker goes round by itself.
pub(crate) fn in_turn(
    entries: &[Entry],
    turn: impl Fn(Entry, &dyn Fn(i64) -> i64) -> i64,
) -> Option<usize> {
    let total: i64 = entries
        .iter()
        .map(|entry| weight_in_turn(*entry, entries))
        .sum();
    let mut richest: Option<(usize, i64)> = None;
    for (at, entry) in entries.iter().enumerate() {
        let gain = weight_in_turn(*entry, entries);
        // What was away for long, or had another weight, does not come with old debts or savings.
        let has = turn(*entry, &|had| (had + gain).clamp(-2 * total, 2 * total));
        if gain > 0 && richest.is_none_or(|(_, most)| has > most) {
            richest = Some((at, has));
        }
    }
    let (at, _) = richest?;
    turn(entries[at], &|had| had - total);
    Some(at)
}

/// All the same where none weighs anything.
fn weight_in_turn(entry: Entry, entries: &[Entry]) -> i64 {
    if entry.weight == 0 && entries.iter().all(|entry| entry.weight == 0) {
        return 1;
    }
    entry.weight.into()
}

/// Makes the second draw independent of the first.
const SECOND_DRAW: u64 = 0x9e37_79b9_7f4a_7c15;

/// The index of one entry, drawn by weight; evenly if none of them weighs anything and nothing was
/// drawn before. `total`: of all weights but the one of `without`.
fn draw(entries: &[Entry], random: u64, total: u64, without: Option<usize>) -> Option<usize> {
    if total == 0 {
        let anyone = without.is_none() && !entries.is_empty();
        return anyone.then(|| scale(random, entries.len() as u64) as usize);
    }
    let mut left = scale(random, total);
    for (at, entry) in entries.iter().enumerate() {
        if without == Some(at) {
            continue;
        }
        let share = u64::from(entry.weight);
        if left < share {
            return Some(at);
        }
        left -= share;
    }
    None
}

/// A number below `bound` (Lemire 2019, without the rejection: the bias is below 2^-32).
fn scale(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// Spreads a number over all 64 bits (`splitmix64` finaliser, Steele 2014).
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
