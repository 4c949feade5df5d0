//! A zone, a world, and what every answer must be like.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use sealane_dns::config::{Canary, Config, Dnssec, SteeredName, Zone};
use sealane_dns::dnssec::timing::Moment;
use sealane_dns::engine::{Answered, Rules};
use sealane_dns::name::Name;
use sealane_dns::record::parse_zone_file;
use sealane_dns::service::Service;
use sealane_model::{Ratio, Snapshot, Ttl, Verdict};
use sealane_steering::{GeoOverride, GeoTable, SteeringPolicy, Weights};

use crate::mmdb::{self, Record};
use crate::world::World;

/// Short names, so that mutations hit them.
const ZONE: &str = r#"
$TTL 300
@ SOA n h 7 3600 900 604800 10
@ NS n
@ NS n.o.example.
@ MX 10 m
n A 192.0.2.53
w A 192.0.2.80
w AAAA 2001:db8::80
c CNAME w
cc CNAME c
sc CNAME s
o CNAME w.o.example.
r CNAME q
q CNAME r
a.b TXT "below b"
*.x TXT "anything"
*.y CNAME w
d NS n.d
d NS n
n.d A 192.0.2.54
n.d AAAA 2001:db8::54
m DNAME t.example.
g DNAME aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.g
h TYPE65280 \# 2 0102
s TXT "steered names may have text"
"#;

/// When signatures were made.
const SIGNED_AT: Moment = Moment(1_800_000_000);

/// Two regions that are well and one that is not.
pub fn world() -> Snapshot {
    World::new()
        .region("eu", Verdict::Up)
        .at(50.11, 8.68)
        .addresses(&["192.0.2.10", "2001:db8::10"])
        .region("us", Verdict::Up)
        .at(39.04, -77.49)
        .addresses(&["192.0.2.20"])
        .region("down", Verdict::Down)
        .addresses(&["192.0.2.30"])
        .build()
}

/// The zone `t.example`, signed or not.
pub fn rules(world: &Snapshot, dnssec: Option<Dnssec>) -> Rules {
    let apex = Name::parse("t.example", None).expect("a name");
    let mut text = ZONE.to_owned();
    for i in 0..60 {
        text.push_str(&format!("l A 10.0.0.{i}\n"));
    }
    for i in 0..5_000 {
        text.push_str(&format!("t A 10.1.{}.{}\n", i / 250, i % 250));
    }
    let file = parse_zone_file(&text, &apex, Ttl::from_secs(60)).expect("the zone is right");
    let steered = |owner: &str, steering, ignore_client_subnet| SteeredName {
        alternates: 1,
        ignore_client_subnet,
        ..SteeredName::new(
            Name::parse(owner, Some(&apex)).expect("a name"),
            world.topology.pool_named("api").expect("it is there").id,
            Arc::new(steering),
        )
    };
    let of_region = |region| world.topology.region_named(region).expect("it is there").id;
    let name = |text: &str| Name::parse(text, Some(&apex)).expect("a name");
    let hosts = vec![(of_region("eu"), name("w")), (of_region("us"), name("x.m"))];
    let canary = Canary {
        pool: world.topology.pool_named("api").expect("it is there").id,
        steering: Arc::new(SteeringPolicy::Pinned(of_region("us"))),
        share: Ratio::new(0.5).expect("a share"),
    };
    let steered = vec![
        SteeredName {
            hosts,
            ..steered("k", SteeringPolicy::Nearest, false)
        },
        SteeredName {
            https: Some(Service::parse("alpn=h2").expect("parameters")),
            canary: Some(canary),
            ..steered("*.z", SteeringPolicy::Nearest, false)
        },
        steered("s", SteeringPolicy::Nearest, false),
        steered("v", SteeringPolicy::Weighted(Weights::default()), false),
        steered("i", SteeringPolicy::Nearest, true),
    ];
    let table = mmdb::table(&[
        ("203.0.113.0/24", Record::At(51.0, 9.0)),
        ("198.51.100.0/24", Record::At(39.0, -77.0)),
        ("2001:db8:1::/48", Record::At(51.0, 9.0)),
    ]);
    let us = world.topology.region_named("us").expect("it is there").id;
    let overrides = [GeoOverride {
        net: "10.9.0.0/16".parse().expect("a network"),
        region: us,
    }];
    let soa = file.soa.expect("the zone has one");
    let mut zone = Zone::new(apex.clone(), soa, file.records);
    zone.steered = steered;
    zone.dnssec = dnssec.map(Arc::new);
    let geo = GeoTable::build(Some(table), &overrides).expect("the table is right");
    let mut config = Config::new(vec![zone], Arc::new(geo));
    config.identity.nsid = Some(b"fuzzed"[..].into());
    config.identity.version = Some("fuzzed".into());
    Rules::compile_at(&config, SIGNED_AT, None)
}

/// Who asks.
pub const SOURCES: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 53)),
    IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0xcb00, 0x7101)),
];

/// Whatever the question.
pub fn examine(message: &[u8], out: &[u8], answered: &Answered) {
    let reply = &out[..answered.length];
    assert_eq!(reply[..2], message[..2], "the id is the question's");
    assert_eq!(message[2] & 0x80, 0, "answers are never answered");
    assert_eq!(reply[2] & 0x80, 0x80, "QR is set");
    assert_eq!(reply[2] & 0x79, message[2] & 0x79, "opcode and RD are kept");
    assert_eq!(
        reply[2] & 0x02 != 0,
        answered.truncated,
        "TC says what happened"
    );
    // The subnet of nobody, of family 0: lawful for us and echoed, but unknown to the other reader.
    // Other options may follow it.
    let of_nobody = [0, 8, 0, 4, 0, 0, 0, 0];
    if reply.windows(of_nobody.len()).any(|octets| octets == of_nobody) {
        return;
    }
    let Ok(parsed) = Message::from_vec(reply) else {
        panic!("another implementation does not read {reply:02x?}");
    };
    if parsed.metadata.response_code == ResponseCode::NoError && !parsed.queries.is_empty() {
        // Octet for octet, letter case included.
        let asked = message.get(12..).unwrap_or_default();
        let length = question_length(&reply[12..]);
        assert_eq!(reply[12..12 + length], asked[..length]);
    }
}

/// Of a question whose name is not compressed.
fn question_length(from: &[u8]) -> usize {
    let mut at = 0;
    while from[at] != 0 {
        at += usize::from(from[at]) + 1;
    }
    at + 5
}
