//! Transfers on sockets: connections of servers that take zones from us, and the thread that fetches zones
//! from others and tells of changes. What is said is decided in [`crate::transfer`].

pub(crate) mod connection;
mod fetch;
pub(crate) mod keeper;
pub(crate) mod store;

use std::net::SocketAddr;

use crate::engine::Answered;
use crate::rules::Rules;
use crate::transfer::desk::{Caller, Desk, Reply};

/// The answer to a datagram that is about a transfer. `None`: it is the engine's to answer.
pub(crate) fn answer_datagram(
    rules: &Rules,
    message: &[u8],
    source: SocketAddr,
    out: &mut [u8],
) -> Option<Answered> {
    let desk = rules.transfers.as_deref()?;
    if !Desk::concerns(message) {
        return None;
    }
    let caller = Caller {
        address: source.ip(),
        is_stream: false,
    };
    match desk.answer(message, caller, super::clock::now()) {
        Reply::Once(reply, rcode) => {
            out.get_mut(..reply.len())?.copy_from_slice(&reply);
            Some(Answered::plain(reply.len(), rcode))
        }
        Reply::NotOurs | Reply::Many(_) => None,
    }
}
