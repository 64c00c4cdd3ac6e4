//! Requests in both forms, written by `prost` and by hand.

use proptest::prelude::*;
use prost::Message as _;

use super::*;

#[derive(Clone, PartialEq, prost::Message)]
struct ProstValue {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "3")]
    int: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProstKeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<ProstValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProstPoint {
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<ProstKeyValue>,
    #[prost(fixed64, tag = "3")]
    time: u64,
    #[prost(sfixed64, optional, tag = "6")]
    int: Option<i64>,
    #[prost(uint32, tag = "8")]
    flags: u32,
    #[prost(message, repeated, tag = "5")]
    exemplars: Vec<ProstExemplar>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProstExemplar {
    #[prost(fixed64, tag = "2")]
    time: u64,
    #[prost(double, optional, tag = "3")]
    double: Option<f64>,
    #[prost(bytes, tag = "4")]
    span: Vec<u8>,
    #[prost(bytes, tag = "5")]
    trace: Vec<u8>,
    #[prost(sfixed64, optional, tag = "6")]
    int: Option<i64>,
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<ProstKeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProstSum {
    #[prost(message, repeated, tag = "1")]
    points: Vec<ProstPoint>,
    #[prost(int32, tag = "2")]
    temporality: i32,
    #[prost(bool, tag = "3")]
    is_monotonic: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProstBuckets {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint64, repeated, tag = "2")]
    counts: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProstExponential {
    #[prost(fixed64, tag = "3")]
    time: u64,
    #[prost(fixed64, tag = "4")]
    count: u64,
    #[prost(double, optional, tag = "5")]
    sum: Option<f64>,
    #[prost(sint32, tag = "6")]
    scale: i32,
    #[prost(message, optional, tag = "8")]
    positive: Option<ProstBuckets>,
    #[prost(message, repeated, tag = "11")]
    exemplars: Vec<ProstExemplar>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProstHistogram {
    #[prost(fixed64, tag = "4")]
    count: u64,
    #[prost(fixed64, repeated, tag = "6")]
    counts: Vec<u64>,
    #[prost(double, repeated, packed = "false", tag = "7")]
    bounds: Vec<f64>,
    #[prost(message, repeated, tag = "8")]
    exemplars: Vec<ProstExemplar>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProstExponentials {
    #[prost(message, repeated, tag = "1")]
    points: Vec<ProstExponential>,
    #[prost(int32, tag = "2")]
    temporality: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProstHistograms {
    #[prost(message, repeated, tag = "1")]
    points: Vec<ProstHistogram>,
    #[prost(int32, tag = "2")]
    temporality: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProstMetric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    unit: String,
    #[prost(message, optional, tag = "7")]
    sum: Option<ProstSum>,
    #[prost(message, optional, tag = "9")]
    histogram: Option<ProstHistograms>,
    #[prost(message, optional, tag = "10")]
    exponential: Option<ProstExponentials>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProstScope {
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<ProstMetric>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProstResource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<ProstKeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProstResourceMetrics {
    #[prost(message, optional, tag = "1")]
    resource: Option<ProstResource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ProstScope>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProstRequest {
    #[prost(message, repeated, tag = "1")]
    all: Vec<ProstResourceMetrics>,
}

fn attribute(key: &str, text: &str) -> ProstKeyValue {
    let value = ProstValue { text: Some(text.to_owned()), int: None };
    ProstKeyValue { key: key.to_owned(), value: Some(value) }
}

fn request() -> ProstRequest {
    let point = ProstPoint {
        attributes: vec![attribute("path", "/")],
        time: 5_000_000_000,
        int: Some(-7),
        flags: 1,
        exemplars: vec![ProstExemplar {
            time: 4_000_000_000,
            int: Some(-3),
            span: vec![1, 0xff],
            trace: vec![0xab, 0xcd],
            attributes: vec![attribute("who", "me")],
            ..ProstExemplar::default()
        }],
    };
    let double = |value| ProstExemplar { double: Some(value), ..ProstExemplar::default() };
    let sum = ProstMetric {
        name: "requests".to_owned(),
        unit: "1".to_owned(),
        sum: Some(ProstSum { points: vec![point], temporality: 2, is_monotonic: true }),
        ..ProstMetric::default()
    };
    let exponential = ProstExponential {
        time: 6_000_000_000,
        count: 3,
        sum: Some(1.5),
        scale: -1,
        positive: Some(ProstBuckets { offset: -2, counts: vec![1, 2] }),
        exemplars: vec![double(0.25)],
    };
    let exemplars = vec![ProstExemplar::default()];
    let histogram = ProstHistogram { count: 3, counts: vec![1, 2], bounds: vec![0.5], exemplars };
    let histograms = ProstMetric {
        histogram: Some(ProstHistograms { points: vec![histogram], temporality: 1 }),
        ..ProstMetric::default()
    };
    let exponentials = ProstMetric {
        exponential: Some(ProstExponentials { points: vec![exponential], temporality: 2 }),
        ..ProstMetric::default()
    };
    let resource = ProstResource { attributes: vec![attribute("service.name", "shop")] };
    let scopes = vec![ProstScope { metrics: vec![sum, histograms, exponentials] }];
    ProstRequest { all: vec![ProstResourceMetrics { resource: Some(resource), scopes }] }
}

const JSON: &str = r#"{"resourceMetrics": [{
    "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
    "scopeMetrics": [{"metrics": [
        {"name": "requests", "unit": "1", "sum": {"aggregationTemporality": 2, "isMonotonic": true,
            "dataPoints": [{"attributes": [{"key": "path", "value": {"stringValue": "/"}}],
                "timeUnixNano": "5000000000", "asInt": "-7", "flags": 1, "exemplars": [
                    {"timeUnixNano": "4000000000", "asInt": "-3", "spanId": "01FF", "traceId": "abcd",
                     "filteredAttributes": [{"key": "who", "value": {"stringValue": "me"}}]}]}]}},
        {"histogram": {"aggregationTemporality": "AGGREGATION_TEMPORALITY_DELTA",
            "dataPoints": [{"count": 3, "bucketCounts": ["1", 2], "explicitBounds": [0.5], "exemplars": [{}]}]}},
        {"exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [
            {"timeUnixNano": 6000000000, "count": "3", "sum": 1.5, "scale": -1,
             "positive": {"offset": -2, "bucketCounts": ["1", "2"]},
             "exemplars": [{"asDouble": 0.25}]}]}}
    ]}]
}]}"#;

#[test]
fn both_forms_say_the_same() {
    let from_protobuf = decode_protobuf(&request().encode_to_vec()).unwrap();
    let from_json = decode_json(JSON.as_bytes()).unwrap();
    assert_eq!(from_protobuf, from_json);
    let metrics = &from_json[0].scope_metrics[0].metrics;
    let Some(Data::Sum { points, temporality, is_monotonic }) = &metrics[0].data else { panic!() };
    assert_eq!((*temporality, *is_monotonic), (Temporality::Cumulative, true));
    assert_eq!((points[0].value, points[0].head.timestamp_ms()), (-7.0, 5000));
    assert!(points[0].head.has_no_value());
    let Some(Data::Histogram(points, Temporality::Delta)) = &metrics[1].data else { panic!() };
    assert_eq!(
        (&points[0].bucket_counts[..], &points[0].explicit_bounds[..]),
        (&[1, 2][..], &[0.5][..])
    );
    let Some(Data::Exponential(points, _)) = &metrics[2].data else { panic!() };
    assert_eq!((points[0].scale, points[0].positive.offset), (-1, -2));
}

#[test]
fn values_of_json_are_of_any_kind() {
    let value = |text: &str| serde_json::from_str::<AnyValue>(text).unwrap();
    assert_eq!(value(r#"{"intValue": "9007199254740993"}"#), AnyValue::Int(9_007_199_254_740_993));
    assert!(matches!(value(r#"{"doubleValue": "NaN"}"#), AnyValue::Double(nan) if nan.is_nan()));
    assert_eq!(value("{}"), AnyValue::Empty);
    assert_eq!(value(r#"{"bytesValue": "AQI="}"#), AnyValue::Bytes(vec![1, 2]));
    let list = value(r#"{"arrayValue": {"values": [{"boolValue": true}]}}"#);
    assert_eq!(list, AnyValue::Array(vec![AnyValue::Bool(true)]));
}

#[test]
fn what_a_small_body_can_ask_for_is_bounded() {
    // Two bytes for each empty metric.
    let metrics = [0x12, 0x00].repeat(ITEMS_MAX + 1);
    let nested = |field: u8, bytes: &[u8]| {
        let mut out = vec![field << 3 | 2];
        crate::encoding::wire::protobuf::push_varint(&mut out, bytes.len() as u64);
        out.extend_from_slice(bytes);
        out
    };
    let body = nested(1, &nested(2, &metrics));
    assert!(matches!(decode_protobuf(&body), Err(DecodeError::TooManyItems)));
    let mut value = nested(1, b"deep");
    for _ in 0..100 {
        value = nested(5, &nested(1, &value));
    }
    let body = nested(1, &nested(1, &nested(1, &nested(2, &value))));
    assert!(matches!(decode_protobuf(&body), Err(DecodeError::TooDeep)));
    assert!(decode_protobuf(&body[..body.len() - 1]).is_err());
    let long = vec![b' '; JSON_BYTES_MAX + 1];
    assert!(matches!(decode_json(&long), Err(DecodeError::TooLong)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_source_file(file!()))]

    #[test]
    fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = decode_protobuf(&bytes);
        let _ = decode_json(&bytes);
    }

    #[test]
    fn no_damage_makes_the_readers_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = request().encode_to_vec();
        let place = at.index(body.len());
        body[place] = byte;
        let _ = decode_protobuf(&body);
        let _ = decode_protobuf(&body[..place]);
        let mut text = JSON.as_bytes().to_vec();
        let place = at.index(text.len());
        text[place] = byte;
        let _ = decode_json(&text);
    }
}
