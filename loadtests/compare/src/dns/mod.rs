//! Name servers, loaded with dnsperf.

mod load;
mod subject;
mod zones;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::cli::Options;
use crate::process::Child;
use crate::{Compared, start_origin};
use load::{Done, Test};
use subject::{Server, Values};

/// Of the questions, at most so many may get no answer: datagrams are lost where a queue is full.
const LOST_MAX: f64 = 0.001;
/// Seconds.
const WARM_UP: u16 = 1;

#[derive(Debug)]
pub(crate) struct Bench {
    values: Values,
    seconds: u16,
    /// What Sealane's probes find well.
    _origin: Child,
    _folder: TempDir,
}

impl Bench {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let folder = tempfile::tempdir().context("no folder for scratch")?;
        zones::write(folder.path())?;
        for test in Test::ALL {
            test.write_questions(folder.path())?;
        }
        Ok(Self {
            values: Values::new(folder.path(), options),
            seconds: options.seconds,
            _origin: start_origin(options.base_port, folder.path())?,
            _folder: folder,
        })
    }
}

fn server(name: &str) -> Result<Server> {
    let found = Server::ALL.into_iter().find(|server| server.name() == name);
    found.with_context(|| format!("there is no {name}"))
}

impl Compared for Bench {
    const UNIT: &'static str = "question";

    fn work(&self) -> Vec<&'static str> {
        Test::ALL.map(Test::name).to_vec()
    }

    fn servers(&self) -> Vec<&'static str> {
        Server::ALL.map(Server::name).to_vec()
    }

    fn missing(&self, name: &str) -> Option<String> {
        let program = server(name).and_then(|server| server.program(&self.values));
        program.err().map(|error| format!("{error:#}"))
    }

    fn start(&self, name: &str) -> Result<Child> {
        let child = server(name)?.start(&self.values)?;
        // Not measured: until caches are warm, every server costs more.
        Test::Host.run(&self.values, WARM_UP)?;
        Ok(child)
    }

    fn load(&self, name: &str, work: &str) -> Result<Option<u64>> {
        let test = Test::ALL.into_iter().find(|test| test.name() == work);
        let test = test.with_context(|| format!("there is no {work}"))?;
        if !server(name)?.does(test) {
            return Ok(None);
        }
        let Done {
            answered,
            lost,
            wrong,
        } = test.run(&self.values, self.seconds)?;
        ensure!(wrong == 0, "{work}: {wrong} wrong answers");
        let lost_max = (answered as f64 * LOST_MAX) as u64;
        ensure!(lost <= lost_max, "{work}: {lost} questions got no answer");
        Ok(Some(answered))
    }
}
