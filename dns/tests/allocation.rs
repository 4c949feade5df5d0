//! The engine allocates nothing for an answer: a flood costs time, never memory.

#![expect(
    unsafe_code,
    reason = "an allocator that counts can only be written so"
)]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use sealane_dns::Config;
use sealane_dns::config::{Canary, Dnssec, SteeredName, Zone};
use sealane_dns::dnssec::key::{Algorithm, Key, Role};
use sealane_dns::dnssec::timing::Times;
use sealane_dns::engine::{Rules, Transport, UDP_SIZE_MAX, answer};
use sealane_dns::name::Name;
use sealane_dns::record::parse_zone_file;
use sealane_dns::service::Service;
use sealane_model::{Ratio, Ttl, Verdict};
use sealane_steering::{GeoTable, SteeringPolicy, Weights};
use sealane_testkit::mmdb::{self, Record};
use sealane_testkit::{Names, World};

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn no_answer_allocates() {
    assert_allocates_nothing(None);
}

#[test]
fn no_signed_answer_allocates_once_its_signature_is_there() {
    let zone = Name::parse("example.test", None).unwrap();
    let key = Key::generate(zone, Role::Entry, Algorithm::Ed25519, Times::default());
    assert_allocates_nothing(Some(Dnssec::new(vec![Arc::new(key.unwrap())])));
}

fn assert_allocates_nothing(dnssec: Option<Dnssec>) {
    let world = World::new()
        .region("eu", Verdict::Up)
        .at(50.1, 8.7)
        .region("us", Verdict::Up)
        .at(39.0, -77.5)
        .region("asia", Verdict::Suspect)
        .at(1.3, 103.8)
        .build();
    let apex = Name::parse("example.test", None).unwrap();
    let text = "@ SOA a b 1 2 3 4 5\nwww A 192.0.2.1\nalias CNAME api\nsub NS ns.sub\nns.sub A 192.0.2.2\n*.w TXT x\nold DNAME example.test.\n";
    let file = parse_zone_file(text, &apex, Ttl::from_secs(60)).unwrap();
    let name = |text| Name::parse(text, Some(&apex)).unwrap();
    let pool = world.topology.pool_named("api").unwrap().id;
    let policy = Arc::new(SteeringPolicy::WeightedLatency(Weights::default()));
    let named = |owner| SteeredName::new(name(owner), pool, Arc::clone(&policy));
    let api = SteeredName {
        alternates: 2,
        https: Some(Service::parse("alpn=h2,h3 port=8443").unwrap()),
        canary: Some(Canary {
            pool,
            steering: Arc::clone(&policy),
            share: Ratio::new(0.5).unwrap(),
        }),
        ..named("api")
    };
    let cdn = SteeredName {
        hosts: vec![(world.region_id("eu"), name("www"))],
        ..named("cdn")
    };
    let places = mmdb::table(&[("203.0.113.0/24", Record::At(51.0, 9.0))]);
    let mut zone = Zone::new(apex, file.soa.unwrap(), file.records);
    zone.steered = vec![api, cdn];
    zone.dnssec = dnssec.map(Arc::new);
    let geo = GeoTable::build(Some(places), &[]).unwrap();
    let mut config = Config::new(vec![zone], Arc::new(geo));
    config.identity.nsid = Some(b"ams-1"[..].into());
    let rules = Rules::compile(&config);
    let subnet = b"\0\0\x29\x04\xd0\0\0\0\0\0\x0b\0\x08\0\x07\0\x01\x18\0\xcb\x00\x71";
    let nsid = b"\0\0\x29\x04\xd0\0\0\0\0\0\x04\0\x03\0\0";
    let dnssec_ok = b"\0\0\x29\x04\xd0\0\0\x80\0\0\0";
    let names = [
        "www",
        "alias",
        "api",
        "x.sub",
        "no",
        "x.w",
        "cdn",
        "api.old",
        "none.old",
        "www.example.com.",
    ];
    let origin = Name::parse("example.test", None).unwrap();
    let messages: Vec<Vec<u8>> = names
        .iter()
        .flat_map(|name| {
            let name = Name::parse(name, Some(&origin)).unwrap();
            let body = [name.wire(), b"\0\x01\0\x01"].concat();
            let https = [name.wire(), b"\0\x41\0\x01"].concat();
            [
                [b"\0\x01\0\0\0\x01\0\0\0\0\0\0", &body[..]].concat(),
                [b"\0\x01\0\0\0\x01\0\0\0\0\0\x01", &body[..], subnet].concat(),
                [b"\0\x01\0\0\0\x02\0\0\0\0\0\x01", &body[..], subnet].concat(),
                [b"\0\x01\0\0\0\x01\0\0\0\0\0\x01", &body[..], dnssec_ok].concat(),
                [b"\0\x01\0\0\0\x01\0\0\0\0\0\x01", &body[..], nsid].concat(),
                [b"\0\x01\0\0\0\x01\0\0\0\0\0\x01", &https[..], subnet].concat(),
                [b"\0\x01\0\0\0\x01\0\0\0\0\0\x01", &https[..], dnssec_ok].concat(),
            ]
        })
        .collect();
    let mut out = [0; UDP_SIZE_MAX];
    let source = "198.51.100.1".parse().unwrap();

    let mut answer_all = || {
        let answered = messages.iter().filter(|message| {
            answer(message, source, Transport::Udp, &rules, &world, &mut out).is_some()
        });
        answered.count()
    };
    // Signatures of steered sets are made when they are first needed.
    answer_all();
    let before = COUNT.with(Cell::get);
    let answered = answer_all();
    let after = COUNT.with(Cell::get);

    assert_eq!((answered, after - before), (messages.len(), 0));
}
