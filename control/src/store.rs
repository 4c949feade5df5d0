//! When the map goes to disk: soon after it changed, now and then anyway, and at the end.
//!
//! Writes on a blocking thread, one at a time; control never waits for the disk while it runs. A
//! disk that refuses is warned of once, counted each time, and tried again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealane_model::Timestamp;
use tokio::task::JoinSet;

use crate::metrics;
use crate::state::{self, Remembered};

/// A changed map is written at once, but at most this often: what changed meanwhile goes along.
pub(crate) const WRITE_EVERY: Duration = Duration::from_secs(2);
/// A map is written this often even unchanged, for its age and its round-trip times.
pub(crate) const REFRESH_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Store {
    path: Option<Arc<PathBuf>>,
    changed: bool,
    begun: Timestamp,
    writing: JoinSet<std::io::Result<u64>>,
    refused: bool,
    /// Another process's turn to write.
    held: bool,
}

impl Store {
    pub(crate) fn new(path: Option<PathBuf>, now: Timestamp) -> Self {
        Self {
            path: path.map(Arc::new),
            changed: false,
            begun: now,
            writing: JoinSet::new(),
            refused: false,
            held: false,
        }
    }

    /// Begins no further write until [`Store::release`].
    pub(crate) const fn hold(&mut self) {
        self.held = true;
    }

    /// What happened meanwhile is written soon.
    pub(crate) const fn release(&mut self) {
        self.held = false;
        self.changed = true;
    }

    pub(crate) const fn is_held(&self) -> bool {
        self.held
    }

    pub(crate) fn path(&self) -> Option<&PathBuf> {
        self.path.as_deref()
    }

    pub(crate) const fn note_change(&mut self) {
        self.changed = true;
    }

    /// When [`Store::is_due`] will be so. `None`: nowhere to write, not our turn, or a write
    /// is under way.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        if self.path.is_none() || self.is_held() || self.is_writing() {
            return None;
        }
        Some(
            self.begun
                + if self.changed {
                    WRITE_EVERY
                } else {
                    REFRESH_EVERY
                },
        )
    }

    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.wake_at().is_some_and(|at| at <= now)
    }

    pub(crate) fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    pub(crate) fn begin(&mut self, now: Timestamp, node: Arc<str>, remembered: Remembered) {
        let Some(path) = self.path.clone() else {
            return;
        };
        self.changed = false;
        self.begun = now;
        self.writing
            .spawn_blocking(move || state::write(&path, &node, &remembered));
    }

    /// Waits for the write that is under way; at once when none is.
    pub(crate) async fn finished(&mut self) {
        let Some(ended) = self.writing.join_next().await else {
            return;
        };
        match ended.unwrap_or_else(|lost| Err(std::io::Error::other(lost))) {
            Ok(bytes) => {
                metrics::state_written(Ok(bytes));
                if std::mem::take(&mut self.refused) {
                    tracing::info!("the map can be written to disk again");
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Says it once and loudly, then only counts until it works again.
    fn failed(&mut self, error: &std::io::Error) {
        metrics::state_written(Err(()));
        self.changed = true;
        if !std::mem::replace(&mut self.refused, true) {
            let path = self.path.as_deref().map(|path| path.display());
            tracing::warn!(
                path = path.map(tracing::field::display),
                %error,
                "the map cannot be written to disk; a restart would forget verdicts and overrides"
            );
        }
    }
}
