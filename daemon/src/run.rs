//! The life of the process: start, open, serve, reload, drain. Signals come in here.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::App;
use crate::reload::{self, ReloadError, Source};
use crate::telemetry;
use crate::watch::Watch;

#[derive(Debug)]
pub struct Options {
    pub config: PathBuf,
    /// Serving threads; `None`: what the file says, else one for each core.
    pub workers: Option<NonZeroUsize>,
    /// How long accepted work may take to finish; `None`: what the file says.
    pub drain: Option<Duration>,
    pub admin_open: bool,
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
pub async fn run(options: &Options, opened: impl FnOnce(&App)) -> anyhow::Result<Ended> {
    let mut signals = Signals::listen()?;
    telemetry::install_metrics();
    let source = Source::new(&options.config, options.admin_open);
    let loaded = source.read()?;
    reload::note(true);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut watch = Watch::new(loaded.files);
    let drain_limit = options.drain.unwrap_or(loaded.rules.node.drain_limit);
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let workers = options
        .workers
        .or(loaded.rules.node.workers)
        .unwrap_or(cores);
    let connections = loaded.rules.proxy.limits.connections;
    raise_descriptor_limit(connections);
    let mut app = App::start(loaded.rules, workers).await?;

    tokio::select! {
        result = app.open() => result?,
        () = signals.stop() => return Ok(drain(app, drain_limit, &mut signals).await),
    }
    let mut open = announce(&app, &BTreeSet::new());
    opened(&app);
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => break,
                Asked::Reload => tracing::info!("SIGHUP: reading the configuration again"),
            },
            () = watch.changed() => tracing::info!("the configuration changed on disk"),
        }
        match reload::reload(&mut app, &source).await {
            Ok(files) => {
                watch.follow(files);
                open = announce(&app, &open);
                tracing::info!("new rules serve");
            }
            Err(error) => complain(error),
        }
    }
    Ok(drain(app, drain_limit, &mut signals).await)
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

/// Logs what was opened and closed since `before`; returns what is open now.
fn announce(app: &App, before: &BTreeSet<(String, SocketAddr)>) -> BTreeSet<(String, SocketAddr)> {
    let now: BTreeSet<_> = app.addresses().into_iter().collect();
    for (what, address) in now.difference(before) {
        tracing::info!(%address, "{what} is open");
    }
    for (what, address) in before.difference(&now) {
        tracing::info!(%address, "{what} is closed to new connections");
    }
    now
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

async fn drain(app: App, deadline: Duration, signals: &mut Signals) -> Ended {
    tracing::info!(
        ?deadline,
        "draining: new connections are refused, accepted requests finish"
    );
    tokio::select! {
        cut = app.stop(deadline) => if cut == 0 { Ended::Clean } else { Ended::Cut(cut) },
        () = signals.stop() => Ended::Hurried,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Stop,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("signals cannot be received");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// A wish to reload has no meaning where this is called: nothing is open yet, or no more.
    async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}
