//! The endpoint: answers `/1k` at once, sends `/big` for as long as somebody takes it, and takes
//! everything else without ever answering. For load tests alone: it believes every request.

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{accept, good};

/// Connections that are served at once; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 12_000;
const BIG_PART: [u8; 16 * 1024] = [b'x'; 16 * 1024];

pub(crate) fn serve(port: u16) -> Result<()> {
    accept::serve(port, CONNECTIONS_MAX, connection)
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
