//! One question, as it goes over the wire, and how it is put to a server. Lets none go unanswered by chance: a
//! datagram that is lost is sent again.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use sealane_dns::name::Name;

use crate::reply::Reply;

/// Long enough for a busy machine; only what a server does not answer at all takes so long.
const PATIENCE: Duration = Duration::from_secs(5);
const TRIES: usize = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Uncompressed, with its case.
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) opcode: u8,
    pub(crate) recursion_desired: bool,
    pub(crate) checking_disabled: bool,
    pub(crate) authentic: bool,
    pub(crate) edns: Option<Edns>,
    pub(crate) by_tcp: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    pub(crate) size: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
    pub(crate) options: Vec<(u16, Vec<u8>)>,
}

impl Edns {
    pub(crate) const fn of_size(size: u16) -> Self {
        Self {
            size,
            version: 0,
            dnssec_ok: false,
            options: Vec::new(),
        }
    }

    pub(crate) fn has(&self, code: u16) -> bool {
        self.options.iter().any(|(known, _)| *known == code)
    }
}

impl Ask {
    pub(crate) fn of(name: Vec<u8>, kind: u16) -> Self {
        Self {
            name,
            kind,
            class: 1,
            opcode: 0,
            recursion_desired: false,
            checking_disabled: false,
            authentic: false,
            edns: None,
            by_tcp: false,
        }
    }

    pub(crate) fn message(&self, id: u16) -> Vec<u8> {
        let flags = [
            self.opcode << 3 | u8::from(self.recursion_desired),
            u8::from(self.authentic) << 5 | u8::from(self.checking_disabled) << 4,
        ];
        let mut message = id.to_be_bytes().to_vec();
        message.extend_from_slice(&flags);
        message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())]);
        message.extend_from_slice(&self.name);
        message.extend_from_slice(&self.kind.to_be_bytes());
        message.extend_from_slice(&self.class.to_be_bytes());
        if let Some(edns) = &self.edns {
            edns.write(&mut message);
        }
        message
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        let name = Name::from_wire(&self.name).map_or_else(|| "?".to_owned(), |n| n.to_string());
        let Self {
            kind,
            class,
            opcode,
            by_tcp,
            edns,
            ..
        } = self;
        let by = if *by_tcp { "tcp" } else { "udp" };
        format!("{name} TYPE{kind} CLASS{class} opcode {opcode} by {by}, {edns:?}")
    }
}

impl Edns {
    fn write(&self, message: &mut Vec<u8>) {
        message.extend_from_slice(&[0, 0, 41]);
        message.extend_from_slice(&self.size.to_be_bytes());
        message.extend_from_slice(&[0, self.version, u8::from(self.dnssec_ok) << 7, 0]);
        let mut options = Vec::new();
        for (code, data) in &self.options {
            options.extend_from_slice(&code.to_be_bytes());
            options.extend_from_slice(&(data.len() as u16).to_be_bytes());
            options.extend_from_slice(data);
        }
        message.extend_from_slice(&(options.len() as u16).to_be_bytes());
        message.extend_from_slice(&options);
    }
}

/// How a server is reached.
pub(crate) struct Line {
    server: SocketAddr,
    udp: UdpSocket,
    tcp: Option<TcpStream>,
    last_id: u16,
}

impl Line {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.connect(server).unwrap();
        udp.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            server,
            udp,
            tcp: None,
            last_id: 0,
        }
    }

    /// What comes back, or that nothing does.
    pub(crate) fn put(&mut self, ask: &Ask) -> Result<Reply, String> {
        let begun = self.begin(ask);
        self.end(ask, begun)
    }

    /// Sends the question: others may be asked before its answer is taken.
    pub(crate) fn begin(&mut self, ask: &Ask) -> io::Result<Vec<u8>> {
        self.last_id = self.last_id.wrapping_add(1);
        let message = ask.message(self.last_id);
        if !ask.by_tcp {
            self.udp.send(&message)?;
            return Ok(message);
        }
        let framed = [&(message.len() as u16).to_be_bytes()[..], &message].concat();
        self.stream()?.write_all(&framed)?;
        Ok(message)
    }

    /// Takes the answer; asks again where none comes.
    pub(crate) fn end(&mut self, ask: &Ask, begun: io::Result<Vec<u8>>) -> Result<Reply, String> {
        let mut begun = begun;
        for _ in 1..TRIES {
            match begun.and_then(|message| self.take(ask, &message)) {
                Ok(bytes) => return Reply::read(&bytes).map_err(|e| format!("{e}: {bytes:02x?}")),
                Err(_) => self.tcp = None,
            }
            begun = self.begin(ask);
        }
        let bytes = begun.and_then(|message| self.take(ask, &message));
        let bytes = bytes.map_err(|error| format!("no answer: {error}"))?;
        Reply::read(&bytes).map_err(|error| format!("{error}: {bytes:02x?}"))
    }

    fn stream(&mut self) -> io::Result<&mut TcpStream> {
        let stream = match self.tcp.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.server)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        Ok(self.tcp.insert(stream))
    }

    fn take(&mut self, ask: &Ask, message: &[u8]) -> io::Result<Vec<u8>> {
        if ask.by_tcp {
            let stream = self.stream()?;
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut bytes)?;
            return Ok(bytes);
        }
        let mut bytes = vec![0; 65_535];
        loop {
            let length = self.udp.recv(&mut bytes)?;
            // Another one is that of an earlier try.
            if bytes.get(..2) == message.get(..2) {
                bytes.truncate(length);
                return Ok(bytes);
            }
        }
    }
}
