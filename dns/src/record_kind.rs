//! The record types that can be written, by name and number, and what the data of the rarer ones is
//! made of (RFC 1035 §5.1 and each type's own RFC).
//!
//! Called by [`crate::record`], which reads the common types itself. Knows no owner and no TTL.

use crate::wire::rtype;

/// One part of a record's data, as it is written and as it goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    U8(&'static str),
    U16(&'static str),
    Name(&'static str),
    /// One text of at most 255 octets.
    Text(&'static str),
    /// All that follows, in hexadecimal digits.
    Hex(&'static str),
    /// All that follows, in base64.
    Base64(&'static str),
    /// A text that goes to the end of the data.
    Rest(&'static str),
}

use Field::{Base64, Hex, Name, Rest, Text, U8, U16};

/// A type with a name.
pub(crate) struct Kind {
    pub(crate) word: &'static str,
    pub(crate) number: u16,
    /// Empty: [`crate::record`] reads it.
    pub(crate) fields: &'static [Field],
}

const fn own(word: &'static str, number: u16) -> Kind {
    Kind {
        word,
        number,
        fields: &[],
    }
}

const fn of(word: &'static str, number: u16, fields: &'static [Field]) -> Kind {
    Kind {
        word,
        number,
        fields,
    }
}

const KEY_TAG: Field = U16("a key tag (0 to 65535)");
const ALGORITHM: Field = U8("an algorithm's number (0 to 255)");

/// In the order in which messages name them.
pub(crate) static KINDS: &[Kind] = &[
    own("SOA", rtype::SOA),
    own("NS", rtype::NS),
    own("A", rtype::A),
    own("AAAA", rtype::AAAA),
    own("CNAME", rtype::CNAME),
    own("DNAME", rtype::DNAME),
    own("MX", rtype::MX),
    own("TXT", rtype::TXT),
    own("CAA", rtype::CAA),
    own("SRV", rtype::SRV),
    own("PTR", rtype::PTR),
    own("DS", rtype::DS),
    own("SVCB", rtype::SVCB),
    own("HTTPS", rtype::HTTPS),
    own("LOC", rtype::LOC),
    // RFC 6698, RFC 8162.
    of(
        "TLSA",
        52,
        &[
            U8("a certificate usage"),
            U8("a selector"),
            U8("a matching type"),
            Hex("certificate data"),
        ],
    ),
    of(
        "SMIMEA",
        53,
        &[
            U8("a certificate usage"),
            U8("a selector"),
            U8("a matching type"),
            Hex("certificate data"),
        ],
    ),
    // RFC 4255.
    of(
        "SSHFP",
        44,
        &[ALGORITHM, U8("a fingerprint's type"), Hex("a fingerprint")],
    ),
    // RFC 3403.
    of(
        "NAPTR",
        35,
        &[
            U16("an order (0 to 65535)"),
            U16("a preference (0 to 65535)"),
            Text("flags"),
            Text("services"),
            Text("a regular expression"),
            Name("a replacement"),
        ],
    ),
    // RFC 7553.
    of(
        "URI",
        256,
        &[
            U16("a priority (0 to 65535)"),
            U16("a weight (0 to 65535)"),
            Rest("a URI in quotes"),
        ],
    ),
    of(
        "HINFO",
        rtype::HINFO,
        &[Text("a CPU"), Text("an operating system")],
    ),
    // RFC 1183.
    of(
        "RP",
        17,
        &[
            Name("a mailbox, written as a name"),
            Name("the name of a TXT record"),
        ],
    ),
    of(
        "AFSDB",
        18,
        &[U16("a subtype (0 to 65535)"), Name("a host's name")],
    ),
    // RFC 2230.
    of(
        "KX",
        36,
        &[
            U16("a preference (0 to 65535)"),
            Name("the exchanger's name"),
        ],
    ),
    // RFC 4398.
    of(
        "CERT",
        37,
        &[
            U16("a certificate's type (a number)"),
            KEY_TAG,
            ALGORITHM,
            Base64("a certificate"),
        ],
    ),
    // RFC 7929.
    of("OPENPGPKEY", 61, &[Base64("a key")]),
];

/// `TYPE4711` (RFC 3597 §5), or the name of a type.
pub(crate) fn numbered(word: &str) -> Option<u16> {
    let named = KINDS
        .iter()
        .find(|kind| kind.word.eq_ignore_ascii_case(word));
    named.map(|kind| kind.number).or_else(|| {
        let digits = word
            .get(..4)
            .filter(|four| four.eq_ignore_ascii_case("TYPE"));
        digits.and_then(|_| word.get(4..)?.parse().ok())
    })
}

pub(crate) fn kind(number: u16) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.number == number)
}

/// Types that ask for something or are made by us: nobody writes their records.
pub(crate) const fn is_unwritable(number: u16) -> bool {
    rtype::is_meta(number)
        || number == rtype::ANY
        || matches!(
            number,
            rtype::RRSIG | rtype::NSEC | rtype::DNSKEY | rtype::CDS | rtype::CDNSKEY | 50 | 51
        )
}

/// For messages.
pub(crate) fn words() -> String {
    let words: Vec<&str> = KINDS.iter().map(|kind| kind.word).collect();
    format!("{} and TYPE followed by a number", words.join(", "))
}
