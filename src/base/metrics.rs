//! Self-metrics: counters, gauges, summaries and histograms, and the registry that lists them.
//!
//! Handles are cheap to clone and lock-free to bump. Prometheus' own dashboards use summaries,
//! which no Rust metrics crate has; so this is ours. The text and `OpenMetrics` writers live in
//! `encoding::wire`; here are only the values.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// What a family measures; named as in the exposition formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up, from zero at start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Count and sum, with quantiles over the last minutes.
    Summary,
    /// Cumulative buckets, count and sum.
    Histogram,
}

impl Kind {
    /// The word after the name in a `# TYPE` line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
            Self::Histogram => "histogram",
        }
    }
}

/// One exposed sample: suffix of the family's name (`""`, `"_sum"`, `"_bucket"` …), labels, value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Added to the family's name.
    pub suffix: &'static str,
    /// Label pairs in the order they are written.
    pub labels: Vec<(String, String)>,
    /// The value now.
    pub value: f64,
}

/// All samples of one metric name, as read at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Metric name without suffix.
    pub name: String,
    /// One-line help text.
    pub help: String,
    /// Type.
    pub kind: Kind,
    /// Samples in the order they were registered.
    pub samples: Vec<Sample>,
}

/// A float that many threads may add to or set.
#[derive(Clone, Default)]
pub struct Number(Arc<AtomicU64>);

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

impl Number {
    /// Adds `delta`.
    pub fn add(&self, delta: f64) {
        let add = |bits| Some((f64::from_bits(bits) + delta).to_bits());
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1.0);
    }

    /// Replaces the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Observations that a summary keeps for its quantiles: enough for a steady p99.
const SUMMARY_WINDOW: usize = 512;

/// Count, sum and quantiles of the newest [`SUMMARY_WINDOW`] observations; or, with bounds, a
/// cumulative histogram.
#[derive(Clone, Debug)]
pub struct Distribution(Arc<Mutex<DistributionState>>);

#[derive(Debug)]
struct DistributionState {
    count: u64,
    sum: f64,
    /// Quantiles shown, for a summary.
    quantiles: &'static [f64],
    /// Newest observations, as a ring.
    window: Vec<f64>,
    /// Inclusive upper bounds and their (not cumulative) counts, for a histogram.
    buckets: Vec<(f64, u64)>,
}

impl Distribution {
    /// A summary that shows these quantiles (each within 0..=1).
    pub fn summary(quantiles: &'static [f64]) -> Self {
        Self::new(quantiles, Vec::new())
    }

    /// A histogram with these inclusive upper bounds, ascending, `+Inf` left out.
    pub fn histogram(bounds: &[f64]) -> Self {
        Self::new(&[], bounds.iter().map(|bound| (*bound, 0)).collect())
    }

    fn new(quantiles: &'static [f64], buckets: Vec<(f64, u64)>) -> Self {
        let window = Vec::new();
        Self(Arc::new(Mutex::new(DistributionState {
            count: 0,
            sum: 0.0,
            quantiles,
            window,
            buckets,
        })))
    }

    /// Takes in one observation.
    pub fn observe(&self, value: f64) {
        let mut state = self.0.lock();
        if !state.quantiles.is_empty() {
            if state.window.len() < SUMMARY_WINDOW {
                state.window.push(value);
            } else {
                let at = state.count as usize % SUMMARY_WINDOW;
                state.window[at] = value;
            }
        }
        if let Some(bucket) = state.buckets.iter_mut().find(|(bound, _)| value <= *bound) {
            bucket.1 += 1;
        }
        state.count += 1;
        state.sum += value;
    }

    fn samples(&self, labels: &[(String, String)], out: &mut Vec<Sample>) {
        let state = self.0.lock();
        let mut push = |suffix, extra: Option<(&str, String)>, value| {
            let mut labels = labels.to_vec();
            labels.extend(extra.map(|(name, value)| (name.to_owned(), value)));
            out.push(Sample { suffix, labels, value });
        };
        let mut sorted = state.window.clone();
        sorted.sort_by(f64::total_cmp);
        for quantile in state.quantiles {
            let rank = ((sorted.len() as f64 * quantile).ceil() as usize).max(1) - 1;
            let value = sorted.get(rank).copied().unwrap_or(f64::NAN);
            push("", Some(("quantile", quantile.to_string())), value);
        }
        let mut cumulative = 0;
        for (bound, count) in &state.buckets {
            cumulative += count;
            push("_bucket", Some(("le", bound.to_string())), cumulative as f64);
        }
        if !state.buckets.is_empty() {
            push("_bucket", Some(("le", "+Inf".to_owned())), state.count as f64);
        }
        push("_sum", None, state.sum);
        push("_count", None, state.count as f64);
    }
}

#[derive(Debug)]
enum Cell {
    Number(Number),
    Distribution(Distribution),
}

type LabelPairs = Vec<(String, String)>;

/// A metric with labels: one cell for each combination of label values that was asked for.
#[derive(Clone, Debug)]
pub struct Vector {
    family: Arc<FamilyState>,
    label_names: &'static [&'static str],
}

#[derive(Debug)]
struct FamilyState {
    help: String,
    kind: Kind,
    /// What a new cell is made of, for distributions.
    bounds: Vec<f64>,
    quantiles: &'static [f64],
    cells: Mutex<BTreeMap<LabelPairs, Cell>>,
}

impl FamilyState {
    fn number(&self, labels: LabelPairs) -> Number {
        let mut cells = self.cells.lock();
        match cells.entry(labels).or_insert_with(|| Cell::Number(Number::default())) {
            Cell::Number(number) => number.clone(),
            Cell::Distribution(_) => unreachable!("a family has cells of one kind"),
        }
    }

    fn distribution(&self, labels: LabelPairs) -> Distribution {
        let make = || {
            Cell::Distribution(match self.kind {
                Kind::Histogram => Distribution::histogram(&self.bounds),
                _ => Distribution::summary(self.quantiles),
            })
        };
        match self.cells.lock().entry(labels).or_insert_with(make) {
            Cell::Distribution(distribution) => distribution.clone(),
            Cell::Number(_) => unreachable!("a family has cells of one kind"),
        }
    }
}

impl Vector {
    fn pairs(&self, values: &[&str]) -> LabelPairs {
        assert_eq!(values.len(), self.label_names.len(), "one value for each label name");
        let pairs = self.label_names.iter().zip(values);
        pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// The counter or gauge with these label values, made at zero when it is new.
    pub fn with(&self, values: &[&str]) -> Number {
        self.family.number(self.pairs(values))
    }

    /// The summary or histogram with these label values.
    pub fn distribution(&self, values: &[&str]) -> Distribution {
        self.family.distribution(self.pairs(values))
    }

    /// Forgets the cell with these label values (its subject is gone).
    pub fn remove(&self, values: &[&str]) {
        self.family.cells.lock().remove(&self.pairs(values));
    }
}

type Collector = Box<dyn Fn(&mut Vec<Family>) + Send + Sync>;

/// All self-metrics of one server. Clones share it.
#[derive(Clone, Default)]
pub struct Registry(Arc<RegistryState>);

#[derive(Default)]
struct RegistryState {
    families: Mutex<BTreeMap<String, Arc<FamilyState>>>,
    collectors: Mutex<Vec<Collector>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({} families)", self.0.families.lock().len())
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    fn family(
        &self,
        name: &str,
        help: &str,
        kind: Kind,
        bounds: &[f64],
        quantiles: &'static [f64],
    ) -> Arc<FamilyState> {
        let mut families = self.0.families.lock();
        let family = families.entry(name.to_owned()).or_insert_with(|| {
            let cells = Mutex::default();
            Arc::new(FamilyState {
                help: help.to_owned(),
                kind,
                bounds: bounds.to_vec(),
                quantiles,
                cells,
            })
        });
        assert_eq!(family.kind, kind, "{name} is registered with another type");
        Arc::clone(family)
    }

    /// A counter without labels. Asking again for the same name gives the same counter.
    pub fn counter(&self, name: &str, help: &str) -> Number {
        self.family(name, help, Kind::Counter, &[], &[]).number(Vec::new())
    }

    /// A gauge without labels.
    pub fn gauge(&self, name: &str, help: &str) -> Number {
        self.family(name, help, Kind::Gauge, &[], &[]).number(Vec::new())
    }

    /// A summary without labels.
    pub fn summary(&self, name: &str, help: &str, quantiles: &'static [f64]) -> Distribution {
        self.family(name, help, Kind::Summary, &[], quantiles).distribution(Vec::new())
    }

    /// A histogram without labels.
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Distribution {
        self.family(name, help, Kind::Histogram, bounds, &[]).distribution(Vec::new())
    }

    /// Counters told apart by these labels.
    pub fn counters(&self, name: &str, help: &str, labels: &'static [&'static str]) -> Vector {
        Vector { family: self.family(name, help, Kind::Counter, &[], &[]), label_names: labels }
    }

    /// Gauges told apart by these labels.
    pub fn gauges(&self, name: &str, help: &str, labels: &'static [&'static str]) -> Vector {
        Vector { family: self.family(name, help, Kind::Gauge, &[], &[]), label_names: labels }
    }

    /// Summaries told apart by these labels.
    pub fn summaries(
        &self,
        name: &str,
        help: &str,
        quantiles: &'static [f64],
        labels: &'static [&'static str],
    ) -> Vector {
        let family = self.family(name, help, Kind::Summary, &[], quantiles);
        Vector { family, label_names: labels }
    }

    /// Histograms told apart by these labels.
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        bounds: &[f64],
        labels: &'static [&'static str],
    ) -> Vector {
        let family = self.family(name, help, Kind::Histogram, bounds, &[]);
        Vector { family, label_names: labels }
    }

    /// Adds a function that is asked for more families at each reading (for values that live
    /// elsewhere, like the number of series).
    pub fn collect_from(&self, collector: impl Fn(&mut Vec<Family>) + Send + Sync + 'static) {
        self.0.collectors.lock().push(Box::new(collector));
    }

    /// All families as they are now, sorted by name.
    pub fn gather(&self) -> Vec<Family> {
        let mut all = Vec::new();
        for (name, family) in self.0.families.lock().iter() {
            let mut samples = Vec::new();
            for (labels, cell) in family.cells.lock().iter() {
                match cell {
                    Cell::Number(number) => {
                        let value = number.get();
                        samples.push(Sample { suffix: "", labels: labels.clone(), value });
                    }
                    Cell::Distribution(distribution) => distribution.samples(labels, &mut samples),
                }
            }
            let (name, help) = (name.clone(), family.help.clone());
            all.push(Family { name, help, kind: family.kind, samples });
        }
        for collector in self.0.collectors.lock().iter() {
            collector(&mut all);
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_gathers_what_was_counted() {
        let registry = Registry::new();
        registry.counter("b_total", "B.").add(2.0);
        let requests = registry.counters("a_total", "A.", &["code"]);
        requests.with(&["200"]).inc();
        requests.with(&["200"]).inc();
        let families = registry.gather();
        assert_eq!(families[0].name, "a_total");
        assert_eq!(families[0].samples[0].value, 2.0);
        assert_eq!(families[0].samples[0].labels, [("code".to_owned(), "200".to_owned())]);
        assert_eq!(families[1].samples[0].value, 2.0);
    }

    #[test]
    fn distributions_show_quantiles_and_cumulative_buckets() {
        let registry = Registry::new();
        let summary = registry.summary("s_seconds", "S.", &[0.5, 0.99]);
        let histogram = registry.histogram("h_seconds", "H.", &[1.0, 10.0]);
        for value in 1..=100 {
            summary.observe(f64::from(value));
            histogram.observe(f64::from(value));
        }
        let families = registry.gather();
        let values = |at: usize| families[at].samples.iter().map(|s| s.value).collect::<Vec<_>>();
        assert_eq!(values(0), [1.0, 10.0, 100.0, 5050.0, 100.0]);
        assert_eq!(values(1), [50.0, 99.0, 5050.0, 100.0]);
    }
}
