//! The main file: defaults, inheritance, errors, redaction.

use super::*;
use crate::base::disk::SimDisk;
use std::time::Duration;

fn disk_with(files: &[(&str, &str)]) -> SimDisk {
    let disk = SimDisk::new(1);
    for (path, text) in files {
        let path = Path::new(path);
        disk.create_dir_all(path.parent().unwrap()).unwrap();
        disk.create(path).unwrap().write_at(text.as_bytes(), 0).unwrap();
    }
    disk
}

fn environment(name: &str) -> Option<String> {
    (name == "DC").then(|| "eu-1".to_owned())
}

fn parse(text: &str) -> Result<Config, String> {
    let path = Path::new("/etc/n/narthex.yml");
    Config::parse(path, text, &disk_with(&[]), &environment).map_err(|err| err.to_string())
}

fn error(text: &str) -> String {
    parse(text).unwrap_err()
}

#[test]
fn an_empty_file_is_all_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.evaluation_interval_ms(), 60_000);
    assert_eq!(config.external_labels(), Labels::empty());
    let storage = config.storage();
    assert_eq!(storage.out_of_order_window, Duration::from_hours(2));
    assert_eq!(storage.retention_time, Some(Duration::from_hours(15 * 24)));
    assert!(!storage.is_retention_set);
    insta::assert_snapshot!(config.to_yaml_redacted(), @r"
global:
  scrape_interval: 1m
  scrape_timeout: 10s
  evaluation_interval: 1m
");
}

#[test]
fn jobs_inherit_from_global() {
    let config = parse(
        "global: {scrape_interval: 5s, sample_limit: 10, external_labels: {dc: '${DC}', c: a$$b, none: $NONE}}\n\
         scrape_configs:\n\
         - job_name: a\n  static_configs: [{targets: ['h:1', 'h:2'], labels: {x: y}}]\n\
         - job_name: b\n  scrape_interval: 2m\n  sample_limit: 5\n  honor_timestamps: false\n\
         - job_name: c\n  scrape_timeout: 3s\n  fallback_scrape_protocol: PrometheusText0.0.4\n",
    )
    .unwrap();
    let times: Vec<_> = config
        .scrape_jobs()
        .iter()
        .map(|job| (job.interval.as_secs(), job.timeout.as_secs(), job.sample_limit))
        .collect();
    assert_eq!(times, [(5, 5, 10), (120, 5, 5), (5, 3, 10)]);
    assert_eq!(config.external_labels().to_string(), r#"{c="a$b", dc="eu-1"}"#);
    let jobs = config.scrape_jobs();
    assert_eq!((jobs[0].metrics_path.as_str(), jobs[0].scheme.as_str()), ("/metrics", "http"));
    assert!(jobs[0].honor_timestamps && !jobs[1].honor_timestamps);
    let Some([discovery::Options::Static(groups)]) =
        config.scrape_discovery().get("a").map(Vec::as_slice)
    else {
        panic!("one static section")
    };
    assert_eq!(groups[0].targets.len(), 2);
    assert_eq!(groups[0].labels.to_string(), r#"{x="y"}"#);
}

#[test]
fn retention_and_limits_have_rules() {
    let config = parse(
        "storage:\n  tsdb: {retention: {percentage: 80}}\n  retention:\n  - {match: '{job=\"debug\"}', time: 2d}\n  \
         - {match: audit_events_total, time: 0s}\n  limits: {active_series: 10, jobs: {node: 3, free: 0}}\n",
    )
    .unwrap();
    let storage = config.storage();
    assert_eq!(storage.retention_percentage, Some(80.0));
    assert_eq!(storage.retention_time, Some(Duration::from_hours(15 * 24)));
    let times: Vec<_> = storage.retention_rules.iter().map(|rule| rule.time_ms).collect();
    assert_eq!(times, [Some(2 * 86_400_000), None]);
    assert_eq!(format!("{:?}", storage.retention_rules[0].matchers), r#"[job="debug"]"#);
    let limits = storage.limits;
    assert_eq!((limits.active_series, limits.active_series_per_job), (Some(10), None));
    assert_eq!((limits.jobs["node"], limits.jobs["free"]), (Some(3), None));
}

#[test]
fn errors_say_what_and_where() {
    let job = |rest: &str| error(&format!("scrape_configs:\n- job_name: a\n{rest}"));
    insta::assert_snapshot!(error("global: {scrape_interval: 15x}"), @r#"/etc/n/narthex.yml:1:27: unknown unit "x" in duration "15x""#);
    insta::assert_snapshot!(error("globl: {}"), @r#"/etc/n/narthex.yml:1:1: unknown field "globl", expected one of: alerting, global, otlp, rule_files, runtime, scrape_config_files, scrape_configs, storage, tracing"#);
    insta::assert_snapshot!(error("global: {scrape_interval: 1s, scrape_timeout: 5s}"), @"/etc/n/narthex.yml:1:47: global scrape timeout greater than scrape interval");
    insta::assert_snapshot!(error("global: {external_labels: {'': x}}"), @r#"/etc/n/narthex.yml: "" is not a valid label name"#);
    insta::assert_snapshot!(error("remote_write: []"), @"/etc/n/narthex.yml:1:1: remote_write is not supported yet");
    insta::assert_snapshot!(error("rule_files: ['a/*/b.yml']"), @r#"/etc/n/narthex.yml:1:14: invalid rule file path "a/*/b.yml""#);
    insta::assert_snapshot!(error("scrape_configs: [{}]"), @"/etc/n/narthex.yml: job_name is empty");
    insta::assert_snapshot!(job("- job_name: a"), @r#"/etc/n/narthex.yml:3:13: found multiple scrape configs with job name "a""#);
    insta::assert_snapshot!(job("  scrape_interval: 1s\n  scrape_timeout: 2s"), @r#"/etc/n/narthex.yml:4:19: scrape timeout greater than scrape interval for scrape config with job name "a""#);
    insta::assert_snapshot!(job("  kubernetes_sd_configs: []"), @"/etc/n/narthex.yml:3:3: kubernetes_sd_configs is not supported yet");
    insta::assert_snapshot!(job("  relabel_configs: [{action: nope}]"), @r#"/etc/n/narthex.yml:2:13: unknown relabel action "nope""#);
    insta::assert_snapshot!(job("  file_sd_configs: [{files: ['a.txt']}]"), @r#"/etc/n/narthex.yml:2:13: path name "a.txt" is not valid for file discovery"#);
    insta::assert_snapshot!(job("  scheme: ftp"), @r#"/etc/n/narthex.yml:2:13: unsupported scheme "ftp""#);
    insta::assert_snapshot!(job("  fallback_scrape_protocol: X"), @r#"/etc/n/narthex.yml:2:13: invalid fallback_scrape_protocol for scrape config with job name "a": unknown scrape protocol "X", supported: [PrometheusProto PrometheusText0.0.4 PrometheusText1.0.0 OpenMetricsText0.0.1 OpenMetricsText1.0.0]"#);
    insta::assert_snapshot!(job("  basic_auth: {password: a, password_file: b}"), @"/etc/n/narthex.yml:2:13: at most one of basic_auth password, password_file & password_ref must be configured");
    insta::assert_snapshot!(error("alerting: {alertmanagers: [{api_version: v1}]}"), @"/etc/n/narthex.yml:1:28: expected Alertmanager api version to be one of [v2] but got v1");
    insta::assert_snapshot!(error("storage: {tsdb: {retention: {percentage: 101}}}"), @"/etc/n/narthex.yml: storage.tsdb.retention.percentage must be in the range [0, 100]");
    insta::assert_snapshot!(error("storage: {retention: [{match: up}]}"), @"/etc/n/narthex.yml:1:23: storage.retention entry without time");
    assert!(
        error("storage: {retention: [{match: 'up{', time: 1d}]}")
            .contains("storage.retention match")
    );
}

#[test]
fn the_shown_configuration_hides_secrets() {
    let config = parse(
        "scrape_configs:\n- job_name: a\n  basic_auth: {username: u, password: p4ss}\n\
         alerting:\n  alertmanagers:\n  - static_configs: [{targets: ['am:9093']}]\n    authorization: {credentials: p4ss}\n",
    )
    .unwrap();
    let shown = config.to_yaml_redacted();
    assert!(!shown.contains("p4ss") && !format!("{config:?}").contains("p4ss"));
    insta::assert_snapshot!(shown, @r"
global:
  scrape_interval: 1m
  scrape_timeout: 10s
  evaluation_interval: 1m
alerting:
  alertmanagers:
  - static_configs:
    - targets:
      - am:9093
    authorization:
      credentials: <secret>
scrape_configs:
- job_name: a
  honor_labels: false
  honor_timestamps: true
  track_timestamps_staleness: false
  scrape_interval: 1m
  scrape_timeout: 10s
  metrics_path: /metrics
  scheme: http
  enable_compression: true
  basic_auth:
    username: u
    password: <secret>
");
    let again = parse(&shown).unwrap();
    assert_eq!(again.to_yaml_redacted(), shown, "what is shown can be loaded");
}

#[test]
fn files_are_found_beside_the_main_file() {
    let rule = "groups: [{name: g, rules: [{record: a, expr: b}]}]";
    let disk = disk_with(&[
        (
            "/etc/n/narthex.yml",
            "rule_files: ['rules/*.yml', rules/a.yml, gone.yml]\nscrape_config_files: ['jobs/*.yml']",
        ),
        ("/etc/n/rules/a.yml", rule),
        ("/etc/n/rules/b.yml", rule),
        ("/etc/n/rules/c.txt", "not read"),
        ("/etc/n/jobs/one.yml", "scrape_configs: [{job_name: one, tls_config: {ca_file: ca.pem}}]"),
    ]);
    let config = Config::load(Path::new("/etc/n/narthex.yml"), &disk, &environment).unwrap();
    let groups = config.rule_groups(&disk, ParserOptions::ALL).unwrap();
    let files: Vec<_> = groups.iter().map(|group| group.file.as_str()).collect();
    assert_eq!(files, ["/etc/n/rules/a.yml", "/etc/n/rules/b.yml"]);
    assert_eq!(config.scrape_jobs()[0].job_name, "one");
    let missing = config.missing_files(&disk).iter().map(ToString::to_string).collect::<Vec<_>>();
    insta::assert_snapshot!(missing.join("\n"), @r#"
/etc/n/narthex.yml:1:42: "gone.yml" does not point to an existing file
/etc/n/jobs/one.yml:1:29: file "/etc/n/jobs/ca.pem" does not exist
"#);
}

#[test]
fn alertmanagers_become_sets_of_the_notifier() {
    let config = parse(
        "alerting:\n  alert_relabel_configs: [{action: labeldrop, regex: replica}]\n  alertmanagers:\n  \
         - scheme: https\n    path_prefix: /am\n    timeout: 3s\n    static_configs: [{targets: ['am:9093']}]\n",
    )
    .unwrap();
    let limits =
        NotifierLimits { queue_capacity: 10_000, batch_size: 256, drain_on_shutdown: true };
    let options = config.notifier(limits);
    let set = &options.sets[0];
    assert_eq!((set.name.as_str(), set.scheme.as_str()), ("config-0", "https"));
    assert_eq!((set.path_prefix.as_str(), set.timeout), ("/am", Duration::from_secs(3)));
    assert_eq!(options.alert_relabel_rules.len(), 1);
    assert_eq!(config.alertmanager_discovery().keys().collect::<Vec<_>>(), ["config-0"]);
}
