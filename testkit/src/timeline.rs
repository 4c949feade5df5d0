//! What a failover looked like from outside, concluded from records of requests and questions.
//!
//! Pure: records in, times and counts out. Times count from the run's epoch in [`Records`], and
//! from the outage (or the healing) in what is concluded.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::load::{DnsRecord, GetRecord};

/// A GET that took longer than this is slow.
pub const SLOW: Duration = Duration::from_secs(1);
/// What errors are counted by.
pub const BUCKET: Duration = Duration::from_millis(100);

/// What was seen while a region was taken away, and perhaps given back.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    pub gets: &'a [GetRecord],
    pub dns: &'a [DnsRecord],
    /// The region that was broken, by name.
    pub region: &'a str,
    pub outage_at: Duration,
    pub heal_at: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// GETs in all, those that failed, those that took longer than [`SLOW`].
    pub sent: usize,
    pub failed: usize,
    pub slow: usize,
    /// GETs that were answered only when asked again on a new connection.
    pub asked_again: usize,
    /// Failed ones that ended before the outage: the system wasn't well to begin with.
    pub failed_before: usize,
    /// GETs that the region answered before the outage.
    pub served_before: usize,
    /// The slowest GET that was answered.
    pub slowest: Duration,
    /// The addresses that DNS gave first before the outage, and not after it.
    pub gone_address: Option<IpAddr>,
    pub outage: Outage,
    pub recovery: Option<Recovery>,
    /// From the outage on, by [`BUCKET`].
    pub buckets: Vec<Bucket>,
}

/// Times since the outage. `None`: it did not happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outage {
    pub first_failure: Option<Duration>,
    pub last_failure: Option<Duration>,
    /// The last GET that took longer than [`SLOW`], or failed after as long: until then users
    /// noticed.
    pub last_slow: Option<Duration>,
    /// The first GET that was sent after the outage and answered by another region.
    pub first_elsewhere: Option<Duration>,
    /// The last GET that the region still answered.
    pub last_from_region: Option<Duration>,
    /// The first DNS answer from which on none names the region.
    pub dns_changed: Option<Duration>,
    /// A DNS question that got no answer, last.
    pub last_dns_failure: Option<Duration>,
}

/// Times since the healing. `None`: it did not happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    pub last_failure: Option<Duration>,
    /// The first GET that was sent after the healing and answered by the region.
    pub first_back: Option<Duration>,
    /// The first DNS answer that names the region again.
    pub dns_back: Option<Duration>,
}

/// GETs that ended in one span of [`BUCKET`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    pub ended: usize,
    pub failed: usize,
    pub slow: usize,
}

/// Something that a user would not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A step took that long, or had not happened when the run ended.
    TooLong {
        what: &'static str,
        took: Option<Duration>,
        limit: Duration,
    },
    Failures(usize),
    /// The region served nobody and was not in DNS: nothing was tested.
    NothingToSee,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong {
                what,
                took: Some(took),
                limit,
            } => write!(
                f,
                "{what} took {} s (limit {} s)",
                secs(*took),
                secs(*limit)
            ),
            Self::TooLong {
                what,
                took: None,
                limit,
            } => write!(f, "{what} did not happen (limit {} s)", secs(*limit)),
            Self::Failures(count) => write!(f, "{count} GETs failed"),
            Self::NothingToSee => f.write_str("the region neither served nor was named before"),
        }
    }
}

fn secs(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64())
}

impl Timeline {
    #[must_use]
    pub fn of(records: &Records<'_>) -> Self {
        let before = |get: &&GetRecord| get.end < records.outage_at;
        let count =
            |wanted: fn(&GetRecord) -> bool| records.gets.iter().filter(|g| wanted(g)).count();
        let answered = records.gets.iter().filter(|get| !get.failed());
        let gone_address = gone_address(records);
        Self {
            sent: records.gets.len(),
            failed: count(GetRecord::failed),
            slow: count(is_slow),
            asked_again: count(|get| get.outcome.as_ref().is_ok_and(|reply| reply.asked_again)),
            failed_before: records
                .gets
                .iter()
                .filter(before)
                .filter(|g| g.failed())
                .count(),
            served_before: served_by_region(records).filter(before).count(),
            slowest: answered.map(GetRecord::took).max().unwrap_or_default(),
            gone_address,
            outage: outage(records, gone_address),
            recovery: records
                .heal_at
                .map(|at| recovery(records, at, gone_address)),
            buckets: buckets(records),
        }
    }

    /// How long until nothing failed any more, the region answered nobody, and DNS named it no
    /// longer. `None` when that had not come about.
    #[must_use]
    pub fn whole_failover(&self) -> Option<Duration> {
        let Outage {
            last_failure,
            last_from_region,
            dns_changed,
            first_elsewhere,
            ..
        } = self.outage;
        if self.gone_address.is_some() && dns_changed.is_none() {
            return None;
        }
        if self.sent > 0 && first_elsewhere.is_none() {
            return None;
        }
        let steps = [last_failure, last_from_region, dns_changed, first_elsewhere];
        Some(steps.into_iter().flatten().max().unwrap_or_default())
    }

    /// What a user would not accept: the whole took `limit` or longer, GETs failed though none
    /// may, or nothing was tested.
    #[must_use]
    pub fn problems(&self, limit: Duration, no_failures: bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        let took = self.whole_failover();
        if took.is_none_or(|took| took >= limit) {
            let what = "the failover";
            problems.push(Problem::TooLong { what, took, limit });
        }
        if no_failures && self.failed > 0 {
            problems.push(Problem::Failures(self.failed));
        }
        if self.served_before == 0 && self.gone_address.is_none() {
            problems.push(Problem::NothingToSee);
        }
        problems
    }

    /// Errors over time, a sign for each [`BUCKET`] from the outage on: `.` none ended, `▁` all
    /// well, `▂`–`█` the share that failed.
    #[must_use]
    pub fn sparkline(&self) -> String {
        const SIGNS: [char; 7] = ['▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let sign = |bucket: &Bucket| match (bucket.ended, bucket.failed) {
            (0, _) => '.',
            (_, 0) => '▁',
            (ended, failed) => SIGNS[(failed * SIGNS.len()).div_ceil(ended) - 1],
        };
        self.buckets.iter().map(sign).collect()
    }
}

fn is_slow(get: &GetRecord) -> bool {
    get.took() > SLOW
}

fn served_by_region<'a>(records: &Records<'a>) -> impl Iterator<Item = &'a GetRecord> {
    let region = records.region;
    let gets = records.gets.iter();
    gets.filter(move |get| get.region() == Some(region) && !get.failed())
}

/// What DNS answered first, last before the outage.
fn gone_address(records: &Records<'_>) -> Option<IpAddr> {
    let before = records.dns.iter().filter(|dns| dns.end < records.outage_at);
    let last = before.rev().find_map(|dns| dns.outcome.as_ref().ok())?;
    last.addresses.first().copied()
}

fn outage(records: &Records<'_>, gone: Option<IpAddr>) -> Outage {
    let end = records.heal_at.unwrap_or(Duration::MAX);
    let (from, span) = (records.outage_at, records.outage_at..end);
    let since = |at: Duration| at.saturating_sub(from);
    let failures = || {
        let failed = records.gets.iter().filter(|get| get.failed());
        failed.map(|get| get.end).filter(|at| span.contains(at))
    };
    let elsewhere = records.gets.iter().filter(|get| {
        let other = get.region().is_some_and(|region| region != records.region);
        span.contains(&get.due) && span.contains(&get.end) && other && !get.failed()
    });
    let still = served_by_region(records).map(|get| get.end);
    let slow = records.gets.iter().filter(|get| is_slow(get));
    let dns = || records.dns.iter().filter(|dns| span.contains(&dns.end));
    let dns_failures = dns().filter(|dns| dns.outcome.is_err());
    Outage {
        first_failure: failures().min().map(since),
        last_failure: failures().max().map(since),
        last_slow: slow
            .map(|get| get.end)
            .filter(|at| span.contains(at))
            .max()
            .map(since),
        first_elsewhere: elsewhere.map(|get| get.end).min().map(since),
        last_from_region: still.filter(|at| span.contains(at)).max().map(since),
        dns_changed: gone.and_then(|gone| changed(dns(), gone)).map(since),
        last_dns_failure: dns_failures.map(|dns| dns.end).max().map(since),
    }
}

/// The end of the first answer after the last one that named `gone`.
fn changed<'a>(dns: impl Iterator<Item = &'a DnsRecord>, gone: IpAddr) -> Option<Duration> {
    let mut changed = None;
    for record in dns {
        match &record.outcome {
            Ok(reply) if reply.addresses.contains(&gone) => changed = None,
            Ok(_) => changed = changed.or(Some(record.end)),
            Err(_) => {}
        }
    }
    changed
}

fn recovery(records: &Records<'_>, heal_at: Duration, gone: Option<IpAddr>) -> Recovery {
    let after = |at: &Duration| *at >= heal_at;
    let since = |at: Duration| at.saturating_sub(heal_at);
    let failed = records.gets.iter().filter(|get| get.failed());
    // Those that hung there since before are answered at once; they are no sign of a return.
    let back = served_by_region(records).filter(|get| get.due >= heal_at);
    let named = records.dns.iter().filter(|dns| {
        let reply = dns.outcome.as_ref().ok();
        reply
            .zip(gone)
            .is_some_and(|(reply, gone)| reply.addresses.contains(&gone))
    });
    Recovery {
        last_failure: failed.map(|get| get.end).filter(after).max().map(since),
        first_back: back.map(|get| get.end).min().map(since),
        dns_back: named.map(|dns| dns.end).filter(after).min().map(since),
    }
}

fn buckets(records: &Records<'_>) -> Vec<Bucket> {
    let mut buckets: Vec<Bucket> = Vec::new();
    for get in records.gets {
        let Some(since) = get.end.checked_sub(records.outage_at) else {
            continue;
        };
        let index = usize::try_from(since.as_millis() / BUCKET.as_millis()).unwrap_or(usize::MAX);
        if index >= 100_000 {
            continue;
        }
        if buckets.len() <= index {
            buckets.resize(index + 1, Bucket::default());
        }
        let bucket = &mut buckets[index];
        bucket.ended += 1;
        bucket.failed += usize::from(get.failed());
        bucket.slow += usize::from(is_slow(get));
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{DnsReply, Reply};

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn served(due: u64, took: u64, region: &str) -> GetRecord {
        GetRecord {
            due: ms(due),
            end: ms(due + took),
            outcome: Ok(Reply {
                status: 200,
                region: Some(region.to_owned()),
                endpoint: None,
                asked_again: false,
            }),
        }
    }

    fn failed(due: u64, took: u64) -> GetRecord {
        GetRecord {
            due: ms(due),
            end: ms(due + took),
            outcome: Err("refused".to_owned()),
        }
    }

    fn answer(due: u64, addresses: &[&str]) -> DnsRecord {
        DnsRecord {
            due: ms(due),
            end: ms(due + 1),
            outcome: Ok(DnsReply {
                rcode: 0,
                addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
                ttl: Some(10),
                scope: Some(24),
            }),
        }
    }

    const EU: &str = "192.0.2.1";
    const US: &str = "198.51.100.1";

    fn timeline(gets: &[GetRecord], dns: &[DnsRecord], heal_at: Option<u64>) -> Timeline {
        Timeline::of(&Records {
            gets,
            dns,
            region: "eu",
            outage_at: ms(1_000),
            heal_at: heal_at.map(ms),
        })
    }

    #[test]
    fn an_outage_and_its_healing_are_told_step_by_step() {
        let gets = [
            served(0, 5, "eu"),
            served(990, 30, "eu"),
            failed(1_100, 250),
            served(1_200, 1_500, "us"),
            served(2_800, 5, "us"),
            served(4_000, 1_100, "eu"),
            served(6_000, 5, "us"),
            served(7_000, 5, "eu"),
        ];
        let dns = [
            answer(900, &[EU, US]),
            answer(1_500, &[US]),
            answer(1_600, &[EU, US]),
            answer(4_000, &[US]),
            answer(4_100, &[US]),
            answer(8_000, &[EU, US]),
        ];

        let told = timeline(&gets, &dns, Some(5_000));

        assert_eq!((told.sent, told.failed, told.slow), (8, 1, 2));
        assert_eq!((told.failed_before, told.served_before), (0, 1));
        let outage = &told.outage;
        assert_eq!(outage.last_failure, Some(ms(350)));
        assert_eq!(outage.first_elsewhere, Some(ms(1_700)));
        assert_eq!(outage.last_slow, Some(ms(1_700)));
        assert_eq!(outage.last_from_region, Some(ms(20)));
        assert_eq!(outage.dns_changed, Some(ms(3_001)));
        let recovery = told.recovery.clone().unwrap();
        assert_eq!(recovery.first_back, Some(ms(2_005)));
        assert_eq!(recovery.dns_back, Some(ms(3_001)));
        assert_eq!(told.whole_failover(), Some(ms(3_001)));
        assert_eq!(told.problems(ms(30_000), false), []);
        assert_eq!(told.problems(ms(30_000), true), [Problem::Failures(1)]);
        assert!(told.sparkline().starts_with("▁..█"), "{}", told.sparkline());
    }

    #[test]
    fn what_never_happens_is_a_problem() {
        let gets = [served(0, 5, "eu"), served(1_500, 5, "us")];
        let dns = [answer(900, &[EU]), answer(31_000, &[EU])];

        let told = timeline(&gets, &dns, None);

        let limit = ms(30_000);
        let what = "the failover";
        let never = Problem::TooLong {
            what,
            took: None,
            limit,
        };
        assert_eq!(told.problems(limit, true), [never]);
    }

    #[test]
    fn a_region_that_nobody_used_tests_nothing() {
        let told = timeline(&[served(1_500, 5, "us")], &[], None);

        assert_eq!(told.problems(ms(30_000), true), [Problem::NothingToSee]);
    }
}
