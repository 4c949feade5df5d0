//! control
pub mod config;
