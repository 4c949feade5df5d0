//! The names, units and labels of this crate's metrics, and handles to those on the request path.
//!
//! Label values are names from the configuration or words of an enum, so their number is bounded by
//! the file. Counts nothing itself: `http::outcome`, the listeners and the connection pools do.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use metrics::{
    Counter, Gauge, Histogram, SharedString, Unit, counter, describe_counter, describe_gauge,
    describe_histogram, gauge, histogram,
};
use sealane_model::{Failure, RegionId};
use sealane_steering::Reason;

use crate::http::coalesce::Part;
use crate::http::mirror::Mirrored;
use crate::http::retry::GiveUp;
use crate::slots::Slots;
use crate::tcp::end::End;
use crate::upstream::Selected;
use crate::upstream::hedging::Hedged;

/// Says what each metric of the proxy means. Called once, after the recorder is installed.
pub fn describe() {
    describe_requests();
    describe_bounds();
    describe_attempts();
    describe_connections();
    describe_sessions();
    describe_flows();
}

fn describe_requests() {
    describe_counter!(
        "proxy_requests_total",
        Unit::Count,
        "Requests finished, by route and class: 1xx to 5xx of the answer sent, or aborted where \
         the client left before the answer's head"
    );
    describe_histogram!(
        "proxy_request_seconds",
        Unit::Seconds,
        "From a request's head to its last byte answered, by route"
    );
    describe_counter!(
        "proxy_received_bytes_total",
        Unit::Bytes,
        "Bytes of request bodies read from clients, by route"
    );
    describe_counter!(
        "proxy_sent_bytes_total",
        Unit::Bytes,
        "Bytes of answer bodies sent to clients, by route"
    );
    describe_counter!(
        "proxy_refusals_total",
        Unit::Count,
        "Requests that Sealane itself answered with an error, by kind"
    );
}

fn describe_bounds() {
    describe_gauge!(
        "proxy_places",
        Unit::Count,
        "Places for requests: of a pool or a route (its bulkhead), or of a pool in a region \
         (concurrency); written every 5 s"
    );
    describe_gauge!("proxy_places_taken", Unit::Count, "Of them, those in use");
    describe_gauge!(
        "proxy_places_waiting",
        Unit::Count,
        "Requests that wait for one of them"
    );
    describe_counter!(
        "proxy_shed_total",
        Unit::Count,
        "Requests refused for want of a place, by route, tier and why: overloaded, pool_full and \
         route_full (and each with _waited: a place was waited for), tenant_full or overloaded_cpu"
    );
    describe_histogram!(
        "proxy_wait_seconds",
        Unit::Seconds,
        "What requests waited that found no place at once, by route"
    );
    describe_counter!(
        "proxy_rate_limited_total",
        Unit::Count,
        "Requests refused for coming too often, by route and rule"
    );
    describe_gauge!(
        "proxy_rate_share",
        Unit::Count,
        "What an adaptive rule leaves of its rate (1: all), by route and rule"
    );
    describe_counter!(
        "proxy_rate_forgotten_total",
        Unit::Count,
        "Keys that a rate rule forgot before their allowance was full again, for want of room, by \
         route and rule"
    );
}

fn describe_attempts() {
    describe_counter!(
        "proxy_attempts_total",
        Unit::Count,
        "Attempts at endpoints, by route, region and the reason for choosing the region"
    );
    describe_counter!(
        "proxy_attempt_failures_total",
        Unit::Count,
        "Attempts that failed before the answer's end, by route and cause"
    );
    describe_counter!(
        "proxy_retries_total",
        Unit::Count,
        "Further attempts, by route and what failed before"
    );
    describe_counter!(
        "proxy_retry_refusals_total",
        Unit::Count,
        "Failed attempts that were not followed by another one, by route and why"
    );
    describe_counter!(
        "proxy_hedges_total",
        Unit::Count,
        "Second attempts that were begun beside a slow first one, by route and end: won, wasted (the \
         first answered), failed (both did) or aborted (the client left)"
    );
    describe_counter!(
        "proxy_hedge_refusals_total",
        Unit::Count,
        "Slow attempts beside which no second one was begun, by route and why: budget, retry_budget, \
         busy, tier, win_rate, nothing_left, body or out_of_time"
    );
    describe_counter!(
        "proxy_coalesced_total",
        Unit::Count,
        "Requests of routes that coalesce, by route and part: led (its attempt served others), \
         followed (another one's attempt served it), or why it did not share (see RESILIENCE.md)"
    );
    describe_counter!(
        "proxy_mirrored_total",
        Unit::Count,
        "Requests that a second pool was to see, by route and outcome: answered, failed, timed_out, \
         or not mirrored because as many were under way as may be (busy), the body was too large \
         (large) or did not come to its end (unfinished)"
    );
    describe_counter!(
        "proxy_endpoint_choices_total",
        Unit::Count,
        "Choices of an endpoint that were not the balancing policy's plain one, by pool, region and \
         choice: hash_full, az_full, trial, panic, ejection_ignored, health_ignored or last_resort"
    );
    describe_counter!(
        "proxy_ejections_total",
        Unit::Count,
        "Endpoints ejected for what live requests saw, by pool, region and why: errors_in_a_row, \
         success_rate or failed_trial"
    );
    describe_counter!(
        "proxy_ejections_refused_total",
        Unit::Count,
        "Endpoints that would have been ejected had not too many been already, by pool, region and why"
    );
    describe_counter!(
        "proxy_weight_cuts_total",
        Unit::Count,
        "Changes of an endpoint's weight for its latency, by pool, region and why: cut or whole"
    );
    describe_counter!(
        "proxy_split_requests_total",
        Unit::Count,
        "Requests that were a canary's by their key, by route, the canary's pool and way: canary (there), or \
         aborted (to the route's own pool)"
    );
    describe_counter!(
        "proxy_split_aborts_total",
        Unit::Count,
        "Canaries that were aborted, by route, pool and why: errors or latency"
    );
    describe_counter!(
        "proxy_sticky_requests_total",
        Unit::Count,
        "Requests of sticky routes, by route and what they brought: kept (a cookie, and its endpoint serves), moved (it \
         does not), new (no cookie), unknown (one that is not ours), keyed or keyless (with and without the header)"
    );
    describe_counter!(
        "proxy_upstream_connects_total",
        Unit::Count,
        "Connections opened to endpoints, by pool"
    );
    describe_counter!(
        "proxy_upstream_reuses_total",
        Unit::Count,
        "Attempts that went over a connection that was already open, by pool"
    );
}

fn describe_connections() {
    describe_gauge!(
        "proxy_connections",
        Unit::Count,
        "Client connections open now, by listener"
    );
    describe_counter!(
        "proxy_accepts_total",
        Unit::Count,
        "Client connections accepted, by listener"
    );
    describe_counter!(
        "proxy_accept_failures_total",
        Unit::Count,
        "Connections that could not be accepted, by listener and cause: os (out of descriptors \
         and the like), or closed at once because too many are open: limit (in all) or \
         client_limit (from one client)"
    );
    describe_counter!(
        "proxy_floods_total",
        Unit::Count,
        "HTTP/2 connections ended because their clients flooded them, by kind: control_frames, \
         resets or refused_heads"
    );
    describe_counter!(
        "proxy_handshake_failures_total",
        Unit::Count,
        "TLS handshakes that failed or took too long, by listener"
    );
    describe_counter!(
        "proxy_protocol_failures_total",
        Unit::Count,
        "Connections of trusted senders that were closed for want of a lawful PROXY header, by listener"
    );
}

fn describe_sessions() {
    describe_counter!(
        "proxy_sessions_total",
        Unit::Count,
        "TCP sessions that ended, by listener and end: finished, client_reset, endpoint_reset, \
         idle, lifetime, endpoint_down (closed because its endpoint went down), no_endpoint (none \
         could be connected to), bad_hello (no lawful ClientHello in time), unknown_name (nobody \
         serves the server name) or cut_off (at the end of a drain)"
    );
    describe_histogram!(
        "proxy_session_seconds",
        Unit::Seconds,
        "From a TCP session's beginning to its end, by listener"
    );
    describe_counter!(
        "proxy_session_received_bytes_total",
        Unit::Bytes,
        "Bytes taken from clients in TCP sessions, by listener"
    );
    describe_counter!(
        "proxy_session_sent_bytes_total",
        Unit::Bytes,
        "Bytes taken from endpoints for clients in TCP sessions, by listener"
    );
    describe_counter!(
        "proxy_session_attempts_total",
        Unit::Count,
        "Connections to endpoints that TCP sessions tried, by listener, region and the reason for \
         choosing the region"
    );
    describe_counter!(
        "proxy_session_attempt_failures_total",
        Unit::Count,
        "Connections to endpoints that TCP sessions did not get, by listener and cause"
    );
}

fn describe_flows() {
    describe_gauge!(
        "proxy_flows",
        Unit::Count,
        "UDP flows open now, by listener"
    );
    describe_counter!(
        "proxy_flows_total",
        Unit::Count,
        "UDP flows opened, by listener"
    );
    describe_counter!(
        "proxy_flow_ends_total",
        Unit::Count,
        "UDP flows ended, by listener and why: idle, answered, evicted, removed (its listener) or cut_off"
    );
    describe_counter!(
        "proxy_flow_moves_total",
        Unit::Count,
        "UDP flows that went on to another endpoint, by listener and why: down, gone or refused"
    );
    describe_counter!(
        "proxy_datagrams_total",
        Unit::Count,
        "UDP datagrams carried, by listener and direction: received (from clients) or sent (to them)"
    );
    describe_counter!(
        "proxy_datagram_bytes_total",
        Unit::Bytes,
        "Bytes in the UDP datagrams carried, by listener and direction"
    );
    describe_counter!(
        "proxy_datagrams_dropped_total",
        Unit::Count,
        "UDP datagrams not carried, by listener and cause: client_limit, limit, no_endpoint, \
         draining, unreachable (no endpoint took it), busy (the kernel's queue is full), os, \
         or source (nobody can be answered there)"
    );
}

/// An HTTP/2 connection was ended for what its client sent. `kind`: a word of an enum.
pub(crate) fn flooded(kind: &'static str) {
    counter!("proxy_floods_total", "kind" => kind).increment(1);
}

/// A request ended with Sealane's own answer. `kind`: a word of an enum.
pub(crate) fn refused(kind: &'static str) {
    counter!("proxy_refusals_total", "kind" => kind).increment(1);
}

/// What one route counts; shared by all workers.
pub(crate) struct RouteMetrics {
    route: SharedString,
    by_class: [Counter; Class::ALL.len()],
    seconds: Histogram,
    received: Counter,
    sent: Counter,
    retry_refusals: [Counter; GiveUp::ALL.len()],
    /// Made when the route first coalesces.
    coalesced: OnceLock<[Counter; Part::ALL.len()]>,
    /// Made when the route first mirrors.
    mirrored: OnceLock<[Counter; Mirrored::ALL.len()]>,
    /// One for each region and reason that occurred, see [`attempts_slot`].
    attempts: Slots<Counter>,
}

impl RouteMetrics {
    /// The same name gives handles to the same numbers, also after a reload.
    pub(crate) fn new(route: &Arc<str>) -> Self {
        let label = || SharedString::from(Arc::clone(route));
        Self {
            route: label(),
            by_class: Class::ALL.map(
                |class| counter!("proxy_requests_total", "route" => label(), "class" => class.as_str()),
            ),
            seconds: histogram!("proxy_request_seconds", "route" => label()),
            received: counter!("proxy_received_bytes_total", "route" => label()),
            sent: counter!("proxy_sent_bytes_total", "route" => label()),
            retry_refusals: GiveUp::ALL.map(
                |why| counter!("proxy_retry_refusals_total", "route" => label(), "why" => why.as_str()),
            ),
            coalesced: OnceLock::new(),
            mirrored: OnceLock::new(),
            attempts: Slots::default(),
        }
    }

    pub(crate) fn mirrored(&self, outcome: Mirrored) {
        let counters = self.mirrored.get_or_init(|| {
            Mirrored::ALL.map(|outcome| {
                let route = self.route.clone();
                counter!("proxy_mirrored_total", "route" => route, "outcome" => outcome.as_str())
            })
        });
        counters[outcome as usize].increment(1);
    }

    pub(crate) fn coalesced(&self, part: Part) {
        let counters = self.coalesced.get_or_init(|| {
            Part::ALL.map(|part| {
                let route = self.route.clone();
                counter!("proxy_coalesced_total", "route" => route, "part" => part.as_str())
            })
        });
        counters[part as usize].increment(1);
    }

    /// `status`: of the answer whose head was sent, `None` if the client left before. Bytes are
    /// those of the bodies.
    pub(crate) fn request(
        &self,
        status: Option<StatusCode>,
        took: Duration,
        received: u64,
        sent: u64,
    ) {
        self.by_class[Class::of(status) as usize].increment(1);
        self.seconds.record(took);
        self.received.increment(received);
        self.sent.increment(sent);
    }

    pub(crate) fn attempt(&self, region: RegionId, region_name: &Arc<str>, reason: Reason) {
        let attempts = self
            .attempts
            .get_or_make(attempts_slot(region, reason), || {
                counter!(
                    "proxy_attempts_total",
                    "route" => self.route.clone(),
                    "region" => Arc::clone(region_name),
                    "reason" => reason.as_str()
                )
            });
        attempts.increment(1);
    }

    pub(crate) fn attempt_failed(&self, cause: &Failure) {
        let (route, cause) = (self.route.clone(), cause.as_str());
        counter!("proxy_attempt_failures_total", "route" => route, "cause" => cause).increment(1);
    }

    pub(crate) fn retried(&self, after: &Failure) {
        let (route, cause) = (self.route.clone(), after.as_str());
        counter!("proxy_retries_total", "route" => route, "cause" => cause).increment(1);
    }

    pub(crate) fn hedged(&self, hedge: Hedged) {
        let (route, word) = (self.route.clone(), hedge.word());
        match hedge {
            Hedged::Not(_) => {
                counter!("proxy_hedge_refusals_total", "route" => route, "why" => word)
                    .increment(1);
            }
            Hedged::Won | Hedged::Wasted | Hedged::Failed | Hedged::Aborted => {
                counter!("proxy_hedges_total", "route" => route, "end" => word).increment(1);
            }
        }
    }

    /// `way`: where a request went that was the canary's by its key.
    pub(crate) fn split(&self, pool: &Arc<str>, way: &'static str) {
        let (route, pool) = (self.route.clone(), Arc::clone(pool));
        counter!("proxy_split_requests_total", "route" => route, "pool" => pool, "way" => way)
            .increment(1);
    }

    pub(crate) fn session(&self, found: &'static str) {
        let route = self.route.clone();
        counter!("proxy_sticky_requests_total", "route" => route, "found" => found).increment(1);
    }

    pub(crate) fn split_aborted(&self, pool: &Arc<str>, why: &'static str) {
        let (route, pool) = (self.route.clone(), Arc::clone(pool));
        counter!("proxy_split_aborts_total", "route" => route, "pool" => pool, "why" => why)
            .increment(1);
    }

    pub(crate) fn not_retried(&self, why: GiveUp) {
        self.retry_refusals[why as usize].increment(1);
    }
}

/// Lossless: 65,536 regions with a few reasons each.
const fn attempts_slot(region: RegionId, reason: Reason) -> u32 {
    (region.index() * Reason::WORDS + reason.index()) as u32
}

impl std::fmt::Debug for RouteMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouteMetrics")
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

/// What a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Informational,
    Success,
    Redirection,
    ClientError,
    ServerError,
    Aborted,
}

impl Class {
    const ALL: [Self; 6] = [
        Self::Informational,
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
        Self::Aborted,
    ];

    fn of(status: Option<StatusCode>) -> Self {
        match status.map(|status| status.as_u16() / 100) {
            None => Self::Aborted,
            Some(0 | 1) => Self::Informational,
            Some(2) => Self::Success,
            Some(3) => Self::Redirection,
            Some(4) => Self::ClientError,
            // RFC 9110 §15: a status above 599 is to be treated as a server error.
            Some(_) => Self::ServerError,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::Aborted => "aborted",
        }
    }
}

/// What one listener counts; shared by all workers, survives reloads by its name.
#[derive(Clone)]
pub(crate) struct ListenerMetrics {
    pub(crate) accepts: Counter,
    /// Incremented when a connection is accepted, decremented when it ends.
    pub(crate) connections: Gauge,
    pub(crate) handshake_failures: Counter,
    /// A trusted sender did not say whom the connection is from.
    pub(crate) protocol_failures: Counter,
    /// The operating system gave no connection: out of descriptors and the like.
    pub(crate) accept_failures: Counter,
    /// Closed at once: as many connections as the limits allow were open.
    pub(crate) over_limit: Counter,
    /// Closed at once: the client has as many as one may have.
    pub(crate) over_client_limit: Counter,
}

impl ListenerMetrics {
    pub(crate) fn new(listener: &Arc<str>) -> Self {
        let label = || SharedString::from(Arc::clone(listener));
        let failures = |cause: &'static str| counter!("proxy_accept_failures_total", "listener" => label(), "cause" => cause);
        Self {
            accepts: counter!("proxy_accepts_total", "listener" => label()),
            connections: gauge!("proxy_connections", "listener" => label()),
            handshake_failures: counter!("proxy_handshake_failures_total", "listener" => label()),
            protocol_failures: counter!("proxy_protocol_failures_total", "listener" => label()),
            accept_failures: failures("os"),
            over_limit: failures("limit"),
            over_client_limit: failures("client_limit"),
        }
    }
}

impl std::fmt::Debug for ListenerMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerMetrics").finish_non_exhaustive()
    }
}

/// What the sessions of one listener count; shared by all workers, survives reloads by its name.
pub(crate) struct SessionMetrics {
    listener: SharedString,
    ended: [Counter; End::ALL.len()],
    seconds: Histogram,
    received: Counter,
    sent: Counter,
}

impl SessionMetrics {
    pub(crate) fn new(listener: &Arc<str>) -> Self {
        let label = || SharedString::from(Arc::clone(listener));
        Self {
            listener: label(),
            ended: End::ALL.map(
                |end| counter!("proxy_sessions_total", "listener" => label(), "end" => end.as_str()),
            ),
            seconds: histogram!("proxy_session_seconds", "listener" => label()),
            received: counter!("proxy_session_received_bytes_total", "listener" => label()),
            sent: counter!("proxy_session_sent_bytes_total", "listener" => label()),
        }
    }

    pub(crate) fn ended(&self, end: End, took: Duration) {
        self.ended[end as usize].increment(1);
        self.seconds.record(took);
    }

    pub(crate) fn moved(&self, received: u64, sent: u64) {
        self.received.increment(received);
        self.sent.increment(sent);
    }

    pub(crate) fn attempt(&self, selected: &Selected) {
        let attempts = counter!(
            "proxy_session_attempts_total",
            "listener" => self.listener.clone(),
            "region" => Arc::clone(&selected.region_name),
            "reason" => selected.reason.as_str()
        );
        attempts.increment(1);
    }

    pub(crate) fn attempt_failed(&self, cause: &Failure) {
        let (listener, cause) = (self.listener.clone(), cause.as_str());
        counter!("proxy_session_attempt_failures_total", "listener" => listener, "cause" => cause)
            .increment(1);
    }
}

impl std::fmt::Debug for SessionMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionMetrics")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// What the connections to one pool's endpoints count.
#[derive(Clone)]
pub(crate) struct PoolMetrics {
    pub(crate) connects: Counter,
    pub(crate) reuses: Counter,
}

impl PoolMetrics {
    pub(crate) fn new(pool: &Arc<str>) -> Self {
        let label = || SharedString::from(Arc::clone(pool));
        Self {
            connects: counter!("proxy_upstream_connects_total", "pool" => label()),
            reuses: counter!("proxy_upstream_reuses_total", "pool" => label()),
        }
    }
}

impl std::fmt::Debug for PoolMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolMetrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_class_and_a_client_that_left_one_of_its_own() {
        let class = |status: u16| Class::of(StatusCode::from_u16(status).ok()).as_str();

        assert_eq!(class(101), "1xx");
        assert_eq!(class(204), "2xx");
        assert_eq!(class(304), "3xx");
        assert_eq!(class(499), "4xx");
        assert_eq!(class(503), "5xx");
        assert_eq!(class(999), "5xx");
        assert_eq!(Class::of(None).as_str(), "aborted");
    }

    #[test]
    fn tables_are_in_the_order_of_what_indexes_them() {
        for (at, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, at);
        }
        for (at, outcome) in Mirrored::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, at);
        }
        for (at, part) in Part::ALL.into_iter().enumerate() {
            assert_eq!(part as usize, at);
        }
        for (at, why) in GiveUp::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at);
        }
    }
}
