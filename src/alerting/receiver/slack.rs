//! Slack: incoming webhooks, and `chat.postMessage` with an app's token.
//!
//! With `update_message` the first message of a group is edited when the group changes; its
//! channel and timestamp are remembered in the notification log.

use serde::{Deserialize, Serialize};

use super::{Failure, Post, Sent, Texts, check, load, shown_body, truncate};
use crate::http_client::Secret;

/// Slack cuts longer titles itself; Alertmanager's limit, in letters.
const TITLE_LETTERS_MAX: usize = 1024;
/// End of the address that posts, and of the one that edits.
const POST_METHOD: &str = "chat.postMessage";
const UPDATE_METHOD: &str = "chat.update";

/// `slack_configs`; all texts are templates.
#[derive(Clone, Debug)]
pub struct Options {
    /// Incoming webhook, or the method's address when there is a token.
    pub url: Secret,
    /// Token of an app.
    pub app_token: Option<Secret>,
    /// Edit the group's message instead of posting another.
    pub update_message: bool,
    /// Channel or user.
    pub channel: String,
    /// Name of the sender.
    pub username: String,
    /// `good`, `warning`, `danger` or `#rrggbb`.
    pub color: String,
    /// Heading.
    pub title: String,
    /// Where the heading leads.
    pub title_link: String,
    /// Above the attachment.
    pub pretext: String,
    /// Body.
    pub text: String,
    /// Text of the message itself, outside the attachment.
    pub message_text: String,
    /// Table.
    pub fields: Vec<Field>,
    /// Below.
    pub footer: String,
    /// For clients that show no attachments.
    pub fallback: String,
    /// Identifies the actions.
    pub callback_id: String,
    /// `:emoji:`
    pub icon_emoji: String,
    /// Icon.
    pub icon_url: String,
    /// Picture.
    pub image_url: String,
    /// Small picture.
    pub thumb_url: String,
    /// Whether names become links.
    pub link_names: bool,
    /// Parts in which markup is shown.
    pub mrkdwn_in: Vec<String>,
    /// Buttons.
    pub actions: Vec<Action>,
}

/// A cell of the table.
#[derive(Clone, Debug)]
pub struct Field {
    /// Heading.
    pub title: String,
    /// Content.
    pub value: String,
    /// Whether two fit side by side.
    pub short: bool,
}

/// A button or menu.
#[derive(Clone, Debug)]
pub struct Action {
    /// `button`
    pub kind: String,
    /// Label.
    pub text: String,
    /// Where it leads; without one it goes to the app.
    pub url: String,
    /// `primary` or `danger`.
    pub style: String,
    /// For the app.
    pub name: String,
    /// For the app.
    pub value: String,
    /// Question before it acts.
    pub confirm: Option<Confirm>,
}

/// A question before an action.
#[derive(Clone, Debug)]
pub struct Confirm {
    /// The question.
    pub text: String,
    /// Heading.
    pub title: String,
    /// Label of yes.
    pub ok_text: String,
    /// Label of no.
    pub dismiss_text: String,
}

#[derive(Serialize)]
struct Message {
    #[serde(skip_serializing_if = "String::is_empty")]
    channel: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ts: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    icon_emoji: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    icon_url: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    link_names: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    text: String,
    attachments: [Attachment; 1],
}

#[derive(Serialize)]
struct Attachment {
    #[serde(skip_serializing_if = "String::is_empty")]
    title: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    title_link: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pretext: String,
    text: String,
    fallback: String,
    callback_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<FieldJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    actions: Vec<ActionJson>,
    #[serde(skip_serializing_if = "String::is_empty")]
    image_url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    thumb_url: String,
    footer: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    color: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mrkdwn_in: Vec<String>,
}

#[derive(Serialize)]
struct FieldJson {
    title: String,
    value: String,
    short: bool,
}

#[derive(Serialize)]
struct ActionJson {
    #[serde(rename = "type")]
    kind: String,
    text: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    style: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm: Option<ConfirmJson>,
}

#[derive(Serialize)]
struct ConfirmJson {
    text: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    title: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ok_text: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    dismiss_text: String,
}

#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    ts: String,
    #[serde(default)]
    channel: String,
}

pub(super) async fn send(options: &Options, texts: &Texts<'_>, post: &Post<'_>) -> Sent {
    let mut url = load(&options.url).await?.trim().to_owned();
    let mut message = message(options, texts);
    let store = &texts.notification.store;
    let editable = options.update_message && url.ends_with(POST_METHOD);
    if editable && let (Some(ts), Some(channel)) = (store.get("threadTs"), store.get("channelId")) {
        let base = url.len() - POST_METHOD.len();
        url.replace_range(base.., UPDATE_METHOD);
        message.ts.clone_from(ts);
        message.channel.clone_from(channel);
    }
    let body = serde_json::to_vec(&message)
        .map_err(|err| Failure::permanent(format!("encode message: {err}")))?;
    let response = post.json(&url, body).await?;
    check(&response, shown_body)?;
    let json = response.header("content-type").starts_with("application/json");
    let refused = |error: &str| Failure {
        reason: if error == "ratelimited" { "rateLimited" } else { "clientError" },
        ..Failure::permanent(format!("error response from Slack: {error}"))
    };
    if !json {
        let body = shown_body(&response.body);
        return if body == "ok" { Ok(store.clone()) } else { Err(refused(&body)) };
    }
    let unreadable = |err: serde_json::Error| Failure {
        retry: true,
        ..Failure::permanent(format!("could not unmarshal JSON response: {err}"))
    };
    let answer: Answer = serde_json::from_slice(&response.body).map_err(unreadable)?;
    if !answer.ok {
        return Err(refused(&answer.error));
    }
    let mut store = store.clone();
    if editable && !answer.ts.is_empty() {
        store.insert("threadTs".to_owned(), answer.ts);
        store.insert("channelId".to_owned(), answer.channel);
    }
    Ok(store)
}

fn message(options: &Options, texts: &Texts<'_>) -> Message {
    let field = |field: &Field| FieldJson {
        title: texts.shown(&field.title),
        value: texts.shown(&field.value),
        short: field.short,
    };
    let attachment = Attachment {
        title: truncate(texts.shown(&options.title), TITLE_LETTERS_MAX),
        title_link: texts.ornament(&options.title_link),
        pretext: texts.shown(&options.pretext),
        text: texts.shown(&options.text),
        fallback: texts.shown(&options.fallback),
        callback_id: texts.ornament(&options.callback_id),
        fields: options.fields.iter().map(field).collect(),
        actions: options.actions.iter().map(|action| self::action(action, texts)).collect(),
        image_url: texts.ornament(&options.image_url),
        thumb_url: texts.ornament(&options.thumb_url),
        footer: texts.shown(&options.footer),
        color: texts.ornament(&options.color),
        mrkdwn_in: options.mrkdwn_in.clone(),
    };
    Message {
        channel: texts.ornament(&options.channel),
        ts: String::new(),
        username: texts.ornament(&options.username),
        icon_emoji: texts.ornament(&options.icon_emoji),
        icon_url: texts.ornament(&options.icon_url),
        link_names: options.link_names,
        text: texts.shown(&options.message_text),
        attachments: [attachment],
    }
}

fn action(action: &Action, texts: &Texts<'_>) -> ActionJson {
    let confirm = action.confirm.as_ref().map(|confirm| ConfirmJson {
        text: texts.shown(&confirm.text),
        title: texts.shown(&confirm.title),
        ok_text: texts.shown(&confirm.ok_text),
        dismiss_text: texts.shown(&confirm.dismiss_text),
    });
    ActionJson {
        kind: texts.ornament(&action.kind),
        text: texts.shown(&action.text),
        url: texts.ornament(&action.url),
        style: texts.ornament(&action.style),
        name: texts.ornament(&action.name),
        value: texts.ornament(&action.value),
        confirm,
    }
}
