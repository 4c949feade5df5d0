//! One TCP session: an endpoint is selected and connected to, bytes are relayed, and at the end it
//! becomes load released, metrics and one line in the access log.
//!
//! Called by the listeners for `tcp` and `tls_passthrough`. Reads nothing of what it relays but the
//! server name that a client asks for in the clear. Read [`serve`] first, then [`relay`].

pub(crate) mod end;
pub(crate) mod names;
pub(crate) mod outcome;
pub(crate) mod relay;
pub mod sni;
pub(crate) mod splice;
pub(crate) mod watch;

use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut as _;
use sealane_model::{EndpointId, Failure, Observation, Outcome, ProxyVersion, Source};
use sealane_steering::{ClientPlace, How};
use smallvec::SmallVec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::clock;
use crate::config::{Destination, ListenerProtocol, OnDown, SessionRule};
use crate::http::connect::{failure_of_connect, prepare};
use crate::listener::{Caller, ListenerRule};
use crate::proxy_protocol::{Addresses, compose};
use crate::random;
use crate::upstream::{Answered, LoadGuard, SelectAsk, Selected, Tried, hash_of_client, select};
use crate::worker::Worker;
use end::End;
use outcome::Session;
use relay::{Ended, Patience};
use sni::{ClientHello, HELLO_BYTES_MAX, HelloError};
use watch::is_down;

/// Endpoints that one session tries. A client that waits for three connections to fail has waited
/// long enough; the next session finds what the first ones learned.
pub(crate) const TRIES_MAX: usize = 3;

/// Sees a client's connection to its end.
pub(crate) async fn serve(
    client: TcpStream,
    caller: Caller,
    rule: Arc<ListenerRule>,
    worker: Rc<Worker>,
) {
    let mut session = Session::begin(caller, Arc::clone(&rule));
    let mut client = Side::new(client);
    session.end = match &rule.protocol {
        ListenerProtocol::Tcp { to, how } => {
            run(&mut client, &mut session, to, how, Vec::new(), &worker).await
        }
        ListenerProtocol::TlsPassthrough { how, .. } => {
            match by_name(&mut client, &mut session, &rule, &worker).await {
                Ok((to, hello)) => run(&mut client, &mut session, to, how, hello, &worker).await,
                Err(end) => end,
            }
        }
        // Its connections are no sessions.
        ListenerProtocol::Http | ListenerProtocol::Https(_) | ListenerProtocol::Udp { .. } => {
            End::NoEndpoint
        }
    };
}

/// Who serves the server name that the client asks for, and what it has said so far.
async fn by_name<'r>(
    client: &mut Side,
    session: &mut Session,
    rule: &'r ListenerRule,
    worker: &Worker,
) -> Result<(&'r Destination, Vec<u8>), End> {
    let within = worker.shared.rules.load().config.limits.handshake_timeout;
    let mut bytes = Vec::new();
    let reading = timeout(within, read_hello(&mut client.stream, &mut bytes));
    let hello = match reading.await.unwrap_or(Err(NoHello::Late)) {
        Ok(hello) => hello,
        Err(reason) => {
            tracing::debug!(listener = &*rule.name, "no ClientHello: {reason}");
            if let NoHello::Unlawful(HelloError::Malformed(_) | HelloError::TooLong) = reason {
                client.refuse(Alert::DecodeError).await;
            }
            return Err(End::BadHello);
        }
    };
    session.server_name = hello.server_name;
    let name = session.server_name.as_deref();
    match rule.names.as_ref().and_then(|names| names.find(name)) {
        Some(to) => Ok((to, bytes)),
        None => {
            client.refuse(Alert::UnrecognizedName).await;
            Err(End::UnknownName)
        }
    }
}

/// Room for what browsers send.
const HELLO_BYTES_USUAL: usize = 2 * 1024;

/// Reads into `bytes`, at most [`HELLO_BYTES_MAX`], until they hold a ClientHello.
async fn read_hello(client: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<ClientHello, NoHello> {
    loop {
        let room = HELLO_BYTES_MAX - bytes.len();
        bytes.reserve(room.min(HELLO_BYTES_USUAL));
        if client.read_buf(&mut bytes.limit(room)).await? == 0 {
            return Err(NoHello::Ended);
        }
        if let Some(hello) = sni::parse(bytes)? {
            return Ok(hello);
        }
    }
}

/// Why there is no ClientHello.
#[derive(Debug, thiserror::Error)]
enum NoHello {
    #[error("{0}")]
    Unlawful(#[from] HelloError),
    #[error("the client ended before it")]
    Ended,
    #[error("the connection broke")]
    Broken(#[from] std::io::Error),
    #[error("it took too long")]
    Late,
}

/// Of those that TLS knows (RFC 8446 §6).
#[derive(Clone, Copy, Debug)]
enum Alert {
    DecodeError = 50,
    UnrecognizedName = 112,
}

async fn run(
    client: &mut Side,
    session: &mut Session,
    to: &Destination,
    how: &SessionRule,
    said: Vec<u8>,
    worker: &Rc<Worker>,
) -> End {
    if let Err(error) = prepare(&client.stream) {
        tracing::debug!("client left: {error}");
        return End::ClientReset;
    }
    let said = Said {
        client: &client.stream,
        bytes: said,
    };
    let Some(mut opened) = connect(session, to, how, &said, worker).await else {
        return End::NoEndpoint;
    };
    session.moved.from_client += said.bytes.len() as u64;
    // Not held while the session lasts.
    drop(said);
    let Ok(stop) = watch(&opened, how, worker) else {
        return End::EndpointDown;
    };
    let patience = Patience {
        idle: how.timeouts.idle,
        until: how.timeouts.lifetime.map(|life| session.started + life),
    };
    let Session { moved, meter, .. } = session;
    let ended = relay::run(
        &mut client.stream,
        &mut opened.side.stream,
        &worker.kit,
        patience,
        stop,
        moved,
        |moved, now| meter.note(moved, now),
    )
    .await;
    let well = ended == Ended::Finished;
    (client.ended_well, opened.side.ended_well) = (well, well);
    End::from(ended)
}

/// A client that waits for an endpoint, and what it has said so far.
struct Said<'a> {
    client: &'a TcpStream,
    bytes: Vec<u8>,
}

impl Said<'_> {
    /// What an endpoint is to be sent first.
    fn opening(&self, version: Option<ProxyVersion>, caller: Caller) -> Vec<u8> {
        let mut opening = version.map_or_else(Vec::new, |version| self.header(version, caller));
        opening.extend_from_slice(&self.bytes);
        opening
    }

    fn header(&self, version: ProxyVersion, caller: Caller) -> Vec<u8> {
        let own_address = || self.client.local_addr().ok();
        let Some(destination) = caller.destination.or_else(own_address) else {
            return version.local_header().to_vec();
        };
        let source = caller.source;
        compose(
            version,
            Addresses {
                source,
                destination,
            },
        )
    }
}

/// One side's connection. Unless it ended well its peer sees it break (RST): an end would say that
/// what came was all there is.
struct Side {
    stream: TcpStream,
    ended_well: bool,
}

impl Side {
    const fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            ended_well: false,
        }
    }

    /// Tells a TLS client why, which a break would not let it read.
    async fn refuse(&mut self, alert: Alert) {
        // A record of type alert, TLS 1.0 as far as anybody cares, two bytes: fatal, and why.
        let record = [21, 3, 1, 0, 2, 2, alert as u8];
        let written = self.stream.write_all(&record).await;
        self.ended_well = written.is_ok() && self.stream.shutdown().await.is_ok();
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if !self.ended_well {
            // If it fails the peer sees an end: no worse than without.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// A connection to an endpoint.
struct Opened {
    side: Side,
    endpoint: EndpointId,
    /// It was chosen all the same.
    was_down: bool,
    _load: LoadGuard,
}

/// Tries endpoints until one is connected to.
async fn connect(
    session: &mut Session,
    to: &Destination,
    how: &SessionRule,
    said: &Said<'_>,
    worker: &Worker,
) -> Option<Opened> {
    let shared = &worker.shared;
    let place = {
        let rules = shared.rules.load();
        let address = session.caller.source.ip();
        ClientPlace::locate(address, How::Connection, &rules.config.geo)
    };
    let hash = hash_of_client(&to.balance, place.address);
    let key = hash.unwrap_or_else(random::number);
    let mut tried: SmallVec<[Tried; TRIES_MAX]> = SmallVec::new();
    while tried.len() < TRIES_MAX {
        let (selected, was_down, version) = {
            let world = shared.world.load();
            let ask = SelectAsk {
                pool: to.pool,
                policy: &to.steering,
                balance: &to.balance,
                place: &place,
                key,
                hash,
                random: random::number(),
                may_shed: false,
                now: clock::now().into_std(),
                // Until a connection is open nothing is lost.
                repeatable: true,
                tried: &tried,
            };
            let selected = match select(&world, &worker.endpoints, &ask) {
                Ok(selected) => selected,
                Err(none) => {
                    tracing::debug!("no endpoint: {none}");
                    return None;
                }
            };
            let was_down = is_down(&world, selected.endpoint);
            let endpoint = world.topology.endpoint(selected.endpoint);
            let version = endpoint.and_then(|endpoint| endpoint.proxy_protocol);
            (selected, was_down, version)
        };
        let opening = said.opening(version, session.caller);
        session.attempts += 1;
        session.metrics().attempt(&selected);
        session.selected = Some(selected.clone());
        let load = shared.loads.begin(selected.endpoint);
        let failure = match dial(&selected, &opening, how.timeouts.connect).await {
            Ok(stream) => {
                selected.answered(clock::now().into_std(), Answered::Well);
                return Some(Opened {
                    side: Side::new(stream),
                    endpoint: selected.endpoint,
                    was_down,
                    _load: load,
                });
            }
            Err(failure) => failure,
        };
        drop(load);
        selected.failed(clock::now().into_std(), true);
        session.attempt_failed(&selected, &failure);
        tried.push(Tried {
            region: selected.region,
            endpoint: selected.endpoint,
            timed_out: failure == Failure::ConnectTimedOut,
        });
        shared.observations.offer(Observation {
            endpoint: selected.endpoint,
            source: Source::Traffic,
            outcome: Outcome::Failed(failure),
        });
    }
    None
}

/// Connects and sends `opening`: until then nothing is lost where it fails.
async fn dial(selected: &Selected, opening: &[u8], within: Duration) -> Result<TcpStream, Failure> {
    let connecting = async {
        let mut stream = TcpStream::connect(selected.address).await?;
        prepare(&stream)?;
        stream.write_all(opening).await?;
        Ok(stream)
    };
    match timeout(within, connecting).await {
        Ok(connected) => connected.map_err(|error| failure_of_connect(&error)),
        Err(_) => Err(Failure::ConnectTimedOut),
    }
}

/// What ends a session from outside; it went down already: `Err`.
fn watch(
    opened: &Opened,
    how: &SessionRule,
    worker: &Worker,
) -> Result<impl Future<Output = ()> + use<>, EndpointFell> {
    let fate = match how.on_down {
        OnDown::Keep => None,
        OnDown::Close => {
            let world = worker.shared.world.load();
            if is_down(&world, opened.endpoint) && !opened.was_down {
                return Err(EndpointFell);
            }
            Some(worker.watch.join(opened.endpoint, &world))
        }
    };
    Ok(async move {
        match fate {
            Some(fate) => fate.goes_down().await,
            None => pending().await,
        }
    })
}

/// The endpoint went down while it was connected to.
struct EndpointFell;
