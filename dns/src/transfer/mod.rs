//! Zones between servers: NOTIFY (RFC 1996), AXFR (RFC 5936), IXFR (RFC 1995), signed by TSIG (RFC 8945).
//!
//! Everything here is pure: messages in, messages out, time handed in. Sockets and files are in
//! `serve::transfer`. In reading order: [`desk`] (who asks us, and what we say) → [`version`] (what a
//! zone is at one serial) → [`book`] (which serial it gets) → `sending` (a transfer as messages) →
//! [`incoming`] (one that comes in, judged) → [`refresh`] and [`notice`] (when who is asked or told).

pub mod book;
pub mod desk;
pub mod incoming;
pub(crate) mod judge;
pub mod key;
pub(crate) mod message;
pub mod notice;
pub mod refresh;
pub mod rules;
pub mod sending;
pub mod serial;
pub mod version;

pub use rules::{Outgoing, Secondary, SteeredAs};
