//! Protobuf's JSON of OTLP: 64-bit integers may be texts, floats may be `"NaN"`, enumerations are
//! numbers.

use std::fmt::Display;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::{
    AnyValue, Data, ExemplarPoint, ExponentialPoint, HistogramPoint, KeyValue, NumberPoint,
    PointHead, SummaryPoint, Temporality,
};

/// A number, or a number as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(serde_json::Number),
    Text(String),
}

fn parsed<T: FromStr, E: Error>(written: &Written) -> Result<T, E>
where
    T::Err: Display,
{
    match written {
        Written::Number(number) => number.to_string().parse().map_err(E::custom),
        // `Infinity` and `-Infinity` are words that Rust knows too.
        Written::Text(text) => text.parse().map_err(E::custom),
    }
}

pub(super) fn number<'de, D: Deserializer<'de>, T: FromStr>(from: D) -> Result<T, D::Error>
where
    T::Err: Display,
{
    parsed(&Written::deserialize(from)?)
}

pub(super) fn some_number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    Option::<Written>::deserialize(from)?.as_ref().map(parsed).transpose()
}

pub(super) fn numbers<'de, D: Deserializer<'de>, T: FromStr>(from: D) -> Result<Vec<T>, D::Error>
where
    T::Err: Display,
{
    Vec::<Written>::deserialize(from)?.iter().map(parsed).collect()
}

impl<'de> Deserialize<'de> for AnyValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Values<T> {
            #[serde(default = "Vec::new")]
            values: Vec<T>,
        }
        #[derive(Deserialize)]
        enum Tagged {
            #[serde(rename = "stringValue")]
            Text(String),
            #[serde(rename = "boolValue")]
            Bool(bool),
            #[serde(rename = "intValue")]
            Int(#[serde(deserialize_with = "number")] i64),
            #[serde(rename = "doubleValue")]
            Double(#[serde(deserialize_with = "number")] f64),
            #[serde(rename = "arrayValue")]
            Array(Values<AnyValue>),
            #[serde(rename = "kvlistValue")]
            Map(Values<KeyValue>),
            #[serde(rename = "bytesValue")]
            Bytes(String),
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Tagged(Tagged),
            Empty(IgnoredAny),
        }
        Ok(match Either::deserialize(from)? {
            Either::Empty(_) => Self::Empty,
            Either::Tagged(Tagged::Text(text)) => Self::Text(text),
            Either::Tagged(Tagged::Bool(yes)) => Self::Bool(yes),
            Either::Tagged(Tagged::Int(number)) => Self::Int(number),
            Either::Tagged(Tagged::Double(number)) => Self::Double(number),
            Either::Tagged(Tagged::Array(list)) => Self::Array(list.values),
            Either::Tagged(Tagged::Map(map)) => Self::Map(map.values),
            Either::Tagged(Tagged::Bytes(text)) => {
                Self::Bytes(STANDARD.decode(text).map_err(D::Error::custom)?)
            }
        })
    }
}

impl<'de> Deserialize<'de> for Temporality {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(match Written::deserialize(from)? {
            Written::Number(number) => Self::of(number.as_u64().unwrap_or(0)),
            Written::Text(text) if text.ends_with("_DELTA") => Self::Delta,
            Written::Text(text) if text.ends_with("_CUMULATIVE") => Self::Cumulative,
            Written::Text(_) => Self::Unspecified,
        })
    }
}

impl<'de> Deserialize<'de> for NumberPoint {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Point {
            #[serde(flatten)]
            head: PointHead,
            #[serde(default)]
            as_double: Option<Written>,
            #[serde(default)]
            as_int: Option<Written>,
        }
        let Point { head, as_double, as_int } = Point::deserialize(from)?;
        let value = match (as_double, as_int) {
            (Some(written), _) => parsed(&written)?,
            (None, Some(written)) => parsed::<i64, D::Error>(&written)? as f64,
            (None, None) => 0.0,
        };
        Ok(Self { head, value })
    }
}

impl<'de> Deserialize<'de> for ExemplarPoint {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Point {
            filtered_attributes: Vec<KeyValue>,
            #[serde(deserialize_with = "number")]
            time_unix_nano: u64,
            as_double: Option<Written>,
            as_int: Option<Written>,
            trace_id: String,
            span_id: String,
        }
        let own = Point::deserialize(from)?;
        let value = match (own.as_double, own.as_int) {
            (Some(written), _) => Some(parsed(&written)?),
            (None, Some(written)) => Some(parsed::<i64, D::Error>(&written)? as f64),
            (None, None) => None,
        };
        Ok(Self {
            filtered_attributes: own.filtered_attributes,
            time_unix_nano: own.time_unix_nano,
            value,
            trace_id: own.trace_id.to_ascii_lowercase(),
            span_id: own.span_id.to_ascii_lowercase(),
        })
    }
}

/// The one of `gauge`, `sum` … that is there.
pub(super) fn data<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Data>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Points<T> {
        #[serde(default = "Vec::new", rename = "dataPoints")]
        list: Vec<T>,
        #[serde(default)]
        aggregation_temporality: Temporality,
        #[serde(default)]
        is_monotonic: bool,
    }
    #[derive(Deserialize, Default)]
    #[serde(default, rename_all = "camelCase")]
    struct Kinds {
        gauge: Option<Points<NumberPoint>>,
        sum: Option<Points<NumberPoint>>,
        histogram: Option<Points<HistogramPoint>>,
        exponential_histogram: Option<Points<ExponentialPoint>>,
        summary: Option<Points<SummaryPoint>>,
    }
    let kinds = Kinds::deserialize(from)?;
    Ok(match kinds {
        Kinds { gauge: Some(own), .. } => Some(Data::Gauge(own.list)),
        Kinds { sum: Some(own), .. } => Some(Data::Sum {
            points: own.list,
            temporality: own.aggregation_temporality,
            is_monotonic: own.is_monotonic,
        }),
        Kinds { histogram: Some(own), .. } => {
            Some(Data::Histogram(own.list, own.aggregation_temporality))
        }
        Kinds { exponential_histogram: Some(own), .. } => {
            Some(Data::Exponential(own.list, own.aggregation_temporality))
        }
        Kinds { summary: Some(own), .. } => Some(Data::Summary(own.list)),
        _ => None,
    })
}
