//! `/rules`, `/alerts`, `/alertmanagers`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde_json::{Value, json};

use super::super::blocking::{Blocking, answering};
use super::super::params::Params;
use super::super::respond::{ApiError, ApiResult, Success};
use super::super::{Services, labels_json, rfc3339, rfc3339_or_never};
use crate::model::digest::sha256_hex;
use crate::model::float;
use crate::model::matcher::Matcher;
use crate::rules::{AlertStatus, AlertingStatus, GroupStatus, RuleStatus};

fn moment(timestamp_ms: i64) -> String {
    rfc3339_or_never((timestamp_ms != 0).then_some(timestamp_ms))
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn pairs_json(pairs: &[(String, String)]) -> BTreeMap<&str, &str> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn alert_json(alert: &AlertStatus) -> Value {
    let mut out = json!({
        "labels": labels_json(&alert.labels),
        "annotations": labels_json(&alert.annotations),
        "state": alert.state.as_str(),
        "activeAt": rfc3339(alert.active_at_ms),
        "value": float::format_exponent(alert.value),
    });
    if let Some(since_ms) = alert.keep_firing_since_ms {
        out["keepFiringSince"] = json!(rfc3339(since_ms));
    }
    out
}

fn rule_json(rule: &RuleStatus, with_alerts: bool) -> Value {
    let mut out = json!({
        "name": rule.name,
        "query": rule.query,
        "health": rule.health.as_str(),
        "evaluationTime": Duration::as_secs_f64(&rule.evaluation_time),
        "lastEvaluation": moment(rule.last_evaluation_ms),
    });
    if !rule.last_error.is_empty() {
        out["lastError"] = json!(rule.last_error);
    }
    match &rule.alerting {
        Some(alerting) => add_alerting(&mut out, rule, alerting, with_alerts),
        None => {
            out["type"] = json!("recording");
            // Prometheus leaves the labels of a recording rule out when there are none.
            if !rule.labels.is_empty() {
                out["labels"] = json!(pairs_json(&rule.labels));
            }
        }
    }
    out
}

fn add_alerting(out: &mut Value, rule: &RuleStatus, alerting: &AlertingStatus, with_alerts: bool) {
    let alerts = alerting.alerts.iter().filter(|_| with_alerts).map(alert_json);
    out["type"] = json!("alerting");
    out["state"] = json!(alerting.state.map_or("unknown", |state| state.as_str()));
    out["duration"] = json!(seconds(alerting.hold_ms));
    out["keepFiringFor"] = json!(seconds(alerting.keep_firing_ms));
    out["labels"] = json!(pairs_json(&rule.labels));
    out["annotations"] = json!(pairs_json(&alerting.annotations));
    out["alerts"] = json!(alerts.collect::<Vec<_>>());
}

/// Which rules the client wants.
struct Filter {
    kind: String,
    names: Vec<String>,
    groups: Vec<String>,
    files: Vec<String>,
    matchers: Vec<Vec<Matcher>>,
}

impl Filter {
    fn read(thread: &Blocking, services: &Services, params: &Params) -> Result<Self, ApiError> {
        let kind = params.get("type").to_lowercase();
        if !matches!(kind.as_str(), "" | "alert" | "record") {
            let reason = format!("not supported value {}", crate::model::labels::quote(&kind));
            return Err(ApiError::parameter("type", reason));
        }
        let list = |name| params.all(name).map(str::to_owned).collect();
        Ok(Self {
            kind,
            names: list("rule_name[]"),
            groups: list("rule_group[]"),
            files: list("file[]"),
            matchers: params.matchers(thread, &services.options.parser)?,
        })
    }

    fn wants_group(&self, group: &GroupStatus) -> bool {
        (self.groups.is_empty() || self.groups.contains(&group.name))
            && (self.files.is_empty() || self.files.contains(&group.file))
    }

    fn wants_rule(&self, rule: &RuleStatus) -> bool {
        let kind_fits = match self.kind.as_str() {
            "alert" => rule.alerting.is_some(),
            "record" => rule.alerting.is_none(),
            _ => true,
        };
        let value = |name: &str| {
            rule.labels.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value.as_str())
        };
        let fits = |set: &Vec<Matcher>| set.iter().all(|m| m.matches(value(m.name())));
        kind_fits
            && (self.names.is_empty() || self.names.contains(&rule.name))
            && (self.matchers.is_empty() || self.matchers.iter().any(fits))
    }
}

/// Names a group in paging: SHA-256 of file and group.
fn page_token(group: &GroupStatus) -> String {
    sha256_hex(&format!("{};{}", group.file, group.name))
}

pub(super) async fn rules(State(services): State<Arc<Services>>, params: Params) -> ApiResult {
    answering(&Arc::clone(&services), move |thread| list(thread, &services, &params)).await
}

fn list(thread: &Blocking, services: &Services, params: &Params) -> ApiResult {
    let filter = Filter::read(thread, services, params)?;
    let exclude_alerts = matches!(params.get("exclude_alerts"), "true" | "1");
    let limit = params.count("group_limit", 0)?;
    let wanted_token = params.get("group_next_token");
    let mut groups = services.rules.groups();
    groups.sort_by(|a, b| (&a.file, &a.name).cmp(&(&b.file, &b.name)));
    let (mut shown, mut next_token) = (Vec::new(), None);
    let mut reached = wanted_token.is_empty();
    for group in groups.iter().filter(|group| filter.wants_group(group)) {
        reached = reached || page_token(group) == wanted_token;
        if !reached {
            continue;
        }
        let rules = group.rules.iter().filter(|rule| filter.wants_rule(rule));
        let rules: Vec<Value> = rules.map(|rule| rule_json(rule, !exclude_alerts)).collect();
        if rules.is_empty() && !group.rules.is_empty() {
            continue;
        }
        if limit > 0 && shown.len() == limit {
            next_token = Some(page_token(group));
            break;
        }
        shown.push(json!({
            "name": group.name,
            "file": group.file,
            "rules": rules,
            "interval": seconds(group.interval_ms),
            "limit": group.limit,
            "evaluationTime": group.evaluation_time.as_secs_f64(),
            "lastEvaluation": moment(group.last_evaluation_ms),
        }));
    }
    if !reached {
        let reason = "invalid group_next_token. were rule groups changed?";
        return Err(ApiError::parameter("group_next_token", reason));
    }
    let mut data = json!({ "groups": shown });
    if let Some(token) = next_token {
        data["groupNextToken"] = json!(token);
    }
    Ok(Success::of(&data))
}

pub(super) async fn alerts(State(services): State<Arc<Services>>) -> ApiResult {
    let groups = services.rules.groups();
    let rules = groups.iter().flat_map(|group| &group.rules);
    let alerts = rules.filter_map(|rule| rule.alerting.as_ref()).flat_map(|rule| &rule.alerts);
    Ok(Success::of(&json!({ "alerts": alerts.map(alert_json).collect::<Vec<_>>() })))
}

pub(super) async fn alertmanagers(State(services): State<Arc<Services>>) -> ApiResult {
    let status = services.notifier.alertmanagers();
    let list =
        |urls: &[String]| -> Vec<Value> { urls.iter().map(|url| json!({ "url": url })).collect() };
    Ok(Success::of(&json!({
        "activeAlertmanagers": list(&status.active),
        "droppedAlertmanagers": list(&status.dropped),
    })))
}
