//! HTTP/2 as RFC 9113 and RFC 7541 have it, frame by frame, and what of a malformed HTTP/2 request
//! may reach an endpoint that speaks HTTP/1.1: nothing. Each case names the section it follows.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
mod edge;
mod frames;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use edge::{Edge, any_port, certificate, connect_tls, server_tls};
use frames::Outcome::{Answer, Goaway, Reset};
use frames::code::*;
use frames::{
    ACK, END_HEADERS, END_STREAM, Outcome, PADDED, PREFACE, PRIORITISED, RawClient, block, data,
    frame, headers, kind, literal, reset, settings, window_update,
};
use sealane_model::Verdict::Up;
use sealane_proxy::config::ListenerProtocol;
use sealane_testkit::{ScriptedEndpoint, World};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// Streams that a client may have open at once here.
const STREAMS: u32 = 4;

async fn edge_to_one() -> (Edge, ScriptedEndpoint) {
    edge_with(ListenerProtocol::Http).await
}

async fn edge_with(protocol: ListenerProtocol) -> (Edge, ScriptedEndpoint) {
    let one = ScriptedEndpoint::start_anywhere("one", "eu").await.unwrap();
    (edge_before(one.address(), protocol), one)
}

fn edge_before(endpoint: SocketAddr, protocol: ListenerProtocol) -> Edge {
    let world = World::new()
        .region("eu", Up)
        .endpoint(&endpoint.to_string(), Up);
    Edge::start_with(world.build(), |config| {
        config.limits.streams = STREAMS;
        config.routes[0].timeouts.attempt = Duration::from_secs(5);
        config.listeners[0].protocol = protocol;
    })
}

enum Step {
    Send(Vec<u8>),
    /// Until the server has ended this stream.
    Answered(u32),
}
use Step::{Answered, Send};

/// What a case asks for.
enum Wanted {
    /// One of these: where the RFC leaves a choice, each lawful one.
    OneOf(Vec<Outcome>),
    /// The RFC asks for `lawful`; we do `found`, because of `reason`.
    Deviation {
        lawful: Outcome,
        found: Outcome,
        reason: &'static str,
    },
}

struct Case {
    section: &'static str,
    what: &'static str,
    steps: Vec<Step>,
    /// The stream whose outcome it is.
    stream: u32,
    wanted: Wanted,
    /// The connection ends behind it, in order.
    ends: bool,
}

fn case(section: &'static str, what: &'static str, bytes: Vec<Vec<u8>>, wanted: Outcome) -> Case {
    Case {
        section,
        what,
        steps: vec![Send(bytes.concat())],
        stream: 1,
        wanted: Wanted::OneOf(vec![wanted]),
        ends: false,
    }
}

impl Case {
    fn on(mut self, stream: u32) -> Self {
        self.stream = stream;
        self
    }

    fn ending(mut self) -> Self {
        self.ends = true;
        self
    }

    /// Is lawful as well.
    fn or(mut self, other: Outcome) -> Self {
        if let Wanted::OneOf(wanted) = &mut self.wanted {
            wanted.push(other);
        }
        self
    }

    fn deviates(mut self, found: Outcome, reason: &'static str) -> Self {
        if let Wanted::OneOf(mut lawful) = self.wanted {
            let lawful = lawful.remove(0);
            self.wanted = Wanted::Deviation {
                lawful,
                found,
                reason,
            };
        }
        self
    }

    fn then(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.steps.extend(steps);
        self
    }

    async fn run(&self, address: SocketAddr) -> Result<(), String> {
        let mut client = RawClient::connect(address, &[]).await;
        for step in &self.steps {
            match step {
                Send(bytes) => client.send(bytes).await,
                Answered(stream) => match client.outcome(*stream).await {
                    Answer(_) => {}
                    other => return Err(format!("{other:?} instead of an answer before")),
                },
            }
        }
        let outcome = client.outcome(self.stream).await;
        self.judge(&outcome)?;
        match outcome {
            Answer(_) if self.ends && client.ends().await => Ok(()),
            Answer(_) if self.ends => Err("no end".to_owned()),
            Answer(_) | Reset(_) if !client.lives().await => Err("the connection died".to_owned()),
            Goaway(_) if !client.ends().await => Err("no end after the GOAWAY".to_owned()),
            _ => Ok(()),
        }
    }

    fn judge(&self, outcome: &Outcome) -> Result<(), String> {
        match &self.wanted {
            Wanted::OneOf(lawful) if lawful.contains(outcome) => Ok(()),
            Wanted::OneOf(lawful) => Err(format!("{outcome:?} instead of one of {lawful:?}")),
            Wanted::Deviation { found, .. } if found == outcome => Ok(()),
            Wanted::Deviation { lawful, reason, .. } if lawful == outcome => Err(format!(
                "{outcome:?} is lawful now: no deviation any more ({reason})"
            )),
            Wanted::Deviation { found, .. } => {
                Err(format!("{outcome:?} instead of the known {found:?}"))
            }
        }
    }
}

async fn run_all(cases: Vec<Case>) {
    let (edge, _one) = edge_to_one().await;
    let mut wrong = String::new();
    for case in &cases {
        if let Err(why) = case.run(edge.address()).await {
            writeln!(wrong, "§{} {}: {why}", case.section, case.what).unwrap();
        }
    }
    assert!(wrong.is_empty(), "of {} cases:\n{wrong}", cases.len());
}

/// `:method GET`, `:scheme http`, `:path /`, `:authority x.test`: indexed as far as they can be.
const GET: &[u8] = b"\x82\x86\x84\x01\x06x.test";
/// The same for `POST /upload`.
const POST: &[u8] = b"\x83\x86\x04\x07/upload\x01\x06x.test";
/// An answer to it is long in coming.
const SLOW: &[u8] = b"\x82\x86\x04\x09/slow/500\x01\x06x.test";
/// An answer of a thousand bytes.
const THOUSAND: &[u8] = b"\x82\x86\x04\x0b/bytes/1000\x01\x06x.test";

fn get(stream: u32) -> Vec<u8> {
    headers(stream, END_STREAM, GET)
}

fn post(stream: u32) -> Vec<u8> {
    headers(stream, 0, POST)
}

fn get_with(extra: &[u8]) -> Vec<u8> {
    headers(1, END_STREAM, &[GET, extra].concat())
}

/// The known deviations, nearly all of them another code where the connection ends anyway.
/// docs/LIMITS.md has them for users.
const SIZES: &str = "h2 has one code for frames that it cannot read";
const SETTING: &str = "h2 has one code for settings that it cannot read";
const DECODING: &str = "h2 has one code for blocks that it cannot decode";
const PADDING: &str = "h2 does not look at Huffman padding; the text is the same";
const CLOSED: &str = "h2 holds what comes after a stream's end against the whole connection";

const PRIORITY_ON_ZERO: [u8; 5] = [0, 0, 0, 0, 15];

#[tokio::test]
async fn frames_that_are_lawful_are_taken() {
    let ok = || Answer(200);
    let cases = vec![
        case("3.4", "a preface and a request", vec![get(1)], ok()),
        case(
            "4.1",
            "a frame of an unknown type",
            vec![frame(0x16, 0xff, 0, &[0; 8]), get(1)],
            ok(),
        ),
        case(
            "5.5",
            "an unknown frame on a stream that is idle",
            vec![frame(0xfa, 0, 1, &[1; 100]), get(1)],
            ok(),
        ),
        case(
            "4.1",
            "flags that are not defined",
            vec![frame(kind::PING, 0x16, 0, &[0; 8]), get(1)],
            ok(),
        ),
        case(
            "4.1",
            "the reserved bit",
            vec![frame(kind::PING, 0, 0x8000_0000, &[0; 8]), get(1)],
            ok(),
        ),
        case(
            "4.2",
            "DATA of 2^14 bytes",
            vec![post(1), data(1, END_STREAM, &[b'x'; 16_384])],
            ok(),
        ),
        case(
            "5.1",
            "PRIORITY on an idle stream",
            vec![frame(kind::PRIORITY, 0, 1, &PRIORITY_ON_ZERO), get(1)],
            ok(),
        ),
        case(
            "5.1",
            "WINDOW_UPDATE on a stream half closed (remote)",
            vec![get(1), window_update(1, 100)],
            ok(),
        ),
        case(
            "5.1",
            "PRIORITY on a stream half closed (remote)",
            vec![get(1), frame(kind::PRIORITY, 0, 1, &PRIORITY_ON_ZERO)],
            ok(),
        ),
        case(
            "5.1",
            "RST_STREAM on a stream half closed (remote)",
            vec![headers(1, END_STREAM, SLOW), reset(1, 8), get(3)],
            ok(),
        )
        .on(3),
        case("5.1", "PRIORITY on a closed stream", vec![get(1)], ok())
            .then([
                Answered(1),
                Send(frame(kind::PRIORITY, 0, 1, &PRIORITY_ON_ZERO)),
                Send(get(3)),
            ])
            .on(3),
        case(
            "5.1",
            "WINDOW_UPDATE soon after the end",
            vec![get(1)],
            ok(),
        )
        .then([Answered(1), Send(window_update(1, 5)), Send(get(3))])
        .on(3),
        case("5.1", "RST_STREAM soon after the end", vec![get(1)], ok())
            .then([Answered(1), Send(reset(1, 0)), Send(get(3))])
            .on(3),
        case("5.1.1", "identifiers with gaps", vec![get(1001)], ok()).on(1001),
        case(
            "6.1",
            "several DATA frames, one of them empty",
            vec![
                post(1),
                data(1, 0, b"a"),
                data(1, 0, b""),
                data(1, END_STREAM, b"b"),
            ],
            ok(),
        ),
        case(
            "6.1",
            "DATA with padding",
            vec![post(1), data(1, PADDED | END_STREAM, b"\x05body\0\0\0\0\0")],
            ok(),
        ),
        case(
            "6.1",
            "DATA that is all padding",
            vec![post(1), data(1, PADDED | END_STREAM, b"\x03\0\0\0")],
            ok(),
        ),
        case(
            "6.2",
            "HEADERS with padding",
            vec![headers(
                1,
                PADDED | END_STREAM,
                &[b"\x02", GET, b"\0\0"].concat(),
            )],
            ok(),
        ),
        case(
            "6.2",
            "HEADERS with a priority",
            vec![headers(
                1,
                PRIORITISED | END_STREAM,
                &[&PRIORITY_ON_ZERO, GET].concat(),
            )],
            ok(),
        ),
        case(
            "6.2",
            "HEADERS with padding and an exclusive priority",
            vec![headers(
                1,
                PADDED | PRIORITISED | END_STREAM,
                &[b"\x01\x80\0\0\x07\xff", GET, b"\0"].concat(),
            )],
            ok(),
        ),
        case(
            "6.3",
            "PRIORITY of a higher stream first",
            vec![frame(kind::PRIORITY, 0, 9, &[0x80, 0, 0, 3, 255]), get(5)],
            ok(),
        )
        .on(5),
        case(
            "6.5",
            "settings of all kinds, an unknown one among them",
            vec![
                settings(&[
                    (1, 100),
                    (2, 0),
                    (3, 7),
                    (4, 65_535),
                    (5, 16_384),
                    (6, 1 << 20),
                ]),
                settings(&[(0xff, 1), (0xabcd, u32::MAX)]),
                get(1),
            ],
            ok(),
        ),
        case(
            "6.5.3",
            "one setting twice in a frame: the last holds",
            vec![settings(&[(4, 1), (4, 65_535)]), get(1)],
            ok(),
        ),
        case(
            "6.7",
            "a PONG that nobody asked for",
            vec![frame(kind::PING, ACK, 0, b"whatever"), get(1)],
            ok(),
        ),
        case(
            "7",
            "RST_STREAM with an unknown code",
            vec![headers(1, END_STREAM, SLOW), reset(1, 0xff), get(3)],
            ok(),
        )
        .on(3),
        case(
            "6.9",
            "WINDOW_UPDATE of the connection and of a stream",
            vec![
                post(1),
                window_update(0, 1),
                window_update(1, 1),
                data(1, END_STREAM, b""),
            ],
            ok(),
        ),
        case(
            "6.10",
            "a block in three frames",
            vec![
                frame(kind::HEADERS, END_STREAM, 1, &GET[..1]),
                frame(kind::CONTINUATION, 0, 1, &GET[1..5]),
                frame(kind::CONTINUATION, END_HEADERS, 1, &GET[5..]),
            ],
            ok(),
        ),
        case(
            "6.10",
            "a block that begins with an empty frame",
            vec![
                frame(kind::HEADERS, END_STREAM, 1, b""),
                frame(kind::CONTINUATION, END_HEADERS, 1, GET),
            ],
            ok(),
        ),
        case(
            "8.1",
            "a POST with trailers",
            vec![
                post(1),
                data(1, 0, b"body"),
                headers(1, END_STREAM, &literal(b"x-sum", b"1")),
            ],
            ok(),
        ),
        case(
            "8.3.1",
            "a HEAD",
            vec![headers(
                1,
                END_STREAM,
                &[&literal(b":method", b"HEAD"), &GET[1..]].concat(),
            )],
            ok(),
        ),
        case(
            "6.3",
            "priorities of all weights, one exclusive",
            vec![
                frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 0]),
                frame(kind::PRIORITY, 0, 3, &[0x80, 0, 0, 1, 255]),
                get(1),
            ],
            ok(),
        ),
        case(
            "6.8",
            "GOAWAY with an unknown code",
            vec![
                get(1),
                frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]),
            ],
            ok(),
        )
        .ending(),
        case(
            "8.4",
            "a client that forbids pushing",
            vec![settings(&[(2, 0)]), get(1)],
            ok(),
        ),
    ];
    run_all(cases).await;
}

#[tokio::test]
async fn frames_that_are_not_lawful_end_the_stream_or_the_connection() {
    let cases = [
        frame_sizes(),
        header_blocks(),
        stream_states(),
        streams_of_their_own(),
        connection_frames(),
        windows(),
    ];
    run_all(cases.into_iter().flatten().collect()).await;
}

fn frame_sizes() -> Vec<Case> {
    let large = vec![0; 16_385];
    vec![
        case(
            "4.2",
            "DATA above the limit",
            vec![post(1), data(1, END_STREAM, &large)],
            Goaway(FRAME_SIZE_ERROR),
        )
        .or(Reset(FRAME_SIZE_ERROR)),
        case(
            "4.2",
            "HEADERS above the limit",
            vec![headers(1, END_STREAM, &large)],
            Goaway(FRAME_SIZE_ERROR),
        ),
        case(
            "4.2",
            "SETTINGS above the limit",
            vec![frame(kind::SETTINGS, 0, 0, &[0; 16_386])],
            Goaway(FRAME_SIZE_ERROR),
        ),
        case(
            "4.2",
            "an unknown frame above the limit",
            vec![frame(0x77, 0, 0, &large)],
            Goaway(FRAME_SIZE_ERROR),
        ),
        case(
            "6.3",
            "PRIORITY of 4 bytes",
            vec![post(1), frame(kind::PRIORITY, 0, 1, &[0; 4])],
            Reset(FRAME_SIZE_ERROR),
        )
        .or(Goaway(FRAME_SIZE_ERROR))
        .deviates(Goaway(PROTOCOL_ERROR), SIZES),
        case(
            "6.4",
            "RST_STREAM of 3 bytes",
            vec![post(1), frame(kind::RST_STREAM, 0, 1, &[0; 3])],
            Goaway(FRAME_SIZE_ERROR),
        )
        .deviates(Goaway(PROTOCOL_ERROR), SIZES),
        case(
            "6.4",
            "RST_STREAM of 5 bytes",
            vec![post(1), frame(kind::RST_STREAM, 0, 1, &[0; 5])],
            Goaway(FRAME_SIZE_ERROR),
        )
        .deviates(Goaway(PROTOCOL_ERROR), SIZES),
        case(
            "6.5",
            "SETTINGS of 3 bytes",
            vec![frame(kind::SETTINGS, 0, 0, &[0; 3])],
            Goaway(FRAME_SIZE_ERROR),
        )
        .deviates(Goaway(PROTOCOL_ERROR), SIZES),
        case(
            "6.5",
            "an acknowledgement with settings",
            vec![frame(kind::SETTINGS, ACK, 0, &[0; 6])],
            Goaway(FRAME_SIZE_ERROR),
        )
        .deviates(Goaway(PROTOCOL_ERROR), SIZES),
        case(
            "6.7",
            "PING of 6 bytes",
            vec![frame(kind::PING, 0, 0, &[0; 6])],
            Goaway(FRAME_SIZE_ERROR),
        )
        .deviates(Goaway(PROTOCOL_ERROR), SIZES),
        case(
            "6.7",
            "PING of 9 bytes",
            vec![frame(kind::PING, 0, 0, &[0; 9])],
            Goaway(FRAME_SIZE_ERROR),
        )
        .deviates(Goaway(PROTOCOL_ERROR), SIZES),
        case(
            "6.8",
            "GOAWAY of 7 bytes",
            vec![frame(kind::GOAWAY, 0, 0, &[0; 7])],
            Goaway(FRAME_SIZE_ERROR),
        )
        .deviates(Goaway(PROTOCOL_ERROR), SIZES),
        case(
            "6.9",
            "WINDOW_UPDATE of 3 bytes",
            vec![frame(kind::WINDOW_UPDATE, 0, 0, &[0; 3])],
            Goaway(FRAME_SIZE_ERROR),
        )
        .deviates(Goaway(PROTOCOL_ERROR), SIZES),
        case(
            "6.1",
            "more padding than DATA",
            vec![post(1), data(1, PADDED | END_STREAM, b"\x06body")],
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "6.2",
            "more padding than HEADERS",
            vec![headers(1, PADDED | END_STREAM, &[b"\xff", GET].concat())],
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "6.1",
            "DATA that lacks its padding's length",
            vec![post(1), data(1, PADDED, b"")],
            Goaway(FRAME_SIZE_ERROR),
        )
        .or(Goaway(PROTOCOL_ERROR)),
        case(
            "6.2",
            "HEADERS that lack their priority",
            vec![headers(1, PRIORITISED | END_STREAM, b"\0\0")],
            Goaway(FRAME_SIZE_ERROR),
        )
        .or(Goaway(PROTOCOL_ERROR)),
    ]
}

fn header_blocks() -> Vec<Case> {
    let open = || frame(kind::HEADERS, END_STREAM, 1, GET);
    let last = |stream| frame(kind::CONTINUATION, END_HEADERS, stream, b"");
    let broken = || Goaway(PROTOCOL_ERROR);
    vec![
        case(
            "4.3",
            "PRIORITY within a block",
            vec![
                open(),
                frame(kind::PRIORITY, 0, 1, &PRIORITY_ON_ZERO),
                last(1),
            ],
            broken(),
        ),
        case(
            "4.3",
            "HEADERS of another stream within a block",
            vec![open(), get(3), last(1)],
            broken(),
        ),
        case(
            "4.3",
            "DATA within a block",
            vec![open(), data(1, 0, b"x"), last(1)],
            broken(),
        ),
        case(
            "4.3",
            "PING within a block",
            vec![open(), frame(kind::PING, 0, 0, &[0; 8]), last(1)],
            broken(),
        ),
        case(
            "4.3",
            "SETTINGS within a block",
            vec![open(), settings(&[]), last(1)],
            broken(),
        ),
        case(
            "4.3",
            "WINDOW_UPDATE within a block",
            vec![open(), window_update(0, 1), last(1)],
            broken(),
        ),
        case(
            "4.3",
            "RST_STREAM within a block",
            vec![open(), reset(1, 8), last(1)],
            broken(),
        ),
        case(
            "5.5",
            "an unknown frame within a block",
            vec![open(), frame(0x16, 0, 1, b"x"), last(1)],
            broken(),
        ),
        case(
            "6.10",
            "CONTINUATION of another stream",
            vec![open(), last(3)],
            broken(),
        ),
        case(
            "6.10",
            "CONTINUATION on stream 0",
            vec![open(), last(0)],
            broken(),
        ),
        case(
            "6.10",
            "HEADERS between CONTINUATIONs",
            vec![open(), frame(kind::CONTINUATION, 0, 1, b""), get(1)],
            broken(),
        ),
        case(
            "6.10",
            "CONTINUATION after a whole block",
            vec![post(1), last(1)],
            broken(),
        ),
        case(
            "6.10",
            "CONTINUATION after the last one",
            vec![open(), last(1), last(1)],
            broken(),
        ),
        case(
            "6.10",
            "CONTINUATION after DATA",
            vec![post(1), data(1, 0, b"x"), last(1)],
            broken(),
        ),
        case("6.10", "CONTINUATION first of all", vec![last(1)], broken()),
        case(
            "10.5.1",
            "CONTINUATION without end (CVE-2024-27316)",
            vec![open(), frame(kind::CONTINUATION, 0, 1, b"").repeat(2_000)],
            Goaway(ENHANCE_YOUR_CALM),
        ),
    ]
}

fn stream_states() -> Vec<Case> {
    let idle = |what, frame| case("5.1", what, vec![frame], Goaway(PROTOCOL_ERROR));
    let slow = || headers(1, END_STREAM, SLOW);
    let half_closed = |what, frame| {
        case("5.1", what, vec![slow(), frame], Reset(STREAM_CLOSED)).or(Goaway(STREAM_CLOSED))
    };
    let after_reset = |what, frame| {
        case(
            "5.1",
            what,
            vec![post(1), reset(1, 8), frame],
            Reset(STREAM_CLOSED),
        )
        .or(Goaway(STREAM_CLOSED))
    };
    let closed = |what, frame| {
        case("5.1", what, vec![get(1)], Goaway(STREAM_CLOSED))
            .or(Reset(STREAM_CLOSED))
            .then([Answered(1), Send(frame)])
    };
    let continuation = || frame(kind::CONTINUATION, END_HEADERS, 1, b"");
    vec![
        idle("idle: DATA", data(1, END_STREAM, b"x")),
        idle("idle: RST_STREAM", reset(1, 8)),
        idle("idle: WINDOW_UPDATE", window_update(1, 1)),
        half_closed("half closed: DATA", data(1, END_STREAM, b"x"))
            .deviates(Goaway(PROTOCOL_ERROR), CLOSED),
        half_closed("half closed: HEADERS", headers(1, END_STREAM, GET))
            .deviates(Goaway(PROTOCOL_ERROR), CLOSED),
        case(
            "5.1",
            "half closed: CONTINUATION",
            vec![slow(), continuation()],
            Goaway(PROTOCOL_ERROR),
        ),
        after_reset("after RST_STREAM: DATA", data(1, END_STREAM, b"x")),
        after_reset("after RST_STREAM: HEADERS", get(1)).deviates(Goaway(PROTOCOL_ERROR), CLOSED),
        case(
            "5.1",
            "after RST_STREAM: CONTINUATION",
            vec![post(1), reset(1, 8), continuation()],
            Goaway(PROTOCOL_ERROR),
        ),
        closed("closed: DATA", data(1, END_STREAM, b"x")),
        closed("closed: HEADERS", get(1)).deviates(Goaway(PROTOCOL_ERROR), CLOSED),
        case(
            "5.1",
            "closed: CONTINUATION",
            vec![get(1)],
            Goaway(PROTOCOL_ERROR),
        )
        .then([Answered(1), Send(continuation())]),
        case(
            "8.1",
            "a second head that does not end the stream",
            vec![post(1), headers(1, 0, POST)],
            Reset(PROTOCOL_ERROR),
        )
        .or(Goaway(PROTOCOL_ERROR)),
        case(
            "8.4",
            "PUSH_PROMISE",
            vec![
                post(1),
                frame(
                    kind::PUSH_PROMISE,
                    END_HEADERS,
                    1,
                    &[&[0, 0, 0, 2], GET].concat(),
                ),
            ],
            Goaway(PROTOCOL_ERROR),
        ),
    ]
}

fn streams_of_their_own() -> Vec<Case> {
    let broken = || Goaway(PROTOCOL_ERROR);
    let slow = |stream| headers(stream, END_STREAM, SLOW);
    let too_many = 2 * STREAMS + 1;
    let many = (0..=STREAMS).map(|nth| slow(2 * nth + 1)).collect();
    vec![
        case("5.1.1", "an even identifier", vec![get(2)], broken()),
        case(
            "5.1.1",
            "an identifier lower than one before",
            vec![get(5)],
            broken(),
        )
        .or(Goaway(STREAM_CLOSED))
        .then([Answered(5), Send(get(3))]),
        case(
            "5.1.2",
            "more streams than are allowed",
            many,
            Reset(REFUSED_STREAM),
        )
        .on(too_many),
        case(
            "5.1.1",
            "DATA on stream 0",
            vec![data(0, 0, b"x")],
            broken(),
        ),
        case(
            "6.2",
            "HEADERS on stream 0",
            vec![headers(0, END_STREAM, GET)],
            broken(),
        ),
        case(
            "6.3",
            "PRIORITY on stream 0",
            vec![frame(kind::PRIORITY, 0, 0, &PRIORITY_ON_ZERO)],
            broken(),
        ),
        case("6.4", "RST_STREAM on stream 0", vec![reset(0, 8)], broken()),
        case(
            "6.5",
            "SETTINGS on a stream",
            vec![post(1), frame(kind::SETTINGS, 0, 1, b"")],
            broken(),
        ),
        case(
            "6.7",
            "PING on a stream",
            vec![post(1), frame(kind::PING, 0, 1, &[0; 8])],
            broken(),
        ),
        case(
            "6.8",
            "GOAWAY on a stream",
            vec![post(1), frame(kind::GOAWAY, 0, 1, &[0; 8])],
            broken(),
        ),
    ]
}

fn connection_frames() -> Vec<Case> {
    vec![
        case(
            "5.3.1 of RFC 7540",
            "HEADERS that depend on themselves",
            vec![headers(
                1,
                PRIORITISED | END_STREAM,
                &[b"\0\0\0\x01\xff", GET].concat(),
            )],
            Reset(PROTOCOL_ERROR),
        )
        .or(Goaway(PROTOCOL_ERROR))
        .or(Answer(200)),
        case(
            "5.3.1 of RFC 7540",
            "PRIORITY that depends on itself",
            vec![
                post(1),
                frame(kind::PRIORITY, 0, 1, b"\0\0\0\x01\xff"),
                data(1, END_STREAM, b""),
            ],
            Reset(PROTOCOL_ERROR),
        )
        .or(Goaway(PROTOCOL_ERROR))
        .or(Answer(200)),
        case(
            "6.5.2",
            "ENABLE_PUSH of 2",
            vec![settings(&[(2, 2)])],
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "6.5.2",
            "INITIAL_WINDOW_SIZE of 2^31",
            vec![settings(&[(4, 1 << 31)])],
            Goaway(FLOW_CONTROL_ERROR),
        )
        .deviates(Goaway(PROTOCOL_ERROR), SETTING),
        case(
            "6.5.2",
            "MAX_FRAME_SIZE of 16,383",
            vec![settings(&[(5, 16_383)])],
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "6.5.2",
            "MAX_FRAME_SIZE of 2^24",
            vec![settings(&[(5, 1 << 24)])],
            Goaway(PROTOCOL_ERROR),
        ),
    ]
}

fn windows() -> Vec<Case> {
    let top = 0x7fff_ffff;
    vec![
        case(
            "6.9",
            "an increment of 0",
            vec![window_update(0, 0)],
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "6.9",
            "an increment of 0 on a stream",
            vec![post(1), window_update(1, 0)],
            Reset(PROTOCOL_ERROR),
        )
        .or(Goaway(PROTOCOL_ERROR)),
        case(
            "6.9.1",
            "a window above 2^31-1",
            vec![window_update(0, top), window_update(0, top)],
            Goaway(FLOW_CONTROL_ERROR),
        ),
        case(
            "6.9.1",
            "a stream's window above 2^31-1",
            vec![post(1), window_update(1, top), window_update(1, top)],
            Reset(FLOW_CONTROL_ERROR),
        )
        .or(Goaway(FLOW_CONTROL_ERROR)),
        case(
            "6.9.2",
            "a setting that takes a window above 2^31-1",
            vec![
                post(1),
                window_update(1, top - 65_535),
                settings(&[(4, 65_536)]),
            ],
            Goaway(FLOW_CONTROL_ERROR),
        ),
    ]
}

#[tokio::test]
async fn a_client_that_says_goodbye_still_gets_its_answer() {
    let (edge, _one) = edge_to_one().await;
    let mut client = RawClient::connect(edge.address(), &[]).await;

    let goodbye = frame(kind::GOAWAY, 0, 0, &[0; 8]); // §6.8
    let bytes = [headers(1, END_STREAM, SLOW), goodbye].concat();
    client.send(&bytes).await;

    assert_eq!(client.outcome(1).await, Answer(200));
    assert!(client.ends().await);
}

/// `GET /` without an authority, to which blocks add one in the form that they are about.
const BARE: &[u8] = b"\x82\x86\x84";

fn bare_with(representations: &[&[u8]]) -> Vec<Vec<u8>> {
    vec![headers(
        1,
        END_STREAM,
        &[BARE, &representations.concat()].concat(),
    )]
}

/// `www.example.com`, `no-cache`, `custom-key` and `custom-value` (RFC 7541 §C.4).
const WWW: &[u8] = b"\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
const NO_CACHE: &[u8] = b"\x86\xa8\xeb\x10\x64\x9c\xbf";
const KEY: &[u8] = b"\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f";
const VALUE: &[u8] = b"\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";

#[tokio::test]
async fn every_representation_of_a_field_is_read() {
    let ok = |section, what, parts: &[&[u8]]| case(section, what, bare_with(parts), Answer(200));
    let plain: &[u8] = b"\x06x.test";
    let new: &[u8] = b"\x05x-one\x01v";
    let cases = vec![
        ok("6.2.1", "indexed name, into the table", &[b"\x41", plain]),
        ok(
            "6.2.1",
            "indexed name, into the table, Huffman",
            &[b"\x41", WWW],
        ),
        ok(
            "6.2.1",
            "new name, into the table",
            &[b"\x41", plain, b"\x40", new],
        ),
        ok(
            "6.2.1",
            "new name, into the table, Huffman",
            &[b"\x41", WWW, b"\x40", KEY, VALUE],
        ),
        ok("6.2.2", "indexed name", &[b"\x01", plain]),
        ok(
            "6.2.2",
            "indexed name, Huffman",
            &[b"\x01", WWW, b"\x0f\x09", NO_CACHE],
        ),
        ok("6.2.2", "new name", &[b"\x01", plain, b"\x00", new]),
        ok(
            "6.2.2",
            "new name, Huffman",
            &[b"\x01", WWW, b"\x00", KEY, VALUE],
        ),
        ok("6.2.3", "never indexed, indexed name", &[b"\x11", plain]),
        ok(
            "6.2.3",
            "never indexed, indexed name, Huffman",
            &[b"\x11", WWW],
        ),
        ok(
            "6.2.3",
            "never indexed, new name",
            &[b"\x11", plain, b"\x10", new],
        ),
        ok(
            "6.2.3",
            "never indexed, new name, Huffman",
            &[b"\x11", WWW, b"\x10", KEY, VALUE],
        ),
        ok(
            "6.1",
            "a field out of the dynamic table",
            &[b"\x41", plain, b"\x40", new, b"\xbe"],
        ),
        ok("5.2", "an empty value", &[b"\x01", plain, b"\x00\x01a\x00"]),
        ok(
            "5.1",
            "a number with a useless zero byte",
            &[b"\x01", plain, b"\x00\x01a\x7f\x80\x00", &[b'v'; 127]],
        ),
        case(
            "4.2",
            "an update of the table's size first",
            vec![headers(1, END_STREAM, &[b"\x20", GET].concat())],
            Answer(200),
        ),
        case(
            "4.2",
            "two updates first",
            vec![headers(1, END_STREAM, &[b"\x20\x3f\x45", GET].concat())],
            Answer(200),
        ),
        case(
            "4.2",
            "the size that is the limit",
            vec![headers(1, END_STREAM, &[b"\x3f\xe1\x1f", GET].concat())],
            Answer(200),
        ),
        case(
            "2.2",
            "the table outlives a stream",
            vec![headers(1, END_STREAM, &[BARE, b"\x41", plain].concat())],
            Answer(200),
        )
        .then([
            Answered(1),
            Send(headers(3, END_STREAM, &[BARE, b"\xbe"].concat())),
        ])
        .on(3),
        case(
            "2.2",
            "the table outlives a stream that was refused",
            vec![
                headers(
                    1,
                    END_STREAM,
                    &[BARE, b"\x41", plain, &literal(b"upgrade", b"x")].concat(),
                ),
                headers(3, END_STREAM, &[BARE, b"\xbe"].concat()),
            ],
            Answer(200),
        )
        .on(3),
    ];
    run_all(cases).await;
}

#[tokio::test]
async fn a_block_that_cannot_be_decoded_ends_the_connection() {
    let with =
        |section, what, bytes: Vec<u8>| case(section, what, vec![bytes], Goaway(COMPRESSION_ERROR));
    let bad = |section, what, extra: &[u8]| {
        with(section, what, get_with(extra)).deviates(Goaway(PROTOCOL_ERROR), DECODING)
    };
    let cases = vec![
        bad("6.1", "index 0", b"\x80"),
        bad("2.3.3", "an index beyond the tables", b"\xff\x80\x01"),
        bad(
            "2.3.3",
            "the first index of an empty dynamic table",
            b"\xbe",
        ),
        bad(
            "2.3.3",
            "a name's index beyond the tables",
            b"\x7f\x80\x01\x01v",
        ),
        bad(
            "2.3.3",
            "an index that fell out of the table",
            b"\x40\x01a\x01b\x20\xbe",
        ),
        bad("4.2", "an update of the table's size at the end", b"\x20"),
        bad("4.2", "an update between fields", b"\x20\x00\x01a\x01b"),
        with(
            "6.3",
            "a size above the limit",
            headers(1, END_STREAM, &[b"\x3f\xe2\x1f", GET].concat()),
        )
        .deviates(Goaway(PROTOCOL_ERROR), DECODING),
        bad(
            "5.1",
            "a number without end",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        ),
        bad("5.1", "a number that the block ends in", b"\xff\x80"),
        bad("5.2", "a string longer than the block", b"\x00\x01a\x7fv"),
        bad("5.2", "a name longer than the block", b"\x00\x7e"),
        bad(
            "5.2",
            "Huffman padding of more than 7 bits",
            b"\x00\x01a\x87\xa8\xeb\x10\x64\x9c\xbf\xff",
        ),
        with(
            "5.2",
            "Huffman padding of zeros",
            get_with(b"\x00\x01a\x86\xa8\xeb\x10\x64\x9c\xa0"),
        )
        .deviates(Answer(200), PADDING),
        bad(
            "5.2",
            "Huffman code with EOS",
            b"\x00\x01a\x84\xff\xff\xff\xff",
        ),
        bad("6.2.2", "a field that lacks its value", b"\x00\x01a"),
    ];
    run_all(cases).await;
}

#[tokio::test]
async fn a_broken_preface_ends_the_connection() {
    let (edge, _one) = edge_to_one().await;

    for broken in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r"[..],
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\nhost: x.test\r\n\r\n",
    ] {
        let mut client = RawClient::silent(edge.address()).await; // §3.4
        client.send(broken).await;
        assert!(client.ends().await, "{:?}", broken.escape_ascii());
    }
    // §3.4 wants SETTINGS first. h2 waits for none, and knows its peer by the defaults until then.
    let mut client = RawClient::silent(edge.address()).await;
    client.send(&[PREFACE, &get(1)].concat()).await;
    assert_eq!(client.outcome(1).await, Answer(200));
}

#[tokio::test]
async fn settings_are_acknowledged_and_pings_come_back() {
    let (edge, _one) = edge_to_one().await;
    let mut client = RawClient::silent(edge.address()).await;

    client.send(&[PREFACE, &settings(&[])].concat()).await;
    let own = client.frame_of(kind::SETTINGS).await.unwrap();
    assert_eq!(own.flags, 0);
    let acknowledged = client.frame_of(kind::SETTINGS).await.unwrap(); // §6.5.3
    assert_eq!((acknowledged.flags, acknowledged.payload.len()), (ACK, 0));
    client.send(&frame(kind::SETTINGS, ACK, 0, &[])).await;
    assert!(client.lives().await); // §6.7
}

/// DATA until `enough` bytes have come, or nothing more does.
async fn taken(client: &mut RawClient, enough: usize) -> Vec<usize> {
    let mut lengths = Vec::new();
    while lengths.iter().sum::<usize>() < enough {
        match client.frame_of(kind::DATA).await {
            Some(frame) => lengths.push(frame.payload.len()),
            None => break,
        }
    }
    lengths
}

#[tokio::test]
async fn answers_stay_within_the_client_s_window() {
    let (edge, _one) = edge_to_one().await;
    let thousand = headers(1, END_STREAM, THOUSAND);

    // §6.9.1: one byte, and then what is granted.
    let mut client = RawClient::connect(edge.address(), &[(4, 1)]).await;
    client.send(&thousand).await;
    assert_eq!(taken(&mut client, 1).await, [1]);
    client.send(&window_update(1, 9)).await;
    assert_eq!(taken(&mut client, 9).await.iter().sum::<usize>(), 9);

    // §6.9.2: a setting changes the windows of streams that are open.
    client.send(&settings(&[(4, 1 + 90)])).await;
    assert_eq!(taken(&mut client, 90).await.iter().sum::<usize>(), 90);

    // §6.9.2: windows may become negative, and grow from there.
    client.send(&settings(&[(4, 1)])).await;
    client.send(&window_update(1, 91)).await;
    assert_eq!(taken(&mut client, 1).await, [1]);
    assert!(client.lives().await);
    client.send(&window_update(1, 10_000)).await;
    assert_eq!(taken(&mut client, 899).await.iter().sum::<usize>(), 899);
}

/// Fields behind `:method`, `:scheme`, `:path` and `:authority` of a `GET /headers`.
fn asking(extra: &[(&[u8], &[u8])]) -> Vec<u8> {
    let usual: [(&[u8], &[u8]); 4] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/headers"),
        (b":authority", b"x.test"),
    ];
    [block(&usual), block(extra)].concat()
}

type Field<'a> = (&'a [u8], &'a [u8]);

/// A `GET` whose pseudo-header fields are these alone.
fn pseudo(what: &'static str, fields: &[Field<'_>]) -> Attack {
    Attack {
        section: "8.3.1",
        what,
        bytes: headers(1, END_STREAM, &block(fields)),
    }
}

/// The usual request with one pseudo-header field changed.
fn changed(section: &'static str, what: &'static str, name: &[u8], value: &[u8]) -> Attack {
    let usual: [Field<'_>; 4] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/headers"),
        (b":authority", b"x.test"),
    ];
    let fields = usual.map(|field| {
        if field.0 == name {
            (name, value)
        } else {
            field
        }
    });
    Attack {
        section,
        what,
        bytes: headers(1, END_STREAM, &block(&fields)),
    }
}

fn with(section: &'static str, what: &'static str, name: &[u8], value: &[u8]) -> Attack {
    Attack {
        section,
        what,
        bytes: headers(1, END_STREAM, &asking(&[(name, value)])),
    }
}

struct Attack {
    section: &'static str,
    what: &'static str,
    bytes: Vec<u8>,
}

const METHOD: Field<'_> = (b":method", b"GET");
const SCHEME: Field<'_> = (b":scheme", b"http");
const PATH: Field<'_> = (b":path", b"/headers");
const AUTHORITY: Field<'_> = (b":authority", b"x.test");

fn attacks_by_pseudo_headers() -> Vec<Attack> {
    vec![
        pseudo("no :method", &[SCHEME, PATH, AUTHORITY]),
        pseudo("no :scheme", &[METHOD, PATH, AUTHORITY]),
        pseudo("no :path", &[METHOD, SCHEME, AUTHORITY]),
        pseudo("nothing at all", &[]),
        pseudo("neither :authority nor host", &[METHOD, SCHEME, PATH]),
        pseudo("two :method", &[METHOD, METHOD, SCHEME, PATH, AUTHORITY]),
        pseudo("two :scheme", &[METHOD, SCHEME, SCHEME, PATH, AUTHORITY]),
        pseudo("two :path", &[METHOD, SCHEME, PATH, PATH, AUTHORITY]),
        pseudo(
            "two :path that differ",
            &[METHOD, SCHEME, PATH, (b":path", b"/"), AUTHORITY],
        ),
        pseudo(
            "two :authority",
            &[METHOD, SCHEME, PATH, AUTHORITY, AUTHORITY],
        ),
        pseudo(
            "two :authority that differ",
            &[METHOD, SCHEME, PATH, AUTHORITY, (b":authority", b"y.test")],
        ),
        pseudo(
            "a pseudo-header after a field",
            &[METHOD, SCHEME, AUTHORITY, (b"a", b"b"), PATH],
        ),
        with("8.3", "an unknown pseudo-header", b":unknown", b"x"),
        with("8.3", "a pseudo-header of answers", b":status", b"200"),
        with("8.3", "a pseudo-header without a name", b":", b"x"),
        changed("8.3.1", "an empty :method", b":method", b""),
        changed(
            "8.3.1",
            "a :method with a request line",
            b":method",
            b"GET /evil HTTP/1.1",
        ),
        changed("8.2.1", "a :method with CR LF", b":method", b"GET\r\nx:"),
        changed("8.2.1", "a :scheme with CR LF", b":scheme", b"http\r\nx: y"),
        changed(
            "8.3.1",
            "a :scheme with a host",
            b":scheme",
            b"http://evil.test/",
        ),
        changed("8.3.1", "an empty :path", b":path", b""),
        changed("8.3.1", "a :path without slash", b":path", b"headers"),
        changed("8.3.1", "a :path that is a host", b":path", b"@evil.test/"),
        changed(
            "8.3.1",
            "a :path in absolute form",
            b":path",
            b"http://evil.test/",
        ),
        changed("8.3.1", "an asterisk for GET", b":path", b"*"),
        changed("8.3.1", "a :path with a space", b":path", b"/a b"),
        changed(
            "8.3.1",
            "a :path with a request line",
            b":path",
            b"/ HTTP/1.1\r\nhost: evil.test\r\n\r\nGET /",
        ),
        changed("8.2.1", "a :path with LF", b":path", b"/a\nb"),
        changed("8.2.1", "a :path with NUL", b":path", b"/a\0b"),
        changed("8.3.1", "a :path with a tab", b":path", b"/a\tb"),
        changed("8.3.1", "a :path with DEL", b":path", b"/a\x7f"),
        changed("8.3.1", "an empty :authority", b":authority", b""),
        changed(
            "8.3.1",
            "an :authority with a user",
            b":authority",
            b"u@x.test",
        ),
        changed(
            "8.3.1",
            "an :authority with a path",
            b":authority",
            b"x.test/evil",
        ),
        changed(
            "8.3.1",
            "an :authority with a space",
            b":authority",
            b"x.test evil",
        ),
        changed(
            "8.2.1",
            "an :authority with CR LF",
            b":authority",
            b"x.test\r\nx: y",
        ),
        changed(
            "8.3.1",
            "an :authority with a port too high",
            b":authority",
            b"x.test:65536",
        ),
        changed(
            "8.3.1",
            "an :authority with two ports",
            b":authority",
            b"x.test:80:80",
        ),
        changed(
            "8.5",
            "CONNECT with a scheme and a path",
            b":method",
            b"CONNECT",
        ),
    ]
}

fn attacks_by_fields() -> Vec<Attack> {
    vec![
        with("8.2.1", "a quotation mark", b"x\"a", b"b"),
        with("8.2.2", "connection", b"connection", b"close"),
        with(
            "8.2.2",
            "connection that names a field",
            b"connection",
            b"host",
        ),
        with("8.2.2", "keep-alive", b"keep-alive", b"timeout=5"),
        with(
            "8.2.2",
            "proxy-connection",
            b"proxy-connection",
            b"keep-alive",
        ),
        with("8.2.2", "upgrade", b"upgrade", b"h2c"),
        with(
            "8.2.2",
            "transfer-encoding: chunked",
            b"transfer-encoding",
            b"chunked",
        ),
        with(
            "8.2.2",
            "transfer-encoding: identity",
            b"transfer-encoding",
            b"identity",
        ),
        with(
            "8.2.2",
            "transfer-encoding that is empty",
            b"transfer-encoding",
            b"",
        ),
        with("8.2.2", "te: chunked", b"te", b"chunked"),
        with(
            "8.2.2",
            "te: trailers and more",
            b"te",
            b"trailers, chunked",
        ),
        with("8.2.1", "an uppercase name", b"X-A", b"b"),
        with(
            "8.2.1",
            "an uppercase letter in a known name",
            b"content-lengtH",
            b"5",
        ),
        with("8.2.1", "an empty name", b"", b"x"),
        with("8.2.1", "a name with a space", b"content-length ", b"5"),
        with(
            "8.2.1",
            "a name that begins with a space",
            b" host",
            b"evil.test",
        ),
        with("8.2.1", "a name with a colon", b"host:", b"evil.test"),
        with("8.2.1", "a name with CR LF", b"a: b\r\nhost", b"evil.test"),
        with("8.2.1", "a name with LF", b"a\nb", b"x"),
        with("8.2.1", "a name with NUL", b"a\0b", b"x"),
        with("8.2.1", "a name with a byte above 0x7f", b"a\xff", b"x"),
        with(
            "8.2.1",
            "a value with CR LF",
            b"x-a",
            b"b\r\ntransfer-encoding: chunked",
        ),
        with(
            "8.2.1",
            "a value with a whole request",
            b"x-a",
            b"b\r\n\r\nGET /evil HTTP/1.1\r\nhost: x.test\r\n\r\n",
        ),
        with("8.2.1", "a value with CR", b"x-a", b"b\rc"),
        with("8.2.1", "a value with LF", b"x-a", b"b\nc"),
        with("8.2.1", "a value with NUL", b"x-a", b"b\0c"),
        with("8.3.1", "a host that differs", b"host", b"evil.test"),
        with("8.3.1", "a host that is empty", b"host", b""),
        with("8.3.1", "a host with a user", b"host", b"u@x.test"),
        with("8.1.1", "a length, and no body", b"content-length", b"5"),
        with(
            "8.1.1",
            "a length that is no number",
            b"content-length",
            b"five",
        ),
        with("8.1.1", "a length with a sign", b"content-length", b"+0"),
        with("8.1.1", "a length that is empty", b"content-length", b""),
        with("8.1.1", "a negative length", b"content-length", b"-1"),
        with(
            "8.1.1",
            "a length that overflows",
            b"content-length",
            b"18446744073709551616",
        ),
        with("8.1.1", "a list of lengths", b"content-length", b"0, 5"),
        with("8.1.1", "a disguised length", b"content_length", b"5"),
        with(
            "8.1.1",
            "a disguised coding",
            b"transfer_encoding",
            b"chunked",
        ),
        Attack {
            section: "8.3.1",
            what: "two hosts",
            bytes: headers(
                1,
                END_STREAM,
                &asking(&[(b"host", b"x.test"), (b"host", b"evil.test")]),
            ),
        },
        Attack {
            section: "8.1.1",
            what: "two lengths",
            bytes: headers(
                1,
                END_STREAM,
                &asking(&[(b"content-length", b"0"), (b"content-length", b"5")]),
            ),
        },
        Attack {
            section: "8.1.1",
            what: "a length and a coding",
            bytes: headers(
                1,
                0,
                &asking(&[
                    (b"content-length", b"5"),
                    (b"transfer-encoding", b"chunked"),
                ]),
            ),
        },
        Attack {
            section: "8.2.2",
            what: "the upgrade of a WebSocket in the manner of HTTP/1.1",
            bytes: headers(
                1,
                END_STREAM,
                &asking(&[(b"connection", b"upgrade"), (b"upgrade", b"websocket")]),
            ),
        },
        with(
            "8441 4",
            "a :protocol without CONNECT",
            b":protocol",
            b"websocket",
        ),
    ]
}

/// A malformed request is a stream error, a connection error, or answered with 400 (RFC 9113
/// §8.1.1, §5.4.1); which of them is not promised. What is: no endpoint sees it.
#[tokio::test]
async fn no_malformed_request_reaches_an_endpoint_that_speaks_http_1() {
    let (edge, one) = edge_to_one().await;
    let attacks = [attacks_by_pseudo_headers(), attacks_by_fields()];
    let mut wrong = String::new();
    for attack in attacks.iter().flatten() {
        let before = one.requests();
        let mut client = RawClient::connect(edge.address(), &[]).await;
        client.send(&attack.bytes).await;
        let outcome = client.outcome(1).await;
        let refused = matches!(
            outcome,
            Reset(PROTOCOL_ERROR) | Goaway(PROTOCOL_ERROR) | Answer(400 | 405)
        );
        let reached = one.requests() - before;
        if !refused || reached > 0 {
            let (section, what) = (attack.section, attack.what);
            let seen = client.body.escape_ascii();
            writeln!(
                wrong,
                "§{section} {what}: {outcome:?}, {reached} requests: {seen}"
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test]
async fn an_empty_scheme_passes_and_tells_the_endpoint_nothing() {
    let (edge, _one) = edge_to_one().await;
    let mut client = RawClient::connect(edge.address(), &[]).await;

    // §8.3.1 forbids it, and h2 takes it. What the endpoint hears is the listener's scheme.
    let odd = changed("8.3.1", "", b":scheme", b"");
    client.send(&odd.bytes).await;

    assert_eq!(client.outcome(1).await, Answer(200));
    let seen = String::from_utf8(client.body).unwrap();
    assert!(seen.contains("\r\nx-forwarded-proto: http\r\n"), "{seen}");
}

#[tokio::test]
async fn tls_changes_nothing_of_it() {
    let certificate = certificate();
    let (edge, one) = edge_with(ListenerProtocol::Https(server_tls(&certificate))).await;
    let secure = [b"\x82\x87", &GET[2..]].concat();
    let cases = [
        (headers(1, END_STREAM, &secure), Answer(200)),
        (headers(2, END_STREAM, &secure), Goaway(PROTOCOL_ERROR)),
        (window_update(0, 0), Goaway(PROTOCOL_ERROR)),
        (
            headers(1, END_STREAM, &[0; 16_385]),
            Goaway(FRAME_SIZE_ERROR),
        ),
        (
            headers(
                1,
                END_STREAM,
                &[&secure[..], &literal(b"upgrade", b"x")].concat(),
            ),
            Reset(PROTOCOL_ERROR),
        ),
        (
            headers(
                1,
                END_STREAM,
                &[&secure[..], &literal(b"a", b"b\r\nc: d")].concat(),
            ),
            Goaway(PROTOCOL_ERROR),
        ),
    ];
    for (bytes, wanted) in cases {
        let tls = connect_tls(edge.address(), &certificate, b"h2").await;
        let mut client = RawClient::over(tls);
        client.shake(&[]).await;
        client.send(&bytes).await;
        assert_eq!(client.outcome(1).await, wanted);
    }
    assert_eq!(one.requests(), 1);
}

/// The body in HTTP/1 that came with a head; `None` without a whole head.
fn body_of(seen: &[u8]) -> Option<(String, &[u8])> {
    let end = seen.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = String::from_utf8(seen[..end + 4].to_vec()).unwrap();
    Some((head, &seen[end + 4..]))
}

fn length_in(head: &str) -> Option<usize> {
    let (_, rest) = head.split_once("content-length: ")?;
    rest.split('\r').next()?.parse().ok()
}

/// Sends this to an endpoint that only listens; what became of the stream, and what was heard.
async fn overheard(bytes: &[u8]) -> (Outcome, Vec<u8>) {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let edge = edge_before(listener.local_addr().unwrap(), ListenerProtocol::Http);
    let mut client = RawClient::connect(edge.address(), &[]).await;
    client.send(bytes).await;
    let mut seen = Vec::new();
    let hearing = async {
        let (mut endpoint, _) = listener.accept().await.unwrap();
        // A reset is an end as well.
        let _ = endpoint.read_to_end(&mut seen).await;
    };
    let hearing = timeout(Duration::from_millis(500), hearing);
    let (outcome, _) = tokio::join!(client.outcome(1), hearing);
    (outcome, seen)
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_says_is_never_a_whole_request() {
    let sized =
        |length: &[u8]| headers(1, 0, &[POST, &literal(b"content-length", length)].concat());
    let unsized_ = || headers(1, 0, POST);
    let end = |name: &[u8], value: &[u8]| headers(1, END_STREAM, &literal(name, value));
    // All §8.1.1 but where it is said.
    let cases = [
        ("less", vec![sized(b"9"), data(1, END_STREAM, b"body")]),
        (
            "less, in two frames",
            vec![sized(b"9"), data(1, 0, b"bo"), data(1, END_STREAM, b"dy")],
        ),
        ("none", vec![sized(b"9"), data(1, END_STREAM, b"")]),
        (
            "less, and trailers",
            vec![sized(b"9"), data(1, 0, b"body"), end(b"x", b"y")],
        ),
        (
            "more at once",
            vec![sized(b"3"), data(1, END_STREAM, b"body")],
        ),
        (
            "more, in two frames",
            vec![sized(b"4"), data(1, 0, b"body"), data(1, END_STREAM, b"+")],
        ),
        (
            "more, in three frames",
            vec![
                sized(b"4"),
                data(1, 0, b"bo"),
                data(1, 0, b"dy"),
                data(1, 0, b"+"),
            ],
        ),
        (
            "more than nothing",
            vec![sized(b"0"), data(1, END_STREAM, b"body")],
        ),
        (
            "more than nothing, after nothing",
            vec![sized(b"0"), data(1, 0, b""), data(1, 0, b"body")],
        ),
        (
            "more, and it is a request",
            vec![
                sized(b"3"),
                data(
                    1,
                    END_STREAM,
                    b"abcGET /evil HTTP/1.1\r\nhost: x.test\r\n\r\n",
                ),
            ],
        ),
        (
            "transfer-encoding in trailers (§8.2.2)",
            vec![
                unsized_(),
                data(1, 0, b"body"),
                end(b"transfer-encoding", b"chunked"),
            ],
        ),
        (
            "CR LF in a trailer (§8.2.1)",
            vec![
                unsized_(),
                data(1, 0, b"body"),
                end(b"x", b"y\r\n\r\nGET /evil HTTP/1.1"),
            ],
        ),
        (
            "an uppercase trailer (§8.2.1)",
            vec![unsized_(), data(1, 0, b"body"), end(b"X", b"y")],
        ),
        (
            "trailers that do not end the stream (§8.1)",
            vec![
                unsized_(),
                data(1, 0, b"body"),
                headers(1, 0, &literal(b"x", b"y")),
            ],
        ),
    ];
    let mut wrong = String::new();
    for (what, frames) in cases {
        let (outcome, seen) = overheard(&frames.concat()).await;
        let refused = matches!(
            outcome,
            Reset(PROTOCOL_ERROR) | Goaway(PROTOCOL_ERROR) | Answer(400)
        );
        let whole = body_of(&seen).is_some_and(|(head, body)| match length_in(&head) {
            Some(length) => body.len() >= length,
            None => body.ends_with(b"0\r\n\r\n"),
        });
        if !refused || whole {
            writeln!(wrong, "{what}: {outcome:?}, heard {}", seen.escape_ascii()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// One frame at a time, each after what came before was surely read.
#[tokio::test]
async fn an_endpoint_never_has_all_of_a_body_before_its_stream_has_ended() {
    for length in [&b"0"[..], b"4"] {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let edge = edge_before(listener.local_addr().unwrap(), ListenerProtocol::Http);
        let mut client = RawClient::connect(edge.address(), &[]).await;
        let head = [POST, &literal(b"content-length", length)].concat();
        client.send(&headers(1, 0, &head)).await;
        let first = if length == b"0" { &b""[..] } else { b"body" };
        client.send(&data(1, 0, first)).await;
        let mut seen = Vec::new();
        // Where nothing is sent to the endpoint, there is not even a connection.
        let mut endpoint = None;
        let hearing = async {
            let stream = endpoint.insert(listener.accept().await.unwrap().0);
            let _ = stream.read_to_end(&mut seen).await;
        };
        let ended = timeout(Duration::from_millis(300), hearing).await;
        assert!(ended.is_err(), "nothing has ended yet");
        let whole = body_of(&seen).is_some_and(|(head, body)| Some(body.len()) == length_in(&head));
        assert!(!whole, "{}", seen.escape_ascii());

        client.send(&data(1, END_STREAM, b"+")).await;
        assert_eq!(client.outcome(1).await, Reset(PROTOCOL_ERROR));
    }
}

#[tokio::test]
async fn the_stream_s_end_may_come_long_after_the_last_byte() {
    let ends = || {
        [
            data(1, END_STREAM, b""),
            headers(1, END_STREAM, &literal(b"x-sum", b"1")),
        ]
    };
    for (length, bytes) in [(&b"0"[..], &b""[..]), (b"4", b"body")] {
        for end in ends() {
            let (edge, _one) = edge_to_one().await;
            let mut client = RawClient::connect(edge.address(), &[]).await;
            let head = [POST, &literal(b"content-length", length)].concat();
            client.send(&headers(1, 0, &head)).await;
            client.send(&data(1, 0, bytes)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            client.send(&end).await;
            assert_eq!(client.outcome(1).await, Answer(200));
            let told = String::from_utf8(client.body).unwrap().replace(' ', "");
            assert!(
                told.contains(&format!("\"bytes\":{}", bytes.len())),
                "{told}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_no_field_in_trailers_goes_no_further() {
    // §8.1 calls such a request malformed; h2 drops pseudo-headers and takes the rest, and we what its names
    // let through.
    let bytes = [
        post(1),
        data(1, 0, b"body"),
        headers(
            1,
            END_STREAM,
            &block(&[(b":path", b"/evil"), (b"x\"evil", b"1"), (b"x-sum", b"1")]),
        ),
    ];
    let (_, seen) = overheard(&bytes.concat()).await;

    let (head, body) = body_of(&seen).expect("a request");
    assert!(head.starts_with("POST /upload HTTP/1.1\r\n"), "{head}");
    assert!(
        body.starts_with(b"4\r\nbody\r\n0\r\n"),
        "{}",
        body.escape_ascii()
    );
    assert!(!seen.windows(4).any(|bytes| bytes == b"evil"));
}

#[tokio::test]
async fn a_body_stays_a_body_whatever_it_holds() {
    let (edge, one) = edge_to_one().await;
    let evil = b"0\r\n\r\nGET /evil HTTP/1.1\r\nhost: x.test\r\n\r\n";

    for (nth, method) in [&b"POST"[..], b"GET", b"DELETE"].into_iter().enumerate() {
        let mut client = RawClient::connect(edge.address(), &[]).await;
        let upload = block(&[
            (b":method", method),
            SCHEME,
            (b":path", b"/upload"),
            AUTHORITY,
        ]);
        let bytes = [headers(1, 0, &upload), data(1, END_STREAM, evil)].concat();
        client.send(&bytes).await;
        assert_eq!(client.outcome(1).await, Answer(200));
        let counted = format!("\"bytes\":{}", evil.len());
        let told = String::from_utf8(client.body).unwrap().replace(' ', "");
        assert!(told.contains(&counted), "{told}");
        assert_eq!(one.requests(), nth as u64 + 1);
    }
}

/// What is lawful, or harmless, and how it is said to an endpoint that speaks HTTP/1.1.
#[tokio::test]
async fn lawful_oddities_are_put_into_http_1_s_words() {
    let (edge, _one) = edge_to_one().await;
    let usual = |extra: &[Field<'_>]| asking(extra);
    let cases = [
        (
            "8.2.1 forbids spaces around a value, h2 takes them, readers of HTTP/1.1 trim them",
            usual(&[(b"x-a", b" v\t")]),
            "\r\nx-a:  v\t\r\n",
        ),
        (
            "8.2.3 crumbs of cookies are joined",
            usual(&[(b"cookie", b"a=1"), (b"cookie", b"b=2")]),
            "\r\ncookie: a=1; b=2\r\n",
        ),
        (
            "8.2.2 te: trailers",
            usual(&[(b"te", b"trailers")]),
            "\r\nte: trailers\r\n",
        ),
        (
            "8.3.1 a host that is the authority",
            usual(&[(b"host", b"x.test")]),
            "\r\nhost: x.test\r\n",
        ),
        (
            "8.3.1 a host in place of an authority",
            block(&[METHOD, SCHEME, PATH, (b"host", b"x.test")]),
            "\r\nhost: x.test\r\n",
        ),
        (
            "8.3.1 encoded CR LF stays encoded",
            block(&[
                METHOD,
                SCHEME,
                (b":path", b"/headers/%0d%0a?%00"),
                AUTHORITY,
            ]),
            "GET /headers/%0d%0a?%00 HTTP/1.1\r\n",
        ),
        (
            "8.3.1 a method of one's own",
            block(&[(b":method", b"get"), SCHEME, PATH, AUTHORITY]),
            "get /headers HTTP/1.1\r\n",
        ),
        (
            "8.2.1 a field without a value",
            usual(&[(b"x-a", b"")]),
            "\r\nx-a: \r\n",
        ),
        (
            "8.2.1 bytes above 0x7f",
            usual(&[(b"x-a", b"\xc3\xa9")]),
            "\r\nx-a: \u{e9}\r\n",
        ),
    ];
    let mut wrong = String::new();
    for (what, fields, wanted) in cases {
        let mut client = RawClient::connect(edge.address(), &[]).await;
        client.send(&headers(1, END_STREAM, &fields)).await;
        let outcome = client.outcome(1).await;
        let seen = String::from_utf8_lossy(&client.body).into_owned();
        if outcome != Answer(200) || !seen.contains(wanted) {
            writeln!(wrong, "§{what}: {outcome:?} {seen:?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test]
async fn what_is_too_much_is_refused() {
    let large = literal(b"x-large", &[b'x'; 9_000]);
    let many = literal(b"a", b"b").repeat(101);
    let whole = [GET, &large.repeat(8)].concat();
    let mut pieces = whole.chunks(16_000);
    let mut in_pieces = vec![frame(kind::HEADERS, END_STREAM, 1, pieces.next().unwrap())];
    in_pieces.extend(pieces.map(|piece| frame(kind::CONTINUATION, 0, 1, piece)));
    in_pieces.push(frame(kind::CONTINUATION, END_HEADERS, 1, b""));
    let hasty = (0..500).map(|nth| [get(2 * nth + 1), reset(2 * nth + 1, 8)].concat());
    let cases = vec![
        case(
            "10.5.1",
            "a head above `head_bytes`",
            in_pieces,
            Answer(431),
        ),
        case(
            "10.5.1",
            "more fields than `head_fields`",
            vec![get_with(&many)],
            Answer(431),
        ),
        case(
            "10.5",
            "resets in haste (CVE-2023-44487)",
            hasty.collect(),
            Goaway(ENHANCE_YOUR_CALM),
        )
        .on(9_999),
    ];
    run_all(cases).await;
}

#[tokio::test]
async fn who_sends_more_than_the_window_is_stopped() {
    let listener = TcpListener::bind(any_port()).await.unwrap(); // and never reads
    let edge = edge_before(listener.local_addr().unwrap(), ListenerProtocol::Http);
    let mut client = RawClient::connect(edge.address(), &[]).await;

    // §6.9.1. What the kernel takes is given back to the window; this is more.
    client.send(&post(1)).await;
    client.send(&data(1, 0, &[0; 16_384]).repeat(1_500)).await;

    let outcome = client.outcome(1).await;
    let lawful = [Reset(FLOW_CONTROL_ERROR), Goaway(FLOW_CONTROL_ERROR)];
    assert!(lawful.contains(&outcome), "{outcome:?}");
}
