//! The client side of TLS for probes: the same identity as traffic's, shown and asked for.
//!
//! The server's name is always verified.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sealane_model::Failure;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) async fn handshake(
    config: Arc<ClientConfig>,
    server_name: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Failure> {
    let name = ServerName::try_from(server_name.to_owned())
        .map_err(|_| Failure::Tls(format!("`{server_name}` is no server name")))?;
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|error| why(&error))
}

/// A handshake that was cut off is not the same as one that was answered wrongly.
fn why(error: &std::io::Error) -> Failure {
    let by_tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match by_tls {
        Some(tls) => Failure::Tls(tls.to_string()),
        None => super::connect::why(error),
    }
}
