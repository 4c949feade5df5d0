//! Attempts: one try at one endpoint after another, until one answers or trying ends.
//!
//! Each attempt loads the world anew, so that a verdict that changed meanwhile counts. What may be
//! repeated is decided in [`super::retry`], where it goes in [`crate::upstream::select`], and what
//! takes long enough for a second attempt beside it goes on in [`super::hedge`].

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use http::{Method, StatusCode};
use sealane_model::{EndpointProtocol, Failure};
use tokio::time::Instant;

use super::client::{Client, ClientError, Piece};
use super::context::{Inbound, RequestContext};
use super::endpoint::Endpoint;
use super::fields::Known;
use super::hash_key;
use super::headers::{self, Forwarding};
use super::hedge::{Race, Slow, Stage};
use super::message::{AnswerHead, RequestHead};
use super::outcome::{AttemptEnd, AttemptOutcome, answered, settle_attempt};
use super::overload;
use super::refuse::Refusal;
use super::relay::{Awaited, Upload, UploadError, await_head, poll_gone};
use super::retry::{self, GiveUp, Retry, Sent, Try, Wish};
use super::route::RouteState;
use super::rules::{self, websocket};
use super::{split, sticky};
use crate::alarm::Alarm;
use crate::clock;
use crate::config::{Destination, Percentile, Route, Tier};
use crate::door::Door;
use crate::io::Wire;
use crate::random;
use crate::upstream::hedging::{HedgeAsk, Hedged, Hedging, NoHedge};
use crate::upstream::route::Shed;
use crate::upstream::{self, LoadGuard, NoEndpoint, SelectAsk, Selected};

/// An endpoint has begun to answer.
pub(crate) struct Answer {
    pub(crate) endpoint: Endpoint,
    pub(crate) selected: Selected,
    pub(crate) load: LoadGuard,
    pub(crate) head: AnswerHead,
    /// The head is all of it.
    pub(crate) end: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Stop {
    Refused(Refusal),
    ClientGone,
}

/// One attempt that failed.
pub(super) struct Miss {
    pub(super) failure: Failure,
    pub(super) sent: Sent,
    pub(super) reused: bool,
    /// Decided already: an attempt that takes long is given up only if another one may follow.
    pub(super) decided: Option<Retry>,
    /// Another attempt ran beside it, and failed as well.
    pub(super) hedged: bool,
}

pub(super) enum Tried {
    Answered(Box<Answer>),
    Missed(Miss),
    /// Over without the endpoint's fault.
    Stopped(Stop),
}

enum Ran<'a> {
    /// With the load, unless an answer holds it.
    Over(Tried, Option<LoadGuard>),
    /// It has earned a second attempt beside it.
    Slow(Box<Slow<'a>>),
}

/// Tries endpoints until one answers.
pub(crate) async fn answer(
    client: &mut Client,
    route: &RouteState,
    request: &mut RequestContext,
    upload: &mut Upload,
    inbound: &Inbound,
    alarm: &mut Alarm,
) -> Result<Box<Answer>, Stop> {
    let shared = &inbound.worker.shared;
    let mut last_failure = None;
    let mut again_on: Option<Selected> = None;
    // A connection was closed when it was used.
    let mut was_stale = false;
    loop {
        if request.is_overdue() {
            return Err(Stop::Refused(Refusal::Deadline));
        }
        let fresh = again_on.is_some();
        let selected = match again_on.take() {
            Some(selected) => selected,
            None => choose(request, route, inbound, clock::now()).map_err(|none| {
                Stop::Refused(refusal(none, last_failure.take(), route, request))
            })?,
        };
        if !fresh {
            selected.arrived();
        }
        request.attempts += 1;
        request.tried.push(tried(&selected));
        request.selected = Some(selected.clone());
        let load = shared.loads.begin(selected.endpoint);
        let trial = Trial::new(route, request, &selected, inbound, fresh);
        let ran = Box::pin(trial.run(client, upload, load, alarm)).await;
        let (tried, load) = match ran {
            Ran::Over(tried, load) => (tried, load),
            Ran::Slow(slow) => {
                let race = Race {
                    route,
                    request,
                    inbound,
                    first: &selected,
                };
                Box::pin(race.run(*slow, client, upload, alarm)).await
            }
        };
        let miss = match tried {
            Tried::Answered(answer) => {
                if !route.rule.retry.on.has_answers() {
                    return Ok(answer);
                }
                let asked = ask_another(answer, route, request, client, upload, inbound, alarm);
                match Box::pin(asked).await? {
                    Some(answer) => return Ok(answer),
                    None => continue,
                }
            }
            Tried::Stopped(stop) => {
                selected.waited(clock::now().into_std());
                let end = AttemptEnd::Abandoned;
                settle(&selected, route, end, false, None, load, inbound);
                return Err(stop);
            }
            Tried::Missed(miss) => miss,
        };
        if is_stale(&miss, fresh, route, request, upload) {
            // The endpoint closed an idle connection just when we used it (RFC 9112 §9.3.1): that
            // is no word about the endpoint, and costs no attempt. It is work for endpoints all the same: if all of
            // them do so, it counts among the retries that they can bear.
            route.budget.charge(clock::now().into_std());
            was_stale = true;
            let end = AttemptEnd::Failed(&miss.failure);
            settle(&selected, route, end, true, None, load, inbound);
            // It was no attempt at this endpoint: the policy's number is for those.
            request.tried.pop();
            request.attempts -= 1;
            again_on = Some(selected.clone());
            continue;
        }
        if request.attempts > 1 || was_stale {
            route.budget.note_failed(clock::now().into_std());
        }
        note_time_out(request, &selected, &miss);
        let pause = pause(&miss.failure, Wish::Nothing, route, request);
        let retry = miss.decided.unwrap_or_else(|| {
            let about = About {
                failure: &miss.failure,
                sent: miss.sent,
                wish: Wish::Nothing,
                pause,
            };
            decide(&about, route, request, upload, inbound)
        });
        let end = AttemptEnd::Failed(&miss.failure);
        let again = Some(retry);
        settle(&selected, route, end, miss.reused, again, load, inbound);
        if retry == Retry::GiveUp(GiveUp::NoRoom) {
            let refused = overload::refuse(Shed::NoRoom, route, request);
            return Err(Stop::Refused(refused));
        }
        if retry != Retry::Again {
            return Err(Stop::Refused(Refusal::Failed(miss.failure)));
        }
        last_failure = Some(miss.failure);
        if !pause.is_zero() {
            Box::pin(wait(client, upload, alarm, pause)).await?;
        }
    }
}

fn note_time_out(request: &mut RequestContext, selected: &Selected, miss: &Miss) {
    let mut tried = request.tried.iter_mut().rev();
    if let Some(tried) = tried.find(|tried| tried.endpoint == selected.endpoint) {
        tried.timed_out = matches!(miss.failure, Failure::TimedOut | Failure::ConnectTimedOut);
    }
}

/// Whether the answer is one that another endpoint shall be asked instead of, and may. `None`: it
/// is settled, and the next attempt's time has come.
async fn ask_another(
    answer: Box<Answer>,
    route: &RouteState,
    request: &mut RequestContext,
    client: &mut Client,
    upload: &mut Upload,
    inbound: &Inbound,
    alarm: &mut Alarm,
) -> Result<Option<Box<Answer>>, Stop> {
    let unwelcome = retry::is_unwelcome(&route.rule.retry, &answer.head, request.is_grpc);
    if !unwelcome || client.wants_tunnel_only() {
        return Ok(Some(answer));
    }
    if request.attempts > 1 {
        route.budget.note_failed(clock::now().into_std());
    }
    let failure = Failure::Status {
        status: retry::status_of(&answer.head, request.is_grpc),
        expected: String::new(),
    };
    let wish = retry::wish_of(&answer.head);
    let pause = pause(&failure, wish, route, request);
    let about = About {
        failure: &failure,
        sent: Sent::HeadOrBody,
        wish,
        pause,
    };
    let retry = decide(&about, route, request, upload, inbound);
    if let Retry::GiveUp(why) = retry {
        route.metrics.not_retried(why);
        return Ok(Some(answer));
    }
    let Answer {
        endpoint,
        selected,
        load,
        end,
        ..
    } = *answer;
    if let Some(wire) = discard(endpoint, end, upload).await {
        inbound.worker.connections.keep(&selected, wire);
    }
    let end = AttemptEnd::Failed(&failure);
    let again = Some(retry);
    settle(&selected, route, end, false, again, Some(load), inbound);
    wait(client, upload, alarm, pause).await?;
    Ok(None)
}

/// Pieces of an answer that are read only to be thrown away: an error's body is most often there
/// already, and then its connection can serve on. What is not is cut off.
const PIECES_DISCARDED_MAX: usize = 8;

/// The wire, where it may serve another request.
async fn discard(mut endpoint: Endpoint, ended: bool, upload: &Upload) -> Option<Wire> {
    let to_its_end = poll_fn(|cx| {
        for _ in 0..PIECES_DISCARDED_MAX {
            match endpoint.poll_piece(cx) {
                Poll::Ready(Ok(Piece::Data(_))) => {}
                Poll::Ready(Ok(Piece::Last(_) | Piece::End(_))) => return Poll::Ready(true),
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        Poll::Ready(false)
    });
    let whole = ended || to_its_end.await;
    endpoint.finish(whole && upload.is_whole())
}

/// Lets time pass before the next attempt, unless the client leaves.
async fn wait(
    client: &mut Client,
    upload: &Upload,
    alarm: &mut Alarm,
    pause: Duration,
) -> Result<(), Stop> {
    if pause.is_zero() {
        return Ok(());
    }
    let until = clock::now() + pause;
    let mut half_closed = None;
    // Of a client that still sends its body nobody can tell whether it left without reading it.
    let looks = client.body_done() && upload.is_replayable();
    poll_fn(|cx| {
        if looks && poll_gone(cx, client, &mut half_closed).is_ready() {
            return Poll::Ready(Err(Stop::ClientGone));
        }
        alarm.poll_due(cx, until).map(Ok)
    })
    .await
}

pub(super) fn tried(selected: &Selected) -> upstream::Tried {
    upstream::Tried {
        region: selected.region,
        endpoint: selected.endpoint,
        timed_out: false,
    }
}

fn refusal(
    none: NoEndpoint,
    last: Option<Failure>,
    route: &RouteState,
    request: &RequestContext,
) -> Refusal {
    if none == NoEndpoint::NoRoom {
        return overload::refuse(Shed::NoRoom, route, request);
    }
    last.map_or(Refusal::NoEndpoint(none), Refusal::Failed)
}

pub(super) fn settle(
    selected: &Selected,
    route: &RouteState,
    end: AttemptEnd<'_>,
    reused: bool,
    retry: Option<Retry>,
    load: Option<LoadGuard>,
    inbound: &Inbound,
) {
    let outcome = AttemptOutcome {
        route,
        selected,
        end,
        reused,
        retry,
    };
    if let Some(load) = load {
        settle_attempt(&outcome, load, &inbound.worker.shared.observations);
    }
}

/// Whoever begins the attempt says so by [`Selected::arrived`].
fn choose(
    request: &RequestContext,
    route: &RouteState,
    inbound: &Inbound,
    now: Instant,
) -> Result<Selected, NoEndpoint> {
    let Some(to) = split::destination(route, request) else {
        return Err(NoEndpoint::NoMembers); // such routes answer by themselves
    };
    let world = inbound.worker.shared.world.load();
    let ask = ask_for(to, request, now);
    if let Some(selected) = sticky::select(request, inbound, &world, &ask) {
        return Ok(selected);
    }
    upstream::look(&world, &inbound.worker.endpoints, &ask)
}

/// What the next attempt's choice depends on.
pub(super) fn ask_for<'a>(
    to: &'a Destination,
    request: &'a RequestContext,
    now: Instant,
) -> SelectAsk<'a> {
    let hash = hash_key::of(&to.balance, request);
    SelectAsk {
        pool: to.pool,
        policy: &to.steering,
        balance: &to.balance,
        place: &request.place,
        key: hash.unwrap_or(request.key),
        hash,
        random: random::number(),
        may_shed: request.tier != Tier::First,
        now: now.into_std(),
        repeatable: request.head.method.is_idempotent(),
        tried: &request.tried,
    }
}

fn is_stale(
    miss: &Miss,
    fresh: bool,
    route: &RouteState,
    request: &RequestContext,
    upload: &Upload,
) -> bool {
    let head = &request.head;
    let policy = &route.rule.retry;
    miss.reused
        && !fresh
        && !miss.hedged
        && miss.failure == Failure::Closed
        && upload.is_replayable()
        && (miss.sent == Sent::Nothing || retry::may_repeat(policy, &head.method, &head.fields))
}

/// What has happened, for [`decide`].
pub(super) struct About<'a> {
    pub(super) failure: &'a Failure,
    pub(super) sent: Sent,
    pub(super) wish: Wish,
    /// Before the next attempt.
    pub(super) pause: Duration,
}

fn pause(failure: &Failure, wish: Wish, route: &RouteState, request: &RequestContext) -> Duration {
    let policy = &route.rule.retry;
    retry::pause(policy, failure, request.attempts, wish, random::number())
}

pub(super) fn decide(
    about: &About<'_>,
    route: &RouteState,
    request: &RequestContext,
    upload: &Upload,
    inbound: &Inbound,
) -> Retry {
    let now = clock::now();
    if let Err(none) = choose(request, route, inbound, now) {
        return Retry::GiveUp(match none {
            NoEndpoint::NoRoom => GiveUp::NoRoom,
            _ => GiveUp::NothingLeft,
        });
    }
    let attempt = Try {
        method: &request.head.method,
        fields: &request.head.fields,
        attempts_made: request.attempts,
        sent: about.sent,
        body_replayable: upload.is_replayable(),
        failure: about.failure,
        wish: about.wish,
        needs: about.pause + usual(route, now),
        left: ends_at(route, request, upload).saturating_duration_since(now),
    };
    retry::decide(&route.rule.retry, &attempt, &route.budget, now.into_std())
}

/// What half of the route's attempts take; nothing where that is not known.
fn usual(route: &RouteState, now: Instant) -> Duration {
    let latency = route.latency.as_ref();
    latency
        .and_then(|latency| latency.quantile(Percentile::P50, now.into_std()))
        .unwrap_or_default()
}

/// When there is no more time for any attempt: the client's deadline, or the route's.
fn ends_at(route: &RouteState, request: &RequestContext, upload: &Upload) -> Instant {
    let by_rule = give_up_at(route, request, upload);
    request.deadline.map_or(by_rule, |d| d.min(by_rule))
}

/// The end of all attempts: time in which the request's body was still arriving does not count.
pub(super) fn give_up_at(route: &RouteState, request: &RequestContext, upload: &Upload) -> Instant {
    let since = upload.arrived_at().unwrap_or(request.started);
    since.max(request.started) + route.rule.timeouts.request
}

/// While the retry budget is empty, an attempt that takes too long asks it again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// A connection that is being opened.
pub(super) type Opening<'a> = Pin<Box<dyn Future<Output = Result<Endpoint, Failure>> + 'a>>;

/// One try at one endpoint, and all that it needs to know.
pub(super) struct Trial<'a, 'r> {
    pub(super) route: &'a RouteState,
    pub(super) request: &'r RequestContext,
    pub(super) selected: &'a Selected,
    pub(super) inbound: &'a Inbound,
    fresh: bool,
    /// Which of the request's attempts it is, from 1 on.
    number: u32,
    /// How long it may take before another one may run beside it; `None`: that is out of question,
    /// or was refused.
    hedge_after: Cell<Option<Duration>>,
}

/// How an attempt goes on.
enum Next {
    Over(Tried),
    /// Beside another one.
    Hedge(Selected),
}

impl<'a, 'r> Trial<'a, 'r> {
    pub(super) const fn new(
        route: &'a RouteState,
        request: &'r RequestContext,
        selected: &'a Selected,
        inbound: &'a Inbound,
        fresh: bool,
    ) -> Self {
        Self {
            route,
            request,
            selected,
            inbound,
            fresh,
            number: request.attempts,
            hedge_after: Cell::new(None),
        }
    }

    /// An attempt that began before another one began beside it.
    pub(super) const fn first_of_two(
        route: &'a RouteState,
        request: &'r RequestContext,
        selected: &'a Selected,
        inbound: &'a Inbound,
    ) -> Self {
        Self {
            number: request.attempts - 1,
            ..Self::new(route, request, selected, inbound, false)
        }
    }

    async fn run(
        &self,
        client: &mut Client,
        upload: &mut Upload,
        load: LoadGuard,
        alarm: &mut Alarm,
    ) -> Ran<'a> {
        // The choice was made just now: no second look at the clock.
        let began = Instant::from_std(self.selected.began);
        let upgrade = self.wants_upgrade(client);
        if client.wants_tunnel_only() && !upgrade {
            let stop = Stop::Refused(Refusal::NoWebSocket);
            return Ran::Over(Tried::Stopped(stop), Some(load));
        }
        upload.restart(upgrade || is_bodiless(client, upload), began);
        if let Some(hedging) = &self.route.hedging {
            self.arm(hedging, upgrade, began);
        }
        let opened = if self.hedge_after.get().is_none() {
            self.open(began, upload).await
        } else {
            let opening: Opening<'a> = Box::pin(self.open(began, upload));
            match Box::pin(self.open_or_hedge(opening, client, upload, alarm)).await {
                Opened::Is(result) => result,
                Opened::Hedge(opening, second) => {
                    return Self::slow(Stage::Opening(opening), load, upload, second);
                }
            }
        };
        let mut endpoint = match opened {
            Ok(endpoint) => endpoint,
            Err(_) if self.request.is_overdue() => {
                let stop = Stop::Refused(Refusal::Deadline);
                return Ran::Over(Tried::Stopped(stop), Some(load));
            }
            Err(failure) => return Ran::Over(miss(failure, Sent::Nothing, false), Some(load)),
        };
        let reused = endpoint.is_reused();
        if let Err(failure) = self.send_head(&mut endpoint, upload.is_whole(), upgrade) {
            return Ran::Over(miss(failure, sent_by(&endpoint), reused), Some(load));
        }
        let awaited = self.await_head(client, &mut endpoint, upload, alarm);
        match awaited.await {
            Ok((head, _)) if head.status == StatusCode::SWITCHING_PROTOCOLS && !upgrade => {
                Ran::Over(switched_unasked(reused), Some(load))
            }
            Ok((head, _)) if client.wants_tunnel_only() && !self.is_tunnel(&head) => {
                endpoint.finish(false);
                let refused = if head.status == StatusCode::SWITCHING_PROTOCOLS {
                    Refusal::Failed(Failure::Protocol("WebSocket handshake".to_owned()))
                } else {
                    Refusal::NoWebSocket
                };
                Ran::Over(Tried::Stopped(Stop::Refused(refused)), Some(load))
            }
            Ok((head, end)) => {
                if !head.status.is_server_error() {
                    self.note_took(upload.moved_at());
                }
                self.selected
                    .answered(clock::now().into_std(), answered(&head));
                let answer = Answer {
                    endpoint,
                    selected: self.selected.clone(),
                    load,
                    head,
                    end,
                };
                Ran::Over(Tried::Answered(Box::new(answer)), None)
            }
            Err(Next::Hedge(second)) => {
                let stage = Stage::Asking(Box::new(endpoint));
                Self::slow(stage, load, upload, second)
            }
            Err(Next::Over(tried)) => {
                if matches!(&tried, Tried::Missed(miss) if miss.failure == Failure::TimedOut) {
                    endpoint.distrust();
                    self.note_took(upload.moved_at());
                }
                endpoint.finish(false);
                Ran::Over(tried, Some(load))
            }
        }
    }

    fn slow(stage: Stage<'a>, load: LoadGuard, upload: &Upload, second: Selected) -> Ran<'a> {
        Ran::Slow(Box::new(Slow {
            stage,
            load,
            since: upload.moved_at(),
            second,
        }))
    }

    /// The attempt took so long, or was given up after so long.
    pub(super) fn note_took(&self, since: Instant) {
        if let Some(latency) = &self.route.latency {
            let now = clock::now();
            let took = now.saturating_duration_since(since);
            latency.record(self.inbound.worker.index, took, now.into_std());
        }
    }

    /// Finds out whether and when another attempt may run beside this one.
    fn arm(&self, hedging: &Hedging, upgrade: bool, now: Instant) {
        let head = &self.request.head;
        let policy = &self.route.rule.retry;
        let hedged = self.request.hedge.get().is_some();
        if hedged || upgrade || !retry::may_repeat(policy, &head.method, &head.fields) {
            return;
        }
        if self.number == 1 && !self.fresh {
            hedging.deposit(self.inbound.worker.index);
        }
        if let (Some(hedge), Some(latency)) = (&self.route.rule.hedge, &self.route.latency) {
            let delay = Hedging::delay(hedge.after, latency, now.into_std());
            self.hedge_after.set(delay);
        }
    }

    /// When another attempt may begin. Not before everything was sent: until then it is the body
    /// that takes long.
    fn hedge_at(&self, upload: &Upload) -> Option<Instant> {
        let after = self.hedge_after.get()?;
        upload.is_whole().then(|| upload.moved_at() + after)
    }

    /// Where the other attempt goes, once its time has come and it is granted.
    fn rival(&self, client: &Client, upload: &Upload) -> Option<Selected> {
        self.hedge_after.set(None);
        match self.may_hedge(client, upload) {
            Ok(second) => Some(second),
            Err(why) => {
                self.request.hedge.set(Some(Hedged::Not(why)));
                None
            }
        }
    }

    /// How much of what the endpoints there bear they are doing.
    fn busy(&self, there: &Selected) -> Option<f32> {
        let shared = &self.inbound.worker.shared;
        shared.gates.busy(there.pool, there.region)
    }

    fn may_hedge(&self, client: &Client, upload: &Upload) -> Result<Selected, NoHedge> {
        let (route, request) = (self.route, self.request);
        let Some(hedging) = &route.hedging else {
            return Err(NoHedge::Budget); // such routes never ask
        };
        if !client.body_done() || !upload.is_replayable() {
            return Err(NoHedge::Body);
        }
        let now = clock::now();
        if now + usual(route, now) >= ends_at(route, request, upload) {
            return Err(NoHedge::OutOfTime);
        }
        let second = choose(request, route, self.inbound, now);
        let second = second.map_err(|_| NoHedge::NothingLeft)?;
        let ask = HedgeAsk {
            worker: self.inbound.worker.index,
            busy: self.busy(&second),
            tier: request.tier.number(),
        };
        hedging.allow(&ask, &route.budget, now.into_std())?;
        Ok(second)
    }

    /// As [`Trial::open`], until another attempt begins beside it.
    async fn open_or_hedge(
        &self,
        mut opening: Opening<'a>,
        client: &Client,
        upload: &Upload,
        alarm: &mut Alarm,
    ) -> Opened<'a> {
        loop {
            let at = self.hedge_at(upload);
            let opened = poll_fn(|cx| {
                if let Poll::Ready(opened) = opening.as_mut().poll(cx) {
                    return Poll::Ready(Some(opened));
                }
                match at {
                    Some(at) => alarm.poll_due(cx, at).map(|()| None),
                    None => Poll::Pending,
                }
            });
            if let Some(opened) = opened.await {
                return Opened::Is(opened);
            }
            if let Some(second) = self.rival(client, upload) {
                return Opened::Hedge(opening, second);
            }
        }
    }

    pub(super) fn open(
        &self,
        began: Instant,
        upload: &Upload,
    ) -> impl Future<Output = Result<Endpoint, Failure>> + use<'a> {
        let timeouts = &self.route.rule.timeouts;
        let until = ends_at(self.route, self.request, upload);
        let left = until.saturating_duration_since(began);
        let within = timeouts.connect.min(left);
        let connections = &self.inbound.worker.connections;
        connections.open(self.selected, within, self.fresh)
    }

    fn wants_upgrade(&self, client: &Client) -> bool {
        client.may_upgrade()
            && self.selected.protocol == EndpointProtocol::Http1
            && headers::wants_upgrade(&self.request.head.fields)
    }

    /// Whether such an answer may be passed to a client that asked for a WebSocket over HTTP/2: a
    /// proper switch, or a plain no.
    fn is_tunnel(&self, head: &AnswerHead) -> bool {
        let key = self.request.head.fields.get(Known::WebsocketKey);
        match head.status {
            StatusCode::SWITCHING_PROTOCOLS => {
                websocket::is_answered(&head.fields, key.unwrap_or_default())
            }
            status => !status.is_success(),
        }
    }

    pub(super) fn send_head(
        &self,
        endpoint: &mut Endpoint,
        end: bool,
        upgrade: bool,
    ) -> Result<(), Failure> {
        let Self {
            request, inbound, ..
        } = self;
        let rule = &self.route.rule;
        let head = head_for_endpoint(rule, request, inbound, upgrade, self.number);
        endpoint.send_head(head, end)
    }

    async fn await_head(
        &self,
        client: &mut Client,
        endpoint: &mut Endpoint,
        upload: &mut Upload,
        alarm: &mut Alarm,
    ) -> Result<(AnswerHead, bool), Next> {
        let reused = endpoint.is_reused();
        let first_patience = self.patience();
        let mut patience = Some(first_patience);
        let stopped = |stop| Err(Next::Over(Tried::Stopped(stop)));
        loop {
            let due = |upload: &Upload| self.due(upload, patience).0;
            let failure = match await_head(client, endpoint, upload, alarm, due).await {
                Awaited::Head(head, end) => return Ok((head, end)),
                Awaited::Failed(failure) => failure,
                Awaited::ClientGone => return stopped(Stop::ClientGone),
                Awaited::Upload(error) => return stopped(stop_of(error)),
                Awaited::Due => match self.due(upload, patience).1 {
                    Due::Client => return stopped(Stop::Refused(Refusal::BodyTimedOut)),
                    Due::Deadline => return stopped(Stop::Refused(Refusal::Deadline)),
                    Due::Request => return Err(Next::Over(out_of_time(reused))),
                    Due::Hedge => match self.rival(client, upload) {
                        Some(second) => return Err(Next::Hedge(second)),
                        None => continue,
                    },
                    Due::Attempt => match self.leave_for_another(upload, reused) {
                        Ok(miss) => return Err(Next::Over(Tried::Missed(miss))),
                        Err(why) => {
                            if patience == Some(first_patience) {
                                self.route.metrics.not_retried(why);
                            }
                            patience = patience.filter(|_| why == GiveUp::BudgetEmpty);
                            patience = patience.map(|patience| patience + ASK_AGAIN);
                            continue;
                        }
                    },
                },
            };
            return Err(Next::Over(miss(failure, sent_by(endpoint), reused)));
        }
    }

    /// The attempt takes long: given up if another endpoint may be tried, else waited for.
    pub(super) fn leave_for_another(&self, upload: &Upload, reused: bool) -> Result<Miss, GiveUp> {
        let about = About {
            failure: &Failure::TimedOut,
            sent: Sent::HeadOrBody,
            wish: Wish::Nothing,
            // It has waited long enough.
            pause: Duration::ZERO,
        };
        let retry = decide(&about, self.route, self.request, upload, self.inbound);
        if let Retry::GiveUp(why) = retry {
            return Err(why);
        }
        Ok(Miss {
            failure: Failure::TimedOut,
            sent: Sent::HeadOrBody,
            reused,
            decided: Some(retry),
            hedged: false,
        })
    }

    /// How long this attempt may take while another one may follow.
    pub(super) fn patience(&self) -> Duration {
        let timeouts = &self.route.rule.timeouts;
        let (Some(adaptive), Some(latency)) = (&timeouts.adaptive, &self.route.latency) else {
            return timeouts.attempt;
        };
        let usual = latency.quantile(adaptive.of, clock::now().into_std());
        adaptive.patience(usual, timeouts.attempt)
    }

    /// Until when to wait, and whose time that is. `patience`: of this attempt.
    fn due(&self, upload: &Upload, patience: Option<Duration>) -> (Instant, Due) {
        let due = self.due_by_rule(upload, patience);
        let due = match self.hedge_at(upload) {
            Some(at) if at < due.0 => (at, Due::Hedge),
            _ => due,
        };
        match self.request.deadline {
            Some(deadline) if deadline <= due.0 => (deadline, Due::Deadline),
            _ => due,
        }
    }

    fn due_by_rule(&self, upload: &Upload, patience: Option<Duration>) -> (Instant, Due) {
        if upload.waits_for_client() && !self.expects_continue(upload) {
            let idle = self.route.rule.timeouts.idle;
            return (upload.moved_at() + idle, Due::Client);
        }
        let end = give_up_at(self.route, self.request, upload);
        match patience.map(|patience| upload.moved_at() + patience) {
            Some(attempt) if attempt < end => (attempt, Due::Attempt),
            _ => (end, Due::Request),
        }
    }

    /// The client holds its body back until the endpoint asks for it (RFC 9110 §10.1.1).
    fn expects_continue(&self, upload: &Upload) -> bool {
        upload.received() == 0 && self.request.head.fields.contains(Known::Expect)
    }
}

/// What became of a connection that was being opened.
enum Opened<'a> {
    Is(Result<Endpoint, Failure>),
    /// It takes long.
    Hedge(Opening<'a>, Selected),
}

/// Whose time was up.
enum Due {
    Client,
    Attempt,
    /// Another attempt may begin beside this one.
    Hedge,
    Request,
    /// The client's own.
    Deadline,
}

/// The request's head as an endpoint is to see it. `number`: of the attempt, from 1.
pub(super) fn head_for_endpoint(
    rule: &Route,
    request: &RequestContext,
    inbound: &Inbound,
    upgrade: bool,
    number: u32,
) -> RequestHead {
    let mut head = request.head.for_attempt();
    let received = head.version;
    let door = inbound.door.as_deref().filter(|_| request.asked);
    headers::toward_endpoint(
        &mut head.fields,
        &Forwarding {
            peer: &inbound.peer,
            trusted_peer: request.trusted_peer,
            scheme: inbound.scheme,
            request_id: &request.request_id,
            identity: door.and_then(Door::identity),
            upgrade,
            received,
        },
    );
    if number > 1 {
        headers::say_attempt(&mut head.fields, number, request.is_grpc);
    }
    sticky::toward_endpoint(&mut head.fields, rule);
    rules::toward_endpoint(&mut head, rule, request, inbound.scheme);
    head
}

pub(super) fn sent_by(endpoint: &Endpoint) -> Sent {
    if endpoint.is_unprocessed() {
        Sent::Nothing
    } else {
        Sent::HeadOrBody
    }
}

fn is_bodiless(client: &Client, upload: &Upload) -> bool {
    client.body_done() && upload.is_empty()
}

fn miss(failure: Failure, sent: Sent, reused: bool) -> Tried {
    Tried::Missed(Miss {
        failure,
        sent,
        reused,
        decided: None,
        hedged: false,
    })
}

fn switched_unasked(reused: bool) -> Tried {
    let failure = Failure::Protocol("switched protocols unasked".to_owned());
    miss(failure, Sent::HeadOrBody, reused)
}

fn out_of_time(reused: bool) -> Tried {
    Tried::Missed(Miss {
        failure: Failure::TimedOut,
        sent: Sent::HeadOrBody,
        reused,
        // Another endpoint would be given no time, and then blamed for it.
        decided: Some(Retry::GiveUp(GiveUp::OutOfTime)),
        hedged: false,
    })
}

pub(crate) fn stop_of(error: UploadError) -> Stop {
    match error {
        UploadError::TooLarge => Stop::Refused(Refusal::BodyTooLarge),
        UploadError::Client(ClientError::Malformed) => {
            Stop::Refused(Refusal::Malformed("the body"))
        }
        UploadError::Client(ClientError::Gone | ClientError::Unsendable) => Stop::ClientGone,
    }
}

/// Whether an answer to this request never has a body (RFC 9112 §6.3, rule 1).
pub(crate) fn is_bodiless_answer(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
