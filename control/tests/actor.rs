//! The actor: when it publishes, and that it sees a real endpoint die and come back.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod world;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sealane_control::{Control, Order, OrderKind, PUBLISH_EVERY, build};
use sealane_model::{
    EndpointId, Failure, IdBook, Observation, ObservationSender, Outcome, SnapshotReader, Source,
    Standing, Target, Topology, Verdict,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use world::Plan;

/// Starts control; it ends when the sender is dropped.
fn start(control: Control, tasks: &mut JoinSet<()>) -> oneshot::Sender<()> {
    let (stop, stopped) = oneshot::channel();
    tasks.spawn(control.run(async {
        let _ = stopped.await;
    }));
    stop
}

fn complain(observations: &ObservationSender, endpoint: EndpointId) {
    let outcome = Outcome::Failed(Failure::Closed);
    observations.offer(Observation {
        endpoint,
        source: Source::Traffic,
        outcome,
    });
}

async fn until(world: &mut SnapshotReader, what: impl Fn(&SnapshotReader) -> bool) {
    let wait = async {
        while !what(world) {
            assert!(world.changed().await, "control has ended");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("it never came");
}

#[tokio::test(start_paused = true)]
async fn changes_are_published_at_once_and_then_together() {
    let mut plan = Plan::new(&[("api", &[("eu", 500)])]);
    plan.probe = None;
    let control = build(plan.config(&mut IdBook::default())).unwrap();
    let (handle, observations) = (control.handle.clone(), control.observations.clone());
    let mut world = control.world.clone();
    let endpoints: Vec<_> = world
        .load()
        .topology
        .endpoints()
        .map(|one| one.id)
        .collect();
    let mut tasks = JoinSet::new();
    let _stop = start(control, &mut tasks);
    handle.first_round().await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let first = world.load().generation;
    complain(&observations, endpoints[0]);
    until(&mut world, |world| {
        world.load().verdict(endpoints[0]) == Verdict::Suspect
    })
    .await;
    assert_eq!(world.load().generation.0, first.0 + 1);

    for endpoint in &endpoints[1..400] {
        complain(&observations, *endpoint);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(PUBLISH_EVERY).await;

    let published = world.load().generation.0 - first.0 - 1;
    assert!(
        (4..=6).contains(&published),
        "{published} times in half a second"
    );
    assert_eq!(world.load().verdict(endpoints[399]), Verdict::Suspect);
}

#[tokio::test(start_paused = true)]
async fn an_idle_world_is_published_now_and_then_with_its_true_date() {
    let mut plan = Plan::new(&[("api", &[("eu", 1)])]);
    plan.probe = None;
    let control = build(plan.config(&mut IdBook::default())).unwrap();
    let world = control.world.clone();
    let (before, dated) = (world.load().generation, world.load().published_at);
    let mut tasks = JoinSet::new();
    let _stop = start(control, &mut tasks);

    tokio::time::sleep(Duration::from_secs(65)).await;

    let published = world.load().generation.0 - before.0;
    assert!(
        (6..=8).contains(&published),
        "{published} times in a minute"
    );
    assert!(world.load().published_at.since(dated) >= Duration::from_secs(55));
}

#[tokio::test(start_paused = true)]
async fn an_order_is_published_before_it_is_replied_to() {
    let mut plan = Plan::new(&[("api", &[("eu", 1), ("us", 1)])]);
    plan.probe = None;
    let control = build(plan.config(&mut IdBook::default())).unwrap();
    let (handle, world) = (control.handle.clone(), control.world.clone());
    let mut tasks = JoinSet::new();
    let _stop = start(control, &mut tasks);
    for kind in [OrderKind::FailOver, OrderKind::FailBack, OrderKind::Drain] {
        let order = Order {
            kind,
            target: "eu".to_owned(),
            by: "oncall".into(),
            reason: None,
            dry_run: false,
            force: false,
        };
        handle.order(order).await.unwrap();

        let world = world.load();
        let pool = world.topology.pool_named("api").unwrap().id;
        let region = world.topology.region_named("eu").unwrap().id;
        let is_in = world.member(pool, region).unwrap().1.standing == Standing::In;
        assert_eq!(is_in, kind == OrderKind::FailBack, "{kind:?}");
    }
}

/// The plan with its endpoints at `addresses`, probed quickly.
fn at(addresses: &[SocketAddr]) -> sealane_control::config::Config {
    let mut plan = Plan::new(&[("api", &[("eu", addresses.len())])]);
    plan.hold_down = Duration::from_millis(300);
    plan.probe = Some(sealane_control::config::Probe {
        interval: Duration::from_millis(200),
        timeout: Duration::from_millis(100),
        recheck: Duration::from_millis(50),
        ..world::probe()
    });
    let mut config = plan.config(&mut IdBook::default());
    let mut endpoints: Vec<_> = config.topology.endpoints().cloned().collect();
    for (endpoint, address) in endpoints.iter_mut().zip(addresses) {
        endpoint.target = Target::Address(*address);
    }
    let regions = config.topology.regions().cloned().collect();
    let pools = config.topology.pools().cloned().collect();
    config.topology = Topology::new(regions, pools, endpoints).into();
    config
}

#[tokio::test]
async fn a_real_endpoint_that_dies_is_seen_and_so_is_its_return() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let control = build(at(&[address])).unwrap();
    let mut world = control.world.clone();
    let endpoint = world.load().topology.endpoints().next().unwrap().id;
    let mut tasks = JoinSet::new();
    let stop = start(control, &mut tasks);
    until(&mut world, |world| {
        world.load().verdict(endpoint) == Verdict::Up
    })
    .await;

    drop(listener);
    until(&mut world, |world| {
        world.load().verdict(endpoint) == Verdict::Down
    })
    .await;
    let cause = world.load().endpoint(endpoint).unwrap().cause.clone();
    assert_eq!(cause.as_deref(), Some("connection refused"));

    let _listener = TcpListener::bind(address).await.unwrap();
    let is_in = |world: &SnapshotReader| {
        let world = world.load();
        let (pool, region) = (
            world.topology.pool_named("api"),
            world.topology.region_named("eu"),
        );
        world
            .member(pool.unwrap().id, region.unwrap().id)
            .unwrap()
            .1
            .standing
            == Standing::In
    };
    until(&mut world, is_in).await;
    assert_eq!(world.load().verdict(endpoint), Verdict::Up);

    drop(stop);
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_thousand_endpoints_are_probed_with_a_bounded_number_in_flight() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let mut config = at(&vec![address; 1_000]);
    for (_, probe) in &mut config.probes {
        probe.interval = Duration::from_secs(30);
        probe.timeout = Duration::from_secs(10);
    }
    let control = build(config).unwrap();
    let (handle, world) = (control.handle.clone(), control.world.clone());
    let mut tasks = JoinSet::new();
    let stop = start(control, &mut tasks);

    handle.first_round().await;

    let world = world.load_full();
    let up = world
        .topology
        .endpoints()
        .filter(|one| world.verdict(one.id) == Verdict::Up)
        .count();
    assert_eq!(up, 1_000);
    drop(stop);
    tasks.join_next().await.unwrap().unwrap();
}
