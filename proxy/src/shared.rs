//! What all workers share: the rules, the world, the counters. Holds no socket and runs nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use sealane_model::{ObservationSender, SnapshotReader};
use sealane_tls::{Connectors, Issued};
use tokio::sync::{Notify, watch};

use crate::challenge::Challenges;
use crate::clients::Clients;
use crate::config::Config;
use crate::http::coalesce::table::Flights;
use crate::http::route::RouteTable;
use crate::upstream::LoadTable;
use crate::upstream::pools::PoolGates;

/// The operator's word, as requests read it. Replaced whole.
pub(crate) struct Rules {
    pub(crate) config: Config,
    pub(crate) routes: RouteTable,
}

/// How far the proxy's life has come; it only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// A successor accepts now: every exchange that began is finished, and idle clients get time to
    /// ask once more and be told of the end.
    SteppingAside,
    /// Accepts no more; every exchange that began is finished.
    Draining,
    /// Whatever is left is cut off.
    Ended,
}

pub(crate) struct Shared {
    pub(crate) rules: ArcSwap<Rules>,
    pub(crate) world: SnapshotReader,
    pub(crate) observations: ObservationSender,
    pub(crate) loads: Arc<LoadTable>,
    pub(crate) flights: Flights,
    pub(crate) gates: PoolGates,
    pub(crate) open: OpenConnections,
    pub(crate) clients: Clients,
    pub(crate) tls: Arc<Connectors>,
    pub(crate) challenges: Challenges,
    pub(crate) issued: Issued,
    pub(crate) phase: watch::Sender<Phase>,
}

impl Shared {
    /// Writes the gauges of what is bounded.
    pub(crate) fn show_places(&self) {
        self.gates.show();
        for route in self.rules.load().routes.routes() {
            route.places.show();
            route.rates.show();
        }
    }
}

/// Client connections open now, over all workers.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections {
    count: AtomicUsize,
    /// UDP flows: no connections, so that a flood of forged ones leaves connections their places.
    flows: AtomicUsize,
    /// Sockets that are still accepted from.
    accepting: AtomicUsize,
    none_left: Notify,
}

impl OpenConnections {
    /// Counts one more, unless there are `max` already.
    pub(crate) fn admit(shared: &Arc<Shared>, max: usize) -> Option<OpenGuard> {
        let before = shared.open.count.fetch_add(1, Ordering::Relaxed);
        let guard = OpenGuard(Arc::clone(shared));
        (before < max).then_some(guard)
    }

    /// Connections and flows.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire) + self.flows.load(Ordering::Acquire)
    }

    pub(crate) fn begin_flow(shared: &Arc<Shared>) -> FlowGuard {
        shared.open.flows.fetch_add(1, Ordering::Relaxed);
        FlowGuard(Arc::clone(shared))
    }

    pub(crate) fn begin_accepting(shared: &Arc<Shared>) -> AcceptingGuard {
        shared.open.accepting.fetch_add(1, Ordering::Relaxed);
        AcceptingGuard(Arc::clone(shared))
    }

    /// Resolves when no connection and no flow is open and none can come.
    pub(crate) async fn none_left(&self) {
        loop {
            let notified = self.none_left.notified();
            let mut notified = std::pin::pin!(notified);
            // From here on a wake-up is not missed.
            notified.as_mut().enable();
            if self.count() == 0 && self.accepting.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// One open connection.
pub(crate) struct OpenGuard(Arc<Shared>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        if self.0.open.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.open.none_left.notify_waiters();
        }
    }
}

/// One open UDP flow.
pub(crate) struct FlowGuard(Arc<Shared>);

impl Drop for FlowGuard {
    fn drop(&mut self) {
        if self.0.open.flows.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.open.none_left.notify_waiters();
        }
    }
}

/// One socket that is accepted from.
pub(crate) struct AcceptingGuard(Arc<Shared>);

impl Drop for AcceptingGuard {
    fn drop(&mut self) {
        self.0.open.accepting.fetch_sub(1, Ordering::AcqRel);
        self.0.open.none_left.notify_waiters();
    }
}
