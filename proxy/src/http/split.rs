//! Which of a route's pools serves a request, where a share of them goes to another one, and what
//! its end says about that one. Called by `http::exchange` once the route is known, and at the end.
//!
//! Who goes, and when a canary is too bad, is decided in [`crate::upstream::canary`].

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;

use super::coalesce::Part;
use super::context::RequestContext;
use super::cookies::cookie;
use super::fields::Known;
use super::message::AnswerHead;
use super::route::RouteState;
use super::sticky::Session;
use crate::config::{Action, Destination, SplitKey};
use crate::random;
use crate::upstream::canary::{Branch, Side};

/// Where a request of a split route went, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// Of the route's splits. `None`: to the route's own pool.
    canary: Option<usize>,
    /// Its key is the canary's, but that one is aborted.
    held_back: bool,
    /// Until the head of the answer.
    answered: Option<(Duration, bool)>,
    /// Its endpoint broke its answer off.
    pub(crate) broke_off: bool,
}

impl Way {
    /// The word in the access log.
    pub(crate) const fn as_str(&self) -> &'static str {
        match (self.canary, self.held_back) {
            (Some(_), _) => "canary",
            (None, true) => "aborted",
            (None, false) => "baseline",
        }
    }

    /// 0 for the route's own pool, less than ten for a canary.
    pub(crate) fn number(&self) -> usize {
        self.canary.map_or(0, |at| at + 1)
    }

    /// An endpoint has begun to answer.
    pub(crate) fn note_answer(&mut self, after: Duration, head: &AnswerHead, grpc: bool) {
        self.answered = Some((after, is_error(head, grpc)));
    }
}

/// `None`: nothing is split off. Asked once the request's session is known.
pub(crate) fn choose(route: &RouteState, request: &RequestContext) -> Option<Way> {
    if route.branches.is_empty() {
        return None;
    }
    let mut rules = route.rule.options.split.iter().zip(&route.branches);
    let mut point = None;
    let at = rules.position(|(rule, branch)| takes(branch, rule.key.as_ref(), request, &mut point));
    // A key whose canary is aborted is no other canary's.
    let open = at.filter(|at| !route.branches[*at].canary.is_aborted());
    let way = Way {
        canary: open,
        held_back: at.is_some() && open.is_none(),
        answered: None,
        broke_off: false,
    };
    if let Some(at) = at {
        let pool = &route.rule.options.split[at].name;
        route.metrics.split(pool, way.as_str());
    }
    Some(way)
}

/// Where the request goes. `None`: the route answers by itself.
pub(crate) fn destination<'r>(
    route: &'r RouteState,
    request: &RequestContext,
) -> Option<&'r Destination> {
    if let Some(at) = request.way.as_ref().and_then(|way| way.canary) {
        return Some(&route.rule.options.split.get(at)?.to);
    }
    match &route.rule.action {
        Action::Forward(to) => Some(to),
        Action::Redirect(_) | Action::Respond(_) => None,
    }
}

/// `point`: what the request is drawn by where it has no key; the same for all branches.
fn takes(
    branch: &Branch,
    key: Option<&SplitKey>,
    request: &RequestContext,
    point: &mut Option<f64>,
) -> bool {
    let fields = &request.head.fields;
    let key = match key {
        Some(SplitKey::ClientIp) => return branch.takes(&network(request.place.address)),
        Some(SplitKey::Header(name)) => fields.get(name),
        Some(SplitKey::Cookie(name)) => cookie(fields, name),
        None => None,
    };
    if let Some(key) = key.filter(|key| !key.is_empty()) {
        return branch.takes(key);
    }
    // A session that changed pools with each request would be none.
    if let Some(number) = request.session.as_ref().and_then(Session::number) {
        return branch.takes(&number.to_le_bytes());
    }
    branch.takes_point(point.get_or_insert_with(random::point))
}

/// An IPv4 address, or the /64 of an IPv6 address: within it clients change theirs as they like.
pub(crate) const fn network(address: IpAddr) -> [u8; 8] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            // No unicast network begins like that.
            [0xff, 0xff, 0xff, 0xff, a, b, c, d]
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h, ..] = v6.octets();
            [a, b, c, d, e, f, g, h]
        }
    }
}

/// Says how the request went, to all canaries that it has to do with: its own, or those whose
/// baseline it is part of. `took`: until its end.
pub(crate) fn settle(request: &RequestContext, worker: u32, took: Duration) {
    let (Some(way), Some(route)) = (&request.way, &request.route) else {
        return;
    };
    let Some((after, failed)) = end_of(request, way, took) else {
        return;
    };
    let now = (request.started + took).into_std();
    let rules = route.rule.options.split.iter().zip(&route.branches);
    for (at, (rule, branch)) in rules.enumerate() {
        let side = match way.canary {
            None => Side::Baseline,
            Some(ours) if ours == at => Side::Canary,
            Some(_) => continue,
        };
        let grounds = branch.canary.record(worker, side, failed, after, now);
        if let Some(grounds) = grounds {
            tracing::warn!(
                route = &*route.rule.name,
                pool = &*rule.name,
                "the canary is aborted and gets no more requests: {grounds}"
            );
            route.metrics.split_aborted(&rule.name, grounds.as_str());
        }
    }
}

/// How long it took to be answered, and whether it failed. `None`: that says nothing about the
/// endpoints, as where the client left or asked for what it may not have.
fn end_of(request: &RequestContext, way: &Way, took: Duration) -> Option<(Duration, bool)> {
    // An attempt that many share is one attempt: that of the one who began it.
    let is_anothers = way.answered.is_some() && request.attempts == 0;
    if is_anothers || request.shared == Some(Part::Followed) {
        return None;
    }
    if let Some((after, failed)) = way.answered {
        return Some((after, failed || way.broke_off));
    }
    let word = request.refusal?;
    is_the_endpoints(word).then_some((took, true))
}

/// Refusals for want of an endpoint that answers. Not those of the client's making, nor those by
/// which we hold requests back ourselves.
fn is_the_endpoints(refusal: &str) -> bool {
    const OTHERS: [&str; 5] = [
        "no_usable_region",
        "empty_pool",
        "unresolved_endpoint",
        "all_endpoints_tried",
        "deadline_exceeded",
    ];
    refusal.starts_with("endpoint_") || OTHERS.contains(&refusal)
}

/// 5xx; for gRPC what a head without a message says ("Trailers-Only"), if it is the server's fault:
/// UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
fn is_error(head: &AnswerHead, grpc: bool) -> bool {
    if head.status.is_server_error() {
        return true;
    }
    let status = head.fields.get(Known::GrpcStatus);
    grpc && head.status == StatusCode::OK
        && matches!(status, Some(b"2" | b"4" | b"12" | b"13" | b"14" | b"15"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_one_ipv6_network_have_one_key_and_others_have_their_own() {
        let key = |address: &str| network(address.parse().unwrap());

        assert_eq!(key("2001:db8::1"), key("2001:db8::2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    #[test]
    fn what_a_client_did_wrong_says_nothing_about_a_canary() {
        assert!(is_the_endpoints("endpoint_timeout"));
        assert!(is_the_endpoints("no_usable_region"));
        assert!(!is_the_endpoints("body_too_large"));
        assert!(!is_the_endpoints("overloaded"));
    }

    #[test]
    fn a_grpc_call_fails_by_what_its_head_says() {
        let mut head = AnswerHead::new(StatusCode::OK);
        head.fields.append(Known::GrpcStatus, b"14");

        assert!(is_error(&head, true));
        assert!(!is_error(&head, false));
        head.fields.insert(Known::GrpcStatus, b"5");
        assert!(!is_error(&head, true));
        assert!(is_error(&AnswerHead::new(StatusCode::BAD_GATEWAY), false));
    }
}
