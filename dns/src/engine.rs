//! One question in, one answer out. **Start reading here.**
//!
//! Every transport calls [`answer`]. Pure: the answer depends on the message, who sent it, the
//! rules and the world. Sends nothing, waits for nothing, allocates nothing. A transport that keeps a
//! [`Memory`] calls [`answer_with`], which answers the same.

use std::net::IpAddr;

use sealane_model::{RegionId, Snapshot};
use sealane_steering::Reason;

use crate::answer::{Answer, Written, refuse};
use crate::lookup::{Found, find};
use crate::memory::Choices;
use crate::name::Name;
use crate::question::{Head, LowerName, Question, Refusal, Rejected};
use crate::steer::{Family, Outcome, choose, place};
use crate::ttl::negative_ttl;
use crate::wire::{HEADER_LEN, Rcode, rtype};
use crate::zone::{Node, RecordSet, Steered, Zone};

pub use crate::answer::{STREAM_SIZE_MAX, Transport, UDP_SIZE_MAX};
pub use crate::memory::Memory;
pub use crate::rules::Rules;

/// CNAMEs followed for one question. When a chain is longer, or a ring, the answer ends there and
/// the resolver may ask on.
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteeredTo {
    /// `None` when the addresses are no region's.
    pub region: Option<RegionId>,
    pub reason: Reason,
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
    reply(message, source, transport, (rules, world), None, out)
}

/// The same by the rules and the world of `memory`, and faster for clients like those before.
#[must_use]
pub fn answer_with(
    memory: &mut Memory,
    message: &[u8],
    source: IpAddr,
    transport: Transport,
    out: &mut [u8],
) -> Option<Answered> {
    let by = (&*memory.rules, &*memory.world);
    let choices = Some(&mut memory.choices);
    reply(message, source, transport, by, choices, out)
}

fn reply(
    message: &[u8],
    source: IpAddr,
    transport: Transport,
    (rules, world): (&Rules, &Snapshot),
    choices: Option<&mut Choices>,
    out: &mut [u8],
) -> Option<Answered> {
    let question = match Question::parse(message) {
        Ok(question) => question,
        Err(rejected) => return Some(answered(refuse(&rejected, out)?, false, None)),
    };
    let mut answer = Answer::begin(&question, transport, out)?;
    let steered = Asked {
        question: &question,
        source,
        rules,
        world,
        choices,
    }
    .resolve(&mut answer);
    let subnet = question.edns.and_then(|edns| edns.client_subnet);
    Some(answered(answer.finish(), subnet.is_some(), steered))
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
            checking_disabled: header[3] & 0x10 != 0,
        }),
        section: None,
        edns: None,
    };
    Some(answered(refuse(&rejected, out)?, false, None))
}

const fn answered(written: Written, client_subnet: bool, steered: Option<SteeredTo>) -> Answered {
    Answered {
        length: written.length,
        rcode: written.rcode,
        truncated: written.truncated,
        client_subnet,
        steered,
    }
}

/// A question with everything that its answer depends on.
struct Asked<'a, 'm> {
    question: &'a Question<'m>,
    source: IpAddr,
    rules: &'a Rules,
    world: &'a Snapshot,
    /// Where choices are remembered, if anywhere.
    choices: Option<&'a mut Choices>,
}

impl Asked<'_, '_> {
    /// Looks the name up, and what it is an alias of, until there is something to say.
    fn resolve(mut self, answer: &mut Answer<'_, '_>) -> Option<SteeredTo> {
        let rules = self.rules;
        let mut alias: Option<LowerName> = None;
        for hop in 0..=CHAIN_MAX {
            let name = alias.as_ref().unwrap_or(&self.question.name);
            let is_first = hop == 0;
            match find(&rules.table, name) {
                Found::Name { zone, node } => match self.at_name(zone, node, answer) {
                    Step::Done(steered) => return steered,
                    Step::Alias(target) => alias = LowerName::from_wire(target.wire()),
                },
                Found::NoName { zone } => {
                    answer.rcode = Rcode::NxDomain;
                    answer.negative(zone, negative_ttl(zone, None));
                    return None;
                }
                Found::Delegation { zone, cut } if is_first => {
                    self.delegated(zone, cut, answer);
                    return None;
                }
                Found::NotOurs if is_first => {
                    answer.rcode = Rcode::Refused;
                    answer.authoritative = false;
                    return None;
                }
                // The chain has left what we answer for; the resolver asks on by itself.
                Found::Delegation { .. } | Found::NotOurs => return None,
            }
        }
        None
    }

    fn at_name<'t>(
        &mut self,
        zone: &Zone,
        node: &'t Node,
        answer: &mut Answer<'_, '_>,
    ) -> Step<'t> {
        let rtype = self.question.rtype;
        if let Some(steered) = &node.steered
            && let Some(family) = family(rtype)
        {
            return Step::Done(self.steered(zone, steered, family, answer));
        }
        if let Some(set) = node.set(rtype) {
            answer.records(set);
            return Step::Done(None);
        }
        if let Some((set, target)) = alias(node) {
            answer.alias(set, target);
            return match rtype {
                rtype::ANY => Step::Done(None),
                _ => Step::Alias(target),
            };
        }
        if rtype == rtype::ANY && !node.is_empty() {
            answer.any();
            return Step::Done(None);
        }
        // A child's DS is its parent's to tell (RFC 4035 §3.1.4.1).
        let above = zone.parent.filter(|_| node.is_apex && rtype == rtype::DS);
        let zone = above
            .and_then(|above| self.rules.table.zone(above))
            .unwrap_or(zone);
        answer.negative(zone, negative_ttl(zone, None));
        Step::Done(None)
    }

    fn steered(
        &mut self,
        zone: &Zone,
        steered: &Steered,
        family: Family,
        answer: &mut Answer<'_, '_>,
    ) -> Option<SteeredTo> {
        let subnet = self.question.edns.as_ref();
        let subnet = subnet.and_then(|edns| edns.client_subnet.as_ref());
        let placed = place(
            steered.ignore_client_subnet,
            subnet,
            self.source,
            &self.rules.geo,
        );
        let choice = match &mut self.choices {
            Some(choices) => choices.choose(steered, family, &placed.place, self.world),
            None => choose(steered, family, &placed.place, self.world),
        };
        answer.scope = placed.answered_scope(choice.scope);
        match choice.outcome {
            Outcome::Addresses => answer.addresses(&choice.addresses, choice.ttl),
            Outcome::NoData => answer.negative(zone, negative_ttl(zone, Some(choice.ttl))),
            Outcome::NotKnown => {
                answer.rcode = Rcode::ServFail;
                answer.authoritative = false;
            }
        }
        Some(SteeredTo {
            region: choice.region,
            reason: choice.reason,
        })
    }

    fn delegated(&self, zone: &Zone, cut: &Node, answer: &mut Answer<'_, '_>) {
        let is_cut_itself = self.question.name.wire().len() == usize::from(cut.name_length);
        match cut.set(rtype::NS) {
            // What signs a delegation is the parent's to tell, and we sign none.
            Some(_) if is_cut_itself && self.question.rtype == rtype::DS => {
                answer.negative(zone, negative_ttl(zone, None));
            }
            Some(servers) => answer.referral(cut, servers),
            None => answer.rcode = Rcode::ServFail,
        }
    }
}

enum Step<'t> {
    Done(Option<SteeredTo>),
    /// Go on with this name.
    Alias(&'t Name),
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
