//! How many connections each client has open, over all workers. The listeners ask; a client beyond
//! its share is closed at once, so that one alone cannot take every place.
//!
//! Holds an entry for each client that has a connection, so it is bounded by the connections.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::shared::Shared;

/// Workers that accept at the same moment seldom meet in one part.
const PARTS: usize = 16;

/// The part of an address that one customer of a network is given (RFC 6177 §2: at least a /64).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientNet(IpAddr);

impl ClientNet {
    pub(crate) fn of(client: IpAddr) -> Self {
        match client.to_canonical() {
            IpAddr::V6(v6) => Self(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into()),
            v4 => Self(v4),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Clients {
    parts: [Mutex<HashMap<ClientNet, usize>>; PARTS],
    /// Seeded: nobody can choose addresses that fall into one part.
    hash: RandomState,
}

impl Clients {
    /// Counts one more connection of `client`, unless it has `max` already.
    pub(crate) fn admit(shared: &Arc<Shared>, client: IpAddr, max: usize) -> Option<Place> {
        let net = ClientNet::of(client);
        shared.clients.take(net, max).then(|| Place {
            shared: Arc::clone(shared),
            net,
        })
    }

    fn part(&self, net: ClientNet) -> MutexGuard<'_, HashMap<ClientNet, usize>> {
        let at = self.hash.hash_one(net) as usize % PARTS;
        self.parts[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, net: ClientNet, max: usize) -> bool {
        let mut part = self.part(net);
        let open = part.entry(net).or_default();
        if *open >= max {
            return false;
        }
        *open += 1;
        true
    }

    fn give_back(&self, net: ClientNet) {
        if let Entry::Occupied(mut entry) = self.part(net).entry(net) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// One connection of a client, while it lives.
pub(crate) struct Place {
    shared: Arc<Shared>,
    net: ClientNet,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.clients.give_back(self.net);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(address: &str) -> ClientNet {
        ClientNet::of(address.parse().unwrap())
    }

    #[test]
    fn a_client_has_its_share_and_others_have_theirs() {
        let clients = Clients::default();
        let (one, other) = (net("192.0.2.1"), net("192.0.2.2"));
        assert!(clients.take(one, 2) && clients.take(one, 2));

        assert!(!clients.take(one, 2));
        assert!(clients.take(other, 2));

        clients.give_back(one);
        assert!(clients.take(one, 2));
    }

    #[test]
    fn a_customer_of_ipv6_is_one_client_and_an_ipv4_address_is_the_same_in_either_form() {
        assert_eq!(net("2001:db8::1"), net("2001:db8::ffff:1"));
        assert_ne!(net("2001:db8::1"), net("2001:db8:0:1::1"));
        assert_eq!(net("::ffff:192.0.2.1"), net("192.0.2.1"));
    }

    #[test]
    fn those_who_left_are_forgotten() {
        let clients = Clients::default();
        for last in 0..200 {
            clients.take(net(&format!("192.0.2.{last}")), 1);
        }
        for last in 0..200 {
            clients.give_back(net(&format!("192.0.2.{last}")));
        }

        assert!(
            clients
                .parts
                .iter()
                .all(|part| part.lock().unwrap().is_empty())
        );
    }
}
