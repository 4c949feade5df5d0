//! A worker: one thread, one current-thread runtime, its share of every listener, and its own
//! connections to endpoints. Workers share nothing on the request path but counters.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use sealane_model::Notebook;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::http::connect::{Connections, SWEEP_EVERY};
use crate::http::h1::held::HeldHeads;
use crate::http::mirror::UnderWay;
use crate::io::outbox;
use crate::listener::{ListenerState, Opened, accept};
use crate::pace;
use crate::shared::{Phase, Shared};
use crate::signal::Signal;
use crate::tcp::relay::Kit;
use crate::tcp::watch::Watch;
use crate::udp;
use crate::udp::legacy::{FLOWS_LEFT_MAX, LeftFlow};
use crate::upstream::Endpoints;

/// Errands waiting for one worker. A worker takes them up within milliseconds; were it full, a new
/// listener would lack that worker, which is logged as our own fault, and a question waits.
pub(crate) const ERRANDS_WAITING_MAX: usize = 1_024;

/// What other threads ask of a worker.
pub(crate) enum Errand {
    Listen(Opened),
    /// Is it alive?
    Answer(oneshot::Sender<()>),
    /// What would a successor need to know of its UDP flows?
    LeaveFlows(oneshot::Sender<Vec<Leaving>>),
}

/// The UDP flows of one socket on their way to a successor.
pub(crate) type Leaving = (Arc<ListenerState>, Vec<LeftFlow>);

/// What everything on one worker's thread can reach.
pub(crate) struct Worker {
    /// From 0 on, no other worker's.
    pub(crate) index: u32,
    pub(crate) shared: Arc<Shared>,
    /// Raised when the phase goes beyond [`Phase::Serving`].
    pub(crate) draining: Rc<Signal>,
    pub(crate) connections: Connections,
    pub(crate) endpoints: Endpoints,
    /// Bytes of requests' bodies that are kept for another attempt.
    pub(crate) kept_for_replay: Rc<Cell<usize>>,
    /// Heads of HTTP/1 that are arriving.
    pub(crate) held_heads: Rc<HeldHeads>,
    /// Bytes that compressors of answers hold.
    pub(crate) held_by_squeezes: Rc<Cell<usize>>,
    /// Requests that are shown to a second pool.
    pub(crate) mirrored: UnderWay,
    /// What TCP sessions move their bytes with.
    pub(crate) kit: Kit,
    pub(crate) watch: Watch,
    /// How far clients are, for who learns from it.
    pub(crate) notebook: Notebook,
    /// Datagrams that are being carried.
    pub(crate) batch: RefCell<udp::Batch>,
    /// One for each UDP socket that it has.
    pub(crate) relays: RefCell<Vec<Weak<udp::Relay>>>,
}

/// The other threads' end of a worker.
pub(crate) struct Handle {
    pub(crate) errands: mpsc::Sender<Errand>,
    pub(crate) ended: oneshot::Receiver<()>,
    pub(crate) thread: JoinHandle<()>,
}

/// Tasks that run before sockets are looked at again. By default 61: one connection that always has
/// something to do would then delay all others by as many of its turns.
const TASKS_BETWEEN_EVENTS: u32 = 16;

/// Starts a worker that runs until [`Phase::Ended`].
pub(crate) fn start(index: usize, shared: &Arc<Shared>) -> io::Result<Handle> {
    let (errands, waiting) = mpsc::channel(ERRANDS_WAITING_MAX);
    let (ending, ended) = oneshot::channel();
    let (starting, started) = sync_channel(1);
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new()
        .name(format!("proxy-{index}"))
        .spawn(move || {
            // The runtime cannot leave its thread, as its tasks cannot.
            let built = Builder::new_current_thread()
                .enable_all()
                .event_interval(TASKS_BETWEEN_EVENTS)
                .build_local(LocalOptions::default());
            let (runtime, result) = match built {
                Ok(runtime) => (Some(runtime), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // `start` waits for it.
            let _ = starting.send(result);
            if let Some(runtime) = runtime {
                runtime.block_on(run(index, shared, waiting));
            }
            // Nobody may be waiting.
            let _ = ending.send(());
        })?;
    started
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the worker ended at once")))?;
    Ok(Handle {
        errands,
        ended,
        thread,
    })
}

async fn run(index: usize, shared: Arc<Shared>, mut errands: mpsc::Receiver<Errand>) {
    let worker = Rc::new(Worker {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        connections: Connections::new(Arc::clone(&shared.tls)),
        endpoints: Endpoints::new(
            Arc::clone(&shared.loads),
            shared.observations.traffic().shard(),
        ),
        draining: Rc::default(),
        kept_for_replay: Rc::default(),
        held_heads: Rc::default(),
        held_by_squeezes: Rc::default(),
        mirrored: UnderWay::default(),
        kit: Kit::default(),
        watch: Watch::default(),
        notebook: shared.observations.distances().notebook(),
        batch: RefCell::default(),
        relays: RefCell::default(),
        shared,
    });
    let mut phase = worker.shared.phase.subscribe();
    let mut before = Phase::Serving;
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut listeners = JoinSet::new();
    listeners.spawn_local(outbox::run());
    listeners.spawn_local(pace::run());
    let mut published = worker.shared.world.clone();
    let mut is_published = true;
    loop {
        tokio::select! {
            Some(errand) = errands.recv() => match errand {
                Errand::Listen(opened) => {
                    listeners.spawn_local(accept(opened, Rc::clone(&worker)));
                }
                // An error means that whoever asked has left.
                Errand::Answer(reply) => _ = reply.send(()),
                Errand::LeaveFlows(reply) => _ = reply.send(worker.leave_flows()),
            },
            Some(ended) = listeners.join_next() => note_panic(ended),
            _ = sweep.tick() => {
                let world = worker.shared.world.load();
                worker.connections.sweep(&world, clock::now());
                worker.shared.show_places();
            }
            more = published.changed(), if is_published => {
                worker.watch.look(&published.load());
                is_published = more;
            }
            // An error means that the proxy is gone.
            changed = phase.wait_for(|phase| *phase != before) => match changed {
                Ok(now) if *now < Phase::Ended => {
                    before = *now;
                    worker.draining.raise();
                }
                _ => break,
            },
        }
    }
    listeners.shutdown().await;
}

impl Worker {
    fn leave_flows(&self) -> Vec<Leaving> {
        let mut left = FLOWS_LEFT_MAX;
        let relays = self.relays.borrow();
        let relays = relays.iter().filter_map(Weak::upgrade);
        relays
            .map(|relay| {
                let flows = relay.leave(left);
                left -= flows.len();
                (Arc::clone(relay.listener()), flows)
            })
            .collect()
    }
}

/// A panic is our own fault and ends one task only.
pub(crate) fn note_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a task panicked: {error}");
    }
}
