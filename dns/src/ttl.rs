//! How long an answer may be kept: never longer than what it says can stay true. Pure.

use sealane_model::Ttl;
use sealane_steering::Reason;

use crate::zone::{Steered, Zone};

/// The TTL of a steered name's addresses: the short one while something is in doubt, and while the
/// answer is a makeshift that should end as soon as its cause does.
#[must_use]
pub(crate) fn answer_ttl(steered: &Steered, suspect: bool, reason: Reason) -> Ttl {
    if suspect || is_makeshift(reason) {
        steered.ttl.min(steered.ttl_suspect)
    } else {
        steered.ttl
    }
}

/// The TTL of the SOA in an answer that says "nothing here". For a steered name it lives no longer
/// than an address would: a kept NODATA would outlive the failover.
#[must_use]
pub(crate) fn negative_ttl(zone: &Zone, instead_of_addresses: Option<Ttl>) -> Ttl {
    match instead_of_addresses {
        Some(ttl) => zone.negative_ttl.min(ttl),
        None => zone.negative_ttl,
    }
}

const fn is_makeshift(reason: Reason) -> bool {
    match reason {
        Reason::HoldDownIgnored
        | Reason::AllDown
        | Reason::NoData
        | Reason::Fallback
        | Reason::NoMembers
        | Reason::Spilled { .. }
        | Reason::Ramping { .. }
        | Reason::NoRoom
        | Reason::Panic => true,
        Reason::WeightedLatency
        | Reason::Nearest
        | Reason::Weighted
        | Reason::Priority
        | Reason::Pinned
        | Reason::Confined
        | Reason::FailedOver { .. } => false,
    }
}
