//! References to the environment in scalars: `${VAR}`, `${VAR:-default}`, `${VAR:?message}`.
//!
//! What they stand for is never printed: the scalar remembers its text as written. `$${` is a
//! literal `${`. Keys are never expanded, nor is what a variable holds.

use super::error::{Mistake, Notes};
use super::source::Span;
use super::yaml::{Kind, Node, Scalar};

/// Looks a variable up.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Replaces the references in every value under `node`.
pub(super) fn expand(node: &mut Node, env: &Environment<'_>, notes: &mut Notes) {
    let span = node.span;
    match &mut node.kind {
        Kind::Scalar(scalar) => expand_scalar(scalar, span, env, notes),
        Kind::List(items) => items.iter_mut().for_each(|item| expand(item, env, notes)),
        Kind::Map(entries) => {
            for (_, value) in entries {
                expand(value, env, notes);
            }
        }
    }
}

fn expand_scalar(scalar: &mut Scalar, span: Span, env: &Environment<'_>, notes: &mut Notes) {
    if !scalar.text.contains("${") {
        return;
    }
    let mut used = Vec::new();
    let result = expanded(&scalar.text, env, &mut used);
    for (name, value) in used {
        notes.hide(value, format!("${{{name}}}"));
    }
    match result {
        Ok(text) => {
            scalar.written = Some(scalar.text.clone());
            scalar.text = text.into();
        }
        Err(fault) => {
            notes.mistake(fault.mistake(span));
            // Decoded as something that is wrong in itself: one mistake is enough.
            scalar.written = Some(scalar.text.clone());
            scalar.unusable = true;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Unclosed,
    BadName(String),
    Missing {
        name: String,
        message: Option<String>,
    },
}

impl Fault {
    fn mistake(self, span: Span) -> Mistake {
        const FORMS: &str = "`${VAR}`, `${VAR:-default}` or `${VAR:?message}`";
        match self {
            Self::Unclosed => Mistake::new(span, "`${` is never closed")
                .expected(FORMS)
                .help("a literal `${` is written `$${`"),
            Self::BadName(name) => {
                let message = format!("`{}` is no variable's name", name.escape_debug());
                Mistake::new(span, message)
                    .expected(FORMS)
                    .help("a literal `${` is written `$${`")
            }
            Self::Missing { name, message } => {
                let because =
                    message.unwrap_or_else(|| "it is not set and has no default".to_owned());
                Mistake::new(span, format!("the variable `{name}`: {because}"))
                    .help(format!("set it, or write `${{{name}:-default}}`"))
            }
        }
    }
}

/// The text with its references replaced; `used` gets each variable with what it holds.
fn expanded(
    text: &str,
    env: &Environment<'_>,
    used: &mut Vec<(String, String)>,
) -> Result<String, Fault> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &from[2..];
            continue;
        }
        out.push_str(before);
        let inside = &from[2..];
        let end = inside.find('}').ok_or(Fault::Unclosed)?;
        out.push_str(&value(&inside[..end], env, used)?);
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn value(
    reference: &str,
    env: &Environment<'_>,
    used: &mut Vec<(String, String)>,
) -> Result<String, Fault> {
    let end = reference.find(':').unwrap_or(reference.len());
    let (name, otherwise) = reference.split_at(end);
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let lawful = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !starts_well || !lawful {
        return Err(Fault::BadName(name.to_owned()));
    }
    let has_lawful_form = ["", ":-", ":?"]
        .iter()
        .any(|form| otherwise.starts_with(form) && (!form.is_empty() || otherwise.is_empty()));
    if !has_lawful_form {
        return Err(Fault::BadName(reference.to_owned()));
    }
    let missing = |message: Option<&str>| Fault::Missing {
        name: name.to_owned(),
        message: message.map(ToOwned::to_owned),
    };
    // As in a shell, `:-` and `:?` take an empty variable for a missing one.
    let set = env(name).filter(|value| otherwise.is_empty() || !value.is_empty());
    if let Some(value) = set {
        used.push((name.to_owned(), value.clone()));
        return Ok(value);
    }
    if let Some(default) = otherwise.strip_prefix(":-") {
        return Ok(default.to_owned());
    }
    Err(missing(otherwise.strip_prefix(":?")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("${SET}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn references_are_replaced_as_in_a_shell() {
        let cases = [
            ("a ${SET} b", "a value b"),
            ("${SET}${SET}", "valuevalue"),
            ("${MISSING:-other}", "other"),
            ("${EMPTY:-other}", "other"),
            ("[${EMPTY}]", "[]"),
            ("${SET:?unused}", "value"),
            ("$${SET}", "${SET}"),
            ("$SET", "$SET"),
        ];
        for (text, wanted) in cases {
            assert_eq!(
                expanded(text, &env, &mut Vec::new()).as_deref(),
                Ok(wanted),
                "{text}"
            );
        }
    }

    #[test]
    fn what_a_variable_holds_is_not_expanded_again() {
        assert_eq!(
            expanded("${TRICKY}", &env, &mut Vec::new()).as_deref(),
            Ok("${SET}")
        );
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "${",
            "${SET",
            "${1A}",
            "${}",
            "${A B}",
            "${SET:+x}",
            "${SET:",
        ] {
            assert!(expanded(text, &env, &mut Vec::new()).is_err(), "{text}");
        }
    }
}
