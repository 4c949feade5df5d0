//! Domain names: read from text, held lower-cased in wire form. Never compressed, never partial.

use std::fmt;
use std::sync::Arc;

use crate::wire::{LABEL_MAX, NAME_MAX};

/// A full domain name: lower-cased, uncompressed wire form, its root label included. At most 255
/// octets in labels of at most 63 (RFC 1035 §2.3.4).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    wire: Arc<[u8]>,
}

/// What is wrong with a name as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name is missing")]
    Empty,
    #[error("{name:?} has an empty label (two dots together, or one at the beginning)")]
    EmptyLabel { name: String },
    #[error("the label {label:?} is longer than 63 octets")]
    LabelTooLong { label: String },
    #[error("{name:?} is longer than 255 octets in all")]
    TooLong { name: String },
    #[error(
        "{name:?} has a backslash that is followed by neither a character nor three digits up to 255"
    )]
    BadEscape { name: String },
    #[error(
        "{name:?} has the character {character:?}; names are ASCII (write internationalised names as xn--…)"
    )]
    BadCharacter { name: String, character: char },
    #[error("\"@\" stands for the zone's own name, and there is no zone here")]
    NoOrigin,
}

impl Name {
    /// Reads a name in the form of RFC 1035 §5.1: `\X` and `\DDD` are escapes, `@` is `origin`, and
    /// a name without a dot at its end is continued by `origin`. Without an origin every name is
    /// taken as full.
    ///
    /// # Errors
    /// [`NameError`] when the text is no name, or one that is too long.
    pub fn parse(text: &str, origin: Option<&Self>) -> Result<Self, NameError> {
        match text {
            "" => return Err(NameError::Empty),
            "." => return Ok(Self::root()),
            "@" => return origin.cloned().ok_or(NameError::NoOrigin),
            _ => {}
        }
        let (mut wire, absolute) = labels(text)?;
        match origin {
            Some(origin) if !absolute => wire.extend_from_slice(&origin.wire),
            _ => wire.push(0),
        }
        if wire.len() > NAME_MAX {
            return Err(NameError::TooLong {
                name: text.to_owned(),
            });
        }
        Ok(Self { wire: wire.into() })
    }

    #[must_use]
    pub fn root() -> Self {
        Self {
            wire: Arc::new([0]),
        }
    }

    /// `wire` must be one whole uncompressed name, of any case. `None` when it is not.
    #[must_use]
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        let mut at = 0;
        loop {
            let length = usize::from(*wire.get(at)?);
            if length == 0 {
                break;
            }
            if length > LABEL_MAX {
                return None;
            }
            at += length + 1;
        }
        let whole = at + 1 == wire.len() && wire.len() <= NAME_MAX;
        // Length octets are at most 63 and so never letters: lower-casing all octets is safe.
        whole.then(|| Self {
            wire: wire.to_ascii_lowercase().into(),
        })
    }

    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// The name itself or one below `apex`.
    #[must_use]
    pub fn is_at_or_below(&self, apex: &Self) -> bool {
        let mut rest = self.wire();
        while rest.len() > apex.wire.len() {
            rest = parent(rest).unwrap_or_default();
        }
        rest == apex.wire()
    }

    /// The name without its first label; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        parent(&self.wire).map(|wire| Self { wire: wire.into() })
    }

    /// Does it begin with the label `*` (RFC 4592 §2.1.1)?
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.wire.starts_with(b"\x01*")
    }

    /// With the dot at its end, as zone files have it.
    #[must_use]
    pub fn absolute(&self) -> String {
        match self.to_string() {
            root if root == "." => root,
            name => format!("{name}."),
        }
    }

    pub(crate) fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.wire();
        std::iter::from_fn(move || {
            let length = usize::from(*rest.first()?);
            let label = rest.get(1..=length).filter(|label| !label.is_empty())?;
            rest = rest.get(length + 1..)?;
            Some(label)
        })
    }
}

/// The wire form without its first label; `None` for the root.
pub(crate) fn parent(wire: &[u8]) -> Option<&[u8]> {
    let length = usize::from(*wire.first()?);
    if length == 0 {
        return None;
    }
    wire.get(length + 1..)
}

/// How many labels a name in wire form has, the root's not counted: at most 127.
pub(crate) fn count_labels(wire: &[u8]) -> u8 {
    std::iter::successors(parent(wire), |above| parent(above)).count() as u8
}

/// The labels of `text` in wire form, without the root's, and whether it ended with a dot.
fn labels(text: &str) -> Result<(Vec<u8>, bool), NameError> {
    let mut wire = Vec::with_capacity(text.len() + 2);
    let mut rest = text.as_bytes();
    loop {
        let length_at = wire.len();
        wire.push(0);
        let ended_by_dot = label(text, &mut rest, &mut wire)?;
        let length = wire.len() - length_at - 1;
        match u8::try_from(length) {
            Ok(0) => {
                return Err(NameError::EmptyLabel {
                    name: text.to_owned(),
                });
            }
            Ok(octet) if length <= LABEL_MAX => wire[length_at] = octet,
            _ => {
                let label = String::from_utf8_lossy(&wire[length_at + 1..]).into_owned();
                return Err(NameError::LabelTooLong { label });
            }
        }
        if rest.is_empty() {
            return Ok((wire, ended_by_dot));
        }
    }
}

/// Moves one label from `rest` to `wire`, unescaped and lower-cased. Was it ended by a dot?
fn label(text: &str, rest: &mut &[u8], wire: &mut Vec<u8>) -> Result<bool, NameError> {
    while let Some((octet, after)) = rest.split_first() {
        *rest = after;
        match octet {
            b'.' => return Ok(true),
            b'\\' => {
                let octet = unescape(rest).ok_or_else(|| NameError::BadEscape {
                    name: text.to_owned(),
                })?;
                wire.push(octet.to_ascii_lowercase());
            }
            octet if octet.is_ascii_graphic() => wire.push(octet.to_ascii_lowercase()),
            _ => {
                let odd = |c: &char| !c.is_ascii_graphic();
                return Err(NameError::BadCharacter {
                    name: text.to_owned(),
                    character: text.chars().find(odd).unwrap_or(' '),
                });
            }
        }
    }
    Ok(false)
}

/// Takes what follows a backslash: three digits up to 255, or any one other octet.
pub(crate) fn unescape(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    if !first.is_ascii_digit() {
        *rest = after;
        return Some(*first);
    }
    let (digits, after) = rest.split_at_checked(3)?;
    let number = std::str::from_utf8(digits).ok()?.parse::<u8>().ok()?;
    *rest = after;
    digits.iter().all(u8::is_ascii_digit).then_some(number)
}

impl fmt::Display for Name {
    /// Without the dot at the end, but for the root.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut labels = self.labels().peekable();
        if labels.peek().is_none() {
            return f.write_str(".");
        }
        while let Some(label) = labels.next() {
            for octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(*octet))?;
                    }
                    octet if octet.is_ascii_graphic() => write!(f, "{}", char::from(*octet))?,
                    octet => write!(f, "\\{octet:03}")?,
                }
            }
            if labels.peek().is_some() {
                f.write_str(".")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text, None).unwrap()
    }

    #[test]
    fn a_name_is_held_lower_cased_and_printed_without_the_last_dot() {
        assert_eq!(name("WWW.Example.COM.").to_string(), "www.example.com");
        assert_eq!(
            name("www.example.com").wire(),
            b"\x03www\x07example\x03com\0"
        );
        assert_eq!(name(".").to_string(), ".");
    }

    #[test]
    fn a_relative_name_and_the_at_sign_are_completed_by_the_origin() {
        let origin = name("example.test");
        let parse = |text| Name::parse(text, Some(&origin)).unwrap().to_string();

        assert_eq!(parse("www"), "www.example.test");
        assert_eq!(parse("www."), "www");
        assert_eq!(parse("@"), "example.test");
        assert_eq!(Name::parse("@", None), Err(NameError::NoOrigin));
    }

    #[test]
    fn escapes_are_read_and_written_back() {
        let odd = name(r"a\.b\032c\\.example");
        assert_eq!(odd.wire(), b"\x06a.b c\\\x07example\0");
        assert_eq!(odd.to_string(), r"a\.b\032c\\.example");
        assert_eq!(name(&odd.to_string()), odd);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long_label = "a".repeat(64);
        let long_name = ["abcdefg"; 32].join(".");
        for text in [
            "",
            "a..b",
            ".a",
            "a b",
            "ä.example",
            r"a\300",
            r"a\",
            r"a\1",
            &long_label,
            &long_name,
        ] {
            assert!(Name::parse(text, None).is_err(), "{text:?}");
        }
        assert!(Name::parse(&["abcdefg"; 31].join("."), None).is_ok());
    }

    #[test]
    fn below_means_whole_labels() {
        assert!(name("a.example.test").is_at_or_below(&name("example.test")));
        assert!(name("example.test").is_at_or_below(&name("example.test")));
        assert!(!name("anexample.test").is_at_or_below(&name("example.test")));
        assert!(!name("test").is_at_or_below(&name("example.test")));
        assert!(name("test").is_at_or_below(&Name::root()));
    }

    #[test]
    fn a_broken_wire_form_is_no_name() {
        for wire in [
            &b""[..],
            b"\x01",
            b"\x01a",
            b"\x01a\0x",
            b"\xc0\x0c",
            b"\x40",
        ] {
            assert_eq!(Name::from_wire(wire), None, "{wire:?}");
        }
        assert_eq!(Name::from_wire(b"\x01A\0"), Some(name("a")));
    }
}
