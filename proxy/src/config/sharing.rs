//! How requests of a route share attempts, or are shown to a second pool, as the operator wrote it.
//! Plain data, already valid.
//!
//! What it means is in `http::coalesce` and `http::mirror`.

use std::time::Duration;

use http::{HeaderName, Method};
use sealane_model::Ratio;

use super::Destination;

/// Identical requests that come together are one request to the endpoints.
#[derive(Clone, Debug)]
pub struct Coalesce {
    /// Of `GET` and `HEAD`.
    pub methods: Vec<Method>,
    /// Of the headers that nearly every client sends, those on which answers depend.
    pub headers: Vec<HeaderName>,
    pub credentials: Credentials,
    /// How long a request waits for the answer to another one, and how long after its beginning an
    /// attempt is joined.
    pub wait: Duration,
    /// Requests that share one attempt, besides the one that began it.
    pub followers: usize,
    /// Bytes of an answer's body that are held for those that are behind.
    pub body_max: u64,
}

impl Coalesce {
    /// As long as it says, but so that half of the request's time is left for an attempt of its own.
    pub(crate) fn wait_within(&self, request: Duration) -> Duration {
        self.wait.min(request / 2)
    }
}

/// What becomes of requests that say who they are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Each has an attempt of its own.
    Alone,
    /// Those that say the same share.
    ByValue,
}

/// A share of the requests goes to a second pool as well, whose answers nobody gets.
#[derive(Clone, Debug)]
pub struct Mirror {
    pub to: Destination,
    pub share: Ratio,
    /// Empty: any.
    pub methods: Vec<Method>,
    /// Requests with a larger body are not mirrored.
    pub body_max: usize,
    /// From the request's end to the answer's.
    pub timeout: Duration,
}
