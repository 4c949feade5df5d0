//! What an ended flow becomes: load released, metrics, one line in the access log. The one place
//! where that happens.
//!
//! Called by dropping a [`Flow`]. Never waits.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use sealane_model::Generation;
use sealane_steering::ClientPlace;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::relay::UdpRule;
use crate::clock;
use crate::shared::FlowGuard;
use crate::upstream::{LoadGuard, Selected, Tried};

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its client was silent for too long.
    Idle,
    /// As many answers came as were expected.
    Answered,
    /// It made way for another one.
    Evicted,
    /// The operator removed the listener.
    Removed,
    /// The proxy ended.
    CutOff,
}

impl End {
    pub(crate) const ALL: [Self; 5] = [
        Self::Idle,
        Self::Answered,
        Self::Evicted,
        Self::Removed,
        Self::CutOff,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Answered => "answered",
            Self::Evicted => "evicted",
            Self::Removed => "removed",
            Self::CutOff => "cut_off",
        }
    }
}

/// One client's datagrams to one endpoint at a time, and back. Dropping it settles it.
pub(super) struct Flow {
    pub(super) rule: Arc<UdpRule>,
    pub(super) client: SocketAddr,
    pub(super) place: ClientPlace,
    /// The same for all that is chosen for this flow.
    pub(super) key: u64,
    pub(super) started: Instant,
    pub(super) selected: Selected,
    pub(super) socket: Rc<UdpSocket>,
    /// The task that carries answers.
    pub(super) answers: Option<AbortHandle>,
    /// The world in which its endpoint was last looked at.
    pub(super) seen: Generation,
    /// Its endpoint did not take what was sent.
    pub(super) refused: Option<Tried>,
    pub(super) tally: Tally,
    /// What it ends for once it is dropped.
    pub(super) end: End,
    pub(super) load: LoadGuard,
    pub(super) _open: FlowGuard,
}

/// What a flow carried, and how often it went on to another endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) received: u64,
    pub(super) received_bytes: u64,
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    pub(super) moves: u32,
}

impl Drop for Flow {
    fn drop(&mut self) {
        if let Some(answers) = &self.answers {
            answers.abort();
        }
        self.rule.metrics.ended(self.end);
        self.log();
    }
}

impl Flow {
    /// A datagram of the client went to the endpoint.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        let length = bytes.len() as u64;
        self.tally.received += 1;
        self.tally.received_bytes += length;
        self.rule.metrics.received.increment(1);
        self.rule.metrics.received_bytes.increment(length);
    }

    /// A datagram of the endpoint went to the client.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let length = bytes.len() as u64;
        self.tally.sent += 1;
        self.tally.sent_bytes += length;
        self.rule.metrics.sent.increment(1);
        self.rule.metrics.sent_bytes.increment(length);
    }

    pub(super) fn has_all_answers(&self) -> bool {
        let Tally { received, sent, .. } = self.tally;
        let expected = self.rule.how.answers.map(u64::from);
        expected.is_some_and(|each| sent >= received.saturating_mul(each))
    }

    fn log(&self) {
        let Self {
            rule,
            selected,
            tally,
            client,
            end,
            ..
        } = self;
        if *end == End::Evicted {
            // In a flood there are as many as there are datagrams; those of the other ends are at most
            // the flows there may be in each `idle`.
            tracing::debug!(%client, listener = &*rule.listener, "a flow made way for another one");
            return;
        }
        let took = clock::now().duration_since(self.started);
        tracing::info!(
            target: "sealane::access",
            protocol = "udp",
            client = %client,
            listener = &*rule.listener,
            pool = &*selected.pool_name,
            region = &*selected.region_name,
            endpoint = &*selected.name,
            datagrams_received = tally.received,
            bytes_received = tally.received_bytes,
            datagrams_sent = tally.sent,
            bytes_sent = tally.sent_bytes,
            moves = tally.moves,
            reason = selected.reason.as_str(),
            ignored_health = selected.ignored_health,
            // To the microsecond.
            duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3,
            end = end.as_str(),
        );
    }
}
