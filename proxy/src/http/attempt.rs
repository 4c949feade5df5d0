//! Attempts: one try at one endpoint after another, until one answers or trying ends.
//!
//! Each attempt loads the world anew, so that a verdict that changed meanwhile counts. What may be
//! repeated is decided in [`super::retry`], where it goes in [`crate::upstream::select`].

use std::time::Duration;

use http::{Method, StatusCode};
use sealane_model::{EndpointProtocol, Failure};
use tokio::time::Instant;

use super::client::{Client, ClientError};
use super::context::{Inbound, RequestContext};
use super::endpoint::Endpoint;
use super::fields::Known;
use super::headers::{self, Forwarding};
use super::message::AnswerHead;
use super::outcome::{AttemptEnd, AttemptOutcome, settle_attempt};
use super::refuse::Refusal;
use super::relay::{Awaited, Upload, UploadError, await_head};
use super::retry::{self, GiveUp, Retry, Sent, Try};
use super::route::RouteState;
use super::rules::{self, websocket};
use crate::alarm::Alarm;
use crate::clock;
use crate::config::Action;
use crate::door::Door;
use crate::random;
use crate::upstream::{self, LoadGuard, NoEndpoint, SelectAsk, Selected, select};

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
struct Miss {
    failure: Failure,
    sent: Sent,
    reused: bool,
    /// Decided already: an attempt that takes long is given up only if another one may follow.
    decided: Option<Retry>,
}

enum Tried {
    Answered(Box<Answer>),
    Missed(Miss),
    /// Over without the endpoint's fault.
    Stopped(Stop),
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
    loop {
        if request.is_overdue() {
            return Err(Stop::Refused(Refusal::Deadline));
        }
        let fresh = again_on.is_some();
        let selected = match again_on.take() {
            Some(selected) => selected,
            None => choose(request, route, inbound)
                .map_err(|none| Stop::Refused(refusal(none, last_failure.take())))?,
        };
        request.attempts += 1;
        request.tried.push(tried(&selected));
        request.selected = Some(selected.clone());
        let load = shared.loads.begin(selected.endpoint);
        let trial = Trial {
            route,
            request,
            selected: &selected,
            inbound,
            fresh,
        };
        let result = Box::pin(trial.run(client, upload, load, alarm)).await;
        let (miss, load) = match result {
            (Tried::Answered(answer), _) => return Ok(answer),
            (Tried::Stopped(stop), load) => {
                settle(
                    &selected,
                    route,
                    AttemptEnd::Abandoned,
                    false,
                    None,
                    load,
                    inbound,
                );
                return Err(stop);
            }
            (Tried::Missed(miss), load) => (miss, load),
        };
        if is_stale(&miss, fresh, request, upload) {
            // The endpoint closed an idle connection just when we used it (RFC 9112 §9.3.1): that
            // is no word about the endpoint, and costs neither an attempt nor the budget.
            let end = AttemptEnd::Failed(&miss.failure);
            settle(&selected, route, end, true, None, load, inbound);
            // It was no attempt at this endpoint: the policy's number is for those.
            request.tried.pop();
            request.attempts -= 1;
            again_on = Some(selected);
            continue;
        }
        if let Some(last) = request.tried.last_mut() {
            last.timed_out = matches!(miss.failure, Failure::TimedOut | Failure::ConnectTimedOut);
        }
        let retry = miss
            .decided
            .unwrap_or_else(|| decide(&miss, route, request, upload, inbound));
        let end = AttemptEnd::Failed(&miss.failure);
        settle(
            &selected,
            route,
            end,
            miss.reused,
            Some(retry),
            load,
            inbound,
        );
        if retry != Retry::Again {
            return Err(Stop::Refused(Refusal::Failed(miss.failure)));
        }
        last_failure = Some(miss.failure);
    }
}

fn tried(selected: &Selected) -> upstream::Tried {
    upstream::Tried {
        region: selected.region,
        endpoint: selected.endpoint,
        timed_out: false,
    }
}

fn refusal(none: NoEndpoint, last: Option<Failure>) -> Refusal {
    last.map_or(Refusal::NoEndpoint(none), Refusal::Failed)
}

fn settle(
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

fn choose(
    request: &RequestContext,
    route: &RouteState,
    inbound: &Inbound,
) -> Result<Selected, NoEndpoint> {
    let Action::Forward(to) = &route.rule.action else {
        return Err(NoEndpoint::NoMembers); // such routes answer by themselves
    };
    let shared = &inbound.worker.shared;
    let world = shared.world.load();
    let ask = SelectAsk {
        pool: to.pool,
        policy: &to.steering,
        place: &request.place,
        key: request.key,
        random: random::number(),
        tried: &request.tried,
    };
    select(&world, &inbound.worker.endpoints, &ask)
}

fn is_stale(miss: &Miss, fresh: bool, request: &RequestContext, upload: &Upload) -> bool {
    let head = &request.head;
    miss.reused
        && !fresh
        && miss.failure == Failure::Closed
        && upload.is_replayable()
        && (miss.sent == Sent::Nothing || retry::may_repeat(&head.method, &head.fields))
}

fn decide(
    miss: &Miss,
    route: &RouteState,
    request: &RequestContext,
    upload: &Upload,
    inbound: &Inbound,
) -> Retry {
    if choose(request, route, inbound).is_err() {
        return Retry::GiveUp(GiveUp::NothingLeft);
    }
    let attempt = Try {
        method: &request.head.method,
        fields: &request.head.fields,
        attempts_made: request.attempts,
        sent: miss.sent,
        body_replayable: upload.is_replayable(),
        failure: &miss.failure,
    };
    let now = clock::now().into_std();
    retry::decide(&route.rule.retry, &attempt, &route.budget, now)
}

/// While the retry budget is empty, an attempt that takes too long asks it again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// One try at one endpoint, and all that it needs to know.
struct Trial<'a> {
    route: &'a RouteState,
    request: &'a RequestContext,
    selected: &'a Selected,
    inbound: &'a Inbound,
    fresh: bool,
}

impl Trial<'_> {
    async fn run(
        &self,
        client: &mut Client,
        upload: &mut Upload,
        load: LoadGuard,
        alarm: &mut Alarm,
    ) -> (Tried, Option<LoadGuard>) {
        let began = clock::now();
        let upgrade = self.wants_upgrade(client);
        if client.wants_tunnel_only() && !upgrade {
            let stop = Stop::Refused(Refusal::NoWebSocket);
            return (Tried::Stopped(stop), Some(load));
        }
        upload.restart(upgrade || is_bodiless(client, upload), began);
        let mut endpoint = match self.open(began, upload).await {
            Ok(endpoint) => endpoint,
            Err(_) if self.request.is_overdue() => {
                let stop = Stop::Refused(Refusal::Deadline);
                return (Tried::Stopped(stop), Some(load));
            }
            Err(failure) => return (miss(failure, Sent::Nothing, false), Some(load)),
        };
        let reused = endpoint.is_reused();
        if let Err(failure) = self.send_head(&mut endpoint, upload.is_whole(), upgrade) {
            return (miss(failure, sent_by(&endpoint), reused), Some(load));
        }
        let awaited = self.await_head(client, &mut endpoint, upload, alarm);
        match awaited.await {
            Ok((head, _)) if head.status == StatusCode::SWITCHING_PROTOCOLS && !upgrade => {
                let failure = Failure::Protocol("switched protocols unasked".to_owned());
                (miss(failure, Sent::HeadOrBody, reused), Some(load))
            }
            Ok((head, _)) if client.wants_tunnel_only() && !self.is_tunnel(&head) => {
                endpoint.finish(false);
                let refused = if head.status == StatusCode::SWITCHING_PROTOCOLS {
                    Refusal::Failed(Failure::Protocol("WebSocket handshake".to_owned()))
                } else {
                    Refusal::NoWebSocket
                };
                (Tried::Stopped(Stop::Refused(refused)), Some(load))
            }
            Ok((head, end)) => {
                let answer = Answer {
                    endpoint,
                    selected: self.selected.clone(),
                    load,
                    head,
                    end,
                };
                (Tried::Answered(Box::new(answer)), None)
            }
            Err(tried) => {
                if matches!(&tried, Tried::Missed(miss) if miss.failure == Failure::TimedOut) {
                    endpoint.distrust();
                }
                endpoint.finish(false);
                (tried, Some(load))
            }
        }
    }

    async fn open(&self, began: Instant, upload: &Upload) -> Result<Endpoint, Failure> {
        let timeouts = &self.route.rule.timeouts;
        let give_up_at = self.give_up_at(upload);
        let until = self
            .request
            .deadline
            .map_or(give_up_at, |d| d.min(give_up_at));
        let left = until.saturating_duration_since(began);
        let within = timeouts.connect.min(left);
        let connections = &self.inbound.worker.connections;
        connections.open(self.selected, within, self.fresh).await
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

    fn send_head(&self, endpoint: &mut Endpoint, end: bool, upgrade: bool) -> Result<(), Failure> {
        let mut head = self.request.head.for_attempt();
        let received = head.version;
        let door = self.inbound.door.as_ref().filter(|_| self.request.asked);
        headers::toward_endpoint(
            &mut head.fields,
            &Forwarding {
                peer: &self.inbound.peer,
                trusted_peer: self.request.trusted_peer,
                scheme: self.inbound.scheme,
                request_id: &self.request.request_id,
                identity: door.and_then(Door::identity),
                upgrade,
                received,
            },
        );
        rules::toward_endpoint(
            &mut head,
            &self.route.rule,
            self.request,
            self.inbound.scheme,
        );
        endpoint.send_head(head, end)
    }

    async fn await_head(
        &self,
        client: &mut Client,
        endpoint: &mut Endpoint,
        upload: &mut Upload,
        alarm: &mut Alarm,
    ) -> Result<(AnswerHead, bool), Tried> {
        let reused = endpoint.is_reused();
        let mut patience = Some(self.route.rule.timeouts.attempt);
        loop {
            let due = |upload: &Upload| self.due(upload, patience).0;
            let failure = match await_head(client, endpoint, upload, alarm, due).await {
                Awaited::Head(head, end) => return Ok((*head, end)),
                Awaited::Failed(failure) => failure,
                Awaited::ClientGone => return Err(Tried::Stopped(Stop::ClientGone)),
                Awaited::Upload(error) => return Err(Tried::Stopped(stop_of(error))),
                Awaited::Due => match self.due(upload, patience).1 {
                    Due::Client => {
                        return Err(Tried::Stopped(Stop::Refused(Refusal::BodyTimedOut)));
                    }
                    Due::Deadline => {
                        return Err(Tried::Stopped(Stop::Refused(Refusal::Deadline)));
                    }
                    Due::Request => {
                        return Err(Tried::Missed(Miss {
                            failure: Failure::TimedOut,
                            sent: Sent::HeadOrBody,
                            reused,
                            // Another endpoint would be given no time, and then blamed for it.
                            decided: Some(Retry::GiveUp(GiveUp::OutOfTime)),
                        }));
                    }
                    Due::Attempt => match self.leave_for_another(upload, reused) {
                        Ok(tried) => return Err(tried),
                        Err(why) => {
                            if patience == Some(self.route.rule.timeouts.attempt) {
                                self.route.metrics.not_retried(why);
                            }
                            patience = patience.filter(|_| why == GiveUp::BudgetEmpty);
                            patience = patience.map(|patience| patience + ASK_AGAIN);
                            continue;
                        }
                    },
                },
            };
            return Err(miss(failure, sent_by(endpoint), reused));
        }
    }

    /// The attempt takes long: given up if another endpoint may be tried, else waited for.
    fn leave_for_another(&self, upload: &Upload, reused: bool) -> Result<Tried, GiveUp> {
        let mut miss = Miss {
            failure: Failure::TimedOut,
            sent: Sent::HeadOrBody,
            reused,
            decided: None,
        };
        let retry = decide(&miss, self.route, self.request, upload, self.inbound);
        if let Retry::GiveUp(why) = retry {
            return Err(why);
        }
        miss.decided = Some(retry);
        Ok(Tried::Missed(miss))
    }

    /// Until when to wait, and whose time that is. `patience`: of this attempt.
    fn due(&self, upload: &Upload, patience: Option<Duration>) -> (Instant, Due) {
        let due = self.due_by_rule(upload, patience);
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
        let request = (self.give_up_at(upload), Due::Request);
        match patience.map(|patience| upload.moved_at() + patience) {
            Some(attempt) if attempt < request.0 => (attempt, Due::Attempt),
            _ => request,
        }
    }

    /// The end of all attempts: time in which the request's body was still arriving does not
    /// count.
    fn give_up_at(&self, upload: &Upload) -> Instant {
        let since = upload.arrived_at().unwrap_or(self.request.started);
        since.max(self.request.started) + self.route.rule.timeouts.request
    }

    /// The client holds its body back until the endpoint asks for it (RFC 9110 §10.1.1).
    fn expects_continue(&self, upload: &Upload) -> bool {
        upload.received() == 0 && self.request.head.fields.contains(Known::Expect)
    }
}

/// Whose time was up.
enum Due {
    Client,
    Attempt,
    Request,
    /// The client's own.
    Deadline,
}

fn sent_by(endpoint: &Endpoint) -> Sent {
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
