//! docs/METRICS.md lists exactly the metrics that the program describes.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let registry = sealane::telemetry::install_metrics();
    let described: BTreeSet<(String, String)> = registry
        .described()
        .into_iter()
        .map(|(name, kind, _)| (name, kind.to_owned()))
        .collect();

    let text = include_str!("../../docs/METRICS.md");
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        Some((
            cells.next()?.trim_end_matches('`').to_owned(),
            cells.next()?.to_owned(),
        ))
    });
    let documented: BTreeSet<(String, String)> = rows
        .filter(|(name, _)| name.starts_with("sealane_"))
        .collect();

    let missing: Vec<_> = described.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&described).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "missing {missing:?}; stale {stale:?}"
    );
}
