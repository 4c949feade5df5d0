//! How full a region is, and which share of those who choose it it has room for.
//!
//! What a region has no room for goes to the next best one, a share of keys at a time. The share falls
//! at once when more comes than the region can carry: that is the failure which it averts. It rises
//! slowly, so that two regions do not throw the same clients to and fro. Pure: takes counts and times,
//! knows no pool. Measured is what this node sends; what others send is not seen.

use std::time::Duration;

use sealane_model::{Room, Timestamp, TrafficCounts};

/// A region is filled to this part of its capacity, so that chance does not push it over.
pub const FILL_MAX: f64 = 0.95;
/// How fast the share that is accepted rises: ten points in ten seconds.
pub const RISE_PER_SECOND: f64 = 0.01;
/// The share never falls below this: what nobody chooses, nobody measures.
pub const ACCEPTS_MIN: f64 = 0.001;
/// How long the share may rise freely after another region has left: what will come is guessed first
/// and measured then.
pub const GUESSED_FOR: Duration = Duration::from_secs(10);
/// A sample of so many arrivals is right to 5 %, and counts as much as all before it together …
const TELLING: f64 = 400.0;
/// … but no more than this, and no sample less than this.
const SAMPLE_MAX: f64 = 0.6;
const SAMPLE_MIN: f64 = 0.1;
/// Samples of less than this are joined with the next one.
const SAMPLE_TIME_MIN: Duration = Duration::from_millis(500);

/// One region of one pool.
#[derive(Clone, Debug)]
pub struct Demand {
    counted: Option<(Timestamp, TrafficCounts)>,
    /// Who chooses the region, a second, whether it takes them or not.
    chosen: f64,
    /// Of those that it would take, those that went elsewhere because a second was full.
    turned: f64,
    /// Who comes after failed attempts elsewhere, where there was room in that second.
    extra: f64,
    /// Who comes although no region has room.
    excess: f64,
    /// Who would, and is refused.
    shed: f64,
    accepts: f64,
    guessed_until: Timestamp,
}

impl Default for Demand {
    fn default() -> Self {
        Self {
            counted: None,
            chosen: 0.0,
            turned: 0.0,
            extra: 0.0,
            excess: 0.0,
            shed: 0.0,
            accepts: 1.0,
            guessed_until: Timestamp::default(),
        }
    }
}

impl Demand {
    /// Takes in what was counted until now. `limit`: what the region can carry, a second.
    pub fn count(&mut self, now: Timestamp, counts: &TrafficCounts, limit: f64) {
        let Some((before, last)) = self.counted else {
            self.counted = Some((now, *counts));
            return;
        };
        let time = now.since(before);
        if time < SAMPLE_TIME_MIN {
            return;
        }
        self.counted = Some((now, *counts));
        let (seconds, new) = (time.as_secs_f64(), counts.since(&last));
        let rate = |count: u64| as_f64(count) / seconds;
        let came = new.drawn.saturating_add(new.turned);
        let part = (as_f64(came) / TELLING).clamp(SAMPLE_MIN, SAMPLE_MAX);
        let smooth = |before: f64, sample: f64| before + part * (sample - before);
        self.chosen = smooth(self.chosen, rate(came) / self.accepts);
        self.turned = smooth(self.turned, rate(new.turned));
        self.extra = smooth(self.extra, rate(new.extra));
        self.excess = smooth(self.excess, rate(new.excess));
        self.shed = smooth(self.shed, rate(new.shed));
        self.settle(now, seconds, limit);
    }

    /// Another region has left, and so many a second are likely to choose this one now. Guessed at
    /// once: measuring takes seconds, in which this region would be pushed over.
    pub fn brace(&mut self, now: Timestamp, chosen: f64, limit: f64) {
        self.chosen = self.chosen.max(chosen);
        // What was counted until now came before: it says nothing of what will come.
        self.counted = None;
        self.guessed_until = now + GUESSED_FOR;
        self.settle(now, 0.0, limit);
    }

    /// What came of its own accord and was taken, a second.
    #[must_use]
    pub fn taken(&self) -> f64 {
        (self.chosen * self.accepts - self.turned).max(0.0)
    }

    /// What looks for a place here or anywhere, a second.
    #[must_use]
    pub fn wanted(&self) -> f64 {
        self.taken() + self.excess + self.shed
    }

    /// What may be taken of those who choose the region, a second.
    #[must_use]
    pub fn room_to_fill(&self, limit: f64) -> f64 {
        limit * FILL_MAX - self.extra
    }

    /// As the world is told.
    #[must_use]
    pub fn room(&self, limit: f64) -> Room {
        Room {
            limit,
            load: self.taken() + self.extra + self.excess,
            excess: self.excess + self.shed,
            accepts: self.accepts,
        }
    }

    fn settle(&mut self, now: Timestamp, seconds: f64, limit: f64) {
        let has_room_for = self.room_to_fill(limit) / self.chosen;
        let target = if self.chosen > 0.0 {
            has_room_for.clamp(ACCEPTS_MIN, 1.0)
        } else {
            1.0
        };
        let rise = if now < self.guessed_until {
            1.0
        } else {
            RISE_PER_SECOND * seconds
        };
        self.accepts = target.min(self.accepts + rise);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 2^53, which no second brings"
)]
const fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
