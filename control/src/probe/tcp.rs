//! A probe that only connects: passes when the three-way handshake ends in time, and TLS is agreed
//! on where the endpoint speaks TLS.

use std::net::SocketAddr;
use std::time::Duration;

use sealane_model::{Failure, Outcome};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connect::{connect, introduce};
use super::http::HttpTls;
use super::tls;

/// `header`: what the endpoint wants to be told first; empty if nothing. A few bytes, which a new
/// connection takes at once.
pub(crate) async fn probe(
    addresses: &[SocketAddr],
    limit: Duration,
    header: &[u8],
    tls: Option<&HttpTls>,
) -> Outcome {
    let begun = super::instant();
    let connected = match connect(addresses, limit).await {
        Ok(connected) => connected,
        Err(failure) => return Outcome::Failed(failure),
    };
    let rtt = connected.took;
    let left = limit.saturating_sub(begun.elapsed());
    match timeout(left, agree(connected.stream, header, tls)).await {
        Ok(Ok(())) => Outcome::Passed { rtt },
        Ok(Err(failure)) => Outcome::Failed(failure),
        Err(_) => Outcome::Failed(Failure::TimedOut),
    }
}

async fn agree(mut stream: TcpStream, header: &[u8], tls: Option<&HttpTls>) -> Result<(), Failure> {
    introduce(&mut stream, header).await?;
    if let Some(HttpTls {
        server_name,
        config,
    }) = tls
    {
        tls::handshake(config.clone(), server_name, stream).await?;
    }
    Ok(())
}
