//! A gate whose bounds follow what is measured: the places that a pool has in one region.
//!
//! All workers count into one window; whoever ends it steps the [`Gradient`]. Counting costs a few
//! atomic additions, and nobody waits for the one who steps. Decides nothing itself.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::concurrency::{Gradient, SAMPLES_MIN, WINDOW_MAX, Window};
use super::gate::{Bounds, Gate};

/// How long a request may wait for a place, where endpoints answer faster than that: CoDel's interval,
/// of which a twentieth is left in an overload.
pub(crate) const WAIT_MIN: Duration = Duration::from_millis(100);
/// Where they are slower, a request may wait for as long as one takes, but no longer than this.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(1);
/// The queue is a fifth of the places, and no shorter than this.
const QUEUE_MIN: u32 = 8;

#[derive(Debug)]
pub(crate) struct Adaptive {
    pub(crate) gate: Arc<Gate>,
    seen: Seen,
    /// `None`: the bound is the operator's.
    gradient: Option<Mutex<Gradient>>,
    /// The first `now` ever seen.
    origin: OnceLock<Instant>,
}

/// The window that is open.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Seen {
    samples: AtomicU32,
    crowded: AtomicU32,
    overloads: AtomicU32,
    /// Of latencies in seconds, in millionths.
    logarithms: AtomicI64,
    /// Of these squared, in millionths.
    squares: AtomicI64,
    /// Of latencies in microseconds.
    micros: AtomicU64,
    loads: AtomicU64,
    /// When it began, in nanoseconds since the origin.
    since: AtomicU64,
}

/// For logs, metrics and explanations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shown {
    pub(crate) limit: u32,
    pub(crate) in_flight: u32,
    pub(crate) waiting: u32,
    /// `None`: not known, or not looked at.
    pub(crate) baseline: Option<Duration>,
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            limit,
            in_flight,
            waiting,
            baseline,
        } = self;
        write!(f, "{in_flight} of {limit} taken, {waiting} waiting")?;
        if let Some(baseline) = baseline {
            write!(f, ", answers take {baseline:.1?} without a queue")?;
        }
        Ok(())
    }
}

impl Adaptive {
    pub(crate) fn new() -> Self {
        let gradient = Gradient::default();
        Self {
            gate: Gate::new(bounds(&gradient), true),
            gradient: Some(Mutex::new(gradient)),
            seen: Seen::default(),
            origin: OnceLock::new(),
        }
    }

    /// Always so many.
    pub(crate) fn fixed(places: u32) -> Self {
        let bounds = Bounds {
            places,
            first: places,
            below_first: places,
            queue: queue(places),
            wait: WAIT_MIN,
        };
        Self {
            gate: Gate::new(bounds, true),
            gradient: None,
            seen: Seen::default(),
            origin: OnceLock::new(),
        }
    }

    pub(crate) fn shown(&self) -> Shown {
        let known = self
            .gradient
            .as_ref()
            .and_then(|gradient| gradient.lock().ok());
        let baseline = known.map(|gradient| gradient.baseline());
        Shown {
            limit: self.gate.places(),
            in_flight: self.gate.taken(),
            waiting: self.gate.waiting(),
            baseline: baseline
                .filter(|baseline| *baseline > 0.0)
                .map(Duration::from_secs_f64),
        }
    }

    /// Somebody found no place at once.
    pub(crate) fn crowded(&self) {
        self.seen.crowded.fetch_add(1, Ordering::Relaxed);
    }

    /// An endpoint answered no more than that it is overloaded. `load`: how many were in flight when the
    /// request began.
    pub(crate) fn overloaded(&self, load: u32, now: Instant) {
        let seen = &self.seen;
        seen.loads.fetch_add(load.into(), Ordering::Relaxed);
        seen.overloads.fetch_add(1, Ordering::Relaxed);
        self.look(now);
    }

    /// An answer's head came.
    pub(crate) fn answered(&self, latency: Duration, load: u32, now: Instant) {
        let seen = &self.seen;
        let logarithm = micro_logarithm(latency);
        seen.logarithms.fetch_add(logarithm, Ordering::Relaxed);
        // Below 2,500 millionths squared: no overflow, however many there are in a window.
        let square = logarithm * logarithm / 1_000_000;
        seen.squares.fetch_add(square, Ordering::Relaxed);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        seen.micros.fetch_add(micros, Ordering::Relaxed);
        seen.loads.fetch_add(load.into(), Ordering::Relaxed);
        seen.samples.fetch_add(1, Ordering::Relaxed);
        self.look(now);
    }

    /// Ends the window if it has told enough.
    fn look(&self, now: Instant) {
        let Some(gradient) = &self.gradient else {
            return;
        };
        let seen = &self.seen;
        let overloads = seen.overloads.load(Ordering::Relaxed);
        if seen.samples.load(Ordering::Relaxed) + overloads < SAMPLES_MIN {
            return;
        }
        let at = self.since_origin(now);
        let open_for = at.saturating_sub(Duration::from_nanos(seen.since.load(Ordering::Relaxed)));
        if open_for < super::concurrency::WINDOW_MIN {
            return;
        }
        // Whoever finds it locked leaves the step to the one who is at it.
        let Ok(mut gradient) = gradient.try_lock() else {
            return;
        };
        if open_for >= gradient.window_min() {
            self.end_window(&mut gradient, open_for, at, now);
        }
    }

    /// What others count meanwhile falls into this window or the next; a sample whose parts fall apart
    /// moves a mean by less than its own share.
    fn end_window(&self, gradient: &mut Gradient, open_for: Duration, at: Duration, now: Instant) {
        let seen = &self.seen;
        let samples = seen.samples.swap(0, Ordering::Relaxed);
        let logarithms = seen.logarithms.swap(0, Ordering::Relaxed);
        let squares = seen.squares.swap(0, Ordering::Relaxed);
        let micros = seen.micros.swap(0, Ordering::Relaxed);
        let loads = seen.loads.swap(0, Ordering::Relaxed);
        let crowded = seen.crowded.swap(0, Ordering::Relaxed);
        let overloads = seen.overloads.swap(0, Ordering::Relaxed);
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        seen.since.store(nanos, Ordering::Relaxed);
        if samples + overloads < SAMPLES_MIN || open_for > WINDOW_MAX {
            return;
        }
        let count = f64::from(samples.max(1));
        let (mean, square) = (
            logarithms as f64 / 1e6 / count,
            squares as f64 / 1e6 / count,
        );
        #[expect(clippy::cast_precision_loss, reason = "sums of one window")]
        let window = Window {
            samples,
            latency: mean.exp(),
            mean: micros as f64 / 1e6 / count,
            spread: (square - mean * mean).max(0.0).sqrt(),
            load: loads as f64 / f64::from(samples + overloads),
            crowded,
            overloads,
            taken: self.gate.taken(),
        };
        gradient.step(now, &window);
        self.gate.set(bounds(gradient));
    }

    fn since_origin(&self, now: Instant) -> Duration {
        let origin = *self.origin.get_or_init(|| now);
        now.saturating_duration_since(origin)
    }
}

fn bounds(gradient: &Gradient) -> Bounds {
    let places = gradient.limit();
    let usual = Duration::from_secs_f64(gradient.baseline());
    Bounds {
        places,
        first: gradient.limit_of_first(),
        below_first: gradient.limit_below_first(),
        queue: queue(places),
        wait: usual.clamp(WAIT_MIN, WAIT_MAX),
    }
}

fn queue(places: u32) -> u32 {
    (places / 5).max(QUEUE_MIN)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the logarithm of a duration is below 50, and above −21 for a nanosecond"
)]
fn micro_logarithm(latency: Duration) -> i64 {
    (latency.as_secs_f64().max(1e-6).ln() * 1e6) as i64
}

#[cfg(test)]
mod tests {
    use super::super::concurrency::LIMIT_MAX;
    use super::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "only the start of a virtual time"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn what_all_workers_count_makes_one_window() {
        let adaptive = Adaptive::new();
        let begin = start();
        for round in 0..200_u32 {
            let now = begin + Duration::from_millis(50) * round;
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..10 {
                            let slow = if round < 100 { 10 } else { 80 };
                            adaptive.answered(Duration::from_millis(slow), 400, now);
                        }
                    });
                }
            });
            if round == 99 {
                assert_eq!(f64::from(adaptive.shown().limit), LIMIT_MAX);
                let baseline = adaptive.shown().baseline.unwrap();
                assert!((9..11).contains(&baseline.as_millis()), "{baseline:?}");
            }
        }
        assert!(adaptive.shown().limit < 800, "{:?}", adaptive.shown());
    }

    #[test]
    fn a_bound_of_the_operator_stays() {
        let fixed = Adaptive::fixed(20);
        let begin = start();
        for round in 0..1_000_u32 {
            let now = begin + Duration::from_millis(10) * round;
            fixed.answered(Duration::from_millis(u64::from(round)), 20, now);
            fixed.overloaded(20, now);
        }
        assert_eq!((fixed.shown().limit, fixed.shown().baseline), (20, None));
    }
}
