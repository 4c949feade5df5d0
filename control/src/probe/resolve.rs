//! Looking up an endpoint's host name with the system's resolver.
//!
//! The system's resolver does not say how long an answer may be kept, so control asks again at a
//! pace of its own. A look-up that takes too long is given up; the system's call goes on by itself
//! on its blocking thread until the system's own limit (usually 5–30 s) ends it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

/// How long one look-up may take.
pub(crate) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    match timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => Ok(unique(found)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

fn unique(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}
