//! Webhooks: Alertmanager's JSON, version 4, or a payload of one's own.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{Post, Sent, Texts, check, load, shown_body};
use crate::alerting::group;
use crate::http_client::Secret;
use crate::model::labels::Labels;
use crate::template::notification::{AlertData, Data};

/// Go's zero time: the end of what has not ended.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// `webhook_configs`
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to; a template.
    pub url: Secret,
    /// Alerts per message at most; 0: all.
    pub alerts_max: usize,
    /// Replaces the standard body.
    pub payload: Option<Value>,
}

type Texts4<'a> = BTreeMap<&'a str, &'a str>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    receiver: &'a str,
    status: &'a str,
    alerts: Vec<Alert<'a>>,
    #[serde(rename = "notification_reason")]
    notification_reason: &'a str,
    group_labels: Texts4<'a>,
    common_labels: Texts4<'a>,
    common_annotations: Texts4<'a>,
    route_labels: Texts4<'a>,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    version: &'static str,
    group_key: &'a str,
    truncated_alerts: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert<'a> {
    status: &'a str,
    labels: Texts4<'a>,
    annotations: Texts4<'a>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
    fingerprint: &'a str,
}

fn texts(labels: &Labels) -> Texts4<'_> {
    labels.iter().collect()
}

fn time(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).map_or_else(|_| ZERO_TIME.to_owned(), |at| at.to_string())
}

fn alert(data: &AlertData) -> Alert<'_> {
    Alert {
        status: &data.status,
        labels: texts(&data.labels),
        annotations: texts(&data.annotations),
        starts_at: time(data.starts_at_ms),
        ends_at: data.ends_at_ms.map_or_else(|| ZERO_TIME.to_owned(), time),
        generator_url: &data.generator_url,
        fingerprint: &data.fingerprint,
    }
}

fn body(data: &Data, group_key: &str, truncated_alerts: usize) -> Vec<u8> {
    let message = Message {
        receiver: &data.receiver,
        status: &data.status,
        alerts: data.alerts.iter().map(alert).collect(),
        notification_reason: &data.notification_reason,
        group_labels: texts(&data.group_labels),
        common_labels: texts(&data.common_labels),
        common_annotations: texts(&data.common_annotations),
        route_labels: texts(&data.route_labels),
        external_url: &data.external_url,
        version: "4",
        group_key,
        truncated_alerts,
    };
    serde_json::to_vec(&message).expect("texts and numbers are always JSON")
}

pub(super) async fn send(options: &Options, texts: &Texts<'_>, post: &Post<'_>) -> Sent {
    let mut data = texts.data().clone();
    let mut truncated_alerts = 0;
    if options.alerts_max > 0 && data.alerts.len() > options.alerts_max {
        truncated_alerts = data.alerts.len() - options.alerts_max;
        data.alerts.truncate(options.alerts_max);
        group::summarize(&mut data);
    }
    let body = match &options.payload {
        Some(payload) => serde_json::to_vec(&texts.tree(payload)).unwrap_or_default(),
        None => body(&data, &texts.notification.group_key, truncated_alerts),
    };
    let url = texts.exact(&load(&options.url).await?)?;
    let response = post.json(&url, body).await?;
    check(&response, shown_body)?;
    Ok(BTreeMap::new())
}
