//! The one place where the proxy's shells read the monotonic clock. Cores are handed `now`.

use tokio::time::Instant;

/// Tokio's clock: stands still in tests that pause it.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the shell that hands `now` to the cores"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
