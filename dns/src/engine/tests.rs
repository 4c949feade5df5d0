//! Scenarios on real octets: a question in, an answer out, in a fixed world.

use std::collections::BTreeSet;
use std::sync::Arc;

use sealane_model::{AllDown, OutReason, Snapshot, Ttl, Verdict};
use sealane_steering::{GeoOverride, GeoTable, SteeringPolicy, Weights};
use sealane_testkit::World;
use sealane_testkit::mmdb::{self, Record as Place};

use super::*;
use crate::config::{self, Config, SteeredName};
use crate::name::Name;
use crate::record::parse_zone_file;
use crate::wire::option;

const ZONE: &str = r#"
$TTL 300
@ 3600 SOA ns1 hostmaster 7 3600 900 604800 10
@ NS ns1
@ NS ns2.elsewhere.example.
@ MX 10 mail
ns1 A 192.0.2.53
www A 192.0.2.80
www AAAA 2001:db8::80
alias CNAME www
twice CNAME alias
steeredalias CNAME api
outside CNAME www.elsewhere.example.
dangling CNAME nowhere
ring CNAME gnir
gnir CNAME ring
a.b TXT "below b"
*.wild TXT "anything"
*.wildalias CNAME www
sub NS ns.sub
sub NS ns.other.example.
sub NS ns1
ns.sub A 192.0.2.54
ns.sub AAAA 2001:db8::54
api TXT "steered names may have text"
"#;

/// Germany and Virginia, each a test network of its own.
const GERMANY: &str = "203.0.113.0/24";
const VIRGINIA: &str = "198.51.100.0/24";
const RESOLVER: &str = "198.51.100.53";

fn world() -> World {
    World::new()
        .region("eu", Verdict::Up)
        .at(50.11, 8.68)
        .addresses(&["192.0.2.10", "2001:db8::10"])
        .region("us", Verdict::Up)
        .at(39.04, -77.49)
        .addresses(&["192.0.2.20"])
}

fn rules(world: &Snapshot) -> Rules {
    rules_with(world, |_| {})
}

fn rules_with(world: &Snapshot, change: impl Fn(&mut SteeredName)) -> Rules {
    let apex = Name::parse("example.test", None).unwrap();
    let mut text = ZONE.to_owned();
    for i in 0..60 {
        text.push_str(&format!("many A 10.0.0.{i}\n"));
    }
    for i in 0..5_000 {
        text.push_str(&format!("toomany A 10.1.{}.{}\n", i / 250, i % 250));
    }
    let file = parse_zone_file(&text, &apex, Ttl::from_secs(60)).unwrap();
    let mut steered = SteeredName::new(
        Name::parse("api", Some(&apex)).unwrap(),
        world.topology.pool_named("api").unwrap().id,
        Arc::new(SteeringPolicy::Nearest),
    );
    change(&mut steered);
    let table = mmdb::table(&[
        (GERMANY, Place::At(51.0, 9.0)),
        (VIRGINIA, Place::At(39.0, -77.0)),
        ("2001:db8:1::/48", Place::At(51.0, 9.0)),
    ]);
    let us = world.topology.region_named("us").unwrap().id;
    let overrides = [GeoOverride {
        net: "10.9.0.0/16".parse().unwrap(),
        region: us,
    }];
    let mut zone = config::Zone::new(apex, file.soa.unwrap(), file.records);
    zone.steered.push(steered);
    let geo = GeoTable::build(Some(table), &overrides).unwrap();
    Rules::compile(&Config::new(vec![zone], Arc::new(geo)))
}

/// A question to be sent.
#[derive(Clone)]
struct Ask {
    name: Vec<u8>,
    rtype: u16,
    edns: Option<(u16, Vec<u8>)>,
    transport: Transport,
    source: &'static str,
}

fn ask(name: &str, rtype: u16) -> Ask {
    let origin = Name::parse("example.test", None).unwrap();
    Ask {
        name: Name::parse(name, Some(&origin)).unwrap().wire().to_vec(),
        rtype,
        edns: None,
        transport: Transport::Udp,
        source: RESOLVER,
    }
}

impl Ask {
    fn from(mut self, source: &'static str) -> Self {
        self.source = source;
        self
    }

    fn by_stream(mut self) -> Self {
        self.transport = Transport::Stream;
        self
    }

    fn edns(mut self, size: u16) -> Self {
        self.edns = Some((size, Vec::new()));
        self
    }

    /// With a client subnet, as `address/bits`.
    fn subnet(mut self, subnet: &str) -> Self {
        let (address, bits) = subnet.split_once('/').unwrap();
        let bits: u8 = bits.parse().unwrap();
        let (family, octets) = match address.parse().unwrap() {
            IpAddr::V4(v4) => (1, v4.octets().to_vec()),
            IpAddr::V6(v6) => (2, v6.octets().to_vec()),
        };
        let octets = &octets[..usize::from(bits).div_ceil(8)];
        let mut option = vec![0, 8, 0, 4 + octets.len() as u8, 0, family, bits, 0];
        option.extend_from_slice(octets);
        self.edns = Some((1232, option));
        self
    }

    fn message(&self) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(&self.name);
        message.extend_from_slice(&self.rtype.to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        if let Some((size, options)) = &self.edns {
            message[11] = 1;
            message.extend_from_slice(&[0, 0, 41]);
            message.extend_from_slice(&size.to_be_bytes());
            message.extend_from_slice(&[0, 0, 0, 0, 0, options.len() as u8]);
            message.extend_from_slice(options);
        }
        message
    }

    fn of(&self, rules: &Rules, world: &Snapshot) -> Reply {
        let reply = send(&self.message(), self.source, self.transport, rules, world);
        Reply::read(&reply.unwrap())
    }
}

fn send(
    message: &[u8],
    source: &str,
    transport: Transport,
    rules: &Rules,
    world: &Snapshot,
) -> Option<Vec<u8>> {
    let mut out = match transport {
        Transport::Udp => vec![0xee; UDP_SIZE_MAX],
        _ => vec![0xee; STREAM_SIZE_MAX],
    };
    let source = source.parse().unwrap();
    let answered = answer(message, source, transport, rules, world, &mut out)?;
    out.truncate(answered.length);
    Some(out)
}

/// An answer, read by other code than wrote it.
#[derive(Debug, Default, PartialEq)]
struct Reply {
    length: usize,
    flags: Vec<&'static str>,
    rcode: u16,
    question: Vec<u8>,
    answers: Vec<String>,
    authorities: Vec<String>,
    additionals: Vec<String>,
    has_opt: bool,
    /// Source and scope of the client subnet.
    subnet: Option<(u8, u8)>,
}

impl Reply {
    fn read(bytes: &[u8]) -> Self {
        assert_eq!(&bytes[..2], [0xab, 0xcd]);
        assert_ne!(bytes[2] & 0x80, 0, "QR");
        let flag = |set: bool, name| set.then_some(name);
        let mut reply = Self {
            length: bytes.len(),
            rcode: u16::from(bytes[3] & 0x0f),
            flags: [flag(bytes[2] & 4 != 0, "aa"), flag(bytes[2] & 2 != 0, "tc")]
                .into_iter()
                .flatten()
                .collect(),
            ..Self::default()
        };
        let count = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let mut at = 12;
        for _ in 0..count(4) {
            let begin = at;
            name_at(bytes, &mut at);
            at += 4;
            reply.question = bytes[begin..at].to_vec();
        }
        for _ in 0..count(6) {
            let record = reply.record(bytes, &mut at).unwrap();
            reply.answers.push(record);
        }
        for _ in 0..count(8) {
            let record = reply.record(bytes, &mut at).unwrap();
            reply.authorities.push(record);
        }
        for _ in 0..count(10) {
            if let Some(record) = reply.record(bytes, &mut at) {
                reply.additionals.push(record);
            }
        }
        assert_eq!(at, bytes.len(), "octets after the last record");
        reply
    }

    fn record(&mut self, bytes: &[u8], at: &mut usize) -> Option<String> {
        let owner = name_at(bytes, at);
        let fixed = &bytes[*at..*at + 10];
        let kind = u16::from_be_bytes([fixed[0], fixed[1]]);
        let ttl = u32::from_be_bytes(fixed[4..8].try_into().unwrap());
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        *at += 10;
        let begin = *at;
        *at += length;
        let data = &bytes[begin..*at];
        if kind == rtype::OPT {
            assert!(!std::mem::replace(&mut self.has_opt, true), "two OPT");
            assert_eq!(fixed[2..4], 1232_u16.to_be_bytes());
            self.rcode |= u16::from(fixed[4]) << 4;
            let mut options = data;
            while let [code_high, code_low, high, low, rest @ ..] = options {
                let (own, after) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
                match u16::from_be_bytes([*code_high, *code_low]) {
                    option::CLIENT_SUBNET => self.subnet = Some((own[2], own[3])),
                    code => assert_eq!(code, option::EDE),
                }
                options = after;
            }
            assert!(options.is_empty(), "half an option");
            return None;
        }
        let mut data_at = begin;
        let text = match kind {
            rtype::A => <[u8; 4]>::try_from(data)
                .map(IpAddr::from)
                .unwrap()
                .to_string(),
            rtype::AAAA => <[u8; 16]>::try_from(data)
                .map(IpAddr::from)
                .unwrap()
                .to_string(),
            rtype::NS | rtype::CNAME => name_at(bytes, &mut data_at),
            rtype::SOA => name_at(bytes, &mut data_at),
            _ => String::from_utf8_lossy(data).into_owned(),
        };
        Some(format!("{owner} {ttl} {} {text}", rtype::name(kind)))
    }
}

fn name_at(bytes: &[u8], at: &mut usize) -> String {
    let mut labels: Vec<String> = Vec::new();
    let mut here = *at;
    let mut end = None;
    loop {
        let length = usize::from(bytes[here]);
        if length >= 0xc0 {
            end.get_or_insert(here + 2);
            let target = (length & 0x3f) << 8 | usize::from(bytes[here + 1]);
            assert!(target < here, "a pointer forward");
            here = target;
            continue;
        }
        here += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(&bytes[here..here + length]).into_owned());
        here += length;
    }
    *at = end.unwrap_or(here);
    labels.join(".")
}

const SOA: &str = "example.test 10 SOA ns1.example.test";

#[test]
fn static_data_is_answered_with_authority() {
    let world = world().build();
    let rules = rules(&world);

    let reply = ask("www", rtype::A).of(&rules, &world);
    assert_eq!(reply.answers, ["www.example.test 300 A 192.0.2.80"]);
    assert_eq!(
        (reply.flags, reply.rcode, reply.has_opt),
        (vec!["aa"], 0, false)
    );

    let reply = ask("@", rtype::SOA).of(&rules, &world);
    assert_eq!(reply.answers, ["example.test 3600 SOA ns1.example.test"]);
    let reply = ask("@", rtype::NS).of(&rules, &world);
    assert_eq!(reply.answers.len(), 2);
    assert_eq!(reply.flags, ["aa"]);
}

#[test]
fn the_question_comes_back_with_its_case() {
    let world = world().build();
    let rules = rules(&world);
    let mut question = ask("www", rtype::A);
    question.name = b"\x03wWw\x07eXample\x04TEST\0".to_vec();

    let reply = question.of(&rules, &world);

    assert_eq!(reply.question, b"\x03wWw\x07eXample\x04TEST\0\0\x01\0\x01");
    assert_eq!(reply.answers, ["wWw.eXample.TEST 300 A 192.0.2.80"]);
}

#[test]
fn no_such_name_and_no_such_data_are_told_apart() {
    let world = world().build();
    let rules = rules(&world);
    let cases = [
        ("nowhere", rtype::A, 3),
        ("www", rtype::TXT, 0),
        ("b", rtype::A, 0),
        ("wild", rtype::TXT, 0),
        ("api", rtype::MX, 0),
        ("@", rtype::A, 0),
        ("@", rtype::DS, 0),
        ("x.www", rtype::A, 3),
    ];
    for (name, kind, rcode) in cases {
        let reply = ask(name, kind).of(&rules, &world);
        assert_eq!((reply.rcode, reply.answers.len()), (rcode, 0), "{name}");
        assert_eq!(reply.authorities, [SOA], "{name}");
        assert_eq!(reply.flags, ["aa"], "{name}");
    }
}

#[test]
fn what_is_not_ours_is_refused() {
    let world = world().build();
    let reply = ask("www.example.com.", rtype::A)
        .edns(4096)
        .of(&rules(&world), &world);
    assert_eq!(
        (reply.rcode, reply.flags.len(), reply.has_opt),
        (5, 0, true)
    );
    assert!(reply.authorities.is_empty());
}

#[test]
fn aliases_are_followed_within_our_zones() {
    let world = world().build();
    let rules = rules(&world);

    let reply = ask("twice", rtype::A).of(&rules, &world);
    assert_eq!(
        reply.answers,
        [
            "twice.example.test 300 CNAME alias.example.test",
            "alias.example.test 300 CNAME www.example.test",
            "www.example.test 300 A 192.0.2.80",
        ]
    );
    let reply = ask("steeredalias", rtype::A)
        .from("203.0.113.1")
        .of(&rules, &world);
    assert_eq!(reply.answers[1], "api.example.test 10 A 192.0.2.10");

    let reply = ask("outside", rtype::A).of(&rules, &world);
    assert_eq!(
        (reply.rcode, reply.answers.len(), reply.authorities.len()),
        (0, 1, 0)
    );

    let reply = ask("dangling", rtype::A).of(&rules, &world);
    assert_eq!((reply.rcode, reply.answers.len()), (3, 1));
    assert_eq!(reply.authorities, [SOA]);

    let reply = ask("alias", rtype::MX).of(&rules, &world);
    assert_eq!((reply.rcode, reply.answers.len()), (0, 1));
    assert_eq!(reply.authorities, [SOA]);

    let reply = ask("ring", rtype::A).of(&rules, &world);
    assert_eq!((reply.rcode, reply.answers.len()), (0, 2));

    let reply = ask("alias", rtype::CNAME).of(&rules, &world);
    assert_eq!(reply.answers.len(), 1);
}

#[test]
fn a_wildcard_speaks_under_the_name_that_was_asked() {
    let world = world().build();
    let rules = rules(&world);

    let reply = ask("x.y.wild", rtype::TXT).of(&rules, &world);
    assert_eq!(
        reply.answers,
        ["x.y.wild.example.test 300 TXT \u{8}anything"]
    );
    let reply = ask("x.wild", rtype::A).of(&rules, &world);
    assert_eq!((reply.rcode, reply.authorities), (0, vec![SOA.to_owned()]));
    let reply = ask("x.wildalias", rtype::A).of(&rules, &world);
    assert_eq!(reply.answers[1], "www.example.test 300 A 192.0.2.80");
}

#[test]
fn a_delegation_is_referred_to_with_glue_and_without_authority() {
    let world = world().build();
    let rules = rules(&world);
    for name in ["sub", "deep.below.sub", "ns.sub"] {
        let reply = ask(name, rtype::A).of(&rules, &world);
        assert_eq!(
            (reply.rcode, reply.flags.len(), reply.answers.len()),
            (0, 0, 0),
            "{name}"
        );
        assert_eq!(
            reply.authorities,
            [
                "sub.example.test 300 NS ns.sub.example.test",
                "sub.example.test 300 NS ns.other.example",
                "sub.example.test 300 NS ns1.example.test",
            ]
        );
        assert_eq!(
            reply.additionals,
            [
                "ns.sub.example.test 300 A 192.0.2.54",
                "ns.sub.example.test 300 AAAA 2001:db8::54",
                "ns1.example.test 300 A 192.0.2.53",
            ]
        );
    }
    let reply = ask("sub", rtype::DS).of(&rules, &world);
    assert_eq!(
        (reply.flags, reply.authorities),
        (vec!["aa"], vec![SOA.to_owned()])
    );
}

#[test]
fn any_gets_the_least_answer() {
    let world = world().build();
    let rules = rules(&world);
    for name in ["www", "api", "@"] {
        let reply = ask(name, rtype::ANY).of(&rules, &world);
        assert_eq!(reply.answers.len(), 1, "{name}");
        assert!(reply.answers[0].contains("HINFO"), "{name}");
    }
    assert!(ask("alias", rtype::ANY).of(&rules, &world).answers[0].contains("CNAME"));
    assert_eq!(ask("b", rtype::ANY).of(&rules, &world).authorities, [SOA]);
    assert_eq!(ask("@", rtype::AXFR).of(&rules, &world).rcode, 5);
}

#[test]
fn what_does_not_fit_is_truncated_and_keeps_its_opt() {
    let world = world().build();
    let rules = rules(&world);

    let plain = ask("many", rtype::A);
    let reply = plain.of(&rules, &world);
    assert_eq!(
        (reply.flags, reply.answers.len(), reply.has_opt),
        (vec!["aa", "tc"], 0, false)
    );
    let reply = plain.clone().edns(4096).of(&rules, &world);
    assert_eq!((reply.flags, reply.answers.len()), (vec!["aa"], 60));
    let reply = plain.clone().edns(600).of(&rules, &world);
    assert_eq!((reply.flags, reply.has_opt), (vec!["aa", "tc"], true));
    assert_eq!(plain.edns(0).of(&rules, &world).flags, ["aa", "tc"]);

    let reply = ask("toomany", rtype::A).edns(65_535).of(&rules, &world);
    assert_eq!(reply.flags, ["aa", "tc"]);
    let reply = ask("toomany", rtype::A).by_stream().of(&rules, &world);
    assert_eq!(
        (reply.rcode, reply.answers.len()),
        (2, 0),
        "65,535 octets are the end"
    );
    let reply = ask("many", rtype::A).by_stream().of(&rules, &world);
    assert_eq!(reply.answers.len(), 60);
}

#[test]
fn an_answer_never_exceeds_what_was_announced() {
    let world = world().build();
    let rules = rules(&world);
    for size in 0..1_400 {
        let reply = ask("many", rtype::A).edns(size).of(&rules, &world);
        assert!(reply.length <= usize::from(size).clamp(512, 1232), "{size}");
    }
}

#[test]
fn clients_are_sent_to_the_nearest_region_with_an_exact_scope() {
    let world = world().build();
    let rules = rules(&world);

    let reply = ask("api", rtype::A).subnet(GERMANY).of(&rules, &world);
    assert_eq!(reply.answers, ["api.example.test 10 A 192.0.2.10"]);
    assert_eq!(reply.subnet, Some((24, 24)));

    let reply = ask("api", rtype::A)
        .subnet(VIRGINIA)
        .from("203.0.113.1")
        .of(&rules, &world);
    assert_eq!(reply.answers, ["api.example.test 10 A 192.0.2.20"]);

    let reply = ask("api", rtype::A)
        .subnet("203.0.0.0/16")
        .of(&rules, &world);
    let (source, scope) = reply.subnet.unwrap();
    assert!(
        source == 16 && scope > 16,
        "the scope may exceed the source: {scope}"
    );
}

#[test]
fn without_a_subnet_the_resolver_is_located_and_no_option_is_sent() {
    let world = world().build();
    let rules = rules(&world);
    let reply = ask("api", rtype::A)
        .edns(1232)
        .from("203.0.113.9")
        .of(&rules, &world);
    assert_eq!(reply.answers, ["api.example.test 10 A 192.0.2.10"]);
    assert_eq!((reply.has_opt, reply.subnet), (true, None));
}

#[test]
fn a_subnet_of_no_bits_asks_not_to_be_located() {
    let world = world().build();
    let rules = rules(&world);
    let reply = ask("api", rtype::A)
        .subnet("0.0.0.0/0")
        .from("203.0.113.9")
        .of(&rules, &world);
    assert_eq!(reply.answers, ["api.example.test 10 A 192.0.2.10"]);
    assert_eq!(reply.subnet, Some((0, 0)));
}

#[test]
fn a_private_subnet_falls_back_to_the_resolver_for_its_own_block_only() {
    let world = world().build();
    let rules = rules(&world);
    for (subnet, least) in [
        ("10.0.0.0/24", 8),
        ("192.168.1.0/24", 16),
        ("172.20.0.0/16", 12),
        ("100.64.0.0/24", 10),
        ("fd00::/56", 7),
    ] {
        let reply = ask("api", rtype::A)
            .subnet(subnet)
            .from("203.0.113.9")
            .of(&rules, &world);
        assert_eq!(
            reply.answers,
            ["api.example.test 10 A 192.0.2.10"],
            "{subnet}"
        );
        let (_, scope) = reply.subnet.unwrap();
        assert!(scope >= least, "{subnet}: {scope}");
    }
    // The operator's word for a part of 10/8 counts.
    let reply = ask("api", rtype::A)
        .subnet("10.9.1.0/24")
        .from("203.0.113.9")
        .of(&rules, &world);
    assert_eq!(reply.answers, ["api.example.test 10 A 192.0.2.20"]);
    assert_eq!(reply.subnet, Some((24, 16)));
    // So the scope next to it must not cover it.
    let reply = ask("api", rtype::A)
        .subnet("10.8.1.0/24")
        .from("203.0.113.9")
        .of(&rules, &world);
    assert_eq!(reply.subnet, Some((24, 16)));
}

#[test]
fn an_ipv6_subnet_and_a_mapped_one_are_located() {
    let world = world().build();
    let rules = rules(&world);
    let reply = ask("api", rtype::A)
        .subnet("2001:db8:1::/56")
        .of(&rules, &world);
    assert_eq!(reply.answers, ["api.example.test 10 A 192.0.2.10"]);
    let (_, scope) = reply.subnet.unwrap();
    assert!((1..=56).contains(&scope), "{scope}");

    let reply = ask("api", rtype::A)
        .subnet("::ffff:203.0.113.0/120")
        .of(&rules, &world);
    assert_eq!(reply.answers, ["api.example.test 10 A 192.0.2.10"]);
    assert_eq!(reply.subnet, Some((120, 120)));
}

#[test]
fn static_answers_and_negative_ones_hold_for_everyone() {
    let world = world().build();
    let rules = rules(&world);
    for name in ["www", "nowhere", "www.example.com."] {
        let reply = ask(name, rtype::A).subnet(GERMANY).of(&rules, &world);
        assert_eq!(reply.subnet, Some((24, 0)), "{name}");
    }
}

#[test]
fn a_name_may_ignore_subnets() {
    let world = world().build();
    let rules = rules_with(&world, |steered| steered.ignore_client_subnet = true);
    let reply = ask("api", rtype::A)
        .subnet(GERMANY)
        .from("198.51.100.1")
        .of(&rules, &world);
    assert_eq!(reply.answers, ["api.example.test 10 A 192.0.2.20"]);
    assert_eq!(reply.subnet, Some((24, 0)));
}

#[test]
fn a_weighted_choice_sticks_to_a_network_and_says_so() {
    let world = world().build();
    let rules = rules_with(&world, |steered| {
        steered.steering = Arc::new(SteeringPolicy::Weighted(Weights::default()));
    });
    let mut seen = BTreeSet::new();
    for third in 0..64 {
        let answers = |host: u8, bits| {
            let subnet = format!("192.0.{third}.{host}/{bits}");
            let reply = ask("api", rtype::A).subnet(&subnet).of(&rules, &world);
            assert_eq!(reply.subnet, Some((bits, 24)), "{subnet}");
            reply.answers
        };
        assert_eq!(answers(0, 24), answers(77, 32));
        seen.insert(answers(0, 24));
    }
    assert_eq!(seen.len(), 2, "both regions get some");
}

#[test]
fn where_places_are_unknown_to_everyone_the_answer_holds_for_everyone() {
    let world = world().build();
    let mut rules = rules(&world);
    rules.geo = Arc::new(GeoTable::empty());
    let reply = ask("api", rtype::A).subnet(GERMANY).of(&rules, &world);
    assert_eq!(reply.subnet, Some((24, 0)));
}

#[test]
fn a_client_that_the_table_does_not_know_never_speaks_for_everyone() {
    let world = world().build();
    let rules = rules(&world);
    for subnet in ["8.8.8.0/24", "2a00:1450::/32", "0.0.0.0/1", "224.0.0.0/4"] {
        let reply = ask("api", rtype::A).subnet(subnet).of(&rules, &world);
        let (_, scope) = reply.subnet.unwrap();
        assert!(scope > 0, "{subnet}");
    }
}

#[test]
fn alternates_follow_the_best() {
    let world = world().build();
    let rules = rules_with(&world, |steered| steered.alternates = 5);
    let reply = ask("api", rtype::A).subnet(GERMANY).of(&rules, &world);
    assert_eq!(
        reply.answers,
        [
            "api.example.test 10 A 192.0.2.10",
            "api.example.test 10 A 192.0.2.20"
        ]
    );
}

#[test]
fn a_region_without_the_family_is_passed_over() {
    let world = world().build();
    let rules = rules(&world);
    let reply = ask("api", rtype::AAAA).subnet(VIRGINIA).of(&rules, &world);
    assert_eq!(reply.answers, ["api.example.test 10 AAAA 2001:db8::10"]);

    let world = tests::world().out("eu", OutReason::Failed).build();
    let reply = ask("api", rtype::AAAA).subnet(VIRGINIA).of(&rules, &world);
    assert_eq!((reply.rcode, reply.authorities), (0, vec![SOA.to_owned()]));
    assert_eq!(reply.subnet, Some((24, 0)), "no client gets one");
}

#[test]
fn a_region_that_is_out_is_not_answered_and_all_get_the_other() {
    let world = world().out("eu", OutReason::Failed).build();
    let rules = rules(&world);
    let reply = ask("api", rtype::A).subnet(GERMANY).of(&rules, &world);
    assert_eq!(reply.answers, ["api.example.test 10 A 192.0.2.20"]);
    assert_eq!(
        reply.subnet,
        Some((24, 0)),
        "one region is left, for everyone"
    );
}

#[test]
fn doubt_shortens_the_ttl() {
    let world = world().suspect().build();
    let reply = ask("api", rtype::A)
        .subnet(GERMANY)
        .of(&rules(&world), &world);
    assert_eq!(reply.answers, ["api.example.test 5 A 192.0.2.10"]);
}

#[test]
fn with_all_regions_down_the_operators_choice_is_answered() {
    let down = |rule| {
        let world = world()
            .out("eu", OutReason::Failed)
            .out("us", OutReason::Failed);
        world.all_down(rule).build()
    };
    let germany = ask("api", rtype::A).subnet(GERMANY);

    let world = down(AllDown::FailOpen);
    let reply = germany.of(&rules(&world), &world);
    assert_eq!(reply.answers, ["api.example.test 5 A 192.0.2.10"]);

    let world = down(AllDown::NoData);
    let reply = germany.of(&rules(&world), &world);
    assert_eq!((reply.rcode, reply.answers.len()), (0, 0));
    assert_eq!(reply.authorities, ["example.test 5 SOA ns1.example.test"]);

    let fallback = ["192.0.2.99".parse().unwrap()];
    let world = down(AllDown::Fallback(Arc::new(fallback)));
    let reply = germany.of(&rules(&world), &world);
    assert_eq!(reply.answers, ["api.example.test 5 A 192.0.2.99"]);
    let reply = ask("api", rtype::AAAA).of(&rules(&world), &world);
    assert_eq!((reply.rcode, reply.answers.len()), (0, 0));
}

#[test]
fn addresses_that_should_be_there_and_are_not_known_are_no_empty_answer() {
    let world = World::new()
        .region("eu", Verdict::Up)
        .addresses(&[])
        .region("us", Verdict::Up)
        .addresses(&[])
        .build();
    let reply = ask("api", rtype::A).of(&rules(&world), &world);
    assert_eq!((reply.rcode, reply.authorities.len()), (2, 0));
}

/// Response code, with the question, with OPT; `None` is silence.
type Expected = Option<(u16, bool, bool)>;

#[test]
fn malformed_messages_get_exactly_this() {
    let world = world().build();
    let rules = rules(&world);
    let good = ask("www", rtype::A).message();
    let with_edns = ask("www", rtype::A).edns(1232).message();
    let with_subnet = ask("www", rtype::A).subnet(GERMANY).message();
    let changed = |from: &[u8], at: usize, octet: u8| {
        let mut message = from.to_vec();
        message[at] = octet;
        message
    };
    let opt_at = good.len();
    let cases: Vec<(&str, Vec<u8>, Expected)> = vec![
        ("nothing", vec![], None),
        ("half a header", good[..11].to_vec(), None),
        ("an answer", changed(&good, 2, 0x81), None),
        (
            "only a header",
            good[..12].to_vec(),
            Some((1, false, false)),
        ),
        (
            "no question",
            changed(&good[..12], 5, 0),
            Some((1, false, false)),
        ),
        ("NOTIFY", changed(&good, 2, 4 << 3), Some((4, true, false))),
        (
            "UPDATE with OPT",
            changed(&with_edns, 2, 5 << 3),
            Some((4, true, true)),
        ),
        (
            "two questions",
            [&changed(&good, 5, 2)[..], &good[12..]].concat(),
            Some((1, false, false)),
        ),
        (
            "65,535 questions",
            changed(&changed(&good, 4, 0xff), 5, 0xff),
            Some((1, false, false)),
        ),
        ("a cut name", good[..16].to_vec(), Some((1, false, false))),
        (
            "a compressed name",
            changed(&good, 12, 0xc0),
            Some((1, false, false)),
        ),
        (
            "a label of type 01",
            changed(&good, 12, 0x43),
            Some((1, false, false)),
        ),
        (
            "trailing octets",
            [&good[..], b"x"].concat(),
            Some((1, true, false)),
        ),
        (
            "trailing octets after OPT",
            [&with_edns[..], b"x"].concat(),
            Some((1, true, true)),
        ),
        (
            "an answer record",
            changed(&good, 7, 1),
            Some((1, true, false)),
        ),
        (
            "a missing additional",
            changed(&good, 11, 1),
            Some((1, true, false)),
        ),
        (
            "class CH",
            changed(&good, good.len() - 1, 3),
            Some((5, true, false)),
        ),
        (
            "class ANY",
            changed(&good, good.len() - 1, 255),
            Some((5, true, false)),
        ),
        (
            "EDNS version 1",
            changed(&with_edns, opt_at + 6, 1),
            Some((16, true, true)),
        ),
        (
            "an OPT below a name",
            changed(&with_edns, opt_at, 1),
            Some((1, true, false)),
        ),
        (
            "a subnet with a scope",
            changed(&with_subnet, opt_at + 18, 24),
            Some((1, true, true)),
        ),
        (
            "a subnet of 25 bits in 3 octets",
            changed(&with_subnet, opt_at + 17, 25),
            Some((1, true, true)),
        ),
        (
            "a subnet with host bits",
            changed(&with_subnet, opt_at + 17, 23),
            Some((1, true, true)),
        ),
        (
            "a subnet of family 3",
            changed(&with_subnet, opt_at + 16, 3),
            Some((1, true, true)),
        ),
        (
            "an option beyond its record",
            changed(&with_subnet, opt_at + 14, 9),
            Some((1, true, true)),
        ),
    ];
    for (what, message, expected) in cases {
        let reply = send(&message, RESOLVER, Transport::Udp, &rules, &world);
        let reply = reply.map(|reply| Reply::read(&reply));
        let found = reply
            .as_ref()
            .map(|reply| (reply.rcode, !reply.question.is_empty(), reply.has_opt));
        assert_eq!(found, expected, "{what}");
        if let Some(reply) = reply {
            assert!(reply.flags.is_empty() && reply.subnet.is_none(), "{what}");
        }
    }
}

#[test]
fn a_message_cut_by_the_receiver_is_malformed() {
    let mut out = [0; 512];
    let message = ask("www", rtype::A).message();
    let answered = answer_cut_short(&message, &mut out).unwrap();
    assert_eq!((answered.length, answered.rcode), (12, Rcode::FormErr));
    let mut reflected = message;
    reflected[2] |= 0x80;
    assert_eq!(answer_cut_short(&reflected, &mut out), None);
    assert_eq!(answer_cut_short(b"short", &mut out), None);
}

#[test]
fn no_message_whatever_panics_or_gets_an_unreadable_answer() {
    let world = world().build();
    let rules = rules(&world);
    let names = [
        "www", "api", "sub", "x.wild", "twice", "many", "nowhere", "@",
    ];
    let seeds: Vec<Vec<u8>> = names
        .iter()
        .flat_map(|name| {
            let plain = ask(name, rtype::A);
            [
                plain.message(),
                plain.clone().subnet(GERMANY).message(),
                plain.subnet("2001:db8::/56").message(),
                ask(name, rtype::ANY).edns(512).message(),
            ]
        })
        .collect();
    let mut random = Random(0x5ea1_a9e5);
    let mut answered = 0_usize;
    for round in 0..200_000_usize {
        let mut message = if round % 16 == 0 {
            (0..random.below(80)).map(|_| random.octet()).collect()
        } else {
            seeds[random.below(seeds.len())].clone()
        };
        for _ in 0..random.below(5) {
            random.change(&mut message);
        }
        let transport = Transport::ALL[round % 2];
        let Some(reply) = send(&message, RESOLVER, transport, &rules, &world) else {
            continue;
        };
        answered += 1;
        let mut readable = reply;
        readable[..2].copy_from_slice(&[0xab, 0xcd]);
        Reply::read(&readable);
    }
    assert!(answered > 100_000, "{answered}");
}

/// xorshift64* (Vigna 2016): the same run each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit.max(1)
    }

    fn octet(&mut self) -> u8 {
        (self.next() >> 40) as u8
    }

    fn change(&mut self, message: &mut Vec<u8>) {
        let at = self.below(message.len() + 1);
        match self.below(5) {
            0 => message.truncate(at),
            1 => message.insert(at, self.octet()),
            2 => message.extend_from_within(at..),
            _ if at < message.len() => {
                message[at] = match self.below(3) {
                    0 => message[at] ^ 1 << self.below(8),
                    1 => [0, 1, 0x3f, 0x40, 0xc0, 0xff][self.below(6)],
                    _ => self.octet(),
                }
            }
            _ => {}
        }
    }
}
