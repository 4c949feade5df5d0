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
    Passed { rtt: Duration },
    Failed(Failure),
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
