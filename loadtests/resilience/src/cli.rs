//! What can be asked on the command line.

use std::path::PathBuf;

use clap::Parser;

/// What clients feel of trouble behind Sealane, with and without the feature that is to help.
///
/// Exits with 2 when a scenario could not be measured, and with 1 when a bound was missed and
/// `--strict` asks for that.
#[derive(Debug, Parser)]
#[command(name = "resilience", version)]
pub(crate) struct Flags {
    /// Which scenarios; all of them when none is named.
    #[arg(value_parser = crate::scenarios::named)]
    pub(crate) scenarios: Vec<&'static crate::scenarios::Scenario>,
    /// Sealane's program.
    #[arg(long, default_value = "target/release/sealane")]
    pub(crate) sealane: PathBuf,
    /// Where a CSV and an SVG of each scenario go.
    #[arg(long, default_value = "target/resilience")]
    pub(crate) out: PathBuf,
    /// Sealane's port; the next one is its admin API's.
    #[arg(long, default_value_t = 20_480)]
    pub(crate) base_port: u16,
    /// A missed bound is a failure.
    #[arg(long)]
    pub(crate) strict: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_known_by_name() {
        let flags = Flags::try_parse_from(["resilience", "retry-storm", "--strict"]).unwrap();

        assert_eq!(flags.scenarios[0].name, "retry-storm");
        assert!(Flags::try_parse_from(["resilience", "nonsense"]).is_err());
    }
}
