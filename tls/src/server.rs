//! The listeners' side of TLS: certificates chosen by server name, and what is asked of clients.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use sealane_model::{CertificatePem, TlsVersion};
use sha2::{Digest as _, Sha256};

use crate::identity::{Allow, ClientIdentity, Verifier};
use crate::issued::Place;
use crate::names::ByName;
use crate::pem::{TlsError, authorities, certified, revocations, setup};
use crate::{provider, tickets, versions};

/// What a TLS listener is told.
#[derive(Clone, Debug, Default)]
pub struct ServerRules {
    /// The first one serves clients that name no server, or one that nobody has. Of several for
    /// the same name the first one whose key the client can verify serves.
    pub certificates: Vec<CertificatePem>,
    /// Certificates that come later, or have come already. They serve before those from files, and
    /// while one is missing nobody but a file's certificate for the same name stands in for it.
    pub places: Vec<Arc<Place>>,
    pub minimum: TlsVersion,
    /// Of several for the same name the first one holds.
    pub client_auth: Vec<ClientAuth>,
}

/// What is asked of the clients of some server names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientAuth {
    /// Lower-case; `*.example.com` for every name below it. Empty: the names that no other rule
    /// has, and clients that name no server.
    pub names: Vec<Arc<str>>,
    pub mode: ClientAuthMode,
    /// PEM certificates of the authorities that are believed.
    pub authorities: Arc<[u8]>,
    /// PEM revocation lists of the authorities that issue clients' certificates. Where there are
    /// any, a client whose issuer has none, or only one that has ended, is refused.
    pub revocations: Option<Arc<[u8]>>,
    pub allow: Allow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAuthMode {
    /// No certificate, no handshake.
    Required,
    /// A client may show none. One that is shown must be good, and its bearer allowed.
    Optional,
}

/// What a TLS listener serves with. Clones share everything, session tickets' keys included.
#[derive(Clone)]
pub struct ServerTls {
    /// For names without a guard.
    open: Arc<ServerConfig>,
    guards: Arc<Guards>,
    certificates: Arc<Certificates>,
}

#[derive(Default)]
struct Guards {
    all: Vec<Guard>,
    /// Places in `all`.
    by_name: ByName<usize>,
    elsewhere: Option<usize>,
}

/// What holds for the names of one [`ClientAuth`].
struct Guard {
    seal: Seal,
    config: Arc<ServerConfig>,
}

/// What a client was asked for: equal where authorities, revocations, mode and allowed identities
/// are. A connection keeps it, so that a request for a name that asks for something else is found
/// out, also after a reload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seal([u8; 32]);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seal({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// How to go on with one handshake.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub config: Arc<ServerConfig>,
    /// `None`: clients of this name are asked for nothing.
    pub seal: Option<Seal>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("names", &self.certificates.by_name.len())
            .field("guards", &self.guards.all.len())
            .finish_non_exhaustive()
    }
}

impl ServerTls {
    /// TLS 1.2 and 1.3, and no question to clients: [`ServerTls::with_rules`] for the rest.
    ///
    /// # Errors
    /// [`TlsError`] when a part is not PEM, not usable, or a key belongs to another certificate.
    pub fn new(certificates: &[CertificatePem]) -> Result<Self, TlsError> {
        Self::with_rules(&ServerRules {
            certificates: certificates.to_vec(),
            ..ServerRules::default()
        })
    }

    /// The places for certificates that come while these rules hold.
    #[must_use]
    pub fn places(&self) -> &[Arc<Place>] {
        &self.certificates.places
    }

    /// `h2` and `http/1.1` by ALPN (RFC 7301); resumption by tickets only.
    ///
    /// # Errors
    /// [`TlsError`] when a part is not PEM, not usable, or a key belongs to another certificate.
    pub fn with_rules(rules: &ServerRules) -> Result<Self, TlsError> {
        let provider = provider();
        let certificates = Arc::new(Certificates::new(rules, &provider)?);
        let configure = |verifier| configure(rules.minimum, verifier, &certificates, &provider);
        let mut guards = Guards::default();
        for rule in &rules.client_auth {
            let config = configure(verifier(rule, &provider)?)?;
            guards.add(rule, config);
        }
        Ok(Self {
            open: configure(WebPkiClientVerifier::no_client_auth())?,
            guards: Arc::new(guards),
            certificates,
        })
    }

    /// `server_name`: as the client wrote it in its hello, in lower case.
    #[must_use]
    pub fn choose(&self, server_name: Option<&str>) -> Chosen {
        match self.guards.find(server_name.unwrap_or_default()) {
            None => Chosen {
                config: Arc::clone(&self.open),
                seal: None,
            },
            Some(guard) => Chosen {
                config: Arc::clone(&guard.config),
                seal: Some(guard.seal),
            },
        }
    }

    /// What clients of `name` (lower-case, without port or final dot) are asked for.
    #[must_use]
    pub fn seal_of(&self, name: &str) -> Option<Seal> {
        self.guards.find(name).map(|guard| guard.seal)
    }

    /// Whether any name asks for anything.
    #[must_use]
    pub fn has_guards(&self) -> bool {
        !self.guards.all.is_empty()
    }

    /// These rules with the tickets' keys of `old`, wherever clients are asked for the same: old
    /// sessions resume. Where authorities, revocations or allowed identities changed, they don't.
    #[must_use]
    pub fn keeping_tickets_of(&self, old: &Self) -> Self {
        let kept = |guard: &Guard| {
            let same = old.guards.all.iter().find(|old| old.seal == guard.seal);
            let config = same.map_or_else(
                || Arc::clone(&guard.config),
                |old| tickets::with_keys_of(&guard.config, &old.config),
            );
            Guard {
                seal: guard.seal,
                config,
            }
        };
        Self {
            open: tickets::with_keys_of(&self.open, &old.open),
            guards: Arc::new(Guards {
                all: self.guards.all.iter().map(kept).collect(),
                by_name: self.guards.by_name.clone(),
                elsewhere: self.guards.elsewhere,
            }),
            certificates: Arc::clone(&self.certificates),
        }
    }

    /// The same for another protocol than HTTP: these, by ALPN. A client that offers none is served as well.
    #[must_use]
    pub fn speaking(&self, protocols: &[&[u8]]) -> Self {
        let speaking = |config: &Arc<ServerConfig>| {
            let mut config = ServerConfig::clone(config);
            config.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
            Arc::new(config)
        };
        let guard = |guard: &Guard| Guard {
            seal: guard.seal,
            config: speaking(&guard.config),
        };
        Self {
            open: speaking(&self.open),
            guards: Arc::new(Guards {
                all: self.guards.all.iter().map(guard).collect(),
                by_name: self.guards.by_name.clone(),
                elsewhere: self.guards.elsewhere,
            }),
            certificates: Arc::clone(&self.certificates),
        }
    }

    /// Who the client of a finished handshake is. `None`: it showed no certificate.
    #[must_use]
    pub fn identity(chain: Option<&[CertificateDer<'_>]>) -> Option<ClientIdentity> {
        ClientIdentity::of(chain?)
    }
}

impl Guards {
    fn add(&mut self, rule: &ClientAuth, config: Arc<ServerConfig>) {
        let at = self.all.len();
        let seal = Seal::of(rule);
        self.all.push(Guard { seal, config });
        for name in &rule.names {
            self.by_name.entry(name).or_insert(at);
        }
        if rule.names.is_empty() {
            self.elsewhere.get_or_insert(at);
        }
    }

    fn find(&self, name: &str) -> Option<&Guard> {
        let at = self.by_name.find_below(name).copied().or(self.elsewhere)?;
        self.all.get(at)
    }
}

impl Seal {
    fn of(rule: &ClientAuth) -> Self {
        let ClientAuth {
            names: _, // which names ask does not change what they ask for
            mode,
            authorities,
            revocations,
            allow,
        } = rule;
        let mut hash = Sha256::new();
        hash.update(Sha256::digest(authorities));
        hash.update(Sha256::digest(revocations.as_deref().unwrap_or_default()));
        hash.update(format!("{mode:?} {allow:?}"));
        Self(hash.finalize().into())
    }
}

fn verifier(
    rule: &ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = authorities(&rule.authorities)?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    if let Some(pem) = &rule.revocations {
        // Of intermediates the operator's file of authorities decides.
        builder = builder
            .with_crls(revocations(pem)?)
            .only_check_end_entity_revocation()
            .enforce_revocation_expiration();
    }
    if rule.mode == ClientAuthMode::Optional {
        builder = builder.allow_unauthenticated();
    }
    let webpki = builder
        .build()
        .map_err(|error| TlsError::Revocations(error.to_string()))?;
    let allow = rule.allow.clone();
    Ok(Arc::new(Verifier { webpki, allow }))
}

fn configure(
    minimum: TlsVersion,
    verifier: Arc<dyn ClientCertVerifier>,
    certificates: &Arc<Certificates>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(certificates) as _;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions(minimum))
        .map_err(setup)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tickets::enable(&mut config)?;
    Ok(Arc::new(config))
}

/// Never empty: the first one is the one that a client would rather have.
type Candidates = Vec<Arc<CertifiedKey>>;

/// Certificates by server name.
#[derive(Debug)]
struct Certificates {
    by_name: ByName<Candidates>,
    default: Candidates,
    issued: ByName<Arc<Place>>,
    places: Vec<Arc<Place>>,
}

impl Certificates {
    fn new(rules: &ServerRules, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let mut certificates = Self {
            by_name: ByName::default(),
            default: Candidates::new(),
            issued: ByName::default(),
            places: rules.places.clone(),
        };
        for place in &rules.places {
            for name in place.names() {
                let found = certificates.issued.entry(name);
                found.or_insert_with(|| Arc::clone(place));
            }
        }
        for (index, pem) in rules.certificates.iter().enumerate() {
            let key = Arc::new(certified(index, pem, provider)?);
            let names = names_of(index, &key)?;
            certificates.add(&names, &key);
        }
        if certificates.default.is_empty() && certificates.places.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        Ok(certificates)
    }

    /// A certificate with the first one's names and another kind of key is a default too.
    fn add(&mut self, names: &[String], key: &Arc<CertifiedKey>) {
        let first = self.default.first();
        let beside_first = first.is_some_and(|first| {
            let has_it = |name: &String| {
                let known = self.by_name.find(name);
                known.is_some_and(|known| known.iter().any(|one| Arc::ptr_eq(one, first)))
            };
            !names.is_empty() && names.iter().all(has_it)
        });
        if first.is_none() || beside_first {
            self.default.push(Arc::clone(key));
        }
        for name in names {
            let candidates = self.by_name.entry(name).or_default();
            candidates.push(Arc::clone(key));
        }
    }

    fn find(&self, name: Option<&str>) -> &Candidates {
        name.and_then(|name| self.by_name.find(name))
            .unwrap_or(&self.default)
    }

    /// Where the certificate for `name` comes. Without files the first place is everybody's.
    fn place(&self, name: Option<&str>) -> Option<&Arc<Place>> {
        let named = name.and_then(|name| self.issued.find(name));
        let is_default = named.is_none() && self.default.is_empty();
        named.or_else(|| is_default.then(|| self.places.first()).flatten())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls has lower-cased the name and refused what is no DNS name.
        let name = hello.server_name();
        let candidates = match self.place(name) {
            None => self.find(name),
            Some(place) => match place.key() {
                Some(key) => return Some(key),
                None => self.by_name.find(name?)?,
            },
        };
        let first = candidates.first()?;
        if candidates.len() == 1 {
            return Some(Arc::clone(first));
        }
        let schemes = hello.signature_schemes();
        let mut able = candidates
            .iter()
            .filter(|one| one.key.choose_scheme(schemes).is_some());
        Some(Arc::clone(able.next().unwrap_or(first)))
    }
}

/// The DNS names of the leaf's subjectAltName (RFC 6125 §6.4), lower-case.
fn names_of(index: usize, key: &CertifiedKey) -> Result<Vec<String>, TlsError> {
    let unusable = |reason: String| TlsError::Unusable { index, reason };
    let leaf = key
        .end_entity_cert()
        .map_err(|error| unusable(error.to_string()))?;
    let leaf =
        webpki::EndEntityCert::try_from(leaf).map_err(|error| unusable(error.to_string()))?;
    Ok(leaf
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issued::Issued;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::SignatureScheme;

    fn pem(names: &[&str]) -> CertificatePem {
        pem_with(names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    fn pem_with(names: &[&str], kind: &'static rcgen::SignatureAlgorithm) -> CertificatePem {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate_for(kind).unwrap();
        let made = CertificateParams::new(names).unwrap().self_signed(&key);
        CertificatePem {
            chain: made.unwrap().pem().into_bytes().into(),
            key: key.serialize_pem().into_bytes().into(),
        }
    }

    fn der(pem: &CertificatePem) -> Vec<u8> {
        use rustls::pki_types::pem::PemObject as _;
        CertificateDer::from_pem_slice(&pem.chain).unwrap().to_vec()
    }

    fn serves(tls: &ServerTls, name: &str) -> Vec<u8> {
        tls.certificates.find(Some(name))[0].cert[0].to_vec()
    }

    #[test]
    fn the_most_exact_name_chooses_the_certificate_and_the_first_one_serves_the_rest() {
        let certificates = [
            pem(&["One.test"]),
            pem(&["*.two.test"]),
            pem(&["deep.two.test", "one.test"]),
        ];
        let tls = ServerTls::new(&certificates).unwrap();

        assert_eq!(serves(&tls, "one.test"), der(&certificates[0]));
        assert_eq!(serves(&tls, "any.two.test"), der(&certificates[1]));
        assert_eq!(serves(&tls, "deep.two.test"), der(&certificates[2]));
        assert_eq!(serves(&tls, "two.test"), der(&certificates[0]));
        assert_eq!(serves(&tls, "a.b.two.test"), der(&certificates[0]));
    }

    #[test]
    fn of_two_kinds_of_keys_for_a_name_the_client_gets_the_one_it_can_verify() {
        let elliptic = pem(&["one.test"]);
        let edwards = pem_with(&["one.test"], &rcgen::PKCS_ED25519);
        let tls = ServerTls::new(&[elliptic, edwards]).unwrap();

        let candidates = tls.certificates.find(Some("one.test"));
        let able = |scheme: SignatureScheme| {
            let able = candidates
                .iter()
                .position(|one| one.key.choose_scheme(&[scheme]).is_some());
            able.unwrap()
        };
        assert_eq!(able(SignatureScheme::ECDSA_NISTP256_SHA256), 0);
        assert_eq!(able(SignatureScheme::ED25519), 1);
        assert_eq!(tls.certificates.find(None).len(), 2);
    }

    fn with_places(files: &[CertificatePem], places: &[Arc<Place>]) -> ServerTls {
        ServerTls::with_rules(&ServerRules {
            certificates: files.to_vec(),
            places: places.to_vec(),
            ..ServerRules::default()
        })
        .unwrap()
    }

    /// What a client that names `name` is shown.
    fn shown(tls: &ServerTls, name: &str) -> Option<Vec<u8>> {
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name_of_server = name.to_owned().try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name_of_server).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let mut acceptor = rustls::server::Acceptor::default();
        acceptor.read_tls(&mut hello.as_slice()).unwrap();
        let Ok(Some(accepted)) = acceptor.accept() else {
            panic!("a whole hello was sent");
        };
        let key = tls.certificates.resolve(accepted.client_hello());
        key.map(|key| key.cert[0].to_vec())
    }

    #[test]
    fn what_is_issued_serves_its_names_and_what_is_missing_is_refused() {
        use rustls::pki_types::pem::PemObject as _;
        let issued = Issued::default();
        let names = |name: &str| vec![Arc::<str>::from(name)];
        let place = Place::new(&names("a.in.test"));
        let other = Place::new(&names("b.test"));
        issued.adopt([&place, &other]);
        let came = pem(&["a.in.test"]);
        let der = |pem: &CertificatePem| {
            Some(CertificateDer::from_pem_slice(&pem.chain).unwrap().to_vec())
        };

        let alone = with_places(&[], &[Arc::clone(&place), Arc::clone(&other)]);
        assert_eq!(shown(&alone, "a.in.test"), None);
        assert_eq!(shown(&alone, "x.test"), None);

        let wildcard = pem(&["*.in.test"]);
        let first = pem(&["first.test"]);
        let files = [first.clone(), wildcard.clone()];
        let beside = with_places(&files, &[Arc::clone(&place)]);
        assert_eq!(shown(&beside, "a.in.test"), der(&wildcard));
        assert_eq!(shown(&beside, "x.y.test"), der(&first));
        let beside_another = with_places(&[first], &[Arc::clone(&place)]);
        assert_eq!(shown(&beside_another, "a.in.test"), None);

        issued.put(&names("a.in.test"), &came).unwrap();

        for tls in [&alone, &beside, &beside_another] {
            assert_eq!(shown(tls, "a.in.test"), der(&came));
        }
        assert_eq!(shown(&alone, "x.test"), der(&came));
        assert_eq!(shown(&alone, "b.test"), None);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let mut wrong = pem(&["one.test"]);
        wrong.key = pem(&["one.test"]).key;

        let refused = ServerTls::new(&[pem(&["zero.test"]), wrong]).unwrap_err();

        assert_eq!(refused, TlsError::KeyOfAnother { index: 1 });
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let good = pem(&["one.test"]);
        let with = |chain: &[u8], key: &[u8]| {
            ServerTls::new(&[CertificatePem {
                chain: chain.into(),
                key: key.into(),
            }])
        };

        assert_eq!(ServerTls::new(&[]).unwrap_err(), TlsError::NoCertificate);
        assert_eq!(
            with(b"", &good.key).unwrap_err(),
            TlsError::EmptyChain { index: 0 }
        );
        assert!(matches!(
            with(&good.chain, b"no key").unwrap_err(),
            TlsError::Key { index: 0, .. }
        ));
    }

    fn asks(names: &[&str], authority: &CertificatePem, mode: ClientAuthMode) -> ClientAuth {
        ClientAuth {
            names: names.iter().map(|name| (*name).into()).collect(),
            mode,
            authorities: Arc::clone(&authority.chain),
            revocations: None,
            allow: Allow::default(),
        }
    }

    fn guarded(server: &CertificatePem, client_auth: Vec<ClientAuth>) -> ServerTls {
        ServerTls::with_rules(&ServerRules {
            certificates: vec![server.clone()],
            places: Vec::new(),
            minimum: TlsVersion::Tls12,
            client_auth,
        })
        .unwrap()
    }

    #[test]
    fn the_most_exact_rule_asks_and_other_names_are_asked_for_nothing() {
        let (one, two, server) = (pem(&["ca1"]), pem(&["ca2"]), pem(&["s.test"]));
        let required = ClientAuthMode::Required;
        let tls = guarded(
            &server,
            vec![
                asks(&["*.in.test"], &one, required),
                asks(&["a.in.test"], &two, required),
            ],
        );

        let seal = |name| tls.choose(Some(name)).seal;
        assert_eq!(seal("b.in.test"), seal("x.y.in.test"));
        assert_ne!(seal("a.in.test"), seal("b.in.test"));
        assert_eq!(seal("in.test"), None);
        assert_eq!(tls.choose(None).seal, None);
        assert_eq!(tls.seal_of("a.in.test"), seal("a.in.test"));

        let everyone = guarded(&server, vec![asks(&[], &one, required)]);
        assert!(everyone.choose(None).seal.is_some());
        assert_eq!(everyone.seal_of("any.test"), everyone.choose(None).seal);
    }

    #[test]
    fn tickets_outlive_a_reload_where_clients_are_asked_for_the_same_and_nowhere_else() {
        let (one, two, server) = (pem(&["ca1"]), pem(&["ca2"]), pem(&["s.test"]));
        let required = ClientAuthMode::Required;
        let old = guarded(
            &server,
            vec![
                asks(&["a.test"], &one, required),
                asks(&["b.test"], &one, ClientAuthMode::Optional),
            ],
        );
        let new = guarded(
            &pem(&["s.test"]),
            vec![
                asks(&["a.test"], &two, required),
                asks(&["b.test"], &one, ClientAuthMode::Optional),
            ],
        );

        let new = new.keeping_tickets_of(&old);

        let opens = |from: &str, to: &str| {
            let ticket = old.choose(Some(from)).config.ticketer.encrypt(b"session");
            let there = new.choose(Some(to)).config;
            there.ticketer.decrypt(&ticket.unwrap()).is_some()
        };
        assert!(opens("open.test", "open.test"));
        assert!(opens("b.test", "b.test"));
        assert!(!opens("a.test", "a.test"), "another authority");
        assert!(!opens("open.test", "b.test"), "asked for nothing before");
        assert!(!opens("b.test", "a.test"), "optional before");
    }
}
