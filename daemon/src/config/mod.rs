//! The configuration file: from its text to rules, or to all of its mistakes at once.
//!
//! The only place that knows how the file is spelled (A7). In the order of reading: `yaml`
//! makes a tree in which everything knows its place, `expand` replaces references to the
//! environment, `decode` and [`spec`] make typed values of it, `glb` and `complete` put the
//! short form and the defaults in, `parse` checks what keys have to do with each other and makes
//! the rooms' rules, `print` prints what is in force. Never changes anything, never opens a
//! socket.

pub mod bounds;
mod complete;
mod decode;
mod error;
mod expand;
mod files;
mod glb;
mod kept;
mod parse;
mod places;
mod print;
mod schema;
mod source;
pub mod spec;
pub mod unit;
mod yaml;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sealane_dns::config::Protocol;
use sealane_dns::name::Name;
use sealane_model::{IdBook, RegionId};
use sealane_proxy::tls::{Expiring, ServerTls};

pub use error::{Mistake, Report};
pub use expand::Environment;
pub use files::ReadFile;
pub(crate) use files::{listing, listing_digest};
pub use kept::Kept;
pub use schema::schema;

use crate::dnssec::KeyPolicy;
use decode::{Decoder, Shape};
use error::Notes;
use files::Files;
use spec::FileSpec;

/// What a configuration file says, for each part of the program.
#[derive(Clone, Debug)]
pub struct Rules {
    pub node: Node,
    pub proxy: sealane_proxy::config::Config,
    /// Binds nothing and has no zones where the file has none.
    pub dns: sealane_dns::config::Config,
    pub control: sealane_control::config::Config,
    /// `None`: no certificate is ordered.
    pub acme: Option<sealane_acme::Config>,
    /// How the keys of each signed zone are kept.
    pub keys: Vec<KeyPolicy>,
}

/// This process.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: Arc<str>,
    /// Where it stands.
    pub region: Option<RegionId>,
    /// `None`: one for each core.
    pub workers: Option<NonZeroUsize>,
    /// How long accepted work may go on after a stop was asked for.
    pub drain_limit: Duration,
    /// How long a new program may take to be ready at an upgrade.
    pub upgrade_limit: Duration,
}

/// A file without mistakes.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub rules: Rules,
    /// The whole configuration as YAML, every default filled in, secrets redacted. Relative paths
    /// stay relative to the file.
    pub effective: String,
    /// Every file that was read, to be watched. The configuration file itself comes first.
    pub files: Vec<ReadFile>,
    /// What is lawful but looks wrong: `file:line:column: message`.
    pub warnings: Vec<String>,
    /// Certificates and revocation lists that are named, and when they end.
    pub expiring: BTreeSet<Expiring>,
}

/// Reads the file at `path` and whatever it refers to. Ids of names that `ids` knows stay; `ids`
/// changes only when there are no mistakes.
///
/// # Errors
/// [`Report`] with every mistake.
pub fn load(path: &Path, env: &Environment<'_>, ids: &mut IdBook) -> Result<Loaded, Report> {
    load_again(path, env, ids, &mut Kept::default())
}

/// As [`load`]; a certificate that cannot serve any more is no mistake while `kept` knows what it was
/// before, but a warning.
///
/// # Errors
/// [`Report`] with every mistake.
pub fn load_again(
    path: &Path,
    env: &Environment<'_>,
    ids: &mut IdBook,
    kept: &mut Kept,
) -> Result<Loaded, Report> {
    let name = path.display().to_string();
    let base = path.parent().unwrap_or_else(|| Path::new(""));
    let mut files = Files::new(base);
    match files.configuration(path) {
        Ok(text) => read(&name, &text, files, env, ids, kept),
        Err(message) => {
            let mut notes = Notes::default();
            notes.sources.add(&name, "");
            notes.wrong(source::Span::NONE, message);
            Err(notes.into_report())
        }
    }
}

/// As [`load`], for a text that is in memory. `name` stands in messages; relative paths are
/// relative to `base`.
///
/// # Errors
/// [`Report`] with every mistake.
pub fn load_text(
    name: &str,
    text: &str,
    base: &Path,
    env: &Environment<'_>,
    ids: &mut IdBook,
) -> Result<Loaded, Report> {
    let kept = &mut Kept::default();
    read(name, text, Files::new(base), env, ids, kept)
}

fn read(
    name: &str,
    text: &str,
    mut files: Files,
    env: &Environment<'_>,
    ids: &mut IdBook,
    kept: &mut Kept,
) -> Result<Loaded, Report> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut notes = Notes::default();
    notes.sources.add(name, text);
    let Some(spec) = read_spec(text, env, &mut notes) else {
        return Err(notes.into_report());
    };
    kept.begin();
    let mut scratch = ids.clone();
    let rules = parse::parse(&spec, &mut files, &mut scratch, &mut notes, kept);
    match rules {
        Some(rules) if notes.count() == 0 => {
            *ids = scratch;
            kept.commit(text);
            Ok(Loaded {
                rules,
                effective: print::print(&print::hide(spec.emit(), &|text| notes.hiding(text))),
                files: files.into_read(),
                warnings: notes.warnings(),
                expiring: std::mem::take(&mut kept.expiring),
            })
        }
        _ => Err(notes.into_report()),
    }
}

fn read_spec(text: &str, env: &Environment<'_>, notes: &mut Notes) -> Option<FileSpec> {
    if text.len() > files::CONFIGURATION_BYTES_MAX {
        let limit = files::CONFIGURATION_BYTES_MAX >> 20;
        notes.wrong(
            source::Span::NONE,
            format!("the file is larger than {limit} MiB"),
        );
        return None;
    }
    let mut root = yaml::read(text, 0, notes)?;
    expand::expand(&mut root, env, notes);
    let mut spec = FileSpec::decode(&root, &mut Decoder::new(notes))?;
    glb::unfold(&mut spec, notes);
    complete::complete(&mut spec, env);
    Some(spec)
}

/// How the keys of the file's signed zones are kept, whatever else is wrong with it, and whether or not
/// there are any keys yet.
///
/// # Errors
/// [`Report`] when the file cannot be read, or a key of it.
pub fn key_policies(path: &Path, env: &Environment<'_>) -> Result<Vec<KeyPolicy>, Report> {
    let mut notes = Notes::default();
    let base = path.parent().unwrap_or_else(|| Path::new(""));
    let text = match Files::new(base).configuration(path) {
        Ok(text) => text,
        Err(message) => {
            notes.sources.add(&path.display().to_string(), "");
            notes.wrong(source::Span::NONE, message);
            return Err(notes.into_report());
        }
    };
    notes.sources.add(&path.display().to_string(), &text);
    match read_spec(&text, env, &mut notes) {
        Some(spec) if notes.count() == 0 => Ok(parse::key_policies(&spec, &Files::new(base))),
        _ => Err(notes.into_report()),
    }
}

/// The same for a zone that no file names yet: the defaults. `None`: a default is missing.
pub(crate) fn default_key_policy(zone: Name, dir: PathBuf) -> Option<KeyPolicy> {
    parse::default_key_policy(zone, dir)
}

/// What serves TLS with certificates that were renewed.
#[derive(Debug, Default)]
pub struct RenewedTls {
    pub listeners: Vec<(Arc<str>, ServerTls)>,
    pub dns: Vec<(Protocol, ServerTls)>,
}

/// What TLS is served with by the last text without mistakes and the certificates that are on
/// disk now: for when the present text has mistakes. Those that cannot be made are left out.
pub fn renewed_tls(path: &Path, env: &Environment<'_>, kept: &mut Kept) -> RenewedTls {
    let Some(text) = kept.text.clone() else {
        return RenewedTls::default();
    };
    let mut notes = Notes::default();
    let Some(spec) = read_spec(&text, env, &mut notes) else {
        return RenewedTls::default();
    };
    let mut files = Files::new(path.parent().unwrap_or_else(|| Path::new("")));
    kept.begin();
    let renewed = parse::renewed_tls(&spec, &mut files, &mut notes, kept);
    kept.commit_part();
    renewed
}

/// The text of a configuration file as JSON, by YAML's core schema: what a JSON Schema is held
/// against. Checks no key.
///
/// # Errors
/// [`Report`] when it is no YAML.
pub fn json(text: &str) -> Result<serde_json::Value, Report> {
    let mut notes = Notes::default();
    notes.sources.add("text", text);
    let root = yaml::read(text, 0, &mut notes);
    match root {
        Some(root) if notes.count() == 0 => Ok(decode::node_json(&root)),
        _ => Err(notes.into_report()),
    }
}
