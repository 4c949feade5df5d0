//! `compare`: what a request or a question costs here, in CPU time, beside the servers that this machine has.
//!
//! Starts each server in turn on loopback, loads it, and reads the CPU time of its processes. Rounds are
//! interleaved, so that what else the machine does falls on all alike. Ends only what it started. Exit code
//! 0, or 2 when nothing could be measured.

#[path = "../../shared/accept.rs"]
mod accept;
mod cli;
mod dns;
mod process;
mod proxy;
mod report;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;

use cli::{Command, Options};
use process::Child;
use report::Table;

fn main() -> ExitCode {
    let done = match cli::Cli::parse().command {
        Command::Proxy { options, plot } => proxy::Bench::new(&options)
            .and_then(|bench| compare(&bench, &options))
            .and_then(|table| show(&table, &plot)),
        Command::Dns { options, plot } => dns::Bench::new(&options)
            .and_then(|bench| compare(&bench, &options))
            .and_then(|table| show(&table, &plot)),
        Command::Origin { port } => proxy::origin::serve(port),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// One kind of server, with the work that each of them does.
trait Compared {
    /// What one figure is the cost of.
    const UNIT: &'static str;
    /// The work, in the order of the table.
    fn work(&self) -> Vec<&'static str>;
    /// The servers, in the order of the table.
    fn servers(&self) -> Vec<&'static str>;
    /// Why a server cannot take part.
    fn missing(&self, server: &str) -> Option<String>;
    /// Starts a server that is not missing.
    fn start(&self, server: &str) -> Result<Child>;
    /// Loads it for some seconds; how many requests were answered, and well. `None`: not its kind of work.
    fn load(&self, server: &str, work: &str) -> Result<Option<u64>>;
}

fn compare<C: Compared>(compared: &C, options: &Options) -> Result<Table> {
    let mut table = Table::new(C::UNIT, compared.work());
    for server in compared.servers() {
        if let Some(why) = compared.missing(server) {
            eprintln!("{server}: left out: {why}");
            table.leave_out(server);
        }
    }
    for round in 0..options.rounds {
        for server in compared.servers() {
            if table.is_left_out(server) {
                continue;
            }
            if let Err(error) = measure(compared, server, &mut table) {
                eprintln!("{server}: left out: {error:#}");
                table.leave_out(server);
            }
        }
        eprintln!("round {} of {} is over", round + 1, options.rounds);
    }
    ensure!(!table.is_empty(), "nothing could be measured");
    Ok(table)
}

fn show(table: &Table, plot: &Path) -> Result<()> {
    print!("{}", table.markdown());
    std::fs::write(plot, table.svg()).with_context(|| format!("could not write {}", plot.display()))
}

fn measure<C: Compared>(compared: &C, server: &'static str, table: &mut Table) -> Result<()> {
    let child = compared.start(server)?;
    for work in compared.work() {
        let before = child.cpu()?;
        let Some(answered) = compared.load(server, work)? else {
            continue;
        };
        let spent = child.cpu()?.saturating_sub(before);
        ensure!(answered > 0, "nothing was answered");
        let micros = spent.as_secs_f64() * 1e6 / answered as f64;
        eprintln!("{server:<8} {work:<42} {micros:>7.2} µs");
        table.add(work, server, micros);
    }
    Ok(())
}

/// The origin, as a process of its own.
fn start_origin(port: u16, folder: &Path) -> Result<Child> {
    let this = std::env::current_exe().context("this program has no path")?;
    let origin = Child::start(
        std::process::Command::new(this).args(["origin", "--port", &port.to_string()]),
        folder,
    )?;
    origin.until_it_listens(port)?;
    Ok(origin)
}
