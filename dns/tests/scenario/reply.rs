//! An answer, read by other code than wrote it: strictly, and into words.

use std::net::{Ipv4Addr, Ipv6Addr};

use sealane_dns::name::Name;
use sealane_dns::wire::rtype;
use sealane_model::Ttl;

/// An answer taken apart.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) length: usize,
    pub(crate) id: [u8; 2],
    pub(crate) opcode: u8,
    pub(crate) rcode: u16,
    pub(crate) flags: Vec<&'static str>,
    /// As it stands in the message.
    pub(crate) question: Vec<u8>,
    pub(crate) sections: [Vec<Entry>; 3],
    pub(crate) edns: Option<Edns>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edns {
    pub(crate) size: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
    pub(crate) options: Vec<(u16, Vec<u8>)>,
}

/// One record, names in its data made whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) owner: Name,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) data: Vec<u8>,
}

pub(crate) const SECTIONS: [&str; 3] = ["answer", "authority", "additional"];

/// Response codes by their number (IANA).
pub(crate) const RCODES: [(&str, u16); 8] = [
    ("noerror", 0),
    ("formerr", 1),
    ("servfail", 2),
    ("nxdomain", 3),
    ("notimp", 4),
    ("refused", 5),
    ("yxdomain", 6),
    ("badvers", 16),
];

impl Reply {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader { bytes, at: 0 };
        let header = reader.take(12)?;
        if header[2] & 0x80 == 0 {
            return Err("QR is not set".to_owned());
        }
        let flags = [
            (header[2] & 4, "aa"),
            (header[2] & 2, "tc"),
            (header[2] & 1, "rd"),
            (header[3] & 0x80, "ra"),
            (header[3] & 0x40, "z"),
            (header[3] & 0x20, "ad"),
            (header[3] & 0x10, "cd"),
        ];
        let counts: Vec<u16> = header[4..]
            .chunks_exact(2)
            .map(|two| u16::from_be_bytes([two[0], two[1]]))
            .collect();
        let mut reply = Self {
            length: bytes.len(),
            id: [header[0], header[1]],
            opcode: header[2] >> 3 & 15,
            rcode: u16::from(header[3] & 15),
            flags: flags
                .iter()
                .filter(|(bit, _)| *bit != 0)
                .map(|(_, word)| *word)
                .collect(),
            ..Self::default()
        };
        for _ in 0..counts[0] {
            reader.name()?;
            reader.take(4)?;
            reply.question = bytes[12..reader.at].to_vec();
        }
        for (section, count) in counts[1..].iter().enumerate() {
            for _ in 0..*count {
                let entry = reader.entry()?;
                if entry.rtype == rtype::OPT {
                    reply.opt(section, &entry)?;
                } else {
                    reply.sections[section].push(entry);
                }
            }
        }
        if reader.at != bytes.len() {
            return Err("octets after the last record".to_owned());
        }
        Ok(reply)
    }

    fn opt(&mut self, section: usize, entry: &Entry) -> Result<(), String> {
        if section != 2 || entry.owner != Name::root() || self.edns.is_some() {
            return Err("an OPT record that is out of place".to_owned());
        }
        let mut edns = Edns {
            size: entry.class,
            version: (entry.ttl >> 16) as u8,
            dnssec_ok: entry.ttl & 0x8000 != 0,
            options: Vec::new(),
        };
        self.rcode |= (entry.ttl >> 24 << 4) as u16;
        let mut reader = Reader {
            bytes: &entry.data,
            at: 0,
        };
        while reader.at < entry.data.len() {
            let code = reader.u16()?;
            let length = reader.u16()?;
            edns.options
                .push((code, reader.take(length.into())?.to_vec()));
        }
        self.edns = Some(edns);
        Ok(())
    }

    pub(crate) fn option(&self, code: u16) -> Option<&[u8]> {
        let options = self.edns.iter().flat_map(|edns| &edns.options);
        let mut those = options.filter(|(known, _)| *known == code);
        those.next().map(|(_, data)| data.as_slice())
    }

    pub(crate) fn rcode_word(&self) -> String {
        let known = RCODES.iter().find(|(_, code)| *code == self.rcode);
        known.map_or_else(
            || format!("rcode{}", self.rcode),
            |(word, _)| (*word).to_owned(),
        )
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        let mut lines = vec![format!("{} {}", self.rcode_word(), self.flags.join(" "))];
        for (section, entries) in SECTIONS.iter().zip(&self.sections) {
            lines.extend(
                entries
                    .iter()
                    .map(|entry| format!("{section} {}", entry.describe())),
            );
        }
        if let Some(edns) = &self.edns {
            lines.push(format!("{edns:?}"));
        }
        lines.join("\n        ")
    }
}

impl Entry {
    pub(crate) fn describe(&self) -> String {
        let name = |from: usize| {
            let name = self.data.get(from..).and_then(Name::from_wire);
            name.map_or_else(|| "?".to_owned(), |name| format!("{name}."))
        };
        let data = match self.rtype {
            rtype::A => <[u8; 4]>::try_from(&*self.data)
                .map_or_else(|_| "?".to_owned(), |a| Ipv4Addr::from(a).to_string()),
            rtype::AAAA => <[u8; 16]>::try_from(&*self.data)
                .map_or_else(|_| "?".to_owned(), |a| Ipv6Addr::from(a).to_string()),
            rtype::NS | rtype::CNAME | rtype::PTR | 39 => name(0),
            rtype::MX => name(2),
            rtype::SOA => "(SOA)".to_owned(),
            _ => {
                let hex: String = self
                    .data
                    .iter()
                    .map(|octet| format!("{octet:02x}"))
                    .collect();
                format!(
                    "\\# {} {hex} {:?}",
                    self.data.len(),
                    String::from_utf8_lossy(&self.data)
                )
            }
        };
        let word = match rtype::name(self.rtype) {
            "other" => format!("TYPE{}", self.rtype),
            word => word.to_owned(),
        };
        format!("{}. {} {word} {data}", self.owner, self.ttl)
    }

    /// Does a record that was expected, perhaps without its data, describe this one?
    pub(crate) fn is(&self, expected: &Expected) -> bool {
        let of_kind = self.owner == expected.owner
            && self.rtype == expected.rtype
            && self.class == expected.class;
        let data = expected.data.as_ref();
        of_kind && self.ttl == expected.ttl.as_secs() && data.is_none_or(|data| *data == self.data)
    }
}

/// A record as a script expects it.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) owner: Name,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) ttl: Ttl,
    /// `None`: any.
    pub(crate) data: Option<Vec<u8>>,
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Result<&'b [u8], String> {
        let end = self.at + length;
        let taken = self
            .bytes
            .get(self.at..end)
            .ok_or("the answer ends too early")?;
        self.at = end;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, String> {
        let two = self.take(2)?;
        Ok(u16::from_be_bytes([two[0], two[1]]))
    }

    /// Pointers may lead backwards only, and to names only that stand in the message.
    fn name(&mut self) -> Result<Vec<u8>, String> {
        let mut wire = Vec::new();
        let mut at = self.at;
        let mut end = None;
        loop {
            let length = *self.bytes.get(at).ok_or("a name ends too early")?;
            if length >= 0xc0 {
                let low = *self.bytes.get(at + 1).ok_or("a pointer ends too early")?;
                let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                if target >= at || target < 12 {
                    return Err(format!("a pointer from {at} to {target}"));
                }
                end.get_or_insert(at + 2);
                at = target;
                continue;
            }
            let label = self.bytes.get(at..=at + usize::from(length));
            wire.extend_from_slice(label.ok_or("a label ends too early")?);
            at += usize::from(length) + 1;
            if length == 0 {
                break;
            }
        }
        self.at = end.unwrap_or(at);
        Ok(wire)
    }

    fn entry(&mut self) -> Result<Entry, String> {
        let owner = Name::from_wire(&self.name()?).ok_or("an owner that is no name")?;
        let rtype = self.u16()?;
        let class = self.u16()?;
        let ttl = u32::from(self.u16()?) << 16 | u32::from(self.u16()?);
        let length = usize::from(self.u16()?);
        let end = self.at + length;
        let mut data = Vec::new();
        // Names in the data of these types may be compressed (RFC 3597 section 4).
        let (before, names) = match rtype {
            rtype::NS | rtype::CNAME | rtype::PTR => (0, 1),
            rtype::SOA => (0, 2),
            rtype::MX => (2, 1),
            _ => (length, 0),
        };
        data.extend_from_slice(self.take(before)?);
        for _ in 0..names {
            data.extend(self.name()?.to_ascii_lowercase());
        }
        if self.at > end {
            return Err("a name longer than its record".to_owned());
        }
        data.extend_from_slice(self.take(end - self.at)?);
        Ok(Entry {
            owner,
            rtype,
            class,
            ttl,
            data,
        })
    }
}
