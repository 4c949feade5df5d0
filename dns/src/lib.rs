//! Authoritative GeoDNS: static zones, and names whose addresses follow the health map.
//!
//! Built by the daemon from [`Config`]; knows neither the proxy nor control.

mod answer;
pub mod config;
pub mod engine;
pub mod lookup;
pub mod name;
pub mod question;
pub mod record;
pub mod steer;
mod ttl;
pub mod wire;
pub mod zone;
mod zone_file;

pub use config::Config;
