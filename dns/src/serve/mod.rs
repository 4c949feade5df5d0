//! Transports: everything that touches a socket. What is answered is decided in [`crate::engine`].

pub(crate) mod bind;
pub(crate) mod clock;
pub(crate) mod door;
mod https;
pub(crate) mod quic;
pub(crate) mod resolver;
pub(crate) mod signer;
mod stream;
pub(crate) mod transfer;
pub(crate) mod udp;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use sealane_model::SnapshotReader;
use tokio::sync::Notify;

use crate::config::{Config, Encrypted, Protocol};
use crate::dnssec::timing::Moment;
use crate::engine::Rules;
use crate::transfer::book::{Book, compile};

/// What all threads read.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) world: SnapshotReader,
    pub(crate) rules: Arc<ArcSwap<Rules>>,
    /// Connections open now, on all addresses.
    pub(crate) seats: door::Seats,
    /// Certificates come and go without new rules.
    pub(crate) encrypted: ArcSwap<Vec<Encrypted>>,
    /// What zones' serials and copies of others' zones are written in.
    pub(crate) book: Arc<Book>,
}

impl Shared {
    /// `None`: it was spoken until a moment ago.
    pub(crate) fn encrypted(&self, protocol: Protocol) -> Option<Encrypted> {
        let all = self.encrypted.load();
        all.iter().find(|one| one.protocol == protocol).cloned()
    }

    /// What `config` says, as rules for the present world.
    pub(crate) fn compile(&self, config: &Config, now: Moment, before: Option<&Rules>) -> Rules {
        compile(config, &self.book, &self.world.load(), now, before)
    }
}

/// Tells the threads of one address to answer what they have and end.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    asked: AtomicBool,
    /// For those that wait in a runtime; the others look at `asked` each [`udp::RECEIVE_WAIT`].
    wake: Notify,
}

impl Stop {
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.wake.notify_waiters();
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Resolves this long after [`Stop::ask`] was called.
    pub(crate) async fn asked_long_ago(&self, time: Duration) {
        self.asked().await;
        tokio::time::sleep(time).await;
    }

    /// Resolves when [`Stop::ask`] was called, be it before or after.
    pub(crate) async fn asked(&self) {
        let notified = self.wake.notified();
        tokio::pin!(notified);
        // Registers before looking, so that an `ask` in between is not missed.
        notified.as_mut().enable();
        if !self.is_asked() {
            notified.await;
        }
    }
}
