//! BORDER. What Pingora's HTTP/1 codecs ask of a transport, answered for [`Conn`].
//!
//! Nothing here is asked for anything that matters to us: digests are Pingora's own statistics.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};

use send_wrapper::SendWrapper;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::io::Conn;

/// Pingora wants to be able to send it to other threads, which nobody does: that would panic.
#[derive(Debug)]
pub(crate) struct PingoraConn(SendWrapper<Conn>);

impl PingoraConn {
    pub(crate) fn new(conn: Conn) -> Self {
        Self(SendWrapper::new(conn))
    }

    fn conn(self: Pin<&mut Self>) -> Pin<&mut Conn> {
        Pin::new(&mut *self.get_mut().0)
    }
}

impl AsyncRead for PingoraConn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.conn().poll_read(cx, buf)
    }
}

impl AsyncWrite for PingoraConn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.conn().poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn().poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for PingoraConn {
    async fn shutdown(&mut self) {
        use tokio::io::AsyncWriteExt;
        // The connection is given up: what goes wrong while saying so changes nothing.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for PingoraConn {
    fn id(&self) -> UniqueIDType {
        0
    }
}

impl Ssl for PingoraConn {}

impl GetTimingDigest for PingoraConn {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for PingoraConn {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for PingoraConn {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

#[async_trait]
impl Peek for PingoraConn {}
