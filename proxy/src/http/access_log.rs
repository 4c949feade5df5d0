//! The access log: one structured line for each request, at level info and target
//! `sealane::access`. Called by `http::outcome` alone; never logs a query, a header or a body.

use super::coalesce::Part;
use super::outcome::RequestOutcome;
use super::split::Way;
use crate::upstream::hedging::Hedged;

/// Bytes of a host or path that are logged; longer ones are cut there. A head may hold 64 KiB, a log
/// line should not.
pub(crate) const TEXT_LOGGED_MAX: usize = 1_024;

/// Whether anybody reads it: what is only logged need not be gathered otherwise.
pub(crate) fn is_on() -> bool {
    tracing::enabled!(target: "sealane::access", tracing::Level::INFO)
}

pub(crate) fn write(request: &RequestOutcome<'_>) {
    if !is_on() {
        return;
    }
    let selected = request.selected;
    // To the microsecond.
    let duration_ms = (request.took.as_secs_f64() * 1e6).round() / 1e3;
    tracing::info!(
        target: "sealane::access",
        client = %request.client,
        method = request.method.as_str(),
        host = cut(request.host),
        path = cut(without_query(request.path)),
        status = request.status.map(|status| status.as_u16()),
        bytes_received = request.received,
        bytes_sent = request.sent,
        route = request.route.map(|route| &*route.rule.name),
        pool = selected.map(|selected| &*selected.pool_name),
        region = selected.map(|selected| &*selected.region_name),
        endpoint = selected.map(|selected| &*selected.name),
        attempts = request.attempts,
        sticky = request.session.map(|session| session.found.as_str()),
        split = request.way.as_ref().map(Way::as_str),
        hedge = request.hedge.map(Hedged::as_str),
        tier = request.tier.as_str(),
        reason = selected.map(|selected| selected.reason.as_str()),
        choice = selected.map(|selected| selected.choice.as_str()),
        ignored_health = selected.map(|selected| selected.ignored_health),
        duration_ms,
        request_id = request.request_id,
        refusal = request.refusal,
        cut_short = request.cut_short,
        coalesced = request.shared.map(Part::as_str),
    );
}

fn without_query(path: &str) -> &str {
    path.split_once(['?', '#']).map_or(path, |(path, _)| path)
}

/// Cuts between characters.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_LOGGED_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_not_logged() {
        assert_eq!(without_query("/a/b?token=secret"), "/a/b");
        assert_eq!(without_query("/a#b"), "/a");
        assert_eq!(without_query("/a"), "/a");
    }

    #[test]
    fn a_long_path_is_cut_between_characters() {
        let long = "é".repeat(TEXT_LOGGED_MAX);

        assert_eq!(cut(&long).len(), TEXT_LOGGED_MAX);
        assert_eq!(cut(&format!("x{long}")).len(), TEXT_LOGGED_MAX - 1);
        assert_eq!(cut("short"), "short");
    }
}
