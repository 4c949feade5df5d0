//! A region dies while 200 requests a second flow: no GET fails, DNS stops naming it, and both come
//! back. Measured on the real binary, once for refused and once for black-holed connections.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use std::num::NonZeroU32;
use std::time::Duration;

use sealane_testkit::dns_client::Question;
use sealane_testkit::load::{DnsRecord, Load, Poll, Run};
use sealane_testkit::report::report;
use sealane_testkit::timeline::{Records, Timeline};
use tokio::time::Instant;
use world::Sealane;

const RATE: NonZeroU32 = NonZeroU32::new(200).unwrap();
const REGION: &str = "us-east-1";
/// A client in America, east: DNS names [`REGION`] to it.
const SUBNET: &str = "192.0.2.0/24";
/// From the outage to the last trace of it, all told (checklist S31).
const LIMIT: Duration = Duration::from_secs(30);
/// What a client waits for an answer before it gives up.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_refuses_is_left_without_a_failed_get_and_used_again() {
    let timeline = outage("refused").await;

    check(&timeline);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_swallows_requests_is_left_without_a_failed_get_and_used_again() {
    let timeline = outage("black-hole").await;

    check(&timeline);
}

fn check(timeline: &Timeline) {
    assert_eq!(
        timeline.failed,
        0,
        "failed GETs:\n{}",
        report(timeline, REGION)
    );
    assert!(
        timeline.served_before > 0,
        "the region served before:\n{}",
        report(timeline, REGION)
    );
    let whole = timeline.whole_failover();
    assert!(
        whole.is_some_and(|took| took < LIMIT),
        "{whole:?}:\n{}",
        report(timeline, REGION)
    );
    let recovery = timeline.recovery.as_ref().expect("the region was healed");
    assert!(
        recovery.first_back.is_some() && recovery.dns_back.is_some(),
        "{}",
        report(timeline, REGION)
    );
}

async fn outage(how: &'static str) -> Timeline {
    let sealane = blocking(|| Sealane::demo(&[])).await;
    let (web, dns) = (sealane.address("web"), sealane.address("dns"));
    let epoch = now();
    let mut load = Load::new(web, "api.example.test", RATE);
    load.limit = CLIENT_PATIENCE;
    let gets = load.start(epoch);
    let question = Question::a("api.example.test").client_subnet(SUBNET);
    let answers = Poll::new(dns, question).start(epoch);

    tokio::time::sleep(Duration::from_secs(2)).await;
    let outage_at = epoch.elapsed();
    let sealane = blocking(move || {
        sealane.demo_order(&["region-down", REGION, "--how", how]);
        sealane
    })
    .await;
    until(&answers, "DNS leaves the region", |answer| {
        !names_region(answer)
    })
    .await;
    // Long enough for a request that hung at the outage to end one way or the other.
    tokio::time::sleep(CLIENT_PATIENCE).await;

    let heal_at = epoch.elapsed();
    let sealane = blocking(move || {
        sealane.demo_order(&["region-up", REGION]);
        sealane
    })
    .await;
    until(&answers, "DNS returns to the region", names_region).await;
    until(&gets, "requests return to the region", |get| {
        get.region() == Some(REGION)
    })
    .await;

    let (gets, dns) = (gets.stop().await, answers.stop().await);
    let records = Records {
        gets: &gets,
        dns: &dns,
        region: REGION,
        outage_at,
        heal_at: Some(heal_at),
    };
    let timeline = Timeline::of(&records);
    println!(
        "{REGION} {how}, {RATE} requests a second:\n{}",
        report(&timeline, REGION)
    );
    drop(sealane);
    timeline
}

fn names_region(answer: &DnsRecord) -> bool {
    let region: std::net::IpAddr = std::net::Ipv4Addr::new(192, 0, 2, 10).into();
    answer
        .outcome
        .as_ref()
        .is_ok_and(|reply| reply.addresses.first() == Some(&region))
}

/// Waits until what was recorded last holds; fails the test when it never does.
async fn until<R: Clone>(run: &Run<R>, what: &str, holds: impl Fn(&R) -> bool) {
    let patience = now() + Duration::from_secs(120);
    let from = run.so_far().len();
    loop {
        // Records end out of order: any of the latest will do.
        if run.so_far().iter().skip(from).rev().take(20).any(&holds) {
            return;
        }
        assert!(now() < patience, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "this test measures the real program by the clock"
)]
fn now() -> Instant {
    Instant::now()
}
