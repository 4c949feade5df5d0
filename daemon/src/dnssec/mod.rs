//! The keys of signed zones on disk: one folder, in BIND's format, written whole or not at all.
//!
//! [`cli`] is what operators say, `keeper` what happens by itself; both change files alone. A running
//! Sealane notices, and reads its configuration again. What the times in the files mean is
//! [`sealane_dns::dnssec::timing`]'s to say.

pub mod cli;
pub(crate) mod keeper;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealane_dns::dnssec::key::{Algorithm, Key, KeyError, Role, file_prefix};
use sealane_dns::dnssec::key_file::{self, KeyFileError};
use sealane_dns::dnssec::timing::{
    Delays, Moment, State, Times, ds_seen, first, retire, roll, state,
};
use sealane_dns::name::Name;

use crate::config;

/// How the keys of one zone are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPolicy {
    pub zone: Name,
    pub dir: PathBuf,
    pub delays: Delays,
    /// `None`: only by command.
    pub roll_zone_keys: Option<Duration>,
    pub roll_entry_keys: Option<Duration>,
}

/// Why keys were left as they are.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    #[error("{path}: {source}")]
    Text { path: String, source: KeyFileError },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{0}")]
    Refused(String),
}

fn refused<T>(why: impl Into<String>) -> Result<T, KeysError> {
    Err(KeysError::Refused(why.into()))
}

/// One zone's keys, and what is to be done about them.
#[derive(Debug)]
pub(crate) struct Keys<'p> {
    policy: &'p KeyPolicy,
    pub(crate) all: Vec<Key>,
}

impl<'p> Keys<'p> {
    pub(crate) fn read(policy: &'p KeyPolicy) -> Result<Self, KeysError> {
        let pattern = format!("{}*.key", file_prefix(&policy.zone));
        let paths = config::listing(&policy.dir.join(pattern)).unwrap_or_default();
        let all = paths
            .iter()
            .map(|path| read(path))
            .collect::<Result<_, _>>()?;
        Ok(Self { policy, all })
    }

    /// A new key that is in use at once.
    pub(crate) fn generate(
        &self,
        role: Role,
        algorithm: Algorithm,
        now: Moment,
    ) -> Result<Key, KeysError> {
        let alike = self
            .in_use(role, now)
            .find(|key| key.algorithm() == algorithm);
        if let Some(alike) = alike {
            return refused(format!(
                "{} does that already; `sealane dnssec roll` makes its successor",
                alike.file_stem()
            ));
        }
        let mut times = first(now);
        if role == Role::Entry {
            times.sync_publish = Some(now.plus(self.policy.delays.key_known()));
        }
        let key = self.new_key(role, algorithm, times)?;
        self.write(&key)?;
        Ok(key)
    }

    fn new_key(&self, role: Role, algorithm: Algorithm, times: Times) -> Result<Key, KeysError> {
        // Two keys of one tag would cost every resolver a failed check (RFC 4034 appendix B); the
        // files would have one name.
        loop {
            let key = Key::generate(self.policy.zone.clone(), role, algorithm, times)?;
            if self.all.iter().all(|other| other.tag() != key.tag()) {
                return Ok(key);
            }
        }
    }

    /// Begins to replace the key of this role by a new one.
    pub(crate) fn roll(&mut self, role: Role, now: Moment) -> Result<(Key, &Key), KeysError> {
        self.check_settled(role, now)?;
        let place = self.all.iter().position(|key| {
            key.role() == role
                && state(&key.times, now) == State::Active
                && key.times.inactive.is_none()
        });
        let Some(place) = place else {
            return refused("there is no such key in use; `sealane dnssec keygen` makes one");
        };
        let old = &self.all[place];
        let algorithm = old.algorithm();
        let alone = !self
            .in_use(Role::Zone, now)
            .any(|key| key.algorithm() == algorithm);
        let (new_times, old_times) = roll(&old.times, role, alone, &self.policy.delays, now);
        let new = self.new_key(role, algorithm, new_times)?;
        // The new one first: a key whose time ends must have its successor.
        self.write(&new)?;
        self.all[place].times = old_times;
        self.write(&self.all[place])?;
        Ok((new, &self.all[place]))
    }

    /// Refuses while a key of this role waits for something.
    fn check_settled(&self, role: Role, now: Moment) -> Result<(), KeysError> {
        let of_role = self.all.iter().filter(|key| key.role() == role);
        for key in of_role {
            match state(&key.times, now) {
                State::Future | State::Published => {
                    let when = key.times.activate.map(|time| time.to_string());
                    return refused(format!(
                        "a roll-over is under way: {} will sign from {}",
                        key.file_stem(),
                        when.unwrap_or_default()
                    ));
                }
                State::Active | State::Retired
                    if key.times.sync_delete.is_some() && key.times.delete.is_none() =>
                {
                    return refused(format!(
                        "a roll-over is under way: {} waits for `sealane dnssec ds-seen {}`",
                        key.file_stem(),
                        self.policy.zone
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The parent gives the new key's DS, and no more that of the old ones: these may go.
    pub(crate) fn ds_seen(&mut self, now: Moment) -> Result<Vec<&Key>, KeysError> {
        let newest = self
            .all
            .iter()
            .filter(|key| key.role() == Role::Entry && key.times.is_published(now))
            // Not one that is being replaced, though both may have been made in the same second.
            .filter(|key| key.times.sync_delete.is_none())
            .max_by_key(|key| key.times.publish.max(key.times.created));
        let Some(newest) = newest else {
            return refused("there is no key that a DS could point to");
        };
        if let Some(known) = newest.times.sync_publish.filter(|known| *known > now) {
            return refused(format!(
                "{} is not known everywhere before {known}: a DS must not point to it yet",
                newest.file_stem()
            ));
        }
        let (tag, delays) = (newest.tag(), self.policy.delays);
        let mut gone = Vec::new();
        for (place, key) in self.all.iter_mut().enumerate() {
            let waits = key.role() == Role::Entry
                && key.tag() != tag
                && key.times.sync_delete.is_some()
                && key.times.delete.is_none();
            if waits {
                key.times = ds_seen(&key.times, &delays, now);
                gone.push(place);
            }
        }
        if gone.is_empty() {
            return refused("no key waits for that");
        }
        for place in &gone {
            self.write(&self.all[*place])?;
        }
        Ok(gone.into_iter().map(|place| &self.all[place]).collect())
    }

    /// Takes a key out whose work others do.
    pub(crate) fn retire(&mut self, tag: u16, now: Moment) -> Result<&Key, KeysError> {
        let Some(place) = self.all.iter().position(|key| key.tag() == tag) else {
            return refused(format!("{} has no key {tag}", self.policy.zone));
        };
        let key = &self.all[place];
        let others = self.in_use(key.role(), now).any(|other| {
            other.tag() != tag
                && other.algorithm() == key.algorithm()
                && other.times.inactive.is_none()
        });
        let is_spare = key.role() == Role::Zone
            && self
                .in_use(Role::Entry, now)
                .any(|other| other.algorithm() == key.algorithm());
        let is_last_of_algorithm = !others && !is_spare;
        let others_sign = self.all.iter().any(|other| {
            other.algorithm() != key.algorithm() && state(&other.times, now) == State::Active
        });
        if is_last_of_algorithm && !others_sign {
            return refused(format!(
                "{} is the last one that does its work: `sealane dnssec roll` first",
                key.file_stem()
            ));
        }
        let times = retire(&key.times, key.role(), &self.policy.delays, now);
        self.all[place].times = times;
        self.write(&self.all[place])?;
        Ok(&self.all[place])
    }

    /// Keys of this role that sign now.
    pub(crate) fn in_use(&self, role: Role, now: Moment) -> impl Iterator<Item = &Key> {
        let of_role = self.all.iter().filter(move |key| key.role() == role);
        of_role.filter(move |key| state(&key.times, now) == State::Active)
    }

    fn write(&self, key: &Key) -> Result<(), KeysError> {
        let dir = &self.policy.dir;
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(dir);
        made.map_err(|source| file_error(dir, source))?;
        let stem = dir.join(key.file_stem());
        // A key is found by its `.key` file, so that one comes last.
        write(
            &beside(&stem, "private"),
            &key_file::private_text(key)?,
            0o600,
        )?;
        write(&beside(&stem, "key"), &key_file::public_text(key), 0o644)?;
        // Makes the new names themselves last. Some file systems refuse; the files are in place anyway.
        let _ = File::open(dir).and_then(|dir| dir.sync_all());
        Ok(())
    }
}

/// Names have dots of their own: `with_extension` would cut one off.
fn beside(stem: &Path, extension: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn read(public: &Path) -> Result<Key, KeysError> {
    let text = |path: &Path| fs::read_to_string(path).map_err(|source| file_error(path, source));
    let private = public.with_extension("private");
    key_file::parse(&text(public)?, &text(&private)?).map_err(|source| KeysError::Text {
        path: public.display().to_string(),
        source,
    })
}

fn file_error(path: &Path, source: io::Error) -> KeysError {
    KeysError::File {
        path: path.display().to_string(),
        source,
    }
}

/// Replaces a file by renaming another one over it.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), KeysError> {
    replace(path, text, mode).map_err(|source| file_error(path, source))
}

fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let mode = Permissions::from_mode(mode);
    let mut file = tempfile::Builder::new()
        .permissions(mode)
        .tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(dir: &Path) -> KeyPolicy {
        let day = Duration::from_secs(86_400);
        KeyPolicy {
            zone: Name::parse("example.test", None).unwrap(),
            dir: dir.join("keys"),
            delays: Delays {
                key_ttl: Duration::from_secs(3_600),
                zone_ttl: day,
                ds_ttl: day,
                propagation: Duration::from_secs(300),
            },
            roll_zone_keys: Some(30 * day),
            roll_entry_keys: None,
        }
    }

    const NOW: Moment = Moment(1_800_000_000);

    #[test]
    fn keys_are_private_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let policy = policy(dir.path());
        let key = Keys::read(&policy)
            .unwrap()
            .generate(Role::Entry, Algorithm::EcdsaP256, NOW)
            .unwrap();
        let mode = |name: &str| {
            let path = policy.dir.join(name);
            fs::metadata(path).unwrap().permissions().mode() & 0o777
        };
        assert_eq!(mode(&format!("{}.private", key.file_stem())), 0o600);
        assert_eq!(mode(""), 0o700);

        let again = Keys::read(&policy).unwrap();
        assert!(again.all.len() == 1 && again.all[0].is_same_pair(&key));
        assert_eq!(again.all[0].times, key.times);
        let twice = again.generate(Role::Entry, Algorithm::EcdsaP256, NOW);
        assert!(twice.unwrap_err().to_string().contains("does that already"));
    }

    #[test]
    fn a_roll_over_goes_step_by_step_and_never_two_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let policy = policy(dir.path());
        let keys = || Keys::read(&policy).unwrap();
        keys()
            .generate(Role::Entry, Algorithm::Ed25519, NOW)
            .unwrap();
        let later = |seconds| Moment(NOW.0 + seconds);

        keys().roll(Role::Entry, later(10)).unwrap();
        let error = |result: Result<(), KeysError>| result.unwrap_err().to_string();
        let again = keys().roll(Role::Entry, later(20)).map(drop);
        assert!(error(again).contains("under way"));
        let early = keys().ds_seen(later(20)).map(drop);
        assert!(error(early).contains("not known everywhere"));
        let again = keys().roll(Role::Entry, later(5_000)).map(drop);
        assert!(error(again).contains("ds-seen"));
        assert_eq!(keys().ds_seen(later(5_000)).unwrap().len(), 1);
        let twice = keys().ds_seen(later(5_001)).map(drop);
        assert!(error(twice).contains("no key waits"));
        keys().roll(Role::Entry, later(300_000)).unwrap();
        assert_eq!(keys().all.len(), 3);
    }

    #[test]
    fn the_last_key_is_not_retired() {
        let dir = tempfile::tempdir().unwrap();
        let policy = policy(dir.path());
        let keys = || Keys::read(&policy).unwrap();
        let entry = keys()
            .generate(Role::Entry, Algorithm::Ed25519, NOW)
            .unwrap();
        let zone = keys()
            .generate(Role::Zone, Algorithm::Ed25519, NOW)
            .unwrap();

        assert!(keys().retire(entry.tag(), NOW).is_err());
        // The entry key signs everything then.
        assert_eq!(
            keys().retire(zone.tag(), NOW).unwrap().times.inactive,
            Some(NOW)
        );
        assert!(keys().retire(1, NOW).is_err());
    }
}
