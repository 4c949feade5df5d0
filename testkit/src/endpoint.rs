//! A scripted HTTP/1.1 endpoint on loopback that can be told, at run time, to misbehave.
//!
//! It says who it is in `x-endpoint` and `x-region` and in a JSON body, and counts what it gets.
//!
//! | path | answer (mode [`Mode::Serve`]) |
//! |---|---|
//! | `/health` | 200 `ok` |
//! | `/headers` | the request's head, word for word |
//! | `/bytes/N` | N bytes with a Content-Length |
//! | `/chunked/N` | N bytes in chunks, then the trailer `x-bytes: N` |
//! | `/status/CODE` | that status |
//! | `/slow/MS` | the usual answer, MS milliseconds later |
//! | `/upload` | `{"bytes": …, "sha256": "…"}` of the request's body |
//! | `/echo` | the request's body, in chunks, as it arrives |
//! | `/early` | 413 at once, without reading the body; then closes |
//! | `/ws` | a WebSocket that echoes |
//! | else | `{"endpoint": …, "region": …, "method": …, "path": …}` |

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::http1::{Body, Framing, Head};
use crate::websocket;

/// Connections open at once. Further ones are closed as soon as they are accepted.
pub const CONNECTIONS_MAX: usize = 8_192;

/// How the endpoint behaves, from the next request on (`/health` included).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Serve,
    /// Nothing listens, and open connections are closed: the process died.
    Refuse,
    /// Connections are accepted and read; nothing is ever answered on them.
    BlackHole,
    /// Each answer comes this much later.
    Slow(Duration),
    /// Each answer has this status.
    Status(u16),
    /// Requests are read, then the connection is closed.
    CloseBeforeAnswer,
    /// The head and a part of the body are sent, then the connection is closed.
    CloseMidBody,
}

/// Stops, with all its connections, when dropped.
#[derive(Debug)]
pub struct ScriptedEndpoint {
    address: SocketAddr,
    identity: Arc<Identity>,
    orders: mpsc::Sender<Order>,
    /// Owns the accept loop, which owns the connections.
    _task: JoinSet<()>,
}

#[derive(Debug)]
struct Identity {
    name: String,
    region: String,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
    probes: AtomicU64,
}

type Order = (Mode, oneshot::Sender<io::Result<()>>);

impl ScriptedEndpoint {
    /// Listens on `address` (port 0: any) in [`Mode::Serve`].
    ///
    /// # Errors
    /// The address can't be bound.
    pub async fn start(name: &str, region: &str, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let identity = Arc::new(Identity {
            name: name.to_owned(),
            region: region.to_owned(),
            counts: Counts::default(),
        });
        let (orders, incoming) = mpsc::channel(1);
        let mut task = JoinSet::new();
        let acceptor = Acceptor {
            address,
            listener: Some(listener),
            mode: watch::Sender::new(Mode::Serve),
            identity: identity.clone(),
            connections: JoinSet::new(),
        };
        task.spawn(acceptor.run(incoming));
        Ok(Self {
            address,
            identity,
            orders,
            _task: task,
        })
    }

    /// Listens on any free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start_anywhere(name: &str, region: &str) -> io::Result<Self> {
        Self::start(name, region, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    #[must_use]
    pub fn region(&self) -> &str {
        &self.identity.region
    }

    /// Resolves when the mode is in force: after `Refuse` nothing listens any more.
    ///
    /// # Errors
    /// Listening again failed: somebody took the address meanwhile.
    pub async fn set_mode(&self, mode: Mode) -> io::Result<()> {
        let (done, told) = oneshot::channel();
        let gone = || io::Error::other("the endpoint's runtime is gone");
        self.orders.send((mode, done)).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.identity.counts.connections.load(Ordering::Relaxed)
    }

    /// Requests read so far, probes of `/health` not counted.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.identity.counts.requests.load(Ordering::Relaxed)
    }

    /// Requests for `/health` read so far.
    #[must_use]
    pub fn probes(&self) -> u64 {
        self.identity.counts.probes.load(Ordering::Relaxed)
    }
}

struct Acceptor {
    address: SocketAddr,
    listener: Option<TcpListener>,
    mode: watch::Sender<Mode>,
    identity: Arc<Identity>,
    connections: JoinSet<()>,
}

impl Acceptor {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some((mode, done)) = order else { return };
                    // Whoever gave the order may have stopped waiting.
                    let _ = done.send(self.obey(mode).await);
                }
                stream = accept(self.listener.as_ref()) => self.serve(stream),
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    async fn obey(&mut self, mode: Mode) -> io::Result<()> {
        self.mode.send_replace(mode);
        if mode == Mode::Refuse {
            self.listener = None;
            self.connections.shutdown().await;
        } else if self.listener.is_none() {
            self.listener = Some(TcpListener::bind(self.address).await?);
        }
        Ok(())
    }

    fn serve(&mut self, stream: TcpStream) {
        self.identity
            .counts
            .connections
            .fetch_add(1, Ordering::Relaxed);
        if self.connections.len() >= CONNECTIONS_MAX {
            return;
        }
        let connection = Connection {
            stream: BufReader::new(stream),
            mode: self.mode.subscribe(),
            identity: self.identity.clone(),
        };
        self.connections.spawn(async move {
            // What a client does wrong shows on the client's side.
            let _ = connection.run().await;
        });
    }
}

/// Never resolves without a listener. Accept errors (out of descriptors) are retried.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

struct Connection {
    stream: BufReader<TcpStream>,
    mode: watch::Receiver<Mode>,
    identity: Arc<Identity>,
}

/// Whether the connection takes another request.
#[derive(PartialEq, Eq)]
enum Then {
    Continue,
    Close,
}

impl Connection {
    async fn run(mut self) -> io::Result<()> {
        self.stream.get_ref().set_nodelay(true)?;
        while let Some(head) = Head::read(&mut self.stream).await? {
            self.count(&head);
            let mode = *self.mode.borrow();
            let then = match mode {
                Mode::BlackHole => return self.swallow().await,
                Mode::Refuse | Mode::CloseBeforeAnswer => return Ok(()),
                Mode::CloseMidBody => return self.half_an_answer().await,
                Mode::Slow(by) => {
                    tokio::time::sleep(by).await;
                    self.answer(&head).await?
                }
                Mode::Status(code) => self.with_status(&head, code).await?,
                Mode::Serve => self.answer(&head).await?,
            };
            if then == Then::Close || head.lists("connection", "close") {
                return self.stream.get_mut().shutdown().await;
            }
        }
        Ok(())
    }

    fn count(&self, head: &Head) {
        let counts = &self.identity.counts;
        let counter = match path(head) {
            "/health" => &counts.probes,
            _ => &counts.requests,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    async fn answer(&mut self, head: &Head) -> io::Result<Then> {
        let (first, rest) = split_path(path(head));
        let number = rest.parse::<u64>().ok();
        match (first, number) {
            ("health", _) => self.plain(head, 200, "ok\n").await,
            ("headers", _) => {
                let text = String::from_utf8_lossy(&head.raw).into_owned();
                self.plain(head, 200, &text).await
            }
            ("bytes", Some(bytes)) => self.bytes(head, bytes).await,
            ("chunked", Some(bytes)) => self.chunked(head, bytes).await,
            ("status", Some(code @ 200..=599)) => self.with_status(head, code as u16).await,
            ("slow", Some(millis)) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                self.introduce(head).await
            }
            ("upload", _) => self.upload(head).await,
            ("echo", _) => self.echo(head).await,
            ("early", _) => self.early().await,
            ("ws", _) if head.lists("upgrade", "websocket") => self.websocket(head).await,
            _ => self.introduce(head).await,
        }
    }

    /// Who am I, and what was asked.
    async fn introduce(&mut self, head: &Head) -> io::Result<Then> {
        let json = format!(
            "{{\"endpoint\":{},\"region\":{},\"method\":{},\"path\":{}}}\n",
            json_string(&self.identity.name),
            json_string(&self.identity.region),
            json_string(head.method()),
            json_string(head.target()),
        );
        self.skip_body(head).await?;
        self.whole(head, 200, "application/json", json.as_bytes())
            .await
    }

    async fn with_status(&mut self, head: &Head, code: u16) -> io::Result<Then> {
        self.plain(head, code, &format!("status {code}\n")).await
    }

    async fn plain(&mut self, head: &Head, code: u16, text: &str) -> io::Result<Then> {
        self.skip_body(head).await?;
        self.whole(head, code, "text/plain", text.as_bytes()).await
    }

    async fn whole(&mut self, head: &Head, code: u16, kind: &str, body: &[u8]) -> io::Result<Then> {
        let mut message = self.begin(code, kind);
        if !matches!(code, 204 | 304) {
            message.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        message.push_str("\r\n");
        let mut message = message.into_bytes();
        if head.method() != "HEAD" && !matches!(code, 204 | 304) {
            message.extend_from_slice(body);
        }
        self.stream.write_all(&message).await?;
        Ok(Then::Continue)
    }

    fn begin(&self, code: u16, kind: &str) -> String {
        format!(
            "HTTP/1.1 {code} {}\r\nx-endpoint: {}\r\nx-region: {}\r\ncontent-type: {kind}\r\n",
            reason_phrase(code),
            self.identity.name,
            self.identity.region
        )
    }

    async fn bytes(&mut self, head: &Head, total: u64) -> io::Result<Then> {
        self.skip_body(head).await?;
        let mut message = self.begin(200, "application/octet-stream");
        message.push_str(&format!("content-length: {total}\r\n\r\n"));
        self.stream.write_all(message.as_bytes()).await?;
        if head.method() == "HEAD" {
            return Ok(Then::Continue);
        }
        for length in pieces(total) {
            self.stream.write_all(&PATTERN[..length]).await?;
        }
        Ok(Then::Continue)
    }

    async fn chunked(&mut self, head: &Head, total: u64) -> io::Result<Then> {
        self.skip_body(head).await?;
        let mut message = self.begin(200, "application/octet-stream");
        message.push_str("transfer-encoding: chunked\r\ntrailer: x-bytes\r\n\r\n");
        self.stream.write_all(message.as_bytes()).await?;
        if head.method() == "HEAD" {
            return Ok(Then::Continue);
        }
        for length in pieces(total) {
            self.chunk(&PATTERN[..length]).await?;
        }
        let end = format!("0\r\nx-bytes: {total}\r\n\r\n");
        self.stream.write_all(end.as_bytes()).await?;
        Ok(Then::Continue)
    }

    async fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.stream.write_all(&chunk).await
    }

    async fn upload(&mut self, head: &Head) -> io::Result<Then> {
        let mut body = self.expected_body(head).await?;
        let mut hash = Sha256::new();
        let mut bytes = 0;
        while let Some(piece) = body.next(&mut self.stream).await? {
            bytes += piece.len();
            hash.update(&piece);
        }
        let hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        let json = format!("{{\"bytes\":{bytes},\"sha256\":\"{hex}\"}}\n");
        self.whole(head, 200, "application/json", json.as_bytes())
            .await
    }

    async fn echo(&mut self, head: &Head) -> io::Result<Then> {
        let mut body = self.expected_body(head).await?;
        let mut message = self.begin(200, "application/octet-stream");
        message.push_str("transfer-encoding: chunked\r\n\r\n");
        self.stream.write_all(message.as_bytes()).await?;
        while let Some(piece) = body.next(&mut self.stream).await? {
            self.chunk(&piece).await?;
        }
        let mut end = String::from("0\r\n");
        for (name, value) in &body.trailers {
            end.push_str(&format!("{name}: {value}\r\n"));
        }
        end.push_str("\r\n");
        self.stream.write_all(end.as_bytes()).await?;
        Ok(Then::Continue)
    }

    async fn early(&mut self) -> io::Result<Then> {
        let mut message = self.begin(413, "text/plain");
        message.push_str("connection: close\r\ncontent-length: 0\r\n\r\n");
        self.stream.write_all(message.as_bytes()).await?;
        self.stream.get_mut().shutdown().await?;
        // Read on for a moment, so that closing does not reset what was just sent (RFC 9112 §9.6).
        let _ = tokio::time::timeout(Duration::from_secs(1), self.swallow()).await;
        Ok(Then::Close)
    }

    async fn websocket(&mut self, head: &Head) -> io::Result<Then> {
        let accept = websocket::accept_of(head.field("sec-websocket-key").unwrap_or_default());
        let message = format!(
            "HTTP/1.1 101 Switching Protocols\r\nx-endpoint: {}\r\nx-region: {}\r\n\
             connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n",
            self.identity.name, self.identity.region
        );
        self.stream.write_all(message.as_bytes()).await?;
        websocket::echo(&mut self.stream).await?;
        Ok(Then::Close)
    }

    async fn half_an_answer(&mut self) -> io::Result<()> {
        let mut message = self.begin(200, "application/octet-stream");
        message.push_str("content-length: 1000\r\n\r\nonly a part of the body");
        self.stream.write_all(message.as_bytes()).await?;
        self.stream.flush().await
    }

    /// Reads, and says nothing, until the other side closes.
    async fn swallow(&mut self) -> io::Result<()> {
        let mut bin = vec![0; 16 * 1024];
        while self.stream.read(&mut bin).await? > 0 {}
        Ok(())
    }

    async fn skip_body(&mut self, head: &Head) -> io::Result<()> {
        let mut body = self.expected_body(head).await?;
        while body.next(&mut self.stream).await?.is_some() {}
        Ok(())
    }

    async fn expected_body(&mut self, head: &Head) -> io::Result<Body> {
        if head.lists("expect", "100-continue") {
            self.stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await?;
        }
        Ok(Body::new(Framing::of_request(head)?))
    }
}

/// What `/bytes` and `/chunked` repeat: 64 KiB, so that a body hashes the same on both sides.
static PATTERN: [u8; 65_536] = {
    let mut pattern = [0; 65_536];
    let mut i = 0;
    while i < pattern.len() {
        pattern[i] = (i % 251) as u8;
        i += 1;
    }
    pattern
};

fn pieces(total: u64) -> impl Iterator<Item = usize> {
    let piece = PATTERN.len() as u64;
    let last = usize::try_from(total % piece).expect("less than a piece");
    let whole = (0..total / piece).map(|_| PATTERN.len());
    whole.chain((last > 0).then_some(last))
}

fn path(head: &Head) -> &str {
    let target = head.target();
    target.split('?').next().unwrap_or(target)
}

/// `/bytes/10` → (`bytes`, `10`).
fn split_path(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split_once('/').unwrap_or((path, ""))
}

const fn reason_phrase(code: u16) -> &'static str {
    match code {
        200 => "OK",
        204 => "No Content",
        404 => "Not Found",
        413 => "Content Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Scripted",
    }
}

fn json_string(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c.is_control() => json.push_str(&format!("\\u{:04x}", c as u32)),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}
