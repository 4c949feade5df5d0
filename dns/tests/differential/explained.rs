//! Where Sealane and its judges differ, and why: whatever is not in this table fails the test.

use sealane_dns::name::Name;
use sealane_dns::wire::rtype;

use crate::judge::Kind;
use crate::questions::NSID_CODE;
use crate::reply::{Entry, Reply};
use crate::{Aspect, Difference, NSID, ZONES, told};

/// One kind of difference.
pub(crate) struct Explained {
    pub(crate) reason: &'static str,
    pub(crate) holds: fn(&Difference<'_>) -> bool,
}

const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;
const YXDOMAIN: u16 = 6;
const BADVERS: u16 = 16;
const COOKIE: u16 = 10;
const NSEC3: u16 = 50;

/// The first that holds counts.
pub(crate) const TABLE: &[Explained] = &[
    Explained {
        reason: "ANY: the least that answers it, over TCP too (RFC 8482 section 4); judges send more of what there is",
        holds: |d| {
            d.ask.kind == rtype::ANY && is_data(d.aspect) && found(d.ours) && found(d.theirs)
        },
    },
    Explained {
        reason: "ANY is answered by the CNAME that a DNAME makes (RFC 1034 section 4.3.2, step 3a: it matches); judges go on to where it leads",
        holds: |d| {
            d.ask.kind == rtype::ANY
                && d.aspect != Aspect::Question
                && is_chain(d.ours)
                && d.theirs.sections[0].first() == d.ours.sections[0].first()
        },
    },
    Explained {
        reason: "rings and names that grow end where a name comes again, or after eight steps, and no record is there twice (RFC 2181 section 5, RFC 6672 section 2.2); judges say SERVFAIL, end sooner, or go round",
        holds: |d| {
            d.aspect != Aspect::Question
                && (is_endless(d.ours) || is_endless(d.theirs))
                && matches!(d.theirs.rcode, 0 | SERVFAIL)
        },
    },
    Explained {
        reason: "a name that a DNAME makes too long: YXDOMAIN (RFC 6672 section 2.2); Knot says NXDOMAIN",
        holds: |d| {
            d.judge == Kind::Knot
                && d.ours.rcode == YXDOMAIN
                && matches!(d.aspect, Aspect::Rcode | Aspect::Section(1))
        },
    },
    Explained {
        reason: "a truncated answer has the response code of the whole chain; judges' has that of what they looked at until then (RFC 2181 section 9 leaves it open)",
        holds: |d| {
            d.aspect == Aspect::Rcode
                && d.ours.flags.contains(&"tc")
                && matches!(d.theirs.rcode, 0 | SERVFAIL | NXDOMAIN)
        },
    },
    Explained {
        reason: "what fits is not truncated (RFC 2181 section 9); BIND gives up some octets before the limit",
        holds: |d| {
            d.judge == Kind::Bind
                && d.aspect == Aspect::Flag("tc")
                && d.theirs.flags.contains(&"tc")
                && is_just_within(d)
        },
    },
    Explained {
        reason: "classes that are not served: REFUSED; BIND says NOTIMP or FORMERR of some (RFC 1035 section 4.1.1 leaves it open)",
        holds: |d| {
            d.judge == Kind::Bind
                && d.aspect == Aspect::Rcode
                && d.ask.class != 1
                && d.ours.rcode == REFUSED
        },
    },
    Explained {
        reason: "types 128 to 255 ask for no data of their own and are refused (RFC 6895 section 3.1), but for ANY; judges take those that they don't know, MAILA and MAILB for types that a name has not, or say FORMERR",
        holds: |d| {
            (128..=255).contains(&d.ask.kind) && d.ask.kind != rtype::ANY && d.ours.rcode == REFUSED
        },
    },
    Explained {
        reason: "class ANY is refused: no answer for all classes can be authoritative (RFC 1035 section 6.2); judges answer as in class IN",
        holds: |d| d.ask.class == 255 && d.ours.rcode == REFUSED,
    },
    Explained {
        reason: "opcodes that are not served: NOTIMP (RFC 1035 section 4.1.1), before anything else is looked at",
        holds: |d| d.ask.opcode != 0 && d.aspect == Aspect::Rcode && d.ours.rcode == NOTIMP,
    },
    Explained {
        reason: "OPT answers OPT, with every response code (RFC 6891 section 6.1.1)",
        holds: |d| {
            d.ask.opcode != 0
                && d.aspect == Aspect::Edns
                && d.theirs.edns.is_none()
                && d.ask.edns.is_some()
        },
    },
    Explained {
        reason: "a chain of aliases is followed for eight steps; Knot ends it after five (RFC 1034 section 3.6.2 leaves it open)",
        holds: |d| {
            d.judge == Kind::Knot
                && matches!(d.aspect, Aspect::Section(_))
                && aliases(d.ours) > 5
                && aliases(d.theirs) >= 5
                && begins_alike(d)
        },
    },
    Explained {
        reason: "NSEC, NSEC3 and RRSIG lead on from an alias that has none itself (RFC 1034 section 4.3.2, step 3a); judges know that they may stand beside a CNAME, even where nothing is signed",
        holds: |d| {
            matches!(d.ask.kind, rtype::RRSIG | rtype::NSEC | NSEC3)
                && is_chain(d.ours)
                && matches!(d.aspect, Aspect::Section(_) | Aspect::Rcode)
        },
    },
    Explained {
        reason: "a chain that leads into another of the server's zones is followed there (RFC 1034 section 4.3.2, step 3a); judges end it",
        holds: |d| d.aspect != Aspect::Question && leads_to_another_zone(d.ours) && begins_alike(d),
    },
    Explained {
        reason: "a chain that leads below a delegation ends there: who asks has to ask for its end anyway (RFC 1034 section 5.2.2); judges add the referral",
        holds: |d| {
            matches!(d.aspect, Aspect::Section(1 | 2))
                && is_chain(d.ours)
                && d.ours.sections[1].is_empty()
                && delegates(d.theirs)
        },
    },
    Explained {
        reason: "additional addresses are left out but for glue, as they may be (RFC 2181 section 5.4.1, RFC 9471 section 2): short answers amplify less",
        holds: |d| {
            d.aspect == Aspect::Section(2)
                && d.ours.sections[2].is_empty()
                && !d.ours.sections[0].is_empty()
        },
    },
    Explained {
        reason: "a referral whose glue does not fit is truncated (RFC 9471 section 3.1); judges leave glue out",
        holds: |d| {
            d.aspect == Aspect::Flag("tc") && d.ours.flags.contains(&"tc") && delegates(d.theirs)
        },
    },
    Explained {
        reason: "names in data are not compressed, so that sooner an answer does not fit (RFC 1035 section 4.1.4 leaves it open)",
        holds: |d| {
            d.aspect == Aspect::Flag("tc") && d.ours.flags.contains(&"tc") && is_near_its_limit(d)
        },
    },
    Explained {
        reason: "DO is repeated with BADVERS, too (RFC 3225 section 3)",
        holds: |d| {
            d.aspect == Aspect::Edns
                && d.ours.rcode == BADVERS
                && dnssec_ok(d.ours)
                && !dnssec_ok(d.theirs)
        },
    },
    Explained {
        reason: "CD is cleared, as it should be by who is no resolver (RFC 4035 section 3.1.6)",
        holds: |d| d.aspect == Aspect::Flag("cd") && !d.ours.flags.contains(&"cd"),
    },
    Explained {
        reason: "a refusal for a message's form, opcode or class does not tell NSID, which is each server's choice (RFC 5001 section 2.2)",
        holds: |d| d.aspect == Aspect::Edns && d.ours.rcode != 0 && asked(d, NSID_CODE),
    },
    Explained {
        reason: "cookies are a module of Knot, which is off here: it turns away who has none yet",
        holds: |d| {
            d.aspect == Aspect::Edns
                && d.judge == Kind::Knot
                && asked(d, COOKIE)
                && differ_by_cookie_alone(d)
        },
    },
    Explained {
        reason: "AD is never set by who validates nothing (RFC 4035 section 3.1.6); BIND sets it where it is asked to",
        holds: |d| {
            d.aspect == Aspect::Flag("ad")
                && d.judge == Kind::Bind
                && d.ask.authentic
                && !d.ours.flags.contains(&"ad")
        },
    },
    Explained {
        reason: "RD and the question are repeated with NOTIMP as with every response code (RFC 1035 section 4.1.1); BIND repeats neither",
        holds: |d| {
            matches!(d.aspect, Aspect::Flag("rd") | Aspect::Question)
                && d.judge == Kind::Bind
                && d.ours.rcode == NOTIMP
        },
    },
    Explained {
        reason: "the SOA beside a negative answer has its usual TTL (RFC 2308 section 3); of BIND none where the SOA was asked for",
        holds: |d| {
            d.aspect == Aspect::Section(1)
                && d.judge == Kind::Bind
                && d.ask.kind == rtype::SOA
                && negative(d.ours)
                && negative(d.theirs)
        },
    },
    Explained {
        reason: "a referral has the addresses of all servers that the zone knows of (RFC 9471 section 3.2); BIND, told to be brief, those alone that lie below it",
        holds: |d| {
            d.aspect == Aspect::Section(2)
                && d.judge == Kind::Bind
                && delegates(d.ours)
                && d.theirs.sections[2]
                    .iter()
                    .all(|entry| d.ours.sections[2].contains(entry))
        },
    },
    Explained {
        reason: "version.server is asked of NSD and Knot, too; BIND does not know it (RFC 4892 section 2)",
        holds: |d| d.judge == Kind::Bind && d.ask.class == 3,
    },
    Explained {
        reason: "answers of class CH are as authoritative as the server is on itself (RFC 4892 section 3 says nothing of it)",
        holds: |d| d.aspect == Aspect::Flag("aa") && d.ask.class == 3,
    },
    Explained {
        reason: "the question is repeated (RFC 1035 section 4.1.1); NSD leaves it out when it refuses",
        holds: |d| {
            d.aspect == Aspect::Question && d.judge == Kind::Nsd && d.theirs.question.is_empty()
        },
    },
];

fn is_data(aspect: Aspect) -> bool {
    matches!(aspect, Aspect::Section(_) | Aspect::Flag("tc"))
}

fn found(reply: &Reply) -> bool {
    reply.rcode == 0
}

fn aliases(reply: &Reply) -> usize {
    let answers = reply.sections[0].iter();
    answers.filter(|entry| entry.rtype == rtype::CNAME).count()
}

fn is_chain(reply: &Reply) -> bool {
    aliases(reply) > 0
}

/// An alias in the answer has its target in another of the zones.
fn leads_to_another_zone(reply: &Reply) -> bool {
    let aliases = reply.sections[0]
        .iter()
        .filter(|entry| entry.rtype == rtype::CNAME);
    let mut ends = aliases.map(|entry| (zone_of(entry.owner.wire()), zone_of(&entry.data)));
    ends.any(|(from, to)| to.is_some() && from != to)
}

/// The longest that the name lies in.
fn zone_of(wire: &[u8]) -> Option<&'static str> {
    let name = Name::from_wire(wire)?;
    let zones = ZONES.iter().map(|(zone, _)| *zone);
    let around = zones.filter(|zone| name.is_at_or_below(&Name::parse(zone, None).unwrap()));
    around.max_by_key(|zone| zone.len())
}

/// What the judge answers, Sealane answers too, and more.
fn begins_alike(d: &Difference<'_>) -> bool {
    let ours = &d.ours.sections[0];
    d.theirs.sections[0]
        .iter()
        .all(|entry| ours.contains(entry))
}

/// Its chain leads back to a name of its own, or has as many steps as we go.
fn is_endless(reply: &Reply) -> bool {
    const STEPS: usize = 9;
    let steps = reply.sections[0]
        .iter()
        .filter(|entry| entry.rtype == rtype::CNAME);
    let steps: Vec<_> = steps.collect();
    let is_back = steps.last().is_some_and(|last| {
        let mut owners = steps.iter().map(|step| step.owner.wire());
        owners.any(|owner| owner.eq_ignore_ascii_case(&last.data))
    });
    is_back || steps.len() >= STEPS || reply.sections[0].iter().any(grows)
}

/// A DNAME that leads below itself.
fn grows(entry: &Entry) -> bool {
    let to = Name::from_wire(&entry.data);
    entry.rtype == rtype::DNAME && to.is_some_and(|to| to.is_at_or_below(&entry.owner))
}

fn negative(reply: &Reply) -> bool {
    let [answers, authority, _] = &reply.sections;
    let is_chain = |kind| matches!(kind, rtype::CNAME | rtype::DNAME);
    let has_soa_alone = authority.iter().all(|entry| entry.rtype == rtype::SOA);
    has_soa_alone && answers.iter().all(|entry| is_chain(entry.rtype))
}

fn delegates(reply: &Reply) -> bool {
    let mut authority = reply.sections[1].iter();
    authority.any(|entry| entry.rtype == rtype::NS)
}

/// The judge's answer would not fit either with its names written out.
fn is_near_its_limit(d: &Difference<'_>) -> bool {
    const HEADER: usize = 12;
    /// A pointer, type, class, TTL, length.
    const RECORD_HEAD: usize = 12;
    /// With a cookie and NSID.
    const OPT_MOST: usize = 11 + 28 + 4 + NSID.len();
    let records = d.theirs.sections.iter().flatten();
    let records: usize = records.map(|entry| RECORD_HEAD + entry.data.len()).sum();
    HEADER + d.theirs.question.len() + records + OPT_MOST > limit(d)
}

/// The answer is within a record of what the asker takes.
fn is_just_within(d: &Difference<'_>) -> bool {
    const RECORD: usize = 28;
    (limit(d) - RECORD..=limit(d)).contains(&d.ours.length)
}

/// The longest answer by UDP.
fn limit(d: &Difference<'_>) -> usize {
    let announced = d.ask.edns.as_ref().map_or(0, |edns| edns.size);
    usize::from(announced.clamp(512, 1_232))
}

fn dnssec_ok(reply: &Reply) -> bool {
    reply.edns.as_ref().is_some_and(|edns| edns.dnssec_ok)
}

fn asked(d: &Difference<'_>, code: u16) -> bool {
    d.ask.edns.as_ref().is_some_and(|edns| edns.has(code))
}

fn differ_by_cookie_alone(d: &Difference<'_>) -> bool {
    let without = |reply| {
        told(d.ask, reply).map(|mut told| {
            told.options.retain(|(code, _)| *code != COOKIE);
            told
        })
    };
    without(d.ours) == without(d.theirs)
}
