//! Scripted HTTP/1.1 endpoints: how long they work, how many requests at once, and how they fail, all
//! changed at run time.
//!
//! One says who it is in `x-endpoint`, and its answer's body is the caller's `authorization`. What it
//! works on, it works on to the end, whether or not anybody still waits, as most servers do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use sealane_testkit::http1::Head;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::numbers::{draw, normal};

/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4_096;

/// From the next request on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Behaviour {
    pub(crate) mode: Mode,
    /// The median of the time that a request takes …
    pub(crate) work: Duration,
    /// … and how far it is spread: σ of a log-normal distribution; 0: always the same.
    pub(crate) spread: f64,
    /// So many of the requests take so much longer.
    pub(crate) straggle: Option<(f64, Duration)>,
    /// Of probes and requests alike, before anything else: the way there.
    pub(crate) distance: Duration,
    /// So many of the requests are answered with 500.
    pub(crate) errors: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Serve,
    /// 500, without doing any work; probes are answered well.
    FailAtOnce,
    /// Requests are read, and the connection is closed; probes are answered well.
    Reset,
    /// Nothing is ever answered, probes excepted.
    Hang,
    /// Nothing listens, and connections are closed: the machine is gone.
    Down,
}

impl Behaviour {
    /// Works `millis`, give or take a fifth.
    pub(crate) const fn works(millis: u64) -> Self {
        Self {
            mode: Mode::Serve,
            work: Duration::from_millis(millis),
            spread: 0.2,
            straggle: None,
            distance: Duration::ZERO,
            errors: 0.0,
        }
    }

    pub(crate) const fn always(mut self) -> Self {
        self.spread = 0.0;
        self
    }

    pub(crate) const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) const fn straggling(mut self, share: f64, millis: u64) -> Self {
        self.straggle = Some((share, Duration::from_millis(millis)));
        self
    }

    pub(crate) const fn distant(mut self, millis: u64) -> Self {
        self.distance = Duration::from_millis(millis);
        self
    }

    pub(crate) const fn failing(mut self, share: f64) -> Self {
        self.errors = share;
        self
    }

    fn takes(&self, seed: u64, number: u64) -> Duration {
        let of = |what: u64| draw(seed * 4 + what, number);
        let factor = (self.spread * normal(of(0), of(1))).exp();
        let late = self.straggle.filter(|(share, _)| of(2) < *share);
        self.work.mul_f64(factor) + late.map_or(Duration::ZERO, |late| late.1)
    }

    fn status(&self, seed: u64, number: u64) -> u16 {
        if draw(seed * 4 + 3, number) < self.errors {
            500
        } else {
            200
        }
    }
}

/// Stops, with its connections, when dropped.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    behaviour: watch::Sender<Behaviour>,
    seen: Arc<Seen>,
    _task: JoinSet<()>,
}

#[derive(Debug)]
struct Seen {
    name: String,
    seed: u64,
    epoch: Instant,
    number: AtomicU64,
    /// When requests arrived, without probes.
    arrivals: Mutex<Vec<Duration>>,
    /// How many may work at once; others wait for their turn.
    places: Option<Semaphore>,
}

impl Endpoint {
    /// On any free port of 127.0.0.1. `seed`: endpoints of different seeds draw different times.
    pub(crate) async fn start(
        name: &str,
        seed: u64,
        behaviour: Behaviour,
        places: Option<usize>,
        epoch: Instant,
    ) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.context("an endpoint cannot listen")?;
        let address = listener.local_addr().context("it has no address")?;
        let (behaviour, behaves) = watch::channel(behaviour);
        let seen = Arc::new(Seen {
            name: name.to_owned(),
            seed,
            epoch,
            number: AtomicU64::new(0),
            arrivals: Mutex::default(),
            places: places.map(Semaphore::new),
        });
        let mut task = JoinSet::new();
        task.spawn(accept(listener, behaves, Arc::clone(&seen)));
        Ok(Self {
            address,
            behaviour,
            seen,
            _task: task,
        })
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        self.behaviour.send_replace(behaviour);
    }

    /// When requests arrived, as far as they did.
    pub(crate) fn arrivals(&self) -> Vec<Duration> {
        let arrivals = self.seen.arrivals.lock();
        arrivals.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(listener: TcpListener, mut behaves: watch::Receiver<Behaviour>, seen: Arc<Seen>) {
    let Ok(address) = listener.local_addr() else {
        return;
    };
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let is_down = behaves.borrow_and_update().mode == Mode::Down;
        if is_down {
            listener = None;
            connections.shutdown().await;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        while connections.try_join_next().is_some() {}
        let Some(listening) = listener.as_ref() else {
            if behaves.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            changed = behaves.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next(), if connections.len() >= CONNECTIONS_MAX => {}
            accepted = listening.accept(), if connections.len() < CONNECTIONS_MAX => {
                if let Ok((tcp, _)) = accepted {
                    let (behaves, seen) = (behaves.clone(), Arc::clone(&seen));
                    // Whoever called has left when it ends with an error.
                    connections.spawn(async move { connection(tcp, behaves, &seen).await.unwrap_or(()) });
                }
            }
        }
    }
}

async fn connection(
    tcp: TcpStream,
    behaves: watch::Receiver<Behaviour>,
    seen: &Seen,
) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut tcp = BufReader::new(tcp);
    while let Some(head) = Head::read(&mut tcp).await? {
        let behaviour = *behaves.borrow();
        let status = if head.target() == "/health" {
            tokio::time::sleep(behaviour.distance).await;
            Some(200)
        } else {
            seen.work(behaviour).await
        };
        let Some(status) = status else {
            return Ok(());
        };
        tcp.write_all(answer(status, &seen.name, &head).as_bytes())
            .await?;
    }
    Ok(())
}

fn answer(status: u16, name: &str, head: &Head) -> String {
    let body = head.field("authorization").unwrap_or("nobody");
    format!(
        "HTTP/1.1 {status} As scripted\r\ncontent-length: {}\r\nx-endpoint: {name}\r\n\r\n{body}",
        body.len()
    )
}

impl Seen {
    fn note_arrival(&self) {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.push(self.epoch.elapsed());
    }

    /// The status to answer with, if any.
    async fn work(&self, behaviour: Behaviour) -> Option<u16> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.note_arrival();
        tokio::time::sleep(behaviour.distance).await;
        match behaviour.mode {
            Mode::FailAtOnce => return Some(500),
            Mode::Reset | Mode::Down => return None,
            Mode::Hang => std::future::pending().await,
            Mode::Serve => {}
        }
        let _place = match &self.places {
            Some(places) => places.acquire().await.ok(),
            None => None,
        };
        tokio::time::sleep(behaviour.takes(self.seed, number)).await;
        Some(behaviour.status(self.seed, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealane_testkit::HttpClient;

    #[expect(clippy::disallowed_methods, reason = "a test of what reads the clock")]
    async fn endpoint(behaviour: Behaviour, places: Option<usize>) -> Endpoint {
        let started = Endpoint::start("a", 1, behaviour, places, Instant::now());
        started.await.unwrap()
    }

    #[tokio::test]
    async fn one_place_makes_two_callers_wait_for_each_other() {
        let endpoint = endpoint(Behaviour::works(50).always(), Some(1)).await;
        let mut first = HttpClient::connect(endpoint.address).await.unwrap();
        let mut second = HttpClient::connect(endpoint.address).await.unwrap();

        let (one, other) = tokio::join!(first.get("/"), second.get("/"));

        assert_eq!(one.unwrap().field("x-endpoint"), Some("a"));
        assert_eq!(other.unwrap().status(), 200);
        assert_eq!(endpoint.arrivals().len(), 2);
        assert!(endpoint.seen.epoch.elapsed() >= Duration::from_millis(100));
    }

    #[tokio::test]
    async fn it_goes_and_comes_back_at_the_same_address() {
        let behaviour = Behaviour::works(0);
        let endpoint = endpoint(behaviour, None).await;
        let mut kept = HttpClient::connect(endpoint.address).await.unwrap();
        kept.get("/").await.unwrap();

        endpoint.behave(behaviour.mode(Mode::Down));
        assert!(kept.get("/").await.is_err());
        endpoint.behave(behaviour.mode(Mode::FailAtOnce));
        let mut again = HttpClient::connect(endpoint.address).await;
        while again.is_err() {
            again = HttpClient::connect(endpoint.address).await;
        }

        assert_eq!(again.unwrap().get("/").await.unwrap().status(), 500);
    }
}
