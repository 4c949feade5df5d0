//! The shell around the plan: reads the clock and the disk, runs the orders that are due, and hands
//! on what was issued.
//!
//! [`Acme`] is the daemon's end: it says what is wanted. [`Runner`] is one task that ends when it is
//! asked to; it writes files, so it has a thread of its own. A certificate that serves goes on serving whatever happens here.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealane_model::Timestamp;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use crate::account;
use crate::certificate::Certificate;
use crate::config::{ChallengeKind, Config, Names};
use crate::directory::Way;
use crate::edge::Edge;
use crate::metrics::{self, Stock};
use crate::order::{self, Failure};
use crate::plan::{Asked, Due, End, Plan, Validity};
use crate::store::Store;

/// For one order as a whole; then it has failed.
const ORDER_TIME_MAX: Duration = Duration::from_secs(300);
/// The clock is looked at this often at least: it may be set, or the machine may have slept.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// Says what is wanted. Dropping it ends the [`Runner`].
#[derive(Debug)]
pub struct Acme {
    shelf: Arc<Shelf>,
    wanted: watch::Sender<Option<Arc<Config>>>,
}

/// Orders what is wanted, in time.
#[derive(Debug)]
pub struct Runner {
    shelf: Arc<Shelf>,
    wanted: watch::Receiver<Option<Arc<Config>>>,
    config: Option<Arc<Config>>,
    plan: Plan,
    orders: JoinSet<Result<Validity, Failed>>,
    under_way: HashMap<Id, Names>,
    /// One at a time opens the account: the first one makes it.
    account: Arc<tokio::sync::Mutex<()>>,
}

/// A failure with what the authority asked for.
#[derive(Debug)]
struct Failed {
    why: Failure,
    asked: Asked,
}

/// Both ends. `seed` sets this process's moments apart from those of others.
#[must_use]
pub fn acme(edge: Arc<dyn Edge>, seed: u64) -> (Acme, Runner) {
    let shelf = Arc::new(Shelf {
        edge,
        held: Mutex::default(),
    });
    let (sender, wanted) = watch::channel(None);
    let runner = Runner {
        shelf: shelf.clone(),
        wanted,
        config: None,
        plan: Plan::new(Duration::ZERO, seed),
        orders: JoinSet::new(),
        under_way: HashMap::new(),
        account: Arc::default(),
    };
    let acme = Acme {
        shelf,
        wanted: sender,
    };
    (acme, runner)
}

impl Acme {
    /// From now on this is wanted; nothing when `None`. What is on disk serves when this returns.
    /// Blocks on the disk.
    pub fn want(&self, config: Option<Config>) {
        self.shelf.fill(config.as_ref());
        self.wanted.send_replace(config.map(Arc::new));
    }
}

impl Runner {
    /// Runs until `shutdown` resolves or [`Acme`] is dropped; orders under way are given up then,
    /// and what they showed is hidden.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        self.follow();
        loop {
            let now = wall();
            self.begin(now);
            self.show_stock(now);
            let wake = self.plan.wake_at().map_or(LOOK_EVERY, |at| at.since(now));
            tokio::select! {
                () = &mut shutdown => break,
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.follow(),
                    Err(_) => break,
                },
                Some(ended) = self.orders.join_next_with_id() => self.ended(ended),
                () = tokio::time::sleep(wake.min(LOOK_EVERY)) => {}
            }
        }
        self.orders.shutdown().await;
    }

    fn follow(&mut self) {
        self.config = self.wanted.borrow_and_update().clone();
        let held = self.shelf.held();
        let held = |names: &Names| held.get(names).copied().flatten();
        match &self.config {
            Some(config) => self.plan.want(wall(), config.retry, &config.wanted, &held),
            None => self
                .plan
                .want(wall(), Duration::ZERO, &Default::default(), &held),
        }
    }

    fn begin(&mut self, now: Timestamp) {
        let Some(config) = self.config.clone() else {
            return;
        };
        for due in self.plan.begin(now) {
            let kind = challenge(&config, &due);
            tracing::info!(names = %due.names, challenge = kind.as_str(), "ordering a certificate");
            let run = run_order(
                config.clone(),
                due.names.clone(),
                kind,
                self.shelf.clone(),
                self.account.clone(),
            );
            let id = self.orders.spawn(run).id();
            self.under_way.insert(id, due.names);
        }
    }

    fn ended(&mut self, ended: Result<(Id, Result<Validity, Failed>), JoinError>) {
        let now = wall();
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(panic) => {
                tracing::error!("an order was lost: {panic}");
                let asked = Asked::Nothing;
                (
                    panic.id(),
                    Err(Failed {
                        why: Failure::TooLate,
                        asked,
                    }),
                )
            }
        };
        let Some(names) = self.under_way.remove(&id) else {
            return;
        };
        match result {
            Ok(validity) => {
                metrics::order_ended("issued");
                let next = self.plan.end(now, &names, End::Issued(validity));
                let renewal = next.map(|at| seconds(at.since(now)));
                let valid = seconds(validity.not_after.since(now));
                tracing::info!(%names, valid_s = valid, renewal_s = renewal, "a certificate was issued");
            }
            Err(Failed { why, asked }) => {
                metrics::order_ended(why.as_str());
                let next = self.plan.end(now, &names, End::Failed(asked));
                self.complain(&names, &why, next, now);
            }
        }
    }

    fn complain(&self, names: &Names, why: &Failure, next: Option<Timestamp>, now: Timestamp) {
        let again = next.map(|at| seconds(at.since(now)));
        let why = chain(why);
        match self.shelf.validity(names) {
            Some(held) if held.not_after > now => {
                let left = seconds(held.not_after.since(now));
                tracing::warn!(%names, again_s = again, left_s = left, "a certificate cannot be renewed yet, the old one serves: {why}");
            }
            Some(_) => {
                tracing::error!(%names, again_s = again, "a certificate has expired and cannot be renewed: {why}");
            }
            None => {
                tracing::warn!(%names, again_s = again, "there is no certificate, handshakes for its names are refused: {why}");
            }
        }
    }

    fn show_stock(&self, now: Timestamp) {
        let mut stock = Stock::default();
        for (_, held) in self.plan.held() {
            match held {
                Some(held) if held.not_after > now => stock.held += 1,
                Some(_) => stock.expired += 1,
                None => stock.missing += 1,
            }
        }
        metrics::stock(stock);
    }
}

/// After a failure the next kind has its turn: one of the ports may not be reachable.
fn challenge(config: &Config, due: &Due) -> ChallengeKind {
    let count = config.challenges.len().max(1);
    let turn = usize::try_from(due.failures).unwrap_or(0) % count;
    let kind = config.challenges.get(turn).copied();
    kind.unwrap_or(ChallengeKind::Http01)
}

async fn run_order(
    config: Arc<Config>,
    names: Names,
    kind: ChallengeKind,
    shelf: Arc<Shelf>,
    account: Arc<tokio::sync::Mutex<()>>,
) -> Result<Validity, Failed> {
    let way = Way::new(config.roots.as_deref()).map_err(|error| Failed {
        why: error.into(),
        asked: Asked::Nothing,
    })?;
    let order = order_once(&config, &names, kind, &shelf, &account, &way);
    match tokio::time::timeout(ORDER_TIME_MAX, order).await {
        Ok(Ok(certificate)) => shelf
            .put(&config, &names, &certificate)
            .map_err(|why| Failed {
                why,
                asked: Asked::Nothing,
            }),
        Ok(Err(why)) => Err(Failed {
            why,
            asked: way.take_asked(),
        }),
        Err(_) => Err(Failed {
            why: Failure::TooLate,
            asked: way.take_asked(),
        }),
    }
}

async fn order_once(
    config: &Config,
    names: &Names,
    kind: ChallengeKind,
    shelf: &Shelf,
    account: &tokio::sync::Mutex<()>,
    way: &Way,
) -> Result<Certificate, Failure> {
    let store = Store::new(&config.folder);
    let opened = {
        let _one_at_a_time = account.lock().await;
        account::open(config, &store, way, wall()).await?
    };
    let obtained = order::obtain(&opened, names, kind, &*shelf.edge).await;
    match obtained {
        Err(why) if why.is_of_the_account() => {
            let _one_at_a_time = account.lock().await;
            account::forget(&opened, config, &store, wall());
            Err(why)
        }
        obtained => obtained,
    }
}

/// What is held, in front of the disk and behind the edge.
struct Shelf {
    edge: Arc<dyn Edge>,
    /// Each certificate that is wanted, with its dates where there is one. A lock: it is held while
    /// one certificate goes to or comes from the disk, so that an old one never replaces a new one.
    held: Mutex<BTreeMap<Names, Option<Validity>>>,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").finish_non_exhaustive()
    }
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Names, Option<Validity>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> BTreeMap<Names, Option<Validity>> {
        self.lock().clone()
    }

    fn validity(&self, names: &Names) -> Option<Validity> {
        self.lock().get(names).copied().flatten()
    }

    /// Serves what is on disk of all that is newly wanted, and forgets what is not wanted any more.
    fn fill(&self, config: Option<&Config>) {
        let mut held = self.lock();
        let Some(config) = config else {
            return held.clear();
        };
        held.retain(|names, _| config.wanted.contains(names));
        let store = Store::new(&config.folder);
        for names in &config.wanted {
            if held.get(names).copied().flatten().is_none() {
                let found = self.serve_kept(&store, names);
                held.insert(names.clone(), found);
            }
        }
    }

    fn serve_kept(&self, store: &Store, names: &Names) -> Option<Validity> {
        let certificate = store.certificate(names, wall())?;
        match self.edge.serve(names, &certificate) {
            Ok(()) => Some(certificate.validity()),
            Err(error) => {
                tracing::warn!(%names, "the certificate on disk cannot serve: {error}");
                None
            }
        }
    }

    /// Serves what was issued, then keeps it. A disk that refuses does not keep it from serving.
    fn put(
        &self,
        config: &Config,
        names: &Names,
        certificate: &Certificate,
    ) -> Result<Validity, Failure> {
        let mut held = self.lock();
        if let Some(place) = held.get_mut(names) {
            self.edge.serve(names, certificate)?;
            *place = Some(certificate.validity());
        }
        let kept = Store::new(&config.folder).keep_certificate(names, certificate);
        if let Err(error) = kept {
            tracing::error!(%names, %error, "a certificate serves, but cannot be kept: a restart would order it again");
        }
        Ok(certificate.validity())
    }
}

fn seconds(duration: Duration) -> u64 {
    duration.as_secs()
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates live by the wall clock: the core is handed its time"
)]
fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.unwrap_or_default().as_millis();
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}
