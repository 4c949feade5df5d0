//! What the targets in `bin/` answer from and hold answers to.
//!
//! Compiles two of the testkit's files into itself: the rest of it brings a TLS library, whose build takes
//! longer than the fuzzing.

#![allow(dead_code, reason = "the targets call a part of it")]

mod fixed;
#[path = "../../../testkit/src/mmdb.rs"]
mod mmdb;
#[path = "../../../testkit/src/world.rs"]
mod world;

pub use fixed::{SOURCES, examine, rules, world};
pub use world::World;
