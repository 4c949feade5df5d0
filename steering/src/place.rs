//! Where a client is, how we know, and for which part of the address space that holds.

use std::net::IpAddr;

use sealane_model::{Location, RegionId, ScopePrefix};
use xxhash_rust::xxh3::xxh3_64;

use crate::geo::GeoTable;

/// Sticky choices are made per network of this size, and hold for it (DNS answers carry it as the
/// least scope): what resolvers send as client subnet at most (RFC 7871 §11.1).
pub const KEY_PREFIX_V4: u8 = 24;
pub const KEY_PREFIX_V6: u8 = 56;

/// How a client's address became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// EDNS Client Subnet (RFC 7871).
    ClientSubnet,
    /// The resolver's own address.
    Resolver,
    /// The address of an HTTP client's connection.
    Connection,
}

impl How {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientSubnet => "client_subnet",
            Self::Resolver => "resolver",
            Self::Connection => "connection",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClientPlace {
    pub address: IpAddr,
    pub how: How,
    pub location: Option<Location>,
    /// The operator said that this client belongs there.
    pub region: Option<RegionId>,
    /// The leading bits of `address` for which `location` and `region` hold.
    pub scope: ScopePrefix,
}

impl ClientPlace {
    #[must_use]
    pub fn locate(address: IpAddr, how: How, table: &GeoTable) -> Self {
        let address = address.to_canonical();
        let located = table.locate(address);
        Self {
            address,
            how,
            location: located.location,
            region: located.region,
            scope: located.scope,
        }
    }

    /// A number that all clients of the same network share: what sticky choices are drawn from.
    #[must_use]
    pub fn key(&self) -> u64 {
        match self.address {
            IpAddr::V4(v4) => {
                let network = u32::from(v4) >> (32 - u32::from(KEY_PREFIX_V4));
                xxh3_64(&network.to_be_bytes())
            }
            IpAddr::V6(v6) => {
                let network = u128::from(v6) >> (128 - u32::from(KEY_PREFIX_V6));
                xxh3_64(&network.to_be_bytes())
            }
        }
    }

    /// The leading bits that [`ClientPlace::key`] depends on.
    #[must_use]
    pub const fn key_scope(&self) -> ScopePrefix {
        match self.address {
            IpAddr::V4(_) => ScopePrefix(KEY_PREFIX_V4),
            IpAddr::V6(_) => ScopePrefix(KEY_PREFIX_V6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> u64 {
        place(address).key()
    }

    fn place(address: &str) -> ClientPlace {
        let address = address.parse().unwrap();
        ClientPlace::locate(address, How::ClientSubnet, &GeoTable::empty())
    }

    #[test]
    fn a_network_shares_its_key_and_its_neighbour_has_another() {
        assert_eq!(key("192.0.2.1"), key("192.0.2.255"));
        assert_ne!(key("192.0.2.1"), key("192.0.3.1"));
        assert_eq!(key("2001:db8:0:1200::1"), key("2001:db8:0:12ff::9"));
        assert_ne!(key("2001:db8:0:1200::1"), key("2001:db8:0:1300::1"));
    }

    #[test]
    fn an_ipv4_address_told_in_ipv6_is_the_same_client() {
        assert_eq!(place("::ffff:192.0.2.1"), place("192.0.2.1"));
        assert_eq!(place("::ffff:192.0.2.1").key_scope(), ScopePrefix(24));
        assert_eq!(place("2001:db8::1").key_scope(), ScopePrefix(56));
    }

    #[test]
    fn keys_are_the_same_in_every_process() {
        assert_eq!(key("192.0.2.1"), xxh3_64(&[0, 192, 0, 2]));
    }
}
