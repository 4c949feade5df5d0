//! HTTP: one request from its head to its last byte. Read [`exchange`] first.

pub(crate) mod exchange;

pub(crate) mod access_log;
pub(crate) mod admit;
pub(crate) mod attempt;
mod border;
pub(crate) mod client;
pub(crate) mod coalesce;
pub(crate) mod connect;
pub(crate) mod context;
pub(crate) mod cookies;
pub(crate) mod endpoint;
pub(crate) mod fields;
pub(crate) mod flood;
pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod hash_key;
pub(crate) mod headers;
pub(crate) mod hedge;
pub(crate) mod message;
pub(crate) mod mirror;
pub(crate) mod outcome;
pub(crate) mod overload;
pub(crate) mod rate_limit;
pub(crate) mod refuse;
pub(crate) mod relay;
pub(crate) mod retry;
pub(crate) mod route;
pub(crate) mod rules;
pub(crate) mod split;
pub(crate) mod sticky;
pub(crate) mod upgrade;
