//! Remembers what was chosen for clients that are alike, for as long as rules and world are the same.
//!
//! Changes no answer: [`choose`] is a function of what [`Key`] holds, the rules and the world, and
//! all is forgotten when one of these two is replaced. Saves the distances and the order of all
//! regions for each question. Belongs to one thread; never grows.

use std::net::IpAddr;
use std::ptr;
use std::sync::Arc;

use sealane_model::{Lesson, Location, RegionId, ScopePrefix, Snapshot, Ttl};
use sealane_steering::{ClientPlace, Reason, depends_on_key, lesson};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::engine::{Client, Transport};
use crate::limit::Rates;
use crate::rules::Rules;
use crate::steer::{Choice, Family, Outcome, choose};
use crate::zone::Steered;

/// Choices remembered by one thread (a power of two). Each has one place, by its key; a new one
/// takes it from the one that was there. About 300 KiB.
const REMEMBERED_MAX: usize = 2_048;
/// Addresses in a remembered choice; one with more is made anew for each question.
const ADDRESSES_REMEMBERED: usize = 4;

/// The rules and the world that a thread answers by, and what it has chosen by them so far.
#[derive(Debug)]
pub struct Memory {
    pub(crate) rules: Arc<Rules>,
    pub(crate) world: Arc<Snapshot>,
    pub(crate) choices: Choices,
    /// Seconds since 1970, for cookies.
    pub(crate) now: u32,
}

impl Memory {
    #[must_use]
    pub fn new(rules: &Arc<Rules>, world: &Arc<Snapshot>) -> Self {
        Self {
            rules: Arc::clone(rules),
            world: Arc::clone(world),
            choices: Choices::default(),
            now: 0,
        }
    }

    /// It is that time now, in seconds since 1970 (cut to 32 bits).
    pub const fn set_time(&mut self, now: u32) {
        self.now = now;
    }

    /// From now on answers are by these. Forgets everything when they are others than before.
    pub fn follow(&mut self, rules: &Arc<Rules>, world: &Arc<Snapshot>) {
        if Arc::ptr_eq(&self.rules, rules) && Arc::ptr_eq(&self.world, world) {
            return;
        }
        self.rules = Arc::clone(rules);
        self.world = Arc::clone(world);
        self.choices.forget();
    }

    /// Whoever asks now.
    pub(crate) fn client(&self, address: IpAddr, transport: Transport) -> Client<'_> {
        Client {
            address,
            transport,
            cookies: self.rules.cookies(self.now),
            now: self.now,
        }
    }

    pub(crate) fn rates(&self) -> Option<&Rates> {
        self.rules.limits.answers.as_ref()
    }

    #[must_use]
    pub fn world(&self) -> &Snapshot {
        &self.world
    }
}

/// A table in which each key has one place.
#[derive(Debug, Default)]
pub(crate) struct Choices {
    /// [`REMEMBERED_MAX`] long, or empty until the first steered question.
    places: Vec<Option<(Key, Remembered)>>,
}

/// All that a choice depends on besides rules and world.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Key {
    /// Where the name's rules stand in memory: they stay there as long as the rules are held.
    steered: usize,
    family: Family,
    location: Option<Location>,
    region: Option<RegionId>,
    scope: ScopePrefix,
    /// What the client's network has taught.
    lesson: Lesson,
    is_v4: bool,
    /// The client's network, where the policy draws by it.
    draw: Option<u64>,
    /// The client's address, where a rule goes by it.
    fenced: Option<IpAddr>,
}

impl Key {
    fn new(steered: &Steered, family: Family, place: &ClientPlace, world: &Snapshot) -> Self {
        let draws =
            steered.canary.is_some() || depends_on_key(&steered.policy, steered.pool, world);
        // A rule may tell any two addresses apart.
        let of_canary = steered
            .canary
            .as_ref()
            .and_then(|canary| canary.steering.fences());
        let fenced = steered.policy.fences().or(of_canary).is_some();
        Self {
            steered: ptr::from_ref(steered).addr(),
            family,
            location: place.location,
            region: place.region,
            scope: place.scope,
            lesson: lesson_of(steered, place, world),
            is_v4: place.address.is_ipv4(),
            draw: draws.then(|| place.key()),
            fenced: fenced.then_some(place.address),
        }
    }

    fn place(&self) -> usize {
        let [latitude, longitude] = self.location.map_or([0; 2], |location| {
            [
                location.latitude().to_bits(),
                location.longitude().to_bits(),
            ]
        });
        let region = self.region.map_or(0, |region| region.index() as u64 + 1);
        let corrected =
            u64::from(self.lesson.scope.0) << 1 | u64::from(self.lesson.correction.is_some());
        let small =
            corrected << 40 | region << 16 | u64::from(self.scope.0) << 8 | u64::from(self.is_v4);
        let numbers = [
            self.steered as u64,
            u64::from(latitude) << 32 | u64::from(longitude),
            small << 1 | u64::from(self.family == Family::V4),
            self.draw.unwrap_or_default(),
        ];
        let mut octets = [0; 32];
        for (octets, number) in octets.chunks_exact_mut(8).zip(numbers) {
            octets.copy_from_slice(&number.to_ne_bytes());
        }
        xxh3_64(&octets) as usize % REMEMBERED_MAX
    }
}

/// A canary's policy may look at latency where the name's own does not.
fn lesson_of(steered: &Steered, place: &ClientPlace, world: &Snapshot) -> Lesson {
    let canary = steered.canary.as_ref();
    let of_canary = canary.map(|canary| lesson(&canary.steering, place, world));
    let own = lesson(&steered.policy, place, world);
    of_canary
        .filter(|lesson| *lesson != Lesson::default())
        .unwrap_or(own)
}

/// A [`Choice`] with few addresses.
#[derive(Clone, Debug)]
struct Remembered {
    addresses: SmallVec<[IpAddr; ADDRESSES_REMEMBERED]>,
    outcome: Outcome,
    ttl: Ttl,
    reason: Reason,
    region: Option<RegionId>,
    scope: ScopePrefix,
    canary: bool,
}

impl Remembered {
    fn new(choice: &Choice) -> Option<Self> {
        (choice.addresses.len() <= ADDRESSES_REMEMBERED).then(|| Self {
            addresses: SmallVec::from_slice(&choice.addresses),
            outcome: choice.outcome,
            ttl: choice.ttl,
            reason: choice.reason,
            region: choice.region,
            scope: choice.scope,
            canary: choice.canary,
        })
    }

    fn choice(&self) -> Choice {
        Choice {
            addresses: SmallVec::from_slice(&self.addresses),
            outcome: self.outcome,
            ttl: self.ttl,
            reason: self.reason,
            region: self.region,
            scope: self.scope,
            canary: self.canary,
        }
    }
}

impl Choices {
    /// What [`choose`] says. `world` and the rules of `steered` are those of the [`Memory`].
    pub(crate) fn choose(
        &mut self,
        steered: &Steered,
        family: Family,
        client: &ClientPlace,
        world: &Snapshot,
    ) -> Choice {
        if self.places.is_empty() {
            self.places.resize(REMEMBERED_MAX, None);
        }
        let key = Key::new(steered, family, client, world);
        let place = &mut self.places[key.place()];
        if let Some((of, remembered)) = place
            && *of == key
        {
            return remembered.choice();
        }
        let choice = choose(steered, family, client, world);
        *place = Remembered::new(&choice).map(|remembered| (key, remembered));
        choice
    }

    fn forget(&mut self) {
        self.places.fill(None);
    }
}

#[cfg(test)]
mod tests {
    use sealane_model::Correction;
    use sealane_model::Verdict::{Down, Up};
    use sealane_steering::{GeoOverride, GeoTable, SteeringPolicy, Weights};
    use sealane_testkit::mmdb::{self, Record as Place};
    use sealane_testkit::{Names, World};

    use super::*;
    use crate::config::{Config, SteeredName, Zone};
    use crate::engine::{Transport, UDP_SIZE_MAX, answer, answer_with};
    use crate::name::Name;
    use crate::record::parse_zone_file;

    fn world() -> World {
        World::new()
            .region("eu", Up)
            .at(50.11, 8.68)
            .addresses(&["192.0.2.10", "2001:db8::10"])
            .region("us", Up)
            .at(39.04, -77.49)
            .addresses(&["192.0.2.20"])
            .learned(
                "us",
                &[
                    ([45, 0, 7, 0].into(), Correction::Near),
                    (
                        [45, 1, 200, 0].into(),
                        Correction::Slower { milliseconds: 100 },
                    ),
                    (
                        [45, 2, 9, 0].into(),
                        Correction::Slower { milliseconds: 60 },
                    ),
                    ([45, 5, 9, 0].into(), Correction::Near),
                ],
            )
            .region("big", Up)
            .at(1.3, 103.8)
            .addresses(&[
                "192.0.2.1",
                "192.0.2.2",
                "192.0.2.3",
                "192.0.2.4",
                "192.0.2.5",
            ])
    }

    fn rules(world: &Snapshot, alternates: u8) -> Arc<Rules> {
        let apex = Name::parse("example.test", None).unwrap();
        let text = "@ 60 SOA ns host 1 2 3 4 5\n@ 60 NS ns\nalias 60 CNAME near\n";
        let file = parse_zone_file(text, &apex, Ttl::from_secs(60)).unwrap();
        let steered = |owner, steering| {
            let owner = Name::parse(owner, Some(&apex)).unwrap();
            let pool = world.pool_id("api");
            SteeredName {
                alternates,
                ..SteeredName::new(owner, pool, Arc::new(steering))
            }
        };
        let table = mmdb::table(&[
            ("45.0.0.0/16", Place::At(51.0, 9.0)),
            ("45.1.0.0/17", Place::At(39.0, -77.0)),
            ("45.2.0.0/18", Place::At(39.0, -77.0)),
            ("45.3.0.0/16", Place::At(0.0, 100.0)),
        ]);
        let net = "45.4.0.0/15".parse().unwrap();
        let region = world.region_id("us");
        let steered = vec![
            steered("near", SteeringPolicy::Nearest),
            steered("even", SteeringPolicy::Weighted(Weights::default())),
            steered("both", SteeringPolicy::WeightedLatency(Weights::default())),
            steered("pin", SteeringPolicy::Pinned(region)),
        ];
        let mut zone = Zone::new(apex, file.soa.unwrap(), file.records);
        zone.steered = steered;
        let geo = GeoTable::build(Some(table), &[GeoOverride { net, region }]).unwrap();
        Arc::new(Rules::compile(&Config::new(vec![zone], Arc::new(geo))))
    }

    /// Question `number`: a name and a type by turns, and a client of one of 2,048 networks.
    fn question(number: u32) -> Vec<u8> {
        let apex = Name::parse("example.test", None).unwrap();
        let names = ["near", "even", "both", "pin", "alias", "absent"];
        let name = Name::parse(names[number as usize % 6], Some(&apex)).unwrap();
        let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        message.extend_from_slice(name.wire());
        let rtype = [1, 28][number as usize / 6 % 2];
        message.extend_from_slice(&[0, rtype, 0, 1, 0, 0, 41, 4, 0xd0, 0, 0, 0, 0]);
        let network = number.wrapping_mul(0x9e37_79b9) >> 21;
        let client = [45, (network >> 8) as u8, network as u8];
        message.extend_from_slice(&[0, 11, 0, 8, 0, 7, 0, 1, 24, 0]);
        message.extend_from_slice(&client);
        message
    }

    #[test]
    fn what_is_remembered_is_what_would_be_chosen() {
        let up = Arc::new(world().build());
        let without_eu = Arc::new(world().turn("eu", Down).build());
        let (one, two) = (rules(&up, 0), rules(&up, 1));
        let mut memory = Memory::new(&one, &up);
        let turns = [
            (&one, &up),
            (&one, &without_eu),
            (&two, &without_eu),
            (&two, &up),
            (&one, &up),
        ];
        for (rules, world) in turns {
            memory.follow(rules, world);
            for number in (0..6_000).chain(0..6_000) {
                let message = question(number);
                let source = IpAddr::from([45, (number % 7) as u8, 0, 53]);
                let mut outs = [[0; UDP_SIZE_MAX]; 2];
                let [fresh, remembered] = &mut outs;
                let udp = Transport::Udp;
                let wanted = answer(&message, source, udp, rules, world, fresh);
                let had = answer_with(&mut memory, &message, source, udp, remembered);
                assert_eq!(had, wanted);
                assert!(wanted.is_some_and(|answered| answered.length > 40));
                assert_eq!(outs[0], outs[1]);
            }
        }
        let places = &memory.choices.places;
        assert_eq!(places.len(), REMEMBERED_MAX);
        assert!(places.iter().any(Option::is_some));
    }
}
