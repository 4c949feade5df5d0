//! The endpoint: answers `/1k` at once, sends `/big` for as long as somebody takes it, and takes
//! everything else without ever answering. For load tests alone: it believes every request.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::good;

/// Connections that are served at once; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 12_000;
const BIG_PART: [u8; 16 * 1024] = [b'x'; 16 * 1024];

pub(crate) fn serve(port: u16) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("no runtime")?;
    runtime.block_on(accept(port))
}

async fn accept(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("cannot listen on port {port}"))?;
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let (tcp, _) = listener.accept().await.context("cannot accept")?;
        connections.spawn(async move {
            // The client left.
            let _ = connection(tcp).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(mut tcp: TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    // `/big` is not to fill the kernel's memory.
    socket2::SockRef::from(&tcp).set_send_buffer_size(64 * 1024)?;
    let body = good::body();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let small = [head.as_bytes(), &body].concat();
    let mut arrived = Vec::with_capacity(1024);
    loop {
        if tcp.read_buf(&mut arrived).await? == 0 {
            return Ok(());
        }
        let is_whole = arrived.windows(4).any(|four| four == b"\r\n\r\n");
        if !is_whole {
            continue;
        }
        if arrived.starts_with(b"GET /1k ") {
            tcp.write_all(&small).await?;
        } else if arrived.starts_with(b"GET /big ") {
            tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
                .await?;
            loop {
                tcp.write_all(&BIG_PART).await?;
            }
        } else {
            let mut nowhere = [0; 4_096];
            while tcp.read(&mut nowhere).await? > 0 {}
            return Ok(());
        }
        arrived.clear(); // one request at a time comes from a proxy
    }
}
