//! The name server on real sockets, all on loopback and on ports that the system chooses.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(clippy::disallowed_methods, reason = "a limit by time is tested")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealane_dns::config::{Cookies, Limits, Soa, SteeredName, Zone};
use sealane_dns::engine::Transport;
use sealane_dns::limit::Rates;
use sealane_dns::name::Name;
use sealane_dns::record::Record;
use sealane_dns::{Config, Deps, Dns, ExplainError, Options};
use sealane_model::publish::snapshot_channel;
use sealane_model::{OutReason, SnapshotWriter, Ttl, Verdict};
use sealane_steering::{GeoTable, Reason, SteeringPolicy};
use sealane_testkit::World;
use socket2::{Domain, Socket, Type};

/// Long enough for a busy machine; nothing here waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(10);

fn world() -> World {
    World::new()
        .region("eu", Verdict::Up)
        .addresses(&["192.0.2.10"])
        .region("us", Verdict::Up)
        .addresses(&["192.0.2.20"])
}

fn config(bind: &[SocketAddr]) -> Config {
    let apex = Name::parse("example.test", None).unwrap();
    let name = |text| Name::parse(text, Some(&apex)).unwrap();
    let second = Ttl::from_secs;
    let record = |owner, rtype, data: &str| {
        Record::parse(name(owner), rtype, second(60), data, &apex).unwrap()
    };
    let mut records = vec![record("@", "NS", "ns1"), record("www", "A", "192.0.2.80")];
    records.extend((0..100).map(|i| record("many", "A", &format!("10.0.0.{i}"))));
    let pool = world().build().topology.pool_named("api").unwrap().id;
    let soa = Soa {
        ttl: second(60),
        primary: name("ns1"),
        mailbox: name("hostmaster"),
        serial: 1,
        refresh: second(3600),
        retry: second(600),
        expire: second(86_400),
        minimum: second(10),
    };
    let steered = SteeredName::new(name("api"), pool, Arc::new(SteeringPolicy::Nearest));
    let mut zone = Zone::new(apex, soa, records);
    zone.steered.push(steered);
    let mut config = Config::new(vec![zone], Arc::new(GeoTable::empty()));
    config.bind = bind.to_vec();
    config.limits = Limits {
        answers: None,
        tcp_connections: 3,
        tcp_idle: PATIENCE,
    };
    config
}

const WORKERS: Options = Options {
    workers: NonZeroUsize::new(2).unwrap(),
};

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn start(config: Config) -> (Dns, SnapshotWriter) {
    let (writer, world) = snapshot_channel(world().build());
    let dns = Dns::bind(config, Deps { world }, WORKERS).unwrap();
    dns.start().unwrap();
    (dns, writer)
}

fn question(name: &str, id: u8) -> Vec<u8> {
    let mut message = vec![0, id, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(Name::parse(name, None).unwrap().wire());
    message.extend_from_slice(&[0, 1, 0, 1]);
    message
}

fn by_udp(server: SocketAddr, name: &str) -> Vec<u8> {
    let local: IpAddr = match server {
        SocketAddr::V4(_) => [127, 0, 0, 1].into(),
        SocketAddr::V6(_) => "::1".parse().unwrap(),
    };
    let socket = UdpSocket::bind((local, 0)).unwrap();
    // Connected, so that an answer from another address is not received.
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&question(name, 7)).unwrap();
    let mut reply = vec![0; 2_048];
    let length = socket.recv(&mut reply).unwrap();
    reply.truncate(length);
    reply
}

fn tcp_send(stream: &mut TcpStream, message: &[u8]) {
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).unwrap();
}

fn tcp_receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The answer's last four octets, where its last record is an A without OPT.
fn last_address(reply: &[u8]) -> [u8; 4] {
    *reply.last_chunk().unwrap()
}

/// The question with a COOKIE option, as `dig` sends it.
fn with_cookie(cookie: &[u8], id: u8) -> Vec<u8> {
    let mut message = question("www.example.test", id);
    message[11] = 1;
    message.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0");
    message.extend_from_slice(&[4 + cookie.len() as u8, 0, 10, 0, cookie.len() as u8]);
    message.extend_from_slice(cookie);
    message
}

/// The first octets of each answer to `count` such questions, and the last 24 of the last one.
fn flood(server: SocketAddr, message: &[u8], count: usize) -> (Vec<[u8; 4]>, Vec<u8>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    for _ in 0..count {
        socket.send(message).unwrap();
    }
    // Another kind of answer, which no limit of the former touches, tells that all are through.
    socket.send(&question("elsewhere.test", 99)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut heads, mut last) = (Vec::new(), Vec::new());
    let mut reply = [0; 2_048];
    loop {
        let length = socket.recv(&mut reply).unwrap();
        if reply[1] == 99 {
            return (heads, last);
        }
        heads.push(*reply.first_chunk().unwrap());
        last = reply[length.saturating_sub(24)..length].to_vec();
    }
}

#[test]
fn a_flood_gets_few_answers_and_who_has_a_cookie_gets_all() {
    let mut config = config(&[loopback()]);
    config.cookies = Cookies::Own;
    config.limits.answers = Some(Rates {
        per_second: 1,
        burst: 5,
        slip: 2,
        exempt: Vec::new(),
    });
    let (dns, _world) = start(config);
    let server = dns.addresses()[0];
    const TRUNCATED: u8 = 2;
    const BADCOOKIE: u8 = 7; // its lower bits

    let begun = Instant::now();
    let (plain, _) = flood(server, &question("www.example.test", 1), 40);
    // One more for each second that a slow machine takes.
    let in_time = begun.elapsed().as_secs() as usize + 1;
    let short = plain.iter().filter(|head| head[2] & TRUNCATED != 0).count();
    let whole = plain.len() - short;
    assert!((5..=5 + in_time).contains(&whole), "{whole} in {in_time} s");
    assert!(
        (40 - whole).div_ceil(2) >= short && short >= (40 - whole) / 2,
        "every second of the rest: {short}"
    );

    let (asked, last) = flood(server, &with_cookie(b"12345678", 2), 40);
    let told = asked
        .iter()
        .filter(|head| head[3] & 15 == BADCOOKIE)
        .count();
    assert!(told >= 13, "{told}");
    assert!(last.starts_with(b"12345678"), "its own part, and ours");

    let (proven, again) = flood(server, &with_cookie(&last, 3), 40);
    assert_eq!(proven.len(), 40);
    assert!(
        proven
            .iter()
            .all(|head| head[2] & TRUNCATED == 0 && head[3] & 15 == 0)
    );
    assert!(again.starts_with(b"12345678"));
}

#[test]
fn a_reload_keeps_the_cookies_that_it_gave() {
    let mut config = config(&[loopback()]);
    config.cookies = Cookies::Own;
    config.limits.answers = Some(Rates {
        per_second: 1,
        burst: 5,
        slip: 0,
        exempt: Vec::new(),
    });
    let (dns, _world) = start(config.clone());
    let server = dns.addresses()[0];
    let (_, cookie) = flood(server, &with_cookie(b"12345678", 1), 1);

    dns.replace_rules(dns.prepare(config).unwrap());

    let (proven, _) = flood(server, &with_cookie(&cookie, 2), 20);
    assert_eq!(proven.len(), 20);
}

#[test]
fn the_same_port_answers_by_udp_and_tcp() {
    let (dns, _world) = start(config(&[loopback()]));
    let [server] = dns.addresses()[..] else {
        panic!("one address");
    };

    assert_eq!(
        last_address(&by_udp(server, "www.example.test")),
        [192, 0, 2, 80]
    );

    let mut stream = connect(server);
    for id in [1, 2] {
        tcp_send(&mut stream, &question("www.example.test", id));
    }
    for id in [1, 2] {
        let reply = tcp_receive(&mut stream).unwrap();
        assert_eq!((reply[1], last_address(&reply)), (id, [192, 0, 2, 80]));
    }
    dns.stop(PATIENCE);
    assert!(TcpStream::connect(server).is_err());
}

#[test]
fn many_questions_on_one_connection_are_all_answered_after_its_client_has_said_all() {
    let (dns, _world) = start(config(&[loopback()]));
    let mut stream = connect(dns.addresses()[0]);
    for id in 0..200 {
        tcp_send(&mut stream, &question("many.example.test", id));
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    for id in 0..200 {
        let reply = tcp_receive(&mut stream).unwrap();
        assert_eq!((reply[1], reply[7]), (id, 100));
    }
    assert!(tcp_receive(&mut stream).is_err(), "closed");
}

#[test]
fn a_client_that_reads_late_gets_every_answer_in_order() {
    let (dns, _world) = start(config(&[loopback()]));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // What the server sends, 6.5 MB, must not fit into the kernel's memory.
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.connect(&dns.addresses()[0].into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut stream = TcpStream::from(socket);
    for number in 0..4_000_u16 {
        let mut asked = question("many.example.test", 0);
        asked[..2].copy_from_slice(&number.to_be_bytes());
        tcp_send(&mut stream, &asked);
    }
    for number in 0..4_000_u16 {
        let reply = tcp_receive(&mut stream).unwrap();
        assert_eq!((&reply[..2], reply[7]), (&number.to_be_bytes()[..], 100));
    }
}

#[test]
fn what_a_datagram_truncates_tcp_has_whole() {
    let (dns, _world) = start(config(&[loopback()]));
    let server = dns.addresses()[0];

    let reply = by_udp(server, "many.example.test");
    assert_eq!((reply[2] & 2, reply[7]), (2, 0), "TC and no answers");

    let mut stream = connect(server);
    tcp_send(&mut stream, &question("many.example.test", 1));
    let reply = tcp_receive(&mut stream).unwrap();
    assert_eq!((reply[2] & 2, reply[7]), (0, 100));
}

#[test]
fn answers_follow_the_world_without_a_restart() {
    let (dns, mut writer) = start(config(&[loopback()]));
    let server = dns.addresses()[0];
    assert_eq!(
        last_address(&by_udp(server, "api.example.test")),
        [192, 0, 2, 10]
    );

    writer.publish(world().out("eu", OutReason::Failed).generation(2).build());

    assert_eq!(
        last_address(&by_udp(server, "api.example.test")),
        [192, 0, 2, 20]
    );
    let mut stream = connect(server);
    tcp_send(&mut stream, &question("api.example.test", 1));
    assert_eq!(
        last_address(&tcp_receive(&mut stream).unwrap()),
        [192, 0, 2, 20]
    );
}

#[test]
fn a_wildcard_bind_answers_from_the_address_that_was_asked() {
    let any = ["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()];
    let (dns, _world) = start(config(&any));
    let [v4, v6] = dns.addresses()[..] else {
        panic!("two addresses");
    };
    for asked in ["127.0.0.1", "127.0.0.2", "127.1.2.3"] {
        let server = SocketAddr::new(asked.parse().unwrap(), v4.port());
        assert_eq!(
            last_address(&by_udp(server, "www.example.test")),
            [192, 0, 2, 80]
        );
    }
    let server = SocketAddr::new("::1".parse().unwrap(), v6.port());
    assert_eq!(
        last_address(&by_udp(server, "www.example.test")),
        [192, 0, 2, 80]
    );
}

#[test]
fn a_port_in_use_is_refused_by_name_and_protocol() {
    let taken = UdpSocket::bind(loopback()).unwrap();
    let address = taken.local_addr().unwrap();
    let (_writer, world) = snapshot_channel(world().build());
    let deps = Deps { world };
    let bind = |address| Dns::bind(config(&[address]), deps.clone(), WORKERS);

    let error = bind(address).unwrap_err();
    assert!(error.is_in_use());
    assert_eq!((error.address, error.protocol), (address, Transport::Udp));
    assert!(
        error.to_string().contains("another program has it"),
        "{error}"
    );

    let taken = TcpListener::bind(loopback()).unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(address).unwrap_err();
    assert!(error.is_in_use());
    assert_eq!(error.protocol, Transport::Stream);

    // Another name server of this kind shares its ports among its own threads only.
    let (other, _world) = start(config(&[loopback()]));
    let error = bind(other.addresses()[0]).unwrap_err();
    assert!(error.is_in_use());

    let error = bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("no such address"), "{error}");
}

#[test]
fn a_reload_adds_and_removes_addresses_and_changes_records() {
    let first = loopback();
    let second: SocketAddr = "127.0.0.2:0".parse().unwrap();
    let (dns, _world) = start(config(&[first]));
    let kept = dns.addresses()[0];

    let mut more = config(&[first, second]);
    more.zones[0].records.clear();
    let prepared = dns.prepare(more).unwrap();
    assert_eq!(
        last_address(&by_udp(kept, "www.example.test")),
        [192, 0, 2, 80]
    );
    dns.replace_rules(prepared);

    let [still, added] = dns.addresses()[..] else {
        panic!("two addresses");
    };
    assert_eq!(still, kept);
    assert_eq!(by_udp(kept, "www.example.test")[3], 3, "NXDOMAIN");
    assert_eq!(by_udp(added, "www.example.test")[3], 3);

    let prepared = dns.prepare(config(&[second])).unwrap();
    dns.replace_rules(prepared);
    assert_eq!(dns.addresses(), [added]);
    assert_eq!(
        last_address(&by_udp(added, "www.example.test")),
        [192, 0, 2, 80]
    );
    // Once the threads are gone, so are the sockets.
    dns.stop(PATIENCE);
    UdpSocket::bind(kept).unwrap();
}

#[test]
fn a_reload_that_cannot_bind_changes_nothing() {
    let taken = UdpSocket::bind(loopback()).unwrap();
    let (dns, _world) = start(config(&[loopback()]));
    let before = dns.addresses();

    let new = config(&[loopback(), taken.local_addr().unwrap()]);
    assert!(dns.prepare(new).unwrap_err().is_in_use());

    assert_eq!(dns.addresses(), before);
    assert_eq!(
        last_address(&by_udp(before[0], "www.example.test")),
        [192, 0, 2, 80]
    );
}

#[test]
fn no_question_is_lost_over_many_reloads() {
    let (dns, _world) = start(config(&[loopback()]));
    let server = dns.addresses()[0];
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            for _ in 0..2_000 {
                assert_eq!(
                    last_address(&by_udp(server, "www.example.test")),
                    [192, 0, 2, 80]
                );
            }
        });
        while !asking.is_finished() {
            let prepared = dns.prepare(config(&[loopback()])).unwrap();
            dns.replace_rules(prepared);
        }
    });
}

#[test]
fn questions_sent_before_the_start_are_answered_after_it() {
    let (_writer, world) = snapshot_channel(world().build());
    let dns = Dns::bind(config(&[loopback()]), Deps { world }, WORKERS).unwrap();
    let server = dns.addresses()[0];
    let socket = UdpSocket::bind(loopback()).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&question("www.example.test", 9)).unwrap();

    dns.start().unwrap();

    let mut reply = [0; 512];
    let length = socket.recv(&mut reply).unwrap();
    assert_eq!(last_address(&reply[..length]), [192, 0, 2, 80]);
}

#[test]
fn connections_beyond_the_limit_are_closed_and_the_others_live_on() {
    let (dns, _world) = start(config(&[loopback()]));
    let server = dns.addresses()[0];
    let ask = |stream: &mut TcpStream| {
        tcp_send(stream, &question("www.example.test", 1));
        tcp_receive(stream)
    };
    // An answer shows that the connection has been counted.
    let mut held: Vec<_> = (0..3).map(|_| connect(server)).collect();
    for stream in &mut held {
        ask(stream).unwrap();
    }
    let mut refused = connect(server);
    assert!(matches!(refused.read(&mut [0; 1]), Ok(0) | Err(_)));
    for stream in &mut held {
        ask(stream).unwrap();
    }

    // One leaves, and another may come once that has been noticed.
    held.pop();
    let again = (0..1_000).any(|_| {
        let mut stream = connect(server);
        let framed = [&[0, 34][..], &question("www.example.test", 1)].concat();
        stream.write_all(&framed).is_ok() && tcp_receive(&mut stream).is_ok()
    });
    assert!(again);
}

#[test]
fn one_client_cannot_take_all_connections() {
    let mut config = config(&[loopback()]);
    config.limits.tcp_connections = 40;
    let (dns, _world) = start(config);
    let server = dns.addresses()[0];
    let ask = |stream: &mut TcpStream| {
        let framed = [&[0, 34][..], &question("www.example.test", 1)].concat();
        stream.write_all(&framed).is_ok() && tcp_receive(stream).is_ok()
    };
    let mut held: Vec<_> = (0..10).map(|_| connect(server)).collect();
    assert!(held.iter_mut().all(ask));

    assert!(!ask(&mut connect(server)), "a quarter is taken");

    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let elsewhere: SocketAddr = "127.0.0.9:0".parse().unwrap();
    socket.bind(&elsewhere.into()).unwrap();
    socket.connect(&server.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(ask(&mut socket.into()), "others still come in");
}

#[test]
fn an_idle_connection_is_closed_even_when_octets_trickle() {
    let mut config = config(&[loopback()]);
    config.limits.tcp_idle = Duration::from_millis(300);
    let (dns, _world) = start(config);
    let mut stream = connect(dns.addresses()[0]);
    let mut closed = false;
    // Half of a message, an octet at a time; each write is well within the limit.
    for octet in [0, 34].into_iter().chain(std::iter::repeat_n(0, 30)) {
        std::thread::sleep(Duration::from_millis(30));
        if stream.write_all(&[octet]).is_err() {
            closed = true;
            break;
        }
    }
    assert!(closed || matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
}

#[test]
fn stopping_answers_what_was_sent_and_is_quick() {
    let (dns, _world) = start(config(&[loopback()]));
    let server = dns.addresses()[0];
    let socket = UdpSocket::bind(loopback()).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for id in 0..20 {
        socket.send(&question("www.example.test", id)).unwrap();
    }
    let mut idle = connect(server);
    tcp_send(&mut idle, &question("www.example.test", 1));
    tcp_receive(&mut idle).unwrap();

    dns.stop(PATIENCE);

    for _ in 0..20 {
        socket.recv(&mut [0; 512]).unwrap();
    }
    assert!(tcp_receive(&mut idle).is_err());
    // The sockets are gone: the port is free again.
    UdpSocket::bind(server).unwrap();
}

#[test]
fn malformed_messages_leave_the_server_answering() {
    let mut config = config(&[loopback()]);
    config.limits.tcp_idle = Duration::from_millis(300);
    let (dns, _world) = start(config);
    let server = dns.addresses()[0];
    let socket = UdpSocket::bind(loopback()).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reply = [0; 2_048];

    socket.send(&[0; 5]).unwrap();
    socket.send(&[]).unwrap();
    let oversized = [&question("www.example.test", 3)[..], &[0; 5_000]].concat();
    socket.send(&oversized).unwrap();
    let length = socket.recv(&mut reply).unwrap();
    assert_eq!(
        (length, reply[1], reply[3]),
        (12, 3, 1),
        "FORMERR for what was cut"
    );

    let mut stream = connect(server);
    tcp_send(&mut stream, b"\0\0\0");
    assert!(tcp_receive(&mut stream).is_err(), "closed");
    let mut stream = connect(server);
    tcp_send(&mut stream, b"");
    assert!(tcp_receive(&mut stream).is_err(), "closed");

    assert_eq!(
        last_address(&by_udp(server, "www.example.test")),
        [192, 0, 2, 80]
    );
}

#[test]
fn explain_tells_what_would_be_answered() {
    let (dns, mut writer) = start(config(&[loopback()]));
    writer.publish(world().out("eu", OutReason::Failed).generation(5).build());
    let client = "203.0.113.1".parse().unwrap();

    let decision = dns.explain("api.example.test.", client).unwrap();
    assert!(matches!(
        decision.explanation.ranking.reason,
        Reason::FailedOver { .. }
    ));
    assert_eq!(
        (decision.via.as_str(), decision.world.generation.0),
        ("api.example.test", 5)
    );
    assert!(
        decision
            .notes
            .contains(&("answer_a", "192.0.2.20".to_owned()))
    );
    assert!(
        decision
            .notes
            .contains(&("answer_aaaa", "none (NODATA)".to_owned()))
    );

    let error = |name| dns.explain(name, client).unwrap_err();
    assert!(matches!(
        error("www.example.test"),
        ExplainError::NotSteered { .. }
    ));
    assert!(matches!(
        error("x.example.test"),
        ExplainError::NoName { .. }
    ));
    assert!(matches!(error("example.com"), ExplainError::NotOurs { .. }));
    assert!(matches!(error("a..b"), ExplainError::NotAName(_)));
}
