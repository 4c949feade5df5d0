//! Whether a zone that came whole may be served: what a primary says is held to what the file's zones are held to.

use super::book::{Held, fill};
use super::incoming::Received;
use super::serial::is_newer;
use crate::config::Zone;
use crate::wire::rtype;
use crate::zone;

/// Types that only a zone's signer makes.
const SIGNERS: [u16; 5] = [rtype::RRSIG, rtype::NSEC, rtype::DNSKEY, NSEC3, NSEC3PARAM];
const NSEC3: u16 = 50;
const NSEC3PARAM: u16 = 51;
/// As many mistakes are told.
const MISTAKES_MAX: usize = 3;

/// `zone` is what the operator wrote of it, `before` what was here.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn judge(zone: &Zone, given: &Held, before: Option<&Held>) -> Result<(), String> {
    if let Some(before) = before.filter(|before| !before.is_expired)
        && is_newer(before.soa.serial, given.soa.serial)
    {
        let (given, before) = (given.soa.serial, before.soa.serial);
        return Err(format!("its serial {given} is older than {before}"));
    }
    if given.records.iter().any(|r| SIGNERS.contains(&r.rtype)) {
        return Err(
            "it is signed by its primary, which is not served: have the primary give it unsigned, and sign it here"
                .to_owned(),
        );
    }
    let mut filled = zone.clone();
    fill(&mut filled, Some(given));
    let mistakes = zone::check(&filled).mistakes;
    if !mistakes.is_empty() {
        let shown = mistakes.iter().take(MISTAKES_MAX).cloned();
        return Err(shown.collect::<Vec<_>>().join("; "));
    }
    match &zone.dnssec {
        Some(dnssec) => {
            let longest = filled.records.iter().map(|record| record.ttl).max();
            let allowed = dnssec.validity / 3;
            match longest.filter(|ttl| u64::from(ttl.as_secs()) > allowed.as_secs()) {
                Some(ttl) => Err(format!(
                    "it has a TTL of {}s, more than a third of its signatures' validity",
                    ttl.as_secs()
                )),
                None => Ok(()),
            }
        }
        None => Ok(()),
    }
}

impl Held {
    pub(crate) fn new(given: Received, from: std::net::SocketAddr, heard_at: u64) -> Self {
        let Received {
            soa,
            soa_record,
            records,
            is_incremental: _,
        } = given;
        Self {
            soa,
            soa_record,
            records,
            from,
            heard_at: heard_at.into(),
            is_expired: false,
        }
    }
}
