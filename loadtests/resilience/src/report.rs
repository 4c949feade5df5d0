//! What was measured: a table of all scenarios; for each a CSV of its requests and a plot of latency
//! over time. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use crate::load::Record;
use crate::numbers::percentile;

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) without: String,
    pub(crate) with: String,
    /// What the feature is held to, and whether it was so; `None`: nothing is promised here.
    pub(crate) bound: Option<(String, bool)>,
}

impl Row {
    pub(crate) fn told(what: &str, without: String, with: String) -> Self {
        Self {
            what: what.to_owned(),
            without,
            with,
            bound: None,
        }
    }

    pub(crate) fn held_to(mut self, bound: impl Into<String>, is_so: bool) -> Self {
        self.bound = Some((bound.into(), is_so));
        self
    }
}

/// The requests of one trial.
#[derive(Debug)]
pub(crate) struct Curve {
    /// `without` or `with`, mostly.
    pub(crate) name: &'static str,
    pub(crate) records: Vec<Record>,
    /// When something was done to the endpoints, after the trial's beginning.
    pub(crate) marks: Vec<(Duration, &'static str)>,
    beginning: Duration,
}

impl Curve {
    pub(crate) fn new(
        name: &'static str,
        records: Vec<Record>,
        marks: Vec<(Duration, &'static str)>,
    ) -> Self {
        let dues = records.iter().map(|record| record.due);
        Self {
            beginning: dues.min().unwrap_or_default(),
            name,
            records,
            marks,
        }
    }

    /// The record's time after the trial's beginning.
    fn at(&self, record: &Record) -> Duration {
        record.due.saturating_sub(self.beginning)
    }
}

pub(crate) fn heading() -> String {
    "| scenario | measured | without | with | bound | met |\n| --- | --- | ---: | ---: | --- | --- |\n"
        .to_owned()
}

pub(crate) fn lines(scenario: &str, rows: &[Row]) -> String {
    let lines = rows.iter().map(|row| {
        let (bound, met) = match &row.bound {
            Some((bound, true)) => (bound.as_str(), "yes"),
            Some((bound, false)) => (bound.as_str(), "**no**"),
            None => ("", ""),
        };
        format!(
            "| {scenario} | {} | {} | {} | {bound} | {met} |\n",
            row.what, row.without, row.with
        )
    });
    lines.collect()
}

pub(crate) fn csv(curves: &[Curve]) -> String {
    let mut text = String::from("trial,class,due_ms,took_ms,status,endpoint\n");
    for curve in curves {
        for record in &curve.records {
            let _ = writeln!(
                text,
                "{},{},{:.1},{:.2},{},{}",
                curve.name,
                record.class,
                curve.at(record).as_secs_f64() * 1e3,
                record.took().as_secs_f64() * 1e3,
                record.status,
                record.by
            );
        }
    }
    text
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
/// Room for the axes' numbers: left, top, right, bottom.
const MARGIN: [f64; 4] = [60.0, 50.0, 20.0, 40.0];
/// What one point of a line stands for.
const STEP: Duration = Duration::from_millis(250);
const COLORS: [&str; 4] = ["#b0542f", "#1f6feb", "#6a8f3c", "#8250a8"];

/// The median (thin) and the 99th percentile (bold) of each quarter of a second, on a logarithmic
/// scale; what failed as crosses on top.
pub(crate) fn svg(title: &str, curves: &[Curve]) -> String {
    let scale = Scale::of(curves);
    let mut drawn = scale.grid();
    for (number, curve) in curves.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let (medians, tails, failures) = points(curve, &scale);
        let x = MARGIN[0] + 150.0 * number as f64;
        let _ = writeln!(
            drawn,
            "<polyline points=\"{medians}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1\"/>\n\
             <polyline points=\"{tails}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2.5\"/>\n\
             <path d=\"{failures}\" stroke=\"{color}\"/>\n\
             <text x=\"{x}\" y=\"38\" fill=\"{color}\">{}</text>",
            curve.name
        );
        for (at, what) in &curve.marks {
            let x = scale.x(*at);
            let (top, bottom, text_y) = (MARGIN[1], HEIGHT - MARGIN[3], HEIGHT - MARGIN[3] - 6.0);
            let _ = writeln!(
                drawn,
                "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"{color}\" \
                 stroke-dasharray=\"4 4\"/><text x=\"{:.1}\" y=\"{text_y}\" fill=\"{color}\">{what}</text>",
                x + 4.0
            );
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\">\n\
         <style>text {{ font: 12px sans-serif }} .title {{ font-weight: bold }}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" class=\"title\">{title}: latency in ms (thin: median, bold: 99th percentile, crosses: failed)</text>\n\
         {drawn}</svg>\n"
    )
}

fn points(curve: &Curve, scale: &Scale) -> (String, String, String) {
    let mut steps: Vec<Vec<&Record>> = Vec::new();
    let mut failures = String::new();
    for record in &curve.records {
        let step = (curve.at(record).as_millis() / STEP.as_millis()) as usize;
        if steps.len() <= step {
            steps.resize(step + 1, Vec::new());
        }
        if record.is_good() {
            steps[step].push(record);
        } else {
            let (x, y) = (scale.x(curve.at(record)), MARGIN[1] + 4.0);
            let _ = write!(failures, "M{:.0} {:.0}l4 4m0 -4l-4 4", x - 2.0, y - 2.0);
        }
    }
    let line = |percent: f64| {
        let mut line = String::new();
        for (step, good) in steps
            .iter()
            .enumerate()
            .filter(|(_, good)| !good.is_empty())
        {
            let x = scale.x(STEP * step as u32 + STEP / 2);
            let _ = write!(line, "{x:.1},{:.1} ", scale.y(percentile(good, percent)));
        }
        line
    };
    (line(50.0), line(99.0), failures)
}

/// From values to pixels.
struct Scale {
    lasting: f64,
    /// Powers of ten of ms.
    least: f64,
    most: f64,
}

impl Scale {
    fn of(curves: &[Curve]) -> Self {
        let records = || {
            let all = curves.iter().flat_map(|curve| &curve.records);
            all.filter(|record| record.is_good())
        };
        let took = |record: &Record| record.took().as_secs_f64() * 1e3;
        let dues = curves.iter().flat_map(|curve| {
            let dues = curve.records.iter().map(|record| curve.at(record));
            dues.map(|due| due.as_secs_f64())
        });
        let least = records().map(took).fold(f64::MAX, f64::min).clamp(0.1, 1e6);
        let most = records().map(took).fold(1.0, f64::max);
        Self {
            lasting: dues.fold(1.0, f64::max),
            least: least.log10().floor(),
            most: (most * 1.1).log10().ceil(),
        }
    }

    fn x(&self, at: Duration) -> f64 {
        let inner = WIDTH - MARGIN[0] - MARGIN[2];
        MARGIN[0] + inner * at.as_secs_f64() / self.lasting
    }

    fn y(&self, millis: f64) -> f64 {
        let inner = HEIGHT - MARGIN[1] - MARGIN[3];
        let share = (millis.max(1e-3).log10() - self.least) / (self.most - self.least).max(1.0);
        HEIGHT - MARGIN[3] - inner * share
    }

    fn grid(&self) -> String {
        let mut grid = String::new();
        let right = WIDTH - MARGIN[2];
        for power in self.least as i32..=self.most as i32 {
            for digit in [1.0, 2.0, 5.0] {
                let value = digit * 10_f64.powi(power);
                if value.log10() > self.most {
                    continue;
                }
                let y = self.y(value);
                let _ = writeln!(
                    grid,
                    "<line x1=\"{}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
                     <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                    MARGIN[0],
                    MARGIN[0] - 6.0,
                    y + 4.0
                );
            }
        }
        for second in 0..=self.lasting as u64 {
            let x = self.x(Duration::from_secs(second));
            let y = HEIGHT - MARGIN[3] + 18.0;
            let _ = writeln!(
                grid,
                "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{second} s</text>"
            );
        }
        grid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve() -> Curve {
        let record = |due: u64, took: u64, status| Record {
            due: Duration::from_millis(5_000 + due),
            end: Duration::from_millis(5_000 + due + took),
            status,
            ..Record::default()
        };
        let records = vec![
            record(0, 20, 200),
            record(1_000, 300, 200),
            record(1_500, 9, 503),
        ];
        Curve::new("with", records, vec![(Duration::from_secs(1), "broken")])
    }

    #[test]
    fn the_table_says_which_bounds_were_met() {
        let told = Row::told("p99", "9 ms".into(), "4 ms".into());
        let held = told.clone().held_to("half", false);

        let text = lines("slow", &[told, held]);

        assert_eq!(
            text,
            "| slow | p99 | 9 ms | 4 ms |  |  |\n| slow | p99 | 9 ms | 4 ms | half | **no** |\n"
        );
    }

    #[test]
    fn a_csv_has_a_line_for_each_request_from_the_trials_beginning() {
        let text = csv(&[curve()]);

        assert!(text.contains("\nwith,0,0.0,20.00,200,\n"), "{text}");
        assert!(text.contains("\nwith,0,1500.0,9.00,503,\n"), "{text}");
    }

    #[test]
    fn a_plot_names_its_curves_and_marks_and_crosses_failures() {
        let text = svg("slow", &[curve()]);

        assert!(text.contains(">with</text>") && text.contains(">broken</text>"));
        assert_eq!(text.matches('M').count(), 1, "{text}");
        assert!(text.ends_with("</svg>\n"));
    }
}
