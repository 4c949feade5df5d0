//! What each scenario is played on: endpoints, one Sealane at a time, and requests for it.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep_until};

use crate::cli::Flags;
use crate::endpoint::{Behaviour, Endpoint};
use crate::load::{Ask, Load, Record};
use crate::report::{Curve, Row};
use crate::sealane::{Configuration, Sealane};

/// A request that takes longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) flags: &'a Flags,
    pub(crate) folder: &'a Path,
    pub(crate) epoch: Instant,
}

/// What a scenario hands back.
#[derive(Debug, Default)]
pub(crate) struct Played {
    pub(crate) rows: Vec<Row>,
    pub(crate) curves: Vec<Curve>,
}

impl Stage<'_> {
    pub(crate) async fn sealane(&self, configuration: &Configuration) -> Result<Sealane> {
        let flags = self.flags;
        Sealane::start(&flags.sealane, self.folder, flags.base_port, configuration).await
    }

    /// `count` endpoints that behave alike, named after their group: `a0`, `a1`, …
    pub(crate) async fn endpoints(
        &self,
        group: &str,
        count: usize,
        behaviour: Behaviour,
        places: Option<usize>,
    ) -> Result<Vec<Endpoint>> {
        let mut endpoints = Vec::new();
        for number in 0..count {
            let name = format!("{group}{number}");
            let seed = number as u64 + 1;
            endpoints.push(Endpoint::start(&name, seed, behaviour, places, self.epoch).await?);
        }
        Ok(endpoints)
    }

    /// Requests at so many in a second for so many seconds, one phase after the other; `acts` are done
    /// meanwhile.
    pub(crate) async fn trial(
        &self,
        sealane: &Sealane,
        phases: &[(u32, u32)],
        ask: impl Fn(u64) -> Ask,
        acts: Vec<Act<'_>>,
    ) -> Trial {
        let begun = self.epoch.elapsed();
        let load = Load {
            target: sealane.web,
            phases: phases.to_vec(),
            patience: PATIENCE,
            epoch: self.epoch,
            ask,
        };
        let marks = acts.iter().map(|act| (act.at, act.what)).collect();
        let play = async {
            for act in acts {
                sleep_until(self.epoch + begun + act.at).await;
                (act.act)();
            }
        };
        let (records, ()) = tokio::join!(load.run(), play);
        Trial {
            begun,
            records,
            marks,
        }
    }
}

/// Something that is done to endpoints in the midst of a trial.
pub(crate) struct Act<'a> {
    at: Duration,
    what: &'static str,
    act: Box<dyn FnOnce() + 'a>,
}

impl<'a> Act<'a> {
    /// `seconds` after the trial's beginning.
    pub(crate) fn after(seconds: u64, what: &'static str, act: impl FnOnce() + 'a) -> Self {
        Self {
            at: Duration::from_secs(seconds),
            what,
            act: Box::new(act),
        }
    }
}

/// The requests of one trial.
#[derive(Debug)]
pub(crate) struct Trial {
    begun: Duration,
    pub(crate) records: Vec<Record>,
    marks: Vec<(Duration, &'static str)>,
}

impl Trial {
    /// Those that were due in these seconds of it.
    pub(crate) fn between(&self, seconds: Range<f64>) -> Vec<&Record> {
        let clock = self.clock(seconds);
        let within = |record: &&Record| clock.contains(&record.due);
        self.records.iter().filter(within).collect()
    }

    /// How many requests reached these endpoints in these seconds of it.
    pub(crate) fn reached(&self, endpoints: &[Endpoint], seconds: Range<f64>) -> usize {
        let clock = self.clock(seconds);
        let arrivals = endpoints.iter().flat_map(Endpoint::arrivals);
        arrivals.filter(|at| clock.contains(at)).count()
    }

    fn clock(&self, seconds: Range<f64>) -> Range<Duration> {
        let at = |seconds: f64| self.begun + Duration::from_secs_f64(seconds);
        at(seconds.start)..at(seconds.end)
    }

    pub(crate) fn curve(self, name: &'static str) -> Curve {
        Curve::new(name, self.records, self.marks)
    }
}
