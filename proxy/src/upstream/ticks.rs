//! What came lately, tick by tick: for counters of the last seconds that all workers share without a lock.
//!
//! Used by [`super::budget`] and [`super::room`], who say how long a tick is. Reads no clock.

use std::sync::atomic::{AtomicU64, Ordering};

/// The last N ticks. Ticks are counted from 1 on, so that an untouched slot (tick 0) is always an old one.
#[derive(Debug)]
pub(crate) struct Ring<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }
}

impl<const N: usize> Ring<N> {
    pub(crate) fn add(&self, tick: u32, amount: i32) {
        self.change(tick, |_| Some(amount));
    }

    /// Adds if the sum of all N ticks allows it. Whoever else adds to this tick meanwhile is seen.
    pub(crate) fn add_if(&self, tick: u32, amount: i32, allows: impl Fn(i64) -> bool) -> bool {
        let is_other = |place: usize| place != Self::place(tick);
        self.change(tick, |own| {
            let others = self.lately(tick).filter(|(place, ..)| is_other(*place));
            let others: i64 = others.map(|(.., amount)| amount).sum();
            allows(i64::from(own) + others).then_some(amount)
        })
    }

    /// `more`: told what the tick has already.
    fn change(&self, tick: u32, more: impl Fn(i32) -> Option<i32>) -> bool {
        let slot = &self.0[Self::place(tick)];
        let mut seen = slot.load(Ordering::Relaxed);
        loop {
            let current = Slot::unpack(seen).at(tick);
            let Some(amount) = more(current.amount) else {
                return false;
            };
            let next = current.add(amount).pack();
            match slot.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(changed) => seen = changed,
            }
        }
    }

    pub(crate) fn sum(&self, tick: u32) -> i64 {
        self.sum_of(tick, |_, amount| amount)
    }

    /// The sum of all that `part` makes of each tick's amount, told how many ticks ago that was.
    pub(crate) fn sum_of(&self, tick: u32, part: impl Fn(u32, i64) -> i64) -> i64 {
        let parts = self.lately(tick);
        parts.map(|(_, age, amount)| part(age, amount)).sum()
    }

    /// Of each of the last N ticks: its place, how many ticks ago it was, and its amount.
    fn lately(&self, tick: u32) -> impl Iterator<Item = (usize, u32, i64)> {
        let slots = self.0.iter().enumerate();
        slots.filter_map(move |(place, slot)| {
            let slot = Slot::unpack(slot.load(Ordering::Relaxed));
            let age = slot.age_at(tick).filter(|age| (*age as usize) < N)?;
            Some((place, age, i64::from(slot.amount)))
        })
    }

    const fn place(tick: u32) -> usize {
        tick as usize % N
    }
}

/// What one tick brought or cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    tick: u32,
    amount: i32,
}

impl Slot {
    const fn unpack(packed: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = packed.to_be_bytes();
        Self {
            tick: u32::from_be_bytes([a, b, c, d]),
            amount: i32::from_be_bytes([e, f, g, h]),
        }
    }

    const fn pack(self) -> u64 {
        let [a, b, c, d] = self.tick.to_be_bytes();
        let [e, f, g, h] = self.amount.to_be_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// Emptied if what it holds is older. A worker whose clock was read a moment earlier adds to
    /// the newer tick.
    const fn at(self, tick: u32) -> Self {
        if self.tick >= tick {
            return self;
        }
        Self { tick, amount: 0 }
    }

    /// Saturates at 4 million requests a second: more than any route has.
    const fn add(self, amount: i32) -> Self {
        Self {
            tick: self.tick,
            amount: self.amount.saturating_add(amount),
        }
    }

    /// `None`: untouched.
    const fn age_at(self, tick: u32) -> Option<u32> {
        if self.tick == 0 {
            return None;
        }
        Some(tick.saturating_sub(self.tick))
    }
}
