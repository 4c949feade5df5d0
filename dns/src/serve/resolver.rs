//! BORDER. The thread that looks up what aliases lead to, by hickory's resolver, again whenever a TTL ends.
//!
//! Answers no question: it fills [`Source`]s, which answers read. What it does not find it does not take away;
//! how long that goes on is for [`crate::alias`] to say.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name as HickoryName, RData, RecordType};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::clock::{calendar_seconds, steady_micros};
use crate::alias::{Found, Source};
use crate::metrics::{Aliases as Metrics, count_alias_lookup};
use crate::name::Name;
use crate::rules::Rules;

/// Targets looked up at once; others wait their turn.
const AT_ONCE: usize = 16;
/// How long one look-up may take, tries at several servers included.
const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// How long a server has for an answer before the next one is asked.
const SERVER_WAIT: Duration = Duration::from_millis(1_500);
/// How often it looks what is due; TTLs are by the second.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The system's resolvers are read anew after this: networks come and go.
const SYSTEM_READ_EVERY: Duration = Duration::from_secs(60);
/// For how long a target without data is taken to have none, where its zone does not say.
const NONE_TTL: u32 = 60;

/// What is to be kept known. Dropped, the thread ends.
#[derive(Debug)]
pub(crate) struct Lookups {
    wanted: Arc<Wanted>,
    /// Whether there is a thread.
    running: Mutex<bool>,
}

#[derive(Debug, Default)]
struct Wanted {
    /// Held for moments, by those who run the program and by the one thread that looks up.
    asked: Mutex<Asked>,
    changed: Notify,
}

#[derive(Clone, Debug, Default)]
struct Asked {
    /// By name, each once.
    sources: Vec<Arc<Source>>,
    servers: Vec<SocketAddr>,
    stopped: bool,
}

impl Wanted {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        // Nothing between taking and giving back can panic and leave it half done.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lookups {
    pub(crate) fn new() -> Self {
        Self {
            wanted: Arc::default(),
            running: Mutex::new(false),
        }
    }

    /// Keeps these known from now on, and no others.
    pub(crate) fn follow(&self, sources: Vec<Arc<Source>>, servers: &[SocketAddr]) {
        {
            let mut asked = self.wanted.asked();
            asked.sources = each_once(sources);
            servers.clone_into(&mut asked.servers);
        }
        self.wanted.changed.notify_one();
    }

    /// These, too, until [`Lookups::follow`] says otherwise.
    pub(crate) fn add(&self, sources: Vec<Arc<Source>>, servers: &[SocketAddr]) {
        let before = self.wanted.asked().sources.clone();
        self.follow(before.into_iter().chain(sources).collect(), servers);
    }

    /// Begins to look up, where there is something to look up and no thread yet.
    pub(crate) fn start(&self, rules: &Arc<ArcSwap<Rules>>) -> io::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if *running || self.wanted.asked().sources.is_empty() {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (wanted, rules) = (Arc::clone(&self.wanted), Arc::clone(rules));
        let run = move || runtime.block_on(Resolving::new(wanted, rules).run());
        std::thread::Builder::new()
            .name("dns-aliases".to_owned())
            .spawn(run)?;
        *running = true;
        Ok(())
    }

    /// Returns once each of these was looked up, or after a while.
    pub(crate) fn wait_for(&self, sources: &[Arc<Source>], at_most: Duration) {
        let until = steady_micros().saturating_add(at_most.as_micros() as u64);
        let untried = |source: &Arc<Source>| source.known().tried == 0;
        while sources.iter().any(untried) && steady_micros() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Lookups {
    fn drop(&mut self) {
        self.wanted.asked().stopped = true;
        self.wanted.changed.notify_one();
    }
}

fn each_once(sources: Vec<Arc<Source>>) -> Vec<Arc<Source>> {
    let mut seen = HashSet::new();
    let mut sources = sources;
    sources.retain(|source| seen.insert(source.target.clone()));
    sources
}

/// The state of the thread.
struct Resolving {
    wanted: Arc<Wanted>,
    rules: Arc<ArcSwap<Rules>>,
    resolver: Option<Built>,
    flying: JoinSet<Looked>,
    in_flight: HashSet<Name>,
    metrics: Metrics,
}

struct Built {
    resolver: TokioResolver,
    servers: Vec<SocketAddr>,
    /// By [`steady_micros`].
    at: u64,
}

/// One look-up, ended.
struct Looked {
    source: Arc<Source>,
    v4: Result<Found, String>,
    v6: Result<Found, String>,
}

impl Resolving {
    fn new(wanted: Arc<Wanted>, rules: Arc<ArcSwap<Rules>>) -> Self {
        Self {
            wanted,
            rules,
            resolver: None,
            flying: JoinSet::new(),
            in_flight: HashSet::new(),
            metrics: Metrics::default(),
        }
    }

    async fn run(mut self) {
        loop {
            let asked = self.wanted.asked().clone();
            if asked.stopped {
                return;
            }
            self.begin(&asked);
            self.metrics.show(&asked.sources, calendar_seconds());
            tokio::select! {
                () = self.wanted.changed.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                Some(ended) = self.flying.join_next() => match ended {
                    Ok(looked) => self.end(looked),
                    // A fault of the resolver's own; which target it was is not told.
                    Err(error) => {
                        error!(%error, "a look-up of an alias failed");
                        self.in_flight.clear();
                    }
                },
            }
        }
    }

    /// Looks up what is due.
    fn begin(&mut self, asked: &Asked) {
        let now = calendar_seconds();
        for source in &asked.sources {
            let is_due = source.known().due() <= now && !self.in_flight.contains(&source.target);
            if !is_due || self.flying.len() >= AT_ONCE {
                continue;
            }
            let source = Arc::clone(source);
            self.in_flight.insert(source.target.clone());
            let resolver = self.resolver(&asked.servers);
            self.flying.spawn(look_up(resolver, source));
        }
    }

    fn end(&mut self, looked: Looked) {
        let Looked { source, v4, v6 } = looked;
        self.in_flight.remove(&source.target);
        let failures = source.known().failures;
        let changed = source.learn(calendar_seconds(), v4, v6);
        let known = source.known();
        count_alias_lookup(known.failure.is_none());
        let target = &source.target;
        if changed {
            let addresses = known.addresses();
            info!(%target, ?addresses, "an alias's target has other addresses");
            // Before anyone asks.
            self.rules.load().sign_aliases_ahead();
        }
        match &known.failure {
            Some(error) if failures == 0 => {
                warn!(%target, %error, "an alias's target is not found; its last addresses stay");
            }
            None if failures > 0 => info!(%target, "an alias's target is found again"),
            _ => {}
        }
    }

    /// What asks these servers.
    fn resolver(&mut self, servers: &[SocketAddr]) -> Result<TokioResolver, String> {
        let now = steady_micros();
        let fits = |built: &Built| {
            let is_fresh = now < built.at + SYSTEM_READ_EVERY.as_micros() as u64;
            built.servers == servers && (is_fresh || !servers.is_empty())
        };
        if let Some(built) = self.resolver.as_ref().filter(|built| fits(built)) {
            return Ok(built.resolver.clone());
        }
        let resolver = build(servers).map_err(|error| error.to_string())?;
        self.resolver = Some(Built {
            resolver: resolver.clone(),
            servers: servers.to_vec(),
            at: now,
        });
        Ok(resolver)
    }
}

fn build(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let config = if servers.is_empty() {
        hickory_resolver::system_conf::read_system_conf()?.0
    } else {
        ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect())
    };
    let mut options = ResolverOpts::default();
    // TTLs count from the resolver's answer: nothing is to be kept in between.
    options.cache_size = 0;
    options.timeout = SERVER_WAIT;
    options.attempts = 2;
    options.edns0 = true;
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
    options.try_tcp_on_error = true;
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.with_options(options).build()
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let connections = connections.map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

async fn look_up(resolver: Result<TokioResolver, String>, source: Arc<Source>) -> Looked {
    let (v4, v6) = match (resolver, hickory_name(&source.target)) {
        (Ok(resolver), Some(name)) => tokio::join!(
            of_family(&resolver, name.clone(), RecordType::A),
            of_family(&resolver, name, RecordType::AAAA)
        ),
        (Err(error), _) => (Err(error.clone()), Err(error)),
        (_, None) => (Err("no name".to_owned()), Err("no name".to_owned())),
    };
    Looked { source, v4, v6 }
}

async fn of_family(
    resolver: &TokioResolver,
    name: HickoryName,
    kind: RecordType,
) -> Result<Found, String> {
    let looked = timeout(LOOKUP_MAX, resolver.lookup(name, kind)).await;
    let now = calendar_seconds();
    match looked {
        Ok(Ok(lookup)) => {
            let records = lookup.answers();
            let addresses = records.iter().filter_map(|record| match &record.data {
                RData::A(v4) => Some(IpAddr::V4(v4.0)),
                RData::AAAA(v6) => Some(IpAddr::V6(v6.0)),
                _ => None,
            });
            // The CNAMEs on the way count as well.
            let ttl = records.iter().map(|record| record.ttl).min();
            Ok(Found::new(addresses, now, ttl.unwrap_or(NONE_TTL)))
        }
        Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none))))
            if none.response_code == ResponseCode::NoError =>
        {
            Ok(Found::new([], now, none.negative_ttl.unwrap_or(NONE_TTL)))
        }
        Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => {
            Err(format!("the resolver says {}", none.response_code))
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

fn hickory_name(name: &Name) -> Option<HickoryName> {
    let mut labels: Vec<&[u8]> = Vec::new();
    let mut rest = name.wire();
    while let Some((length, after)) = rest.split_first() {
        if *length == 0 {
            break;
        }
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        labels.push(label);
        rest = after;
    }
    HickoryName::from_labels(labels).ok()
}
