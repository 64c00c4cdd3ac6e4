//! `receivers`: defaults, the rules between fields, and what they become.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::schema;
use crate::alerting::receiver::{
    IntegrationOptions, ReceiverOptions, Settings, pagerduty, slack, webhook,
};
use crate::config::http::{HttpConfig, resolve};
use crate::config::yaml::{Secret, Span};
use crate::http_client;
use crate::model::labels::{Labels, quote};

const SLACK_APP_URL: &str = "https://slack.com/api/chat.postMessage";
const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";
const SLACK_COLOR: &str = r#"{{ if eq .Status "firing" }}danger{{ else }}good{{ end }}"#;
/// Details of every PagerDuty event unless they are set otherwise.
const PAGERDUTY_DETAILS: [(&str, &str); 4] = [
    ("firing", "{{ .Alerts.Firing | toJson }}"),
    ("resolved", "{{ .Alerts.Resolved | toJson }}"),
    ("num_firing", "{{ .Alerts.Firing | len }}"),
    ("num_resolved", "{{ .Alerts.Resolved | len }}"),
];

/// What receivers inherit.
pub(super) struct Context<'a> {
    pub global: &'a schema::Global,
    /// Folder of the configuration: relative paths start there.
    pub base: &'a Path,
}

/// A URL that messages can be posted to; the errors are Go's and Alertmanager's.
fn check_url(text: &str) -> Result<(), String> {
    if text.contains("{{") {
        return Ok(()); // known only when a message is rendered
    }
    match Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            Err(format!("unsupported scheme {} for URL", quote(url.scheme())))
        }
        Ok(url) if url.host_str().is_none_or(str::is_empty) => {
            Err("missing host for URL".to_owned())
        }
        Ok(_) => Ok(()),
        Err(url::ParseError::RelativeUrlWithoutBase) => {
            Err(format!("unsupported scheme {} for URL", quote("")))
        }
        Err(url::ParseError::EmptyHost) => Err("missing host for URL".to_owned()),
        Err(err) => Err(format!("invalid URL: {err}")),
    }
}

impl Context<'_> {
    /// A value or the file that holds it; an error when both are set.
    fn secret(
        &self,
        (name, value): (&str, Option<&Secret>),
        file: Option<&PathBuf>,
    ) -> Result<Option<http_client::Secret>, String> {
        let value = value.filter(|value| !value.is_empty());
        match (value, file) {
            (Some(_), Some(_)) => {
                Err(format!("at most one of {name} & {name}_file must be configured"))
            }
            (Some(value), None) => Ok(Some(http_client::Secret::Inline(value.expose().to_owned()))),
            (None, Some(file)) => Ok(Some(http_client::Secret::File(resolve(self.base, file)))),
            (None, None) => Ok(None),
        }
    }

    /// A secret whose inline form must be a URL.
    fn secret_url(
        &self,
        named: (&str, Option<&Secret>),
        file: Option<&PathBuf>,
    ) -> Result<Option<http_client::Secret>, String> {
        let found = self.secret(named, file)?;
        if let Some(http_client::Secret::Inline(text)) = &found {
            check_url(text)?;
        }
        Ok(found)
    }

    /// The receiver's own settings replace the global ones as a whole.
    fn http(&self, own: Option<&HttpConfig>) -> Result<http_client::Options, String> {
        match own.or(self.global.http_config.as_ref()) {
            Some(config) => config.to_options(self.base),
            None => HttpConfig::default().to_options(self.base),
        }
    }

    /// Rules between the global fields.
    pub(super) fn check_global(&self) -> Result<(), String> {
        let global = self.global;
        let url = global.slack_api_url.as_ref();
        self.secret_url(("slack_api_url", url), global.slack_api_url_file.as_ref())?;
        let token = global.slack_app_token.as_ref();
        let token =
            self.secret(("slack_app_token", token), global.slack_app_token_file.as_ref())?;
        let app_url = global.slack_app_url.as_deref().unwrap_or(SLACK_APP_URL);
        if token.is_some() && url.is_some_and(|url| url.expose() != app_url) {
            let text = "slack_api_url and slack_app_token cannot both be configured unless \
                        slack_api_url is slack_app_url";
            return Err(text.to_owned());
        }
        for url in [&global.slack_app_url, &global.pagerduty_url].into_iter().flatten() {
            check_url(url)?;
        }
        let pairs = [
            ("opsgenie_api_key", &global.opsgenie_api_key, &global.opsgenie_api_key_file),
            ("victorops_api_key", &global.victorops_api_key, &global.victorops_api_key_file),
            ("smtp_auth_password", &global.smtp_auth_password, &global.smtp_auth_password_file),
            ("smtp_auth_secret", &global.smtp_auth_secret, &global.smtp_auth_secret_file),
            ("rocketchat_token", &global.rocketchat_token, &global.rocketchat_token_file),
            ("rocketchat_token_id", &global.rocketchat_token_id, &global.rocketchat_token_id_file),
        ];
        for (name, value, file) in pairs {
            self.secret((name, value.as_ref()), file.as_ref())?;
        }
        self.http(None).map(|_| ())
    }

    /// A whole receiver.
    pub(super) fn receiver(&self, written: &schema::Receiver) -> Result<ReceiverOptions, String> {
        let slack = written.slack_configs.iter().map(|config| self.slack(config));
        let pagerduty = written.pagerduty_configs.iter().map(|config| self.pagerduty(config));
        let webhook = written.webhook_configs.iter().map(|config| self.webhook(config));
        Ok(ReceiverOptions {
            name: written.name.clone(),
            labels: Labels::from_pairs(written.labels.iter()),
            integrations: slack.chain(pagerduty).chain(webhook).collect::<Result<_, _>>()?,
        })
    }

    fn slack(&self, written: &schema::Slack) -> Result<IntegrationOptions, String> {
        let global = self.global;
        let mut http = self.http(written.http_config.as_ref())?;
        let own_url =
            self.secret_url(("api_url", written.api_url.as_ref()), written.api_url_file.as_ref())?;
        let mut token = self
            .secret(("app_token", written.app_token.as_ref()), written.app_token_file.as_ref())?;
        let own_authorization =
            written.http_config.as_ref().is_some_and(|http| http.authorization.is_some());
        if token.is_none() && !own_authorization && own_url.is_none() {
            let named = ("slack_app_token", global.slack_app_token.as_ref());
            token = self.secret(named, global.slack_app_token_file.as_ref())?;
        }
        let global_url = || {
            let named = ("slack_api_url", global.slack_api_url.as_ref());
            self.secret_url(named, global.slack_api_url_file.as_ref())
        };
        let url = match (&token, own_url) {
            (Some(_), _) => {
                if own_authorization {
                    let text = "http authorization can't be set when using Slack App tokens";
                    return Err(text.to_owned());
                }
                http.authorization = None;
                let app_url = written.app_url.as_ref().or(global.slack_app_url.as_ref());
                let app_url = app_url.map_or(SLACK_APP_URL, String::as_str);
                check_url(app_url)?;
                http_client::Secret::Inline(app_url.to_owned())
            }
            (None, Some(url)) => url,
            (None, None) => global_url()?.ok_or_else(|| {
                "no Slack API URL nor App token set either inline or in a file".to_owned()
            })?,
        };
        Ok(IntegrationOptions {
            send_resolved: written.send_resolved.unwrap_or(false),
            resolve_when_muted: written.resolve_when_muted.unwrap_or(written.update_message),
            http,
            timeout: timeout(written.timeout),
            settings: Settings::Slack(Box::new(slack_options(written, url, token)?)),
        })
    }

    fn pagerduty(&self, written: &schema::PagerDuty) -> Result<IntegrationOptions, String> {
        let routing = (written.routing_key.as_ref(), written.routing_key_file.as_ref());
        let service = (written.service_key.as_ref(), written.service_key_file.as_ref());
        let routing = self.secret(("routing_key", routing.0), routing.1)?;
        let service = self.secret(("service_key", service.0), service.1)?;
        let key = match (routing, service) {
            (Some(key), _) => pagerduty::Key::Routing(key),
            (None, Some(key)) => pagerduty::Key::Service(key),
            (None, None) => {
                return Err("missing service or routing key in PagerDuty config".to_owned());
            }
        };
        let url = written.url.as_ref().or(self.global.pagerduty_url.as_ref());
        let url = url.map_or(PAGERDUTY_URL, String::as_str);
        check_url(url)?;
        let mut details: serde_json::Map<_, _> = PAGERDUTY_DETAILS
            .map(|(key, value)| (key.to_owned(), Value::from(value)))
            .into_iter()
            .collect();
        details.extend(written.details.clone());
        let client = template(written.client.as_ref(), "pagerduty.default.client");
        let text =
            |own: &Option<String>, default: &str| own.clone().unwrap_or_else(|| default.to_owned());
        let settings = pagerduty::Options {
            key,
            url: url.to_owned(),
            client_url: template(written.client_url.as_ref(), "pagerduty.default.clientURL"),
            description: template(written.description.as_ref(), "pagerduty.default.description"),
            severity: text(&written.severity, "error"),
            source: text(&written.source, &client),
            client,
            class: text(&written.class, ""),
            component: text(&written.component, ""),
            group: text(&written.group, ""),
            details,
            images: written.images.iter().map(image).collect(),
            links: written.links.iter().map(link).collect(),
        };
        Ok(IntegrationOptions {
            send_resolved: written.send_resolved.unwrap_or(true),
            resolve_when_muted: written.resolve_when_muted.unwrap_or(true),
            http: self.http(written.http_config.as_ref())?,
            timeout: timeout(written.timeout),
            settings: Settings::PagerDuty(Box::new(settings)),
        })
    }

    fn webhook(&self, written: &schema::Webhook) -> Result<IntegrationOptions, String> {
        let url = self.secret_url(("url", written.url.as_ref()), written.url_file.as_ref())?;
        let url = url.ok_or_else(|| "one of url or url_file must be configured".to_owned())?;
        let alerts_max = usize::try_from(written.max_alerts).unwrap_or(usize::MAX);
        let payload = written.payload.clone();
        let settings = webhook::Options { url, alerts_max, payload };
        Ok(IntegrationOptions {
            send_resolved: written.send_resolved.unwrap_or(true),
            resolve_when_muted: written.resolve_when_muted.unwrap_or(false),
            http: self.http(written.http_config.as_ref())?,
            timeout: timeout(written.timeout),
            settings: Settings::Webhook(Box::new(settings)),
        })
    }
}

/// Zero means no limit of its own.
fn timeout(written: Option<Span>) -> Option<Duration> {
    written.filter(|span| !span.is_zero()).map(|span| span.0)
}

/// The text, or a call of a default template.
fn template(own: Option<&String>, name: &str) -> String {
    own.cloned().unwrap_or_else(|| format!("{{{{ template \"{name}\" . }}}}"))
}

fn image(written: &schema::PagerDutyImage) -> pagerduty::Image {
    pagerduty::Image {
        src: written.src.clone(),
        alt: written.alt.clone(),
        href: written.href.clone(),
    }
}

fn link(written: &schema::PagerDutyLink) -> pagerduty::Link {
    pagerduty::Link { href: written.href.clone(), text: written.text.clone() }
}

fn slack_options(
    written: &schema::Slack,
    url: http_client::Secret,
    app_token: Option<http_client::Secret>,
) -> Result<slack::Options, String> {
    let text = |own: &Option<String>, name| template(own.as_ref(), name);
    let plain = |own: &Option<String>| own.clone().unwrap_or_default();
    let default_mrkdwn_in = || ["fallback", "pretext", "text"].map(str::to_owned).to_vec();
    let field = |field: &schema::SlackField| slack_field(field, written.short_fields);
    Ok(slack::Options {
        url,
        app_token,
        update_message: written.update_message,
        channel: plain(&written.channel),
        username: text(&written.username, "slack.default.username"),
        color: written.color.clone().unwrap_or_else(|| SLACK_COLOR.to_owned()),
        title: text(&written.title, "slack.default.title"),
        title_link: text(&written.title_link, "slack.default.titlelink"),
        pretext: text(&written.pretext, "slack.default.pretext"),
        text: text(&written.text, "slack.default.text"),
        message_text: plain(&written.message_text),
        fields: written.fields.iter().map(field).collect::<Result<_, _>>()?,
        footer: text(&written.footer, "slack.default.footer"),
        fallback: text(&written.fallback, "slack.default.fallback"),
        callback_id: text(&written.callback_id, "slack.default.callbackid"),
        icon_emoji: text(&written.icon_emoji, "slack.default.iconemoji"),
        icon_url: text(&written.icon_url, "slack.default.iconurl"),
        image_url: plain(&written.image_url),
        thumb_url: plain(&written.thumb_url),
        link_names: written.link_names,
        mrkdwn_in: written.mrkdwn_in.clone().unwrap_or_else(default_mrkdwn_in),
        actions: written.actions.iter().map(slack_action).collect::<Result<_, _>>()?,
    })
}

fn slack_field(written: &schema::SlackField, short: bool) -> Result<slack::Field, String> {
    if written.title.is_empty() {
        return Err("missing title in Slack field configuration".to_owned());
    }
    if written.value.is_empty() {
        return Err("missing value in Slack field configuration".to_owned());
    }
    Ok(slack::Field {
        title: written.title.clone(),
        value: written.value.clone(),
        short: written.short.unwrap_or(short),
    })
}

fn slack_action(written: &schema::SlackAction) -> Result<slack::Action, String> {
    let missing = |what: &str| Err(format!("missing {what} in Slack action configuration"));
    if written.r#type.is_empty() {
        return missing("type");
    }
    if written.text.is_empty() {
        return missing("text");
    }
    let link = !written.url.is_empty();
    if !link && written.name.is_empty() {
        return missing("name or url");
    }
    if written.confirm.as_ref().is_some_and(|confirm| confirm.text.is_empty()) {
        return Err("missing text in Slack confirmation configuration".to_owned());
    }
    let confirm = |confirm: &schema::SlackConfirm| slack::Confirm {
        text: confirm.text.clone(),
        title: confirm.title.clone(),
        ok_text: confirm.ok_text.clone(),
        dismiss_text: confirm.dismiss_text.clone(),
    };
    // A link leads somewhere: it has nothing for the app.
    let for_app = |text: &String| if link { String::new() } else { text.clone() };
    Ok(slack::Action {
        kind: written.r#type.clone(),
        text: written.text.clone(),
        url: written.url.clone(),
        style: written.style.clone(),
        name: for_app(&written.name),
        value: for_app(&written.value),
        confirm: written.confirm.as_ref().filter(|_| !link).map(confirm),
    })
}
