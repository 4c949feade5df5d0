//! What one request has learned on its way. Written by [`super::exchange`] and
//! [`super::attempt`], read once at its end.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use sealane_steering::{ClientPlace, How};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::access_log;
use super::coalesce::Part;
use super::headers::{self, PeerText, RequestId};
use super::message::RequestHead;
use super::outcome::{RequestOutcome, settle_request};
use super::rate_limit::Nearest;
use super::route::RouteState;
use super::split::{self, Way};
use super::sticky::Session;
use crate::clock;
use crate::config::Tier;
use crate::door::Door;
use crate::random;
use crate::shared::Rules;
use crate::upstream::Selected;
use crate::upstream::Tried;
use crate::upstream::hedging::Hedged;
use crate::worker::Worker;

/// Where requests come from: one client connection.
#[derive(Clone)]
pub(crate) struct Inbound {
    pub(crate) worker: Rc<Worker>,
    pub(crate) peer: PeerText,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// See [`crate::config::Listener`]: as it was when the client connected.
    pub(crate) redirect_to_https: Option<u16>,
    /// What the client proved when it came in; `None` without TLS.
    pub(crate) door: Option<Box<Door>>,
}

#[derive(Clone)]
pub(crate) struct RequestContext {
    pub(crate) rules: Arc<Rules>,
    pub(crate) started: Instant,
    pub(crate) place: ClientPlace,
    pub(crate) trusted_peer: bool,
    pub(crate) request_id: RequestId,
    /// As the client sent it, in normal form.
    pub(crate) head: RequestHead,
    pub(crate) is_grpc: bool,
    /// When a gRPC client stops waiting.
    pub(crate) deadline: Option<Instant>,
    /// Its host asked for the client's certificate: endpoints are told whose it is.
    pub(crate) asked: bool,
    /// What weighted choices are drawn from: a new number for each request spreads them.
    pub(crate) key: u64,
    pub(crate) route: Option<Arc<RouteState>>,
    /// Of the pools of a split route, which one. `None`: there is but one.
    pub(crate) way: Option<Way>,
    /// `None`: the route has none.
    pub(crate) session: Option<Session>,
    pub(crate) selected: Option<Selected>,
    pub(crate) tried: SmallVec<[Tried; 4]>,
    pub(crate) attempts: u32,
    /// What became of the thought of a second attempt beside the first.
    pub(crate) hedge: Cell<Option<Hedged>>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) refusal: Option<&'static str>,
    pub(crate) cut_short: bool,
    /// What it had to do with others that asked the same; `None`: nothing.
    pub(crate) shared: Option<Part>,
    pub(crate) tier: Tier,
    /// The rate limit that is nearest to its end.
    pub(crate) nearest: Option<Nearest>,
}

impl RequestContext {
    pub(crate) fn start(head: RequestHead, inbound: &Inbound) -> Self {
        let rules = inbound.worker.shared.rules.load_full();
        let config = &rules.config;
        let peer = inbound.peer.address;
        let trusted_peer = config.trusted.iter().any(|net| net.contains(&peer));
        let address = headers::client_address(peer, &head.fields, &config.trusted);
        Self {
            started: clock::now(),
            place: ClientPlace::locate(address, How::Connection, &config.geo),
            trusted_peer,
            request_id: headers::request_id(&head.fields, trusted_peer, random::wide_number()),
            is_grpc: headers::is_grpc(&head.fields),
            deadline: None,
            asked: false,
            key: random::number(),
            route: None,
            way: None,
            session: None,
            selected: None,
            tried: SmallVec::new(),
            attempts: 0,
            hedge: Cell::new(None),
            status: None,
            received: 0,
            sent: 0,
            refusal: None,
            cut_short: false,
            shared: None,
            tier: Tier::default(),
            nearest: None,
            head,
            rules,
        }
    }

    /// Whether a gRPC client has stopped waiting.
    pub(crate) fn is_overdue(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| clock::now() >= deadline)
    }

    fn settle(&self, worker: u32) {
        let took = clock::now().duration_since(self.started);
        if self.way.is_some() {
            split::settle(self, worker, took);
        }
        let (host, path, request_id) = if access_log::is_on() {
            let head = &self.head;
            (head.host(), head.path(), self.request_id.as_str())
        } else {
            ("", "", "")
        };
        settle_request(&RequestOutcome {
            client: self.place.address,
            method: &self.head.method,
            host,
            path,
            status: self.status,
            received: self.received,
            sent: self.sent,
            route: self.route.as_deref(),
            selected: self.selected.as_ref(),
            attempts: self.attempts,
            hedge: self.hedge.get(),
            way: self.way,
            session: self.session,
            took,
            request_id,
            refusal: self.refusal,
            cut_short: self.cut_short,
            shared: self.shared,
            tier: self.tier,
        });
    }
}

/// Settles even when the exchange is dropped half-way: its connection broke or was cut off.
pub(crate) struct Settled {
    pub(crate) request: RequestContext,
    /// The worker that it runs on.
    pub(crate) worker: u32,
}

impl Drop for Settled {
    fn drop(&mut self) {
        self.request.settle(self.worker);
    }
}
