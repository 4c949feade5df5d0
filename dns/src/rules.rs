//! The operator's rules as the engine reads them: compiled once, replaced whole on reload.
//!
//! Holds no health and answers nothing: see [`crate::engine`].

use std::net::SocketAddr;
use std::sync::Arc;

use sealane_model::Snapshot;
use sealane_steering::GeoTable;

use crate::alias::Source;
use crate::config::{Config, Cookies, Identity, Limits};
use crate::cookie::{Baker, Secret};
use crate::dnssec::ahead::{sign_ahead, sign_aliases_ahead};
use crate::dnssec::timing::Moment;
use crate::metrics::ZoneCounters;
use crate::tap::Taps;
use crate::transfer::desk::Desk;
use crate::zone::ZoneTable;

/// The operator's rules, compiled.
#[derive(Debug)]
pub struct Rules {
    pub table: ZoneTable,
    pub geo: Arc<GeoTable>,
    pub limits: Limits,
    /// The first one makes cookies, all are honoured; with none there are no cookies.
    pub(crate) secrets: Vec<Secret>,
    pub identity: Identity,
    /// Where questions are told; `None`: nowhere.
    pub(crate) taps: Option<Box<Taps>>,
    /// What is counted by zone.
    pub(crate) zones: ZoneCounters,
    /// Who is asked for other names' addresses.
    pub(crate) resolvers: Vec<SocketAddr>,
    /// What they were compiled from, where zones are signed (they are signed again in time) or transferred.
    pub(crate) config: Option<Arc<Config>>,
    /// `None`: no zone comes from another server or goes to one.
    pub(crate) transfers: Option<Box<Desk>>,
}

impl Rules {
    /// For zones that are not signed, which hold at any time.
    #[must_use]
    pub fn compile(config: &Config) -> Self {
        Self::compile_at(config, Moment(0), None)
    }

    /// Zones that are signed are signed as of `now`; what `before` has signed alike is taken over.
    #[must_use]
    pub fn compile_at(config: &Config, now: Moment, before: Option<&Self>) -> Self {
        let secrets = match (&config.cookies, before) {
            (Cookies::Off, _) => Vec::new(),
            (Cookies::Shared(secrets), _) => secrets.clone(),
            (Cookies::Own, before) => before.map_or_else(Vec::new, |rules| rules.secrets.clone()),
        };
        let taps = before.and_then(|rules| rules.taps.clone());
        let before = before.map(|rules| &rules.table);
        let is_signed = config.zones.iter().any(|zone| zone.dnssec.is_some());
        Self {
            table: ZoneTable::compile(&config.zones, now, before),
            geo: config.geo.clone(),
            limits: config.limits.clone(),
            secrets,
            identity: config.identity.clone(),
            resolvers: config.resolvers.clone(),
            taps,
            zones: ZoneCounters::new(&config.zones),
            config: is_signed.then(|| Arc::new(config.clone())),
            transfers: None,
        }
    }

    /// Has cookies made with this secret, where the operator wants cookies and names none.
    pub(crate) fn fill_secret(&mut self, cookies: &Cookies, own: Option<&Secret>) {
        if *cookies == Cookies::Own {
            self.secrets = own.cloned().into_iter().collect();
        }
    }

    /// What makes cookies at this time, if anything does.
    #[must_use]
    pub(crate) fn cookies(&self, now: u32) -> Option<Baker<'_>> {
        let secrets = &self.secrets[..];
        (!secrets.is_empty()).then_some(Baker { secrets, now })
    }

    /// What is to be known of other names.
    pub(crate) fn sources(&self) -> Vec<Arc<Source>> {
        let aliases = self.table.aliases();
        aliases
            .map(|(_, alias)| Arc::clone(&alias.source))
            .collect()
    }

    /// Signs what steered names may be answered with in this world, before anyone asks.
    pub fn sign_ahead(&self, world: &Snapshot) {
        sign_ahead(&self.table, world);
        self.sign_aliases_ahead();
    }

    /// Signs what aliases are answered with now.
    pub(crate) fn sign_aliases_ahead(&self) {
        sign_aliases_ahead(&self.table);
    }
}
