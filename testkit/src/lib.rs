//! What tests are built from: worlds, scripted endpoints, and plain clients that can misbehave.
//!
//! For tests and load tests only; nothing that ships depends on it. Knows [`sealane_model`] and
//! the wire, and none of the rooms. Everything it opens listens on loopback.

pub mod endpoint;
pub mod http1;
pub mod mmdb;
pub mod websocket;
pub mod world;

pub use endpoint::{Mode, ScriptedEndpoint};
pub use world::{Names, World};
