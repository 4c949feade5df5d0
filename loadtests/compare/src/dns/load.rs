//! The questions, and dnsperf, which asks them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sealane_testkit::dns_client::Question;

use super::subject::Values;
use super::zones::{HOSTS, NETS, STEERED, net};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Host,
    Absent,
    Region,
    Signed,
    Tcp,
}

/// What a load came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) answered: u64,
    pub(crate) lost: u64,
    /// With another response code than there should be.
    pub(crate) wrong: u64,
}

/// Questions of a kind; so many different ones that remembering answers does not help where names do not exist.
const QUESTIONS: usize = 20_000;
const ABSENT: usize = 200_000;
/// What every question says that it takes.
const EDNS_SIZE: u16 = 1_232;

impl Test {
    pub(crate) const ALL: [Self; 5] = [
        Self::Host,
        Self::Absent,
        Self::Region,
        Self::Signed,
        Self::Tcp,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Host => "A of 1,000 names",
            Self::Absent => "names that do not exist",
            Self::Region => "a region, for a new client subnet each time",
            Self::Signed => "A, signed (ECDSA P-256)",
            Self::Tcp => "A by TCP, eight connections",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::Host | Self::Tcp => "host.questions",
            Self::Absent => "absent.questions",
            Self::Region => "region.questions",
            Self::Signed => "signed.questions",
        }
    }

    const fn rcode(self) -> &'static str {
        match self {
            Self::Absent => "NXDOMAIN",
            _ => "NOERROR",
        }
    }

    /// The nth of its questions, as it goes over the wire.
    fn question(self, number: usize) -> Vec<u8> {
        // A prime of its own for each, so that neighbours are not alike.
        let host = number * 7_919 % HOSTS;
        let ask = |name: String| Question::a(&name).edns_size(EDNS_SIZE);
        match self {
            Self::Host | Self::Tcp => ask(format!("h{host}.example.test")).bytes(),
            Self::Absent => ask(format!("x{:x}.example.test", number * 2_654_435_761)).bytes(),
            Self::Region => {
                let subnet = format!("{}/24", net(number * 613 % NETS));
                let name = format!("geo{}.geo.test", number % STEERED);
                ask(name).client_subnet(&subnet).bytes()
            }
            Self::Signed => {
                let mut message = ask(format!("h{host}.signed.test")).bytes();
                // DO is the first bit of the third octet of OPT's TTL; the length of its data is all that follows.
                let at = message.len() - 4;
                message[at] |= 0x80;
                message
            }
        }
    }

    /// Each with its length before it, as over TCP.
    pub(crate) fn write_questions(self, folder: &Path) -> Result<()> {
        let count = if self == Self::Absent {
            ABSENT
        } else {
            QUESTIONS
        };
        let mut all = Vec::with_capacity(count * 64);
        for number in 0..count {
            let message = self.question(number);
            all.extend_from_slice(&(message.len() as u16).to_be_bytes());
            all.extend_from_slice(&message);
        }
        fs::write(folder.join(self.file()), all).context("could not write questions")
    }

    pub(crate) fn run(self, values: &Values, seconds: u16) -> Result<Done> {
        let mode = if self == Self::Tcp { "tcp" } else { "udp" };
        let asked = Command::new("dnsperf")
            .args(["-s", "127.0.0.1", "-p", &values.port().to_string()])
            .args(["-m", mode, "-c", "8", "-T", "1", "-q", "128", "-B"])
            .args(["-l", &seconds.to_string(), "-d"])
            .arg(values.folder().join(self.file()))
            .output()
            .context("could not start dnsperf (Debian: apt-get install dnsperf)")?;
        ensure!(
            asked.status.success(),
            "dnsperf ended with {}",
            asked.status
        );
        let text = String::from_utf8_lossy(&asked.stdout);
        read(&text, self.rcode()).with_context(|| format!("dnsperf said:\n{text}"))
    }
}

/// What dnsperf says at its end.
fn read(text: &str, rcode: &str) -> Option<Done> {
    let after = |what: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(what));
        line.map(str::trim)
    };
    let number = |what: &str| after(what)?.split_whitespace().next()?.parse::<u64>().ok();
    let answered = number("Queries completed:")?;
    // `NOERROR 155 (98.10%), NXDOMAIN 3 (1.90%)`
    let codes = after("Response codes:").unwrap_or_default();
    let mut words = codes.split_whitespace().skip_while(|word| *word != rcode);
    let right = words.nth(1).and_then(|count| count.parse::<u64>().ok());
    Some(Done {
        answered,
        lost: number("Queries lost:")?,
        wrong: answered - right.unwrap_or(0).min(answered),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dnsperf_says_is_counted() {
        let text = "Statistics:\n\n  Queries sent:         160\n  Queries completed:    158 (98.75%)\n  Queries lost:         2 (1.25%)\n\n  \
                    Response codes:       NOERROR 155 (98.10%), NXDOMAIN 3 (1.90%)\n";
        let done = |wrong| Done {
            answered: 158,
            lost: 2,
            wrong,
        };
        assert_eq!(read(text, "NOERROR"), Some(done(3)));
        assert_eq!(read(text, "NXDOMAIN"), Some(done(155)));
        assert_eq!(read(text, "REFUSED"), Some(done(158)));
        assert_eq!(read("Error: no such file", "NOERROR"), None);
    }

    #[test]
    fn a_signed_question_says_that_signatures_are_wanted() {
        let plain = Question::a("h0.signed.test").edns_size(EDNS_SIZE).bytes();
        let signed = Test::Signed.question(0);
        let differ: Vec<usize> = (0..plain.len())
            .filter(|at| plain[*at] != signed[*at])
            .collect();
        assert_eq!(differ, [plain.len() - 4]);
        assert!(
            plain.ends_with(&[0, 41, 4, 208, 0, 0, 0, 0, 0, 0]),
            "{plain:?}"
        );
    }
}
