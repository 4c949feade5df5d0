//! What control is told to do: already valid, no strings left to check.
//!
//! Built by the daemon from the configuration file. Holds rules only, never health.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealane_model::{PoolId, Topology};

use crate::learn::LearnRule;

#[derive(Clone, Debug)]
pub struct Config {
    pub node: Arc<str>,
    pub topology: Arc<Topology>,
    /// One for each pool; a pool without one is never probed, and its endpoints stay up.
    pub probes: Vec<(PoolId, Probe)>,
    /// No listener opens before the first round of probes ended, or this passed (A6).
    pub first_round_limit: Duration,
    /// Whether clients' connections teach how far they are; `None`: they don't.
    pub learn: Option<LearnRule>,
    /// Where the last map is kept over a restart; `None`: nowhere.
    pub state_file: Option<PathBuf>,
    pub admin: AdminConfig,
}

impl Config {
    /// These rules, and the pools that only `old` has with their probes: what both old and new
    /// rules of proxy and DNS can be followed in while one set replaces the other (A9).
    #[must_use]
    pub fn united_with(&self, old: &Self) -> Self {
        let is_gone = |(pool, _): &&(PoolId, Probe)| self.topology.pool(*pool).is_none();
        let mut united = self.clone();
        united.topology = Arc::new(self.topology.united_with(&old.topology));
        united
            .probes
            .extend(old.probes.iter().filter(is_gone).cloned());
        united
    }
}

#[derive(Clone, Debug)]
pub struct Probe {
    pub kind: ProbeKind,
    /// Probed instead of the endpoint's own port.
    pub port: Option<u16>,
    /// From the start of one probe to the start of the next, ± a tenth.
    pub interval: Duration,
    /// For the whole probe; below `interval`.
    pub timeout: Duration,
    /// Consecutive failures until an endpoint is down.
    pub fall: u32,
    /// Consecutive passes until a down endpoint is up.
    pub rise: u32,
    /// From the end of a first failed probe to the next one.
    pub recheck: Duration,
}

#[derive(Clone, Debug)]
pub enum ProbeKind {
    Http {
        path: Arc<str>,
        /// `None`: the endpoint's host name, or its address.
        host: Option<Arc<str>>,
        /// Lawful statuses, as inclusive ranges within 100–599. Never empty.
        expect: Vec<(u16, u16)>,
        /// Must occur in the first 64 KiB of the body.
        body_contains: Option<Arc<str>>,
    },
    Tcp,
}

#[derive(Clone, Debug)]
pub struct AdminConfig {
    pub bind: Vec<SocketAddr>,
    pub tokens: Vec<AdminToken>,
    /// Changes need no token: for the demo alone, on loopback alone.
    pub open: bool,
}

/// A bearer token, known by its hash alone.
#[derive(Clone)]
pub struct AdminToken {
    pub name: Arc<str>,
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
    pub role: Role,
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminToken")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May read.
    Viewer,
    /// May read and change.
    Operator,
}
