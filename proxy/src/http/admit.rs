//! The checks that every request passes whatever protocol it came in, and its one normal form:
//! the target in origin form (or `*`) and exactly one `Host`. Pure.

use http::header::{CONTENT_LENGTH, COOKIE, HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Uri, Version, request};

use super::fields::{Fields, Known, KnownSet, is_name};
use super::message::RequestHead;
use super::refuse::Refusal;
use crate::h1::head::{is_target, length};

/// Some recipients make hyphens of underscores, and would then see a framing that we do not.
const DISGUISED: KnownSet = KnownSet::new(&[Known::DisguisedLength, Known::DisguisedCoding]);

/// A head that was read as [`http`] parts, in its normal form; and whether it is admitted.
pub(crate) fn admit(mut parts: request::Parts) -> (RequestHead, Result<(), Refusal>) {
    let admitted = normalise(&mut parts);
    let head = RequestHead::from_parts(&parts);
    let admitted = admitted.and_then(|()| check_disguised(&head.fields));
    (head, admitted)
}

/// A head in origin form that the strict codec has read: it is in its normal form already.
///
/// # Errors
/// As [`normalise`].
pub(crate) fn check(head: &RequestHead) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::Method);
    }
    check_disguised(&head.fields)?;
    let host = head.fields.get(Known::Host);
    let host = host.ok_or(Refusal::Malformed("no host"))?;
    check_authority(host)
}

fn check_disguised(fields: &Fields) -> Result<(), Refusal> {
    if fields.contains_any(DISGUISED) {
        return Err(Refusal::Malformed("framing under another name"));
    }
    Ok(())
}

/// Letters, digits, dots and hyphens, perhaps with a short port: what nearly every host is.
fn is_plain_host(host: &[u8]) -> bool {
    let name_end = memchr::memchr(b':', host).unwrap_or(host.len());
    let (name, port) = host.split_at(name_end);
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let digits = port.get(1..).unwrap_or_default();
    let number = digits.iter().take(5).fold(0_u32, |sum, digit| {
        sum * 10 + u32::from(digit.wrapping_sub(b'0'))
    });
    !name.is_empty()
        && name.iter().all(is_plain)
        && digits.len() <= 5
        && digits.iter().all(u8::is_ascii_digit)
        && number <= u32::from(u16::MAX)
}

/// Brings the head into its normal form.
///
/// # Errors
/// `CONNECT`, a target or authority that is not lawful, or one that contradicts `Host`
/// (RFC 9112 §3.2, RFC 9113 §8.3.1).
fn normalise(head: &mut request::Parts) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        // From here on a WebSocket over HTTP/2 is what it would be over HTTP/1.1.
        check_connect(head)?;
        head.method = Method::GET;
    }
    if head.version == Version::HTTP_2 {
        check_http2(head)?;
        join_cookies(&mut head.headers)?;
    }
    let host = host_of(head)?;
    let uri = std::mem::take(&mut head.uri);
    head.uri = origin_form(&uri, &head.method)?;
    head.headers.insert(HOST, host);
    Ok(())
}

/// Extended `CONNECT` for a WebSocket (RFC 8441 §5).
pub(crate) fn is_websocket(head: &request::Parts) -> bool {
    let protocol = head.extensions.get::<h2::ext::Protocol>();
    head.method == Method::CONNECT && protocol.is_some_and(|p| p.as_str() == "websocket")
}

fn check_connect(head: &request::Parts) -> Result<(), Refusal> {
    if is_websocket(head) {
        // It would end the handshake's body toward HTTP/1.1, not the tunnel.
        let length = head.headers.contains_key(CONTENT_LENGTH);
        return if length {
            Err(Refusal::Malformed("length of a tunnel"))
        } else {
            Ok(())
        };
    }
    match head.extensions.get::<h2::ext::Protocol>() {
        Some(_) => Err(Refusal::ConnectProtocol),
        None => Err(Refusal::Method), // no forward proxy
    }
}

/// What h2 lets through, though RFC 9113 §8.2.2 forbids it.
fn check_http2(head: &request::Parts) -> Result<(), Refusal> {
    if head.headers.contains_key(TRANSFER_ENCODING) {
        return Err(Refusal::Malformed("transfer coding in HTTP/2"));
    }
    check_length(&head.headers)?;
    if !head.headers.keys().all(is_name) {
        return Err(Refusal::Malformed("field name"));
    }
    let other_te = |te: &HeaderValue| !te.as_bytes().eq_ignore_ascii_case(b"trailers");
    if head.headers.get_all(TE).iter().any(other_te) {
        return Err(Refusal::Malformed("te in HTTP/2"));
    }
    Ok(())
}

/// At most one length, in digits. h2 believes the first of several, and takes an empty one for 0, where a
/// recipient of the lines reads another body or none.
///
/// # Errors
/// Several lengths, or one that is not lawful (RFC 9110 §8.6).
pub(crate) fn check_length(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let first = lengths.next();
    if lengths.next().is_some() {
        return Err(Refusal::Malformed("several lengths"));
    }
    first.map_or(Ok(()), |value| length(value.as_bytes()).map(|_| ()))
}

/// Clients may split cookies for the sake of compression; whoever does not speak HTTP/2 must see
/// one line (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> Result<(), Refusal> {
    let crumbs = headers.get_all(COOKIE);
    if crumbs.iter().nth(1).is_none() {
        return Ok(());
    }
    let crumbs: Vec<&[u8]> = crumbs.iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]));
    headers.insert(COOKIE, joined.map_err(|_| Refusal::Malformed("cookie"))?);
    Ok(())
}

/// The one authority that target and `Host` agree on.
fn host_of(head: &request::Parts) -> Result<HeaderValue, Refusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, several) = (hosts.next(), hosts.next().is_some());
    if several {
        return Err(Refusal::Malformed("several hosts"));
    }
    let asked = head.uri.authority();
    match (asked, host) {
        (None, None) if head.version == Version::HTTP_10 => Ok(HeaderValue::from_static("")),
        (None, None) => Err(Refusal::Malformed("no host")),
        (Some(asked), None) => {
            check_authority(asked.as_str().as_bytes())?;
            HeaderValue::from_str(asked.as_str()).map_err(|_| Refusal::Malformed("authority"))
        }
        (None, Some(host)) => {
            check_authority(host.as_bytes())?;
            Ok(host.clone())
        }
        (Some(asked), Some(host)) => {
            check_authority(host.as_bytes())?;
            let same = host
                .as_bytes()
                .eq_ignore_ascii_case(asked.as_str().as_bytes());
            if !same {
                return Err(Refusal::Malformed("host differs from the target's"));
            }
            Ok(host.clone())
        }
    }
}

/// `host [":" port]`, without user information (RFC 9110 §4.2.4, §7.2).
fn check_authority(text: &[u8]) -> Result<(), Refusal> {
    if is_plain_host(text) || is_authority(text) {
        Ok(())
    } else {
        Err(Refusal::Malformed("host"))
    }
}

fn is_authority(text: &[u8]) -> bool {
    !text.contains(&b'@')
        && text.iter().all(u8::is_ascii_graphic)
        && Authority::try_from(text)
            .is_ok_and(|authority| !authority.host().is_empty() && has_lawful_port(&authority))
}

fn has_lawful_port(authority: &Authority) -> bool {
    let after = &authority.as_str()[authority.host().len()..];
    match after.strip_prefix(':') {
        None => after.is_empty(),
        Some(port) => port.is_empty() || authority.port_u16().is_some(),
    }
}

fn origin_form(uri: &Uri, method: &Method) -> Result<Uri, Refusal> {
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if target == "*" && *method == Method::OPTIONS {
        return Ok(Uri::from_static("*"));
    }
    let target = if target.is_empty() { "/" } else { target };
    if !target.starts_with('/') || !is_target(target.as_bytes()) {
        return Err(Refusal::Malformed("target"));
    }
    let path = uri.path_and_query().filter(|path| path.as_str() == target);
    let path = path
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    Ok(Uri::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: Version, uri: &str, host: Option<&str>) -> request::Parts {
        let mut request = http::Request::builder().version(version).uri(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn normalised(version: Version, uri: &str, host: Option<&str>) -> Option<(String, String)> {
        let mut head = head(version, uri, host);
        normalise(&mut head).ok()?;
        let host = head.headers[HOST].to_str().unwrap().to_owned();
        Some((head.uri.to_string(), host))
    }

    #[test]
    fn every_form_of_a_target_becomes_path_and_host() {
        let of = |path: &str, host: &str| Some((path.to_owned(), host.to_owned()));
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);

        assert_eq!(normalised(one, "/a?b", Some("x:8")), of("/a?b", "x:8"));
        assert_eq!(normalised(one, "http://x/a", Some("X")), of("/a", "X"));
        assert_eq!(normalised(one, "http://x", Some("x")), of("/", "x"));
        assert_eq!(normalised(two, "https://x/a", None), of("/a", "x"));
        assert_eq!(normalised(two, "https://x/a", Some("x")), of("/a", "x"));
        assert_eq!(normalised(one, "/", Some("[::1]:80")), of("/", "[::1]:80"));
    }

    #[test]
    fn a_plain_host_is_one_that_the_full_check_takes_too() {
        for host in [
            "x",
            "a-b.example:8080",
            "127.0.0.1:80",
            "x:",
            "9",
            "-",
            "x:65535",
            "x:65536",
            "x:99999",
            "",
        ] {
            let host = host.as_bytes();
            assert!(!is_plain_host(host) || is_authority(host), "{host:?}");
        }
    }

    #[test]
    fn a_request_for_two_hosts_or_for_none_is_refused() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);

        assert_eq!(normalised(one, "/", None), None);
        assert_eq!(normalised(one, "/", Some("")), None);
        assert_eq!(normalised(one, "/", Some("a b")), None);
        assert_eq!(normalised(one, "/", Some("u@x")), None);
        assert_eq!(normalised(one, "/", Some("x:99999")), None);
        assert_eq!(normalised(one, "/", Some("x/y")), None);
        assert_eq!(normalised(one, "http://x/", Some("y")), None);
        assert_eq!(normalised(two, "https://x/", Some("y")), None);
        assert_eq!(normalised(two, "/", None), None);
    }

    #[test]
    fn a_quote_in_a_field_s_name_is_refused_in_http_2() {
        let mut quoted = head(Version::HTTP_2, "https://x/", None);
        let name = http::HeaderName::from_lowercase(b"a\"b").unwrap();
        quoted.headers.insert(name, HeaderValue::from_static("c"));

        let refused = Err(Refusal::Malformed("field name"));
        assert_eq!(normalise(&mut quoted), refused);
    }

    #[test]
    fn only_one_length_in_digits_is_admitted_in_http_2() {
        let with = |lengths: &[&'static str]| {
            let mut with = head(Version::HTTP_2, "https://x/", None);
            for length in lengths {
                let value = HeaderValue::from_static(length);
                with.headers.append(CONTENT_LENGTH, value);
            }
            normalise(&mut with)
        };

        assert_eq!(with(&["12"]), Ok(()));
        for wrong in ["", "+2", "-2", "1, 1", "0x1", "99999999999999999999"] {
            assert_eq!(with(&[wrong]), Err(Refusal::Malformed("length")), "{wrong}");
        }
        let several = Err(Refusal::Malformed("several lengths"));
        assert_eq!(with(&["2", "2"]), several);
    }

    #[test]
    fn connect_is_refused_and_an_asterisk_is_for_options_only() {
        let mut connect = head(Version::HTTP_11, "x:80", Some("x:80"));
        connect.method = Method::CONNECT;
        assert_eq!(normalise(&mut connect), Err(Refusal::Method));

        let mut options = head(Version::HTTP_11, "*", Some("x"));
        assert!(normalise(&mut options).is_err());
        options = head(Version::HTTP_11, "*", Some("x"));
        options.method = Method::OPTIONS;
        assert_eq!(normalise(&mut options), Ok(()));
    }
}
