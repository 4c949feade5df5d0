//! Ordered ranges of addresses of equal class, and the exact prefix for which a look-up holds.
//!
//! Building works on 128-bit numbers for both families; look-ups on the family's own width. Knows
//! nothing of what a class means.

/// A number for "located alike".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class(u32);

impl Class {
    pub(super) const NOWHERE: Self = Self(0);

    /// `index` is a place in a list of classes, of which memory holds less than 2^32.
    pub(super) fn from_index(index: usize) -> Self {
        u32::try_from(index).map_or(Self::NOWHERE, Self)
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A prefix as a range of numbers: first and last address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Net {
    start: u128,
    end: u128,
}

impl Net {
    /// `width` is the family's: 32 or 128. Bits after the prefix are ignored; `bits` above the
    /// width count as the width.
    pub(super) fn new(address: u128, bits: u8, width: u8) -> Self {
        let host_bits = u32::from(width.saturating_sub(bits));
        let host = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |n| n - 1);
        Self {
            start: address & !host,
            end: address | host,
        }
    }

    /// The part that both cover.
    pub(super) fn intersection(self, other: Self) -> Option<Self> {
        let both = Self {
            start: self.start.max(other.start),
            end: self.end.min(other.end),
        };
        (both.start <= both.end).then_some(both)
    }
}

/// A whole address space cut at some addresses: each part has one class, neighbours differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boundaries {
    /// Where a part begins, ascending, the first at 0; it ends before the next one's begin.
    parts: Vec<(u128, Class)>,
}

impl Boundaries {
    pub(super) fn nowhere() -> Self {
        Self {
            parts: vec![(0, Class::NOWHERE)],
        }
    }

    pub(super) fn say_anything(&self) -> bool {
        self.parts.len() > 1 || self.parts.iter().any(|(_, class)| *class != Class::NOWHERE)
    }

    /// From prefixes, which are always nested or apart: the longer one wins, of equal ones the
    /// last.
    pub(super) fn nested(mut nets: Vec<(Net, Class)>) -> Self {
        // Stable: equal ones stay in order, and the later one opens last.
        nets.sort_by(|(a, _), (b, _)| a.start.cmp(&b.start).then(b.end.cmp(&a.end)));
        let mut parts = Self::nowhere();
        let mut open: Vec<(Net, Class)> = Vec::new();
        for (net, class) in nets {
            parts.close_before(net.start, &mut open);
            parts.cut(net.start, class);
            open.push((net, class));
        }
        while let Some((ended, _)) = open.pop() {
            parts.close(ended, &open);
        }
        parts
    }

    fn close_before(&mut self, start: u128, open: &mut Vec<(Net, Class)>) {
        while let Some((ended, _)) = open.pop_if(|(net, _)| net.end < start) {
            self.close(ended, open);
        }
    }

    /// After `ended`, what lies open around it goes on.
    fn close(&mut self, ended: Net, open: &[(Net, Class)]) {
        let around = open.last().map_or(Class::NOWHERE, |(_, class)| *class);
        if let Some(after) = ended.end.checked_add(1) {
            self.cut(after, around);
        }
    }

    /// Appends a range that begins after all that was appended before.
    pub(super) fn append(&mut self, net: Net, class: Class) {
        self.cut(net.start, class);
        if let Some(after) = net.end.checked_add(1) {
            self.cut(after, Class::NOWHERE);
        }
    }

    /// From `start` on: `class`. `start` is no less than any before it.
    fn cut(&mut self, start: u128, class: Class) {
        if self.parts.last().is_some_and(|(last, _)| *last == start) {
            self.parts.pop();
        }
        if self.parts.last().is_none_or(|(_, last)| *last != class) {
            self.parts.push((start, class));
        }
    }

    /// `self` where it says anything, else `below`.
    pub(super) fn over(&self, below: &Self) -> Self {
        let mut merged = Self { parts: Vec::new() };
        let (mut above_at, mut below_at) = (Cursor::new(&self.parts), Cursor::new(&below.parts));
        loop {
            let start = above_at.start.max(below_at.start);
            let class = if above_at.class == Class::NOWHERE {
                below_at.class
            } else {
                above_at.class
            };
            merged.cut(start, class);
            match (above_at.next_start(), below_at.next_start()) {
                (None, None) => return merged,
                (Some(above), Some(below)) if above == below => {
                    above_at.advance();
                    below_at.advance();
                }
                (Some(above), Some(below)) if above > below => below_at.advance(),
                (None, Some(_)) => below_at.advance(),
                (Some(_), _) => above_at.advance(),
            }
        }
    }
}

struct Cursor<'a> {
    start: u128,
    class: Class,
    rest: &'a [(u128, Class)],
}

impl<'a> Cursor<'a> {
    fn new(parts: &'a [(u128, Class)]) -> Self {
        let mut cursor = Self {
            start: 0,
            class: Class::NOWHERE,
            rest: parts,
        };
        cursor.advance();
        cursor
    }

    fn next_start(&self) -> Option<u128> {
        self.rest.first().map(|(start, _)| *start)
    }

    fn advance(&mut self) {
        if let Some(((start, class), rest)) = self.rest.split_first() {
            (self.start, self.class, self.rest) = (*start, *class, rest);
        }
    }
}

/// The ranges of IPv4. Empty means: one range, nowhere.
#[derive(Debug, Default)]
pub(super) struct RangesV4 {
    starts: Vec<u32>,
    classes: Vec<Class>,
    /// For each leading 16 bits: the place of the range that holds their first address. 256 KiB
    /// that save most of the binary search.
    by_leading_16: Vec<u32>,
}

impl RangesV4 {
    pub(super) fn new(parts: &Boundaries) -> Self {
        if !parts.say_anything() {
            return Self::default();
        }
        let within = parts.parts.iter();
        let within =
            within.filter_map(|(start, class)| Some((u32::try_from(*start).ok()?, *class)));
        let (starts, classes): (Vec<u32>, Vec<Class>) = within.unzip();
        let mut by_leading_16 = Vec::with_capacity(1 << 16);
        let mut at = 0_u32;
        for leading in 0..=u32::from(u16::MAX) {
            let follows = |at: u32| starts.get(at as usize + 1);
            while follows(at).is_some_and(|next| *next <= leading << 16) {
                at += 1;
            }
            by_leading_16.push(at);
        }
        Self {
            starts,
            classes,
            by_leading_16,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.starts.len()
    }

    /// The class of the address, and the length of the shortest prefix of it that holds no
    /// address of another class.
    pub(super) fn find(&self, address: u32) -> (Class, u8) {
        let leading = (address >> 16) as usize;
        let Some(first) = self.by_leading_16.get(leading) else {
            return (Class::NOWHERE, 0);
        };
        let first = *first as usize;
        let end = self.by_leading_16.get(leading + 1);
        let end = end.map_or(self.starts.len(), |last| *last as usize + 1);
        let at = first + self.starts[first..end].partition_point(|start| *start <= address) - 1;
        let before = at.checked_sub(1).map(|_| self.starts[at] - 1);
        let after = self.starts.get(at + 1).copied();
        let shared = |other: u32| (address ^ other).leading_zeros() as u8 + 1;
        let scope = before.map_or(0, shared).max(after.map_or(0, shared));
        (self.classes[at], scope)
    }
}

/// The ranges of IPv6. Empty means: one range, nowhere.
#[derive(Debug, Default)]
pub(super) struct RangesV6 {
    starts: Vec<u128>,
    classes: Vec<Class>,
}

impl RangesV6 {
    pub(super) fn new(parts: &Boundaries) -> Self {
        if !parts.say_anything() {
            return Self::default();
        }
        let (starts, classes) = parts.parts.iter().copied().unzip();
        Self { starts, classes }
    }

    pub(super) const fn len(&self) -> usize {
        self.starts.len()
    }

    /// As [`RangesV4::find`].
    pub(super) fn find(&self, address: u128) -> (Class, u8) {
        let after_at = self.starts.partition_point(|start| *start <= address);
        let Some(at) = after_at.checked_sub(1) else {
            return (Class::NOWHERE, 0);
        };
        let before = at.checked_sub(1).map(|_| self.starts[at] - 1);
        let after = self.starts.get(after_at).copied();
        let shared = |other: u128| (address ^ other).leading_zeros() as u8 + 1;
        let scope = before.map_or(0, shared).max(after.map_or(0, shared));
        (self.classes[at], scope)
    }
}
