//! One question in, one answer out. **Start reading here.**
//!
//! Every transport calls [`answer`]. Pure: the answer depends on the message, who sent it, the
//! rules and the world. Sends nothing, waits for nothing, allocates nothing. A transport that keeps a
//! [`Memory`] calls [`answer_with`], which answers the same.

use std::net::IpAddr;

use sealane_model::{RegionId, Snapshot};
use sealane_steering::Reason;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::alias::{self, Alias};
use crate::answer::{Answer, Told, Written, refuse};
use crate::chaos;
use crate::cookie::{self, Baker, COOKIE_LEN, Proof};
use crate::dnssec::prove::{self as dnssec, Proofs};
use crate::ede::Ede;
use crate::limit::Said;
use crate::lookup::{Found, find};
use crate::memory::Choices;
use crate::name::{Name, parent};
use crate::question::{Head, LowerName, Question, Refusal, Rejected};
use crate::service::Service;
use crate::steer::{Choice, Family, Outcome, Placed, choose, choose_host, place};
use crate::ttl::negative_ttl;
use crate::wire::{CLASS_CH, HEADER_LEN, Rcode, rtype};
use crate::zone::{Node, RecordSet, Steered, Zone};

pub use crate::answer::{STREAM_SIZE_MAX, Transport, UDP_SIZE_MAX};
pub use crate::memory::Memory;
pub use crate::rules::Rules;

/// CNAMEs followed for one question. When a chain is longer, the answer ends there and the resolver
/// may ask on.
pub const CHAIN_MAX: usize = 8;

/// What was answered, for those who count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Octets written.
    pub length: usize,
    pub rcode: Rcode,
    pub truncated: bool,
    /// The question told its client's subnet.
    pub client_subnet: bool,
    pub steered: Option<SteeredTo>,
    /// What the client's cookie proves.
    pub proof: Proof,
    /// What the answer is about, for who limits how many there are.
    pub said: Said,
    /// The zone that the name in question is in, by its number in the rules.
    pub zone: Option<u32>,
}

impl Answered {
    /// One that is about a transfer.
    pub(crate) const fn plain(length: usize, rcode: Rcode) -> Self {
        answered(Written {
            length,
            rcode,
            truncated: false,
        })
    }
}

/// Who asks, and over what.
#[derive(Clone, Copy, Debug)]
pub struct Client<'s> {
    pub address: IpAddr,
    pub transport: Transport,
    /// What makes and judges cookies; `None`: there are none.
    pub cookies: Option<Baker<'s>>,
    /// In seconds since 1970 (cut to 32 bits): what was learned of other names grows old.
    pub now: u32,
}

impl Client<'_> {
    /// The cookie for the answer, and what the question's proves.
    fn bake(&self, asked: Option<&cookie::Asked<'_>>) -> (Option<[u8; COOKIE_LEN]>, Proof) {
        let baked = self
            .cookies
            .and_then(|baker| baker.bake(asked?, self.address));
        match baked {
            Some((cookie, proof)) => (Some(cookie), proof),
            None => (None, Proof::Silent),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteeredTo {
    /// `None` when the addresses are no region's.
    pub region: Option<RegionId>,
    pub reason: Reason,
    /// By the name's canary.
    pub canary: bool,
}

/// Answers one message. `None` when nothing is to be sent back.
///
/// `out` must hold at least [`UDP_SIZE_MAX`] octets for datagrams and should hold
/// [`STREAM_SIZE_MAX`] for streams.
#[must_use]
pub fn answer(
    message: &[u8],
    source: IpAddr,
    transport: Transport,
    rules: &Rules,
    world: &Snapshot,
    out: &mut [u8],
) -> Option<Answered> {
    let client = Client {
        address: source,
        transport,
        cookies: None,
        now: 0,
    };
    answer_to(client, message, rules, world, out)
}

/// The same for a client that may have cookies.
#[must_use]
pub fn answer_to(
    client: Client<'_>,
    message: &[u8],
    rules: &Rules,
    world: &Snapshot,
    out: &mut [u8],
) -> Option<Answered> {
    reply(message, client, (rules, world), None, out)
}

/// The same by the rules, the world and the time of `memory`, and faster for clients like those before.
#[must_use]
pub fn answer_with(
    memory: &mut Memory,
    message: &[u8],
    source: IpAddr,
    transport: Transport,
    out: &mut [u8],
) -> Option<Answered> {
    let by = (&*memory.rules, &*memory.world);
    let client = Client {
        address: source,
        transport,
        cookies: memory.rules.cookies(memory.now),
        now: memory.now,
    };
    let choices = Some(&mut memory.choices);
    reply(message, client, by, choices, out)
}

fn reply(
    message: &[u8],
    client: Client<'_>,
    (rules, world): (&Rules, &Snapshot),
    choices: Option<&mut Choices>,
    out: &mut [u8],
) -> Option<Answered> {
    let mut question = Question::EMPTY;
    if let Err(rejected) = question.read(message) {
        return refused(&rejected, client, out);
    }
    let asked = question.edns.as_ref().and_then(|edns| edns.cookie.as_ref());
    let (cookie, proof) = client.bake(asked);
    let told = Told::to(&question, client.transport, cookie, rules);
    let mut answer = Answer::begin(&question, client.transport, told, out)?;
    if question.class == CLASS_CH {
        chaos::resolve(&question, &rules.identity, &mut answer);
        return Some(Answered {
            proof,
            ..answered(answer.finish())
        });
    }
    let mut asked = Asked {
        question: &question,
        source: client.address,
        now: client.now,
        rules,
        world,
        choices,
        proofs: Proofs::wanted_by(&question),
        said: Said::Error,
        zone: None,
    };
    let steered = asked.resolve(&mut answer);
    let (said, zone) = (asked.said, asked.zone);
    let edns = question.edns.as_ref();
    let client_subnet = edns.is_some_and(|edns| edns.client_subnet.is_some());
    let written = answer.finish();
    Some(Answered {
        client_subnet,
        steered,
        proof,
        said,
        zone,
        ..answered(written)
    })
}

fn refused(rejected: &Rejected<'_>, client: Client<'_>, out: &mut [u8]) -> Option<Answered> {
    let (cookie, proof) = client.bake(rejected.cookie.as_ref());
    let written = refuse(rejected, cookie, out)?;
    Some(Answered {
        proof,
        ..answered(written)
    })
}

/// Instead of an answer that would be one too many for its network: the asker comes back by TCP, or, if it knows
/// cookies, with the one that is in here (RFC 7873 §5.2.3).
#[must_use]
pub fn answer_short(client: Client<'_>, message: &[u8], out: &mut [u8]) -> Option<Answered> {
    let question = Question::parse(message).ok()?;
    let asked = question.edns.as_ref().and_then(|edns| edns.cookie.as_ref());
    let (cookie, proof) = client.bake(asked);
    let told = Told::cookie(cookie);
    let mut answer = Answer::begin(&question, client.transport, told, out)?;
    match proof {
        Proof::Asks => answer.rcode = Rcode::BadCookie,
        _ => answer.shorten(),
    }
    answer.authoritative = false;
    Some(Answered {
        proof,
        ..answered(answer.finish())
    })
}

/// The answer to a message of which only the beginning was received: no question is that long.
#[must_use]
pub fn answer_cut_short(message: &[u8], out: &mut [u8]) -> Option<Answered> {
    let header: &[u8; HEADER_LEN] = message.first_chunk()?;
    if header[2] & 0x80 != 0 {
        return None;
    }
    let rejected = Rejected {
        refusal: Refusal::CutShort,
        head: Some(Head {
            id: [header[0], header[1]],
            opcode: header[2] >> 3 & 0x0f,
            recursion_desired: header[2] & 0x01 != 0,
        }),
        section: None,
        edns: None,
        cookie: None,
    };
    Some(answered(refuse(&rejected, None, out)?))
}

const fn answered(written: Written) -> Answered {
    Answered {
        length: written.length,
        rcode: written.rcode,
        truncated: written.truncated,
        client_subnet: false,
        steered: None,
        proof: Proof::Silent,
        said: Said::Error,
        zone: None,
    }
}

/// A question with everything that its answer depends on.
struct Asked<'a, 'm> {
    question: &'a Question<'m>,
    source: IpAddr,
    now: u32,
    rules: &'a Rules,
    world: &'a Snapshot,
    /// Where choices are remembered, if anywhere.
    choices: Option<&'a mut Choices>,
    /// What signed zones prove along the way.
    proofs: Proofs<'a>,
    /// Of the name in question.
    said: Said,
    zone: Option<u32>,
}

impl<'a> Asked<'a, '_> {
    fn resolve(&mut self, answer: &mut Answer<'_, '_>) -> Option<SteeredTo> {
        let steered = self.follow(answer);
        self.proofs.write(answer);
        steered
    }

    /// Looks the name up, and what it is an alias of, until there is something to say.
    fn follow(&mut self, answer: &mut Answer<'_, '_>) -> Option<SteeredTo> {
        let rules = self.rules;
        // The names after the first.
        let mut trail: SmallVec<[LowerName; CHAIN_MAX]> = SmallVec::new();
        let mut steered = None;
        for hop in 0..=CHAIN_MAX {
            let name = trail.last().unwrap_or(&self.question.name);
            let is_first = hop == 0;
            match find(&rules.table, name) {
                Found::Name { zone, .. } | Found::NoName { zone, .. } if zone.is_void => {
                    answer.fail(Ede::NO_COPY);
                    return steered;
                }
                Found::Name {
                    zone,
                    node,
                    expanded,
                } => {
                    if is_first {
                        self.said = about(node, name, expanded);
                        self.zone = Some(node.zone);
                    }
                    let at = At {
                        zone,
                        node,
                        name,
                        expanded,
                    };
                    let target = match self.at_name(&at, answer) {
                        Step::Done(to) => return to.or(steered),
                        Step::Alias(target) => target,
                        Step::Chosen(target, to) => {
                            steered = steered.or(to);
                            target
                        }
                    };
                    match LowerName::from_wire(target.wire()) {
                        Some(target) if !self.was_at(&target, &trail) => trail.push(target),
                        _ => return steered,
                    }
                }
                Found::Moved { node, .. } => {
                    if is_first {
                        self.said = about(node, name, false);
                        self.zone = Some(node.zone);
                    }
                    let is_told = !is_first && self.was_moved(node, name, &trail);
                    match moved(name, node, is_told, answer) {
                        // The CNAME that was made is itself what was asked for.
                        Some(_) if matches!(self.question.rtype, rtype::CNAME | rtype::ANY) => {
                            return steered;
                        }
                        Some(target) if !self.was_at(&target, &trail) => trail.push(target),
                        _ => return steered,
                    }
                }
                Found::NoName { zone, encloser } => {
                    if is_first {
                        self.said = Said::NoName;
                        self.zone = Some(encloser.zone);
                    }
                    answer.rcode = Rcode::NxDomain;
                    answer.negative(zone, negative_ttl(zone, None));
                    self.proofs.no_name(zone, name, encloser, answer);
                    return steered;
                }
                Found::Delegation { zone, cut } if is_first => {
                    self.said = Said::Referral;
                    self.zone = Some(cut.zone);
                    self.delegated(zone, cut, answer);
                    return steered;
                }
                Found::NotOurs if is_first => {
                    answer.rcode = Rcode::Refused;
                    answer.authoritative = false;
                    answer.ede = Some(Ede::NOT_AUTHORITATIVE);
                    return steered;
                }
                // The chain has left what we answer for; the resolver asks on by itself.
                Found::Delegation { .. } | Found::NotOurs => return steered,
            }
        }
        steered
    }

    /// Names in a ring have been answered already, and no record is in an answer twice (RFC 2181 §5).
    fn was_at(&self, target: &LowerName, trail: &[LowerName]) -> bool {
        let mut names = trail.iter().chain([&self.question.name]);
        names.any(|name| name.wire() == target.wire())
    }

    /// Has a name before the last been moved by the DNAME of this node, too?
    fn was_moved(&self, node: &Node, name: &LowerName, trail: &[LowerName]) -> bool {
        let before = trail.split_last().map_or(trail, |(_, before)| before);
        let mut names = before.iter().chain([&self.question.name]);
        names.any(|earlier| is_moved_by(earlier, name, node))
    }

    fn at_name(&mut self, at: &At<'a, '_>, answer: &mut Answer<'_, '_>) -> Step<'a> {
        let rtype = self.question.rtype;
        let node = at.node;
        if let Some(steered) = &node.steered
            && let Some(step) = self.at_steered(at, steered, answer)
        {
            return step;
        }
        if let Some(alias) = &node.alias
            && let Some(family) = family(rtype)
        {
            self.at_alias(at, alias, family, answer);
            return Step::Done(None);
        }
        if let Some(set) = node.set(rtype) {
            let expanded = self.proofs.as_expanded(at, set);
            answer.records(expanded.as_ref().unwrap_or(set));
            self.proofs.expanded(at, answer);
            return Step::Done(None);
        }
        // Those may stand beside a CNAME (RFC 4035 §2.5).
        if matches!(rtype, rtype::RRSIG | rtype::NSEC) && dnssec::own(at, rtype, answer) {
            return Step::Done(None);
        }
        if let Some((set, target)) = alias(node) {
            self.proofs.expanded(at, answer);
            let expanded = self.proofs.as_expanded(at, set);
            answer.alias(expanded.as_ref().unwrap_or(set), target);
            return match rtype {
                rtype::ANY => Step::Done(None),
                _ => Step::Alias(target),
            };
        }
        if rtype == rtype::ANY && !node.is_empty() {
            if !self.proofs.any(at, answer) {
                answer.any();
            }
            return Step::Done(None);
        }
        // A child's DS is its parent's to tell (RFC 4035 §3.1.4.1).
        let above = at
            .zone
            .parent
            .filter(|_| node.is_apex && rtype == rtype::DS);
        match above.and_then(|above| self.rules.table.zone(above)) {
            Some(above) => self.delegation_signer(above, at.name, answer),
            None => {
                answer.negative(at.zone, negative_ttl(at.zone, None));
                self.proofs.no_data(at, rtype, None, answer);
            }
        }
        Step::Done(None)
    }

    /// What the parent of a zone of ours says of its DS.
    fn delegation_signer(
        &mut self,
        above: &'a Zone,
        name: &LowerName,
        answer: &mut Answer<'_, '_>,
    ) {
        let link = above
            .sealed
            .as_ref()
            .and_then(|sealed| sealed.chain.of(name.wire()));
        if let Some(ds) = link.and_then(|link| link.ds.as_ref()) {
            answer.records(ds);
            return;
        }
        answer.negative(above, negative_ttl(above, None));
        self.proofs.no_signer(above, name, answer);
    }

    /// `None`: the type is not one of those that are steered.
    fn at_steered(
        &mut self,
        at: &At<'a, '_>,
        steered: &'a Steered,
        answer: &mut Answer<'_, '_>,
    ) -> Option<Step<'a>> {
        let rtype = self.question.rtype;
        if !steered.hosts.is_empty() {
            return Some(self.steered_host(at, steered, answer));
        }
        if let Some(family) = family(rtype) {
            return Some(Step::Done(self.steered(at, steered, family, answer)));
        }
        let service = steered.https.as_ref().filter(|_| rtype == rtype::HTTPS)?;
        Some(Step::Done(
            self.steered_service(at, steered, service, answer),
        ))
    }

    /// A CNAME of the chosen region's host.
    fn steered_host(
        &mut self,
        at: &At<'a, '_>,
        steered: &'a Steered,
        answer: &mut Answer<'_, '_>,
    ) -> Step<'a> {
        let rtype = self.question.rtype;
        let placed = self.placed(steered);
        let family = family(rtype).unwrap_or(Family::V4);
        let choice = choose_host(steered, family, &placed.place, self.world);
        let to = Some(choice.fallback.steered_to());
        answer.steer(&placed, &choice.fallback);
        let Some(host) = choice.host else {
            return Step::Done(self.give(at, steered, rtype, &choice.fallback, answer));
        };
        let signature = match self.proofs.single(at, steered, rtype::CNAME, host.wire()) {
            Ok(signature) => signature,
            Err(dnssec::TooMany) => {
                answer.fail(Ede::UNSIGNED);
                return Step::Done(to);
            }
        };
        let signature = signature.as_ref().map(AsRef::as_ref);
        answer.alias_chosen(host, choice.fallback.ttl, signature);
        self.proofs.expanded(at, answer);
        match rtype {
            rtype::CNAME | rtype::ANY => Step::Done(to),
            _ => Step::Chosen(host, to),
        }
    }

    /// An HTTPS record with the chosen addresses as its hints.
    fn steered_service(
        &mut self,
        at: &At<'a, '_>,
        steered: &Steered,
        service: &Service,
        answer: &mut Answer<'_, '_>,
    ) -> Option<SteeredTo> {
        let placed = self.placed(steered);
        let v4 = self.choice(steered, Family::V4, &placed);
        let v6 = self.choice(steered, Family::V6, &placed);
        // The better answer says who serves; both say for whom.
        let (mut one, other) = match v4.outcome {
            Outcome::Addresses => (v4.clone(), &v6),
            _ => (v6.clone(), &v4),
        };
        one.scope = one.scope.max(other.scope);
        if one.outcome != Outcome::Addresses {
            return self.give(at, steered, rtype::HTTPS, &one, answer);
        }
        answer.steer(&placed, &one);
        let data = service.data(&v4.addresses, &v6.addresses);
        match self.proofs.single(at, steered, rtype::HTTPS, &data) {
            Ok(signature) => {
                let signature = signature.as_ref().map(AsRef::as_ref);
                answer.single(rtype::HTTPS, one.ttl, &data, signature);
                self.proofs.expanded(at, answer);
            }
            Err(dnssec::TooMany) => answer.fail(Ede::UNSIGNED),
        }
        Some(one.steered_to())
    }

    fn placed(&self, steered: &Steered) -> Placed {
        let subnet = self.question.edns.as_ref();
        let subnet = subnet.and_then(|edns| edns.client_subnet.as_ref());
        place(
            steered.ignore_client_subnet,
            subnet,
            self.source,
            &self.rules.geo,
        )
    }

    fn choice(&mut self, steered: &Steered, family: Family, placed: &Placed) -> Choice {
        match &mut self.choices {
            Some(choices) => choices.choose(steered, family, &placed.place, self.world),
            None => choose(steered, family, &placed.place, self.world),
        }
    }

    fn steered(
        &mut self,
        at: &At<'a, '_>,
        steered: &Steered,
        family: Family,
        answer: &mut Answer<'_, '_>,
    ) -> Option<SteeredTo> {
        let placed = self.placed(steered);
        let choice = self.choice(steered, family, &placed);
        answer.steer(&placed, &choice);
        self.give(at, steered, family.rtype(), &choice, answer)
    }

    /// Another name's addresses, as far as they are known.
    fn at_alias(
        &mut self,
        at: &At<'a, '_>,
        alias: &Alias,
        family: Family,
        answer: &mut Answer<'_, '_>,
    ) {
        let known = alias.source.known();
        match known.told(family, alias.ttl, self.now) {
            alias::Told::Addresses {
                addresses,
                ttl,
                stale,
            } => match self.proofs.alias(at, alias, family, addresses) {
                Ok(signature) => {
                    answer.addresses(addresses, ttl);
                    answer.ede = stale.then_some(Ede::STALE);
                    if let Some(signature) = signature {
                        answer.addresses_signature(signature.as_ref(), ttl);
                        self.proofs.expanded(at, answer);
                    }
                }
                Err(dnssec::TooMany) => answer.fail(Ede::UNSIGNED),
            },
            alias::Told::NoData { ttl } => {
                let ttl = negative_ttl(at.zone, Some(ttl));
                answer.negative(at.zone, ttl);
                self.proofs.no_data(at, family.rtype(), Some(ttl), answer);
            }
            // Never an empty answer, which would be kept: another of the zone's servers may know.
            alias::Told::NotKnown { tried: true } => answer.fail(Ede::UNRESOLVED),
            alias::Told::NotKnown { tried: false } => answer.fail(Ede::NOT_READY),
        }
    }

    /// Addresses, or that there are none of this type.
    fn give(
        &mut self,
        at: &At<'a, '_>,
        steered: &Steered,
        rtype: u16,
        choice: &Choice,
        answer: &mut Answer<'_, '_>,
    ) -> Option<SteeredTo> {
        match (choice.outcome, family(rtype)) {
            (Outcome::Addresses, Some(family)) => {
                match self.proofs.addresses(at, steered, family, choice) {
                    Ok(signature) => {
                        answer.addresses(&choice.addresses, choice.ttl);
                        if let Some(signature) = signature {
                            answer.addresses_signature(signature.as_ref(), choice.ttl);
                            self.proofs.expanded(at, answer);
                        }
                    }
                    Err(dnssec::TooMany) => answer.fail(Ede::UNSIGNED),
                }
            }
            (Outcome::NotKnown, _) => answer.fail(Ede::NOT_READY),
            (Outcome::NoData | Outcome::Addresses, _) => {
                let ttl = negative_ttl(at.zone, Some(choice.ttl));
                answer.negative(at.zone, ttl);
                self.proofs.no_data(at, rtype, Some(ttl), answer);
            }
        }
        Some(choice.steered_to())
    }

    fn delegated(&mut self, zone: &'a Zone, cut: &'a Node, answer: &mut Answer<'_, '_>) {
        let name = self.question.name.wire();
        let is_cut_itself = name.len() == usize::from(cut.name_length);
        match cut.set(rtype::NS) {
            // What signs a delegation is the parent's to tell.
            Some(_) if is_cut_itself && self.question.rtype == rtype::DS => {
                match cut.set(rtype::DS) {
                    Some(signers) => answer.records(signers),
                    None => {
                        answer.negative(zone, negative_ttl(zone, None));
                        self.proofs.no_signer(zone, &self.question.name, answer);
                    }
                }
            }
            Some(servers) => {
                answer.referral(cut, servers, self.proofs.security(zone, cut, name));
            }
            None => answer.fail(Ede::NOT_READY),
        }
    }
}

/// A name that was found.
pub(crate) struct At<'a, 'n> {
    pub(crate) zone: &'a Zone,
    pub(crate) node: &'a Node,
    pub(crate) name: &'n LowerName,
    /// By a wildcard.
    pub(crate) expanded: bool,
}

/// What a name below a DNAME leads to. `None`: nowhere, as its new name is too long.
fn moved(
    name: &LowerName,
    node: &Node,
    is_told: bool,
    answer: &mut Answer<'_, '_>,
) -> Option<LowerName> {
    let set = node.set(rtype::DNAME)?;
    let to = set.target.as_ref()?;
    let target = name.moved(usize::from(node.name_length), to.wire());
    answer.moved(node, set, target.as_ref(), is_told);
    target
}

/// Does `one` lie below the same DNAME as `name`, whose node this is?
fn is_moved_by(one: &LowerName, name: &LowerName, node: &Node) -> bool {
    let length = usize::from(node.name_length);
    let owner = &name.wire()[name.wire().len().saturating_sub(length)..];
    let mut above = parent(one.wire());
    while let Some(rest) = above.filter(|rest| rest.len() >= length) {
        if rest == owner {
            return true;
        }
        above = parent(rest);
    }
    false
}

/// All names that a wildcard or a DNAME speaks for are one.
fn about(node: &Node, name: &LowerName, expanded: bool) -> Said {
    const WILDCARD_LABEL: usize = 2;
    let own = usize::from(node.name_length) - if expanded { WILDCARD_LABEL } else { 0 };
    let wire = name.wire();
    Said::Name(xxh3_64(&wire[wire.len().saturating_sub(own)..]))
}

enum Step<'t> {
    Done(Option<SteeredTo>),
    /// Go on with this name.
    Alias(&'t Name),
    /// Go on with this name, which was chosen.
    Chosen(&'t Name, Option<SteeredTo>),
}

const fn family(rtype: u16) -> Option<Family> {
    match rtype {
        rtype::A => Some(Family::V4),
        rtype::AAAA => Some(Family::V6),
        _ => None,
    }
}

fn alias(node: &Node) -> Option<(&RecordSet, &Name)> {
    let set = node.set(rtype::CNAME)?;
    Some((set, set.target.as_ref()?))
}

#[cfg(test)]
mod tests;
