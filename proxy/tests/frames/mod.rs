//! HTTP/2 written by hand: frames and header blocks that no library would send, and a client that
//! says what came of them. Lawful on its own in nothing but the preface.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 §6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITISED: u8 = 0x20;

/// Error codes (RFC 9113 §7).
pub(crate) mod code {
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
    pub(crate) const STREAM_CLOSED: u32 = 5;
    pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
    pub(crate) const REFUSED_STREAM: u32 = 7;
    pub(crate) const COMPRESSION_ERROR: u32 = 9;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub(crate) fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flags | END_HEADERS, stream, block)
}

pub(crate) fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flags, stream, bytes)
}

pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub(crate) fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

pub(crate) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in values {
        payload.extend(name.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// A string that is not Huffman-coded (RFC 7541 §5.2).
pub(crate) fn string(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.len();
    if rest < 127 {
        bytes.push(u8::try_from(rest).unwrap());
    } else {
        bytes.push(127);
        rest -= 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).unwrap() | 0x80);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    bytes.extend(text);
    bytes
}

/// A field as a literal with a new name, not indexed (RFC 7541 §6.2.2).
pub(crate) fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0][..], &string(name), &string(value)].concat()
}

pub(crate) fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| literal(name, value))
        .collect()
}

/// What came of a connection's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The stream was answered to its end, or for good.
    Answer(u16),
    /// RST_STREAM with this code; the connection goes on.
    Reset(u32),
    /// GOAWAY with this code, and then the end.
    Goaway(u32),
    /// The end without a GOAWAY.
    Closed,
    /// Nothing, for as long as [`SILENCE`].
    Silence,
}

/// How long an outcome is waited for.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    fn number(&self, at: usize) -> u32 {
        let bytes = self.payload[at..at + 4].try_into().unwrap();
        u32::from_be_bytes(bytes)
    }

    pub(crate) fn ends_stream(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & END_STREAM != 0
    }
}

pub(crate) struct RawClient<S = TcpStream> {
    stream: S,
    /// Of the stream that was last watched.
    pub(crate) body: Vec<u8>,
}

impl RawClient {
    /// A connection on which nothing was said yet.
    pub(crate) async fn silent(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// The preface and the settings have been exchanged (RFC 9113 §3.4).
    pub(crate) async fn connect(address: SocketAddr, ours: &[(u16, u32)]) -> Self {
        let mut client = Self::silent(address).await;
        client.shake(ours).await;
        client
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawClient<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self {
            stream,
            body: Vec::new(),
        }
    }

    pub(crate) async fn shake(&mut self, ours: &[(u16, u32)]) {
        self.send(&[PREFACE, &settings(ours)].concat()).await;
        let first = self.frame().await.expect("the server's preface");
        assert_eq!((first.kind, first.flags, first.stream), (4, 0, 0));
        self.send(&frame(kind::SETTINGS, ACK, 0, &[])).await;
    }

    /// A connection that has ended already takes no more: the outcome shows that.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = timeout(SILENCE, self.stream.write_all(bytes)).await;
        let _ = self.stream.flush().await;
    }

    /// `None` at the end, however it came.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        })
    }

    /// The next frame of that type; `None` if the connection ends or stays silent.
    pub(crate) async fn frame_of(&mut self, kind: u8) -> Option<Frame> {
        let reading = async {
            loop {
                let frame = self.frame().await?;
                if frame.kind == kind {
                    return Some(frame);
                }
            }
        };
        timeout(SILENCE, reading).await.ok()?
    }

    /// What becomes of this stream, or of the whole connection.
    pub(crate) async fn outcome(&mut self, watched: u32) -> Outcome {
        let outcome = timeout(SILENCE, self.watch(watched)).await;
        outcome.unwrap_or(Outcome::Silence)
    }

    async fn watch(&mut self, watched: u32) -> Outcome {
        self.body.clear();
        let mut status = None;
        while let Some(frame) = self.frame().await {
            match frame.kind {
                kind::GOAWAY if frame.number(4) != 0 => return Outcome::Goaway(frame.number(4)),
                _ if frame.stream != watched => continue,
                kind::RST_STREAM => {
                    // An answer to a request that had not ended (RFC 9113 §8.1).
                    let code = frame.number(0);
                    let answered = status.filter(|_| code == 0);
                    return answered.map_or(Outcome::Reset(code), Outcome::Answer);
                }
                kind::HEADERS if status.is_none() => status = Some(status_of(&frame.payload)),
                kind::DATA => self.body.extend_from_slice(&frame.payload),
                _ => {}
            }
            if frame.ends_stream() {
                return Outcome::Answer(status.expect("a head before the end"));
            }
        }
        Outcome::Closed
    }

    /// Does a PING come back?
    pub(crate) async fn lives(&mut self) -> bool {
        let marker = *b"are you?";
        self.send(&frame(kind::PING, 0, 0, &marker)).await;
        while let Some(pong) = self.frame_of(kind::PING).await {
            if pong.flags & ACK != 0 && pong.payload == marker {
                return true;
            }
        }
        false
    }

    /// Does the other side close?
    pub(crate) async fn ends(&mut self) -> bool {
        let reading = async { while self.frame().await.is_some() {} };
        timeout(SILENCE, reading).await.is_ok()
    }
}

/// The status that a block begins with: indexed, or a literal (RFC 7541 §6, Appendix A).
fn status_of(block: &[u8]) -> u16 {
    let indexed = [200, 204, 206, 304, 400, 404, 500];
    match block[0] {
        first @ 0x88..=0x8e => indexed[usize::from(first - 0x88)],
        // Updates of the table's size come first, each a byte or more.
        0x20..=0x3e => status_of(&block[1..]),
        0x3f => {
            let more = block[1..].iter().position(|byte| byte & 0x80 == 0);
            status_of(&block[more.unwrap() + 2..])
        }
        0x08..=0x0e | 0x18..=0x1e | 0x48..=0x4e if block[1] & 0x80 == 0 => {
            std::str::from_utf8(&block[2..5]).unwrap().parse().unwrap()
        }
        0x08..=0x0e | 0x18..=0x1e | 0x48..=0x4e => huffman_number(&block[2..]),
        other => panic!("no status: {other:#x}"),
    }
}

/// Three digits in Huffman code: 0 to 2 have five bits, the others six (RFC 7541, Appendix B).
fn huffman_number(coded: &[u8]) -> u16 {
    let mut bits = coded
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let five = (0..5).fold(0, |sum, _| sum * 2 + bits.next().unwrap());
        let digit = match five {
            0..=2 => five,
            _ => five * 2 + bits.next().unwrap() - 0b01_1001 + 3,
        };
        number = number * 10 + digit;
    }
    number
}
