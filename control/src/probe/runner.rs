//! Runs probes and look-ups: a bounded number at a time, each with its own limit.
//!
//! Owns every task that it starts; dropping it ends them. Judges nothing: it reports.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sealane_model::{Endpoint, EndpointId, Failure, Outcome, PoolId, Target};
use sealane_tls::Connectors;
use tokio::task::{self, JoinSet};

use super::http::{self, HttpProbe, HttpTls};
use super::schedule::{Started, Ticket};
use super::{resolve, tcp};
use crate::config::{Probe, ProbeKind};
use crate::core::Work;
use crate::metrics;

/// Probes in flight at once. One more waits its turn, its time-out not yet running, and is
/// counted in `control_probes_delayed_total`.
pub(crate) const PROBES_IN_FLIGHT_MAX: usize = 512;
/// Look-ups in flight at once, likewise. Fewer: each takes a thread of the system's resolver.
pub(crate) const LOOKUPS_IN_FLIGHT_MAX: usize = 16;

/// Work that ended.
#[derive(Debug)]
pub(crate) enum Report {
    Probed {
        endpoint: EndpointId,
        ticket: Ticket,
        outcome: Outcome,
        pool: PoolId,
        took: Duration,
    },
    Resolved {
        endpoint: EndpointId,
        ticket: Ticket,
        found: Result<Vec<SocketAddr>, String>,
    },
    /// It panicked.
    Lost {
        endpoint: EndpointId,
        ticket: Ticket,
        work: Work,
    },
}

#[derive(Debug, Default)]
pub(crate) struct Runner {
    tasks: JoinSet<Report>,
    owners: HashMap<task::Id, (Started, Work)>,
    probes: Lane,
    lookups: Lane,
    /// Kept until the configuration changes.
    tls: Connectors,
}

/// One kind of work. What waits is bounded by the number of endpoints: each has one at most.
#[derive(Debug, Default)]
struct Lane {
    in_flight: usize,
    waiting: VecDeque<Job>,
}

#[derive(Debug)]
enum Job {
    Probe {
        started: Started,
        pool: PoolId,
        limit: Duration,
        addresses: Arc<[SocketAddr]>,
        what: What,
    },
    LookUp {
        started: Started,
        host: Arc<str>,
        port: u16,
    },
}

#[derive(Debug)]
enum What {
    Http(Box<HttpProbe>),
    /// With what the endpoint wants to be told first.
    Tcp(&'static [u8], Option<HttpTls>),
    /// It cannot even be tried.
    Hopeless(Failure),
}

impl Runner {
    pub(crate) fn probe(
        &mut self,
        started: Started,
        endpoint: &Endpoint,
        probe: &Probe,
        addresses: &Arc<[SocketAddr]>,
    ) {
        let what = self.prepare(endpoint, probe);
        let addresses = match probe.port {
            Some(port) => addresses
                .iter()
                .map(|at| SocketAddr::new(at.ip(), port))
                .collect(),
            None => addresses.clone(),
        };
        let (pool, limit) = (endpoint.pool, probe.timeout);
        self.probes.waiting.push_back(Job::Probe {
            started,
            pool,
            limit,
            addresses,
            what,
        });
        self.begin_probes();
        if !self.probes.waiting.is_empty() {
            metrics::delayed();
        }
    }

    pub(crate) fn look_up(&mut self, started: Started, host: Arc<str>, port: u16) {
        self.lookups.waiting.push_back(Job::LookUp {
            started,
            host,
            port,
        });
        self.begin_lookups();
        if !self.lookups.waiting.is_empty() {
            metrics::delayed();
        }
    }

    /// Certificates may have changed with the configuration.
    pub(crate) fn forget_certificates(&mut self) {
        self.tls.clear();
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The next result. `None` when nothing is in flight.
    pub(crate) async fn next(&mut self) -> Option<Report> {
        let ended = self.tasks.join_next_with_id().await?;
        let (id, report) = match ended {
            Ok((id, report)) => (id, Some(report)),
            Err(lost) => {
                tracing::error!(error = %lost, "a probe was lost by a fault of our own");
                metrics::lost();
                (lost.id(), None)
            }
        };
        let (started, work) = self.owners.remove(&id)?;
        match work {
            Work::Probe => {
                self.probes.in_flight -= 1;
                self.begin_probes();
            }
            Work::LookUp => {
                self.lookups.in_flight -= 1;
                self.begin_lookups();
            }
        }
        let Started { endpoint, ticket } = started;
        Some(report.unwrap_or(Report::Lost {
            endpoint,
            ticket,
            work,
        }))
    }

    fn begin_probes(&mut self) {
        while self.probes.in_flight < PROBES_IN_FLIGHT_MAX {
            let Some(job) = self.probes.waiting.pop_front() else {
                break;
            };
            self.probes.in_flight += 1;
            self.begin(job);
        }
    }

    fn begin_lookups(&mut self) {
        while self.lookups.in_flight < LOOKUPS_IN_FLIGHT_MAX {
            let Some(job) = self.lookups.waiting.pop_front() else {
                break;
            };
            self.lookups.in_flight += 1;
            self.begin(job);
        }
    }

    fn begin(&mut self, job: Job) {
        let owner = match &job {
            Job::Probe { started, .. } => (*started, Work::Probe),
            Job::LookUp { started, .. } => (*started, Work::LookUp),
        };
        let task = self.tasks.spawn(run(job));
        self.owners.insert(task.id(), owner);
    }

    fn prepare(&mut self, endpoint: &Endpoint, probe: &Probe) -> What {
        // On another port than its own the endpoint may well speak plainly.
        let plain = matches!(probe.kind, ProbeKind::Tcp) && probe.port.is_some();
        let tls = match &endpoint.tls {
            Some(tls) if !plain => match self.tls.config(tls, endpoint.protocol) {
                Ok(config) => Some(HttpTls {
                    server_name: tls.server_name.clone(),
                    config,
                }),
                Err(error) => return What::Hopeless(Failure::Tls(error.to_string())),
            },
            _ => None,
        };
        let ProbeKind::Http {
            path,
            host,
            expect,
            body_contains,
        } = &probe.kind
        else {
            return What::Tcp(header(endpoint, probe), tls);
        };
        What::Http(Box::new(HttpProbe {
            protocol: endpoint.protocol,
            header: header(endpoint, probe),
            authority: match host {
                Some(host) => host.to_string(),
                None => authority(endpoint, probe.port),
            },
            tls,
            path: path.clone(),
            expect: expect.clone(),
            body_contains: body_contains.clone(),
        }))
    }
}

/// Who the client is: ourselves. Another port than the endpoint's own is taken to be for probes
/// alone, and to want no such header.
fn header(endpoint: &Endpoint, probe: &Probe) -> &'static [u8] {
    match (endpoint.proxy_protocol, probe.port) {
        (Some(version), None) => version.local_header(),
        _ => &[],
    }
}

/// What an endpoint is called in a `Host` header: its host name or address, with its port where
/// that is not the scheme's own (RFC 9110 section 7.2).
fn authority(endpoint: &Endpoint, port: Option<u16>) -> String {
    let (name, own_port) = match &endpoint.target {
        Target::Host { host, port } => (host.to_string(), *port),
        Target::Address(SocketAddr::V4(at)) => (at.ip().to_string(), at.port()),
        Target::Address(SocketAddr::V6(at)) => (format!("[{}]", at.ip()), at.port()),
    };
    let usual = if endpoint.tls.is_some() { 443 } else { 80 };
    match port.unwrap_or(own_port) {
        port if port == usual => name,
        port => format!("{name}:{port}"),
    }
}

async fn run(job: Job) -> Report {
    match job {
        Job::Probe {
            started,
            pool,
            limit,
            addresses,
            what,
        } => {
            let begun = super::instant();
            let outcome = match what {
                What::Http(probe) => http::probe(&probe, &addresses, limit).await,
                What::Tcp(header, tls) => tcp::probe(&addresses, limit, header, tls.as_ref()).await,
                What::Hopeless(failure) => Outcome::Failed(failure),
            };
            let Started { endpoint, ticket } = started;
            Report::Probed {
                endpoint,
                ticket,
                outcome,
                pool,
                took: begun.elapsed(),
            }
        }
        Job::LookUp {
            started,
            host,
            port,
        } => {
            let found = resolve::look_up(&host, port).await;
            metrics::looked_up(found.is_ok());
            Report::Resolved {
                endpoint: started.endpoint,
                ticket: started.ticket,
                found,
            }
        }
    }
}
