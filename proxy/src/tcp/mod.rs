//! One TCP session: an endpoint is selected and connected to, bytes are relayed, and at the end it
//! becomes load released, metrics and one line in the access log.
//!
//! Called by the listeners for `tcp` and `tls_passthrough`. Reads nothing of what it relays but the
//! server name that a client asks for in the clear. Read [`serve`] first, then [`relay`].

pub(crate) mod end;
pub(crate) mod outcome;
pub(crate) mod relay;
pub(crate) mod splice;
pub(crate) mod watch;

use std::future::pending;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sealane_model::{EndpointId, Failure, Observation, Outcome, Source};
use sealane_steering::{ClientPlace, How};
use smallvec::SmallVec;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{Destination, OnDown, SessionRule};
use crate::http::connect::{failure_of_connect, prepare};
use crate::listener::ListenerRule;
use crate::random;
use crate::upstream::{LoadGuard, SelectAsk, Selected, Tried, select};
use crate::worker::Worker;
use end::End;
use outcome::Session;
use relay::{Ended, Patience};
use watch::is_down;

/// Endpoints that one session tries. A client that waits for three connections to fail has waited
/// long enough; the next session finds what the first ones learned.
pub(crate) const TRIES_MAX: usize = 3;

/// Sees a client's connection to its end.
pub(crate) async fn serve(
    client: TcpStream,
    from: SocketAddr,
    rule: Arc<ListenerRule>,
    to: &Destination,
    how: &SessionRule,
    worker: &Rc<Worker>,
) {
    let mut session = Session::begin(from, rule);
    let mut client = Side::new(client);
    session.end = run(&mut client, &mut session, to, how, worker).await;
}

async fn run(
    client: &mut Side,
    session: &mut Session,
    to: &Destination,
    how: &SessionRule,
    worker: &Rc<Worker>,
) -> End {
    if let Err(error) = prepare(&client.stream) {
        tracing::debug!("client left: {error}");
        return End::ClientReset;
    }
    let Some(mut opened) = connect(session, to, how, worker).await else {
        return End::NoEndpoint;
    };
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
    worker: &Worker,
) -> Option<Opened> {
    let shared = &worker.shared;
    let place = {
        let rules = shared.rules.load();
        let address = session.client.ip().to_canonical();
        ClientPlace::locate(address, How::Connection, &rules.config.geo)
    };
    let key = random::number();
    let mut tried: SmallVec<[Tried; TRIES_MAX]> = SmallVec::new();
    while tried.len() < TRIES_MAX {
        let (selected, was_down) = {
            let world = shared.world.load();
            let ask = SelectAsk {
                pool: to.pool,
                policy: &to.steering,
                place: &place,
                key,
                random: random::number(),
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
            (selected, was_down)
        };
        session.attempts += 1;
        session.metrics().attempt(&selected);
        session.selected = Some(selected.clone());
        let load = shared.loads.begin(selected.endpoint);
        let failure = match dial(&selected, how.timeouts.connect).await {
            Ok(stream) => {
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

async fn dial(selected: &Selected, within: Duration) -> Result<TcpStream, Failure> {
    let connecting = async {
        let stream = TcpStream::connect(selected.address).await?;
        prepare(&stream)?;
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
