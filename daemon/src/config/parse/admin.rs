//! The admin API's addresses and tokens.

use std::collections::HashMap;

use sealane_control::config::{AdminConfig, AdminToken, Role};
use sha2::{Digest as _, Sha256};

use super::super::decode::At;
use super::super::error::Mistake;
use super::super::files::PEM_BYTES_MAX;
use super::super::source::Span;
use super::super::spec::{AdminSpec, RoleWord, TokenSpec};
use super::super::unit::Secret;
use super::{Parser, Transport};

/// Characters that a token has at least: shorter ones can be guessed.
const TOKEN_CHARS_MIN: usize = 16;

const HASH_PREFIX: &str = "sha256:";
const FILE_PREFIX: &str = "file:";
/// Where a secret is to be.
pub(super) const ELSEWHERE: &str = "`${VARIABLE}` or `file:PATH`";

impl Parser<'_> {
    pub(super) fn admin(&mut self, spec: Option<&At<AdminSpec>>) -> Option<AdminConfig> {
        let AdminSpec {
            span: _,
            broken,
            bind,
            tokens,
        } = &spec?.value;
        let bind = bind.as_ref()?;
        let tokens = tokens.as_ref()?;
        if bind.value.is_empty() && !broken {
            self.notes.wrong(bind.span, "the admin API has no address");
        }
        for address in bind.value.iter() {
            let who = "the admin API";
            self.bind(Transport::Tcp, address.value.0, address.span, who);
            if !address.value.0.ip().is_loopback() && tokens.value.is_empty() {
                self.notes.warn(
                    address.span,
                    "the admin API can be reached from elsewhere and has no tokens: nobody \
                     can read it from there",
                );
            }
        }
        let mut parsed = Vec::new();
        let mut names: HashMap<&str, Span> = HashMap::new();
        for spec in tokens.value.iter() {
            if let Some(name) = &spec.value.name
                && let Some(first) = names.insert(&name.0, name.span)
            {
                let message = format!("two tokens are called `{}`", name.0.escape_debug());
                self.notes
                    .mistake(Mistake::new(name.span, message).related(first, "first here"));
            }
            parsed.extend(self.token(spec));
        }
        Some(AdminConfig {
            bind: bind.value.iter().map(|at| at.value.0).collect(),
            tokens: parsed,
            open: false,
        })
    }

    fn token(&mut self, spec: &At<TokenSpec>) -> Option<AdminToken> {
        let TokenSpec {
            span,
            broken,
            name,
            role,
            hash,
            token,
        } = &spec.value;
        let sha256 = match (hash, token) {
            (Some(hash), None) => self.hash(hash),
            (None, Some(token)) => self.hash_of(token),
            (None, None) if *broken => None,
            (None, None) | (Some(_), Some(_)) => {
                self.notes.mistake(
                    Mistake::new(*span, "a token has either `hash` or `token`")
                        .expected("`hash: \"sha256:…\"`, or `token: \"${VARIABLE}\"`"),
                );
                None
            }
        };
        Some(AdminToken {
            name: name.as_ref()?.0.as_str().into(),
            sha256: sha256?,
            role: match role.as_ref()?.value {
                RoleWord::Viewer => Role::Viewer,
                RoleWord::Operator => Role::Operator,
            },
        })
    }

    fn hash(&mut self, at: &At<Secret>) -> Option<[u8; 32]> {
        let text = self.referred(at)?;
        let hash = text.trim().strip_prefix(HASH_PREFIX).and_then(read_hex);
        if hash.is_none() {
            self.notes.mistake(
                Mistake::new(at.span, "this is no hash of a token")
                    .expected("`sha256:` and 64 hexadecimal digits")
                    .help("make one with `printf %s \"$TOKEN\" | sha256sum`"),
            );
        }
        hash
    }

    fn hash_of(&mut self, at: &At<Secret>) -> Option<[u8; 32]> {
        let text =
            self.kept_elsewhere(at, "token", "`${VARIABLE}` or `file:PATH`; or its `hash`")?;
        let token = text.trim_end_matches(['\r', '\n']);
        if token.chars().count() < TOKEN_CHARS_MIN {
            let message = format!("the token is shorter than {TOKEN_CHARS_MIN} characters");
            self.notes.mistake(
                Mistake::new(at.span, message).help("make one with `openssl rand -hex 32`"),
            );
            return None;
        }
        Some(Sha256::digest(token.as_bytes()).into())
    }

    /// A secret that is not written in this file itself: that is a mistake, `what` it is and what was `expected` told.
    pub(super) fn kept_elsewhere(
        &mut self,
        at: &At<Secret>,
        what: &str,
        expected: &str,
    ) -> Option<String> {
        if at.written.is_none() && !at.value.0.starts_with(FILE_PREFIX) {
            let message = format!("a {what} must not stand in this file");
            self.notes
                .mistake(Mistake::new(at.span, message).expected(expected));
            return None;
        }
        self.referred(at)
    }

    /// The secret itself, or what the file holds that it names.
    fn referred(&mut self, at: &At<Secret>) -> Option<String> {
        let Some(path) = at.value.0.strip_prefix(FILE_PREFIX) else {
            return Some(at.value.0.clone());
        };
        let file = self.files.resolve(path);
        let read = self.files.text(&file, PEM_BYTES_MAX);
        read.map_err(|message| self.notes.wrong(at.span, message))
            .ok()
    }
}

fn read_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    let mut hash = [0; 32];
    if digits.len() != hash.len() * 2 {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
    }
    Some(hash)
}
