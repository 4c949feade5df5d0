//! A plain DNS client: builds a question, sends it over UDP or TCP, takes the answer apart.
//!
//! Asks one server once. [`Question::bytes`] and the `exchange_…` functions are there for tests
//! that want to send something unlawful.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Record types by number (IANA "DNS Parameters").
pub mod kind {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
    pub const CAA: u16 = 257;
}

/// A question to ask. Without any EDNS verb it goes without EDNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub id: u16,
    pub name: String,
    pub kind: u16,
    pub class: u16,
    edns_size: Option<u16>,
    edns_version: u8,
    client_subnet: Option<(IpAddr, u8)>,
}

impl Question {
    #[must_use]
    pub fn new(name: &str, kind: u16) -> Self {
        Self {
            id: 0x5ea1,
            name: name.to_owned(),
            kind,
            class: 1,
            edns_size: None,
            edns_version: 0,
            client_subnet: None,
        }
    }

    #[must_use]
    pub fn a(name: &str) -> Self {
        Self::new(name, kind::A)
    }

    #[must_use]
    pub fn aaaa(name: &str) -> Self {
        Self::new(name, kind::AAAA)
    }

    #[must_use]
    pub const fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    /// EDNS, with this as the largest UDP answer that is welcome.
    #[must_use]
    pub const fn edns_size(mut self, bytes: u16) -> Self {
        self.edns_size = Some(bytes);
        self
    }

    #[must_use]
    pub fn edns_version(mut self, version: u8) -> Self {
        self.edns_version = version;
        self.edns_size = self.edns_size.or(Some(1232));
        self
    }

    /// EDNS Client Subnet: `192.0.2.0/24`.
    ///
    /// # Panics
    /// It is not `ip/bits`.
    #[must_use]
    pub fn client_subnet(mut self, subnet: &str) -> Self {
        self.client_subnet = Some(parse_subnet(subnet).expect("a subnet is written ip/bits"));
        self.edns_size = self.edns_size.or(Some(1232));
        self
    }

    /// As it goes over the wire (RFC 1035 §4.1).
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&self.id.to_be_bytes());
        // Recursion is not desired.
        bytes.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0]);
        bytes.push(u8::from(self.edns_size.is_some()));
        for label in self.name.split('.').filter(|label| !label.is_empty()) {
            // A label that is too long goes out as it is: the server should mind.
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend_from_slice(&self.kind.to_be_bytes());
        bytes.extend_from_slice(&self.class.to_be_bytes());
        if let Some(size) = self.edns_size {
            self.opt(size, &mut bytes);
        }
        bytes
    }

    /// RFC 6891 §6.1.2, RFC 7871 §6.
    fn opt(&self, size: u16, bytes: &mut Vec<u8>) {
        let option = self.client_subnet.map_or(Vec::new(), subnet_option);
        bytes.push(0);
        bytes.extend_from_slice(&kind::OPT.to_be_bytes());
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.extend_from_slice(&[0, self.edns_version, 0, 0]);
        bytes.extend_from_slice(&(option.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&option);
    }

    /// # Errors
    /// No answer in time, or one that is not lawful.
    pub async fn ask(&self, server: SocketAddr, limit: Duration) -> io::Result<Answer> {
        Answer::parse(&exchange_udp(server, &self.bytes(), limit).await?)
    }

    /// # Errors
    /// Refused, no answer in time, or one that is not lawful.
    pub async fn ask_tcp(&self, server: SocketAddr, limit: Duration) -> io::Result<Answer> {
        Answer::parse(&exchange_tcp(server, &self.bytes(), limit).await?)
    }
}

/// `ip/bits`, or an address alone.
#[must_use]
pub fn parse_subnet(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = match text.split_once('/') {
        Some((ip, bits)) => (ip.parse().ok()?, bits.parse().ok()?),
        None => {
            let ip: IpAddr = text.parse().ok()?;
            (ip, if ip.is_ipv4() { 32 } else { 128 })
        }
    };
    let most = if ip.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((ip, bits))
}

fn subnet_option((ip, bits): (IpAddr, u8)) -> Vec<u8> {
    let (family, mut address) = match ip {
        IpAddr::V4(v4) => (1_u8, v4.octets().to_vec()),
        IpAddr::V6(v6) => (2, v6.octets().to_vec()),
    };
    address.truncate(usize::from(bits.div_ceil(8)));
    if let Some(last) = address.last_mut().filter(|_| bits % 8 != 0) {
        *last &= 0xff << (8 - bits % 8);
    }
    let mut option = vec![0, 8, 0, address.len() as u8 + 4, 0, family, bits, 0];
    option.extend_from_slice(&address);
    option
}

/// Sends these bytes and takes the first datagram that comes back.
///
/// # Errors
/// Nothing came in time.
pub async fn exchange_udp(
    server: SocketAddr,
    question: &[u8],
    limit: Duration,
) -> io::Result<Vec<u8>> {
    let here: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(here).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; 65_535];
    let length = timeout(limit, socket.recv(&mut answer))
        .await
        .map_err(late)??;
    answer.truncate(length);
    Ok(answer)
}

/// Sends these bytes with their length before them (RFC 1035 §4.2.2) and takes the first answer.
///
/// # Errors
/// Refused, closed, or nothing came in time.
pub async fn exchange_tcp(
    server: SocketAddr,
    question: &[u8],
    limit: Duration,
) -> io::Result<Vec<u8>> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        let length = u16::try_from(question.len()).map_err(|_| unlawful("question too long"))?;
        stream
            .write_all(&[&length.to_be_bytes()[..], question].concat())
            .await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    };
    timeout(limit, exchange).await.map_err(late)?
}

fn late(_: tokio::time::error::Elapsed) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub id: u16,
    pub opcode: u8,
    /// With its upper bits from EDNS, if any.
    pub rcode: u16,
    pub authoritative: bool,
    pub truncated: bool,
    pub recursion_available: bool,
    pub answers: Vec<Record>,
    pub authority: Vec<Record>,
    /// Without OPT.
    pub additional: Vec<Record>,
    pub edns: Option<Edns>,
    /// Of the whole message.
    pub bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Lower case, without the last dot; the root is empty.
    pub name: String,
    pub kind: u16,
    pub ttl: u32,
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Address(IpAddr),
    /// Of NS and CNAME.
    Name(String),
    Other(Vec<u8>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edns {
    pub udp_size: u16,
    pub version: u8,
    pub client_subnet: Option<ClientSubnet>,
    /// Codes and contents of all options.
    pub options: Vec<(u16, Vec<u8>)>,
}

/// RFC 7871 §6.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSubnet {
    pub family: u16,
    pub source: u8,
    pub scope: u8,
    pub address: Vec<u8>,
}

impl Answer {
    /// # Errors
    /// The bytes are no DNS message that answers.
    pub fn parse(message: &[u8]) -> io::Result<Self> {
        let mut reader = Reader { message, at: 0 };
        let id = reader.u16()?;
        let flags = reader.u16()?;
        if flags & 0x8000 == 0 {
            return Err(unlawful("a question where an answer belongs"));
        }
        let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        for _ in 0..counts[0] {
            reader.name()?;
            reader.take(4)?;
        }
        let mut answer = Self {
            id,
            opcode: (flags >> 11) as u8 & 0x0f,
            rcode: flags & 0x0f,
            authoritative: flags & 0x0400 != 0,
            truncated: flags & 0x0200 != 0,
            recursion_available: flags & 0x0080 != 0,
            bytes: message.len(),
            ..Self::default()
        };
        for _ in 0..counts[1] {
            answer.answers.push(reader.record()?.record);
        }
        for _ in 0..counts[2] {
            answer.authority.push(reader.record()?.record);
        }
        for _ in 0..counts[3] {
            let raw = reader.record()?;
            if raw.record.kind == kind::OPT {
                answer.rcode |= (raw.record.ttl >> 24 << 4) as u16;
                answer.edns = Some(raw.edns()?);
            } else {
                answer.additional.push(raw.record);
            }
        }
        if reader.at != message.len() {
            return Err(unlawful("bytes after the last record"));
        }
        Ok(answer)
    }

    /// The addresses answered, in their order.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let of = |record: &Record| match record.data {
            Data::Address(ip) => Some(ip),
            _ => None,
        };
        self.answers.iter().filter_map(of).collect()
    }

    /// The least TTL of the answers.
    #[must_use]
    pub fn ttl(&self) -> Option<u32> {
        self.answers.iter().map(|record| record.ttl).min()
    }

    /// The scope of the client subnet echoed.
    #[must_use]
    pub fn scope(&self) -> Option<u8> {
        let subnet = self.edns.as_ref()?.client_subnet.as_ref()?;
        Some(subnet.scope)
    }
}

struct RawRecord {
    record: Record,
    class: u16,
    data: Vec<u8>,
}

impl RawRecord {
    fn edns(&self) -> io::Result<Edns> {
        let mut edns = Edns {
            udp_size: self.class,
            version: (self.record.ttl >> 16) as u8,
            ..Edns::default()
        };
        let mut reader = Reader {
            message: &self.data,
            at: 0,
        };
        while reader.at < self.data.len() {
            let code = reader.u16()?;
            let length = reader.u16()?;
            let content = reader.take(usize::from(length))?.to_vec();
            if code == 8 {
                edns.client_subnet = Some(client_subnet(&content)?);
            }
            edns.options.push((code, content));
        }
        Ok(edns)
    }
}

fn client_subnet(content: &[u8]) -> io::Result<ClientSubnet> {
    let mut reader = Reader {
        message: content,
        at: 0,
    };
    let family = reader.u16()?;
    let [source, scope] = reader.u16()?.to_be_bytes();
    Ok(ClientSubnet {
        family,
        source,
        scope,
        address: content[4..].to_vec(),
    })
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let taken = self.message.get(self.at..self.at + length);
        self.at += length;
        taken.ok_or_else(|| unlawful("a message that ends early"))
    }

    fn u16(&mut self) -> io::Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    /// Follows pointers (RFC 1035 §4.1.4), which must point backwards.
    fn name(&mut self) -> io::Result<String> {
        let mut labels: Vec<String> = Vec::new();
        let mut at = self.at;
        let mut jumped = false;
        let mut earliest = self.at;
        loop {
            let mut here = Reader {
                message: self.message,
                at,
            };
            let length = here.take(1)?[0];
            let after_label = match length {
                0 => {
                    if !jumped {
                        self.at = here.at;
                    }
                    return Ok(labels.join(".").to_ascii_lowercase());
                }
                1..=63 => {
                    let label = here.take(usize::from(length))?;
                    labels.push(String::from_utf8_lossy(label).into_owned());
                    here.at
                }
                192.. => {
                    let low = here.take(1)?[0];
                    if !jumped {
                        self.at = here.at;
                    }
                    jumped = true;
                    let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                    if target >= earliest {
                        return Err(unlawful("a name's pointer that does not point back"));
                    }
                    earliest = target;
                    target
                }
                _ => return Err(unlawful("a label's length")),
            };
            at = after_label;
        }
    }

    fn record(&mut self) -> io::Result<RawRecord> {
        let name = self.name()?;
        let kind = self.u16()?;
        let class = self.u16()?;
        let ttl = self.u32()?;
        let length = usize::from(self.u16()?);
        let start = self.at;
        let bytes = self.take(length)?;
        let data = match (kind, bytes.len()) {
            (kind::A, 4) => {
                let octets: [u8; 4] = bytes.try_into().map_err(|_| unlawful("an A record"))?;
                Data::Address(octets.into())
            }
            (kind::AAAA, 16) => {
                let octets: [u8; 16] = bytes.try_into().map_err(|_| unlawful("AAAA"))?;
                Data::Address(octets.into())
            }
            (kind::A | kind::AAAA, _) => return Err(unlawful("an address record's length")),
            (kind::NS | kind::CNAME, _) => {
                let mut inner = Reader {
                    message: self.message,
                    at: start,
                };
                Data::Name(inner.name()?)
            }
            _ => Data::Other(bytes.to_vec()),
        };
        let record = Record {
            name,
            kind,
            ttl,
            data,
        };
        Ok(RawRecord {
            record,
            class,
            data: bytes.to_vec(),
        })
    }
}

fn unlawful(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not lawful DNS: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to `www.example.test A` with ECS 192.0.2.0/24 scope 20, by a CNAME.
    fn message() -> Vec<u8> {
        let mut message = vec![0x5e, 0xa1, 0x84, 0, 0, 1, 0, 2, 0, 0, 0, 1];
        message.extend_from_slice(b"\x03www\x07example\x04test\0\0\x01\0\x01");
        message.extend_from_slice(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x06\x03api\xc0\x10");
        message.extend_from_slice(b"\xc0\x2e\0\x01\0\x01\0\0\0\x0a\0\x04\xc0\0\x02\x0a");
        message.extend_from_slice(
            b"\0\0\x29\x04\xd0\0\0\0\0\0\x0b\0\x08\0\x07\0\x01\x18\x14\xc0\0\x02",
        );
        message
    }

    #[test]
    fn an_answer_is_taken_apart() {
        let answer = Answer::parse(&message()).unwrap();

        assert_eq!(
            (answer.rcode, answer.authoritative, answer.truncated),
            (0, true, false)
        );
        assert_eq!(
            answer.addresses(),
            ["192.0.2.10".parse::<IpAddr>().unwrap()]
        );
        assert_eq!((answer.ttl(), answer.scope()), (Some(10), Some(20)));
        assert_eq!(
            answer.answers[0].data,
            Data::Name("api.example.test".to_owned())
        );
        assert_eq!(answer.answers[1].name, "api.example.test");
        assert_eq!(answer.edns.unwrap().udp_size, 1232);
    }

    #[test]
    fn a_broken_answer_is_an_error_and_never_a_panic() {
        let sound = message();
        for at in 0..sound.len() {
            assert!(Answer::parse(&sound[..at]).is_err());
            for flip in 1..=255 {
                let mut broken = sound.clone();
                broken[at] ^= flip;
                let _ = Answer::parse(&broken);
            }
        }
    }

    #[test]
    fn a_question_carries_its_subnet_masked_and_no_longer_than_needed() {
        let question = Question::a("api.example.test").client_subnet("192.0.2.255/22");
        let bytes = question.bytes();

        assert!(bytes.ends_with(&[0, 8, 0, 7, 0, 1, 22, 0, 192, 0, 0]));
        assert_eq!(bytes[..12], [0x5e, 0xa1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(parse_subnet("192.0.2.0/33"), None);
    }
}
