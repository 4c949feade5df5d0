//! What can be asked on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::flood::Kind;

#[derive(Debug, Parser)]
#[command(
    name = "floods",
    about = "What a good client notices while others flood the proxy, and what memory that takes"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Starts Sealane and floods it in every way, one after the other.
    Run(Run),
    /// The endpoint; started by `run` itself.
    #[command(hide = true)]
    Origin {
        #[arg(long)]
        port: u16,
    },
    /// The good client; started by `run` itself.
    #[command(hide = true)]
    Good {
        #[arg(long)]
        target: SocketAddr,
        #[arg(long)]
        seconds: u64,
    },
    /// One flood; started by `run` itself.
    #[command(hide = true)]
    Flood {
        #[arg(long)]
        target: SocketAddr,
        #[arg(long)]
        seconds: u64,
        #[arg(long)]
        kind: Kind,
    },
}

#[derive(Debug, Parser)]
pub(crate) struct Run {
    /// Sealane's program.
    #[arg(long, default_value = "target/release/sealane")]
    pub(crate) sealane: PathBuf,
    /// Only these; all of them when left out.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<Kind>,
    /// Rounds of each flood; the table gives medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub(crate) rounds: u16,
    /// Seconds of each phase: the good client alone, then beside the flood.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub(crate) seconds: u16,
    /// Seconds after a flood until memory is looked at.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=600))]
    pub(crate) settle: u16,
    /// The first of four ports on loopback that are taken.
    #[arg(long, default_value_t = 21_800)]
    pub(crate) base_port: u16,
    /// The core that Sealane alone is to have; everything else has the other one.
    #[arg(long, requires = "client_core")]
    pub(crate) server_core: Option<u16>,
    #[arg(long, requires = "server_core")]
    pub(crate) client_core: Option<u16>,
    /// Ahead of whatever else the machine does (`SCHED_RR`, needs root): Sealane, the endpoint and the
    /// good client first, then the flood.
    #[arg(long)]
    pub(crate) realtime: bool,
    /// The good client's 99th percentile may grow by so much.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) ratio: f64,
    /// Memory may grow by so many MiB.
    #[arg(long, default_value_t = 64.0)]
    pub(crate) memory: f64,
}
