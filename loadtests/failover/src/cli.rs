//! The flags of `failover`, and their texts as types.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use clap::Parser;
use sealane_testkit::dns_client::parse_subnet;

/// Breaks a region while requests and DNS questions flow, and tells how the failover went.
///
/// Exits with 1 when the failover took `--limit` or longer, with `--no-failures` also when a GET
/// failed, and with 2 when the test could not be done.
#[derive(Debug, Parser)]
#[command(name = "failover", version)]
pub(crate) struct Flags {
    /// Where GETs go.
    #[arg(long, default_value = "http://127.0.0.1:8080/", value_parser = HttpTarget::parse)]
    pub(crate) http: HttpTarget,
    /// The `Host` of the GETs. Without it: the DNS name.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Where DNS questions go.
    #[arg(long, default_value = "127.0.0.1:5300")]
    pub(crate) dns: SocketAddr,
    /// What is asked for (type A), every 100 ms.
    #[arg(long, default_value = "api.example.test")]
    pub(crate) name: String,
    /// The client subnet that the questions carry. Take one that the region serves.
    #[arg(long, default_value = "192.0.2.0/24", value_parser = subnet)]
    pub(crate) subnet: String,
    /// GETs in a second.
    #[arg(long, default_value = "200")]
    pub(crate) rate: NonZeroU32,
    /// How long one GET may take; later it counts as failed.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// The admin API: asked for readiness before the test. `none` leaves that out.
    #[arg(long, default_value = "http://127.0.0.1:9900/", value_parser = Admin::parse)]
    pub(crate) admin: Admin,
    /// The region that is broken.
    #[arg(long, default_value = "us-east-1")]
    pub(crate) region: String,
    /// What breaks the region: a shell command. Without it: `sealane demo region-down REGION`.
    #[arg(long)]
    pub(crate) break_command: Option<String>,
    /// What heals it afterwards, so that the way back is measured too: a shell command, such as
    /// `sealane demo region-up REGION`.
    #[arg(long)]
    pub(crate) heal_command: Option<String>,
    /// How long all is watched before the outage.
    #[arg(long, default_value = "3s", value_parser = duration)]
    pub(crate) warm_up: Duration,
    /// How long nothing more may happen before the failover counts as over.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub(crate) quiet: Duration,
    /// The failover must take less than this.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(crate) limit: Duration,
    /// How long the way back is waited for. (A region stays out for its hold-down first.)
    #[arg(long, default_value = "120s", value_parser = duration)]
    pub(crate) heal_limit: Duration,
    /// Not one GET may fail.
    #[arg(long)]
    pub(crate) no_failures: bool,
}

impl Flags {
    pub(crate) fn break_command(&self) -> String {
        let default = || format!("sealane demo region-down {}", self.region);
        self.break_command.clone().unwrap_or_else(default)
    }
}

/// `http://IP:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpTarget {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
}

impl HttpTarget {
    fn parse(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("http://")
            .ok_or("expected http://IP:PORT/PATH")?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = address
            .parse()
            .or_else(|_| format!("{address}:80").parse())
            .map_err(|_| format!("`{address}` is not IP:PORT"))?;
        let path = format!("/{path}");
        Ok(Self { address, path })
    }
}

/// Whom to ask for readiness, if anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admin(pub(crate) Option<HttpTarget>);

impl Admin {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        HttpTarget::parse(text).map(|target| Self(Some(target)))
    }
}

fn subnet(text: &str) -> Result<String, String> {
    let lawful = parse_subnet(text).ok_or("expected IP/BITS")?;
    Ok(format!("{}/{}", lawful.0, lawful.1))
}

/// `250ms`, `5s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 3] = [("ms", 1), ("s", 1_000), ("m", 60_000)];
    let parsed = UNITS.iter().find_map(|(unit, millis)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*millis)
    });
    let millis = parsed.filter(|millis| *millis <= 3_600_000);
    let expected = || "expected a duration such as 250ms, 5s or 2m, at most 60m".to_owned();
    millis.map(Duration::from_millis).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_defaults_for_the_demo() {
        let flags = Flags::parse_from(["failover"]);

        assert_eq!(flags.http.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(flags.break_command(), "sealane demo region-down us-east-1");
        assert_eq!(flags.limit, Duration::from_secs(30));
    }

    #[test]
    fn targets_and_durations_are_checked() {
        let target = HttpTarget::parse("http://[::1]:8080/a/b?c").unwrap();
        assert_eq!((target.address.port(), &*target.path), (8080, "/a/b?c"));
        assert_eq!(
            HttpTarget::parse("http://127.0.0.1")
                .unwrap()
                .address
                .port(),
            80
        );
        assert!(HttpTarget::parse("https://127.0.0.1/").is_err());
        assert!(HttpTarget::parse("http://example.com/").is_err());
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("5").is_err() && duration("99999999999999999999m").is_err());
        assert!(subnet("192.0.2.0/33").is_err());
    }
}
