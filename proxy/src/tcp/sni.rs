//! The server name that a TLS client asks for, read from its ClientHello, which is left as it is.
//!
//! Pure and strict (RFC 8446 §4.1.2, RFC 6066 §3): what another parser might read otherwise is
//! refused, as the endpoint will read these bytes again. Of an encrypted ClientHello (RFC 9849) the
//! outer name counts. Used by the listeners for `tls_passthrough`.

use std::borrow::Cow;
use std::net::IpAddr;

/// Bytes of a ClientHello with its records' heads, at most: browsers send less than 2 KiB, with
/// post-quantum keys and a session's ticket. A longer one is refused.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;

/// What we learn of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// Lower-case. `None`: it asks for none, or for an address, which is no server name.
    pub server_name: Option<String>,
}

/// Why something is no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    #[error("it does not begin with a TLS handshake")]
    NotTls,
    #[error("its ClientHello is malformed: {0}")]
    Malformed(&'static str),
    #[error("its ClientHello is longer than is allowed")]
    TooLong,
}

/// The ClientHello at the beginning of `bytes`; `None` while it is not whole.
///
/// # Errors
/// [`HelloError`] as soon as it can be told.
pub fn parse(bytes: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    let window = &bytes[..bytes.len().min(HELLO_BYTES_MAX)];
    match message(window)? {
        Some(message) => hello(&message).map(Some),
        None if window.len() < HELLO_BYTES_MAX => Ok(None),
        None => Err(HelloError::TooLong),
    }
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// A record's plaintext, at most (RFC 8446 §5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;

/// The first handshake message without its head, put together where it came in several records.
fn message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, HelloError> {
    let mut joined: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut rest = bytes;
    loop {
        if let Some(message) = whole_message(&joined)? {
            let end = 4 + message;
            return Ok(Some(match joined {
                Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[4..end]),
                Cow::Owned(bytes) => Cow::Owned(bytes[4..end].to_vec()),
            }));
        }
        let (fragment, after) = match record(rest)? {
            Record::Whole { fragment, rest } => (fragment, rest),
            Record::Begun(begun) => {
                // What may be wrong with its first bytes need not wait for the others.
                whole_message(&[&joined, begun].concat())?;
                return Ok(None);
            }
        };
        if joined.is_empty() {
            joined = Cow::Borrowed(fragment);
        } else {
            joined.to_mut().extend_from_slice(fragment);
        }
        rest = after;
    }
}

enum Record<'a> {
    Whole { fragment: &'a [u8], rest: &'a [u8] },
    Begun(&'a [u8]),
}

fn record(bytes: &[u8]) -> Result<Record<'_>, HelloError> {
    if bytes.first().is_some_and(|kind| *kind != HANDSHAKE) {
        return Err(HelloError::NotTls);
    }
    if bytes.get(1).is_some_and(|major| *major != 3) {
        return Err(HelloError::NotTls);
    }
    let Some((head, rest)) = bytes.split_at_checked(5) else {
        return Ok(Record::Begun(&[]));
    };
    let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
    // RFC 8446 §5.1: no empty fragments of handshakes.
    if !(1..=RECORD_BYTES_MAX).contains(&length) {
        return Err(HelloError::Malformed("a record of 1 to 16,384 bytes"));
    }
    Ok(match rest.split_at_checked(length) {
        Some((fragment, rest)) => Record::Whole { fragment, rest },
        None => Record::Begun(rest),
    })
}

/// The length of the handshake message that `bytes` begins with, if it is all there.
fn whole_message(bytes: &[u8]) -> Result<Option<usize>, HelloError> {
    if bytes.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(HelloError::Malformed("a ClientHello first"));
    }
    let [_, a, b, c, rest @ ..] = bytes else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
    if length > HELLO_BYTES_MAX {
        return Err(HelloError::TooLong);
    }
    Ok((rest.len() >= length).then_some(length))
}

fn hello(message: &[u8]) -> Result<ClientHello, HelloError> {
    let mut rest = Reader(message);
    let parts = (|| {
        rest.bytes(2 + 32)?; // legacy_version, random
        let session = rest.with_length_of_1()?;
        let suites = rest.with_length_of_2()?;
        let compressions = rest.with_length_of_1()?;
        Some((session.len(), suites.len(), compressions.len()))
    })();
    let lawful = parts.is_some_and(|(session, suites, compressions)| {
        session <= 32 && suites >= 2 && suites % 2 == 0 && compressions >= 1
    });
    if !lawful {
        return Err(HelloError::Malformed("its fixed part"));
    }
    // Before TLS 1.3 there may be none.
    let extensions = match rest.0 {
        [] => &[],
        _ => rest
            .with_length_of_2()
            .filter(|_| rest.0.is_empty())
            .ok_or(HelloError::Malformed("the length of its extensions"))?,
    };
    Ok(ClientHello {
        server_name: server_name(extensions)?,
    })
}

fn server_name(extensions: &[u8]) -> Result<Option<String>, HelloError> {
    const SERVER_NAME: &[u8] = &[0, 0];
    let mut rest = Reader(extensions);
    let mut found = None;
    while !rest.0.is_empty() {
        let extension = rest.bytes(2).zip(rest.with_length_of_2());
        let (kind, data) = extension.ok_or(HelloError::Malformed("an extension"))?;
        if kind == SERVER_NAME && found.replace(data).is_some() {
            // RFC 8446 §4.2. Which of them the endpoint would take, nobody knows.
            return Err(HelloError::Malformed("one server_name"));
        }
    }
    found.map_or(Ok(None), name_of)
}

/// RFC 6066 §3.
fn name_of(extension: &[u8]) -> Result<Option<String>, HelloError> {
    const HOST_NAME: &[u8] = &[0];
    let malformed = HelloError::Malformed("its server_name");
    let mut outer = Reader(extension);
    let list = outer.with_length_of_2().ok_or(malformed)?;
    let mut rest = Reader(list);
    let kind = rest.bytes(1).ok_or(malformed)?;
    let name = rest.with_length_of_2().ok_or(malformed)?;
    // No other type of name was ever defined, and there must not be two of one.
    if kind != HOST_NAME || !rest.0.is_empty() || !outer.0.is_empty() {
        return Err(malformed);
    }
    let name = std::str::from_utf8(name).map_err(|_| malformed)?;
    if name.parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    if !is_host_name(name) {
        return Err(malformed);
    }
    Ok(Some(name.to_ascii_lowercase()))
}

/// ASCII, without a final dot (RFC 6066 §3). Underscores occur.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn with_length_of_1(&mut self) -> Option<&'a [u8]> {
        let length = *self.bytes(1)?.first()?;
        self.bytes(usize::from(length))
    }

    fn with_length_of_2(&mut self) -> Option<&'a [u8]> {
        let length = <[u8; 2]>::try_from(self.bytes(2)?).ok()?;
        self.bytes(usize::from(u16::from_be_bytes(length)))
    }
}

#[cfg(test)]
mod tests;
