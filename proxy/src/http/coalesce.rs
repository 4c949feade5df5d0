//! Identical requests that come together are one attempt: many wait for what one asks (card 7).
//!
//! Called by [`super::exchange`] before a request's own attempts. Whoever comes first begins a
//! [`flight`]: it makes the attempt, in its own task while its client stays, and in one of its own
//! afterwards, as long as anybody waits. Everybody, the first one included, reads the answer from the
//! flight and treats it as if it came from the endpoint. [`key`] says who asks the same, [`judge`]
//! whether the answer is for all of them, [`table`] finds what is under way.
//!
//! Never shares what one user may see with another: see [`key`] and [`judge`]. Keeps nothing once an
//! answer is over: it is no cache.

pub(crate) mod flight;
mod judge;
mod key;
mod part;
pub(crate) mod table;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use http::StatusCode;
use sealane_model::Arrival;
use tokio::sync::OwnedSemaphorePermit;

use self::flight::{Bounds, Chosen, Lead, Reader, Told};
use self::key::Asked;
pub(crate) use self::part::Part;
use self::table::{APART_FOR, Turn};
use super::attempt::{Answer, Stop, answer, is_bodiless_answer};
use super::client::Client;
use super::context::{Inbound, RequestContext};
use super::endpoint::Endpoint;
use super::exchange;
use super::message::AnswerHead;
use super::mirror;
use super::overload;
use super::refuse::Refusal;
use super::relay::{Awaited, Relayed, Terms, Upload, await_head, relay};
use super::route::RouteState;
use super::split::Way;
use crate::alarm::Alarm;
use crate::clock;
use crate::config::Coalesce;
use crate::door::Door;
use crate::upstream::Selected;

/// What became of a request that might share.
pub(super) enum Shared {
    /// It was answered, by its own attempt or by another one's.
    Served,
    /// It goes on by itself. The permit, if there is one, is to be held meanwhile.
    Apart(Option<OwnedSemaphorePermit>),
}

/// Leaders that one request loses before it goes on by itself.
const LEADERS_MAX: usize = 3;

/// Serves the request together with others that ask the same, if there are any, or so that others
/// may join.
pub(super) async fn share(
    client: &mut Client,
    rule: &Coalesce,
    route: &Arc<RouteState>,
    request: &mut RequestContext,
    inbound: &Inbound,
    alarm: &mut Alarm,
) -> Result<Shared, Stop> {
    let apart = |request: &mut RequestContext, part: Option<Part>, permit| {
        if let Some(part) = part {
            note(request, route, part);
        }
        Ok(Shared::Apart(permit))
    };
    let key = match key_of(client, rule, route, request, inbound) {
        Ok(key) => key,
        Err(part) => return apart(request, part, None),
    };
    let flights = &inbound.worker.shared.flights;
    let wait = rule.wait_within(route.rule.timeouts.request);
    for _ in 0..LEADERS_MAX {
        let now = clock::now();
        let bounds = Bounds {
            followers: rule.followers,
            body_max: usize::try_from(rule.body_max).unwrap_or(usize::MAX),
            joined_until: now + wait,
        };
        let followed = match flights.turn(&key, bounds, now) {
            Turn::Alone(part) => return apart(request, Some(part), None),
            Turn::Lead(lead, reader) => {
                return start(client, lead, reader, route, request, inbound, alarm).await;
            }
            Turn::Follow(reader) => {
                follow(client, reader, Some(wait), request, inbound, alarm).await?
            }
        };
        match followed {
            Followed::Served => {
                note(request, route, Part::Followed);
                return Ok(Shared::Served);
            }
            Followed::Refused(refusal) => {
                note(request, route, Part::Followed);
                return Err(Stop::Refused(refusal));
            }
            Followed::Released(part, permit) => return apart(request, Some(part), permit),
            Followed::Lost => {}
        }
    }
    apart(request, Some(Part::Lost), None)
}

fn note(request: &mut RequestContext, route: &RouteState, part: Part) {
    request.shared = Some(part);
    route.metrics.coalesced(part);
}

fn key_of(
    client: &Client,
    rule: &Coalesce,
    route: &Arc<RouteState>,
    request: &RequestContext,
    inbound: &Inbound,
) -> Result<key::Key, Option<Part>> {
    if !client.body_done() || client.wants_tunnel_only() || request.is_grpc {
        return Err(None);
    }
    let door = inbound.door.as_deref().filter(|_| request.asked);
    let asked = Asked {
        head: &request.head,
        scheme: inbound.scheme,
        // A canary's answers are for its own: as if it were another route.
        route: Arc::as_ptr(route) as usize + request.way.as_ref().map_or(0, Way::number),
        trusted_peer: request.trusted_peer,
        identity: door.and_then(Door::identity),
    };
    key::key(rule, &asked)
}

/// Begins an attempt that others may join, and serves this request from it.
async fn start(
    client: &mut Client,
    lead: Lead,
    reader: Reader,
    route: &Arc<RouteState>,
    request: &mut RequestContext,
    inbound: &Inbound,
    alarm: &mut Alarm,
) -> Result<Shared, Stop> {
    let flight = Arc::clone(reader.flight());
    let leading = run(lead, Arc::clone(route), request.clone(), inbound.clone());
    let mut leading = Leading(Some(Box::pin(leading)));
    let followed = {
        let following = follow(client, reader, None, request, inbound, alarm);
        let mut following = Box::pin(following);
        poll_fn(|cx| {
            leading.poll(cx);
            following.as_mut().poll(cx)
        })
        .await
    };
    leading.let_go();
    if flight.was_shared() {
        note(request, route, Part::Led);
    }
    let (chosen, attempts) = flight.chosen();
    request.attempts = attempts;
    request.selected = chosen.and_then(|chosen| selected(&chosen, inbound));
    match followed? {
        Followed::Served => Ok(Shared::Served),
        Followed::Refused(refusal) => Err(Stop::Refused(refusal)),
        // Another one was so fast that the beginning is gone, or its attempt panicked.
        Followed::Released(_, permit) => Ok(Shared::Apart(permit)),
        Followed::Lost => Ok(Shared::Apart(None)),
    }
}

/// The attempt of a flight. It runs within the task of the one who began it: as long as nobody
/// leaves, a request of its own costs no task.
struct Leading(Option<Pin<Box<dyn Future<Output = ()>>>>);

impl Leading {
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(running) = &mut self.0
            && running.as_mut().poll(cx).is_ready()
        {
            self.0 = None;
        }
    }

    /// The one who began it has left or has all it wants. If others still wait, the attempt goes on
    /// by itself; it ends with them, as it then sees.
    fn let_go(mut self) {
        self.poll(&mut Context::from_waker(Waker::noop()));
        if let Some(running) = self.0.take() {
            tokio::task::spawn_local(running);
        }
    }
}

/// Makes the attempt, and writes its answer down for all who read it.
async fn run(lead: Lead, route: Arc<RouteState>, mut request: RequestContext, inbound: Inbound) {
    let Some(rule) = &route.rule.options.coalesce else {
        return; // there is no flight without
    };
    let flight = Arc::clone(&lead.0);
    let _closing = Closing {
        flight: &flight,
        inbound: &inbound,
    };
    // A shared attempt takes the places of one request; without one, nobody who follows gets in.
    let mut places = match overload::enter(&route, &mut request, &inbound).await {
        Ok(places) => places,
        Err(refusal) => return lead.refuse(refusal),
    };
    route.budget.deposit(clock::now().into_std());
    let mut client = Client::Shared(Box::new(lead));
    let mut alarm = Alarm::default();
    let mut upload = Upload::new(
        None,
        false,
        &inbound.worker.kept_for_replay,
        request.started,
    );
    if let Some(rule) = &route.rule.options.mirror {
        mirror::begin(rule, &route, &request, true, &mut upload, &inbound);
    }
    let answered = answer(
        &mut client,
        &route,
        &mut request,
        &mut upload,
        &inbound,
        &mut alarm,
    );
    let answered = answered.await;
    places.answered(&answered, &request, &upload, &route);
    let Client::Shared(lead) = &client else {
        return;
    };
    lead.note(request.selected.as_ref().map(chosen), request.attempts);
    match answered {
        Ok(answer) => {
            if let Some(why) = judge::obstacle(rule, &answer.head, request.trusted_peer) {
                let until = why.lasts().then(|| clock::now() + APART_FOR);
                inbound.worker.shared.flights.close(&flight, until);
                lead.set_apart(why);
            }
            write_down(client, *answer, &route, &request, upload, &inbound, alarm).await;
        }
        Err(Stop::Refused(refusal)) => {
            // For all: each of them has had the attempts that one has, and trying again for each
            // would be the storm that retry budgets are there to prevent.
            lead.refuse(refusal);
        }
        Err(Stop::ClientGone) => {}
    }
}

async fn write_down(
    mut client: Client,
    mut answer: Answer,
    route: &RouteState,
    request: &RequestContext,
    mut upload: Upload,
    inbound: &Inbound,
    mut alarm: Alarm,
) {
    upload.keep_no_more();
    let end = answer.end || is_bodiless_answer(&request.head.method, answer.head.status);
    let head = std::mem::replace(&mut answer.head, AnswerHead::new(StatusCode::OK));
    let relayed = if client.send_head(head, end).is_err() {
        Relayed::ClientGone
    } else if end {
        Relayed::Whole
    } else {
        let terms = Terms {
            idle: route.rule.timeouts.idle,
            deadline: None,
            squeeze: None,
        };
        let (endpoint, sent) = (&mut answer.endpoint, &mut 0);
        relay(&mut client, endpoint, &mut upload, terms, &mut alarm, sent).await
    };
    let whole = relayed == Relayed::Whole;
    exchange::settle_answer(answer, &relayed, whole, route, inbound);
    if !whole {
        client.cut();
        tracing::debug!("a shared answer broke off: {relayed:?}");
    }
}

/// However the attempt ends, nobody joins it afterwards.
struct Closing<'a> {
    flight: &'a Arc<flight::Flight>,
    inbound: &'a Inbound,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let flights = &self.inbound.worker.shared.flights;
        flights.close(self.flight, None);
    }
}

/// How waiting for another one's answer ended.
enum Followed {
    Served,
    Refused(Refusal),
    Released(Part, Option<OwnedSemaphorePermit>),
    Lost,
}

/// Serves the request from a flight. `wait`: how long it waits for the answer's head, and then for
/// its turn to go on by itself; `None`: as long as the attempt takes.
async fn follow(
    client: &mut Client,
    reader: Reader,
    wait: Option<Duration>,
    request: &mut RequestContext,
    inbound: &Inbound,
    alarm: &mut Alarm,
) -> Result<Followed, Stop> {
    let began = clock::now();
    let mut upload = Upload::new(None, false, &inbound.worker.kept_for_replay, began);
    upload.restart(true, began);
    let mut endpoint = Endpoint::Shared(Box::new(reader));
    let mut due = began + wait.unwrap_or(LEADING_MAX);
    let mut released = None;
    loop {
        let awaited = await_head(client, &mut endpoint, &mut upload, alarm, |_| due).await;
        let Endpoint::Shared(reader) = &mut endpoint else {
            return Ok(Followed::Lost);
        };
        let why = match awaited {
            Awaited::Head(head, end) => {
                let (chosen, _) = reader.flight().chosen();
                request.selected = chosen.and_then(|chosen| selected(&chosen, inbound));
                let (endpoint, upload) = (&mut endpoint, &mut upload);
                let begun = (head, end);
                exchange::pass_on(client, endpoint, begun, upload, request, inbound, alarm).await;
                return Ok(Followed::Served);
            }
            Awaited::ClientGone | Awaited::Upload(_) => return Err(Stop::ClientGone),
            Awaited::Due => match (released, wait) {
                (Some(why), _) => return Ok(Followed::Released(why, None)),
                (None, _) => Part::Waited,
            },
            Awaited::Failed(_) => match reader.told() {
                Told::Refused(refusal) => return Ok(Followed::Refused(refusal)),
                Told::Turn(permit) => {
                    let why = released.unwrap_or(Part::Waited);
                    return Ok(Followed::Released(why, Some(permit)));
                }
                Told::Released(why) => why,
                Told::Lost => return Ok(Followed::Lost),
            },
        };
        released = Some(why);
        reader.queue();
        due = clock::now() + wait.unwrap_or_default();
    }
}

/// The attempt has its own time-outs, which come first.
const LEADING_MAX: Duration = Duration::from_secs(24 * 60 * 60);

fn chosen(selected: &Selected) -> Chosen {
    Chosen {
        endpoint: selected.endpoint,
        address: selected.address,
        reason: selected.reason,
        choice: selected.choice,
        ignored_health: selected.ignored_health,
    }
}

/// The same as this worker knows it; `None` if it has left the topology meanwhile.
fn selected(chosen: &Chosen, inbound: &Inbound) -> Option<Selected> {
    let world = inbound.worker.shared.world.load();
    let known = inbound.worker.endpoints.find(&world, chosen.endpoint)?;
    Some(Selected {
        known,
        address: chosen.address,
        reason: chosen.reason,
        choice: chosen.choice,
        ignored_health: chosen.ignored_health,
        began: clock::now().into_std(),
        // The attempt is counted already.
        arrival: Arrival::Extra,
        has_limit: false,
        answered: Cell::new(true), // the attempt is another one's to settle
    })
}
