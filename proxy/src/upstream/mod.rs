//! Where an attempt goes: which region and endpoint, how loaded they are, what retrying may cost.
//!
//! Pure policies and counters shared by all workers; opens no connection and reads no clock.
//! Read [`select`] first.

pub(crate) mod adaptive;
pub(crate) mod balance;
pub(crate) mod budget;
pub(crate) mod concurrency;
pub(crate) mod gate;
pub(crate) mod hedging;
pub(crate) mod known;
pub(crate) mod latency;
pub(crate) mod load;
pub(crate) mod pools;
pub(crate) mod rate;
pub(crate) mod rates;
pub(crate) mod route;
pub(crate) mod select;
pub(crate) mod tenants;

pub(crate) use known::{Endpoints, Known};
pub(crate) use load::{LoadGuard, LoadTable};
pub(crate) use select::{NoEndpoint, SelectAsk, Selected, Tried, select};
