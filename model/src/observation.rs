//! One fact about one endpoint. Facts are concluded from in control only, which also dates them:
//! when it takes one in, milliseconds after it happened.

use std::time::Duration;

use crate::health::Source;
use crate::id::EndpointId;

#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    pub endpoint: EndpointId,
    pub source: Source,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Passed {
        rtt: Duration,
    },
    Failed(Failure),
    /// Concluded by the proxy from many live requests.
    Judged(Judgement),
}

/// What the proxy concluded about an endpoint, and acts upon by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judgement {
    /// It gets nothing for `time`, for the `times`-th time; then a trial.
    Ejected {
        why: EjectionCause,
        times: u32,
        time: Duration,
    },
    /// It deserved to be ejected, but too many of its region are: it serves on, and for `time` its
    /// region is the worse for it.
    KeptInNeed {
        why: EjectionCause,
        time: Duration,
    },
    /// It passed a first trial after its ejection.
    OnTrial,
    Readmitted,
    /// It gets this share of its weight, for its latency.
    Weighs {
        share: f32,
    },
}

/// Why an endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EjectionCause {
    ErrorsInARow,
    /// Its share of good answers is low, and significantly below its peers'.
    SuccessRate,
    FailedTrial,
}

impl EjectionCause {
    /// The word used in the API, in metrics and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ErrorsInARow => "errors_in_a_row",
            Self::SuccessRate => "success_rate",
            Self::FailedTrial => "failed_trial",
        }
    }
}

/// What went wrong, on whose side of the wire it was seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("host name not resolved: {0}")]
    Unresolved(String),
    #[error("connection refused")]
    Refused,
    #[error("no route")]
    Unreachable,
    #[error("connecting timed out")]
    ConnectTimedOut,
    #[error("TLS failed: {0}")]
    Tls(String),
    #[error("no answer in time")]
    TimedOut,
    #[error("connection closed before an answer")]
    Closed,
    #[error("answered {status}, expected {expected}")]
    Status { status: u16, expected: String },
    #[error("body lacks what was expected")]
    Body,
    #[error("not lawful HTTP: {0}")]
    Protocol(String),
}

impl Failure {
    /// A word for a metric label: never varies with what a stranger sends.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unresolved(_) => "unresolved",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::ConnectTimedOut => "connect_timeout",
            Self::Tls(_) => "tls",
            Self::TimedOut => "timeout",
            Self::Closed => "closed",
            Self::Status { .. } => "status",
            Self::Body => "body",
            Self::Protocol(_) => "protocol",
        }
    }
}
