//! Accepts connections on loopback, a bounded number at a time, for the endpoints of load tests. Knows no
//! protocol; believes everybody.

use std::io;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Serves until it is ended from outside. `at_once`: connections; further ones wait in the kernel.
pub(crate) fn serve<F>(port: u16, at_once: usize, connection: fn(TcpStream) -> F) -> Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("no runtime")?;
    runtime.block_on(accept(port, at_once, connection))
}

async fn accept<F>(port: u16, at_once: usize, connection: fn(TcpStream) -> F) -> Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("cannot listen on port {port}"))?;
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= at_once {
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
