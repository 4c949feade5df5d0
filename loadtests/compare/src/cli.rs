//! What can be asked on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "compare",
    about = "CPU time per request or question beside other servers"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Reverse proxies: Sealane, nginx and HAProxy, as far as they are installed.
    Proxy {
        #[command(flatten)]
        options: Options,
        /// Where the plot goes, as SVG.
        #[arg(long, default_value = "compare-proxy.svg")]
        plot: PathBuf,
    },
    /// Name servers: Sealane, gdnsd, NSD and Knot, as far as they are installed.
    Dns {
        #[command(flatten)]
        options: Options,
        /// Where the plot goes, as SVG.
        #[arg(long, default_value = "compare-dns.svg")]
        plot: PathBuf,
    },
    /// The origin behind proxies, and what name servers find well; started by the others.
    #[command(hide = true)]
    Origin {
        #[arg(long)]
        port: u16,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Threads of each server.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) threads: u16,
    /// Rounds, interleaved; the table gives medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub(crate) rounds: u16,
    /// Seconds of load for each figure.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub(crate) seconds: u16,
    /// The first of four ports on loopback that are taken.
    #[arg(long, default_value_t = 20_800)]
    pub(crate) base_port: u16,
    /// Sealane's program [default: target/release/sealane].
    #[arg(long)]
    pub(crate) sealane: Option<PathBuf>,
}
