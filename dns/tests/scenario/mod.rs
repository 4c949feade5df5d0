//! The scenario language: zones, pools and clients in words, on control's own virtual clock.
//!
//! A script sets a stage and then asks questions; each question with its expected answer is one
//! check. What fails is told as `file:line`, with what was expected and what was got. Lines that
//! are indented belong to the one above them; `;` begins a comment.
//!
//! ```text
//! ZONE     example.test                       ; indented: a zone file, with $TTL 300
//!              repeat 60 many A 10.0.0.{}     ; sixty lines, {} counts from 0
//! ORIGIN   example.test                       ; completes names from here on; a ZONE does, too
//! REGION   eu at 50.1,8.7
//! POOL     api [threshold 50%] [hold_down 60s] [all_down fail_open|no_data|fallback IP,IP] [panic 20%]
//!              eu [endpoints 2] [weight 33] [priority 1] [capacity 100] answers 192.0.2.10 2001:db8::10
//! SERVER   nsid TEXT version TEXT id TEXT
//! GEO      203.0.113.0/24 at 51.0,9.0         ; or: is eu, country DE EU, as 64500
//! HOME     eu                             ; this node stands there, and learns how far its clients are
//! STEER    www pool api by nearest|weighted|weighted_latency|priority|pinned:REGION
//!              [weights eu=3,us=1] [only 10.0.0.0/8=eu,us] (or country:DE=, continent:EU=, as:64500=) [ttl 10s] [suspect 5s] [alternates 1]
//!              [ignore_ecs] [all_down RULE] [canary POOL 5%] [host eu=NAME]… [https alpn=h2+port=8443]
//!
//! ALIAS    @ lb.example.net. [ttl 60s]        ; the addresses of another name, …
//! RESOLVE  lb.example.net. 192.0.2.1 ttl 30   ; … of which a look-up found these, now; or: fails
//!
//! AT       5s                                 ; the clock moves on, probes run
//! ENDPOINTS api eu refuse|vanish|pass [N]     ; all of them, or the first N
//! ORDER    failover|failback|drain eu
//! LOAD     api eu 150 for 30s                 ; requests a second that the proxy sends there
//! CLIENTS  45.1.2.3 12ms times 10             ; so many connect to this node, over that round trip
//! TRAFFIC  api eu fails                       ; a live request failed at its first endpoint
//!
//! ASK      www A [from IP] [ecs IP/BITS] [edns SIZE] [tcp] [do] [rd] [cd] [class CH] [opcode N] …
//!              noerror aa                     ; response code and flags, all of them
//!              answer www 10 A 192.0.2.10     ; each record of each section, no more, no fewer
//!              authority @ 10 SOA             ; without data: any data
//!              ede 20, or: ede none          ; extended DNS error
//!              scope 24 / reason nearest / region eu / canary / size <=512 / silence
//!              option 3 616d73 / option 3 none / count answer 60
//!                                             ; sections of more than 20 need not be listed whole
//! ASK      www A => noerror aa / answer www 10 A 192.0.2.10
//!                                            ; the same in one line
//! SPREAD   www A over 45.0.0.0/8 clients 4000 ; shares of the first address, ± 2 points
//!              192.0.2.10 33%
//! ```
//!
//! Checked of every answer without saying so: id, QR, opcode and question are the question's own
//! (its case too); OPT is there if and only if it was asked for, announces 1,232 octets and repeats
//! DO; a client subnet comes back as it was sent; no octet follows the last record.

pub(crate) mod ask;
pub(crate) mod reply;
pub(crate) mod stage;

use std::fmt::Write as _;
use std::path::Path;

use stage::Stage;

/// What came of one script.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) checks: usize,
    pub(crate) failures: String,
}

/// One line with those that are indented below it.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) line: usize,
    pub(crate) words: Vec<String>,
    pub(crate) below: Vec<(usize, String)>,
}

/// Plays one script.
pub(crate) fn play(path: &Path) -> Report {
    let text = std::fs::read_to_string(path).expect("the script can be read");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut report = Report::default();
    let mut stage = Stage::default();
    for block in blocks(&text) {
        let done = match block.words[0].as_str() {
            "ASK" => {
                report.checks += 1;
                ask::check(&mut stage, &block)
            }
            "SPREAD" => {
                report.checks += 1;
                ask::check_spread(&mut stage, &block)
            }
            _ => stage.direct(&block).map_err(|error| (block.line, error)),
        };
        if let Err((line, error)) = done {
            let _ = writeln!(report.failures, "{name}:{line}: {error}");
        }
    }
    report
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (number, whole) in (1..).zip(text.lines()) {
        let line = without_comment(whole).trim_end();
        if line.trim().is_empty() {
            continue;
        }
        if !line.starts_with([' ', '\t']) {
            let (head, short) = line.split_once(" => ").unwrap_or((line, ""));
            let below = short.split(" / ").map(str::trim).filter(|s| !s.is_empty());
            blocks.push(Block {
                line: number,
                words: head.split_whitespace().map(str::to_owned).collect(),
                below: below.map(|text| (number, text.to_owned())).collect(),
            });
        } else if let Some(last) = blocks.last_mut() {
            last.below.push((number, line.trim_start().to_owned()));
        }
    }
    blocks
}

fn without_comment(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (at, octet) in line.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

/// Words read one after another, as key and value where they are such.
pub(crate) struct Words<'a>(std::slice::Iter<'a, String>);

impl<'a> Words<'a> {
    pub(crate) fn of(words: &'a [String]) -> Self {
        Self(words.iter())
    }

    pub(crate) fn next(&mut self) -> Option<&'a str> {
        self.0.next().map(String::as_str)
    }

    pub(crate) fn want(&mut self, what: &str) -> Result<&'a str, String> {
        self.next().ok_or_else(|| format!("{what} is missing"))
    }

    pub(crate) fn read<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, String> {
        let word = self.want(what)?;
        word.parse().map_err(|_| format!("{word:?} is not {what}"))
    }

    pub(crate) fn seconds(&mut self, what: &str) -> Result<std::time::Duration, String> {
        seconds(self.want(what)?)
    }
}

pub(crate) fn seconds(word: &str) -> Result<std::time::Duration, String> {
    let number = word.strip_suffix('s').and_then(|word| word.parse().ok());
    number
        .map(std::time::Duration::from_secs_f64)
        .ok_or_else(|| format!("{word:?} is no time such as 5s or 0.5s"))
}

pub(crate) fn share(word: &str) -> Result<f64, String> {
    let number = word
        .strip_suffix('%')
        .and_then(|word| word.parse::<f64>().ok());
    number
        .map(|percent| percent / 100.0)
        .ok_or_else(|| format!("{word:?} is no share such as 50%"))
}
