//! The old process's side of an upgrade: starts the new program, hands everything over, steps aside.
//!
//! Called by [`run`](crate::run) on SIGUSR2. This process serves on until the new one does; if
//! that fails in whatever way, the new one is killed and nothing has changed.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sealane_control::ControlHandle;
use sealane_proxy::Proxy;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::handover::{Channel, Estate, flows, pack};
use crate::metrics::UPGRADES;
use crate::service::Notify;
use crate::successor::{MARK, VERSION};

/// How long a new process that has closed its end may take to end altogether; then it is killed.
const END_LIMIT: Duration = Duration::from_secs(2);
const END_POLL: Duration = Duration::from_millis(10);
/// What a service manager said to this process alone.
const NOT_INHERITED: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// How this program was started, and so how its successor is.
#[derive(Clone, Debug)]
pub struct Program {
    /// As it was called: where a new version will lie.
    path: PathBuf,
    /// Its file at the start, should that be gone.
    file: Option<PathBuf>,
    name: OsString,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be called at the start: later the file may have been replaced, and `/proc/self/exe`
    /// names a file that is deleted. It would also follow a link to one version's folder.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        let mut arguments = std::env::args_os();
        let name = arguments.next()?;
        let file = std::env::current_exe().ok();
        let path = as_called(Path::new(&name)).or_else(|| file.clone())?;
        Some(Self {
            path,
            file,
            name,
            arguments: arguments.collect(),
        })
    }

    fn path(&self) -> &Path {
        match &self.file {
            Some(file) if !self.path.exists() => file,
            _ => &self.path,
        }
    }

    fn start(&self, end: OwnedFd) -> Result<Successor, UpgradeError> {
        let mut command = Command::new(self.path());
        command
            .arg0(&self.name)
            .args(&self.arguments)
            .env(MARK, VERSION.to_string())
            .stdin(Stdio::from(end));
        for name in NOT_INHERITED {
            command.env_remove(name);
        }
        let child = command.spawn().map_err(|source| UpgradeError::Start {
            program: self.path().to_owned(),
            source,
        })?;
        Ok(Successor {
            child,
            let_go: false,
        })
    }
}

fn as_called(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return std::path::absolute(name).ok();
    }
    let folders = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&folders).map(|folder| folder.join(name));
    places.find(|place| place.is_file())
}

/// Why the new program does not serve; this one goes on.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("{} cannot be started", program.display())]
    Start {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the new program cannot take over: {0}")]
    Refused(String),
    #[error("the new program ended before it was ready ({})", status.map_or_else(|| "killed".to_owned(), |s| s.to_string()))]
    Ended { status: Option<ExitStatus> },
    #[error("the new program was not ready within {limit:?} (node.upgrade_limit)")]
    Late { limit: Duration },
    #[error("the new program says {0:?}, which is not known here")]
    Unknown(String),
    #[error("sockets cannot be handed over")]
    Channel(#[from] io::Error),
    #[error("control has ended")]
    ControlGone(#[from] sealane_control::ControlGone),
}

/// Why no upgrade begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoUpgrade {
    #[error("one is under way")]
    UnderWay,
    #[error("this verb cannot be upgraded, only `sealane run` can")]
    NotThis,
    #[error("this is process 1: its end would end the container; replace the container")]
    FirstProcess,
}

/// What a new process is given.
#[derive(Debug)]
pub struct Legacy {
    pub node: Arc<str>,
    pub sockets: Estate,
    pub control: ControlHandle,
    /// Its UDP flows.
    pub proxy: Arc<Proxy>,
    pub notify: Notify,
    /// For the new process to be ready.
    pub limit: Duration,
}

/// The upgrade that is under way, if any.
#[derive(Debug)]
pub struct Upgrade {
    program: Option<Program>,
    running: JoinSet<Result<(), UpgradeError>>,
}

impl Upgrade {
    /// `program`: `None` where there can be none.
    #[must_use]
    pub fn new(program: Option<Program>) -> Self {
        Self {
            program,
            running: JoinSet::new(),
        }
    }

    #[must_use]
    pub fn is_under_way(&self) -> bool {
        !self.running.is_empty()
    }

    /// May one begin now?
    ///
    /// # Errors
    /// [`NoUpgrade`].
    pub fn may_begin(&self) -> Result<(), NoUpgrade> {
        if self.is_under_way() {
            return Err(NoUpgrade::UnderWay);
        }
        if self.program.is_none() {
            return Err(NoUpgrade::NotThis);
        }
        if rustix::process::getpid().is_init() {
            return Err(NoUpgrade::FirstProcess);
        }
        Ok(())
    }

    pub fn begin(&mut self, legacy: Legacy) {
        if let Some(program) = self.program.clone() {
            self.running.spawn(hand_over(program, legacy));
        }
    }

    /// Resolves when the new process serves, or never will. Never when none is under way.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`UpgradeError`]; nothing has changed.
    pub async fn ended(&mut self) -> Result<(), UpgradeError> {
        match self.running.join_next().await {
            None => std::future::pending().await,
            Some(Ok(ended)) => ended,
            Some(Err(lost)) => Err(UpgradeError::Channel(io::Error::other(lost))),
        }
    }

    /// Kills the new process if there is one.
    pub async fn cancel(&mut self) {
        self.running.shutdown().await;
    }
}

/// Tells the metrics how one ended: `succeeded`, `failed` or `refused`. Successes are counted by
/// the new process: nobody asks the old one any more.
pub fn note(result: &'static str) {
    metrics::counter!(UPGRADES, "result" => result).increment(1);
}

async fn hand_over(program: Program, legacy: Legacy) -> Result<(), UpgradeError> {
    let (channel, end) = Channel::pair()?;
    let mut successor = program.start(end)?;
    let pid = successor.child.id();
    tracing::info!(
        pid,
        program = %program.path().display(),
        "upgrade: the new program starts; this one serves until that one does"
    );
    let limit = legacy.limit;
    let taken = timeout(limit, successor.persuade(&channel, &legacy)).await;
    let taken = taken.unwrap_or(Err(UpgradeError::Late { limit }));
    if taken.is_err() {
        // Dead before this process resumes: two must never have the say.
        successor.end().await;
        // An error means that control is gone, which its own log has said.
        let _ = legacy.control.resume(None).await;
        return taken;
    }
    successor.let_go = true;
    // Before the goodbye: what the new process says counts from now on.
    legacy.notify.main_process(pid);
    // An error would mean that it ended meanwhile: there is no way back.
    let _ = channel.send("done", &[]).await;
    Ok(())
}

/// A process that is not ours to keep once it serves. Killed when dropped before.
#[derive(Debug)]
struct Successor {
    child: Child,
    let_go: bool,
}

impl Successor {
    async fn persuade(&mut self, channel: &Channel, legacy: &Legacy) -> Result<(), UpgradeError> {
        match self.converse(channel, legacy).await {
            // It hung up, or was never listening; a reset where it left something unread.
            Err(UpgradeError::Channel(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                Err(self.ended().await)
            }
            Ok(true) => Ok(()),
            Ok(false) => Err(self.ended().await),
            Err(error) => Err(error),
        }
    }

    /// `false`: it hung up.
    async fn converse(&mut self, channel: &Channel, legacy: &Legacy) -> Result<bool, UpgradeError> {
        let hello = format!("hello {VERSION} {}", std::process::id());
        channel.send(&hello, &[]).await?;
        for (text, sockets) in legacy.sockets.portions() {
            channel.send(&text, &sockets).await?;
        }
        let map = pack(&legacy.node, &legacy.control.map().await?)?;
        channel.send("map", &[map.as_fd()]).await?;
        channel.send("end", &[]).await?;
        if !hears(channel, "prepared").await? {
            return Ok(false);
        }
        let map = pack(&legacy.node, &legacy.control.hold().await?)?;
        if let Err(error) = flows::send(channel, legacy.proxy.flows().await).await {
            tracing::warn!(%error, "upgrade: some UDP flows begin anew in the new program");
        }
        channel.send("go", &[map.as_fd()]).await?;
        hears(channel, "serving").await
    }

    async fn ended(&mut self) -> UpgradeError {
        let status = timeout(END_LIMIT, self.wait()).await.ok();
        UpgradeError::Ended { status }
    }

    async fn end(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        // What SIGKILL does not end within this hangs in the kernel, and runs no code of ours.
        let _ = timeout(END_LIMIT, self.wait()).await;
    }

    async fn wait(&mut self) -> ExitStatus {
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status;
            }
            tokio::time::sleep(END_POLL).await;
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if !self.let_go {
            // Errors mean that it has ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Waits for this word. `false`: the other side hung up.
async fn hears(channel: &Channel, word: &str) -> Result<bool, UpgradeError> {
    let Some(message) = channel.receive().await? else {
        return Ok(false);
    };
    if message.text == word {
        return Ok(true);
    }
    Err(match message.text.strip_prefix("failed\n") {
        Some(reason) => UpgradeError::Refused(reason.to_owned()),
        None => UpgradeError::Unknown(message.text),
    })
}
