//! Zones: checked for mistakes and compiled into what answers are made from.

use crate::config;

/// What [`check`] found in a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The zone must not be served so.
    pub mistakes: Vec<String>,
    /// Lawful, but hardly meant.
    pub warnings: Vec<String>,
}

#[must_use]
pub fn check(zone: &config::Zone) -> Findings {
    let _ = zone;
    Findings::default()
}
