//! Authoritative GeoDNS: static zones, and names whose addresses follow the health map.
//!
//! Built by the daemon from [`Config`]; knows neither the proxy nor control.

pub mod config;
pub mod name;
pub mod record;
pub mod wire;
pub mod zone;
mod zone_file;

pub use config::Config;
