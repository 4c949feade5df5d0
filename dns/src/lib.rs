//! dns
pub mod config;
pub mod name;
pub mod record;
