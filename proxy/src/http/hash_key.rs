//! What a request's endpoint is found by where its pool hashes: the client's address, a header or a
//! cookie.
//!
//! Called by `http::attempt` for each attempt; chooses nothing itself.

use super::context::RequestContext;
use super::cookies::cookie;
use crate::config::{BalancePolicy, Balancing, HashKey};
use crate::upstream::{hash, hash_of_client};

/// `None`: the pool does not hash, or the request lacks the key.
pub(crate) fn of(balance: &Balancing, request: &RequestContext) -> Option<u64> {
    let BalancePolicy::RingHash(key) = &balance.policy else {
        return None;
    };
    match key {
        HashKey::ClientIp => hash_of_client(balance, request.place.address),
        HashKey::Header(name) => of_value(request.head.fields.get(name.as_str())?),
        HashKey::Cookie(name) => of_value(cookie(&request.head.fields, name)?),
    }
}

fn of_value(value: &[u8]) -> Option<u64> {
    (!value.is_empty()).then(|| hash(value))
}
