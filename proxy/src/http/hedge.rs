//! Two attempts of one request side by side: the first good answer wins, the other one is cancelled.
//!
//! Begun by [`super::attempt`] when the first attempt took long and [`crate::upstream::hedging`]
//! granted a second one. Runs in the exchange's one task, as everything does. Begins no third
//! attempt and decides about none: what failed on both sides goes back to where it came from.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use sealane_model::Failure;
use tokio::time::Instant;

use super::attempt::{
    Answer, Miss, Opening, Stop, Trial, Tried, give_up_at, sent_by, settle, stop_of, tried,
};
use super::client::Client;
use super::context::{Inbound, RequestContext};
use super::endpoint::Endpoint;
use super::headers::interim_toward_client;
use super::message::AnswerHead;
use super::outcome::{AttemptEnd, answered};
use super::refuse::Refusal;
use super::relay::{HALF_CLOSED_PATIENCE, INFORMATIONAL_MAX, PIECES_IN_A_ROW, Upload, poll_gone};
use super::retry::{self, GiveUp, Retry, Sent};
use super::route::RouteState;
use crate::alarm::Alarm;
use crate::clock;
use crate::upstream::hedging::Hedged;
use crate::upstream::{LoadGuard, Selected};

/// A first attempt that takes long, and where the second one goes.
pub(super) struct Slow<'a> {
    pub(super) stage: Stage<'a>,
    pub(super) load: LoadGuard,
    /// Since when it is waited for.
    pub(super) since: Instant,
    pub(super) second: Selected,
}

/// How far an attempt has come.
pub(super) enum Stage<'a> {
    Opening(Opening<'a>),
    /// The head was sent.
    Asking(Box<Endpoint>),
    /// By an answer that the other attempt may still better.
    Answered(Box<(Endpoint, AnswerHead, bool)>),
    Lost(Miss),
    /// Nothing is left of it.
    Over,
}

/// One request's two attempts.
pub(super) struct Race<'a> {
    pub(super) route: &'a RouteState,
    pub(super) request: &'a mut RequestContext,
    pub(super) inbound: &'a Inbound,
    pub(super) first: &'a Selected,
}

/// One of the two attempts.
struct Leg<'a, 'r> {
    trial: Trial<'a, 'r>,
    stage: Stage<'a>,
    since: Instant,
    load: LoadGuard,
    informational: usize,
}

/// How the race ended.
enum Finish {
    /// This one's answer is sent on.
    Won(Side),
    BothLost,
    /// Through no fault of either.
    Stopped(Stop),
    /// The time for all attempts is over.
    OutOfTime,
    /// Both take too long, and a third attempt may follow.
    Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    First,
    Second,
}

impl Race<'_> {
    /// Settles what the caller does not know of: the second attempt, and the first one where the
    /// second one's answer is sent on. The load that comes back is the first one's, if it is not
    /// settled.
    pub(super) async fn run(
        self,
        slow: Slow<'_>,
        client: &mut Client,
        upload: &mut Upload,
        alarm: &mut Alarm,
    ) -> (Tried, Option<LoadGuard>) {
        let (route, request, inbound) = (self.route, self.request, self.inbound);
        let now = clock::now();
        let Slow {
            stage,
            load,
            since,
            second,
        } = slow;
        second.arrived();
        request.attempts += 1;
        request.tried.push(tried(&second));
        // What stands here if this future is dropped.
        request.hedge.set(Some(Hedged::Aborted));
        let mut beside = upload.beside(now);

        let trial = Trial::first_of_two(route, request, self.first, inbound);
        let first = Leg::new(trial, stage, since, load);
        let trial = Trial::new(route, request, &second, inbound, false);
        let stage = Stage::Opening(Box::pin(trial.open(now, &beside)));
        let load = inbound.worker.shared.loads.begin(second.endpoint);
        let mut legs = Legs {
            first,
            second: Leg::new(trial, stage, now, load),
        };
        let finish = legs.run(client, upload, &mut beside, alarm).await;

        legs.note(&finish);
        let Legs { first, second } = legs;
        let result = match finish {
            Finish::Won(Side::First) => {
                second.lose(now - since);
                first.win()
            }
            Finish::Won(Side::Second) => {
                first.lose(now - since);
                *upload = beside;
                second.win()
            }
            Finish::Stopped(stop) => {
                second.lose(now - since);
                first.stop(stop)
            }
            Finish::BothLost => {
                second.lose(now - since);
                first.fail(None)
            }
            Finish::OutOfTime => {
                // It may have had no time worth the name.
                second.lose(now - since);
                first.fail(Some(Retry::GiveUp(GiveUp::OutOfTime)))
            }
            Finish::Left => {
                second.time_out();
                first.fail(Some(Retry::Again))
            }
        };
        if let (Tried::Answered(answer), _) = &result {
            request.selected = Some(answer.selected.clone());
        }
        result
    }
}

struct Legs<'a, 'r> {
    first: Leg<'a, 'r>,
    second: Leg<'a, 'r>,
}

impl Legs<'_, '_> {
    async fn run(
        &mut self,
        client: &mut Client,
        upload: &mut Upload,
        beside: &mut Upload,
        alarm: &mut Alarm,
    ) -> Finish {
        let trial = &self.second.trial;
        let end = give_up_at(trial.route, trial.request, upload);
        let deadline = trial.request.deadline;
        let mut leave_at = Some(self.second.since + trial.patience());
        let mut half_closed = None;
        loop {
            let soonest = leave_at.map_or(end, |at| at.min(end));
            let soonest = deadline.map_or(soonest, |at| at.min(soonest));
            let finish = poll_fn(|cx| {
                for _ in 0..PIECES_IN_A_ROW {
                    let gone = client.poll_ready(cx).map_err(|_| Stop::ClientGone);
                    if let Poll::Ready(Err(gone)) = gone {
                        return Poll::Ready(Some(Finish::Stopped(gone)));
                    }
                    if poll_gone(cx, client, &mut half_closed).is_ready() {
                        return Poll::Ready(Some(Finish::Stopped(Stop::ClientGone)));
                    }
                    let moved = self.first.poll(cx, client, upload);
                    let moved_beside = self.second.poll(cx, client, beside);
                    match (moved, moved_beside) {
                        (Err(stop), _) | (_, Err(stop)) => {
                            return Poll::Ready(Some(Finish::Stopped(stop)));
                        }
                        (Ok(false), Ok(false)) => {
                            if let Some(finish) = self.finish() {
                                return Poll::Ready(Some(finish));
                            }
                            let patience = half_closed.map(|since| since + HALF_CLOSED_PATIENCE);
                            let gone = patience.filter(|patience| *patience <= soonest);
                            let due = alarm.poll_due(cx, gone.unwrap_or(soonest));
                            return due.map(|()| gone.map(|_| Finish::Stopped(Stop::ClientGone)));
                        }
                        _ => {}
                    }
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            });
            if let Some(finish) = finish.await {
                return finish;
            }
            if deadline == Some(soonest) {
                return Finish::Stopped(Stop::Refused(Refusal::Deadline));
            }
            if soonest == end {
                return self.answered().map_or(Finish::OutOfTime, Finish::Won);
            }
            // The patience with the second one is over as well.
            leave_at = None;
            if let Some(side) = self.answered() {
                return Finish::Won(side);
            }
            if self.second.trial.leave_for_another(beside, false).is_ok() {
                return Finish::Left;
            }
        }
    }

    fn finish(&self) -> Option<Finish> {
        let good = [(Side::First, &self.first), (Side::Second, &self.second)];
        if let Some((side, _)) = good.into_iter().find(|(_, leg)| leg.is_good()) {
            return Some(Finish::Won(side));
        }
        if !self.first.is_over() || !self.second.is_over() {
            return None;
        }
        Some(self.answered().map_or(Finish::BothLost, Finish::Won))
    }

    /// Who has an answer, be it no good one.
    fn answered(&self) -> Option<Side> {
        if matches!(self.first.stage, Stage::Answered(_)) {
            return Some(Side::First);
        }
        matches!(self.second.stage, Stage::Answered(_)).then_some(Side::Second)
    }

    fn note(&self, finish: &Finish) {
        let hedged = match finish {
            Finish::Won(Side::First) if self.first.is_good() => Hedged::Wasted,
            Finish::Won(Side::Second) if self.second.is_good() => Hedged::Won,
            Finish::Stopped(Stop::ClientGone) => Hedged::Aborted,
            _ => Hedged::Failed,
        };
        let Trial { route, request, .. } = &self.first.trial;
        request.hedge.set(Some(hedged));
        if let Some(hedging) = &route.hedging
            && hedged != Hedged::Aborted
        {
            hedging.note(hedged == Hedged::Won);
        }
    }
}

impl<'a, 'r> Leg<'a, 'r> {
    const fn new(trial: Trial<'a, 'r>, stage: Stage<'a>, since: Instant, load: LoadGuard) -> Self {
        Self {
            trial,
            stage,
            since,
            load,
            informational: 0,
        }
    }

    const fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Answered(_) | Stage::Lost(_))
    }

    /// It has an answer that need not be bettered.
    fn is_good(&self) -> bool {
        let grpc = self.trial.request.is_grpc;
        let good = |head| retry::status_of(head, grpc) < 500;
        matches!(&self.stage, Stage::Answered(answer) if good(&answer.1))
    }

    /// Takes one step. Whether there may be another one at once.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        upload: &mut Upload,
    ) -> Result<bool, Stop> {
        match &mut self.stage {
            Stage::Opening(opening) => match opening.as_mut().poll(cx) {
                Poll::Pending => Ok(false),
                Poll::Ready(Ok(endpoint)) => {
                    self.ask(endpoint, upload);
                    Ok(true)
                }
                Poll::Ready(Err(failure)) => {
                    self.miss(failure, Sent::Nothing, false);
                    Ok(true)
                }
            },
            Stage::Asking(_) => self.poll_head(cx, client, upload),
            Stage::Answered(_) | Stage::Lost(_) | Stage::Over => Ok(false),
        }
    }

    fn ask(&mut self, mut endpoint: Endpoint, upload: &Upload) {
        match self
            .trial
            .send_head(&mut endpoint, upload.is_whole(), false)
        {
            Ok(()) => self.stage = Stage::Asking(Box::new(endpoint)),
            Err(failure) => self.miss(failure, sent_by(&endpoint), endpoint.is_reused()),
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        upload: &mut Upload,
    ) -> Result<bool, Stop> {
        let Stage::Asking(endpoint) = &mut self.stage else {
            return Ok(false);
        };
        let mut moved = false;
        if !upload.is_over()
            && let Poll::Ready(piece) = upload.poll_move(cx, client, endpoint)
        {
            piece.map_err(stop_of)?;
            moved = true;
        }
        let answered = match endpoint.poll_head(cx) {
            Poll::Pending => return Ok(moved),
            Poll::Ready(answered) => answered,
        };
        let (sent, reused) = (sent_by(endpoint), endpoint.is_reused());
        match answered {
            Ok((head, _)) if head.is_interim() => {
                self.informational += 1;
                if self.informational > INFORMATIONAL_MAX {
                    let failure = Failure::Protocol("informational heads".to_owned());
                    self.miss(failure, sent, reused);
                } else {
                    pass_interim(client, head)?;
                }
            }
            Ok((head, _)) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                let failure = Failure::Protocol("switched protocols unasked".to_owned());
                self.miss(failure, Sent::HeadOrBody, reused);
            }
            Ok((head, end)) => {
                let asking = std::mem::replace(&mut self.stage, Stage::Over);
                if let Stage::Asking(endpoint) = asking {
                    self.stage = Stage::Answered(Box::new((*endpoint, head, end)));
                }
            }
            Err(failure) => self.miss(failure, sent, reused),
        }
        Ok(true)
    }

    fn miss(&mut self, failure: Failure, sent: Sent, reused: bool) {
        self.stage = Stage::Lost(Miss {
            failure,
            sent,
            reused,
            decided: None,
            hedged: true,
        });
    }

    fn win(self) -> (Tried, Option<LoadGuard>) {
        let good = self.is_good();
        match self.stage {
            Stage::Answered(answer) => {
                if good {
                    self.trial.note_took(self.since);
                }
                let (endpoint, head, end) = *answer;
                let selected = self.trial.selected;
                selected.answered(clock::now().into_std(), answered(&head));
                let answer = Answer {
                    endpoint,
                    selected: self.trial.selected.clone(),
                    load: self.load,
                    head,
                    end,
                };
                (Tried::Answered(Box::new(answer)), None)
            }
            _ => self.fail(None),
        }
    }

    fn stop(self, stop: Stop) -> (Tried, Option<LoadGuard>) {
        self.stage.cut();
        (Tried::Stopped(stop), Some(self.load))
    }

    /// Its failure, which the caller settles. What has not failed by itself has taken too long.
    fn fail(self, decided: Option<Retry>) -> (Tried, Option<LoadGuard>) {
        let sent = match &self.stage {
            Stage::Opening(_) => Sent::Nothing,
            _ => Sent::HeadOrBody,
        };
        let reused = matches!(&self.stage, Stage::Asking(endpoint) if endpoint.is_reused());
        let miss = match self.stage {
            Stage::Lost(miss) => Miss { decided, ..miss },
            late => {
                late.distrust();
                late.cut();
                self.trial.note_took(self.since);
                Miss {
                    failure: Failure::TimedOut,
                    sent,
                    reused,
                    decided,
                    hedged: true,
                }
            }
        };
        (Tried::Missed(miss), Some(self.load))
    }

    /// The other one answers, or nobody does. What it took until now is the least that it would
    /// have taken: that counts if it ran for `long` at least, as a shorter time says nothing.
    fn lose(self, long: Duration) {
        let Self {
            trial,
            stage,
            since,
            load,
            ..
        } = self;
        let (route, inbound) = (trial.route, trial.inbound);
        let mut reused = false;
        match &stage {
            Stage::Opening(_) | Stage::Asking(_) => {
                let now = clock::now();
                if now.saturating_duration_since(since) >= long {
                    trial.note_took(since);
                    trial.selected.waited(now.into_std());
                }
            }
            Stage::Lost(miss) => reused = miss.reused,
            Stage::Answered(answer) => {
                let now = clock::now().into_std();
                trial.selected.answered(now, answered(&answer.1));
            }
            Stage::Over => {}
        }
        let end = match &stage {
            Stage::Lost(miss) => AttemptEnd::Failed(&miss.failure),
            Stage::Answered(_) => AttemptEnd::Answered,
            Stage::Opening(_) | Stage::Asking(_) | Stage::Over => AttemptEnd::Abandoned,
        };
        settle(
            trial.selected,
            route,
            end,
            reused,
            None,
            Some(load),
            inbound,
        );
        stage.cut();
    }

    /// Its time was up.
    fn time_out(self) {
        let trial = &self.trial;
        let (selected, route, inbound) = (trial.selected, trial.route, trial.inbound);
        let (Tried::Missed(miss), load) = self.fail(None) else {
            return;
        };
        let end = AttemptEnd::Failed(&miss.failure);
        settle(selected, route, end, miss.reused, None, load, inbound);
    }
}

impl Stage<'_> {
    /// Cancels what is under way: the connection is closed, or the stream reset.
    fn cut(self) {
        match self {
            Self::Asking(endpoint) => _ = endpoint.finish(false),
            Self::Answered(answer) => _ = answer.0.finish(false),
            Self::Opening(_) | Self::Lost(_) | Self::Over => {}
        }
    }

    fn distrust(&self) {
        if let Self::Asking(endpoint) = self {
            endpoint.distrust();
        }
    }
}

/// Early hints and the like. Nobody waits for leave to go on: the body was sent.
fn pass_interim(client: &mut Client, mut head: AnswerHead) -> Result<(), Stop> {
    if head.status == StatusCode::CONTINUE {
        return Ok(());
    }
    interim_toward_client(&mut head.fields);
    client.send_head(head, false).map_err(|_| Stop::ClientGone)
}
