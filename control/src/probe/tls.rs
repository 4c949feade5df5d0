//! The client side of TLS for probes: whom to trust, and what to speak.
//!
//! The server's name is always verified. Configurations are built once for each way in which
//! endpoints prove who they are, and kept until the configuration file changes.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use sealane_model::{EndpointProtocol, EndpointTls, Failure, Roots};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// One entry for each distinct `(EndpointTls, EndpointProtocol)` of the configuration file.
#[derive(Debug, Default)]
pub(crate) struct TlsCache {
    configs: HashMap<(EndpointTls, EndpointProtocol), Arc<ClientConfig>>,
    system: Option<Arc<RootCertStore>>,
}

impl TlsCache {
    /// Forgets everything: certificates may have been replaced on disk.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// # Errors
    /// No usable root certificate, in words.
    pub(crate) fn config(
        &mut self,
        tls: &EndpointTls,
        protocol: EndpointProtocol,
    ) -> Result<Arc<ClientConfig>, String> {
        let key = (tls.clone(), protocol);
        if let Some(config) = self.configs.get(&key) {
            return Ok(config.clone());
        }
        let roots = match &tls.roots {
            Roots::System => self.system_roots()?,
            Roots::Pem(pem) => Arc::new(pem_roots(pem)?),
        };
        let config = Arc::new(client_config(roots, protocol)?);
        self.configs.insert(key, config.clone());
        Ok(config)
    }

    fn system_roots(&mut self) -> Result<Arc<RootCertStore>, String> {
        if let Some(roots) = &self.system {
            return Ok(roots.clone());
        }
        let mut store = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            return Err("the system has no root certificates".to_owned());
        }
        Ok(self.system.insert(Arc::new(store)).clone())
    }
}

fn pem_roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("not PEM: {error:?}"))?;
        store.add(certificate).map_err(|error| error.to_string())?;
    }
    if store.is_empty() {
        return Err("the operator's file has no certificate".to_owned());
    }
    Ok(store)
}

fn client_config(
    roots: Arc<RootCertStore>,
    protocol: EndpointProtocol,
) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![match protocol {
        EndpointProtocol::Http1 => b"http/1.1".to_vec(),
        EndpointProtocol::Http2 => b"h2".to_vec(),
    }];
    Ok(config)
}

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
