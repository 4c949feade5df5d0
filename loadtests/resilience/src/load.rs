//! Requests at a fixed rate, whatever becomes of the earlier ones; each time counts from when the
//! request was due.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealane_testkit::HttpClient;
use sealane_testkit::http_client::Request;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Requests on the way at once. One more has failed at once.
const IN_FLIGHT_MAX: usize = 8_000;

/// What to ask for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) path: &'static str,
    pub(crate) fields: Vec<(&'static str, String)>,
    /// How the records of such requests are told from others.
    pub(crate) class: usize,
}

impl Ask {
    pub(crate) const fn path(path: &'static str) -> Self {
        Self {
            path,
            fields: Vec::new(),
            class: 0,
        }
    }

    pub(crate) const fn class(mut self, class: usize) -> Self {
        self.class = class;
        self
    }

    pub(crate) fn field(mut self, name: &'static str, value: String) -> Self {
        self.fields.push((name, value));
        self
    }
}

/// What became of one request. Times count from the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) class: usize,
    pub(crate) due: Duration,
    pub(crate) end: Duration,
    /// 0: no whole answer.
    pub(crate) status: u16,
    /// The endpoint that answered, empty where it was Sealane.
    pub(crate) by: String,
    pub(crate) body: String,
}

impl Record {
    pub(crate) const fn took(&self) -> Duration {
        self.end.saturating_sub(self.due)
    }

    pub(crate) const fn is_good(&self) -> bool {
        self.status == 200
    }
}

pub(crate) struct Load<A> {
    pub(crate) target: SocketAddr,
    /// Requests in a second, and for how many seconds; one after the other.
    pub(crate) phases: Vec<(u32, u32)>,
    /// For each, from when it was due.
    pub(crate) patience: Duration,
    pub(crate) epoch: Instant,
    /// The n-th request.
    pub(crate) ask: A,
}

impl<A: Fn(u64) -> Ask> Load<A> {
    /// Until all have ended.
    pub(crate) async fn run(self) -> Vec<Record> {
        let client = Arc::new(Client::new(self.target, self.epoch));
        let start = self.epoch + self.epoch.elapsed();
        let mut under_way = JoinSet::new();
        let mut records = Vec::new();
        for (number, due) in (0..).zip(dues(&self.phases)) {
            let due = start + due;
            sleep_until(due).await;
            while let Some(ended) = under_way.try_join_next() {
                records.extend(ended.ok());
            }
            let ask = (self.ask)(number);
            if under_way.len() >= IN_FLIGHT_MAX {
                records.push(client.failed(&ask, due));
                continue;
            }
            let (client, until) = (Arc::clone(&client), due + self.patience);
            under_way.spawn(async move { client.ask(&ask, due, until).await });
        }
        records.extend(under_way.join_all().await);
        records
    }
}

/// When requests are due, after the beginning.
fn dues(phases: &[(u32, u32)]) -> impl Iterator<Item = Duration> {
    let mut begin = 0;
    phases.iter().flat_map(move |&(rate, seconds)| {
        let begins = Duration::from_secs(begin);
        begin += u64::from(seconds);
        let at = move |number| Duration::from_secs(1).mul_f64(f64::from(number) / f64::from(rate));
        (0..rate * seconds).map(move |number| begins + at(number))
    })
}

/// All of them at once, each on a connection of its own that stands already.
pub(crate) async fn at_once(
    target: SocketAddr,
    epoch: Instant,
    asks: Vec<Ask>,
    patience: Duration,
) -> anyhow::Result<Vec<Record>> {
    let mut clients = Vec::new();
    for _ in &asks {
        let client = Client::new(target, epoch);
        client.keep(HttpClient::connect(target).await?);
        clients.push(client);
    }
    let due = epoch + epoch.elapsed();
    let mut under_way = JoinSet::new();
    for (ask, client) in asks.into_iter().zip(clients) {
        under_way.spawn(async move { client.ask(&ask, due, due + patience).await });
    }
    Ok(under_way.join_all().await)
}

/// `many` requests, as fast as `width` connections get their answers.
pub(crate) async fn as_fast_as_it_goes(
    target: SocketAddr,
    epoch: Instant,
    (many, width): (u64, u64),
    ask: fn(u64) -> Ask,
) -> Vec<Record> {
    let mut lanes = JoinSet::new();
    for lane in 0..width {
        lanes.spawn(async move {
            let client = Client::new(target, epoch);
            let mut records = Vec::new();
            for number in (lane..many).step_by(width as usize) {
                let due = epoch + epoch.elapsed();
                let until = due + Duration::from_secs(5);
                records.push(client.ask(&ask(number), due, until).await);
            }
            records
        });
    }
    lanes.join_all().await.concat()
}

/// Keeps connections, the last used first.
#[derive(Debug)]
struct Client {
    target: SocketAddr,
    epoch: Instant,
    idle: Mutex<Vec<HttpClient>>,
}

impl Client {
    const fn new(target: SocketAddr, epoch: Instant) -> Self {
        Self {
            target,
            epoch,
            idle: Mutex::new(Vec::new()),
        }
    }

    fn failed(&self, ask: &Ask, due: Instant) -> Record {
        Record {
            class: ask.class,
            due: due.saturating_duration_since(self.epoch),
            end: self.epoch.elapsed(),
            ..Record::default()
        }
    }

    async fn ask(&self, ask: &Ask, due: Instant, until: Instant) -> Record {
        let fields = ask.fields.iter();
        let request = fields.fold(Request::get(ask.path), |request, (name, value)| {
            request.field(name, value)
        });
        let answer = timeout_at(until, self.answer(&request)).await;
        let mut record = self.failed(ask, due);
        if let Ok(Ok(answer)) = answer {
            record.status = answer.status();
            record.by = answer.field("x-endpoint").unwrap_or_default().to_owned();
            record.body = answer.text();
        }
        record
    }

    async fn answer(
        &self,
        request: &Request,
    ) -> std::io::Result<sealane_testkit::http_client::Answer> {
        let mut client = match self.kept() {
            Some(client) => client,
            None => HttpClient::connect(self.target).await?,
        };
        let answer = client.request(request).await?;
        if answer.keeps_alive() {
            self.keep(client);
        }
        Ok(answer)
    }

    fn kept(&self) -> Option<HttpClient> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(HttpClient::is_idle)
    }

    fn keep(&self, client: HttpClient) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(client.within(Duration::from_secs(60)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other_without_a_gap() {
        let dues: Vec<_> = dues(&[(2, 1), (4, 1)]).map(|due| due.as_millis()).collect();

        assert_eq!(dues, [0, 500, 1_000, 1_250, 1_500, 1_750]);
    }
}
