//! BORDER. Messages that transfers are made of, built with NLnet Labs' `domain`.
//!
//! Names are compressed in owners alone: data go out as they are kept.

use domain::base::iana::{Class, Opcode, Rcode as WireRcode, Rtype, TsigRcode};
use domain::base::message_builder::{AdditionalBuilder, AnswerBuilder, HashCompressor, PushError};
use domain::base::rdata::UnknownRecordData;
use domain::base::{Message, MessageBuilder, Name as WireName, Ttl};
use domain::tsig::{ClientSequence, ServerSequence};

use super::key::{TsigKey, time_signed};
use crate::dnssec::timing::Moment;
use crate::name::Name;
use crate::record::Record;
use crate::wire::Rcode;

/// Records are gathered until a message has so many octets: pointers reach that far, and a client need not
/// keep more before it can begin.
const MESSAGE_SIZE: usize = 16_384;
/// The longest message there is, but for a signature (key names of 255 octets, 64 of HMAC) and OPT.
const MESSAGE_SIZE_MAX: usize = 65_535 - 700;
/// What this server takes over UDP.
const UDP_SIZE: u16 = 1_232;

pub(crate) type Target = HashCompressor<Vec<u8>>;
/// A message that was received; what it was signed with is taken out.
pub(crate) type Request = Message<Vec<u8>>;

/// No room in this message.
#[derive(Debug)]
pub(crate) struct Full;

fn empty() -> MessageBuilder<Target> {
    let target = HashCompressor::new(Vec::with_capacity(512));
    // Nothing limits a vector yet.
    MessageBuilder::from_target(target).unwrap_or_else(|_| unreachable!("a vector has room"))
}

/// The beginning of an answer, with the question.
pub(crate) fn answer(request: &Request, rcode: Rcode) -> AnswerBuilder<Target> {
    let mut builder = empty();
    builder.set_push_limit(MESSAGE_SIZE);
    let mut answer = builder.start_error(request, WireRcode::masked_from_int(rcode.low()));
    answer.header_mut().set_rd(false);
    answer
}

/// Appends one record. The first one may make the message longer than others are.
///
/// # Errors
/// [`Full`].
pub(crate) fn push(answer: &mut AnswerBuilder<Target>, record: &Record) -> Result<(), Full> {
    let owner = WireName::from_octets(record.owner.wire()).map_err(|_| Full)?;
    let rtype = Rtype::from_int(record.rtype);
    let data = UnknownRecordData::from_octets(rtype, &record.data[..]).map_err(|_| Full)?;
    let ttl = Ttl::from_secs(record.ttl.as_secs());
    let one = (&owner, Class::IN, ttl, &data);
    if answer.push(one).is_ok() {
        return Ok(());
    }
    if answer.counts().ancount() > 0 {
        return Err(Full);
    }
    answer.set_push_limit(MESSAGE_SIZE_MAX);
    answer
        .push((&owner, Class::IN, ttl, &data))
        .map_err(|_| Full)
}

/// Ends an answer: OPT where the request had one, a signature where it was signed.
pub(crate) fn finish(
    answer: AnswerBuilder<Target>,
    request: &Request,
    signer: Option<&mut ServerSequence<TsigKey>>,
    now: Moment,
) -> Result<Vec<u8>, PushError> {
    let mut additional = answer.additional();
    additional.clear_push_limit();
    if request.opt().is_some() {
        additional.opt(|opt| {
            opt.set_udp_payload_size(UDP_SIZE);
            Ok(())
        })?;
    }
    if let Some(signer) = signer {
        signer.answer(&mut additional, time_signed(now))?;
    }
    Ok(octets(additional))
}

pub(crate) fn octets(additional: AdditionalBuilder<Target>) -> Vec<u8> {
    additional.finish().into_target()
}

/// To a request whose signature does not hold.
pub(crate) fn unauthenticated(
    error: domain::tsig::ServerError<TsigKey>,
    request: &Request,
) -> Option<Vec<u8>> {
    const NOT_AUTH: u8 = 9;
    const BADSIG: [u8; 2] = [0, 16];
    let is_forged = error.error() == TsigRcode::FORMERR;
    let mut answer = error.build_message(request, empty()).ok().map(octets)?;
    // `domain` 0.12 calls a signature that does not hold FORMERR; RFC 8945 §5.2.2 has BADSIG. The error is followed
    // by the length of further data, which is 0.
    let is_not_auth = answer.get(3).is_some_and(|octet| octet & 0x0f == NOT_AUTH);
    let place = answer.len().checked_sub(4)?;
    if is_forged && is_not_auth {
        answer.get_mut(place..place + 2)?.copy_from_slice(&BADSIG);
    }
    Some(answer)
}

/// What is asked of another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask<'a> {
    Soa,
    /// The whole zone.
    Axfr,
    /// What changed since this SOA.
    Ixfr(&'a Record),
    /// Nothing: it is told that the zone has this SOA now.
    Notify(&'a Record),
}

/// A question, signed if there is a key; with it what judges the answers.
///
/// # Errors
/// The name or the record are no lawful ones.
pub(crate) fn question(
    id: u16,
    zone: &Name,
    ask: Ask<'_>,
    key: Option<&TsigKey>,
    now: Moment,
) -> Result<(Vec<u8>, Option<ClientSequence<TsigKey>>), PushError> {
    let mut builder = empty();
    builder.header_mut().set_id(id);
    let rtype = match ask {
        Ask::Soa => Rtype::SOA,
        Ask::Axfr => Rtype::AXFR,
        Ask::Ixfr(_) => Rtype::IXFR,
        Ask::Notify(_) => {
            builder.header_mut().set_opcode(Opcode::NOTIFY);
            builder.header_mut().set_aa(true);
            Rtype::SOA
        }
    };
    let mut question = builder.question();
    let name = WireName::from_octets(zone.wire()).map_err(|_| PushError::ShortBuf)?;
    question.push((&name, rtype, Class::IN))?;
    let mut answer = question.answer();
    if let Ask::Notify(soa) = ask {
        push(&mut answer, soa).map_err(|_| PushError::ShortBuf)?;
    }
    let mut authority = answer.authority();
    if let Ask::Ixfr(soa) = ask {
        let data = UnknownRecordData::from_octets(Rtype::SOA, &soa.data[..]);
        let data = data.map_err(|_| PushError::ShortBuf)?;
        let ttl = Ttl::from_secs(soa.ttl.as_secs());
        authority.push((&name, Class::IN, ttl, &data))?;
    }
    let mut additional = authority.additional();
    let judge = match key {
        Some(key) => {
            let sequence = ClientSequence::request(key.clone(), &mut additional, time_signed(now))?;
            Some(sequence)
        }
        None => None,
    };
    Ok((octets(additional), judge))
}
