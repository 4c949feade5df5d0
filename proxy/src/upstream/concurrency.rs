//! How many requests may be at a pool's endpoints in one region at once, found out by looking on.
//!
//! Gradient2 (Netflix `concurrency-limits`) with √L of headroom (a quarter of it where there is a queue), with a baseline that load
//! cannot drag along, and with Little's law for the way down. Stepped by [`super::adaptive`], once a window. Pure: reads
//! no clock, counts nothing, refuses nobody.
//!
//! ```text
//! gradient = clamp((1 + chance) · baseline / latency, 0.5, 1)
//! L        = 0.8 · L + 0.2 · (L · gradient + headroom)       headroom = √L, or √L / 4 if gradient < 1
//! fits     = load · baseline / latency                         (of arithmetic means)
//! L        = min(L, max(fits + √fits, load / 2))             after three windows with a queue
//! ```
//!
//! `latency`: the window's geometric mean, as stragglers would move an arithmetic one. `baseline`:
//! what it is without a queue. Gradient2 takes a long average for it, which under lasting overload
//! becomes the overload. Ours follows what is measured while there is room, otherwise downwards alone,
//! and is put right by what is seen while the limit falls ([`Fall`]) and by trying less ([`Probe`]).
//!
//! `fits`: of `load` requests, each of which takes `latency`, `load / latency` are answered in a second; at the
//! latency without a queue that many keep this number of places busy, and all others queue. Going there at once
//! instead of by a tenth each window spares clients seconds of a queue that nobody adds to.

use std::time::{Duration, Instant};

/// Never fewer: below it √L is more than a third of L, and chance decides.
pub(crate) const LIMIT_MIN: f64 = 8.0;
/// Never more, and the limit before anything was learned: until latency says that there is a queue,
/// nobody is refused. Bounds what an overload can make the proxy hold before that.
pub(crate) const LIMIT_MAX: f64 = 10_000.0;

/// A window is at least this long …
pub(crate) const WINDOW_MIN: Duration = Duration::from_millis(100);
/// … and has at least so many answers, whose geometric mean is a fifth off if times are exponential.
pub(crate) const SAMPLES_MIN: u32 = 50;
/// A window that took longer than this says nothing about now, and is thrown away.
pub(crate) const WINDOW_MAX: Duration = Duration::from_secs(20);

/// Latency may be above the baseline by what chance makes of the mean of a few answers: the standard error of its
/// logarithm, which is how far logarithms are spread over √samples. They are spread by this if times are
/// exponential; where they are spread wider, it is not believed.
const SPREAD_MAX: f64 = 1.28;
/// And by this, however alike the answers are: a queue that nobody feels is none.
const TOLERANCE: f64 = 0.05;
/// How much of the difference one window makes.
const SMOOTHING: f64 = 0.2;
/// The most that one window asks to be taken away.
const GRADIENT_MIN: f64 = 0.5;
/// So many windows in a row with too high a latency are no chance.
const CONGESTED_AFTER: u32 = 3;
/// How fast the baseline follows: most of the way in so long.
const LEARN: Duration = Duration::from_secs(10);
/// The first windows only teach: at the very start, the fast answers come first.
const LESSONS: u32 = 10;
/// What endpoints take off that say that they are overloaded: once a window.
const BACK_OFF: f64 = 0.9;
/// Latency that is so many times the baseline leaves no doubt that there is a queue.
const PLAIN_QUEUE: f64 = 1.5;
/// After a [`Fall`] that was none, L grows by half of itself instead of √L.
const REGROWTH: f64 = 0.5;
/// Of √L: what the limit asks for beyond what it has while there is a queue.
const HEADROOM_IN_QUEUE: f64 = 0.25;
/// While more is in flight than the limit allows, tier 1 may keep this part of it each window.
const OVERDRAFT_LEFT: f64 = 0.95;
/// Latency that is above this share of what it was at twice the load does not come from a queue.
const UNMOVED: f64 = 0.8;
/// While requests find no place, half the limit is tried so often, for so many windows …
const PROBE_EVERY: Duration = Duration::from_secs(20);
const PROBE_WINDOWS: u32 = 2;
/// … and soon again if the baseline turned out to be too high.
const PROBE_AGAIN: Duration = Duration::from_secs(2);

/// How far a bound is used up: 0 below 80 % of it, then rising to 1 (the card's `x`).
pub(crate) fn crowding(taken: u32, bound: u32) -> f64 {
    let bound = f64::from(bound.max(1));
    ((f64::from(taken) - 0.8 * bound) / (0.2 * bound)).clamp(0.0, 1.0)
}

/// The highest priority number that is let in. (Fits what Netflix's Zuul sheds: 80 % full, those above
/// the mid-90s; 95 % full, all above 10.)
pub(crate) fn threshold(crowding: f64) -> f64 {
    100.0 * (1.0 - crowding.powi(3))
}

/// What happened since the last step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    /// Answers that came.
    pub(crate) samples: u32,
    /// Their geometric mean, in seconds.
    pub(crate) latency: f64,
    /// Their arithmetic mean, which Little's law asks for.
    pub(crate) mean: f64,
    /// The standard deviation of their logarithms.
    pub(crate) spread: f64,
    /// How many were in flight when they began, on average.
    pub(crate) load: f64,
    /// Requests that found no place at once.
    pub(crate) crowded: u32,
    /// Answers besides that said no more than that the endpoint is overloaded.
    pub(crate) overloads: u32,
    /// How many are in flight as it ends.
    pub(crate) taken: u32,
}

impl Window {
    /// Of all endpoints together: one of many that is overloaded is the balancer's business.
    fn is_overloaded(&self) -> bool {
        self.overloads > self.samples / 10
    }

    /// How far above the baseline its latency may be by chance.
    fn chance(&self) -> f64 {
        let error = self.spread.clamp(0.0, SPREAD_MAX) / f64::from(self.samples.max(1)).sqrt();
        error.max(TOLERANCE)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Gradient {
    limit: f64,
    /// In seconds; 0 before the first window.
    baseline: f64,
    /// Its arithmetic counterpart.
    mean: f64,
    /// Windows that taught the baseline, up to [`LESSONS`].
    lessons: u32,
    /// Windows in a row whose latency was too high.
    congested: u32,
    fall: Option<Fall>,
    regrows: bool,
    /// How many may be in flight with tier 1; see [`Gradient::limit_of_first`].
    first: f64,
    stepped: Option<Instant>,
    probe: Probe,
    #[cfg(test)]
    without: &'static [Term],
}

/// Where the limit began to fall. Latency that comes from a queue falls with the number of requests
/// that are let in; latency that does not is the endpoints' own and the new baseline: a release that
/// is slower is no overload.
#[derive(Clone, Copy, Debug)]
struct Fall {
    load: f64,
    latency: f64,
}

/// Trying less, to see the latency without a queue. Tier 1 is spared.
#[derive(Clone, Copy, Debug)]
enum Probe {
    /// Nothing is refused.
    Idle,
    Waiting {
        until: Instant,
    },
    /// For so many more windows; `before`: the baseline.
    Running {
        windows: u32,
        before: f64,
    },
}

/// What tests take away, one at a time, to see that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    Headroom,
    Fall,
    Probe,
    FixedBaseline,
    GrowthOnlyUnderLoad,
    Little,
    Overdraft,
    Spread,
}

impl Default for Gradient {
    fn default() -> Self {
        Self {
            limit: LIMIT_MAX,
            baseline: 0.0,
            mean: 0.0,
            lessons: 0,
            congested: 0,
            fall: None,
            regrows: false,
            first: LIMIT_MAX,
            stepped: None,
            probe: Probe::Idle,
            #[cfg(test)]
            without: &[],
        }
    }
}

impl Gradient {
    /// How many may be in flight until the next step.
    pub(crate) fn limit(&self) -> u32 {
        whole(self.limit)
    }

    /// The same for what is not of tier 1.
    pub(crate) fn limit_below_first(&self) -> u32 {
        match self.probe {
            Probe::Running { .. } => whole((self.limit / 2.0).max(LIMIT_MIN)),
            _ => self.limit(),
        }
    }

    /// The same for tier 1: where the limit fell below what is in flight, tier 1 may take over the places of those that
    /// leave. A queue that has built up empties as long as others are refused; tier 1 is not what it is made of.
    pub(crate) fn limit_of_first(&self) -> u32 {
        whole(self.first)
    }

    /// In seconds: the latency without a queue. 0: not known yet.
    pub(crate) fn baseline(&self) -> f64 {
        self.baseline
    }

    /// The shortest window that shows what the last step did.
    pub(crate) fn window_min(&self) -> Duration {
        let twice = Duration::from_secs_f64((2.0 * self.baseline).min(3.0));
        twice.max(WINDOW_MIN)
    }

    pub(crate) fn step(&mut self, now: Instant, window: &Window) {
        if window.is_overloaded() {
            self.limit = (self.limit.min(2.0 * window.load) * BACK_OFF).clamp(LIMIT_MIN, LIMIT_MAX);
            return self.overdraw(window);
        }
        let latency = window.latency.max(1e-6);
        let since = self.stepped.replace(now);
        let took = since.map_or(WINDOW_MIN, |since| now.saturating_duration_since(since));
        self.learn(latency, window, took);
        let chance = if self.has(Term::Spread) {
            window.chance()
        } else {
            SPREAD_MAX / f64::from(window.samples.max(1)).sqrt()
        };
        let gradient = ((1.0 + chance) * self.baseline / latency).clamp(GRADIENT_MIN, 1.0);
        if self.lessons < LESSONS {
            self.lessons += 1;
        } else if !matches!(self.probe, Probe::Running { .. }) {
            self.note(gradient);
            self.set_limit(gradient, latency, window);
            self.follow_fall(gradient, latency, window);
        }
        self.overdraw(window);
        self.go_on_probing(now, window);
    }

    fn has(&self, _term: Term) -> bool {
        #[cfg(test)]
        return !self.without.contains(&_term);
        #[cfg(not(test))]
        true
    }

    fn learn(&mut self, latency: f64, window: &Window, took: Duration) {
        let has_room = window.load < self.limit / 2.0 && self.congested < CONGESTED_AFTER;
        let is_first = self.lessons < LESSONS;
        let share = match self.probe {
            _ if is_first => 1.0 / f64::from(self.lessons + 1),
            Probe::Running { .. } if latency < self.baseline => 1.0,
            _ if has_room || latency < self.baseline || !self.has(Term::FixedBaseline) => {
                (took.as_secs_f64() / LEARN.as_secs_f64()).min(1.0)
            }
            _ => 0.0,
        };
        // One strange window is not believed more than others.
        let heard = |one: f64, baseline: f64| {
            if is_first {
                one
            } else {
                one.min(2.0 * baseline)
            }
        };
        self.baseline += share * (heard(latency, self.baseline) - self.baseline);
        self.mean += share * (heard(window.mean.max(latency), self.mean) - self.mean);
    }

    fn note(&mut self, gradient: f64) {
        if gradient < 1.0 {
            self.congested = self.congested.saturating_add(1);
            self.regrows = false;
        } else {
            self.congested = 0;
        }
    }

    fn set_limit(&mut self, gradient: f64, latency: f64, window: &Window) {
        let much = 2.0 * window.load;
        let fits = window.load * self.mean / window.mean.max(latency);
        if self.congested >= CONGESTED_AFTER {
            // However much was allowed: what is there is too much already. By half at most, so that a
            // fall can be told from a slower release.
            let is_plain = latency > PLAIN_QUEUE * self.baseline;
            let enough = if is_plain && self.has(Term::Little) {
                (fits + fits.sqrt()).max(window.load / 2.0)
            } else {
                much
            };
            self.limit = self.limit.min(enough).max(LIMIT_MIN);
        }
        if self.limit <= much || !self.has(Term::GrowthOnlyUnderLoad) {
            let headroom = match self.regrows {
                _ if !self.has(Term::Headroom) => 0.0,
                true => self.limit * REGROWTH,
                false if gradient < 1.0 => self.limit.sqrt() * HEADROOM_IN_QUEUE,
                false => self.limit.sqrt(),
            };
            let wanted = self.limit * gradient + headroom;
            let next = self.limit + SMOOTHING * (wanted - self.limit);
            // What takes so long may have begun before the limit fell: no reason to go below what fits.
            let next = if self.has(Term::Little) {
                next.max(fits.min(self.limit))
            } else {
                next
            };
            self.limit = next.clamp(LIMIT_MIN, LIMIT_MAX);
        }
    }

    fn overdraw(&mut self, window: &Window) {
        let taken = f64::from(window.taken);
        let before = self.first;
        self.first = self.limit;
        if taken > self.limit && self.has(Term::Overdraft) {
            self.first = taken
                .min(OVERDRAFT_LEFT * before)
                .clamp(self.limit, LIMIT_MAX);
        }
    }

    /// Compares with where the fall began, each time that the load has halved.
    fn follow_fall(&mut self, gradient: f64, latency: f64, window: &Window) {
        let load = window.load;
        if gradient >= 1.0 || !self.has(Term::Fall) {
            self.fall = None;
            return;
        }
        let here = Fall { load, latency };
        let from = *self.fall.get_or_insert(here);
        if load > from.load {
            self.fall = Some(here);
        } else if load <= from.load / 2.0 {
            self.fall = Some(here);
            // Of a queue alone, half would be left.
            if latency > UNMOVED * from.latency {
                self.baseline = latency;
                self.mean = window.mean.max(latency);
                self.congested = 0;
                self.fall = None;
                self.regrows = true;
                // What was there before did no harm.
                self.limit = self.limit.max(from.load).min(LIMIT_MAX);
            }
        }
    }

    fn go_on_probing(&mut self, now: Instant, window: &Window) {
        let is_crowded = window.crowded > 0 && self.has(Term::Probe);
        self.probe = match self.probe {
            Probe::Running { windows, before } if windows > 1 => Probe::Running {
                windows: windows - 1,
                before,
            },
            Probe::Running { before, .. } => {
                let was_wrong = self.baseline < UNMOVED * before;
                let pause = if was_wrong { PROBE_AGAIN } else { PROBE_EVERY };
                Probe::Waiting { until: now + pause }
            }
            _ if !is_crowded => Probe::Idle,
            Probe::Idle => Probe::Waiting {
                until: now + PROBE_EVERY,
            },
            Probe::Waiting { until } if now < until => self.probe,
            Probe::Waiting { .. } => Probe::Running {
                windows: PROBE_WINDOWS,
                before: self.baseline,
            },
        };
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between LIMIT_MIN and LIMIT_MAX"
)]
fn whole(limit: f64) -> u32 {
    limit.round() as u32
}

#[cfg(test)]
mod tests;
