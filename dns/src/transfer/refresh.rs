//! When a secondary zone's primaries are asked, and when the zone expires (RFC 1034 §4.3.5, RFC 1035 §3.3.13).
//!
//! Pure: time and chance are handed in. Asks nobody itself.

use std::time::{Duration, Instant};

use crate::config::Soa;

/// Times of an SOA are held within these, so that a careless one neither floods its primary nor is never heard of.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);
/// A zone of which nothing is known yet is asked for again after this, doubled with each failure …
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// … up to this.
const FIRST_RETRY_MAX: Duration = Duration::from_secs(600);
/// An earlier end of a zone than this is taken for a mistake.
const EXPIRE_MIN: Duration = Duration::from_secs(10);
/// What primaries told is asked for no more often than this.
const NOTIFIED_REST: Duration = Duration::from_millis(500);

/// The timers of one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// When it is to be asked for. `None`: it is being asked for.
    next: Option<Instant>,
    /// `None`: there is nothing that could expire.
    expires: Option<Instant>,
    last_begin: Option<Instant>,
    /// Since the last success.
    failures: u32,
    /// A primary told of a change while one was asked.
    is_notified: bool,
}

/// What is to be done about a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Nothing,
    Ask,
    /// Its primaries were not heard of for too long: it must not be answered any more.
    Expire,
}

impl Refresh {
    /// Of a zone of which nothing is known.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            next: Some(now),
            expires: None,
            last_begin: None,
            failures: 0,
            is_notified: false,
        }
    }

    /// Of a zone that was kept over a restart: last heard of `age` ago. It is asked for at once.
    #[must_use]
    pub fn kept(now: Instant, soa: &Soa, age: Duration) -> Self {
        let left = expire(soa).saturating_sub(age);
        Self {
            expires: Some(now + left),
            ..Self::new(now)
        }
    }

    /// To be called again and again; what it says is to be done is done then.
    pub fn step(&mut self, now: Instant) -> Due {
        if self.expires.is_some_and(|expires| expires <= now) {
            self.expires = None;
            return Due::Expire;
        }
        if self.next.is_some_and(|next| next <= now) {
            self.next = None;
            self.last_begin = Some(now);
            self.is_notified = false;
            return Due::Ask;
        }
        Due::Nothing
    }

    /// The next time when something is to be done.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        self.next.into_iter().chain(self.expires).min()
    }

    #[must_use]
    pub const fn expires(&self) -> Option<Instant> {
        self.expires
    }

    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// A primary answered: this is what the zone is now. `chance` lies in 0..1: zones that were loaded
    /// together are not asked for together for ever.
    pub fn succeeded(&mut self, now: Instant, soa: &Soa, chance: f64) {
        self.failures = 0;
        self.expires = Some(now + expire(soa));
        let wait = self.jittered(seconds(soa.refresh), chance);
        self.ask_after(now, wait);
    }

    /// No primary answered as it should. `soa`: of what is there.
    pub fn failed(&mut self, now: Instant, soa: Option<&Soa>, chance: f64) {
        self.failures = self.failures.saturating_add(1);
        let wait = match soa.filter(|_| self.expires.is_some()) {
            Some(soa) => seconds(soa.retry),
            None => {
                let doublings = (self.failures - 1).min(16);
                (FIRST_RETRY * (1 << doublings)).min(FIRST_RETRY_MAX)
            }
        };
        let wait = self.jittered(wait, chance);
        self.ask_after(now, wait);
    }

    /// A primary told of a change (RFC 1996 §4.3).
    pub fn notified(&mut self, now: Instant) {
        match self.next {
            Some(next) => {
                let rested = self.last_begin.map_or(now, |begin| begin + NOTIFIED_REST);
                self.next = Some(next.min(now.max(rested)));
            }
            None => self.is_notified = true,
        }
    }

    fn ask_after(&mut self, now: Instant, wait: Duration) {
        let wait = if self.is_notified {
            NOTIFIED_REST
        } else {
            wait
        };
        self.next = Some(now + wait);
    }

    /// Up to a tenth earlier.
    fn jittered(&self, wait: Duration, chance: f64) -> Duration {
        let wait = wait.clamp(WAIT_MIN, WAIT_MAX);
        wait.mul_f64(1.0 - 0.1 * chance.clamp(0.0, 1.0))
    }
}

fn seconds(ttl: sealane_model::Ttl) -> Duration {
    Duration::from_secs(ttl.as_secs().into())
}

fn expire(soa: &Soa) -> Duration {
    seconds(soa.expire).max(EXPIRE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;
    use crate::transfer::book::no_soa;
    use sealane_model::Ttl;

    fn soa() -> Soa {
        Soa {
            refresh: Ttl::from_secs(3_600),
            retry: Ttl::from_secs(600),
            expire: Ttl::from_secs(86_400),
            ..no_soa(&Name::root())
        }
    }

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "some moment to count from")]
        Instant::now()
    }

    const fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_zone_is_asked_for_at_once_then_each_refresh_and_after_failures_each_retry() {
        let start = start();
        let mut refresh = Refresh::new(start);
        assert_eq!(refresh.step(start), Due::Ask);
        assert_eq!(refresh.step(start + after(5)), Due::Nothing);
        refresh.succeeded(start + after(5), &soa(), 0.0);
        assert_eq!(refresh.step(start + after(3_604)), Due::Nothing);
        assert_eq!(refresh.step(start + after(3_605)), Due::Ask);
        refresh.failed(start + after(3_610), Some(&soa()), 0.0);
        assert_eq!(refresh.step(start + after(4_209)), Due::Nothing);
        assert_eq!(refresh.step(start + after(4_210)), Due::Ask);
    }

    #[test]
    fn zones_loaded_together_drift_apart_by_a_tenth() {
        let start = start();
        let wake = |chance| {
            let mut refresh = Refresh::new(start);
            refresh.step(start);
            refresh.succeeded(start, &soa(), chance);
            refresh.wake().unwrap() - start
        };
        assert_eq!((wake(0.0), wake(1.0)), (after(3_600), after(3_240)));
    }

    #[test]
    fn a_zone_expires_although_it_is_asked_for_and_lives_again_when_it_comes() {
        let start = start();
        let mut refresh = Refresh::new(start);
        refresh.step(start);
        refresh.succeeded(start, &soa(), 0.0);
        let (mut expired_at, mut asked) = (None, 0);
        for second in 1..100_000 {
            let now = start + after(second);
            match refresh.step(now) {
                Due::Nothing => {}
                Due::Ask => {
                    asked += 1;
                    refresh.failed(now, Some(&soa()), 0.0);
                }
                Due::Expire => expired_at = Some(second),
            }
        }
        assert_eq!(expired_at, Some(86_400));
        // One by refresh, then each 600 s, and, when nothing is left, at growing intervals.
        assert!((138..170).contains(&asked), "{asked}");
        let now = start + after(100_000);
        refresh.succeeded(now, &soa(), 0.0);
        assert_eq!(refresh.expires(), Some(now + after(86_400)));
    }

    #[test]
    fn a_zone_that_was_kept_expires_as_if_there_had_been_no_restart() {
        let start = start();
        let mut young = Refresh::kept(start, &soa(), after(86_000));
        assert_eq!(young.step(start), Due::Ask);
        assert_eq!(young.step(start + after(399)), Due::Nothing);
        assert_eq!(young.step(start + after(400)), Due::Expire);
        let mut old = Refresh::kept(start, &soa(), after(90_000));
        assert_eq!(old.step(start), Due::Expire);
        assert_eq!(old.step(start), Due::Ask);
    }

    #[test]
    fn what_is_told_is_asked_for_soon_and_never_forgotten() {
        let start = start();
        let mut refresh = Refresh::new(start);
        refresh.step(start);
        refresh.succeeded(start, &soa(), 0.0);
        refresh.notified(start + after(100));
        assert_eq!(refresh.step(start + after(100)), Due::Ask);
        // Told again while the primary is asked: once more afterwards.
        refresh.notified(start + after(101));
        refresh.succeeded(start + after(102), &soa(), 0.0);
        assert_eq!(refresh.step(start + after(103)), Due::Ask);
        refresh.succeeded(start + after(103), &soa(), 0.0);
        assert_eq!(refresh.step(start + after(200)), Due::Nothing);
    }

    #[test]
    fn a_flood_of_notifications_asks_twice_a_second_at_most() {
        let start = start();
        let mut refresh = Refresh::new(start);
        let mut asked = 0;
        for millis in 0..10_000 {
            let now = start + Duration::from_millis(millis);
            refresh.notified(now);
            if refresh.step(now) == Due::Ask {
                asked += 1;
                refresh.succeeded(now, &soa(), 0.0);
            }
        }
        assert!(asked <= 21, "{asked}");
    }

    #[test]
    fn careless_times_are_held_within_bounds() {
        let start = start();
        let zero = no_soa(&Name::root());
        let mut refresh = Refresh::new(start);
        refresh.step(start);
        refresh.succeeded(start, &zero, 1.0);
        assert!(refresh.wake().unwrap() >= start + Duration::from_millis(900));
        assert_eq!(refresh.expires(), Some(start + EXPIRE_MIN));
    }
}
