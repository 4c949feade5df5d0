//! The program: reads the file, wires the rooms together, runs them, stops them.
//!
//! Holds no logic about traffic: if it has an `if` about traffic, it lives lower. Read [`app`]
//! (the wiring), then [`run`] (the life of the process), then [`config`] (the file).

pub mod admin_client;
pub mod allocator;
pub mod app;
mod certificates;
pub mod cli;
pub mod config;
pub mod demo;
pub mod dnssec;
pub mod expiry;
pub mod handover;
pub mod metrics;
pub mod reload;
pub mod report;
pub mod run;
pub mod service;
pub mod successor;
pub mod telemetry;
pub mod upgrade;
pub mod watch;
