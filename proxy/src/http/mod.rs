//! HTTP: one request from its head to its last byte.

pub(crate) mod access_log;
pub(crate) mod headers;
pub(crate) mod outcome;
pub(crate) mod retry;
pub(crate) mod route;
