//! The good client: GETs at a fixed rate over a few kept connections and some new ones. Prints how
//! long each took, in microseconds from when it was due, or `failed`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

const PER_SECOND: u32 = 200;
const KEPT: usize = 4;
/// Every so many requests one comes on a connection of its own.
const FRESH_EVERY: usize = 10;
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: good.test\r\n\r\n";
const ANSWER_END: &[u8] = b"end of the answer";

pub(crate) fn run(target: SocketAddr, seconds: u64) {
    let interval = Duration::from_secs(1) / PER_SECOND;
    let mut kept: Vec<Option<TcpStream>> = (0..KEPT).map(|_| None).collect();
    let began = now();
    let mut text = String::new();
    for number in 0.. {
        let due = began + interval * number;
        if due - began > Duration::from_secs(seconds) {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(now()));
        let number = number as usize;
        let line = if number.is_multiple_of(FRESH_EVERY) {
            ask(target, &mut None)
        } else {
            ask(target, &mut kept[number % KEPT])
        };
        match line {
            Ok(()) => text.push_str(&format!("{}\n", due.elapsed().as_micros())),
            Err(_) => text.push_str("failed\n"),
        }
    }
    print!("{text}");
}

/// An answer that is cut off, late or not a 200 is an error, after which the connection is gone.
fn ask(target: SocketAddr, kept: &mut Option<TcpStream>) -> Result<()> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => connect(target)?,
    };
    stream.write_all(REQUEST)?;
    let mut answer = Vec::with_capacity(2_048);
    let mut part = [0; 4_096];
    while !answer.ends_with(ANSWER_END) {
        let read = stream.read(&mut part)?;
        ensure!(read > 0, "cut off");
        answer.extend_from_slice(&part[..read]);
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "refused");
    *kept = Some(stream);
    Ok(())
}

fn connect(target: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The body of each answer, for the endpoint.
pub(crate) fn body() -> Vec<u8> {
    let mut body = vec![b'x'; 1024 - ANSWER_END.len()];
    body.extend(ANSWER_END);
    body
}

#[expect(clippy::disallowed_methods, reason = "a load test measures time")]
fn now() -> Instant {
    Instant::now()
}
