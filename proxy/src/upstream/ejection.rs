//! Which endpoints are left out, or get less, for what live requests saw of them.
//!
//! The core of one pool: told what came of requests, on a clock that it is handed, it says what
//! changes. One in a process, behind [`court`](super::court), which all workers report to. Opens
//! nothing, chooses no endpoint, and is never asked on a request's way: what it concluded stands in
//! each endpoint's [`Mark`](super::mark::Mark).
//!
//! Three rules (after Envoy and Linkerd, with their known gaps closed):
//! errors in a row; a share of good answers that is low *and* significantly below the peers', by a
//! test that needs no crowd to compare with; and, for slowness, less weight instead of none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sealane_model::{EjectionCause, EndpointId, RegionId};

use super::sketch::Sketch;
use crate::config::EjectionRule;

/// Half-open: after its time one request; if that went well, so many more.
pub(crate) const SECOND_TRIALS: u32 = 3;
/// The time constant with which good and bad answers are forgotten.
const MEMORY_MS: f64 = 10_000.0;
/// How many standard errors lie between an endpoint's share and its peers' at least. Looked at again
/// with every report, so more than the customary two: at three, chance alone is one in 700.
const SIGNIFICANT: f64 = 3.0;
/// Latencies are judged over so long, if there were enough of them …
const WINDOW_MS: u64 = 5_000;
/// … and never over longer: then there were too few, and the endpoint is given another chance.
const WINDOW_MAX_MS: u64 = 30_000;
/// Slow windows in a row until the weight is cut.
const SLOW_WINDOWS: u32 = 3;
/// Requests in a window below which its 95th percentile is a matter of luck.
const WINDOW_REQUESTS: u32 = 20;
/// What is slower than the peers by less is not felt, whatever the factor.
const FELT_MICROS: f32 = 5_000.0;
/// What is left of a cut weight at least: enough to see that it is fast again.
pub(crate) const CUT_MIN: f32 = 0.1;
/// Ends of ejections are spread by up to so much, lest all come back at once.
const JITTER: f64 = 0.1;
/// How long a region stays marked degraded by an endpoint that the cap kept in.
pub(crate) const REFUSAL_HOLDS: Duration = Duration::from_secs(30);

/// The endpoints of one pool that were reported of.
#[derive(Debug, Default)]
pub(crate) struct Ejection {
    /// As many as the pool has endpoints.
    tracks: BTreeMap<EndpointId, Track>,
}

/// An endpoint of a region, and its zone there.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) endpoint: EndpointId,
    pub(crate) az: Option<Arc<str>>,
}

/// What came of requests to one endpoint since the last report of the same worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Answered as a working endpoint answers, 4xx included. They came before `bad`.
    pub(crate) good: u32,
    pub(crate) bad: u32,
    /// Of requests that were sent on trial; counted in neither of the above.
    pub(crate) trials_passed: u32,
    pub(crate) trials_failed: u32,
    /// Of good answers.
    pub(crate) latencies: Sketch,
}

/// Something that the world should know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It gets nothing for `time`, then a trial.
    Ejected {
        why: EjectionCause,
        times: u32,
        time: Duration,
    },
    /// It deserves to be ejected, but too many are already: the region is degraded.
    Refused {
        why: EjectionCause,
    },
    /// One more trial stage, after the first was passed.
    OnTrial,
    Readmitted,
    /// It gets this share of its weight.
    Cut {
        share: f32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum State {
    In,
    /// `until`: when its first trial may begin. `passed`: trials since.
    Out {
        until: u64,
        passed: u32,
    },
}

/// One endpoint.
#[derive(Debug)]
struct Track {
    region: RegionId,
    az: Option<Arc<str>>,
    state: State,
    errors_in_a_row: u32,
    lately: Lately,
    window: Window,
    slow_windows: u32,
    /// Share of its weight.
    cut: f32,
    /// Ejections that are not forgotten yet.
    times: u32,
    /// When its last ejection ended, or was last forgotten.
    in_since: u64,
    refused_at: Option<u64>,
}

impl Ejection {
    /// Says who is in `region` now. What is known of those that stay stays.
    pub(crate) fn seat(&mut self, now: u64, region: RegionId, seats: &[Seat]) {
        self.tracks.retain(|id, track| {
            track.region != region || seats.iter().any(|seat| seat.endpoint == *id)
        });
        for seat in seats {
            let track = self
                .tracks
                .entry(seat.endpoint)
                .or_insert_with(|| Track::new(now, region));
            track.az.clone_from(&seat.az);
        }
    }

    /// Takes in a report; `None`: nothing changed. Reports race, so `now` may lie before the last.
    pub(crate) fn report(
        &mut self,
        now: u64,
        endpoint: EndpointId,
        report: &Report,
        rule: &EjectionRule,
    ) -> Option<Verdict> {
        let track = self.tracks.get_mut(&endpoint)?;
        if let State::Out { passed, .. } = track.state {
            // What began before it was ejected says nothing new.
            return if report.trials_failed > 0 {
                Some(self.eject(now, endpoint, EjectionCause::FailedTrial, rule))
            } else if report.trials_passed > 0 {
                track.pass_trials(now, passed + report.trials_passed)
            } else {
                None
            };
        }
        track.count(now, report, rule);
        if report.bad > 0
            && let Some(why) = self.is_condemned(now, endpoint, rule)
        {
            return if self.has_room(endpoint, rule) {
                Some(self.eject(now, endpoint, why, rule))
            } else {
                self.refuse(now, endpoint, why)
            };
        }
        self.judge_latency(now, endpoint, report, rule)
    }

    pub(crate) fn state(&self, endpoint: EndpointId) -> State {
        self.tracks
            .get(&endpoint)
            .map_or(State::In, |track| track.state)
    }

    /// Share of its weight that an endpoint gets for its latency.
    pub(crate) fn share(&self, endpoint: EndpointId) -> f32 {
        self.tracks.get(&endpoint).map_or(1.0, |track| track.cut)
    }

    fn is_condemned(
        &self,
        now: u64,
        endpoint: EndpointId,
        rule: &EjectionRule,
    ) -> Option<EjectionCause> {
        let track = self.tracks.get(&endpoint)?;
        if track.errors_in_a_row >= rule.consecutive_errors {
            return Some(EjectionCause::ErrorsInARow);
        }
        let own = track.lately.at(now);
        let peers = self.peers(endpoint, track.region);
        let peers = peers.fold(Lately::default(), |sum, peer| sum.plus(peer.lately.at(now)));
        is_worse(own, peers, rule).then_some(EjectionCause::SuccessRate)
    }

    /// The others of its region that serve.
    fn peers(&self, endpoint: EndpointId, region: RegionId) -> impl Iterator<Item = &Track> {
        self.tracks
            .iter()
            .filter(move |(id, track)| **id != endpoint && track.region == region)
            .map(|(_, track)| track)
            .filter(|track| track.state == State::In)
    }

    /// May one more be left out? Counted in its region, where one always serves, and in its zone.
    fn has_room(&self, endpoint: EndpointId, rule: &EjectionRule) -> bool {
        let Some(own) = self.tracks.get(&endpoint) else {
            return false;
        };
        let in_region = || self.tracks.values().filter(|one| one.region == own.region);
        let (all, out) = count(in_region());
        let (all_in_az, out_in_az) = count(in_region().filter(|one| one.az == own.az));
        let of_az = own.az.is_none() || out_in_az < share_of(all_in_az, rule).max(1);
        out < share_of(all, rule).max(1).min(all.saturating_sub(1)) && of_az
    }

    fn eject(
        &mut self,
        now: u64,
        endpoint: EndpointId,
        why: EjectionCause,
        rule: &EjectionRule,
    ) -> Verdict {
        let Some(track) = self.tracks.get_mut(&endpoint) else {
            return Verdict::Readmitted; // it was seen a line above
        };
        track.forget_ejections(now, rule);
        track.times = track.times.saturating_add(1);
        let time = rule.time.saturating_mul(track.times).min(rule.time_max);
        let time = time.mul_f64(1.0 + JITTER * chance(now, endpoint));
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        track.state = State::Out {
            until: now.saturating_add(millis),
            passed: 0,
        };
        Verdict::Ejected {
            why,
            times: track.times,
            time,
        }
    }

    /// Said once for as long as it holds.
    fn refuse(&mut self, now: u64, endpoint: EndpointId, why: EjectionCause) -> Option<Verdict> {
        let track = self.tracks.get_mut(&endpoint)?;
        let holds = REFUSAL_HOLDS.as_millis() as u64;
        let said = track.refused_at.is_some_and(|at| now < at + holds);
        if said {
            return None;
        }
        track.refused_at = Some(now);
        Some(Verdict::Refused { why })
    }

    fn judge_latency(
        &mut self,
        now: u64,
        endpoint: EndpointId,
        report: &Report,
        rule: &EjectionRule,
    ) -> Option<Verdict> {
        let factor = rule.latency?;
        let track = self.tracks.get_mut(&endpoint)?;
        let before = track.cut;
        match track.window.add(now, &report.latencies) {
            Closed::Not => return None,
            Closed::TooFew => track.recover(),
            Closed::With(own) => {
                let region = track.region;
                let usual = median(self.peers(endpoint, region).filter_map(|peer| {
                    let (p95, at) = peer.window.last?;
                    (now < at + WINDOW_MAX_MS).then_some(p95)
                }));
                self.tracks.get_mut(&endpoint)?.weigh(own, usual, factor);
            }
        }
        let share = self.share(endpoint);
        #[expect(clippy::float_cmp, reason = "unless it was set, it is the same")]
        (share != before).then_some(Verdict::Cut { share })
    }
}

impl Track {
    fn new(now: u64, region: RegionId) -> Self {
        Self {
            region,
            az: None,
            state: State::In,
            errors_in_a_row: 0,
            lately: Lately::default(),
            window: Window::begin(now),
            slow_windows: 0,
            cut: 1.0,
            times: 0,
            in_since: now,
            refused_at: None,
        }
    }

    fn count(&mut self, now: u64, report: &Report, rule: &EjectionRule) {
        self.forget_ejections(now, rule);
        if report.good > 0 {
            self.errors_in_a_row = 0;
        }
        self.errors_in_a_row = self.errors_in_a_row.saturating_add(report.bad);
        self.lately = self.lately.at(now).plus(Lately {
            good: report.good.into(),
            bad: report.bad.into(),
            at: now,
        });
    }

    fn pass_trials(&mut self, now: u64, passed: u32) -> Option<Verdict> {
        if passed > SECOND_TRIALS {
            let times = self.times;
            *self = Self {
                az: self.az.take(),
                times,
                ..Self::new(now, self.region)
            };
            return Some(Verdict::Readmitted);
        }
        let State::Out { until, passed: had } = self.state else {
            return None;
        };
        self.state = State::Out { until, passed };
        (had == 0).then_some(Verdict::OnTrial)
    }

    /// Each time that it served as long as a first ejection lasts takes one back.
    fn forget_ejections(&mut self, now: u64, rule: &EjectionRule) {
        let step = u64::try_from(rule.time.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        if self.state != State::In {
            return;
        }
        while self.times > 0 && now >= self.in_since.saturating_add(step) {
            self.times -= 1;
            self.in_since += step;
        }
        if self.times == 0 {
            self.in_since = now;
        }
    }

    fn weigh(&mut self, own: f32, usual: Option<f32>, factor: u32) {
        let Some(usual) = usual else {
            return self.recover(); // nobody to compare with
        };
        let is_slow = own > usual * factor as f32 && own > usual + FELT_MICROS;
        if !is_slow {
            return self.recover();
        }
        self.slow_windows = self.slow_windows.saturating_add(1);
        if self.slow_windows >= SLOW_WINDOWS {
            self.cut = (usual / own).max(CUT_MIN).min(self.cut);
        }
    }

    /// Twice the share in each window that is not slow.
    fn recover(&mut self) {
        self.slow_windows = 0;
        self.cut = (self.cut * 2.0).min(1.0);
    }
}

/// Answers of the last while, the older the less.
#[derive(Clone, Copy, Debug, Default)]
struct Lately {
    good: f64,
    bad: f64,
    at: u64,
}

impl Lately {
    #[expect(
        clippy::cast_precision_loss,
        reason = "what is that old has decayed to nothing"
    )]
    fn at(self, now: u64) -> Self {
        let passed = now.saturating_sub(self.at);
        let kept = (-(passed as f64) / MEMORY_MS).exp();
        Self {
            good: self.good * kept,
            bad: self.bad * kept,
            at: self.at.max(now),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            good: self.good + other.good,
            bad: self.bad + other.bad,
            at: self.at.max(other.at),
        }
    }

    fn all(self) -> f64 {
        self.good + self.bad
    }

    fn share(self) -> f64 {
        self.good / self.all()
    }
}

/// The test of two proportions (pooled): it needs enough requests on both sides, not many
/// endpoints, so that it works with two of them where rules by standard deviation are dead.
fn is_worse(own: Lately, peers: Lately, rule: &EjectionRule) -> bool {
    let enough = f64::from(rule.requests);
    // Decayed counts of a steady stream stay a hair below whole numbers.
    if own.all() < enough * 0.99 || peers.all() < enough * 0.99 || own.share() >= rule.success.get()
    {
        return false;
    }
    let pooled = own.plus(peers).share();
    let error = (pooled * (1.0 - pooled) * (1.0 / own.all() + 1.0 / peers.all())).sqrt();
    peers.share() - own.share() > SIGNIFICANT * error
}

/// Latencies that are gathered until there are enough.
#[derive(Debug)]
struct Window {
    began: u64,
    sketch: Sketch,
    /// The 95th percentile of the one before, and when that ended.
    last: Option<(f32, u64)>,
}

enum Closed {
    Not,
    TooFew,
    /// Its 95th percentile.
    With(f32),
}

impl Window {
    fn begin(now: u64) -> Self {
        Self {
            began: now,
            sketch: Sketch::default(),
            last: None,
        }
    }

    fn add(&mut self, now: u64, latencies: &Sketch) -> Closed {
        self.sketch.merge(latencies);
        let age = now.saturating_sub(self.began);
        if age < WINDOW_MS || (self.sketch.count() < WINDOW_REQUESTS && age < WINDOW_MAX_MS) {
            return Closed::Not;
        }
        let closed = match self.sketch.quantile(0.95) {
            Some(p95) if self.sketch.count() >= WINDOW_REQUESTS => {
                self.last = Some((p95, now));
                Closed::With(p95)
            }
            _ => Closed::TooFew,
        };
        self.sketch = Sketch::default();
        self.began = now;
        closed
    }
}

/// All, and those that are out.
fn count<'a>(tracks: impl Iterator<Item = &'a Track>) -> (usize, usize) {
    tracks.fold((0, 0), |(all, out), track| {
        (all + 1, out + usize::from(track.state != State::In))
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a number of endpoints"
)]
fn share_of(all: usize, rule: &EjectionRule) -> usize {
    // A third is written 33 %: of nine that is three.
    (all as f64 * rule.share_max.get() + 0.05) as usize
}

/// Of an even number the lower one.
fn median(values: impl Iterator<Item = f32>) -> Option<f32> {
    let mut values: Vec<f32> = values.collect();
    values.sort_by(f32::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// A number below 1 that nobody can foresee without knowing when the endpoint failed.
#[expect(clippy::cast_precision_loss, reason = "53 bits are enough")]
fn chance(now: u64, endpoint: EndpointId) -> f64 {
    let mixed = super::balance::mix(now ^ ((endpoint.index() as u64) << 48));
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests;
