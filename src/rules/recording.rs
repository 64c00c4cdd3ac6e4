//! Recording rules: an expression's result becomes series of another name.

use std::collections::BTreeSet;

use crate::model::labels::METRIC_NAME;
use crate::template::prometheus::QuerySample;

use super::{Asker, Evaluate, EvaluateError, RuleOptions};

/// When a rule is evaluated, and how much it may yield.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// The moment of the group's grid.
    pub ts_ms: i64,
    /// The group's query offset.
    pub offset_ms: i64,
    /// Series or alerts; 0: any number.
    pub limit: usize,
}

impl Moment {
    /// Where queries look and results are written.
    pub fn sample_ms(self) -> i64 {
        self.ts_ms - self.offset_ms
    }

    /// Whether so much is too much.
    pub fn exceeds(self, count: usize) -> bool {
        self.limit > 0 && count > self.limit
    }
}

/// The series and values to be written.
pub(super) fn evaluate(
    rule: &RuleOptions,
    moment: Moment,
    engine: &dyn Evaluate,
    asker: Asker<'_>,
) -> Result<Vec<QuerySample>, EvaluateError> {
    let vector = engine.vector(&rule.expr, moment.sample_ms(), asker)?;
    let (mut samples, mut seen) = (Vec::with_capacity(vector.len()), BTreeSet::new());
    for sample in vector {
        let mut labels = sample.labels.to_builder();
        labels.set(METRIC_NAME, &rule.name);
        for (name, value) in &rule.labels {
            labels.set(name, value);
        }
        let labels = labels.build();
        if !seen.insert(labels.clone()) {
            return Err(EvaluateError::Failed(
                "vector contains metrics with the same labelset after applying rule labels"
                    .to_owned(),
            ));
        }
        samples.push(QuerySample { labels, ..sample });
    }
    if moment.exceeds(samples.len()) {
        return Err(EvaluateError::Failed(format!(
            "exceeded limit of {} with {} series",
            moment.limit,
            samples.len()
        )));
    }
    Ok(samples)
}
