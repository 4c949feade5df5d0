//! What the process says about itself: log lines and metrics. Decides nothing.

mod cells;
mod process;
mod recorder;

use std::io::IsTerminal as _;
use std::sync::Arc;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

pub use recorder::{PrometheusRecorder, Registry};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Foreign parts speak up only when something is wrong.
const LOG_DEFAULT: &str = "info,pingora_core=warn,h2=warn";

/// Installs the process's log subscriber. `filter`: `tracing` directives, e.g. `debug` or
/// `info,sealane::access=off`. A second call in the same process changes nothing.
///
/// # Errors
/// A directive in `filter` is not lawful.
pub fn install_log(filter: Option<&str>, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter.unwrap_or(LOG_DEFAULT))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // An error means that a subscriber is installed already: the first one stays.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Installs the process's metrics recorder once and describes every room's metrics.
pub fn install_metrics() -> Arc<Registry> {
    static INSTALLED: std::sync::OnceLock<Arc<Registry>> = std::sync::OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let registry = Arc::new(Registry::default());
            let recorder = PrometheusRecorder::new(registry.clone());
            // Fails only where a recorder is installed already, which this cell rules out.
            let _ = metrics::set_global_recorder(recorder);
            sealane_proxy::metrics::describe();
            sealane_dns::metrics::describe();
            sealane_control::metrics::describe();
            sealane_acme::metrics::describe();
            crate::metrics::describe();
            registry
        })
        .clone()
}

/// Everything that `/metrics` shows: the registry and the process's own figures.
#[must_use]
pub fn render(registry: &Registry) -> String {
    let mut text = registry.render();
    process::render(&mut text);
    text
}
