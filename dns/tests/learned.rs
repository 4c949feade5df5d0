//! A map that is wrong about every fifth network, and what a node's own connections make of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use sealane_control::config::{AdminConfig, Config};
use sealane_control::core::{Core, Input};
use sealane_control::learn::LearnRule;
use sealane_model::{
    Addresses, AllDown, FailoverRule, IdBook, Location, Member, Pool, PoolId, Ratio, Region,
    RegionId, RoundTrip, Snapshot, Timestamp, Topology, Weight,
};
use sealane_steering::{Ask, ClientPlace, GeoTable, How, SteeringPolicy, rank};
use sealane_testkit::mmdb::{Record, table_of};

const EU: (f32, f32) = (50.11, 8.68);
const US: (f32, f32) = (39.04, -77.49);
const AP: (f32, f32) = (-33.87, 151.21);
/// Where clients are, and who lives there.
const CITIES: [(f32, f32); 6] = [
    (52.5, 13.4),
    (48.9, 2.4),
    (41.9, 12.5),
    (40.7, -74.0),
    (33.7, -84.4),
    (-37.8, 145.0),
];
const NETWORKS: usize = 300;
const ROUNDS: u64 = 300;

/// Numbers that look random and are the same each time (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % below
    }
}

struct Client {
    address: IpAddr,
    true_place: Location,
    map_is_right: bool,
    /// What its own line takes.
    line_ms: f64,
    choices: Vec<RegionId>,
}

fn at((latitude, longitude): (f32, f32)) -> Location {
    Location::new(latitude, longitude).unwrap()
}

fn clients(random: &mut Random) -> (Vec<Client>, Vec<(IpAddr, u8, Record)>) {
    (0..NETWORKS)
        .map(|number| {
            let octets = [45, (number / 256) as u8, (number % 256) as u8, 0];
            let address = IpAddr::V4(Ipv4Addr::from(octets));
            let truth = random.below(CITIES.len());
            let map_is_right = random.below(5) != 0;
            let mapped = if map_is_right {
                truth
            } else {
                (truth + 1 + random.below(CITIES.len() - 1)) % CITIES.len()
            };
            let client = Client {
                address,
                true_place: at(CITIES[truth]),
                map_is_right,
                line_ms: 5.0 + random.below(30) as f64,
                choices: Vec::new(),
            };
            let (latitude, longitude) = CITIES[mapped];
            (
                client,
                (address, 24, Record::At(latitude.into(), longitude.into())),
            )
        })
        .unzip()
}

struct Node {
    core: Core,
    geo: Arc<GeoTable>,
    pool: PoolId,
    regions: Vec<(RegionId, Location)>,
}

impl Node {
    /// In Europe.
    fn new(map: Vec<(IpAddr, u8, Record)>) -> Self {
        let mut book = IdBook::default();
        let pool = book.pool("api").unwrap();
        let regions: Vec<_> = [("eu", EU), ("us", US), ("ap", AP)]
            .map(|(name, place)| (book.region(name).unwrap(), name, at(place)))
            .into();
        let member = |id: &RegionId| Member {
            region: *id,
            weight: Weight::DEFAULT,
            priority: 1,
            capacity: None,
            addresses: Addresses::Fixed(Arc::new([])),
            endpoints: vec![],
        };
        let mut endpoints = Vec::new();
        let mut members: Vec<_> = regions.iter().map(|(id, ..)| member(id)).collect();
        for one in &mut members {
            let id = book.endpoint(pool, one.region, "one").unwrap();
            one.endpoints.push(id);
            endpoints.push(sealane_model::Endpoint {
                id,
                pool,
                region: one.region,
                name: "one".into(),
                target: sealane_model::Target::Address("192.0.2.1:80".parse().unwrap()),
                az: None,
                weight: Weight::DEFAULT,
                protocol: sealane_model::EndpointProtocol::Http1,
                tls: None,
                proxy_protocol: None,
            });
        }
        let failover = FailoverRule {
            threshold: Ratio::new(0.5).unwrap(),
            hold_down: Duration::from_secs(60),
            all_down: AllDown::FailOpen,
            panic: Ratio::ZERO,
            ramp: None,
        };
        let pools = vec![Pool {
            id: pool,
            name: "api".into(),
            members,
            failover,
        }];
        let named = regions
            .iter()
            .map(|(id, name, place)| Region::new(*id, name, Some(*place)));
        let topology = Arc::new(Topology::new(named.collect(), pools, endpoints));
        let geo = Arc::new(GeoTable::build(Some(table_of(map)), &[]).unwrap());
        let config = Config {
            node: "eu-1".into(),
            topology,
            probes: Vec::new(),
            first_round_limit: Duration::ZERO,
            state_file: None,
            learn: Some(LearnRule {
                region: regions[0].0,
                geo: Arc::clone(&geo),
            }),
            admin: AdminConfig {
                bind: Vec::new(),
                tokens: Vec::new(),
                open: false,
            },
        };
        Self {
            core: Core::new(time(0), config, 1, None),
            geo,
            pool,
            regions: regions.iter().map(|(id, _, place)| (*id, *place)).collect(),
        }
    }

    fn choice(&self, client: &Client, world: &Snapshot) -> RegionId {
        let place = ClientPlace::locate(client.address, How::ClientSubnet, &self.geo);
        let ask = Ask {
            pool: self.pool,
            policy: &SteeringPolicy::Nearest,
            place: &place,
            key: place.key(),
        };
        rank(&ask, world).first().unwrap()
    }

    /// What it really sees there.
    fn milliseconds(&self, client: &Client, region: RegionId) -> f64 {
        let (_, place) = self.regions.iter().find(|(id, _)| *id == region).unwrap();
        client.true_place.kilometres_to(*place) * 0.014 + client.line_ms
    }
}

const fn time(round: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + round * 5_000)
}

#[test]
fn a_wrong_map_is_mended_a_right_one_is_left_alone_and_nobody_goes_to_and_fro() {
    let mut random = Random(0x5ea1_a9e5);
    let (mut clients, map) = clients(&mut random);
    let mut node = Node::new(map);
    let home = node.regions[0].0;
    for round in 0..ROUNDS {
        let world = node.core.snapshot(time(round));
        let mut heard = Vec::new();
        for client in &mut clients {
            let choice = node.choice(client, &world);
            client.choices.push(choice);
            // Some come by other names, whatever is answered for this one.
            if choice == home || random.below(20) == 0 {
                let milliseconds =
                    node.milliseconds(client, home) * (1.0 + random.below(20) as f64 / 100.0);
                heard.push(RoundTrip {
                    client: client.address,
                    time: Duration::from_secs_f64(milliseconds / 1e3),
                });
            }
        }
        node.core.step(time(round), Input::Heard(heard));
    }

    let seen = |round: usize, right: bool| {
        let those = clients.iter().filter(|client| client.map_is_right == right);
        let (sum, count) = those.fold((0.0, 0), |(sum, count), client| {
            (
                sum + node.milliseconds(client, client.choices[round]),
                count + 1,
            )
        });
        sum / f64::from(count)
    };
    let last = usize::try_from(ROUNDS).unwrap() - 1;
    let (before, after) = (seen(0, false), seen(last, false));
    println!(
        "wrongly mapped: {before:.0} ms, then {after:.0} ms; others {:.0} ms",
        seen(last, true)
    );
    assert!(after < 0.8 * before, "{before} ms, then {after} ms");
    assert!((seen(0, true) - seen(last, true)).abs() < f64::EPSILON);
    for client in &clients {
        let moves = client.choices.windows(2).filter(|two| two[0] != two[1]);
        assert!(
            moves.count() <= 1,
            "{}: {:?}",
            client.address,
            client.choices
        );
    }
}
