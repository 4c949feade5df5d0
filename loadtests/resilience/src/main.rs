//! `resilience`: what clients feel of trouble behind Sealane, with and without the feature that is to
//! help.
//!
//! Plays each scenario on loopback against endpoints of its own, with requests at a fixed rate; prints
//! a table, writes a CSV and a plot for each. Ends only what it started. What is played is said in
//! [`scenarios`].

mod cli;
mod endpoint;
mod load;
mod numbers;
mod report;
mod scenarios;
mod sealane;
mod stage;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use tokio::time::Instant;

use cli::Flags;
use scenarios::Scenario;
use stage::{Played, Stage};

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    match play_all(&flags).await {
        Ok(Verdict { lost: true, .. }) => ExitCode::from(2),
        Ok(Verdict { missed: true, .. }) if flags.strict => ExitCode::from(1),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("resilience: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[derive(Default)]
struct Verdict {
    /// A bound was not met.
    missed: bool,
    /// A scenario could not be measured.
    lost: bool,
}

async fn play_all(flags: &Flags) -> Result<Verdict> {
    std::fs::create_dir_all(&flags.out)
        .with_context(|| format!("cannot write into {}", flags.out.display()))?;
    let mut verdict = Verdict::default();
    print!("{}", report::heading());
    let all: Vec<&Scenario> = match &flags.scenarios[..] {
        [] => scenarios::ALL.iter().collect(),
        some => some.to_vec(),
    };
    for scenario in all {
        eprintln!("{}: {}", scenario.name, scenario.story);
        match play(flags, scenario).await {
            Ok(played) => {
                print!("{}", report::lines(scenario.name, &played.rows));
                let bounds = played.rows.iter().filter_map(|row| row.bound.as_ref());
                verdict.missed |= bounds.into_iter().any(|(_, is_so)| !is_so);
            }
            Err(error) => {
                eprintln!("{}: not measured: {error:#}", scenario.name);
                verdict.lost = true;
            }
        }
    }
    Ok(verdict)
}

#[expect(clippy::disallowed_methods, reason = "the epoch of what is measured")]
async fn play(flags: &Flags, scenario: &Scenario) -> Result<Played> {
    let folder = tempfile::tempdir().context("no folder for scratch")?;
    let stage = Stage {
        flags,
        folder: folder.path(),
        epoch: Instant::now(),
    };
    let played = (scenario.play)(&stage).await?;
    let file = |ending: &str| flags.out.join(format!("{}.{ending}", scenario.name));
    std::fs::write(file("csv"), report::csv(&played.curves)).context("cannot write the CSV")?;
    std::fs::write(file("svg"), report::svg(scenario.story, &played.curves))
        .context("cannot write the plot")?;
    Ok(played)
}
