//! From single observations to what they mean: one endpoint's verdict, a region's counts.
//!
//! Pure: takes `now`, reads no clock. Decides nothing about failover: see [`crate::failover`].

pub mod endpoint;
pub mod judged;
pub mod region;
pub mod rtt;
