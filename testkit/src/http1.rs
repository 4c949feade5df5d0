//! Just enough HTTP/1.1 for scripted endpoints and test clients: heads, body framing, trailers.
//!
//! Lenient where leniency does not hide a fault (RFC 9112); heads and lines are bounded, bodies
//! are handed out piece by piece. Never used by what ships.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt};

/// The longest head that is read. A longer one is an error.
pub const HEAD_BYTES_MAX: usize = 256 * 1024;
/// The most that one piece of a body holds.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// The first line and the fields of a message, as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// `GET / HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub start: String,
    pub fields: Vec<(String, String)>,
    /// All of it, with line ends, up to and with the empty line.
    pub raw: Vec<u8>,
}

impl Head {
    /// `None` when the other side closed before the first byte.
    ///
    /// # Errors
    /// Reading failed, the head ended early, or it is longer than [`HEAD_BYTES_MAX`].
    pub async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let mut head = Self::default();
        loop {
            let line = read_line(from, HEAD_BYTES_MAX - head.raw.len()).await?;
            if line.is_empty() && head.raw.is_empty() {
                return Ok(None);
            }
            if !line.ends_with(b"\n") {
                return Err(early_end("within a head"));
            }
            head.raw.extend_from_slice(&line);
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\r', '\n']);
            if text.is_empty() {
                return Ok(Some(head));
            }
            match text.split_once(':') {
                _ if head.start.is_empty() => text.clone_into(&mut head.start),
                Some((name, value)) => head.fields.push((name.into(), value.trim().into())),
                None => return Err(unlawful("a field without a colon")),
            }
        }
    }

    /// The first field of that name, in any case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let same = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields.iter().find(same).map(|(_, value)| &**value)
    }

    /// Does a field of that name list this word (`Connection: keep-alive, upgrade`)?
    #[must_use]
    pub fn lists(&self, name: &str, word: &str) -> bool {
        let values = self
            .fields
            .iter()
            .filter(|f| f.0.eq_ignore_ascii_case(name));
        let mut words = values.flat_map(|(_, value)| value.split(','));
        words.any(|listed| listed.trim().eq_ignore_ascii_case(word))
    }

    /// The status of an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.start.split(' ').nth(1)?.parse().ok()
    }

    /// The method of a request.
    #[must_use]
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The target of a request.
    #[must_use]
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }
}

/// How the end of a body is known (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

impl Framing {
    /// # Errors
    /// A Content-Length that is no number.
    pub fn of_request(head: &Head) -> io::Result<Self> {
        Ok(Self::declared(head)?.unwrap_or(Self::Length(0)))
    }

    /// `method` is the request's.
    ///
    /// # Errors
    /// A Content-Length that is no number.
    pub fn of_answer(head: &Head, method: &str) -> io::Result<Self> {
        let bodiless = matches!(head.status(), Some(100..=199 | 204 | 304));
        if method == "HEAD" || bodiless {
            return Ok(Self::Length(0));
        }
        Ok(Self::declared(head)?.unwrap_or(Self::UntilClose))
    }

    fn declared(head: &Head) -> io::Result<Option<Self>> {
        if head.lists("transfer-encoding", "chunked") {
            return Ok(Some(Self::Chunked));
        }
        let Some(length) = head.field("content-length") else {
            return Ok(None);
        };
        let length = length.parse().map_err(|_| unlawful("Content-Length"))?;
        Ok(Some(Self::Length(length)))
    }
}

/// Reads one body, piece by piece.
#[derive(Debug)]
pub struct Body {
    framing: Framing,
    /// Of the body, or of the chunk at hand.
    left: u64,
    ended: bool,
    /// Known once the body ended.
    pub trailers: Vec<(String, String)>,
}

impl Body {
    #[must_use]
    pub const fn new(framing: Framing) -> Self {
        let (left, ended) = match framing {
            Framing::Length(length) => (length, length == 0),
            Framing::Chunked | Framing::UntilClose => (0, false),
        };
        Self {
            framing,
            left,
            ended,
            trailers: Vec::new(),
        }
    }

    /// The next bytes, never empty; `None` at the end.
    ///
    /// # Errors
    /// Reading failed, the body ended early, or its chunks are unlawful.
    pub async fn next(
        &mut self,
        from: &mut (impl AsyncBufRead + Unpin),
    ) -> io::Result<Option<Vec<u8>>> {
        if self.ended {
            return Ok(None);
        }
        if self.framing == Framing::Chunked && self.left == 0 {
            self.left = chunk_size(from).await?;
            if self.left == 0 {
                self.trailers = trailers(from).await?;
                self.ended = true;
                return Ok(None);
            }
        }
        let most = match self.framing {
            Framing::UntilClose => PIECE_BYTES_MAX,
            Framing::Length(_) | Framing::Chunked => {
                usize::try_from(self.left).map_or(PIECE_BYTES_MAX, |left| left.min(PIECE_BYTES_MAX))
            }
        };
        let piece = read_some(from, most).await?;
        if piece.is_empty() && self.framing == Framing::UntilClose {
            self.ended = true;
            return Ok(None);
        }
        if piece.is_empty() {
            return Err(early_end("within a body"));
        }
        self.consumed(piece.len());
        if self.framing == Framing::Chunked && self.left == 0 {
            read_line(from, 2).await?;
        }
        Ok(Some(piece))
    }

    fn consumed(&mut self, bytes: usize) {
        if self.framing == Framing::UntilClose {
            return;
        }
        self.left -= bytes as u64;
        self.ended = self.left == 0 && matches!(self.framing, Framing::Length(_));
    }
}

async fn chunk_size(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<u64> {
    let line = read_line(from, 4_096).await?;
    let text = String::from_utf8_lossy(&line);
    let digits = text.split(';').next().unwrap_or_default().trim();
    u64::from_str_radix(digits, 16).map_err(|_| unlawful("a chunk's size"))
}

async fn trailers(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Vec<(String, String)>> {
    let mut trailers = Vec::new();
    loop {
        let line = read_line(from, HEAD_BYTES_MAX).await?;
        let text = String::from_utf8_lossy(&line);
        match text.trim_end().split_once(':') {
            Some((name, value)) if trailers.len() < 1_000 => {
                trailers.push((name.into(), value.trim().into()));
            }
            _ if text.trim_end().is_empty() && !line.is_empty() => return Ok(trailers),
            _ => return Err(unlawful("trailers")),
        }
    }
}

/// Up to and with the next line feed; shorter only at the end of the stream.
async fn read_line(from: &mut (impl AsyncBufRead + Unpin), most: usize) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let most = most as u64;
    (&mut *from).take(most).read_until(b'\n', &mut line).await?;
    if line.len() as u64 == most && !line.ends_with(b"\n") {
        return Err(unlawful("a head or line that is too long"));
    }
    Ok(line)
}

async fn read_some(from: &mut (impl AsyncRead + Unpin), most: usize) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; most];
    let length = from.read(&mut piece).await?;
    piece.truncate(length);
    Ok(piece)
}

fn early_end(place: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed {place}"))
}

pub(crate) fn unlawful(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not lawful HTTP: {what}"),
    )
}
