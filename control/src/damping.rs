//! What weighted shares go by, changed for one part of the clients after another.
//!
//! When a latency or a load moves, most shares follow within 100 seconds and all within 200, and none
//! moves by more than ten points in ten seconds: every five seconds a twentieth of the keys takes over
//! the present figures. Whoever the client and wherever it is, no more than that twentieth can change
//! its region. A region that leaves or returns is another matter: that is said at once. Pure.
//!
//! Round trips answer to the load, and are known half a minute late. Were the parts to change over in
//! the same order each time, every figure would be in force for 100 seconds exactly, and from a gain of
//! five on – a region near its limit has more – shares would swing for ever. In a new order each round
//! ages are spread from 0 to 200 seconds; then a gain of 80 is needed for that.

use std::sync::Arc;
use std::time::Duration;

use sealane_model::{Basis, Timestamp};

/// Parts of the clients, each with figures of its own.
pub const PARTS: usize = 20;
/// How often the next part takes over the present figures.
pub const TURN_EVERY: Duration = Duration::from_secs(5);
/// Figures that differ by no more than this part of themselves …
const ALIKE: f64 = 0.02;
/// … or by less than this are alike: everybody takes them over at once, as no share moves by much.
const ALIKE_MS: f64 = 0.25;

/// The number of the turn that `now` lies in: all regions and nodes are in step.
#[must_use]
pub fn turn_of(now: Timestamp) -> u64 {
    now.as_millis() / turn_millis()
}

/// When the next turn begins.
#[must_use]
pub fn next_turn(now: Timestamp) -> Timestamp {
    Timestamp::from_millis((turn_of(now) + 1) * turn_millis())
}

const fn turn_millis() -> u64 {
    TURN_EVERY.as_secs() * 1_000
}

/// How long a region that is new goes by the present figures: the first few probes tell little, and what
/// they tell should not stay in force for minutes.
pub const SETTLES_FOR: Duration = Duration::from_secs(60);

/// One region of one pool.
#[derive(Clone, Debug)]
pub struct Damped {
    /// One figure for everyone, or [`PARTS`]; empty until the figures have settled.
    parts: Arc<[Basis]>,
    settled_at: Timestamp,
}

impl Damped {
    /// The region is new.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            parts: Arc::new([]),
            settled_at: now + SETTLES_FOR,
        }
    }

    /// It returns: everybody goes by the present figures, which its probes have told for a while.
    pub fn returns(&mut self, now: Timestamp, present: Basis) {
        if now >= self.settled_at {
            self.jump(present);
        }
    }

    /// As the world is told.
    #[must_use]
    pub fn shown(&self) -> Arc<[Basis]> {
        Arc::clone(&self.parts)
    }

    fn jump(&mut self, to: Basis) {
        self.parts = Arc::new([to]);
    }

    /// The parts of the turns `from..=to` take over the present figures. Says whether that changed
    /// anything.
    pub fn turn(&mut self, from: u64, to: u64, present: Basis) -> bool {
        if to < turn_of(self.settled_at) {
            return false;
        }
        let Some(first) = self.parts.first() else {
            self.jump(present);
            return true;
        };
        // A region whose round trip was unknown was chosen by place alone.
        if first.rtt.is_none() && present.rtt.is_some() {
            self.jump(present);
            return true;
        }
        if self.parts.iter().all(|part| is_alike(part, &present)) {
            let changed = *self.parts != [present];
            if changed {
                self.jump(present);
            }
            return changed;
        }
        let one = *first;
        let mut parts: Vec<Basis> = match self.parts.len() {
            PARTS => self.parts.to_vec(),
            _ => vec![one; PARTS],
        };
        // Two rounds hold a whole one wherever they begin.
        for turn in from..=to.min(from.saturating_add(2 * PARTS as u64 - 1)) {
            parts[part_of(turn)] = present;
        }
        self.parts = parts.into();
        true
    }
}

/// Each round of turns passes over all parts, in an order of its own: the same on every node.
fn part_of(turn: u64) -> usize {
    let (round, place) = (turn / PARTS as u64, (turn % PARTS as u64) as usize);
    let mut order: [usize; PARTS] = std::array::from_fn(|part| part);
    let mut random = round;
    // Fisher and Yates.
    for last in (1..PARTS).rev() {
        random = mix(random);
        order.swap(last, (random % (last as u64 + 1)) as usize);
    }
    order[place]
}

/// The next number after this one (`splitmix64`, Steele 2014).
const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn is_alike(one: &Basis, other: &Basis) -> bool {
    let near =
        |one: f64, other: f64, least: f64| (one - other).abs() <= least.max(ALIKE * one.min(other));
    let near_in_time = |one: Option<Duration>, other: Option<Duration>| match (one, other) {
        (Some(one), Some(other)) => {
            near(one.as_secs_f64() * 1e3, other.as_secs_f64() * 1e3, ALIKE_MS)
        }
        (one, other) => one == other,
    };
    near_in_time(one.rtt, other.rtt)
        && near_in_time(one.rtt_floor, other.rtt_floor)
        && near(one.free, other.free, 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its figures have settled.
    fn known() -> Damped {
        Damped {
            parts: Arc::new([]),
            settled_at: Timestamp::default(),
        }
    }

    fn at_ms(rtt: u64) -> Basis {
        Basis {
            rtt: Some(Duration::from_millis(rtt)),
            rtt_floor: Some(Duration::from_millis(10)),
            free: 1.0,
        }
    }

    fn parts_at(damped: &Damped, rtt: u64) -> usize {
        let shown = damped.shown();
        shown.iter().filter(|part| **part == at_ms(rtt)).count() * PARTS / shown.len()
    }

    #[test]
    fn a_twentieth_changes_over_each_turn_and_all_have_in_a_round() {
        let mut damped = known();
        damped.turn(7, 7, at_ms(10));
        assert_eq!(parts_at(&damped, 10), PARTS);
        for turn in 0..20 {
            assert!(damped.turn(turn, turn, at_ms(210)));
            assert_eq!(parts_at(&damped, 210), usize::try_from(turn).unwrap() + 1);
        }
        assert!(damped.turn(20, 20, at_ms(210)));
        assert_eq!(damped.shown().len(), 1, "all alike: one figure says it");
        assert!(!damped.turn(21, 21, at_ms(210)));
    }

    #[test]
    fn within_two_hundred_seconds_all_have_changed_over_whenever_that_begins() {
        for from in 0..200 {
            let mut damped = known();
            damped.jump(at_ms(10));
            let mut before = 0;
            for turn in from..from + 39 {
                damped.turn(turn, turn, at_ms(210));
                let now = parts_at(&damped, 210);
                assert!(now == before || now == before + 1);
                before = now;
            }
            assert_eq!(before, PARTS);
        }
    }

    #[test]
    fn no_two_rounds_pass_over_the_parts_in_one_order() {
        let round = |number: u64| (0..20).map(|turn| part_of(number * 20 + turn)).collect();
        let orders: std::collections::BTreeSet<Vec<usize>> = (0..500).map(round).collect();
        assert_eq!(orders.len(), 500);
    }

    #[test]
    fn a_target_that_moves_on_starves_nobody() {
        let mut damped = known();
        damped.jump(at_ms(10));
        for turn in 0..20 {
            damped.turn(turn, turn, at_ms(100 + turn * 50));
        }
        assert_eq!(parts_at(&damped, 10), 0);
    }

    #[test]
    fn turns_that_were_missed_are_made_up_for() {
        let mut damped = known();
        damped.jump(at_ms(10));
        damped.turn(5, 9, at_ms(210));
        assert_eq!(parts_at(&damped, 210), 5);
        damped.turn(10, 9_999, at_ms(410));
        assert_eq!(parts_at(&damped, 410), PARTS);
    }

    #[test]
    fn a_difference_that_moves_no_share_is_taken_over_at_once() {
        let mut damped = known();
        damped.jump(at_ms(100));
        assert!(damped.turn(1, 1, at_ms(101)));
        assert_eq!(*damped.shown(), [at_ms(101)]);
        assert!(damped.turn(2, 2, at_ms(110)));
        assert_eq!(parts_at(&damped, 110), 1);
    }

    #[test]
    fn the_first_probes_of_a_new_region_are_not_held_on_to() {
        let mut damped = Damped::new(Timestamp::from_millis(2_000));
        for turn in 0..12 {
            assert!(!damped.turn(turn, turn, at_ms(900 - turn)));
        }
        damped.returns(Timestamp::from_millis(61_999), at_ms(500));
        assert!(damped.shown().is_empty(), "all go by the present figures");
        assert!(damped.turn(12, 12, at_ms(10)));
        assert_eq!(*damped.shown(), [at_ms(10)]);
    }

    #[test]
    fn turns_are_those_of_the_clock() {
        let now = Timestamp::from_millis(12_345);
        assert_eq!(
            (turn_of(now), next_turn(now)),
            (2, Timestamp::from_millis(15_000))
        );
        let on_it = Timestamp::from_millis(15_000);
        assert_eq!(
            (turn_of(on_it), next_turn(on_it)),
            (3, Timestamp::from_millis(20_000))
        );
    }
}
