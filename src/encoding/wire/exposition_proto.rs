//! The protobuf exposition format: `io.prometheus.client.MetricFamily` messages, each with its
//! length before it, read without copies.
//!
//! A family's head is read first, then its metrics one at a time, so memory is bounded by one
//! metric whatever the body. Message numbers are those of Prometheus' client model.

use super::entry::ParseError;
use super::histogram::{DecodedHistogram, decode_exposition};
use super::protobuf::{Message, WireError};
use super::remote_write::LABELS_MAX;
use crate::encoding::column::histogram::ITEMS_MAX;
use crate::model::labels::{Labels, quote};
use crate::model::metadata::MetricType;

/// What a family is about.
#[derive(Clone, Debug)]
pub struct Family<'a> {
    /// Its name.
    pub name: &'a str,
    /// Help text.
    pub help: &'a str,
    /// Unit; mostly empty.
    pub unit: &'a str,
    /// Type.
    pub metric_type: MetricType,
    message: &'a [u8],
    offset_bytes: usize,
}

/// Quantile or bucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part<'a> {
    /// Quantile or upper bound.
    pub bound: f64,
    /// Value, or observations up to the bound.
    pub value: f64,
    /// For [`decode_exemplar`].
    pub exemplar: Option<&'a [u8]>,
}

/// One metric of a family.
#[derive(Clone, Debug, Default)]
pub struct Metric<'a> {
    /// Labels as they were sent, without the name.
    pub labels: Vec<(&'a str, &'a str)>,
    /// Explicit timestamp.
    pub timestamp_ms: Option<i64>,
    /// When counting began.
    pub start_ms: Option<i64>,
    /// Counters, gauges and untyped ones.
    pub value: f64,
    /// Summaries and histograms.
    pub count: f64,
    /// Likewise.
    pub sum: f64,
    /// Quantiles of a summary, buckets of a classic histogram.
    pub parts: Vec<Part<'a>>,
    /// Exemplars of a counter or of a native histogram, for [`decode_exemplar`].
    pub exemplars: Vec<&'a [u8]>,
    /// Whether it has what only native histograms have.
    pub is_native: bool,
    histogram: &'a [u8],
}

/// An exemplar; its time may be missing.
#[derive(Clone, Debug, PartialEq)]
pub struct MaybeTimed {
    /// Labels.
    pub labels: Labels,
    /// Value.
    pub value: f64,
    /// Time.
    pub timestamp_ms: Option<i64>,
}

/// Reads a body family by family. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Families<'a> {
    cursor: Message<'a>,
    len: usize,
}

fn at(offset_bytes: usize) -> impl Fn(WireError) -> ParseError {
    move |err| ParseError { message: format!("proto: {err}"), offset_bytes }
}

impl<'a> Families<'a> {
    /// Reads from the beginning of `body`.
    pub fn new(body: &'a [u8]) -> Self {
        Self { cursor: Message::new(body), len: body.len() }
    }

    fn read(&mut self) -> Result<Family<'a>, ParseError> {
        let offset_bytes = self.len - self.cursor.len();
        let wrong = at(offset_bytes);
        let message = self.cursor.sized().map_err(&wrong)?;
        let (name, help, unit) = ("", "", "");
        let metric_type = MetricType::Counter;
        let mut family = Family { name, help, unit, metric_type, message, offset_bytes };
        let mut number = 0;
        let mut cursor = Message::new(message);
        while let Some((field, value)) = cursor.field().map_err(&wrong)? {
            match field {
                1 => family.name = value.text(field).map_err(&wrong)?,
                2 => family.help = value.text(field).map_err(&wrong)?,
                3 => number = value.varint(field).map_err(&wrong)?,
                5 => family.unit = value.text(field).map_err(&wrong)?,
                _ => {}
            }
        }
        let error = |message: String| ParseError { message, offset_bytes };
        let (name, unit) = (family.name, family.unit);
        if name.is_empty() {
            return Err(error("invalid metric name: ".to_owned()));
        }
        family.metric_type = metric_type_of(number).ok_or_else(|| {
            error(format!("unknown metric type for metric {}: {number}", quote(name)))
        })?;
        let is_counter = family.metric_type == MetricType::Counter;
        let total = name.strip_suffix("_total").filter(|_| is_counter);
        let stem = total.unwrap_or(name).strip_suffix(unit);
        if !unit.is_empty() && !stem.is_some_and(|stem| stem.ends_with('_')) {
            let what = if total.is_some() { "counter" } else { "metric" };
            let (name, unit) = (quote(name), quote(unit));
            return Err(error(format!("unit {unit} not a suffix of {what} {name}")));
        }
        Ok(family)
    }
}

impl<'a> Iterator for Families<'a> {
    type Item = Result<Family<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.cursor.len() == 0 {
            return None;
        }
        let family = self.read();
        if family.is_err() {
            self.cursor = Message::new(&[]);
        }
        Some(family)
    }
}

fn metric_type_of(number: u64) -> Option<MetricType> {
    Some(match number {
        0 => MetricType::Counter,
        1 => MetricType::Gauge,
        2 => MetricType::Summary,
        3 => MetricType::Unknown,
        4 => MetricType::Histogram,
        5 => MetricType::GaugeHistogram,
        _ => return None,
    })
}

impl<'a> Family<'a> {
    /// Whether it holds a histogram, of counts or of current values.
    pub fn is_histogram(&self) -> bool {
        matches!(self.metric_type, MetricType::Histogram | MetricType::GaugeHistogram)
    }

    /// Calls `visit` with each metric; stops at its first error.
    pub fn each<E: From<ParseError>>(
        &self,
        mut visit: impl FnMut(&Metric<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let wrong = at(self.offset_bytes);
        let mut metric = Metric::default();
        let mut cursor = Message::new(self.message);
        while let Some((field, value)) = cursor.field().map_err(&wrong)? {
            if field != 4 {
                continue;
            }
            metric.clear();
            let message = value.bytes(field).map_err(&wrong)?;
            self.read_metric(message, &mut metric).map_err(&wrong)?;
            if ITEMS_MAX < metric.parts.len() || LABELS_MAX < metric.labels.len() {
                let name = quote(self.name);
                let message =
                    format!("metric {name} has more labels, buckets or quantiles than are kept");
                return Err(ParseError { message, offset_bytes: self.offset_bytes }.into());
            }
            visit(&metric)?;
        }
        Ok(())
    }

    /// Reads a metric; not to the end when it is too large.
    fn read_metric(&self, message: &'a [u8], metric: &mut Metric<'a>) -> Result<(), WireError> {
        let own_field = match self.metric_type {
            MetricType::Gauge => 2,
            MetricType::Counter => 3,
            MetricType::Summary => 4,
            MetricType::Histogram | MetricType::GaugeHistogram => 7,
            _ => 5,
        };
        let mut cursor = Message::new(message);
        while let Some((field, value)) = cursor.field()? {
            match field {
                1 => metric.labels.push(read_pair(value.bytes(field)?)?),
                6 => {
                    // Without presence a zero cannot be told from none.
                    let timestamp_ms = value.varint(field)? as i64;
                    metric.timestamp_ms = Some(timestamp_ms).filter(|ms| *ms != 0);
                }
                _ if field == own_field => {
                    let content = value.bytes(field)?;
                    match self.metric_type {
                        MetricType::Summary => metric.read_summary(content)?,
                        MetricType::Histogram | MetricType::GaugeHistogram => {
                            metric.read_histogram(content)?;
                        }
                        _ => metric.read_value(content)?,
                    }
                }
                _ => {}
            }
            if LABELS_MAX < metric.labels.len() {
                break;
            }
        }
        Ok(())
    }
}

impl<'a> Metric<'a> {
    fn clear(&mut self) {
        let (mut labels, mut parts) =
            (std::mem::take(&mut self.labels), std::mem::take(&mut self.parts));
        labels.clear();
        parts.clear();
        *self = Self { labels, parts, ..Self::default() };
    }

    /// Counter, gauge, untyped.
    fn read_value(&mut self, message: &'a [u8]) -> Result<(), WireError> {
        let mut cursor = Message::new(message);
        while let Some((field, value)) = cursor.field()? {
            match field {
                1 => self.value = value.double(field)?,
                2 => self.exemplars = vec![value.bytes(field)?],
                3 => self.start_ms = Some(read_time(value.bytes(field)?)?),
                _ => {}
            }
        }
        Ok(())
    }

    fn read_summary(&mut self, message: &'a [u8]) -> Result<(), WireError> {
        let mut cursor = Message::new(message);
        while let Some((field, value)) = cursor.field()? {
            match field {
                1 => self.count = value.varint(field)? as f64,
                2 => self.sum = value.double(field)?,
                3 => self.parts.push(read_quantile(value.bytes(field)?)?),
                4 => self.start_ms = Some(read_time(value.bytes(field)?)?),
                _ => {}
            }
            if ITEMS_MAX < self.parts.len() {
                break;
            }
        }
        Ok(())
    }

    fn read_histogram(&mut self, message: &'a [u8]) -> Result<(), WireError> {
        self.histogram = message;
        let mut count_float = 0.0;
        let mut cursor = Message::new(message);
        while let Some((field, value)) = cursor.field()? {
            match field {
                1 => self.count = value.varint(field)? as f64,
                2 => self.sum = value.double(field)?,
                3 => self.parts.push(read_bucket(value.bytes(field)?)?),
                4 => count_float = value.double(field)?,
                6 => self.is_native |= value.double(field)? > 0.0,
                7 => self.is_native |= value.varint(field)? > 0,
                9 | 12 => self.is_native = true,
                15 => self.start_ms = Some(read_time(value.bytes(field)?)?),
                16 if self.exemplars.len() < ITEMS_MAX => {
                    self.exemplars.push(value.bytes(field)?);
                }
                _ => {}
            }
            if ITEMS_MAX < self.parts.len() {
                break;
            }
        }
        if count_float != 0.0 {
            self.count = count_float;
        }
        Ok(())
    }

    /// The native histogram.
    pub fn native(&self) -> Result<DecodedHistogram, WireError> {
        decode_exposition(self.histogram)
    }
}

fn read_pair(message: &[u8]) -> Result<(&str, &str), WireError> {
    let (mut name, mut text) = ("", "");
    let mut cursor = Message::new(message);
    while let Some((field, value)) = cursor.field()? {
        match field {
            1 => name = value.text(field)?,
            2 => text = value.text(field)?,
            _ => {}
        }
    }
    Ok((name, text))
}

fn read_quantile(message: &[u8]) -> Result<Part<'_>, WireError> {
    let mut part = Part::default();
    let mut cursor = Message::new(message);
    while let Some((field, value)) = cursor.field()? {
        match field {
            1 => part.bound = value.double(field)?,
            2 => part.value = value.double(field)?,
            _ => {}
        }
    }
    Ok(part)
}

fn read_bucket(message: &[u8]) -> Result<Part<'_>, WireError> {
    let mut part = Part::default();
    let mut float = 0.0;
    let mut cursor = Message::new(message);
    while let Some((field, value)) = cursor.field()? {
        match field {
            1 => part.value = value.varint(field)? as f64,
            2 => part.bound = value.double(field)?,
            3 => part.exemplar = Some(value.bytes(field)?),
            4 => float = value.double(field)?,
            _ => {}
        }
    }
    if float != 0.0 {
        part.value = float;
    }
    Ok(part)
}

/// `google.protobuf.Timestamp` in milliseconds.
fn read_time(message: &[u8]) -> Result<i64, WireError> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    let mut cursor = Message::new(message);
    while let Some((field, value)) = cursor.field()? {
        match field {
            1 => seconds = value.varint(field)? as i64,
            2 => nanos = value.varint(field)? as i64,
            _ => {}
        }
    }
    Ok(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}

/// Decodes an exemplar.
pub fn decode_exemplar(message: &[u8]) -> Result<MaybeTimed, WireError> {
    let (mut labels, mut own_value, mut timestamp_ms) = (Vec::new(), 0.0, None);
    let mut cursor = Message::new(message);
    while let Some((field, value)) = cursor.field()? {
        match field {
            // One with so many is not kept, whatever they are.
            1 if labels.len() == LABELS_MAX => {}
            1 => labels.push(read_pair(value.bytes(field)?)?),
            2 => own_value = value.double(field)?,
            3 => timestamp_ms = Some(read_time(value.bytes(field)?)?),
            _ => {}
        }
    }
    Ok(MaybeTimed { labels: Labels::from_pairs(labels), value: own_value, timestamp_ms })
}

/// Writes expositions, for tests of what reads them.
#[cfg(test)]
pub mod testing {
    use super::super::protobuf::testing::{bytes, double, number, varint};

    /// A family with its length before it.
    pub fn family(name: &str, help: &str, kind: u64, unit: &str, metrics: &[Vec<u8>]) -> Vec<u8> {
        let head = [bytes(1, name), bytes(2, help), number(3, kind), bytes(5, unit)].concat();
        let metrics = metrics.iter().flat_map(|own| bytes(4, own));
        let message: Vec<u8> = head.into_iter().chain(metrics).collect();
        [varint(message.len() as u64), message].concat()
    }

    /// Labels of a metric.
    pub fn labels(pairs: &[(&str, &str)]) -> Vec<u8> {
        let pair =
            |(name, value): &(&str, &str)| bytes(1, [bytes(1, name), bytes(2, value)].concat());
        pairs.iter().flat_map(pair).collect()
    }

    /// `google.protobuf.Timestamp`
    pub fn time(ms: u64) -> Vec<u8> {
        [number(1, ms / 1000), number(2, ms % 1000 * 1_000_000)].concat()
    }

    /// An exemplar.
    pub fn exemplar(trace: &str, value: f64, timestamp_ms: Option<u64>) -> Vec<u8> {
        let timed = timestamp_ms.map(|ms| bytes(3, time(ms))).unwrap_or_default();
        [labels(&[("trace_id", trace)]), double(2, value), timed].concat()
    }

    /// A classic bucket.
    pub fn bucket(bound: f64, cumulative: u64, exemplar: Option<Vec<u8>>) -> Vec<u8> {
        let exemplar = exemplar.map(|own| bytes(3, own)).unwrap_or_default();
        bytes(3, [number(1, cumulative), double(2, bound), exemplar].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::super::protobuf::testing::{bytes, double, number};
    use super::testing::{bucket, exemplar, family, labels, time};
    use super::*;
    use proptest::prelude::*;

    fn shown(body: &[u8]) -> Result<String, ParseError> {
        let mut out = String::new();
        for own in Families::new(body) {
            let own = own?;
            let kind = own.metric_type.as_str();
            out += &format!("{} {:?} {kind} {:?}\n", own.name, own.help, own.unit);
            own.each(|metric| {
                let exemplars: Vec<_> = metric
                    .exemplars
                    .iter()
                    .chain(metric.parts.iter().filter_map(|part| part.exemplar.as_ref()))
                    .filter_map(|own| decode_exemplar(own).ok())
                    .map(|own| format!("{} {} {:?}", own.labels, own.value, own.timestamp_ms))
                    .collect();
                let parts: Vec<_> = metric.parts.iter().map(|own| (own.bound, own.value)).collect();
                out += &format!(
                    "  {:?} {:?} {:?} {} {} {} {parts:?} {exemplars:?} {}\n",
                    metric.labels,
                    metric.timestamp_ms,
                    metric.start_ms,
                    metric.value,
                    metric.count,
                    metric.sum,
                    metric.is_native
                );
                Ok::<(), ParseError>(())
            })?;
        }
        Ok(out)
    }

    fn body() -> Vec<u8> {
        let counter = bytes(
            3,
            [double(1, 3.0), bytes(2, exemplar("x", 1.0, Some(5_500))), bytes(3, time(1_250))]
                .concat(),
        );
        let summary = bytes(
            4,
            [number(1, 4), double(2, 2.5), bytes(3, [double(1, 0.5), double(2, 9.0)].concat())]
                .concat(),
        );
        let buckets =
            [bucket(1.0, 2, Some(exemplar("y", 0.5, None))), bucket(f64::INFINITY, 4, None)];
        let classic = bytes(7, [number(1, 4), double(2, 1.5), buckets.concat()].concat());
        let native = bytes(7, [number(1, 4), bytes(12, [])].concat());
        [
            family(
                "hits_seconds_total",
                "Hits.",
                0,
                "seconds",
                &[[labels(&[("b", "2"), ("a", "1")]), counter].concat()],
            ),
            family(
                "g",
                "",
                1,
                "",
                &[[bytes(2, double(1, -1.0)), number(6, 7)].concat(), Vec::new()],
            ),
            family("s", "", 2, "", &[summary]),
            family("h", "", 4, "", &[classic, native]),
            family("u", "", 3, "", &[]),
        ]
        .concat()
    }

    #[test]
    fn families_and_metrics_are_read() {
        insta::assert_snapshot!(shown(&body()).unwrap(), @r#"
        hits_seconds_total "Hits." counter "seconds"
          [("b", "2"), ("a", "1")] None Some(1250) 3 0 0 [] ["{trace_id=\"x\"} 1 Some(5500)"] false
        g "" gauge ""
          [] Some(7) None -1 0 0 [] [] false
          [] None None 0 0 0 [] [] false
        s "" summary ""
          [] None None 0 4 2.5 [(0.5, 9.0)] [] false
        h "" histogram ""
          [] None None 0 4 1.5 [(1.0, 2.0), (inf, 4.0)] ["{trace_id=\"y\"} 0.5 None"] false
          [] None None 0 4 0 [] [] true
        u "" unknown ""
        "#);
    }

    #[test]
    fn what_is_malformed_is_told() {
        let error = |body: &[u8]| shown(body).unwrap_err().to_string();
        assert_eq!(error(&family("", "", 0, "", &[])), "invalid metric name: ");
        let text = r#"unknown metric type for metric "a": 9"#;
        assert_eq!(error(&family("a", "", 9, "", &[])), text);
        let text = r#"unit "s" not a suffix of metric "ms""#;
        assert_eq!(error(&family("ms", "", 1, "s", &[])), text);
        assert_eq!(error(&body()[..20]), "proto: unexpected end of message");
        let wide = family("a", "", 1, "", &[labels(&vec![("a", "b"); LABELS_MAX + 1])]);
        assert!(error(&wide).contains("more labels"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            flips in prop::collection::vec((0_usize..300, any::<u8>()), 0..4),
        ) {
            let _ = shown(&bytes);
            let _ = shown(&family("h", "", 4, "", &[bytes]));
            let mut body = body();
            for (at, mask) in flips {
                if let Some(byte) = body.get_mut(at) {
                    *byte ^= mask;
                }
            }
            let _ = shown(&body);
        }
    }
}
