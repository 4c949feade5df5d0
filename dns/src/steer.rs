//! Chooses the addresses of a steered name for one client. Pure: one world, no clock.
//!
//! [`place`] says where the client is and for whom that holds; [`choose`] asks
//! [`rank()`] and turns regions into addresses. Orders no regions itself.

use std::net::{IpAddr, Ipv6Addr};

use sealane_model::{AllDown, PoolId, RegionId, ScopePrefix, Snapshot, Ttl};
use sealane_steering::{Ask, ClientPlace, GeoTable, How, Ranking, Reason, SteeringPolicy, rank};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::config::Canary;
use crate::engine::SteeredTo;
use crate::name::Name;
use crate::question::ClientSubnet;
use crate::ttl::answer_ttl;
use crate::wire::rtype;
use crate::zone::Steered;

/// Addresses in one answer. A region with more has the rest left out: clients try a few at most,
/// and the answer should fit a datagram (32 AAAA records take 896 octets).
pub const ADDRESSES_MAX: usize = 32;

/// The addresses for one client, with what the answer says about them.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Best first. Empty: see [`Choice::outcome`].
    pub addresses: SmallVec<[IpAddr; 16]>,
    pub outcome: Outcome,
    pub ttl: Ttl,
    pub reason: Reason,
    /// The region whose addresses come first.
    pub region: Option<RegionId>,
    /// For whom the choice holds, in bits of the place's address; 0 for everyone.
    pub scope: ScopePrefix,
    /// It is the canary's pool that serves.
    pub canary: bool,
}

impl Choice {
    /// For those who count.
    #[must_use]
    pub const fn steered_to(&self) -> SteeredTo {
        SteeredTo {
            region: self.region,
            reason: self.reason,
            canary: self.canary,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Addresses,
    /// The name has no address of this family now, and that is how it should be: NODATA.
    NoData,
    /// There should be addresses and none is known: SERVFAIL, so that resolvers ask another of
    /// the zone's servers rather than keep an empty answer (A5).
    NotKnown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    #[must_use]
    pub const fn rtype(self) -> u16 {
        match self {
            Self::V4 => rtype::A,
            Self::V6 => rtype::AAAA,
        }
    }

    pub(crate) const fn has(self, address: &IpAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

#[must_use]
pub fn choose(steered: &Steered, family: Family, place: &ClientPlace, world: &Snapshot) -> Choice {
    let Some(canary) = &steered.canary else {
        return from_pool(steered, family, place, world);
    };
    let mut choice = from_canary(steered, canary, family, place, world)
        .unwrap_or_else(|| from_pool(steered, family, place, world));
    // Who is a canary goes by the network.
    choice.scope = choice.scope.max(place.key_scope());
    choice
}

/// `None`: it is no canary's client, or the canary's pool is not well, so that the usual one serves.
fn from_canary(
    steered: &Steered,
    canary: &Canary,
    family: Family,
    place: &ClientPlace,
    world: &Snapshot,
) -> Option<Choice> {
    if !takes(canary, steered, place) {
        return None;
    }
    let ranking = rank(&ask(canary.pool, &canary.steering, place), world);
    let is_makeshift = matches!(
        ranking.reason,
        Reason::AllDown | Reason::NoData | Reason::Fallback | Reason::NoMembers
    );
    if is_makeshift {
        return None;
    }
    let choice = from_ranking(steered, canary.pool, family, &ranking, world);
    (choice.outcome == Outcome::Addresses).then_some(Choice {
        canary: true,
        ..choice
    })
}

fn ask<'a>(pool: PoolId, policy: &'a SteeringPolicy, place: &'a ClientPlace) -> Ask<'a> {
    Ask {
        pool,
        policy,
        place,
        key: place.key(),
    }
}

/// Is the client's network one of the canary's? Each name draws anew, and those drawn for a small
/// share are drawn for a larger one as well.
fn takes(canary: &Canary, steered: &Steered, place: &ClientPlace) -> bool {
    let drawn = xxh3_64_with_seed(steered.owner.wire(), place.key());
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits fit a double's mantissa exactly"
    )]
    let drawn = (drawn >> 11) as f64 / (1_u64 << 53) as f64;
    drawn < canary.share.get()
}

/// The host that a name steered by hosts is an alias of, for one client.
#[derive(Clone, Debug)]
pub struct HostChoice<'s> {
    /// `None`: addresses are answered instead, or nothing.
    pub host: Option<&'s Name>,
    /// What stands instead of a host: the operator's fallback addresses.
    pub fallback: Choice,
}

#[must_use]
pub fn choose_host<'s>(
    steered: &'s Steered,
    family: Family,
    place: &ClientPlace,
    world: &Snapshot,
) -> HostChoice<'s> {
    let ranking = rank(&ask(steered.pool, &steered.policy, place), world);
    let mut fallback = from_ranking(steered, steered.pool, family, &ranking, world);
    let host_of = |region: RegionId| {
        let host = steered.hosts.iter().find(|(of, _)| *of == region);
        host.map(|(_, host)| (region, host))
    };
    let chosen = ranking.regions().find_map(host_of);
    if let Some((region, _)) = chosen {
        fallback.region = Some(region);
        fallback.scope = ranking.scope;
    } else if ranking.first().is_some() {
        // Regions serve, and none has a host here: their addresses are not this name's.
        fallback.addresses.clear();
        fallback.outcome = Outcome::NotKnown;
    }
    HostChoice {
        host: chosen.map(|(_, host)| host),
        fallback,
    }
}

fn from_pool(steered: &Steered, family: Family, place: &ClientPlace, world: &Snapshot) -> Choice {
    let ranking = rank(&ask(steered.pool, &steered.policy, place), world);
    from_ranking(steered, steered.pool, family, &ranking, world)
}

/// The same for a ranking that is there already, as `explain` has it.
#[must_use]
pub fn from_ranking(
    steered: &Steered,
    pool: PoolId,
    family: Family,
    ranking: &Ranking,
    world: &Snapshot,
) -> Choice {
    let mut choice = Choice {
        addresses: SmallVec::new(),
        outcome: Outcome::Addresses,
        ttl: answer_ttl(steered, ranking.suspect, ranking.reason),
        reason: ranking.reason,
        region: None,
        scope: ranking.scope,
        canary: false,
    };
    let mut any_family = false;
    if ranking.reason == Reason::Fallback {
        let fallback = fallback(steered, pool, world);
        any_family = !fallback.is_empty();
        add(&mut choice.addresses, fallback, family);
    } else {
        let mut regions_left = usize::from(steered.alternates) + 1;
        for region in ranking.regions() {
            let addresses = world
                .member(pool, region)
                .map_or(&[][..], |(_, health)| &health.addresses);
            any_family |= !addresses.is_empty();
            if !addresses.iter().any(|address| family.has(address)) {
                continue;
            }
            add(&mut choice.addresses, addresses, family);
            choice.region = choice.region.or(Some(region));
            regions_left -= 1;
            if regions_left == 0 {
                break;
            }
        }
    }
    if choice.addresses.is_empty() {
        // Whichever order the regions come in, none of them has such an address.
        choice.scope = ScopePrefix::EVERYONE;
        choice.outcome = match ranking.reason {
            Reason::NoData => Outcome::NoData,
            _ if any_family => Outcome::NoData,
            _ => Outcome::NotKnown,
        };
    }
    choice
}

fn fallback<'w>(steered: &'w Steered, pool: PoolId, world: &'w Snapshot) -> &'w [IpAddr] {
    let of_pool = || Some(&world.topology.pool(pool)?.failover.all_down);
    match steered.policy.all_down().or_else(of_pool) {
        Some(AllDown::Fallback(addresses)) => addresses,
        _ => &[],
    }
}

fn add(chosen: &mut SmallVec<[IpAddr; 16]>, addresses: &[IpAddr], family: Family) {
    for address in addresses.iter().filter(|address| family.has(address)) {
        if chosen.len() == ADDRESSES_MAX {
            return;
        }
        if !chosen.contains(address) {
            chosen.push(*address);
        }
    }
}

/// Where a client is taken to be, and what that means for the scope that is answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    pub place: ClientPlace,
    basis: Basis,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Basis {
    /// The client subnet. `mapped`: an IPv4 address inside of IPv6, so the option counts 96 bits
    /// more than the place does.
    Subnet { mapped: bool },
    /// The resolver's address, whatever subnet it sends: the answer is for all of its clients.
    Resolver,
    /// The resolver's address, because the subnet is nobody's in particular. That holds for these
    /// leading bits of the subnet; another subnet might well be answered otherwise.
    Reserved { bits: u8 },
}

/// Locates by the client subnet where there is one that says something, else by the resolver.
#[must_use]
pub fn place(
    ignore_client_subnet: bool,
    subnet: Option<&ClientSubnet<'_>>,
    resolver: IpAddr,
    geo: &GeoTable,
) -> Placed {
    let by_resolver = |basis| Placed {
        place: ClientPlace::locate(resolver, How::Resolver, geo),
        basis,
    };
    let subnet = subnet.filter(|subnet| subnet.source > 0 && !ignore_client_subnet);
    let Some(address) = subnet.and_then(|subnet| subnet.address) else {
        return by_resolver(Basis::Resolver);
    };
    let place = ClientPlace::locate(address, How::ClientSubnet, geo);
    let mapped = address.is_ipv6() && place.address.is_ipv4();
    if let Some(block) = reserved_bits(place.address)
        && place.region.is_none()
    {
        let bits = block.max(place.scope.0) + if mapped { 96 } else { 0 };
        return by_resolver(Basis::Reserved { bits });
    }
    Placed {
        place,
        basis: Basis::Subnet { mapped },
    }
}

impl Placed {
    /// The SCOPE PREFIX-LENGTH for a choice that holds for `scope` bits of the place's address.
    #[must_use]
    pub fn answered_scope(&self, scope: ScopePrefix) -> u8 {
        match self.basis {
            _ if scope == ScopePrefix::EVERYONE => 0,
            Basis::Resolver => 0,
            Basis::Reserved { bits } => bits,
            Basis::Subnet { mapped: true } => scope.0.saturating_add(96).min(128),
            Basis::Subnet { mapped: false } if self.place.address.is_ipv4() => scope.0.min(32),
            Basis::Subnet { mapped: false } => scope.0.min(128),
        }
    }
}

/// For addresses that are in use in many places at once (RFC 6890): the length of their block.
fn reserved_bits(address: IpAddr) -> Option<u8> {
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            [10 | 127, ..] => Some(8),
            [172, 16..=31, ..] => Some(12),
            [192, 168, ..] | [169, 254, ..] => Some(16),
            [100, 64..=127, ..] => Some(10),
            _ => None,
        },
        IpAddr::V6(v6) => match v6.segments()[0] {
            _ if v6 == Ipv6Addr::LOCALHOST => Some(128),
            first if first & 0xfe00 == 0xfc00 => Some(7),
            first if first & 0xffc0 == 0xfe80 => Some(10),
            _ => None,
        },
    }
}
