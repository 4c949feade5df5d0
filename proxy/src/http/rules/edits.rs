//! Headers changed by the operator's rule, and what stands in their templates. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::{HeaderName, Method};
use smallvec::SmallVec;

use super::super::fields::{Fields, Known};
use crate::config::{HeaderEdits, Part, Placeholder, Template};

/// What placeholders stand for in one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values<'a> {
    pub(crate) client: IpAddr,
    pub(crate) host: &'a str,
    pub(crate) method: &'a Method,
    /// Path and query.
    pub(crate) target: &'a str,
    pub(crate) scheme: &'a str,
    pub(crate) request_id: &'a str,
    pub(crate) route: &'a str,
    /// Empty where no endpoint answers.
    pub(crate) region: &'a str,
    pub(crate) endpoint: &'a str,
}

/// Removes, then sets, then adds.
pub(crate) fn apply(edits: &HeaderEdits, values: &Values<'_>, fields: &mut Fields) {
    for name in &edits.remove {
        fields.remove(name);
    }
    for (name, template) in &edits.set {
        fields.remove(name);
        write(name, template, values, fields);
    }
    for (name, template) in &edits.add {
        write(name, template, values, fields);
    }
}

/// Not if nothing is left of it.
fn write(name: &HeaderName, template: &Template, values: &Values<'_>, fields: &mut Fields) {
    let mut text: SmallVec<[u8; 128]> = SmallVec::new();
    for part in &template.0 {
        match part {
            Part::Text(fixed) => text.extend_from_slice(fixed.as_bytes()),
            Part::Value(placeholder) => put(*placeholder, values, &mut text),
        }
    }
    if !text.is_empty() {
        fields.append(name, &text);
    }
}

fn put(placeholder: Placeholder, values: &Values<'_>, text: &mut SmallVec<[u8; 128]>) {
    let (path, query) = match values.target.split_once('?') {
        Some((path, query)) => (path, query),
        None => (values.target, ""),
    };
    let bytes = match placeholder {
        Placeholder::ClientIp => {
            let mut address = String::new();
            // Writing to a `String` cannot fail.
            let _ = write!(address, "{}", values.client);
            return text.extend_from_slice(address.as_bytes());
        }
        Placeholder::Host => values.host.as_bytes(),
        Placeholder::Method => values.method.as_str().as_bytes(),
        Placeholder::Path => path.as_bytes(),
        Placeholder::Query => query.as_bytes(),
        Placeholder::Scheme => values.scheme.as_bytes(),
        Placeholder::RequestId => values.request_id.as_bytes(),
        Placeholder::Route => values.route.as_bytes(),
        Placeholder::Region => values.region.as_bytes(),
        Placeholder::Endpoint => values.endpoint.as_bytes(),
    };
    text.extend_from_slice(bytes);
}

/// Notes that an answer depends on a field of the request (RFC 9110 §12.5.5).
pub(crate) fn add_to_vary(fields: &mut Fields, name: &str) {
    let says = |known: &[u8]| known == b"*" || known.eq_ignore_ascii_case(name.as_bytes());
    if fields.tokens(Known::Vary).any(says) {
        return;
    }
    let mut list: SmallVec<[u8; 128]> = SmallVec::new();
    for line in fields.all(Known::Vary) {
        list.extend_from_slice(line);
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(name.as_bytes());
    fields.insert(Known::Vary, &list);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(parts: &[Part]) -> Template {
        Template(parts.to_vec())
    }

    fn text(text: &str) -> Part {
        Part::Text(text.into())
    }

    fn values(host: &str) -> Values<'_> {
        Values {
            client: [192, 0, 2, 1].into(),
            host,
            method: &Method::GET,
            target: "/a?b=c",
            scheme: "https",
            request_id: "id",
            route: "all",
            region: "",
            endpoint: "",
        }
    }

    #[test]
    fn headers_are_removed_then_set_then_added() {
        let name = HeaderName::from_static;
        let edits = HeaderEdits {
            remove: vec![name("x-gone")],
            set: vec![(
                name("x-who"),
                template(&[
                    Part::Value(Placeholder::ClientIp),
                    text(" "),
                    Part::Value(Placeholder::Host),
                    Part::Value(Placeholder::Path),
                    text("|"),
                    Part::Value(Placeholder::Query),
                ]),
            )],
            add: vec![(name("x-list"), template(&[text("two")]))],
        };
        let mut fields = Fields::new();
        for (name, value) in [("x-gone", "1"), ("x-who", "forged"), ("X-Who", "twice")] {
            fields.append(name, value.as_bytes());
        }
        fields.append("x-list", b"one");

        apply(&edits, &values("x.test"), &mut fields);

        assert!(!fields.contains("x-gone"));
        let who: Vec<_> = fields.all("x-who").collect();
        assert_eq!(who, [b"192.0.2.1 x.test/a|b=c"]);
        let listed: Vec<_> = fields.all("x-list").collect();
        assert_eq!(listed, [b"one", b"two"]);
    }

    #[test]
    fn a_value_of_which_nothing_is_left_is_not_written() {
        let name = HeaderName::from_static("x-region");
        let edits = HeaderEdits {
            set: vec![(name, template(&[Part::Value(Placeholder::Region)]))],
            ..HeaderEdits::default()
        };
        let mut fields = Fields::new();
        fields.append("x-region", b"forged");

        apply(&edits, &values("x.test"), &mut fields);

        assert!(fields.is_empty());
    }

    #[test]
    fn vary_names_each_field_once() {
        let mut fields = Fields::new();
        add_to_vary(&mut fields, "Origin");
        add_to_vary(&mut fields, "Accept-Encoding");
        add_to_vary(&mut fields, "origin");
        let vary = fields.get_str(Known::Vary);
        assert_eq!(vary, Some("Origin, Accept-Encoding"));

        fields.insert(Known::Vary, b"*");
        add_to_vary(&mut fields, "Origin");
        assert_eq!(fields.get_str(Known::Vary), Some("*"));
    }
}
