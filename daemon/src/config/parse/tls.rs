//! Certificates of listeners, and what they ask of clients.

use std::collections::HashMap;
use std::sync::Arc;

use sealane_model::{CertificatePem, TlsVersion};
use sealane_proxy::tls::{
    Allow, ClientAuth, ClientAuthMode, DnsPattern, Place, ServerRules, ServerTls, SpiffePattern,
    TlsError,
};

use super::super::decode::{At, List, OneOrMany};
use super::super::error::Mistake;
use super::super::files::PEM_BYTES_MAX;
use super::super::source::Span;
use super::super::spec::{
    AllowSpec, CertificateSpec, ClientAuthSpec, ClientAuthWord, ListenerCertificateSpec,
    ListenerTlsSpec,
};
use super::super::unit::{Text, host_name};
use super::Parser;

type Shown = (Vec<CertificatePem>, Vec<Arc<Place>>);

/// Where each server name was asked about first; the empty one stands for all others.
type Asked = HashMap<String, Span>;

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
                (Some(chain), Some(key), None) => pems.extend(self.certificate(chain, key)),
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

    fn certificate(&mut self, chain: &At<Text>, key: &At<Text>) -> Option<CertificatePem> {
        let pem = self.pair(chain, key)?;
        // Each alone, so that a mistake is where it belongs.
        match ServerTls::new(std::slice::from_ref(&pem)) {
            Ok(_) => Some(pem),
            Err(error) => {
                self.notes.mistake(certificate_mistake(&error, chain, key));
                None
            }
        }
    }

    /// What both files hold, and where they are named.
    pub(super) fn certificate_pem<'s>(
        &mut self,
        spec: &'s At<CertificateSpec>,
    ) -> Option<(CertificatePem, &'s At<Text>, &'s At<Text>)> {
        let CertificateSpec {
            span: _,
            broken: _,
            chain,
            key,
        } = &spec.value;
        let (chain, key) = (chain.as_ref()?, key.as_ref()?);
        Some((self.pair(chain, key)?, chain, key))
    }

    fn pair(&mut self, chain: &At<Text>, key: &At<Text>) -> Option<CertificatePem> {
        // Both are looked at before either is given up.
        let (chain, key) = (self.pem(chain), self.pem(key));
        Some(CertificatePem {
            chain: chain?,
            key: key?,
        })
    }

    fn pem(&mut self, path: &At<Text>) -> Option<Arc<[u8]>> {
        let file = self.files.resolve(&path.0);
        let read = self.files.bytes(&file, PEM_BYTES_MAX);
        read.map(Into::into)
            .map_err(|message| self.notes.wrong(path.span, message))
            .ok()
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
        let ca = ca.as_ref()?;
        let authorities = self.authorities(ca);
        let revocations = match crl {
            Some(crl) => Some(self.pem(crl)?),
            None => None,
        };
        let allow = match allow {
            Some(allow) => self.allow(allow)?,
            None => Allow::default(),
        };
        let rule = ClientAuth {
            names: names?,
            mode: match mode.as_ref()?.value {
                ClientAuthWord::Required => ClientAuthMode::Required,
                ClientAuthWord::Optional => ClientAuthMode::Optional,
            },
            authorities: authorities?,
            revocations,
            allow,
        };
        if let Err(error) = rule.check() {
            let of_list = matches!(error, TlsError::Revocations(_));
            let at = crl.as_ref().filter(|_| of_list).unwrap_or(ca);
            let message = format!("`{}`: {error}", at.0.escape_debug());
            self.notes.wrong(at.span, message);
            return None;
        }
        Some(rule)
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

pub(super) fn certificate_mistake(error: &TlsError, chain: &At<Text>, key: &At<Text>) -> Mistake {
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
