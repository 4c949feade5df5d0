//! Account and certificates on disk: one file each, for its owner's eyes alone.
//!
//! Written whole beside the old one and put in its place at once, so that a crash leaves one or the
//! other; chain and key are one file, so that they never part. What cannot be understood is moved
//! aside, never deleted. Blocks: called on threads that may.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sealane_model::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::certificate::{Certificate, PEM_BYTES_MAX};
use crate::config::Names;

/// An account's file is far smaller.
const ACCOUNT_BYTES_MAX: usize = 64 * 1024;
/// Characters of the first name that stand in a file's name; the rest is told apart by a hash.
const NAME_CHARS_MAX: usize = 64;

/// One folder, and what is in it by the names that the rest of the program uses.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// What is there for these names. `None`, after a warning, when it cannot be understood: it is
    /// moved aside then.
    pub(crate) fn certificate(&self, names: &Names, now: Timestamp) -> Option<Certificate> {
        let path = self.certificate_path(names);
        let pem = read_or_set_aside(&path, PEM_BYTES_MAX, now)?;
        match Certificate::parse(pem, names) {
            Ok(certificate) => Some(certificate),
            Err(broken) => {
                set_aside(&path, &broken.to_string(), now);
                None
            }
        }
    }

    pub(crate) fn keep_certificate(
        &self,
        names: &Names,
        certificate: &Certificate,
    ) -> io::Result<()> {
        self.write(&self.certificate_path(names), certificate.pem())
    }

    /// The account at this directory, as it was kept.
    pub(crate) fn account(&self, directory: &str, now: Timestamp) -> Option<Vec<u8>> {
        read_or_set_aside(&self.account_path(directory), ACCOUNT_BYTES_MAX, now)
    }

    pub(crate) fn keep_account(&self, directory: &str, account: &[u8]) -> io::Result<()> {
        self.write(&self.account_path(directory), account)
    }

    /// The next one is a new one.
    pub(crate) fn set_account_aside(&self, directory: &str, why: &str, now: Timestamp) {
        set_aside(&self.account_path(directory), why, now);
    }

    fn certificate_path(&self, names: &Names) -> PathBuf {
        let mut hash = Sha256::new();
        for name in names.iter() {
            hash.update(name.as_bytes());
            hash.update(b"\n");
        }
        let plain = |c: char| match c {
            c if c.is_ascii_alphanumeric() || c == '-' || c == '.' => c,
            _ => '_',
        };
        let first = names.first().chars().take(NAME_CHARS_MAX);
        let first: String = first.map(plain).collect();
        self.folder
            .join(format!("{first}-{}.pem", short(&hash.finalize())))
    }

    fn account_path(&self, directory: &str) -> PathBuf {
        let hash = Sha256::digest(directory.as_bytes());
        self.folder.join(format!("account-{}.json", short(&hash)))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        let beside = beside(path, "tmp");
        // A leftover of a crash might be readable by others.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        drop(file);
        if let Err(error) = written.and_then(|()| fs::rename(&beside, path)) {
            // Only litter would stay; the error that counts is the first one.
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
        // Makes the new name itself last. Some file systems refuse; the file is in place anyway.
        let _ = File::open(&self.folder).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

fn read_or_set_aside(path: &Path, limit: usize, now: Timestamp) -> Option<Vec<u8>> {
    match read(path, limit) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // It may be whole, and ours to read once somebody has mended the folder.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::warn!(file = %path.display(), %error, "cannot be read");
            None
        }
        Err(error) => {
            set_aside(path, &error.to_string(), now);
            None
        }
    }
}

fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(bound).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::other(format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

fn set_aside(path: &Path, why: &str, now: Timestamp) {
    let kept = beside(path, &format!("broken-{}", now.as_millis()));
    match fs::rename(path, &kept) {
        Ok(()) => tracing::warn!(
            file = %path.display(),
            kept = %kept.display(),
            "{why}: moved aside"
        ),
        Err(error) => tracing::warn!(
            file = %path.display(),
            "{why}, and it cannot be moved aside: {error}"
        ),
    }
}

/// `path` with `.ending` after its whole name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// The first 16 hexadecimal digits: enough to tell an operator's certificates apart.
fn short(hash: &[u8]) -> String {
    hash.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests;
