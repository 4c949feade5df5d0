//! Signed zones, judged by `delv`: every kind of answer is validated from the zone's key on.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use sealane_dns::config::{Dnssec, SteeredName, Zone};
use sealane_dns::dnssec::chain::Denial;
use sealane_dns::dnssec::key::{Algorithm, Key, Role};
use sealane_dns::dnssec::timing::{Moment, Times, first};
use sealane_dns::name::Name;
use sealane_dns::record::parse_zone_file;
use sealane_dns::service::Service;
use sealane_dns::{Config, Deps, Dns, Options};
use sealane_model::publish::snapshot_channel;
use sealane_model::{AllDown, SnapshotWriter, Ttl, Verdict};
use sealane_steering::{GeoTable, SteeringPolicy};
use sealane_testkit::World;

const ZONE: &str = "\
@ 60 SOA ns1 host 1 3600 600 86400 5
@ NS ns1
@ NS ns.other.example.
@ MX 10 mail
ns1 A 192.0.2.53
mail A 192.0.2.25
mail AAAA 2001:db8::25
www CNAME mail
far CNAME www.elsewhere.example.
deep.down.below TXT here
*.wild TXT wildcard
*.wild MX 10 mail
*.alias CNAME mail
moved DNAME wild
child NS ns.child
ns.child A 192.0.2.99
safe NS ns.safe
safe DS 4711 13 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
ns.safe A 192.0.2.98
";

fn world() -> World {
    World::new()
        .region("eu", Verdict::Up)
        .addresses(&["192.0.2.10", "192.0.2.11"])
        .region("us", Verdict::Up)
        .addresses(&["192.0.2.20"])
}

fn name(text: &str) -> Name {
    Name::parse(text, None).unwrap()
}

fn key(zone: &str, role: Role, algorithm: Algorithm) -> Arc<Key> {
    Arc::new(Key::generate(name(zone), role, algorithm, Times::default()).unwrap())
}

fn zone(apex: &str, text: &str, dnssec: Option<Dnssec>) -> Zone {
    let apex = name(apex);
    let file = parse_zone_file(text, &apex, Ttl::from_secs(300)).unwrap();
    let mut zone = Zone::new(apex, file.soa.unwrap(), file.records);
    zone.dnssec = dnssec.map(Arc::new);
    zone
}

/// The zone `example.test` with two steered names.
fn example(dnssec: Dnssec) -> Zone {
    let mut zone = zone("example.test", ZONE, Some(dnssec));
    let pool = world().build().topology.pool_named("api").unwrap().id;
    let nearest = Arc::new(SteeringPolicy::Nearest);
    for owner in ["api.example.test", "example.test", "*.near.example.test"] {
        zone.steered
            .push(SteeredName::new(name(owner), pool, nearest.clone()));
    }
    let mut cdn = SteeredName::new(name("cdn.example.test"), pool, nearest.clone());
    let eu = world().build().topology.region_named("eu").unwrap().id;
    cdn.hosts = vec![(eu, name("mail.example.test"))];
    let mut service = SteeredName::new(name("svc.example.test"), pool, nearest);
    service.https = Some(Service::parse("alpn=h2").unwrap());
    zone.steered.extend([cdn, service]);
    zone
}

struct Served {
    dns: Dns,
    writer: SnapshotWriter,
    dir: tempfile::TempDir,
}

impl Served {
    fn new(zones: Vec<Zone>, anchor: &Key) -> Self {
        let (writer, world) = snapshot_channel(world().build());
        let options = Options {
            workers: NonZeroUsize::MIN,
        };
        let dns = Dns::bind(config(zones), Deps { world }, options).unwrap();
        dns.start().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let served = Self { dns, writer, dir };
        served.trust(anchor);
        served
    }

    /// From now on judged by this key.
    fn trust(&self, anchor: &Key) {
        let ds = sealane_dns::dnssec::key_file::ds_text(anchor);
        let (zone, rest) = ds.split_once(" IN DS ").unwrap();
        let (numbers, digest) = rest.rsplit_once(' ').unwrap();
        let text = format!("trust-anchors {{ {zone} static-ds {numbers} \"{digest}\"; }};\n");
        fs::write(self.dir.path().join("anchors"), text).unwrap();
    }

    fn address(&self) -> SocketAddr {
        self.dns.addresses()[0]
    }

    /// What `delv` says of an answer.
    fn judged(&self, root: &str, name: &str, kind: &str) -> String {
        let address = self.address();
        let output = Command::new("delv")
            .arg(format!("@{}", address.ip()))
            .args(["-p", &address.port().to_string(), "-a"])
            .arg(self.dir.path().join("anchors"))
            .arg(format!("+root={root}"))
            .args(["+nocrypto", name, kind])
            .output()
            .expect("delv is needed (Debian: bind9-dnsutils)");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_judgement = |line: &&str| {
            line.starts_with("; ") && (line.ends_with("validated") || line.ends_with("answer"))
        };
        let judgements: Vec<_> = said.lines().filter(is_judgement).collect();
        if judgements.is_empty() {
            return complaint;
        }
        judgements.join(" ")
    }
}

fn config(zones: Vec<Zone>) -> Config {
    let mut config = Config::new(zones, Arc::new(GeoTable::empty()));
    config.bind = vec!["127.0.0.1:0".parse().unwrap()];
    config
}

const PRESENT: &str = "; fully validated";
const ABSENT: &str = "; negative response, fully validated";

const KINDS: [(&str, &str, &str); 37] = [
    ("example.test", "SOA", PRESENT),
    ("example.test", "NS", PRESENT),
    ("example.test", "MX", PRESENT),
    ("example.test", "DNSKEY", PRESENT),
    ("example.test", "A", PRESENT),
    ("example.test", "AAAA", ABSENT),
    ("example.test", "TXT", ABSENT),
    ("example.test", "NSEC", PRESENT),
    ("mail.example.test", "AAAA", PRESENT),
    ("mail.example.test", "TXT", ABSENT),
    ("www.example.test", "A", PRESENT),
    ("www.example.test", "NSEC", PRESENT),
    // Of an alias and what is absent behind it, only the alias is spoken of.
    ("www.example.test", "TXT", PRESENT),
    ("api.example.test", "A", PRESENT),
    ("api.example.test", "AAAA", ABSENT),
    ("api.example.test", "MX", ABSENT),
    ("nothing.example.test", "A", ABSENT),
    ("a.b.nothing.example.test", "A", ABSENT),
    ("down.below.example.test", "TXT", ABSENT),
    ("any.wild.example.test", "TXT", PRESENT),
    ("any.more.wild.example.test", "MX", PRESENT),
    ("any.wild.example.test", "A", ABSENT),
    ("any.alias.example.test", "A", PRESENT),
    ("any.near.example.test", "A", PRESENT),
    ("any.near.example.test", "AAAA", ABSENT),
    // One set of several, or one that is made for it (RFC 8482).
    ("any.near.example.test", "ANY", PRESENT),
    ("mail.example.test", "ANY", PRESENT),
    ("cdn.example.test", "CNAME", PRESENT),
    ("cdn.example.test", "A", PRESENT),
    ("svc.example.test", "HTTPS", PRESENT),
    ("svc.example.test", "AAAA", ABSENT),
    ("svc.example.test", "TXT", ABSENT),
    ("moved.example.test", "DNAME", PRESENT),
    ("any.moved.example.test", "TXT", PRESENT),
    ("moved.example.test", "A", ABSENT),
    ("safe.example.test", "DS", PRESENT),
    ("child.example.test", "DS", ABSENT),
];

fn assert_all_validate(served: &Served, what: &str) {
    for (name, kind, expected) in KINDS {
        let said = served.judged("example.test", name, kind);
        assert_eq!(said, expected, "{what}: {name} {kind}");
    }
}

#[test]
fn every_kind_of_answer_validates_with_either_algorithm_and_one_key_or_two() {
    for algorithm in [Algorithm::EcdsaP256, Algorithm::Ed25519] {
        let entry = key("example.test", Role::Entry, algorithm);
        let alone = Dnssec::new(vec![entry.clone()]);
        let served = Served::new(vec![example(alone)], &entry);
        assert_all_validate(&served, &format!("{algorithm:?} alone"));

        let zone_key = key("example.test", Role::Zone, algorithm);
        let both = Dnssec::new(vec![zone_key, entry.clone()]);
        let served = Served::new(vec![example(both)], &entry);
        assert_all_validate(&served, &format!("{algorithm:?} both"));
    }
}

#[test]
fn every_kind_of_answer_validates_with_compact_denial() {
    let entry = key("example.test", Role::Entry, Algorithm::EcdsaP256);
    let mut dnssec = Dnssec::new(vec![entry.clone()]);
    dnssec.denial = Denial::Compact;
    let served = Served::new(vec![example(dnssec)], &entry);
    assert_all_validate(&served, "compact");
}

#[test]
fn what_is_steered_validates_through_a_failover() {
    let entry = key("example.test", Role::Entry, Algorithm::EcdsaP256);
    let mut served = Served::new(vec![example(Dnssec::new(vec![entry.clone()]))], &entry);
    let worlds = [
        world().turn("eu", Verdict::Suspect),
        world().turn("eu", Verdict::Down),
        world().turn("eu", Verdict::Down).turn("us", Verdict::Down),
        world(),
    ];
    for (number, world) in worlds.into_iter().enumerate() {
        served.writer.publish(world.build());
        let said = served.judged("example.test", "api.example.test", "A");
        assert_eq!(said, PRESENT, "world {number}");
        let said = served.judged("example.test", "api.example.test", "AAAA");
        assert_eq!(said, ABSENT, "world {number}");
    }
    let dark = world()
        .all_down(AllDown::NoData)
        .turn("eu", Verdict::Down)
        .turn("us", Verdict::Down);
    served.writer.publish(dark.build());
    for (name, kind) in [
        ("api.example.test", "A"),
        ("cdn.example.test", "A"),
        ("cdn.example.test", "CNAME"),
        ("svc.example.test", "HTTPS"),
    ] {
        let said = served.judged("example.test", name, kind);
        assert_eq!(said, ABSENT, "with all down: {name} {kind}");
    }
}

#[test]
fn a_child_that_is_served_here_too_is_reached_through_its_ds_or_proven_unsigned() {
    let above = key("test", Role::Entry, Algorithm::Ed25519);
    let below = key("example.test", Role::Entry, Algorithm::EcdsaP256);
    let ds = sealane_dns::dnssec::key_file::ds_text(&below);
    let parent = format!(
        "@ 60 SOA ns1 host 1 2 3 4 5\n@ NS ns1\nns1 A 192.0.2.1\nplain NS ns1\nexample NS ns1\n{}\n",
        ds.replace(" IN DS", " DS")
    );
    let plain = "@ 60 SOA ns1 host 1 2 3 4 5\nwww A 192.0.2.2\n";
    let zones = vec![
        zone("test", &parent, Some(Dnssec::new(vec![above.clone()]))),
        zone("plain.test", plain, None),
        example(Dnssec::new(vec![below])),
    ];
    let served = Served::new(zones, &above);
    let cases = [
        ("mail.example.test", "A", PRESENT),
        ("nothing.example.test", "A", ABSENT),
        ("example.test", "DS", PRESENT),
        ("plain.test", "DS", ABSENT),
        ("www.plain.test", "A", "; unsigned answer"),
    ];
    for (name, kind, expected) in cases {
        assert_eq!(served.judged("test", name, kind), expected, "{name} {kind}");
    }
}

#[test]
fn a_zone_validates_at_every_moment_of_a_roll_over() {
    use sealane_dns::dnssec::timing::{Delays, ds_seen, roll};
    let delays = Delays {
        key_ttl: Duration::from_secs(2),
        zone_ttl: Duration::from_secs(2),
        ds_ttl: Duration::from_secs(2),
        propagation: Duration::ZERO,
    };
    let now = sealane_dns::now();
    let times = |key: &Arc<Key>, times: Times| {
        let private = key.private().unwrap();
        let zone = key.zone().clone();
        let made = Key::from_parts(
            zone,
            key.role(),
            key.algorithm(),
            &private,
            key.public(),
            times,
        );
        Arc::new(made.unwrap())
    };
    let old = key("example.test", Role::Entry, Algorithm::EcdsaP256);
    let (new_times, old_times) = roll(&first(Moment(0)), Role::Entry, true, &delays, now);
    let fresh = key("example.test", Role::Entry, Algorithm::EcdsaP256);
    let (new, going) = (times(&fresh, new_times), times(&old, old_times));
    let keys = |keys: &[&Arc<Key>]| {
        let mut dnssec = Dnssec::new(keys.iter().map(|key| Arc::clone(key)).collect());
        dnssec.key_ttl = Ttl::from_secs(2);
        vec![example(dnssec)]
    };
    let served = Served::new(keys(&[&going, &new]), &old);
    let check = |served: &Served, anchor: &Key, what: &str| {
        served.trust(anchor);
        for (name, kind, expected) in [KINDS[3], KINDS[12], KINDS[15]] {
            let said = served.judged("example.test", name, kind);
            assert_eq!(said, expected, "{what}: {name} {kind}");
        }
    };
    let until = |what: &str, is_so: &dyn Fn() -> bool, check: &dyn Fn()| {
        let begun = sealane_dns::now();
        loop {
            let is_so = is_so();
            check();
            if is_so {
                return;
            }
            let waited = sealane_dns::now() > begun.plus(Duration::from_secs(60));
            assert!(!waited, "{what}");
        }
    };
    // The zone's data are signed by the new key after two seconds, without a reload.
    let new_signs = || tag_of(&served) == new.tag();
    until("the new key signs", &new_signs, &|| {
        check(&served, &old, "before the parent has the new DS");
        check(&served, &new, "once it has");
    });
    let seen = ds_seen(&old_times, &delays, sealane_dns::now());
    let gone = times(&old, seen);
    let prepared = served.dns.prepare(config(keys(&[&gone, &new]))).unwrap();
    served.dns.replace_rules(prepared);
    until("the old key is gone", &|| keys_of(&served) == 1, &|| {
        check(&served, &new, "while the old key goes");
    });
}

/// How many keys the zone has.
fn keys_of(served: &Served) -> u16 {
    let reply = asked(served, "example.test", b"\0\x30\0\x01", b"");
    u16::from_be_bytes([reply[6], reply[7]])
}

/// The tag of the key that signed the steered addresses.
fn tag_of(served: &Served) -> u16 {
    let dnssec_ok = b"\0\0\x29\x04\xd0\0\0\x80\0\0\0";
    let reply = asked(served, "api.example.test", b"\0\x01\0\x01", dnssec_ok);
    // The signer's name follows the tag.
    let signer = name("example.test");
    let at = reply[40..]
        .windows(signer.wire().len())
        .position(|w| w == signer.wire())
        .unwrap()
        + 40;
    u16::from_be_bytes([reply[at - 2], reply[at - 1]])
}

/// The answer to a question of this type and class, with this OPT record if there is one.
fn asked(served: &Served, owner: &str, kind: &[u8; 4], opt: &[u8]) -> Vec<u8> {
    let mut message = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(!opt.is_empty())];
    message.extend_from_slice(name(owner).wire());
    message.extend_from_slice(kind);
    message.extend_from_slice(opt);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket.send_to(&message, served.address()).unwrap();
    let mut reply = [0; 1_232];
    let length = socket.recv(&mut reply).unwrap();
    reply[..length].to_vec()
}
