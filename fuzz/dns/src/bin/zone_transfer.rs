//! Any messages as a transfer that comes in, for differences or the whole. Nothing panics, bounds hold, and what
//! is taken says only names inside of the zone. What a server is asked for a transfer is answered or left to the
//! engine.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sealane_dns::dnssec::timing::Moment;
use sealane_dns::name::Name;
use sealane_dns::record::Record;
use sealane_dns::transfer::desk::Desk;
use sealane_dns::transfer::incoming::{Base, Bounds, Given, Incoming, Progress};
use sealane_model::Ttl;

const BOUNDS: Bounds = Bounds {
    records: 64,
    octets: 4_096,
};

fuzz_target!(|octets: &[u8]| {
    let _ = Desk::concerns(octets);
    let apex = Name::parse("t.example", None).expect("a name");
    let soa = record(&apex, 6, b"\0\0\0\0\0\x05\0\0\0\x05\0\0\0\x05\0\0\0\x05\0\0\0\x05");
    let here = [record(&apex, 2, b"\0"), record(&apex, 1, b"\x7f\0\0\x01")];
    let base = Base {
        soa: &soa,
        records: &here,
    };
    for base in [None, Some(base)] {
        // The first two octets stand for the id.
        let id = octets.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
        let mut incoming = Incoming::unsigned(&apex, id, base, BOUNDS);
        let mut rest = octets;
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length) & 0x0fff).min(after.len());
            let (message, after) = after.split_at(length);
            rest = after;
            let message = [&id.to_be_bytes(), message].concat();
            match incoming.take(message, Moment(0)) {
                Ok(Progress::More) => {}
                Ok(Progress::Done) => {
                    if let Ok(Given::Zone(zone)) = incoming.finish() {
                        assert!(zone.records.len() <= BOUNDS.records + here.len());
                        assert!(zone.records.iter().all(|r| r.owner.is_at_or_below(&apex)));
                    }
                    break;
                }
                Err(_) => break,
            }
        }
    }
});

fn record(owner: &Name, rtype: u16, data: &[u8]) -> Record {
    Record {
        owner: owner.clone(),
        rtype,
        ttl: Ttl::from_secs(60),
        data: data.into(),
    }
}
