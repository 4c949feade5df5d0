//! Reads one question from a message, strictly; whatever is not lawful becomes a [`Refusal`].
//!
//! Pure: allocates nothing, knows no zone and no transport. Every loop here moves forward in the
//! message, so its length bounds the work.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cookie;
use crate::ede::Ede;
use crate::name::count_labels;
use crate::wire::{CLASS_CH, CLASS_IN, HEADER_LEN, LABEL_MAX, NAME_MAX, Rcode, option, rtype};

/// One lawful question of class IN or CH, as far as its form goes.
#[derive(Clone, Debug)]
pub struct Question<'m> {
    pub head: Head,
    /// Name, type and class as they were sent, with the name's case (draft-vixie-dnsext-dns0x20).
    pub section: &'m [u8],
    pub name: LowerName,
    pub rtype: u16,
    pub class: u16,
    pub edns: Option<Edns<'m>>,
}

/// What an answer copies from a message's first four octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub id: [u8; 2],
    pub opcode: u8,
    pub recursion_desired: bool,
}

/// What the OPT record says (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns<'m> {
    /// As announced, in octets; values below 512 mean 512 (RFC 6891 §6.2.3).
    pub udp_size: u16,
    pub dnssec_ok: bool,
    pub client_subnet: Option<ClientSubnet<'m>>,
    pub cookie: Option<cookie::Asked<'m>>,
    /// Which server answers is to be told (RFC 5001).
    pub nsid: bool,
    /// How long a connection may be idle is to be told (RFC 7828); of no meaning over UDP.
    pub keepalive: bool,
    /// The asker hides its question's length, and wants the answer's hidden (RFC 7830).
    pub padded: bool,
}

/// EDNS Client Subnet (RFC 7871 §6), checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSubnet<'m> {
    /// The address, its absent octets zero. `None` for family 0, which some send with length 0.
    pub address: Option<IpAddr>,
    /// Leading bits of `address` that were sent.
    pub source: u8,
    /// The option's data as it was sent, to be echoed.
    pub data: &'m [u8],
}

/// Why a message gets no answer, or none but a response code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("shorter than a header")]
    TooShort,
    /// Answering answers is how two servers keep each other busy for ever.
    #[error("an answer, not a question")]
    IsAnswer,
    #[error("opcode {0} is not served")]
    Opcode(u8),
    #[error("{0} questions in one message")]
    QuestionCount(u16),
    #[error("the message ends too early")]
    CutShort,
    #[error("a name that is too long, or of an unknown label type")]
    Name,
    #[error("a compressed name in the question")]
    Compressed,
    #[error("records in the answer or authority section of a question")]
    Records,
    #[error("octets after the end of the message")]
    Trailing,
    #[error("more than one OPT record, or one that does not belong to the root")]
    Opt,
    #[error("EDNS options that do not fill their record")]
    Options,
    #[error("a client subnet that is not lawful")]
    ClientSubnet,
    #[error("a cookie of a length that none may have")]
    Cookie,
    #[error("EDNS version {0}")]
    EdnsVersion(u8),
    #[error("class {0}")]
    Class(u16),
    #[error("type {0} asks for something other than data")]
    MetaType(u16),
    #[error("a type that only says that a name is absent")]
    NxName,
}

impl Refusal {
    /// The response code; `None` where nothing at all is sent.
    #[must_use]
    pub const fn rcode(self) -> Option<Rcode> {
        match self {
            Self::TooShort | Self::IsAnswer => None,
            Self::Opcode(_) => Some(Rcode::NotImp),
            Self::EdnsVersion(_) => Some(Rcode::BadVers),
            Self::Class(_) | Self::MetaType(_) => Some(Rcode::Refused),
            Self::QuestionCount(_)
            | Self::CutShort
            | Self::Name
            | Self::Compressed
            | Self::Records
            | Self::Trailing
            | Self::Opt
            | Self::Options
            | Self::ClientSubnet
            | Self::Cookie
            | Self::NxName => Some(Rcode::FormErr),
        }
    }

    /// What the answer adds to its code.
    pub(crate) const fn ede(self) -> Option<Ede> {
        match self {
            Self::Opcode(_) | Self::Class(_) | Self::MetaType(_) => Some(Ede::NOT_SUPPORTED),
            Self::NxName => Some(Ede::QUERY_TYPE),
            _ => None,
        }
    }
}

/// A refusal with what its answer repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected<'m> {
    pub refusal: Refusal,
    /// `None` when nothing is sent.
    pub head: Option<Head>,
    /// The question, where one could be read.
    pub section: Option<&'m [u8]>,
    /// The message had an OPT record, so the answer has one too (RFC 6891 §7). `Some(true)` when
    /// it asked for DNSSEC (RFC 3225 §3).
    pub edns: Option<bool>,
    pub cookie: Option<cookie::Asked<'m>>,
}

impl<'m> Question<'m> {
    /// Before anything is read.
    pub(crate) const EMPTY: Self = Self {
        head: Head {
            id: [0; 2],
            opcode: 0,
            recursion_desired: false,
        },
        section: &[],
        name: LowerName::ROOT,
        rtype: 0,
        class: 0,
        edns: None,
    };

    /// Reads a whole message.
    ///
    /// # Errors
    /// [`Rejected`], for anything but one well-formed question of these classes that asks for data.
    pub fn parse(message: &'m [u8]) -> Result<Self, Rejected<'m>> {
        let mut question = Self::EMPTY;
        question.read(message)?;
        Ok(question)
    }

    /// The same in place: a name is large, and moving it costs more than reading it. For [`Question::EMPTY`].
    pub(crate) fn read(&mut self, message: &'m [u8]) -> Result<(), Rejected<'m>> {
        let mut seen = Rejected {
            refusal: Refusal::TooShort,
            head: None,
            section: None,
            edns: None,
            cookie: None,
        };
        let read = self.read_message(message, &mut seen);
        read.map_err(|refusal| Rejected { refusal, ..seen })
    }

    /// Notes in `seen` what was understood before a refusal.
    fn read_message(&mut self, message: &'m [u8], seen: &mut Rejected<'m>) -> Result<(), Refusal> {
        let mut rest = Reader { message, at: 0 };
        let header: [u8; HEADER_LEN] = rest.array().map_err(|_| Refusal::TooShort)?;
        if header[2] & 0x80 != 0 {
            return Err(Refusal::IsAnswer);
        }
        let head = Head {
            id: [header[0], header[1]],
            opcode: header[2] >> 3 & 0x0f,
            recursion_desired: header[2] & 0x01 != 0,
        };
        seen.head = Some(head);
        let counts = Counts {
            questions: u16::from_be_bytes([header[4], header[5]]),
            answers: u16::from_be_bytes([header[6], header[7]]),
            authorities: u16::from_be_bytes([header[8], header[9]]),
            additionals: u16::from_be_bytes([header[10], header[11]]),
        };
        self.head = head;
        let read = self.read_body(&mut rest, counts, seen);
        if head.opcode != 0 {
            // Whatever its form: what other opcodes put into a message is not ours to judge.
            return Err(Refusal::Opcode(head.opcode));
        }
        read
    }

    fn read_body(
        &mut self,
        rest: &mut Reader<'m>,
        counts: Counts,
        seen: &mut Rejected<'m>,
    ) -> Result<(), Refusal> {
        if counts.questions != 1 {
            for _ in 0..counts.questions {
                rest.skip_name()?;
                rest.skip(4)?;
            }
            rest.opt(counts.additionals, seen)?;
            return Err(Refusal::QuestionCount(counts.questions));
        }
        let begin = rest.at;
        rest.question_name(&mut self.name)?;
        self.rtype = rest.u16()?;
        self.class = rest.u16()?;
        self.section = &rest.message[begin..rest.at];
        seen.section = Some(self.section);
        // A question for IXFR names the version that it has in the authority section (RFC 1995).
        if counts.answers != 0 || counts.authorities != 0 && self.rtype != rtype::IXFR {
            return Err(Refusal::Records);
        }
        for _ in 0..counts.authorities {
            rest.skip_record()?;
        }
        self.edns = rest.opt(counts.additionals, seen)?;
        if rest.at != rest.message.len() {
            return Err(Refusal::Trailing);
        }
        if self.class != CLASS_IN && self.class != CLASS_CH {
            return Err(Refusal::Class(self.class));
        }
        if self.rtype == rtype::NXNAME {
            return Err(Refusal::NxName);
        }
        if rtype::is_meta(self.rtype) {
            return Err(Refusal::MetaType(self.rtype));
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Counts {
    questions: u16,
    answers: u16,
    authorities: u16,
    additionals: u16,
}

/// A name in lower-cased wire form, held in place.
#[derive(Clone)]
pub struct LowerName {
    octets: [u8; NAME_MAX],
    length: u8,
    labels: u8,
}

impl LowerName {
    /// The root's wire form is one octet; there is no shorter name.
    const ROOT: Self = Self {
        octets: [0; NAME_MAX],
        length: 1,
        labels: 0,
    };

    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.octets[..usize::from(self.length)]
    }

    /// How many labels it has, the root's not counted.
    #[must_use]
    pub const fn labels(&self) -> usize {
        self.labels as usize
    }

    /// `None` when `wire` is no whole uncompressed name.
    #[must_use]
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        let mut reader = Reader {
            message: wire,
            at: 0,
        };
        let mut name = Self::ROOT;
        reader.question_name(&mut name).ok()?;
        (reader.at == wire.len()).then_some(name)
    }

    /// This name with its last `length` octets replaced by `target` (RFC 6672 §2.2). `None` when it
    /// would be too long.
    #[must_use]
    pub(crate) fn moved(&self, length: usize, target: &[u8]) -> Option<Self> {
        let kept = self.wire().len().checked_sub(length)?;
        let kept = &self.wire()[..kept];
        let whole = kept.len() + target.len();
        let mut moved = Self::ROOT;
        moved.octets.get_mut(..kept.len())?.copy_from_slice(kept);
        moved
            .octets
            .get_mut(kept.len()..whole)?
            .copy_from_slice(target);
        moved.length = u8::try_from(whole).ok()?;
        moved.labels = count_labels(moved.wire());
        Some(moved)
    }
}

impl std::fmt::Debug for LowerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match crate::name::Name::from_wire(self.wire()) {
            Some(name) => name.fmt(f),
            None => f.write_str("?"),
        }
    }
}

struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn take(&mut self, length: usize) -> Result<&'m [u8], Refusal> {
        let rest = self.message.get(self.at..).unwrap_or_default();
        let (taken, _) = rest.split_at_checked(length).ok_or(Refusal::CutShort)?;
        self.at += length;
        Ok(taken)
    }

    fn skip(&mut self, length: usize) -> Result<(), Refusal> {
        self.take(length).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Refusal::CutShort)
    }

    fn u8(&mut self) -> Result<u8, Refusal> {
        self.array::<1>().map(|[octet]| octet)
    }

    fn u16(&mut self) -> Result<u16, Refusal> {
        self.array().map(u16::from_be_bytes)
    }

    /// A name without compression: there is nothing before the question that it could point to. `name` is the
    /// root's before.
    fn question_name(&mut self, name: &mut LowerName) -> Result<(), Refusal> {
        let begin = self.at;
        loop {
            let label = usize::from(self.u8()?);
            match label {
                0 => break,
                0xc0.. => return Err(Refusal::Compressed),
                _ if label > LABEL_MAX => return Err(Refusal::Name),
                _ => {}
            }
            // One octet stays for the root.
            if self.at - begin + label >= NAME_MAX {
                return Err(Refusal::Name);
            }
            self.skip(label)?;
            name.labels += 1;
        }
        let wire = &self.message[begin..self.at];
        let place = &mut name.octets[..wire.len()];
        place.copy_from_slice(wire);
        // No length of a label is a letter: they are all below 64.
        place.make_ascii_lowercase();
        name.length = wire.len() as u8;
        Ok(())
    }

    /// Passes over a name that may be compressed; where it points to does not matter.
    fn skip_name(&mut self) -> Result<(), Refusal> {
        loop {
            match self.u8()? {
                0 => return Ok(()),
                0xc0.. => return self.skip(1),
                label if usize::from(label) > LABEL_MAX => return Err(Refusal::Name),
                label => self.skip(usize::from(label))?,
            }
        }
    }

    fn skip_record(&mut self) -> Result<(), Refusal> {
        self.skip_name()?;
        self.skip(8)?;
        let length = self.u16()?;
        self.skip(usize::from(length))
    }

    /// Passes over the additional section and reads the OPT record in it, if there is one. Other
    /// records there (a signature, say) are of no use here and are passed over.
    fn opt(
        &mut self,
        additionals: u16,
        seen: &mut Rejected<'m>,
    ) -> Result<Option<Edns<'m>>, Refusal> {
        let mut found = None;
        for _ in 0..additionals {
            let begin = self.at;
            self.skip_name()?;
            let is_root = self.at == begin + 1;
            let rtype = self.u16()?;
            let udp_size = self.u16()?;
            let [_extended, version, flags, _] = self.array()?;
            let length = self.u16()?;
            let data = self.take(usize::from(length))?;
            if rtype != rtype::OPT {
                continue;
            }
            if !is_root || found.is_some() {
                return Err(Refusal::Opt);
            }
            let dnssec_ok = flags & 0x80 != 0;
            seen.edns = Some(dnssec_ok);
            found = Some((udp_size, version, dnssec_ok, data));
        }
        let Some((udp_size, version, dnssec_ok, data)) = found else {
            return Ok(None);
        };
        // A version we don't know may spell its options otherwise (RFC 6891 §6.1.3): not read.
        if version != 0 {
            return Err(Refusal::EdnsVersion(version));
        }
        let mut edns = Edns {
            udp_size: udp_size.max(512),
            dnssec_ok,
            client_subnet: None,
            cookie: None,
            nsid: false,
            keepalive: false,
            padded: false,
        };
        options(data, &mut edns)?;
        seen.cookie = edns.cookie;
        Ok(Some(edns))
    }
}

/// Reads what is understood; other options are passed over (RFC 6891 §6.1.2).
fn options<'m>(options: &'m [u8], edns: &mut Edns<'m>) -> Result<(), Refusal> {
    let mut rest = Reader {
        message: options,
        at: 0,
    };
    while rest.at < options.len() {
        let code = rest.u16().map_err(|_| Refusal::Options)?;
        let length = rest.u16().map_err(|_| Refusal::Options)?;
        let data = rest
            .take(usize::from(length))
            .map_err(|_| Refusal::Options)?;
        match code {
            option::CLIENT_SUBNET if edns.client_subnet.is_some() => {
                return Err(Refusal::ClientSubnet);
            }
            option::CLIENT_SUBNET => {
                edns.client_subnet = Some(subnet(data).ok_or(Refusal::ClientSubnet)?);
            }
            // Of several the first one counts (RFC 7873 §5.2).
            option::COOKIE if edns.cookie.is_none() => {
                edns.cookie = Some(cookie::Asked::read(data).ok_or(Refusal::Cookie)?);
            }
            // Whatever data they have: there should be none, and it is to be ignored (RFC 5001 §2.1).
            option::NSID => edns.nsid = true,
            option::KEEPALIVE => edns.keepalive = true,
            option::PADDING => edns.padded = true,
            _ => {}
        }
    }
    Ok(())
}

/// RFC 7871 §6 and §7.1: as many octets as the prefix needs, no bit beyond it, no scope.
fn subnet(data: &[u8]) -> Option<ClientSubnet<'_>> {
    let [family_high, family_low, source, scope, octets @ ..] = data else {
        return None;
    };
    let family = u16::from_be_bytes([*family_high, *family_low]);
    let longest = match family {
        0 => 0,
        1 => 32,
        2 => 128,
        _ => return None,
    };
    let needed = usize::from(*source).div_ceil(8);
    if *source > longest || *scope != 0 || octets.len() != needed {
        return None;
    }
    let used_bits = *source % 8;
    if let Some(last) = octets.last()
        && used_bits != 0
        && last << used_bits != 0
    {
        return None;
    }
    Some(ClientSubnet {
        address: address(family, octets),
        source: *source,
        data,
    })
}

fn address(family: u16, octets: &[u8]) -> Option<IpAddr> {
    match family {
        1 => {
            let mut whole = [0; 4];
            whole.get_mut(..octets.len())?.copy_from_slice(octets);
            Some(Ipv4Addr::from(whole).into())
        }
        2 => {
            let mut whole = [0; 16];
            whole.get_mut(..octets.len())?.copy_from_slice(octets);
            Some(Ipv6Addr::from(whole).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(counts: [u8; 4], body: &[u8]) -> Vec<u8> {
        let [qd, an, ns, ar] = counts;
        let mut message = vec![0xab, 0xcd, 1, 0, 0, qd, 0, an, 0, ns, 0, ar];
        message.extend_from_slice(body);
        message
    }

    const WWW: &[u8] = b"\x03WwW\x07example\0\0\x01\0\x01";

    /// The question `WwW.example A` with this OPT data.
    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut body = WWW.to_vec();
        body.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0");
        body.push(options.len() as u8);
        body.extend_from_slice(options);
        message([1, 0, 0, 1], &body)
    }

    fn refusal(message: &[u8]) -> Refusal {
        Question::parse(message).unwrap_err().refusal
    }

    #[test]
    fn a_question_keeps_its_case_and_is_looked_up_without() {
        let bytes = message([1, 0, 0, 0], WWW);
        let question = Question::parse(&bytes).unwrap();

        assert_eq!(question.section, WWW);
        assert_eq!(question.name.wire(), b"\x03www\x07example\0");
        assert_eq!((question.name.labels(), question.rtype), (2, 1));
        assert!(question.head.recursion_desired && question.edns.is_none());
    }

    #[test]
    fn malformed_messages_are_told_apart() {
        let body = |extra: &[u8]| [WWW, extra].concat();
        let long = [b"\x3f".as_slice(), &[b'a'; 63]].concat().repeat(4);
        let opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0".as_slice();
        let cases: Vec<(Vec<u8>, Refusal)> = vec![
            (vec![], Refusal::TooShort),
            (vec![0; 11], Refusal::TooShort),
            (message([0, 0, 0, 0], b""), Refusal::QuestionCount(0)),
            (message([2, 0, 0, 0], &body(WWW)), Refusal::QuestionCount(2)),
            (message([1, 0, 0, 0], b""), Refusal::CutShort),
            (message([1, 0, 0, 0], b"\x03ww"), Refusal::CutShort),
            (message([1, 0, 0, 0], b"\0\0\x01\0"), Refusal::CutShort),
            (
                message([1, 0, 0, 0], b"\xc0\x0c\0\x01\0\x01"),
                Refusal::Compressed,
            ),
            (message([1, 0, 0, 0], b"\x41a\0\0\x01\0\x01"), Refusal::Name),
            (
                message([1, 0, 0, 0], &[&long, &b"\0\0\x01\0\x01"[..]].concat()),
                Refusal::Name,
            ),
            (message([1, 0, 0, 0], &body(b"x")), Refusal::Trailing),
            (
                message([1, 1, 0, 0], &body(b"\0\0\x01\0\x01\0\0\0\0\0\0")),
                Refusal::Records,
            ),
            (
                message([1, 0, 1, 0], &body(b"\0\0\x01\0\x01\0\0\0\0\0\0")),
                Refusal::Records,
            ),
            (message([1, 0, 0, 1], &body(b"")), Refusal::CutShort),
            (message([1, 0, 0, 2], &body(&opt.repeat(2))), Refusal::Opt),
            (
                message([1, 0, 0, 1], &body(&[b"\x01a", opt].concat())),
                Refusal::Opt,
            ),
            (
                message([1, 0, 0, 1], &body(b"\0\0\x29\x04\xd0\0\x01\0\0\0\0")),
                Refusal::EdnsVersion(1),
            ),
            (with_options(b"\0"), Refusal::Options),
            (with_options(b"\0\x0a\0\x05abcd"), Refusal::Options),
            (with_options(b"\0\x0a\0\x04abcd"), Refusal::Cookie),
            (with_options(b"\0\x0a\0\x0912345678s"), Refusal::Cookie),
            (message([1, 0, 0, 0], b"\0\0\x01\0\x04"), Refusal::Class(4)),
            (
                message([1, 0, 0, 0], b"\0\0\xfc\0\x01"),
                Refusal::MetaType(rtype::AXFR),
            ),
            (
                message([1, 0, 1, 0], b"\0\0\xfb\0\x01\0\0\x06\0\x01\0\0\0\0\0\0"),
                Refusal::MetaType(rtype::IXFR),
            ),
        ];
        for (bytes, expected) in cases {
            assert_eq!(refusal(&bytes), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn an_answer_and_another_opcode_are_no_questions() {
        let mut bytes = message([1, 0, 0, 0], WWW);
        bytes[2] = 0x81;
        assert_eq!(refusal(&bytes), Refusal::IsAnswer);
        bytes[2] = 5 << 3;
        assert_eq!(refusal(&bytes), Refusal::Opcode(5));
        assert_eq!(refusal(&bytes[..12]), Refusal::Opcode(5));
    }

    #[test]
    fn two_questions_still_have_their_opt_noticed() {
        let body = [WWW, WWW, b"\0\0\x29\x04\xd0\0\0\x80\0\0\0"].concat();
        let bytes = message([2, 0, 0, 1], &body);
        assert_eq!(Question::parse(&bytes).unwrap_err().edns, Some(true));
    }

    #[test]
    fn a_client_subnet_is_read_as_rfc_7871_has_it() {
        let bytes = with_options(b"\0\x08\0\x07\0\x01\x18\0\xc6\x33\x64");
        let edns = Question::parse(&bytes).unwrap().edns.unwrap();
        let subnet = edns.client_subnet.unwrap();

        assert_eq!(subnet.address, Some("198.51.100.0".parse().unwrap()));
        assert_eq!((subnet.source, edns.udp_size), (24, 1232));

        let bytes = with_options(b"\0\x08\0\x04\0\x00\0\0");
        let edns = Question::parse(&bytes).unwrap().edns.unwrap();
        assert_eq!(edns.client_subnet.unwrap().address, None);
    }

    #[test]
    fn a_client_subnet_of_another_shape_is_refused() {
        let cases: [&[u8]; 9] = [
            b"\0\x08\0\0",
            b"\0\x08\0\x03\0\x01\x18",
            b"\0\x08\0\x06\0\x01\x18\0\xc6\x33", // too few octets
            b"\0\x08\0\x08\0\x01\x18\0\xc6\x33\x64\0", // too many
            b"\0\x08\0\x07\0\x01\x17\0\xc6\x33\x65", // a bit beyond the prefix
            b"\0\x08\0\x07\0\x01\x18\x18\xc6\x33\x64", // a scope in a question
            b"\0\x08\0\x09\0\x01\x21\0\xc6\x33\x64\0\0", // 33 bits of IPv4
            b"\0\x08\0\x07\0\x03\x18\0\xc6\x33\x64", // an unknown family
            b"\0\x08\0\x04\0\x01\0\0\0\x08\0\x04\0\x01\0\0", // twice
        ];
        for options in cases {
            let bytes = with_options(options);
            let rejected = Question::parse(&bytes).unwrap_err();
            assert_eq!(rejected.refusal, Refusal::ClientSubnet, "{options:02x?}");
            assert_eq!(rejected.edns, Some(false));
        }
    }

    #[test]
    fn the_longest_lawful_name_passes() {
        let label = [b"\x3f".as_slice(), &[b'a'; 63]].concat();
        let name = [label.repeat(3), b"\x3d".to_vec(), vec![b'b'; 61], vec![0]].concat();
        assert_eq!(name.len(), 255);
        let bytes = message([1, 0, 0, 0], &[&name, &b"\0\x01\0\x01"[..]].concat());
        assert_eq!(Question::parse(&bytes).unwrap().name.wire(), name);
    }
}
