//! Signed zones: where their keys are, what they are, and how long a roll-over waits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sealane_dns::config::{Dnssec, Zone};
use sealane_dns::dnssec::chain::Denial;
use sealane_dns::dnssec::key::{Key, Role, file_prefix};
use sealane_dns::dnssec::key_file;
use sealane_dns::dnssec::timing::Delays;
use sealane_dns::name::Name;
use sealane_model::Ttl;

use super::super::decode::At;
use super::super::error::Mistake;
use super::super::files::{Files, PEM_BYTES_MAX};
use super::super::spec::{
    DenialWord, DnssecSpec, FileSpec, RollAfterSpec, ZoneDnssecSpec, ZoneSpec,
};
use super::{KEY_FOLDER, Parser};
use crate::dnssec::KeyPolicy;

impl Parser<'_> {
    /// The zone with its keys, if it is to be signed. `None` after a mistake.
    pub(super) fn signed(
        &mut self,
        mut zone: Zone,
        spec: &At<ZoneSpec>,
        common: Option<&At<DnssecSpec>>,
    ) -> Option<Zone> {
        let Some(dnssec) = &spec.value.dnssec else {
            return Some(zone);
        };
        let common = common?;
        let Some(dir) = self.key_dir.clone() else {
            self.notes.mistake(
                Mistake::new(dnssec.span, "nothing says where the keys of signed zones are")
                    .expected("`dns: { dnssec: { key_dir: DIRECTORY } }`, or `node: { state_dir: DIRECTORY }`"),
            );
            return None;
        };
        let policy = policy(&dnssec.value, &common.value, zone.apex.clone(), dir)?;
        self.check_ttls(&zone, dnssec)?;
        let keys = self.keys(&policy, dnssec)?;
        zone.dnssec = Some(Arc::new(Dnssec {
            keys,
            key_ttl: Ttl::from_secs(dnssec.value.key_ttl.as_ref()?.value.0),
            validity: Duration::from_secs(dnssec.value.validity.as_ref()?.value.0.into()),
            denial: match dnssec.value.denial.as_ref()?.value {
                DenialWord::Nsec => Denial::Nsec,
                DenialWord::Compact => Denial::Compact,
            },
            signatures_per_second: {
                let most = common.value.signatures_per_second.as_ref()?;
                u32::try_from(most.value.0).ok()?
            },
        }));
        self.key_policies.push(policy);
        Some(zone)
    }

    /// A roll-over waits for the longest TTL, and a signature outlives every answer that carries it.
    fn check_ttls(&mut self, zone: &Zone, spec: &At<ZoneDnssecSpec>) -> Option<()> {
        let longest = spec.value.longest_ttl.as_ref()?;
        let static_ttls = zone
            .records
            .iter()
            .map(|record| (&record.owner, record.ttl));
        let steered = zone.steered.iter().map(|name| (&name.owner, name.ttl));
        let aliases = zone.aliases.iter().map(|alias| (&alias.owner, alias.ttl));
        let apex = std::iter::once((&zone.apex, zone.soa.ttl));
        let worst = static_ttls
            .chain(steered)
            .chain(aliases)
            .chain(apex)
            .max_by_key(|(_, ttl)| *ttl);
        if let Some((owner, ttl)) = worst
            && ttl.as_secs() > longest.value.0
        {
            let message = format!(
                "{owner} has a TTL of {}s, and `longest_ttl` is {}s",
                ttl.as_secs(),
                longest.value.0
            );
            self.notes.wrong(longest.span.or(spec.span), message);
        }
        let validity = spec.value.validity.as_ref()?;
        if longest.value.0 > validity.value.0 / 3 {
            self.notes.mistake(
                Mistake::new(
                    validity.span.or(spec.span),
                    "`longest_ttl` is more than a third of `validity`",
                )
                .help("a signature that a resolver remembers must not end before the answer does"),
            );
        }
        Some(())
    }

    fn keys(&mut self, policy: &KeyPolicy, spec: &At<ZoneDnssecSpec>) -> Option<Vec<Arc<Key>>> {
        let zone = &policy.zone;
        let mut keys = Vec::new();
        let before = self.notes.count();
        for public in self.files.folder(&policy.dir, &file_prefix(zone), "key") {
            match self.key(&public, zone) {
                Ok(key) => keys.push(Arc::new(key)),
                Err(message) => self.notes.wrong(spec.span, message),
            }
        }
        if self.notes.count() > before {
            return None;
        }
        let has_entry = keys.iter().any(|key| key.role() == Role::Entry);
        if !has_entry {
            let dir = policy.dir.display();
            self.notes.mistake(
                Mistake::new(
                    spec.span,
                    format!("there is no key for {zone} in {dir} that a DS could point to"),
                )
                .help(format!("`sealane dnssec keygen {zone}` makes one")),
            );
            return None;
        }
        Some(keys)
    }

    fn key(&mut self, public: &Path, zone: &Name) -> Result<Key, String> {
        let private = public.with_extension("private");
        let public_text = self.files.text(public, PEM_BYTES_MAX)?;
        let private_text = self.files.text(&private, PEM_BYTES_MAX)?;
        let key = key_file::parse(&public_text, &private_text)
            .map_err(|error| format!("{}: {error}", public.display()))?;
        if key.zone() != zone {
            let of = key.zone();
            return Err(format!(
                "{} is a key of {of}, not of {zone}",
                public.display()
            ));
        }
        Ok(key)
    }
}

/// How the keys of a file's signed zones are kept.
pub(in crate::config) fn key_policies(spec: &FileSpec, files: &Files) -> Vec<KeyPolicy> {
    let dns = spec.dns.as_ref().map(|dns| &dns.value);
    let common = dns.and_then(|dns| dns.dnssec.as_ref());
    let (Some(common), Some(dir)) = (common, key_dir(spec, files)) else {
        return Vec::new();
    };
    let zones = dns.and_then(|dns| dns.zones.as_ref());
    let zones = zones.iter().flat_map(|zones| zones.value.iter());
    let policies = zones.filter_map(|entry| {
        let apex = Name::parse(&entry.name, None).ok()?;
        let dnssec = entry.value.as_ref()?.value.dnssec.as_ref()?;
        policy(&dnssec.value, &common.value, apex, dir.clone())
    });
    policies.collect()
}

/// Where the keys of signed zones are.
pub(super) fn key_dir(spec: &FileSpec, files: &Files) -> Option<PathBuf> {
    let (dns, node) = (spec.dns.as_ref(), spec.node.as_ref());
    let common = dns.and_then(|dns| dns.value.dnssec.as_ref());
    let own = common.and_then(|common| common.value.key_dir.as_ref());
    let state_dir = node.and_then(|node| node.value.state_dir.as_ref());
    let in_state_dir = || Some(files.resolve(&state_dir?.0).join(KEY_FOLDER));
    own.map(|dir| files.resolve(&dir.0)).or_else(in_state_dir)
}

/// How the keys of a zone are kept of which no file speaks yet.
pub(in crate::config) fn default_key_policy(zone: Name, dir: PathBuf) -> Option<KeyPolicy> {
    use super::super::decode::Shape as _;
    let (mut spec, mut common) = (ZoneDnssecSpec::default(), DnssecSpec::default());
    spec.fill();
    common.fill();
    policy(&spec, &common, zone, dir)
}

fn policy(
    spec: &ZoneDnssecSpec,
    common: &DnssecSpec,
    zone: Name,
    dir: PathBuf,
) -> Option<KeyPolicy> {
    let ZoneDnssecSpec {
        span: _,
        broken: _,
        denial: _,
        validity: _,
        key_ttl,
        ds_ttl,
        longest_ttl,
        roll_after,
    } = spec;
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let (zsk, ksk) = match roll_after.as_ref().map(|roll| &roll.value) {
        Some(RollAfterSpec { zsk, ksk, .. }) => (zsk.as_ref(), ksk.as_ref()),
        None => (None, None),
    };
    Some(KeyPolicy {
        zone,
        dir,
        delays: Delays {
            key_ttl: seconds(key_ttl.as_ref()?.value.0),
            zone_ttl: seconds(longest_ttl.as_ref()?.value.0),
            ds_ttl: seconds(ds_ttl.as_ref()?.value.0),
            propagation: seconds(common.propagation.as_ref()?.value.0),
        },
        roll_zone_keys: zsk.map(|after| seconds(after.value.0)),
        roll_entry_keys: ksk.map(|after| seconds(after.value.0)),
    })
}
