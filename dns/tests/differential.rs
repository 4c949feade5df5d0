//! The same static zones on Sealane, NSD, Knot and BIND, asked the same: every difference must have a reason in
//! `differential/explained.rs`.
//!
//! `cargo test` asks NSD and Knot a few thousand questions. `make judge-dns` asks BIND too, and all of them every
//! name with every type, and `SEALANE_DIFFERENTIAL` questions by chance.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "differential/ask.rs"]
mod ask;
#[path = "differential/explained.rs"]
mod explained;
#[path = "differential/judge.rs"]
mod judge;
#[path = "differential/questions.rs"]
mod questions;
#[allow(dead_code, reason = "scripts need more of it")]
#[path = "scenario/reply.rs"]
mod reply;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sealane_dns::config::{Cookies, Identity, Limits, Zone};
use sealane_dns::name::Name;
use sealane_dns::record::{Record, parse_zone_file};
use sealane_dns::{Config, Deps, Dns, Options};
use sealane_model::publish::snapshot_channel;
use sealane_model::{SnapshotWriter, Ttl};
use sealane_steering::GeoTable;
use sealane_testkit::World;

use ask::{Ask, Line};
use explained::TABLE;
use judge::{Judge, Kind};
use questions::{Chance, by_chance, every, seed};
use reply::{Edns, Reply};

/// What every server is told to tell of itself.
const NSID: &str = "judged";
const VERSION: &str = "1.2.3";
const ZONES: [(&str, &str); 3] = [
    ("judge.test", include_str!("differential/judge.test.zone")),
    (
        "kid.judge.test",
        include_str!("differential/kid.judge.test.zone"),
    ),
    ("other.test", include_str!("differential/other.test.zone")),
];
/// Questions that `cargo test` asks.
const FEW: usize = 4_000;
/// Differences of a kind that are shown; the rest is counted.
const SHOWN: usize = 3;
/// Lines of an answer that are shown.
const LINES: usize = 8;

#[test]
fn sealane_answers_as_nsd_and_knot_do_or_has_a_reason() {
    let mut chance = Chance::of(seed());
    let questions = by_chance(FEW, &mut chance);
    compare(&[Kind::Nsd, Kind::Knot], &questions);
}

#[test]
#[ignore = "minutes, and BIND is needed: make judge-dns"]
fn sealane_answers_as_nsd_knot_and_bind_do_every_name_with_every_type() {
    let count = std::env::var("SEALANE_DIFFERENTIAL").ok();
    let count = count.map_or(50_000, |text| text.parse().expect("a number of questions"));
    let mut questions = every();
    questions.extend(by_chance(count, &mut Chance::of(seed())));
    compare(&[Kind::Nsd, Kind::Knot, Kind::Bind], &questions);
}

/// In which respect two answers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Aspect {
    Rcode,
    Flag(&'static str),
    /// The question that it repeats.
    Question,
    /// Answer, authority, additional.
    Section(usize),
    Edns,
}

/// What Sealane and a judge say of one question, differently.
struct Difference<'a> {
    judge: Kind,
    ask: &'a Ask,
    aspect: Aspect,
    ours: &'a Reply,
    theirs: &'a Reply,
}

fn compare(kinds: &[Kind], questions: &[Ask]) {
    let folder = tempfile::tempdir().unwrap();
    write_zones(folder.path());
    let (dns, _world) = sealane(folder.path());
    let mut ours = Line::to(dns.addresses()[0]);
    let mut judges: Vec<Judge> = kinds.iter().map(|kind| kind.start(folder.path())).collect();
    let mut findings = Findings::default();
    for ask in questions {
        // All are asked before the first is heard.
        let asked = ours.begin(ask);
        let all_asked: Vec<_> = judges
            .iter_mut()
            .map(|judge| judge.line.begin(ask))
            .collect();
        let own = ours.end(ask, asked);
        for (judge, asked) in judges.iter_mut().zip(all_asked) {
            let theirs = judge.line.end(ask, asked);
            findings.judge(judge.kind, ask, &own, &theirs);
        }
    }
    print!("{}", findings.summary(questions.len()));
    assert!(
        findings.unexplained.is_empty(),
        "\n{}",
        findings.complaint()
    );
}

#[derive(Default)]
struct Findings {
    compared: usize,
    /// By the number of the explanation, and the judge.
    explained: BTreeMap<(usize, &'static str), usize>,
    /// By the judge and the aspect.
    unexplained: BTreeMap<(&'static str, String), Vec<String>>,
}

impl Findings {
    fn judge(
        &mut self,
        judge: Kind,
        ask: &Ask,
        ours: &Result<Reply, String>,
        theirs: &Result<Reply, String>,
    ) {
        self.compared += 1;
        let (ours, theirs) = match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => (ours, theirs),
            (Err(one), Err(other))
                if one.starts_with("no answer") && other.starts_with("no answer") =>
            {
                return;
            }
            (ours, theirs) => {
                let told = |reply: &Result<Reply, String>| match reply {
                    Ok(reply) => reply.describe(),
                    Err(error) => error.clone(),
                };
                let (ours, theirs, ask) = (told(ours), told(theirs), ask.describe());
                let text = format!("{ask}\n  ours   {ours}\n  theirs {theirs}");
                self.unexplained(judge, "answered", text);
                return;
            }
        };
        for aspect in differing(ask, ours, theirs) {
            let difference = Difference {
                judge,
                ask,
                aspect,
                ours,
                theirs,
            };
            match TABLE.iter().position(|known| (known.holds)(&difference)) {
                Some(number) => *self.explained.entry((number, judge.name())).or_default() += 1,
                None => self.unexplained(judge, &format!("{aspect:?}"), difference.describe()),
            }
        }
    }

    fn unexplained(&mut self, judge: Kind, aspect: &str, text: String) {
        let alike = (judge.name(), aspect.to_owned());
        self.unexplained.entry(alike).or_default().push(text);
    }

    fn summary(&self, questions: usize) -> String {
        let mut text = format!("{questions} questions, {} comparisons\n", self.compared);
        for ((number, judge), count) in &self.explained {
            let _ = writeln!(text, "{count:>7} {judge:<4} {}", TABLE[*number].reason);
        }
        text
    }

    fn complaint(&self) -> String {
        let count: usize = self.unexplained.values().map(Vec::len).sum();
        let mut text = format!("{count} differences without a reason, seed {}\n", seed());
        for ((judge, aspect), differences) in &self.unexplained {
            let _ = writeln!(text, "== {judge} {aspect}: {}", differences.len());
            // Neighbours are alike: from all over the list.
            for difference in differences
                .iter()
                .step_by(differences.len().div_ceil(SHOWN))
            {
                let _ = writeln!(text, "{difference}");
            }
        }
        text
    }
}

impl Difference<'_> {
    fn describe(&self) -> String {
        let ask = self.ask.describe();
        let told = |reply: &Reply| {
            let text = reply.describe();
            let mut lines: Vec<&str> = text.lines().collect();
            if lines.len() > LINES {
                lines.splice(LINES / 2..lines.len() - LINES / 2, ["        …"]);
            }
            lines.join("\n")
        };
        let (ours, theirs) = (told(self.ours), told(self.theirs));
        format!("{ask}\n  ours   {ours}\n  theirs {theirs}")
    }
}

/// In what the two differ. Sections of a truncated answer are nobody's to rely on (RFC 2181 section 9).
fn differing(ask: &Ask, ours: &Reply, theirs: &Reply) -> Vec<Aspect> {
    let mut found = Vec::new();
    if ours.rcode != theirs.rcode {
        found.push(Aspect::Rcode);
    }
    for flag in ["aa", "tc", "rd", "ra", "z", "ad", "cd"] {
        if ours.flags.contains(&flag) != theirs.flags.contains(&flag) {
            found.push(Aspect::Flag(flag));
        }
    }
    if ours.opcode != theirs.opcode || ours.question != theirs.question {
        found.push(Aspect::Question);
    }
    let truncated = |reply: &Reply| reply.flags.contains(&"tc");
    if !truncated(ours) && !truncated(theirs) {
        let differ = |section: &usize| {
            let sorted = |reply: &Reply| {
                let mut entries = reply.sections[*section].clone();
                entries.sort();
                entries
            };
            sorted(ours) != sorted(theirs)
        };
        found.extend((0..3).filter(differ).map(Aspect::Section));
    }
    if told(ask, ours) != told(ask, theirs) {
        found.push(Aspect::Edns);
    }
    found
}

/// What OPT tells: version, size, DO, options. Of a cookie, whether it repeats the client's part.
fn told(ask: &Ask, reply: &Reply) -> Option<Edns> {
    const COOKIE: u16 = 10;
    const EXTENDED_ERROR: u16 = 15;
    let mut edns = reply.edns.clone()?;
    let asked = ask.edns.iter().flat_map(|edns| &edns.options);
    let client: Vec<&[u8]> = asked
        .filter(|(code, _)| *code == COOKIE)
        .map(|(_, data)| data.as_slice())
        .collect();
    let options = &mut edns.options;
    for (code, data) in options.iter_mut() {
        if *code == COOKIE
            && client.iter().any(|client| data.starts_with(client))
            && data.len() == 24
        {
            data.truncate(8);
        }
    }
    // What is said beside the response code changes nothing for who asks (RFC 8914 section 2).
    options.retain(|(code, _)| *code != EXTENDED_ERROR);
    options.sort();
    Some(edns)
}

fn sealane(zones: &Path) -> (Dns, SnapshotWriter) {
    let zones = ZONES.map(|(zone, _)| {
        let text = fs::read_to_string(zones.join(zone)).unwrap();
        let apex = Name::parse(zone, None).unwrap();
        let file = parse_zone_file(&text, &apex, Ttl::from_secs(300)).unwrap();
        Zone::new(apex, file.soa.unwrap(), file.records)
    });
    let mut config = Config::new(zones.to_vec(), Arc::new(GeoTable::empty()));
    config.bind = vec!["127.0.0.1:0".parse().unwrap()];
    config.cookies = Cookies::Own;
    config.limits = Limits {
        tcp_idle: Duration::from_secs(600),
        ..Limits::default()
    };
    config.identity = Identity {
        nsid: Some(NSID.as_bytes().into()),
        version: Some(VERSION.into()),
        id: Some(NSID.into()),
    };
    let (writer, world) = snapshot_channel(World::new().build());
    let options = Options {
        workers: NonZeroUsize::MIN,
    };
    let dns = Dns::bind(config, Deps { world }, options).unwrap();
    dns.start().unwrap();
    (dns, writer)
}

/// With record sets of many sizes, about those that fit a message.
fn write_zones(folder: &Path) {
    for (zone, text) in ZONES {
        fs::write(folder.join(zone), with_large_sets(zone, text)).unwrap();
    }
}

fn with_large_sets(zone: &str, text: &str) -> String {
    let mut text = format!("$ORIGIN {zone}.\n{text}");
    if zone == "judge.test" {
        for count in [10, 28, 29, 30, 31, 60, 72, 73, 74, 75, 76, 200, 1_000] {
            for number in 0..count {
                let (high, low) = (number / 256, number % 256);
                let _ = writeln!(text, "many{count} A 10.0.{high}.{low}");
            }
        }
        for number in 0..40 {
            let _ = writeln!(text, "large TXT \"{number} {}\"", "x".repeat(240));
            let _ = writeln!(
                text,
                "servers NS ns{number}.servers\nns{number}.servers A 10.1.0.{number}"
            );
        }
    }
    text
}

fn records_of(zone: &str, text: &str) -> Vec<Record> {
    let apex = Name::parse(zone, None).unwrap();
    let text = with_large_sets(zone, text);
    parse_zone_file(&text, &apex, Ttl::from_secs(300))
        .unwrap()
        .records
}

fn wire(name: &str) -> Vec<u8> {
    Name::parse(name, None).unwrap().wire().to_vec()
}
