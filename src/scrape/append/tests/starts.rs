//! Since when counters are counted, in protobuf and in OpenMetrics.

use super::*;
use crate::encoding::wire::exposition_proto::testing::{bucket, family, time};
use crate::encoding::wire::protobuf::testing::{bytes, double, number};

const PROTOBUF: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                        encoding=delimited";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";

fn bench(reads_starts: bool, convert: bool) -> Bench {
    let mut own = job("j");
    own.reads_starts = reads_starts;
    own.histograms.convert = convert;
    Bench::new(own)
}

#[test]
fn protobuf_tells_starts() {
    let start = |field: u64| bytes(field, time(4_500));
    let counter = bytes(3, [double(1, 3.0), start(3)].concat());
    let summary = bytes(4, [number(1, 4), double(2, 2.5), start(4)].concat());
    let histogram = bytes(7, [number(1, 5), bucket(1.0, 2, None), start(15)].concat());
    let body = [
        family("c_total", "", 0, "", &[counter]),
        family("s", "", 2, "", &[summary]),
        family("h", "", 4, "", &[histogram]),
        family("g", "", 1, "", &[bytes(2, double(1, 1.0))]),
    ];
    assert_snapshot!(bench(false, false).scrape_as(PROTOBUF, &body.concat()), @r#"
    10000 {__name__="c_total", job="j"} 3 since 4500
    10000 {__name__="s_count", job="j"} 4 since 4500
    10000 {__name__="s_sum", job="j"} 2.5 since 4500
    10000 {__name__="h_count", job="j"} 5 since 4500
    10000 {__name__="h_sum", job="j"} 0 since 4500
    10000 {__name__="h_bucket", job="j", le="1.0"} 2 since 4500
    10000 {__name__="h_bucket", job="j", le="+Inf"} 5 since 4500
    10000 {__name__="g", job="j"} 1
    metadata c_total counter ""
    metadata g gauge ""
    metadata h histogram ""
    metadata s summary ""
    scraped 8 kept 8 added 8 duplicates 0
    "#);
    let converted = bench(false, true).scrape_as(PROTOBUF, &body[2]);
    assert!(converted.starts_with("10000 {__name__=\"h\", job=\"j\"} schema -53"), "{converted}");
    assert_eq!(converted.matches(" since 4500\n").count(), 1, "{converted}");
}

#[test]
fn samples_of_openmetrics_tell_the_starts_of_others() {
    let body = "# TYPE c counter\n\
                c_total{x=\"y\"} 2\n\
                c_created{x=\"y\"} 4.5\n\
                c_total{x=\"z\"} 3\n\
                # TYPE h histogram\n\
                h_bucket{le=\"1.0\"} 2\n\
                h_bucket{le=\"+Inf\"} 3\n\
                h_count 3\n\
                h_created 3.25\n\
                # TYPE s summary\n\
                s{quantile=\"0.5\"} 2\n\
                s_count 2\n\
                s_created 2.25\n\
                # TYPE g gauge\n\
                g_created 7\n\
                # EOF\n";
    let mut started = bench(true, false);
    let mut out = started.scrape_as(OPENMETRICS, body.as_bytes());
    let restarted = body.replace("4.5", "14.5");
    out += &started.scrape_as(OPENMETRICS, restarted.as_bytes());
    assert_snapshot!(out, @r#"
    10000 {__name__="c_total", job="j", x="y"} 2 since 4500
    10000 {__name__="c_total", job="j", x="z"} 3
    10000 {__name__="h_bucket", job="j", le="1.0"} 2 since 3250
    10000 {__name__="h_bucket", job="j", le="+Inf"} 3 since 3250
    10000 {__name__="h_count", job="j"} 3 since 3250
    10000 {__name__="s", job="j", quantile="0.5"} 2 since 2250
    10000 {__name__="s_count", job="j"} 2 since 2250
    10000 {__name__="g_created", job="j"} 7
    metadata c counter ""
    metadata g gauge ""
    metadata h histogram ""
    metadata s summary ""
    scraped 8 kept 8 added 8 duplicates 0
    20000 {__name__="c_total", job="j", x="y"} 2 since 14500
    20000 {__name__="c_total", job="j", x="z"} 3
    20000 {__name__="h_bucket", job="j", le="1.0"} 2 since 3250
    20000 {__name__="h_bucket", job="j", le="+Inf"} 3 since 3250
    20000 {__name__="h_count", job="j"} 3 since 3250
    20000 {__name__="s", job="j", quantile="0.5"} 2 since 2250
    20000 {__name__="s_count", job="j"} 2 since 2250
    20000 {__name__="g_created", job="j"} 7
    scraped 8 kept 8 added 0 duplicates 0
    "#);
    let converted = bench(true, true).scrape_as(OPENMETRICS, body.as_bytes());
    assert!(converted.contains("{__name__=\"h\", job=\"j\"} schema -53"), "{converted}");
    assert_eq!(converted.matches(" since 3250\n").count(), 1, "{converted}");
    // Where nobody asks for starts they are series, as ever.
    let plain = bench(false, false).scrape_as(OPENMETRICS, body.as_bytes());
    assert!(plain.contains("10000 {__name__=\"c_created\", job=\"j\", x=\"y\"} 4.5\n"), "{plain}");
    assert!(!plain.contains("since"), "{plain}");
    // Only OpenMetrics has such samples.
    let text = bench(true, false).scrape("# TYPE c counter\nc_created 1\n");
    assert!(text.contains("10000 {__name__=\"c_created\", job=\"j\"} 1\n"), "{text}");
}
