//! A real ACME server for the tests: Pebble, the test server of Let's Encrypt, on loopback.
//!
//! It validates for real: names are resolved by the DNS server that it is given, and proofs are
//! fetched from the ports that it is given. `make needs-test` installs it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of the harness"
)]

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sealane_testkit::port::free_port;

use crate::world::{curl, text, until};

/// The running server.
pub struct Pebble {
    child: Child,
    folder: PathBuf,
    management: u16,
}

/// Where it will listen, and who vouches for it; known before it runs.
pub struct Place {
    folder: PathBuf,
    port: u16,
    management: u16,
}

/// What it asks and where.
#[derive(Clone, Copy)]
pub struct Outside {
    pub dns: SocketAddr,
    pub http: u16,
    pub tls: u16,
}

impl Place {
    pub fn new(folder: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("directory.pem"), made.cert.pem()).unwrap();
        std::fs::write(
            folder.join("directory.key"),
            made.signing_key.serialize_pem(),
        )
        .unwrap();
        Self {
            folder: folder.to_owned(),
            port: free_port(),
            management: free_port(),
        }
    }

    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// PEM file with the root of the directory's own certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("directory.pem")
    }

    /// Runs the server; returns when it answers.
    pub fn start(&self, outside: Outside) -> Pebble {
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": self.folder.join("directory.pem"),
            "privateKey": self.folder.join("directory.key"),
            "httpPort": outside.http,
            "tlsPort": outside.tls,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        }});
        let file = self.folder.join("pebble.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let log = File::create(self.folder.join("pebble.log")).unwrap();
        let child = Command::new("pebble")
            .arg("-config")
            .arg(&file)
            .args(["-dnsserver", &outside.dns.to_string()])
            // Looks at once instead of within 5 s; keeps refusing one nonce of twenty, and proving
            // is asked for each time.
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("pebble is installed by `make needs-test`");
        let pebble = Pebble {
            child,
            folder: self.folder.clone(),
            management: self.management,
        };
        let directory = self.directory();
        until("pebble answers", || {
            let ca = self.ca();
            let output = curl(&["-sf", "--cacert", ca.to_str().unwrap(), &directory]);
            output.status.success()
        });
        pebble
    }
}

impl Pebble {
    /// PEM file of the root that vouches for what it issues. Another one after each start.
    pub fn root(&self) -> PathBuf {
        let ca = self.folder.join("directory.pem");
        let url = format!("https://localhost:{}/roots/0", self.management);
        let output = curl(&["-sf", "--cacert", ca.to_str().unwrap(), &url]);
        assert!(output.status.success(), "{}", self.log());
        let root = self.folder.join("root.pem");
        std::fs::write(&root, text(&output.stdout)).unwrap();
        root
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("pebble.log")).unwrap_or_default()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- pebble's log ---\n{}", self.log());
        }
    }
}
