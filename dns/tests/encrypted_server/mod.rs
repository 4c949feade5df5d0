//! A name server that takes questions encrypted, for the tests of these transports.
#![allow(dead_code, reason = "each test file uses a part of this")]

use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use sealane_dns::config::{Encrypted, Protocol, SteeredName, Zone};
use sealane_dns::name::Name;
use sealane_dns::record::parse_zone_file;
use sealane_dns::{CertificatePem, Config, Deps, Dns, Options, ServerTls};
use sealane_model::publish::snapshot_channel;
use sealane_model::{SnapshotWriter, Ttl, Verdict};
use sealane_steering::{GeoTable, SteeringPolicy};
use sealane_testkit::World;

/// Long enough for a busy machine; nothing here waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const HOST: &str = "ns1.example.test";
const ZONE: &str = "\
@ 60 SOA ns1 host 1 3600 600 86400 5
@ 300 NS ns1
ns1 300 A 192.0.2.53
www 42 A 192.0.2.80
";

fn world() -> World {
    World::new()
        .region("eu", Verdict::Up)
        .addresses(&["192.0.2.10"])
}

/// A certificate of its own, as server and client have it.
pub(crate) struct Identity {
    pub(crate) pem: CertificatePem,
    _folder: tempfile::TempDir,
    pub(crate) file: PathBuf,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        fs::write(&file, made.cert.pem()).unwrap();
        let pem = CertificatePem {
            chain: made.cert.pem().into_bytes().into(),
            key: made.signing_key.serialize_pem().into_bytes().into(),
        };
        Self {
            pem,
            _folder: folder,
            file,
        }
    }

    pub(crate) fn tls(&self) -> ServerTls {
        ServerTls::new(std::slice::from_ref(&self.pem)).unwrap()
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) fn config(identity: &Identity) -> Config {
    let apex = Name::parse("example.test", None).unwrap();
    let file = parse_zone_file(ZONE, &apex, Ttl::from_secs(300)).unwrap();
    let mut zone = Zone::new(apex, file.soa.unwrap(), file.records);
    let pool = world().build().topology.pool_named("api").unwrap().id;
    let owner = Name::parse("api.example.test", None).unwrap();
    zone.steered.push(SteeredName::new(
        owner,
        pool,
        Arc::new(SteeringPolicy::Nearest),
    ));
    let mut config = Config::new(vec![zone], Arc::new(GeoTable::empty()));
    config.bind = vec![loopback()];
    config.encrypted = Protocol::ALL
        .map(|protocol| Encrypted::new(protocol, vec![loopback()], &identity.tls()))
        .to_vec();
    config
}

pub(crate) struct Server {
    pub(crate) dns: Dns,
    _world: SnapshotWriter,
    pub(crate) identity: Identity,
}

impl Server {
    pub(crate) fn start(change: impl FnOnce(&mut Config)) -> Self {
        let identity = Identity::new();
        let mut config = config(&identity);
        change(&mut config);
        let (writer, world) = snapshot_channel(world().build());
        let workers = NonZeroUsize::MIN;
        let dns = Dns::bind(config, Deps { world }, Options { workers }).unwrap();
        dns.start().unwrap();
        Self {
            dns,
            _world: writer,
            identity,
        }
    }

    pub(crate) fn at(&self, protocol: Protocol) -> SocketAddr {
        self.dns.encrypted_addresses(protocol)[0]
    }

    /// What `kdig` prints.
    pub(crate) fn kdig(&self, protocol: Protocol, words: &[&str]) -> String {
        let port = self.at(protocol).port().to_string();
        let ca = format!("+tls-ca={}", self.identity.file.display());
        let host = format!("+tls-hostname={HOST}");
        let always = ["@127.0.0.1", "-p", &port, &ca, &host, "+timeout=10"];
        let output = Command::new("kdig").args(always).args(words).output();
        let output = output.expect("kdig, of knot-dnsutils");
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    }
}

/// A question for A, with a padding option when `padded`.
pub(crate) fn question(name: &str, id: u8, padded: bool) -> Vec<u8> {
    let mut message = vec![0, id, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(Name::parse(name, None).unwrap().wire());
    message.extend_from_slice(&[0, 1, 0, 1]);
    if padded {
        message[11] = 1;
        message.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\x08\0\x0c\0\x04\0\0\0\0");
    }
    message
}
