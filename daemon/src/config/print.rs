//! Prints the filled-in configuration as YAML that reads back as the same.

use super::decode::Out;

/// Lists and maps of scalars up to this many characters stand on one line.
const INLINE_CHARS_MAX: usize = 90;

/// YAML of `out`, which should be a map.
pub(super) fn print(out: &Out) -> String {
    let mut text = String::new();
    block(out, 0, &mut text);
    text
}

/// `out` with `hiding` applied to each text in it; what changed is text from then on.
pub(super) fn hide(out: Out, hiding: &dyn Fn(&str) -> String) -> Out {
    match out {
        Out::Text(text) => Out::Text(hiding(&text)),
        Out::Plain(word) => match hiding(&word) {
            hidden if hidden == word => Out::Plain(word),
            hidden => Out::Text(hidden),
        },
        Out::List(items) => Out::List(items.into_iter().map(|item| hide(item, hiding)).collect()),
        Out::Map(entries) => {
            let pair = |(key, value): (String, Out)| (hiding(&key), hide(value, hiding));
            Out::Map(entries.into_iter().map(pair).collect())
        }
    }
}

fn block(out: &Out, indent: usize, text: &mut String) {
    let margin = " ".repeat(indent);
    match out {
        Out::Map(entries) => {
            for (key, value) in entries {
                text.push_str(&margin);
                text.push_str(&quoted(key));
                text.push(':');
                after_key(value, indent, text);
            }
        }
        Out::List(items) => {
            for item in items {
                text.push_str(&margin);
                text.push_str("- ");
                list_item(item, indent, text);
            }
        }
        Out::Plain(_) | Out::Text(_) => {
            text.push_str(&margin);
            text.push_str(&inline(out));
            text.push('\n');
        }
    }
}

fn after_key(value: &Out, indent: usize, text: &mut String) {
    let line = inline(value);
    if is_short(value, &line) {
        text.push(' ');
        text.push_str(&line);
        text.push('\n');
    } else {
        text.push('\n');
        block(value, indent + 2, text);
    }
}

fn list_item(item: &Out, indent: usize, text: &mut String) {
    let line = inline(item);
    if is_short(item, &line) {
        text.push_str(&line);
        text.push('\n');
        return;
    }
    let mut inner = String::new();
    block(item, indent + 2, &mut inner);
    text.push_str(inner.trim_start_matches(' '));
}

fn is_short(value: &Out, line: &str) -> bool {
    match value {
        Out::Plain(_) | Out::Text(_) => true,
        Out::List(items) => items.is_empty() || line.chars().count() <= INLINE_CHARS_MAX,
        Out::Map(entries) => entries.is_empty() || line.chars().count() <= INLINE_CHARS_MAX,
    }
}

fn inline(out: &Out) -> String {
    match out {
        Out::Plain(word) => word.clone(),
        Out::Text(text) => quoted(text),
        Out::List(items) => {
            let items: Vec<String> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Out::Map(entries) if entries.is_empty() => "{}".to_owned(),
        Out::Map(entries) => {
            let pair = |(key, value): &(String, Out)| format!("{}: {}", quoted(key), inline(value));
            let pairs: Vec<String> = entries.iter().map(pair).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

/// Bare where no reader could take it for anything but text; else in double quotes (YAML 1.2
/// §7.3.1).
fn quoted(text: &str) -> String {
    let bare = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if bare {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || is_odd(c) => {
                out.push_str(&format!("\\U{:08x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Characters that YAML takes for a line's end, or that are no characters.
const fn is_odd(c: char) -> bool {
    matches!(
        c,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_taken_for_something_else_is_quoted() {
        let text = |text: &str| quoted(text);
        assert_eq!(text("api.example.com"), "api.example.com");
        assert_eq!(text("no"), "\"no\"");
        assert_eq!(text("10.1.1.1:80"), "\"10.1.1.1:80\"");
        assert_eq!(text("@"), "\"@\"");
        assert_eq!(text("a \"b\"\n"), "\"a \\\"b\\\"\\n\"");
    }
}
