//! Signed zones over time: what is signed again and when, what is signed ahead, and the bounds.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sealane_model::Ttl;
use sealane_model::Verdict::{Down, Up};
use sealane_steering::{GeoTable, SteeringPolicy};
use sealane_testkit::World;

use super::canonical::sort_key;
use super::chain::{Chain, Denial, Entry};
use super::key::{Algorithm, Key, Role};
use super::timing::{Moment, Times};
use crate::config::{Config, Dnssec, SteeredName, Zone};
use crate::engine::{Rules, Transport, UDP_SIZE_MAX, answer};
use crate::name::Name;
use crate::record::parse_zone_file;
use crate::wire::{Rcode, rtype};

const NOW: Moment = Moment(1_800_000_000);
const DAY: u64 = 86_400;

fn name(text: &str) -> Name {
    Name::parse(text, None).unwrap()
}

fn key(role: Role) -> Arc<Key> {
    let times = Times::default();
    Arc::new(Key::generate(name("example.test"), role, Algorithm::Ed25519, times).unwrap())
}

fn world() -> World {
    World::new()
        .region("eu", Up)
        .addresses(&["192.0.2.10"])
        .region("us", Up)
        .addresses(&["192.0.2.20", "2001:db8::20"])
        .region("asia", Up)
        .addresses(&["192.0.2.30"])
}

/// Thirty static names, and two steered ones.
fn config(dnssec: Dnssec, extra: &str) -> Config {
    let hosts: String = (0..30).map(|i| format!("h{i} A 192.0.2.{i}\n")).collect();
    let text = format!("@ 60 SOA ns1 host 1 2 3 4 5\n@ NS h1\n{hosts}{extra}");
    let apex = name("example.test");
    let file = parse_zone_file(&text, &apex, Ttl::from_secs(300)).unwrap();
    let mut zone = Zone::new(apex, file.soa.unwrap(), file.records);
    zone.dnssec = Some(Arc::new(dnssec));
    let pool = world().build().topology.pool_named("api").unwrap().id;
    for owner in ["api.example.test", "web.example.test"] {
        let mut steered = SteeredName::new(name(owner), pool, Arc::new(SteeringPolicy::Nearest));
        steered.alternates = 1;
        zone.steered.push(steered);
    }
    Config::new(vec![zone], Arc::new(GeoTable::empty()))
}

fn counts(rules: &Rules) -> (u64, u64) {
    let (_, sealed) = rules.table.sealed().next().unwrap();
    (sealed.made, sealed.taken_over)
}

#[test]
fn a_zone_that_is_compiled_again_signs_what_changed() {
    let keys = vec![key(Role::Entry), key(Role::Zone)];
    let compile = |keys: &[Arc<Key>], extra, before| {
        Rules::compile_at(&config(Dnssec::new(keys.to_vec()), extra), NOW, before)
    };
    let first = compile(&keys, "", None);
    let (all, _) = counts(&first);
    let again = compile(&keys, "", Some(&first));
    assert_eq!(counts(&again), (0, all));

    // One set, its link, and the link before it.
    let more = compile(&keys, "h3x A 192.0.2.1", Some(&again));
    assert_eq!(counts(&more), (3, all - 1));

    // Only what the zone key signs is signed by the new one: the DNSKEY set changes anyway.
    let others = [keys[0].clone(), key(Role::Zone)];
    let rolled = compile(&others, "", Some(&first));
    assert_eq!(counts(&rolled), (all, 0));
}

#[test]
fn no_signature_is_ever_old() {
    let keys = vec![key(Role::Entry)];
    let config = config(Dnssec::new(keys), "");
    let mut rules = Rules::compile_at(&config, NOW, None);
    let mut turns = 0;
    let end = Moment(NOW.0 + 90 * DAY);
    loop {
        let (until, expiration) = {
            let (_, sealed) = rules.table.sealed().next().unwrap();
            (sealed.until, sealed.expiration)
        };
        if until >= end {
            break;
        }
        // A third of two weeks is left when the next turn comes.
        assert!(expiration.0 >= until.0 + 14 * DAY / 3);
        rules = Rules::compile_at(&config, until, Some(&rules));
        turns += 1;
    }
    // Each turn does what would be due within the next fourteen hours, too.
    assert!((10..90).contains(&turns), "{turns}");
}

/// Asks for an address with DO set.
fn ask(rules: &Rules, world: &sealane_model::Snapshot, owner: &str, kind: u16) -> (Rcode, u16) {
    let mut message = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    message.extend_from_slice(name(owner).wire());
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(b"\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\0");
    let mut out = [0; UDP_SIZE_MAX];
    let source = IpAddr::from([198, 51, 100, 1]);
    let answered = answer(&message, source, Transport::Udp, rules, world, &mut out).unwrap();
    (answered.rcode, u16::from_be_bytes([out[6], out[7]]))
}

#[test]
fn a_failover_needs_no_signature_that_is_not_there() {
    let rules = Rules::compile_at(&config(Dnssec::new(vec![key(Role::Entry)]), ""), NOW, None);
    rules.sign_ahead(&world().build());
    let made = || {
        let (_, sealed) = rules.table.sealed().next().unwrap();
        sealed.kept.made.load(std::sync::atomic::Ordering::Relaxed)
    };
    let ahead = made();
    for down in [
        &[][..],
        &["eu"],
        &["eu", "us"],
        &["us", "asia"],
        &["eu", "us", "asia"],
    ] {
        let world = down
            .iter()
            .fold(world(), |world, region| world.turn(region, Down));
        let world = world.build();
        for owner in ["api.example.test", "web.example.test"] {
            for kind in [rtype::A, rtype::AAAA] {
                assert_eq!(ask(&rules, &world, owner, kind).0, Rcode::NoError);
            }
        }
    }
    assert_eq!(made(), ahead);
}

#[test]
fn beyond_the_allowance_an_answer_fails_as_a_whole() {
    let mut dnssec = Dnssec::new(vec![key(Role::Entry)]);
    dnssec.signatures_per_second = 1;
    let rules = Rules::compile_at(&config(dnssec.clone(), ""), NOW, None);
    let world = world().build();
    assert_eq!(
        ask(&rules, &world, "api.example.test", rtype::A),
        (Rcode::NoError, 3)
    );
    assert_eq!(
        ask(&rules, &world, "web.example.test", rtype::A),
        (Rcode::ServFail, 0)
    );
    assert_eq!(
        ask(&rules, &world, "api.example.test", rtype::A),
        (Rcode::NoError, 3)
    );
    rules.table.sealed().for_each(|(_, sealed)| sealed.refill());
    assert_eq!(
        ask(&rules, &world, "web.example.test", rtype::A),
        (Rcode::NoError, 3)
    );

    dnssec.denial = Denial::Compact;
    let rules = Rules::compile_at(&config(dnssec, ""), NOW, None);
    assert_eq!(
        ask(&rules, &world, "no1.example.test", rtype::A),
        (Rcode::NoError, 0)
    );
    assert_eq!(
        ask(&rules, &world, "no2.example.test", rtype::A),
        (Rcode::ServFail, 0)
    );
    // What is signed ahead is there.
    assert_eq!(
        ask(&rules, &world, "h1.example.test", rtype::MX),
        (Rcode::NoError, 0)
    );
}

#[test]
fn steered_signatures_that_were_used_outlive_a_reload() {
    let keys = vec![key(Role::Entry)];
    let mut dnssec = Dnssec::new(keys);
    dnssec.signatures_per_second = 1;
    let config = config(dnssec, "");
    let rules = Rules::compile_at(&config, NOW, None);
    let world = world().build();
    ask(&rules, &world, "api.example.test", rtype::A);
    ask(&rules, &world, "api.example.test", rtype::A);

    let later = Moment(NOW.0).plus(Duration::from_secs(60));
    let again = Rules::compile_at(&config, later, Some(&rules));
    let (_, sealed) = again.table.sealed().next().unwrap();
    assert_eq!(sealed.kept.len(), 1);
    assert_eq!(
        ask(&again, &world, "api.example.test", rtype::A),
        (Rcode::NoError, 3)
    );
    assert_eq!(
        sealed.kept.made.load(std::sync::atomic::Ordering::Relaxed),
        0
    );
}

proptest! {
    #[test]
    fn every_name_lies_in_the_span_of_exactly_one_link(
        owners in proptest::collection::btree_set("[a-c*]{1,2}(\\.[a-c]{1,2}){0,3}", 1..20),
        asked in "[a-d*]{1,3}(\\.[a-d]{1,2}){0,4}",
    ) {
        let full = |text: &str| name(&format!("{text}.example"));
        let mut names: Vec<Name> = owners.iter().map(|owner| full(owner)).collect();
        names.push(name("example"));
        let entries = names.iter().map(|owner| Entry {
            owner: owner.clone(),
            types: vec![rtype::A],
            at_times: &[],
            ds: None,
        });
        let chain = Chain::link(entries.collect(), Denial::Nsec, Ttl::from_secs(5));
        let asked = full(&asked);
        let link = chain.at(asked.wire()).unwrap();
        let next = {
            let data = &link.nsec.wire[12..];
            let length = data.windows(9).position(|w| w == b"\x07example\0").unwrap() + 9;
            Name::from_wire(&data[..length]).unwrap()
        };
        let key = |name: &Name| sort_key(name.wire());
        prop_assert!(key(&link.owner) <= key(&asked));
        // The last one leads back to the zone's own name.
        prop_assert!(key(&asked) < key(&next) || next == name("example"));
        prop_assert_eq!(link.owner == asked, names.contains(&asked));
    }
}
