//! A Sealane that serves one trial: its configuration, its start and end, what it says and weighs.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sealane_testkit::HttpClient;
use tokio::time::{Instant, sleep};

use crate::endpoint::Endpoint;

/// How long it may take until it serves.
const START_LIMIT: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Where the node stands. Well-known cloud regions need no location in the configuration.
pub(crate) const HOME: &str = "us-east-1";

/// A configuration, piece by piece.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configuration {
    pools: String,
    routes: String,
    top: String,
}

impl Configuration {
    /// A pool with all its endpoints here. `keys`: its other keys, in YAML's flow style.
    pub(crate) fn pool(self, name: &str, endpoints: &[Endpoint], keys: &str) -> Self {
        self.pool_of_regions(name, &[(HOME, "", endpoints)], keys)
    }

    /// `regions`: name, further keys, endpoints.
    pub(crate) fn pool_of_regions(
        mut self,
        name: &str,
        regions: &[(&str, &str, &[Endpoint])],
        keys: &str,
    ) -> Self {
        self.pools.push_str(&format!("  {name}:\n    regions:\n"));
        for (region, keys, endpoints) in regions {
            let addresses = endpoints
                .iter()
                .map(|endpoint| format!("{{ address: \"{}\" }}", endpoint.address));
            let addresses = addresses.collect::<Vec<_>>().join(", ");
            self.pools.push_str(&format!(
                "      {region}: {{ {keys}endpoints: [{addresses}] }}\n"
            ));
        }
        if !keys.contains("probe:") {
            self.pools
                .push_str("    probe: { http: { path: /health }, interval: 1s, timeout: 500ms }\n");
        }
        for key in keys.lines() {
            self.pools.push_str(&format!("    {}\n", key.trim()));
        }
        self
    }

    /// `keys`: all of a route, in YAML's flow style.
    pub(crate) fn route(mut self, keys: &str) -> Self {
        self.routes.push_str(&format!("  - {{ {keys} }}\n"));
        self
    }

    /// A key of the file itself.
    pub(crate) fn key(mut self, line: &str) -> Self {
        self.top.push_str(&format!("{line}\n"));
        self
    }

    fn text(&self, web: u16, admin: u16) -> String {
        format!(
            "version: 1\nnode: {{ name: trial, region: {HOME}, workers: 2, first_round_limit: 3s }}\n\
             {}pools:\n{}listeners:\n  web: {{ bind: [\"127.0.0.1:{web}\"], protocol: http }}\n\
             routes:\n{}admin: {{ bind: [\"127.0.0.1:{admin}\"] }}\n",
            self.top, self.pools, self.routes
        )
    }
}

/// Ends when dropped: it keeps nothing.
#[derive(Debug)]
pub(crate) struct Sealane {
    process: Child,
    pub(crate) web: SocketAddr,
    admin: SocketAddr,
}

impl Sealane {
    pub(crate) async fn start(
        program: &Path,
        folder: &Path,
        port: u16,
        configuration: &Configuration,
    ) -> Result<Self> {
        let file = folder.join("sealane.yaml");
        let text = configuration.text(port, port + 1);
        fs::write(&file, &text).context("cannot write the configuration")?;
        let log = fs::File::create(folder.join("sealane.log")).context("cannot write its log")?;
        let other = log.try_clone().context("cannot write its log")?;
        let mut command = Command::new(program);
        command
            .args(["--log", "warn", "run", "--config"])
            .arg(&file);
        command.stdin(Stdio::null()).stdout(log).stderr(other);
        let process = command.spawn();
        let process = process.with_context(|| format!("{} did not start", program.display()))?;
        let mut sealane = Self {
            process,
            web: (Ipv4Addr::LOCALHOST, port).into(),
            admin: (Ipv4Addr::LOCALHOST, port + 1).into(),
        };
        if let Err(error) = sealane.until_ready().await {
            let log = fs::read_to_string(folder.join("sealane.log")).unwrap_or_default();
            bail!("{error}: {}", log.trim());
        }
        Ok(sealane)
    }

    #[expect(clippy::disallowed_methods, reason = "a load test measures time")]
    async fn until_ready(&mut self) -> Result<()> {
        let limit = Instant::now() + START_LIMIT;
        while Instant::now() < limit {
            if let Some(status) = self.process.try_wait().context("it is lost")? {
                bail!("Sealane ended with {status}");
            }
            if self.is_ready().await.unwrap_or(false) {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
        bail!("Sealane is not ready")
    }

    async fn is_ready(&self) -> std::io::Result<bool> {
        let client = HttpClient::connect(self.admin).await?;
        let answer = client.within(Duration::from_secs(2)).get("/readyz").await?;
        Ok(answer.status() == 200)
    }

    /// Resident memory in KiB.
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.context("Sealane has ended")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.context("no VmRSS")
    }
}

impl Drop for Sealane {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
