//! Questions about the server itself, in class CH (RFC 4892): its version and which one it is.
//!
//! Answered only as far as the operator has said what to answer; the rest is refused.

use crate::answer::Answer;
use crate::config::Identity;
use crate::question::Question;
use crate::wire::{Rcode, rtype};
use sealane_model::Ttl;

pub(crate) fn resolve(question: &Question<'_>, identity: &Identity, answer: &mut Answer<'_, '_>) {
    let text = match question.name.wire() {
        b"\x07version\x04bind\0" | b"\x07version\x06server\0" => &identity.version,
        b"\x02id\x06server\0" | b"\x08hostname\x04bind\0" => &identity.id,
        _ => &None,
    };
    let Some(text) = text else {
        answer.rcode = Rcode::Refused;
        answer.authoritative = false;
        return;
    };
    if !matches!(question.rtype, rtype::TXT | rtype::ANY) {
        return;
    }
    let text = text.as_bytes();
    let text = text.get(..TEXT_MAX).unwrap_or(text);
    let mut data = [0; TEXT_MAX + 1];
    // At most 255.
    data[0] = text.len() as u8;
    data[1..=text.len()].copy_from_slice(text);
    answer.single(rtype::TXT, Ttl::from_secs(0), &data[..=text.len()], None);
}

/// The longest text of one TXT string (RFC 1035 §3.3.14).
const TEXT_MAX: usize = 255;
