//! The two channels between control and the rest: snapshots out, observations in.
//!
//! The only file that knows arc-swap and mpsc. Nothing here waits on the reader's side.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use crate::learned::Distances;
use crate::observation::Observation;
use crate::snapshot::Snapshot;
use crate::traffic::Traffic;
use crate::unit::Generation;

/// Not `Clone`: the control actor holds the only one.
#[derive(Debug)]
pub struct SnapshotWriter {
    cell: Arc<ArcSwap<Snapshot>>,
    published: watch::Sender<Generation>,
}

impl SnapshotWriter {
    /// Replaces the world for all readers at once, then wakes those that wait for a change.
    pub fn publish(&mut self, snapshot: Snapshot) {
        let generation = snapshot.generation;
        self.cell.store(Arc::new(snapshot));
        self.published.send_replace(generation);
    }
}

/// Loads the world; cheap to clone, never waits.
#[derive(Clone, Debug)]
pub struct SnapshotReader {
    cell: Arc<ArcSwap<Snapshot>>,
    published: watch::Receiver<Generation>,
}

impl SnapshotReader {
    #[must_use]
    pub fn load(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.cell.load()
    }

    #[must_use]
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.cell.load_full()
    }

    /// The cell itself, for a thread that keeps an `arc_swap::Cache` of it.
    #[must_use]
    pub fn cell(&self) -> &Arc<ArcSwap<Snapshot>> {
        &self.cell
    }

    /// Resolves when a snapshot was published that this reader has not yet been told of.
    /// `false` when the writer is gone: no further one will come.
    pub async fn changed(&mut self) -> bool {
        self.published.changed().await.is_ok()
    }
}

#[must_use]
pub fn snapshot_channel(first: Snapshot) -> (SnapshotWriter, SnapshotReader) {
    let (published, watcher) = watch::channel(first.generation);
    let cell = Arc::new(ArcSwap::from_pointee(first));
    let reader = SnapshotReader {
        cell: cell.clone(),
        published: watcher,
    };
    (SnapshotWriter { cell, published }, reader)
}

/// Observations waiting for the control actor. When full, the newest is dropped and counted: a
/// late verdict is better than a slow request.
pub const OBSERVATIONS_WAITING_MAX: usize = 4_096;

#[derive(Clone, Debug)]
pub struct ObservationSender {
    queue: mpsc::Sender<Observation>,
    dropped: Arc<AtomicU64>,
    traffic: Traffic,
    distances: Distances,
}

impl ObservationSender {
    /// Where the workers count, and control reads, what goes to which region.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Where the workers note, and control learns, how far clients are.
    #[must_use]
    pub const fn distances(&self) -> &Distances {
        &self.distances
    }

    /// Never waits; drops and counts when [`OBSERVATIONS_WAITING_MAX`] are waiting.
    pub fn offer(&self, observation: Observation) {
        if self.queue.try_send(observation).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were dropped since the process began.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[must_use]
pub fn observation_channel() -> (ObservationSender, mpsc::Receiver<Observation>) {
    let (queue, receiver) = mpsc::channel(OBSERVATIONS_WAITING_MAX);
    (
        ObservationSender {
            queue,
            dropped: Arc::default(),
            traffic: Traffic::default(),
            distances: Distances::default(),
        },
        receiver,
    )
}
