//! What is due when: a steady cadence for each endpoint, with jitter, and exceptions to it.
//!
//! Sans-I/O: it is told the time and says what to begin. Used for probes and for looking up host
//! names. At most one of a kind is in flight per endpoint; its end is told with the ticket that
//! its beginning carried, so that a late end of something older is not taken for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sealane_model::{EndpointId, Timestamp};

/// The part of the interval by which a start may come early or late.
pub const JITTER: f64 = 0.1;
/// The first round goes at once; the second is spread over this part of the interval up to all of
/// it, so that endpoints that began together do not stay together.
pub const SPREAD_FROM: f64 = 0.2;

/// How often something is done to one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From start to start.
    pub interval: Duration,
    /// Between two starts that were asked for out of turn.
    pub hasten_min: Duration,
}

/// Something to begin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    pub endpoint: EndpointId,
    pub ticket: Ticket,
}

/// Tells two starts apart. Never given twice by one schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

#[derive(Debug)]
pub struct Schedule {
    entries: BTreeMap<EndpointId, Entry>,
    /// Those that are not in flight, by when they are due.
    queue: BTreeSet<(Timestamp, EndpointId)>,
    tickets: u64,
    random: SplitMix64,
}

#[derive(Debug)]
struct Entry {
    pace: Pace,
    due: Timestamp,
    hastened: Option<Timestamp>,
    in_flight: Option<Ticket>,
    begun: bool,
}

impl Schedule {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            queue: BTreeSet::new(),
            tickets: 0,
            random: SplitMix64(seed),
        }
    }

    /// From now on, beginning at once. One that is there already keeps its turn at the new pace,
    /// at most one new interval from now.
    pub fn add(&mut self, now: Timestamp, endpoint: EndpointId, pace: Pace) {
        if let Some(entry) = self.entries.get_mut(&endpoint) {
            entry.pace = pace;
            let latest = now + pace.interval;
            let due = entry.due.min(latest);
            self.move_to(endpoint, due);
            return;
        }
        let entry = Entry {
            pace,
            due: now,
            hastened: None,
            in_flight: None,
            begun: false,
        };
        self.entries.insert(endpoint, entry);
        self.queue.insert((now, endpoint));
    }

    pub fn remove(&mut self, endpoint: EndpointId) {
        if let Some(entry) = self.entries.remove(&endpoint) {
            self.queue.remove(&(entry.due, endpoint));
        }
    }

    #[must_use]
    pub fn contains(&self, endpoint: EndpointId) -> bool {
        self.entries.contains_key(&endpoint)
    }

    /// Everything whose turn has come; each is in flight from here until [`Schedule::finish`].
    pub fn due(&mut self, now: Timestamp) -> Vec<Started> {
        let mut started = Vec::new();
        while let Some((due, endpoint)) = self.queue.first().copied() {
            if due > now {
                break;
            }
            self.queue.pop_first();
            started.extend(self.begin(now, endpoint));
        }
        started
    }

    /// What was in flight has ended. `false`: that is not known, or was given up; ignore its end.
    pub fn finish(&mut self, now: Timestamp, endpoint: EndpointId, ticket: Ticket) -> bool {
        let Some(entry) = self.entries.get_mut(&endpoint) else {
            return false;
        };
        if entry.in_flight != Some(ticket) {
            return false;
        }
        entry.in_flight = None;
        // One that ran beyond its own next turn goes again at once, not twice.
        entry.due = entry.due.max(now);
        self.queue.insert((entry.due, endpoint));
        true
    }

    /// Moves the next turn to `at`, if that is sooner.
    pub fn sooner(&mut self, endpoint: EndpointId, at: Timestamp) {
        if self
            .entries
            .get(&endpoint)
            .is_some_and(|entry| at < entry.due)
        {
            self.move_to(endpoint, at);
        }
    }

    /// Asks for a turn at once. What is in flight will do; and so does a turn that was asked for
    /// less than [`Pace::hasten_min`] ago, plus one at the end of that time.
    pub fn hasten(&mut self, now: Timestamp, endpoint: EndpointId) {
        let Some(entry) = self.entries.get_mut(&endpoint) else {
            return;
        };
        if entry.in_flight.is_some() {
            return;
        }
        let earliest = entry
            .hastened
            .map_or(now, |last| last + entry.pace.hasten_min);
        let at = earliest.max(now);
        if at < entry.due {
            entry.hastened = Some(at);
            self.move_to(endpoint, at);
        }
    }

    /// When something is due next. `None`: nothing is, until something ends or is added.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.queue.first().map(|(due, _)| *due)
    }

    fn begin(&mut self, now: Timestamp, endpoint: EndpointId) -> Option<Started> {
        let draw = self.random.unit();
        let entry = self.entries.get_mut(&endpoint)?;
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let part = if entry.begun {
            1.0 - JITTER + 2.0 * JITTER * draw
        } else {
            SPREAD_FROM + (1.0 - SPREAD_FROM) * draw
        };
        entry.begun = true;
        entry.in_flight = Some(ticket);
        let interval = entry.pace.interval.min(INTERVAL_MAX).mul_f64(part);
        entry.due = now + interval.max(INTERVAL_MIN);
        Some(Started { endpoint, ticket })
    }

    fn move_to(&mut self, endpoint: EndpointId, at: Timestamp) {
        let Some(entry) = self.entries.get_mut(&endpoint) else {
            return;
        };
        let queued = self.queue.remove(&(entry.due, endpoint));
        entry.due = at;
        if queued {
            self.queue.insert((at, endpoint));
        }
    }
}

/// Timestamps count milliseconds: a shorter interval would be due for ever.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// A longer one counts as this: a day without a look is no watching.
const INTERVAL_MAX: Duration = Duration::from_secs(86_400);

/// A small generator of even numbers (Steele, Lea & Flood 2014); jitter needs no secrecy.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        #[expect(
            clippy::cast_precision_loss,
            reason = "53 bits fit a double's mantissa exactly"
        )]
        let unit = (z >> 11) as f64 / (1_u64 << 53) as f64;
        unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        interval: Duration::from_secs(5),
        hasten_min: Duration::from_secs(1),
    };

    fn id(index: usize) -> EndpointId {
        EndpointId::from_index(index).unwrap()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn with(endpoints: usize) -> Schedule {
        let mut schedule = Schedule::new(7);
        for index in 0..endpoints {
            schedule.add(at(0), id(index), PACE);
        }
        schedule
    }

    #[test]
    fn the_first_round_goes_at_once_and_the_second_is_spread() {
        let mut schedule = with(100);
        let first = schedule.due(at(0));
        assert_eq!(first.len(), 100);
        for started in &first {
            assert!(schedule.finish(at(1), started.endpoint, started.ticket));
        }

        let second: Vec<usize> = (1..=50)
            .map(|tenth| schedule.due(at(tenth * 100)).len())
            .collect();

        assert_eq!(second.iter().sum::<usize>(), 100, "all within one interval");
        assert_eq!(
            second[..9].iter().sum::<usize>(),
            0,
            "none before a fifth of it"
        );
        assert!(second.iter().max() < Some(&12), "evenly: {second:?}");
    }

    #[test]
    fn starts_are_an_interval_apart_give_or_take_a_tenth() {
        let mut schedule = with(1);
        let mut starts = Vec::new();
        for _ in 0..200 {
            let now = schedule.wake_at().unwrap();
            let started = schedule.due(now)[0];
            starts.push(now);
            schedule.finish(
                now + Duration::from_secs(2),
                started.endpoint,
                started.ticket,
            );
        }

        let gaps: Vec<u128> = starts[1..]
            .windows(2)
            .map(|pair| pair[1].since(pair[0]).as_millis())
            .collect();

        assert!(
            gaps.iter().all(|gap| (4_500..=5_500).contains(gap)),
            "{gaps:?}"
        );
        assert!(gaps.iter().any(|gap| *gap < 4_800) && gaps.iter().any(|gap| *gap > 5_200));
    }

    #[test]
    fn only_one_is_in_flight_and_a_late_one_goes_again_at_once_but_once() {
        let mut schedule = with(1);
        let started = schedule.due(at(0))[0];

        assert_eq!(schedule.due(at(60_000)), []);
        assert_eq!(schedule.wake_at(), None);
        assert!(schedule.finish(at(60_000), started.endpoint, started.ticket));
        assert_eq!(schedule.due(at(60_000)).len(), 1);
        assert_eq!(schedule.due(at(60_000)), []);
    }

    #[test]
    fn a_hastened_turn_comes_at_once_and_then_at_most_once_a_second() {
        let mut schedule = with(1);
        let first = schedule.due(at(0))[0];
        schedule.finish(at(1), first.endpoint, first.ticket);

        schedule.hasten(at(10), id(0));
        let hastened = schedule.due(at(10))[0];
        schedule.hasten(at(11), id(0));
        schedule.finish(at(12), hastened.endpoint, hastened.ticket);
        assert_eq!(schedule.due(at(13)), [], "what was in flight did");

        schedule.hasten(at(14), id(0));
        schedule.hasten(at(15), id(0));
        assert_eq!(schedule.due(at(1_009)), []);
        assert_eq!(schedule.due(at(1_010)).len(), 1);
    }

    #[test]
    fn the_end_of_an_older_start_is_not_taken_for_the_newer() {
        let mut schedule = with(1);
        let old = schedule.due(at(0))[0];
        schedule.remove(id(0));
        schedule.add(at(5), id(0), PACE);
        let new = schedule.due(at(5))[0];

        assert!(!schedule.finish(at(6), id(0), old.ticket));
        assert!(schedule.finish(at(7), id(0), new.ticket));
        assert!(!schedule.finish(at(8), id(0), new.ticket), "nor twice");
    }

    #[test]
    fn a_recheck_comes_sooner_and_the_cadence_goes_on_from_it() {
        let mut schedule = with(1);
        let first = schedule.due(at(0))[0];
        schedule.finish(at(100), first.endpoint, first.ticket);
        schedule.sooner(id(0), at(600));

        let recheck = schedule.due(at(600))[0];
        schedule.finish(at(700), recheck.endpoint, recheck.ticket);

        let next = schedule.wake_at().unwrap();
        assert!((at(5_100)..=at(6_100)).contains(&next), "{next:?}");
    }

    #[test]
    fn a_new_pace_brings_a_far_turn_nearer() {
        let mut schedule = with(1);
        let first = schedule.due(at(0))[0];
        schedule.finish(at(1), first.endpoint, first.ticket);
        let quick = Pace {
            interval: Duration::from_millis(200),
            ..PACE
        };

        schedule.add(at(1), id(0), quick);

        assert_eq!(schedule.wake_at(), Some(at(201)));
    }
}
