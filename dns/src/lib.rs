//! Authoritative GeoDNS: static zones, and names whose addresses follow the health map.
//!
//! Built by the daemon from [`Config`] and [`Deps`]; knows neither the proxy nor control.
//! Read [`engine`] first, then [`steer`]. The rest in reading order:
//! [`question`] (strict parser) → [`lookup`] (RFC 1034) → [`zone`] (what rules are compiled into) →
//! `answer` (composing) → `serve` (sockets). [`name`] and [`record`] read what operators write.

pub mod alias;
pub mod config;
pub mod cookie;
pub mod engine;
#[doc(hidden)]
pub mod question;

pub mod limit;
pub mod lookup;
mod memory;
mod rules;
pub mod steer;
mod ttl;
pub mod zone;

pub mod dnssec;

mod answer;
mod chaos;
mod ede;
mod explain;
pub mod metrics;
mod serve;
mod server;
mod tap;

mod lifetime;
mod loc;
pub mod name;
pub mod record;
mod record_kind;
pub mod service;
mod svcb;
pub mod transfer;
pub mod wire;
mod zone_file;

pub use config::Config;
pub use explain::ExplainError;
pub use sealane_tls::{CertificatePem, ServerTls};
pub use serve::bind::{BindError, Inherit, Sockets};
pub use serve::clock::now;
pub use server::{Deps, Dns, Options, Prepared};
