//! UDP carried as it comes: each client's datagrams go to one endpoint, and its answers back.
//!
//! Started by the workers for listeners of protocol `udp`. Understands nothing of what it carries,
//! answers nothing itself, and sends only to clients that were heard from. Read [`relay`] first, then
//! [`flow`].

mod flow;
pub(crate) mod legacy;
mod metrics;
mod outcome;
mod relay;
mod socket;

pub(crate) use relay::{Relay, UdpRule, run};
pub(crate) use socket::{Batch, note_destinations, open};
