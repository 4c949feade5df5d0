//! Our lawful "no" to a client: what it is called, which status it has, how it is written.
//! Decides nothing and sends nothing.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use sealane_model::Failure;

use super::fields::{Fields, Known};
use super::message::AnswerHead;
use crate::upstream::NoEndpoint;
use crate::upstream::rates::seconds;
use crate::upstream::route::Shed;

/// Why a request is not answered by an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not HTTP as RFC 9112 and RFC 9113 have it, or ambiguous. In words, for logs only.
    Malformed(&'static str),
    HeadTooLarge,
    /// The head took longer than `Limits::head_timeout`.
    HeadTimedOut,
    /// The worker held too many unfinished heads, and this was the oldest.
    HeadsFull,
    BodyTooLarge,
    /// The client stopped sending its body.
    BodyTimedOut,
    /// A transfer coding besides chunked (RFC 9112 §6.1).
    TransferCoding,
    /// `CONNECT`: no forward proxy here.
    Method,
    Version,
    /// This connection's client proved less than the host asks for (RFC 9110 §15.5.20).
    Misdirected,
    NoRoute,
    /// A page of another origin may not ask for this.
    Cors(NotAllowed),
    /// For gRPC clients; others get the operator's own words.
    Maintenance,
    /// A redirect would lead to the same place.
    RedirectLoop,
    /// A protocol over extended `CONNECT` besides WebSocket (RFC 8441 §4).
    ConnectProtocol,
    /// A WebSocket over HTTP/2 for an endpoint that does not take it.
    NoWebSocket,
    /// The client's own deadline (`grpc-timeout`) has passed.
    Deadline,
    NoEndpoint(NoEndpoint),
    /// There is no place for it. `after`: when to come back.
    Shed {
        shed: Shed,
        after: Duration,
    },
    /// It comes too often. `after`: until one more may come.
    RateLimited {
        after: Duration,
    },
    /// The last attempt's failure.
    Failed(Failure),
}

/// What a page of another origin may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAllowed {
    Origin,
    Method,
    Header,
}

impl Refusal {
    /// The word in metrics, logs and `x-sealane-refusal`.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_request",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadTimedOut => "head_timeout",
            Self::HeadsFull => "heads_full",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimedOut => "body_timeout",
            Self::TransferCoding => "transfer_coding",
            Self::Method => "method_not_allowed",
            Self::Version => "http_version",
            Self::Misdirected => "misdirected",
            Self::NoRoute => "no_route",
            Self::Cors(NotAllowed::Origin) => "cors_origin",
            Self::Cors(NotAllowed::Method) => "cors_method",
            Self::Cors(NotAllowed::Header) => "cors_header",
            Self::Maintenance => "maintenance",
            Self::RedirectLoop => "redirect_loop",
            Self::ConnectProtocol => "connect_protocol",
            Self::NoWebSocket => "websocket_unsupported",
            Self::Deadline => "deadline_exceeded",
            Self::Shed { shed, .. } => shed.as_str(),
            Self::RateLimited { .. } => "rate_limited",
            Self::NoEndpoint(NoEndpoint::NoData) => "no_usable_region",
            Self::NoEndpoint(NoEndpoint::NoMembers) => "empty_pool",
            Self::NoEndpoint(NoEndpoint::Unresolved) => "unresolved_endpoint",
            Self::NoEndpoint(NoEndpoint::AllTried) => "all_endpoints_tried",
            Self::NoEndpoint(NoEndpoint::NoRoom) => Shed::NoRoom.as_str(),
            Self::Failed(Failure::Refused) => "endpoint_refused",
            Self::Failed(Failure::Unreachable) => "endpoint_unreachable",
            Self::Failed(Failure::ConnectTimedOut) => "endpoint_connect_timeout",
            Self::Failed(Failure::Tls(_)) => "endpoint_tls",
            Self::Failed(Failure::TimedOut) => "endpoint_timeout",
            Self::Failed(Failure::Closed) => "endpoint_closed",
            Self::Failed(Failure::Protocol(_)) => "endpoint_protocol",
            Self::Failed(Failure::Unresolved(_)) => "unresolved_endpoint",
            Self::Failed(Failure::Status { .. } | Failure::Body) => "endpoint_answer",
        }
    }

    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::HeadTimedOut | Self::HeadsFull | Self::BodyTimedOut => {
                StatusCode::REQUEST_TIMEOUT
            }
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TransferCoding | Self::ConnectProtocol | Self::NoWebSocket => {
                StatusCode::NOT_IMPLEMENTED
            }
            Self::Cors(_) => StatusCode::FORBIDDEN,
            Self::RedirectLoop => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoEndpoint(_) | Self::Maintenance | Self::Shed { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Deadline | Self::Failed(Failure::TimedOut | Failure::ConnectTimedOut) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Failed(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// The code of gRPC's status list that says the same, as clients themselves map HTTP's ("HTTP to
    /// gRPC Status Code Mapping"), but for time-outs of a request that an endpoint may have begun
    /// to serve: clients repeat what is UNAVAILABLE.
    pub(crate) const fn grpc_status(&self) -> &'static str {
        match self {
            Self::Deadline | Self::Failed(Failure::TimedOut) => "4", // DEADLINE_EXCEEDED
            Self::BodyTimedOut | Self::HeadTimedOut | Self::HeadsFull => "4",
            Self::Cors(_) => "7",                           // PERMISSION_DENIED
            Self::HeadTooLarge | Self::BodyTooLarge => "8", // RESOURCE_EXHAUSTED
            // Its own allowance, as google.rpc.Code has it; UNAVAILABLE would be tried again at once.
            Self::RateLimited { .. } => "8",
            Self::NoRoute | Self::Method => "12", // UNIMPLEMENTED
            Self::ConnectProtocol | Self::NoWebSocket => "12",
            Self::Misdirected => "16", // UNAUTHENTICATED
            Self::Malformed(_) | Self::TransferCoding | Self::Version => "13", // INTERNAL
            Self::RedirectLoop => "13",
            Self::NoEndpoint(_) | Self::Maintenance | Self::Failed(_) => "14", // UNAVAILABLE
            Self::Shed { .. } => "14",
        }
    }

    /// Head and body of the answer. For gRPC the status rides in a head without a body
    /// ("Trailers-Only" in gRPC over HTTP/2).
    pub(crate) fn answer(&self, grpc: bool) -> (AnswerHead, Bytes) {
        let mut head = AnswerHead::new(StatusCode::OK);
        let fields = &mut head.fields;
        fields.append(Known::XSealaneRefusal, self.as_str().as_bytes());
        if grpc {
            self.compose_grpc(fields);
            return (head, Bytes::new());
        }
        head.status = self.status();
        let body = Bytes::from(format!("{} ({})\n", head.status, self.as_str()));
        fields.append(Known::ContentType, b"text/plain; charset=utf-8");
        fields.append(Known::ContentLength, body.len().to_string().as_bytes());
        match self {
            Self::NoEndpoint(_) => fields.append(Known::RetryAfter, b"1"),
            Self::Shed { after, .. } | Self::RateLimited { after } => {
                let seconds = seconds(*after).max(1).to_string();
                fields.append(Known::RetryAfter, seconds.as_bytes());
            }
            Self::Method => {
                fields.append(
                    Known::Allow,
                    b"GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH",
                );
            }
            _ => {}
        }
        (head, body)
    }

    fn compose_grpc(&self, fields: &mut Fields) {
        fields.append(Known::ContentType, b"application/grpc");
        fields.append(Known::GrpcStatus, self.grpc_status().as_bytes());
        fields.append("grpc-message", self.as_str().as_bytes());
        if let Self::Shed { after, .. } | Self::RateLimited { after } = self {
            // gRPC's retry design (A6): when a client that would try again may do so.
            let millis = after.as_millis().max(1).to_string();
            fields.append("grpc-retry-pushback-ms", millis.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_client_is_refused_in_its_own_words() {
        let (head, body) = Refusal::Failed(Failure::Refused).answer(true);

        assert_eq!(head.status, 200);
        assert_eq!(head.fields.get_str("grpc-status"), Some("14"));
        let word = head.fields.get_str("x-sealane-refusal");
        assert_eq!(word, Some("endpoint_refused"));
        assert!(body.is_empty());
    }

    #[test]
    fn the_documentation_has_a_row_for_each_refusal() {
        let doc = include_str!("../../../docs/HTTP.md");
        let text = String::new;
        let refusals = [
            Refusal::Malformed(""),
            Refusal::HeadTooLarge,
            Refusal::HeadTimedOut,
            Refusal::HeadsFull,
            Refusal::BodyTooLarge,
            Refusal::BodyTimedOut,
            Refusal::TransferCoding,
            Refusal::Method,
            Refusal::Version,
            Refusal::NoRoute,
            Refusal::Cors(NotAllowed::Origin),
            Refusal::Cors(NotAllowed::Method),
            Refusal::Cors(NotAllowed::Header),
            Refusal::Maintenance,
            Refusal::RedirectLoop,
            Refusal::ConnectProtocol,
            Refusal::NoWebSocket,
            Refusal::Deadline,
            Refusal::NoEndpoint(NoEndpoint::NoData),
            Refusal::NoEndpoint(NoEndpoint::NoMembers),
            Refusal::NoEndpoint(NoEndpoint::Unresolved),
            Refusal::NoEndpoint(NoEndpoint::AllTried),
            Refusal::Failed(Failure::Refused),
            Refusal::Failed(Failure::Unreachable),
            Refusal::Failed(Failure::ConnectTimedOut),
            Refusal::Failed(Failure::Tls(text())),
            Refusal::Failed(Failure::TimedOut),
            Refusal::Failed(Failure::Closed),
            Refusal::Failed(Failure::Protocol(text())),
        ];
        let after = Duration::from_secs(1);
        let shed = Shed::ALL.map(|shed| Refusal::Shed { shed, after });
        let limited = [Refusal::RateLimited { after }];
        for refusal in refusals.into_iter().chain(shed).chain(limited) {
            let (word, status) = (refusal.as_str(), refusal.status().as_u16());
            let row = format!("| `{word}` | {status} | {} |", refusal.grpc_status());
            assert!(doc.contains(&row), "{row}");
        }
    }

    #[test]
    fn who_has_to_come_back_later_is_told_when() {
        let shed = Refusal::Shed {
            shed: Shed::Region,
            after: Duration::from_millis(1_250),
        };
        let (head, _) = shed.answer(false);
        assert_eq!(head.status, 503);
        assert_eq!(head.fields.get_str("retry-after"), Some("2"));
        let (head, _) = shed.answer(true);
        assert_eq!(head.fields.get_str("grpc-status"), Some("14"));
        let pushback = head.fields.get_str("grpc-retry-pushback-ms");
        assert_eq!(pushback, Some("1250"));

        let limited = Refusal::RateLimited {
            after: Duration::from_millis(10),
        };
        let (head, _) = limited.answer(false);
        assert_eq!(head.status, 429);
        assert_eq!(head.fields.get_str("retry-after"), Some("1"));
        assert_eq!(limited.grpc_status(), "8");
    }

    #[test]
    fn a_refusal_names_its_reason_and_its_length() {
        let (head, body) = Refusal::NoRoute.answer(false);

        assert_eq!(head.status, 404);
        assert_eq!(head.fields.get_str("x-sealane-refusal"), Some("no_route"));
        let length = body.len().to_string();
        assert_eq!(head.fields.get_str("content-length"), Some(&*length));
    }
}
