//! The heads of requests and answers, as every step of an exchange sees them: flat, whatever
//! version of HTTP they came in. Conversions from and to the [`http`] crate's parts stand here.

use http::{HeaderMap, Method, Response, StatusCode, Version, request, response};

use super::fields::{Fields, Known};

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
    /// Within the fields' text.
    target: (u32, u32),
}

impl RequestHead {
    /// `target`: where in the text of `fields` it stands. Visible ASCII.
    pub(crate) fn new(
        method: Method,
        version: Version,
        fields: Fields,
        target: std::ops::Range<usize>,
    ) -> Self {
        Self {
            method,
            version,
            fields,
            target: (target.start as u32, target.end as u32),
        }
    }

    /// Of parts in normal form (see [`super::admit`]): path and query are the target.
    pub(crate) fn from_parts(parts: &request::Parts) -> Self {
        let target = parts.uri.path_and_query();
        let target = target.map_or("/", http::uri::PathAndQuery::as_str);
        let mut text = Vec::with_capacity(1024);
        text.extend_from_slice(target.as_bytes());
        let mut fields = Fields::over(text);
        for (name, value) in &parts.headers {
            fields.append(name, value.as_bytes());
        }
        Self::new(parts.method.clone(), parts.version, fields, 0..target.len())
    }

    /// Path and query, or `*`.
    pub(crate) fn target(&self) -> &str {
        let (start, end) = self.target;
        let bytes = &self.fields.text()[start as usize..end as usize];
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    pub(crate) fn target_starts_with(&self, prefix: &str) -> bool {
        let (start, end) = self.target;
        self.fields.text()[start as usize..end as usize].starts_with(prefix.as_bytes())
    }

    /// Asks for something else. `target`: visible ASCII.
    pub(crate) fn set_target(&mut self, target: &str) {
        let place = self.fields.keep(target.as_bytes());
        self.target = (place.start as u32, place.end as u32);
    }

    pub(crate) fn path(&self) -> &str {
        let target = self.target();
        let end = memchr::memchr(b'?', target.as_bytes());
        &target[..end.unwrap_or(target.len())]
    }

    /// Text of `Host`; empty if it is none.
    pub(crate) fn host(&self) -> &str {
        self.fields.get_str(Known::Host).unwrap_or_default()
    }

    /// A copy that can be changed for one attempt.
    pub(crate) fn for_attempt(&self) -> Self {
        Self {
            method: self.method.clone(),
            version: self.version,
            fields: self.fields.roomy_clone(),
            target: self.target,
        }
    }

    /// The request line and all fields, as HTTP/1.1 writes them.
    pub(crate) fn write_to(&self, out: &mut bytes::BytesMut) {
        let target = self.target();
        out.reserve(self.method.as_str().len() + target.len() + self.fields.text().len() + 64);
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.extend_from_slice(b" ");
        out.extend_from_slice(target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        self.fields.write_to(out);
        out.extend_from_slice(b"\r\n");
    }
}

/// What an endpoint, or Sealane itself, answers.
#[derive(Clone, Debug)]
pub(crate) struct AnswerHead {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
}

impl AnswerHead {
    pub(crate) const fn new(status: StatusCode) -> Self {
        Self {
            status,
            fields: Fields::new(),
        }
    }

    pub(crate) fn from_parts(parts: &response::Parts) -> Self {
        Self::from_map(parts.status, &parts.headers)
    }

    pub(crate) fn from_map(status: StatusCode, headers: &HeaderMap) -> Self {
        Self {
            status,
            fields: Fields::from_map(headers),
        }
    }

    pub(crate) fn into_response(self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        *response.version_mut() = Version::HTTP_2;
        *response.headers_mut() = self.fields.into_map();
        response
    }

    /// An informational head, after which another one comes.
    pub(crate) fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// The status line and all fields, as HTTP/1.1 writes them. The phrase is the usual one: what
    /// an endpoint calls a status means nothing (RFC 9112 §4).
    pub(crate) fn write_to(&self, out: &mut bytes::BytesMut) {
        out.reserve(self.fields.text().len() + 64);
        if self.status == StatusCode::OK {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        } else {
            out.extend_from_slice(b"HTTP/1.1 ");
            out.extend_from_slice(self.status.as_str().as_bytes());
            out.extend_from_slice(b" ");
            let phrase = self.status.canonical_reason().unwrap_or_default();
            out.extend_from_slice(phrase.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        self.fields.write_to(out);
        out.extend_from_slice(b"\r\n");
    }
}
