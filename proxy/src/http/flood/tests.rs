//! What is a flood, and what is not.

use std::future::poll_fn;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::*;
use crate::io::tests::pair;
use crate::io::{Mode, Wire};

const CONTROL: u32 = 1_000;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

struct Client {
    frames: Frames,
    now: Instant,
}

impl Client {
    fn new() -> Self {
        let now = clock::now();
        let mut frames = Frames::new(CONTROL, now);
        frames.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", || now);
        Self { frames, now }
    }

    fn sends(&mut self, kind: u8, flags: u8, stream: u32, length: usize) -> Option<Flood> {
        let bytes = frame(kind, flags, stream, length);
        self.frames.read(&bytes, || self.now);
        self.frames.flood()
    }

    fn after(&mut self, passed: Duration) {
        self.now += passed;
    }
}

fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Vec<u8> {
    let size = u32::try_from(length).unwrap().to_be_bytes();
    let mut bytes = size[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(std::iter::repeat_n(0xff, length));
    bytes
}

#[test]
fn pings_without_end_are_a_flood_and_a_few_in_each_second_are_not() {
    let mut flooder = Client::new();
    let sent = (1..10_000).find(|_| flooder.sends(PING, 0, 0, 8).is_some());
    assert_eq!(sent, Some(CONTROL + 1));
    assert_eq!(flooder.frames.flood(), Some(Flood::ControlFrames));

    let mut patient = Client::new();
    for _ in 0..10_000 {
        patient.after(Duration::from_millis(2));
        assert_eq!(patient.sends(PING, 0, 0, 8), None);
    }
}

#[test]
fn every_kind_of_frame_that_asks_for_nothing_counts() {
    // Empty DATA, PRIORITY, SETTINGS, WINDOW_UPDATE, empty CONTINUATION, unknown.
    for (kind, length) in [
        (DATA, 0),
        (2, 5),
        (4, 6),
        (WINDOW_UPDATE, 4),
        (9, 0),
        (77, 100),
    ] {
        let mut flooder = Client::new();
        let ended = (0..=CONTROL).any(|_| flooder.sends(kind, 0, 1, length).is_some());
        assert!(ended, "{kind}");
    }
}

#[test]
fn what_answers_carry_pays_for_the_updates_that_they_need() {
    let mut client = Client::new();
    for _ in 0..10_000 {
        client.frames.written(16 * 1024);
        for _ in 0..3 {
            assert_eq!(client.sends(WINDOW_UPDATE, 0, 1, 4), None);
        }
    }
}

#[test]
fn small_messages_pay_for_the_pings_that_measure_their_line() {
    let mut client = Client::new();
    for _ in 0..10_000 {
        client.frames.written(80);
        assert_eq!(client.sends(DATA, 0, 1, 60), None);
        assert_eq!(client.sends(PING, 0, 0, 8), None);
    }
}

#[test]
fn the_answers_to_pings_do_not_pay_for_them() {
    let mut flooder = Client::new();
    let ended = (0..2 * CONTROL).any(|_| {
        flooder.frames.written(17);
        flooder.sends(PING, 0, 0, 8).is_some()
    });
    assert!(ended);
}

#[test]
fn who_resets_each_stream_floods_and_who_resets_one_in_two_does_not() {
    let reset = |each: usize| {
        let mut client = Client::new();
        (0..5_000_u32).find_map(|at| {
            let stream = 1 + 2 * at;
            client.frames.accept();
            let opened = client.sends(HEADERS, 5, stream, 20);
            let is_reset = (at as usize).is_multiple_of(each);
            let ended = is_reset.then(|| client.sends(RST_STREAM, 0, stream, 4));
            opened.or_else(|| ended.flatten())
        })
    };

    assert_eq!(reset(1), Some(Flood::Resets));
    assert_eq!(reset(2), None);
}

#[test]
fn heads_that_come_to_nothing_are_a_flood_once_they_outnumber_the_others() {
    let mut client = Client::new();
    let stream = |at: u64| u32::try_from(1 + 2 * at).unwrap();
    for at in 0..=REFUSED_HEADS {
        let found = client.sends(HEADERS, 5, stream(at), 20);
        assert_eq!(found.is_some(), at == REFUSED_HEADS);
    }

    let mut mixed = Client::new();
    for at in 0..5_000 {
        if at % 2 == 0 {
            mixed.frames.accept();
        }
        assert_eq!(mixed.sends(HEADERS, 5, stream(at), 20), None);
    }
}

#[test]
fn trailers_are_no_heads() {
    let mut client = Client::new();
    for at in 0..1_000 {
        client.frames.accept();
        assert_eq!(client.sends(HEADERS, 4, 1 + 2 * at, 20), None);
        assert_eq!(client.sends(HEADERS, 5, 1 + 2 * at, 20), None);
    }
    assert_eq!(client.frames.opened, 1_000);
}

#[test]
fn frames_are_followed_wherever_reads_cut_them() {
    let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for at in 0..40 {
        all.extend(frame(HEADERS, 4, 1 + 2 * at, 30));
        all.extend(frame(DATA, 0, 1 + 2 * at, 1_000));
        all.extend(frame(PING, 0, 0, 8));
    }
    let now = clock::now();
    for cut in 1..60 {
        let mut frames = Frames::new(CONTROL, now);
        for part in all.chunks(cut) {
            frames.read(part, || now);
        }
        assert_eq!((frames.opened, frames.have, frames.passing), (40, 0, 0));
    }
}

/// A connection over loopback, and its client's end.
async fn counted() -> (Wire, Counted, TcpStream) {
    let (wire, peer) = pair().await;
    let (counted, _) = Counted::new(wire.conn(Mode::Coalesce), 1_000);
    (wire, counted, peer)
}

/// Bytes of each read until there is none in this turn.
async fn turn(wire: &Wire, counted: &mut Counted) -> Vec<usize> {
    poll_fn(|cx| wire.poll_readable(cx)).await.unwrap();
    wire.begin_turn(16 * 1024);
    let mut reads = Vec::new();
    poll_fn(|cx| {
        let mut space = [0; 8 * 1024];
        let mut room = ReadBuf::new(&mut space);
        while Pin::new(&mut *counted).poll_read(cx, &mut room).is_ready() {
            reads.push(room.filled().len());
            room.clear();
        }
        Poll::Ready(())
    })
    .await;
    reads
}

#[tokio::test]
async fn heads_are_read_a_few_at_a_time_and_bodies_are_not() {
    let (wire, mut counted, mut peer) = counted().await;
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(turn(&wire, &mut counted).await, [PREFACE]);

    let heads = (0..300).map(|at| frame(HEADERS, 5, 1 + 2 * at, 20));
    peer.write_all(&heads.collect::<Vec<_>>().concat())
        .await
        .unwrap();
    for _ in 0..4 {
        assert_eq!(turn(&wire, &mut counted).await, [READ_AMONG_HEADS]);
    }
    turn(&wire, &mut counted).await;

    peer.write_all(&frame(DATA, 0, 1, 15_000)).await.unwrap();
    let reads = turn(&wire, &mut counted).await;
    assert!(reads.len() >= 2, "in one turn");
    assert!(reads.contains(&(8 * 1024)), "{reads:?}");
}
