//! Any datagram, to the engine over a signed zone: besides what holds for every answer, whatever is told to who wants
//! signatures must be signed, and whatever is denied be proven by NSEC records that say so.
//!
//! The first octet of the input chooses transport, source and the manner of denial; the rest is the message. What proofs
//! mean is written down here once more, by RFC 4035 section 3.1 and RFC 9824, without the engine's own code.

#![no_main]

#[allow(dead_code, reason = "scripts need more of it")]
#[path = "../../../../dns/tests/scenario/reply.rs"]
mod reply;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use sealane_dns::config::Dnssec;
use sealane_dns::dnssec::chain::Denial;
use sealane_dns::dnssec::key::{Algorithm, Key, Role};
use sealane_dns::dnssec::timing::Times;
use sealane_dns::engine::{Rules, STREAM_SIZE_MAX, Transport, UDP_SIZE_MAX, answer};
use sealane_dns::name::Name;
use sealane_dns::wire::rtype;
use sealane_fuzz_dns::{SOURCES, examine, rules, world};
use sealane_model::Snapshot;

use reply::{Entry, Reply};

const NOERROR: u16 = 0;
const NXDOMAIN: u16 = 3;
const DS: u16 = 43;

struct Fixed {
    chained: Rules,
    compact: Rules,
    world: Snapshot,
}

static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let world = world();
    let signed = |denial| {
        let apex = Name::parse("t.example", None).expect("a name");
        // Its signatures of one message are all alike.
        let key = Key::generate(apex, Role::Entry, Algorithm::Ed25519, Times::default());
        let mut dnssec = Dnssec::new(vec![Arc::new(key.expect("randomness"))]);
        dnssec.denial = denial;
        dnssec.signatures_per_second = u32::MAX;
        rules(&world, Some(dnssec))
    };
    Fixed {
        chained: signed(Denial::Nsec),
        compact: signed(Denial::Compact),
        world,
    }
});

fuzz_target!(|data: &[u8]| {
    let Some((&choice, message)) = data.split_first() else {
        return;
    };
    let fixed = &*FIXED;
    let (transport, size) = match choice & 1 {
        0 => (Transport::Udp, UDP_SIZE_MAX),
        _ => (Transport::Stream, STREAM_SIZE_MAX),
    };
    let source = SOURCES[usize::from(choice >> 1 & 3)];
    let is_compact = choice & 8 != 0;
    let rules = if is_compact { &fixed.compact } else { &fixed.chained };
    let mut out = vec![0xee; size];
    let Some(answered) = answer(message, source, transport, rules, &fixed.world, &mut out) else {
        return;
    };
    examine(message, &out, &answered);
    let reply = match Reply::read(&out[..answered.length]) {
        Ok(reply) => reply,
        Err(error) => panic!("{error}: {:02x?}", &out[..answered.length]),
    };
    let is_told = matches!(reply.rcode, NOERROR | NXDOMAIN) && !reply.flags.contains(&"tc");
    let Some(told) = Told::of(&reply).filter(|told| is_told && told.class == 1) else {
        return;
    };
    if !reply.edns.as_ref().is_some_and(|edns| edns.dnssec_ok) {
        told.assert_plain();
        return;
    }
    told.assert_signed();
    // That NSEC and RRSIG are absent no NSEC record can say, as it is there itself and signed.
    let is_deniable = !matches!(told.kind, rtype::NSEC | rtype::RRSIG);
    if reply.flags.contains(&"aa") && is_deniable {
        told.assert_denied(is_compact);
    }
});

/// An answer and its question.
struct Told<'r> {
    reply: &'r Reply,
    name: Name,
    kind: u16,
    class: u16,
}

impl<'r> Told<'r> {
    fn of(reply: &'r Reply) -> Option<Self> {
        let (name, rest) = reply.question.split_at_checked(reply.question.len().checked_sub(4)?)?;
        Some(Self {
            reply,
            name: Name::from_wire(name)?,
            kind: u16::from_be_bytes([rest[0], rest[1]]),
            class: u16::from_be_bytes([rest[2], rest[3]]),
        })
    }

    fn entries(&self) -> impl Iterator<Item = &'r Entry> {
        self.reply.sections[0].iter().chain(&self.reply.sections[1])
    }

    /// Who does not want signatures gets none but those asked for.
    fn assert_plain(&self) {
        let is_proof = |kind| matches!(kind, rtype::RRSIG | rtype::NSEC);
        let proof = self.entries().find(|entry| is_proof(entry.rtype) && entry.rtype != self.kind);
        assert!(proof.is_none(), "{}", self.reply.describe());
    }

    fn assert_signed(&self) {
        let signed: BTreeSet<(&Name, u16)> = self
            .entries()
            .filter(|entry| entry.rtype == rtype::RRSIG)
            .map(|entry| (&entry.owner, u16::from_be_bytes([entry.data[0], entry.data[1]])))
            .collect();
        let moved: Vec<&Name> = self
            .entries()
            .filter(|entry| entry.rtype == rtype::DNAME)
            .map(|entry| &entry.owner)
            .collect();
        for entry in self.entries().filter(|entry| entry.rtype != rtype::RRSIG) {
            let owner = &entry.owner;
            // Made of a DNAME, which is signed instead (RFC 6672 section 5.3.1).
            let is_made = entry.rtype == rtype::CNAME
                && moved.iter().any(|moved| owner != *moved && owner.is_at_or_below(moved));
            // Of a delegation (RFC 4035 section 3.1.4).
            let is_cut = entry.rtype == rtype::NS && !self.reply.flags.contains(&"aa");
            assert!(
                is_made || is_cut || signed.contains(&(owner, entry.rtype)),
                "not signed: {}\n{}",
                entry.describe(),
                self.reply.describe()
            );
        }
    }

    /// Where the aliases lead to.
    fn end(&self) -> Name {
        let mut name = self.name.clone();
        for entry in &self.reply.sections[0] {
            if entry.rtype == rtype::CNAME && entry.owner == name && self.kind != rtype::CNAME {
                name = Name::from_wire(&entry.data).expect("a name");
            }
        }
        name
    }

    fn assert_denied(&self, is_compact: bool) {
        let chain = self.chain();
        let has_soa = self.reply.sections[1].iter().any(|entry| entry.rtype == rtype::SOA);
        let name = self.end();
        let fail = |what: &str| panic!("{what}: {name} {}\n{}", self.kind, self.reply.describe());
        if is_compact {
            // RFC 9824 section 3: every name is there, with hardly a type.
            if self.reply.rcode == NXDOMAIN {
                fail("compact denial says that no name is absent");
            }
            if has_soa && !chain.iter().any(|link| link.lacks(&name, self.kind)) {
                fail("no NSEC says that the type is absent");
            }
            return;
        }
        let covering = chain.iter().find(|link| link.covers(&name));
        if self.reply.rcode == NXDOMAIN {
            let Some(covering) = covering else {
                return fail("no NSEC says that the name is absent");
            };
            let wildcard = covering.wildcard_beside(&name);
            if !chain.iter().any(|link| link.covers(&wildcard)) {
                fail("no NSEC says that there is no wildcard");
            }
        } else if has_soa && !self.proves_no_data(&chain, &name, covering) {
            fail("no NSEC says that the type is absent");
        }
        self.assert_expanded(&chain);
    }

    /// RFC 4035 sections 3.1.3.1 and 3.1.3.4.
    fn proves_no_data(&self, chain: &[Link], name: &Name, covering: Option<&Link>) -> bool {
        if chain.iter().any(|link| link.lacks(name, self.kind)) {
            return true;
        }
        covering.is_some_and(|covering| {
            // It is there for names below it alone.
            let is_empty = covering.next.is_at_or_below(name);
            let wildcard = covering.wildcard_beside(name);
            is_empty || chain.iter().any(|link| link.lacks(&wildcard, self.kind))
        })
    }

    /// What a wildcard made is told with a proof that nothing stands closer (section 3.1.3.3).
    fn assert_expanded(&self, chain: &[Link]) {
        for entry in &self.reply.sections[0] {
            if entry.rtype != rtype::RRSIG {
                continue;
            }
            let labels = labels(&entry.owner);
            let own = labels.len() - usize::from(labels.last().is_some_and(|label| label == b"*"));
            let is_made = usize::from(entry.data[3]) < own;
            assert!(
                !is_made || chain.iter().any(|link| link.covers(&entry.owner)),
                "no NSEC says that {} is not there itself\n{}",
                entry.owner,
                self.reply.describe()
            );
        }
    }

    fn chain(&self) -> Vec<Link> {
        let proofs = self.reply.sections[1].iter().filter(|entry| entry.rtype == rtype::NSEC);
        proofs.map(Link::of).collect()
    }
}

/// An NSEC record.
struct Link {
    owner: Name,
    next: Name,
    types: BTreeSet<u16>,
}

impl Link {
    fn of(entry: &Entry) -> Self {
        let mut end = 0;
        while entry.data[end] != 0 {
            end += usize::from(entry.data[end]) + 1;
        }
        let (next, mut blocks) = entry.data.split_at(end + 1);
        let mut types = BTreeSet::new();
        // RFC 4034 section 4.1.2.
        while let [window, length, rest @ ..] = blocks {
            let (bits, behind) = rest.split_at(usize::from(*length));
            for (at, octet) in bits.iter().enumerate() {
                let of_octet = (0..8).filter(|bit| octet & 0x80 >> bit != 0);
                types.extend(of_octet.map(|bit| u16::from(*window) << 8 | (at as u16 * 8 + bit)));
            }
            blocks = behind;
        }
        Self {
            owner: entry.owner.clone(),
            next: Name::from_wire(next).expect("a name"),
            types,
        }
    }

    /// Says that the name is not there. The last one of a chain leads to the apex.
    fn covers(&self, name: &Name) -> bool {
        let (owner, next, name) = (labels(&self.owner), labels(&self.next), labels(name));
        let is_last = next <= owner;
        owner < name && (name < next || is_last)
    }

    /// Says that the name has neither this type nor an alias.
    fn lacks(&self, name: &Name, kind: u16) -> bool {
        let is_cut = self.types.contains(&rtype::NS) && !self.types.contains(&rtype::SOA);
        // Of a delegation the parent denies DS alone.
        let may_say = !is_cut || kind == DS;
        self.owner == *name
            && may_say
            && !self.types.contains(&kind)
            && !self.types.contains(&rtype::CNAME)
    }

    /// The wildcard right below the closest encloser of a name that this covers.
    fn wildcard_beside(&self, name: &Name) -> Name {
        let common = |other: &Name| {
            let (one, other) = (labels(name), labels(other));
            one.iter().zip(&other).take_while(|(one, other)| one == other).count()
        };
        let depth = common(&self.owner).max(common(&self.next));
        let mut encloser = name.clone();
        while labels(&encloser).len() > depth {
            encloser = encloser.parent().expect("not the root yet");
        }
        let wire = [b"\x01*", encloser.wire()].concat();
        Name::from_wire(&wire).unwrap_or(encloser)
    }
}

/// From the root on, which is the order of names (RFC 4034 section 6.1).
fn labels(name: &Name) -> Vec<Vec<u8>> {
    let mut rest = name.wire();
    let mut labels = Vec::new();
    while let Some((length, behind)) = rest.split_first().filter(|(length, _)| **length != 0) {
        let (label, behind) = behind.split_at(usize::from(*length));
        labels.push(label.to_ascii_lowercase());
        rest = behind;
    }
    labels.reverse();
    labels
}
