//! The wiring, top to bottom: control first, then listeners, and back in the other order.
//!
//! Decides nothing about traffic. [`run`](crate::run) gives it its life; tests may drive it too.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use sealane_control::admin::{self, Canary, Explain, ExplainError, Readiness, Zone};
use sealane_control::config::AdminConfig;
use sealane_control::state::Remembered;
use sealane_control::{Control, ControlHandle};
use sealane_dns::Dns;
use sealane_dns::config::Protocol;
use sealane_proxy::Proxy;
use sealane_proxy::handover::{LeftFlow, SocketKind, Wanted};
use sealane_steering::Decision;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::certificates::Certificates;
use crate::config::{RenewedTls, Rules};
use crate::expiry::Expiry;
use crate::handover::{Estate, Inheritance, Kind, Label, Room};
use crate::successor::Left;
use crate::telemetry;

#[derive(Debug)]
pub struct App {
    proxy: Arc<Proxy>,
    dns: Arc<Dns>,
    control: ControlThread,
    certificates: Certificates,
    admin: Admin,
    phase: watch::Sender<Phase>,
    explainer: Arc<Explainer>,
    /// What control was told last.
    rules_of_control: sealane_control::config::Config,
}

/// Why the program cannot start, or a reload cannot be applied: nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("control cannot start")]
    Control(#[source] sealane_control::StartError),
    #[error("the proxy cannot listen")]
    Proxy(#[source] sealane_proxy::BindError),
    #[error("the name server cannot listen")]
    Dns(#[source] sealane_dns::BindError),
    #[error("the admin API cannot listen")]
    Admin(#[source] admin::BindError),
    #[error("a thread cannot be started")]
    Thread(#[source] io::Error),
    #[error("control has ended; restart the program")]
    ControlGone,
}

/// Whose place the program takes.
#[derive(Debug)]
pub enum Place {
    /// Nobody's: with the sockets that a service manager opened, if any.
    Empty(Inheritance),
    /// That of a process which still runs, and has the say until [`App::take_over`].
    Taken(Left),
}

impl App {
    /// Binds everything and begins to probe; nothing is served yet. `workers` threads serve HTTP,
    /// and as many answer DNS. Sockets that were left and that no rule names are closed. `expiry`
    /// follows the certificates that are ordered.
    ///
    /// # Errors
    /// An address is in use or not ours, or a thread cannot be started.
    pub fn start(
        rules: Rules,
        workers: NonZeroUsize,
        place: Place,
        expiry: Expiry,
    ) -> Result<Self, StartError> {
        // First: the rooms take their handles while they are built.
        let registry = telemetry::install_metrics();
        let Rules {
            proxy,
            dns,
            control,
            acme,
            ..
        } = rules;
        let admin_config = control.admin.clone();
        let rules_of_control = control.clone();
        let (mut left, control) = match place {
            Place::Empty(sockets) => (sockets, sealane_control::build(control)),
            Place::Taken(Left { sockets, map }) => {
                (sockets, sealane_control::build_in_place(control, map))
            }
        };
        let control = control.map_err(StartError::Control)?;
        let (handle, world) = (control.handle.clone(), control.world.clone());

        let deps = sealane_proxy::Deps {
            world: world.clone(),
            observations: control.observations.clone(),
        };
        let options = sealane_proxy::Options { workers };
        let inherit = &mut |wanted: Wanted<'_>| {
            let kind = match wanted.kind {
                SocketKind::Stream => Kind::Stream,
                SocketKind::Datagram => Kind::Datagram,
            };
            left.take(Room::Proxy, kind, wanted.listener, wanted.address)
        };
        let proxy = Proxy::bind_inheriting(proxy, deps, options, inherit);
        let proxy = proxy.map_err(StartError::Proxy)?;
        let options = sealane_dns::Options { workers };
        let deps = sealane_dns::Deps {
            world: world.clone(),
        };
        let inherit = &mut |protocol, asked| sealane_dns::Sockets {
            udp: match protocol {
                None | Some(Protocol::Quic) => left.take_udp(Room::Dns, dns_name(protocol), asked),
                Some(_) => Vec::new(),
            },
            tcp: match protocol {
                Some(Protocol::Quic) => Vec::new(),
                _ => left.take_tcp(Room::Dns, dns_name(protocol), asked),
            },
        };
        adopt_places(&proxy, &dns);
        let dns = Dns::bind_inheriting(dns, deps, options, inherit).map_err(StartError::Dns)?;
        let inherit = &mut |asked| left.take_tcp(Room::Admin, ADMIN, asked).pop();
        let bound = admin::bind_inheriting(&admin_config, inherit).map_err(StartError::Admin)?;
        for (name, address) in left.close_rest() {
            tracing::warn!(name, %address, "a socket that was left to this process is closed: the configuration does not name it");
        }

        let control = ControlThread::spawn(control).map_err(StartError::Thread)?;
        let (phase, shown) = watch::channel(Phase::FirstRound);
        let explainer = Arc::new(Explainer::default());
        let deps = admin::Deps {
            handle,
            world,
            explain: explainer.clone(),
            ready: Arc::new(move || Readiness::from(*shown.borrow())),
            metrics: Arc::new(move || telemetry::render(&registry)),
        };
        let admin = Admin::new(bound, admin_config, deps).map_err(StartError::Thread)?;
        let (proxy, dns) = (Arc::new(proxy), Arc::new(dns));
        let certificates =
            Certificates::spawn(proxy.clone(), expiry).map_err(StartError::Thread)?;
        certificates.want_at_once(acme);
        Ok(Self {
            proxy,
            dns,
            control,
            certificates,
            admin,
            phase,
            explainer,
            rules_of_control,
        })
    }

    /// Serves the admin API.
    pub fn open_admin(&mut self) {
        self.admin.open();
    }

    /// Resolves when the first round of probes is over, or its limit passed (A6).
    pub async fn first_round(&self) {
        self.control.handle.first_round().await;
    }

    /// From now on this process has the say, and what operators said to the earlier one holds.
    ///
    /// # Errors
    /// Control has ended.
    pub async fn take_over(&self, map: Option<Remembered>) -> Result<(), StartError> {
        let overrides = map.map(|map| map.overrides);
        let resumed = self.control.handle.resume(overrides).await;
        resumed.map_err(|_| StartError::ControlGone)
    }

    /// Goes on with an earlier process's UDP flows; to be called before [`App::open`].
    pub fn adopt_flows(&self, of: &Label, flows: Vec<LeftFlow>) {
        self.proxy.adopt_flows(&of.name, of.asked, flows);
    }

    /// Opens every listener; to be called after the first round of probes (A6).
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn open(&self) -> Result<(), StartError> {
        self.proxy.start().map_err(StartError::Thread)?;
        self.certificates.begin();
        self.dns.start().map_err(StartError::Thread)?;
        self.explainer.open(self.proxy.clone(), self.dns.clone());
        self.phase.send_replace(Phase::Serving);
        Ok(())
    }

    /// Where clients are served: (what, address), listeners first.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let proxy = self
            .proxy
            .addresses()
            .into_iter()
            .map(|(name, at)| (name.to_string(), at));
        let dns = self
            .dns
            .addresses()
            .into_iter()
            .map(|at| (DNS.to_owned(), at));
        let encrypted = Protocol::ALL.into_iter().flat_map(|protocol| {
            let addresses = self.dns.encrypted_addresses(protocol).into_iter();
            addresses.map(move |at| (dns_name(Some(protocol)).to_owned(), at))
        });
        let dns = dns.chain(encrypted);
        let admin = self
            .admin
            .addresses
            .iter()
            .map(|at| ("admin".to_owned(), *at));
        proxy.chain(dns).chain(admin).collect()
    }

    /// Puts new rules in place of the old ones, or changes nothing. World first, rules second,
    /// and what is gone leaves the world last (A9).
    ///
    /// # Errors
    /// A new address cannot be bound, or control has ended; the old rules go on serving.
    pub async fn replace(&mut self, rules: Rules) -> Result<(), StartError> {
        let Rules {
            proxy,
            dns,
            control,
            acme,
            ..
        } = rules;
        let proxy = self.proxy.prepare(proxy).map_err(StartError::Proxy)?;
        adopt_places(&self.proxy, &dns);
        // A large zone that is signed for the first time takes seconds: not on this thread.
        let server = self.dns.clone();
        let prepared = tokio::task::spawn_blocking(move || server.prepare(dns)).await;
        let dns = match prepared {
            Ok(prepared) => prepared.map_err(StartError::Dns)?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let both = control.united_with(&self.rules_of_control);

        let handle = &self.control.handle;
        handle
            .replace(both)
            .await
            .map_err(|_| StartError::ControlGone)?;
        self.certificates.want(acme).await;
        self.proxy.replace_rules(proxy);
        self.dns.replace_rules(dns);
        self.admin.replace(&control.admin);
        handle
            .replace(control.clone())
            .await
            .map_err(|_| StartError::ControlGone)?;
        self.rules_of_control = control;
        Ok(())
    }

    /// Serves the next handshakes with these certificates; nothing else changes.
    pub fn renew_tls(&self, renewed: &RenewedTls) {
        let RenewedTls { listeners, dns } = renewed;
        self.proxy.renew_tls(listeners);
        for (_, tls) in dns {
            self.proxy.issued().adopt(tls.places());
        }
        self.dns.renew_tls(dns);
    }

    #[must_use]
    pub fn control(&self) -> ControlHandle {
        self.control.handle.clone()
    }

    #[must_use]
    pub fn proxy(&self) -> Arc<Proxy> {
        Arc::clone(&self.proxy)
    }

    /// Says whether the parts of the program are alive.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        Pulse {
            proxy: self.proxy.clone(),
            dns: self.dns.clone(),
            control: self.control(),
        }
    }

    /// Duplicates of every socket, for a successor.
    ///
    /// # Errors
    /// The process has too many descriptors open.
    pub fn sockets(&self) -> io::Result<Estate> {
        let mut estate = Estate::default();
        for held in self.proxy.sockets()? {
            let kind = match held.kind {
                SocketKind::Stream => Kind::Stream,
                SocketKind::Datagram => Kind::Datagram,
            };
            let label = label(Room::Proxy, kind, held.address, &held.listener);
            estate.add(&label, held.sockets);
        }
        for ((protocol, asked), sockets) in self.dns.sockets()? {
            let name = dns_name(protocol);
            let udp = sockets.udp.into_iter().map(OwnedFd::from);
            estate.add(&label(Room::Dns, Kind::Datagram, asked, name), udp);
            let tcp = sockets.tcp.into_iter().map(OwnedFd::from);
            estate.add(&label(Room::Dns, Kind::Stream, asked, name), tcp);
        }
        for (asked, socket) in self.admin.bind.iter().zip(&self.admin.kept) {
            let socket = OwnedFd::from(socket.try_clone()?);
            estate.add(&label(Room::Admin, Kind::Stream, *asked, ADMIN), [socket]);
        }
        Ok(estate)
    }

    /// Leaves everything new to a successor that serves on the same sockets, lets accepted work
    /// finish until `deadline`, then stops everything. Returns how many connections had to be cut.
    pub async fn step_aside(mut self, deadline: Duration) -> usize {
        let (admin, proxy) = (self.admin.take(), self.proxy.clone());
        let stepping_aside = async move { proxy.step_aside(deadline).await };
        let (cut, ()) = tokio::join!(self.end(stepping_aside, deadline), admin.stop());
        cut
    }

    /// Refuses new work, lets accepted work finish until `deadline`, then stops everything.
    /// Returns how many connections had to be cut.
    pub async fn stop(self, deadline: Duration) -> usize {
        let proxy = self.proxy.clone();
        let draining = async move { proxy.drain(deadline).await };
        self.end(draining, deadline).await
    }

    async fn end(self, ending: impl Future<Output = usize>, deadline: Duration) -> usize {
        self.phase.send_replace(Phase::Draining);
        self.certificates.stop().await;
        let dns = self.dns.clone();
        let dns_stopped = tokio::task::spawn_blocking(move || dns.stop(deadline));
        let cut = ending.await;
        // An error would be a panic of the name server's end, which has been logged as one.
        let _ = dns_stopped.await;
        self.admin.stop().await;
        self.control.stop().await;
        cut
    }
}

/// The names of what has none of its own.
const DNS: &str = "dns";
const ADMIN: &str = "admin";

const fn dns_name(protocol: Option<Protocol>) -> &'static str {
    match protocol {
        None => DNS,
        Some(Protocol::Tls) => "dns-tls",
        Some(Protocol::Https) => "dns-https",
        Some(Protocol::Quic) => "dns-quic",
    }
}

/// Certificates that are ordered for the name server come where those for listeners do.
fn adopt_places(proxy: &Proxy, dns: &sealane_dns::Config) {
    for encrypted in &dns.encrypted {
        proxy.issued().adopt(encrypted.tls().places());
    }
}

fn label(room: Room, kind: Kind, asked: SocketAddr, name: &str) -> Label {
    Label {
        room,
        kind,
        asked,
        name: name.to_owned(),
    }
}

/// Control on a thread of its own: neither traffic nor the admin API can delay a verdict.
#[derive(Debug)]
struct ControlThread {
    handle: ControlHandle,
    shutdown: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl ControlThread {
    fn spawn(control: Control) -> io::Result<Self> {
        let handle = control.handle.clone();
        let (shutdown, stop) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let run = move || {
            runtime.block_on(control.run(async {
                // An error means that the sender is gone: stop as well.
                let _ = stop.await;
            }));
            // A look-up of a host name may hang in the system for long; nothing waits for it.
            runtime.shutdown_background();
            // An error means that nobody waits.
            let _ = end.send(());
        };
        std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(run)?;
        Ok(Self {
            handle,
            shutdown,
            ended,
        })
    }

    async fn stop(self) {
        // An error means that control has ended already.
        let _ = self.shutdown.send(());
        let _ = self.ended.await;
    }
}

#[derive(Debug)]
struct Admin {
    addresses: Vec<SocketAddr>,
    bind: Vec<SocketAddr>,
    /// Duplicates of its sockets, for a successor.
    kept: Vec<TcpListener>,
    config: Arc<ArcSwap<AdminConfig>>,
    /// Until it opens.
    closed: Option<(admin::Bound, admin::Deps)>,
    shutdown: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl Admin {
    fn new(bound: admin::Bound, config: AdminConfig, deps: admin::Deps) -> io::Result<Self> {
        Ok(Self {
            addresses: bound.addresses(),
            bind: config.bind.clone(),
            kept: bound.sockets()?,
            config: Arc::new(ArcSwap::from_pointee(config)),
            closed: Some((bound, deps)),
            shutdown: watch::Sender::new(false),
            task: None,
        })
    }

    fn open(&mut self) {
        let Some((bound, deps)) = self.closed.take() else {
            return;
        };
        let mut stop = self.shutdown.subscribe();
        let stopped = async move {
            // An error means that the sender is gone: stop as well.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let serve = admin::serve(bound, self.config.clone(), deps, stopped);
        #[expect(
            clippy::disallowed_methods,
            reason = "owned by `Admin`, which ends and joins it"
        )]
        let task = tokio::spawn(serve);
        self.task = Some(task);
    }

    fn replace(&self, config: &AdminConfig) {
        if config.bind != self.bind {
            tracing::warn!("admin.bind changed: it takes effect at the next start or upgrade");
        }
        self.config.store(Arc::new(config.clone()));
    }

    /// What is left serves nothing.
    fn take(&mut self) -> Self {
        Self {
            addresses: std::mem::take(&mut self.addresses),
            bind: std::mem::take(&mut self.bind),
            kept: std::mem::take(&mut self.kept),
            config: self.config.clone(),
            closed: self.closed.take(),
            shutdown: std::mem::take(&mut self.shutdown),
            task: self.task.take(),
        }
    }

    async fn stop(self) {
        drop(self.kept);
        self.shutdown.send_replace(true);
        if let Some(task) = self.task {
            // An error would be a panic, which has been logged as one.
            let _ = task.await;
        }
    }
}

/// Asks the parts of the program whether they are alive.
#[derive(Clone, Debug)]
pub struct Pulse {
    proxy: Arc<Proxy>,
    dns: Arc<Dns>,
    control: ControlHandle,
}

impl Pulse {
    /// Resolves when every part has answered.
    ///
    /// # Errors
    /// The name of a part that has ended.
    pub async fn beats(&self) -> Result<(), &'static str> {
        self.control.answers().await.map_err(|_| "control")?;
        if !self.proxy.answers().await {
            return Err("a worker of the proxy");
        }
        if !self.dns.is_alive() {
            return Err("a thread of the name server");
        }
        Ok(())
    }
}

/// How far the process is in its life, as `/readyz` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    FirstRound,
    Serving,
    Draining,
}

impl From<Phase> for Readiness {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::FirstRound => Self::NotReady("waiting for the first round of probes".to_owned()),
            Phase::Serving => Self::Ready,
            Phase::Draining => Self::NotReady("draining".to_owned()),
        }
    }
}

/// What the admin API asks proxy and DNS; empty until they serve.
#[derive(Debug, Default)]
struct Explainer(OnceLock<(Arc<Proxy>, Arc<Dns>)>);

impl Explainer {
    fn open(&self, proxy: Arc<Proxy>, dns: Arc<Dns>) {
        // Opened once; a second call would bring the same two.
        let _ = self.0.set((proxy, dns));
    }

    fn rooms(&self) -> Result<&(Arc<Proxy>, Arc<Dns>), ExplainError> {
        self.0
            .get()
            .ok_or_else(|| ExplainError::not_ready("no listener is open yet"))
    }
}

impl Explain for Explainer {
    fn dns(&self, name: &str, client: IpAddr) -> Result<Decision, ExplainError> {
        let (_, dns) = self.rooms()?;
        dns.explain(name, client)
            .map_err(|error| ExplainError::not_found(error.to_string()))
    }

    fn url(&self, url: &str, client: IpAddr) -> Result<Decision, ExplainError> {
        let (proxy, _) = self.rooms()?;
        proxy
            .explain(url, client)
            .map_err(|error| ExplainError::not_found(error.to_string()))
    }

    fn canaries(&self) -> Vec<Canary> {
        let Ok((proxy, _)) = self.rooms() else {
            return Vec::new();
        };
        let canaries = proxy.canaries().into_iter();
        let shown = canaries.map(|canary| Canary {
            route: canary.route.to_string(),
            pool: canary.pool.to_string(),
            share: canary.share.get(),
            aborted: canary.aborted,
        });
        shown.collect()
    }

    fn zones(&self) -> Vec<Zone> {
        let Ok((_, dns)) = self.rooms() else {
            return Vec::new();
        };
        let zones = dns.zone_statuses().into_iter();
        let shown = zones.map(|zone| Zone {
            name: zone.zone,
            serial: zone.serial,
            is_secondary: zone.is_secondary,
            from: zone.from.map(|from| from.to_string()),
            heard_at: zone.heard_at,
            expires_at: zone.expires_at,
            failures: zone.failures,
            error: zone.error,
            told: zone.told,
        });
        shown.collect()
    }

    fn reset_canary(&self, route: &str, pool: &str) -> Result<bool, ExplainError> {
        let (proxy, _) = self.rooms()?;
        proxy
            .reset_canary(route, pool)
            .map_err(|error| ExplainError::not_found(error.to_string()))
    }
}
