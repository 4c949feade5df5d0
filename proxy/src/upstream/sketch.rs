//! A sketch of latencies: how many fell into each of 96 buckets, each a fifth wider than the last.
//!
//! Filled by each worker for each endpoint, merged by [`ejection`](super::ejection). A quantile is
//! right within a tenth. Allocates nothing.

/// 32 µs to 2^29 µs (9 minutes), four buckets to each doubling. What lies outside goes to the ends.
const BUCKETS: usize = 96;
const FIRST_OCTAVE: u32 = 5;

#[derive(Clone, Debug)]
pub(crate) struct Sketch {
    /// Saturating: above 65,535 in one bucket of one window quantiles no longer move by more.
    buckets: [u16; BUCKETS],
    count: u32,
}

impl Default for Sketch {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            count: 0,
        }
    }
}

impl Sketch {
    pub(crate) fn add(&mut self, micros: f32) {
        let bucket = &mut self.buckets[place(micros)];
        *bucket = bucket.saturating_add(1);
        self.count = self.count.saturating_add(1);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        for (own, more) in self.buckets.iter_mut().zip(other.buckets) {
            *own = own.saturating_add(more);
        }
        self.count = self.count.saturating_add(other.count);
    }

    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    /// In microseconds: the middle of the bucket in which it lies. `None` when empty.
    pub(crate) fn quantile(&self, share: f64) -> Option<f32> {
        let all: u64 = self.buckets.iter().map(|n| u64::from(*n)).sum();
        #[expect(clippy::cast_precision_loss, reason = "a rank among few millions")]
        let rank = share * all as f64;
        let mut below = 0.0;
        for (at, count) in self.buckets.iter().enumerate() {
            below += f64::from(*count);
            if *count > 0 && below >= rank {
                return Some(middle(at));
            }
        }
        None
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float saturates"
)]
fn place(micros: f32) -> usize {
    let micros = (micros as u32).max(1 << FIRST_OCTAVE);
    let octave = micros.ilog2();
    let quarter = (micros >> (octave - 2)) & 3;
    let at = (octave - FIRST_OCTAVE) * 4 + quarter;
    (at as usize).min(BUCKETS - 1)
}

fn middle(at: usize) -> f32 {
    let (octave, quarter) = (at / 4, at % 4);
    let width = f32::powi(2.0, octave as i32 + FIRST_OCTAVE.cast_signed()) / 4.0;
    width * (4.5 + quarter as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_right_within_an_eighth() {
        for scale in [50.0_f32, 1_000.0, 250_000.0] {
            let mut sketch = Sketch::default();
            for at in 1..=1_000 {
                sketch.add(scale * at as f32 / 500.0);
            }
            for share in [0.5, 0.9, 0.95, 0.99] {
                let right = scale * 2.0 * share as f32;
                let got = sketch.quantile(share).unwrap();
                assert!(
                    (got / right - 1.0).abs() < 0.13,
                    "{share} of {scale}: {got}, expected {right}"
                );
            }
        }
    }

    #[test]
    fn merged_sketches_are_the_sketch_of_all() {
        let (mut one, mut other, mut both) =
            (Sketch::default(), Sketch::default(), Sketch::default());
        for at in 0..500 {
            one.add(at as f32 * 10.0);
            other.add(at as f32 * 1_000.0);
            both.add(at as f32 * 10.0);
            both.add(at as f32 * 1_000.0);
        }
        one.merge(&other);

        assert_eq!(one.count(), 1_000);
        assert_eq!(one.quantile(0.75), both.quantile(0.75));
    }

    #[test]
    fn odd_numbers_go_to_the_ends_and_an_empty_sketch_has_no_quantile() {
        assert_eq!(Sketch::default().quantile(0.5), None);
        for odd in [f32::NAN, -1.0, 0.0] {
            assert_eq!(place(odd), 0);
        }
        assert_eq!(place(f32::INFINITY), BUCKETS - 1);
    }
}
