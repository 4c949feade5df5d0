//! Extended CONNECT (RFC 8441) by a plain HTTP/2 client, and its stream as bytes both ways.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::ext::Protocol;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::edge::{Http2, PATIENCE};

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// A stream's body, both ways, as bytes.
pub(crate) struct StreamIo {
    send: h2::SendStream<Bytes>,
    body: h2::RecvStream,
    read: BytesMut,
}

impl AsyncRead for StreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            match ready!(self.body.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(piece) => {
                    let piece = piece.map_err(io::Error::other)?;
                    let length = piece.len();
                    self.body.flow_control().release_capacity(length).unwrap();
                    self.read.extend_from_slice(&piece);
                }
            }
        }
        let taken = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..taken]);
        self.read.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(data.len());
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let taken = data.len().min(self.send.capacity());
        let piece = Bytes::copy_from_slice(&data[..taken]);
        self.send
            .send_data(piece, false)
            .map_err(io::Error::other)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.send.send_data(Bytes::new(), true);
        Poll::Ready(ended.map_err(io::Error::other))
    }
}

async fn announced(client: &Http2) -> h2::client::SendRequest<Bytes> {
    let requests = client.requests.clone().ready().await.unwrap();
    within(async {
        while !requests.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    requests
}

/// The answer's head, and the tunnel if there is one.
pub(crate) async fn connect(
    client: &Http2,
    path: &str,
    protocol: &'static str,
    fields: &[(&str, &str)],
) -> (http::response::Parts, StreamIo) {
    let mut requests = announced(client).await;
    let mut request = http::Request::builder()
        .method("CONNECT")
        .uri(format!("http://x.test{path}"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    for (name, value) in fields {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let protocol = Protocol::from_static(protocol);
    request.extensions_mut().insert(protocol);
    let (answer, send) = requests.send_request(request, false).unwrap();
    let (head, body) = within(answer).await.unwrap().into_parts();
    let io = StreamIo {
        send,
        body,
        read: BytesMut::new(),
    };
    (head, io)
}
