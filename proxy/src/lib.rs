//! The L4 and L7 data plane: accepts, routes, selects an endpoint, relays, settles.
//!
//! Built by the daemon from [`Config`] and [`Deps`]; knows neither DNS nor control. Read
//! `http::exchange` first (or `tcp` for what is not HTTP), then `upstream::select`.

pub mod challenge;
pub mod config;
pub mod handover;
pub mod metrics;
pub mod proxy_protocol;

mod alarm;
mod busy;
mod canaries;
mod clients;
mod clock;
mod door;
mod explain;
mod h1;
mod http;
mod io;
mod listener;
mod pace;
mod random;
mod round_trip;
mod shared;
mod signal;
mod slots;
mod tcp;
mod udp;
mod upstream;
mod worker;

use std::collections::HashSet;
use std::io::Result as IoResult;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use sealane_model::{ObservationSender, SnapshotReader};
use sealane_steering::Decision;
use sealane_tls::{Issued, Place, ServerTls};
use socket2::Socket;
use tokio::sync::{mpsc, oneshot, watch};

pub use canaries::{CanaryState, NoSuchCanary};
pub use config::Config;
pub use explain::ExplainError;
pub use listener::BindError;
pub use sealane_tls as tls;
pub use tcp::sni;

use challenge::Challenges;
use clients::Clients;
use config::{Listener, ListenerProtocol};
use handover::{Held, Inherit, LeftFlow, LeftFlows, SocketKind, Wanted};
use http::coalesce::table::Flights;
use http::route::RouteTable;
use listener::{ListenerRule, ListenerState, Opened, bind, listen};
use shared::{OpenConnections, Phase, Rules, Shared};
use upstream::LoadTable;
use upstream::pools::PoolGates;
use worker::Errand;

/// What the proxy is handed by the daemon.
#[derive(Clone, Debug)]
pub struct Deps {
    pub world: SnapshotReader,
    pub observations: ObservationSender,
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads, each with a socket of its own for each address.
    pub workers: NonZeroUsize,
}

/// The data plane: its listeners, its workers and the rules they follow.
pub struct Proxy {
    shared: Arc<Shared>,
    options: Options,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    listeners: Vec<Bound>,
    workers: Vec<worker::Handle>,
}

/// One address of one listener.
struct Bound {
    name: Arc<str>,
    /// As configured: what a reload compares.
    asked: SocketAddr,
    address: SocketAddr,
    kind: SocketKind,
    state: Arc<ListenerState>,
    /// Until they listen.
    sockets: Vec<Socket>,
    /// Duplicates of them for a successor, closed with the listener.
    kept: Vec<Socket>,
    /// What an earlier process left, until they listen.
    flows: Vec<LeftFlow>,
}

/// Rules that are ready to hold: all they need is bound.
pub struct Prepared {
    config: Config,
    new: Vec<Bound>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("addresses", &self.addresses())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let new: Vec<_> = self.new.iter().map(|bound| bound.address).collect();
        f.debug_struct("Prepared")
            .field("new", &new)
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// Binds every listener; accepts nothing before [`Proxy::start`].
    ///
    /// # Errors
    /// [`BindError`] for the first address that is in use or not ours.
    pub fn bind(config: Config, deps: Deps, options: Options) -> Result<Self, BindError> {
        Self::bind_inheriting(config, deps, options, &mut handover::nothing)
    }

    /// The same, with the sockets of an earlier process where `inherit` has them.
    ///
    /// # Errors
    /// [`BindError`] for the first address that is in use or not ours.
    pub fn bind_inheriting(
        config: Config,
        deps: Deps,
        options: Options,
        inherit: &mut Inherit<'_>,
    ) -> Result<Self, BindError> {
        let listeners = bind_new(&config.listeners, &[], options, inherit)?;
        let issued = Issued::default();
        issued.adopt(places(&config.listeners));
        let gates = PoolGates::default();
        gates.apply(&config.bounds.pools);
        let rules = Rules {
            routes: RouteTable::new(&config.routes),
            config,
        };
        let loads = Arc::<LoadTable>::default();
        loads.report_to(deps.observations.clone());
        let shared = Shared {
            rules: ArcSwap::from_pointee(rules),
            world: deps.world,
            observations: deps.observations,
            loads,
            flights: Flights::default(),
            gates,
            open: OpenConnections::default(),
            clients: Clients::default(),
            tls: Arc::default(),
            challenges: Challenges::default(),
            issued,
            phase: watch::Sender::new(Phase::Serving),
        };
        Ok(Self {
            shared: Arc::new(shared),
            options,
            state: Mutex::new(State {
                listeners,
                workers: Vec::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each address with its listener's name; port 0 has become the real one.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        let state = self.state();
        let bound = state.listeners.iter();
        bound
            .map(|bound| (Arc::clone(&bound.name), bound.address))
            .collect()
    }

    /// Duplicates of every listening socket, for a successor.
    ///
    /// # Errors
    /// The process has too many descriptors open.
    pub fn sockets(&self) -> IoResult<Vec<Held>> {
        let state = self.state();
        let held = state.listeners.iter().map(|bound| {
            Ok(Held {
                listener: Arc::clone(&bound.name),
                address: bound.asked,
                kind: bound.kind,
                sockets: handover::duplicates(&bound.kept)?,
            })
        });
        held.collect()
    }

    /// The UDP flows as they are now, for a successor: it goes on with them as soon as it serves. Of each
    /// worker the latest [`handover::FLOWS_LEFT_MAX`], and no more than there are descriptors for.
    pub async fn flows(&self) -> Vec<LeftFlows> {
        let mut leaving = Vec::new();
        for worker in self.errands() {
            let (reply, answer) = oneshot::channel();
            // Errors mean that the worker has ended: it has none.
            if worker.send(Errand::LeaveFlows(reply)).await.is_ok() {
                leaving.extend(answer.await.unwrap_or_default());
            }
        }
        let state = self.state();
        let found = leaving.into_iter().filter_map(|(of, flows)| {
            let mut listeners = state.listeners.iter();
            let bound = listeners.find(|bound| Arc::ptr_eq(&bound.state, &of))?;
            Some(LeftFlows {
                listener: Arc::clone(&bound.name),
                address: bound.asked,
                flows,
            })
        });
        found.filter(|left| !left.flows.is_empty()).collect()
    }

    /// Goes on with an earlier process's flows of the listener `name` at `asked`, whose sockets were inherited;
    /// to be called before [`Proxy::start`]. Flows of no such listener end.
    pub fn adopt_flows(&self, name: &str, asked: SocketAddr, flows: Vec<LeftFlow>) {
        let mut state = self.state();
        let mut listeners = state.listeners.iter_mut();
        let same = |bound: &&mut Bound| bound.serves(name, SocketKind::Datagram, asked);
        if let Some(bound) = listeners.find(same) {
            bound.flows.extend(flows);
        }
    }

    fn errands(&self) -> Vec<mpsc::Sender<Errand>> {
        let state = self.state();
        let workers = state.workers.iter();
        workers.map(|worker| worker.errands.clone()).collect()
    }

    /// Resolves when every worker has answered: `false` when one has ended.
    pub async fn answers(&self) -> bool {
        for worker in self.errands() {
            let (reply, answer) = oneshot::channel();
            if worker.send(Errand::Answer(reply)).await.is_err() || answer.await.is_err() {
                return false;
            }
        }
        true
    }

    /// Starts the workers, and listens. Does nothing when called again.
    ///
    /// # Errors
    /// When a thread cannot be started or a socket cannot listen.
    pub fn start(&self) -> IoResult<()> {
        let mut state = self.state();
        if !state.workers.is_empty() {
            return Ok(());
        }
        for index in 0..self.options.workers.get() {
            let worker = worker::start(index, &self.shared)?;
            state.workers.push(worker);
        }
        let State { listeners, workers } = &mut *state;
        for bound in listeners {
            self.open(bound, workers)?;
        }
        Ok(())
    }

    fn open(&self, bound: &mut Bound, workers: &[worker::Handle]) -> IoResult<()> {
        let mut flows = std::mem::take(&mut bound.flows);
        // Inherited sockets may be more than workers: none is left out.
        let sockets = bound.sockets.drain(..).enumerate();
        for ((place, socket), worker) in sockets.zip(workers.iter().cycle()) {
            let of_socket = flows.extract_if(.., |flow| flow.known.place == place);
            let of_socket = (place, of_socket.collect());
            let opened = Opened {
                socket: listen(socket, bound.kind, of_socket)?,
                state: Arc::clone(&bound.state),
                accepting: OpenConnections::begin_accepting(&self.shared),
            };
            if worker.errands.try_send(Errand::Listen(opened)).is_err() {
                tracing::error!(address = %bound.address, "a worker does not take listeners");
            }
        }
        Ok(())
    }

    /// Binds what these rules need and is not bound yet. Changes nothing else.
    ///
    /// # Errors
    /// [`BindError`] for the first new address that is in use or not ours.
    pub fn prepare(&self, config: Config) -> Result<Prepared, BindError> {
        let state = self.state();
        let inherit = &mut handover::nothing;
        let new = bind_new(&config.listeners, &state.listeners, self.options, inherit)?;
        drop(state);
        self.shared.issued.adopt(places(&config.listeners));
        Ok(Prepared { config, new })
    }

    /// What authorities are shown.
    #[must_use]
    pub fn challenges(&self) -> &Challenges {
        &self.shared.challenges
    }

    /// Certificates that come while the rules hold.
    #[must_use]
    pub fn issued(&self) -> &Issued {
        &self.shared.issued
    }

    /// From now on these rules hold for each next request, on old connections too. Removed
    /// listeners accept what the kernel has queued for them, then close; their connections go on.
    pub fn replace_rules(&self, prepared: Prepared) {
        let Prepared { config, new } = prepared;
        let mut state = self.state();
        let old = self.shared.rules.load_full();
        let wanted = config.listeners.clone();
        let routes = RouteTable::new_keeping(&old.routes, &config.routes);
        self.shared.gates.apply(&config.bounds.pools);
        self.shared.rules.store(Arc::new(Rules { config, routes }));

        let world = self.shared.world.load();
        let endpoints = world.topology.endpoints();
        let identities: HashSet<_> = endpoints.filter_map(|one| one.tls.as_ref()).collect();
        self.shared.tls.retain(|tls| identities.contains(tls));

        state
            .listeners
            .retain_mut(|bound| keep(bound, &wanted, self.options));
        let State { listeners, workers } = &mut *state;
        for mut bound in new {
            if !workers.is_empty()
                && let Err(error) = self.open(&mut bound, workers)
            {
                tracing::error!(address = %bound.address, "cannot listen: {error}");
            }
            listeners.push(bound);
        }
    }

    /// Serves the next handshakes of listeners of these names with this TLS, where they serve TLS at
    /// all. Everything else stays.
    pub fn renew_tls(&self, renewed: &[(Arc<str>, ServerTls)]) {
        for (_, tls) in renewed {
            self.shared.issued.adopt(tls.places());
        }
        for bound in &self.state().listeners {
            let new = renewed.iter().find(|(name, _)| *name == bound.name);
            let old = bound.state.rule.load();
            if let (Some((_, tls)), ListenerProtocol::Https(_)) = (new, &old.protocol) {
                let protocol = ListenerProtocol::Https(tls.clone());
                let protocol = protocol.keeping_tickets_of(&old.protocol);
                bound.state.rule.store(Arc::new(old.renewed(protocol)));
            }
        }
    }

    /// What a request for `url` by `client` would get now, and why. Changes nothing.
    ///
    /// # Errors
    /// When `url` is not absolute, or no route matches it.
    pub fn explain(&self, url: &str, client: IpAddr) -> Result<Decision, ExplainError> {
        explain::explain(&self.shared, url, client)
    }

    /// All canaries: what the rules give them, and which were aborted.
    #[must_use]
    pub fn canaries(&self) -> Vec<CanaryState> {
        canaries::states(&self.shared)
    }

    /// Gives an aborted canary its share again, and judges it anew. `false`: it was not aborted.
    ///
    /// # Errors
    /// The route sends nothing to such a pool.
    pub fn reset_canary(&self, route: &str, pool: &str) -> Result<bool, NoSuchCanary> {
        canaries::reset(&self.shared, route, pool)
    }

    /// Accepts no more, finishes what began, and ends the workers: at the latest after
    /// `deadline`. Returns how many connections were cut off then; 0 is a clean end.
    pub async fn drain(&self, deadline: Duration) -> usize {
        self.end(Phase::Draining, deadline).await
    }

    /// The same where a successor serves on the same sockets: idle connections are not closed at
    /// once, when their clients may just be asking, but after their next answer or a while. And of UDP
    /// nothing is received: two processes reading one socket would each get some of a client's
    /// datagrams.
    pub async fn step_aside(&self, deadline: Duration) -> usize {
        self.end(Phase::SteppingAside, deadline).await
    }

    async fn end(&self, phase: Phase, deadline: Duration) -> usize {
        // Sockets that never listened have nothing to finish. Listening ones close when their
        // workers have emptied them (unless a successor has them too), so duplicates go first.
        let State { listeners, workers } = std::mem::take(&mut *self.state());
        drop(listeners);
        self.shared.phase.send_replace(phase);
        let finished = self.shared.open.none_left();
        let cut_off = match tokio::time::timeout(deadline, finished).await {
            Ok(()) => 0,
            Err(_) => self.shared.open.count(),
        };
        self.shared.phase.send_replace(Phase::Ended);
        for worker in workers {
            // An error means that it ended already.
            let _ = worker.ended.await;
            if worker.thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        cut_off
    }
}

impl Drop for Proxy {
    /// Without a [`Proxy::drain`] before, whatever is open is cut off.
    fn drop(&mut self) {
        self.shared.phase.send_replace(Phase::Ended);
    }
}

/// Where listeners wait for certificates.
fn places(listeners: &[Listener]) -> impl Iterator<Item = &Arc<Place>> {
    let protocols = listeners.iter().map(|listener| &listener.protocol);
    protocols.flat_map(|protocol| match protocol {
        ListenerProtocol::Https(tls) => tls.places(),
        _ => &[],
    })
}

/// Binds each address that is in `wanted` and not in `have`.
fn bind_new(
    wanted: &[Listener],
    have: &[Bound],
    options: Options,
    inherit: &mut Inherit<'_>,
) -> Result<Vec<Bound>, BindError> {
    let mut new: Vec<Bound> = Vec::new();
    for listener in wanted {
        for asked in &listener.bind {
            if have.iter().any(|bound| is_same(bound, listener, *asked)) {
                continue;
            }
            let failed = |source| BindError {
                listener: Arc::clone(&listener.name),
                address: *asked,
                source,
            };
            let kind = SocketKind::of(&listener.protocol);
            let mut others = new.iter();
            if asked.port() != 0 && others.any(|bound| bound.is_socket(kind, *asked)) {
                return Err(failed(std::io::ErrorKind::AddrInUse.into()));
            }
            let wanted = Wanted {
                listener: &listener.name,
                address: *asked,
                kind,
            };
            let workers = options.workers.get();
            let (address, sockets) = match inherit(wanted) {
                none if none.is_empty() => bind(*asked, wanted.kind, workers),
                some => handover::adopt(some, wanted.kind, workers),
            }
            .map_err(failed)?;
            let kept: Result<_, _> = sockets.iter().map(Socket::try_clone).collect();
            let kept = kept.map_err(failed)?;
            let rule = ListenerRule::new(listener, &listener.protocol, workers);
            new.push(Bound {
                name: Arc::clone(&listener.name),
                asked: *asked,
                address,
                kind: wanted.kind,
                state: Arc::new(ListenerState {
                    rule: ArcSwap::from_pointee(rule),
                    closing: watch::Sender::new(false),
                }),
                sockets,
                kept,
                flows: Vec::new(),
            });
        }
    }
    Ok(new)
}

impl Bound {
    /// With port 0 an address is known by its listener's name only.
    fn serves(&self, name: &str, kind: SocketKind, asked: SocketAddr) -> bool {
        self.is_socket(kind, asked) && (asked.port() != 0 || *self.name == *name)
    }

    /// TCP and UDP have ports of their own.
    fn is_socket(&self, kind: SocketKind, asked: SocketAddr) -> bool {
        self.asked == asked && self.kind == kind
    }
}

fn is_same(bound: &Bound, listener: &Listener, asked: SocketAddr) -> bool {
    bound.serves(&listener.name, SocketKind::of(&listener.protocol), asked)
}

/// Gives a listener that stays its new rules, and closes one that does not.
fn keep(bound: &mut Bound, wanted: &[Listener], options: Options) -> bool {
    let stays = |listener: &&Listener| {
        let mut asked = listener.bind.iter();
        asked.any(|asked| is_same(bound, listener, *asked))
    };
    let Some(listener) = wanted.iter().find(stays) else {
        // First: what came in after its workers have emptied it would be reset.
        bound.kept.clear();
        bound.state.closing.send_replace(true);
        return false;
    };
    bound.name = Arc::clone(&listener.name);
    let protocol = listener
        .protocol
        .keeping_tickets_of(&bound.state.rule.load().protocol);
    let rule = ListenerRule::new(listener, &protocol, options.workers.get());
    bound.state.rule.store(Arc::new(rule));
    true
}
