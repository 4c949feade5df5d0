//! Static records: read from the configuration or from a zone file into wire form.
//!
//! Zone files are read by [`parse_zone_file`], which reports every mistake with its line, not only
//! the first. Never opens a file: `$INCLUDE` is refused.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sealane_model::Ttl;

use crate::name::{Name, NameError, unescape};
use crate::record_kind::{self, Field, is_unwritable, numbered, words};
use crate::wire::rtype;
use crate::{loc, svcb};

pub use crate::zone_file::{ZoneFile, ZoneFileError, parse_zone_file};

/// One record of class IN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub owner: Name,
    pub rtype: u16,
    pub ttl: Ttl,
    /// Uncompressed wire form; at most 65,535 octets.
    pub data: Arc<[u8]>,
}

/// Why a record's data was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error(
        "{rtype:?} is no record type that can be served here; there are {}",
        words()
    )]
    UnknownType { rtype: String },
    #[error("{rtype} needs {expected}")]
    Missing {
        rtype: &'static str,
        expected: &'static str,
    },
    #[error("{found:?} is not {expected}")]
    Unexpected {
        found: String,
        expected: &'static str,
    },
    #[error("{found:?} follows the end of the {rtype} data")]
    Extra { rtype: &'static str, found: String },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("a text of {length} octets; at most 255 fit in one pair of quotes")]
    TextTooLong { length: usize },
    #[error("a backslash is followed by neither a character nor three digits up to 255")]
    BadEscape,
    #[error("a quotation mark is never closed")]
    OpenQuote,
    #[error("the data is longer than 65,535 octets")]
    TooLong,
}

impl Record {
    /// Reads `data` in the form of RFC 1035 §5.1; relative names are completed by `origin`.
    ///
    /// TXT data without any quotation mark is one text as it stands, spaces, semicolons and
    /// backslashes included, cut into pieces of 255 octets; that is what people write in YAML.
    ///
    /// # Errors
    /// [`RecordError`] for a type that is not served and for data that is not of its type.
    pub fn parse(
        owner: Name,
        rtype: &str,
        ttl: Ttl,
        data: &str,
        origin: &Name,
    ) -> Result<Self, RecordError> {
        let kind = type_named(rtype)?;
        let wire = if kind == rtype::TXT && !data.contains('"') {
            plain_text(data)?
        } else {
            let tokens = tokens(data)?;
            data_from_tokens(kind, &tokens, origin).map_err(|(_, error)| error)?
        };
        Self::new(owner, kind, ttl, wire)
    }

    pub(crate) fn new(
        owner: Name,
        rtype: u16,
        ttl: Ttl,
        data: Vec<u8>,
    ) -> Result<Self, RecordError> {
        if data.len() > usize::from(u16::MAX) {
            return Err(RecordError::TooLong);
        }
        Ok(Self {
            owner,
            rtype,
            ttl,
            data: data.into(),
        })
    }

    /// The name that the data leads to: for NS, CNAME, DNAME, PTR, MX and SRV.
    #[must_use]
    pub fn target(&self) -> Option<Name> {
        let skipped = match self.rtype {
            rtype::NS | rtype::CNAME | rtype::DNAME | rtype::PTR => 0,
            rtype::MX => 2,
            rtype::SRV => 6,
            _ => return None,
        };
        Name::from_wire(self.data.get(skipped..)?)
    }
}

pub(crate) fn type_named(word: &str) -> Result<u16, RecordError> {
    let number = numbered(word).filter(|number| !is_unwritable(*number));
    number.ok_or_else(|| RecordError::UnknownType {
        rtype: word.to_owned(),
    })
}

/// One word of a record, escapes still in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) quoted: bool,
    /// Where it begins in the text that was split.
    pub(crate) at: usize,
}

/// Splits at blanks and parentheses; `;` begins a comment; quotes hold words together.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token<'_>>, RecordError> {
    let octets = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(octet) = octets.get(at) {
        match octet {
            b';' => at = end_of_line(octets, at),
            b'"' => {
                let end = closing_quote(octets, at + 1).ok_or(RecordError::OpenQuote)?;
                found.push(Token {
                    text: &text[at + 1..end],
                    quoted: true,
                    at,
                });
                at = end + 1;
            }
            octet if is_separator(*octet) => at += 1,
            _ => {
                let end = end_of_word(octets, at);
                found.push(Token {
                    text: &text[at..end],
                    quoted: false,
                    at,
                });
                at = end;
            }
        }
    }
    Ok(found)
}

const fn is_separator(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r' | b'\n' | b'(' | b')')
}

fn end_of_line(octets: &[u8], from: usize) -> usize {
    let newline = octets[from..].iter().position(|octet| *octet == b'\n');
    newline.map_or(octets.len(), |offset| from + offset)
}

fn end_of_word(octets: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(octet) = octets.get(at) {
        match octet {
            // An escaped octet ends no word. A newline can't be escaped: entries end there.
            b'\\'
                if octets
                    .get(at + 1)
                    .is_some_and(|next| next.is_ascii() && *next != b'\n') =>
            {
                at += 2
            }
            b';' | b'"' => break,
            octet if is_separator(*octet) => break,
            _ => at += 1,
        }
    }
    at
}

fn closing_quote(octets: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        match octets.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            b'\n' => return None,
            _ => at += 1,
        }
    }
}

/// The wire form of a record's data; with an error goes the token at fault (its index, or the
/// number of tokens when one is missing).
pub(crate) fn data_from_tokens(
    kind: u16,
    tokens: &[Token<'_>],
    origin: &Name,
) -> Result<Vec<u8>, (usize, RecordError)> {
    let mut reader = DataReader {
        rtype: record_kind::kind(kind).map_or("TYPE", |kind| kind.word),
        tokens,
        next: 0,
        origin,
        wire: Vec::new(),
    };
    match reader.read(kind).and_then(|()| reader.end()) {
        Ok(()) => Ok(reader.wire),
        Err(error @ RecordError::Missing { .. }) => Err((tokens.len(), error)),
        Err(error) => Err((reader.next.saturating_sub(1), error)),
    }
}

struct DataReader<'t, 'a> {
    rtype: &'static str,
    tokens: &'t [Token<'a>],
    next: usize,
    origin: &'t Name,
    wire: Vec<u8>,
}

impl<'a> DataReader<'_, 'a> {
    fn read(&mut self, kind: u16) -> Result<(), RecordError> {
        match kind {
            rtype::A => {
                let address: Ipv4Addr = self.parsed("an IPv4 address")?;
                self.wire.extend_from_slice(&address.octets());
            }
            rtype::AAAA => {
                let address: Ipv6Addr = self.parsed("an IPv6 address")?;
                self.wire.extend_from_slice(&address.octets());
            }
            rtype::NS | rtype::CNAME | rtype::DNAME | rtype::PTR => self.name("a name")?,
            rtype::MX => {
                self.u16("a preference (0 to 65535)")?;
                self.name("the mail server's name")?;
            }
            rtype::SRV => {
                self.u16("a priority (0 to 65535)")?;
                self.u16("a weight (0 to 65535)")?;
                self.u16("a port (0 to 65535)")?;
                self.name("the server's name")?;
            }
            rtype::TXT => self.texts()?,
            rtype::CAA => self.caa()?,
            rtype::SOA => self.soa()?,
            rtype::DS => self.ds()?,
            rtype::SVCB | rtype::HTTPS => self.service()?,
            rtype::LOC => self.location()?,
            kind => match record_kind::kind(kind) {
                Some(kind) => self.fields(kind.fields)?,
                None => self.generic()?,
            },
        }
        Ok(())
    }

    fn fields(&mut self, fields: &[Field]) -> Result<(), RecordError> {
        for field in fields {
            match *field {
                Field::U8(expected) => {
                    let number: u8 = self.parsed(expected)?;
                    self.wire.push(number);
                }
                Field::U16(expected) => self.u16(expected)?,
                Field::Name(expected) => self.name(expected)?,
                Field::Text(expected) => self.text(expected)?,
                Field::Rest(expected) => {
                    let text = unescaped(self.take(expected)?.text)?;
                    self.wire.extend_from_slice(&text);
                }
                Field::Hex(expected) => {
                    let octets = self.rest(expected, hex)?;
                    self.wire.extend_from_slice(&octets);
                }
                Field::Base64(expected) => {
                    let octets = self.rest(expected, |text| BASE64.decode(text).ok())?;
                    self.wire.extend_from_slice(&octets);
                }
            }
        }
        Ok(())
    }

    /// RFC 3597 §5: `\# LENGTH HEX`.
    fn generic(&mut self) -> Result<(), RecordError> {
        let mark = self.take("\\# and a length, as types without a reader are written")?;
        if mark.text != "\\#" {
            return Err(RecordError::Unexpected {
                found: mark.text.to_owned(),
                expected: "\\#, with which data of types without a reader begins",
            });
        }
        let length: u16 = self.parsed("a length (0 to 65535)")?;
        let octets = if length == 0 {
            Vec::new()
        } else {
            self.rest("octets in hexadecimal digits", hex)?
        };
        if octets.len() != usize::from(length) {
            return Err(RecordError::Unexpected {
                found: length.to_string(),
                expected: "the number of octets that follow",
            });
        }
        self.wire.extend_from_slice(&octets);
        Ok(())
    }

    /// RFC 9460 §2.1: a priority, a target, and parameters.
    fn service(&mut self) -> Result<(), RecordError> {
        let priority: u16 = self.parsed("a priority (0 to 65535; 0 makes an alias)")?;
        self.wire.extend_from_slice(&priority.to_be_bytes());
        self.name("a target's name")?;
        let mut params = svcb::Params::new();
        while let Some(token) = self.tokens.get(self.next) {
            self.next += 1;
            let mut text = token.text.to_owned();
            // In `alpn="h2,h3"` the quotes begin a word of their own.
            if let Some(quoted) = self.tokens.get(self.next)
                && text.ends_with('=')
                && quoted.quoted
                && quoted.at == token.at + token.text.len()
            {
                self.next += 1;
                text.push_str(quoted.text);
            }
            svcb::add(&mut params, &text)?;
        }
        if priority == 0 && !params.is_empty() {
            return Err(RecordError::Unexpected {
                found: "0".to_owned(),
                expected: "a priority of a record with parameters (RFC 9460 section 2.4.2)",
            });
        }
        svcb::check(&params)?;
        svcb::write(&params, &mut self.wire);
        Ok(())
    }

    fn location(&mut self) -> Result<(), RecordError> {
        self.take("a place, such as 52 31 0 N 13 24 36 E 34m")?;
        let words: Vec<&str> = self.tokens.iter().map(|token| token.text).collect();
        self.next = self.tokens.len();
        let wire = loc::wire(&words).ok_or_else(|| RecordError::Unexpected {
            found: words.join(" "),
            expected: "a place, such as 52 31 0 N 13 24 36 E 34m",
        })?;
        self.wire.extend_from_slice(&wire);
        Ok(())
    }

    /// All words that are left, together.
    fn rest(
        &mut self,
        expected: &'static str,
        read: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Vec<u8>, RecordError> {
        let mut text = self.take(expected)?.text.to_owned();
        while let Some(more) = self.tokens.get(self.next) {
            text.push_str(more.text);
            self.next += 1;
        }
        let octets = read(&text).filter(|octets| !octets.is_empty());
        octets.ok_or(RecordError::Unexpected {
            found: text,
            expected,
        })
    }

    fn take(&mut self, expected: &'static str) -> Result<Token<'a>, RecordError> {
        let token = self.tokens.get(self.next).ok_or(RecordError::Missing {
            rtype: self.rtype,
            expected,
        })?;
        self.next += 1;
        Ok(*token)
    }

    fn parsed<T: std::str::FromStr>(&mut self, expected: &'static str) -> Result<T, RecordError> {
        let token = self.take(expected)?;
        token.text.parse().map_err(|_| RecordError::Unexpected {
            found: token.text.to_owned(),
            expected,
        })
    }

    fn u16(&mut self, expected: &'static str) -> Result<(), RecordError> {
        let number: u16 = self.parsed(expected)?;
        self.wire.extend_from_slice(&number.to_be_bytes());
        Ok(())
    }

    fn name(&mut self, expected: &'static str) -> Result<(), RecordError> {
        let token = self.take(expected)?;
        let name = Name::parse(token.text, Some(self.origin))?;
        self.wire.extend_from_slice(name.wire());
        Ok(())
    }

    fn texts(&mut self) -> Result<(), RecordError> {
        loop {
            self.text("a text in quotes")?;
            if self.next == self.tokens.len() {
                return Ok(());
            }
        }
    }

    fn text(&mut self, expected: &'static str) -> Result<(), RecordError> {
        let text = unescaped(self.take(expected)?.text)?;
        let Ok(length) = u8::try_from(text.len()) else {
            return Err(RecordError::TextTooLong { length: text.len() });
        };
        self.wire.push(length);
        self.wire.extend_from_slice(&text);
        Ok(())
    }

    /// RFC 8659 §4.1: flags, tag, and a value that goes to the end.
    fn caa(&mut self) -> Result<(), RecordError> {
        let flags: u8 = self.parsed("the CAA flags (0 to 255; 0 or 128 make sense)")?;
        let tag = self.take("a CAA tag (issue, issuewild, iodef, …)")?.text;
        let lawful =
            (1..=15).contains(&tag.len()) && tag.bytes().all(|o| o.is_ascii_alphanumeric());
        let (true, Ok(length)) = (lawful, u8::try_from(tag.len())) else {
            return Err(RecordError::Unexpected {
                found: tag.to_owned(),
                expected: "a CAA tag of 1 to 15 letters and digits",
            });
        };
        let value = unescaped(self.take("a CAA value in quotes")?.text)?;
        self.wire.extend_from_slice(&[flags, length]);
        self.wire
            .extend(tag.bytes().map(|o| o.to_ascii_lowercase()));
        self.wire.extend_from_slice(&value);
        Ok(())
    }

    /// RFC 4034 §5.3; spaces may stand in the digest.
    fn ds(&mut self) -> Result<(), RecordError> {
        self.u16("a key tag (0 to 65535)")?;
        let algorithm: u8 = self.parsed("the key's algorithm (a number)")?;
        let digest_type: u8 = self.parsed("the digest's type (1, 2 or 4)")?;
        self.wire.extend_from_slice(&[algorithm, digest_type]);
        let has_length = |digest: &Vec<u8>| match digest_type {
            1 => digest.len() == 20,
            2 => digest.len() == 32,
            4 => digest.len() == 48,
            _ => true,
        };
        let expected = "a digest of the length that its type has, in hexadecimal digits";
        let digest = self.rest(expected, |digits| hex(digits).filter(has_length))?;
        self.wire.extend_from_slice(&digest);
        Ok(())
    }

    fn soa(&mut self) -> Result<(), RecordError> {
        self.name("the primary server's name")?;
        self.name("the mailbox of the person in charge, written as a name")?;
        let serial: u32 = self.parsed("a serial number (0 to 4294967295)")?;
        self.wire.extend_from_slice(&serial.to_be_bytes());
        for expected in [
            "the refresh time",
            "the retry time",
            "the expiry time",
            "the time that negative answers are kept",
        ] {
            let token = self.take(expected)?;
            let seconds = seconds(token.text).ok_or_else(|| RecordError::Unexpected {
                found: token.text.to_owned(),
                expected: "a time (seconds, or like 1h30m)",
            })?;
            self.wire
                .extend_from_slice(&seconds.as_secs().to_be_bytes());
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), RecordError> {
        let Some(token) = self.tokens.get(self.next) else {
            return Ok(());
        };
        self.next += 1;
        Err(RecordError::Extra {
            rtype: self.rtype,
            found: token.text.to_owned(),
        })
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.is_ascii() || digits.len() % 2 == 1 {
        return None;
    }
    let octets = (0..digits.len()).step_by(2);
    octets
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect()
}

/// A time in seconds, or with the units that zone files use: `1w2d3h4m5s`. `None` when it is none,
/// or longer than [`Ttl::MAX`].
pub(crate) fn seconds(text: &str) -> Option<Ttl> {
    let mut total: u32 = 0;
    let mut number: Option<u32> = None;
    for octet in text.bytes() {
        if octet.is_ascii_digit() {
            let digit = u32::from(octet - b'0');
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
            continue;
        }
        let unit = match octet.to_ascii_lowercase() {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    let ends_without_unit = number.is_some();
    if text.is_empty() {
        return None;
    }
    if ends_without_unit {
        total = total.checked_add(number?)?;
    }
    (total <= Ttl::MAX).then(|| Ttl::from_secs(total))
}

pub(crate) fn unescaped(text: &str) -> Result<Vec<u8>, RecordError> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((octet, after)) = rest.split_first() {
        rest = after;
        octets.push(match octet {
            b'\\' => unescape(&mut rest).ok_or(RecordError::BadEscape)?,
            octet => *octet,
        });
    }
    Ok(octets)
}

/// TXT data that stands without quotes.
fn plain_text(data: &str) -> Result<Vec<u8>, RecordError> {
    let data = data.trim().as_bytes();
    if data.is_empty() {
        return Err(RecordError::Missing {
            rtype: "TXT",
            expected: "a text",
        });
    }
    let mut wire = Vec::with_capacity(data.len() + data.len() / 255 + 1);
    for piece in data.chunks(255) {
        wire.push(u8::try_from(piece.len()).unwrap_or(u8::MAX));
        wire.extend_from_slice(piece);
    }
    Ok(wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rtype: &str, data: &str) -> Result<Vec<u8>, String> {
        let origin = Name::parse("example.test", None).unwrap();
        Record::parse(origin.clone(), rtype, Ttl::from_secs(60), data, &origin)
            .map(|record| record.data.to_vec())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn each_type_is_read_into_its_wire_form() {
        let cases: [(&str, &str, &[u8]); 11] = [
            ("a", "192.0.2.1", &[192, 0, 2, 1]),
            (
                "AAAA",
                "2001:db8::1",
                &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            ),
            ("NS", "NS1", b"\x03ns1\x07example\x04test\0"),
            ("CNAME", "other.example.", b"\x05other\x07example\0"),
            ("PTR", "@", b"\x07example\x04test\0"),
            ("MX", "10 mail", b"\0\x0a\x04mail\x07example\x04test\0"),
            (
                "SRV",
                "1 2 443 @",
                b"\0\x01\0\x02\x01\xbb\x07example\x04test\0",
            ),
            ("TXT", r#""one; two" thr\"ee"#, b"\x08one; two\x06thr\"ee"),
            ("TXT", "v=spf1 -all; x", b"\x0ev=spf1 -all; x"),
            (
                "CAA",
                r#"0 issue "ca.example; policy=ev""#,
                b"\0\x05issueca.example; policy=ev",
            ),
            (
                "SOA",
                "ns1 host ( 7 1h 15m ; comment\n 1w 10 )",
                b"\x03ns1\x07example\x04test\0\x04host\x07example\x04test\0\
                  \0\0\0\x07\0\0\x0e\x10\0\0\x03\x84\0\x09\x3a\x80\0\0\0\x0a",
            ),
        ];
        for (rtype, data, wire) in cases {
            assert_eq!(parse(rtype, data).as_deref(), Ok(wire), "{rtype} {data}");
        }
    }

    #[test]
    fn data_of_another_shape_is_refused_with_what_was_expected() {
        let cases = [
            ("A", "192.0.2", "\"192.0.2\" is not an IPv4 address"),
            ("A", "", "A needs an IPv4 address"),
            ("A", "192.0.2.1 x", "\"x\" follows the end of the A data"),
            ("MX", "mail", "\"mail\" is not a preference (0 to 65535)"),
            ("MX", "10", "MX needs the mail server's name"),
            ("SRV", "1 2 65536 @", "\"65536\" is not a port (0 to 65535)"),
            ("TXT", "\"open", "a quotation mark is never closed"),
            ("TXT", "", "TXT needs a text"),
            (
                "CAA",
                "0 is-sue \"x\"",
                "\"is-sue\" is not a CAA tag of 1 to 15 letters and digits",
            ),
            (
                "WKS",
                "x",
                "\"WKS\" is no record type that can be served here; there are SOA, NS, A, AAAA, CNAME, DNAME, MX, TXT, CAA, SRV, PTR, DS, SVCB, HTTPS, LOC, TLSA, SMIMEA, SSHFP, NAPTR, URI, HINFO, RP, AFSDB, KX, CERT, OPENPGPKEY and TYPE followed by a number",
            ),
            ("TLSA", "3 1 1 xyz", "\"xyz\" is not certificate data"),
            ("TLSA", "3 1 256 ab", "\"256\" is not a matching type"),
            ("SSHFP", "4 2", "SSHFP needs a fingerprint"),
            (
                "LOC",
                "91 N 0 E 0",
                "\"91 N 0 E 0\" is not a place, such as 52 31 0 N 13 24 36 E 34m",
            ),
            (
                "TYPE4711",
                "abc",
                "\"abc\" is not \\#, with which data of types without a reader begins",
            ),
            (
                "TYPE4711",
                r"\# 3 abcd",
                "\"3\" is not the number of octets that follow",
            ),
            (
                "TYPE4711",
                r"\# 0 ab",
                "\"ab\" follows the end of the TYPE data",
            ),
        ];
        for (rtype, data, message) in cases {
            assert_eq!(
                parse(rtype, data),
                Err(message.to_owned()),
                "{rtype} {data}"
            );
        }
    }

    #[test]
    fn the_rarer_types_are_read_into_their_wire_form() {
        let cases: [(&str, &str, &[u8]); 15] = [
            ("DNAME", "other.", b"\x05other\0"),
            ("TLSA", "3 1 1 00ff AB", b"\x03\x01\x01\0\xff\xab"),
            ("SMIMEA", "3 0 0 01", b"\x03\0\0\x01"),
            ("SSHFP", "4 2 0123", b"\x04\x02\x01\x23"),
            (
                "NAPTR",
                r#"100 50 "s" "SIP+D2U" "" _sip._udp"#,
                b"\0\x64\0\x32\x01s\x07SIP+D2U\0\x04_sip\x04_udp\x07example\x04test\0",
            ),
            (
                "URI",
                r#"10 1 "ftp://f.example/a""#,
                b"\0\x0a\0\x01ftp://f.example/a",
            ),
            ("HINFO", r#""RFC8482" """#, b"\x07RFC8482\0"),
            ("RP", "a.b.test. .", b"\x01a\x01b\x04test\0\0"),
            ("AFSDB", "1 x.", b"\0\x01\x01x\0"),
            ("KX", "1 x.", b"\0\x01\x01x\0"),
            ("CERT", "1 2 3 AQID", b"\0\x01\0\x02\x03\x01\x02\x03"),
            ("OPENPGPKEY", "AQ ID", b"\x01\x02\x03"),
            ("TYPE65280", r"\# 4 C000 0201", b"\xc0\0\x02\x01"),
            ("type731", r"\# 0", b""),
            // RFC 1876 §4 has this place; the octets are those that BIND and NSD make of it.
            (
                "LOC",
                "42 21 54 N 71 06 18 W -24m 30m",
                b"\0\x33\x16\x13\x89\x17\x2d\xd0\x70\xbe\x15\xf0\0\x98\x8d\x20",
            ),
        ];
        for (rtype, data, wire) in cases {
            assert_eq!(parse(rtype, data).as_deref(), Ok(wire), "{rtype} {data}");
        }
        for made_by_us in [
            "RRSIG", "NSEC", "TYPE46", "TYPE41", "TYPE0", "TYPE255", "AXFR",
        ] {
            assert!(parse(made_by_us, r"\# 1 00").is_err(), "{made_by_us}");
        }
        // A type that has a reader is read by it, however it is called.
        assert_eq!(parse("TYPE1", "192.0.2.1"), Ok(vec![192, 0, 2, 1]));
    }

    #[test]
    fn a_long_text_without_quotes_is_cut_into_pieces() {
        let wire = parse("TXT", &"k".repeat(300)).unwrap();
        assert_eq!((wire.len(), wire[0], wire[256]), (302, 255, 45));
        assert!(parse("TXT", &format!("\"{}\"", "k".repeat(300))).is_err());
    }

    #[test]
    fn times_have_units_and_an_end() {
        assert_eq!(seconds("1w2d3h4m5s"), Some(Ttl::from_secs(788_645)));
        assert_eq!(seconds("3600"), Some(Ttl::from_secs(3_600)));
        for text in ["", "h", "1x", "99999999999", "-1", "2147483648"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
