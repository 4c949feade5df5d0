//! Requests and questions at a fixed rate, each one recorded.
//!
//! Sending goes by the clock, never by the answers: a slow system gets its next request all the
//! same, and a time counts from when the request was *due* (no coordinated omission). What the
//! records mean is said in [`crate::timeline`].

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::dns_client::Question;
use crate::http_client::{Answer, HttpClient, Request};

/// A load ends by itself after this many records (some 1 GiB).
pub const RECORDS_MAX: usize = 10_000_000;

/// GETs at a fixed rate.
#[derive(Clone, Debug)]
pub struct Load {
    pub target: SocketAddr,
    /// The `Host` to ask for.
    pub host: String,
    pub path: String,
    /// Requests in a second.
    pub rate: NonZeroU32,
    /// Requests on the way at once. At the bound the next one waits, and its time runs.
    pub in_flight_max: usize,
    /// Every n-th request opens a connection of its own and closes it; the others keep theirs.
    pub fresh_every: NonZeroU32,
    /// From when a request is due to the last byte of its answer.
    pub limit: Duration,
}

/// One GET. Times count from the run's epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetRecord {
    pub due: Duration,
    pub end: Duration,
    /// Or why there was no whole answer.
    pub outcome: Result<Reply, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// From `x-region` and `x-endpoint`, else from `x-sealane-…`, where the answer says.
    pub region: Option<String>,
    pub endpoint: Option<String>,
    /// A kept connection was closed on the request before its answer began, and a new one
    /// answered.
    pub asked_again: bool,
}

impl GetRecord {
    /// No answer, or one that blames a server (5xx).
    #[must_use]
    pub fn failed(&self) -> bool {
        self.outcome
            .as_ref()
            .map_or(true, |reply| reply.status >= 500)
    }

    #[must_use]
    pub fn took(&self) -> Duration {
        self.end.saturating_sub(self.due)
    }

    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.outcome.as_ref().ok()?.region.as_deref()
    }
}

/// The same question at a fixed interval, over UDP.
#[derive(Clone, Debug)]
pub struct Poll {
    pub server: SocketAddr,
    pub question: Question,
    pub interval: Duration,
    /// How long each answer may take.
    pub limit: Duration,
}

/// One question. Times count from the run's epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsRecord {
    pub due: Duration,
    pub end: Duration,
    /// Or why there was no answer.
    pub outcome: Result<DnsReply, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsReply {
    pub rcode: u16,
    pub addresses: Vec<IpAddr>,
    pub ttl: Option<u32>,
    pub scope: Option<u8>,
}

/// A load that runs. Ends, unfinished, when dropped.
#[derive(Debug)]
pub struct Run<R> {
    epoch: Instant,
    records: Arc<Mutex<Vec<R>>>,
    /// When those on the way were due.
    in_flight: Arc<Mutex<BTreeSet<Duration>>>,
    stop: watch::Sender<bool>,
    task: JoinSet<()>,
}

impl<R: Clone> Run<R> {
    /// The time that counts as zero in the records.
    #[must_use]
    pub const fn epoch(&self) -> Instant {
        self.epoch
    }

    /// When the oldest one that is still on the way was due.
    #[must_use]
    pub fn oldest_in_flight(&self) -> Option<Duration> {
        locked(&self.in_flight).first().copied()
    }

    /// What is recorded so far, in the order of the ends.
    #[must_use]
    pub fn so_far(&self) -> Vec<R> {
        locked(&self.records).clone()
    }

    /// Looks at what is recorded so far without copying it. Recording waits meanwhile.
    pub fn look<T>(&self, at: impl FnOnce(&[R]) -> T) -> T {
        at(&locked(&self.records))
    }

    /// Sends no more, waits for what is on the way, and hands out the records in the order of
    /// their ends.
    pub async fn stop(mut self) -> Vec<R> {
        self.stop.send_replace(true);
        while self.task.join_next().await.is_some() {}
        std::mem::take(&mut locked(&self.records))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    /// 200 a second is lawful for `rate`; every 10th request opens its own connection, 512 may be
    /// on the way, each for 10 s.
    #[must_use]
    pub fn new(target: SocketAddr, host: &str, rate: NonZeroU32) -> Self {
        Self {
            target,
            host: host.to_owned(),
            path: "/".to_owned(),
            rate,
            in_flight_max: 512,
            fresh_every: const { NonZeroU32::new(10).unwrap() },
            limit: Duration::from_secs(10),
        }
    }

    /// Begins at once; times count from `epoch`.
    #[must_use]
    pub fn start(self, epoch: Instant) -> Run<GetRecord> {
        let interval = Duration::from_secs(1) / self.rate.get();
        let idle = Arc::new(Mutex::new(Vec::new()));
        let load = Arc::new(self);
        let in_flight_max = load.in_flight_max;
        run(epoch, interval, in_flight_max, move |number, due| {
            let visit = Visit {
                load: load.clone(),
                idle: idle.clone(),
                fresh: number % u64::from(load.fresh_every.get()) == 0,
                deadline: due + load.limit,
            };
            async move { visit.get().await.map_err(|error| error.to_string()) }
        })
    }
}

impl Poll {
    /// Every 100 ms, each for 1 s.
    #[must_use]
    pub const fn new(server: SocketAddr, question: Question) -> Self {
        Self {
            server,
            question,
            interval: Duration::from_millis(100),
            limit: Duration::from_secs(1),
        }
    }

    /// Begins at once; times count from `epoch`.
    #[must_use]
    pub fn start(self, epoch: Instant) -> Run<DnsRecord> {
        let poll = Arc::new(self);
        let interval = poll.interval;
        run(epoch, interval, 64, move |number, _| {
            let poll = poll.clone();
            async move { poll.ask(number).await.map_err(|error| error.to_string()) }
        })
    }

    async fn ask(&self, number: u64) -> io::Result<DnsReply> {
        let question = self.question.clone().id(number as u16);
        let answer = question.ask(self.server, self.limit).await?;
        Ok(DnsReply {
            rcode: answer.rcode,
            addresses: answer.addresses(),
            ttl: answer.ttl(),
            scope: answer.scope(),
        })
    }
}

/// A record of one kind or the other.
pub trait Record {
    type Reply;
    fn new(due: Duration, end: Duration, outcome: Result<Self::Reply, String>) -> Self;
}

impl Record for GetRecord {
    type Reply = Reply;
    fn new(due: Duration, end: Duration, outcome: Result<Reply, String>) -> Self {
        Self { due, end, outcome }
    }
}

impl Record for DnsRecord {
    type Reply = DnsReply;
    fn new(due: Duration, end: Duration, outcome: Result<DnsReply, String>) -> Self {
        Self { due, end, outcome }
    }
}

/// Starts one `work` every `interval`, whatever became of the earlier ones.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the shell that sends by the clock"
)]
fn run<R, W>(
    epoch: Instant,
    interval: Duration,
    in_flight_max: usize,
    work: impl Fn(u64, Instant) -> W + Send + 'static,
) -> Run<R>
where
    R: Record + Send + 'static,
    W: Future<Output = Result<R::Reply, String>> + Send + 'static,
{
    let records = Arc::new(Mutex::new(Vec::new()));
    let (stop, mut stopped) = watch::channel(false);
    let mut task = JoinSet::new();
    let written = records.clone();
    let under_way = Arc::new(Mutex::new(BTreeSet::new()));
    let in_flight = under_way.clone();
    task.spawn(async move {
        let slots = Arc::new(Semaphore::new(in_flight_max));
        let mut working = JoinSet::new();
        let start = Instant::now();
        for number in 0_u64.. {
            let due = start + Duration::from_nanos(interval.as_nanos() as u64 * number);
            tokio::select! {
                // Also when the run was dropped.
                _ = stopped.changed() => break,
                () = sleep_until(due) => {}
            }
            while working.try_join_next().is_some() {}
            let since = move |at: Instant| at.saturating_duration_since(epoch);
            locked(&under_way).insert(since(due));
            let Ok(slot) = slots.clone().acquire_owned().await else {
                break;
            };
            if locked(&written).len() >= RECORDS_MAX {
                break;
            }
            let (work, written) = (work(number, due), written.clone());
            let under_way = under_way.clone();
            working.spawn(async move {
                let outcome = work.await;
                locked(&written).push(R::new(since(due), since(Instant::now()), outcome));
                locked(&under_way).remove(&since(due));
                drop(slot);
            });
        }
        while working.join_next().await.is_some() {}
    });
    Run {
        epoch,
        records,
        in_flight,
        stop,
        task,
    }
}

struct Visit {
    load: Arc<Load>,
    idle: Arc<Mutex<Vec<HttpClient>>>,
    fresh: bool,
    deadline: Instant,
}

impl Visit {
    async fn get(self) -> io::Result<Reply> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        timeout_at(self.deadline, self.on_some_connection())
            .await
            .map_err(late)?
    }

    /// On a kept connection if there is one. As every client does, asks once more on a new one
    /// when the kept one turns out to be closed before the answer began (RFC 9110 §9.2.2).
    async fn on_some_connection(&self) -> io::Result<Reply> {
        let kept = if self.fresh { None } else { self.kept() };
        let asked_again = kept.is_some();
        if let Some(client) = kept {
            match self.on(client).await {
                Err(error) if closed_early(&error) => {}
                outcome => return outcome,
            }
        }
        let mut reply = self
            .on(HttpClient::connect(self.load.target).await?)
            .await?;
        reply.asked_again = asked_again;
        Ok(reply)
    }

    fn kept(&self) -> Option<HttpClient> {
        let mut idle = locked(&self.idle);
        std::iter::from_fn(|| idle.pop()).find(HttpClient::is_idle)
    }

    async fn on(&self, client: HttpClient) -> io::Result<Reply> {
        let mut client = client.within(self.load.limit);
        let connection = if self.fresh { "close" } else { "keep-alive" };
        let request = Request::get(&self.load.path)
            .field("host", &self.load.host)
            .field("connection", connection);
        let answer = client.request(&request).await?;
        if !self.fresh && answer.keeps_alive() {
            locked(&self.idle).push(client);
        }
        Ok(reply(&answer))
    }
}

fn closed_early(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let closed = matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    );
    closed && !error.to_string().contains("within a body")
}

fn reply(answer: &Answer) -> Reply {
    let field = |name: String| answer.field(&name).map(str::to_owned);
    let named = |what| field(format!("x-{what}")).or_else(|| field(format!("x-sealane-{what}")));
    Reply {
        status: answer.status(),
        region: named("region"),
        endpoint: named("endpoint"),
        asked_again: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{Mode, ScriptedEndpoint};

    fn rate(rate: u32) -> NonZeroU32 {
        NonZeroU32::new(rate).unwrap()
    }

    /// However long that takes: a busy machine is no fault.
    async fn until_recorded(running: Run<GetRecord>, count: usize) -> Vec<GetRecord> {
        while running.so_far().len() < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        running.stop().await
    }

    #[tokio::test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a test of what sends by the clock"
    )]
    async fn requests_go_by_the_clock_though_answers_come_late() {
        let endpoint = ScriptedEndpoint::start_anywhere("eu-1", "eu")
            .await
            .unwrap();
        endpoint
            .set_mode(Mode::Slow(Duration::from_millis(200)))
            .await
            .unwrap();
        let load = Load::new(endpoint.address(), "api.example.test", rate(100));

        let records = until_recorded(load.start(Instant::now()), 40).await;

        let mut due: Vec<_> = records.iter().map(|record| record.due).collect();
        due.sort();
        let tenth = Duration::from_millis(10);
        assert!(
            due.windows(2).all(|two| two[1] - two[0] == tenth),
            "{due:?}"
        );
        assert!(records.iter().all(|record| record.region() == Some("eu")));
        assert!(
            records
                .iter()
                .all(|record| record.took() >= Duration::from_millis(200))
        );
        // Waiting for each answer would need one connection, and one more for every tenth request.
        assert!(endpoint.connections() >= 10, "{}", endpoint.connections());
        assert!(
            endpoint.connections() < endpoint.requests(),
            "none was kept"
        );
    }

    #[tokio::test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a test of what sends by the clock"
    )]
    async fn what_is_not_answered_in_time_is_recorded_as_failed() {
        let endpoint = ScriptedEndpoint::start_anywhere("eu-1", "eu")
            .await
            .unwrap();
        endpoint.set_mode(Mode::BlackHole).await.unwrap();
        let mut load = Load::new(endpoint.address(), "api.example.test", rate(100));
        load.limit = Duration::from_millis(50);
        load.in_flight_max = 2;

        let records = until_recorded(load.start(Instant::now()), 4).await;

        assert!(records.iter().all(GetRecord::failed));
    }
}
