//! BORDER. One order, from its names to a certificate (RFC 8555 §7.4): asked for, proved, fetched.
//!
//! Whatever it shows for the authority's sake is hidden again when it ends, however it ends. Decides
//! neither when nor how often: see `plan`.

use std::io;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, KeyAuthorization, NewOrder,
    Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};

use crate::certificate::{Broken, Certificate};
use crate::config::{ChallengeKind, Names};
use crate::edge::{ChallengeCertificate, Edge, EdgeError};

/// How long the authority may take to look at the challenges, and again to issue.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));

const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why there is no certificate. `as_str` is the word in metrics.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the authority refuses")]
    Refused(#[source] Problem),
    #[error("not proved by {}: {why}", .kind.as_str())]
    Unproved { kind: ChallengeKind, why: String },
    #[error("the authority offers no {} for {name}", .kind.as_str())]
    NotOffered { kind: ChallengeKind, name: String },
    #[error("the authority was not understood, or not reached")]
    Exchange(#[source] Error),
    #[error("the order took too long")]
    TooLate,
    #[error("a challenge cannot be answered")]
    Challenge(#[source] rcgen::Error),
    #[error("the challenge is not shown, or the certificate not served")]
    Edge(#[from] EdgeError),
    #[error("what was issued cannot serve")]
    Broken(#[from] Broken),
    #[error("the account cannot be read or written")]
    Account(#[source] serde_json::Error),
    #[error("the way to the directory cannot be set up")]
    Way(#[from] crate::directory::WayError),
    #[error("the disk refuses")]
    Disk(#[source] io::Error),
}

impl Failure {
    pub(crate) fn account(error: serde_json::Error) -> Self {
        Self::Account(error)
    }

    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Refused(problem) if is(problem, RATE_LIMITED) => "rate_limited",
            Self::Refused(_) | Self::NotOffered { .. } => "refused",
            Self::Unproved { .. } => "unproved",
            Self::Exchange(_) => "unreachable",
            Self::TooLate => "timed_out",
            Self::Challenge(_) | Self::Edge(_) | Self::Broken(_) | Self::Way(_) => "unusable",
            Self::Account(_) | Self::Disk(_) => "disk",
        }
    }

    /// The authority has forgotten the account: only a new one helps.
    pub(crate) fn is_of_the_account(&self) -> bool {
        matches!(self, Self::Refused(problem) if is(problem, NO_ACCOUNT))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::Refused(problem),
            Error::Timeout(_) => Self::TooLate,
            other => Self::Exchange(other),
        }
    }
}

fn is(problem: &Problem, kind: &str) -> bool {
    problem.r#type.as_deref() == Some(kind)
}

/// Orders, proves each name in the one way, and fetches what is issued.
pub(crate) async fn obtain(
    account: &Account,
    names: &Names,
    kind: ChallengeKind,
    edge: &dyn Edge,
) -> Result<Certificate, Failure> {
    let dns = |name: &std::sync::Arc<str>| Identifier::Dns(name.to_string());
    let identifiers: Vec<Identifier> = names.iter().map(dns).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let shown = prove(&mut order, kind, edge).await?;
    await_proof(&mut order, kind).await?;
    drop(shown);
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&POLL).await?;
    let pem = format!("{}\n{key}", chain.trim_end());
    Ok(Certificate::parse(pem.into_bytes(), names)?)
}

/// Shows what the authority wants to see of each name that it has not seen yet, and says so.
async fn prove<'e>(
    order: &mut Order,
    kind: ChallengeKind,
    edge: &'e dyn Edge,
) -> Result<Shown<'e>, Failure> {
    let mut shown = Shown::new(edge);
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            // Proved for an earlier order (RFC 8555 §7.1.3). Any other state ends the order, and
            // waiting for it says so.
            _ => continue,
        }
        let name = authorization.identifier().to_string();
        let wanted = match kind {
            ChallengeKind::Http01 => ChallengeType::Http01,
            ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        };
        let Some(mut challenge) = authorization.challenge(wanted) else {
            return Err(Failure::NotOffered { kind, name });
        };
        let proof = challenge.key_authorization();
        match kind {
            ChallengeKind::Http01 => shown.http(&challenge.token, &proof)?,
            ChallengeKind::TlsAlpn01 => shown.tls(&name, &proof)?,
        }
        challenge.set_ready().await?;
    }
    Ok(shown)
}

async fn await_proof(order: &mut Order, kind: ChallengeKind) -> Result<(), Failure> {
    let status = order.poll_ready(&POLL).await;
    if let Ok(OrderStatus::Ready) = status {
        return Ok(());
    }
    // The order says that it failed, its authorizations say why.
    let why = match why_unproved(order).await {
        Some(why) => why,
        None => match status {
            Err(error) => return Err(error.into()),
            Ok(status) => format!("the order is {status:?}"),
        },
    };
    Err(Failure::Unproved { kind, why })
}

async fn why_unproved(order: &mut Order) -> Option<String> {
    let mut authorizations = order.authorizations();
    let mut why = Vec::new();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        let failed = authorization.challenges.iter();
        let failed = failed.filter_map(|challenge| challenge.error.as_ref());
        why.extend(failed.map(|problem| {
            let detail = problem.detail.as_deref().unwrap_or("no reason is given");
            format!("{name}: {detail}")
        }));
    }
    (!why.is_empty()).then(|| why.join("; "))
}

/// What is shown for one order, until this is dropped.
struct Shown<'e> {
    edge: &'e dyn Edge,
    tokens: Vec<String>,
    names: Vec<String>,
}

impl<'e> Shown<'e> {
    const fn new(edge: &'e dyn Edge) -> Self {
        Self {
            edge,
            tokens: Vec::new(),
            names: Vec::new(),
        }
    }

    fn http(&mut self, token: &str, proof: &KeyAuthorization) -> Result<(), Failure> {
        self.edge.show_http(token, proof.as_str())?;
        self.tokens.push(token.to_owned());
        Ok(())
    }

    fn tls(&mut self, name: &str, proof: &KeyAuthorization) -> Result<(), Failure> {
        let certificate = challenge_certificate(name, proof.digest().as_ref())?;
        self.edge.show_tls(name, &certificate)?;
        self.names.push(name.to_owned());
        Ok(())
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        for token in &self.tokens {
            self.edge.hide_http(token);
        }
        for name in &self.names {
            self.edge.hide_tls(name);
        }
    }
}

/// Self-signed, for the name alone, with the proof's digest in a critical extension (RFC 8737 §3).
fn challenge_certificate(name: &str, digest: &[u8]) -> Result<ChallengeCertificate, Failure> {
    let key = KeyPair::generate().map_err(Failure::Challenge)?;
    let mut params = CertificateParams::new([name.to_owned()]).map_err(Failure::Challenge)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key).map_err(Failure::Challenge)?;
    Ok(ChallengeCertificate {
        certificate: certificate.der().to_vec(),
        key: key.serialize_der(),
    })
}
