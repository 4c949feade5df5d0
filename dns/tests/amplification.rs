//! How much more leaves by UDP than came in: what a forged source address can make of the name server. Measured for
//! the questions that bring most, and held as a bound; `docs/LIMITS.md` states the same figures.
//!
//! The engine and the limiter as the UDP threads call them, on a virtual clock: nothing here waits.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sealane_dns::Config;
use sealane_dns::config::{Cookies, Dnssec, Identity, SteeredName, Zone};
use sealane_dns::cookie::{Baker, Secret};
use sealane_dns::dnssec::key::{Algorithm, Key, Role};
use sealane_dns::dnssec::timing::{Moment, Times};
use sealane_dns::engine::{
    Answered, Client, Rules, Transport, UDP_SIZE_MAX, answer_short, answer_to,
};
use sealane_dns::limit::{Limiter, Rates, Verdict};
use sealane_dns::name::Name;
use sealane_dns::record::parse_zone_file;
use sealane_model::Verdict::Up;
use sealane_model::{Snapshot, Ttl};
use sealane_steering::{GeoTable, SteeringPolicy};
use sealane_testkit::World;

const VICTIM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
/// An IPv4 and a UDP header.
const HEADERS: usize = 28;
const NOW: u32 = 1_800_000_000;

fn name(text: &str) -> Name {
    Name::parse(text, None).unwrap()
}

/// With what makes answers long: a large TXT set, many addresses, a delegation with glue.
fn zone(apex: &str) -> Zone {
    let mut text = "@ 60 SOA ns1 host 1 3600 600 86400 5\n\
                    @ NS ns1\n@ NS ns2\n@ MX 10 ns1\n\
                    ns1 A 192.0.2.53\nns2 A 192.0.2.54\n*.wild A 192.0.2.1\n"
        .to_owned();
    for number in 0..4 {
        text += &format!("long TXT \"{number}{}\"\n", "x".repeat(230));
        text += &format!(
            "cut NS ns{number}.cut\nns{number}.cut A 192.0.2.9\nns{number}.cut AAAA 2001:db8::9\n"
        );
    }
    for number in 0..60 {
        text += &format!("many A 10.0.0.{number}\n");
    }
    let apex = name(apex);
    let file = parse_zone_file(&text, &apex, Ttl::from_secs(300)).unwrap();
    Zone::new(apex, file.soa.unwrap(), file.records)
}

fn signed(apex: &str, algorithm: Algorithm) -> Zone {
    let key =
        |role| Arc::new(Key::generate(name(apex), role, algorithm, Times::default()).unwrap());
    let mut signed = zone(apex);
    // Two keys, as most have them: the longest DNSKEY set outside of a roll-over.
    let dnssec = Dnssec::new(vec![key(Role::Entry), key(Role::Zone)]);
    signed.dnssec = Some(Arc::new(dnssec));
    signed
}

fn world() -> Snapshot {
    let addresses: Vec<String> = (1..=32).map(|n| format!("2001:db8::{n:x}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    World::new().region("eu", Up).addresses(&addresses).build()
}

fn rules(world: &Snapshot, cookies: bool) -> Rules {
    let pool = world.topology.pool_named("api").unwrap().id;
    let mut zones = vec![
        zone("plain.test"),
        signed("signed.test", Algorithm::EcdsaP256),
    ];
    for zone in &mut zones {
        let owner = Name::parse("api", Some(&zone.apex)).unwrap();
        let steered = SteeredName::new(owner, pool, Arc::new(SteeringPolicy::Nearest));
        zone.steered.push(steered);
    }
    let mut config = Config::new(zones, Arc::new(GeoTable::empty()));
    config.identity = Identity {
        nsid: Some(b"ams-1"[..].into()),
        ..Identity::default()
    };
    if cookies {
        config.cookies = Cookies::Shared(vec![secret()]);
    }
    Rules::compile_at(&config, Moment(NOW.into()), None)
}

const fn secret() -> Secret {
    Secret::new([7; 16])
}

/// What a flood sends.
#[derive(Clone, Copy)]
enum Manner {
    /// Without OPT.
    Plain,
    /// With OPT of 4,096 octets and DO.
    Signatures,
    /// The same with a cookie of the client's own alone.
    Cookie,
}

fn question(owner: &str, rtype: u16, manner: Manner) -> Vec<u8> {
    let mut message = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(name(owner).wire());
    message.extend_from_slice(&rtype.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    let options: &[u8] = match manner {
        Manner::Plain => return message,
        Manner::Signatures => &[],
        Manner::Cookie => &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8],
    };
    message[11] = 1;
    message.extend_from_slice(&[0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, options.len() as u8]);
    message.extend_from_slice(options);
    message
}

struct Server {
    rules: Rules,
    world: Snapshot,
    secrets: Vec<Secret>,
}

impl Server {
    fn new(cookies: bool) -> Self {
        let world = world();
        Self {
            rules: rules(&world, cookies),
            world,
            secrets: if cookies { vec![secret()] } else { Vec::new() },
        }
    }

    fn client(&self) -> Client<'_> {
        let secrets = &self.secrets[..];
        Client {
            address: VICTIM,
            transport: Transport::Udp,
            cookies: (!secrets.is_empty()).then_some(Baker { secrets, now: NOW }),
            now: NOW,
        }
    }

    fn answer(&self, message: &[u8]) -> Answered {
        let mut out = [0; UDP_SIZE_MAX];
        answer_to(self.client(), message, &self.rules, &self.world, &mut out).unwrap()
    }

    fn short(&self, message: &[u8]) -> usize {
        let mut out = [0; UDP_SIZE_MAX];
        answer_short(self.client(), message, &mut out)
            .unwrap()
            .length
    }

    /// Octets out for each octet in, headers counted, of a flood of 50,000 such questions a second for ten seconds.
    fn flood(&self, message: &[u8]) -> f64 {
        let rates = Rates {
            per_second: 1_000,
            burst: 1_000,
            slip: 2,
            exempt: Vec::new(),
        };
        let mut limiter = Limiter::new(1, &rates);
        let answered = self.answer(message);
        let short = self.short(message);
        let (mut sent, mut received) = (0, 0);
        for number in 0..500_000_u64 {
            received += message.len() + HEADERS;
            sent += match limiter.judge(&rates, number * 20, VICTIM, answered.said) {
                Verdict::Send => answered.length + HEADERS,
                Verdict::Slip => short + HEADERS,
                Verdict::Drop => 0,
            };
        }
        sent as f64 / received as f64
    }
}

const TXT: u16 = 16;
const A: u16 = 1;
const AAAA: u16 = 28;
const NS: u16 = 2;
const DNSKEY: u16 = 48;
const ANY: u16 = 255;

/// Question, type, and by how much the answer is longer at most: without OPT, and with DO.
type Row = (&'static str, &'static str, u16, f64, f64);

/// Factors with headers, rounded up.
const ROWS: &[Row] = &[
    ("large TXT", "long.plain.test", TXT, 1.0, 14.6),
    ("60 addresses", "many.plain.test", A, 1.0, 14.4),
    ("32 addresses, steered", "api.plain.test", AAAA, 1.0, 13.7),
    ("ANY", "plain.test", ANY, 2.0, 2.0),
    ("no such name", "nowhere.plain.test", A, 2.1, 1.9),
    ("a referral with glue", "x.cut.plain.test", A, 6.0, 5.2),
    ("not ours", "example.com", A, 1.0, 1.2),
    ("large TXT, signed", "long.signed.test", TXT, 1.0, 15.9),
    ("60 addresses, signed", "many.signed.test", A, 1.0, 15.7),
    (
        "32 addresses, steered, signed",
        "api.signed.test",
        AAAA,
        1.0,
        15.0,
    ),
    ("ANY, signed", "signed.test", ANY, 1.4, 3.5),
    ("DNSKEY", "signed.test", DNSKEY, 3.9, 5.0),
    ("NS, signed", "signed.test", NS, 2.1, 3.5),
    ("no such name, signed", "nowhere.signed.test", A, 2.1, 7.2),
    ("no data, signed", "ns1.signed.test", TXT, 2.1, 5.5),
    ("by a wildcard, signed", "x.wild.signed.test", A, 1.3, 4.7),
];

#[test]
fn no_answer_is_longer_than_what_is_stated() {
    let server = Server::new(false);
    let mut longer = Vec::new();
    for (what, owner, rtype, plain, with_do) in ROWS {
        let factor = |manner| {
            let message = question(owner, *rtype, manner);
            let answer = server.answer(&message).length;
            (answer + HEADERS) as f64 / (message.len() + HEADERS) as f64
        };
        let got = [factor(Manner::Plain), factor(Manner::Signatures)];
        println!("| {what} | {:.2} | {:.2} |", got[0], got[1]);
        if got[0] > *plain || got[1] > *with_do {
            longer.push((what, got));
        }
    }
    assert!(longer.is_empty(), "{longer:?}");
    // Whatever a zone holds: the largest datagram, for the shortest question that can be asked with OPT.
    let shortest = question(".", ANY, Manner::Signatures).len();
    let worst = (UDP_SIZE_MAX + HEADERS) as f64 / (shortest + HEADERS) as f64;
    println!("at worst, for any zone: {worst:.1}");
    assert!(worst <= 22.6, "{worst}");
}

#[test]
fn a_flood_brings_its_victim_about_as_much_as_its_sender_spends() {
    for (cookies, manner, most) in [
        (false, Manner::Plain, 0.65),
        (false, Manner::Signatures, 0.85),
        (true, Manner::Signatures, 0.85),
        (true, Manner::Cookie, 0.95),
    ] {
        let server = Server::new(cookies);
        let of = |row: &Row| server.flood(&question(row.1, row.2, manner));
        let worst = ROWS.iter().map(of).fold(0.0, f64::max);
        println!("worst of a flood: {worst:.2}");
        assert!(worst <= most, "{worst}");
    }
}
