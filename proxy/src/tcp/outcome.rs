//! What a session becomes: metrics while it lives and at its end, one line in the access log.
//!
//! Settled when it is dropped, so that one that was cut off is not forgotten. Never waits.

use std::sync::Arc;
use std::time::Duration;

use sealane_model::Failure;
use tokio::time::Instant;

use super::end::End;
use super::relay::{Ended, Moved};
use crate::clock;
use crate::listener::{Caller, ListenerRule};
use crate::metrics::SessionMetrics;
use crate::upstream::Selected;

/// Bytes after which a session's counters are brought up to date …
const METER_BYTES: u64 = 1024 * 1024;
/// … and how long they may be behind while bytes move.
const METER_EVERY: Duration = Duration::from_secs(1);

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Finished => Self::Finished,
            Ended::ClientBroke => Self::ClientReset,
            Ended::EndpointBroke => Self::EndpointReset,
            Ended::Idle => Self::Idle,
            Ended::Lifetime => Self::Lifetime,
            Ended::Stopped => Self::EndpointDown,
        }
    }
}

/// What is known of one session.
pub(crate) struct Session {
    pub(crate) caller: Caller,
    pub(crate) started: Instant,
    /// What a TLS client asked for in the clear.
    pub(crate) server_name: Option<String>,
    /// The last one tried.
    pub(crate) selected: Option<Selected>,
    pub(crate) attempts: u32,
    pub(crate) moved: Moved,
    pub(crate) meter: Meter,
    pub(crate) end: End,
    rule: Arc<ListenerRule>,
}

impl Session {
    pub(crate) fn begin(caller: Caller, rule: Arc<ListenerRule>) -> Self {
        let started = clock::now();
        Self {
            caller,
            started,
            server_name: None,
            selected: None,
            attempts: 0,
            moved: Moved::default(),
            meter: Meter {
                counted: Moved::default(),
                counted_at: started,
                metrics: Arc::clone(rule.sessions()),
            },
            end: End::CutOff,
            rule,
        }
    }

    pub(crate) fn metrics(&self) -> &SessionMetrics {
        self.rule.sessions()
    }

    pub(crate) fn attempt_failed(&self, selected: &Selected, failure: &Failure) {
        self.metrics().attempt_failed(failure);
        tracing::debug!(
            listener = &*self.rule.name,
            region = &*selected.region_name,
            endpoint = &*selected.name,
            address = %selected.address,
            "attempt failed: {failure}"
        );
    }

    fn log(&self, took: Duration) {
        let selected = self.selected.as_ref();
        // To the microsecond.
        let duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
        tracing::info!(
            target: "sealane::access",
            client = %self.caller.source.ip(),
            listener = &*self.rule.name,
            server_name = self.server_name.as_deref(),
            bytes_received = self.moved.from_client,
            bytes_sent = self.moved.from_endpoint,
            pool = selected.map(|selected| &*selected.pool_name),
            region = selected.map(|selected| &*selected.region_name),
            endpoint = selected.map(|selected| &*selected.name),
            attempts = self.attempts,
            reason = selected.map(|selected| selected.reason.as_str()),
            choice = selected.map(|selected| selected.choice.as_str()),
            ignored_health = selected.map(|selected| selected.ignored_health),
            duration_ms,
            end = self.end.as_str(),
        );
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let took = clock::now().duration_since(self.started);
        self.meter.count(self.moved);
        self.metrics().ended(self.end, took);
        self.log(took);
    }
}

/// Counts a session's bytes while they move, without touching shared counters at each step.
pub(crate) struct Meter {
    counted: Moved,
    counted_at: Instant,
    metrics: Arc<SessionMetrics>,
}

impl Meter {
    pub(crate) fn note(&mut self, moved: Moved, now: Instant) {
        let new = moved.total().wrapping_sub(self.counted.total());
        if new >= METER_BYTES || now.duration_since(self.counted_at) >= METER_EVERY {
            self.count(moved);
            self.counted_at = now;
        }
    }

    fn count(&mut self, moved: Moved) {
        let received = moved.from_client - self.counted.from_client;
        let sent = moved.from_endpoint - self.counted.from_endpoint;
        self.metrics.moved(received, sent);
        self.counted = moved;
    }
}
