//! Certificates by ACME: from whom, for which names, kept where.

use std::path::PathBuf;
use std::sync::Arc;

use sealane_acme::{ChallengeKind, Config, Names};

use super::super::decode::{At, OneOrMany};
use super::super::error::Mistake;
use super::super::files::PEM_BYTES_MAX;
use super::super::source::Span;
use super::super::spec::{AcmeSpec, ChallengeWord};
use super::super::unit::{Text, host_name};
use super::Parser;

/// The folder in `node.state_dir` that holds account and certificates.
const FOLDER: &str = "acme";
/// As endpoints' `tls.ca` says it.
const SYSTEM: &str = "system";

impl Parser<'_> {
    /// The names of one certificate; remembered, to be ordered.
    pub(super) fn acme_names(&mut self, list: &At<OneOrMany<Text>>) -> Option<Names> {
        let before = self.notes.count();
        let names: Vec<String> = list
            .value
            .iter()
            .filter_map(|name| self.acme_name(name))
            .collect();
        if self.notes.count() > before {
            return None;
        }
        let names = Names::new(names.iter().map(String::as_str));
        let Some(names) = names else {
            let message = format!("a certificate is for {} names", list.value.len());
            let max = sealane_acme::config::NAMES_MAX;
            self.notes.mistake(
                Mistake::new(list.span, message).expected(format!("1–{max} different names")),
            );
            return None;
        };
        self.acme_wanted.push((names.clone(), list.span));
        Some(names)
    }

    fn acme_name(&mut self, name: &At<Text>) -> Option<String> {
        let text = name.0.as_str();
        let message = format!("no certificate is issued for `{}`", text.escape_debug());
        let mistake =
            Mistake::new(name.span, message).expected("host names, such as `api.example.com`");
        if text.starts_with("*.") {
            let help =
                "a wildcard would have to be proved in DNS, which is not there yet; name each host";
            self.notes.mistake(mistake.help(help));
            return None;
        }
        // Authorities issue for names in DNS alone, which have no underscores (RFC 1123 §2.1).
        let name = host_name(text).filter(|name| name.contains('.') && !name.contains('_'));
        if name.is_none() {
            self.notes.mistake(mistake);
        }
        name
    }

    /// What is to be ordered. `None` where nothing is, or after a mistake.
    pub(super) fn acme(
        &mut self,
        spec: Option<&At<AcmeSpec>>,
        state_dir: Option<&PathBuf>,
    ) -> Option<Config> {
        let wanted = std::mem::take(&mut self.acme_wanted);
        let first = wanted.first().map(|(_, span)| *span);
        let Some(spec) = spec else {
            if let Some(span) = first {
                self.notes.mistake(
                    Mistake::new(span, "nothing says where certificates are ordered")
                        .expected("`acme: { terms_agreed: true }` at the top of the file"),
                );
            }
            return None;
        };
        let AcmeSpec {
            span,
            broken: _,
            directory,
            terms_agreed,
            contact,
            ca,
            challenges,
            retry,
        } = &spec.value;
        let Some(first) = first else {
            self.notes
                .warn(*span, "no listener has a certificate by `acme`");
            return None;
        };
        self.check_agreed(
            terms_agreed.as_ref().is_some_and(|flag| flag.value.0),
            *span,
        );
        if state_dir.is_none() {
            self.notes.mistake(
                Mistake::new(first, "what is issued has no place to be kept")
                    .expected("`node: { state_dir: DIRECTORY }`")
                    .help("without one each start would order anew, and soon be locked out"),
            );
        }
        let directory = self.directory(directory.as_ref()?);
        let contact = contact.as_ref()?.value.iter();
        let contact = contact.filter_map(|url| self.contact(url)).collect();
        let challenges = challenges.as_ref()?;
        if challenges.value.is_empty() {
            let message = "no way is left to prove a name";
            self.notes.wrong(challenges.span, message);
        }
        let challenges = challenges.value.iter().map(|word| match word.value {
            ChallengeWord::Http01 => ChallengeKind::Http01,
            ChallengeWord::TlsAlpn01 => ChallengeKind::TlsAlpn01,
        });
        Some(Config {
            directory: directory?,
            contact,
            roots: self.roots(ca.as_ref()?)?,
            folder: state_dir?.join(FOLDER),
            challenges: challenges.collect(),
            retry: retry.as_ref()?.value.0,
            wanted: wanted.into_iter().map(|(names, _)| names).collect(),
        })
    }

    fn check_agreed(&mut self, agreed: bool, span: Span) {
        if !agreed {
            self.notes.mistake(
                Mistake::new(span, "the authority's terms of service are not agreed to")
                    .expected("`terms_agreed: true`")
                    .help("read them first: the authority's directory names their address"),
            );
        }
    }

    fn directory(&mut self, at: &At<Text>) -> Option<Arc<str>> {
        let text = at.0.as_str();
        let url = text.parse::<http::Uri>().ok();
        let lawful = url.is_some_and(|url| {
            url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty())
        });
        if !lawful {
            let message = format!("`{}` is no directory", text.escape_debug());
            self.notes.mistake(
                Mistake::new(at.span, message).expected("an `https://` URL (RFC 8555 §6.1)"),
            );
            return None;
        }
        Some(text.into())
    }

    fn contact(&mut self, at: &At<Text>) -> Option<String> {
        let text = at.0.as_str();
        let address = text.strip_prefix("mailto:");
        // Neither header fields nor several addresses (RFC 8555 §7.3).
        let lawful = address.is_some_and(|address| {
            let parts = address.split_once('@');
            parts.is_some_and(|(who, place)| !who.is_empty() && !place.is_empty())
                && !address.contains(['?', ',', ' '])
        });
        if lawful {
            return Some(text.to_owned());
        }
        let message = format!("`{}` is no contact", text.escape_debug());
        let mut mistake = Mistake::new(at.span, message).expected("`mailto:` and one mail address");
        if address.is_none() && text.contains('@') {
            mistake = mistake.help(format!("write `mailto:{}`", text.escape_debug()));
        }
        self.notes.mistake(mistake);
        None
    }

    /// `Some(None)`: the system's.
    fn roots(&mut self, ca: &At<Text>) -> Option<Option<Arc<[u8]>>> {
        if ca.0 == SYSTEM {
            return Some(None);
        }
        let file = self.files.resolve(&ca.0);
        match self.files.bytes(&file, PEM_BYTES_MAX) {
            Ok(bytes) if sealane_acme::are_roots(&bytes) => Some(Some(bytes.into())),
            Ok(_) => {
                let message = format!("`{}` has no PEM certificate", ca.0.escape_debug());
                self.notes.wrong(ca.span, message);
                None
            }
            Err(message) => {
                self.notes.wrong(ca.span, message);
                None
            }
        }
    }
}
