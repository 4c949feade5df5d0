//! What was measured, as a table and as a plot. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// µs of CPU per request or question, of each round.
#[derive(Debug)]
pub(crate) struct Table {
    unit: &'static str,
    /// The rows.
    work: Vec<&'static str>,
    /// By row and column.
    measured: BTreeMap<(&'static str, &'static str), Vec<f64>>,
    /// In the order they came first.
    subjects: Vec<&'static str>,
    left_out: BTreeSet<&'static str>,
}

impl Table {
    pub(crate) fn new(unit: &'static str, work: Vec<&'static str>) -> Self {
        Self {
            unit,
            work,
            measured: BTreeMap::new(),
            subjects: Vec::new(),
            left_out: BTreeSet::new(),
        }
    }

    pub(crate) fn add(&mut self, work: &'static str, subject: &'static str, micros: f64) {
        if !self.subjects.contains(&subject) {
            self.subjects.push(subject);
        }
        self.measured
            .entry((work, subject))
            .or_default()
            .push(micros);
    }

    pub(crate) fn leave_out(&mut self, subject: &'static str) {
        self.left_out.insert(subject);
    }

    pub(crate) fn is_left_out(&self, subject: &str) -> bool {
        self.left_out.contains(subject)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.measured.is_empty()
    }

    /// Medians, with the least and the most.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "µs of CPU per {}, median (least–most)\n\n| work |",
            self.unit
        );
        for subject in &self.subjects {
            let _ = write!(text, " {subject} |");
        }
        text.push_str("\n| --- |");
        text.push_str(&" ---: |".repeat(self.subjects.len()));
        for work in &self.work {
            let _ = write!(text, "\n| {} |", work);
            for subject in &self.subjects {
                match self.of(work, subject) {
                    Some([least, median, most]) => {
                        let _ = write!(text, " {median:.2} ({least:.2}–{most:.2}) |");
                    }
                    None => text.push_str(" – |"),
                }
            }
        }
        text.push('\n');
        text
    }

    fn of(&self, work: &'static str, subject: &'static str) -> Option<[f64; 3]> {
        let mut values = self.measured.get(&(work, subject))?.clone();
        values.sort_by(f64::total_cmp);
        let (least, most) = (values.first()?, values.last()?);
        Some([*least, values[values.len() / 2], *most])
    }

    /// Bars of the medians, one group for each kind of work, each group in its own scale: a new
    /// connection costs ten times a request.
    pub(crate) fn svg(&self) -> String {
        let mut bars = String::new();
        let mut y = 30;
        for work in &self.work {
            let medians = self.subjects.iter().map(|subject| self.of(work, subject));
            let most = medians.flatten().map(|of| of[1]).fold(1.0, f64::max);
            let _ = writeln!(
                bars,
                "<text x=\"10\" y=\"{y}\" class=\"work\">{}</text>",
                work
            );
            y += 8;
            for (at, subject) in self.subjects.iter().enumerate() {
                let Some([_, median, _]) = self.of(work, subject) else {
                    continue;
                };
                let width = median / most * BAR_MAX;
                let (color, text_y) = (COLORS[at % COLORS.len()], y + 13);
                let _ = writeln!(
                    bars,
                    "<rect x=\"90\" y=\"{y}\" width=\"{width:.0}\" height=\"16\" fill=\"{color}\"/>\
                     <text x=\"10\" y=\"{text_y}\">{subject}</text>\
                     <text x=\"{:.0}\" y=\"{text_y}\">{median:.2} µs</text>",
                    width + 96.0
                );
                y += 20;
            }
            y += 22;
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"640\" height=\"{y}\">\n\
             <style>text {{ font: 12px sans-serif }} .work {{ font-weight: bold }}</style>\n{bars}</svg>\n"
        )
    }
}

/// Pixels of the longest bar.
const BAR_MAX: f64 = 440.0;
const COLORS: [&str; 4] = ["#8a9ba8", "#b0a18f", "#6f8f7a", "#1f6feb"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_gives_medians_and_says_what_is_missing() {
        let mut table = Table::new("request", vec!["small", "large"]);
        for micros in [3.0, 1.0, 2.0] {
            table.add("small", "a", micros);
        }
        table.add("large", "b", 5.0);

        let text = table.markdown();

        assert!(text.contains("| small | 2.00 (1.00–3.00) | – |"), "{text}");
        assert!(text.contains("| large | – | 5.00 (5.00–5.00) |"));
        assert!(table.svg().contains("2.00 µs"));
    }
}
