//! Configurations that load, and the words in which others are refused.

use super::*;
use crate::alerting::receiver::Settings;
use crate::alerting::route::{RouteTree, group_key};
use crate::base::disk::{OsDisk, SimDisk};

fn parse_text(text: &str) -> Result<alerting::Options, ConfigError> {
    let flags = Flags { external_url: "http://here".to_owned(), retention_ms: 432_000_000 };
    parse(&SimDisk::new(1), Path::new("/etc/am/alertmanager.yml"), text, &flags)
}

fn error(text: &str) -> String {
    parse_text(text).unwrap_err().to_string().replace("/etc/am/", "")
}

const FULL: &str = r#"
global:
  resolve_timeout: 10m
  slack_api_url: https://hooks.slack.com/services/T0/B0/s3cret
  smtp_smarthost: localhost:25
  smtp_from: a@b
  smtp_auth_password: s3cret
  smtp_tls_config: {insecure_skip_verify: true}
templates: ['templates/*.tmpl']
route:
  receiver: team-X
  group_by: [alertname, cluster]
  routes:
    - matchers: ['severity="critical"']
      receiver: pager
      group_wait: 10s
      continue: true
      active_time_intervals: [office]
      routes:
        - match: {service: db}
          match_re: {team: a|b}
          group_by: ['...']
    - match_re: {severity: warning|info}
      group_by: []
      repeat_interval: 1d
inhibit_rules:
  - source_match: {severity: critical}
    target_match_re: {severity: warning|info}
    equal: [alertname]
  - source_matchers: [a=b]
    target_matchers: ['c="d"', 'e!=f']
receivers:
  - name: team-X
    slack_configs:
      - channel: '#alerts'
        send_resolved: true
        fields: [{title: a, value: b}, {title: c, value: d, short: false}]
        short_fields: true
        actions: [{type: button, text: Go, url: 'http://x', name: n, confirm: {text: sure}}]
  - name: pager
    pagerduty_configs:
      - routing_key: s3cret
        details: {num_firing: '3', more: {a: ['{{ .Status }}']}}
    webhook_configs:
      - url_file: hook
        http_config: {basic_auth: {username: u, password: s3cret}}
        max_alerts: 5
  - name: unused-mail
    email_configs: [{to: a@b, auth_password: s3cret}]
time_intervals:
  - name: office
    time_intervals:
      - times: [{start_time: '09:00', end_time: '24:00'}]
        weekdays: ['monday:friday', sunday]
        days_of_month: ['1:5', '-3:-1', 15]
        months: ['january:3', december]
        years: [2020:2030]
        location: Europe/Berlin
"#;

#[test]
fn a_full_file_loads_with_defaults_and_inheritance() {
    let options = parse_text(FULL).unwrap();
    assert_eq!(options.resolve_timeout_ms, 600_000);
    let [pager, rest] = &options.route.routes[..] else { panic!("two routes") };
    assert_eq!((pager.group_wait_ms, pager.group_interval_ms), (10_000, 300_000));
    assert_eq!(pager.group_by, options.route.group_by);
    let db = &pager.routes[0];
    assert_eq!(
        (db.receiver.as_str(), &db.group_by, db.group_wait_ms),
        ("pager", &GroupBy::All, 10_000)
    );
    assert!(db.active_time_intervals.is_empty(), "intervals are not inherited");
    assert_eq!(rest.group_by, GroupBy::Labels(BTreeSet::new()));
    assert_eq!((rest.receiver.as_str(), rest.repeat_interval_ms), ("team-X", 86_400_000));
    let tree = RouteTree::new(options.route.clone());
    assert_eq!(
        group_key(&tree.get(2).key, &Labels::from_pairs([("a", "b")])),
        r#"{}/{severity="critical"}/{service="db",team=~"^(?:a|b)$"}:{a="b"}"#
    );
    let kinds = |index: usize| {
        let all = &options.receivers[index].integrations;
        all.iter().map(|one| (one.settings.kind(), one.send_resolved)).collect::<Vec<_>>()
    };
    assert_eq!(kinds(0), [("slack", true)]);
    assert_eq!(kinds(1), [("pagerduty", true), ("webhook", true)]);
    let Settings::Slack(slack) = &options.receivers[0].integrations[0].settings else { panic!() };
    assert_eq!(slack.title, r#"{{ template "slack.default.title" . }}"#);
    assert_eq!(slack.fields.iter().map(|field| field.short).collect::<Vec<_>>(), [true, false]);
    assert!(slack.actions[0].confirm.is_none() && slack.actions[0].name.is_empty());
    let Settings::PagerDuty(pager) = &options.receivers[1].integrations[0].settings else {
        panic!()
    };
    assert_eq!(pager.details["num_firing"], "3");
    assert_eq!(pager.details["num_resolved"], "{{ .Alerts.Resolved | len }}");
    assert_eq!(pager.source, pager.client);
    let Settings::Webhook(hook) = &options.receivers[1].integrations[1].settings else { panic!() };
    assert_eq!(format!("{:?}", hook.url), "File(/etc/am/hook)");
}

#[test]
fn the_status_page_shows_no_secret() {
    let options = parse_text(FULL).unwrap();
    assert!(!options.original.contains("s3cret"), "{}", options.original);
    assert!(!format!("{options:?}").contains("s3cret"));
    assert!(options.original.contains("slack_api_url: <secret>"), "{}", options.original);
    assert!(options.original.contains("group_by"));
}

/// A file that is right but for what is added.
fn with(receiver: &str, more: &str) -> String {
    format!("route: {{receiver: a}}\nreceivers:\n- name: a\n{receiver}\n{more}")
}

#[test]
fn errors_are_in_the_words_of_alertmanager() {
    let check = |text: &str| error(text);
    insta::assert_snapshot!(check(""), @"alertmanager.yml: no route provided in config");
    insta::assert_snapshot!(check("routes: {}"), @r#"alertmanager.yml:1:1: unknown field "routes", expected one of: event_recorder, global, inhibit_rules, mute_time_intervals, receivers, route, templates, time_intervals, tracing"#);
    insta::assert_snapshot!(check("route: {}"), @"alertmanager.yml: root route must specify a default receiver");
    insta::assert_snapshot!(check("route: {receiver: x}"), @r#"alertmanager.yml: undefined receiver "x" used in route"#);
    insta::assert_snapshot!(check("route: {receiver: x, matchers: [a=b]}"), @"alertmanager.yml: root route must not have any matchers");
    insta::assert_snapshot!(check("route: {receiver: x, continue: true}"), @"alertmanager.yml: cannot have continue in root route");
    insta::assert_snapshot!(check("route: {receiver: x, mute_time_intervals: [y]}"), @"alertmanager.yml: root route must not have any mute time intervals");
    insta::assert_snapshot!(check("route: {receiver: x, group_interval: 0s}"), @"alertmanager.yml: group_interval cannot be zero");
    insta::assert_snapshot!(check("route: {receiver: x, group_by: ['...', a]}"), @"alertmanager.yml: cannot have wildcard group_by (`...`) and other labels at the same time");
    insta::assert_snapshot!(check("route: {receiver: x, group_by: [a, a]}"), @r#"alertmanager.yml: duplicated label "a" in group_by"#);
    insta::assert_snapshot!(check("receivers: [{name: a}, {name: a}]\nroute: {receiver: a}"), @r#"alertmanager.yml: notification config name "a" is not unique"#);
    insta::assert_snapshot!(check("receivers: [{}]\nroute: {receiver: a}"), @"alertmanager.yml: missing name in receiver");
    insta::assert_snapshot!(check("route: {receiver: a, routes: [{mute_time_intervals: [y]}]}\nreceivers: [{name: a}]"), @r#"alertmanager.yml: undefined time interval "y" used in route"#);
    insta::assert_snapshot!(check(&with("", "time_intervals: [{name: x}, {name: x}]")), @r#"alertmanager.yml: time interval "x" is not unique"#);
    insta::assert_snapshot!(check("route: {receiver: a, routes: [{matchers: ['a']}]}\nreceivers: [{name: a}]"), @"alertmanager.yml: 0:1: end of input: expected an operator such as '=', '!=', '=~' or '!~'");
}

#[test]
fn receivers_are_checked() {
    let check = |text: &str| error(&with(text, ""));
    insta::assert_snapshot!(check("  slack_configs: [{}]"), @"alertmanager.yml: no Slack API URL nor App token set either inline or in a file");
    insta::assert_snapshot!(check("  slack_configs: [{api_url: 'http://x', api_url_file: y}]"), @"alertmanager.yml: at most one of api_url & api_url_file must be configured");
    insta::assert_snapshot!(check("  slack_configs: [{api_url: 'ftp://x'}]"), @r#"alertmanager.yml: unsupported scheme "ftp" for URL"#);
    insta::assert_snapshot!(check("  slack_configs: [{api_url: 'http://x', actions: [{type: button}]}]"), @"alertmanager.yml: missing text in Slack action configuration");
    insta::assert_snapshot!(check("  slack_configs: [{api_url: 'http://x', fields: [{title: a}]}]"), @"alertmanager.yml: missing value in Slack field configuration");
    insta::assert_snapshot!(check("  pagerduty_configs: [{}]"), @"alertmanager.yml: missing service or routing key in PagerDuty config");
    insta::assert_snapshot!(check("  pagerduty_configs: [{routing_key: a, routing_key_file: b}]"), @"alertmanager.yml: at most one of routing_key & routing_key_file must be configured");
    insta::assert_snapshot!(check("  webhook_configs: [{}]"), @"alertmanager.yml: one of url or url_file must be configured");
    insta::assert_snapshot!(check("  webhook_configs: [{url: 'http://'}]"), @"alertmanager.yml: missing host for URL");
    insta::assert_snapshot!(check("  email_configs: [{to: x}]"), @r#"alertmanager.yml: receiver "a": receiver type email is not supported yet"#);
    insta::assert_snapshot!(check("  smoke_configs: [{}]"), @r#"alertmanager.yml:4:3: unknown field "smoke_configs", expected one of: discord_configs, email_configs, incidentio_configs, jira_configs, labels, mattermost_configs, msteams_configs, msteamsv2_configs, name, opsgenie_configs, pagerduty_configs, pushover_configs, rocketchat_configs, slack_configs, sns_configs, telegram_configs, victorops_configs, webex_configs, webhook_configs, wechat_configs"#);
    insta::assert_snapshot!(error(&with("", "global: {slack_app_token: t, slack_api_url: 'http://x'}")), @"alertmanager.yml: slack_api_url and slack_app_token cannot both be configured unless slack_api_url is slack_app_url");
}

#[test]
fn an_app_token_goes_to_the_app_url_and_updates_work() {
    let text = with(
        "  slack_configs: [{update_message: true, channel: c}]",
        "global: {slack_app_token: t, http_config: {follow_redirects: false}}",
    );
    let options = parse_text(&text).unwrap();
    let integration = &options.receivers[0].integrations[0];
    let Settings::Slack(slack) = &integration.settings else { panic!("slack") };
    assert!(slack.app_token.is_some() && slack.update_message && integration.resolve_when_muted);
    assert!(!integration.http.follow_redirects);
}

#[test]
fn intervals_are_checked() {
    let check = |interval: &str| {
        let more = format!("time_intervals: [{{name: x, time_intervals: [{interval}]}}]");
        parse_text(&with("", &more)).err().map_or("ok".to_owned(), |err| err.message)
    };
    for (interval, text) in [
        ("{times: [{start_time: '09:00', end_time: '24:00'}]}", "ok"),
        (
            "{times: [{start_time: '9:00', end_time: '24:00'}]}",
            "couldn't parse timestamp 9:00, invalid format",
        ),
        (
            "{times: [{start_time: '09:00', end_time: '09:00'}]}",
            "start time cannot be equal or greater than end time",
        ),
        ("{times: [{start_time: '09:00'}]}", "both start and end times must be provided"),
        ("{weekdays: ['saturday:sunday']}", "start day cannot be before end day"),
        ("{weekdays: [Friday]}", "ok"),
        ("{weekdays: [fri]}", "fri is not a valid weekday"),
        ("{days_of_month: ['-1:5']}", "end day must be negative if start day is negative"),
        ("{days_of_month: [0]}", "0 is not a valid day of the month: out of range"),
        ("{days_of_month: ['5:-1']}", "ok"),
        ("{months: [13]}", "13 is not a valid month"),
        ("{location: Mars}", "error loading timezone location: unknown time zone Mars"),
    ] {
        assert_eq!(check(interval), text, "{interval}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test writes its own files")]
fn templates_are_read_from_beside_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.tmpl"), r#"{{ define "x" }}y{{ end }}"#).unwrap();
    let path = folder.path().join("alertmanager.yml");
    std::fs::write(&path, with("", "templates: ['*.tmpl', 'none/*']")).unwrap();
    let flags = Flags { external_url: String::new(), retention_ms: 1 };
    load(&OsDisk, &path, &flags).unwrap();
    std::fs::write(folder.path().join("b.tmpl"), r#"{{ define "x" }"#).unwrap();
    let refused = load(&OsDisk, &path, &flags).err().map(|err| err.file);
    assert_eq!(refused, Some(folder.path().join("b.tmpl")));
}
