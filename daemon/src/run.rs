//! The life of the process: start, open, serve, reload, hand over, drain. Signals come in here.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::app::{App, Place};
use crate::dnssec::keeper;
use crate::expiry::LOOK_EVERY;
use crate::handover::Inheritance;
use crate::reload::{self, ReloadError, Source};
use crate::service::{Notify, Watchdog};
use crate::successor::{Predecessor, Turn};
use crate::telemetry;
use crate::upgrade::{self, Legacy, Program, Upgrade, UpgradeError};
use crate::watch::Watch;

#[derive(Debug)]
pub struct Options {
    pub config: PathBuf,
    /// Serving threads; `None`: what the file says, else one for each core.
    pub workers: Option<NonZeroUsize>,
    /// How long accepted work may take to finish; `None`: what the file says.
    pub drain: Option<Duration>,
    pub admin_open: bool,
    /// What SIGUSR2 starts in place of this process; `None`: nothing.
    pub program: Option<Program>,
    /// Sockets that a service manager opened.
    pub activated: Inheritance,
}

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything that was accepted finished.
    Clean,
    /// So many connections were cut at the deadline.
    Cut(usize),
    /// A second signal came while draining.
    Hurried,
}

/// Runs until a signal ends it. `opened` is called once, when every listener is open.
///
/// # Errors
/// The configuration has mistakes, or something cannot be bound or started.
pub async fn run(mut options: Options, opened: impl FnOnce(&App)) -> anyhow::Result<Ended> {
    let signals = Signals::listen()?;
    telemetry::install_metrics();
    let Some((predecessor, left)) = Predecessor::greet().await? else {
        let place = Place::Empty(std::mem::take(&mut options.activated));
        let mut life = begin(options, place, signals)?;
        life.app.open_admin();
        tokio::select! {
            () = life.app.first_round() => {}
            () = life.signals.stop() => return Ok(life.drain().await),
        }
        life.app.open()?;
        return life.serve(opened).await;
    };
    let pid = predecessor.pid;
    tracing::info!(pid, "upgrade: taking over from a running process");
    match begin_in_place(options, &predecessor, Place::Taken(left), signals).await {
        Ok(Some(life)) => {
            predecessor.serving().await;
            upgrade::note("succeeded");
            tracing::info!(
                pid = std::process::id(),
                predecessor = pid,
                "upgrade: this process serves now"
            );
            life.serve(opened).await
        }
        Ok(None) => Ok(Ended::Hurried),
        Err(error) => {
            predecessor.refuse(&error).await;
            Err(error)
        }
    }
}

/// Everything up to serving, in place of another process. `None`: a signal came first.
async fn begin_in_place(
    options: Options,
    predecessor: &Predecessor,
    place: Place,
    signals: Signals,
) -> anyhow::Result<Option<Life>> {
    let mut life = begin(options, place, signals)?;
    tokio::select! {
        () = life.app.first_round() => {}
        () = life.signals.stop() => return Ok(None),
    }
    let (map, flows) = match predecessor.turn().await? {
        Turn::Given(map, flows) => (map, flows),
        Turn::Orphaned => {
            tracing::warn!("upgrade: the earlier process is gone; this one serves in its place");
            (None, Vec::new())
        }
    };
    for (label, flows) in flows {
        life.app.adopt_flows(&label, flows);
    }
    life.app.take_over(map).await?;
    life.app.open()?;
    life.app.open_admin();
    Ok(Some(life))
}

/// Reads the file, binds everything and begins to probe.
fn begin(options: Options, place: Place, signals: Signals) -> anyhow::Result<Life> {
    let Options {
        workers,
        drain,
        program,
        ..
    } = options;
    let source = Source::new(&options.config, options.admin_open);
    let loaded = source.read()?;
    reload::note(true);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let node = &loaded.rules.node;
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let workers = workers.or(node.workers).unwrap_or(cores);
    let (drain_limit, upgrade_limit) = (drain.unwrap_or(node.drain_limit), node.upgrade_limit);
    raise_descriptor_limit(loaded.rules.proxy.limits.connections);
    Ok(Life {
        app: App::start(loaded.rules, workers, place, source.expiry().clone())?,
        source,
        watch: Watch::new(loaded.files),
        signals,
        drain_limit,
        upgrade_limit,
        upgrade: Upgrade::new(program),
        notify: Notify::from_env(),
        open: BTreeSet::new(),
    })
}

/// A program that has begun.
struct Life {
    app: App,
    source: Source,
    watch: Watch,
    signals: Signals,
    drain_limit: Duration,
    upgrade_limit: Duration,
    upgrade: Upgrade,
    notify: Notify,
    /// What is open, as it was last announced.
    open: BTreeSet<(String, SocketAddr)>,
}

impl Life {
    async fn serve(mut self, opened: impl FnOnce(&App)) -> anyhow::Result<Ended> {
        self.announce();
        opened(&self.app);
        self.notify.ready("serving");
        let mut watchdog = JoinSet::new();
        if let Some(asked) = Watchdog::from_env() {
            let pulse = self.app.pulse();
            let beats = move || {
                let pulse = pulse.clone();
                async move { pulse.beats().await }
            };
            watchdog.spawn(asked.keep(self.notify.clone(), beats));
        }
        let is_replaced = self.until_the_end().await;
        // While it drains, workers end: that is no fault.
        watchdog.shutdown().await;
        if is_replaced {
            return Ok(self.step_aside().await);
        }
        self.upgrade.cancel().await;
        Ok(self.drain().await)
    }

    /// Follows signals and changes of the file. `true`: a successor serves.
    async fn until_the_end(&mut self) -> bool {
        // A wish to reload during an upgrade: the new process reads the file anyway.
        let mut reload_later = false;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.reset(); // what was read at the start has been looked at
        let mut look_at_keys = tokio::time::interval(keeper::LOOK_EVERY);
        loop {
            let is_free = !self.upgrade.is_under_way();
            tokio::select! {
                asked = self.signals.next() => match asked {
                    Asked::Stop => return false,
                    Asked::Upgrade => self.begin_upgrade(),
                    Asked::Reload if is_free => {
                        tracing::info!("SIGHUP: reading the configuration again");
                        self.reload().await;
                    }
                    Asked::Reload => reload_later = true,
                },
                () = self.watch.changed(), if is_free => {
                    tracing::info!("the configuration changed on disk");
                    self.reload().await;
                }
                _ = look.tick() => self.source.expiry().look(),
                _ = look_at_keys.tick() => {
                    let keeper = self.source.keeper();
                    let looked = tokio::task::spawn_blocking(move || keeper.look(sealane_dns::now()));
                    // An error would be a panic, which has been logged as one.
                    let _ = looked.await;
                }
                ended = self.upgrade.ended(), if !is_free => match ended {
                    Ok(()) => return true,
                    Err(error) => {
                        complain_of_upgrade(error);
                        if std::mem::take(&mut reload_later) {
                            self.reload().await;
                        }
                    }
                },
            }
        }
    }

    async fn reload(&mut self) {
        self.notify.reloading();
        match reload::reload(&mut self.app, &self.source).await {
            Ok(files) => {
                self.watch.follow(files);
                self.announce();
                tracing::info!("new rules serve");
                self.notify.ready("serving by new rules");
            }
            Err(error) => {
                complain(error);
                let status = "the file on disk was refused; serving by the rules before it";
                self.notify.ready(status);
            }
        }
    }

    fn begin_upgrade(&mut self) {
        if let Err(refusal) = self.upgrade.may_begin() {
            upgrade::note("refused");
            return tracing::error!("SIGUSR2: no upgrade: {refusal}");
        }
        match self.app.sockets() {
            Ok(sockets) => {
                let control = self.app.control();
                self.upgrade.begin(Legacy {
                    node: control.overview().node.clone(),
                    sockets,
                    control,
                    proxy: self.app.proxy(),
                    notify: self.notify.clone(),
                    limit: self.upgrade_limit,
                });
                self.notify.status("a new program starts");
            }
            Err(error) => complain_of_upgrade(error.into()),
        }
    }

    /// Logs what was opened and closed since the last time.
    fn announce(&mut self) {
        let now: BTreeSet<_> = self.app.addresses().into_iter().collect();
        for (what, address) in now.difference(&self.open) {
            tracing::info!(%address, "{what} is open");
        }
        for (what, address) in self.open.difference(&now) {
            tracing::info!(%address, "{what} is closed to new connections");
        }
        self.open = now;
    }

    async fn drain(mut self) -> Ended {
        let deadline = self.drain_limit;
        self.notify.stopping("draining");
        tracing::info!(
            ?deadline,
            "draining: new connections are refused, accepted requests finish"
        );
        tokio::select! {
            cut = self.app.stop(deadline) => ended(cut),
            () = self.signals.stop() => Ended::Hurried,
        }
    }

    /// The service manager knows another main process by now: nothing is said to it.
    async fn step_aside(mut self) -> Ended {
        let deadline = self.drain_limit;
        tracing::info!(
            ?deadline,
            "upgrade: the new program serves; accepted requests finish here"
        );
        let mut finished = std::pin::pin!(self.app.step_aside(deadline));
        tokio::select! {
            cut = &mut finished => return ended(cut),
            // Meant for the whole service: this process is on its way out already.
            () = self.signals.stop() => tracing::info!("draining since the upgrade"),
        }
        tokio::select! {
            cut = &mut finished => ended(cut),
            () = self.signals.stop() => Ended::Hurried,
        }
    }
}

const fn ended(cut: usize) -> Ended {
    if cut == 0 {
        Ended::Clean
    } else {
        Ended::Cut(cut)
    }
}

/// Asks for as many descriptors as the system grants, and says so when `limits.connections` needs
/// more: each client's connection may have one to an endpoint. Beyond them accepting pauses.
fn raise_descriptor_limit(connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let granted = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    let wanted = 2 * connections as u64;
    if let Some(granted) = granted.filter(|granted| *granted < wanted) {
        tracing::warn!(
            granted,
            wanted,
            "limits.connections needs more file descriptors than the system grants (LimitNOFILE, ulimit -n)"
        );
    }
}

fn complain(error: ReloadError) {
    match error {
        ReloadError::Mistakes(report) => {
            tracing::error!("the old rules go on serving; the file was refused:\n{report}");
        }
        ReloadError::Start(error) => {
            let error = anyhow::Error::from(error);
            tracing::error!("the old rules go on serving: {error:#}");
        }
    }
}

fn complain_of_upgrade(error: UpgradeError) {
    upgrade::note("failed");
    let error = anyhow::Error::from(error);
    tracing::error!("upgrade failed, this process goes on serving: {error:#}");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Stop,
    Reload,
    Upgrade,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user2: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("signals cannot be received");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            user2: listen(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.user2.recv() => Asked::Upgrade,
        }
    }

    /// Other wishes have no meaning where this is called: nothing is open yet, or no more.
    async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}
