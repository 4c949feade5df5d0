//! Composes one answer in the caller's buffer: sections, names as pointers, size, OPT.
//!
//! Never grows anything: what does not fit makes the answer a truncated one (RFC 2181 §9), which
//! keeps its question and its OPT. Decides nothing about what is answered: see [`crate::engine`].

use std::net::IpAddr;

use sealane_model::Ttl;
use sealane_steering::Reason;

use crate::config::NSID_MAX;
use crate::cookie::COOKIE_LEN;
use crate::dnssec::sign::Signature;
use crate::ede::Ede;
use crate::name::Name;
use crate::question::{ClientSubnet, Edns, Head, LowerName, Question, Rejected};
use crate::rules::Rules;
use crate::steer::{Choice, Placed};
use crate::wire::{CLASS_IN, HEADER_LEN, Rcode, option, rtype};
use crate::zone::{Node, RecordSet, Zone};

/// The largest datagram that is answered, whatever the asker announces: fits the least IPv6 MTU, so
/// nothing is fragmented on the way (DNS flag day 2020).
pub const UDP_SIZE_MAX: usize = 1_232;
/// The largest answer without EDNS (RFC 1035 §2.3.4).
pub(crate) const UDP_SIZE_PLAIN: usize = 512;
/// The largest answer over a stream (RFC 1035 §4.2.2).
pub const STREAM_SIZE_MAX: usize = 65_535;
/// How long the answer to ANY may be kept (RFC 8482 §4.2).
pub(crate) const ANY_TTL: Ttl = Ttl::from_secs(3_600);
/// Of the HINFO that answers ANY: its CPU says why, and there is no OS.
pub(crate) const ANY_DATA: &[u8] = b"\x07RFC8482\0";

/// What carries a message: it decides how long an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Udp,
    /// TCP in the clear (RFC 7766).
    Stream,
    /// RFC 7858.
    Tls,
    /// RFC 8484.
    Https,
    /// RFC 9250.
    Quic,
}

impl Transport {
    pub const ALL: [Self; 5] = [Self::Udp, Self::Stream, Self::Tls, Self::Https, Self::Quic];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Stream => "tcp",
            Self::Tls => "tls",
            Self::Https => "https",
            Self::Quic => "quic",
        }
    }

    /// Strangers on the way see how long an answer is, and nothing else of it.
    const fn is_encrypted(self) -> bool {
        !matches!(self, Self::Udp | Self::Stream)
    }

    fn limit(self, edns: Option<&Edns<'_>>) -> usize {
        match (self, edns) {
            (Self::Udp, None) => UDP_SIZE_PLAIN,
            (Self::Udp, Some(edns)) => {
                usize::from(edns.udp_size).clamp(UDP_SIZE_PLAIN, UDP_SIZE_MAX)
            }
            (Self::Stream | Self::Tls | Self::Https | Self::Quic, _) => STREAM_SIZE_MAX,
        }
    }
}

#[derive(Clone, Copy)]
enum Section {
    Answer,
    Authority,
    Additional,
}

/// More than fits.
struct Full;

/// An answer under construction.
pub(crate) struct Answer<'o, 'm> {
    out: &'o mut [u8],
    at: usize,
    /// Where the records must end; what comes after is for OPT.
    limit: usize,
    head: Head,
    question_end: usize,
    pub(crate) rcode: Rcode,
    pub(crate) authoritative: bool,
    /// Why, for those who can be told.
    pub(crate) ede: Option<Ede>,
    transport: Transport,
    counts: [u16; 3],
    /// Where the name in question stands in the message, uncompressed, and how long it is. Moves
    /// along a chain of CNAMEs.
    name_at: usize,
    name_length: usize,
    edns: Option<&'m Edns<'m>>,
    class: u16,
    told: Told<'m>,
    /// Signatures are wanted (RFC 3225).
    dnssec_ok: bool,
    /// The SCOPE PREFIX-LENGTH, if a client subnet is echoed.
    pub(crate) scope: u8,
    full: bool,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) length: usize,
    pub(crate) rcode: Rcode,
    pub(crate) truncated: bool,
}

impl<'o, 'm> Answer<'o, 'm> {
    /// `None` when `out` is shorter than [`UDP_SIZE_PLAIN`].
    pub(crate) fn begin(
        question: &'m Question<'m>,
        transport: Transport,
        told: Told<'m>,
        out: &'o mut [u8],
    ) -> Option<Self> {
        if out.len() < UDP_SIZE_PLAIN {
            return None;
        }
        let size = transport.limit(question.edns.as_ref()).min(out.len());
        let question_end = HEADER_LEN + question.section.len();
        out.get_mut(HEADER_LEN..question_end)?
            .copy_from_slice(question.section);
        let opt_length = question
            .edns
            .as_ref()
            .map_or(0, |edns| opt_length(edns, &told));
        Some(Self {
            out,
            at: question_end,
            limit: size - opt_length,
            head: question.head,
            question_end,
            rcode: Rcode::NoError,
            authoritative: true,
            ede: None,
            transport,
            counts: [0; 3],
            name_at: HEADER_LEN,
            name_length: question.name.wire().len(),
            edns: question.edns.as_ref(),
            class: question.class,
            told,
            dnssec_ok: question.edns.as_ref().is_some_and(|edns| edns.dnssec_ok),
            scope: 0,
            full: false,
        })
    }

    /// The set's records, owned by the name in question.
    pub(crate) fn records(&mut self, set: &RecordSet) {
        let name_at = self.name_at;
        let written = self.set(Section::Answer, set, name_at);
        self.note(written.map(|_| ()));
    }

    /// A CNAME; the name in question is its target from now on.
    pub(crate) fn alias(&mut self, set: &RecordSet, target: &Name) {
        let name_at = self.name_at;
        match self.set(Section::Answer, set, name_at) {
            Ok(begin) => {
                self.name_at = begin + RECORD_HEAD_LEN;
                self.name_length = target.wire().len();
            }
            Err(full) => self.note(Err(full)),
        }
    }

    /// A CNAME that was chosen; the name in question is its target from now on.
    pub(crate) fn alias_chosen(&mut self, target: &Name, ttl: Ttl, signature: Option<&Signature>) {
        let (name_at, begin) = (self.name_at, self.at);
        let data = target.wire();
        let mut written = self.record(Section::Answer, name_at, rtype::CNAME, ttl, data);
        if let (Ok(()), Some(signature)) = (&written, signature) {
            written = self.signature(Section::Answer, signature, name_at, Some(ttl));
        }
        self.note(written);
        self.name_at = begin + RECORD_HEAD_LEN;
        self.name_length = data.len();
    }

    /// One record of the name in question.
    pub(crate) fn single(
        &mut self,
        rtype: u16,
        ttl: Ttl,
        data: &[u8],
        signature: Option<&Signature>,
    ) {
        let name_at = self.name_at;
        let mut written = self.record(Section::Answer, name_at, rtype, ttl, data);
        if let (Ok(()), Some(signature)) = (&written, signature) {
            written = self.signature(Section::Answer, signature, name_at, Some(ttl));
        }
        self.note(written);
    }

    /// A DNAME at `node`, unless it is told already, and the CNAME that it makes of the name in
    /// question, which is `target` from now on (RFC 6672 §3.1). Without one it would be too long:
    /// YXDOMAIN.
    pub(crate) fn moved(
        &mut self,
        node: &Node,
        set: &RecordSet,
        target: Option<&LowerName>,
        is_told: bool,
    ) {
        let written = self.try_moved(node, set, target, is_told);
        self.note(written);
    }

    fn try_moved(
        &mut self,
        node: &Node,
        set: &RecordSet,
        target: Option<&LowerName>,
        is_told: bool,
    ) -> Result<(), Full> {
        if !is_told {
            let node_at = self.suffix_at(usize::from(node.name_length));
            self.set(Section::Answer, set, node_at)?;
        }
        let Some(target) = target else {
            self.rcode = Rcode::YxDomain;
            return Ok(());
        };
        let (name_at, begin) = (self.name_at, self.at);
        let data = target.wire();
        self.record(Section::Answer, name_at, rtype::CNAME, set.ttl(), data)?;
        self.name_at = begin + RECORD_HEAD_LEN;
        self.name_length = data.len();
        Ok(())
    }

    pub(crate) fn addresses(&mut self, addresses: &[IpAddr], ttl: Ttl) {
        for address in addresses {
            let name_at = self.name_at;
            let written = match address {
                IpAddr::V4(v4) => {
                    self.record(Section::Answer, name_at, rtype::A, ttl, &v4.octets())
                }
                IpAddr::V6(v6) => {
                    self.record(Section::Answer, name_at, rtype::AAAA, ttl, &v6.octets())
                }
            };
            self.note(written);
        }
    }

    /// What is answered holds for those for whom this choice does.
    pub(crate) fn steer(&mut self, placed: &Placed, choice: &Choice) {
        self.scope = self.scope.max(placed.answered_scope(choice.scope));
        if matches!(
            choice.reason,
            Reason::AllDown | Reason::NoData | Reason::Fallback
        ) {
            self.ede = Some(Ede::ALL_DOWN);
        }
    }

    /// Another of the zone's servers may know.
    pub(crate) fn fail(&mut self, why: Ede) {
        self.rcode = Rcode::ServFail;
        self.authoritative = false;
        self.ede = Some(why);
    }

    /// As [`Answer::fail`], and what was written so far is taken back.
    pub(crate) fn fail_whole(&mut self, why: Ede) {
        self.at = self.question_end;
        self.counts = [0; 3];
        self.scope = 0;
        self.full = false;
        self.fail(why);
    }

    /// The least that answers ANY (RFC 8482 §4.2).
    pub(crate) fn any(&mut self) {
        let name_at = self.name_at;
        let written = self.record(Section::Answer, name_at, rtype::HINFO, ANY_TTL, ANY_DATA);
        self.note(written);
    }

    /// The zone's SOA, to say for how long there is nothing (RFC 2308 §3).
    pub(crate) fn negative(&mut self, zone: &Zone, ttl: Ttl) {
        let written = self.try_negative(zone, ttl);
        self.note(written);
    }

    fn try_negative(&mut self, zone: &Zone, ttl: Ttl) -> Result<(), Full> {
        let apex_at = self.suffix_at(zone.apex.wire().len());
        let begin = self.at;
        self.put(&pointer(apex_at)?)?;
        self.put(&zone.negative_soa)?;
        // Owner, type and class stand before the TTL.
        self.out[begin + 6..begin + 10].copy_from_slice(&ttl.as_secs().to_be_bytes());
        self.count(Section::Authority, 1);
        match zone.sealed.as_ref().and_then(|sealed| sealed.soa.as_ref()) {
            Some(soa) if self.dnssec_ok => {
                self.signature(Section::Authority, soa, apex_at, Some(ttl))
            }
            _ => Ok(()),
        }
    }

    /// The RRSIG records of a set alone: somebody asked for them.
    pub(crate) fn signature_alone(&mut self, signature: &Signature) {
        let name_at = self.name_at;
        let written = self.signature(Section::Answer, signature, name_at, None);
        self.note(written);
    }

    /// The RRSIG records of addresses that were just written.
    pub(crate) fn addresses_signature(&mut self, signature: &Signature, ttl: Ttl) {
        let name_at = self.name_at;
        let written = self.signature(Section::Answer, signature, name_at, Some(ttl));
        self.note(written);
    }

    /// Copies the RRSIG records of a set that has this owner, and this TTL if it is another one than
    /// usual.
    fn signature(
        &mut self,
        section: Section,
        signature: &Signature,
        owner_at: usize,
        ttl: Option<Ttl>,
    ) -> Result<(), Full> {
        let owner = pointer(owner_at)?;
        let mut at = self.at;
        self.put(&signature.wire)?;
        while at < self.at {
            self.out[at..at + 2].copy_from_slice(&owner);
            if let Some(ttl) = ttl {
                self.out[at + 6..at + 10].copy_from_slice(&ttl.as_secs().to_be_bytes());
            }
            at += record_length(&self.out[at..]);
        }
        self.count(section, signature.count);
        Ok(())
    }

    /// Where the zone's own name stands, for proofs that are written at the end.
    pub(crate) fn apex_at(&self, zone: &Zone) -> usize {
        self.suffix_at(zone.apex.wire().len())
    }

    /// One record that proves an absence, and its signature. `apex_at`: where the last `apex_length`
    /// octets of its owner stand.
    pub(crate) fn proof(
        &mut self,
        owner: &[u8],
        (apex_at, apex_length): (usize, usize),
        nsec: &[u8],
        signature: Option<&Signature>,
        ttl: Ttl,
    ) {
        let written = self.try_proof(owner, (apex_at, apex_length), nsec, signature, ttl);
        self.note(written);
    }

    fn try_proof(
        &mut self,
        owner: &[u8],
        (apex_at, apex_length): (usize, usize),
        nsec: &[u8],
        signature: Option<&Signature>,
        ttl: Ttl,
    ) -> Result<(), Full> {
        let own = owner.len().saturating_sub(apex_length);
        let mut owner_at = apex_at;
        let mut head = [0; RECORD_HEAD_LEN];
        head[0..2].copy_from_slice(&pointer(apex_at)?);
        if own > 0 {
            owner_at = self.at;
            self.put(&owner[..own])?;
        }
        head[2..4].copy_from_slice(&rtype::NSEC.to_be_bytes());
        head[4..6].copy_from_slice(&CLASS_IN.to_be_bytes());
        head[6..10].copy_from_slice(&ttl.as_secs().to_be_bytes());
        let length = u16::try_from(nsec.len()).map_err(|_| Full)?;
        head[10..12].copy_from_slice(&length.to_be_bytes());
        self.put(&head)?;
        self.put(nsec)?;
        self.count(Section::Authority, 1);
        match signature {
            Some(signature) => self.signature(Section::Authority, signature, owner_at, Some(ttl)),
            None => Ok(()),
        }
    }

    /// Other servers know: their names, and their addresses as far as they are in our zones.
    /// `security`: in a signed zone, whether the delegation is signed, too (DS) or not (NSEC).
    pub(crate) fn referral(
        &mut self,
        cut: &Node,
        servers: &RecordSet,
        security: Option<&RecordSet>,
    ) {
        self.authoritative = false;
        let written = self.try_referral(cut, servers, security);
        self.note(written);
    }

    fn try_referral(
        &mut self,
        cut: &Node,
        servers: &RecordSet,
        security: Option<&RecordSet>,
    ) -> Result<(), Full> {
        let cut_at = self.suffix_at(usize::from(cut.name_length));
        let mut server_at = self.set(Section::Authority, servers, cut_at)?;
        if let Some(security) = security {
            self.set(Section::Authority, security, cut_at)?;
        }
        let mut glue = cut.glue.iter().peekable();
        for number in 0..servers.count {
            while let Some(of_server) = glue.next_if(|glue| glue.server == number) {
                for addresses in &of_server.addresses {
                    self.set(Section::Additional, addresses, server_at + RECORD_HEAD_LEN)?;
                }
            }
            server_at += record_length(&self.out[server_at..]);
        }
        Ok(())
    }

    /// Where the last `length` octets of the name in question stand.
    fn suffix_at(&self, length: usize) -> usize {
        self.name_at + self.name_length.saturating_sub(length)
    }

    /// Copies a set and gives its records their owner. Where does it begin?
    fn set(&mut self, section: Section, set: &RecordSet, owner_at: usize) -> Result<usize, Full> {
        let owner = pointer(owner_at)?;
        let begin = self.at;
        self.put(&set.wire)?;
        if owner_at != HEADER_LEN {
            let mut at = begin;
            while at < self.at {
                self.out[at..at + 2].copy_from_slice(&owner);
                at += record_length(&self.out[at..]);
            }
        }
        self.count(section, set.count);
        match &set.signature {
            Some(signature) if self.dnssec_ok => {
                self.signature(section, signature, owner_at, None)?;
            }
            _ => {}
        }
        Ok(begin)
    }

    fn record(
        &mut self,
        section: Section,
        owner_at: usize,
        rtype: u16,
        ttl: Ttl,
        data: &[u8],
    ) -> Result<(), Full> {
        let length = u16::try_from(data.len()).map_err(|_| Full)?;
        let mut head = [0; RECORD_HEAD_LEN];
        head[0..2].copy_from_slice(&pointer(owner_at)?);
        head[2..4].copy_from_slice(&rtype.to_be_bytes());
        head[4..6].copy_from_slice(&self.class.to_be_bytes());
        head[6..10].copy_from_slice(&ttl.as_secs().to_be_bytes());
        head[10..12].copy_from_slice(&length.to_be_bytes());
        self.put(&head)?;
        self.put(data)?;
        self.count(section, 1);
        Ok(())
    }

    fn put(&mut self, octets: &[u8]) -> Result<(), Full> {
        let end = self.at + octets.len();
        if end > self.limit {
            return Err(Full);
        }
        self.out[self.at..end].copy_from_slice(octets);
        self.at = end;
        Ok(())
    }

    fn count(&mut self, section: Section, records: u16) {
        let count = &mut self.counts[section as usize];
        *count = count.saturating_add(records);
    }

    fn note(&mut self, written: Result<(), Full>) {
        self.full |= written.is_err();
    }

    /// Nothing is said but that there is more: the asker comes back by TCP.
    pub(crate) const fn shorten(&mut self) {
        self.full = true;
    }

    pub(crate) fn finish(mut self) -> Written {
        if self.full {
            self.at = self.question_end;
            self.counts = [0; 3];
            self.scope = 0;
            if self.transport != Transport::Udp {
                // There is no longer transport to send the asker to.
                self.rcode = Rcode::ServFail;
            }
        }
        let truncated = self.full && self.transport == Transport::Udp;
        let mut additionals = self.counts[2];
        if let Some(edns) = self.edns {
            additionals += 1;
            let opt = Opt {
                rcode: self.rcode,
                dnssec_ok: edns.dnssec_ok,
                subnet: edns.client_subnet.map(|subnet| (subnet, self.scope)),
                told: self.told,
                ede: self.ede.filter(|ede| self.at + ede.length() <= self.limit),
            };
            let opt_at = self.at;
            self.at += opt.write(&mut self.out[opt_at..]);
            if edns.padded && self.transport.is_encrypted() {
                self.at = pad(self.out, opt_at, self.at);
            }
        }
        let flags = Flags {
            authoritative: self.authoritative,
            truncated,
            rcode: self.rcode,
        };
        let [answers, authorities, _] = self.counts;
        let counts = [1, answers, authorities, additionals];
        self.out[..HEADER_LEN].copy_from_slice(&header(self.head, flags, counts));
        Written {
            length: self.at,
            rcode: self.rcode,
            truncated,
        }
    }
}

/// The answer to what is no lawful question. `None` when nothing is sent.
pub(crate) fn refuse(
    rejected: &Rejected<'_>,
    cookie: Option<Cookie>,
    out: &mut [u8],
) -> Option<Written> {
    let rcode = rejected.refusal.rcode()?;
    let head = rejected.head?;
    if out.len() < UDP_SIZE_PLAIN {
        return None;
    }
    let section = rejected.section.unwrap_or_default();
    let mut at = HEADER_LEN + section.len();
    out.get_mut(HEADER_LEN..at)?.copy_from_slice(section);
    // BADVERS cannot be said without OPT.
    if let Some(dnssec_ok) = rejected.edns {
        let opt = Opt {
            rcode,
            dnssec_ok,
            subnet: None,
            told: Told::cookie(cookie),
            ede: rejected.refusal.ede(),
        };
        at += opt.write(&mut out[at..]);
    }
    let flags = Flags {
        authoritative: false,
        truncated: false,
        rcode,
    };
    let questions = u16::from(rejected.section.is_some());
    let additionals = u16::from(rejected.edns.is_some());
    let header = header(head, flags, [questions, 0, 0, additionals]);
    out[..HEADER_LEN].copy_from_slice(&header);
    Some(Written {
        length: at,
        rcode,
        truncated: false,
    })
}

/// Owner (a pointer), type, class, TTL, length.
const RECORD_HEAD_LEN: usize = 12;

/// The length of the record at the beginning of `wire`, whose owner is a pointer.
fn record_length(wire: &[u8]) -> usize {
    match wire {
        [_, _, _, _, _, _, _, _, _, _, high, low, ..] => {
            RECORD_HEAD_LEN + usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => wire.len().max(1),
    }
}

/// A compressed name (RFC 1035 §4.1.4): 14 bits of where it stands.
fn pointer(at: usize) -> Result<[u8; 2], Full> {
    match u16::try_from(at) {
        Ok(at) if at < 0x4000 => Ok((0xc000 | at).to_be_bytes()),
        _ => Err(Full),
    }
}

struct Flags {
    authoritative: bool,
    truncated: bool,
    rcode: Rcode,
}

fn header(head: Head, flags: Flags, counts: [u16; 4]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[0..2].copy_from_slice(&head.id);
    header[2] = 0x80
        | head.opcode << 3
        | u8::from(flags.authoritative) << 2
        | u8::from(flags.truncated) << 1
        | u8::from(head.recursion_desired);
    // CD is for resolvers to repeat, not for us (RFC 4035 section 3.1.6).
    header[3] = flags.rcode.low();
    for (place, count) in header[4..].chunks_exact_mut(2).zip(counts) {
        place.copy_from_slice(&count.to_be_bytes());
    }
    header
}

/// The data of a COOKIE option.
pub(crate) type Cookie = [u8; COOKIE_LEN];
const COOKIE_OPTION_LEN: usize = 4 + COOKIE_LEN;

/// The OPT record without options.
const OPT_LEN: usize = 11;

fn opt_length(edns: &Edns<'_>, told: &Told<'_>) -> usize {
    let subnet = edns.client_subnet.map_or(0, |subnet| 4 + subnet.data.len());
    OPT_LEN + subnet + told.length()
}

/// What the server tells of itself in OPT, to those who ask for it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Told<'r> {
    /// What the client may send back to us.
    cookie: Option<Cookie>,
    nsid: Option<&'r [u8]>,
    /// In tenths of a second.
    keepalive: Option<u16>,
}

impl<'r> Told<'r> {
    pub(crate) fn cookie(cookie: Option<Cookie>) -> Self {
        Self {
            cookie,
            ..Self::default()
        }
    }

    pub(crate) fn to(
        question: &Question<'_>,
        transport: Transport,
        cookie: Option<Cookie>,
        rules: &'r Rules,
    ) -> Self {
        let Some(edns) = &question.edns else {
            return Self::default();
        };
        let nsid = rules.identity.nsid.as_deref().filter(|_| edns.nsid);
        // HTTP and QUIC have their own ways to say so.
        let has_sessions = matches!(transport, Transport::Stream | Transport::Tls);
        let is_asked = edns.keepalive && has_sessions;
        let idle = rules.limits.tcp_idle.as_millis() / 100;
        Self {
            cookie,
            nsid: nsid.map(|nsid| nsid.get(..NSID_MAX).unwrap_or(nsid)),
            keepalive: is_asked.then(|| u16::try_from(idle).unwrap_or(u16::MAX)),
        }
    }

    fn length(&self) -> usize {
        let cookie = self.cookie.map_or(0, |_| COOKIE_OPTION_LEN);
        let nsid = self.nsid.map_or(0, |nsid| 4 + nsid.len());
        cookie + nsid + self.keepalive.map_or(0, |_| 4 + 2)
    }
}

struct Opt<'m> {
    rcode: Rcode,
    dnssec_ok: bool,
    subnet: Option<(ClientSubnet<'m>, u8)>,
    told: Told<'m>,
    ede: Option<Ede>,
}

impl Opt<'_> {
    /// Writes what [`Answer::begin`] left room for. How much was it?
    fn write(&self, out: &mut [u8]) -> usize {
        let mut at = OPT_LEN;
        if let Some((subnet, scope)) = &self.subnet {
            // Source 0 asks not to be located; the answer holds for all that ask so
            // (RFC 7871 §7.1.2).
            let scope = if subnet.source == 0 { 0 } else { *scope };
            let begin = at + 4;
            at = write_option(option::CLIENT_SUBNET, subnet.data, at, out);
            out[begin + 3] = scope;
        }
        if let Some(cookie) = &self.told.cookie {
            at = write_option(option::COOKIE, cookie, at, out);
        }
        if let Some(nsid) = self.told.nsid {
            at = write_option(option::NSID, nsid, at, out);
        }
        if let Some(tenths) = self.told.keepalive {
            at = write_option(option::KEEPALIVE, &tenths.to_be_bytes(), at, out);
        }
        if let Some(ede) = &self.ede {
            at = write_ede(ede, at, out);
        }
        let mut fixed = [0; OPT_LEN];
        fixed[1..3].copy_from_slice(&rtype::OPT.to_be_bytes());
        fixed[3..5].copy_from_slice(&(UDP_SIZE_MAX as u16).to_be_bytes());
        fixed[5] = self.rcode.extended();
        fixed[7] = u8::from(self.dnssec_ok) << 7;
        // Options are at most some 200 octets in all.
        fixed[9..11].copy_from_slice(&((at - OPT_LEN) as u16).to_be_bytes());
        out[..OPT_LEN].copy_from_slice(&fixed);
        at
    }
}

/// Where the option ends.
fn write_option(code: u16, data: &[u8], at: usize, out: &mut [u8]) -> usize {
    let end = at + 4 + data.len();
    out[at..at + 2].copy_from_slice(&code.to_be_bytes());
    out[at + 2..at + 4].copy_from_slice(&(data.len() as u16).to_be_bytes());
    out[at + 4..end].copy_from_slice(data);
    end
}

/// Where the option ends (RFC 8914 §2).
fn write_ede(ede: &Ede, at: usize, out: &mut [u8]) -> usize {
    let end = at + ede.length();
    let length = ede.length() - 4;
    out[at..at + 2].copy_from_slice(&option::EDE.to_be_bytes());
    out[at + 2..at + 4].copy_from_slice(&(length as u16).to_be_bytes());
    out[at + 4..at + 6].copy_from_slice(&ede.code.to_be_bytes());
    out[at + 6..end].copy_from_slice(ede.text.as_bytes());
    end
}

/// What answers are padded to a multiple of, where the question was padded (RFC 8467 §4.1).
const PADDING_BLOCK: usize = 468;

/// Appends a padding option (RFC 7830) to the OPT record that begins at `opt_at` and ends the message. Where does the
/// message end then? As before, if there is no room.
fn pad(out: &mut [u8], opt_at: usize, end: usize) -> usize {
    const OPTION_HEAD: usize = 4;
    let padded = (end + OPTION_HEAD).next_multiple_of(PADDING_BLOCK);
    let Some(padding) = out.get_mut(end..padded) else {
        return end;
    };
    padding.fill(0);
    padding[..2].copy_from_slice(&option::PADDING.to_be_bytes());
    let data = padded - end - OPTION_HEAD;
    padding[2..OPTION_HEAD].copy_from_slice(&(data as u16).to_be_bytes());
    let options = padded - opt_at - OPT_LEN;
    let length_at = opt_at + OPT_LEN - 2;
    out[length_at..length_at + 2].copy_from_slice(&(options as u16).to_be_bytes());
    padded
}
