//! Answers, and what the client in front of the proxy gets of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sealane_model::Verdict::Up;
use sealane_testkit::World;
use sealane_testkit::http1::{Body, Framing, Head};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::edge::{Edge, Http1, PATIENCE};
use crate::recorder::{Answer, PAUSE, Recorder, Seen};

/// What must come of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// 502, and the endpoint's connection is not used again.
    Refused,
    /// It begins, and is broken off so that the client notices; the connection is not used again.
    BrokenOff,
    /// Passed on whole with this status and body, over a connection that is not used again.
    Once(u16, &'static str),
    /// The same, over one that is.
    Again(u16, &'static str),
}
use Expected::{Again, BrokenOff, Once, Refused};

struct Case {
    /// What it is, and the section that judges it.
    what: &'static str,
    method: &'static str,
    answer: Answer,
    expected: Expected,
}

/// Never to be seen by a client.
const POISON: &str = "HTTP/1.1 299 Poison\r\nContent-Length: 6\r\n\r\npoison";

const LANES: usize = 4;

#[tokio::test]
async fn no_answer_is_read_in_two_ways() {
    let cases = Arc::new(all());
    let next = Arc::new(AtomicUsize::new(0));
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        let (cases, next) = (Arc::clone(&cases), Arc::clone(&next));
        lanes.spawn(async move {
            let lane = Lane::start().await;
            let mut wrong = Vec::new();
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                for answer in [case.answer.clone(), in_two(&case.answer)] {
                    if let Err(why) = lane.run(case, answer).await {
                        let bytes = case.answer.pieces.concat();
                        let start = &bytes[..bytes.len().min(160)];
                        wrong.push(format!("{}: {}: {why}", case.what, start.escape_ascii()));
                        break;
                    }
                }
            }
            wrong
        });
    }
    let wrong: Vec<String> = lanes.join_all().await.into_iter().flatten().collect();
    println!("{} answers", cases.len());
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The same answer, its first piece cut in the middle.
fn in_two(answer: &Answer) -> Answer {
    let mut pieces = answer.pieces.clone();
    if let Some(first) = pieces.first_mut() {
        let second = first.split_off(first.len() / 2);
        pieces.insert(1, second);
    }
    Answer {
        pieces,
        close: answer.close,
    }
}

struct Lane {
    edge: Edge,
    endpoint: Recorder,
    script: watch::Sender<Answer>,
}

impl Lane {
    async fn start() -> Self {
        let nothing = Answer {
            pieces: Vec::new(),
            close: true,
        };
        let (script, answer) = watch::channel(nothing);
        let endpoint = Recorder::start(move |seen: &Seen| match &*seen.target {
            "/case" => answer.borrow().clone(),
            _ => Answer {
                pieces: vec![b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nafter".to_vec()],
                close: false,
            },
        });
        let endpoint = endpoint.await;
        let world = World::new().region("eu", Up);
        let world = world.endpoint(&endpoint.address.to_string(), Up).build();
        let edge = Edge::start_with_workers(world, 1, |config| {
            config.routes[0].retry.attempts = 1;
        });
        Self {
            edge,
            endpoint,
            script,
        }
    }

    async fn run(&self, case: &Case, answer: Answer) -> Result<(), String> {
        let pauses = answer.pieces.len() as u32;
        self.script.send_replace(answer);
        let mut client = Http1::connect(self.edge.address()).await;
        let ask = format!(
            "{} /case HTTP/1.1\r\nHost: x\r\nConnection: close, te\r\nTE: trailers\r\n\r\n",
            case.method
        );
        client.send(ask).await;
        let got = timeout(PATIENCE, client.rest()).await;
        let got = got.map_err(|_| "no end".to_owned())?;
        tokio::time::sleep(PAUSE * pauses).await;
        let text = String::from_utf8_lossy(&got).to_ascii_lowercase();
        let came = what_came(&got, case.method).await;
        let fits = match case.expected {
            Refused => came.as_ref().is_ok_and(|(status, _)| *status == 502),
            BrokenOff => came.is_err(),
            Once(status, body) | Again(status, body) => {
                let whole = came.as_ref();
                whole.is_ok_and(|(came, text)| *came == status && text == body)
            }
        };
        let start: String = text.chars().take(400).collect();
        if !fits {
            return Err(format!(
                "{:?} expected, {came:?} came: {start:?}",
                case.expected
            ));
        }
        if text.contains("poison") {
            return Err(format!("the client saw what was behind: {start:?}"));
        }
        let after = self.edge.connect().await.get("/after").await;
        if after.text() != "after" {
            return Err(format!("the next answer was {:?}", after.text()));
        }
        let seen = self.endpoint.take();
        // A connection that was idle may have been closed just then: the request goes out again.
        let Some((of_after, of_case)) = seen.split_last() else {
            return Err("the endpoint saw nothing".to_owned());
        };
        if !matches!(of_case.len(), 1 | 2) || of_after.target != "/after" {
            return Err(format!("the endpoint saw {} requests", seen.len()));
        }
        let mut of_case = of_case.iter();
        let again = of_case.any(|one| one.connection == of_after.connection);
        if again != matches!(case.expected, Again(..)) {
            return Err(format!("connection used again: {again}"));
        }
        Ok(())
    }
}

/// Status and body (with trailers in angle brackets) of a whole answer, or why it is none.
async fn what_came(mut got: &[u8], method: &str) -> Result<(u16, String), String> {
    let broken = |error: std::io::Error| error.to_string();
    let head = loop {
        let head = Head::read(&mut got).await.map_err(broken)?;
        let head = head.ok_or_else(|| "nothing".to_owned())?;
        if !matches!(head.status(), Some(100..=199)) {
            break head;
        }
        for name in [
            "content-length",
            "transfer-encoding",
            "connection",
            "x-sealane-region",
        ] {
            assert_eq!(head.field(name), None, "{name} in an informational answer");
        }
    };
    let both = head.field("content-length").is_some() && head.field("transfer-encoding").is_some();
    let status = head.status().ok_or_else(|| "no status".to_owned())?;
    if both {
        return Err("two framings".to_owned());
    }
    let mut body = Body::new(Framing::of_answer(&head, method).map_err(broken)?);
    let mut bytes = Vec::new();
    while let Some(piece) = body.next(&mut got).await.map_err(broken)? {
        bytes.extend_from_slice(&piece);
    }
    for (name, value) in &body.trailers {
        bytes.extend_from_slice(format!("<{name}: {value}>").as_bytes());
    }
    assert!(
        got.is_empty(),
        "bytes behind the answer: {}",
        got.escape_ascii()
    );
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}

fn case(what: &'static str, bytes: impl AsRef<[u8]>, expected: Expected) -> Case {
    Case {
        what,
        method: "GET",
        answer: Answer {
            pieces: vec![bytes.as_ref().to_vec()],
            close: false,
        },
        expected,
    }
}

impl Case {
    fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    fn then(mut self, bytes: &str) -> Self {
        self.answer.pieces.push(bytes.as_bytes().to_vec());
        self
    }

    fn close(mut self) -> Self {
        self.answer.close = true;
        self
    }
}

fn ok(lines: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}")
}

fn all() -> Vec<Case> {
    let mut all = framings();
    all.extend(heads());
    all.extend(bodies());
    all.extend(behind());
    all.extend(informational());
    all
}

/// How the body ends (RFC 9112 §6.3).
fn framings() -> Vec<Case> {
    let what = "framing, RFC 9112 §6.3";
    let mut all = Vec::new();
    for lines in [
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: 2\r\nContent-Length: 0\r\n",
        "Content-Length: 2, 2\r\n",
        "Content-Length: 2, 3\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: -2\r\n",
        "Content-Length: 0x2\r\n",
        "Content-Length:\r\n",
        "Content-Length: two\r\n",
        "Content-Length: 9223372036854775808\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked\x0b\r\n",
    ] {
        all.push(case(what, ok(lines, "2\r\nok\r\n0\r\n\r\n"), Refused));
    }
    let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    all.push(case("chunked in HTTP/1.0, RFC 9112 §6.1", old, Refused));
    let twice = ok("Content-Length: 2\r\nContent-Length: 2\r\n", "ok");
    all.push(case(
        "equal lengths, RFC 9110 §8.6",
        twice,
        Again(200, "ok"),
    ));
    all.push(case(
        what,
        ok("Content-Length: 2\r\n", "ok"),
        Again(200, "ok"),
    ));
    let chunks = ok("Transfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n");
    all.push(case(what, chunks, Again(200, "ok")));
    all.push(case(what, ok("", "ok"), Once(200, "ok")).close());
    let last = ok("Connection: close\r\nContent-Length: 2\r\n", "ok");
    all.push(case("Connection, RFC 9112 §9.6", last, Once(200, "ok")));
    let old = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok";
    all.push(case("HTTP/1.0, RFC 9112 §9.3", old, Once(200, "ok")));
    all
}

/// Lines that end, begin or are written otherwise (RFC 9112 §2.2, §4, §5).
fn heads() -> Vec<Case> {
    let end = "Content-Length: 2\r\n\r\nok";
    let mut all = Vec::new();
    for lines in [
        "X: y\n",
        "X: y\r\n z\r\n",
        " X: y\r\n",
        "X : y\r\n",
        "X\t: y\r\n",
        ": y\r\n",
        "X: a\rSet-Cookie: b\r\n",
        "X: a\0b\r\n",
        "X: a\x01b\r\n",
        "X: a\x7fb\r\n",
        "X y: z\r\n",
        "garbage\r\n",
        "X: y\r\r\n",
        "X: y\nSet-Cookie: b\r\n",
        "Content-Length : 0\r\n",
        "\0\r\n",
    ] {
        all.push(case(
            "head, RFC 9112 §5",
            format!("HTTP/1.1 200 OK\r\n{lines}{end}"),
            Refused,
        ));
    }
    for line in [
        "HTTP/1.1 200 OK\n",
        "HTTP/1.1 20\r\n",
        "HTTP/1.1 2000 OK\r\n",
        "HTTP/1.1 abc OK\r\n",
        "HTTP/1.1 099 OK\r\n",
        "HTTP/1.1 +20 OK\r\n",
        "HTTP/1.1  200 OK\r\n",
        "HTTP/1.1\t200 OK\r\n",
        "HTTP/2.0 200 OK\r\n",
        "HTTP/1.2 200 OK\r\n",
        "HTTP/1.1200 OK\r\n",
        "ICY 200 OK\r\n",
        "http/1.1 200 OK\r\n",
        " HTTP/1.1 200 OK\r\n",
        "\r\nHTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 O\0K\r\n",
        "HTTP/1.1 200 O\rK\r\n",
        "HTTP/1.1 200\tOK\r\n",
        "HTTP/1.1 2x0 OK\r\n",
        "HTTP/1.1 200OK\r\n",
        "ok\r\n",
    ] {
        all.push(case(
            "status line, RFC 9112 §4",
            format!("{line}{end}"),
            Refused,
        ));
    }
    let long = format!("X: {}\r\n", "x".repeat(70_000));
    all.push(case("size, RFC 9110 §5.4", ok(&long, ""), Refused));
    all.push(case(
        "size, RFC 9110 §5.4",
        ok(&"X: y\r\n".repeat(600), ""),
        Refused,
    ));
    all.push(case("nothing, RFC 9112 §4", "", Refused).close());
    all.push(
        case(
            "half a head, RFC 9112 §8",
            "HTTP/1.1 200 OK\r\nX: y",
            Refused,
        )
        .close(),
    );
    all.push(
        case(
            "half a head, RFC 9112 §8",
            "HTTP/1.1 200 OK\r\nX: y\r\n",
            Refused,
        )
        .close(),
    );
    for line in [
        "HTTP/1.1 200\r\n",
        "HTTP/1.1 200 \r\n",
        "HTTP/1.1 200 What ever\r\n",
    ] {
        all.push(case(
            "phrase, RFC 9112 §4",
            format!("{line}{end}"),
            Again(200, "ok"),
        ));
    }
    all
}

/// Bodies that are not what the head said (RFC 9112 §7.1, §8).
fn bodies() -> Vec<Case> {
    let what = "chunk, RFC 9112 §7.1";
    let chunks = |body: &str| ok("Transfer-Encoding: chunked\r\n", body);
    let mut all = Vec::new();
    for body in [
        "2\nok\r\n0\r\n\r\n",
        "2\r\nok\n0\r\n\r\n",
        "2\r\nokX\r\n0\r\n\r\n",
        "x\r\nok\r\n0\r\n\r\n",
        "-2\r\nok\r\n0\r\n\r\n",
        "0x2\r\nok\r\n0\r\n\r\n",
        "2 \r\nok\r\n0\r\n\r\n",
        " 2\r\nok\r\n0\r\n\r\n",
        "2;a\nb\r\nok\r\n0\r\n\r\n",
        "2\r\nok\r\n0\r\nX\r\n\r\n",
        "2\r\nok\r\n0\r\n X: y\r\n\r\n",
        "2\r\nok\r\n0\n\n\r\n",
        "fffffffffffffffff\r\nok",
        "8000000000000000\r\nok",
        "\r\nok\r\n0\r\n\r\n",
        "2\r\nok\r\n\r\n",
    ] {
        all.push(case(what, chunks(body), BrokenOff));
    }
    for body in ["2\r\nok\r\n", "2\r\nok\r\n0\r\n", "5\r\nok", "2"] {
        all.push(case("cut off, RFC 9112 §8", chunks(body), BrokenOff).close());
    }
    let short = ok("Content-Length: 5\r\n", "ok");
    all.push(case("cut off, RFC 9112 §8", short, BrokenOff).close());
    let forbidden =
        chunks("2\r\nok\r\n0\r\nContent-Length: 9\r\nSet-Cookie: a=b\r\nX-Sum: 1\r\n\r\n");
    all.push(case(
        "trailers, RFC 9110 §6.5.1",
        forbidden,
        Again(200, "ok<X-Sum: 1>"),
    ));
    all
}

/// Bytes behind an answer, which the next one must not begin with (RFC 9112 §9.2).
fn behind() -> Vec<Case> {
    let what = "bytes behind, RFC 9112 §9.2";
    let mut all = vec![
        case(
            what,
            ok("Content-Length: 2\r\n", &format!("ok{POISON}")),
            Once(200, "ok"),
        ),
        case(what, ok("Content-Length: 2\r\n", "ok\r\n"), Once(200, "ok")),
        case(what, ok("Content-Length: 0\r\n", POISON), Once(200, "")),
        case(what, ok("Content-Length: 2\r\n", "ok"), Once(200, "ok")).then(POISON),
        case(
            what,
            ok(
                "Transfer-Encoding: chunked\r\n",
                &format!("2\r\nok\r\n0\r\n\r\n{POISON}"),
            ),
            Once(200, "ok"),
        ),
        case(
            what,
            ok("Transfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"),
            Once(200, "ok"),
        )
        .then(POISON),
        case(what, ok("Content-Length: 6\r\n", "poison"), Once(200, "")).method("HEAD"),
        case(what, ok("Content-Length: 2\r\n", ""), Again(200, "")).method("HEAD"),
        case(
            what,
            ok("Transfer-Encoding: chunked\r\n", ""),
            Again(200, ""),
        )
        .method("HEAD"),
        case(
            what,
            ok("Transfer-Encoding: chunked\r\n", "6\r\npoison\r\n0\r\n\r\n"),
            Once(200, ""),
        )
        .method("HEAD"),
    ];
    for status in [204, 304] {
        let head = format!("HTTP/1.1 {status} X\r\n");
        all.push(case(what, format!("{head}\r\n"), Again(status, "")));
        all.push(case(what, format!("{head}\r\n{POISON}"), Once(status, "")));
        all.push(case(
            what,
            format!("{head}Content-Length: 6\r\n\r\npoison"),
            Once(status, ""),
        ));
        let chunks = "Transfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n";
        all.push(case(what, format!("{head}{chunks}"), Once(status, "")));
    }
    all
}

/// Heads before the final one (RFC 9110 §15.2).
fn informational() -> Vec<Case> {
    let what = "informational, RFC 9110 §15.2";
    let last = ok("Content-Length: 2\r\n", "ok");
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n";
    let mut all = vec![
        case(what, format!("{early}\r\n{last}"), Again(200, "ok")),
        case(
            what,
            format!("HTTP/1.1 100 Continue\r\n\r\n{last}"),
            Again(200, "ok"),
        ),
        case(
            what,
            format!("{}{last}", "HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000)),
            Refused,
        ),
        case(
            what,
            format!("{early}X: {}\r\n\r\n{last}", "x".repeat(70_000)),
            Refused,
        ),
        case(what, format!("{early}\r\n").repeat(20), Refused).close(),
        case(
            "unasked, RFC 9110 §7.8",
            format!("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n{POISON}"),
            Refused,
        ),
    ];
    // The framing of a final answer has no place there (RFC 9110 §8.6, RFC 9112 §6.1).
    for line in [
        "Content-Length: 2\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "X-Sealane-Region: forged\r\n",
    ] {
        all.push(case(
            "informational framing, RFC 9110 §8.6",
            format!("{early}{line}\r\n{last}"),
            Again(200, "ok"),
        ));
    }
    all
}
