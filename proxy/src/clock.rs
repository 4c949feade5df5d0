//! The one place where the proxy's shells read clocks. Cores are handed `now`.

use tokio::time::Instant;

/// Tokio's clock: stands still in tests that pause it.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the shell that hands `now` to the cores"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall clock: certificates end by it.
pub(crate) fn seconds_since_epoch() -> i64 {
    let seconds = rustls::pki_types::UnixTime::now().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
