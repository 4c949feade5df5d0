//! Carries datagrams of one listening socket to endpoints, and their answers back.
//!
//! [`run`] is started once for each worker and address, and owns what [`flow`](super::flow) decides
//! on: one connected socket and one small task for each flow. Waits for sockets and timers alone;
//! what cannot be sent at once is dropped and counted, as a router would.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sealane_model::{Endpoint, Failure, Observation, Outcome, Snapshot, Source, Target, Verdict};
use sealane_steering::{ClientPlace, How};
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::flow::{FlowId, FlowKey, FlowLimits, FlowTable, Full, Past};
use super::legacy::{Known, LeftFlow};
use super::metrics::{Dropped, FlowMetrics, Move};
use super::outcome::{End, Flow, Tally};
use super::socket::{self, Datagram};
use crate::clock;
use crate::config::{Destination, FlowRule, OnDown};
use crate::listener::ListenerState;
use crate::random;
use crate::shared::{AcceptingGuard, OpenConnections, Phase};
use crate::upstream::sticky::{Home, stay};
use crate::upstream::{NoEndpoint, SelectAsk, Selected, Tried, hash_of_client, select};
use crate::worker::{Worker, note_panic};

/// Endpoints that are tried for one datagram: the first, and two more when it is refused.
const TRIES: usize = 3;
/// Answers that one flow carries in a row; then others have their turn.
const ANSWERS_IN_A_ROW: usize = 32;
/// Flows that end in a row for their silence; then datagrams have their turn.
const EXPIRED_IN_A_ROW: usize = 256;
/// The longest sleep while there are flows, so that a shorter `idle` soon holds for them.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While the proxy drains, a flow that was silent for this long counts as finished.
const DRAIN_IDLE: Duration = Duration::from_secs(5);
/// Rest after an error that is not a peer's, so that a lasting one does not burn a core.
const ERROR_REST: Duration = Duration::from_millis(50);

/// What the operator said of a UDP listener, and what it counts.
pub(crate) struct UdpRule {
    pub(crate) listener: Arc<str>,
    pub(crate) to: Destination,
    pub(crate) how: FlowRule,
    /// For one worker.
    pub(crate) limits: FlowLimits,
    pub(crate) metrics: FlowMetrics,
}

impl UdpRule {
    pub(crate) fn new(
        listener: &Arc<str>,
        to: &Destination,
        how: FlowRule,
        workers: usize,
    ) -> Self {
        Self {
            listener: Arc::clone(listener),
            limits: FlowLimits {
                flows: how.flows.div_ceil(workers).max(1),
                per_client: how.flows_per_client.max(1),
                idle: how.idle,
            },
            to: to.clone(),
            how,
            metrics: FlowMetrics::new(listener),
        }
    }
}

/// Carries until the listener is removed, or the proxy drains and no flow is left. Dropping it cuts
/// the flows off. `place`: of the socket among those of its address. `left`: what an earlier process had
/// there, as a first step.
pub(crate) async fn run(
    socket: std::net::UdpSocket,
    (place, left): (usize, Vec<LeftFlow>),
    state: Arc<ListenerState>,
    worker: Rc<Worker>,
    accepting: AcceptingGuard,
) {
    let Some(rule) = state.rule.load().udp.clone() else {
        return tracing::error!("a UDP socket of a listener that is none");
    };
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!("a listener was lost: {error}"),
    };
    let relay = Rc::new(Relay {
        socket,
        place,
        worker,
        state,
        rule: RefCell::new(rule),
        flows: RefCell::default(),
    });
    relay
        .worker
        .relays
        .borrow_mut()
        .retain(|relay| relay.strong_count() > 0);
    let known = Rc::downgrade(&relay);
    relay.worker.relays.borrow_mut().push(known);
    relay.run(left, accepting).await;
}

pub(crate) struct Relay {
    socket: UdpSocket,
    place: usize,
    worker: Rc<Worker>,
    state: Arc<ListenerState>,
    rule: RefCell<Arc<UdpRule>>,
    flows: RefCell<FlowTable<Flow>>,
}

impl Relay {
    async fn run(self: Rc<Self>, left: Vec<LeftFlow>, accepting: AcceptingGuard) {
        let mut accepting = Some(accepting);
        let mut closing = self.state.closing.subscribe();
        let mut phase = self.worker.shared.phase.subscribe();
        let mut answers = JoinSet::new();
        self.adopt(left, &mut answers);
        loop {
            let serving = accepting.is_some();
            tokio::select! {
                readable = self.socket.readable(), if !self.is_succeeded() => {
                    if let Err(error) = readable.and_then(|()| self.receive(serving, &mut answers)) {
                        self.rule.borrow().metrics.dropped(Dropped::Os);
                        tracing::warn!("cannot receive datagrams: {error}");
                        tokio::time::sleep(ERROR_REST).await;
                    }
                }
                Some(ended) = answers.join_next() => note_panic(ended),
                () = self.next_expiry(serving) => self.expire(serving),
                // Errors mean that the proxy is gone.
                _ = closing.wait_for(|closing| *closing) => return self.end_all(End::Removed),
                _ = phase.wait_for(|phase| *phase > Phase::Serving), if serving => accepting = None,
            }
            if accepting.is_none() && self.flows.borrow().len() == 0 {
                return;
            }
        }
    }

    /// Whose flows these are.
    pub(crate) fn listener(&self) -> &Arc<ListenerState> {
        &self.state
    }

    /// Duplicates of the flows for a successor, those first whose clients spoke last: up to `max`, and as
    /// many as there are descriptors for. The flows go on here until this process steps aside.
    pub(crate) fn leave(&self, max: usize) -> Vec<LeftFlow> {
        let (flows, now) = (self.flows.borrow(), clock::now());
        let left = flows.newest().take(max).map_while(|(key, past, flow)| {
            let socket = SockRef::from(&*flow.socket).try_clone().ok()?;
            let known = Known {
                place: self.place,
                key,
                number: flow.key,
                silent: now.saturating_duration_since(past.heard),
                trust: past.trust,
                received: flow.tally.received,
                sent: flow.tally.sent,
                address: flow.selected.address,
                region: flow.selected.region_name.to_string(),
            };
            Some(LeftFlow {
                known,
                socket: socket.into(),
            })
        });
        left.collect()
    }

    fn adopt(self: &Rc<Self>, mut left: Vec<LeftFlow>, answers: &mut JoinSet<()>) {
        left.sort_by_key(|flow| std::cmp::Reverse(flow.known.silent));
        let world = self.worker.shared.world.load();
        let mut flows = self.flows.borrow_mut();
        let mut turn = self.turn(&mut flows, &world, true, answers);
        for flow in left {
            turn.adopt(flow);
        }
    }

    /// Another process reads the socket; what is left to do here is to carry answers.
    fn is_succeeded(&self) -> bool {
        *self.worker.shared.phase.borrow() == Phase::SteppingAside
    }

    fn rule(&self) -> Arc<UdpRule> {
        let now = self.state.rule.load();
        let mut rule = self.rule.borrow_mut();
        if let Some(now) = &now.udp
            && !Arc::ptr_eq(now, &rule)
        {
            *rule = Arc::clone(now);
        }
        Arc::clone(&rule)
    }

    /// Carries one batch.
    fn receive(self: &Rc<Self>, serving: bool, answers: &mut JoinSet<()>) -> io::Result<()> {
        if self.is_succeeded() {
            return Ok(());
        }
        let mut batch = self.worker.batch.borrow_mut();
        let received = self
            .socket
            .try_io(Interest::READABLE, || batch.receive(&self.socket));
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            received => received?,
        }
        let world = self.worker.shared.world.load();
        let mut flows = self.flows.borrow_mut();
        let mut turn = self.turn(&mut flows, &world, serving, answers);
        for (datagram, bytes) in batch.datagrams() {
            if let Err(why) = turn.carry(datagram, bytes) {
                turn.rule.metrics.dropped(why);
            }
        }
        Ok(())
    }

    fn turn<'a>(
        self: &'a Rc<Self>,
        flows: &'a mut FlowTable<Flow>,
        world: &'a Snapshot,
        serving: bool,
        answers: &'a mut JoinSet<()>,
    ) -> Turn<'a> {
        Turn {
            relay: self,
            flows,
            rule: self.rule(),
            world,
            now: clock::now(),
            serving,
            answers,
        }
    }

    fn idle(&self, serving: bool) -> Duration {
        let idle = self.rule().limits.idle;
        if serving { idle } else { idle.min(DRAIN_IDLE) }
    }

    async fn next_expiry(&self, serving: bool) {
        let next = self.flows.borrow().next_wake(self.idle(serving));
        match next {
            Some(next) => tokio::time::sleep_until(next.min(clock::now() + LOOK_EVERY)).await,
            None => std::future::pending().await,
        }
    }

    fn expire(&self, serving: bool) {
        let (now, idle) = (clock::now(), self.idle(serving));
        let mut flows = self.flows.borrow_mut();
        for _ in 0..EXPIRED_IN_A_ROW {
            match flows.expire(now, idle) {
                Some((_, flow)) => end(flow, End::Idle),
                None => return,
            }
        }
    }

    fn end_all(&self, why: End) {
        let mut flows = self.flows.borrow_mut();
        // However short their silence was.
        while let Some((_, flow)) = flows.expire(clock::now(), Duration::ZERO) {
            end(flow, why);
        }
    }

    /// Carries one answer.
    fn answer(&self, id: FlowId, socket: &UdpSocket) -> Answer {
        let mut batch = self.worker.batch.borrow_mut();
        let mut flows = self.flows.borrow_mut();
        let key = flows.key(id);
        let (Some(key), Some(flow)) = (key, flows.get_mut(id)) else {
            return Answer::Last;
        };
        let bytes = match batch.receive_one(socket) {
            Ok(bytes) => bytes,
            Err(error) => return self.no_answer(flow, &error),
        };
        match socket::answer(&self.socket, key.client, key.local, bytes) {
            Ok(_) => {
                flow.sent(bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                flow.rule.metrics.dropped(Dropped::Busy);
            }
            Err(error) => {
                flow.rule.metrics.dropped(Dropped::Os);
                tracing::debug!(client = %key.client, "cannot send an answer: {error}");
            }
        }
        let is_last = flow.has_all_answers();
        flows.answered(id);
        if is_last && let Some((_, flow)) = flows.remove(id) {
            end(flow, End::Answered);
            return Answer::Last;
        }
        Answer::One
    }

    fn no_answer(&self, flow: &mut Flow, error: &io::Error) -> Answer {
        if error.kind() == io::ErrorKind::WouldBlock {
            return Answer::None;
        }
        if let Some(failure) = endpoints_fault(error) {
            self.blame(flow, failure);
            return Answer::One;
        }
        flow.rule.metrics.dropped(Dropped::Os);
        tracing::debug!(
            endpoint = &*flow.selected.name,
            "cannot receive an answer: {error}"
        );
        Answer::Error
    }

    /// The endpoint did not take what this flow sent: the flow's next datagram tries another one.
    fn blame(&self, flow: &mut Flow, failure: Failure) {
        let selected = &flow.selected;
        tracing::debug!(
            listener = &*flow.rule.listener,
            region = &*selected.region_name,
            endpoint = &*selected.name,
            address = %selected.address,
            "an endpoint does not take datagrams: {failure}"
        );
        self.worker.shared.observations.offer(Observation {
            endpoint: selected.endpoint,
            source: Source::Traffic,
            outcome: Outcome::Failed(failure),
        });
        flow.refused = Some(tried(selected));
    }
}

/// What came of looking for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    One,
    /// The flow is over.
    Last,
    None,
    Error,
}

/// Carries the answers of one flow from one endpoint. Aborted when the flow ends or moves.
async fn carry_answers(relay: Rc<Relay>, id: FlowId, socket: Rc<UdpSocket>) {
    while socket::answerable(&socket).await.is_ok() {
        for _ in 0..ANSWERS_IN_A_ROW {
            match relay.answer(id, &socket) {
                Answer::One => {}
                Answer::None => break,
                Answer::Last => return,
                Answer::Error => tokio::time::sleep(ERROR_REST).await,
            }
        }
        tokio::task::yield_now().await;
    }
}

/// One batch of datagrams, under one world and one rule.
struct Turn<'a> {
    relay: &'a Rc<Relay>,
    flows: &'a mut FlowTable<Flow>,
    rule: Arc<UdpRule>,
    world: &'a Snapshot,
    now: Instant,
    /// New flows are taken up.
    serving: bool,
    answers: &'a mut JoinSet<()>,
}

impl Turn<'_> {
    fn carry(&mut self, datagram: &Datagram, bytes: &[u8]) -> Result<(), Dropped> {
        if datagram.client.port() == 0 {
            return Err(Dropped::Source);
        }
        let key = FlowKey {
            client: datagram.client,
            local: datagram.local,
        };
        let id = match self.flows.find(&key) {
            Some(id) => {
                self.flows.heard(self.now, id);
                id
            }
            None => self.open(key)?,
        };
        self.send(id, bytes)
    }

    fn open(&mut self, key: FlowKey) -> Result<FlowId, Dropped> {
        if !self.serving {
            return Err(Dropped::Draining);
        }
        let makes_way = self.flows.make_way(&key, &self.rule.limits);
        let makes_way = makes_way.map_err(|full| match full {
            Full::Client => Dropped::ClientLimit,
            Full::Table => Dropped::Limit,
        })?;
        let place = self.locate(&key);
        let number = random::number();
        let selected = self.select(&place, number, &[]).map_err(|none| {
            tracing::debug!(client = %key.client, "no endpoint for a datagram: {none}");
            Dropped::NoEndpoint
        })?;
        let socket = Rc::new(self.connect(&selected)?);
        if let Some((_, flow)) = makes_way.and_then(|id| self.flows.remove(id)) {
            end(flow, End::Evicted);
        }
        let flow = self.begin(&key, place, number, selected, socket);
        let id = self.flows.open(self.now, key, flow);
        self.begin_answers(id);
        Ok(id)
    }

    fn locate(&self, key: &FlowKey) -> ClientPlace {
        let rules = self.relay.worker.shared.rules.load();
        ClientPlace::locate(key.client.ip(), How::Connection, &rules.config.geo)
    }

    fn begin(
        &self,
        key: &FlowKey,
        place: ClientPlace,
        number: u64,
        selected: Selected,
        socket: Rc<UdpSocket>,
    ) -> Flow {
        let shared = &self.relay.worker.shared;
        self.rule.metrics.opened.increment(1);
        self.rule.metrics.open.increment(1);
        Flow {
            rule: Arc::clone(&self.rule),
            client: key.client,
            place,
            key: number,
            started: self.now,
            load: shared.loads.begin(selected.endpoint),
            selected,
            socket,
            answers: None,
            seen: self.world.generation,
            refused: None,
            tally: Tally::default(),
            end: End::CutOff,
            _open: OpenConnections::begin_flow(shared),
        }
    }

    /// Goes on with an earlier process's flow, if its endpoint is still one that serves: else the client's
    /// next datagram begins a new one.
    fn adopt(&mut self, left: LeftFlow) {
        let LeftFlow { known, socket } = left;
        let place = self.locate(&known.key);
        let is_known = self.flows.find(&known.key).is_some();
        let room = self.flows.make_way(&known.key, &self.rule.limits);
        if is_known || !matches!(room, Ok(None)) {
            return;
        }
        let Some(selected) = self.stay(&place, &known) else {
            return;
        };
        let socket = match UdpSocket::from_std(socket.into()) {
            Ok(socket) => Rc::new(socket),
            Err(error) => return tracing::debug!("no socket for a flow: {error}"),
        };
        let mut flow = self.begin(&known.key, place, known.number, selected, socket);
        flow.tally.received = known.received;
        flow.tally.sent = known.sent;
        let past = Past {
            heard: self.now.checked_sub(known.silent).unwrap_or(self.now),
            trust: known.trust,
        };
        let id = self.flows.adopt(past, known.key, flow);
        self.begin_answers(id);
    }

    /// The endpoint that the flow had.
    fn stay(&self, place: &ClientPlace, known: &Known) -> Option<Selected> {
        let pool = self.rule.to.pool;
        let mut endpoints = self.world.topology.endpoints();
        let had = endpoints.find(|endpoint| {
            let region = self.world.topology.region(endpoint.region);
            endpoint.pool == pool
                && region.is_some_and(|region| *region.name == *known.region)
                && has_address(self.world, endpoint, known.address)
        })?;
        let home = Home::Endpoint(had.id, known.number);
        let hash = hash_of_client(&self.rule.to.balance, place.address);
        let ask = self.ask(place, hash.unwrap_or(known.number), hash, &[]);
        let mut selected = stay(self.world, &self.relay.worker.endpoints, &ask, home)?;
        selected.address = known.address;
        (selected.endpoint == had.id).then_some(selected)
    }

    fn begin_answers(&mut self, id: FlowId) {
        if let Some(flow) = self.flows.get_mut(id) {
            let task = carry_answers(Rc::clone(self.relay), id, Rc::clone(&flow.socket));
            let earlier = flow.answers.replace(self.answers.spawn_local(task));
            if let Some(earlier) = earlier {
                earlier.abort();
            }
        }
    }

    fn select(
        &self,
        place: &ClientPlace,
        key: u64,
        tried: &[Tried],
    ) -> Result<Selected, NoEndpoint> {
        let hash = hash_of_client(&self.rule.to.balance, place.address);
        let ask = self.ask(place, hash.unwrap_or(key), hash, tried);
        select(self.world, &self.relay.worker.endpoints, &ask)
    }

    fn ask<'b>(
        &'b self,
        place: &'b ClientPlace,
        key: u64,
        hash: Option<u64>,
        tried: &'b [Tried],
    ) -> SelectAsk<'b> {
        SelectAsk {
            pool: self.rule.to.pool,
            policy: &self.rule.to.steering,
            balance: &self.rule.to.balance,
            place,
            key,
            hash,
            random: random::number(),
            may_shed: false,
            now: self.now.into_std(),
            // The next datagram goes elsewhere.
            repeatable: true,
            tried,
        }
    }

    fn connect(&self, selected: &Selected) -> Result<UdpSocket, Dropped> {
        socket::connect(selected.address).map_err(|error| {
            tracing::debug!(address = %selected.address, "no socket for a flow: {error}");
            Dropped::Os
        })
    }

    /// To the flow's endpoint, or to another one if that is down or refuses.
    fn send(&mut self, id: FlowId, bytes: &[u8]) -> Result<(), Dropped> {
        let mut refused: SmallVec<[Tried; TRIES]> = SmallVec::new();
        for _ in 0..TRIES {
            let Some(flow) = self.flows.get_mut(id) else {
                return Ok(());
            };
            refused.extend(flow.refused.take());
            let why = if refused.is_empty() {
                self.why_move(id)
            } else {
                Some(Move::Refused)
            };
            if let Some(why) = why {
                self.relocate(id, why, &refused);
            }
            let Some(flow) = self.flows.get_mut(id) else {
                return Ok(());
            };
            match socket::send(&flow.socket, bytes) {
                Ok(_) => {
                    flow.received(bytes);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Dropped::Busy);
                }
                // What is told now is what became of an earlier datagram; this one was not sent.
                Err(error) => match endpoints_fault(&error) {
                    Some(failure) => self.relay.blame(flow, failure),
                    None => {
                        tracing::debug!(client = %flow.client, "cannot send a datagram: {error}");
                        return Err(Dropped::Os);
                    }
                },
            }
        }
        Err(Dropped::Unreachable)
    }

    /// Looks once in each world whether the flow's endpoint still serves.
    fn why_move(&mut self, id: FlowId) -> Option<Move> {
        let flow = self.flows.get_mut(id)?;
        if flow.seen == self.world.generation {
            return None;
        }
        flow.seen = self.world.generation;
        if !is_there(self.world, &flow.selected) {
            return Some(Move::Gone);
        }
        let is_down = self.world.verdict(flow.selected.endpoint) == Verdict::Down;
        (is_down && self.rule.how.on_down == OnDown::Close).then_some(Move::Down)
    }

    /// To another endpoint, if there is a better one; else the flow stays where it is.
    fn relocate(&mut self, id: FlowId, why: Move, refused: &[Tried]) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let (place, key, old) = (flow.place, flow.key, flow.selected.endpoint);
        let Ok(selected) = self.select(&place, key, refused) else {
            return;
        };
        // One endpoint that is down is as good as another.
        let is_better = why != Move::Down || !selected.ignored_health;
        if !is_better || (selected.endpoint == old && why != Move::Gone) {
            return;
        }
        let Ok(socket) = self.connect(&selected) else {
            return;
        };
        let load = self.relay.worker.shared.loads.begin(selected.endpoint);
        if let Some(flow) = self.flows.get_mut(id) {
            flow.selected = selected;
            flow.socket = Rc::new(socket);
            flow.load = load;
            flow.tally.moves += 1;
            self.rule.metrics.moved(why);
        }
        self.begin_answers(id);
    }
}

fn end(mut flow: Flow, why: End) {
    flow.end = why;
}

fn tried(selected: &Selected) -> Tried {
    Tried {
        region: selected.region,
        endpoint: selected.endpoint,
        timed_out: false,
    }
}

/// The endpoint exists and still has the address that the flow sends to.
fn is_there(world: &Snapshot, selected: &Selected) -> bool {
    let endpoint = world.topology.endpoint(selected.endpoint);
    endpoint.is_some_and(|endpoint| has_address(world, endpoint, selected.address))
}

fn has_address(world: &Snapshot, endpoint: &Endpoint, wanted: SocketAddr) -> bool {
    let known = world
        .endpoint(endpoint.id)
        .map_or(&[][..], |health| &health.addresses);
    if !known.is_empty() {
        return known.contains(&wanted);
    }
    match endpoint.target {
        Target::Address(address) => address == wanted,
        // Not resolved at the moment.
        Target::Host { .. } => true,
    }
}

/// What an error of a flow's socket says about its endpoint: ICMP told us (RFC 1122 §4.1.3.3).
fn endpoints_fault(error: &io::Error) -> Option<Failure> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(Failure::Refused),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Some(Failure::Unreachable)
        }
        _ => None,
    }
}
