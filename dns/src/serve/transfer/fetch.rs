//! Asks primaries for a zone: for its SOA, then for what changed, else for the whole (RFC 1995 §4).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use crate::config::Zone;
use crate::serve::clock;
use crate::transfer::book::Held;
use crate::transfer::incoming::{Base, Bounds, Flaw, Given, Incoming, Progress, soa_answer};
use crate::transfer::judge::judge;
use crate::transfer::message::{Ask, question};
use crate::transfer::rules::Secondary;
use crate::transfer::serial::is_newer;

/// A primary has so long to take a connection …
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// … to send each message …
const MESSAGE_MAX: Duration = Duration::from_secs(30);
/// … and to send the whole zone.
const FETCH_MAX: Duration = Duration::from_secs(900);

/// What primaries said.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// Nothing newer.
    Same,
    Newer(Held, &'static str),
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it took too long")]
    Slow,
    #[error("{0}")]
    Flaw(#[from] Flaw),
    #[error("the question could not be written")]
    Question,
    #[error("the zone is not served: {0}")]
    Judged(String),
}

/// Asks one primary after the other until one has something newer.
///
/// # Errors
/// What was wrong with each, when none gave an answer.
pub(crate) async fn fetch(
    zone: &Zone,
    from: &Secondary,
    held: Option<&Held>,
) -> Result<Fetched, String> {
    let mut errors = Vec::new();
    let mut is_same = false;
    for primary in &from.primaries {
        let asked = timeout(FETCH_MAX, ask(zone, from, *primary, held)).await;
        match asked.unwrap_or(Err(FetchError::Slow)) {
            Ok(Fetched::Same) => is_same = true,
            Ok(newer) => return Ok(newer),
            Err(error) => errors.push(format!("{primary}: {error}")),
        }
    }
    match is_same {
        true => Ok(Fetched::Same),
        false => Err(errors.join("; ")),
    }
}

async fn ask(
    zone: &Zone,
    from: &Secondary,
    primary: SocketAddr,
    held: Option<&Held>,
) -> Result<Fetched, FetchError> {
    let mut asking = Asking {
        zone,
        from,
        stream: connect(primary).await?,
    };
    if let Some(held) = held {
        let soa = asking.soa().await?;
        if !is_newer(soa, held.soa.serial) {
            return Ok(Fetched::Same);
        }
        match asking.transfer(Some(held)).await {
            Ok(Given::Nothing) => return Ok(Fetched::Same),
            Ok(Given::Zone(given)) => {
                let kind = if given.is_incremental { "ixfr" } else { "axfr" };
                return judged(
                    zone,
                    Held::new(given, primary, clock::now().0),
                    Some(held),
                    kind,
                );
            }
            // Differences are a convenience: what is wrong with them, or that there are none, leads to the whole.
            Err(FetchError::Flaw(flaw)) => {
                debug!(zone = %zone.apex, %primary, %flaw, "no differences; the whole zone is asked for");
            }
            Err(error) => return Err(error),
        }
        asking.stream = connect(primary).await?;
    }
    match asking.transfer(None).await? {
        Given::Zone(given) => judged(
            zone,
            Held::new(given, primary, clock::now().0),
            held,
            "axfr",
        ),
        Given::Nothing => Err(Flaw::NoSoa.into()),
    }
}

fn judged(
    zone: &Zone,
    given: Held,
    held: Option<&Held>,
    kind: &'static str,
) -> Result<Fetched, FetchError> {
    judge(zone, &given, held).map_err(FetchError::Judged)?;
    Ok(Fetched::Newer(given, kind))
}

async fn connect(primary: SocketAddr) -> Result<TcpStream, FetchError> {
    let stream = timeout(CONNECT_MAX, TcpStream::connect(primary)).await;
    Ok(stream.map_err(|_| FetchError::Slow)??)
}

/// One connection to a primary.
struct Asking<'a> {
    zone: &'a Zone,
    from: &'a Secondary,
    stream: TcpStream,
}

impl Asking<'_> {
    /// The primary's serial.
    async fn soa(&mut self) -> Result<u32, FetchError> {
        let (id, now) = (random_id(), clock::now());
        let key = self.from.key.as_ref();
        let asked = question(id, &self.zone.apex, Ask::Soa, key, now);
        let (message, judge) = asked.map_err(|_| FetchError::Question)?;
        self.send(&message).await?;
        let answer = self.receive().await?;
        let soa = soa_answer(answer, id, judge, &self.zone.apex, clock::now())?;
        Ok(soa.serial)
    }

    /// What changed since `held`, or the whole.
    async fn transfer(&mut self, held: Option<&Held>) -> Result<Given, FetchError> {
        let (id, now) = (random_id(), clock::now());
        let ask = held.map_or(Ask::Axfr, |held| Ask::Ixfr(&held.soa_record));
        let key = self.from.key.as_ref();
        let asked = question(id, &self.zone.apex, ask, key, now);
        let (message, judge) = asked.map_err(|_| FetchError::Question)?;
        self.send(&message).await?;
        let base = held.map(|held| Base {
            soa: &held.soa_record,
            records: &held.records,
        });
        let mut incoming = Incoming::new(&self.zone.apex, id, judge, base, Bounds::default());
        loop {
            let message = self.receive().await?;
            if incoming.take(message, clock::now())? == Progress::Done {
                return Ok(incoming.finish()?);
            }
        }
    }

    async fn send(&mut self, message: &[u8]) -> Result<(), FetchError> {
        let length = u16::try_from(message.len()).map_err(|_| FetchError::Question)?;
        let whole = [&length.to_be_bytes(), message].concat();
        let sent = timeout(MESSAGE_MAX, self.stream.write_all(&whole)).await;
        Ok(sent.map_err(|_| FetchError::Slow)??)
    }

    async fn receive(&mut self) -> Result<Vec<u8>, FetchError> {
        let stream = &mut self.stream;
        let message = async {
            let length = stream.read_u16().await?;
            let mut message = vec![0; length.into()];
            stream.read_exact(&mut message).await?;
            Ok::<_, io::Error>(message)
        };
        let message = timeout(MESSAGE_MAX, message).await;
        Ok(message.map_err(|_| FetchError::Slow)??)
    }
}

/// Nobody off the path can guess it.
pub(crate) fn random_id() -> u16 {
    let mut octets = [0; 2];
    // Without random numbers there is still the connection, or the key, to go by.
    let _ = aws_lc_rs::rand::fill(&mut octets);
    u16::from_be_bytes(octets)
}
