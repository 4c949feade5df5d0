//! The names of the daemon's own metrics.

use metrics::{describe_counter, describe_gauge};

pub const RELOADS: &str = "config_reloads_total";
pub const LAST_RELOAD_SUCCESSFUL: &str = "config_last_reload_successful";
pub const LAST_RELOAD: &str = "config_last_reload_timestamp_seconds";
pub const UPGRADES: &str = "upgrades_total";
pub const CERTIFICATE_NOT_AFTER: &str = "tls_certificate_not_after_timestamp_seconds";
pub const CERTIFICATES_REFUSED: &str = "tls_certificates_refused";
pub const BUILD_INFO: &str = "build_info";

/// Describes every metric of this crate to the recorder.
pub fn describe() {
    describe_counter!(
        RELOADS,
        "Reloads of the configuration, by result (applied, refused)."
    );
    describe_gauge!(
        LAST_RELOAD_SUCCESSFUL,
        "1 when the file last read is the one that serves."
    );
    describe_gauge!(
        LAST_RELOAD,
        "When the rules that serve were applied, Unix time."
    );
    describe_counter!(
        UPGRADES,
        "Upgrades of the program, by result: succeeded (counted by the new process), failed, refused."
    );
    describe_gauge!(
        CERTIFICATE_NOT_AFTER,
        "When a certificate or revocation list ends, Unix time; by kind (listener, own, authority, \
         revocations), source and subject."
    );
    describe_gauge!(
        CERTIFICATES_REFUSED,
        "Certificates and revocation lists on disk that cannot serve, so that older ones do."
    );
    describe_gauge!(BUILD_INFO, "1, with the version as a label.");
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}
