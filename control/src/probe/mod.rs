//! Active checks: when each is due ([`schedule`]), and how it is done (`runner`, `http`, `tcp`).

pub(crate) mod connect;
pub(crate) mod http;
pub(crate) mod resolve;
pub(crate) mod runner;
pub mod schedule;
pub(crate) mod tcp;
pub(crate) mod tls;

/// The runtime's monotonic clock, for how long something took.
#[expect(
    clippy::disallowed_methods,
    reason = "probes are shells: they time what they do"
)]
fn instant() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
