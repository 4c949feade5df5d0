//! What clients and endpoints see of a UDP listener, over real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "most of it is for tests of HTTP")]
mod edge;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge::{Edge, PATIENCE, any_port};
use sealane_model::Verdict::{Down, Draining, Up};
use sealane_model::{Failure, Outcome, Snapshot};
use sealane_proxy::config::{Config, Destination, FlowRule, Listener, ListenerProtocol, OnDown};
use sealane_proxy::handover::SocketKind;
use sealane_steering::SteeringPolicy;
use sealane_testkit::World;
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Long enough for an answer that will not come.
const SILENCE: Duration = Duration::from_millis(300);
/// The longest payload (RFC 768, RFC 791): 65,535 less both headers.
const PAYLOAD_MAX: usize = 65_507;

/// Sends each datagram back, and remembers who sent.
struct Echo {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<SocketAddr>>>,
    _task: JoinSet<()>,
}

impl Echo {
    async fn start() -> Self {
        Self::answering(1).await
    }

    /// Answers each datagram so often.
    async fn answering(times: usize) -> Self {
        let socket = UdpSocket::bind(any_port()).await.unwrap();
        let address = socket.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<SocketAddr>>>::default();
        let noted = Arc::clone(&seen);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut buffer = vec![0; 65_535];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                noted.lock().unwrap().push(from);
                for _ in 0..times {
                    // The flow may be gone.
                    let _ = socket.send_to(&buffer[..length], from).await;
                }
            }
        });
        Self {
            address,
            seen,
            _task: task,
        }
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn last(&self) -> SocketAddr {
        *self.seen.lock().unwrap().last().unwrap()
    }
}

struct Client {
    socket: UdpSocket,
}

impl Client {
    async fn of(edge: &Edge) -> Self {
        Self::from("127.0.0.1:0", edge.address_of("udp")).await
    }

    async fn from(own: &str, to: SocketAddr) -> Self {
        let socket = UdpSocket::bind(own).await.unwrap();
        socket.connect(to).await.unwrap();
        Self { socket }
    }

    async fn send(&self, bytes: &[u8]) {
        self.socket.send(bytes).await.unwrap();
    }

    async fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_535];
        let received = timeout(PATIENCE, self.socket.recv(&mut buffer)).await;
        let length = received.expect("an answer").unwrap();
        buffer.truncate(length);
        buffer
    }

    async fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        self.send(bytes).await;
        self.receive().await
    }

    async fn is_silent(&self) -> bool {
        let mut buffer = [0; 16];
        let received = timeout(SILENCE, self.socket.recv(&mut buffer)).await;
        !matches!(received, Ok(Ok(_)))
    }
}

fn rule() -> FlowRule {
    FlowRule {
        flows: 1_000,
        flows_per_client: 1_000,
        idle: Duration::from_secs(30),
        answers: None,
        on_down: OnDown::Close,
    }
}

fn udp_listener(world: &Snapshot, pool: &str, how: FlowRule) -> Listener {
    let to = Destination {
        pool: world.topology.pool_named(pool).unwrap().id,
        steering: Arc::new(SteeringPolicy::Priority),
        balance: Arc::default(),
    };
    edge::listener("udp", ListenerProtocol::Udp { to, how })
}

fn start(world: Snapshot, how: FlowRule) -> Edge {
    let listener = udp_listener(&world, "api", how);
    Edge::start_with(world, |config| config.listeners = vec![listener])
}

fn world_of(endpoints: &[&Echo]) -> World {
    let mut world = World::new().region("eu", Up);
    for endpoint in endpoints {
        world = world.endpoint(&endpoint.address.to_string(), Up);
    }
    world
}

/// The first tier has one endpoint, the second tier the other.
fn tiers(first: SocketAddr, second: SocketAddr) -> World {
    World::new()
        .region("near", Up)
        .endpoint(&first.to_string(), Up)
        .priority(1)
        .region("far", Up)
        .endpoint(&second.to_string(), Up)
        .priority(2)
}

#[tokio::test]
async fn datagrams_of_every_size_arrive_whole_both_ways() {
    let one = Echo::start().await;
    let edge = start(world_of(&[&one]).build(), rule());
    let client = Client::of(&edge).await;

    for size in [0, 1, 512, 1_472, 9_000, PAYLOAD_MAX] {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        assert!(client.ask(&bytes).await == bytes, "{size}");
    }
}

#[tokio::test]
async fn a_client_stays_with_one_endpoint_and_clients_spread() {
    let (one, two) = (Echo::start().await, Echo::start().await);
    let edge = start(world_of(&[&one, &two]).build(), rule());

    let mut clients = Vec::new();
    for _ in 0..32 {
        let client = Client::of(&edge).await;
        client.ask(b"hello").await;
        clients.push(client);
    }
    let flows = |echo: &Echo| {
        echo.seen
            .lock()
            .unwrap()
            .iter()
            .copied()
            .collect::<HashSet<_>>()
    };
    let before = (flows(&one), flows(&two));
    // The one with fewer flows gets the next, of two taken at random.
    assert!(before.0.len() >= 8 && before.1.len() >= 8, "{before:?}");
    for client in &clients {
        assert_eq!(client.ask(b"again").await, b"again");
    }
    assert_eq!((flows(&one), flows(&two)), before);
    assert_eq!(one.count() + two.count(), 64);
}

#[tokio::test]
async fn several_answers_to_one_datagram_and_none_at_all_are_both_fine() {
    let (thrice, mute) = (Echo::answering(3).await, Echo::answering(0).await);
    let edge = start(world_of(&[&thrice]).build(), rule());
    let client = Client::of(&edge).await;
    client.send(b"x").await;
    for _ in 0..3 {
        assert_eq!(client.receive().await, b"x");
    }

    let edge = start(world_of(&[&mute]).build(), rule());
    let client = Client::of(&edge).await;
    client.send(b"log line").await;
    assert!(client.is_silent().await);
    assert_eq!(mute.count(), 1);
}

#[tokio::test]
async fn a_flow_whose_endpoint_goes_down_goes_on_at_another_one() {
    let (near, far) = (Echo::start().await, Echo::start().await);
    let world = tiers(near.address, far.address);
    let mut edge = start(world.clone().build(), rule());
    let client = Client::of(&edge).await;
    client.ask(b"1").await;
    assert_eq!((near.count(), far.count()), (1, 0));

    let down = world.clone().turn("near", Down);
    edge.world.publish(down.generation(2).build());
    client.ask(b"2").await;
    assert_eq!((near.count(), far.count()), (1, 1));

    // It does not go back for nothing.
    edge.world.publish(world.generation(3).build());
    client.ask(b"3").await;
    assert_eq!((near.count(), far.count()), (1, 2));
}

#[tokio::test]
async fn a_flow_that_is_to_keep_its_endpoint_or_has_no_better_one_stays() {
    let (near, far) = (Echo::start().await, Echo::start().await);
    let world = tiers(near.address, far.address);
    let keep = FlowRule {
        on_down: OnDown::Keep,
        ..rule()
    };
    let mut edge = start(world.clone().build(), keep);
    let client = Client::of(&edge).await;
    client.ask(b"1").await;
    let down = world.clone().turn("near", Down);
    edge.world.publish(down.generation(2).build());
    client.ask(b"2").await;
    assert_eq!((near.count(), far.count()), (2, 0));

    let both = world_of(&[&near, &far]);
    let mut edge = start(both.clone().build(), rule());
    let client = Client::of(&edge).await;
    client.ask(b"3").await;
    let counts = (near.count(), far.count());
    edge.world
        .publish(both.turn("eu", Down).generation(2).build());
    client.ask(b"4").await;
    let doubled = (counts.0 * 2 - 2, counts.1 * 2);
    assert_eq!((near.count(), far.count()), doubled, "{counts:?}");
}

#[tokio::test]
async fn a_draining_endpoint_keeps_its_flows_and_gets_no_new_ones() {
    let (near, far) = (Echo::start().await, Echo::start().await);
    let world = tiers(near.address, far.address);
    let mut edge = start(world.clone().build(), rule());
    let old = Client::of(&edge).await;
    old.ask(b"1").await;
    let draining = world.turn("near", Draining);
    edge.world.publish(draining.generation(2).build());

    old.ask(b"2").await;
    assert_eq!((near.count(), far.count()), (2, 0));
    Client::of(&edge).await.ask(b"3").await;
    assert_eq!((near.count(), far.count()), (2, 1));
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_reported_and_left() {
    let far = Echo::start().await;
    let nobody = UdpSocket::bind(any_port()).await.unwrap();
    let closed = nobody.local_addr().unwrap();
    drop(nobody);
    let mut edge = start(tiers(closed, far.address).build(), rule());
    let client = Client::of(&edge).await;

    client.send(b"lost").await;

    let observed = edge.observed().await;
    assert_eq!(observed.outcome, Outcome::Failed(Failure::Refused));
    assert_eq!(client.ask(b"again").await, b"again");
}

#[tokio::test]
async fn the_only_endpoint_is_tried_again_when_it_comes_back() {
    let held = UdpSocket::bind(any_port()).await.unwrap();
    let address = held.local_addr().unwrap();
    drop(held);
    let world = World::new()
        .region("eu", Up)
        .endpoint(&address.to_string(), Up);
    let edge = start(world.build(), rule());
    let client = Client::of(&edge).await;
    for _ in 0..5 {
        client.send(b"anybody?").await;
    }
    assert!(client.is_silent().await);

    let back = UdpSocket::bind(address).await.unwrap();
    client.send(b"now").await;
    let mut buffer = [0; 16];
    let (length, from) = timeout(PATIENCE, back.recv_from(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&buffer[..length], b"now");
    back.send_to(b"yes", from).await.unwrap();
    assert_eq!(client.receive().await, b"yes");
}

#[tokio::test]
async fn a_flow_ends_when_its_client_was_silent_for_long() {
    let one = Echo::start().await;
    let short = FlowRule {
        idle: Duration::from_millis(200),
        ..rule()
    };
    let edge = start(world_of(&[&one]).build(), short);
    let client = Client::of(&edge).await;
    client.ask(b"1").await;
    let first = one.last();
    client.ask(b"2").await;
    assert_eq!(one.last(), first);

    // Its socket is free again once the flow is over.
    let mut patience = 100;
    while UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], first.port())))
        .await
        .is_err()
    {
        patience -= 1;
        assert!(patience > 0, "the flow never ends");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(client.ask(b"3").await, b"3");
}

#[tokio::test]
async fn a_flow_ends_with_the_last_answer_that_is_expected() {
    let twice = Echo::answering(2).await;
    let counted = FlowRule {
        answers: Some(2),
        ..rule()
    };
    let edge = start(world_of(&[&twice]).build(), counted);
    let client = Client::of(&edge).await;
    let mut ports = HashSet::new();
    for _ in 0..8 {
        client.ask(b"x").await;
        client.receive().await;
        ports.insert(twice.last().port());
    }
    assert!(ports.len() > 4, "{ports:?}");
}

#[tokio::test]
async fn a_flood_of_new_flows_does_not_push_out_a_client_that_talks() {
    let one = Echo::start().await;
    let small = FlowRule {
        flows: 16,
        ..rule()
    };
    let edge = start(world_of(&[&one]).build(), small);
    let good = Client::of(&edge).await;
    good.ask(b"1").await;
    good.ask(b"2").await;
    let flow = one.last();
    let early = Client::of(&edge).await;
    early.ask(b"early").await;
    let evicted = one.last();

    for _ in 0..100 {
        let stranger = Client::of(&edge).await;
        assert_eq!(stranger.ask(b"flood").await, b"flood");
    }

    good.ask(b"3").await;
    assert_eq!(one.last(), flow);
    early.ask(b"back").await;
    assert_ne!(one.last(), evicted);
}

#[tokio::test]
async fn where_every_flow_is_proven_new_ones_are_refused() {
    let one = Echo::start().await;
    let small = FlowRule { flows: 8, ..rule() };
    let edge = start(world_of(&[&one]).build(), small);
    let mut kept = Vec::new();
    for _ in 0..64 {
        let client = Client::of(&edge).await;
        client.send(b"1").await;
        if !client.is_silent().await {
            client.ask(b"2").await;
            kept.push(client);
        }
        if kept.len() == 8 {
            break;
        }
    }
    assert_eq!(kept.len(), 8);
    for _ in 0..4 {
        let late = Client::of(&edge).await;
        late.send(b"let me in").await;
        assert!(late.is_silent().await);
    }
    for client in &kept {
        assert_eq!(client.ask(b"3").await, b"3");
    }
}

#[tokio::test]
async fn one_client_has_no_more_than_its_share() {
    let one = Echo::start().await;
    let fair = FlowRule {
        flows: 64,
        flows_per_client: 2,
        ..rule()
    };
    let edge = start(world_of(&[&one]).build(), fair);
    let address = edge.address_of("udp");
    let other = Client::from("127.0.0.3:0", address).await;
    other.ask(b"1").await;
    let flow = one.last();

    for _ in 0..200 {
        let greedy = Client::from("127.0.0.2:0", address).await;
        greedy.ask(b"more").await;
    }

    other.ask(b"2").await;
    assert_eq!(one.last(), flow);
}

#[tokio::test]
async fn what_others_than_the_endpoint_send_reaches_no_client() {
    let one = Echo::start().await;
    let edge = start(world_of(&[&one]).build(), rule());
    let client = Client::of(&edge).await;
    client.ask(b"1").await;

    let stranger = UdpSocket::bind(any_port()).await.unwrap();
    let flow = SocketAddr::from(([127, 0, 0, 1], one.last().port()));
    stranger.send_to(b"unasked", flow).await.unwrap();
    assert!(client.is_silent().await);
}

#[tokio::test]
async fn a_listener_on_all_addresses_answers_from_the_one_that_was_asked() {
    let one = Echo::start().await;
    let world = world_of(&[&one]).build();
    let mut listener = udp_listener(&world, "api", rule());
    listener.bind = vec!["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()];
    let edge = Edge::start_with(world, |config| config.listeners = vec![listener]);
    let addresses = edge.proxy.addresses();
    let port = |v4: bool| {
        let found = addresses
            .iter()
            .find(|(_, address)| address.is_ipv4() == v4);
        found.unwrap().1.port()
    };

    for asked in ["127.0.0.2", "127.0.0.3"] {
        let to = format!("{asked}:{}", port(true)).parse().unwrap();
        let client = Client::from("127.0.0.1:0", to).await;
        assert_eq!(client.ask(b"v4").await, b"v4");
    }
    let to = format!("[::1]:{}", port(false)).parse().unwrap();
    let client = Client::from("[::1]:0", to).await;
    assert_eq!(client.ask(b"v6").await, b"v6");
}

#[tokio::test]
async fn tcp_and_udp_share_an_address_and_a_port_in_use_is_noticed() {
    let one = Echo::start().await;
    let world = world_of(&[&one]).build();
    let web = Edge::start(world.clone());
    let address = web.address();
    let mut listener = udp_listener(&world, "api", rule());
    listener.bind = vec![address];
    let beside = |config: &mut Config| config.listeners = vec![listener];
    let edge = Edge::start_with(world.clone(), beside);
    assert_eq!(Client::of(&edge).await.ask(b"udp").await, b"udp");
    TcpStream::connect(address).await.unwrap();

    let mut config = edge::config(&world);
    let mut third = udp_listener(&world, "api", rule());
    third.bind = vec![address];
    config.listeners = vec![third];
    assert!(web.proxy.prepare(config).is_err());
}

#[tokio::test]
async fn a_reload_keeps_flows_and_gives_new_ones_the_new_pool() {
    let (old, new) = (Echo::start().await, Echo::start().await);
    let world = world_of(&[&old])
        .pool("other")
        .region("eu", Up)
        .endpoint(&new.address.to_string(), Up)
        .build();
    let edge = start(world.clone(), rule());
    let client = Client::of(&edge).await;
    client.ask(b"1").await;

    let mut config = edge::config(&world);
    config.listeners = vec![udp_listener(&world, "other", rule())];
    let prepared = edge.proxy.prepare(config).unwrap();
    edge.proxy.replace_rules(prepared);

    client.ask(b"2").await;
    assert_eq!((old.count(), new.count()), (2, 0));
    Client::of(&edge).await.ask(b"3").await;
    assert_eq!((old.count(), new.count()), (2, 1));
}

#[tokio::test]
async fn a_removed_listener_frees_its_port() {
    let one = Echo::start().await;
    let world = world_of(&[&one]).build();
    let edge = start(world.clone(), rule());
    let address = edge.address_of("udp");
    Client::of(&edge).await.ask(b"1").await;

    let prepared = edge.proxy.prepare(edge::config(&world)).unwrap();
    edge.proxy.replace_rules(prepared);

    let mut patience = 100;
    while UdpSocket::bind(address).await.is_err() {
        patience -= 1;
        assert!(patience > 0, "the port is never free");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn draining_ends_with_the_last_flow_and_takes_up_none() {
    let one = Echo::start().await;
    let short = FlowRule {
        idle: Duration::from_millis(500),
        ..rule()
    };
    let edge = start(world_of(&[&one]).build(), short);
    let address = edge.address_of("udp");
    let old = Client::of(&edge).await;
    old.ask(b"1").await;

    let talk = async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(old.ask(b"still here").await, b"still here");
        }
        let late = Client::from("127.0.0.1:0", address).await;
        late.send(b"hello").await;
        assert!(late.is_silent().await);
    };
    let (cut_off, ()) = tokio::join!(edge.proxy.drain(PATIENCE), talk);
    assert_eq!(cut_off, 0);
}

#[tokio::test]
async fn a_successor_takes_what_comes_and_the_predecessor_carries_its_last_answers() {
    let slow = UdpSocket::bind(any_port()).await.unwrap();
    let address = slow.local_addr().unwrap();
    let world = World::new()
        .region("eu", Up)
        .endpoint(&address.to_string(), Up)
        .build();
    let mut config = edge::config(&world);
    config.listeners = vec![udp_listener(&world, "api", rule())];
    let old = start(world.clone(), rule());
    let client = Client::of(&old).await;
    client.send(b"old").await;
    let mut buffer = [0; 16];
    let (_, old_flow) = slow.recv_from(&mut buffer).await.unwrap();

    let mut held = old.proxy.sockets().unwrap();
    let new = Edge::start_inheriting(world, config, &mut |wanted| {
        assert_eq!(
            (wanted.listener, wanted.kind),
            ("udp", SocketKind::Datagram)
        );
        held.pop().unwrap().sockets
    });
    let successor = async {
        for _ in 0..20 {
            client.send(b"new").await;
            let (length, new_flow) = slow.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], b"new");
            assert_ne!(new_flow, old_flow);
        }
        slow.send_to(b"late", old_flow).await.unwrap();
        assert_eq!(client.receive().await, b"late");
    };
    let (cut_off, ()) = tokio::join!(old.proxy.step_aside(PATIENCE), successor);
    assert_eq!(cut_off, 0);
    drop(new);
}
