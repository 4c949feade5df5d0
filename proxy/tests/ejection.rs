//! Endpoints that answer wrongly or slowly, and where requests go then, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
mod edge;

use std::sync::Arc;
use std::time::Duration;

use edge::{Edge, Http1};
use sealane_model::Verdict::Up;
use sealane_model::{EjectionCause, Judgement, Outcome, Snapshot};
use sealane_proxy::config::{Action, BalancePolicy, Balancing, Config, EjectionRule, HashKey};
use sealane_testkit::{Mode, ScriptedEndpoint, World};

async fn endpoints(count: usize) -> Vec<ScriptedEndpoint> {
    let mut endpoints = Vec::new();
    for at in 0..count {
        let endpoint = ScriptedEndpoint::start_anywhere(&format!("e{at}"), "eu").await;
        endpoints.push(endpoint.unwrap());
    }
    endpoints
}

fn world_of(endpoints: &[ScriptedEndpoint]) -> Snapshot {
    let mut world = World::new().region("eu", Up);
    for endpoint in endpoints {
        world = world.endpoint(&endpoint.address().to_string(), Up);
    }
    world.build()
}

fn balanced(config: &mut Config, balancing: Balancing) {
    let Action::Forward(to) = &mut config.routes[0].action else {
        panic!("it forwards");
    };
    to.balance = Arc::new(balancing);
}

fn in_turn() -> Balancing {
    Balancing {
        policy: BalancePolicy::RoundRobin,
        ..Balancing::default()
    }
}

/// The next conclusion that control is told of.
async fn judged(edge: &mut Edge) -> Judgement {
    loop {
        if let Outcome::Judged(judgement) = edge.observed().await.outcome {
            return judgement;
        }
    }
}

/// Requests over several connections, so that both workers have some. How many were answered 200.
async fn ask(edge: &Edge, requests: usize) -> usize {
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(edge.connect().await);
    }
    let mut good = 0;
    for at in 0..requests {
        let reply = clients[at % 8].get("/").await;
        good += usize::from(reply.status() == 200);
    }
    good
}

#[tokio::test]
async fn one_that_answers_500_is_left_out_after_a_few_by_all_workers() {
    let all = endpoints(3).await;
    let mut edge = Edge::start_with(world_of(&all), |config| balanced(config, in_turn()));
    all[0].set_mode(Mode::Status(500)).await.unwrap();

    let good = ask(&edge, 200).await;

    // Five in a row, and what was on its way.
    assert!((190..200).contains(&good), "{good}");
    let Judgement::Ejected { why, times, time } = judged(&mut edge).await else {
        panic!("it is ejected");
    };
    assert_eq!((why, times), (EjectionCause::ErrorsInARow, 1));
    assert!((30..=33).contains(&time.as_secs()), "{time:?}");
    let before = all[0].requests();
    assert_eq!(ask(&edge, 100).await, 100);
    assert_eq!(all[0].requests(), before);
}

#[tokio::test]
async fn where_all_answer_500_a_third_is_left_out_and_the_region_is_said_to_be_degraded() {
    let all = endpoints(3).await;
    let mut edge = Edge::start_with(world_of(&all), |config| balanced(config, in_turn()));
    for one in &all {
        one.set_mode(Mode::Status(503)).await.unwrap();
    }

    assert_eq!(ask(&edge, 60).await, 0);

    assert!(matches!(judged(&mut edge).await, Judgement::Ejected { .. }));
    for _ in 0..2 {
        let kept = judged(&mut edge).await;
        assert!(matches!(kept, Judgement::KeptInNeed { .. }), "{kept:?}");
    }
}

#[tokio::test]
async fn with_ejection_off_and_for_answers_that_are_no_fault_nothing_is_left_out() {
    for (status, ejection) in [(500, None), (404, Some(EjectionRule::default()))] {
        let all = endpoints(2).await;
        let edge = Edge::start_with(world_of(&all), |config| {
            let ejection = Balancing {
                ejection,
                ..in_turn()
            };
            balanced(config, ejection);
        });
        all[0].set_mode(Mode::Status(status)).await.unwrap();

        assert_eq!(ask(&edge, 80).await, 40, "{status}");
    }
}

#[tokio::test]
async fn one_that_is_well_again_comes_back_by_trials() {
    let all = endpoints(2).await;
    let mut edge = Edge::start_with(world_of(&all), |config| {
        let ejection = EjectionRule {
            time: Duration::from_millis(300),
            ..EjectionRule::default()
        };
        let quick = Balancing {
            slow_start: Duration::ZERO,
            ejection: Some(ejection),
            ..in_turn()
        };
        balanced(config, quick);
    });
    all[0].set_mode(Mode::Status(502)).await.unwrap();
    ask(&edge, 30).await;
    assert!(matches!(judged(&mut edge).await, Judgement::Ejected { .. }));

    // The trial of one that is not: one request that fails.
    tokio::time::sleep(Duration::from_millis(350)).await;
    let before = all[0].requests();
    assert_eq!(ask(&edge, 20).await, 19);
    assert_eq!(all[0].requests(), before + 1);
    let again = judged(&mut edge).await;
    assert!(
        matches!(
            again,
            Judgement::Ejected {
                why: EjectionCause::FailedTrial,
                times: 2,
                ..
            }
        ),
        "{again:?}"
    );

    all[0].set_mode(Mode::Serve).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(ask(&edge, 80).await, 80);
    assert_eq!(judged(&mut edge).await, Judgement::OnTrial);
    assert_eq!(judged(&mut edge).await, Judgement::Readmitted);
    assert!(all[0].requests() > before + 30);
}

#[tokio::test]
async fn a_slow_one_of_two_gets_hardly_anything() {
    let all = endpoints(2).await;
    let edge = Edge::start(world_of(&all));
    all[0]
        .set_mode(Mode::Slow(Duration::from_millis(100)))
        .await
        .unwrap();

    assert_eq!(ask(&edge, 200).await, 200);

    // One or two for each worker until it knows.
    assert!(all[0].requests() <= 6, "{}", all[0].requests());
}

#[tokio::test]
async fn the_same_header_leads_to_the_same_endpoint_on_every_connection() {
    let all = endpoints(5).await;
    let edge = Edge::start_with(world_of(&all), |config| {
        let by_user = Balancing {
            policy: BalancePolicy::RingHash(HashKey::Header("x-user".parse().unwrap())),
            ..Balancing::default()
        };
        balanced(config, by_user);
    });
    let mut served = std::collections::BTreeSet::new();
    for user in 0..10 {
        let mut of_user = std::collections::BTreeSet::new();
        for _ in 0..6 {
            let mut client = Http1::connect(edge.address()).await;
            let head = format!("GET / HTTP/1.1\r\nhost: a.test\r\nx-user: u{user}\r\n\r\n");
            client.send(head).await;
            let reply = client.reply("GET").await;
            let endpoint = reply.head.field("x-sealane-endpoint").unwrap().to_owned();
            of_user.insert(endpoint);
        }
        assert_eq!(of_user.len(), 1, "u{user}");
        served.extend(of_user);
    }
    assert!(served.len() >= 3, "{served:?}");
}
