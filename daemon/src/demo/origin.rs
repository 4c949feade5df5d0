//! The origins of the demo: small HTTP servers that say who they are, and can be made to fail.
//!
//! They fail as real ones do: a refused region has no open port and drops its connections, a
//! black-holed one accepts and never answers. They know nothing of Sealane.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{ORIGINS, REGIONS, origin_address};

/// How a region's origins behave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    #[default]
    Serving,
    /// No open port; open connections are reset.
    Refused,
    /// Connections are accepted, nothing is answered.
    BlackHole,
}

/// The one switch of each region.
pub(super) type Switches = Arc<HashMap<&'static str, watch::Sender<Mode>>>;

#[derive(Debug)]
pub struct Origins {
    port: u16,
    bound: Vec<(Origin, TcpListener)>,
    switches: Switches,
}

#[derive(Clone, Debug)]
struct Origin {
    region: &'static str,
    address: SocketAddr,
    mode: watch::Receiver<Mode>,
}

/// How often a free port is looked for that all nine addresses have.
const PORT_TRIES: u32 = 16;

impl Origins {
    /// Binds all origins on `port` of their own loopback addresses; 0 finds a port that is free on all.
    ///
    /// # Errors
    /// The port is in use on one of them.
    pub async fn bind(port: u16) -> anyhow::Result<Self> {
        let mut tries = if port == 0 { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            match Self::bind_all(port).await {
                Ok(origins) => return Ok(origins),
                Err(_) if tries > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn bind_all(mut port: u16) -> anyhow::Result<Self> {
        let mut bound = Vec::new();
        let mut switches = HashMap::new();
        for (region, index) in REGIONS.into_iter().zip(1..) {
            let (switch, mode) = watch::channel(Mode::Serving);
            switches.insert(region, switch);
            for origin in 1..=ORIGINS {
                let address = origin_address(index, origin, port);
                let listener = TcpListener::bind(address).await.with_context(|| {
                    format!("demo origin {address} cannot listen (--origins-port changes the port)")
                })?;
                let address = listener.local_addr()?;
                port = address.port();
                bound.push((
                    Origin {
                        region,
                        address,
                        mode: mode.clone(),
                    },
                    listener,
                ));
            }
        }
        Ok(Self {
            port,
            bound,
            switches: Arc::new(switches),
        })
    }

    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn switches(&self) -> Switches {
        self.switches.clone()
    }

    /// Serves until dropped.
    pub async fn serve(self) {
        let mut origins = JoinSet::new();
        for (origin, listener) in self.bound {
            origins.spawn(origin.live(listener));
        }
        while origins.join_next().await.is_some() {}
    }
}

impl Origin {
    async fn live(mut self, first: TcpListener) {
        let mut listener = Some(first);
        loop {
            if *self.mode.borrow_and_update() == Mode::Refused {
                listener = None;
                if self.mode.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let open = match listener.take() {
                Some(open) => Ok(open),
                None => TcpListener::bind(self.address).await,
            };
            match open {
                Ok(open) => self.serve_until_refused(open).await,
                Err(error) => {
                    tracing::error!(address = %self.address, %error, "demo origin cannot listen");
                    return;
                }
            }
        }
    }

    /// Returns when the region is to refuse; what was open is closed then.
    async fn serve_until_refused(&mut self, listener: TcpListener) {
        let router = self.router();
        let mut refused = self.mode.clone();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                // An error means that the demo ends.
                _ = refused.wait_for(|mode| *mode == Mode::Refused) => return,
                Ok((stream, _)) = listener.accept() => {
                    connections.spawn(connection(stream, router.clone()));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/health", get(async || "ok\n"))
            .route(
                "/ws",
                any(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(echo)),
            )
            .route("/bytes/{count}", get(bytes))
            .route("/upload", any(upload))
            .fallback(name)
            .layer(middleware::from_fn_with_state(
                self.clone(),
                answer_or_swallow,
            ))
            .with_state(self.clone())
    }
}

async fn connection(stream: TcpStream, router: Router) {
    // Only a debugging aid when it fails: the answer would merely come later.
    let _ = stream.set_nodelay(true);
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "demo origin: a connection ended early");
    }
}

/// Marks every answer with who gave it; while black-holed, gives none.
async fn answer_or_swallow(
    State(mut origin): State<Origin>,
    request: Request,
    next: Next,
) -> Response {
    // An error means that the demo ends.
    let _ = origin.mode.wait_for(|mode| *mode != Mode::BlackHole).await;
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert("x-region", http::HeaderValue::from_static(origin.region));
    if let Ok(address) = http::HeaderValue::try_from(origin.address.to_string()) {
        headers.insert("x-endpoint", address);
    }
    response
}

async fn name(State(origin): State<Origin>, request: Request) -> Response {
    let body = json!({
        "region": origin.region,
        "endpoint": origin.address.to_string(),
        "method": request.method().as_str(),
        "path": request.uri().path(),
    });
    let json = [(http::header::CONTENT_TYPE, "application/json")];
    (json, format!("{body}\n")).into_response()
}

/// The largest body that `/bytes/N` makes.
const BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
const CHUNK: usize = 64 * 1024;

async fn bytes(Path(count): Path<u64>) -> Response {
    let count = count.min(BYTES_MAX);
    let chunk = Bytes::from(vec![b'x'; CHUNK]);
    let chunks = stream::unfold(count, move |left| {
        let size = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let piece = chunk.slice(..size);
        async move { (left > 0).then(|| (Ok::<_, Infallible>(piece), left - size as u64)) }
    });
    (
        [(http::header::CONTENT_LENGTH, count.to_string())],
        Body::from_stream(chunks),
    )
        .into_response()
}

async fn upload(body: Body) -> Response {
    let mut stream = body.into_data_stream();
    let mut received: u64 = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        received += chunk.len() as u64;
    }
    format!("{{\"received\":{received}}}\n").into_response()
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Message::Text(_) | Message::Binary(_))
            && socket.send(message).await.is_err()
        {
            return;
        }
    }
}
