//! Where an attempt goes: which region and endpoint, how loaded they are, what retrying may cost.
//!
//! Pure policies and counters shared by all workers; opens no connection and reads no clock.
//! Read [`select`] first.

mod account;
pub(crate) mod adaptive;
pub(crate) mod balance;
pub(crate) mod budget;
pub(crate) mod canary;
pub(crate) mod concurrency;
mod court;
mod ejection;
mod ewma;
pub(crate) mod gate;
pub(crate) mod hedging;
pub(crate) mod known;
pub(crate) mod latency;
pub(crate) mod load;
mod mark;
pub(crate) mod pools;
pub(crate) mod rate;
pub(crate) mod rates;
mod ring;
mod room;
pub(crate) mod route;
pub(crate) mod select;
#[cfg(test)]
mod simulation;
mod sketch;
pub(crate) mod sticky;
pub(crate) mod tenants;
mod ticks;
mod view;

pub(crate) use account::Answered;
pub(crate) use known::{Endpoints, Known};
pub(crate) use load::{LoadGuard, LoadTable};
pub(crate) use mark::Mark;
pub(crate) use ring::{hash, hash_of_client};
pub(crate) use select::{NoEndpoint, SelectAsk, Selected, Tried, look, select};
