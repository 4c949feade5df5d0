//! The header fields of one head: flat, in the order they came, cheap to read, change and write.
//!
//! One buffer holds all lines as HTTP/1 writes them; an index says where they are. Fields that the
//! proxy itself reads are recognised once, when they are added, so that asking for one that is not
//! there costs a bit test. Used by every lane and every step of an exchange; knows no socket, and
//! checks no syntax but what would break a line: parsers do (`crate::h1`, `h2`).

use std::fmt;
use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::h1::head;

/// A field that the proxy reads or writes by itself.
macro_rules! known {
    ($($word:ident = $name:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Known { $($word,)* Other }

        const NAMES: &[&str] = &[$($name,)*];
        const WORDS: &[Known] = &[$(Known::$word,)*];
    };
}

known! {
    Host = "host",
    Connection = "connection",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    Http2Settings = "http2-settings",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    Te = "te",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    Trailer = "trailer",
    ContentLength = "content-length",
    ContentType = "content-type",
    ContentEncoding = "content-encoding",
    ContentRange = "content-range",
    Expect = "expect",
    Via = "via",
    Forwarded = "forwarded",
    XForwardedFor = "x-forwarded-for",
    XForwardedProto = "x-forwarded-proto",
    XForwardedHost = "x-forwarded-host",
    XRealIp = "x-real-ip",
    XRequestId = "x-request-id",
    XSealaneRegion = "x-sealane-region",
    XSealaneEndpoint = "x-sealane-endpoint",
    XSealaneRefusal = "x-sealane-refusal",
    XSealaneClientIdentity = "x-sealane-client-identity",
    Authorization = "authorization",
    Cookie = "cookie",
    SetCookie = "set-cookie",
    Date = "date",
    IdempotencyKey = "idempotency-key",
    GrpcTimeout = "grpc-timeout",
    GrpcStatus = "grpc-status",
    AcceptEncoding = "accept-encoding",
    Origin = "origin",
    Vary = "vary",
    Location = "location",
    Etag = "etag",
    CacheControl = "cache-control",
    AcceptRanges = "accept-ranges",
    Range = "range",
    DisguisedLength = "content_length",
    DisguisedCoding = "transfer_encoding",
    WebsocketKey = "sec-websocket-key",
    WebsocketAccept = "sec-websocket-accept",
    WebsocketVersion = "sec-websocket-version",
    RetryAfter = "retry-after",
    Allow = "allow",
    Server = "server",
}

const _: () = assert!(NAMES.len() < 63, "the presence of each is one bit of a u64");
/// The last bit: a name that begins with an `x` and is no known one.
const OTHER_X: u64 = 1 << 63;

/// Slots of a perfect hash of [`NAMES`]: 0 is empty, else the index and one. Built, and shown to be
/// free of collisions, while compiling.
static SLOTS: [u8; 256] = {
    let mut slots = [0; 256];
    let mut at = 0;
    while at < NAMES.len() {
        let slot = slot_of(NAMES[at].as_bytes());
        assert!(slots[slot] == 0, "two names fall into one slot");
        slots[slot] = at as u8 + 1;
        at += 1;
    }
    slots
};

const fn slot_of(name: &[u8]) -> usize {
    let length = name.len();
    let first = name[0].to_ascii_lowercase() as usize;
    let middle = name[length / 2].to_ascii_lowercase() as usize;
    let last = name[length - 1].to_ascii_lowercase() as usize;
    (length + 2 * first + 35 * last + middle) & 255
}

/// `lower`: in lower case. Eight letters at a time: names are asked for by every head.
fn is_in_any_case(name: &[u8], lower: &[u8]) -> bool {
    if name.len() != lower.len() {
        return false;
    }
    let (names, name_rest) = name.as_chunks::<8>();
    let (lowers, lower_rest) = lower.as_chunks::<8>();
    let mut differ = 0;
    for (name, lower) in names.iter().zip(lowers) {
        differ |= lower_case(u64::from_le_bytes(*name)) ^ u64::from_le_bytes(*lower);
    }
    // The last eight once more, where there are as many.
    match (name.last_chunk::<8>(), lower.last_chunk::<8>()) {
        (Some(name), Some(lower)) => {
            differ |= lower_case(u64::from_le_bytes(*name)) ^ u64::from_le_bytes(*lower);
            differ == 0
        }
        _ => name_rest.eq_ignore_ascii_case(lower_rest),
    }
}

/// Each of eight bytes in lower case, where it is a letter of ASCII (Warren, Hacker's Delight, §6-1).
const fn lower_case(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & (ONES * 0x7f);
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let beyond_z = low + ONES * (0x7f - b'Z' as u64);
    let capital = (from_a ^ beyond_z) & !word & (ONES * 0x80);
    word | (capital >> 2)
}

impl Known {
    /// In any case.
    pub(crate) fn of(name: &[u8]) -> Self {
        if name.is_empty() {
            return Self::Other;
        }
        let found = usize::from(SLOTS[slot_of(name)]);
        match found.checked_sub(1) {
            Some(at) if is_in_any_case(name, NAMES[at].as_bytes()) => WORDS[at],
            _ => Self::Other,
        }
    }

    /// In lower case. `Other` has none.
    pub(crate) fn as_str(self) -> &'static str {
        NAMES.get(self as usize).copied().unwrap_or_default()
    }

    /// None for `Other`.
    const fn bit(self) -> u64 {
        match self {
            Self::Other => 0,
            known => 1 << known as u8,
        }
    }
}

/// What a line of this name sets in [`Fields::present`].
fn presence(known: Known, name: &[u8]) -> u64 {
    match (known, name.first()) {
        (Known::Other, Some(b'x' | b'X')) => OTHER_X,
        _ => known.bit(),
    }
}

/// A set of known names, asked in one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownSet(u64);

impl KnownSet {
    pub(crate) const fn new(names: &[Known]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < names.len() {
            bits |= names[at].bit();
            at += 1;
        }
        Self(bits)
    }

    pub(crate) const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// `Other` is in no set.
    pub(crate) const fn contains(self, name: Known) -> bool {
        !matches!(name, Known::Other) && self.0 & name.bit() != 0
    }
}

/// How a caller names a field: a known one, or any other in any case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'n> {
    known: Known,
    text: &'n [u8],
}

impl From<Known> for Name<'static> {
    fn from(known: Known) -> Self {
        Self {
            known,
            text: known.as_str().as_bytes(),
        }
    }
}

impl<'n> From<&'n [u8]> for Name<'n> {
    fn from(text: &'n [u8]) -> Self {
        Self {
            known: Known::of(text),
            text,
        }
    }
}

impl<'n> From<&'n str> for Name<'n> {
    fn from(text: &'n str) -> Self {
        Self::from(text.as_bytes())
    }
}

impl<'n> From<&'n HeaderName> for Name<'n> {
    fn from(name: &'n HeaderName) -> Self {
        Self::from(name.as_str())
    }
}

/// One line: `name: value CRLF` in the buffer, perhaps with other white space around the value.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: u32,
    end: u32,
    value: u32,
    value_end: u32,
    name_length: u16,
    known: Known,
    /// The buffer's bytes can be written out as they are.
    as_written: bool,
}

/// Where a line that a parser has checked stands in the buffer it hands over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) start: usize,
    pub(crate) name_end: usize,
    pub(crate) value: usize,
    pub(crate) value_end: usize,
    /// Behind CRLF.
    pub(crate) end: usize,
}

impl Line {
    fn at(text: &[u8], place: Place) -> Self {
        Self {
            start: offset(place.start),
            end: offset(place.end),
            value: offset(place.value),
            value_end: offset(place.value_end),
            name_length: (place.name_end - place.start) as u16,
            known: Known::of(&text[place.start..place.name_end]),
            as_written: place.value == place.name_end + 2
                && text[place.name_end + 1] == b' '
                && place.end == place.value_end + 2,
        }
    }
}

/// The lines that a parser found in a buffer that it does not own.
#[derive(Debug)]
pub(crate) struct Lines {
    lines: Vec<Line>,
    present: u64,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self {
            lines: Vec::with_capacity(LINES),
            present: 0,
        }
    }

    /// `place` lies within `text`.
    pub(crate) fn add(&mut self, text: &[u8], place: Place) {
        let line = Line::at(text, place);
        self.present |= presence(line.known, &text[place.start..]);
        self.lines.push(line);
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }
}

/// Lines of known names, kept in little room to be added to one head after the other.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    text: Box<[u8]>,
    /// Name and end of each.
    ends: SmallVec<[(Known, u16); 5]>,
}

impl Written {
    /// `None`: there are unknown names among them, they are too long, or something stands between them.
    pub(crate) fn of(fields: &Fields) -> Option<Self> {
        u16::try_from(fields.text.len()).ok()?;
        let mut ends = SmallVec::new();
        let mut at = 0;
        for line in &fields.lines {
            if line.known == Known::Other || line.start != at || !line.as_written {
                return None;
            }
            at = line.end;
            ends.push((line.known, at as u16));
        }
        (at as usize == fields.text.len()).then(|| Self {
            text: fields.text.as_slice().into(),
            ends,
        })
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        let mut start = 0;
        self.ends.iter().map(move |(known, end)| {
            let end = u32::from(*end);
            let name_length = known.as_str().len() as u16;
            let line = Line {
                start,
                end,
                value: start + u32::from(name_length) + 2,
                value_end: end - 2,
                name_length,
                known: *known,
                as_written: true,
            };
            start = end;
            line
        })
    }

    /// The first of this name.
    pub(crate) fn get(&self, known: Known) -> Option<&[u8]> {
        let line = self.lines().find(|line| line.known == known)?;
        Some(&self.text[line.value as usize..line.value_end as usize])
    }
}

/// See the module. Bounded by whoever fills it: a parser's limits, or our own few additions.
#[derive(Clone, Default)]
pub(crate) struct Fields {
    text: Vec<u8>,
    lines: Vec<Line>,
    present: u64,
}

/// Lines that a head usually has, with what we add.
const LINES: usize = 16;
/// Room for what is added to a head on its way.
pub(crate) const ADDED: usize = 384;

impl Fields {
    pub(crate) const fn new() -> Self {
        Self {
            text: Vec::new(),
            lines: Vec::new(),
            present: 0,
        }
    }

    /// Behind what a head keeps in the buffer besides lines.
    pub(crate) fn over(text: Vec<u8>) -> Self {
        Self {
            text,
            lines: Vec::with_capacity(LINES),
            present: 0,
        }
    }

    /// Over a buffer that begins as the one did in which [`Lines`] were found.
    pub(crate) fn of_lines(text: Vec<u8>, found: Lines) -> Self {
        Self {
            text,
            lines: found.lines,
            present: found.present,
        }
    }

    /// A copy with room for some more lines.
    pub(crate) fn roomy_clone(&self) -> Self {
        let mut text = Vec::with_capacity(self.text.len() + ADDED);
        text.extend_from_slice(&self.text);
        let mut lines = Vec::with_capacity(self.lines.len() + 8);
        lines.extend_from_slice(&self.lines);
        Self {
            text,
            lines,
            present: self.present,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The buffer behind the lines, for what else a head keeps in it.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Puts bytes that are no line behind them, for what else a head keeps there.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        start..self.text.len()
    }

    fn name_of(&self, line: &Line) -> &[u8] {
        let start = line.start as usize;
        &self.text[start..start + usize::from(line.name_length)]
    }

    fn value_of(&self, line: &Line) -> &[u8] {
        &self.text[line.value as usize..line.value_end as usize]
    }

    fn is(&self, line: &Line, name: Name<'_>) -> bool {
        line.known == name.known
            && (name.known != Known::Other || self.name_of(line).eq_ignore_ascii_case(name.text))
    }

    fn may_have(&self, known: Known) -> bool {
        known == Known::Other || self.present & known.bit() != 0
    }

    pub(crate) fn contains<'n>(&self, name: impl Into<Name<'n>>) -> bool {
        let name = name.into();
        self.may_have(name.known)
            && (name.known != Known::Other || self.lines.iter().any(|line| self.is(line, name)))
    }

    /// Whether one of these is there.
    pub(crate) fn contains_any(&self, names: KnownSet) -> bool {
        self.present & names.0 != 0
    }

    /// Whether a name that is not known may begin with an `x`.
    pub(crate) const fn may_have_other_x(&self) -> bool {
        self.present & OTHER_X != 0
    }

    /// The first line of this name.
    pub(crate) fn get<'n>(&self, name: impl Into<Name<'n>>) -> Option<&[u8]> {
        let name = name.into();
        if !self.may_have(name.known) {
            return None;
        }
        let line = self.lines.iter().find(|line| self.is(line, name))?;
        Some(self.value_of(line))
    }

    /// The first line of this name, where it is text.
    pub(crate) fn get_str<'n>(&self, name: impl Into<Name<'n>>) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// All lines of this name, in order.
    pub(crate) fn all<'f, 'n, N: Into<Name<'n>>>(
        &'f self,
        name: N,
    ) -> impl DoubleEndedIterator<Item = &'f [u8]> + use<'f, 'n, N> {
        let name = name.into();
        let lines = if self.may_have(name.known) {
            &self.lines[..]
        } else {
            &[]
        };
        let found = lines.iter().filter(move |line| self.is(line, name));
        found.map(|line| self.value_of(line))
    }

    /// Name and value of each line, in order; names in the case they came in.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let lines = self.lines.iter();
        lines.map(|line| (self.name_of(line), self.value_of(line)))
    }

    /// Adds a line. A value that would end it, or hide something in it, is not taken: that is a
    /// mistake of ours, as parsers let none through.
    pub(crate) fn append<'n>(&mut self, name: impl Into<Name<'n>>, value: &[u8]) {
        self.append_parts(name, &[value]);
    }

    /// As [`Fields::append`], of a value in pieces.
    pub(crate) fn append_parts<'n>(&mut self, name: impl Into<Name<'n>>, value: &[&[u8]]) {
        let name = name.into();
        let start = self.text.len();
        self.text.extend_from_slice(name.text);
        self.text.extend_from_slice(b": ");
        let from = self.text.len();
        for part in value {
            self.text.extend_from_slice(part);
        }
        let to = self.text.len();
        if breaks_lines(&self.text[from..]) {
            self.text.truncate(start);
            return;
        }
        self.text.extend_from_slice(b"\r\n");
        self.present |= presence(name.known, name.text);
        self.lines.push(Line {
            start: offset(start),
            end: offset(self.text.len()),
            value: offset(from),
            value_end: offset(to),
            name_length: name.text.len() as u16,
            known: name.known,
            as_written: true,
        });
    }

    /// Adds lines that were written before.
    pub(crate) fn append_written(&mut self, written: &Written) {
        let by = offset(self.text.len());
        self.text.extend_from_slice(&written.text);
        for line in written.lines() {
            self.present |= line.known.bit();
            self.lines.push(Line {
                start: line.start + by,
                end: line.end + by,
                value: line.value + by,
                value_end: line.value_end + by,
                ..line
            });
        }
    }

    /// Replaces all lines of this name by one.
    pub(crate) fn insert<'n>(&mut self, name: impl Into<Name<'n>>, value: &[u8]) {
        let name = name.into();
        self.remove(name);
        self.append(name, value);
    }

    /// Whether there was one.
    pub(crate) fn remove<'n>(&mut self, name: impl Into<Name<'n>>) -> bool {
        let name = name.into();
        if !self.may_have(name.known) {
            return false;
        }
        let before = self.lines.len();
        let Self { text, lines, .. } = self;
        lines.retain(|line| {
            let same = line.known == name.known
                && (name.known != Known::Other
                    || name_in(text, line).eq_ignore_ascii_case(name.text));
            !same
        });
        if name.known != Known::Other {
            self.present &= !name.known.bit();
        }
        self.lines.len() < before
    }

    /// Keeps the lines of which `keep` says so, asked in order with what is known of the name, and
    /// the name itself.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(Known, &[u8]) -> bool) {
        let Self {
            text,
            lines,
            present,
        } = self;
        *present = 0;
        lines.retain(|line| {
            let name = name_in(text, line);
            let kept = keep(line.known, name);
            if kept {
                *present |= presence(line.known, name);
            }
            kept
        });
    }

    /// Removes the lines of these names.
    pub(crate) fn remove_all(&mut self, names: KnownSet) {
        if self.contains_any(names) {
            self.retain(|known, _| !names.contains(known));
        }
    }

    /// The parts of a comma-separated list over all its lines, without empty ones
    /// (RFC 9110 §5.6.1).
    pub(crate) fn tokens<'f, 'n, N: Into<Name<'n>>>(
        &'f self,
        name: N,
    ) -> impl Iterator<Item = &'f [u8]> + use<'f, 'n, N> {
        self.all(name)
            .flat_map(|line| line.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|part| !part.is_empty())
    }

    /// All lines as HTTP/1 writes them, without the empty one behind.
    pub(crate) fn write_to(&self, out: &mut impl Sink) {
        let mut run = 0..0;
        for line in &self.lines {
            let (start, end) = (line.start as usize, line.end as usize);
            if line.as_written && run.end == start {
                run.end = end;
                continue;
            }
            out.put(&self.text[run]);
            if line.as_written {
                run = start..end;
            } else {
                run = end..end;
                out.put(self.name_of(line));
                out.put(b": ");
                out.put(self.value_of(line));
                out.put(b"\r\n");
            }
        }
        out.put(&self.text[run]);
    }

    pub(crate) fn from_map(map: &HeaderMap) -> Self {
        let bytes: usize = map
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        let mut fields = Self {
            text: Vec::with_capacity(bytes + ADDED),
            lines: Vec::with_capacity(map.len() + 8),
            present: 0,
        };
        for (name, value) in map {
            fields.append(name, value.as_bytes());
        }
        fields
    }

    /// Names in lower case, values without copying. Lines that are no lawful header are left out.
    pub(crate) fn into_map(self) -> HeaderMap {
        let text = Bytes::from(self.text);
        let mut map = HeaderMap::with_capacity(self.lines.len() + 2);
        for line in &self.lines {
            let start = line.start as usize;
            let name = &text[start..start + usize::from(line.name_length)];
            let value = text.slice(line.value as usize..line.value_end as usize);
            let name = header_name(line.known, name);
            if let (Some(name), Ok(mut value)) = (name, HeaderValue::from_maybe_shared(value)) {
                // Never the same twice: in a peer's table (RFC 7541 §6.2.3) it would only drive
                // others out.
                value.set_sensitive(line.known == Known::XRequestId);
                map.append(name, value);
            }
        }
        map
    }
}

/// What HTTP/2 brought is a token (RFC 9110 §5.1): h2 takes a quotation mark, too, for a letter
/// of a field's name, and HTTP/1 does not.
pub(crate) fn is_name(name: &HeaderName) -> bool {
    memchr::memchr(b'"', name.as_str().as_bytes()).is_none()
}

fn header_name(known: Known, text: &[u8]) -> Option<HeaderName> {
    match known {
        Known::Other => HeaderName::from_bytes(text).ok(),
        known => HEADER_NAMES.get(known as usize).cloned(),
    }
}

/// [`NAMES`] for maps: making one looks at each of its letters.
static HEADER_NAMES: LazyLock<Vec<HeaderName>> =
    LazyLock::new(|| NAMES.iter().copied().map(HeaderName::from_static).collect());

fn breaks_lines(value: &[u8]) -> bool {
    let Some(first) = head::control(value, 0) else {
        return false;
    };
    let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    value[first..].iter().any(breaks)
}

fn name_in<'t>(text: &'t [u8], line: &Line) -> &'t [u8] {
    let start = line.start as usize;
    &text[start..start + usize::from(line.name_length)]
}

/// Heads are bounded far below 4 GiB.
const fn offset(at: usize) -> u32 {
    at as u32
}

/// What lines are written into.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Sink for bytes::BytesMut {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl fmt::Debug for Fields {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.iter().map(|(name, _)| String::from_utf8_lossy(name));
        f.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_known_name_is_recognised_in_any_case_and_nothing_else_is() {
        for (at, name) in NAMES.iter().enumerate() {
            assert_eq!(Known::of(name.as_bytes()), WORDS[at]);
            assert_eq!(Known::of(name.to_uppercase().as_bytes()), WORDS[at]);
            assert_eq!(WORDS[at].as_str(), *name);
            assert_eq!(Known::of(format!("{name}x").as_bytes()), Known::Other);
        }
        assert_eq!(Known::of(b""), Known::Other);
    }

    proptest! {
        #[test]
        fn names_are_compared_as_ascii_has_it(name in prop::collection::vec(any::<u8>(), 0..24), at in 0..24_usize) {
            let lower = name.to_ascii_lowercase();
            prop_assert!(is_in_any_case(&name, &lower));
            let mut other = lower;
            if let Some(byte) = other.get_mut(at).filter(|byte| !byte.is_ascii_lowercase()) {
                *byte ^= 0x20;
                prop_assert!(!is_in_any_case(&name, &other.to_ascii_lowercase()));
            }
        }
    }

    #[test]
    fn lines_that_were_written_before_stand_behind() {
        let mut fields = Fields::new();
        fields.append("x-first", b"1");
        let mut other = Fields::new();
        other.append(Known::Via, b"1.1 a");
        other.append(Known::Te, b"");
        let kept = Written::of(&other).unwrap();

        fields.append_written(&kept);
        fields.append(Known::Host, b"x");

        let all = "x-first: 1\r\nvia: 1.1 a\r\nte: \r\nhost: x\r\n";
        assert_eq!(written(&fields), all);
        for each in [fields.get(Known::Via), kept.get(Known::Via)] {
            assert_eq!(each, Some(&b"1.1 a"[..]));
        }
        assert_eq!(fields.get(Known::Te), Some(&b""[..]));
        assert_eq!(kept.get(Known::Host), None);
    }

    #[test]
    fn only_known_names_without_gaps_are_kept_as_written() {
        let mut fields = Fields::new();
        fields.append(Known::Via, b"1.1 a");
        fields.append(Known::Te, b"b");
        fields.remove(Known::Via);
        assert!(Written::of(&fields).is_none(), "a gap");

        let mut fields = Fields::new();
        fields.append("x-other", b"b");
        assert!(Written::of(&fields).is_none(), "an unknown name");
    }

    #[test]
    fn a_value_that_would_break_its_line_is_not_taken() {
        let mut fields = Fields::new();
        for value in [&b"a\r\nx: y"[..], b"a\n", b"a\0b"] {
            fields.append("x-test", value);
        }
        assert!(fields.is_empty());
    }

    #[test]
    fn debugging_shows_no_value() {
        let mut fields = Fields::new();
        fields.append(Known::Authorization, b"Bearer secret");
        assert_eq!(format!("{fields:?}"), "[\"authorization\"]");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append(String, String),
        Insert(String, String),
        Remove(String),
        RetainOthers,
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("Host".to_owned()),
            Just("via".to_owned()),
            Just("X-Test".to_owned()),
            Just("x-other".to_owned()),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        let value = "[a-c ,]{0,4}";
        prop_oneof![
            (name(), value).prop_map(|(n, v)| Step::Append(n, v.trim().to_owned())),
            (name(), value).prop_map(|(n, v)| Step::Insert(n, v.trim().to_owned())),
            name().prop_map(Step::Remove),
            Just(Step::RetainOthers),
        ]
    }

    proptest! {
        /// Whatever is done to it, it is the list that the same steps make of a plain list.
        #[test]
        fn it_behaves_as_a_list_of_lines(steps in prop::collection::vec(step(), 0..24)) {
            let mut fields = Fields::new();
            let mut model: Vec<(String, String)> = Vec::new();
            for step in steps {
                match step {
                    Step::Append(n, v) => {
                        fields.append(&*n, v.as_bytes());
                        model.push((n, v));
                    }
                    Step::Insert(n, v) => {
                        fields.insert(&*n, v.as_bytes());
                        model.retain(|(name, _)| !name.eq_ignore_ascii_case(&n));
                        model.push((n, v));
                    }
                    Step::Remove(n) => {
                        let before = model.len();
                        model.retain(|(name, _)| !name.eq_ignore_ascii_case(&n));
                        prop_assert_eq!(fields.remove(&*n), model.len() < before);
                    }
                    Step::RetainOthers => {
                        fields.retain(|known, _| known == Known::Other);
                        model.retain(|(name, _)| Known::of(name.as_bytes()) == Known::Other);
                    }
                }
                let expected: String = model.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
                prop_assert_eq!(written(&fields), expected);
                for n in ["host", "VIA", "x-test", "x-other", "absent"] {
                    let of: Vec<&[u8]> = model.iter()
                        .filter(|(name, _)| name.eq_ignore_ascii_case(n))
                        .map(|(_, v)| v.as_bytes())
                        .collect();
                    prop_assert_eq!(fields.get(n), of.first().copied());
                    prop_assert_eq!(fields.contains(n), !of.is_empty());
                    prop_assert_eq!(fields.all(n).collect::<Vec<_>>(), of);
                }
                let there_and_back = Fields::from_map(&fields.clone().into_map());
                prop_assert_eq!(there_and_back.len(), fields.len());
            }
        }
    }
}
