//! Where the name server takes questions over TLS, HTTPS and QUIC, and with which certificates.

use sealane_dns::config::{Encrypted, Protocol};
use sealane_proxy::tls::ServerTls;

use super::super::decode::{At, List, OneOrMany};
use super::super::error::Mistake;
use super::super::spec::{DnsHttpsSpec, DnsQuicSpec, DnsSpec, DnsTlsSpec, ListenerCertificateSpec};
use super::super::unit::{Bind, Text};
use super::{Parser, Transport};

type Binds<'s> = Option<&'s At<OneOrMany<Bind>>>;
type Certificates<'s> = Option<&'s At<List<ListenerCertificateSpec>>>;

/// What all protocols have.
struct Spoken<'s> {
    protocol: Protocol,
    bind: Binds<'s>,
    certificates: Certificates<'s>,
}

fn of_tls(spec: &DnsTlsSpec) -> Spoken<'_> {
    let DnsTlsSpec {
        span: _,
        broken: _,
        bind,
        certificates,
    } = spec;
    Spoken {
        protocol: Protocol::Tls,
        bind: bind.as_ref(),
        certificates: certificates.as_ref(),
    }
}

fn of_https(spec: &DnsHttpsSpec) -> Spoken<'_> {
    let DnsHttpsSpec {
        span: _,
        broken: _,
        bind,
        path: _,
        certificates,
    } = spec;
    Spoken {
        protocol: Protocol::Https,
        bind: bind.as_ref(),
        certificates: certificates.as_ref(),
    }
}

fn of_quic(spec: &DnsQuicSpec) -> Spoken<'_> {
    let DnsQuicSpec {
        span: _,
        broken: _,
        bind,
        certificates,
    } = spec;
    Spoken {
        protocol: Protocol::Quic,
        bind: bind.as_ref(),
        certificates: certificates.as_ref(),
    }
}

fn spoken(spec: &DnsSpec) -> impl Iterator<Item = Spoken<'_>> {
    let tls = spec.tls.as_ref().map(|tls| of_tls(&tls.value));
    let https = spec.https.as_ref().map(|https| of_https(&https.value));
    let quic = spec.quic.as_ref().map(|quic| of_quic(&quic.value));
    tls.into_iter().chain(https).chain(quic)
}

impl Parser<'_> {
    /// Those that have all they need; mistakes are noted.
    pub(super) fn dns_encrypted(&mut self, spec: Option<&At<DnsSpec>>) -> Vec<Encrypted> {
        let Some(spec) = spec.map(|spec| &spec.value) else {
            return Vec::new();
        };
        let path = spec.https.as_ref().and_then(|at| at.value.path.as_ref());
        let path = path.map(|path| self.dns_path(path));
        let read = |spoken| self.dns_protocol(&spoken);
        let mut all: Vec<_> = spoken(spec).filter_map(read).collect();
        for one in &mut all {
            if one.protocol == Protocol::Https
                && let Some(Some(path)) = &path
            {
                one.path = path.as_str().into();
            }
        }
        all
    }

    fn dns_protocol(&mut self, spoken: &Spoken<'_>) -> Option<Encrypted> {
        let protocol = spoken.protocol;
        let (who, transport) = match protocol {
            Protocol::Tls => ("DNS over TLS", Transport::Tcp),
            Protocol::Https => ("DNS over HTTPS", Transport::Tcp),
            Protocol::Quic => ("DNS over QUIC", Transport::Udp),
        };
        if let Some(bind) = spoken.bind {
            if bind.value.is_empty() {
                self.notes.wrong(bind.span, format!("{who} has no address"));
            }
            for address in bind.value.iter() {
                self.bind(transport, address.value.0, address.span, who);
            }
        }
        let tls = self.server_tls(spoken.certificates?, None)?;
        let bind = spoken.bind?.value.iter().map(|at| at.value.0).collect();
        Some(Encrypted::new(protocol, bind, &tls))
    }

    fn dns_path(&mut self, path: &At<Text>) -> Option<String> {
        let text = path.0.as_str();
        let octets = text.strip_prefix('/').unwrap_or("?").bytes();
        let lawful = |octet: u8| octet.is_ascii_graphic() && !b"?#{}\\\"<>^`|%".contains(&octet);
        if octets.clone().all(lawful) {
            return Some(text.to_owned());
        }
        let message = format!("`{}` is no path", text.escape_debug());
        self.notes.mistake(
            Mistake::new(path.span, message)
                .expected("a path such as `/dns-query`, without a query"),
        );
        None
    }
}

/// What the name server serves TLS with, whatever else is wrong.
pub(super) fn renewed(parser: &mut Parser<'_>, spec: &DnsSpec) -> Vec<(Protocol, ServerTls)> {
    let tls = spoken(spec).filter_map(|spoken| {
        let tls = parser.server_tls(spoken.certificates?, None)?;
        Some((spoken.protocol, tls))
    });
    tls.collect()
}
