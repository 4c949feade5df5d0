//! Zones: checked for mistakes, and compiled into a table that answers are copied from.
//!
//! All work is done when rules are loaded; nothing here changes afterwards. Knows nothing of
//! questions: see [`crate::lookup`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use sealane_model::{PoolId, RegionId, Ttl};
use sealane_steering::SteeringPolicy;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::alias::{Alias, Source};
use crate::config;
use crate::dnssec::chain::{Denial, Entry};
use crate::dnssec::seal::{Owner, Sealed, Sealer, key_records};
use crate::dnssec::sign::Signature;
use crate::dnssec::timing::Moment;
use crate::name::{Name, count_labels, parent};
use crate::record::Record;
use crate::service::Service;
use crate::wire::{CLASS_IN, rtype};

/// What [`check`] found in a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The zone must not be served so.
    pub mistakes: Vec<String>,
    /// Lawful, but hardly meant.
    pub warnings: Vec<String>,
}

/// Looks for what a zone must not have, and for what is hardly meant.
#[must_use]
pub fn check(zone: &config::Zone) -> Findings {
    let mut findings = Findings::default();
    let mut types: BTreeMap<&Name, Vec<u16>> = BTreeMap::new();
    for record in &zone.records {
        types.entry(&record.owner).or_default().push(record.rtype);
    }
    check_owners(zone, &mut findings);
    check_neighbours(zone, &types, &mut findings);
    check_steered(zone, &types, &mut findings);
    check_aliases(zone, &types, &mut findings);
    check_delegations(zone, &types, &mut findings);
    check_moved(zone, &types, &mut findings);
    check_servers(zone, &types, &mut findings);
    findings
}

fn check_owners(zone: &config::Zone, findings: &mut Findings) {
    let static_owners = zone.records.iter().map(|record| &record.owner);
    let steered_owners = zone.steered.iter().map(|steered| &steered.owner);
    let alias_owners = zone.aliases.iter().map(|alias| &alias.owner);
    let outside: BTreeSet<_> = static_owners
        .chain(steered_owners)
        .chain(alias_owners)
        .filter(|owner| !owner.is_at_or_below(&zone.apex))
        .collect();
    for owner in outside {
        let text = format!("{owner} lies outside of the zone {}", zone.apex);
        findings.mistakes.push(text);
    }
    if zone.records.iter().any(|record| record.rtype == rtype::SOA) {
        let text = format!("the zone {} has an SOA among its records", zone.apex);
        findings.mistakes.push(text);
    }
}

fn check_neighbours(
    zone: &config::Zone,
    types: &BTreeMap<&Name, Vec<u16>>,
    findings: &mut Findings,
) {
    for (owner, types) in types {
        if !types.contains(&rtype::CNAME) {
            continue;
        }
        if **owner == zone.apex {
            findings.mistakes.push(format!(
                "{owner} is the zone's own name, which has an SOA; a CNAME stands alone"
            ));
        } else if types.len() > 1 {
            findings.mistakes.push(format!(
                "{owner} has a CNAME and other records; a CNAME stands alone"
            ));
        }
    }
}

fn check_steered(zone: &config::Zone, types: &BTreeMap<&Name, Vec<u16>>, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for steered in &zone.steered {
        let owner = &steered.owner;
        if !seen.insert(owner) {
            findings.mistakes.push(format!("{owner} is steered twice"));
        }
        let beside = types.get(owner).map(Vec::as_slice).unwrap_or_default();
        if !steered.hosts.is_empty() && (!beside.is_empty() || *owner == zone.apex) {
            findings.mistakes.push(format!(
                "{owner} is steered by `hosts`, which makes it a CNAME, and has other records; a CNAME stands alone"
            ));
            continue;
        }
        for (kind, word) in [
            (rtype::A, "A"),
            (rtype::AAAA, "AAAA"),
            (rtype::CNAME, "CNAME"),
            (rtype::HTTPS, "HTTPS"),
        ] {
            let has_https = kind == rtype::HTTPS && steered.https.is_none();
            if beside.contains(&kind) && !has_https {
                findings.mistakes.push(format!(
                    "{owner} is steered and has a static {word} record; one must go"
                ));
            }
        }
    }
}

fn check_aliases(zone: &config::Zone, types: &BTreeMap<&Name, Vec<u16>>, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for alias in &zone.aliases {
        let (owner, target) = (&alias.owner, &alias.target);
        if !seen.insert(owner) {
            findings.mistakes.push(format!("{owner} is an alias twice"));
        }
        if owner == target {
            findings
                .mistakes
                .push(format!("{owner} is an alias of itself"));
        }
        if zone.steered.iter().any(|steered| steered.owner == *owner) {
            findings
                .mistakes
                .push(format!("{owner} is steered and an alias; one must go"));
        }
        let beside = types.get(owner).map(Vec::as_slice).unwrap_or_default();
        for (kind, word) in [
            (rtype::A, "A"),
            (rtype::AAAA, "AAAA"),
            (rtype::CNAME, "CNAME"),
        ] {
            if beside.contains(&kind) {
                findings.mistakes.push(format!(
                    "{owner} is an alias and has a static {word} record; one must go"
                ));
            }
        }
        if target.is_at_or_below(&zone.apex) && owner != target {
            findings.warnings.push(format!(
                "{owner} is an alias of a name in its own zone, which is looked up from here, whoever asks: steer it, or give it records"
            ));
        }
    }
}

fn check_delegations(
    zone: &config::Zone,
    types: &BTreeMap<&Name, Vec<u16>>,
    findings: &mut Findings,
) {
    let has_ns = |name: &Name| {
        types
            .get(name)
            .is_some_and(|types| types.contains(&rtype::NS))
    };
    let cut_above = |name: &Name| {
        let mut name = name.clone();
        while name != zone.apex {
            if has_ns(&name) {
                return Some(name);
            }
            name = name.parent()?;
        }
        None
    };
    let steered_owners = zone
        .steered
        .iter()
        .map(|steered| (&steered.owner, "steered"));
    let alias_owners = zone.aliases.iter().map(|alias| (&alias.owner, "an alias"));
    for (owner, what) in steered_owners.chain(alias_owners) {
        if let Some(cut) = cut_above(owner) {
            findings.mistakes.push(format!(
                "{owner} is {what}, but {cut} is delegated to other servers by its NS records"
            ));
        }
    }
    for (owner, types) in types {
        let Some(cut) = cut_above(owner) else {
            continue;
        };
        let allowed = |kind: &u16| {
            let glue = matches!(*kind, rtype::A | rtype::AAAA);
            let at_cut = **owner == cut && matches!(*kind, rtype::NS | rtype::DS);
            glue || at_cut
        };
        if !types.iter().all(allowed) {
            findings.warnings.push(format!(
                "{owner} has records that are never answered: {cut} is delegated by its NS records"
            ));
        }
    }
}

/// RFC 6672 §2.3 and §2.4: what must not stand below, beside, or under a DNAME.
fn check_moved(zone: &config::Zone, types: &BTreeMap<&Name, Vec<u16>>, findings: &mut Findings) {
    let is_moved = |types: &[u16]| types.contains(&rtype::DNAME);
    let moved: Vec<&Name> = types
        .iter()
        .filter(|(_, types)| is_moved(types))
        .map(|(owner, _)| *owner)
        .collect();
    for owner in &moved {
        let of_owner = types.get(owner).map(Vec::as_slice).unwrap_or_default();
        if of_owner.iter().filter(|one| **one == rtype::DNAME).count() > 1 {
            findings
                .mistakes
                .push(format!("{owner} has more than one DNAME"));
        }
        if of_owner.contains(&rtype::NS) && **owner != zone.apex {
            findings.mistakes.push(format!(
                "{owner} has a DNAME and is delegated by its NS records; one must go"
            ));
        }
        if owner.is_wildcard() {
            findings.warnings.push(format!(
                "{owner} has a DNAME, which does nothing at a wildcard (RFC 6672 section 3.3)"
            ));
        }
    }
    let static_owners = types.keys().copied();
    let steered_owners = zone.steered.iter().map(|steered| &steered.owner);
    let alias_owners = zone.aliases.iter().map(|alias| &alias.owner);
    for owner in static_owners.chain(steered_owners).chain(alias_owners) {
        let above = moved
            .iter()
            .find(|moved| **moved != owner && owner.is_at_or_below(moved));
        if let Some(above) = above {
            findings.mistakes.push(format!(
                "{owner} is never answered: {above} has a DNAME, so nothing may stand below it"
            ));
        }
    }
}

fn check_servers(zone: &config::Zone, types: &BTreeMap<&Name, Vec<u16>>, findings: &mut Findings) {
    let apex_types = types.get(&zone.apex);
    if !apex_types.is_some_and(|types| types.contains(&rtype::NS)) {
        findings.warnings.push(format!(
            "the zone {} has no NS record at its own name; some resolvers will not trust it",
            zone.apex
        ));
    }
    for record in &zone.records {
        let Some(target) = record.target().filter(|_| record.rtype == rtype::NS) else {
            continue;
        };
        if !target.is_at_or_below(&zone.apex) {
            continue;
        }
        let steered = zone.steered.iter().any(|steered| steered.owner == target)
            || zone.aliases.iter().any(|alias| alias.owner == target);
        let types = types.get(&target).map(Vec::as_slice).unwrap_or_default();
        if types.contains(&rtype::CNAME) {
            findings.mistakes.push(format!(
                "{}: the name server {target} is a CNAME (RFC 2181 section 10.3 forbids it)",
                record.owner
            ));
        } else if !steered && !types.iter().any(|t| matches!(*t, rtype::A | rtype::AAAA)) {
            findings.warnings.push(format!(
                "{}: the name server {target} has no address in this zone",
                record.owner
            ));
        }
    }
}

/// All zones, found by name.
#[derive(Debug, Default)]
pub struct ZoneTable {
    zones: Vec<Zone>,
    nodes: Vec<Node>,
    by_name: HashMap<Box<[u8]>, u32, BuildHasherDefault<NameHasher>>,
    /// The most labels that a name here has: longer ones need not be looked for.
    deepest: usize,
}

#[derive(Debug)]
pub struct Zone {
    pub apex: Name,
    /// The SOA as negative answers carry it: type, class, TTL, length, data.
    pub negative_soa: Box<[u8]>,
    /// The lesser of the SOA's TTL and its MINIMUM (RFC 2308 §3).
    pub negative_ttl: Ttl,
    /// The zone that the apex would belong to if it were no zone itself, where it is ours.
    pub parent: Option<u32>,
    /// `None`: the zone is not signed.
    pub(crate) sealed: Option<Box<Sealed>>,
    /// Nothing is known of it that could be answered.
    pub(crate) is_void: bool,
}

/// A name that exists, be it only because one below it does (RFC 4592 §2.2.2).
#[derive(Debug)]
pub struct Node {
    pub zone: u32,
    /// Octets of the name's wire form.
    pub name_length: u8,
    pub is_apex: bool,
    sets: Box<[RecordSet]>,
    pub steered: Option<Box<Steered>>,
    pub alias: Option<Box<Alias>>,
    /// The delegation that this name is at or below: its node.
    cut: Option<u32>,
    /// The name at or above this one whose DNAME moves all that is below it: its node.
    moved: Option<u32>,
    /// The name `*` right below this one.
    wildcard: Option<u32>,
    /// For a delegation: addresses of its servers, each with the place of its NS record in the set.
    pub glue: Box<[Glue]>,
}

/// The records of one type at one name.
#[derive(Clone, Debug)]
pub struct RecordSet {
    pub rtype: u16,
    pub count: u16,
    /// Each record with an owner that points to the name in the question (`C0 0C`).
    pub wire: Box<[u8]>,
    /// For a CNAME and a DNAME: where it leads.
    pub target: Option<Name>,
    /// In a signed zone, of a set that the zone is the authority for.
    pub signature: Option<Arc<Signature>>,
}

#[derive(Debug)]
pub struct Glue {
    /// The server's NS record is the one with this number, from 0.
    pub server: u16,
    pub addresses: Box<[RecordSet]>,
}

/// A name whose addresses are chosen for each question. Fields as in [`config::SteeredName`].
#[derive(Debug)]
pub struct Steered {
    pub owner: Name,
    pub pool: PoolId,
    pub policy: Arc<SteeringPolicy>,
    pub ttl: Ttl,
    pub ttl_suspect: Ttl,
    pub alternates: u8,
    pub ignore_client_subnet: bool,
    pub canary: Option<config::Canary>,
    pub hosts: Box<[(RegionId, Name)]>,
    pub https: Option<Service>,
}

impl RecordSet {
    /// A set of one record that leads nowhere, not signed yet.
    pub(crate) fn single(rtype: u16, ttl: Ttl, data: &[u8]) -> Self {
        let mut wire = Vec::new();
        push_record(&mut wire, rtype, ttl, data);
        Self {
            rtype,
            count: 1,
            wire: wire.into(),
            target: None,
            signature: None,
        }
    }

    /// That of all its records.
    #[must_use]
    pub fn ttl(&self) -> Ttl {
        // Owner (a pointer), type and class stand before it.
        let octets = self
            .wire
            .get(6..10)
            .and_then(|octets| octets.try_into().ok());
        Ttl::from_secs(octets.map_or(0, u32::from_be_bytes))
    }
}

impl Node {
    #[must_use]
    pub fn set(&self, rtype: u16) -> Option<&RecordSet> {
        self.sets.iter().find(|set| set.rtype == rtype)
    }

    pub(crate) const fn sets(&self) -> &[RecordSet] {
        &self.sets
    }

    /// The types at this name as the chain states them.
    pub(crate) fn types(&self) -> Vec<u16> {
        let mut types: Vec<u16> = self.sets.iter().map(|set| set.rtype).collect();
        if let Some(steered) = &self.steered {
            types.extend_from_slice(steered.types());
        }
        if self.alias.is_some() {
            types.extend_from_slice(ALIAS_TYPES);
        }
        types
    }

    /// A set that has a signature, if any has.
    pub(crate) fn first_signed(&self) -> Option<&RecordSet> {
        self.sets.iter().find(|set| set.signature.is_some())
    }

    /// Exists only because a name below it does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.steered.is_none() && self.alias.is_none()
    }
}

impl ZoneTable {
    /// Compiles zones that [`check`] found no mistakes in; where there are some, what stands first
    /// counts, and what lies outside of its zone is never found.
    ///
    /// Zones that are signed are signed as of `now`. What `before` has signed alike is taken over.
    #[must_use]
    pub fn compile(zones: &[config::Zone], now: Moment, before: Option<&Self>) -> Self {
        let of_keys: Vec<_> = zones.iter().map(|zone| key_records(zone, now)).collect();
        Builder::new(zones, &of_keys).build(now, before)
    }

    /// Zones that are signed.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = (&Zone, &Sealed)> {
        let zones = self.zones.iter();
        zones.filter_map(|zone| Some((zone, zone.sealed.as_deref()?)))
    }

    /// Steered names, each with its zone.
    pub(crate) fn steered(&self) -> impl Iterator<Item = (&Zone, &Steered)> {
        let nodes = self.nodes.iter();
        nodes.filter_map(|node| Some((self.zone(node.zone)?, node.steered.as_deref()?)))
    }

    /// Names that have other names' addresses, each with its zone.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = (&Zone, &Alias)> {
        let nodes = self.nodes.iter();
        nodes.filter_map(|node| Some((self.zone(node.zone)?, node.alias.as_deref()?)))
    }

    /// Every name with what is there, in no order.
    pub(crate) fn named_nodes(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        let names = self.by_name.iter();
        names.filter_map(|(name, index)| Some((&name[..], self.node(*index)?)))
    }

    pub(crate) fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(index as usize)
    }

    pub(crate) fn node_named(&self, wire: &[u8]) -> Option<&Node> {
        self.node(*self.by_name.get(wire)?)
    }

    #[must_use]
    pub fn zone(&self, index: u32) -> Option<&Zone> {
        self.zones.get(index as usize)
    }

    pub(crate) fn cut(&self, node: &Node) -> Option<&Node> {
        self.node(node.cut?)
    }

    pub(crate) fn moved(&self, node: &Node) -> Option<&Node> {
        self.node(node.moved?)
    }

    pub(crate) fn wildcard(&self, node: &Node) -> Option<&Node> {
        self.node(node.wildcard?)
    }

    pub(crate) const fn deepest(&self) -> usize {
        self.deepest
    }

    /// What is known of this other name, if anything here is an alias of it.
    #[must_use]
    pub fn source(&self, target: &Name) -> Option<Arc<Source>> {
        self.sources().remove(target)
    }

    /// What is known of other names, by name.
    fn sources(&self) -> HashMap<Name, Arc<Source>> {
        let aliases = self.aliases().map(|(_, alias)| &alias.source);
        let by_name = aliases.map(|source| (source.target.clone(), Arc::clone(source)));
        by_name.collect()
    }

    fn sealed_at(&self, apex: &Name) -> Option<&Sealed> {
        let node = self.node_named(apex.wire()).filter(|node| node.is_apex)?;
        self.zone(node.zone)?.sealed.as_deref()
    }

    /// How many names exist, those without data included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// xxh3 on whole names. Collisions could be sought out only by whoever writes the zones.
#[derive(Debug, Default)]
pub struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        self.0 = xxh3_64_with_seed(octets, self.0);
    }

    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }
}

/// What is gathered about one name.
#[derive(Default)]
struct Draft<'c> {
    zone: u32,
    records: Vec<&'c Record>,
    soa: Option<RecordSet>,
    steered: Option<&'c config::SteeredName>,
    alias: Option<&'c config::AliasName>,
}

struct Builder<'c> {
    zones: &'c [config::Zone],
    /// The records that keys add, by zone.
    of_keys: &'c [Vec<Record>],
    apexes: HashMap<&'c [u8], u32>,
    drafts: BTreeMap<Vec<u8>, Draft<'c>>,
    /// What zones say of zones right below them that are served here, too: by the parent's number and
    /// the child's name.
    cuts: BTreeMap<(u32, &'c Name), Vec<&'c Record>>,
}

impl<'c> Builder<'c> {
    fn new(zones: &'c [config::Zone], of_keys: &'c [Vec<Record>]) -> Self {
        let numbered = (0_u32..).zip(zones);
        Self {
            zones,
            of_keys,
            apexes: numbered.map(|(i, zone)| (zone.apex.wire(), i)).collect(),
            drafts: BTreeMap::new(),
            cuts: BTreeMap::new(),
        }
    }

    fn build(mut self, now: Moment, before: Option<&ZoneTable>) -> ZoneTable {
        self.find_cuts();
        for (index, zone) in (0_u32..).zip(self.zones) {
            if let Some(draft) = self.draft(&zone.apex, index) {
                let data = soa_data(&zone.soa);
                draft.soa = Some(RecordSet::single(rtype::SOA, zone.soa.ttl, &data));
            }
            let of_keys = self.of_keys.get(index as usize).into_iter().flatten();
            for record in zone.records.iter().chain(of_keys) {
                if let Some(draft) = self.draft(&record.owner, index) {
                    draft.records.push(record);
                }
            }
            for steered in &zone.steered {
                if let Some(draft) = self.draft(&steered.owner, index) {
                    draft.steered.get_or_insert(steered);
                }
            }
            for alias in &zone.aliases {
                if let Some(draft) = self.draft(&alias.owner, index) {
                    draft.alias.get_or_insert(alias);
                }
            }
        }
        let (mut nodes, mut table) = self.finish(before);
        for index in 0..table.zones.len() {
            let sealed = self.seal(index, &mut nodes, now, before);
            table.zones[index].sealed = sealed.map(Box::new);
        }
        table.nodes = nodes;
        table
    }

    /// Zones whose parent is served here, too, are cuts of it even where it says nothing of them.
    fn find_cuts(&mut self) {
        let zones = self.zones;
        for zone in zones {
            let above = parent(zone.apex.wire()).and_then(|above| self.zone_of(above));
            let Some((number, above)) =
                above.and_then(|number| Some((number, zones.get(number as usize)?)))
            else {
                continue;
            };
            let said = above.records.iter().filter(|record| {
                record.owner == zone.apex && matches!(record.rtype, rtype::NS | rtype::DS)
            });
            self.cuts.insert((number, &zone.apex), said.collect());
        }
    }

    /// The draft of `owner`, made with all names between it and the apex. `None` when the name
    /// belongs to another zone: a child of `zone` that is served here, too, has its own data.
    fn draft(&mut self, owner: &Name, zone: u32) -> Option<&mut Draft<'c>> {
        if self.zone_of(owner.wire())? != zone {
            return None;
        }
        let apex = self.zones.get(zone as usize)?.apex.wire();
        let mut wire = owner.wire();
        while wire.len() > apex.len() {
            self.drafts.entry(wire.to_vec()).or_default().zone = zone;
            wire = parent(wire)?;
        }
        self.drafts.entry(apex.to_vec()).or_default().zone = zone;
        self.drafts.get_mut(owner.wire())
    }

    /// The zone with the longest apex that `wire` is at or below.
    fn zone_of(&self, mut wire: &[u8]) -> Option<u32> {
        loop {
            if let Some(zone) = self.apexes.get(wire) {
                return Some(*zone);
            }
            wire = parent(wire)?;
        }
    }

    /// All nodes, and the table without them.
    fn finish(&self, before: Option<&ZoneTable>) -> (Vec<Node>, ZoneTable) {
        let mut sources = before.map(ZoneTable::sources).unwrap_or_default();
        let numbers: HashMap<&[u8], u32> =
            self.drafts.keys().map(Vec::as_slice).zip(0_u32..).collect();
        let mut nodes = Vec::with_capacity(self.drafts.len());
        for (wire, draft) in &self.drafts {
            let mut node = self.node(wire, draft, &numbers);
            node.alias = draft.alias.map(|alias| {
                let source = sources.entry(alias.target.clone());
                let source = source.or_insert_with_key(|name| Arc::new(Source::new(name.clone())));
                Box::new(Alias::new(alias, source))
            });
            nodes.push(node);
        }
        let zones = self.zones.iter().map(|zone| self.zone(zone)).collect();
        let deepest = self.drafts.keys().map(|wire| count_labels(wire)).max();
        let table = ZoneTable {
            zones,
            nodes: Vec::new(),
            by_name: numbers
                .iter()
                .map(|(wire, i)| (Box::from(*wire), *i))
                .collect(),
            deepest: deepest.unwrap_or(0).into(),
        };
        (nodes, table)
    }

    /// Signs a zone: each set that it is the authority for, and the chain of its names.
    fn seal(
        &self,
        index: usize,
        nodes: &mut [Node],
        now: Moment,
        before: Option<&ZoneTable>,
    ) -> Option<Sealed> {
        let zone = self.zones.get(index)?;
        let number = u32::try_from(index).ok()?;
        let was = before.and_then(|before| before.sealed_at(&zone.apex));
        let names = zone.steered.len() + zone.aliases.len();
        let mut sealer = Sealer::new(zone, names, now, was)?;
        let mut entries = Vec::new();
        let mut soa = None;
        let own = self.drafts.iter().zip(&mut *nodes).zip(0_u32..);
        for (((wire, _), node), place) in own.filter(|((_, node), _)| node.zone == number) {
            let is_cut = node.cut == Some(place);
            if node.cut.is_some() && !is_cut {
                continue;
            }
            let earlier = before.and_then(|before| before.node_named(wire));
            for set in node.sets.iter_mut() {
                // Of a delegation, the parent answers only for its DS (RFC 4035 §2.2).
                if is_cut && set.rtype != rtype::DS {
                    continue;
                }
                let was = earlier.and_then(|node| node.set(set.rtype));
                set.signature = sealer.signature(wire, set, was);
            }
            if node.is_apex {
                soa = node.set(rtype::SOA).and_then(|set| set.signature.clone());
            }
            entries.extend(entry(wire, node, is_cut, zone));
        }
        entries.extend(self.cut_entries(number));
        sealer.chain(entries, zone.soa.ttl.min(zone.soa.minimum));
        Some(sealer.finish(soa))
    }

    /// Zones right below this one that are served here, too.
    fn cut_entries(&self, number: u32) -> impl Iterator<Item = Entry> {
        let cuts = self
            .cuts
            .iter()
            .filter(move |((above, _), _)| *above == number);
        cuts.map(|((_, child), said)| {
            let mut sets = record_sets(said);
            let ds = sets.iter().position(|set| set.rtype == rtype::DS);
            let ds = ds.map(|place| sets.swap_remove(place));
            let mut types = vec![rtype::NS];
            types.extend(ds.iter().map(|_| rtype::DS));
            Entry {
                owner: (*child).clone(),
                types,
                at_times: &[],
                ds,
            }
        })
    }

    fn zone(&self, zone: &config::Zone) -> Zone {
        let negative_ttl = zone.soa.ttl.min(zone.soa.minimum);
        let mut negative_soa = Vec::new();
        let data = soa_data(&zone.soa);
        push_record(&mut negative_soa, rtype::SOA, negative_ttl, &data);
        Zone {
            apex: zone.apex.clone(),
            // Without the owner, which is another one in each answer.
            negative_soa: negative_soa.split_off(2).into(),
            negative_ttl,
            parent: parent(zone.apex.wire()).and_then(|above| self.zone_of(above)),
            sealed: None,
            is_void: zone.is_void,
        }
    }

    fn node(&self, wire: &[u8], draft: &Draft<'_>, numbers: &HashMap<&[u8], u32>) -> Node {
        let mut sets = record_sets(&draft.records);
        sets.extend(draft.soa.clone());
        // Of a delegation and a DNAME the higher one is met first on the way down.
        let moved = self.moved(wire, draft.zone);
        let cut = self.cut(wire, draft.zone);
        let cut = cut.filter(|cut| moved.is_none_or(|moved| cut.len() <= moved.len()));
        let is_cut = cut == Some(wire);
        let glue = if is_cut {
            self.glue(draft)
        } else {
            Box::default()
        };
        Node {
            zone: draft.zone,
            name_length: u8::try_from(wire.len()).unwrap_or(u8::MAX),
            is_apex: self.is_apex(wire, draft.zone),
            sets: sets.into(),
            steered: draft.steered.map(|steered| Box::new(Steered::new(steered))),
            alias: None,
            cut: cut.and_then(|cut| numbers.get(cut).copied()),
            moved: moved.and_then(|moved| numbers.get(moved).copied()),
            wildcard: numbers.get([b"\x01*", wire].concat().as_slice()).copied(),
            glue,
        }
    }

    fn is_apex(&self, wire: &[u8], zone: u32) -> bool {
        self.apexes.get(wire) == Some(&zone)
    }

    /// The highest name between `wire` and its apex (that one excluded) that has NS records.
    fn cut<'w>(&self, wire: &'w [u8], zone: u32) -> Option<&'w [u8]> {
        let delegates = |wire: &&[u8]| !self.is_apex(wire, zone) && self.has(wire, rtype::NS);
        self.up_to_apex(wire, zone).filter(delegates).last()
    }

    /// The highest name between `wire` and its apex (that one included) that has a DNAME.
    fn moved<'w>(&self, wire: &'w [u8], zone: u32) -> Option<&'w [u8]> {
        // At a wildcard it is just data (RFC 6672 §3.3).
        let moves = |wire: &&[u8]| !wire.starts_with(b"\x01*") && self.has(wire, rtype::DNAME);
        self.up_to_apex(wire, zone).filter(moves).last()
    }

    fn up_to_apex<'w>(&self, wire: &'w [u8], zone: u32) -> impl Iterator<Item = &'w [u8]> {
        std::iter::successors(Some(wire), move |wire| {
            let is_below = !self.is_apex(wire, zone);
            is_below.then(|| parent(wire)).flatten()
        })
    }

    fn has(&self, wire: &[u8], rtype: u16) -> bool {
        let draft = self.drafts.get(wire);
        draft.is_some_and(|draft| draft.records.iter().any(|record| record.rtype == rtype))
    }

    /// The addresses that we have for the servers of a delegation, theirs or not (RFC 9471).
    fn glue(&self, draft: &Draft<'_>) -> Box<[Glue]> {
        let servers = unique(&draft.records, rtype::NS);
        let mut glue = Vec::new();
        for (number, server) in (0_u16..).zip(&servers) {
            let target = server.target();
            let Some(of_server) = target.and_then(|name| self.drafts.get(name.wire())) else {
                continue;
            };
            let mut addresses = record_sets(&of_server.records);
            addresses.retain(|set| matches!(set.rtype, rtype::A | rtype::AAAA));
            if !addresses.is_empty() {
                glue.push(Glue {
                    server: number,
                    addresses: addresses.into(),
                });
            }
        }
        glue.into()
    }
}

/// What an alias is answered with; each of them may be absent for now.
const ALIAS_TYPES: &[u16] = &[rtype::A, rtype::AAAA];

impl Steered {
    /// As its sets are signed: by the largest TTL, which holds for lower ones (RFC 4035 §5.3.3).
    pub(crate) fn owner(&self) -> Owner<'_> {
        Owner {
            name: self.owner.wire(),
            ttl: self.ttl.max(self.ttl_suspect),
        }
    }

    /// What it is answered with; each of them may be absent for now.
    pub(crate) const fn types(&self) -> &'static [u16] {
        if !self.hosts.is_empty() {
            &[rtype::CNAME]
        } else if self.https.is_some() {
            &[rtype::A, rtype::AAAA, rtype::HTTPS]
        } else {
            &[rtype::A, rtype::AAAA]
        }
    }

    pub(crate) fn new(steered: &config::SteeredName) -> Self {
        Self {
            owner: steered.owner.clone(),
            pool: steered.pool,
            policy: steered.steering.clone(),
            ttl: steered.ttl,
            ttl_suspect: steered.ttl_suspect,
            alternates: steered.alternates,
            ignore_client_subnet: steered.ignore_client_subnet,
            canary: steered.canary.clone(),
            hosts: steered.hosts.as_slice().into(),
            https: steered.https.clone(),
        }
    }
}

/// What the chain says of a name. `None` for one that exists only because of others, unless compact
/// denial has a record for it, too.
fn entry(wire: &[u8], node: &Node, is_cut: bool, zone: &config::Zone) -> Option<Entry> {
    let is_compact = zone
        .dnssec
        .as_ref()
        .is_some_and(|d| d.denial == Denial::Compact);
    if node.is_empty() && !is_compact {
        return None;
    }
    let mut types = node.types();
    if is_cut {
        types.retain(|kind| matches!(*kind, rtype::NS | rtype::DS));
    }
    let steered = node.steered.as_ref();
    let at_times = match steered {
        Some(steered) => steered.types(),
        None if node.alias.is_some() => ALIAS_TYPES,
        None => &[],
    };
    Some(Entry {
        owner: Name::from_wire(wire)?,
        types,
        at_times,
        ds: None,
    })
}

/// The records of one type, each once: duplicates have no meaning (RFC 2181 §5).
fn unique<'c>(records: &[&'c Record], rtype: u16) -> Vec<&'c Record> {
    let mut seen = BTreeSet::new();
    let of_type = records.iter().filter(|record| record.rtype == rtype);
    of_type
        .filter(|record| seen.insert(&record.data))
        .copied()
        .collect()
}

fn record_sets(records: &[&Record]) -> Vec<RecordSet> {
    let types: BTreeSet<u16> = records.iter().map(|record| record.rtype).collect();
    let mut sets = Vec::new();
    for rtype in types {
        let mut members = unique(records, rtype);
        let leads = matches!(rtype, rtype::CNAME | rtype::DNAME);
        if leads {
            members.truncate(1);
        }
        // A set has one TTL (RFC 2181 §5.2); the least is true of all.
        let ttl = members.iter().map(|record| record.ttl).min();
        let mut wire = Vec::new();
        for record in &members {
            push_record(
                &mut wire,
                rtype,
                ttl.unwrap_or(Ttl::from_secs(0)),
                &record.data,
            );
        }
        sets.push(RecordSet {
            rtype,
            count: u16::try_from(members.len()).unwrap_or(u16::MAX),
            wire: wire.into(),
            target: members.first().filter(|_| leads).and_then(|r| r.target()),
            signature: None,
        });
    }
    sets
}

/// Appends a record whose owner points to the name in the question.
pub(crate) fn push_record(wire: &mut Vec<u8>, rtype: u16, ttl: Ttl, data: &[u8]) {
    // `Record::new` keeps data below 65,536 octets; what signing makes is shorter.
    let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
    wire.extend_from_slice(&[0xc0, 0x0c]);
    wire.extend_from_slice(&rtype.to_be_bytes());
    wire.extend_from_slice(&CLASS_IN.to_be_bytes());
    wire.extend_from_slice(&ttl.as_secs().to_be_bytes());
    wire.extend_from_slice(&length.to_be_bytes());
    wire.extend_from_slice(data);
}

fn soa_data(soa: &config::Soa) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend_from_slice(soa.primary.wire());
    data.extend_from_slice(soa.mailbox.wire());
    data.extend_from_slice(&soa.serial.to_be_bytes());
    for seconds in [soa.refresh, soa.retry, soa.expire, soa.minimum] {
        data.extend_from_slice(&seconds.as_secs().to_be_bytes());
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::parse_zone_file;

    fn zone(records: &str) -> config::Zone {
        let apex = Name::parse("example.test", None).unwrap();
        let text = format!("@ 60 SOA ns1 host 1 2 3 4 5\n{records}");
        let file = parse_zone_file(&text, &apex, Ttl::from_secs(60)).unwrap();
        config::Zone::new(apex, file.soa.unwrap(), file.records)
    }

    fn steered(zone: &mut config::Zone, owner: &str) {
        zone.steered.push(config::SteeredName::new(
            Name::parse(owner, Some(&zone.apex)).unwrap(),
            PoolId::from_index(0).unwrap(),
            Arc::new(SteeringPolicy::Nearest),
        ));
    }

    #[test]
    fn a_sound_zone_has_no_findings() {
        let mut zone =
            zone("@ NS ns1\nns1 A 192.0.2.53\nsub NS ns.sub\nns.sub A 192.0.2.54\nx TXT \"y\"");
        steered(&mut zone, "api");
        steered(&mut zone, "x");
        assert_eq!(check(&zone), Findings::default());
    }

    #[test]
    fn what_a_zone_must_not_have_is_found() {
        let mut zone = zone(
            "api A 192.0.2.1\nsub NS ns.elsewhere.\nsub TXT \"x\"\n@ NS alias\nalias CNAME x.\n@ NS ns9",
        );
        for owner in ["api", "a.sub", "api", "elsewhere."] {
            steered(&mut zone, owner);
        }
        let findings = check(&zone);
        let all = findings.mistakes.join("\n");

        for part in [
            "api.example.test is steered and has a static A record",
            "a.sub.example.test is steered, but sub.example.test is delegated",
            "api.example.test is steered twice",
            "elsewhere lies outside",
            "the name server alias.example.test is a CNAME",
        ] {
            assert!(all.contains(part), "{part}\n{all}");
        }
        let all = findings.warnings.join("\n");
        for part in [
            "sub.example.test has records that are never",
            "ns9.example.test has no address",
        ] {
            assert!(all.contains(part), "{part}\n{all}");
        }
    }

    #[test]
    fn nothing_may_stand_below_a_dname() {
        let mut zone = zone(
            "@ NS ns.elsewhere.\nold DNAME new.\nx.old A 192.0.2.1\nold DNAME other.\nold TXT \"x\"\n\
             cut NS ns.elsewhere.\ncut DNAME new.\n*.w DNAME new.\nbelow.new A 192.0.2.1",
        );
        steered(&mut zone, "api.old");
        let findings = check(&zone);
        let all = findings.mistakes.join("\n");

        for part in [
            "x.old.example.test is never answered: old.example.test has a DNAME",
            "api.old.example.test is never answered",
            "old.example.test has more than one DNAME",
            "cut.example.test has a DNAME and is delegated",
        ] {
            assert!(all.contains(part), "{part}\n{all}");
        }
        assert_eq!((findings.mistakes.len(), findings.warnings.len()), (4, 2));
        assert!(
            findings.warnings[1].contains("at a wildcard"),
            "{findings:?}"
        );
    }

    #[test]
    fn a_zone_without_name_servers_is_warned_of() {
        assert_eq!(check(&zone("")).warnings.len(), 1);
    }

    #[test]
    fn names_in_between_exist_and_duplicates_do_not() {
        let zone = zone("a.b A 192.0.2.1\na.b 30 A 192.0.2.1\na.b 20 A 192.0.2.2\n*.w A 192.0.2.3");
        let table = ZoneTable::compile(&[zone], Moment(0), None);
        let node = |name: &str| table.node_named(Name::parse(name, None).unwrap().wire());

        assert!(node("b.example.test").unwrap().is_empty());
        assert!(node("test").is_none());
        let set = node("a.b.example.test").unwrap().set(rtype::A).unwrap();
        assert_eq!((set.count, &set.wire[6..10]), (2, &[0, 0, 0, 20][..]));
        assert!(table.wildcard(node("w.example.test").unwrap()).is_some());
        assert_eq!((table.len(), table.deepest()), (5, 4));
    }
}
