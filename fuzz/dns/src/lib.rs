//! A world to answer from, for the targets in `bin/`.
//!
//! Compiles two of the testkit's files into itself: the rest of it brings a TLS library, whose build takes
//! longer than the fuzzing.

#![allow(dead_code, reason = "the targets call a part of it")]

#[path = "../../../testkit/src/mmdb.rs"]
pub mod mmdb;
#[path = "../../../testkit/src/world.rs"]
mod world;

pub use world::World;
