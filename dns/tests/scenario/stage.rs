//! What a script sets up: zones, pools and places; and control's core, which moves with the clock.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sealane_control::OrderKind;
use sealane_control::config::{AdminConfig, Config as ControlConfig};
use sealane_control::core::{Core, Input, Totals};
use sealane_control::learn::LearnRule;
use sealane_dns::alias::Found;
use sealane_dns::config::{AliasName, Canary, Config, Identity, SteeredName, Zone};
use sealane_dns::dnssec::timing::Moment;
use sealane_dns::engine::Rules;
use sealane_dns::name::Name;
use sealane_dns::record::parse_zone_file;
use sealane_dns::service::Service;
use sealane_model::{
    Addresses, AllDown, Endpoint, EndpointProtocol, FailoverRule, IdBook, Location, Member, Pool,
    PoolId, Rate, Ratio, Region, RegionId, RoundTrip, Snapshot, Target, Timestamp, Topology, Ttl,
    Weight,
};
use sealane_steering::{
    Area, Fence, Fences, GeoOverride, GeoTable, SteeringPolicy, Wanted, Weights, Within,
};
use sealane_testkit::mmdb::{self, Record as Place};

use super::{Block, Words, seconds, share};
use crate::world::{HOLD_DOWN, Manner, START, WELL, World, probe};

#[derive(Default)]
pub(crate) struct Stage {
    book: IdBook,
    regions: Vec<Region>,
    pools: Vec<Pool>,
    endpoints: Vec<Endpoint>,
    zones: Vec<Zone>,
    places: Vec<(IpAddr, u8, Place)>,
    overrides: Vec<GeoOverride>,
    /// What relative names are completed by.
    pub(crate) origin: Option<Name>,
    totals: Totals,
    home: Option<RegionId>,
    identity: Identity,
    scene: Option<Scene>,
}

/// What runs once the stage is set.
pub(crate) struct Scene {
    world: World,
    pub(crate) rules: Rules,
}

type Done = Result<(), String>;

impl Stage {
    /// Follows one line that is no question.
    pub(crate) fn direct(&mut self, block: &Block) -> Done {
        let mut words = Words::of(&block.words);
        let verb = words.want("a verb")?;
        let sets = ["REGION", "POOL", "GEO", "HOME"];
        if sets.contains(&verb) && self.scene.is_some() {
            return Err(format!("{verb} comes too late: the clock runs"));
        }
        match verb {
            "ZONE" => self.zone(&mut words, block).and_then(|()| self.reload()),
            "ORIGIN" => {
                let text = words.want("a name")?;
                self.origin = Some(Name::parse(text, None).map_err(|e| e.to_string())?);
                Ok(())
            }
            "SERVER" => self.server(&mut words).and_then(|()| self.reload()),
            "REGION" => self.region(&mut words),
            "POOL" => self.pool(&mut words, block),
            "GEO" => self.geo(&mut words),
            "STEER" => self.steer(&mut words).and_then(|()| self.reload()),
            "AT" => {
                let at = START + words.seconds("a time")?;
                let world = &mut self.scene()?.world;
                if at < world.now {
                    return Err("time does not run backwards".to_owned());
                }
                world.run_until(at);
                Ok(())
            }
            "HOME" => {
                let name = words.want("a region")?;
                self.home = Some(self.region_id(name)?);
                Ok(())
            }
            "CLIENTS" => self.clients_connect(&mut words),
            "ENDPOINTS" => self.endpoints_turn(&mut words),
            "ORDER" => self.order(&mut words),
            "LOAD" => self.load(&mut words),
            "ALIAS" => self.alias(&mut words).and_then(|()| self.reload()),
            "RESOLVE" => self.resolve(&mut words),
            "TRAFFIC" => {
                let (pool, region) = (words.want("a pool")?, words.want("a region")?);
                let world = &mut self.scene()?.world;
                let first = world.endpoints(pool, region)[0];
                world.observe_failure(first);
                Ok(())
            }
            verb => Err(format!("{verb} is no verb")),
        }
    }

    fn server(&mut self, words: &mut Words<'_>) -> Done {
        while let Some(word) = words.next() {
            let text = words.want("a text")?;
            match word {
                "nsid" => self.identity.nsid = Some(text.as_bytes().into()),
                "version" => self.identity.version = Some(text.into()),
                "id" => self.identity.id = Some(text.into()),
                word => return Err(format!("{word:?} is not expected here")),
            }
        }
        Ok(())
    }

    pub(crate) fn name(&self, text: &str) -> Result<Name, String> {
        Name::parse(text, self.origin.as_ref()).map_err(|error| error.to_string())
    }

    fn zone(&mut self, words: &mut Words<'_>, block: &Block) -> Done {
        let apex = Name::parse(words.want("a zone's name")?, None).map_err(|e| e.to_string())?;
        let mut text = "$TTL 300\n".to_owned();
        for (_, line) in &block.below {
            repeated(line, &mut text)?;
        }
        let file = parse_zone_file(&text, &apex, Ttl::from_secs(300));
        let file = file.map_err(|errors| format!("{errors:?}"))?;
        let soa = file.soa.ok_or("the zone has no SOA")?;
        self.zones.push(Zone::new(apex.clone(), soa, file.records));
        self.origin = Some(apex);
        Ok(())
    }

    fn region(&mut self, words: &mut Words<'_>) -> Done {
        let name = words.want("a name")?;
        let id = self.book.region(name).map_err(|e| e.to_string())?;
        let location = match words.next() {
            Some("at") => Some(location(words.want("a place")?)?),
            Some(word) => return Err(format!("{word:?} is not expected here")),
            None => None,
        };
        self.regions.push(Region::new(id, name, location));
        Ok(())
    }

    pub(crate) fn region_id(&self, name: &str) -> Result<RegionId, String> {
        let known = self.regions.iter().find(|region| &*region.name == name);
        known
            .map(|region| region.id)
            .ok_or_else(|| format!("there is no region {name}"))
    }

    fn pool_id(&self, name: &str) -> Result<PoolId, String> {
        let known = self.pools.iter().find(|pool| &*pool.name == name);
        known
            .map(|pool| pool.id)
            .ok_or_else(|| format!("there is no pool {name}"))
    }

    fn pool(&mut self, words: &mut Words<'_>, block: &Block) -> Done {
        let name = words.want("a name")?;
        let id = self.book.pool(name).map_err(|e| e.to_string())?;
        let mut failover = FailoverRule {
            threshold: ratio("50%")?,
            hold_down: HOLD_DOWN,
            all_down: AllDown::FailOpen,
            panic: Ratio::ZERO,
            ramp: None,
        };
        while let Some(word) = words.next() {
            match word {
                "threshold" => failover.threshold = ratio(words.want("a share")?)?,
                "panic" => failover.panic = ratio(words.want("a share")?)?,
                "hold_down" => failover.hold_down = words.seconds("a time")?,
                "all_down" => failover.all_down = all_down(words)?,
                word => return Err(format!("{word:?} is not expected here")),
            }
        }
        let mut members = Vec::new();
        for (_, line) in &block.below {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            members.push(self.member(id, &mut Words::of(&words))?);
        }
        self.pools.push(Pool {
            id,
            name: name.into(),
            members,
            failover,
        });
        Ok(())
    }

    fn member(&mut self, pool: PoolId, words: &mut Words<'_>) -> Result<Member, String> {
        let region = self.region_id(words.want("a region")?)?;
        let mut member = Member {
            region,
            weight: Weight::DEFAULT,
            priority: 1,
            capacity: None,
            addresses: Addresses::Fixed(Arc::new([])),
            endpoints: Vec::new(),
        };
        let mut endpoints = 1_u8;
        while let Some(word) = words.next() {
            match word {
                "endpoints" => endpoints = words.read("a number")?,
                "weight" => member.weight = weight(words.want("a weight")?)?,
                "priority" => member.priority = words.read("a number")?,
                "capacity" => member.capacity = Rate::per_second(words.read("a rate")?),
                "answers" => {
                    let mut addresses: Vec<IpAddr> = Vec::new();
                    while let Some(word) = words.next() {
                        addresses.push(word.parse().map_err(|_| format!("{word:?}: no address"))?);
                    }
                    member.addresses = Addresses::Fixed(addresses.into());
                }
                word => return Err(format!("{word:?} is not expected here")),
            }
        }
        for number in 0..endpoints {
            member.endpoints.push(self.endpoint(pool, region, number)?);
        }
        Ok(member)
    }

    fn endpoint(
        &mut self,
        pool: PoolId,
        region: RegionId,
        number: u8,
    ) -> Result<sealane_model::EndpointId, String> {
        let name = format!("10.{}.{}.{number}:80", pool.index(), region.index());
        let address = name.parse().map_err(|_| "too many pools or regions")?;
        let id = self.book.endpoint(pool, region, &name);
        let id = id.map_err(|e| e.to_string())?;
        self.endpoints.push(Endpoint {
            id,
            pool,
            region,
            name: name.into(),
            target: Target::Address(address),
            az: None,
            weight: Weight::DEFAULT,
            protocol: EndpointProtocol::Http1,
            tls: None,
            proxy_protocol: None,
        });
        Ok(id)
    }

    fn geo(&mut self, words: &mut Words<'_>) -> Done {
        let net = words.want("a network")?;
        let (address, bits) = net.split_once('/').ok_or("a network is written IP/BITS")?;
        let address = address.parse().map_err(|_| format!("{net}: no address"))?;
        let bits = bits
            .parse()
            .map_err(|_| format!("{net}: no prefix length"))?;
        match (words.want("at or is")?, words.want("a place")?) {
            ("at", place) => {
                let place = location(place)?;
                let (latitude, longitude) = (place.latitude(), place.longitude());
                let place = Place::At(latitude.into(), longitude.into());
                self.places.push((address, bits, place));
            }
            ("country", country) => {
                let continent = words.want("a continent")?;
                let code = |text: &str| -> &'static str { Box::leak(text.to_owned().into()) };
                let place = Place::Both(code(country), code(continent));
                self.places.push((address, bits, place));
            }
            ("as", number) => {
                let number = number.parse().map_err(|_| format!("{number}: no number"))?;
                self.places.push((address, bits, Place::System(number)));
            }
            (_, region) => {
                let region = self.region_id(region)?;
                let net = net.parse().map_err(|_| format!("{net} is no network"))?;
                self.overrides.push(GeoOverride { net, region });
            }
        }
        Ok(())
    }

    fn steer(&mut self, words: &mut Words<'_>) -> Done {
        let owner = self.name(words.want("a name")?)?;
        let ("pool", pool) = (words.want("pool")?, words.want("a pool")?) else {
            return Err("a steered name has a pool".to_owned());
        };
        let pool = self.pool_id(pool)?;
        let mut steered = SteeredName::new(owner, pool, Arc::new(SteeringPolicy::Nearest));
        let (mut policy, mut weights, mut fences) = ("nearest", Vec::new(), Vec::new());
        let mut own_all_down = None;
        while let Some(word) = words.next() {
            match word {
                "by" => policy = words.want("a policy")?,
                "weights" => weights = self.weights(words.want("weights")?)?,
                "only" => fences.push(self.fence(words.want("NET=REGION,…")?)?),
                "ttl" => steered.ttl = ttl(words.want("a TTL")?)?,
                "suspect" => steered.ttl_suspect = ttl(words.want("a TTL")?)?,
                "alternates" => steered.alternates = words.read("a number")?,
                "ignore_ecs" => steered.ignore_client_subnet = true,
                "all_down" => own_all_down = Some(all_down(words)?),
                "canary" => {
                    let pool = self.pool_id(words.want("a pool")?)?;
                    let share = ratio(words.want("a share")?)?;
                    let steering = Arc::new(SteeringPolicy::Nearest);
                    steered.canary = Some(Canary {
                        pool,
                        steering,
                        share,
                    });
                }
                "host" => {
                    let text = words.want("REGION=HOST")?;
                    let (region, host) = text.split_once('=').ok_or("REGION=HOST")?;
                    steered
                        .hosts
                        .push((self.region_id(region)?, self.name(host)?));
                }
                "https" => {
                    let params = words.want("parameters, with + between them")?;
                    let service = Service::parse(&params.replace('+', " "));
                    steered.https = Some(service.map_err(|error| error.to_string())?);
                }
                word => return Err(format!("{word:?} is not expected here")),
            }
        }
        let mut policy = self.policy(policy, weights, fences)?;
        if let Some(rule) = own_all_down {
            policy = policy.with_all_down(rule);
        }
        steered.steering = Arc::new(policy);
        let zone = self.zones.last_mut().ok_or("there is no zone yet")?;
        zone.steered.push(steered);
        Ok(())
    }

    fn alias(&mut self, words: &mut Words<'_>) -> Done {
        let mut alias = AliasName {
            owner: self.name(words.want("a name")?)?,
            target: self.name(words.want("its target")?)?,
            ttl: Ttl::from_secs(60),
        };
        match words.next() {
            Some("ttl") => alias.ttl = ttl(words.want("a TTL")?)?,
            Some(word) => return Err(format!("{word:?} is not expected here")),
            None => {}
        }
        let zone = self.zones.last_mut().ok_or("there is no zone yet")?;
        zone.aliases.push(alias);
        Ok(())
    }

    /// A look-up of an alias's target ends.
    fn resolve(&mut self, words: &mut Words<'_>) -> Done {
        let target = self.name(words.want("a target")?)?;
        let (mut found, mut ttl) = (Vec::new(), 60);
        let mut fails = false;
        while let Some(word) = words.next() {
            match word {
                "ttl" => ttl = words.read("a number")?,
                "fails" => fails = true,
                word => found.push(word.parse().map_err(|_| format!("{word:?}: no address"))?),
            }
        }
        let scene = self.scene()?;
        let now = seconds_of(scene.world.now);
        let of_family = |v4: bool| match fails {
            true => Err("no answer in time".to_owned()),
            false => {
                let found = found.iter().copied();
                let found = found.filter(|address: &IpAddr| address.is_ipv4() == v4);
                Ok(Found::new(found, now, ttl))
            }
        };
        let source = scene.rules.table.source(&target);
        let source = source.ok_or_else(|| format!("no alias of {target}"))?;
        source.learn(now, of_family(true), of_family(false));
        Ok(())
    }

    fn policy(
        &self,
        word: &str,
        weights: Vec<(RegionId, Weight)>,
        fences: Vec<Fence>,
    ) -> Result<SteeringPolicy, String> {
        let policy = match word {
            "nearest" => SteeringPolicy::Nearest,
            "priority" => SteeringPolicy::Priority,
            "weighted" => SteeringPolicy::Weighted(Weights::new(weights)),
            "weighted_latency" => SteeringPolicy::WeightedLatency(Weights::new(weights)),
            word => match word.strip_prefix("pinned:") {
                Some(region) => SteeringPolicy::Pinned(self.region_id(region)?),
                None => return Err(format!("{word:?} is no policy")),
            },
        };
        Ok(if fences.is_empty() {
            policy
        } else {
            let fences = Fences::new(fences);
            SteeringPolicy::Within(Box::new(Within {
                policy,
                fences,
                all_down: None,
            }))
        })
    }

    fn weights(&self, text: &str) -> Result<Vec<(RegionId, Weight)>, String> {
        text.split(',')
            .map(|one| {
                let (region, number) = one.split_once('=').ok_or("weights are REGION=NUMBER")?;
                Ok((self.region_id(region)?, weight(number)?))
            })
            .collect()
    }

    fn fence(&self, text: &str) -> Result<Fence, String> {
        let (net, regions) = text.split_once('=').ok_or("NET=REGION,…")?;
        let regions = regions.split(',').map(|region| self.region_id(region));
        let wanted = wanted(net);
        let nets = match wanted {
            Some(_) => Vec::new(),
            None => vec![net.parse().map_err(|_| format!("{net} is no network"))?],
        };
        let area = match wanted {
            Some(wanted) => Some(Arc::new(self.area(&wanted)?)),
            None => None,
        };
        Ok(Fence {
            nets,
            area,
            regions: regions.collect::<Result<_, _>>()?,
        })
    }

    fn endpoints_turn(&mut self, words: &mut Words<'_>) -> Done {
        let (pool, region) = (words.want("a pool")?, words.want("a region")?);
        let manner = match words.want("refuse, vanish or pass")? {
            "refuse" => Manner::Refuses,
            "vanish" => Manner::Blackhole,
            "pass" => WELL,
            word => return Err(format!("{word:?} is none of refuse, vanish and pass")),
        };
        let world = &mut self.scene()?.world;
        let endpoints = world.endpoints(pool, region);
        let count = match words.next() {
            Some(number) => number
                .parse()
                .map_err(|_| format!("{number:?}: no number"))?,
            None => endpoints.len(),
        };
        world.behave(&endpoints[..count], manner);
        Ok(())
    }

    fn order(&mut self, words: &mut Words<'_>) -> Done {
        let kind = match words.want("an order")? {
            "failover" => OrderKind::FailOver,
            "failback" => OrderKind::FailBack,
            "drain" => OrderKind::Drain,
            word => return Err(format!("{word:?} is no order")),
        };
        let target = words.want("a target")?;
        let world = &mut self.scene()?.world;
        let followed = world.order_as(kind, target, false, true);
        followed.map(|_| ()).map_err(|error| format!("{error:?}"))
    }

    /// So many requests are sent there in each second, and answered.
    fn load(&mut self, words: &mut Words<'_>) -> Done {
        let pool = self.pool_id(words.want("a pool")?)?;
        let region = self.region_id(words.want("a region")?)?;
        let rate: u64 = words.read("requests a second")?;
        let ("for", time) = (words.want("for")?, words.seconds("a time")?) else {
            return Err("LOAD POOL REGION RATE for TIME".to_owned());
        };
        for _ in 0..time.as_secs() {
            let counts = self.totals.entry((pool, region)).or_default();
            counts.drawn += rate;
            counts.answered += rate;
            let totals = self.totals.clone();
            let world = &mut self.scene()?.world;
            world.run_for(Duration::from_secs(1));
            world.step(Input::Counted(totals));
        }
        Ok(())
    }

    fn clients_connect(&mut self, words: &mut Words<'_>) -> Done {
        let client = words.read("an address")?;
        let time = words.seconds("a time")?;
        let times: usize = match words.next() {
            Some("times") => words.read("a number")?,
            _ => 1,
        };
        let round_trips = vec![RoundTrip { client, time }; times];
        let world = &mut self.scene()?.world;
        world.step(Input::Heard(round_trips));
        Ok(())
    }

    /// The rules and the world of this moment, and which one it is.
    pub(crate) fn now(&mut self) -> Result<(&Rules, Snapshot, u32), String> {
        let scene = self.scene()?;
        let world = scene.world.snapshot();
        Ok((&scene.rules, world, seconds_of(scene.world.now)))
    }

    /// A zone that comes while the clock runs is a reload.
    fn reload(&mut self) -> Done {
        let rules = self.scene.is_some().then(|| self.compiled()).transpose()?;
        if let (Some(scene), Some(rules)) = (&mut self.scene, rules) {
            scene.rules = rules;
        }
        Ok(())
    }

    fn scene(&mut self) -> Result<&mut Scene, String> {
        if self.scene.is_none() {
            self.scene = Some(self.set()?);
        }
        self.scene.as_mut().ok_or_else(|| "no scene".to_owned())
    }

    fn set(&mut self) -> Result<Scene, String> {
        let regions = std::mem::take(&mut self.regions);
        let (pools, endpoints) = (self.pools.clone(), std::mem::take(&mut self.endpoints));
        self.regions.clone_from(&regions);
        let topology = Topology::new(regions, pools, endpoints);
        let config = ControlConfig {
            node: "scenario".into(),
            probes: self.pools.iter().map(|pool| (pool.id, probe())).collect(),
            topology: Arc::new(topology),
            first_round_limit: Duration::from_secs(10),
            state_file: None,
            learn: self
                .home
                .map(|region| self.learn_rule(region))
                .transpose()?,
            admin: AdminConfig {
                bind: Vec::new(),
                tokens: Vec::new(),
                open: false,
            },
        };
        let core = Core::new(START, config, 1, None);
        let mut world = World::at(START, core, std::mem::take(&mut self.book), WELL);
        // The first round of probes ends before the first question (A6).
        world.run_for(Duration::from_millis(100));
        Ok(Scene {
            world,
            rules: self.compiled()?,
        })
    }

    fn area(&self, wanted: &Wanted) -> Result<Area, String> {
        let table = mmdb::table_of(self.places.iter().copied());
        let area = Area::build(wanted, Some(&table), Some(&table));
        area.map_err(|error| error.to_string())
    }

    fn learn_rule(&self, region: RegionId) -> Result<LearnRule, String> {
        let geo = self.geo_table()?;
        Ok(LearnRule { region, geo })
    }

    fn geo_table(&self) -> Result<Arc<GeoTable>, String> {
        let table = mmdb::table_of(self.places.iter().copied());
        let table = (!self.places.is_empty()).then_some(table);
        let geo = GeoTable::build(table, &self.overrides);
        geo.map(Arc::new).map_err(|error| error.to_string())
    }

    fn compiled(&self) -> Result<Rules, String> {
        for zone in &self.zones {
            let findings = sealane_dns::zone::check(zone);
            if !findings.mistakes.is_empty() {
                return Err(format!("a zone with mistakes: {:?}", findings.mistakes));
            }
        }
        let mut config = Config::new(self.zones.clone(), self.geo_table()?);
        config.identity = self.identity.clone();
        let before = self.scene.as_ref().map(|scene| &scene.rules);
        Ok(Rules::compile_at(&config, Moment(0), before))
    }
}

/// Since 1970, cut to 32 bits.
fn seconds_of(now: Timestamp) -> u32 {
    (now.as_millis() / 1_000) as u32
}

/// `repeat 60 many A 10.0.0.{}` is sixty lines.
fn repeated(line: &str, text: &mut String) -> Done {
    let Some((count, pattern)) = line.strip_prefix("repeat ").and_then(|l| l.split_once(' '))
    else {
        text.push_str(line);
        text.push('\n');
        return Ok(());
    };
    let count: usize = count.parse().map_err(|_| format!("{count:?}: no number"))?;
    for number in 0..count {
        text.push_str(&pattern.replace("{}", &number.to_string()));
        text.push('\n');
    }
    Ok(())
}

/// `country:DE`, `continent:EU`, `as:64500`.
fn wanted(text: &str) -> Option<Wanted> {
    let (kind, code) = text.split_once(':')?;
    let mut wanted = Wanted::default();
    match kind {
        "country" => wanted.countries.push(code.to_owned()),
        "continent" => wanted.continents.push(code.to_owned()),
        "as" => wanted.systems.push(code.parse().ok()?),
        _ => return None,
    }
    Some(wanted)
}

fn location(text: &str) -> Result<Location, String> {
    let place = text.split_once(',').and_then(|(latitude, longitude)| {
        Location::new(latitude.parse().ok()?, longitude.parse().ok()?)
    });
    place.ok_or_else(|| format!("{text:?} is no place such as 50.1,8.7"))
}

fn ratio(word: &str) -> Result<Ratio, String> {
    Ratio::new(share(word)?).ok_or_else(|| format!("{word} is no share"))
}

fn weight(word: &str) -> Result<Weight, String> {
    let number = word.parse().ok().and_then(Weight::new);
    number.ok_or_else(|| format!("{word:?} is no weight"))
}

fn ttl(word: &str) -> Result<Ttl, String> {
    let whole = u32::try_from(seconds(word)?.as_secs()).map_err(|_| "a long TTL")?;
    Ok(Ttl::from_secs(whole))
}

pub(crate) fn all_down(words: &mut Words<'_>) -> Result<AllDown, String> {
    Ok(match words.want("a rule")? {
        "fail_open" => AllDown::FailOpen,
        "no_data" => AllDown::NoData,
        "fallback" => {
            let list = words.want("addresses")?;
            let addresses = list.split(',').map(str::parse::<IpAddr>);
            let addresses: Result<Vec<_>, _> = addresses.collect();
            AllDown::Fallback(
                addresses
                    .map_err(|_| format!("{list:?}: no addresses"))?
                    .into(),
            )
        }
        word => return Err(format!("{word:?} is no rule")),
    })
}

/// Counted by what a check draws from: the first address of an answer.
pub(crate) type Shares = BTreeMap<String, usize>;
