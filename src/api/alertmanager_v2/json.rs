//! The JSON of Alertmanager's API, both ways.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::alerting::alerts::print_fingerprint;
use crate::alerting::manager;
use crate::alerting::pipeline::{AlertView, GroupView};
use crate::alerting::silence;
use crate::model::alert;
use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};

/// The version of Alertmanager whose behaviour this is.
const VERSION: &str = "0.34.0";

type Texts = BTreeMap<String, String>;

fn texts(labels: &Labels) -> Texts {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// RFC 3339 with exactly three decimals, in UTC.
fn time(at_ms: i64) -> String {
    let zero = || "0001-01-01T00:00:00.000Z".to_owned();
    Timestamp::from_millisecond(at_ms).map_or_else(|_| zero(), |at| format!("{at:.3}"))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status<'a> {
    cluster: Cluster,
    version_info: VersionInfo,
    config: Config<'a>,
    uptime: String,
}

#[derive(Serialize)]
struct Cluster {
    status: &'static str,
    peers: [(); 0],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionInfo {
    version: &'static str,
    revision: &'static str,
    branch: &'static str,
    build_user: &'static str,
    build_date: &'static str,
    go_version: &'static str,
}

#[derive(Serialize)]
struct Config<'a> {
    original: &'a str,
}

pub(super) fn status(status: &manager::Status) -> Status<'_> {
    Status {
        cluster: Cluster { status: "disabled", peers: [] },
        version_info: VersionInfo {
            version: VERSION,
            revision: concat!("narthex-", env!("CARGO_PKG_VERSION")),
            branch: "",
            build_user: "",
            build_date: "",
            go_version: "",
        },
        config: Config { original: &status.config },
        uptime: time(status.started_at_ms),
    }
}

#[derive(Serialize)]
pub(super) struct Receiver {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Texts>,
}

pub(super) fn receiver((name, labels): &(String, Labels)) -> Receiver {
    Receiver { name: name.clone(), labels: Some(texts(labels)) }
}

fn receiver_name(name: &str) -> Receiver {
    Receiver { name: name.to_owned(), labels: None }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alert {
    annotations: Texts,
    ends_at: String,
    fingerprint: String,
    receivers: Vec<Receiver>,
    starts_at: String,
    status: AlertStatus,
    updated_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: String,
    labels: Texts,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AlertStatus {
    inhibited_by: Vec<String>,
    muted_by: Vec<String>,
    silenced_by: Vec<String>,
    state: &'static str,
}

pub(super) fn alert(view: &AlertView) -> Alert {
    let stored = &view.stored;
    Alert {
        annotations: texts(&stored.alert.annotations),
        ends_at: time(stored.alert.ends_at_ms),
        fingerprint: print_fingerprint(stored.fingerprint),
        receivers: view.receivers.iter().map(|name| receiver_name(name)).collect(),
        starts_at: time(stored.alert.starts_at_ms),
        status: AlertStatus {
            inhibited_by: view.inhibited_by.clone(),
            muted_by: view.muted_by.clone(),
            silenced_by: view.silenced_by.clone(),
            state: view.state(),
        },
        updated_at: time(stored.updated_at_ms),
        generator_url: stored.alert.generator_url.clone(),
        labels: texts(&stored.alert.labels),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Group {
    alerts: Vec<Alert>,
    labels: Texts,
    receiver: Receiver,
    route_labels: Texts,
}

pub(super) fn group(view: &GroupView) -> Group {
    Group {
        alerts: view.alerts.iter().map(alert).collect(),
        labels: texts(&view.labels),
        receiver: receiver_name(&view.receiver),
        route_labels: texts(&view.route_labels),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Silence {
    id: String,
    status: SilenceStatus,
    updated_at: String,
    #[serde(skip_serializing_if = "Texts::is_empty")]
    annotations: Texts,
    comment: String,
    created_by: String,
    ends_at: String,
    matchers: Vec<MatcherJson>,
    starts_at: String,
}

#[derive(Serialize)]
struct SilenceStatus {
    state: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MatcherJson {
    is_equal: bool,
    is_regex: bool,
    name: String,
    value: String,
}

pub(super) fn silence(silence: &silence::Silence, now_ms: i64) -> Silence {
    let matcher = |matcher: &Matcher| MatcherJson {
        is_equal: matches!(matcher.op(), MatchOp::Equal | MatchOp::Regex),
        is_regex: matches!(matcher.op(), MatchOp::Regex | MatchOp::NotRegex),
        name: matcher.name().to_owned(),
        value: matcher.value().to_owned(),
    };
    Silence {
        id: silence.id.clone(),
        status: SilenceStatus { state: silence.state_at(now_ms).as_str() },
        updated_at: time(silence.updated_at_ms),
        annotations: silence.annotations.clone(),
        comment: silence.comment.clone(),
        created_by: silence.created_by.clone(),
        ends_at: time(silence.ends_at_ms),
        matchers: silence.matchers.iter().map(matcher).collect(),
        starts_at: time(silence.starts_at_ms),
    }
}

#[derive(Serialize)]
pub(super) struct SilenceId {
    #[serde(rename = "silenceID")]
    pub(super) id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostedAlert {
    #[serde(default)]
    labels: Option<Texts>,
    #[serde(default)]
    annotations: Option<Texts>,
    #[serde(default)]
    starts_at: Option<String>,
    #[serde(default)]
    ends_at: Option<String>,
    #[serde(default, rename = "generatorURL")]
    generator_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostedSilence {
    #[serde(default)]
    id: Option<String>,
    matchers: Option<Vec<PostedMatcher>>,
    starts_at: Option<String>,
    ends_at: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    #[serde(default)]
    annotations: Option<Texts>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostedMatcher {
    name: Option<String>,
    value: Option<String>,
    is_regex: Option<bool>,
    is_equal: Option<bool>,
}

fn parse<'a, T: Deserialize<'a>>(what: &str, body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|err| {
        let message = format!("parsing {what} body from \"\" failed, because {err}");
        Refusal::Validation(400, message)
    })
}

/// Milliseconds; 0 for Go's zero time and for none.
fn parse_time(field: &str, text: Option<&str>) -> Result<i64, Refusal> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(0) };
    let parsed: Result<Timestamp, _> = text.parse();
    let invalid = |_| {
        let text = crate::model::labels::quote(text);
        Refusal::Validation(601, format!("{field} in body must be of type date-time: {text}"))
    };
    Ok(parsed.map_err(invalid)?.as_millisecond().max(0))
}

pub(super) fn parse_alerts(body: &[u8]) -> Result<Vec<alert::Alert>, Refusal> {
    let posted: Vec<PostedAlert> = parse("alerts", body)?;
    let required =
        |index: usize| Refusal::Validation(602, format!("{index}.labels in body is required"));
    let convert = |(index, posted): (usize, PostedAlert)| {
        Ok(alert::Alert {
            labels: Labels::from_pairs(posted.labels.ok_or_else(|| required(index))?),
            annotations: Labels::from_pairs(posted.annotations.unwrap_or_default()),
            starts_at_ms: parse_time("startsAt", posted.starts_at.as_deref())?,
            ends_at_ms: parse_time("endsAt", posted.ends_at.as_deref())?,
            generator_url: posted.generator_url.unwrap_or_default(),
        })
    };
    posted.into_iter().enumerate().map(convert).collect()
}

pub(super) fn parse_silence(body: &[u8]) -> Result<silence::Silence, Refusal> {
    let posted: PostedSilence = parse("silence", body)?;
    let required = |field: &str| Refusal::Validation(602, format!("{field} in body is required"));
    let posted_matchers = posted.matchers.ok_or_else(|| required("matchers"))?;
    if posted_matchers.is_empty() {
        let message = "matchers in body should have at least 1 items".to_owned();
        return Err(Refusal::Validation(612, message));
    }
    let mut matchers = Vec::new();
    for (index, matcher) in posted_matchers.into_iter().enumerate() {
        matchers.push(parse_matcher(index, matcher)?);
    }
    let comment = posted.comment.ok_or_else(|| required("comment"))?;
    let created_by = posted.created_by.ok_or_else(|| required("createdBy"))?;
    let starts_at = posted.starts_at.ok_or_else(|| required("startsAt"))?;
    let ends_at = posted.ends_at.ok_or_else(|| required("endsAt"))?;
    Ok(silence::Silence {
        id: posted.id.unwrap_or_default(),
        matchers,
        starts_at_ms: parse_time("startsAt", Some(&starts_at))?,
        ends_at_ms: parse_time("endsAt", Some(&ends_at))?,
        updated_at_ms: 0,
        created_by,
        comment,
        annotations: posted.annotations.unwrap_or_default(),
    })
}

fn parse_matcher(index: usize, posted: PostedMatcher) -> Result<Matcher, Refusal> {
    let required = |field: &str| {
        Refusal::Validation(602, format!("matchers.{index}.{field} in body is required"))
    };
    let name = posted.name.ok_or_else(|| required("name"))?;
    let value = posted.value.ok_or_else(|| required("value"))?;
    let is_regex = posted.is_regex.ok_or_else(|| required("isRegex"))?;
    let op = match (posted.is_equal.unwrap_or(true), is_regex) {
        (true, false) => MatchOp::Equal,
        (false, false) => MatchOp::NotEqual,
        (true, true) => MatchOp::Regex,
        (false, true) => MatchOp::NotRegex,
    };
    Matcher::new(op, &name, &value).map_err(|err| {
        Refusal::bad_request(format!("invalid silence: invalid label matcher {index}: {err}"))
    })
}
