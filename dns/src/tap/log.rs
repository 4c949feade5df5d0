//! The query log: one structured line for each question of the sample, at level info and target `sealane::query`.
//!
//! Called by the thread that writes; what it needs of rules and world it looks up as they are then.

use sealane_model::Snapshot;

use super::Seen;
use crate::cookie::Proof;
use crate::engine::Rules;
use crate::limit::Verdict;
use crate::lookup::{Found, find};
use crate::name::Name;
use crate::question::Question;
use crate::wire::rtype;

pub(crate) fn write(seen: &Seen, rules: &Rules, world: &Snapshot) {
    if !tracing::enabled!(target: "sealane::query", tracing::Level::INFO) {
        return;
    }
    let question = Question::parse(seen.message());
    let refusal = question.as_ref().err().map(|rejected| rejected.refusal);
    let question = question.as_ref().ok();
    let name = question.and_then(|question| Name::from_wire(question.name.wire()));
    let edns = question.and_then(|question| question.edns.as_ref());
    let subnet = edns.and_then(|edns| edns.client_subnet);
    let subnet = subnet.and_then(|subnet| Some(format!("{}/{}", subnet.address?, subnet.source)));
    let answered = seen.answered.as_ref();
    let steered = answered.and_then(|answered| answered.steered);
    let region = steered.and_then(|to| to.region);
    tracing::info!(
        target: "sealane::query",
        client = %seen.client,
        transport = seen.transport.as_str(),
        name = name.map(|name| name.to_string()),
        "type" = question.map(|question| type_name(question.rtype)),
        zone = question.and_then(|question| zone(question, rules)),
        code = answered.map(|answered| answered.rcode.as_str()),
        reason = steered.map(|to| to.reason.as_str()),
        region = region.map(|region| world.topology.region_name(region)),
        canary = steered.map(|to| to.canary),
        subnet,
        dnssec = edns.map(|edns| edns.dnssec_ok),
        cookie = answered.and_then(|answered| cookie(answered.proof)),
        truncated = answered.map(|answered| answered.truncated),
        limited = limited(seen.verdict),
        bytes_received = seen.message().len(),
        bytes_sent = seen.reply().len(),
        refusal = refusal.map(|refusal| refusal.to_string()),
    );
}

fn zone(question: &Question<'_>, rules: &Rules) -> Option<String> {
    let (Found::Name { zone, .. }
    | Found::Delegation { zone, .. }
    | Found::Moved { zone, .. }
    | Found::NoName { zone, .. }) = find(&rules.table, &question.name)
    else {
        return None;
    };
    Some(zone.apex.to_string())
}

/// As RFC 3597 §5 has it for types without a word here.
fn type_name(number: u16) -> String {
    match rtype::name(number) {
        "other" => format!("TYPE{number}"),
        word => word.to_owned(),
    }
}

const fn cookie(proof: Proof) -> Option<&'static str> {
    match proof {
        Proof::Silent => None,
        Proof::Asks => Some("new"),
        Proof::Proven => Some("proven"),
    }
}

const fn limited(verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Send => None,
        Verdict::Slip => Some("shortened"),
        Verdict::Drop => Some("dropped"),
    }
}
