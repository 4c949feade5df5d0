//! Transfers from primaries that send what they should not: each is refused, and each ends.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use sealane_dns::dnssec::timing::Moment;
use sealane_dns::name::Name;
use sealane_dns::record::Record;
use sealane_dns::transfer::incoming::{Base, Bounds, Flaw, Given, Incoming, Progress};
use sealane_model::Ttl;

const ID: u16 = 7;
const SOA: u16 = 6;
const A: u16 = 1;

fn name(text: &str) -> Name {
    Name::parse(text, None).unwrap()
}

fn record(owner: &str, rtype: u16, data: &[u8]) -> Record {
    Record {
        owner: name(owner),
        rtype,
        ttl: Ttl::from_secs(60),
        data: data.into(),
    }
}

fn soa(serial: u32) -> Record {
    let mut data = b"\x02ns\x07example\0\x04host\x07example\0".to_vec();
    data.extend_from_slice(&serial.to_be_bytes());
    for number in [3_600_u32, 600, 86_400, 60] {
        data.extend_from_slice(&number.to_be_bytes());
    }
    record("example", SOA, &data)
}

fn a(owner: &str, last: u8) -> Record {
    record(owner, A, &[192, 0, 2, last])
}

/// An answer with these records.
fn message(records: &[Record]) -> Vec<u8> {
    let mut message = ID.to_be_bytes().to_vec();
    message.extend_from_slice(&[0x84, 0, 0, 1]);
    message.extend_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
    message.extend_from_slice(&[0, 0, 0, 0]);
    message.extend_from_slice(b"\x07example\0\0\xfc\0\x01");
    for record in records {
        message.extend_from_slice(record.owner.wire());
        message.extend_from_slice(&record.rtype.to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        message.extend_from_slice(&record.ttl.as_secs().to_be_bytes());
        message.extend_from_slice(&u16::try_from(record.data.len()).unwrap().to_be_bytes());
        message.extend_from_slice(&record.data);
    }
    message
}

/// What becomes of these messages, with what is here.
fn judged(messages: &[Vec<u8>], base: Option<(&Record, &[Record])>) -> Result<Given, Flaw> {
    bounded(messages, base, Bounds::default())
}

fn bounded(
    messages: &[Vec<u8>],
    base: Option<(&Record, &[Record])>,
    bounds: Bounds,
) -> Result<Given, Flaw> {
    let apex = name("example");
    let base = base.map(|(soa, records)| Base { soa, records });
    let mut incoming = Incoming::unsigned(&apex, ID, base, bounds);
    for message in messages {
        if incoming.take(message.clone(), Moment(0))? == Progress::Done {
            return incoming.finish();
        }
    }
    panic!("it wants more");
}

fn zone(given: Result<Given, Flaw>) -> (u32, Vec<String>, bool) {
    match given.unwrap() {
        Given::Zone(zone) => {
            let mut owners: Vec<_> = zone.records.iter().map(|r| r.owner.to_string()).collect();
            owners.sort();
            (zone.soa.serial, owners, zone.is_incremental)
        }
        Given::Nothing => panic!("nothing came"),
    }
}

#[test]
fn a_whole_zone_comes_in_any_number_of_messages() {
    let all = [soa(5), a("a.example", 1), a("b.example", 2), soa(5)];
    let owners = vec!["a.example".to_owned(), "b.example".to_owned()];
    let expected = (5, owners, false);

    assert_eq!(zone(judged(&[message(&all)], None)), expected);
    let single: Vec<_> = all
        .iter()
        .map(|r| message(std::slice::from_ref(r)))
        .collect();
    assert_eq!(zone(judged(&single, None)), expected);
    // An answer to a question for differences may be the whole, too.
    let base = (&soa(3), &[a("old.example", 9)][..]);
    assert_eq!(zone(judged(&[message(&all)], Some(base))), expected);
    assert_eq!(zone(judged(&[message(&[soa(5), soa(5)])], None)).0, 5);
}

#[test]
fn differences_lead_from_what_is_here_to_what_is_there() {
    let here = [a("a.example", 1), a("b.example", 2)];
    let steps = [
        soa(7),
        soa(5),
        a("a.example", 1),
        soa(6),
        a("c.example", 3),
        soa(6),
        soa(7),
        a("d.example", 4),
        soa(7),
    ];
    let base = Some((&soa(5), &here[..]));
    let owners = ["b.example", "c.example", "d.example"].map(str::to_owned);
    let expected = (7, owners.to_vec(), true);

    assert_eq!(zone(judged(&[message(&steps)], base)), expected);
    let single: Vec<_> = steps
        .iter()
        .map(|r| message(std::slice::from_ref(r)))
        .collect();
    assert_eq!(zone(judged(&single, base)), expected);
    let same = judged(&[message(&[soa(5)])], base);
    assert!(matches!(same, Ok(Given::Nothing)), "{same:?}");
}

#[test]
fn what_a_primary_must_not_send_is_refused() {
    let here = [a("a.example", 1)];
    let base = Some((&soa(5), &here[..]));
    let cases: Vec<(&str, Vec<Record>, Option<_>, Flaw)> = vec![
        ("no SOA first", vec![a("a.example", 1)], None, Flaw::NoSoa),
        (
            "out of the zone",
            vec![soa(5), a("a.other", 1)],
            None,
            Flaw::Outside(name("a.other")),
        ),
        (
            "an SOA below the apex",
            vec![soa(5), record("x.example", SOA, &soa(5).data)],
            None,
            Flaw::StraySoa,
        ),
        (
            "another SOA at the end",
            vec![soa(5), a("a.example", 1), soa(6)],
            None,
            Flaw::StraySoa,
        ),
        (
            "differences that nobody asked for",
            vec![soa(6), soa(5)],
            None,
            Flaw::StraySoa,
        ),
        (
            "more after the end",
            vec![soa(5), soa(5), a("a.example", 1)],
            None,
            Flaw::Trailing,
        ),
        ("nothing at all", vec![], None, Flaw::Empty),
        (
            "a question's type",
            vec![soa(5), record("a.example", 255, b"")],
            None,
            Flaw::MetaType {
                owner: name("a.example"),
                rtype: 255,
            },
        ),
        (
            "data of another length",
            vec![soa(5), record("a.example", A, b"abc")],
            None,
            Flaw::Data,
        ),
        (
            "differences from elsewhere",
            vec![soa(7), soa(4)],
            base,
            Flaw::Gap,
        ),
        (
            "differences that go back",
            vec![soa(7), soa(5), soa(4)],
            base,
            Flaw::Gap,
        ),
        (
            "a step that does not follow",
            vec![soa(9), soa(5), soa(6), soa(7)],
            base,
            Flaw::Gap,
        ),
        (
            "what is not here goes",
            vec![soa(6), soa(5), a("b.example", 1)],
            base,
            Flaw::Mismatch,
        ),
        (
            "what is here comes",
            vec![soa(6), soa(5), soa(6), a("a.example", 1)],
            base,
            Flaw::Mismatch,
        ),
    ];
    for (what, records, base, expected) in cases {
        let flaw = judged(&[message(&records)], base).unwrap_err();
        assert_eq!(flaw, expected, "{what}");
    }
}

#[test]
fn an_endless_transfer_ends_at_its_bounds() {
    let bounds = Bounds {
        records: 1_000,
        octets: 100_000,
    };
    let mut endless = vec![message(&[soa(5)])];
    endless.extend((0..2_000).map(|_| message(&[a("a.example", 1)])));
    let flaw = bounded(&endless, None, bounds).unwrap_err();
    assert_eq!(flaw, Flaw::TooManyRecords(1_000));

    let large = record("a.example", 16, &[b'\xff'].repeat(256).repeat(200));
    let mut endless = vec![message(&[soa(5)])];
    endless.extend((0..10).map(|_| message(std::slice::from_ref(&large))));
    let flaw = bounded(&endless, None, bounds).unwrap_err();
    assert_eq!(flaw, Flaw::TooLong(100_000));
}

#[test]
fn answers_to_other_questions_and_refusals_are_no_transfer() {
    let whole = message(&[soa(5), soa(5)]);
    let with = |place: usize, octet: u8| {
        let mut message = whole.clone();
        message[place] = octet;
        judged(&[message], None).unwrap_err()
    };
    assert_eq!(with(0, 9), Flaw::NotTheAnswer);
    assert_eq!(with(2, 0x04), Flaw::NotTheAnswer);
    assert_eq!(with(2, 0xa4), Flaw::NotTheAnswer);
    assert_eq!(with(3, 5), Flaw::Refused("REFUSED".to_owned()));
    assert_eq!(with(13, b'X'), Flaw::NotTheAnswer);
    assert_eq!(with(2, 0x86), Flaw::Malformed);
}

#[test]
fn a_transfer_that_is_cut_anywhere_or_has_any_octet_changed_neither_panics_nor_is_taken_for_more() {
    let whole = message(&[soa(5), a("a.example", 1), soa(5)]);
    for length in 0..whole.len() {
        assert!(
            judged(&[whole[..length].to_vec()], None).is_err(),
            "{length}"
        );
    }
    for place in 0..whole.len() {
        for octet in [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
            let mut changed = whole.clone();
            changed[place] = octet;
            let apex = name("example");
            let mut incoming = Incoming::unsigned(&apex, ID, None, Bounds::default());
            if incoming.take(changed, Moment(0)) == Ok(Progress::Done)
                && let Ok(Given::Zone(zone)) = incoming.finish()
            {
                assert!(zone.records.len() <= 1);
                assert!(zone.records.iter().all(|r| r.owner.is_at_or_below(&apex)));
            }
        }
    }
}
