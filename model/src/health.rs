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
    /// What it carries and has room for. `None`: it has no limit.
    pub room: Option<Room>,
    /// It returns step by step, and is at this one. `None`: it has all that is its own.
    pub ramp: Option<RampStep>,
    /// What weighted shares go by, for one part of the clients after another: in place of `rtt`,
    /// `rtt_floor` and the room. Empty: these, for everyone.
    pub basis: Arc<[Basis]>,
}

/// How full a region is, as far as this node sends to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Room {
    /// What it can carry now, a second: its capacity, times the part of it that is usable.
    pub limit: f64,
    /// What is sent to it, a second.
    pub load: f64,
    /// What came although no region had room, a second, whether it was sent or refused.
    pub excess: f64,
    /// The share of those who choose it that it has room for, 0–1.
    pub accepts: f64,
}

impl Room {
    /// The part of its capacity that is used, 0 upwards.
    #[must_use]
    pub fn utilisation(&self) -> f64 {
        if self.limit > 0.0 {
            self.load / self.limit
        } else {
            1.0
        }
    }
}

/// A step of a region's return.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RampStep {
    /// The share of those who choose it that it is given, 0–1.
    pub share: f64,
    /// Which one, counted from 1.
    pub step: u16,
    pub of: u16,
    pub since: Timestamp,
    /// Errors kept it at this step for longer than it would last.
    pub held: bool,
}

/// What a share in a weighted choice goes by, besides weight and health.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Basis {
    pub rtt: Option<Duration>,
    pub rtt_floor: Option<Duration>,
    /// The free part of the capacity, 0–1; 1 where there is no limit.
    pub free: f64,
}

impl Basis {
    /// However full a region is, somebody is sent there: what nobody uses, nobody measures.
    pub const FREE_MIN: f64 = 0.05;
}

impl MemberHealth {
    /// What a share would go by if all clients went by the present figures.
    #[must_use]
    pub fn basis_now(&self) -> Basis {
        let free = self.room.map_or(1.0, |room| 1.0 - room.utilisation());
        Basis {
            rtt: self.rtt,
            rtt_floor: self.rtt_floor,
            free: free.clamp(Basis::FREE_MIN, 1.0),
        }
    }

    /// Is some of what chooses this region turned away, for want of room or because it returns step
    /// by step?
    #[must_use]
    pub fn turns_away(&self) -> bool {
        self.ramp.is_some() || self.room.is_some_and(|room| room.accepts < 1.0)
    }
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
            room: None,
            ramp: None,
            basis: Arc::new([]),
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
