//! An endpoint that reads requests as strictly as can be, answers by a script, and tells what it got.
//!
//! Its reader is its own: it shares no line with what is tested.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// One request that arrived whole.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Over which of the endpoint's connections it came.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    /// All field lines in lower case, each between CRLFs.
    pub(crate) fields: String,
    pub(crate) body: Vec<u8>,
    /// What is wrong with it, if anything is.
    pub(crate) unlawful: Option<&'static str>,
}

impl Seen {
    /// `METHOD target body`.
    pub(crate) fn short(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        let unlawful = self
            .unlawful
            .map_or(String::new(), |what| format!(" [{what}]"));
        format!("{} {} {body}{unlawful}", self.method, self.target)
    }
}

/// What is answered: bytes, with a pause before each piece but the first; then the end, or more.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) pieces: Vec<Vec<u8>>,
    pub(crate) close: bool,
}

/// Between two pieces of an answer.
pub(crate) const PAUSE: Duration = Duration::from_millis(15);

type Script = dyn Fn(&Seen) -> Answer + Send + Sync;

pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _connections: JoinSet<()>,
}

impl Recorder {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let mut connections = JoinSet::new();
        let all = Arc::clone(&seen);
        connections.spawn(async move {
            let mut serving = JoinSet::new();
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (all, script) = (Arc::clone(&all), Arc::clone(&script));
                serving.spawn(async move {
                    // How a connection ends is not what is recorded.
                    let _ = serve(stream, connection, &all, &*script).await;
                });
            }
        });
        Self {
            address,
            seen,
            _connections: connections,
        }
    }

    /// What arrived whole since this was last asked.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    all: &Mutex<Vec<Seen>>,
    script: &Script,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut arrived = Vec::new();
    loop {
        let Some((request, length)) = read(&arrived, connection) else {
            if stream.read_buf(&mut arrived).await? == 0 {
                return Ok(());
            }
            continue;
        };
        arrived.drain(..length);
        let answer = script(&request);
        all.lock().unwrap().push(request);
        for (at, piece) in answer.pieces.iter().enumerate() {
            if at > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            stream.write_all(piece).await?;
        }
        if answer.close {
            return stream.shutdown().await;
        }
    }
}

/// The request that `bytes` begin with, and its length; `None` while it is not whole.
fn read(bytes: &[u8], connection: usize) -> Option<(Seen, usize)> {
    let head_end = find(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let (line, _) = head.split_once("\r\n")?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let fields = head[line.len()..].to_ascii_lowercase();
    let lengths: Vec<&str> = values(&fields, "content-length").collect();
    let codings: Vec<&str> = values(&fields, "transfer-encoding").collect();
    let unlawful = match (&lengths[..], &codings[..]) {
        _ if version != Some("HTTP/1.1") || words.next().is_some() => Some("request line"),
        _ if values(&fields, "host").count() != 1 => Some("not one host"),
        _ if head.replace("\r\n", "").contains(['\r', '\n', '\0']) => Some("controls"),
        _ if fields.contains("content_length") => Some("disguise"),
        ([], [] | ["chunked"]) => None,
        ([length], []) if length.parse::<u64>().is_ok() => None,
        _ => Some("framing"),
    };
    let rest = &bytes[head_end..];
    let (body, of_body) = match (&lengths[..], &codings[..]) {
        (_, [_, ..]) => chunks(rest)?,
        ([length, ..], []) => {
            let length = length.parse().unwrap_or(0);
            (rest.get(..length)?.to_vec(), length)
        }
        ([], []) => (Vec::new(), 0),
    };
    let seen = Seen {
        connection,
        method: method.unwrap_or_default().to_owned(),
        target: target.unwrap_or_default().to_owned(),
        fields,
        body,
        unlawful,
    };
    Some((seen, head_end + of_body))
}

fn values<'f>(fields: &'f str, name: &'f str) -> impl Iterator<Item = &'f str> {
    let lines = fields.split("\r\n");
    lines.filter_map(move |line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

/// Data, with the trailers behind it in angle brackets; and the length of all of it.
fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let end = at + find(&bytes[at..], b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..end]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        at = end + 2;
        if size > 0 {
            body.extend_from_slice(bytes.get(at..at + size)?);
            assert_eq!(bytes.get(at + size..at + size + 2)?, b"\r\n");
            at += size + 2;
            continue;
        }
        loop {
            let end = at + find(&bytes[at..], b"\r\n")?;
            let line = &bytes[at..end];
            at = end + 2;
            if line.is_empty() {
                return Some((body, at));
            }
            body.push(b'<');
            body.extend_from_slice(line);
            body.push(b'>');
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
