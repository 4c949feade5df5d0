//! The files that were read, and places in them. Never reads a file itself.

use std::sync::Arc;

/// A stretch of one file: from its first character to just after its last. Lines and columns count
/// from one, columns in characters. [`Span::NONE`] for what nobody wrote (defaults).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Which of the [`Sources`].
    pub file: u16,
    pub line: u32,
    pub column: u32,
    pub end_line: u32,
    pub end_column: u32,
}

impl Span {
    pub const NONE: Self = Self {
        file: 0,
        line: 0,
        column: 0,
        end_line: 0,
        end_column: 0,
    };

    /// One character.
    #[must_use]
    pub const fn at(file: u16, line: u32, column: u32) -> Self {
        Self {
            file,
            line,
            column,
            end_line: line,
            end_column: column.saturating_add(1),
        }
    }

    /// Whether anybody wrote it.
    #[must_use]
    pub const fn is_written(self) -> bool {
        self.line != 0
    }

    /// This place, or `other` for what nobody wrote.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        if self.is_written() { self } else { other }
    }
}

/// The text of each file that mistakes may point into. The configuration file itself is number 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    files: Vec<(Arc<str>, Arc<str>)>,
}

impl Sources {
    /// The number of the file. Beyond 65,535 files all share the last number: only excerpts suffer.
    pub(super) fn add(&mut self, name: &str, text: &str) -> u16 {
        self.files.push((name.into(), text.into()));
        u16::try_from(self.files.len() - 1).unwrap_or(u16::MAX)
    }

    pub(super) fn name(&self, file: u16) -> &str {
        self.files
            .get(usize::from(file))
            .map_or("?", |(name, _)| name)
    }

    /// A line by its number, without its end.
    pub(super) fn line(&self, file: u16, line: u32) -> Option<&str> {
        let (_, text) = self.files.get(usize::from(file))?;
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        text.lines().nth(index)
    }
}
