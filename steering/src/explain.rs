//! A decision with everything that led to it, for people. Written by proxy and DNS, shown by admin.
//!
//! Decides nothing: it carries what [`crate::rank::explain`] found and where it was asked from.

use std::sync::Arc;

use sealane_model::{PoolId, Snapshot};

use crate::place::ClientPlace;
use crate::rank::Explanation;

/// What one question or one request would get now, and why.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What led to the pool: a steered name, or a route's name.
    pub via: String,
    pub pool: PoolId,
    /// The steering policy's word.
    pub policy: &'static str,
    pub place: ClientPlace,
    pub explanation: Explanation,
    /// The world that was decided on; its generation is part of the answer.
    pub world: Arc<Snapshot>,
    /// What the room adds: answer addresses, TTL, scope; usable endpoints and their loads.
    pub notes: Vec<(&'static str, String)>,
}
