//! Percentiles, and draws that are the same in each run. Pure.

use std::time::Duration;

use crate::load::Record;

/// The `percent`-th percentile (nearest rank) in ms; 0 of nothing.
pub(crate) fn percentile(records: &[&Record], percent: f64) -> f64 {
    let mut took: Vec<Duration> = records.iter().map(|record| record.took()).collect();
    took.sort_unstable();
    let rank = (took.len() as f64 * percent / 100.0).ceil() as usize;
    let at = took.get(rank.saturating_sub(1));
    at.map_or(0.0, |took| took.as_secs_f64() * 1e3)
}

/// Of a hundred; 0 of nothing.
pub(crate) fn percent(part: usize, of: usize) -> f64 {
    100.0 * part as f64 / of.max(1) as f64
}

/// The `number`-th of a row of numbers that look random: in 0..1 (splitmix64).
pub(crate) fn draw(seed: u64, number: u64) -> f64 {
    let mut bits = seed
        .wrapping_mul(0xa076_1d64_78bd_642f)
        .wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// A draw of the normal distribution from two even ones (Box and Muller).
pub(crate) fn normal(one: f64, other: f64) -> f64 {
    (-2.0 * one.max(f64::MIN_POSITIVE).ln()).sqrt() * (std::f64::consts::TAU * other).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(millis: u64) -> Record {
        Record {
            end: Duration::from_millis(millis),
            ..Record::default()
        }
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let records: Vec<Record> = (1..=100).rev().map(record).collect();
        let records: Vec<&Record> = records.iter().collect();

        assert_eq!(percentile(&records, 50.0), 50.0);
        assert_eq!(percentile(&records, 99.0), 99.0);
        assert_eq!(percentile(&records, 99.9), 100.0);
        assert_eq!(percentile(&[], 99.0), 0.0);
    }

    #[test]
    fn draws_are_spread_evenly_and_normals_around_zero() {
        let draws: Vec<f64> = (0..10_000).map(|number| draw(7, number)).collect();
        let mean = draws.iter().sum::<f64>() / 10_000.0;
        let below = draws.iter().filter(|draw| **draw < 0.01).count();
        let normals = draws.chunks(2).map(|two| normal(two[0], two[1]));

        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        assert!((60..140).contains(&below), "{below}");
        assert!((normals.sum::<f64>() / 5_000.0).abs() < 0.05);
    }
}
