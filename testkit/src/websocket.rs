//! Just enough WebSocket (RFC 6455) to echo and to be echoed: handshake, one frame a message.
//!
//! No fragmentation, no extensions; messages are bounded by [`MESSAGE_BYTES_MAX`].

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::http1::unlawful;

/// A longer message ends the connection.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The key that clients of this kit send (the example of RFC 6455 §1.3).
pub const CLIENT_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What a frame is (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Kind {
    const fn opcode(self) -> u8 {
        match self {
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn of(opcode: u8) -> io::Result<Self> {
        let kinds = [
            Self::Text,
            Self::Binary,
            Self::Close,
            Self::Ping,
            Self::Pong,
        ];
        let kind = kinds.into_iter().find(|kind| kind.opcode() == opcode);
        kind.ok_or_else(|| unlawful("a WebSocket opcode"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub payload: Vec<u8>,
}

/// Answers each message with itself, pings with pongs, until the other side closes.
///
/// # Errors
/// Reading or writing failed, or a frame was unlawful.
pub async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let frame = read(&mut stream).await?;
        let kind = match frame.kind {
            Kind::Pong => continue,
            Kind::Ping => Kind::Pong,
            other => other,
        };
        write(&mut stream, kind, &frame.payload, None).await?;
        if kind == Kind::Close {
            return stream.shutdown().await;
        }
    }
}

/// # Errors
/// Reading failed, or the frame is fragmented, too long or of an unknown kind.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let first = stream.read_u8().await?;
    let second = stream.read_u8().await?;
    if first & 0xf0 != 0x80 {
        return Err(unlawful("a fragmented or extended WebSocket frame"));
    }
    let length = match second & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MESSAGE_BYTES_MAX {
        return Err(unlawful("a WebSocket message that is too long"));
    }
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    apply(mask, &mut payload);
    Ok(Frame {
        kind: Kind::of(first & 0x0f)?,
        payload,
    })
}

/// Clients mask, servers don't (RFC 6455 §5.1).
///
/// # Errors
/// Writing failed.
pub async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: Kind,
    payload: &[u8],
    mask: Option<[u8; 4]>,
) -> io::Result<()> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![0x80 | kind.opcode()];
    match payload.len() {
        short @ 0..=125 => frame.push(masked | short as u8),
        medium @ 126..=0xffff => {
            frame.push(masked | 126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(masked | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(mask.as_ref().map_or(&[], |mask| mask));
    let start = frame.len();
    frame.extend_from_slice(payload);
    apply(mask.unwrap_or_default(), &mut frame[start..]);
    stream.write_all(&frame).await
}

fn apply(mask: [u8; 4], payload: &mut [u8]) {
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// What a server answers to a client's key (RFC 6455 §4.2.2).
#[must_use]
pub fn accept_of(key: &str) -> String {
    base64(&sha1(
        format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
    ))
}

/// SHA-1 (FIPS 180-4 §6.1); only the handshake wants it, and nothing relies on its strength.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state = [
        0x6745_2301_u32,
        0xefcd_ab89,
        0x98ba_dcfe,
        0x1032_5476,
        0xc3d2_e1f0,
    ];
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - message.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let length_at = padded.len() - 8;
    padded[length_at..].copy_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        compress(&mut state, block);
    }
    let mut digest = [0; 20];
    for (out, word) in digest.chunks_exact_mut(4).zip(state) {
        out.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

fn compress(state: &mut [u32; 5], block: &[u8]) {
    let mut words = [0_u32; 80];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |sum, b| sum << 8 | u32::from(*b));
    }
    for i in 16..80 {
        words[i] = (words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1);
    }
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for (i, word) in words.iter().enumerate() {
        let (mixed, constant) = match i {
            0..20 => ((b & c) | (!b & d), 0x5a82_7999),
            20..40 => (b ^ c ^ d, 0x6ed9_eba1),
            40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6_u32),
        };
        let next = a
            .rotate_left(5)
            .wrapping_add(mixed)
            .wrapping_add(e)
            .wrapping_add(constant)
            .wrapping_add(*word);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
        *sum = sum.wrapping_add(part);
    }
}

/// Base 64 with padding (RFC 4648 §4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word = (0..3).fold(0_u32, |word, i| {
            word << 8 | u32::from(group.get(i).copied().unwrap_or(0))
        });
        for digit in 0..4 {
            let value = (word >> (18 - 6 * digit)) & 63;
            let known = digit <= group.len();
            text.push(if known {
                ALPHABET[value as usize] as char
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_of_rfc_6455_is_answered_as_there() {
        assert_eq!(accept_of(CLIENT_KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn messages_of_each_length_form_come_back() {
        let (mut here, there) = tokio::io::duplex(256 * 1024);
        let server = echo(there);
        let client = async {
            for length in [0, 125, 126, 65_535, 65_536] {
                let payload = vec![7; length];
                write(&mut here, Kind::Binary, &payload, Some([1, 2, 3, 4]))
                    .await
                    .unwrap();
                assert_eq!(read(&mut here).await.unwrap().payload, payload);
            }
            write(&mut here, Kind::Close, b"", Some([0; 4]))
                .await
                .unwrap();
            assert_eq!(read(&mut here).await.unwrap().kind, Kind::Close);
        };
        let (served, ()) = tokio::join!(server, client);
        served.unwrap();
    }
}
