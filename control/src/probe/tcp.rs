//! A probe that only connects: passes when the three-way handshake ends in time.

use std::net::SocketAddr;
use std::time::Duration;

use sealane_model::Outcome;

use super::connect::{connect, introduce};

/// `header`: what the endpoint wants to be told first; empty if nothing. A few bytes, which a new
/// connection takes at once.
pub(crate) async fn probe(addresses: &[SocketAddr], limit: Duration, header: &[u8]) -> Outcome {
    let mut connected = match connect(addresses, limit).await {
        Ok(connected) => connected,
        Err(failure) => return Outcome::Failed(failure),
    };
    let rtt = connected.took;
    match introduce(&mut connected.stream, header).await {
        Ok(()) => Outcome::Passed { rtt },
        Err(failure) => Outcome::Failed(failure),
    }
}
