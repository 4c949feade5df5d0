//! The one place where control reads a clock: wall time once, the monotonic clock from there.

use std::time::{SystemTime, UNIX_EPOCH};

use sealane_model::Timestamp;
use tokio::time::Instant;

/// Makes timestamps that never step back. In tests it follows the runtime's paused time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Timestamp,
    started: Instant,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the shell's clock: cores are handed its time"
    )]
    pub(crate) fn start() -> Self {
        Self {
            epoch: wall(),
            started: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.epoch + self.started.elapsed()
    }

    /// The first moment of the runtime's clock that this clock calls `at` or later.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        self.started + at.since(self.epoch)
    }
}

/// Wall time, for views and for the age of files.
#[expect(
    clippy::disallowed_methods,
    reason = "views and files are dated by the wall clock"
)]
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
