//! `compare`: what a request costs here, in CPU time, beside the proxies that this machine has.
//!
//! Starts an origin and each proxy in turn on loopback, loads them with wrk and h2load, and reads
//! the CPU time of their processes. Rounds are interleaved, so that what else the machine does
//! falls on all alike. Ends only what it started. Exit code 0, or 2 when nothing could be measured.

#[path = "../../shared/accept.rs"]
mod accept;
mod cli;
mod load;
mod origin;
mod process;
mod report;
mod subject;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;

use cli::{Command, Proxy};
use load::Test;
use process::Child;
use report::Table;
use subject::{Subject, Values};

fn main() -> ExitCode {
    let done = match cli::Cli::parse().command {
        Command::Proxy(proxy) => compare(&proxy),
        Command::Origin { port } => origin::serve(port),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn compare(options: &Proxy) -> Result<()> {
    let folder = tempfile::tempdir().context("no folder for scratch")?;
    let values = Values::new(folder.path(), options.base_port, options.threads)?;
    let _origin = start_origin(options.base_port, folder.path())?;
    let mut table = Table::default();
    for subject in Subject::all(options.sealane.as_deref()) {
        if let Err(error) = subject.program() {
            eprintln!("{}: left out: {error:#}", subject.name);
            table.leave_out(subject.name);
        }
    }
    for round in 0..options.rounds {
        for subject in Subject::all(options.sealane.as_deref()) {
            if table.is_left_out(subject.name) {
                continue;
            }
            if let Err(error) = measure(&subject, &values, options, &mut table) {
                eprintln!("{}: left out: {error:#}", subject.name);
                table.leave_out(subject.name);
            }
        }
        eprintln!("round {} of {} is over", round + 1, options.rounds);
    }
    ensure!(!table.is_empty(), "nothing could be measured");
    print!("{}", table.markdown());
    std::fs::write(&options.plot, table.svg())
        .with_context(|| format!("could not write {}", options.plot.display()))
}

fn start_origin(port: u16, folder: &Path) -> Result<Child> {
    let this = std::env::current_exe().context("this program has no path")?;
    let origin = Child::start(
        std::process::Command::new(this).args(["origin", "--port", &port.to_string()]),
        folder,
    )?;
    origin.until_it_listens(port)?;
    Ok(origin)
}

fn measure(subject: &Subject, values: &Values, options: &Proxy, table: &mut Table) -> Result<()> {
    let child = subject.start(values)?;
    for test in Test::ALL {
        let before = child.cpu()?;
        let done = test.run(values, options.seconds)?;
        let spent = child.cpu()?.saturating_sub(before);
        ensure!(done.failed == 0, "{} requests failed", done.failed);
        ensure!(done.requests > 0, "no request was answered");
        let micros = spent.as_secs_f64() * 1e6 / done.requests as f64;
        eprintln!("{:<10} {:<22} {micros:>7.1} µs", subject.name, test.name());
        table.add(test, subject.name, micros);
    }
    Ok(())
}
