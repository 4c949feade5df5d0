//! SVCB and HTTPS records (RFC 9460): their parameters, read from text into wire form.
//!
//! Called by [`crate::record`] for static records, and for steered names, whose address hints are
//! those of the region chosen for each client.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::record::{RecordError, unescaped};

/// Parameters by number, each with its value in wire form.
pub(crate) type Params = BTreeMap<u16, Vec<u8>>;

pub(crate) const MANDATORY: u16 = 0;
const ALPN: u16 = 1;
const NO_DEFAULT_ALPN: u16 = 2;
const PORT: u16 = 3;
pub(crate) const IPV4HINT: u16 = 4;
const ECH: u16 = 5;
pub(crate) const IPV6HINT: u16 = 6;
const DOHPATH: u16 = 7;
const OHTTP: u16 = 8;

/// IANA "Service Parameter Keys (SvcParamKeys)".
const KEYS: [(&str, u16); 9] = [
    ("mandatory", MANDATORY),
    ("alpn", ALPN),
    ("no-default-alpn", NO_DEFAULT_ALPN),
    ("port", PORT),
    ("ipv4hint", IPV4HINT),
    ("ech", ECH),
    ("ipv6hint", IPV6HINT),
    ("dohpath", DOHPATH),
    ("ohttp", OHTTP),
];

/// Adds one parameter, as `key` or `key=value`.
pub(crate) fn add(params: &mut Params, text: &str) -> Result<(), RecordError> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    let wrong = |expected| RecordError::Unexpected {
        found: text.to_owned(),
        expected,
    };
    let number = number(key).ok_or_else(|| wrong("a parameter such as alpn=h2 or port=8443"))?;
    let wire = wire(number, value).ok_or_else(|| wrong(expected(number)))?;
    if params.insert(number, wire).is_some() {
        return Err(wrong("a parameter that has not been said before"));
    }
    Ok(())
}

/// What parameters have to do with each other (§7.1.1, §8).
pub(crate) fn check(params: &Params) -> Result<(), RecordError> {
    let wrong = |found: &str, expected| RecordError::Unexpected {
        found: found.to_owned(),
        expected,
    };
    if params.contains_key(&NO_DEFAULT_ALPN) && !params.contains_key(&ALPN) {
        return Err(wrong("no-default-alpn", "lawful without alpn"));
    }
    let mandatory = params
        .get(&MANDATORY)
        .map(Vec::as_slice)
        .unwrap_or_default();
    for key in mandatory.chunks_exact(2) {
        let key = u16::from_be_bytes([key[0], key[1]]);
        if key == MANDATORY || !params.contains_key(&key) {
            return Err(wrong(
                "mandatory",
                "a list of other parameters that are all there",
            ));
        }
    }
    Ok(())
}

/// In ascending order of keys, as the wire wants them (§2.2).
pub(crate) fn write<'p>(
    params: impl IntoIterator<Item = (&'p u16, &'p Vec<u8>)>,
    wire: &mut Vec<u8>,
) {
    for (key, value) in params {
        wire.extend_from_slice(&key.to_be_bytes());
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        wire.extend_from_slice(&length.to_be_bytes());
        wire.extend_from_slice(value);
    }
}

fn number(key: &str) -> Option<u16> {
    let named = KEYS.iter().find(|(name, _)| *name == key);
    let number = named.map(|(_, number)| *number);
    // 65535 means an invalid key (§14.3.2).
    let other = || {
        key.strip_prefix("key")?
            .parse()
            .ok()
            .filter(|n| *n != u16::MAX)
    };
    number.or_else(other)
}

const fn expected(number: u16) -> &'static str {
    match number {
        MANDATORY => "a list of parameters, such as mandatory=alpn,port",
        ALPN => "a list of protocols, such as alpn=h2,h3",
        NO_DEFAULT_ALPN | OHTTP => "a parameter without a value",
        PORT => "a port, such as port=8443",
        IPV4HINT => "a list of IPv4 addresses",
        ECH => "ech= with base64",
        IPV6HINT => "a list of IPv6 addresses",
        DOHPATH => "a path, such as dohpath=/dns-query{?dns}",
        _ => "a parameter with a value of at most 65,535 octets",
    }
}

fn wire(number: u16, value: Option<&str>) -> Option<Vec<u8>> {
    if matches!(number, NO_DEFAULT_ALPN | OHTTP) {
        return value.is_none().then(Vec::new);
    }
    let octets = unescaped(value.unwrap_or_default()).ok()?;
    if number == ALPN {
        return alpn(&octets);
    }
    let text = || std::str::from_utf8(&octets).ok();
    let wire = match number {
        MANDATORY => mandatory(text()?)?,
        PORT => text()?.parse::<u16>().ok()?.to_be_bytes().to_vec(),
        IPV4HINT => addresses(text()?, |address: Ipv4Addr| address.octets())?,
        IPV6HINT => addresses(text()?, |address: Ipv6Addr| address.octets())?,
        ECH => BASE64.decode(&octets).ok().filter(|ech| !ech.is_empty())?,
        _ => octets,
    };
    (wire.len() <= usize::from(u16::MAX)).then_some(wire)
}

fn mandatory(value: &str) -> Option<Vec<u8>> {
    let mut keys: Vec<u16> = value.split(',').map(number).collect::<Option<_>>()?;
    keys.sort_unstable();
    let before = keys.len();
    keys.dedup();
    (keys.len() == before).then(|| keys.iter().flat_map(|key| key.to_be_bytes()).collect())
}

/// Values are separated by commas; `\,` and `\\` stand for what they escape (appendix A.1).
fn alpn(list: &[u8]) -> Option<Vec<u8>> {
    let mut wire = Vec::new();
    let mut one = Vec::new();
    let mut rest = list.iter();
    while let Some(octet) = rest.next() {
        match octet {
            b',' => end_of_protocol(&mut one, &mut wire)?,
            b'\\' => one.push(*rest.next()?),
            octet => one.push(*octet),
        }
    }
    end_of_protocol(&mut one, &mut wire)?;
    (wire.len() <= usize::from(u16::MAX)).then_some(wire)
}

fn end_of_protocol(one: &mut Vec<u8>, wire: &mut Vec<u8>) -> Option<()> {
    if one.is_empty() {
        return None;
    }
    wire.push(u8::try_from(one.len()).ok()?);
    wire.append(one);
    Some(())
}

fn addresses<A: std::str::FromStr, const N: usize>(
    value: &str,
    octets: impl Fn(A) -> [u8; N],
) -> Option<Vec<u8>> {
    let mut wire = Vec::new();
    for address in value.split(',') {
        wire.extend_from_slice(&octets(address.parse().ok()?));
    }
    Some(wire)
}

#[cfg(test)]
mod tests {
    use sealane_model::Ttl;

    use crate::name::Name;
    use crate::record::Record;

    fn read(data: &str) -> Result<Vec<u8>, String> {
        let origin = Name::parse("example.com", None).unwrap();
        let record = Record::parse(origin.clone(), "SVCB", Ttl::from_secs(60), data, &origin);
        record
            .map(|record| record.data.to_vec())
            .map_err(|error| error.to_string())
    }

    const FOO: &[u8] = b"\x03foo\x07example\x03com\0";

    #[test]
    fn the_vectors_of_rfc_9460_are_read() {
        let foo_org = b"\x03foo\x07example\x03org\0";
        let cases: [(&str, Vec<u8>); 11] = [
            ("0 foo.example.com.", [b"\0\0", FOO].concat()),
            ("1 .", b"\0\x01\0".to_vec()),
            (
                "16 foo.example.com. port=53",
                [b"\0\x10", FOO, b"\0\x03\0\x02\0\x35"].concat(),
            ),
            (
                "1 foo.example.com. key667=hello",
                [b"\0\x01", FOO, b"\x02\x9b\0\x05hello"].concat(),
            ),
            (
                r#"1 foo.example.com. key667="hello\210qoo""#,
                [b"\0\x01", FOO, b"\x02\x9b\0\x09hello\xd2qoo"].concat(),
            ),
            (
                r#"1 foo.example.com. ipv6hint="2001:db8::1,2001:db8::53:1""#,
                [
                    b"\0\x01",
                    FOO,
                    b"\0\x06\0\x20",
                    b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
                    b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\x53\0\x01",
                ]
                .concat(),
            ),
            (
                r#"1 example.com. ipv6hint="2001:db8:122:344::192.0.2.33""#,
                [
                    &b"\0\x01\x07example\x03com\0\0\x06\0\x10"[..],
                    b"\x20\x01\x0d\xb8\x01\x22\x03\x44\0\0\0\0\xc0\0\x02\x21",
                ]
                .concat(),
            ),
            (
                "16 foo.example.org. (alpn=h2,h3-19 mandatory=ipv4hint,alpn ipv4hint=192.0.2.1)",
                [
                    b"\0\x10",
                    &foo_org[..],
                    b"\0\0\0\x04\0\x01\0\x04",
                    b"\0\x01\0\x09\x02h2\x05h3-19",
                    b"\0\x04\0\x04\xc0\0\x02\x01",
                ]
                .concat(),
            ),
            (
                r#"16 foo.example.org. alpn="f\\\\oo\\,bar,h2""#,
                [b"\0\x10", &foo_org[..], b"\0\x01\0\x0c\x08f\\oo,bar\x02h2"].concat(),
            ),
            (
                r"16 foo.example.org. alpn=f\\\092oo\092,bar,h2",
                [b"\0\x10", &foo_org[..], b"\0\x01\0\x0c\x08f\\oo,bar\x02h2"].concat(),
            ),
            (
                "1 . alpn=h2 no-default-alpn ech=AAECAw== dohpath=/q{?dns} ohttp",
                [
                    &b"\0\x01\0\0\x01\0\x03\x02h2\0\x02\0\0\0\x05\0\x04\0\x01\x02\x03"[..],
                    b"\0\x07\0\x08/q{?dns}\0\x08\0\0",
                ]
                .concat(),
            ),
        ];
        for (data, wire) in cases {
            assert_eq!(read(data).as_deref(), Ok(&wire[..]), "{data}");
        }
    }

    #[test]
    fn what_rfc_9460_calls_failures_is_refused() {
        // Appendix D.3, and what is alike.
        for data in [
            "1 foo.example.com. (key123=abc key123=def)",
            "1 foo.example.com. mandatory",
            "1 foo.example.com. alpn",
            "1 foo.example.com. port",
            "1 foo.example.com. ipv4hint",
            "1 foo.example.com. ipv6hint",
            "1 foo.example.com. no-default-alpn=abc",
            "1 foo.example.com. mandatory=key123",
            "1 foo.example.com. mandatory=mandatory",
            "1 foo.example.com. (mandatory=key123,key123 key123=abc)",
            "1 foo.example.com. no-default-alpn",
            "1 foo.example.com. port=65536",
            "1 foo.example.com. alpn=h2,,h3",
            "1 foo.example.com. ipv4hint=192.0.2.1,",
            "1 foo.example.com. ech=%",
            "1 foo.example.com. key65535=x",
            "1 foo.example.com. colour=red",
            "0 foo.example.com. alpn=h2",
            "65536 foo.example.com.",
            "1",
        ] {
            assert!(read(data).is_err(), "{data}");
        }
        assert_eq!(
            read("1 . port=x").unwrap_err(),
            "\"port=x\" is not a port, such as port=8443"
        );
    }
}
