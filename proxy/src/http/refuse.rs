//! Our lawful "no" to a client: what it is called, which status it has, how it is written.
//! Decides nothing and sends nothing.

use bytes::Bytes;
use http::StatusCode;
use sealane_model::Failure;

use super::fields::{Fields, Known};
use super::message::AnswerHead;
use crate::upstream::NoEndpoint;

/// Why a request is not answered by an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not HTTP as RFC 9112 and RFC 9113 have it, or ambiguous. In words, for logs only.
    Malformed(&'static str),
    HeadTooLarge,
    /// The head took longer than `Limits::head_timeout`.
    HeadTimedOut,
    BodyTooLarge,
    /// The client stopped sending its body.
    BodyTimedOut,
    /// A transfer coding besides chunked (RFC 9112 §6.1).
    TransferCoding,
    /// `CONNECT`: no forward proxy here.
    Method,
    Version,
    NoRoute,
    NoEndpoint(NoEndpoint),
    /// The last attempt's failure.
    Failed(Failure),
}

impl Refusal {
    /// The word in metrics, logs and `x-sealane-refusal`.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_request",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadTimedOut => "head_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimedOut => "body_timeout",
            Self::TransferCoding => "transfer_coding",
            Self::Method => "method_not_allowed",
            Self::Version => "http_version",
            Self::NoRoute => "no_route",
            Self::NoEndpoint(NoEndpoint::NoData) => "no_usable_region",
            Self::NoEndpoint(NoEndpoint::NoMembers) => "empty_pool",
            Self::NoEndpoint(NoEndpoint::Unresolved) => "unresolved_endpoint",
            Self::NoEndpoint(NoEndpoint::AllTried) => "all_endpoints_tried",
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
            Self::HeadTimedOut | Self::BodyTimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoEndpoint(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed(Failure::TimedOut | Failure::ConnectTimedOut) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Failed(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// The code of gRPC's status list that says the same.
    const fn grpc_status(&self) -> &'static str {
        match self {
            Self::NoRoute | Self::Method => "12",           // UNIMPLEMENTED
            Self::HeadTooLarge | Self::BodyTooLarge => "8", // RESOURCE_EXHAUSTED
            Self::BodyTimedOut | Self::HeadTimedOut => "4", // DEADLINE_EXCEEDED
            Self::Failed(Failure::TimedOut | Failure::ConnectTimedOut) => "4",
            Self::NoEndpoint(_) | Self::Failed(_) => "14", // UNAVAILABLE
            Self::Malformed(_) | Self::TransferCoding | Self::Version => "13", // INTERNAL
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
    fn a_refusal_names_its_reason_and_its_length() {
        let (head, body) = Refusal::NoRoute.answer(false);

        assert_eq!(head.status, 404);
        assert_eq!(head.fields.get_str("x-sealane-refusal"), Some("no_route"));
        let length = body.len().to_string();
        assert_eq!(head.fields.get_str("content-length"), Some(&*length));
    }
}
