//! Reads the files that the configuration refers to, each within a bound, and remembers which.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

/// Bytes of the configuration file itself; a larger one is refused.
pub(super) const CONFIGURATION_BYTES_MAX: usize = 4 << 20;
/// Bytes of a certificate, key or token file; larger ones are refused.
pub(super) const PEM_BYTES_MAX: usize = 1 << 20;
/// Bytes of a zone file; a larger one is refused.
pub(super) const ZONE_BYTES_MAX: usize = 64 << 20;
/// Bytes of a geographic database; a larger one is refused.
pub(super) const DATABASE_BYTES_MAX: usize = 1 << 30;

/// A file as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFile {
    pub path: PathBuf,
    /// SHA-256 of its content; `None`: it could not be read.
    pub digest: Option<[u8; 32]>,
    /// Not one file, but all that are called like it, with anything for its `*`. What counts is their
    /// names.
    pub is_listing: bool,
}

/// The files that are called like `path`, with anything for its `*`, in order. `None`: the folder cannot
/// be read.
pub(crate) fn listing(path: &Path) -> Option<Vec<PathBuf>> {
    let (begin, end) = path.file_name()?.to_str()?.split_once('*')?;
    let entries = std::fs::read_dir(path.parent()?).ok()?;
    let is_called_so = |path: &PathBuf| {
        let name = path.file_name().and_then(std::ffi::OsStr::to_str);
        name.is_some_and(|name| name.starts_with(begin) && name.ends_with(end))
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<_> = paths.filter(is_called_so).collect();
    found.sort_unstable();
    Some(found)
}

/// The digest of a listing.
pub(crate) fn listing_digest(files: &[PathBuf]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for name in files.iter().filter_map(|path| path.file_name()) {
        hash.update(name.as_encoded_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}

#[derive(Debug)]
pub(super) struct Files {
    base: PathBuf,
    read: Vec<ReadFile>,
    newest: Option<SystemTime>,
}

impl Files {
    /// Relative paths are relative to `base`.
    pub(super) fn new(base: &Path) -> Self {
        Self {
            base: base.to_owned(),
            read: Vec::new(),
            newest: None,
        }
    }

    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    pub(super) fn into_read(self) -> Vec<ReadFile> {
        self.read
    }

    /// Whether there is such a file; from now on it is watched, for it may come and go.
    pub(super) fn exists(&mut self, path: &Path) -> bool {
        let content = std::fs::read(path);
        self.note(
            path,
            content.ok().map(|content| Sha256::digest(content).into()),
        );
        path.exists()
    }

    /// When the newest file that was read so far was last changed, in seconds since 1970.
    pub(super) fn newest_change(&self) -> Option<u32> {
        let since = self
            .newest?
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?
            .as_secs();
        u32::try_from(since).ok()
    }

    /// The files in `folder` whose names begin with `prefix` and end with `.extension`. From now on
    /// the folder is followed: such files may come and go.
    pub(super) fn folder(&mut self, folder: &Path, prefix: &str, extension: &str) -> Vec<PathBuf> {
        let path = folder.join(format!("{prefix}*.{extension}"));
        let found = listing(&path);
        self.read.push(ReadFile {
            digest: found.as_deref().map(listing_digest),
            path,
            is_listing: true,
        });
        found.unwrap_or_default()
    }

    /// The configuration file, which may also be a pipe. `Err`: why not.
    pub(super) fn configuration(&mut self, path: &Path) -> Result<String, String> {
        let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(format!("{} is a directory", path.display()));
        }
        let bytes = self.all_of(path, file, CONFIGURATION_BYTES_MAX)?;
        utf8(path, bytes)
    }

    pub(super) fn text(&mut self, path: &Path, limit: usize) -> Result<String, String> {
        let bytes = self.bytes(path, limit)?;
        utf8(path, bytes)
    }

    pub(super) fn bytes(&mut self, path: &Path, limit: usize) -> Result<Vec<u8>, String> {
        // Followed although it may be missing: it may come back.
        self.note(path, None);
        // Looked at before it is opened: opening a pipe would wait for a writer.
        let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if !metadata.is_file() {
            return Err(format!("{} is not a file", path.display()));
        }
        let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
        self.all_of(path, file, limit)
    }

    fn all_of(
        &mut self,
        path: &Path,
        file: std::fs::File,
        limit: usize,
    ) -> Result<Vec<u8>, String> {
        let changed = file
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok();
        let mut bytes = Vec::new();
        let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        file.take(bound)
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(path, &error))?;
        if bytes.len() > limit {
            let limit = limit >> 20;
            return Err(format!("{} is larger than {limit} MiB", path.display()));
        }
        self.newest = self.newest.max(changed);
        self.note(path, Some(Sha256::digest(&bytes).into()));
        Ok(bytes)
    }

    fn note(&mut self, path: &Path, digest: Option<[u8; 32]>) {
        match self.read.iter_mut().find(|read| read.path == path) {
            // Of two readings the first counts: what came between is a change.
            Some(known) => known.digest = known.digest.or(digest),
            None => self.read.push(ReadFile {
                path: path.to_owned(),
                digest,
                is_listing: false,
            }),
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        format!("{} is not UTF-8 text: see line {line}", path.display())
    })
}
