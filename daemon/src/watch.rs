//! Notices that a file of the configuration changed on disk. Reads and hashes; parses nothing.
//!
//! Folders are watched, not files: editors and configuration maps replace a file by renaming
//! another over it. What counts is the content's hash, so a touched file changes nothing. Where
//! the kernel tells nothing (some network file systems), a slow poll finds it out.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::config::{ReadFile, listing, listing_digest};

/// A change is read after this long without another: an editor may write in several steps.
const QUIET: Duration = Duration::from_millis(150);
/// … but after this long at the latest.
const QUIET_MAX: Duration = Duration::from_secs(2);
/// How often files are hashed although nothing was heard.
const POLL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Watch {
    /// As they were last seen.
    seen: Vec<ReadFile>,
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    names: Names,
    // One place is enough: it says "look again", not what changed.
    events: mpsc::Receiver<()>,
}

impl Watch {
    /// Watches for contents other than these. Never fails: what cannot be watched is polled.
    #[must_use]
    pub fn new(files: Vec<ReadFile>) -> Self {
        let (wake, events) = mpsc::channel(1);
        let names = Names::default();
        let of_interest = names.clone();
        let handler = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| of_interest.concerns(&event)) {
                // Full means that a look is due already.
                let _ = wake.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(handler)
            .inspect_err(|error| tracing::warn!(%error, "files are polled, not watched"))
            .ok();
        let mut watch = Self {
            seen: Vec::new(),
            watcher,
            folders: BTreeSet::new(),
            names,
            events,
        };
        watch.follow(files);
        watch
    }

    /// Watches these files from now on. What they were when they were read counts as seen: a change
    /// that came after is noticed.
    pub fn follow(&mut self, files: Vec<ReadFile>) {
        for folder in files.iter().filter_map(|file| file.path.parent()) {
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            self.watch_folder(folder);
        }
        self.names.set(&files);
        self.seen = files;
    }

    fn watch_folder(&mut self, folder: &Path) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        if self.folders.contains(folder) {
            return;
        }
        match watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.folders.insert(folder.to_owned());
            }
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "folder is polled, not watched");
            }
        }
    }

    /// Resolves when the content of a file differs from what was last seen. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            // An error is the time-out: the poll.
            let heard = tokio::time::timeout(POLL, self.events.recv()).await;
            if matches!(heard, Ok(None)) {
                tokio::time::sleep(POLL).await;
            }
            self.quiet().await;
            let now: Vec<_> = self.seen.iter().map(present).collect();
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }

    async fn quiet(&mut self) {
        let settle = async {
            while matches!(
                tokio::time::timeout(QUIET, self.events.recv()).await,
                Ok(Some(()))
            ) {}
        };
        // An error means that it never settled: then it is read as it stands.
        let _ = tokio::time::timeout(QUIET_MAX, settle).await;
    }
}

/// The names of the watched files, shared with the thread that hears of changes.
#[derive(Clone, Debug, Default)]
// A lock: taken for each event in the watched folders and at each reload, never by a request.
struct Names(Arc<Mutex<BTreeSet<OsString>>>);

impl Names {
    fn set(&self, files: &[ReadFile]) {
        let names = files.iter().filter_map(|file| file.path.file_name());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = names.map(Into::into).collect();
    }

    /// Whether a look is due. What is written to a file counts for the watched ones alone: a log in
    /// the same folder grows with every request. A file that comes, goes or is renamed always
    /// counts: configuration maps swap a link of another name. Our own reading never does.
    fn concerns(&self, event: &notify::Event) -> bool {
        use notify::EventKind;
        use notify::event::ModifyKind;
        match event.kind {
            EventKind::Access(_) => false,
            EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) => {
                let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let mut changed = event.paths.iter().filter_map(|path| path.file_name());
                changed.any(|name| names.contains(name))
            }
            _ => true,
        }
    }
}

/// A missing file is a content of its own.
fn present(file: &ReadFile) -> ReadFile {
    let digest = if file.is_listing {
        listing(&file.path).map(|files| listing_digest(&files))
    } else {
        let content = std::fs::read(&file.path);
        content.ok().map(|content| Sha256::digest(content).into())
    };
    ReadFile {
        digest,
        ..file.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> ReadFile {
        present(&ReadFile {
            path: path.to_owned(),
            digest: None,
            is_listing: path.to_string_lossy().contains('*'),
        })
    }

    async fn soon(watch: &mut Watch) -> bool {
        tokio::time::timeout(Duration::from_secs(20), watch.changed())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn a_file_replaced_by_renaming_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sealane.yaml");
        std::fs::write(&file, "one").unwrap();
        let mut watch = Watch::new(vec![read(&file)]);

        std::fs::write(dir.path().join("new"), "two").unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();

        assert!(soon(&mut watch).await);
    }

    #[tokio::test]
    async fn a_change_between_the_reading_and_the_watching_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sealane.yaml");
        std::fs::write(&file, "one").unwrap();
        let mut watch = Watch::new(vec![read(&file)]);
        let first = read(&file);

        std::fs::write(&file, "two").unwrap();
        watch.follow(vec![first]);

        assert!(soon(&mut watch).await);
    }

    #[tokio::test]
    async fn a_file_that_is_new_in_a_listing_is_noticed_and_another_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("Kexample.+*.key");
        let mut watch = Watch::new(vec![read(&keys)]);

        std::fs::write(dir.path().join("Kother.+013+1.key"), "").unwrap();
        let changed = tokio::time::timeout(Duration::from_secs(1), watch.changed()).await;
        assert!(changed.is_err());
        std::fs::write(dir.path().join("Kexample.+013+1.key"), "").unwrap();
        assert!(soon(&mut watch).await);
    }

    #[tokio::test]
    async fn a_file_written_again_with_the_same_content_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sealane.yaml");
        std::fs::write(&file, "one").unwrap();
        let mut watch = Watch::new(vec![read(&file)]);

        std::fs::write(&file, "one").unwrap();
        let changed = tokio::time::timeout(Duration::from_secs(1), watch.changed()).await;

        assert!(changed.is_err());
    }

    #[test]
    fn only_the_watched_files_count_when_something_is_written() {
        use notify::event::{AccessKind, CreateKind, DataChange, ModifyKind};
        use notify::{Event, EventKind};
        let names = Names::default();
        names.set(&[read(Path::new("/etc/sealane/sealane.yaml"))]);
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let at = |kind, name: &str| Event::new(kind).add_path(Path::new("/etc/sealane").join(name));

        assert!(names.concerns(&at(written, "sealane.yaml")));
        assert!(!names.concerns(&at(written, "access.log")));
        assert!(names.concerns(&at(EventKind::Create(CreateKind::Any), "..data")));
        assert!(!names.concerns(&at(EventKind::Access(AccessKind::Any), "sealane.yaml")));
    }
}
