//! Where all workers report what came of requests to one pool, and from where it is told what was
//! concluded: marks for the choice of endpoints, observations for control, metrics, one log line.
//!
//! The shell around [`ejection`](super::ejection)'s core. Nobody waits: a worker that finds another
//! one here keeps its report until its next one.

use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use metrics::counter;
use sealane_model::{EndpointId, Judgement, Observation, Outcome, RegionId, Source};

use super::ejection::{Ejection, REFUSAL_HOLDS, Report, SECOND_TRIALS, Seat, State, Verdict};
use super::known::Known;
use super::load::LoadTable;
use super::mark::{Mark, TRIAL_LIMIT_MS};
use crate::config::EjectionRule;

#[derive(Debug, Default)]
pub(crate) struct Court {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    core: Ejection,
    /// Endpoints that warm up after an ejection, since when and until when.
    warming: Vec<(EndpointId, u64, u64)>,
}

impl Court {
    /// Who is in `region` now. Called when the topology changed; waits for a moment.
    pub(crate) fn seat(&self, now: u64, region: RegionId, seats: &[Seat]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.core.seat(now, region, seats);
    }

    /// `false`: another worker is here; come again.
    pub(crate) fn report(
        &self,
        now: u64,
        endpoint: &Known,
        report: &Report,
        rule: &EjectionRule,
        slow_start: Duration,
        loads: &LoadTable,
    ) -> bool {
        let mut inner = match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        inner.cool(now, loads);
        let id = endpoint.endpoint;
        if let Some(verdict) = inner.core.report(now, id, report, rule) {
            if verdict == Verdict::Readmitted && !slow_start.is_zero() {
                let millis = u64::try_from(slow_start.as_millis()).unwrap_or(u64::MAX);
                inner.warming.retain(|(warm, ..)| *warm != id);
                inner.warming.push((id, now, now.saturating_add(millis)));
            }
            inner.mark(now, endpoint, loads);
            drop(inner);
            tell(endpoint, verdict, loads);
        }
        true
    }
}

impl Inner {
    /// Those that have warmed up are as plain as the others again.
    fn cool(&mut self, now: u64, loads: &LoadTable) {
        if self.warming.is_empty() {
            return;
        }
        let warming = std::mem::take(&mut self.warming);
        for (id, from, until) in warming {
            if now < until {
                self.warming.push((id, from, until));
            } else if let Mark::Less { percent, .. } = loads.mark(id) {
                loads.set_mark(id, less(percent, None));
            }
        }
    }

    /// Writes down what the core says of one endpoint.
    fn mark(&self, now: u64, endpoint: &Known, loads: &LoadTable) {
        let id = endpoint.endpoint;
        let mark = match self.core.state(id) {
            State::Out { until, passed: 0 } => Mark::Out { until },
            State::Out { .. } => Mark::Trial {
                left: SECOND_TRIALS as u8,
                again: now + TRIAL_LIMIT_MS,
            },
            State::In => {
                let warm = self.warming.iter().find(|(warm, ..)| *warm == id);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a share is within 0–1"
                )]
                let percent = (self.core.share(id) * 100.0).round() as u8;
                less(percent.max(1), warm.map(|(_, from, _)| *from))
            }
        };
        loads.set_mark(id, mark);
    }
}

const fn less(percent: u8, warm_from: Option<u64>) -> Mark {
    if percent >= 100 && warm_from.is_none() {
        return Mark::Plain;
    }
    Mark::Less { percent, warm_from }
}

fn tell(endpoint: &Known, verdict: Verdict, loads: &LoadTable) {
    let judgement = match verdict {
        Verdict::Ejected { why, times, time } => {
            count("proxy_ejections_total", endpoint, why.as_str());
            tracing::warn!(
                pool = &*endpoint.pool_name,
                region = &*endpoint.region_name,
                endpoint = &*endpoint.name,
                why = why.as_str(),
                times,
                ?time,
                "endpoint ejected: what live requests saw of it"
            );
            Judgement::Ejected { why, times, time }
        }
        Verdict::Refused { why } => {
            count("proxy_ejections_refused_total", endpoint, why.as_str());
            tracing::warn!(
                pool = &*endpoint.pool_name,
                region = &*endpoint.region_name,
                endpoint = &*endpoint.name,
                why = why.as_str(),
                "endpoint not ejected, as too many are already: its region is degraded"
            );
            Judgement::KeptInNeed {
                why,
                time: REFUSAL_HOLDS,
            }
        }
        Verdict::OnTrial => Judgement::OnTrial,
        Verdict::Readmitted => {
            tracing::info!(
                pool = &*endpoint.pool_name,
                region = &*endpoint.region_name,
                endpoint = &*endpoint.name,
                "endpoint readmitted: it answered its trials"
            );
            Judgement::Readmitted
        }
        Verdict::Cut { share } => {
            let less = if share < 1.0 { "cut" } else { "whole" };
            count("proxy_weight_cuts_total", endpoint, less);
            tracing::info!(
                pool = &*endpoint.pool_name,
                region = &*endpoint.region_name,
                endpoint = &*endpoint.name,
                share,
                "endpoint's weight changed for its latency"
            );
            Judgement::Weighs { share }
        }
    };
    if let Some(observations) = loads.observations() {
        observations.offer(Observation {
            endpoint: endpoint.endpoint,
            source: Source::Traffic,
            outcome: Outcome::Judged(judgement),
        });
    }
}

fn count(name: &'static str, endpoint: &Known, why: &'static str) {
    counter!(
        name,
        "pool" => Arc::clone(&endpoint.pool_name),
        "region" => Arc::clone(&endpoint.region_name),
        "why" => why
    )
    .increment(1);
}
