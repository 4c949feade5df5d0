//! `sealane dnssec`: what operators do with the keys of signed zones. Works on the key folder alone, so
//! it needs no running Sealane; a running one notices.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use sealane_dns::dnssec::key::{Algorithm, Key, Role};
use sealane_dns::dnssec::key_file::ds_text;
use sealane_dns::dnssec::timing::{Moment, State, duties, state};
use sealane_dns::name::Name;

use super::{KeyPolicy, Keys};
use crate::config;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// The configuration: where keys are, and how long a roll-over waits.
    #[arg(
        long,
        short,
        global = true,
        default_value = "/etc/sealane/sealane.yaml",
        env = "SEALANE_CONFIG"
    )]
    config: PathBuf,
    /// The folder of the keys, where there is no configuration yet.
    #[arg(long, global = true, value_name = "DIR")]
    key_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a zone's first key, or one of another kind, in use at once.
    Keygen {
        zone: String,
        #[arg(long, value_enum, default_value_t)]
        algorithm: AlgorithmWord,
        #[arg(long, value_enum, default_value_t)]
        role: RoleWord,
    },
    /// A zone's keys, what they do, and what comes next.
    List { zone: String },
    /// The DS records that a zone's parent should have.
    Ds { zone: String },
    /// Begin to replace a key by a new one.
    Roll {
        zone: String,
        /// Which one: `ksk` is also the key that signs everything.
        #[arg(long, value_enum, default_value_t)]
        role: RoleWord,
    },
    /// The parent gives the new key's DS now, and no more that of the old one.
    DsSeen { zone: String },
    /// Take a key out whose work others do.
    Retire {
        zone: String,
        /// Its tag, as `list` shows it.
        tag: u16,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum AlgorithmWord {
    /// 13, ECDSAP256SHA256: every resolver knows it.
    #[default]
    EcdsaP256,
    /// 15, ED25519.
    Ed25519,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum RoleWord {
    /// Signs everything; the DS points to it.
    #[default]
    Csk,
    /// Signs the zone's keys; the DS points to it.
    Ksk,
    /// Signs all but the zone's keys.
    Zsk,
}

impl RoleWord {
    const fn role(self) -> Role {
        match self {
            Self::Csk | Self::Ksk => Role::Entry,
            Self::Zsk => Role::Zone,
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let now = sealane_dns::now();
    let said = match &args.verb {
        Verb::Keygen {
            zone,
            algorithm,
            role,
        } => keygen(&policy(args, zone)?, *algorithm, *role, now)?,
        Verb::List { zone } => list(&Keys::read(&policy(args, zone)?)?, now),
        Verb::Ds { zone } => ds(&Keys::read(&policy(args, zone)?)?, now)?,
        Verb::Roll { zone, role } => roll(&policy(args, zone)?, role.role(), now)?,
        Verb::DsSeen { zone } => ds_seen(&policy(args, zone)?, now)?,
        Verb::Retire { zone, tag } => {
            let policy = policy(args, zone)?;
            let mut keys = Keys::read(&policy)?;
            let key = keys.retire(*tag, now)?;
            format!("; {} signs no more\n{}", key.file_stem(), leaves(key))
        }
    };
    print!("{said}");
    Ok(ExitCode::SUCCESS)
}

fn policy(args: &Args, zone: &str) -> anyhow::Result<KeyPolicy> {
    let zone = Name::parse(zone, None).context("this is no zone's name")?;
    if let Some(dir) = &args.key_dir
        && !args.config.exists()
    {
        return plain_policy(zone, dir.clone());
    }
    let env = |name: &str| std::env::var(name).ok();
    let policies = config::key_policies(&args.config, &env);
    let policies = policies.map_err(|report| anyhow::anyhow!("{report}"))?;
    let found = policies.into_iter().find(|policy| policy.zone == zone);
    match (found, &args.key_dir) {
        (Some(policy), None) => Ok(policy),
        (Some(policy), Some(dir)) => Ok(KeyPolicy {
            dir: dir.clone(),
            ..policy
        }),
        (None, Some(dir)) => plain_policy(zone, dir.clone()),
        (None, None) => {
            let file = args.config.display();
            bail!(
                "{file} has no zone {zone} with `dnssec` and a place for its keys; give `--key-dir` to make some before"
            )
        }
    }
}

fn plain_policy(zone: Name, dir: PathBuf) -> anyhow::Result<KeyPolicy> {
    let policy = config::default_key_policy(zone, dir);
    policy.context("the configuration has no defaults for keys")
}

fn keygen(
    policy: &KeyPolicy,
    algorithm: AlgorithmWord,
    role: RoleWord,
    now: Moment,
) -> anyhow::Result<String> {
    let keys = Keys::read(policy)?;
    let algorithm = match algorithm {
        AlgorithmWord::EcdsaP256 => Algorithm::EcdsaP256,
        AlgorithmWord::Ed25519 => Algorithm::Ed25519,
    };
    let key = keys.generate(role.role(), algorithm, now)?;
    Ok(format!("{}\n", policy.dir.join(key.file_stem()).display()))
}

fn list(keys: &Keys<'_>, now: Moment) -> String {
    let refs: Vec<&Key> = keys.all.iter().collect();
    let duties = duties(&refs, now);
    let mut said = String::from("tag    algorithm        signs      state      next\n");
    for (place, key) in keys.all.iter().enumerate() {
        let in_zone = duties.sign_zone.contains(&place);
        let in_keys = duties.sign_keys.contains(&place);
        let signs = match (in_keys, in_zone) {
            (true, true) => "all",
            (true, false) => "keys",
            (false, true) => "zone",
            (false, false) => "-",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            said,
            "{:<6} {:<16} {:<10} {:<10} {}",
            key.tag(),
            key.algorithm().as_str(),
            signs,
            state(&key.times, now).as_str(),
            next(key, now)
        );
    }
    if keys.all.is_empty() {
        said = "; no keys\n".to_owned();
    }
    said
}

/// What happens to a key next.
fn next(key: &Key, now: Moment) -> String {
    let times = &key.times;
    let steps = [
        (times.publish, "published"),
        (times.activate, "signs"),
        (times.sync_publish, "DS may point to it"),
        (times.inactive, "signs no more"),
        (times.delete, "removed"),
    ];
    let coming = steps
        .iter()
        .filter_map(|(time, what)| Some(((*time)?, what)))
        .filter(|(time, _)| *time > now)
        .min_by_key(|(time, _)| *time);
    match coming {
        Some((time, what)) => format!("{what} at {time}"),
        None if times.sync_delete.is_some() && times.delete.is_none() => {
            "waits for ds-seen".to_owned()
        }
        None => "-".to_owned(),
    }
}

fn ds(keys: &Keys<'_>, now: Moment) -> anyhow::Result<String> {
    let mut said = String::new();
    for key in keys.all.iter().filter(|key| key.role() == Role::Entry) {
        let times = &key.times;
        let is_going = times.sync_delete.is_some() || times.inactive.is_some();
        if is_going || matches!(state(times, now), State::Removed | State::Future) {
            continue;
        }
        if let Some(from) = times.sync_publish.filter(|from| *from > now) {
            let _ = writeln!(
                said,
                "; not before {from}, when every resolver knows the key"
            );
        }
        let _ = writeln!(said, "{}", ds_text(key));
    }
    if said.is_empty() {
        bail!("there is no key that a DS could point to; `sealane dnssec keygen` makes one");
    }
    Ok(said)
}

fn roll(policy: &KeyPolicy, role: Role, now: Moment) -> anyhow::Result<String> {
    let mut keys = Keys::read(policy)?;
    let (new, old) = keys.roll(role, now)?;
    let (new_stem, old_stem) = (new.file_stem(), old.file_stem());
    let mut said = format!("; {new_stem} is published and will succeed {old_stem}\n");
    if let Some(activate) = new.times.activate.filter(|time| *time > now) {
        let _ = writeln!(said, "; it signs from {activate}");
    }
    if let Some(from) = new.times.sync_publish {
        let zone = &policy.zone;
        let _ = writeln!(
            said,
            "; from {from} on, have the parent replace the old DS by this one, then say `sealane dnssec ds-seen {zone}`:\n{}",
            ds_text(&new)
        );
    }
    said.push_str(&leaves(old));
    Ok(said)
}

fn ds_seen(policy: &KeyPolicy, now: Moment) -> anyhow::Result<String> {
    let mut keys = Keys::read(policy)?;
    Ok(keys.ds_seen(now)?.into_iter().map(leaves).collect())
}

/// When a key will be gone, if that is known.
fn leaves(key: &Key) -> String {
    let delete = key.times.delete;
    delete.map_or_else(String::new, |delete| {
        format!("; {} leaves the zone at {delete}\n", key.file_stem())
    })
}
