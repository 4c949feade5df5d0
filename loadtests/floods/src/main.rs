//! `floods`: what a good client notices while somebody floods the proxy, and what memory that takes.
//!
//! Starts an endpoint, and for each flood a Sealane with one worker on loopback; measures the good
//! client alone, beside the flood and alone again, so that noise is told from harm. Ends only what it
//! started. Exit code 0; 1 when a bound is broken; 2 when it could not be measured.

#[path = "../../shared/accept.rs"]
mod accept;
mod cli;
mod flood;
mod frames;
mod good;
mod origin;
mod report;
mod server;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser as _, ValueEnum as _};

use flood::Kind;
use report::{Bounds, Good, Measured};
use server::{Place, Server};

fn main() -> ExitCode {
    let done = match cli::Cli::parse().command {
        cli::Command::Run(options) => run(&options),
        cli::Command::Origin { port } => origin::serve(port).map(|()| true),
        cli::Command::Good { target, seconds } => {
            good::run(target, seconds);
            Ok(true)
        }
        cli::Command::Flood {
            target,
            seconds,
            kind,
        } => flood::run(kind, target, seconds).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("floods: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether everything stayed within bounds.
fn run(options: &cli::Run) -> Result<bool> {
    let folder = tempfile::tempdir().context("no folder for scratch")?;
    let stage = Stage::new(options, folder.path())?;
    // What an endpoint of the strangers' has to do is not to slow the good client.
    let _origin = stage.origin(options.base_port, true)?;
    let _strangers = stage.origin(options.base_port + 3, false)?;
    let kinds = match &options.only[..] {
        [] => Kind::value_variants(),
        some => some,
    };
    let mut all = Vec::new();
    for round in 0..options.rounds {
        for kind in kinds {
            let measured = stage.measure(*kind)?;
            eprintln!(
                "round {}: {kind:?}: p99 {:.2} ms alone, {:.2} beside it, {:.2} after; {}",
                round + 1,
                measured.alone[0].percentile(99),
                measured.beside.percentile(99),
                measured.alone[1].percentile(99),
                measured.flooder
            );
            all.push(measured);
        }
    }
    let bounds = Bounds {
        ratio: options.ratio,
        memory: options.memory,
    };
    let (text, broken) = report::report(&all, bounds);
    print!("{text}");
    for problem in &broken {
        println!("NOT GOOD: {problem}");
    }
    Ok(broken.is_empty())
}

struct Stage<'a> {
    options: &'a cli::Run,
    this: PathBuf,
    configuration: PathBuf,
}

impl<'a> Stage<'a> {
    fn new(options: &'a cli::Run, folder: &Path) -> Result<Self> {
        let configuration = folder.join("sealane.yaml");
        let port = options.base_port;
        let text = include_str!("sealane.yaml")
            .replace("@ORIGIN@", &port.to_string())
            .replace("@STRANGERS@", &(port + 3).to_string())
            .replace("@WEB@", &(port + 1).to_string())
            .replace("@ADMIN@", &(port + 2).to_string());
        std::fs::write(&configuration, text).context("cannot write the configuration")?;
        Ok(Self {
            options,
            this: std::env::current_exe().context("this program has no path")?,
            configuration,
        })
    }

    fn target(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.options.base_port + 1).into()
    }

    fn priority(&self, ahead: bool) -> Option<u8> {
        let priority = if ahead { 20 } else { 10 };
        self.options.realtime.then_some(priority)
    }

    /// This program in another part. `ahead`: with Sealane's priority.
    fn own(&self, arguments: &[&str], ahead: bool) -> Command {
        let place = Place {
            core: self.options.client_core,
            realtime: self.priority(ahead),
        };
        let mut command = place.command(&self.this);
        command.args(arguments);
        command
    }

    fn origin(&self, port: u16, ahead: bool) -> Result<Server> {
        let mut origin = self.own(&["origin", "--port", &port.to_string()], ahead);
        Server::start(&mut origin, port)
    }

    fn sealane(&self) -> Result<Server> {
        let place = Place {
            core: self.options.server_core,
            realtime: self.priority(true),
        };
        let mut command = place.command(&self.options.sealane);
        command.args(["--log", "warn", "run", "--config"]);
        command.arg(&self.configuration);
        Server::start(&mut command, self.target().port())
    }

    fn measure(&self, kind: Kind) -> Result<Measured> {
        let sealane = self.sealane()?;
        let alone_before = self.good()?;
        let before = sealane.memory()?;
        let peak = sealane.watch_memory();
        let name = kind.to_possible_value().context("no name")?;
        // It begins before the good client and ends after it.
        let seconds = (u64::from(self.options.seconds) + 2).to_string();
        let target = self.target().to_string();
        let arguments = [
            "flood",
            "--target",
            &target,
            "--seconds",
            &seconds,
            "--kind",
        ];
        let mut flood = self.own(&arguments, false);
        let flood = flood.arg(name.get_name()).stdout(Stdio::piped()).spawn();
        let flood = flood.context("the flood did not start")?;
        std::thread::sleep(Duration::from_millis(1_500));
        let beside = self.good();
        let flooder = flood.wait_with_output().context("the flood was lost")?;
        let peak = peak.end();
        ensure!(flooder.status.success(), "{kind:?}: the flood failed");
        std::thread::sleep(Duration::from_secs(self.options.settle.into()));
        let after = sealane.memory()?;
        Ok(Measured {
            kind,
            alone: [alone_before, self.good()?],
            beside: beside?,
            before,
            peak,
            after,
            flooder: String::from_utf8_lossy(&flooder.stdout).trim().to_owned(),
        })
    }

    fn good(&self) -> Result<Good> {
        let seconds = self.options.seconds.to_string();
        let target = self.target().to_string();
        let arguments = ["good", "--target", &target, "--seconds", &seconds];
        let output = self.own(&arguments, true).output();
        let output = output.context("the good client did not start")?;
        let good = Good::read(&String::from_utf8_lossy(&output.stdout));
        ensure!(output.status.success(), "the good client was lost");
        ensure!(!good.is_empty(), "the good client had no answer");
        Ok(good)
    }
}
