//! Which of several equal endpoints: two are drawn by weight, the less loaded one serves.
//!
//! "The power of two choices" (Mitzenmacher 2001): nearly as even as looking at all, without all
//! workers running to the same idle one. Pure: randomness and loads are handed in.

use sealane_model::{EndpointId, Weight};

/// Draws two different candidates by weight and takes the one with less load per weight; the first
/// drawn if they are level, so that idle endpoints share by weight. What weighs nothing is picked
/// only if nothing else is there. `None` without candidates.
pub(crate) fn pick(
    candidates: &[(EndpointId, Weight)],
    random: u64,
    load: impl Fn(EndpointId) -> u32,
) -> Option<EndpointId> {
    let total = candidates.iter().map(|(_, weight)| share(*weight)).sum();
    let first = draw(candidates, mix(random), total, None)?;
    let others = total - share(candidates[first].1);
    let Some(second) = draw(candidates, mix(random ^ SECOND_DRAW), others, Some(first)) else {
        return Some(candidates[first].0);
    };
    let [(first, weight), (second, second_weight)] = [candidates[first], candidates[second]];
    // load / weight, compared without dividing.
    let cost = u64::from(load(first)) * u64::from(second_weight.get());
    let second_cost = u64::from(load(second)) * u64::from(weight.get());
    Some(if second_cost < cost { second } else { first })
}

/// Makes the second draw independent of the first.
const SECOND_DRAW: u64 = 0x9e37_79b9_7f4a_7c15;

/// The index of one candidate, drawn by weight; evenly if none of them weighs anything and nothing
/// was drawn before. `total`: of all weights but the one of `without`.
fn draw(
    candidates: &[(EndpointId, Weight)],
    random: u64,
    total: u64,
    without: Option<usize>,
) -> Option<usize> {
    if total == 0 {
        let anyone = without.is_none() && !candidates.is_empty();
        return anyone.then(|| scale(random, candidates.len() as u64) as usize);
    }
    let mut left = scale(random, total);
    for (at, (_, weight)) in candidates.iter().enumerate() {
        if without == Some(at) {
            continue;
        }
        let share = share(*weight);
        if left < share {
            return Some(at);
        }
        left -= share;
    }
    None
}

fn share(weight: Weight) -> u64 {
    weight.get().into()
}

/// A number below `bound` (Lemire 2019, without the rejection: the bias is below 2^-32).
fn scale(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// Spreads a number over all 64 bits (`splitmix64` finaliser, Steele 2014).
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
