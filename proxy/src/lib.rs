//! The L4/L7 data plane: accepts, routes, selects an endpoint, relays, settles.

pub mod config;
mod http;
pub mod metrics;
pub mod tls;
mod upstream;
