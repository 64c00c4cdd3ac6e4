//! Valid and invalid OpenMetrics bodies, with Prometheus' error texts; and no panic on any bytes.

use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;
use crate::encoding::wire::series;

fn dump(body: &[u8]) -> String {
    let (mut out, mut pairs) = (String::new(), Vec::new());
    for entry in OpenMetricsParser::new(body) {
        match entry {
            Ok(Entry::Sample(sample)) => {
                let labels = match series::parse(sample.series, None, &mut pairs) {
                    Ok(()) => format!(
                        "{:?}",
                        pairs.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>()
                    ),
                    Err(err) => err.to_string(),
                };
                out += &format!("{labels} {} {:?}", sample.value, sample.timestamp_ms);
                if let Some(exemplar) = sample.exemplar {
                    let labels = String::from_utf8_lossy(exemplar.labels);
                    out += &format!(" # {labels} {} {:?}", exemplar.value, exemplar.timestamp_ms);
                }
                out += "\n";
            }
            Ok(Entry::Type { metric, metric_type, .. }) => {
                out += &format!("type {metric} {}\n", metric_type.as_str());
            }
            Ok(Entry::Help { metric, help, .. }) => out += &format!("help {metric} {help:?}\n"),
            Ok(Entry::Unit { metric, unit, .. }) => out += &format!("unit {metric} {unit}\n"),
            Ok(other) => out += &format!("{other:?}\n"),
            Err(err) => out += &format!("error at {}: {err}\n", err.offset_bytes),
        }
    }
    out
}

#[test]
fn a_body_is_read_line_by_line() {
    let body = br#"# HELP foo_seconds Counter with\n and "quotes"
# TYPE foo_seconds counter
# UNIT foo_seconds seconds
foo_seconds_total{a="b"} 17.0 1520879607.789 # {id="counter-test"} 5
foo_seconds_created 1520872607.123
# TYPE bar gaugehistogram
bar_bucket{le="+Inf"} 17 # {} 0.5 1.5
# TYPE baz stateset
# HELP baz
{"my.name","l.m"="v"} NaN
a{b="c",} 1
# EOF
"#;
    assert_snapshot!(dump(body), @r#"
    help foo_seconds "Counter with\n and \"quotes\""
    type foo_seconds counter
    unit foo_seconds seconds
    ["__name__=foo_seconds_total", "a=b"] 17 Some(1520879607789) # {id="counter-test"} 5 None
    ["__name__=foo_seconds_created"] 1520872607.123 None
    type bar gaugehistogram
    ["__name__=bar_bucket", "le=+Inf"] 17 None # {} 0.5 Some(1500)
    type baz stateset
    help baz ""
    ["__name__=my.name", "l.m=v"] NaN None
    ["__name__=a", "b=c"] 1 None
    "#);
    assert_eq!(dump(b"# EOF"), "");
}

#[test]
fn errors_read_like_those_of_prometheus() {
    let mut out = String::new();
    for body in [
        "",
        "a 1\n",
        "a 1",
        "\n\n# EOF",
        "#EOF\n",
        "# EOF\n\n",
        "# EOFfoo\n",
        "a\t1\n# EOF\n",
        "a 1\t2\n# EOF\n",
        "a 1 2 \n# EOF\n",
        "a 1 1z\n# EOF\n",
        "a 1 NaN\n# EOF\n",
        "a\n# EOF\n",
        " a 1\n# EOF\n",
        "9\n# EOF\n",
        "# TYPE a untyped\n# EOF\n",
        "# TYPE  a gauge\n# EOF\n",
        "# UNIT a seconds\n# EOF\n",
        "# UNIT aseconds seconds\n# EOF\n",
        "# foo\n# EOF\n",
        "a{b = \"c\"} 1\n# EOF\n",
        "a{b=\"c\",,d=\"e\"} 1\n# EOF\n",
        "{\"a\",\"b\"} 1\n# EOF\n",
        "{b=\"c\"} 1\n# EOF\n",
        "a 1 # {b=\"c\n# EOF\n",
        "a 1 # {b=\"c\"}\n# EOF\n",
        "a 1 # {b=\"c\"} 1 2 3\n# EOF\n",
    ] {
        out += &dump(body.as_bytes());
    }
    assert_snapshot!(out, @r##"
    error at 0: data does not end with # EOF
    ["__name__=a"] 1 None
    error at 4: data does not end with # EOF
    error at 0: data does not end with # EOF
    error at 0: expected a valid start token, got "\n" ("INVALID") while parsing: "\n"
    error at 0: expected a valid start token, got "#" ("INVALID") while parsing: "#"
    error at 0: unexpected data after # EOF
    error at 0: unexpected data after # EOF
    error at 0: expected value after metric, got "\t" ("INVALID") while parsing: "a\t"
    error at 0: strconv.ParseFloat: parsing "1\t2": invalid syntax while parsing: "a 1\t2"
    error at 0: expected next entry after timestamp, got " \n" ("INVALID") while parsing: "a 1 2 \n"
    error at 0: strconv.ParseFloat: parsing "1z": invalid syntax while parsing: "a 1 1z"
    error at 0: invalid timestamp NaN
    error at 0: expected value after metric, got "\n" ("INVALID") while parsing: "a\n"
    error at 0: expected a valid start token, got " " ("INVALID") while parsing: " "
    error at 0: expected a valid start token, got "9" ("INVALID") while parsing: "9"
    error at 0: invalid metric type "untyped"
    error at 0: expected metric name after TYPE, got " " ("INVALID") while parsing: "# TYPE  "
    error at 0: unit "seconds" not a suffix of metric "a"
    error at 0: unit "seconds" not a suffix of metric "aseconds"
    error at 0: expected a valid start token, got "# " ("INVALID") while parsing: "# "
    error at 0: expected equal, got " " ("INVALID") while parsing: "a{b "
    error at 0: expected label name, got ",d" ("COMMA") while parsing: "a{b=\"c\",,d"
    error at 0: metric name already set while parsing: "{\"a\",\"b\"}"
    error at 0: metric name not set while parsing: "{b=\"c\"} 1"
    error at 0: expected label value, got "\"c\n# EOF\n" ("INVALID") while parsing: "a 1 # {b=\"c\n# EOF\n"
    error at 0: expected value after exemplar labels, got "\n" ("INVALID") while parsing: "a 1 # {b=\"c\"}\n"
    error at 0: expected next entry after timestamp, got " 3" ("INVALID") while parsing: "a 1 # {b=\"c\"} 1 2 3"
    "##);
}

#[test]
fn known_samples_carry_timestamps_and_exemplars_too() {
    let body = b"a{b=\"c\"} 1 2.5 # {x=\"y\"} 3\n# EOF\n";
    let mut parser = OpenMetricsParser::new(body);
    let sample = parser.known_sample(b"a{b=\"c\"}").unwrap();
    assert_eq!((sample.value, sample.timestamp_ms), (1.0, Some(2500)));
    assert!(sample.exemplar.is_some());
    assert!(parser.next().is_none());
}

fn read_all(body: &[u8]) {
    let mut pairs = Vec::new();
    for entry in OpenMetricsParser::new(body) {
        if let Ok(Entry::Sample(sample)) = entry {
            let result = series::parse(sample.series, None, &mut pairs);
            assert_ne!(result, Err(series::SeriesError::Malformed), "{:?}", sample.series);
        }
    }
}

const SEED: &str = "# HELP a b\\n\n# TYPE a histogram\n# UNIT a_s s\na_bucket{le=\"1\",x=\"\\\"y\"} 1.5 123 # {t=\"x\"} 1 2\n{\"a b\",c=\"d\"} NaN\na 1e5\n# EOF\n";

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_cause_a_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&body);
    }

    #[test]
    fn no_mutation_causes_a_panic(edits in prop::collection::vec((0..SEED.len(), prop::sample::select(b"\"\\{}=,# \n\t1a\xff".to_vec()), any::<bool>()), 1..6)) {
        let mut body = SEED.as_bytes().to_vec();
        for (at, byte, insert) in edits {
            if insert { body.insert(at, byte) } else { body[at] = byte }
        }
        read_all(&body);
    }
}
