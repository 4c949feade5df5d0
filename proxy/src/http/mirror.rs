//! A share of a route's requests goes to a second pool as well; its answers are thrown away.
//!
//! Called by [`super::exchange`] and [`super::coalesce`] where a request's own attempts begin. The
//! client never waits for it: what is mirrored runs in a task of its own, of which a worker has a
//! bounded number, and only once the request's body has arrived. Never retries, never tells control
//! what it saw, takes nothing from budgets, and is in no metric of the route but its own.

mod outcome;

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Method;
use sealane_model::{Failure, Ratio};

pub(crate) use self::outcome::Mirrored;
use super::attempt::head_for_endpoint;
use super::client::Piece;
use super::context::{Inbound, RequestContext};
use super::endpoint::Endpoint;
use super::fields::Known;
use super::headers::MIRROR_MARK;
use super::message::RequestHead;
use super::relay::Upload;
use super::route::RouteState;
use crate::clock;
use crate::config::Mirror;
use crate::random;
use crate::upstream::{SelectAsk, select};
use crate::worker::Worker;
use sealane_steering::ClientPlace;

/// Mirrored requests that one worker has under way, those whose bodies are still arriving included.
/// Further requests are not mirrored.
pub(crate) const UNDER_WAY_MAX: usize = 256;
/// Bytes of bodies that one worker holds for its mirrored requests. What does not fit is not mirrored.
pub(crate) const HELD_MAX: usize = 8 * 1024 * 1024;
/// Bytes of an answer that are read, so that its connection can serve again. A longer one ends its
/// connection.
const ANSWER_MAX: usize = 1024 * 1024;
/// Informational heads before the final one.
const INFORMATIONAL_MAX: usize = 32;
/// Heads and pieces of an answer that are read before others have their turn.
const IN_A_ROW: usize = 64;
/// Bytes of a body that are handed over at once.
const PIECE: usize = 16 * 1024;

/// What one worker mirrors now.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Rc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    requests: Cell<usize>,
    bytes: Cell<usize>,
}

/// One of them.
struct Place {
    counts: Rc<Counts>,
    bytes: usize,
}

impl UnderWay {
    /// `None`: there is no room.
    fn enter(&self) -> Option<Place> {
        let requests = self.0.requests.get();
        if requests >= UNDER_WAY_MAX {
            return None;
        }
        self.0.requests.set(requests + 1);
        Some(Place {
            counts: Rc::clone(&self.0),
            bytes: 0,
        })
    }
}

impl Place {
    /// Whether there is room for so many more bytes.
    fn hold(&mut self, bytes: usize) -> bool {
        let all = self.counts.bytes.get() + bytes;
        if all > HELD_MAX {
            return false;
        }
        self.counts.bytes.set(all);
        self.bytes += bytes;
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.requests.set(self.counts.requests.get() - 1);
        self.counts.bytes.set(self.counts.bytes.get() - self.bytes);
    }
}

/// Mirrors the request, if it is one of the share: at once, or when its body has arrived.
/// `body_done`: there is none.
pub(super) fn begin(
    rule: &Mirror,
    route: &Arc<RouteState>,
    request: &RequestContext,
    body_done: bool,
    upload: &mut Upload,
    inbound: &Inbound,
) {
    if !is_wanted(rule, request) || !is_drawn(rule.share, random::number()) {
        return;
    }
    let Some(place) = inbound.worker.mirrored.enter() else {
        return route.metrics.mirrored(Mirrored::Busy);
    };
    let mut head = head_for_endpoint(&route.rule, request, inbound, false, 1);
    head.fields.remove(Known::Expect); // the body is there
    head.fields.insert(MIRROR_MARK, b"1");
    let copy = Copy {
        route: Arc::clone(route),
        worker: Rc::clone(&inbound.worker),
        head,
        place_of_client: request.place,
        key: request.key,
        body: BytesMut::new(),
        body_max: rule.body_max,
        place,
    };
    if body_done {
        copy.send();
    } else {
        upload.copy_to(Gathering(Some(Box::new(copy))));
    }
}

/// What is mirrored already is not mirrored again: two proxies might else do it for ever.
fn is_wanted(rule: &Mirror, request: &RequestContext) -> bool {
    let head = &request.head;
    let fields = &head.fields;
    (rule.methods.is_empty() || rule.methods.contains(&head.method))
        && head.method != Method::CONNECT
        && !fields.contains(Known::Upgrade)
        && !(request.trusted_peer && fields.contains(MIRROR_MARK))
}

fn is_drawn(share: Ratio, random: u64) -> bool {
    // 53 bits are what a float holds.
    let drawn = (random >> 11) as f64 / (1_u64 << 53) as f64;
    drawn < share.get()
}

/// One request on its way to the second pool.
struct Copy {
    route: Arc<RouteState>,
    worker: Rc<Worker>,
    head: RequestHead,
    place_of_client: ClientPlace,
    key: u64,
    body: BytesMut,
    body_max: usize,
    place: Place,
}

/// A copy whose body is still arriving.
pub(crate) struct Gathering(Option<Box<Copy>>);

impl Gathering {
    /// A piece of the body has come. Whether nothing more is to be told.
    pub(super) fn take(&mut self, piece: &Piece) -> bool {
        let Some(copy) = &mut self.0 else {
            return true;
        };
        let (bytes, last) = match piece {
            Piece::Data(bytes) => (&bytes[..], false),
            Piece::Last(bytes) => (&bytes[..], true),
            Piece::End(_) => (&[][..], true),
        };
        if copy.body.len() + bytes.len() > copy.body_max {
            self.give_up(Mirrored::Large);
            return true;
        }
        if !copy.place.hold(bytes.len()) {
            self.give_up(Mirrored::Busy);
            return true;
        }
        copy.body.extend_from_slice(bytes);
        if last && let Some(copy) = self.0.take() {
            copy.send();
        }
        last
    }

    fn give_up(&mut self, why: Mirrored) {
        if let Some(copy) = self.0.take() {
            copy.route.metrics.mirrored(why);
        }
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.give_up(Mirrored::Unfinished);
    }
}

impl Copy {
    /// On its own from now on.
    fn send(self) {
        tokio::task::spawn_local(self.run());
    }

    async fn run(mut self) {
        let body = std::mem::take(&mut self.body).freeze();
        let Some(rule) = &self.route.rule.options.mirror else {
            return; // there is no copy without
        };
        let asked = tokio::time::timeout(rule.timeout, self.ask(rule, body));
        let mirrored = match asked.await {
            Ok(Ok(())) => Mirrored::Answered,
            Ok(Err(failure)) => {
                tracing::debug!(route = &*self.route.rule.name, "mirror: {failure}");
                Mirrored::Failed
            }
            Err(_) => Mirrored::TimedOut,
        };
        self.route.metrics.mirrored(mirrored);
    }

    async fn ask(&self, rule: &Mirror, body: Bytes) -> Result<(), Failure> {
        let shared = &self.worker.shared;
        let selected = {
            let world = shared.world.load();
            let ask = SelectAsk {
                pool: rule.to.pool,
                policy: &rule.to.steering,
                balance: &rule.to.balance,
                place: &self.place_of_client,
                key: self.key,
                hash: None,
                random: random::number(),
                may_shed: true,
                now: clock::now().into_std(),
                repeatable: false,
                tried: &[],
            };
            let selected = select(&world, &self.worker.endpoints, &ask);
            selected.map_err(|_| Failure::Unreachable)?
        };
        // Of the second pool's endpoint: what it is busy with counts, whoever it is for.
        let _load = shared.loads.begin(selected.endpoint);
        let within = rule.timeout;
        let connections = &self.worker.connections;
        let mut endpoint = connections.open(&selected, within, false).await?;
        endpoint.send_head(self.head.for_attempt(), body.is_empty())?;
        let mut exchange = Exchange {
            endpoint: &mut endpoint,
            body,
            informational: 0,
            read: 0,
            phase: Phase::Head,
        };
        let whole = poll_fn(|cx| exchange.poll(cx)).await;
        let sent = exchange.body.is_empty();
        if let Some(wire) = endpoint.finish(matches!(whole, Ok(true)) && sent) {
            connections.keep(&selected, wire);
        }
        whole.map(|_| ())
    }
}

enum Phase {
    Head,
    Body,
}

/// Sends what is left of the body, and reads the answer to throw it away.
struct Exchange<'a> {
    endpoint: &'a mut Endpoint,
    body: Bytes,
    informational: usize,
    read: usize,
    phase: Phase,
}

impl Exchange<'_> {
    /// Whether all of the answer was read.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Failure>> {
        self.send(cx);
        for _ in 0..IN_A_ROW {
            match self.phase {
                Phase::Head => {
                    let (head, end) = ready!(self.endpoint.poll_head(cx))?;
                    if head.is_interim() {
                        self.informational += 1;
                        if self.informational > INFORMATIONAL_MAX {
                            return Poll::Ready(Err(Failure::Protocol("heads".to_owned())));
                        }
                    } else if end {
                        return Poll::Ready(Ok(true));
                    } else {
                        self.phase = Phase::Body;
                    }
                }
                Phase::Body => match ready!(self.endpoint.poll_piece(cx))? {
                    Piece::Data(bytes) => {
                        self.read += bytes.len();
                        if self.read > ANSWER_MAX {
                            return Poll::Ready(Ok(false));
                        }
                    }
                    Piece::Last(_) | Piece::End(_) => return Poll::Ready(Ok(true)),
                },
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// As far as the endpoint takes it. What goes wrong shows when its answer is read.
    fn send(&mut self, cx: &mut Context<'_>) {
        while !self.body.is_empty() {
            if !matches!(self.endpoint.poll_room(cx), Poll::Ready(Ok(()))) {
                return;
            }
            let piece = if self.body.len() > PIECE {
                Piece::Data(self.body.split_to(PIECE))
            } else {
                Piece::Last(std::mem::take(&mut self.body))
            };
            if self.endpoint.send_piece(cx, piece).is_err() {
                return;
            }
        }
        self.endpoint.drive(cx);
    }
}
