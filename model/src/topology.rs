//! What exists: regions, pools, their members and endpoints. No state, no verdicts.
//!
//! Built by the reader of the configuration, owned by control, and carried inside each
//! [`Snapshot`](crate::Snapshot). Never says whether anything works.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::id::{EndpointId, PoolId, RegionId};
use crate::unit::{Rate, Ratio, Weight};

/// A place on the globe, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Location {
    latitude: f32,
    longitude: f32,
    /// The same place on a sphere of radius 1, so that no distance needs a sine: distances are
    /// wanted for each request, places are made when the configuration is read.
    on_sphere: [f64; 3],
}

impl Location {
    /// `None` outside −90–90 and −180–180.
    #[must_use]
    pub fn new(latitude: f32, longitude: f32) -> Option<Self> {
        let lawful = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        lawful.then(|| Self {
            latitude,
            longitude,
            on_sphere: on_sphere(latitude, longitude),
        })
    }

    #[must_use]
    pub const fn latitude(self) -> f32 {
        self.latitude
    }

    #[must_use]
    pub const fn longitude(self) -> f32 {
        self.longitude
    }

    /// Great-circle distance in kilometres (from the chord, Earth as a sphere of 6,371 km).
    #[must_use]
    pub fn kilometres_to(self, other: Self) -> f64 {
        const EARTH_RADIUS_KM: f64 = 6_371.0;
        let [dx, dy, dz] = [0, 1, 2].map(|axis| self.on_sphere[axis] - other.on_sphere[axis]);
        let chord = (dx * dx + dy * dy + dz * dz).sqrt();
        2.0 * EARTH_RADIUS_KM * (chord / 2.0).min(1.0).asin()
    }
}

fn on_sphere(latitude: f32, longitude: f32) -> [f64; 3] {
    let (sin_lat, cos_lat) = f64::from(latitude).to_radians().sin_cos();
    let (sin_lon, cos_lon) = f64::from(longitude).to_radians().sin_cos();
    [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat]
}

/// The unit of geography and failover.
#[derive(Clone, Debug)]
pub struct Region {
    pub id: RegionId,
    pub name: Arc<str>,
    pub location: Option<Location>,
    /// A hash of the name, the same in every process: what weighted choices are drawn from.
    pub seed: u64,
}

impl Region {
    #[must_use]
    pub fn new(id: RegionId, name: &str, location: Option<Location>) -> Self {
        Self {
            id,
            name: name.into(),
            location,
            seed: fnv1a(name.as_bytes()),
        }
    }
}

/// FNV-1a, 64 bits (draft-eastlake-fnv): only to tell a few dozen names apart, never as a defence.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A named set of endpoints that serve the same thing, in one or more regions.
#[derive(Clone, Debug)]
pub struct Pool {
    pub id: PoolId,
    pub name: Arc<str>,
    /// One entry a region, in the order of the file; never two of the same region.
    pub members: Vec<Member>,
    pub failover: FailoverRule,
}

/// What a pool has in one region.
#[derive(Clone, Debug)]
pub struct Member {
    pub region: RegionId,
    pub weight: Weight,
    /// Tier: the lowest number that has a usable region is served from.
    pub priority: u16,
    /// What this node may send there at most. `None`: nobody said.
    pub capacity: Option<Rate>,
    /// What DNS answers for this region.
    pub addresses: Addresses,
    pub endpoints: Vec<EndpointId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// As the operator wrote them: the region's edge.
    Fixed(Arc<[IpAddr]>),
    /// The addresses that the endpoints themselves have or resolve to.
    OfEndpoints,
}

/// When a region leaves and returns, and what happens when none is left.
#[derive(Clone, Debug, PartialEq)]
pub struct FailoverRule {
    /// Share of endpoints down at which the region is out (inclusive).
    pub threshold: Ratio,
    /// How long a region that went out stays out after it is well again.
    pub hold_down: Duration,
    pub all_down: AllDown,
    /// Below this share of usable endpoints, over all regions, what still works in regions that are
    /// out is used too. Zero: never.
    pub panic: Ratio,
    /// How a region that returns gets its share back. `None`: at once.
    pub ramp: Option<RampRule>,
}

/// Step by step, each held by live errors.
#[derive(Clone, Debug, PartialEq)]
pub struct RampRule {
    /// The shares of what would be the region's own, ascending, each above 0 and below 1. The whole
    /// follows the last one. Never empty.
    pub steps: Arc<[Ratio]>,
    /// How long each step lasts at least.
    pub hold: Duration,
    /// A step with more failed requests than this, beyond what the other regions have, lasts on.
    pub max_errors: Ratio,
}

/// What is answered when no region is usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllDown {
    /// As if every region were well: better a chance than a certain failure.
    FailOpen,
    /// DNS: an empty answer (NODATA). Proxy: 503.
    NoData,
    /// DNS: these addresses. Proxy: 503.
    Fallback(Arc<[IpAddr]>),
}

/// One address that serves.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub id: EndpointId,
    pub pool: PoolId,
    pub region: RegionId,
    /// As the operator wrote it; unique within pool and region.
    pub name: Arc<str>,
    pub target: Target,
    pub az: Option<Arc<str>>,
    pub weight: Weight,
    pub protocol: EndpointProtocol,
    pub tls: Option<EndpointTls>,
    /// It wants to be told who the client is, before anything else.
    pub proxy_protocol: Option<ProxyVersion>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    Address(SocketAddr),
    /// Resolved, and resolved again, by control.
    Host {
        host: Arc<str>,
        port: u16,
    },
}

/// How HTTP is spoken to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointProtocol {
    Http1,
    /// By ALPN over TLS, by prior knowledge (RFC 9113 §3.3) without.
    Http2,
}

/// How an endpoint proves who it is, and how we do. Two endpoints with equal values may share
/// connections' setup.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointTls {
    /// Never empty: an empty server name would switch verification off in some stacks.
    pub server_name: Arc<str>,
    pub roots: Roots,
    /// What we show to an endpoint that asks who we are.
    pub certificate: Option<CertificatePem>,
    pub minimum: TlsVersion,
}

/// A certificate chain, leaf first, and the leaf's private key, both as PEM text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CertificatePem {
    pub chain: Arc<[u8]>,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: Arc<[u8]>,
}

impl fmt::Debug for CertificatePem {
    /// Sizes only: a key must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificatePem")
            .field("chain", &format_args!("{} bytes", self.chain.len()))
            .field("key", &"redacted")
            .finish()
    }
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    #[default]
    Tls12,
    Tls13,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Roots {
    System,
    /// PEM certificates, as read from the operator's file.
    Pem(Arc<[u8]>),
}

/// A version of the PROXY protocol (HAProxy's `proxy-protocol.txt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

impl ProxyVersion {
    /// The header of a connection that is not for a client, such as a probe's.
    #[must_use]
    pub const fn local_header(self) -> &'static [u8] {
        match self {
            Self::V1 => b"PROXY UNKNOWN\r\n",
            // The signature, version 2 and LOCAL, no family, no length (§2.2).
            Self::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        }
    }
}

/// Everything that exists, found by id.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    regions: Vec<Option<Region>>,
    pools: Vec<Option<Pool>>,
    endpoints: Vec<Option<Endpoint>>,
    region_names: HashMap<Arc<str>, RegionId>,
    pool_names: HashMap<Arc<str>, PoolId>,
}

impl Topology {
    /// Members' endpoint ids must occur in `endpoints`; ids that don't are never returned.
    #[must_use]
    pub fn new(regions: Vec<Region>, pools: Vec<Pool>, endpoints: Vec<Endpoint>) -> Self {
        Self {
            region_names: regions.iter().map(|r| (r.name.clone(), r.id)).collect(),
            pool_names: pools.iter().map(|p| (p.name.clone(), p.id)).collect(),
            regions: dense(regions, |r| r.id.index()),
            pools: dense(pools, |p| p.id.index()),
            endpoints: dense(endpoints, |e| e.id.index()),
        }
    }

    /// This topology, and whatever only `old` has: what both old and new rules can be followed
    /// in while one set is replaced by the other.
    #[must_use]
    pub fn united_with(&self, old: &Self) -> Self {
        let regions = old
            .regions()
            .filter(|region| self.region(region.id).is_none());
        let pools = old.pools().filter(|pool| self.pool(pool.id).is_none());
        let endpoints = old
            .endpoints()
            .filter(|endpoint| self.endpoint(endpoint.id).is_none());
        Self::new(
            self.regions().chain(regions).cloned().collect(),
            self.pools().chain(pools).cloned().collect(),
            self.endpoints().chain(endpoints).cloned().collect(),
        )
    }

    #[must_use]
    pub fn region(&self, id: RegionId) -> Option<&Region> {
        self.regions.get(id.index())?.as_ref()
    }

    #[must_use]
    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        self.pools.get(id.index())?.as_ref()
    }

    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(id.index())?.as_ref()
    }

    #[must_use]
    pub fn region_named(&self, name: &str) -> Option<&Region> {
        self.region(*self.region_names.get(name)?)
    }

    #[must_use]
    pub fn pool_named(&self, name: &str) -> Option<&Pool> {
        self.pool(*self.pool_names.get(name)?)
    }

    /// The region's name, or `?` for an id of a topology that is gone.
    #[must_use]
    pub fn region_name(&self, id: RegionId) -> &str {
        self.region(id).map_or("?", |region| &region.name)
    }

    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.regions.iter().flatten()
    }

    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter().flatten()
    }

    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().flatten()
    }
}

/// Puts each item at its index, with holes for ids of things that are gone.
pub(crate) fn dense<T>(items: Vec<T>, index: impl Fn(&T) -> usize) -> Vec<Option<T>> {
    let mut table = Vec::new();
    for item in items {
        let at = index(&item);
        if table.len() <= at {
            table.resize_with(at + 1, || None);
        }
        table[at] = Some(item);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frankfurt_is_about_6500_km_from_virginia() {
        let frankfurt = Location::new(50.11, 8.68).unwrap();
        let virginia = Location::new(39.04, -77.49).unwrap();

        let distance = frankfurt.kilometres_to(virginia);

        assert!((6_400.0..6_700.0).contains(&distance), "{distance}");
        assert_eq!(frankfurt.kilometres_to(frankfurt), 0.0);
    }

    #[test]
    fn a_key_is_never_printed() {
        let pem = CertificatePem {
            chain: (*b"chain").into(),
            key: (*b"PRIVATE").into(),
        };

        assert!(!format!("{pem:?}").contains("PRIVATE"));
    }

    #[test]
    fn distances_are_those_of_the_haversine_formula() {
        let haversine = |a: Location, b: Location| {
            let radians = |degrees: f32| f64::from(degrees).to_radians();
            let half = |a: f32, b: f32| ((radians(b) - radians(a)) / 2.0).sin().powi(2);
            let cosines = radians(a.latitude).cos() * radians(b.latitude).cos();
            let h = half(a.latitude, b.latitude) + cosines * half(a.longitude, b.longitude);
            2.0 * 6_371.0 * h.sqrt().min(1.0).asin()
        };
        let places: Vec<Location> = (-90..=90)
            .step_by(15)
            .flat_map(|lat| {
                (-180..=180)
                    .step_by(20)
                    .map(move |lon| (lat as f32, lon as f32))
            })
            .chain([(50.11, 8.68), (50.12, 8.69), (-50.11, -171.32)])
            .map(|(lat, lon)| Location::new(lat, lon).unwrap())
            .collect();
        for a in &places {
            for b in &places {
                let (got, expected) = (a.kilometres_to(*b), haversine(*a, *b));
                assert!(
                    (got - expected).abs() < 0.001,
                    "{a:?} {b:?}: {got}, {expected}"
                );
            }
        }
    }

    #[test]
    fn a_location_off_the_globe_is_refused() {
        assert_eq!(Location::new(91.0, 0.0), None);
        assert_eq!(Location::new(0.0, f32::NAN), None);
    }
}
