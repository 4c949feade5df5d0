//! Which sets of addresses a steered name may well be answered with next: signed before anyone asks,
//! so that a failover costs no signature while questions wait. Pure.

use std::net::IpAddr;

use sealane_model::{AllDown, PoolId, Snapshot};

use crate::steer::{ADDRESSES_MAX, Family};
use crate::wire::rtype;
use crate::zone::{Steered, ZoneTable};

/// Sets signed ahead for one name and family. Beyond it (8 regions, three in each answer, take 92) the
/// larger ones are signed when they are first answered.
const AHEAD_MAX: usize = 128;

/// Signs for every steered name of a signed zone what it may be answered with in this world.
pub(crate) fn sign_ahead(table: &ZoneTable, world: &Snapshot) {
    for (zone, steered) in table.steered() {
        let Some(sealed) = &zone.sealed else {
            continue;
        };
        let owner = steered.owner();
        for (_, host) in &steered.hosts {
            sealed.sign_single_ahead(owner, rtype::CNAME, host.wire());
        }
        for family in [Family::V4, Family::V6] {
            for set in likely(steered, family, world) {
                sealed.sign_ahead(owner, family.rtype(), &set);
            }
        }
        if let Some(service) = &steered.https {
            for (v4, v6) in hints(steered, world) {
                let data = service.data(&v4, &v6);
                sealed.sign_single_ahead(owner, rtype::HTTPS, &data);
            }
        }
    }
}

/// Signs what aliases are answered with now.
pub(crate) fn sign_aliases_ahead(table: &ZoneTable) {
    for (zone, alias) in table.aliases() {
        let Some(sealed) = &zone.sealed else {
            continue;
        };
        let known = alias.source.known();
        for (family, addresses) in [Family::V4, Family::V6].into_iter().zip(known.addresses()) {
            if !addresses.is_empty() {
                sealed.sign_ahead(alias.owner(), family.rtype(), addresses);
            }
        }
    }
}

/// The pools that a name is answered from.
fn pools(steered: &Steered) -> impl Iterator<Item = PoolId> {
    let canary = steered.canary.as_ref().map(|canary| canary.pool);
    std::iter::once(steered.pool).chain(canary)
}

/// A region's addresses of one family, in the order of answers.
fn of_family(addresses: &[IpAddr], family: Family) -> Vec<IpAddr> {
    let of_family = addresses.iter().filter(|address| family.has(address));
    of_family.copied().collect()
}

/// The hints of answers from one region that has addresses of both families, or of one where no region
/// has more. Others, and those of several regions, go by the order of regions: not foreseen here.
fn hints(steered: &Steered, world: &Snapshot) -> Vec<(Vec<IpAddr>, Vec<IpAddr>)> {
    let members = pools(steered).flat_map(|pool| world.members(pool));
    let addresses = members.map(|(_, health)| &health.addresses[..]);
    addresses
        .filter(|addresses| !addresses.is_empty())
        .map(|addresses| {
            (
                of_family(addresses, Family::V4),
                of_family(addresses, Family::V6),
            )
        })
        .take(AHEAD_MAX)
        .collect()
}

/// Every choice of regions that one answer may hold, and what is answered when all are down.
fn likely(steered: &Steered, family: Family, world: &Snapshot) -> Vec<Vec<IpAddr>> {
    let mut sets: Vec<Vec<IpAddr>> = Vec::new();
    // A name that is an alias of hosts has no addresses of regions.
    let from = pools(steered).filter(|_| steered.hosts.is_empty());
    for pool in from {
        let regions: Vec<_> = world
            .members(pool)
            .map(|(_, health)| of_family(&health.addresses, family))
            .filter(|addresses| !addresses.is_empty())
            .collect();
        let most = (usize::from(steered.alternates) + 1).min(regions.len());
        for size in 1..=most {
            choices(&regions, size, &mut Vec::new(), &mut sets);
        }
    }
    let pool = world.topology.pool(steered.pool);
    let all_down = steered.policy.all_down();
    let all_down = all_down.or_else(|| pool.map(|pool| &pool.failover.all_down));
    if let Some(AllDown::Fallback(addresses)) = all_down {
        let fallback = of_family(addresses, family);
        sets.truncate(AHEAD_MAX - 1);
        sets.push(fallback);
    }
    // Of more addresses than fit, the order decides which: not foreseen here.
    sets.retain(|set| (1..=ADDRESSES_MAX).contains(&set.len()));
    sets
}

/// All ways to take `left` of `regions`, each joined with what is `taken` already.
fn choices(
    regions: &[Vec<IpAddr>],
    left: usize,
    taken: &mut Vec<IpAddr>,
    sets: &mut Vec<Vec<IpAddr>>,
) {
    if sets.len() >= AHEAD_MAX {
        return;
    }
    if left == 0 {
        let mut set = taken.clone();
        set.sort_unstable();
        set.dedup();
        sets.push(set);
        return;
    }
    for (place, region) in regions.iter().enumerate() {
        let before = taken.len();
        taken.extend_from_slice(region);
        choices(&regions[place + 1..], left - 1, taken, sets);
        taken.truncate(before);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sealane_model::Verdict::Up;
    use sealane_steering::SteeringPolicy;
    use sealane_testkit::World;

    use super::*;
    use crate::config::{SteeredName, Zone};
    use crate::dnssec::timing::Moment;
    use crate::name::Name;
    use crate::record::parse_zone_file;
    use sealane_model::Ttl;

    #[test]
    fn every_choice_of_regions_is_foreseen() {
        let world = World::new()
            .region("eu", Up)
            .addresses(&["192.0.2.1", "192.0.2.2"])
            .region("us", Up)
            .addresses(&["192.0.2.3", "2001:db8::3"])
            .region("asia", Up)
            .addresses(&["192.0.2.4"])
            .build();
        let apex = Name::parse("example.test", None).unwrap();
        let file = parse_zone_file("@ SOA a b 1 2 3 4 5", &apex, Ttl::from_secs(60)).unwrap();
        let pool = world.topology.pool_named("api").unwrap().id;
        let mut zone = Zone::new(apex.clone(), file.soa.unwrap(), file.records);
        let mut name = SteeredName::new(apex, pool, Arc::new(SteeringPolicy::Nearest));
        name.alternates = 1;
        zone.steered = vec![name];
        let table = ZoneTable::compile(&[zone], Moment(0), None);
        let (_, steered) = table.steered().next().unwrap();

        let sizes = |family| -> Vec<usize> {
            let sets = likely(steered, family, &world);
            sets.iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(Family::V4), [2, 1, 1, 3, 3, 2]);
        assert_eq!(sizes(Family::V6), [1]);
    }
}
