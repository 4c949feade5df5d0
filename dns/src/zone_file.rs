//! Zone files (RFC 1035 §5): read whole, every mistake reported with its line and column.
//!
//! One mistake never hides another: each entry is read on its own. Opens no file itself.

use std::collections::HashMap;

use sealane_model::Ttl;

use crate::config::Soa;
use crate::name::Name;
use crate::record::{Record, RecordError, Token, data_from_tokens, seconds, tokens, type_named};
use crate::wire::rtype;

/// What a zone file held.
#[derive(Clone, Debug, Default)]
pub struct ZoneFile {
    pub soa: Option<Soa>,
    /// In the order of the file, without the SOA.
    pub records: Vec<Record>,
}

/// One mistake in a zone file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct ZoneFileError {
    /// From 1.
    pub line: usize,
    /// From 1, in octets.
    pub column: usize,
    pub message: String,
}

/// Reads a zone file. `$ORIGIN` and `$TTL` are understood, and times with units (`1h30m`);
/// `$INCLUDE` is refused. A record without a TTL has that of `$TTL`, else the last one written,
/// else `default_ttl`.
///
/// # Errors
/// All mistakes at once, among them owners outside of `apex`, a second SOA, data next to a CNAME.
pub fn parse_zone_file(
    text: &str,
    apex: &Name,
    default_ttl: Ttl,
) -> Result<ZoneFile, Vec<ZoneFileError>> {
    let mut reader = Reader {
        apex,
        origin: apex.clone(),
        last_owner: None,
        last_ttl: default_ttl,
        dollar_ttl: None,
        file: ZoneFile::default(),
        lines: Vec::new(),
        mistakes: Vec::new(),
    };
    for entry in entries(text) {
        if let Err((at, message)) = reader.entry(&entry) {
            let (line, column) = position(&entry, at);
            reader.mistakes.push(ZoneFileError {
                line,
                column,
                message,
            });
        }
    }
    reader.find_cname_neighbours();
    if reader.mistakes.is_empty() {
        Ok(reader.file)
    } else {
        reader
            .mistakes
            .sort_by_key(|mistake| (mistake.line, mistake.column));
        Err(reader.mistakes)
    }
}

/// One record or directive: a line, or several held together by parentheses.
struct Entry<'a> {
    text: &'a str,
    /// The number of its first line, from 1.
    line: usize,
}

/// Cuts the text at each end of line that stands in no parentheses. A quotation mark that is left
/// open ends with its line, so that it spoils one entry only.
fn entries(text: &str) -> Vec<Entry<'_>> {
    let mut found = Vec::new();
    let (mut start, mut line, mut start_line) = (0, 1, 1);
    let (mut depth, mut quoted, mut comment, mut escaped) = (0_usize, false, false, false);
    for (at, octet) in text.bytes().enumerate() {
        let was_escaped = std::mem::take(&mut escaped);
        match octet {
            b'\n' => {
                line += 1;
                (quoted, comment) = (false, false);
                if depth == 0 {
                    found.push(Entry {
                        text: &text[start..at],
                        line: start_line,
                    });
                    (start, start_line) = (at + 1, line);
                }
            }
            _ if comment || was_escaped => {}
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b';' => comment = true,
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    found.push(Entry {
        text: &text[start..],
        line: start_line,
    });
    found
}

fn position(entry: &Entry<'_>, at: usize) -> (usize, usize) {
    let before = entry
        .text
        .as_bytes()
        .get(..at)
        .unwrap_or(entry.text.as_bytes());
    let newlines = before.iter().filter(|octet| **octet == b'\n').count();
    let line_start = before
        .iter()
        .rposition(|octet| *octet == b'\n')
        .map_or(0, |n| n + 1);
    (entry.line + newlines, before.len() - line_start + 1)
}

/// Where in the entry, and what.
type Mistake = (usize, String);

struct Reader<'a> {
    apex: &'a Name,
    origin: Name,
    last_owner: Option<Name>,
    last_ttl: Ttl,
    dollar_ttl: Option<Ttl>,
    file: ZoneFile,
    /// The line of each record of `file`.
    lines: Vec<usize>,
    mistakes: Vec<ZoneFileError>,
}

impl Reader<'_> {
    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), Mistake> {
        let words =
            tokens(entry.text).map_err(|error| (open_quote(entry.text), error.to_string()))?;
        let Some(first) = words.first() else {
            return Ok(());
        };
        if unbalanced(entry.text) {
            return Err((
                first.at,
                "a parenthesis is never closed, or never opened".to_owned(),
            ));
        }
        if !first.quoted && first.text.starts_with('$') {
            return self.directive(*first, &words[1..]);
        }
        let indented = entry.text.starts_with([' ', '\t']);
        let (owner, rest) = if indented {
            let none = || {
                (
                    first.at,
                    "no owner: there is no record before this one".to_owned(),
                )
            };
            (self.last_owner.clone().ok_or_else(none)?, &words[..])
        } else {
            let owner = Name::parse(first.text, Some(&self.origin))
                .map_err(|error| (first.at, error.to_string()))?;
            self.last_owner = Some(owner.clone());
            (owner, &words[1..])
        };
        self.record(owner, rest, entry, first.at)
    }

    fn directive(&mut self, directive: Token<'_>, rest: &[Token<'_>]) -> Result<(), Mistake> {
        let word = directive.text.to_ascii_uppercase();
        let argument = match rest {
            [argument] => Ok(argument),
            _ => Err((
                directive.at,
                format!("{word} needs exactly one word after it"),
            )),
        };
        match word.as_str() {
            "$ORIGIN" => {
                let argument = argument?;
                self.origin = Name::parse(argument.text, Some(&self.origin))
                    .map_err(|error| (argument.at, error.to_string()))?;
                Ok(())
            }
            "$TTL" => {
                let argument = argument?;
                let wrong = || (argument.at, not_a_time(argument.text));
                self.dollar_ttl = Some(seconds(argument.text).ok_or_else(wrong)?);
                Ok(())
            }
            "$INCLUDE" => Err((
                directive.at,
                "$INCLUDE is not served here: put all records of a zone into one file".to_owned(),
            )),
            _ => Err((
                directive.at,
                format!("{word} is no directive; there are $ORIGIN and $TTL"),
            )),
        }
    }

    /// `[TTL] [class] type data`, or `[class] [TTL] type data`.
    fn record(
        &mut self,
        owner: Name,
        words: &[Token<'_>],
        entry: &Entry<'_>,
        owner_at: usize,
    ) -> Result<(), Mistake> {
        let mut ttl = None;
        let mut class = false;
        let mut words = words;
        let (kind, data) = loop {
            let [word, rest @ ..] = words else {
                return Err((entry.text.len(), "a record type is missing".to_owned()));
            };
            words = rest;
            if !class && word.text.eq_ignore_ascii_case("IN") {
                class = true;
            } else if ["CH", "HS", "CS"]
                .iter()
                .any(|c| word.text.eq_ignore_ascii_case(c))
            {
                return Err((word.at, "only class IN is served".to_owned()));
            } else if ttl.is_none() && word.text.starts_with(|c: char| c.is_ascii_digit()) {
                ttl = Some(seconds(word.text).ok_or_else(|| (word.at, not_a_time(word.text)))?);
            } else {
                let kind = type_named(word.text).map_err(|error| (word.at, error.to_string()))?;
                break (kind, rest);
            }
        };
        if let Some(ttl) = ttl {
            self.last_ttl = ttl;
        }
        let ttl = ttl.or(self.dollar_ttl).unwrap_or(self.last_ttl);
        if !owner.is_at_or_below(self.apex) {
            let message = format!("{owner} lies outside of the zone {}", self.apex);
            return Err((owner_at, message));
        }
        let wire = data_from_tokens(kind, data, &self.origin).map_err(|(index, error)| {
            let at = data.get(index).map_or(entry.text.len(), |word| word.at);
            (at, error.to_string())
        })?;
        if kind == rtype::SOA {
            return self
                .soa(&owner, ttl, &wire)
                .map_err(|message| (owner_at, message));
        }
        let record = Record::new(owner, kind, ttl, wire)
            .map_err(|error: RecordError| (owner_at, error.to_string()))?;
        self.file.records.push(record);
        self.lines.push(position(entry, owner_at).0);
        Ok(())
    }

    fn soa(&mut self, owner: &Name, ttl: Ttl, wire: &[u8]) -> Result<(), String> {
        if owner != self.apex {
            return Err(format!(
                "an SOA belongs to the zone's own name, {}",
                self.apex
            ));
        }
        if self.file.soa.is_some() {
            return Err("a second SOA".to_owned());
        }
        self.file.soa = Some(soa_from_wire(ttl, wire).ok_or("the SOA is too long")?);
        Ok(())
    }

    /// Nothing may stand beside a CNAME, not even a second one (RFC 1034 §3.6.2, RFC 2181 §10.1).
    fn find_cname_neighbours(&mut self) {
        let mut owners: HashMap<&Name, (usize, usize)> = HashMap::new();
        for record in &self.file.records {
            let (cnames, all) = owners.entry(&record.owner).or_default();
            *cnames += usize::from(record.rtype == rtype::CNAME);
            *all += 1;
        }
        for (record, line) in self.file.records.iter().zip(&self.lines) {
            let (_, all) = owners.get(&record.owner).copied().unwrap_or_default();
            let beside_soa = self.file.soa.is_some() && record.owner == *self.apex;
            if record.rtype == rtype::CNAME && (all > 1 || beside_soa) {
                self.mistakes.push(ZoneFileError {
                    line: *line,
                    column: 1,
                    message: format!(
                        "{} has a CNAME and other records; a CNAME stands alone",
                        record.owner
                    ),
                });
            }
        }
    }
}

fn not_a_time(text: &str) -> String {
    format!("{text:?} is not a time (seconds, or like 1h30m; at most 2147483647 s)")
}

pub(crate) fn soa_from_wire(ttl: Ttl, wire: &[u8]) -> Option<Soa> {
    let (names, numbers) = wire.split_at_checked(wire.len().checked_sub(20)?)?;
    let mut at = 0;
    while *names.get(at)? != 0 {
        at += usize::from(names[at]) + 1;
    }
    let (primary, mailbox) = names.split_at_checked(at + 1)?;
    let number = |index: usize| -> Option<u32> {
        let octets = numbers.get(index * 4..index * 4 + 4)?;
        Some(u32::from_be_bytes(octets.try_into().ok()?))
    };
    Some(Soa {
        ttl,
        primary: Name::from_wire(primary)?,
        mailbox: Name::from_wire(mailbox)?,
        serial: number(0)?,
        refresh: Ttl::from_secs(number(1)?),
        retry: Ttl::from_secs(number(2)?),
        expire: Ttl::from_secs(number(3)?),
        minimum: Ttl::from_secs(number(4)?),
    })
}

/// Where the quotation mark stands that [`tokens`] found open: the last one in the entry.
fn open_quote(text: &str) -> usize {
    text.rfind('"').unwrap_or(0)
}

fn unbalanced(text: &str) -> bool {
    let (mut depth, mut quoted, mut comment, mut escaped) = (0_i64, false, false, false);
    for octet in text.bytes() {
        let was_escaped = std::mem::take(&mut escaped);
        match octet {
            b'\n' => comment = false,
            _ if comment || was_escaped => {}
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b';' => comment = true,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return true;
        }
    }
    depth != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ZoneFile, Vec<ZoneFileError>> {
        let apex = Name::parse("example.test", None).unwrap();
        parse_zone_file(text, &apex, Ttl::from_secs(300))
    }

    #[test]
    fn an_ordinary_zone_file_is_read() {
        let text = r#"
$TTL 1h
@   IN SOA ns1 hostmaster.example.test. (
        2026010101 ; serial
        1d 2h 4w 10 )
    IN NS  ns1
    600 IN NS  ns2.elsewhere.example.
ns1     A  192.0.2.53
        AAAA 2001:db8::53
$ORIGIN sub.example.test.
www IN 60 CNAME www.example.test.
txt TXT "a ; b" ( "c"
        "d" )
"#;
        let file = read(text).unwrap();
        let soa = file.soa.unwrap();
        let records: Vec<_> = file
            .records
            .iter()
            .map(|r| (r.owner.to_string(), rtype::name(r.rtype), r.ttl.as_secs()))
            .collect();

        assert_eq!(soa.mailbox.to_string(), "hostmaster.example.test");
        assert_eq!(
            (
                soa.serial,
                soa.ttl.as_secs(),
                soa.expire.as_secs(),
                soa.minimum.as_secs()
            ),
            (2_026_010_101, 3_600, 2_419_200, 10)
        );
        assert_eq!(
            records,
            [
                ("example.test".to_owned(), "NS", 3_600),
                ("example.test".to_owned(), "NS", 600),
                ("ns1.example.test".to_owned(), "A", 3_600),
                ("ns1.example.test".to_owned(), "AAAA", 3_600),
                ("www.sub.example.test".to_owned(), "CNAME", 60),
                ("txt.sub.example.test".to_owned(), "TXT", 3_600),
            ]
        );
        assert_eq!(&*file.records[5].data, b"\x05a ; b\x01c\x01d");
    }

    #[test]
    fn every_mistake_is_reported_with_its_line_and_column() {
        let text = "\
@ SOA ns1 host 1 2 3 4 5
www A 192.0.2.300
elsewhere.example. A 192.0.2.1
$INCLUDE other.zone
x TXT \"open
y WKS 1
c CNAME www
c A 192.0.2.1
@ SOA ns1 host 1 2 3 4 5
z MX 10 (
   bad..name )
ch CH A 192.0.2.1
)
good A 192.0.2.1
";
        let mistakes = read(text).unwrap_err();
        let places: Vec<_> = mistakes.iter().map(|m| (m.line, m.column)).collect();

        assert_eq!(
            places,
            [
                (2, 7),
                (3, 1),
                (4, 1),
                (5, 7),
                (6, 3),
                (7, 1),
                (9, 1),
                (11, 4),
                (12, 4)
            ],
            "{mistakes:#?}"
        );
        assert_eq!(
            mistakes[0].to_string(),
            "2:7: \"192.0.2.300\" is not an IPv4 address"
        );
    }

    #[test]
    fn an_indented_first_record_has_no_owner() {
        assert_eq!(read("  A 192.0.2.1\n").unwrap_err().len(), 1);
        assert_eq!(
            read("www A\n").unwrap_err()[0].message,
            "A needs an IPv4 address"
        );
    }

    #[test]
    fn a_cname_at_the_apex_is_refused() {
        assert!(read("@ SOA a b 1 2 3 4 5\n@ CNAME www\n").is_err());
    }

    #[test]
    fn no_text_whatever_panics() {
        let seed = "@ 60 IN SOA ns1 host (1 2h 3 4 5)\n\tTXT \"a;b\" \\\"x\\065 ; c\n$TTL 1d\n$ORIGIN é\na.b MX 10 @\n";
        let odd = [
            "\"", "\\", "(", ")", ";", "\n", "\r", "é", " ", "$", "@", ".", "0", "\\9", "\t",
        ];
        let mut state = 7_u64;
        let mut below = |limit: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % limit
        };
        for _ in 0..20_000 {
            let mut text = seed.to_owned();
            for _ in 0..=below(6) {
                let mut at = below(text.len() + 1);
                while !text.is_char_boundary(at) {
                    at -= 1;
                }
                text.insert_str(at, odd[below(odd.len())]);
            }
            if let Err(mistakes) = read(&text) {
                let lines = text.split('\n').count();
                assert!(
                    mistakes
                        .iter()
                        .all(|m| (1..=lines).contains(&m.line) && m.column >= 1)
                );
            }
        }
    }
}
