//! Mistakes, where they are, and how they print. Finds none itself.

use std::fmt::{self, Write as _};

use super::source::{Sources, Span};

/// Mistakes that are kept; further ones are only counted: nobody reads more at once.
pub(super) const MISTAKES_MAX: usize = 200;

/// Characters of a line that an excerpt shows.
const EXCERPT_CHARS: usize = 120;

/// One thing that is wrong in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub(super) span: Span,
    pub(super) message: String,
    /// What would have been right.
    pub(super) expected: Option<String>,
    pub(super) help: Option<String>,
    /// Another place that has to do with it, and what is there.
    pub(super) related: Option<(Span, String)>,
}

impl Mistake {
    pub(super) fn new(span: Span, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            expected: None,
            help: None,
            related: None,
        }
    }

    pub(super) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds `did you mean` when there is something near.
    pub(super) fn nearest(mut self, nearest: Option<&str>) -> Self {
        if let Some(nearest) = nearest {
            self.help = Some(format!("did you mean `{nearest}`?"));
        }
        self
    }

    pub(super) fn related(mut self, span: Span, what: impl Into<String>) -> Self {
        if span.is_written() {
            self.related = Some((span, what.into()));
        }
        self
    }
}

/// Everything that was noticed while reading.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) sources: Sources,
    mistakes: Vec<Mistake>,
    suppressed: usize,
    warnings: Vec<(Span, String)>,
    /// Literal secrets: excerpts show them as stars.
    secrets: Vec<Span>,
    /// What variables hold, and the references that are shown in its place.
    hidden: Vec<(String, String)>,
}

/// Shorter values of variables are no secrets, and would be found everywhere.
const HIDDEN_CHARS_MIN: usize = 6;

impl Notes {
    pub(super) fn mistake(&mut self, mistake: Mistake) {
        if self.mistakes.len() >= MISTAKES_MAX {
            self.suppressed += 1;
        } else if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    /// Short for a mistake that needs no more than a sentence.
    pub(super) fn wrong(&mut self, span: Span, message: impl Into<String>) {
        self.mistake(Mistake::new(span, message));
    }

    pub(super) fn warn(&mut self, span: Span, message: impl Into<String>) {
        self.warnings.push((span, message.into()));
    }

    pub(super) fn secret(&mut self, span: Span) {
        self.secrets.push(span);
    }

    /// From now on `value` is printed as `reference`, however it was taken over.
    pub(super) fn hide(&mut self, value: String, reference: String) {
        let spellings = [
            value.to_lowercase(),
            value.escape_debug().to_string(),
            value,
        ];
        for spelling in spellings {
            let known = self.hidden.iter().any(|(known, _)| *known == spelling);
            if !known && spelling.chars().count() >= HIDDEN_CHARS_MIN {
                self.hidden.push((spelling, reference.clone()));
            }
        }
        // What contains another value is hidden before it.
        self.hidden
            .sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
    }

    /// The text without what variables hold.
    pub(super) fn hiding(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (value, reference) in &self.hidden {
            if text.contains(value.as_str()) {
                text = text.replace(value.as_str(), reference);
            }
        }
        text
    }

    pub(super) const fn count(&self) -> usize {
        self.mistakes.len() + self.suppressed
    }

    /// Whether a further mistake would only be counted.
    pub(super) const fn is_full(&self) -> bool {
        self.mistakes.len() >= MISTAKES_MAX
    }

    /// The warnings as lines `file:line:column: message`.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        warnings.sort_by_key(|(span, _)| *span);
        warnings
            .into_iter()
            .map(|(span, message)| format!("{}: {}", self.place(span), self.hiding(&message)))
            .collect()
    }

    pub(super) fn into_report(mut self) -> Report {
        self.mistakes.sort_by_key(|mistake| mistake.span);
        let shown = self.mistakes.iter().map(|m| self.print(m)).collect();
        Report {
            file: self.sources.name(0).to_owned(),
            shown,
            suppressed: self.suppressed,
            warnings: self.warnings(),
        }
    }

    fn place(&self, span: Span) -> String {
        let name = self.sources.name(span.file);
        if span.is_written() {
            format!("{name}:{}:{}", span.line, span.column)
        } else {
            name.to_owned()
        }
    }

    fn print(&self, mistake: &Mistake) -> Printed {
        let related = mistake.related.as_ref().map(|(span, what)| Excerpt {
            note: Some(format!("{} ({})", self.hiding(what), self.place(*span))),
            ..self.excerpt(*span)
        });
        Printed {
            place: self.place(mistake.span),
            message: self.hiding(&mistake.message),
            excerpts: std::iter::once(self.excerpt(mistake.span))
                .chain(related)
                .filter(|excerpt| excerpt.line != 0)
                .collect(),
            expected: mistake.expected.as_deref().map(|text| self.hiding(text)),
            help: mistake.help.as_deref().map(|text| self.hiding(text)),
        }
    }

    fn excerpt(&self, span: Span) -> Excerpt {
        let Some(line) = self.sources.line(span.file, span.line) else {
            return Excerpt::default();
        };
        let masked = self.mask(span.file, span.line, line);
        let start = usize::try_from(span.column.saturating_sub(1)).unwrap_or(0);
        let end = if span.end_line == span.line {
            usize::try_from(span.end_column.saturating_sub(1)).unwrap_or(0)
        } else {
            line.trim_end().chars().count()
        };
        // Long lines are shown around the place.
        let skipped = start.saturating_sub(EXCERPT_CHARS / 2);
        let skipped = if masked.len() <= EXCERPT_CHARS {
            0
        } else {
            skipped
        };
        let shown: String = masked.iter().skip(skipped).take(EXCERPT_CHARS).collect();
        let shown = shown.trim_end().to_owned();
        let start = (start - skipped).min(EXCERPT_CHARS);
        let end = end.saturating_sub(skipped);
        let marked: String = shown.chars().take(end).skip(start).collect();
        Excerpt {
            line: span.line,
            width: marked.trim_end().chars().count().max(1),
            text: shown,
            caret: start,
            note: None,
        }
    }

    /// The line's characters, secrets starred, nothing that a terminal would obey.
    fn mask(&self, file: u16, number: u32, line: &str) -> Vec<char> {
        let printable = |c: char| match c {
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        };
        let mut characters: Vec<char> = line.chars().map(printable).collect();
        let on_line = |span: &&Span| {
            span.file == file && (span.line..=span.end_line.max(span.line)).contains(&number)
        };
        for secret in self.secrets.iter().filter(on_line) {
            let column = |column: u32| usize::try_from(column.saturating_sub(1)).unwrap_or(0);
            let from = if secret.line == number {
                column(secret.column)
            } else {
                0
            };
            let to = if secret.end_line == number {
                column(secret.end_column)
            } else {
                characters.len()
            };
            for character in characters.iter_mut().take(to).skip(from) {
                *character = '*';
            }
        }
        characters
    }
}

/// Everything that is wrong with a configuration file. Prints with excerpts; `{:#}` in colour.
#[derive(Clone, Debug)]
pub struct Report {
    file: String,
    shown: Vec<Printed>,
    suppressed: usize,
    warnings: Vec<String>,
}

#[derive(Clone, Debug)]
struct Printed {
    place: String,
    message: String,
    excerpts: Vec<Excerpt>,
    expected: Option<String>,
    help: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Excerpt {
    line: u32,
    text: String,
    caret: usize,
    width: usize,
    note: Option<String>,
}

impl Report {
    /// How many mistakes there are, printed or not. Never zero.
    #[must_use]
    pub fn mistakes(&self) -> usize {
        self.shown.len() + self.suppressed
    }

    /// One line for each mistake, `file:line:column: message`: for logs.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.shown
            .iter()
            .map(|mistake| format!("{}: {}", mistake.place, mistake.message))
    }

    /// What is lawful but looks wrong, as lines.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// As [`fmt::Display`] prints it, with ANSI colours.
    #[must_use]
    pub fn coloured(&self) -> String {
        self.render(&COLOURED)
    }

    fn render(&self, style: &Style) -> String {
        let mut out = String::new();
        for mistake in &self.shown {
            mistake.render(style, &mut out);
            out.push('\n');
        }
        let all = self.mistakes();
        if self.suppressed > 0 {
            out.push_str(&format!("… and {} more\n", self.suppressed));
        }
        let plural = if all == 1 { "" } else { "s" };
        out.push_str(style.bad);
        out.push_str(&format!("{all} mistake{plural} in {}", self.file));
        out.push_str(style.off);
        out
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let style = if f.alternate() { &COLOURED } else { &PLAIN };
        f.write_str(&self.render(style))
    }
}

impl std::error::Error for Report {}

impl Printed {
    fn render(&self, style: &Style, out: &mut String) {
        let Style {
            strong,
            bad,
            good,
            faint,
            off,
        } = style;
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            out,
            "{strong}{}:{off} {bad}{}{off}",
            self.place, self.message
        );
        let numbers = self.excerpts.iter().map(|e| e.line.to_string().len());
        let margin = numbers.max().unwrap_or(0);
        for excerpt in &self.excerpts {
            let note = excerpt.note.as_deref().unwrap_or("");
            let mark = if excerpt.note.is_some() { '-' } else { '^' };
            let carets = mark.to_string().repeat(excerpt.width);
            let indent = " ".repeat(excerpt.caret);
            let _ = writeln!(out, "{faint}{:>margin$} |{off}", "");
            let _ = writeln!(
                out,
                "{faint}{:>margin$} |{off} {}",
                excerpt.line, excerpt.text
            );
            let line = format!("{indent}{carets} {note}");
            let _ = writeln!(
                out,
                "{faint}{:>margin$} |{off} {bad}{}{off}",
                "",
                line.trim_end()
            );
        }
        if let Some(expected) = &self.expected {
            let _ = writeln!(out, "{:>margin$} = expected {expected}", "");
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "{:>margin$} = {good}help:{off} {help}", "");
        }
    }
}

struct Style {
    strong: &'static str,
    bad: &'static str,
    good: &'static str,
    faint: &'static str,
    off: &'static str,
}

const PLAIN: Style = Style {
    strong: "",
    bad: "",
    good: "",
    faint: "",
    off: "",
};

const COLOURED: Style = Style {
    strong: "\x1b[1m",
    bad: "\x1b[31m",
    good: "\x1b[32m",
    faint: "\x1b[2m",
    off: "\x1b[0m",
};
