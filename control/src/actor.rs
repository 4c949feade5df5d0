//! The one task that owns the core and writes the world.
//!
//! Turns channels, finished probes and timers into inputs, and effects into probes, publications,
//! log lines and files. Never waits on a reader, on the disk or on an endpoint.

use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sealane_model::publish::{observation_channel, snapshot_channel};
use sealane_model::{
    EndpointId, Observation, ObservationSender, OutReason, SnapshotReader, SnapshotWriter,
    Standing, Target, Timestamp,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::{Clock, wall};
use crate::config::Config;
use crate::core::{Change, Core, Effects, Input, OrderError, OrderReply, Overview, Publish};
use crate::handle::{self, ControlHandle, Message};
use crate::metrics;
use crate::overrides::Order;
use crate::probe::runner::{Report, Runner};
use crate::probe::schedule::Started;
use crate::state::{self, Found, Remembered};
use crate::store::Store;

/// The world is published at most this often: the first change at once, later ones together.
pub const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// Figures alone (round-trip times) are published at most this often.
pub(crate) const PUBLISH_FIGURES_EVERY: Duration = Duration::from_secs(1);
/// An unchanged world is published this often, so that its age shows that control is alive.
pub(crate) const PUBLISH_ANYWAY_EVERY: Duration = Duration::from_secs(10);
/// Live traffic is counted up this often, where anything depends on it.
pub(crate) const COUNT_EVERY: Duration = Duration::from_secs(1);
/// What clients' connections told is taken in this often, where anything is learned from it.
pub(crate) const LEARN_EVERY: Duration = Duration::from_secs(5);
/// Observations taken in before anything else gets its turn again.
const OBSERVATIONS_AT_ONCE: usize = 256;

/// Control, built and not yet running.
#[derive(Debug)]
pub struct Control {
    pub handle: ControlHandle,
    pub world: SnapshotReader,
    pub observations: ObservationSender,
    actor: Actor,
}

/// Why control cannot start. There is no such reason today: a bad state file, a missing folder and
/// unknown host names are lived with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {}

/// Reads the map that an earlier process left, and publishes the first world from it. No other
/// I/O: probing begins with [`Control::run`].
///
/// # Errors
/// None today, see [`StartError`].
pub fn build(config: Config) -> Result<Control, StartError> {
    let clock = Clock::start();
    let remembered = config
        .state_file
        .as_deref()
        .and_then(|path| recall(path, clock.now()));
    Ok(build_with(config, clock, remembered))
}

/// In place of a process that still runs, with the map that it handed over. Orders are refused, and
/// the file is neither read nor written, until [`ControlHandle::resume`]: it is the other's.
///
/// # Errors
/// None today, see [`StartError`].
pub fn build_in_place(
    config: Config,
    remembered: Option<Remembered>,
) -> Result<Control, StartError> {
    let mut control = build_with(config, Clock::start(), remembered);
    control.actor.store.hold();
    Ok(control)
}

fn build_with(config: Config, clock: Clock, remembered: Option<Remembered>) -> Control {
    let now = clock.now();
    let store = Store::new(config.state_file.clone(), now);
    let seed = RandomState::new().hash_one(now.as_millis());
    let mut core = Core::new(now, config, seed, remembered);

    let first = core.snapshot(now);
    let overview = core.overview();
    metrics::published(&first, overview.overrides.len());
    let (writer, world) = snapshot_channel(first);
    let (observations, observed) = observation_channel();
    let (handle, ends) = handle::channel(overview);
    let actor = Actor {
        core,
        clock,
        writer,
        messages: ends.messages,
        observed,
        observations: observations.clone(),
        first_round: ends.first_round,
        overview: ends.overview,
        runner: Runner::default(),
        store,
        holding: None,
        pending: Publish::NotNeeded,
        published: now,
        counted: now,
        learned: now,
        wake_at: Some(now),
    };
    Control {
        handle,
        world,
        observations,
        actor,
    }
}

impl Control {
    /// Probes, concludes and publishes until `shutdown` resolves; then publishes and saves once
    /// more.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self {
            handle,
            world,
            observations,
            actor,
        } = self;
        // The caller has cloned what it needs of these.
        drop((handle, world, observations));
        actor.run(shutdown).await;
    }
}

fn recall(path: &std::path::Path, now: Timestamp) -> Option<Remembered> {
    match state::read(path, now) {
        Found::Map(remembered) => {
            let age = now.since(remembered.written_at.unwrap_or(now));
            tracing::info!(
                path = %path.display(),
                age_seconds = age.as_secs(),
                endpoints = remembered.endpoints.len(),
                overrides = remembered.overrides.len(),
                "read the map of an earlier process; it holds until the first probes"
            );
            Some(remembered)
        }
        Found::Missing => None,
        Found::Broken {
            why,
            kept: Ok(kept),
        } => {
            tracing::warn!(
                path = %path.display(), kept = %kept.display(), why,
                "the map of an earlier process cannot be understood: moved aside, starting without; \
                 overrides that it held are not in force"
            );
            None
        }
        Found::Broken {
            why,
            kept: Err(error),
        } => {
            tracing::warn!(
                path = %path.display(), why, %error,
                "the map of an earlier process can neither be understood nor moved aside: \
                 starting without; overrides that it held are not in force"
            );
            None
        }
    }
}

#[derive(Debug)]
struct Actor {
    core: Core,
    clock: Clock,
    writer: SnapshotWriter,
    messages: mpsc::Receiver<Message>,
    observed: mpsc::Receiver<Observation>,
    /// What was dropped of it, and what live traffic amounts to.
    observations: ObservationSender,
    first_round: watch::Sender<bool>,
    overview: Arc<ArcSwap<Overview>>,
    runner: Runner,
    store: Store,
    /// Waits for the end of the write that was under way when a successor came.
    holding: Option<oneshot::Sender<Remembered>>,
    pending: Publish,
    published: Timestamp,
    /// When live traffic was counted up last.
    counted: Timestamp,
    /// When clients' connections were listened to last.
    learned: Timestamp,
    wake_at: Option<Timestamp>,
}

/// Whatever came first.
enum Event {
    Shutdown,
    Message(Message),
    Observed,
    Report(Option<Report>),
    Saved,
    Woken,
}

impl Actor {
    async fn run(mut self, shutdown: impl Future<Output = ()>) {
        self.ask_for_round_trips();
        let mut shutdown = pin!(shutdown);
        let mut observed = Vec::with_capacity(OBSERVATIONS_AT_ONCE);
        self.step(Input::Tick);
        loop {
            let wake = self.clock.instant(self.next_wake());
            let event = tokio::select! {
                () = &mut shutdown => Event::Shutdown,
                Some(message) = self.messages.recv() => Event::Message(message),
                _ = self.observed.recv_many(&mut observed, OBSERVATIONS_AT_ONCE), if !self.observed.is_closed() => Event::Observed,
                report = self.runner.next(), if !self.runner.is_idle() => Event::Report(report),
                () = self.store.finished(), if self.store.is_writing() => Event::Saved,
                () = tokio::time::sleep_until(wake) => Event::Woken,
            };
            match event {
                Event::Shutdown => break,
                Event::Message(message) => self.answer(message),
                Event::Observed => {
                    for observation in observed.drain(..) {
                        self.step(Input::Observed(observation));
                    }
                }
                Event::Report(report) => self.take_in(report),
                Event::Saved => self.say_held(),
                Event::Woken => {}
            }
            self.attend();
        }
        self.end().await;
    }

    /// What the time alone asks for: a tick, a publication, a write.
    fn attend(&mut self) {
        let now = self.clock.now();
        if self.wake_at.is_some_and(|at| at <= now) {
            self.step(Input::Tick);
        }
        if self.count_at().is_some_and(|at| at <= now) {
            self.counted = now;
            let totals = self.observations.traffic().totals();
            self.step(Input::Counted(totals));
        }
        if self.learn_at().is_some_and(|at| at <= now) {
            self.learn(now);
        }
        if self.publish_at() <= now {
            self.publish();
        }
        if self.store.is_due(now) {
            let node = self.overview.load().node.clone();
            self.store.begin(now, node, self.core.remembered(wall()));
        }
    }

    async fn end(mut self) {
        self.step_quietly();
        self.publish();
        self.store.finished().await;
        if self.store.is_held() {
            return; // a successor's file by now
        }
        let node = self.overview.load().node.clone();
        self.store
            .begin(self.clock.now(), node, self.core.remembered(wall()));
        self.store.finished().await;
    }

    /// A last look at the time, without beginning anything.
    fn step_quietly(&mut self) {
        let effects = self.core.step(self.clock.now(), Input::Tick);
        self.note_changes(&effects.changes);
    }

    fn answer(&mut self, message: Message) {
        match message {
            Message::Order(order, reply) => self.follow(order, reply),
            Message::Replace(config, reply) => {
                if config.state_file.as_ref() != self.store.path() {
                    tracing::warn!(
                        "the state file's place changed: it takes effect at the next start"
                    );
                }
                self.runner.forget_certificates();
                metrics::leaving(&self.core.snapshot(self.clock.now()));
                self.step(Input::Replaced(config));
                self.ask_for_round_trips();
                self.publish();
                // An error means that whoever asked has left.
                let _ = reply.send(());
            }
            Message::Map(reply) => {
                // An error means that whoever asked has left.
                let _ = reply.send(self.core.remembered(wall()));
            }
            Message::Hold(reply) => {
                self.store.hold();
                self.holding = Some(reply);
                self.say_held();
            }
            Message::Resume(overrides, reply) => {
                self.store.release();
                if let Some(overrides) = overrides {
                    self.step(Input::Restored(overrides));
                    self.publish();
                }
                // An error means that whoever asked has left.
                let _ = reply.send(());
            }
            Message::Answer(reply) => {
                // As above.
                let _ = reply.send(());
            }
        }
    }

    /// Tells whoever waits for the hold, once no write is under way.
    fn say_held(&mut self) {
        if !self.store.is_writing()
            && let Some(reply) = self.holding.take()
        {
            // An error means that whoever asked has left.
            let _ = reply.send(self.core.remembered(wall()));
        }
    }

    fn follow(&mut self, order: Order, reply: oneshot::Sender<Result<OrderReply, OrderError>>) {
        if self.store.is_held() {
            // As above.
            let _ = reply.send(Err(OrderError::HandingOver));
            return;
        }
        let (kind, target) = (order.kind.as_str(), order.target.clone());
        let (by, reason) = (order.by.clone(), order.reason.clone());
        let answer = self
            .step(Input::Ordered(order))
            .unwrap_or(Err(OrderError::Gone));
        if self.pending == Publish::Promptly {
            // The operator's word does not wait for its turn.
            self.publish();
        }
        let result = match &answer {
            Ok(reply) if reply.dry_run => "dry_run",
            Ok(reply) if reply.already => "already",
            Ok(_) => "followed",
            Err(_) => "refused",
        };
        metrics::ordered(kind, result);
        let refusal = answer.as_ref().err().map(tracing::field::display);
        let reason = reason.as_deref();
        tracing::info!(order = kind, target, %by, reason, result, refusal, "an operator's order");
        // An error means that whoever asked has left.
        let _ = reply.send(answer);
    }

    fn take_in(&mut self, report: Option<Report>) {
        let input = match report {
            None => return,
            Some(Report::Probed {
                endpoint,
                ticket,
                outcome,
                pool,
                took,
            }) => {
                metrics::probed(self.core.topology(), pool, &outcome, took);
                Input::Probed {
                    endpoint,
                    ticket,
                    outcome,
                }
            }
            Some(Report::Resolved {
                endpoint,
                ticket,
                found,
            }) => Input::Resolved {
                endpoint,
                ticket,
                found,
            },
            Some(Report::Lost {
                endpoint,
                ticket,
                work,
            }) => Input::Lost {
                endpoint,
                ticket,
                work,
            },
        };
        self.step(input);
    }

    /// Steps the core and does what it asks for. Returns the reply to an order.
    fn step(&mut self, input: Input) -> Option<Result<OrderReply, OrderError>> {
        let Effects {
            probes,
            lookups,
            changes,
            reply,
            publish,
            remember,
            wake_at,
        } = self.core.step(self.clock.now(), input);
        for started in probes {
            self.begin_probe(started);
        }
        for started in lookups {
            self.begin_lookup(started);
        }
        self.note_changes(&changes);
        self.pending = self.pending.max(publish);
        if remember {
            self.store.note_change();
        }
        self.wake_at = wake_at;
        reply
    }

    fn begin_probe(&mut self, started: Started) {
        let Some(endpoint) = self.core.topology().endpoint(started.endpoint) else {
            return;
        };
        let probe = self.core.probe_of(endpoint.pool);
        let addresses = self.core.addresses_of(started.endpoint);
        if let (Some(probe), Some(addresses)) = (probe, addresses) {
            self.runner.probe(started, endpoint, probe, addresses);
        }
    }

    fn begin_lookup(&mut self, started: Started) {
        let endpoint = self.core.topology().endpoint(started.endpoint);
        if let Some(Target::Host { host, port }) = endpoint.map(|endpoint| &endpoint.target) {
            self.runner.look_up(started, host.clone(), *port);
        }
    }

    fn next_wake(&self) -> Timestamp {
        let all = [
            self.wake_at,
            self.store.wake_at(),
            self.count_at(),
            self.learn_at(),
            Some(self.publish_at()),
        ];
        all.into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| self.publish_at())
    }

    fn count_at(&self) -> Option<Timestamp> {
        let wanted = self.core.wants_counts();
        wanted.then(|| self.counted + COUNT_EVERY)
    }

    fn ask_for_round_trips(&self) {
        let wanted = self.core.wants_round_trips();
        self.observations.distances().want(wanted);
    }

    fn learn_at(&self) -> Option<Timestamp> {
        let wanted = self.core.wants_round_trips();
        wanted.then(|| self.learned + LEARN_EVERY)
    }

    fn learn(&mut self, now: Timestamp) {
        self.learned = now;
        let heard = self.observations.distances().take();
        metrics::heard(heard.len());
        self.step(Input::Heard(heard));
        metrics::learned(self.core.client_networks(), self.core.learned());
    }

    fn publish_at(&self) -> Timestamp {
        self.published
            + match self.pending {
                Publish::Promptly => PUBLISH_EVERY,
                Publish::Lazily => PUBLISH_FIGURES_EVERY,
                Publish::NotNeeded => PUBLISH_ANYWAY_EVERY,
            }
    }

    fn publish(&mut self) {
        self.pending = Publish::NotNeeded;
        self.published = self.clock.now();
        let overview = self.core.overview();
        let world = self.core.snapshot(self.published);
        metrics::published(&world, overview.overrides.len());
        metrics::observations_dropped(self.observations.dropped());
        if let Some(restored_at) = overview.restored_at {
            metrics::state_age(overview.started_at.since(restored_at));
        }
        let first_round_over = overview.first_round_over;
        self.overview.store(Arc::new(overview));
        self.writer.publish(world);
        // Only now: whoever waited for the first round finds its world published.
        self.first_round.send_if_modified(|over| {
            !std::mem::replace(over, first_round_over) && first_round_over
        });
    }

    fn note_changes(&mut self, changes: &[Change]) {
        for change in changes {
            self.note(change);
        }
    }

    fn note(&self, change: &Change) {
        match change {
            Change::Verdict {
                endpoint,
                from,
                to,
                by,
                cause,
            } => {
                let Some(named) = self.named(*endpoint) else {
                    return;
                };
                metrics::verdict_changed(self.core.topology(), named.pool_id, *to, *by);
                tracing::info!(
                    endpoint = named.endpoint,
                    pool = named.pool,
                    region = named.region,
                    from = from.as_str(),
                    to = to.as_str(),
                    by = by.as_str(),
                    cause = cause.as_deref(),
                    "an endpoint's verdict changed"
                );
            }
            Change::Standing {
                pool,
                region,
                from,
                to,
            } => {
                let topology = self.core.topology();
                let region = topology.region_name(*region);
                metrics::standing_changed(topology, *pool, region, *to);
                let pool = topology.pool(*pool).map_or("?", |pool| &pool.name);
                let until = match to {
                    Standing::Out(OutReason::HoldDown { until }) => Some(until.as_millis()),
                    _ => None,
                };
                tracing::info!(
                    pool,
                    region,
                    from = metrics::standing_word(*from),
                    to = metrics::standing_word(*to),
                    until_ms = until,
                    "a region's standing changed"
                );
            }
            Change::Ramp { pool, region, step } => {
                let topology = self.core.topology();
                let region = topology.region_name(*region);
                metrics::ramped(topology, *pool, region, *step);
                let pool = topology.pool(*pool).map_or("?", |pool| &pool.name);
                let percent = step.map_or(100.0, |step| step.share * 100.0);
                if step.is_some_and(|step| step.held) {
                    tracing::warn!(
                        pool,
                        region,
                        percent,
                        "a returning region fails too often to be given more"
                    );
                } else {
                    tracing::info!(pool, region, percent, "a returning region is given more");
                }
            }
            Change::Resolved {
                endpoint,
                addresses,
            } => {
                let Some(named) = self.named(*endpoint) else {
                    return;
                };
                tracing::info!(
                    endpoint = named.endpoint,
                    pool = named.pool,
                    region = named.region,
                    ?addresses,
                    "an endpoint's host name resolves elsewhere"
                );
            }
            Change::Unresolved { endpoint, error } => {
                let Some(named) = self.named(*endpoint) else {
                    return;
                };
                tracing::debug!(
                    endpoint = named.endpoint,
                    pool = named.pool,
                    region = named.region,
                    error,
                    "an endpoint's host name is not resolved; its last addresses stay"
                );
            }
            Change::FirstRoundOver { unheard } => {
                let took = self.clock.now().since(self.core.overview().started_at);
                metrics::first_round(took);
                let seconds = took.as_secs_f64();
                if *unheard == 0 {
                    tracing::info!(seconds, "the first round of probes is over");
                } else {
                    tracing::warn!(
                        seconds,
                        unheard,
                        "the first round of probes reached its limit"
                    );
                }
            }
        }
    }

    fn named(&self, id: EndpointId) -> Option<Named<'_>> {
        let topology = self.core.topology();
        let endpoint = topology.endpoint(id)?;
        Some(Named {
            endpoint: &endpoint.name,
            pool_id: endpoint.pool,
            pool: topology.pool(endpoint.pool).map_or("?", |pool| &pool.name),
            region: topology.region_name(endpoint.region),
        })
    }
}

/// An endpoint as log lines call it.
struct Named<'a> {
    endpoint: &'a str,
    pool_id: sealane_model::PoolId,
    pool: &'a str,
    region: &'a str,
}
