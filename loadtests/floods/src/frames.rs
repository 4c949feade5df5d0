//! HTTP/2 frames as a flooder writes them, and how a connection ended. By hand: no codec would.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;

/// RFC 9113 §3.4.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// `SETTINGS_INITIAL_WINDOW_SIZE`
pub(crate) const INITIAL_WINDOW: u16 = 4;

/// RFC 9113 §4.1.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

pub(crate) fn setting(name: u16, value: u32) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// RFC 7541 §5.1, with a prefix of 7 bits.
fn length(out: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return out.push(length as u8);
    }
    out.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// A field as it is; `indexed`: it comes into the table (RFC 7541 §6.2.1, else §6.2.2).
pub(crate) fn field(indexed: bool, name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = vec![if indexed { 0x40 } else { 0 }];
    for text in [name.as_bytes(), value] {
        length(&mut out, text.len());
        out.extend(text);
    }
    out
}

/// The newest entry of the table, once more (RFC 7541 §2.3.3: after 61 fixed ones).
pub(crate) const NEWEST_ENTRY: u8 = 0x80 | 62;

pub(crate) fn fields(method: &str, path: &str) -> Vec<u8> {
    [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a.test"),
    ]
    .iter()
    .flat_map(|(name, value)| field(false, name, value.as_bytes()))
    .collect()
}

pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    let head = fields("GET", path);
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head)
}

/// What an HTTP/2 peer sent before the end.
#[derive(Debug, Default)]
struct Seen {
    goaway: Option<u32>,
}

/// Reads to the end of the connection and says how it ended.
pub(crate) fn how_it_ends(mut stream: TcpStream, http2: bool) -> String {
    let mut seen = Seen::default();
    let mut arrived = Vec::new();
    let mut first = [0; 12];
    let mut have = 0;
    let mut part = vec![0; 64 * 1024];
    let end = loop {
        match stream.read(&mut part) {
            Ok(0) => break "closed",
            Ok(read) => {
                let more = read.min(first.len() - have);
                first[have..have + more].copy_from_slice(&part[..more]);
                have += more;
                arrived.extend_from_slice(&part[..read]);
                if http2 {
                    seen.take(&mut arrived);
                } else {
                    arrived.clear();
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break "still open",
            Err(_) => break "reset",
        }
    };
    let status = first.strip_prefix(b"HTTP/1.1 ");
    match (seen.goaway, status) {
        (Some(11), _) => "GOAWAY ENHANCE_YOUR_CALM".to_owned(),
        (Some(code), _) => format!("GOAWAY {code}"),
        (None, Some(status)) => format!("{} and {end}", String::from_utf8_lossy(status)),
        (None, None) => end.to_owned(),
    }
}

impl Seen {
    /// Takes whole frames off the front.
    fn take(&mut self, arrived: &mut Vec<u8>) {
        let mut at = 0;
        while let Some([l0, l1, l2, kind, rest @ ..]) = arrived.get(at..) {
            let length = u32::from_be_bytes([0, *l0, *l1, *l2]) as usize;
            let Some(payload) = rest.get(5..5 + length) else {
                break;
            };
            if *kind == GOAWAY
                && let Some(code) = payload.get(4..8)
            {
                let code = [code[0], code[1], code[2], code[3]];
                // The first may only announce the end.
                self.goaway = Some(u32::from_be_bytes(code));
            }
            at += 9 + length;
        }
        arrived.drain(..at);
    }
}

/// Ends of connections, counted.
#[derive(Debug, Default)]
pub(crate) struct Ends(BTreeMap<String, u64>);

impl Ends {
    pub(crate) fn add(&mut self, end: String) {
        *self.0.entry(end).or_default() += 1;
    }

    pub(crate) fn text(&self) -> String {
        let parts = self.0.iter().map(|(end, count)| format!("{count} × {end}"));
        parts.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goaway_is_found_wherever_reads_cut_it() {
        let goaway = frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11]);
        let all = [frame(SETTINGS, 0, 0, &setting(3, 100)), goaway].concat();
        let (mut seen, mut arrived) = (Seen::default(), Vec::new());
        for byte in all {
            arrived.push(byte);
            seen.take(&mut arrived);
        }
        assert_eq!(seen.goaway, Some(11));
        assert!(arrived.is_empty());
    }

    #[test]
    fn long_values_have_their_length_in_several_bytes() {
        let text = field(true, "x", &[b'v'; 4_000]);
        // 4000 = 127 + 3873; 3873 = 33 + 30 * 128.
        assert_eq!(text[..6], [0x40, 1, b'x', 127, 33 | 128, 30]);
    }
}
