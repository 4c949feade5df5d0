//! Headers on their way through: hop-by-hop ones end here, forwarding ones are written here.
use http::{HeaderMap, HeaderValue, Version};
use ipnet::IpNet;
use sealane_model::EndpointProtocol;
use std::net::IpAddr;

/// What is known of a request's way to us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forwarding<'a> {
    /// The connection's other side: the client, or a trusted proxy in front of us.
    pub(crate) peer: IpAddr,
    /// Its word about where the request comes from is believed.
    pub(crate) trusted_peer: bool,
    /// `http` or `https`.
    pub(crate) scheme: &'a str,
    /// As the client wrote it (`Host` or `:authority`).
    pub(crate) host: &'a str,
    pub(crate) request_id: &'a HeaderValue,
    /// `Connection` and `Upgrade` stay: the request asks for a tunnel (see [`wants_upgrade`]).
    pub(crate) upgrade: bool,
    /// In which version the request was received: `Via` says so.
    pub(crate) received: Version,
    /// In which protocol it goes on: `te: trailers` has a meaning in HTTP/2 only, as our HTTP/1
    /// side carries no trailers.
    pub(crate) toward: EndpointProtocol,
}
pub(crate) fn toward_endpoint(_headers: &mut HeaderMap, _forwarding: &Forwarding<'_>) {}
pub(crate) fn toward_client(
    _headers: &mut HeaderMap,
    _named: Option<(&HeaderValue, &HeaderValue)>,
    _request_id: &HeaderValue,
    _upgrade: bool,
) {
}
pub(crate) fn client_address(peer: IpAddr, _headers: &HeaderMap, _trusted: &[IpNet]) -> IpAddr {
    peer
}
pub(crate) fn request_id(_headers: &HeaderMap, _trusted_peer: bool, _random: u128) -> HeaderValue {
    HeaderValue::from_static("0")
}
pub(crate) fn is_grpc(_headers: &HeaderMap) -> bool {
    false
}
pub(crate) fn wants_upgrade(_headers: &HeaderMap) -> bool {
    false
}
