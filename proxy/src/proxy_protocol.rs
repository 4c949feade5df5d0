//! The PROXY protocol, versions 1 and 2 (`proxy-protocol.txt`, HAProxy 2.x): who the client is, said in
//! front of a connection's own bytes: to us by a load balancer, by us to an endpoint.
//!
//! [`parse`] and [`compose`] are pure. `receive` takes a header off a socket and not one byte more.
//! Whom to believe is not decided here: the listeners ask trusted senders alone.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sealane_model::ProxyVersion;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A version 1 header, CRLF included (§2.1).
pub const V1_BYTES_MAX: usize = 107;
/// A version 2 header with all that is attached to it; longer ones are refused. The addresses of
/// the longest family take 216 bytes; what clouds and balancers attach (an identity, a certificate's
/// name) a few hundred.
pub const V2_BYTES_MAX: usize = 4 * 1024;

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Up to and with the length.
const V2_HEAD: usize = 16;
const V1_SIGNATURE: &[u8; 6] = b"PROXY ";

/// Who speaks to whom, as the sender saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    Proxied(Addresses),
    /// The connection is the sender's own (a probe of its), or its client has no address that we
    /// could use: the connection's addresses count.
    Local,
}

/// Why something is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("it does not begin with a PROXY header")]
    Missing,
    #[error("its PROXY header is malformed: {0}")]
    Malformed(&'static str),
    #[error("its PROXY header is longer than is allowed")]
    TooLong,
    #[error("its PROXY header's checksum is wrong")]
    Checksum,
}

/// The header at the beginning of `bytes`, and its length. `None`: it is not whole yet, and all of
/// `bytes` belongs to it.
///
/// # Errors
/// [`HeaderError`] as soon as it can be told.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, HeaderError> {
    if begins_alike(bytes, V2_SIGNATURE) {
        return parse_v2(bytes);
    }
    if begins_alike(bytes, V1_SIGNATURE) {
        return parse_v1(bytes);
    }
    Err(HeaderError::Missing)
}

/// As far as there is anything of both.
fn begins_alike(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(Header, usize)>, HeaderError> {
    let window = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        if window.len() == V1_BYTES_MAX {
            return Err(HeaderError::TooLong);
        }
        return Ok(None);
    };
    let line = window[..end]
        .strip_suffix(b"\r")
        .ok_or(HeaderError::Malformed("a line ends in CRLF"))?;
    let words = line
        .strip_prefix(V1_SIGNATURE)
        .and_then(|line| std::str::from_utf8(line).ok())
        .ok_or(HeaderError::Malformed("words of ASCII"))?;
    let header = match words.split_once(' ') {
        // Whatever follows is to be ignored (§2.1).
        None if words == "UNKNOWN" => Header::Local,
        Some(("UNKNOWN", _)) => Header::Local,
        Some((family @ ("TCP4" | "TCP6"), words)) => {
            let addresses =
                v1_addresses(words).ok_or(HeaderError::Malformed("two addresses and two ports"))?;
            let is_v4 = family == "TCP4";
            if addresses.source.is_ipv4() != is_v4 || addresses.destination.is_ipv4() != is_v4 {
                return Err(HeaderError::Malformed(
                    "addresses of the family that it names",
                ));
            }
            Header::Proxied(addresses)
        }
        _ => return Err(HeaderError::Malformed("TCP4, TCP6 or UNKNOWN")),
    };
    Ok(Some((header, end + 1)))
}

fn v1_addresses(words: &str) -> Option<Addresses> {
    let mut words = words.split(' ');
    let source: IpAddr = words.next()?.parse().ok()?;
    let destination: IpAddr = words.next()?.parse().ok()?;
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then_some(Addresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

/// Decimal, without a sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let lawful =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    lawful.then(|| text.parse().ok()).flatten()
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(Header, usize)>, HeaderError> {
    // Told early, so that nobody waits for the rest of what is refused anyway.
    if bytes.get(12).is_some_and(|byte| byte >> 4 != 2) {
        return Err(HeaderError::Malformed("version 2"));
    }
    let Some((head, rest)) = bytes.split_at_checked(V2_HEAD) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if V2_HEAD + length > V2_BYTES_MAX {
        return Err(HeaderError::TooLong);
    }
    let is_local = match head[12] & 0x0f {
        0 => true,
        1 => false,
        _ => return Err(HeaderError::Malformed("LOCAL or PROXY")),
    };
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    let whole = &bytes[..V2_HEAD + length];
    if is_local {
        // All else in it is to be ignored (§2.2).
        return Ok(Some((Header::Local, whole.len())));
    }
    let (family, transport) = (head[13] >> 4, head[13] & 0x0f);
    let size = match family {
        0 => 0,
        1 => 12,
        2 => 36,
        3 => 216,
        _ => return Err(HeaderError::Malformed("a known address family")),
    };
    let (addresses, attached) = body.split_at_checked(size).ok_or(HeaderError::Malformed(
        "addresses of the family that it names",
    ))?;
    check_attached(attached, whole)?;
    let header = match transport {
        0 => Header::Local,
        1 => v2_addresses(addresses).map_or(Header::Local, Header::Proxied),
        _ => return Err(HeaderError::Malformed("a stream")),
    };
    Ok(Some((header, whole.len())))
}

/// `None` for a family without IP addresses.
fn v2_addresses(bytes: &[u8]) -> Option<Addresses> {
    let (source, destination, ports) = match bytes.len() {
        12 => (ipv4(&bytes[..4])?, ipv4(&bytes[4..8])?, &bytes[8..]),
        36 => (ipv6(&bytes[..16])?, ipv6(&bytes[16..32])?, &bytes[32..]),
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes([*ports.get(at)?, *ports.get(at + 1)?]));
    Some(Addresses {
        source: SocketAddr::new(source, port(0)?),
        destination: SocketAddr::new(destination, port(2)?),
    })
}

fn ipv4(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from)
}

fn ipv6(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Values with type and length (§2.2.1). Only a checksum means something to us.
fn check_attached(attached: &[u8], whole: &[u8]) -> Result<(), HeaderError> {
    const CRC32C: u8 = 0x03;
    let mut rest = attached;
    while let [kind, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, after) = after
            .split_at_checked(length)
            .ok_or(HeaderError::Malformed("values within its length"))?;
        if *kind == CRC32C {
            let wanted: [u8; 4] = value
                .try_into()
                .map_err(|_| HeaderError::Malformed("a checksum of four bytes"))?;
            // The value itself counts as zeros (§2.2.3).
            let at = whole.len() - after.len() - wanted.len();
            if crc32c_without(whole, at) != u32::from_be_bytes(wanted) {
                return Err(HeaderError::Checksum);
            }
        }
        rest = after;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(HeaderError::Malformed("values within its length"))
    }
}

/// CRC-32C (RFC 9260 appendix A) with the four bytes from `zeros` on taken as 0. Bit by bit: headers
/// are short and few have one.
fn crc32c_without(bytes: &[u8], zeros: usize) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let crc = bytes.iter().enumerate().fold(u32::MAX, |crc, (at, byte)| {
        let is_zero = (zeros..zeros + 4).contains(&at);
        let byte = if is_zero { 0 } else { *byte };
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            let carry = if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            (crc >> 1) ^ carry
        })
    });
    !crc
}

/// What to send before a connection's own bytes.
#[must_use]
pub fn compose(version: ProxyVersion, addresses: Addresses) -> Vec<u8> {
    let Addresses {
        source,
        destination,
    } = addresses;
    match version {
        ProxyVersion::V1 => compose_v1(source, destination),
        ProxyVersion::V2 => compose_v2(source, destination),
    }
}

fn compose_v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = match (source, destination) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => "TCP4",
        (SocketAddr::V6(_), SocketAddr::V6(_)) => "TCP6",
        // No way to write it.
        _ => return ProxyVersion::V1.local_header().to_vec(),
    };
    let (from, to) = (source.ip(), destination.ip());
    let (from_port, to_port) = (source.port(), destination.port());
    format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
}

fn compose_v2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut header = Vec::with_capacity(V2_HEAD + 36);
    header.extend_from_slice(V2_SIGNATURE);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend_from_slice(&[0x21, 0x11, 0, 12]);
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.extend_from_slice(&[0x21, 0x21, 0, 36]);
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
        }
        _ => {
            header.extend_from_slice(&[0x21, 0, 0, 0]);
            return header;
        }
    }
    header.extend_from_slice(&source.port().to_be_bytes());
    header.extend_from_slice(&destination.port().to_be_bytes());
    header
}

/// Why no header was received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("it ended within its PROXY header")]
    Ended,
    #[error("it broke")]
    Broken(#[from] io::Error),
    #[error("its PROXY header took too long")]
    TimedOut,
}

/// Takes the header that the connection begins with, and nothing behind it.
pub(crate) async fn receive(tcp: &TcpStream, within: Duration) -> Result<Header, ReceiveError> {
    let receiving = timeout(within, take(tcp));
    receiving.await.unwrap_or(Err(ReceiveError::TimedOut))
}

async fn take(tcp: &TcpStream) -> Result<Header, ReceiveError> {
    // Looked at first, as what is behind the header is not ours to read.
    let mut bytes = vec![0; V2_BYTES_MAX];
    let mut have = 0;
    loop {
        let seen = tcp.peek(&mut bytes[have..]).await?;
        if seen == 0 {
            return Err(ReceiveError::Ended);
        }
        let parsed = parse(&bytes[..have + seen])?;
        let until = parsed.map_or(have + seen, |(_, length)| length);
        while have < until {
            match tcp.try_read(&mut bytes[have..until]) {
                Ok(0) => return Err(ReceiveError::Ended),
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tcp.readable().await?,
                Err(error) => return Err(error.into()),
            }
        }
        if let Some((header, _)) = parsed {
            return Ok(header);
        }
    }
}

#[cfg(test)]
mod tests;
