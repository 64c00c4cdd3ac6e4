//! Templates of alerting rules: labels and annotations with `$labels`, `$value` and queries.

use std::sync::{Arc, LazyLock};

use super::functions::{escape_query, with_builtins};
use super::text_functions::{SHARED, any, number, seconds_to_time, text};
use super::value::{ANY_MAP, Function, GoType, STRING_MAP, Type, Value};
use super::{Context, Functions, TemplateSet};
use crate::model::histogram::Histogram;
use crate::model::labels::Labels;

/// What an alert's labels and annotations are expanded with.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertTemplateData {
    /// Labels of the alert's series: `$labels`.
    pub labels: Labels,
    /// Labels of this server: `$externalLabels`.
    pub external_labels: Labels,
    /// Address of this server for people: `$externalURL`.
    pub external_url: String,
    /// Value of the series: `$value`.
    pub value: f64,
    /// The value instead, if it is one.
    pub histogram: Option<Arc<Histogram>>,
}

/// One series of the answer to `{{ query "…" }}`.
#[derive(Clone, Debug, PartialEq)]
pub struct QuerySample {
    /// Its labels, with the metric name.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
    /// The value instead, if it is one.
    pub histogram: Option<Arc<Histogram>>,
}

/// A histogram is shown as a text.
fn value_of(value: f64, histogram: Option<&Histogram>) -> Value {
    histogram.map_or(Value::Float(value), |histogram| Value::text(histogram.to_string()))
}

/// Answers `{{ query "…" }}`: the expression and the evaluation time in milliseconds.
pub type QueryFn<'a> = dyn Fn(&str, i64) -> Result<Vec<QuerySample>, String> + 'a;

/// Makes the variables that texts may use.
const PRELUDE: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}\
     {{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// `.` of the templates.
static DATA: GoType = GoType {
    fields: &[
        ("Labels", "Labels"),
        ("ExternalLabels", "ExternalLabels"),
        ("ExternalURL", "ExternalURL"),
        ("Value", "Value"),
    ],
    ..GoType::plain(
        "struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; Value interface {} }",
    )
};

static SAMPLE: GoType = GoType {
    fields: &[("Labels", "Labels"), ("Value", "Value")],
    pointer: true,
    ..GoType::plain("template.sample")
};

static RESULT: GoType = GoType::plain("template.queryResult");

static FUNCTIONS: LazyLock<Arc<Functions>> =
    LazyLock::new(|| Arc::new(with_builtins(&[SHARED, OWN])));

/// Expands one label or annotation of an alert. `name` is the template's name in error texts,
/// `__alert_` and the rule's name; `now_ms` is the evaluation time.
///
/// # Errors
/// Prometheus' text, to be shown as `<error expanding template: …>`.
pub fn expand_alert_text(
    name: &str,
    text: &str,
    data: &AlertTemplateData,
    now_ms: i64,
    query: &QueryFn<'_>,
) -> Result<String, String> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let set = parse(name, text).map_err(|err| format!("error parsing template {name}: {err}"))?;
    let labels = |labels: &Labels| Value::labels(&STRING_MAP, labels);
    let root = Value::new_struct(
        &DATA,
        [
            labels(&data.labels),
            labels(&data.external_labels),
            Value::text(&data.external_url),
            value_of(data.value, data.histogram.as_deref()),
        ],
    );
    let ctx = Context {
        now_ms,
        query: Some(query),
        external_url: &data.external_url,
        route_labels: None,
    };
    let (out, done) = set.execute(name, &root, &ctx);
    match done {
        Ok(()) => Ok(out),
        Err(err) => Err(format!("error executing template {name}: {err}")),
    }
}

/// The functions that texts of rules may use beside Go's own.
pub fn own_function_names() -> impl Iterator<Item = &'static str> {
    [SHARED, OWN].into_iter().flatten().map(|(name, _)| *name)
}

/// Checks the syntax of a label or annotation; `name` as in [`expand_alert_text`].
///
/// # Errors
/// Go's text with the line.
pub fn check_alert_text(name: &str, text: &str) -> Result<(), String> {
    parse(name, text).map(drop)
}

fn parse(name: &str, text: &str) -> Result<TemplateSet, String> {
    let mut set = TemplateSet::new(Arc::clone(&FUNCTIONS));
    set.parse(name, &format!("{PRELUDE}{text}")).map_err(|err| err.message)?;
    Ok(set)
}

/// A function of one text.
macro_rules! of_text {
    ($function:expr) => {
        Function::fixed(&[Type::Str], |_, args| Ok(Value::text($function(text(args, 0)))))
    };
}

/// The functions that only rules have.
static OWN: &[(&str, Function)] = &[
    (
        "args",
        Function::variadic(&[], Type::Any, |_, args| {
            let named =
                |(index, value): (usize, &Value)| (format!("arg{index}").into(), value.clone());
            Ok(Value::map(&ANY_MAP, args.iter().enumerate().map(named)))
        }),
    ),
    ("externalURL", Function::fixed(&[], |ctx, _| Ok(Value::text(ctx.external_url)))),
    (
        "first",
        Function::fixed(&[Type::Named(&RESULT)], |_, args| match args.first() {
            Some(Value::List(list)) if !list.items.is_empty() => Ok(any(&list.items, 0).clone()),
            _ => Err("first() called on vector with no elements".to_owned()),
        }),
    ),
    ("graphLink", of_text!(|expr| format!("/graph?g0.expr={}&g0.tab=0", escape_query(expr)))),
    (
        "label",
        Function::fixed(&[Type::Str, Type::Named(&SAMPLE)], |_, args| {
            Ok(Value::text(label(any(args, 1), text(args, 0))))
        }),
    ),
    ("now", Function::fixed(&[], |ctx, _| Ok(Value::Float(ctx.now_ms as f64 / 1000.0)))),
    (
        "pathPrefix",
        Function::fixed(&[], |ctx, _| {
            let path = url::Url::parse(ctx.external_url).map(|url| url.path().to_owned());
            // A URL without a path gets one from the parser, in Go it has none.
            let path = path.unwrap_or_default();
            let bare = path == "/" && !ctx.external_url.ends_with('/');
            Ok(Value::text(if bare { "" } else { &path }))
        }),
    ),
    ("query", Function::fixed(&[Type::Str], query)),
    ("sortByLabel", Function::fixed(&[Type::Str, Type::Named(&RESULT)], sort_by_label)),
    ("stripDomain", of_text!(strip_domain)),
    (
        "stripPort",
        of_text!(|address: &str| {
            split_host_port(address).map_or_else(|| address.to_owned(), |(host, _)| host.to_owned())
        }),
    ),
    (
        "strvalue",
        Function::fixed(&[Type::Named(&SAMPLE)], |_, args| {
            Ok(Value::text(label(any(args, 0), "__value__")))
        }),
    ),
    ("tableLink", of_text!(|expr| format!("/graph?g0.expr={}&g0.tab=1", escape_query(expr)))),
    ("title", of_text!(title)),
    (
        "toDuration",
        Function::fixed(&[Type::Any], |_, args| {
            Ok(Value::Duration((number(any(args, 0))? * 1e9) as i64))
        }),
    ),
    (
        "toTime",
        Function::fixed(&[Type::Any], |_, args| {
            Ok(Value::Time(seconds_to_time(number(any(args, 0))?)?))
        }),
    ),
    ("urlQueryEscape", of_text!(escape_query)),
    (
        "value",
        Function::fixed(&[Type::Named(&SAMPLE)], |_, args| match any(args, 0) {
            Value::Struct(sample) => Ok(sample.field("Value").cloned().unwrap_or(Value::Nil)),
            _ => Err("nil pointer dereference".to_owned()),
        }),
    ),
];

fn query(ctx: &Context<'_>, args: &[Value]) -> Result<Value, String> {
    let Some(query) = ctx.query else { return Err("no queries here".to_owned()) };
    let samples = query(text(args, 0), ctx.now_ms)?;
    let sample = |sample: QuerySample| {
        let labels = Value::labels(&STRING_MAP, &sample.labels);
        Value::new_struct(&SAMPLE, [labels, value_of(sample.value, sample.histogram.as_deref())])
    };
    Ok(Value::list(&RESULT, samples.into_iter().map(sample)))
}

/// A label of a sample; empty when it has none.
fn label(sample: &Value, name: &str) -> String {
    match sample {
        Value::Struct(sample) => match sample.field("Labels") {
            Some(Value::Map(labels)) => labels.get_or_zero(name).as_str().unwrap_or("").to_owned(),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

fn sort_by_label(_: &Context<'_>, args: &[Value]) -> Result<Value, String> {
    let Value::List(list) = any(args, 1) else { return Ok(Value::Nil) };
    let mut items = list.items.to_vec();
    items.sort_by_cached_key(|sample| label(sample, text(args, 0)));
    Ok(Value::list(&RESULT, items))
}

/// Go's `net.SplitHostPort`: `host:port` or `[host]:port`.
fn split_host_port(address: &str) -> Option<(&str, &str)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(inside) => inside.split_once("]:")?,
        None => address.rsplit_once(':').filter(|(host, _)| !host.contains([':', '[', ']']))?,
    };
    (!port.contains([':', '[', ']'])).then_some((host, port))
}

/// The first part of a host's name, with the port; addresses stay as they are.
fn strip_domain(address: &str) -> String {
    let (host, port) = split_host_port(address).unwrap_or((address, ""));
    if host.parse::<std::net::IpAddr>().is_ok() {
        return address.to_owned();
    }
    let name = host.split('.').next().unwrap_or(host);
    match port {
        "" => name.to_owned(),
        port if name.contains(':') => format!("[{name}]:{port}"),
        port => format!("{name}:{port}"),
    }
}

/// Go's `strings.Title`: a capital at the start of each word, the rest as it is.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for letter in text.chars() {
        if in_word {
            out.push(letter);
        } else {
            out.extend(letter.to_uppercase());
        }
        in_word = letter == '_'
            || letter.is_alphanumeric()
            || (!letter.is_ascii() && !letter.is_whitespace());
    }
    out
}
