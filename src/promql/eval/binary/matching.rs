//! Operators between two vectors: which series meet, and what their result is called.
//!
//! The side of which a match group may hold one sample at a time is the *one* side; with
//! `group_right` that is the left one, and the sides are swapped for everything but the operands.

use foldhash::{HashMap, HashMapExt as _};

use crate::model::labels::Labels;
use crate::promql::ast::{Cardinality, Span, VectorMatching};
use crate::promql::engine::QueryError;

use super::super::labels::{Groups, Projection, is_metadata, merge_equal};
use super::super::plan::Binary;
use super::super::{Evaluator, Histograms, Sample, Series, Steps, absent, is_absent};
use super::element::{Remarks, combine};
use super::{changes_meaning, element, is_trim};

/// Series of one side with their match groups.
struct Side {
    series: Vec<Series>,
    groups: Vec<usize>,
    /// Steps at which any series has a value.
    any: Vec<bool>,
}

impl Side {
    fn new(
        series: Vec<Series>,
        groups: &mut Groups,
        projection: &Projection,
        steps: Steps,
    ) -> Self {
        let mut any = vec![false; steps.count];
        let group = |one: &Series| groups.of(projection, one.labels.iter(), false).0;
        let numbers = series.iter().map(group).collect();
        for one in &series {
            any.iter_mut().zip(&one.values).for_each(|(any, value)| *any |= !is_absent(*value));
        }
        Self { series, groups: numbers, any }
    }

    fn by_group(&self, count: usize) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); count];
        for (at, group) in self.groups.iter().enumerate() {
            members[*group].push(at);
        }
        members
    }
}

/// One operation in progress.
struct Join<'a> {
    binary: &'a Binary,
    matching: &'a VectorMatching,
    projection: &'a Projection,
    delayed: bool,
    /// Steps at which the operation takes place.
    active: Vec<bool>,
    /// By match group and step: how many results there are.
    matched: Vec<u32>,
    /// By match group: results so far, to see whether two get the same labels.
    seen: HashMap<usize, HashMap<Labels, Vec<bool>>>,
    out: Vec<Series>,
    /// Bytes of results and of what was seen.
    held_bytes: usize,
    steps: usize,
    remarks: Remarks,
}

impl Evaluator<'_> {
    /// All operators but the set operators.
    pub(super) fn matched(
        &mut self,
        binary: &Binary,
        matching: &VectorMatching,
        projection: &Projection,
        (lhs, rhs): (Vec<Series>, Vec<Series>),
        span: Span,
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let swapped = matching.card == Cardinality::OneToMany;
        let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
        let mut groups = Groups::default();
        let many = Side::new(many, &mut groups, projection, steps);
        let one = Side::new(one, &mut groups, projection, steps);
        let (fill_many, fill_one) = (matching.fill_left, matching.fill_right);
        let fills = fill_many.is_some() || fill_one.is_some();
        let meet = |(many, one): (&bool, &bool)| (*many && *one) || fills && (*many || *one);
        let active: Vec<bool> = many.any.iter().zip(&one.any).map(meet).collect();
        let members = one.by_group(groups.len());
        self.take_bytes(groups.len() * steps.count * size_of::<u32>(), "matching of vectors")?;
        assert_one_side(&one, &members, &active, matching, projection)?;
        let mut join = Join {
            binary,
            matching,
            projection,
            delayed: self.env.delayed_name_removal,
            active,
            matched: vec![0; groups.len() * steps.count],
            seen: HashMap::new(),
            out: Vec::new(),
            held_bytes: 0,
            steps: steps.count,
            remarks: Remarks::new(),
        };
        for (series, group) in many.series.iter().zip(&many.groups) {
            self.check()?;
            let held = join.held_bytes;
            join.many_series(series, *group, &members[*group], &one, fill_one)?;
            self.take_bytes(join.held_bytes - held, "a vector")?;
        }
        if let Some(fill) = fill_many {
            for (series, group) in one.series.iter().zip(&one.groups) {
                let held = join.held_bytes;
                join.unmatched_one(series, *group, fill)?;
                self.take_bytes(join.held_bytes - held, "a vector")?;
            }
        }
        join.remarks.report(binary.op, span, &mut self.notes);
        merge_equal(join.out)
    }
}

impl Join<'_> {
    /// A series of the many side with each series of its group that it meets.
    fn many_series(
        &mut self,
        series: &Series,
        group: usize,
        members: &[usize],
        one: &Side,
        fill: Option<f64>,
    ) -> Result<(), QueryError> {
        let floats = |labels: Labels, values: Vec<f64>| Series::floats(labels, false, values);
        let mut alone = fill.map(|fill| vec![fill; self.steps]);
        for member in members {
            let other = &one.series[*member];
            if let Some(alone) = &mut alone {
                let met = alone.iter_mut().zip(&other.values);
                met.filter(|(_, value)| !is_absent(**value)).for_each(|(fill, _)| *fill = absent());
            }
            self.pair(series, other, group)?;
        }
        if let Some(fills) = alone {
            let labels = self.match_labels(&series.labels);
            self.pair(series, &floats(labels, fills), group)?;
        }
        Ok(())
    }

    /// A series of the one side where nothing of its group was met.
    fn unmatched_one(
        &mut self,
        series: &Series,
        group: usize,
        fill: f64,
    ) -> Result<(), QueryError> {
        let matched = &self.matched[group * self.steps..][..self.steps];
        let fills: Vec<f64> =
            matched.iter().map(|count| if *count == 0 { fill } else { absent() }).collect();
        let labels = self.match_labels(&series.labels);
        self.pair(&Series::floats(labels, false, fills), series, group)
    }

    /// The labels by which a series is matched, as `fill` names what is missing.
    fn match_labels(&self, labels: &Labels) -> Labels {
        self.projection.of(labels.iter(), false)
    }

    /// Evaluates the steps at which both have a value.
    fn pair(&mut self, many: &Series, one: &Series, group: usize) -> Result<(), QueryError> {
        let swapped = self.matching.card == Cardinality::OneToMany;
        let (op, return_bool) = (self.binary.op, self.binary.return_bool);
        let any_histogram = !many.histograms.is_empty() || !one.histograms.is_empty();
        let mut values = vec![absent(); self.steps];
        let mut histograms = Histograms::new();
        let mut met = vec![false; self.steps];
        for step in 0..self.steps {
            let (a, b) = (many.values[step], one.values[step]);
            if !self.active[step] || is_absent(a) || is_absent(b) {
                continue;
            }
            if any_histogram || is_trim(op) {
                let (lhs, rhs) = if swapped { (one, many) } else { (many, one) };
                let sample = |side: &Series| Sample::at(&side.values, &side.histograms, step);
                let outcome = combine(op, return_bool, &sample(lhs), &sample(rhs));
                if let Some(remark) = outcome.remark {
                    self.remarks.set(step, self.steps, remark);
                }
                met[step] = outcome.sample.is_some();
                outcome.sample.unwrap_or(Sample::Absent).put(&mut values, &mut histograms, step);
                continue;
            }
            met[step] = true;
            let (lhs, rhs) = if swapped { (b, a) } else { (a, b) };
            values[step] = element(op, return_bool, lhs, rhs);
        }
        if !met.contains(&true) {
            return Ok(());
        }
        let labels = self.result_labels(&many.labels, &one.labels);
        self.assert_unique(&labels, &met, group)?;
        if values.iter().any(|value| !is_absent(*value)) {
            let drop_name = return_bool && self.delayed;
            let series = Series { labels, drop_name, values, histograms };
            self.held_bytes += series.bytes();
            self.out.push(series);
        }
        Ok(())
    }

    /// Fails when a group has more results at a step than its cardinality allows.
    fn assert_unique(
        &mut self,
        labels: &Labels,
        met: &[bool],
        group: usize,
    ) -> Result<(), QueryError> {
        let counts = &mut self.matched[group * self.steps..][..self.steps];
        let mut again = false;
        for (count, met) in counts.iter_mut().zip(met) {
            *count += u32::from(*met);
            again |= *met && 1 < *count;
        }
        if self.matching.card == Cardinality::OneToOne {
            return if again {
                Err(multiple("many-to-one matching must be explicit (group_left/group_right)"))
            } else {
                Ok(())
            };
        }
        let steps = self.steps;
        let seen = self.seen.entry(group).or_default();
        let held_bytes = &mut self.held_bytes;
        let seen = seen.entry(labels.clone()).or_insert_with(|| {
            *held_bytes += steps;
            vec![false; steps]
        });
        for (seen, met) in seen.iter_mut().zip(met) {
            if *seen && *met {
                return Err(multiple("grouping labels must ensure unique matches"));
            }
            *seen |= *met;
        }
        Ok(())
    }

    /// What the result is called.
    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let VectorMatching { card, on, labels: names, include, .. } = self.matching;
        let renames = self.binary.return_bool && !self.delayed || changes_meaning(self.binary.op);
        let listed = |name: &str| names.iter().any(|own| own == name);
        let kept = many.retain(|name| {
            !(renames && is_metadata(name))
                && (*card != Cardinality::OneToOne || listed(name) == *on)
        });
        if include.is_empty() {
            return kept;
        }
        let mut builder = kept.to_builder();
        for name in include {
            builder.set(name, one.get(name).unwrap_or(""));
        }
        builder.build()
    }
}

fn multiple(what: &str) -> QueryError {
    QueryError::Execution(format!("multiple matches for labels: {what}"))
}

/// Fails when the one side has two values of a group at the same step.
fn assert_one_side(
    one: &Side,
    members: &[Vec<usize>],
    active: &[bool],
    matching: &VectorMatching,
    projection: &Projection,
) -> Result<(), QueryError> {
    // The earliest step and there the first series in order, as a step-by-step evaluation finds it.
    let mut found: Option<(usize, usize, usize)> = None;
    for members in members.iter().filter(|members| 1 < members.len()) {
        let mut holders = vec![None; active.len()];
        for member in members {
            for (step, value) in one.series[*member].values.iter().enumerate() {
                if is_absent(*value) || !active[step] {
                    continue;
                }
                match holders[step] {
                    None => holders[step] = Some(*member),
                    Some(first) => {
                        let candidate = (step, *member, first);
                        found = Some(found.map_or(candidate, |found| found.min(candidate)));
                    }
                }
            }
        }
    }
    let Some((_, second, first)) = found else { return Ok(()) };
    let labels = projection.of(one.series[second].labels.iter(), false);
    let mut names = [one.series[first].labels.to_string(), one.series[second].labels.to_string()];
    names.sort_unstable();
    let side = if matching.card == Cardinality::OneToMany { "left" } else { "right" };
    Err(QueryError::Execution(format!(
        "found duplicate series for the match group {labels} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
        names[0], names[1]
    )))
}
