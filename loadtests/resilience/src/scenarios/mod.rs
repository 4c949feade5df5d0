//! The scenarios: what goes wrong, what is to help, and what it is held to.
//!
//! Each is played twice against fresh endpoints, without the feature and with it. Rates are small, so
//! that what is measured is waiting, and not what the machine can do.

mod canary;
mod endpoints;
mod isolation;
mod overload;
mod regions;
mod retries;
mod sharing;

use std::fmt;
use std::pin::Pin;

use anyhow::Result;

use crate::load::Record;
use crate::numbers::{percent, percentile};
use crate::stage::{Played, Stage};

type Playing<'a> = Pin<Box<dyn Future<Output = Result<Played>> + 'a>>;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) story: &'static str,
    pub(crate) play: for<'a> fn(&'a Stage<'a>) -> Playing<'a>,
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

pub(crate) static ALL: [Scenario; 12] = [
    Scenario {
        name: "slow-endpoint",
        story: "1 of 10 endpoints is 20 times slower",
        play: |stage| Box::pin(endpoints::slow(stage)),
    },
    Scenario {
        name: "stragglers",
        story: "1 % of requests take 500 ms more, wherever they go",
        play: |stage| Box::pin(endpoints::stragglers(stage)),
    },
    Scenario {
        name: "failing-endpoint",
        story: "1 of 10 endpoints answers 500 at once, which is quicker than any other",
        play: |stage| Box::pin(endpoints::failing(stage)),
    },
    Scenario {
        name: "dead-dependency",
        story: "what one route needs never answers again",
        play: |stage| Box::pin(isolation::dead_dependency(stage)),
    },
    Scenario {
        name: "bulkhead",
        story: "one route is asked for more than the pool that it shares can do",
        play: |stage| Box::pin(isolation::bulkhead(stage)),
    },
    Scenario {
        name: "half-capacity",
        story: "half of the endpoints die at three quarters of their load",
        play: |stage| Box::pin(overload::half_capacity(stage)),
    },
    Scenario {
        name: "overload",
        story: "twice, then three times what the endpoints can do is asked of them",
        play: |stage| Box::pin(overload::twice(stage)),
    },
    Scenario {
        name: "coalescing",
        story: "1,000 clients ask the same at once",
        play: |stage| Box::pin(sharing::coalescing(stage)),
    },
    Scenario {
        name: "region-down",
        story: "one of three regions dies, and another one has little room",
        play: |stage| Box::pin(regions::down(stage)),
    },
    Scenario {
        name: "region-slow",
        story: "one of three regions is 200 ms further away",
        play: |stage| Box::pin(regions::slow(stage)),
    },
    Scenario {
        name: "retry-storm",
        story: "all endpoints break off each request",
        play: |stage| Box::pin(retries::storm(stage)),
    },
    Scenario {
        name: "canary",
        story: "a canary that gets a share of the requests turns bad",
        play: |stage| Box::pin(canary::canary(stage)),
    },
];

/// The scenario of this name, for the command line.
pub(crate) fn named(name: &str) -> Result<&'static Scenario, String> {
    let found = ALL.iter().find(|scenario| scenario.name == name);
    found.ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
        format!("one of: {}", names.join(", "))
    })
}

/// The names of both trials, in their order.
const TRIALS: [&str; 2] = ["without", "with"];

fn ms(millis: f64) -> String {
    format!("{millis:.1} ms")
}

fn percents(share: f64) -> String {
    format!("{share:.2} %")
}

/// Of those that were answered well.
fn tail(records: &[&Record], percent: f64) -> f64 {
    percentile(&good(records), percent)
}

fn good<'a>(records: &[&'a Record]) -> Vec<&'a Record> {
    let good = records.iter().filter(|record| record.is_good());
    good.copied().collect()
}

/// The percentage that was answered well.
fn success(records: &[&Record]) -> f64 {
    percent(good(records).len(), records.len())
}

fn of_class<'a>(records: &[&'a Record], class: usize) -> Vec<&'a Record> {
    let of = records.iter().filter(|record| record.class == class);
    of.copied().collect()
}
