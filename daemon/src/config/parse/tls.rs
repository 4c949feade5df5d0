//! Certificates of listeners, and what they ask of clients.

use std::collections::HashMap;
use std::sync::Arc;

use sealane_model::{CertificatePem, TlsVersion};
use sealane_proxy::config::{Listener, ListenerProtocol, Route};
use sealane_proxy::tls::{
    Allow, ClientAuth, ClientAuthMode, DnsPattern, Place, ServerRules, ServerTls, SpiffePattern,
    TlsError, check_authorities, check_revocations, expiring,
};

use super::super::decode::{At, List, OneOrMany, Table};
use super::super::error::Mistake;
use super::super::files::PEM_BYTES_MAX;
use super::super::source::Span;
use super::super::spec::{
    AllowSpec, CertificateSpec, ClientAuthSpec, ClientAuthWord, ListenerCertificateSpec,
    ListenerSpec, ListenerTlsSpec,
};
use super::super::unit::{Text, host_name};
use super::Parser;

type Shown = (Vec<CertificatePem>, Vec<Arc<Place>>);

/// Where each server name was asked about first; the empty one stands for all others.
type Asked = HashMap<String, Span>;
/// Authorities and their revocation lists.
type Believed = (Arc<[u8]>, Option<Arc<[u8]>>);

impl Parser<'_> {
    pub(super) fn server_tls(
        &mut self,
        certificates: &At<List<ListenerCertificateSpec>>,
        tls: Option<&At<ListenerTlsSpec>>,
    ) -> Option<ServerTls> {
        let shown = self.certificates(certificates);
        let (minimum, client_auth) = match tls {
            Some(tls) => self.listener_tls(tls)?,
            None => (TlsVersion::default(), Vec::new()),
        };
        let (pems, places) = shown?;
        let rules = ServerRules {
            certificates: pems,
            places,
            minimum,
            client_auth,
        };
        let tls = ServerTls::with_rules(&rules);
        tls.map_err(|error| self.notes.wrong(certificates.span, error.to_string()))
            .ok()
    }

    /// Those from files, and the places for those that are ordered.
    fn certificates(&mut self, list: &At<List<ListenerCertificateSpec>>) -> Option<Shown> {
        let (mut pems, mut places) = Shown::default();
        for spec in list.value.iter() {
            let ListenerCertificateSpec {
                span,
                broken,
                chain,
                key,
                acme,
            } = &spec.value;
            match (chain, key, acme) {
                (Some(chain), Some(key), None) => {
                    pems.extend(self.certificate("listener", chain, key));
                }
                (None, None, Some(names)) => {
                    let names = self.acme_names(names);
                    places.extend(names.map(|names| Place::new(names.as_slice())));
                }
                _ if *broken => {}
                _ => self.notes.mistake(
                    Mistake::new(
                        *span,
                        "a certificate is either two files or ordered by `acme`",
                    )
                    .expected("`{ chain: FILE, key: FILE }`, or `{ acme: NAME }`"),
                ),
            }
        }
        (pems.len() + places.len() == list.value.len()).then_some((pems, places))
    }

    /// What both files hold, if it can serve; else what they held before, with a warning; else a
    /// mistake. `kind`: what it is for.
    fn certificate(
        &mut self,
        kind: &'static str,
        chain: &At<Text>,
        key: &At<Text>,
    ) -> Option<CertificatePem> {
        let found = self.usable(chain, key);
        let [chain_pem, key_pem] = self.or_kept(&[chain, key], found)?;
        let found = expiring(kind, &chain.0, &chain_pem);
        self.kept.expiring.extend(found);
        Some(CertificatePem {
            chain: chain_pem,
            key: key_pem,
        })
    }

    /// Ours, for endpoints that ask who we are.
    pub(super) fn own_certificate(&mut self, spec: &At<CertificateSpec>) -> Option<CertificatePem> {
        let CertificateSpec {
            span: _,
            broken: _,
            chain,
            key,
        } = &spec.value;
        self.certificate("own", chain.as_ref()?, key.as_ref()?)
    }

    fn usable(&mut self, chain: &At<Text>, key: &At<Text>) -> Result<[Arc<[u8]>; 2], Vec<Mistake>> {
        // Both are looked at before either is given up.
        let (chain_pem, key_pem) = match (self.pem(chain), self.pem(key)) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => {
                return Err([chain.err(), key.err()]
                    .into_iter()
                    .flatten()
                    .flatten()
                    .collect());
            }
        };
        let pem = CertificatePem {
            chain: chain_pem,
            key: key_pem,
        };
        // Each alone, so that a mistake is where it belongs.
        match ServerTls::new(std::slice::from_ref(&pem)) {
            Ok(_) => Ok([pem.chain, pem.key]),
            Err(error) => Err(vec![certificate_mistake(&error, chain, key)]),
        }
    }

    /// What was found, or what files of the same names held when they last could serve.
    fn or_kept<const N: usize>(
        &mut self,
        paths: &[&At<Text>; N],
        found: Result<[Arc<[u8]>; N], Vec<Mistake>>,
    ) -> Option<[Arc<[u8]>; N]> {
        let files: Vec<_> = paths
            .iter()
            .map(|path| self.files.resolve(&path.0))
            .collect();
        let mistakes = match found {
            Ok(contents) => {
                self.kept.note(files, contents.to_vec());
                return Some(contents);
            }
            Err(mistakes) => mistakes,
        };
        let before = self.kept.fall_back(&files);
        let before = before.and_then(|before| <[Arc<[u8]>; N]>::try_from(before).ok());
        for mistake in mistakes {
            if before.is_none() {
                self.notes.mistake(mistake);
            } else {
                let message = format!("{}; what it was before goes on serving", mistake.message);
                self.notes.warn(paths[0].span, message);
            }
        }
        before
    }

    fn pem(&mut self, path: &At<Text>) -> Result<Arc<[u8]>, Vec<Mistake>> {
        let file = self.files.resolve(&path.0);
        let read = self.files.bytes(&file, PEM_BYTES_MAX);
        read.map(Into::into)
            .map_err(|message| vec![Mistake::new(path.span, message)])
    }

    fn listener_tls(
        &mut self,
        spec: &At<ListenerTlsSpec>,
    ) -> Option<(TlsVersion, Vec<ClientAuth>)> {
        let ListenerTlsSpec {
            span: _,
            broken: _,
            minimum,
            client_auth,
        } = &spec.value;
        let list = &client_auth.as_ref()?.value;
        let mut asked = Asked::new();
        let rules: Vec<_> = list
            .iter()
            .filter_map(|rule| self.client_auth(rule, &mut asked))
            .collect();
        let is_whole = rules.len() == list.len();
        is_whole.then_some((minimum.as_ref()?.value.0, rules))
    }

    fn client_auth(&mut self, spec: &At<ClientAuthSpec>, asked: &mut Asked) -> Option<ClientAuth> {
        let ClientAuthSpec {
            span,
            broken: _,
            r#for,
            mode,
            ca,
            crl,
            allow,
        } = &spec.value;
        let names = self.asked_names(r#for.as_ref(), *span, asked);
        let allow = match allow {
            Some(allow) => self.allow(allow),
            None => Some(Allow::default()),
        };
        let (authorities, revocations) = self.believed(ca.as_ref()?, crl.as_ref())?;
        Some(ClientAuth {
            names: names?,
            mode: match mode.as_ref()?.value {
                ClientAuthWord::Required => ClientAuthMode::Required,
                ClientAuthWord::Optional => ClientAuthMode::Optional,
            },
            authorities,
            revocations,
            allow: allow?,
        })
    }

    /// Authorities of clients and their revocation lists, if they can be asked for.
    fn believed(&mut self, ca: &At<Text>, crl: Option<&At<Text>>) -> Option<Believed> {
        let authorities = self.pem(ca).and_then(|pem| {
            checked(ca, check_authorities(&pem))?;
            Ok([pem])
        });
        let authorities = self.or_kept(&[ca], authorities);
        let revocations = crl.map(|crl| {
            let found = self.pem(crl).and_then(|pem| {
                checked(crl, check_revocations(&pem))?;
                Ok([pem])
            });
            self.or_kept(&[crl], found)
        });
        let [authorities] = authorities?;
        let found = expiring("authority", &ca.0, &authorities);
        self.kept.expiring.extend(found);
        let Some((crl, revocations)) = crl.zip(revocations) else {
            return Some((authorities, None));
        };
        let [revocations] = revocations?;
        let found = expiring("revocations", &crl.0, &revocations);
        self.kept.expiring.extend(found);
        Some((authorities, Some(revocations)))
    }

    /// Names that must show a certificate on one listener and need none on another, or that a route
    /// serves under any other name: lawful, and perhaps not what was meant.
    pub(super) fn warn_of_open_doors(
        &mut self,
        table: Option<&At<Table<ListenerSpec>>>,
        listeners: &[Listener],
        routes: &[Route],
    ) {
        let any_host = routes.iter().find(|route| route.when.host.is_none());
        let specs = || table.iter().flat_map(|table| table.value.iter());
        for entry in specs() {
            let Some(tls) = entry.value.as_ref().and_then(|spec| spec.tls.as_ref()) else {
                continue;
            };
            let rules: Vec<_> = tls
                .client_auth
                .iter()
                .flat_map(|list| list.value.iter())
                .collect();
            let required = |rule: &&&At<ClientAuthSpec>| {
                let mode = rule.mode.as_ref().map(|mode| mode.value);
                mode == Some(ClientAuthWord::Required)
            };
            let asks_all = rules.iter().any(|rule| rule.r#for.is_none());
            if let Some(rule) = rules.iter().find(required)
                && !asks_all
                && let Some(route) = any_host
            {
                let message = format!(
                    "the route `{}` serves every host: whoever names another one needs no certificate",
                    route.name
                );
                self.notes.warn(rule.span, message);
            }
            for rule in rules.iter().filter(required) {
                let names = rule.r#for.iter().flat_map(|names| names.value.iter());
                for name in names.filter_map(|name| host_name(name.0.trim_start_matches("*."))) {
                    let open = listeners.iter().find(|listener| {
                        *listener.name != *entry.name.value && !asks(&listener.protocol, &name)
                    });
                    if let Some(open) = open {
                        let message = format!(
                            "the listener `{}` serves `{name}` without asking for a certificate",
                            open.name
                        );
                        self.notes.warn(rule.span, message);
                    }
                }
            }
        }
    }

    /// Lower-case; each name is asked about once on a listener.
    fn asked_names(
        &mut self,
        names: Option<&At<OneOrMany<Text>>>,
        at: Span,
        asked: &mut Asked,
    ) -> Option<Vec<Arc<str>>> {
        let Some(names) = names else {
            let first = asked.insert(String::new(), at);
            return self
                .once(first, at, "two entries are for all other names")
                .then(Vec::new);
        };
        let before = self.notes.count();
        if names.value.is_empty() {
            self.notes.mistake(
                Mistake::new(names.span, "no name is asked about")
                    .help("leave `for` out to ask the clients of every name"),
            );
        }
        let mut lawful = Vec::new();
        for name in names.value.iter() {
            let text = name.0.as_str();
            let (star, rest) = match text.strip_prefix("*.") {
                Some(rest) => ("*.", rest),
                None => ("", text),
            };
            let Some(host) = host_name(rest) else {
                let message = format!(
                    "no client asks for the server name `{}`",
                    text.escape_debug()
                );
                self.notes.mistake(
                    Mistake::new(name.span, message)
                        .expected("`api.example.com`, or `*.example.com` for all below it"),
                );
                continue;
            };
            let pattern = format!("{star}{host}");
            let first = asked.insert(pattern.clone(), name.span);
            let message = format!("`{pattern}` stands here twice");
            self.once(first, name.span, &message);
            lawful.push(pattern.into());
        }
        (self.notes.count() == before).then_some(lawful)
    }

    fn once(&mut self, first: Option<Span>, at: Span, message: &str) -> bool {
        if let Some(first) = first {
            self.notes
                .mistake(Mistake::new(at, message).related(first, "first here"));
        }
        first.is_none()
    }

    fn allow(&mut self, spec: &At<AllowSpec>) -> Option<Allow> {
        let AllowSpec {
            span,
            broken,
            san,
            spiffe,
        } = &spec.value;
        let before = self.notes.count();
        let texts = |list: &Option<At<OneOrMany<Text>>>| -> Vec<At<Text>> {
            list.iter()
                .flat_map(|list| list.value.iter().cloned())
                .collect()
        };
        let (san, spiffe) = (texts(san), texts(spiffe));
        if san.is_empty() && spiffe.is_empty() && !broken {
            self.notes.mistake(
                Mistake::new(*span, "nobody is let in")
                    .help("leave `allow` out to let everybody in who has a good certificate"),
            );
        }
        let dns = san.iter().filter_map(|text| {
            let pattern = DnsPattern::parse(&text.0);
            if pattern.is_none() {
                let message = format!(
                    "no certificate has the host name `{}`",
                    text.0.escape_debug()
                );
                self.notes.mistake(
                    Mistake::new(text.span, message)
                        .expected("`api.example.com`, or `*.example.com` for one label before it"),
                );
            }
            pattern
        });
        let dns = dns.collect();
        let spiffe = spiffe.iter().filter_map(|text| {
            let pattern = SpiffePattern::parse(&text.0);
            if pattern.is_none() {
                let message = format!("`{}` is no SPIFFE identity", text.0.escape_debug());
                self.notes.mistake(Mistake::new(text.span, message).expected(
                    "`spiffe://example.com/ns/web`, or `spiffe://example.com/ns/*` for all below it",
                ));
            }
            pattern
        });
        let spiffe = spiffe.collect();
        (self.notes.count() == before).then_some(Allow { dns, spiffe })
    }
}

/// Whether clients of `name`, or of names below it, are asked for something.
fn asks(protocol: &ListenerProtocol, name: &str) -> bool {
    match protocol {
        ListenerProtocol::Http => false,
        ListenerProtocol::Https(tls) => tls
            .seal_of(name)
            .or_else(|| tls.seal_of(&format!("a.{name}")))
            .is_some(),
        // No route leads from there.
        _ => true,
    }
}

fn checked(path: &At<Text>, found: Result<(), TlsError>) -> Result<(), Vec<Mistake>> {
    found.map_err(|error| {
        let message = format!("`{}`: {error}", path.0.escape_debug());
        vec![Mistake::new(path.span, message)]
    })
}

fn certificate_mistake(error: &TlsError, chain: &At<Text>, key: &At<Text>) -> Mistake {
    let (chain_name, key_name) = (chain.0.escape_debug(), key.0.escape_debug());
    match error {
        TlsError::Chain { reason, .. } => Mistake::new(
            chain.span,
            format!("`{chain_name}` is no PEM file: {reason}"),
        ),
        TlsError::EmptyChain { .. } | TlsError::NoCertificate => {
            Mistake::new(chain.span, format!("`{chain_name}` has no certificate"))
        }
        TlsError::Key { reason, .. } => Mistake::new(
            key.span,
            format!("`{key_name}` is no private key in PEM: {reason}"),
        ),
        TlsError::KeyOfAnother { .. } => Mistake::new(
            key.span,
            format!("the key `{key_name}` does not belong to the certificate `{chain_name}`"),
        )
        .related(chain.span, "the certificate"),
        TlsError::Unusable { reason, .. } => {
            Mistake::new(chain.span, format!("`{chain_name}` cannot serve: {reason}"))
        }
        TlsError::Authorities(reason) | TlsError::Revocations(reason) | TlsError::Setup(reason) => {
            Mistake::new(chain.span, reason.clone())
        }
    }
}
