//! Heads of HTTP/1 messages, read in one pass into flat fields. Pure.
//!
//! Refuses whatever two recipients could read in two ways (RFC 9112 §2.2, §3, §5, §6; RFC 9110
//! §8.6): bare CR or LF, NUL, folded lines, white space before a colon, several lengths, a length
//! beside a transfer coding. Values may hold bytes above 127 (RFC 9110 §5.5).

use bytes::{Buf as _, BytesMut};
use http::{Method, StatusCode, Version};

use crate::http::fields::{ADDED, Fields, Known, Lines, Place};
use crate::http::message::{AnswerHead, RequestHead};
use crate::http::refuse::Refusal;

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

/// How an answer's body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerFraming {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// The form of a request's target (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Origin,
    Absolute,
    Asterisk,
    /// For `CONNECT` alone.
    Authority,
}

/// A request's head, and what follows from it for the connection.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: RequestHead,
    pub(crate) framing: Framing,
    pub(crate) form: Form,
}

/// An answer's head, and what follows from it for the connection.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: AnswerHead,
    pub(crate) framing: AnswerFraming,
    /// The endpoint will take another request on this connection (RFC 9112 §9.3).
    pub(crate) keep: bool,
}

/// Looks for the end of a head that arrives in pieces; looks at each byte once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scanner {
    /// Bytes looked at.
    at: usize,
    /// Where the current line begins.
    line: usize,
    lines: usize,
}

impl Scanner {
    /// Whether it has looked at anything.
    pub(crate) const fn has_begun(&self) -> bool {
        self.at > 0
    }

    /// `bytes`: all that arrived so far; must begin with what was handed in before. The length of
    /// the head with its empty line, once it is there.
    ///
    /// # Errors
    /// The refusal, as soon as it is certain: a client that sends nonsense need not finish it.
    pub(crate) fn scan(
        &mut self,
        bytes: &[u8],
        limits: HeadLimits,
    ) -> Result<Option<usize>, Refusal> {
        while let Some(found) = control(bytes, self.at) {
            let end = found + 1;
            match bytes[found] {
                0 => return Err(Refusal::Malformed("NUL")),
                b'\n' => {}
                _ => {
                    // Lawful before LF, or within a value, or found out by who reads the line.
                    self.at = end;
                    continue;
                }
            }
            if end < 2 || bytes[end - 2] != b'\r' {
                return Err(Refusal::Malformed("bare LF"));
            }
            let empty = end - self.line == 2;
            self.at = end;
            self.line = end;
            if end > limits.bytes {
                return Err(Refusal::HeadTooLarge);
            }
            if empty {
                return Ok(Some(end));
            }
            self.lines += 1;
            // The first line is no field.
            if self.lines > limits.fields.saturating_add(1) {
                return Err(Refusal::HeadTooLarge);
            }
        }
        self.at = bytes.len();
        if self.at > limits.bytes {
            return Err(Refusal::HeadTooLarge);
        }
        Ok(None)
    }
}

/// The head of `length` bytes that `arrived` begins with: without copying it where nothing stands
/// behind.
pub(crate) fn take(arrived: &mut BytesMut, length: usize) -> Vec<u8> {
    if arrived.len() == length {
        return std::mem::take(arrived).into();
    }
    let mut text = Vec::with_capacity(length + ADDED);
    text.extend_from_slice(&arrived[..length]);
    arrived.advance(length);
    text
}

/// `text`: a head that [`Scanner::scan`] found whole, and nothing behind it.
///
/// # Errors
/// What is wrong with it, and the text, which is of no further use.
pub(crate) fn request(text: Vec<u8>) -> Result<Request, Refusal> {
    let (line, fields_at) = first_line(&text)?;
    let line = request_line(&text[line])?;
    request_of(line, fields(text, fields_at)?)
}

fn request_of(line: RequestLine, fields: Fields) -> Result<Request, Refusal> {
    let framing = request_framing(&fields, line.version == Version::HTTP_11)?;
    let head = RequestHead::new(line.method, line.version, fields, line.target);
    Ok(Request {
        head,
        framing,
        form: line.form,
    })
}

/// The head that `arrived` begins with, taken out of it, where it is whole and each line of it as lines nearly
/// always are. `None`: nothing was taken; [`Scanner`] and [`request`] tell what is the matter, if anything is.
///
/// # Errors
/// As [`request`].
pub(crate) fn plain_request(
    arrived: &mut BytesMut,
    limits: HeadLimits,
) -> Result<Option<Request>, Refusal> {
    let read = first_line(arrived).ok().and_then(|(line, fields_at)| {
        let line = request_line(&arrived[line]).ok()?;
        Some((line, plain_fields(arrived, fields_at, limits)?))
    });
    read.map(|(line, fields)| request_of(line, fields))
        .transpose()
}

/// As [`request`], of an endpoint's answer. `to_head`: it answers a `HEAD`.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn answer(text: Vec<u8>, to_head: bool) -> Result<Answer, &'static str> {
    let words = |refusal| match refusal {
        Refusal::Malformed(what) => what,
        _ => "head",
    };
    let (line, fields_at) = first_line(&text).map_err(words)?;
    let line = status_line(&text[line])?;
    let fields = fields(text, fields_at).map_err(words)?;
    answer_of(line, fields, to_head)
}

/// As [`plain_request`], of an endpoint's answer. `to_head`: it answers a `HEAD`.
///
/// # Errors
/// As [`answer`].
pub(crate) fn plain_answer(
    arrived: &mut BytesMut,
    limits: HeadLimits,
    to_head: bool,
) -> Result<Option<Answer>, &'static str> {
    let read = first_line(arrived).ok().and_then(|(line, fields_at)| {
        let line = status_line(&arrived[line]).ok()?;
        Some((line, plain_fields(arrived, fields_at, limits)?))
    });
    read.map(|(line, fields)| answer_of(line, fields, to_head))
        .transpose()
}

fn answer_of(
    (status, newest): (StatusCode, bool),
    fields: Fields,
    to_head: bool,
) -> Result<Answer, &'static str> {
    let mut head = AnswerHead { status, fields };
    let framing = answer_framing(&mut head, newest, to_head)?;
    let keep = newest && framing != AnswerFraming::UntilClose && !names_close(&head.fields);
    Ok(Answer {
        head,
        framing,
        keep,
    })
}

/// Whether `Connection` says `close` (RFC 9112 §9.6).
pub(crate) fn names_close(fields: &Fields) -> bool {
    let mut options = fields.tokens(Known::Connection);
    options.any(|option| option.eq_ignore_ascii_case(b"close"))
}

/// The first line without its CRLF, and where the next one begins.
fn first_line(text: &[u8]) -> Result<(std::ops::Range<usize>, usize), Refusal> {
    let end = memchr::memchr(b'\n', text).unwrap_or_default();
    match end.checked_sub(1) {
        Some(before) if text[before] == b'\r' => Ok((0..before, end + 1)),
        _ => Err(Refusal::Malformed("bare LF")),
    }
}

struct RequestLine {
    method: Method,
    target: std::ops::Range<usize>,
    version: Version,
    form: Form,
}

/// `method SP target SP version` (RFC 9112 §3).
fn request_line(line: &[u8]) -> Result<RequestLine, Refusal> {
    let wrong = || Refusal::Malformed("request line");
    let first = memchr::memchr(b' ', line).ok_or_else(wrong)?;
    let last = memchr::memrchr(b' ', line).ok_or_else(wrong)?;
    if first == last {
        return Err(wrong());
    }
    let (method, target, version) = (&line[..first], &line[first + 1..last], &line[last + 1..]);
    if !is_token(method) {
        return Err(Refusal::Malformed("method"));
    }
    let method = Method::from_bytes(method).map_err(|_| Refusal::Malformed("method"))?;
    if !is_target(target) {
        return Err(Refusal::Malformed("bytes in the target"));
    }
    let form = form_of(target, &method)?;
    let version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        [b'H', b'T', b'T', b'P', b'/', major, ..] if major.is_ascii_digit() => {
            return Err(Refusal::Version);
        }
        _ => return Err(Refusal::Malformed("version")),
    };
    Ok(RequestLine {
        method,
        target: first + 1..last,
        version,
        form,
    })
}

/// Origin form, asterisk form, or absolute form of the schemes that we serve (RFC 9112 §3.2).
fn form_of(target: &[u8], method: &Method) -> Result<Form, Refusal> {
    let begins = |scheme: &[u8]| {
        let start = target.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    match target {
        [b'/', ..] => Ok(Form::Origin),
        b"*" => Ok(Form::Asterisk),
        _ if begins(b"http://") || begins(b"https://") => Ok(Form::Absolute),
        // Refused later, under its own name.
        _ if *method == Method::CONNECT => Ok(Form::Authority),
        _ => Err(Refusal::Malformed("form of the target")),
    }
}

/// `version SP status [SP phrase]` (RFC 9112 §4). Whether the version is 1.1.
fn status_line(line: &[u8]) -> Result<(StatusCode, bool), &'static str> {
    let newest = match line.get(..9) {
        Some(b"HTTP/1.1 ") => true,
        Some(b"HTTP/1.0 ") => false,
        _ => return Err("status line"),
    };
    let digits = line.get(9..12).ok_or("status line")?;
    // Some leave out the space when there is no phrase (RFC 9112 §4 asks for it).
    if !matches!(line.get(12), None | Some(b' ')) || has_control(&line[12..]) {
        return Err("status line");
    }
    let status = StatusCode::from_bytes(digits).map_err(|_| "status")?;
    Ok((status, newest))
}

/// The lines from `at` on, and all before them, taken out of `arrived`.
fn plain_fields(arrived: &mut BytesMut, mut at: usize, limits: HeadLimits) -> Option<Fields> {
    let mut lines = Lines::new();
    while let Some(place) = plain_line(arrived, at) {
        lines.add(arrived, place);
        at = place.end;
    }
    let end = at + 2;
    let whole = arrived.get(at..end) == Some(b"\r\n");
    let fits = end <= limits.bytes && lines.len() <= limits.fields;
    (whole && fits).then(|| Fields::of_lines(take(arrived, end), lines))
}

/// The lines from `at` on, up to the empty one.
pub(crate) fn fields(text: Vec<u8>, mut at: usize) -> Result<Fields, Refusal> {
    let mut lines = Lines::new();
    loop {
        if let Some(place) = plain_line(&text, at) {
            lines.add(&text, place);
            at = place.end;
            continue;
        }
        let Some(length) = memchr::memchr(b'\n', &text[at..]) else {
            return Err(Refusal::Malformed("no end"));
        };
        let end = at + length + 1;
        if length == 0 || text[end - 2] != b'\r' {
            return Err(Refusal::Malformed("bare LF"));
        }
        if length == 1 {
            return Ok(Fields::of_lines(text, lines));
        }
        let place = field_line(&text, at, end)?;
        lines.add(&text, place);
        at = end;
    }
}

/// Where the first control character from `at` on stands: eight bytes are looked at at once.
pub(crate) fn control(bytes: &[u8], at: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = bytes.get(at..)?.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The top bit of each byte that is below 0x20 or DEL. A borrow may mark bytes above such a
        // one as well: the lowest is right (Warren, Hacker's Delight, §6-1).
        let low = word.wrapping_sub(ONES * 0x20) & !word;
        let del = word ^ (ONES * 0x7f);
        let del = del.wrapping_sub(ONES) & !del;
        let found = (low | del) & TOPS;
        if found != 0 {
            return Some(at + 8 * index + (found.trailing_zeros() / 8) as usize);
        }
    }
    let is_control = |byte: &u8| byte.is_ascii_control();
    let found = rest.iter().position(is_control)?;
    Some(at + 8 * words.len() + found)
}

/// Reads a line whose name and value are as they nearly always are. `None`: [`field_line`] tells.
fn plain_line(text: &[u8], start: usize) -> Option<Place> {
    let name = text[start..]
        .iter()
        .position(|byte| !TOKEN[usize::from(*byte)])?;
    let name_end = start + name;
    if name == 0 || name > usize::from(u16::MAX) || text[name_end] != b':' {
        return None;
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let mut value = name_end + 1;
    value += text[value..]
        .iter()
        .take_while(|byte| is_space(byte))
        .count();
    let cr = control(text, value)?;
    if text[cr] != b'\r' || text.get(cr + 1) != Some(&b'\n') {
        return None;
    }
    let after = text[value..cr].iter().rev();
    let after = after.take_while(|byte| is_space(byte)).count();
    Some(Place {
        start,
        name_end,
        value,
        value_end: cr - after,
        end: cr + 2,
    })
}

/// `name ":" OWS value OWS CRLF` (RFC 9112 §5).
fn field_line(text: &[u8], start: usize, end: usize) -> Result<Place, Refusal> {
    let line = &text[start..end - 2];
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::Malformed("folded line"));
    }
    let colon = memchr::memchr(b':', line).ok_or(Refusal::Malformed("no colon"))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) || name.len() > usize::from(u16::MAX) {
        return Err(Refusal::Malformed("field name"));
    }
    if has_control(value) {
        return Err(Refusal::Malformed("control character"));
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let before = value.iter().take_while(|byte| is_space(byte)).count();
    let after = value[before..]
        .iter()
        .rev()
        .take_while(|byte| is_space(byte))
        .count();
    let value_at = start + colon + 1;
    Ok(Place {
        start,
        name_end: start + colon,
        value: value_at + before,
        value_end: value_at + value.len() - after,
        end,
    })
}

/// Any control character but a tab. Without early exit, so that many bytes are looked at at once.
fn has_control(bytes: &[u8]) -> bool {
    let is_control = |byte: u8| (byte < 0x20 && byte != b'\t') | (byte == 0x7f);
    bytes
        .iter()
        .fold(false, |any, byte| any | is_control(*byte))
}

/// Printable ASCII without what RFC 3986 never allows raw and recipients re-encode each in their
/// own way. Brackets, braces, `|`, `^`, `` ` `` and `\` are sent by browsers and let through.
pub(crate) fn is_target(target: &[u8]) -> bool {
    let is_lawful = |byte: u8| {
        byte.is_ascii_graphic() & (byte != b'"') & (byte != b'<') & (byte != b'>') & (byte != b'#')
    };
    let all = target.iter().fold(true, |all, byte| all & is_lawful(*byte));
    !target.is_empty() && all
}

/// RFC 9110 §5.6.2.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| TOKEN[usize::from(*byte)])
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
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
            );
        byte += 1;
    }
    table
};

fn request_framing(fields: &Fields, newest: bool) -> Result<Framing, Refusal> {
    let hosts = fields.all(Known::Host).count();
    lawful(hosts < 2, "several hosts")?;
    lawful(hosts == 1 || !newest, "no host")?;
    let length = length_of(fields)?;
    let coding = coding_of(fields)?;
    match (coding, length) {
        (None, None | Some(0)) => Ok(Framing::None),
        (None, Some(length)) => Ok(Framing::Length(length)),
        (Some(_), Some(_)) => Err(Refusal::Malformed("length and transfer coding")),
        (Some(_), None) if !newest => Err(Refusal::Malformed("transfer coding in HTTP/1.0")),
        (Some(Coding::Unknown), None) => Err(Refusal::TransferCoding),
        (Some(Coding::Chunked), None) => Ok(Framing::Chunked),
    }
}

/// Several equal lengths become one: the endpoint is wrong, but clear (RFC 9110 §8.6).
fn answer_framing(
    head: &mut AnswerHead,
    newest: bool,
    to_head: bool,
) -> Result<AnswerFraming, &'static str> {
    let first = head.fields.get(Known::ContentLength).map(<[u8]>::to_owned);
    if let Some(first) = first {
        let lines = head.fields.all(Known::ContentLength);
        let (count, same) = lines.fold((0, true), |(count, same), line| {
            (count + 1, same && line == first)
        });
        if !same {
            return Err("several lengths");
        }
        if count > 1 {
            head.fields.insert(Known::ContentLength, &first);
        }
    }
    let length = length_of(&head.fields).map_err(|_| "length")?;
    let coding = coding_of(&head.fields).map_err(|_| "transfer coding")?;
    if coding.is_some() && length.is_some() {
        return Err("length and transfer coding");
    }
    if coding.is_some() && !newest {
        return Err("transfer coding in HTTP/1.0");
    }
    if coding == Some(Coding::Unknown) {
        return Err("transfer coding");
    }
    let status = head.status;
    let bodiless = to_head
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    Ok(match (coding, length) {
        _ if bodiless => AnswerFraming::None,
        (Some(_), _) => AnswerFraming::Chunked,
        (None, Some(0)) => AnswerFraming::None,
        (None, Some(length)) => AnswerFraming::Length(length),
        (None, None) => AnswerFraming::UntilClose,
    })
}

fn length_of(fields: &Fields) -> Result<Option<u64>, Refusal> {
    let mut lines = fields.all(Known::ContentLength);
    let first = lines.next();
    lawful(lines.next().is_none(), "several lengths")?;
    first.map(length).transpose()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Chunked,
    Unknown,
}

fn coding_of(fields: &Fields) -> Result<Option<Coding>, Refusal> {
    let mut lines = fields.all(Known::TransferEncoding);
    let first = lines.next();
    lawful(lines.next().is_none(), "several transfer codings")?;
    first.map(coding).transpose()
}

const fn lawful(is: bool, otherwise: &'static str) -> Result<(), Refusal> {
    if is {
        Ok(())
    } else {
        Err(Refusal::Malformed(otherwise))
    }
}

/// Digits only: no sign, no list (RFC 9110 §8.6).
///
/// # Errors
/// Anything else, and more than fits a signed number.
pub(crate) fn length(value: &[u8]) -> Result<u64, Refusal> {
    let wrong = Refusal::Malformed("length");
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(wrong);
    }
    let number = value
        .iter()
        .fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    // 19 digits fit an unsigned number; recipients that read a signed one must agree with us.
    if number > i64::MAX as u64 {
        return Err(wrong);
    }
    Ok(number)
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
mod tests;
