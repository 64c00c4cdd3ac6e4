//! `label_replace` and `label_join`: they change labels and leave values alone.

use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::matcher::AnchoredRegex;
use crate::promql::engine::QueryError;

use super::super::labels::merge_equal;
use super::super::plan::Node;
use super::super::{Evaluator, Series, Steps};

impl Evaluator<'_> {
    pub(super) fn label_replace(
        &mut self,
        args: &[Node],
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let [vector, target, replacement, source, pattern] = args else {
            unreachable!("checked by the parser")
        };
        let is_label_name = target.is_label_name();
        let (target, replacement) = (target.text(), replacement.text());
        let (source, pattern) = (source.text(), pattern.text());
        let regex = AnchoredRegex::within(pattern, &mut self.allowance).map_err(|_| {
            failure(format!("invalid regular expression in label_replace(): {pattern}"))
        })?;
        if !is_label_name {
            return Err(failure(format!(
                "invalid destination label name in label_replace(): {target}"
            )));
        }
        let mut series = self.vector(vector, steps)?;
        for one in &mut series {
            let value = one.labels.get(source).unwrap_or("");
            if let Some(text) = regex.expand(value, replacement) {
                set(one, target, &text);
            }
        }
        merge_equal(series)
    }

    pub(super) fn label_join(
        &mut self,
        args: &[Node],
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let [vector, target, separator, sources @ ..] = args else {
            unreachable!("checked by the parser")
        };
        let is_label_name = target.is_label_name();
        let (target, separator) = (target.text(), separator.text());
        if let Some(source) = sources.iter().find(|source| !source.is_label_name()) {
            let text = format!("invalid source label name in label_join(): {}", source.text());
            return Err(failure(text));
        }
        if !is_label_name {
            return Err(failure(format!(
                "invalid destination label name in label_join(): {target}"
            )));
        }
        let mut series = self.vector(vector, steps)?;
        for one in &mut series {
            let value = |source: &Node| one.labels.get(source.text()).unwrap_or("").to_owned();
            let joined = sources.iter().map(value).collect::<Vec<_>>().join(separator);
            set(one, target, &joined);
        }
        merge_equal(series)
    }
}

fn set(series: &mut Series, name: &str, value: &str) {
    series.labels = with_label(&series.labels, name, value);
    // A name that was given on purpose stays.
    series.drop_name &= name != METRIC_NAME;
}

fn with_label(labels: &Labels, name: &str, value: &str) -> Labels {
    let mut builder = labels.to_builder();
    builder.set(name, value);
    builder.build()
}

fn failure(text: String) -> QueryError {
    QueryError::Execution(text)
}
