//! Requests and answers that two recipients could read in two ways: which of them are refused, and
//! what is made of the others, over real sockets, in one piece and in two.
//!
//! Every request is sent as it stands (our strict codec reads it), and where that makes sense in
//! absolute form and as HTTP/1.0, which Pingora's session reads (but for chunks).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[allow(dead_code, reason = "other tests speak TLS and HTTP/2")]
#[path = "../edge/mod.rs"]
mod edge;

mod answers;
mod recorder;
mod requests;
