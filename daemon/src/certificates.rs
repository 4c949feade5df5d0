//! Certificates that are ordered: the thread that orders them, with the proxy as its edge.
//!
//! Wiring alone: when something is ordered is decided in `sealane_acme::plan`.

use std::io;
use std::sync::Arc;

use sealane_acme::{Acme, Certificate, ChallengeCertificate, Edge, EdgeError, Names, Runner};
use sealane_proxy::Proxy;
use sealane_proxy::tls::CertificatePem;
use tokio::sync::{oneshot, watch};

/// The proxy, as whoever orders certificates sees it.
struct ProxyEdge(Arc<Proxy>);

impl Edge for ProxyEdge {
    fn show_http(&self, token: &str, authorization: &str) -> Result<(), EdgeError> {
        let shown = self.0.challenges().show_http(token, authorization);
        shown.map_err(edge_error)
    }

    fn show_tls(&self, name: &str, shown: &ChallengeCertificate) -> Result<(), EdgeError> {
        let challenges = self.0.challenges();
        let shown = challenges.show_tls(name, &shown.certificate, &shown.key);
        shown.map_err(edge_error)
    }

    fn hide_http(&self, token: &str) {
        self.0.challenges().hide_http(token);
    }

    fn hide_tls(&self, name: &str) {
        self.0.challenges().hide_tls(name);
    }

    fn serve(&self, names: &Names, certificate: &Certificate) -> Result<(), EdgeError> {
        let pem: Arc<[u8]> = certificate.pem().into();
        let pem = CertificatePem {
            chain: pem.clone(),
            key: pem,
        };
        let served = self.0.issued().put(names.as_slice(), &pem);
        served.map_err(edge_error)
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
    pub(crate) fn spawn(proxy: Arc<Proxy>) -> io::Result<Self> {
        let (acme, runner) = sealane_acme::acme(Arc::new(ProxyEdge(proxy)), random());
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
            phase,
            ended,
        })
    }

    /// As [`Certificates::want`]; blocks on the disk.
    pub(crate) fn want_at_once(&self, config: Option<sealane_acme::Config>) {
        self.acme.want(config);
    }

    /// From now on this is wanted; what is on disk of it serves when this returns.
    pub(crate) async fn want(&self, config: Option<sealane_acme::Config>) {
        let acme = self.acme.clone();
        let wanted = tokio::task::spawn_blocking(move || acme.want(config));
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
