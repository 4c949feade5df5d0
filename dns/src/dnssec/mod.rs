//! DNSSEC (RFC 4033–4035): keys, signatures, and proofs that something is not there.
//!
//! Whatever the configuration alone decides is signed when rules are compiled, off the threads that
//! answer; steered sets are signed once for each set of addresses and kept. In reading order: [`key`]
//! and [`key_file`] (BIND's format), [`timing`] (which key does what, when), [`canonical`] (RFC 4034
//! §6), [`sign`] (one set), [`chain`] (NSEC), `seal` (a whole zone), `kept` (steered sets), `prove` (what an answer carries), `ahead` (what is signed before it is asked for). Opens no file and reads no
//! clock: both are handed in.

pub(crate) mod ahead;
pub mod canonical;
pub mod chain;
mod kept;
pub mod key;
pub mod key_file;
pub(crate) mod prove;
pub(crate) mod seal;
pub mod sign;
pub mod timing;

#[cfg(test)]
mod tests;
