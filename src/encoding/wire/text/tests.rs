//! Valid and invalid expositions, with Prometheus' error texts; and no panic on any bytes.

use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;
use crate::encoding::wire::series;

/// One line per entry.
fn dump(body: &[u8]) -> String {
    let mut out = String::new();
    let (mut pairs, mut family) = (Vec::new(), None);
    for entry in TextParser::new(body) {
        match entry {
            Ok(Entry::Sample(sample)) => {
                let known =
                    family.as_ref().map(|(name, kind): &(String, _)| (name.as_str(), *kind));
                let labels = match series::parse(sample.series, known, &mut pairs) {
                    Ok(()) => format!(
                        "{:?}",
                        pairs.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>()
                    ),
                    Err(err) => err.to_string(),
                };
                out += &format!("{labels} {} {:?}\n", sample.value, sample.timestamp_ms);
            }
            Ok(Entry::Type { metric, metric_type, .. }) => {
                out += &format!("type {metric} {}\n", metric_type.as_str());
                family = Some((metric.into_owned(), metric_type));
            }
            Ok(Entry::Help { metric, help, .. }) => out += &format!("help {metric} {help:?}\n"),
            Ok(other) => out += &format!("{other:?}\n"),
            Err(err) => out += &format!("error at {}: {err}\n", err.offset_bytes),
        }
    }
    out
}

#[test]
fn a_body_is_read_line_by_line() {
    let body = br#"# HELP go_gc_duration_seconds A summary of\n the "GC" \\ x.
# 	TYPE go_gc_duration_seconds summary
go_gc_duration_seconds{quantile="0"} 4.9351e-05
go_gc_duration_seconds{quantile="1",} NaN
go_gc_duration_seconds_count 99
# TYPE lat histogram
lat_bucket { le = "10" , a="x\"y\\z\nw\t" } 3 	 -123
 lat_bucket{le="1000000"}	+Inf
# a comment
#comment
# HELP empty
# TYPE "dotted.name" gauge
{"dotted.name", "l.m"="v", empty=""} 1
{l="v","other name"} 2 1520879607789

foo{a="1",a="2"} 1
end 1"#;
    assert_snapshot!(dump(body), @r#"
    help go_gc_duration_seconds "A summary of\n the \"GC\" \\ x."
    type go_gc_duration_seconds summary
    ["__name__=go_gc_duration_seconds", "quantile=0.0"] 0.000049351 None
    ["__name__=go_gc_duration_seconds", "quantile=1.0"] NaN None
    ["__name__=go_gc_duration_seconds_count"] 99 None
    type lat histogram
    ["__name__=lat_bucket", "a=x\"y\\z\nw\\t", "le=10.0"] 3 Some(-123)
    ["__name__=lat_bucket", "le=1e+06"] inf None
    Comment
    Comment
    help empty ""
    type dotted.name gauge
    ["__name__=dotted.name", "empty=", "l.m=v"] 1 None
    ["__name__=other name", "l=v"] 2 Some(1520879607789)
    label name "a" is not unique: invalid sample 1 None
    ["__name__=end"] 1 None
    "#);
}

#[test]
fn errors_read_like_those_of_prometheus() {
    let mut out = String::new();
    for body in [
        "a",
        "a{b='c'} 1\n",
        "a{b=\n",
        "a{\u{e9}=\"foo\"} 1\n",
        "empty_label_name{=\"\"} 0",
        "foo 1_2\n",
        "foo 0x1p-3\n",
        "foo 0 1_2\n",
        "a true\n",
        "a 1 x\n",
        "something_weird{problem=\"",
        "{a=\"ok\"} 1",
        "{\"a\",\"b\"} 1",
        "a{\"b\"} 1",
        "# TYPE #\n",
        "# TYPE a blob\n",
        "# HELP \n",
        "a{b=\"c\" d=\"e\"} 1",
        "a{b} 1",
        "a 1e999",
        "a 1 99999999999999999999",
        "\u{1F600} 1",
        "a\r\n",
    ] {
        out += &dump(body.as_bytes());
    }
    out += &dump(b"a{b=\"\xff\"} 1\n");
    out += &dump(b"# HELP a \xff\n");
    assert_snapshot!(out, @r##"
    error at 0: expected value after metric, got "\n" ("INVALID") while parsing: "a\n"
    error at 0: expected label value, got "'" ("INVALID") while parsing: "a{b='"
    error at 0: expected label value, got "\n" ("INVALID") while parsing: "a{b=\n"
    error at 0: expected label name, got "\xc3" ("INVALID") while parsing: "a{\xc3"
    error at 0: expected label name, got "=\"" ("EQUAL") while parsing: "empty_label_name{=\""
    error at 0: unsupported character in float while parsing: "foo 1_2"
    error at 0: unsupported character in float while parsing: "foo 0x1p-3"
    error at 0: expected next entry after timestamp, got "_" ("INVALID") while parsing: "foo 0 1_"
    error at 0: strconv.ParseFloat: parsing "true": invalid syntax while parsing: "a true"
    error at 0: expected timestamp or new record, got "x" ("INVALID") while parsing: "a 1 x"
    error at 0: expected label value, got "\"\n" ("INVALID") while parsing: "something_weird{problem=\"\n"
    error at 0: metric name not set while parsing: "{a=\"ok\"} 1"
    error at 0: metric name already set while parsing: "{\"a\",\"b\"}"
    error at 0: metric name already set while parsing: "a{\"b\"}"
    error at 0: expected metric name after TYPE, got "#" ("INVALID") while parsing: "# TYPE #"
    error at 0: invalid metric type "blob"
    error at 0: expected metric name after HELP, got "\n" ("INVALID") while parsing: "# HELP \n"
    error at 0: expected comma or brace close, got "d=" ("LNAME") while parsing: "a{b=\"c\" d="
    error at 0: expected equal, got "} " ("BCLOSE") while parsing: "a{b} "
    error at 0: strconv.ParseFloat: parsing "1e999": value out of range while parsing: "a 1e999"
    error at 0: strconv.ParseInt: parsing "99999999999999999999": value out of range while parsing: "a 1 99999999999999999999"
    error at 0: expected a valid start token, got "\xf0" ("INVALID") while parsing: "\xf0"
    error at 0: strconv.ParseFloat: parsing "\r": invalid syntax while parsing: "a\r"
    error at 0: invalid UTF-8 label value: "\"\xff\""
    error at 0: help text "\xff" is not a valid utf8 string
    "##);
}

#[test]
fn known_lines_are_taken_only_when_they_are_next() {
    let body = b"# HELP a x\na{b=\"c\"} 1\na 2\na {b=\"d\"} 3\n";
    let mut parser = TextParser::new(body);
    assert!(!parser.known_line(b"# HELP a"));
    assert!(parser.known_line(b"# HELP a x\n"));
    assert_eq!(parser.known_sample(b"a"), None);
    assert_eq!(parser.known_sample(b"a{b=\"c\"}").map(|sample| sample.value), Some(1.0));
    assert_eq!(parser.known_sample(b"a").map(|sample| sample.value), Some(2.0));
    assert_eq!(parser.known_sample(b"a"), None, "labels follow");
    assert!(matches!(parser.next(), Some(Ok(Entry::Sample(sample))) if sample.value == 3.0));
    assert_eq!(parser.known_sample(b"a"), None, "the end");
}

/// Entry point for fuzzing: reads a body to its end, labels included.
pub(crate) fn read_all(body: &[u8]) {
    let mut pairs = Vec::new();
    let mut parser = TextParser::new(body);
    let mut previous: &[u8] = b"";
    loop {
        parser.known_sample(previous);
        let Some(Ok(entry)) = parser.next() else { break };
        if let Entry::Sample(sample) = entry {
            previous = sample.series;
            // What the parser accepts, the label reader must understand.
            let result = series::parse(sample.series, None, &mut pairs);
            assert_ne!(result, Err(series::SeriesError::Malformed), "{:?}", sample.series);
        }
    }
}

const SEED: &str = "# HELP a b\\n\n# TYPE a histogram\na_bucket{le=\"1\",x=\"\\\"y\"} 1.5 123\n{\"a b\",c=\"d\"} NaN\na 1e5\n";

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
