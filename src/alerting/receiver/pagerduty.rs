//! PagerDuty: Events API v2, and v1 for those who still have a service key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Failure, Post, Sent, Texts, check, load, shown_body, truncate};
use crate::http_client::Secret;
use crate::model::digest::sha256_hex;

/// PagerDuty's limit for the summary, in letters.
const SUMMARY_LETTERS_MAX: usize = 1024;
/// PagerDuty refuses longer events.
const EVENT_BYTES_MAX: usize = 512_000;
/// Where events of version 1 go.
const V1_URL: &str = "https://events.pagerduty.com/generic/2010-04-15/create_event.json";

/// `pagerduty_configs`; all texts are templates.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which service is paged.
    pub key: Key,
    /// Where events of version 2 go.
    pub url: String,
    /// Who sends.
    pub client: String,
    /// Link to who sends.
    pub client_url: String,
    /// What happened.
    pub description: String,
    /// `critical`, `error`, `warning` or `info`.
    pub severity: String,
    /// Where it happened.
    pub source: String,
    /// Kind of event.
    pub class: String,
    /// Part of the source.
    pub component: String,
    /// Cluster of components.
    pub group: String,
    /// More about it, defaults already merged in.
    pub details: Map<String, Value>,
    /// Pictures.
    pub images: Vec<Image>,
    /// Links.
    pub links: Vec<Link>,
}

/// Which service is paged, and by which version of the API.
#[derive(Clone, Debug)]
pub enum Key {
    /// Integration key of version 2.
    Routing(Secret),
    /// Integration key of version 1.
    Service(Secret),
}

/// A picture; without `src` it is left out.
#[derive(Clone, Debug, Serialize)]
pub struct Image {
    /// Address of the picture.
    pub src: String,
    /// What it shows.
    pub alt: String,
    /// Where a click leads.
    pub href: String,
}

/// A link; without `href` it is left out.
#[derive(Clone, Debug, Serialize)]
pub struct Link {
    /// Where it leads.
    pub href: String,
    /// Its text.
    pub text: String,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are PagerDuty's")]
struct Event {
    routing_key: String,
    dedup_key: String,
    event_action: &'static str,
    payload: Payload,
    #[serde(skip_serializing_if = "String::is_empty")]
    client: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    client_url: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<Image>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<Link>,
}

#[derive(Serialize)]
struct Payload {
    summary: String,
    source: String,
    severity: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    class: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    component: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    custom_details: Map<String, Value>,
}

#[derive(Serialize)]
struct EventV1 {
    service_key: String,
    event_type: &'static str,
    incident_key: String,
    description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    client: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    client_url: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    details: Map<String, Value>,
}

/// What PagerDuty says about an event it refuses.
#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<String>,
}

fn refusal(body: &[u8]) -> String {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) if !refusal.message.is_empty() => {
            format!("{}: {}", refusal.message, refusal.errors.join(","))
        }
        _ => shown_body(body),
    }
}

pub(super) async fn send(options: &Options, texts: &Texts<'_>, post: &Post<'_>) -> Sent {
    let firing = texts.data().status == "firing";
    let action = if firing { "trigger" } else { "resolve" };
    let Value::Object(details) = texts.tree(&Value::Object(options.details.clone())) else {
        return Err(Failure::permanent("details are no map"));
    };
    let summary = truncate(texts.shown(&options.description), SUMMARY_LETTERS_MAX);
    let dedup_key = sha256_hex(&texts.notification.group_key);
    let (client, client_url) =
        (texts.ornament(&options.client), texts.ornament(&options.client_url));
    let (url, body) = match &options.key {
        Key::Routing(key) => {
            let event = Event {
                routing_key: texts.exact(&load(key).await?)?,
                dedup_key,
                event_action: action,
                payload: payload(options, texts, summary, details),
                client,
                client_url,
                images: images(options, texts),
                links: links(options, texts),
            };
            (options.url.as_str(), encode_v2(event))
        }
        Key::Service(key) => {
            let event = EventV1 {
                service_key: texts.exact(&load(key).await?)?,
                event_type: action,
                incident_key: dedup_key,
                description: summary,
                client: if firing { client } else { String::new() },
                client_url: if firing { client_url } else { String::new() },
                details,
            };
            (V1_URL, serde_json::to_vec(&event).unwrap_or_default())
        }
    };
    let response = post.json(url, body).await?;
    check(&response, refusal)?;
    Ok(BTreeMap::new())
}

fn payload(
    options: &Options,
    texts: &Texts<'_>,
    summary: String,
    custom_details: Map<String, Value>,
) -> Payload {
    let severity = texts.ornament(&options.severity);
    Payload {
        summary,
        source: texts.ornament(&options.source),
        // An event without a severity is refused: a broken template must not cost the page.
        severity: if severity.is_empty() { "error".to_owned() } else { severity },
        class: texts.ornament(&options.class),
        component: texts.ornament(&options.component),
        group: texts.ornament(&options.group),
        custom_details,
    }
}

fn images(options: &Options, texts: &Texts<'_>) -> Vec<Image> {
    let rendered = options.images.iter().map(|image| Image {
        src: texts.ornament(&image.src),
        alt: texts.ornament(&image.alt),
        href: texts.ornament(&image.href),
    });
    rendered.filter(|image| !image.src.is_empty()).collect()
}

fn links(options: &Options, texts: &Texts<'_>) -> Vec<Link> {
    let rendered = options
        .links
        .iter()
        .map(|link| Link { href: texts.ornament(&link.href), text: texts.ornament(&link.text) });
    rendered.filter(|link| !link.href.is_empty()).collect()
}

/// An event that is too long is sent without its details.
fn encode_v2(mut event: Event) -> Vec<u8> {
    let body = serde_json::to_vec(&event).unwrap_or_default();
    if body.len() <= EVENT_BYTES_MAX {
        return body;
    }
    let text = "Custom details have been removed because the original event exceeds the maximum size of 512KB";
    event.payload.custom_details =
        Map::from_iter([("error".to_owned(), Value::String(text.to_owned()))]);
    serde_json::to_vec(&event).unwrap_or_default()
}
