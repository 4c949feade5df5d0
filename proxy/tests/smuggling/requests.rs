//! Requests, and what the endpoint behind the proxy sees of them.

mod cases;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sealane_model::Verdict::Up;
use sealane_testkit::World;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::edge::{Edge, Http1, PATIENCE};
use crate::recorder::{Answer, PAUSE, Recorder, Seen};
use cases::{Case, Expected};

/// Proxies that work through the cases side by side.
const LANES: usize = 8;
/// Sent behind each case: what it is taken for tells whether both sides are still in step.
const PROBE: &str = "GET /probe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// One way to send a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    AsItStands,
    Absolute,
    Http10,
}

#[tokio::test]
async fn no_request_is_read_in_two_ways() {
    let cases = Arc::new(cases::all());
    let next = Arc::new(AtomicUsize::new(0));
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        let (cases, next) = (Arc::clone(&cases), Arc::clone(&next));
        lanes.spawn(async move {
            let lane = Lane::start().await;
            let mut wrong = Vec::new();
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                lane.run(case, &mut wrong).await;
            }
            wrong
        });
    }
    let wrong: Vec<String> = lanes.join_all().await.into_iter().flatten().collect();
    println!("{} requests", cases.len());
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// A proxy in front of an endpoint that answers everything.
struct Lane {
    edge: Edge,
    endpoint: Recorder,
}

impl Lane {
    async fn start() -> Self {
        let endpoint = Recorder::start(|seen: &Seen| {
            let body = if seen.method == "HEAD" { "" } else { "ok" };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}");
            Answer {
                pieces: vec![answer.into_bytes()],
                close: false,
            }
        });
        let endpoint = endpoint.await;
        let world = World::new().region("eu", Up);
        let world = world.endpoint(&endpoint.address.to_string(), Up).build();
        Self {
            edge: Edge::start(world),
            endpoint,
        }
    }

    async fn run(&self, case: &Case, wrong: &mut Vec<String>) {
        for form in [Form::AsItStands, Form::Absolute, Form::Http10] {
            let Some((bytes, expected)) = in_form(case, form) else {
                continue;
            };
            let length = bytes.len();
            let cuts = match form {
                Form::AsItStands => vec![0, 1, length / 3, length * 2 / 3, length - 1],
                _ => vec![0, length / 2],
            };
            for cut in cuts {
                if let Err(why) = self.send(case, &bytes, cut, &expected).await {
                    wrong.push(format!("{} ({form:?}, cut at {cut}): {why}", case.name));
                    break;
                }
            }
        }
    }

    async fn send(
        &self,
        case: &Case,
        bytes: &[u8],
        cut: usize,
        expected: &Expected,
    ) -> Result<(), String> {
        self.endpoint.take();
        let mut client = Http1::connect(self.edge.address()).await;
        if cut > 0 {
            client.send(&bytes[..cut]).await;
            tokio::time::sleep(PAUSE).await;
        }
        // It may have been refused for what came before.
        let _ = client.stream.get_mut().write_all(&bytes[cut..]).await;
        let (sees, refused): (&[&str], _) = match expected {
            Expected::Sees(sees) => (sees, None),
            Expected::Refused(status) => (&[], Some(*status)),
            Expected::SeesThenRefuses(sees, status) => (sees, Some(*status)),
            Expected::NeverEnds => {
                client.stream.get_mut().shutdown().await.unwrap();
                (&[], None)
            }
        };
        for one in sees {
            let method = one.split(' ').next().unwrap_or_default();
            let reply = timeout(PATIENCE, client.reply(method)).await;
            let reply = reply.map_err(|_| format!("no answer to {one}"))?;
            if reply.status() != 200 {
                return Err(format!("{} for {one}", reply.head.start));
            }
        }
        // An end is as good as an answer.
        let _ = client.stream.get_mut().write_all(PROBE.as_bytes()).await;
        let rest = client.rest().await;
        let rest = String::from_utf8_lossy(&rest);
        let answers = rest.matches("HTTP/1.1 ").count();
        match refused {
            // What cannot be read ends the connection: nothing behind it is read.
            Some(405) => check(rest.starts_with("HTTP/1.1 405 "), &rest)?,
            Some(0) => check(
                rest.starts_with("HTTP/1.1 4") || rest.starts_with("HTTP/1.1 5"),
                &rest,
            )?,
            Some(status) => {
                check(rest.starts_with(&format!("HTTP/1.1 {status} ")), &rest)?;
                check(answers == 1, &rest)?;
            }
            None if *expected == Expected::NeverEnds => check(answers == 0, &rest)?,
            None => check(answers <= 1, &rest)?,
        }
        self.check_seen(case, sees)
    }

    /// The endpoint saw what it should, and nothing else.
    fn check_seen(&self, case: &Case, sees: &[&str]) -> Result<(), String> {
        let seen = self.endpoint.take();
        let seen: Vec<_> = seen.iter().filter(|seen| seen.target != "/probe").collect();
        let short: Vec<String> = seen.iter().map(|seen| seen.short()).collect();
        let short: Vec<&str> = short
            .iter()
            .map(|short| short.trim_end_matches(' '))
            .collect();
        if short != sees {
            return Err(format!("the endpoint saw {short:?}, not {sees:?}"));
        }
        let Some(first) = seen.first() else {
            return Ok(());
        };
        for line in &case.has {
            if !first.fields.contains(&format!("\r\n{line}\r\n")) {
                return Err(format!("no {line} in {}", first.fields));
            }
        }
        for text in &case.lacks {
            if first.fields.contains(text) {
                return Err(format!("{text} in {}", first.fields));
            }
        }
        Ok(())
    }
}

fn check(holds: bool, got: &str) -> Result<(), String> {
    let start: String = got.chars().take(300).collect();
    if holds {
        Ok(())
    } else {
        Err(format!("got {start:?}"))
    }
}

/// The case in another form, where it has one.
fn in_form(case: &Case, form: Form) -> Option<(Vec<u8>, Expected)> {
    let expected = case.expected.clone();
    if form == Form::AsItStands {
        return Some((case.bytes.clone(), expected));
    }
    if case.origin_only {
        return None;
    }
    let line_end = case.bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = case.bytes.split_at(line_end);
    let line = std::str::from_utf8(line).ok()?;
    let expected = match expected {
        // Which one does not matter: transfer codings are unknown to HTTP/1.0 as a whole.
        Expected::Refused(_) if form == Form::Http10 => Expected::Refused(0),
        Expected::Sees(mut sees) if form == Form::Http10 => {
            sees.truncate(1); // the connection ends behind it
            Expected::Sees(sees)
        }
        other => other,
    };
    let line = match form {
        Form::Absolute if line.contains(" /") => line.replacen(" /", " http://x/", 1),
        Form::Http10 if line.contains("HTTP/1.1") => line.replacen("HTTP/1.1", "HTTP/1.0", 1),
        _ => return None,
    };
    let coded = || {
        let text = String::from_utf8_lossy(rest).to_ascii_lowercase();
        text.contains("chunked")
    };
    if form == Form::Http10 && !matches!(expected, Expected::Refused(_)) && coded() {
        return None;
    }
    Some(([line.as_bytes(), rest].concat(), expected))
}
