//! Who will ask which region once others have left, before it can be measured.
//!
//! What a region turns away asks the next one of its tier, then the next tier; so a region is asked by
//! its own and by those that others turn away, whose number depends on what it turns away itself.
//! Solved by going round until nothing moves. A guess: it takes those who are turned away to spread as
//! the others do. Pure.

/// Rounds after which what is found is near enough: it is measured a second later anyway.
const ROUNDS_MAX: usize = 64;
/// A change of an accepted share that no longer matters.
const SETTLED: f64 = 0.001;

/// One region that is left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Left {
    pub tier: u16,
    /// Who will ask it first, a second.
    pub first: f64,
    /// What it may take of those who ask, a second; infinite without a limit.
    pub room: f64,
}

/// How many a second will ask each region, turned away elsewhere or not.
#[must_use]
pub fn asked(left: &[Left]) -> Vec<f64> {
    let mut tiers: Vec<u16> = left.iter().map(|one| one.tier).collect();
    tiers.sort_unstable();
    tiers.dedup();
    let mut asked = vec![0.0; left.len()];
    let mut passed_on = 0.0;
    for tier in tiers {
        let places: Vec<usize> = (0..left.len())
            .filter(|at| left[*at].tier == tier)
            .collect();
        let sum: f64 = places.iter().map(|at| left[*at].first).sum();
        let part = |at: usize| part(left[at].first, sum, places.len());
        let parts: Vec<f64> = places.iter().map(|at| part(*at)).collect();
        let total = sum + passed_on;
        let first: Vec<f64> = parts.iter().map(|part| total * part).collect();
        let rooms: Vec<f64> = places.iter().map(|at| left[*at].room).collect();
        let (of_tier, taken) = within_a_tier(&first, &parts, &rooms);
        for (at, asking) in places.into_iter().zip(of_tier) {
            asked[at] = asking;
        }
        passed_on = (total - taken).max(0.0);
    }
    asked
}

/// Equal parts of nothing.
#[expect(clippy::cast_precision_loss, reason = "a number of regions")]
fn part(first: f64, sum: f64, regions: usize) -> f64 {
    if sum > 0.0 {
        first / sum
    } else {
        1.0 / regions as f64
    }
}

/// Who asks each, and how many are taken in all.
fn within_a_tier(first: &[f64], parts: &[f64], rooms: &[f64]) -> (Vec<f64>, f64) {
    let accepts = |asking: f64, room: f64| {
        if asking > room {
            (room / asking).max(0.0)
        } else {
            1.0
        }
    };
    let mut accepted = vec![1.0; first.len()];
    let mut asked = first.to_vec();
    // Shares only fall from round to round: what is turned away makes others turn away more.
    for _ in 0..ROUNDS_MAX {
        asked = one_round(first, parts, &accepted);
        let next = asked
            .iter()
            .zip(rooms)
            .map(|(one, room)| accepts(*one, *room));
        let next: Vec<f64> = next.collect();
        let moved = accepted
            .iter()
            .zip(&next)
            .map(|(old, new)| (old - new).abs());
        let moved = moved.fold(0.0, f64::max);
        accepted = next;
        if moved < SETTLED {
            break;
        }
    }
    let taken = asked.iter().zip(&accepted).map(|(one, share)| one * share);
    let taken = taken.sum();
    (asked, taken)
}

/// Who asks each, given what each accepts: its own, and those whom one or two others turned away. What
/// three turned away is left out: it is little, or all are full anyway.
fn one_round(first: &[f64], parts: &[f64], accepted: &[f64]) -> Vec<f64> {
    let others = |of: &[usize]| -> f64 {
        let left = 1.0 - of.iter().map(|at| parts[*at]).sum::<f64>();
        left.max(f64::MIN_POSITIVE)
    };
    let mut asked = first.to_vec();
    for one in 0..first.len() {
        let turned = first[one] * (1.0 - accepted[one]);
        if turned <= 0.0 {
            continue;
        }
        for two in (0..first.len()).filter(|two| *two != one) {
            let second = turned * parts[two] / others(&[one]);
            asked[two] += second;
            let turned_twice = second * (1.0 - accepted[two]);
            for three in (0..first.len()).filter(|three| *three != one && *three != two) {
                asked[three] += turned_twice * parts[three] / others(&[one, two]);
            }
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(tier: u16, first: f64, room: f64) -> Left {
        Left { tier, first, room }
    }

    /// What each takes.
    fn taken(left: &[Left]) -> Vec<f64> {
        let asked = asked(left).into_iter().zip(left);
        asked.map(|(asked, one)| asked.min(one.room)).collect()
    }

    fn near(actual: &[f64], expected: &[f64]) {
        for (one, other) in actual.iter().zip(expected) {
            assert!((one - other).abs() < 5.0, "{actual:?}, {expected:?}");
        }
        assert_eq!(actual.len(), expected.len());
    }

    #[test]
    fn where_there_is_room_each_is_asked_by_its_own() {
        let two = [left(1, 600.0, 1_000.0), left(1, 300.0, f64::INFINITY)];
        near(&asked(&two), &[600.0, 300.0]);
    }

    #[test]
    fn what_one_turns_away_asks_the_other() {
        let two = [left(1, 1_200.0, 900.0), left(1, 300.0, 900.0)];
        near(&asked(&two), &[1_200.0, 600.0]);
    }

    #[test]
    fn where_all_are_full_none_takes_more_than_it_has_room_for_and_none_is_left_half_empty() {
        let two = [left(1, 1_050.0, 950.0), left(1, 1_050.0, 950.0)];
        near(&taken(&two), &[950.0, 950.0]);
        // Of 2,100, 1,900 are taken by one or the other: 1 − x² of all.
        let turned = (1.0 - 1_900.0 / 2_100.0_f64).sqrt();
        near(&asked(&two), &[950.0 / (1.0 - turned); 2]);

        let three = [left(1, 1_500.0, 950.0); 3];
        near(&taken(&three), &[950.0; 3]);
    }

    #[test]
    fn what_a_tier_turns_away_asks_the_next_one() {
        let two = [
            left(1, 1_200.0, 900.0),
            left(2, 0.0, 900.0),
            left(2, 0.0, 900.0),
            left(3, 0.0, 900.0),
        ];
        near(&asked(&two), &[1_200.0, 150.0, 150.0, 0.0]);
    }

    #[test]
    fn nobody_is_left_nobody_is_asked() {
        assert!(asked(&[]).is_empty());
    }

    #[test]
    fn a_region_without_any_room_passes_all_on() {
        let two = [left(1, 500.0, 0.0), left(1, 500.0, f64::INFINITY)];
        near(&asked(&two), &[500.0, 1_000.0]);
    }
}
