//! OTLP metrics, receiving side: a request becomes one batch of appends under Prometheus' names.
//!
//! As in Prometheus a request is stored as a whole or not at all. Attributes of the resource are
//! in `job`, `instance` and `target_info`, or promoted to labels of every series. New series beyond
//! a limit are left out alone.

mod exemplar;
mod histogram;
pub mod names;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::base::metrics::{Number, Registry};
use crate::encoding::wire::otlp::{
    AnyValue, Data, DecodeError, HistogramPoint, KeyValue, Metric, NumberPoint, PointHead,
    ResourceMetrics, ScopeMetrics, SummaryPoint, Temporality, decode_json, decode_protobuf,
};
use crate::model::exemplar::Exemplar;
use crate::model::float::{format_json, format_plain};
use crate::model::histogram::Histogram;
use crate::model::labels::{Labels, LabelsBuilder, METRIC_NAME};
use crate::model::metadata::{Metadata, MetricType};
use crate::model::sample::stale_nan;
use crate::storage::append::{
    Append, AppendError, Appender, Limited, OnReject, SERIES_BYTES_MAX, SeriesKey, Ticket,
};
use names::{LabelNamer, Shape, Strategy};

/// What names a process to people.
const SERVICE_NAME: &str = "service.name";
/// Stands before the name.
const SERVICE_NAMESPACE: &str = "service.namespace";
/// Which of several alike.
const SERVICE_INSTANCE: &str = "service.instance.id";
/// The series that tells the attributes of a resource.
const TARGET_INFO: &str = "target_info";
/// Samples of `target_info` between the first and the last data point of a request; beyond that
/// the data is not of one process.
const TARGET_INFO_SAMPLES_MAX: i64 = 1000;

/// Bytes of the labels of all samples of a request, each time counted: all have those of their
/// resource. Far more than honest requests have.
const LABELS_BYTES_MAX: usize = if cfg!(test) { 4 << 20 } else { 1 << 30 };

const TOO_LONG: &str = "labels of all samples of the request";

/// Which attributes of the resource become labels of every series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promoted {
    /// These.
    Only(Vec<String>),
    /// All but these.
    AllBut(Vec<String>),
}

impl Promoted {
    fn contains(&self, name: &str) -> bool {
        let is_listed = |list: &[String]| list.iter().any(|own| own == name);
        match self {
            Self::Only(list) => is_listed(list),
            Self::AllBut(list) => !is_listed(list),
        }
    }
}

/// `otlp` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How metrics are named.
    pub strategy: Strategy,
    /// How labels are named.
    pub labels: LabelNamer,
    /// Attributes of the resource on every series.
    pub promoted: Promoted,
    /// `target_info` also has the attributes that `job` and `instance` are made of.
    pub keep_identifying: bool,
    /// Histograms with listed bounds become native ones.
    pub histograms_to_custom_buckets: bool,
    /// Name, version and attributes of the library on every series.
    pub promote_scope: bool,
    /// `--enable-feature=type-and-unit-labels`
    pub type_and_unit_labels: bool,
    /// `target_info` has a sample each half of this.
    pub lookback_delta_ms: i64,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/x-protobuf`
    Protobuf,
    /// `application/json`
    Json,
}

/// Why a request was not stored.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Not a request.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Something in it has no counterpart here; all such things, one on a line.
    #[error("{0}")]
    Untranslatable(String),
    /// The store refused it.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// What was stored of a request.
#[derive(Debug)]
pub struct Written {
    /// Durable once waited for.
    pub ticket: Ticket,
    /// New series that a limit refused.
    pub limited: Option<Box<Limited>>,
}

/// Takes OTLP requests.
#[derive(Clone)]
pub struct Receiver {
    store: Arc<dyn Appender>,
    empty_metrics: Number,
}

impl Receiver {
    /// A receiver that appends to `store`.
    pub fn new(store: Arc<dyn Appender>, metrics: &Registry) -> Self {
        let warnings = metrics.counters(
            "prometheus_api_otlp_translation_warnings_total",
            "The total number of warnings produced while translating OTLP metrics to the Prometheus model, by category.",
            &["category"],
        );
        Self { store, empty_metrics: warnings.with(&["empty_data_points"]) }
    }

    /// Decodes, translates and commits one request. Does not wait for the disk: the caller waits
    /// for the ticket.
    pub fn write(
        &self,
        body: &[u8],
        format: Format,
        options: &Options,
    ) -> Result<Written, WriteError> {
        let all = match format {
            Format::Protobuf => decode_protobuf(body)?,
            Format::Json => decode_json(body)?,
        };
        let mut translation = Translation {
            options,
            batch: self.store.appender(OnReject::Abort),
            told: HashSet::new(),
            errors: Vec::new(),
            empty_count: 0,
            is_counted: false,
            labels_bytes: 0,
        };
        for one in &all {
            translation.resource(one);
        }
        self.empty_metrics.add(f64::from(translation.empty_count));
        if translation.is_too_long() {
            let text = format!("{TOO_LONG} have more than {LABELS_BYTES_MAX} bytes");
            return Err(WriteError::Untranslatable(text));
        }
        if !translation.errors.is_empty() {
            return Err(WriteError::Untranslatable(translation.errors.join("\n")));
        }
        let (appended, ticket) = translation.batch.commit()?;
        Ok(Written { ticket, limited: appended.limited })
    }
}

/// Labels that all series of one resource and library share.
struct Shared {
    job: String,
    instance: String,
    promoted: Vec<(String, String)>,
    scope: Vec<(String, String)>,
}

impl Shared {
    /// Bytes that each series of the resource has at least.
    fn labels_bytes(&self) -> usize {
        let pairs = self.promoted.iter().chain(&self.scope);
        let pairs: usize = pairs.map(|(name, value)| name.len() + value.len()).sum();
        self.job.len() + self.instance.len() + pairs
    }

    fn identify(&self, labels: &mut LabelsBuilder) {
        for (name, value) in [("job", &self.job), ("instance", &self.instance)] {
            if !value.is_empty() {
                labels.set(name, value);
            }
        }
    }
}

struct Translation<'a> {
    options: &'a Options,
    batch: Box<dyn Append>,
    /// Samples of `target_info` in this batch.
    told: HashSet<(Labels, i64)>,
    errors: Vec<String>,
    empty_count: u32,
    /// Whether the metric at hand counts something since its start.
    is_counted: bool,
    /// Of all samples so far.
    labels_bytes: usize,
}

/// First and last data point of a resource.
#[derive(Clone, Copy)]
struct Span {
    min_ms: i64,
    max_ms: i64,
}

impl Span {
    const EMPTY: Self = Self { min_ms: i64::MAX, max_ms: i64::MIN };

    fn cover(&mut self, head: &PointHead) {
        let timestamp_ms = head.timestamp_ms();
        self.min_ms = self.min_ms.min(timestamp_ms);
        self.max_ms = self.max_ms.max(timestamp_ms);
    }
}

impl Translation<'_> {
    fn resource(&mut self, own: &ResourceMetrics) {
        let attributes = &own.resource.attributes;
        let text = |name| find(attributes, name).map(as_text);
        let job = text(SERVICE_NAME).map(|name| match text(SERVICE_NAMESPACE) {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name,
        });
        let mut shared = Shared {
            job: job.unwrap_or_default(),
            instance: text(SERVICE_INSTANCE).unwrap_or_default(),
            promoted: Vec::new(),
            scope: Vec::new(),
        };
        for attribute in attributes.iter().filter(|own| self.options.promoted.contains(&own.key)) {
            match self.options.labels.label(&attribute.key) {
                Ok(name) => shared.promoted.push((name, as_text(&attribute.value))),
                Err(err) => return self.errors.push(err),
            }
        }
        let mut span = Span::EMPTY;
        for scope in &own.scope_metrics {
            match self.scope_labels(scope) {
                Ok(labels) => shared.scope = labels,
                Err(err) => {
                    self.errors.push(err);
                    continue;
                }
            }
            if SERIES_BYTES_MAX < shared.labels_bytes() {
                self.errors.push(too_long("labels that all series of a resource share"));
                continue;
            }
            for metric in &scope.metrics {
                if let Err(err) = self.metric(metric, &shared, &mut span) {
                    self.errors.push(err);
                }
                if self.is_too_long() {
                    return;
                }
            }
        }
        shared.scope.clear();
        if span.min_ms <= span.max_ms
            && let Err(err) = self.target_info(attributes, &shared, span)
        {
            self.errors.push(err);
        }
    }

    /// Whether a request has more labels than any should: nothing more is looked at.
    fn is_too_long(&self) -> bool {
        LABELS_BYTES_MAX < self.labels_bytes
    }

    fn scope_labels(&self, own: &ScopeMetrics) -> Result<Vec<(String, String)>, String> {
        if !self.options.promote_scope || own.scope.name.is_empty() {
            return Ok(Vec::new());
        }
        let mut labels = Vec::new();
        for attribute in &own.scope.attributes {
            let name = self.options.labels.label(&format!("otel_scope_{}", attribute.key))?;
            labels.push((name, as_text(&attribute.value)));
        }
        for (name, value) in [
            ("otel_scope_name", &own.scope.name),
            ("otel_scope_version", &own.scope.version),
            ("otel_scope_schema_url", &own.schema_url),
        ] {
            labels.push((name.to_owned(), value.clone()));
        }
        Ok(labels)
    }

    fn metric(&mut self, own: &Metric, shared: &Shared, span: &mut Span) -> Result<(), String> {
        let Some(data) = &own.data else { return Err("unsupported metric type".to_owned()) };
        let heads: Box<dyn Iterator<Item = &PointHead>> = match data {
            Data::Gauge(points) | Data::Sum { points, .. } => {
                Box::new(points.iter().map(|point| &point.head))
            }
            Data::Histogram(points, _) => Box::new(points.iter().map(|point| &point.head)),
            Data::Exponential(points, _) => Box::new(points.iter().map(|point| &point.head)),
            Data::Summary(points) => Box::new(points.iter().map(|point| &point.head)),
        };
        let before = self.empty_count;
        self.empty_count += 1;
        for head in heads {
            span.cover(head);
            self.empty_count = before;
        }
        if before < self.empty_count {
            return Ok(());
        }
        if let Data::Sum { temporality, .. }
        | Data::Histogram(_, temporality)
        | Data::Exponential(_, temporality) = data
            && *temporality != Temporality::Cumulative
        {
            return Err(format!(
                "invalid temporality and type combination for metric {:?}",
                own.name
            ));
        }
        let shape = match data {
            Data::Gauge(_) => Shape::Gauge,
            Data::Sum { is_monotonic: true, .. } => Shape::Counter,
            _ => Shape::Other,
        };
        self.is_counted = !matches!(data, Data::Gauge(_) | Data::Sum { is_monotonic: false, .. });
        let name = names::metric(&own.name, &own.unit, shape, self.options.strategy)?;
        let metadata = Metadata {
            metric_type: match data {
                Data::Sum { is_monotonic: true, .. } => MetricType::Counter,
                Data::Gauge(_) | Data::Sum { .. } => MetricType::Gauge,
                Data::Histogram(..) | Data::Exponential(..) => MetricType::Histogram,
                Data::Summary(_) => MetricType::Summary,
            },
            help: own.description.clone(),
            unit: names::unit(&own.unit),
        };
        self.batch.metadata(&name, &metadata);
        let series = Series { name: &name, metadata: &metadata, shared };
        match data {
            Data::Gauge(points) => self.numbers(points, &series, false),
            Data::Sum { points, .. } => self.numbers(points, &series, true),
            Data::Histogram(points, _) if self.options.histograms_to_custom_buckets => {
                self.natives(points.iter().map(|own| (&own.head, histogram::custom(own))), &series)
            }
            Data::Histogram(points, _) => self.histograms(points, &series),
            Data::Exponential(points, _) => {
                let natives = points.iter().map(|own| (&own.head, histogram::exponential(own)));
                self.natives(natives, &series)
            }
            Data::Summary(points) => self.summaries(points, &series),
        }
    }

    fn numbers(
        &mut self,
        points: &[NumberPoint],
        series: &Series<'_>,
        with_exemplars: bool,
    ) -> Result<(), String> {
        for point in points {
            let labels = self.labels(series, &point.head.attributes)?;
            let labels = self.float(labels, series.name, &[], &point.head, point.value);
            if with_exemplars {
                self.exemplars(&labels, exemplar::all(&point.head)?);
            }
        }
        Ok(())
    }

    fn natives<'p>(
        &mut self,
        points: impl Iterator<Item = (&'p PointHead, Result<Histogram, String>)>,
        series: &Series<'_>,
    ) -> Result<(), String> {
        for (head, histogram) in points {
            let mut labels = self.labels(series, &head.attributes)?;
            labels.set(METRIC_NAME, series.name);
            let labels = labels.build();
            self.labels_bytes += labels.heap_bytes();
            let (key, histogram) = (SeriesKey::Labels(&labels), histogram?);
            self.start(head);
            self.batch.histogram(key, head.timestamp_ms(), &histogram);
            self.exemplars(&labels, exemplar::all(head)?);
        }
        Ok(())
    }

    fn histograms(&mut self, points: &[HistogramPoint], series: &Series<'_>) -> Result<(), String> {
        let (sum, count, bucket) = series.parts();
        for point in points {
            let labels = self.labels(series, &point.head.attributes)?;
            if let Some(value) = point.sum {
                self.float(labels.clone(), &sum, &[], &point.head, value);
            }
            let total = point.count as f64;
            self.float(labels.clone(), &count, &[], &point.head, total);
            let mut exemplars = exemplar::all(&point.head)?;
            let mut cumulative = 0_u64;
            for (bound, own) in point.explicit_bounds.iter().zip(&point.bucket_counts) {
                cumulative = cumulative.wrapping_add(*own);
                let inside = exemplars.extract_if(.., |own| own.value <= *bound).collect();
                let bound = ("le", format_plain(*bound));
                let labels =
                    self.float(labels.clone(), &bucket, &[bound], &point.head, cumulative as f64);
                self.exemplars(&labels, inside);
            }
            let last = [("le", "+Inf".to_owned())];
            let labels = self.float(labels, &bucket, &last, &point.head, total);
            self.exemplars(&labels, exemplars);
        }
        Ok(())
    }

    fn summaries(&mut self, points: &[SummaryPoint], series: &Series<'_>) -> Result<(), String> {
        let (sum, count, _) = series.parts();
        for point in points {
            let labels = self.labels(series, &point.head.attributes)?;
            self.float(labels.clone(), &sum, &[], &point.head, point.sum);
            self.float(labels.clone(), &count, &[], &point.head, point.count as f64);
            for own in &point.quantile_values {
                let quantile = ("quantile", format_plain(own.quantile));
                self.float(labels.clone(), series.name, &[quantile], &point.head, own.value);
            }
        }
        Ok(())
    }

    fn float(
        &mut self,
        mut labels: LabelsBuilder,
        name: &str,
        more: &[(&str, String)],
        head: &PointHead,
        value: f64,
    ) -> Labels {
        if self.is_too_long() {
            return Labels::empty();
        }
        for (name, value) in more {
            labels.set(name, value);
        }
        labels.set(METRIC_NAME, name);
        let labels = labels.build();
        self.labels_bytes += labels.heap_bytes();
        let value = if head.has_no_value() { stale_nan() } else { value };
        self.start(head);
        self.batch.float(SeriesKey::Labels(&labels), head.timestamp_ms(), value);
        labels
    }

    fn exemplars(&mut self, series: &Labels, all: Vec<Exemplar>) {
        for own in all {
            self.batch.exemplar(SeriesKey::Labels(series), &own);
        }
    }

    /// Says since when the point that is staged next is counted. That of a gauge means nothing.
    fn start(&mut self, head: &PointHead) {
        if self.is_counted && !head.has_no_value() && head.start_time_unix_nano != 0 {
            self.batch.start(head.start_ms());
        }
    }

    /// Labels of a data point, without the metric's name.
    fn labels(
        &self,
        series: &Series<'_>,
        attributes: &[KeyValue],
    ) -> Result<LabelsBuilder, String> {
        if self.is_too_long() {
            return Err(TOO_LONG.to_owned());
        }
        let mut labels = self.attribute_labels(attributes, &[])?;
        let shared = series.shared;
        for (name, value) in &shared.promoted {
            if labels.get(name).is_empty() {
                labels.set(name, value);
            }
        }
        shared.identify(&mut labels);
        for (name, value) in &shared.scope {
            labels.set(name, value);
        }
        if self.options.type_and_unit_labels {
            if series.metadata.metric_type != MetricType::Unknown {
                labels.set("__type__", series.metadata.metric_type.as_str());
            }
            if !series.metadata.unit.is_empty() {
                labels.set("__unit__", &series.metadata.unit);
            }
        }
        Ok(labels)
    }

    /// Attributes whose names become equal are joined, in order of their own names.
    fn attribute_labels(
        &self,
        attributes: &[KeyValue],
        ignored: &[&str],
    ) -> Result<LabelsBuilder, String> {
        let mut sorted: Vec<&KeyValue> = attributes
            .iter()
            .filter(|own| own.key != METRIC_NAME && !ignored.contains(&own.key.as_str()))
            .collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        let mut labels = Labels::empty().to_builder();
        for own in sorted {
            let value = as_text(&own.value);
            if !self.options.strategy.escapes() {
                labels.set(&own.key, &value);
                continue;
            }
            let name = self.options.labels.label(&own.key)?;
            let joined = match labels.get(&name) {
                "" => value,
                before => format!("{before};{value}"),
            };
            labels.set(&name, &joined);
        }
        Ok(labels)
    }

    fn target_info(
        &mut self,
        attributes: &[KeyValue],
        shared: &Shared,
        span: Span,
    ) -> Result<(), String> {
        let identifying = [SERVICE_NAMESPACE, SERVICE_NAME, SERVICE_INSTANCE];
        let is_identifying = |own: &KeyValue| identifying.contains(&own.key.as_str());
        let is_useful = !attributes.iter().all(is_identifying);
        if !is_useful || (shared.job.is_empty() && shared.instance.is_empty()) {
            return Ok(());
        }
        let ignored = if self.options.keep_identifying { &[][..] } else { &identifying[..] };
        let mut labels = self.attribute_labels(attributes, ignored)?;
        shared.identify(&mut labels);
        labels.set(METRIC_NAME, TARGET_INFO);
        let labels = labels.build();
        if SERIES_BYTES_MAX < labels.heap_bytes() {
            return Err(too_long("labels of target_info"));
        }
        let metadata = Metadata {
            metric_type: MetricType::Gauge,
            help: "Target metadata".to_owned(),
            unit: String::new(),
        };
        self.batch.metadata(TARGET_INFO, &metadata);
        let step_ms = (self.options.lookback_delta_ms / 2).max(1);
        let between = (span.max_ms - span.min_ms) / step_ms;
        let between = if between <= TARGET_INFO_SAMPLES_MAX { between } else { -1 };
        let moments = (0..=between).map(|index| span.min_ms + index * step_ms);
        for timestamp_ms in moments.chain([span.max_ms]) {
            if self.told.insert((labels.clone(), timestamp_ms)) {
                self.batch.float(SeriesKey::Labels(&labels), timestamp_ms, 1.0);
            }
        }
        Ok(())
    }
}

fn too_long(what: &str) -> String {
    format!("{what} have more than {SERIES_BYTES_MAX} bytes")
}

/// What the series of a metric have in common.
struct Series<'a> {
    name: &'a str,
    metadata: &'a Metadata,
    shared: &'a Shared,
}

impl Series<'_> {
    /// Names of sum, count and buckets.
    fn parts(&self) -> (String, String, String) {
        let name = self.name;
        (format!("{name}_sum"), format!("{name}_count"), format!("{name}_bucket"))
    }
}

fn find<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a AnyValue> {
    attributes.iter().find(|own| own.key == name).map(|own| &own.value)
}

/// The value of an attribute as a label's: lists and maps as JSON, bytes in base 64.
fn as_text(value: &AnyValue) -> String {
    match value {
        AnyValue::Empty => String::new(),
        AnyValue::Text(text) => text.clone(),
        AnyValue::Bool(yes) => yes.to_string(),
        AnyValue::Int(number) => number.to_string(),
        AnyValue::Double(number) => format_json(*number),
        AnyValue::Bytes(bytes) => STANDARD.encode(bytes),
        AnyValue::Array(_) | AnyValue::Map(_) => as_json(value),
    }
}

fn as_json(value: &AnyValue) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match value {
        AnyValue::Empty => "null".to_owned(),
        AnyValue::Text(text) => quoted(text),
        AnyValue::Bytes(bytes) => quoted(&STANDARD.encode(bytes)),
        AnyValue::Double(number) if !number.is_finite() => quoted(&format_json(*number)),
        AnyValue::Bool(_) | AnyValue::Int(_) | AnyValue::Double(_) => as_text(value),
        AnyValue::Array(list) => {
            format!("[{}]", list.iter().map(as_json).collect::<Vec<_>>().join(","))
        }
        AnyValue::Map(map) => {
            let mut sorted: Vec<_> = map.iter().collect();
            sorted.sort_by(|a, b| a.key.cmp(&b.key));
            let mut out = String::from("{");
            for (index, own) in sorted.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                let _ = write!(out, "{comma}{}:{}", quoted(&own.key), as_json(&own.value));
            }
            out.push('}');
            out
        }
    }
}

#[cfg(test)]
mod tests;
