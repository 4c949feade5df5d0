//! What one route's rate rules have counted, and what makes them give way.
//!
//! Shared by all workers, asked by `http::rate_limit`, kept over reloads. The counting itself is in
//! [`super::rate`]. Knows no request.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, SharedString, counter, gauge};

use super::rate::{Multiplier, RateTable, Second};
use crate::config::{AdaptiveRate, RateKey, RateRule, Route};

/// What one route's rules have counted; shared by all workers, kept over reloads while rule and route
/// keep their names and the rule says the same.
#[derive(Debug)]
pub(crate) struct Rates {
    pub(crate) rules: Vec<Arc<RateState>>,
    /// The value of `RateLimit-Policy`.
    pub(crate) policy: Box<str>,
    is_adaptive: bool,
}

pub(crate) struct RateState {
    pub(crate) rule: RateRule,
    pub(crate) table: RateTable,
    pub(crate) adaptive: Option<Adaptive>,
    pub(crate) limited: Counter,
    forgotten: Counter,
}

impl Rates {
    pub(crate) fn new(rule: &Route, old: Option<&Self>) -> Self {
        let rules = &rule.options.limits.rates;
        let kept = |rule: &RateRule| {
            let mut kept = old.iter().flat_map(|old| &old.rules);
            kept.find(|kept| kept.rule == *rule)
        };
        let states = rules.iter().map(|one| match kept(one) {
            Some(kept) => Arc::clone(kept),
            None => Arc::new(RateState::new(one, &rule.name)),
        });
        Self {
            rules: states.collect(),
            policy: policy(rules).into(),
            is_adaptive: rules.iter().any(|rule| rule.adaptive.is_some()),
        }
    }

    pub(crate) fn is_adaptive(&self) -> bool {
        self.is_adaptive
    }

    /// An answer's head came after so long.
    pub(crate) fn note_answer(&self, took: Duration, now: Instant) {
        for state in &self.rules {
            if let Some(adaptive) = &state.adaptive {
                adaptive.note_answer(took);
                adaptive.look(now, &state.table);
            }
        }
    }

    /// A request found no place.
    pub(crate) fn note_shed(&self) {
        let adaptive = self
            .rules
            .iter()
            .filter_map(|state| state.adaptive.as_ref());
        for adaptive in adaptive {
            adaptive.shed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes what is told now and then.
    pub(crate) fn show(&self) {
        for state in &self.rules {
            state.forgotten.absolute(state.table.forgotten());
        }
    }
}

/// Rounded up: a client that comes a moment too early is refused once more.
pub(crate) fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// `"name";q=200;w=2`: the burst, and how long it takes to come back.
fn policy(rules: &[RateRule]) -> String {
    let one = |rule: &RateRule| {
        let window = rule
            .rate
            .per
            .mul_f64(f64::from(rule.burst) / f64::from(rule.rate.count.max(1)));
        format!(
            "\"{}\";q={};w={}",
            rule.name,
            rule.burst,
            seconds(window).max(1)
        )
    };
    rules.iter().map(one).collect::<Vec<_>>().join(", ")
}

impl RateState {
    fn new(rule: &RateRule, route: &Arc<str>) -> Self {
        let keys = match rule.key {
            RateKey::Route => 1,
            _ => rule.keys,
        };
        let route = || SharedString::from(Arc::clone(route));
        let name = || SharedString::from(Arc::clone(&rule.name));
        let share = || gauge!("proxy_rate_share", "route" => route(), "rule" => name());
        Self {
            table: RateTable::new(rule.rate, rule.burst, keys),
            adaptive: rule
                .adaptive
                .map(|adaptive| Adaptive::new(adaptive, share())),
            limited: counter!("proxy_rate_limited_total", "route" => route(), "rule" => name()),
            forgotten: counter!("proxy_rate_forgotten_total", "route" => route(), "rule" => name()),
            rule: rule.clone(),
        }
    }
}

impl std::fmt::Debug for RateState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateState")
            .field("rule", &self.rule)
            .finish_non_exhaustive()
    }
}

/// One client: an IPv4 address, or the IPv6 /64 that one host can have all of.
pub(crate) fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        // Global addresses begin with 001: no IPv4 address looks like one of these.
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64 | 1 << 63,
    }
}

/// What makes a rule give way, counted over one second.
pub(crate) struct Adaptive {
    rule: AdaptiveRate,
    answers: AtomicU32,
    slow: AtomicU32,
    shed: AtomicU32,
    origin: OnceLock<Instant>,
    /// Seconds since the origin that are settled.
    settled: AtomicU32,
    multiplier: Mutex<Multiplier>,
    share: Gauge,
}

impl Adaptive {
    fn new(rule: AdaptiveRate, share: Gauge) -> Self {
        share.set(1.0);
        Self {
            rule,
            answers: AtomicU32::new(0),
            slow: AtomicU32::new(0),
            shed: AtomicU32::new(0),
            origin: OnceLock::new(),
            settled: AtomicU32::new(0),
            multiplier: Mutex::new(Multiplier::new(rule.floor)),
            share,
        }
    }

    fn note_answer(&self, took: Duration) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if took > self.rule.latency {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Settles the seconds that have passed.
    pub(crate) fn look(&self, now: Instant, table: &RateTable) {
        let origin = *self.origin.get_or_init(|| now);
        let second = now.saturating_duration_since(origin).as_secs();
        let second = u32::try_from(second).unwrap_or(u32::MAX);
        let settled = self.settled.load(Ordering::Relaxed);
        if second <= settled {
            return;
        }
        // Whoever comes second leaves it to the one who is at it.
        let Ok(mut multiplier) = self.multiplier.try_lock() else {
            return;
        };
        if self.settled.swap(second, Ordering::Relaxed) != settled {
            return;
        }
        multiplier.step(Second {
            answers: self.answers.swap(0, Ordering::Relaxed),
            slow: self.slow.swap(0, Ordering::Relaxed),
            shed: self.shed.swap(0, Ordering::Relaxed),
        });
        // Nothing happened in the others; twenty of them lead from nothing to all.
        for _ in 1..(second - settled).min(20) {
            multiplier.step(Second::default());
        }
        table.set_multiplier(multiplier.share());
        self.share.set(multiplier.share());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rate;

    fn rule(name: &str, count: u32, per: Duration, burst: u32) -> RateRule {
        RateRule {
            name: name.into(),
            key: RateKey::Client,
            rate: Rate { count, per },
            burst,
            keys: 8,
            adaptive: None,
        }
    }

    #[test]
    fn a_policy_is_the_burst_and_the_time_that_it_takes_to_come_back() {
        let second = Duration::from_secs(1);
        let rules = [
            rule("client", 100, second, 200),
            rule("daily", 1_000, second * 86_400, 1_000),
            rule("quick", 1_000, second, 10),
        ];
        assert_eq!(
            policy(&rules),
            "\"client\";q=200;w=2, \"daily\";q=1000;w=86400, \"quick\";q=10;w=1"
        );
    }

    #[test]
    fn a_host_cannot_be_more_clients_than_it_has_networks() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1:2:3"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.1"));
        assert_ne!(network("0.0.0.1"), network("::1"));
    }

    #[test]
    fn a_slow_second_takes_three_tenths_and_quiet_ones_give_them_back() {
        let adaptive = Adaptive::new(
            AdaptiveRate {
                latency: Duration::from_millis(100),
                floor: 0.1,
            },
            gauge!("test"),
        );
        let second = Duration::from_secs(1);
        let table = RateTable::new(
            Rate {
                count: 10,
                per: second,
            },
            1,
            8,
        );
        #[expect(
            clippy::disallowed_methods,
            reason = "only the start of a virtual time"
        )]
        let begin = Instant::now();
        let share = |adaptive: &Adaptive| adaptive.multiplier.lock().unwrap().share();
        adaptive.look(begin, &table);
        for _ in 0..100 {
            adaptive.note_answer(Duration::from_millis(150));
        }
        adaptive.look(begin + second / 2, &table);
        assert_eq!(share(&adaptive), 1.0);
        adaptive.look(begin + second, &table);
        assert!((share(&adaptive) - 0.7).abs() < 1e-9);
        adaptive.look(begin + second * 3, &table);
        assert!((share(&adaptive) - 0.8).abs() < 1e-9);
        adaptive.shed.fetch_add(1, Ordering::Relaxed);
        adaptive.look(begin + second * 4, &table);
        assert!((share(&adaptive) - 0.56).abs() < 1e-9);
        adaptive.look(begin + second * 1_000, &table);
        assert_eq!(share(&adaptive), 1.0);
    }
}
