//! What clients' connections teach about how far they are, network by network.
//!
//! Stepped by [`crate::core`] with the round trips that the proxy's workers noted. Compares each network's smoothed
//! figure with what the map says, and keeps a correction only where the map cannot be right. Pure: is handed the
//! time, reads no socket. What is taken back, and when, is said at the constants.

use std::sync::Arc;
use std::time::Duration;

use sealane_model::{Correction, Learned, Location, Network, RegionId, RoundTrip, Timestamp};
use sealane_steering::GeoTable;
use sealane_steering::rank::RTT_MS_PER_KM;

/// Whether this node learns, and against which map.
#[derive(Clone, Debug)]
pub struct LearnRule {
    /// Where this node stands; a region with a known location.
    pub region: RegionId,
    pub geo: Arc<GeoTable>,
}

/// Networks that are remembered (2 MiB, from the first one on). Each has four places, by its
/// hash; when they are taken, the one of them that was silent longest makes way.
pub const NETWORKS_MAX: usize = 65_536;
const WAYS: usize = 4;
/// Connections after which a network's figure counts: one may have been unlucky.
pub const CONNECTIONS_MIN: u16 = 5;
/// A network that was silent for so long is forgotten, and with it its correction: those that were sent elsewhere
/// get a new chance, and teach again.
pub const SILENCE_MAX: Duration = Duration::from_secs(6 * 3_600);
/// The smoothed figure moves by this part of a new one's difference, …
const SMOOTHING: u32 = 8;
/// … which counts for no more than this many times the figure, and no less than that part of it: a lost packet costs a second.
const OUTLIER: u32 = 2;
/// Longer round trips are no round trips: something was lost (RFC 6298 §2.1 waits one second).
const ROUND_TRIP_MAX: Duration = Duration::from_secs(3);

/// Nothing is faster than light in glass: 0.01 ms there and back for each kilometre.
const LIGHT_MS_PER_KM: f64 = 0.01;
/// Clients that are this near, and that the map has where light needs [`IMPOSSIBLE_MS`] longer, are taken to be here.
/// Farther ones are somewhere else than the map says, and nobody knows where.
const NEAR_MS: f64 = 30.0;
const IMPOSSIBLE_MS: f64 = 10.0;
/// … until they are farther than this.
const NEAR_NO_MORE_MS: f64 = 40.0;

/// What a client's own line may take (mobile ones, mostly) is no distance.
const LINE_MS: f64 = 40.0;
/// Clients that need this much longer than the map says are farther, or their way is longer; …
const SLOWER_MS: f64 = 80.0;
/// … until it is less than this.
const SLOWER_NO_MORE_MS: f64 = 50.0;
/// The most that is added for that, as if the region were 7,000 km farther: a satellite's 600 ms are the same
/// everywhere, and must not send anyone around the world.
const SLOWER_MAX_MS: f64 = 100.0;
/// What is added changes in steps of this.
const STEP_MS: f64 = 20.0;

#[derive(Debug)]
pub(crate) struct Learner {
    rule: LearnRule,
    home: Location,
    /// [`NETWORKS_MAX`] long, or empty until somebody is heard of.
    places: Vec<Option<Known>>,
    /// Makes places unforeseeable for those who would fill one.
    seed: u64,
    /// Since the last [`Learner::learned`].
    changed: bool,
    swept: Timestamp,
}

/// What is known of a network.
#[derive(Clone, Copy, Debug)]
struct Known {
    network: Network,
    microseconds: u32,
    connections: u16,
    heard: Timestamp,
    said: Option<Correction>,
}

impl Learner {
    pub(crate) fn new(rule: LearnRule, home: Location, seed: u64, now: Timestamp) -> Self {
        Self {
            rule,
            home,
            places: Vec::new(),
            seed,
            changed: false,
            swept: now,
        }
    }

    /// By another map, or for another region: figures stay, conclusions are drawn anew as connections come.
    pub(crate) fn follow(&mut self, rule: LearnRule, home: Location) {
        let is_same = self.rule.region == rule.region
            && Arc::ptr_eq(&self.rule.geo, &rule.geo)
            && self.home == home;
        if is_same {
            return;
        }
        if self.rule.region != rule.region || self.home != home {
            self.places.clear();
        }
        for known in self.places.iter_mut().flatten() {
            known.said = None;
        }
        (self.rule, self.home, self.changed) = (rule, home, true);
    }

    /// Takes in what was noted. Did a correction change?
    pub(crate) fn hear(&mut self, now: Timestamp, round_trips: &[RoundTrip]) -> bool {
        for one in round_trips {
            self.hear_one(now, one);
        }
        self.sweep(now);
        self.changed
    }

    fn hear_one(&mut self, now: Timestamp, heard: &RoundTrip) {
        if heard.time.is_zero() || heard.time > ROUND_TRIP_MAX {
            return;
        }
        let microseconds = u32::try_from(heard.time.as_micros()).unwrap_or(u32::MAX);
        let network = Network::of(heard.client);
        let located = self.rule.geo.locate(heard.client.to_canonical());
        // Of a network whose parts the map has in several places nothing can be said as a whole; and the operator's
        // word is not doubted.
        let is_whole = located.scope.0 <= network.bits();
        let location = located.location.filter(|_| is_whole);
        let home = self.home;
        let Some(place) = self.place_of(network) else {
            return;
        };
        let before = place.filter(|known| known.network == network);
        let mut known = before.unwrap_or(Known {
            network,
            microseconds,
            connections: 0,
            heard: now,
            said: None,
        });
        known.take(microseconds, now);
        let was_said = place.and_then(|known| known.said);
        known.said = location
            .filter(|_| known.connections >= CONNECTIONS_MIN)
            .and_then(|at| correction(known.milliseconds(), at.kilometres_to(home), known.said));
        let replaced_another = place.is_some_and(|before| before.network != network);
        let changed = was_said != known.said || (replaced_another && was_said.is_some());
        *place = Some(known);
        self.changed |= changed;
    }

    /// The network's own place, a free one, or that of the one that was silent longest.
    fn place_of(&mut self, network: Network) -> Option<&mut Option<Known>> {
        if self.places.is_empty() {
            self.places.resize(NETWORKS_MAX, None);
        }
        let row = row_of(network, self.seed) * WAYS;
        let row = self.places.get_mut(row..row + WAYS)?;
        let own = row
            .iter()
            .position(|place| place.is_some_and(|known| known.network == network));
        let at = own.unwrap_or_else(|| {
            let heard = |place: &Option<Known>| place.map(|known| known.heard);
            let oldest = row.iter().enumerate().min_by_key(|(_, place)| heard(place));
            oldest.map_or(0, |(at, _)| at)
        });
        row.get_mut(at)
    }

    /// Forgets who was silent for long, once a minute.
    fn sweep(&mut self, now: Timestamp) {
        const EVERY: Duration = Duration::from_secs(60);
        if now.since(self.swept) < EVERY {
            return;
        }
        self.swept = now;
        for place in &mut self.places {
            if let Some(known) = place
                && now.since(known.heard) >= SILENCE_MAX
            {
                self.changed |= known.said.is_some();
                *place = None;
            }
        }
    }

    /// How many networks are known.
    pub(crate) fn networks(&self) -> usize {
        self.places.iter().flatten().count()
    }

    /// All corrections.
    pub(crate) fn learned(&mut self) -> Learned {
        self.changed = false;
        let known = self.places.iter().flatten();
        let said = known.filter_map(|known| Some((known.network, known.said?)));
        Learned::new(self.rule.region, said.collect())
    }
}

impl Known {
    fn milliseconds(&self) -> f64 {
        f64::from(self.microseconds) / 1e3
    }

    /// The first ones make a mean, the later ones a smoothed one.
    fn take(&mut self, microseconds: u32, now: Timestamp) {
        self.connections = self.connections.saturating_add(1);
        self.heard = now;
        let figure = self.microseconds;
        let counted = microseconds.clamp(figure / OUTLIER, figure.saturating_mul(OUTLIER));
        let part = u32::from(self.connections).min(SMOOTHING);
        self.microseconds = figure - figure / part + counted / part;
    }
}

/// Which row of places is the network's (`splitmix64` finaliser, Steele 2014).
fn row_of(network: Network, seed: u64) -> usize {
    let mut z = network.number() ^ seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "taken modulo a small number"
    )]
    let row = (z ^ (z >> 31)) as usize % (NETWORKS_MAX / WAYS);
    row
}

/// What a figure says about clients that the map has so many kilometres away. `before`: what was concluded last,
/// which holds a little longer than it would come about.
fn correction(
    milliseconds: f64,
    kilometres: f64,
    before: Option<Correction>,
) -> Option<Correction> {
    let (near, impossible) = match before {
        Some(Correction::Near) => (NEAR_NO_MORE_MS, 0.0),
        _ => (NEAR_MS, IMPOSSIBLE_MS),
    };
    if milliseconds <= near && kilometres * LIGHT_MS_PER_KM > milliseconds + impossible {
        return Some(Correction::Near);
    }
    let over = milliseconds - kilometres * RTT_MS_PER_KM;
    let (least, added) = match before {
        Some(Correction::Slower { milliseconds }) => (SLOWER_NO_MORE_MS, f64::from(milliseconds)),
        _ => (SLOWER_MS, 0.0),
    };
    if over <= least {
        return None;
    }
    let wanted = (over - LINE_MS).min(SLOWER_MAX_MS);
    let stays = added > 0.0 && (wanted - added).abs() < STEP_MS;
    let adds = if stays {
        added
    } else {
        (wanted / STEP_MS).round().max(1.0) * STEP_MS
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between one step and the most"
    )]
    let milliseconds = adds as u16;
    Some(Correction::Slower { milliseconds })
}

#[cfg(test)]
mod tests;
