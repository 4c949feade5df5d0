//! The admin API: what control knows, what a client would get and why, and the operator's orders.
//!
//! [`serve`](mod@serve) binds and bounds, `routes` has one function for each route, `view` alone
//! knows JSON, `auth` alone knows tokens. Holds no state of its own but replies that may be asked
//! for again; every change goes through [`ControlHandle`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sealane_model::SnapshotReader;
use sealane_steering::Decision;

use crate::handle::ControlHandle;

mod again;
mod auth;
mod routes;
pub mod serve;
mod view;

pub use serve::{BindError, Bound, Inherit, bind, bind_inheriting, serve};

/// What proxy and DNS would decide, and why.
pub trait Explain: Send + Sync + 'static {
    /// What a client at `client` would be answered for the name.
    ///
    /// # Errors
    /// The name is not ours, or cannot be one.
    fn dns(&self, name: &str, client: IpAddr) -> Result<Decision, ExplainError>;

    /// Where a request of a client at `client` for the URL would go.
    ///
    /// # Errors
    /// No route matches, or it is no URL.
    fn url(&self, url: &str, client: IpAddr) -> Result<Decision, ExplainError>;

    /// Every pool that gets a share of a route's requests.
    fn canaries(&self) -> Vec<Canary>;

    /// Gives an aborted canary its share again. `false`: it was not aborted.
    ///
    /// # Errors
    /// There is no such canary.
    fn reset_canary(&self, route: &str, pool: &str) -> Result<bool, ExplainError>;

    /// Every zone that comes from another name server or goes to one.
    fn zones(&self) -> Vec<Zone>;
}

/// How a zone that is transferred stands. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    pub name: String,
    /// `None`: there is nothing to serve.
    pub serial: Option<u32>,
    /// It is a copy of another server's.
    pub is_secondary: bool,
    /// Who gave it.
    pub from: Option<String>,
    pub heard_at: Option<u64>,
    pub expires_at: Option<u64>,
    /// Tries in a row that failed, and why the last one did.
    pub failures: u32,
    pub error: Option<String>,
    /// Servers that know of this serial, and those that are to know.
    pub told: (usize, usize),
}

/// A pool that gets a share of a route's requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Canary {
    pub route: String,
    pub pool: String,
    /// As the rules have it, 0–1.
    pub share: f64,
    /// On which grounds it gets nothing, and for how long.
    pub aborted: Option<(String, Duration)>,
}

/// Why nothing can be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExplainError {
    pub kind: ExplainErrorKind,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainErrorKind {
    /// Neither a route nor a name of ours.
    NotFound,
    /// The question itself cannot be understood.
    BadRequest,
    /// Nothing is served yet.
    NotReady,
}

impl ExplainError {
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self {
            kind: ExplainErrorKind::NotFound,
            message: message.into(),
        }
    }

    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self {
            kind: ExplainErrorKind::BadRequest,
            message: message.into(),
        }
    }

    #[must_use]
    pub fn not_ready(message: impl Into<String>) -> Self {
        Self {
            kind: ExplainErrorKind::NotReady,
            message: message.into(),
        }
    }
}

/// Whether the process serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// What it waits for, in words.
    NotReady(String),
}

/// What the admin API stands on.
#[derive(Clone)]
pub struct Deps {
    pub handle: ControlHandle,
    pub world: SnapshotReader,
    pub explain: Arc<dyn Explain>,
    pub ready: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// Everything counted, in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deps")
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}
