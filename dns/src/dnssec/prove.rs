//! What an answer of a signed zone carries besides its records: signatures of steered sets, and the
//! NSEC records that prove what is absent (RFC 4035 §3.1.3).
//!
//! Called by [`crate::engine`]. Where no signatures are asked for, or the zone has none, each of these
//! is one branch. Proofs are gathered while a name is followed and written at the end, for they stand
//! in the authority section.

use std::net::IpAddr;

use sealane_model::Ttl;
use smallvec::SmallVec;

use super::chain::{Denial, Link};
use super::seal::{Given, Owner, Sealed};
use super::sign::Signature;
use crate::alias::Alias;
use crate::answer::{ANY_DATA, ANY_TTL, Answer};
use crate::ede::Ede;
use crate::engine::At;
use crate::question::{LowerName, Question};
use crate::steer::{Choice, Family};
use crate::ttl::negative_ttl;
use crate::wire::{NAME_MAX, Rcode, rtype};
use crate::zone::{Node, RecordSet, Steered, Zone};

/// Too many signatures were made in this second.
#[derive(Debug)]
pub(crate) struct TooMany;

/// The proofs of one answer: two for a name that is absent, and one for each wildcard on the way.
#[derive(Default)]
pub(crate) struct Proofs<'a> {
    wanted: bool,
    found: SmallVec<[Proof<'a>; 4]>,
    made: Option<Made>,
    failed: bool,
}

struct Proof<'a> {
    link: &'a Link,
    set: &'a RecordSet,
    apex: (usize, usize),
    ttl: Ttl,
}

/// A proof that was signed for this answer.
struct Made {
    owner: SmallVec<[u8; NAME_MAX]>,
    apex: (usize, usize),
    data: Vec<u8>,
    signature: Signature,
    ttl: Ttl,
}

impl<'a> Proofs<'a> {
    pub(crate) fn wanted_by(question: &Question<'_>) -> Self {
        Self {
            wanted: question.edns.is_some_and(|edns| edns.dnssec_ok),
            ..Self::default()
        }
    }

    fn of<'z>(&self, zone: &'z Zone) -> Option<&'z Sealed> {
        zone.sealed.as_deref().filter(|_| self.wanted)
    }

    /// The name does not exist, nor a wildcard for it (§3.1.3.2).
    pub(crate) fn no_name(
        &mut self,
        zone: &'a Zone,
        name: &LowerName,
        encloser: &Node,
        answer: &mut Answer<'_, '_>,
    ) {
        let Some(sealed) = self.of(zone) else {
            return;
        };
        let ttl = negative_ttl(zone, None);
        if sealed.denial == Denial::Compact {
            // The name is said to exist without any data (RFC 9824 §3.1).
            answer.rcode = Rcode::NoError;
            self.make(zone, sealed, name.wire(), &[rtype::NXNAME], ttl, answer);
            return;
        }
        self.add(zone, sealed.chain.at(name.wire()), None, ttl, answer);
        let wildcard = wildcard_at(name.wire(), usize::from(encloser.name_length));
        self.add(zone, sealed.chain.at(&wildcard), None, ttl, answer);
    }

    /// The name exists, and has no record of this type (§3.1.3.1, and §3.1.3.4 for a wildcard).
    pub(crate) fn no_data(
        &mut self,
        at: &At<'a, '_>,
        rtype: u16,
        ttl: Option<Ttl>,
        answer: &mut Answer<'_, '_>,
    ) {
        let Some(sealed) = self.of(at.zone) else {
            return;
        };
        let ttl = ttl.unwrap_or_else(|| negative_ttl(at.zone, None));
        // A name that is an alias most of the time must not be called one now: a CNAME would be the answer
        // to any question (RFC 6840 §4.3).
        let steered = at.node.steered.as_ref();
        let is_alias = steered.is_some_and(|steered| !steered.hosts.is_empty());
        let lacking = if is_alias { rtype::CNAME } else { rtype };
        if at.expanded && sealed.denial == Denial::Compact {
            let mut types = at.node.types();
            types.retain(|kind| *kind != lacking);
            self.make(at.zone, sealed, at.name.wire(), &types, ttl, answer);
            return;
        }
        if at.expanded {
            let above = usize::from(at.node.name_length).saturating_sub(2);
            let wildcard = wildcard_at(at.name.wire(), above);
            let link = sealed.chain.of(&wildcard);
            self.add(at.zone, link, Some(lacking), ttl, answer);
        }
        let link = sealed.chain.at(at.name.wire());
        self.add(at.zone, link, Some(lacking), ttl, answer);
    }

    /// A delegation that is not signed.
    pub(crate) fn no_signer(
        &mut self,
        zone: &'a Zone,
        name: &LowerName,
        answer: &mut Answer<'_, '_>,
    ) {
        if let Some(sealed) = self.of(zone) {
            let ttl = negative_ttl(zone, None);
            self.add(zone, sealed.chain.of(name.wire()), None, ttl, answer);
        }
    }

    /// The answer comes from a wildcard: nothing closer exists (§3.1.3.3).
    pub(crate) fn expanded(&mut self, at: &At<'a, '_>, answer: &mut Answer<'_, '_>) {
        if at.expanded
            && let Some(sealed) = self.of(at.zone)
            && sealed.denial == Denial::Nsec
        {
            let ttl = negative_ttl(at.zone, None);
            self.add(at.zone, sealed.chain.at(at.name.wire()), None, ttl, answer);
        }
    }

    /// With compact denial a wildcard's set is signed for the very name in question (RFC 9824 §3.4):
    /// then nothing closer needs to be denied.
    pub(crate) fn as_expanded(&mut self, at: &At<'a, '_>, set: &RecordSet) -> Option<RecordSet> {
        if !at.expanded {
            return None;
        }
        let sealed = self
            .of(at.zone)
            .filter(|sealed| sealed.denial == Denial::Compact)?;
        let expanded = sealed.expanded(at.name.wire(), set);
        self.failed |= expanded.is_none();
        expanded
    }

    /// Whether a delegation is signed (§3.1.4): its DS records, or the proof that there are none.
    pub(crate) fn security(
        &self,
        zone: &'a Zone,
        cut: &'a Node,
        name: &[u8],
    ) -> Option<&'a RecordSet> {
        let sealed = self.of(zone)?;
        let owner = &name[name.len().checked_sub(usize::from(cut.name_length))?..];
        let link = || sealed.chain.of(owner).map(|link| &link.nsec);
        cut.set(rtype::DS).or_else(link)
    }

    /// The signature of a steered set; `None` where none is wanted.
    pub(crate) fn addresses(
        &self,
        at: &At<'a, '_>,
        steered: &Steered,
        family: Family,
        choice: &Choice,
    ) -> Result<Option<Given<'a>>, TooMany> {
        self.of_owner(at, steered.owner(), |sealed, owner, keep| {
            sealed.addresses(owner, family.rtype(), &choice.addresses, keep)
        })
    }

    /// The signature of what an alias leads to; `None` where none is wanted.
    pub(crate) fn alias(
        &self,
        at: &At<'a, '_>,
        alias: &Alias,
        family: Family,
        addresses: &[IpAddr],
    ) -> Result<Option<Given<'a>>, TooMany> {
        self.of_owner(at, alias.owner(), |sealed, owner, keep| {
            sealed.addresses(owner, family.rtype(), addresses, keep)
        })
    }

    /// The signature of a steered set of one record; `None` where none is wanted.
    pub(crate) fn single(
        &self,
        at: &At<'a, '_>,
        steered: &Steered,
        rtype: u16,
        data: &[u8],
    ) -> Result<Option<Given<'a>>, TooMany> {
        self.of_owner(at, steered.owner(), |sealed, owner, keep| {
            sealed.single(owner, rtype, data, keep)
        })
    }

    /// What `sign` gives, told the owner, and whether the signature is kept: one that is made for the very name in
    /// question, as compact denial wants it under a wildcard, is not.
    fn of_owner(
        &self,
        at: &At<'a, '_>,
        owner: Owner<'_>,
        sign: impl FnOnce(&'a Sealed, Owner<'_>, bool) -> Option<Given<'a>>,
    ) -> Result<Option<Given<'a>>, TooMany> {
        let Some(sealed) = self.of(at.zone) else {
            return Ok(None);
        };
        let is_own = !at.expanded || sealed.denial == Denial::Nsec;
        let owner = Owner {
            name: if is_own { owner.name } else { at.name.wire() },
            ttl: owner.ttl,
        };
        sign(sealed, owner, is_own).map(Some).ok_or(TooMany)
    }

    /// Answers ANY by one set and its signature, which RFC 8482 §4.1 allows: its HINFO would have to
    /// be signed. Whether it did.
    pub(crate) fn any(&mut self, at: &At<'a, '_>, answer: &mut Answer<'_, '_>) -> bool {
        let Some(sealed) = self.of(at.zone) else {
            return false;
        };
        let link = || sealed.chain.of(at.name.wire()).map(|link| &link.nsec);
        let Some(set) = at.node.first_signed().or_else(link) else {
            return self.any_made(at, answer);
        };
        let expanded = self.as_expanded(at, set);
        answer.records(expanded.as_ref().unwrap_or(set));
        self.expanded(at, answer);
        true
    }

    /// The same where a wildcard has nothing but what is made for each question: RFC 8482's HINFO, signed.
    fn any_made(&mut self, at: &At<'a, '_>, answer: &mut Answer<'_, '_>) -> bool {
        let wildcard;
        let name = if at.expanded {
            let above = usize::from(at.node.name_length).saturating_sub(2);
            wildcard = wildcard_at(at.name.wire(), above);
            &*wildcard
        } else {
            at.name.wire()
        };
        let owner = Owner { name, ttl: ANY_TTL };
        let signature = self.of_owner(at, owner, |sealed, owner, keep| {
            sealed.single(owner, rtype::HINFO, ANY_DATA, keep)
        });
        match signature {
            Ok(None) => return false,
            Ok(Some(signature)) => {
                answer.single(rtype::HINFO, ANY_TTL, ANY_DATA, Some(signature.as_ref()));
                self.expanded(at, answer);
            }
            Err(TooMany) => answer.fail(Ede::UNSIGNED),
        }
        true
    }

    fn add(
        &mut self,
        zone: &Zone,
        link: Option<&'a Link>,
        lacking: Option<u16>,
        ttl: Ttl,
        answer: &Answer<'_, '_>,
    ) {
        let Some(link) = link else {
            return;
        };
        let set = match lacking {
            Some(rtype) => link.lacking(rtype),
            None => &link.nsec,
        };
        // One record often proves both that a name and that a wildcard for it is absent.
        if self
            .found
            .iter()
            .any(|proof| std::ptr::eq(proof.link, link))
        {
            return;
        }
        self.found.push(Proof {
            link,
            set,
            apex: (answer.apex_at(zone), zone.apex.wire().len()),
            ttl,
        });
    }

    fn make(
        &mut self,
        zone: &Zone,
        sealed: &Sealed,
        owner: &[u8],
        types: &[u16],
        ttl: Ttl,
        answer: &Answer<'_, '_>,
    ) {
        let Some((data, signature)) = sealed.compact(owner, types, zone.negative_ttl) else {
            self.failed = true;
            return;
        };
        self.made = Some(Made {
            owner: SmallVec::from_slice(owner),
            apex: (answer.apex_at(zone), zone.apex.wire().len()),
            data,
            signature,
            ttl,
        });
    }

    pub(crate) fn write(&self, answer: &mut Answer<'_, '_>) {
        if self.failed {
            answer.fail_whole(Ede::UNSIGNED);
            return;
        }
        for proof in &self.found {
            let data = proof.set.wire.get(12..).unwrap_or_default();
            let signature = proof.set.signature.as_deref();
            let owner = proof.link.owner.wire();
            answer.proof(owner, proof.apex, data, signature, proof.ttl);
        }
        if let Some(made) = &self.made {
            let signature = Some(&made.signature);
            answer.proof(&made.owner, made.apex, &made.data, signature, made.ttl);
        }
    }
}

/// Answers a question for RRSIG or NSEC themselves, whether or not signatures are wanted. Whether it
/// did.
pub(crate) fn own(at: &At<'_, '_>, kind: u16, answer: &mut Answer<'_, '_>) -> bool {
    let Some(sealed) = &at.zone.sealed else {
        return false;
    };
    let link = sealed.chain.of(at.name.wire());
    match (kind, link) {
        (rtype::NSEC, Some(link)) => answer.records(&link.nsec),
        // Those of one set: the least that answers (RFC 8482 §7).
        (rtype::RRSIG, link) => {
            let nsec = || link.map(|link| &link.nsec);
            let set = at.node.first_signed().or_else(nsec);
            let Some(signature) = set.and_then(|set| set.signature.as_ref()) else {
                return false;
            };
            answer.signature_alone(signature);
        }
        _ => return false,
    }
    true
}

/// The wildcard right below the last `length` octets of `name`.
fn wildcard_at(name: &[u8], length: usize) -> SmallVec<[u8; NAME_MAX]> {
    let mut wildcard = SmallVec::from_slice(b"\x01*");
    let above = name.len().saturating_sub(length);
    wildcard.extend_from_slice(&name[above..]);
    wildcard
}
