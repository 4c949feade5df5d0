//! The chunked transfer coding, read strictly (RFC 9112 §7.1). Pure: bytes in, pieces out.
//!
//! What two recipients could read in two ways is an error: a bare LF anywhere, a size without
//! digits, white space around it, more than 16 digits, data that does not end in CRLF. Extensions
//! are passed over; trailers are read as a head's fields are.

use bytes::{Bytes, BytesMut};

use super::head;
use crate::http::fields::Fields;

/// Bytes of one size line, its extensions included.
const SIZE_LINE_MAX: usize = 4 * 1024;
/// Bytes of extensions in one body for each byte of data, beyond an allowance: a peer that sends
/// little else only means to keep us busy.
const EXTENSIONS_FREE: usize = 64 * 1024;
/// Bytes and lines of the trailers.
const TRAILERS_MAX: usize = 16 * 1024;
const TRAILER_FIELDS_MAX: usize = 64;

/// The body is not lawful.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadChunk(pub(crate) &'static str);

/// What has arrived of the body.
#[derive(Debug)]
pub(crate) enum Decoded {
    Data(Bytes),
    /// The end, with trailers if there were any.
    End(Option<Box<Fields>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    /// The CRLF behind a chunk's data.
    DataEnd,
    Trailers,
    Over,
}

/// Reads one body.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// Bytes of the current line that were looked at without finding its end.
    looked_at: usize,
    extensions: usize,
}

impl Decoder {
    pub(crate) const fn new() -> Self {
        Self {
            state: State::Size,
            looked_at: 0,
            extensions: 0,
        }
    }

    /// Takes what it can off `arrived`; `None` when more must arrive. Bytes behind the body's end
    /// stay. Not to be called after the end.
    ///
    /// # Errors
    /// As soon as it is certain that the body is not lawful.
    pub(crate) fn decode(&mut self, arrived: &mut BytesMut) -> Result<Option<Decoded>, BadChunk> {
        loop {
            match self.state {
                State::Size => {
                    let Some(size) = self.size_line(arrived)? else {
                        return Ok(None);
                    };
                    self.state = if size == 0 {
                        State::Trailers
                    } else {
                        State::Data(size)
                    };
                }
                State::Data(left) => {
                    if arrived.is_empty() {
                        return Ok(None);
                    }
                    let have = arrived.len() as u64;
                    let taken = have.min(left);
                    self.state = if taken == left {
                        State::DataEnd
                    } else {
                        State::Data(left - taken)
                    };
                    let data = arrived.split_to(taken as usize).freeze();
                    // So that the end of a body that has arrived whole is seen with its data.
                    return Ok(Some(Decoded::Data(data)));
                }
                State::DataEnd => match arrived.get(..2) {
                    Some(b"\r\n") => {
                        let _ = arrived.split_to(2);
                        self.state = State::Size;
                    }
                    Some(_) => return Err(BadChunk("no CRLF behind a chunk")),
                    None if arrived.first().is_some_and(|byte| *byte != b'\r') => {
                        return Err(BadChunk("no CRLF behind a chunk"));
                    }
                    None => return Ok(None),
                },
                State::Trailers => return self.trailers(arrived),
                State::Over => return Ok(None),
            }
        }
    }

    /// `1*HEXDIG [ext] CRLF`.
    fn size_line(&mut self, arrived: &mut BytesMut) -> Result<Option<u64>, BadChunk> {
        let Some(end) = self.line_end(arrived, SIZE_LINE_MAX)? else {
            return Ok(None);
        };
        let line = arrived.split_to(end + 2);
        let line = &line[..end];
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        if digits == 0 || digits > 16 {
            return Err(BadChunk("size of a chunk"));
        }
        let rest = &line[digits..];
        // "Bad" white space may stand before an extension, and only there (RFC 9112 §7.1.1).
        let spaces = rest.iter().take_while(|b| matches!(b, b' ' | b'\t'));
        let extension = &rest[spaces.count()..];
        match extension.first() {
            None if rest.is_empty() => {}
            Some(b';') => {}
            _ => return Err(BadChunk("size of a chunk")),
        }
        if extension
            .iter()
            .any(|b| b.is_ascii_control() && *b != b'\t')
        {
            return Err(BadChunk("control character"));
        }
        self.extensions += rest.len();
        if self.extensions > EXTENSIONS_FREE {
            return Err(BadChunk("extensions"));
        }
        let size = line[..digits].iter().fold(0_u64, |sum, digit| {
            sum << 4 | u64::from((*digit as char).to_digit(16).unwrap_or_default())
        });
        if size > i64::MAX as u64 {
            return Err(BadChunk("size of a chunk"));
        }
        Ok(Some(size))
    }

    /// Where the line's CRLF is.
    fn line_end(&mut self, arrived: &BytesMut, max: usize) -> Result<Option<usize>, BadChunk> {
        let Some(found) = memchr::memchr(b'\n', &arrived[self.looked_at..]) else {
            self.looked_at = arrived.len();
            if self.looked_at > max {
                return Err(BadChunk("line too long"));
            }
            return Ok(None);
        };
        let at = self.looked_at + found;
        self.looked_at = 0;
        match at.checked_sub(1) {
            Some(end) if arrived[end] == b'\r' && end <= max => Ok(Some(end)),
            Some(end) if end > max => Err(BadChunk("line too long")),
            _ => Err(BadChunk("bare LF")),
        }
    }

    fn trailers(&mut self, arrived: &mut BytesMut) -> Result<Option<Decoded>, BadChunk> {
        if arrived.starts_with(b"\r\n") {
            let _ = arrived.split_to(2);
            self.state = State::Over;
            return Ok(Some(Decoded::End(None)));
        }
        // Whole lines only; the empty one ends them.
        let from = self.looked_at.saturating_sub(3);
        let Some(found) = memchr::memmem::find(&arrived[from..], b"\r\n\r\n") else {
            self.looked_at = arrived.len();
            if arrived.len() > TRAILERS_MAX {
                return Err(BadChunk("trailers too large"));
            }
            return Ok(None);
        };
        let end = from + found + 4;
        if end > TRAILERS_MAX {
            return Err(BadChunk("trailers too large"));
        }
        let text = arrived.split_to(end).to_vec();
        let fields = head::fields(text, 0).map_err(|_| BadChunk("trailers"))?;
        if fields.len() > TRAILER_FIELDS_MAX {
            return Err(BadChunk("trailers too large"));
        }
        self.state = State::Over;
        Ok(Some(Decoded::End(Some(Box::new(fields)))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Read = (Vec<u8>, Vec<u8>, Vec<u8>);

    /// The body, its trailers and what is left, or why not; the bytes arrive in pieces.
    fn decode(bytes: &[u8], piece: usize) -> Result<Read, &'static str> {
        let mut decoder = Decoder::new();
        let mut arrived = BytesMut::new();
        let mut body = Vec::new();
        let mut pieces = bytes.chunks(piece.max(1));
        loop {
            match decoder.decode(&mut arrived).map_err(|bad| bad.0)? {
                Some(Decoded::Data(data)) => body.extend_from_slice(&data),
                Some(Decoded::End(trailers)) => {
                    let mut lines = Vec::new();
                    if let Some(trailers) = trailers {
                        trailers.write_to(&mut lines);
                    }
                    for piece in pieces {
                        arrived.extend_from_slice(piece);
                    }
                    return Ok((body, lines, arrived.to_vec()));
                }
                None => arrived.extend_from_slice(pieces.next().ok_or("unfinished")?),
            }
        }
    }

    #[test]
    fn a_body_ends_at_its_last_chunk_and_what_follows_is_left() {
        let sent = b"5\r\nhello\r\n06 ;a=b;c=\"d\"\r\n world\r\n0\r\nX-Sum: 1\r\n\r\nGET /";
        for piece in 1..sent.len() {
            let (body, trailers, left) = decode(sent, piece).unwrap();
            assert_eq!(body, b"hello world");
            assert_eq!(trailers, b"X-Sum: 1\r\n");
            assert_eq!(left, b"GET /");
        }
        let (body, trailers, left) = decode(b"000\r\n\r\n\r\n", 1).unwrap();
        assert!(body.is_empty() && trailers.is_empty());
        assert_eq!(left, b"\r\n");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for bad in [
            "\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhelloX\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "5\t\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5,\r\nhello\r\n0\r\n\r\n",
            ";a\r\nhello\r\n0\r\n\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
            "5;\0\r\nhello\r\n0\r\n\r\n",
            "00000000000000005\r\nhello\r\n0\r\n\r\n",
            "8000000000000000\r\nhello\r\n0\r\n\r\n",
            "0\r\nx\r\n\r\n",
            "0\r\n x: y\r\n\r\n",
            "0\r\nx : y\r\n\r\n",
            "0\r\nx: y\n\r\n\r\n",
            "0\r\nx: \0\r\n\r\n",
        ] {
            for piece in [1, 3, 100] {
                let refused = decode(bad.as_bytes(), piece);
                assert!(
                    matches!(refused, Err(why) if why != "unfinished"),
                    "{bad:?}: {refused:?}"
                );
            }
        }
    }

    #[test]
    fn lines_trailers_and_extensions_have_their_bounds() {
        let long = format!("5;{}", "x".repeat(SIZE_LINE_MAX));
        assert_eq!(decode(long.as_bytes(), 1000), Err("line too long"));
        let trailers = format!("0\r\nx: {}", "x".repeat(TRAILERS_MAX));
        assert_eq!(decode(trailers.as_bytes(), 1000), Err("trailers too large"));
        let extended = format!("1;{}\r\nx\r\n", "x".repeat(4_000)).repeat(20);
        assert_eq!(decode(extended.as_bytes(), 1000), Err("extensions"));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_one_verdict(
            bytes in prop::collection::vec(prop_oneof![
                Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'3'), Just(b'a'), Just(b';'), any::<u8>(),
            ], 0..60),
            piece in 1_usize..8,
        ) {
            prop_assert_eq!(decode(&bytes, piece), decode(&bytes, 1));
        }

        #[test]
        fn what_was_cut_into_chunks_is_put_together_again(
            body in prop::collection::vec(any::<u8>(), 0..300),
            cut in 1_usize..40,
            piece in 1_usize..50,
        ) {
            let mut sent = Vec::new();
            for chunk in body.chunks(cut) {
                sent.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                sent.extend_from_slice(chunk);
                sent.extend_from_slice(b"\r\n");
            }
            sent.extend_from_slice(b"0\r\n\r\nnext");
            let (read, _, left) = decode(&sent, piece).unwrap();
            prop_assert_eq!(read, body);
            prop_assert_eq!(left, b"next".to_vec());
        }
    }
}
