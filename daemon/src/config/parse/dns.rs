//! Zones, their records, and their steered names.

use std::collections::HashMap;
use std::sync::Arc;

use sealane_dns::config::{
    AliasName, Canary, Config, Cookies, Dnstap, Encrypted, Identity, Limits, NSID_MAX, Soa,
    SteeredName, Zone,
};
use sealane_dns::cookie::Secret as CookieSecret;
use sealane_dns::limit::Rates;
use sealane_dns::name::Name;
use sealane_dns::record::{Record, ZoneFile, parse_zone_file};
use sealane_dns::service::Service;
use sealane_model::{Ratio, RegionId, Ttl};
use sealane_steering::{GeoTable, SteeringPolicy};

use super::super::decode::{At, Table};
use super::super::error::Mistake;
use super::super::files::ZONE_BYTES_MAX;
use super::super::source::Span;
use super::super::spec::{
    AliasSpec, ChaosSpec, DnsCanarySpec, DnsCookiesSpec, DnsLimitsSpec, DnsSpec, DnssecSpec,
    DnstapSpec, RecordSpec, RrlSpec, SoaSpec, SteeredSpec, SteeringSpec, TtlText, ZoneSpec,
};
use super::super::unit::{OneOrManyText, Secret, Share, Text};
use super::admin::ELSEWHERE;
use super::transfers::TsigKeys;
use super::{Parser, Transport};

/// What the system allows (unix(7), `sun_path`), without the octet that ends it.
const SOCKET_PATH_MAX: usize = 107;
/// Each cookie may be of any of them.
const COOKIE_SECRETS_MAX: usize = 8;

/// The serial of a zone whose files have no date.
const SERIAL_WITHOUT_DATE: u32 = 1;

impl Parser<'_> {
    pub(super) fn dns(
        &mut self,
        spec: Option<&At<DnsSpec>>,
        geo: Arc<GeoTable>,
        encrypted: Vec<Encrypted>,
    ) -> Option<Config> {
        let Some(spec) = spec else {
            return Some(Config::new(Vec::new(), geo));
        };
        let DnsSpec {
            span: _,
            broken: _,
            bind,
            tls: _,
            https: _,
            quic: _,
            geo: _,
            zones,
            limits,
            dnssec,
            cookies,
            rrl,
            nsid,
            chaos,
            resolvers,
            query_log,
            dnstap,
            tsig_keys,
        } = &spec.value;
        let resolvers = resolvers.as_ref()?.value.iter();
        let resolvers = resolvers.map(|at| at.value.0).collect();
        let identity = self.identity(nsid.as_ref(), chaos.as_ref());
        let query_log = query_log
            .as_ref()
            .and_then(|at| share(at.value.sample.as_ref()?));
        let dnstap = dnstap
            .as_ref()
            .and_then(|at| self.dnstap(&at.value, nsid.as_ref()));
        let tsig_keys = self.tsig_keys(tsig_keys.as_ref());
        let zones = self.zones(zones.as_ref(), dnssec.as_ref(), &tsig_keys);
        let cookies = cookies.as_ref().and_then(|at| self.cookies(&at.value));
        let answers = rrl.as_ref().and_then(|at| rates_of(&at.value));
        let bind = bind.as_ref()?;
        if zones.is_empty() {
            return Some(Config::new(zones, geo));
        }
        if bind.value.is_empty() {
            self.notes
                .wrong(bind.span, "the name server has no address");
        }
        for address in bind.value.iter() {
            for transport in [Transport::Udp, Transport::Tcp] {
                let who = "the name server";
                self.bind(transport, address.value.0, address.span, who);
            }
        }
        Some(Config {
            bind: bind.value.iter().map(|at| at.value.0).collect(),
            encrypted,
            zones,
            resolvers,
            geo,
            limits: limits_of(limits.as_ref()?, answers?)?,
            cookies: cookies?,
            identity,
            query_log,
            dnstap,
            transfer_dir: self.transfer_dir.as_deref().map(Arc::from),
        })
    }

    fn dnstap(&mut self, spec: &DnstapSpec, nsid: Option<&At<Text>>) -> Option<(Dnstap, Ratio)> {
        let DnstapSpec {
            span: _,
            broken: _,
            socket,
            sample,
            identity,
        } = spec;
        let socket = socket.as_ref()?;
        let path = self.files.resolve(&socket.0);
        if path.as_os_str().len() > SOCKET_PATH_MAX {
            let message =
                format!("longer than the {SOCKET_PATH_MAX} octets that a socket's path may have");
            self.notes.wrong(socket.span, message);
            return None;
        }
        let identity = identity.as_ref().or(nsid);
        let dnstap = Dnstap {
            socket: path,
            identity: identity.map(|at| at.0.as_str().into()),
            version: Some(concat!("sealane ", env!("CARGO_PKG_VERSION")).into()),
        };
        Some((dnstap, share(sample.as_ref()?)?))
    }

    fn cookies(&mut self, spec: &DnsCookiesSpec) -> Option<Cookies> {
        let DnsCookiesSpec {
            span: _,
            broken: _,
            enabled,
            secrets,
        } = spec;
        let secrets = secrets.as_ref()?;
        if secrets.value.len() > COOKIE_SECRETS_MAX {
            let message = format!("more than {COOKIE_SECRETS_MAX} secrets");
            self.notes.wrong(secrets.span, message);
            return None;
        }
        // All of them are looked at, whichever is wrong.
        let all: Vec<_> = secrets
            .value
            .iter()
            .map(|at| self.cookie_secret(at))
            .collect();
        let all: Option<Vec<_>> = all.into_iter().collect();
        Some(match all? {
            _ if !enabled.as_ref()?.value.0 => Cookies::Off,
            none if none.is_empty() => Cookies::Own,
            some => Cookies::Shared(some),
        })
    }

    fn cookie_secret(&mut self, at: &At<Secret>) -> Option<CookieSecret> {
        let text = self.kept_elsewhere(at, "secret", ELSEWHERE)?;
        let secret = hexadecimal(text.trim());
        if secret.is_none() {
            self.notes.mistake(
                Mistake::new(at.span, "the secret is not 32 hexadecimal digits")
                    .help("make one with `openssl rand -hex 16`"),
            );
        }
        secret.map(CookieSecret::new)
    }

    fn identity(&mut self, nsid: Option<&At<Text>>, chaos: Option<&At<ChaosSpec>>) -> Identity {
        let (version, id) = match chaos.map(|chaos| &chaos.value) {
            Some(ChaosSpec {
                span: _,
                broken: _,
                version,
                id,
            }) => (version.as_ref(), id.as_ref()),
            None => (None, None),
        };
        let mut text = |at: Option<&At<Text>>, most: usize| -> Option<String> {
            let at = at?;
            if at.0.is_empty() || at.0.len() > most {
                let message = format!("a text of 1 to {most} octets is wanted here");
                self.notes.wrong(at.span, message);
                return None;
            }
            Some(at.0.clone())
        };
        Identity {
            nsid: text(nsid, NSID_MAX).map(|nsid| nsid.as_bytes().into()),
            version: text(version, 255).map(Into::into),
            id: text(id, 255).map(Into::into),
        }
    }

    fn zones(
        &mut self,
        table: Option<&At<Table<ZoneSpec>>>,
        dnssec: Option<&At<DnssecSpec>>,
        tsig_keys: &TsigKeys,
    ) -> Vec<Zone> {
        let mut seen: HashMap<Name, Span> = HashMap::new();
        let mut zones = Vec::new();
        for entry in table.iter().flat_map(|table| table.value.iter()) {
            let apex = match Name::parse(&entry.name, None) {
                Ok(apex) => apex,
                Err(error) => {
                    self.notes
                        .wrong(entry.name.span, format!("this is no zone's name: {error}"));
                    continue;
                }
            };
            if let Some(first) = seen.insert(apex.clone(), entry.name.span) {
                let message = format!("the zone {apex} stands here twice");
                self.notes
                    .mistake(Mistake::new(entry.name.span, message).related(first, "first here"));
                continue;
            }
            if let Some(spec) = &entry.value {
                let zone = match &spec.value.secondary_of {
                    Some(from) => self.secondary_zone(&apex, &spec.value, from, tsig_keys),
                    None => self.zone(&entry.name, &apex, spec),
                };
                let zone = zone.and_then(|zone| self.signed(zone, spec, dnssec));
                zones.extend(zone.and_then(|zone| self.transferred(zone, &spec.value, tsig_keys)));
            }
        }
        zones
    }

    fn zone(&mut self, name: &At<String>, apex: &Name, spec: &At<ZoneSpec>) -> Option<Zone> {
        let ZoneSpec {
            span: _,
            broken,
            file,
            soa,
            ns,
            ttl,
            records,
            steered,
            aliases,
            dnssec: _,
            transfers: _,
            secondary_of: _,
        } = &spec.value;
        let before = self.notes.count();
        let ttl = seconds(ttl.as_ref()?);
        let mut from_file = ZoneFile::default();
        if let Some(path) = file {
            from_file = self.zone_file(path, apex, ttl).unwrap_or_default();
        }
        let mut all = std::mem::take(&mut from_file.records);
        all.extend(self.name_servers(ns.as_ref(), apex, ttl));
        for record in records.iter().flat_map(|list| list.value.iter()) {
            all.extend(self.records(record, apex, ttl));
        }
        let steered = self.steered_names(steered.as_ref(), apex);
        let aliases = self.aliases(aliases.as_ref(), apex);
        let soa = match (soa, from_file.soa) {
            (Some(soa), Some(_)) => {
                let path = file.as_ref().map_or(Span::NONE, |path| path.span);
                self.notes.mistake(
                    Mistake::new(
                        soa.span,
                        "this zone has an SOA here and one in its zone file",
                    )
                    .related(path, "the other one"),
                );
                None
            }
            (Some(soa), None) => self.soa(&soa.value, apex, &all),
            (None, Some(soa)) => Some(soa),
            (None, None) => self.soa(&filled_soa(), apex, &all),
        };
        let mut zone = Zone::new(apex.clone(), soa?, all);
        zone.steered = steered;
        zone.aliases = aliases;
        if self.notes.count() == before && !broken {
            let findings = sealane_dns::zone::check(&zone);
            for message in findings.mistakes {
                self.notes.wrong(name.span, message);
            }
            for message in findings.warnings {
                self.notes.warn(name.span, message);
            }
        }
        Some(zone)
    }

    fn zone_file(&mut self, path: &At<Text>, apex: &Name, ttl: Ttl) -> Option<ZoneFile> {
        let file = self.files.resolve(&path.0);
        let text = match self.files.text(&file, ZONE_BYTES_MAX) {
            Ok(text) => text,
            Err(message) => {
                self.notes.wrong(path.span, message);
                return None;
            }
        };
        match parse_zone_file(&text, apex, ttl) {
            Ok(zone) => Some(zone),
            Err(errors) => {
                let number = self.notes.sources.add(&file.display().to_string(), &text);
                let lines: Vec<&str> = text.lines().collect();
                for error in errors {
                    let line = lines.get(error.line.saturating_sub(1)).copied();
                    let column = character_column(line.unwrap_or(""), error.column);
                    let line = u32::try_from(error.line).unwrap_or(u32::MAX);
                    self.notes
                        .wrong(Span::at(number, line, column), error.message);
                }
                None
            }
        }
    }

    fn name_servers(
        &mut self,
        ns: Option<&At<OneOrManyText>>,
        apex: &Name,
        ttl: Ttl,
    ) -> Vec<Record> {
        let mut records = Vec::new();
        for server in ns.iter().flat_map(|list| list.value.iter()) {
            let text = absolute(&server.0);
            match Record::parse(apex.clone(), "NS", ttl, &text, apex) {
                Ok(record) => records.push(record),
                Err(error) => self.notes.mistake(
                    Mistake::new(server.span, format!("this is no name server: {error}"))
                        .expected("a host name, such as `ns1.example.com`"),
                ),
            }
        }
        records
    }

    fn records(&mut self, spec: &At<RecordSpec>, apex: &Name, zone_ttl: Ttl) -> Vec<Record> {
        let RecordSpec {
            span,
            broken,
            name,
            r#type,
            ttl,
            value,
            values,
        } = &spec.value;
        let (Some(name), Some(kind)) = (name, r#type) else {
            return Vec::new();
        };
        let Some(owner) = self.owner(&name.0, name.span, apex) else {
            return Vec::new();
        };
        if kind.0.eq_ignore_ascii_case("SOA") {
            self.notes.mistake(
                Mistake::new(kind.span, "the SOA is not written as a record")
                    .help("write it as the zone's `soa:`"),
            );
            return Vec::new();
        }
        let one = value.iter();
        let many = values.iter().flat_map(|list| list.value.iter());
        let is_empty = value.is_none() && values.as_ref().is_none_or(|v| v.value.is_empty());
        if (is_empty || (value.is_some() && values.is_some())) && !broken {
            self.notes.mistake(
                Mistake::new(*span, "a record has either `value` or `values`")
                    .expected("`value: TEXT`, or `values: [TEXT, …]`"),
            );
            return Vec::new();
        }
        let ttl = ttl.as_ref().map_or(zone_ttl, seconds);
        let mut records = Vec::new();
        for value in one.chain(many) {
            match Record::parse(owner.clone(), &kind.0, ttl, &value.0, apex) {
                Ok(record) => {
                    self.warn_of_doubled_zone(&record, value, apex);
                    records.push(record);
                }
                Err(error @ sealane_dns::record::RecordError::UnknownType { .. }) => {
                    self.notes.wrong(kind.span, error.to_string());
                    break;
                }
                Err(error) => self.notes.wrong(
                    value.span,
                    format!("this is no data of a record of type {}: {error}", kind.0),
                ),
            }
        }
        records
    }

    /// `www.example.com` without its final dot, in the zone `example.com`.
    fn warn_of_doubled_zone(&mut self, record: &Record, value: &At<Text>, apex: &Name) {
        let Some(target) = record.target() else {
            return;
        };
        if is_doubled(&target, apex) {
            let message = format!(
                "this leads to {target}: a name without a dot at its end is continued by the zone's"
            );
            self.notes.warn(value.span, message);
        }
    }

    /// A name of the zone, as it stands in the file.
    fn owner(&mut self, text: &str, span: Span, apex: &Name) -> Option<Name> {
        let owner = match Name::parse(text, Some(apex)) {
            Ok(owner) => owner,
            Err(error) => {
                self.notes.wrong(span, error.to_string());
                return None;
            }
        };
        if !owner.is_at_or_below(apex) {
            let message = format!("{owner} lies outside of the zone {apex}");
            self.notes.mistake(
                Mistake::new(span, message)
                    .help("write names relative to the zone; `@` is the zone itself"),
            );
            return None;
        }
        if is_doubled(&owner, apex) {
            let message = format!(
                "this means {owner}: a name without a dot at its end is continued by the zone's"
            );
            self.notes.mistake(
                Mistake::new(span, message).help(format!("write `{}`", relative(text, apex))),
            );
            return None;
        }
        Some(owner)
    }

    pub(super) fn steered_names(
        &mut self,
        table: Option<&At<Table<SteeredSpec>>>,
        apex: &Name,
    ) -> Vec<SteeredName> {
        let mut seen: HashMap<Name, Span> = HashMap::new();
        let mut names = Vec::new();
        for entry in table.iter().flat_map(|table| table.value.iter()) {
            let Some(owner) = self.owner(&entry.name, entry.name.span, apex) else {
                continue;
            };
            if let Some(first) = seen.insert(owner.clone(), entry.name.span) {
                let message = format!("the name {owner} is steered twice");
                self.notes
                    .mistake(Mistake::new(entry.name.span, message).related(first, "first here"));
            }
            if let Some(spec) = &entry.value {
                names.extend(self.steered(owner, spec));
            }
        }
        names
    }

    fn aliases(&mut self, table: Option<&At<Table<AliasSpec>>>, apex: &Name) -> Vec<AliasName> {
        let mut aliases = Vec::new();
        for entry in table.iter().flat_map(|table| table.value.iter()) {
            let Some(owner) = self.owner(&entry.name, entry.name.span, apex) else {
                continue;
            };
            if let Some(spec) = &entry.value {
                aliases.extend(self.alias(owner, &spec.value));
            }
        }
        aliases
    }

    fn alias(&mut self, owner: Name, spec: &AliasSpec) -> Option<AliasName> {
        let AliasSpec {
            span: _,
            broken: _,
            to,
            ttl,
        } = spec;
        let to = to.as_ref()?;
        let target = self.host_name(to)?;
        if target == Name::root() {
            self.notes.wrong(to.span, "the root has no addresses");
            return None;
        }
        Some(AliasName {
            owner,
            target,
            ttl: seconds(ttl.as_ref()?),
        })
    }

    /// A whole name, with or without a dot at its end.
    fn host_name(&mut self, text: &At<Text>) -> Option<Name> {
        let name = Name::parse(&text.0, None).map_err(|error| {
            self.notes.mistake(
                Mistake::new(text.span, format!("this is no host name: {error}"))
                    .expected("a whole host name, such as `eu.cdn.example.net`"),
            );
        });
        name.ok()
    }

    fn steered(&mut self, owner: Name, spec: &At<SteeredSpec>) -> Option<SteeredName> {
        let SteeredSpec {
            span,
            broken: _,
            pool,
            ttl,
            ttl_suspect,
            alternates,
            ignore_client_subnet,
            steering: own,
            all_down,
            canary,
            hosts,
            https,
        } = &spec.value;
        let name = pool.as_ref();
        let pool = name.and_then(|pool| self.pool(pool));
        let canary = canary.as_ref().and_then(|canary| self.canary(canary));
        let hosts = self.hosts(hosts.as_ref(), name);
        let https = https.as_ref().and_then(|params| self.service(params));
        let (ttl, ttl_suspect) = (ttl.as_ref()?, ttl_suspect.as_ref()?);
        if ttl_suspect.value.0 > ttl.value.0 {
            self.notes.mistake(
                Mistake::new(
                    ttl_suspect.span.or(ttl.span).or(*span),
                    "`ttl_suspect` is longer than `ttl`",
                )
                .help("answers live shorter while a region is in doubt, not longer"),
            );
        }
        let (pool, mut steering) = pool?;
        if let (Some(own), Some(name)) = (own, name) {
            steering = self.own_steering(own, name)?;
        }
        if let Some(rule) = all_down {
            let rule = self.all_down(&rule.value)?;
            steering = Arc::new(SteeringPolicy::clone(&steering).with_all_down(rule));
        }
        if let (Some(canary), false) = (&spec.value.canary, hosts.is_empty()) {
            let message =
                "a name with `hosts` has no canary: its hosts are those of one pool's regions";
            self.notes.wrong(canary.span, message);
        }
        if let (Some(params), false) = (&spec.value.https, hosts.is_empty()) {
            let message = "a name with `hosts` is a CNAME and has no HTTPS record of its own";
            self.notes.wrong(params.span, message);
        }
        Some(SteeredName {
            owner,
            pool,
            steering,
            ttl: seconds(ttl),
            ttl_suspect: seconds(ttl_suspect),
            alternates: u8::try_from(alternates.as_ref()?.value.0).ok()?,
            ignore_client_subnet: ignore_client_subnet.as_ref()?.value.0,
            canary,
            hosts,
            https,
        })
    }

    /// A policy that the name has instead of its pool's.
    fn own_steering(
        &mut self,
        spec: &At<SteeringSpec>,
        pool: &At<Text>,
    ) -> Option<Arc<SteeringPolicy>> {
        let known = self.pools.get(&pool.0)?;
        let (members, regions) = (known.members.clone(), known.regions.clone());
        let name = At::new(pool.value.0.clone(), pool.span);
        let policy = self.steering(&name, spec, &members, &regions)?;
        Some(Arc::new(policy))
    }

    fn canary(&mut self, spec: &At<DnsCanarySpec>) -> Option<Canary> {
        let DnsCanarySpec {
            span: _,
            broken: _,
            pool,
            share,
        } = &spec.value;
        let (pool, steering) = self.pool(pool.as_ref()?)?;
        Some(Canary {
            pool,
            steering,
            share: Ratio::new(share.as_ref()?.value.0)?,
        })
    }

    fn hosts(
        &mut self,
        table: Option<&At<Table<Text>>>,
        pool: Option<&At<Text>>,
    ) -> Vec<(RegionId, Name)> {
        let mut hosts = Vec::new();
        for entry in table.iter().flat_map(|table| table.value.iter()) {
            let Some(region) = self.region(&entry.name, entry.name.span) else {
                continue;
            };
            let of_pool = pool.and_then(|pool| self.pools.get(&pool.0));
            if of_pool.is_some_and(|pool| !pool.regions.contains_key(&region)) {
                let message = format!("the pool has no region `{}`", entry.name.value);
                self.notes.wrong(entry.name.span, message);
                continue;
            }
            let Some(text) = &entry.value else {
                continue;
            };
            if let Some(host) = self.host_name(text) {
                hosts.push((region, host));
            }
        }
        if let Some(table) = table.filter(|table| table.value.is_empty()) {
            self.notes.wrong(table.span, "no region has a host");
        }
        hosts
    }

    fn service(&mut self, params: &At<Text>) -> Option<Service> {
        Service::parse(&params.0)
            .map_err(|error| {
                self.notes.mistake(
                    Mistake::new(params.span, format!("no parameters of HTTPS: {error}"))
                        .expected("parameters such as `alpn=h2,h3 port=8443`"),
                );
            })
            .ok()
    }

    fn soa(&mut self, spec: &SoaSpec, apex: &Name, records: &[Record]) -> Option<Soa> {
        let SoaSpec {
            span: _,
            broken: _,
            primary,
            mailbox,
            serial,
            refresh,
            retry,
            expire,
            minimum,
            ttl,
        } = spec;
        let primary = match primary {
            Some(primary) => self.soa_name(&absolute(&primary.0), primary.span, apex),
            None => first_name_server(records, apex),
        };
        let mailbox = match mailbox {
            Some(mailbox) => self.soa_name(&mailbox_name(&mailbox.0), mailbox.span, apex),
            None => Name::parse("hostmaster", Some(apex)).ok(),
        };
        let serial = match serial {
            Some(serial) => u32::try_from(serial.value.0).ok()?,
            None => self.files.newest_change().unwrap_or(SERIAL_WITHOUT_DATE),
        };
        Some(Soa {
            ttl: seconds(ttl.as_ref()?),
            primary: primary?,
            mailbox: mailbox?,
            serial,
            refresh: seconds(refresh.as_ref()?),
            retry: seconds(retry.as_ref()?),
            expire: Ttl::from_secs(expire.as_ref()?.value.0),
            minimum: seconds(minimum.as_ref()?),
        })
    }

    fn soa_name(&mut self, text: &str, span: Span, apex: &Name) -> Option<Name> {
        let name = Name::parse(text, Some(apex));
        name.map_err(|error| self.notes.wrong(span, error.to_string()))
            .ok()
    }
}

fn share(at: &At<Share>) -> Option<Ratio> {
    Ratio::new(at.value.0)
}

fn seconds(at: &At<TtlText>) -> Ttl {
    Ttl::from_secs(at.value.0)
}

fn limits_of(spec: &At<DnsLimitsSpec>, answers: Option<Rates>) -> Option<Limits> {
    let DnsLimitsSpec {
        span: _,
        broken: _,
        tcp_connections,
        tcp_idle,
    } = &spec.value;
    Some(Limits {
        tcp_connections: usize::try_from(tcp_connections.as_ref()?.value.0).ok()?,
        tcp_idle: tcp_idle.as_ref()?.value.0,
        answers,
    })
}

/// `Some(None)`: no limit.
fn rates_of(spec: &RrlSpec) -> Option<Option<Rates>> {
    let RrlSpec {
        span: _,
        broken: _,
        answers,
        burst,
        slip,
        exempt,
    } = spec;
    let answers = u32::try_from(answers.as_ref()?.value.0).ok()?;
    let burst = match burst {
        Some(burst) => u32::try_from(burst.value.0).ok()?,
        None => answers,
    };
    let exempt = exempt.as_ref()?.value.iter();
    let rates = Rates {
        per_second: answers,
        burst,
        slip: u32::try_from(slip.as_ref()?.value.0).ok()?,
        exempt: exempt.map(|at| at.value.0).collect(),
    };
    Some((answers > 0).then_some(rates))
}

fn hexadecimal(text: &str) -> Option<[u8; 16]> {
    let digits = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| digits)?;
    Some(number.to_be_bytes())
}

fn filled_soa() -> SoaSpec {
    use super::super::decode::Shape as _;
    let mut spec = SoaSpec::default();
    spec.fill();
    spec
}

/// A host name of several labels is meant as a whole; one label is within the zone.
fn absolute(text: &str) -> String {
    if text.contains('.') && !text.ends_with('.') {
        format!("{text}.")
    } else {
        text.to_owned()
    }
}

/// `first.last@example.com` as a name: the dots before the `@` are escaped (RFC 1035 §8).
fn mailbox_name(text: &str) -> String {
    match text.split_once('@') {
        Some((user, domain)) if !user.is_empty() => {
            absolute(&format!("{}.{domain}", user.replace('.', "\\.")))
        }
        _ => absolute(text),
    }
}

fn first_name_server(records: &[Record], apex: &Name) -> Option<Name> {
    const NS: u16 = 2;
    let first = records
        .iter()
        .find(|record| record.rtype == NS && record.owner == *apex);
    first
        .and_then(Record::target)
        .or_else(|| Name::parse("ns1", Some(apex)).ok())
}

/// Whether the zone's name stands twice at the end.
fn is_doubled(name: &Name, apex: &Name) -> bool {
    let zone = &apex.wire()[..apex.wire().len() - 1];
    let before = name.wire().strip_suffix(apex.wire());
    !zone.is_empty()
        && before.is_some_and(|before| {
            // On a label's border, and not by chance inside a label.
            let doubled = [zone, apex.wire()].concat();
            before.ends_with(zone)
                && Name::from_wire(&doubled).is_some_and(|doubled| name.is_at_or_below(&doubled))
        })
}

/// The name relative to the zone that was probably meant.
fn relative(text: &str, apex: &Name) -> String {
    let zone = apex.to_string();
    let zone = zone.trim_end_matches('.');
    let short = text.to_ascii_lowercase();
    match short.strip_suffix(zone).map(|s| s.trim_end_matches('.')) {
        Some("") | None => "@".to_owned(),
        Some(short) => short.to_owned(),
    }
}

/// A column counted in octets, counted in characters.
fn character_column(line: &str, octet: usize) -> u32 {
    let before = line
        .char_indices()
        .take_while(|(at, _)| *at + 1 < octet)
        .count();
    u32::try_from(before + 1).unwrap_or(u32::MAX)
}
