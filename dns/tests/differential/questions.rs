//! The questions: every name with every type, what lies above, beside and below the names, and by chance names,
//! types and messages that nobody asks for.

use std::collections::BTreeSet;

use crate::ask::{Ask, Edns};
use crate::{ZONES, records_of, wire};

/// Types with a name (IANA "DNS Parameters"), what DNSSEC has, what nobody knows, and those of questions alone.
const KINDS: [u16; 48] = [
    1, 2, 5, 6, 12, 13, 15, 16, 17, 18, 28, 29, 33, 35, 36, 37, 39, 42, 43, 44, 46, 47, 48, 50, 51,
    52, 53, 55, 59, 60, 61, 62, 63, 64, 65, 99, 108, 127, 253, 254, 255, 256, 257, 32769, 65280,
    65281, 65534, 65535,
];
/// As often as all others together, by chance.
const COMMON: [u16; 12] = [1, 28, 5, 15, 16, 2, 6, 43, 39, 65, 255, 257];
const COOKIE: u16 = 10;
pub(crate) const NSID_CODE: u16 = 3;

/// A generator of numbers whose whole state is one number: xorshift64*.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }
}

/// All owners, with the names above them down to the root.
fn names() -> BTreeSet<Vec<u8>> {
    let mut names = BTreeSet::new();
    for (zone, text) in ZONES {
        for owner in records_of(zone, text)
            .into_iter()
            .map(|record| record.owner)
        {
            let mut above = Some(owner);
            while let Some(name) = above {
                names.insert(name.wire().to_vec());
                above = name.parent();
            }
        }
    }
    names
}

/// What lies close to a name: below it, two below it, a star below it, right before and right after it.
fn near(name: &[u8]) -> Vec<Vec<u8>> {
    let below = |labels: &[u8]| [labels, name].concat();
    let mut near = vec![
        below(b"\x01x"),
        below(b"\x01*"),
        below(b"\x01a\x01b"),
        below(b"\x01\0"),
    ];
    if let Some(length @ 1..) = name.first().copied() {
        let length = usize::from(length);
        for step in [1, 255] {
            let mut beside = name.to_vec();
            beside[length] = beside[length].wrapping_add(step);
            near.push(beside);
        }
        if length < 63 {
            let mut longer = name.to_vec();
            longer[0] += 1;
            longer.insert(length + 1, b'-');
            near.push(longer);
        }
        let mut other = name.to_vec();
        other.splice(1..=length, b"~".repeat(length));
        near.push(other);
    }
    near.retain(|name| name.len() <= 255);
    near
}

/// Each name with each type, in the plainest message: the long way.
pub(crate) fn every() -> Vec<Ask> {
    let mut all = names();
    let beside: Vec<_> = all.iter().flat_map(|name| near(name)).collect();
    all.extend(beside);
    let of_name = |name: &Vec<u8>| KINDS.map(|kind| Ask::of(name.clone(), kind));
    all.iter().flat_map(of_name).collect()
}

/// As many questions, all different.
pub(crate) fn by_chance(count: usize, chance: &mut Chance) -> Vec<Ask> {
    let names: Vec<_> = names().into_iter().collect();
    (0..count).map(|_| one(&names, chance)).collect()
}

fn one(names: &[Vec<u8>], chance: &mut Chance) -> Ask {
    let kind = match chance.below(20) {
        0..10 => *chance.pick(&COMMON),
        10..19 => *chance.pick(&KINDS),
        _ => kind_of_data(chance.below(65_536) as u16),
    };
    let mut ask = Ask::of(name(names, chance), kind);
    ask.recursion_desired = chance.one_in(3);
    ask.checking_disabled = chance.one_in(10);
    ask.authentic = chance.one_in(10);
    ask.by_tcp = chance.one_in(4);
    if chance.one_in(30) {
        ask.class = *chance.pick(&[3, 4, 255, 254, 0, 2, 17, 65_535]);
    }
    if chance.one_in(60) {
        // Neither NOTIFY nor UPDATE, whose messages are of another form.
        ask.opcode = *chance.pick(&[1, 2, 3, 6, 7, 15]);
    }
    if chance.one_in(100) {
        let own = [
            "version.bind",
            "id.server",
            "hostname.bind",
            "version.server",
            "other.bind",
        ];
        (ask.name, ask.kind, ask.class) = (wire(chance.pick::<&str>(&own)), 16, 3);
    }
    if !chance.one_in(3) {
        ask.edns = Some(edns(chance));
    }
    ask
}

/// No type that asks for a transfer, or that stands for a signature of the message itself.
const fn kind_of_data(kind: u16) -> u16 {
    match kind {
        41 | 249..=252 => 1,
        kind => kind,
    }
}

fn edns(chance: &mut Chance) -> Edns {
    let mut edns =
        Edns::of_size(*chance.pick(&[0, 511, 512, 513, 1_232, 1_232, 1_400, 4_096, 65_535]));
    edns.dnssec_ok = chance.one_in(3);
    if chance.one_in(20) {
        edns.version = *chance.pick(&[1, 2, 255]);
    }
    if chance.one_in(5) {
        edns.options.push((NSID_CODE, Vec::new()));
    }
    if chance.one_in(5) {
        let cookie = (0..8).map(|_| chance.below(256) as u8).collect();
        edns.options.push((COOKIE, cookie));
    }
    if chance.one_in(5) {
        let data = vec![7; chance.below(20)];
        edns.options
            .push((*chance.pick(&[65_001, 4_711, 20, 26]), data));
    }
    edns
}

fn name(names: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut name = chance.pick(names).clone();
    match chance.below(8) {
        0..3 => {}
        3..5 => {
            let near = near(&name);
            if !near.is_empty() {
                name.clone_from(chance.pick(&near));
            }
        }
        5 => name = labels(chance, &name),
        6 => name = grafted(chance.pick::<Vec<u8>>(names), &name),
        _ => change_octet(&mut name, chance),
    }
    if chance.one_in(3) {
        change_case(&mut name, chance);
    }
    name
}

/// Labels of any octets, below a name.
fn labels(chance: &mut Chance, above: &[u8]) -> Vec<u8> {
    let mut name = Vec::new();
    for _ in 0..=chance.below(4) {
        let length = 1 + chance.below(12);
        name.push(length as u8);
        name.extend((0..length).map(|_| chance.below(256) as u8));
    }
    name.extend_from_slice(above);
    if name.len() > 255 {
        above.to_vec()
    } else {
        name
    }
}

/// The first label of one name before another: a star, say, or a label that leads somewhere else.
fn grafted(from: &[u8], below: &[u8]) -> Vec<u8> {
    let label = &from[..from.len().min(usize::from(from[0]) + 1)];
    let label = if label == [0] { b"\x01*" } else { label };
    let whole = [label, below].concat();
    if whole.len() > 255 {
        below.to_vec()
    } else {
        whole
    }
}

/// Octets of labels, not their lengths.
fn of_labels(name: &[u8]) -> Vec<usize> {
    let (mut at, mut places) = (0, Vec::new());
    while let Some(length @ 1..) = name.get(at).copied().map(usize::from) {
        places.extend(at + 1..=at + length);
        at += length + 1;
    }
    places
}

fn change_octet(name: &mut [u8], chance: &mut Chance) {
    let places = of_labels(name);
    if !places.is_empty() {
        name[*chance.pick(&places)] = chance.below(256) as u8;
    }
}

fn change_case(name: &mut [u8], chance: &mut Chance) {
    for at in of_labels(name) {
        if name[at].is_ascii_alphabetic() && chance.one_in(2) {
            name[at] ^= 0x20;
        }
    }
}

/// For messages.
pub(crate) fn seed() -> u64 {
    let text = std::env::var("SEALANE_DIFFERENTIAL_SEED").ok();
    text.map_or(1, |text| text.parse().expect("a seed is a number"))
}
