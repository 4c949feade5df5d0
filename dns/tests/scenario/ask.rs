//! Questions of a script, and whether their answers are what it expects.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use sealane_dns::engine::{
    Answered, Client, STREAM_SIZE_MAX, Transport, UDP_SIZE_MAX, answer, answer_to,
};
use sealane_dns::name::Name;
use sealane_dns::record::Record;
use sealane_model::{Snapshot, Ttl};

use super::reply::{Entry, Expected, RCODES, Reply, SECTIONS};
use super::stage::{Shares, Stage};
use super::{Block, Words, share};

/// Where questions come from that say nothing else.
const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 53));
/// The option of extended DNS errors (RFC 8914).
const EDE: u16 = 15;
/// A share may be off by this much: chance.
const SHARE_TOLERANCE: f64 = 0.02;

/// One question.
#[derive(Clone)]
struct Ask {
    /// As it goes over the wire, with its case.
    name: Vec<u8>,
    rtype: u16,
    class: u16,
    opcode: u8,
    flags: [u8; 2],
    transport: Transport,
    source: IpAddr,
    edns: Option<u16>,
    edns_version: u8,
    dnssec_ok: bool,
    subnet: Option<Vec<u8>>,
    options: Vec<u8>,
}

/// What is wrong, and in which line.
type Wrong = (usize, String);

/// Asks and compares.
pub(crate) fn check(stage: &mut Stage, block: &Block) -> Result<(), Wrong> {
    let here = |error: String| (block.line, error);
    let ask = Ask::read(stage, &block.words[1..]).map_err(here)?;
    let origin = stage.origin.clone();
    let (rules, world, now) = stage.now().map_err(here)?;
    let mut out = vec![0xee; ask.room()];
    let client = Client {
        address: ask.source,
        transport: ask.transport,
        cookies: None,
        now,
    };
    let answered = answer_to(client, &ask.message(), rules, &world, &mut out);
    if block.below.iter().any(|(_, line)| line == "silence") {
        return match answered {
            None => Ok(()),
            Some(answered) => Err(here(format!("silence was expected, got {answered:?}"))),
        };
    }
    let Some(answered) = answered else {
        return Err(here("no answer came".to_owned()));
    };
    out.truncate(answered.length);
    let reply = Reply::read(&out).map_err(|error| here(format!("{error}: {out:02x?}")))?;
    ask.examine(&reply).map_err(here)?;
    let met = Met {
        reply: &reply,
        answered: &answered,
        world: &world,
        origin: origin.as_ref(),
    };
    met.all(block)
}

/// Asks once for each of many clients and counts which address comes first.
pub(crate) fn check_spread(stage: &mut Stage, block: &Block) -> Result<(), Wrong> {
    let here = |error: String| (block.line, error);
    let at_over = block.words.iter().position(|word| word == "over");
    let at_over = at_over.ok_or_else(|| here("SPREAD NAME TYPE over NET clients N".to_owned()))?;
    let ask = Ask::read(stage, &block.words[1..at_over]).map_err(here)?;
    let (net, count) = over(&block.words[at_over + 1..]).map_err(here)?;
    let (rules, world, _) = stage.now().map_err(here)?;
    let mut shares = Shares::new();
    for number in 0..count {
        // A network of its own for each, spread over the whole.
        let client = u32::from(net).wrapping_add(number << 8);
        let mut ask = ask.clone();
        ask.with_subnet(Ipv4Addr::from(client).into(), 24);
        let mut out = vec![0; ask.room()];
        let message = ask.message();
        let answered = answer(&message, ask.source, ask.transport, rules, &world, &mut out);
        out.truncate(answered.map_or(0, |answered| answered.length));
        let reply = Reply::read(&out).map_err(here)?;
        let first = reply.sections[0].first();
        let first = first.map_or_else(|| reply.rcode_word(), last_word);
        *shares.entry(first).or_default() += 1;
    }
    compare_shares(&shares, count, block)
}

fn last_word(entry: &Entry) -> String {
    let text = entry.describe();
    text.rsplit(' ').next().unwrap_or_default().to_owned()
}

fn over(words: &[String]) -> Result<(Ipv4Addr, u32), String> {
    let mut words = Words::of(words);
    let net = words.want("a network")?;
    let net = net.split_once('/').map_or(net, |(address, _)| address);
    let net = net
        .parse()
        .map_err(|_| format!("{net:?}: no IPv4 network"))?;
    let ("clients", count) = (words.want("clients")?, words.read("a number")?) else {
        return Err("clients N".to_owned());
    };
    Ok((net, count))
}

fn compare_shares(shares: &Shares, count: u32, block: &Block) -> Result<(), Wrong> {
    let mut expected = BTreeMap::new();
    for (line, text) in &block.below {
        let (what, part) = text
            .split_once(' ')
            .ok_or_else(|| (*line, "ADDRESS SHARE".to_owned()))?;
        let part = share(part.trim()).map_err(|error| (*line, error))?;
        expected.insert(what.to_owned(), part);
    }
    let got = |what: &str| shares.get(what).copied().unwrap_or(0) as f64 / f64::from(count);
    let off = |(what, part): (&String, &f64)| (got(what) - part).abs() > SHARE_TOLERANCE;
    let unexpected = shares.keys().any(|what| !expected.contains_key(what));
    if unexpected || expected.iter().any(off) {
        let got: Vec<String> = shares
            .keys()
            .map(|what| format!("{what} {:.1}%", got(what) * 100.0))
            .collect();
        return Err((block.line, format!("got {}", got.join(", "))));
    }
    Ok(())
}

impl Ask {
    fn read(stage: &Stage, words: &[String]) -> Result<Self, String> {
        let mut words = Words::of(words);
        let name = stage_name(stage, words.want("a name")?)?;
        let mut ask = Self {
            name,
            rtype: type_number(words.want("a type")?)?,
            class: 1,
            opcode: 0,
            flags: [0; 2],
            transport: Transport::Udp,
            source: RESOLVER,
            edns: None,
            edns_version: 0,
            dnssec_ok: false,
            subnet: None,
            options: Vec::new(),
        };
        while let Some(word) = words.next() {
            ask.word(word, &mut words)?;
        }
        Ok(ask)
    }

    fn word(&mut self, word: &str, words: &mut Words<'_>) -> Result<(), String> {
        match word {
            "from" => self.source = words.read("an address")?,
            "ecs" => {
                let text = words.want("IP/BITS")?;
                let (address, bits) = text.split_once('/').ok_or("ecs IP/BITS")?;
                let address = address
                    .parse()
                    .map_err(|_| format!("{text:?}: no address"))?;
                let bits = bits.parse().map_err(|_| format!("{text:?}: no bits"))?;
                self.with_subnet(address, bits);
            }
            "edns" => self.edns = Some(words.read("a size")?),
            "version" => {
                self.edns_version = words.read("a version")?;
                self.edns.get_or_insert(1_232);
            }
            "do" => {
                self.dnssec_ok = true;
                self.edns.get_or_insert(1_232);
            }
            "option" => {
                let code: u16 = words.read("an option's number")?;
                let data = hex(words.want("its data in hexadecimal, or -")?)?;
                self.option(code, &data);
            }
            "tcp" => self.transport = Transport::Stream,
            "tls" => self.transport = Transport::Tls,
            "rd" => self.flags[0] |= 1,
            "aa" => self.flags[0] |= 4,
            "tc" => self.flags[0] |= 2,
            "cd" => self.flags[1] |= 0x10,
            "ad" => self.flags[1] |= 0x20,
            "qr" => self.flags[0] |= 0x80,
            "opcode" => self.opcode = words.read("an opcode")?,
            "class" => {
                self.class = match words.want("a class")? {
                    "CH" => 3,
                    "HS" => 4,
                    "ANY" => 255,
                    word => word.parse().map_err(|_| format!("{word:?} is no class"))?,
                }
            }
            word => return Err(format!("{word:?} is not expected here")),
        }
        Ok(())
    }

    fn with_subnet(&mut self, address: IpAddr, bits: u8) {
        let (family, octets) = match address {
            IpAddr::V4(v4) => (1, v4.octets().to_vec()),
            IpAddr::V6(v6) => (2, v6.octets().to_vec()),
        };
        let mut data = vec![0, family, bits, 0];
        let length = usize::from(bits).div_ceil(8).min(octets.len());
        data.extend_from_slice(&octets[..length]);
        self.option(8, &data);
        self.subnet = Some(data);
    }

    fn option(&mut self, code: u16, data: &[u8]) {
        self.edns.get_or_insert(1_232);
        self.options.extend_from_slice(&code.to_be_bytes());
        let length = u16::try_from(data.len()).expect("a short option");
        self.options.extend_from_slice(&length.to_be_bytes());
        self.options.extend_from_slice(data);
    }

    fn room(&self) -> usize {
        match self.transport {
            Transport::Udp => UDP_SIZE_MAX,
            _ => STREAM_SIZE_MAX,
        }
    }

    fn message(&self) -> Vec<u8> {
        let flags = [self.flags[0] | self.opcode << 3, self.flags[1]];
        let mut message = vec![0x5e, 0xa1, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(&self.name);
        message.extend_from_slice(&self.rtype.to_be_bytes());
        message.extend_from_slice(&self.class.to_be_bytes());
        if let Some(size) = self.edns {
            message[11] = 1;
            message.extend_from_slice(&[0, 0, 41]);
            message.extend_from_slice(&size.to_be_bytes());
            message.extend_from_slice(&[0, self.edns_version, u8::from(self.dnssec_ok) << 7, 0]);
            let length = u16::try_from(self.options.len()).expect("few options");
            message.extend_from_slice(&length.to_be_bytes());
            message.extend_from_slice(&self.options);
        }
        message
    }

    /// What holds for every answer.
    fn examine(&self, reply: &Reply) -> Result<(), String> {
        let message = self.message();
        let wrong = |what: &str| Err(format!("{what}; got {}", reply.describe()));
        if reply.id != message[..2] || reply.opcode != self.opcode {
            return wrong("id or opcode are not the question's");
        }
        let question = &message[12..12 + self.name.len() + 4];
        if reply.question != question {
            return wrong("the question is not repeated octet for octet");
        }
        if reply.edns.is_some() != self.edns.is_some() {
            return wrong("OPT belongs in the answer to a question with OPT, and there only");
        }
        let Some(edns) = &reply.edns else {
            return Ok(());
        };
        if edns.size != 1_232 || edns.version != 0 || edns.dnssec_ok != self.dnssec_ok {
            return wrong("OPT says 1232, version 0, and DO as it was asked");
        }
        let echoed = reply.option(8);
        let is_refused = [1, 4, 16].contains(&reply.rcode);
        match (&self.subnet, echoed) {
            (Some(sent), Some(echoed)) if sent[..3] == echoed[..3] && sent[4..] == echoed[4..] => {}
            (Some(_), None) if is_refused => {}
            (None, None) => {}
            _ => return wrong("a client subnet comes back as it was sent"),
        }
        Ok(())
    }
}

fn stage_name(stage: &Stage, text: &str) -> Result<Vec<u8>, String> {
    let lower = stage.name(text)?;
    // Letters keep the case in which they stand in the script.
    let mut wire = lower.wire().to_vec();
    let mut letters = text.bytes().filter(|octet| *octet != b'.');
    let mut at = 0;
    while wire[at] != 0 {
        for place in at + 1..=at + usize::from(wire[at]) {
            match letters.next() {
                Some(letter) if letter.eq_ignore_ascii_case(&wire[place]) => wire[place] = letter,
                _ => return Ok(wire),
            }
        }
        at += usize::from(wire[at]) + 1;
    }
    Ok(wire)
}

fn type_number(word: &str) -> Result<u16, String> {
    let types = [
        ("A", 1),
        ("NS", 2),
        ("CNAME", 5),
        ("SOA", 6),
        ("PTR", 12),
        ("HINFO", 13),
        ("MX", 15),
        ("TXT", 16),
        ("RP", 17),
        ("AAAA", 28),
        ("LOC", 29),
        ("SRV", 33),
        ("NAPTR", 35),
        ("DNAME", 39),
        ("DS", 43),
        ("SSHFP", 44),
        ("RRSIG", 46),
        ("NSEC", 47),
        ("DNSKEY", 48),
        ("TLSA", 52),
        ("SMIMEA", 53),
        ("SVCB", 64),
        ("HTTPS", 65),
        ("IXFR", 251),
        ("AXFR", 252),
        ("MAILB", 253),
        ("ANY", 255),
        ("URI", 256),
        ("CAA", 257),
    ];
    let known = types.iter().find(|(name, _)| *name == word);
    let number = known.map(|(_, number)| *number);
    number
        .or_else(|| word.strip_prefix("TYPE")?.parse().ok())
        .ok_or_else(|| format!("{word:?} is no type"))
}

fn hex(word: &str) -> Result<Vec<u8>, String> {
    if word == "-" {
        return Ok(Vec::new());
    }
    (0..word.len())
        .step_by(2)
        .map(|at| {
            let two = word
                .get(at..at + 2)
                .and_then(|two| u8::from_str_radix(two, 16).ok());
            two.ok_or_else(|| format!("{word:?} is not hexadecimal"))
        })
        .collect()
}

/// An answer, against what is expected of it.
struct Met<'a> {
    reply: &'a Reply,
    answered: &'a Answered,
    world: &'a Snapshot,
    origin: Option<&'a Name>,
}

impl Met<'_> {
    fn all(&self, block: &Block) -> Result<(), Wrong> {
        let mut expected: [Vec<Expected>; 3] = Default::default();
        let mut lines = block.below.iter();
        let (line, head) = lines
            .next()
            .ok_or_else(|| (block.line, "nothing is expected".to_owned()))?;
        self.head(head).map_err(|error| (*line, error))?;
        let mut has_scope = false;
        for (line, text) in lines {
            has_scope |= text.starts_with("scope ");
            self.line(text, &mut expected)
                .map_err(|error| (*line, error))?;
        }
        if self.reply.option(8).is_some() && !has_scope {
            let error = "the answer has a client subnet: which `scope` is expected?";
            return Err((block.line, format!("{error} got {}", self.reply.describe())));
        }
        self.sections(&expected)
            .map_err(|error| (block.line, error))
    }

    fn got(&self, expected: &str) -> String {
        format!("expected {expected}, got {}", self.reply.describe())
    }

    /// `noerror aa`
    fn head(&self, text: &str) -> Result<(), String> {
        let (word, flags) = text.split_once(' ').unwrap_or((text, ""));
        let known = RCODES.iter().find(|(name, _)| *name == word);
        let (_, rcode) = known.ok_or_else(|| format!("{word:?} is no response code"))?;
        let flags: Vec<&str> = flags.split_whitespace().collect();
        if *rcode == self.reply.rcode && flags == self.reply.flags {
            return Ok(());
        }
        Err(self.got(text))
    }

    fn line(&self, text: &str, expected: &mut [Vec<Expected>; 3]) -> Result<(), String> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        if let Some(section) = SECTIONS.iter().position(|section| *section == word) {
            expected[section].push(self.record(rest)?);
            return Ok(());
        }
        let steered = self.answered.steered;
        let holds = match word {
            "scope" => {
                let scope = self.reply.option(8).map(|data| data[3].to_string());
                scope.as_deref() == Some(rest)
            }
            "reason" => {
                let reason = steered.map(|to| to.reason.describe(&self.world.topology));
                reason.as_deref() == Some(rest)
            }
            "region" => {
                let region = steered.and_then(|to| to.region);
                let name = region.map(|region| self.world.topology.region_name(region));
                name.unwrap_or("none") == rest
            }
            "canary" => steered.is_some_and(|to| to.canary),
            "size" => {
                let most = rest.trim_start_matches("<=").parse::<usize>();
                most.is_ok_and(|most| self.reply.length <= most)
            }
            "option" => {
                let (code, data) = rest.split_once(' ').unwrap_or((rest, "-"));
                let code = code.parse().map_err(|_| format!("{code:?} is no option"))?;
                match data {
                    "none" => self.reply.option(code).is_none(),
                    data => self.reply.option(code) == Some(&hex(data)?),
                }
            }
            "ede" => {
                let code = self.reply.option(EDE).and_then(|data| data.first_chunk());
                let code = code.map(|code| u16::from_be_bytes(*code).to_string());
                code.as_deref().unwrap_or("none") == rest
            }
            // How many records of which section, where all of them would be too long a list.
            "count" => {
                let (section, number) = rest.split_once(' ').unwrap_or((rest, ""));
                let place = SECTIONS.iter().position(|name| *name == section);
                let section = place.map(|place| &self.reply.sections[place]);
                section.is_some_and(|section| section.len().to_string() == number)
            }
            word => return Err(format!("{word:?} says nothing of an answer")),
        };
        if holds {
            return Ok(());
        }
        Err(format!("{}; {steered:?}", self.got(text)))
    }

    /// `OWNER TTL TYPE [DATA]`
    fn record(&self, text: &str) -> Result<Expected, String> {
        let mut parts = text.splitn(4, char::is_whitespace);
        let mut part = || parts.next().ok_or("OWNER TTL TYPE DATA");
        let (owner, ttl, kind) = (part()?, part()?, part()?);
        let data = parts.next().map(str::trim).filter(|data| !data.is_empty());
        let owner = Name::parse(owner, self.origin).map_err(|error| error.to_string())?;
        let ttl = Ttl::from_secs(ttl.parse().map_err(|_| format!("{ttl:?} is no TTL"))?);
        let class = self.reply.question.last().copied().unwrap_or(1).into();
        let origin = self.origin.cloned().unwrap_or_else(Name::root);
        let data = match data {
            Some(data) => {
                let record = Record::parse(owner.clone(), kind, ttl, data, &origin);
                Some(record.map_err(|error| error.to_string())?.data.to_vec())
            }
            None => None,
        };
        Ok(Expected {
            owner,
            rtype: type_number(kind)?,
            class,
            ttl,
            data,
        })
    }

    /// In any order: resolvers shuffle them anyway.
    fn sections(&self, expected: &[Vec<Expected>; 3]) -> Result<(), String> {
        for ((name, expected), got) in SECTIONS.iter().zip(expected).zip(&self.reply.sections) {
            let mut left: Vec<&Entry> = got.iter().collect();
            for one in expected {
                let Some(place) = left.iter().position(|entry| entry.is(one)) else {
                    let data = one.data.as_ref().map(|data| Entry {
                        owner: one.owner.clone(),
                        rtype: one.rtype,
                        class: one.class,
                        ttl: one.ttl.as_secs(),
                        data: data.clone(),
                    });
                    let text = data.map_or_else(|| format!("{one:?}"), |entry| entry.describe());
                    return Err(self.got(&format!("{name} {text}")));
                };
                left.swap_remove(place);
            }
            let counted = got.len() > 20;
            if !left.is_empty() && !counted {
                return Err(self.got(&format!("no more in the {name} section")));
            }
        }
        Ok(())
    }
}
