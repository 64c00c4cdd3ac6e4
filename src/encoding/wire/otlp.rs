//! OTLP metrics: `ExportMetricsServiceRequest` in protobuf and in JSON, as plain structs.
//!
//! The field numbers are those of `opentelemetry/proto/metrics/v1`; what is not stored is skipped. What a body makes us allocate is bounded by [`ITEMS_MAX`] and by the length
//! of JSON.

mod json;

use serde::Deserialize;

use super::protobuf::{Message, WireError, WireValue, read_fixed64s, read_varints};

/// Data points, attributes, buckets and quantiles of one request.
pub const ITEMS_MAX: usize = 1_000_000;
/// Bytes of a request in JSON: its smallest items take three.
pub const JSON_BYTES_MAX: usize = 8 << 20;
/// Lists in lists in an attribute's value.
const VALUE_DEPTH_MAX: usize = 16;

/// Why a body is no request.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Not the message as JSON.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// See [`ITEMS_MAX`].
    #[error("request has more than {ITEMS_MAX} data points, attributes and buckets")]
    TooManyItems,
    /// See [`JSON_BYTES_MAX`].
    #[error("request has more than {JSON_BYTES_MAX} bytes of JSON")]
    TooLong,
    /// Lists in lists in lists.
    #[error("attribute value nests too deep")]
    TooDeep,
}

/// The value of an attribute.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum AnyValue {
    /// Nothing.
    #[default]
    Empty,
    /// A text.
    Text(String),
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// A list.
    Array(Vec<AnyValue>),
    /// A map.
    Map(Vec<KeyValue>),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// An attribute.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KeyValue {
    /// Name.
    pub key: String,
    /// Value.
    pub value: AnyValue,
}

/// What is measured: everything of one process.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields bear the names of the specification")]
pub struct ResourceMetrics {
    pub resource: Resource,
    pub scope_metrics: Vec<ScopeMetrics>,
}

/// Who is measured.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields bear the names of the specification")]
pub struct Resource {
    pub attributes: Vec<KeyValue>,
}

/// What one library measures.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields bear the names of the specification")]
pub struct ScopeMetrics {
    pub scope: Scope,
    pub metrics: Vec<Metric>,
    pub schema_url: String,
}

/// A library.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields bear the names of the specification")]
pub struct Scope {
    pub name: String,
    pub version: String,
    pub attributes: Vec<KeyValue>,
}

/// One metric with its data points.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields bear the names of the specification")]
pub struct Metric {
    pub name: String,
    pub description: String,
    pub unit: String,
    #[serde(flatten, deserialize_with = "json::data")]
    pub data: Option<Data>,
}

/// Data points by type.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Values that go up and down.
    Gauge(Vec<NumberPoint>),
    /// Sums.
    Sum {
        /// The points.
        points: Vec<NumberPoint>,
        /// Since when each counts.
        temporality: Temporality,
        /// Never goes down.
        is_monotonic: bool,
    },
    /// Histograms with listed bounds.
    Histogram(Vec<HistogramPoint>, Temporality),
    /// Histograms with exponential buckets.
    Exponential(Vec<ExponentialPoint>, Temporality),
    /// Quantiles.
    Summary(Vec<SummaryPoint>),
}

/// Since when a sum or histogram counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Temporality {
    /// Not told.
    #[default]
    Unspecified,
    /// Since the point before.
    Delta,
    /// Since a fixed start.
    Cumulative,
}

impl Temporality {
    fn of(number: u64) -> Self {
        match number {
            1 => Self::Delta,
            2 => Self::Cumulative,
            _ => Self::Unspecified,
        }
    }
}

/// What all points have.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PointHead {
    /// Labels to be.
    pub attributes: Vec<KeyValue>,
    /// When, in nanoseconds since 1970.
    #[serde(deserialize_with = "json::number")]
    pub time_unix_nano: u64,
    /// When counting began, likewise; 0: not known.
    #[serde(deserialize_with = "json::number")]
    pub start_time_unix_nano: u64,
    /// Bit 0: there is no value any more.
    pub flags: u32,
    /// Observations behind the value.
    pub exemplars: Vec<ExemplarPoint>,
}

/// One observation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExemplarPoint {
    /// Attributes that the data point lacks.
    pub filtered_attributes: Vec<KeyValue>,
    /// When, in nanoseconds since 1970; 0: not told.
    pub time_unix_nano: u64,
    /// What was observed; `None`: nothing that is a number.
    pub value: Option<f64>,
    /// In hexadecimal digits; empty: none.
    pub trace_id: String,
    /// Likewise.
    pub span_id: String,
}

impl PointHead {
    /// In milliseconds since 1970.
    pub fn timestamp_ms(&self) -> i64 {
        (self.time_unix_nano / 1_000_000) as i64
    }

    /// When counting began, in milliseconds since 1970; 0: not known.
    pub fn start_ms(&self) -> i64 {
        (self.start_time_unix_nano / 1_000_000) as i64
    }

    /// The series ended.
    pub fn has_no_value(&self) -> bool {
        self.flags & 1 == 1
    }
}

/// A number.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "fields bear the names of the specification")]
pub struct NumberPoint {
    pub head: PointHead,
    pub value: f64,
}

/// A histogram with listed bounds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields bear the names of the specification")]
pub struct HistogramPoint {
    #[serde(flatten)]
    pub head: PointHead,
    #[serde(deserialize_with = "json::number")]
    pub count: u64,
    #[serde(deserialize_with = "json::some_number")]
    pub sum: Option<f64>,
    #[serde(deserialize_with = "json::numbers")]
    pub bucket_counts: Vec<u64>,
    #[serde(deserialize_with = "json::numbers")]
    pub explicit_bounds: Vec<f64>,
}

/// A histogram with exponential buckets.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields bear the names of the specification")]
pub struct ExponentialPoint {
    #[serde(flatten)]
    pub head: PointHead,
    #[serde(deserialize_with = "json::number")]
    pub count: u64,
    #[serde(deserialize_with = "json::some_number")]
    pub sum: Option<f64>,
    pub scale: i32,
    #[serde(deserialize_with = "json::number")]
    pub zero_count: u64,
    pub positive: Buckets,
    pub negative: Buckets,
}

/// Neighbouring buckets.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields bear the names of the specification")]
pub struct Buckets {
    pub offset: i32,
    #[serde(deserialize_with = "json::numbers")]
    pub bucket_counts: Vec<u64>,
}

/// Quantiles.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields bear the names of the specification")]
pub struct SummaryPoint {
    #[serde(flatten)]
    pub head: PointHead,
    #[serde(deserialize_with = "json::number")]
    pub count: u64,
    #[serde(deserialize_with = "json::number")]
    pub sum: f64,
    pub quantile_values: Vec<Quantile>,
}

/// One quantile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields bear the names of the specification")]
pub struct Quantile {
    #[serde(deserialize_with = "json::number")]
    pub quantile: f64,
    #[serde(deserialize_with = "json::number")]
    pub value: f64,
}

/// Reads a request in JSON.
pub fn decode_json(body: &[u8]) -> Result<Vec<ResourceMetrics>, DecodeError> {
    #[derive(Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    #[derive(Default)]
    struct Request {
        resource_metrics: Vec<ResourceMetrics>,
    }
    if JSON_BYTES_MAX < body.len() {
        return Err(DecodeError::TooLong);
    }
    Ok(serde_json::from_slice::<Request>(body)?.resource_metrics)
}

/// Reads a request in protobuf.
pub fn decode_protobuf(body: &[u8]) -> Result<Vec<ResourceMetrics>, DecodeError> {
    let mut reader = Reader { items_left: ITEMS_MAX };
    let mut all = Vec::new();
    for_each_field(Message::new(body), |field, value| {
        if field == 1 {
            all.push(reader.resource_metrics(value.message(field)?)?);
        }
        Ok(())
    })?;
    Ok(all)
}

fn for_each_field<'a>(
    mut message: Message<'a>,
    mut take: impl FnMut(u64, WireValue<'a>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    while let Some((field, value)) = message.field()? {
        take(field, value)?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Reader {
    items_left: usize,
}

impl Reader {
    fn count(&mut self, items: usize) -> Result<(), DecodeError> {
        self.items_left = self.items_left.checked_sub(items).ok_or(DecodeError::TooManyItems)?;
        Ok(())
    }

    fn resource_metrics(&mut self, message: Message<'_>) -> Result<ResourceMetrics, DecodeError> {
        let mut out = ResourceMetrics::default();
        self.count(1)?;
        for_each_field(message, |field, value| {
            match field {
                1 => for_each_field(value.message(field)?, |field, value| {
                    if field == 1 {
                        out.resource.attributes.push(self.key_value(value, VALUE_DEPTH_MAX)?);
                    }
                    Ok(())
                })?,
                2 => out.scope_metrics.push(self.scope_metrics(value.message(field)?)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(out)
    }

    fn scope_metrics(&mut self, message: Message<'_>) -> Result<ScopeMetrics, DecodeError> {
        let mut out = ScopeMetrics::default();
        self.count(1)?;
        for_each_field(message, |field, value| {
            match field {
                1 => for_each_field(value.message(field)?, |field, value| {
                    match field {
                        1 => value.text(field)?.clone_into(&mut out.scope.name),
                        2 => value.text(field)?.clone_into(&mut out.scope.version),
                        3 => out.scope.attributes.push(self.key_value(value, VALUE_DEPTH_MAX)?),
                        _ => {}
                    }
                    Ok(())
                })?,
                2 => out.metrics.push(self.metric(value.message(field)?)?),
                3 => value.text(field)?.clone_into(&mut out.schema_url),
                _ => {}
            }
            Ok(())
        })?;
        Ok(out)
    }

    fn metric(&mut self, message: Message<'_>) -> Result<Metric, DecodeError> {
        let mut out = Metric::default();
        self.count(1)?;
        for_each_field(message, |field, value| {
            match field {
                1 => value.text(field)?.clone_into(&mut out.name),
                2 => value.text(field)?.clone_into(&mut out.description),
                3 => value.text(field)?.clone_into(&mut out.unit),
                5 | 7 | 9 | 10 | 11 => {
                    out.data = Some(self.data(field, value.message(field)?)?);
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(out)
    }

    fn data(&mut self, kind: u64, message: Message<'_>) -> Result<Data, DecodeError> {
        let (mut temporality, mut is_monotonic) = (Temporality::Unspecified, false);
        let (mut numbers, mut histograms) = (Vec::new(), Vec::new());
        let (mut exponentials, mut summaries) = (Vec::new(), Vec::new());
        for_each_field(message, |field, value| {
            match (field, kind) {
                (1, 5 | 7) => numbers.push(self.number_point(value.message(field)?)?),
                (1, 9) => histograms.push(self.histogram_point(value.message(field)?)?),
                (1, 10) => exponentials.push(self.exponential_point(value.message(field)?)?),
                (1, _) => summaries.push(self.summary_point(value.message(field)?)?),
                (2, 7 | 9 | 10) => temporality = Temporality::of(value.varint(field)?),
                (3, 7) => is_monotonic = value.varint(field)? != 0,
                _ => {}
            }
            Ok(())
        })?;
        Ok(match kind {
            5 => Data::Gauge(numbers),
            7 => Data::Sum { points: numbers, temporality, is_monotonic },
            9 => Data::Histogram(histograms, temporality),
            10 => Data::Exponential(exponentials, temporality),
            _ => Data::Summary(summaries),
        })
    }

    fn number_point(&mut self, message: Message<'_>) -> Result<NumberPoint, DecodeError> {
        let mut out = NumberPoint::default();
        self.count(1)?;
        for_each_field(message, |field, value| {
            match field {
                2 => out.head.start_time_unix_nano = value.fixed64(field)?,
                3 => out.head.time_unix_nano = value.fixed64(field)?,
                4 => out.value = value.double(field)?,
                5 => out.head.exemplars.push(self.exemplar(value.message(field)?)?),
                6 => out.value = value.fixed64(field)? as i64 as f64,
                7 => out.head.attributes.push(self.key_value(value, VALUE_DEPTH_MAX)?),
                8 => out.head.flags = value.varint(field)? as u32,
                _ => {}
            }
            Ok(())
        })?;
        Ok(out)
    }

    fn histogram_point(&mut self, message: Message<'_>) -> Result<HistogramPoint, DecodeError> {
        let (mut out, mut bounds) = (HistogramPoint::default(), Vec::new());
        self.count(1)?;
        for_each_field(message, |field, value| {
            match field {
                2 => out.head.start_time_unix_nano = value.fixed64(field)?,
                3 => out.head.time_unix_nano = value.fixed64(field)?,
                4 => out.count = value.fixed64(field)?,
                5 => out.sum = Some(value.double(field)?),
                6 => read_fixed64s(value, field, &mut out.bucket_counts)?,
                7 => read_fixed64s(value, field, &mut bounds)?,
                8 => out.head.exemplars.push(self.exemplar(value.message(field)?)?),
                9 => out.head.attributes.push(self.key_value(value, VALUE_DEPTH_MAX)?),
                10 => out.head.flags = value.varint(field)? as u32,
                _ => {}
            }
            Ok(())
        })?;
        self.count(out.bucket_counts.len() + bounds.len())?;
        out.explicit_bounds = bounds.into_iter().map(f64::from_bits).collect();
        Ok(out)
    }

    fn exponential_point(&mut self, message: Message<'_>) -> Result<ExponentialPoint, DecodeError> {
        let mut out = ExponentialPoint::default();
        self.count(1)?;
        for_each_field(message, |field, value| {
            match field {
                1 => out.head.attributes.push(self.key_value(value, VALUE_DEPTH_MAX)?),
                2 => out.head.start_time_unix_nano = value.fixed64(field)?,
                3 => out.head.time_unix_nano = value.fixed64(field)?,
                4 => out.count = value.fixed64(field)?,
                5 => out.sum = Some(value.double(field)?),
                6 => out.scale = value.zigzag(field)? as i32,
                7 => out.zero_count = value.fixed64(field)?,
                8 => out.positive = self.buckets(value.message(field)?)?,
                9 => out.negative = self.buckets(value.message(field)?)?,
                10 => out.head.flags = value.varint(field)? as u32,
                11 => out.head.exemplars.push(self.exemplar(value.message(field)?)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(out)
    }

    fn exemplar(&mut self, message: Message<'_>) -> Result<ExemplarPoint, DecodeError> {
        let mut out = ExemplarPoint::default();
        self.count(1)?;
        for_each_field(message, |field, value| {
            match field {
                2 => out.time_unix_nano = value.fixed64(field)?,
                3 => out.value = Some(value.double(field)?),
                4 => out.span_id = hex(value.bytes(field)?),
                5 => out.trace_id = hex(value.bytes(field)?),
                6 => out.value = Some(value.fixed64(field)? as i64 as f64),
                7 => out.filtered_attributes.push(self.key_value(value, VALUE_DEPTH_MAX)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(out)
    }

    fn buckets(&mut self, message: Message<'_>) -> Result<Buckets, DecodeError> {
        let mut out = Buckets::default();
        for_each_field(message, |field, value| {
            match field {
                1 => out.offset = value.zigzag(field)? as i32,
                2 => read_varints(value, field, &mut out.bucket_counts)?,
                _ => {}
            }
            Ok(())
        })?;
        self.count(out.bucket_counts.len())?;
        Ok(out)
    }

    fn summary_point(&mut self, message: Message<'_>) -> Result<SummaryPoint, DecodeError> {
        let mut out = SummaryPoint::default();
        self.count(1)?;
        for_each_field(message, |field, value| {
            match field {
                2 => out.head.start_time_unix_nano = value.fixed64(field)?,
                3 => out.head.time_unix_nano = value.fixed64(field)?,
                4 => out.count = value.fixed64(field)?,
                5 => out.sum = value.double(field)?,
                6 => {
                    self.count(1)?;
                    let mut entry = Quantile::default();
                    for_each_field(value.message(field)?, |field, value| {
                        match field {
                            1 => entry.quantile = value.double(field)?,
                            2 => entry.value = value.double(field)?,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    out.quantile_values.push(entry);
                }
                7 => out.head.attributes.push(self.key_value(value, VALUE_DEPTH_MAX)?),
                8 => out.head.flags = value.varint(field)? as u32,
                _ => {}
            }
            Ok(())
        })?;
        Ok(out)
    }

    fn key_value(&mut self, value: WireValue<'_>, depth: usize) -> Result<KeyValue, DecodeError> {
        let mut out = KeyValue::default();
        self.count(1)?;
        for_each_field(value.message(1)?, |field, value| {
            match field {
                1 => value.text(field)?.clone_into(&mut out.key),
                2 => out.value = self.any_value(value.message(field)?, depth)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(out)
    }

    fn any_value(&mut self, message: Message<'_>, depth: usize) -> Result<AnyValue, DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
        let mut out = AnyValue::Empty;
        for_each_field(message, |field, value| {
            out = match field {
                1 => AnyValue::Text(value.text(field)?.to_owned()),
                2 => AnyValue::Bool(value.varint(field)? != 0),
                3 => AnyValue::Int(value.varint(field)? as i64),
                4 => AnyValue::Double(value.double(field)?),
                5 => {
                    let mut list = Vec::new();
                    for_each_field(value.message(field)?, |field, value| {
                        if field == 1 {
                            self.count(1)?;
                            list.push(self.any_value(value.message(field)?, depth)?);
                        }
                        Ok(())
                    })?;
                    AnyValue::Array(list)
                }
                6 => {
                    let mut map = Vec::new();
                    for_each_field(value.message(field)?, |field, value| {
                        if field == 1 {
                            map.push(self.key_value(value, depth)?);
                        }
                        Ok(())
                    })?;
                    AnyValue::Map(map)
                }
                7 => AnyValue::Bytes(value.bytes(field)?.to_vec()),
                _ => return Ok(()),
            };
            Ok(())
        })?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
