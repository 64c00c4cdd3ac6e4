//! Templates of notifications: Alertmanager's data, functions and default texts.

use std::sync::{Arc, LazyLock};

use super::functions::with_builtins;
use super::html::{self, escape::ESCAPERS};
use super::notification_functions::OWN;
use super::text_functions::{SHARED, any, strings_of, text};
use super::time_layout::Time;
use super::value::{Function, GoType, Type, Value};
use super::{Context, Functions, TemplateError, TemplateSet};
use crate::model::labels::{ALERT_NAME, Labels};

/// What a notification is made of: `.` in its templates.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// `.Receiver`
    pub receiver: String,
    /// `.Status`: `firing` or `resolved`
    pub status: String,
    /// `.Alerts`
    pub alerts: Vec<AlertData>,
    /// `.NotificationReason`
    pub notification_reason: String,
    /// `.GroupLabels`
    pub group_labels: Labels,
    /// `.CommonLabels`
    pub common_labels: Labels,
    /// `.CommonAnnotations`
    pub common_annotations: Labels,
    /// `.RouteLabels`
    pub route_labels: Labels,
    /// `.ExternalURL`
    pub external_url: String,
}

/// One alert of [`Data`].
#[derive(Clone, Debug, PartialEq)]
pub struct AlertData {
    /// `.Status`: `firing` or `resolved`
    pub status: String,
    /// `.Labels`
    pub labels: Labels,
    /// `.Annotations`
    pub annotations: Labels,
    /// `.StartsAt` in milliseconds since 1970
    pub starts_at_ms: i64,
    /// `.EndsAt` in milliseconds since 1970; `None` (firing) prints Go's zero time
    pub ends_at_ms: Option<i64>,
    /// `.GeneratorURL`
    pub generator_url: String,
    /// `.Fingerprint`, 16 hexadecimal digits
    pub fingerprint: String,
}

/// A list of strings with a method to join it.
static STRINGS: GoType = GoType {
    strings: true,
    methods: &[(
        "Join",
        Function::fixed(&[Type::Str], |_, args| {
            Ok(Value::text(strings_of(any(args, 0)).join(text(args, 1))))
        }),
    )],
    ..GoType::plain("template.StringSlice")
};

static PAIR: GoType =
    GoType { fields: &[("Name", "Name"), ("Value", "Value")], ..GoType::plain("template.Pair") };

static PAIRS: GoType = GoType {
    text: Some(pairs_text),
    methods: &[
        ("Names", Function::fixed(&[], |_, args| Ok(column(any(args, 0), 0)))),
        ("String", Function::fixed(&[], |_, args| Ok(Value::text(pairs_text(any(args, 0)))))),
        ("Values", Function::fixed(&[], |_, args| Ok(column(any(args, 0), 1)))),
    ],
    ..GoType::plain("template.Pairs")
};

/// Labels and annotations.
pub(super) static KV: GoType = GoType {
    strings: true,
    text: Some(|own| pairs_text(&sorted_pairs(own))),
    methods: &[
        ("Names", Function::fixed(&[], |_, args| Ok(column(&sorted_pairs(any(args, 0)), 0)))),
        ("Remove", Function::fixed(&[Type::Strings], remove)),
        ("SortedPairs", Function::fixed(&[], |_, args| Ok(sorted_pairs(any(args, 0))))),
        (
            "String",
            Function::fixed(&[], |_, args| {
                Ok(Value::text(pairs_text(&sorted_pairs(any(args, 0)))))
            }),
        ),
        ("Values", Function::fixed(&[], |_, args| Ok(column(&sorted_pairs(any(args, 0)), 1)))),
    ],
    ..GoType::plain("template.KV")
};

static ALERT: GoType = GoType {
    fields: &[
        ("Status", "status"),
        ("Labels", "labels"),
        ("Annotations", "annotations"),
        ("StartsAt", "startsAt"),
        ("EndsAt", "endsAt"),
        ("GeneratorURL", "generatorURL"),
        ("Fingerprint", "fingerprint"),
    ],
    ..GoType::plain("template.Alert")
};

static ALERT_LIST: GoType = GoType::plain("[]template.Alert");

static ALERTS: GoType = GoType {
    methods: &[
        ("Firing", Function::fixed(&[], |_, args| Ok(with_status(any(args, 0), "firing")))),
        ("Resolved", Function::fixed(&[], |_, args| Ok(with_status(any(args, 0), "resolved")))),
    ],
    ..GoType::plain("template.Alerts")
};

static DATA: GoType = GoType {
    fields: &[
        ("Receiver", "receiver"),
        ("Status", "status"),
        ("Alerts", "alerts"),
        ("NotificationReason", "notificationReason"),
        ("GroupLabels", "groupLabels"),
        ("CommonLabels", "commonLabels"),
        ("CommonAnnotations", "commonAnnotations"),
        ("RouteLabels", "routeLabels"),
        ("ExternalURL", "externalURL"),
    ],
    pointer: true,
    ..GoType::plain("template.Data")
};

/// The pairs of a KV: the alert's name first, then in order of names.
fn sorted_pairs(own: &Value) -> Value {
    let Value::Map(map) = own else { return Value::list(&PAIRS, []) };
    let pair = |(name, value): (&Arc<str>, &Value)| {
        Value::new_struct(&PAIR, [Value::Str(Arc::clone(name)), value.clone()])
    };
    let alert_name = map.entries.get_key_value(ALERT_NAME);
    let others = map.entries.iter().filter(|(name, _)| &***name != ALERT_NAME);
    Value::list(&PAIRS, alert_name.into_iter().chain(others).map(pair))
}

/// The names (0) or the values (1) of pairs.
fn column(pairs: &Value, index: usize) -> Value {
    let Value::List(list) = pairs else { return Value::list(&STRINGS, []) };
    let cell = |pair: &Value| match pair {
        Value::Struct(pair) => any(&pair.values, index).clone(),
        _ => Value::text(""),
    };
    Value::list(&STRINGS, list.items.iter().map(cell))
}

/// `a=b, c=d`
fn pairs_text(pairs: &Value) -> String {
    let (names, values) = (strings_of(&column(pairs, 0)), strings_of(&column(pairs, 1)));
    let texts = names.iter().zip(&values).map(|(name, value)| format!("{name}={value}"));
    texts.collect::<Vec<_>>().join(", ")
}

/// A KV without the entries of these names.
fn remove(_: &Context<'_>, args: &[Value]) -> Result<Value, String> {
    let Value::Map(map) = any(args, 0) else { return Ok(Value::Nil) };
    let names = strings_of(any(args, 1));
    let kept = map.entries.iter().filter(|(name, _)| !names.contains(name));
    Ok(Value::map(&KV, kept.map(|(name, value)| (Arc::clone(name), value.clone()))))
}

fn with_status(alerts: &Value, status: &str) -> Value {
    let Value::List(list) = alerts else { return Value::list(&ALERT_LIST, []) };
    let has_status = |alert: &&Value| match alert {
        Value::Struct(alert) => alert.field("Status").and_then(Value::as_str) == Some(status),
        _ => false,
    };
    Value::list(&ALERT_LIST, list.items.iter().filter(has_status).cloned())
}

impl Data {
    /// As templates see it.
    pub fn to_value(&self) -> Value {
        let labels = |labels: &Labels| Value::labels(&KV, labels);
        Value::new_struct(
            &DATA,
            [
                Value::text(&self.receiver),
                Value::text(&self.status),
                Value::list(&ALERTS, self.alerts.iter().map(AlertData::to_value)),
                Value::text(&self.notification_reason),
                labels(&self.group_labels),
                labels(&self.common_labels),
                labels(&self.common_annotations),
                labels(&self.route_labels),
                Value::text(&self.external_url),
            ],
        )
    }
}

impl AlertData {
    fn to_value(&self) -> Value {
        Value::new_struct(
            &ALERT,
            [
                Value::text(&self.status),
                Value::labels(&KV, &self.labels),
                Value::labels(&KV, &self.annotations),
                Value::Time(Time::from_ms(self.starts_at_ms)),
                Value::Time(self.ends_at_ms.map_or_else(Time::zero, Time::from_ms)),
                Value::text(&self.generator_url),
                Value::text(&self.fingerprint),
            ],
        )
    }
}

static FUNCTIONS: LazyLock<Arc<Functions>> =
    LazyLock::new(|| Arc::new(with_builtins(&[SHARED, OWN, ESCAPERS])));

static BUILTIN: LazyLock<TemplateSet> = LazyLock::new(|| {
    let mut set = TemplateSet::new(Arc::clone(&FUNCTIONS));
    set.parse("", include_str!("default.tmpl")).expect("the default templates parse");
    set
});

/// The default templates and those of the configured files, in one namespace.
#[derive(Clone, Debug)]
pub struct Templates {
    set: TemplateSet,
}

/// Name of the template that a text of the configuration becomes.
const INLINE: &str = "";

impl Templates {
    /// The default templates.
    pub fn builtin() -> Self {
        Self { set: BUILTIN.clone() }
    }

    /// Adds a template file under the last part of its path; its definitions replace those of the
    /// same names.
    ///
    /// # Errors
    /// The file does not parse.
    pub fn add_file(&mut self, name: &str, text: &str) -> Result<(), TemplateError> {
        self.set.parse(name, text)
    }

    /// Checks the syntax of a text of the configuration.
    ///
    /// # Errors
    /// The text does not parse.
    pub fn check(&self, text: &str) -> Result<(), TemplateError> {
        self.with_inline(text).map(drop)
    }

    /// Expands a text of the configuration as plain text.
    ///
    /// # Errors
    /// The text does not parse, or its execution fails.
    pub fn expand_text(
        &self,
        text: &str,
        data: &Data,
        now_ms: i64,
    ) -> Result<String, TemplateError> {
        let (out, done) = self.expand_partly(text, data, now_ms);
        done.map(|()| out)
    }

    /// Like [`Self::expand_text`], but also returns what was written before an error.
    pub fn expand_partly(
        &self,
        text: &str,
        data: &Data,
        now_ms: i64,
    ) -> (String, Result<(), TemplateError>) {
        self.expand(text, data, now_ms, Ok)
    }

    /// Expands a text of the configuration as HTML: values are escaped by where they stand.
    ///
    /// # Errors
    /// The text does not parse, its tags do not fit together, or its execution fails.
    pub fn expand_html(
        &self,
        text: &str,
        data: &Data,
        now_ms: i64,
    ) -> Result<String, TemplateError> {
        let (out, done) = self.expand_html_partly(text, data, now_ms);
        done.map(|()| out)
    }

    /// Like [`Self::expand_html`], but also returns what was written before an error.
    pub fn expand_html_partly(
        &self,
        text: &str,
        data: &Data,
        now_ms: i64,
    ) -> (String, Result<(), TemplateError>) {
        self.expand(text, data, now_ms, |set| html::escaped(&set, INLINE))
    }

    /// Executes a text that `prepare` has seen to, and returns also what was written before an error.
    fn expand(
        &self,
        text: &str,
        data: &Data,
        now_ms: i64,
        prepare: impl FnOnce(TemplateSet) -> Result<TemplateSet, TemplateError>,
    ) -> (String, Result<(), TemplateError>) {
        if !text.contains("{{") {
            return (text.to_owned(), Ok(()));
        }
        match self.with_inline(text).and_then(prepare) {
            Ok(set) => set.execute(INLINE, &data.to_value(), &context(data, now_ms)),
            Err(err) => (String::new(), Err(err)),
        }
    }

    fn with_inline(&self, text: &str) -> Result<TemplateSet, TemplateError> {
        let mut set = self.set.clone();
        set.trees.remove(INLINE);
        set.parse(INLINE, text)?;
        Ok(set)
    }
}

fn context(data: &Data, now_ms: i64) -> Context<'_> {
    Context {
        now_ms,
        query: None,
        external_url: &data.external_url,
        route_labels: Some(&data.route_labels),
    }
}
