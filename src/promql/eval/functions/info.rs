//! `info`: adds the labels of info series (`target_info`) that describe the same target.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::{HashMap, HashMapExt as _};

use crate::model::labels::{Labels, LabelsBuilder, METRIC_NAME};
use crate::model::matcher::{MatchOp, Matcher};
use crate::promql::ast::{Boundary, Span};
use crate::promql::engine::QueryError;

use super::super::labels::merge_equal;
use super::super::plan::{Kind, Node, Selector, Shift};
use super::super::selector::Sampled;
use super::super::{Evaluator, Series, Steps, absent, is_absent};

/// The labels by which info series and others find each other.
const IDENTIFYING: [&str; 2] = ["instance", "job"];
const TARGET_INFO: &str = "target_info";

impl Evaluator<'_> {
    pub(super) fn info(&mut self, args: &[Node], steps: Steps) -> Result<Vec<Series>, QueryError> {
        let Some((base, wanted)) = args.split_first() else {
            unreachable!("checked by the parser")
        };
        let given = match wanted.first().map(|arg| &arg.kind) {
            Some(Kind::Selector(selector)) => selector.matchers.as_slice(),
            _ => &[],
        };
        let (names, data): (Vec<Matcher>, Vec<Matcher>) =
            given.iter().cloned().partition(|matcher| matcher.name() == METRIC_NAME);
        let names = effective_names(names);
        let shift = shift_of(base).unwrap_or(Shift { at_ms: None, offset_ms: 0 });
        let series = self.vector(base, steps)?;
        let is_info = |series: &Series| {
            let name = series.labels.name();
            names.iter().all(|matcher| matcher.matches(name))
        };
        let (_, enriched): (Vec<_>, Vec<_>) = series.iter().partition(|series| is_info(series));
        let infos = self.info_series(&enriched, &names, &data, shift, steps)?;
        // One column for each target at most.
        self.take_bytes(infos.len() * steps.count * size_of::<u32>(), "the index of info series")?;
        let index = newest_infos(&infos, steps)?;
        let mut out = Vec::new();
        for one in series {
            if is_info(&one) {
                out.push(one);
            } else {
                enrich(&one, &infos, &index, &data, &mut out)?;
            }
        }
        merge_equal(out)
    }

    /// Info series of the targets of `series`; values are the timestamps of samples.
    fn info_series(
        &mut self,
        series: &[&Series],
        names: &[Matcher],
        data: &[Matcher],
        shift: Shift,
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let mut matchers: Vec<Matcher> = Vec::new();
        for label in IDENTIFYING {
            let values: BTreeSet<&str> =
                series.iter().filter_map(|one| one.labels.get(label)).collect();
            if values.is_empty() {
                continue;
            }
            let escaped: Vec<_> = values.into_iter().map(regex::escape).collect();
            let matcher = Matcher::new(MatchOp::Regex, label, &escaped.join("|"));
            matchers.push(matcher.map_err(|err| QueryError::Execution(err.to_string()))?);
        }
        if matchers.is_empty() {
            return Ok(Vec::new());
        }
        matchers.extend(names.iter().chain(data).cloned());
        let selector = Selector { matchers, shift, boundary: Boundary::Plain };
        let mut out = Vec::new();
        let (sampled, span) = (Sampled::Milliseconds, Span::default());
        self.stream_selector(&selector, steps, sampled, span, &mut |own, item| {
            let labels = item.labels.get()?.clone();
            let series = Series::floats(labels, false, item.values.to_vec());
            own.hold(series.present_count())?;
            own.take_bytes(series.bytes(), "a vector")?;
            out.push(series);
            Ok(())
        })?;
        Ok(out)
    }
}

/// Matchers of the metric name that choose info series.
fn effective_names(mut names: Vec<Matcher>) -> Vec<Matcher> {
    if names.is_empty() {
        return vec![Matcher::equal(METRIC_NAME, TARGET_INFO)];
    }
    let positive = |matcher: &Matcher| matches!(matcher.op(), MatchOp::Equal | MatchOp::Regex);
    if !names.iter().any(positive) {
        let any = Matcher::new(MatchOp::Regex, METRIC_NAME, ".+_info");
        names.insert(0, any.expect("a valid expression"));
    }
    names
}

/// Time modifiers of the first selector, with those of the subqueries around it until an `@`.
fn shift_of(node: &Node) -> Option<Shift> {
    match &node.kind {
        Kind::Selector(selector) => Some(selector.shift),
        Kind::Range(range) => Some(range.selector.shift),
        Kind::Subquery(subquery) => {
            let inner = shift_of(&subquery.inner)?;
            if inner.at_ms.is_some() {
                return Some(inner);
            }
            let offset_ms = inner.offset_ms + subquery.shift.offset_ms;
            Some(Shift { at_ms: subquery.shift.at_ms, offset_ms })
        }
        Kind::Negate(inner) | Kind::Invariant(inner) => shift_of(inner),
        Kind::Shared { inner, .. } => shift_of(inner),
        Kind::Call { args, .. } => args.iter().find_map(shift_of),
        Kind::Aggregate(aggregate) => {
            shift_of(&aggregate.inner).or_else(|| aggregate.param.as_ref().and_then(shift_of))
        }
        Kind::Binary(binary) => shift_of(&binary.lhs).or_else(|| shift_of(&binary.rhs)),
        Kind::Number(_) | Kind::String(..) => None,
    }
}

/// By info metric and target: at each step which info series holds (position + 1; 0: none).
type Index = BTreeMap<String, HashMap<Labels, Vec<u32>>>;

fn target_of(labels: &Labels) -> Labels {
    labels.retain(|name| IDENTIFYING.contains(&name))
}

/// Of several info series of a target the one with the newest sample counts.
fn newest_infos(infos: &[Series], steps: Steps) -> Result<Index, QueryError> {
    let mut index = Index::new();
    for (at, info) in infos.iter().enumerate() {
        let by_target = index.entry(info.labels.name().to_owned()).or_default();
        let holds =
            by_target.entry(target_of(&info.labels)).or_insert_with(|| vec![0; steps.count]);
        for (step, holder) in holds.iter_mut().enumerate() {
            let value = info.values[step];
            if is_absent(value) {
                continue;
            }
            if let Some(old) = (*holder as usize).checked_sub(1).map(|old| &infos[old]) {
                let old_value = old.values[step];
                if value == old_value {
                    let shown = |series: &Series| format!("{} @ {}", series.labels, value as i64);
                    return Err(QueryError::Execution(format!(
                        "found duplicate series for info metric: existing {}, new {}",
                        shown(old),
                        shown(info)
                    )));
                }
                if value < old_value {
                    continue;
                }
            }
            *holder = at as u32 + 1;
        }
    }
    Ok(index)
}

/// Adds to `out` the series with the labels of the info series that hold at each step.
fn enrich(
    series: &Series,
    infos: &[Series],
    index: &Index,
    data: &[Matcher],
    out: &mut Vec<Series>,
) -> Result<(), QueryError> {
    let target = target_of(&series.labels);
    let holders: Vec<&Vec<u32>> =
        index.values().filter_map(|by_target| by_target.get(&target)).collect();
    let optional = data.iter().all(Matcher::matches_empty);
    let mut by_holders: HashMap<Vec<u32>, usize> = HashMap::new();
    for step in (0..series.values.len()).filter(|step| !is_absent(series.values[*step])) {
        let key: Vec<u32> = holders.iter().map(|holders| holders[step]).collect();
        if !optional && key.iter().all(|holder| *holder == 0) {
            continue;
        }
        let place = match by_holders.get(&key) {
            Some(place) => *place,
            None => {
                let chosen = key.iter().filter(|holder| **holder != 0);
                let chosen = chosen.map(|holder| &infos[*holder as usize - 1].labels);
                let labels = with_data(&series.labels, chosen, data)?;
                let values = vec![absent(); series.values.len()];
                out.push(Series::floats(labels, series.drop_name, values));
                by_holders.insert(key, out.len() - 1);
                out.len() - 1
            }
        };
        out[place].take_step(series, step);
    }
    Ok(())
}

fn with_data<'a>(
    base: &Labels,
    infos: impl Iterator<Item = &'a Labels>,
    data: &[Matcher],
) -> Result<Labels, QueryError> {
    let wanted = |name: &str| data.is_empty() || data.iter().any(|matcher| matcher.name() == name);
    let mut added = LabelsBuilder::default();
    for (name, value) in infos.flat_map(Labels::iter) {
        if name == METRIC_NAME || !wanted(name) {
            continue;
        }
        if !added.get(name).is_empty() && added.get(name) != value {
            return Err(QueryError::Execution(format!("conflicting label: {name}")));
        }
        if base.get(name).is_none() {
            added.set(name, value);
        }
    }
    let mut builder = base.to_builder();
    added.iter().for_each(|(name, value)| builder.set(name, value));
    Ok(builder.build())
}
