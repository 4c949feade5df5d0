//! BORDER. A transfer as it comes in: judged record by record, kept whole or not at all.
//!
//! Whatever a primary sends, this ends: every message must bring at least one record, and records and octets
//! are counted. Knows no socket; [`Incoming::take`] is handed one message after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::base::iana::{Class, Opcode};
use domain::base::{Message, ParsedName, Record as WireRecord, RecordSection, ToName as _};
use domain::rdata::AllRecordData;
use domain::rdata::tsig::Time48;
use domain::tsig::ClientSequence;
use sealane_model::Ttl;

use super::key::{TsigKey, time_signed};
use super::serial::is_newer;
use super::version::soa_serial;
use crate::config::Soa;
use crate::dnssec::timing::Moment;
use crate::name::Name;
use crate::record::Record;
use crate::wire::rtype;

/// How much one transfer may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Records, those of differences counted too.
    pub records: usize,
    /// Octets of messages.
    pub octets: usize,
}

impl Default for Bounds {
    /// Room for the zones of large hosters' customers, not for a large country's.
    fn default() -> Self {
        Self {
            records: 2_000_000,
            octets: 256 << 20,
        }
    }
}

/// Why a transfer is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("the answer is no lawful message")]
    Malformed,
    #[error("the answer is to another question")]
    NotTheAnswer,
    #[error("the primary answers {0}")]
    Refused(String),
    #[error("its signature does not hold: {0}")]
    Signature(String),
    #[error("it is not signed to its end")]
    EndUnsigned,
    #[error("it does not begin with the zone's SOA")]
    NoSoa,
    #[error("{0} lies outside of the zone")]
    Outside(Name),
    #[error("it has an SOA where none may be")]
    StraySoa,
    #[error("a message without a record")]
    Empty,
    #[error("records after its end")]
    Trailing,
    #[error("it has more than {0} records")]
    TooManyRecords(usize),
    #[error("it is longer than {0} octets")]
    TooLong(usize),
    #[error("its differences do not follow each other")]
    Gap,
    #[error("its differences are not those of the zone that is here")]
    Mismatch,
    #[error("{owner} has a record of type {rtype}, which cannot stand in a zone")]
    MetaType { owner: Name, rtype: u16 },
    #[error("a record's data are not of its type")]
    Data,
}

/// What a primary gave.
#[derive(Clone, Debug)]
pub enum Given {
    /// What is here is what it has, or newer.
    Nothing,
    Zone(Received),
}

/// A whole zone.
#[derive(Clone, Debug)]
pub struct Received {
    pub soa: Soa,
    /// As it came.
    pub soa_record: Record,
    /// All but the SOA.
    pub records: Vec<Record>,
    /// It came as differences.
    pub is_incremental: bool,
}

/// What is here, for differences to be applied to.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    pub soa: &'a Record,
    pub records: &'a [Record],
}

/// Judges the answers to one question for a zone.
#[derive(Debug)]
pub struct Incoming<'a> {
    apex: &'a Name,
    id: u16,
    judge: Option<ClientSequence<TsigKey>>,
    bounds: Bounds,
    /// `None`: the whole zone was asked for.
    base: Option<Base<'a>>,
    records: usize,
    octets: usize,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Begin,
    /// The SOA was there; what follows tells which form it is.
    First(Record),
    Whole(Record, Vec<Record>),
    Steps(Box<Steps>),
    End(Option<Box<Given>>),
}

/// Differences on their way in.
#[derive(Debug)]
struct Steps {
    /// What it leads to.
    last: Record,
    /// Where the step at hand leads to. `None`: what goes is told, not yet what comes.
    to: Option<Record>,
    /// Where the step before led to.
    from: u32,
    zone: BTreeMap<(Name, u16, Arc<[u8]>), Ttl>,
}

/// How a message left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    More,
    Done,
}

impl<'a> Incoming<'a> {
    pub(crate) const fn new(
        apex: &'a Name,
        id: u16,
        judge: Option<ClientSequence<TsigKey>>,
        base: Option<Base<'a>>,
        bounds: Bounds,
    ) -> Self {
        Self {
            apex,
            id,
            judge,
            bounds,
            base,
            records: 0,
            octets: 0,
            stage: Stage::Begin,
        }
    }

    /// An unsigned one, as it is kept on disk.
    #[must_use]
    pub const fn unsigned(apex: &'a Name, id: u16, base: Option<Base<'a>>, bounds: Bounds) -> Self {
        Self::new(apex, id, None, base, bounds)
    }

    /// Takes one message.
    ///
    /// # Errors
    /// [`Flaw`]; nothing of the transfer is to be used then.
    pub fn take(&mut self, octets: Vec<u8>, now: Moment) -> Result<Progress, Flaw> {
        self.octets = self.octets.saturating_add(octets.len());
        if self.octets > self.bounds.octets {
            return Err(Flaw::TooLong(self.bounds.octets));
        }
        let message = open(octets, self.id, &mut self.judge, time_signed(now))?;
        self.check_question(&message)?;
        let answer = message.answer().map_err(|_| Flaw::Malformed)?;
        let mut is_empty = true;
        for record in records(answer) {
            is_empty = false;
            self.records += 1;
            if self.records > self.bounds.records {
                return Err(Flaw::TooManyRecords(self.bounds.records));
            }
            self.record(record?)?;
        }
        if is_empty {
            return Err(Flaw::Empty);
        }
        self.end_of_message();
        Ok(match self.stage {
            Stage::End(_) => Progress::Done,
            _ => Progress::More,
        })
    }

    /// What was given, once it is [`Progress::Done`].
    ///
    /// # Errors
    /// [`Flaw::EndUnsigned`].
    pub fn finish(self) -> Result<Given, Flaw> {
        if let Some(judge) = self.judge {
            judge.done().map_err(|_| Flaw::EndUnsigned)?;
        }
        match self.stage {
            Stage::End(Some(given)) => Ok(*given),
            _ => Err(Flaw::NoSoa),
        }
    }

    /// The first message has the question; others may (RFC 5936 §2.2.1).
    fn check_question(&self, message: &Message<Vec<u8>>) -> Result<(), Flaw> {
        let count = message.header_counts().qdcount();
        if count == 0 && !matches!(self.stage, Stage::Begin) {
            return Ok(());
        }
        let question = message.sole_question().map_err(|_| Flaw::NotTheAnswer)?;
        let name = name_of(question.qname()).ok_or(Flaw::Malformed)?;
        if name != *self.apex || question.qclass() != Class::IN {
            return Err(Flaw::NotTheAnswer);
        }
        Ok(())
    }

    fn record(&mut self, record: Record) -> Result<(), Flaw> {
        if !record.owner.is_at_or_below(self.apex) {
            return Err(Flaw::Outside(record.owner));
        }
        let is_soa = record.rtype == rtype::SOA;
        if is_soa && record.owner != *self.apex {
            return Err(Flaw::StraySoa);
        }
        if rtype::is_meta(record.rtype) || record.rtype == rtype::ANY {
            let Record { owner, rtype, .. } = record;
            return Err(Flaw::MetaType { owner, rtype });
        }
        let stage = std::mem::replace(&mut self.stage, Stage::End(None));
        self.stage = match stage {
            Stage::Begin if is_soa => Stage::First(record),
            Stage::Begin => return Err(Flaw::NoSoa),
            Stage::First(soa) => self.second(soa, record)?,
            Stage::Whole(soa, records) if is_soa => {
                // The same SOA ends it (RFC 5936 §2.2).
                if record.data != soa.data {
                    return Err(Flaw::StraySoa);
                }
                end(soa, records, false)?
            }
            Stage::Whole(soa, mut records) => {
                records.push(record);
                Stage::Whole(soa, records)
            }
            Stage::Steps(steps) => steps.take(record)?,
            Stage::End(_) => return Err(Flaw::Trailing),
        };
        Ok(())
    }

    /// After the first SOA: another one with what is here begins differences (RFC 1995 §4), the same one
    /// ends a zone of nothing else, and all other records are a whole zone's.
    fn second(&self, soa: Record, record: Record) -> Result<Stage, Flaw> {
        if record.rtype != rtype::SOA {
            return Ok(Stage::Whole(soa, vec![record]));
        }
        if record.data == soa.data {
            return end(soa, Vec::new(), false);
        }
        let base = self.base.ok_or(Flaw::StraySoa)?;
        let from = soa_serial(&record).ok_or(Flaw::Data)?;
        if soa_serial(base.soa) != Some(from) {
            return Err(Flaw::Gap);
        }
        let zone = base.records.iter().map(|record| {
            let key = (record.owner.clone(), record.rtype, Arc::clone(&record.data));
            (key, record.ttl)
        });
        Ok(Stage::Steps(Box::new(Steps {
            last: soa,
            to: None,
            from,
            zone: zone.collect(),
        })))
    }

    /// A lone SOA says that there is nothing newer (RFC 1995 §4), if it is not newer.
    fn end_of_message(&mut self) {
        let Stage::First(soa) = &self.stage else {
            return;
        };
        let have = self.base.and_then(|base| soa_serial(base.soa));
        let given = soa_serial(soa);
        if let (Some(have), Some(given)) = (have, given)
            && !is_newer(given, have)
        {
            self.stage = Stage::End(Some(Box::new(Given::Nothing)));
        }
    }
}

fn end(soa_record: Record, records: Vec<Record>, is_incremental: bool) -> Result<Stage, Flaw> {
    let given = Given::Zone(Received {
        soa: parse_soa(&soa_record).ok_or(Flaw::Data)?,
        soa_record,
        records,
        is_incremental,
    });
    Ok(Stage::End(Some(Box::new(given))))
}

impl Steps {
    fn take(mut self: Box<Self>, record: Record) -> Result<Stage, Flaw> {
        if record.rtype != rtype::SOA {
            let key = (record.owner, record.rtype, record.data);
            if self.to.is_none() {
                self.zone.remove(&key).ok_or(Flaw::Mismatch)?;
            } else if self.zone.insert(key, record.ttl).is_some() {
                return Err(Flaw::Mismatch);
            }
            return Ok(Stage::Steps(self));
        }
        let Some(to) = self.to.take() else {
            // What went is told; here begins what comes.
            let (from, to) = (self.from, soa_serial(&record).ok_or(Flaw::Data)?);
            if !is_newer(to, from) {
                return Err(Flaw::Gap);
            }
            self.from = to;
            self.to = Some(record);
            return Ok(Stage::Steps(self));
        };
        if to.data == self.last.data {
            // The end; the SOA once more.
            if record.data != self.last.data {
                return Err(Flaw::Gap);
            }
            return self.end();
        }
        // The next step begins where this one ended.
        if soa_serial(&record) != Some(self.from) {
            return Err(Flaw::Gap);
        }
        Ok(Stage::Steps(self))
    }

    fn end(self) -> Result<Stage, Flaw> {
        let records = self
            .zone
            .into_iter()
            .map(|((owner, rtype, data), ttl)| Record {
                owner,
                rtype,
                ttl,
                data,
            });
        end(self.last, records.collect(), true)
    }
}

/// Checks a message's form, signature and code.
fn open(
    octets: Vec<u8>,
    id: u16,
    judge: &mut Option<ClientSequence<TsigKey>>,
    now: Time48,
) -> Result<Message<Vec<u8>>, Flaw> {
    let mut message = Message::from_octets(octets).map_err(|_| Flaw::Malformed)?;
    let header = message.header();
    if header.id() != id || !header.qr() || header.opcode() != Opcode::QUERY {
        return Err(Flaw::NotTheAnswer);
    }
    if let Some(judge) = judge {
        judge.answer(&mut message, now).map_err(|error| {
            // What a primary says of the key is worth more than that its refusal is not signed.
            match message.header().rcode() {
                domain::base::iana::Rcode::NOERROR => Flaw::Signature(error.to_string()),
                rcode => Flaw::Refused(format!("{rcode} ({error})")),
            }
        })?;
    }
    match message.header().rcode() {
        domain::base::iana::Rcode::NOERROR if header.tc() => Err(Flaw::Malformed),
        domain::base::iana::Rcode::NOERROR => Ok(message),
        rcode => Err(Flaw::Refused(rcode.to_string())),
    }
}

type Section<'m> = RecordSection<'m, Vec<u8>>;

fn records(section: Section<'_>) -> impl Iterator<Item = Result<Record, Flaw>> {
    section.map(|record| {
        let record = record.map_err(|_| Flaw::Malformed)?;
        let record = record
            .into_any_record::<AllRecordData<_, _>>()
            .map_err(|_| Flaw::Data)?;
        to_record(&record)
    })
}

type Parsed<'m> = WireRecord<ParsedName<&'m [u8]>, AllRecordData<&'m [u8], ParsedName<&'m [u8]>>>;

/// With every name in its data written out.
fn to_record(record: &Parsed<'_>) -> Result<Record, Flaw> {
    use domain::base::rdata::ComposeRecordData as _;
    if record.class() != Class::IN {
        return Err(Flaw::Data);
    }
    let owner = name_of(record.owner()).ok_or(Flaw::Malformed)?;
    let mut data = Vec::new();
    // A vector takes everything, and compresses nothing.
    record
        .data()
        .compose_rdata(&mut data)
        .unwrap_or_else(|never| match never {});
    let ttl = Ttl::from_secs(record.ttl().as_secs());
    Record::new(owner, record.rtype().to_int(), ttl, data).map_err(|_| Flaw::Data)
}

fn name_of(name: &ParsedName<&[u8]>) -> Option<Name> {
    let name: domain::base::Name<Vec<u8>> = name.to_vec();
    Name::from_wire(name.as_slice())
}

/// An SOA record's parts.
#[must_use]
pub fn parse_soa(record: &Record) -> Option<Soa> {
    crate::zone_file::soa_from_wire(record.ttl, &record.data)
}

/// The answer to a NOTIFY. `None`: it is another message.
pub(crate) fn told(
    octets: &[u8],
    id: u16,
    judge: Option<ClientSequence<TsigKey>>,
    now: Moment,
) -> Option<Result<(), Flaw>> {
    let mut message = Message::from_octets(octets.to_vec()).ok()?;
    let header = message.header();
    if header.id() != id || !header.qr() || header.opcode() != Opcode::NOTIFY {
        return None;
    }
    if let Some(mut judge) = judge
        && let Err(error) = judge.answer(&mut message, time_signed(now))
    {
        return Some(Err(Flaw::Signature(error.to_string())));
    }
    match message.header().rcode() {
        domain::base::iana::Rcode::NOERROR => Some(Ok(())),
        rcode => Some(Err(Flaw::Refused(rcode.to_string()))),
    }
}

/// The SOA in the answer to a question for it.
///
/// # Errors
/// [`Flaw`].
pub(crate) fn soa_answer(
    octets: Vec<u8>,
    id: u16,
    judge: Option<ClientSequence<TsigKey>>,
    apex: &Name,
    now: Moment,
) -> Result<Soa, Flaw> {
    let mut judge = judge;
    let message = open(octets, id, &mut judge, time_signed(now))?;
    let answer = message.answer().map_err(|_| Flaw::Malformed)?;
    for record in records(answer) {
        let record = record?;
        if record.rtype == rtype::SOA && record.owner == *apex {
            return parse_soa(&record).ok_or(Flaw::Data);
        }
    }
    Err(Flaw::NoSoa)
}
