//! Which client's datagrams belong together, how many flows there may be, and when one ends.
//!
//! Stepped by [`super::relay`], which keeps in each flow what it needs to send (`T`). Knows no
//! socket, reads no clock, waits for nothing; every step is O(1), whoever sends.
//!
//! A source address proves nothing: anybody can write it. So a flow counts as *proven* only once its
//! client spoke again after the endpoint's first answer, as Linux's connection tracking counts it
//! (`IPS_ASSURED`, `nf_conntrack_udp.c`): who forges addresses doesn't see answers. When there is no
//! room, the unproven flow that was silent longest makes way; proven ones never do, and where all
//! are proven the newcomer is refused. And only what a client sends keeps its flow alive: an
//! endpoint that goes on sending does not.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

use super::socket::Local;
use crate::clients::ClientNet;

/// What makes datagrams one flow, on one of our sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlowKey {
    pub(crate) client: SocketAddr,
    /// Our address that it sends to: answers must come from there.
    pub(crate) local: Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowLimits {
    /// At least 1.
    pub(crate) flows: usize,
    /// Of one client: an IPv4 address, or an IPv6 /64. At least 1.
    pub(crate) per_client: usize,
    /// A flow whose client was silent for this long ends.
    pub(crate) idle: Duration,
}

/// One flow for as long as it lives; later it means nothing, also when its place is taken again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowId {
    place: usize,
    serial: u64,
}

/// How far a flow's client has shown that it is where it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trust {
    /// The endpoint has answered.
    pub(crate) answered: bool,
    /// The client spoke after that.
    pub(crate) proven: bool,
}

/// What a flow has been so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    /// When its client spoke last.
    pub(crate) heard: Instant,
    pub(crate) trust: Trust,
}

/// Why there is no room, and nobody who could make way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Client,
    Table,
}

/// Flows, bounded by [`FlowLimits`].
#[derive(Debug)]
pub(crate) struct FlowTable<T> {
    slots: Slab<Slot<T>>,
    by_key: HashMap<FlowKey, usize>,
    /// Only of clients that have a flow.
    clients: HashMap<ClientNet, Client>,
    /// All flows, the one whose client was silent longest in front.
    all: Line,
    /// Those that are not proven, in the same order.
    unproven: Line,
    next_serial: u64,
}

#[derive(Debug)]
struct Slot<T> {
    key: FlowKey,
    serial: u64,
    heard: Instant,
    trust: Trust,
    /// Neighbours in each [`Line`] that it stands in, indexed by [`Kind`].
    links: [Links; 3],
    flow: T,
}

#[derive(Debug, Default)]
struct Client {
    flows: usize,
    unproven: Line,
}

impl<T> Default for FlowTable<T> {
    fn default() -> Self {
        Self {
            slots: Slab::new(),
            by_key: HashMap::new(),
            clients: HashMap::new(),
            all: Line::default(),
            unproven: Line::default(),
            next_serial: 0,
        }
    }
}

impl<T> FlowTable<T> {
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn find(&self, key: &FlowKey) -> Option<FlowId> {
        self.by_key.get(key).and_then(|place| self.id(*place))
    }

    pub(crate) fn get_mut(&mut self, id: FlowId) -> Option<&mut T> {
        self.slot(id).map(|slot| &mut slot.flow)
    }

    pub(crate) fn key(&self, id: FlowId) -> Option<FlowKey> {
        let slot = self.slots.get(id.place)?;
        (slot.serial == id.serial).then_some(slot.key)
    }

    /// Who must be removed before a flow of this key is opened: nobody, or one flow.
    ///
    /// # Errors
    /// When nobody may be removed for it.
    pub(crate) fn make_way(
        &self,
        key: &FlowKey,
        limits: &FlowLimits,
    ) -> Result<Option<FlowId>, Full> {
        let client = self.clients.get(&ClientNet::of(key.client.ip()));
        if let Some(client) = client
            && client.flows >= limits.per_client
        {
            let first = client.unproven.front.and_then(|place| self.id(place));
            return first.map(Some).ok_or(Full::Client);
        }
        if self.len() >= limits.flows {
            let first = self.unproven.front.and_then(|place| self.id(place));
            return first.map(Some).ok_or(Full::Table);
        }
        Ok(None)
    }

    /// A client's first datagram. Whoever [`FlowTable::make_way`] named is gone by now, as is an
    /// earlier flow of this key.
    pub(crate) fn open(&mut self, now: Instant, key: FlowKey, flow: T) -> FlowId {
        let trust = Trust::default();
        self.adopt(Past { heard: now, trust }, key, flow)
    }

    /// A flow that was known elsewhere. Those whose clients were silent longest come first.
    pub(crate) fn adopt(&mut self, past: Past, key: FlowKey, flow: T) -> FlowId {
        let serial = self.next_serial;
        self.next_serial += 1;
        let Past { heard, trust } = past;
        let place = self.slots.insert(Slot {
            key,
            serial,
            heard,
            trust,
            links: [Links::default(); 3],
            flow,
        });
        self.by_key.insert(key, place);
        let client = self
            .clients
            .entry(ClientNet::of(key.client.ip()))
            .or_default();
        client.flows += 1;
        self.all.push(&mut self.slots, Kind::All, place);
        if !trust.proven {
            client.unproven.push(&mut self.slots, Kind::OfClient, place);
            self.unproven.push(&mut self.slots, Kind::Unproven, place);
        }
        FlowId { place, serial }
    }

    /// All flows, those first whose clients spoke last.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (FlowKey, Past, &T)> {
        let slot = |place: Option<usize>| self.slots.get(place?);
        let before = move |later: &&Slot<T>| slot(later.links[Kind::All as usize].before);
        std::iter::successors(slot(self.all.back), before).map(|slot| {
            let (heard, trust) = (slot.heard, slot.trust);
            (slot.key, Past { heard, trust }, &slot.flow)
        })
    }

    /// The client sent another datagram.
    pub(crate) fn heard(&mut self, now: Instant, id: FlowId) {
        let Some(slot) = self.slot(id) else {
            return;
        };
        slot.heard = now;
        let (was_proven, client) = (slot.trust.proven, slot.key.client);
        slot.trust.proven |= slot.trust.answered;
        let is_proven = slot.trust.proven;
        let place = id.place;
        self.all.unlink(&mut self.slots, Kind::All, place);
        self.all.push(&mut self.slots, Kind::All, place);
        if was_proven {
            return;
        }
        let Some(client) = self.clients.get_mut(&ClientNet::of(client.ip())) else {
            return;
        };
        self.unproven.unlink(&mut self.slots, Kind::Unproven, place);
        client
            .unproven
            .unlink(&mut self.slots, Kind::OfClient, place);
        if !is_proven {
            self.unproven.push(&mut self.slots, Kind::Unproven, place);
            client.unproven.push(&mut self.slots, Kind::OfClient, place);
        }
    }

    /// The endpoint sent a datagram.
    pub(crate) fn answered(&mut self, id: FlowId) {
        if let Some(slot) = self.slot(id) {
            slot.trust.answered = true;
        }
    }

    /// When [`FlowTable::expire`] finds the next flow; `None` when there is none.
    pub(crate) fn next_wake(&self, idle: Duration) -> Option<Instant> {
        let first = self.slots.get(self.all.front?)?;
        Some(first.heard + idle)
    }

    /// Takes out one flow whose client was silent for `idle`, the longest first.
    pub(crate) fn expire(&mut self, now: Instant, idle: Duration) -> Option<(FlowKey, T)> {
        if self.next_wake(idle)? > now {
            return None;
        }
        self.remove(self.id(self.all.front?)?)
    }

    pub(crate) fn remove(&mut self, id: FlowId) -> Option<(FlowKey, T)> {
        let slot = self.slot(id)?;
        let (key, was_proven) = (slot.key, slot.trust.proven);
        let place = id.place;
        self.all.unlink(&mut self.slots, Kind::All, place);
        if !was_proven {
            self.unproven.unlink(&mut self.slots, Kind::Unproven, place);
        }
        if let Entry::Occupied(mut entry) = self.clients.entry(ClientNet::of(key.client.ip())) {
            let client = entry.get_mut();
            client.flows -= 1;
            if !was_proven {
                client
                    .unproven
                    .unlink(&mut self.slots, Kind::OfClient, place);
            }
            if client.flows == 0 {
                entry.remove();
            }
        }
        self.by_key.remove(&key);
        Some((key, self.slots.remove(place).flow))
    }

    fn slot(&mut self, id: FlowId) -> Option<&mut Slot<T>> {
        let slot = self.slots.get_mut(id.place)?;
        (slot.serial == id.serial).then_some(slot)
    }

    fn id(&self, place: usize) -> Option<FlowId> {
        let serial = self.slots.get(place)?.serial;
        Some(FlowId { place, serial })
    }
}

/// Slots in the order in which their clients were last heard, linked through the slots themselves:
/// moving one to the back touches its neighbours alone.
#[derive(Debug, Default)]
struct Line {
    front: Option<usize>,
    back: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Links {
    before: Option<usize>,
    after: Option<usize>,
}

/// Each slot stands in up to one line of each kind.
#[derive(Clone, Copy, Debug)]
enum Kind {
    All,
    Unproven,
    OfClient,
}

impl Line {
    fn push<T>(&mut self, slots: &mut Slab<Slot<T>>, kind: Kind, place: usize) {
        let before = self.back.replace(place);
        set(slots, kind, Some(place), |links| {
            *links = Links {
                before,
                after: None,
            };
        });
        set(slots, kind, before, |links| links.after = Some(place));
        if before.is_none() {
            self.front = Some(place);
        }
    }

    /// `place` must stand in this line.
    fn unlink<T>(&mut self, slots: &mut Slab<Slot<T>>, kind: Kind, place: usize) {
        let Some(slot) = slots.get(place) else {
            return;
        };
        let Links { before, after } = slot.links[kind as usize];
        set(slots, kind, before, |links| links.after = after);
        set(slots, kind, after, |links| links.before = before);
        if before.is_none() {
            self.front = after;
        }
        if after.is_none() {
            self.back = before;
        }
    }
}

fn set<T>(
    slots: &mut Slab<Slot<T>>,
    kind: Kind,
    place: Option<usize>,
    change: impl FnOnce(&mut Links),
) {
    if let Some(slot) = place.and_then(|place| slots.get_mut(place)) {
        change(&mut slot.links[kind as usize]);
    }
}

#[cfg(test)]
mod tests;
