//! What a route may do besides choosing an endpoint: headers, paths, answers of its own, CORS and
//! compression.

use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use sealane_proxy::config::{
    AllowedHeaders, Compression, Cors, Encoding, FIXED_BODY_MAX, FixedAnswer, HeaderEdits,
    Maintenance, NewPath, OriginPattern, Origins, Part, Placeholder, Redirect, Rewrite,
    RouteOptions, Template, TypePattern,
};

use super::super::decode::{At, Entry, OneOrMany, Table, nearest};
use super::super::error::Mistake;
use super::super::spec::{
    CompressionSpec, CorsSpec, EncodingWord, HeadersSpec, MaintenanceSpec, QueryWord, RedirectSpec,
    RespondSpec, RewriteSpec, RouteSpec, SchemeWord,
};
use super::super::unit::{Text, host_name};
use super::Parser;

impl Parser<'_> {
    pub(super) fn route_options(&mut self, spec: &RouteSpec) -> Option<RouteOptions> {
        let RouteSpec {
            pool,
            rewrite,
            request_headers,
            response_headers,
            maintenance,
            cors,
            compression,
            coalesce,
            mirror,
            split,
            sticky,
            ..
        } = spec;
        let before = self.notes.count();
        let options = RouteOptions {
            request_headers: self.header_edits(request_headers.as_ref()),
            response_headers: self.header_edits(response_headers.as_ref()),
            rewrite: self.rewrite(rewrite.as_ref()),
            maintenance: maintenance.as_ref().and_then(|at| self.maintenance(at)),
            cors: cors.as_ref().and_then(|at| self.cors(at)),
            compression: compression.as_ref().and_then(|at| self.compression(at)),
            coalesce: coalesce.as_ref().and_then(|at| self.coalesce(at)),
            mirror: mirror
                .as_ref()
                .and_then(|at| self.mirror(at, pool.as_ref())),
            limits: self.route_limits(spec).unwrap_or_default(),
            split: self.splits(split.as_ref(), pool.as_ref(), spec.broken),
            sticky: sticky.as_ref().and_then(|at| self.sticky(at)),
        };
        if let (None, Some(rewrite)) = (pool, rewrite)
            && !spec.broken
        {
            let message = "`rewrite` changes what endpoints see, and this route has none";
            self.notes.wrong(rewrite.span, message);
        }
        if let (None, Some(mirror)) = (pool, mirror)
            && !spec.broken
        {
            let message = "`mirror` shows what endpoints see, and this route has none";
            self.notes.wrong(mirror.span, message);
        }
        if let (None, Some(sticky)) = (pool, sticky)
            && !spec.broken
        {
            let message = "`sticky` chooses among endpoints, and this route has none";
            self.notes.wrong(sticky.span, message);
        }
        (self.notes.count() == before).then_some(options)
    }

    fn header_edits(&mut self, spec: Option<&At<HeadersSpec>>) -> HeaderEdits {
        let Some(spec) = spec else {
            return HeaderEdits::default();
        };
        let HeadersSpec {
            span: _,
            broken: _,
            remove,
            set,
            add,
        } = &spec.value;
        let remove = texts(remove.as_ref());
        let set = set.iter().flat_map(|table: &At<Table<Text>>| table.iter());
        let add = add.iter().flat_map(|table| table.iter());
        HeaderEdits {
            remove: remove
                .filter_map(|name| self.changeable(&name.value.0, name))
                .collect(),
            set: set.filter_map(|entry| self.set_header(entry)).collect(),
            add: add.flat_map(|entry| self.add_headers(entry)).collect(),
        }
    }

    fn set_header(&mut self, entry: &Entry<Text>) -> Option<(HeaderName, Template)> {
        let name = self.changeable(&entry.name.value, &entry.name);
        let template = entry.value.as_ref().and_then(|text| self.template(text));
        Some((name?, template?))
    }

    fn add_headers(&mut self, entry: &Entry<OneOrMany<Text>>) -> Vec<(HeaderName, Template)> {
        let name = self.changeable(&entry.name.value, &entry.name);
        let values = texts(entry.value.as_ref());
        let templates: Vec<_> = values.filter_map(|text| self.template(text)).collect();
        let Some(name) = name else {
            return Vec::new();
        };
        let pairs = templates.into_iter();
        pairs.map(|template| (name.clone(), template)).collect()
    }

    /// A header field that a rule may change: not one that says where a message ends, or that speaks
    /// of one connection.
    fn changeable<T>(&mut self, text: &str, at: &At<T>) -> Option<HeaderName> {
        const OURS: [&str; 11] = [
            "connection",
            "content-length",
            "http2-settings",
            "keep-alive",
            "proxy-connection",
            "sec-websocket-accept",
            "sec-websocket-key",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ];
        let name = self.header_name(text, at)?;
        if OURS.contains(&name.as_str()) {
            let message = format!("`{name}` frames messages or speaks of one connection alone");
            self.notes.mistake(
                Mistake::new(at.span, message).help("Sealane writes it itself; leave it out"),
            );
            return None;
        }
        if name == http::header::HOST {
            self.notes.mistake(
                Mistake::new(at.span, "the host is not changed as a header")
                    .help("write `rewrite: { host: NAME }`"),
            );
            return None;
        }
        Some(name)
    }

    pub(super) fn header_name<T>(&mut self, text: &str, at: &At<T>) -> Option<HeaderName> {
        let name = HeaderName::from_bytes(text.as_bytes()).ok();
        if name.is_none() {
            let message = format!("`{}` is no header field's name", text.escape_debug());
            self.notes.wrong(at.span, message);
        }
        name
    }

    /// `{name}` is a placeholder, `{{` and `}}` are braces.
    fn template(&mut self, at: &At<Text>) -> Option<Template> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = at.value.0.as_str();
        while let Some(brace) = rest.find(['{', '}']) {
            text.push_str(&rest[..brace]);
            rest = &rest[brace..];
            let twice = rest.strip_prefix("{{");
            if let Some(after) = twice.or_else(|| rest.strip_prefix("}}")) {
                text.push_str(&rest[..1]);
                rest = after;
                continue;
            }
            let inner = rest[1..].split_once('}').filter(|_| rest.starts_with('{'));
            let Some((name, after)) = inner else {
                self.notes.mistake(
                    Mistake::new(at.span, "a brace stands alone")
                        .expected("`{host}` and the like, or `{{` and `}}` for braces"),
                );
                return None;
            };
            self.push_text(&mut parts, &mut text, at)?;
            parts.push(Part::Value(self.placeholder(name, at)?));
            rest = after;
        }
        text.push_str(rest);
        self.push_text(&mut parts, &mut text, at)?;
        Some(Template(parts))
    }

    fn push_text(&mut self, to: &mut Vec<Part>, text: &mut String, at: &At<Text>) -> Option<()> {
        if HeaderValue::from_str(text).is_err() {
            let message = format!("no header field has the value `{}`", text.escape_debug());
            self.notes.wrong(at.span, message);
            return None;
        }
        if !text.is_empty() {
            to.push(Part::Text(std::mem::take(text).into()));
        }
        Some(())
    }

    fn placeholder(&mut self, name: &str, at: &At<Text>) -> Option<Placeholder> {
        let mut known = Placeholder::ALL.iter();
        if let Some((_, placeholder)) = known.find(|(known, _)| *known == name) {
            return Some(*placeholder);
        }
        let names = Placeholder::ALL.map(|(name, _)| name);
        let message = format!("there is no placeholder `{{{}}}`", name.escape_debug());
        self.notes.mistake(
            Mistake::new(at.span, message)
                .expected(format!("one of `{{{}}}`", names.join("}`, `{")))
                .nearest(nearest(name, names)),
        );
        None
    }

    fn rewrite(&mut self, spec: Option<&At<RewriteSpec>>) -> Rewrite {
        let Some(spec) = spec else {
            return Rewrite::default();
        };
        let RewriteSpec {
            span: _,
            broken: _,
            prefix,
            host,
        } = &spec.value;
        let prefix = prefix.as_ref().and_then(|prefix| self.path(prefix));
        let host = host.as_ref().and_then(|host| {
            let text = host.value.0.as_str();
            let authority = text.parse::<Authority>().ok();
            let lawful = authority.is_some_and(|authority| {
                !text.contains('@') && is_host(authority.host()) && !text.ends_with(':')
            });
            if !lawful {
                let message = format!("`{}` is no host", text.escape_debug());
                self.notes.mistake(
                    Mistake::new(host.span, message).expected("`api.example.com`, or with a port"),
                );
                return None;
            }
            HeaderValue::from_str(text).ok()
        });
        Rewrite {
            prefix: prefix.map(|prefix| prefix.trim_end_matches('/').into()),
            host,
        }
    }

    pub(super) fn redirect(&mut self, spec: &At<RedirectSpec>) -> Option<Redirect> {
        let RedirectSpec {
            span: _,
            broken,
            status,
            scheme,
            host,
            port,
            prefix,
            path,
            query,
        } = &spec.value;
        let before = self.notes.count();
        if let (Some(prefix), Some(path)) = (prefix, path) {
            let message = "a redirect has either `prefix` or `path`, not both";
            self.notes
                .mistake(Mistake::new(path.span, message).related(prefix.span, "`prefix`"));
        }
        let says_nothing = scheme.is_none()
            && host.is_none()
            && port.is_none()
            && prefix.is_none()
            && path.is_none();
        if says_nothing && !broken {
            self.notes.mistake(
                Mistake::new(spec.span, "the redirect leads to where the client is")
                    .expected("`scheme`, `host`, `port`, `prefix` or `path`"),
            );
        }
        let new_path = match (prefix, path) {
            (Some(prefix), _) => {
                let prefix = self.path(prefix)?;
                NewPath::Prefix(prefix.trim_end_matches('/').into())
            }
            (None, Some(path)) => NewPath::Whole(self.path(path)?.into()),
            (None, None) => NewPath::Same,
        };
        let host = match host {
            Some(host) => Some(self.plain_host(host)?.into()),
            None => None,
        };
        let redirect = Redirect {
            status: StatusCode::from_u16(status.as_ref()?.value.0).ok()?,
            scheme: scheme.as_ref().map(|scheme| match scheme.value {
                SchemeWord::Http => Scheme::HTTP,
                SchemeWord::Https => Scheme::HTTPS,
            }),
            host,
            port: port
                .as_ref()
                .and_then(|port| u16::try_from(port.value.0).ok()),
            path: new_path,
            keep_query: query.as_ref()?.value == QueryWord::Keep,
        };
        (self.notes.count() == before).then_some(redirect)
    }

    /// A name, or an address with the brackets that a URL wants.
    fn plain_host(&mut self, at: &At<Text>) -> Option<String> {
        let text = at.value.0.as_str();
        if let Ok(address) = text.parse::<std::net::Ipv6Addr>() {
            return Some(format!("[{address}]"));
        }
        if is_host(text) {
            return Some(text.to_ascii_lowercase());
        }
        let message = format!("`{}` is no host", text.escape_debug());
        let mut mistake = Mistake::new(at.span, message).expected("a host name or address");
        if let Some((name, port)) = text.rsplit_once(':')
            && is_host(name)
            && port.parse::<u16>().is_ok()
        {
            mistake = mistake.help(format!("write `host: {name}` and `port: {port}`"));
        }
        self.notes.mistake(mistake);
        None
    }

    pub(super) fn respond(&mut self, spec: &At<RespondSpec>) -> Option<FixedAnswer> {
        let RespondSpec {
            span: _,
            broken: _,
            status,
            body,
            file,
            content_type,
        } = &spec.value;
        if let (Some(body), Some(file)) = (body, file) {
            let message = "an answer has either `body` or `file`, not both";
            self.notes
                .mistake(Mistake::new(file.span, message).related(body.span, "`body`"));
            return None;
        }
        let status = status.as_ref()?;
        let body = self.fixed_body(body.as_ref(), file.as_ref())?;
        if !body.is_empty() && matches!(status.value.0, 204 | 205 | 304) {
            let message = format!("an answer with the status {} has no body", status.value.0);
            self.notes.wrong(status.span.or(spec.span), message);
            return None;
        }
        Some(FixedAnswer {
            status: StatusCode::from_u16(u16::try_from(status.value.0).ok()?).ok()?,
            content_type: self.content_type(content_type.as_ref()?)?,
            body,
        })
    }

    fn fixed_body(&mut self, body: Option<&At<Text>>, file: Option<&At<Text>>) -> Option<Bytes> {
        if let Some(file) = file {
            let path = self.files.resolve(&file.value.0);
            let read = self.files.bytes(&path, FIXED_BODY_MAX);
            let read = read.map_err(|message| self.notes.wrong(file.span, message));
            return read.ok().map(Bytes::from);
        }
        let Some(body) = body else {
            return Some(Bytes::new());
        };
        if body.value.0.len() > FIXED_BODY_MAX {
            self.notes.wrong(body.span, "a body larger than 1 MiB");
            return None;
        }
        Some(Bytes::from(body.value.0.clone()))
    }

    fn content_type(&mut self, at: &At<Text>) -> Option<HeaderValue> {
        let value = HeaderValue::from_str(&at.value.0).ok();
        let value = value.filter(|_| at.value.0.contains('/'));
        if value.is_none() {
            let message = format!("`{}` is no media type", at.value.0.escape_debug());
            self.notes
                .mistake(Mistake::new(at.span, message).expected("such as `text/html`"));
        }
        value
    }

    fn maintenance(&mut self, spec: &At<MaintenanceSpec>) -> Option<Maintenance> {
        let MaintenanceSpec {
            span: _,
            broken: _,
            on,
            when_file,
            status,
            body,
            file,
            content_type,
            retry_after,
            except,
        } = &spec.value;
        if let (Some(body), Some(file)) = (body, file)
            && body.span.is_written()
        {
            let message = "an answer has either `body` or `file`, not both";
            self.notes
                .mistake(Mistake::new(file.span, message).related(body.span, "`body`"));
        }
        let answer = FixedAnswer {
            status: StatusCode::from_u16(u16::try_from(status.as_ref()?.value.0).ok()?).ok()?,
            content_type: self.content_type(content_type.as_ref()?)?,
            body: self.fixed_body(body.as_ref(), file.as_ref())?,
        };
        let there = when_file.as_ref().is_none_or(|file| {
            let path = self.files.resolve(&file.value.0);
            self.files.exists(&path)
        });
        if !(on.as_ref()?.value.0 && there) {
            return None;
        }
        let except = except.iter().flat_map(|list| list.value.iter());
        Some(Maintenance {
            answer,
            retry_after: retry_after
                .as_ref()
                .map(|after| Duration::from_secs(after.value.0.into())),
            except: except.map(|net| net.value.0).collect(),
        })
    }

    fn cors(&mut self, spec: &At<CorsSpec>) -> Option<Cors> {
        let CorsSpec {
            span: _,
            broken: _,
            origins,
            methods,
            headers,
            expose,
            credentials,
            max_age,
        } = &spec.value;
        let origins = origins.as_ref()?;
        let credentials = credentials.as_ref()?;
        let any = origins.value.iter().find(|origin| origin.value.0 == "*");
        if let Some(any) = any
            && credentials.value.0
        {
            self.notes.mistake(
                Mistake::new(any.span, "with credentials the origins must be named")
                    .help("any page could read what a signed-in user may see")
                    .related(credentials.span, "`credentials`"),
            );
        }
        if origins.value.is_empty() {
            self.notes.wrong(origins.span, "CORS without an origin");
        }
        let listed: Vec<_> = origins
            .value
            .iter()
            .filter(|origin| origin.value.0 != "*")
            .filter_map(|origin| self.origin(origin))
            .collect();
        let methods = texts(methods.as_ref());
        let methods: Vec<Method> = methods.filter_map(|method| self.method(method)).collect();
        let any_header = texts(headers.as_ref()).any(|name| name.value.0 == "*");
        let mut names = |list: Option<&At<OneOrMany<Text>>>| -> Vec<HeaderName> {
            let names = texts(list).filter(|name| name.value.0 != "*");
            names
                .filter_map(|name| self.header_name(&name.value.0, name))
                .collect()
        };
        let headers = match (names(headers.as_ref()), any_header) {
            (_, true) => AllowedHeaders::Any,
            (names, false) => AllowedHeaders::Listed(names),
        };
        let expose = names(expose.as_ref());
        Some(Cors {
            origins: match any {
                Some(_) => Origins::Any,
                None => Origins::Listed(listed),
            },
            methods,
            headers,
            expose,
            credentials: credentials.value.0,
            max_age: Duration::from_secs(max_age.as_ref()?.value.0.into()),
        })
    }

    fn origin(&mut self, at: &At<Text>) -> Option<OriginPattern> {
        let text = at.value.0.as_str();
        let pattern = read_origin(text);
        if pattern.is_none() {
            let message = format!("`{}` is no origin", text.escape_debug());
            let mut mistake = Mistake::new(at.span, message)
                .expected("`https://app.example.com`, `https://*.example.com`, or `*` for all");
            let bare = text.trim_end_matches('/');
            if read_origin(bare).is_some() {
                mistake = mistake.help(format!("an origin has no path; write `{bare}`"));
            } else if read_origin(&format!("https://{bare}")).is_some() {
                mistake = mistake.help(format!("did you mean `https://{bare}`?"));
            }
            self.notes.mistake(mistake);
        }
        pattern
    }

    fn compression(&mut self, spec: &At<CompressionSpec>) -> Option<Compression> {
        let CompressionSpec {
            span: _,
            broken: _,
            encodings,
            types,
            size_min,
            level,
        } = &spec.value;
        let encodings: Vec<Encoding> = encodings
            .as_ref()?
            .value
            .iter()
            .map(|word| match word.value {
                EncodingWord::Zstd => Encoding::Zstd,
                EncodingWord::Brotli => Encoding::Brotli,
                EncodingWord::Gzip => Encoding::Gzip,
            })
            .collect();
        let types = texts(types.as_ref());
        let types: Vec<_> = types.filter_map(|kind| self.type_pattern(kind)).collect();
        (!encodings.is_empty()).then_some(Compression {
            encodings,
            types,
            size_min: size_min.as_ref()?.value.0,
            level: u8::try_from(level.as_ref()?.value.0).ok()?,
        })
    }

    fn type_pattern(&mut self, at: &At<Text>) -> Option<TypePattern> {
        let text = at.value.0.to_ascii_lowercase();
        let plain = |c: char| c.is_ascii_alphanumeric() || "!#$&-^_.+/*".contains(c);
        let lawful = text.chars().all(plain)
            && text.matches('*').count() <= 1
            && (text == "*" || text.matches('/').count() == 1);
        if !lawful {
            let message = format!("`{}` is no media type", text.escape_debug());
            self.notes.mistake(
                Mistake::new(at.span, message)
                    .expected("such as `text/html`, `text/*` or `application/*+json`"),
            );
            return None;
        }
        Some(match text.split_once('*') {
            Some((before, behind)) => TypePattern::Around(before.into(), behind.into()),
            None => TypePattern::Exact(text.into()),
        })
    }
}

pub(super) fn texts(list: Option<&At<OneOrMany<Text>>>) -> impl Iterator<Item = &At<Text>> {
    list.into_iter().flat_map(|list| list.value.iter())
}

fn is_host(text: &str) -> bool {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    host_name(text).is_some()
        || text.parse::<std::net::Ipv4Addr>().is_ok()
        || bare.is_some_and(|bare| bare.parse::<std::net::Ipv6Addr>().is_ok())
}

/// As browsers write origins: in lower case, without the scheme's own port.
fn read_origin(text: &str) -> Option<OriginPattern> {
    if text == "null" {
        return Some(OriginPattern::Exact(text.into()));
    }
    let (scheme, rest) = text.split_once("://")?;
    let of_scheme = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    if !scheme.starts_with(|c: char| c.is_ascii_lowercase()) || !scheme.chars().all(of_scheme) {
        return None;
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (rest, None),
    };
    if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port != 0)) {
        return None;
    }
    let lower = |host: &str| is_host(host) && !host.bytes().any(|b| b.is_ascii_uppercase());
    if let Some(domain) = host.strip_prefix("*.") {
        let suffix = &rest[1..];
        return lower(domain).then(|| OriginPattern::Below {
            scheme: format!("{scheme}://").into(),
            suffix: suffix.into(),
        });
    }
    lower(host).then(|| OriginPattern::Exact(text.into()))
}
