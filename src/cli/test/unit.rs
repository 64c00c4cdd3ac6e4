//! Unit tests of rules in promtool's format: series, and what rules and expressions make of them.
//!
//! Each test has a store of its own in memory. Time goes on in steps of the evaluation interval;
//! at each, the samples up to then are there and all groups are evaluated once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use regex::Regex;
use serde::Deserialize;

use super::notation::{Step, sequence};
use super::script::is_same_histogram;
use crate::api::params::parse_time_ms;
use crate::base::clock::SimClock;
use crate::base::disk::{Disk, SimDisk};
use crate::base::metrics::Registry;
use crate::base::rng::SimRng;
use crate::config::Config;
use crate::config::yaml::{self, LabelMap, Span};
use crate::model::alert::Alert;
use crate::model::duration;
use crate::model::float::format_exponent;
use crate::model::histogram::Histogram;
use crate::model::labels::{Labels, quote};
use crate::promql::engine::{Engine, EngineOptions, Query, Value};
use crate::promql::parser::{ParserOptions, parse_metric};
use crate::rules::state::AlertState;
use crate::rules::{AlertSink, Manager, Options, Stores};
use crate::storage::Storage;
use crate::storage::append::{Appender, OnReject, SeriesKey};
use crate::storage::options::{Limits, Options as StorageOptions, Retention, WalSync};

/// Between evaluations, and between samples, where the file says nothing.
const INTERVAL: Span = Span::from_secs(60);
/// Steps of one test; more would take hours.
const STEPS_MAX: i64 = 10_000_000;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    rule_files: Vec<String>,
    evaluation_interval: Option<Span>,
    group_eval_order: Vec<String>,
    fuzzy_compare: bool,
    tests: Vec<Test>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Test {
    name: String,
    interval: Option<Span>,
    input_series: Vec<InputSeries>,
    #[serde(rename = "alert_rule_test")]
    alerts: Vec<AlertCase>,
    #[serde(rename = "promql_expr_test")]
    expressions: Vec<ExprCase>,
    external_labels: LabelMap,
    external_url: String,
    start_timestamp: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputSeries {
    series: String,
    values: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertCase {
    #[serde(default)]
    eval_time: Option<Span>,
    #[serde(default)]
    alertname: String,
    #[serde(default)]
    exp_alerts: Vec<ExpectedAlert>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExpectedAlert {
    exp_labels: LabelMap,
    exp_annotations: LabelMap,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExprCase {
    expr: String,
    #[serde(default)]
    eval_time: Option<Span>,
    #[serde(default)]
    exp_samples: Vec<ExpectedSample>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExpectedSample {
    labels: String,
    value: f64,
    histogram: String,
}

fn ms(span: Option<Span>) -> i64 {
    span.map_or(0, Span::as_ms)
}

/// Runs the tests of a file whose name is wanted. Says how many there were, or what failed.
pub fn run(
    disk: &dyn Disk,
    path: &Path,
    text: &str,
    wanted: Option<&Regex>,
) -> Result<String, Vec<String>> {
    let one = |err: String| vec![err];
    let file: File = yaml::load(path, text).map_err(|err| one(err.to_string()))?;
    let mut ranks = BTreeMap::new();
    for (rank, name) in file.group_eval_order.iter().enumerate() {
        if ranks.insert(name.clone(), rank).is_some() {
            return Err(one(format!("group name repeated in evaluation order: {name}")));
        }
    }
    let (mut errors, mut count) = (Vec::new(), 0);
    for test in &file.tests {
        if wanted.is_none_or(|wanted| wanted.is_match(&test.name)) {
            count += 1;
            let bench = Bench::new(disk, path, &file, test).map_err(|err| vec![err])?;
            errors.extend(bench.run(&file, test, &ranks));
        }
    }
    if errors.is_empty() { Ok(format!("{count} tests passed")) } else { Err(errors) }
}

/// Takes alerts that nobody is told of.
struct Nobody;

impl AlertSink for Nobody {
    fn send(&self, _: &[Alert]) {}
}

/// A sample that is not stored yet.
struct Pending {
    timestamp_ms: i64,
    series: usize,
    step: Step,
}

struct Bench {
    clock: Arc<SimClock>,
    storage: Arc<Storage>,
    engine: Arc<Engine>,
    manager: Arc<Manager>,
    series: Vec<Labels>,
    /// The last is the first to be stored.
    pending: Vec<Pending>,
    start_ms: i64,
}

impl Bench {
    fn new(disk: &dyn Disk, path: &Path, file: &File, test: &Test) -> Result<Self, String> {
        let interval = file.evaluation_interval.filter(|span| !span.is_zero()).unwrap_or(INTERVAL);
        let gap = test.interval.filter(|span| !span.is_zero()).unwrap_or(interval);
        let start_ms = test.start_timestamp.as_deref().map_or(Ok(0), parse_time_ms)?;
        let (series, pending) = input(test, start_ms, gap.as_ms())?;
        let clock = Arc::new(SimClock::new(start_ms));
        let storage = storage(&clock)?;
        let engine_options = EngineOptions {
            lookback_delta_ms: 300_000,
            max_samples: 10_000_000,
            max_bytes: 1 << 30,
            timeout: Duration::from_mins(2),
            max_concurrency: 1,
            helper_threads: 0,
            default_subquery_step_ms: Arc::new(AtomicI64::new(interval.as_ms())),
            parser: ParserOptions::ALL,
            delayed_name_removal: false,
            type_and_unit_labels: false,
            use_start_timestamps: false,
        };
        let registry = Registry::new();
        let select = Arc::clone(&storage);
        let engine = Arc::new(Engine::new(select, clock.clone(), &registry, engine_options));
        let stores = Stores {
            engine: engine.clone(),
            select: storage.clone(),
            appender: storage.clone(),
            sink: Arc::new(Nobody),
        };
        let options = Options {
            external_labels: Labels::empty(),
            external_url: test.external_url.clone(),
            for_outage_tolerance_ms: 0,
            for_grace_period_ms: 0,
            resend_delay_ms: 60_000,
        };
        // The rule files are found and read as those of a main file in the same place.
        let main = serde_json::json!({
            "global": { "evaluation_interval": format!("{}ms", gap.as_ms()) },
            "rule_files": file.rule_files,
        });
        let config = Config::parse(path, &main.to_string(), disk, &|_| None);
        let config = config.map_err(|err| err.to_string())?;
        let groups = config.rule_groups(disk, ParserOptions::ALL).map_err(|errors| {
            errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        })?;
        let manager = Manager::new(stores, clock.clone(), &registry, options);
        // Groups that come later have no earlier run to look for.
        manager.apply(Labels::empty(), Vec::new());
        manager.apply(Labels::from_pairs(test.external_labels.iter()), groups);
        Ok(Self { clock, storage, engine, manager, series, pending, start_ms })
    }

    fn run(mut self, file: &File, test: &Test, ranks: &BTreeMap<String, usize>) -> Vec<String> {
        let interval = file.evaluation_interval.filter(|span| !span.is_zero()).unwrap_or(INTERVAL);
        let alert_times = test.alerts.iter().map(|case| ms(case.eval_time));
        let expr_times = test.expressions.iter().map(|case| ms(case.eval_time));
        let last_ms = alert_times.chain(expr_times).max().unwrap_or(0);
        if last_ms / interval.as_ms() > STEPS_MAX {
            return vec![format!("test has more than {STEPS_MAX} evaluations")];
        }
        if let Some(case) = test.alerts.iter().find(|case| case.alertname.is_empty()) {
            let time = time_text(case.eval_time);
            return vec![format!(
                "an item under alert_rule_test misses required attribute alertname at eval_time {time}{}",
                if test.name.is_empty() {
                    String::new()
                } else {
                    format!(" (in TestGroup {})", test.name)
                }
            )];
        }
        let mut errors = Vec::new();
        let mut elapsed_ms = 0;
        while elapsed_ms <= last_ms {
            if let Err(err) = self.go_to(self.start_ms + elapsed_ms) {
                errors.push(err);
                return errors;
            }
            let rank = |name: &str| ranks.get(name).copied().unwrap_or(0);
            self.manager.evaluate_all_at(self.start_ms + elapsed_ms, rank);
            let failed = self.failed_rules(elapsed_ms);
            if !failed.is_empty() {
                errors.extend(failed);
                return errors;
            }
            let next_ms = elapsed_ms + interval.as_ms();
            let is_now = |case: &&AlertCase| (elapsed_ms..next_ms).contains(&ms(case.eval_time));
            let cases = test.alerts.iter().filter(is_now);
            errors.extend(cases.filter_map(|case| self.check_alerts(&test.name, case).err()));
            elapsed_ms = next_ms;
        }
        let cases = test.expressions.iter();
        errors.extend(cases.filter_map(|case| self.check_expr(case, file.fuzzy_compare).err()));
        self.storage.close();
        errors
    }

    /// Stores the samples up to this moment.
    fn go_to(&mut self, timestamp_ms: i64) -> Result<(), String> {
        let now_ms = crate::base::clock::Clock::now_ms(&*self.clock);
        self.clock.advance_ms(timestamp_ms - now_ms);
        let mut batch = self.storage.appender(OnReject::Abort);
        while let Some(sample) = self.pending.pop_if(|next| next.timestamp_ms <= timestamp_ms) {
            let Some(labels) = self.series.get(sample.series) else { continue };
            let key = SeriesKey::Labels(labels);
            match &sample.step {
                Step::Omitted => {}
                Step::Float(value) => batch.float(key, sample.timestamp_ms, *value),
                Step::Histogram(own, _) => batch.histogram(key, sample.timestamp_ms, own),
            }
        }
        batch.commit().map(drop).map_err(|err| err.to_string())
    }

    fn failed_rules(&self, elapsed_ms: i64) -> Vec<String> {
        let time = duration::format(Duration::from_millis(elapsed_ms as u64));
        let groups = self.manager.groups();
        let rules = groups.iter().flat_map(|group| &group.rules);
        rules
            .filter(|rule| !rule.last_error.is_empty())
            .map(|rule| format!("    rule: {}, time: {time}, err: {}", rule.name, rule.last_error))
            .collect()
    }

    fn check_alerts(&self, test: &str, case: &AlertCase) -> Result<(), String> {
        let groups = self.manager.groups();
        let rules = groups.iter().flat_map(|group| &group.rules);
        let alerts = rules
            .filter(|rule| rule.name == case.alertname)
            .filter_map(|rule| rule.alerting.as_ref())
            .flat_map(|alerting| &alerting.alerts);
        let mut got: Vec<(Labels, Labels)> = alerts
            .filter(|alert| alert.state == AlertState::Firing)
            .map(|alert| (alert.labels.clone(), alert.annotations.clone()))
            .collect();
        let mut expected: Vec<(Labels, Labels)> = case
            .exp_alerts
            .iter()
            .map(|alert| {
                let mut labels = Labels::from_pairs(alert.exp_labels.iter()).to_builder();
                labels.set("alertname", &case.alertname);
                (labels.build(), Labels::from_pairs(alert.exp_annotations.iter()))
            })
            .collect();
        got.sort();
        expected.sort();
        if got == expected {
            return Ok(());
        }
        let name = if test.is_empty() { String::new() } else { format!("    name: {test},\n") };
        Err(format!(
            "{name}    alertname: {}, time: {}, \n        exp:{}, \n        got:{}",
            case.alertname,
            time_text(case.eval_time),
            alerts_text(&expected),
            alerts_text(&got)
        ))
    }

    fn check_expr(&self, case: &ExprCase, is_fuzzy: bool) -> Result<(), String> {
        let place = format!("    expr: {}, time: {}", quote(&case.expr), time_text(case.eval_time));
        let fail = |err: String| format!("{place}, err: {err}");
        let mut got = self.value(case).map_err(fail)?;
        let mut expected = Vec::new();
        for sample in &case.exp_samples {
            let read = expected_sample(sample);
            let named = |err| fail(format!("labels {}: {err}", quote(&sample.labels)));
            expected.push(read.map_err(named)?);
        }
        got.sort_by(|a, b| a.0.cmp(&b.0));
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        let is_same = |(a, b): (&Found, &Found)| a.0 == b.0 && is_same_value(&a.1, &b.1, is_fuzzy);
        if expected.len() == got.len() && expected.iter().zip(&got).all(is_same) {
            return Ok(());
        }
        let (expected, got) = (samples_text(&expected), samples_text(&got));
        Err(format!("{place},\n        exp: {expected}\n        got: {got}"))
    }

    fn value(&self, case: &ExprCase) -> Result<Vec<Found>, String> {
        let at_ms = self.start_ms + ms(case.eval_time);
        let output = self.engine.instant(&Query::new(&case.expr), at_ms);
        match output.map_err(|err| err.to_string())?.value {
            Value::Scalar { value, .. } => Ok(vec![(Labels::empty(), Step::Float(value))]),
            Value::Vector(samples) => Ok(samples
                .into_iter()
                .map(|sample| match sample.histogram {
                    Some(histogram) => (sample.labels, Step::Histogram(histogram, true)),
                    None => (sample.labels, Step::Float(sample.value)),
                })
                .collect()),
            _ => Err("rule result is not a vector or scalar".to_owned()),
        }
    }
}

/// A sample of a result.
type Found = (Labels, Step);

fn storage(clock: &Arc<SimClock>) -> Result<Arc<Storage>, String> {
    let options = StorageOptions {
        path: "/data".into(),
        retention: Retention::default(),
        limits: Limits::default(),
        reserve_bytes_max: 0,
        out_of_order_window_ms: Arc::new(AtomicI64::new(0)),
        wal_sync: WalSync::Never,
        log_file_bytes_max: 256 << 20,
        log_file_age_max_ms: i64::MAX,
        future_ms_max: 0,
        start_timestamps: crate::storage::options::StartTimestamps::default(),
    };
    let (disk, rng) = (Arc::new(SimDisk::new(1)), Arc::new(SimRng::new(1)));
    Storage::open(disk, clock.clone(), rng, &Registry::new(), options)
        .map_err(|err| err.to_string())
}

/// The series of a test and their samples, the latest first.
fn input(test: &Test, start_ms: i64, gap_ms: i64) -> Result<(Vec<Labels>, Vec<Pending>), String> {
    let (mut series, mut pending) = (Vec::new(), Vec::new());
    let mut known = BTreeSet::new();
    for input in &test.input_series {
        let fail = |err: String| format!("series {}: {err}", quote(&input.series));
        let labels = parse_metric(&input.series).map_err(|err| fail(err.to_string()))?;
        if !known.insert(labels.clone()) {
            return Err(fail("is given twice".to_owned()));
        }
        for (index, step) in sequence(&input.values).map_err(fail)?.into_iter().enumerate() {
            let timestamp_ms = start_ms.saturating_add((index as i64).saturating_mul(gap_ms));
            pending.push(Pending { timestamp_ms, series: series.len(), step });
        }
        series.push(labels);
    }
    pending.sort_by_key(|sample| std::cmp::Reverse(sample.timestamp_ms));
    Ok((series, pending))
}

fn expected_sample(sample: &ExpectedSample) -> Result<Found, String> {
    let labels = parse_metric(&sample.labels).map_err(|err| err.to_string())?;
    if sample.histogram.is_empty() {
        return Ok((labels, Step::Float(sample.value)));
    }
    match &sequence(&sample.histogram)?[..] {
        [step @ Step::Histogram(..)] => Ok((labels, step.clone())),
        [step] => Err(format!("expected histogram, got {step:?}")),
        steps => Err(format!("expected 1 value, got {}", steps.len())),
    }
}

fn is_same_value(expected: &Step, got: &Step, is_fuzzy: bool) -> bool {
    match (expected, got) {
        (Step::Float(a), Step::Float(b)) => {
            let is_near = a.next_up() == *b || a.next_down() == *b;
            a == b || (a.is_nan() && b.is_nan()) || (is_fuzzy && is_near)
        }
        (Step::Histogram(a, _), Step::Histogram(b, _)) => is_same_histogram(a, b),
        _ => false,
    }
}

fn time_text(time: Option<Span>) -> String {
    duration::format(time.map_or(Duration::ZERO, |span| span.0))
}

fn samples_text(samples: &[Found]) -> String {
    if samples.is_empty() {
        return "nil".to_owned();
    }
    let histogram = |own: &Histogram| format!("{own:?}");
    let texts = samples.iter().map(|(labels, step)| match step {
        Step::Float(value) => format!("{labels} {}", format_exponent(*value).to_uppercase()),
        Step::Histogram(own, _) => format!("{labels} {}", histogram(own)),
        Step::Omitted => labels.to_string(),
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn alerts_text(alerts: &[(Labels, Labels)]) -> String {
    if alerts.is_empty() {
        return "[]".to_owned();
    }
    let mut out = "[".to_owned();
    for (index, (labels, annotations)) in alerts.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        out.push_str(&format!(
            "{comma}\n            {index}:\n              Labels:{labels}\n              Annotations:{annotations}"
        ));
    }
    out.push_str("\n            ]");
    out
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const RULES: &str = r"
groups:
  - name: second
    rules:
      - record: ratio
        expr: half / 2
  - name: first
    rules:
      - record: half
        expr: up * 0.5
      - alert: Down
        expr: up == 0
        for: 2m
        labels: {severity: page}
        annotations: {summary: '{{ $labels.job }} of {{ $externalLabels.site }} is down'}
";

    fn check(tests: &str, wanted: Option<&str>) -> String {
        let disk = SimDisk::new(1);
        let path = PathBuf::from("/t/tests.yml");
        disk.create_dir_all(Path::new("/t")).unwrap();
        disk.replace(Path::new("/t/rules.yml"), RULES.as_bytes()).unwrap();
        let text = format!("rule_files: [rules.yml]\ngroup_eval_order: [first, second]\n{tests}");
        let wanted = wanted.map(|text| Regex::new(text).unwrap());
        match run(&disk, &path, &text, wanted.as_ref()) {
            Ok(said) => said,
            Err(errors) => errors.join("\n"),
        }
    }

    const GOOD: &str = r#"
tests:
  - name: good
    interval: 1m
    external_labels: {site: here}
    input_series:
      - {series: 'up{job="a"}', values: '1 1 0x5'}
      - {series: 'seen', values: '{{schema:1 count:2 sum:3 buckets:[2]}}'}
    alert_rule_test:
      - {eval_time: 3m, alertname: Down}
      - eval_time: 4m
        alertname: Down
        exp_alerts:
          - exp_labels: {job: a, severity: page}
            exp_annotations: {summary: a of here is down}
    promql_expr_test:
      - expr: ratio
        eval_time: 1m
        exp_samples: [{labels: 'ratio{job="a"}', value: 0.25}]
      - {expr: nothing, eval_time: 1m}
      - expr: seen
        exp_samples: [{labels: seen, histogram: '{{schema:1 count:2 sum:3 buckets:[2]}}'}]
      - expr: count_over_time(ALERTS{alertstate="firing"}[10m])
        eval_time: 6m
        exp_samples: [{labels: '{alertname="Down",alertstate="firing",job="a",severity="page"}', value: 3}]
"#;

    #[test]
    fn what_holds_passes() {
        assert_eq!(check(GOOD, None), "1 tests passed");
        assert_eq!(check(GOOD, Some("^x")), "0 tests passed");
        let later = GOOD.replace("interval: 1m", "interval: 1m\n    start_timestamp: 1600000000");
        assert_eq!(check(&later, None), "1 tests passed");
    }

    #[test]
    fn what_does_not_hold_is_told() {
        let wrong =
            GOOD.replace("value: 0.25", "value: 1").replace("severity: page}", "severity: x}");
        insta::assert_snapshot!(check(&wrong, None), @r#"
    name: good,
    alertname: Down, time: 4m, 
        exp:[
            0:
              Labels:{alertname="Down", job="a", severity="x"}
              Annotations:{summary="a of here is down"}
            ], 
        got:[
            0:
              Labels:{alertname="Down", job="a", severity="page"}
              Annotations:{summary="a of here is down"}
            ]
    expr: "ratio", time: 1m,
        exp: {__name__="ratio", job="a"} 1E+00
        got: {__name__="ratio", job="a"} 2.5E-01
"#);
        assert!(check("tests: [{alert_rule_test: [{eval_time: 1m}]}]", None).contains("misses"));
        let broken = "tests: [{promql_expr_test: [{expr: 'sum(', eval_time: 1m}]}]";
        assert!(check(broken, None).contains("expr: \"sum(\", time: 1m, err: "));
        assert!(check("tests: [{oddity: 1}]", None).contains("unknown field \"oddity\""));
        let twice = "tests: [{input_series: [{series: a, values: '1'}, {series: a, values: '2'}]}]";
        assert_eq!(check(twice, None), "series \"a\": is given twice");
    }
}
