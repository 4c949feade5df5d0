//! What a stranger, or an endpoint gone wrong, can do to the running program: nothing that grows,
//! hangs or panics, and nothing that keeps others out. Short forms of longer attacks.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use world::{Sealane, dig, text, until};

const MIB: u64 = 1024 * 1024;

/// The program in front of two endpoints: `legit.test` goes to a peaceful one, everything else to
/// the one under test.
struct Attacked {
    sealane: Sealane,
    before: u64,
    /// What each connection of the endpoint under test has sent to it.
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    _folder: tempfile::TempDir,
}

impl Attacked {
    fn start() -> Self {
        Self::start_with("", "head_timeout: 1s")
    }

    /// `node` and `limits`: further keys of the file.
    fn start_with(node: &str, limits: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (attacked, seen) = endpoint();
        let (peaceful, _) = endpoint();
        let sealane = Sealane::run(
            &config(&folder, attacked, peaceful, node, limits),
            &["web", "dns", "admin"],
        );
        let mut started = Self {
            sealane,
            before: 0,
            seen,
            _folder: folder,
        };
        for _ in 0..4 {
            started.serves_others();
        }
        started.before = started.sealane.memory();
        started
    }

    fn web(&self) -> TcpStream {
        let stream = TcpStream::connect(self.sealane.address("web")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
    }

    /// A stranger's attack is nobody else's trouble.
    fn serves_others(&self) {
        let since = world::now();
        let mut stream = self.web();
        stream
            .write_all(b"GET /small HTTP/1.1\r\nHost: legit.test\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        assert!(since.elapsed() < Duration::from_secs(5), "served late");
    }

    fn grew_by_less_than(&self, bytes: u64) {
        let grown = self.sealane.memory().saturating_sub(self.before);
        assert!(grown < bytes, "{} MiB more", grown / MIB);
    }

    fn answer_to(&self, request: &[u8]) -> String {
        let mut stream = self.web();
        stream.write_all(request).unwrap();
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer).unwrap_or(0);
        text(&answer[..read])
    }

    fn status_of(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let answer = self.answer_to(request.as_bytes());
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// The value of a metric, given with its labels.
    fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.sealane.address("admin")).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// A connection that speaks HTTP/2 and has sent `frames`.
    fn http2(&self, window: u32, frames: &[u8]) -> TcpStream {
        let mut stream = self.web();
        let mut settings = 4_u16.to_be_bytes().to_vec();
        settings.extend(window.to_be_bytes());
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &settings));
        bytes.extend(frame(4, 1, 0, b""));
        bytes.extend(frames);
        // An error: it was cut off, which is for the test to find out.
        let _ = stream.write_all(&bytes);
        stream
    }
}

impl Drop for Attacked {
    fn drop(&mut self) {
        if !thread::panicking() {
            let log = self.sealane.log();
            assert!(
                !log.contains("panicked") && !log.contains("\"ERROR\""),
                "{log}"
            );
        }
    }
}

fn config(
    folder: &tempfile::TempDir,
    attacked: SocketAddr,
    peaceful: SocketAddr,
    node: &str,
    limits: &str,
) -> PathBuf {
    let file = folder.path().join("sealane.yaml");
    let yaml = format!(
        "version: 1
node: {{ name: test, first_round_limit: 1s, {node} }}
pools:
  attacked:
    regions: {{ us-east-1: {{ addresses: [192.0.2.10], endpoints: [{{ address: \"{attacked}\" }}] }} }}
    probe: {{ tcp: {{}}, interval: 60s, timeout: 2s }}
    failover: {{ all_down: fail_open }}
  peaceful:
    regions: {{ us-east-1: {{ addresses: [192.0.2.11], endpoints: [{{ address: \"{peaceful}\" }}] }} }}
    probe: {{ tcp: {{}}, interval: 60s, timeout: 2s }}
listeners:
  web: {{ bind: [\"127.0.0.1:0\"], protocol: http }}
limits: {{ {limits} }}
routes:
  - {{ match: {{ host: legit.test }}, pool: peaceful }}
  - {{ pool: attacked, retry: {{ attempts: 1 }}, timeouts: {{ connect: 4s, attempt: 4s, request: 5s, idle: 2s }} }}
dns:
  bind: [\"127.0.0.1:0\"]
  zones:
    api.example.test: {{ ns: [ns1.example.test.], steered: {{ \"@\": {{ pool: peaceful }} }} }}
admin: {{ bind: [\"127.0.0.1:0\"] }}
"
    );
    std::fs::write(&file, yaml).unwrap();
    file
}

/// An endpoint that does what the path says, and notes what it was sent.
fn endpoint() -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let index = {
                let mut all = all.lock().unwrap();
                all.push(Vec::new());
                all.len() - 1
            };
            let all = Arc::clone(&all);
            thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn(move || converse(stream, |bytes| all.lock().unwrap()[index].extend(bytes)))
                .unwrap();
        }
    });
    (address, seen)
}

fn converse(mut stream: TcpStream, note: impl Fn(&[u8])) -> Option<()> {
    let mut arrived = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        note(&buffer[..read]);
        arrived.extend_from_slice(&buffer[..read]);
        let Some(end) = arrived.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = text(&arrived[..end]);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        arrived.clear(); // these clients wait for an answer before they ask again
        misbehave(&mut stream, &path).ok()?;
    }
}

fn misbehave(stream: &mut TcpStream, path: &str) -> std::io::Result<()> {
    let endless = |stream: &mut TcpStream, bytes: &[u8]| -> std::io::Result<()> {
        loop {
            stream.write_all(bytes)?;
        }
    };
    match path {
        "/big" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
            endless(stream, &[b'x'; 16 * 1024])
        }
        "/informational" => {
            let one = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
            endless(stream, &one.repeat(100))
        }
        "/endless-head" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nA: ")?;
            endless(stream, &[b'x'; 16 * 1024])
        }
        "/silent" => {
            thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        _ => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    }
}

/// RFC 9113 §4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field without indexing and without Huffman coding (RFC 7541 §6.2.2).
fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        let mut rest = text.len();
        if rest < 127 {
            out.push(u8::try_from(rest).unwrap());
        } else {
            out.push(127);
            rest -= 127;
            while rest >= 128 {
                out.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            out.push(u8::try_from(rest).unwrap());
        }
        out.extend(text);
    }
    out
}

fn fields(path: &[u8]) -> Vec<u8> {
    [
        field(b":method", b"GET"),
        field(b":scheme", b"http"),
        field(b":path", path),
        field(b":authority", b"a.test"),
    ]
    .concat()
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(1, 5, stream, &fields(path.as_bytes()))
}

fn read_until(stream: &mut TcpStream, wanted: &[u8]) {
    let mut all = Vec::new();
    while !all.windows(wanted.len()).any(|part| part == wanted) {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "closed");
        all.extend_from_slice(&buffer[..read]);
    }
}

/// Stream identifiers of `count` requests of a client.
fn ids(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 1 + 2 * n)
}

#[test]
fn answers_that_nobody_takes_hold_little_and_are_given_up() {
    let attacked = Attacked::start();
    let asks: Vec<u8> = ids(100).flat_map(|id| get(id, "/big")).collect();

    let held: Vec<_> = (1..=6)
        .map(|connections| {
            let stream = attacked.http2(1, &asks);
            // One after the other: the endpoint's listener has a queue of 128.
            until("all reached the endpoint", || {
                attacked.seen.lock().unwrap().len() >= connections * 100
            });
            stream
        })
        .collect();
    attacked.serves_others();

    attacked.grew_by_less_than(24 * MIB);
    // RST_STREAM, once nothing was taken for the route's idle time-out.
    for mut stream in held {
        read_until(&mut stream, &frame(3, 0, 199, &2_u32.to_be_bytes()));
    }
}

#[test]
fn one_connection_cannot_have_us_hold_heads_without_end() {
    let attacked = Attacked::start();
    let filler = [b'v'; 1000];
    let large = |id| {
        let mut all = fields(b"/silent");
        for n in 0..14 {
            all.extend(field(format!("x-{n}").as_bytes(), &filler));
        }
        frame(1, 5, id, &all)
    };
    let asks: Vec<u8> = ids(100).flat_map(large).collect();

    let mut held: Vec<_> = (0..8).map(|_| attacked.http2(65_535, &asks)).collect();

    read_until(&mut held[0], &frame(3, 0, 199, &7_u32.to_be_bytes())); // REFUSED_STREAM
    attacked.serves_others();
    attacked.grew_by_less_than(24 * MIB);
}

#[test]
fn floods_over_http2_end_the_connection_or_cost_nothing() {
    let attacked = Attacked::start();
    let part = field(b"x", &[b'v'; 8000]);
    let continued: Vec<u8> = std::iter::once(frame(1, 0, 1, &fields(b"/")))
        .chain((0..200).map(|_| frame(9, 0, 1, &part)))
        .flatten()
        .collect();
    let reset: Vec<u8> = ids(2_000)
        .flat_map(|id| [get(id, "/silent"), frame(3, 0, id, &8_u32.to_be_bytes())].concat())
        .collect();
    let pings = frame(6, 0, 0, b"12345678").repeat(20_000);
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 255, 255]).repeat(20_000);

    for flood in [&continued, &reset] {
        let mut stream = attacked.http2(65_535, flood);
        // Ends in a GOAWAY or in a reset, not in a time-out.
        let mut end = Vec::new();
        let ended = stream.read_to_end(&mut end);
        let timed_out = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "not ended");
    }
    for flood in [pings, settings] {
        // Nobody reads the acknowledgements: at some point we take no more.
        let stream = attacked.web();
        stream
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let mut stream = stream;
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .unwrap();
        while stream.write_all(&flood).is_ok() {}
        attacked.serves_others();
    }
    attacked.grew_by_less_than(16 * MIB);
}

#[test]
fn a_flood_of_frames_that_ask_for_nothing_ends_in_a_calming_word() {
    let attacked = Attacked::start();
    let calm = frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11]);
    let open = frame(1, 4, 1, &fields(b"/silent"));
    let floods = [
        ("PING", frame(6, 0, 0, b"12345678")),
        ("SETTINGS", frame(4, 0, 0, &[0, 4, 0, 0, 255, 255])),
        ("PRIORITY", frame(2, 0, 3, &[0, 0, 0, 5, 7])),
        ("WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("an unknown frame", frame(99, 0, 0, b"x")),
    ];

    for (name, flood) in floods {
        let all = [open.clone(), flood.repeat(20_000)].concat();
        let mut stream = attacked.http2(65_535, b"");
        let mut writer = stream.try_clone().unwrap();
        // An error: it was cut off.
        let writing = thread::spawn(move || _ = writer.write_all(&all));
        let mut end = Vec::new();
        // A reset after the last bytes is an end as well.
        let _ = stream.read_to_end(&mut end);
        writing.join().unwrap();
        // The last stream that was taken up may be 0 or 1.
        let says = |part: &[u8]| part[..9] == calm[..9] && part[13..] == calm[13..];
        assert!(end.windows(calm.len()).any(says), "{name}");
    }
    attacked.serves_others();
    assert!(attacked.metric("sealane_proxy_floods_total{kind=\"control_frames\"}") >= 5);
    attacked.grew_by_less_than(16 * MIB);
}

#[test]
fn heads_that_are_refused_one_after_the_other_end_the_connection() {
    let attacked = Attacked::start();
    // An entry of 4 KB in the table, then heads that name it twenty times: 80 KB each.
    let mut plant = fields(b"/");
    let mut entry = field(b"x", &[b'v'; 4_000]);
    entry[0] = 0x40;
    plant.extend(entry);
    let mut bomb = fields(b"/");
    bomb.extend([0x80 | 62; 20]);
    let all: Vec<u8> = std::iter::once(frame(1, 5, 1, &plant))
        .chain(ids(2_000).skip(1).map(|id| frame(1, 5, id, &bomb)))
        .flatten()
        .collect();

    let mut stream = attacked.http2(65_535, &all);
    let mut end = Vec::new();
    let ended = stream.read_to_end(&mut end);

    let timed_out = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!timed_out, "not ended");
    attacked.serves_others();
    attacked.grew_by_less_than(16 * MIB);
}

#[test]
fn one_client_does_not_take_the_places_of_others() {
    let attacked = Attacked::start_with("", "connections_per_client: 40");
    let from = |source: [u8; 4]| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        let address = attacked.sealane.address("web");
        socket.connect(&address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: legit.test\r\n\r\n");
        let mut answer = [0; 12];
        let read = stream.read(&mut answer).unwrap_or(0);
        (text(&answer[..read]), stream)
    };

    let held: Vec<_> = (0..60).map(|_| from([127, 0, 0, 2])).collect();

    let served = held.iter().filter(|(answer, _)| answer == "HTTP/1.1 200");
    assert_eq!(served.count(), 40);
    assert_eq!(from([127, 0, 0, 3]).0, "HTTP/1.1 200");
    attacked.serves_others();
    drop(held);
    until("its places are free again", || {
        from([127, 0, 0, 2]).0 == "HTTP/1.1 200"
    });
}

#[test]
fn heads_that_stop_half_way_hold_so_much_and_the_oldest_goes() {
    let attacked = Attacked::start_with("workers: 1", "head_timeout: 60s");
    let mut head = b"GET / HTTP/1.1\r\nHost: a.test\r\nX: ".to_vec();
    head.resize(60_000, b'v');

    let mut held: Vec<_> = (0..700)
        .map(|_| {
            let mut stream = attacked.web();
            stream.write_all(&head).unwrap();
            stream
        })
        .collect();

    let mut answer = [0; 12];
    held[0].read_exact(&mut answer).unwrap();
    assert_eq!(text(&answer), "HTTP/1.1 408");
    // The newest goes on.
    let newest = held.last_mut().unwrap();
    newest.write_all(b"\r\n\r\n").unwrap();
    newest.read_exact(&mut answer).unwrap();
    assert_eq!(text(&answer), "HTTP/1.1 200");
    attacked.serves_others();
    attacked.grew_by_less_than(56 * MIB);
}

#[test]
fn what_endpoints_send_without_end_is_their_failure() {
    let attacked = Attacked::start();

    assert_eq!(attacked.status_of("/endless-head"), "502");
    let hints = attacked.answer_to(b"GET /informational HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert!(hints.starts_with("HTTP/1.1 502 "), "{hints}");

    attacked.serves_others();
    attacked.grew_by_less_than(16 * MIB);
}

#[test]
fn a_head_that_drips_is_cut_off_and_silent_connections_cost_little() {
    let attacked = Attacked::start();
    let silent: Vec<_> = (0..300).map(|_| attacked.web()).collect();
    let mut dripping: Vec<_> = (0..50).map(|_| attacked.web()).collect();

    let since = world::now();
    while since.elapsed() < Duration::from_millis(2_500) {
        for stream in &mut dripping {
            // It may have been cut off already.
            let _ = stream.write_all(b"G");
        }
        thread::sleep(Duration::from_millis(100));
    }

    for mut stream in dripping {
        let mut answer = [0; 12];
        let _ = stream.read(&mut answer);
        assert_eq!(text(&answer), "HTTP/1.1 408");
    }
    attacked.serves_others();
    attacked.grew_by_less_than(16 * MIB);
    drop(silent);
}

#[test]
fn bodies_that_drip_hold_what_they_sent() {
    let attacked = Attacked::start();
    let mut dripping: Vec<_> = (0..250)
        .map(|_| {
            let mut stream = attacked.web();
            let head = b"POST /silent HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\n";
            stream.write_all(head).unwrap();
            stream
        })
        .collect();

    for _ in 0..60 {
        for stream in &mut dripping {
            // It may have been cut off already.
            let _ = stream.write_all(b"x");
        }
        thread::sleep(Duration::from_millis(20));
    }

    attacked.serves_others();
    attacked.grew_by_less_than(24 * MIB);
}

#[test]
fn bodies_in_chunks_of_one_byte_leave_room_for_others() {
    let attacked = Attacked::start();
    let until_when = world::now() + Duration::from_secs(2);
    let strangers: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = attacked.web();
            thread::spawn(move || {
                let head =
                    b"POST /silent HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head).unwrap();
                stream
                    .set_write_timeout(Some(Duration::from_millis(200)))
                    .unwrap();
                let chunks = b"1\r\na\r\n".repeat(4_000);
                while world::now() < until_when && stream.write_all(&chunks).is_ok() {}
            })
        })
        .collect();

    while world::now() < until_when {
        attacked.serves_others();
    }
    for stranger in strangers {
        stranger.join().unwrap();
    }
    attacked.grew_by_less_than(24 * MIB);
}

#[test]
fn what_two_recipients_could_read_in_two_ways_reaches_no_endpoint() {
    let attacked = Attacked::start();
    let post = "POST / HTTP/1.1\r\nHost: a.test\r\n";
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let corpus = [
        format!(
            "{post}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG{smuggled}"
        ),
        format!(
            "{post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n2c\r\n{smuggled}0\r\n\r\n"
        ),
        format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer_Encoding: chunked\r\n\r\n{smuggled}"),
        format!("{post}Content_Length: 40\r\n\r\n{smuggled}"),
        format!("{post}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello{smuggled}"),
        format!("{post}Content-Length: +5\r\n\r\nhello{smuggled}"),
        format!("{post}X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}X: a\r\n Content-Length: 5\r\n\r\nhello{smuggled}"),
        "GET / HTTP/1.1\nHost: a.test\n\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n".to_owned(),
        "GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a.test\r\nX\0: y\r\n\r\n".to_owned(),
    ];
    let before = attacked.seen.lock().unwrap().len();

    for request in &corpus {
        let answer = attacked.answer_to(request.as_bytes());
        let refused = answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 501 ");
        assert!(refused, "{request:?}: {answer:?}");
    }
    for (name, value) in [
        (&b"x"[..], &b"a\r\nTransfer-Encoding: chunked"[..]),
        (b"transfer-encoding", b"chunked"),
        (b"transfer_encoding", b"chunked"),
        (b"content-length", b"5"),
        (b"host", b"b.test"),
        (b"x\r\ny", b"z"),
        (b":path", b"/two"),
    ] {
        let head = [fields(b"/"), field(name, value)].concat();
        let mut stream = attacked.http2(65_535, &frame(1, 5, 1, &head));
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }

    // Whatever came of it, none of them was sent on; connections may have been opened.
    let seen = attacked.seen.lock().unwrap();
    for connection in &seen[before..] {
        assert_eq!(text(connection), "", "sent on");
    }
}

#[test]
fn garbage_and_idle_connections_keep_nobody_from_dns() {
    let attacked = Attacked::start();
    let dns = attacked.sealane.address("dns");
    let idle: Vec<_> = (0..400).map(|_| TcpStream::connect(dns).unwrap()).collect();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03api\x07example\x04test\0\0\x01\0\x01";
    let mut random = 1_u32;
    let mut next = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(random >> 8).unwrap()
    };

    for _ in 0..20_000 {
        let mut bytes = question.to_vec();
        for _ in 0..next() % 4 {
            let at = next() % bytes.len();
            bytes[at] = u8::try_from(next() % 256).unwrap();
        }
        bytes.truncate(1 + next() % bytes.len());
        // The kernel may drop it: it is garbage.
        let _ = socket.send_to(&bytes, dns);
    }

    assert_eq!(dig(dns, &["api.example.test"]), ["192.0.2.11"]);
    attacked.grew_by_less_than(16 * MIB);
    drop(idle);
}
