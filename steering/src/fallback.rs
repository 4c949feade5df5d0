//! Which endpoints of a region may be given work: the well ones, else the doubtful, else all.
//!
//! The same answer for proxy and DNS. Never empty unless the region has no endpoints: when all
//! are down, trying one is better than certain failure.

use sealane_model::{EndpointId, Member, Snapshot, Verdict};
use smallvec::SmallVec;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usable {
    pub endpoints: SmallVec<[EndpointId; 16]>,
    /// No endpoint is usable, so health was ignored.
    pub ignored_health: bool,
}

#[must_use]
pub fn usable(member: &Member, world: &Snapshot) -> Usable {
    let having = |wanted: fn(Verdict) -> bool| -> SmallVec<[EndpointId; 16]> {
        let all = member.endpoints.iter().copied();
        all.filter(|id| wanted(world.verdict(*id))).collect()
    };
    for wanted in [is_up, Verdict::is_usable, is_on_trial] {
        let endpoints = having(wanted);
        if !endpoints.is_empty() {
            return Usable {
                endpoints,
                ignored_health: false,
            };
        }
    }
    Usable {
        endpoints: having(|_| true),
        ignored_health: true,
    }
}

const fn is_up(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Up)
}

const fn is_on_trial(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Probation)
}
