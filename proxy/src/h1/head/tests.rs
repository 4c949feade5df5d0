//! What is read, and what is refused.

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 1_000,
    fields: 5,
};

fn scan(bytes: &[u8]) -> Result<Option<(usize, Framing)>, Refusal> {
    let length = Scanner::default().scan(bytes, LIMITS);
    let careful = length.and_then(|length| read(length, bytes));
    let mut arrived = BytesMut::from(bytes);
    match plain_request(&mut arrived, LIMITS) {
        Ok(None) => assert_eq!(arrived, bytes),
        Ok(Some(plain)) => {
            let length = bytes.len() - arrived.len();
            assert_eq!(Ok(Some((length, plain.framing))), careful);
        }
        Err(refusal) => assert_eq!(careful, Err(refusal)),
    }
    careful
}

fn in_pieces(bytes: &[u8]) -> Result<Option<(usize, Framing)>, Refusal> {
    let mut scanner = Scanner::default();
    for end in 0..bytes.len() {
        let found = scanner.scan(&bytes[..end], LIMITS)?;
        assert_eq!(found, None, "ended early at {end}");
    }
    read(scanner.scan(bytes, LIMITS)?, bytes)
}

fn read(length: Option<usize>, bytes: &[u8]) -> Result<Option<(usize, Framing)>, Refusal> {
    let Some(length) = length else {
        return Ok(None);
    };
    let read = request(bytes[..length].to_vec())?;
    Ok(Some((length, read.framing)))
}

#[test]
fn a_head_ends_at_its_empty_line_and_the_body_is_framed_by_its_fields() {
    let framed = |fields: &str| {
        let head = format!("POST /a?b HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let found = in_pieces(head.as_bytes()).unwrap().unwrap();
        assert_eq!(found.0, head.len());
        let with_body = format!("{head}GET / \n\n\0");
        assert_eq!(scan(with_body.as_bytes()), Ok(Some(found)));
        found.1
    };

    assert_eq!(framed(""), Framing::None);
    assert_eq!(framed("content-length: 12 \r\n"), Framing::Length(12));
    assert_eq!(framed("Transfer-Encoding: Chunked\r\n"), Framing::Chunked);
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let refused = |head: &str| match scan(head.as_bytes()) {
        Err(Refusal::Malformed(_)) => {}
        other => panic!("{head:?}: {other:?}"),
    };
    for fields in [
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\r\n b\r\n",
        "X: a\rb\r\n",
        "X: a\nY: b\r\n",
        "X: a\0b\r\n",
        "X: a\x01b\r\n",
        "X\r\n",
        ": x\r\n",
        "Host: y\r\n",
    ] {
        refused(&format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
    }
    for line in [
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /<x> HTTP/1.1",
        "GET /#x HTTP/1.1",
        "GET x HTTP/1.1",
        "GET ftp://x/ HTTP/1.1",
        "G@T / HTTP/1.1",
        "GET / http/1.1",
        "GET /",
    ] {
        refused(&format!("{line}\r\nHost: x\r\n\r\n"));
    }
    refused("GET / HTTP/1.1\r\n\r\n");
    refused("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
}

#[test]
fn other_refusals_have_their_own_names() {
    let of = |head: &str| scan(head.as_bytes()).unwrap_err();

    assert_eq!(of("GET / HTTP/2.0\r\nHost: x\r\n\r\n"), Refusal::Version);
    assert_eq!(
        of("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
        Refusal::TransferCoding
    );
}

#[test]
fn a_head_beyond_its_limits_is_refused_before_it_ends() {
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(LIMITS.bytes));
    let many = format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(LIMITS.fields + 1));

    assert_eq!(scan(long.as_bytes()), Err(Refusal::HeadTooLarge));
    assert_eq!(scan(many.as_bytes()), Err(Refusal::HeadTooLarge));
}

#[test]
fn a_request_is_read_into_its_parts() {
    let read =
        request(b"PUT /a/b?c=d HTTP/1.1\r\nHOST:x\r\nA:  b c\t\r\nvia: 1.1 y\r\n\r\n".to_vec());
    let Request { head, form, .. } = read.unwrap();

    assert_eq!(head.method, Method::PUT);
    assert_eq!((head.target(), head.path()), ("/a/b?c=d", "/a/b"));
    assert_eq!(head.host(), "x");
    assert_eq!(head.fields.get("a"), Some(&b"b c"[..]));
    assert_eq!(form, Form::Origin);
    let mut out = BytesMut::new();
    head.write_to(&mut out);
    let written = "PUT /a/b?c=d HTTP/1.1\r\nHOST: x\r\nA: b c\r\nvia: 1.1 y\r\n\r\n";
    assert_eq!(std::str::from_utf8(&out), Ok(written));
}

fn answered(text: &str) -> Result<(u16, AnswerFraming, bool), &'static str> {
    let answer = answer(text.as_bytes().to_vec(), false)?;
    Ok((answer.head.status.as_u16(), answer.framing, answer.keep))
}

#[test]
fn an_answer_is_framed_by_its_status_and_its_fields() {
    use AnswerFraming::{Chunked, Length, None, UntilClose};
    for (text, expected) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            (200, Length(5), true),
        ),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n", (200, None, true)),
        (
            "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n",
            (200, Chunked, true),
        ),
        ("HTTP/1.1 200 OK\r\n", (200, UntilClose, false)),
        (
            "HTTP/1.1 204 No\r\nContent-Length: 5\r\n",
            (204, None, true),
        ),
        (
            "HTTP/1.1 304 No\r\nContent-Length: 5\r\n",
            (304, None, true),
        ),
        ("HTTP/1.1 100 Continue\r\n", (100, None, true)),
        (
            "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 5\r\n",
            (200, Length(5), false),
        ),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n",
            (200, Length(5), false),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
            (200, Length(5), true),
        ),
    ] {
        assert_eq!(answered(&format!("{text}\r\n")), Ok(expected), "{text:?}");
    }
    let to_head = answer(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
        true,
    );
    assert_eq!(to_head.unwrap().framing, None);
}

#[test]
fn an_answer_that_can_be_read_in_two_ways_is_refused() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n",
        "HTTP/1.1 200 OK\r\na: b\r\n c\r\n",
        "HTTP/1.1 200 OK\r\na : b\r\n",
        "HTTP/1.1 200 O\0K\r\n",
        "HTTP/1.1 20 OK\r\n",
        "HTTP/1.1 2000\r\n",
        "HTTP/1.1  200 OK\r\n",
        "HTTP/2 200 OK\r\n",
        "http/1.1 200 OK\r\n",
        "ICY 200 OK\r\n",
        "HTTP/1.1 200 OK\n",
    ] {
        assert!(answered(&format!("{text}\r\n")).is_err(), "{text:?}");
    }
}

proptest::proptest! {
    /// Nothing that arrives makes reading panic, and what is taken for a head is written out as one
    /// that is read the same.
    #[test]
    fn what_is_read_is_written_as_what_was_read(text in "(GET|G) /[a-z?]{0,4} HTTP/1.[01]\r\n(Host: [a-z]{1,3}\r\n)?([a-z:\t \r\n]{0,12}\r\n)?([A-Za-z-]{0,4}: ?[ -~]{0,6}\r\n){0,3}\r\n") {
        if let Ok(Some(length)) = Scanner::default().scan(text.as_bytes(), LIMITS)
            && let Ok(first) = request(text.as_bytes()[..length].to_vec())
            && first.head.version == Version::HTTP_11
        {
            let mut out = BytesMut::new();
            first.head.write_to(&mut out);
            let again = request(out.to_vec()).unwrap();
            proptest::prop_assert_eq!(again.framing, first.framing);
            proptest::prop_assert_eq!(again.head.target(), first.head.target());
            let lines: Vec<_> = first.head.fields.iter().collect();
            proptest::prop_assert_eq!(again.head.fields.iter().collect::<Vec<_>>(), lines);
        }
    }
}

proptest::proptest! {
    #[test]
    fn the_first_control_character_is_found_wherever_it_stands(
        bytes in proptest::collection::vec(proptest::prop_oneof![8 => 0x20_u8..0x7f, 1 => proptest::num::u8::ANY], 0..64),
        at in 0_usize..64,
    ) {
        let at = at.min(bytes.len());
        let expected = bytes[at..].iter().position(u8::is_ascii_control);
        proptest::prop_assert_eq!(control(&bytes, at), expected.map(|found| at + found));
    }
}
