//! Quantiles and fractions of histograms: native ones, and classic ones, which are series that
//! differ in `le` only.

mod native;

use foldhash::{HashMap, HashMapExt as _};

use crate::model::histogram::Histogram;
use crate::model::labels::Labels;
use crate::promql::ast::Span;
use crate::promql::engine::QueryError;

use super::super::annotations::Fixed;
use super::super::format::general;
use super::super::labels::{merge_equal, without_metadata};
use super::super::plan::Node;
use super::super::{Evaluator, Series, Steps, absent, is_absent};

/// Differences between neighbouring buckets below this, relative to their sum, are rounding.
const SMALL_DELTA: f64 = 1e-12;
const BUCKET_LABEL: &str = "le";

#[derive(Clone, Copy, Debug)]
struct Bucket {
    bound: f64,
    count: f64,
}

/// Series of one histogram.
struct Family {
    labels: Labels,
    /// Bounds and positions among the series.
    members: Vec<(f64, usize)>,
    /// Steps that do not count; empty when all do.
    excluded: Vec<bool>,
}

/// A series of native histograms.
struct Native<'s> {
    series: &'s Series,
    /// Steps that do not count.
    excluded: Vec<bool>,
}

/// One thing to compute from each histogram at each step.
enum Wanted<'a> {
    Quantile { at: &'a [f64], label: Option<&'a str> },
    Fraction { lower: &'a [f64], upper: &'a [f64] },
}

impl Evaluator<'_> {
    /// `histogram_quantile`, `histogram_quantiles` and `histogram_fraction`.
    pub(super) fn histogram_shape(
        &mut self,
        name: &str,
        args: &[Node],
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let params = self.scalar_arguments(args, steps)?;
        let scalars = args.iter().filter(|arg| arg.is_scalar());
        if name != "histogram_fraction" {
            for (arg, values) in scalars.zip(&params) {
                for value in values.iter().filter(|value| !(0.0..=1.0).contains(*value)) {
                    self.notes.invalid_quantile(*value, arg.span);
                }
            }
        }
        let (vector, wanted) = match (name, args, params.as_slice()) {
            ("histogram_quantile", [_, vector], [at]) => {
                (vector, vec![Wanted::Quantile { at, label: None }])
            }
            ("histogram_fraction", [_, _, vector], [lower, upper]) => {
                (vector, vec![Wanted::Fraction { lower, upper }])
            }
            ("histogram_quantiles", [vector, label, ..], all) => {
                let label = Some(label.text());
                (vector, all.iter().map(|at| Wanted::Quantile { at, label }).collect())
            }
            _ => unreachable!("checked by the parser"),
        };
        let series = self.vector(vector, steps)?;
        let mut families = self.families(&series, vector.span);
        let natives = self.natives(&series, &mut families, vector.span, steps);
        let mut out = Vec::new();
        for wanted in &wanted {
            for native in &natives {
                out.extend(self.of_native(wanted, native, vector.span, steps)?);
            }
            for family in &families {
                out.extend(self.of_family(wanted, family, &series, vector.span, steps)?);
            }
        }
        merge_equal(out)
    }

    /// Functions from a native histogram to a number.
    pub(super) fn of_histograms(
        &mut self,
        name: &str,
        vector: &Node,
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let function: fn(&Histogram) -> f64 = match name {
            "histogram_count" => |histogram| histogram.count,
            "histogram_sum" => |histogram| histogram.sum,
            "histogram_avg" => |histogram| histogram.sum / histogram.count,
            "histogram_stdvar" => native::variance,
            _ => |histogram| native::variance(histogram).sqrt(),
        };
        let delayed = self.env.delayed_name_removal;
        let mut out = Vec::new();
        self.stream(vector, steps, &mut |own, item| {
            if item.histograms.is_empty() {
                return Ok(());
            }
            let value = |step: usize| item.histogram(step).map_or_else(absent, |one| function(one));
            let values: Vec<f64> = (0..steps.count).map(value).collect();
            let labels = item.labels.get()?;
            let labels = if delayed { labels.clone() } else { without_metadata(labels) };
            let series = Series::floats(labels, delayed, values);
            own.hold(series.present_count())?;
            own.take_bytes(series.bytes(), "a vector")?;
            out.push(series);
            Ok(())
        })?;
        merge_equal(out)
    }

    /// Puts the series of each histogram together.
    fn families(&mut self, series: &[Series], span: Span) -> Vec<Family> {
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let mut families: Vec<Family> = Vec::new();
        for (at, one) in series.iter().enumerate() {
            if !one.histograms.is_empty() && !(0..one.values.len()).any(|step| is_bucket(one, step))
            {
                continue;
            }
            let bound = one.labels.get(BUCKET_LABEL).unwrap_or("");
            let Some(value) = crate::model::float::parse(bound) else {
                let name = if self.env.delayed_name_removal { one.labels.name() } else { "" };
                self.notes.bad_bucket_label(name, bound, span);
                continue;
            };
            let labels = one.labels.retain(|name| name != BUCKET_LABEL);
            let place = *places.entry(labels.clone()).or_insert(families.len());
            if place == families.len() {
                families.push(Family { labels, members: Vec::new(), excluded: Vec::new() });
            }
            families[place].members.push((value, at));
        }
        for family in &mut families {
            family
                .members
                .sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal));
        }
        families
    }

    /// The series of native histograms. Where there are classic buckets with the same labels,
    /// neither counts.
    fn natives<'s>(
        &mut self,
        series: &'s [Series],
        families: &mut [Family],
        span: Span,
        steps: Steps,
    ) -> Vec<Native<'s>> {
        let with_histograms = series.iter().filter(|one| !one.histograms.is_empty());
        let mut natives: Vec<_> = with_histograms
            .map(|series| Native { series, excluded: vec![false; steps.count] })
            .collect();
        let places: HashMap<Labels, usize> = if natives.is_empty() {
            HashMap::new()
        } else {
            families.iter().enumerate().map(|(at, one)| (one.labels.clone(), at)).collect()
        };
        for native in &mut natives {
            let labels = &native.series.labels;
            let Some(family) = places.get(labels).map(|place| &mut families[*place]) else {
                continue;
            };
            for step in 0..steps.count {
                let is_bucket = |at: usize| is_bucket(&series[at], step);
                if native.series.histogram(step).is_none()
                    || !family.members.iter().any(|(_, at)| is_bucket(*at))
                {
                    continue;
                }
                let name = if self.env.delayed_name_removal { labels.name() } else { "" };
                self.notes.mixed_classic_native(name, span);
                native.excluded[step] = true;
                family.excluded.resize(steps.count, false);
                family.excluded[step] = true;
            }
        }
        natives
    }

    fn of_native(
        &mut self,
        wanted: &Wanted<'_>,
        native: &Native<'_>,
        span: Span,
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let labels = &native.series.labels;
        let name = if self.env.delayed_name_removal { labels.name() } else { "" };
        self.compute(wanted, labels, steps, |own, step| {
            let histogram = native.series.histogram(step).filter(|_| !native.excluded[step])?;
            let (value, effect) = match wanted {
                Wanted::Quantile { at, .. } => native::quantile(at[step], histogram),
                Wanted::Fraction { lower, upper } => {
                    native::fraction(lower[step], upper[step], histogram)
                }
            };
            if let Some(effect) = effect {
                own.notes.nan_observations(effect, name, span);
            }
            Some(value)
        })
    }

    fn of_family(
        &mut self,
        wanted: &Wanted<'_>,
        family: &Family,
        series: &[Series],
        span: Span,
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let mut buckets = Vec::with_capacity(family.members.len());
        let name = if self.env.delayed_name_removal { family.labels.name() } else { "" };
        self.compute(wanted, &family.labels, steps, |own, step| {
            if family.excluded.get(step).is_some_and(|excluded| *excluded) {
                return None;
            }
            buckets.clear();
            let present = family.members.iter().filter(|(_, at)| is_bucket(&series[*at], step));
            buckets.extend(
                present
                    .map(|(bound, at)| Bucket { bound: *bound, count: series[*at].values[step] }),
            );
            if buckets.is_empty() {
                return None;
            }
            match wanted {
                Wanted::Fraction { lower, upper } => {
                    Some(fraction(lower[step], upper[step], &mut buckets))
                }
                Wanted::Quantile { at, .. } => {
                    let (value, fixed) = quantile(at[step], &mut buckets);
                    if let Some(fixed) = fixed {
                        let now_ms = steps.time(step);
                        let fixed = Fixed { min_ms: now_ms, max_ms: now_ms, ..fixed };
                        own.notes.forced_monotonicity(name, span, fixed);
                    }
                    Some(value)
                }
            }
        })
    }

    /// Computes each step; the label of a quantile may differ from step to step.
    fn compute(
        &mut self,
        wanted: &Wanted<'_>,
        labels: &Labels,
        steps: Steps,
        mut value: impl FnMut(&mut Self, usize) -> Option<f64>,
    ) -> Result<Vec<Series>, QueryError> {
        let delayed = self.env.delayed_name_removal;
        let labels = if delayed { labels.clone() } else { without_metadata(labels) };
        let (mut out, mut places) = (Vec::<Series>::new(), HashMap::<u64, usize>::new());
        self.spend(steps.count)?;
        for step in 0..steps.count {
            let Some(value) = value(self, step) else { continue };
            let label = match wanted {
                Wanted::Quantile { at, label: Some(label) } => Some((*label, at[step])),
                _ => None,
            };
            let key = label.map_or(0, |(_, at)| at.to_bits());
            let place = *places.entry(key).or_insert(out.len());
            if place == out.len() {
                let labels = label.map_or_else(
                    || labels.clone(),
                    |(name, at)| {
                        let mut builder = labels.to_builder();
                        builder.set(name, &open_metrics(at));
                        builder.build()
                    },
                );
                self.take_column::<f64>(steps)?;
                out.push(Series::floats(labels, delayed, vec![absent(); steps.count]));
            }
            out[place].values[step] = value;
        }
        Ok(out)
    }
}

/// Whether a series has a float at a step.
fn is_bucket(series: &Series, step: usize) -> bool {
    !is_absent(series.values[step]) && series.histogram(step).is_none()
}

/// A float as OpenMetrics writes it: never without a point or an exponent.
fn open_metrics(value: f64) -> String {
    let text = general(value);
    if value.is_finite() && !text.contains(['e', '.']) { text + ".0" } else { text }
}

/// Buckets of equal bounds together, in order of bounds; `None` when the highest is not +Inf.
fn coalesce(buckets: &mut Vec<Bucket>) -> Option<()> {
    buckets.dedup_by(|next, last| {
        let same = next.bound == last.bound;
        if same {
            last.count += next.count;
        }
        same
    });
    buckets.last().filter(|last| last.bound == f64::INFINITY).map(|_| ())
}

fn almost_equal(a: f64, b: f64) -> bool {
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < SMALL_DELTA * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < SMALL_DELTA
}

/// Makes counts rise with bounds; tells what had to be done unless it was mere rounding.
fn make_monotonic(buckets: &mut [Bucket]) -> Option<Fixed> {
    let mut fixed: Option<Fixed> = None;
    let mut before = buckets[0].count;
    for bucket in &mut buckets[1..] {
        let count = bucket.count;
        if count == before {
            continue;
        }
        if almost_equal(before, count) {
            bucket.count = before;
        } else if count < before {
            bucket.count = before;
            let all = fixed.get_or_insert(Fixed {
                min_ms: 0,
                max_ms: 0,
                bucket_min: f64::INFINITY,
                bucket_max: f64::NEG_INFINITY,
                diff_max: 0.0,
                count: 1,
            });
            all.bucket_min = all.bucket_min.min(bucket.bound);
            all.bucket_max = all.bucket_max.max(bucket.bound);
            all.diff_max = all.diff_max.max(before - count);
        } else {
            before = count;
        }
    }
    fixed
}

/// The quantile, on a straight line within its bucket.
fn quantile(quantile: f64, buckets: &mut Vec<Bucket>) -> (f64, Option<Fixed>) {
    if quantile.is_nan() {
        return (f64::NAN, None);
    }
    if quantile < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if 1.0 < quantile {
        return (f64::INFINITY, None);
    }
    if coalesce(buckets).is_none() {
        return (f64::NAN, None);
    }
    let fixed = make_monotonic(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 {
        return (f64::NAN, fixed);
    }
    let mut rank = quantile * observations;
    let at = buckets[..last].partition_point(|bucket| rank > bucket.count || rank.is_nan());
    let value = if at == last {
        buckets[last - 1].bound
    } else if at == 0 && buckets[0].bound <= 0.0 {
        buckets[0].bound
    } else {
        let (mut start, end, mut count) = (0.0, buckets[at].bound, buckets[at].count);
        if 0 < at {
            start = buckets[at - 1].bound;
            count -= buckets[at - 1].count;
            rank -= buckets[at - 1].count;
        }
        start + (end - start) * (rank / count)
    };
    (value, fixed)
}

/// The share of observations between two values.
fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if coalesce(buckets).is_none() {
        return f64::NAN;
    }
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if upper <= lower {
        return 0.0;
    }
    let rank = |value| rank_of(value, buckets).filter(|rank| *rank <= count).unwrap_or(count);
    (rank(upper) - rank(lower)) / count
}

/// How many observations lie below `value`; `None`: beyond all buckets.
fn rank_of(value: f64, buckets: &[Bucket]) -> Option<f64> {
    let mut low = if buckets[0].bound <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    let mut rank = 0.0;
    for bucket in buckets {
        if value <= low {
            return Some(rank);
        }
        if value < bucket.bound {
            // A bucket without a lower end counts as a whole.
            let inside = (bucket.count - rank) * (value - low) / (bucket.bound - low);
            return Some(if low == f64::NEG_INFINITY { bucket.count } else { rank + inside });
        }
        rank = bucket.count;
        low = bucket.bound;
    }
    None
}
