//! The name servers that are compared: program, configuration, start.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sealane_testkit::dns_client::Question;

use super::load::Test;
use super::zones::{NETS, REGIONS, STEERED, address, net, of_nets};
use crate::cli::Options;
use crate::process::{self, Child};

/// What the templates' `@NAMES@` stand for.
#[derive(Debug)]
pub(crate) struct Values {
    folder: PathBuf,
    base_port: u16,
    threads: u16,
    sealane: PathBuf,
}

impl Values {
    pub(crate) fn new(folder: &Path, options: &Options) -> Self {
        let built = || PathBuf::from("target/release/sealane");
        Self {
            folder: folder.to_owned(),
            base_port: options.base_port,
            threads: options.threads,
            sealane: options.sealane.clone().unwrap_or_else(built),
        }
    }

    /// Of all servers, one after the other.
    pub(crate) const fn port(&self) -> u16 {
        self.base_port + 1
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn fill(&self, template: &str) -> String {
        [
            ("@THREADS@", self.threads.to_string()),
            ("@ORIGIN@", self.base_port.to_string()),
            ("@PORT@", self.port().to_string()),
            ("@ADMIN@", (self.base_port + 3).to_string()),
            ("@DIR@", self.folder.display().to_string()),
            (
                "@SEALANE_NETS@",
                of_nets(|n| {
                    format!(
                        "      - {{ net: {}/24, region: r{} }}\n",
                        net(n),
                        n % REGIONS
                    )
                }),
            ),
            (
                "@SEALANE_NAMES@",
                (0..STEERED)
                    .map(|n| format!("        geo{n}: {{ pool: web }}\n"))
                    .collect(),
            ),
            (
                "@GDNSD_NETS@",
                of_nets(|n| format!("  {}/24 => [ r{} ],\n", net(n), n % REGIONS)),
            ),
        ]
        .iter()
        .fold(template.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Gdnsd,
    Nsd,
    Knot,
    Sealane,
}

impl Server {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 4] = [Self::Gdnsd, Self::Nsd, Self::Knot, Self::Sealane];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gdnsd => "gdnsd",
            Self::Nsd => "NSD",
            Self::Knot => "Knot",
            Self::Sealane => "Sealane",
        }
    }

    /// gdnsd signs nothing; NSD signs nothing itself, and knows no regions.
    pub(crate) const fn does(self, test: Test) -> bool {
        match (self, test) {
            (Self::Gdnsd | Self::Nsd, Test::Signed) | (Self::Nsd, Test::Region) => false,
            (Self::Gdnsd | Self::Nsd | Self::Knot | Self::Sealane, _) => true,
        }
    }

    pub(crate) fn program(self, values: &Values) -> Result<PathBuf> {
        match self {
            Self::Gdnsd => process::find(Path::new("gdnsd")),
            Self::Nsd => process::find(Path::new("nsd")),
            Self::Knot => process::find(Path::new("knotd")),
            Self::Sealane => process::find(&values.sealane),
        }
    }

    const fn template(self) -> &'static str {
        match self {
            Self::Gdnsd => include_str!("../../subjects/dns/gdnsd.conf"),
            Self::Nsd => include_str!("../../subjects/dns/nsd.conf"),
            Self::Knot => include_str!("../../subjects/dns/knot.conf"),
            Self::Sealane => include_str!("../../subjects/dns/sealane.yaml"),
        }
    }

    pub(crate) fn start(self, values: &Values) -> Result<Child> {
        let configuration = match self {
            Self::Gdnsd => values.folder.join("gdnsd/config"),
            _ => values.folder.join(format!("{}.conf", self.name())),
        };
        fs::write(&configuration, values.fill(self.template()))
            .with_context(|| format!("could not write {}", configuration.display()))?;
        let program = self.program(values)?;
        if self == Self::Sealane {
            make_key(&program, &configuration)?;
        }
        let mut command = Command::new(program);
        match self {
            Self::Gdnsd => command
                .arg("-c")
                .arg(values.folder.join("gdnsd"))
                .arg("start"),
            Self::Nsd => command.args(["-d", "-c"]).arg(&configuration),
            Self::Knot => command.arg("-c").arg(&configuration),
            Self::Sealane => command
                .args(["--log", "warn", "run", "--config"])
                .arg(&configuration),
        };
        let child = Child::start(&mut command, &values.folder)?;
        child.until("its zones are not served", || {
            serves(values.port(), "h1.example.test")
        })?;
        if self.does(Test::Signed) {
            child.until("no signed zone is served", || {
                serves(values.port(), "h1.signed.test")
            })?;
        }
        if self.does(Test::Region) {
            child.until("clients are not led to their regions", || {
                leads(values.port())
            })?;
        }
        Ok(child)
    }
}

/// For the signed zone; it stays for further rounds.
fn make_key(program: &Path, configuration: &Path) -> Result<()> {
    let made = Command::new(program)
        .args(["dnssec", "keygen", "signed.test", "--config"])
        .arg(configuration)
        .output();
    let made = made.context("could not make a key")?;
    let said = String::from_utf8_lossy(&made.stderr);
    ensure!(made.status.success(), "could not make a key: {said}");
    Ok(())
}

fn ask(port: u16, question: &Question) -> Option<Vec<IpAddr>> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    let answer = runtime.ok()?.block_on(question.ask(server, PATIENCE));
    answer.ok().map(|answer| answer.addresses())
}

fn serves(port: u16, name: &str) -> bool {
    ask(port, &Question::a(name)).is_some_and(|addresses| addresses.len() == 1)
}

/// Clients of several networks each to the region that is theirs.
fn leads(port: u16) -> bool {
    [0, 5, 702, NETS - 1].into_iter().all(|number| {
        let subnet = format!("{}/24", net(number));
        let question = Question::a("geo1.geo.test").client_subnet(&subnet);
        ask(port, &question) == Some(vec![address(number).into()])
    })
}
