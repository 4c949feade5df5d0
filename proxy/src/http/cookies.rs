//! Cookies as requests bring them (RFC 6265 §4.2): reads one, takes one out. Pure; judges no value.

use super::fields::{Fields, Known};

/// The first cookie of this name.
pub(crate) fn cookie<'f>(fields: &'f Fields, name: &str) -> Option<&'f [u8]> {
    let mut pairs = fields.all(Known::Cookie).flat_map(pairs);
    pairs.find_map(|pair| value_of(pair, name))
}

/// Takes every cookie of this name out.
pub(crate) fn without(fields: &mut Fields, name: &str) {
    if cookie(fields, name).is_none() {
        return;
    }
    let lines: Vec<Vec<u8>> = fields
        .all(Known::Cookie)
        .map(|line| {
            let others = pairs(line).filter(|pair| value_of(pair, name).is_none());
            others.collect::<Vec<_>>().join(&b"; "[..])
        })
        .collect();
    fields.remove(Known::Cookie);
    for line in lines.iter().filter(|line| !line.is_empty()) {
        fields.append(Known::Cookie, line);
    }
}

fn pairs(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

fn value_of<'p>(pair: &'p [u8], name: &str) -> Option<&'p [u8]> {
    let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
    let bare = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    Some(bare.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(lines: &[&str]) -> Fields {
        let mut fields = Fields::new();
        for line in lines {
            fields.append(Known::Cookie, line.as_bytes());
        }
        fields
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_any_line() {
        let fields = with(&["aa=1; a=2;a=3", "b=\"x y\" ; c=; sid=x=y"]);

        assert_eq!(cookie(&fields, "a"), Some(&b"2"[..]));
        assert_eq!(cookie(&fields, "b"), Some(&b"x y"[..]));
        assert_eq!(cookie(&fields, "c"), Some(&b""[..]));
        assert_eq!(cookie(&fields, "sid"), Some(&b"x=y"[..]));
        for absent in ["d", "A", "id", "si"] {
            assert_eq!(cookie(&fields, absent), None);
        }
        assert_eq!(cookie(&with(&["a", ";;", "=a"]), "a"), None);
    }

    #[test]
    fn a_cookie_is_taken_out_and_the_others_stay() {
        let mut fields = with(&["aa=1; a=2;b=3", "a=4", "c=5"]);
        without(&mut fields, "a");

        let lines: Vec<_> = fields.all(Known::Cookie).collect();
        assert_eq!(lines, [&b"aa=1; b=3"[..], &b"c=5"[..]]);
        without(&mut fields, "x");
        assert_eq!(fields.all(Known::Cookie).count(), 2);
    }
}
