//! A plain HTTP/1.1 client on one connection, which sends what it is told, lawful or not.
//!
//! Each call ends within the client's time-out. Keeps no pool, follows nothing, repeats nothing;
//! see [`crate::load`] for many requests at a fixed rate.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http1::{Body, Framing, Head, unlawful};
use crate::websocket;

/// How long one call may take, unless [`HttpClient::within`] says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// A longer body is an error, except where it is streamed ([`HttpClient::download`]).
pub const BODY_BYTES_MAX: usize = 64 << 20;

#[derive(Debug)]
pub struct HttpClient<S = TcpStream> {
    stream: BufReader<S>,
    limit: Duration,
}

/// A request to send. `Host` is added when no field of that name is given.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: RequestBody,
}

#[derive(Clone, Debug)]
enum RequestBody {
    None,
    Whole(Vec<u8>),
    Chunked(Vec<Vec<u8>>),
}

impl Request {
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            fields: Vec::new(),
            body: RequestBody::None,
        }
    }

    #[must_use]
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// With a Content-Length.
    #[must_use]
    pub fn post(target: &str, body: &[u8]) -> Self {
        let mut request = Self::new("POST", target);
        request.body = RequestBody::Whole(body.to_vec());
        request
    }

    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The body goes in these chunks.
    #[must_use]
    pub fn chunks(mut self, chunks: &[&[u8]]) -> Self {
        self.body = RequestBody::Chunked(chunks.iter().map(|chunk| chunk.to_vec()).collect());
        self
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.fields.iter().any(|f| f.0.eq_ignore_ascii_case("host")) {
            head.push_str("host: api.example.test\r\n");
        }
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match &self.body {
            RequestBody::None => [head.as_bytes(), b"\r\n"].concat(),
            RequestBody::Whole(body) => {
                let length = format!("content-length: {}\r\n\r\n", body.len());
                [head.as_bytes(), length.as_bytes(), body].concat()
            }
            RequestBody::Chunked(chunks) => {
                head.push_str("transfer-encoding: chunked\r\n\r\n");
                let mut bytes = head.into_bytes();
                for chunk in chunks {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
                bytes
            }
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Answer {
    /// 0 when the first line has none.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status().unwrap_or(0)
    }

    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// May another request follow on the connection?
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        let told_its_end = self.head.field("content-length").is_some()
            || self.head.lists("transfer-encoding", "chunked")
            || matches!(self.status(), 204 | 304);
        told_its_end && !self.head.lists("connection", "close")
    }
}

/// A body that was streamed and not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streamed {
    pub head: Head,
    pub bytes: u64,
    pub sha256: [u8; 32],
    pub trailers: Vec<(String, String)>,
}

impl HttpClient<TcpStream> {
    /// # Errors
    /// Refused, or not connected within [`TIMEOUT_DEFAULT`].
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = in_time(TIMEOUT_DEFAULT, TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// Whether the other side has neither closed nor sent anything since the last answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let mut byte = [0];
        let read = self.stream.get_ref().try_read(&mut byte);
        let nothing_yet = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.stream.buffer().is_empty() && read.as_ref().is_err_and(nothing_yet)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> HttpClient<S> {
    /// On a connection that stands already (TLS, PROXY protocol, …).
    pub fn over(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
            limit: TIMEOUT_DEFAULT,
        }
    }

    /// Each further call ends within this time.
    #[must_use]
    pub const fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// # Errors
    /// No whole answer came, or not in time.
    pub async fn get(&mut self, target: &str) -> io::Result<Answer> {
        self.request(&Request::get(target)).await
    }

    /// # Errors
    /// No whole answer came, or not in time.
    pub async fn request(&mut self, request: &Request) -> io::Result<Answer> {
        let limit = self.limit;
        in_time(limit, async {
            // An early answer may come although the request could not be written to its end.
            let sent = self.stream.write_all(&request.bytes()).await;
            self.answer_to(&request.method)
                .await
                .map_err(|error| sent.err().unwrap_or(error))
        })
        .await
    }

    /// Sends these bytes, whatever they are: a part of a head, several requests at once.
    ///
    /// # Errors
    /// The other side closed.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        in_time(self.limit, self.stream.write_all(bytes)).await
    }

    /// The next answer. `method` is that of the request it answers.
    ///
    /// # Errors
    /// No whole answer came, or not in time.
    pub async fn read_answer(&mut self, method: &str) -> io::Result<Answer> {
        in_time(self.limit, self.answer_to(method)).await
    }

    /// The head of the next answer. Interim ones (1xx but 101) are skipped.
    ///
    /// # Errors
    /// No whole head came, or not in time.
    pub async fn read_head(&mut self) -> io::Result<Head> {
        in_time(self.limit, self.final_head()).await
    }

    async fn answer_to(&mut self, method: &str) -> io::Result<Answer> {
        let head = self.final_head().await?;
        let mut body = Body::new(Framing::of_answer(&head, method)?);
        let mut bytes = Vec::new();
        while let Some(piece) = body.next(&mut self.stream).await? {
            if bytes.len() + piece.len() > BODY_BYTES_MAX {
                return Err(unlawful("a body that is too long to keep"));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Answer {
            head,
            body: bytes,
            trailers: body.trailers,
        })
    }

    async fn final_head(&mut self) -> io::Result<Head> {
        loop {
            let head = Head::read(&mut self.stream).await?;
            let head = head.ok_or_else(closed_before_answer)?;
            if !matches!(head.status(), Some(100 | 102..=199)) {
                return Ok(head);
            }
        }
    }

    /// GETs a body of any length without keeping it. The time-out holds for each piece.
    ///
    /// # Errors
    /// The body did not come whole, or a piece not in time.
    pub async fn download(&mut self, target: &str) -> io::Result<Streamed> {
        self.send_raw(&Request::get(target).bytes()).await?;
        let head = self.read_head().await?;
        let mut body = Body::new(Framing::of_answer(&head, "GET")?);
        let mut hash = Sha256::new();
        let mut bytes = 0;
        while let Some(piece) = in_time(self.limit, body.next(&mut self.stream)).await? {
            bytes += piece.len() as u64;
            hash.update(&piece);
        }
        Ok(Streamed {
            head,
            bytes,
            sha256: hash.finalize().into(),
            trailers: body.trailers,
        })
    }

    /// POSTs `total` bytes (zeros) with a Content-Length without keeping them. The time-out holds
    /// for each piece, and for the answer.
    ///
    /// # Errors
    /// The answer did not come whole, or something not in time.
    pub async fn upload(&mut self, target: &str, total: u64) -> io::Result<Answer> {
        static PIECE: [u8; 65_536] = [0; 65_536];
        let length = total.to_string();
        let request = Request::new("POST", target).field("content-length", &length);
        self.send_raw(&request.bytes()).await?;
        let mut left = total;
        while left > 0 {
            let piece = usize::try_from(left).map_or(PIECE.len(), |left| left.min(PIECE.len()));
            if self.send_raw(&PIECE[..piece]).await.is_err() {
                // Perhaps there is an early answer that says why.
                break;
            }
            left -= piece as u64;
        }
        self.read_answer("POST").await
    }

    /// All that still comes, until the other side closes.
    ///
    /// # Errors
    /// More than [`BODY_BYTES_MAX`] came, or the other side did not close in time.
    pub async fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let most = BODY_BYTES_MAX as u64;
        in_time(
            self.limit,
            (&mut self.stream).take(most).read_to_end(&mut bytes),
        )
        .await?;
        Ok(bytes)
    }

    /// Says that nothing more will be sent, and reads on.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn half_close(&mut self) -> io::Result<()> {
        self.stream.get_mut().shutdown().await
    }

    /// Opens a WebSocket; speak through [`HttpClient::into_stream`] and [`crate::websocket`].
    ///
    /// # Errors
    /// The answer was not 101, or its key was not the right one.
    pub async fn upgrade_to_websocket(&mut self, target: &str) -> io::Result<Head> {
        let request = Request::get(target)
            .field("connection", "Upgrade")
            .field("upgrade", "websocket")
            .field("sec-websocket-version", "13")
            .field("sec-websocket-key", websocket::CLIENT_KEY);
        self.send_raw(&request.bytes()).await?;
        let head = self.read_head().await?;
        let accepted = head.field("sec-websocket-accept");
        if head.status() != Some(101)
            || accepted != Some(&websocket::accept_of(websocket::CLIENT_KEY))
        {
            return Err(unlawful(&format!("a WebSocket refused: {}", head.start)));
        }
        Ok(head)
    }

    /// The connection itself, with what was read ahead.
    pub fn into_stream(self) -> BufReader<S> {
        self.stream
    }
}

fn closed_before_answer() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "closed before an answer")
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "nothing in time");
    timeout(limit, work).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{Mode, ScriptedEndpoint};
    use crate::websocket::{Frame, Kind};

    async fn endpoint() -> ScriptedEndpoint {
        ScriptedEndpoint::start_anywhere("eu-1", "eu")
            .await
            .unwrap()
    }

    async fn client(endpoint: &ScriptedEndpoint) -> HttpClient {
        HttpClient::connect(endpoint.address()).await.unwrap()
    }

    #[tokio::test]
    async fn an_endpoint_introduces_itself_on_one_connection_as_often_as_asked() {
        let endpoint = endpoint().await;
        let mut client = client(&endpoint).await;

        for _ in 0..3 {
            let answer = client.get("/who?x=\"1\"").await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.field("x-region"), Some("eu"));
            assert_eq!(
                answer.text(),
                "{\"endpoint\":\"eu-1\",\"region\":\"eu\",\"method\":\"GET\",\"path\":\"/who?x=\\\"1\\\"\"}\n"
            );
        }
        let health = client.get("/health").await.unwrap();

        assert_eq!(health.text(), "ok\n");
        assert!(client.is_idle());
        let counted = (
            endpoint.connections(),
            endpoint.requests(),
            endpoint.probes(),
        );
        assert_eq!(counted, (1, 3, 1));
    }

    #[tokio::test]
    async fn bodies_go_both_ways_in_each_framing() {
        let endpoint = endpoint().await;
        let mut client = client(&endpoint).await;

        let plain = client.download("/bytes/200000").await.unwrap();
        let chunked = client.download("/chunked/200000").await.unwrap();
        let up = client.upload("/upload", 200_000).await.unwrap();
        let request = Request::new("POST", "/echo").chunks(&[b"one", b"two"]);
        let echo = client.request(&request).await.unwrap();

        assert_eq!((plain.bytes, plain.sha256), (chunked.bytes, chunked.sha256));
        assert_eq!(
            chunked.trailers,
            [("x-bytes".to_owned(), "200000".to_owned())]
        );
        assert!(
            up.text().starts_with("{\"bytes\":200000,\"sha256\":\""),
            "{}",
            up.text()
        );
        assert_eq!(echo.body, b"onetwo");
        assert!(client.is_idle());
    }

    #[tokio::test]
    async fn an_early_answer_is_seen_though_the_body_was_not_read() {
        let endpoint = endpoint().await;
        let answer = client(&endpoint)
            .await
            .upload("/early", 10 << 20)
            .await
            .unwrap();

        assert_eq!(answer.status(), 413);
    }

    #[tokio::test]
    async fn a_websocket_echoes() {
        let endpoint = endpoint().await;
        let mut client = client(&endpoint).await;
        client.upgrade_to_websocket("/ws").await.unwrap();
        let mut stream = client.into_stream();

        websocket::write(&mut stream, Kind::Text, b"hello", Some([9; 4]))
            .await
            .unwrap();
        let echoed = websocket::read(&mut stream).await.unwrap();

        let hello = Frame {
            kind: Kind::Text,
            payload: b"hello".to_vec(),
        };
        assert_eq!(echoed, hello);
    }

    #[tokio::test]
    async fn each_mode_misbehaves_in_its_own_way_and_serving_can_resume() {
        use io::ErrorKind::{TimedOut, UnexpectedEof};
        let endpoint = endpoint().await;
        let mut kept = client(&endpoint).await;
        kept.get("/").await.unwrap();

        endpoint.set_mode(Mode::BlackHole).await.unwrap();
        let mut patient = client(&endpoint).await.within(Duration::from_millis(50));
        assert_eq!(patient.get("/").await.unwrap_err().kind(), TimedOut);

        endpoint.set_mode(Mode::Status(503)).await.unwrap();
        assert_eq!(kept.get("/health").await.unwrap().status(), 503);

        endpoint
            .set_mode(Mode::Slow(Duration::from_millis(30)))
            .await
            .unwrap();
        assert_eq!(kept.get("/").await.unwrap().status(), 200);

        endpoint.set_mode(Mode::CloseMidBody).await.unwrap();
        let mut other = client(&endpoint).await;
        assert_eq!(other.get("/").await.unwrap_err().kind(), UnexpectedEof);

        endpoint.set_mode(Mode::CloseBeforeAnswer).await.unwrap();
        let mut other = client(&endpoint).await;
        assert_eq!(other.get("/").await.unwrap_err().kind(), UnexpectedEof);

        endpoint.set_mode(Mode::Refuse).await.unwrap();
        assert!(HttpClient::connect(endpoint.address()).await.is_err());
        assert!(kept.get("/").await.is_err());

        endpoint.set_mode(Mode::Serve).await.unwrap();
        assert_eq!(
            client(&endpoint).await.get("/").await.unwrap().status(),
            200
        );
    }

    #[tokio::test]
    async fn requests_sent_at_once_are_answered_in_order() {
        let endpoint = endpoint().await;
        let mut client = client(&endpoint).await;
        let two = [
            Request::get("/status/404").bytes(),
            Request::get("/").bytes(),
        ]
        .concat();

        client.send_raw(&two).await.unwrap();

        assert_eq!(client.read_answer("GET").await.unwrap().status(), 404);
        assert_eq!(client.read_answer("GET").await.unwrap().status(), 200);
    }
}
