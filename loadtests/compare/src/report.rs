//! What was measured, as a table and as a plot. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::load::Test;

/// µs of CPU per request, of each round.
#[derive(Debug, Default)]
pub(crate) struct Table {
    measured: BTreeMap<(usize, &'static str), Vec<f64>>,
    /// In the order they came first.
    subjects: Vec<&'static str>,
    left_out: BTreeSet<&'static str>,
}

impl Table {
    pub(crate) fn add(&mut self, test: Test, subject: &'static str, micros: f64) {
        if !self.subjects.contains(&subject) {
            self.subjects.push(subject);
        }
        let row = row(test);
        self.measured
            .entry((row, subject))
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
        let mut text = String::from("µs of CPU per request, median (least–most)\n\n| work |");
        for subject in &self.subjects {
            let _ = write!(text, " {subject} |");
        }
        text.push_str("\n| --- |");
        text.push_str(&" ---: |".repeat(self.subjects.len()));
        for test in Test::ALL {
            let _ = write!(text, "\n| {} |", test.name());
            for subject in &self.subjects {
                match self.of(test, subject) {
                    Some([least, median, most]) => {
                        let _ = write!(text, " {median:.1} ({least:.1}–{most:.1}) |");
                    }
                    None => text.push_str(" – |"),
                }
            }
        }
        text.push('\n');
        text
    }

    fn of(&self, test: Test, subject: &'static str) -> Option<[f64; 3]> {
        let mut values = self.measured.get(&(row(test), subject))?.clone();
        values.sort_by(f64::total_cmp);
        let (least, most) = (values.first()?, values.last()?);
        Some([*least, values[values.len() / 2], *most])
    }

    /// Bars of the medians, one group for each kind of work, each group in its own scale: a new
    /// connection costs ten times a request.
    pub(crate) fn svg(&self) -> String {
        let mut bars = String::new();
        let mut y = 30;
        for test in Test::ALL {
            let medians = self.subjects.iter().map(|subject| self.of(test, subject));
            let most = medians.flatten().map(|of| of[1]).fold(1.0, f64::max);
            let _ = writeln!(
                bars,
                "<text x=\"10\" y=\"{y}\" class=\"work\">{}</text>",
                test.name()
            );
            y += 8;
            for (at, subject) in self.subjects.iter().enumerate() {
                let Some([_, median, _]) = self.of(test, subject) else {
                    continue;
                };
                let width = median / most * BAR_MAX;
                let (color, text_y) = (COLORS[at % COLORS.len()], y + 13);
                let _ = writeln!(
                    bars,
                    "<rect x=\"90\" y=\"{y}\" width=\"{width:.0}\" height=\"16\" fill=\"{color}\"/>\
                     <text x=\"10\" y=\"{text_y}\">{subject}</text>\
                     <text x=\"{:.0}\" y=\"{text_y}\">{median:.1} µs</text>",
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
const COLORS: [&str; 3] = ["#8a9ba8", "#b0a18f", "#1f6feb"];

fn row(test: Test) -> usize {
    Test::ALL
        .iter()
        .position(|other| *other == test)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_gives_medians_and_says_what_is_missing() {
        let mut table = Table::default();
        for micros in [3.0, 1.0, 2.0] {
            table.add(Test::Http1, "a", micros);
        }
        table.add(Test::Http2Tls, "b", 5.0);

        let text = table.markdown();

        assert!(
            text.contains("| HTTP/1, 1 KiB | 2.0 (1.0–3.0) | – |"),
            "{text}"
        );
        assert!(text.contains("| HTTP/2 over TLS, 1 KiB | – | 5.0 (5.0–5.0) |"));
        assert!(table.svg().contains("2.0 µs"));
    }
}
