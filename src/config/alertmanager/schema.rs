//! The fields of `alertmanager.yml` as they are written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::config::http::HttpConfig;
use crate::config::yaml::{LabelMap, Secret, Span, is_default};

/// Something that we accept and do not look at; it may hold secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl Serialize for Ignored {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("<not shown>")
    }
}

/// Makes a strict section whose fields all have a default and are left out when they have it.
macro_rules! section {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* #[serde(skip_serializing_if = "is_default")] pub $field: $type,)*
        }
    };
}

section! {
    pub struct File {
        pub global: Option<Global>,
        pub route: Option<Route>,
        pub inhibit_rules: Vec<InhibitRule>,
        pub receivers: Vec<Receiver>,
        pub templates: Vec<String>,
        pub time_intervals: Vec<NamedInterval>,
        pub mute_time_intervals: Vec<NamedInterval>,
        pub tracing: Option<Ignored>,
        pub event_recorder: Option<Ignored>,
    }
}

section! {
    pub struct Global {
        pub resolve_timeout: Option<Span>,
        pub http_config: Option<HttpConfig>,
        pub smtp_from: Option<String>,
        pub smtp_hello: Option<String>,
        pub smtp_smarthost: Option<String>,
        pub smtp_auth_username: Option<String>,
        pub smtp_auth_password: Option<Secret>,
        pub smtp_auth_password_file: Option<PathBuf>,
        pub smtp_auth_secret: Option<Secret>,
        pub smtp_auth_secret_file: Option<PathBuf>,
        pub smtp_auth_identity: Option<String>,
        pub smtp_require_tls: Option<bool>,
        pub smtp_force_implicit_tls: Option<bool>,
        pub smtp_tls_config: Option<Ignored>,
        pub slack_api_url: Option<Secret>,
        pub slack_api_url_file: Option<PathBuf>,
        pub slack_app_token: Option<Secret>,
        pub slack_app_token_file: Option<PathBuf>,
        pub slack_app_url: Option<String>,
        pub pagerduty_url: Option<String>,
        pub opsgenie_api_url: Option<String>,
        pub opsgenie_api_key: Option<Secret>,
        pub opsgenie_api_key_file: Option<PathBuf>,
        pub victorops_api_url: Option<String>,
        pub victorops_api_key: Option<Secret>,
        pub victorops_api_key_file: Option<PathBuf>,
        pub wechat_api_url: Option<String>,
        pub wechat_api_secret: Option<Secret>,
        pub wechat_api_secret_file: Option<PathBuf>,
        pub wechat_api_corp_id: Option<String>,
        pub telegram_api_url: Option<String>,
        pub telegram_bot_token: Option<Secret>,
        pub telegram_bot_token_file: Option<PathBuf>,
        pub webex_api_url: Option<String>,
        pub rocketchat_api_url: Option<String>,
        pub rocketchat_token: Option<Secret>,
        pub rocketchat_token_file: Option<PathBuf>,
        pub rocketchat_token_id: Option<Secret>,
        pub rocketchat_token_id_file: Option<PathBuf>,
        pub jira_api_url: Option<String>,
        pub mattermost_webhook_url: Option<Secret>,
        pub mattermost_webhook_url_file: Option<PathBuf>,
    }
}

section! {
    pub struct Route {
        pub receiver: String,
        pub group_by: Option<Vec<String>>,
        pub group_wait: Option<Span>,
        pub group_interval: Option<Span>,
        pub repeat_interval: Option<Span>,
        pub r#match: LabelMap,
        pub match_re: LabelMap,
        pub matchers: Vec<String>,
        pub mute_time_intervals: Vec<String>,
        pub active_time_intervals: Vec<String>,
        pub r#continue: bool,
        pub labels: LabelMap,
        pub routes: Vec<Route>,
    }
}

section! {
    pub struct InhibitRule {
        pub name: String,
        pub source_match: LabelMap,
        pub source_match_re: LabelMap,
        pub source_matchers: Vec<String>,
        pub target_match: LabelMap,
        pub target_match_re: LabelMap,
        pub target_matchers: Vec<String>,
        pub equal: Vec<String>,
    }
}

section! {
    pub struct NamedInterval {
        pub name: String,
        pub time_intervals: Vec<Interval>,
    }
}

section! {
    pub struct Interval {
        pub times: Vec<Times>,
        pub weekdays: Vec<String>,
        pub days_of_month: Vec<String>,
        pub months: Vec<String>,
        pub years: Vec<String>,
        pub location: Option<String>,
    }
}

section! {
    pub struct Times {
        pub start_time: String,
        pub end_time: String,
    }
}

section! {
    pub struct Receiver {
        pub name: String,
        pub labels: LabelMap,
        pub slack_configs: Vec<Slack>,
        pub pagerduty_configs: Vec<PagerDuty>,
        pub webhook_configs: Vec<Webhook>,
        pub discord_configs: Vec<Ignored>,
        pub email_configs: Vec<Ignored>,
        pub incidentio_configs: Vec<Ignored>,
        pub jira_configs: Vec<Ignored>,
        pub mattermost_configs: Vec<Ignored>,
        pub msteams_configs: Vec<Ignored>,
        pub msteamsv2_configs: Vec<Ignored>,
        pub opsgenie_configs: Vec<Ignored>,
        pub pushover_configs: Vec<Ignored>,
        pub rocketchat_configs: Vec<Ignored>,
        pub sns_configs: Vec<Ignored>,
        pub telegram_configs: Vec<Ignored>,
        pub victorops_configs: Vec<Ignored>,
        pub webex_configs: Vec<Ignored>,
        pub wechat_configs: Vec<Ignored>,
    }
}

impl Receiver {
    /// The first kind in it that we cannot send to.
    pub fn unsupported(&self) -> Option<&'static str> {
        let kinds = [
            ("discord", &self.discord_configs),
            ("email", &self.email_configs),
            ("incidentio", &self.incidentio_configs),
            ("jira", &self.jira_configs),
            ("mattermost", &self.mattermost_configs),
            ("msteams", &self.msteams_configs),
            ("msteamsv2", &self.msteamsv2_configs),
            ("opsgenie", &self.opsgenie_configs),
            ("pushover", &self.pushover_configs),
            ("rocketchat", &self.rocketchat_configs),
            ("sns", &self.sns_configs),
            ("telegram", &self.telegram_configs),
            ("victorops", &self.victorops_configs),
            ("webex", &self.webex_configs),
            ("wechat", &self.wechat_configs),
        ];
        kinds.into_iter().find(|(_, configs)| !configs.is_empty()).map(|(kind, _)| kind)
    }
}

section! {
    pub struct Slack {
        pub send_resolved: Option<bool>,
        pub resolve_when_muted: Option<bool>,
        pub http_config: Option<HttpConfig>,
        pub api_url: Option<Secret>,
        pub api_url_file: Option<PathBuf>,
        pub app_token: Option<Secret>,
        pub app_token_file: Option<PathBuf>,
        pub app_url: Option<String>,
        pub channel: Option<String>,
        pub username: Option<String>,
        pub color: Option<String>,
        pub title: Option<String>,
        pub title_link: Option<String>,
        pub pretext: Option<String>,
        pub text: Option<String>,
        pub message_text: Option<String>,
        pub fields: Vec<SlackField>,
        pub short_fields: bool,
        pub footer: Option<String>,
        pub fallback: Option<String>,
        pub callback_id: Option<String>,
        pub icon_emoji: Option<String>,
        pub icon_url: Option<String>,
        pub image_url: Option<String>,
        pub thumb_url: Option<String>,
        pub link_names: bool,
        pub mrkdwn_in: Option<Vec<String>>,
        pub actions: Vec<SlackAction>,
        pub update_message: bool,
        pub timeout: Option<Span>,
    }
}

section! {
    pub struct SlackField {
        pub title: String,
        pub value: String,
        pub short: Option<bool>,
    }
}

section! {
    pub struct SlackAction {
        pub r#type: String,
        pub text: String,
        pub url: String,
        pub style: String,
        pub name: String,
        pub value: String,
        pub confirm: Option<SlackConfirm>,
    }
}

section! {
    pub struct SlackConfirm {
        pub text: String,
        pub title: String,
        pub ok_text: String,
        pub dismiss_text: String,
    }
}

section! {
    pub struct PagerDuty {
        pub send_resolved: Option<bool>,
        pub resolve_when_muted: Option<bool>,
        pub http_config: Option<HttpConfig>,
        pub routing_key: Option<Secret>,
        pub routing_key_file: Option<PathBuf>,
        pub service_key: Option<Secret>,
        pub service_key_file: Option<PathBuf>,
        pub url: Option<String>,
        pub client: Option<String>,
        pub client_url: Option<String>,
        pub description: Option<String>,
        pub severity: Option<String>,
        pub source: Option<String>,
        pub class: Option<String>,
        pub component: Option<String>,
        pub group: Option<String>,
        pub details: BTreeMap<String, Value>,
        pub images: Vec<PagerDutyImage>,
        pub links: Vec<PagerDutyLink>,
        pub timeout: Option<Span>,
    }
}

section! {
    pub struct PagerDutyImage {
        pub src: String,
        pub alt: String,
        pub href: String,
    }
}

section! {
    pub struct PagerDutyLink {
        pub href: String,
        pub text: String,
    }
}

section! {
    pub struct Webhook {
        pub send_resolved: Option<bool>,
        pub resolve_when_muted: Option<bool>,
        pub http_config: Option<HttpConfig>,
        pub url: Option<Secret>,
        pub url_file: Option<PathBuf>,
        pub max_alerts: u64,
        pub timeout: Option<Span>,
        pub payload: Option<Value>,
    }
}
