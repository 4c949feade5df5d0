//! `failover`: breaks a region under load and measures how long users would notice.
//!
//! Sends by the clock, runs the two shell commands it was given, prints a timeline. Knows nothing
//! of Sealane's inside: it sees what a client sees. Judging is [`sealane_testkit::timeline`]'s.

mod cli;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use sealane_testkit::HttpClient;
use sealane_testkit::dns_client::Question;
use sealane_testkit::load::{DnsRecord, GetRecord, Load, Poll, Run};
use sealane_testkit::report::report;
use sealane_testkit::timeline::{Records, Timeline};
use tokio::process::Command;
use tokio::time::{Instant, sleep, sleep_until};

use cli::{Flags, HttpTarget};

/// How often it is asked whether anything still happens.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a breaking or healing command may run.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// How long the admin API may take to say that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    match test(&flags).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("failover: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether a user would be content.
async fn test(flags: &Flags) -> anyhow::Result<bool> {
    if let Some(admin) = &flags.admin.0 {
        until_ready(admin).await?;
    }
    let timeline = outage_under_load(flags).await?;
    print!("{}", report(&timeline, &flags.region));
    let problems = timeline.problems(flags.limit, flags.no_failures);
    for problem in &problems {
        println!("NOT GOOD: {problem}");
    }
    if flags.heal_command.is_some() && !is_back(&timeline) {
        println!("NOT GOOD: the region did not come back");
        return Ok(false);
    }
    if problems.is_empty() {
        println!("GOOD: under {} s", flags.limit.as_secs());
    }
    Ok(problems.is_empty())
}

async fn outage_under_load(flags: &Flags) -> anyhow::Result<Timeline> {
    let watched = Watched::start(flags);
    println!(
        "{} GETs a second to {}, {} asked at {}; the outage begins in {} s",
        flags.rate,
        flags.http.address,
        flags.name,
        flags.dns,
        flags.warm_up.as_secs_f32()
    );
    sleep(flags.warm_up).await;
    let mut seen = Seen {
        region: &flags.region,
        outage_at: watched.now(),
        heal_at: None,
    };
    refuse_to_break_what_is_not_well(&seen.timeline(&watched), flags)?;
    shell(&flags.break_command()).await?;
    println!("{} is broken; waiting for the failover", flags.region);
    // A failover that takes longer is too long already; what is still on the way may end.
    let give_up = watched.epoch() + seen.outage_at + flags.limit + flags.timeout;
    let is_over = |now: Duration| {
        let quiet_since = now.saturating_sub(flags.quiet);
        let last = seen.timeline(&watched).whole_failover();
        last.is_some_and(|last| seen.outage_at + last <= quiet_since)
            && watched.all_ended_that_were_due_before(quiet_since)
    };
    watched.until(give_up, is_over).await;

    if let Some(command) = &flags.heal_command {
        seen.heal_at = Some(watched.now());
        shell(command).await?;
        println!("{} is healed; waiting for its return", flags.region);
        let give_up = watched.epoch() + watched.now() + flags.heal_limit;
        watched
            .until(give_up, |_| is_back(&seen.timeline(&watched)))
            .await;
    }
    let (gets, dns) = watched.stop().await;
    Ok(seen.timeline_of(&gets, &dns))
}

fn refuse_to_break_what_is_not_well(timeline: &Timeline, flags: &Flags) -> anyhow::Result<()> {
    if timeline.served_before == 0 && timeline.gone_address.is_none() {
        bail!(
            "nothing is broken yet: no GET was answered by {} (by its x-region), and DNS gave no \
             address for {}",
            flags.region,
            flags.name
        );
    }
    Ok(())
}

fn is_back(timeline: &Timeline) -> bool {
    let Some(recovery) = &timeline.recovery else {
        return false;
    };
    let served_again = recovery.first_back.is_some() || timeline.served_before == 0;
    let named_again = recovery.dns_back.is_some() || timeline.gone_address.is_none();
    served_again && named_again
}

/// The two loads that run.
struct Watched {
    gets: Run<GetRecord>,
    dns: Run<DnsRecord>,
}

impl Watched {
    #[expect(
        clippy::disallowed_methods,
        reason = "the epoch of what is measured by the clock"
    )]
    fn start(flags: &Flags) -> Self {
        let epoch = Instant::now();
        let host = flags.host.as_ref().unwrap_or(&flags.name);
        let mut load = Load::new(flags.http.address, host, flags.rate);
        load.path.clone_from(&flags.http.path);
        load.limit = flags.timeout;
        // Whatever the rate: room for all that can be on the way within the time-out.
        let in_flight = f64::from(flags.rate.get()) * flags.timeout.as_secs_f64();
        load.in_flight_max = (in_flight as usize).clamp(16, 10_000);
        let question = Question::a(&flags.name).client_subnet(&flags.subnet);
        Self {
            gets: load.start(epoch),
            dns: Poll::new(flags.dns, question).start(epoch),
        }
    }

    fn epoch(&self) -> Instant {
        self.gets.epoch()
    }

    fn now(&self) -> Duration {
        self.epoch().elapsed()
    }

    /// Nothing hangs since then.
    fn all_ended_that_were_due_before(&self, then: Duration) -> bool {
        let oldest = self.gets.oldest_in_flight();
        oldest.is_none_or(|due| due >= then)
    }

    /// Looks every [`LOOK_EVERY`] whether it is `done`, until `give_up`.
    async fn until(&self, give_up: Instant, done: impl Fn(Duration) -> bool) {
        while !done(self.now()) && self.epoch() + self.now() < give_up {
            sleep_until(self.epoch() + self.now() + LOOK_EVERY).await;
        }
    }

    async fn stop(self) -> (Vec<GetRecord>, Vec<DnsRecord>) {
        (self.gets.stop().await, self.dns.stop().await)
    }
}

/// What was done, and when.
struct Seen<'a> {
    region: &'a str,
    outage_at: Duration,
    heal_at: Option<Duration>,
}

impl Seen<'_> {
    fn timeline(&self, watched: &Watched) -> Timeline {
        let gets_and = |dns: &[DnsRecord]| watched.gets.look(|gets| self.timeline_of(gets, dns));
        watched.dns.look(gets_and)
    }

    fn timeline_of(&self, gets: &[GetRecord], dns: &[DnsRecord]) -> Timeline {
        Timeline::of(&Records {
            gets,
            dns,
            region: self.region,
            outage_at: self.outage_at,
            heal_at: self.heal_at,
        })
    }
}

async fn shell(command: &str) -> anyhow::Result<()> {
    println!("$ {command}");
    let running = Command::new("sh")
        .arg("-c")
        .arg(command)
        .kill_on_drop(true)
        .status();
    let ended = tokio::time::timeout(COMMAND_LIMIT, running).await;
    let status = ended
        .with_context(|| format!("`{command}` did not end within {COMMAND_LIMIT:?}"))?
        .context("no shell to run commands with")?;
    if !status.success() {
        bail!("`{command}` failed: {status}");
    }
    Ok(())
}

/// Waits for 200 on `/readyz`.
async fn until_ready(admin: &HttpTarget) -> anyhow::Result<()> {
    let path = format!("{}readyz", admin.path);
    let ready = async {
        loop {
            if is_ready(admin, &path).await {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(READY_LIMIT, ready)
        .await
        .with_context(|| {
            format!(
                "Sealane is not ready at http://{}{path}: is it running?",
                admin.address
            )
        })
}

async fn is_ready(admin: &HttpTarget, path: &str) -> bool {
    let Ok(client) = HttpClient::connect(admin.address).await else {
        return false;
    };
    let answer = client.within(Duration::from_secs(2)).get(path).await;
    answer.is_ok_and(|answer| answer.status() == 200)
}
