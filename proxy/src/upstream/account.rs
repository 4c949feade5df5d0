//! What one worker has seen of an endpoint: its Peak-EWMA, and what is still to be reported to the
//! pool's [`court`](super::court).
//!
//! Belongs to one worker, so that an answer costs no lock and no cache line that others write.
//! Written through [`Selected`](super::Selected); chooses nothing.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{Counter, counter};
use sealane_model::MemberTraffic;

use super::balance::Recent;
use super::ejection::Report;
use super::ewma::PeakEwma;
use super::known::Known;
use super::load::{Load, LoadTable};
use super::room::Meter;
use super::select::Choice;
use super::view::View;
use crate::config::EjectionRule;

/// How often good answers are reported; bad ones at once.
const REPORT_EVERY_MS: u64 = 250;
/// A failed try counts as so many usual latencies at least: an endpoint that fails fast must not
/// look fast. (In place of the route's 99th percentile, which lies about there.)
pub(crate) const FAILED_AS: f32 = 5.0;
/// Answers over which the usual latency is averaged.
const USUAL_OVER: f32 = 64.0;

/// An endpoint, as one worker knows it.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) load: Load,
    pub(crate) group: Rc<Group>,
    pub(crate) latency: Cell<PeakEwma>,
    /// Where it stands in the round (see `balance::in_turn`).
    pub(crate) turn: Cell<i64>,
    tally: RefCell<Tally>,
}

/// What a pool has in one region, as one worker knows it.
pub(crate) struct Group {
    loads: Arc<LoadTable>,
    /// What goes there, for control.
    pub(crate) traffic: MemberTraffic,
    /// Average latency in microseconds; 0 before the first answer.
    usual: Cell<f32>,
    /// The worst latency lately, of whichever endpoint.
    worst: Cell<PeakEwma>,
    /// Loads that choices saw lately.
    pub(crate) recent: RefCell<Recent>,
    /// Attempts in flight at all its endpoints, and when they were counted.
    pub(crate) running: Cell<(u64, u32)>,
    pub(crate) rule: Cell<Option<EjectionRule>>,
    pub(crate) slow_start: Cell<Duration>,
    /// Of whichever topology: what came up is told by it.
    pub(crate) last_view: RefCell<Option<Rc<View>>>,
    /// One for each [`Choice`] that is counted.
    choices: RefCell<[Option<Counter>; Choice::ALL.len()]>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("usual", &self.usual)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Tally {
    report: Report,
    /// When it is to be reported.
    due: u64,
}

/// What an answer says about the endpoint that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Well,
    /// As an endpoint answers that is out of order: 500, 502, 503, 504.
    Badly,
    /// Refused for too much work: nothing is wrong with it, but others should get the next ones.
    Overloaded,
}

impl Group {
    pub(crate) fn new(loads: Arc<LoadTable>, traffic: MemberTraffic) -> Self {
        Self {
            loads,
            traffic,
            usual: Cell::new(0.0),
            worst: Cell::default(),
            recent: RefCell::default(),
            running: Cell::default(),
            rule: Cell::new(None),
            slow_start: Cell::new(Duration::ZERO),
            last_view: RefCell::default(),
            choices: RefCell::default(),
        }
    }

    /// Counts a choice that is not the policy's plain one; those are what is left of all attempts.
    pub(crate) fn count(&self, choice: Choice, endpoint: &Known) {
        if choice.is_plain() {
            return;
        }
        let mut counters = self.choices.borrow_mut();
        let counter = counters[choice as usize].get_or_insert_with(|| {
            counter!(
                "proxy_endpoint_choices_total",
                "pool" => Arc::clone(&endpoint.pool_name),
                "region" => Arc::clone(&endpoint.region_name),
                "choice" => choice.as_str()
            )
        });
        counter.increment(1);
    }

    pub(crate) fn usual(&self) -> f32 {
        self.usual.get()
    }

    pub(crate) fn millis(&self, now: Instant) -> u64 {
        self.loads.millis(now)
    }

    /// What all workers send there, where there is a capacity.
    pub(crate) fn meter(&self, endpoint: &Known) -> &Meter {
        self.loads.meter(endpoint.pool, endpoint.region)
    }

    fn saw(&self, now: u64, micros: f32) {
        let usual = self.usual.get();
        let next = if usual > 0.0 {
            usual + (micros - usual) / USUAL_OVER
        } else {
            micros
        };
        self.usual.set(next);
        let mut worst = self.worst.get();
        worst.observe(now, micros);
        self.worst.set(worst);
    }

    /// What a failed try that took so long counts as.
    fn failed_as(&self, now: u64, micros: f32) -> f32 {
        let usual = self.usual.get();
        let worst = self.worst.get().read(now, usual).unwrap_or(0.0);
        micros.max(worst).max(FAILED_AS * usual)
    }
}

impl Account {
    pub(crate) fn new(load: Load, group: Rc<Group>) -> Self {
        Self {
            load,
            group,
            latency: Cell::default(),
            turn: Cell::new(0),
            tally: RefCell::default(),
        }
    }

    /// The latency to reckon with, in microseconds; the group's usual one while nothing is known,
    /// so that a new endpoint is neither flooded nor shunned.
    pub(crate) fn micros(&self, now: u64) -> f32 {
        let usual = self.group.usual();
        self.latency.get().read(now, usual).unwrap_or(usual)
    }

    pub(crate) fn answered(
        &self,
        now: u64,
        micros: f32,
        how: Answered,
        on_trial: bool,
        endpoint: &Known,
    ) {
        match how {
            Answered::Well => {
                self.observe(now, micros);
                self.group.saw(now, micros);
            }
            Answered::Badly | Answered::Overloaded => self.observe_failure(now, micros),
        }
        if how != Answered::Overloaded {
            self.tally(
                now,
                (how == Answered::Well).then_some(micros),
                on_trial,
                endpoint,
            );
        }
    }

    /// `is_fault`: of the endpoint; a kept connection that it had closed is none.
    pub(crate) fn failed(
        &self,
        now: u64,
        micros: f32,
        is_fault: bool,
        on_trial: bool,
        endpoint: &Known,
    ) {
        if is_fault {
            self.observe_failure(now, micros);
            self.tally(now, None, on_trial, endpoint);
        }
    }

    /// It was waited for in vain so long, through no fault that is known: it takes at least that.
    pub(crate) fn waited(&self, now: u64, micros: f32) {
        if micros > self.micros(now) {
            self.observe(now, micros);
        }
    }

    fn observe(&self, now: u64, micros: f32) {
        let mut latency = self.latency.get();
        latency.observe(now, micros);
        self.latency.set(latency);
    }

    fn observe_failure(&self, now: u64, micros: f32) {
        self.observe(now, self.group.failed_as(now, micros));
    }

    /// `micros`: of a good answer.
    fn tally(&self, now: u64, micros: Option<f32>, on_trial: bool, endpoint: &Known) {
        let Some(rule) = self.group.rule.get() else {
            return;
        };
        let mut tally = self.tally.borrow_mut();
        let report = &mut tally.report;
        match (micros, on_trial) {
            (Some(_), true) => report.trials_passed += 1,
            (None, true) => report.trials_failed += 1,
            (Some(micros), false) => {
                // A bad answer before it that could not be reported yet no longer ends a row.
                report.good = report.good.saturating_add(1);
                report.latencies.add(micros);
            }
            (None, false) => report.bad = report.bad.saturating_add(1),
        }
        if micros.is_some() && !on_trial && now < tally.due {
            return;
        }
        let Group {
            loads, slow_start, ..
        } = &*self.group;
        let court = loads.court(endpoint.pool);
        if court.report(now, endpoint, &tally.report, &rule, slow_start.get(), loads) {
            *tally = Tally {
                report: Report::default(),
                due: now + REPORT_EVERY_MS,
            };
            self.load.say_micros(self.micros(now));
        }
    }
}
