//! What the client of a TLS connection proved when it came in, held against each of its requests.
//!
//! A host that asks its clients for a certificate gets requests from connections alone whose client
//! was asked for the same. Asked by `http::exchange`; lets nobody in that the handshake kept out.

use std::sync::Arc;
use std::time::Duration;

use sealane_tls::{ClientIdentity, Seal};
use tokio::time::Instant;

use crate::clock;
use crate::config::ListenerProtocol;
use crate::http::route::{HOST_MAX, plain};
use crate::listener::ListenerState;

/// The client proved something else than the host asks for, or its certificate has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misdirected;

#[derive(Clone)]
pub(crate) struct Door {
    /// Where the rules in force now are found: they may ask for more than those at the handshake.
    listener: Arc<ListenerState>,
    /// What the handshake asked for.
    passed: Option<Seal>,
    identity: Option<ClientIdentity>,
    /// When the identity ends; `None`: never, or there is none.
    until: Option<Instant>,
}

impl Door {
    /// `None`: the client's certificate has ended since the session began that it resumed.
    pub(crate) fn enter(
        listener: Arc<ListenerState>,
        passed: Option<Seal>,
        identity: Option<ClientIdentity>,
    ) -> Option<Self> {
        let left = identity.as_ref().map(|identity| {
            let left = identity.not_after - clock::seconds_since_epoch();
            u64::try_from(left).ok().filter(|left| *left > 0)
        });
        let until = match left {
            None => None,
            Some(left) => clock::now().checked_add(Duration::from_secs(left?)),
        };
        Some(Self {
            listener,
            passed,
            identity,
            until,
        })
    }

    /// Whether `host` (as the client wrote it) asked for the client's certificate.
    ///
    /// # Errors
    /// [`Misdirected`] when it asks for something else than what the client was asked for.
    pub(crate) fn admit(&self, host: &str, now: Instant) -> Result<bool, Misdirected> {
        let rule = self.listener.rule.load();
        let ListenerProtocol::Https(tls) = &rule.protocol else {
            return Ok(false);
        };
        if !tls.has_guards() {
            return Ok(false);
        }
        let Some(asked) = tls.seal_of(plain(host, &mut [0; HOST_MAX])) else {
            return Ok(false);
        };
        let has_ended = self.until.is_some_and(|until| until <= now);
        if self.passed == Some(asked) && !has_ended {
            Ok(true)
        } else {
            Err(Misdirected)
        }
    }

    /// For endpoints of hosts that asked.
    pub(crate) fn identity(&self) -> Option<&str> {
        self.identity.as_ref().map(|identity| &*identity.header)
    }
}
