//! The new process's side of an upgrade: takes what the old one leaves, and waits for its turn.
//!
//! Called by [`run`](crate::run) in a process that an old one started. Says when it is ready, or
//! why it cannot be; serves nothing before its turn. If the old process dies meanwhile, this one
//! goes on in its place with what it has.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::stdio::dup2_stdin;
use sealane_control::state::Remembered;
use sealane_proxy::handover::LeftFlow;
use tokio::time::timeout;

use crate::handover::{Channel, Inheritance, Label, Message, flows, unpack};

/// Set for a process that is to take over; its standard input is the way to the old one.
pub const MARK: &str = "SEALANE_HANDOVER";
/// The language of both processes; one that speaks another is not taken over from.
pub const VERSION: u32 = 2;
/// How long the old process may take to its next word. It has everything at hand; if it hangs,
/// nothing is taken over and it is left as it is.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long the old process may take to say goodbye: nothing depends on it.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);

/// The process in whose place this one was started.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    /// 0: it died before it could say.
    pub pid: u32,
}

/// What it left.
#[derive(Debug, Default)]
pub struct Left {
    pub sockets: Inheritance,
    pub map: Option<Remembered>,
}

/// It is this process's turn.
#[derive(Debug)]
pub enum Turn {
    /// The old process said so, with the map and the UDP flows as they then were.
    Given(Option<Remembered>, Vec<(Label, Vec<LeftFlow>)>),
    /// The old process is gone.
    Orphaned,
}

impl Predecessor {
    /// Takes what the old process leaves; `None` where there is none: an ordinary start.
    ///
    /// # Errors
    /// The old process does not answer, or speaks another language.
    pub async fn greet() -> anyhow::Result<Option<(Self, Left)>> {
        if std::env::var_os(MARK).is_none() {
            return Ok(None);
        }
        let channel = channel_at_stdin()
            .with_context(|| format!("{MARK} is set, but standard input is no hand-over"))?;
        let mut predecessor = Self { channel, pid: 0 };
        let mut left = Left::default();
        while let Some(message) = predecessor.next().await? {
            if message.text == "end" {
                break;
            }
            predecessor.take(message, &mut left)?;
        }
        Ok(Some((predecessor, left)))
    }

    fn take(&mut self, message: Message, left: &mut Left) -> anyhow::Result<()> {
        let Message { text, descriptors } = message;
        if let Some(hello) = text.strip_prefix("hello ") {
            let (version, pid) = hello.split_once(' ').unwrap_or((hello, "0"));
            if version != VERSION.to_string() {
                bail!("the running program hands over in version {version}, not in {VERSION}");
            }
            self.pid = pid.parse().unwrap_or(0);
            return Ok(());
        }
        if text == "map" {
            left.map = descriptors.into_iter().next().and_then(read_map);
            return Ok(());
        }
        let Some(label) = Label::parse(&text) else {
            bail!("the running program hands over something unknown: {text:?}");
        };
        for socket in descriptors {
            if let Err(error) = left.sockets.add(Some(label.clone()), "", socket) {
                tracing::warn!(socket = %label, "a socket cannot be taken over: {error}");
            }
        }
        Ok(())
    }

    /// The next word of the old process; `None` when it is gone.
    async fn next(&self) -> anyhow::Result<Option<Message>> {
        let received = timeout(ANSWER_LIMIT, self.channel.receive()).await;
        let received = received.context("the running program does not answer")?;
        received.context("the running program cannot be heard")
    }

    /// Says that this process cannot take over, and why.
    pub async fn refuse(&self, error: &anyhow::Error) {
        let reason = format!("failed\n{error:#}");
        // An error means that the old process is gone: nobody is there to be told.
        let _ = self.channel.send(&reason, &[]).await;
    }

    /// Says that this process is ready, and waits for its turn.
    ///
    /// # Errors
    /// The old process lives but does not answer: it goes on serving.
    pub async fn turn(&self) -> anyhow::Result<Turn> {
        if self.channel.send("prepared", &[]).await.is_err() {
            return Ok(Turn::Orphaned);
        }
        let mut left = Vec::new();
        while let Some(mut message) = self.next().await? {
            if message.text == "go" {
                let map = message.descriptors.into_iter().next();
                return Ok(Turn::Given(map.and_then(read_map), left));
            }
            match flows::receive(&mut message) {
                Some(flows) => left.push(flows),
                None => bail!(
                    "the running program says {:?} instead of `go`",
                    message.text
                ),
            }
        }
        Ok(Turn::Orphaned)
    }

    /// Says that this process serves; returns when the old one knows, or is gone.
    pub async fn serving(self) {
        if self.channel.send("serving", &[]).await.is_ok() {
            // Whatever comes of it, this process serves.
            let _ = timeout(GOODBYE_LIMIT, self.channel.receive()).await;
        }
    }
}

fn read_map(packed: std::os::fd::OwnedFd) -> Option<Remembered> {
    unpack(packed)
        .inspect_err(|error| tracing::warn!(%error, "the health map cannot be taken over"))
        .ok()
}

/// Standard input becomes /dev/null: the way must close when this process is done with it.
fn channel_at_stdin() -> std::io::Result<Channel> {
    let end = std::io::stdin().as_fd().try_clone_to_owned()?;
    dup2_stdin(File::open("/dev/null")?)?;
    Channel::over(end)
}
