//! Health, failover and the admin API: what is out there, and what the operator says of it.
//!
//! Built by the daemon from [`config::Config`]; knows neither proxy nor DNS. It alone writes the
//! world that they read. Read [`core`] first, then [`health::endpoint`] and [`failover`].

pub mod admin;
pub mod cascade;
pub mod config;
pub mod core;
pub mod damping;
pub mod demand;
pub mod failover;
pub mod health;
pub mod learn;
pub mod metrics;
pub mod overrides;
pub mod probe;
pub mod ramp;
pub mod state;

mod actor;
mod clock;
mod handle;
mod store;

pub use actor::{Control, PUBLISH_EVERY, StartError, build, build_in_place};
pub use core::{OrderError, OrderReply, Overview, PoolEffect};
pub use handle::{ControlGone, ControlHandle, MESSAGES_WAITING_MAX};
pub use overrides::{Order, OrderKind};
