//! `/rules`, `/alerts`, `/alertmanagers`.

use std::collections::BTreeMap;
use std::num::IntErrorKind;
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
use crate::model::labels::quote;
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
            let reason = format!("not supported value {}", quote(&kind));
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

/// Which part of the list a client wants.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    groups_max: usize,
    /// The first group's; empty: from the start.
    token: String,
}

impl Page {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let (limit, token) = (params.get("group_limit"), params.get("group_next_token"));
        if limit.is_empty() {
            if token.is_empty() {
                return Ok(Self { groups_max: usize::MAX, token: String::new() });
            }
            let reason = "group_limit needs to be present in order to paginate over the groups";
            return Err(ApiError::parameter("group_next_token", reason));
        }
        let refused = |reason: String| Err(ApiError::parameter("group_limit", reason));
        match limit.parse::<i32>() {
            Ok(number @ 1..) => Ok(Self { groups_max: number as usize, token: token.to_owned() }),
            Ok(_) => refused("group_limit needs to be greater than 0".to_owned()),
            Err(err) => {
                let is_large =
                    matches!(err.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow);
                let reason = if is_large { "value out of range" } else { "invalid syntax" };
                refused(format!(
                    "group_limit needs to be a valid number: strconv.ParseInt: parsing {}: {reason}",
                    quote(limit)
                ))
            }
        }
    }
}

fn excludes_alerts(params: &Params) -> Result<bool, ApiError> {
    match params.get("exclude_alerts").to_lowercase().as_str() {
        "1" | "t" | "true" => Ok(true),
        "" | "0" | "f" | "false" => Ok(false),
        other => {
            let reason = format!(
                "error converting exclude_alerts: strconv.ParseBool: parsing {}: invalid syntax",
                quote(other)
            );
            Err(ApiError::parameter("exclude_alerts", reason))
        }
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
    let exclude_alerts = excludes_alerts(params)?;
    let page = Page::read(params)?;
    let mut groups = services.rules.groups();
    groups.sort_by(|a, b| (&a.file, &a.name).cmp(&(&b.file, &b.name)));
    let is_first = |group: &Arc<GroupStatus>| page_token(group) == page.token;
    let first = if page.token.is_empty() { Some(0) } else { groups.iter().position(is_first) };
    let Some(first) = first else {
        let reason =
            format!("invalid group_next_token '{}'. were rule groups changed?", page.token);
        return Err(ApiError::parameter("group_next_token", reason));
    };
    let (mut shown, mut next_token) = (Vec::new(), None);
    for group in groups[first..].iter().filter(|group| filter.wants_group(group)) {
        let rules = group.rules.iter().filter(|rule| filter.wants_rule(rule));
        let rules: Vec<Value> = rules.map(|rule| rule_json(rule, !exclude_alerts)).collect();
        if rules.is_empty() {
            continue;
        }
        if shown.len() == page.groups_max {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_and_refused_as_by_prometheus() {
        let page = |groups_max, token: &str| Ok(Page { groups_max, token: token.to_owned() });
        let limit = "invalid parameter \"group_limit\": group_limit needs to be ";
        let number = format!("{limit}a valid number: strconv.ParseInt: parsing ");
        let refused = |text: &str| Err(text.to_owned());
        for (query, expected) in [
            ("", page(usize::MAX, "")),
            ("group_limit=2", page(2, "")),
            ("group_limit=2&group_next_token=ab", page(2, "ab")),
            (
                "group_next_token=ab",
                refused(
                    "invalid parameter \"group_next_token\": group_limit needs to be present in \
                     order to paginate over the groups",
                ),
            ),
            ("group_limit=0", Err(format!("{limit}greater than 0"))),
            ("group_limit=-1", Err(format!("{limit}greater than 0"))),
            ("group_limit=x", Err(format!("{number}\"x\": invalid syntax"))),
            ("group_limit=3000000000", Err(format!("{number}\"3000000000\": value out of range"))),
        ] {
            let read = Page::read(&Params::from_query(query));
            assert_eq!(read.map_err(|err| err.text), expected, "{query}");
        }
        let excludes = |text: &str| {
            let params = Params::from_query(&format!("exclude_alerts={text}"));
            excludes_alerts(&params).map_err(|err| err.text)
        };
        assert_eq!(
            [excludes("True"), excludes("0"), excludes("")].map(Result::unwrap),
            [true, false, false]
        );
        assert_eq!(
            excludes("maybe").unwrap_err(),
            "invalid parameter \"exclude_alerts\": error converting exclude_alerts: \
             strconv.ParseBool: parsing \"maybe\": invalid syntax"
        );
    }
}
