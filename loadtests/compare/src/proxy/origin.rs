//! The origin behind the proxies: answers GETs of `/1k` and `/64k` over HTTP/1.1, and nothing else.
//! For load tests alone: it believes every request to be a lawful one.

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::accept;

/// Connections that are served at once; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 4_096;

pub(crate) fn serve(port: u16) -> Result<()> {
    accept::serve(port, CONNECTIONS_MAX, connection)
}

async fn connection(mut tcp: TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let (small, large) = (answer(1024), answer(64 * 1024));
    let mut arrived = Vec::with_capacity(4096);
    loop {
        while let Some(end) = find(&arrived, b"\r\n\r\n") {
            let is_large = arrived.starts_with(b"GET /64k");
            tcp.write_all(if is_large { &large } else { &small })
                .await?;
            arrived.drain(..end + 4);
        }
        if tcp.read_buf(&mut arrived).await? == 0 {
            return Ok(());
        }
    }
}

fn answer(length: usize) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + length, b'x');
    answer
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}
