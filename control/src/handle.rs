//! What others may ask of control: orders, a new configuration, the end of the first round.
//!
//! Cheap to clone. Waits for the actor's answer and holds nothing itself; when the actor is gone
//! it says so instead of waiting.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Config;
use crate::core::{OrderError, OrderReply, Overview};
use crate::overrides::{Order, Override};
use crate::state::Remembered;

/// Orders and configurations that wait for the actor. When full, an order is refused as busy and
/// a new configuration waits for a place.
pub const MESSAGES_WAITING_MAX: usize = 64;

/// Control's task has ended: nothing will answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("control has ended")]
pub struct ControlGone;

#[derive(Clone, Debug)]
pub struct ControlHandle {
    messages: mpsc::Sender<Message>,
    first_round: watch::Receiver<bool>,
    overview: Arc<ArcSwap<Overview>>,
}

#[derive(Debug)]
pub(crate) enum Message {
    Order(Order, oneshot::Sender<Result<OrderReply, OrderError>>),
    Replace(Box<Config>, oneshot::Sender<()>),
    Map(oneshot::Sender<Remembered>),
    Hold(oneshot::Sender<Remembered>),
    Resume(Option<Vec<Override>>, oneshot::Sender<()>),
    Answer(oneshot::Sender<()>),
}

/// The actor's ends of a handle.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) messages: mpsc::Receiver<Message>,
    pub(crate) first_round: watch::Sender<bool>,
    pub(crate) overview: Arc<ArcSwap<Overview>>,
}

pub(crate) fn channel(overview: Overview) -> (ControlHandle, Ends) {
    let (messages, receiver) = mpsc::channel(MESSAGES_WAITING_MAX);
    let (over, first_round) = watch::channel(false);
    let overview = Arc::new(ArcSwap::from_pointee(overview));
    let handle = ControlHandle {
        messages,
        first_round,
        overview: overview.clone(),
    };
    (
        handle,
        Ends {
            messages: receiver,
            first_round: over,
            overview,
        },
    )
}

impl ControlHandle {
    /// Resolves when every endpoint was heard of once, or the configured limit passed (A6); at
    /// once when control has ended, for then nothing more will be heard.
    pub async fn first_round(&self) {
        // An error means that control is gone.
        let _ = self.first_round.clone().wait_for(|over| *over).await;
    }

    /// Puts a new configuration in place; returns after the new world was published (A9).
    ///
    /// # Errors
    /// [`ControlGone`]; the old world stays.
    pub async fn replace(&self, config: Config) -> Result<(), ControlGone> {
        let config = Box::new(config);
        self.ask(|reply| Message::Replace(config, reply)).await
    }

    /// The map as the next process should know it.
    ///
    /// # Errors
    /// [`ControlGone`].
    pub async fn map(&self) -> Result<Remembered, ControlGone> {
        self.ask(Message::Map).await
    }

    /// From now on another process has the say: orders are refused and nothing goes to disk until
    /// [`ControlHandle::resume`]; verdicts go on. Returns the map as of this moment.
    ///
    /// # Errors
    /// [`ControlGone`].
    pub async fn hold(&self) -> Result<Remembered, ControlGone> {
        self.ask(Message::Hold).await
    }

    /// Ends a [`ControlHandle::hold`], or the one that a successor begins with. `overrides`: what
    /// operators have said until now, if that is not known here.
    ///
    /// # Errors
    /// [`ControlGone`].
    pub async fn resume(&self, overrides: Option<Vec<Override>>) -> Result<(), ControlGone> {
        self.ask(|reply| Message::Resume(overrides, reply)).await
    }

    /// Resolves when control has taken this in: it is alive.
    ///
    /// # Errors
    /// [`ControlGone`].
    pub async fn answers(&self) -> Result<(), ControlGone> {
        self.ask(Message::Answer).await
    }

    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<T>) -> Message,
    ) -> Result<T, ControlGone> {
        let (reply, answer) = oneshot::channel();
        let sent = self.messages.send(message(reply)).await;
        sent.map_err(|_| ControlGone)?;
        answer.await.map_err(|_| ControlGone)
    }

    /// Gives an order and waits until it was followed and published, or refused.
    ///
    /// # Errors
    /// The target is unknown, a pool would be left without a region, control is busy or gone.
    pub async fn order(&self, order: Order) -> Result<OrderReply, OrderError> {
        let (reply, answer) = oneshot::channel();
        self.messages
            .try_send(Message::Order(order, reply))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => OrderError::Busy,
                mpsc::error::TrySendError::Closed(_) => OrderError::Gone,
            })?;
        answer.await.unwrap_or(Err(OrderError::Gone))
    }

    /// What the snapshot does not carry: overrides, the node's name, the age of what was restored.
    #[must_use]
    pub fn overview(&self) -> Arc<Overview> {
        self.overview.load_full()
    }
}
