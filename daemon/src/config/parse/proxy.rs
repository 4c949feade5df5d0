//! Listeners, routes and limits of the proxy.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use sealane_proxy::config::{
    Action, Destination, FlowRule, HeaderMatch, HostPattern, Limits, Listener, ListenerProtocol,
    OnDown, Route, RouteMatch, SessionRule, SessionTimeouts, Timeouts,
};

use super::super::decode::{At, List, Table, nearest};
use super::super::error::Mistake;
use super::super::source::Span;
use super::super::spec::{
    FlowsSpec, LimitsSpec, ListenerKind, ListenerSpec, MatchSpec, OnDownWord, RouteSpec,
    SendersSpec, SessionTimeoutsSpec, SniSpec, TimeoutsSpec,
};
use super::super::unit::{Text, host_name, print_duration};
use super::retries::hedge_policy;
use super::{Parser, Transport};

impl Parser<'_> {
    pub(super) fn listeners(&mut self, table: Option<&At<Table<ListenerSpec>>>) -> Vec<Listener> {
        let entries = table.iter().flat_map(|table| table.value.iter());
        let mut listeners = Vec::new();
        for entry in entries {
            if let Some(spec) = &entry.value {
                listeners.extend(self.listener(&entry.name, spec));
            }
        }
        listeners
    }

    fn listener(&mut self, name: &At<String>, spec: &At<ListenerSpec>) -> Option<Listener> {
        let ListenerSpec {
            span: _,
            broken,
            bind,
            protocol,
            certificates: _,
            tls: _,
            pool: _,
            timeouts: _,
            on_down: _,
            flows: _,
            sni: _,
            proxy_protocol,
            redirect_to_https,
        } = &spec.value;
        let bind = bind.as_ref()?;
        if bind.value.is_empty() && !broken {
            let message = format!("the listener `{}` has no address", name.value);
            self.notes.wrong(bind.span, message);
        }
        let protocol = protocol.as_ref()?;
        let transport = match protocol.value {
            ListenerKind::Udp => Transport::Udp,
            _ => Transport::Tcp,
        };
        for address in bind.value.iter() {
            let who = format!("the listener `{}`", name.value);
            self.bind(transport, address.value.0, address.span, &who);
        }
        let misplaced = self.misplaced(protocol.value, &spec.value);
        let protocol = match protocol.value {
            ListenerKind::Http => Some(ListenerProtocol::Http),
            ListenerKind::Https => self.https(name, &spec.value),
            ListenerKind::Tcp => self.tcp(name, &spec.value),
            ListenerKind::TlsPassthrough => self.tls_passthrough(name, &spec.value),
            ListenerKind::Udp => self.udp(name, &spec.value),
        };
        Some(Listener {
            name: name.as_str().into(),
            bind: bind.value.iter().map(|at| at.value.0).collect(),
            protocol: protocol.filter(|_| !misplaced)?,
            senders: match proxy_protocol {
                Some(senders) => self.senders(senders)?,
                None => Vec::new(),
            },
            redirect_to_https: redirect_to_https
                .as_ref()
                .and_then(|port| u16::try_from(port.value.0).ok()),
        })
    }

    /// Are there keys that say nothing for such a listener? Each is a mistake.
    fn misplaced(&mut self, kind: ListenerKind, spec: &ListenerSpec) -> bool {
        let before = self.notes.count();
        let is_http = matches!(kind, ListenerKind::Http | ListenerKind::Https);
        let word = kind.as_str();
        if kind != ListenerKind::Https
            && let Some(certificates) = &spec.certificates
        {
            let message = format!("a listener of `{word}` has no certificates");
            let mut mistake = Mistake::new(certificates.span, message);
            if kind == ListenerKind::Http {
                mistake = mistake.help("write `protocol: https`");
            }
            self.notes.mistake(mistake);
        }
        if kind != ListenerKind::Https
            && let Some(tls) = &spec.tls
        {
            let message = format!("a listener of `{word}` has no `tls`");
            let mut mistake = Mistake::new(tls.span, message);
            if kind == ListenerKind::Http {
                mistake = mistake.help("write `protocol: https`");
            }
            self.notes.mistake(mistake);
        }
        if is_http && let Some(pool) = &spec.pool {
            let message = format!("a listener of `{word}` has no pool of its own");
            let mistake = Mistake::new(pool.span, message);
            self.notes
                .mistake(mistake.help("write `routes: [{ pool: NAME }]`, or another `protocol`"));
        }
        if let Some(port) = spec
            .redirect_to_https
            .as_ref()
            .filter(|_| kind != ListenerKind::Http)
        {
            let message = format!("a listener of `{word}` has nothing to redirect to HTTPS");
            self.notes.wrong(port.span, message);
        }
        let of_sessions = [
            ("timeouts", spec.timeouts.as_ref().map(|at| at.span)),
            ("on_down", spec.on_down.as_ref().map(|at| at.span)),
        ];
        if kind == ListenerKind::Udp {
            self.misplaced_in_udp(spec);
        } else if let Some(flows) = &spec.flows {
            let message = format!("a listener of `{word}` has no `flows`");
            self.notes.wrong(flows.span, message);
        }
        if kind != ListenerKind::TlsPassthrough
            && let Some(sni) = &spec.sni
        {
            let message = format!("a listener of `{word}` has no `sni`");
            let mistake = Mistake::new(sni.span, message);
            self.notes
                .mistake(mistake.help("server names lead to pools under `tls_passthrough`"));
        }
        for (key, span) in of_sessions {
            if is_http && let Some(span) = span {
                let message = format!("a listener of `{word}` has no `{key}`");
                self.notes.wrong(span, message);
            }
        }
        self.notes.count() != before
    }

    fn misplaced_in_udp(&mut self, spec: &ListenerSpec) {
        let timeouts = spec.timeouts.as_ref().map(|timeouts| &timeouts.value);
        let connect = timeouts.and_then(|timeouts| Some(timeouts.connect.as_ref()?.span));
        let lifetime = timeouts.and_then(|timeouts| Some(timeouts.lifetime.as_ref()?.span));
        let of_connections = [
            ("timeouts.connect", connect),
            ("timeouts.lifetime", lifetime),
            (
                "proxy_protocol",
                spec.proxy_protocol.as_ref().map(|at| at.span),
            ),
        ];
        for (key, span) in of_connections {
            if let Some(span) = span {
                let message = format!("a listener of `udp` has no `{key}`");
                self.notes.wrong(span, message);
            }
        }
    }

    fn https(&mut self, name: &At<String>, spec: &ListenerSpec) -> Option<ListenerProtocol> {
        match &spec.certificates {
            Some(certificates) if !certificates.value.is_empty() => {
                let tls = self.server_tls(certificates, spec.tls.as_ref())?;
                Some(ListenerProtocol::Https(tls))
            }
            _ => {
                let message = format!("the listener `{}` lacks a certificate", name.value);
                let expected = "`certificates: [{ chain: FILE, key: FILE }]`";
                self.lacks(spec, message, expected);
                None
            }
        }
    }

    fn tcp(&mut self, name: &At<String>, spec: &ListenerSpec) -> Option<ListenerProtocol> {
        let Some(pool) = &spec.pool else {
            let message = format!("the listener `{}` lacks a pool", name.value);
            self.lacks(spec, message, "`pool: NAME`");
            return None;
        };
        Some(ListenerProtocol::Tcp {
            to: self.destination(pool)?,
            how: session_rule(spec)?,
        })
    }

    fn udp(&mut self, name: &At<String>, spec: &ListenerSpec) -> Option<ListenerProtocol> {
        let Some(pool) = &spec.pool else {
            let message = format!("the listener `{}` lacks a pool", name.value);
            self.lacks(spec, message, "`pool: NAME`");
            return None;
        };
        let to = self.destination_of(pool)?;
        let FlowsSpec {
            span: _,
            broken: _,
            max,
            per_client,
            answers,
        } = &spec.flows.as_ref()?.value;
        let answers = answers
            .as_ref()
            .and_then(|answers| u32::try_from(answers.value.0).ok());
        Some(ListenerProtocol::Udp {
            to,
            how: FlowRule {
                flows: usize::try_from(max.as_ref()?.value.0).ok()?,
                flows_per_client: usize::try_from(per_client.as_ref()?.value.0).ok()?,
                idle: spec.timeouts.as_ref()?.value.idle.as_ref()?.value.0,
                answers,
                on_down: on_down(spec.on_down.as_ref()?.value),
            },
        })
    }

    fn tls_passthrough(
        &mut self,
        name: &At<String>,
        spec: &ListenerSpec,
    ) -> Option<ListenerProtocol> {
        let listed = spec
            .sni
            .as_ref()
            .map_or(0, |list| list.value.iter().count());
        if listed == 0 && spec.pool.is_none() {
            let message = format!("the listener `{}` leads nowhere", name.value);
            self.lacks(spec, message, "`sni: [{ match: NAME, pool: NAME }]`");
            return None;
        }
        let mut names = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        for entry in spec.sni.iter().flat_map(|list| list.value.iter()) {
            let SniSpec {
                span: _,
                broken: _,
                r#match,
                pool,
            } = &entry.value;
            let pattern = r#match
                .as_ref()
                .and_then(|at| self.server_name(at, &mut seen));
            let to = pool.as_ref().and_then(|pool| self.destination(pool));
            names.extend(pattern.zip(to));
        }
        let otherwise = match &spec.pool {
            Some(pool) => Some(self.destination(pool)?),
            None => None,
        };
        (names.len() == listed).then_some(ListenerProtocol::TlsPassthrough {
            names,
            otherwise,
            how: session_rule(spec)?,
        })
    }

    fn server_name(
        &mut self,
        at: &At<Text>,
        seen: &mut HashMap<String, Span>,
    ) -> Option<HostPattern> {
        let text = at.0.as_str();
        let (pattern, key) = if let Some(name) = text.strip_prefix("*.").and_then(host_name) {
            let suffix = format!(".{name}");
            (HostPattern::Suffix(suffix.as_str().into()), suffix)
        } else if let Some(name) = host_name(text) {
            (HostPattern::Exact(name.as_str().into()), name)
        } else {
            let message = format!(
                "no client asks for the server name `{}`",
                text.escape_debug()
            );
            let mut mistake = Mistake::new(at.span, message)
                .expected("`db.example.com`, or `*.example.com` for names below it");
            if text == "*" {
                mistake = mistake.help("the listener's `pool` serves all other names");
            }
            self.notes.mistake(mistake);
            return None;
        };
        if let Some(first) = seen.insert(key, at.span) {
            let message = format!(
                "the server name `{}` stands here twice",
                text.escape_debug()
            );
            self.notes
                .mistake(Mistake::new(at.span, message).related(first, "first here"));
        }
        Some(pattern)
    }

    fn senders(&mut self, spec: &At<SendersSpec>) -> Option<Vec<IpNet>> {
        let SendersSpec {
            span: _,
            broken,
            from,
        } = &spec.value;
        let from = from.as_ref()?;
        let nets: Vec<IpNet> = from.value.iter().map(|net| net.value.0).collect();
        if nets.is_empty() && !broken {
            self.notes.mistake(
                Mistake::new(from.span, "a PROXY header is read from nobody")
                    .help("name the load balancers' networks, or leave `proxy_protocol` out"),
            );
            return None;
        }
        if let Some(open) = nets.iter().find(|net| net.prefix_len() == 0) {
            let message =
                format!("{open} is everybody: whoever reaches this listener names its own address");
            self.notes.warn(from.span, message);
        }
        Some(nets)
    }

    /// The pool that serves sessions.
    fn destination(&mut self, pool: &At<Text>) -> Option<Destination> {
        let destination = self.destination_of(pool)?;
        if let Some(tls) = self.pools.get(&pool.0).and_then(|known| known.tls) {
            let message = format!("the pool `{}` is spoken to over TLS", pool.0);
            self.notes.mistake(
                Mistake::new(pool.span, message)
                    .related(tls, "here")
                    .help("sessions are passed on as they are, TLS included: leave `tls` out"),
            );
            return None;
        }
        Some(destination)
    }

    /// Says so, unless what is lacking may be what another mistake is about.
    fn lacks(&mut self, spec: &ListenerSpec, message: String, expected: &str) {
        if !spec.broken {
            let span = spec.protocol.as_ref().map_or(spec.span, |at| at.span);
            self.notes
                .mistake(Mistake::new(span, message).expected(expected));
        }
    }

    pub(super) fn routes(
        &mut self,
        list: Option<&At<List<RouteSpec>>>,
        is_listening: bool,
    ) -> Vec<Route> {
        let Some(list) = list else {
            return Vec::new();
        };
        let mut names: HashMap<&str, Span> = HashMap::new();
        let mut routes = Vec::new();
        for spec in list.value.iter() {
            if let Some(name) = &spec.value.name
                && let Some(first) = names.insert(&name.0, name.span.or(spec.span))
            {
                let message = format!("two routes are called `{}`", name.0.escape_debug());
                self.notes.mistake(
                    Mistake::new(name.span.or(spec.span), message).related(first, "first here"),
                );
            }
            routes.extend(self.route(spec));
        }
        if is_listening && list.value.is_empty() {
            self.notes.mistake(
                Mistake::new(
                    list.span.or(Span::at(0, 1, 1)),
                    "there are listeners but no routes",
                )
                .help("every request would be refused; add `routes: [{ pool: NAME }]`"),
            );
        }
        if !is_listening && !list.value.is_empty() && self.notes.count() == 0 {
            self.notes
                .warn(list.span, "there are routes but no listeners");
        }
        self.warn_of_shadows(&routes, list);
        routes
    }

    /// Of two routes that match the same, the first serves.
    fn warn_of_shadows(&mut self, routes: &[Route], list: &At<List<RouteSpec>>) {
        if routes.len() != list.value.len() {
            return;
        }
        let mut seen: HashMap<String, &Route> = HashMap::new();
        for (route, spec) in routes.iter().zip(list.value.iter()) {
            let when = format!("{:?}", route.when);
            if let Some(first) = seen.get(&when) {
                let message = format!(
                    "the route `{}` serves nothing: `{}` matches the same and comes first",
                    route.name, first.name
                );
                self.notes.warn(spec.span, message);
            } else {
                seen.insert(when, route);
            }
        }
    }

    fn route(&mut self, spec: &At<RouteSpec>) -> Option<Route> {
        let RouteSpec {
            span: _,
            broken: _,
            name,
            r#match,
            pool: _,
            redirect: _,
            respond: _,
            timeouts,
            retry,
            hedge,
            body_max,
            rewrite: _,
            request_headers: _,
            response_headers: _,
            maintenance: _,
            cors: _,
            compression: _,
            coalesce: _,
            mirror: _,
            tier: _,
            tenant: _,
            bulkhead: _,
            rate_limit: _,
            split: _,
            sticky: _,
        } = &spec.value;
        let when = r#match.as_ref().and_then(|when| self.route_match(when));
        let action = self.action(spec);
        let timeouts = timeouts.as_ref().and_then(|spec| self.timeouts(spec));
        let options = self.route_options(&spec.value);
        Some(Route {
            name: name.as_ref()?.0.as_str().into(),
            when: when?,
            action: action?,
            timeouts: timeouts?,
            retry: self.retry_policy(retry.as_ref()?)?,
            hedge: hedge_policy(hedge.as_ref())?,
            body_max: body_max.as_ref()?.value.0,
            options: options?,
        })
    }

    pub(super) fn pool_for_requests(&mut self, name: &At<Text>) -> Option<Destination> {
        let found = self.destination_of(name)?;
        if let Some(told) = self
            .pools
            .get(&name.0)
            .and_then(|known| known.proxy_protocol)
        {
            let message = format!(
                "the pool `{}` wants PROXY headers, which requests do not have",
                name.0
            );
            self.notes.mistake(
                Mistake::new(name.span, message).related(told, "here").help(
                    "clients share connections to endpoints; X-Forwarded-For says who each request is from",
                ),
            );
        }
        Some(found)
    }

    /// What the route does: the one of three that it says.
    fn action(&mut self, spec: &At<RouteSpec>) -> Option<Action> {
        let RouteSpec {
            broken,
            pool,
            redirect,
            respond,
            ..
        } = &spec.value;
        let said = [
            pool.as_ref().map(|at| ("pool", at.span)),
            redirect.as_ref().map(|at| ("redirect", at.span)),
            respond.as_ref().map(|at| ("respond", at.span)),
        ];
        let said: Vec<_> = said.into_iter().flatten().collect();
        if let [(first, there), (second, here), ..] = said[..] {
            let message = format!("a route has either `{first}` or `{second}`, not both");
            self.notes
                .mistake(Mistake::new(here, message).related(there, format!("`{first}`")));
            return None;
        }
        if let Some(pool) = pool {
            return self.pool_for_requests(pool).map(Action::Forward);
        }
        if let Some(redirect) = redirect {
            return self.redirect(redirect).map(Action::Redirect);
        }
        if let Some(respond) = respond {
            return self.respond(respond).map(Action::Respond);
        }
        if !broken {
            self.notes.mistake(
                Mistake::new(spec.span, "the route leads nowhere")
                    .expected("`pool`, `redirect` or `respond`"),
            );
        }
        None
    }

    fn route_match(&mut self, spec: &At<MatchSpec>) -> Option<RouteMatch> {
        let MatchSpec {
            span: _,
            broken: _,
            host,
            path_prefix,
            methods,
            headers,
        } = &spec.value;
        let before = self.notes.count();
        let host = host.as_ref().and_then(|host| self.host(host));
        let path_prefix = path_prefix
            .as_ref()
            .and_then(|prefix| self.path_prefix(prefix));
        let methods = methods.iter().flat_map(|list| list.value.iter());
        let methods = methods.filter_map(|method| self.method(method)).collect();
        let headers = headers.iter().flat_map(|table| table.value.iter());
        let headers = headers
            .filter_map(|entry| self.header(&entry.name, entry.value.as_ref()?))
            .collect();
        (self.notes.count() == before).then_some(RouteMatch {
            host,
            path_prefix,
            methods,
            headers,
        })
    }

    fn host(&mut self, at: &At<Text>) -> Option<HostPattern> {
        let text = at.0.as_str();
        if text == "*" {
            return None;
        }
        if let Some(name) = text.strip_prefix("*.").and_then(host_name) {
            return Some(HostPattern::Suffix(format!(".{name}").into()));
        }
        let address = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = address.parse::<std::net::IpAddr>() {
            let text = match address {
                std::net::IpAddr::V4(v4) => v4.to_string(),
                std::net::IpAddr::V6(v6) => format!("[{v6}]"),
            };
            return Some(HostPattern::Exact(text.into()));
        }
        if let Some(name) = host_name(text) {
            return Some(HostPattern::Exact(name.into()));
        }
        let mut mistake = Mistake::new(
            at.span,
            format!("no request has the host `{}`", text.escape_debug()),
        )
        .expected("`api.example.com`, or `*.example.com` for names below it");
        if let Some((name, port)) = text.rsplit_once(':')
            && port.parse::<u16>().is_ok()
        {
            mistake = mistake.help(format!("a port is not compared; write `{name}`"));
        }
        self.notes.mistake(mistake);
        None
    }

    /// Without its final slash; `/` matches everything.
    fn path_prefix(&mut self, at: &At<Text>) -> Option<Arc<str>> {
        let trimmed = self.path(at)?.trim_end_matches('/');
        (!trimmed.is_empty()).then(|| trimmed.into())
    }

    /// A path from its slash, without a query.
    pub(super) fn path<'t>(&mut self, at: &'t At<Text>) -> Option<&'t str> {
        let text = at.value.0.as_str();
        let lawful = text.starts_with('/')
            && !text.contains(['?', '#', '*'])
            && text.parse::<http::uri::PathAndQuery>().is_ok();
        if !lawful {
            let message = format!("`{}` is no path", text.escape_debug());
            let mut mistake = Mistake::new(at.span, message)
                .expected("a path from its `/`, without a query, such as `/v1`");
            if let Some(prefix) = text.strip_suffix("/*").filter(|p| p.starts_with('/')) {
                mistake = mistake.help(format!("`{prefix}` matches all below it"));
            }
            self.notes.mistake(mistake);
            return None;
        }
        Some(text)
    }

    pub(super) fn method(&mut self, at: &At<Text>) -> Option<Method> {
        const COMMON: [&str; 8] = [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
        ];
        let method = Method::from_bytes(at.0.as_bytes()).ok();
        let usual = method
            .as_ref()
            .is_some_and(|m| COMMON.contains(&m.as_str()));
        let upper = at.0.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        if usual || (method.is_some() && upper && nearest(&at.0, COMMON).is_none()) {
            return method;
        }
        let message = format!("`{}` is no HTTP method", at.0.escape_debug());
        self.notes.mistake(
            Mistake::new(at.span, message)
                .expected("methods in capitals, such as `GET`")
                .nearest(nearest(&at.0, COMMON)),
        );
        None
    }

    fn header(&mut self, name: &At<String>, value: &At<Text>) -> Option<HeaderMatch> {
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            let message = format!("`{}` is no header field's name", name.escape_debug());
            self.notes.wrong(name.span, message);
            return None;
        };
        if header == http::header::HOST {
            self.notes.mistake(
                Mistake::new(name.span, "the host is not matched as a header")
                    .help("write `host:` in `match`"),
            );
            return None;
        }
        let wanted = match value.0.as_str() {
            "*" => None,
            text => match HeaderValue::from_str(text) {
                Ok(value) => Some(value),
                Err(_) => {
                    let message =
                        format!("no header field has the value `{}`", text.escape_debug());
                    self.notes.wrong(value.span, message);
                    return None;
                }
            },
        };
        Some(HeaderMatch {
            name: header,
            value: wanted,
        })
    }

    fn timeouts(&mut self, spec: &At<TimeoutsSpec>) -> Option<Timeouts> {
        let TimeoutsSpec {
            span,
            broken,
            connect,
            attempt,
            adaptive,
            request,
            idle,
        } = &spec.value;
        let (connect, attempt, request) = (connect.as_ref()?, attempt.as_ref()?, request.as_ref()?);
        for (name, short, longer_name, long) in [
            ("connect", connect, "attempt", attempt),
            ("attempt", attempt, "request", request),
        ] {
            if !broken && short.value.0 > long.value.0 {
                let message = format!(
                    "`{name}` of {} is longer than `{longer_name}` of {}",
                    print_duration(short.value.0),
                    print_duration(long.value.0)
                );
                self.notes.mistake(
                    Mistake::new(short.span.or(long.span).or(*span), message)
                        .expected("connect ≤ attempt ≤ request"),
                );
            }
        }
        let adaptive = match adaptive {
            Some(spec) => Some(self.adaptive(spec, attempt)?),
            None => None,
        };
        Some(Timeouts {
            connect: connect.value.0,
            attempt: attempt.value.0,
            adaptive,
            request: request.value.0,
            idle: idle.as_ref()?.value.0,
        })
    }

    pub(super) fn proxy_limits(&self, spec: Option<&At<LimitsSpec>>) -> Option<Limits> {
        let LimitsSpec {
            span: _,
            broken: _,
            connections,
            connections_per_client,
            head_bytes,
            head_fields,
            head_timeout,
            keep_alive,
            streams,
            control_frames,
            handshake_timeout,
        } = &spec?.value;
        Some(Limits {
            connections: usize::try_from(connections.as_ref()?.value.0).ok()?,
            connections_per_client: usize::try_from(connections_per_client.as_ref()?.value.0)
                .ok()?,
            head_bytes: usize::try_from(head_bytes.as_ref()?.value.0).ok()?,
            head_fields: usize::try_from(head_fields.as_ref()?.value.0).ok()?,
            head_timeout: head_timeout.as_ref()?.value.0,
            keep_alive: keep_alive.as_ref()?.value.0,
            streams: u32::try_from(streams.as_ref()?.value.0).ok()?,
            control_frames: u32::try_from(control_frames.as_ref()?.value.0).ok()?,
            handshake_timeout: handshake_timeout.as_ref()?.value.0,
        })
    }
}

/// Routes say where its requests go.
pub(super) const fn is_http(listener: &Listener) -> bool {
    listener.protocol.is_http()
}

/// `None`: a limit could not be read.
fn session_rule(spec: &ListenerSpec) -> Option<SessionRule> {
    let SessionTimeoutsSpec {
        span: _,
        broken: _,
        connect,
        idle,
        lifetime,
    } = &spec.timeouts.as_ref()?.value;
    Some(SessionRule {
        timeouts: SessionTimeouts {
            connect: connect.as_ref()?.value.0,
            idle: idle.as_ref()?.value.0,
            lifetime: lifetime.as_ref().map(|at| at.value.0),
        },
        on_down: on_down(spec.on_down.as_ref()?.value),
    })
}

const fn on_down(word: OnDownWord) -> OnDown {
    match word {
        OnDownWord::Keep => OnDown::Keep,
        OnDownWord::Close => OnDown::Close,
    }
}
