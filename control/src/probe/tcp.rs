//! A probe that only connects: passes when the three-way handshake ends in time.

use std::net::SocketAddr;
use std::time::Duration;

use sealane_model::Outcome;

use super::connect::connect;

pub(crate) async fn probe(addresses: &[SocketAddr], limit: Duration) -> Outcome {
    match connect(addresses, limit).await {
        Ok(connected) => Outcome::Passed {
            rtt: connected.took,
        },
        Err(failure) => Outcome::Failed(failure),
    }
}
