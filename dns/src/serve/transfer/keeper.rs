//! The thread that keeps zones alike on several servers: asks primaries, tells secondaries, and has rules
//! compiled anew when a zone came, expired, or looks otherwise to those who have copies of it.
//!
//! Answers no question. Holds no lock that a thread which answers could wait for.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sealane_model::Snapshot;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use super::fetch::{Fetched, fetch, random_id};
use super::store;
use crate::config::{Config, Zone};
use crate::dnssec::timing::Moment;
use crate::metrics::{count_notice, count_transfer_in, show_zone};
use crate::name::Name;
use crate::rules::Rules;
use crate::serve::{Shared, Stop, clock};
use crate::transfer::book::{Held, Issued, Status};
use crate::transfer::desk::DeskZone;
use crate::transfer::incoming::told;
use crate::transfer::key::TsigKey;
use crate::transfer::message::{Ask, question};
use crate::transfer::notice::{Notice, Step};
use crate::transfer::refresh::{Due, Refresh};
use crate::transfer::rules::Secondary;
use crate::transfer::version::{Version, snapshot};

/// It looks at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Zones asked for at once; others wait for their turn.
const FETCHES_MAX: usize = 8;
/// Servers told at once.
const NOTICES_MAX: usize = 32;
/// An answer to what was told comes within this, or not at all.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// While the health map moves, copies of zones follow it no more often than this.
const SNAPSHOT_REST: Duration = Duration::from_secs(5);

/// Runs on the calling thread until asked to stop.
pub(crate) fn run(shared: &Arc<Shared>, stop: &Stop) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(Keeper::new(Arc::clone(shared)).run(stop)),
        Err(error) => error!(%error, "zones are not transferred"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a shell: timers of zones are stepped by it"
)]
fn steady() -> Instant {
    Instant::now()
}

/// A number in 0..1 that need not be hard to guess.
fn chance() -> f64 {
    f64::from(random_id()) / 65_536.0
}

struct Keeper {
    shared: Arc<Shared>,
    zones: HashMap<Name, Tended>,
    fetches: JoinSet<(Name, Result<Fetched, String>)>,
    fetch_turns: Arc<Semaphore>,
    notices: JoinSet<(Name, SocketAddr, u32, bool)>,
    notice_turns: Arc<Semaphore>,
    /// By which world snapshots of steered names were last looked at, and when.
    seen: Option<(Arc<Snapshot>, Instant)>,
}

/// What is known of one zone.
#[derive(Default)]
struct Tended {
    /// For a secondary zone.
    refresh: Option<Refresh>,
    /// By which the primaries are asked.
    from: Option<Arc<Secondary>>,
    error: Option<String>,
    notices: HashMap<SocketAddr, Notice>,
    /// Servers that have answered, by the serial that they were told.
    told: BTreeSet<SocketAddr>,
    /// As it was last kept on disk.
    kept: Option<Issued>,
}

impl Keeper {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            zones: HashMap::new(),
            fetches: JoinSet::new(),
            fetch_turns: Arc::new(Semaphore::new(FETCHES_MAX)),
            notices: JoinSet::new(),
            notice_turns: Arc::new(Semaphore::new(NOTICES_MAX)),
            seen: None,
        }
    }

    async fn run(mut self, stop: &Stop) {
        loop {
            let wait = self.look();
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                () = stop.asked() => return,
                () = tokio::time::sleep(wait) => {}
                () = shared.book.wake.notified() => {}
                Some(fetched) = self.fetches.join_next() => {
                    // An error would be a panic, which has been logged as one; the timer asks again.
                    if let Ok((apex, fetched)) = fetched {
                        self.fetched(&apex, fetched);
                    }
                }
                Some(told) = self.notices.join_next() => {
                    if let Ok((apex, server, serial, is_answered)) = told {
                        self.told(&apex, server, serial, is_answered);
                    }
                }
            }
        }
    }

    /// Does what is due. Returns how long there is nothing to do.
    fn look(&mut self) -> Duration {
        let rules = self.shared.rules.load_full();
        let Some(config) = rules.config.clone().filter(|_| rules.transfers.is_some()) else {
            self.zones.clear();
            return LOOK_EVERY;
        };
        let now = steady();
        self.follow(&config, now);
        for apex in self.shared.book.take_notified() {
            let tended = self.zones.get_mut(&apex);
            if let Some(refresh) = tended.and_then(|tended| tended.refresh.as_mut()) {
                debug!(zone = %apex, "a primary says that this zone changed");
                refresh.notified(now);
            }
        }
        for zone in &config.zones {
            self.ask(zone, now);
        }
        let rules = if self.is_stale(&rules, &config, now) {
            self.renew(rules, &config)
        } else {
            rules
        };
        for zone in &config.zones {
            self.tell(&rules, zone, now);
        }
        self.show(&rules, &config, now);
        let wakes = self
            .zones
            .values()
            .filter_map(|tended| tended.refresh.as_ref()?.wake());
        let next = wakes.min().map(|wake| wake.saturating_duration_since(now));
        next.unwrap_or(LOOK_EVERY)
            .clamp(Duration::from_millis(10), LOOK_EVERY)
    }

    /// Tends the zones of these rules, and no others.
    fn follow(&mut self, config: &Config, now: Instant) {
        let mut before = std::mem::take(&mut self.zones);
        for zone in &config.zones {
            let of_zone = &zone.transfers;
            if of_zone.outgoing.is_none() && of_zone.secondary.is_none() {
                continue;
            }
            let mut tended = before.remove(&zone.apex).unwrap_or_default();
            match (&of_zone.secondary, &tended.refresh) {
                (None, _) => tended.refresh = None,
                (Some(from), Some(_)) if tended.from.as_ref() == Some(from) => {}
                // Other primaries or another key: what failed may succeed now.
                (Some(_), _) => tended.refresh = Some(self.first_refresh(&zone.apex, now)),
            }
            tended.from.clone_from(&of_zone.secondary);
            self.zones.insert(zone.apex.clone(), tended);
        }
        self.shared.book.forget_but(config);
    }

    fn first_refresh(&self, apex: &Name, now: Instant) -> Refresh {
        match self.shared.book.held(apex).filter(|held| !held.is_expired) {
            Some(held) => {
                let age = clock::now().0.saturating_sub(held.heard_at().0);
                Refresh::kept(now, &held.soa, Duration::from_secs(age))
            }
            None => Refresh::new(now),
        }
    }

    /// Asks the zone's primaries if it is time, and ends a zone that they were not heard of for.
    fn ask(&mut self, zone: &Zone, now: Instant) {
        let Some(from) = zone.transfers.secondary.clone() else {
            return;
        };
        let apex = zone.apex.clone();
        let book = &self.shared.book;
        let Some(refresh) = self
            .zones
            .get_mut(&apex)
            .and_then(|tended| tended.refresh.as_mut())
        else {
            return;
        };
        let mut due = refresh.step(now);
        if due == Due::Expire {
            if let Some(held) = book.held(&apex).filter(|held| !held.is_expired) {
                error!(zone = %apex, serial = held.soa.serial, "the zone expired: no primary was heard of for too long; it is answered SERVFAIL");
                book.hold(&apex, held.expired(true));
            }
            due = refresh.step(now);
        }
        if due != Due::Ask {
            return;
        }
        let held = book.held(&apex);
        let (zone, turns) = (zone.clone(), Arc::clone(&self.fetch_turns));
        self.fetches.spawn(async move {
            // An error would mean that the semaphore was closed, which nobody does.
            let _turn = turns.acquire().await;
            let fetched = fetch(&zone, &from, held.as_deref()).await;
            (apex, fetched)
        });
    }

    fn fetched(&mut self, apex: &Name, fetched: Result<Fetched, String>) {
        let (now, dir) = (steady(), self.dir());
        let book = Arc::clone(&self.shared.book);
        let Some(tended) = self.zones.get_mut(apex) else {
            return;
        };
        let Some(refresh) = &mut tended.refresh else {
            return;
        };
        let kind = match fetched {
            Ok(Fetched::Same) => {
                let Some(held) = book.held(apex) else {
                    return refresh.failed(now, None, chance());
                };
                let heard_at = clock::now();
                held.heard_at.store(heard_at.0, Ordering::Relaxed);
                if held.is_expired {
                    info!(zone = %apex, serial = held.soa.serial, "a primary is heard of again: the zone is answered");
                    book.hold(apex, held.expired(false));
                }
                refresh.succeeded(now, &held.soa, chance());
                note(apex, dir.map(|dir| store::touch_zone(&dir, apex, heard_at)));
                "soa"
            }
            Ok(Fetched::Newer(held, kind)) => {
                let (serial, records, from) = (held.soa.serial, held.records.len(), held.from);
                info!(zone = %apex, serial, records, %from, kind, "zone transferred from its primary");
                let held = book.hold(apex, held);
                refresh.succeeded(now, &held.soa, chance());
                note(apex, dir.map(|dir| store::keep_zone(&dir, apex, &held)));
                kind
            }
            Err(error) => {
                let held = book.held(apex);
                refresh.failed(now, held.as_ref().map(|held| &held.soa), chance());
                // The same again and again need not be read again and again.
                if tended.error.as_ref() != Some(&error) {
                    warn!(zone = %apex, %error, "no primary gives this zone");
                }
                tended.error = Some(error);
                count_transfer_in(apex, "none", false);
                return;
            }
        };
        tended.error = None;
        count_transfer_in(apex, kind, true);
    }

    fn dir(&self) -> Option<Arc<Path>> {
        let rules = self.shared.rules.load();
        rules.config.as_ref()?.transfer_dir.clone()
    }

    /// Do rules lack what came, or what steered names are by now for others?
    fn is_stale(&mut self, rules: &Rules, config: &Config, now: Instant) -> bool {
        let Some(desk) = rules.transfers.as_deref() else {
            return false;
        };
        let book = &self.shared.book;
        let lacks = |(apex, zone): (&Name, &DeskZone)| {
            let has_other = |held: Option<Arc<Held>>| match (&held, &zone.held) {
                (Some(one), Some(other)) => !Arc::ptr_eq(one, other),
                (None, None) => false,
                _ => true,
            };
            let is_behind = |last: Option<Arc<Version>>| match (&last, &zone.version) {
                (Some(one), Some(other)) => !Arc::ptr_eq(one, other),
                _ => false,
            };
            (zone.rules.secondary.is_some() && has_other(book.held(apex)))
                || is_behind(book.last(apex))
        };
        if desk.zones().any(lacks) {
            return true;
        }
        let world = self.shared.world.load_full();
        let is_seen = self.seen.as_ref().is_some_and(|(seen, at)| {
            Arc::ptr_eq(seen, &world) || now.saturating_duration_since(*at) < SNAPSHOT_REST
        });
        if is_seen {
            return false;
        }
        let steered = config.zones.iter().filter(|zone| !zone.steered.is_empty());
        let moved = steered.into_iter().any(|zone| {
            let of_desk = desk.zone(&zone.apex);
            let of_desk = of_desk.filter(|of_desk| of_desk.version.is_some());
            let outgoing = of_desk.and_then(|of_desk| of_desk.rules.outgoing.as_ref());
            match (of_desk, outgoing) {
                (Some(of_desk), Some(outgoing)) => {
                    snapshot(zone, outgoing.steered, &world) != of_desk.snapshot
                }
                _ => false,
            }
        });
        self.seen = Some((world, now));
        moved
    }

    /// Puts rules in place that are compiled anew, unless others came meanwhile: then it looks again.
    fn renew(&self, rules: Arc<Rules>, config: &Config) -> Arc<Rules> {
        let renewed = Arc::new(self.shared.compile(config, clock::now(), Some(&rules)));
        let before = self
            .shared
            .rules
            .compare_and_swap(&rules, Arc::clone(&renewed));
        if Arc::ptr_eq(&before, &rules) {
            renewed
        } else {
            rules
        }
    }

    /// Tells servers of a zone that changed, and keeps its serial.
    fn tell(&mut self, rules: &Rules, zone: &Zone, now: Instant) {
        let apex = &zone.apex;
        let desk = rules.transfers.as_deref();
        let Some(version) = desk.and_then(|desk| desk.zone(apex)?.version.clone()) else {
            return;
        };
        let (Some(outgoing), Some(tended)) = (&zone.transfers.outgoing, self.zones.get_mut(apex))
        else {
            return;
        };
        let issued = self.shared.book.issued(apex);
        if let (Some(dir), Some(issued)) = (
            rules
                .config
                .as_ref()
                .and_then(|c| c.transfer_dir.as_deref()),
            issued,
        ) && tended.kept != Some(issued)
        {
            note(apex, Some(store::keep_serial(dir, apex, issued)));
            tended.kept = Some(issued);
        }
        tended
            .notices
            .retain(|server, _| outgoing.notify.contains(server));
        for server in &outgoing.notify {
            let notice = tended.notices.entry(*server).or_default();
            if notice.serial() != Some(version.serial) {
                tended.told.remove(server);
            }
            notice.changed(now, version.serial);
            match notice.step(now) {
                Step::Nothing => {}
                Step::GiveUp => {
                    warn!(zone = %apex, %server, serial = version.serial, "a server does not answer that the zone changed; it will find out by itself");
                    count_notice(apex, "given_up");
                }
                Step::Tell => {
                    let (apex, server, version) = (apex.clone(), *server, Arc::clone(&version));
                    let key = outgoing.key().cloned();
                    let turns = Arc::clone(&self.notice_turns);
                    self.notices.spawn(async move {
                        let _turn = turns.acquire().await;
                        let told = notify(&apex, server, &version, key.as_ref()).await;
                        if let Err(error) = &told {
                            debug!(zone = %apex, %server, %error, "a server was not told");
                        }
                        (apex, server, version.serial, told.is_ok())
                    });
                }
            }
        }
    }

    fn told(&mut self, apex: &Name, server: SocketAddr, serial: u32, is_answered: bool) {
        let Some(tended) = self.zones.get_mut(apex).filter(|_| is_answered) else {
            return;
        };
        if let Some(notice) = tended.notices.get_mut(&server) {
            notice.answered(serial);
            if notice.serial() == Some(serial) {
                tended.told.insert(server);
            }
        }
        debug!(zone = %apex, %server, serial, "a server knows that the zone changed");
        count_notice(apex, "answered");
    }

    /// For people and for metrics.
    fn show(&self, rules: &Rules, config: &Config, now: Instant) {
        let Some(desk) = rules.transfers.as_deref() else {
            return;
        };
        let wall = clock::now();
        let mut statuses = Vec::new();
        for zone in &config.zones {
            let (Some(tended), Some(of_desk)) = (self.zones.get(&zone.apex), desk.zone(&zone.apex))
            else {
                continue;
            };
            let status = status(zone, tended, of_desk, now, wall);
            show_zone(&status);
            statuses.push(status);
        }
        self.shared.book.set_statuses(statuses);
    }
}

fn status(zone: &Zone, tended: &Tended, of_desk: &DeskZone, now: Instant, wall: Moment) -> Status {
    let held = of_desk.held.as_ref();
    let alive = held.filter(|held| !held.is_expired);
    let refresh = tended.refresh.as_ref();
    let expires = refresh.and_then(Refresh::expires);
    let version = of_desk.version.as_ref();
    Status {
        zone: zone.apex.to_string(),
        serial: version
            .map(|version| version.serial)
            .or_else(|| alive.map(|held| held.soa.serial)),
        is_secondary: refresh.is_some(),
        from: held.map(|held| held.from),
        heard_at: held.map(|held| held.heard_at().0),
        expires_at: expires.map(|at| wall.plus(at.saturating_duration_since(now)).0),
        failures: refresh.map_or(0, Refresh::failures),
        error: tended.error.clone(),
        told: (tended.told.len(), tended.notices.len()),
    }
}

/// What could not be kept is no reason not to serve.
fn note(apex: &Name, kept: Option<io::Result<()>>) {
    if let Some(Err(error)) = kept {
        warn!(zone = %apex, %error, "could not keep a zone's state on disk");
    }
}

/// Tells one server once, and waits for its answer.
async fn notify(
    apex: &Name,
    server: SocketAddr,
    version: &Version,
    key: Option<&TsigKey>,
) -> io::Result<()> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let id = random_id();
    let asked = question(id, apex, Ask::Notify(&version.soa), key, clock::now());
    let (message, judge) = asked.map_err(|_| io::ErrorKind::InvalidInput)?;
    socket.send(&message).await?;
    let mut answer = vec![0; 1_232];
    let answered = async {
        loop {
            let length = socket.recv(&mut answer).await?;
            let octets = answer.get(..length).unwrap_or_default();
            match told(octets, id, judge.clone(), clock::now()) {
                Some(Ok(())) => return Ok(()),
                Some(Err(flaw)) => return Err(io::Error::other(flaw)),
                // Somebody else's, or a forged one.
                None => {}
            }
        }
    };
    let answered = tokio::time::timeout(ANSWER_MAX, answered).await;
    answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
