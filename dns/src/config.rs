//! What the name server is told to do: already valid, no strings left to check.
//!
//! Built by the daemon from the configuration file and from zone files. Holds rules only.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sealane_model::{PoolId, Ratio, RegionId, Ttl};
use sealane_steering::{GeoTable, SteeringPolicy};
use sealane_tls::ServerTls;

use crate::cookie::Secret;
use crate::dnssec::chain::Denial;
use crate::dnssec::key::Key;
use crate::engine::Transport;
use crate::limit::Rates;
use crate::name::Name;
use crate::record::Record;
use crate::service::Service;
use crate::transfer::book::no_soa;
use crate::transfer::rules::{OfZone, Secondary};

/// The name server's rules. Replaced whole on reload.
#[derive(Clone, Debug)]
pub struct Config {
    /// UDP and TCP on each.
    pub bind: Vec<SocketAddr>,
    /// Where questions are taken encrypted as well; at most one entry of each protocol.
    pub encrypted: Vec<Encrypted>,
    pub zones: Vec<Zone>,
    /// Resolvers that are asked for the addresses of other names; with none the system's are.
    pub resolvers: Vec<SocketAddr>,
    pub geo: Arc<GeoTable>,
    pub limits: Limits,
    pub cookies: Cookies,
    pub identity: Identity,
    /// Where secondary zones and serials are kept over a restart; `None`: nowhere.
    pub transfer_dir: Option<Arc<Path>>,
    /// The share of questions that is logged; `None`: none is.
    pub query_log: Option<Ratio>,
    /// Who is told of questions and answers by dnstap, and of which share.
    pub dnstap: Option<(Dnstap, Ratio)>,
}

/// A socket that dnstap is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dnstap {
    /// A Unix socket that a reader of Frame Streams listens on.
    pub socket: PathBuf,
    /// Which server this is; nothing is said when left out.
    pub identity: Option<Arc<str>>,
    pub version: Option<Arc<str>>,
}

/// What the server tells of itself to those who ask. By default nothing.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// For the option NSID (RFC 5001); at most [`NSID_MAX`] octets.
    pub nsid: Option<Arc<[u8]>>,
    /// For `version.bind` and `version.server` in class CH; at most 255 octets.
    pub version: Option<Arc<str>>,
    /// For `id.server` and `hostname.bind` in class CH (RFC 4892); at most 255 octets.
    pub id: Option<Arc<str>>,
}

/// The longest NSID: with it the shortest answer still has room.
pub const NSID_MAX: usize = 64;

impl Config {
    /// Zones that are served on no address yet, within the usual limits.
    #[must_use]
    pub fn new(zones: Vec<Zone>, geo: Arc<GeoTable>) -> Self {
        Self {
            bind: Vec::new(),
            encrypted: Vec::new(),
            zones,
            resolvers: Vec::new(),
            geo,
            limits: Limits::default(),
            cookies: Cookies::Off,
            identity: Identity::default(),
            query_log: None,
            dnstap: None,
            transfer_dir: None,
        }
    }
}

/// How questions come in that nobody on the way can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
    /// DNS over QUIC (RFC 9250).
    Quic,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Tls, Self::Https, Self::Quic];

    #[must_use]
    pub const fn transport(self) -> Transport {
        match self {
            Self::Tls => Transport::Tls,
            Self::Https => Transport::Https,
            Self::Quic => Transport::Quic,
        }
    }

    /// What it is called in a handshake (IANA "TLS ALPN Protocol IDs").
    const fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Tls => &[b"dot"],
            Self::Https => &[b"h2", b"http/1.1"],
            Self::Quic => &[b"doq"],
        }
    }
}

/// One protocol: where it is spoken, and with which certificates.
#[derive(Clone, Debug)]
pub struct Encrypted {
    pub protocol: Protocol,
    pub bind: Vec<SocketAddr>,
    /// Where HTTPS takes questions, `/dns-query` for most; nothing else reads it.
    pub path: Arc<str>,
    tls: ServerTls,
}

impl Encrypted {
    #[must_use]
    pub fn new(protocol: Protocol, bind: Vec<SocketAddr>, tls: &ServerTls) -> Self {
        Self {
            protocol,
            bind,
            path: "/dns-query".into(),
            tls: tls.speaking(protocol.alpn()),
        }
    }

    /// With these certificates.
    #[must_use]
    pub(crate) fn renewed(&self, tls: &ServerTls) -> Self {
        let renewed = Self {
            tls: tls.speaking(self.protocol.alpn()),
            ..self.clone()
        };
        renewed.keeping_tickets_of(self)
    }

    /// Tickets of earlier sessions go on holding.
    #[must_use]
    pub(crate) fn keeping_tickets_of(self, old: &Self) -> Self {
        Self {
            tls: self.tls.keeping_tickets_of(&old.tls),
            ..self
        }
    }

    #[must_use]
    pub const fn tls(&self) -> &ServerTls {
        &self.tls
    }
}

#[derive(Clone, Debug)]
pub struct Zone {
    pub apex: Name,
    pub soa: Soa,
    /// Static records, the apex's NS among them; no SOA. Owners lie at or below `apex`.
    pub records: Vec<Record>,
    pub steered: Vec<SteeredName>,
    pub aliases: Vec<AliasName>,
    /// `None`: the zone is not signed.
    pub dnssec: Option<Arc<Dnssec>>,
    /// Who may have copies, and whose copy this is. `soa` and `records` of a secondary zone are filled
    /// from what its primary gives.
    pub transfers: OfZone,
    /// Nothing is known of the zone, or nothing that still holds: SERVFAIL.
    pub is_void: bool,
    /// Something was added here to what a primary gave.
    pub(crate) is_overlaid: bool,
}

impl Zone {
    /// A copy of somebody else's zone, of which nothing is known yet.
    #[must_use]
    pub fn secondary(apex: Name, secondary: Arc<Secondary>) -> Self {
        let soa = no_soa(&apex);
        let mut zone = Self::new(apex, soa, Vec::new());
        zone.transfers.secondary = Some(secondary);
        zone
    }

    /// A zone with static records only, not signed.
    #[must_use]
    pub fn new(apex: Name, soa: Soa, records: Vec<Record>) -> Self {
        Self {
            apex,
            soa,
            records,
            steered: Vec::new(),
            aliases: Vec::new(),
            dnssec: None,
            transfers: OfZone::default(),
            is_void: false,
            is_overlaid: false,
        }
    }
}

/// How a zone is signed.
#[derive(Clone, Debug)]
pub struct Dnssec {
    /// All of the zone's keys, whatever state they are in; at least one.
    pub keys: Vec<Arc<Key>>,
    /// The TTL of DNSKEY, CDS and CDNSKEY.
    pub key_ttl: Ttl,
    /// How long a signature holds; made anew when a third of it is left.
    pub validity: Duration,
    pub denial: Denial,
    /// Signatures that may be made in a second while questions wait; beyond that they are answered
    /// with SERVFAIL. Those made ahead do not count.
    pub signatures_per_second: u32,
}

impl Dnssec {
    /// As most want it: two weeks, the NSEC chain, 2,000 signatures a second (a twentieth of a core).
    #[must_use]
    pub const fn new(keys: Vec<Arc<Key>>) -> Self {
        Self {
            keys,
            key_ttl: Ttl::from_secs(3_600),
            validity: Duration::from_secs(14 * 86_400),
            denial: Denial::Nsec,
            signatures_per_second: 2_000,
        }
    }
}

/// Start of authority (RFC 1035 §3.3.13).
#[derive(Clone, Debug)]
pub struct Soa {
    pub ttl: Ttl,
    pub primary: Name,
    pub mailbox: Name,
    pub serial: u32,
    pub refresh: Ttl,
    pub retry: Ttl,
    pub expire: Ttl,
    /// How long a negative answer may be kept (RFC 2308 §4); small, or a NODATA that a resolver
    /// kept outlives the failover.
    pub minimum: Ttl,
}

/// A name whose records are those of the region chosen for each client.
#[derive(Clone, Debug)]
pub struct SteeredName {
    pub owner: Name,
    pub pool: PoolId,
    pub steering: Arc<SteeringPolicy>,
    /// While nothing is in doubt.
    pub ttl: Ttl,
    /// While one of the pool's regions is suspect.
    pub ttl_suspect: Ttl,
    /// How many regions after the best are answered as well.
    pub alternates: u8,
    /// Locate by the resolver's address even where it sends a client subnet.
    pub ignore_client_subnet: bool,
    /// Some clients are sent elsewhere, to try something new.
    pub canary: Option<Canary>,
    /// Where this is not empty, the name is a CNAME of the region's host: regions without one are
    /// passed over.
    pub hosts: Vec<(RegionId, Name)>,
    /// An HTTPS record whose hints are the chosen addresses.
    pub https: Option<Service>,
}

/// A name that has another name's addresses: a CNAME may not stand at a zone's own name, this may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasName {
    pub owner: Name,
    /// Whose addresses it has; looked up again and again.
    pub target: Name,
    /// No answer may be kept for longer.
    pub ttl: Ttl,
}

/// A share of clients that are led to another pool while that one is well. By the client's network:
/// with a larger share those that were there stay.
#[derive(Clone, Debug)]
pub struct Canary {
    pub pool: PoolId,
    pub steering: Arc<SteeringPolicy>,
    pub share: Ratio,
}

impl SteeredName {
    /// With the TTLs that are right for most: 10 s, and 5 s while something is in doubt.
    #[must_use]
    pub fn new(owner: Name, pool: PoolId, steering: Arc<SteeringPolicy>) -> Self {
        Self {
            owner,
            pool,
            steering,
            ttl: Ttl::from_secs(10),
            ttl_suspect: Ttl::from_secs(5),
            alternates: 0,
            ignore_client_subnet: false,
            canary: None,
            hosts: Vec::new(),
            https: None,
        }
    }
}

/// DNS cookies (RFC 7873).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cookies {
    #[default]
    Off,
    /// By a secret of this process alone.
    Own,
    /// By these, which all servers of the zones have; the first one makes cookies.
    Shared(Vec<Secret>),
}

#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once, encrypted ones and those over QUIC among them, over all addresses; more are closed at once. One client (an IPv4
    /// address, or a /64 of IPv6) may have a quarter of them, or 8 if that is more.
    pub tcp_connections: usize,
    /// Answers that one network gets over UDP; `None`: all of them.
    pub answers: Option<Rates>,
    /// A connection without a question is closed after this (RFC 7766 §6.2.3).
    pub tcp_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_connections: 1_024,
            answers: None,
            tcp_idle: Duration::from_secs(10),
        }
    }
}
