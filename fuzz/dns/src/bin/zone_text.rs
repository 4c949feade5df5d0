//! Any text as a zone file: read, checked, compiled and asked. Nothing panics, every mistake has a
//! place in the text, and what was read says only names inside of the zone.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sealane_dns::config::{Config, Zone};
use sealane_dns::engine::{Rules, STREAM_SIZE_MAX, Transport, answer};
use sealane_dns::name::Name;
use sealane_dns::record::parse_zone_file;
use sealane_model::{Snapshot, Ttl};
use sealane_steering::GeoTable;
use sealane_fuzz_dns::World;

fuzz_target!(|text: &str| {
    let apex = Name::parse("t.example", None).expect("a name");
    let file = match parse_zone_file(text, &apex, Ttl::from_secs(300)) {
        Ok(file) => file,
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            let lines = text.split('\n').count();
            for mistake in &mistakes {
                assert!((1..=lines).contains(&mistake.line) && mistake.column >= 1);
            }
            return;
        }
    };
    let Some(soa) = file.soa else { return };
    let names: Vec<Name> = file.records.iter().map(|r| r.owner.clone()).collect();
    assert!(names.iter().all(|name| name.is_at_or_below(&apex)));
    let zone = Zone::new(apex, soa, file.records);
    let _ = sealane_dns::zone::check(&zone);
    let rules = Rules::compile(&Config::new(vec![zone], Arc::new(GeoTable::empty())));
    let world = World::new().build();
    let mut out = vec![0; STREAM_SIZE_MAX];
    for name in names.iter().take(16) {
        for rtype in [1, 2, 5, 16, 28, 255] {
            ask(name, rtype, &rules, &world, &mut out);
        }
    }
});

fn ask(name: &Name, rtype: u16, rules: &Rules, world: &Snapshot, out: &mut [u8]) {
    let mut message = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(name.wire());
    message.extend_from_slice(&rtype.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    let source = [192, 0, 2, 1].into();
    let answered = answer(&message, source, Transport::Stream, rules, world, out);
    assert!(answered.is_some(), "a name of the zone is answered");
}
