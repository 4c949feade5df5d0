//! The proxies that are compared: program, configuration, start.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{self, Child};

/// What the templates' `@NAMES@` stand for.
#[derive(Debug)]
pub(crate) struct Values {
    folder: PathBuf,
    base_port: u16,
    threads: u16,
}

impl Values {
    /// Makes a certificate for this run.
    pub(crate) fn new(folder: &Path, base_port: u16, threads: u16) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])
            .context("no certificate")?;
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let write = |name: &str, text: &str| {
            fs::write(folder.join(name), text).with_context(|| format!("could not write {name}"))
        };
        write("cert.pem", &chain)?;
        write("key.pem", &key)?;
        write("both.pem", &format!("{chain}{key}"))?;
        Ok(Self {
            folder: folder.to_owned(),
            base_port,
            threads,
        })
    }

    pub(crate) fn plain(&self) -> u16 {
        self.base_port + 1
    }

    pub(crate) fn tls(&self) -> u16 {
        self.base_port + 2
    }

    fn fill(&self, template: &str) -> String {
        let path = |name: &str| self.folder.join(name).display().to_string();
        [
            ("@THREADS@", self.threads.to_string()),
            ("@ORIGIN@", self.base_port.to_string()),
            ("@PLAIN@", self.plain().to_string()),
            ("@TLS@", self.tls().to_string()),
            ("@ADMIN@", (self.base_port + 3).to_string()),
            ("@CERT@", path("cert.pem")),
            ("@KEY@", path("key.pem")),
            ("@PEM@", path("both.pem")),
            ("@DIR@", self.folder.display().to_string()),
        ]
        .iter()
        .fold(template.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        })
    }
}

#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    program: PathBuf,
    template: &'static str,
    /// What stands before and behind the configuration's path.
    arguments: &'static [&'static str],
}

impl Subject {
    /// In the order of the table.
    pub(crate) fn all(sealane: Option<&Path>) -> [Self; 3] {
        let built = || PathBuf::from("target/release/sealane");
        [
            Self {
                name: "nginx",
                program: "nginx".into(),
                template: include_str!("../../subjects/proxy/nginx.conf"),
                arguments: &["-c"],
            },
            Self {
                name: "HAProxy",
                program: "haproxy".into(),
                template: include_str!("../../subjects/proxy/haproxy.cfg"),
                arguments: &["-db", "-f"],
            },
            Self {
                name: "Sealane",
                program: sealane.map_or_else(built, Path::to_owned),
                template: include_str!("../../subjects/proxy/sealane.yaml"),
                arguments: &["--log", "warn", "run", "--config"],
            },
        ]
    }

    pub(crate) fn program(&self) -> Result<PathBuf> {
        process::find(&self.program)
    }

    pub(crate) fn start(&self, values: &Values) -> Result<Child> {
        let configuration = values.folder.join(format!("{}.conf", self.name));
        fs::write(&configuration, values.fill(self.template))
            .with_context(|| format!("could not write {}", configuration.display()))?;
        let mut command = Command::new(self.program()?);
        command.args(self.arguments).arg(&configuration);
        let child = Child::start(&mut command, &values.folder)?;
        child.until_it_listens(values.plain())?;
        child.until_it_listens(values.tls())?;
        Ok(child)
    }
}
