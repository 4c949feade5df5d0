//! YAML text as a tree in which everything knows its place. Knows no key of the configuration.
//!
//! Anchors, aliases and `<<` merges are followed; what they blow up is bounded. Duplicate keys,
//! tags, keys that are no scalars and a second document are mistakes.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as Marks};

use super::error::{Mistake, Notes};
use super::source::Span;

/// Maps and lists inside one another; deeper is a mistake.
pub(super) const DEPTH_MAX: usize = 32;
/// Nodes once aliases are followed (long scalars count as several); more is a mistake, so that a
/// few lines of aliases cannot fill the memory.
pub(super) const NODES_MAX: usize = 500_000;
/// Bytes of text that count as one more node.
const BYTES_PER_NODE: usize = 256;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub(super) text: Arc<str>,
    /// Neither quoted nor a block: `5` may be a number, `~` is nothing.
    pub(super) plain: bool,
    /// As it was written, when references to the environment were replaced in it. `text` may be a
    /// secret then: this is what is shown.
    pub(super) written: Option<Arc<str>>,
    /// A mistake in it was noted already.
    pub(super) unusable: bool,
}

impl Scalar {
    /// What may be shown to people.
    pub(super) fn shown(&self) -> &str {
        self.written.as_deref().unwrap_or(&self.text)
    }

    /// Nothing was written (YAML's core schema).
    pub(super) fn is_null(&self) -> bool {
        self.plain && matches!(&*self.text, "" | "~" | "null" | "Null" | "NULL")
    }

    pub(super) fn is_bool(&self) -> bool {
        self.plain
            && matches!(
                &*self.text,
                "true" | "false" | "True" | "False" | "TRUE" | "FALSE"
            )
    }

    pub(super) fn is_number(&self) -> bool {
        let first = self.text.bytes().next().unwrap_or(b' ');
        self.plain
            && (first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.'))
            && self.text.parse::<f64>().is_ok()
    }
}

impl Node {
    /// What it is, for `found …`.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
            Kind::Scalar(scalar) if scalar.is_null() => "nothing".to_owned(),
            Kind::Scalar(scalar) => {
                let shown: String = scalar.shown().chars().take(60).collect();
                let dots = if shown.len() < scalar.shown().len() {
                    "…"
                } else {
                    ""
                };
                format!("`{}{dots}`", shown.escape_debug())
            }
        }
    }

    /// For text that is not the operator's.
    pub(super) fn forget_places(&mut self) {
        self.span = Span::NONE;
        match &mut self.kind {
            Kind::Scalar(_) => {}
            Kind::List(items) => items.iter_mut().for_each(Self::forget_places),
            Kind::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
                key.forget_places();
                value.forget_places();
            }),
        }
    }

    fn weight(&self) -> usize {
        match &self.kind {
            Kind::Scalar(scalar) => 1 + scalar.text.len() / BYTES_PER_NODE,
            Kind::List(items) => 1 + items.iter().map(Self::weight).sum::<usize>(),
            Kind::Map(entries) => {
                let pair = |(key, value): &(Self, Self)| key.weight() + value.weight();
                1 + entries.iter().map(pair).sum::<usize>()
            }
        }
    }
}

/// The tree of the file's only document. `None` when it could not be read; the mistakes say why.
pub(super) fn read(text: &str, file: u16, notes: &mut Notes) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        file,
        notes,
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        root: None,
        documents: 0,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let step = match event {
            Ok((event, marks)) => builder.take(event, marks),
            Err(error) => {
                let marker = error.marker();
                let span = Span::at(file, number(marker.line()), number(marker.col() + 1));
                Err(Mistake::new(span, format!("not YAML: {}", error.info())).into())
            }
        };
        if let Err(mistake) = step {
            builder.notes.mistake(*mistake);
            return None;
        }
    }
    let root = builder.root;
    if root.is_none() {
        notes.wrong(Span::at(file, 1, 1), "the file is empty");
    }
    root
}

struct Builder<'a> {
    file: u16,
    notes: &'a mut Notes,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
    documents: usize,
}

/// A list or map whose end was not seen yet.
struct Open {
    span: Span,
    anchor: usize,
    holds: Holds,
}

enum Holds {
    List(Vec<Node>),
    Map(Vec<(Node, Node)>, Option<Node>),
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, marks: Marks) -> Result<(), Box<Mistake>> {
        let span = self.span(marks);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.start_document(span),
            Event::Alias(anchor) => self.follow(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                self.no_tag(tag.as_deref(), span);
                let scalar = Scalar {
                    text: text.as_ref().into(),
                    plain: style == ScalarStyle::Plain,
                    written: None,
                    unusable: false,
                };
                self.put(Kind::Scalar(scalar), span, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.no_tag(tag.as_deref(), span);
                self.start(Holds::List(Vec::new()), span, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.no_tag(tag.as_deref(), span);
                self.start(Holds::Map(Vec::new(), None), span, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
        }
    }

    fn span(&self, marks: Marks) -> Span {
        Span {
            file: self.file,
            line: number(marks.start.line()),
            column: number(marks.start.col() + 1),
            end_line: number(marks.end.line()),
            end_column: number(marks.end.col() + 1),
        }
    }

    fn start_document(&mut self, span: Span) -> Result<(), Box<Mistake>> {
        self.documents += 1;
        if self.documents > 1 {
            return Err(Mistake::new(span, "a second document begins here")
                .expected("one document in one file")
                .into());
        }
        Ok(())
    }

    fn no_tag(&mut self, tag: Option<&saphyr_parser::Tag>, span: Span) {
        if let Some(tag) = tag {
            self.notes.mistake(
                Mistake::new(span, format!("the tag `{tag}` means nothing here"))
                    .expected("a value without a tag"),
            );
        }
    }

    fn start(&mut self, holds: Holds, span: Span, anchor: usize) -> Result<(), Box<Mistake>> {
        if self.open.len() >= DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} maps and lists inside one another");
            return Err(Mistake::new(span, message).into());
        }
        self.open.push(Open {
            span,
            anchor,
            holds,
        });
        Ok(())
    }

    fn end(&mut self, end: Span) -> Result<(), Box<Mistake>> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let span = Span {
            end_line: end.end_line,
            end_column: end.end_column,
            ..open.span
        };
        let kind = match open.holds {
            Holds::List(items) => Kind::List(items),
            Holds::Map(entries, _) => {
                let entries = self.without_duplicates(entries);
                Kind::Map(self.merge(entries))
            }
        };
        self.put(kind, span, open.anchor)
    }

    fn follow(&mut self, anchor: usize, span: Span) -> Result<(), Box<Mistake>> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(Mistake::new(span, "this alias is inside what it stands for").into());
        };
        let (weight, node) = (node.weight(), node.clone());
        self.count(weight, span)?;
        self.place(node)
    }

    fn put(&mut self, kind: Kind, span: Span, anchor: usize) -> Result<(), Box<Mistake>> {
        let own = match &kind {
            Kind::Scalar(scalar) => 1 + scalar.text.len() / BYTES_PER_NODE,
            Kind::List(_) | Kind::Map(_) => 1,
        };
        self.count(own, span)?;
        let node = Node { span, kind };
        if anchor != 0 {
            // Kept besides the original: counted, since nested anchors keep copies of copies.
            self.count(node.weight(), span)?;
            self.anchors.insert(anchor, node.clone());
        }
        self.place(node)
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Box<Mistake>> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            let message = format!("more than {NODES_MAX} values, with aliases followed");
            return Err(Mistake::new(span, message).into());
        }
        Ok(())
    }

    fn place(&mut self, node: Node) -> Result<(), Box<Mistake>> {
        match self.open.last_mut().map(|open| &mut open.holds) {
            None => self.root = Some(node),
            Some(Holds::List(items)) => items.push(node),
            Some(Holds::Map(entries, waiting)) => match waiting.take() {
                Some(key) => entries.push((key, node)),
                None if matches!(node.kind, Kind::Scalar(_)) => *waiting = Some(node),
                None => {
                    return Err(Mistake::new(node.span, "a key must be a word")
                        .expected("`key: value`, not a list or map as the key")
                        .into());
                }
            },
        }
        Ok(())
    }

    /// Keeps the first of the entries with the same key, and notes the others.
    fn without_duplicates(&mut self, entries: Vec<(Node, Node)>) -> Vec<(Node, Node)> {
        let mut seen: HashMap<Arc<str>, Span> = HashMap::new();
        let mut kept = Vec::with_capacity(entries.len());
        for entry in entries {
            if let Kind::Scalar(scalar) = &entry.0.kind
                && !(scalar.plain && &*scalar.text == "<<")
            {
                if let Some(first) = seen.get(&scalar.text) {
                    let shown = scalar.shown().escape_debug();
                    let message = format!("the key `{shown}` stands here twice");
                    let mistake = Mistake::new(entry.0.span, message).related(*first, "first here");
                    self.notes.mistake(mistake);
                    continue;
                }
                seen.insert(scalar.text.clone(), entry.0.span);
            }
            kept.push(entry);
        }
        kept
    }

    /// Puts what `<<` refers to behind the map's own keys, which win; earlier references win over
    /// later ones (YAML's merge key type).
    fn merge(&mut self, entries: Vec<(Node, Node)>) -> Vec<(Node, Node)> {
        let is_merge = |(key, _): &(Node, Node)| matches!(&key.kind, Kind::Scalar(s) if s.plain && &*s.text == "<<");
        if !entries.iter().any(is_merge) {
            return entries;
        }
        let (merged, own): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_merge);
        let mut known: HashMap<Arc<str>, ()> = own.iter().filter_map(|(k, _)| word(k)).collect();
        let mut all = own;
        for (key, value) in merged {
            for entry in self.merged_entries(key.span, value) {
                if let Some((word, ())) = word(&entry.0)
                    && known.insert(word, ()).is_none()
                {
                    all.push(entry);
                }
            }
        }
        all
    }

    fn merged_entries(&mut self, at: Span, value: Node) -> Vec<(Node, Node)> {
        let parts = match value.kind {
            Kind::List(items) => items,
            _ => vec![value],
        };
        let mut entries = Vec::new();
        for part in parts {
            match part.kind {
                Kind::Map(map) => entries.extend(map),
                _ => self.notes.mistake(
                    Mistake::new(at, "`<<` merges maps only").expected("`<<: *anchor-of-a-map`"),
                ),
            }
        }
        entries
    }
}

fn word(key: &Node) -> Option<(Arc<str>, ())> {
    match &key.kind {
        Kind::Scalar(scalar) => Some((scalar.text.clone(), ())),
        _ => None,
    }
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
