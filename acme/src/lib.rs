//! Certificates by ACME (RFC 8555): ordered, renewed in time, kept on disk, handed to whoever serves.
//!
//! Built by the daemon from [`Config`]; knows neither proxy nor DNS nor control: what the outside
//! must see of an order, and who serves what was issued, is an [`Edge`]. Runs on a thread of its
//! own; nothing on the path of a request waits for it. Read [`plan`] first, then `runner`.

pub mod config;
pub mod metrics;
pub mod plan;

mod account;
mod certificate;
mod directory;
mod edge;
mod order;
mod runner;
mod store;

pub use certificate::{Broken, Certificate};
pub use config::{ChallengeKind, Config, Names};
pub use directory::are_roots;
pub use edge::{ChallengeCertificate, Edge, EdgeError};
pub use plan::Validity;
pub use runner::{Acme, Runner, acme};
