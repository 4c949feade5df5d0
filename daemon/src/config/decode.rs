//! From the tree to typed values: what every key's type can do, and how maps are taken apart.
//!
//! One definition of a struct (`shape!`) yields its reading, its JSON Schema, its defaults and its
//! printing, so that these cannot drift apart. Knows no key by itself: `spec` has them.

use std::ops::Deref;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::error::{Mistake, Notes};
use super::source::Span;
use super::yaml::{Kind, Node, Scalar};

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct At<T> {
    pub value: T,
    pub span: Span,
    /// The text as written, when it refers to the environment: printed instead of the value.
    pub written: Option<Arc<str>>,
}

impl<T> At<T> {
    pub const fn new(value: T, span: Span) -> Self {
        Self {
            value,
            span,
            written: None,
        }
    }

    /// What nobody wrote.
    pub const fn unwritten(value: T) -> Self {
        Self::new(value, Span::NONE)
    }
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// As it would be written: a reference to the environment as such.
pub(super) fn emit<T: Shape>(at: &At<T>) -> Out {
    match &at.written {
        Some(written) => Out::Text(written.to_string()),
        None => at.value.emit(),
    }
}

/// Where decoding is: collects mistakes and knows the path of keys for them.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    pub(super) notes: &'a mut Notes,
    path: Vec<String>,
}

impl<'a> Decoder<'a> {
    pub(super) const fn new(notes: &'a mut Notes) -> Self {
        Self {
            notes,
            path: Vec::new(),
        }
    }

    /// Decodes one value under `step`, with its place.
    pub(super) fn value<T: Shape>(&mut self, step: String, node: &Node) -> Option<At<T>> {
        if matches!(&node.kind, Kind::Scalar(scalar) if scalar.unusable) {
            return None;
        }
        self.path.push(step);
        let value = T::decode(node, self);
        self.path.pop();
        let written = match &node.kind {
            Kind::Scalar(scalar) => scalar.written.clone(),
            _ => None,
        };
        value.map(|value| At {
            value,
            span: node.span,
            written,
        })
    }

    /// `pools.api.probe`, in backticks; or `the file`.
    pub(super) fn here(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            if !path.is_empty() && !step.starts_with('[') {
                path.push('.');
            }
            path.push_str(step);
        }
        if path.is_empty() {
            "the file".to_owned()
        } else {
            format!("`{path}`")
        }
    }

    /// The value is not of the kind that its key wants.
    pub(super) fn wrong_type(&mut self, node: &Node, expected: &str) -> Mistake {
        let found = node.describe();
        Mistake::new(node.span, format!("{} cannot be {found}", self.here())).expected(expected)
    }
}

/// What the definitions of structs need from their keys' types.
pub(super) trait Shape: Sized {
    /// `None` when a mistake was noted instead.
    fn decode(node: &Node, decoder: &mut Decoder<'_>) -> Option<Self>;
    /// As JSON Schema; structs put themselves into `defs` and refer to that.
    fn schema(defs: &mut Map<String, Value>) -> Value;
    /// As it would be written.
    fn emit(&self) -> Out;
    /// Puts the defaults where nothing is.
    fn fill(&mut self) {}
    /// Takes from `from` (the operator's `defaults:`) what is not here.
    fn inherit(&mut self, _from: &Self) {}
}

/// YAML that is about to be printed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Out {
    /// Printed bare: numbers, words.
    Plain(String),
    /// Quoted where it must be.
    Text(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

// --- scalars -----------------------------------------------------------------------------------

/// A value written as one scalar.
pub(super) trait Leaf: Sized {
    /// After `expected`.
    fn expected() -> String;
    /// `Err`: what is wrong with it, as a sentence's end (`lacks a unit`), or nothing to add.
    fn read(text: &str) -> Result<Self, Wrong>;
    fn write(&self) -> Out;
    fn schema() -> Value;
    /// A number or boolean in plain style is not text.
    const TEXTUAL: bool = false;
    /// A number in quotes is not a number.
    const NUMERIC: bool = false;
    /// Never shown.
    const SECRET: bool = false;
}

/// Why a scalar is not lawful.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wrong {
    /// `lacks a unit`; empty when the expectation says enough.
    pub(super) because: String,
    pub(super) help: Option<String>,
}

impl Wrong {
    pub(super) fn because(because: impl Into<String>) -> Self {
        Self {
            because: because.into(),
            help: None,
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

pub(super) fn decode_leaf<T: Leaf>(node: &Node, decoder: &mut Decoder<'_>) -> Option<T> {
    let expected = T::expected();
    let Kind::Scalar(scalar) = &node.kind else {
        let mistake = decoder.wrong_type(node, &expected);
        decoder.notes.mistake(mistake);
        return None;
    };
    let names_a_file = scalar.text.starts_with("file:");
    if T::SECRET && scalar.written.is_none() && !names_a_file {
        decoder.notes.secret(node.span);
    }
    match read_scalar::<T>(scalar) {
        Ok(value) => Some(value),
        Err(wrong) => {
            let found = if T::SECRET && scalar.written.is_none() {
                "this".to_owned()
            } else {
                node.describe()
            };
            let message = if wrong.because.is_empty() {
                format!("{} cannot be {found}", decoder.here())
            } else {
                format!("{}: {found} {}", decoder.here(), wrong.because)
            };
            let mut mistake = Mistake::new(node.span, message).expected(expected);
            mistake.help = wrong.help;
            decoder.notes.mistake(mistake);
            None
        }
    }
}

fn read_scalar<T: Leaf>(scalar: &Scalar) -> Result<T, Wrong> {
    if scalar.is_null() {
        return Err(Wrong::default());
    }
    let literal = scalar.written.is_none();
    if literal && T::TEXTUAL && (scalar.is_number() || scalar.is_bool()) {
        let kind = if scalar.is_bool() {
            "true or false"
        } else {
            "a number"
        };
        return Err(Wrong::because(format!("is {kind}, not text"))
            .help(format!("write it in quotes: `\"{}\"`", scalar.text)));
    }
    if literal && T::NUMERIC && !scalar.plain && T::read(&scalar.text).is_ok() {
        return Err(Wrong::because("is text, not a number").help("write it without quotes"));
    }
    T::read(&scalar.text)
}

/// Makes a [`Leaf`] a [`Shape`].
macro_rules! leaf {
    ([$($generics:tt)*] $type:ty) => {
        impl<$($generics)*> $crate::config::decode::Shape for $type {
            fn decode(
                node: &$crate::config::yaml::Node,
                decoder: &mut $crate::config::decode::Decoder<'_>,
            ) -> Option<Self> {
                $crate::config::decode::decode_leaf(node, decoder)
            }

            fn schema(_: &mut serde_json::Map<String, serde_json::Value>) -> serde_json::Value {
                $crate::config::decode::or_reference(
                    <Self as $crate::config::decode::Leaf>::schema(),
                    <Self as $crate::config::decode::Leaf>::expected(),
                )
            }

            fn emit(&self) -> $crate::config::decode::Out {
                $crate::config::decode::Leaf::write(self)
            }
        }
    };
}
pub(super) use leaf;

/// Anywhere a scalar may stand, a reference to the environment may stand. `title`: what is
/// expected, in words.
pub(super) fn or_reference(schema: Value, title: String) -> Value {
    let free_text = schema.get("type") == Some(&json!("string"))
        && schema.get("pattern").is_none()
        && schema.get("enum").is_none();
    let mut schema = if free_text {
        schema
    } else {
        json!({ "anyOf": [schema, { "type": "string", "pattern": r"\$\{[A-Za-z_]" }] })
    };
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), json!(title));
    }
    schema
}

/// A word out of a fixed set.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])*
        $name:ident { $( $(#[doc = $vdoc:literal])* $variant:ident = $word:literal ),* $(,)? }
        $(later [$($later:literal),* $(,)?])?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[doc = $vdoc])* $variant, )* }

        impl $name {
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl $crate::config::decode::Leaf for $name {
            fn expected() -> String {
                $crate::config::decode::one_of(Self::WORDS)
            }

            fn read(text: &str) -> Result<Self, $crate::config::decode::Wrong> {
                match text {
                    $( $word => Ok(Self::$variant), )*
                    _ => Err($crate::config::decode::wrong_word(
                        text, Self::WORDS, &[$($($later),*)?],
                    )),
                }
            }

            fn write(&self) -> $crate::config::decode::Out {
                $crate::config::decode::Out::Plain(self.as_str().to_owned())
            }

            fn schema() -> serde_json::Value {
                serde_json::json!({ "type": "string", "enum": Self::WORDS })
            }
        }

        $crate::config::decode::leaf!([] $name);
    };
}
pub(super) use choice;

pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [only] => format!("`{only}`"),
        [most @ .., last] => format!("`{}` or `{last}`", most.join("`, `")),
        [] => "nothing".to_owned(),
    }
}

pub(super) fn wrong_word(text: &str, words: &[&str], later: &[&str]) -> Wrong {
    if later.contains(&text) {
        return Wrong::because("isn't known to this version of Sealane");
    }
    let near = nearest(text, words.iter().copied());
    let wrong = Wrong::because("isn't known");
    match near {
        Some(near) => wrong.help(format!("did you mean `{near}`?")),
        None => wrong,
    }
}

/// The word that was probably meant: at most a third of its letters differ; case, hyphens and
/// underscores don't count.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer words are no typing errors of any key or name.
    const WORD_MAX: usize = 256;
    if word.len() > WORD_MAX {
        return None;
    }
    let flat = |text: &str| text.to_lowercase().replace('_', "-");
    let wanted = flat(word);
    known
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&wanted, &flat(candidate));
            (distance, candidate)
        })
        .filter(|(distance, candidate)| {
            let length = wanted.chars().count().max(candidate.chars().count());
            distance * 3 <= length && *distance < length
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

// --- lists and tables --------------------------------------------------------------------------

/// Values in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List<T>(pub Vec<At<T>>);

impl<T> Deref for List<T> {
    type Target = Vec<At<T>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T: Shape> Shape for List<T> {
    fn decode(node: &Node, decoder: &mut Decoder<'_>) -> Option<Self> {
        let Kind::List(items) = &node.kind else {
            let mistake = decoder.wrong_type(node, "a list");
            decoder.notes.mistake(mistake);
            return None;
        };
        let decode = |(index, item)| decoder.value(format!("[{index}]"), item);
        Some(Self(items.iter().enumerate().filter_map(decode).collect()))
    }

    fn schema(defs: &mut Map<String, Value>) -> Value {
        json!({ "type": "array", "items": T::schema(defs) })
    }

    fn emit(&self) -> Out {
        Out::List(self.0.iter().map(emit).collect())
    }

    fn fill(&mut self) {
        self.0.iter_mut().for_each(|item| item.value.fill());
    }
}

/// A list; a single value may stand without brackets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OneOrMany<T>(pub Vec<At<T>>);

impl<T> Deref for OneOrMany<T> {
    type Target = Vec<At<T>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T: Shape> Shape for OneOrMany<T> {
    fn decode(node: &Node, decoder: &mut Decoder<'_>) -> Option<Self> {
        if matches!(node.kind, Kind::List(_)) {
            return List::decode(node, decoder).map(|list| Self(list.0));
        }
        let value = T::decode(node, decoder)?;
        let written = match &node.kind {
            Kind::Scalar(scalar) => scalar.written.clone(),
            _ => None,
        };
        Some(Self(vec![At {
            value,
            span: node.span,
            written,
        }]))
    }

    fn schema(defs: &mut Map<String, Value>) -> Value {
        let one = T::schema(defs);
        json!({ "anyOf": [one, { "type": "array", "items": one }] })
    }

    fn emit(&self) -> Out {
        Out::List(self.0.iter().map(emit).collect())
    }
}

/// Values by name, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Table<T>(pub Vec<Entry<T>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry<T> {
    pub name: At<String>,
    /// `None`: a mistake in it was noted; the name counts nevertheless.
    pub value: Option<At<T>>,
}

impl<T> Table<T> {
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|entry| entry.name.as_str())
    }

    pub fn get(&self, name: &str) -> Option<&Entry<T>> {
        self.0.iter().find(|entry| entry.name.value == name)
    }
}

impl<T> Deref for Table<T> {
    type Target = Vec<Entry<T>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T: Shape> Shape for Table<T> {
    fn decode(node: &Node, decoder: &mut Decoder<'_>) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else {
            let mistake = decoder.wrong_type(node, "a map by name");
            decoder.notes.mistake(mistake);
            return None;
        };
        let mut table = Self::default();
        for (key, value) in entries {
            if let Some(name) = name(key, decoder) {
                let value = decoder.value(name.value.clone(), value);
                table.0.push(Entry { name, value });
            }
        }
        Some(table)
    }

    fn schema(defs: &mut Map<String, Value>) -> Value {
        json!({ "type": "object", "additionalProperties": T::schema(defs) })
    }

    fn emit(&self) -> Out {
        let pair = |entry: &Entry<T>| {
            let value = entry.value.as_ref()?;
            Some((entry.name.value.clone(), emit(value)))
        };
        Out::Map(self.0.iter().filter_map(pair).collect())
    }

    fn fill(&mut self) {
        let values = self.0.iter_mut().filter_map(|entry| entry.value.as_mut());
        values.for_each(|value| value.value.fill());
    }
}

fn name(key: &Node, decoder: &mut Decoder<'_>) -> Option<At<String>> {
    /// Longer names are of no use in metrics and logs.
    const NAME_CHARS_MAX: usize = 255;
    let Kind::Scalar(scalar) = &key.kind else {
        return None;
    };
    let text = scalar.text.to_string();
    let lawful = !text.is_empty()
        && text.chars().count() <= NAME_CHARS_MAX
        && !text.chars().any(char::is_control);
    if !lawful {
        let message = format!("{}: {} is no name", decoder.here(), key.describe());
        decoder.notes.mistake(
            Mistake::new(key.span, message).expected("1–255 characters, none of them invisible"),
        );
        return None;
    }
    Some(At::new(text, key.span))
}

// --- structs -----------------------------------------------------------------------------------

/// What is known of a key without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Optional,
    Required,
    /// As YAML.
    Default(&'static str),
}

/// A map that is being taken apart.
#[derive(Debug)]
pub(super) struct Fields<'n> {
    span: Span,
    entries: Vec<(&'n str, &'n Node, &'n Node, bool)>,
}

impl<'n> Fields<'n> {
    pub(super) fn open(node: &'n Node, decoder: &mut Decoder<'_>) -> Option<Self> {
        let Kind::Map(map) = &node.kind else {
            let mut mistake = decoder.wrong_type(node, "a map of keys and values");
            if matches!(&node.kind, Kind::Scalar(scalar) if scalar.is_null()) {
                mistake = mistake.help("write `{}` where nothing is to be said");
            }
            decoder.notes.mistake(mistake);
            return None;
        };
        let entry = |(key, value): &'n (Node, Node)| match &key.kind {
            Kind::Scalar(scalar) => Some((&*scalar.text, key, value, false)),
            _ => None,
        };
        Some(Self {
            span: node.span,
            entries: map.iter().filter_map(entry).collect(),
        })
    }

    pub(super) fn take<T: Shape>(
        &mut self,
        key: &'static str,
        rule: Rule,
        decoder: &mut Decoder<'_>,
    ) -> Option<At<T>> {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.0 == key) else {
            if rule == Rule::Required {
                let message = format!("the key `{key}` is missing in {}", decoder.here());
                let first = self.entries.first().map_or(self.span, |entry| entry.1.span);
                decoder.notes.mistake(Mistake::new(first, message));
            }
            return None;
        };
        entry.3 = true;
        decoder.value(key.to_owned(), entry.2)
    }

    pub(super) fn close(self, known: &[&str], later: &[&str], decoder: &mut Decoder<'_>) {
        let unused = |key: &&&str| !self.entries.iter().any(|entry| entry.0 == **key);
        let free: Vec<&str> = known.iter().filter(unused).copied().collect();
        for (key, node, _, taken) in &self.entries {
            if *taken {
                continue;
            }
            let shown = node.describe();
            let mistake = if later.contains(key) {
                let message = format!(
                    "this version of Sealane does not know {shown} in {}",
                    decoder.here()
                );
                Mistake::new(node.span, message).help("leave it out; it would have no effect")
            } else {
                let message = format!("unknown key {shown} in {}", decoder.here());
                // Looks no further once nobody will read it.
                let near = match decoder.notes.is_full() {
                    true => None,
                    false => nearest(key, free.iter().copied()),
                };
                Mistake::new(node.span, message)
                    .expected(one_of(known))
                    .nearest(near)
            };
            decoder.notes.mistake(mistake);
        }
    }
}

/// Reads a default, which is YAML text in the definition of its key.
pub(super) fn default_value<T: Shape>(text: &str) -> Option<T> {
    let mut notes = Notes::default();
    let mut node = super::yaml::read(text, 0, &mut notes)?;
    node.forget_places();
    let value = T::decode(&node, &mut Decoder::new(&mut notes));
    debug_assert_eq!(notes.count(), 0, "the default {text} is not lawful");
    value
}

pub(super) fn fill_field<T: Shape>(field: &mut Option<At<T>>, rule: Rule) {
    if let (None, Rule::Default(text)) = (&field, rule) {
        *field = default_value(text).map(At::unwritten);
    }
    if let Some(value) = field {
        value.value.fill();
    }
}

pub(super) fn inherit_field<T: Shape + Clone>(field: &mut Option<At<T>>, from: &Option<At<T>>) {
    match (&mut *field, from) {
        (Some(own), Some(from)) => own.value.inherit(&from.value),
        (None, Some(from)) => *field = Some(from.clone()),
        (_, None) => {}
    }
}

/// The schema of one key: its type's, with what is said about it.
pub(super) fn key_schema<T: Shape>(
    defs: &mut Map<String, Value>,
    rule: Rule,
    doc: &[&str],
) -> Value {
    let mut schema = T::schema(defs);
    if let Some(object) = schema.as_object_mut() {
        let doc: Vec<&str> = doc.iter().map(|line| line.trim()).collect();
        object.insert("description".to_owned(), json!(doc.join(" ")));
        if let Rule::Default(text) = rule {
            object.insert("default".to_owned(), plain_json(text));
        }
    }
    schema
}

/// A default's YAML as JSON.
fn plain_json(text: &str) -> Value {
    let mut notes = Notes::default();
    super::yaml::read(text, 0, &mut notes).map_or(Value::Null, |node| node_json(&node))
}

/// A tree as JSON, by YAML's core schema.
pub(super) fn node_json(node: &Node) -> Value {
    match &node.kind {
        Kind::Scalar(scalar) if scalar.is_null() => Value::Null,
        Kind::Scalar(scalar) if scalar.is_bool() => {
            json!(scalar.text.eq_ignore_ascii_case("true"))
        }
        Kind::Scalar(scalar) if scalar.is_number() => scalar
            .text
            .parse::<i64>()
            .map(|n| json!(n))
            .or_else(|_| scalar.text.parse::<f64>().map(|n| json!(n)))
            .unwrap_or(Value::Null),
        Kind::Scalar(scalar) => json!(&*scalar.text),
        Kind::List(items) => Value::Array(items.iter().map(node_json).collect()),
        Kind::Map(entries) => {
            let pair = |(key, value): &(Node, Node)| match &key.kind {
                Kind::Scalar(scalar) => Some((scalar.text.to_string(), node_json(value))),
                _ => None,
            };
            Value::Object(entries.iter().filter_map(pair).collect())
        }
    }
}

/// `r#type` is the key `type`.
pub(super) const fn key_name(identifier: &'static str) -> &'static str {
    match identifier.as_bytes() {
        [b'r', b'#', ..] => identifier.split_at(2).1,
        _ => identifier,
    }
}

macro_rules! rule {
    () => {
        $crate::config::decode::Rule::Optional
    };
    (required) => {
        $crate::config::decode::Rule::Required
    };
    ($text:literal) => {
        $crate::config::decode::Rule::Default($text)
    };
}
pub(super) use rule;

/// Defines the struct of one map of the file: for each key its documentation, its type and, after
/// `=`, its default as YAML or `required`. After `later`, keys that only later versions know;
/// after `settle`, a function that runs once the defaults are filled in.
macro_rules! shape {
    (
        $(#[doc = $doc:literal])*
        $name:ident {
            $( $(#[doc = $kdoc:literal])* $key:ident : $type:ty $(= $rule:tt)? ),* $(,)?
        }
        $(later [$($later:literal),* $(,)?])?
        $(inherit $inherit:path)?
        $(; settle $settle:path)?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            pub span: $crate::config::source::Span,
            /// A mistake within was noted: what follows from it is not worth saying.
            pub broken: bool,
            $( $(#[doc = $kdoc])* pub $key: Option<$crate::config::decode::At<$type>>, )*
        }

        impl $name {
            pub(in crate::config) const KEYS: &'static [&'static str] =
                &[$( $crate::config::decode::key_name(stringify!($key)) ),*];
        }

        impl $crate::config::decode::Shape for $name {
            fn decode(
                node: &$crate::config::yaml::Node,
                decoder: &mut $crate::config::decode::Decoder<'_>,
            ) -> Option<Self> {
                let before = decoder.notes.count();
                #[allow(unused_mut, reason = "a map may have no keys")]
                let mut fields = $crate::config::decode::Fields::open(node, decoder)?;
                let mut read = Self {
                    span: node.span,
                    broken: false,
                    $( $key: fields.take(
                        $crate::config::decode::key_name(stringify!($key)),
                        $crate::config::decode::rule!($($rule)?),
                        decoder,
                    ), )*
                };
                fields.close(Self::KEYS, &[$($($later),*)?], decoder);
                read.broken = decoder.notes.count() != before;
                Some(read)
            }

            fn schema(
                defs: &mut serde_json::Map<String, serde_json::Value>,
            ) -> serde_json::Value {
                let name = stringify!($name);
                if !defs.contains_key(name) {
                    // Holds the place while the keys' types are described.
                    defs.insert(name.to_owned(), serde_json::Value::Null);
                    #[allow(unused_mut, reason = "a map may have no keys")]
                    let mut properties = serde_json::Map::new();
                    #[allow(unused_mut, reason = "a map may have no required keys")]
                    let mut required: Vec<&str> = Vec::new();
                    $(
                        let key = $crate::config::decode::key_name(stringify!($key));
                        let rule = $crate::config::decode::rule!($($rule)?);
                        if rule == $crate::config::decode::Rule::Required {
                            required.push(key);
                        }
                        let schema = $crate::config::decode::key_schema::<$type>(
                            defs, rule, &[$($kdoc),*],
                        );
                        properties.insert(key.to_owned(), schema);
                    )*
                    let doc: &[&str] = &[$($doc),*];
                    let doc: Vec<&str> = doc.iter().map(|line| line.trim()).collect();
                    defs.insert(name.to_owned(), serde_json::json!({
                        "type": "object",
                        "description": doc.join(" "),
                        "properties": properties,
                        "required": required,
                        "additionalProperties": false,
                    }));
                }
                serde_json::json!({ "$ref": format!("#/$defs/{name}") })
            }

            fn emit(&self) -> $crate::config::decode::Out {
                #[allow(unused_mut, reason = "a map may have no keys")]
                let mut keys = Vec::new();
                $(
                    if let Some(value) = &self.$key {
                        let key = $crate::config::decode::key_name(stringify!($key));
                        keys.push((key.to_owned(), $crate::config::decode::emit(value)));
                    }
                )*
                $crate::config::decode::Out::Map(keys)
            }

            fn fill(&mut self) {
                $( $crate::config::decode::fill_field(
                    &mut self.$key, $crate::config::decode::rule!($($rule)?),
                ); )*
                $( $settle(self); )?
            }

            fn inherit(&mut self, from: &Self) {
                $( let from = &$inherit(self, from); )?
                let _ = from;
                $( $crate::config::decode::inherit_field(&mut self.$key, &from.$key); )*
            }
        }
    };
}
pub(super) use shape;
