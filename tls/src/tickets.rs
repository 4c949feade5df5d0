//! Keys of session tickets: one set for all workers, changed every six hours, kept over reloads
//! for as long as what a ticket stands for stays the same.

use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, ServerConfig};

use crate::pem::{TlsError, setup};

/// Tickets that a TLS 1.3 handshake ends with. Each is sealed and sent whether it is used or not;
/// clients that want more ask for it (RFC 9149).
const TICKETS: usize = 1;
/// Tickets that a client may ask for.
const TICKETS_MAX: usize = 4;

/// Resumption by tickets alone: no table of sessions that strangers could fill.
pub(crate) fn enable(config: &mut ServerConfig) -> Result<(), TlsError> {
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(setup)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = TICKETS;
    config.max_tls13_tickets = TICKETS_MAX;
    Ok(())
}

/// `config` with the keys of `old`: its tickets open sessions here as well.
pub(crate) fn with_keys_of(config: &ServerConfig, old: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.ticketer = Arc::clone(&old.ticketer);
    Arc::new(config)
}
