//! What outlives one reading of the file: certificates that served, and the text without mistakes.
//!
//! Certificates are renewed by other programs, at times of their own. A half-written one must not keep
//! the rest of the file from being applied, nor a mistake in the file keep a renewed one from serving.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use sealane_proxy::tls::Expiring;

/// What files that belong together held when they last could serve.
type Contents = Vec<Arc<[u8]>>;

#[derive(Debug, Default)]
pub struct Kept {
    /// As of the last text without mistakes.
    good: HashMap<Vec<PathBuf>, Contents>,
    /// Of the reading under way.
    now: HashMap<Vec<PathBuf>, Contents>,
    pub(super) text: Option<String>,
    pub(super) expiring: BTreeSet<Expiring>,
    refused: usize,
}

impl Kept {
    pub(super) fn begin(&mut self) {
        self.now.clear();
        self.expiring.clear();
        self.refused = 0;
    }

    /// These could serve.
    pub(super) fn note(&mut self, files: Vec<PathBuf>, contents: Contents) {
        self.now.insert(files, contents);
    }

    /// What these held before they could not serve any more; from now on that is served.
    pub(super) fn fall_back(&mut self, files: &[PathBuf]) -> Option<Contents> {
        let before = self.good.get(files)?.clone();
        self.now.insert(files.to_vec(), before.clone());
        self.refused += 1;
        Some(before)
    }

    /// The reading ended without mistakes: what it did not name is forgotten.
    pub(super) fn commit(&mut self, text: &str) {
        self.good = std::mem::take(&mut self.now);
        self.text = Some(text.to_owned());
    }

    /// The reading renewed a part of what is served.
    pub(super) fn commit_part(&mut self) {
        self.good.extend(self.now.drain());
    }

    /// Certificates and lists on disk that could not serve, in the last reading.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused
    }
}
