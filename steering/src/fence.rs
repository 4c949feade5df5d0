//! Which regions may serve which clients at all: the operator's rules on where data may go.
//!
//! Asked by [`crate::rank()`] before anything is ordered. A region that a fence shuts out does not exist
//! for that client: not as a second choice, and not when all others are down. Orders nothing.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sealane_model::{RegionId, ScopePrefix};

use crate::geo::Area;

/// Rules that a pool may have. Each ranking looks through all of them: a wall of them belongs into
/// a table of overrides.
pub const FENCES_MAX: usize = 64;

/// The first one that a client's address lies in holds; the others' regions are open to everyone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fences(Vec<Fence>);

/// Clients from these networks, and from this area, are served by these regions alone.
#[derive(Clone, Debug)]
pub struct Fence {
    /// In canonical form: no IPv4 network told in IPv6.
    pub nets: Vec<IpNet>,
    /// Countries, continents, autonomous systems.
    pub area: Option<Arc<Area>>,
    /// Never empty.
    pub regions: Vec<RegionId>,
}

impl Fences {
    #[must_use]
    pub const fn new(fences: Vec<Fence>) -> Self {
        Self(fences)
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rule for this client. `None`: every region may serve it.
    #[must_use]
    pub fn of(&self, client: IpAddr) -> Option<&Fence> {
        let holds = |fence: &&Fence| {
            let inside = |area: &Arc<Area>| area.contains(client);
            fence.nets.iter().any(|net| net.contains(&client))
                || fence.area.as_ref().is_some_and(inside)
        };
        self.0.iter().find(holds)
    }

    /// The leading bits of the address for which [`Fences::of`] says the same.
    #[must_use]
    pub fn scope(&self, client: IpAddr) -> ScopePrefix {
        let nets = self.0.iter().flat_map(|fence| &fence.nets);
        let bits = nets.map(|net| {
            if net.contains(&client) {
                net.prefix_len()
            } else {
                // One bit more than what is common: from there on the network is left.
                common_bits(client, net.network()).map_or(0, |bits| bits + 1)
            }
        });
        let by_nets = ScopePrefix(bits.max().unwrap_or(0));
        let areas = self.0.iter().filter_map(|fence| fence.area.as_ref());
        areas.map(|area| area.scope(client)).fold(by_nets, Ord::max)
    }
}

/// Areas are equal where they are the same one: a table that was read anew may say something else.
impl PartialEq for Fence {
    fn eq(&self, other: &Self) -> bool {
        let area = |fence: &Self| fence.area.as_ref().map(Arc::as_ptr);
        self.nets == other.nets && self.regions == other.regions && area(self) == area(other)
    }
}

impl Fence {
    #[must_use]
    pub fn lets_in(&self, region: RegionId) -> bool {
        self.regions.contains(&region)
    }
}

/// `::ffff:192.0.2.0/120` means `192.0.2.0/24`.
#[must_use]
pub fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped = v6.network().to_ipv4_mapped();
    let within = mapped.zip(v6.prefix_len().checked_sub(96));
    let net_v4 = within.and_then(|(ip, bits)| ipnet::Ipv4Net::new(ip, bits).ok());
    net_v4.map_or(net, IpNet::V4)
}

/// `None`: of different families.
fn common_bits(one: IpAddr, other: IpAddr) -> Option<u8> {
    let bits = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (u32::from(one) ^ u32::from(other)).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            (u128::from(one) ^ u128::from(other)).leading_zeros()
        }
        _ => return None,
    };
    u8::try_from(bits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fences(nets: &[&[&str]]) -> Fences {
        let fence = |(index, nets): (usize, &&[&str])| Fence {
            nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
            area: None,
            regions: vec![RegionId::from_index(index).unwrap()],
        };
        Fences::new(nets.iter().enumerate().map(fence).collect())
    }

    fn region_of(fences: &Fences, client: &str) -> Option<usize> {
        let fence = fences.of(client.parse().unwrap())?;
        Some(fence.regions[0].index())
    }

    #[test]
    fn the_first_rule_that_names_the_clients_network_holds() {
        let fences = fences(&[&["10.1.0.0/16", "2001:db8::/32"], &["10.0.0.0/8"]]);

        assert_eq!(region_of(&fences, "10.1.2.3"), Some(0));
        assert_eq!(region_of(&fences, "10.2.2.3"), Some(1));
        assert_eq!(region_of(&fences, "2001:db8::1"), Some(0));
        assert_eq!(region_of(&fences, "192.0.2.1"), None);
    }

    #[test]
    fn within_the_scope_every_address_is_told_the_same_and_a_bit_less_is_too_wide() {
        let fences = fences(&[&["10.1.2.128/25"], &["10.1.0.0/16"], &["10.4.0.0/14"]]);
        for client in [
            "10.1.2.200",
            "10.1.2.1",
            "10.1.9.9",
            "10.2.0.1",
            "10.9.9.9",
            "11.0.0.1",
        ] {
            let client: std::net::Ipv4Addr = client.parse().unwrap();
            let bits = fences.scope(client.into()).0;
            let told = fences.of(client.into());
            let first = |bits: u8| {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                (u32::from(client) & mask, u32::from(client) | !mask)
            };
            let (low, high) = first(bits);
            for step in 0..=4_096_u64 {
                let at = u64::from(low) + u64::from(high - low) * step / 4_096;
                let other = std::net::Ipv4Addr::from(u32::try_from(at).unwrap());
                assert_eq!(fences.of(other.into()), told, "{client} and {other}");
            }
            let (low, high) = first(bits - 1);
            let nets = fences.0.iter().flat_map(|fence| &fence.nets);
            let starts = nets.filter_map(|net| match net.network() {
                IpAddr::V4(start) => Some(u32::from(start)),
                IpAddr::V6(_) => None,
            });
            let mut told_there = starts
                .chain([low, high])
                .filter(|at| (low..=high).contains(at))
                .map(|at| fences.of(std::net::Ipv4Addr::from(at).into()));
            assert!(
                told_there.any(|other| other != told),
                "{client}: {bits} bits"
            );
        }
    }

    #[test]
    fn networks_of_the_other_family_say_nothing_of_the_scope() {
        let fences = fences(&[&["2001:db8::/32"]]);
        assert_eq!(
            fences.scope("10.0.0.1".parse().unwrap()),
            ScopePrefix::EVERYONE
        );
        assert_eq!(
            fences.scope("2001:db9::1".parse().unwrap()),
            ScopePrefix(32)
        );
    }
}
