//! The name server as a whole: binds addresses, runs their threads, takes new rules, stops.
//!
//! Answers nothing itself; see [`crate::engine`]. Its methods never wait for a question.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use sealane_model::SnapshotReader;
use sealane_steering::Decision;
use sealane_tls::ServerTls;
use tracing::{debug, error, info, warn};

use crate::config::{Config, Encrypted, Protocol};
use crate::cookie::Secret;
use crate::engine::{Rules, Transport};
use crate::explain::{ExplainError, explain};
use crate::metrics::{count_thread_failure, set_names};
use crate::serve::bind::{BindError, Bound, Inherit, Sockets, bind, bind_encrypted};
use crate::serve::clock::{calendar_seconds, now};
use crate::serve::resolver::Lookups;
use crate::serve::transfer::{keeper, store};
use crate::serve::{Shared, Stop, door, quic, signer, udp};
use crate::tap::writer::Writers;
use crate::transfer::book::{Book, Status, compile};

/// What the name server is given to work with.
#[derive(Clone, Debug)]
pub struct Deps {
    pub world: SnapshotReader,
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// UDP threads for each address; one for each core that DNS may use.
    pub workers: NonZeroUsize,
}

#[derive(Debug)]
pub struct Dns {
    shared: Arc<Shared>,
    /// For cookies, where the operator names no secret.
    own: Option<Secret>,
    workers: NonZeroUsize,
    /// Write the query log and dnstap.
    writers: Writers,
    /// Keeps what aliases lead to known.
    lookups: Lookups,
    /// Which addresses are served, and by what. A lock because rules are replaced and the server is
    /// stopped through `&self`; held for moments, by the few who run the program, and by no thread
    /// that answers.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    services: Vec<Service>,
    /// Threads of removed addresses that are about to end.
    ending: Vec<JoinHandle<()>>,
    /// Stops the thread that signs when it is dropped; there is one once a zone was signed.
    signer: Option<Sender<()>>,
    /// Stops the thread that fetches zones and tells of them; there is one once a zone was transferred.
    keeper: Option<Arc<Stop>>,
}

#[derive(Debug)]
enum Stage {
    /// Sockets are open, nobody reads them.
    Bound,
    /// Each thread holds a sender; when all are gone, the receiver knows.
    Running {
        alive: Sender<Infallible>,
        all_ended: Receiver<Infallible>,
    },
    Stopped,
}

/// An address, and what is spoken there; `None`: DNS in the clear, over UDP and TCP.
type Wanted = (Option<Protocol>, SocketAddr);

/// One address.
#[derive(Debug)]
struct Service {
    requested: Wanted,
    address: SocketAddr,
    /// Until threads take them.
    sockets: Option<Sockets>,
    /// The same ones for a successor.
    kept: Sockets,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

/// New rules with the sockets that they need, ready to take effect. Dropped, it changes nothing.
#[derive(Debug)]
pub struct Prepared {
    rules: Rules,
    encrypted: Vec<Encrypted>,
    wanted: Vec<Wanted>,
    new: Vec<Service>,
}

impl Dns {
    /// Binds every address: UDP and TCP, or one of them where questions come in encrypted. Answers nothing yet: questions wait in the kernel.
    ///
    /// # Errors
    /// [`BindError`] for the first address that cannot be had, because another program has it, for
    /// instance. What was bound until then is let go of.
    pub fn bind(config: Config, deps: Deps, options: Options) -> Result<Self, BindError> {
        Self::bind_inheriting(config, deps, options, &mut nothing)
    }

    /// The same, with the sockets of an earlier process where `inherit` has them.
    ///
    /// # Errors
    /// [`BindError`] for the first address that cannot be had.
    pub fn bind_inheriting(
        config: Config,
        deps: Deps,
        options: Options,
        inherit: &mut Inherit<'_>,
    ) -> Result<Self, BindError> {
        let own = own_secret();
        let book = Arc::<Book>::default();
        store::load(&config, &book);
        let mut rules = compile(&config, &book, &deps.world.load(), now(), None);
        rules.fill_secret(&config.cookies, own.as_ref());
        let writers = Writers::default();
        rules.taps = writers.taps(&config);
        let wanted = wanted_by(&config);
        let new = bind_all(&wanted, &[], options.workers, inherit)?;
        let services: Result<_, _> = new.into_iter().map(Service::new).collect();
        set_names(rules.table.len());
        let rules = Arc::new(ArcSwap::from_pointee(rules));
        let lookups = Lookups::new();
        look_up(&lookups, &rules);
        Ok(Self {
            shared: Arc::new(Shared {
                world: deps.world,
                rules,
                seats: door::Seats::default(),
                encrypted: ArcSwap::from_pointee(config.encrypted),
                book,
            }),
            own,
            workers: options.workers,
            writers,
            lookups,
            state: Mutex::new(State {
                stage: Stage::Bound,
                services: services?,
                ending: Vec::new(),
                signer: None,
                keeper: None,
            }),
        })
    }

    /// The addresses served in the clear, with the ports that the system chose, in the order of the rules.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses_of(None)
    }

    /// The same for what comes in encrypted.
    #[must_use]
    pub fn encrypted_addresses(&self, protocol: Protocol) -> Vec<SocketAddr> {
        self.addresses_of(Some(protocol))
    }

    fn addresses_of(&self, protocol: Option<Protocol>) -> Vec<SocketAddr> {
        let state = self.state();
        let services = state.services.iter();
        let of_it = services.filter(|service| service.requested.0 == protocol);
        of_it.map(|service| service.address).collect()
    }

    /// Serves the next handshakes with these certificates; nothing else changes. A protocol that is not spoken is
    /// passed over.
    pub fn renew_tls(&self, renewed: &[(Protocol, ServerTls)]) {
        let renew = |old: &Encrypted| {
            let new = renewed.iter().find(|(of, _)| *of == old.protocol);
            new.map_or_else(|| old.clone(), |(_, tls)| old.renewed(tls))
        };
        let all = self.shared.encrypted.load();
        let all = all.iter().map(renew).collect();
        self.shared.encrypted.store(Arc::new(all));
    }

    /// Duplicates of every socket, each address as it was asked for, for a successor.
    ///
    /// # Errors
    /// The process has too many descriptors open.
    pub fn sockets(&self) -> io::Result<Vec<(Wanted, Sockets)>> {
        let state = self.state();
        let services = state.services.iter();
        services
            .map(|service| Ok((service.requested, service.kept.try_clone()?)))
            .collect()
    }

    /// Are all threads there that should be?
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let state = self.state();
        let mut threads = state.services.iter().flat_map(|service| &service.threads);
        !threads.any(JoinHandle::is_finished)
    }

    /// Starts the threads. A second call, and one after [`Dns::stop`], does nothing.
    ///
    /// # Errors
    /// The system gives no more threads; those that began are stopped.
    pub fn start(&self) -> io::Result<()> {
        let mut state = self.state();
        if !matches!(state.stage, Stage::Bound) {
            return Ok(());
        }
        // Look-ups began when addresses were bound: most have ended.
        let sources = self.shared.rules.load().sources();
        self.lookups.wait_for(&sources, FIRST_LOOKUPS_MAX);
        self.write_taps();
        let (alive, all_ended) = channel();
        for service in &mut state.services {
            let started = service.start(&self.shared, &alive);
            if let Err(error) = started {
                state.services.iter().for_each(|service| service.stop.ask());
                state.stage = Stage::Stopped;
                return Err(error);
            }
        }
        self.keep_signed(&mut state, &alive)?;
        self.keep_transferred(&mut state, &alive)?;
        state.stage = Stage::Running { alive, all_ended };
        Ok(())
    }

    /// Starts the thread that signs, where there is something to sign and no such thread yet.
    fn keep_signed(&self, state: &mut State, alive: &Sender<Infallible>) -> io::Result<()> {
        if state.signer.is_some() || self.shared.rules.load().config.is_none() {
            return Ok(());
        }
        let (sender, stop) = channel();
        let shared = Arc::clone(&self.shared);
        // It ends with its sender; nobody waits for it longer than for the others.
        spawn("dns-signer", alive, move || {
            let run = || signer::run(&shared, &stop);
            while catch_unwind(AssertUnwindSafe(run)).is_err() {
                count_thread_failure();
                error!("the thread that signs zones failed and begins anew; please report this");
                thread::sleep(PANIC_REST);
            }
        })?;
        state.signer = Some(sender);
        Ok(())
    }

    /// Starts the thread that transfers zones, where there are any and no such thread yet.
    fn keep_transferred(&self, state: &mut State, alive: &Sender<Infallible>) -> io::Result<()> {
        if state.keeper.is_some() || self.shared.rules.load().transfers.is_none() {
            return Ok(());
        }
        let stop = Arc::<Stop>::default();
        let (shared, stopped) = (Arc::clone(&self.shared), Arc::clone(&stop));
        spawn("dns-transfers", alive, move || {
            until_stopped(&stopped, || keeper::run(&shared, &stopped));
        })?;
        state.keeper = Some(stop);
        Ok(())
    }

    /// How zones that are transferred stand.
    #[must_use]
    pub fn zone_statuses(&self) -> Vec<Status> {
        self.shared.book.statuses()
    }

    /// Compiles new rules and binds what addresses they add. Changes nothing yet.
    ///
    /// # Errors
    /// [`BindError`] for an address that is new and cannot be had.
    pub fn prepare(&self, config: Config) -> Result<Prepared, BindError> {
        let wanted = wanted_by(&config);
        let served: Vec<(Wanted, SocketAddr)> = {
            let state = self.state();
            let services = state.services.iter();
            services.map(|s| (s.requested, s.address)).collect()
        };
        let missing = |wanted: &&Wanted| !served.iter().any(|(r, _)| r == *wanted);
        let missing: Vec<_> = wanted.iter().filter(missing).copied().collect();
        let ours: Vec<_> = served.iter().map(|(_, address)| *address).collect();
        let new = bind_all(&missing, &ours, self.workers, &mut nothing)?;
        let new: Result<_, _> = new.into_iter().map(Service::new).collect();
        store::load(&config, &self.shared.book);
        let before = self.shared.rules.load();
        let mut rules = self.shared.compile(&config, now(), Some(&before));
        rules.fill_secret(&config.cookies, self.own.as_ref());
        rules.taps = self.writers.taps(&config);
        self.look_up_first(&rules);
        Ok(Prepared {
            rules,
            encrypted: config.encrypted,
            new: new?,
            wanted,
        })
    }

    /// Has written what the rules that serve want written.
    fn write_taps(&self) {
        let rules = self.shared.rules.load();
        let taps = rules.taps.as_deref();
        if let Err(error) = self.writers.follow(taps, &self.shared) {
            error!(%error, "could not start a thread that writes questions down");
        }
    }

    /// Looks up what rules that do not serve yet lead to, so that they have answers from their beginning.
    fn look_up_first(&self, rules: &Rules) {
        let sources = rules.sources();
        if sources.is_empty() {
            return;
        }
        self.lookups.add(sources.clone(), &rules.resolvers);
        if let Err(error) = self.lookups.start(&self.shared.rules) {
            error!(%error, "could not start the thread that looks aliases up");
        }
        self.lookups.wait_for(&sources, FIRST_LOOKUPS_MAX);
    }

    /// Answers by new rules from now on: at once for addresses that stay, whose sockets are not
    /// touched. New addresses begin; removed ones answer what waits in their sockets and end.
    pub fn replace_rules(&self, prepared: Prepared) {
        let Prepared {
            rules,
            encrypted,
            wanted,
            new,
        } = prepared;
        set_names(rules.table.len());
        self.shared.rules.store(Arc::new(rules));
        look_up(&self.lookups, &self.shared.rules);
        self.write_taps();
        self.replace_encrypted(encrypted);

        let mut state = self.state();
        let state = &mut *state;
        let (mut kept, removed): (Vec<_>, Vec<_>) = std::mem::take(&mut state.services)
            .into_iter()
            .partition(|service| wanted.contains(&service.requested));
        state.ending.retain(|thread| !thread.is_finished());
        for service in removed {
            info!(address = %service.address, "DNS address removed");
            state.ending.extend(service.end());
        }
        for mut service in new {
            // Two `prepare`s at once may both have bound it; the first to come keeps it.
            if kept.iter().any(|kept| kept.requested == service.requested) {
                continue;
            }
            info!(address = %service.address, "DNS address added");
            if let Stage::Running { alive, .. } = &state.stage
                && let Err(error) = service.start(&self.shared, alive)
            {
                error!(address = %service.address, %error, "could not start DNS threads");
            }
            kept.push(service);
        }
        let order = |service: &Service| wanted.iter().position(|w| *w == service.requested);
        kept.sort_by_key(order);
        state.services = kept;
        if let Stage::Running { alive, .. } = &state.stage {
            let alive = alive.clone();
            if let Err(error) = self.keep_signed(state, &alive) {
                error!(%error, "could not start the thread that signs zones");
            }
            if let Err(error) = self.keep_transferred(state, &alive) {
                error!(%error, "could not start the thread that transfers zones");
            }
        }
    }

    /// Sessions that have tickets are resumed as before.
    fn replace_encrypted(&self, new: Vec<Encrypted>) {
        let before = self.shared.encrypted.load();
        let keep = |new: Encrypted| {
            let old = before.iter().find(|old| old.protocol == new.protocol);
            match old {
                Some(old) => new.keeping_tickets_of(old),
                None => new,
            }
        };
        let kept = new.into_iter().map(keep).collect();
        self.shared.encrypted.store(Arc::new(kept));
    }

    /// What a steered name would be answered with now, and why.
    ///
    /// # Errors
    /// [`ExplainError`] for what is no steered name of ours.
    pub fn explain(&self, name: &str, client: IpAddr) -> Result<Decision, ExplainError> {
        explain(
            &self.shared.rules.load(),
            &self.shared.world.load_full(),
            name,
            client,
            calendar_seconds(),
        )
    }

    /// Stops receiving, answers what has been received, and waits for the threads to end, at most
    /// until `deadline` has passed. UDP threads need up to 200 ms to notice.
    pub fn stop(&self, deadline: Duration) {
        let (stage, threads) = {
            let mut state = self.state();
            state.signer = None;
            if let Some(keeper) = state.keeper.take() {
                keeper.ask();
            }
            let mut threads = std::mem::take(&mut state.ending);
            for service in std::mem::take(&mut state.services) {
                threads.extend(service.end());
            }
            (std::mem::replace(&mut state.stage, Stage::Stopped), threads)
        };
        let Stage::Running { alive, all_ended } = stage else {
            return;
        };
        drop(alive);
        // Nothing is ever sent: it returns when the last thread has dropped its sender.
        let _ = all_ended.recv_timeout(deadline);
        self.writers.stop();
        let late = threads
            .iter()
            .filter(|thread| !thread.is_finished())
            .count();
        debug!(late, "DNS stopped");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked while holding it left at worst a service without threads.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Dns {
    /// Threads that nobody owns any more end by themselves.
    fn drop(&mut self) {
        let state = self.state();
        state.services.iter().for_each(|service| service.stop.ask());
        state.keeper.iter().for_each(|keeper| keeper.ask());
    }
}

impl Service {
    fn new(bound: Bound) -> Result<Self, BindError> {
        let Bound {
            protocol,
            requested,
            address,
            sockets,
        } = bound;
        let kept = sockets.try_clone().map_err(|source| BindError {
            address,
            protocol: protocol.map_or(Transport::Udp, Protocol::transport),
            source,
        })?;
        Ok(Self {
            requested: (protocol, requested),
            address,
            sockets: Some(sockets),
            kept,
            stop: Arc::default(),
            threads: Vec::new(),
        })
    }

    fn start(&mut self, shared: &Arc<Shared>, alive: &Sender<Infallible>) -> io::Result<()> {
        let Some(Sockets { udp, tcp }) = self.sockets.take() else {
            return Ok(());
        };
        let protocol = self.requested.0;
        for socket in udp {
            let (shared, stop) = (Arc::clone(shared), Arc::clone(&self.stop));
            if protocol == Some(Protocol::Quic) {
                let run = move || quic::run(socket, &shared, &stop);
                self.threads.push(spawn(thread_name(protocol), alive, run)?);
                continue;
            }
            let run = move || until_stopped(&stop, || udp::run(&socket, &shared, &stop));
            self.threads.push(spawn("dns-udp", alive, run)?);
        }
        for listener in tcp {
            let (shared, stop) = (Arc::clone(shared), Arc::clone(&self.stop));
            let run = move || door::run(listener, protocol, &shared, &stop);
            self.threads.push(spawn(thread_name(protocol), alive, run)?);
        }
        Ok(())
    }

    /// Its threads answer what waits and end. What came in after that would be lost, so duplicates
    /// of their sockets are closed first.
    fn end(self) -> Vec<JoinHandle<()>> {
        drop(self.kept);
        self.stop.ask();
        self.threads
    }
}

/// Has what these rules lead to kept known.
fn look_up(lookups: &Lookups, rules: &Arc<ArcSwap<Rules>>) {
    let by = rules.load();
    lookups.follow(by.sources(), &by.resolvers);
    if let Err(error) = lookups.start(rules) {
        error!(%error, "could not start the thread that looks aliases up");
    }
}

const fn thread_name(protocol: Option<Protocol>) -> &'static str {
    match protocol {
        None => "dns-tcp",
        Some(Protocol::Tls) => "dns-tls",
        Some(Protocol::Https) => "dns-https",
        Some(Protocol::Quic) => "dns-quic",
    }
}

fn spawn(
    name: &str,
    alive: &Sender<Infallible>,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let alive = alive.clone();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        run();
        drop(alive);
    })
}

/// How long new rules wait for the first look-ups of their aliases. Those that take longer are SERVFAIL until
/// they end.
const FIRST_LOOKUPS_MAX: Duration = Duration::from_secs(2);
/// Rest after a panic, so that one that repeats does not burn a core.
const PANIC_REST: Duration = Duration::from_millis(100);

/// Runs again after a panic: one question that brings a fault to light must not end the service.
fn until_stopped(stop: &Stop, mut run: impl FnMut()) {
    while catch_unwind(AssertUnwindSafe(&mut run)).is_err() {
        count_thread_failure();
        error!("a DNS thread failed and begins anew; please report this");
        if stop.is_asked() {
            warn!("questions that waited for the failed DNS thread are lost");
            return;
        }
        thread::sleep(PANIC_REST);
    }
}

/// Nobody can guess it, and it ends with the process: clients then learn new cookies. `None`: the system has no
/// randomness, and there are no cookies.
fn own_secret() -> Option<Secret> {
    let mut octets = [0; 16];
    let filled = aws_lc_rs::rand::fill(&mut octets);
    if filled.is_err() {
        error!("no random numbers: no DNS cookies");
    }
    filled.ok().map(|()| Secret::new(octets))
}

/// Each once.
fn wanted_by(config: &Config) -> Vec<Wanted> {
    let plain = config.bind.iter().map(|address| (None, *address));
    let encrypted = config.encrypted.iter().flat_map(|one| {
        let protocol = Some(one.protocol);
        one.bind.iter().map(move |address| (protocol, *address))
    });
    let mut unique: Vec<Wanted> = Vec::new();
    for wanted in plain.chain(encrypted) {
        if !unique.contains(&wanted) {
            unique.push(wanted);
        }
    }
    unique
}

/// Binds everything itself.
fn nothing(_: Option<Protocol>, _: SocketAddr) -> Sockets {
    Sockets::default()
}

/// `ours`: addresses that this process has already.
fn bind_all(
    wanted: &[Wanted],
    ours: &[SocketAddr],
    workers: NonZeroUsize,
    inherit: &mut Inherit<'_>,
) -> Result<Vec<Bound>, BindError> {
    let mut bound: Vec<Bound> = Vec::with_capacity(wanted.len());
    for (protocol, address) in wanted {
        let mut held = ours.iter().copied().chain(bound.iter().map(|b| b.address));
        let shared =
            held.any(|held| held.port() == address.port() && held.is_ipv4() == address.is_ipv4());
        let left = inherit(*protocol, *address);
        bound.push(match protocol {
            None => bind(*address, workers, shared, left)?,
            Some(protocol) => bind_encrypted(*protocol, *address, shared, left)?,
        });
    }
    Ok(bound)
}
