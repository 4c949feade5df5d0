//! dnstap (dnstap.info) as other name servers write it: protobuf messages in Frame Streams over a Unix socket.
//!
//! Its one message has a dozen fields, so they are written by hand: see `docs/decisions/0018-dnstap.md`. Opens
//! nothing: what carries the frames is handed in.

use std::io::{self, Read, Write};
use std::net::IpAddr;

use super::Seen;
use crate::engine::Transport;

/// What Frame Streams calls our frames.
const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";
/// The longest control frame that is read (fstrm's own bound).
const CONTROL_MAX: usize = 512;

/// Control frames (fstrm, `control.h`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    Accept = 1,
    Start = 2,
    Stop = 3,
    Ready = 4,
    Finish = 5,
}

/// The field of a control frame that names a content type.
const FIELD_CONTENT_TYPE: u32 = 1;

/// Shakes hands as the side that has frames to send.
///
/// # Errors
/// The other side is gone, too slow, or takes no dnstap.
pub(crate) fn begin(stream: &mut (impl Read + Write)) -> io::Result<()> {
    stream.write_all(&control(Control::Ready, true))?;
    let accepted = expect(stream, Control::Accept)?;
    let takes_ours = accepted
        .windows(CONTENT_TYPE.len())
        .any(|window| window == CONTENT_TYPE);
    // None at all means any (fstrm, "Content types").
    if !takes_ours && !accepted.is_empty() {
        return Err(io::Error::other("it takes no dnstap"));
    }
    stream.write_all(&control(Control::Start, true))
}

/// Says goodbye, and waits until all has been taken.
///
/// # Errors
/// The other side is gone or too slow.
pub(crate) fn end(stream: &mut (impl Read + Write)) -> io::Result<()> {
    stream.write_all(&control(Control::Stop, false))?;
    expect(stream, Control::Finish).map(|_| ())
}

fn control(kind: Control, with_type: bool) -> Vec<u8> {
    let mut body = (kind as u32).to_be_bytes().to_vec();
    if with_type {
        body.extend_from_slice(&FIELD_CONTENT_TYPE.to_be_bytes());
        body.extend_from_slice(&(CONTENT_TYPE.len() as u32).to_be_bytes());
        body.extend_from_slice(CONTENT_TYPE);
    }
    // A frame of length 0 announces a control frame.
    let mut frame = vec![0; 4];
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(&body);
    frame
}

/// Reads a control frame of this kind; its fields.
fn expect(stream: &mut impl Read, kind: Control) -> io::Result<Vec<u8>> {
    let mut head = [[0; 4]; 3];
    for number in &mut head {
        stream.read_exact(number)?;
    }
    let [escape, length, found] = head.map(u32::from_be_bytes);
    let length = length as usize;
    if escape != 0 || !(4..=CONTROL_MAX).contains(&length) || found != kind as u32 {
        return Err(io::Error::other("it does not speak Frame Streams"));
    }
    let mut fields = vec![0; length - 4];
    stream.read_exact(&mut fields)?;
    Ok(fields)
}

/// What tells servers apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sender {
    pub(crate) identity: Vec<u8>,
    pub(crate) version: Vec<u8>,
}

/// Which of a question's two messages (dnstap.proto, `Message.Type`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    AuthQuery = 1,
    AuthResponse = 2,
}

/// Appends the frames of a question and, where it got one, its answer. How many are there?
pub(crate) fn write(seen: &Seen, sender: &Sender, out: &mut Vec<u8>) -> u64 {
    frame(seen, Kind::AuthQuery, sender, out);
    if seen.reply().is_empty() {
        return 1;
    }
    frame(seen, Kind::AuthResponse, sender, out);
    2
}

fn frame(seen: &Seen, kind: Kind, sender: &Sender, out: &mut Vec<u8>) {
    let mut fields = Fields::default();
    if !sender.identity.is_empty() {
        fields.octets(1, &sender.identity);
    }
    if !sender.version.is_empty() {
        fields.octets(2, &sender.version);
    }
    fields.octets(14, &message(seen, kind).0);
    const MESSAGE: u64 = 1;
    fields.number(15, MESSAGE);
    out.extend_from_slice(&(fields.0.len() as u32).to_be_bytes());
    out.extend_from_slice(&fields.0);
}

fn message(seen: &Seen, kind: Kind) -> Fields {
    let mut fields = Fields::default();
    let (seconds, nanos) = seen.at;
    fields.number(1, kind as u64);
    fields.number(2, if seen.client.is_ipv4() { 1 } else { 2 });
    fields.number(3, protocol(seen.transport));
    match seen.client.ip() {
        IpAddr::V4(v4) => fields.octets(4, &v4.octets()),
        IpAddr::V6(v6) => fields.octets(4, &v6.octets()),
    }
    fields.number(6, seen.client.port().into());
    fields.number(8, seconds);
    fields.fixed(9, nanos);
    match kind {
        Kind::AuthQuery => fields.octets(10, seen.message()),
        Kind::AuthResponse => {
            fields.number(12, seconds);
            fields.fixed(13, nanos);
            fields.octets(14, seen.reply());
        }
    }
    fields
}

/// dnstap.proto, `SocketProtocol`.
const fn protocol(transport: Transport) -> u64 {
    match transport {
        Transport::Udp => 1,
        Transport::Stream => 2,
        Transport::Tls => 3,
        Transport::Https => 4,
        Transport::Quic => 7,
    }
}

/// A protobuf message, field by field (protobuf.dev, "Encoding").
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn number(&mut self, field: u64, number: u64) {
        self.varint(field << 3);
        self.varint(number);
    }

    fn octets(&mut self, field: u64, octets: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(octets.len() as u64);
        self.0.extend_from_slice(octets);
    }

    fn fixed(&mut self, field: u64, number: u32) {
        self.varint(field << 3 | 5);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the other side says, and what it was told.
    struct Peer {
        says: io::Cursor<Vec<u8>>,
        told: Vec<u8>,
    }

    impl Read for Peer {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.says.read(out)
        }
    }

    impl Write for Peer {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.told.write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn peer(says: &[u8]) -> Peer {
        Peer {
            says: io::Cursor::new(says.to_vec()),
            told: Vec::new(),
        }
    }

    #[test]
    fn frames_follow_a_handshake_with_who_takes_dnstap() {
        let mut willing = peer(&control(Control::Accept, true));
        begin(&mut willing).unwrap();
        let expected = [control(Control::Ready, true), control(Control::Start, true)];
        assert_eq!(willing.told, expected.concat());
        assert_eq!(
            expected[0][..16],
            [0, 0, 0, 0, 0, 0, 0, 34, 0, 0, 0, 4, 0, 0, 0, 1]
        );

        let mut other = control(Control::Accept, true);
        *other.last_mut().unwrap() = b'x';
        let huge = [&[0; 4][..], &u32::MAX.to_be_bytes(), &[0, 0, 0, 1]].concat();
        for says in [other, control(Control::Finish, false), huge, Vec::new()] {
            assert!(begin(&mut peer(&says)).is_err(), "{says:?}");
        }
        assert!(end(&mut peer(&control(Control::Finish, false))).is_ok());
    }

    #[test]
    fn numbers_are_written_as_protobuf_has_them() {
        let mut fields = Fields::default();
        fields.number(1, 150);
        fields.octets(2, b"testing");
        fields.fixed(9, 1);
        fields.number(15, 1);
        let expected = b"\x08\x96\x01\x12\x07testing\x4d\x01\0\0\0\x78\x01";
        assert_eq!(fields.0, expected);
    }
}
