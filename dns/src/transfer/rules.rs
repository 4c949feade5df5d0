//! What the operator says of transfers: already valid. Held by [`crate::config::Zone`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::transfer::key::TsigKey;

/// Who may have copies of a zone, and who is told of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Networks that may ask. Empty: any, with one of `keys`.
    pub to: Vec<IpNet>,
    /// One of these must sign. Empty: no signature is asked for.
    pub keys: Vec<TsigKey>,
    /// Servers that are told when the zone changes; signed by the first of `keys`.
    pub notify: Vec<SocketAddr>,
    pub steered: SteeredAs,
}

/// What a copy has for names whose answers are chosen for each client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SteeredAs {
    /// What somebody whose place nobody knows would be answered now.
    #[default]
    Snapshot,
    /// Nothing: the copy knows no such names.
    Omit,
}

/// Where a zone's static part comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secondary {
    /// Asked in this order; at least one.
    pub primaries: Vec<SocketAddr>,
    /// What questions are signed with, and answers and NOTIFY must be.
    pub key: Option<TsigKey>,
}

impl Outgoing {
    /// May somebody at this address have the zone, having signed with `key`?
    #[must_use]
    pub fn allows(&self, source: IpAddr, key: Option<&TsigKey>) -> bool {
        let is_signed = match key {
            Some(key) => self.keys.contains(key),
            None => false,
        };
        self.is_near(source) && (is_signed || self.keys.is_empty())
    }

    fn is_near(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        match &self.to[..] {
            // With neither networks nor keys only those are named who are told of changes.
            [] => !self.keys.is_empty(),
            to => to.iter().any(|net| net.contains(&source)),
        }
    }

    #[must_use]
    pub fn key(&self) -> Option<&TsigKey> {
        self.keys.first()
    }
}

impl Secondary {
    /// Is this one of the primaries, having signed as it must?
    #[must_use]
    pub fn heeds(&self, source: IpAddr, key: Option<&TsigKey>) -> bool {
        self.is_primary(source) && (self.key.is_none() || self.key.as_ref() == key)
    }

    fn is_primary(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        self.primaries.iter().any(|known| known.ip() == source)
    }
}

impl OfZone {
    /// May somebody at this address ask for the zone, or tell of it?
    #[must_use]
    pub fn knows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let outgoing = self.outgoing.as_ref();
        let may_ask = outgoing.is_some_and(|rules| rules.is_near(address));
        let secondary = self.secondary.as_ref();
        may_ask || secondary.is_some_and(|rules| rules.is_primary(address))
    }
}

/// The rules of one zone.
#[derive(Clone, Debug, Default)]
pub struct OfZone {
    pub outgoing: Option<Arc<Outgoing>>,
    pub secondary: Option<Arc<Secondary>>,
}
