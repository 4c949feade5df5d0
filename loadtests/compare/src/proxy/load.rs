//! The loads: wrk for HTTP/1, h2load for HTTP/2 and for new connections.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::subject::Values;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Http1,
    Http1Large,
    Http1Tls,
    Http2Tls,
    NewTls,
}

/// What a load came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
}

impl Test {
    pub(crate) const ALL: [Self; 5] = [
        Self::Http1,
        Self::Http1Large,
        Self::Http1Tls,
        Self::Http2Tls,
        Self::NewTls,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1, 1 KiB",
            Self::Http1Large => "HTTP/1, 64 KiB",
            Self::Http1Tls => "HTTP/1 over TLS, 1 KiB",
            Self::Http2Tls => "HTTP/2 over TLS, 1 KiB",
            Self::NewTls => "new TLS connection",
        }
    }

    pub(crate) fn run(self, values: &Values, seconds: u16) -> Result<Done> {
        let plain = |path: &str| format!("http://127.0.0.1:{}/{path}", values.plain());
        let tls = format!("https://127.0.0.1:{}/1k", values.tls());
        match self {
            Self::Http1 => wrk(&plain("1k"), seconds),
            Self::Http1Large => wrk(&plain("64k"), seconds),
            Self::Http1Tls => wrk(&tls, seconds),
            Self::Http2Tls => {
                let duration = format!("--duration={seconds}");
                h2load(&["-c10", "-m32", &duration, &tls])
            }
            // A connection for each request: as many as are made in about that time.
            Self::NewTls => {
                let count = u32::from(seconds) * 500;
                let requests = format!("-n{count}");
                let clients = format!("-c{count}");
                h2load(&["--h1", "-r500", &requests, &clients, &tls])
            }
        }
    }
}

fn wrk(url: &str, seconds: u16) -> Result<Done> {
    let duration = format!("-d{seconds}s");
    let text = output("wrk", &["-t1", "-c64", &duration, url])?;
    read_wrk(&text).with_context(|| format!("wrk said:\n{text}"))
}

fn read_wrk(text: &str) -> Option<Done> {
    let requests = word_before(text, "requests in")?;
    let unlike = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses: "));
    let errors = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Socket errors: "));
    let of_sockets = errors.into_iter().flat_map(|line| line.split([' ', ',']));
    let failed: u64 = of_sockets
        .chain(unlike)
        .filter_map(|word| word.parse::<u64>().ok())
        .sum();
    Some(Done { requests, failed })
}

fn h2load(arguments: &[&str]) -> Result<Done> {
    let text = output("h2load", arguments)?;
    read_h2load(&text).with_context(|| format!("h2load said:\n{text}"))
}

/// Of the line that begins with `requests:`.
fn read_h2load(text: &str) -> Option<Done> {
    let line = text.lines().find(|line| line.starts_with("requests: "))?;
    Some(Done {
        requests: word_before(line, "succeeded")?,
        failed: word_before(line, "failed")?,
    })
}

fn word_before(text: &str, what: &str) -> Option<u64> {
    let (before, _) = text.split_once(what)?;
    before.split_whitespace().next_back()?.parse().ok()
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let done = Command::new(program).args(arguments).output();
    let done = done.with_context(|| {
        format!("could not start {program} (Debian: apt-get install wrk nghttp2-client)")
    })?;
    ensure!(
        done.status.success(),
        "{program} ended with {}",
        done.status
    );
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_counted() {
        let clean = "  155 requests in 4.01s, 44.76MB read\nRequests/sec: 9\n";
        let (requests, failed) = (155, 0);
        assert_eq!(read_wrk(clean), Some(Done { requests, failed }));

        let broken = "  155 requests in 4.01s\n  Socket errors: connect 1, read 2, write 0, timeout 3\n  Non-2xx or 3xx responses: 4\n";
        let failed = 10;
        assert_eq!(read_wrk(broken), Some(Done { requests, failed }));
        assert_eq!(read_wrk("unable to connect"), None);
    }

    #[test]
    fn what_h2load_says_is_counted() {
        let text = "requests: 100 total, 100 started, 99 done, 98 succeeded, 1 failed, 1 errored, 0 timeout\n";
        let (requests, failed) = (98, 1);
        assert_eq!(read_h2load(text), Some(Done { requests, failed }));
    }
}
