//! Keys as text, in BIND's format (`K<zone>+<algorithm>+<tag>.key` and `.private`, format v1.3), so
//! that its tools and ours work on the same files. Pure: reads and writes text, never a file.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::key::{Algorithm, Key, KeyError, Role};
use super::timing::{Moment, Times};
use crate::name::Name;

/// Why the text of a key was not understood. Repeats nothing of a private part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    #[error("the .key file has no DNSKEY record")]
    NoRecord,
    #[error("the DNSKEY record is not `NAME IN DNSKEY FLAGS 3 ALGORITHM KEY`")]
    Record,
    #[error("the key's flags are {0}; 256 (zone key) and 257 (entry key) can be used here")]
    Flags(u16),
    #[error("algorithm {0} is not served here: 13 (ECDSAP256SHA256) and 15 (ED25519) are")]
    Algorithm(String),
    #[error("the .private file has no line `{0}:`")]
    Missing(&'static str),
    #[error("the .private file is not of format v1.2 or v1.3")]
    Format,
    #[error("line `{0}:` is not understood")]
    Line(String),
    #[error("the .private file is of another algorithm than the .key file")]
    OtherAlgorithm,
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Reads both files of a key.
///
/// # Errors
/// [`KeyFileError`].
pub fn parse(public: &str, private: &str) -> Result<Key, KeyFileError> {
    let record = Record::parse(public)?;
    let fields = Fields::parse(private)?;
    let number = fields.needed("Algorithm")?;
    let number = number.split_whitespace().next().unwrap_or_default();
    if number.parse() != Ok(record.algorithm.number()) {
        return Err(KeyFileError::OtherAlgorithm);
    }
    let secret = BASE64
        .decode(fields.needed("PrivateKey")?)
        .map_err(|_| KeyFileError::Line("PrivateKey".to_owned()))?;
    let times = fields.times()?;
    let Record {
        zone,
        role,
        algorithm,
        public,
    } = record;
    Ok(Key::from_parts(
        zone, role, algorithm, &secret, &public, times,
    )?)
}

struct Record {
    zone: Name,
    role: Role,
    algorithm: Algorithm,
    public: Vec<u8>,
}

impl Record {
    fn parse(text: &str) -> Result<Self, KeyFileError> {
        let lines = text
            .lines()
            .map(|line| line.split(';').next().unwrap_or_default());
        let mut words = lines
            .flat_map(str::split_whitespace)
            .filter(|w| *w != "(" && *w != ")");
        let owner = words.next().ok_or(KeyFileError::NoRecord)?;
        // A TTL and a class may stand before the type, in either order.
        let mut before_type = 0;
        while words.next().ok_or(KeyFileError::NoRecord)? != "DNSKEY" {
            before_type += 1;
            if before_type > 2 {
                return Err(KeyFileError::NoRecord);
            }
        }
        let mut number = || words.next()?.parse::<u16>().ok();
        let (flags, protocol, algorithm) = (number(), number(), number());
        let (Some(flags), Some(3), Some(algorithm)) = (flags, protocol, algorithm) else {
            return Err(KeyFileError::Record);
        };
        let known = u8::try_from(algorithm).ok().and_then(Algorithm::numbered);
        Ok(Self {
            zone: Name::parse(owner, None).map_err(|_| KeyFileError::Record)?,
            role: match flags {
                256 => Role::Zone,
                257 => Role::Entry,
                other => return Err(KeyFileError::Flags(other)),
            },
            algorithm: known.ok_or_else(|| KeyFileError::Algorithm(algorithm.to_string()))?,
            public: BASE64
                .decode(words.collect::<String>())
                .map_err(|_| KeyFileError::Record)?,
        })
    }
}

struct Fields<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Fields<'t> {
    fn parse(text: &'t str) -> Result<Self, KeyFileError> {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let fields = lines.map(|line| {
            let (key, value) = line.split_once(':').ok_or(KeyFileError::Format)?;
            Ok((key.trim(), value.trim()))
        });
        let fields = Self(fields.collect::<Result<_, KeyFileError>>()?);
        match fields.get("Private-key-format") {
            Some("v1.2" | "v1.3") => Ok(fields),
            _ => Err(KeyFileError::Format),
        }
    }

    fn get(&self, key: &str) -> Option<&'t str> {
        let found = self.0.iter().find(|(name, _)| *name == key);
        found.map(|(_, value)| *value)
    }

    fn needed(&self, key: &'static str) -> Result<&'t str, KeyFileError> {
        self.get(key).ok_or(KeyFileError::Missing(key))
    }

    fn times(&self) -> Result<Times, KeyFileError> {
        let mut times = Times::default();
        for (name, place) in slots(&mut times) {
            if let Some(text) = self.get(name) {
                let moment = Moment::parse(text);
                *place = Some(moment.ok_or_else(|| KeyFileError::Line(name.to_owned()))?);
            }
        }
        Ok(times)
    }
}

/// Each time by the word for it.
fn slots(times: &mut Times) -> [(&'static str, &mut Option<Moment>); 7] {
    [
        ("Created", &mut times.created),
        ("Publish", &mut times.publish),
        ("Activate", &mut times.activate),
        ("Inactive", &mut times.inactive),
        ("Delete", &mut times.delete),
        ("SyncPublish", &mut times.sync_publish),
        ("SyncDelete", &mut times.sync_delete),
    ]
}

/// The `.key` file.
#[must_use]
pub fn public_text(key: &Key) -> String {
    let kind = match key.role() {
        Role::Entry => "key-signing key",
        Role::Zone => "zone-signing key",
    };
    let mut times = key.times;
    let zone = key.zone().absolute();
    let mut text = format!("; This is a {kind}, keyid {}, for {zone}\n", key.tag());
    for (name, time) in slots(&mut times) {
        if let Some(time) = time {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "; {name}: {time}");
        }
    }
    let data = key.dnskey();
    let flags = u16::from_be_bytes([data[0], data[1]]);
    let algorithm = key.algorithm().number();
    let public = BASE64.encode(key.public());
    let _ = writeln!(text, "{zone} IN DNSKEY {flags} 3 {algorithm} {public}");
    text
}

/// The `.private` file.
///
/// # Errors
/// The provider does not give the private part out.
pub fn private_text(key: &Key) -> Result<String, KeyError> {
    let algorithm = key.algorithm();
    let mut text = format!(
        "Private-key-format: v1.3\nAlgorithm: {} ({})\nPrivateKey: {}\n",
        algorithm.number(),
        algorithm.as_str(),
        BASE64.encode(key.private()?)
    );
    let mut times = key.times;
    for (name, time) in slots(&mut times) {
        if let Some(time) = time {
            let _ = writeln!(text, "{name}: {time}");
        }
    }
    Ok(text)
}

/// The DS record for the parent, as a line of a zone file.
#[must_use]
pub fn ds_text(key: &Key) -> String {
    let data = key.ds();
    let (head, digest) = data.split_at(4);
    let digest: String = digest.iter().map(|octet| format!("{octet:02X}")).collect();
    let (tag, zone) = (key.tag(), key.zone().absolute());
    format!("{zone} IN DS {tag} {} {} {digest}", head[2], head[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6605 §6.1.
    const PUBLIC: &str = "; a comment\nexample.net. 3600 IN DNSKEY 257 3 13 (\n GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edb\n krSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA== )\n";
    const PRIVATE: &str = "Private-key-format: v1.2\nAlgorithm: 13 (ECDSAP256SHA256)\nPrivateKey: GU6SnQ/Ou+xC5RumuIUIuJZteXT2z0O/ok1s38Et6mQ=\nActivate: 20100812100439\n";

    #[test]
    fn the_key_of_rfc_6605_is_read() {
        let key = parse(PUBLIC, PRIVATE).unwrap();
        assert_eq!(key.file_stem(), "Kexample.net.+013+55648");
        assert_eq!(
            ds_text(&key),
            "example.net. IN DS 55648 13 2 B4C8C1FE2E7477127B27115656AD6256F424625BF5C1E2770CE6D6E37DF61D17"
        );
        assert_eq!(key.times.activate, Moment::parse("20100812100439"));
    }

    #[test]
    fn the_key_of_rfc_8080_is_read() {
        let public = "example.com. IN DNSKEY 257 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=";
        let private = "Private-key-format: v1.2\nAlgorithm: 15 (ED25519)\nPrivateKey: ODIyNjAzODQ2MjgwODAxMjI2NDUxOTAyMDQxNDIyNjI=\n";
        let key = parse(public, private).unwrap();
        assert_eq!(
            ds_text(&key),
            "example.com. IN DS 3613 15 2 3AA5AB37EFCE57F737FC1627013FEE07BDF241BD10F3B1964AB55C78E79A304B"
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        for algorithm in [Algorithm::EcdsaP256, Algorithm::Ed25519] {
            for role in [Role::Entry, Role::Zone] {
                let times = Times {
                    created: Some(Moment(1)),
                    delete: Some(Moment(99)),
                    ..Times::default()
                };
                let zone = Name::parse("example.test", None).unwrap();
                let key = Key::generate(zone, role, algorithm, times).unwrap();
                let read = parse(&public_text(&key), &private_text(&key).unwrap()).unwrap();
                assert!(read.is_same_pair(&key));
                assert_eq!((read.times, read.tag()), (times, key.tag()));
            }
        }
    }

    #[test]
    fn what_is_no_key_is_refused_by_name() {
        let private = |from: &str, to: &str| parse(PUBLIC, &PRIVATE.replace(from, to)).unwrap_err();
        let public = |from: &str, to: &str| parse(&PUBLIC.replace(from, to), PRIVATE).unwrap_err();

        assert_eq!(private("v1.2", "v2"), KeyFileError::Format);
        assert_eq!(
            private("PrivateKey", "Private"),
            KeyFileError::Missing("PrivateKey")
        );
        assert_eq!(private("13 (", "8 ("), KeyFileError::OtherAlgorithm);
        assert_eq!(
            private("20100812100439", "now"),
            KeyFileError::Line("Activate".to_owned())
        );
        assert_eq!(private("GU6S", "GU6T"), KeyError::Inconsistent.into());
        assert_eq!(public("DNSKEY", "DS"), KeyFileError::NoRecord);
        assert_eq!(public("257", "0"), KeyFileError::Flags(0));
        assert_eq!(
            public(" 13 ", " 8 "),
            KeyFileError::Algorithm("8".to_owned())
        );
        assert_eq!(public(" 3 ", " 4 "), KeyFileError::Record);
        assert_eq!(parse("", PRIVATE).unwrap_err(), KeyFileError::NoRecord);
    }
}
