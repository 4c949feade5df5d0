//! A changed file becomes new rules, or nothing at all. Knows no rule itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sealane_model::IdBook;

use crate::app::{App, StartError};
use crate::config::{self, Kept, Loaded, ReadFile, RenewedTls, Report};
use crate::dnssec::keeper::Keeper;
use crate::expiry::Expiry;
use crate::metrics::{CERTIFICATES_REFUSED, LAST_RELOAD, LAST_RELOAD_SUCCESSFUL, RELOADS};

/// Reads the configuration, again and again, with ids that survive.
#[derive(Clone, Debug)]
pub struct Source {
    file: PathBuf,
    // A lock: one reading at a time, on a thread that may block; never on a request's path.
    memory: Arc<Mutex<Memory>>,
    expiry: Expiry,
    keeper: Keeper,
    /// Changes through the admin API need no token: the demo's rule, never the file's.
    admin_open: bool,
}

/// What outlives one reading.
#[derive(Debug, Default)]
struct Memory {
    ids: IdBook,
    kept: Kept,
}

impl Source {
    #[must_use]
    pub fn new(file: &Path, admin_open: bool) -> Self {
        Self {
            file: file.to_owned(),
            memory: Arc::default(),
            expiry: Expiry::default(),
            keeper: Keeper::default(),
            admin_open,
        }
    }

    /// # Errors
    /// Every mistake in the file.
    pub fn read(&self) -> Result<Loaded, Report> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let Memory { ids, kept } = &mut *memory;
        let mut loaded = config::load_again(&self.file, &environment, ids, kept)?;
        metrics::gauge!(CERTIFICATES_REFUSED).set(kept.refused() as f64);
        self.expiry
            .follow("file", std::mem::take(&mut loaded.expiring));
        self.keeper.follow(&loaded.rules.keys);
        loaded.rules.control.admin.open = self.admin_open;
        Ok(loaded)
    }

    /// What serves TLS with the certificates as they are on disk now, by the last file without mistakes.
    fn renewed_tls(&self) -> RenewedTls {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let renewed = config::renewed_tls(&self.file, &environment, &mut memory.kept);
        metrics::gauge!(CERTIFICATES_REFUSED).set(memory.kept.refused() as f64);
        renewed
    }

    /// When what the file names ends.
    #[must_use]
    pub fn expiry(&self) -> &Expiry {
        &self.expiry
    }

    /// Rolls keys over when their time has come.
    pub(crate) fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("{0}")]
    Mistakes(Report),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Reads the file and applies it. Returns the files to watch from now on.
///
/// # Errors
/// Mistakes in the file, or an address that cannot be bound: the old rules go on serving.
pub async fn reload(app: &mut App, source: &Source) -> Result<Vec<ReadFile>, ReloadError> {
    let reader = source.clone();
    let read = tokio::task::spawn_blocking(move || reader.read()).await;
    let applied = match read {
        Ok(Ok(loaded)) => {
            let Loaded {
                rules,
                files,
                warnings,
                ..
            } = loaded;
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            app.replace(rules)
                .await
                .map(|()| files)
                .map_err(ReloadError::from)
        }
        Ok(Err(report)) => {
            renew(app, source).await;
            Err(ReloadError::Mistakes(report))
        }
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    note(applied.is_ok());
    applied
}

/// A mistake in the file keeps no renewed certificate from serving.
async fn renew(app: &App, source: &Source) {
    let reader = source.clone();
    let renewed = tokio::task::spawn_blocking(move || reader.renewed_tls()).await;
    match renewed {
        Ok(renewed) => app.renew_tls(&renewed),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Tells the metrics how reading the configuration went.
pub fn note(applied: bool) {
    let result = if applied { "applied" } else { "refused" };
    metrics::counter!(RELOADS, "result" => result).increment(1);
    metrics::gauge!(LAST_RELOAD_SUCCESSFUL).set(if applied { 1.0 } else { 0.0 });
    if applied {
        #[expect(clippy::disallowed_methods, reason = "a wall-clock time for people")]
        let now = std::time::SystemTime::now();
        let since_epoch = now
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        metrics::gauge!(LAST_RELOAD).set(since_epoch.as_secs_f64());
    }
}
