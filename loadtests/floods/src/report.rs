//! What was measured, as a table, and whether it is within bounds. Pure.

use std::fmt::Write as _;

use crate::flood::Kind;

/// What the good client saw in one phase.
#[derive(Clone, Debug, Default)]
pub(crate) struct Good {
    /// In microseconds, the shortest first.
    took: Vec<u64>,
    pub(crate) failed: usize,
}

impl Good {
    /// Reads what the good client prints.
    pub(crate) fn read(text: &str) -> Self {
        let mut took: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        took.sort_unstable();
        let failed = text.lines().count() - took.len();
        Self { took, failed }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.took.is_empty()
    }

    /// In milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let at = (self.took.len() * percent / 100).min(self.took.len().saturating_sub(1));
        self.took
            .get(at)
            .map_or(f64::NAN, |took| *took as f64 / 1_000.0)
    }
}

/// One flood of one round. Memory in KiB.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) kind: Kind,
    /// Before the flood, and after it.
    pub(crate) alone: [Good; 2],
    pub(crate) beside: Good,
    pub(crate) before: u64,
    pub(crate) peak: u64,
    pub(crate) after: u64,
    pub(crate) flooder: String,
}

impl Measured {
    fn p99_alone(&self) -> f64 {
        let [before, after] = &self.alone;
        f64::midpoint(before.percentile(99), after.percentile(99))
    }

    fn ratio(&self) -> f64 {
        self.beside.percentile(99) / self.p99_alone()
    }

    fn grown(&self) -> f64 {
        mib(self.peak.saturating_sub(self.before))
    }
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1_024.0
}

/// What may not be exceeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) ratio: f64,
    pub(crate) memory: f64,
}

/// Medians over the rounds of each flood, and what is out of bounds.
pub(crate) fn report(all: &[Measured], bounds: Bounds) -> (String, Vec<String>) {
    let mut text = String::from(
        "| flood | p50 alone | p99 alone | p50 beside | p99 beside | ratio (least–most) | failed | MiB before | peak | after | what became of it |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n",
    );
    let mut broken = Vec::new();
    let mut kinds: Vec<Kind> = Vec::new();
    for measured in all {
        if !kinds.contains(&measured.kind) {
            kinds.push(measured.kind);
        }
    }
    for kind in kinds {
        let rounds: Vec<&Measured> = all.iter().filter(|one| one.kind == kind).collect();
        let row = Row::new(&rounds);
        // Writing to a string cannot fail.
        let _ = row.write(&mut text, kind);
        broken.extend(row.out_of(bounds, kind));
    }
    (text, broken)
}

struct Row<'a> {
    rounds: &'a [&'a Measured],
    ratio: [f64; 3],
    grown: f64,
    failed: usize,
}

impl<'a> Row<'a> {
    fn new(rounds: &'a [&'a Measured]) -> Self {
        Self {
            rounds,
            ratio: spread(rounds, Measured::ratio),
            grown: spread(rounds, Measured::grown)[2],
            failed: rounds.iter().map(|one| one.beside.failed).sum(),
        }
    }

    fn write(&self, text: &mut String, kind: Kind) -> std::fmt::Result {
        let middle = |of: fn(&Measured) -> f64| spread(self.rounds, of)[1];
        let [least, ratio, most] = self.ratio;
        let flooder = self.rounds.first().map_or("", |one| &one.flooder);
        writeln!(
            text,
            "| {kind:?} | {:.2} | {:.2} | {:.2} | {:.2} | {ratio:.1} ({least:.1}–{most:.1}) | {} | {:.0} | {:.0} | {:.0} | {flooder} |",
            middle(|one| one.alone[0].percentile(50)),
            middle(Measured::p99_alone),
            middle(|one| one.beside.percentile(50)),
            middle(|one| one.beside.percentile(99)),
            self.failed,
            middle(|one| mib(one.before)),
            spread(self.rounds, |one| mib(one.peak))[2],
            middle(|one| mib(one.after)),
        )
    }

    fn out_of(&self, bounds: Bounds, kind: Kind) -> Vec<String> {
        let mut broken = Vec::new();
        // A figure that is missing is out of bounds as well.
        if self.ratio[1].is_nan() || self.ratio[1] > bounds.ratio {
            broken.push(format!(
                "{kind:?}: the 99th percentile grew {:.1} times",
                self.ratio[1]
            ));
        }
        if self.grown > bounds.memory {
            broken.push(format!("{kind:?}: memory grew by {:.0} MiB", self.grown));
        }
        if self.failed > 0 {
            broken.push(format!("{kind:?}: {} requests failed", self.failed));
        }
        broken
    }
}

/// Least, median and most.
fn spread(rounds: &[&Measured], of: impl Fn(&Measured) -> f64) -> [f64; 3] {
    let mut values: Vec<f64> = rounds.iter().map(|one| of(one)).collect();
    values.sort_by(f64::total_cmp);
    let at = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
    [
        at(0),
        at(values.len() / 2),
        at(values.len().saturating_sub(1)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        ratio: 2.0,
        memory: 64.0,
    };

    fn measured(beside: &str, peak: u64) -> Measured {
        let alone = Good::read("1000\n1000\n");
        Measured {
            kind: Kind::Ping,
            alone: [alone.clone(), alone],
            beside: Good::read(beside),
            before: 10 * 1024,
            peak: peak * 1024,
            after: 10 * 1024,
            flooder: "lasted".to_owned(),
        }
    }

    #[test]
    fn percentiles_are_of_what_was_answered_and_failures_are_counted() {
        let good = Good::read("300\n100\nfailed\n200\n");

        assert_eq!(good.failed, 1);
        assert!((good.percentile(50) - 0.2).abs() < 1e-9);
        assert!((good.percentile(99) - 0.3).abs() < 1e-9);
        assert!(Good::read("").percentile(99).is_nan());
    }

    #[test]
    fn what_is_within_bounds_is_not_complained_of() {
        let (text, broken) = report(&[measured("1900\n", 70)], BOUNDS);
        assert!(broken.is_empty(), "{broken:?}");
        assert!(
            text.contains(
                "| Ping | 1.00 | 1.00 | 1.90 | 1.90 | 1.9 (1.9–1.9) | 0 | 10 | 70 | 10 |"
            ),
            "{text}"
        );
    }

    #[test]
    fn each_bound_that_is_broken_is_named() {
        let (_, broken) = report(&[measured("2100\nfailed\n", 80)], BOUNDS);
        assert_eq!(broken.len(), 3, "{broken:?}");
        let (_, broken) = report(&[measured("", 20)], BOUNDS);
        assert_eq!(broken.len(), 1, "nothing measured is no success");
    }
}
