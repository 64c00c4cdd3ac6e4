//! Templates against what Go prints for them. The goldens are not part of this repository:
//! `NARTHEX_SHARED` says where they are, else `../shared` beside the package. Without them the
//! tests pass with a message.

use narthex::model::labels::Labels;
use narthex::template::TemplateError;
use narthex::template::notification::{AlertData, Data, Templates};
use narthex::template::prometheus::{AlertTemplateData, QuerySample, expand_alert_text};

/// 2026-01-02T03:04:05.678Z
const NOW_MS: i64 = 1_767_323_045_678;

fn golden(name: &str) -> Option<Vec<serde_json::Value>> {
    let path = crate::shared::folder("conformance/templates")?.join(name);
    #[expect(clippy::disallowed_methods, reason = "tests read their data from files")]
    let text = std::fs::read_to_string(&path).expect("the folder has the goldens");
    Some(serde_json::from_str(&text).expect("goldens are JSON"))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

fn notification() -> Data {
    let alert = |status: &str, instance: &str, severity: &str| AlertData {
        status: status.to_owned(),
        labels: labels(&[
            ("alertname", "InstanceDown"),
            ("job", "node"),
            ("instance", instance),
            ("severity", severity),
        ]),
        annotations: Labels::empty(),
        starts_at_ms: NOW_MS,
        ends_at_ms: None,
        generator_url: "http://prom/graph?g0.expr=up".to_owned(),
        fingerprint: String::new(),
    };
    Data {
        receiver: "team-x".to_owned(),
        status: "firing".to_owned(),
        alerts: vec![
            AlertData {
                annotations: labels(&[("summary", "b is down"), ("title", "T1")]),
                generator_url: "http://prom/graph?g0.expr=up+%3D%3D+0".to_owned(),
                fingerprint: "0123456789abcdef".to_owned(),
                ..alert("firing", "b:9100", "critical")
            },
            AlertData {
                annotations: labels(&[("summary", "a was down <b>"), ("title", "T1")]),
                ends_at_ms: Some(NOW_MS + 95_000),
                fingerprint: "fedcba9876543210".to_owned(),
                ..alert("resolved", "a:9100", "warning")
            },
        ],
        notification_reason: "new".to_owned(),
        group_labels: labels(&[("alertname", "InstanceDown")]),
        common_labels: labels(&[("alertname", "InstanceDown"), ("job", "node")]),
        common_annotations: labels(&[("title", "T1")]),
        route_labels: Labels::empty(),
        external_url: "http://am:9093".to_owned(),
    }
}

fn query(expr: &str) -> Vec<QuerySample> {
    let sample = |pairs: &[(&str, &str)], value| QuerySample {
        labels: labels(pairs),
        value,
        histogram: None,
    };
    match expr {
        "up" | "up{job=\"node\"}" => [("b:9100", 1.0), ("a:9100", 0.0)]
            .map(|(instance, value)| {
                sample(&[("__name__", "up"), ("instance", instance), ("job", "node")], value)
            })
            .to_vec(),
        "strval" => vec![sample(&[("__value__", "sv")], 1.0)],
        "inf" => vec![sample(&[], f64::INFINITY)],
        "vals" => [
            0.0,
            1.0,
            1.5,
            100_000.0,
            999_999.0,
            1_000_000.0,
            12_345_678.0,
            1e20,
            1e21,
            1.2345e21,
            0.0001,
            0.00001,
            123_456.789,
            f64::NAN,
            -0.5,
            3.000_000_000_000_000_4,
        ]
        .map(|value| sample(&[], value))
        .to_vec(),
        _ => vec![],
    }
}

/// The output, and the error in Go's words.
fn rule_text(text: &str) -> (String, Option<String>) {
    const NAME: &str = "__alert_test";
    let data = AlertTemplateData {
        labels: labels(&[
            ("instance", "node1.example.com:9100"),
            ("job", "node"),
            ("severity", "page"),
        ]),
        external_labels: labels(&[("region", "eu")]),
        external_url: "http://prom.example.com/sub".to_owned(),
        value: 1234.5678,
        histogram: None,
    };
    match expand_alert_text(NAME, text, &data, NOW_MS, &|expr, _| Ok(query(expr))) {
        Ok(out) => (out, None),
        Err(err) => {
            let bare = err
                .strip_prefix(&format!("error executing template {NAME}: "))
                .or(err.strip_prefix(&format!("error parsing template {NAME}: ")));
            (String::new(), Some(bare.unwrap_or(&err).to_owned()))
        }
    }
}

fn notification_text(text: &str, html: bool) -> (String, Option<String>) {
    let (templates, data) = (Templates::builtin(), notification());
    let (out, done): (String, Result<(), TemplateError>) = if html {
        templates.expand_html_partly(text, &data, NOW_MS)
    } else {
        templates.expand_partly(text, &data, NOW_MS)
    };
    // The goldens' data types live in a package of another name.
    (out, done.err().map(|err| err.message.replace("template.", "main.")))
}

/// Runs the cases of a file and reports those that differ.
fn failures(file: &str) -> Option<(usize, Vec<String>)> {
    let cases = golden(file)?;
    let mut failed = Vec::new();
    for case in &cases {
        let field = |name: &str| case[name].as_str().unwrap_or("");
        let text = field("Tmpl");
        let (out, error) = match field("Kind") {
            "prom" => rule_text(text),
            "am" => notification_text(text, false),
            "amhtml" => notification_text(text, true),
            kind => panic!("unknown kind {kind}"),
        };
        let error = error.unwrap_or_default();
        if (out.as_str(), error.as_str()) != (field("expected"), field("error")) {
            let (name, expected) = (field("Name"), (field("expected"), field("error")));
            failed.push(format!(
                "{name}: {text}\n  is     {:?}\n  wanted {expected:?}",
                (out, error)
            ));
        }
    }
    Some((cases.len(), failed))
}

#[test]
fn text_templates_print_what_go_prints() {
    let Some((count, failed)) = failures("golden.json") else { return };
    assert!(failed.is_empty(), "{} of {count} differ:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn html_templates_escape_as_go_does() {
    let Some((count, failed)) = failures("html_golden.json") else { return };
    assert!(failed.is_empty(), "{} of {count} differ:\n{}", failed.len(), failed.join("\n"));
}
