//! Versions, serials and what others get of a zone, by the rules as a whole.

use std::net::IpAddr;
use std::sync::Arc;

use domain::base::Message;
use domain::base::iana::Rtype;
use sealane_model::{Snapshot, Ttl, Verdict};
use sealane_steering::{GeoTable, SteeringPolicy};
use sealane_testkit::World;

use super::*;
use crate::config::{Dnssec, SteeredName};
use crate::dnssec::chain::Denial;
use crate::dnssec::key::{Algorithm, Key, Role};
use crate::dnssec::timing::Times;
use crate::record::parse_zone_file;
use crate::transfer::SteeredAs;
use crate::transfer::desk::{Caller, Reply};
use crate::transfer::incoming::{Base, Bounds, Given, Incoming, Progress};
use crate::transfer::key::{self, TsigKey};
use crate::transfer::message::{Ask, question};
use crate::transfer::rules::Secondary;

const NOW: Moment = Moment(1_800_000_000);

fn apex() -> Name {
    Name::parse("example.test", None).unwrap()
}

fn outgoing(keys: Vec<TsigKey>) -> Arc<Outgoing> {
    Arc::new(Outgoing {
        to: vec!["192.0.2.0/24".parse().unwrap()],
        keys,
        notify: Vec::new(),
        steered: SteeredAs::Snapshot,
    })
}

fn zone(serial: u32, records: &str) -> Zone {
    let text = format!(
        "@ 60 SOA ns1 host {serial} 3600 600 86400 5\n@ NS ns1\nns1 A 192.0.2.53\n{records}"
    );
    let file = parse_zone_file(&text, &apex(), Ttl::from_secs(60)).unwrap();
    let mut zone = Zone::new(apex(), file.soa.unwrap(), file.records);
    zone.transfers.outgoing = Some(outgoing(Vec::new()));
    zone
}

fn config(zone: Zone) -> Config {
    Config::new(vec![zone], Arc::new(GeoTable::empty()))
}

fn made(zone: Zone, book: &Arc<Book>, world: &Snapshot, before: Option<&Rules>) -> Rules {
    compile(&config(zone), book, world, NOW, before)
}

fn version(rules: &Rules) -> Arc<Version> {
    let desk = rules.transfers.as_ref().unwrap();
    desk.zone(&apex()).unwrap().version.clone().unwrap()
}

const CALLER: Caller = Caller {
    address: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)),
    is_stream: true,
};

/// Everything that is sent in answer to this.
fn sent(rules: &Rules, caller: Caller, ask: Ask<'_>, key: Option<&TsigKey>) -> Vec<Vec<u8>> {
    let (message, _) = question(7, &apex(), ask, key, NOW).unwrap();
    let desk = rules.transfers.as_ref().unwrap();
    match desk.answer(&message, caller, NOW) {
        Reply::NotOurs => Vec::new(),
        Reply::Once(message, _) => vec![message],
        Reply::Many(mut sending) => {
            let next = || sending.next(NOW).map(Result::unwrap);
            std::iter::from_fn(next).collect()
        }
    }
}

/// What a secondary that has `base` makes of it.
fn received(rules: &Rules, base: Option<&Version>) -> Given {
    let ask = base.map_or(Ask::Axfr, |base| Ask::Ixfr(&base.soa));
    let base = base.map(|base| Base {
        soa: &base.soa,
        records: &base.records,
    });
    let apex = apex();
    let mut incoming = Incoming::unsigned(&apex, 7, base, Bounds::default());
    for message in sent(rules, CALLER, ask, None) {
        if incoming.take(message, NOW).unwrap() == Progress::Done {
            return incoming.finish().unwrap();
        }
    }
    panic!("it wants more");
}

fn rcode(messages: &[Vec<u8>]) -> u8 {
    messages[0][3] & 0x0f
}

fn is_same(given: &Given, version: &Version) -> bool {
    let Given::Zone(given) = given else {
        return false;
    };
    let mut records = given.records.clone();
    records.sort_by(super::super::version::order);
    given.soa_record == version.soa && records == version.records
}

#[test]
fn the_serial_grows_with_the_contents_and_only_then() {
    let (book, world) = (Arc::<Book>::default(), Snapshot::default());
    let serials = [
        (zone(10, "a A 192.0.2.1"), 10),
        (zone(10, "a A 192.0.2.1"), 10),
        (zone(10, "a A 192.0.2.2"), 11),
        (zone(11, "a A 192.0.2.2"), 11),
        (zone(9, "a 61 A 192.0.2.2"), 12),
        (zone(20, "a 61 A 192.0.2.2"), 20),
        (zone(20, "b A 192.0.2.2"), 21),
    ];
    for (place, (zone, expected)) in serials.into_iter().enumerate() {
        let rules = made(zone, &book, &world, None);
        assert_eq!(version(&rules).serial, expected, "{place}");
        let apex = rules.table.zone(0).unwrap();
        let octets = &apex.negative_soa;
        let serial = &octets[octets.len() - 20..][..4];
        assert_eq!(serial, expected.to_be_bytes(), "what is answered: {place}");
    }
}

#[test]
fn after_a_restart_the_same_zone_has_its_serial_and_another_one_the_next() {
    let (book, world) = (Arc::<Book>::default(), Snapshot::default());
    made(zone(10, "a A 192.0.2.1"), &book, &world, None);
    made(zone(10, "a A 192.0.2.2"), &book, &world, None);
    let kept = book.issued(&apex()).unwrap();

    for (records, expected) in [("a A 192.0.2.2", 11), ("a A 192.0.2.3", 12)] {
        let book = Arc::<Book>::default();
        book.remember(&apex(), kept);
        let rules = made(zone(10, records), &book, &world, None);
        assert_eq!(version(&rules).serial, expected, "{records}");
    }
}

#[test]
fn a_secondary_gets_all_or_what_changed_and_has_the_same_in_the_end() {
    let (book, world) = (Arc::<Book>::default(), Snapshot::default());
    let many = |tag: &str| -> String {
        (0..3_000).fold(String::new(), |text, number| {
            text + &format!("host{number}.{tag} A 192.0.2.1\n")
        })
    };
    let first = made(zone(1, &many("x")), &book, &world, None);
    let old = version(&first);
    assert!(is_same(&received(&first, None), &old));
    assert!(sent(&first, CALLER, Ask::Axfr, None).len() > 3);

    let second = made(
        zone(2, &(many("x") + "new A 192.0.2.9")),
        &book,
        &world,
        Some(&first),
    );
    let third = made(
        zone(3, &(many("x") + "new A 192.0.2.8")),
        &book,
        &world,
        Some(&second),
    );
    let new = version(&third);
    let given = received(&third, Some(&old));
    assert!(is_same(&given, &new));
    assert!(matches!(given, Given::Zone(zone) if zone.is_incremental));
    assert_eq!(sent(&third, CALLER, Ask::Ixfr(&old.soa), None).len(), 1);
    assert!(matches!(received(&third, Some(&new)), Given::Nothing));

    // When nearly everything changed, the whole is less.
    let fourth = made(zone(4, &many("y")), &book, &world, Some(&third));
    let given = received(&fourth, Some(&old));
    assert!(is_same(&given, &version(&fourth)));
    assert!(matches!(given, Given::Zone(zone) if !zone.is_incremental));
}

#[test]
fn only_so_many_differences_are_kept() {
    let (book, world) = (Arc::<Book>::default(), Snapshot::default());
    let mut first = None;
    for serial in 1..200 {
        let rules = made(
            zone(serial, &format!("a TXT {serial}")),
            &book,
            &world,
            None,
        );
        let version = version(&rules);
        assert!(version.steps.len() <= super::super::version::STEPS_MAX);
        let given = received(
            &rules,
            Some(first.get_or_insert_with(|| Arc::clone(&version))),
        );
        assert!(serial == 1 || is_same(&given, &version));
    }
}

#[test]
fn who_is_not_allowed_gets_nothing() {
    let (book, world) = (Arc::<Book>::default(), Snapshot::default());
    let name = |text| Name::parse(text, None).unwrap();
    let key =
        |text, secret: &[u8]| TsigKey::new(name(text), key::Algorithm::HmacSha256, secret).unwrap();
    let ours = key("key.test", b"0123456789abcdef");
    let mut signed = zone(1, "");
    signed.transfers.outgoing = Some(outgoing(vec![ours.clone()]));
    let open = made(zone(1, ""), &book, &world, None);
    let signed = made(signed, &Arc::default(), &world, None);
    let stranger = Caller {
        address: "198.51.100.1".parse().unwrap(),
        ..CALLER
    };
    let datagram = Caller {
        is_stream: false,
        ..CALLER
    };

    assert_eq!(rcode(&sent(&open, stranger, Ask::Axfr, None)), 5);
    assert_eq!(rcode(&sent(&signed, CALLER, Ask::Axfr, None)), 5);
    assert_eq!(rcode(&sent(&signed, stranger, Ask::Axfr, Some(&ours))), 5);
    let forged = key("key.test", b"0123456789abcdeX");
    assert_eq!(rcode(&sent(&signed, CALLER, Ask::Axfr, Some(&forged))), 9);
    let unknown = key("other.test", b"0123456789abcdef");
    assert_eq!(rcode(&sent(&signed, CALLER, Ask::Axfr, Some(&unknown))), 9);
    assert_eq!(rcode(&sent(&signed, CALLER, Ask::Axfr, Some(&ours))), 0);
    // The whole zone is not for UDP; what is newest is.
    assert!(sent(&open, datagram, Ask::Axfr, None).is_empty());
    let soa = version(&open).soa.clone();
    let newest = sent(&open, datagram, Ask::Ixfr(&soa), None);
    let newest = Message::from_octets(newest[0].clone()).unwrap();
    assert_eq!(newest.header_counts().ancount(), 1);
    assert_eq!(newest.qtype(), Some(Rtype::IXFR));
    // NOTIFY for a zone that is nobody's copy.
    assert_eq!(rcode(&sent(&open, CALLER, Ask::Notify(&soa), None)), 5);
}

#[test]
fn a_copy_of_a_steered_name_follows_the_health_map() {
    let book = Arc::<Book>::default();
    let world = |eu| {
        World::new()
            .region("eu", eu)
            .addresses(&["192.0.2.1", "2001:db8::1"])
            .region("us", Verdict::Up)
            .addresses(&["192.0.2.2"])
            .build()
    };
    let steered = |world: &Snapshot, how| {
        let pool = world.topology.pool_named("api").unwrap().id;
        let mut zone = zone(1, "");
        let policy = Arc::new(SteeringPolicy::Nearest);
        let owner = Name::parse("api", Some(&zone.apex)).unwrap();
        zone.steered = vec![SteeredName::new(owner, pool, policy)];
        let rules = Outgoing {
            steered: how,
            ..(*outgoing(Vec::new())).clone()
        };
        zone.transfers.outgoing = Some(Arc::new(rules));
        zone
    };
    let up = world(Verdict::Up);
    let rules = made(steered(&up, SteeredAs::Snapshot), &book, &up, None);
    let before = version(&rules);
    let addresses = |version: &Version| -> Vec<Vec<u8>> {
        let of_name = version
            .records
            .iter()
            .filter(|r| r.owner.to_string().starts_with("api"));
        of_name.map(|record| record.data.to_vec()).collect()
    };
    assert!(!addresses(&before).is_empty());

    let down = world(Verdict::Down);
    let rules = made(
        steered(&down, SteeredAs::Snapshot),
        &book,
        &down,
        Some(&rules),
    );
    let after = version(&rules);
    assert_eq!(addresses(&after), [vec![192, 0, 2, 2]]);
    assert!(after.serial > before.serial || addresses(&before) == addresses(&after));

    let rules = made(steered(&up, SteeredAs::Omit), &Arc::default(), &up, None);
    assert!(addresses(&version(&rules)).is_empty());
}

#[test]
fn a_signed_zone_goes_out_signed_and_its_serial_stands_still() {
    let (book, world) = (Arc::<Book>::default(), Snapshot::default());
    let key = Key::generate(apex(), Role::Entry, Algorithm::Ed25519, Times::default()).unwrap();
    let key = Arc::new(key);
    let signed = |records: &str| {
        let mut zone = zone(1, records);
        let mut dnssec = Dnssec::new(vec![Arc::clone(&key)]);
        dnssec.denial = Denial::Nsec;
        zone.dnssec = Some(Arc::new(dnssec));
        zone
    };
    let first = made(signed("a A 192.0.2.1"), &book, &world, None);
    let old = version(&first);
    let count = |version: &Version, rtype| {
        version
            .records
            .iter()
            .filter(|record| record.rtype == rtype)
            .count()
    };
    use crate::wire::rtype;
    // The apex, ns1 and a; each set has a signature, each NSEC too, and the SOA.
    assert_eq!(count(&old, rtype::NSEC), 3);
    assert_eq!(count(&old, rtype::RRSIG), 3 + 5);
    let again = made(signed("a A 192.0.2.1"), &book, &world, Some(&first));
    assert_eq!(version(&again).serial, old.serial);

    let third = made(
        signed("a A 192.0.2.1\nb A 192.0.2.2"),
        &book,
        &world,
        Some(&again),
    );
    let new = version(&third);
    assert_eq!(new.serial, old.serial + 1);
    let given = received(&third, Some(&old));
    assert!(is_same(&given, &new));
    let step = new.steps.last().unwrap();
    let owners: Vec<_> = step.added.iter().map(|r| r.owner.to_string()).collect();
    // Signatures that still hold are not made anew.
    assert!(
        !owners.contains(&"ns1.example.test".to_owned()),
        "{owners:?}"
    );
}

#[test]
fn a_secondary_zone_is_void_until_it_comes_and_when_it_expired() {
    let (book, world) = (Arc::<Book>::default(), Snapshot::default());
    let from = Secondary {
        primaries: vec!["192.0.2.9:53".parse().unwrap()],
        key: None,
    };
    let mut copy = Zone::secondary(apex(), Arc::new(from));
    copy.transfers.outgoing = Some(outgoing(Vec::new()));
    let rules = made(copy.clone(), &book, &world, None);
    assert!(rules.table.zone(0).unwrap().is_void);
    assert_eq!(rcode(&sent(&rules, CALLER, Ask::Axfr, None)), 2);

    let source = made(zone(77, "a A 192.0.2.1"), &Arc::default(), &world, None);
    let Given::Zone(given) = received(&source, None) else {
        panic!("nothing came");
    };
    let held = Held::new(given, "192.0.2.9:53".parse().unwrap(), NOW.0);
    let held = book.hold(&apex(), held);
    let rules = made(copy.clone(), &book, &world, Some(&rules));
    assert!(!rules.table.zone(0).unwrap().is_void);
    // What is given on is what came, its serial included.
    assert_eq!(version(&rules).serial, 77);
    assert_eq!(version(&rules).records, version(&source).records);

    book.hold(&apex(), held.expired(true));
    let rules = made(copy, &book, &world, Some(&rules));
    assert!(rules.table.zone(0).unwrap().is_void);
}
