//! Is this the head of an HTTP/1 request, and only one? Strict, before any parser sees it.
//!
//! Finds where the head ends and how the body is framed, and refuses whatever two recipients could
//! read in two ways (RFC 9112 §2.2, §5, §6; RFC 9110 §8.6): bare CR or LF, NUL, folded lines, white
//! space before a colon, several lengths, a length beside a transfer coding. Pure; looks at each
//! byte once, however they arrive.

use super::refuse::Refusal;

/// Bytes and header fields that one head may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    pub(crate) bytes: usize,
    pub(crate) fields: usize,
}

/// How a request's body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// A whole head: the first `length` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) length: usize,
    pub(crate) framing: Framing,
}

/// Looks for the end of a head that arrives in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scanner {
    /// Bytes looked at.
    at: usize,
    /// Where the current line begins.
    line: usize,
    lines: usize,
    after_cr: bool,
}

impl Scanner {
    /// `bytes`: all that arrived so far; must begin with what was handed in before.
    ///
    /// # Errors
    /// The refusal, as soon as it is certain.
    pub(crate) fn scan(
        &mut self,
        bytes: &[u8],
        limits: HeadLimits,
    ) -> Result<Option<Head>, Refusal> {
        while self.at < bytes.len() {
            let byte = bytes[self.at];
            self.at += 1;
            if self.at > limits.bytes {
                return Err(Refusal::HeadTooLarge);
            }
            match byte {
                b'\n' if !self.after_cr => return Err(Refusal::Malformed("bare LF")),
                b'\n' if self.end_line(limits)? => return check(&bytes[..self.at]).map(Some),
                b'\n' => {}
                _ if self.after_cr => return Err(Refusal::Malformed("bare CR")),
                b'\r' => self.after_cr = true,
                0 => return Err(Refusal::Malformed("NUL")),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Whether the line that ended here is the empty one behind the last field.
    fn end_line(&mut self, limits: HeadLimits) -> Result<bool, Refusal> {
        let empty = self.at - self.line == 2;
        self.after_cr = false;
        self.line = self.at;
        if empty {
            return Ok(true);
        }
        self.lines += 1;
        // The first line is no field.
        if self.lines > limits.fields.saturating_add(1) {
            return Err(Refusal::HeadTooLarge);
        }
        Ok(false)
    }
}

/// `head`: lines that all end in CRLF, the last one empty.
fn check(head: &[u8]) -> Result<Head, Refusal> {
    let mut lines = head[..head.len() - 2]
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let newest = request_line(lines.next().unwrap_or_default())?;
    let mut fields = Fields::default();
    for line in lines.filter(|line| !line.is_empty()) {
        fields.take(line)?;
    }
    Ok(Head {
        length: head.len(),
        framing: fields.framing(newest)?,
    })
}

/// `method SP target SP version` (RFC 9112 §3). Whether the version is 1.1.
fn request_line(line: &[u8]) -> Result<bool, Refusal> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::Malformed("request line"));
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(Refusal::Malformed("method"));
    }
    if !is_target(target) {
        return Err(Refusal::Malformed("bytes in the target"));
    }
    // The authority form is for CONNECT, which is refused under its own name later.
    if !has_lawful_form(target) && method != b"CONNECT" {
        return Err(Refusal::Malformed("form of the target"));
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        [b'H', b'T', b'T', b'P', b'/', major, ..] if major.is_ascii_digit() => {
            Err(Refusal::Version)
        }
        _ => Err(Refusal::Malformed("version")),
    }
}

/// Origin form, asterisk form, or absolute form of the schemes that we serve (RFC 9112 §3.2).
fn has_lawful_form(target: &[u8]) -> bool {
    let begins = |scheme: &[u8]| {
        let start = target.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    target.starts_with(b"/") || target == b"*" || begins(b"http://") || begins(b"https://")
}

/// Printable ASCII without what RFC 3986 never allows raw and recipients re-encode each in their
/// own way. Brackets, braces, `|`, `^`, `` ` `` and `\` are sent by browsers and let through.
pub(crate) fn is_target(target: &[u8]) -> bool {
    !target.is_empty()
        && target
            .iter()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'#'))
}

/// RFC 9110 §5.6.2.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// The fields that decide where the request ends and for whom it is.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    coding: Option<Coding>,
    hosts: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    Chunked,
    Unknown,
}

impl Fields {
    fn take(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(Refusal::Malformed("folded line"));
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or(Refusal::Malformed("no colon"))?);
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(Refusal::Malformed("field name"));
        }
        let value = &value[1..];
        if value
            .iter()
            .any(|byte| byte.is_ascii_control() && *byte != b'\t')
        {
            return Err(Refusal::Malformed("control character"));
        }
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let twice = self.length.replace(length(value)?).is_some();
            return lawful(!twice, "several lengths");
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let twice = self.coding.replace(coding(value)?).is_some();
            return lawful(!twice, "several transfer codings");
        }
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
        }
        Ok(())
    }

    fn framing(&self, newest: bool) -> Result<Framing, Refusal> {
        lawful(self.hosts < 2, "several hosts")?;
        lawful(self.hosts == 1 || !newest, "no host")?;
        match (self.coding, self.length) {
            (None, None) => Ok(Framing::None),
            (None, Some(0)) => Ok(Framing::None),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (Some(_), Some(_)) => Err(Refusal::Malformed("length and transfer coding")),
            (Some(_), None) if !newest => Err(Refusal::Malformed("transfer coding in HTTP/1.0")),
            (Some(Coding::Unknown), None) => Err(Refusal::TransferCoding),
            (Some(Coding::Chunked), None) => Ok(Framing::Chunked),
        }
    }
}

const fn lawful(is: bool, otherwise: &'static str) -> Result<(), Refusal> {
    if is {
        Ok(())
    } else {
        Err(Refusal::Malformed(otherwise))
    }
}

/// Digits only: no sign, no list (RFC 9110 §8.6).
fn length(value: &[u8]) -> Result<u64, Refusal> {
    let digits = value.iter().all(u8::is_ascii_digit) && !value.is_empty();
    let text = std::str::from_utf8(value).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok())
        .filter(|length| *length <= i64::MAX as u64)
        .ok_or(Refusal::Malformed("length"))
}

fn coding(value: &[u8]) -> Result<Coding, Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(Coding::Chunked);
    }
    let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let last_is = codings.next_back().is_some_and(chunked);
    if codings.any(chunked) || (value.is_empty() && !last_is) {
        return Err(Refusal::Malformed("transfer coding"));
    }
    Ok(Coding::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 1_000,
        fields: 5,
    };

    fn scan(bytes: &[u8]) -> Result<Option<Head>, Refusal> {
        Scanner::default().scan(bytes, LIMITS)
    }

    fn in_pieces(bytes: &[u8]) -> Result<Option<Head>, Refusal> {
        let mut scanner = Scanner::default();
        for end in 0..bytes.len() {
            let found = scanner.scan(&bytes[..end], LIMITS)?;
            assert_eq!(found, None, "ended early at {end}");
        }
        scanner.scan(bytes, LIMITS)
    }

    #[test]
    fn a_head_ends_at_its_empty_line_and_the_body_is_framed_by_its_fields() {
        let framed = |fields: &str| {
            let head = format!("POST /a?b HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
            let found = in_pieces(head.as_bytes()).unwrap().unwrap();
            assert_eq!(found.length, head.len());
            let with_body = format!("{head}GET / \n\n\0");
            assert_eq!(scan(with_body.as_bytes()), Ok(Some(found)));
            found.framing
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
}
