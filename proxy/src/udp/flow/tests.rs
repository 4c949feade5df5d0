//! The flow table against a plain list that does the same slowly, and its rules one by one.

use proptest::prelude::*;

use super::*;

const IDLE: Duration = Duration::from_secs(60);

fn limits(flows: usize, per_client: usize) -> FlowLimits {
    FlowLimits {
        flows,
        per_client,
        idle: IDLE,
    }
}

fn key(client: &str) -> FlowKey {
    FlowKey {
        client: client.parse().unwrap(),
        local: Local::Bound,
    }
}

fn start() -> Instant {
    crate::clock::now()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl<T> FlowTable<T> {
    fn admit(
        &mut self,
        now: Instant,
        key: FlowKey,
        flow: T,
        limits: &FlowLimits,
    ) -> Result<FlowId, Full> {
        if let Some(first) = self.make_way(&key, limits)? {
            self.remove(first).unwrap();
        }
        Ok(self.open(now, key, flow))
    }

    fn prove(&mut self, now: Instant, id: FlowId) {
        self.answered(id);
        self.heard(now, id);
    }
}

#[test]
fn a_flow_ends_when_its_client_was_silent_however_much_the_endpoint_sends() {
    let (mut table, begin) = (FlowTable::default(), start());
    let id = table.open(begin, key("192.0.2.1:1000"), 'a');
    table.heard(begin + seconds(30), id);
    table.answered(id);

    assert_eq!(table.next_wake(IDLE), Some(begin + seconds(90)));
    assert_eq!(table.expire(begin + seconds(89), IDLE), None);
    let (ended, flow) = table.expire(begin + seconds(90), IDLE).unwrap();
    assert_eq!((ended, flow), (key("192.0.2.1:1000"), 'a'));
    assert_eq!((table.len(), table.next_wake(IDLE)), (0, None));
}

#[test]
fn a_full_table_lets_the_longest_silent_unproven_flow_make_way() {
    let (mut table, begin) = (FlowTable::default(), start());
    let limits = limits(3, 3);
    let proven = table.open(begin, key("192.0.2.1:1"), 'p');
    table.prove(begin, proven);
    let early = table.open(begin + seconds(1), key("192.0.2.2:1"), 'e');
    let late = table.open(begin + seconds(2), key("192.0.2.3:1"), 'l');
    table.heard(begin + seconds(3), early);

    let newcomer = key("192.0.2.4:1");
    assert_eq!(table.make_way(&newcomer, &limits), Ok(Some(late)));
    table
        .admit(begin + seconds(4), newcomer, 'n', &limits)
        .unwrap();
    assert_eq!(table.find(&key("192.0.2.3:1")), None);
    assert_eq!(table.find(&key("192.0.2.1:1")), Some(proven));
}

#[test]
fn where_all_are_proven_the_newcomer_is_refused() {
    let (mut table, begin) = (FlowTable::default(), start());
    for port in 1..=2 {
        let id = table.open(begin, key(&format!("192.0.2.{port}:1")), port);
        table.prove(begin, id);
    }
    let newcomer = key("192.0.2.9:1");
    assert_eq!(table.make_way(&newcomer, &limits(2, 2)), Err(Full::Table));
    assert_eq!(table.make_way(&newcomer, &limits(3, 2)), Ok(None));
}

#[test]
fn one_client_cannot_push_out_the_others() {
    let (mut table, begin) = (FlowTable::default(), start());
    let limits = limits(100, 2);
    let other = table.open(begin, key("192.0.2.1:1"), 0);
    for port in 1..=50 {
        let key = key(&format!("192.0.2.2:{port}"));
        table.admit(begin + seconds(1), key, port, &limits).unwrap();
    }
    assert_eq!(table.len(), 3);
    assert_eq!(table.find(&key("192.0.2.1:1")), Some(other));
    assert!(table.find(&key("192.0.2.2:50")).is_some());

    for port in 49..=50 {
        let id = table.find(&key(&format!("192.0.2.2:{port}"))).unwrap();
        table.prove(begin + seconds(2), id);
    }
    let more = key("192.0.2.2:51");
    assert_eq!(table.make_way(&more, &limits), Err(Full::Client));
}

#[test]
fn an_ipv6_client_is_its_network_and_a_mapped_one_its_ipv4_address() {
    let net = |text: &str| ClientNet::of(text.parse::<SocketAddr>().unwrap().ip());
    assert_eq!(net("[2001:db8:0:1::1]:1"), net("[2001:db8:0:1:ffff::2]:9"));
    assert_ne!(net("[2001:db8:0:1::1]:1"), net("[2001:db8:0:2::1]:1"));
    assert_eq!(net("[::ffff:192.0.2.1]:1"), net("192.0.2.1:2"));
}

#[test]
fn an_old_flow_s_id_says_nothing_of_the_one_in_its_place() {
    let (mut table, begin) = (FlowTable::default(), start());
    let old = table.open(begin, key("192.0.2.1:1"), 'a');
    table.remove(old).unwrap();
    let new = table.open(begin, key("192.0.2.2:1"), 'b');
    assert_eq!(old.place, new.place);

    table.prove(begin + seconds(9), old);
    assert_eq!(table.remove(old), None);
    assert_eq!(table.key(old), None);
    assert_eq!(table.next_wake(IDLE), Some(begin + IDLE));
    assert_eq!(table.get_mut(new), Some(&mut 'b'));
}

/// What happens to a table, at most [`IDLE`] apart.
#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    /// A datagram of this client (host, port).
    Datagram(u8, u16),
    /// Of the flow that is the n-th in the model.
    Answer(usize),
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..25_u64).prop_map(Step::Wait),
        6 => (0..4_u8, 1..5_u16).prop_map(|(host, port)| Step::Datagram(host, port)),
        4 => (0..16_usize).prop_map(Step::Answer),
        1 => (0..16_usize).prop_map(Step::Remove),
    ]
}

/// One flow of the model; the list is in the order in which clients were last heard.
#[derive(Clone, Debug, PartialEq)]
struct Plain {
    key: FlowKey,
    heard: Instant,
    answered: bool,
    proven: bool,
}

fn plain_make_way(
    list: &[Plain],
    key: &FlowKey,
    limits: &FlowLimits,
) -> Result<Option<FlowKey>, Full> {
    let client = ClientNet::of(key.client.ip());
    let is_client = |plain: &&Plain| ClientNet::of(plain.key.client.ip()) == client;
    if list.iter().filter(is_client).count() >= limits.per_client {
        let mut unproven = list.iter().filter(is_client).filter(|plain| !plain.proven);
        return unproven
            .next()
            .map(|plain| Some(plain.key))
            .ok_or(Full::Client);
    }
    if list.len() >= limits.flows {
        let mut unproven = list.iter().filter(|plain| !plain.proven);
        return unproven
            .next()
            .map(|plain| Some(plain.key))
            .ok_or(Full::Table);
    }
    Ok(None)
}

fn plain_datagram(
    list: &mut Vec<Plain>,
    now: Instant,
    key: FlowKey,
    limits: &FlowLimits,
) -> Result<(), Full> {
    if let Some(at) = list.iter().position(|plain| plain.key == key) {
        let mut plain = list.remove(at);
        plain.heard = now;
        plain.proven |= plain.answered;
        list.push(plain);
        return Ok(());
    }
    if let Some(first) = plain_make_way(list, &key, limits)? {
        list.retain(|plain| plain.key != first);
    }
    list.push(Plain {
        key,
        heard: now,
        answered: false,
        proven: false,
    });
    Ok(())
}

fn datagram(
    table: &mut FlowTable<FlowKey>,
    now: Instant,
    key: FlowKey,
    limits: &FlowLimits,
) -> Result<(), Full> {
    match table.find(&key) {
        Some(id) => table.heard(now, id),
        None => {
            table.admit(now, key, key, limits)?;
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_table_does_what_a_plain_list_does(
        steps in prop::collection::vec(step(), 0..200),
        flows in 1..8_usize,
        per_client in 1..4_usize,
    ) {
        let limits = limits(flows, per_client);
        let mut now = start();
        let mut table = FlowTable::default();
        let mut list: Vec<Plain> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(passed) => {
                    now += seconds(passed);
                    while let Some((key, flow)) = table.expire(now, IDLE) {
                        prop_assert_eq!(key, flow);
                        prop_assert_eq!(list.remove(0).key, key);
                    }
                }
                Step::Datagram(host, port) => {
                    let key = key(&format!("192.0.2.{host}:{port}"));
                    let done = datagram(&mut table, now, key, &limits);
                    prop_assert_eq!(done, plain_datagram(&mut list, now, key, &limits));
                }
                Step::Answer(at) if !list.is_empty() => {
                    let at = at % list.len();
                    list[at].answered = true;
                    let id = table.find(&list[at].key).unwrap();
                    table.answered(id);
                }
                Step::Remove(at) if !list.is_empty() => {
                    let gone = list.remove(at % list.len());
                    let id = table.find(&gone.key).unwrap();
                    prop_assert_eq!(table.remove(id), Some((gone.key, gone.key)));
                }
                Step::Answer(_) | Step::Remove(_) => {}
            }
            prop_assert_eq!(table.len(), list.len());
            prop_assert_eq!(table.next_wake(IDLE), list.first().map(|plain| plain.heard + IDLE));
            prop_assert!(table.len() <= flows);
            for plain in &list {
                let id = table.find(&plain.key).unwrap();
                prop_assert_eq!(table.key(id), Some(plain.key));
            }
            let clients: std::collections::HashSet<_> =
                list.iter().map(|plain| ClientNet::of(plain.key.client.ip())).collect();
            prop_assert_eq!(table.clients.len(), clients.len());
            for client in table.clients.values() {
                prop_assert!(client.flows <= per_client);
            }
        }
    }
}
