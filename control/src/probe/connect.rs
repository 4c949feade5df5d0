//! Connecting to an endpoint that may have several addresses, within the probe's time.
//!
//! Tries them in order; each but the last may use its even part of the time, so that one dead
//! address does not hide a living one.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sealane_model::Failure;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Addresses that one probe tries. An endpoint with more is judged by its first ones.
const ADDRESSES_TRIED_MAX: usize = 4;

/// Says who the client is where the endpoint wants to be told: nobody but ourselves.
pub(crate) async fn introduce(stream: &mut TcpStream, header: &[u8]) -> Result<(), Failure> {
    let written = stream.write_all(header).await;
    written.map_err(|error| why(&error))
}

/// A connection, and how long the three-way handshake took.
pub(crate) struct Connected {
    pub(crate) stream: TcpStream,
    pub(crate) took: Duration,
}

pub(crate) async fn connect(
    addresses: &[SocketAddr],
    limit: Duration,
) -> Result<Connected, Failure> {
    let tried = &addresses[..addresses.len().min(ADDRESSES_TRIED_MAX)];
    let begun = super::instant();
    let mut failure = Failure::Unresolved("no address".to_owned());
    for (place, address) in tried.iter().enumerate() {
        let left = limit.saturating_sub(begun.elapsed());
        // At most four, so the number fits.
        let remaining = u32::try_from(tried.len() - place).unwrap_or(1);
        let attempt = super::instant();
        match timeout(left / remaining, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                return Ok(Connected {
                    stream,
                    took: attempt.elapsed(),
                });
            }
            Ok(Err(error)) => failure = why(&error),
            Err(_) => failure = Failure::ConnectTimedOut,
        }
    }
    Err(failure)
}

/// What an I/O error means for an endpoint.
pub(crate) fn why(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        io::ErrorKind::TimedOut => Failure::TimedOut,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::NotConnected => Failure::Closed,
        // No route, no such network, no address of our own of that family, out of ports: the
        // endpoint was not reached, whoever is to blame.
        _ => Failure::Unreachable,
    }
}
