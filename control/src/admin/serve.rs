//! The admin API's sockets, and the bounds around everything it does.
//!
//! Binds, accepts, and lets accepted requests finish at the end. What the routes do is not known
//! here.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::middleware;
use axum::response::Response;
use http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{BoxError, ServiceBuilder};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;

use super::again::Again;
use super::auth::Reach;
use super::{Deps, routes};
use crate::config::AdminConfig;

/// Connections at once. One more waits in the kernel's queue until another ends.
pub const CONNECTIONS_MAX: usize = 256;
/// Requests at once, `/livez` and `/readyz` aside. One more is refused with 503.
pub const REQUESTS_MAX: usize = 64;
/// How long a request may take; then 503.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a head may take to arrive, and how long an idle connection is kept.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// A longer body is refused with 413.
pub const BODY_MAX: usize = 64 * 1024;
/// How long accepted requests may take after the end was asked for; then they are cut.
pub const DRAIN_MAX: Duration = Duration::from_secs(3);

/// Listening sockets, not yet served.
#[derive(Debug)]
pub struct Bound(Vec<StdListener>);

/// Gives the socket that an earlier process left for an address, if any.
pub type Inherit<'a> = dyn FnMut(SocketAddr) -> Option<StdListener> + 'a;

impl Bound {
    /// Where it listens, with the ports that port 0 became.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Duplicates, in the order of the configuration, for a successor.
    ///
    /// # Errors
    /// The process has too many descriptors open.
    pub fn sockets(&self) -> io::Result<Vec<StdListener>> {
        self.0.iter().map(StdListener::try_clone).collect()
    }
}

/// Why the admin API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{address} is in use by another program")]
    InUse { address: SocketAddr },
    #[error("cannot listen on {address}")]
    Other {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// Binds every address, or none.
///
/// # Errors
/// An address is in use, not ours, or needs a privilege.
pub fn bind(config: &AdminConfig) -> Result<Bound, BindError> {
    bind_inheriting(config, &mut |_| None)
}

/// The same, with the sockets of an earlier process where `inherit` has them.
///
/// # Errors
/// An address is in use, not ours, or needs a privilege.
pub fn bind_inheriting(
    config: &AdminConfig,
    inherit: &mut Inherit<'_>,
) -> Result<Bound, BindError> {
    let addresses = config.bind.iter();
    let listeners = addresses.map(|address| listen(*address, inherit(*address)));
    listeners.collect::<Result<_, _>>().map(Bound)
}

fn listen(address: SocketAddr, inherited: Option<StdListener>) -> Result<StdListener, BindError> {
    let listener = inherited.map_or_else(|| StdListener::bind(address), Ok);
    let listener = listener.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        _ => BindError::Other { address, source },
    })?;
    let ready = listener.set_nonblocking(true);
    ready.map_err(|source| BindError::Other { address, source })?;
    Ok(listener)
}

/// What the routes share.
#[derive(Debug)]
pub(super) struct Admin {
    pub(super) config: Arc<ArcSwap<AdminConfig>>,
    pub(super) deps: Deps,
    pub(super) again: Again,
}

/// Serves until `shutdown` resolves, then lets accepted requests finish within [`DRAIN_MAX`].
/// Tokens are read from `config` anew for each request.
pub async fn serve(
    bound: Bound,
    config: Arc<ArcSwap<AdminConfig>>,
    deps: Deps,
    shutdown: impl Future<Output = ()>,
) {
    let admin = Arc::new(Admin {
        config,
        deps,
        again: Again::default(),
    });
    let limits = Limits {
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
    };
    let (stop, stopping) = watch::channel(false);
    let mut listeners = JoinSet::new();
    for listener in bound.0 {
        let Some((listener, reach)) = adopt(listener) else {
            continue;
        };
        let router = router(&admin, reach, &limits);
        let (connections, stopping) = (limits.connections.clone(), stopping.clone());
        listeners.spawn(accept(listener, router, connections, stopping));
    }
    shutdown.await;
    stop.send_replace(true);
    while listeners.join_next().await.is_some() {}
}

/// Bounds that all listeners share.
struct Limits {
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
}

fn adopt(listener: StdListener) -> Option<(TcpListener, Reach)> {
    let address = listener.local_addr();
    match TcpListener::from_std(listener).and_then(|listener| Ok((listener, address?))) {
        Ok((listener, address)) if address.ip().to_canonical().is_loopback() => {
            Some((listener, Reach::Loopback))
        }
        Ok((listener, _)) => Some((listener, Reach::Network)),
        Err(error) => {
            tracing::error!(%error, "an admin listener cannot be served");
            None
        }
    }
}

fn router(admin: &Arc<Admin>, reach: Reach, limits: &Limits) -> Router {
    let bounds = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(overdone))
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(
            limits.requests.clone(),
        ))
        .timeout(REQUEST_TIMEOUT)
        .layer(RequestBodyLimitLayer::new(BODY_MAX));
    routes::guarded(admin, reach)
        .layer(bounds)
        .merge(routes::vital())
        .method_not_allowed_fallback(routes::wrong_method)
        .fallback(routes::not_found)
        .layer(middleware::from_fn(routes::finish))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(admin.clone())
}

/// A bound was hit: too many requests at once, or one that takes too long.
async fn overdone(error: BoxError) -> Response {
    let message = if error.is::<tower::timeout::error::Elapsed>() {
        "this took too long"
    } else {
        "too many requests at once"
    };
    tracing::warn!(message, "an admin request was given up");
    routes::error(
        StatusCode::SERVICE_UNAVAILABLE,
        message.to_owned(),
        Some("try again"),
    )
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a function of the admin API panicked");
    let message = "this is a fault of Sealane's own; it has been logged".to_owned();
    routes::error(StatusCode::INTERNAL_SERVER_ERROR, message, None)
}

async fn accept(
    listener: TcpListener,
    router: Router,
    connections: Arc<Semaphore>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut running = JoinSet::new();
    let for_each = stopping.clone();
    loop {
        let next = async {
            let permit = connections.clone().acquire_owned().await;
            (listener.accept().await, permit)
        };
        tokio::select! {
            () = stopped(&mut stopping) => break,
            Some(_) = running.join_next() => {}
            (accepted, permit) = next => match accepted {
                Ok((stream, _)) => {
                    let (router, stopping) = (router.clone(), for_each.clone());
                    running.spawn(async move {
                        converse(stream, router, stopping).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of descriptors, or the client left at once: the next may go better, and
                    // a moment's pause keeps a lasting fault from filling a core and the log.
                    tracing::debug!(%error, "an admin connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while running.join_next().await.is_some() {} };
    // Dropping what is left cuts it.
    let _ = tokio::time::timeout(DRAIN_MAX, all).await;
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

async fn converse(stream: TcpStream, router: Router, mut stopping: watch::Receiver<bool>) {
    // Only latency is lost where this fails.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BODY_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let mut told = false;
    loop {
        let ended: Result<(), hyper::Error> = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped(&mut stopping), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
                continue;
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an admin connection ended badly");
        }
        return;
    }
}

/// Resolves when the end was asked for; also when nobody is left to ask for it.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}
