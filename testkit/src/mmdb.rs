//! Writes small MMDB tables (MaxMind DB format 2.0), so that tests can say where networks are.
//!
//! ```
//! use sealane_testkit::mmdb::{Record, table};
//!
//! let bytes = table(&[
//!     ("198.51.100.0/24", Record::At(50.1, 8.7)),
//!     ("2001:db8::/32", Record::Country("DE")),
//! ]);
//! assert!(bytes.windows(11).any(|part| part == b"MaxMind.com"));
//! ```

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// What a network's record says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Record {
    /// `location.latitude`, `location.longitude`.
    At(f64, f64),
    /// `country.iso_code`.
    Country(&'static str),
    /// `continent.code`.
    Continent(&'static str),
    /// `autonomous_system_number`.
    System(u32),
    /// `country.iso_code` and `continent.code`.
    Both(&'static str, &'static str),
    /// A record that knows no place.
    Nothing,
}

/// A table of these networks (`ip/bits`). Of networks that overlap, the later one wins where both
/// are. IPv4 is kept at `::/96` and aliased as MaxMind's tables do.
///
/// # Panics
/// A network is not `ip/bits`.
#[must_use]
pub fn table(networks: &[(&str, Record)]) -> Vec<u8> {
    let parsed = networks.iter().map(|(network, record)| {
        let (ip, bits) = network.split_once('/').expect("ip/bits");
        (
            ip.parse().expect("an IP address"),
            bits.parse().expect("a number of bits"),
            *record,
        )
    });
    table_of(parsed)
}

/// As [`table`], from addresses and prefix lengths.
///
/// # Panics
/// The table is larger than records of 32 bits can point into.
#[must_use]
pub fn table_of(networks: impl IntoIterator<Item = (IpAddr, u8, Record)>) -> Vec<u8> {
    let mut tree = Tree::default();
    let mut data = Vec::new();
    let mut known = HashMap::new();
    for (ip, bits, record) in networks {
        let encoded = encode(record);
        let offset = *known.entry(encoded.clone()).or_insert_with(|| {
            data.extend_from_slice(&encoded);
            data.len() - encoded.len()
        });
        let (ip, bits) = match ip {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), bits + 96),
            IpAddr::V6(v6) => (v6.into(), bits),
        };
        tree.set(ip, bits, Slot::Data(offset));
    }
    tree.alias_v4();
    tree.write(&data)
}

#[derive(Clone, Copy)]
enum Slot {
    Empty,
    Node(usize),
    /// An offset in the data section.
    Data(usize),
}

struct Tree(Vec<[Slot; 2]>);

impl Default for Tree {
    fn default() -> Self {
        Self(vec![[Slot::Empty; 2]])
    }
}

impl Tree {
    fn set(&mut self, ip: u128, bits: u8, value: Slot) {
        let node = self.node_at(ip, bits - 1);
        self.0[node][bit(ip, bits - 1)] = value;
    }

    /// The node after `depth` bits; leaves on the way are split.
    fn node_at(&mut self, ip: u128, depth: u8) -> usize {
        let mut node = 0;
        for level in 0..depth {
            let side = bit(ip, level);
            node = match self.0[node][side] {
                Slot::Node(next) => next,
                leaf => {
                    self.0.push([leaf; 2]);
                    let next = self.0.len() - 1;
                    self.0[node][side] = Slot::Node(next);
                    next
                }
            };
        }
        node
    }

    fn alias_v4(&mut self) {
        let v4 = Slot::Node(self.node_at(0, 96));
        for (prefix, bits) in [("::ffff:0:0", 96), ("2001::", 32), ("2002::", 16)] {
            let prefix: Ipv6Addr = prefix.parse().expect("an IPv6 address");
            self.set(prefix.into(), bits, v4);
        }
    }

    fn write(&self, data: &[u8]) -> Vec<u8> {
        let count = u32::try_from(self.0.len()).expect("fewer than 2^32 nodes");
        let mut bytes = Vec::with_capacity(self.0.len() * 8 + data.len() + 512);
        for slot in self.0.iter().flatten() {
            let value = match *slot {
                Slot::Empty => self.0.len(),
                Slot::Node(node) => node,
                Slot::Data(offset) => self.0.len() + 16 + offset,
            };
            let value = u32::try_from(value).expect("fewer than 2^32 nodes and bytes");
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
        bytes.extend_from_slice(&metadata(count));
        bytes
    }
}

fn bit(ip: u128, level: u8) -> usize {
    usize::from(ip >> (127 - level) & 1 == 1)
}

fn encode(record: Record) -> Vec<u8> {
    match record {
        Record::At(latitude, longitude) => map(&[(
            "location",
            map(&[
                ("latitude", double(latitude)),
                ("longitude", double(longitude)),
            ]),
        )]),
        Record::Country(code) => map(&[("country", map(&[("iso_code", text(code))]))]),
        Record::Continent(code) => map(&[("continent", map(&[("code", text(code))]))]),
        Record::System(system) => {
            map(&[("autonomous_system_number", number(6, &system.to_be_bytes()))])
        }
        Record::Both(country, continent) => map(&[
            ("country", map(&[("iso_code", text(country))])),
            ("continent", map(&[("code", text(continent))])),
        ]),
        Record::Nothing => map(&[]),
    }
}

fn metadata(node_count: u32) -> Vec<u8> {
    map(&[
        ("binary_format_major_version", number(5, &[2])),
        ("binary_format_minor_version", number(5, &[])),
        ("build_epoch", number(9, &1_767_225_600_u64.to_be_bytes())),
        ("database_type", text("Test-City")),
        ("description", map(&[("en", text("a test's table"))])),
        ("ip_version", number(5, &[6])),
        ("languages", vec![0x01, 0x04, 0x42, b'e', b'n']),
        ("node_count", number(6, &node_count.to_be_bytes())),
        ("record_size", number(5, &[32])),
    ])
}

/// Type and size; sizes here stay below 29.
fn control(kind: u8, size: usize) -> Vec<u8> {
    let size = u8::try_from(size).expect("a small value");
    assert!(size < 29, "longer values are not needed here");
    match kind {
        0..=7 => vec![kind << 5 | size],
        extended => vec![size, extended - 7],
    }
}

fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = control(7, entries.len());
    for (key, value) in entries {
        bytes.extend_from_slice(&text(key));
        bytes.extend_from_slice(value);
    }
    bytes
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = control(2, text.len());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn double(value: f64) -> Vec<u8> {
    let mut bytes = control(3, 8);
    bytes.extend_from_slice(&value.to_be_bytes());
    bytes
}

fn number(kind: u8, big_endian: &[u8]) -> Vec<u8> {
    let mut bytes = control(kind, big_endian.len());
    bytes.extend_from_slice(big_endian);
    bytes
}
