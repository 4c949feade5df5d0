//! Zones that go to other servers, and zones that come from them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use sealane_dns::config::Zone;
use sealane_dns::dnssec::chain::Denial;
use sealane_dns::name::Name;
use sealane_dns::transfer::key::{Algorithm, TsigKey, secret_from_base64};
use sealane_dns::transfer::{Outgoing, Secondary, SteeredAs};

use super::super::decode::{At, OneOrMany, Table, nearest};
use super::super::error::Mistake;
use super::super::spec::{
    SecondarySpec, SteeredAsWord, TransfersSpec, TsigAlgorithmWord, TsigKeySpec, ZoneSpec,
};
use super::super::unit::{Secret, Text};
use super::Parser;
use super::admin::ELSEWHERE;

/// Shorter secrets can be guessed: RFC 8945 §8 wants them as long as the algorithm's hash, or nearly so.
const SECRET_LENGTH_MIN: usize = 16;
/// Networks, keys or servers of one zone.
const OF_ZONE_MAX: usize = 64;
const DNS_PORT: u16 = 53;

/// Keys by name, as the file spells them; `None`: such a one could not be read.
pub(super) type TsigKeys = HashMap<String, Option<TsigKey>>;

impl Parser<'_> {
    pub(super) fn tsig_keys(&mut self, table: Option<&At<Table<TsigKeySpec>>>) -> TsigKeys {
        let mut keys = HashMap::new();
        for entry in table.iter().flat_map(|table| table.value.iter()) {
            let name = Name::parse(&entry.name, None);
            let name = name
                .map_err(|error| {
                    let message = format!("this is no key's name: {error}");
                    self.notes.wrong(entry.name.span, message);
                })
                .ok();
            let spec = entry.value.as_ref();
            let key = name
                .zip(spec)
                .and_then(|(name, spec)| self.tsig_key(name, &spec.value));
            keys.insert(entry.name.value.clone(), key);
        }
        keys
    }

    fn tsig_key(&mut self, name: Name, spec: &TsigKeySpec) -> Option<TsigKey> {
        let TsigKeySpec {
            span: _,
            broken: _,
            algorithm,
            secret,
        } = spec;
        let algorithm = match algorithm.as_ref()?.value {
            TsigAlgorithmWord::HmacSha256 => Algorithm::HmacSha256,
            TsigAlgorithmWord::HmacSha384 => Algorithm::HmacSha384,
            TsigAlgorithmWord::HmacSha512 => Algorithm::HmacSha512,
        };
        let at = secret.as_ref()?;
        let octets = self.tsig_secret(at)?;
        TsigKey::new(name, algorithm, &octets)
    }

    fn tsig_secret(&mut self, at: &At<Secret>) -> Option<Vec<u8>> {
        let text = self.kept_elsewhere(at, "secret", ELSEWHERE)?;
        let octets = secret_from_base64(text.trim());
        let octets = octets.filter(|octets| octets.len() >= SECRET_LENGTH_MIN);
        if octets.is_none() {
            self.notes.mistake(
                Mistake::new(
                    at.span,
                    format!("the secret is not {SECRET_LENGTH_MIN} octets or more in base64"),
                )
                .help("make one with `openssl rand -base64 32`"),
            );
        }
        octets
    }

    /// The zone with what it has to do with other servers. `None` after a mistake.
    pub(super) fn transferred(
        &mut self,
        mut zone: Zone,
        spec: &ZoneSpec,
        keys: &TsigKeys,
    ) -> Option<Zone> {
        let before = self.notes.count();
        if let Some(transfers) = &spec.transfers {
            let outgoing = self.outgoing(transfers, keys);
            zone.transfers.outgoing = outgoing.map(Arc::new);
            let compact = |d: &Arc<sealane_dns::config::Dnssec>| d.denial == Denial::Compact;
            if zone.dnssec.as_ref().is_some_and(compact) {
                self.notes.mistake(
                    Mistake::new(
                        transfers.span,
                        "a zone that is signed by `denial: compact` cannot be transferred",
                    )
                    .help("its proofs are made for each question, by keys that a secondary does not have: use `denial: nsec`"),
                );
            }
            if self.transfer_dir.is_none() {
                self.notes.warn(
                    transfers.span,
                    "without `node.state_dir` a restart may begin with a lower serial, which secondaries ignore",
                );
            }
        }
        (self.notes.count() == before).then_some(zone)
    }

    fn outgoing(&mut self, spec: &At<TransfersSpec>, keys: &TsigKeys) -> Option<Outgoing> {
        let TransfersSpec {
            span: _,
            broken,
            to,
            tsig,
            notify,
            steered,
        } = &spec.value;
        let to = to.as_ref()?.value.iter();
        let to: Vec<_> = to.map(|at| at.value.0).collect();
        let named = tsig.as_ref()?.value.iter();
        let named: Vec<_> = named.map(|at| self.key_named(at, keys)).collect();
        let notify = self.servers(notify.as_ref()?);
        let keys: Vec<TsigKey> = named.into_iter().flatten().collect();
        if to.is_empty() && keys.is_empty() && notify.is_empty() && !broken {
            self.notes.mistake(
                Mistake::new(spec.span, "nothing says who may have the zone")
                    .expected("`to: [NETWORK, …]`, `tsig: [KEY, …]`, or both"),
            );
        }
        if to.len().max(keys.len()).max(notify.len()) > OF_ZONE_MAX {
            let message = format!("more than {OF_ZONE_MAX} networks, keys or servers");
            self.notes.wrong(spec.span, message);
        }
        Some(Outgoing {
            to,
            keys,
            notify,
            steered: match steered.as_ref()?.value {
                SteeredAsWord::Snapshot => SteeredAs::Snapshot,
                SteeredAsWord::Omit => SteeredAs::Omit,
            },
        })
    }

    /// A zone whose static part comes from another server.
    pub(super) fn secondary_zone(
        &mut self,
        apex: &Name,
        spec: &ZoneSpec,
        from: &At<SecondarySpec>,
        keys: &TsigKeys,
    ) -> Option<Zone> {
        let own = [
            spec.file.as_ref().map(|at| (at.span, "file")),
            spec.soa.as_ref().map(|at| (at.span, "soa")),
            spec.ns.as_ref().map(|at| (at.span, "ns")),
            spec.records.as_ref().map(|at| (at.span, "records")),
            spec.aliases.as_ref().map(|at| (at.span, "aliases")),
        ];
        for (span, key) in own.into_iter().flatten() {
            if span.is_written() {
                self.notes.mistake(
                    Mistake::new(span, format!("a secondary zone has no `{key}` of its own"))
                        .help("its static part is what its primary gives"),
                );
            }
        }
        let steered = self.steered_names(spec.steered.as_ref(), apex);
        let secondary = self.secondary(from, keys)?;
        let mut zone = Zone::secondary(apex.clone(), Arc::new(secondary));
        zone.steered = steered;
        Some(zone)
    }

    fn secondary(&mut self, spec: &At<SecondarySpec>, keys: &TsigKeys) -> Option<Secondary> {
        let SecondarySpec {
            span: _,
            broken: _,
            primaries,
            tsig,
        } = &spec.value;
        let primaries_at = primaries.as_ref()?;
        let primaries = self.servers(primaries_at);
        if primaries_at.value.is_empty() || primaries.len() > OF_ZONE_MAX {
            let message = format!("1 to {OF_ZONE_MAX} primaries are wanted here");
            self.notes.wrong(primaries_at.span, message);
        }
        let key = match tsig {
            Some(at) => Some(self.key_named(at, keys)?),
            None => None,
        };
        Some(Secondary { primaries, key })
    }

    fn key_named(&mut self, at: &At<Text>, keys: &TsigKeys) -> Option<TsigKey> {
        if let Some(key) = keys.get(&at.0) {
            return key.clone();
        }
        let near = nearest(&at.0, keys.keys().map(String::as_str));
        let message = format!("there is no key `{}`", at.0.escape_debug());
        self.notes.mistake(
            Mistake::new(at.span, message)
                .expected("the name of one of `dns.tsig_keys`")
                .nearest(near),
        );
        None
    }

    /// Addresses, with ports or without.
    fn servers(&mut self, list: &At<OneOrMany<Text>>) -> Vec<SocketAddr> {
        let mut servers = Vec::new();
        for at in list.value.iter() {
            let text = at.value.0.as_str();
            let whole = text.parse::<SocketAddr>().ok();
            let address = || Some(SocketAddr::new(text.parse().ok()?, DNS_PORT));
            match whole.or_else(address).filter(|server| server.port() != 0) {
                Some(server) => servers.push(server),
                None => self.notes.mistake(
                    Mistake::new(at.span, format!("`{}` is no address", text.escape_debug()))
                        .expected("an address such as `192.0.2.53`, `192.0.2.53:5353` or `[2001:db8::53]:53`"),
                ),
            }
        }
        servers
    }
}
