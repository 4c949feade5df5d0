//! Who is turned away from a region that is full, or that returns step by step, and where to.
//!
//! Each region draws from the key once, by its own name, whether it takes it: the same answer on every
//! node and in DNS. When what it accepts moves from 60 to 50 %, the tenth between changes over and
//! nobody else does.

use std::cmp::Ordering;

use sealane_model::RegionId;
use smallvec::SmallVec;

use super::{Candidate, Candidates, uniform};
use crate::reason::Reason;

/// What a region says to one key, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    Takes,
    /// It has room, but returns step by step, and it is not this one's turn yet.
    NotYet,
    Full,
}

/// Brings forward those that take this key, and leaves them in their order otherwise. A region that
/// returns step by step is better than a full one; where all are full the order stays as it was:
/// whoever is not shed goes where it would have gone, so that no other region is pushed over its
/// limit.
pub(super) fn by_room(
    key: u64,
    candidates: &mut Candidates,
    regions: SmallVec<[RegionId; 8]>,
    reason: Reason,
) -> (SmallVec<[RegionId; 8]>, Reason) {
    // Nothing is turned away where health is ignored: there is nowhere to go.
    if reason == Reason::AllDown {
        return (regions, reason);
    }
    let mut entries: SmallVec<[Answer; 8]> = regions
        .iter()
        .enumerate()
        .filter_map(|(place, region)| {
            let candidate = candidates.iter_mut().find(|one| one.region == *region)?;
            candidate.entry = entry(key, candidate, place == 0);
            Some((candidate.entry, candidate.ramp, *region))
        })
        .collect();
    let Some(&(of_first, _, first)) = entries.first() else {
        return (regions, reason);
    };
    entries.sort_by(better);
    let Some(&(best, _, winner)) = entries.first() else {
        return (regions, reason);
    };
    let reason = match (best, of_first) {
        (Entry::Full, _) => return (regions, Reason::NoRoom),
        _ if winner == first => reason,
        (_, Entry::Full) => Reason::Spilled { from: first },
        (_, _) => Reason::Ramping { from: first },
    };
    (
        entries.into_iter().map(|(_, _, region)| region).collect(),
        reason,
    )
}

/// What a region says, and the share that it is given while it returns.
type Answer = (Entry, f64, RegionId);

/// Among regions that return, the one that has come further: the others' share of the crowd would
/// fall on one that has just begun.
fn better(one: &Answer, other: &Answer) -> Ordering {
    let of_ramps = match one.0 {
        Entry::NotYet => other.1.partial_cmp(&one.1),
        Entry::Takes | Entry::Full => None,
    };
    let of_ramps = of_ramps.unwrap_or(Ordering::Equal);
    one.0.cmp(&other.0).then(of_ramps)
}

/// What weighs nothing takes nothing that others turn away; it serves where it comes first all the
/// same, because nothing else does.
fn entry(key: u64, candidate: &Candidate, comes_first: bool) -> Entry {
    const ROOM: u64 = 0x726f_6f6d_726f_6f6d;
    const TURN: u64 = 0x7475_726e_7475_726e;
    let draw = |of: u64| uniform(key ^ of, candidate.seed);
    let weighs_nothing = candidate.weight <= 0.0 && !comes_first;
    if weighs_nothing || (candidate.accepts < 1.0 && draw(ROOM) > candidate.accepts) {
        Entry::Full
    } else if candidate.ramp < 1.0 && draw(TURN) > candidate.ramp {
        Entry::NotYet
    } else {
        Entry::Takes
    }
}
