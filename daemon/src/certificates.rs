//! Certificates that are ordered: the thread that orders them, with the proxy as its edge.
//!
//! Wiring alone: when something is ordered is decided in `sealane_acme::plan`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use sealane_acme::{Acme, Certificate, ChallengeCertificate, Edge, EdgeError, Names, Runner};
use sealane_proxy::Proxy;
use sealane_proxy::tls::{CertificatePem, Expiring, expiring};
use tokio::sync::{oneshot, watch};

use crate::expiry::Expiry;

/// The proxy, as whoever orders certificates sees it; what serves is followed to its end.
#[derive(Debug)]
struct ProxyEdge {
    proxy: Arc<Proxy>,
    expiry: Expiry,
    // A lock: taken when a certificate comes, and at reloads.
    followed: Mutex<BTreeMap<Names, BTreeSet<Expiring>>>,
}

impl ProxyEdge {
    /// Changes what serves as `change` says, and follows that from now on.
    fn follow(&self, change: impl FnOnce(&mut BTreeMap<Names, BTreeSet<Expiring>>)) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut followed);
        let all = followed.values().flatten().cloned().collect();
        self.expiry.follow("acme", all);
    }
}

impl Edge for ProxyEdge {
    fn show_http(&self, token: &str, authorization: &str) -> Result<(), EdgeError> {
        let shown = self.proxy.challenges().show_http(token, authorization);
        shown.map_err(edge_error)
    }

    fn show_tls(&self, name: &str, shown: &ChallengeCertificate) -> Result<(), EdgeError> {
        let challenges = self.proxy.challenges();
        let shown = challenges.show_tls(name, &shown.certificate, &shown.key);
        shown.map_err(edge_error)
    }

    fn hide_http(&self, token: &str) {
        self.proxy.challenges().hide_http(token);
    }

    fn hide_tls(&self, name: &str) {
        self.proxy.challenges().hide_tls(name);
    }

    fn serve(&self, names: &Names, certificate: &Certificate) -> Result<(), EdgeError> {
        let pem: Arc<[u8]> = certificate.pem().into();
        let pem = CertificatePem {
            chain: pem.clone(),
            key: pem,
        };
        let served = self.proxy.issued().put(names.as_slice(), &pem);
        served.map_err(edge_error)?;
        let found = expiring("listener", &format!("acme: {names}"), &pem.chain);
        self.follow(|followed| {
            followed.insert(names.clone(), found.into_iter().collect());
        });
        Ok(())
    }
}

fn edge_error(error: impl std::fmt::Display) -> EdgeError {
    EdgeError(error.to_string())
}

/// The thread that orders: it writes keys to disk and speaks to strangers, and nothing that serves
/// waits for it.
#[derive(Debug)]
pub(crate) struct Certificates {
    acme: Arc<Acme>,
    edge: Arc<ProxyEdge>,
    phase: watch::Sender<Phase>,
    ended: oneshot::Receiver<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No listener is open: nobody could look at what is shown.
    Closed,
    Ordering,
    Ended,
}

impl Certificates {
    pub(crate) fn spawn(proxy: Arc<Proxy>, expiry: Expiry) -> io::Result<Self> {
        let edge = Arc::new(ProxyEdge {
            proxy,
            expiry,
            followed: Mutex::default(),
        });
        let (acme, runner) = sealane_acme::acme(edge.clone(), random());
        let (phase, shown) = watch::channel(Phase::Closed);
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let run = move || {
            runtime.block_on(run(runner, shown));
            // A look-up of a host name may hang in the system for long; nothing waits for it.
            runtime.shutdown_background();
            // An error means that nobody waits.
            let _ = end.send(());
        };
        std::thread::Builder::new()
            .name("acme".to_owned())
            .spawn(run)?;
        Ok(Self {
            acme: Arc::new(acme),
            edge,
            phase,
            ended,
        })
    }

    /// As [`Certificates::want`]; blocks on the disk.
    pub(crate) fn want_at_once(&self, config: Option<sealane_acme::Config>) {
        want(&self.acme, &self.edge, config);
    }

    /// From now on this is wanted; what is on disk of it serves when this returns.
    pub(crate) async fn want(&self, config: Option<sealane_acme::Config>) {
        let (acme, edge) = (self.acme.clone(), self.edge.clone());
        let wanted = tokio::task::spawn_blocking(move || want(&acme, &edge, config));
        if let Err(error) = wanted.await {
            tracing::error!("what is kept of certificates was not read: {error}");
        }
    }

    /// The listeners are open: what is missing is ordered.
    pub(crate) fn begin(&self) {
        self.phase.send_replace(Phase::Ordering);
    }

    pub(crate) async fn stop(self) {
        self.phase.send_replace(Phase::Ended);
        // An error would be a panic, which has been logged as one.
        let _ = self.ended.await;
    }
}

fn want(acme: &Acme, edge: &ProxyEdge, config: Option<sealane_acme::Config>) {
    let wanted = config.as_ref().map(|config| config.wanted.clone());
    let wanted = wanted.unwrap_or_default();
    edge.follow(|followed| followed.retain(|names, _| wanted.contains(names)));
    acme.want(config);
}

async fn run(runner: Runner, mut phase: watch::Receiver<Phase>) {
    // Errors mean that the sender is gone: the end as well.
    let begun = phase.wait_for(|phase| *phase != Phase::Closed).await;
    if begun.is_ok_and(|phase| *phase == Phase::Ordering) {
        let ended = async {
            let _ = phase.wait_for(|phase| *phase == Phase::Ended).await;
        };
        runner.run(ended).await;
    }
}

/// Differs from process to process.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0_u8)
}
