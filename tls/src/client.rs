//! How we connect to endpoints: whom we believe, what we show, what is spoken.
//!
//! The server's name is always verified; there is no way to switch that off. An endpoint with a
//! certificate of no authority is believed by naming its certificate as `roots`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use sealane_model::{EndpointProtocol, EndpointTls, Roots};

use crate::pem::{TlsError, authorities, certified, setup};
use crate::{provider, versions};

/// Configurations kept, one for each identity and protocol. When full, all are forgotten and
/// made again as needed: the number of identities is the operator's choice, not a stranger's.
const KNOWN_MAX: usize = 1_024;

type Identity = (EndpointTls, EndpointProtocol);

/// One configuration for each identity, so that sessions resume. Shared by all threads of a room.
#[derive(Debug, Default)]
pub struct Connectors {
    // A lock: taken when a connection is opened, never on one that is open.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    configs: HashMap<Identity, Arc<ClientConfig>>,
    system: Option<Arc<RootCertStore>>,
}

impl Connectors {
    /// # Errors
    /// Authorities or a certificate of our own that cannot be used, in words.
    pub fn config(
        &self,
        tls: &EndpointTls,
        protocol: EndpointProtocol,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let mut known = self.known();
        let identity = (tls.clone(), protocol);
        if let Some(config) = known.configs.get(&identity) {
            return Ok(Arc::clone(config));
        }
        let roots = match &tls.roots {
            Roots::System => known.system_roots()?,
            Roots::Pem(pem) => authorities(pem)?,
        };
        let config = Arc::new(configure(tls, roots, protocol)?);
        if known.configs.len() >= KNOWN_MAX {
            tracing::warn!(max = KNOWN_MAX, "too many TLS identities: starting over");
            known.configs.clear();
        }
        known.configs.insert(identity, Arc::clone(&config));
        Ok(config)
    }

    /// Forgets identities that are not `wanted` any more: their keys were replaced or removed.
    pub fn retain(&self, wanted: impl Fn(&EndpointTls) -> bool) {
        let mut known = self.known();
        known.configs.retain(|(tls, _), _| wanted(tls));
    }

    /// Forgets everything, the host's authorities included: they may have changed on disk.
    pub fn clear(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn system_roots(&mut self) -> Result<Arc<RootCertStore>, TlsError> {
        if let Some(roots) = &self.system {
            return Ok(Arc::clone(roots));
        }
        let mut store = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!("the system's authorities: {error}");
        }
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            let reason = "the system has none".to_owned();
            return Err(TlsError::Authorities(reason));
        }
        Ok(Arc::clone(self.system.insert(Arc::new(store))))
    }
}

fn configure(
    tls: &EndpointTls,
    roots: Arc<RootCertStore>,
    protocol: EndpointProtocol,
) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(tls.minimum))
        .map_err(setup)?
        .with_root_certificates(roots);
    let mut config = match &tls.certificate {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let own = certified(0, pem, &provider)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
        }
    };
    config.alpn_protocols = vec![match protocol {
        EndpointProtocol::Http1 => b"http/1.1".to_vec(),
        EndpointProtocol::Http2 => b"h2".to_vec(),
    }];
    Ok(config)
}
