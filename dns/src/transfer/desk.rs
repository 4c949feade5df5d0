//! BORDER. Who asks for zones or tells us of changes, and what we answer. Part of the rules, made anew with them.
//!
//! Called by transports ahead of the engine, for messages that [`Desk::concerns`]; all others are the
//! engine's, which refuses transfers that nobody configured. Sends nothing itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use domain::base::Message;
use domain::base::iana::{Class, Opcode, Rtype};
use domain::tsig::ServerSequence;

use super::book::{Book, Held};
use super::key::{Keys, TsigKey, time_signed};
use super::message::{self, Request};
use super::rules::OfZone;
use super::sending::{Sending, Turn, What};
use super::serial::is_newer;
use super::version::Version;
use crate::dnssec::timing::Moment;
use crate::name::Name;
use crate::record::Record;
use crate::wire::{HEADER_LEN, Rcode, rtype};

/// What this server has to do with transfers.
#[derive(Debug)]
pub struct Desk {
    zones: HashMap<Name, DeskZone>,
    keys: Keys,
    book: Arc<Book>,
}

/// One zone.
#[derive(Debug)]
pub(crate) struct DeskZone {
    pub(crate) rules: OfZone,
    /// What a primary gave.
    pub(crate) held: Option<Arc<Held>>,
    /// What is served now; `None`: nobody may have it, or there is nothing.
    pub(crate) version: Option<Arc<Version>>,
    /// Steered names as the version has them.
    pub(crate) snapshot: Vec<Record>,
}

/// What a message is answered with.
#[derive(Debug)]
pub enum Reply {
    /// The engine is to answer.
    NotOurs,
    Once(Vec<u8>, Rcode),
    /// Only over a stream.
    Many(Box<Sending>),
}

/// Who sent a message, and how.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub address: IpAddr,
    pub is_stream: bool,
}

impl Desk {
    pub(crate) fn new(zones: HashMap<Name, DeskZone>, book: Arc<Book>) -> Self {
        let mut keys: Vec<TsigKey> = Vec::new();
        for zone in zones.values() {
            let outgoing = zone.rules.outgoing.iter().flat_map(|rules| &rules.keys);
            let secondary = zone.rules.secondary.iter().flat_map(|rules| &rules.key);
            for key in outgoing.chain(secondary) {
                if !keys.contains(key) {
                    keys.push(key.clone());
                }
            }
        }
        Self {
            zones,
            keys: Keys(keys),
            book,
        }
    }

    pub(crate) fn zones(&self) -> impl Iterator<Item = (&Name, &DeskZone)> {
        self.zones.iter()
    }

    pub(crate) fn zone(&self, apex: &Name) -> Option<&DeskZone> {
        self.zones.get(apex)
    }

    /// May somebody at this address be one whom a zone is transferred to, or a primary?
    #[must_use]
    pub fn knows(&self, address: IpAddr) -> bool {
        self.zones.values().any(|zone| zone.rules.knows(address))
    }

    /// May this message be one of those that are answered here? Cheap, and sometimes mistaken: then the reply
    /// is [`Reply::NotOurs`].
    #[must_use]
    pub fn concerns(message: &[u8]) -> bool {
        let Some(header) = message.first_chunk::<HEADER_LEN>() else {
            return false;
        };
        match header[2] & 0xf8 {
            // NOTIFY, a question.
            0x20 => true,
            // An ordinary question, of one name.
            0 if header[4..6] == [0, 1] => match question_type(message) {
                Some(rtype::AXFR | rtype::IXFR) => true,
                // It may be signed.
                Some(rtype::SOA) => header[10..12] != [0, 0],
                _ => false,
            },
            _ => false,
        }
    }

    /// Answers a message.
    #[must_use]
    pub fn answer(&self, octets: &[u8], caller: Caller, now: Moment) -> Reply {
        self.try_answer(octets, caller, now)
            .unwrap_or(Reply::NotOurs)
    }

    fn try_answer(&self, octets: &[u8], caller: Caller, now: Moment) -> Option<Reply> {
        let mut request = Message::from_octets(octets.to_vec()).ok()?;
        let (apex, rtype) = asked(&request)?;
        let is_notify = request.header().opcode() == Opcode::NOTIFY;
        let zone = self.zones.get(&apex);
        if zone.is_none() && !is_notify {
            return None;
        }
        let original = request.clone();
        let signer = ServerSequence::request(&self.keys, &mut request, time_signed(now));
        let signer = match signer {
            Ok(signer) => signer,
            Err(error) => {
                let octets = message::unauthenticated(error, &original)?;
                let rcode = match octets.get(3).map(|octet| octet & 0x0f) {
                    Some(1) => Rcode::FormErr,
                    _ => Rcode::NotAuth,
                };
                return Some(Reply::Once(octets, rcode));
            }
        };
        let call = Call {
            caller,
            request,
            signer,
            now,
        };
        let Some(zone) = zone else {
            return call.refuse(Rcode::NotAuth);
        };
        match rtype {
            _ if is_notify => self.notified(&apex, zone, call),
            Rtype::SOA => zone.soa(call),
            Rtype::AXFR | Rtype::IXFR => self.transfer(zone, rtype, call),
            _ => None,
        }
    }

    fn notified(&self, apex: &Name, zone: &DeskZone, call: Call) -> Option<Reply> {
        let secondary = zone.rules.secondary.as_ref();
        let heeds = secondary.is_some_and(|rules| rules.heeds(call.caller.address, call.key()));
        if !heeds {
            return call.refuse(Rcode::Refused);
        }
        self.book.notified(apex);
        call.once(Rcode::NoError, &[])
    }

    fn transfer(&self, zone: &DeskZone, rtype: Rtype, call: Call) -> Option<Reply> {
        // Not over UDP (RFC 5936 §4.2): the engine says so.
        if rtype == Rtype::AXFR && !call.caller.is_stream {
            return None;
        }
        let outgoing = zone.rules.outgoing.as_ref()?;
        if !outgoing.allows(call.caller.address, call.key()) {
            return call.refuse(Rcode::Refused);
        }
        let Some(version) = &zone.version else {
            return call.refuse(Rcode::ServFail);
        };
        let what = match rtype {
            Rtype::IXFR => match serial_of(&call.request) {
                None => return call.refuse(Rcode::FormErr),
                Some(serial) => since(version, serial, call.caller),
            },
            _ => What::Whole(Arc::clone(version)),
        };
        if let What::Soa(version) = &what {
            return call.once(Rcode::NoError, std::slice::from_ref(&version.soa));
        }
        let Some(turn) = Turn::take(&self.book.sendings) else {
            return call.refuse(Rcode::ServFail);
        };
        let Call {
            request, signer, ..
        } = call;
        let sending = Sending::new(request, signer, &what, Some(turn));
        Some(Reply::Many(Box::new(sending)))
    }
}

impl DeskZone {
    /// One that is signed is answered signed; others are the engine's.
    fn soa(&self, call: Call) -> Option<Reply> {
        let outgoing = self.rules.outgoing.as_ref()?;
        let is_ours = call.key().is_some_and(|key| outgoing.keys.contains(key));
        let version = self.version.as_ref().filter(|_| is_ours)?;
        call.once(Rcode::NoError, std::slice::from_ref(&version.soa))
    }
}

/// What is sent to somebody who has `serial`.
fn since(version: &Arc<Version>, serial: u32, caller: Caller) -> What {
    let version = Arc::clone(version);
    // Over UDP: what is newest; who wants it comes back over a stream (RFC 1995 §2).
    if !is_newer(version.serial, serial) || !caller.is_stream {
        return What::Soa(version);
    }
    match version.steps_since(serial) {
        Some(first) => What::Steps(version, first),
        None => What::Whole(version),
    }
}

/// A request whose signature holds, or that has none.
struct Call {
    caller: Caller,
    request: Request,
    signer: Option<ServerSequence<TsigKey>>,
    now: Moment,
}

impl Call {
    fn key(&self) -> Option<&TsigKey> {
        self.signer.as_ref().map(ServerSequence::wrapped_key)
    }

    fn refuse(self, rcode: Rcode) -> Option<Reply> {
        self.once(rcode, &[])
    }

    fn once(mut self, rcode: Rcode, records: &[Record]) -> Option<Reply> {
        let mut answer = message::answer(&self.request, rcode);
        answer.header_mut().set_aa(rcode == Rcode::NoError);
        for record in records {
            message::push(&mut answer, record).ok()?;
        }
        let octets = message::finish(answer, &self.request, self.signer.as_mut(), self.now);
        Some(Reply::Once(octets.ok()?, rcode))
    }
}

/// The zone and the type of a message's one question of class IN.
fn asked(request: &Request) -> Option<(Name, Rtype)> {
    let question = request.sole_question().ok()?;
    if question.qclass() != Class::IN || request.header().qr() {
        return None;
    }
    let name: domain::base::Name<Vec<u8>> = domain::base::ToName::to_vec(question.qname());
    Some((Name::from_wire(name.as_slice())?, question.qtype()))
}

/// The serial that somebody has who asks for what is newer (RFC 1995 §3).
fn serial_of(request: &Request) -> Option<u32> {
    let mut authority = request.authority().ok()?;
    let record = authority.next()?.ok()?;
    let soa = record
        .to_record::<domain::rdata::Soa<domain::base::ParsedName<&[u8]>>>()
        .ok()??;
    Some(soa.data().serial().into_int())
}

/// The type in a message's question, its name uncompressed.
fn question_type(message: &[u8]) -> Option<u16> {
    let mut rest = message.get(HEADER_LEN..)?;
    loop {
        let (length, after) = rest.split_first()?;
        match length {
            0 => {
                rest = after;
                break;
            }
            1..=63 => rest = after.get(usize::from(*length)..)?,
            _ => return None,
        }
    }
    Some(u16::from_be_bytes(*rest.first_chunk()?))
}
