//! Our own recorder behind the `metrics` facade: counts of each thread and fixed buckets, rendered as
//! Prometheus text (exposition format 0.0.4).
//!
//! Chosen over recorders that queue raw samples until somebody reads them: memory here is bounded by
//! the number of different label sets, and labels come from configuration and enums only. Recording
//! through a held handle adds to a number of the thread's own; only the making of a handle takes the lock.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

use super::cells::{Cells, Place};

/// Put before each name of ours when it is shown.
const PREFIX: &str = "sealane_";
/// Different label sets of one metric. A further one is recorded nowhere: labels come from the
/// configuration, so this many means a mistake of ours, and memory matters more.
const SERIES_MAX: usize = 10_000;

/// For durations in seconds: from a fast answer on loopback to the longest time-out.
const BUCKETS_SECONDS: [f64; 16] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

#[derive(Debug)]
pub struct PrometheusRecorder {
    registry: Arc<Registry>,
}

impl PrometheusRecorder {
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }
}

/// All metrics of the process, in the order of their names.
#[derive(Debug, Default)]
pub struct Registry {
    // A lock: taken when a handle is made and when the text is rendered, never when recording.
    families: Mutex<BTreeMap<String, Family>>,
    cells: Arc<Cells>,
}

#[derive(Debug, Default)]
struct Family {
    help: Option<String>,
    kind: Option<Kind>,
    series: BTreeMap<String, Series>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Debug)]
enum Series {
    Counter(Arc<Count>),
    Gauge(Arc<Level>),
    Histogram(Arc<Buckets>),
}

impl Registry {
    /// Names, kinds and help of everything described, as exposed.
    #[must_use]
    pub fn described(&self) -> Vec<(String, &'static str, String)> {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let described = families.iter().filter_map(|(name, family)| {
            Some((
                format!("{PREFIX}{name}"),
                family.kind?.as_str(),
                family.help.clone()?,
            ))
        });
        described.collect()
    }

    #[must_use]
    pub fn render(&self) -> String {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(16 * 1024);
        for (name, family) in families
            .iter()
            .filter(|(_, family)| !family.series.is_empty())
        {
            family.render(&format!("{PREFIX}{name}"), &mut text);
        }
        text
    }

    fn describe(&self, name: &KeyName, kind: Kind, help: &str) {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(name.as_str().to_owned()).or_default();
        family.help = Some(help.to_owned());
        family.kind = Some(kind);
    }

    /// The series of `key`, made when it is new. `None` beyond [`SERIES_MAX`], or where the same
    /// name was used for another kind.
    fn series(&self, key: &Key, kind: Kind) -> Option<Series> {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(key.name().to_owned()).or_default();
        if *family.kind.get_or_insert(kind) != kind {
            return None;
        }
        let labels = labels_of(key);
        if family.series.len() >= SERIES_MAX && !family.series.contains_key(&labels) {
            return None;
        }
        Some(
            family
                .series
                .entry(labels)
                .or_insert_with(|| kind.series(&self.cells))
                .clone(),
        )
    }
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    fn series(self, cells: &Arc<Cells>) -> Series {
        match self {
            Self::Counter => Series::Counter(Arc::new(Count {
                at: cells.reserve(1),
                cells: Arc::clone(cells),
            })),
            Self::Gauge => Series::Gauge(Arc::default()),
            Self::Histogram => Series::Histogram(Arc::new(Buckets {
                at: cells.reserve(BUCKETS + 1),
                cells: Arc::clone(cells),
            })),
        }
    }
}

impl Family {
    fn render(&self, name: &str, text: &mut String) {
        let kind = self.kind.unwrap_or(Kind::Gauge).as_str();
        if let Some(help) = &self.help {
            let help = help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = writeln!(text, "# HELP {name} {help}");
        }
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for (labels, series) in &self.series {
            match series {
                Series::Counter(count) => {
                    let _ = writeln!(text, "{name}{} {}", braced(labels), count.get());
                }
                // Taken back: what it spoke of is gone.
                Series::Gauge(level) if level.get().is_nan() => {}
                Series::Gauge(level) => {
                    let _ = writeln!(text, "{name}{} {}", braced(labels), level.get());
                }
                Series::Histogram(buckets) => buckets.render(name, labels, text),
            }
        }
    }
}

fn braced(labels: &str) -> String {
    if labels.is_empty() {
        String::new()
    } else {
        format!("{{{labels}}}")
    }
}

/// `a="1",b="2"`, with values escaped as the format wants.
fn labels_of(key: &Key) -> String {
    let mut text = String::new();
    for label in key.labels() {
        let value = label
            .value()
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{}=\"{value}\"", label.key());
    }
    text
}

/// Either incremented or told its absolute value, never both.
#[derive(Debug)]
struct Count {
    cells: Arc<Cells>,
    at: Place,
}

impl Count {
    fn get(&self) -> u64 {
        self.cells.sum(self.at)
    }
}

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.cells.add(self.at, value);
    }

    fn absolute(&self, value: u64) {
        self.cells.raise(self.at, value);
    }
}

/// A double, kept as its bits.
#[derive(Debug, Default)]
struct Level(AtomicU64);

impl Level {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn add(&self, value: f64) {
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // Never fails: the closure always gives a value.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

impl GaugeFn for Level {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// One cell for each bound of [`BUCKETS_SECONDS`], one above them all, and the sum of all values.
#[derive(Debug)]
struct Buckets {
    cells: Arc<Cells>,
    at: Place,
}

const BUCKETS: usize = BUCKETS_SECONDS.len() + 1;

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let at = BUCKETS_SECONDS.partition_point(|bound| *bound < value);
        self.cells.add(self.at.next(at), 1);
        self.cells.add_f64(self.at.next(BUCKETS), value);
    }
}

impl Buckets {
    fn render(&self, name: &str, labels: &str, text: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for at in 0..BUCKETS {
            total += self.cells.sum(self.at.next(at));
            let bound = BUCKETS_SECONDS
                .get(at)
                .map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let _ = writeln!(
                text,
                "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}"
            );
        }
        let sum = self.cells.sum_f64(self.at.next(BUCKETS));
        let _ = writeln!(text, "{name}_sum{} {}", braced(labels), sum);
        let _ = writeln!(text, "{name}_count{} {total}", braced(labels));
    }
}

impl Recorder for PrometheusRecorder {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, help: SharedString) {
        self.registry.describe(&key, Kind::Counter, &help);
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, help: SharedString) {
        self.registry.describe(&key, Kind::Gauge, &help);
    }

    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, help: SharedString) {
        self.registry.describe(&key, Kind::Histogram, &help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.registry.series(key, Kind::Counter) {
            Some(Series::Counter(count)) => Counter::from_arc(count),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.registry.series(key, Kind::Gauge) {
            Some(Series::Gauge(level)) => Gauge::from_arc(level),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.registry.series(key, Kind::Histogram) {
            Some(Series::Histogram(buckets)) => Histogram::from_arc(buckets),
            _ => Histogram::noop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(record: impl FnOnce()) -> String {
        let registry = Arc::new(Registry::default());
        metrics::with_local_recorder(&PrometheusRecorder::new(registry.clone()), record);
        registry.render()
    }

    #[test]
    fn counters_and_gauges_render_with_labels_help_and_type() {
        let text = rendered(|| {
            metrics::describe_counter!("proxy_requests_total", "Requests.");
            metrics::counter!("proxy_requests_total", "route" => "a\"b").increment(3);
            metrics::gauge!("proxy_connections").set(2.5);
        });

        assert_eq!(
            text,
            "# TYPE sealane_proxy_connections gauge\n\
             sealane_proxy_connections 2.5\n\
             # HELP sealane_proxy_requests_total Requests.\n\
             # TYPE sealane_proxy_requests_total counter\n\
             sealane_proxy_requests_total{route=\"a\\\"b\"} 3\n"
        );
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound_inclusively() {
        let text = rendered(|| {
            let histogram = metrics::histogram!("probe_seconds", "pool" => "api");
            for value in [0.001, 0.3, 1_000.0] {
                histogram.record(value);
            }
        });

        for line in [
            "sealane_probe_seconds_bucket{pool=\"api\",le=\"0.0005\"} 0",
            "sealane_probe_seconds_bucket{pool=\"api\",le=\"0.001\"} 1",
            "sealane_probe_seconds_bucket{pool=\"api\",le=\"0.5\"} 2",
            "sealane_probe_seconds_bucket{pool=\"api\",le=\"+Inf\"} 3",
            "sealane_probe_seconds_sum{pool=\"api\"} 1000.301",
            "sealane_probe_seconds_count{pool=\"api\"} 3",
        ] {
            assert!(
                text.lines().any(|l| l == line),
                "{line} is missing in\n{text}"
            );
        }
    }

    #[test]
    fn a_name_that_changes_its_kind_records_nothing_rather_than_garbage() {
        let text = rendered(|| {
            metrics::counter!("odd").increment(1);
            metrics::gauge!("odd").set(9.0);
        });

        assert!(text.ends_with("sealane_odd 1\n"), "{text}");
    }
}
