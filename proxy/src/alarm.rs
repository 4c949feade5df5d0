//! A timer that is cheap to move. Used wherever one task waits for one thing after another.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

use crate::clock;

/// Wakes a task at a time that may be moved without cost. One serves a connection for all that it
/// ever waits for.
#[derive(Default)]
pub(crate) struct Alarm {
    /// Made when it is first needed.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready when `due` has come. The timer itself moves only when it fires too early, or when
    /// `due` came nearer.
    pub(crate) fn poll_due(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if clock::now() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
        Poll::Pending
    }
}
