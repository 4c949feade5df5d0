//! What a steered name would be answered with, for people: the engine's own steps, with everything
//! that led to them. Decides nothing.

use std::net::IpAddr;
use std::sync::Arc;

use sealane_model::{Correction, ScopePrefix, Snapshot};
use sealane_steering::{Ask, Decision};

use crate::alias::Known;
use crate::engine::Rules;
use crate::lookup::{Found, find};
use crate::name::{Name, NameError};
use crate::question::{ClientSubnet, LowerName};
use crate::steer::{
    Choice, Family, Outcome, choose as choose_of, choose_host, from_ranking, place,
};
use crate::wire::rtype;

/// Why there is nothing to explain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error(transparent)]
    NotAName(#[from] NameError),
    #[error("{name} is in none of the zones served here")]
    NotOurs { name: Name },
    #[error("{name} does not exist")]
    NoName { name: Name },
    #[error("{name} is an alias of {target}: ask for that one")]
    Alias { name: Name, target: Name },
    #[error("{name} is not steered: its records are the same for everyone")]
    NotSteered { name: Name },
    #[error("{name} has the addresses of {target}, whoever asks: {known}")]
    HasAddressesOf {
        name: Name,
        target: Name,
        /// Which ones, since when, and what is wrong with looking them up.
        known: String,
    },
    #[error("{name} is below a DNAME: ask for the name that it leads to")]
    Moved { name: Name },
    #[error("{name} is delegated to other name servers")]
    Delegated { name: Name },
}

pub(crate) fn explain(
    rules: &Rules,
    world: &Arc<Snapshot>,
    name: &str,
    client: IpAddr,
    now: u32,
) -> Result<Decision, ExplainError> {
    let name = Name::parse(name, None)?;
    let Some(lower) = LowerName::from_wire(name.wire()) else {
        return Err(ExplainError::NotOurs { name });
    };
    let (zone, node) = match find(&rules.table, &lower) {
        Found::Name { zone, node, .. } => (zone, node),
        Found::NoName { .. } => return Err(ExplainError::NoName { name }),
        Found::Moved { .. } => return Err(ExplainError::Moved { name }),
        Found::Delegation { .. } => return Err(ExplainError::Delegated { name }),
        Found::NotOurs => return Err(ExplainError::NotOurs { name }),
    };
    if let Some(alias) = &node.alias {
        return Err(ExplainError::HasAddressesOf {
            name,
            target: alias.source.target.clone(),
            known: describe_known(&alias.source.known(), now),
        });
    }
    let Some(steered) = &node.steered else {
        let alias = node.set(rtype::CNAME).and_then(|set| set.target.clone());
        return Err(match alias {
            Some(target) => ExplainError::Alias { name, target },
            None => ExplainError::NotSteered { name },
        });
    };
    let client = client.to_canonical();
    let subnet = ClientSubnet {
        address: Some(client),
        source: if client.is_ipv4() { 32 } else { 128 },
        data: &[],
    };
    let placed = place(
        steered.ignore_client_subnet,
        Some(&subnet),
        client,
        &rules.geo,
    );
    // As the canary's client sees it, where its pool serves it.
    let canary = steered.canary.as_ref().filter(|_| {
        let choice = |family| choose_of(steered, family, &placed.place, world);
        choice(Family::V4).canary || choice(Family::V6).canary
    });
    let (pool, policy) = match canary {
        Some(canary) => (canary.pool, &canary.steering),
        None => (steered.pool, &steered.policy),
    };
    let ask = Ask {
        pool,
        policy,
        place: &placed.place,
        key: placed.place.key(),
    };
    let explanation = sealane_steering::explain(&ask, world);
    let choose = |family| from_ranking(steered, pool, family, &explanation.ranking, world);
    let (v4, v6) = (choose(Family::V4), choose(Family::V6));
    let scope = |choice: &Choice| placed.answered_scope(choice.scope);
    let mut notes = vec![
        ("answer_a", describe(&v4)),
        ("answer_aaaa", describe(&v6)),
        ("ttl", format!("{}s", v4.ttl.as_secs())),
        ("scope", describe_scope(scope(&v4).max(scope(&v6)))),
    ];
    let lesson = sealane_steering::lesson(policy, &placed.place, world);
    if let Some(correction) = lesson.correction {
        notes.push(("learned", describe_correction(correction, world)));
    }
    if let Some(sealed) = &zone.sealed {
        notes.push(("signed_by", sealed.signers()));
    }
    if let Some(of_name) = &steered.canary {
        let share = of_name.share.get() * 100.0;
        let side = if canary.is_some() {
            "this client is one"
        } else {
            "not this client"
        };
        notes.push(("canary", format!("{share}% of networks; {side}")));
    }
    if let Some(host) = choose_host(steered, Family::V4, &placed.place, world).host {
        notes.push(("answer_cname", host.to_string()));
    }
    Ok(Decision {
        via: steered.owner.to_string(),
        pool,
        policy: policy.as_str(),
        place: placed.place,
        explanation,
        world: Arc::clone(world),
        notes,
    })
}

/// In seconds since 1970: `now`.
fn describe_known(known: &Known, now: u32) -> String {
    let addresses = known.addresses().concat();
    let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
    let mut text = match known.found_at() {
        Some(at) => format!(
            "{}, found {}s ago",
            addresses.join(" "),
            now.saturating_sub(at)
        ),
        None => "none is known (SERVFAIL)".to_owned(),
    };
    if let Some(failure) = &known.failure {
        text += &format!("; the last {} look-ups failed: {failure}", known.failures);
    }
    text
}

fn describe(choice: &Choice) -> String {
    match choice.outcome {
        Outcome::Addresses => {
            let addresses: Vec<_> = choice.addresses.iter().map(IpAddr::to_string).collect();
            addresses.join(" ")
        }
        Outcome::NoData => "none (NODATA)".to_owned(),
        Outcome::NotKnown => "no address is known (SERVFAIL)".to_owned(),
    }
}

fn describe_correction(correction: Correction, world: &Snapshot) -> String {
    let home = world.learned().region();
    let home = home.map_or("?", |home| world.topology.region_name(home));
    match correction {
        Correction::Near => {
            format!("connections show this network near {home}, where the map does not have it")
        }
        Correction::Slower { milliseconds } => {
            format!(
                "connections of this network take {milliseconds} ms longer to {home} than the map tells"
            )
        }
    }
}

fn describe_scope(scope: u8) -> String {
    match ScopePrefix(scope) {
        ScopePrefix::EVERYONE => "/0 (everyone)".to_owned(),
        ScopePrefix(bits) => format!("/{bits}"),
    }
}
