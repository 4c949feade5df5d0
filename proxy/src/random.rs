//! Cheap random numbers, one generator a thread. Good for spreading load and naming requests, never
//! for secrets.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(std::thread::current().id()));
    static POINT: Cell<u64> = Cell::new(number());
}

/// `splitmix64` (Steele, Lea and Flood 2014), seeded by the operating system.
pub(crate) fn number() -> u64 {
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mut z = next;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// Points from 0 to below 1 that are spread more evenly than by chance: of any run of them a part
/// of the whole has its share, up to a few points (Weyl 1916, for the golden ratio). Who sees some knows the
/// next ones.
pub(crate) fn point() -> f64 {
    POINT.with(|point| {
        let next = point.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        point.set(next);
        (next >> 11) as f64 / 2_f64.powi(53)
    })
}

pub(crate) fn wide_number() -> u128 {
    u128::from(number()) << 64 | u128::from(number())
}
