//! The operator's rules as the engine reads them: compiled once, replaced whole on reload.
//!
//! Holds no health and answers nothing: see [`crate::engine`].

use std::sync::Arc;

use sealane_steering::GeoTable;

use crate::config::{Config, Limits};
use crate::zone::ZoneTable;

/// The operator's rules, compiled.
#[derive(Debug)]
pub struct Rules {
    pub table: ZoneTable,
    pub geo: Arc<GeoTable>,
    pub limits: Limits,
}

impl Rules {
    #[must_use]
    pub fn compile(config: &Config) -> Self {
        Self {
            table: ZoneTable::compile(&config.zones),
            geo: config.geo.clone(),
            limits: config.limits.clone(),
        }
    }
}
