//! `sort`, `sort_desc`, `sort_by_label`, `sort_by_label_desc`: the order of an instant vector.

use std::cmp::Ordering;

use crate::promql::ast::Span;
use crate::promql::engine::QueryError;

use super::super::plan::Node;
use super::super::{Evaluator, Series, Steps};

impl Evaluator<'_> {
    pub(super) fn sort(
        &mut self,
        name: &str,
        span: Span,
        args: &[Node],
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let [vector, labels @ ..] = args else { unreachable!("checked by the parser") };
        let mut series = self.vector(vector, steps)?;
        if matches!(name, "sort" | "sort_desc") {
            for one in &mut series {
                one.drop_histograms();
            }
            series.retain(|one| 0 < one.present_count());
        }
        if 1 < steps.count {
            let text =
                "sort is ineffective for range queries since results are always ordered by labels";
            self.notes.warn(text, span);
            return Ok(series);
        }
        match name {
            "sort" => series.sort_by(|a, b| by_value(a, b, Ordering::Less)),
            "sort_desc" => series.sort_by(|a, b| by_value(a, b, Ordering::Greater)),
            "sort_by_label" => series.sort_by(|a, b| by_labels(a, b, labels)),
            _ => series.sort_by(|a, b| by_labels(b, a, labels)),
        }
        Ok(series)
    }
}

/// NaN is last, whatever the direction.
fn by_value(a: &Series, b: &Series, ascending: Ordering) -> Ordering {
    let (Some(a), Some(b)) = (a.values.first(), b.values.first()) else { return Ordering::Equal };
    match (a.is_nan(), b.is_nan()) {
        (false, false) if ascending == Ordering::Less => {
            a.partial_cmp(b).unwrap_or(Ordering::Equal)
        }
        (false, false) => b.partial_cmp(a).unwrap_or(Ordering::Equal),
        (a, b) => a.cmp(&b),
    }
}

fn by_labels(a: &Series, b: &Series, names: &[Node]) -> Ordering {
    let get =
        |series: &Series, name: &Node| series.labels.get(name.text()).unwrap_or("").to_owned();
    let compared = names.iter().map(|name| natural(&get(a, name), &get(b, name)));
    let first_difference = compared.into_iter().find(|order| order.is_ne());
    first_difference.unwrap_or_else(|| a.labels.cmp(&b.labels))
}

/// Runs of digits compare as numbers: `node2` before `node10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a, b);
    while let (Some((chunk_a, tail_a)), Some((chunk_b, tail_b))) = (chunk(rest_a), chunk(rest_b)) {
        let order = match (chunk_a.parse::<i64>(), chunk_b.parse::<i64>()) {
            (Ok(number_a), Ok(number_b)) => number_a.cmp(&number_b),
            _ => chunk_a.cmp(chunk_b),
        };
        if order.is_ne() {
            return order;
        }
        (rest_a, rest_b) = (tail_a, tail_b);
    }
    rest_a.len().cmp(&rest_b.len()).then_with(|| a.cmp(b))
}

/// The first run of digits or of other characters.
fn chunk(text: &str) -> Option<(&str, &str)> {
    let digit = text.chars().next()?.is_ascii_digit();
    let end = text.find(|letter: char| letter.is_ascii_digit() != digit).unwrap_or(text.len());
    Some(text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_labels_sort_as_numbers() {
        let mut names = ["node10", "node2", "node", "a", "node2b", "10", "9"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["9", "10", "a", "node", "node2", "node2b", "node10"]);
    }
}
