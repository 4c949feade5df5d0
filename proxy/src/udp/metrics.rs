//! What one UDP listener counts. Called by [`super::relay`] and [`super::outcome`].

use std::sync::Arc;

use metrics::{Counter, Gauge, SharedString, counter, gauge};

use super::outcome::End;

/// Why a datagram is not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Its client has as many flows as it may have, all of them proven.
    ClientLimit,
    /// There are as many flows as there may be, all of them proven.
    Limit,
    NoEndpoint,
    /// It would open a flow, and the proxy takes up nothing new.
    Draining,
    /// The endpoints that were tried refused it.
    Unreachable,
    Busy,
    /// Out of descriptors or ports, longer than the path allows, and the like.
    Os,
    Source,
}

impl Dropped {
    const ALL: [Self; 8] = [
        Self::ClientLimit,
        Self::Limit,
        Self::NoEndpoint,
        Self::Draining,
        Self::Unreachable,
        Self::Busy,
        Self::Os,
        Self::Source,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ClientLimit => "client_limit",
            Self::Limit => "limit",
            Self::NoEndpoint => "no_endpoint",
            Self::Draining => "draining",
            Self::Unreachable => "unreachable",
            Self::Busy => "busy",
            Self::Os => "os",
            Self::Source => "source",
        }
    }
}

/// Why a flow goes on to another endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// Probes say that its endpoint is down.
    Down,
    /// Its endpoint was removed, or has another address now.
    Gone,
    /// Its endpoint's host said that nobody listens, or cannot be reached.
    Refused,
}

impl Move {
    const ALL: [Self; 3] = [Self::Down, Self::Gone, Self::Refused];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Gone => "gone",
            Self::Refused => "refused",
        }
    }
}

/// Handles to one listener's numbers; the same name gives the same numbers, also after a reload.
pub(crate) struct FlowMetrics {
    pub(crate) open: Gauge,
    pub(crate) opened: Counter,
    pub(crate) received: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) sent: Counter,
    pub(crate) sent_bytes: Counter,
    ends: [Counter; End::ALL.len()],
    moves: [Counter; Move::ALL.len()],
    drops: [Counter; Dropped::ALL.len()],
}

impl FlowMetrics {
    pub(crate) fn new(listener: &Arc<str>) -> Self {
        let name = || SharedString::from(Arc::clone(listener));
        let datagrams = |direction| {
            (
                counter!("proxy_datagrams_total", "listener" => name(), "direction" => direction),
                counter!("proxy_datagram_bytes_total", "listener" => name(), "direction" => direction),
            )
        };
        let (received, received_bytes) = datagrams("received");
        let (sent, sent_bytes) = datagrams("sent");
        Self {
            open: gauge!("proxy_flows", "listener" => name()),
            opened: counter!("proxy_flows_total", "listener" => name()),
            received,
            received_bytes,
            sent,
            sent_bytes,
            ends: End::ALL.map(
                |end| counter!("proxy_flow_ends_total", "listener" => name(), "end" => end.as_str()),
            ),
            moves: Move::ALL.map(
                |why| counter!("proxy_flow_moves_total", "listener" => name(), "why" => why.as_str()),
            ),
            drops: Dropped::ALL.map(
                |why| counter!("proxy_datagrams_dropped_total", "listener" => name(), "cause" => why.as_str()),
            ),
        }
    }

    pub(crate) fn ended(&self, end: End) {
        self.open.decrement(1);
        self.ends[end as usize].increment(1);
    }

    pub(crate) fn moved(&self, why: Move) {
        self.moves[why as usize].increment(1);
    }

    pub(crate) fn dropped(&self, why: Dropped) {
        self.drops[why as usize].increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_the_order_of_what_indexes_them() {
        for (at, end) in End::ALL.into_iter().enumerate() {
            assert_eq!(end as usize, at);
        }
        for (at, why) in Move::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at);
        }
        for (at, why) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at);
        }
    }
}
