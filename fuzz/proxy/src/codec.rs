//! What must hold for the strict HTTP/1 codec whatever bytes it is fed.

use ::http::Version;
use bytes::BytesMut;

use crate::h1::chunked::{Decoded, Decoder};
use crate::h1::head::{self, Answer, AnswerFraming, HeadLimits, Request, Scanner};
use crate::http::fields::Fields;
use crate::http::refuse::Refusal;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 8 * 1024,
    fields: 32,
};

/// A request's head is found in the same place however it arrives; read and written, it reads as the
/// same again.
pub fn request(bytes: &[u8]) {
    let Some(length) = scanned(bytes) else {
        return;
    };
    let careful = head::request(bytes[..length].to_vec());
    let mut arrived = BytesMut::from(bytes);
    match (head::plain_request(&mut arrived, LIMITS), &careful) {
        (Ok(None), _) => assert_eq!(arrived, bytes),
        (Ok(Some(plain)), Ok(careful)) => {
            assert_eq!(arrived, &bytes[length..]);
            assert_eq!((plain.framing, plain.form), (careful.framing, careful.form));
            assert_eq!(plain.head.target(), careful.head.target());
            assert_eq!(lines(&plain.head.fields), lines(&careful.head.fields));
        }
        (Err(plain), Err(careful)) => assert_eq!(plain, *careful),
        (plain, careful) => panic!("{plain:?}, but {careful:?}"),
    }
    let Ok(read) = careful else {
        return;
    };
    assert!(!read.head.target().is_empty());
    if read.head.version != Version::HTTP_11 {
        return; // it is written as HTTP/1.1, for which other rules hold
    }
    let mut written = BytesMut::new();
    read.head.write_to(&mut written);
    assert_eq!(scanned_within(&written), Ok(Some(written.len())));
    let again = head::request(written.to_vec()).expect("what was lawful stays so");
    assert_eq!((again.framing, again.form), (read.framing, read.form));
    assert_eq!(again.head.target(), read.head.target());
    assert_eq!(again.head.method, read.head.method);
    assert_eq!(lines(&again.head.fields), lines(&read.head.fields));
}

/// The same for an answer's. The first byte says whether it answers a `HEAD`.
pub fn answer(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let to_head = first & 1 == 1;
    let Some(length) = scanned(bytes) else {
        return;
    };
    let careful = head::answer(bytes[..length].to_vec(), to_head);
    let mut arrived = BytesMut::from(bytes);
    match (head::plain_answer(&mut arrived, LIMITS, to_head), &careful) {
        (Ok(None), _) => assert_eq!(arrived, bytes),
        (Ok(Some(plain)), Ok(careful)) => {
            assert_eq!(arrived, &bytes[length..]);
            assert_eq!((plain.framing, plain.keep), (careful.framing, careful.keep));
            assert_eq!(plain.head.status, careful.head.status);
            assert_eq!(lines(&plain.head.fields), lines(&careful.head.fields));
        }
        (Err(plain), Err(careful)) => assert_eq!(plain, *careful),
        (plain, careful) => panic!("{plain:?}, but {careful:?}"),
    }
    let Ok(read) = careful else {
        return;
    };
    if to_head {
        assert_eq!(read.framing, AnswerFraming::None);
    }
    assert!(!(read.keep && read.framing == AnswerFraming::UntilClose));
    let mut written = BytesMut::new();
    read.head.write_to(&mut written);
    let again = head::answer(written.to_vec(), to_head).expect("what was lawful stays so");
    assert_eq!(again.framing, read.framing);
    assert_eq!(again.head.status, read.head.status);
    assert_eq!(lines(&again.head.fields), lines(&read.head.fields));
}

/// A chunked body has one reading in whatever pieces it arrives, and never more bytes than came. The
/// first byte says how long the pieces are.
pub fn chunked(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = decoded(bytes, bytes.len());
    let pieces = decoded(bytes, usize::from(*piece));
    assert_eq!(whole, pieces);
    let Ok(Some(read)) = whole else {
        return;
    };
    assert!(read.body.len() + read.left.len() < bytes.len());
    assert!(bytes.ends_with(&read.left));
    let mut sent = format!("{:x}\r\n", read.body.len()).into_bytes();
    if !read.body.is_empty() {
        sent.extend_from_slice(&read.body);
        sent.extend_from_slice(b"\r\n0\r\n");
    }
    sent.extend_from_slice(&read.trailers);
    sent.extend_from_slice(b"\r\n");
    let again = decoded(&sent, sent.len());
    let again = again.expect("lawful").expect("whole");
    assert_eq!((again.body, again.trailers), (read.body, read.trailers));
}

/// Where the head ends, if it is there; the same for one byte after the other.
pub(crate) fn scanned(bytes: &[u8]) -> Option<usize> {
    let whole = scanned_within(bytes);
    let mut scanner = Scanner::default();
    let mut found = Ok(None);
    for end in 1..=bytes.len() {
        found = scanner.scan(&bytes[..end], LIMITS);
        if found != Ok(None) {
            break;
        }
    }
    assert_eq!(found, whole);
    whole.ok().flatten()
}

/// The same of a head that others have bounded: HTTP/2 counts fields by itself.
pub(crate) fn scanned_unbounded(bytes: &[u8]) -> Option<usize> {
    let unbounded = HeadLimits {
        bytes: usize::MAX,
        fields: usize::MAX,
    };
    let found = Scanner::default().scan(bytes, unbounded);
    found.ok().flatten()
}

fn scanned_within(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    Scanner::default().scan(bytes, LIMITS)
}

/// Fields as they are written out.
pub(crate) fn lines(fields: &Fields) -> Vec<u8> {
    let mut lines = BytesMut::new();
    fields.write_to(&mut lines);
    lines.to_vec()
}

#[derive(Debug, PartialEq, Eq)]
struct Read {
    body: Vec<u8>,
    trailers: Vec<u8>,
    left: Vec<u8>,
}

/// `None`: more must arrive.
fn decoded(bytes: &[u8], piece: usize) -> Result<Option<Read>, ()> {
    let mut decoder = Decoder::new();
    let mut arrived = BytesMut::new();
    let mut body = Vec::new();
    let mut pieces = bytes.chunks(piece.max(1));
    loop {
        match decoder.decode(&mut arrived).map_err(|_| ())? {
            Some(Decoded::Data(data)) => body.extend_from_slice(&data),
            Some(Decoded::End(trailers)) => {
                for piece in pieces {
                    arrived.extend_from_slice(piece);
                }
                let trailers = trailers.map(|trailers| lines(&trailers));
                return Ok(Some(Read {
                    body,
                    trailers: trailers.unwrap_or_default(),
                    left: arrived.to_vec(),
                }));
            }
            None => match pieces.next() {
                Some(piece) => arrived.extend_from_slice(piece),
                None => return Ok(None),
            },
        }
    }
}
