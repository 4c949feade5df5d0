//! `sealane demo`: three regions in one process, to be tried in a minute.
//!
//! Writes the quickstart configuration, a certificate and a small geographic table into a folder,
//! starts the origins that stand in for three regions, and runs the ordinary program on that
//! folder: nothing in proxy, DNS or control knows that it is a demo. A region is taken down at the
//! origins, never in the health map: that it is noticed is the point.

mod origin;
mod switchboard;

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;

pub use origin::{Mode, Origins};
pub use switchboard::{PORT_DEFAULT, order};

use crate::app::{App, StartError};
use crate::run::{self, Ended};

/// The regions of the demo, in the order of their origins' addresses.
pub const REGIONS: [&str; 3] = ["us-east-1", "us-west-2", "eu-central-1"];
/// Origins of each region.
pub const ORIGINS: u8 = 3;

const QUICKSTART: &str = include_str!("../../../configs/quickstart.yaml");
const GEO_TABLE: &[u8] = include_bytes!("../../../configs/geo/quickstart.mmdb");

/// The ports of `configs/quickstart.yaml`, or those that stand in for them. 0 = any free one.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub http: u16,
    pub https: u16,
    pub dns: u16,
    pub admin: u16,
    /// Of the origins, and of the switchboard that takes them down.
    pub origins: u16,
}

/// Runs the demo until a signal ends it.
///
/// # Errors
/// A port is in use, or the folder cannot be written.
pub async fn run(ports: Ports, mut options: run::Options) -> anyhow::Result<Ended> {
    let origins = Origins::bind(ports.origins).await?;
    let folder = Folder::write(ports, origins.port())?;
    options.config = folder.config();
    options.admin_open = true;
    // Its origins live in this process.
    options.program = None;
    let switches = origins.switches();
    let switchboard = switchboard::bind(origins.port()).await?;

    let mut services = tokio::task::JoinSet::new();
    services.spawn(switchboard::serve(switchboard, switches));
    services.spawn(origins.serve());
    let introduce = |app: &App| println!("{}", introduction(app, folder.path(), ports));
    run::run(options, introduce).await.map_err(|error| {
        if !error.is::<StartError>() {
            return error;
        }
        error.context("the demo cannot start (--http, --https, --dns and --admin change its ports)")
    })
}

/// `127.0.1.REGION ORIGIN`, both from 1: us-west-2's third origin is 127.0.1.23.
#[must_use]
pub fn origin_address(region: u8, origin: u8, port: u16) -> SocketAddr {
    SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, region * 10 + origin), port).into()
}

/// The demo's files, in a folder of its own whose name nobody had before, readable by this user alone: there is a
/// private key in it. Removed when the demo ends, though not when it is killed.
struct Folder(TempDir);

impl Folder {
    fn write(ports: Ports, origins: u16) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("sealane-demo-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .context("the demo has no folder for its files")?;
        let folder = Self(folder);
        folder.fill(ports, origins).with_context(|| {
            format!(
                "the demo's files cannot be written to {}",
                folder.path().display()
            )
        })?;
        Ok(folder)
    }

    fn fill(&self, ports: Ports, origins: u16) -> anyhow::Result<()> {
        let path = self.path();
        std::fs::create_dir(path.join("geo"))?;
        std::fs::create_dir(path.join("state"))?;
        std::fs::write(path.join("geo/quickstart.mmdb"), GEO_TABLE)?;
        let names = ["localhost", "api.example.test", "127.0.0.1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names)?;
        std::fs::write(path.join("quickstart.pem"), made.cert.pem())?;
        std::fs::write(
            path.join("quickstart.key"),
            made.signing_key.serialize_pem(),
        )?;
        std::fs::write(self.config(), quickstart(ports, origins))?;
        Ok(())
    }

    fn config(&self) -> PathBuf {
        self.path().join("quickstart.yaml")
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

/// The quickstart file with other ports, and with the HTTPS listener that it has in a comment.
fn quickstart(ports: Ports, origins: u16) -> String {
    QUICKSTART
        .replace("# demo: ", "")
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{}", ports.http))
        .replace("127.0.0.1:8443", &format!("127.0.0.1:{}", ports.https))
        .replace("127.0.0.1:5300", &format!("127.0.0.1:{}", ports.dns))
        .replace("127.0.0.1:9900", &format!("127.0.0.1:{}", ports.admin))
        .replace(&format!(":{PORT_DEFAULT}\""), &format!(":{origins}\""))
}

fn introduction(app: &App, folder: &Path, ports: Ports) -> String {
    let addresses = app.addresses();
    let of = |what: &str| {
        let found = addresses.iter().find(|(name, _)| name == what);
        found.map_or_else(|| "?".to_owned(), |(_, address)| address.to_string())
    };
    let (http, https, admin) = (of("web"), of("secure"), of("admin"));
    let port = |address: &str| address.rsplit(':').next().unwrap_or_default().to_owned();
    let (dns, secure_port) = (port(&of("dns")), port(&https));
    let switch = match ports.origins {
        PORT_DEFAULT => String::new(),
        other => format!(" --origins-port {other}"),
    };
    let config = folder.join("quickstart.yaml");
    let config = config.display();
    format!(
        "
Sealane serves three regions from this process. Try, in another terminal:

  curl http://{http}/                                   who answers? (region and endpoint)
  curl -k https://localhost:{secure_port}/                       the same over TLS and HTTP/2
  dig @127.0.0.1 -p {dns} api.example.test A +subnet=198.51.100.0/24   a client in Europe   -> 198.51.100.10
  dig @127.0.0.1 -p {dns} api.example.test A +subnet=192.0.2.0/24      a client in America  -> 192.0.2.10
  curl 'http://{admin}/v1/explain?dns=api.example.test&client=192.0.2.1'   why?

Take a region down, and watch both leave it within seconds (curl keeps answering 200):

  sealane demo region-down us-east-1{switch}              connections are refused
  sealane demo region-down us-east-1 --how black-hole{switch}   accepted, never answered
  sealane status --admin http://{admin}
  sealane demo region-up us-east-1{switch}                it comes back after its hold-down

The configuration is {config}: edit it, it reloads by itself.
Ctrl-C drains and ends.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealane_model::IdBook;

    #[test]
    fn the_demo_s_file_loads_and_has_every_listener() {
        let ports = Ports {
            http: 1,
            https: 2,
            dns: 3,
            admin: 4,
            origins: 5,
        };
        let folder = Folder::write(ports, 5).unwrap();

        let loaded =
            crate::config::load(&folder.config(), &|_| None, &mut IdBook::default()).unwrap();

        let bound = |name: &str| {
            let listeners = &loaded.rules.proxy.listeners;
            let listener = listeners
                .iter()
                .find(|listener| &*listener.name == name)
                .unwrap();
            listener.bind.clone()
        };
        assert_eq!(bound("web"), ["127.0.0.1:1".parse().unwrap()]);
        assert_eq!(bound("secure"), ["127.0.0.1:2".parse().unwrap()]);
        assert_eq!(loaded.rules.dns.bind, ["127.0.0.1:3".parse().unwrap()]);
        assert_eq!(
            loaded.rules.control.admin.bind,
            ["127.0.0.1:4".parse().unwrap()]
        );
        let names: Vec<_> = loaded
            .rules
            .control
            .topology
            .endpoints()
            .map(|e| e.name.to_string())
            .collect();
        assert_eq!(names.len(), 9);
        assert!(
            names.contains(&origin_address(2, 3, 5).to_string()),
            "{names:?}"
        );
    }

    #[test]
    fn each_demo_has_a_folder_of_its_own_that_no_other_user_can_read() {
        let ports = Ports {
            http: 1,
            https: 2,
            dns: 3,
            admin: 4,
            origins: 0,
        };

        let [first, second] = [(); 2].map(|()| Folder::write(ports, 5).unwrap());

        assert_ne!(first.path(), second.path());
        let mode = std::fs::metadata(first.path())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
