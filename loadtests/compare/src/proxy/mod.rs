//! Reverse proxies, loaded with wrk and h2load.

mod load;
pub(crate) mod origin;
mod subject;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::cli::Options;
use crate::process::Child;
use crate::{Compared, start_origin};
use load::Test;
use subject::{Subject, Values};

#[derive(Debug)]
pub(crate) struct Bench {
    subjects: [Subject; 3],
    values: Values,
    seconds: u16,
    _origin: Child,
    _folder: TempDir,
}

impl Bench {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let folder = tempfile::tempdir().context("no folder for scratch")?;
        Ok(Self {
            subjects: Subject::all(options.sealane.as_deref()),
            values: Values::new(folder.path(), options.base_port, options.threads)?,
            seconds: options.seconds,
            _origin: start_origin(options.base_port, folder.path())?,
            _folder: folder,
        })
    }

    fn subject(&self, name: &str) -> Result<&Subject> {
        let found = self.subjects.iter().find(|subject| subject.name == name);
        found.with_context(|| format!("there is no {name}"))
    }
}

impl Compared for Bench {
    const UNIT: &'static str = "request";

    fn work(&self) -> Vec<&'static str> {
        Test::ALL.map(Test::name).to_vec()
    }

    fn servers(&self) -> Vec<&'static str> {
        self.subjects.iter().map(|subject| subject.name).collect()
    }

    fn missing(&self, server: &str) -> Option<String> {
        let program = self.subject(server).and_then(Subject::program);
        program.err().map(|error| format!("{error:#}"))
    }

    fn start(&self, server: &str) -> Result<Child> {
        self.subject(server)?.start(&self.values)
    }

    fn load(&self, _server: &str, work: &str) -> Result<Option<u64>> {
        let test = Test::ALL.into_iter().find(|test| test.name() == work);
        let test = test.with_context(|| format!("there is no {work}"))?;
        let done = test.run(&self.values, self.seconds)?;
        ensure!(done.failed == 0, "{} requests failed", done.failed);
        Ok(Some(done.requests))
    }
}
