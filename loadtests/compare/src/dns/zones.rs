//! The zones that every server gets, and which region a client's network belongs to.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Hosts with one address each.
pub(crate) const HOSTS: usize = 1_000;
/// Names whose address is the client's region's.
pub(crate) const STEERED: usize = 10;
/// Networks of clients, /24 each.
pub(crate) const NETS: usize = 1_024;
pub(crate) const REGIONS: usize = 4;

const TTL: u32 = 300;

/// The first address of a client network.
pub(crate) fn net(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(20, (number >> 8) as u8, number as u8, 0)
}

/// The address of a client network's region.
pub(crate) fn address(net: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, (net % REGIONS) as u8 + 1)
}

fn head(zone: &str) -> String {
    format!(
        "$ORIGIN {zone}.\n$TTL {TTL}\n@ SOA ns1.{zone}. admin.{zone}. 1 3600 600 86400 300\n\
         @ NS ns1.{zone}.\n@ NS ns2.{zone}.\nns1 A 192.0.2.201\nns2 A 192.0.2.202\n"
    )
}

fn with_hosts(zone: &str) -> String {
    let mut text = head(zone);
    for number in 0..HOSTS {
        let (high, low) = (number >> 8, number & 255);
        let _ = writeln!(text, "h{number} A 198.51.{high}.{low}");
    }
    text
}

/// `geo.test`, each of whose steered names has this after it.
fn with_steered(of_each: &str) -> String {
    let mut text = head("geo.test");
    for number in 0..STEERED {
        let _ = writeln!(text, "geo{number} 60 {of_each}");
    }
    text
}

/// A line for each network.
pub(crate) fn of_nets(line: impl Fn(usize) -> String) -> String {
    (0..NETS).map(line).collect()
}

/// Knot's list: for each name, each network and its address.
fn knot_nets() -> String {
    let nets = of_nets(|n| format!("  - net: {}/24\n    A: {}\n", net(n), address(n)));
    (0..STEERED)
        .map(|name| format!("geo{name}.geo.test:\n{nets}"))
        .collect()
}

/// Into the folder, for all servers.
pub(crate) fn write(folder: &Path) -> Result<()> {
    for name in ["gdnsd/zones", "gdnsd/geoip", "knot", "sealane"] {
        let made = fs::create_dir_all(folder.join(name));
        made.with_context(|| format!("no folder {name}"))?;
    }
    let files = [
        ("example.test.zone", with_hosts("example.test")),
        ("signed.test.zone", with_hosts("signed.test")),
        ("geo.test.zone", with_steered("A 192.0.2.100")),
        ("plain-geo.test.zone", head("geo.test")),
        ("knot-nets", knot_nets()),
        ("gdnsd/zones/example.test", with_hosts("example.test")),
        ("gdnsd/zones/geo.test", with_steered("DYNA geoip!nets")),
    ];
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(())
}
