//! Messages that are malformed or mean harm, over UDP and TCP on real sockets: each is a row with its
//! RFC and the due reply or silence. Behind each one a lawful question must still be answered.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "how long a stranger holds a place is measured by the clock"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_dns::config::Zone;
use sealane_dns::name::Name;
use sealane_dns::record::parse_zone_file;
use sealane_dns::{Config, Deps, Dns, Options};
use sealane_model::publish::snapshot_channel;
use sealane_model::{SnapshotWriter, Ttl, Verdict};
use sealane_steering::GeoTable;
use sealane_testkit::World;

/// Long enough for a busy machine; nothing here waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);
/// A connection without a question ends after this.
const IDLE: Duration = Duration::from_millis(400);

const NOERROR: u8 = 0;
const FORMERR: u8 = 1;
const NXDOMAIN: u8 = 3;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;
/// The lower four bits of BADVERS: the rest stands in OPT.
const BADVERS: u8 = 0;

/// A server that waits for its clients as long as a test may take.
fn start() -> (Dns, SnapshotWriter) {
    start_waiting(PATIENCE)
}

fn start_waiting(idle: Duration) -> (Dns, SnapshotWriter) {
    let apex = Name::parse("example.test", None).unwrap();
    let text = "@ 60 SOA ns1 host 1 2 3 4 5\n@ NS ns1\nwww A 192.0.2.80\n";
    let file = parse_zone_file(text, &apex, Ttl::from_secs(60)).unwrap();
    let zone = Zone::new(apex, file.soa.unwrap(), file.records);
    let mut config = Config::new(vec![zone], Arc::new(GeoTable::empty()));
    config.bind = vec!["127.0.0.1:0".parse().unwrap()];
    config.limits.tcp_idle = idle;
    config.limits.answers = None;
    let world = World::new().region("eu", Verdict::Up).build();
    let (writer, world) = snapshot_channel(world);
    let options = Options {
        workers: NonZeroUsize::MIN,
    };
    let dns = Dns::bind(config, Deps { world }, options).unwrap();
    dns.start().unwrap();
    (dns, writer)
}

/// What is sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Silence,
    /// The code, and whether the question is repeated and an OPT record is there.
    Reply(u8, bool, bool),
}

use Due::{Reply, Silence};

/// A refusal that repeats the question, without OPT.
const fn plain(rcode: u8) -> Due {
    Reply(rcode, true, false)
}

/// A refusal of what could not even be read as a question.
const fn bare(rcode: u8) -> Due {
    Reply(rcode, false, false)
}

const fn with_opt(rcode: u8) -> Due {
    Reply(rcode, true, true)
}

const WWW: &[u8] = b"\x03www\x07example\x04test\0";
/// Type A, class IN.
const A_IN: &[u8] = b"\0\x01\0\x01";
/// An OPT record that announces 1,232 octets and has no options.
const OPT: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";

const ID: [u8; 2] = [0x5e, 0xa1];

/// A message: flags, the four counts, and what follows the header.
fn message(flags: [u8; 2], counts: [u16; 4], parts: &[&[u8]]) -> Vec<u8> {
    let mut message = ID.to_vec();
    message.extend_from_slice(&flags);
    message.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    parts
        .iter()
        .for_each(|part| message.extend_from_slice(part));
    message
}

/// A lawful question's header, and whatever body.
fn one(parts: &[&[u8]]) -> Vec<u8> {
    message([0, 0], [1, 0, 0, 0], parts)
}

/// The question `www.example.test A` with these octets as its additional section.
fn with(additionals: u16, parts: &[&[u8]]) -> Vec<u8> {
    let mut all = vec![WWW, A_IN];
    all.extend_from_slice(parts);
    message([0, 0], [1, 0, 0, additionals], &all)
}

/// … with an OPT record that has these options.
fn options(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    with(1, &[&OPT[..9], &length, data])
}

/// … with a Client Subnet option of this data.
fn subnet(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    options(&[b"\0\x08", &length[..], data].concat())
}

fn kind(rtype: u16, class: u16) -> Vec<u8> {
    one(&[WWW, &rtype.to_be_bytes(), &class.to_be_bytes()])
}

type Row = (&'static str, &'static str, Vec<u8>, Due);

fn headers() -> Vec<Row> {
    let www = [WWW, A_IN].concat();
    let flags = |flags| message(flags, [1, 0, 0, 0], &[&www]);
    vec![
        ("one octet", "RFC 1035 4.1.1", vec![0x5e], Silence),
        (
            "eleven octets",
            "RFC 1035 4.1.1",
            one(&[])[..11].to_vec(),
            Silence,
        ),
        (
            "a header that promises a question",
            "RFC 1035 4.1",
            one(&[]),
            bare(FORMERR),
        ),
        (
            "a header without a question",
            "RFC 9619 4",
            message([0, 0], [0; 4], &[]),
            bare(FORMERR),
        ),
        ("an answer", "RFC 1035 7.3", flags([0x80, 0]), Silence),
        (
            "an answer with an error",
            "RFC 1035 7.3",
            flags([0x84, 3]),
            Silence,
        ),
        (
            "an answer to an UPDATE",
            "RFC 2136 2.2",
            flags([0x80 | 5 << 3, 0]),
            Silence,
        ),
        (
            "an answer that is only a header",
            "RFC 1035 7.3",
            message([0x80, 0], [1, 0, 0, 0], &[]),
            Silence,
        ),
        (
            "an answer with garbage",
            "RFC 1035 7.3",
            message([0x80, 0], [9; 4], &[&[0xff; 40]]),
            Silence,
        ),
        ("IQUERY", "RFC 3425 3", flags([1 << 3, 0]), plain(NOTIMP)),
        (
            "STATUS",
            "RFC 1035 4.1.1",
            flags([2 << 3, 0]),
            plain(NOTIMP),
        ),
        (
            "an opcode that nobody has",
            "RFC 6895 2.2",
            flags([3 << 3, 0]),
            plain(NOTIMP),
        ),
        (
            "NOTIFY from nobody's primary",
            "RFC 1996 3.10",
            flags([4 << 3, 0]),
            plain(NOTIMP),
        ),
        ("UPDATE", "RFC 2136 2.2", flags([5 << 3, 0]), plain(NOTIMP)),
        (
            "DSO without a question",
            "RFC 8490 5.1",
            message([6 << 3, 0], [0; 4], &[b"\0\x01\0\x08"]),
            bare(NOTIMP),
        ),
        (
            "the last opcode",
            "RFC 6895 2.2",
            flags([15 << 3, 0]),
            plain(NOTIMP),
        ),
        (
            "UPDATE with garbage",
            "RFC 2136 2",
            message([5 << 3, 0], [1, 9, 9, 9], &[&[0xff; 30]]),
            bare(NOTIMP),
        ),
        (
            "AA in a question",
            "RFC 1035 4.1.1",
            flags([4, 0]),
            plain(NOERROR),
        ),
        (
            "TC in a question",
            "RFC 1035 4.1.1",
            flags([2, 0]),
            plain(NOERROR),
        ),
        (
            "RA and an error code in a question",
            "RFC 1035 4.1.1",
            flags([0, 0x8f]),
            plain(NOERROR),
        ),
        (
            "the reserved Z bit",
            "RFC 6895 2.1",
            flags([0, 0x40]),
            plain(NOERROR),
        ),
        (
            "AD and CD in a question",
            "RFC 6840 5.7",
            flags([0, 0x30]),
            plain(NOERROR),
        ),
    ]
}

fn counts() -> Vec<Row> {
    let www = [WWW, A_IN].concat();
    let counted = |counts, parts: &[&[u8]]| message([0, 0], counts, parts);
    let record = b"\0\0\x01\0\x01\0\0\0\0\0\x04\xc0\0\x02\x01";
    vec![
        (
            "two questions",
            "RFC 9619 4",
            counted([2, 0, 0, 0], &[&www, &www]),
            bare(FORMERR),
        ),
        (
            "two questions, one of them there",
            "RFC 9619 4",
            counted([2, 0, 0, 0], &[&www]),
            bare(FORMERR),
        ),
        (
            "two questions with OPT",
            "RFC 9619 4",
            counted([2, 0, 0, 1], &[&www, &www, OPT]),
            Reply(FORMERR, false, true),
        ),
        (
            "65,535 questions",
            "RFC 9619 4",
            counted([65_535, 0, 0, 0], &[&www]),
            bare(FORMERR),
        ),
        (
            "a question that is not counted",
            "RFC 9619 4",
            counted([0, 0, 0, 0], &[&www]),
            bare(FORMERR),
        ),
        (
            "an answer record",
            "RFC 1035 4.1",
            counted([1, 1, 0, 0], &[&www, record]),
            plain(FORMERR),
        ),
        (
            "an authority record",
            "RFC 1035 4.1",
            counted([1, 0, 1, 0], &[&www, record]),
            plain(FORMERR),
        ),
        (
            "an answer that is not there",
            "RFC 1035 4.1.1",
            counted([1, 1, 0, 0], &[&www]),
            plain(FORMERR),
        ),
        (
            "65,535 of each that are not there",
            "RFC 1035 4.1.1",
            counted([1, 65_535, 65_535, 65_535], &[&www]),
            plain(FORMERR),
        ),
        (
            "an additional that is not there",
            "RFC 1035 4.1.1",
            counted([1, 0, 0, 1], &[&www]),
            plain(FORMERR),
        ),
        (
            "65,535 additionals, one of them there",
            "RFC 1035 4.1.1",
            counted([1, 0, 0, 65_535], &[&www, OPT]),
            with_opt(FORMERR),
        ),
        (
            "an additional that is no OPT",
            "RFC 6891 6.1.1",
            counted([1, 0, 0, 1], &[&www, record]),
            plain(NOERROR),
        ),
        (
            "an octet behind the end",
            "RFC 1035 4.1",
            counted([1, 0, 0, 0], &[&www, b"x"]),
            plain(FORMERR),
        ),
        (
            "a second message behind the end",
            "RFC 1035 4.1",
            counted([1, 0, 0, 0], &[&www, &one(&[&www])]),
            plain(FORMERR),
        ),
        (
            "an octet behind OPT",
            "RFC 6891 6.1",
            counted([1, 0, 0, 1], &[&www, OPT, b"x"]),
            with_opt(FORMERR),
        ),
        (
            "OPT that is not counted",
            "RFC 1035 4.1.1",
            counted([1, 0, 0, 0], &[&www, OPT]),
            plain(FORMERR),
        ),
        (
            "a thousand octets behind the end",
            "RFC 1035 4.1",
            counted([1, 0, 0, 0], &[&www, &[0; 1_000]]),
            plain(FORMERR),
        ),
    ]
}

fn names() -> Vec<Row> {
    let label = [b"\x3f".as_slice(), &[b'a'; 63]].concat();
    let named = |name: &[u8]| one(&[name, A_IN]);
    let longest = [label.repeat(3), b"\x3d".to_vec(), vec![b'b'; 61], vec![0]].concat();
    let too_long = [label.repeat(3), b"\x3e".to_vec(), vec![b'b'; 62], vec![0]].concat();
    let many = [b"\x01a".repeat(128), vec![0]].concat();
    let most = [b"\x01a".repeat(127), vec![0]].concat();
    vec![
        (
            "a pointer to itself",
            "RFC 1035 4.1.4",
            named(b"\xc0\x0c"),
            bare(FORMERR),
        ),
        (
            "a pointer into the header",
            "RFC 1035 4.1.4",
            named(b"\xc0\0"),
            bare(FORMERR),
        ),
        (
            "a pointer forward",
            "RFC 1035 4.1.4",
            named(b"\xc0\x20"),
            bare(FORMERR),
        ),
        (
            "a pointer beyond the message",
            "RFC 1035 4.1.4",
            named(b"\xff\xff"),
            bare(FORMERR),
        ),
        (
            "two pointers to each other",
            "RFC 1035 4.1.4",
            named(b"\xc0\x0e\xc0\x0c"),
            bare(FORMERR),
        ),
        (
            "a pointer back to its own label",
            "RFC 1035 4.1.4",
            named(b"\x01a\xc0\x0c"),
            bare(FORMERR),
        ),
        (
            "half a pointer",
            "RFC 1035 4.1.4",
            one(&[b"\x01a\xc0"]),
            bare(FORMERR),
        ),
        (
            "a label of type 01",
            "RFC 6891 5",
            named(b"\x41a\0"),
            bare(FORMERR),
        ),
        (
            "a binary label",
            "RFC 6891 5",
            named(b"\x41\x08\xff\0"),
            bare(FORMERR),
        ),
        (
            "a label of type 10",
            "RFC 1035 4.1.4",
            named(b"\x81a\0"),
            bare(FORMERR),
        ),
        (
            "a label beyond the message",
            "RFC 1035 3.1",
            one(&[b"\x3fabc"]),
            bare(FORMERR),
        ),
        (
            "a name without an end",
            "RFC 1035 3.1",
            one(&[b"\x03www\x07example"]),
            bare(FORMERR),
        ),
        (
            "a name and nothing else",
            "RFC 1035 4.1.2",
            one(&[WWW]),
            bare(FORMERR),
        ),
        (
            "a name and half a type",
            "RFC 1035 4.1.2",
            one(&[WWW, b"\0"]),
            bare(FORMERR),
        ),
        (
            "a question without its class",
            "RFC 1035 4.1.2",
            one(&[WWW, b"\0\x01"]),
            bare(FORMERR),
        ),
        (
            "half a class",
            "RFC 1035 4.1.2",
            one(&[WWW, b"\0\x01\0"]),
            bare(FORMERR),
        ),
        (
            "a name of 256 octets",
            "RFC 1035 2.3.4",
            named(&too_long),
            bare(FORMERR),
        ),
        (
            "a name of 255 octets",
            "RFC 1035 2.3.4",
            named(&longest),
            plain(REFUSED),
        ),
        ("128 labels", "RFC 1035 2.3.4", named(&many), bare(FORMERR)),
        ("127 labels", "RFC 1035 2.3.4", named(&most), plain(REFUSED)),
        (
            "a name of 2,000 octets",
            "RFC 1035 2.3.4",
            named(&[label.repeat(31), vec![0]].concat()),
            bare(FORMERR),
        ),
        ("the root", "RFC 1034 3.1", named(b"\0"), plain(REFUSED)),
        (
            "octets that are no letters",
            "RFC 2181 11",
            named(b"\x04\0\xff.\\\x07example\x04test\0"),
            plain(NXDOMAIN),
        ),
        (
            "a dot within a label",
            "RFC 2181 11",
            named(b"\x0bwww.example\x04test\0"),
            plain(REFUSED),
        ),
        (
            "a name of other people",
            "RFC 1035 4.1.1",
            named(b"\x03www\x07example\x03com\0"),
            plain(REFUSED),
        ),
        (
            "what only ends like our name",
            "RFC 1034 3.1",
            named(b"\x09anexample\x04test\0"),
            plain(REFUSED),
        ),
    ]
}

fn types_and_classes() -> Vec<Row> {
    vec![
        ("type 0", "RFC 6895 3.1", kind(0, 1), plain(REFUSED)),
        (
            "OPT as a type",
            "RFC 6891 6.1.1",
            kind(41, 1),
            plain(REFUSED),
        ),
        (
            "NXNAME, which is asked for by nobody",
            "RFC 9824 3.5",
            kind(128, 1),
            plain(FORMERR),
        ),
        ("TKEY", "RFC 2930 2", kind(249, 1), plain(REFUSED)),
        (
            "TSIG as a type",
            "RFC 8945 4.2",
            kind(250, 1),
            plain(REFUSED),
        ),
        ("IXFR", "RFC 1995 2", kind(251, 1), plain(REFUSED)),
        ("AXFR", "RFC 5936 2.2.1", kind(252, 1), plain(REFUSED)),
        ("MAILB", "RFC 1035 3.2.3", kind(253, 1), plain(REFUSED)),
        ("MAILA", "RFC 1035 3.2.3", kind(254, 1), plain(REFUSED)),
        (
            "a type that nobody has",
            "RFC 3597 3",
            kind(65_534, 1),
            plain(NOERROR),
        ),
        (
            "the last type",
            "RFC 6895 3.1",
            kind(65_535, 1),
            plain(NOERROR),
        ),
        ("class 0", "RFC 6895 3.2", kind(1, 0), plain(REFUSED)),
        ("class CS", "RFC 6895 3.2", kind(1, 2), plain(REFUSED)),
        (
            "class CH, and nothing to tell",
            "RFC 4892 2",
            kind(16, 3),
            plain(REFUSED),
        ),
        ("class HS", "RFC 6895 3.2", kind(1, 4), plain(REFUSED)),
        ("class NONE", "RFC 6895 3.2", kind(1, 254), plain(REFUSED)),
        ("class ANY", "RFC 1035 3.2.5", kind(1, 255), plain(REFUSED)),
        (
            "the last class",
            "RFC 6895 3.2",
            kind(1, 65_535),
            plain(REFUSED),
        ),
    ]
}

fn edns() -> Vec<Row> {
    let changed = |at: usize, octet: u8| {
        let mut opt = OPT.to_vec();
        opt[at] = octet;
        with(1, &[&opt])
    };
    let tsig = b"\x01k\0\0\xfa\0\xff\0\0\0\0\0\x02xx";
    let many = b"\xfd\xe9\0\0".repeat(300);
    vec![
        (
            "two OPT records",
            "RFC 6891 6.1.1",
            with(2, &[OPT, OPT]),
            with_opt(FORMERR),
        ),
        (
            "three OPT records",
            "RFC 6891 6.1.1",
            with(3, &[OPT, OPT, OPT]),
            with_opt(FORMERR),
        ),
        (
            "OPT below a name",
            "RFC 6891 6.1.2",
            with(1, &[b"\x01a", OPT]),
            plain(FORMERR),
        ),
        (
            "OPT below a pointer",
            "RFC 6891 6.1.2",
            with(1, &[b"\xc0\x0c", &OPT[1..]]),
            plain(FORMERR),
        ),
        (
            "half an OPT record",
            "RFC 6891 6.1.2",
            with(1, &[&OPT[..6]]),
            plain(FORMERR),
        ),
        (
            "OPT with data beyond the message",
            "RFC 6891 6.1.2",
            changed(10, 9),
            plain(FORMERR),
        ),
        (
            "EDNS version 1",
            "RFC 6891 6.1.3",
            changed(6, 1),
            with_opt(BADVERS),
        ),
        (
            "EDNS version 255",
            "RFC 6891 6.1.3",
            changed(6, 255),
            with_opt(BADVERS),
        ),
        (
            "EDNS version 1 with options that are none",
            "RFC 6891 6.1.3",
            with(1, &[b"\0\0\x29\x04\xd0\0\x01\0\0\0\x01x"]),
            with_opt(BADVERS),
        ),
        (
            "an extended code in a question",
            "RFC 6891 6.1.3",
            changed(5, 0xff),
            with_opt(NOERROR),
        ),
        (
            "all flags of EDNS",
            "RFC 6891 6.1.4",
            changed(8, 0xff),
            with_opt(NOERROR),
        ),
        (
            "a size of 0",
            "RFC 6891 6.2.3",
            with(1, &[b"\0\0\x29\0\0\0\0\0\0\0\0"]),
            with_opt(NOERROR),
        ),
        (
            "OPT among the answers",
            "RFC 6891 6.1.1",
            message([0, 0], [1, 1, 0, 0], &[WWW, A_IN, OPT]),
            plain(FORMERR),
        ),
        (
            "OPT in the authority section",
            "RFC 6891 6.1.1",
            message([0, 0], [1, 0, 1, 0], &[WWW, A_IN, OPT]),
            plain(FORMERR),
        ),
        (
            "half an option's head",
            "RFC 6891 6.1.2",
            options(b"\0"),
            with_opt(FORMERR),
        ),
        (
            "an option's code alone",
            "RFC 6891 6.1.2",
            options(b"\0\x0a"),
            with_opt(FORMERR),
        ),
        (
            "an option beyond its record",
            "RFC 6891 6.1.2",
            options(b"\xfd\xe9\0\x05abcd"),
            with_opt(FORMERR),
        ),
        (
            "a second option beyond its record",
            "RFC 6891 6.1.2",
            options(b"\xfd\xe9\0\0\xfd\xe9\xff\xff"),
            with_opt(FORMERR),
        ),
        (
            "an option without data",
            "RFC 6891 6.1.2",
            options(b"\xfd\xe9\0\0"),
            with_opt(NOERROR),
        ),
        (
            "option 0",
            "RFC 6891 9",
            options(b"\0\0\0\0"),
            with_opt(NOERROR),
        ),
        (
            "option 65535",
            "RFC 6891 9",
            options(b"\xff\xff\0\x01x"),
            with_opt(NOERROR),
        ),
        (
            "300 options",
            "RFC 6891 6.1.2",
            options(&many),
            with_opt(NOERROR),
        ),
        (
            "NSID with data",
            "RFC 5001 2.1",
            options(b"\0\x03\0\x02ab"),
            with_opt(NOERROR),
        ),
        (
            "a keepalive with a time",
            "RFC 7828 3.2.1",
            options(b"\0\x0b\0\x02\xff\xff"),
            with_opt(NOERROR),
        ),
        (
            "padding",
            "RFC 7830 3",
            options(&[b"\0\x0c\x01\0".as_slice(), &[0; 256]].concat()),
            with_opt(NOERROR),
        ),
        (
            "a signature that we cannot check",
            "RFC 8945 5.2",
            with(2, &[OPT, tsig]),
            with_opt(NOERROR),
        ),
        (
            "OPT behind another additional",
            "RFC 6891 6.1.1",
            with(2, &[tsig, OPT]),
            with_opt(NOERROR),
        ),
        (
            "a cookie of 7 octets",
            "RFC 7873 5.2.2",
            options(b"\0\x0a\0\x071234567"),
            with_opt(FORMERR),
        ),
        (
            "a cookie without data",
            "RFC 7873 5.2.2",
            options(b"\0\x0a\0\0"),
            with_opt(FORMERR),
        ),
        (
            "a cookie of 9 octets",
            "RFC 7873 5.2.2",
            options(b"\0\x0a\0\x09123456789"),
            with_opt(FORMERR),
        ),
        (
            "a cookie of 41 octets",
            "RFC 7873 5.2.2",
            options(&[b"\0\x0a\0\x29".as_slice(), &[7; 41]].concat()),
            with_opt(FORMERR),
        ),
        (
            "somebody else's cookie",
            "RFC 7873 5.2.4",
            options(&[b"\0\x0a\0\x18".as_slice(), &[7; 24]].concat()),
            with_opt(NOERROR),
        ),
        (
            "two cookies",
            "RFC 7873 5.2",
            options(b"\0\x0a\0\x0812345678\0\x0a\0\x0887654321"),
            with_opt(NOERROR),
        ),
    ]
}

fn subnets() -> Vec<Row> {
    const RFC: &str = "RFC 7871 7.1.1";
    let two = b"\0\x08\0\x07\0\x01\x18\0\xcb\0\x71".repeat(2);
    vec![
        ("a subnet without data", RFC, subnet(b""), with_opt(FORMERR)),
        (
            "a subnet of three octets",
            RFC,
            subnet(b"\0\x01\x18"),
            with_opt(FORMERR),
        ),
        (
            "too few octets",
            RFC,
            subnet(b"\0\x01\x18\0\xcb\0"),
            with_opt(FORMERR),
        ),
        (
            "too many octets",
            RFC,
            subnet(b"\0\x01\x18\0\xcb\0\x71\0"),
            with_opt(FORMERR),
        ),
        (
            "bits beyond the prefix",
            RFC,
            subnet(b"\0\x01\x14\0\xcb\0\x7f"),
            with_opt(FORMERR),
        ),
        (
            "one bit beyond the prefix",
            RFC,
            subnet(b"\0\x01\x17\0\xcb\0\x71"),
            with_opt(FORMERR),
        ),
        (
            "a scope in a question",
            RFC,
            subnet(b"\0\x01\x18\x18\xcb\0\x71"),
            with_opt(FORMERR),
        ),
        (
            "33 bits of IPv4",
            RFC,
            subnet(b"\0\x01\x21\0\xcb\0\x71\x01\0"),
            with_opt(FORMERR),
        ),
        (
            "129 bits of IPv6",
            RFC,
            subnet(&[b"\0\x02\x81\0".as_slice(), &[0; 17]].concat()),
            with_opt(FORMERR),
        ),
        (
            "255 bits in 32 octets",
            RFC,
            subnet(&[b"\0\x01\xff\0".as_slice(), &[0; 32]].concat()),
            with_opt(FORMERR),
        ),
        (
            "family 3",
            RFC,
            subnet(b"\0\x03\x18\0\xcb\0\x71"),
            with_opt(FORMERR),
        ),
        (
            "family 65535",
            RFC,
            subnet(b"\xff\xff\0\0"),
            with_opt(FORMERR),
        ),
        (
            "family 0 with an address",
            RFC,
            subnet(b"\0\0\x08\0\x0a"),
            with_opt(FORMERR),
        ),
        (
            "two subnets",
            "RFC 7871 6",
            options(&two),
            with_opt(FORMERR),
        ),
        (
            "a subnet of no bits",
            "RFC 7871 7.1.2",
            subnet(b"\0\x01\0\0"),
            with_opt(NOERROR),
        ),
        (
            "family 0 without bits",
            "RFC 7871 7.1.2",
            subnet(b"\0\0\0\0"),
            with_opt(NOERROR),
        ),
        (
            "a whole address",
            "RFC 7871 11.1",
            subnet(b"\0\x01\x20\0\xcb\0\x71\x07"),
            with_opt(NOERROR),
        ),
    ]
}

fn rows() -> Vec<Row> {
    [
        headers(),
        counts(),
        names(),
        types_and_classes(),
        edns(),
        subnets(),
    ]
    .concat()
}

/// What came back for a message, as a row states it.
fn read(reply: &[u8]) -> Due {
    assert!(reply.len() >= 12 && reply[..2] == ID, "{reply:02x?}");
    assert_eq!(reply[2] & 0x80, 0x80, "QR is set");
    let count = |at: usize| u16::from_be_bytes([reply[at], reply[at + 1]]);
    let has_opt = reply.windows(3).any(|three| three == b"\0\0\x29") && count(10) == 1;
    Reply(reply[3] & 15, count(4) == 1, has_opt)
}

/// A lawful question with another id.
fn good() -> Vec<u8> {
    let mut message = one(&[WWW, A_IN]);
    message[..2].copy_from_slice(b"ok");
    message
}

fn is_good(reply: &[u8]) -> bool {
    reply.starts_with(b"ok") && reply.ends_with(&[192, 0, 2, 80])
}

fn udp(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut reply = vec![0; 4_096];
    let length = socket.recv(&mut reply).unwrap();
    reply.truncate(length);
    reply
}

fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    [&length, message].concat()
}

/// `None`: closed.
fn next(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).ok()?;
    Some(reply)
}

/// The server still answers those who mean no harm.
fn assert_well(server: SocketAddr) {
    let socket = udp(server);
    socket.send(&good()).unwrap();
    assert!(is_good(&receive(&socket)));
    // On a busy machine a server that waits briefly may close before the question comes, and take its time
    // to see that others have left.
    let begun = Instant::now();
    while !answers_by_tcp(server) {
        assert!(begun.elapsed() < PATIENCE, "no answer by TCP");
    }
}

fn answers_by_tcp(server: SocketAddr) -> bool {
    let mut stream = connect(server);
    let sent = stream.write_all(&framed(&good()));
    sent.is_ok() && next(&mut stream).is_some_and(|reply| is_good(&reply))
}

#[test]
fn there_are_more_than_a_hundred_rows_and_no_two_are_alike() {
    let rows = rows();
    assert!(rows.len() > 100, "{}", rows.len());
    let mut names: Vec<_> = rows.iter().map(|(name, ..)| name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rows.len());
}

#[test]
fn over_udp_each_gets_what_is_due() {
    let (dns, _world) = start();
    let server = dns.addresses()[0];
    let mut wrong = Vec::new();
    for (name, rfc, message, due) in rows() {
        let socket = udp(server);
        socket.send(&message).unwrap();
        // One thread answers in order: what comes first tells whether there was a reply at all.
        socket.send(&good()).unwrap();
        let first = receive(&socket);
        let got = if is_good(&first) {
            Silence
        } else {
            read(&first)
        };
        if got != due {
            wrong.push(format!("{name} ({rfc}): {got:?} instead of {due:?}"));
        }
        if got != Silence {
            assert!(is_good(&receive(&socket)), "{name}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn over_tcp_each_gets_the_same_and_silence_is_the_end() {
    let (dns, _world) = start();
    let server = dns.addresses()[0];
    let mut wrong = Vec::new();
    for (name, rfc, message, due) in rows() {
        let mut stream = connect(server);
        stream.write_all(&framed(&message)).unwrap();
        let got = next(&mut stream).map_or(Silence, |reply| read(&reply));
        if got != due {
            wrong.push(format!("{name} ({rfc}): {got:?} instead of {due:?}"));
        }
        if got != Silence {
            stream.write_all(&framed(&good())).unwrap();
            assert!(is_good(&next(&mut stream).unwrap()), "{name}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_beginning_of_a_message_is_malformed_and_not_more() {
    let (dns, _world) = start();
    let server = dns.addresses()[0];
    let whole = subnet(b"\0\x01\x18\0\xcb\0\x71");
    let socket = udp(server);
    let mut stream = connect(server);
    for length in 1..whole.len() {
        socket.send(&whole[..length]).unwrap();
        socket.send(&good()).unwrap();
        let first = receive(&socket);
        if length < 12 {
            assert!(is_good(&first), "{length}: silence");
            continue;
        }
        let Reply(code, _, _) = read(&first) else {
            panic!("a reply");
        };
        assert_eq!(code, FORMERR, "{length}");
        assert!(is_good(&receive(&socket)));
        stream.write_all(&framed(&whole[..length])).unwrap();
        assert_eq!(next(&mut stream).unwrap()[3] & 15, FORMERR, "{length}");
    }
}

/// Flipped bits: whatever comes of them, the server goes on.
#[test]
fn no_bit_that_is_flipped_hurts() {
    let (dns, _world) = start();
    let server = dns.addresses()[0];
    let socket = udp(server);
    let whole = subnet(b"\0\x01\x18\0\xcb\0\x71");
    for place in 0..whole.len() * 8 {
        let mut message = whole.clone();
        message[place / 8] ^= 1 << (place % 8);
        socket.send(&message).unwrap();
        socket.send(&good()).unwrap();
        while !is_good(&receive(&socket)) {}
    }
    assert_well(server);
}

#[test]
fn a_datagram_that_is_longer_than_any_question_is_malformed() {
    let (dns, _world) = start();
    let server = dns.addresses()[0];
    let socket = udp(server);
    for length in [2_049, 9_000, 65_000] {
        let mut message = one(&[WWW, A_IN]);
        message.resize(length, 0);
        socket.send(&message).unwrap();
        assert_eq!(read(&receive(&socket)), bare(FORMERR), "{length}");
    }
    assert_well(server);
}

#[test]
fn a_stream_that_lies_about_lengths_is_cut_off_in_time() {
    let (dns, _world) = start_waiting(IDLE);
    let server = dns.addresses()[0];
    let question = good();
    let cases: [(&str, Vec<u8>); 6] = [
        ("nothing at all", vec![]),
        ("half a length", vec![0]),
        ("a length and nothing", vec![0, 40]),
        (
            "less than was promised",
            [&[0, 200][..], &question].concat(),
        ),
        (
            "the most that can be promised",
            [&[0xff, 0xff][..], &question].concat(),
        ),
        ("a length of 0", vec![0, 0]),
    ];
    for (name, octets) in cases {
        let mut stream = connect(server);
        stream.write_all(&octets).unwrap();
        let begun = Instant::now();
        assert_eq!(next(&mut stream), None, "{name}");
        assert!(begun.elapsed() < PATIENCE / 2, "{name} held its place");
    }
    assert_well(server);
    // More than was promised is the next message's beginning.
    let (dns, _world) = start();
    let server = dns.addresses()[0];
    let mut stream = connect(server);
    stream
        .write_all(&[&framed(&question)[..], &framed(&question)[..5]].concat())
        .unwrap();
    assert!(is_good(&next(&mut stream).unwrap()));
    stream.write_all(&framed(&question)[5..]).unwrap();
    assert!(is_good(&next(&mut stream).unwrap()));
    assert_well(server);
}

#[test]
fn a_message_may_come_octet_by_octet_and_in_any_pieces() {
    let (dns, _world) = start();
    let server = dns.addresses()[0];
    let octets = [framed(&good()), framed(&good())].concat();
    let mut stream = connect(server);
    stream.set_nodelay(true).unwrap();
    for octet in octets {
        stream.write_all(&[octet]).unwrap();
    }
    for _ in 0..2 {
        assert!(is_good(&next(&mut stream).unwrap()));
    }
}

/// RFC 7766 §6.2.1.1: many questions without waiting. Who takes no answers is read from no more, so
/// that nothing piles up; and is let go.
#[test]
fn a_client_that_asks_on_and_reads_nothing_is_let_go() {
    let (dns, _world) = start_waiting(IDLE);
    let server = dns.addresses()[0];
    let mut stream = connect(server);
    stream
        .set_write_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let questions = framed(&good()).repeat(1_000);
    let mut sent = 0;
    let begun = Instant::now();
    // A kernel holds some megabytes for both sides; beyond that the server would have to.
    while sent < 64 << 20 && begun.elapsed() < PATIENCE {
        match stream.write(&questions) {
            Ok(some) => sent += some,
            Err(_) => break,
        }
    }
    assert!(sent < 64 << 20, "{sent} octets were taken without a limit");
    assert_well(server);
}

#[test]
fn many_questions_at_once_are_answered_in_their_order() {
    let (dns, _world) = start();
    let mut stream = connect(dns.addresses()[0]);
    let mut all = Vec::new();
    for number in 0..500_u16 {
        let mut message = good();
        message[..2].copy_from_slice(&number.to_be_bytes());
        all.extend(framed(&message));
    }
    stream.write_all(&all).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    for number in 0..500_u16 {
        assert_eq!(next(&mut stream).unwrap()[..2], number.to_be_bytes());
    }
    assert_eq!(next(&mut stream), None);
}

#[test]
fn connections_that_end_abruptly_leave_no_trace() {
    let (dns, _world) = start();
    let server = dns.addresses()[0];
    // One client may have a quarter of 1,024 at once; these are more, one after another.
    for number in 0..600 {
        let mut stream = connect(server);
        let octets = framed(&good());
        let _ = stream.write_all(&octets[..number % octets.len()]);
        let socket = socket2::SockRef::from(&stream);
        // Closed by a reset instead of by an end.
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
    assert_well(server);
}
