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
    let standard = Standard::of(member, world);
    let all = member.endpoints.iter().copied();
    Usable {
        endpoints: all
            .filter(|id| standard.takes(world.verdict(*id)))
            .collect(),
        ignored_health: standard == Standard::None,
    }
}

/// How well an endpoint of a region must be to be given work: as well as the best one there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    Up,
    /// Up or in doubt.
    Usable,
    OnTrial,
    /// Health is ignored: none is even on trial, or there are no endpoints.
    None,
}

impl Standard {
    #[must_use]
    pub fn of(member: &Member, world: &Snapshot) -> Self {
        let all = [Self::Up, Self::Usable, Self::OnTrial];
        let is_met = |standard: &Self| {
            let mut endpoints = member.endpoints.iter();
            endpoints.any(|id| standard.takes(world.verdict(*id)))
        };
        all.into_iter().find(is_met).unwrap_or(Self::None)
    }

    #[must_use]
    pub const fn takes(self, verdict: Verdict) -> bool {
        match self {
            Self::Up => matches!(verdict, Verdict::Up),
            Self::Usable => verdict.is_usable(),
            Self::OnTrial => matches!(verdict, Verdict::Probation),
            Self::None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Down, Draining, Probation, Suspect, Unknown, Up};
    use sealane_testkit::{Names, World};

    /// Which of the endpoints, by place, may be given work; and whether health was ignored.
    fn usable_of(verdicts: &[Verdict]) -> (Vec<usize>, bool) {
        let mut world = World::new().region("eu", Up).endpoints(0);
        for (index, verdict) in verdicts.iter().enumerate() {
            world = world.endpoint(&format!("10.0.0.1:{index}"), *verdict);
        }
        let world = world.build();
        let (member, _) = world
            .member(world.pool_id("api"), world.region_id("eu"))
            .unwrap();
        let usable = usable(member, &world);
        let place = |id| {
            member
                .endpoints
                .iter()
                .position(|known| *known == id)
                .unwrap()
        };
        let places = usable.endpoints.into_iter().map(place).collect();
        (places, usable.ignored_health)
    }

    #[test]
    fn the_well_ones_serve_then_the_doubtful_then_those_on_trial() {
        for (verdicts, expected) in [
            (&[Up, Suspect, Up, Down][..], &[0, 2][..]),
            (&[Down, Suspect, Unknown, Probation], &[1, 2]),
            (&[Down, Probation, Draining], &[1]),
        ] {
            assert_eq!(
                usable_of(verdicts),
                (expected.to_vec(), false),
                "{verdicts:?}"
            );
        }
    }

    #[test]
    fn when_none_is_usable_all_are_tried_and_none_exist_none_are() {
        assert_eq!(usable_of(&[Down, Draining]), (vec![0, 1], true));
        assert_eq!(usable_of(&[]), (vec![], true));
    }
}
