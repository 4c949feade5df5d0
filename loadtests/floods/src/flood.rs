//! The floods. Each runs for its seconds against one address, from a few client addresses on
//! loopback, and says what became of its connections. One that is cut off comes back at once.

use std::cell::Cell;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use socket2::{Domain, Protocol, Socket, Type};

use crate::frames::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// 1,000 heads, a byte every 100 ms.
    SlowHeads,
    /// 1,000 bodies, a byte every 100 ms.
    SlowBodies,
    /// 4,000 connections that say nothing, from four addresses.
    Idle,
    /// 4,000 such connections from one address.
    IdleOneAddress,
    /// Connections, one after the other, as fast as they open.
    NewConnections,
    /// Streams that are opened and reset.
    RapidReset,
    /// A head that never ends.
    Continuation,
    Ping,
    Settings,
    Priority,
    WindowUpdate,
    /// DATA frames without data.
    EmptyData,
    /// Heads of 900 references to one entry of 4 KB.
    HeaderBomb,
    /// Heads of 20 such references: a little over what a head may have.
    HeaderBombOver,
    /// Heads of 14 such references: lawful ones.
    HeaderBombUnder,
    /// 4,000 streams on 40 connections that take nothing of a long answer.
    ZeroWindow,
    /// As that, and each takes one byte.
    WindowOfOne,
    /// 4,000 streams on 40 connections with heads of 14 KB.
    LargeHeads,
    /// 2,000 heads that stop at 30 KB.
    HeldHeads,
    /// 1,500 trailers that stop at 15 KB.
    HeldTrailers,
}

/// Addresses that floods come from; the good client's is another.
const SOURCES: u8 = 4;
/// How long one write may take: who is not read from any more stops writing.
const PATIENCE: Duration = Duration::from_millis(200);
/// After a connection that was cut off.
const BREATH: Duration = Duration::from_millis(1);
/// How much is written at once.
const PART: usize = 64 * 1024;
/// So long it works, then rests: a core that is never idle would be taken from all who run in real
/// time on it (sched(7), `sched_rt_runtime_us`), the good client among them.
const WORK: Duration = Duration::from_millis(80);
const REST: Duration = Duration::from_millis(20);
const DRIP: Duration = Duration::from_millis(100);

pub(crate) fn run(kind: Kind, target: SocketAddr, seconds: u64) -> Result<()> {
    let flooder = Flooder {
        target,
        until: now() + Duration::from_secs(seconds),
        rested: Cell::new(now()),
    };
    println!("{}", flooder.flood(kind)?);
    Ok(())
}

struct Flooder {
    target: SocketAddr,
    until: Instant,
    rested: Cell<Instant>,
}

impl Flooder {
    fn flood(&self, kind: Kind) -> Result<String> {
        let ping = frame(PING, 0, 0, b"12345678");
        let settings = frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW, 65_535));
        let update = |stream| frame(WINDOW_UPDATE, 0, stream, &1_u32.to_be_bytes());
        let post = frame(HEADERS, END_HEADERS, 1, &fields("POST", "/silent"));
        Ok(match kind {
            Kind::SlowHeads => self.drip(1_000, b"GET /1k HTTP/1.1\r\nHost: a.test\r\nX: ")?,
            Kind::SlowBodies => {
                let head =
                    b"POST /silent HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n";
                self.drip(1_000, head)?
            }
            Kind::Idle => self.hold(4_000, SOURCES, b"")?,
            Kind::IdleOneAddress => self.hold(4_000, 1, b"")?,
            Kind::NewConnections => self.connect_on_and_on(),
            Kind::RapidReset => self.endless(b"", rapid_reset),
            Kind::Continuation => {
                let part = field(false, "x", &[b'v'; 8_000]);
                let open = frame(HEADERS, 0, 1, &fields("GET", "/silent"));
                self.repeat(&open, &frame(CONTINUATION, 0, 1, &part))
            }
            Kind::Ping => self.repeat(b"", &ping),
            Kind::Settings => self.repeat(b"", &settings),
            Kind::Priority => self.repeat(b"", &frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7])),
            Kind::WindowUpdate => self.repeat(&post, &update(1)),
            Kind::EmptyData => self.repeat(&post, &frame(DATA, 0, 1, b"")),
            Kind::HeaderBomb => self.endless(&plant(), |part, next| bomb(part, next, 900)),
            Kind::HeaderBombOver => self.endless(&plant(), |part, next| bomb(part, next, 20)),
            Kind::HeaderBombUnder => self.endless(&plant(), |part, next| bomb(part, next, 14)),
            Kind::ZeroWindow => self.hold_streams(0, |stream| get(stream, "/big"))?,
            Kind::WindowOfOne => self.hold_streams(1, |stream| get(stream, "/big"))?,
            Kind::LargeHeads => self.hold_streams(65_535, large_head)?,
            Kind::HeldHeads => {
                let mut head = b"GET /1k HTTP/1.1\r\nHost: a.test\r\nX: ".to_vec();
                head.resize(30_000, b'v');
                self.hold(2_000, SOURCES, &head)?
            }
            Kind::HeldTrailers => {
                let mut text = b"POST /silent HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ".to_vec();
                text.resize(text.len() + 15_000, b'v');
                self.hold(1_500, SOURCES, &text)?
            }
        })
    }

    fn is_over(&self) -> bool {
        let now = now();
        if now.saturating_duration_since(self.rested.get()) > WORK {
            std::thread::sleep(REST);
            self.rested.set(now + REST);
        }
        now >= self.until
    }

    /// From the `number`-th of `sources` addresses.
    fn connect(&self, number: usize, sources: u8) -> Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        let source = Ipv4Addr::new(127, 0, 1, 1 + (number % usize::from(sources)) as u8);
        // Without it the kernel takes a port for good before it knows whereto.
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
        socket
            .connect_timeout(&self.target.into(), Duration::from_secs(2))
            .context("cannot connect")?;
        socket.set_tcp_nodelay(true)?;
        let stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn connect_http2(&self, window: u32) -> Result<TcpStream> {
        let mut stream = self.connect(0, 1)?;
        let settings = frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW, window));
        stream.write_all(&[PREFACE, &settings, &frame(SETTINGS, ACK, 0, b"")].concat())?;
        Ok(stream)
    }

    fn drip(&self, count: usize, first: &[u8]) -> Result<String> {
        let mut streams = self.open(count, SOURCES, first)?;
        while !self.is_over() {
            for stream in &mut streams {
                // It may have been cut off: then it is told below.
                let _ = stream.write_all(b"x");
            }
            std::thread::sleep(DRIP);
        }
        Ok(ends(streams, false))
    }

    fn hold(&self, count: usize, sources: u8, first: &[u8]) -> Result<String> {
        let streams = self.open(count, sources, first)?;
        std::thread::sleep(self.until.saturating_duration_since(now()));
        Ok(ends(streams, false))
    }

    fn open(&self, count: usize, sources: u8, first: &[u8]) -> Result<Vec<TcpStream>> {
        let mut streams = Vec::with_capacity(count);
        for number in 0..count {
            let mut stream = self.connect(number, sources)?;
            // As above.
            let _ = stream.write_all(first);
            streams.push(stream);
        }
        Ok(streams)
    }

    fn hold_streams(&self, window: u32, ask: impl Fn(u32) -> Vec<u8>) -> Result<String> {
        let asks: Vec<u8> = (0..100).flat_map(|at| ask(1 + 2 * at)).collect();
        let mut streams = Vec::new();
        for _ in 0..40 {
            let mut stream = self.connect_http2(window)?;
            let _ = stream.write_all(&asks);
            streams.push(stream);
        }
        std::thread::sleep(self.until.saturating_duration_since(now()));
        Ok(ends(streams, true))
    }

    fn connect_on_and_on(&self) -> String {
        let (mut opened, mut failed) = (0_u64, 0_u64);
        while !self.is_over() {
            match self.connect(opened as usize, SOURCES) {
                Ok(stream) => {
                    opened += 1;
                    // Resets: none is left waiting for its end, which would take all ports.
                    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                }
                Err(_) => failed += 1,
            }
        }
        format!("{opened} opened, {failed} failed")
    }

    /// One frame over and over.
    fn repeat(&self, first: &[u8], frame: &[u8]) -> String {
        let part = frame.repeat(PART / frame.len());
        self.endless(first, |out, _| out.extend(&part))
    }

    /// Over one connection after the other: `first`, then what `more` writes, given the next
    /// stream's number, as fast as it is taken.
    fn endless(&self, first: &[u8], more: impl Fn(&mut Vec<u8>, &mut u32)) -> String {
        let (mut all, mut written) = (Ends::default(), 0_usize);
        while !self.is_over() {
            let Ok(mut stream) = self.connect_http2(65_535) else {
                all.add("not opened".to_owned());
                std::thread::sleep(BREATH);
                continue;
            };
            let Ok(reading) = stream.try_clone() else {
                continue;
            };
            let reader = std::thread::spawn(|| how_it_ends(reading, true));
            let mut next = 1;
            let mut part = first.to_vec();
            loop {
                more(&mut part, &mut next);
                match stream.write_all(&part) {
                    Ok(()) if !self.is_over() && next < 1 << 30 => written += part.len(),
                    _ => break,
                }
                part.clear();
            }
            let is_ours = self.is_over();
            if is_ours {
                // The reader ends with it.
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
            let end = reader.join().unwrap_or_default();
            all.add(if is_ours { "lasted".to_owned() } else { end });
            std::thread::sleep(BREATH);
        }
        format!("{} MiB taken; {}", written >> 20, all.text())
    }
}

fn rapid_reset(part: &mut Vec<u8>, next: &mut u32) {
    while part.len() < PART {
        part.extend(get(*next, "/silent"));
        part.extend(frame(RST_STREAM, 0, *next, &8_u32.to_be_bytes()));
        *next += 2;
    }
}

/// Puts an entry of 4 KB into the table.
fn plant() -> Vec<u8> {
    let mut head = fields("GET", "/silent");
    head.extend(field(true, "x", &[b'v'; 4_000]));
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)
}

fn bomb(part: &mut Vec<u8>, next: &mut u32, references: usize) {
    let mut head = fields("GET", "/silent");
    head.extend(std::iter::repeat_n(NEWEST_ENTRY, references));
    while part.len() < PART {
        *next += 2;
        part.extend(frame(HEADERS, END_STREAM | END_HEADERS, *next, &head));
    }
}

fn large_head(stream: u32) -> Vec<u8> {
    let mut head = fields("GET", "/silent");
    for name in [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n",
    ] {
        head.extend(field(false, name, &[b'v'; 1_000]));
    }
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head)
}

/// How each of `streams` had ended by now.
fn ends(streams: Vec<TcpStream>, http2: bool) -> String {
    let mut all = Ends::default();
    for stream in streams {
        let end = match stream.set_nonblocking(true) {
            Ok(()) => how_it_ends(stream, http2),
            Err(_) => "broken".to_owned(),
        };
        all.add(end);
    }
    all.text()
}

#[expect(clippy::disallowed_methods, reason = "a load test measures time")]
fn now() -> Instant {
    Instant::now()
}
