//! Alerting rules: an expression's result becomes alerts, and the series `ALERTS` and
//! `ALERTS_FOR_STATE` that tell of them.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tracing::warn;

use crate::model::labels::{ALERT_NAME, Labels, METRIC_NAME};
use crate::template::prometheus::{AlertTemplateData, QuerySample, expand_alert_text};

use super::recording::Moment;
use super::state::{Alerts, Observed, Patience};
use super::{Asker, Evaluate, EvaluateError, Options, RuleOptions};

/// Series with value 1 for each pending or firing alert.
pub(super) const ALERTS: &str = "ALERTS";
/// Series with the second since which the alert is active; read back after a restart.
pub(super) const ALERTS_FOR_STATE: &str = "ALERTS_FOR_STATE";

/// What Go's `url.QueryEscape` leaves alone besides letters and digits.
const QUERY_ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What an evaluation needs from outside the rule.
pub(super) struct Surroundings<'a> {
    pub engine: &'a dyn Evaluate,
    pub asker: Asker<'a>,
    pub options: &'a Options,
}

/// Evaluates the expression and moves the alerts on. The number of alerts now active.
///
/// On an error of the query the alerts stay as they were; over the limit they are forgotten.
pub(super) fn evaluate(
    rule: &RuleOptions,
    annotations: &[(String, String)],
    patience: Patience,
    moment: Moment,
    around: &Surroundings<'_>,
    alerts: &mut Alerts,
) -> Result<usize, EvaluateError> {
    let vector = around.engine.vector(&rule.expr, moment.sample_ms(), around.asker)?;
    let mut found = BTreeMap::new();
    for sample in vector {
        let expander = Expander::new(rule, sample, moment, around);
        let labels = expander.labels(&rule.labels);
        let texts = annotations.iter().map(|(name, text)| (name, expander.expand(text)));
        let annotations = Labels::from_pairs(texts);
        let observed = Observed { annotations, value: expander.data.value };
        if found.insert(labels, observed).is_some() {
            return Err(EvaluateError::Failed(
                "vector contains metrics with the same labelset after applying alert labels"
                    .to_owned(),
            ));
        }
    }
    let active_count = alerts.observe(found, patience, moment.ts_ms);
    if moment.exceeds(active_count) {
        alerts.clear();
        let limit = moment.limit;
        let text = format!("exceeded limit of {limit} with {active_count} alerts");
        return Err(EvaluateError::Failed(text));
    }
    Ok(active_count)
}

/// Expands the templates of one rule for one series.
struct Expander<'a> {
    rule: &'a RuleOptions,
    template_name: String,
    data: AlertTemplateData,
    ts_ms: i64,
    query: Box<dyn Fn(&str, i64) -> Result<Vec<QuerySample>, String> + 'a>,
}

impl<'a> Expander<'a> {
    fn new(
        rule: &'a RuleOptions,
        sample: QuerySample,
        moment: Moment,
        around: &'a Surroundings<'a>,
    ) -> Self {
        let data = AlertTemplateData {
            labels: sample.labels,
            external_labels: around.options.external_labels.clone(),
            external_url: around.options.external_url.clone(),
            value: sample.value,
            histogram: sample.histogram,
        };
        let query = |text: &str, at_ms: i64| {
            around.engine.vector(text, at_ms, around.asker).map_err(|err| err.to_string())
        };
        let template_name = format!("__alert_{}", rule.name);
        Self { rule, template_name, data, ts_ms: moment.ts_ms, query: Box::new(query) }
    }

    /// A failing template yields a text that says so: it never loses the alert.
    fn expand(&self, text: &str) -> String {
        if !text.contains("{{") {
            return text.to_owned();
        }
        let query = &*self.query;
        match expand_alert_text(&self.template_name, text, &self.data, self.ts_ms, query) {
            Ok(expanded) => expanded,
            Err(err) => {
                warn!(rule = %self.rule.name, error = %err, "Expanding alert template failed.");
                format!("<error expanding template: {err}>")
            }
        }
    }

    /// The alert's identity.
    fn labels(&self, own: &[(String, String)]) -> Labels {
        let mut labels = self.data.labels.to_builder();
        labels.remove(METRIC_NAME);
        for (name, text) in own {
            labels.set(name, &self.expand(text));
        }
        labels.set(ALERT_NAME, &self.rule.name);
        labels.build()
    }
}

/// `ALERTS` and `ALERTS_FOR_STATE` of all active alerts.
pub(super) fn series(alerts: &Alerts) -> Vec<QuerySample> {
    let mut samples = Vec::new();
    for (labels, alert) in alerts.active() {
        let mut builder = labels.to_builder();
        builder.set(METRIC_NAME, ALERTS_FOR_STATE);
        let for_state = builder.build();
        builder.set(METRIC_NAME, ALERTS);
        builder.set("alertstate", alert.state.as_str());
        let active_at = alert.active_at_ms.div_euclid(1000) as f64;
        let sample = |labels, value| QuerySample { labels, value, histogram: None };
        samples.push(sample(builder.build(), 1.0));
        samples.push(sample(for_state, active_at));
    }
    samples
}

/// Link to the expression's table.
pub(super) fn generator_url(external_url: &str, expr: &str) -> String {
    let escaped = utf8_percent_encode(expr, QUERY_ESCAPED).to_string().replace("%20", "+");
    format!("{}/graph?g0.expr={escaped}&g0.tab=1", external_url.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_escape_like_go() {
        let url = generator_url("http://n:9090/", "a{b=\"c d\"} > 0.5 * ~é");
        insta::assert_snapshot!(url, @"http://n:9090/graph?g0.expr=a%7Bb%3D%22c+d%22%7D+%3E+0.5+%2A+~%C3%A9&g0.tab=1");
    }
}
