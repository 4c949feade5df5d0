//! What is concluded about endpoints and regions. Concludes nothing itself: control does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::observation::EjectionCause;
use crate::unit::Timestamp;

/// The settled conclusion about one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Not probed yet.
    #[default]
    Unknown,
    Up,
    /// Was up; something failed since, and probes have not yet said what it means.
    Suspect,
    /// Was down; has passed a probe since, but not yet often enough.
    Probation,
    /// The operator asked for no new work.
    Draining,
    Down,
}

impl Verdict {
    /// May new work be given to it while better ones lack?
    #[must_use]
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Up | Self::Suspect | Self::Unknown)
    }

    /// The word used in the API, in metrics and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Probation => "probation",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

/// Who brought a verdict about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Source {
    #[default]
    Probe,
    Traffic,
    Operator,
    /// Read from the map that an earlier process left on disk.
    Restored,
}

impl Source {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Traffic => "traffic",
            Self::Operator => "operator",
            Self::Restored => "restored",
        }
    }
}

/// One endpoint at one moment.
#[derive(Clone, Debug, Default)]
pub struct EndpointHealth {
    pub verdict: Verdict,
    pub since: Timestamp,
    pub by: Source,
    /// The last failure, in words, while it matters.
    pub cause: Option<Arc<str>>,
    /// Smoothed round trip of its probes.
    pub rtt: Option<Duration>,
    /// What the proxy on this node concluded from live requests, and acts upon.
    pub judged: Option<Judged>,
    /// Where it is reached now: one for a literal address, what resolving gave for a host name.
    pub addresses: Arc<[SocketAddr]>,
}

/// A conclusion from live requests. It stands beside the verdict: probes do not take it back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judged {
    /// It gets nothing until then; then a trial.
    Ejected {
        why: EjectionCause,
        times: u32,
        until: Timestamp,
    },
    /// It passed a first trial.
    OnTrial { times: u32, since: Timestamp },
    /// It would be ejected, but too many of its region are: it serves on.
    KeptInNeed {
        why: EjectionCause,
        until: Timestamp,
    },
    /// It gets this share of its weight, for its latency.
    Weighs { share: f32 },
}

/// What a pool has in one region, at one moment.
#[derive(Clone, Debug)]
pub struct MemberHealth {
    pub standing: Standing,
    pub since: Timestamp,
    /// Endpoints that are usable, of [`MemberHealth::total`].
    pub healthy: u32,
    pub total: u32,
    /// A usable endpoint is suspect, or one that counts is on trial: answers should live shorter.
    pub suspect: bool,
    /// Live requests found more of its endpoints out of order than may be left out: those count as
    /// failed.
    pub degraded: bool,
    /// Smoothed probe round trip from this node: the median of the usable endpoints.
    pub rtt: Option<Duration>,
    /// The lowest `rtt` seen lately: what distance alone explains.
    pub rtt_floor: Option<Duration>,
    /// What DNS answers for this region now.
    pub addresses: Arc<[IpAddr]>,
}

impl Default for MemberHealth {
    /// In, unprobed, without endpoints.
    fn default() -> Self {
        Self {
            standing: Standing::In,
            since: Timestamp::default(),
            healthy: 0,
            total: 0,
            suspect: false,
            degraded: false,
            rtt: None,
            rtt_floor: None,
            addresses: Arc::new([]),
        }
    }
}

/// Whether a region may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    In,
    Out(OutReason),
}

/// Why a region may not be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutReason {
    /// The share of endpoints down reached the threshold.
    Failed,
    /// Well again, but kept out until then.
    HoldDown { until: Timestamp },
    /// The operator moved it away.
    FailedOver,
    /// The operator drains it.
    Draining,
    /// It has no endpoints.
    Empty,
}

impl OutReason {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::HoldDown { .. } => "hold_down",
            Self::FailedOver => "failed_over",
            Self::Draining => "draining",
            Self::Empty => "empty",
        }
    }
}
